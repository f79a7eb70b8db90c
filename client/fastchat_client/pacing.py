"""How many chunks may be on their way at once, so that a file fills the line and not what waits in front of it.

What is said behind a chunk waits for it, wherever on the way that is. So it goes by how long answers take, as LEDBAT
does (RFC 6817): what they take beyond the quickest of this connection is time spent in queues. It knows no clock.
"""

from __future__ import annotations

FIRST = 2
QUICK = 0.05
"""Seconds beyond the quickest answer: a chat message may wait so long for a file."""
SLOW = 0.2


class Pace:
    """For one direction of one connection. `most`: what the network allows."""

    def __init__(self, most: int) -> None:
        self._most = max(1, most)
        self._allowed = float(min(FIRST, self._most))
        self._quickest = float("inf")
        self._has_waited = False
        """Something has waited in a queue: from then on it is felt for where that begins, and not rushed into."""

    def may_send(self, in_flight: int) -> bool:
        """Whether one more may go, while so many are unanswered."""
        return in_flight < int(self._allowed)

    def answered(self, seconds: float) -> None:
        """A chunk was answered so long after it was sent."""
        self._quickest = min(self._quickest, seconds)
        queued = seconds - self._quickest
        if queued < QUICK:
            self._allowed = min(self._allowed + (1 / self._allowed if self._has_waited else 1), self._most)
            return
        self._has_waited = True
        if queued > SLOW:
            self._allowed = max(self._allowed - 1, 1)

    def refused(self) -> None:
        """The network has not taken one for now."""
        self._allowed = max(self._allowed / 2, 1)
