"""What a person sees: harmless text, rendered lines, the talk on a screen of ours, and the two real screens."""

from __future__ import annotations

import asyncio
import io
import os
import re
from datetime import UTC, datetime
from functools import partial
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from prompt_toolkit.data_structures import Size
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output.vt100 import Vt100_Output
from twisted.internet import reactor as installed
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase, TestCase

from fastchat_client.commands import CommandError
from fastchat_client.events import (
    Connected,
    Connecting,
    Disconnected,
    Event,
    LogAlarm,
    MailboxProgress,
    MessageHeld,
    MessageReceived,
    MessageState,
    MessageUnreadable,
    Moving,
    Notice,
    RootChanged,
    State,
    iso,
)
from fastchat_client.terminal import render
from fastchat_client.terminal.plain import LONGEST_LINE, LineReader, PlainScreen
from fastchat_client.terminal.progress import LINE_EVERY
from fastchat_client.terminal.prompt import PromptScreen
from fastchat_client.terminal.render import Line
from fastchat_client.terminal.talk import HOLD_SECONDS, LIVE_LINES, Talk
from fastchat_client.terminal.text import Look, clean, clean_line, clock, json_line, look_of, moment
from fastchat_client.vault import Contact, Conversation, HistoryItem, Whoami

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
AT = "2026-11-22T11:59:00Z"
RICH = Look(colour=True, symbols=True)
DULL = Look(colour=False, symbols=False)


