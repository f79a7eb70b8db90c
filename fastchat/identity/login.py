"""What a known device signs to log in: a statement that is good for one TLS connection and one challenge only.

The exporter (RFC 9266) is known to the two ends of the connection and to nobody between them, so a signature that a
false server obtains cannot be used on a connection of its own. It knows no sockets: the bytes come from whoever does.
"""

from __future__ import annotations

from dataclasses import dataclass

from fastchat.errors import SignatureInvalid
from fastchat.identity.root import CONTEXT
from fastchat.identity.statements import verify_ed25519

EXPORTER_LABEL = b"EXPORTER-Channel-Binding"
"""RFC 9266 section 2; its context is the empty string, which in TLS 1.3 is the same as none (RFC 8446 section 7.5)."""
EXPORTER_SIZE = 32
CHALLENGE_SIZE = 32


@dataclass(frozen=True, slots=True)
class ChannelBinding:
    """What makes one TLS connection different from every other."""

    exporter: bytes
    """RFC 9266 tls-exporter, 32 bytes."""
    end_point: bytes
    """RFC 5929 tls-server-end-point: the hash of the server's certificate."""


def statement(exporter: bytes, challenge: bytes, user: str, device: str) -> bytes:
    """What is signed: `FastChat-v1|login|exporter|challenge|user|device`. `exporter` and `challenge` have 32 bytes
    each; raises `SignatureInvalid` otherwise, so that a server's odd challenge cannot make the fields run together."""
    if len(exporter) != EXPORTER_SIZE or len(challenge) != CHALLENGE_SIZE:
        raise SignatureInvalid(f"a login takes {EXPORTER_SIZE} bytes of exporter and {CHALLENGE_SIZE} of challenge")
    fields = (exporter, challenge, user.encode("utf-8", "replace"), device.encode("utf-8", "replace"))
    return CONTEXT + b"login|" + b"|".join(fields)


def verify(ed25519: bytes, statement: bytes, signature: bytes) -> None:
    """Whether the device with this public key (32 bytes) signed `statement`. Raises `SignatureInvalid`."""
    verify_ed25519(ed25519, statement, signature)
