"""Replies, reactions, edits and deletes between two people, on all of their devices, in whatever order they come."""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Raw

from fastchat.errors import NotAllowed, RequestError
from fastchat.protocols import wire
from fastchat_client import amending, marking, speaking
from fastchat_client.content import Content, Delete, Edit, Reaction, Ref, Retry, Text, encode_content
from fastchat_client.events import Deleted, Edited, MessageReceived, Notice, Reacted
from fastchat_client.marking import MOST_REACTIONS, reactions_of
from fastchat_client.vault import Vault, split_id
from tests.support.conversation import Person, SceneTest
from tests.support.vaults import words_in

OFFENSIVE = "the words that are to go"


class Pair(SceneTest):
    def setUp(self) -> None:
        super().setUp()
        self.alice, self.bob = self.scene.person("alice"), self.scene.person("bob")
        self.bobs = self.bob.says("alice", "lunch?")
        self.scene.settle()
        self.alices = self.alice.says("bob", "at one")
        self.scene.settle()

    def second_device(self, person: Person) -> Person:
        """Everybody knows of it."""
        device = self.scene.further_device(person)
        self.scene.pass_time(310, step=10)
        return device

    def sends(self, person: Person, to: str, content: Content) -> int:
        """Whatever a program of another make might; its number."""

        def composed(vault: Vault, at: int) -> str:
            with vault.transaction():
                return str(speaking.insert(vault, to, "", encode_content(content), at, shown=False))

        n = int(person.core.compose(composed))
        self.scene.settle()
        return n

    def ref(self, message_id: str) -> Ref:
        return Ref(*split_id(message_id))

    def text(self, person: Person, message_id: str = "") -> str:
        item = person.shown(message_id or self.alices)
        assert item is not None
        return item.text

    def reversed_for(self, person: Person, *acts: Callable[[], object]) -> None:
        """All of these are done while `person` is away, and come in another order: the last one first."""
        person.disconnects()
        for act in acts:
            act()
            self.scene.settle()
        self.network.devices[person.device].mailbox.reverse()
        person.connects()
        self.scene.settle()

    def damaged_for(self, person: Person, n: int) -> None:
        """What goes to `person` under this number is damaged on the way, from here on."""

        def mangle(device: str, message: wire.ServerMessage) -> list[wire.ServerMessage]:
            if isinstance(message, wire.Message) and (device, message.n) == (person.device, n):
                return [wire.Message(message.k, message.user, message.device, n, message.at, Raw(b'"AQAA"'))]
            return [message]

        self.network.mangle = mangle


class Replies(Pair):
    def test_a_reply_names_what_it_answers(self) -> None:
        answer = self.bob.says("alice", "better two", reply=self.alices)
        self.scene.settle()
        self.assertEqual(self.alice.told(MessageReceived)[-1].reply, self.alices)
        for person in (self.alice, self.bob):
            item = person.shown(answer)
            assert item is not None
            self.assertEqual(item.reply, self.alices)

    def test_what_cannot_be_answered(self) -> None:
        carol = self.scene.person("carol")
        carols = carol.says("bob", "hello")
        self.scene.settle()
        gone = self.bob.says("alice", "x")
        self.bob.deletes(gone)
        for reply in (carols, gone, "nonsense", f"{self.alice.device}.99"):
            self.assertRaises(RequestError, self.bob.says, "alice", "what?", reply)
        self.scene.settle()
        self.assertTrue(self.bob.core.ready, "a mistake of the person's is none of the connection")


