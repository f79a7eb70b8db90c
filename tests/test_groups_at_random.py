"""Groups under a random schedule: twelve clients in three groups who write, invite, join, leave, remove and come and
go, also at the same moment, while services die and the database is away; and then what everybody has, judged from
outside.

The real clients and the real rules, in memory, on a Clock: the same as `test_hundred_groups`, with worse luck and no
sockets."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from random import Random

from fastchat.errors import RequestError
from fastchat_client.events import GroupAlarm, MessageUnreadable, Notice
from fastchat_client.group_acting import (
    Act,
    InviteAct,
    JoinAct,
    LeaveAct,
    RemoveAct,
    RenameAct,
    RoleAct,
)
from fastchat_client.groups import GroupInfo, group_info
from tests.support.group_judge import Verdict, Wire
from tests.support.joined import JoinedTest, Net, Person
from tests.support.joined_services import SERVICES

SEEDS = tuple(map(int, os.environ.get("GROUP_SEEDS", "1").split()))
STEPS = int(os.environ.get("GROUP_STEPS", "200"))
"""For longer: other seeds, more steps. A few seconds each, for what no script of ours thought of."""
NAMES = tuple(f"member{number:02}" for number in range(12))
GROUPS = 3


class Schedule:
    """One random run. `history`: days of earlier messages that newcomers are given."""

    def __init__(self, net: Net, seed: int, history: int) -> None:
        self.net = net
        self.random = Random(seed)
        self.done: Counter[str] = Counter()
        self._history = history
        self._wire = Wire()
        self.people = [self._person(net.person(name)) for name in NAMES]
        for owner in self.people[:2]:
            self.people.append(self._person(net.second_device(owner)))
        net.passes(seconds=400)  # until everybody has heard of the second devices
        self.groups: list[str] = []
        self._texts = 0

    def _person(self, person: Person) -> Person:
        self._wire.tap(person.core)
        return person

    def founds(self) -> None:
        """The groups, with a few members each, some in several of them."""
        for number in range(GROUPS):
            owner = self.people[number]
            _, group = owner.core.group_create(f"group {number}", "")
            owner.flush()
            self._settles()
            self.groups.append(group)
            for member in self.random.sample(self.people[: len(NAMES)], 5):
                self._acts(owner, group, InviteAct(member.name, self._history))
                self._settles()
                self._acts(member, group, JoinAct())
                self._settles()

    def runs(self, steps: int) -> None:
        for _ in range(steps):
            self._step()

    def _step(self) -> None:
        move = self.random.choices(list(MOVES), list(MOVES.values()))[0]
        self.done[move.__name__.strip("_")] += 1
        move(self)

    # --- moves -------------------------------------------------------------------------------------------------------

    def _says(self) -> None:
        group, person = self._somebody(("owner", "admin", "member"))
        if person is not None:
            for _ in range(self.random.randint(1, 4)):
                self._texts += 1
                person.core.send_text(group, f"text {self._texts} of {person.name}")
                person.flush()

    def _invites(self) -> None:
        group, person = self._somebody(("owner", "admin"))
        if person is not None:
            self._acts(person, group, InviteAct(self.random.choice(NAMES), self._history))

    def _joins(self) -> None:
        group, person = self._somebody(("invited",))
        if person is not None:
            self._acts(person, group, JoinAct())

    def _leaves(self) -> None:
        group, person = self._somebody(("member", "admin", "invited"))
        if person is not None:
            self._acts(person, group, LeaveAct())

    def _removes(self) -> None:
        group, person = self._somebody(("owner", "admin"))
        if person is not None:
            members = [user for user, _ in self._info(person, group).members]
            self._acts(person, group, RemoveAct(self.random.choice(members)))

    def _changes_role(self) -> None:
        group, person = self._somebody(("owner",))
        if person is not None:
            members = [user for user, _ in self._info(person, group).members]
            who = self.random.choice(members)
            self._acts(
                person,
                group,
                self.random.choice([RoleAct(who, "owner"), RoleAct(who, "admin"), RoleAct(who, "member")]),
            )

    def _renames(self) -> None:
        group, person = self._somebody(("owner", "admin"))
        if person is not None:
            self._acts(person, group, RenameAct(f"name {self.random.randrange(1000)}"))

    def _goes(self) -> None:
        self.random.choice(self.people).goes_offline()

    def _returns(self) -> None:
        offline = [person for person in self.people if person._connection is None]
        if offline:
            self.random.choice(offline).comes_back()

    def _falls_silent(self) -> None:
        person = self.random.choice(self.people)
        if person.is_online:
            person.moves() if self.random.random() < 0.5 else person.falls_silent()

    def _service_dies(self) -> None:
        name = self.random.choice(SERVICES)
        self.net.kills(name)
        self._settles()
        self.net.revives(name)

    def _database_changes(self) -> None:
        self.net.store.away = not self.net.store.away

    def _same_moment(self) -> None:
        """Several things at once, some of them half done."""
        with self.net.same_moment():
            for _ in range(self.random.randint(2, 5)):
                self.random.choice((Schedule._says, Schedule._says, *_ACTS))(self)
                self.net.turns(self.random.choice((0, 0, 1, 3, 8)))

    def _passes(self) -> None:
        self.net.passes(seconds=self.random.choice((1, 1, 1, 3, 10)))

    def _settles(self) -> None:
        self.net.settles()

    # --- who ---------------------------------------------------------------------------------------------------------

    def _somebody(self, roles: tuple[str, ...]) -> tuple[str, Person | None]:
        """Of a random group, somebody who has one of these roles, as far as they know themselves."""
        group = self.random.choice(self.groups)
        found = []
        for person in self.people:
            info = group_info(person.vault, group)
            if info is not None and info.role in roles and not info.deleted:
                found.append(person)
        return group, self.random.choice(found) if found else None

    def _info(self, person: Person, group: str) -> GroupInfo:
        info = group_info(person.vault, group)
        assert info is not None
        return info

    def _acts(self, person: Person, group: str, act: Act) -> None:
        """What its rules forbid is refused at once."""
        try:
            person.core.group_act(group, act)
        except RequestError:
            self.done["refused at once"] += 1
        person.flush()

    # --- the end -----------------------------------------------------------------------------------------------------

    def ends(self) -> Verdict:
        """Everything works again, and everybody is there, for long enough."""
        self.net.database_comes_back()
        for person in self.people:
            person.comes_back()
        for _ in range(10):
            self.net.passes(minutes=10)
            if all(person.is_online for person in self.people):
                break
        self.net.passes(minutes=2)
        return Verdict([person.vault for person in self.people], self._wire)


_ACTS = (
    Schedule._invites,
    Schedule._joins,
    Schedule._leaves,
    Schedule._removes,
    Schedule._changes_role,
    Schedule._renames,
)
MOVES: dict[Callable[[Schedule], None], int] = {
    Schedule._says: 30,
    Schedule._same_moment: 12,
    Schedule._invites: 8,
    Schedule._joins: 10,
    Schedule._leaves: 4,
    Schedule._removes: 4,
    Schedule._changes_role: 3,
    Schedule._renames: 2,
    Schedule._goes: 6,
    Schedule._returns: 8,
    Schedule._falls_silent: 3,
    Schedule._service_dies: 3,
    Schedule._database_changes: 4,
    Schedule._passes: 12,
    Schedule._settles: 10,
}


class AtRandom(JoinedTest):
    def check(self, seed: int, history: int) -> None:
        schedule = Schedule(self.net, seed, history)
        schedule.founds()
        schedule.runs(STEPS)
        verdict = schedule.ends()
        wrong = verdict.judge(newcomers=bool(history))
        strange = [
            f"{person.name}: {event}"
            for person in schedule.people
            for event in person.events
            if isinstance(event, GroupAlarm | MessageUnreadable | Notice)
        ]
        self.assertEqual([], wrong[:20] + strange[:20], f"seed {seed}: {len(wrong)} wrong, {schedule.done}")
        self.assertGreater(verdict.shown, len(verdict.said))

    def test_nobody_is_given_what_was_said_before(self) -> None:
        for seed in SEEDS:
            self.net = self.network(sends_per_second=1000.0, sends_burst=1000)
            self.check(seed, history=0)

    def test_newcomers_are_given_what_was_said_before(self) -> None:
        self.net = self.network(sends_per_second=1000.0, sends_burst=1000)
        self.check(SEEDS[0] + 100, history=7)
