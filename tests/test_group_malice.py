"""A server that means ill: the groups' clients show a named alarm, and nothing else has changed."""

from __future__ import annotations

from typing import Any

from msgspec import Raw

from fastchat.errors import UnknownGroup
from fastchat.identity.links import replay, sign_revoke_device
from fastchat.protocols import wire
from fastchat.protocols.wire import ServerMessage, Signed
from fastchat_client import ratchet
from fastchat_client.content import Text, TreeHead, encode_content
from fastchat_client.events import GroupAlarm, GroupChanged, Notice, State
from fastchat_client.group_acting import InviteAct, LeaveAct, RemoveAct, RenameAct, RoleAct
from fastchat_client.group_content import write_group_plain
from fastchat_client.groups import group_info, group_of
from tests.support.conversation import Person
from tests.support.group_scene import GroupSceneTest, actor_of, alarms, texts, waiting
from tests.support.groups import Actor


class ServerTest(GroupSceneTest):
    """alice, bob and carol are in a group; mallory is an account that the server holds."""

    def setUp(self) -> None:
        super().setUp()
        self.alice, self.bob, self.carol, self.mallory = self.people("alice", "bob", "carol", "mallory")
        self.everybody = [self.alice, self.bob, self.carol]
        self.team = self.group(*self.everybody)
        self.gid = group_of(self.team)
        self.says(self.alice, self.team, "before")

    def shows(self, person: Person, chain: list[Signed]) -> None:
        """From now on this is what the server shows a person of the group."""
        device, show = person.device, self.network.groups.show
        self.network.groups.show = lambda to, group, true: chain if to == device else show(to, group, true)

    def goes_away_and_comes_back(self, person: Person) -> None:
        person.disconnects()
        person.connects()
        self.scene.settle()

    def is_as_before(self, *people: Person) -> None:
        """Nobody was told of a change, and the group is as its members have made it."""
        for person in people or self.everybody:
            self.assertEqual(list(self.state(self.team, person).members), ["alice", "bob", "carol"], person.name)
            self.assertEqual(self.state(self.team, person).invited, {}, person.name)
            kinds = {event.kind for event in person.told(GroupChanged)}
            self.assertLessEqual(kinds, {"created", "invited", "joined"}, person.name)

    def still_talk(self, *people: Person) -> None:
        """What each of these says comes to all the others."""
        for person in people or self.everybody:
            self.says(person, self.team, f"{person.name} is there")
        for person in people or self.everybody:
            for other in people or self.everybody:
                self.assertIn(f"{other.name}: {other.name} is there", texts(person, self.team), person.name)

    def gets_nothing(self, ghost: Person, sent_before: int = 0) -> None:
        """No key was sent there, and of all ciphertexts none can be read."""
        self.assertEqual(self.readable_by(ghost), [])
        self.assertEqual(self.keys_sent_to(ghost.device, sent_before), 0)


