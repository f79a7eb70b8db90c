"""Files on their way up: whole or not at all, told of once, and of nobody else's business."""

from __future__ import annotations

import base64
import os

import msgspec

from fastchat.protocols import wire
from fastchat_client import files, speaking, uploads
from fastchat_client.attachment_cipher import PIECE
from fastchat_client.events import FileSent, MessageReceived, TransferProgress
from fastchat_client.group_acting import LeaveAct, RemoveAct
from fastchat_client.vault import split_id
from tests.support.group_scene import texts
from tests.support.uploading import UploadTest


class Whole(UploadTest):
    def test_it_goes_up_and_is_told_of_once_all_of_it_is_there(self) -> None:
        data = os.urandom(5 * PIECE - 100)
        self.server.holds = True
        attachment = self.alice.attaches("bob", data, text="read this")
        self.scene.settle()
        self.assertEqual(self.shown(self.bob), [])
        self.server.holds = False
        self.server.release()
        self.scene.settle()
        self.assertEqual(self.shown(self.bob), ["notes.txt"])
        self.assertEqual(self.bob.reads("alice"), ["read this"])
        self.scene.pass_time(2)
        self.check_done(attachment, data)
        (sent,) = self.alice.told(FileSent)
        self.assertEqual((sent.attachment, sent.conversation, sent.name), (attachment, "bob", "notes.txt"))
        (item,) = self.alice.vault.history("bob")
        assert item.file is not None
        self.assertEqual((item.id, item.text, item.own, item.file.name), (sent.id, "read this", True, "notes.txt"))
        self.assertEqual(item.state, "delivered")

    def test_an_empty_file_and_those_around_a_piece(self) -> None:
        for size in (0, 1, PIECE, PIECE + 1):
            data = os.urandom(size)
            attachment = self.alice.attaches("bob", data)
            self.scene.settle()
            self.scene.pass_time(2)
            self.check_done(attachment, data)

    def test_the_network_is_told_how_many_devices_of_others_are_to_fetch_it(self) -> None:
        self.scene.further_device(self.alice)
        self.scene.further_device(self.bob)
        self.scene.settle()
        attachment = self.alice.attaches("bob", b"x" * 100)
        self.scene.pass_time(3)
        self.assertEqual(self.server.devices, {attachment: 2})

    def test_one_s_own_other_device_is_shown_it(self) -> None:
        other = self.scene.further_device(self.alice)
        self.scene.settle()
        self.alice.attaches("bob", b"x" * 100, text="look")
        self.scene.pass_time(2)
        (item,) = other.vault.history("bob")
        assert item.file is not None
        self.assertEqual((item.own, item.text, item.file.name), (True, "look", "notes.txt"))

    def test_a_note_to_oneself(self) -> None:
        attachment = self.alice.attaches("alice", b"x" * 100)
        self.scene.pass_time(2)
        self.check_done(attachment, b"x" * 100)
        self.assertEqual(self.server.devices, {})

    def test_offline_it_waits(self) -> None:
        self.alice.disconnects()
        attachment = self.alice.attaches("bob", b"x" * 100)
        self.scene.pass_time(5)
        self.assertEqual(self.server.kept, {})
        self.assertEqual([(one.attachment, one.active) for one in self.alice.core.transfers()], [(attachment, False)])
        self.alice.connects()
        self.scene.settle()
        self.scene.pass_time(2)
        self.check_done(attachment, b"x" * 100)

    def test_the_message_is_one_of_its_conversation(self) -> None:
        """It answers another one, and stays as long as is set when it goes out."""
        asked = self.bob.says("alice", "have you got it?")
        self.scene.settle()
        ref = speaking.check_file(self.alice.vault, "bob", "", asked)
        self.alice.disconnects()
        self.alice.attaches("bob", b"x", reply=ref)
        self.alice.core.compose(lambda vault, at: speaking.compose_timer(vault, "bob", 60, at))
        self.alice.connects()
        self.scene.settle()
        (item,) = [item for item in self.bob.vault.history("alice") if item.file]
        self.assertEqual((item.reply, item.expires), (asked, 60))

    def test_several_at_once_take_turns(self) -> None:
        contents = {
            self.alice.attaches("bob", data, f"{number}.bin"): data
            for number in range(5)
            for data in [os.urandom((number + 2) * PIECE)]
        }
        self.scene.pass_time(3)
        for attachment, data in contents.items():
            self.check_done(attachment, data)
        self.assertEqual(sorted(self.shown(self.bob)), [f"{number}.bin" for number in range(5)])
        begun = [attachment for attachment, _ in self.server.received[:6]]
        self.assertEqual(len(set(begun)), 3)

    def test_another_process_of_the_profile_notes_it(self) -> None:
        with_another = self.alice.another_process()
        self.addCleanup(with_another.close)
        self.alice.disconnects()
        attachment = self.alice.attaches("bob", b"x" * 100)
        upload = uploads.get(self.alice.vault, attachment)
        assert upload is not None
        with self.alice.vault.transaction():
            uploads.remove(self.alice.vault, attachment)
        self.alice.connects()
        self.scene.settle()
        self.alice.vault.changed_elsewhere()
        with with_another.transaction():
            uploads.note(with_another, upload)
        self.scene.pass_time(3)
        self.check_done(attachment, b"x" * 100)


