"""A transport for fuzzed shells: it keeps what is written, can be full, and knows how it was ended."""

from __future__ import annotations

from typing import Any


class Wire:
    """Enough of a TLS connection over TCP for a `LineShell` and for `services.listening`."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.producer: Any = None
        self.disconnecting = False
        self.is_aborted = False
        self.is_reading = True
        self.is_full = False
        self.written_while_full = False
        self.transport = self
        self.bufferSize = 0

    def write(self, data: bytes) -> None:
        self.written_while_full |= self.is_full
        if not self.is_aborted:
            self.written.append(data)

    def loseConnection(self) -> None:
        self.disconnecting = True

    def abortConnection(self) -> None:
        self.disconnecting = self.is_aborted = True

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        self.producer = producer

    def unregisterProducer(self) -> None:
        self.producer = None

    def pauseProducing(self) -> None:
        self.is_reading = False

    def resumeProducing(self) -> None:
        self.is_reading = True

    def setTcpNoDelay(self, on: bool) -> None: ...

    def getHandle(self) -> Wire:
        return self

    def setsockopt(self, *option: int) -> None: ...

    # --- the other side

    def fill(self) -> None:
        """The other side does not read."""
        self.is_full = True
        if self.producer is not None:
            self.producer.pauseProducing()

    def empty(self) -> None:
        """It reads again."""
        self.is_full = False
        if self.producer is not None:
            self.producer.resumeProducing()
