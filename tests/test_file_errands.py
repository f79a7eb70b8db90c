"""What one sees while one waits for a file, and what becomes of one that another process is to send or fetch."""

from __future__ import annotations

import io
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from fastchat.errors import AttachmentTooLarge, QuotaExceeded, RequestError
from fastchat.identity.invite import Invite
from fastchat_client import file_errands, files
from fastchat_client.content import File
from fastchat_client.events import Disconnected, Event, FileSaved, FileSent, Moving, TransferFailed, TransferProgress
from fastchat_client.file_errands import Files, Wanted
from fastchat_client.files import Transfer
from fastchat_client.history import Arrived, add_received
from fastchat_client.messenger import new_facts
from fastchat_client.profile import Profile
from fastchat_client.running import Running
from fastchat_client.terminal.bars import Bars, Events, Lines, bars_for
from fastchat_client.terminal.rich_bars import RichBars
from fastchat_client.vault import Vault
from tests.support.cli import CHEAP, LINK

A, B = "a" * 32, "b" * 32


class Stream(io.StringIO):
    """What a command writes on, which is a terminal or is not."""

    def __init__(self, *, tty: bool) -> None:
        super().__init__()
        self._tty = tty

    def isatty(self) -> bool:
        return self._tty


def moved(done: int, name: str = "beach.jpg", *, up: bool = True) -> TransferProgress:
    return TransferProgress(A, "bob", "", name, up, done, 10_000_000)


class BarsTests(SynchronousTestCase):
    def play(self, bars: Bars, name: str = "beach.jpg") -> None:
        bars.preparing(name, 0, 100)
        bars.preparing(name, 100, 100)
        for done in range(0, 10_000_001, 2_000_000):
            bars.event(moved(done, name))
        bars.waiting()
        bars.event(moved(10_000_000, name))
        bars.event(FileSent(A, "bob", "d1.1", name))
        bars.close()
        bars.close()

    def test_each_kind_where_it_belongs(self) -> None:
        terminal, pipe = Stream(tty=True), Stream(tty=False)
        self.assertIsInstance(bars_for(True, terminal, terminal, {"TERM": "xterm"}), Events)
        self.assertIsInstance(bars_for(False, pipe, terminal, {"TERM": "xterm"}), RichBars)
        self.assertIsInstance(bars_for(False, terminal, terminal, {"TERM": "dumb"}), Lines)
        self.assertIsInstance(bars_for(False, terminal, pipe, {"TERM": "xterm"}), Lines)

    def test_a_line_for_each_turn_and_none_for_a_chunk(self) -> None:
        stream = Stream(tty=False)
        self.play(Lines(stream))
        self.assertEqual(
            stream.getvalue().splitlines(),
            [
                "fastchat: preparing beach.jpg",
                "fastchat: sending beach.jpg, 10 MB",
                "fastchat: all of beach.jpg is on the network",
            ],
        )

    def test_events_as_they_are(self) -> None:
        stream = Stream(tty=False)
        self.play(Events(stream))
        lines = [json.loads(line) for line in stream.getvalue().splitlines()]
        self.assertEqual({line["event"] for line in lines}, {"transfer", "file-sent"})
        self.assertEqual(lines[0]["size"], 10_000_000)

    def test_a_bar_with_rate_and_time(self) -> None:
        stream = Stream(tty=True)
        self.play(RichBars(stream, {}))
        written = re.sub("\x1b\\[[0-9;]*m", "", stream.getvalue())
        for part in ("beach.jpg: preparing", "beach.jpg: sending", "beach.jpg: waiting", "beach.jpg: sent", "100%"):
            self.assertIn(part, written)
        self.assertRegex(written, r"/10\.0 MB [0-9.]+ .?B/s")
        self.assertTrue(written.rstrip("\n").endswith("\x1b[?25h"), "the cursor is seen again")

    def test_results_go_where_they_went_before(self) -> None:
        out, bars = sys.stdout, RichBars(Stream(tty=True), {})
        bars.event(moved(1_000_000))
        self.assertIs(sys.stdout, out)
        bars.close()

    def test_what_was_there_before_is_no_part_of_the_rate(self) -> None:
        stream = Stream(tty=True)
        bars = RichBars(stream, {})
        bars.event(moved(9_000_000))
        bars.close()
        self.assertIn("90%", stream.getvalue())
        self.assertNotIn("MB/s", stream.getvalue())

    def test_what_people_call_their_files_does_nothing_to_the_terminal(self) -> None:
        for name in ("[bold]x[/nothing]\x1b[2J\u202e.jpg", "n" * 300):
            for bars, stream in (
                (lambda s: RichBars(s, {"NO_COLOR": "1"}), Stream(tty=True)),
                (Lines, Stream(tty=False)),
                (Events, Stream(tty=False)),
            ):
                self.play(bars(stream), name)  # type: ignore[no-untyped-call,operator]
                self.assertNotIn("\x1b[2J", stream.getvalue())
                self.assertNotIn("\u202e", stream.getvalue())
                self.assertTrue("[bold]" in stream.getvalue() or "nnn" in stream.getvalue())

    def test_a_refused_one_does_not_look_whole(self) -> None:
        stream = Stream(tty=True)
        bars = RichBars(stream, {})
        bars.event(moved(1_000_000))
        bars.event(TransferFailed(A, "bob", "", "beach.jpg", True, "quota-exceeded", "no room"))
        bars.close()
        self.assertIn("beach.jpg: refused", stream.getvalue())
        self.assertNotIn("100%", stream.getvalue())


