"""An upload that is refused: for now, which is waited for, or for good, which is told and leaves nothing."""

from __future__ import annotations

import os

import msgspec

from fastchat.errors import (
    AttachmentTooLarge,
    Busy,
    FastChatError,
    Internal,
    MailboxFull,
    QuotaExceeded,
    RateLimited,
    RequestError,
)
from fastchat.protocols import wire
from fastchat_client import uploads
from fastchat_client.attachment_cipher import PIECE
from fastchat_client.events import TransferFailed
from tests.support.uploading import UploadTest


class Refused(UploadTest):
    def refuse(self, problem: FastChatError, kind: type = wire.Attach, times: int = 1_000_000) -> list[object]:
        refused: list[object] = []

        def refuse(message: wire.Attach | wire.Chunk) -> FastChatError | None:
            if isinstance(message, kind) and len(refused) < times:
                refused.append(message)
                return problem
            return None

        self.server.refuse = refuse
        return refused

    def test_for_good(self) -> None:
        for problem in (AttachmentTooLarge(), QuotaExceeded("all is full"), RequestError()):
            self.alice.events.clear()
            self.server.detached.clear()
            self.refuse(problem)
            attachment = self.alice.attaches("bob", b"x")
            self.scene.settle()
            self.check_failed(attachment, problem.code)
            (failed,) = self.alice.told(TransferFailed)
            self.assertEqual((failed.reason, failed.name), (problem.message, "notes.txt"))

    def test_for_now(self) -> None:
        later: list[tuple[FastChatError, type]] = [(Busy("", 7.0), wire.Attach), (Busy("", 7.0), wire.Chunk)]
        for problem, kind in [*later, (RateLimited("", 7.0), wire.Chunk)]:
            refused = self.refuse(problem, kind, 1)
            attachment = self.alice.attaches("bob", b"x")
            self.scene.pass_time(5)
            self.assertEqual((len(refused), len(uploads.attachments(self.alice.vault))), (1, 1))
            self.scene.pass_time(5)
            self.check_done(attachment, b"x")

    def test_a_network_that_makes_mistakes_is_asked_a_few_times_more(self) -> None:
        refused = self.refuse(Internal(), wire.Chunk, 3)
        attachment = self.alice.attaches("bob", b"x")
        self.scene.pass_time(30)
        self.assertEqual(len(refused), 3)
        self.check_done(attachment, b"x")
        refused = self.refuse(Internal(), wire.Chunk)
        attachment = self.alice.attaches("bob", b"x")
        self.scene.pass_time(60)
        self.assertLess(len(refused), 10)
        self.server.detached = [attachment] if attachment in self.server.detached else []
        self.assertEqual(len(self.alice.told(TransferFailed)), 1)
        self.check_nothing_left()

    def test_a_network_that_loses_it_again_and_again(self) -> None:
        """Whatever it says, it is not sent for ever."""
        received = self.server.received
        self.server.refuse = lambda message: self.server.kept.clear() if isinstance(message, wire.Attach) else None
        attachment = self.alice.attaches("bob", os.urandom(3 * PIECE))
        self.scene.pass_time(60)
        self.assertLess(len(received), 30)
        self.server.detached = [attachment] if attachment in self.server.detached else []
        self.check_failed(attachment, "internal")

    def test_a_network_that_takes_no_files(self) -> None:
        self.network.limits = msgspec.structs.replace(self.network.limits, chunks=0, largest_attachment=0)
        self.alice.disconnects()
        self.alice.connects()
        self.scene.settle()
        attachment = self.alice.attaches("bob", b"x")
        self.scene.settle()
        self.check_failed(attachment, "attachment-too-large")

    def test_what_was_to_be_sent_is_gone_from_the_disk(self) -> None:
        self.alice.disconnects()
        attachment = self.alice.attaches("bob", b"x" * PIECE * 2)
        (self.alice.outgoing / attachment).unlink()
        self.alice.connects()
        self.scene.settle()
        self.check_failed(attachment, "config")

    def test_nobody_is_told_who_must_not_be(self) -> None:
        """Its group was deleted, or left, while it was on its way."""
        self.alice.disconnects()
        attachment = self.alice.attaches("#0123456789abcdef0123456789abcdef", b"x")
        self.alice.connects()
        self.scene.settle()
        self.check_failed(attachment, "unknown-group")

    def test_a_file_does_not_go_up_to_nobody(self) -> None:
        refused = self.refuse(Internal())
        attachment = self.alice.attaches("nadine", b"x" * PIECE * 2)
        self.scene.pass_time(5)
        self.assertEqual(refused, [], "it is not even begun")
        self.check_failed(attachment, "unknown-user")

    def test_a_message_that_does_not_reach_anybody_leaves_nothing_on_the_network(self) -> None:
        self.network.refuse = lambda device, send: MailboxFull()
        attachment = self.alice.attaches("bob", b"x")
        self.scene.pass_time(3)
        self.assertEqual(self.server.detached, [attachment])
        self.assertEqual(self.server.devices, {})
        (item,) = self.alice.vault.history("bob")
        self.assertEqual(item.state, "failed")