class Groups(UploadTest):
    def test_one_upload_and_one_message_for_all(self) -> None:
        carol = self.scene.person("carol")
        self.scene.further_device(self.bob)
        self.scene.further_device(self.alice)
        self.scene.settle()
        team = self.group(self.alice, self.bob, carol)
        self.says(carol, team, "show us")
        before = len(self.network.requests)
        data = os.urandom(3 * PIECE)
        attachment = self.alice.attaches(team, data, text="here")
        self.scene.pass_time(3)
        self.check_done(attachment, data)
        self.assertEqual(len(self.server.received), 3)
        self.assertEqual(self.server.devices, {attachment: 3})
        said = [message for _, message in self.network.requests[before:] if isinstance(message, wire.GroupSend)]
        self.assertEqual(len(said), 1)
        for person in (self.bob, carol):
            self.assertEqual(self.shown(person), ["notes.txt"])
            self.assertEqual(texts(person, team)[-1], "alice: here")

    def test_who_is_removed_meanwhile_says_nothing_there(self) -> None:
        team = self.group(self.bob, self.alice)
        self.server.holds = True
        attachment = self.alice.attaches(team, os.urandom(3 * PIECE))
        self.scene.settle()
        self.acts(self.bob, team, RemoveAct("alice"))
        self.server.holds = False
        self.server.release()
        self.scene.settle()
        self.check_failed(attachment, "not-allowed")

    def test_who_has_left_since_it_went_is_still_to_fetch_it(self) -> None:
        carol = self.scene.person("carol")
        team = self.group(self.alice, self.bob, carol)
        line, late = self.network.lines[self.alice.device], []
        tell = line.tell
        self.patch(
            line, "tell", lambda answer: late.append(answer) if isinstance(answer, wire.Accepted) else tell(answer)
        )
        attachment = self.alice.attaches(team, b"x" * 100)
        self.scene.settle()
        self.assertEqual(self.shown(carol), ["notes.txt"])
        self.acts(carol, team, LeaveAct())
        for answer in late:
            tell(answer)
        self.scene.pass_time(2)
        self.assertEqual(self.server.devices, {attachment: 2})

    def test_who_has_left_before_it_went_once_more_may_have_it_as_well(self) -> None:
        carol = self.scene.person("carol")
        team = self.group(self.alice, self.bob, carol)
        line = self.network.lines[self.alice.device]
        tell = line.tell
        self.patch(line, "tell", lambda answer: None if isinstance(answer, wire.Accepted) else tell(answer))
        attachment = self.alice.attaches(team, b"x" * 100)
        self.scene.settle()
        self.alice.disconnects()
        self.acts(carol, team, LeaveAct())
        self.alice.connects()
        self.scene.settle()
        self.scene.pass_time(2)
        self.assertEqual(self.shown(carol), ["notes.txt"])
        self.assertEqual(self.server.devices, {attachment: 2})


class Secrets(UploadTest):
    def test_nothing_of_it_is_said_but_in_the_message(self) -> None:
        """Neither its key, nor its name, nor its hash, nor what is in it."""
        data = b"what nobody on the way may read " * 5000
        self.bob.disconnects()
        seen = len(self.network.requests)
        attachment = self.alice.attaches("bob", data, "the name of the file.txt", text="and its caption")
        self.scene.pass_time(3)
        upload = files.descriptor(self.alice.vault, *split_id(files.message_with(self.alice.vault, attachment)))
        assert upload is not None
        said = [wire.encode(message) for _, message in self.network.requests[seen:]]
        said += self.server.content(attachment)
        self.assertIn(attachment.encode(), b"".join(said))
        for secret in (upload.key, upload.sha256, data[:16], data[-16:], b"the name of the file", b"caption", b".txt"):
            for form in (secret, secret.hex().encode(), base64.b64encode(secret)[:-4]):
                self.assertFalse([line for line in said if form in line], form)


