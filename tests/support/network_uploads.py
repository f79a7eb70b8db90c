"""The memory network's side of uploads: an honest server's, unless a test changes what is public here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fastchat.errors import FastChatError, RequestError, UnknownAttachment
from fastchat.protocols import wire

if TYPE_CHECKING:
    from tests.support.network import Line


@dataclass
class Kept:
    """An attachment that was begun."""

    user: str
    count: int
    chunks: dict[int, bytes] = field(default_factory=dict)

    @property
    def missing(self) -> tuple[tuple[int, int], ...]:
        ranges: list[tuple[int, int]] = []
        for index in (index for index in range(self.count) if index not in self.chunks):
            if ranges and ranges[-1][1] == index:
                ranges[-1] = (ranges[-1][0], index + 1)
            else:
                ranges.append((index, index + 1))
        return tuple(ranges[: wire.MOST_RANGES])


class Uploads:
    """`refuse`: asked before each `attach` and `chunk`; an exception is the answer. `holds`: answers to chunks wait in
    `held` until `release`."""

    def __init__(self) -> None:
        self.kept: dict[str, Kept] = {}
        self.received: list[tuple[str, int]] = []
        """Each chunk that was kept: of which attachment, and which."""
        self.devices: dict[str, int] = {}
        """By attachment, what `attachment_for` has said."""
        self.detached: list[str] = []
        self.refuse: Callable[[wire.Attach | wire.Chunk], FastChatError | None] = lambda message: None
        self.holds = False
        self.held: list[tuple[Any, Any]] = []

    def release(self) -> None:
        """The answers that were held back leave, those of connections that are gone for nothing."""
        held, self.held = self.held, []
        for line, answer in held:
            line.tell(answer)

    def content(self, attachment: str) -> list[bytes]:
        """The chunks of a whole attachment."""
        kept = self.kept[attachment]
        assert not kept.missing
        return [kept.chunks[index] for index in range(kept.count)]


def attach(line: Line, request: wire.Attach) -> None:
    uploads = line.network.uploads
    if refusal := uploads.refuse(request):
        raise refusal
    kept = uploads.kept.setdefault(request.attachment, Kept(line.user, request.chunks))
    if (kept.user, kept.count) != (line.user, request.chunks):
        raise RequestError
    line.tell(wire.Attached(request.id, kept.missing))


def chunk(line: Line, chunk: wire.Chunk, data: bytes) -> None:
    uploads = line.network.uploads
    if refusal := uploads.refuse(chunk):
        raise refusal
    kept = uploads.kept.get(chunk.attachment)
    if kept is None or chunk.index >= kept.count:
        raise UnknownAttachment
    assert len(data) == wire.CHUNK_SIZE
    uploads.received.append((chunk.attachment, chunk.index))
    kept.chunks.setdefault(chunk.index, data)
    if not kept.missing:
        line.network.files.chunks[chunk.attachment] = uploads.content(chunk.attachment)
    answer = wire.ChunkStored(chunk.id)
    if uploads.holds:
        uploads.held.append((line, answer))
    else:
        line.tell(answer)


def told_for(line: Line, said: wire.AttachmentFor) -> None:
    line.network.uploads.devices[said.attachment] = said.devices
    line.tell(wire.AttachmentDone(said.id))


def detach(line: Line, said: wire.Detach) -> None:
    line.network.uploads.detached.append(said.attachment)
    line.network.uploads.kept.pop(said.attachment, None)
    line.network.files.chunks.pop(said.attachment, None)
    line.tell(wire.AttachmentDone(said.id))


ACTIONS: dict[type, Callable[[Any, Any], None]] = {
    wire.Attach: attach,
    wire.AttachmentFor: told_for,
    wire.Detach: detach,
}
