"""Files in the chat of the terminal: what is typed, what is shown, and what a small picture looks like."""

from __future__ import annotations

import os
import re
from io import BytesIO
from pathlib import Path

import msgspec
from PIL import Image
from twisted.trial.unittest import SynchronousTestCase

from fastchat.errors import RequestError
from fastchat_client import paths
from fastchat_client.events import (
    Connected,
    Disconnected,
    FileSaved,
    FileSent,
    FileShown,
    MessageReceived,
    MessageState,
    State,
    TransferFailed,
    TransferProgress,
)
from fastchat_client.files import StoredFile, Transfer
from fastchat_client.terminal.pictures import (
    half_blocks,
    no_picture,
)
from fastchat_client.terminal.progress import Pace
from fastchat_client.terminal.text import Look
from fastchat_client.vault import HistoryItem
from tests.support.talking import AT, DULL, RICH, Paper, TalkCase

A, B = "a" * 32, "b" * 32


def png(width: int = 8, height: int = 4, colour: tuple[int, ...] = (200, 10, 10)) -> bytes:
    data = BytesIO()
    Image.new("RGBA" if len(colour) == 4 else "RGB", (width, height), colour).save(data, "PNG")
    return data.getvalue()


BEACH = FileShown(A, "beach.jpg", 2_345_678, "image/jpeg", 4032, 3024, png())
REPORT = FileShown(B, "report.pdf", 120_000, "application/pdf")


