"""bob is brought files by alice, on the memory network; for tests of what he fetches."""

from __future__ import annotations

import os
from pathlib import Path

from fastchat_client.attachment_cipher import PIECE
from fastchat_client.content import File
from fastchat_client.events import TransferFailed
from tests.support.conversation import SceneTest

CHUNKS = 5
DATA = os.urandom(4 * PIECE + 1000)
"""Of five chunks, the last of which is mostly filling."""


class FilesTest(SceneTest):
    def setUp(self) -> None:
        super().setUp()
        self.alice, self.bob = self.scene.person("alice"), self.scene.person("bob")
        self.scene.settle()
        self.files = self.network.files
        self.folder = self.new_folder("saved")

    def new_folder(self, name: str) -> Path:
        folder = self.scene.folder.absolute() / name
        folder.mkdir()
        return folder

    def brought(self, file: File) -> str:
        """alice has sent it to bob; the message's id."""
        message = self.alice.brings("bob", file)
        self.scene.settle()
        return message

    def fetches(self, message: str, folder: Path | None = None) -> None:
        self.bob.core.fetch(message, folder or self.folder)
        self.scene.settle()

    @property
    def saved(self) -> list[str]:
        """Names that are there to see."""
        return sorted(path.name for path in self.folder.iterdir() if not path.name.endswith(".part"))

    @property
    def parts(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir() if path.name.endswith(".part"))

    @property
    def failures(self) -> list[TransferFailed]:
        return self.bob.told(TransferFailed)

    def arrived(self, data: bytes = DATA, name: str = "notes.txt") -> None:
        """It is there, whole, and nothing else; and nothing was said against it."""
        self.assertEqual((self.saved, self.parts, self.failures), ([name], [], []))
        self.assertEqual((self.folder / name).read_bytes(), data)

    def refused(self, code: str) -> TransferFailed:
        """Nothing is there, and why was told once."""
        self.assertEqual((self.saved, self.parts), ([], []))
        self.assertEqual([failed.code for failed in self.failures], [code])
        self.assertEqual(self.bob.core.transfers(), [])
        return self.failures[0]
