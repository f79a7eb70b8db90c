"""Who gets a group's key, when it changes, and what becomes of messages that come without it."""

from __future__ import annotations

from typing import Any

from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey

from fastchat.errors import Busy, FastChatError, MailboxFull
from fastchat.identity import prekeys
from fastchat.identity.links import sign_add_device, sign_genesis, sign_revoke_device
from fastchat.protocols import wire
from fastchat.protocols.wire import ServerMessage
from fastchat_client.events import GroupAlarm, MessageReceived, MessageWaiting, Notice, State
from fastchat_client.group_acting import InviteAct, JoinAct, LeaveAct, RemoveAct, RenameAct, RoleAct
from fastchat_client.group_bodies import KEPT_FOR
from fastchat_client.groups import group_of
from fastchat_client.megolm import read_group_body
from tests.support.conversation import DAY, Person
from tests.support.group_scene import GroupSceneTest, actor_of, alarms, texts, waiting
from tests.support.people import root_of


class SendingTest(GroupSceneTest):
    """alice, bob and carol are in a group and have talked."""

    def setUp(self) -> None:
        super().setUp()
        self.alice, self.bob, self.carol = self.people("alice", "bob", "carol")
        self.everybody = [self.alice, self.bob, self.carol]
        self.team = self.group(*self.everybody)
        self.gid = group_of(self.team)
        self.says(self.alice, self.team, "before")

    def sessions(self) -> int:
        """How many have been written with."""
        return len({read_group_body(body).session for body in self.ciphertexts()})

    def cannot_read_on(self, person: Person, writer: Person) -> None:
        """What `writer` says now is written with a key that `person` does not get, nor has."""
        readable, sessions = len(self.readable_by(person)), self.sessions()
        self.network.groups.outsiders[self.gid] = {person.device}
        self.says(writer, self.team, "without them")
        self.assertEqual(self.sessions(), sessions + 1)
        self.assertEqual(len(self.readable_by(person)), readable)
        self.says(writer, self.team, "still")
        self.assertEqual(self.sessions(), sessions + 1)


class Rotation(SendingTest):
    def test_who_has_left(self) -> None:
        self.acts(self.carol, self.team, LeaveAct())
        self.cannot_read_on(self.carol, self.alice)
        self.assertEqual(texts(self.bob, self.team)[-1], "alice: still")

    def test_who_was_removed(self) -> None:
        self.acts(self.alice, self.team, RemoveAct("carol"))
        self.cannot_read_on(self.carol, self.alice)

    def test_who_was_removed_while_one_was_away(self) -> None:
        self.says(self.bob, self.team, "bob has a session, too")
        self.bob.disconnects()
        self.acts(self.alice, self.team, RemoveAct("carol"))
        self.bob.says(self.team, "written offline")
        self.bob.connects()
        self.scene.settle()
        self.assertEqual(texts(self.alice, self.team)[-1], "bob: written offline")
        self.assertEqual(len(self.readable_by(self.carol)), 2)

    def test_who_has_left_and_come_back(self) -> None:
        """Nothing was said in between: the key may stay. If something was, it is not for them."""
        self.acts(self.carol, self.team, LeaveAct())
        self.says(self.alice, self.team, "among us")
        self.brings(self.team, self.alice, self.carol)
        self.says(self.alice, self.team, "welcome back")
        self.assertEqual(texts(self.carol, self.team), ["alice: before", "alice: welcome back"])
        self.assertEqual(len(self.readable_by(self.carol)), 2)

    def test_a_device_that_was_revoked(self) -> None:
        phone = self.scene.further_device(self.carol)
        self.scene.pass_time(310)
        self.says(self.alice, self.team, "to both")
        self.assertEqual(texts(phone, self.team), ["alice: to both"])
        phone.disconnects()
        links = self.network.accounts["carol"].links
        links.append(sign_revoke_device(self.carol.root, links, "carol", phone.device, 0))
        self.network.log_links("carol", links[-1:], len(links) - 1)
        self.scene.pass_time(310)
        self.cannot_read_on(phone, self.alice)
        self.assertEqual(texts(self.carol, self.team)[-1], "alice: still")

    def test_somebody_with_another_root(self) -> None:
        """They get nothing until that is decided; the others go on."""
        account = self.network.accounts["carol"]
        self.carol.disconnects()
        del self.network.accounts["carol"]
        self.network.accounts["carol"] = account
        impostor = self.scene.person("dave")
        other = root_of("an impostor")

        identity = impostor.core._parts.me
        links = [sign_genesis(other, "carol")]
        links.append(sign_add_device(other, links, "carol", identity.ed25519, identity.curve25519, 0))
        account.links[:] = links
        self.network.log_links("carol", links)
        self.scene.pass_time(310)
        self.cannot_read_on(self.carol, self.alice)
        self.assertEqual(self.readable_by(impostor), [])
        self.assertEqual(texts(self.bob, self.team)[-1], "alice: still")

    def test_a_day_and_a_clock_that_was_set_back(self) -> None:
        before = self.sessions()
        self.alice.core._parts._now = lambda: self.scene.clock.seconds() - 60
        self.says(self.alice, self.team, "yesterday?")
        self.assertEqual(self.sessions(), before + 1)

    def test_joining_changes_no_key(self) -> None:
        dave = self.scene.person("dave")
        before = self.sessions()
        self.brings(self.team, self.alice, dave)
        self.says(self.alice, self.team, "welcome")
        self.assertEqual((self.sessions(), texts(dave, self.team)), (before, ["alice: welcome"]))


