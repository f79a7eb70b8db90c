"""The vault: encrypted, private, whole or not at all, and shared between processes."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from twisted.trial.unittest import TestCase

from fastchat.errors import ConfigError, LoginFailed
from fastchat_client import history
from fastchat_client.events import State
from fastchat_client.history import Arrived
from fastchat_client.outbox import Outbox, compose_text
from fastchat_client.vault import SCHEMA_VERSION, Vault, fingerprint, split_id

KEY = b"k" * 32
ME = "a" * 32
PEER = "b" * 32


class VaultTest(TestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.path = self.folder / "vault.db"
        self.vault = Vault.create(self.path, KEY)
        self.addCleanup(self.vault.close)
        with self.vault.transaction():
            self.vault.put("user", "alice")
            self.vault.put("device", ME)

    def reopen(self) -> Vault:
        vault = Vault.open(self.path, KEY)
        self.addCleanup(vault.close)
        return vault


class File(VaultTest):
    def test_only_its_owner_can_read_it(self) -> None:
        for file in self.folder.iterdir():
            self.assertEqual(stat.S_IMODE(file.stat().st_mode), 0o600, file)

    def test_nothing_of_it_can_be_read(self) -> None:
        sentence = "a sentence that nobody may find"
        compose_text(self.vault, "bob", sentence, 0)
        for file in self.folder.iterdir():
            data = file.read_bytes()
            for known in (sentence.encode(), b"SQLite format", b"CREATE TABLE", b"alice", ME.encode()):
                self.assertNotIn(known, data, file)

    def test_another_key_does_not_open_it(self) -> None:
        self.assertRaises(LoginFailed, Vault.open, self.path, b"x" * 32)
        self.assertEqual(self.reopen().text("user"), "alice")

    def test_a_key_of_another_length(self) -> None:
        self.assertRaises(ValueError, Vault.open, self.path, b"short")

    def test_none_is_there(self) -> None:
        self.assertRaises(ConfigError, Vault.open, self.folder / "other.db", KEY)
        self.assertFalse((self.folder / "other.db").exists())

    def test_one_is_there_already(self) -> None:
        self.assertRaises(ConfigError, Vault.create, self.path, KEY)
        self.assertEqual(self.reopen().text("user"), "alice")

    def test_no_folder(self) -> None:
        self.assertRaises(ConfigError, Vault.create, self.folder / "no" / "vault.db", KEY)

    def test_one_that_a_newer_program_made(self) -> None:
        self.vault.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
        self.vault.close()
        error = self.assertRaises(ConfigError, Vault.open, self.path, KEY)
        self.assertIn(f"version {SCHEMA_VERSION + 1}", error.message)

    def test_one_that_was_begun_and_not_finished(self) -> None:
        path = self.folder / "half.db"
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
        vault = Vault.open(path, KEY)
        self.addCleanup(vault.close)
        self.assertEqual(vault.number("next_n"), 1)

    def test_it_survives_a_power_cut(self) -> None:
        self.assertEqual(self.vault.execute("PRAGMA journal_mode").fetchone()[0], "wal")
        self.assertEqual(self.vault.execute("PRAGMA synchronous").fetchone()[0], 2)


class Transactions(VaultTest):
    def test_all_or_nothing(self) -> None:
        with self.assertRaises(ZeroDivisionError), self.vault.transaction():
            self.vault.put("user", "mallory")
            raise ZeroDivisionError
        self.assertEqual(self.vault.text("user"), "alice")

    def test_one_within_another_is_a_part_of_it(self) -> None:
        with self.assertRaises(ZeroDivisionError), self.vault.transaction():
            with self.vault.transaction():
                self.vault.put("user", "mallory")
            raise ZeroDivisionError
        self.assertEqual(self.reopen().text("user"), "alice")

    def test_what_was_not_committed_is_gone(self) -> None:
        self.vault.begin()
        self.vault.put("user", "mallory")
        self.vault.close()
        self.assertEqual(self.reopen().text("user"), "alice")

    def test_another_process_sees_what_is_committed(self) -> None:
        other = self.reopen()
        self.assertFalse(self.vault.changed_elsewhere())
        with other.transaction():
            other.put("user", "bob")
        self.assertTrue(self.vault.changed_elsewhere())
        self.assertFalse(self.vault.changed_elsewhere())
        self.assertEqual(self.vault.text("user"), "bob")
        with self.vault.transaction():
            self.vault.put("user", "carol")
        self.assertFalse(self.vault.changed_elsewhere())

    def test_two_processes_never_give_a_number_twice(self) -> None:
        vaults = [self.vault, self.reopen(), self.reopen()]
        ids = [compose_text(vaults[i % 3], "bob", str(i), i) for i in range(30)]
        self.assertEqual(ids, [f"{ME}.{n}" for n in range(1, 31)])
        self.assertEqual([item.text for item in self.vault.history("bob")], [str(i) for i in range(30)])

    def test_values(self) -> None:
        with self.vault.transaction():
            for name, value in (("text", "x"), ("number", 5), ("blob", b"y"), ("nothing", None)):
                self.vault.put(name, value)
        self.assertEqual(
            (self.vault.text("text"), self.vault.number("number"), self.vault.blob("blob")), ("x", 5, b"y")
        )
        for name in ("nothing", "never", "blob"):
            self.assertEqual((self.vault.text(name), self.vault.number(name)), ("", 0))


class Questions(VaultTest):
    def _arrives(self, n: int, text: str, conversation: str = "bob", at: int = 0) -> None:
        with self.vault.transaction():
            history.add_received(self.vault, Arrived(PEER, n, conversation, conversation, at, text, False))

    def test_history_in_pages(self) -> None:
        for n in range(1, 11):
            self._arrives(n, str(n))
        self.assertEqual([item.text for item in self.vault.history("bob", 3)], ["8", "9", "10"])
        self.assertEqual([item.text for item in self.vault.history("bob", 3, f"{PEER}.8")], ["5", "6", "7"])
        self.assertEqual(self.vault.history("bob", 3, f"{PEER}.1"), [])
        self.assertEqual(self.vault.history("bob", 3, "nonsense"), [])
        self.assertEqual(self.vault.history("carol"), [])

    def test_conversations_and_unread(self) -> None:
        self._arrives(1, "x", "bob", 10)
        self._arrives(2, "y", "carol", 20)
        self._arrives(3, "z", "bob", 30)
        compose_text(self.vault, "dave", "hello", 40)
        found = [(one.user, one.unread, one.last_at) for one in self.vault.conversations()]
        self.assertEqual(found, [("dave", 0, 40), ("bob", 2, 30), ("carol", 1, 20)])
        with self.vault.transaction():
            self.assertTrue(history.mark_read(self.vault, "bob"))
            self.assertFalse(history.mark_read(self.vault, "bob"))
        self.assertEqual((self.vault.unread("bob"), self.vault.unread("carol")), (0, 1))

    def test_states_only_move_forward(self) -> None:
        message_id = compose_text(self.vault, "bob", "hello", 0)
        steps = [
            (State.DELIVERED, "bob"),
            (State.ACCEPTED, ""),
            (State.DELIVERED, ""),
            (State.READ, "bob"),
            (State.FAILED, ""),
            (State.DELIVERED, ""),
        ]
        with self.vault.transaction():
            for state, conversation in steps:
                self.assertEqual(history.advance(self.vault, ME, 1, state), conversation, state)
            self.assertEqual(history.advance(self.vault, ME, 99, State.READ), "")
        self.assertEqual(self.vault.state_of(message_id), "read")
        self.assertEqual(self.vault.state_of("nonsense"), "")

    def test_failed_is_the_end(self) -> None:
        message_id = compose_text(self.vault, "bob", "hello", 0)
        with self.vault.transaction():
            history.advance(self.vault, ME, 1, State.FAILED, "the mailbox is full")
            self.assertEqual(history.advance(self.vault, ME, 1, State.ACCEPTED), "")
        self.assertEqual(self.vault.state_of(message_id), "failed")
        self.assertEqual(self.vault.history("bob")[0].reason, "the mailbox is full")

    def test_a_placeholder_is_filled_once_where_it_stands(self) -> None:
        with self.vault.transaction():
            history.add_unreadable(self.vault, PEER, 1, "bob", 5, "bad-mac")
        self._arrives(2, "later")
        self.assertEqual([item.unreadable for item in self.vault.history("bob")], [True, False])
        self._arrives(1, "found")
        self._arrives(1, "changed")
        self.assertEqual([item.text for item in self.vault.history("bob")], ["found", "later"])
        self.assertEqual(self.vault.unread("bob"), 2)

    def test_whoami_of_an_empty_vault(self) -> None:
        vault = Vault.create(self.folder / "new.db", KEY)
        self.addCleanup(vault.close)
        self.assertEqual((vault.whoami().user, vault.whoami().registered), ("", False))
        self.assertEqual((vault.contacts(), vault.conversations(), vault.waiting(), vault.alarm()), ([], [], 0, ""))

    def test_names_of_messages(self) -> None:
        self.assertEqual(split_id(f"{PEER}.12"), (PEER, 12))
        for bad in ("", ".", "x", "x.", "x.-1", "x.٣", f"x.{'9' * 30}"):
            self.assertEqual(split_id(bad), ("", 0))

    def test_fingerprints(self) -> None:
        self.assertEqual(len(fingerprint(b"pem").split()), 16)
        self.assertNotEqual(fingerprint(b"pem"), fingerprint(b"pen"))


class OutboxQueues(VaultTest):
    def test_the_earliest_goes_first_across_conversations(self) -> None:
        for to in ("bob", "carol", "bob", "dave"):
            compose_text(self.vault, to, "x", 0)
        outbox = Outbox(self.vault)
        order = []
        while (message := outbox.next(0.0, {"dave"})) is not None:
            order.append((message.n, message.user))
            outbox.goes(message, message.n + 100)
        self.assertEqual(order, [(1, "bob"), (2, "carol"), (3, "bob")])
        outbox.disconnected()
        again = outbox.next(0.0, set())
        assert again is not None
        self.assertEqual(again.n, 1)

    def test_a_refusal_holds_its_conversation_until_all_of_it_is_answered(self) -> None:
        for to in ("bob", "bob", "bob", "carol"):
            compose_text(self.vault, to, "x", 0)
        outbox = Outbox(self.vault)
        for request in (1, 2, 3):
            message = outbox.next(0.0, set())
            assert message is not None
            outbox.goes(message, request)
        with self.vault.transaction():
            self._refuse(outbox, 1, 5.0)
            self.assertEqual(self._next(outbox, 6.0), 4)  # carol's; bob's 2 and 3 are still on their way
            self._refuse(outbox, 2, 1.0)
            self._refuse(outbox, 3, 1.0)
        self.assertEqual(self._next(outbox, 4.0), 4)
        self.assertEqual(self._next(outbox, 5.0), 1)

    def _refuse(self, outbox: Outbox, request: int, not_before: float) -> None:
        message = outbox.answered(request)
        assert message is not None
        outbox.refused(message, not_before, is_failure=False)

    def _next(self, outbox: Outbox, now: float) -> int:
        message = outbox.next(now, set())
        assert message is not None
        return message.n
