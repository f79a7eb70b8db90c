"""The Megolm sessions of this vault: the one that this device writes with in each group, who has its key, and all those
that can be read here.

Whose a session is, its device has signed (`identity.groups.SessionStatement`); a key that came through somebody else
is of use only once that signature has been checked. Writes need a transaction around them.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace

import msgspec

from fastchat.identity import groups as chains
from fastchat.identity.links import DeviceIdentity
from fastchat.protocols.wire import Signed
from fastchat_client.megolm import InboundGroup, OutboundGroup
from fastchat_client.vault import Vault

MOST_CACHED = 500
"""Sessions that are kept in memory."""

_signed = msgspec.json.Decoder(Signed).decode


@dataclass(slots=True)
class Outbound:
    """What this device writes with. `messages`: how many it has written (whispers are not counted)."""

    session: OutboundGroup
    made_at: int
    messages: int


@dataclass(frozen=True, slots=True)
class Shared:
    """A device that has the key of a session, from `first_index` on."""

    user: str
    first_index: int


@dataclass(frozen=True, slots=True)
class Inbound:
    """A session that can be read here. `user` and `device` are whose it is; while `verified` is false, that is a
    claim, and `proof` is still to be checked."""

    session: InboundGroup
    user: str
    device: str
    proof: Signed
    verified: bool


class GroupKeys:
    def __init__(self, vault: Vault) -> None:
        self._vault = vault
        self._key = vault.blob("pickle_key")
        self._outbound: dict[str, Outbound] = {}
        self._inbound: OrderedDict[tuple[str, bytes, bool], Inbound] = OrderedDict()

    # --- writing -----------------------------------------------------------------------------------------------------

    def outbound(self, group: str) -> Outbound | None:
        found = self._outbound.get(group)
        if found is None:
            row = self._vault.execute(
                "SELECT pickle, made_at, messages FROM group_outbound WHERE group_id = ?", (group,)
            ).fetchone()
            if row is None:
                return None
            found = self._outbound[group] = Outbound(OutboundGroup.load(row[0], self._key), row[1], row[2])
        return found

    def renew(self, group: str, me: DeviceIdentity, sign: Callable[[bytes], bytes], now: int) -> Outbound:
        """A fresh session, which nobody has the key of yet but this device."""
        session = OutboundGroup.create()
        proof = chains.sign_session(
            sign,
            chains.SessionStatement(group=group, session=session.session, user=me.user, device=me.device, at=now),
        )
        self.add(group, Inbound(InboundGroup.from_key(session.key()), me.user, me.device, proof, True), now)
        outbound = self._outbound[group] = Outbound(session, now, 0)
        self._store(group, outbound)
        return outbound

    def encrypt(self, group: str, plain: bytes, *, counts: bool) -> bytes:
        """The body of a message, or of a whisper, which does not count; the session has moved on."""
        outbound = self.outbound(group)
        assert outbound is not None
        body = outbound.session.encrypt(group, plain)
        outbound.messages += counts
        self._store(group, outbound)
        return body

    def drop(self, group: str) -> None:
        """Nothing more is written with the session of this group."""
        self._outbound.pop(group, None)
        self._vault.execute("DELETE FROM group_outbound WHERE group_id = ?", (group,))

    # --- who has it --------------------------------------------------------------------------------------------------

    def shared(self, session: bytes) -> dict[str, Shared]:
        """By device."""
        rows = self._vault.execute(
            "SELECT device, user, first_index FROM group_shared WHERE session = ?", (session,)
        ).fetchall()
        return {device: Shared(user, first_index) for device, user, first_index in rows}

    def share(self, session: bytes, device: str, user: str, first_index: int) -> None:
        """`device` is being sent the key from `first_index` on; what it has already it keeps."""
        self._vault.execute(
            "INSERT INTO group_shared (session, device, user, first_index) VALUES (?, ?, ?, ?)"
            " ON CONFLICT DO UPDATE SET first_index = MIN(first_index, excluded.first_index)",
            (session, device, user, first_index),
        )

    def unshare(self, session: bytes, device: str) -> None:
        """It did not get it after all."""
        self._vault.execute("DELETE FROM group_shared WHERE session = ? AND device = ?", (session, device))

    # --- reading -----------------------------------------------------------------------------------------------------

    def inbound(self, group: str, session: bytes, *, earlier: bool = False) -> Inbound | None:
        """The session's key as its own device gave it; or, `earlier`, as the one gave it who has invited us."""
        found = self._inbound.get((group, session, earlier))
        if found is None:
            row = self._vault.execute(
                "SELECT pickle, user, device, proof, verified FROM group_sessions"
                " WHERE group_id = ? AND session = ? AND earlier = ?",
                (group, session, earlier),
            ).fetchone()
            if row is None:
                return None
            found = Inbound(InboundGroup.load(row[0], self._key), row[1], row[2], _signed(row[3]), bool(row[4]))
            self._inbound[group, session, earlier] = found
            if len(self._inbound) > MOST_CACHED:
                self._inbound.popitem(last=False)
        else:
            self._inbound.move_to_end((group, session, earlier))
        return found

    def add(self, group: str, inbound: Inbound, now: int, *, earlier: bool = False) -> bool:
        """Whether this key can read more than what was here of the same source; then it is kept. The two sources are
        kept apart: what another one gave, who may have made it up, never stands in the place of the device's own."""
        session = inbound.session
        known = self.inbound(group, session.session, earlier=earlier)
        if known is not None and known.session.first_index <= session.first_index:
            return False
        self._inbound[group, session.session, earlier] = inbound
        self._vault.execute(
            "INSERT OR REPLACE INTO group_sessions"
            " (group_id, session, user, device, first_index, pickle, proof, earlier, verified, at)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                group,
                session.session,
                inbound.user,
                inbound.device,
                session.first_index,
                session.dump(self._key),
                msgspec.json.encode(inbound.proof),
                earlier,
                inbound.verified,
                now,
            ),
        )
        return True

    def verified(self, group: str, session: bytes) -> None:
        """The signature that says whose an earlier session is has been checked."""
        known = self.inbound(group, session, earlier=True)
        assert known is not None
        self._inbound[group, session, True] = replace(known, verified=True)
        self._vault.execute(
            "UPDATE group_sessions SET verified = 1 WHERE group_id = ? AND session = ? AND earlier", (group, session)
        )

    # --- within ------------------------------------------------------------------------------------------------------

    def _store(self, group: str, outbound: Outbound) -> None:
        self._vault.execute(
            "INSERT OR REPLACE INTO group_outbound (group_id, session, pickle, made_at, messages)"
            " VALUES (?, ?, ?, ?, ?)",
            (
                group,
                outbound.session.session,
                outbound.session.dump(self._key),
                outbound.made_at,
                outbound.messages,
            ),
        )
