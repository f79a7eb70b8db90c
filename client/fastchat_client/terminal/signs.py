"""Who is writing and who is there, for a few seconds each: signs that come and go, and are never kept."""

from __future__ import annotations

from typing import Any

TYPING_SECONDS = 6.0
"""How long somebody who was said to be writing is shown as such."""
TYPING_EVERY = 4.0
"""Seconds between two such signs of one's own."""


class Signs:
    """`reactor` tells the time."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._writing: dict[str, dict[str, float]] = {}
        self._said_at: dict[str, float] = {}
        self.online: set[str] = set()

    def writes(self, conversation: str, user: str) -> None:
        self._writing.setdefault(conversation, {})[user] = self._reactor.seconds()

    def has_written(self, conversation: str, user: str) -> None:
        """What they were writing is here."""
        self._writing.get(conversation, {}).pop(user, None)

    def writing(self, conversation: str) -> list[str]:
        """Who is writing there now."""
        since = self._reactor.seconds() - TYPING_SECONDS
        users = self._writing.get(conversation, {})
        for user in [user for user, at in users.items() if at <= since]:
            del users[user]
        return list(users)

    def is_time_to_say(self, conversation: str) -> bool:
        """Whether it should be said now that one is writing oneself; it counts as said then."""
        now = self._reactor.seconds()
        if now - self._said_at.get(conversation, -TYPING_EVERY) < TYPING_EVERY:
            return False
        self._said_at[conversation] = now
        return True

    def said(self, conversation: str) -> None:
        """One's message has gone: the next one may be announced at once."""
        self._said_at.pop(conversation, None)

    def is_there(self, user: str, online: bool) -> None:
        if online:
            self.online.add(user)
        else:
            self.online.discard(user)
