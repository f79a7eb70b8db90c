"""In groups: marks by whom, mentions, and what is said of messages by those who may; mute and block."""

from __future__ import annotations

from fastchat.errors import NotAllowed, RequestError
from fastchat_client import marking, settings, understanding
from fastchat_client.composing import insert
from fastchat_client.content import Delivered, Read, Timer, encode_content
from fastchat_client.events import (
    Deleted,
    Edited,
    Expired,
    MessageHeld,
    MessageReceived,
    MessageState,
    MessageUnreadable,
    Notice,
    Reacted,
    State,
    TimerChanged,
    TypingNow,
)
from fastchat_client.group_acting import InviteAct, JoinAct, RemoveAct, RoleAct
from fastchat_client.history import untold
from fastchat_client.marking import marks_of, reactions_of
from fastchat_client.vault import Vault
from tests.support.conversation import Person, SceneTest
from tests.support.keys import root_key
from tests.support.vaults import words_in


class Counting(set[str]):
    """Names, and how often somebody has asked for one."""

    questions = 0

    def __contains__(self, name: object) -> bool:
        self.questions += 1
        return super().__contains__(name)


class GroupOfThree(SceneTest):
    def setUp(self) -> None:
        super().setUp()
        self.alice, self.bob, self.carol = (self.scene.person(name) for name in ("alice", "bob", "carol"))
        _, self.team = self.alice.core.group_create("team")
        self.scene.settle()
        for person in (self.bob, self.carol):
            self.brings(person)
        self.scene.pass_time(2)

    def brings(self, person: Person) -> None:
        self.alice.core.group_act(self.team, InviteAct(person.name, 0))
        self.scene.settle()
        person.core.group_act(self.team, JoinAct())
        self.scene.settle()

    def says(self, person: Person, text: str, reply: str = "") -> str:
        message_id = person.says(self.team, text, reply)
        self.scene.settle()
        return message_id

    def marks(self, message_id: str) -> list[tuple[str, str]]:
        return [(mark.user, mark.state) for mark in marks_of(self.alice.vault, message_id)]


class Marks(GroupOfThree):
    def test_by_whom(self) -> None:
        self.carol.disconnects()
        message_id = self.says(self.alice, "hello")
        self.assertEqual(self.marks(message_id), [("bob", State.ACCEPTED), ("carol", State.ACCEPTED)])
        self.scene.pass_time(2)
        self.assertEqual(self.marks(message_id), [("bob", State.DELIVERED), ("carol", State.ACCEPTED)])
        self.assertEqual(self.alice.vault.state_of(message_id), State.ACCEPTED)
        self.bob.core.mark_read(self.team)
        self.carol.connects()
        self.scene.pass_time(2)
        self.assertEqual(self.marks(message_id), [("bob", State.READ), ("carol", State.DELIVERED)])
        self.assertEqual(self.alice.vault.state_of(message_id), State.DELIVERED)
        self.carol.core.mark_read(self.team)
        self.scene.pass_time(2)
        self.assertEqual(self.marks(message_id), [("bob", State.READ), ("carol", State.READ)])
        states = [event.state for event in self.alice.told(MessageState) if event.id == message_id]
        self.assertEqual(states[-2:], [State.DELIVERED, State.READ])
        for mark in marks_of(self.alice.vault, message_id):
            self.assertLess(abs(mark.at - self.scene.clock.seconds() * 1000), 10_000)

    def test_a_mark_never_goes_back(self) -> None:
        message_id = self.says(self.alice, "hello")
        self.bob.core.mark_read(self.team)
        self.scene.pass_time(2)

        def mark_it(vault: Vault, at: int) -> str:
            with vault.transaction():
                content = encode_content(Delivered((int(message_id.rpartition(".")[2]),)))
                return str(insert(vault, "alice", self.alice.device, content, at, shown=False))

        self.bob.core.compose(mark_it)
        self.scene.settle()
        self.assertIn(("bob", State.READ), self.marks(message_id))

    def test_alone_with_one_person(self) -> None:
        message_id = self.alice.says("bob", "psst")
        self.scene.pass_time(2)
        self.assertEqual(self.marks(message_id), [("bob", State.DELIVERED)])
        self.assertRaises(RequestError, marks_of, self.bob.vault, message_id)
        self.assertRaises(RequestError, marks_of, self.bob.vault, "nonsense")

    def test_only_of_those_who_were_to_get_it(self) -> None:
        message_id = self.says(self.alice, "before dave")
        dave = self.scene.person("dave")
        self.brings(dave)
        n = int(message_id.rpartition(".")[2])

        def mark_it(vault: Vault, at: int) -> str:
            with vault.transaction():
                content = encode_content(Read((n, n, 999)))
                return str(insert(vault, "alice", self.alice.device, content, at, shown=False))

        dave.core.compose(mark_it)
        self.scene.pass_time(2)
        self.assertEqual(self.marks(message_id), [("bob", State.DELIVERED), ("carol", State.DELIVERED)])

    def test_who_has_left_since_still_counts_for_what_was_sent_to_them(self) -> None:
        self.carol.disconnects()
        message_id = self.says(self.alice, "carol should know")
        self.alice.core.group_act(self.team, RemoveAct("carol"))
        self.scene.pass_time(2)
        self.assertEqual(self.alice.vault.state_of(message_id), State.ACCEPTED)
        self.assertEqual(self.marks(message_id), [("bob", State.DELIVERED), ("carol", State.ACCEPTED)])
        later = self.says(self.alice, "and bob alone this")
        self.scene.pass_time(2)
        self.assertEqual(self.marks(later), [("bob", State.DELIVERED)])
        self.assertEqual(self.alice.vault.state_of(later), State.DELIVERED)

    def test_nobody_marks_in_a_large_group(self) -> None:
        self.patch(marking, "MARKED_MEMBERS", 2)
        message_id = self.says(self.alice, "hello")
        sends = len(self.network.sends)
        self.bob.core.mark_read(self.team)
        self.scene.pass_time(5)
        self.assertEqual(len(self.network.sends), sends)
        self.assertEqual(self.marks(message_id), [("bob", State.ACCEPTED), ("carol", State.ACCEPTED)])
        self.assertEqual(untold(self.bob.vault), [], "nor will they, when the group has become smaller")


