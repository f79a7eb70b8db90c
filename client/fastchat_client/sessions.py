"""The Olm sessions with other devices: which there are, which is used, and that each step is stored before it counts.

Several with one device are normal: both may have written first, or one may have asked for a fresh one. What is sent
goes through the session that received last, else the oldest, so that both sides settle on one. A session in memory
is as far as the open transaction; after a failure or a rollback it is loaded again. Contents are not known here.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from fastchat.identity.links import DeviceIdentity
from fastchat_client import ratchet
from fastchat_client.prekeeping import Prekeeper
from fastchat_client.ratchet import OlmSession
from fastchat_client.trust import Peer
from fastchat_client.unreadable import Unreadable
from fastchat_client.vault import Vault

MOST_SESSIONS = 5
"""With one device."""
MOST_UNHEARD = 16
"""How much may have been sealed with a session since something came through it, if a whisper is to be: its other end
keeps keys for 40 messages that have not come, and those are needed for what is not lost."""
MOST_CACHED = 500
"""Devices whose sessions are kept in memory."""

Checked = TypeVar("Checked")


@dataclass(slots=True)
class _Kept:
    session: OlmSession
    made_at: int
    received_at: int
    unheard: int | None = None
    """How much was sealed with it since something came through it; None: nothing ever has."""


def _used(kept: list[_Kept]) -> _Kept:
    """What is sent goes through the one that received last, else the oldest."""
    return max(kept, key=lambda one: (one.received_at, -one.made_at))


def _latest(kept: list[_Kept], now: int) -> int:
    """A time later than that of every other session, whatever the clock says."""
    return max([now, *(one.received_at + 1 for one in kept)])


class Sessions:
    """Writes need a transaction around them."""

    def __init__(self, vault: Vault, prekeeper: Prekeeper) -> None:
        self._vault = vault
        self._prekeeper = prekeeper
        self._pickle_key = vault.blob("pickle_key")
        self._cache: OrderedDict[str, list[_Kept]] = OrderedDict()

    def has(self, peer: DeviceIdentity) -> bool:
        return bool(self._of(peer))

    def may_whisper(self, peer: DeviceIdentity) -> bool:
        """Whether the session that would be used can bear that what is sealed next is lost, or overtakes the rest."""
        kept = self._of(peer)
        unheard = _used(kept).unheard if kept else None
        return unheard is not None and unheard < MOST_UNHEARD

    def open(self, peer: DeviceIdentity, key: bytes, now: int, preferred: bool = False) -> None:
        """Begin a session with `peer` from its verified one-time or fallback key; `preferred` to every other one until
        something comes in. Raises `SignatureInvalid` for a key that cannot be used."""
        session = ratchet.open_with_key(self._prekeeper.account, peer, key)
        kept = self._of(peer)
        self._add(peer.device, kept, _Kept(session, now, _latest(kept, now) if preferred else 0))

    def seal(self, me: DeviceIdentity, peer: Peer, plain: bytes) -> bytes:
        """The body for `peer`; its session has moved on. Raises `TrustError` for a seal key that cannot be used."""
        kept = self._of(peer.identity)
        newest = _used(kept)
        if newest.unheard is not None:
            newest.unheard += 1
        body = ratchet.seal(newest.session, me, peer.identity, peer.seal, plain)
        self._store(peer.identity.device, newest)
        return body

    def read(
        self,
        me: DeviceIdentity,
        sender: DeviceIdentity,
        body: bytes,
        now: int,
        check: Callable[[bytes, bytes], Checked],
        *,
        may_begin: bool = True,
    ) -> Checked:
        """What `check` makes of the plaintext and the Curve25519 key of the session it came through. `may_begin`: a new
        one, if it is the first message of one. Raises `Unreadable`, its own or that of `check`; then nothing has
        changed, as if the message had not come."""
        opened = ratchet.open_envelope(self._prekeeper.seals, me, body)
        kept = sorted(self._of(sender), key=lambda one: one.received_at, reverse=True)
        try:
            sessions = [one.session for one in kept]
            decrypted = ratchet.decrypt(self._prekeeper.account, opened, sessions, may_begin=may_begin)
            checked = check(decrypted.plaintext, opened.curve25519)
        except Unreadable:
            self._cache.pop(sender.device, None)
            self._prekeeper.reload()
            raise
        if decrypted.is_new:
            self._prekeeper.spent()
            kept = self._of(sender)
            self._add(sender.device, kept, _Kept(decrypted.session, now, _latest(kept, now), 0))
        else:
            used = next(one for one in kept if one.session is decrypted.session)
            used.received_at = _latest(kept, now)
            used.unheard = 0
            self._store(sender.device, used)
        return checked

    def forget(self, device: str) -> None:
        """This device is not believed any more."""
        self._cache.pop(device, None)
        self._vault.execute("DELETE FROM sessions WHERE device = ?", (device,))

    # --- within ------------------------------------------------------------------------------------------------------

    def _of(self, peer: DeviceIdentity) -> list[_Kept]:
        kept = self._cache.get(peer.device)
        if kept is None:
            rows = self._vault.execute(
                "SELECT pickle, made_at, received_at, unheard FROM sessions WHERE device = ?", (peer.device,)
            ).fetchall()
            kept = [_Kept(OlmSession.load(row[0], self._pickle_key, peer.curve25519), *row[1:]) for row in rows]
            self._cache[peer.device] = kept
            if len(self._cache) > MOST_CACHED:
                self._cache.popitem(last=False)
        else:
            self._cache.move_to_end(peer.device)
        return kept

    def _add(self, device: str, kept: list[_Kept], new: _Kept) -> None:
        if len(kept) >= MOST_SESSIONS:
            oldest = min(kept, key=lambda one: (one.received_at, one.made_at))
            kept.remove(oldest)
            self._vault.execute(
                "DELETE FROM sessions WHERE device = ? AND session = ?", (device, oldest.session.session_id)
            )
        kept.append(new)
        self._store(device, new)

    def _store(self, device: str, kept: _Kept) -> None:
        self._vault.execute(
            "INSERT OR REPLACE INTO sessions (device, session, pickle, made_at, received_at, unheard)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            (
                device,
                kept.session.session_id,
                kept.session.dump(self._pickle_key),
                kept.made_at,
                kept.received_at,
                kept.unheard,
            ),
        )
