"""What is said of single messages in the terminal, and of people: what alice types and what she sees."""

from __future__ import annotations

from fastchat_client.events import (
    Deleted,
    Edited,
    MessageState,
    MessageWaiting,
    PresenceChanged,
    Reacted,
    State,
    TimerChanged,
    TypingNow,
)
from fastchat_client.marking import Mark
from fastchat_client.terminal.numbers import MOST
from fastchat_client.terminal.signs import TYPING_EVERY, TYPING_SECONDS
from fastchat_client.vault import HistoryItem
from tests.support.talking import AT, ID, GroupCase, group


class Messages(GroupCase):
    def test_a_message_has_a_number_that_stays_whatever_comes_below_it(self) -> None:
        self.tell(self.arrives("one", 1), self.arrives("two", 2, "carol"))
        one, two = self.printed()
        self.assertRegex(one, r"^ 1 \d\d:\d\d bob: one$")
        self.assertRegex(two, r"^ 2 \d\d:\d\d carol: two$")
        self.talk.typed("/react 1 +1")
        self.tell(self.arrives("three", 3))
        self.talk.typed("/react 1 ok")
        self.assertEqual(
            self.messenger.done[1:], [("react", "bob1.1", "👍", False), ("read", ID), ("react", "bob1.1", "👌", False)]
        )
        self.assertEqual(self.printed()[0], '   you 👍 1 "one"')

    def test_numbers_begin_again_and_then_mean_the_newer_message(self) -> None:
        self.tell(*(self.arrives(str(number), number) for number in range(1, MOST + 2)))
        self.printed()
        self.talk.typed("/info 1")
        self.assertIn(f'1 "{MOST + 1}"', self.printed()[0])
        self.talk.typed("/info 2")
        self.assertIn('2 "2"', self.printed()[0])

    def test_last_is_the_newest_of_the_others_or_of_ones_own(self) -> None:
        self.tell(self.arrives("question", 1))
        self.talk.typed("mine")
        self.talk.typed("/reply last answer")
        self.talk.typed("/edit last better answer")
        self.talk.typed("/del 2")
        self.assertEqual(
            self.messenger.done[1:],
            [
                ("send", ID, "mine"),
                ("send", ID, "answer", "bob1.1"),
                ("edit", "d1.2", "better answer"),
                ("delete", "d1.1"),
            ],
        )
        (line,) = self.live()
        self.assertRegex(line, r'^ 3 \d\d:\d\d you ↪ "question": better answer  … waiting$')

    def test_what_another_conversation_said_is_never_quoted(self) -> None:
        """carol, in the group, knows the number of bob's private message, as anybody can, but not its words."""
        self.tell(self.arrives("between us", 1, where="bob"))
        self.printed()
        self.tell(self.arrives("quite so", 2, "carol", reply="bob1.1"))
        self.assertIn('"an earlier message": quite so', self.one())
        self.messenger.vault.items = [
            HistoryItem("bob1.1", "bob", "bob", "between us", 0),
            HistoryItem("carol1.2", ID, "carol", "quite so", 0, reply="bob1.1"),
        ]
        self.talk.typed("/history")
        self.assertNotIn("between us", "".join(self.printed()))

    def test_what_is_shown_of_the_past_does_not_become_the_last(self) -> None:
        self.messenger.vault.items = [HistoryItem(f"b.{number}", ID, "bob", "old", 0) for number in range(3)]
        self.tell(self.arrives("new", 1))
        self.talk.typed("/history")
        self.talk.typed("/react last 👍")
        self.assertEqual(self.messenger.done[-1], ("react", "bob1.1", "👍", False))

    def test_a_number_that_nothing_has_is_refused(self) -> None:
        for line in ("/react 5 👍", "/react last 👍", "/del last", "/del 9999999999", "/react 1a2b.3 👍"):
            self.talk.typed(line)
            self.assertIn("message", self.one())
        self.assertEqual(self.messenger.done, [])

    def test_a_mention_of_oneself_stands_out(self) -> None:
        for text, count in (
            ("hello @alice!", 1),
            ("@ALICE and @alice", 2),
            ("@alice.b", 0),
            ("@alice-b", 0),
            ("mail x@alice", 0),
            ("@bob", 0),
            ("thanks @alice.", 1),
        ):
            self.paper.styles.clear()
            self.tell(self.arrives(text))
            self.assertEqual(self.paper.styles.count("class:mention"), count, text)

    def test_what_waits_for_its_key_is_shown_and_filled_in(self) -> None:
        self.tell(MessageWaiting("bob", ID, "no key", AT, "bob1.1"))
        self.assertRegex(self.one(), r"^ 1 \d\d:\d\d bob: … waits for its key")
        self.tell(self.arrives("two", 2), self.arrives("one", 1))
        two, filled = self.printed()
        self.assertTrue(two.startswith(" 2 "))
        self.assertIn("waiting for its key is here", filled)
        self.assertRegex(filled.split("\n")[1], r"^ 1 \d\d:\d\d bob: one$")
        self.tell(MessageWaiting("bob", group("other", letter="b").conversation, "no key", AT, "bob1.9"))
        self.assertIn("waits for its key", self.one(), "also of a group that is not open: nothing is hidden")

    def test_what_others_say_of_a_message(self) -> None:
        self.tell(self.arrives("one", 1))
        self.printed()
        for event, line in (
            (Reacted(ID, "bob1.1", "carol", "❤️", False, AT), '   carol ❤️ 1 "one"'),
            (Reacted(ID, "bob1.1", "carol", "❤️", True, AT), '   carol takes back ❤️ 1 "one"'),
            (Edited(ID, "bob1.1", "bob", "uno", AT), "   bob changed 1: uno"),
            (Reacted(ID, "bob1.1", "carol", "👍", False, AT), '   carol 👍 1 "uno"'),
            (Deleted(ID, "bob1.1", "bob", AT), '   bob deleted 1 "uno"'),
            (Deleted(ID, "bob1.7", "bob", AT), "   bob deleted an earlier message"),
        ):
            self.tell(event)
            self.assertEqual(self.one(), line)
        self.tell(Reacted("carol", "carol1.1", "carol", "👍", False, AT), Edited("carol", "x.1", "carol", "x", AT))
        self.assertEqual(self.printed(), [], "not of a conversation that nobody looks at")

    def test_a_message_on_its_way_is_changed_where_it_stands(self) -> None:
        self.talk.typed("mine")
        self.talk.typed("/edit last yours")
        self.assertIn("you: yours", self.live()[0])
        self.assertEqual(self.printed(), [])
        self.talk.typed("/del last")
        self.assertEqual(self.live(), [])

    def test_who_has_it_and_who_said_what_to_it(self) -> None:
        self.talk.typed("mine")
        self.messenger.book.noted["d1.1"] = [Mark("bob", "read", 1_795_000_000_000), Mark("carol", "accepted", 0)]
        self.messenger.book.signs["d1.1"] = [("bob", "👍"), ("alice", "👍")]
        self.talk.typed("/info last")
        head, bob, carol, signs = self.printed()
        self.assertIn('you: 1 "mine", id d1.1', head)
        self.assertRegex(bob, r"^   bob    ✓✓ read  .*\d\d:\d\d$")
        self.assertRegex(carol, r"^   carol  ✓  not said to be there yet$")
        self.assertEqual(signs, "   👍 bob, you")

    def test_a_state_that_comes_late_names_the_group(self) -> None:
        self.talk.typed("mine")
        self.tell(MessageState("d1.1", ID, State.ACCEPTED))
        self.clock.advance(10)
        self.printed()
        self.tell(MessageState("d1.1", ID, State.READ))
        self.assertIn('✓✓ read  #team: "mine"', self.one())

    def test_the_past_is_shown_with_all_that_is_known_of_it(self) -> None:
        self.messenger.vault.items = [
            HistoryItem("b.1", ID, "bob", "question", 0),
            HistoryItem("b.2", ID, "bob", "", 0, deleted=True),
            HistoryItem("b.3", ID, "bob", "", 0, unreadable=True, waiting=True),
            HistoryItem("d1.9", ID, "alice", "answer", 0, True, "read", reply="b.1", edited=True, expires=300),
        ]
        self.messenger.book.signs["d1.9"] = [("bob", "👍"), ("carol", "👍"), ("bob", "🙂")]
        self.talk.typed("/history")
        _, _, deleted, waiting, answer = self.printed()
        self.assertTrue(deleted.endswith("bob: (deleted)"))
        self.assertIn("waits for its key", waiting)
        self.assertTrue(answer.endswith('you ↪ "question": answer  (edited)  ⏲ 5m  👍2 🙂  ✓✓ read'), answer)


