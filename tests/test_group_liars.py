"""Members, and strangers, who lie to a group: others are told, go on, and do not work or grow without end."""

from __future__ import annotations

import os
from typing import Any

import msgspec
from msgspec import Raw

from fastchat.errors import MailboxFull
from fastchat.identity import groups as chains
from fastchat.identity.groups import SessionStatement
from fastchat.protocols import wire
from fastchat_client import group_bodies, group_keys, ratchet
from fastchat_client.content import (
    EarlierKey,
    EarlierMessage,
    GroupHistory,
    GroupKey,
    GroupKeyRequest,
    GroupTitle,
    Text,
    TreeHead,
    Typing,
    encode_content,
)
from fastchat_client.events import GroupAlarm, State, TypingNow
from fastchat_client.group_acting import InviteAct, JoinAct, LeaveAct, RemoveAct
from fastchat_client.group_content import write_group_plain
from fastchat_client.groups import group_info, group_of
from fastchat_client.megolm import InboundGroup, OutboundGroup
from tests.support.conversation import Person
from tests.support.group_scene import GroupSceneTest, actor_of, alarms, texts, waiting
from tests.support.groups import title_of


class LiarTest(GroupSceneTest):
    """alice, bob and mallory are in a group; dora is not."""

    def setUp(self) -> None:
        super().setUp()
        self.alice, self.bob, self.mallory, self.dora = self.people("alice", "bob", "mallory", "dora")
        self.team = self.group(self.alice, self.bob, self.mallory)
        self.gid = group_of(self.team)
        for person in (self.alice, self.bob, self.mallory):
            self.says(person, self.team, f"{person.name} is there")
        self.before = texts(self.alice, self.team)

    # --- what a liar can make ----------------------------------------------------------------------------------------

    def session(self, liar: Person, **what: Any) -> tuple[OutboundGroup, GroupKey]:
        """A session of the liar's own making, and the content that gives it away."""
        session = OutboundGroup.create()
        key = self.key_of(liar, session.session, _export(session))
        return session, _changed(key, **what)

    def key_of(self, liar: Person, session: bytes, key: bytes) -> GroupKey:
        """What says that a session is the liar's, whether or not it is."""
        state, actor = self.state(self.team, self.alice), actor_of(liar)
        statement = SessionStatement(group=self.gid, session=session, user=liar.name, device=liar.device, at=0)
        proof = chains.sign_session(actor.sign, statement)
        return GroupKey(self.gid, key, 0, proof, state.length, state.head, None)

    def body(
        self, liar: Person, session: OutboundGroup, n: int, length: int = 0, head: bytes = b"", content: Any = None
    ) -> bytes:
        state = self.state(self.team, self.alice)
        chain = (length or state.length, head or state.head)
        said = encode_content(content or Text("a lie"))
        plain = write_group_plain(liar.core._parts.me, self.gid, n, chain, TreeHead(0, bytes(32)), 0, said)
        return session.encrypt(self.gid, plain)

    def lies(self, liar: Person, n: int, length: int, head: bytes = b"") -> None:
        """A message to alice by a chain that there may not be, with its key."""
        session, key = self.session(liar)
        self.seals(liar, self.alice, key)
        self.hands_over(self.alice, liar.name, liar.device, n, self.body(liar, session, n, length, head))

    def log_requests(self, since: int = 0) -> int:
        return sum(isinstance(said, wire.GroupLogRequest) for _, said in self.network.requests[since:])

    def goes_on(self) -> None:
        """Everybody else is heard as before."""
        self.says(self.alice, self.team, "alice goes on")
        self.says(self.bob, self.team, "bob goes on")
        for person in (self.alice, self.bob):
            self.assertEqual(texts(person, self.team)[-2:], ["alice: alice goes on", "bob: bob goes on"])


