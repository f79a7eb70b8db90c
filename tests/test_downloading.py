"""Files on their way down: what is cut off in the middle goes on from there."""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path
from typing import Any

from fastchat.errors import Busy, Internal, RateLimited, RequestError
from fastchat.protocols import wire
from fastchat_client import downloads, filenames, saving
from fastchat_client.attachment_cipher import PIECE
from fastchat_client.downloading import MOST_AT_ONCE
from fastchat_client.events import FileSaved, Notice, TransferProgress
from tests.support.conversation import Killed
from tests.support.downloading import CHUNKS, DATA, FilesTest


class Whole(FilesTest):
    def test_a_file_is_fetched_and_saved(self) -> None:
        file = self.files.put(DATA)
        message = self.brought(file)
        self.assertEqual(self.files.asked, [], "nobody has asked for it")
        self.fetches(message)
        self.arrived()
        (saved,) = self.bob.told(FileSaved)
        self.assertEqual((saved.path, saved.id, saved.auto), (str(self.folder / "notes.txt"), message, False))
        self.assertEqual([one.index for one in self.files.asked], list(range(CHUNKS)))
        self.assertEqual(self.files.fetched, [(self.bob.device, file.attachment)])
        self.assertEqual(self.bob.told(TransferProgress)[-1].done, len(DATA))
        self.assertEqual(self.bob.core.transfers(), [])

    def test_sizes_at_the_edges_of_chunks(self) -> None:
        for size in (0, 1, PIECE - 1, PIECE, PIECE + 1, 2 * PIECE):
            data = os.urandom(size)
            self.fetches(self.brought(self.files.put(data, f"{size}.bin")))
            self.assertEqual((self.folder / f"{size}.bin").read_bytes(), data)
        self.assertEqual((self.failures, self.parts), ([], []))

    def test_it_is_fetched_by_who_has_sent_it(self) -> None:
        message = self.brought(self.files.put(DATA))
        self.alice.core.fetch(message, self.folder)
        self.scene.settle()
        self.arrived()

    def test_one_file_into_two_folders(self) -> None:
        """The network hears that it was fetched when it is in both: it may remove it then."""
        message = self.brought(self.files.put(DATA))
        other = self.new_folder("other")
        self.bob.core.fetch(message, self.folder)
        self.bob.core.fetch(message, other)
        self.files.fetched.clear()
        self.scene.settle()
        self.arrived()
        self.assertEqual([path.read_bytes() for path in other.iterdir()], [DATA])
        self.assertEqual(len(self.files.fetched), 1)

    def test_nothing_that_is_there_is_overwritten(self) -> None:
        (self.folder / "notes.txt").write_text("mine")
        self.fetches(self.brought(self.files.put(DATA)))
        self.assertEqual(self.saved, ["notes (1).txt", "notes.txt"])
        self.assertEqual((self.folder / "notes.txt").read_text(), "mine")
        self.assertEqual((self.folder / "notes (1).txt").read_bytes(), DATA)

    def test_a_name_that_is_taken_at_the_last_moment(self) -> None:
        message = self.brought(self.files.put(DATA))

        def settle(part: Path, directory: Path, name: str) -> Path:
            (directory / name).write_text("mine")
            return filenames.settle(part, directory, name)

        self.patch(saving, "settle", settle)
        self.fetches(message)
        self.assertEqual((self.folder / "notes.txt").read_text(), "mine")
        self.assertEqual((self.folder / "notes (1).txt").read_bytes(), DATA)

    def test_what_was_saved_before_is_copied(self) -> None:
        """The network may have removed it meanwhile."""
        file = self.files.put(DATA)
        message = self.brought(file)
        self.fetches(message, self.new_folder("first"))
        self.files.chunks.clear()
        self.files.asked.clear()
        self.fetches(message)
        self.arrived()
        self.assertEqual(self.files.asked, [])

    def test_what_was_saved_before_and_changed_since_is_fetched(self) -> None:
        message = self.brought(self.files.put(DATA))
        first = self.new_folder("first")
        for change in (DATA[:-1] + b"x", b"", DATA[:-1]):
            self.fetches(message, first)
            (path,) = first.iterdir()
            path.write_bytes(change)
            self.fetches(message)
            self.arrived()
            (self.folder / "notes.txt").unlink()
            path.unlink()

    def test_what_was_saved_before_cannot_be_read_to_its_end(self) -> None:
        """The rest is fetched."""
        message = self.brought(self.files.put(DATA))
        self.fetches(message, self.new_folder("first"))
        self.files.asked.clear()
        self.patch(saving, "_BLOCK", 1000)
        reads, pread = 0, os.pread

        def failing(descriptor: int, length: int, offset: int) -> bytes:
            nonlocal reads
            reads += 1
            if reads == 100:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return pread(descriptor, length, offset)

        self.patch(os, "pread", failing)
        self.fetches(message)
        self.arrived()
        self.assertEqual([one.index for one in self.files.asked], [1, 2, 3, 4])
        self.assertEqual(self.bob.told(Notice), [])

    def test_one_attachment_in_two_messages(self) -> None:
        """They have one part, one after the other, with no time between."""
        file = self.files.put(DATA)
        for message in (self.brought(file), self.brought(file)):
            self.bob.core.fetch(message, self.folder)
        self.scene.settle()
        self.assertEqual(self.saved, ["notes (1).txt", "notes.txt"])
        self.assertEqual({(self.folder / name).read_bytes() for name in self.saved}, {DATA})
        self.assertEqual((self.parts, self.failures), ([], []))

    def test_more_files_than_are_fetched_at_once(self) -> None:
        names = [f"{number}.bin" for number in range(MOST_AT_ONCE + 3)]
        for name in names:
            self.bob.core.fetch(self.brought(self.files.put(DATA, name)), self.folder)
        self.scene.settle()
        self.assertEqual((self.saved, self.parts), (sorted(names), []))

    def test_they_take_turns(self) -> None:
        files = [self.files.put(DATA, name) for name in ("a", "b")]
        self.scene.clock.advance(0)
        self.bob.disconnects()
        for file in files:
            self.alice.brings("bob", file)
        self.scene.settle()
        self.bob.connects()
        self.scene.settle()
        for item in self.bob.vault.history("alice"):
            self.bob.core.fetch(item.id, self.folder)
        self.scene.settle()
        first_four = [one.attachment for one in self.files.asked[:4]]
        self.assertEqual(sorted(first_four), sorted(2 * [file.attachment for file in files]))

    def test_what_cannot_be_fetched(self) -> None:
        text = self.alice.says("bob", "no file")
        self.scene.settle()
        message = self.brought(self.files.put(DATA))
        a_file = self.folder / "x"
        a_file.touch()
        for wrong, folder in (
            (text, self.folder),
            ("nonsense", self.folder),
            (f"{self.alice.device}.99", self.folder),
            (message, self.folder / "none"),
            (message, a_file),
            (message, Path("saved")),
        ):
            self.assertRaises(RequestError, self.bob.core.fetch, wrong, folder)
        self.assertEqual(self.bob.core.transfers(), [])


