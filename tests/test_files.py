"""What a message with a file is to who gets it: its caption is a text like any other, the rest can be fetched; and all
of it goes when the message does."""

from __future__ import annotations

import os
from typing import Any

import msgspec
from msgspec import Raw

from fastchat.errors import UnknownAttachment
from fastchat_client import files, settings
from fastchat_client.content import File, Ref
from fastchat_client.events import (
    Edited,
    FileShown,
    MessageReceived,
    MessageUnreadable,
    TransferFailed,
)
from fastchat_client.files import files_of, message_with, stored_file
from fastchat_client.group_acting import InviteAct, JoinAct
from fastchat_client.marking import reactions_of
from fastchat_client.vault import split_id
from tests.support.conversation import Person
from tests.support.downloading import DATA, FilesTest
from tests.support.network import Mail
from tests.support.vaults import words_in

OLD = "the words before"
SMALL = os.urandom(2000)
THUMBNAIL = os.urandom(20 * 1024)


class Shown(FilesTest):
    def last(self, person: Person) -> MessageReceived:
        return person.told(MessageReceived)[-1]

    def picture(self, **lies: Any) -> File:
        about: dict[str, Any] = {"type": "image/png", "width": 640, "height": 480, "thumbnail": THUMBNAIL}
        return self.files.put(DATA, "../\u202egnp.exe\n", **{"text": "look", **about, **lies})

    def test_a_message_brings_a_file(self) -> None:
        file = self.picture()
        message = self.brought(file)
        received = self.last(self.bob)
        shown = FileShown(file.attachment, "_gnp.exe", len(DATA), "image/png", 640, 480, THUMBNAIL)
        self.assertEqual((received.text, received.file, received.id), ("look", shown, message))
        item = self.bob.shown(message)
        assert item is not None
        self.assertEqual((item.text, item.file), ("look", shown))
        stored = stored_file(self.bob.vault, message)
        assert stored is not None
        self.assertEqual((stored.file, stored.sender, stored.own, stored.path), (shown, "alice", False, ""))

    def test_its_sender_has_it_in_the_history_too(self) -> None:
        file = self.picture()
        message = self.brought(file)
        item = self.alice.shown(message)
        assert item is not None
        assert item.file is not None
        self.assertEqual((item.file.attachment, item.text), (file.attachment, "look"))
        self.assertEqual(message_with(self.alice.vault, file.attachment), message)
        self.assertEqual(message_with(self.bob.vault, file.attachment), "", "it is not of this account")

    def test_another_device_of_the_account_that_has_sent_it(self) -> None:
        second = self.scene.further_device(self.alice)
        self.scene.pass_time(310, step=10)
        message = self.brought(self.picture())
        received = self.last(second)
        self.assertTrue(received.own)
        assert received.file is not None
        second.core.fetch(message, self.folder)
        self.scene.settle()
        self.assertEqual([path.read_bytes() for path in self.folder.iterdir()], [DATA])

    def test_a_type_that_is_none(self) -> None:
        self.brought(self.picture(type="<script>\x1b[31m"))
        shown = self.last(self.bob).file
        assert shown is not None
        self.assertEqual(shown.type, "application/octet-stream")

    def test_no_key_is_told(self) -> None:
        file = self.picture()
        message = self.brought(file)
        told = msgspec.json.encode(
            [self.bob.told(MessageReceived), self.bob.vault.history("alice"), stored_file(self.bob.vault, message)]
        )
        for secret in (file.key, file.sha256):
            self.assertNotIn(msgspec.json.encode(secret)[1:-1], told)

    def test_a_caption_is_edited_and_the_file_stays(self) -> None:
        message = self.brought(self.picture(text=OLD))
        self.alice.edits(message, "look at this")
        self.scene.settle()
        self.assertEqual(self.bob.told(Edited)[-1].text, "look at this")
        for person in (self.alice, self.bob):
            item = person.shown(message)
            assert item is not None
            self.assertEqual((item.text, item.edited), ("look at this", True))
            self.assertIsNotNone(item.file)
        self.assertEqual(words_in(self.bob.vault, OLD), [], "what it said before is forgotten")
        self.fetches(message)
        self.assertEqual(len(self.saved), 1)

    def test_replies_and_reactions(self) -> None:
        hello = self.bob.says("alice", "show me")
        self.scene.settle()
        message = self.brought(self.picture(reply=Ref(*split_id(hello))))
        self.assertEqual(self.last(self.bob).reply, hello)
        self.bob.reacts(message, "👍")
        answer = self.bob.says("alice", "nice", reply=message)
        self.scene.settle()
        self.assertEqual(self.last(self.alice).reply, message)
        self.assertEqual(self.last(self.alice).id, answer)
        self.assertEqual(reactions_of(self.alice.vault, message), [("bob", "👍")])

    def test_of_somebody_who_is_blocked(self) -> None:
        settings.block(self.bob.vault, "alice", True)
        message = self.brought(self.picture())
        self.assertIsNone(stored_file(self.bob.vault, message))
        self.assertEqual(self.bob.told(MessageReceived), [])

    def test_one_that_could_not_be_read_comes_again(self) -> None:
        self.alice.says("bob", "hello")
        self.scene.settle()
        self.bob.says("alice", "hello")
        self.scene.settle()
        self.bob.disconnects()
        message = self.alice.brings("bob", self.picture())
        later = self.alice.says("bob", "later")
        self.scene.settle()
        box = self.network.devices[self.bob.device].mailbox
        mail = box[0]
        box[0] = Mail(mail.user, mail.device, mail.n, mail.at, bytes(Raw(b'"AQAA"')))
        self.bob.connects()
        self.scene.settle()
        self.assertEqual([one.id for one in self.bob.told(MessageUnreadable)], [message])
        self.scene.pass_time(10)
        shown = self.last(self.bob).file
        assert shown is not None
        self.assertEqual((self.last(self.bob).id, shown.size), (message, len(DATA)))
        self.assertEqual([item.id for item in self.bob.vault.history("alice")][-2:], [message, later], "in its place")
        self.fetches(message)
        self.assertEqual(len(self.saved), 1)

    def test_the_newest_come_first(self) -> None:
        messages = [self.brought(self.files.put(SMALL, f"{number}.txt")) for number in range(3)]
        self.alice.says("bob", "no file")
        self.scene.settle()
        found = files_of(self.bob.vault, "alice", 2)
        self.assertEqual([one.message for one in found], [messages[2], messages[1]])


