"""A group's chain: what its statements look like, what they come to, and who may say which."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any
from unittest import mock

import msgspec
from twisted.trial.unittest import SynchronousTestCase

from fastchat.errors import GroupInvalid, NotAllowed
from fastchat.identity import groups
from fastchat.identity.groups import (
    GroupState,
    Invitation,
    Member,
    Title,
    extend,
    group_id,
    opens,
    permits,
    read,
    subject,
    title_hash,
)
from fastchat.protocols.wire import Signed
from tests.support.groups import (
    Actor,
    GroupChain,
    compact,
    of_every_kind,
    replay,
    signed_by,
    text,
    title_of,
)
from tests.support.people import AT

ALICE, BOB, CAROL, DAVE = (Actor(user) for user in ("alice", "bob", "carol", "dave"))
RULES = Path(__file__).parent.parent / "docs/decisions/group-rules.md"


class WhatIsSaid(SynchronousTestCase):
    def test_what_is_signed_stands_in_the_open(self) -> None:
        chain = of_every_kind()
        said = chain.actors
        prevs = [hashlib.sha256(statement.body).digest() for statement in chain.statements]

        def later(position: int, kind: str, **what: Any) -> dict[str, Any]:
            return {
                "t": kind,
                "group": chain.group,
                "position": position,
                "prev": text(prevs[position - 1]),
                "user": said[position].user,
                "device": said[position].device,
                "at": AT + position,
                **what,
            }

        self.assertEqual(
            [json.loads(statement.body) for statement in chain.statements],
            [
                {
                    "t": "create",
                    "position": 0,
                    "prev": "",
                    "user": "alice",
                    "device": ALICE.device,
                    "at": AT,
                    "nonce": text(bytes(16)),
                    "title": text(title_hash(title_of("team"))),
                },
                later(1, "invite", who="bob", history=30),
                later(2, "join"),
                later(3, "role", who="bob", role="admin"),
                later(4, "invite", who="carol", history=0),
                later(5, "title", title=text(title_hash(title_of("new", "all of it")))),
                later(6, "join"),
                later(7, "remove", who="carol"),
                later(8, "leave"),
                later(9, "delete"),
            ],
        )
        for actor, statement in zip(said, chain.statements, strict=True):
            self.assertEqual(statement.body, compact(json.loads(statement.body)))
            self.assertEqual(statement, signed_by(actor, statement.body))

    def test_what_the_chain_says(self) -> None:
        chain = GroupChain.of(ALICE, BOB)
        chain.add(ALICE, ALICE.invite(chain.state, "carol", 30))
        self.assertEqual(
            chain.state,
            GroupState(
                group=group_id(chain.statements[0].body),
                length=4,
                head=hashlib.sha256(chain.statements[-1].body).digest(),
                title=title_hash(title_of("team")),
                members={"alice": Member("owner", 1), "bob": Member("member", 3)},
                invited={"carol": Invitation("alice", 30, 3)},
                deleted=False,
            ),
        )
        chain.add(ALICE, ALICE.role(chain.state, "bob", "owner"))
        chain.add(BOB, BOB.retitle(chain.state, "other"))
        self.assertEqual(chain.state.members["bob"], Member("owner", 3))
        self.assertEqual(chain.state.title, title_hash(title_of("other")))

    def test_who_comes_back_is_new(self) -> None:
        chain = GroupChain.of(ALICE, BOB, CAROL)
        chain.add(BOB, BOB.leave(chain.state))
        chain.add(ALICE, ALICE.invite(chain.state, "bob", 0))
        chain.add(BOB, BOB.join(chain.state))
        self.assertEqual(chain.state.members["bob"], Member("member", 8))
        self.assertEqual(list(chain.state.members), ["alice", "carol", "bob"])

    def test_extending_is_replaying(self) -> None:
        chain = of_every_kind()
        self.assertEqual(replay(chain.statements, chain.keys), chain.state)
        self.assertTrue(chain.state.deleted)
        self.assertEqual(chain.state.length, 10)

    def test_an_earlier_state_stays_as_it_was(self) -> None:
        chain = GroupChain.of(ALICE, BOB)
        before = chain.state
        copy = GroupState(
            before.group,
            before.length,
            before.head,
            before.title,
            dict(before.members),
            dict(before.invited),
            before.deleted,
        )
        chain.add(ALICE, ALICE.invite(before, "carol"))
        chain.add(CAROL, CAROL.join(chain.state))
        chain.add(ALICE, ALICE.role(chain.state, "bob", "admin"))
        chain.add(BOB, BOB.remove(chain.state, "carol"))
        chain.add(BOB, BOB.leave(chain.state))
        self.assertEqual(before, copy)

    def test_the_id_is_of_the_first_body(self) -> None:
        create = ALICE.create()
        expected = hashlib.sha256(b"FastChat-v1|group-id|" + create.body).digest()[:16].hex()
        self.assertEqual(group_id(create.body), expected)
        self.assertEqual(extend(None, create, ALICE.ed25519).group, expected)
        self.assertNotEqual(group_id(ALICE.create(nonce=bytes([1] * 16)).body), expected)

    def test_whom_it_is_about(self) -> None:
        chain = of_every_kind()
        subjects = [subject(read(statement)) for statement in chain.statements]
        self.assertEqual(subjects, ["", "bob", "", "bob", "carol", "", "", "carol", "", ""])


class Titles(SynchronousTestCase):
    title = Title(salt=bytes(range(32)), name="Räte", topic="")

    def test_the_hash_is_of_salt_name_and_topic(self) -> None:
        salt = text(bytes(range(32))).encode()
        encoded = b'{"salt":"' + salt + '","name":"Räte","topic":""}'.encode()
        self.assertEqual(title_hash(self.title), hashlib.sha256(b"FastChat-v1|title|" + encoded).digest())

    def test_only_the_very_title_opens_it(self) -> None:
        hashed = title_hash(self.title)
        self.assertTrue(opens(self.title, hashed))
        for other in ({"salt": bytes(32)}, {"name": "Rate"}, {"topic": "x"}, {"name": ""}, {"topic": "x" * 513}):
            self.assertFalse(opens(msgspec.structs.replace(self.title, **other), hashed), other)

    def test_the_longest(self) -> None:
        title = Title(salt=bytes(32), name="x" * 64, topic="y" * 512)
        self.assertTrue(opens(title, title_hash(title)))

    def test_what_no_group_is_called(self) -> None:
        for other in (
            {"name": ""},
            {"name": "x" * 65},
            {"topic": "x" * 513},
            {"salt": bytes(31)},
            {"salt": bytes(33)},
            {"name": "\ud800"},
        ):
            self.assertRaises(GroupInvalid, title_hash, msgspec.structs.replace(self.title, **other))


class Rules(SynchronousTestCase):
    """The table of `docs/decisions/group-rules.md`, each of its cells tried out."""

    def setUp(self) -> None:
        owners, admins, members = ("alice", "olga"), ("adam", "ada"), ("mia", "max")
        self.state = GroupState(
            group="0" * 32,
            length=20,
            head=bytes(32),
            title=bytes(32),
            members={
                **{user: Member("owner", 1) for user in owners},
                **{user: Member("admin", 3) for user in admins},
                **{user: Member("member", 5) for user in members},
            },
            invited={"ivy": Invitation("alice", 7, 8), "ian": Invitation("adam", 7, 9)},
            deleted=False,
        )
        self.actors = {"owner": "alice", "admin": "adam", "member": "mia", "invited": "ivy", "anybody else": "zoe"}

    def attempts(self, actor: Actor) -> dict[str, list[Signed]]:
        """What each row of the table is about: all that must be judged alike."""
        state, me = self.state, actor.user
        roles: list[tuple[str, groups.Role]] = [
            ("max", "admin"),
            ("max", "owner"),
            ("ada", "owner"),
            ("ada", "member"),
            ("olga", "admin"),
            ("olga", "member"),
        ]
        return {
            "invite somebody new": [actor.invite(state, "new", days) for days in (0, 30)],
            "invite somebody who is a member, or invited": [actor.invite(state, who) for who in ("max", "ian", me)]
            if me != "zoe"
            else [actor.invite(state, "max"), actor.invite(state, "zoe")],
            "join": [actor.join(state)],
            "leave; when invited: decline": [actor.leave(state)],
            "remove a member": [actor.remove(state, "max")],
            "remove an admin": [actor.remove(state, "ada")],
            "remove an owner": [actor.remove(state, "olga")],
            "withdraw an invitation": [actor.remove(state, "ian")],
            "remove oneself": [actor.remove(state, me)],
            "remove somebody who is neither a member nor invited": [actor.remove(state, "nobody")],
            "give a member, admin or owner another role": [actor.role(state, who, role) for who, role in roles],
            "give somebody who is no member a role": [actor.role(state, who, "admin") for who in ("ian", "new")],
            "name the group, set its topic": [actor.retitle(state, "x"), actor.retitle(state, "x", "y")],
            "delete the group": [actor.delete(state)],
        }

    def test_every_cell_of_the_table(self) -> None:
        page = RULES.read_text(encoding="utf-8")
        head, _, *rows = [
            [cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines() if line.startswith("|")
        ]
        self.assertEqual(head, ["who may", *self.actors])
        self.assertEqual([row[0] for row in rows], list(self.attempts(ALICE)))
        for kind, name in self.actors.items():
            actor = Actor(name)
            for what, *cells in rows:
                expected = cells[head.index(kind) - 1]
                self.assertIn(expected, ("yes", "no"))
                for statement in self.attempts(actor)[what]:
                    self.assertEqual(self.judged(actor, statement), expected, f"{kind}: {what}: {statement.body!r}")

    def judged(self, actor: Actor, statement: Signed) -> str:
        try:
            extend(self.state, statement, actor.ed25519)
        except NotAllowed:
            return "no"
        return "yes"

    def test_the_same_role_is_no_change(self) -> None:
        for who in ("olga", "ada", "max", "alice"):
            statement = ALICE.role(self.state, who, self.state.members[who].role)
            self.assertRaises(NotAllowed, extend, self.state, statement, ALICE.ed25519)

    def test_one_of_two_owners_steps_down(self) -> None:
        stepped = extend(self.state, ALICE.role(self.state, "alice", "member"), ALICE.ed25519)
        self.assertEqual(stepped.members["alice"], Member("member", 1))

    def test_a_second_create_is_not_permitted(self) -> None:
        self.assertRaises(NotAllowed, permits, self.state, read(ALICE.create()))

    def test_a_refusal_says_why(self) -> None:
        error = self.assertRaises(NotAllowed, extend, self.state, ALICE.invite(self.state, "max"), ALICE.ed25519)
        self.assertEqual((error.code, error.message), ("not-allowed", "max is a member already"))


class Exceptions(SynchronousTestCase):
    def refuse(self, chain: GroupChain, actor: Actor, *statements: Signed) -> None:
        for statement in statements:
            self.assertRaises(NotAllowed, chain.add, actor, statement)

    def test_the_only_owner_stays_with_the_others(self) -> None:
        chain = GroupChain.of(ALICE, BOB)
        self.refuse(chain, ALICE, ALICE.leave(chain.state), ALICE.role(chain.state, "alice", "member"))
        chain.add(ALICE, ALICE.role(chain.state, "bob", "admin"))
        self.refuse(chain, ALICE, ALICE.leave(chain.state), ALICE.role(chain.state, "alice", "admin"))
        chain.add(ALICE, ALICE.role(chain.state, "bob", "owner"))
        chain.add(ALICE, ALICE.leave(chain.state))
        self.assertEqual(chain.state.members, {"bob": Member("owner", 3)})
        self.refuse(chain, BOB, BOB.role(chain.state, "bob", "member"))

    def test_the_last_leave_is_the_end(self) -> None:
        chain = GroupChain(ALICE)
        chain.add(ALICE, ALICE.invite(chain.state, "bob"))
        chain.add(ALICE, ALICE.leave(chain.state))
        self.assertEqual((chain.state.members, chain.state.deleted), ({}, True))
        self.refuse(chain, BOB, BOB.join(chain.state), BOB.leave(chain.state))

    def test_declining_leaves_the_members(self) -> None:
        chain = GroupChain(ALICE)
        chain.add(ALICE, ALICE.invite(chain.state, "bob"))
        chain.add(BOB, BOB.leave(chain.state))
        self.assertEqual((list(chain.state.members), chain.state.invited, chain.state.deleted), (["alice"], {}, False))

    def test_nothing_follows_a_deletion(self) -> None:
        chain = GroupChain.of(ALICE, BOB, CAROL)
        chain.add(ALICE, ALICE.invite(chain.state, "dave"))
        members = chain.state.members
        chain.add(ALICE, ALICE.delete(chain.state))
        self.assertEqual((chain.state.deleted, chain.state.members), (True, members))
        for actor in (ALICE, BOB, DAVE):
            state = chain.state
            self.refuse(
                chain,
                actor,
                actor.invite(state, "erin"),
                actor.join(state),
                actor.leave(state),
                actor.remove(state, "carol"),
                actor.role(state, "carol", "admin"),
                actor.retitle(state, "x"),
                actor.delete(state),
            )

    def test_who_was_removed_says_nothing_more(self) -> None:
        chain = GroupChain.of(ALICE, BOB)
        chain.add(ALICE, ALICE.role(chain.state, "bob", "owner"))
        chain.add(ALICE, ALICE.remove(chain.state, "bob"))
        self.refuse(chain, BOB, BOB.leave(chain.state), BOB.join(chain.state), BOB.delete(chain.state))

    def test_an_invitation_is_good_once(self) -> None:
        chain = GroupChain.of(ALICE, BOB)
        chain.add(BOB, BOB.leave(chain.state))
        self.refuse(chain, BOB, BOB.join(chain.state))
        chain.add(ALICE, ALICE.invite(chain.state, "bob"))
        chain.add(ALICE, ALICE.remove(chain.state, "bob"))
        self.refuse(chain, BOB, BOB.join(chain.state))

    def test_members_and_invited_together_are_bounded(self) -> None:
        with mock.patch.object(groups, "MAX_MEMBERS", 3):
            chain = GroupChain.of(ALICE, BOB)
            chain.add(ALICE, ALICE.invite(chain.state, "carol"))
            self.refuse(chain, ALICE, ALICE.invite(chain.state, "dave"))
            chain.add(CAROL, CAROL.join(chain.state))
            self.refuse(chain, ALICE, ALICE.invite(chain.state, "dave"))
            chain.add(CAROL, CAROL.leave(chain.state))
            chain.add(ALICE, ALICE.invite(chain.state, "dave"))
        self.assertEqual((groups.MAX_MEMBERS, list(chain.state.invited)), (1000, ["dave"]))

    def test_nobody_can_be_kept_in_by_filling_the_chain(self) -> None:
        with mock.patch.multiple(groups, MAX_MEMBERS=3, MAX_STATEMENTS=9):
            chain = GroupChain.of(ALICE, BOB)
            chain.add(ALICE, ALICE.invite(chain.state, "carol"))
            chain.add(ALICE, ALICE.retitle(chain.state, "last"))
            state = chain.state
            self.assertEqual(state.length, 5)
            self.refuse(chain, ALICE, ALICE.retitle(state, "x"), ALICE.invite(state, "dave"))
            self.refuse(chain, ALICE, ALICE.role(state, "bob", "owner"))
            self.refuse(chain, CAROL, CAROL.join(state))
            chain.add(CAROL, CAROL.leave(chain.state))
            chain.add(ALICE, ALICE.remove(chain.state, "bob"))
            chain.add(ALICE, ALICE.delete(chain.state))
        self.assertEqual(groups.MAX_STATEMENTS, 50_000)