class Claims(LiarTest):
    def test_a_chain_that_is_longer_than_can_be(self) -> None:
        """It is looked into, not for ever; until the liar has gone nothing is written to whom may have been removed."""
        before = len(self.network.requests)
        self.lies(self.mallory, 900, 2**50)
        self.assertEqual(alarms(self.alice), ["group-withheld"])
        [alarm] = self.alice.told(GroupAlarm)
        self.assertFalse(alarm.proof)
        self.assertIn("mallory", alarm.reason)
        self.assertLess(self.log_requests(before), 4)
        message = self.alice.says(self.team, "hello")
        self.scene.pass_time(120)
        self.assertLess(self.log_requests(before), 10)
        self.assertNotIn(State.ACCEPTED, self.alice.states(message))
        self.acts(self.alice, self.team, RemoveAct("mallory"))
        self.assertIn(State.ACCEPTED, self.alice.states(message))
        self.goes_on()

    def test_rising_ones(self) -> None:
        before = len(self.network.requests)
        for n in range(5):
            self.lies(self.mallory, 900 + n, 100 + n)
        self.assertLess(self.log_requests(before), 15)

    def test_another_head(self) -> None:
        self.lies(self.mallory, 900, self.state(self.team, self.alice).length, bytes(32))
        self.assertEqual(alarms(self.alice), ["group-forked"])
        message = self.alice.says(self.team, "hello")
        self.scene.settle()
        self.assertNotIn(State.ACCEPTED, self.alice.states(message))
        self.acts(self.alice, self.team, RemoveAct("mallory"))
        self.assertIn(State.ACCEPTED, self.alice.states(message))

    def test_a_stranger_has_no_say(self) -> None:
        """Neither with a key, nor with a message, whatever they claim."""
        before, state = len(self.network.requests), self.state(self.team, self.alice)
        for length, head in ((state.length, bytes(32)), (2**50, bytes(32)), (1, bytes(32))):
            self.seals(self.dora, self.alice, self.session(self.dora, length=length, head=head)[1])
        self.assertEqual((alarms(self.alice), self.log_requests(before)), ([], 0))
        self.lies(self.dora, 900, 2**50)
        self.lies(self.dora, 901, state.length)
        self.lies(self.dora, 902, 1, bytes(32))
        self.assertEqual(alarms(self.alice), ["group-outsider"])
        self.assertLess(self.log_requests(before), 3)
        self.assertEqual(texts(self.alice, self.team), self.before)
        self.goes_on()

    def test_nor_without_a_key(self) -> None:
        session, _ = self.session(self.dora)
        self.hands_over(self.alice, "dora", self.dora.device, 900, self.body(self.dora, session, 900))
        self.assertEqual((alarms(self.alice), waiting(self.alice)), (["group-outsider"], 0))
        self.assertEqual(texts(self.alice, self.team), self.before)

    def test_keys_of_groups_that_there_are_not(self) -> None:
        before = len(self.network.requests)
        for _ in range(20):
            self.gid = os.urandom(16).hex()
            session = OutboundGroup.create()
            statement = SessionStatement(
                group=self.gid, session=session.session, user="dora", device=self.dora.device, at=0
            )
            proof = chains.sign_session(actor_of(self.dora).sign, statement)
            self.seals(self.dora, self.alice, GroupKey(self.gid, _export(session), 0, proof, 9, bytes(32), None))
        self.assertEqual((alarms(self.alice), self.log_requests(before)), ([], 0))

    def test_another_name_for_the_group(self) -> None:
        self.seals(self.mallory, self.alice, GroupTitle(self.gid, title_of("mallory's")))
        info = group_info(self.alice.vault, self.team)
        assert info is not None
        self.assertEqual(info.name, "team")


