"""What is said about attachments, as msgspec Structs; a part of `wire.py`'s unions.

An attachment is a file as the server has it: under an id of 128 random bits, a number of chunks of `CHUNK_SIZE` bytes
that it cannot read. What the file is called, how long it is and what opens it stands in a message, which the server
cannot read either. A chunk's bytes follow their header line as they are: `WithBytes` is the two together.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from fastchat.protocols.shapes import Id

CHUNK_SIZE = 64 * 1024
"""Bytes of every chunk, as it is transmitted and stored."""
MOST_RANGES = 1000
"""Of missing chunks, in one `attached`."""

AttachmentId = Annotated[str, Meta(pattern=r"^[0-9a-f]{32}\Z")]
Index = Annotated[int, Meta(ge=0, le=2**31 - 2)]
"""Of a chunk, from 0."""
ChunkCount = Annotated[int, Meta(ge=1, le=2**31 - 1)]


# --- what a client says --------------------------------------------------------------------------------------------


class Attach(msgspec.Struct, tag_field="t", tag="attach", frozen=True):
    """client → service: an attachment of so many chunks is coming; or, said again, which of them are missing? Answered
    by `attached`; or by `attachment-too-large`, `quota-exceeded`, or `bad-request` if the id is somebody else's or was
    begun with another number of chunks."""

    id: Id
    attachment: AttachmentId
    chunks: ChunkCount


class Chunk(msgspec.Struct, tag_field="t", tag="chunk", frozen=True, gc=False):
    """client → service: chunk `index` of an attachment that this account has begun. `CHUNK_SIZE` raw bytes follow the
    line's end, and then the next line. Answered by `stored` once it is durable. The same chunk once more changes
    nothing: what came first stays."""

    id: Id
    attachment: AttachmentId
    index: Index


class Fetch(msgspec.Struct, tag_field="t", tag="fetch", frozen=True, gc=False):
    """client → service: chunk `index` of an attachment, whoever has sent it: who knows the id was told it. Answered by
    `chunk`, or by `unknown-attachment`."""

    id: Id
    attachment: AttachmentId
    index: Index


class AttachmentFor(msgspec.Struct, tag_field="t", tag="attachment_for", frozen=True):
    """client → service: so many devices were told of this attachment of ours; once as many others have `fetched` it, it
    may go. Answered by `attachment_done`."""

    id: Id
    attachment: AttachmentId
    devices: Annotated[int, Meta(ge=1, le=1_000_000)]


class Fetched(msgspec.Struct, tag_field="t", tag="fetched", frozen=True):
    """client → service: this device has the whole of it, and will not ask for it again. Answered by
    `attachment_done`."""

    id: Id
    attachment: AttachmentId


class Detach(msgspec.Struct, tag_field="t", tag="detach", frozen=True):
    """client → service: this attachment, which is ours, is not wanted any more, finished or not. Answered by
    `attachment_done`, also if there is none (any more)."""

    id: Id
    attachment: AttachmentId


# --- what a client hears -------------------------------------------------------------------------------------------


class Attached(msgspec.Struct, tag_field="t", tag="attached", frozen=True):
    """service → client, answers `attach`: the chunks that are not here, as pairs of the first and the one after the
    last, in order; none: it is whole, and can be fetched. With `MOST_RANGES` of them there may be more: ask again."""

    re: Id
    missing: tuple[tuple[Id, Id], ...]


class ChunkStored(msgspec.Struct, tag_field="t", tag="stored", frozen=True, gc=False):
    """service → client, answers `chunk`: it cannot be lost any more."""

    re: Id


class ChunkAnswer(msgspec.Struct, tag_field="t", tag="chunk", frozen=True, gc=False):
    """service → client, answers `fetch`. `CHUNK_SIZE` raw bytes follow the line's end, and then the next line."""

    re: Id


class AttachmentDone(msgspec.Struct, tag_field="t", tag="attachment_done", frozen=True):
    """service → client, answers `attachment_for`, `fetched` and `detach`."""

    re: Id


class WithBytes(msgspec.Struct, frozen=True, gc=False):
    """A message and the `CHUNK_SIZE` raw bytes that follow its line. Not a message itself: a line shell puts the two
    together, and takes them apart."""

    message: Chunk | ChunkAnswer
    data: bytes