class Reactions(Pair):
    def test_an_emoji_that_is_joined_of_several(self) -> None:
        self.bob.reacts(self.alices, "👩\u200d💻")
        self.scene.settle()
        self.assertEqual(reactions_of(self.alice.vault, self.alices), [("bob", "👩\u200d💻")])

    def test_both_see_it_and_it_can_be_taken_back(self) -> None:
        self.bob.reacts(self.alices, "👍")
        self.bob.reacts(self.alices, "🎉")
        self.alice.reacts(self.alices, "👍")
        self.scene.settle()
        first, _ = self.alice.told(Reacted)
        self.assertEqual((first.conversation, first.id, first.sender, first.emoji), ("bob", self.alices, "bob", "👍"))
        everything = [("bob", "👍"), ("bob", "🎉"), ("alice", "👍")]
        for person in (self.alice, self.bob):
            self.assertCountEqual(reactions_of(person.vault, self.alices), everything)
        self.bob.reacts(self.alices, "👍", remove=True)
        self.scene.settle()
        self.assertTrue(self.alice.told(Reacted)[-1].removed)
        for person in (self.alice, self.bob):
            self.assertCountEqual(reactions_of(person.vault, self.alices), everything[1:])

    def test_one_that_comes_before_its_message_is_shown_with_it(self) -> None:
        reached: list[str] = []
        self.reversed_for(
            self.bob,
            lambda: reached.append(self.alice.says("bob", "look at this")),
            lambda: self.alice.reacts(reached[0], "🎉"),
            lambda: self.alice.reacts(reached[0], "👀"),
            lambda: self.alice.reacts(reached[0], "👀", remove=True),
        )
        self.assertEqual(reactions_of(self.bob.vault, reached[0]), [("alice", "🎉")])
        events = [event for event in self.bob.events if isinstance(event, MessageReceived | Reacted)][-2:]
        self.assertEqual([type(event) for event in events], [MessageReceived, Reacted])

    def test_an_earlier_word_that_comes_late_does_not_bring_it_back(self) -> None:
        n = self.alice.vault.number("next_n")
        self.damaged_for(self.bob, n)
        self.alice.reacts(self.bobs, "👍")
        self.alice.reacts(self.bobs, "👍", remove=True)
        self.scene.settle()
        self.scene.pass_time(3)
        self.assertEqual(reactions_of(self.bob.vault, self.bobs), [])
        self.assertIsNone(self.bob.shown(f"{self.alice.device}.{n}"), "what came again was nothing to be shown")

    def test_twenty_of_one_account_on_one_message(self) -> None:
        for number in range(MOST_REACTIONS):
            self.bob.reacts(self.alices, f"+{number}")
        self.assertRaises(RequestError, self.bob.reacts, self.alices, "+20")
        self.scene.settle()
        self.sends(self.bob, "alice", Reaction(self.ref(self.alices), "+20"))
        self.assertEqual(len(reactions_of(self.alice.vault, self.alices)), MOST_REACTIONS)
        self.assertEqual(len(self.bob.vault.execute("SELECT n FROM outbox WHERE state < 2").fetchall()), 0)

    def test_however_often_one_changes_ones_mind_it_is_little_that_is_kept(self) -> None:
        for number in range(3 * MOST_REACTIONS):
            self.sends(self.bob, "alice", Reaction(self.ref(self.alices), f"-{number}", remove=True))
        (kept,) = self.alice.vault.execute("SELECT COUNT(*) FROM reactions").fetchone()
        self.assertLessEqual(kept, 2 * MOST_REACTIONS)

    def test_what_is_no_reaction(self) -> None:
        for emoji in ("", " ", "x" * 17, "a\nb", "\x1b[2J", "\ud800"):
            self.assertRaises(RequestError, self.bob.reacts, self.alices, emoji)
        self.assertRaises(RequestError, self.bob.reacts, self.alices, "👍", remove=True)
        self.bob.reacts(self.alices, "👍")
        self.assertRaises(RequestError, self.bob.reacts, self.alices, "👍")
        self.assertRaises(RequestError, self.bob.reacts, f"{self.alice.device}.77", "👍")

    def test_a_message_of_another_conversation(self) -> None:
        carol = self.scene.person("carol")
        carol.says("alice", "hello")
        self.scene.settle()
        for emoji in ("👍", "🎉"):
            self.sends(carol, "alice", Reaction(self.ref(self.alices), emoji))
        self.assertEqual(reactions_of(self.alice.vault, self.alices), [])
        self.assertEqual(self.alice.told(Reacted), [])
        (notice,) = self.alice.told(Notice)
        self.assertEqual(notice.code, NotAllowed.code)
        self.assertIn("carol", notice.text)