class Ghost(ServerTest):
    """A server adds somebody whom no member has invited."""

    def _is_refused(self, *statements: Signed, ghost: Person | None = None) -> None:
        """Whether it is pushed, or stands in the log at the next login."""
        self.network.groups.takes_any = True
        self.network.groups.outsiders[self.gid] = {(ghost or self.mallory).device}
        for signed in statements[:1]:
            self.news(self.alice, self.team, signed)
        self.assertEqual(alarms(self.alice), ["group-forged"])
        self.assertTrue(self.alice.told(GroupAlarm)[0].proof)
        self.is_as_before()
        self.still_talk()
        self.shows(self.bob, [*self.chain(self.team), *statements])
        self.goes_away_and_comes_back(self.bob)
        self.assertEqual(alarms(self.bob), ["group-forged"])
        self.is_as_before()
        self.says(self.alice, self.team, "nobody else hears it")
        self.assertEqual(texts(self.bob, self.team)[-1], "alice: nobody else hears it")
        self.gets_nothing(ghost or self.mallory)
        info = group_info(self.bob.vault, self.team)
        assert info is not None
        self.assertEqual(info.alarm, "group-forged")

    def test_signed_by_nobody(self) -> None:
        signed = actor_of(self.alice).invite(self.state(self.team, self.alice), "mallory")
        self._is_refused(Signed(signed.body, bytes(64)))

    def test_in_the_name_of_an_admin(self) -> None:
        state, mallory = self.state(self.team, self.alice), actor_of(self.mallory)
        self._is_refused(Actor.holding(actor_of(self.alice).identity, mallory.sign).invite(state, "mallory"))

    def test_by_an_account_of_the_server(self) -> None:
        self._is_refused(actor_of(self.mallory).invite(self.state(self.team, self.alice), "mallory"))

    def test_by_a_device_that_there_is_not(self) -> None:
        """It is asked for, as it may be new; after that it is a lie."""
        ghost = Actor("alice")
        self.news(self.bob, self.team, ghost.invite(self.state(self.team, self.alice), "mallory"))
        self.assertEqual(alarms(self.bob), [])
        self.scene.pass_time(120)
        self.assertEqual(alarms(self.bob), ["group-forged"])
        self.is_as_before()
        self.still_talk()
        self.gets_nothing(self.mallory)

    def test_by_a_member_who_may_not(self) -> None:
        self._is_refused(actor_of(self.bob).invite(self.state(self.team, self.alice), "mallory"))

    def test_who_joins_without_an_invitation(self) -> None:
        self._is_refused(actor_of(self.mallory).join(self.state(self.team, self.alice)))

    def test_from_another_group(self) -> None:
        other = self.group(self.alice)
        self.acts(self.alice, other, InviteAct("mallory", 0))
        before = self.keys_sent_to(self.mallory.device)
        self.network.groups.takes_any = True
        self.shows(self.bob, [*self.chain(self.team), self.chain(other)[1]])
        self.goes_away_and_comes_back(self.bob)
        self.assertEqual(alarms(self.bob), ["group-forged"])
        self.is_as_before()
        self.still_talk(self.alice, self.carol)
        self.assertEqual((self.readable_by(self.mallory), self.keys_sent_to(self.mallory.device)), ([], before))

    def test_another_group_in_the_place_of_this_one(self) -> None:
        """A group's id is that of its first statement."""
        other = self.group(self.mallory, self.bob)
        before = self.keys_sent_to(self.mallory.device)
        phone = self.scene.further_device(self.carol, connect=False)
        self.network.groups.show = lambda device, group, true: self.chain(other) if group == self.gid else true
        phone.connects()
        self.scene.settle()
        self.assertEqual(alarms(phone), ["group-forged"])
        self.assertIsNone(group_info(phone.vault, self.team))
        self.assertRaises(UnknownGroup, phone.says, self.team, "is anybody there?")
        self.assertEqual(self.keys_sent_to(self.mallory.device), before)


class Revoked(ServerTest):
    """An admin's device is stolen and revoked; its thief helps the server."""

    def setUp(self) -> None:
        super().setUp()
        self.stolen = self.scene.further_device(self.alice)
        self.thief = actor_of(self.stolen)
        self.says(self.stolen, self.team, "from the second device")
        self.state_then = self.state(self.team, self.alice)
        self.stolen.disconnects()
        links = self.network.accounts["alice"].links
        links.append(sign_revoke_device(self.alice.root, links, "alice", self.stolen.device, 0))
        self.assertIn(self.stolen.device, replay("alice", links).revoked)
        self.network.log_links("alice", links[-1:], len(links) - 1)

    def _all_know(self) -> None:
        self.scene.pass_time(310)

    def test_what_it_signs_later_is_forged(self) -> None:
        self._all_know()
        self.news(self.bob, self.team, self.thief.invite(self.state_then, "mallory"))
        self.assertEqual(alarms(self.bob), ["group-forged"])
        self.is_as_before()
        self.still_talk()
        self.gets_nothing(self.mallory)

    def test_also_after_another_login(self) -> None:
        self._all_know()
        self.shows(self.bob, [*self.chain(self.team), self.thief.invite(self.state_then, "mallory")])
        self.goes_away_and_comes_back(self.bob)
        self.assertEqual(alarms(self.bob), ["group-forged"])
        self.is_as_before()
        self.gets_nothing(self.mallory)

    def test_what_it_had_signed_before_is_good(self) -> None:
        """Bob was away when it did, and hears of the revocation first."""
        self.bob.disconnects()
        renamed = self.thief.retitle(self.state_then, "crew")
        self.network.groups.chains[self.gid].append(renamed)
        self._all_know()
        self.bob.connects()
        self.scene.settle()
        self.scene.pass_time(2)
        self.assertEqual((alarms(self.alice), alarms(self.bob)), ([], []))
        self.assertEqual(self.state(self.team, self.bob).length, self.state_then.length + 1)
        self.still_talk()

    def test_what_it_says_is_read_for_a_week_and_not_longer(self) -> None:
        """With a notice: it may be what it had written before."""
        self._all_know()
        outbound = self.stolen.core._parts.group_keys.outbound(self.gid)
        assert outbound is not None
        chain = (self.state_then.length, self.state_then.head)
        for n, expected in ((900, "alice: late"), (901, "alice: ?")):
            said = encode_content(Text("late"))
            plain = write_group_plain(self.stolen.core._parts.me, self.gid, n, chain, TreeHead(0, bytes(32)), 0, said)
            body = outbound.session.encrypt(self.gid, plain)
            self.hands_over(self.bob, "alice", self.stolen.device, n, body)
            self.assertEqual(texts(self.bob, self.team)[-1], expected)
            self.assertEqual([notice.code for notice in self.bob.told(Notice)], ["device-revoked"])
            self.scene.clock.advance(7 * 86_400 + 60)
            self.goes_away_and_comes_back(self.bob)

    def test_it_gets_no_key_more(self) -> None:
        self._all_know()
        count = len(self.readable_by(self.stolen))
        self.still_talk()
        self.assertEqual(len(self.readable_by(self.stolen)), count)


