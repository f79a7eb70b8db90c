"""A group's chain: each way in which a statement is refused that is not for the rules, and any bytes at all."""

from __future__ import annotations

import json
from itertools import combinations, pairwise
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as some
from twisted.trial.unittest import SynchronousTestCase

from fastchat.errors import FastChatError, GroupInvalid, NotAllowed, SignatureInvalid
from fastchat.identity import groups
from fastchat.identity.groups import (
    Create,
    GroupState,
    Invite,
    extend,
    read,
    read_session,
    sign_session,
    verify_session,
)
from fastchat.protocols.wire import Signed
from tests.support.groups import (
    Actor,
    GroupChain,
    changed,
    compact,
    of_every_kind,
    replay,
    signed_by,
    text,
)
from tests.support.people import AT, OwnDevice

ALICE, BOB = Actor("alice"), Actor("bob")
SESSION = bytes(range(32))


class Refused(SynchronousTestCase):
    def setUp(self) -> None:
        self.chain = GroupChain.of(ALICE, BOB)

    def refuse(self, error: type[FastChatError], body: bytes, actor: Actor = ALICE) -> None:
        self.assertRaises(error, extend, self.chain.state, signed_by(actor, body), actor.ed25519)

    def refuse_create(self, without: str = "", **what: Any) -> None:
        signed = signed_by(ALICE, changed(ALICE.create(), without, **what))
        self.assertRaises(GroupInvalid, extend, None, signed, ALICE.ed25519)

    def test_what_is_missing_moved_or_repeated(self) -> None:
        """But for the end: a chain does not say how long it is."""
        chain = of_every_kind()
        statements, keys = chain.statements, chain.keys
        for at in range(len(statements)):
            doubled = [*statements[: at + 1], *statements[at:]]
            self.assertRaises(GroupInvalid, replay, doubled, keys)
            if at + 1 < len(statements):
                dropped = [*statements[:at], *statements[at + 1 :]]
                self.assertRaises(GroupInvalid, replay, dropped, keys)
        for one, other in combinations(range(len(statements)), 2):
            swapped = list(statements)
            swapped[one], swapped[other] = swapped[other], swapped[one]
            self.assertRaises(GroupInvalid, replay, swapped, keys)

    def test_another_groups_statements(self) -> None:
        chain = of_every_kind()
        statements, keys = chain.statements, chain.keys
        other = GroupChain(ALICE, ALICE.create(nonce=bytes([1] * 16)))
        for statement, (before, after) in zip(statements[1:], pairwise(chain.states()), strict=True):
            self.assertRaises(GroupInvalid, extend, other.state, statement, keys[read(statement).device])
            moved = changed(statement, group=other.group)
            actor = Actor(read(statement).user)
            self.assertRaises(GroupInvalid, extend, before, signed_by(actor, moved), actor.ed25519)
            self.assertEqual(extend(before, statement, actor.ed25519), after)

    def test_nothing_before_the_first(self) -> None:
        invite = self.chain.statements[1]
        self.assertRaises(GroupInvalid, extend, None, invite, ALICE.ed25519)
        self.refuse_create(position=1)
        self.refuse_create(prev=text(bytes(32)))

    def test_a_second_create(self) -> None:
        create, state = ALICE.create(), self.chain.state
        self.refuse(GroupInvalid, create.body)
        self.refuse(GroupInvalid, changed(create, position=state.length))

    def test_another_place(self) -> None:
        statement, length = ALICE.invite(self.chain.state, "carol"), self.chain.state.length
        for place in ({"position": length + 1}, {"position": length - 1}, {"prev": text(bytes(32))}):
            self.refuse(GroupInvalid, changed(statement, **place))

    def test_another_past(self) -> None:
        """Of two that were made on the same state, one is too late: also when both are allowed, and by one person."""
        state = self.chain.state
        first, late = ALICE.invite(state, "carol"), ALICE.invite(state, "dave")
        self.chain.add(ALICE, first)
        self.assertRaises(GroupInvalid, self.chain.add, ALICE, late)
        forked = extend(state, late, ALICE.ed25519)
        self.assertRaises(GroupInvalid, self.chain.add, ALICE, ALICE.retitle(forked, "x"))

    def test_what_no_statement_is(self) -> None:
        state = self.chain.state
        invite, role = ALICE.invite(state, "carol"), ALICE.role(state, "bob", "admin")
        retitle = ALICE.retitle(state, "x")
        for signed, change in (
            (invite, {"t": "invite_everybody"}),
            (invite, {"extra": 1}),
            (invite, {"history": -1}),
            (invite, {"history": 31}),
            (invite, {"history": 0.5}),
            (invite, {"who": "Carol"}),
            (invite, {"who": "#carol"}),
            (invite, {"user": "Alice"}),
            (invite, {"user": ""}),
            (invite, {"device": "0" * 31}),
            (invite, {"group": "x" * 32}),
            (invite, {"at": -1}),
            (invite, {"prev": ""}),
            (role, {"role": "king"}),
            (role, {"role": "invited"}),
            (retitle, {"title": text(bytes(31))}),
        ):
            self.refuse(GroupInvalid, changed(signed, **change))
        for field in json.loads(invite.body):
            self.refuse(GroupInvalid, changed(invite, field))

    def test_what_no_create_is(self) -> None:
        for field in json.loads(ALICE.create().body):
            self.refuse_create(field)
        for change in (
            {"nonce": text(bytes(15))},
            {"nonce": text(bytes(17))},
            {"title": ""},
            {"user": "al ice"},
            {"group": "0" * 32},
        ):
            self.refuse_create(**change)

    def test_a_second_spelling_of_the_same_statement(self) -> None:
        body = ALICE.invite(self.chain.state, "carol").body
        position = b'"position":%d' % self.chain.state.length
        for other in (
            body.replace(position, position.replace(b":", b": ")),
            body.replace(position, b'"position":9,' + position),
            body.replace(b'"carol"', b'"c\\u0061rol"'),
            body + b"\n",
            compact(dict(reversed(json.loads(body).items()))),
        ):
            self.assertNotEqual(other, body)
            self.refuse(GroupInvalid, other)

    def test_another_device(self) -> None:
        for statement, state in (
            (ALICE.create(), None),
            (ALICE.invite(self.chain.state, "carol"), self.chain.state),
        ):
            self.assertRaises(SignatureInvalid, extend, state, statement, BOB.ed25519)
            stolen = signed_by(BOB, statement.body)
            self.assertRaises(SignatureInvalid, extend, state, stolen, ALICE.ed25519)

    def test_another_context(self) -> None:
        body = ALICE.invite(self.chain.state, "carol").body
        for context in (b"", b"FastChat-v1|prekey|", b"FastChat-v1|group-session|", b"FastChat-v1|link|"):
            signed = signed_by(ALICE, body, context)
            self.assertRaises(SignatureInvalid, extend, self.chain.state, signed, ALICE.ed25519)

    def test_no_signature_and_no_key(self) -> None:
        signed = ALICE.invite(self.chain.state, "carol")
        for signature in (b"", signed.signature[:63], signed.signature + b"x"):
            bare = Signed(body=signed.body, signature=signature)
            self.assertRaises(SignatureInvalid, extend, self.chain.state, bare, ALICE.ed25519)
        for key in (b"", bytes(32), ALICE.ed25519 + b"x"):
            self.assertRaises(SignatureInvalid, extend, self.chain.state, signed, key)

    def test_not_allowed_is_said_only_of_who_did_say_it(self) -> None:
        """It is a proof against a device; so who only pretends is told apart."""
        forged = signed_by(BOB, ALICE.invite(self.chain.state, "bob").body)
        self.assertRaises(SignatureInvalid, extend, self.chain.state, forged, ALICE.ed25519)

    def test_a_signer_does_not_say_what_nobody_can_read(self) -> None:
        state = self.chain.state
        self.assertRaises(GroupInvalid, ALICE.invite, state, "Carol")
        self.assertRaises(GroupInvalid, ALICE.invite, state, "\ud800")
        self.assertRaises(GroupInvalid, ALICE.invite, state, "carol", 31)
        self.assertRaises(GroupInvalid, ALICE.create, nonce=bytes(15))


