"""The RSA root: what it signs is believed, and nothing else is."""

from __future__ import annotations

import rsa
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from hypothesis import given, settings
from hypothesis import strategies as some
from twisted.trial.unittest import SynchronousTestCase

from fastchat.errors import ConfigError, SignatureInvalid
from fastchat.identity.root import BITS, CONTEXT, RootKey, check_public, verify

ROOT = RootKey.generate()
OTHER = RootKey.generate()
BODY = b"a body"


def private_key(root: RootKey) -> RSAPrivateKey:
    key = serialization.load_pem_private_key(root.to_pem(None), None)
    assert isinstance(key, RSAPrivateKey)
    return key


def public_pem(key: RSAPrivateKey) -> bytes:
    return key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.PKCS1)


class Signing(SynchronousTestCase):
    def test_round_trip(self) -> None:
        signature = ROOT.sign(b"link", BODY)
        self.assertEqual(len(signature), 384)
        verify(ROOT.public_pem, b"link", BODY, signature)

    def test_another_library_sees_the_documented_bytes(self) -> None:
        private_key(ROOT).public_key().verify(
            ROOT.sign(b"link", BODY), b"FastChat-v1|link|" + BODY, padding.PKCS1v15(), hashes.SHA256()
        )

    def test_another_key_context_or_body_is_refused(self) -> None:
        signature = ROOT.sign(b"link", BODY)
        for pem, context, body in (
            (OTHER.public_pem, b"link", BODY),
            (ROOT.public_pem, b"lin", BODY),
            (ROOT.public_pem, b"link", BODY + b"."),
        ):
            self.assertRaises(SignatureInvalid, verify, pem, context, body, signature)

    def test_a_fault_while_signing_lets_no_signature_out(self) -> None:
        root = RootKey(private_key(ROOT))
        key = private_key(ROOT).private_numbers()
        public = key.public_numbers
        root._signing_key = rsa.PrivateKey(public.n, public.e, key.d + 2, key.p, key.q)
        self.assertRaises(SignatureInvalid, root.sign, b"link", BODY)


class Policy(SynchronousTestCase):
    def test_other_hashes_are_refused(self) -> None:
        key = private_key(ROOT)
        message = CONTEXT + b"link|" + BODY
        for algorithm in (hashes.SHA1(), hashes.SHA384(), hashes.SHA512()):  # noqa: S303
            signature = key.sign(message, padding.PKCS1v15(), algorithm)
            self.assertRaises(SignatureInvalid, verify, ROOT.public_pem, b"link", BODY, signature)

    def test_md5_which_the_rsa_library_would_take_is_refused(self) -> None:
        signing = rsa.PrivateKey.load_pkcs1(ROOT.to_pem(None))
        message = CONTEXT + b"link|" + BODY
        signature = rsa.sign(message, signing, "MD5")
        self.assertEqual(rsa.verify(message, signature, rsa.PublicKey.load_pkcs1(ROOT.public_pem)), "MD5")
        self.assertRaises(SignatureInvalid, verify, ROOT.public_pem, b"link", BODY, signature)

    def test_pss_is_refused(self) -> None:
        pss = padding.PSS(padding.MGF1(hashes.SHA256()), 32)
        signature = private_key(ROOT).sign(CONTEXT + b"link|" + BODY, pss, hashes.SHA256())
        self.assertRaises(SignatureInvalid, verify, ROOT.public_pem, b"link", BODY, signature)

    def test_unreduced_and_resized_signatures_are_refused(self) -> None:
        signature = ROOT.sign(b"link", BODY)
        n = private_key(ROOT).public_key().public_numbers().n
        number = int.from_bytes(signature, "big")
        unreduced = (number + n).to_bytes(385, "big")
        for wrong in (b"\x00" + signature, signature[1:], signature + b"\x00", unreduced, unreduced[1:], b""):
            self.assertRaises(SignatureInvalid, verify, ROOT.public_pem, b"link", BODY, wrong)

    def test_other_sizes_and_exponents_are_no_roots(self) -> None:
        for exponent, bits in ((65537, 2048), (65537, BITS + 64), (3, BITS)):
            pem = public_pem(generate_private_key(exponent, bits))
            self.assertRaises(SignatureInvalid, check_public, pem)

    def test_a_key_has_one_encoding(self) -> None:
        pem = ROOT.public_pem
        check_public(pem)
        spki = (
            private_key(ROOT)
            .public_key()
            .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        )
        for wrong in (pem + b"\n", b" " + pem, pem.strip(), pem.replace(b"\n", b"\r\n"), spki, pem * 2):
            self.assertRaises(SignatureInvalid, check_public, wrong)


class AnyBytes(SynchronousTestCase):
    signature = ROOT.sign(b"link", BODY)

    @given(some.binary(max_size=400), some.binary(max_size=50))
    @settings(deadline=None)
    def test_as_a_signature(self, signature: bytes, body: bytes) -> None:
        self.assertRaises(SignatureInvalid, verify, ROOT.public_pem, b"link", body, signature)

    @given(some.integers(0, 383), some.integers(1, 255))
    @settings(deadline=None)
    def test_a_changed_signature(self, at: int, change: int) -> None:
        signature = bytearray(self.signature)
        signature[at] ^= change
        self.assertRaises(SignatureInvalid, verify, ROOT.public_pem, b"link", BODY, bytes(signature))

    @given(some.binary(max_size=700), some.integers(0, 700))
    @settings(deadline=None)
    def test_as_a_public_key(self, junk: bytes, at: int) -> None:
        mixed = ROOT.public_pem[:at] + junk + ROOT.public_pem[at + len(junk) :]
        for pem in (junk, b"-----BEGIN RSA PUBLIC KEY-----\n" + junk + b"\n-----END RSA PUBLIC KEY-----\n"):
            self.assertRaises(SignatureInvalid, check_public, pem)
        if mixed != ROOT.public_pem:
            try:
                check_public(mixed)
            except SignatureInvalid:
                return
            self.assertEqual(len(mixed), len(ROOT.public_pem))

    @given(some.binary(max_size=400), some.none() | some.binary(max_size=20))
    @settings(deadline=None)
    def test_as_a_private_key(self, junk: bytes, passphrase: bytes | None) -> None:
        self.assertRaises(ConfigError, RootKey.load, junk, passphrase)


class Pem(SynchronousTestCase):
    def test_with_and_without_a_passphrase(self) -> None:
        for passphrase, head in ((None, b"-----BEGIN RSA PRIVATE"), (b"secret", b"-----BEGIN ENCRYPTED PRIVATE")):
            pem = ROOT.to_pem(passphrase)
            self.assertTrue(pem.startswith(head))
            loaded = RootKey.load(pem, passphrase)
            self.assertEqual(loaded.public_pem, ROOT.public_pem)
            verify(ROOT.public_pem, b"link", BODY, loaded.sign(b"link", BODY))

    def test_the_wrong_passphrase(self) -> None:
        for pem, passphrase in (
            (ROOT.to_pem(b"secret"), b"wrong"),
            (ROOT.to_pem(b"secret"), None),
            (ROOT.to_pem(None), b"secret"),
        ):
            self.assertRaises(ConfigError, RootKey.load, pem, passphrase)

    def test_another_key_is_not_loaded(self) -> None:
        key = generate_private_key(65537, 2048)
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        self.assertRaises(ConfigError, RootKey.load, pem, None)