class Sessions(LiarTest):
    def test_anothers_session_is_not_made_ones_own(self) -> None:
        """Mallory has alice's next key, and signs that it is hers, before bob has it from alice."""
        self.bob.disconnects()
        self.scene.clock.advance(90_000)
        self.says(self.alice, self.team, "a new key")
        row = self.mallory.vault.execute(
            "SELECT session FROM group_sessions WHERE user = 'alice' ORDER BY at DESC"
        ).fetchone()
        alices = self.mallory.core._parts.group_keys.inbound(self.gid, row[0], self.alice.device)
        assert alices is not None
        stolen = self.key_of(self.mallory, row[0], alices.session.export_at(0))
        own = self.network.devices[self.bob.device].mailbox
        mail = list(own)
        own.clear()
        self.bob.connects()
        self.scene.settle()
        self.seals(self.mallory, self.bob, stolen)
        own += mail
        assert self.bob.line is not None
        self.bob.line.deliver()
        self.scene.settle()
        self.assertEqual(texts(self.bob, self.team)[-1], "alice: a new key")
        body = next(body for body in self.ciphertexts() if body[17:49] == row[0])
        self.hands_over(self.bob, "mallory", self.mallory.device, 900, body)
        self.assertNotIn("mallory: a new key", texts(self.bob, self.team))

    def test_a_signature_of_another(self) -> None:
        """Alice's word for her own session, in mallory's mouth."""
        session, key = self.session(self.alice)
        self.seals(self.mallory, self.bob, key)
        rows = self.bob.vault.execute("SELECT 1 FROM group_sessions WHERE session = ?", (session.session,)).fetchall()
        self.assertEqual(rows, [])

    def test_one_session_is_not_said_to_be_another(self) -> None:
        one, _ = self.session(self.mallory)
        _, key = self.session(self.mallory)
        key = msgspec.structs.replace(key, key=_export(one))
        self.seals(self.mallory, self.bob, key)
        rows = self.bob.vault.execute("SELECT 1 FROM group_sessions WHERE session = ?", (one.session,)).fetchall()
        self.assertEqual(rows, [])

    def test_sessions_without_number(self) -> None:
        self.patch(group_keys, "MOST_OF_DEVICE", 5)
        for _ in range(12):
            self.seals(self.mallory, self.alice, self.session(self.mallory)[1])
            self.scene.clock.advance(1)
        count = self.alice.vault.execute(
            "SELECT COUNT(*) FROM group_sessions WHERE device = ?", (self.mallory.device,)
        ).fetchone()
        self.assertEqual(count, (5,))
        self.goes_on()

    def test_messages_without_keys(self) -> None:
        """So many wait, and no more; and they are not all asked for."""
        self.patch(group_bodies, "MOST_WAITING_OF_ONE", 20)
        sent = len(self.alice.said)
        for n in range(30):
            session, _ = self.session(self.mallory)
            self.network.post_from(
                *(self.alice.device, "mallory", self.mallory.device, 900 + n, 0),
                bytes(ratchet.body_to_wire(self.body(self.mallory, session, 900 + n))),
            )
        self.scene.settle()
        self.assertEqual(waiting(self.alice), 20)
        self.assertEqual(texts(self.alice, self.team)[len(self.before) :], ["mallory: ?"] * 30)
        self.scene.pass_time(60)
        self.assertLess(sum(isinstance(said, wire.Send) for said in self.alice.said[sent:]), 150)
        self.goes_on()

    def test_asking_without_end(self) -> None:
        _, session = self._of_alice()
        before = self.keys_sent_to(self.mallory.device)
        for _ in range(20):
            self.seals(self.mallory, self.alice, GroupKeyRequest(self.gid, session))
        self.assertEqual(self.keys_sent_to(self.mallory.device) - before, 5)

    def test_asking_for_what_is_not_theirs(self) -> None:
        """A stranger, somebody who was removed, and somebody who asks for another group's session, or another's."""
        index, session = self._of_alice()
        self.acts(self.alice, self.team, RemoveAct("mallory"))
        other = self.group(self.alice, self.dora)
        [bobs] = self.alice.vault.execute("SELECT session FROM group_sessions WHERE user = 'bob'").fetchall()
        before = self.keys_sent_to(self.dora.device), self.keys_sent_to(self.mallory.device)
        self.seals(self.dora, self.alice, GroupKeyRequest(self.gid, session))
        self.seals(self.dora, self.alice, GroupKeyRequest(group_of(other), session))
        self.seals(self.dora, self.alice, GroupKeyRequest(self.gid, bobs[0]))
        self.seals(self.mallory, self.alice, GroupKeyRequest(self.gid, session))
        self.assertEqual((self.keys_sent_to(self.dora.device), self.keys_sent_to(self.mallory.device)), before)
        self.assertGreater(index, 0)

    def test_who_joined_later_gets_it_from_there(self) -> None:
        """Whatever they ask for, and for whatever of their devices."""
        self.brings(self.team, self.alice, self.dora)
        phone = self.scene.further_device(self.dora)
        _, session = self._of_alice()
        for person in (self.dora, phone):
            self.seals(person, self.alice, GroupKeyRequest(self.gid, session))
            self.assertEqual(self.readable_by(person), [], person.device)
        self.says(self.alice, self.team, "now")
        for person in (self.dora, phone):
            self.seals(person, self.alice, GroupKeyRequest(self.gid, session))
            self.assertEqual(texts(person, self.team), ["alice: now"])
            self.assertEqual(len(self.readable_by(person)), 1)

    def _of_alice(self) -> tuple[int, bytes]:
        outbound = self.alice.core._parts.group_keys.outbound(self.gid)
        assert outbound is not None
        return outbound.session.index, outbound.session.session