class Withheld(ServerTest):
    """A server drops a removal."""

    def setUp(self) -> None:
        super().setUp()
        self.network.groups.takes_any = True
        self.network.groups.tells_news = False
        self.network.groups.outsiders[self.gid] = {self.carol.device}
        old = list(self.chain(self.team))
        self.shows(self.bob, old)
        self.acts(self.alice, self.team, RemoveAct("carol"))

    def test_the_next_key_gives_it_away(self) -> None:
        readable = len(self.readable_by(self.carol))
        self.says(self.alice, self.team, "carol is out")
        self.assertEqual(alarms(self.bob), ["group-withheld"])
        self.assertFalse(self.bob.told(GroupAlarm)[0].proof)
        self.assertEqual(waiting(self.bob), 1)
        message = self.bob.says(self.team, "to whom do I speak?")
        self.scene.settle()
        self.scene.pass_time(90)
        self.assertEqual(len(self.readable_by(self.carol)), readable)
        self.assertNotIn(State.ACCEPTED, self.bob.states(message))
        self.assertEqual(texts(self.bob, self.team)[1:], ["alice: ?", "bob: to whom do I speak?"])

    def test_all_is_well_once_it_is_shown(self) -> None:
        self.says(self.alice, self.team, "carol is out")
        self.says(self.bob, self.team, "good")
        readable = len(self.readable_by(self.carol))
        self.network.groups.show = lambda device, group, true: true
        self.scene.pass_time(60)
        self.assertEqual(texts(self.bob, self.team)[1:], ["alice: carol is out", "bob: good"])
        self.assertEqual(texts(self.alice, self.team)[1:], ["alice: carol is out", "bob: good"])
        self.assertEqual(len(self.readable_by(self.carol)), readable)

    def test_nothing_is_asked_without_end(self) -> None:
        self.says(self.alice, self.team, "one", "two", "three")
        before = len(self.network.requests)
        self.scene.pass_time(300)
        asked = [said for device, said in self.network.requests[before:] if isinstance(said, wire.GroupLogRequest)]
        self.assertLessEqual(len(asked), 11)


