"""Olm inside an X-Wing envelope: what a device needs to write to another one, and to read what comes.

Olm (X3DH and the double ratchet) gives forward secrecy and heals after a theft; the envelope (HPKE, RFC 9180, with
X-Wing: ML-KEM-768 and X25519) hides who writes and holds against a quantum computer. The only importer of vodozemac.
No storage and no network: state goes in and out as pickles, which carry a MAC of 8 bytes only and so belong in the
encrypted vault. Reading raises `Unreadable` and nothing else, whatever the bytes.

    body  = version 1 | seal id, 4 bytes big-endian | HPKE(seal key, info = FastChat-v1|env|user|device|seal id, inner)
    inner = version 1 | Olm message type | the sender's Curve25519 key, 32 bytes | Olm ciphertext
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

import msgspec
import vodozemac
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from msgspec import Raw

from fastchat.errors import ConfigError, SignatureInvalid, TrustError
from fastchat.identity import prekeys
from fastchat.identity.links import DeviceIdentity, device_id
from fastchat.identity.prekeys import SealKey
from fastchat.identity.root import CONTEXT
from fastchat.protocols.wire import Bundle, Signed
from fastchat_client.unreadable import Reason, Unreadable

SUITE = hpke.Suite(hpke.KEM.MLKEM768_X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.CHACHA20_POLY1305)
"""The only one: there is nothing to downgrade to."""
PADDED_TO = 160
"""Plaintexts are padded to a multiple of this many bytes, so that their length tells little."""
_VERSION = 1
_OUTER = 5
_INNER = 34
_PREKEY_MESSAGE = 0
_SEAL_PRIVATE_SIZE = 4 + 8 + 64 + 32


class DeviceAccount:
    """A device's own keys: Ed25519, Curve25519, and the private halves of its one-time and fallback keys."""

    def __init__(self, account: vodozemac.Account) -> None:
        self._account = account
        self.ed25519: bytes = _from_base64(account.ed25519_key.to_base64())
        self.curve25519: bytes = account.curve25519_key.to_bytes()

    @classmethod
    def create(cls) -> DeviceAccount:
        return cls(vodozemac.Account())

    @classmethod
    def load(cls, pickle: str, key: bytes) -> DeviceAccount:
        """What `dump` gave with the same `key`, 32 bytes. Raises `ConfigError`."""
        try:
            return cls(vodozemac.Account.from_pickle(pickle, key))
        except ValueError:
            raise ConfigError("the vault's device keys are damaged") from None

    def dump(self, key: bytes) -> str:
        return self._account.pickle(key)

    def identity(self, user: str) -> DeviceIdentity:
        """This device as a link of `user` names it."""
        return DeviceIdentity(user, device_id(self.ed25519, self.curve25519), self.ed25519, self.curve25519)

    def sign(self, message: bytes) -> bytes:
        """The raw Ed25519 signature, 64 bytes. The context that keeps one use from another is the caller's."""
        return _from_base64(self._account.sign(message).to_base64())

    def new_one_time_keys(self, identity: DeviceIdentity, count: int) -> tuple[Signed, ...]:
        """`count` one-time keys that are not yet published, at most 50; those of an earlier call that was never
        followed by `mark_published` come first."""
        missing = count - len(self._account.one_time_keys)
        if missing > 0:
            self._account.generate_one_time_keys(missing)
        keys = [key for _, key in sorted(self._account.one_time_keys.items())][:count]
        return tuple(prekeys.sign_one_time(self.sign, identity, key.to_bytes()) for key in keys)

    def new_fallback(self, identity: DeviceIdentity) -> Signed:
        """A fallback key that is not yet published. The one before it goes on working, the one before that does not:
        rotate by the week, not by the retry (an unpublished key is returned again)."""
        # The stubs of vodozemac 0.10 lack both names.
        if not self._account.fallback_key:  # type: ignore[attr-defined]
            self._account.generate_fallback_key()  # type: ignore[attr-defined]
        (key,) = self._account.fallback_key.values()  # type: ignore[attr-defined]
        return prekeys.sign_fallback(self.sign, identity, key.to_bytes())

    def mark_published(self) -> None:
        """Every key that was given out by now is with the server."""
        self._account.mark_keys_as_published()


