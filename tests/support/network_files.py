"""The memory network's attachments: an honest server's, unless a test changes what is public here."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from fastchat.errors import UnknownAttachment
from fastchat.protocols import wire
from fastchat.protocols.wire import WithBytes
from fastchat_client.attachment_cipher import PIECE, chunk_count, encrypt
from fastchat_client.content import File

if TYPE_CHECKING:
    from tests.support.network import Line


class Files:
    """`chunks`: by attachment, those that are whole. `answer`: what a device is told when it asks for one. `asked`: all
    that was asked for, and `fetched`: who has said so of what."""

    def __init__(self) -> None:
        self.chunks: dict[str, list[bytes]] = {}
        self.asked: list[wire.Fetch] = []
        self.fetched: list[tuple[str, str]] = []
        self.answer: Callable[[str, wire.Fetch], Sequence[Any]] = self.honestly

    def honestly(self, device: str, request: wire.Fetch) -> list[Any]:
        chunks = self.chunks.get(request.attachment, [])
        if request.index >= len(chunks):
            return [wire.error_from(UnknownAttachment(), request.id)]
        return [self.chunk(request.id, chunks[request.index])]

    def chunk(self, request: int, data: bytes) -> WithBytes:
        return WithBytes(wire.ChunkAnswer(request), data)

    def put(self, data: bytes, name: str = "notes.txt", **changes: Any) -> File:
        """A whole attachment, as an honest sender makes it; what its message says of it, but for `changes`."""
        key, attachment = os.urandom(32), os.urandom(16).hex()
        count = chunk_count(len(data))
        self.chunks[attachment] = [
            encrypt(key, index, index == count - 1, data[index * PIECE : (index + 1) * PIECE]) for index in range(count)
        ]
        file = File(attachment, key, len(data), hashlib.sha256(data).digest(), name)
        return msgspec.structs.replace(file, **changes)


def fetch(line: Line, request: wire.Fetch) -> None:
    files = line.network.files
    files.asked.append(request)
    for message in files.answer(line.device, request):
        line.tell(message)


def fetched(line: Line, said: wire.Fetched) -> None:
    line.network.files.fetched.append((line.device, said.attachment))
    line.tell(wire.AttachmentDone(said.id))


def noted(line: Line, said: wire.AttachmentFor | wire.Detach) -> None:
    line.tell(wire.AttachmentDone(said.id))


ACTIONS: dict[type, Callable[[Any, Any], None]] = {
    wire.Fetch: fetch,
    wire.Fetched: fetched,
    wire.AttachmentFor: noted,
    wire.Detach: noted,
}