class Edits(Pair):
    def test_the_message_says_something_else(self) -> None:
        self.alice.edits(self.alices, "at two")
        self.scene.settle()
        (edited,) = self.bob.told(Edited)
        self.assertEqual((edited.conversation, edited.id, edited.text), ("alice", self.alices, "at two"))
        for person in (self.alice, self.bob):
            item = person.shown(self.alices)
            assert item is not None
            self.assertEqual((item.text, item.edited), ("at two", True))

    def test_only_who_wrote_it(self) -> None:
        self.assertRaises(NotAllowed, self.bob.edits, self.alices, "never")
        for content in (
            Edit(self.ref(self.alices), "never"),
            Delete(self.ref(self.alices)),
            Edit(self.ref(self.alices), "no"),
        ):
            self.sends(self.bob, "alice", content)
        self.assertEqual(self.text(self.alice), "at one")
        (notice,) = self.alice.told(Notice)
        self.assertEqual(notice.code, NotAllowed.code)
        self.assertEqual(self.alice.told(Edited) + self.alice.told(Deleted), [])

    def test_not_before_it_has_come_either(self) -> None:
        coming = self.alice.vault.number("next_n")
        carol = self.scene.person("carol")
        carol.says("bob", "hello")
        self.scene.settle()
        for content in (Edit(Ref(self.alice.device, coming), "never"), Delete(Ref(self.alice.device, coming))):
            self.sends(carol, "bob", content)
        self.sends(carol, "bob", Reaction(Ref(self.alice.device, coming), "👍"))
        self.assertEqual(self.alice.says("bob", "now").rpartition(".")[2], str(coming))
        self.scene.settle()
        self.assertEqual(self.bob.reads("alice"), ["at one", "now"])
        self.assertEqual(reactions_of(self.bob.vault, f"{self.alice.device}.{coming}"), [])
        (notice,) = self.bob.told(Notice)
        self.assertIn("carol", notice.text)

    def test_what_comes_before_its_message_is_kept_and_applied(self) -> None:
        reached: list[str] = []
        self.reversed_for(
            self.bob,
            lambda: reached.append(self.alice.says("bob", "one")),
            lambda: self.alice.edits(reached[0], "two"),
            lambda: self.alice.edits(reached[0], "three"),
        )
        self.assertEqual(self.text(self.bob, reached[0]), "three")
        events = [event for event in self.bob.events if isinstance(event, MessageReceived | Edited)][-2:]
        self.assertEqual([event.text for event in events], ["one", "three"])

    def test_what_waits_for_a_message_that_never_comes(self) -> None:
        """A little of it, and not for ever."""
        self.patch(amending, "MOST_PENDING", 3)
        self.patch(marking, "MOST_PENDING", 3)
        for n in range(100, 105):
            for content in (Edit(Ref("f" * 32, n), "x"), Delete(Ref("f" * 32, n)), Reaction(Ref("f" * 32, n), "👍")):
                self.sends(self.bob, "alice", content)
        tables = ("edits", "deletes", "reactions")

        def kept() -> list[int]:
            counted = (self.alice.vault.execute(f"SELECT COUNT(*) FROM {name}").fetchone() for name in tables)  # noqa: S608
            return [count for (count,) in counted]

        self.assertEqual(kept(), [3, 3, 3])
        self.alice.wall_ahead = 29 * 86_400.0
        self.scene.pass_time(65)
        self.assertEqual(kept(), [3, 3, 3])
        self.alice.wall_ahead = 31 * 86_400.0
        self.scene.pass_time(65)
        self.assertEqual(kept(), [0, 0, 0])

    def test_the_newest_of_one_device_whatever_its_clock_says(self) -> None:
        self.alice.edits(self.alices, "two")
        self.scene.settle()
        self.alice.wall_ahead = -86_400.0
        self.alice.edits(self.alices, "three")
        self.scene.settle()
        for person in (self.alice, self.bob):
            self.assertEqual(self.text(person), "three")

    def test_edits_of_two_devices_end_the_same_everywhere(self) -> None:
        second = self.second_device(self.alice)
        message_id = self.alice.says("bob", "where?")
        self.scene.settle()
        third = self.second_device(self.bob)
        self.bob.disconnects()
        self.alice.disconnects()
        self.alice.edits(message_id, "here")
        self.scene.clock.advance(1)
        second.edits(message_id, "there")
        self.scene.settle()
        self.alice.connects()
        self.scene.settle()
        self.bob.connects()
        self.scene.settle()
        texts = [self.text(person, message_id) for person in (self.alice, second, self.bob)]
        self.assertEqual(texts, ["there"] * 3)
        self.assertIsNone(third.shown(message_id), "it came before this device")

    def test_what_cannot_be_edited(self) -> None:
        for text in ("", "x" * (speaking.MAX_TEXT + 1), "\ud800"):
            self.assertRaises(RequestError, self.alice.edits, self.alices, text)
        self.assertRaises(RequestError, self.alice.edits, "nonsense", "x")
        self.alice.deletes(self.alices)
        for act in (
            self.alice.deletes,
            lambda one: self.alice.edits(one, "x"),
            lambda one: self.alice.reacts(one, "x"),
        ):
            self.assertRaises(RequestError, act, self.alices)