class SealPrivate:
    """The private half of a seal key."""

    def __init__(self, seal_id: int, at: int, mlkem768: MLKEM768PrivateKey, x25519: X25519PrivateKey) -> None:
        self.id = seal_id
        self.at = at
        """When it was made, milliseconds since 1970."""
        self._mlkem768 = mlkem768
        self._x25519 = x25519
        self.hpke = hpke.MLKEM768X25519PrivateKey(mlkem768, x25519)

    @classmethod
    def generate(cls, seal_id: int, at: int) -> SealPrivate:
        """`seal_id`: 0 to 2^32 - 1, never used before on this device."""
        return cls(seal_id, at, MLKEM768PrivateKey.generate(), X25519PrivateKey.generate())

    def statement(self, account: DeviceAccount, identity: DeviceIdentity) -> Signed:
        """The public half, signed, as the device publishes it."""
        mlkem768 = self._mlkem768.public_key().public_bytes_raw()
        x25519 = self._x25519.public_key().public_bytes_raw()
        return prekeys.sign_seal(account.sign, identity, self.id, mlkem768, x25519, self.at)

    def to_bytes(self) -> bytes:
        """108 bytes, all secret."""
        return (
            self.id.to_bytes(4, "big")
            + self.at.to_bytes(8, "big")
            + self._mlkem768.private_bytes_raw()
            + self._x25519.private_bytes_raw()
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> SealPrivate:
        """What `to_bytes` gave. Raises `ConfigError`."""
        if len(data) != _SEAL_PRIVATE_SIZE:
            raise ConfigError("the vault's seal keys are damaged")
        return cls(
            int.from_bytes(data[:4], "big"),
            int.from_bytes(data[4:12], "big"),
            MLKEM768PrivateKey.from_seed_bytes(data[12:76]),
            X25519PrivateKey.from_private_bytes(data[76:]),
        )


class OlmSession:
    """A double ratchet with one device. There may be several with the same one: both sides can open one at once."""

    def __init__(self, session: vodozemac.Session, peer: bytes) -> None:
        self._session = session
        self.peer = peer
        """The other device's Curve25519 key, 32 bytes."""
        self.session_id: str = session.session_id

    @classmethod
    def load(cls, pickle: str, key: bytes, peer: bytes) -> OlmSession:
        """What `dump` gave with the same `key`, 32 bytes. Raises `ConfigError`."""
        try:
            return cls(vodozemac.Session.from_pickle(pickle, key), peer)
        except ValueError:
            raise ConfigError("the vault's sessions are damaged") from None

    def dump(self, key: bytes) -> str:
        return self._session.pickle(key)

    def matches(self, opened: Opened) -> bool:
        """Whether `opened` is a prekey message that began this session."""
        prekey = opened.olm.to_pre_key()
        return prekey is not None and opened.curve25519 == self.peer and self._session.session_matches(prekey)

    def encrypt(self, plaintext: bytes) -> tuple[int, bytes]:
        """The Olm message's type (0 until the peer has answered, then 1) and its ciphertext."""
        return self._session.encrypt(plaintext).to_parts()

    def decrypt(self, opened: Opened) -> bytes:
        """Raises `Unreadable`; the session is then as it was before."""
        try:
            return self._session.decrypt(opened.olm)
        except ValueError:
            raise Unreadable(Reason.BAD_MAC, (self.session_id,)) from None


@dataclass(frozen=True, slots=True)
class Opened:
    """What was in an envelope: an Olm message, and whose it claims to be."""

    seal_id: int
    curve25519: bytes
    """The sender's key, 32 bytes: a claim until a session of this key has decrypted `olm`."""
    olm: vodozemac.AnyOlmMessage

    @property
    def session_id(self) -> str | None:
        """Of the session that a prekey message belongs to; None for a normal message. One that begins a session with
        an id that was here before, and is not any more, is a replay: fallback keys do not prevent those."""
        prekey = self.olm.to_pre_key()
        return None if prekey is None else prekey.session_id()


@dataclass(frozen=True, slots=True)
class Decrypted:
    """`session` has moved on and must be stored with what is done about `plaintext`; if `is_new`, so must the account,
    which may have spent a one-time key."""

    session: OlmSession
    plaintext: bytes
    is_new: bool


def open_outbound(account: DeviceAccount, peer: DeviceIdentity, bundle: Bundle) -> OlmSession:
    """A new session with `peer` (as its account's chain has it) from the keys that the server handed out: the one-time
    key, or the fallback if there is none. Raises `SignatureInvalid` if they are not `peer`'s."""
    if bundle.device != peer.device:
        raise SignatureInvalid("these keys are another device's")
    if bundle.one_time is not None:
        return open_with_key(account, peer, prekeys.verify_one_time(peer, bundle.one_time))
    return open_with_key(account, peer, prekeys.verify_fallback(peer, bundle.fallback))


def open_with_key(account: DeviceAccount, peer: DeviceIdentity, key: bytes) -> OlmSession:
    """A new session with `peer` from its one-time or fallback `key` (32 bytes), verified already. Raises
    `SignatureInvalid` for keys that no honest device has (of low order)."""
    try:
        session = account._account.create_outbound_session(
            vodozemac.Curve25519PublicKey.from_bytes(peer.curve25519), vodozemac.Curve25519PublicKey.from_bytes(key)
        )
    except ValueError:
        raise SignatureInvalid("these keys cannot begin a session") from None
    return OlmSession(session, peer.curve25519)


def seal(session: OlmSession, me: DeviceIdentity, peer: DeviceIdentity, seal_key: SealKey, plain: bytes) -> bytes:
    """The body that only `peer` can open: `plain` padded, encrypted by `session` (which moves on: store it first) and
    sealed for `seal_key`, which `prekeys.verify_seal` must have accepted. Raises `TrustError` for one that cannot be
    used after all."""
    if session.peer != peer.curve25519:
        raise ValueError("this session is with another device")
    olm_type, ciphertext = session.encrypt(pad(plain))
    inner = bytes((_VERSION, olm_type)) + me.curve25519 + ciphertext
    try:
        sealed = SUITE.encrypt(inner, _seal_public(seal_key.mlkem768, seal_key.x25519), info=_info(peer, seal_key.id))
    except ValueError:
        raise TrustError("nothing can be sealed with the recipient's key") from None
    return bytes((_VERSION,)) + seal_key.id.to_bytes(4, "big") + sealed


def open_envelope(seal_privates: Mapping[int, SealPrivate], me: DeviceIdentity, body: bytes) -> Opened:
    """What is in `body`, if it was sealed for `me`. `seal_privates`: by id, old ones too. Raises `Unreadable`."""
    if len(body) < _OUTER or body[0] != _VERSION:
        raise Unreadable(Reason.BAD_ENVELOPE)
    seal_id = int.from_bytes(body[1:_OUTER], "big")
    private = seal_privates.get(seal_id)
    if private is None:
        raise Unreadable(Reason.UNKNOWN_SEAL_KEY)
    try:
        inner = SUITE.decrypt(body[_OUTER:], private.hpke, info=_info(me, seal_id))
        if len(inner) < _INNER or inner[0] != _VERSION:
            raise Unreadable(Reason.BAD_ENVELOPE)
        return Opened(seal_id, inner[2:_INNER], vodozemac.AnyOlmMessage.from_parts(inner[1], inner[_INNER:]))
    except (InvalidTag, ValueError):
        raise Unreadable(Reason.BAD_ENVELOPE) from None


def decrypt(
    account: DeviceAccount, opened: Opened, sessions: Iterable[OlmSession], may_begin: bool = True
) -> Decrypted:
    """The plaintext of `opened`, without its padding. `sessions`: those with the sender, the most recently used first;
    sessions with other devices are passed over. A prekey message goes to the session that it began, or begins one, if
    it `may_begin` one.

    Raises `Unreadable`: `no-session` if there is none that could read it, `revoked-device` if it may not begin one,
    `bad-mac` with the sessions that were tried, `bad-content` if the padding is wrong. Nothing has changed then, but
    for `bad-content`."""
    own = [session for session in sessions if session.peer == opened.curve25519]
    prekey = opened.olm.to_pre_key()
    if prekey is not None:
        own = [session for session in own if session.matches(opened)]
        if not own and not may_begin:
            raise Unreadable(Reason.REVOKED_DEVICE)
        if not own:
            return _open_inbound(account, opened, prekey)
    for session in own:
        try:
            plaintext = session.decrypt(opened)
        except Unreadable:
            continue
        return Decrypted(session, unpad(plaintext), is_new=False)
    if not own:
        raise Unreadable(Reason.NO_SESSION)
    raise Unreadable(Reason.BAD_MAC, tuple(session.session_id for session in own))


def body_to_wire(body: bytes) -> Raw:
    """A body as it stands in `send`: a JSON string of base64."""
    return Raw(msgspec.json.encode(body))


def body_from_wire(raw: Raw) -> bytes:
    """The body in a `message`. Raises `Unreadable`."""
    try:
        return msgspec.json.decode(raw, type=bytes)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise Unreadable(Reason.BAD_ENVELOPE) from None


def _open_inbound(account: DeviceAccount, opened: Opened, prekey: vodozemac.PreKeyMessage) -> Decrypted:
    try:
        sender = vodozemac.Curve25519PublicKey.from_bytes(opened.curve25519)
        session, plaintext = account._account.create_inbound_session(sender, prekey)
    except ValueError:
        raise Unreadable(Reason.NO_SESSION) from None
    return Decrypted(OlmSession(session, opened.curve25519), unpad(plaintext), is_new=True)


def _info(recipient: DeviceIdentity, seal_id: int) -> bytes:
    """HPKE here takes no associated data, so what the envelope must be tied to is in its info."""
    return CONTEXT + f"env|{recipient.user}|{recipient.device}|{seal_id}".encode()


@lru_cache(maxsize=1024)
def _seal_public(mlkem768: bytes, x25519: bytes) -> hpke.MLKEM768X25519PublicKey:
    return hpke.MLKEM768X25519PublicKey(
        MLKEM768PublicKey.from_public_bytes(mlkem768), X25519PublicKey.from_public_bytes(x25519)
    )


def pad(plain: bytes) -> bytes:
    """ISO/IEC 7816-4: one byte 0x80, then zeros."""
    return plain + b"\x80" + bytes(-(len(plain) + 1) % PADDED_TO)


def unpad(padded: bytes) -> bytes:
    plain = padded.rstrip(b"\x00")
    if not plain.endswith(b"\x80") or len(padded) % PADDED_TO or len(padded) - len(plain) >= PADDED_TO:
        raise Unreadable(Reason.BAD_CONTENT)
    return plain[:-1]


def _from_base64(text: str) -> bytes:
    # vodozemac writes its keys and signatures without padding.
    return base64.b64decode(text + "=" * (-len(text) % 4))
