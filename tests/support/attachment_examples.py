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
    for index, chunk in enumerate(chunks):
        online.say(wire.Attach(online.next_id(), ATTACHMENT, len(chunks)))
        online.say_with_bytes(wire.WithBytes(wire.Chunk(online.next_id(), ATTACHMENT, index), chunk))
    online.say(wire.Attach(online.next_id(), ATTACHMENT, len(chunks)))
    online.say(wire.AttachmentFor(online.next_id(), ATTACHMENT, 1))
    for index in range(len(chunks)):
        member.say(wire.Fetch(member.next_id(), ATTACHMENT, index))
    member.say(wire.Fetched(member.next_id(), ATTACHMENT))
    member.say(wire.Fetch(member.next_id(), ATTACHMENT, 0))
    online.say(wire.Detach(online.next_id(), ATTACHMENT))
    content = File(ATTACHMENT, KEY, len(FILE), hashlib.sha256(FILE).digest(), "numbers.bin", text="as I promised")
    found = {"content": encode_content(content).decode(), "key": KEY.hex(), "sha256": content.sha256.hex()}
    for index, chunk in enumerate(chunks):
        found[f"nonce-{index}"] = by_the_book.nonce(index, len(chunks)).hex()
        found[f"chunk-{index}-first-32"] = chunk[:32].hex()
        found[f"chunk-{index}-tag"] = chunk[-16:].hex()
    return found
