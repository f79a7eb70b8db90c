"""From a path to an upload that the vault has noted: read in a thread, stopped at any moment, nothing left behind."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image
from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import TestCase

from fastchat.errors import AttachmentTooLarge, ConfigError, FastChatError, NameNotAllowed, RequestError, UnknownGroup
from fastchat_client import attaching, spool, uploads
from fastchat_client.attaching import Attaching
from fastchat_client.attachment_cipher import PIECE, chunk_count, decrypt
from fastchat_client.pictures import PictureError
from fastchat_client.uploads import Upload
from fastchat_client.vault import Vault


class AttachingTest(TestCase):
    timeout = 60

    def setUp(self) -> None:
        from twisted.internet import reactor

        self.reactor: Any = reactor
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.outgoing = self.folder / "outgoing"
        self.vault = Vault.create(self.folder / "vault.db", os.urandom(32))
        self.addCleanup(self.vault.close)
        self.attaching = Attaching(self.vault, self.outgoing, reactor, lambda composed: composed(self.vault, 5))

    def file(self, name: str, data: bytes) -> Path:
        path = self.folder / name
        path.write_bytes(data)
        return path

    def begin(
        self,
        path: Path,
        to: str = "bob",
        text: str = "",
        *,
        original: bool = False,
        progress: Callable[[int, int], None] = lambda done, size: None,
    ) -> Deferred[str]:
        return Deferred.fromCoroutine(self.attaching.attach(to, path, text, original, "", progress))

    async def refused(self, kind: type[FastChatError], path: Path, **options: Any) -> FastChatError:
        error = await self.assertFailure(self.begin(path, **options), kind)
        self.check_nothing_left()
        assert isinstance(error, FastChatError)
        return error

    def check_nothing_left(self) -> None:
        self.assertEqual(uploads.attachments(self.vault), [])
        self.assertEqual(list(self.outgoing.iterdir()) if self.outgoing.exists() else [], [])

    def noted(self, attachment: str) -> tuple[Upload, bytes]:
        """The upload, and what the network will hold, opened."""
        upload = uploads.get(self.vault, attachment)
        assert upload is not None
        file = upload.file
        count = chunk_count(file.size)
        chunks = [spool.chunk(self.outgoing, attachment, index) for index in range(count)]
        return upload, b"".join(decrypt(file.key, i, count, file.size, chunk) for i, chunk in enumerate(chunks))


class Noted(AttachingTest):
    async def test_a_file_with_what_there_is_to_say_of_it(self) -> None:
        data = os.urandom(3 * PIECE)
        path = self.file("notes of\u202e today.txt", data)
        attachment = await self.begin(path, text="read this")
        upload, opened = self.noted(attachment)
        self.assertEqual(opened, data)
        self.assertEqual((upload.conversation, upload.at), ("bob", 5))
        self.assertEqual((upload.file.name, upload.file.type), ("notes of today.txt", "text/plain"))
        self.assertEqual((upload.file.text, upload.file.size), ("read this", len(data)))
        self.assertEqual(upload.source.path, str(path.absolute()))

    async def test_a_picture_loses_what_it_tells_unless_the_original_is_wanted(self) -> None:
        buffer = BytesIO()
        exif = Image.Exif()
        exif[0x010F] = "a camera that somebody owns"
        Image.new("RGB", (400, 300), "red").save(buffer, "JPEG", exif=exif)
        path = self.file("beach.jpg", buffer.getvalue())
        for original in (False, True):
            upload, opened = self.noted(await self.begin(path, original=original))
            self.assertEqual(b"a camera that somebody owns" in opened, original)
            self.assertEqual(opened == buffer.getvalue(), original)
            file = upload.file
            self.assertEqual((file.type, file.width, file.height, bool(file.thumbnail)), ("image/jpeg", 400, 300, True))

    async def test_progress_is_told_in_the_reactor_s_thread_to_the_end(self) -> None:
        told: list[tuple[int, int]] = []
        threads: set[int] = set()

        def progress(done: int, size: int) -> None:
            threads.add(threading.get_ident())
            told.append((done, size))

        await self.begin(self.file("large", bytes(20 * PIECE)), progress=progress)
        self.assertEqual(threads, {threading.get_ident()})
        self.assertEqual(told[-1], (20 * PIECE, 20 * PIECE))
        self.assertEqual(told, sorted(told))
        self.assertLess(len(told), 20)

    async def test_the_same_once_more_is_gone_on_with(self) -> None:
        path = self.file("notes.txt", b"as it was")
        attachment = await self.begin(path, text="read this")
        self.assertEqual(await self.begin(path, text="read this"), attachment)
        self.assertEqual(await self.begin(Path(os.path.relpath(path)), text="read this"), attachment)
        others = [await self.begin(path, text="something else"), await self.begin(path, to="carol", text="read this")]
        others.append(await self.begin(path, text="read this", original=True))
        path.write_bytes(b"as it is now")
        others.append(await self.begin(path, text="read this"))
        self.assertEqual(len({attachment, *others}), 5)
        with self.vault.transaction():
            uploads.remove(self.vault, attachment)
        self.assertNotIn(await self.begin(self.file("notes.txt", b"as it was")), [attachment, *others])


class Refused(AttachingTest):
    async def test_what_is_no_file(self) -> None:
        fifo = self.folder / "pipe"
        os.mkfifo(fifo)
        for path in (self.folder / "nothing", self.folder, fifo, Path("/dev/zero"), self.folder / "a" / "b"):
            error = await self.refused(RequestError, path)
            self.assertIn(str(path), error.message)
            self.assertNotIn("\n", error.message)
            self.assertEqual("pack it" in error.message, path == self.folder)

    async def test_where_nothing_can_be_said(self) -> None:
        path = self.file("notes.txt", b"x")
        await self.refused(NameNotAllowed, path, to="no such name!")
        await self.refused(UnknownGroup, path, to="#0123456789abcdef0123456789abcdef")
        await self.refused(RequestError, path, text="x" * 40_000)

    async def test_a_broken_picture(self) -> None:
        await self.refused(PictureError, self.file("beach.jpg", b"\xff\xd8\xff\xe0 no more than its beginning"))

    async def test_larger_than_the_network_takes(self) -> None:
        with self.vault.transaction():
            self.vault.put("largest_attachment", PIECE)
        error = await self.refused(AttachmentTooLarge, self.file("large.bin", bytes(PIECE + 1)))
        self.assertIn("large.bin", error.message)
        await self.begin(self.file("just.bin", bytes(PIECE)))

    async def test_one_that_is_changed_while_it_is_read(self) -> None:
        path = self.file("log.txt", bytes(4 * PIECE))
        write = spool.write

        def slowly(*args: Any, **options: Any) -> Any:
            with path.open("ab") as file:
                file.write(b"one line more")
            return write(*args, **options)

        self.patch(attaching.spool, "write", slowly)
        error = await self.refused(ConfigError, path)
        self.assertIn("was changed while it was read", error.message)

    async def test_a_vault_that_cannot_be_written(self) -> None:
        def compose(composed: Any) -> Any:
            raise ZeroDivisionError

        broken = Attaching(self.vault, self.outgoing, self.reactor, compose)
        path = self.file("notes.txt", b"x")
        await self.assertFailure(
            Deferred.fromCoroutine(broken.attach("bob", path, "", False, "", lambda done, size: None)),
            ZeroDivisionError,
        )
        self.check_nothing_left()


class Stopped(AttachingTest):
    """In the middle of it, by whoever waits for it or because the program ends."""

    def held(self) -> tuple[threading.Event, Deferred[None]]:
        """The thread waits in the middle of a file until the event is set; fires when it does."""
        go_on, waits = threading.Event(), Deferred[None]()
        encrypt = spool.encrypt

        def slowly(key: bytes, index: int, is_last: bool, piece: bytes) -> bytes:
            if index == 1:
                self.reactor.callFromThread(waits.callback, None)
                go_on.wait(30)
            return encrypt(key, index, is_last, piece)

        self.patch(spool, "encrypt", slowly)
        self.addCleanup(go_on.set)
        return go_on, waits

    async def test_by_who_waits_for_it(self) -> None:
        go_on, waits = self.held()
        begun = self.begin(self.file("large", bytes(5 * PIECE)))
        await waits
        begun.cancel()
        await self.assertFailure(begun, CancelledError)
        go_on.set()
        await self.attaching.stop()
        self.check_nothing_left()

    async def test_because_the_program_ends(self) -> None:
        go_on, waits = self.held()
        begun = self.begin(self.file("large", bytes(5 * PIECE)))
        begun.addErrback(lambda failure: failure.trap(CancelledError))
        await waits
        stopping = Deferred.fromCoroutine(self.attaching.stop())
        self.assertFalse(stopping.called)
        go_on.set()
        await stopping
        self.check_nothing_left()
        await begun

    async def test_when_it_is_read_already(self) -> None:
        """The thread is done, and its word is on its way."""
        words: list[Callable[[], None]] = []

        def at_once(reactor: Any, pool: Any, run: Callable[[], Any]) -> Deferred[Any]:
            result, word = run(), Deferred[Any]()
            words.append(lambda: word.callback(result))
            return word

        self.patch(attaching, "deferToThreadPool", at_once)
        begun = self.begin(self.file("small", b"x"))
        self.assertEqual(len(list(self.outgoing.iterdir())), 1)
        begun.cancel()
        await self.assertFailure(begun, CancelledError)
        stopping = Deferred.fromCoroutine(self.attaching.stop())
        words.pop()()
        await stopping
        self.check_nothing_left()

    async def test_what_another_process_is_reading_is_no_rubbish(self) -> None:
        go_on, waits = self.held()
        data = os.urandom(5 * PIECE)
        begun = self.begin(self.file("large", data))
        await waits
        spool.remove_rubbish(self.outgoing, lambda attachment: False)
        go_on.set()
        _, opened = self.noted(await begun)
        self.assertEqual(opened, data)
