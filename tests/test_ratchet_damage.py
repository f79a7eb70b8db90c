"""What is damaged, made up or not Olm at all is unreadable, and harms no session."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as some
from msgspec import Raw
from twisted.trial.unittest import SynchronousTestCase

from fastchat_client.ratchet import body_from_wire, body_to_wire
from fastchat_client.unreadable import Reason, Unreadable
from tests.support.ratchets import Device, TwoDevices, sealed_for


class Damage(TwoDevices):
    def test_a_changed_byte_anywhere(self) -> None:
        self.meet()
        body = self.alice.write(self.bob, b"whole")
        for at in [*range(40), *range(40, len(body), 37), len(body) - 1]:
            damaged = bytearray(body)
            damaged[at] ^= 0x40
            error = self.assertRaises(Unreadable, self.bob.read, bytes(damaged))
            self.assertIn(error.reason, (Reason.BAD_ENVELOPE, Reason.UNKNOWN_SEAL_KEY))
            self.assertRaises(Unreadable, self.bob.read, body[:at])
        self.assertEqual(self.bob.read(body), b"whole")

    def test_a_changed_byte_inside_the_envelope(self) -> None:
        """The seal proves nothing about its sender: what is inside may be anything. It does no harm to the session."""
        self.meet()
        olm_type, ciphertext = self.alice.sessions[0].encrypt(b"whole".ljust(159, b"\0"))
        for at in range(len(ciphertext)):
            damaged = bytearray(ciphertext)
            damaged[at] ^= 1
            self.unreadable_inner(olm_type, bytes(damaged))
        self.assertEqual(self.bob.read(self.alice.write(self.bob, b"still well")), b"still well")

    def test_a_changed_byte_in_a_first_message(self) -> None:
        olm_type, ciphertext = self.alice.open(self.bob).encrypt(b"whole")
        self.assertEqual(olm_type, 0)
        for at in range(len(ciphertext)):
            damaged = bytearray(ciphertext)
            damaged[at] ^= 1
            self.unreadable_inner(olm_type, bytes(damaged))
        self.assertEqual(self.bob.read(self.alice.write(self.bob, b"still well")), b"still well")

    def test_padding_that_is_none(self) -> None:
        self.meet()
        for padded in (b"", b"x" * 160, bytes(160), b"x\x80", b"x\x80" + bytes(160 - 3), b"x\x80" + bytes(320 - 2)):
            olm_type, ciphertext = self.alice.sessions[0].encrypt(padded)
            self.assertEqual(self.unreadable_inner(olm_type, ciphertext), Reason.BAD_CONTENT)

    def unreadable_inner(self, olm_type: int, ciphertext: bytes, version: int = 1) -> Reason:
        inner = bytes((version, olm_type)) + self.alice.me.curve25519 + ciphertext
        error: Unreadable = self.assertRaises(Unreadable, self.bob.read, sealed_for(self.bob, inner))
        return error.reason

    def test_other_versions(self) -> None:
        body = self.alice.write(self.bob, b"x")
        self.unreadable(self.bob, b"\x02" + body[1:], Reason.BAD_ENVELOPE)
        self.assertEqual(self.unreadable_inner(1, b"", version=2), Reason.BAD_ENVELOPE)


class AnyBytes(SynchronousTestCase):
    alice, bob = Device("alice"), Device("bob")
    bob.read(alice.write(bob, b"hello"))
    alice.read(bob.write(alice, b"hello"))

    def read(self, body: bytes) -> None:
        self.assertRaises(Unreadable, self.bob.read, body)

    @given(some.binary(max_size=2000))
    @settings(deadline=None)
    def test_as_a_body(self, body: bytes) -> None:
        self.read(body)
        self.read(b"\x01\x00\x00\x00\x01" + body)

    @given(some.binary(max_size=300), some.integers(0, 3))
    @settings(deadline=None)
    def test_as_an_olm_message(self, data: bytes, olm_type: int) -> None:
        self.read(sealed_for(self.bob, data))
        head = bytes((1, olm_type)) + self.alice.me.curve25519
        self.read(sealed_for(self.bob, head + data))
        self.read(sealed_for(self.bob, head + b"\x03" + data))
        self.read(sealed_for(self.bob, head + b"\x04" + data))

    @given(some.binary(max_size=300), some.binary(min_size=1, max_size=32))
    @settings(deadline=None)
    def test_as_a_first_message_that_parses(self, data: bytes, key: bytes) -> None:
        """With the right fields (docs/olm.md of libolm), so that the keys themselves are reached."""
        key = key.ljust(32, b"\0")
        inner = b"\x03\x0a\x20" + key + b"\x10\x00\x22" + bytes((len(data) % 128,)) + data[: len(data) % 128]
        mac = bytes(8)
        prekey = b"\x03\x0a\x20" + key + b"\x12\x20" + key + b"\x1a\x20" + key
        prekey += b"\x22" + varint(len(inner + mac)) + inner + mac
        self.read(sealed_for(self.bob, bytes((1, 0)) + key + prekey))
        self.read(sealed_for(self.bob, bytes((1, 0)) + self.alice.me.curve25519 + prekey))

    @given(some.binary(max_size=50))
    def test_as_a_body_on_the_wire(self, data: bytes) -> None:
        self.assertEqual(body_from_wire(body_to_wire(data)), data)
        for raw in (data, b'"' + data + b'"', b"[" * 5000):
            try:
                self.assertIsInstance(body_from_wire(Raw(raw)), bytes)
            except Unreadable as error:
                self.assertEqual(error.reason, Reason.BAD_ENVELOPE)


def varint(number: int) -> bytes:
    return bytes((number,)) if number < 128 else bytes((number & 127 | 128, number >> 7))
