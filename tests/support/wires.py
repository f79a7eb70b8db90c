"""Connections in memory, driven by a `Clock`: what one end writes, the other end gets in a later turn.

They do what TCP under TLS does as far as line shells can tell: bytes arrive in order or not at all; a peer that does
not read makes the writer's producer pause; closing lets what was written arrive, aborting does not; and a connection
that fell silent tells nobody.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.task import Clock
from twisted.python.failure import Failure

BUFFER = 64 * 1024
"""Bytes under way at which the writer is paused."""


class End:
    """One end; the transport of one protocol. Made in pairs, by `join`."""

    def __init__(self, clock: Clock) -> None:
        self.peer: End
        self.is_open = True
        self.is_silent = False
        """What is written here disappears, and nobody hears of the other end's fate."""
        self._clock = clock
        self._protocol: Any = None
        self._producer: Any = None
        self._reading = True
        self._closing = False
        self._arrived: deque[bytes] = deque()

    # --- what a protocol may do to its transport ---------------------------------------------------------------------

    @property
    def disconnecting(self) -> bool:
        return self._closing

    def write(self, data: bytes) -> None:
        if not self.is_open or self._closing or self.is_silent:
            return
        self.peer._arrived.append(data)
        self._clock.callLater(0, self.peer._deliver)

    def loseConnection(self) -> None:
        if not self._closing:
            self._closing = True
            self._clock.callLater(0, self.peer._deliver)

    def abortConnection(self) -> None:
        self._closing = True
        self._arrived.clear()
        self._clock.callLater(0, self._end, ConnectionAborted(), ConnectionLost())

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        self._producer = producer

    def unregisterProducer(self) -> None:
        self._producer = None

    def pauseProducing(self) -> None:
        self._reading = False

    def resumeProducing(self) -> None:
        self._reading = True
        self._clock.callLater(0, self._deliver)

    # --- what happens in between -------------------------------------------------------------------------------------

    def _deliver(self) -> None:
        while self._arrived and self._reading and self.is_open:
            self._protocol.dataReceived(self._arrived.popleft())
        producer = self.peer._producer
        if producer is not None and self.is_open:
            if sum(map(len, self._arrived)) > BUFFER:
                producer.pauseProducing()
            else:
                producer.resumeProducing()
        if self.peer._closing and not self._arrived:
            self._end(ConnectionDone(), ConnectionDone())

    def _end(self, reason: Exception, peers_reason: Exception) -> None:
        for end, why in ((self, reason), (self.peer, peers_reason)):
            if end.is_open and not (end is self.peer and self.is_silent):
                end.is_open = False
                end._arrived.clear()
                end._protocol.connectionLost(Failure(why))


def join(clock: Clock, one: Any, other: Any) -> tuple[End, End]:
    """Connect two protocols."""
    ends = End(clock), End(clock)
    ends[0].peer, ends[1].peer = ends[1], ends[0]
    for end, protocol in zip(ends, (one, other), strict=True):
        end._protocol = protocol
    for end in ends:
        end._protocol.makeConnection(end)
    return ends