class Sessions(SynchronousTestCase):
    group = "ab" * 16

    def test_what_is_signed_stands_in_the_open(self) -> None:
        signed = ALICE.session(self.group, SESSION)
        body = {
            "t": "session",
            "group": self.group,
            "session": text(SESSION),
            "user": "alice",
            "device": ALICE.device,
            "at": AT,
        }
        self.assertEqual(signed, signed_by(ALICE, compact(body), b"FastChat-v1|group-session|"))
        statement = verify_session(signed, ALICE.ed25519)
        self.assertEqual(statement, read_session(signed))
        self.assertEqual((statement.group, statement.session, statement.user), (self.group, SESSION, "alice"))

    def test_refused(self) -> None:
        signed = ALICE.session(self.group, SESSION)
        self.assertRaises(SignatureInvalid, verify_session, signed, BOB.ed25519)
        self.assertRaises(SignatureInvalid, verify_session, signed_by(ALICE, signed.body), ALICE.ed25519)
        for change in ({"t": "join"}, {"session": text(bytes(31))}, {"user": "Al"}, {"group": ""}, {"more": 1}):
            body = changed(signed, **change)
            self.assertRaises(GroupInvalid, verify_session, signed_by(ALICE, body), ALICE.ed25519)
        self.assertRaises(GroupInvalid, verify_session, ALICE.create(), ALICE.ed25519)
        self.assertRaises(GroupInvalid, read, signed)

    def test_a_signer_does_not_say_what_nobody_can_read(self) -> None:
        self.assertRaises(GroupInvalid, ALICE.session, self.group, SESSION[:31])
        own = OwnDevice("alice", "first")
        statement = groups.SessionStatement(group=self.group, session=SESSION, user="\ud800", device=own.id, at=AT)
        self.assertRaises(GroupInvalid, sign_session, own.ed25519.sign, statement)


