"""The history checker on files: each that was promised is sent, once, to whom it is for, and is whole there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from fastchat_client import uploads
from fastchat_client.uploads import Source, Upload
from tests.support.told import NOW, Told, blank, found
from tests.support.told_files import ToldFiles
from tests.support.told_groups import ToldGroup

ALICE = Told.device("alice")


class Lies(SynchronousTestCase):
    """alice has told bob something and sent him a file, number 2; and another one, number 3, to a group with bob and
    carol."""

    def setUp(self) -> None:
        folder = Path(self.mktemp())
        self.told = blank(folder)
        self.addCleanup(self.told.close)
        self.files = ToldFiles(self.told, folder)
        self.group = ToldGroup(self.told, "alice", "bob", "carol")
        self.told.say("alice", "bob")
        self.assertEqual(self.files.send("alice", "bob", b"for bob"), 2)
        self.assertEqual(self.files.send("alice", self.group, b"for all", "bob", "carol"), 3)

    def tells(self, *kinds: str, by: Callable[[], object] = lambda: None) -> None:
        """The checker finds these kinds of lies, each once, and no other."""
        by()
        report = self.told.check()
        self.assertEqual({kind: getattr(report, kind) for kind in found(report)}, dict.fromkeys(kinds, 1), report)

    def alter(self, user: str, sql: str, *parameters: object) -> None:
        self.assertGreaterEqual(self.told.alter(user, sql, *parameters), 1, sql)

    def fails(self, user: str, n: int) -> None:
        self.alter(user, "UPDATE outbox SET state = 3 WHERE n = ?", n)
        self.alter(user, "UPDATE messages SET state = 'failed' WHERE own = 1 AND n = ?", n)

    # --- none --------------------------------------------------------------------------------------------------------

    def test_a_clean_history_is_clean(self) -> None:
        self.tells()
        report = self.told.check()
        self.assertEqual((report.sent, report.received), (1, 1))
        self.assertEqual((report.files, report.files_due, report.files_saved), (2, 3, 3))

    def test_who_has_left_before_it_went_need_not_have_sent_it(self) -> None:
        self.files.file("bob", self.group.conversation, b"too late")
        self.tells("lost")
        self.group.leaves("bob")
        self.tells()

    def test_who_has_left_may_see_it_fail(self) -> None:
        n = self.files.send("bob", self.group, b"too late", accepted=False)
        self.tells("waiting")
        self.tells("lost", by=lambda: self.fails("bob", n))
        self.tells(by=lambda: self.group.leaves("bob"))

    # --- lost --------------------------------------------------------------------------------------------------------

    def test_a_message_that_never_came(self) -> None:
        for table in ("messages", "files", "seen"):
            self.alter("carol", f"DELETE FROM {table} WHERE device = ? AND n = 3", ALICE)  # noqa: S608
        self.tells("lost")

    def test_a_file_that_could_not_be_fetched(self) -> None:
        self.tells("lost", by=lambda: self.alter("carol", "UPDATE files SET path = NULL WHERE n = 3"))

    def test_a_file_that_is_not_where_it_was_saved(self) -> None:
        self.tells("lost", by=self.files.path("bob", "alice", 2).unlink)

    def test_a_promise_that_was_forgotten(self) -> None:
        file = self.files.file("alice", "bob", b"promised")
        self.tells("lost")
        vault = self.told.vaults["alice"]
        with vault.transaction():
            uploads.note(vault, Upload("bob", file, Source("/nowhere", 8, 0, True), NOW))
        self.tells("waiting")

    def test_a_failure(self) -> None:
        self.files.send("alice", "carol", b"for carol", accepted=False)
        self.tells("lost", by=lambda: self.fails("alice", 4))

    def test_what_only_the_outbox_knows(self) -> None:
        n = self.files.send("alice", "carol", b"for carol", accepted=False)
        self.told.rewrite("alice", [line for line in self.told.journal("alice") if ">carol~" not in line])
        for table in ("messages", "files"):
            self.alter("alice", f"DELETE FROM {table} WHERE n = ?", n)  # noqa: S608
        self.tells("lost")

    # --- duplicated, corrupted, phantom, waiting ---------------------------------------------------------------------

    def test_shown_twice(self) -> None:
        lines = self.told.journal("carol")
        self.tells("duplicated", by=lambda: self.told.rewrite("carol", [*lines, lines[-1]]))

    def test_there_twice(self) -> None:
        for table, columns in (
            ("messages", "device, conversation, sender, own, at, text"),
            ("files", "device, attachment, size, content, shown, path"),
        ):
            copy = f"INSERT INTO {table} (n, {columns}) SELECT 9, {columns} FROM {table} WHERE n = 3"  # noqa: S608
            self.alter("carol", copy)
        self.alter("carol", "INSERT INTO seen VALUES (?, 9)", ALICE)
        self.assertEqual(found(self.told.check()), {"duplicated", "phantom"})

    def test_that_would_be_taken_again(self) -> None:
        self.tells("duplicated", by=lambda: self.alter("bob", "DELETE FROM seen WHERE n = 2"))

    def test_other_bytes(self) -> None:
        self.tells("corrupted", by=lambda: self.files.path("bob", "alice", 2).write_bytes(b"for bOb"))

    def test_in_another_conversation(self) -> None:
        sql = "UPDATE messages SET conversation = 'alice' WHERE sender = 'alice' AND n = 3"
        self.tells("corrupted", by=lambda: self.alter("bob", sql))

    def test_a_sender_who_says_that_it_was_for_somebody_else(self) -> None:
        self.alter("alice", "UPDATE messages SET conversation = 'carol' WHERE own = 1 AND n = 2")
        self.assertEqual(found(self.told.check()), {"corrupted"})

    def test_what_nobody_has_sent(self) -> None:
        for table in ("messages", "files", "outbox"):
            self.alter("alice", f"DELETE FROM {table} WHERE n = 2")  # noqa: S608
        self.told.rewrite("alice", [line for line in self.told.journal("alice") if ">bob~" not in line])
        self.assertEqual(found(self.told.check()), {"phantom"})

    def test_what_its_sender_knows_as_another_file(self) -> None:
        self.tells("phantom", by=lambda: self.alter("bob", "UPDATE files SET attachment = 'another' WHERE n = 2"))

    def test_who_was_no_member_when_it_was_sent(self) -> None:
        self.group.leaves("bob")
        n = self.files.send("alice", self.group, b"for carol", "carol", "bob")
        self.assertEqual(found(self.told.check()), {"phantom"})
        self.assertIn(f"{ALICE}.{n} in bob's vault", str(self.told.check()))

    def test_what_waits(self) -> None:
        self.files.send("alice", "bob", b"more", accepted=False)
        self.tells("waiting")
