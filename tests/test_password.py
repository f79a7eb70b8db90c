"""What is made of a password, and SCRAM against a real server side, an honest one and others."""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import Any

from argon2.low_level import Type, hash_secret_raw
from hypothesis import given, settings
from hypothesis import strategies as some
from scramp import ScramException, ScramMechanism  # type: ignore[import-untyped]
from twisted.trial.unittest import SynchronousTestCase

from fastchat.errors import FastChatError, LoginFailed, TrustError
from fastchat.identity.scram import CHANNEL_BINDING, MECHANISM, SCRAM_SALT_SIZE
from fastchat.protocols.wire import ScramVerifier
from fastchat_client.password import (
    RECOMMENDED,
    Cost,
    ScramLogin,
    local_secrets,
    login_password,
    scram_verifier,
)

CHEAP = Cost(time=1, memory_kib=8, lanes=1)
LOG_KEY = bytes(range(32))
END_POINT = hashlib.sha256(b"certificate").digest()
PASSWORD = login_password("correct horse", LOG_KEY, "alice", CHEAP)
VERIFIER = scram_verifier(PASSWORD, b"s" * 32)


class Derivation(SynchronousTestCase):
    def test_the_login_password_is_as_documented(self) -> None:
        salt = hashlib.sha256(b"FastChat-v1|login-password|" + LOG_KEY + b"|alice").digest()
        raw = hash_secret_raw(b"correct horse", salt, 1, 8, 1, 32, Type.ID)
        self.assertEqual(PASSWORD, base64.b64encode(raw).decode())

    def test_the_default_is_rfc_9106s_second_recommendation(self) -> None:
        self.assertEqual(RECOMMENDED, Cost(time=3, memory_kib=65536, lanes=4))
        self.assertEqual(login_password("p", LOG_KEY, "alice"), login_password("p", LOG_KEY, "alice", RECOMMENDED))

    def test_everything_counts(self) -> None:
        others = {
            login_password("correct horsf", LOG_KEY, "alice", CHEAP),
            login_password("correct horse", bytes(32), "alice", CHEAP),
            login_password("correct horse", LOG_KEY, "bob", CHEAP),
            login_password("correct horse", LOG_KEY, "alice", Cost(time=2, memory_kib=8, lanes=1)),
        }
        self.assertEqual(len(others | {PASSWORD}), 5)

    def test_an_accent_has_one_meaning(self) -> None:
        self.assertEqual(
            login_password("caf\u00e9", LOG_KEY, "al", CHEAP), login_password("cafe\u0301", LOG_KEY, "al", CHEAP)
        )

    @given(some.text(some.characters()))
    @settings(deadline=None, max_examples=30)
    def test_any_password(self, password: str) -> None:
        for odd in (password, password + "\udc80"):
            self.assertEqual(len(base64.b64decode(login_password(odd, LOG_KEY, "al", CHEAP))), 32)
            self.assertEqual(len(local_secrets(odd, bytes(16), CHEAP).vault_key), 32)

    def test_local_secrets_are_apart_from_each_other_and_from_the_login(self) -> None:
        salt = hashlib.sha256(b"FastChat-v1|login-password|" + LOG_KEY + b"|alice").digest()
        secrets = local_secrets("correct horse", salt, CHEAP)
        passphrase = base64.b64decode(secrets.pem_passphrase)
        self.assertEqual((len(secrets.vault_key), len(passphrase)), (32, 32))
        self.assertEqual(len({secrets.vault_key, passphrase, base64.b64decode(PASSWORD)}), 3)
        self.assertEqual(secrets, local_secrets("correct horse", salt, CHEAP))
        self.assertNotEqual(secrets, local_secrets("correct horse", b"x" * 32, CHEAP))
        self.assertRaises(ValueError, local_secrets, "correct horse", b"short", CHEAP)

    def test_secrets_are_not_shown(self) -> None:
        self.assertEqual(repr(local_secrets("p", bytes(16), CHEAP)), "LocalSecrets(…)")

    def test_a_verifier_tells_nothing_that_logs_in(self) -> None:
        self.assertEqual(len(VERIFIER.salt), SCRAM_SALT_SIZE)
        self.assertNotEqual(scram_verifier(PASSWORD).salt, scram_verifier(PASSWORD).salt)
        salted = hashlib.pbkdf2_hmac("sha256", PASSWORD.encode(), b"s" * 32, 4096)
        client_key = hmac.new(salted, b"Client Key", "sha256").digest()
        self.assertEqual(VERIFIER.stored_key, hashlib.sha256(client_key).digest())