class AnyBytes(SynchronousTestCase):
    chain = of_every_kind()
    states = chain.states()

    def extends(self, state: GroupState | None, signed: Signed, key: bytes) -> GroupState | None:
        try:
            return extend(state, signed, key)
        except (GroupInvalid, SignatureInvalid, NotAllowed):
            return None

    @given(some.builds(Signed, body=some.binary(), signature=some.binary()))
    @settings(deadline=None)
    def test_as_statements(self, signed: Signed) -> None:
        for state in (None, self.states[0]):
            self.assertIsNone(self.extends(state, signed, ALICE.ed25519))
        self.assertRaises(GroupInvalid, read_session, signed)

    @given(some.recursive(some.none() | some.integers() | some.text(), lambda x: some.dictionaries(some.text(), x)))
    @settings(deadline=None, max_examples=15)
    def test_as_signed_json(self, statement: object) -> None:
        signed = signed_by(ALICE, json.dumps(statement).encode())
        for state in (None, self.states[0]):
            self.assertIsNone(self.extends(state, signed, ALICE.ed25519))

    @given(some.from_type(Create), some.from_type(Invite))
    @settings(deadline=None, max_examples=15)
    def test_as_structs(self, create: Create, invite: Invite) -> None:
        """Of the right shape, which says nothing of the values."""
        for statement in (create, invite):
            self.assertIsNone(self.extends(self.states[0], signed_by(ALICE, msgspec.json.encode(statement)), b""))

    def test_deep_nesting(self) -> None:
        signed = Signed(body=b'{"t":"create","x":' + b"[" * 2000, signature=b"")
        self.assertIsNone(self.extends(None, signed, ALICE.ed25519))

    def test_any_flipped_bit(self) -> None:
        """Each bit of an invitation and its signature; of the others, one bit of each byte."""
        before = [None, *self.states[:-1]]
        for state, actor, signed in zip(before, self.chain.actors, self.chain.statements, strict=True):
            for part in ("body", "signature"):
                for at in range(len(getattr(signed, part))):
                    for bit in range(8) if signed is self.chain.statements[1] else [at % 8]:
                        flipped = bytearray(getattr(signed, part))
                        flipped[at] ^= 1 << bit
                        other = msgspec.structs.replace(signed, **{part: bytes(flipped)})
                        self.assertIsNone(self.extends(state, other, actor.ed25519), f"{part} {at}: {signed.body!r}")
