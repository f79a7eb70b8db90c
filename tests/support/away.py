"""Stores for tests of the rules: in memory, and one that can be slow or away when a test says so."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred

from fastchat.config import Config
from fastchat.errors import Busy
from fastchat.store import Store
from fastchat.store.memory import MemoryStore


def memory_store() -> MemoryStore:
    """An empty one with the limits that a network starts with."""
    return MemoryStore(Config(home=Path("home that is not there")))


class AwayStore:
    """Passes every call on to `store` (one in memory), counts it, and refuses it while `away`; while `held`, calls wait
    for `release`."""

    def __init__(self, store: Store | None = None) -> None:
        self._store: Store = store or memory_store()
        self.away = False
        self.away_after: int | None = None
        """So many more calls are answered, and no others; None: as `away` says."""
        self.held = False
        self.calls: Counter[str] = Counter()
        self._waiting: list[Deferred[None]] = []

    def release(self) -> None:
        """Let all waiting calls go on, and hold no more."""
        self.held = False
        waiting, self._waiting = self._waiting, []
        for call in waiting:
            call.callback(None)

    def step(self, most: int | None = None) -> None:
        """Let the calls that wait go on, the oldest `most` of them, and hold what they lead to."""
        waiting, self._waiting = self._waiting[:most], self._waiting[len(self._waiting[:most]) :]
        for call in waiting:
            call.callback(None)

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)

        async def call(*args: Any, **kwargs: Any) -> Any:
            self.calls[name] += 1
            if self.held:
                waiter: Deferred[None] = Deferred()
                self._waiting.append(waiter)
                await waiter
            if self.away or self.away_after == 0:
                raise Busy("the database is away")
            if self.away_after is not None:
                self.away_after -= 1
            return await method(*args, **kwargs)

        return call