class Devices(SendingTest):
    def test_a_new_device_of_a_member(self) -> None:
        phone = self.scene.further_device(self.bob)
        self.scene.pass_time(310)
        self.says(self.alice, self.team, "hello phone")
        self.says(phone, self.team, "hello")
        self.assertEqual(texts(phone, self.team), ["alice: hello phone", "bob: hello"])
        self.assertEqual(len(self.readable_by(phone)), 2)
        self.assertEqual(texts(self.bob, self.team)[-1], "bob: hello")

    def test_one_whose_mailbox_is_full(self) -> None:
        """Everybody else has it; that device asks for the key when it is back."""

        def refuse(device: str, send: wire.Send) -> FastChatError | None:
            refusal = MailboxFull()
            refusal.devices = (self.carol.device,)
            return refusal if any(one.device == self.carol.device for one in send.to) else None

        self.scene.clock.advance(DAY)
        self.network.refuse = refuse
        message = self.alice.says(self.team, "hello")
        self.scene.settle()
        self.assertIn(State.ACCEPTED, self.alice.states(message))
        self.assertEqual(texts(self.bob, self.team)[-1], "alice: hello")
        self.assertEqual(texts(self.carol, self.team)[-1], "alice: ?")
        self.network.refuse = lambda device, send: None
        self.scene.pass_time(10)
        self.assertEqual(texts(self.carol, self.team)[-1], "alice: hello")

    def test_one_with_whose_key_nothing_can_be_sealed(self) -> None:
        """It is told of, and does not keep the others waiting, nor this client busy."""
        actor = actor_of(self.carol)
        self.carol.disconnects()
        public = MLKEM768PrivateKey.generate().public_key().public_bytes_raw()
        bad = prekeys.sign_seal(actor.sign, actor.identity, 77, public, bytes(32), 0)
        self.network.devices[self.carol.device].seal = bad
        self.scene.clock.advance(DAY + 60)
        self.says(self.alice, self.team, "hello")
        self.scene.pass_time(60)
        self.assertEqual(texts(self.bob, self.team)[-1], "alice: hello")
        self.assertIn("are not believed", self.alice.told(Notice)[0].text)
        self.assertLess(len(self.alice.told(Notice)), 4)
        rows = self.alice.vault.execute("SELECT COUNT(*) FROM outbox WHERE state < 2").fetchone()
        self.assertEqual(rows, (0,))

    def test_while_the_database_is_away_for_some(self) -> None:
        """Those who could be reached have it once; the others when they can be."""
        dropped: list[int] = []

        def mangle(device: str, message: ServerMessage) -> list[ServerMessage]:
            if isinstance(message, wire.Accepted) and message.re in self._group_sends() and not dropped:
                dropped.append(message.re)
                error = Busy(retry_after=5.0)
                error.devices = (self.carol.device,)
                return [wire.error_from(error, message.re)]
            return [message]

        self.network.withhold.add(self.carol.device)
        self.network.mangle = mangle
        message = self.alice.says(self.team, "hello")
        self.scene.settle()
        self.assertEqual(texts(self.bob, self.team)[-1], "alice: hello")
        self.assertNotIn(State.ACCEPTED, self.alice.states(message))
        self.scene.pass_time(10)
        last = [said for _, said in self.network.requests if isinstance(said, wire.GroupSend)][-1]
        self.assertEqual(last.devices, (self.carol.device,))
        self.assertIn(State.ACCEPTED, self.alice.states(message))
        self.network.withhold.clear()
        assert self.carol.line is not None
        self.carol.line.deliver()
        self.scene.settle()
        self.assertEqual(texts(self.carol, self.team)[-1], "alice: hello")
        self.assertEqual(texts(self.bob, self.team).count("alice: hello"), 1)

    def _group_sends(self) -> set[int]:
        return {said.id for _, said in self.network.requests if isinstance(said, wire.GroupSend)}


