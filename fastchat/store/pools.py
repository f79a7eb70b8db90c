"""Connections to PostgreSQL that come back by themselves, whatever kind they are.

A `ConnectionPool` keeps a number of connections open. Each use of one has a deadline; whatever ends a connection, or
misses the deadline, ends in `Busy` for its caller, and the connection is closed and replaced in the background until
that succeeds. What a session must have set comes in its start-up options, so a replaced connection has it as well. This
module knows neither how a connection is made nor a query of ours but the one that asks whether somebody is there, and
no error of the domain but `Busy`; any other is a refusal, which nobody has to hear.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, Generic, Protocol, TypeVar

import psycopg2
from psycopg2.extensions import make_dsn, parse_dsn
from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.internet.error import ConnectionClosed
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from fastchat.errors import Busy, FastChatError
from fastchat.store.queries import query

_ASK = query("ask")

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

Row = tuple[Any, ...]
Parameters = Mapping[str, object] | None


class Asked(Protocol):
    """A connection while it is lent to one piece of work."""

    async def run(self, sql: str) -> None:
        """Run one or several statements and discard their results."""


T = TypeVar("T")
S = TypeVar("S", bound=Asked)
S_co = TypeVar("S_co", bound=Asked, covariant=True)


class Connection(Protocol[S_co]):
    """What a pool keeps. Everything is called in the reactor's thread."""

    @property
    def closed(self) -> Any:
        """False while it may be used."""

    @property
    def session(self) -> S_co: ...

    def connect(self, dsn: str) -> Awaitable[object]:
        """Once. Fails with `psycopg2.Error` or one of `DATABASE_AWAY`."""

    def close(self) -> None:
        """At once, any number of times; what is under way on it fails with one of `DATABASE_AWAY`."""


async def _ask(session: Asked) -> None:
    await session.run(_ASK)


class ConnectionPool(Generic[S]):
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
        # What connects without the reactor, libpq itself gives up.
        self._dsn = make_dsn(with_settings(dsn, name, settings), connect_timeout=math.ceil(connect_seconds))
        self._size = size
        self._connect_seconds = connect_seconds
        self._statement_seconds = statement_seconds
        self._reactor = reactor
        self._prepare = prepare
        self._idle: list[Connection[S]] = []
        self._lent: set[Connection[S]] = set()
        self._connecting: set[Connection[S]] = set()
        self._retries: set[IDelayedCall] = set()
        self._missing = 0
        self._waiting: deque[Deferred[Connection[S]]] = deque()
        self._drained: Deferred[None] | None = None
        self._askers: list[Deferred[bool]] = []
        self._open = False

    def _new_connection(self, lost: Callable[[], None]) -> Connection[S]:
        """One that is not connected. It calls `lost` when it ends while nobody uses it."""
        raise NotImplementedError

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

    async def run(self, work: Callable[[S], Coroutine[Any, Any, T]]) -> T:
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

    async def _serve(self, work: Callable[[S], Coroutine[Any, Any, T]]) -> T:
        until = self._reactor.seconds() + self._statement_seconds
        connection = await self._borrow()
        timer = self._reactor.callLater(max(0.0, until - self._reactor.seconds()), connection.close)
        try:
            result = await work(connection.session)
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

    async def _borrow(self) -> Connection[S]:
        if not self._open or self._missing == self._size or len(self._waiting) >= WAITING_KEPT:
            raise Busy("The database cannot be reached, or has too much to do.")
        if self._idle:
            connection = self._idle.pop()
            self._lent.add(connection)
            return connection
        turn: Deferred[Connection[S]] = Deferred()
        turn.addTimeout(self._statement_seconds, self._reactor)
        self._waiting.append(turn)
        try:
            return await turn
        except (CancelledError, TimeoutError) as error:
            self._waiting.remove(turn)
            raise Busy("The database has too much to do.") from error

    def _give_back(self, connection: Connection[S]) -> None:
        self._lent.discard(connection)
        if connection.closed:  # lost in the moment in which its work was done
            self._replace(connection)
        else:
            self._lend_or_keep(connection)
        self._drain()

    def _give_up(self, connection: Connection[S], reason: str) -> None:
        self._lent.discard(connection)
        self._log.warn("{name}: lost a connection: {reason}", name=self.name, reason=reason)
        self._replace(connection)
        self._drain()

    def _lend_or_keep(self, connection: Connection[S]) -> None:
        if self._waiting:
            self._lent.add(connection)
            self._waiting.popleft().callback(connection)
        else:
            self._idle.append(connection)

    def _drain(self) -> None:
        if self._drained is not None and not self._lent:
            drained, self._drained = self._drained, None
            drained.callback(None)

    def _lost(self, connection: Connection[S]) -> None:
        """An idle connection ended. One that is lent or being made is noticed by whoever uses it."""
        if connection in self._idle:
            self._log.warn("{name}: lost an idle connection", name=self.name)
            self._idle.remove(connection)
            self._replace(connection)

    def _replace(self, connection: Connection[S]) -> None:
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

    async def _connect(self) -> Connection[S]:
        connection = self._new_connection(lambda: self._lost(connection))
        self._connecting.add(connection)
        timer = self._reactor.callLater(self._connect_seconds, connection.close)
        try:
            await connection.connect(self._dsn)
            if self._prepare is not None:
                await connection.session.run(self._prepare)
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
