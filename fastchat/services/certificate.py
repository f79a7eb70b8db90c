"""The secrets that a network is recognised by: its certificate, the key log's key, and the token of its invite.

Each is made once, at the first start, as a file of mode 0600 under the home, and only read after that: what clients
have pinned must never change by itself. It knows no service; the one thing it decides is TLS 1.3 and nothing less.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from ipaddress import ip_address
from pathlib import Path

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import NameOID
from OpenSSL import crypto
from twisted.internet.ssl import CertificateOptions, TLSVersion

from fastchat.errors import ConfigError
from fastchat.identity.invite import is_token

VALID_DAYS = 20 * 365
"""Clients pin the certificate itself, and look at no date; a short life would only break them all on one day."""
TOKEN_BYTES = 16


class Secrets(msgspec.Struct, frozen=True):
    tls: CertificateOptions
    """A context factory for servers: TLS 1.3 with the certificate."""
    pin: bytes
    """SHA-256 of the certificate's DER, 32 bytes; also its tls-server-end-point (RFC 5929), for it is signed with
    ECDSA and SHA-256."""
    log_key: ed25519.Ed25519PrivateKey
    token: str
    """Of the invite."""

    @property
    def log_public(self) -> bytes:
        """32 bytes."""
        return self.log_key.public_key().public_bytes_raw()


def open_secrets(home: Path, host: str) -> Secrets:
    """Read them, after making those that are not there; a new certificate names `host`. Raises `ConfigError`."""
    pem = _kept(home / "certificate.pem", lambda: _make_certificate(host))
    log = _kept(home / "log.key", _make_log_key)
    token = _kept(home / "invite.token", lambda: secrets.token_urlsafe(TOKEN_BYTES).encode() + b"\n")
    return Secrets(
        *_read_certificate(home / "certificate.pem", pem),
        _read_log_key(home / "log.key", log),
        _read_token(home / "invite.token", token),
    )


def write_invite(home: Path, link: str) -> Path:
    """Leave the link where scripts find it, as one line; answers the file."""
    file = home / "invite"
    _write(file, link.encode() + b"\n")
    return file


def _kept(file: Path, make: Callable[[], bytes]) -> bytes:
    try:
        if not file.exists():
            _write(file, make())
        return file.read_bytes()
    except OSError as error:
        raise ConfigError(f"{file}: cannot be used: {error.strerror}") from None


def _write(file: Path, content: bytes) -> None:
    """All of it or nothing, on the disk, and never readable for others, not even for a moment."""
    unfinished = file.with_name(file.name + ".new")
    unfinished.unlink(missing_ok=True)
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    unfinished.rename(file)


def _make_certificate(host: str) -> bytes:
    """A private key and its self-signed certificate, both in PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "FastChat")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=VALID_DAYS))
        .add_extension(x509.SubjectAlternativeName([_alternative_name(host)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return private + certificate.public_bytes(serialization.Encoding.PEM)


def _alternative_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        try:
            return x509.DNSName(host.encode("idna").decode())
        except UnicodeError:
            raise ConfigError(f"public_host: {host!r} is neither a name nor an address") from None


def _read_certificate(file: Path, pem: bytes) -> tuple[CertificateOptions, bytes]:
    try:
        certificate = x509.load_pem_x509_certificate(pem)
        key = crypto.load_privatekey(crypto.FILETYPE_PEM, pem)
        options = CertificateOptions(
            privateKey=key,
            certificate=crypto.X509.from_cryptography(certificate),
            raiseMinimumTo=TLSVersion.TLSv1_3,
        )
        options.getContext().check_privatekey()
    except Exception as error:  # whatever three libraries say about a damaged file
        raise ConfigError(f"{file}: is not a private key with its certificate: {type(error).__name__}") from None
    return options, sha256(certificate.public_bytes(serialization.Encoding.DER)).digest()


def _make_log_key() -> bytes:
    return ed25519.Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _read_log_key(file: Path, pem: bytes) -> ed25519.Ed25519PrivateKey:
    try:
        key = serialization.load_pem_private_key(pem, None)
    except (ValueError, TypeError):
        key = None
    if not isinstance(key, ed25519.Ed25519PrivateKey):
        raise ConfigError(f"{file}: is not an Ed25519 private key in PEM")
    return key


def _read_token(file: Path, content: bytes) -> str:
    token = content.decode("ascii", "replace").strip()
    if not is_token(token):
        raise ConfigError(f"{file}: is not an invite's token")
    return token