class SaidOfMessages(GroupOfThree):
    def test_everybody_sees_it(self) -> None:
        message_id = self.says(self.alice, "lunch at one")
        answer = self.says(self.bob, "fine", reply=message_id)
        self.carol.reacts(message_id, "🎉")
        self.bob.reacts(message_id, "🎉")
        self.alice.edits(message_id, "lunch at two")
        self.scene.settle()
        for person in (self.alice, self.bob, self.carol):
            item, reply = person.shown(message_id), person.shown(answer)
            assert item is not None
            assert reply is not None
            self.assertEqual((item.text, item.edited, reply.reply), ("lunch at two", True, message_id))
            self.assertCountEqual(reactions_of(person.vault, message_id), [("carol", "🎉"), ("bob", "🎉")])
        self.assertEqual([event.conversation for event in self.bob.told(Edited)], [self.team])
        self.assertEqual([event.sender for event in self.bob.told(Reacted)], ["carol"])
        self.alice.deletes(message_id)
        self.scene.settle()
        for person in (self.alice, self.bob, self.carol):
            self.assertEqual(words_in(person.vault, "lunch at"), [])
            self.assertEqual(reactions_of(person.vault, message_id), [])
        self.assertEqual([event.id for event in self.carol.told(Deleted)], [message_id])

    def test_only_its_author_may_change_it_not_even_the_owner(self) -> None:
        message_id = self.says(self.bob, "mine")
        self.assertRaises(NotAllowed, self.alice.deletes, message_id)
        self.assertRaises(NotAllowed, self.alice.edits, message_id, "ours")

    def test_who_is_not_in_the_group_says_nothing_there(self) -> None:
        message_id = self.says(self.carol, "hello")
        self.alice.core.group_act(self.team, RemoveAct("carol"))
        self.scene.pass_time(2)
        for act in (
            lambda: self.carol.says(self.team, "still here"),
            lambda: self.carol.reacts(message_id, "👍"),
            lambda: self.carol.deletes(message_id),
            lambda: self.carol.sets_timer(self.team, 5),
            lambda: self.carol.says("#" + "0" * 32, "anybody?"),
        ):
            self.assertRaises(RequestError, act)
        self.assertTrue(self.carol.core.ready)

    def test_the_timer_is_for_owners_and_admins(self) -> None:
        self.assertRaises(NotAllowed, self.bob.sets_timer, self.team, 60)

        def set_it(vault: Vault, at: int) -> str:
            with vault.transaction():
                return str(insert(vault, self.team, "", encode_content(Timer(1)), at, shown=False))

        self.bob.core.compose(set_it)
        self.scene.settle()
        self.assertEqual(settings.timer_of(self.alice.vault, self.team), 0)
        self.assertEqual([event.code for event in self.alice.told(Notice)], [NotAllowed.code])
        self.alice.core.group_act(self.team, RoleAct("bob", "admin"))
        self.scene.settle()
        self.bob.sets_timer(self.team, 60)
        self.scene.settle()
        for person in (self.alice, self.carol):
            self.assertEqual([event.seconds for event in person.told(TimerChanged)], [60])
        message_id = self.says(self.carol, "burn after reading")
        self.alice.core.mark_read(self.team)
        self.bob.core.mark_read(self.team)
        self.scene.pass_time(65)
        for person in (self.alice, self.bob, self.carol):
            self.assertEqual([event.id for event in person.told(Expired)], [message_id])
            rows = person.vault.execute("SELECT device, n FROM group_bodies").fetchall()
            self.assertNotIn(message_id, [f"{device}.{n}" for device, n in rows], "nor can a newcomer be given it")

    def test_mentions_are_of_members(self) -> None:
        self.says(self.alice, "@bob, see @carol. Not @dave, not me@bob, not @bobby; @bob again. @carol_x @alice")
        bob, carol = (person.told(MessageReceived)[-1] for person in (self.bob, self.carol))
        self.assertEqual(bob.mentions, ("bob", "carol", "alice"))
        self.assertEqual((bob.mentioned, carol.mentioned), (True, True))
        self.says(self.alice, "@bob.")
        bob, carol = (person.told(MessageReceived)[-1] for person in (self.bob, self.carol))
        self.assertEqual((bob.mentions, bob.mentioned, carol.mentioned), (("bob",), True, False))
        self.alice.says("bob", "@bob @alice")
        self.scene.settle()
        self.assertEqual(self.bob.told(MessageReceived)[-1].mentions, (), "between two there is nobody to call")

    def test_a_name_that_never_ends_costs_nothing(self) -> None:
        """A text is as long as a line, and was once looked at for each of its characters anew."""
        looked = Counting(["bob"])
        self.assertEqual(understanding.mentioned("b" + "." * 100_000, looked), "")
        self.assertEqual(understanding.mentioned("bob" + "." * 100_000, looked), "bob")
        self.assertLess(looked.questions, 100)

    def test_typing(self) -> None:
        self.says(self.alice, "first, so that everybody has her key")
        self.alice.core.typing(self.team)
        self.scene.settle()
        for person in (self.bob, self.carol):
            self.assertEqual(person.told(TypingNow), [TypingNow(self.team, "alice")])
        self.assertEqual(self.alice.vault.waiting(), 0)
        settings.block(self.bob.vault, "alice", True)
        self.scene.clock.advance(5)
        self.alice.core.typing(self.team)
        self.scene.settle()
        self.assertEqual([len(person.told(TypingNow)) for person in (self.bob, self.carol)], [1, 2])


