"""What a server says instead of the chunk that was asked for, and what a sender says of a file: refused, and named."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from typing import Any

import msgspec

from fastchat.errors import AttachmentDamaged, AttachmentTooLarge, ProtocolError, UnknownAttachment
from fastchat.protocols import wire
from fastchat.protocols.wire import CHUNK_SIZE
from fastchat_client.attachment_cipher import PIECE
from fastchat_client.events import FileSaved, Notice
from tests.support.downloading import CHUNKS, DATA, FilesTest

DAMAGED = AttachmentDamaged.code
VICTIM = 2
"""The chunk that is lied about."""


class OfTheServer(FilesTest):
    """Each lie is told of one chunk: for ever, or the first time only. Another file and the chat go on beside it."""

    def setUp(self) -> None:
        super().setUp()
        self.file = self.files.put(DATA)
        self.other = self.files.put(DATA, "other.bin")
        self.message = self.brought(self.file)
        self.others = self.brought(self.other)

    def lied_to(self, lie: Callable[[wire.Fetch], list[Any]], *, times: int = 1000) -> None:
        """bob fetches both files, and is told this instead of the victim."""
        left = times

        def answer(device: str, request: wire.Fetch) -> list[Any]:
            nonlocal left
            if (request.attachment, request.index) != (self.file.attachment, VICTIM) or left == 0:
                return self.files.honestly(device, request)
            left -= 1
            return lie(request)

        self.files.answer = answer
        other_folder = self.new_folder("other")
        self.bob.core.fetch(self.others, other_folder)
        self.fetches(self.message)
        self.alice.says("bob", "hello")
        self.scene.settle()
        self.assertEqual([path.read_bytes() for path in other_folder.iterdir()], [DATA])
        self.assertEqual(self.bob.reads("alice")[-1], "hello")
        self.assertTrue(self.bob.core.ready)

    def chunks(self) -> list[bytes]:
        return self.files.chunks[self.file.attachment]

    def instead(self, data: bytes) -> Callable[[wire.Fetch], list[Any]]:
        return lambda request: [self.files.chunk(request.id, data)]

    def lies(self) -> dict[str, bytes]:
        victim = self.chunks()[VICTIM]
        return {
            "swapped with its neighbour": self.chunks()[VICTIM + 1],
            "the one before, once more": self.chunks()[VICTIM - 1],
            "the last one": self.chunks()[-1],
            "of another file": self.files.chunks[self.other.attachment][VICTIM],
            "a bit is flipped": bytes([victim[0] ^ 1]) + victim[1:],
            "a bit of its end is flipped": victim[:-1] + bytes([victim[-1] ^ 1]),
            "noise": os.urandom(CHUNK_SIZE),
            "nothing but zeros": bytes(CHUNK_SIZE),
            "the plaintext": DATA[VICTIM * PIECE :][:CHUNK_SIZE],
            "truncated": victim[: CHUNK_SIZE // 2],
            "empty": b"",
        }

    def test_each_is_refused_and_named(self) -> None:
        for what, data in self.lies().items():
            with self.subTest(what=what):
                self.bob.events.clear()
                self.files.asked.clear()
                self.lied_to(self.instead(data))
                failed = self.refused(DAMAGED)
                self.assertIn(f"chunk {VICTIM + 1} of {CHUNKS}", failed.reason)
                asked = [one for one in self.files.asked if one.attachment == self.file.attachment]
                self.assertEqual(sum(one.index == VICTIM for one in asked), 2, "asked for once more")
                self.remove_other()

    def test_each_is_borne_once(self) -> None:
        for what, data in self.lies().items():
            with self.subTest(what=what):
                self.bob.events.clear()
                self.lied_to(self.instead(data), times=1)
                self.arrived()
                (notice,) = self.bob.told(Notice)
                self.assertEqual(notice.code, DAMAGED)
                self.assertIn(f"notes.txt: chunk {VICTIM + 1} of {CHUNKS}", notice.text)
                (self.folder / "notes.txt").unlink()
                self.remove_other()

    def remove_other(self) -> None:
        other = self.folder.parent / "other"
        for path in other.iterdir():
            path.unlink()
        other.rmdir()

    def test_a_chunk_of_an_earlier_file_of_the_same_id(self) -> None:
        """Whoever has sent it has never encrypted two files with one key."""
        earlier = self.files.put(os.urandom(len(DATA)))
        self.lied_to(self.instead(self.files.chunks[earlier.attachment][VICTIM]))
        self.refused(DAMAGED)

    def test_a_chunk_that_is_missing(self) -> None:
        self.lied_to(lambda request: [wire.error_from(UnknownAttachment(), request.id)])
        self.assertIn("ask its sender to send it again", self.refused(UnknownAttachment.code).reason)

    def test_it_has_expired(self) -> None:
        del self.files.chunks[self.file.attachment]
        self.fetches(self.message)
        self.refused(UnknownAttachment.code)

    def test_one_that_is_not_answered_keeps_only_its_file(self) -> None:
        self.lied_to(lambda request: [])
        self.assertEqual(self.saved, [])
        (transfer,) = self.bob.core.transfers()
        self.assertEqual(transfer.done, VICTIM * PIECE)

    def test_an_answer_to_nothing(self) -> None:
        chunk = self.chunks()[VICTIM]
        self.lied_to(lambda request: [self.files.chunk(request.id + 1000, chunk), self.files.chunk(request.id, chunk)])
        self.arrived()

    def test_an_answer_twice(self) -> None:
        chunk = self.chunks()[VICTIM]
        self.lied_to(lambda request: 2 * [self.files.chunk(request.id, chunk)])
        self.arrived()

    def test_the_answer_to_another_request(self) -> None:
        """Every chunk is handed out as the one that was asked for next."""
        self.files.answer = lambda device, request: [
            self.files.chunk(request.id, self.chunks()[(request.index + 1) % CHUNKS])
        ]
        self.fetches(self.message)
        self.assertIn(f"chunk 1 of {CHUNKS}", self.refused(DAMAGED).reason)

    def test_an_answer_after_an_error(self) -> None:
        """Of one request: the error counts."""
        chunk = self.chunks()[VICTIM]
        self.lied_to(
            lambda request: [wire.error_from(UnknownAttachment(), request.id), self.files.chunk(request.id, chunk)]
        )
        self.refused(UnknownAttachment.code)

    def test_a_word_of_another_kind(self) -> None:
        words: list[Callable[[wire.Fetch], list[Any]]] = [
            lambda request: [wire.ChunkStored(request.id)],
            lambda request: [wire.AttachmentDone(request.id)],
            lambda request: [wire.Attached(request.id, ())],
        ]
        for word in words:
            self.lied_to(word)
            self.assertEqual(self.saved, [])
            self.bob.core.cancel(self.file.attachment)
            self.scene.settle()
            self.remove_other()

    def test_chunks_that_nobody_has_asked_for(self) -> None:
        assert self.bob.line is not None
        for number in range(3):
            self.bob.line.tell(self.files.chunk(number, self.chunks()[0]))
        self.scene.settle()
        self.fetches(self.message)
        self.arrived()

    def test_in_whatever_order_they_come(self) -> None:
        kept: list[Any] = []

        def answer(device: str, request: wire.Fetch) -> list[Any]:
            kept.extend(self.files.honestly(device, request))
            if len(kept) < 2 and request.index < CHUNKS - 1:
                return []
            told = kept[::-1]
            kept.clear()
            return told

        self.files.answer = answer
        self.fetches(self.message)
        self.arrived()


class OfTheSender(FilesTest):
    """What does not belong together in a message."""

    def fetched(self, **lies: Any) -> None:
        self.fetches(self.brought(self.files.put(DATA, **lies)))

    def test_a_size_that_is_too_small(self) -> None:
        for size in (0, 1, PIECE, len(DATA) - PIECE, len(DATA) - 1):
            with self.subTest(size=size):
                self.bob.events.clear()
                self.fetched(size=size)
                self.refused(DAMAGED)

    def test_a_size_that_is_too_large(self) -> None:
        for size in (len(DATA) + 1, 5 * PIECE, 5 * PIECE + 1, 1000 * PIECE):
            with self.subTest(size=size):
                self.bob.events.clear()
                self.fetched(size=size)
                self.assertEqual((self.saved, self.parts), ([], []))
                self.assertIn(self.failures[0].code, (DAMAGED, UnknownAttachment.code))

    def test_another_sha256(self) -> None:
        self.fetched(sha256=hashlib.sha256(b"another").digest())
        self.assertIn("the whole is not what was sent", self.refused(DAMAGED).reason)
        self.assertEqual(len(self.files.asked), CHUNKS, "it is the sender who has lied: nothing else would come")

    def test_another_key(self) -> None:
        self.fetched(key=os.urandom(32))
        self.assertIn("chunk 1 of", self.refused(DAMAGED).reason)

    def test_more_than_the_network_takes(self) -> None:
        message = self.brought(self.files.put(b"", size=2**53 - 1))
        self.assertRaises(AttachmentTooLarge, self.bob.core.fetch, message, self.folder)
        self.assertEqual((self.files.asked, self.parts), ([], []))

    def test_more_than_the_network_takes_by_now(self) -> None:
        """It was noted while that was not known."""
        message = self.brought(self.files.put(DATA))
        self.bob.disconnects()
        self.bob.core.fetch(message, self.folder)
        self.network.limits = msgspec.structs.replace(self.network.limits, largest_attachment=1000)
        self.bob.connects()
        self.scene.settle()
        self.refused(AttachmentTooLarge.code)

    def test_a_network_that_takes_no_files(self) -> None:
        message = self.brought(self.files.put(DATA))
        self.network.limits = msgspec.structs.replace(self.network.limits, chunks=0, largest_attachment=0)
        self.bob.disconnects()
        self.bob.connects()
        self.fetches(message)
        self.assertIn("no files", self.refused(AttachmentTooLarge.code).reason)

    def test_limits_that_no_vault_can_keep(self) -> None:
        limits = msgspec.structs.replace(self.network.limits, chunks=1111, largest_attachment=2222)
        welcome = wire.encode(wire.Welcome(1, 1, "f2", b"x" * 32, limits))
        self.assertEqual(wire.decode_server_message(welcome).limits, limits)
        for chunks, largest in ((-1, 1), (2**31, 1), (1, -1), (1, 2**53), (1, 2**63), (1, 10**30)):
            lie = welcome.replace(b"1111", b"%d" % chunks).replace(b"2222", b"%d" % largest)
            with self.assertRaises(ProtocolError, msg=f"{chunks} {largest}"):
                wire.decode_server_message(lie)

    def test_names_from_hell(self) -> None:
        for name in (
            "../../escaped",
            "/etc/passwd",
            "..",
            ".",
            ".bashrc",
            "a/../../b",
            "c:\\windows\\x",
            "new\nline",
            "\x1b[31mred",
            "\u202egnp.exe",
            "x" * 255,
            "é" * 255,
            "CON.txt",
            "-rf",
            " ",
            ".notes.txt.part",
        ):
            with self.subTest(name=name):
                before = {path for path in self.scene.folder.iterdir() if path.is_dir()}
                self.fetched(name=name)
                self.assertEqual({path for path in self.scene.folder.iterdir() if path.is_dir()}, before)
                (saved,) = self.folder.iterdir()
                self.assertEqual(saved.read_bytes(), DATA)
                self.assertTrue(saved.name.isprintable() and saved.name[0] not in ".-", saved.name)
                self.assertEqual(self.bob.told(FileSaved)[-1].path, str(saved))
                saved.unlink()
        self.assertEqual(sorted(path.name for path in self.scene.folder.iterdir() if path.is_dir()), ["saved"])

    def test_two_messages_that_name_one_attachment_differently(self) -> None:
        file = self.files.put(DATA)
        wrong = self.brought(msgspec.structs.replace(file, key=os.urandom(32), name="wrong.txt"))
        right = self.brought(file)
        self.fetches(wrong)
        self.refused(DAMAGED)
        self.bob.events.clear()
        self.fetches(right)
        self.arrived()