def server(verifier: ScramVerifier = VERIFIER, end_point: bytes = END_POINT) -> Any:
    def account(user: str) -> tuple[bytes, bytes, bytes, int]:
        return verifier.salt, verifier.stored_key, verifier.server_key, verifier.iterations

    return ScramMechanism(MECHANISM).make_server(account, (CHANNEL_BINDING, end_point))


class Scram(SynchronousTestCase):
    def exchange(self, login: ScramLogin, server: Any) -> None:
        server.set_client_first(login.first())
        final = login.final(server.get_server_first())
        try:
            server.set_client_final(final)
        except ScramException:
            self.assertIsNotNone(server.error)
        login.finish(server.get_server_final())

    def test_the_right_password(self) -> None:
        login = ScramLogin("alice", PASSWORD, END_POINT)
        self.assertTrue(login.first().startswith("p=tls-server-end-point,,n=alice,r="))
        self.exchange(ScramLogin("alice", PASSWORD, END_POINT), server())

    def test_a_wrong_password(self) -> None:
        login = ScramLogin("alice", login_password("wrong", LOG_KEY, "alice", CHEAP), END_POINT)
        self.assertRaises(LoginFailed, self.exchange, login, server())

    def test_somebody_in_between_has_another_certificate(self) -> None:
        login = ScramLogin("alice", PASSWORD, hashlib.sha256(b"theirs").digest())
        self.assertRaises(TrustError, self.exchange, login, server())

    def test_a_server_that_does_not_know_the_verifier(self) -> None:
        """It may know salt and stored key, say from watching a login; without the server key it can prove nothing."""
        guessed = ScramVerifier(VERIFIER.salt, VERIFIER.iterations, VERIFIER.stored_key, bytes(32))
        self.assertRaises(TrustError, self.exchange, ScramLogin("alice", PASSWORD, END_POINT), server(guessed))

    def test_a_replayed_server_final(self) -> None:
        login, real = ScramLogin("alice", PASSWORD, END_POINT), server()
        real.set_client_first(login.first())
        real.set_client_final(login.final(real.get_server_first()))
        recorded = real.get_server_final()
        login.finish(recorded)
        again, real = ScramLogin("alice", PASSWORD, END_POINT), server()
        real.set_client_first(again.first())
        again.final(real.get_server_first())
        self.assertRaises(TrustError, again.finish, recorded)

    def test_a_server_that_wants_endless_hashing(self) -> None:
        login = ScramLogin("alice", PASSWORD, END_POINT, nonce="abc")
        login.first()
        self.assertRaises(TrustError, login.final, "r=abcdef,s=c2FsdHNhbHRzYWx0c2FsdA==,i=9999999")

    def test_a_nonce_that_is_not_ours(self) -> None:
        login = ScramLogin("alice", PASSWORD, END_POINT, nonce="abc")
        login.first()
        self.assertRaises(TrustError, login.final, "r=abxdef,s=c2FsdHNhbHRzYWx0c2FsdA==,i=4096")

    @given(
        some.text(some.characters()), some.sampled_from(("", "r=abcd", "r=abcd,s=c2FsdHNhbHRzYWx0,i=4096", "v=", "e="))
    )
    @settings(deadline=None)
    def test_any_text(self, text: str, start: str) -> None:
        for message in (text, start + text, f"{start},{text}"):
            login = ScramLogin("alice", PASSWORD, END_POINT, nonce="abc")
            login.first()
            try:
                login.final(message)
            except FastChatError as error:
                self.assertIsInstance(error, TrustError | LoginFailed)
            login, real = ScramLogin("alice", PASSWORD, END_POINT), server()
            real.set_client_first(login.first())
            login.final(real.get_server_first())
            refusal = self.assertRaises(FastChatError, login.finish, message)
            self.assertIsInstance(refusal, TrustError | LoginFailed)