class CleanTests(SynchronousTestCase):
    def test_nothing_that_moves_the_cursor_or_reorders_is_left(self) -> None:
        for bad in ("\x1b[2J", "\x07", "\x9b31m", "\x7f", "\x00", "\u202e", "\u2066", "\ufff9", "\U000e0041", "\b"):
            self.assertNotIn(bad[0], clean(f"a{bad}b"))
            self.assertIn("\N{REPLACEMENT CHARACTER}", clean(f"a{bad}b"), "what was there is still seen")

    def test_texts_of_people_stay(self) -> None:
        for text in ("héllo", "سلام دنیا", "שלום\u200f!", "👩\u200d👧", "🇮🇷", "日本語", "a\nb", "e\u0301"):
            self.assertEqual(clean(text), text)

    def test_line_ends_and_tabs(self) -> None:
        self.assertEqual(clean("a\r\nb\rc\x0bd\u2028e\tf"), "a\nb\nc\nd\ne    f")
        self.assertEqual(clean_line("a\r\n  b\tc"), "a b c")
        self.assertEqual(clean_line("abcdef", 4), "abc…")

    @given(st.text(alphabet=st.characters()))
    def test_any_text(self, text: str) -> None:
        shown = clean(text)
        self.assertIsNone(re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", shown))
        self.assertEqual(clean(shown), shown)
        self.assertNotIn("\n", clean_line(text))

    def test_json_lines_lose_nothing_and_harm_nothing(self) -> None:
        import json

        nasty = "a\x9b31m\u202eb\x1b\U000e0041\x7f"
        line = json_line({"text": nasty})
        self.assertEqual(json.loads(line), {"text": nasty})
        self.assertEqual(clean(line), line)


class TimeTests(SynchronousTestCase):
    def test_a_senders_time_can_be_anything(self) -> None:
        for odd in ("", "yesterday", "9999-99-99", 10**30, -(10**30)):
            self.assertIsNone(moment(odd))
            self.assertEqual(clock(odd, NOW), "--:--")
        self.assertEqual(iso(10**30), "9999-12-31T23:59:59.999Z")
        for extreme in ("0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-12:00"):
            self.assertTrue(clock(extreme, NOW))

    def test_the_day_is_said_if_it_is_another(self) -> None:
        here = moment(AT)
        assert here is not None
        self.assertEqual(clock(AT, NOW), f"{here.astimezone():%H:%M}")
        self.assertIn("Jan", clock("2026-01-05T12:00:00Z", NOW))
        self.assertIn("2024", clock("2024-01-05T12:00:00Z", NOW))

    def test_milliseconds_and_text_are_the_same_time(self) -> None:
        self.assertEqual(iso(1_700_000_000_123), "2023-11-14T22:13:20.123Z")
        self.assertEqual(moment(1_700_000_000_123), moment("2023-11-14T22:13:20.123Z"))


class LookTests(SynchronousTestCase):
    class Stream(io.TextIOWrapper):
        tty = True

        def isatty(self) -> bool:
            return self.tty

    def look(self, encoding: str, environ: dict[str, str], tty: bool = True) -> Look:
        stream = self.Stream(io.BytesIO(), encoding=encoding)
        stream.tty = tty
        return look_of(stream, environ)

    def test_what_terminals_can_show(self) -> None:
        self.assertEqual(self.look("utf-8", {"TERM": "xterm"}), Look(True, True))
        self.assertEqual(self.look("utf-8", {"TERM": "xterm", "NO_COLOR": "1"}), Look(False, True))
        self.assertEqual(self.look("utf-8", {"TERM": "dumb"}), Look(False, True))
        self.assertEqual(self.look("ascii", {"TERM": "xterm"}), Look(True, False))
        self.assertEqual(self.look("latin-1", {}, tty=False), Look(False, False))

    def test_every_state_has_a_mark_of_both_kinds(self) -> None:
        for state in State:
            self.assertTrue(RICH.mark(state))
            self.assertTrue(DULL.mark(state).isascii())


class RenderTests(SynchronousTestCase):
    def test_nothing_of_a_peer_reaches_the_terminal_uncleaned(self) -> None:
        nasty = "x\x1b[2J\u202e\x9b"
        item = HistoryItem(f"{nasty}.1", nasty, nasty, nasty, 0, reason=nasty, state="failed")
        lines: list[Line] = [
            render.received(nasty, NOW, nasty, nasty),
            render.received(nasty, NOW, nasty, nasty, own=True),
            render.sent(0, NOW, nasty, RICH, "failed", nasty),
            render.unreadable(nasty, NOW, nasty, nasty, True),
            render.history(item, NOW, RICH, "other"),
            render.history(HistoryItem("d.1", nasty, nasty, nasty, 0, True, "failed", nasty), NOW, RICH, "d"),
            render.preview(nasty, NOW, nasty, nasty, RICH),
            render.late(RICH, nasty, "read", [nasty], nasty),
            render.notice(nasty),
            render.problem(nasty),
            render.head(nasty, RICH),
            *render.people([Conversation(nasty, 1, 0)], [Contact(nasty, nasty, nasty), Contact("b", "f")], NOW),
            render.root_changed(RootChanged(nasty, nasty, nasty), "/accept"),
            render.log_alarm(LogAlarm(nasty, nasty), "file"),
            [("", render.unread_list([Conversation(nasty, 2, 0)]))],
        ]
        for line in lines:
            text = render.plain(line)
            self.assertEqual(clean(text), text)

    def test_further_lines_stand_below_the_first(self) -> None:
        first, second = render.plain(render.received(AT, NOW, "bob", "one\ntwo")).split("\n")
        self.assertEqual(first.index("one"), second.index("two"))

    def test_what_could_not_be_read_says_why_in_words_later_too(self) -> None:
        for reason, words in (
            ("bad-content", "its content is malformed"),
            ("of-another-version", "of-another-version"),
        ):
            item = HistoryItem("b" * 32 + ".1", "bob", "bob", "", 0, reason=reason, unreadable=True)
            self.assertIn(f"({words})", render.plain(render.history(item, NOW, RICH, "a" * 32)))

    def test_every_style_is_defined(self) -> None:
        lines = render.sent(0, NOW, "x", RICH, "read") + render.preview(AT, NOW, "b", "x", RICH)
        styles = {style for style, _ in lines}
        for style in styles - {""}:
            self.assertIn(style.removeprefix("class:"), render.STYLES)


class Vault:
    """What a vault answers, from lists."""

    def __init__(self) -> None:
        self.items: list[HistoryItem] = []
        self.known: list[Contact] = [Contact("bob", "aaaa"), Contact("carol", "cccc")]

    def whoami(self) -> Whoami:
        return Whoami("alice", "d1", "ffff", True)

    def history(self, conversation: str, limit: int = 100, before: str = "") -> list[HistoryItem]:
        return [item for item in self.items if item.conversation == conversation][-limit:]

    def conversations(self) -> list[Conversation]:
        users = list(dict.fromkeys(item.conversation for item in reversed(self.items)))
        return [Conversation(user, self.unread(user), 1_795_000_000_000) for user in users]

    def contacts(self) -> list[Contact]:
        return self.known

    def unread(self, conversation: str) -> int:
        return sum(1 for item in self.items if item.conversation == conversation and not item.own and not item.read)


class Messenger:
    """What a messenger does, written down."""

    alarm_file = "the file"

    def __init__(self) -> None:
        self.vault = Vault()
        self.done: list[tuple[str, ...]] = []
        self.count = 0

    def send(self, to: str, text: str) -> str:
        self.count += 1
        self.done.append(("send", to, text))
        self.vault.items.append(HistoryItem(f"d1.{self.count}", to, "alice", text, 0, True, "waiting"))
        return f"d1.{self.count}"

    def mark_read(self, conversation: str) -> None:
        self.done.append(("read", conversation))
        self.vault.items = [
            HistoryItem(i.id, i.conversation, i.sender, i.text, i.at, i.own, i.state, read=True)
            if i.conversation == conversation
            else i
            for i in self.vault.items
        ]

    def accept_root(self, user: str) -> None:
        self.done.append(("accept", user))

    def reconnect(self) -> None:
        self.done.append(("reconnect",))


class Paper:
    """A screen that keeps what is printed."""

    def __init__(self, live: bool = True) -> None:
        self.live = live
        self.lines: list[str] = []
        self.ended = False

    def show(self, line: Line) -> None:
        self.lines.append(render.plain(line))

    def redraw(self) -> None:
        pass

    def end(self) -> None:
        self.ended = True


class TalkTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.messenger = Messenger()
        self.clock = Clock()
        self.begin(Paper())

    def begin(self, paper: Paper) -> None:
        self.paper = paper
        self.talk = Talk(self.messenger, paper, RICH, self.clock, lambda: NOW)

    def printed(self) -> list[str]:
        lines, self.paper.lines = self.paper.lines, []
        return lines

    def live(self) -> list[str]:
        return [render.plain(line) for line in self.talk.live()]

    def prompt(self) -> str:
        return render.plain(self.talk.prompt())

    def status(self) -> str:
        return render.plain(self.talk.status())

    def tell(self, *events: Event) -> None:
        self.talk.on_events(events)

    def come(self, sender: str, text: str, n: int = 1) -> MessageReceived:
        message = MessageReceived(sender, sender, text, AT, f"{sender}1.{n}")
        self.messenger.vault.items.append(HistoryItem(message.id, sender, sender, text, 0))
        return message

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
        self.assertIn("/history [WHO] [N]", self.printed()[0])
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
        self.assertEqual(self.talk.names(), ["dave", "bob", "carol"])
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
        talk = Talk(self.messenger, self.paper, DULL, self.clock, lambda: NOW)
        talk.began("bob")
        talk.typed("hi")
        talk.on_events([Connected("chat-1", 0), self.come("carol", "x")])
        everything = [*self.printed(), *[render.plain(line) for line in talk.live()]]
        everything += [render.plain(talk.prompt()), render.plain(talk.status())]
        self.assertTrue("".join(everything).isascii(), everything)


class PlainScreenTests(TestCase):
    def test_what_the_encoding_cannot_say_does_not_stop_it(self) -> None:
        data = io.BytesIO()
        stream = io.TextIOWrapper(data, encoding="ascii")
        PlainScreen(stream).show([("class:x", "héllo ✓")])
        self.assertEqual(data.getvalue(), b"h?llo ?\n")

    def test_a_reader_that_went_away_ends_it(self) -> None:
        reading, writing = os.pipe()
        os.close(reading)
        with os.fdopen(writing, "w", encoding="utf-8", buffering=1, closefd=True) as stream:
            screen = PlainScreen(stream)
            screen.show([("", "hello")])
            self.successResultOf(screen.left)
            self.assertRaises(BrokenPipeError, stream.flush)
            os.dup2(os.open(os.devnull, os.O_WRONLY), writing)

    async def test_lines_are_read_whole_whatever_their_ends(self) -> None:
        reading, writing = os.pipe()
        self.addCleanup(os.close, reading)
        lines: list[str] = []
        ended: Deferred[None] = Deferred()
        LineReader(reading, installed, lines.append, lambda: ended.callback(None)).start()
        with os.fdopen(writing, "wb") as stream:
            stream.write(b"one\ntwo\r\n\n" + b"\xff\n" + b"x" * (LONGEST_LINE + 10) + b"\nlast")
        await ended
        self.assertEqual(lines[:4], ["one", "two", "", "\N{REPLACEMENT CHARACTER}"])
        self.assertEqual([len(line) for line in lines[4:-1]], [LONGEST_LINE, 10])
        self.assertEqual(lines[-1], "last")


class Script:
    """What a prompt screen shows, and what was typed."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.on_line: Any = lambda line: None

    def prompt(self) -> Line:
        return [("class:head", "bob > ")]

    def live(self) -> list[Line]:
        return [[("", "on its way")]]

    def status(self) -> Line:
        return [("", "the status line")]

    def names(self) -> list[str]:
        return ["bob", "carol"]

    def typed(self, line: str) -> None:
        self.lines.append(line)
        self.on_line(line)


def _set(event: asyncio.Event, _: object) -> None:
    event.set()


class PromptScreenTests(SynchronousTestCase):
    """The real line editor on a pipe, in an asyncio loop of its own."""

    def play(self, *keys: str, look: Look = RICH, on_line: Any = None) -> tuple[Script, bool, str]:
        """Type `keys`, each when the ones before have had their effect; what was entered, whether Ctrl-C ended it, and
        everything that the terminal was sent."""
        script, written = Script(), io.StringIO()

        async def run() -> bool:
            with create_pipe_input() as pipe:
                output = Vt100_Output(written, lambda: Size(rows=24, columns=80), term="xterm", enable_cpr=False)
                screen = PromptScreen(look, pipe, output)
                script.on_line = lambda line: on_line(screen, line) if on_line else None
                screen.show([("class:notice", "shown before it runs")])
                running: asyncio.Future[bool] = Deferred.fromCoroutine(screen.run(script)).asFuture(
                    asyncio.get_running_loop()
                )
                for typed in keys:
                    pipe.send_text(typed)
                    # Some redraws later, it has been read, and what it set off has been done.
                    for _ in range(5):
                        if screen._session is not None:
                            drawn = asyncio.Event()
                            screen._session.app.after_render += partial(_set, drawn)
                            screen._session.app.invalidate()
                            waiting = asyncio.ensure_future(drawn.wait())
                            either: list[asyncio.Future[Any]] = [waiting, running]
                            await asyncio.wait(either, return_when="FIRST_COMPLETED")
                            waiting.cancel()
                return await running

        interrupted = asyncio.run(run())
        return script, interrupted, written.getvalue()

    def test_lines_are_entered_one_after_the_other_and_ctrl_d_leaves(self) -> None:
        script, interrupted, written = self.play("one\rtwo\r\x04")
        self.assertEqual(script.lines, ["one", "two"])
        self.assertFalse(interrupted)
        self.assertIn("shown before it runs", written)

    def test_the_prompt_and_the_live_region_are_drawn(self) -> None:
        _, _, written = self.play("\x04")
        for part in ("bob >", "on its way"):
            self.assertIn(part, written)

    def test_what_arrives_is_printed_above_and_typing_goes_on(self) -> None:
        def arrive(screen: PromptScreen, line: str) -> None:
            for n in range(3):
                screen.show([("class:peer0", "carol"), ("", f": message {n}")])

        script, _, written = self.play("go\rnext\r\x04", on_line=arrive)
        self.assertEqual(script.lines, ["go", "next"])
        for n in range(3):
            self.assertIn(f": message {n}", written)

    def test_ctrl_c_clears_a_line_and_leaves_on_an_empty_one(self) -> None:
        script, interrupted, _ = self.play("abc\x03def\r\x03")
        self.assertEqual(script.lines, ["def"])
        self.assertTrue(interrupted)

    def test_tab_completes_commands_and_names(self) -> None:
        script, _, _ = self.play("/hi", "\t", "\r", "/msg ca", "\t", "\r", "\x04")
        self.assertEqual([line.strip() for line in script.lines], ["/history", "/msg carol"])

    def test_the_last_lines_can_be_had_again(self) -> None:
        script, _, _ = self.play("first\r", "\x10", "\r", "\x04")
        self.assertEqual(script.lines, ["first", "first"])

    def test_the_person_can_be_made_to_leave(self) -> None:
        script, interrupted, _ = self.play("/quit\r", on_line=lambda screen, line: screen.end())
        self.assertEqual(script.lines, ["/quit"])
        self.assertFalse(interrupted)

    def test_without_colours_there_are_none(self) -> None:
        _, _, rich = self.play("\x04")
        _, _, dull = self.play("\x04", look=Look(colour=False, symbols=True))
        colour = re.compile("\x1b\\[[0-9;]*(3[0-7]|9[0-7])m")
        self.assertRegex(rich, colour)
        self.assertNotRegex(dull, colour)
