"""What a device publishes so that others can write to it while it is away, signed by the device's Ed25519 key.

One-time keys and a fallback key start Olm sessions; a seal key (X-Wing: ML-KEM-768 and X25519) closes the envelope
around every message. Each statement names its account and device, so a server cannot hand out one device's key as
another's. It knows public keys only. Signatures: Ed25519 over `FastChat-v1|prekey|` and the exact body.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, TypeVar

import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from msgspec import Meta

from fastchat.errors import SignatureInvalid
from fastchat.identity.links import DeviceIdentity
from fastchat.identity.root import CONTEXT
from fastchat.identity.statements import Key32, Millis, NotAStatement, encode, statement_decoder, verify_ed25519
from fastchat.protocols.wire import DeviceId, DeviceKeys, Signed

Sign = Callable[[bytes], bytes]
"""A device's raw Ed25519 signature over what it is given."""
SealId = Annotated[int, Meta(ge=0, le=2**32 - 1)]
MlKem768 = Annotated[bytes, Meta(min_length=1184, max_length=1184)]


class OneTime(msgspec.Struct, tag_field="t", tag="one_time", frozen=True, forbid_unknown_fields=True):
    """`key`: Curve25519, good for one session."""

    user: str
    device: DeviceId
    key: Key32


class Fallback(msgspec.Struct, tag_field="t", tag="fallback", frozen=True, forbid_unknown_fields=True):
    """`key`: Curve25519, for when the one-time keys are used up."""

    user: str
    device: DeviceId
    key: Key32


class Seal(msgspec.Struct, tag_field="t", tag="seal", frozen=True, forbid_unknown_fields=True):
    """The two halves of an X-Wing public key; `id` is the device's own number for it, which envelopes name."""

    user: str
    device: DeviceId
    id: SealId
    mlkem768: MlKem768
    x25519: Key32
    at: Millis


class SealKey(msgspec.Struct, frozen=True):
    """A seal key that has been verified. `mlkem768`: 1,184 bytes; `x25519`: 32 bytes; `at`: when it was made, in
    milliseconds since 1970, as its device says."""

    id: int
    mlkem768: bytes
    x25519: bytes
    at: int


_Statement = TypeVar("_Statement", OneTime, Fallback, Seal)

_ANY_X25519 = X25519PrivateKey.from_private_bytes(bytes(range(32)))
"""No secret: an exchange with any key at all shows whether the other one is of low order."""

_decode_one_time: Callable[[bytes], OneTime] = statement_decoder(OneTime)
_decode_fallback: Callable[[bytes], Fallback] = statement_decoder(Fallback)
_decode_seal: Callable[[bytes], Seal] = statement_decoder(Seal)


def sign_one_time(sign: Sign, identity: DeviceIdentity, key: bytes) -> Signed:
    """`key`: 32 bytes."""
    return _sign(sign, OneTime(identity.user, identity.device, key))


def sign_fallback(sign: Sign, identity: DeviceIdentity, key: bytes) -> Signed:
    """`key`: 32 bytes."""
    return _sign(sign, Fallback(identity.user, identity.device, key))


def sign_seal(sign: Sign, identity: DeviceIdentity, seal_id: int, mlkem768: bytes, x25519: bytes, at: int) -> Signed:
    """`seal_id`: 0 to 2^32 - 1; `mlkem768`: 1,184 bytes; `x25519`: 32 bytes; `at`: milliseconds since 1970."""
    return _sign(sign, Seal(identity.user, identity.device, seal_id, mlkem768, x25519, at))


def verify_one_time(identity: DeviceIdentity, signed: Signed) -> bytes:
    """The Curve25519 key, 32 bytes, if `identity`'s device published it as a one-time key. Raises
    `SignatureInvalid`."""
    return _verify(_decode_one_time, identity, signed).key


def verify_fallback(identity: DeviceIdentity, signed: Signed) -> bytes:
    """The Curve25519 key, 32 bytes, if `identity`'s device published it as its fallback key. Raises
    `SignatureInvalid`."""
    return _verify(_decode_fallback, identity, signed).key


def verify_seal(identity: DeviceIdentity, signed: Signed) -> SealKey:
    """The seal key, if `identity`'s device published it and one can seal with it: a valid ML-KEM key (FIPS 203 section
    7.2) and an X25519 key that is not of low order (RFC 7748 section 6.1). Raises `SignatureInvalid`."""
    seal = _verify(_decode_seal, identity, signed)
    try:
        MLKEM768PublicKey.from_public_bytes(seal.mlkem768)
        _ANY_X25519.exchange(X25519PublicKey.from_public_bytes(seal.x25519))
    except (ValueError, UnsupportedAlgorithm):
        raise SignatureInvalid("a seal key is not an X-Wing key that one can seal with") from None
    return SealKey(seal.id, seal.mlkem768, seal.x25519, seal.at)


def verify_all(identity: DeviceIdentity, keys: DeviceKeys) -> None:
    """What a server checks before it stores what a device publishes. Raises `SignatureInvalid`."""
    one_time = {verify_one_time(identity, signed) for signed in keys.one_time}
    if len(one_time) != len(keys.one_time):
        raise SignatureInvalid("a one-time key is there twice")
    if keys.fallback is not None:
        verify_fallback(identity, keys.fallback)
    if keys.seal is not None:
        verify_seal(identity, keys.seal)


def _sign(sign: Sign, statement: OneTime | Fallback | Seal) -> Signed:
    body = encode(statement)
    return Signed(body=body, signature=sign(_message(body)))


def _verify(decode: Callable[[bytes], _Statement], identity: DeviceIdentity, signed: Signed) -> _Statement:
    verify_ed25519(identity.ed25519, _message(signed.body), signed.signature)
    try:
        statement = decode(signed.body)
    except NotAStatement as error:
        raise SignatureInvalid(f"a key is not of the kind that it is handed out as: {error}") from None
    if (statement.user, statement.device) != (identity.user, identity.device):
        raise SignatureInvalid("a key belongs to another device")
    return statement


def _message(body: bytes) -> bytes:
    return CONTEXT + b"prekey|" + body