class InGroups(FilesTest):
    def setUp(self) -> None:
        super().setUp()
        _, self.team = self.alice.core.group_create("team")
        self.scene.settle()
        self.joins(self.bob)

    def joins(self, person: Person, history: int = 0) -> None:
        self.alice.core.group_act(self.team, InviteAct(person.name, history))
        self.scene.settle()
        person.core.group_act(self.team, JoinAct())
        self.scene.settle()

    def test_one_descriptor_for_all_and_its_mentions(self) -> None:
        message = self.alice.brings(self.team, self.files.put(DATA, text="for @bob and @nobody"))
        self.scene.settle()
        received = self.bob.told(MessageReceived)[-1]
        self.assertEqual((received.mentions, received.mentioned, received.conversation), (("bob",), True, self.team))
        assert received.file is not None
        self.fetches(message)
        self.arrived()

    def test_a_newcomer_is_given_what_was_sent_before(self) -> None:
        """As long as the network has it; and it is not fetched unasked."""
        message = self.alice.brings(self.team, self.files.put(SMALL, text="minutes"))
        gone = self.alice.brings(self.team, self.files.put(SMALL, "gone.txt"))
        self.scene.settle()
        carol = self.scene.person("carol")
        carol.folder = self.new_folder("unasked")
        carol.dies()
        carol.connects()
        self.joins(carol, history=7)
        self.scene.pass_time(20)
        found = {one.id: one for one in carol.told(MessageReceived)}
        self.assertEqual((found[message].text, found[message].earlier), ("minutes", True))
        carol.core.fetch(message, self.folder)
        self.scene.settle()
        self.assertEqual([path.read_bytes() for path in self.folder.iterdir()], [SMALL])
        self.files.chunks.clear()
        carol.core.fetch(gone, self.folder)
        self.scene.settle()
        self.assertEqual([one.code for one in carol.told(TransferFailed)], [UnknownAttachment.code])
        self.assertEqual(list(carol.folder.iterdir()), [])


