"""What all signed statements share: their encoding, and the check of an Ed25519 signature.

A statement is a msgspec Struct as JSON. A signature is checked over the exact bytes that were transmitted; the bytes
must also be the one encoding that this module gives their meaning (fields in the order of the Struct, no white space,
standard base64), so that no two programs can read one signed body in two ways. It knows no particular statement.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from msgspec import Meta

from fastchat.errors import SignatureInvalid

Key32 = Annotated[bytes, Meta(min_length=32, max_length=32)]
"""An Ed25519 or X25519 public key."""
Millis = Annotated[int, Meta(ge=0, le=2**53 - 1)]
"""Milliseconds since 1970."""

encode = msgspec.json.Encoder().encode


class NotAStatement(Exception):
    """These bytes are not a statement of the kind that was asked for. Never leaves the package."""


def statement_decoder(kind: Any) -> Callable[[bytes], Any]:
    """A function from a signed body to the statement in it; raises `NotAStatement` and nothing else. `kind` is a
    Struct or a union of Structs."""
    decode = msgspec.json.Decoder(kind).decode

    def decode_statement(body: bytes) -> Any:
        try:
            statement = decode(body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise NotAStatement(str(error)) from None
        if encode(statement) != body:
            raise NotAStatement("it is not in the canonical encoding")
        return statement

    return decode_statement


def verify_ed25519(public: bytes, message: bytes, signature: bytes) -> None:
    """RFC 8032. `public`: 32 bytes; `signature`: 64 bytes. Raises `SignatureInvalid`."""
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except (InvalidSignature, ValueError):
        raise SignatureInvalid from None
