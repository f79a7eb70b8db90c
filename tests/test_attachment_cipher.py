"""Chunks: each opens in its own place, and nothing else opens anywhere."""

from __future__ import annotations

import os

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from fastchat.errors import AttachmentDamaged
from fastchat.protocols.wire import CHUNK_SIZE
from fastchat_client.attachment_cipher import KEY_SIZE, PIECE, _nonce, chunk_count, decrypt, encrypt

KEY = b"k" * KEY_SIZE


def chunks_of(data: bytes, key: bytes = KEY) -> list[bytes]:
    count = chunk_count(len(data))
    return [encrypt(key, i, i == count - 1, data[i * PIECE : (i + 1) * PIECE]) for i in range(count)]


def opened(chunks: list[bytes], size: int, key: bytes = KEY) -> bytes:
    count = chunk_count(size)
    return b"".join(decrypt(key, i, count, size, chunk) for i, chunk in enumerate(chunks))


class RoundTrip(SynchronousTestCase):
    def test_of_every_size_around_a_piece(self) -> None:
        sizes = {0: 1, 1: 1, PIECE - 1: 1, PIECE: 1, PIECE + 1: 2, 2 * PIECE: 2, 2 * PIECE + 17: 3}
        for size, count in sizes.items():
            data = os.urandom(size)
            chunks = chunks_of(data)
            self.assertEqual(len(chunks), count, size)
            self.assertEqual({len(chunk) for chunk in chunks}, {CHUNK_SIZE}, size)
            self.assertEqual(opened(chunks, size), data, size)

    @settings(max_examples=30, deadline=None)
    @given(st.binary(max_size=200), st.integers(0, 2))
    def test_of_any_content(self, tail: bytes, whole: int) -> None:
        data = b"x" * (PIECE * whole) + tail
        self.assertEqual(opened(chunks_of(data), len(data)), data)

    def test_only_the_last_piece_may_be_short(self) -> None:
        self.assertRaises(ValueError, encrypt, KEY, 0, False, b"short")
        self.assertRaises(ValueError, encrypt, KEY, 0, True, b"x" * (PIECE + 1))


class Nonces(SynchronousTestCase):
    def test_no_two_are_the_same(self) -> None:
        indexes = [*range(1000), 2**16, 2**24, 2**31 - 2, 2**31 - 1]
        nonces = [_nonce(index, is_last) for index in indexes for is_last in (False, True)]
        self.assertEqual(len(set(nonces)), len(nonces))
        self.assertEqual({len(nonce) for nonce in nonces}, {12})

    def test_they_are_those_of_the_protocol(self) -> None:
        self.assertEqual(_nonce(258, False).hex(), "00000000000000000001" + "02" + "00")
        self.assertEqual(_nonce(0, True).hex(), "00" * 11 + "01")


class Damaged(SynchronousTestCase):
    """Whatever is not the chunk of this place is refused, and named."""

    def setUp(self) -> None:
        self.data = os.urandom(2 * PIECE + 100)
        self.chunks = chunks_of(self.data)

    def refused(self, index: int, chunk: bytes, count: int = 3, size: int | None = None, key: bytes = KEY) -> None:
        size = len(self.data) if size is None else size
        error = self.assertRaises(AttachmentDamaged, decrypt, key, index, count, size, chunk)
        self.assertEqual(error.message, f"chunk {index + 1} of {count} is not what was sent")
        self.assertEqual(error.code, "attachment-damaged")

    def test_in_the_place_of_another(self) -> None:
        for place in range(3):
            for index in {0, 1, 2} - {place}:
                self.refused(place, self.chunks[index])

    def test_of_another_file(self) -> None:
        for index, chunk in enumerate(chunks_of(self.data, b"K" * KEY_SIZE)):
            self.refused(index, chunk)

    def test_changed_by_one_bit(self) -> None:
        for at in (0, CHUNK_SIZE // 2, CHUNK_SIZE - 1):
            changed = bytearray(self.chunks[1])
            changed[at] ^= 1
            self.refused(1, bytes(changed))

    def test_cut_off(self) -> None:
        for length in (0, 10, 16, CHUNK_SIZE - 1):
            self.refused(1, self.chunks[1][:length])
        self.refused(1, self.chunks[1] + b"\0")

    def test_the_end_cut_off(self) -> None:
        """A whole chunk fewer: what was in the middle is none that can be the last."""
        self.refused(1, self.chunks[1], count=2, size=2 * PIECE)

    def test_something_behind_the_end(self) -> None:
        self.refused(2, self.chunks[2], count=4, size=3 * PIECE + 1)

    def test_of_a_size_that_the_count_does_not_follow_from(self) -> None:
        self.refused(2, self.chunks[2], size=PIECE)
        self.refused(2, self.chunks[2], size=4 * PIECE)
