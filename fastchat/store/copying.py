"""Connections to PostgreSQL for `COPY` in binary, which nothing but a blocking connection does.

Each has a thread of its own, from connecting until both end: it is told what to do through a queue, and tells through
the reactor what came of it. The thread alone touches psycopg2's connection. So that it never waits for a server that
hangs, the reactor keeps a second descriptor of the same socket: shutting that down ends whatever the thread waits for.
Only connecting has no socket yet, and ends by libpq's own connect_timeout. This module knows no query, no table and no
file.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterable
from io import BytesIO
from queue import SimpleQueue
from threading import Thread
from typing import Any, TypeVar

import psycopg2
from psycopg2.extensions import connection as Blocking
from psycopg2.extensions import cursor as Cursor
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReadDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from fastchat.store.pools import ConnectionPool

T = TypeVar("T")

_AWAY = "the connection is closed"


class CopySession:
    """One connection while it is lent to one piece of work."""

    def __init__(self, connection: _Connection) -> None:
        self._connection = connection

    async def run(self, sql: str) -> None:
        await self.transaction(lambda cursor: cursor.execute(sql))

    async def transaction(self, work: Callable[[Cursor], T]) -> T:
        """What `work` returns, done in the connection's thread, in a transaction that is committed when it does and
        undone when it raises."""

        def transact(connection: Blocking) -> T:
            with connection, connection.cursor() as cursor:
                return work(cursor)

        return await self._connection.do(transact)


class CopyPool(ConnectionPool[CopySession]):
    """Connections for `COPY`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._threads: set[_Connection] = set()
        self._ended: Deferred[None] | None = None

    async def close(self) -> None:
        """As the others do, and wait until no thread is left."""
        await super().close()
        if self._threads:
            self._ended = Deferred()
            await self._ended

    def _new_connection(self, lost: Callable[[], None]) -> _Connection:
        connection = _Connection(self._reactor, lost, lambda: self._thread_ended(connection))
        self._threads.add(connection)
        return connection

    def _thread_ended(self, connection: _Connection) -> None:
        self._threads.remove(connection)
        if self._ended is not None and not self._threads:
            ended, self._ended = self._ended, None
            ended.callback(None)


class _Connection:
    """A thread and its blocking connection, for the reactor."""

    def __init__(self, reactor: Any, lost: Callable[[], None], ended: Callable[[], None]) -> None:
        self.closed = False
        self.session = CopySession(self)
        self._reactor = reactor
        self._lost = lost
        self._ended = ended
        self._jobs: SimpleQueue[Callable[[Blocking], object] | None] = SimpleQueue()
        self._answer: Deferred[Any] | None = None
        self._wire: _Wire | None = None

    async def connect(self, dsn: str) -> None:
        self._answer = answer = Deferred[None]()
        # Whatever holds a thread up, it does not hold up the end of the process.
        thread = Thread(target=self._live, args=[dsn], name="fastchat copying", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # the system has no room for another one
            self._answer = None
            self._ended()
            raise psycopg2.OperationalError(str(error)) from error
        await answer

    async def do(self, work: Callable[[Blocking], T]) -> T:
        """What `work` returns or raises, done in the thread."""
        if self._wire is None or self.closed:
            raise psycopg2.InterfaceError(_AWAY)
        self._wire.ignore()
        self._answer = answer = Deferred[T]()
        self._jobs.put(work)
        return await answer

    def close(self) -> None:
        if self.closed:
            return
        self.closed = True
        self._jobs.put(None)
        answer, self._answer = self._answer, None
        if self._wire is not None:
            self._wire.ignore()
            if answer is not None:
                self._wire.cut()
        if answer is not None:
            answer.errback(psycopg2.InterfaceError(_AWAY))

    # --- what the thread tells ---------------------------------------------------------------------------------------

    def _connected(self, wire: _Wire) -> None:
        self._wire = wire
        self._did(None)

    def _did(self, result: object) -> None:
        if answer := self._answered():
            answer.callback(result)

    def _failed(self, error: Exception) -> None:
        if answer := self._answered():
            answer.errback(error)

    def _answered(self) -> Deferred[Any] | None:
        """Who waits for it; nobody does when this was closed meanwhile."""
        answer, self._answer = self._answer, None
        if answer is not None and self._wire is not None:
            self._wire.watch()
        return answer

    def _gone(self) -> None:
        if self._wire is not None:
            self._wire.close()
        self._ended()

    # --- the thread --------------------------------------------------------------------------------------------------

    def _live(self, dsn: str) -> None:
        tell = self._reactor.callFromThread
        try:
            connection = psycopg2.connect(dsn)
            wire = _Wire(self._reactor, connection, self._lost)
        except psycopg2.Error as error:
            tell(self._failed, error)
        except OSError as error:
            tell(self._failed, psycopg2.OperationalError(str(error)))
        else:
            tell(self._connected, wire)
            while (work := self._jobs.get()) is not None:
                try:
                    result = work(connection)
                except Exception as error:
                    # Of one that is broken psycopg2 says it in several ways, not all of them errors of its own.
                    tell(self._failed, psycopg2.OperationalError(str(error)) if connection.closed else error)
                else:
                    tell(self._did, result)
            connection.close()
        tell(self._gone)


@implementer(IReadDescriptor)
class _Wire:
    """A connection's socket, in a descriptor of the reactor's own: libpq closes the other one when it likes."""

    def __init__(self, reactor: Any, connection: Blocking, lost: Callable[[], None]) -> None:
        self._reactor = reactor
        self._socket = socket.socket(fileno=os.dup(connection.fileno()))
        self._lost = lost

    def watch(self) -> None:
        """While nothing is asked, there is nothing to be heard but the end, or what is no harm to be taken for it."""
        self._reactor.addReader(self)

    def ignore(self) -> None:
        self._reactor.removeReader(self)

    def cut(self) -> None:
        """Whoever waits for this socket, in any thread, waits no more."""
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            return  # the other side was quicker

    def close(self) -> None:
        self._socket.close()

    def fileno(self) -> int:
        return self._socket.fileno()

    def logPrefix(self) -> str:
        return "fastchat copying"

    def doRead(self) -> None:
        self.ignore()
        self._lost()

    def connectionLost(self, reason: Failure) -> None:
        self.doRead()


_SIGNATURE = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_END = b"\xff\xff"


def copy(cursor: Cursor, sql: str, rows: Iterable[bytes]) -> None:
    """Run a `copy … from stdin (format binary)` with these rows, each of them, whole or in parts, as PostgreSQL's
    manual has a tuple (`COPY`, "Binary Format")."""
    # In one piece: each piece that psycopg2 asks for waits for its turn to run Python.
    data = b"".join([_SIGNATURE, *rows, _END])
    cursor.copy_expert(sql, BytesIO(data), len(data))
