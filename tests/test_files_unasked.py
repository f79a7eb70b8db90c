"""Small files that are fetched without anybody asking: which, how many, and what becomes of them."""

from __future__ import annotations

import os
from pathlib import Path

from fastchat.errors import UnknownAttachment
from fastchat.protocols import wire
from fastchat_client import attachment_words, downloads, files, settings
from fastchat_client.attachment_cipher import PIECE
from fastchat_client.events import FileSaved, Notice
from fastchat_client.files import stored_file
from fastchat_client.settings import AUTO_DOWNLOAD
from fastchat_client.vault import Vault
from tests.support.conversation import DAY
from tests.support.downloading import DATA, FilesTest

SMALL = os.urandom(2000)


class Unasked(FilesTest):
    def setUp(self) -> None:
        super().setUp()
        self.bob.folder = self.folder
        self.bob.dies()
        self.bob.connects()
        self.scene.settle()

    def test_small_files_are_fetched(self) -> None:
        message = self.brought(self.files.put(SMALL))
        self.arrived(SMALL)
        (saved,) = self.bob.told(FileSaved)
        self.assertTrue(saved.auto)
        stored = stored_file(self.bob.vault, message)
        assert stored is not None
        self.assertEqual(stored.path, str(self.folder / "notes.txt"))

    def test_up_to_the_size_that_is_set(self) -> None:
        for limit, size, is_fetched in (
            (PIECE, PIECE, True),
            (PIECE, PIECE + 1, False),
            (0, 0, False),
            (0, 1, False),
        ):
            with self.subTest(limit=limit, size=size):
                settings.set_auto_download(self.bob.vault, limit)
                self.brought(self.files.put(bytes(size), f"{limit}-{size}"))
                self.assertEqual(f"{limit}-{size}" in self.saved, is_fetched)

    def test_a_megabyte_unless_something_is_set(self) -> None:
        self.assertEqual(settings.auto_download(self.bob.vault), AUTO_DOWNLOAD)
        self.brought(self.files.put(bytes(AUTO_DOWNLOAD), "small"))
        self.brought(self.files.put(bytes(AUTO_DOWNLOAD + 1), "large"))
        self.assertEqual(self.saved, ["small"])

    def test_not_without_end(self) -> None:
        """Who sends a thousand of them does not fill the disk."""
        data = bytes(2 * files.LEAST_KEPT)
        self.patch(downloads, "MOST_KEPT", 5 * len(data) + 100)
        for number in range(8):
            self.brought(self.files.put(data, f"{number}.txt"))
        self.assertEqual(len(self.saved), 5)

    def test_nor_empty_ones(self) -> None:
        """They take room on a disk, too."""
        self.patch(downloads, "MOST_KEPT", 5 * files.LEAST_KEPT)
        for number in range(8):
            self.brought(self.files.put(b"", f"{number}.txt"))
        self.assertEqual(len(self.saved), 5)

    def test_not_more_than_so_many_wait(self) -> None:
        self.patch(downloads, "MOST_UNASKED", 5)
        self.files.answer = lambda device, request: []
        for number in range(8):
            self.brought(self.files.put(SMALL, f"{number}.txt"))
        self.assertEqual(len(self.bob.core.transfers()), 5)

    def test_what_is_kept_is_counted_without_looking_at_every_file(self) -> None:
        plan = [row[-1] for row in self.bob.vault.execute(f"EXPLAIN QUERY PLAN {files.KEPT}").fetchall()]
        self.assertEqual([step for step in plan if step == "SCAN files"], [], plan)

    def test_one_file_in_very_many_messages(self) -> None:
        """One after the other; those that wait for their turn cost next to nothing."""
        self.files.answer = lambda device, request: []
        file = self.files.put(SMALL)
        for _ in range(30):
            self.brought(file)
        looked_at: list[int] = []
        get = downloads.get

        def looked(vault: Vault, seq: int) -> downloads.Wanted | None:
            looked_at.append(seq)
            return get(vault, seq)

        self.patch(downloads, "get", looked)
        self.scene.pass_time(2)
        self.assertEqual(looked_at, [])
        self.files.answer = self.files.honestly
        self.bob.disconnects()
        self.bob.connects()
        self.scene.pass_time(2)
        self.assertEqual((len(self.saved), self.failures), (30, []))
        self.assertLess(len(looked_at), 100)

    def test_what_a_person_wants_comes_first(self) -> None:
        self.bob.disconnects()
        small = [self.alice.brings("bob", self.files.put(SMALL, f"{number}.txt")) for number in range(8)]
        wanted = self.brought(self.files.put(DATA * 7, "wanted"))
        self.assertTrue(small)
        self.files.answer = lambda device, request: []
        self.bob.connects()
        self.scene.settle()
        self.bob.core.fetch(wanted, self.new_folder("mine"))
        self.scene.settle()
        self.bob.disconnects()
        self.files.asked.clear()
        self.bob.connects()
        self.scene.settle()
        large = files.stored_file(self.bob.vault, wanted)
        assert large is not None
        self.assertEqual(self.files.asked[0].attachment, large.file.attachment)

    def test_who_does_not_stay_connected_fetches_nothing_unasked(self) -> None:
        self.bob.folder = None
        self.bob.dies()
        self.bob.connects()
        self.brought(self.files.put(SMALL))
        self.assertEqual((self.saved, self.bob.core.transfers()), ([], []))

    def test_saving_what_is_here_already_asks_nobody(self) -> None:
        message = self.brought(self.files.put(SMALL))
        self.files.chunks.clear()
        mine = self.new_folder("mine")
        self.fetches(message, mine)
        self.assertEqual([path.read_bytes() for path in mine.iterdir()], [SMALL])
        stored = stored_file(self.bob.vault, message)
        assert stored is not None
        self.assertEqual(Path(stored.path).parent, mine, "where the person has it")

    def test_a_server_that_does_not_have_it(self) -> None:
        self.bob.disconnects()
        self.alice.brings("bob", self.files.put(SMALL))
        self.scene.settle()
        self.files.chunks.clear()
        self.bob.connects()
        self.scene.settle()
        self.assertEqual([one.code for one in self.failures], [UnknownAttachment.code])
        self.scene.pass_time(DAY / 10, step=30)
        self.assertEqual(len(self.failures), 1, "it is not tried again")

    def test_that_many_are_here_is_said_little_by_little(self) -> None:
        """Each takes one of the requests that a session may make, which a person may be waiting for."""
        ids = {f"{number:032x}" for number in range(100)}
        self.bob.disconnects()
        with self.bob.vault.transaction():
            for attachment in ids:
                attachment_words.tell_fetched(self.bob.vault, attachment)
        self.bob.connects()
        self.scene.settle()
        for second in range(1, 15):
            self.assertLessEqual(len(self.files.fetched), 8 * second)
            self.scene.pass_time(1)
        self.assertEqual({attachment for _, attachment in self.files.fetched}, ids)
        self.assertEqual(len(self.files.fetched), len(ids))

    def test_nothing_is_said_against_what_goes_well(self) -> None:
        self.brought(self.files.put(SMALL))
        self.assertEqual((self.bob.told(Notice), self.failures), ([], []))
        self.assertTrue(any(isinstance(said, wire.Fetched) for said in self.bob.said))
