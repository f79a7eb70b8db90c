"""What a person sees: harmless text, rendered lines, the talk on a screen of ours, and the two real screens."""

from __future__ import annotations

import asyncio
import io
import os
import re
from functools import partial
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from prompt_toolkit.data_structures import Size
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output.vt100 import Vt100_Output
from twisted.internet import reactor as installed
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase, TestCase

from fastchat_client.completing import completions
from fastchat_client.events import FileSaved, GroupAlarm, GroupChanged, GroupInvited, LogAlarm, RootChanged, State, iso
from fastchat_client.marking import Mark
from fastchat_client.terminal import group_words, render, render_groups
from fastchat_client.terminal.group_words import Labels
from fastchat_client.terminal.plain import LONGEST_LINE, LineReader, PlainScreen
from fastchat_client.terminal.prompt import PromptScreen
from fastchat_client.terminal.render import Line, Shown
from fastchat_client.terminal.text import Look, clean, clean_line, clock, json_line, look_of, moment
from fastchat_client.vault import Contact, Conversation, HistoryItem, Whoami
from tests.support.talking import AT, DULL, NOW, RICH, group


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

    def test_paths_that_are_no_utf_8_are_json_too(self) -> None:
        """Folders may be called anything; who reads the line finds the file by it."""
        import json

        path = b"/srv/caf\xe9/\x7f\xc2\x9b/x"
        saved = FileSaved("a" * 32, "alice", "x.1", os.fsdecode(path), False)
        line = json_line(saved)
        read = json.loads(line)
        self.assertEqual((os.fsencode(read["path"]), read["conversation"]), (path, "alice"))
        self.assertEqual((clean(line), line.isascii()), (line, True))
        self.assertEqual({**read, "path": ""}, json.loads(json_line(msgspec.structs.replace(saved, path=""))))


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
        me = Whoami("alice", "d", "ffff", True)
        past = HistoryItem(f"{nasty}.1", nasty, nasty, nasty, 0, reason=nasty, state="failed")
        info = group(nasty, nasty, ((nasty, "owner"),), invited=((nasty, nasty),), alarm=nasty)
        labels = Labels([info])
        lines: list[Line] = [
            render.received(nasty, NOW, nasty, nasty),
            render.message(
                Shown(nasty, nasty, nasty, quote=nasty, reactions=(nasty,), me="x", state="failed", here=True),
                NOW,
                RICH,
            ),
            render.message(Shown(nasty, nasty, nasty, deleted=True), NOW, DULL),
            render.unreadable(nasty, NOW, nasty, nasty, True),
            render.waiting(nasty, NOW, nasty, 1, RICH),
            render.history(past, NOW, RICH, me, quote=nasty, reactions=[(nasty, nasty)]),
            render.history(HistoryItem("d.1", nasty, nasty, nasty, 0, True, "failed", nasty), NOW, RICH, me),
            render.preview(nasty, NOW, nasty, nasty, RICH, nasty, mentioned=True),
            render.late(RICH, nasty, "read", [nasty], nasty),
            render.notice(nasty),
            render.note(nasty),
            render.problem(nasty),
            render.head(nasty, RICH, nasty),
            *render.people(
                [Conversation(nasty, 1, 0)], [Contact(nasty, nasty, nasty), Contact("b", "f")], NOW, RICH, str, [], []
            ),
            render.root_changed(RootChanged(nasty, nasty, nasty), "/accept"),
            render.log_alarm(LogAlarm(nasty, nasty), "file"),
            [("", render.unread_list([Conversation(nasty, 2, 0)], str))],
            [("", labels[info.conversation])],
            [("", group_words.changed(GroupChanged(nasty, nasty, nasty, nasty, nasty, nasty), "me"))],
            render_groups.invited(
                GroupInvited(nasty, nasty, nasty, nasty, 1, 1), labels[info.conversation], "#x", RICH
            ),
            render_groups.alarm(GroupAlarm(nasty, nasty, nasty, nasty, True), labels[info.conversation], "file"),
            *render_groups.group(info, labels[info.conversation]),
            *render_groups.groups(labels, [Conversation(info.conversation, 1, 0)]),
            *render_groups.receipts([Mark(nasty, "read", 0)], NOW, RICH),
        ]
        for line in lines:
            text = render.plain(line)
            self.assertEqual(clean(text), text)

    def test_further_lines_stand_below_the_first(self) -> None:
        for line in (
            render.received(AT, NOW, "bob", "one\ntwo"),
            render.message(Shown(AT, "bob", "one\ntwo", number=7), NOW, RICH),
        ):
            first, second = render.plain(line).split("\n")
            self.assertEqual(first.index("one"), second.index("two"))

    def test_what_could_not_be_read_says_why_in_words_later_too(self) -> None:
        for reason, words in (
            ("bad-content", "its content is malformed"),
            ("of-another-version", "of-another-version"),
        ):
            item = HistoryItem("b" * 32 + ".1", "bob", "bob", "", 0, reason=reason, unreadable=True)
            self.assertIn(
                f"({words})", render.plain(render.history(item, NOW, RICH, Whoami("alice", "a" * 32, "", True)))
            )

    def test_every_style_is_defined(self) -> None:
        shown = Shown(
            0, "x", "hi @alice", number=1, own=True, here=True, state="read", me="alice", quote="y", edited=True
        )
        lines = render.message(shown, NOW, RICH) + render.preview(AT, NOW, "b", "x", RICH, "#g", mentioned=True)
        lines += render.waiting(0, NOW, "b", 0, RICH) + render_groups.alarm(GroupAlarm("", "", "", "", True), "", "")
        styles = {style for style, _ in lines}
        for style in styles - {""}:
            self.assertIn(style.removeprefix("class:"), render.STYLES)


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
        self.written: list[str] = []
        self.on_line: Any = lambda line: None

    def prompt(self) -> Line:
        return [("class:head", "bob > ")]

    def live(self) -> list[Line]:
        return [[("", "on its way")]]

    def status(self) -> Line:
        return [("", "the status line")]

    def completions(self, line: str) -> list[str]:
        return completions(line, ["bob", "carol"], ["#team"])

    def writing(self, line: str) -> None:
        self.written.append(line)

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

    def test_a_picture_is_written_as_it_is_and_nothing_else_is(self) -> None:
        def arrive(screen: PromptScreen, line: str) -> None:
            screen.show([("[ZeroWidthEscape]", "\x1bPq~\x1b\\"), ("", "\x1b]0;title\x07")])

        _, _, written = self.play("go\r\x04", on_line=arrive)
        self.assertIn("\x1bPq~\x1b\\", written)
        self.assertNotIn("\x1b]0;", written)

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