class Muted(GroupOfThree):
    def test_a_muted_conversation_counts_but_is_marked(self) -> None:
        settings.mute(self.bob.vault, self.team, True)
        self.says(self.alice, "hello")
        event = self.bob.told(MessageReceived)[-1]
        self.assertTrue(event.muted)
        (conversation,) = [one for one in self.bob.vault.conversations() if one.user == self.team]
        self.assertEqual((conversation.muted, conversation.unread), (True, 1))
        self.alice.says("bob", "psst")
        self.scene.settle()
        self.assertFalse(self.bob.told(MessageReceived)[-1].muted)
        settings.mute(self.bob.vault, self.team, False)
        self.says(self.alice, "hello?")
        self.assertFalse(self.bob.told(MessageReceived)[-1].muted)


class Blocked(GroupOfThree):
    def test_nothing_of_them_is_shown_and_nothing_said(self) -> None:
        self.bob.says("carol", "hi")
        message_id = self.says(self.alice, "mine")
        own = self.bob.says("alice", "before")
        self.scene.pass_time(3)
        settings.block(self.bob.vault, "alice", True)
        self.bob.events.clear()
        told_before = len(self.network.sends)
        secret = self.alice.says("bob", "unwanted")
        in_group = self.says(self.alice, "unwanted, too")
        self.alice.reacts(own, "👎")
        self.alice.sets_timer("bob", 5)
        self.alice.edits(message_id, "unwanted")
        self.scene.pass_time(3)
        self.assertEqual([event for event in self.bob.events if not isinstance(event, MessageState)], [])
        for lost in (secret, in_group):
            self.assertIsNone(self.bob.shown(lost))
        self.assertEqual(words_in(self.bob.vault, "unwanted"), [])
        self.assertEqual(settings.timer_of(self.bob.vault, "alice"), 0)
        self.assertEqual(reactions_of(self.bob.vault, own), [])
        self.assertEqual(self.alice.vault.state_of(secret), State.ACCEPTED, "it was taken, and no more is said of it")
        self.assertEqual(self.network.devices[self.bob.device].mailbox, [])
        self.assertEqual(self.marks(in_group), [("bob", State.ACCEPTED), ("carol", State.DELIVERED)])
        answers = [send for device, send in self.network.sends[told_before:] if device == self.bob.device]
        self.assertEqual(answers, [])
        self.assertEqual(self.carol.told(MessageReceived)[-1].text, "unwanted, too")

    def test_unblocking_shows_what_comes_from_then_on(self) -> None:
        settings.block(self.bob.vault, "alice", True)
        self.alice.says("bob", "1")
        self.says(self.alice, "1")
        settings.block(self.bob.vault, "alice", False)
        self.alice.says("bob", "2")
        self.says(self.alice, "2")
        self.assertEqual(self.bob.reads("alice"), ["2"])
        self.assertEqual(self.bob.reads(self.team), ["2"])

    def test_what_one_says_to_them_still_goes_and_is_marked(self) -> None:
        settings.block(self.bob.vault, "alice", True)
        message_id = self.bob.says("alice", "stop it")
        self.scene.pass_time(3)
        self.assertEqual(self.bob.vault.state_of(message_id), State.DELIVERED)

    def test_what_is_held_of_them(self) -> None:
        """Alice begins anew with another key; bob blocks her before he decides about it."""
        self.alice.says("bob", "before")
        self.scene.settle()
        self.alice.disconnects()
        del self.network.accounts["alice"], self.network.devices[self.alice.device]
        self.scene.people.remove(self.alice)
        other = self.scene.person("alice", root=root_key(4))
        other.says("bob", "unwanted")
        self.scene.pass_time(2)
        held = len(self.bob.told(MessageHeld))
        self.assertEqual(held, 1)
        settings.block(self.bob.vault, "alice", True)
        other.says("bob", "unwanted as well")
        self.scene.settle()
        self.assertTrue(self.bob.core.accept_root("alice"))
        self.scene.pass_time(2)
        self.assertEqual(self.bob.reads("alice"), ["before"])
        self.assertEqual(len(self.bob.told(MessageHeld)), held)

    def test_what_cannot_be_read_of_them(self) -> None:
        settings.block(self.bob.vault, "carol", True)
        self.carol.says("bob", "hi")
        self.network.withhold.add(self.bob.device)
        self.scene.settle()
        box = self.network.devices[self.bob.device].mailbox
        self.assertEqual(len(box), 1)
        box[0] = type(box[0])(box[0].user, box[0].device, box[0].n, box[0].at, b'"AQAA"')
        self.network.withhold.clear()
        self.network.lines[self.bob.device].deliver()
        self.scene.pass_time(3)
        self.assertEqual(self.bob.told(MessageUnreadable), [])
        self.assertEqual(self.bob.reads("carol"), [])

    def test_not_oneself(self) -> None:
        self.assertRaises(RequestError, settings.block, self.bob.vault, "bob", True)
        settings.block(self.bob.vault, "carol", True)
        settings.block(self.bob.vault, "alice", True)
        self.assertEqual(settings.blocked(self.bob.vault), ["alice", "carol"])
