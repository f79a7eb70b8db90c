"""Connections to PostgreSQL whose queries run on the reactor; the only importer of txpostgres.

txpostgres' own DeadConnectionDetector is not used: it cannot give up a query or a connection attempt that hangs, which
a `ConnectionPool` does. This module knows no query of ours beyond the edges of a transaction.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import psycopg2
from psycopg2.extensions import register_type
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from txpostgres import txpostgres  # type: ignore[import-untyped]

from fastchat.store.pools import DATABASE_AWAY, ConnectionPool, Parameters, Row
from fastchat.store.queries import query
from fastchat.store.values import AS_OCTETS

_BEGIN, _COMMIT, _ROLLBACK = query("begin"), query("commit"), query("rollback")


class _Cursor(txpostgres.Cursor):  # type: ignore[misc]
    """txpostgres' cursor, whose connection is not watched while a query is being sent. libpq closes its socket as soon
    as it finds the other side gone, also then; and the reactor must not keep the number of a socket that is closed: the
    next one that has it would be deaf, whosever it is."""

    def execute(self, query: str, parameters: Parameters = None) -> Deferred[Any]:
        connection = self._connection
        connection.reactor.removeReader(connection)
        executing: Deferred[Any] = super().execute(query, parameters)
        if executing.called and not connection.closed:  # refused before it was sent
            connection.reactor.addReader(connection)
        return executing


class _Connection(txpostgres.Connection):  # type: ignore[misc]
    """txpostgres' connection, made safe to lose: it says so, and leaves nothing behind in the reactor."""

    cursorFactory = _Cursor

    def __init__(self, reactor: Any, lost: Callable[[], None]) -> None:
        super().__init__(reactor)
        self._lost = lost
        self.session = Session(self)

    def doRead(self) -> None:
        try:
            super().doRead()
        except (psycopg2.Error, ValueError):
            # An idle connection ended; there is no query to fail. ValueError: libpq has closed the socket without a
            # word, and the reactor cannot watch number -1.
            self._lost()

    def connectionLost(self, reason: Failure) -> None:
        super().connectionLost(reason)
        self._lost()

    def close(self) -> None:
        if self._connection is None:
            return
        # A cursor whose query is under way is in the reactor with a socket whose number the next one will have. Not
        # every reactor forgets it together with the connection.
        for cursor in self._cursors:
            self.reactor.removeReader(cursor)
            self.reactor.removeWriter(cursor)
        super().close()


class Session:
    """One connection while it is lent to one piece of work."""

    def __init__(self, connection: _Connection) -> None:
        self._connection = connection

    async def rows(self, sql: str, parameters: Parameters = None) -> list[Row]:
        """Run a query of one result and fetch it. `bytea` comes as memoryview, `uuid` with dashes."""
        cursor = self._connection.cursor()
        await cursor.execute(sql, parameters)
        return cursor.fetchall()  # type: ignore[no-any-return]

    async def octets(self, sql: str, parameters: Parameters = None) -> list[bytes | None]:
        """Run a query that fetches one column of `bytea` from a binary cursor: it comes as it is, for `rows` it would
        come in hexadecimal. For a pool whose client_encoding is `OCTETS_ENCODING`."""
        cursor = self._connection.cursor()
        register_type(AS_OCTETS, cursor._cursor)
        await cursor.execute(sql, parameters)
        return [value for (value,) in cursor.fetchall()]

    async def run(self, sql: str, parameters: Parameters = None) -> None:
        """Run one or several statements and discard their results."""
        await self._connection.cursor().execute(sql, parameters)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        """Commit what is done inside, or undo it when anything is raised."""
        await self.run(_BEGIN)
        try:
            yield
        except DATABASE_AWAY:
            raise  # the connection is given up, and the transaction with it
        except BaseException:
            await self.run(_ROLLBACK)
            raise
        await self.run(_COMMIT)


class Pool(ConnectionPool[Session]):
    """Connections for queries."""

    def _new_connection(self, lost: Callable[[], None]) -> _Connection:
        return _Connection(self._reactor, lost)