class Cut(FilesTest):
    """The connection ends, the process is killed, the network says no for now."""

    def setUp(self) -> None:
        super().setUp()
        self.file = self.files.put(DATA)
        self.message = self.brought(self.file)

    def only(self, count: int) -> None:
        """No more than so many chunks are handed out, until it is changed."""
        answered: list[int] = []

        def answer(device: str, request: wire.Fetch) -> list[Any]:
            answered.append(request.index)
            return self.files.honestly(device, request) if len(answered) <= count else []

        self.files.answer = answer

    def honest_again(self) -> None:
        self.files.answer = self.files.honestly
        self.files.asked.clear()

    @property
    def asked(self) -> list[int]:
        return sorted(one.index for one in self.files.asked)

    def test_the_connection_is_cut_at_every_chunk(self) -> None:
        for count in range(CHUNKS + 1):
            with self.subTest(count=count):
                self.only(count)
                self.fetches(self.message)
                self.bob.disconnects()
                self.honest_again()
                self.bob.connects()
                self.scene.settle()
                self.arrived()
                self.assertEqual(self.asked, list(range(count, CHUNKS)), "only what was missing")
                (self.folder / "notes.txt").unlink()

    def test_the_process_is_killed_at_every_chunk(self) -> None:
        for count in range(CHUNKS):
            with self.subTest(count=count):
                self.only(count)
                self.fetches(self.message)
                self.bob.dies()
                self.honest_again()
                self.bob.connects()
                self.scene.settle()
                self.arrived()
                self.assertEqual(self.asked, list(range(count, CHUNKS)), "only what was missing")
                (self.folder / "notes.txt").unlink()

    def test_what_is_left_of_a_chunk_is_not_used(self) -> None:
        """As the file system leaves it when the machine stops."""
        self.only(3)
        self.fetches(self.message)
        self.bob.dies()
        with open(self.folder / self.parts[0], "r+b") as part:
            part.truncate(2 * PIECE + 77)
        self.honest_again()
        self.bob.connects()
        self.scene.settle()
        self.arrived()
        self.assertEqual(self.asked, [2, 3, 4])

    def test_the_process_is_killed_at_every_commit(self) -> None:
        """Before each, and after it, from the wish to the end: there is one file of that name afterwards, and it is
        whole; and the network hears that it was fetched."""
        for dies_after in (False, True):
            for lives in range(6):
                with self.subTest(lives=lives, dies_after=dies_after):
                    self.files.fetched.clear()
                    self.bob.vault.commits, self.bob.vault.lives = 0, lives
                    self.bob.vault.dies_after = dies_after
                    try:
                        self.fetches(self.message)
                    except Killed:
                        self.files.asked.append(wire.Fetch(1, self.file.attachment, 0))
                    self.bob.dies()
                    if not self.bob.core.transfers() and not self.saved:
                        self.bob.core.fetch(self.message, self.folder)  # it was not noted: they ask again
                    self.bob.connects()
                    self.scene.settle()
                    self.scene.pass_time(3)
                    self.arrived()
                    self.assertIn((self.bob.device, self.file.attachment), self.files.fetched)
                    (self.folder / "notes.txt").unlink()

    def test_a_commit_fails_and_the_process_lives_on(self) -> None:
        """As when the disk of the vault is full for a moment: everything is made anew from what it has."""
        for lives in range(4):
            with self.subTest(lives=lives):
                self.bob.vault.commits, self.bob.vault.lives = 0, lives
                with contextlib.suppress(Killed):
                    self.fetches(self.message)
                self.bob.vault.lives = None
                self.bob.disconnects()
                if not self.bob.core.transfers() and not self.saved:
                    self.bob.core.fetch(self.message, self.folder)  # it was not noted: they ask again
                self.bob.connects()
                self.scene.settle()
                self.scene.pass_time(3)
                self.arrived()
                (self.folder / "notes.txt").unlink()

    def test_it_goes_on_while_there_is_chat(self) -> None:
        self.only(2)
        self.fetches(self.message)
        self.alice.says("bob", "hello")
        self.bob.says("alice", "hello yourself")
        self.scene.settle()
        self.assertEqual(self.alice.reads("bob"), ["hello yourself"])
        self.assertEqual(self.bob.reads("alice"), ["", "hello"])

    def test_what_is_refused_for_now_is_asked_for_later(self) -> None:
        def answer(device: str, request: wire.Fetch) -> list[Any]:
            busy = len(self.files.asked) in (2, 3, 4)
            problem = Busy(retry_after=3.0) if len(self.files.asked) != 4 else RateLimited(retry_after=7.0)
            return [wire.error_from(problem, request.id)] if busy else self.files.honestly(device, request)

        self.files.answer = answer
        self.fetches(self.message)
        self.assertEqual(self.saved, [])
        self.scene.pass_time(20)
        self.arrived()

    def test_a_server_that_fails_is_borne_for_a_while(self) -> None:
        fails = True

        def answer(device: str, request: wire.Fetch) -> list[Any]:
            return [wire.error_from(Internal(), request.id)] if fails else self.files.honestly(device, request)

        self.files.answer = answer
        self.fetches(self.message)
        self.scene.pass_time(6)
        self.assertEqual(self.failures, [])
        fails = False
        self.scene.pass_time(60)
        self.arrived()

    def test_a_server_that_fails_always_is_not(self) -> None:
        self.files.answer = lambda device, request: [wire.error_from(Internal(), request.id)]
        self.fetches(self.message)
        self.scene.pass_time(60)
        (failed,) = self.failures
        self.assertEqual((failed.code, self.saved, self.parts), (Internal.code, [], []))

    def test_what_is_cancelled_is_gone(self) -> None:
        self.only(2)
        self.fetches(self.message)
        (transfer,) = self.bob.core.transfers()
        self.assertEqual((transfer.done, transfer.size, transfer.active), (2 * PIECE, len(DATA), True))
        self.assertTrue(self.bob.core.cancel(self.file.attachment))
        self.scene.settle()
        self.assertEqual((self.parts, self.bob.core.transfers()), ([], []))
        self.assertEqual([one.code for one in self.failures], ["cancelled"])
        self.assertFalse(self.bob.core.cancel(self.file.attachment))

    def test_another_process_wants_it_and_does_not_want_it(self) -> None:
        self.only(2)
        other = self.bob.another_process()
        self.addCleanup(other.close)
        downloads.want(other, self.message, self.folder)
        self.scene.pass_time(2)
        self.assertEqual(len(self.parts), 1)
        downloads.unwant(other, self.file.attachment)
        self.scene.pass_time(2)
        self.assertEqual(self.parts, [])
        self.assertEqual([one.code for one in self.failures], ["cancelled"])

    def test_an_answer_that_comes_after_it_was_cancelled(self) -> None:
        late: list[Any] = []

        def answer(device: str, request: wire.Fetch) -> list[Any]:
            late.extend(self.files.honestly(device, request))
            return []

        self.files.answer = answer
        self.fetches(self.message)
        self.bob.core.cancel(self.file.attachment)
        assert self.bob.line is not None
        for chunk in late:
            self.bob.line.tell(chunk)
        self.scene.settle()
        self.assertEqual((self.saved, self.parts, self.bob.core.ready), ([], [], True))