class StandIn:
    """A messenger that another process does the work of: what it is asked for is written down."""

    made: StandIn

    def __init__(self, profile: Profile, vault: Any, reactor: Any, told: Callable[..., None]) -> None:
        StandIn.made = self
        self.asked: list[tuple[Any, ...]] = []
        self.spooling: list[Deferred[str]] = []
        self.under_way: list[Transfer] = []
        self.stopped = False

    def send_file(self, to: str, path: Path, text: str, **more: Any) -> Deferred[str]:
        self.asked.append((to, path.name, text, more["reply"], more["original"]))
        more["progress"](1, 2)
        self.spooling.append(Deferred())
        return self.spooling[-1]

    def fetch(self, message: str, directory: Path) -> None:
        self.asked.append((message, str(directory)))

    def transfers(self) -> list[Transfer]:
        return self.under_way

    async def stop(self) -> None:
        self.stopped = True


class LookingOn(SynchronousTestCase):
    """Another process is connected with this profile: this one prepares, and looks on, on a clock."""

    def setUp(self) -> None:
        folder = Path(self.mktemp())
        folder.mkdir()
        self.open = Vault.create(folder / "vault.db", b"k" * 32)
        self.addCleanup(self.open.close)
        with self.open.transaction():
            self.open.put("user", "alice")
            self.open.put("device", "d" * 32)
            self.open.put("next_n", 1)
        self.clock = Clock()
        self.patch(file_errands, "Messenger", StandIn)
        self.said: list[str] = []
        self.patch(file_errands, "say", self.said.append)
        self.stream, self.paths = Stream(tty=False), list[str]()
        self.profile = Profile(folder, new_facts("alice", Invite.parse(LINK), CHEAP))
        self.files = Files(Running(self.clock), self.profile, self.open, Lines(self.stream), self.paths.append)

    def sending(self, *names: str, seconds: float | None = None) -> Deferred[int]:
        wanted = Wanted("bob", [Path(name) for name in names], "look", "d1.7", original=True)
        return Deferred.fromCoroutine(self.files.send(wanted, seconds, connects=False))

    def noted(self, number: int, attachment: str, name: str) -> Transfer:
        transfer = Transfer(attachment, "bob", "", name, True, 0, 10, False)
        StandIn.made.under_way.append(transfer)
        StandIn.made.spooling[number].callback(attachment)
        return transfer

    def sent(self, transfer: Transfer, state: int) -> None:
        """The other process has all of it on the network, and the message in its outbox."""
        StandIn.made.under_way.remove(transfer)
        n = self.open.number("next_n")
        with self.open.transaction():
            self.open.put("next_n", n + 1)
            device = self.open.text("device")
            self.open.execute(
                "INSERT INTO outbox (n, user, content, at, shown, own_copies, state)"
                " VALUES (?, 'bob', x'', 0, 1, 1, ?)",
                (n, state),
            )
            self.open.execute(
                "INSERT INTO messages (device, n, conversation, sender, text, at, own, state)"
                " VALUES (?, ?, 'bob', 'alice', '', 0, 1, 'accepted')",
                (device, n),
            )
            files.add(self.open, device, n, File(transfer.attachment, b"k" * 32, 10, b"s" * 32, transfer.name))

    def test_each_is_prepared_and_waited_for_until_its_message_is_accepted(self) -> None:
        result = self.sending("a.jpg", "b.jpg")
        first = self.noted(0, A, "a.jpg")
        second = self.noted(1, B, "b.jpg")
        asked = [("bob", "a.jpg", "look", "d1.7", True), ("bob", "b.jpg", "", "", True)]
        self.assertEqual(StandIn.made.asked, asked, "what is written goes with the first")
        self.clock.pump([0.1] * 3)
        self.sent(first, 2)
        self.clock.pump([0.1] * 3)
        self.sent(second, 1)
        self.clock.pump([0.1] * 3)
        self.assertNoResult(result)
        with self.open.transaction():
            self.open.execute("UPDATE outbox SET state = 2")
        self.clock.advance(0.1)
        self.assertEqual(self.successResultOf(result), 0)
        self.assertTrue(StandIn.made.stopped)

    def test_interrupted_before_it_is_prepared_nothing_was_sent(self) -> None:
        result = self.sending("a.jpg")
        result.cancel()
        self.failureResultOf(result, CancelledError)
        self.assertEqual(self.said, ["nothing was sent"])

    def test_interrupted_later_it_is_said_what_is_kept_and_what_to_do(self) -> None:
        result = self.sending("a.jpg", "b.jpg")
        self.noted(0, A, "a.jpg")
        self.files._told(TransferProgress(A, "bob", "", "a.jpg", True, 4, 10))
        result.cancel()
        self.failureResultOf(result, CancelledError)
        self.assertEqual(
            self.said,
            [
                "a.jpg is kept, 40 % of it is on the network; nothing of b.jpg was sent; "
                "run the same command again, or: fastchat transfers --resume"
            ],
        )

    def test_while_nothing_moves_the_bar_says_so(self) -> None:
        ends: list[Event] = [Moving(1.0), Disconnected("unreachable", "refuses connections", 1.0)]
        for gone in ends:
            stream = Stream(tty=True)
            told = Files(Running(self.clock), self.profile, self.open, RichBars(stream, {}))._told
            told(moved(1_000_000))
            self.assertNotIn("beach.jpg: waiting", stream.getvalue())
            told(gone)
            self.assertIn("beach.jpg: waiting", stream.getvalue())

    def test_what_cannot_be_prepared_is_why_it_ends(self) -> None:
        result = self.sending("a.jpg")
        StandIn.made.spooling[0].errback(RequestError("a.jpg cannot be read"))
        self.assertEqual(self.failureResultOf(result, RequestError).value.message, "a.jpg cannot be read")

    def test_what_goes_without_a_message_was_refused(self) -> None:
        result = self.sending("a.jpg")
        transfer = self.noted(0, A, "a.jpg")
        self.clock.advance(0.1)
        StandIn.made.under_way.remove(transfer)
        self.clock.advance(0.1)
        self.assertNoResult(result)  # its message may come yet
        self.clock.advance(0.1)
        self.assertIn("a.jpg was not sent", self.failureResultOf(result, RequestError).value.message)

    def test_what_is_refused_here_says_why(self) -> None:
        result = self.sending("a.jpg")
        self.noted(0, A, "a.jpg")
        self.files._told(TransferFailed(A, "bob", "", "a.jpg", True, "quota-exceeded", "there is no room"))
        self.clock.advance(0.1)
        self.assertEqual(
            self.failureResultOf(result, QuotaExceeded).value.message, "a.jpg was not sent: there is no room"
        )

    def test_it_can_be_left_to_the_other_one(self) -> None:
        result = self.sending("a.jpg", seconds=1.0)
        self.noted(0, A, "a.jpg")
        self.clock.pump([0.2] * 10)
        problem = self.failureResultOf(result).value
        self.assertEqual((problem.code, "it is kept" in problem.message), ("not-yet", True))

    def test_going_on_ends_when_nothing_can_be_done_any_more(self) -> None:
        under_way = [
            Transfer(A, "bob", "e1.4", "beach.jpg", False, 5, 10, True),
            Transfer(B, "bob", "", "film.mkv", True, 5, 10, True),
        ]
        self.patch(StandIn, "transfers", lambda _: under_way)
        result = Deferred.fromCoroutine(self.files.resume(None, connects=False))
        self.clock.pump([0.1] * 3)
        self.assertNoResult(result)
        self.files._told(TransferProgress(A, "bob", "e1.4", "beach.jpg", False, 5, 10))
        self.files._told(TransferFailed(A, "bob", "e1.4", "beach.jpg", False, "config", "the disk is full"))
        self.clock.pump([0.1] * 3)
        self.assertNoResult(result)
        del under_way[1]
        self.clock.pump([0.1] * 3)
        self.assertEqual(self.failureResultOf(result).value.message, "beach.jpg: the disk is full")

    def test_one_that_cannot_be_fetched_keeps_none_of_the_others(self) -> None:
        names = {1: "a.jpg", 2: "large.mkv", 3: "gone.jpg", 4: "b.jpg"}
        with self.open.transaction():
            for n, name in names.items():
                add_received(self.open, Arrived("e1", n, "bob", "bob", 1_700_000_000_000, "look", False))
                files.add(self.open, "e1", n, File(str(n) * 32, b"k" * 32, 10, b"s" * 32, name))

        def fetch(messenger: StandIn, message: str, directory: Path) -> None:
            if message == "e1.2":
                raise AttachmentTooLarge("it is too large")
            messenger.under_way.append(Transfer(message[-1] * 32, "bob", message, "", False, 0, 10, True))

        self.patch(StandIn, "fetch", fetch)
        result = Deferred.fromCoroutine(
            self.files.fetch([f"e1.{n}" for n in names], Path("/there"), None, connects=False)
        )
        for n in (1, 3, 4):
            self.clock.pump([0.1] * 3)
            self.assertNoResult(result)
            StandIn.made.under_way.pop(0)
            gone = TransferFailed(str(n) * 32, "bob", f"e1.{n}", names[n], False, "unknown-attachment", "it is gone")
            self.files._told(gone if n == 3 else FileSaved(str(n) * 32, "bob", f"e1.{n}", f"/there/{names[n]}", False))
        self.clock.advance(0.1)
        problem = self.failureResultOf(result, AttachmentTooLarge).value
        self.assertEqual(problem.message, "large.mkv was not fetched: it is too large; not fetched either: gone.jpg")
        self.assertEqual(self.paths, ["/there/a.jpg", "/there/b.jpg"])

    def test_fetched_by_the_other_one(self) -> None:
        with self.open.transaction():
            add_received(self.open, Arrived("e1", 4, "bob", "bob", 1_700_000_000_000, "look", False))
            files.add(self.open, "e1", 4, File(A, b"k" * 32, 10, b"s" * 32, "beach.jpg"))
        result = Deferred.fromCoroutine(self.files.fetch(["e1.4"], Path("/there"), None, connects=False))
        self.assertEqual(StandIn.made.asked, [("e1.4", "/there")])
        StandIn.made.under_way = [Transfer(A, "bob", "e1.4", "beach.jpg", False, 0, 10, False)]
        self.clock.pump([0.1] * 5)
        self.assertNoResult(result)
        StandIn.made.under_way = []
        with self.open.transaction():
            self.open.execute("UPDATE files SET path = ?", (b"/there/beach.jpg",))
        self.clock.pump([0.1] * 5)
        self.assertEqual((self.successResultOf(result), self.paths), (0, ["/there/beach.jpg"]))
