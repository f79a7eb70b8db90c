"""What a network is recognised by: made once, kept closed, never changed; and TLS 1.3, nothing less."""

from __future__ import annotations

import stat
from hashlib import sha256
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL
from twisted.trial.unittest import SynchronousTestCase

from fastchat.errors import ConfigError
from fastchat.services.certificate import open_secrets, write_invite

FILES = ("certificate.pem", "log.key", "invite.token")


def shake_hands(server: SSL.Connection, client: SSL.Connection) -> None:
    """Carry bytes between the two until both have finished; raises `SSL.Error` when they do not agree."""
    waiting = [client, server]
    while waiting:
        for end in list(waiting):
            try:
                end.do_handshake()
                waiting.remove(end)
            except SSL.WantReadError:
                pass
        for sender, receiver in ((client, server), (server, client)):
            while True:
                try:
                    receiver.bio_write(sender.bio_read(65536))
                except SSL.WantReadError:
                    break


class SecretsTest(SynchronousTestCase):
    def setUp(self) -> None:
        self.home = Path(self.mktemp())
        self.home.mkdir()

    def test_they_are_made_once(self) -> None:
        first = open_secrets(self.home, "127.0.0.1")
        contents = [(self.home / name).read_bytes() for name in FILES]
        again = open_secrets(self.home, "elsewhere.example")
        self.assertEqual((first.pin, first.log_public, first.token), (again.pin, again.log_public, again.token))
        self.assertEqual([(self.home / name).read_bytes() for name in FILES], contents)

    def test_two_networks_share_nothing(self) -> None:
        other = Path(self.mktemp())
        other.mkdir()
        one, two = open_secrets(self.home, "a.example"), open_secrets(other, "a.example")
        self.assertNotEqual(one.pin, two.pin)
        self.assertNotEqual(one.log_public, two.log_public)
        self.assertNotEqual(one.token, two.token)

    def test_only_their_owner_can_read_them(self) -> None:
        open_secrets(self.home, "127.0.0.1")
        write_invite(self.home, "fastchat://…")
        for file in self.home.iterdir():
            self.assertEqual(stat.S_IMODE(file.stat().st_mode), 0o600, file)
        self.assertEqual({file.name for file in self.home.iterdir()}, {*FILES, "invite"})
        self.assertEqual((self.home / "invite").read_text(), "fastchat://…\n")

    def test_the_certificate_is_ecdsa_and_is_what_the_pin_says(self) -> None:
        made = open_secrets(self.home, "chat.example")
        certificate = x509.load_pem_x509_certificate((self.home / "certificate.pem").read_bytes())
        key = certificate.public_key()
        assert isinstance(key, ec.EllipticCurvePublicKey)
        self.assertEqual(key.curve.name, "secp256r1")
        self.assertIsInstance(certificate.signature_hash_algorithm, hashes.SHA256)
        self.assertEqual(made.pin, sha256(certificate.public_bytes(Encoding.DER)).digest())
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        self.assertEqual(names.get_values_for_type(x509.DNSName), ["chat.example"])

    def test_a_damaged_file_is_named_and_left_alone(self) -> None:
        open_secrets(self.home, "127.0.0.1")
        for name in FILES:
            file = self.home / name
            good = file.read_bytes()
            file.write_bytes(b"?" + good[40:])
            error = self.assertRaises(ConfigError, open_secrets, self.home, "127.0.0.1")
            self.assertTrue(error.message.startswith(f"{file}: "), error.message)
            self.assertEqual(file.read_bytes(), b"?" + good[40:])
            file.write_bytes(good)

    def connections(self, version: int) -> tuple[SSL.Connection, SSL.Connection]:
        server = SSL.Connection(open_secrets(self.home, "127.0.0.1").tls.getContext())
        server.set_accept_state()
        context = SSL.Context(SSL.TLS_METHOD)
        context.set_min_proto_version(version)
        context.set_max_proto_version(version)
        client = SSL.Connection(context)
        client.set_connect_state()
        return server, client

    def test_tls_1_3_is_spoken(self) -> None:
        server, client = self.connections(SSL.TLS1_3_VERSION)
        shake_hands(server, client)
        self.assertEqual(client.get_protocol_version_name(), "TLSv1.3")
        self.assertEqual(
            server.export_keying_material(b"EXPORTER-Channel-Binding", 32, b""),
            client.export_keying_material(b"EXPORTER-Channel-Binding", 32, b""),
        )

    def test_tls_1_2_is_not(self) -> None:
        self.assertRaises(SSL.Error, shake_hands, *self.connections(SSL.TLS1_2_VERSION))
