"""Megolm for groups: one ciphertext for everybody who has the sender's session key.

A session belongs to one device and one group. Its ratchet only goes forward: who has the key from some index on reads
what comes from there on, and nothing of before. Each ciphertext is signed with the session's own Ed25519 key, so that
who can read cannot write in the sender's name. No storage and no network: pickles carry a MAC of 8 bytes only and
belong in the encrypted vault. Reading raises `Unreadable` and nothing else, whatever the bytes.

    body = version 2 | group id, 16 bytes | session, 32 bytes (its Ed25519 public key) | Megolm message
"""

from __future__ import annotations

import base64
from dataclasses import dataclass

import vodozemac

from fastchat.errors import ConfigError
from fastchat_client.ratchet import pad, unpad
from fastchat_client.unreadable import Reason, Unreadable

VERSION = 2
"""First byte of a group's body; that of an Olm envelope is 1."""
_HEADER = 1 + 16 + 32


class OutboundGroup:
    """What this device encrypts with in one group."""

    def __init__(self, session: vodozemac.GroupSession) -> None:
        self._session = session
        self.session: bytes = _from_base64(session.session_id)
        """Its Ed25519 public key, 32 bytes: its name."""

    @classmethod
    def create(cls) -> OutboundGroup:
        return cls(vodozemac.GroupSession())

    @classmethod
    def load(cls, pickle: str, key: bytes) -> OutboundGroup:
        """What `dump` gave with the same `key`, 32 bytes. Raises `ConfigError`."""
        try:
            return cls(vodozemac.GroupSession.from_pickle(pickle, key))
        except ValueError:
            raise ConfigError("the vault's group sessions are damaged") from None

    def dump(self, key: bytes) -> str:
        return self._session.pickle(key)

    @property
    def index(self) -> int:
        """Of the next message: how many were encrypted."""
        return int(self._session.message_index)

    def key(self) -> bytes:
        """The session key at `index`: reads the next message and all later ones."""
        return _from_base64(self._session.session_key.to_base64())

    def encrypt(self, group: str, plain: bytes) -> bytes:
        """The body of a message; the session moves on: store it first. `group`: 32 hex digits."""
        message = self._session.encrypt(pad(plain)).to_bytes()
        return bytes((VERSION,)) + bytes.fromhex(group) + self.session + message


class InboundGroup:
    """What this device decrypts with: another device's session, or its own, from some index on."""

    def __init__(self, session: vodozemac.InboundGroupSession) -> None:
        self._session = session
        self.session: bytes = _from_base64(session.session_id)

    @classmethod
    def from_key(cls, key: bytes) -> InboundGroup:
        """From what `OutboundGroup.key` gave; it is signed by the session. Raises `Unreadable`."""
        try:
            return cls(vodozemac.InboundGroupSession(vodozemac.SessionKey(_to_base64(key))))
        except ValueError:
            raise Unreadable(Reason.BAD_CONTENT) from None

    @classmethod
    def from_export(cls, key: bytes) -> InboundGroup:
        """From what `export_at` gave; nothing says whose it is. Raises `Unreadable`."""
        try:
            exported = vodozemac.ExportedSessionKey(_to_base64(key))
            return cls(vodozemac.InboundGroupSession.import_session(exported))
        except ValueError:
            raise Unreadable(Reason.BAD_CONTENT) from None

    @classmethod
    def load(cls, pickle: str, key: bytes) -> InboundGroup:
        """What `dump` gave with the same `key`, 32 bytes. Raises `ConfigError`."""
        try:
            return cls(vodozemac.InboundGroupSession.from_pickle(pickle, key))
        except ValueError:
            raise ConfigError("the vault's group sessions are damaged") from None

    def dump(self, key: bytes) -> str:
        return self._session.pickle(key)

    @property
    def first_index(self) -> int:
        """Of the first message that can be read."""
        return self._session.first_known_index

    def export_at(self, index: int) -> bytes:
        """The key from `index` on, without the session's signature; b"" if it begins later here."""
        exported = self._session.export_at(index)
        return b"" if exported is None else _from_base64(exported.to_base64())

    @staticmethod
    def index_of(message: bytes) -> int:
        """The index that a message says it has. Raises `Unreadable`."""
        try:
            return int(vodozemac.MegolmMessage.from_bytes(message).message_index())
        except ValueError:
            raise Unreadable(Reason.BAD_ENVELOPE) from None

    def decrypt(self, message: bytes) -> tuple[bytes, int]:
        """The plaintext, without its padding, and its index. Raises `Unreadable`; nothing has changed then."""
        try:
            decrypted = self._session.decrypt(vodozemac.MegolmMessage.from_bytes(message))
        except ValueError:
            raise Unreadable(Reason.BAD_MAC) from None
        return unpad(bytes(decrypted.plaintext)), int(decrypted.message_index)


@dataclass(frozen=True, slots=True)
class GroupBody:
    """What a group message shows to everybody; all of it is a claim until it is decrypted."""

    group: str
    session: bytes
    message: bytes


def is_group_body(body: bytes) -> bool:
    return body[:1] == bytes((VERSION,))


def read_group_body(body: bytes) -> GroupBody:
    """Raises `Unreadable`."""
    if len(body) <= _HEADER or not is_group_body(body):
        raise Unreadable(Reason.BAD_ENVELOPE)
    return GroupBody(body[1:17].hex(), body[17:_HEADER], body[_HEADER:])


def _from_base64(text: str) -> bytes:
    # vodozemac writes its keys without padding.
    return base64.b64decode(text + "=" * (-len(text) % 4))


def _to_base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii").rstrip("=")
