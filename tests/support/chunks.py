"""Chunks for the stores of attachments, made up from what they are called; and the ids and times that go with them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from random import Random

from fastchat.protocols.wire import CHUNK_SIZE
from fastchat.store import NewChunk

A, B = "00" * 15 + "01", "ab" * 16
QUOTA = 1000 * CHUNK_SIZE
NOW = 1_700_000_000.0
DAY = 86_400.0

EMPTY_CHUNKS = """
alter table attachment_chunks drop constraint attachment_chunks_size;
insert into attachment_chunks
select number, unnest(%(indexes)s::integer[]), '' from attachments where id = %(attachment)s
"""


def data(*words: object) -> bytes:
    """A chunk that stands for `words`."""
    return Random(repr(words)).randbytes(CHUNK_SIZE)


def chunk(attachment: str, index: int, user: str = "alice", *, other: str = "") -> NewChunk:
    return NewChunk(attachment, user, index, data(attachment, index, other))


def prints(chunks: Sequence[bytes | None]) -> list[str | None]:
    """What chunks are compared by: two lists of 64 KiB that differ are nothing to be shown."""
    return [None if octets is None else hashlib.sha256(octets).hexdigest() for octets in chunks]


def whole(attachment: str, chunks: int, user: str = "alice") -> list[NewChunk]:
    return [chunk(attachment, index, user) for index in range(chunks)]