class Deletes(Pair):
    def test_it_is_gone_everywhere(self) -> None:
        second = self.second_device(self.alice)
        message_id = self.alice.says("bob", f"first {OFFENSIVE}")
        self.scene.settle()
        self.alice.edits(message_id, f"once more {OFFENSIVE}")
        self.alice.edits(message_id, f"and again {OFFENSIVE}")
        self.bob.reacts(message_id, "👎")
        self.scene.settle()
        everybody = (self.alice, second, self.bob)
        for person in everybody:
            self.assertIn("messages", words_in(person.vault, OFFENSIVE))
        self.assertEqual(self.bob.vault.unread("alice"), 2)
        second.deletes(message_id)
        self.scene.settle()
        for person in everybody:
            item = person.shown(message_id)
            assert item is not None
            self.assertEqual((item.text, item.deleted, item.edited), ("", True, False))
            self.assertEqual(words_in(person.vault, OFFENSIVE), [])
            self.assertEqual(reactions_of(person.vault, message_id), [])
        self.assertEqual(self.bob.vault.unread("alice"), 1)
        self.assertEqual([event.id for event in self.bob.told(Deleted)], [message_id])
        self.assertEqual([event.id for event in self.alice.told(Deleted)], [message_id])

    def test_what_was_not_sent_never_is(self) -> None:
        self.alice.disconnects()
        message_id = self.alice.says("bob", OFFENSIVE)
        self.alice.edits(message_id, f"more {OFFENSIVE}")
        self.alice.deletes(message_id)
        self.assertEqual(words_in(self.alice.vault, OFFENSIVE), [])
        after = self.alice.says("bob", "never mind")
        self.alice.connects()
        self.scene.settle()
        self.assertEqual(self.bob.reads("alice"), ["at one", "never mind"])
        self.assertEqual(self.bob.told(Notice) + self.bob.told(Deleted), [])
        self.assertIsNotNone(self.bob.shown(after))
        self.assertEqual(self.alice.vault.waiting(), 0)

    def test_it_is_final(self) -> None:
        n = self.alice.vault.number("next_n") + 1
        message_id = self.alice.says("bob", OFFENSIVE)
        self.scene.settle()
        self.damaged_for(self.bob, n)
        self.alice.edits(message_id, f"late {OFFENSIVE}")
        self.alice.deletes(message_id)
        self.scene.settle()
        self.scene.pass_time(3)
        self.sends(self.alice, "bob", Edit(self.ref(message_id), OFFENSIVE))
        self.sends(self.alice, "bob", Reaction(self.ref(message_id), "👍"))
        item = self.bob.shown(message_id)
        assert item is not None
        self.assertEqual((item.text, item.deleted), ("", True))
        self.assertNotIn("messages", words_in(self.bob.vault, OFFENSIVE))
        self.assertNotIn("edits", words_in(self.bob.vault, OFFENSIVE))

    def test_one_that_comes_before_its_message(self) -> None:
        reached: list[str] = []
        self.reversed_for(
            self.bob,
            lambda: reached.append(self.alice.says("bob", OFFENSIVE)),
            lambda: self.alice.edits(reached[0], f"more {OFFENSIVE}"),
            lambda: self.alice.deletes(reached[0]),
        )
        item = self.bob.shown(reached[0])
        # What was deleted before it was fetched had been sent: the words come, and are not taken.
        assert item is not None
        self.assertEqual((item.text, item.deleted), ("", True))
        self.assertEqual(words_in(self.bob.vault, OFFENSIVE), [])
        self.assertEqual([event.id for event in self.bob.told(Deleted)], reached)
        self.assertEqual([event.text for event in self.bob.told(MessageReceived)], ["at one"])

    def test_who_could_not_read_it_gets_nothing_any_more(self) -> None:
        n = self.alice.vault.number("next_n")
        self.damaged_for(self.bob, n)
        self.network.withhold.add(self.alice.device)  # the question does not reach her before she deletes
        message_id = self.alice.says("bob", OFFENSIVE)
        self.scene.settle()
        self.alice.deletes(message_id)
        self.network.withhold.clear()
        self.network.lines[self.alice.device].deliver()
        self.scene.settle()
        self.scene.pass_time(3)
        self.assertNotIn(OFFENSIVE, " ".join(self.bob.reads("alice")))
        self.assertEqual(words_in(self.bob.vault, OFFENSIVE) + words_in(self.alice.vault, OFFENSIVE), [])

    def test_words_that_were_sent_again_go_as_well(self) -> None:
        n = self.alice.vault.number("next_n")
        self.damaged_for(self.bob, n)
        message_id = self.alice.says("bob", OFFENSIVE)
        self.scene.settle()
        self.scene.pass_time(3)
        self.assertEqual(self.bob.reads("alice"), ["at one", OFFENSIVE], "it has come again")
        self.alice.deletes(message_id)
        self.scene.settle()
        self.assertEqual(words_in(self.bob.vault, OFFENSIVE) + words_in(self.alice.vault, OFFENSIVE), [])


