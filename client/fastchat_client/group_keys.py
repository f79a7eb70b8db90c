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

from fastchat.errors import GroupInvalid
from fastchat.identity import groups as chains
from fastchat.identity.links import DeviceIdentity
from fastchat.protocols.wire import Signed
from fastchat_client.megolm import InboundGroup, OutboundGroup
from fastchat_client.unreadable import Reason, Unreadable
from fastchat_client.vault import Vault

MOST_CACHED = 500
"""Sessions that are kept in memory."""
MOST_OF_DEVICE = 1000
"""Sessions of one device that are kept: those of a month in thirty groups."""

_signed = msgspec.json.Decoder(Signed).decode


@dataclass(slots=True)
class Outbound:
    """What this device writes with. `messages`: how many it has written (whispers are not counted)."""

    session: OutboundGroup
    made_at: int
    messages: int


@dataclass(frozen=True, slots=True)
class Shared:
    """A device that has the key of a session, from `first_index` on. `missed`: the network says that it did not get it
    there. That is only what it says: the device counts as one that can read."""

    user: str
    first_index: int
    missed: bool


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
        self._inbound: OrderedDict[tuple[str, bytes, str, bool], Inbound] = OrderedDict()

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
            "SELECT device, user, first_index, missed FROM group_shared WHERE session = ?", (session,)
        ).fetchall()
        return {device: Shared(user, first_index, bool(missed)) for device, user, first_index, missed in rows}

    def share(self, session: bytes, device: str, user: str, first_index: int) -> None:
        """`device` is being sent the key from `first_index` on; what it has already it keeps."""
        self._vault.execute(
            "INSERT INTO group_shared (session, device, user, first_index) VALUES (?, ?, ?, ?)"
            " ON CONFLICT DO UPDATE SET first_index = MIN(first_index, excluded.first_index), missed = 0",
            (session, device, user, first_index),
        )

    def missed(self, session: bytes, device: str) -> None:
        """The network says that it did not get it after all."""
        self._vault.execute("UPDATE group_shared SET missed = 1 WHERE session = ? AND device = ?", (session, device))

    # --- reading -----------------------------------------------------------------------------------------------------

    def inbound(self, group: str, session: bytes, device: str, *, earlier: bool = False) -> Inbound | None:
        """The session's key as its own device gave it; or, `earlier`, as the one gave it who has invited us. What
        another device has signed for a session of this name is another entry."""
        name = (group, session, device, earlier)
        found = self._inbound.get(name)
        if found is None:
            row = self._vault.execute(
                "SELECT pickle, user, device, proof, verified FROM group_sessions"
                " WHERE group_id = ? AND session = ? AND device = ? AND earlier = ?",
                name,
            ).fetchone()
            if row is None:
                return None
            found = Inbound(InboundGroup.load(row[0], self._key), row[1], row[2], _signed(row[3]), bool(row[4]))
            self._inbound[name] = found
            if len(self._inbound) > MOST_CACHED:
                self._inbound.popitem(last=False)
        else:
            self._inbound.move_to_end(name)
        return found

    def add(self, group: str, inbound: Inbound, now: int, *, earlier: bool = False) -> bool:
        """Whether this key can read more than what was here of the same source; then it is kept. The two sources are
        kept apart: what another one gave, who may have made it up, never stands in the place of the device's own."""
        session = inbound.session
        known = self.inbound(group, session.session, inbound.device, earlier=earlier)
        if known is not None and known.session.first_index <= session.first_index:
            return False
        self._inbound[group, session.session, inbound.device, earlier] = inbound
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
        self._bound(inbound.device, earlier)
        return True

    def verified(self, group: str, session: bytes, device: str) -> None:
        """The signature that says whose an earlier session is has been checked."""
        known = self.inbound(group, session, device, earlier=True)
        assert known is not None
        self._inbound[group, session, device, True] = replace(known, verified=True)
        self._vault.execute(
            "UPDATE group_sessions SET verified = 1 WHERE group_id = ? AND session = ? AND device = ? AND earlier",
            (group, session, device),
        )

    def forget(self, device: str) -> None:
        """Nothing of this device is believed any more."""
        for name in [name for name in self._inbound if name[2] == device]:
            del self._inbound[name]
        self._vault.execute("DELETE FROM group_sessions WHERE device = ?", (device,))

    # --- within ------------------------------------------------------------------------------------------------------

    def _bound(self, device: str, earlier: bool) -> None:
        """The oldest of a device goes: a message that still needs it waits, and asks for it again."""
        where = "device = ? AND earlier = ? AND session NOT IN (SELECT session FROM group_outbound)"
        rows = self._vault.execute(
            f"SELECT group_id, session FROM group_sessions WHERE {where} ORDER BY at DESC, session"  # noqa: S608
            " LIMIT -1 OFFSET ?",
            (device, earlier, MOST_OF_DEVICE),
        ).fetchall()
        for group, session in rows:
            self._inbound.pop((group, session, device, earlier), None)
            self._vault.execute(
                "DELETE FROM group_sessions WHERE group_id = ? AND session = ? AND device = ? AND earlier = ?",
                (group, session, device, earlier),
            )
            self._vault.execute("DELETE FROM group_shared WHERE session = ?", (session,))

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


def claimed(key: bytes, group: str, proof: Signed) -> Inbound:
    """A session and whose it is said to be. Raises `Unreadable` if the two do not belong together."""
    session = InboundGroup.from_export(key)
    try:
        statement = chains.read_session(proof)
    except GroupInvalid:
        raise Unreadable(Reason.BAD_CONTENT) from None
    if (statement.group, statement.session) != (group, session.session):
        raise Unreadable(Reason.WRONG_IDENTITY)
    return Inbound(session, statement.user, statement.device, proof, False)
