"""A hundred clients in ten groups, on the real network: balancer, five services, TLS, PostgreSQL. They join, leave, are
removed, go offline and come back while messages flow.

It is worth its minute: nothing else has groups, their keys and their fan-out over real connections, with a real
database under many hands at once; `test_groups_at_random` has worse luck, but one process and no sockets."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import psycopg2
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from fastchat.errors import RequestError
from fastchat_client.events import GroupAlarm, MessageUnreadable
from fastchat_client.group_acting import Act, InviteAct, JoinAct, LeaveAct, RemoveAct
from fastchat_client.groups import group_info
from tests.support.group_judge import Verdict, Wire
from tests.support.running import Member, RunningNetwork
from tests.test_hundred import all_of_them

HUNDRED = 100
GROUPS = 10
EACH = 10
"""Members of a group when it begins, besides whom it was founded by; some people are in several."""
STEPS = 300
MOVES = {"says": 12, "invites": 2, "joins": 4, "leaves": 1, "removes": 1, "goes": 3, "returns": 4}
"""How often each happens."""
JOINED = ("owner", "admin", "member")
OPEN = (
    "SELECT 1 FROM outbox WHERE state < 2",
    "SELECT 1 FROM group_acts WHERE state = 0",
    "SELECT 1 FROM group_bodies WHERE waits != ''",
    "SELECT 1 FROM held",
)
"""What in a vault is not at its end."""
PATIENCE = 300
"""Seconds: a hundred new clients are a lot of work for a machine that is busy with other things."""


class TappedMember(Member):
    wire: Wire

    def start(self) -> None:
        super().start()
        self.wire.tap(self.core)


class Groups(TestCase):
    timeout = 900
    maxDiff = None

    async def test_everybody_reads_what_was_sent_while_they_were_members_and_nobody_else(self) -> None:
        self.random = Random(22)
        self.network = await RunningNetwork.start(self, claims_per_second=200.0, claims_burst=1000)
        self.wire = Wire()
        self.members = {name: self._member(name) for name in (f"member{i}" for i in range(HUNDRED))}
        self.addCleanup(lambda: all_of_them(member.stop() for member in self.members.values()))
        await self._until(lambda: all(member.core.ready for member in self.members.values()))
        self.assertLessEqual(max(self.network.sessions) - min(self.network.sessions), 1, self.network.sessions)
        await self._found_groups()
        self.texts = 0
        for _ in range(STEPS):
            await self._step()
            await deferLater(self.network.reactor, 0)
        await self._settle()

        verdict = Verdict([member.vault for member in self.members.values()], self.wire)
        self.assertEqual([*verdict.judge(), *self._strange()][:20], [])
        # The judge is no dead one: there was much to show, and members' keys open what they are tried on.
        accepted = [said for said in verdict.said if said.wanted]
        self.assertGreater(len(accepted), self.texts * 0.9)
        self.assertGreaterEqual(verdict.shown, sum(len(said.wanted) for said in accepted))
        self.assertGreater(verdict.opened, verdict.shown * 0.9)
        for member in self.members.values():
            await member.stop()
        await self.network.no_sessions()

    # --- the script --------------------------------------------------------------------------------------------------

    def _member(self, name: str) -> TappedMember:
        member = TappedMember(self.network, name, self.random)
        member.wire = self.wire
        member.start()
        return member

    async def _found_groups(self) -> None:
        everybody = list(self.members.values())
        self.groups: list[str] = []
        for number in range(GROUPS):
            owner = everybody[number * EACH]
            _, group = owner.core.group_create(f"group {number}")
            self.groups.append(group)
            # Ten of its own, of whom two are in the next group as well.
            for member in everybody[number * EACH + 1 : (number + 1) * EACH + 2]:
                owner.core.group_act(group, InviteAct(member.user, history=0))
            owner.connection.flush()
        # `group_act` asks what is known: everybody joins where they are invited as soon as they know it.
        await self._until(self._all_have_joined)

    def _all_have_joined(self) -> bool:
        waiting = 0
        for member in self.members.values():
            for group in self.groups:
                info = group_info(member.vault, group)
                if info is not None and info.role == "invited":
                    waiting += 1
                    if not _has_noted(member, group):
                        self._act(member, group, JoinAct())
        joined = sum(len(self._info(group)) for group in self.groups)
        return waiting == 0 and joined >= GROUPS * (EACH + 1) - 1

    def _info(self, group: str) -> list[str]:
        """The group's members, as its founder knows them."""
        owner = self.members[f"member{self.groups.index(group) * EACH}"]
        info = group_info(owner.vault, group)
        return [] if info is None else [user for user, _ in info.members]

    async def _step(self) -> None:
        group = self.random.choice(self.groups)
        match self.random.choices(list(MOVES), list(MOVES.values())):
            case ["says"]:
                speaker = self._somebody(group, "owner", "member")
                if speaker is not None:
                    for _ in range(self.random.randint(1, 3)):
                        self.texts += 1
                        speaker.send(group, f"text {self.texts}")
            case ["invites"]:
                owner = self._somebody(group, "owner")
                if owner is not None:
                    self._act(owner, group, InviteAct(self.random.choice(list(self.members)), history=0))
            case ["joins"]:
                for any_group in self.groups:
                    invited = self._somebody(any_group, "invited")
                    if invited is not None and not _has_noted(invited, any_group):
                        self._act(invited, any_group, JoinAct())
            case ["leaves"]:
                member = self._somebody(group, "member")
                if member is not None:
                    self._act(member, group, LeaveAct())
            case ["removes"]:
                owner = self._somebody(group, "owner")
                if owner is not None:
                    self._act(owner, group, RemoveAct(self.random.choice(self._info(group))))
            case ["goes"]:
                await self.random.choice([one for one in self.members.values() if one.online]).stop()
            case ["returns"]:
                offline = [one for one in self.members.values() if not one.online]
                if offline:
                    self.random.choice(offline).start()

    def _somebody(self, group: str, *roles: str) -> TappedMember | None:
        found = []
        for member in self.members.values():
            info = group_info(member.vault, group) if member.online else None
            if info is not None and info.role in roles:
                found.append(member)
        return self.random.choice(found) if found else None

    def _act(self, member: TappedMember, group: str, act: Act) -> None:
        try:
            member.core.group_act(group, act)
        except RequestError:
            return  # by the rules: an owner who is to be removed, somebody who is invited already
        member.connection.flush()

    # --- the end -----------------------------------------------------------------------------------------------------

    async def _settle(self) -> None:
        """Everybody is there, and nothing is under way, nor waits for anything."""
        for member in self.members.values():
            if not member.online:
                member.start()
        while True:
            await self._until(self._is_still)
            if not await deferToThread(_mails, self.network.config.database.dsn or "") and self._is_still():
                return

    def _is_still(self) -> bool:
        longest = {group: self._longest(group) for group in self.groups}
        for member in self.members.values():
            if not member.core.ready or any(member.vault.execute(query).fetchone() for query in OPEN):
                return False
            for group in self.groups:
                info = group_info(member.vault, group)
                if info is not None and info.role in JOINED and _length(member, group) < longest[group]:
                    return False
        return True

    def _strange(self) -> list[str]:
        return [
            f"{member.user}: {event}"
            for member in self.members.values()
            for event in member.events
            if isinstance(event, GroupAlarm | MessageUnreadable)
        ]

    async def _until(self, condition: Callable[[], bool]) -> None:
        """Looked at now and then: it takes a while to ask a hundred vaults."""
        give_up = self.network.reactor.seconds() + PATIENCE
        while not condition():
            if self.network.reactor.seconds() > give_up:
                self.fail(f"still not so after {PATIENCE} seconds; open: {self._open()}")
            await deferLater(self.network.reactor, 0.25)

    def _open(self) -> list[str]:
        """What is not at its end, for somebody who looks for the reason."""
        found = []
        for member in self.members.values():
            for query in OPEN:
                row = member.vault.execute(query.replace("1", "*", 1)).fetchone()
                if row is not None:
                    found.append(f"{member.user} {query}: {row}"[:300])
            if not member.core.ready:
                found.append(f"{member.user} is not there: {member.events[-2:]}")
            for group in self.groups:
                info, mine, all_ = group_info(member.vault, group), _length(member, group), self._longest(group)
                if info is not None and info.role in JOINED and mine < all_:
                    found.append(f"{member.user}, {info.role} of {group[:5]}, knows {mine} of {all_}")
        return found[:20]

    def _longest(self, group: str) -> int:
        return max(_length(member, group) for member in self.members.values())


def _has_noted(member: Member, group: str) -> bool:
    """Whether something is to be done about the group already."""
    query = "SELECT 1 FROM group_acts WHERE state = 0 AND group_id = ?"
    return member.vault.execute(query, (group[1:],)).fetchone() is not None


def _length(member: Member, group: str) -> int:
    query = "SELECT COUNT(*) FROM group_statements WHERE group_id = ?"
    [length] = member.vault.execute(query, (group[1:],)).fetchone() or (0,)
    return int(length)


def _mails(dsn: str) -> int:
    """How many messages are in mailboxes."""
    connection = psycopg2.connect(dsn)
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT message FROM mailboxes")
            return len(cursor.fetchall())
    finally:
        connection.close()
