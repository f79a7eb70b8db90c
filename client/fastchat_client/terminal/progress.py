"""How far the receiving of what had been waiting has come, in lines, for where there is no status line."""

from __future__ import annotations

from collections.abc import Callable

from fastchat_client.events import MailboxProgress
from fastchat_client.terminal.render import receiving

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
