"""Files of every kind over the real network (TLS, PostgreSQL, threads), from one real client to others: what arrives is
what was sent, for whoever it was sent to, and what the network holds of it is noise.

What each part does with what is odd, is tested beside it; here all of them are together, once."""

from __future__ import annotations

import hashlib
import io
import os
from collections import Counter
from pathlib import Path

from PIL import Image, ImageSequence
from twisted.internet.threads import deferToThread
from twisted.logger import globalLogPublisher, textFileLogObserver

from fastchat.protocols.wire import CHUNK_SIZE
from fastchat_client import files
from fastchat_client.attachment_cipher import PIECE
from fastchat_client.events import Event, FileSaved, MessageReceived
from fastchat_client.pictures import PictureError, open_thumbnail
from fastchat_client.vault import split_id
from tests.support.filing import FilesCase, Friend
from tests.support.pictures import SECRETS, animation, drawing, heic, photo
from tests.support.running import until
from tests.test_dump import dump, spellings

FROM_HELL = {
    "../../../etc/passwd": "_._._etc_passwd",
    "/etc/shadow": "_etc_shadow",
    "..\\..\\windows\\cmd.exe": "_._windows_cmd.exe",
    ".bashrc": "bashrc",
    "annual\u202egpj.exe": "annualgpj.exe",
    "two\nlines\x1b[2J\x00.txt": "two lines [2J .txt",
    "...": "file",
    "CON": "_CON",
    "x" * 240 + ".tar.gz": "x" * 117 + ".gz",
    "twice.txt": "twice.txt",
}
"""What a sender calls a file, and what it is called on the receiver's disk."""


def pixels(data: bytes) -> list[tuple[int, bytes]]:
    """Of each frame, how long it is shown, and what is on it."""
    with Image.open(io.BytesIO(data)) as image:
        frames = ImageSequence.Iterator(image)
        return [(frame.info.get("duration", 0), frame.convert("RGBA").tobytes()) for frame in frames]


class Arrived(FilesCase):
    async def test_pictures_and_files_are_what_they_were(self) -> None:
        alice, bob = await self.begin("alice", "bob")
        self.assertNotEqual(alice.service, bob.service)
        pictures = {"beach.jpg": photo(1), "logo.png": drawing(), "disc.gif": animation()}
        others = {"nothing.txt": b"", "noise.bin": os.urandom(2**20)}
        self.assertTrue(all(any(secret in data for secret in SECRETS) for data in pictures.values()))
        for name, data in {**pictures, **others}.items():
            attachment = await alice.send_file("bob", self.source(name, data), f"this is {name}")
            path = await bob.fetched(attachment)
            message = await bob.brought(attachment)
            got = path.read_bytes()
            self.assertEqual((path, message.text), (bob.folder / name, f"this is {name}"))
            if name in others:
                self.assertTrue(got == data, name)
                continue
            self.assertTrue(pixels(got) == pixels(data), name)
            for secret in SECRETS:
                self.assertNotIn(secret, got, name)
            assert message.file is not None
            thumbnail = open_thumbnail(message.file.thumbnail)
            self.assertEqual((message.file.width, message.file.height), Image.open(path).size)
            self.assertEqual(thumbnail.size, (message.file.width, message.file.height))  # all of these are small

    async def test_what_cannot_be_read_is_not_sent_unless_as_it_is(self) -> None:
        alice, bob = await self.begin("alice", "bob")
        source = self.source("new.heic", heic())
        with self.assertRaises(PictureError) as caught:
            await alice.send_file("bob", source)
        self.assertIn("new.heic", caught.exception.message)
        self.assertIn("--original", caught.exception.message)
        alice.send("bob", "it did not go")
        await until(self.reactor, lambda: bob.texts["alice"] == ["it did not go"])
        self.assertEqual(await self.stored(), (0, 0))
        self.assertEqual(list(alice.core.outgoing.glob("*")), [])
        attachment = await alice.send_file("bob", source, original=True)
        self.assertEqual((await bob.fetched(attachment)).read_bytes(), heic())

    async def test_names_from_hell(self) -> None:
        """The sender's client has cleaned none of them; nothing that is there is overwritten."""
        alice, bob = await self.begin("alice", "bob")
        (bob.folder / "twice.txt").write_text("was here before")
        before = self._around(bob)
        wanted = {**FROM_HELL, "twice.txt": "twice (1).txt"}
        for number, (name, there) in enumerate(wanted.items()):
            path = await bob.fetched(alice.describe("bob", b"%d" % number, name))
            self.assertEqual((path, path.read_bytes()), (bob.folder / there, b"%d" % number))
        self.assertEqual(bob.shown(), sorted([*wanted.values(), "twice.txt"]))
        self.assertEqual((bob.folder / "twice.txt").read_text(), "was here before")
        self.assertEqual(self._around(bob), before)

    def _around(self, friend: Friend) -> set[Path]:
        """What lies where a name could lead to, but for the vault's own files."""
        home = friend.folder.parent
        return {path for folder in (home, home.parent) for path in folder.iterdir() if path.stem != "vault"}

    async def test_to_a_group_of_whom_one_is_not_there(self) -> None:
        """One upload for all of them; the last one has it after a login of days later, and with that it is gone."""
        alice, bob, carol = await self.begin("alice", "bob", "carol")
        group = await self.group(alice, bob, carol)
        await carol.stop()
        await until(self.reactor, lambda: sum(self.network.sessions) == 2)
        data = os.urandom(3 * PIECE + 5)
        attachment = await alice.send_file(group, self.source("minutes.pdf", data), "as agreed")
        await self.sent(alice, attachment)
        await alice.has_said_all()
        self.assertTrue((await bob.fetched(attachment)).read_bytes() == data)
        self.assertEqual(await self.stored(), (1, 4))
        carol.start()
        message = await carol.brought(attachment)
        self.assertEqual((message.conversation, message.sender, message.text), (group, "alice", "as agreed"))
        self.assertTrue((await carol.fetched(attachment)).read_bytes() == data)
        await self.has_stored(0, 0)