class Files(TalkCase):
    """alice talks with bob, connected."""

    def setUp(self) -> None:
        super().setUp()
        self.opened()

    def opened(self, look: Look = RICH, *, live: bool = True, draws: bool = False) -> None:
        self.begin(Paper(live), look, half_blocks if draws else no_picture)
        self.tell(Connected("chat-1", 0))
        self.talk.typed("/msg bob")
        self.printed()
        self.messenger.done.clear()

    def brings(self, file: FileShown, text: str = "", n: int = 1, sender: str = "bob") -> MessageReceived:
        message = MessageReceived(sender, sender, text, AT, f"{sender}1.{n}", file=file)
        self.messenger.vault.items.append(HistoryItem(message.id, sender, sender, text, 0, file=file))
        self.messenger.stored.append(StoredFile(message.id, sender, sender, False, file))
        return message

    def progress(self, done: int, *, up: bool = True, name: str = "beach.jpg", attachment: str = A) -> TransferProgress:
        return TransferProgress(attachment, "bob", "" if up else "bob1.1", name, up, done, 1_000_000)

    # --- what comes ------------------------------------------------------------------------------------------------

    def test_a_file_is_a_line_that_says_what_it_is_and_how_to_have_it(self) -> None:
        self.tell(self.brings(BEACH, "look at\nthis"), self.brings(REPORT, n=2))
        self.assertEqual(
            self.printed(),
            [
                " 1 11:59 bob: [picture beach.jpg, 2.3 MB, 4032×3024] look at\n              this  /fetch 1",
                " 2 11:59 bob: [file report.pdf, 120 kB]  /fetch 2",
            ],
        )
        self.talk.typed("/history")
        self.assertRegex(self.printed()[1], r"bob: \[picture beach.jpg, 2.3 MB, 4032×3024\] look at\n +this  /fetch 1")

    def test_a_terminal_without_symbols_gets_none(self) -> None:
        self.opened(DULL)
        self.tell(self.brings(BEACH))
        self.assertIn("4032x3024", self.printed()[0])
        self.tell(self.progress(500_000))
        self.assertTrue(self.status().isascii(), self.status())

    def test_of_a_conversation_that_is_not_open_a_preview_says_it(self) -> None:
        self.tell(self.brings(REPORT, "as promised", sender="carol"))
        self.assertEqual(self.printed(), ["   11:59 ✉ carol: [file report.pdf, 120 kB] as promised"])

    def test_what_a_peer_calls_a_file_does_nothing_to_the_terminal(self) -> None:
        evil = "\x1b]0;x\x07\n\u202egpj.exe"
        file = msgspec.structs.replace(REPORT, name=evil, type=evil)
        self.tell(self.brings(file), TransferFailed(B, "bob", "bob1.1", evil, False, "x", evil))
        self.tell(self.progress(5, up=False, name=evil), FileSaved(B, "bob", "bob1.1", evil, False))
        self.messenger.under_way = [Transfer(A, "bob", "", evil, True, 0, 1, False)]
        self.tell(self.progress(7, up=False, name=evil))
        self.talk.typed("/show 1")
        self.talk.typed("/transfers")
        for line in [*self.printed(), self.status()]:
            self.assertNotRegex(line, "[\x00-\x09\x0b-\x1f\u202e]")
            self.assertLessEqual(line.count("\n"), 0, line)

    def test_an_answer_to_a_file_quotes_what_it_is(self) -> None:
        self.tell(self.brings(REPORT))
        self.tell(MessageReceived("bob", "bob", "read it", AT, "bob1.2", reply="bob1.1"))
        self.assertIn('↪ "[file report.pdf, 120 kB]"', self.printed()[1])

    # --- what is sent ----------------------------------------------------------------------------------------------

    def test_a_file_is_prepared_sent_and_then_a_message_as_any_other(self) -> None:
        self.talk.typed('/send "beach.jpg" look')
        self.assertEqual(self.messenger.done, [("send file", "bob", "beach.jpg", "look", False)])
        result, progress = self.messenger.preparing.pop()
        progress(250, 1000)
        self.assertEqual(self.status(), "alice · chat-1 · ↑ beach.jpg is prepared: 25 %")
        self.talk.typed("meanwhile")
        self.assertIn("meanwhile", self.live()[0])
        result.callback(A)
        self.assertEqual(self.status(), "alice · chat-1")
        self.tell(self.progress(0))
        self.clock.advance(2)
        self.tell(self.progress(400_000))
        self.assertEqual(self.status(), "alice · chat-1 · ↑ beach.jpg 40 % 200 kB/s 0:03 left")
        self.messenger.vault.items.append(HistoryItem("d1.9", "bob", "alice", "look", 0, True, "waiting", file=BEACH))
        self.tell(FileSent(A, "bob", "d1.9", "beach.jpg"))
        self.assertEqual(self.status(), "alice · chat-1")
        self.assertIn("you: [picture beach.jpg, 2.3 MB, 4032×3024] look  … waiting", self.live()[1])
        self.tell(MessageState("d1.9", "bob", State.READ))
        self.assertIn("✓✓ read", self.printed()[-1])

    def test_what_cannot_be_sent_says_why_in_a_line(self) -> None:
        self.talk.typed("/send nothing.jpg")
        self.messenger.preparing.pop()[0].errback(RequestError("nothing.jpg: there is no such file"))
        self.assertEqual(self.printed(), ["Nothing was sent: nothing.jpg: there is no such file"])
        self.assertEqual(self.status(), "alice · chat-1")

    def test_a_mistake_of_ours_is_logged_and_the_chat_goes_on(self) -> None:
        self.talk.typed("/send a.jpg")
        self.messenger.preparing.pop()[0].errback(ZeroDivisionError())
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(self.status(), "alice · chat-1")

    def test_without_a_connection_it_is_said_when_it_goes(self) -> None:
        self.tell(Disconnected("unreachable", "gone", 3.0))
        self.printed()
        self.talk.typed("/send beach.jpg")
        self.messenger.preparing.pop()[0].callback(A)
        self.brings(REPORT)
        self.talk.typed("/fetch")
        self.assertEqual(
            self.printed(),
            ["   beach.jpg goes out at the next connection.", "   It is fetched at the next connection."],
        )

    def test_what_goes_along_with_an_original_is_said_before_it_is_sent(self) -> None:
        path = Path(self.mktemp())
        picture = Image.new("RGB", (8, 8))
        exif = Image.Exif()
        exif[0x0110] = "a camera"
        picture.save(path, "JPEG", exif=exif)
        self.talk.typed(f"/original {path}")
        self.assertIn("It goes as it is, and tells", self.printed()[0])
        self.assertEqual(self.messenger.done, [("send file", "bob", str(path), "", True)])
        self.messenger.preparing.pop()[0].callback(A)
        self.talk.typed("/original nothing.jpg")
        self.assertEqual(len(self.printed()), 1)
        self.assertEqual(self.messenger.preparing, [], "what cannot be read is not tried")

    def test_leaving_while_one_is_prepared_says_that_it_was_not_sent(self) -> None:
        self.talk.typed("/send beach.jpg")
        self.assertTrue(self.talk.files.is_preparing)
        self.talk.files.leave()
        self.assertEqual(self.messenger.done[-1], ("cancelled", "beach.jpg"))
        self.assertEqual(self.printed(), ["beach.jpg was not sent: it was not prepared yet"])
        self.assertFalse(self.talk.files.is_preparing)

    # --- what is fetched -------------------------------------------------------------------------------------------

    def test_the_newest_file_or_the_one_that_is_named(self) -> None:
        self.tell(self.brings(BEACH), self.brings(REPORT, n=2), self.come("bob", "text", 3))
        self.talk.typed("/fetch")
        self.talk.typed("/fetch 1 /some/where")
        here = os.getcwd()
        self.assertEqual(self.messenger.done[-2:], [("fetch", "bob1.2", here), ("fetch", "bob1.1", "/some/where")])
        self.printed()
        self.tell(self.progress(100, up=False), FileSaved(A, "bob", "bob1.1", "/some/where/beach.jpg", False))
        self.assertEqual(self.printed(), ["   saved as /some/where/beach.jpg"])
        self.assertEqual(self.status(), "alice · chat-1")

    def test_where_there_is_none_it_is_said(self) -> None:
        for line, words in (
            ("/fetch", "there is no file in bob"),
            ("/cancel aaaa", "aaaa names no file"),
            ("/transfers", "no file is on its way"),
        ):
            self.talk.typed(line)
            self.assertIn(words, self.printed()[0])
        self.tell(self.come("bob", "text"))
        self.talk.typed("/show 1")
        self.assertIn("brings no file", self.printed()[1])
        self.talk.typed("/fetch 1")
        self.assertEqual(self.printed(), ["this message brings no file"])
        self.opened()
        self.begin(Paper())
        self.talk.typed("/fetch")
        self.assertIn("/msg WHO", self.printed()[0])

    def test_what_was_fetched_by_itself_is_told_where_one_looks(self) -> None:
        self.tell(self.brings(BEACH))
        self.printed()
        self.tell(FileSaved(A, "bob", "bob1.1", "/in/the/profile", True), FileSaved(A, "carol", "carol1.1", "/x", True))
        self.assertEqual(self.printed(), ["   1 is here; /fetch 1 saves it"])

    def test_a_failure_says_which_and_why(self) -> None:
        self.tell(
            self.progress(5), TransferFailed(A, "bob", "", "beach.jpg", True, "quota-exceeded", "there is no room")
        )
        self.assertEqual(self.printed(), ["   beach.jpg was not sent: there is no room"])
        self.assertEqual(self.status(), "alice · chat-1")

    def test_transfers_are_listed_and_cancelled(self) -> None:
        self.messenger.under_way = [
            Transfer(A, "bob", "", "beach.jpg", True, 500_000, 1_000_000, True),
            Transfer(B, "bob", "bob1.1", "report.pdf", False, 0, 120_000, False),
            Transfer("c" * 32, "bob", "", "later.zip", True, 0, 1_000_000, False),
        ]
        self.talk.typed("/transfers")
        self.assertEqual(
            self.printed(),
            [
                "   aaaaaaaa  beach.jpg to bob: 500 kB of 1.0 MB, 50 %",
                "   bbbbbbbb  report.pdf from bob: 0 bytes of 120 kB, 0 %, waits",
                "   cccccccc  later.zip to bob: 1.0 MB, waits",
            ],
        )
        self.tell(self.progress(5))
        self.talk.typed("/cancel aa")
        self.assertEqual(self.messenger.done[-1], ("cancel", A))
        self.tell(TransferFailed(A, "bob", "", "beach.jpg", True, "cancelled", "it was cancelled"))
        self.assertEqual((self.printed(), self.status()), (["   beach.jpg is not sent."], "alice · chat-1"))
        self.talk.typed("/cancel report.pdf")
        self.assertEqual(self.messenger.done[-1], ("cancel", B))
        self.messenger.under_way.append(msgspec.structs.replace(self.messenger.under_way[0], attachment="ab" * 16))
        self.talk.typed("/cancel a")
        self.assertIn("several", self.printed()[-1])

    def test_several_at_once_are_one_and_a_number(self) -> None:
        self.tell(self.progress(5), self.progress(900_000, up=False, name="report.pdf", attachment=B))
        self.assertEqual(self.status(), "alice · chat-1 · ↓ report.pdf 90 % (and 1 more)")
        self.tell(Disconnected("unreachable", "gone", 3.0))
        self.assertNotIn("report", self.status(), "nothing moves")

    def test_up_to_which_size_a_file_comes_by_itself(self) -> None:
        self.talk.typed("/autofetch 5MB")
        self.talk.typed("/autofetch off")
        self.assertEqual(self.messenger.done, [("auto", 5_000_000), ("auto", 0)])
        self.assertEqual(
            self.printed(),
            [
                "   Files up to 5.0 MB are fetched by themselves from here on.",
                "   No file is fetched by itself from here on.",
            ],
        )

    # --- pictures --------------------------------------------------------------------------------------------------

    def test_a_picture_is_seen_when_it_comes_and_before_it_was_read(self) -> None:
        self.opened(draws=True)
        self.tell(self.brings(BEACH))
        drawn = "\n   " + "▀" * 8
        self.assertEqual(
            self.printed(), [f" 1 11:59 bob: [picture beach.jpg, 2.3 MB, 4032×3024]  /fetch 1{drawn}{drawn}"]
        )
        self.assertIn("fg:#c80a0a bg:#c80a0a", self.paper.styles)
        self.talk.typed("/history")
        self.assertNotIn("▀", "".join(self.printed()), "it was read, and is a line")
        self.brings(BEACH, n=2, sender="carol")
        self.talk.typed("/msg carol")
        self.assertIn("▀", "".join(self.printed()))
        self.talk.typed("/show 1")
        self.assertEqual(
            self.printed(),
            [drawn[1:] + drawn, "   picture beach.jpg, 2.3 MB, 4032×3024, image/jpeg", "   not fetched: /fetch 1"],
        )

    def test_a_broken_thumbnail_is_a_line_of_text(self) -> None:
        self.opened(draws=True)
        for data in (b"", b"x", png()[:40], b"\x89PNG\r\n\x1a\n" + b"\x00" * 100):
            self.tell(self.brings(msgspec.structs.replace(BEACH, thumbnail=data)))
            self.assertNotIn("▀", "".join(self.printed()))

    def test_a_picture_that_was_fetched_is_shown_itself(self) -> None:
        self.opened(draws=True)
        self.tell(self.brings(BEACH))
        self.printed()
        path = Path(self.mktemp())
        path.write_bytes(png(6, 2, (1, 2, 3)))
        self.messenger.stored[0] = msgspec.structs.replace(self.messenger.stored[0], path=str(path))
        self.talk.typed("/show 1")
        self.assertEqual(self.printed()[0], "   " + "▀" * 6)
        self.assertIn("fg:#010203 bg:#010203", self.paper.styles)
        path.write_bytes(b"something else")
        self.talk.typed("/show 1")
        picture, _, where = self.printed()
        self.assertEqual((picture.count("▀"), where), (16, f"   saved as {path}"))


class PaceTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.now = 0.0
        self.pace = Pace(lambda: self.now)

    def at(self, now: float, done: int) -> float:
        self.now = now
        self.pace.at(done)
        return self.pace.rate()

    def test_the_last_seconds_count(self) -> None:
        self.assertEqual(self.at(0, 1000), 0.0)
        self.assertEqual(self.at(1, 2000), 1000.0)
        for second in range(2, 20):
            rate = self.at(second, 2000 + 100 * (second - 1))
        self.assertAlmostEqual(rate, 100.0)

    def test_what_has_stopped_becomes_slower_and_what_begins_anew_begins_anew(self) -> None:
        self.at(0, 0)
        self.assertEqual(self.at(1, 1000), 1000.0)
        self.now = 10.0
        self.assertEqual(self.pace.rate(), 100.0)
        self.assertEqual(self.at(11, 10), 0.0)
        self.assertEqual(self.at(12, 20), 10.0)


class Paths(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).resolve()
        (self.folder / "my pictures").mkdir(parents=True)
        for name in ("my beach.jpg", "my pictures/one.jpg", "it's.txt", ".hidden", "bad\x1b[31m"):
            (self.folder / name).touch()

    def complete(self, typed: str) -> list[str]:
        return [
            found.replace(str(self.folder), "F") for found in paths.completions(typed.replace("F", str(self.folder)))
        ]

    def test_a_path_goes_on_as_it_was_begun(self) -> None:
        self.assertEqual(self.complete("F/my"), [r"F/my\ beach.jpg", r"F/my\ pictures/"])
        self.assertEqual(self.complete('"F/my'), ['"F/my beach.jpg"', '"F/my pictures/'])
        self.assertEqual(self.complete("'F/my pictures/"), ["'F/my pictures/one.jpg'"])
        self.assertEqual(self.complete(r"F/my\ pictures/o"), [r"F/my\ pictures/one.jpg"])
        self.assertEqual(self.complete("'F/it"), [r"F/it\'s.txt"])
        self.assertEqual(self.complete("F/.h"), ["F/.hidden"])
        self.assertEqual(self.complete("F/bad"), [], "what would do something to the terminal")
        self.assertEqual(len(self.complete("F/")), 3)
        self.assertEqual(self.complete("F/nowhere/x"), [])

    def test_what_is_offered_is_read_as_the_path_that_it_is(self) -> None:
        for typed in ("F/", '"F/', "'F/"):
            for found in paths.completions(typed.replace("F", str(self.folder))):
                path, rest = paths.take(f"{found} caption")
                if found.endswith("/") and typed != "F/":
                    continue
                self.assertTrue(Path(path).exists(), path)
                self.assertEqual(rest, "caption")

    def test_home(self) -> None:
        self.assertEqual(paths.expanded("~/x"), Path(os.path.expanduser("~")) / "x")
        self.assertEqual(paths.expanded("~nobody-here/x"), Path("~nobody-here/x"))
        self.assertTrue(all(re.match("~/", found) for found in paths.completions("~/")))
