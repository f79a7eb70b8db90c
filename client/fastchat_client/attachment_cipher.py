"""A file as the network has it: pieces of one size, each encrypted by itself and tied to its place.

STREAM (Hoang, Reyhanitabar, Rogaway and Vizár, CRYPTO 2015), as PROTOCOL.md section 19 has it: AES-256-GCM by a key
that is this one file's, with the piece's index and whether it is the last as the nonce. So a chunk that is missing,
repeated, cut off, in another's place or from another file does not open. Pure functions: they know no file and no wire.

A key must never encrypt two different pieces of one index; who calls `encrypt` sees to that (`spool.py`).
"""

from __future__ import annotations

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from fastchat.errors import AttachmentDamaged
from fastchat.protocols.wire import CHUNK_SIZE

TAG_SIZE = 16
PIECE = CHUNK_SIZE - TAG_SIZE
"""Bytes of the file in one chunk; the last piece is filled up with zeros."""
KEY_SIZE = 32


def chunk_count(size: int) -> int:
    """How many chunks a file of `size` bytes has; an empty one has one."""
    return max(1, -(-size // PIECE))


def encrypt(key: bytes, index: int, is_last: bool, piece: bytes) -> bytes:
    """The chunk, `CHUNK_SIZE` bytes. `piece`: `PIECE` bytes of the file, or up to so many if it is the last."""
    if len(piece) != PIECE:
        if not is_last or len(piece) > PIECE:
            raise ValueError(f"a piece has {PIECE} bytes, not {len(piece)}")
        piece = piece.ljust(PIECE, b"\0")
    return AESGCM(key).encrypt(_nonce(index, is_last), piece, None)


def decrypt(key: bytes, index: int, count: int, size: int, chunk: bytes) -> bytes:
    """What chunk `index` of `count` holds of a file of `size` bytes, without what fills it up. Raises
    `AttachmentDamaged`, which names it."""
    is_last = index == count - 1
    try:
        piece = AESGCM(key).decrypt(_nonce(index, is_last), chunk, None)
    except (InvalidTag, ValueError):
        raise AttachmentDamaged(f"chunk {index + 1} of {count} is not what was sent") from None
    length = size - index * PIECE if is_last else PIECE
    if len(piece) != PIECE or not 0 <= length <= PIECE:
        raise AttachmentDamaged(f"chunk {index + 1} of {count} is not what was sent")
    return piece[:length]


def _nonce(index: int, is_last: bool) -> bytes:
    return index.to_bytes(11, "big") + bytes([is_last])
