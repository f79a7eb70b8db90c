"""An upload that is cut off: by a broken connection, the end of either program, or a person who wants it no more."""

from __future__ import annotations

import os
from collections.abc import Callable

from fastchat.errors import (
    FastChatError,
    Internal,
)
from fastchat.protocols import wire
from fastchat_client import files, speaking, uploads
from fastchat_client.attachment_cipher import PIECE
from fastchat_client.events import FileSent, TransferFailed
from tests.support.conversation import Killed, Scene, SceneTest
from tests.support.uploading import UploadTest


class Cut(UploadTest):
    """The connection breaks; what the network has is not sent again."""

    CHUNKS = 6

    def test_at_every_chunk(self) -> None:
        for heard in range(self.CHUNKS + 1):
            for answered in (True, False):
                data = os.urandom(self.CHUNKS * PIECE - 1)
                self.server.received.clear()
                self._cut_after(heard, answered, data)
                self.assertEqual(sorted(index for _, index in self.server.received), list(range(self.CHUNKS)))

    def _cut_after(self, chunks: int, answered: bool, data: bytes) -> None:
        """When the network has that many."""
        self.server.holds = not answered

        def refuse(message: wire.Attach | wire.Chunk) -> FastChatError | None:
            if isinstance(message, wire.Chunk) and len(self.server.received) >= chunks:
                self.alice.line.close()  # type: ignore[union-attr]
                return Internal()
            return None

        self.server.refuse = refuse
        attachment = self.alice.attaches("bob", data)
        for _ in range(100):
            self.alice.exchange()
            if self.server.holds and len(self.server.received) < chunks:
                self.server.release()
        self.server.held.clear()
        self.server.holds = False
        self.server.refuse = lambda message: None
        self.alice.disconnects()
        self.assertLessEqual(len(self.server.received), max(chunks, 0) if chunks < self.CHUNKS else self.CHUNKS)
        self.alice.connects()
        self.scene.settle()
        self.scene.pass_time(2)
        self.check_done(attachment, data)

    def test_the_program_ends_and_is_started_again(self) -> None:
        data = os.urandom(self.CHUNKS * PIECE)
        self.server.holds = True
        attachment = self.alice.attaches("bob", data)
        self.scene.settle()
        sent = len(self.server.received)
        self.assertGreater(sent, 0)
        self.server.held.clear()
        self.server.holds = False
        self.alice.dies()
        self.alice.connects()
        self.scene.pass_time(3)
        self.assertEqual(len(self.server.received), self.CHUNKS)
        self.check_done(attachment, data)

    def test_a_vault_that_cannot_be_written_when_all_of_it_is_there(self) -> None:
        """The program lives on: nothing was told, the spool is there, and it is told at the next connection."""
        self.alice.says("bob", "hello")
        self.scene.settle()
        data = os.urandom(self.CHUNKS * PIECE)
        attachment = self.alice.attaches("bob", data)
        self.alice.vault.lives = self.alice.vault.commits
        self.assertRaises(Killed, self.scene.settle)
        self.assertEqual(len(self.server.content(attachment)), self.CHUNKS)
        self.alice.vault.lives = None
        self.scene.settle()
        self.assertIsNone(self.alice.line)
        self.assertEqual((self.shown(self.bob), self.alice.told(FileSent)), ([], []))
        self.assertTrue((self.alice.outgoing / attachment).exists())
        self.alice.connects()
        self.scene.pass_time(3)
        self.check_done(attachment, data)
        self.assertEqual((self.shown(self.bob), len(self.server.received)), (["notes.txt"], self.CHUNKS))

    def test_what_the_network_lost_is_sent_again(self) -> None:
        """It has swept what nobody finished in a day."""
        data = os.urandom(self.CHUNKS * PIECE)
        self.server.holds = True
        attachment = self.alice.attaches("bob", data)
        self.scene.settle()
        self.server.kept.clear()
        self.server.holds = False
        self.server.release()
        self.scene.pass_time(5)
        self.check_done(attachment, data)
        self.assertEqual(self.alice.told(TransferFailed), [])

    def test_what_it_lost_between_two_connections_as_well(self) -> None:
        data = os.urandom(self.CHUNKS * PIECE)
        self.server.holds = True
        attachment = self.alice.attaches("bob", data)
        self.scene.settle()
        self.alice.disconnects()
        self.server.kept.clear()
        self.server.held.clear()
        self.server.holds = False
        self.alice.connects()
        self.scene.pass_time(3)
        self.check_done(attachment, data)

    def test_a_service_that_stops_is_sent_nothing_new_and_answers_what_it_was_sent(self) -> None:
        data = os.urandom(self.CHUNKS * PIECE)
        self.server.holds = True
        attachment = self.alice.attaches("bob", data)
        self.scene.settle()
        sent = len(self.alice.chunks)
        line = self.alice.line
        assert line is not None
        line.tell(wire.GoAway(0.0, "it stops"))
        self.scene.settle()
        self.assertTrue(self.alice.line, "it waits for the answers")
        line.tell(self.server.held.pop(0)[1])
        self.scene.settle()
        self.assertEqual(len(self.alice.chunks), sent)
        self.server.release()
        self.scene.settle()
        self.assertIsNone(self.alice.line)
        self.assertEqual(len(self.alice.chunks), sent)
        self.server.holds = False
        self.alice.connects()
        self.scene.pass_time(3)
        self.assertEqual(len(self.alice.chunks), self.CHUNKS)
        self.check_done(attachment, data)


