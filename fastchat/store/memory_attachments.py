"""The attachments of the store in memory; it knows what `MemoryStore` gives it and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

from fastchat.errors import QuotaExceeded, RequestError, UnknownUser
from fastchat.protocols.wire import CHUNK_SIZE, MOST_RANGES
from fastchat.store import Account, ChunkOutcome, NewChunk


class _Attachment:
    def __init__(self, user: str, chunks: int, now: float) -> None:
        self.user = user
        self.chunks = chunks
        self.changed = now
        """When it was begun, or something new of it came last."""
        self.data: dict[int, bytes] = {}
        self.devices: int | None = None
        self.readers: set[str] = set()

    @property
    def is_whole(self) -> bool:
        return len(self.data) == self.chunks

    @property
    def is_read(self) -> bool:
        return self.devices is not None and len(self.readers) >= self.devices

    def missing(self, limit: int) -> list[tuple[int, int]]:
        present = [-1, *sorted(self.data), self.chunks]
        return [(before + 1, index) for before, index in pairwise(present) if index > before + 1][:limit]


class MemoryAttachments:
    """An `AttachmentStore`."""

    _accounts: Mapping[str, Account]
    _check_available: Callable[[], None]
    """Raises `Busy` while the database is to be away."""

    def __init__(self) -> None:
        self._attachments: dict[str, _Attachment] = {}

    async def begin_attachment(
        self, attachment: str, user: str, chunks: int, quota_bytes: int, now: float
    ) -> Sequence[tuple[int, int]]:
        self._check_available()
        if user not in self._accounts:
            raise UnknownUser
        known = self._attachments.get(attachment)
        if known is None:
            begun = sum(other.chunks for other in self._attachments.values() if other.user == user)
            if (begun + chunks) * CHUNK_SIZE > quota_bytes:
                raise QuotaExceeded
            known = self._attachments[attachment] = _Attachment(user, chunks, now)
        if (known.user, known.chunks) != (user, chunks):
            raise RequestError("There is another attachment of this id.")
        return known.missing(MOST_RANGES)

    async def store_chunks(self, batch: Sequence[NewChunk], now: float) -> Sequence[ChunkOutcome]:
        self._check_available()
        if any(len(chunk.data) != CHUNK_SIZE for chunk in batch):
            raise ValueError(f"a chunk has {CHUNK_SIZE} bytes")
        return [self._store(chunk, now) for chunk in batch]

    def _store(self, chunk: NewChunk, now: float) -> ChunkOutcome:
        known = self._attachments.get(chunk.attachment)
        if known is None or known.user != chunk.user or chunk.index >= known.chunks:
            return ChunkOutcome.UNKNOWN
        if chunk.index not in known.data:
            known.data[chunk.index] = bytes(chunk.data)
            known.changed = now
        return ChunkOutcome.STORED

    async def chunks(self, wanted: Sequence[tuple[str, int]]) -> Sequence[bytes | None]:
        self._check_available()
        found = []
        for attachment, index in wanted:
            known = self._attachments.get(attachment)
            found.append(known.data.get(index) if known and known.is_whole else None)
        return found

    async def expect_readers(self, attachment: str, user: str, devices: int) -> None:
        self._check_available()
        known = self._attachments.get(attachment)
        if known and known.user == user:
            known.devices = devices
            self._remove_if_read(attachment, known)

    async def attachment_fetched(self, attachment: str, user: str, device: str) -> None:
        self._check_available()
        known = self._attachments.get(attachment)
        if known and known.user != user and known.is_whole:
            known.readers.add(device)
            self._remove_if_read(attachment, known)

    def _remove_if_read(self, attachment: str, known: _Attachment) -> None:
        if known.is_read:
            del self._attachments[attachment]

    async def detach(self, attachment: str, user: str) -> None:
        self._check_available()
        known = self._attachments.get(attachment)
        if known and known.user == user:
            del self._attachments[attachment]

    async def sweep_attachments(self, now: float, unfinished_seconds: float, keep_seconds: float) -> int:
        self._check_available()
        old = [
            attachment
            for attachment, known in self._attachments.items()
            if known.changed <= now - (keep_seconds if known.is_whole else unfinished_seconds)
        ]
        for attachment in old:
            del self._attachments[attachment]
        return len(old)