class Shares(LiarTest):
    def test_a_key_that_was_refused_may_have_come(self) -> None:
        """The server says that mallory's device has no room for it, and hands it over; then mallory is removed."""
        team = self.group(self.alice, self.bob)
        self.says(self.alice, team, "for two")
        self.acts(self.alice, team, InviteAct("mallory", 0))
        self.acts(self.mallory, team, JoinAct())

        def refuse(device: str, send: wire.Send) -> Any:
            named = [recipient for recipient in send.to if recipient.device == self.mallory.device]
            for recipient in named:
                self.network.post_from(
                    self.mallory.device, "alice", self.alice.device, send.n, 0, bytes(recipient.body)
                )
            refusal = MailboxFull()
            refusal.devices = (self.mallory.device,)
            return refusal if named else None

        self.network.refuse = refuse
        self.says(self.alice, team, "for three")
        self.network.refuse = lambda device, send: None
        self.assertEqual(texts(self.mallory, team), ["alice: for three"])
        self.acts(self.alice, team, RemoveAct("mallory"))
        readable = len(self.readable_by(self.mallory))
        self.says(self.alice, team, "for two again")
        self.assertEqual(texts(self.bob, team)[-1], "alice: for two again")
        self.assertEqual(len(self.readable_by(self.mallory)), readable)

    def test_whispers_of_somebody_who_was_removed(self) -> None:
        outbound = self.mallory.core._parts.group_keys.outbound(self.gid)
        assert outbound is not None
        self.acts(self.alice, self.team, RemoveAct("mallory"))

        body = self.body(self.mallory, outbound.session, 0, 2, content=Typing())
        self.pushes(self.alice, wire.Whispered("mallory", self.mallory.device, Raw(bytes(ratchet.body_to_wire(body)))))
        self.assertEqual(self.alice.told(TypingNow), [])

    def test_what_was_said_before_a_removal_is_shown(self) -> None:
        """The statement overtakes the message."""
        self.network.withhold.add(self.alice.device)
        self.says(self.mallory, self.team, "my last words")
        self.acts(self.alice, self.team, RemoveAct("mallory"))
        self.network.withhold.clear()
        assert self.alice.line is not None
        self.alice.line.deliver()
        self.scene.settle()
        self.assertEqual(texts(self.alice, self.team)[-1], "mallory: my last words")
        self.assertEqual(alarms(self.alice), [])


