"""What groups came to, judged from outside: who was a member when a message was sent, by the chain itself; who shows
it; and who could read it, were they handed the ciphertext.

It reads vaults, table by table, and what went over the wire (`Wire`). Who is in a group at which length it reads off
the statements' bodies itself: of the product's rules it uses none.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any, NamedTuple

from fastchat.protocols.wire import GroupSend, GroupWhisper
from fastchat_client.megolm import GroupBody, InboundGroup, read_group_body
from fastchat_client.ratchet import body_from_wire
from fastchat_client.unreadable import Unreadable
from fastchat_client.vault import Vault

ACCEPTED, FAILED = 2, 3


class Said(NamedTuple):
    """A text that went to a group. `wanted`: members at the length of the chain at which the network accepted it, by
    their accounts; none if it did not. `allowed`: members at any length at which it was ever sent."""

    device: str
    n: int
    group: str
    text: str
    wanted: frozenset[str]
    allowed: frozenset[str]

    def __str__(self) -> str:
        return f"{self.text!r} ({self.device[:6]}.{self.n} in {self.group[:6]})"


class Wire:
    """Every group message and whisper that left a client, and by which length of the chain."""

    def __init__(self) -> None:
        self.bodies: set[bytes] = set()
        self.lengths: dict[tuple[str, int], set[int]] = defaultdict(set)
        """Of each message, (device, n)."""

    def tap(self, core: Any) -> None:
        """Listen to what this client says from now on."""
        take: Callable[[], list[Any]] = core.take_messages
        device = core.vault.text("device")

        def heard() -> list[Any]:
            said = take()
            for message in said:
                if isinstance(message, GroupSend | GroupWhisper):
                    self.bodies.add(body_from_wire(message.body))
                if isinstance(message, GroupSend):
                    self.lengths[device, message.n].add(message.length)
            return said

        core.take_messages = heard


class Verdict:
    """`vaults`: of everybody's every device. What is wrong is gathered in `wrong`, in words."""

    def __init__(self, vaults: Iterable[Vault], wire: Wire) -> None:
        self._vaults = list(vaults)
        self._wire = wire
        self.wrong: list[str] = []
        self.shown = 0
        """Pairs of a message and a vault that shows it."""
        self.opened = self.refused = 0
        """Ciphertexts under a key of their session: read by who was a member, and not readable."""

    def judge(self, *, newcomers: bool = False) -> list[str]:
        """Everything. `newcomers`: some may have been given what was said before they came."""
        for vault in self._vaults:
            self._judge_chains(vault)
            self._judge_rest(vault)
        for group, saids in self._by_group.items():
            for vault in self._vaults:
                self._judge_history(vault, group, saids, newcomers)
        if not newcomers:
            for vault in self._vaults:
                self._judge_keys(vault)
        return self.wrong

    # --- the chains --------------------------------------------------------------------------------------------------

    @cached_property
    def chains(self) -> dict[str, list[dict[str, Any]]]:
        """Each group's statements, from the vault that knows the most of them."""
        found: dict[str, list[dict[str, Any]]] = {}
        for vault in self._vaults:
            for group, chain in _chains(vault).items():
                if len(chain) > len(found.get(group, ())):
                    found[group] = chain
        return found

    @cached_property
    def members(self) -> dict[str, list[frozenset[str]]]:
        """Each group's members by the length of its chain."""
        return {group: list(_members(chain)) for group, chain in self.chains.items()}

    def _judge_chains(self, vault: Vault) -> None:
        """Everybody in it knows the whole chain, and everybody else a beginning of it."""
        me = vault.text("user")
        known = _chains(vault)
        for group, chain in self.chains.items():
            mine = known.get(group, [])
            if mine != chain[: len(mine)]:
                self.wrong.append(f"{me} knows another chain of {group[:6]}")
            if me in self.members[group][-1] and len(mine) != len(chain):
                self.wrong.append(f"{me} knows {len(mine)} of {len(chain)} statements of {group[:6]}")

    # --- what was said -----------------------------------------------------------------------------------------------

    @cached_property
    def _by_group(self) -> dict[str, list[Said]]:
        found: dict[str, list[Said]] = defaultdict(list)
        for vault in self._vaults:
            for said in self._said(vault):
                found[said.group].append(said)
        return found

    @property
    def said(self) -> list[Said]:
        return [said for saids in self._by_group.values() for said in saids]

    def _said(self, vault: Vault) -> Iterator[Said]:
        device, me = vault.text("device"), vault.text("user")
        rows = vault.execute(
            "SELECT n, user, content, state, length, shown FROM outbox WHERE user LIKE '#%' ORDER BY n"
        ).fetchall()
        for n, conversation, content, state, length, shown in rows:
            text, group = json.loads(content).get("text", ""), conversation[1:]
            if state not in (ACCEPTED, FAILED):
                self.wrong.append(f"{me}: {text!r} ({device[:6]}.{n}) is still in the outbox, state {state}")
            if shown:
                at = {length} if state == ACCEPTED else set()
                wanted = self._at(group, at)
                yield Said(device, n, group, text, wanted, self._at(group, at | self._wire.lengths[device, n]) | {me})

    def _at(self, group: str, lengths: Iterable[int]) -> frozenset[str]:
        members = self.members.get(group, [])
        return frozenset(user for length in lengths if length < len(members) for user in members[length])

    # --- what is shown -----------------------------------------------------------------------------------------------

    def _judge_history(self, vault: Vault, group: str, saids: Sequence[Said], newcomers: bool) -> None:
        me = f"{vault.text('user')} ({vault.text('device')[:6]})"
        user = vault.text("user")
        rows = vault.execute(
            "SELECT device, n, text, unreadable FROM messages WHERE conversation = ? ORDER BY seq", (f"#{group}",)
        ).fetchall()
        shown: dict[tuple[str, int], list[str]] = defaultdict(list)
        for device, n, text, unreadable in rows:
            if unreadable:
                self.wrong.append(f"{me} shows {device[:6]}.{n} in {group[:6]} as {unreadable}")
            shown[device, n].append(text)
        for said in saids:
            texts = shown.pop((said.device, said.n), [])
            self.shown += bool(texts)
            if user in said.wanted and texts != [said.text]:
                self.wrong.append(f"{me} shows {texts} for {said}, sent to {sorted(said.wanted)}")
            elif texts and (texts != [said.text] or not (newcomers or user in said.allowed)):
                self.wrong.append(f"{me} shows {texts} for {said}, allowed to {sorted(said.allowed)}")
        if shown:
            self.wrong.append(f"{me} shows what nobody has said: {dict(shown)}")
        # What a newcomer is given comes when it comes, and is not of the stream.
        wanted = {(said.device, said.n) for said in saids if user in said.wanted}
        self._judge_order(me, [row for row in rows if row[:2] in wanted])

    def _judge_order(self, me: str, rows: Sequence[Any]) -> None:
        last: dict[str, int] = defaultdict(int)
        for device, n, *_ in rows:
            if n < last[device]:
                self.wrong.append(f"{me} shows {device[:6]}.{n} after {last[device]}")
            last[device] = max(n, last[device])

    def _judge_rest(self, vault: Vault) -> None:
        """Nothing waits for a key, for statements, or to be done."""
        me = f"{vault.text('user')} ({vault.text('device')[:6]})"
        for table, waits in (("group_bodies", "waits != ''"), ("group_acts", "state = 0"), ("retries", "1")):
            rows = vault.execute(f"SELECT * FROM {table} WHERE {waits}").fetchall()  # noqa: S608
            if rows:
                self.wrong.append(f"{me}: {len(rows)} rows wait in {table}: {rows[0]}")
        rows = vault.execute("SELECT group_id, alarm FROM groups WHERE alarm != ''").fetchall()
        if rows:
            self.wrong.append(f"{me} believes the server caught: {rows}")

    # --- what could be read ------------------------------------------------------------------------------------------

    @cached_property
    def _bodies(self) -> dict[bytes, list[GroupBody]]:
        found: dict[bytes, list[GroupBody]] = defaultdict(list)
        for body in map(read_group_body, self._wire.bodies):
            found[body.session].append(body)
        return found

    def _judge_keys(self, vault: Vault) -> None:
        """Every ciphertext under every key of its session: what opens tells by which chain it was written."""
        user = vault.text("user")
        for group, session in _sessions(vault):
            for body in self._bodies.get(session.session, ()):
                length = _length(session, body)
                was_member = user in self._at(group, {length})
                self.opened += was_member and length >= 0
                self.refused += not was_member or length < 0
                if length >= 0 and not was_member:
                    self.wrong.append(f"{user} can read what was written in {group[:6]} at {length}")


def _sessions(vault: Vault) -> Iterator[tuple[str, InboundGroup]]:
    """Every Megolm session in a vault, with its group."""
    key = vault.blob("pickle_key")
    for group, pickle in vault.execute("SELECT group_id, pickle FROM group_sessions").fetchall():
        yield group, InboundGroup.load(pickle, key)


def _length(session: InboundGroup, body: GroupBody) -> int:
    """Of the chain by which it was written, as it says itself; -1 if it cannot be read."""
    try:
        plaintext, _ = session.decrypt(body.message)
    except Unreadable:
        return -1
    return int(json.loads(plaintext)["length"])


def _chains(vault: Vault) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for group, body in vault.execute("SELECT group_id, body FROM group_statements ORDER BY group_id, position"):
        found[group].append(json.loads(body))
    return found


def _members(chain: Sequence[dict[str, Any]]) -> Iterator[frozenset[str]]:
    members: frozenset[str] = frozenset()
    yield members
    for statement in chain:
        kind, user = statement["t"], statement["user"]
        if kind in ("create", "join"):
            members |= {user}
        elif kind == "leave":
            members -= {user}
        elif kind == "remove":
            members -= {statement["who"]}
        yield members
