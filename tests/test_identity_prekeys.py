"""Prekeys and login statements: good for the device, the purpose and the connection that they name."""

from __future__ import annotations

from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as some
from twisted.trial.unittest import SynchronousTestCase

from fastchat.errors import SignatureInvalid
from fastchat.identity import login, prekeys
from fastchat.identity.links import DeviceIdentity, device_id
from fastchat.identity.prekeys import SealKey
from fastchat.protocols.wire import DeviceKeys, Signed

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER_KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
MLKEM = MLKEM768PrivateKey.from_seed_bytes(bytes(64)).public_key().public_bytes_raw()


def identity(user: str, key: Ed25519PrivateKey, curve25519: bytes = b"c" * 32) -> DeviceIdentity:
    ed25519 = key.public_key().public_bytes_raw()
    return DeviceIdentity(user, device_id(ed25519, curve25519), ed25519, curve25519)


ME = identity("alice", KEY)
ONE_TIME = prekeys.sign_one_time(KEY.sign, ME, b"o" * 32)
FALLBACK = prekeys.sign_fallback(KEY.sign, ME, b"f" * 32)
SEAL = prekeys.sign_seal(KEY.sign, ME, 7, MLKEM, b"x" * 32, 1_700_000_000_000)
VERIFIERS: tuple[tuple[Any, Signed], ...] = (
    (prekeys.verify_one_time, ONE_TIME),
    (prekeys.verify_fallback, FALLBACK),
    (prekeys.verify_seal, SEAL),
)


class Prekeys(SynchronousTestCase):
    def test_what_was_signed_is_read(self) -> None:
        self.assertEqual(prekeys.verify_one_time(ME, ONE_TIME), b"o" * 32)
        self.assertEqual(prekeys.verify_fallback(ME, FALLBACK), b"f" * 32)
        self.assertEqual(prekeys.verify_seal(ME, SEAL), SealKey(7, MLKEM, b"x" * 32, 1_700_000_000_000))
        prekeys.verify_all(ME, DeviceKeys(one_time=(ONE_TIME,), fallback=FALLBACK, seal=SEAL))
        prekeys.verify_all(ME, DeviceKeys())

    def test_they_fit_on_the_wire(self) -> None:
        for _, signed in VERIFIERS:
            self.assertLess(len(signed.body), 4096)

    def test_no_kind_passes_for_another(self) -> None:
        for verify, own in VERIFIERS:
            for _, signed in VERIFIERS:
                if signed is not own:
                    self.assertRaises(SignatureInvalid, verify, ME, signed)

    def test_another_account_or_device_cannot_show_them_as_its_own(self) -> None:
        for verify, signed in VERIFIERS:
            for other in (identity("bob", KEY), identity("alice", KEY, b"d" * 32), identity("alice", OTHER_KEY)):
                self.assertRaises(SignatureInvalid, verify, other, signed)

    def test_a_signature_from_elsewhere(self) -> None:
        for verify, signed in VERIFIERS:
            bare = Signed(body=signed.body, signature=KEY.sign(signed.body))
            self.assertRaises(SignatureInvalid, verify, ME, bare)

    def test_a_seal_key_that_is_none(self) -> None:
        for mlkem768 in (b"\xff" * 1184, MLKEM[:-1], b""):
            signed = prekeys.sign_seal(KEY.sign, ME, 7, mlkem768, b"x" * 32, 0)
            self.assertRaises(SignatureInvalid, prekeys.verify_seal, ME, signed)
        for seal_id, x25519, at in (
            (-1, b"x" * 32, 0),
            (2**32, b"x" * 32, 0),
            (1, b"x", 0),
            (1, b"x" * 32, -1),
            (1, bytes(32), 0),
        ):
            signed = prekeys.sign_seal(KEY.sign, ME, seal_id, MLKEM, x25519, at)
            self.assertRaises(SignatureInvalid, prekeys.verify_seal, ME, signed)

    def test_one_bad_key_spoils_the_lot(self) -> None:
        short = prekeys.sign_one_time(KEY.sign, ME, b"o" * 31)
        for keys in (
            DeviceKeys(one_time=(ONE_TIME, ONE_TIME)),
            DeviceKeys(one_time=(ONE_TIME, short)),
            DeviceKeys(one_time=(ONE_TIME, FALLBACK)),
            DeviceKeys(fallback=ONE_TIME),
            DeviceKeys(seal=FALLBACK),
        ):
            self.assertRaises(SignatureInvalid, prekeys.verify_all, ME, keys)

    @given(some.binary(max_size=200), some.binary(max_size=80), some.binary(max_size=40))
    @settings(deadline=None)
    def test_any_bytes(self, body: bytes, signature: bytes, ed25519: bytes) -> None:
        signed_junk = Signed(body=body, signature=KEY.sign(b"FastChat-v1|prekey|" + body))
        strange = DeviceIdentity("alice", ME.device, ed25519, b"c" * 32)
        for verify, signed in VERIFIERS:
            self.assertRaises(SignatureInvalid, verify, ME, Signed(body=body, signature=signature))
            self.assertRaises(SignatureInvalid, verify, ME, signed_junk)
            self.assertRaises(SignatureInvalid, verify, strange, signed)

    @given(some.sampled_from(VERIFIERS), some.integers(0, 5000), some.integers(1, 255))
    @settings(deadline=None)
    def test_any_changed_byte(self, row: tuple[Any, Signed], at: int, change: int) -> None:
        verify, signed = row
        body = bytearray(signed.body)
        body[at % len(body)] ^= change
        self.assertRaises(SignatureInvalid, verify, ME, Signed(body=bytes(body), signature=signed.signature))


class Login(SynchronousTestCase):
    exporter, challenge = b"e" * 32, b"h" * 32

    def test_the_bytes_that_are_signed(self) -> None:
        said = login.statement(self.exporter, self.challenge, "alice", ME.device)
        expected = b"FastChat-v1|login|" + b"e" * 32 + b"|" + b"h" * 32 + b"|alice|" + ME.device.encode()
        self.assertEqual(said, expected)
        login.verify(ME.ed25519, said, KEY.sign(said))

    def test_each_field_counts(self) -> None:
        good = (self.exporter, self.challenge, "alice", ME.device)
        signature = KEY.sign(login.statement(*good))
        for wrong in (
            (b"E" * 32, self.challenge, "alice", ME.device),
            (self.exporter, b"H" * 32, "alice", ME.device),
            (self.exporter, self.challenge, "bob", ME.device),
            (self.exporter, self.challenge, "alice", "0" * 32),
        ):
            self.assertRaises(SignatureInvalid, login.verify, ME.ed25519, login.statement(*wrong), signature)

    def test_odd_sizes_are_not_signed(self) -> None:
        for exporter, challenge in ((b"", self.challenge), (self.exporter, b"h" * 31), (self.exporter, b"h" * 33)):
            self.assertRaises(SignatureInvalid, login.statement, exporter, challenge, "alice", ME.device)

    @given(some.binary(max_size=40), some.binary(max_size=80), some.text())
    @settings(deadline=None)
    def test_any_bytes(self, ed25519: bytes, signature: bytes, text: str) -> None:
        said = login.statement(self.exporter, self.challenge, text, text)
        self.assertRaises(SignatureInvalid, login.verify, ed25519, said, signature)
        self.assertRaises(SignatureInvalid, login.verify, ME.ed25519, said, signature)
