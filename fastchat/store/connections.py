"""Connections to PostgreSQL that come back by themselves; the only importer of txpostgres.

A `Pool` keeps a number of connections open. Each use of one has a deadline; whatever ends a connection, or misses the
deadline, ends in `Busy` for its caller, and the connection is closed and replaced in the background until that
succeeds. txpostgres' own DeadConnectionDetector is not used: it cannot give up a query or a connection attempt that
hangs. What a session must have set comes in its start-up options, so a replaced connection has it as well. This module
knows no query of ours beyond the edges of a transaction, and no error of the domain but `Busy`; any other is a
refusal, which nobody has to hear.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import psycopg2
from psycopg2.extensions import make_dsn, parse_dsn, register_type
from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.internet.error import ConnectionClosed
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure
from txpostgres import txpostgres  # type: ignore[import-untyped]

from fastchat.errors import Busy, FastChatError
from fastchat.store.queries import query
from fastchat.store.values import AS_OCTETS

_ASK, _BEGIN, _COMMIT, _ROLLBACK = query("ask"), query("begin"), query("commit"), query("rollback")

DATABASE_AWAY = (psycopg2.OperationalError, psycopg2.InterfaceError, ConnectionClosed, CancelledError)
"""What a query fails with when its connection, its time or its server is gone. Ask again. (`CancelledError` is what
txpostgres makes of the server's own statement_timeout; nothing here cancels a query.)"""

WAITING_KEPT = 1000
"""Calls that may wait for a connection of a pool; one more is refused at once."""
PLANNER = {
    # Every query here is short: compiling one costs more than running it.
    "jit": "off",
    # The pages in use are in memory: with the default of 4, deleting 50 rows of 10,000 reads them all.
    "random_page_cost": "1.1",
}
RETRY_FIRST, RETRY_FACTOR, RETRY_MOST = 0.1, 2.0, 5.0
"""Seconds between attempts to get a connection back."""

T = TypeVar("T")
Row = tuple[Any, ...]
Parameters = Mapping[str, object] | None


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


async def _ask(session: Session) -> None:
    await session.run(_ASK)


class Pool:
    """`size` connections with the same options, lent in the order of asking.

    `options` are server settings for every connection, `prepare` is run on each before its first use. Deadlines are in
    seconds.
    """

    _log = Logger()

    def __init__(
        self,
        name: str,
        dsn: str,
        options: Mapping[str, str],
        size: int,
        connect_seconds: float,
        statement_seconds: float,
        reactor: Any,
        prepare: str | None = None,
    ) -> None:
        settings = {
            **PLANNER,
            **options,
            # The server itself ends what nobody waits for any more.
            "statement_timeout": str(max(1, int(statement_seconds * 1000))),
            "idle_in_transaction_session_timeout": str(max(1, int(statement_seconds * 2000))),
        }
        self.name = name
        self._dsn = with_settings(dsn, name, settings)
        self._size = size
        self._connect_seconds = connect_seconds
        self._statement_seconds = statement_seconds
        self._reactor = reactor
        self._prepare = prepare
        self._idle: list[_Connection] = []
        self._lent: set[_Connection] = set()
        self._connecting: set[_Connection] = set()
        self._retries: set[IDelayedCall] = set()
        self._missing = 0
        self._waiting: deque[Deferred[_Connection]] = deque()
        self._drained: Deferred[None] | None = None
        self._askers: list[Deferred[bool]] = []
        self._open = False

    @property
    def available(self) -> bool:
        """Whether every connection is there."""
        return self._open and not self._missing

    async def open(self) -> None:
        """Connect all. Raises `psycopg2.Error` or one of `DATABASE_AWAY`, and then nothing is left open."""
        self._open = True
        try:
            for _ in range(self._size):
                self._idle.append(await self._connect())
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Let what is under way finish (it has a deadline), refuse the rest, and disconnect."""
        self._open = False
        self._refuse_waiting()
        for call in self._retries:
            call.cancel()
        self._retries.clear()
        for connection in list(self._connecting):
            connection.close()
        if self._lent:
            self._drained = Deferred()
            await self._drained
        while self._idle:
            self._idle.pop().close()

    async def run(self, work: Callable[[Session], Coroutine[Any, Any, T]]) -> T:
        """The result of `work` on a connection of its own, within the deadline.

        Raises `Busy` when the database or the time is gone; otherwise what `work` raises. A caller who goes away stops
        nothing: what was begun is finished.
        """
        answer: Deferred[T] = Deferred()

        def hand_over(result: T | Failure) -> None:
            if not answer.called:
                answer.callback(result)
            elif isinstance(result, Failure) and not isinstance(result.value, FastChatError):
                self._log.failure("{name}: failed after its caller had gone", failure=result, name=self.name)

        Deferred.fromCoroutine(self._serve(work)).addBoth(hand_over)
        return await answer

    async def answers(self, seconds: float) -> bool:
        """Whether a query is answered within `seconds`. Who asks while another asks waits for the same answer, so a
        database that hangs is not asked any more by many who want to know whether it does."""
        waiter: Deferred[bool] = Deferred()
        self._askers.append(waiter)
        if len(self._askers) == 1:
            Deferred.fromCoroutine(self.run(_ask)).addBoth(self._answered)
        waiter.addTimeout(seconds, self._reactor)
        try:
            return await waiter
        except TimeoutError:
            return False

    def _answered(self, result: Failure | None) -> None:
        askers, self._askers = self._askers, []
        for waiter in askers:
            # Twisted lets one result pass unheard after a timeout.
            waiter.callback(not isinstance(result, Failure))

    async def _serve(self, work: Callable[[Session], Coroutine[Any, Any, T]]) -> T:
        until = self._reactor.seconds() + self._statement_seconds
        connection = await self._borrow()
        timer = self._reactor.callLater(max(0.0, until - self._reactor.seconds()), connection.close)
        try:
            result = await work(Session(connection))
        except DATABASE_AWAY as error:
            late = isinstance(error, CancelledError) or not timer.active()
            self._give_up(connection, "a deadline was missed" if late else first_line(error))
            raise Busy("The database cannot be reached, or is too slow.") from error
        except BaseException:
            self._give_back(connection)
            raise
        finally:
            if timer.active():
                timer.cancel()
        self._give_back(connection)
        return result

    async def _borrow(self) -> _Connection:
        if not self._open or self._missing == self._size or len(self._waiting) >= WAITING_KEPT:
            raise Busy("The database cannot be reached, or has too much to do.")
        if self._idle:
            connection = self._idle.pop()
            self._lent.add(connection)
            return connection
        turn: Deferred[_Connection] = Deferred()
        turn.addTimeout(self._statement_seconds, self._reactor)
        self._waiting.append(turn)
        try:
            return await turn
        except (CancelledError, TimeoutError) as error:
            self._waiting.remove(turn)
            raise Busy("The database has too much to do.") from error

    def _give_back(self, connection: _Connection) -> None:
        self._lent.discard(connection)
        if connection.closed:  # lost in the moment in which its work was done
            self._replace(connection)
        else:
            self._lend_or_keep(connection)
        self._drain()

    def _give_up(self, connection: _Connection, reason: str) -> None:
        self._lent.discard(connection)
        self._log.warn("{name}: lost a connection: {reason}", name=self.name, reason=reason)
        self._replace(connection)
        self._drain()

    def _lend_or_keep(self, connection: _Connection) -> None:
        if self._waiting:
            self._lent.add(connection)
            self._waiting.popleft().callback(connection)
        else:
            self._idle.append(connection)

    def _drain(self) -> None:
        if self._drained is not None and not self._lent:
            drained, self._drained = self._drained, None
            drained.callback(None)

    def _lost(self, connection: _Connection) -> None:
        """An idle connection ended. One that is lent or being made is noticed by whoever uses it."""
        if connection in self._idle:
            self._log.warn("{name}: lost an idle connection", name=self.name)
            self._idle.remove(connection)
            self._replace(connection)

    def _replace(self, connection: _Connection) -> None:
        connection.close()
        if not self._open:
            return
        self._missing += 1
        if self._missing == self._size:
            self._refuse_waiting()
        self._later(0.0, RETRY_FIRST)

    def _refuse_waiting(self) -> None:
        for turn in list(self._waiting):
            turn.cancel()

    def _later(self, delay: float, next_delay: float) -> None:
        def start() -> None:
            self._retries.discard(call)
            Deferred.fromCoroutine(self._reconnect(next_delay)).addErrback(
                lambda failure: self._log.failure("{name}: cannot reconnect", failure=failure, name=self.name)
            )

        call = self._reactor.callLater(delay, start)
        self._retries.add(call)

    async def _reconnect(self, next_delay: float) -> None:
        try:
            connection = await self._connect()
        except (psycopg2.Error, *DATABASE_AWAY) as error:
            self._log.debug("{name}: cannot reconnect: {reason}", name=self.name, reason=first_line(error))
            if self._open:
                self._later(next_delay, min(RETRY_MOST, next_delay * RETRY_FACTOR))
            return
        if not self._open:
            connection.close()
            return
        self._missing -= 1
        self._log.info("{name}: a connection is back", name=self.name)
        self._lend_or_keep(connection)

    async def _connect(self) -> _Connection:
        connection = _Connection(self._reactor, lambda: self._lost(connection))
        self._connecting.add(connection)
        timer = self._reactor.callLater(self._connect_seconds, connection.close)
        try:
            await connection.connect(self._dsn)
            if self._prepare is not None:
                await Session(connection).run(self._prepare)
        except BaseException:
            connection.close()
            raise
        finally:
            self._connecting.discard(connection)
            if timer.active():
                timer.cancel()
        return connection


def with_settings(dsn: str, name: str, settings: Mapping[str, str]) -> str:
    """The DSN with server settings for its sessions, after those that it has; `name` is for pg_stat_activity."""
    given = parse_dsn(dsn).get("options", "")
    settings = {"client_encoding": "UTF8", **settings}
    # libpq says it itself, after the options.
    encoding = settings.pop("client_encoding")
    options = " ".join([given, *(f"-c {name}={value}" for name, value in settings.items())]).strip()
    return make_dsn(dsn, options=options, client_encoding=encoding, application_name=f"fastchat {name}")


def first_line(error: BaseException) -> str:
    """What a database error says, without its hints and the position in the query."""
    return (str(error).strip() or type(error).__name__).partition("\n")[0]
