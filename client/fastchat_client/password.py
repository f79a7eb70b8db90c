"""What is made of a password: the SCRAM login, and the keys of the vault and of identity.pem.

Every use starts with Argon2id (RFC 9106), so that whoever holds a verifier, a vault or a pem pays that price for each
guess; the password itself never leaves this module. It knows no files and no network.
"""

from __future__ import annotations

import base64
import hashlib
import os
import unicodedata
from dataclasses import dataclass
from typing import Annotated

import msgspec
from argon2.low_level import Type, hash_secret_raw
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from msgspec import Meta
from scramp import ScramClient, ScramException, ScramMechanism  # type: ignore[import-untyped]

from fastchat.errors import LoginFailed, TrustError
from fastchat.identity.root import CONTEXT
from fastchat.identity.scram import CHANNEL_BINDING, MECHANISM, SCRAM_ITERATIONS, SCRAM_SALT_SIZE
from fastchat.protocols.wire import ScramVerifier

_MOST_ITERATIONS = 1_000_000
_KEY_SIZE = 32


class Cost(msgspec.Struct, frozen=True):
    """Argon2id's parameters, kept with what was made with them."""

    time: Annotated[int, Meta(ge=1, le=1000)] = 3
    """Passes."""
    memory_kib: Annotated[int, Meta(ge=8, le=2**24)] = 64 * 1024
    lanes: Annotated[int, Meta(ge=1, le=64)] = 4


RECOMMENDED = Cost()
"""RFC 9106 section 4, the second recommended option; 0.1 to 0.3 s."""


@dataclass(frozen=True, slots=True)
class LocalSecrets:
    """What opens a profile's files. Never written down, never sent."""

    vault_key: bytes
    """32 bytes."""
    pem_passphrase: bytes
    """base64 of 32 bytes, for identity.pem: hard enough for the few rounds of PBKDF2 that a PEM has."""

    def __repr__(self) -> str:
        return "LocalSecrets(…)"


def login_password(password: str, log_key: bytes, user: str, cost: Cost = RECOMMENDED) -> str:
    """The SCRAM password: base64 of Argon2id(password, SHA-256(`FastChat-v1|login-password|` | log key | user)).

    The salt needs no server, so a new device can log in with the password alone; the log key (32 bytes) stands for the
    network and never changes. `cost` must be the same on every device of the account: leave it, except in tests."""
    salt = hashlib.sha256(CONTEXT + b"login-password|" + log_key + b"|" + user.encode()).digest()
    return base64.b64encode(_argon2id(password, salt, cost)).decode("ascii")


def local_secrets(password: str, salt: bytes, cost: Cost = RECOMMENDED) -> LocalSecrets:
    """The profile's keys, from one run of Argon2id split by HKDF-Expand (RFC 5869 section 2.3). `salt`: random, at
    least 16 bytes, of this profile alone, so that these keys tell nothing about the login's."""
    if len(salt) < 16:
        raise ValueError("a profile's salt has at least 16 bytes")
    secret = _argon2id(password, salt, cost)
    return LocalSecrets(
        vault_key=_expand(secret, b"vault-key"),
        pem_passphrase=base64.b64encode(_expand(secret, b"pem-passphrase")),
    )


def scram_verifier(login_password: str, salt: bytes | None = None) -> ScramVerifier:
    """What the server keeps (RFC 5802 section 3). `salt`: random, `SCRAM_SALT_SIZE` bytes; made here if not given."""
    salt = os.urandom(SCRAM_SALT_SIZE) if salt is None else salt
    mechanism = ScramMechanism(MECHANISM)
    _, stored_key, server_key, _ = mechanism.make_auth_info(login_password, SCRAM_ITERATIONS, salt)
    return ScramVerifier(salt=salt, iterations=SCRAM_ITERATIONS, stored_key=stored_key, server_key=server_key)


class ScramLogin:
    """The client's side of one SCRAM-SHA-256-PLUS exchange (RFC 5802, RFC 7677), bound to the server's certificate:
    `first`, then `final`, then `finish`, each once. `end_point`: the tls-server-end-point bytes of the connection
    (RFC 5929). `nonce`: printable ASCII without commas, random if not given."""

    def __init__(self, user: str, login_password: str, end_point: bytes, nonce: str | None = None) -> None:
        self._client = ScramClient([MECHANISM], user, login_password, (CHANNEL_BINDING, end_point), nonce)

    def first(self) -> str:
        """The client-first-message."""
        return str(self._client.get_client_first())

    def final(self, server_first: str) -> str:
        """The client-final-message that answers the server-first-message. Raises `TrustError` for one that no honest
        server sends, `LoginFailed` if the server refuses already."""
        _check_refusal(server_first)
        try:
            self._client.set_server_first(server_first)
            if int(self._client.iterations) > _MOST_ITERATIONS:
                raise TrustError("the server asks for more rounds of hashing than any verifier of ours has")
            return str(self._client.get_client_final())
        except (ScramException, ValueError) as error:
            raise TrustError(f"the server's answer to the login is not SCRAM: {error}") from None

    def finish(self, server_final: str) -> None:
        """Return if the server has proven that it knows the verifier, and so is the one that the password was set up
        with. Raises `LoginFailed` if it refused the password, `TrustError` if it proved nothing."""
        _check_refusal(server_final)
        try:
            self._client.set_server_final(server_final)
        except (ScramException, ValueError):
            raise TrustError("the server does not know this account's verifier: it is not who it says") from None


def _check_refusal(message: str) -> None:
    if message == "e=channel-bindings-dont-match":
        raise TrustError("the server has another certificate than the one seen here: somebody is in between")
    if message.startswith("e="):
        raise LoginFailed


def _argon2id(password: str, salt: bytes, cost: Cost) -> bytes:
    # One password is one password, whichever way a keyboard composes its accents (RFC 8265 section 4.2.2).
    secret = unicodedata.normalize("NFC", password).encode("utf-8", "surrogatepass")
    return hash_secret_raw(
        secret,
        salt,
        time_cost=cost.time,
        memory_cost=cost.memory_kib,
        parallelism=cost.lanes,
        hash_len=_KEY_SIZE,
        type=Type.ID,
    )


def _expand(secret: bytes, purpose: bytes) -> bytes:
    return HKDFExpand(hashes.SHA256(), _KEY_SIZE, CONTEXT + purpose).derive(secret)