class Replayed(ServerTest):
    def test_an_old_statement_in_the_place_of_a_new_one(self) -> None:
        """Carol was removed, and is to be in it again."""
        self.acts(self.alice, self.team, RemoveAct("carol"))
        chain = self.chain(self.team)
        for old in (chain[3], chain[4]):
            self.shows(self.bob, [*chain, old])
            self.bob.events.clear()
            self.goes_away_and_comes_back(self.bob)
            self.assertEqual(alarms(self.bob), ["group-replayed"] if old is chain[3] else [])
        self.assertNotIn("carol", self.state(self.team, self.bob).members)
        readable = len(self.readable_by(self.carol))
        self.network.groups.outsiders[self.gid] = {self.carol.device}
        self.says(self.bob, self.team, "without carol")
        self.says(self.alice, self.team, "indeed")
        self.assertEqual(texts(self.bob, self.team)[-2:], ["bob: without carol", "alice: indeed"])
        self.assertEqual(len(self.readable_by(self.carol)), readable)

    def test_it_is_only_a_hint_if_it_is_pushed(self) -> None:
        """The network may say a thing twice."""
        for position, signed in enumerate(self.chain(self.team)):
            self.pushes(self.bob, wire.GroupNews(self.gid, position, signed))
        self.assertEqual(alarms(self.bob), [])
        self.is_as_before()
        self.pushes(self.bob, wire.GroupNews(self.gid, len(self.chain(self.team)), self.chain(self.team)[1]))
        self.assertEqual(alarms(self.bob), ["group-replayed"])
        self.is_as_before()
        self.still_talk()


class Forked(ServerTest):
    """Two members are shown different chains, both of them signed by those who may."""

    def setUp(self) -> None:
        super().setUp()
        self.acts(self.alice, self.team, RoleAct("bob", "admin"))
        self.network.groups.tells_news = False
        self.network.groups.takes_any = True
        true = list(self.chain(self.team))
        removed = actor_of(self.alice).remove(self.state(self.team, self.alice), "carol")
        renamed = actor_of(self.bob).retitle(self.state(self.team, self.alice), "crew")
        self.network.groups.show = lambda device, group, chain: [
            *true,
            removed if device == self.alice.device else renamed,
        ]
        for person in self.everybody:
            self.goes_away_and_comes_back(person)

    def test_they_find_out_from_each_other(self) -> None:
        self.assertEqual([alarms(person) for person in self.everybody], [[], [], []])
        self.says(self.alice, self.team, "who is with me?")
        self.assertEqual(alarms(self.bob), ["group-forked"])
        [alarm] = self.bob.told(GroupAlarm)
        self.assertIn(self.alice.device, alarm.evidence)
        self.assertFalse(alarm.proof)
        self.assertEqual(texts(self.bob, self.team)[-1], "alice: who is with me?")
        self.assertEqual(list(self.state(self.team, self.bob).members), ["alice", "bob", "carol"])
        self.assertEqual(list(self.state(self.team, self.alice).members), ["alice", "bob"])

    def test_nothing_is_written_to_whom_another_one_may_have_removed(self) -> None:
        self.says(self.alice, self.team, "who is with me?")
        readable = len(self.readable_by(self.carol))
        message = self.bob.says(self.team, "not carol, I hope")
        self.scene.settle()
        self.scene.pass_time(60)
        self.assertNotIn(State.ACCEPTED, self.bob.states(message))
        self.assertEqual(len(self.readable_by(self.carol)), readable)


class Outsider(ServerTest):
    def test_who_is_handed_what_is_not_for_them(self) -> None:
        """Mallory knows nothing of the group, and carol was in it once."""
        self.acts(self.carol, self.team, LeaveAct())
        readable = len(self.readable_by(self.carol))
        sent = len(self.network.sends)
        self.network.groups.outsiders[self.gid] = {self.mallory.device, self.carol.device}
        self.says(self.alice, self.team, "one", "two")
        self.says(self.bob, self.team, "three")
        # What carol was sent while she was in it may come late: it is waited for.
        self.assertEqual((alarms(self.mallory), alarms(self.carol)), (["group-outsider"], []))
        self.scene.pass_time(5000, step=25)
        for person in (self.mallory, self.carol):
            self.assertEqual(alarms(person), ["group-outsider"], person.name)
        self.gets_nothing(self.mallory, sent)
        self.assertEqual(self.keys_sent_to(self.carol.device, sent), 0)
        self.assertEqual(len(self.readable_by(self.carol)), readable)
        self.assertEqual(texts(self.mallory, self.team), [])
        self.assertEqual(texts(self.carol, self.team), ["alice: before"])
        self.assertEqual(texts(self.bob, self.team)[1:], ["alice: one", "alice: two", "bob: three"])
        self.assertEqual([alarms(person) for person in (self.alice, self.bob)], [[], []])

    def test_who_is_invited_and_has_not_joined(self) -> None:
        self.acts(self.alice, self.team, InviteAct("mallory", 7))
        self.network.groups.outsiders[self.gid] = {self.mallory.device}
        self.says(self.alice, self.team, "not yet")
        self.assertEqual(alarms(self.mallory), ["group-outsider"])
        self.assertEqual(self.readable_by(self.mallory), [])
        self.assertEqual(texts(self.mallory, self.team), [])