class OtherContents(Pair):
    def test_what_is_between_devices_says_nothing_of_messages(self) -> None:
        """A `Text` under the name of one that is there changes nothing."""
        self.sends(self.bob, "alice", Retry(99, "bad-mac"))
        self.assertEqual(self.alice.told(Notice), [])

    def test_composing_in_another_process(self) -> None:
        vault = self.alice.another_process()
        self.addCleanup(vault.close)
        now = int(self.scene.clock.seconds() * 1000)
        speaking.compose_reaction(vault, self.bobs, "👍", False, now)
        speaking.compose_edit(vault, self.alices, "at three", now)
        answer = speaking.compose_text(vault, "bob", "and bring Carol", now, self.bobs)
        self.scene.pass_time(2)
        self.assertEqual(reactions_of(self.bob.vault, self.bobs), [("alice", "👍")])
        self.assertEqual(self.bob.reads("alice"), ["at three", "and bring Carol"])
        speaking.compose_delete(vault, answer, now)
        self.scene.pass_time(2)
        item = self.bob.shown(answer)
        assert item is not None
        self.assertTrue(item.deleted)

    def test_a_text_that_names_what_is_not_here_is_shown(self) -> None:
        self.sends(self.bob, "alice", Text("as I said", Ref("f" * 32, 3)))
        self.assertEqual(self.alice.told(MessageReceived)[-1].reply, "f" * 32 + ".3")