class SignsOfPeople(GroupCase):
    def test_who_is_writing_stands_in_the_status_line_for_a_moment(self) -> None:
        self.tell(TypingNow(ID, "bob"), TypingNow("dave", "dave"))
        self.assertIn("bob is writing…", self.status())
        self.assertNotIn("dave", self.status())
        self.tell(TypingNow(ID, "carol"))
        self.assertIn("bob and carol are writing…", self.status())
        self.tell(self.arrives("done"))
        self.assertIn("carol is writing…", self.status())
        self.clock.advance(TYPING_SECONDS)
        self.assertNotIn("writing", self.status())

    def test_that_one_is_writing_is_said_now_and_then(self) -> None:
        typing = ("typing", ID)
        for line in ("", " ", "/", "/msg"):
            self.talk.writing(line)
        self.assertEqual(self.messenger.done, [])
        for line in ("h", "he", "hel"):
            self.talk.writing(line)
        self.assertEqual(self.messenger.done, [typing])
        self.clock.advance(TYPING_EVERY)
        self.talk.writing("hell")
        self.assertEqual(self.messenger.done, [typing, typing])
        self.talk.typed("hello")
        self.talk.writing("a")
        self.assertEqual(self.messenger.done[2:], [("send", ID, "hello"), typing])

    def test_who_is_there_has_a_dot(self) -> None:
        self.talk.typed("/msg bob")
        self.assertEqual(self.prompt(), "○ bob › ")
        self.tell(PresenceChanged("bob", True, AT))
        self.assertEqual(self.prompt(), "● bob › ")
        self.printed()
        self.talk.typed("/who")
        lines = self.printed()
        self.assertTrue(any(line.startswith("● bob") for line in lines), lines)
        self.assertTrue(any(line.startswith("  carol") for line in lines), lines)
        self.tell(PresenceChanged("bob", False, AT))
        self.assertEqual(self.prompt(), "○ bob › ")

    def test_what_is_set_is_said(self) -> None:
        for line, words in (
            ("/timer 5m", "you set: what is written in #team from now on goes 5 minutes after its reading"),
            ("/timer off", "you set: what is written in #team from now on stays"),
            ("/mute", "What is written in #team comes without a sign from now on."),
            ("/unmute", "What is written in #team comes with a sign again."),
            ("/block bob", "You see and hear nothing more of bob."),
            ("/unblock bob", "You hear again of bob."),
            ("/presence off", "Nobody sees any more that you are there."),
            ("/presence on", "Others see when you are there"),
        ):
            self.talk.typed(line)
            self.assertIn(words, self.one())
        self.assertEqual(
            self.messenger.done,
            [
                ("timer", ID, 300),
                ("timer", ID, 0),
                ("mute", ID, True),
                ("mute", ID, False),
                ("block", "bob", True),
                ("block", "bob", False),
                ("presence", False),
                ("presence", True),
            ],
        )
        self.tell(TimerChanged(ID, "bob", 604_800, AT))
        self.assertIn("bob set: what is written in #team from now on goes 7 days", self.one())

    def test_tab_knows_groups_and_who_is_in_the_open_one(self) -> None:
        self.assertEqual(self.talk.completions("/msg #t"), ["#team"])
        self.assertEqual(self.talk.completions("hello @c"), ["@carol"])
        self.assertEqual(self.talk.completions("hello @a"), [], "nobody calls himself")