class Denied(ServerTest):
    def test_group_changed_for_ever(self) -> None:
        self.network.groups.takes_any = False
        chains = self.network.groups.chains
        true = chains[self.gid]
        self.shows(self.alice, true)
        chains[self.gid] = [*true, true[-1]]  # longer than anything that it shows
        message = self.alice.says(self.team, "hello?")
        self.scene.settle()
        before = len(self.network.requests)
        self.scene.pass_time(300)
        self.assertEqual(alarms(self.alice), ["group-withheld"])
        said = [said for _, said in self.network.requests[before:]]
        asked = [one for one in said if isinstance(one, wire.GroupSend | wire.GroupLogRequest)]
        self.assertLess(len(asked), 40)
        self.assertNotIn(State.ACCEPTED, self.alice.states(message))
        chains[self.gid] = true
        self.scene.pass_time(60)
        self.assertEqual(texts(self.bob, self.team)[-1], "alice: hello?")
        self.is_as_before()

    def test_a_log_from_another_place_than_was_asked_for(self) -> None:
        def mangle(device: str, message: ServerMessage) -> list[ServerMessage]:
            if isinstance(message, wire.GroupLogAnswer) and device == self.bob.device:
                return [wire.GroupLogAnswer(message.re, message.group, message.start + 1, 99, message.statements)]
            return [message]

        self.network.groups.tells_news = False
        self.network.mangle = mangle
        self.acts(self.alice, self.team, RenameAct("crew"))
        self.says(self.alice, self.team, "hello")
        self.scene.pass_time(60)
        self.assertGreater(waiting(self.bob), 0)
        self.network.mangle = lambda device, message: [message]
        self.scene.pass_time(60)
        self.assertEqual(texts(self.bob, self.team)[-1], "alice: hello")
        self.assertEqual(alarms(self.bob), [])

    def test_no_keys_of_anybody(self) -> None:
        """A message that nobody can read does not pass for one that was sent."""

        def mangle(device: str, message: ServerMessage) -> list[ServerMessage]:
            if isinstance(message, wire.KeysAnswer):
                accounts = tuple(wire.AccountKeys(one.user, one.links, ()) for one in message.accounts)
                return [wire.KeysAnswer(message.re, accounts)]
            return [message]

        dora = self.scene.person("dora")
        team = self.group(dora)
        self.network.mangle = mangle
        self.brings(team, dora, self.mallory)
        message = dora.says(team, "hello")
        self.scene.settle()
        self.scene.pass_time(90)
        self.assertNotIn(State.ACCEPTED, dora.states(message))
        self.network.mangle = lambda device, message: [message]
        self.scene.pass_time(90)
        self.assertEqual(texts(self.mallory, team), ["dora: hello"])


