"""The whole network in one process: its parts put together, started in order, stopped in the reverse one.

database → schema → secrets → chat services → balancer → operations; when all of them answer, the screenful for the
person who started it. A failure on the way is one line, and the process ends with it. What the parts do is theirs.
"""

from __future__ import annotations

import resource
from collections.abc import Callable, Coroutine
from random import SystemRandom
from typing import Any, NamedTuple

import msgspec
from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.task import deferLater
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure

from fastchat.accounts import Accounts
from fastchat.attachments import Attachments
from fastchat.bus.local import LocalBus
from fastchat.config import Config
from fastchat.delivery import Delivery
from fastchat.directory import Directory
from fastchat.errors import ConfigError
from fastchat.groups import Groups
from fastchat.identity.invite import Invite, invite_digest
from fastchat.limits import AddressLimits, Claims, LoginFailures
from fastchat.placement import Placement
from fastchat.protocols.line import Turn
from fastchat.protocols.session import FINISH_SECONDS, LEAVE_SECONDS
from fastchat.services import Reactor, postgres
from fastchat.services.balancer import BalancerService
from fastchat.services.certificate import Secrets, open_secrets, write_invite
from fastchat.services.chat import ChatService
from fastchat.services.doorway import Doorway
from fastchat.services.node import Node
from fastchat.services.operations import OperationsService, Status
from fastchat.services.postgres import EmbeddedPostgres
from fastchat.store import AttachmentStore, Store
from fastchat.store.postgres import PostgresStore

CLOSE_SECONDS = 0.25
"""For the balancer and for operations to close their ports."""
WRITE_SECONDS = 1.0
"""For delivery to write what was in flight."""
STORE_SECONDS = 0.5
"""For what is under way in the database to end. A part that takes longer than its time is left behind, and the next one
is stopped: the most that a stop takes is `STOP_SECONDS`."""
STOP_SECONDS = (
    2 * CLOSE_SECONDS + FINISH_SECONDS + LEAVE_SECONDS + WRITE_SECONDS + STORE_SECONDS + postgres.STOP_SECONDS
)
AWAY_SECONDS = 2.0
"""How long clients stay away that are told that all services stop: nothing is back earlier."""
SETTLE_SECONDS = 5.0
"""In a rolling restart, the most that is waited for clients to be elsewhere, before the next service is drained."""
LOOK_SECONDS = 0.1
ANSWER_SECONDS = 2.0
"""How long the database may take to answer before it counts as away, for those who watch over the network."""
OPEN_FILES = 1 << 20
OTHER_FILES = 200
"""Kept for what is no client's connection, such as the database, and for those that are told why they are refused."""


class _Stop(NamedTuple):
    """How one part is stopped. `seconds`: how long it may take; None: it has a deadline of its own."""

    name: str
    stop: Callable[[], Coroutine[Any, Any, object]]
    seconds: float | None


class Running(msgspec.Struct, frozen=True):
    """Where everything is, once it runs."""

    link: str
    balancer: int
    services: tuple[int, ...]
    operations: int
    """Ports."""
    database: str
    """For a person; no password in it."""


def build(
    config: Config, secrets: Secrets, store: Store, chunks: AttachmentStore, reactor: Reactor
) -> tuple[Node, list[ChatService]]:
    """The rules over these stores, and the chat services over the rules. Nothing listens yet."""
    limits = config.limits
    clock = reactor.seconds
    bus = LocalBus()
    placement = Placement(config.strategy, clock, SystemRandom(), limits.lease_seconds, limits.newcomer_share)
    node = Node(
        config=config,
        reactor=reactor,
        tls=secrets.tls,
        accounts=Accounts(store, secrets.log_key),
        directory=Directory(store, secrets.log_key),
        delivery=Delivery(store, bus, reactor, limits),
        groups=Groups(store, bus, limits, clock),
        attachments=Attachments(chunks, config.attachments, reactor),
        placement=placement,
        failures=LoginFailures(clock, limits.login_failures_per_minute),
        claims=Claims(clock, limits.claims_per_second, limits.claims_burst, limits.claims_of_one),
        addresses=AddressLimits(
            clock,
            limits.connections_per_address,
            limits.connects_per_second_per_address,
            limits.loopback_exempt,
            total=_connections(limits.connections),
        ),
        turn=Turn(reactor),
        doorway=Doorway(reactor),
    )
    bus.watch(node.accounts.forget)
    numbers = range(1, config.services + 1)
    return node, [ChatService(f"chat-{number}", config.service_port(number), node) for number in numbers]


