"""A chat service: a port, the sessions on it, and what it reports to the balancer.

It gives sessions a place to live (`fastchat.protocols.session.Service`) and tells their connections what happens;
what is said on them it does not know.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from twisted.application.service import Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import LoopingCall
from twisted.internet.tcp import Port
from twisted.logger import Logger

from fastchat.delivery import Counters
from fastchat.identity.login import CHALLENGE_SIZE
from fastchat.protocols.line import LineShell
from fastchat.protocols.session import FINISH_SECONDS, LEAVE_SECONDS, Session
from fastchat.protocols.wire import ServiceAddress
from fastchat.services.listening import channel_binding, listen
from fastchat.services.node import Node
from fastchat.services.operations import ServiceStatus

TICK_SECONDS = 5.0
"""How often sessions are asked whether their other side is there: one timer for all."""

TELL_SECONDS = 3.0
"""How long a service that stops takes to tell everybody, while others are there to take them. Who had no turn by then
is told to come to them later."""

DRAIN_SECONDS = TELL_SECONDS + FINISH_SECONDS + LEAVE_SECONDS
"""The most that a drain takes, whatever clients do; without the first part if nobody else takes them."""


def farewells(count: int, per_second: float, away: float) -> Iterator[tuple[float, float]]:
    """For each of `count` clients, in how many seconds it is told to leave, and the seconds that it then waits before
    it connects anew: so that no more than `per_second` arrive, after nobody is there for `away` seconds."""
    for number in range(count):
        turn = number / per_second
        told = 0.0 if away else min(turn, TELL_SECONDS)
        yield told, away + turn - told


class ChatService(Service):
    """Chat service `name` on `port` (0: any free). `listen` first; it raises `ConfigError` if the port is taken."""

    log = Logger()

    def __init__(self, name: str, port: int, node: Node) -> None:
        self.setName(name)  # type: ignore[no-untyped-call]
        self.name: str = name
        self.limits = node.config.limits
        self.accounts = node.accounts
        self.directory = node.directory
        self.delivery = node.delivery
        self.groups = node.groups
        self.attachments = node.attachments
        self.failures = node.failures
        self.claims = node.claims
        self.reactor = node.reactor
        self.counters = Counters()
        self._node = node
        self._wanted_port = port
        self._listening: Port | None = None
        self._address: ServiceAddress | None = None
        self._draining = False
        self._empty: Deferred[None] | None = None
        """While it waits for its last session to go."""
        self._open: set[Session] = set()
        self._greeted: set[Session] = set()
        self._ticking = LoopingCall(self._tick)
        self._ticking.clock = node.reactor

    def listen(self) -> ServiceAddress:
        """Take the port and report to the balancer; answers where clients find it. After `drain`, the same port."""
        self._listening, port = listen(self._node, self._wanted_port, self._converse)
        self._wanted_port = port
        self._address = ServiceAddress(self.name, self._node.config.advertised_host, port)
        self._report()
        self._ticking.start(TICK_SECONDS, now=False).addErrback(
            lambda failure: self.log.failure("{name} stopped ticking", failure, name=self.name)
        )
        return self._address

    def status(self) -> ServiceStatus:
        port = self._address.port if self._address is not None else 0
        leases = sum(load.leases for load in self._node.placement.loads() if load.service.name == self.name)
        counters = self.counters
        return ServiceStatus(
            self.name, port, self.sessions, leases, counters.accepted, counters.stored, self._listening is not None
        )

    @property
    def sessions(self) -> int:
        """Greeted and not gone."""
        return len(self._greeted)

    async def drain(self, away: float = 0.0, per_second: float | None = None) -> None:
        """Take no new connection, send everybody elsewhere, and wait until they are gone: within `DRAIN_SECONDS`.

        `away`: seconds for which nobody else takes them; 0: the others do, at once. `per_second`: how many may arrive
        there in a second (None: as the limits say). What was in flight is accepted before a client goes, or handed to
        the mailboxes as its session ends; `Delivery.stop` waits until it is written.
        """
        self._draining = True
        self._node.placement.drain(self.name)
        listening, self._listening = self._listening, None
        calls: list[IDelayedCall] = []
        try:
            if listening is not None:
                await maybeDeferred(listening.stopListening)
            sessions = list(self._open)
            pace = farewells(len(sessions), per_second or self.limits.goaways_per_second, away)
            for session, (when, after) in zip(sessions, pace, strict=True):
                calls.append(self.reactor.callLater(when, session.leave, after, "this service stops"))
            if self._open:
                self._empty = Deferred()
                await self._empty
        finally:
            for call in calls:
                if call.active():
                    call.cancel()
            self._empty = None
        self._draining = False
        self._node.placement.remove(self.name)
        if self._ticking.running:
            self._ticking.stop()

    # --- fastchat.protocols.session.Service ----------------------------------------------------------------------

    def greeted(self, session: Session, lease: str) -> None:
        self._greeted.add(session)
        self._report(lease)

    def ended(self, session: Session) -> None:
        self._open.discard(session)
        if session in self._greeted:
            self._greeted.discard(session)
            self._report()
        if not self._open and self._empty is not None:
            empty, self._empty = self._empty, None
            empty.callback(None)

    # --- connections ---------------------------------------------------------------------------------------------

    def _converse(self, shell: LineShell, address: str, waited: float) -> Session:
        session = Session(self, shell, address, lambda: channel_binding(shell), os.urandom(CHALLENGE_SIZE), waited)
        self._open.add(session)
        return session

    def _report(self, lease: str = "") -> None:
        if self._address is not None and (self._listening is not None or self._draining):
            self._node.placement.report(self._address, len(self._greeted), (lease,) if lease else ())

    def _tick(self) -> None:
        for session in list(self._open):
            session.tick(TICK_SECONDS)
        self._node.doorway.tick()