class Gone(FilesTest):
    """With its message: the key, the copy that was fetched unasked, and what is on its way. What a person has saved is
    theirs."""

    NAME = "the name of it"

    def setUp(self) -> None:
        super().setUp()
        self.unasked = self.new_folder("unasked")
        self.bob.folder = self.unasked
        self.bob.dies()
        self.bob.connects()
        self.scene.settle()

    def sent(self, data: bytes = SMALL) -> tuple[str, File]:
        file = self.files.put(data, self.NAME, text="its caption")
        return self.brought(file), file

    def nothing_is_left(self, message: str, file: File) -> None:
        self.assertIsNone(stored_file(self.bob.vault, message))
        for words in (self.NAME, "its caption", file.attachment):
            self.assertEqual(words_in(self.bob.vault, words), [], words)
        self.assertEqual(list(self.unasked.iterdir()), [])
        self.assertEqual(self.parts, [])

    def test_when_it_is_deleted(self) -> None:
        message, file = self.sent()
        self.assertEqual([path.read_bytes() for path in self.unasked.iterdir()], [SMALL])
        self.fetches(message)
        self.alice.deletes(message)
        self.scene.settle()
        self.scene.pass_time(2)
        self.nothing_is_left(message, file)
        self.assertEqual(self.saved, [self.NAME])
        item = self.bob.shown(message)
        assert item is not None
        self.assertEqual((item.deleted, item.file), (True, None))

    def test_when_its_time_has_passed(self) -> None:
        self.bob.says("alice", "hello")
        self.alice.sets_timer("bob", 60)
        self.scene.settle()
        message, file = self.sent()
        self.assertEqual(len(list(self.unasked.iterdir())), 1)
        self.bob.core.mark_read("alice")
        self.scene.pass_time(59)
        self.assertIsNotNone(stored_file(self.bob.vault, message))
        self.scene.pass_time(3)
        self.nothing_is_left(message, file)

    def test_while_it_is_fetched(self) -> None:
        message, file = self.sent(DATA * 7)
        self.assertEqual(list(self.unasked.iterdir()), [], "it is not small")
        self.files.answer = lambda device, request: self.files.honestly(device, request) if request.index < 2 else []
        self.fetches(message)
        self.assertEqual((len(self.parts), len(self.bob.core.transfers())), (1, 1))
        self.alice.deletes(message)
        self.scene.settle()
        self.scene.pass_time(2)
        self.assertEqual([one.code for one in self.failures], ["cancelled"])
        self.nothing_is_left(message, file)

    def test_before_it_comes(self) -> None:
        """A delete overtakes its message."""
        for one, other in ((self.alice, "bob"), (self.bob, "alice")):
            one.says(other, "hello")
            self.scene.settle()
        self.bob.disconnects()
        message = self.alice.brings("bob", self.files.put(SMALL, self.NAME))
        self.scene.settle()
        self.alice.deletes(message)
        self.scene.settle()
        self.network.devices[self.bob.device].mailbox.reverse()
        self.bob.connects()
        self.scene.settle()
        self.assertIsNone(stored_file(self.bob.vault, message))
        self.assertEqual((list(self.unasked.iterdir()), words_in(self.bob.vault, self.NAME)), ([], []))

    def test_while_the_program_does_not_run(self) -> None:
        """Another process of the profile takes the message out; the copy goes when the one that connects comes."""
        message, _ = self.sent()
        with self.bob.vault.transaction():
            files.wipe(self.bob.vault, Ref(*split_id(message)))
        self.bob.dies()
        self.assertEqual(len(list(self.unasked.iterdir())), 1)
        self.bob.connects()
        self.scene.settle()
        self.assertEqual(list(self.unasked.iterdir()), [])
        self.assertEqual(files.leftovers(self.bob.vault), [])