class Changing(SendingTest):
    def test_the_chain_changes_between_sealing_and_sending(self) -> None:
        """It is encrypted again, by the chain as it is: who was removed in between does not get it."""
        self.network.groups.tells_news = False
        self.says(self.bob, self.team, "bob has a session")
        self.acts(self.alice, self.team, RemoveAct("carol"))
        readable = len(self.readable_by(self.carol))
        message = self.bob.says(self.team, "who is there?")
        self.scene.settle()
        self.scene.pass_time(5)
        self.assertIn(State.ACCEPTED, self.bob.states(message))
        self.assertEqual(texts(self.alice, self.team)[-1], "bob: who is there?")
        self.assertEqual(texts(self.alice, self.team).count("bob: who is there?"), 1)
        lengths = [said.length for _, said in self.network.requests if isinstance(said, wire.GroupSend)][-2:]
        self.assertEqual(lengths[1], lengths[0] + 1)
        # The first attempt was refused; by the second one the key was another.
        self.assertEqual(texts(self.carol, self.team).count("bob: who is there?"), 0)
        self.assertLessEqual(len(self.readable_by(self.carol)), readable + 1)

    def test_who_comes_second_signs_again_if_somebody_only_joined_or_left(self) -> None:
        dave = self.scene.person("dave")
        self.acts(self.alice, self.team, InviteAct("dave", 0))
        self.network.groups.tells_news = False
        self.acts(dave, self.team, JoinAct())
        number = self.acts(self.alice, self.team, RenameAct("crew"))
        self.scene.pass_time(5)
        row = self.alice.vault.execute("SELECT state FROM group_acts WHERE seq = ?", (number,)).fetchone()
        self.assertEqual(row, (1,))
        self.assertEqual(self.state(self.team, self.alice).length, len(self.chain(self.team)))

    def test_and_gives_up_if_somebody_changed_the_group(self) -> None:
        self.acts(self.alice, self.team, RoleAct("bob", "admin"))
        self.network.groups.tells_news = False
        self.acts(self.bob, self.team, RemoveAct("carol"))
        number = self.acts(self.alice, self.team, RenameAct("crew"))
        self.scene.pass_time(5)
        row = self.alice.vault.execute("SELECT state, code FROM group_acts WHERE seq = ?", (number,)).fetchone()
        self.assertEqual(row, (2, "group-changed"))
        self.assertNotIn("carol", self.state(self.team, self.alice).members)

    def test_the_answer_to_an_act_is_lost(self) -> None:
        """It is done once."""

        def mangle(device: str, message: ServerMessage) -> list[ServerMessage]:
            lost = isinstance(message, wire.GroupDone | wire.GroupNews) and device == self.alice.device
            return [] if lost else [message]

        self.network.mangle = mangle
        number = self.acts(self.alice, self.team, RenameAct("crew"))
        self.network.mangle = lambda device, message: [message]
        self.alice.disconnects()
        self.alice.connects()
        self.scene.settle()
        row = self.alice.vault.execute("SELECT state FROM group_acts WHERE seq = ?", (number,)).fetchone()
        self.assertEqual(row, (1,))
        titles = [signed for signed in self.chain(self.team)[1:] if b'"title"' in signed.body]
        self.assertEqual(len(titles), 1)


