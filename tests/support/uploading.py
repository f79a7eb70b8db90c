"""What tests of uploads share: alice, bob, and what there is to see when a file is up, or is not to be."""

from __future__ import annotations

import hashlib

from fastchat_client import attachment_words, files, uploads
from fastchat_client.attachment_cipher import chunk_count, decrypt
from fastchat_client.events import MessageReceived, TransferFailed
from fastchat_client.vault import split_id
from tests.support.conversation import Person
from tests.support.group_scene import GroupSceneTest


class UploadTest(GroupSceneTest):
    def setUp(self) -> None:
        super().setUp()
        self.alice, self.bob = self.scene.person("alice"), self.scene.person("bob")
        self.server = self.network.uploads

    def shown(self, person: Person) -> list[str]:
        """Of the files that a person was shown, the names."""
        return [event.file.name for event in person.told(MessageReceived) if event.file is not None]

    def check_done(self, attachment: str, data: bytes, person: Person | None = None) -> None:
        """All of it is there, told of once, and nothing of the upload is left."""
        person = person or self.alice
        message = files.message_with(person.vault, attachment)
        file = files.descriptor(person.vault, *split_id(message))
        assert file is not None
        count, chunks = chunk_count(file.size), self.server.content(attachment)
        opened = b"".join(decrypt(file.key, i, count, file.size, chunk) for i, chunk in enumerate(chunks))
        self.assertEqual(opened, data)
        self.assertEqual((file.size, file.sha256), (len(data), hashlib.sha256(data).digest()))
        self.check_nothing_left(person)

    def check_nothing_left(self, person: Person | None = None) -> None:
        person = person or self.alice
        self.assertEqual(uploads.attachments(person.vault), [])
        self.assertEqual(attachment_words.open_words(person.vault, 10), [])
        self.assertEqual(list(person.outgoing.iterdir()) if person.outgoing.exists() else [], [])

    def check_failed(self, attachment: str, code: str) -> None:
        """It was told once, the network was told, and nothing of it is left."""
        self.scene.pass_time(2)
        (failed,) = self.alice.told(TransferFailed)
        self.assertEqual((failed.attachment, failed.code, failed.up, failed.id), (attachment, code, True, ""))
        self.assertEqual(self.server.detached, [attachment])
        self.assertEqual(self.shown(self.bob), [])
        self.check_nothing_left()
