"""Disappearing messages: a timer that both sides share, time that runs from reading, and nothing that is left."""

from __future__ import annotations

from fastchat.errors import ProtocolError, RequestError
from fastchat_client import composing, expiring, settings
from fastchat_client.content import MAX_SECONDS, Edit, Ref, encode_content
from fastchat_client.events import Expired, MessageReceived, Notice, State, TimerChanged
from fastchat_client.marking import reactions_of
from fastchat_client.vault import HistoryItem, split_id
from tests.support.conversation import Person, SceneTest
from tests.support.vaults import words_in

WORDS = "burn after reading"


class Disappearing(SceneTest):
    def setUp(self) -> None:
        super().setUp()
        self.alice, self.bob = self.scene.person("alice"), self.scene.person("bob")
        self.alice.says("bob", "hello")
        self.scene.settle()
        self.bob.says("alice", "hello to you")
        self.scene.settle()

    def secret(self, seconds: int = 60) -> str:
        """From alice to bob."""
        self.alice.sets_timer("bob", seconds)
        message_id = self.alice.says("bob", WORDS)
        self.scene.settle()
        return message_id

    def gone(self, person: Person) -> list[str]:
        return [event.id for event in person.told(Expired)]

    def item(self, person: Person, message_id: str) -> HistoryItem:
        item = person.shown(message_id)
        assert item is not None
        return item

    def test_the_timer_is_the_same_on_both_sides(self) -> None:
        second = self.scene.further_device(self.alice)
        self.scene.pass_time(310, step=10)
        self.bob.sets_timer("alice", 3600)
        self.scene.settle()
        for person, conversation in ((self.alice, "bob"), (second, "bob"), (self.bob, "alice")):
            self.assertEqual(settings.timer_of(person.vault, conversation), 3600)
        self.assertEqual(self.bob.vault.conversations()[0].timer, 3600)
        (told,) = self.alice.told(TimerChanged)
        self.assertEqual((told.conversation, told.sender, told.seconds), ("bob", "bob", 3600))
        self.assertEqual(self.bob.told(TimerChanged), [])
        message_id = self.alice.says("bob", "later")
        self.scene.settle()
        self.assertEqual(self.bob.told(MessageReceived)[-1].expires, 3600)
        self.assertEqual(self.item(self.bob, message_id).expires, 3600)

    def test_two_who_set_it_at_once_end_with_the_same(self) -> None:
        for ahead in (0, 1, -1):
            self.scene.pass_time(10)
            self.alice.disconnects()
            self.bob.disconnects()
            self.alice.sets_timer("bob", 10)
            self.bob.wall_ahead = ahead
            self.bob.sets_timer("alice", 20)
            self.alice.connects()
            self.bob.connects()
            self.scene.settle()
            timers = settings.timer_of(self.alice.vault, "bob"), settings.timer_of(self.bob.vault, "alice")
            self.assertEqual(*timers)
            if ahead:
                self.assertEqual(timers[0], 20 if ahead > 0 else 10)

    def test_nobody_has_the_last_word_for_ever(self) -> None:
        """By a time that is years ahead, or is the last one that can be said."""
        for ahead in (3 * 86_400.0, (2**53 - 1) / 1000 - self.scene.clock.seconds()):
            self.bob.wall_ahead = ahead
            self.bob.sets_timer("alice", 20)
            self.scene.settle()
            self.assertEqual(settings.timer_of(self.alice.vault, "bob"), 0)
        self.assertEqual([event.code for event in self.alice.told(Notice)], [ProtocolError.code])
        self.alice.sets_timer("bob", 30)
        self.assertEqual(settings.timer_of(self.alice.vault, "bob"), 30)

    def test_who_sets_it_last_has_the_last_word_whatever_the_clocks_say(self) -> None:
        self.bob.wall_ahead = 86_400.0
        self.bob.sets_timer("alice", 20)
        self.scene.settle()
        self.alice.sets_timer("bob", 0)
        self.scene.settle()
        self.assertEqual(settings.timer_of(self.bob.vault, "alice"), 0)

    def test_time_runs_from_reading(self) -> None:
        message_id = self.secret()
        self.scene.pass_time(59)
        self.assertIsNotNone(self.alice.shown(message_id))
        self.scene.pass_time(1000, step=10)
        self.assertIsNone(self.alice.shown(message_id), "that of the one who wrote it runs from the writing")
        self.assertEqual(self.gone(self.alice), [message_id])
        self.assertEqual(self.item(self.bob, message_id).text, WORDS)
        self.bob.core.mark_read("alice")
        self.scene.pass_time(59)
        self.assertEqual(self.item(self.bob, message_id).text, WORDS)
        self.assertEqual(self.gone(self.bob), [])
        self.scene.pass_time(2)
        self.assertIsNone(self.bob.shown(message_id))
        self.assertEqual(self.gone(self.bob), [message_id])
        self.assertEqual(words_in(self.alice.vault, WORDS) + words_in(self.bob.vault, WORDS), [])

    def test_what_belongs_to_it_goes_with_it(self) -> None:
        message_id = self.secret(3600)
        self.alice.edits(message_id, f"again: {WORDS}")
        self.bob.reacts(message_id, "🔥")
        self.bob.core.mark_read("alice")
        self.scene.pass_time(3)
        self.assertEqual(self.alice.vault.state_of(message_id), State.READ)
        self.scene.pass_time(3700, step=20)
        for person in (self.alice, self.bob):
            self.assertEqual(words_in(person.vault, WORDS), [])
            self.assertEqual(reactions_of(person.vault, message_id), [])
        # What is said of it once more brings nothing back.
        now = int(self.scene.clock.seconds() * 1000)
        with self.alice.vault.transaction():
            content = encode_content(Edit(Ref(*split_id(message_id)), WORDS))
            composing.insert(self.alice.vault, "bob", "", content, now, shown=False)
        self.alice.says("bob", "so?")
        self.scene.settle()
        self.assertEqual(self.bob.reads("alice"), ["hello", "so?"])
        self.assertEqual(words_in(self.bob.vault, WORDS), [])

    def test_on_another_device_of_ones_own_it_runs_from_the_writing(self) -> None:
        second = self.scene.further_device(self.alice)
        self.scene.pass_time(310, step=10)
        second.disconnects()
        soon = self.secret(100)
        late = self.secret(1000)
        self.scene.pass_time(500, step=10)
        second.connects()
        self.scene.settle()
        self.assertIsNone(second.shown(soon))
        self.assertIsNotNone(second.shown(late))
        self.assertNotIn(soon, [event.id for event in second.told(MessageReceived)])
        self.scene.pass_time(510, step=10)
        self.assertIsNone(second.shown(late))
        self.assertEqual(words_in(second.vault, WORDS), [])

    def test_while_nobody_is_connected_nobody_sees_it(self) -> None:
        message_id = self.secret()
        self.bob.core.mark_read("alice")
        self.scene.pass_time(3)
        self.bob.disconnects()
        other = self.bob.another_process()
        self.addCleanup(other.close)
        self.assertIn(message_id, [item.id for item in other.history("alice")])
        self.scene.clock.advance(60)
        other.clock = self.scene.clock.seconds
        self.assertNotIn(message_id, [item.id for item in other.history("alice")])
        self.assertEqual([one.last_at for one in other.conversations()], [other.history("alice")[-1].at])
        self.assertEqual(words_in(other, WORDS), ["messages"])
        self.bob.dies()
        self.assertEqual(words_in(self.bob.vault, WORDS), [], "it goes when the program starts, connected or not")
        self.bob.events += self.bob.core.take_events()
        self.assertEqual(self.gone(self.bob), [message_id])

    def test_what_was_not_sent_yet_stays_until_it_was(self) -> None:
        self.alice.sets_timer("bob", 60)
        self.scene.settle()
        self.alice.disconnects()
        message_id = self.alice.says("bob", WORDS)
        self.scene.pass_time(1000, step=10)
        self.alice.dies()
        self.assertEqual(self.item(self.alice, message_id).state, State.WAITING)
        self.alice.connects()
        self.scene.settle()
        self.assertEqual(self.bob.reads("alice")[-1], WORDS)
        self.scene.pass_time(2)
        self.assertIsNone(self.alice.shown(message_id))
        self.assertEqual(words_in(self.alice.vault, WORDS), [])

    def test_an_edit_that_was_not_sent_yet_goes_out_first(self) -> None:
        message_id = self.secret()
        self.scene.pass_time(30)
        self.alice.disconnects()
        self.alice.edits(message_id, f"never: {WORDS}")
        self.scene.clock.advance(100)
        self.assertIsNone(self.alice.shown(message_id))
        self.alice.dies()
        self.alice.connects()
        self.scene.settle()
        self.assertEqual(self.item(self.bob, message_id).text, f"never: {WORDS}")
        self.scene.pass_time(3)
        self.assertEqual(words_in(self.alice.vault, WORDS), [])
        self.assertEqual(self.item(self.bob, message_id).text, f"never: {WORDS}")

    def test_what_stays_stays(self) -> None:
        self.bob.core.mark_read("alice")
        self.scene.pass_time(3000, step=20)
        self.assertEqual(self.bob.reads("alice"), ["hello"])
        self.assertEqual(self.gone(self.bob), [])

    def test_how_long_it_may_be(self) -> None:
        for seconds in (-1, MAX_SECONDS + 1):
            self.assertRaises(RequestError, self.alice.sets_timer, "bob", seconds)
        self.assertRaises(RequestError, self.alice.sets_timer, "no such name!", 10)

    def test_looking_for_what_is_due_does_not_read_the_messages(self) -> None:
        plan = self.alice.vault.execute(
            f"EXPLAIN QUERY PLAN SELECT 1 {expiring.DUE} LIMIT 1",
            (0,),
        ).fetchall()
        self.assertIn("messages_expiring", str(plan[0]))

    def test_each_conversation_has_its_own(self) -> None:
        """What carol sets holds between carol and bob only."""
        carol = self.scene.person("carol")
        carol.sets_timer("bob", 5)
        self.scene.settle()
        self.assertEqual(settings.timer_of(self.bob.vault, "carol"), 5)
        self.assertEqual(settings.timer_of(self.bob.vault, "alice"), 0)
        self.assertEqual(self.bob.told(Notice), [])
