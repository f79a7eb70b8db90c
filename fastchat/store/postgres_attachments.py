"""The attachments of the PostgreSQL store. It knows the pools that `PostgresStore` lends it, and no rule of theirs.

Chunks are written, read and dropped on connections of their own: neither mail nor who logs in waits behind a file. An
attachment goes by the deletion of its row, in which nobody waits for its data; the chunks follow in slices, and what a
crash leaves of them goes with the next sweep.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Sequence
from itertools import chain

from psycopg2.extensions import cursor as Cursor

from fastchat.errors import QuotaExceeded, RequestError, UnknownUser
from fastchat.protocols.wire import CHUNK_SIZE, MOST_RANGES
from fastchat.store import ChunkOutcome, NewChunk
from fastchat.store.connections import Pool, Session
from fastchat.store.copying import CopyPool, copy
from fastchat.store.literals import array, text_array
from fastchat.store.pools import Parameters, Row
from fastchat.store.queries import query
from fastchat.store.values import possible

_MISSING, _ADD, _CHUNKS_OF_USER = query("missing_chunks"), query("add_attachment"), query("chunks_of_user")
_LOCK_USER = query("lock_user")
_HOLD, _PRESENT, _COPY, _COUNT = (
    query("hold_attachments"),
    query("present_chunks"),
    query("copy_chunks"),
    query("count_chunks"),
)
PREPARE_CHUNK_WRITER = query("prepare_chunk_writer")
_CHUNKS = query("chunks")
_EXPECT, _ADD_READER, _DETACH = query("expect_readers"), query("add_reader"), query("detach")
_REMOVE, _REMOVE_OLD, _DROP = query("remove_attachment"), query("remove_old_attachments"), query("drop_remains")

SLICE = 32
"""Chunks that are dropped in one transaction: 2 MiB, a few milliseconds."""
SWEPT = 100
"""Attachments that are removed in one transaction, of each kind."""

_COPIED = struct.Struct(">hiqiii")
"""What stands before a chunk's data in a binary copy: three columns, and of each its size and, but for the last, it."""


class PostgresAttachments:
    """An `AttachmentStore`."""

    _general: Pool
    _chunk_writer: CopyPool
    _chunk_reader: Pool
    _chunk_dropper: Pool

    async def begin_attachment(
        self, attachment: str, user: str, chunks: int, quota_bytes: int, now: float
    ) -> Sequence[tuple[int, int]]:
        if not possible([user]):
            raise UnknownUser
        asked = {"attachment": attachment, "user": user, "chunks": chunks, "now": now, "limit": MOST_RANGES}

        async def work(session: Session) -> list[Row]:
            # Mostly it is there already: then nobody is held.
            return await session.rows(_MISSING, asked) or await begin(session)

        async def begin(session: Session) -> list[Row]:
            async with session.transaction():
                # Of two that begin at once, the second one counts what the first has begun.
                if not await session.rows(_LOCK_USER, {"name": user}):
                    raise UnknownUser
                if await session.rows(_ADD, asked):
                    [(begun,)] = await session.rows(_CHUNKS_OF_USER, asked)
                    if begun * CHUNK_SIZE > quota_bytes:
                        raise QuotaExceeded
                return await session.rows(_MISSING, asked)

        rows = await self._general.run(work)
        if not rows or rows[0][:2] != (user, chunks):
            raise RequestError("There is another attachment of this id.")
        return [(first, past) for _, _, first, past in rows if first is not None]

    async def store_chunks(self, batch: Sequence[NewChunk], now: float) -> Sequence[ChunkOutcome]:
        if not batch:
            return []
        if any(len(chunk.data) != CHUNK_SIZE for chunk in batch):
            raise ValueError(f"a chunk has {CHUNK_SIZE} bytes")

        def work(cursor: Cursor) -> set[int]:
            return _store(cursor, batch, now)

        stored = await self._chunk_writer.run(lambda session: session.transaction(work))
        return [ChunkOutcome.STORED if at in stored else ChunkOutcome.UNKNOWN for at in range(len(batch))]

    async def chunks(self, wanted: Sequence[tuple[str, int]]) -> Sequence[bytes | None]:
        if not wanted:
            return []
        attachments, indexes = zip(*wanted, strict=True)
        parameters = {"attachments": array(attachments), "indexes": array(indexes)}
        return await self._chunk_reader.run(lambda session: session.octets(_CHUNKS, parameters))

    async def expect_readers(self, attachment: str, user: str, devices: int) -> None:
        await self._read_by(_EXPECT, {"attachment": attachment, "user": user, "devices": devices})

    async def attachment_fetched(self, attachment: str, user: str, device: str) -> None:
        await self._read_by(_ADD_READER, {"attachment": attachment, "user": user, "device": device})

    async def _read_by(self, sql: str, parameters: Parameters) -> None:
        """Note who has it or shall have it, and remove it once that is the same."""

        async def work(session: Session) -> int | None:
            async with session.transaction():
                for number, is_read in await session.rows(sql, parameters):
                    if is_read:
                        await session.run(_REMOVE, {"number": number})
                        return int(number)
            return None

        number = await self._general.run(work)
        if number is not None:
            await self._drop(number)

    async def detach(self, attachment: str, user: str) -> None:
        parameters = {"attachment": attachment, "user": user}
        for (number,) in await self._general.run(lambda session: session.rows(_DETACH, parameters)):
            await self._drop(number)

    async def sweep_attachments(self, now: float, unfinished_seconds: float, keep_seconds: float) -> int:
        parameters = {"unfinished": now - unfinished_seconds, "whole": now - keep_seconds, "limit": SWEPT}
        swept = 0
        while removed := await self._chunk_dropper.run(lambda session: session.rows(_REMOVE_OLD, parameters)):
            swept += len(removed)
        await self._drop(None)
        return swept

    async def _drop(self, number: int | None) -> None:
        """Drop the chunks of an attachment that is gone; None: of all of them. Others come in between the slices."""
        parameters = {"number": number, "limit": SLICE}
        while await self._chunk_dropper.run(lambda session: session.rows(_DROP, parameters)):
            pass


def _store(cursor: Cursor, batch: Sequence[NewChunk], now: float) -> set[int]:
    """Within a transaction, store what is good and new of a batch: the places in it of what is there then. From the
    first query on nobody else changes these attachments, so what is missing stays missing until it is copied."""
    asked = {
        "attachments": array(chunk.attachment for chunk in batch),
        "users": text_array(chunk.user for chunk in batch),
        "indexes": array(chunk.index for chunk in batch),
    }
    cursor.execute(_HOLD, asked)
    good = cursor.fetchall()
    if not good:
        return set()
    missing: dict[tuple[int, int], bytes] = {}
    for at, number in good:
        missing.setdefault((number, batch[at].index), batch[at].data)
    numbers, indexes = zip(*missing, strict=True)
    cursor.execute(_PRESENT, {"numbers": array(numbers), "indexes": array(indexes)})
    for present in cursor.fetchall():
        del missing[present]
    if missing:
        parts = ((_COPIED.pack(3, 8, number, 4, index, len(data)), data) for (number, index), data in missing.items())
        copy(cursor, _COPY, chain.from_iterable(parts))
        added = Counter(number for number, _ in missing)
        cursor.execute(_COUNT, {"numbers": array(added), "chunks": array(added.values()), "now": now})
    return {at for at, _ in good}
