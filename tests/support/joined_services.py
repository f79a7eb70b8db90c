"""The server's side of the joined system (`tests.support.joined`): chat services without ports."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from twisted.python.failure import Failure

from fastchat.accounts import Accounts
from fastchat.attachments import Attachments
from fastchat.delivery import Counters, Delivery
from fastchat.directory import Directory
from fastchat.errors import ProtocolError
from fastchat.identity.login import ChannelBinding
from fastchat.limits import Claims, LoginFailures
from fastchat.placement import Placement
from fastchat.protocols.balancer import BalancerSession
from fastchat.protocols.line import LineShell
from fastchat.protocols.session import Session
from fastchat.protocols.wire import ServiceAddress
from tests.support.away import AwayStore
from tests.support.wires import End

if TYPE_CHECKING:
    from tests.support.joined import Net

HOST = "chat.test"
BALANCER = 7400
SERVICES = tuple(f"chat-{number}" for number in range(1, 6))
TICK_SECONDS = 5.0


class Service:
    """A chat service (`fastchat.protocols.session.Service`) without a port, but with a process of its own."""

    def __init__(self, net: Net, name: str, number: int) -> None:
        self.name = name
        self.limits = net.limits
        self.reactor: Any = net.clock
        self.reach = AwayStore(net.store)
        """Its way to the database."""
        self.accounts = Accounts(self.reach, net.log_key)
        self.directory = Directory(self.reach, net.log_key)
        self.delivery = Delivery(self.reach, net.bus, net.clock, net.limits, net.wall)
        self.groups = net.groups
        self.attachments = Attachments(self.reach, net.attachment_limits, net.clock, net.wall)
        net.bus.watch(self.accounts.forget)
        self.failures = LoginFailures(net.clock.seconds)
        limits = net.limits
        self.claims = Claims(net.clock.seconds, limits.claims_per_second, limits.claims_burst, limits.claims_of_one)
        self.counters = Counters()
        self.address = ServiceAddress(name, HOST, BALANCER + number)
        self.sessions: set[Session] = set()
        self.greeted_sessions: set[Session] = set()
        self.ends: list[End] = []
        self.is_dead = self.is_leaving = False
        self._placement = net.placement
        self._ticking = LoopingCall(self._tick)
        self._ticking.clock = net.clock
        self._ticking.start(TICK_SECONDS, now=False).addErrback(never)
        self.delivery.start()
        self.attachments.start()
        self._placement.report(self.address, 0)

    def greeted(self, session: Session, lease: str) -> None:
        self.greeted_sessions.add(session)
        self._placement.report(self.address, len(self.greeted_sessions), (lease,) if lease else ())

    def ended(self, session: Session) -> None:
        self.sessions.discard(session)
        self.greeted_sessions.discard(session)
        if not self.is_dead:
            self._placement.report(self.address, len(self.greeted_sessions))

    def dies(self) -> None:
        self.is_dead = True
        self.reach.away = True
        self._placement.remove(self.name)
        self._ticking.stop()
        Deferred.fromCoroutine(self.delivery.stop()).addErrback(never)
        Deferred.fromCoroutine(self.attachments.stop()).addErrback(never)
        for end in self.ends:
            if end.is_open:
                end.abortConnection()

    def leaves(self, after: float = 0.0) -> None:
        """It stops as it should: takes nobody any more, and everybody is asked to go elsewhere."""
        self.is_leaving = True
        self._placement.drain(self.name)
        for session in list(self.sessions):
            session.leave(after, "this service stops")

    def returns(self) -> None:
        """It takes people again, after everybody has left."""
        assert not self.sessions
        self._placement.remove(self.name)
        self.is_leaving = False
        self._placement.report(self.address, 0)

    def _tick(self) -> None:
        for session in list(self.sessions):
            session.tick(TICK_SECONDS)


class SessionOwner:
    """Between a shell and its session, as `fastchat.services.listening` is."""

    def __init__(self, service: Service, binding: ChannelBinding) -> None:
        self._service = service
        self._binding = binding

    def connected(self, shell: LineShell) -> None:
        self._session = Session(self._service, shell, "192.0.2.1", lambda: self._binding, os.urandom(32))
        self._service.sessions.add(self._session)

    def received(self, message: Any) -> None:
        self._session.received(message)

    def bad_frame(self, error: ProtocolError) -> None:
        self._session.bad_frame(error)

    def writable(self, writable: bool) -> None:
        self._session.writable(writable)

    def lost(self, reason: Failure) -> None:
        self._session.lost()


class Question:
    """A connection to the balancer."""

    def __init__(self, placement: Placement) -> None:
        self._placement = placement

    def connected(self, shell: LineShell) -> None:
        self._session = BalancerSession(self._placement, shell.send)

    def received(self, message: Any) -> None:
        self._session.received(message)

    def bad_frame(self, error: ProtocolError) -> None:
        raise error

    def writable(self, writable: bool) -> None: ...

    def lost(self, reason: Failure) -> None: ...


def never(failure: Failure) -> None:
    """Of what cannot fail."""
    failure.raiseException()
