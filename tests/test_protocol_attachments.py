"""PROTOCOL.md on attachments, against the code: a second implementation that was written from the page alone and the
client's own read what the other one writes, and refuse the same; the examples are true."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

from cryptography.exceptions import InvalidTag
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from fastchat.errors import AttachmentDamaged
from fastchat.protocols import wire
from fastchat.protocols.line import LineShell, Turn
from fastchat_client import attachment_cipher as cipher
from fastchat_client.content import File, decode_content, encode_content
from tests.support import by_the_book
from tests.support.protocol_examples import DOCUMENT, Line, read

EXAMPLES = read(DOCUMENT.read_text(encoding="utf-8"))
KEY = hashlib.sha256(b"a key").digest()
PIECE = by_the_book.PIECE
SIZES = (0, 1, PIECE - 1, PIECE, PIECE + 1, 2 * PIECE, 3 * PIECE + 5)


def file_of(size: int) -> bytes:
    return hashlib.shake_256(b"a file").digest(size)


def told(file: bytes) -> bytes:
    """What a message says of it."""
    return encode_content(File("0" * 32, KEY, len(file), hashlib.sha256(file).digest(), "a file"))


def encrypted(file: bytes, key: bytes = KEY) -> list[bytes]:
    """By the client's own code."""
    count = cipher.chunk_count(len(file))
    pieces = [file[cipher.PIECE * i : cipher.PIECE * (i + 1)] for i in range(count)]
    return [cipher.encrypt(key, i, i == count - 1, piece) for i, piece in enumerate(pieces)]


def decrypted(content: bytes, chunks: list[bytes]) -> bytes:
    """By the client's own code."""
    file = decode_content(content)
    assert isinstance(file, File)
    count = cipher.chunk_count(file.size)
    return b"".join(cipher.decrypt(file.key, i, count, file.size, chunk) for i, chunk in enumerate(chunks))


def opens(read: Callable[[bytes, list[bytes]], bytes], content: bytes, chunks: list[bytes]) -> bool:
    try:
        read(content, chunks)
    except (AttachmentDamaged, InvalidTag, by_the_book.Refused):
        return False
    return True


class Cipher(SynchronousTestCase):
    def test_each_reads_what_the_other_writes(self) -> None:
        for size in SIZES:
            file = file_of(size)
            chunks = encrypted(file)
            self.assertEqual({len(chunk) for chunk in chunks}, {wire.CHUNK_SIZE})
            self.assertTrue(by_the_book.decrypted(told(file), chunks) == file, size)
            self.assertTrue(decrypted(told(file), by_the_book.encrypted(KEY, file)) == file, size)

    def test_both_refuse_what_is_not_in_its_place(self) -> None:
        file = file_of(2 * PIECE + 5)
        one, two, three = encrypted(file)
        other = encrypted(file, hashlib.sha256(b"another key").digest())
        for wrong in (
            [two, one, three],
            [one, one, three],
            [one, three, three],
            [one, two, two],
            [other[0], two, three],
            [one, two[:-1], three],
            [one, two[:-1] + bytes([two[-1] ^ 1]), three],
        ):
            self.assertFalse(opens(decrypted, told(file), wrong))
            self.assertFalse(opens(by_the_book.decrypted, told(file), wrong))

    def test_both_refuse_an_end_that_is_none(self) -> None:
        """The last chunk of a shorter file is none in the middle of a longer one, and the other way round."""
        shorter, longer = file_of(PIECE), file_of(2 * PIECE)
        for file, chunks in ((longer, encrypted(shorter)), (shorter, encrypted(longer)[:1])):
            self.assertFalse(opens(decrypted, told(file), chunks))
            self.assertFalse(opens(by_the_book.decrypted, told(file), chunks))


class Example(SynchronousTestCase):
    values = EXAMPLES.values["attachment"]
    file = bytes(i % 251 for i in range(70_000))

    def test_its_chunks_are_those_of_the_file(self) -> None:
        content = decode_content(self.values["content"].encode())
        assert isinstance(content, File)
        self.assertEqual((content.key.hex(), content.sha256.hex()), (self.values["key"], self.values["sha256"]))
        chunks = encrypted(self.file, content.key)
        for i, chunk in enumerate(chunks):
            self.assertEqual(by_the_book.nonce(i, len(chunks)).hex(), self.values[f"nonce-{i}"])
            self.assertEqual(chunk[:32].hex(), self.values[f"chunk-{i}-first-32"])
            self.assertEqual(chunk[-16:].hex(), self.values[f"chunk-{i}-tag"])
        self.assertTrue(by_the_book.decrypted(self.values["content"].encode(), chunks) == self.file)
        expected = [(wire.CHUNK_SIZE, hashlib.sha256(chunk).hexdigest()) for chunk in chunks]
        for block in ("attachment-sender", "attachment-recipient"):
            self.assertEqual([line.raw for line in EXAMPLES.wire[block] if line.raw is not None], expected)

    def test_it_is_about_one_attachment(self) -> None:
        content = decode_content(self.values["content"].encode())
        assert isinstance(content, File)
        lines: list[Line] = EXAMPLES.wire["attachment-sender"] + EXAMPLES.wire["attachment-recipient"]
        asked = [wire.decode_client_message(line.data) for line in lines if line.who == "C"]
        self.assertEqual({message.attachment for message in asked}, {content.attachment})
        begun = [message for message in asked if isinstance(message, wire.Attach)]
        self.assertEqual({message.chunks for message in begun}, {by_the_book.chunk_count(content.size)})


class Owner:
    """Of a line shell; writes down what it hears."""

    def __init__(self) -> None:
        self.heard: list[Any] = []

    def connected(self, shell: LineShell) -> None:
        shell.takes_bytes = True

    def received(self, message: Any) -> None:
        self.heard.append(message)

    def bad_frame(self, error: Exception) -> None:
        self.heard.append(error)

    def writable(self, writable: bool) -> None: ...

    def lost(self, reason: Any) -> None: ...


class Framing(SynchronousTestCase):
    raw = (b"\n}\r\n" * wire.CHUNK_SIZE)[: wire.CHUNK_SIZE]
    """What would be lines, if it were not raw."""

    def shell(self) -> tuple[LineShell, Owner, Clock]:
        clock, owner = Clock(), Owner()
        shell = LineShell(owner, wire.decode_client_message, Turn(clock))
        shell.makeConnection(StringTransport())
        return shell, owner, clock

    def test_a_line_shell_reads_what_the_page_says(self) -> None:
        shell, owner, _ = self.shell()
        chunk = {"t": "chunk", "id": 1, "attachment": "0" * 32, "index": 3}
        ping = {"t": "ping", "id": 2}
        shell.dataReceived(by_the_book.said(ping) + by_the_book.said(chunk, self.raw) + by_the_book.said(ping))
        expected = [wire.Ping(2), wire.WithBytes(wire.Chunk(1, "0" * 32, 3), self.raw), wire.Ping(2)]
        self.assertTrue(owner.heard == expected)

    def test_the_page_says_what_a_line_shell_writes(self) -> None:
        shell, _, clock = self.shell()
        for message in (wire.Pong(1), wire.WithBytes(wire.ChunkAnswer(2), self.raw), wire.Pong(3)):
            shell.send(message)
        clock.advance(0)
        assert isinstance(shell.transport, StringTransport)
        found = by_the_book.heard(shell.transport.value())
        expected = [
            ({"t": "pong", "re": 1}, b""),
            ({"t": "chunk", "re": 2}, self.raw),
            ({"t": "pong", "re": 3}, b""),
        ]
        self.assertTrue(found == expected)
