"""A group's chain under whatever anybody says: a state machine, with a model of the rules that knows no code of theirs.

Eight people with two devices each say everything that there is to say, allowed or not, on the newest state or an older
one; somebody else drops, doubles, swaps, flips, forges what was said, or takes it from another group. What runs here is
the same every time. To search further, with other examples in every run:

    GROUP_CHAIN_EXAMPLES=5000 .venv/bin/trial tests.test_group_chain_machine
"""

from __future__ import annotations

import os
from random import Random
from typing import Any, Literal, NamedTuple
from unittest import mock

import msgspec
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as some
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from twisted.trial.unittest import SynchronousTestCase

from fastchat.errors import GroupInvalid, NotAllowed, SignatureInvalid
from fastchat.identity import groups
from fastchat.identity.groups import (
    Delete,
    GroupState,
    Invite,
    Join,
    Leave,
    Remove,
    Retitle,
    Role,
    SetRole,
    Statement,
    extend,
    permits,
    sign,
    title_hash,
)
from fastchat.protocols.wire import Signed
from tests.support.groups import Actor, GroupChain, replay, signed_by, title_of
from tests.support.people import AT, OwnDevice

EXAMPLES = int(os.environ.get("GROUP_CHAIN_EXAMPLES", "0"))
"""Of the long form; 0: the short one."""

PEOPLE = tuple(f"user{i}" for i in range(8))
DEVICES = {user: (Actor(user), Actor(user, OwnDevice(user, "second"))) for user in PEOPLE}
MAX_MEMBERS = 5
"""Fewer than there are people."""
ENOUGH, FEW = 1000, 20
"""Places in a chain."""

Standing = Literal["owner", "admin", "member", "invited", "none"]
ROLES: tuple[Role, ...] = ("owner", "admin", "member")
ABOUT_NOBODY = ("join", "leave", "title", "delete")
LASTING = ("invite", "invite", "invite", "join", "join", "role", "role", "remove", "leave", "title")

MAY: dict[tuple[str, Standing], set[Standing]] = {
    ("invite", "owner"): {"none"},
    ("invite", "admin"): {"none"},
    ("remove", "owner"): {"owner", "admin", "member", "invited"},
    ("remove", "admin"): {"member", "invited"},
    ("role", "owner"): {"owner", "admin", "member"},
}
"""Whom somebody of this standing may do this to; whoever is not here, nobody."""

MAY_ALONE: dict[str, set[Standing]] = {
    "join": {"invited"},
    "leave": {"owner", "admin", "member", "invited"},
    "title": {"owner", "admin"},
    "delete": {"owner"},
}


class Said(NamedTuple):
    """What somebody says, before it is a statement."""

    kind: str
    user: str
    who: str = ""
    role: Role = "member"
    number: int = 0
    """Days of history, or a title."""
    device: int = 0

    @property
    def actor(self) -> Actor:
        return DEVICES[self.user][self.device]

    def statement(self, state: GroupState) -> Statement:
        what: dict[str, Any] = {
            "group": state.group,
            "position": state.length,
            "prev": state.head,
            "user": self.user,
            "device": self.actor.device,
            "at": AT,
        }
        match self.kind:
            case "invite":
                return Invite(**what, who=self.who, history=self.number)
            case "join":
                return Join(**what)
            case "leave":
                return Leave(**what)
            case "remove":
                return Remove(**what, who=self.who)
            case "role":
                return SetRole(**what, who=self.who, role=self.role)
            case "title":
                return Retitle(**what, title=title_hash(title_of(f"title {self.number}")))
            case _:
                return Delete(**what)

    def on(self, state: GroupState) -> Signed:
        return sign(self.actor.sign, self.statement(state))


def everything(kind: str) -> list[Said]:
    """All that there is to say of this kind, but for history, title and device."""
    whom = ("",) if kind in ABOUT_NOBODY else PEOPLE
    roles = ROLES if kind == "role" else ROLES[-1:]
    return [Said(kind, user, who, role) for user in PEOPLE for who in whom for role in roles]


EVERYTHING = {kind: everything(kind) for kind in ("invite", "remove", "role", *ABOUT_NOBODY)}