class Bounds(UploadTest):
    def test_no_more_are_on_their_way_than_the_network_allows(self) -> None:
        self.network.limits = msgspec.structs.replace(self.network.limits, chunks=4)
        self.alice.disconnects()
        self.alice.connects()
        self.scene.settle()
        self.alice.attaches("bob", os.urandom(60 * PIECE))
        most = 0
        self.server.holds = True
        for _ in range(80):
            self.scene.settle()
            most = max(most, len(self.server.held))
            self.server.release()
        self.server.holds = False
        self.scene.settle()
        self.assertEqual(most, 4)
        self.assertEqual(self.shown(self.bob), ["notes.txt"])

    def test_what_is_sent_and_what_is_fetched_are_counted_together(self) -> None:
        self.network.limits = msgspec.structs.replace(self.network.limits, chunks=3)
        self.alice.disconnects()
        self.alice.connects()
        message = self.bob.brings("alice", self.network.files.put(os.urandom(6 * PIECE)))
        self.scene.settle()
        self.server.holds = True
        self.network.files.answer = lambda device, request: []
        self.alice.core.fetch(message, self.scene.folder.absolute())
        self.alice.attaches("bob", os.urandom(6 * PIECE))
        self.scene.settle()
        self.assertGreater(len(self.network.files.asked), 0)
        self.assertGreater(len(self.server.held), 0)
        self.assertEqual(len(self.network.files.asked) + len(self.server.held), 3)

    def test_it_touches_the_vault_at_its_beginning_and_its_end_alone(self) -> None:
        self.alice.says("bob", "hello")
        self.scene.settle()
        counts = {}
        for chunks in (2, 60):
            before = self.alice.vault.commits
            self.alice.attaches("bob", os.urandom(chunks * PIECE))
            self.scene.settle()
            counts[chunks] = self.alice.vault.commits - before
        self.assertEqual(counts[2], counts[60])

    def test_progress_is_told_at_both_ends_and_now_and_then(self) -> None:
        """No time passes here while 60 chunks go."""
        data = os.urandom(60 * PIECE)
        attachment = self.alice.attaches("bob", data)
        self.scene.settle()
        told = [(event.done, event.size) for event in self.alice.told(TransferProgress)]
        self.assertEqual(told[0], (0, len(data)))
        self.assertEqual(told[-1], (len(data), len(data)))
        self.assertLessEqual(len(told), 3)
        before = self.alice.events.index(self.alice.told(FileSent)[0])
        self.assertIsInstance(self.alice.events[before - 1], TransferProgress)
        self.check_transfers_over(attachment)

    def check_transfers_over(self, attachment: str) -> None:
        self.assertEqual(self.alice.core.transfers(), [])
        self.assertFalse(self.alice.core.cancel(attachment))

    def test_a_network_that_misses_what_there_is_not(self) -> None:
        for missing in (((0, 3),), ((1, 1),), ((1, 0),), ((1, 2), (0, 1)), ((0, 2), (1, 2))):
            self.network.mangle = lambda device, message, missing=missing: [  # type: ignore[misc]
                wire.Attached(message.re, missing) if isinstance(message, wire.Attached) else message
            ]
            self.alice.attaches("bob", b"x" * (PIECE + 1))
            self.scene.settle()
            self.assertIsNone(self.alice.line, missing)
            self.assertIn("protocol", type(self.alice.core.wants_close).__name__.lower())
            self.network.mangle = lambda device, message: [message]
            self.alice.connects()
            self.scene.settle()

    def test_a_network_that_answers_what_was_not_asked(self) -> None:
        line = self.alice.line
        assert line is not None
        for answer in (wire.ChunkStored(999), wire.Attached(999, ()), wire.AttachmentDone(999)):
            line.tell(answer)
        line.heard.append(wire.WithBytes(wire.ChunkAnswer(999), b"x" * wire.CHUNK_SIZE))
        self.scene.settle()
        self.assertTrue(self.alice.core.ready)

    def test_a_picture_s_thumbnail_stays_behind_where_a_line_has_no_room_for_it(self) -> None:
        self.scene.further_device(self.alice)
        self.scene.settle()
        for room, has_thumbnail in ((wire.MAX_LINE, True), (64 * 1024, False)):
            self.network.limits = msgspec.structs.replace(self.network.limits, max_line=room)
            self.alice.disconnects()
            self.alice.connects()
            self.scene.settle()
            self.bob.events.clear()
            self.alice.attaches("bob", b"x", thumbnail=os.urandom(20 * 1024))
            self.scene.settle()
            (event,) = self.bob.told(MessageReceived)
            assert event.file is not None
            self.assertEqual(bool(event.file.thumbnail), has_thumbnail)