class Handing(ServerTest):
    """A server hands messages over otherwise than they were sent."""

    def setUp(self) -> None:
        super().setUp()
        self.network.withhold.add(self.carol.device)
        self.says(self.alice, self.team, "one", "two")
        self.says(self.bob, self.team, "three")
        self.mail = self.network.devices[self.carol.device].mailbox
        self._session = self._body([mail for mail in self.mail if self._body(mail)[0] == 2][-1])[17:49]
        self.before = texts(self.carol, self.team)

    def _delivers(self) -> None:
        self.network.withhold.clear()
        assert self.carol.line is not None
        self.carol.line.deliver()
        self.scene.settle()

    def _last(self) -> Any:
        """Bob's message."""
        return next(mail for mail in self.mail if self._body(mail)[17:49] == self._session)

    def _body(self, mail: Any) -> bytes:
        return ratchet.body_from_wire(Raw(mail.body))

    def test_in_another_order(self) -> None:
        self.mail.reverse()
        self._delivers()
        self.scene.pass_time(10)
        self.assertEqual(sorted(texts(self.carol, self.team)[1:]), ["alice: one", "alice: two", "bob: three"])
        self.assertEqual(alarms(self.carol), [])

    def test_twice(self) -> None:
        self.mail += list(self.mail)
        self._delivers()
        self.assertEqual(texts(self.carol, self.team)[1:], ["alice: one", "alice: two", "bob: three"])

    def test_not_at_all(self) -> None:
        self.mail.remove(self._last())
        self._delivers()
        self.assertEqual(texts(self.carol, self.team)[1:], ["alice: one", "alice: two"])

    def test_without_their_keys(self) -> None:
        """They wait, are asked for, and come in their places."""
        self.mail[:] = [mail for mail in self.mail if self._body(mail)[0] == 2]
        self._delivers()
        self.assertEqual(texts(self.carol, self.team)[-1], "bob: ?")
        self.scene.pass_time(10)
        self.assertEqual(texts(self.carol, self.team)[1:], ["alice: one", "alice: two", "bob: three"])

    def _as(self, user: str, device: str, n: int, body: bytes) -> None:
        """Carol has the key of bob's session by then."""
        self.mail.remove(self._last())
        self._delivers()
        rows = self.carol.vault.execute("SELECT session FROM group_sessions WHERE user = 'bob'").fetchall()
        self.assertIn((self._session,), rows)
        self.hands_over(self.carol, user, device, n, body)
        self.scene.pass_time(10)
        self.assertNotIn(f"{user}: three", texts(self.carol, self.team))
        self.assertNotIn("three", self.carol.reads(user))

    def test_as_anothers(self) -> None:
        mail = self._last()
        self._as("alice", self.alice.device, mail.n, self._body(mail))

    def test_under_another_number(self) -> None:
        mail = self._last()
        self._as("bob", self.bob.device, mail.n + 7, self._body(mail))

    def test_in_another_group(self) -> None:
        other = self.group(self.alice, self.bob, self.carol)
        self.says(self.bob, other, "other")
        mail, body = self._last(), self._body(self._last())
        self._as("bob", self.bob.device, mail.n + 50, body[:1] + bytes.fromhex(group_of(other)) + body[17:])
        self.assertNotIn("bob: three", texts(self.carol, other))

    def test_as_a_whisper(self) -> None:
        mail = self._last()
        self.mail.remove(mail)
        self._delivers()
        self.pushes(self.carol, wire.Whispered("bob", self.bob.device, Raw(mail.body)))
        self.assertNotIn("bob: three", texts(self.carol, self.team))
        self.hands_over(self.carol, "bob", self.bob.device, mail.n, self._body(mail))
        self.assertEqual(texts(self.carol, self.team)[-1], "bob: three")

    def test_a_whisper_as_a_message(self) -> None:
        self._delivers()
        self.bob.core.typing(self.team)
        self.scene.settle()
        [body] = [said.body for _, said in self.network.requests if isinstance(said, wire.GroupWhisper)]
        for n in (0, 999):
            self.hands_over(self.carol, "bob", self.bob.device, n, ratchet.body_from_wire(Raw(bytes(body))))
            self._close_or_unreadable(n)
        self.assertEqual(
            [line for line in texts(self.carol, self.team) if line != "bob: ?"][1:],
            ["alice: one", "alice: two", "bob: three"],
        )

    def _close_or_unreadable(self, n: int) -> None:
        self.assertNotIn(f"bob: {n}", texts(self.carol, self.team))

    def test_the_key_of_one_as_that_of_another(self) -> None:
        """It is sealed, and names who sends it."""
        [key] = [mail for mail in self.mail if mail.device == self.bob.device and self._body(mail)[0] == 1][:1]
        self.mail.remove(key)
        self.hands_over(self.carol, "alice", self.alice.device, key.n + 900, self._body(key))
        self._delivers()
        rows = self.carol.vault.execute("SELECT COUNT(*) FROM group_sessions WHERE user = 'alice'").fetchone()
        self.assertEqual(rows[0], 1)
        self.scene.pass_time(10)
        self.assertIn("bob: three", texts(self.carol, self.team))
