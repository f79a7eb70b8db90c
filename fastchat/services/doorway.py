"""What connections may cost before they are somebody's: their way through TLS and up to the login, in turn.

All connections that are not logged in are heard in turn, a little of each, for about a millisecond in a turn of the
reactor; and after that for a while not at all. So they have a share of the time, and a turn costs what a handshake
costs, however many come at once. Who is logged in does not wait. It knows TLS and no message: whether a connection is
somebody's is said by its shell.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Any

from twisted.internet.protocol import Factory, connectionDone
from twisted.internet.tcp import Port
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from twisted.python.failure import Failure

from fastchat.services.memory import give_back

HEARD_SECONDS = 0.0005
"""CPU time after which a turn hears nobody else: a TLS handshake takes about as much."""
PAUSE = 2.0
"""For so many times what they took, those who are not logged in are not heard: they have a third of the time."""
HEARD_AT_ONCE = 4096
"""Bytes of one connection: as records of one byte each, they cost about as much as a handshake."""
ENDED_BEFORE_CLEANING = 200
"""TLS connections; each leaves some 25 KiB free that may lie below what is in use."""


class Doorway:
    """Where connections wait to be heard; one for all ports of a process."""

    log = Logger()

    def __init__(
        self, reactor: Any, clean: Callable[[], None] = give_back, used: Callable[[], float] = time.thread_time
    ) -> None:
        self._reactor = reactor
        self._clean = clean
        self._used = used
        self._waiting: deque[Callable[[], None]] = deque()
        self._is_coming = False
        """Whether the next turn in which somebody is heard is under way."""
        self._ended = 0

    def wait(self, proceed: Callable[[], None]) -> None:
        """`proceed` is called once, in a later turn; who has waited longest goes first."""
        self._waiting.append(proceed)
        if not self._is_coming:
            self._come(0)

    def _come(self, seconds: float) -> None:
        self._is_coming = True
        self._reactor.callLater(seconds, self._turn)

    def ended(self) -> None:
        """A TLS connection is gone."""
        self._ended += 1

    def tick(self) -> None:
        """Every few seconds: give back what a flood has left."""
        if self._ended >= ENDED_BEFORE_CLEANING:
            self._ended = 0
            self._clean()

    def _turn(self) -> None:
        began, spent = self._used(), 0.0
        while self._waiting and spent < HEARD_SECONDS:
            try:
                self._waiting.popleft()()
            except Exception:
                self.log.failure("a connection could not be heard")
            spent = self._used() - began
        self._is_coming = False
        if spent:
            # Also when nobody waits now: those who come next are heard after the pause.
            self._come(PAUSE * spent)


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
    """A listening port that takes one connection when it is its turn; the others wait in its backlog. So who is taken
    is heard soon, and those who came together do not run out of time together. Its factory has the `doorway`."""

    factory: Any

    def doRead(self) -> None:
        self.stopReading()  # type: ignore[no-untyped-call]
        self.factory.doorway.wait(self._take)

    def _take(self) -> None:
        if self.connected:
            # Twisted takes a hundred at once, and then more.
            self.numberAccepts = 1
            super().doRead()  # type: ignore[no-untyped-call]
            self.startReading()  # type: ignore[no-untyped-call]
