"""Where the connection stands, as people see it: a dot, some words in the status line, and a line when it matters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastchat_client.events import Connected, Connecting, Disconnected, Event, MailboxProgress, Moving
from fastchat_client.terminal import render
from fastchat_client.terminal.interfaces import Screen
from fastchat_client.terminal.progress import Progress
from fastchat_client.terminal.text import clean_line


class Network:
    """`label`: what a conversation is called."""

    def __init__(self, screen: Screen, reactor: Any, label: Callable[[str], str]) -> None:
        self._screen = screen
        self._reactor = reactor
        self._label = label
        self._lines = Progress(reactor.seconds)
        self._progress: MailboxProgress | None = None
        self._came: dict[str, int] = {}
        self.service = ""
        self._offline = "not connected yet"
        self._told_offline = False
        self._moving = False
        self._retry_at: float | None = None

    @property
    def is_catching_up(self) -> bool:
        """What had been waiting is on its way: too much to announce one by one."""
        return self._progress is not None

    @property
    def is_trying(self) -> bool:
        return self._retry_at is not None

    def came(self, conversation: str) -> None:
        """Something of what had been waiting is here."""
        self._came[conversation] = self._came.get(conversation, 0) + 1

    def words(self) -> str:
        """For the status line."""
        if self._progress is not None:
            return render.receiving(self._progress)
        if self.service:
            return clean_line(self.service)
        if self._moving:
            return "moving to another service"
        if self._retry_at is None:
            return self._offline
        wait = max(0, round(self._retry_at - self._reactor.seconds()))
        return f"not connected; next try in {wait} s" if wait else "connecting"

    def on_event(self, event: Event) -> None:
        if isinstance(event, MailboxProgress):
            self._mailbox(event)
        elif isinstance(event, Connected):
            self.service, self._retry_at, self._offline = event.service, None, ""
            if self._told_offline or not (self._screen.live or self._moving):
                self._screen.show(render.notice(f"connected to {clean_line(event.service, 64)}"))
            self._told_offline = self._moving = False
            if event.waiting:
                self._progress = MailboxProgress(0, event.waiting)
        elif isinstance(event, Connecting):
            self._retry_at = self._reactor.seconds()
        elif isinstance(event, Moving):
            self.service, self._progress, self._moving = "", None, True
            self._retry_at = self._reactor.seconds() + event.retry_in
        elif isinstance(event, Disconnected):
            self._moving = False
            self._disconnected(event)

    def _mailbox(self, event: MailboxProgress) -> None:
        if not self._screen.live and (line := self._lines.line(event)):
            self._screen.show(render.notice(line))
        if event.done < event.total:
            self._progress = event
            return
        self._progress = None
        if self._came:
            came = ", ".join(f"{clean_line(self._label(who), 64)} {count:,}" for who, count in self._came.items())
            self._screen.show([("class:unread", f"While you were away: {came}")])
        self._came = {}

    def _disconnected(self, event: Disconnected) -> None:
        self.service, self._progress = "", None
        self._lines.broken_off()
        reason = clean_line(event.reason)
        if event.retry_in is None:
            self._retry_at, self._offline = None, "not connected"
            self._screen.show([("class:alarm", f"Not connected any more: {reason}")])
            self._screen.show(render.notice("What you write waits in the outbox; /reconnect tries again."))
            return
        self._retry_at = self._reactor.seconds() + event.retry_in
        if not self._told_offline:
            self._told_offline = True
            self._screen.show(render.problem(f"Not connected: {reason}. What you write waits and goes out by itself."))
