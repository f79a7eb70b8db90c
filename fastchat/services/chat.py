"""A chat service: a port, the sessions on it, and what it reports to the balancer.

It gives sessions a place to live (`fastchat.protocols.session.Service`) and tells their connections what happens;
what is said on them it does not know.
"""

from __future__ import annotations

import os

from twisted.application.service import Service
from twisted.internet.defer import DeferredList, maybeDeferred
from twisted.internet.task import LoopingCall
from twisted.internet.tcp import Port
from twisted.logger import Logger

from fastchat.delivery import Counters
from fastchat.identity.login import CHALLENGE_SIZE
from fastchat.protocols.line import LineShell
from fastchat.protocols.session import Session
from fastchat.protocols.wire import ServiceAddress
from fastchat.services.listening import channel_binding, listen
from fastchat.services.node import Node
from fastchat.services.operations import ServiceStatus

TICK_SECONDS = 5.0
"""How often sessions are asked whether their other side is there: one timer for all."""


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
        self.failures = node.failures
        self.claims = node.claims
        self.reactor = node.reactor
        self.counters = Counters()
        self._node = node
        self._wanted_port = port
        self._listening: Port | None = None
        self._address: ServiceAddress | None = None
        self._open: set[Session] = set()
        self._greeted: set[Session] = set()
        self._ticking = LoopingCall(self._tick)
        self._ticking.clock = node.reactor

    def listen(self) -> ServiceAddress:
        """Take the port and report to the balancer; answers where clients find it."""
        self._listening, port = listen(self._node, self._wanted_port, self._converse)
        self._address = ServiceAddress(self.name, self._node.config.advertised_host, port)
        self._report()
        self._ticking.start(TICK_SECONDS, now=False).addErrback(
            lambda failure: self.log.failure("{name} stopped ticking", failure, name=self.name)
        )
        return self._address

    def status(self) -> ServiceStatus:
        port = self._address.port if self._address is not None else 0
        leases = sum(load.leases for load in self._node.placement.loads() if load.service.name == self.name)
        return ServiceStatus(self.name, port, len(self._greeted), leases, self.counters.accepted, self.counters.stored)

    async def drain(self) -> None:
        """Take no new connection, ask everybody to go elsewhere, and end what is left. What was in flight is handed
        to the mailboxes by the sessions' ends; `Delivery.stop` waits until it is written."""
        if self._listening is None:
            return
        listening, self._listening = self._listening, None
        self._node.placement.remove(self.name)
        if self._ticking.running:
            self._ticking.stop()
        await maybeDeferred(listening.stopListening)
        for session in list(self._open):
            session.leave("this service stops")
        gone = [session.gone for session in self._open]
        await DeferredList(gone)

    # --- fastchat.protocols.session.Service ----------------------------------------------------------------------

    def greeted(self, session: Session, lease: str) -> None:
        self._greeted.add(session)
        self._report(lease)

    def ended(self, session: Session) -> None:
        self._open.discard(session)
        if session in self._greeted:
            self._greeted.discard(session)
            self._report()

    # --- connections ---------------------------------------------------------------------------------------------

    def _converse(self, shell: LineShell, address: str) -> Session:
        session = Session(self, shell, address, lambda: channel_binding(shell), os.urandom(CHALLENGE_SIZE))
        self._open.add(session)
        return session

    def _report(self, lease: str = "") -> None:
        if self._address is not None and self._listening is not None:
            self._node.placement.report(self._address, len(self._greeted), (lease,) if lease else ())

    def _tick(self) -> None:
        for session in list(self._open):
            session.tick(TICK_SECONDS)
