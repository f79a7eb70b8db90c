"""How far something has come that takes a while: what had been waiting, in lines where there is no status line; and how
fast a file goes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from fastchat_client.events import MailboxProgress
from fastchat_client.terminal.render import receiving

PACE_SECONDS = 5.0
"""Of the past, by which it is judged how fast a file goes."""
LINE_EVERY = 2.0
"""Seconds between two lines; what is over earlier is not worth one."""


class Progress:
    """`seconds` tells the time."""

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._seconds = seconds
        self._due: float | None = None
        self._has_said = False

    def line(self, event: MailboxProgress) -> str | None:
        """What is to be said of it now, if anything."""
        if event.done >= event.total:
            had_said, self._has_said, self._due = self._has_said, False, None
            return f"received {event.total:,} messages" if had_said else None
        now = self._seconds()
        if self._due is None:
            self._due = now + LINE_EVERY
        if now < self._due:
            return None
        self._due = now + LINE_EVERY
        self._has_said = True
        return receiving(event)

    def broken_off(self) -> None:
        """The connection is gone; another one begins anew."""
        self._has_said, self._due = False, None


class Pace:
    """How fast something goes now. `seconds` tells the time."""

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._seconds = seconds
        self._seen: deque[tuple[float, int]] = deque()

    def at(self, done: int) -> None:
        """So much of it is done now. Less than before: it begins anew."""
        now = self._seconds()
        if self._seen and done < self._seen[-1][1]:
            self._seen.clear()
        self._seen.append((now, done))
        while self._seen[0][0] < now - PACE_SECONDS and len(self._seen) > 2:
            self._seen.popleft()

    def rate(self) -> float:
        """Of the last seconds, a second; 0 if that cannot be said yet, or nothing moves."""
        if len(self._seen) < 2:
            return 0.0
        (began, before), (_, done) = self._seen[0], self._seen[-1]
        # By the time that it is, not that of the last step: what has stopped becomes slower.
        return (done - before) / passed if (passed := self._seconds() - began) > 0 else 0.0
