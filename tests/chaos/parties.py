"""Groups in a chaos run: who founds which, and who joins, leaves, is removed and invited again.

The plan follows from the seed: each group has a founder, who alone invites and removes, and people whom it wants. What
is missing of that is done again and again until it is so, by what stands in the vault; so a `kill -9` costs nothing,
and once nobody leaves any more everybody is in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random

from fastchat_client.core import Core
from fastchat_client.group_acting import InviteAct, JoinAct, LeaveAct, RemoveAct
from fastchat_client.groups import GroupInfo, group_list

CLIENTS_FOR_A_GROUP = 5
FEWEST, MOST = 3, 10
"""Members of a group."""
CHURN = 0.08
"""How often, when somebody talks, they leave a group as well, or remove somebody from theirs."""
PATIENT = 0.75
"""How often somebody does not leave before what they have said there has gone: what has not is refused then."""
JOINED = ("owner", "admin", "member")


def plan(users: Sequence[str], seed: int) -> dict[str, list[str]]:
    """By name of a group, who is to be in it; the first one founds it."""
    random = Random(f"{seed} groups")
    sizes = [random.randint(FEWEST, MOST) for _ in range(max(2, len(users) // CLIENTS_FOR_A_GROUP))]
    return {f"group {number}": random.sample(users, min(size, len(users))) for number, size in enumerate(sizes)}


class Parties:
    """What `user` does about groups. `planned`: from `plan`."""

    def __init__(self, core: Core, user: str, planned: Mapping[str, Sequence[str]], seed: int) -> None:
        self._core = core
        self._vault = core.vault
        self._user = user
        self._mine = {name: members[1:] for name, members in planned.items() if members[0] == user}
        [acts] = self._vault.execute("SELECT COUNT(*) FROM group_acts").fetchone()
        self._random = Random(f"{seed} {user} parties {acts}")

    @property
    def joined(self) -> list[str]:
        """The conversations of those groups that this client is in."""
        return [info.conversation for info in group_list(self._vault) if info.role in JOINED]

    @property
    def unsettled(self) -> int:
        """What is not yet as planned, and what came for groups and cannot be read yet."""
        infos = group_list(self._vault)
        owned = {info.name: {user for user, _ in info.members} for info in infos if info.role == "owner"}
        missing = sum(len(set(members) - owned.get(name, set())) for name, members in self._mine.items())
        [unread] = self._vault.execute("SELECT COUNT(*) FROM group_bodies WHERE waits != ''").fetchone()
        return missing + sum(info.role == "invited" for info in infos) + len(self._busy()) + int(unread)

    def tend(self) -> None:
        """Join where one is invited; found what is to be founded, and invite who is missing."""
        infos, busy = group_list(self._vault), self._busy()
        for info in infos:
            if info.role == "invited" and info.conversation not in busy:
                self._core.group_act(info.conversation, JoinAct())
        owned = {info.name: info for info in infos if info.role == "owner"}
        for name, members in self._mine.items():
            if name not in owned:
                self._core.group_create(name)
            elif owned[name].conversation not in busy:
                for user in _missing(owned[name], members):
                    self._core.group_act(owned[name].conversation, InviteAct(user, history=0))

    def churn(self) -> None:
        """Perhaps leave a group, or remove somebody from one of one's own."""
        if self._random.random() >= CHURN:
            return
        busy = self._busy()
        infos = [info for info in group_list(self._vault) if info.role in JOINED and info.conversation not in busy]
        if not infos:
            return
        info = self._random.choice(infos)
        others = [user for user, _ in info.members if user != self._user]
        if info.role != "owner":
            if self._waits_in(info.conversation) and self._random.random() < PATIENT:
                return
            self._core.group_act(info.conversation, LeaveAct())
        elif others:
            self._core.group_act(info.conversation, RemoveAct(self._random.choice(others)))

    def _waits_in(self, conversation: str) -> bool:
        """Whether something that was said there has not gone yet."""
        row = self._vault.execute("SELECT 1 FROM outbox WHERE state < 2 AND user = ? LIMIT 1", (conversation,))
        return row.fetchone() is not None

    def _busy(self) -> set[str]:
        """The conversations of groups to which something is to be done already."""
        rows = self._vault.execute("SELECT DISTINCT group_id FROM group_acts WHERE state = 0")
        return {f"#{group}" for (group,) in rows}


def _missing(info: GroupInfo, members: Sequence[str]) -> list[str]:
    there = {user for user, _ in (*info.members, *info.invited)}
    return [user for user in members if user not in there]
