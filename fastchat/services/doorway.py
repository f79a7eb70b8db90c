"""What connections may cost before they are somebody's: their way through TLS and up to the login, in turn.

Of all connections that are not logged in, a few are heard in each turn of the reactor, a little of each; so a turn
costs what a handshake costs, and not what a thousand do that come at once. Who is logged in does not wait. It knows
TLS and no message: whether a connection is somebody's is said by its shell.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from twisted.internet.protocol import Factory, connectionDone
from twisted.internet.tcp import Port
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from twisted.python.failure import Failure

from fastchat.services.memory import give_back

HEARD_A_TURN = 2
"""Connections, of all ports, from which one turn hears something: a TLS handshake takes half a millisecond."""
HEARD_AT_ONCE = 4096
"""Bytes of one connection: as records of one byte each, they cost about as much as a handshake."""
ENDED_BEFORE_CLEANING = 200
"""TLS connections; each leaves some 25 KiB free that may lie below what is in use."""
ACCEPTED_A_TURN = 8
"""Connections that one port takes in one turn. Twisted takes a hundred, and then more."""


class Doorway:
    """Where connections wait to be heard; one for all ports of a process."""

    log = Logger()

    def __init__(self, reactor: Any, clean: Callable[[], None] = give_back) -> None:
        self._reactor = reactor
        self._clean = clean
        self._waiting: deque[Callable[[], None]] = deque()
        self._ended = 0

    def wait(self, proceed: Callable[[], None]) -> None:
        """`proceed` is called once, in a later turn; who has waited longest goes first."""
        self._waiting.append(proceed)
        if len(self._waiting) == 1:
            self._reactor.callLater(0, self._turn)

    def ended(self) -> None:
        """A TLS connection is gone."""
        self._ended += 1

    def tick(self) -> None:
        """Every few seconds: give back what a flood has left."""
        if self._ended >= ENDED_BEFORE_CLEANING:
            self._ended = 0
            self._clean()

    def _turn(self) -> None:
        for _ in range(min(HEARD_A_TURN, len(self._waiting))):
            try:
                self._waiting[0]()
            except Exception:
                self.log.failure("a connection could not be heard")
            self._waiting.popleft()
        if self._waiting:
            self._reactor.callLater(0, self._turn)


class PatientTLS(TLSMemoryBIOProtocol):
    """The server's end of a TLS connection, heard in turn until the shell in it `is_known`."""

    factory: PatientTLSFactory
    wrappedProtocol: Any
    transport: Any

    def dataReceived(self, data: bytes) -> None:
        if self.wrappedProtocol.is_known:
            super().dataReceived(data)  # type: ignore[no-untyped-call]
        else:
            self.hear_in_turn(data)

    def hear_in_turn(self, data: bytes) -> None:
        # What it goes on to send waits in the kernel.
        self.transport.pauseProducing()
        self.factory.doorway.wait(lambda: self._hear(data))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        super().connectionLost(reason)  # type: ignore[no-untyped-call]
        self.factory.doorway.ended()

    def _tlsShutdownFinished(self, reason: Failure | None) -> None:
        # The frames in which TLS ended hold this connection and their own failure: they would be there, and with them
        # what OpenSSL keeps, until cycles are collected.
        if reason is not None and reason.value is not None:
            reason.value.__traceback__ = reason.tb = None
        super()._tlsShutdownFinished(reason)  # type: ignore[no-untyped-call]

    def _hear(self, data: bytes) -> None:
        if not self.connected:
            return
        super().dataReceived(data[:HEARD_AT_ONCE])  # type: ignore[no-untyped-call]
        rest = data[HEARD_AT_ONCE:]
        if rest:
            self.hear_in_turn(rest)
        else:
            self.transport.resumeProducing()


class PatientTLSFactory(TLSMemoryBIOFactory):
    """Without Twisted's extra write buffer: the shell gathers a turn's writes already."""

    protocol = PatientTLS
    noisy = False

    def __init__(self, context: Any, inside: Factory, doorway: Doorway) -> None:
        super().__init__(context, False, inside)
        self.doorway = doorway


class PatientPort(Port):
    """A listening port that does not take everybody at once; the others wait in its backlog."""

    def doRead(self) -> None:
        self.numberAccepts = ACCEPTED_A_TURN
        super().doRead()  # type: ignore[no-untyped-call]
