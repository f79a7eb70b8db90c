"""Where files are put: disks that are full, folders that are gone, parts that somebody else has a hand in."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fastchat.errors import AttachmentDamaged, Busy
from fastchat.protocols import wire
from fastchat_client import downloading, filenames, saving
from fastchat_client.attachment_cipher import PIECE
from fastchat_client.events import FileSaved, Notice
from fastchat_client.saving import NotSaved, Part
from tests.support.downloading import CHUNKS, DATA, FilesTest

NOT_SAVED = NotSaved.code


def fails(number: int) -> Callable[..., Any]:
    def failing(*_: object, **__: object) -> Any:
        raise OSError(number, os.strerror(number))

    return failing


class Disk(FilesTest):
    def setUp(self) -> None:
        super().setUp()
        self.file = self.files.put(DATA)
        self.message = self.brought(self.file)

    def begun(self, count: int) -> Path:
        """So many chunks are there, and no more come for now; the part."""

        def answer(device: str, request: wire.Fetch) -> Sequence[Any]:
            return self.files.honestly(device, request) if request.index < count else []

        self.files.answer = answer
        self.fetches(self.message)
        self.files.answer = self.files.honestly
        (name,) = self.parts
        return self.folder / name

    def starts_again(self) -> None:
        self.bob.dies()
        self.bob.connects()
        self.scene.settle()
        self.scene.pass_time(2)


class Trouble(Disk):
    def test_the_disk_is_full_in_the_middle(self) -> None:
        """What has come is kept, and gone on with when it is asked for again."""
        part = self.begun(2)
        self.patch(os, "pwrite", fails(errno.ENOSPC))
        self.bob.disconnects()
        self.bob.connects()
        self.scene.settle()
        (failed,) = self.failures
        self.assertEqual(failed.code, NOT_SAVED)
        self.assertIn("the disk is full", failed.reason)
        self.assertIn(f"{2 * PIECE} bytes that have come are kept", failed.reason)
        self.assertEqual((self.saved, part.stat().st_size), ([], 2 * PIECE))
        (transfer,) = self.bob.core.transfers()
        self.assertEqual((transfer.done, transfer.active), (2 * PIECE, False))
        self.scene.pass_time(5)
        self.assertEqual(len(self.failures), 1, "it is not tried by itself")
        self.takes_it_again()
        self.bob.events.clear()
        self.files.asked.clear()
        self.fetches(self.message)
        self.arrived()
        self.assertEqual([one.index for one in self.files.asked], [2, 3, 4])

    def takes_it_again(self) -> None:
        """The disk takes what is written again."""
        self.patch(os, "pwrite", self.pwrite)

    pwrite = staticmethod(os.pwrite)

    def test_it_goes_on_when_the_program_starts_anew(self) -> None:
        self.begun(2)
        self.patch(os, "pwrite", fails(errno.ENOSPC))
        self.bob.disconnects()
        self.bob.connects()
        self.scene.settle()
        self.takes_it_again()
        self.bob.events.clear()
        self.starts_again()
        self.arrived()

    def test_there_is_no_room_from_the_beginning(self) -> None:
        class Disk:
            f_bavail, f_frsize = 1, 4096

        self.patch(os, "fstatvfs", lambda descriptor: Disk)
        self.fetches(self.message)
        reason = self.refused(NOT_SAVED).reason
        for words in ("the disk is full", "nothing of it is kept: fetch it again"):
            self.assertIn(words, reason)
        self.assertEqual(self.files.asked, [])

    def test_the_folder_is_gone_before_it_begins(self) -> None:
        self.bob.disconnects()
        self.bob.core.fetch(self.message, self.folder)
        self.folder.rmdir()
        self.bob.connects()
        self.scene.settle()
        (failed,) = self.failures
        self.assertEqual((failed.code, self.bob.core.transfers()), (NOT_SAVED, []))
        self.assertIn(f"{self.folder} does not take the file: the folder is gone", failed.reason)

    def test_the_folder_goes_in_the_middle(self) -> None:
        self.begun(2).unlink()
        self.folder.rmdir()
        self.bob.disconnects()
        self.bob.connects()
        self.scene.settle()
        (failed,) = self.failures
        self.assertEqual((failed.code, self.bob.core.transfers()), (NOT_SAVED, []))

    def test_the_part_is_taken_away_while_it_is_written(self) -> None:
        def answer(device: str, request: wire.Fetch) -> Sequence[Any]:
            if request.index == CHUNKS - 1:
                (self.folder / self.parts[0]).unlink()
            return self.files.honestly(device, request)

        self.files.answer = answer
        self.fetches(self.message)
        self.refused(NOT_SAVED)

    def test_another_file_is_put_in_its_place_while_it_is_written(self) -> None:
        """It would get the name."""

        def answer(device: str, request: wire.Fetch) -> Sequence[Any]:
            if request.index == CHUNKS - 1:
                part = self.folder / self.parts[0]
                part.unlink()
                part.write_bytes(DATA)
            return self.files.honestly(device, request)

        self.files.answer = answer
        self.fetches(self.message)
        self.assertEqual([failed.code for failed in self.failures], [NOT_SAVED])
        self.assertEqual(self.saved, [])

    def test_nothing_may_be_written_there(self) -> None:
        """As root everything may: so it is the system that says no."""
        for number, words in ((errno.EACCES, "you may not write there"), (errno.EROFS, "nothing can be written there")):
            with self.subTest(words):
                self.bob.events.clear()
                self.patch(saving.Part, "_made_or_found", fails(number))
                self.fetches(self.message)
                self.assertIn(words, self.refused(NOT_SAVED).reason)

    def test_it_cannot_be_given_its_name(self) -> None:
        """All of it is kept; the next try has nothing to fetch."""
        settle = filenames.settle
        self.patch(saving, "settle", fails(errno.EROFS))
        self.fetches(self.message)
        (failed,) = self.failures
        self.assertEqual((failed.code, self.saved, len(self.parts)), (NOT_SAVED, [], 1))
        self.patch(saving, "settle", settle)
        self.bob.events.clear()
        self.files.asked.clear()
        self.fetches(self.message)
        self.arrived()
        self.assertEqual(self.files.asked, [])

    def test_a_file_system_without_hard_links(self) -> None:
        self.patch(os, "link", fails(errno.EPERM))
        self.fetches(self.message)
        self.arrived()

    def test_what_is_left_over_and_cannot_be_removed_is_told_once(self) -> None:
        self.begun(2)
        self.patch(Path, "unlink", fails(errno.EPERM))
        self.bob.core.cancel(self.file.attachment)
        self.scene.settle()
        self.scene.pass_time(3)
        (notice,) = self.bob.told(Notice)
        self.assertIn("cannot be removed", notice.text)


class Parts(Disk):
    """Between two runs of the program somebody has had a hand in it."""

    def part_is(self, count: int, change: Callable[[Path], object]) -> None:
        part = self.begun(count)
        self.bob.dies()
        change(part)
        self.files.asked.clear()
        self.bob.events.clear()
        self.bob.connects()
        self.scene.settle()
        self.scene.pass_time(2)

    def flip(self, part: Path) -> None:
        with open(part, "r+b") as file:
            file.seek(PIECE + 5)
            byte = file.read(1)
            file.seek(PIECE + 5)
            file.write(bytes([byte[0] ^ 1]))

    def test_others_cannot_read_it(self) -> None:
        self.assertEqual(self.begun(2).stat().st_mode & 0o777, 0o600)

    def test_it_was_changed(self) -> None:
        """It is begun anew, once."""
        self.part_is(3, self.flip)
        self.arrived()
        self.assertEqual([one.index for one in self.files.asked], [3, 4, 0, 1, 2, 3, 4])
        (notice,) = self.bob.told(Notice)
        self.assertEqual(notice.code, AttachmentDamaged.code)

    def test_it_was_changed_and_the_sender_has_lied_too(self) -> None:
        self.file = self.files.put(DATA, sha256=bytes(32))
        self.message = self.brought(self.file)
        self.part_is(3, self.flip)
        self.refused(AttachmentDamaged.code)
        self.assertEqual(len(self.files.asked), 2 + CHUNKS)

    def test_that_it_was_begun_anew_is_remembered(self) -> None:
        """Else a lie would be fetched for ever."""
        self.file = self.files.put(DATA, sha256=bytes(32))
        self.message = self.brought(self.file)
        part = self.begun(3)
        self.bob.dies()
        self.bob.connects()

        def answer(device: str, request: wire.Fetch) -> Sequence[Any]:
            is_second = sum(one.index == 0 for one in self.files.asked) > 1
            return [] if is_second and request.index == 3 else self.files.honestly(device, request)

        self.files.answer = answer
        self.scene.settle()
        self.assertEqual(part.stat().st_size, 3 * PIECE)
        self.files.answer = self.files.honestly
        self.files.asked.clear()
        self.starts_again()
        self.refused(AttachmentDamaged.code)
        self.assertEqual([one.index for one in self.files.asked], [3, 4])

    def test_it_is_longer_than_the_file(self) -> None:
        self.part_is(2, lambda part: part.write_bytes(DATA + bytes(2 * PIECE)))
        self.arrived()

    def test_it_is_as_long_as_the_file_and_something_else(self) -> None:
        self.part_is(2, lambda part: part.write_bytes(bytes(len(DATA))))
        self.arrived()

    def test_it_is_a_link_now(self) -> None:
        target = self.new_folder("elsewhere") / "target"
        target.write_text("mine")

        def linked(part: Path) -> None:
            part.unlink()
            part.symlink_to(target)

        self.part_is(2, linked)
        (failed,) = self.failures
        self.assertIn("a link in its place, which is not followed", failed.reason)
        self.assertEqual((failed.code, self.saved, target.read_text()), (NOT_SAVED, [], "mine"))
        self.assertTrue((self.folder / self.parts[0]).is_symlink(), "it is not FastChat's to remove")

    def test_it_has_another_name_now(self) -> None:
        """What is written would stand in that file, too."""
        mine = self.folder / "mine"

        def linked(part: Path) -> None:
            part.unlink()
            mine.write_text("mine")
            os.link(mine, part)

        self.part_is(2, linked)
        self.assertEqual(mine.read_text(), "mine")
        self.assertEqual((self.saved, self.failures), (["mine", "notes.txt"], []))

    def test_it_is_a_pipe_or_a_folder_now(self) -> None:
        for make in (os.mkfifo, os.mkdir):
            with self.subTest(make=make.__name__):

                def replaced(part: Path, make: Callable[[Path], None] = make) -> None:
                    part.unlink()
                    make(part)

                self.part_is(2, replaced)
                (failed,) = self.failures
                self.assertEqual((failed.code, self.saved, self.bob.core.transfers()), (NOT_SAVED, [], []))
                odd = self.folder / self.parts[0]
                odd.rmdir() if odd.is_dir() else odd.unlink()

    def test_it_is_cut_off_while_it_is_written(self) -> None:
        def answer(device: str, request: wire.Fetch) -> Sequence[Any]:
            if request.index == CHUNKS - 1 and len(self.files.asked) == CHUNKS:
                os.truncate(self.folder / self.parts[0], 100)
            return self.files.honestly(device, request)

        self.files.answer = answer
        self.fetches(self.message)
        self.refused(AttachmentDamaged.code)

    def test_chunks_that_come_while_it_is_begun_anew(self) -> None:
        """They were asked for before, and are asked for again."""
        part = self.begun(2)
        left = [request for request in self.files.asked if request.index >= 2]
        begin_anew = Part.begin_anew

        def meanwhile(one: Part) -> None:
            one.discard()
            for message in self.files.honestly(self.bob.device, left.pop(0)):
                self.bob.core.receive(message)
            begin_anew(one)

        self.patch(Part, "begin_anew", meanwhile)
        self.patch(downloading, "SLICE", PIECE)
        for message in self.files.honestly(self.bob.device, left.pop(0)):
            self.bob.core.receive(message)
        os.truncate(part, 100)
        self.scene.settle()
        self.scene.pass_time(2)
        self.arrived()

    def test_it_is_made_longer_while_it_is_written(self) -> None:
        def answer(device: str, request: wire.Fetch) -> Sequence[Any]:
            if request.index == CHUNKS - 1:
                os.truncate(self.folder / self.parts[0], len(DATA) + 1)
            return self.files.honestly(device, request)

        self.files.answer = answer
        self.fetches(self.message)
        self.refused(AttachmentDamaged.code)

    def test_another_program_puts_the_same_file_together_there(self) -> None:
        """As another profile of the same person may; one after the other."""
        others = Part(self.bob_part(), len(DATA))
        others.open()
        others.write(DATA[:PIECE])
        self.fetches(self.message)
        self.scene.pass_time(3)
        self.assertEqual((self.saved, self.files.asked, self.failures), ([], [], []))
        others.close()
        self.scene.pass_time(3)
        self.arrived()
        self.assertEqual(len(self.files.asked), CHUNKS - 1, "what that one had is of use")

    def test_what_another_program_has_is_not_removed(self) -> None:
        others = Part(self.bob_part(), len(DATA))
        others.open()
        self.addCleanup(others.close)
        self.fetches(self.message)
        self.bob.core.cancel(self.file.attachment)
        self.scene.settle()
        self.scene.pass_time(3)
        self.assertTrue(others.is_there)

    def bob_part(self) -> Path:
        return self.folder / f".notes.txt.{self.file.attachment[:8]}.part"

    def test_a_part_that_nobody_has_noted_is_of_use(self) -> None:
        """It was put there by this program in another life, or by another profile."""
        self.bob_part().write_bytes(DATA[: 2 * PIECE + 9])
        self.fetches(self.message)
        self.arrived()
        self.assertEqual([one.index for one in self.files.asked], [2, 3, 4])

    def test_busy_is_no_trouble_of_the_disk(self) -> None:
        self.files.answer = lambda device, request: [wire.error_from(Busy(retry_after=1.0), request.id)]
        self.fetches(self.message)
        self.assertEqual((self.failures, self.bob.told(FileSaved)), ([], []))
        self.files.answer = self.files.honestly
        self.scene.pass_time(3)
        self.arrived()
