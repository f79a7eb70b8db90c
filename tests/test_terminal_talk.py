"""The talk of the terminal: what is typed and what happens, and what a person sees of it."""

from __future__ import annotations

from fastchat_client.commands import CommandError
from fastchat_client.events import (
    Connected,
    Connecting,
    Disconnected,
    LogAlarm,
    MailboxProgress,
    MessageHeld,
    MessageState,
    MessageUnreadable,
    Moving,
    Notice,
    RootChanged,
    State,
)
from fastchat_client.terminal import render
from fastchat_client.terminal.progress import LINE_EVERY
from fastchat_client.terminal.sent import HOLD_SECONDS, LIVE_LINES
from fastchat_client.terminal.talk import Talk
from fastchat_client.vault import Contact, HistoryItem
from tests.support.talking import AT, DULL, NOW, Paper, TalkCase


class TalkTests(TalkCase):
    def test_a_message_waits_in_the_live_region_and_is_printed_once_with_its_state(self) -> None:
        self.talk.typed("/msg bob hi")
        self.printed()
        self.assertEqual(len(self.live()), 1)
        self.assertTrue(self.live()[0].endswith("you: hi  … waiting"))
        self.tell(MessageState("d1.1", "bob", State.ACCEPTED))
        self.assertTrue(self.live()[0].endswith("you: hi  ✓"))
        self.tell(MessageState("d1.1", "bob", State.DELIVERED))
        self.assertTrue(self.live()[0].endswith("you: hi  ✓✓"))
        self.assertEqual(self.printed(), [])
        self.clock.advance(HOLD_SECONDS)
        self.assertEqual(self.live(), [])
        (line,) = self.printed()
        self.assertTrue(line.endswith("you: hi  ✓✓"))

    def test_one_that_is_read_at_once_needs_no_second_line(self) -> None:
        self.talk.typed("/msg bob hi")
        self.printed()
        self.tell(*[MessageState("d1.1", "bob", state) for state in (State.ACCEPTED, State.DELIVERED, State.READ)])
        (line,) = self.printed()
        self.assertTrue(line.endswith("you: hi  ✓✓ read"))
        self.clock.advance(HOLD_SECONDS)
        self.assertEqual(self.printed(), [])

    def test_what_comes_later_is_told_in_one_line_for_many(self) -> None:
        self.talk.typed("/msg bob one")
        self.talk.typed("two")
        self.tell(*[MessageState(f"d1.{n}", "bob", State.ACCEPTED) for n in (1, 2)])
        self.clock.advance(HOLD_SECONDS)
        self.printed()
        self.tell(*[MessageState(f"d1.{n}", "bob", s) for s in (State.DELIVERED, State.READ) for n in (1, 2)])
        self.assertEqual([line.strip() for line in self.printed()], ["✓✓ read  bob: 2 messages"])
        self.tell(MessageState("d1.1", "bob", State.DELIVERED))
        self.assertEqual(self.printed(), [], "a state never turns back")

    def test_a_refused_message_says_why(self) -> None:
        self.talk.typed("/msg bob hi")
        self.printed()
        self.tell(MessageState("d1.1", "bob", State.FAILED, "the mailbox is full"))
        (line,) = self.printed()
        self.assertTrue(line.endswith("you: hi  ✗ not sent: the mailbox is full"))

    def test_what_comes_is_printed_after_what_was_accepted_and_before_what_waits(self) -> None:
        self.talk.typed("/msg bob one")
        self.talk.typed("two")
        self.tell(MessageState("d1.1", "bob", State.ACCEPTED))
        self.printed()
        self.tell(self.come("bob", "an answer"))
        lines = self.printed()
        self.assertEqual([line.split(": ")[1].split("  ")[0] for line in lines], ["one", "an answer"])
        self.assertEqual(len(self.live()), 1)

    def test_many_that_wait_do_not_fill_the_screen(self) -> None:
        self.talk.typed("/msg bob 0")
        for n in range(1, 40):
            self.talk.typed(str(n))
        self.assertEqual(len(self.live()), LIVE_LINES + 1)
        self.assertIn("35 more", self.live()[0])

    def test_a_message_in_the_open_conversation_is_read(self) -> None:
        self.talk.typed("/msg bob")
        self.printed()
        self.tell(self.come("bob", "hi"))
        self.assertIn("bob: hi", self.printed()[0])
        self.assertEqual(self.messenger.done[-1], ("read", "bob"))
        self.assertNotIn("unread", self.status())

    def test_a_message_elsewhere_is_announced_counted_and_not_read(self) -> None:
        self.talk.typed("/msg bob")
        self.printed()
        self.tell(self.come("carol", "first line\nsecond " + "x" * 100))
        (line,) = self.printed()
        self.assertIn("✉ carol: first line second", line)
        self.assertTrue(line.endswith("…"))
        self.assertIn("unread: carol 1", self.status())
        self.assertNotIn(("read", "carol"), self.messenger.done)
        self.talk.typed("/msg carol")
        self.assertIn(("read", "carol"), self.messenger.done)
        self.assertNotIn("unread", self.status())

    def test_a_full_mailbox_is_counted_not_printed(self) -> None:
        self.tell(Connected("chat-1", 3))
        self.printed()
        self.tell(self.come("carol", "1", 1), self.come("carol", "2", 2), MailboxProgress(2, 3))
        self.assertIn("receiving 3 messages: 2 (66 %)", self.status())
        self.tell(self.come("dave", "3"), MailboxProgress(3, 3))
        self.assertEqual(self.printed(), ["While you were away: carol 2, dave 1"])
        self.assertIn("unread: dave 1, carol 2", self.status())

    def test_a_plain_screen_says_how_far_it_is_now_and_then(self) -> None:
        self.begin(Paper(live=False))
        self.tell(Connected("chat-1", 10_000))
        self.printed()
        for done in range(1000, 10_000, 1000):
            self.tell(MailboxProgress(done, 10_000))
            self.clock.advance(LINE_EVERY / 2)
        self.assertEqual(self.printed()[1], "receiving 10,000 messages: 5,000 (50 %)")
        self.tell(self.come("carol", "hi"), MailboxProgress(10_000, 10_000))
        self.assertEqual(self.printed(), ["received 10,000 messages", "While you were away: carol 1"])
        self.assertNotIn("receiving", self.status())

    def test_a_lost_connection_ends_the_receiving(self) -> None:
        self.tell(Connected("chat-1", 10_000), MailboxProgress(64, 10_000))
        self.assertIn("receiving 10,000 messages: 64 (0 %)", self.status())
        self.tell(Disconnected("unreachable", "gone", 3.0))
        self.assertNotIn("receiving", self.status())

    def test_what_comes_at_once_into_the_open_conversation_is_marked_at_once(self) -> None:
        self.talk.typed("/msg carol")
        self.messenger.done.clear()
        self.tell(*(self.come("carol", str(number), number) for number in range(64)))
        self.assertEqual([done for done in self.messenger.done if done[0] == "read"], [("read", "carol")])
        self.messenger.done.clear()
        self.tell(self.come("dave", "hi"))
        self.assertEqual(self.messenger.done, [])

    def test_being_offline_is_said_once_and_counted_down(self) -> None:
        self.tell(Connecting("x"), Disconnected("unreachable", "nobody there", 30.0))
        self.assertEqual(len(self.printed()), 1)
        self.assertIn("next try in 30 s", self.status())
        self.clock.advance(20)
        self.assertIn("next try in 10 s", self.status())
        self.tell(Connecting("x"), Disconnected("unreachable", "nobody there", 60.0))
        self.assertEqual(self.printed(), [])
        self.tell(Connected("chat-2", 0))
        self.assertEqual(self.printed(), ["connected to chat-2"])
        self.assertIn("chat-2", self.status())

    def test_moving_to_another_service_is_a_word_in_the_status_line(self) -> None:
        for live in (True, False):
            self.begin(Paper(live))
            self.tell(Connected("chat-1", 0))
            self.printed()
            self.tell(Moving(2.0), Connecting("x"), Moving(4.0), Connecting("x"))
            self.assertIn("moving to another service", self.status())
            self.tell(Connected("chat-2", 0))
            self.assertIn("chat-2", self.status())
            self.assertEqual(self.printed(), [], "nobody is interrupted by it")

    def test_a_move_that_takes_too_long_is_said_like_any_absence(self) -> None:
        self.tell(Connected("chat-1", 0), Moving(2.0), Connecting("x"))
        self.assertEqual(self.printed(), [])
        self.tell(Disconnected("unreachable", "nobody there", 30.0))
        self.assertIn("nobody there", self.printed()[0])
        self.assertIn("next try in 30 s", self.status())
        self.tell(Connected("chat-2", 0))
        self.assertEqual(self.printed(), ["connected to chat-2"])

    def test_the_end_of_all_trying_is_said(self) -> None:
        self.tell(Disconnected("replaced", "This device has logged in elsewhere", None))
        self.assertIn("logged in elsewhere", self.printed()[0])
        self.assertIn("not connected", self.status())
        self.talk.typed("/reconnect")
        self.assertEqual(self.messenger.done, [("reconnect",)])

    def test_a_changed_key_is_explained_and_accepted(self) -> None:
        self.messenger.vault.known = [Contact("bob", "aaaa", "bbbb")]
        self.tell(RootChanged("bob", "aaaa", "bbbb"))
        self.assertIn("/accept bob", self.printed()[0])
        self.talk.typed("/msg bob")
        self.assertTrue(any("/accept bob" in line for line in self.printed()))
        self.talk.typed("/accept bob")
        self.assertIn(("accept", "bob"), self.messenger.done)
        self.messenger.vault.known = [Contact("bob", "bbbb")]
        self.printed()
        self.talk.typed("/accept bob")
        self.assertIn("has not changed", self.printed()[0])

    def test_the_other_events(self) -> None:
        self.tell(
            MessageUnreadable("bob", "bob", "bad-mac", AT, "b.1", True),
            MessageHeld("bob", "its keys are not known yet", "b.2"),
            LogAlarm("two roots", "evidence"),
            LogAlarm("two roots", "evidence", proof=False),
            Notice("x", "something"),
        )
        text = "\n".join(self.printed())
        for expected in ("asked for again", "kept unread", "ALARM", "or says so", "the file", "something"):
            self.assertIn(expected, text)

    def test_errors_of_commands_are_shown(self) -> None:
        for line in ("hello", "/nonsense", "/msg", "/msg Bad!Name x", "/msg alice hi"):
            self.talk.typed(line)
            self.assertEqual(len(self.printed()), 1, line)
        self.assertEqual(self.messenger.done, [])
        self.assertRaises(CommandError, self.talk.open, "alice")

    def test_who_help_whoami_history_quit(self) -> None:
        self.come("dave", "hi")
        self.talk.typed("/who")
        who = "\n".join(self.printed())
        for expected in ("dave", "1 unread", "bob", "carol"):
            self.assertIn(expected, who)
        self.talk.typed("/help")
        self.assertIn("/history [WHO] [LINES]", self.printed()[0])
        self.talk.typed("/whoami")
        self.assertIn("alice, device d1", self.printed()[0])
        self.talk.typed("/history dave")
        self.assertIn("dave: hi", self.printed()[1])
        self.talk.typed("/history erin")
        self.assertIn("no messages", self.printed()[1])
        self.talk.typed("/quit")
        self.assertTrue(self.paper.ended)

    def test_opening_shows_what_was_said_with_its_states_which_go_on(self) -> None:
        self.messenger.vault.items = [
            HistoryItem("d1.7", "bob", "alice", "mine", 0, True, "accepted"),
            HistoryItem("d2.1", "bob", "alice", "from my phone", 0, True, "accepted"),
        ]
        self.talk.began("bob")
        text = "\n".join(self.printed())
        self.assertIn("you: mine  ✓", text)
        self.assertIn("you (elsewhere): from my phone", text)
        self.tell(MessageState("d1.7", "bob", State.READ))
        self.assertIn("read", self.printed()[0])

    def test_names_for_completion_begin_with_the_newest_conversation(self) -> None:
        self.come("dave", "hi")
        self.talk.began(None)
        self.assertEqual(self.talk.completions("/msg "), ["dave", "bob", "carol"])
        self.assertIn("Unread: dave 1", self.printed()[1])

    def test_leaving_prints_what_is_in_the_live_region(self) -> None:
        self.talk.typed("/msg bob hi")
        self.printed()
        self.talk.ended()
        self.assertIn("you: hi  … waiting", self.printed()[0])

    def test_without_a_live_region_each_state_is_a_line(self) -> None:
        self.begin(Paper(live=False))
        self.talk.typed("/msg bob hi")
        self.assertIn("you: hi  … waiting", self.printed()[-1])
        self.tell(Connected("chat-1", 0), MessageState("d1.1", "bob", State.ACCEPTED))
        self.assertIn('✓  bob: "hi"', self.printed()[-1])
        self.tell(MessageState("d1.1", "bob", State.DELIVERED))
        self.assertIn('✓✓  bob: "hi"', self.printed()[-1])

    def test_a_dull_terminal_gets_no_symbols(self) -> None:
        talk = Talk(self.messenger, self.paper, DULL, self.clock, self.messenger.book, lambda: NOW)
        talk.began("bob")
        talk.typed("hi")
        talk.on_events([Connected("chat-1", 0), self.come("carol", "x")])
        everything = [*self.printed(), *[render.plain(line) for line in talk.live()]]
        everything += [render.plain(talk.prompt()), render.plain(talk.status())]
        self.assertTrue("".join(everything).isascii(), everything)