class Histories(LiarTest):
    def setUp(self) -> None:
        super().setUp()
        self.acts(self.alice, self.team, InviteAct("dora", 7))

    def _history(self, *messages: EarlierMessage, keys: tuple[EarlierKey, ...] = ()) -> GroupHistory:
        return GroupHistory(self.gid, keys, messages)

    def _true(self) -> tuple[EarlierKey, EarlierMessage]:
        """What bob said, as mallory can hand it on."""
        row = self.mallory.vault.execute(
            "SELECT session, n, body FROM group_bodies WHERE user = 'bob' AND waits = ''"
        ).fetchone()
        inbound = self.mallory.core._parts.group_keys.inbound(self.gid, row[0], self.bob.device)
        assert inbound is not None
        key = EarlierKey(inbound.session.export_at(inbound.session.first_index), inbound.proof)
        return key, EarlierMessage("bob", self.bob.device, row[1], row[2])

    def test_of_who_has_not_invited(self) -> None:
        key, message = self._true()
        self.seals(self.mallory, self.dora, self._history(message, keys=(key,)))
        self.assertEqual(alarms(self.dora), ["group-outsider"])
        self.acts(self.dora, self.team, LeaveAct())
        self.assertEqual((texts(self.dora, self.team), self.readable_by(self.dora)), ([], []))

    def test_messages_that_nobody_wrote_keep_nothing_from_coming(self) -> None:
        """Of bob's next hundred numbers, in this group and to dora alone."""
        forged = [self._forged(n) for n in range(1, 101)]
        self.seals(self.alice, self.dora, self._history(*forged))
        self.acts(self.dora, self.team, JoinAct())
        self.says(self.bob, self.team, "true")
        self.says(self.bob, "dora", "in private")
        self.assertEqual(texts(self.dora, self.team)[-1], "bob: true")
        self.assertEqual(self.dora.reads("bob"), ["in private"])
        self.assertNotIn("bob: a lie", texts(self.dora, self.team))

    def _forged(self, n: int) -> EarlierMessage:
        return EarlierMessage("bob", self.bob.device, n, self.body(self.bob, OutboundGroup.create(), n))

    def test_a_made_up_ratchet_under_a_true_name(self) -> None:
        """Alice knows bob's session and his signature for it; what she writes with it is not signed by the session."""
        key, message = self._true()
        own = OutboundGroup.create()
        made_up = bytearray(_export(own))
        made_up[-32:] = message.body[17:49]
        body = self.body(self.bob, own, 700)
        forged = body[:17] + message.body[17:49] + body[49:]
        history = self._history(
            EarlierMessage("bob", self.bob.device, 700, forged), keys=(EarlierKey(bytes(made_up), key.proof),)
        )
        self.seals(self.alice, self.dora, history)
        self.acts(self.dora, self.team, JoinAct())
        rows = self.dora.vault.execute("SELECT 1 FROM group_sessions WHERE earlier").fetchall()
        self.assertGreater(len(rows), 0)
        self.assertNotIn("bob: a lie", texts(self.dora, self.team))

    def test_ones_own_session_as_anothers(self) -> None:
        """Alice's session, with alice's word that it is bob's."""
        own = OutboundGroup.create()
        actor = actor_of(self.alice)
        statement = SessionStatement(group=self.gid, session=own.session, user="bob", device=self.bob.device, at=0)
        key = EarlierKey(_export(own), chains.sign_session(actor.sign, statement))
        message = EarlierMessage("bob", self.bob.device, 700, self.body(self.bob, own, 700))
        self.seals(self.alice, self.dora, self._history(message, keys=(key,)))
        self.acts(self.dora, self.team, JoinAct())
        self.assertNotIn("bob: a lie", texts(self.dora, self.team))

    def test_more_than_anybody_needs(self) -> None:
        self.patch(group_bodies, "MOST_WAITING", 50)
        self.seals(self.alice, self.dora, self._history(*(self._forged(n) for n in range(1, 101))))
        count = self.dora.vault.execute("SELECT COUNT(*) FROM group_bodies WHERE waits != ''").fetchone()[0]
        self.assertEqual(count, 50)

    def test_what_comes_before_the_chain_waits_for_it(self) -> None:
        """Frank's other device is switched on when all has happened already."""
        frank = self.scene.person("frank")
        phone = self.scene.further_device(frank)
        self.scene.pass_time(310)
        phone.disconnects()
        self.brings(self.team, self.alice, frank, history=7)
        phone.connects()
        self.scene.settle()
        self.scene.pass_time(3)
        self.assertEqual(alarms(phone), [])
        self.assertEqual(sorted(texts(phone, self.team)), sorted(self.before))

    def test_the_last_invitation_counts(self) -> None:
        """At first without a history, and then with one."""
        self.acts(self.alice, self.team, RemoveAct("dora"))
        self.acts(self.alice, self.team, InviteAct("dora", 0))
        self.acts(self.dora, self.team, JoinAct())
        self.assertEqual(texts(self.dora, self.team), [])
        self.acts(self.dora, self.team, LeaveAct())
        self.brings(self.team, self.alice, self.dora, history=7)
        self.scene.pass_time(3)
        self.assertEqual(alarms(self.dora), [])
        self.assertEqual(sorted(texts(self.dora, self.team)), sorted(self.before))


class Strangers(LiarTest):
    def test_a_body_of_a_group_that_is_sent_to_one(self) -> None:
        """Anybody can do that: it accuses no server."""
        session, _ = self.session(self.mallory)
        self.acts(self.alice, self.team, RemoveAct("bob"))
        body = self.body(self.mallory, session, 900)
        self.hands_over(self.bob, "mallory", self.mallory.device, 900, body)
        self.scene.pass_time(5000, step=25)
        [alarm] = self.bob.told(GroupAlarm)
        self.assertEqual((alarm.code, alarm.proof), ("group-outsider", False))
        info = group_info(self.bob.vault, self.team)
        assert info is not None
        self.assertEqual(info.alarm, "")


def _export(session: OutboundGroup) -> bytes:

    return InboundGroup.from_key(session.key()).export_at(session.index)


def _changed(key: GroupKey, **what: Any) -> GroupKey:

    return msgspec.structs.replace(key, **what)