class Model:
    """Who is what in a group, as one would note it on paper."""

    def __init__(self, founder: str, places: int) -> None:
        self.standing: dict[str, Standing] = dict.fromkeys(PEOPLE, "none")
        self.standing[founder] = "owner"
        self.since = {founder: 1}
        self.invitations: dict[str, tuple[str, int, int]] = {}
        self.title = "team"
        self.is_over = False
        self.length = 1
        self.places = places

    def those(self, *standings: Standing) -> list[str]:
        return [user for user in PEOPLE if self.standing[user] in standings]

    @property
    def joined(self) -> list[str]:
        return self.those("owner", "admin", "member")

    def allows(self, said: Said) -> bool:
        mine = self.standing[said.user]
        going = said.kind in ("leave", "remove", "delete")
        if self.is_over or (not going and self.length > self.places - (MAX_MEMBERS + 1) - 1):
            return False
        if said.kind in MAY_ALONE:
            return mine in MAY_ALONE[said.kind] and not (
                said.kind == "leave" and self.those("owner") == [said.user] and self.joined != [said.user]
            )
        theirs = self.standing[said.who]
        if theirs not in MAY.get((said.kind, mine), set()):
            return False
        match said.kind:
            case "invite":
                return len(self.joined) + len(self.those("invited")) < MAX_MEMBERS
            case "remove":
                return said.who != said.user
            case _:
                return said.role != theirs and self.those("owner") != [said.who]

    def take(self, said: Said) -> None:
        match said.kind:
            case "invite":
                self.standing[said.who] = "invited"
                self.invitations[said.who] = (said.user, said.number, self.length)
            case "join":
                self.standing[said.user] = "member"
                self.since[said.user] = self.length + 1
            case "leave":
                self.standing[said.user] = "none"
                self.is_over = not self.joined
            case "remove":
                self.standing[said.who] = "none"
            case "role":
                self.standing[said.who] = said.role
            case "title":
                self.title = f"title {said.number}"
            case _:
                self.is_over = True
        self.length += 1

    def allowed(self, kind: str) -> list[Said]:
        return [said for said in EVERYTHING[kind] if self.allows(said)]


people = some.sampled_from(PEOPLE)
days = some.integers(0, 30)
which = some.integers(0, 1)
seeds = some.integers(0, 2**32 - 1)
"""Who says what, as hypothesis by itself prefers the first of every list."""
counts = some.integers(0, 15)
any_of = some.integers(0, 10_000)
"""Taken modulo how many there are."""
anything = some.builds(
    Said,
    kind=some.sampled_from((*LASTING, "delete")),
    user=people,
    who=people,
    role=some.sampled_from(ROLES),
    number=days,
    device=which,
)


class ChainMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.patch = mock.patch.multiple(groups, MAX_MEMBERS=MAX_MEMBERS, MAX_STATEMENTS=ENOUGH)
        self.patch.start()

    @initialize(founder=people, is_short=some.booleans(), count=counts, seed=seeds)
    def creates(self, founder: str, is_short: bool, count: int, seed: int) -> None:
        places = FEW if is_short else ENOUGH
        groups.MAX_STATEMENTS = places
        actor = DEVICES[founder][0]
        self.model = Model(founder, places)
        self.chain = GroupChain(actor)
        self.states = [self.chain.state]
        self.elsewhere = GroupChain(actor, actor.create(nonce=bytes([1] * 16)))
        """Another group, in which the same people say the same."""
        self.what_could_come_next_is_judged_alike()
        self.several_say_what_is_allowed(count, seed)

    @precondition(lambda self: self.model.is_over)
    @rule(founder=people, is_short=some.booleans(), count=counts, seed=seeds)
    def creates_another(self, founder: str, is_short: bool, count: int, seed: int) -> None:
        self.ends()
        self.creates(founder, is_short, count, seed)

    def says(self, said: Said) -> None:
        statement = said.on(self.chain.state)
        if not self.model.allows(said):
            self.refused(NotAllowed, self.chain.state, statement, said.actor)
            return
        self.chain.add(said.actor, statement)
        self.states.append(self.chain.state)
        self.elsewhere.add(said.actor, said.on(self.elsewhere.state))
        self.model.take(said)
        self.what_could_come_next_is_judged_alike()

    def what_could_come_next_is_judged_alike(self) -> None:
        """Some of each kind, others for every state."""
        choose = Random(self.chain.state.head)
        for said in [one for kind in EVERYTHING.values() for one in choose.sample(kind, k=8)]:
            try:
                permits(self.chain.state, said.statement(self.chain.state))
                allowed = True
            except NotAllowed:
                allowed = False
            assert allowed == self.model.allows(said), f"{said}: {allowed} in {self.chain.state}"

    def refused(self, error: Any, state: GroupState | None, statement: Signed, actor: Actor) -> None:
        try:
            extend(state, statement, actor.ed25519)
        except error:
            return
        raise AssertionError(f"taken, and should be {error}: {statement.body!r} of {actor.user} after {state}")

    @rule(said=anything)
    def says_anything(self, said: Said) -> None:
        self.says(said)

    @rule(count=counts, seed=seeds)
    def several_say_what_is_allowed(self, count: int, seed: int) -> None:
        choose = Random(seed)
        for kind in choose.choices(LASTING, k=count):
            allowed = self.model.allowed(kind)
            if allowed:
                self.says(choose.choice(allowed)._replace(number=choose.randint(0, 30), device=choose.randint(0, 1)))

    @precondition(lambda self: len(self.states) > 1)
    @rule(said=anything, at=any_of)
    def says_something_late(self, said: Said, at: int) -> None:
        """Allowed on the state that it was said on, perhaps, and on this one, perhaps: it is refused."""
        self.refused(GroupInvalid, self.chain.state, said.on(self.states[at % (len(self.states) - 1)]), said.actor)

    @rule(said=anything, thief=people)
    def somebody_forges(self, said: Said, thief: str) -> None:
        """With a key that is not that of the device, be it one of the same person."""
        statement = said.on(self.chain.state)
        other = DEVICES[thief][1 - said.device]
        self.refused(SignatureInvalid, self.chain.state, signed_by(other, statement.body), said.actor)
        self.refused(SignatureInvalid, self.chain.state, statement, other)

    def before(self, at: int) -> GroupState | None:
        return self.states[at - 1] if at else None

    @rule(at=any_of, bit=any_of, in_body=some.booleans())
    def a_bit_flips(self, at: int, bit: int, in_body: bool) -> None:
        at %= len(self.states)
        statement = self.chain.statements[at]
        part = "body" if in_body else "signature"
        data = bytearray(getattr(statement, part))
        data[bit // 8 % len(data)] ^= 1 << bit % 8
        flipped = msgspec.structs.replace(statement, **{part: bytes(data)})
        self.refused((GroupInvalid, SignatureInvalid), self.before(at), flipped, self.chain.actors[at])

    @rule(at=any_of, later=any_of)
    def statements_are_swapped_dropped_or_doubled(self, at: int, later: int) -> None:
        """Each shows at the first statement that is not where it was."""
        at %= len(self.states)
        self.refused(GroupInvalid, self.states[at], self.chain.statements[at], self.chain.actors[at])
        if at + 1 < len(self.states):
            other = at + 1 + later % (len(self.states) - at - 1)
            self.refused(GroupInvalid, self.before(at), self.chain.statements[other], self.chain.actors[other])

    @rule(at=any_of)
    def one_is_taken_from_elsewhere(self, at: int) -> None:
        at %= len(self.states)
        statement, actor = self.elsewhere.statements[at], self.elsewhere.actors[at]
        if at:
            self.refused(GroupInvalid, self.before(at), statement, actor)
        else:
            assert extend(None, statement, actor.ed25519).group != self.chain.group

    @invariant()
    def it_is_as_noted(self) -> None:
        state, model = self.chain.state, self.model
        standing: dict[str, str] = {user: member.role for user, member in state.members.items()}
        assert {**standing, **dict.fromkeys(state.invited, "invited")} == {
            user: kind for user, kind in model.standing.items() if kind != "none"
        }
        assert {user: member.since for user, member in state.members.items()} == {
            user: model.since[user] for user in model.joined
        }
        assert {user: (one.by, one.history, one.position) for user, one in state.invited.items()} == {
            user: model.invitations[user] for user in model.those("invited")
        }
        assert (state.length, state.deleted) == (model.length, model.is_over)
        assert state.title == title_hash(title_of(model.title))

    @invariant()
    def it_is_in_order(self) -> None:
        state = self.chain.state
        owners = [user for user, member in state.members.items() if member.role == "owner"]
        assert len(state.members) + len(state.invited) <= MAX_MEMBERS
        assert not set(state.members) & set(state.invited)
        assert owners or not state.members
        assert state.members or state.deleted
        assert state.length == len(self.chain.statements) <= self.model.places

    def ends(self) -> None:
        """However long the chain has become, everybody can go, the last owner last; and whoever reads all of it again
        comes to the same."""
        going = [*self.model.those("invited", "member", "admin"), *self.model.those("owner")]
        for user in going if not self.model.is_over else []:
            self.says(Said("leave", user))
        assert self.chain.state.deleted
        assert self.chain.state.length <= self.model.places
        assert replay(self.chain.statements, self.chain.keys) == self.chain.state

    def teardown(self) -> None:
        try:
            if hasattr(self, "chain"):
                self.ends()
        finally:
            self.patch.stop()


class Chains(SynchronousTestCase):
    def test_whatever_is_said(self) -> None:
        run_state_machine_as_test(
            ChainMachine,
            settings=settings(
                derandomize=not EXAMPLES,
                database=None,
                deadline=None,
                suppress_health_check=list(HealthCheck),
                print_blob=False,
                max_examples=EXAMPLES or 50,
                stateful_step_count=40,
                phases=[Phase.generate, Phase.shrink],
            ),
        )
        self.assertEqual(groups.MAX_MEMBERS, 1000)
