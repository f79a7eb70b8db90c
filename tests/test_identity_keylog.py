"""The key log against the definition of RFC 9162, and its checkpoints against liars."""

from __future__ import annotations

import hashlib

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as some
from twisted.trial.unittest import SynchronousTestCase

from fastchat.errors import LogInconsistent
from fastchat.identity.keylog import LEAF_SIZE, Frontier, leaf, sign_checkpoint, split, verify_checkpoint
from fastchat.protocols.wire import Checkpoint, Signed

LOG_KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
LOG_PUBLIC = LOG_KEY.public_key().public_bytes_raw()
LEAVES = [hashlib.sha512(bytes([i])).digest() + b"8 bytes." for i in range(200)]


def tree_hash(leaves: list[bytes]) -> bytes:
    """RFC 9162 section 2.1.1, word for word."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return hashlib.sha256(b"\x00" + leaves[0]).digest()
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return hashlib.sha256(b"\x01" + tree_hash(leaves[:k]) + tree_hash(leaves[k:])).digest()


class Tree(SynchronousTestCase):
    def test_every_size_to_200_is_as_the_rfc_defines(self) -> None:
        frontier = Frontier()
        for size in range(201):
            self.assertEqual((frontier.size, frontier.root()), (size, tree_hash(LEAVES[:size])))
            if size < 200:
                frontier.append(LEAVES[size])

    def test_known_vectors(self) -> None:
        """Of no leaf, and of one and two leaves of 72 zero bytes, computed with sha256sum from the definition."""
        frontier = Frontier()
        self.assertEqual(frontier.root().hex(), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")
        frontier.append(bytes(72))
        self.assertEqual(frontier.root().hex(), "9c56f48ae9bafd205262034bfcc2232b2c63348cb723d681ec39f13409f990cc")
        frontier.append(bytes(72))
        self.assertEqual(frontier.root().hex(), "19f02faebe8193177fbc5684e7d521fd77ecd9e5f81f0941984f475a2dd14e74")

    def test_it_goes_on_from_its_bytes(self) -> None:
        frontier = Frontier()
        for size, entry in enumerate(LEAVES):
            frontier = Frontier.from_bytes(frontier.to_bytes())
            frontier.append(entry)
            self.assertEqual(frontier.root(), tree_hash(LEAVES[: size + 1]))
            self.assertEqual(len(frontier.to_bytes()), 8 + 32 * (size + 1).bit_count())

    def test_a_copy_is_independent(self) -> None:
        frontier = Frontier()
        for entry in LEAVES[:5]:
            frontier.append(entry)
        before = frontier.root()
        other = frontier.copy()
        other.append(LEAVES[5])
        self.assertEqual((frontier.size, frontier.root()), (5, before))
        self.assertEqual((other.size, other.root()), (6, tree_hash(LEAVES[:6])))

    def test_a_leaf_has_one_size(self) -> None:
        for wrong in (b"", bytes(71), bytes(73)):
            self.assertRaises(LogInconsistent, Frontier().append, wrong)

    @given(some.binary(max_size=400))
    @settings(deadline=None)
    def test_any_bytes_as_a_stored_state(self, data: bytes) -> None:
        try:
            frontier = Frontier.from_bytes(data)
        except LogInconsistent:
            return
        self.assertEqual(frontier.to_bytes(), data)


class Leaf(SynchronousTestCase):
    def test_its_fields(self) -> None:
        link = Signed(body=b"body", signature=b"signature")
        entry = leaf("alice", 3, link)
        self.assertEqual(len(entry), LEAF_SIZE)
        self.assertEqual(entry[:32], hashlib.sha256(b"alice").digest())
        self.assertEqual(entry[32:40], b"\0\0\0\0\0\0\0\3")
        self.assertEqual(entry[40:], hashlib.sha256(b"body").digest())

    def test_split(self) -> None:
        self.assertEqual(list(split(b"".join(LEAVES[:3]))), LEAVES[:3])
        self.assertEqual(list(split(b"")), [])
        self.assertRaises(LogInconsistent, split, bytes(71))


class Checkpoints(SynchronousTestCase):
    def test_round_trip(self) -> None:
        checkpoint = sign_checkpoint(LOG_KEY, 5, tree_hash(LEAVES[:5]))
        verify_checkpoint(LOG_PUBLIC, checkpoint)
        LOG_KEY.public_key().verify(
            checkpoint.signature, b"FastChat-v1|checkpoint|\0\0\0\0\0\0\0\5" + tree_hash(LEAVES[:5])
        )

    def test_changed(self) -> None:
        good = sign_checkpoint(LOG_KEY, 5, bytes(32))
        other = Ed25519PrivateKey.from_private_bytes(bytes(32)).public_key().public_bytes_raw()
        self.assertRaises(LogInconsistent, verify_checkpoint, other, good)
        for size, root in ((6, bytes(32)), (5, b"\1" * 32), (-1, bytes(32)), (2**64, bytes(32)), (5, bytes(31))):
            wrong = Checkpoint(size=size, root=root, signature=good.signature)
            self.assertRaises(LogInconsistent, verify_checkpoint, LOG_PUBLIC, wrong)

    @given(some.integers(), some.binary(max_size=40), some.binary(max_size=80), some.binary(max_size=40))
    @settings(deadline=None)
    def test_anything(self, size: int, root: bytes, signature: bytes, log_public: bytes) -> None:
        checkpoint = Checkpoint(size=size, root=root, signature=signature)
        for public in (LOG_PUBLIC, log_public):
            self.assertRaises(LogInconsistent, verify_checkpoint, public, checkpoint)
