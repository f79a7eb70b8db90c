"""A second implementation of section 19 of PROTOCOL.md, written from that page alone: it knows nothing of FastChat's
code, so it shows that the page says enough, and that the code does what the page says."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

CHUNK = 65_536
PIECE = 65_520


class Refused(Exception):
    """This is not the file that was sent."""


def chunk_count(size: int) -> int:
    return (size + PIECE - 1) // PIECE if size else 1


def nonce(index: int, chunks: int) -> bytes:
    return index.to_bytes(11, "big") + (b"\x01" if index == chunks - 1 else b"\x00")


def encrypted(key: bytes, file: bytes) -> list[bytes]:
    """The chunks of a file."""
    chunks = chunk_count(len(file))
    pieces = [file[PIECE * i : PIECE * (i + 1)].ljust(PIECE, b"\x00") for i in range(chunks)]
    return [AESGCM(key).encrypt(nonce(i, chunks), piece, None) for i, piece in enumerate(pieces)]


def decrypted(content: bytes, chunks: list[bytes]) -> bytes:
    """The file that a content of the kind `file` tells of, of its chunks in order. Raises `InvalidTag` or `Refused`."""
    told = json.loads(content)
    key, sha256 = base64.b64decode(told["key"]), base64.b64decode(told["sha256"])
    if len(chunks) != chunk_count(told["size"]):
        raise Refused("another number of chunks")
    filled = b"".join(AESGCM(key).decrypt(nonce(i, len(chunks)), chunk, None) for i, chunk in enumerate(chunks))
    file = filled[: told["size"]]
    if hashlib.sha256(file).digest() != sha256:
        raise Refused("another file")
    return file


def heard(stream: bytes) -> list[tuple[Any, bytes]]:
    """The messages of a connection in one direction, each with the raw bytes that follow its line."""
    messages = []
    while stream:
        line, _, stream = stream.partition(b"\n")
        message = json.loads(line)
        size = CHUNK if message["t"] == "chunk" else 0
        messages.append((message, stream[:size]))
        stream = stream[size:]
    return messages


def said(message: Any, raw: bytes = b"") -> bytes:
    """A message as it goes over the connection."""
    return json.dumps(message).encode() + b"\n" + raw
