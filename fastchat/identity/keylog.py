"""The key log: one Merkle tree (RFC 9162 section 2.1) over every link of the network, and its signed checkpoints.

The server appends, every client follows every leaf; two who hold checkpoints of the same size and different roots hold
a proof that the server lied. It knows neither accounts nor storage: a leaf is 72 bytes, a tree is its frontier.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fastchat.errors import LogInconsistent, SignatureInvalid
from fastchat.identity.root import CONTEXT
from fastchat.identity.statements import verify_ed25519
from fastchat.protocols.wire import Checkpoint, Signed

LEAF_SIZE = 72
_HASH_SIZE = 32
_LARGEST = 2**53 - 1


def leaf(user: str, position: int, link: Signed) -> bytes:
    """The log's entry for link `position` (from 0) of `user`: SHA-256(user) | position, 8 bytes big-endian |
    SHA-256(link body); 72 bytes. Names are hashed so that following the log is not a list of everybody."""
    return (
        hashlib.sha256(user.encode("utf-8", "replace")).digest()
        + position.to_bytes(8, "big")
        + hashlib.sha256(link.body).digest()
    )


def split(leaves: bytes) -> Iterator[bytes]:
    """The single leaves of a `log` answer. Raises `LogInconsistent` if they do not come out even."""
    if len(leaves) % LEAF_SIZE:
        raise LogInconsistent("the key log's leaves do not come out even")
    return (leaves[at : at + LEAF_SIZE] for at in range(0, len(leaves), LEAF_SIZE))


class Frontier:
    """A Merkle tree that only grows, as the roots of its complete subtrees, largest first: one hash for every bit that
    is set in `size`. That is all it takes to append and to know the root."""

    def __init__(self) -> None:
        self.size = 0
        """Leaves."""
        self._peaks: list[bytes] = []

    def append(self, leaf: bytes) -> None:
        """Raises `LogInconsistent` if `leaf` does not have 72 bytes."""
        if len(leaf) != LEAF_SIZE:
            raise LogInconsistent(f"a leaf of the key log has {LEAF_SIZE} bytes")
        node = hashlib.sha256(b"\x00" + leaf).digest()
        full = self.size
        while full & 1:
            node = _join(self._peaks.pop(), node)
            full >>= 1
        self._peaks.append(node)
        self.size += 1

    def root(self) -> bytes:
        """The Merkle Tree Hash, 32 bytes; of an empty log, SHA-256 of nothing."""
        if not self._peaks:
            return hashlib.sha256(b"").digest()
        node = self._peaks[-1]
        for peak in reversed(self._peaks[:-1]):
            node = _join(peak, node)
        return node

    def copy(self) -> Frontier:
        """An independent one: append to it, compare with a checkpoint, and only then keep it."""
        other = Frontier()
        other.size, other._peaks = self.size, list(self._peaks)
        return other

    def to_bytes(self) -> bytes:
        """The size in 8 bytes, then the peaks; at most 1.8 KB."""
        return self.size.to_bytes(8, "big") + b"".join(self._peaks)

    @classmethod
    def from_bytes(cls, data: bytes) -> Frontier:
        """What `to_bytes` wrote. Raises `LogInconsistent` for anything else."""
        size = int.from_bytes(data[:8], "big")
        peaks = [data[at : at + _HASH_SIZE] for at in range(8, len(data), _HASH_SIZE)]
        if size > _LARGEST or len(data) != 8 + _HASH_SIZE * size.bit_count():
            raise LogInconsistent("the stored state of the key log is damaged")
        frontier = cls()
        frontier.size, frontier._peaks = size, peaks
        return frontier


def sign_checkpoint(log_key: Ed25519PrivateKey, size: int, root: bytes) -> Checkpoint:
    """The server's word on the log at `size` leaves with this root (32 bytes)."""
    return Checkpoint(size=size, root=root, signature=log_key.sign(_checkpoint_message(size, root)))


def verify_checkpoint(log_public: bytes, checkpoint: Checkpoint) -> None:
    """Whether the holder of the log key (Ed25519, 32 bytes) said this. Raises `LogInconsistent`."""
    if not 0 <= checkpoint.size <= _LARGEST or len(checkpoint.root) != _HASH_SIZE:
        raise LogInconsistent("this is no checkpoint of a key log")
    try:
        verify_ed25519(log_public, _checkpoint_message(checkpoint.size, checkpoint.root), checkpoint.signature)
    except SignatureInvalid:
        raise LogInconsistent("a checkpoint of the key log is not signed by this network's log key") from None


def _checkpoint_message(size: int, root: bytes) -> bytes:
    return CONTEXT + b"checkpoint|" + size.to_bytes(8, "big") + root


def _join(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()
