"""What waits on the disk to be sent: encrypted once, whole or not at all, and nobody's rubbish for ever."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import io
import os
import stat
import tracemalloc
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from fastchat.errors import AttachmentTooLarge, ConfigError
from fastchat.protocols.wire import CHUNK_SIZE
from fastchat_client import spool
from fastchat_client.attachment_cipher import PIECE, chunk_count, decrypt
from fastchat_client.spool import Spooled, Stopped

MIB = 1024 * 1024


class Failing(io.RawIOBase):
    """A file that cannot be read to its end."""

    def readinto(self, buffer: object) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))


class SpoolTest(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp()) / "outgoing"
        self.folder.parent.mkdir()

    def write(self, data: bytes, **options: object) -> Spooled:
        spooled = spool.write(self.folder, io.BytesIO(data), "it", **{"largest": 2**40, **options})  # type: ignore[arg-type]
        self.addCleanup(spooled.close)
        return spooled

    def left(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir())

    def content(self, spooled: Spooled) -> bytes:
        count = chunk_count(spooled.size)
        chunks = [spool.chunk(self.folder, spooled.attachment, index) for index in range(count)]
        return b"".join(decrypt(spooled.key, i, count, spooled.size, chunk) for i, chunk in enumerate(chunks))


class Written(SpoolTest):
    def test_all_of_it_and_nothing_but_whole_chunks(self) -> None:
        for size in (0, 1, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE):
            data = os.urandom(size)
            spooled = self.write(data)
            self.assertEqual((spooled.size, spooled.sha256), (size, hashlib.sha256(data).digest()))
            path = self.folder / spooled.attachment
            self.assertEqual(path.stat().st_size, chunk_count(size) * CHUNK_SIZE)
            self.assertEqual(self.content(spooled), data)

    def test_a_source_that_gives_little_at_a_time(self) -> None:
        class Dripping(io.BytesIO):
            def read(self, size: int | None = -1, /) -> bytes:
                return super().read(min(size or 0, 1000))

        data = os.urandom(PIECE + 500)
        spooled = spool.write(self.folder, Dripping(data), "it", largest=2**40)
        self.addCleanup(spooled.close)
        self.assertEqual(self.content(spooled), data)

    def test_the_same_file_is_never_the_same_twice(self) -> None:
        """Neither its id nor its key, so nobody sees on the network that two have sent the same."""
        data = b"the same" * 20_000
        first, second = self.write(data), self.write(data)
        self.assertNotEqual(first.attachment, second.attachment)
        self.assertNotEqual(first.key, second.key)
        chunks = [spool.chunk(self.folder, one.attachment, i) for one in (first, second) for i in (0, 1)]
        self.assertEqual(len(set(chunks)), 4)

    def test_its_owner_alone_can_read_it_and_nothing_of_it_can_be_read(self) -> None:
        secret = b"a sentence that nobody may find"
        spooled = self.write(secret * 5000)
        path = self.folder / spooled.attachment
        self.assertEqual(stat.S_IMODE(path.stat().st_mode), 0o600)
        self.assertEqual(stat.S_IMODE(self.folder.stat().st_mode), 0o700)
        self.assertNotIn(secret[:8], path.read_bytes())

    def test_progress_is_told_to_the_end(self) -> None:
        told: list[int] = []
        self.write(b"x" * (2 * PIECE + 5), progress=told.append)
        self.assertEqual(told, [PIECE, 2 * PIECE, 2 * PIECE + 5])

    def test_a_large_file_takes_no_memory(self) -> None:
        """Worth its second or two: nobody would notice otherwise until their machine swaps."""
        source = self.folder.parent / "sparse"
        with source.open("wb") as file:
            file.truncate(300 * MIB)
        with source.open("rb", buffering=0) as file:
            tracemalloc.start()
            try:
                spooled = spool.write(self.folder, file, "sparse", largest=2**40)
                _, peak = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
        self.addCleanup(spooled.close)
        self.addCleanup((self.folder / spooled.attachment).unlink)
        self.assertEqual(spooled.size, 300 * MIB)
        self.assertLess(peak, 2 * MIB)


class NotWritten(SpoolTest):
    """Nothing is left."""

    def refused(self, kind: type[Exception], data: bytes = b"x" * (2 * PIECE), **options: object) -> Exception:
        error = self.assertRaises(kind, self.write, data, **options)
        self.assertEqual(self.left(), [])
        return error

    def test_larger_than_the_network_takes(self) -> None:
        self.refused(AttachmentTooLarge, largest=PIECE + 10)
        self.write(b"x" * PIECE, largest=PIECE)

    def test_stopped(self) -> None:
        done: list[int] = []
        self.refused(Stopped, progress=done.append, stopped=lambda: len(done) == 1)
        self.assertEqual(done, [PIECE])

    def test_a_source_that_cannot_be_read(self) -> None:
        error = self.assertRaises(ConfigError, spool.write, self.folder, Failing(), "it.txt", largest=9)
        self.assertIn("it.txt cannot be read", error.message)
        self.assertEqual(self.left(), [])

    def test_no_room(self) -> None:
        def full(descriptor: int) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        self.patch(spool.os, "fsync", full)
        error = self.refused(ConfigError)
        self.assertIn("No space left", str(error))

    def test_no_folder(self) -> None:
        self.folder.write_text("a file")
        self.assertRaises(ConfigError, self.write, b"x")

    def test_a_mistake(self) -> None:
        def broken(done: int) -> None:
            raise ZeroDivisionError

        self.refused(ZeroDivisionError, progress=broken)


class Read(SpoolTest):
    def test_what_is_gone_or_cut_off_is_no_chunk(self) -> None:
        spooled = self.write(b"x" * PIECE * 2)
        path = self.folder / spooled.attachment
        os.truncate(path, CHUNK_SIZE + 10)
        spool.chunk(self.folder, spooled.attachment, 0)
        self.assertRaises(ConfigError, spool.chunk, self.folder, spooled.attachment, 1)
        path.unlink()
        self.assertRaises(ConfigError, spool.chunk, self.folder, spooled.attachment, 0)


class Rubbish(SpoolTest):
    def test_what_nobody_knows_is_removed(self) -> None:
        known, unknown = self.write(b"known"), self.write(b"unknown")
        for one in (known, unknown):
            spool_lock_released(one)
        spool.remove_rubbish(self.folder, lambda attachment: attachment == known.attachment)
        self.assertEqual(self.left(), [known.attachment])

    def test_what_is_being_written_is_not(self) -> None:
        spooled = self.write(b"not noted yet")
        spool.remove_rubbish(self.folder, lambda attachment: False)
        self.assertEqual(self.left(), [spooled.attachment])

    def test_what_was_noted_while_somebody_looked_is_not(self) -> None:
        """It was locked when the folder was read, and is noted when the lock can be had."""
        spooled = self.write(b"noted just now")
        spool_lock_released(spooled)
        asked: list[str] = []

        def noted(attachment: str) -> bool:
            asked.append(attachment)
            return True

        spool.remove_rubbish(self.folder, noted)
        self.assertEqual((asked, self.left()), ([spooled.attachment], [spooled.attachment]))

    def test_one_that_is_taken_for_rubbish_before_it_is_locked_is_made_again(self) -> None:
        flock = spool.fcntl.flock
        lost: list[str] = []

        def late(descriptor: int, operation: int) -> None:
            if not lost:
                (path,) = self.folder.iterdir()
                lost.append(path.name)
                path.unlink()
            flock(descriptor, operation)

        self.patch(spool.fcntl, "flock", late)
        spooled = self.write(b"still here")
        self.assertEqual(self.content(spooled), b"still here")
        self.assertEqual(self.left(), [spooled.attachment])

    def test_other_things_in_the_folder(self) -> None:
        self.folder.mkdir()
        (self.folder / "folder").mkdir()
        (self.folder / "nowhere").symlink_to(self.folder.parent / "gone")
        (self.folder / "zz").write_text("rubbish")
        spool.remove_rubbish(self.folder, lambda attachment: False)
        self.assertEqual(self.left(), ["folder", "nowhere"])
        spool.remove_rubbish(self.folder.parent / "no folder", lambda attachment: False)


def spool_lock_released(spooled: Spooled) -> None:
    """The process that wrote it is gone; the test closes it once more."""

    fcntl.flock(spooled.lock, fcntl.LOCK_UN)