class BesideChat(FilesCase):
    async def test_a_text_arrives_while_a_file_is_on_its_way_up_and_down(self) -> None:
        alice, bob = await self.begin("alice", "bob")
        alice.send("bob", "hello")
        await until(self.reactor, lambda: bob.texts["alice"] == ["hello"])
        size = 12 << 20
        attachment = await alice.send_file("bob", self.source("film.mkv", os.urandom(size)))
        self.assertTrue(0 < await self._done_when_heard("going up", alice, alice, bob) < size)
        message = await bob.brought(attachment)
        bob.fetch(message)
        self.assertTrue(0 < await self._done_when_heard("coming down", bob, alice, bob) < size)
        await bob.tells(FileSaved)
        self.assertEqual(bob.texts["alice"], ["hello", "going up", "", "coming down"])

    async def _done_when_heard(self, text: str, mover: Friend, speaker: Friend, hearer: Friend) -> int:
        """How many bytes of the file that `mover` sends, or fetches, are there at the moment at which a text is heard
        that was sent when the first of them were."""
        done: list[int] = []

        def moved() -> int:
            return sum(transfer.done for transfer in mover.core.transfers())

        def heard(event: Event) -> None:
            if isinstance(event, MessageReceived) and event.text == text:
                done.append(moved())

        await until(self.reactor, lambda: moved() > 0)
        hearer.watch = heard
        speaker.send(hearer.user, text)
        await until(self.reactor, lambda: bool(done))
        return done[0]


class Held(FilesCase):
    async def test_what_the_network_holds_is_noise(self) -> None:
        log = io.StringIO()
        observer = textFileLogObserver(log)
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        alice, bob = await self.begin("alice", "bob")
        text = "what you asked for, and nothing else of it"
        zeros = self.source("nothing-but-zeros.img", bytes(3 * PIECE + 1))
        words = self.source("the-letters-of-the-pier.txt", b"meet me at the old pier at nine. " * 3000)
        picture = self.source("beach-with-the-lighthouse.jpg", photo())
        attachments = []
        for path in (zeros, words, picture, zeros):
            attachments.append(await alice.send_file("bob", path, text))
            await self.sent(alice, attachments[-1])
        await bob.brought(attachments[-1])
        await bob.fetched(attachments[1])  # which is in the log too, if anything is
        attachments.append(await alice.send_file("bob", words, text))
        await self.sent(alice, attachments[-1])

        secrets = {f"name {path.name}": path.name.encode() for path in (zeros, words, picture)}
        secrets |= {"text": text.encode(), "words": words.read_bytes()[:64], "zeros": bytes(64)}
        for attachment in attachments:
            message = files.message_with(alice.vault, attachment)
            file = files.descriptor(alice.vault, *split_id(message))
            shown = files.stored_file(alice.vault, message)
            assert file is not None
            assert shown is not None
            secrets |= {f"key of {attachment}": file.key, f"digest of {attachment}": file.sha256}
            secrets[f"type of {attachment}"] = f'"{file.type}"'.encode()
            if shown.file.thumbnail:
                secrets["thumbnail"] = shown.file.thumbnail[100:164]
        self.assertIn("thumbnail", secrets)
        held = await deferToThread(dump, self.network.config.database.dsn or "")
        logged = log.getvalue().encode()
        self.assertIn(alice.service.encode(), logged)
        self.assertIn(attachments[0].encode(), held.replace(b"-", b""))
        for what, secret in secrets.items():
            for how, spelling in spellings(secret).items():
                self.assertNotIn(spelling, held, f"{what}, {how}")
                self.assertNotIn(spelling, logged, f"{what}, {how}, in the log")
        for attachment in attachments:
            self.assertNotIn(attachment.encode(), logged.replace(b"-", b""))
        self._is_noise([bytes(data) for (data,) in await self.rows("SELECT data FROM attachment_chunks")])

    def _is_noise(self, chunks: list[bytes]) -> None:
        """Chunks of text, of a picture and, most of them, of zeros."""
        self.assertGreaterEqual(len(chunks), 4 + 4 + 1 + 2)
        self.assertEqual({len(chunk) for chunk in chunks}, {CHUNK_SIZE})
        everything = b"".join(chunks)
        blocks = {everything[at : at + 16] for at in range(0, len(everything), 16)}
        self.assertEqual(len(blocks), len(everything) // 16, "no block of 16 bytes is there twice")
        expected = len(everything) / 256
        chi_square = sum((count - expected) ** 2 / expected for count in Counter(everything).values())
        # 255 ± 22.6 for what is random, 10 of these away once in 10²⁰ times.
        self.assertEqual(len(Counter(everything)), 256)
        self.assertTrue(100 < chi_square < 481, chi_square)
        digests = {hashlib.sha256(chunk).digest() for chunk in chunks}
        self.assertEqual(len(digests), len(chunks))