class NetworkService(Service):
    """`on_running` is called once all parts answer; `on_failed`, with a line for a person, if one of them cannot."""

    log = Logger()

    def __init__(
        self,
        config: Config,
        reactor: Reactor,
        on_running: Callable[[Running], None],
        on_failed: Callable[[str], None],
    ) -> None:
        self._config = config
        self._reactor = reactor
        self._on_running = on_running
        self._on_failed = on_failed
        self._starting: Deferred[None] | None = None
        self._restarting: Deferred[None] | None = None
        self._stops: list[_Stop] = []
        """How to stop what has been started so far, the first one first."""
        self._store: Store | None = None
        self.chats: list[ChatService] = []
        self._node: Node | None = None

    def startService(self) -> None:
        super().startService()  # type: ignore[no-untyped-call]
        self._starting = Deferred.fromCoroutine(self._start_or_say())

    def stopService(self) -> Deferred[None]:
        super().stopService()  # type: ignore[no-untyped-call]
        if self._starting is not None:
            self._starting.cancel()
        if self._restarting is not None:
            self._restarting.cancel()
        return Deferred.fromCoroutine(self._stop())

    # --- starting ------------------------------------------------------------------------------------------------

    async def _start_or_say(self) -> None:
        try:
            await self._start()
        except CancelledError:
            self.log.info("stopped while it was starting")
        except ConfigError as error:
            self._on_failed(error.message)
        except Exception as error:
            self.log.failure("the network does not start", level=LogLevel.info)
            self._on_failed(f"the network does not start: {error or type(error).__name__}")

    async def _start(self) -> None:
        config = self._config
        _raise_open_files()
        dsn, database = await self._start_database()
        store = self._store = PostgresStore(dsn, config, self._reactor)
        self._stops.append(_Stop("store", store.close, STORE_SECONDS))
        await store.open()
        secrets = open_secrets(config.home, config.advertised_host)
        await store.add_invite(invite_digest(secrets.token), None, None)
        self._node, chats = build(config, secrets, store, store, self._reactor)
        await self._node.directory.checkpoint()
        self._node.delivery.start()
        self._stops.append(_Stop("delivery", self._node.delivery.stop, WRITE_SECONDS))
        self._node.attachments.start()
        self._stops.append(_Stop("attachments", self._node.attachments.stop, WRITE_SECONDS))
        self._stops.append(_Stop("chat services", self._drain, None))
        services = []
        for chat in chats:
            services.append(chat.listen().port)
            self.chats.append(chat)
        balancer = BalancerService(config.port, self._node)
        balancer_port = balancer.listen()
        self._stops.append(_Stop("balancer", balancer.close, CLOSE_SECONDS))
        operations = OperationsService(self.current_status, config.operations_port, self._reactor)
        operations_port = operations.listen()
        self._stops.append(_Stop("operations", operations.close, CLOSE_SECONDS))
        link = str(Invite(config.advertised_host, balancer_port, secrets.pin, secrets.log_public, secrets.token))
        write_invite(config.home, link)
        self._on_running(Running(link, balancer_port, tuple(services), operations_port, database))

    async def _start_database(self) -> tuple[str, str]:
        if self._config.database.dsn is not None:
            return self._config.database.dsn, "PostgreSQL at the configured DSN"
        embedded = EmbeddedPostgres(self._config.home, self._reactor)
        self._stops.append(_Stop("PostgreSQL", embedded.stop, None))
        await embedded.start()
        return embedded.dsn, f"PostgreSQL {embedded.version}, embedded, in {embedded.places.data}"

    # --- stopping ------------------------------------------------------------------------------------------------

    async def _stop(self) -> None:
        while self._stops:
            name, stop, seconds = self._stops.pop()
            stopping: Deferred[object] = Deferred.fromCoroutine(stop())
            if seconds is not None:
                stopping.addTimeout(seconds, self._reactor)
            try:
                await stopping
            except DeferredTimeout:
                self.log.warn("{name}: takes too long to stop, and is left behind", name=name)
            except Exception:
                self.log.failure("{name}: does not stop properly", name=name)

    async def _drain(self) -> None:
        """All of them at once: there is nobody else to go to."""
        pace = self._config.limits.goaways_per_second / max(1, len(self.chats))
        await gatherResults(
            [Deferred.fromCoroutine(chat.drain(AWAY_SECONDS, pace)) for chat in self.chats], consumeErrors=True
        )

    # --- a rolling restart ---------------------------------------------------------------------------------------

    def restart_services(self) -> None:
        """Restart the chat services one after the other, while the others take their clients; nothing if that is being
        done already, or the network is not running. What goes wrong is in the log."""
        is_up = self.running and self._starting is not None and self._starting.called
        if is_up and self._restarting is None:
            self._restarting = Deferred.fromCoroutine(self._restart_each())
            self._restarting.addBoth(self._restarted)

    def _restarted(self, result: Failure | None) -> None:
        self._restarting = None
        if isinstance(result, Failure) and not isinstance(result.value, CancelledError):
            self.log.failure("the services could not be restarted", result)

    async def _restart_each(self) -> None:
        away = AWAY_SECONDS if len(self.chats) == 1 else 0.0
        for chat in self.chats:
            before = sum(each.sessions for each in self.chats)
            self.log.info("{name} restarts", name=chat.name)
            await chat.drain(away)
            try:
                chat.listen()
            except ConfigError as error:
                self.log.error("{name} stays closed: {error}", name=chat.name, error=error.message)
            await self._settled(before)
        self.log.info("all chat services were restarted")

    async def _settled(self, sessions: int) -> None:
        """Until so many are there again, or do not seem to come."""
        patience = self._reactor.seconds() + SETTLE_SECONDS
        while sum(each.sessions for each in self.chats) < sessions and self._reactor.seconds() < patience:
            await deferLater(self._reactor, LOOK_SECONDS)

    # --- what it is doing ----------------------------------------------------------------------------------------

    async def current_status(self) -> Status:
        """For the operations page, within `ANSWER_SECONDS`: a database that hangs is found out by asking it."""
        return self.status(self._store is not None and await self._store.answers(ANSWER_SECONDS))

    def status(self, answers: bool = True) -> Status:
        """What is known. `answers`: the database does, as far as is known."""
        up = answers and self._store is not None and self._store.available
        services = tuple(chat.status() for chat in self.chats)
        problems = () if up else ("the database does not answer",)
        return Status(self._config.strategy, "up" if up else "away", services, problems)


def _connections(wanted: int) -> int:
    """As many connections as are wanted, or as there can be: one more could not even be refused."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return wanted if files == resource.RLIM_INFINITY else max(1, min(wanted, files - OTHER_FILES))


def _raise_open_files() -> None:
    """As many connections as the machine's owner allows, not as few as a shell usually gives."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