class EveryCommit(UploadTest):
    """The plug is pulled at every commit of a sender, before it and after it (as in `test_core_crash`); worth its
    seconds: each of these commits is a place where a file could be lost or told of twice."""

    def setUp(self) -> None:
        SceneTest.setUp(self)

    def play(self, lives: int | None, dies_after: bool) -> int:
        """Somebody sends a text, a file, and a text, and dies once; how many commits it took."""
        self.scene = Scene(self.mktemp())
        self.network, self.server = self.scene.network, self.scene.network.uploads
        self.addCleanup(self.scene.close)
        self.alice, self.bob = self.scene.person("alice"), self.scene.person("bob")
        begun, data = self.alice.vault.commits, os.urandom(3 * PIECE)
        self.alice.vault.lives, self.alice.vault.dies_after = lives and begun + lives - 1, dies_after
        steps: list[Callable[[], object]] = [
            lambda: self.alice.says("bob", "before"),
            lambda: self.alice.attaches("bob", data, text="the file"),
            lambda: self.scene.pass_time(2),
            lambda: self.alice.says("bob", "after"),
            lambda: self.scene.pass_time(3),
        ]
        told, deaths = ["before", "the file", "", "after", ""], 0
        for step, text in zip(steps, told, strict=True):
            try:
                step()
                self.scene.settle()
            except Killed:
                deaths += 1
                self.alice.dies()
                self.alice.connects()
                self.scene.settle()
                # Whoever died while typing looks whether it is there, or on its way, and does it again if not.
                there = [item.text for item in self.alice.vault.history("bob")]
                there += [upload.file.text for upload in uploads.unfinished(self.alice.vault)]
                if not text or text not in there:
                    step()
                self.scene.settle()
        self.scene.pass_time(3)
        self.assertEqual(deaths, int(lives is not None))
        self.assertEqual(sorted(self.bob.reads("alice")), ["after", "before", "the file"])
        self.assertEqual(self.shown(self.bob), ["notes.txt"])
        (item,) = [item for item in self.alice.vault.history("bob") if item.file is not None]
        assert item.file is not None
        self.check_done(item.file.attachment, data)
        self.assertEqual(self.server.devices, {item.file.attachment: 1})
        return self.alice.vault.commits - begun

    def test_nothing_is_lost_or_told_twice(self) -> None:
        commits = self.play(None, False)
        self.assertGreater(commits, 6)
        for lives in range(1, commits + 1):
            for dies_after in (False, True):
                try:
                    self.play(lives, dies_after)
                except Exception as error:
                    error.add_note(f"she died {'after' if dies_after else 'before'} commit {lives}")
                    raise