class Late(SendingTest):
    """The key comes after the message."""

    def setUp(self) -> None:
        super().setUp()
        self.scene.clock.advance(DAY)

    def test_it_is_asked_for_and_fills_the_place(self) -> None:
        dropped = self.network.post

        def post(device: str, mail: Any) -> None:
            if device == self.bob.device and mail.device == self.alice.device and mail.body[:4] == b'"AQA':
                return
            dropped(device, mail)

        self.network.post = post  # type: ignore[method-assign]
        self.says(self.alice, self.team, "one", "two")
        self.network.post = dropped  # type: ignore[method-assign]
        self.says(self.carol, self.team, "three")
        self.assertEqual(texts(self.bob, self.team)[1:], ["alice: ?", "alice: ?", "carol: three"])
        self.assertEqual([event.sender for event in self.bob.told(MessageWaiting)], ["alice", "alice"])
        asked = [said for said in self.bob.said if isinstance(said, wire.Send)]
        self.scene.pass_time(4)
        self.scene.pass_time(4)
        self.assertGreater(len([said for said in self.bob.said if isinstance(said, wire.Send)]), len(asked))
        self.assertEqual(texts(self.bob, self.team)[1:], ["alice: one", "alice: two", "carol: three"])
        received = [event.text for event in self.bob.told(MessageReceived)]
        self.assertEqual(received[-3:], ["three", "one", "two"])
        self.assertEqual(self.bob.told(GroupAlarm), [])


class Beginning(GroupSceneTest):
    def test_a_new_device_in_many_groups_of_many_people(self) -> None:
        """It knows nobody yet, and asks for all of them at once: each chain waits for its own actors."""
        people = self.people("alice", "bob", "carol", "dave", "erin", "frank")
        alice, others = people[0], people[1:]
        teams = [self.group(owner, alice) for owner in others]
        phone = self.scene.further_device(alice)
        self.scene.pass_time(310)
        self.assertEqual(alarms(phone), [])
        for owner, team in zip(others, teams, strict=True):
            self.says(owner, team, "hello")
            self.says(phone, team, "hello from the new one")
            self.assertEqual(texts(phone, team), [f"{owner.name}: hello", "alice: hello from the new one"])


class Kept(SendingTest):
    def test_what_newcomers_can_be_given_is_kept_for_a_month(self) -> None:
        def kept() -> int:
            return int(self.bob.vault.execute("SELECT COUNT(*) FROM group_bodies").fetchone()[0])

        self.assertEqual(kept(), 1)
        self.bob.disconnects()
        self.scene.clock.advance(KEPT_FOR / 1000 + 60)
        self.bob.connects()
        self.scene.settle()
        self.scene.pass_time(61)
        self.assertEqual(kept(), 0)
        self.assertEqual(texts(self.bob, self.team), ["alice: before"])

    def test_a_server_that_names_later_times_widens_nothing(self) -> None:
        """A message of ten days ago, that is said to be of the year 2255."""
        ahead = self.network.seconds
        self.network.seconds = lambda: 9_000_000_000.0
        self.says(self.bob, self.team, "long ago")
        self.network.seconds = ahead
        self.scene.clock.advance(10 * DAY)
        dave = self.scene.person("dave")
        self.says(self.bob, self.team, "lately")
        self.brings(self.team, self.alice, dave, history=7)
        self.scene.pass_time(3)
        self.assertEqual(texts(dave, self.team), ["bob: lately"])

    def test_what_was_read_is_not_shown_again_with_a_history(self) -> None:
        self.acts(self.carol, self.team, LeaveAct())
        self.says(self.bob, self.team, "meanwhile")
        self.brings(self.team, self.alice, self.carol, history=7)
        self.scene.pass_time(3)
        self.assertEqual(texts(self.carol, self.team), ["alice: before", "bob: meanwhile"])
        received = [event.text for event in self.carol.told(MessageReceived)]
        self.assertEqual(received, ["before", "meanwhile"])

    def test_a_history_stands_in_its_order_before_what_comes(self) -> None:
        self.says(self.bob, self.team, "two")
        self.says(self.carol, self.team, "three")
        dave = self.scene.person("dave")
        self.brings(self.team, self.alice, dave, history=7)
        self.scene.pass_time(3)
        self.says(self.carol, self.team, "welcome")
        self.assertEqual(texts(dave, self.team), ["alice: before", "bob: two", "carol: three", "carol: welcome"])
        self.assertEqual((alarms(dave), waiting(dave)), ([], 0))
