"""One file on its way into one folder, while there is a connection: which chunks of it are to be asked for, and what is
written when. It asks nobody for anything itself.
"""

from __future__ import annotations

from pathlib import Path

from fastchat.errors import FastChatError
from fastchat_client.attachment_cipher import PIECE, chunk_count
from fastchat_client.downloads import Wanted
from fastchat_client.saving import Part

AHEAD = 64
"""Pieces that may be here before an earlier one is."""


class Download:
    def __init__(self, wanted: Wanted, sources: list[Path]) -> None:
        self.wanted = wanted
        self.file = wanted.file
        self.count = chunk_count(wanted.file.size)
        self.part = Part(wanted.part, wanted.file.size)
        self.sources = sources
        """Where the same file may be on this disk: tried first."""
        self.is_open = False
        self.is_busy = False
        """Something is done with its part in a thread."""
        self.is_over = False
        self.doubted: set[int] = set()
        """Chunks that were not what was sent, once."""
        self.not_before = 0.0
        self.refusals = 0
        self.told_at = 0.0
        self.problem: FastChatError | None = None
        """Why it comes to its end, as soon as there is a transaction."""
        self._next = 0
        self._again: list[int] = []
        self._ready: dict[int, bytes] = {}
        """Pieces that wait for an earlier one."""

    @property
    def is_complete(self) -> bool:
        """All of it is written; what it is, is another question."""
        return self.part.length == self.file.size

    def opened(self) -> None:
        """Its part is: go on with what that does not have."""
        self.is_open = True
        self._next = self.part.length // PIECE
        self._again.clear()
        self._ready.clear()
        if self.part.length:
            self.sources.clear()

    def next_chunk(self, now: float) -> int | None:
        """The chunk to ask for now, if any."""
        if not self.is_open or self.is_over or self.sources or self.problem or now < self.not_before:
            return None
        if self._again:
            return self._again.pop(0)
        if self.is_complete or self._next >= self.count or self._next > self.part.length // PIECE + AHEAD:
            return None
        self._next += 1
        return self._next - 1

    def ask_again(self, index: int) -> None:
        self._again.append(index)

    def keep(self, index: int, piece: bytes) -> None:
        """Write it as soon as all before it are. Raises `NotSaved`."""
        self._ready[index] = piece
        while not self.is_complete and (index := self.part.length // PIECE) in self._ready:
            self.part.write(self._ready.pop(index))

    def copied(self, *, on: bool) -> None:
        """A slice of the first of `sources` was written; or (not `on`) it is not what it should be."""
        self.part.was_resumed = True  # nobody has vouched for what it is
        if not on or self.is_complete:
            self.sources.pop(0)
            self._next = self.part.length // PIECE
            if not self.is_complete:
                self.part.cut()