class Cancelled(UploadTest):
    def test_before_it_began(self) -> None:
        self.alice.disconnects()
        attachment = self.alice.attaches("bob", b"x")
        self.assertTrue(self.alice.core.cancel(attachment))
        self.assertFalse(self.alice.core.cancel(attachment))
        self.assertEqual(list(self.alice.outgoing.iterdir()), [])
        self.alice.connects()
        self.scene.pass_time(3)
        self.assertEqual(self.server.detached, [attachment])
        self.assertEqual((self.server.kept, self.shown(self.bob)), ({}, []))
        self.check_nothing_left()

    def test_at_every_step(self) -> None:
        for steps in range(1, 9):
            self.alice.events.clear()
            self.server.detached.clear()
            attachment = self.alice.attaches("bob", os.urandom(6 * PIECE))
            for _ in range(steps):
                self._step()
            if self.alice.core.cancel(attachment):
                self.scene.settle()
                self.check_failed(attachment, "cancelled")
            else:
                self.scene.settle()
                self.assertEqual(len(self.alice.told(FileSent)), 1)
                break
        self.assertGreater(steps, 3)

    def test_with_chunks_on_their_way(self) -> None:
        self.server.holds = True
        attachment = self.alice.attaches("bob", os.urandom(6 * PIECE))
        self.scene.settle()
        self.assertTrue(self.alice.core.transferring)
        self.alice.core.cancel(attachment)
        self.server.release()
        self.scene.settle()
        self.assertFalse(self.alice.core.transferring)
        self.check_failed(attachment, "cancelled")
        other = self.alice.attaches("bob", b"another")
        self.server.holds = False
        self.server.release()
        self.scene.pass_time(2)
        self.check_done(other, b"another")

    def test_by_a_program_that_dies_before_that_is_noted(self) -> None:
        """Then it was not cancelled, and there is still something to send."""
        data = os.urandom(6 * PIECE)
        self.server.holds = True
        attachment = self.alice.attaches("bob", data)
        self.scene.settle()
        self.alice.vault.lives = self.alice.vault.commits
        self.assertRaises(Killed, self.alice.core.cancel, attachment)
        self.server.held.clear()
        self.server.holds = False
        self.alice.dies()
        self.alice.connects()
        self.scene.pass_time(3)
        self.check_done(attachment, data)

    def test_by_another_process_of_the_profile(self) -> None:
        self.server.holds = True
        attachment = self.alice.attaches("bob", os.urandom(6 * PIECE))
        self.scene.settle()
        other = self.alice.another_process()
        self.addCleanup(other.close)
        with other.transaction():
            uploads.cancel(other, attachment)
        self.scene.pass_time(2)
        self.server.holds = False
        self.server.release()
        self.check_failed(attachment, "cancelled")

    def test_deleted_for_everyone(self) -> None:
        attachment = self.alice.attaches("bob", b"x")
        self.scene.pass_time(2)
        message = files.message_with(self.alice.vault, attachment)
        self.alice.core.compose(lambda vault, at: speaking.compose_delete(vault, message, at))
        self.scene.pass_time(2)
        self.assertEqual(self.server.detached, [attachment])
        (item,) = self.bob.vault.history("alice")
        self.assertTrue(item.deleted)
        self.assertIsNone(files.stored_file(self.alice.vault, message))

    def _step(self) -> None:
        for message in self.alice.core.take_messages():
            self.alice.line.say(wire.encode(message))  # type: ignore[union-attr]
        chunk = self.alice.core.next_chunk()
        if isinstance(chunk, wire.WithBytes):
            self.alice.line.say(wire.encode(chunk.message), chunk.data)  # type: ignore[union-attr]
        while self.alice.line is not None and self.alice.line.heard:
            heard = self.alice.line.heard.popleft()
            assert isinstance(heard, bytes)
            self.alice.core.receive(wire.decode_server_message(heard))
        self.alice.events += self.alice.core.take_events()
