"""The example of PROTOCOL.md about a file: what two clients and a service say about it, and what is in its chunks."""

from __future__ import annotations

import hashlib
from typing import Any

from fastchat.protocols import wire
from fastchat_client.content import File, encode_content
from tests.support import by_the_book

ATTACHMENT = "000102030405060708090a0b0c0d0e0f"
KEY = bytes(range(32))
FILE = bytes(i % 251 for i in range(70_000))


def converse(online: Any, member: Any) -> dict[str, str]:
    """`online`: the sender's connection, `member`: the recipient's. What is said stays there; answers with the file."""
    chunks = by_the_book.encrypted(KEY, FILE)
    i = online.next_id()
    online.heard(wire.Attach(i, ATTACHMENT, 2), wire.Attached(i, ((0, 2),)))
    i, j = online.next_id(), online.next_id()
    online.heard(wire.WithBytes(wire.Chunk(i, ATTACHMENT, 0), chunks[0]), wire.ChunkStored(i))
    online.heard(wire.Attach(j, ATTACHMENT, 2), wire.Attached(j, ((1, 2),)))
    i, j = online.next_id(), online.next_id()
    online.heard(wire.WithBytes(wire.Chunk(i, ATTACHMENT, 1), chunks[1]), wire.ChunkStored(i))
    online.heard(wire.Attach(j, ATTACHMENT, 2), wire.Attached(j, ()))
    i = online.next_id()
    online.heard(wire.AttachmentFor(i, ATTACHMENT, 1), wire.AttachmentDone(i))
    for index in (0, 1):
        i = member.next_id()
        member.heard(wire.Fetch(i, ATTACHMENT, index), wire.WithBytes(wire.ChunkAnswer(i), chunks[index]))
    i, j = member.next_id(), member.next_id()
    member.heard(wire.Fetched(i, ATTACHMENT), wire.AttachmentDone(i))
    member.heard(
        wire.Fetch(j, ATTACHMENT, 0),
        wire.Error("unknown-attachment", "The network does not have this attachment (any more), or not all of it.", j),
    )
    i = online.next_id()
    online.heard(wire.Detach(i, ATTACHMENT), wire.AttachmentDone(i))
    content = File(ATTACHMENT, KEY, len(FILE), hashlib.sha256(FILE).digest(), "numbers.bin", text="as I promised")
    found = {"content": encode_content(content).decode(), "key": KEY.hex(), "sha256": content.sha256.hex()}
    for index, chunk in enumerate(chunks):
        found[f"nonce-{index}"] = by_the_book.nonce(index, len(chunks)).hex()
        found[f"chunk-{index}-first-32"] = chunk[:32].hex()
        found[f"chunk-{index}-tag"] = chunk[-16:].hex()
    return found
