"""The vault: encrypted, private, whole or not at all, and shared between processes."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from twisted.trial.unittest import TestCase

from fastchat.errors import ConfigError, LoginFailed
from fastchat_client import history
from fastchat_client import vault as vault_module
from fastchat_client.events import State
from fastchat_client.history import Arrived
from fastchat_client.outbox import Outbox
from fastchat_client.speaking import compose_text
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

    def test_one_of_an_older_program(self) -> None:
        """It gets what is new and keeps what it has."""
        path = self.folder / "old.db"
        new = Vault.create(path, KEY)
        tables = new.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        expected = {name: new.execute(f"PRAGMA table_info({name})").fetchall() for (name,) in tables}
        new.close()
        path.unlink()
        self.patch(vault_module, "SCHEMA_VERSION", 1)
        old = Vault.create(path, KEY)
        with old.transaction():
            old.put("user", "alice")
        self.assertNotIn(("groups",), old.execute("SELECT name FROM sqlite_master").fetchall())
        old.close()
        self.patch(vault_module, "SCHEMA_VERSION", SCHEMA_VERSION)
        upgraded = Vault.open(path, KEY)
        self.addCleanup(upgraded.close)
        tables = upgraded.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        self.assertEqual(
            {name: upgraded.execute(f"PRAGMA table_info({name})").fetchall() for (name,) in tables}, expected
        )
        self.assertEqual(upgraded.text("user"), "alice")

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
    """Every message is for "phone" and "laptop", of whoever it goes to, and for one's own "tablet"."""

    def setUp(self) -> None:
        super().setUp()
        self.now = 0.0
        self.requests = 0

    def outbox_to(self, *conversations: str) -> Outbox:
        for n, to in enumerate(conversations, start=1):
            compose_text(self.vault, to, "x", 0)
            with self.vault.transaction():
                devices = (f"{to} phone", f"{to} laptop", "tablet")
                Outbox(self.vault).sealed(n, [(device, b'"x"') for device in devices])
        return Outbox(self.vault)

    def goes(self, outbox: Outbox, *not_to: str) -> tuple[int, list[str]]:
        """What goes next, and to whom; (0, []) if nothing. Its request has the next number."""
        message = outbox.next(self.now, set(not_to))
        recipients = () if message is None else outbox.due(message, self.now, not_to)
        if message is None or not recipients:
            return 0, []
        self.requests += 1
        outbox.goes(message, self.requests, recipients)
        return message.n, [recipient.device for recipient in recipients]

    def refuse(self, outbox: Outbox, request: int, *missing: str, after: float = 5.0) -> None:
        answered = outbox.answered(request)
        assert answered is not None
        message, devices = answered
        with self.vault.transaction():
            outbox.refused(message, missing or devices, self.now + after, is_failure=False)
            outbox.accepted(message, 0, [device for device in devices if device not in (missing or devices)])

    def accept(self, outbox: Outbox, request: int) -> bool:
        answered = outbox.answered(request)
        assert answered is not None
        message, devices = answered
        with self.vault.transaction():
            return outbox.accepted(message, 0, devices)

    def test_the_earliest_goes_first_across_conversations(self) -> None:
        outbox = self.outbox_to("bob", "carol", "bob", "dave")
        self.assertEqual([self.goes(outbox, "dave")[0] for _ in range(4)], [1, 2, 3, 0])
        outbox.disconnected()
        self.assertEqual(self.goes(outbox)[0], 1)

    def test_who_cannot_be_reached_keeps_no_message_from_the_others(self) -> None:
        """And gets it all later, in order: first one alone, then the rest."""
        outbox = self.outbox_to("bob", "bob", "bob", "carol")
        self.assertEqual(self.goes(outbox), (1, ["bob laptop", "bob phone", "tablet"]))
        self.refuse(outbox, 1, "tablet")
        self.assertEqual(self.goes(outbox), (2, ["bob laptop", "bob phone"]))
        self.assertEqual(self.goes(outbox), (3, ["bob laptop", "bob phone"]))
        self.assertEqual(self.goes(outbox), (4, ["carol laptop", "carol phone"]), "of any conversation")
        self.assertEqual([self.accept(outbox, request) for request in (2, 3, 4)], [False] * 3)
        self.now = 4.9
        self.assertEqual(self.goes(outbox), (0, []))
        self.now = 5.0
        self.assertEqual(self.goes(outbox), (1, ["tablet"]))
        self.assertEqual(self.goes(outbox), (0, []), "one alone, until it is known to be taken")
        self.refuse(outbox, 5)
        self.assertEqual(self.goes(outbox), (0, []))
        self.now = 10.0
        self.assertEqual(self.goes(outbox), (1, ["tablet"]))
        self.assertTrue(self.accept(outbox, 6))
        self.assertEqual([self.goes(outbox) for _ in range(3)], [(n, ["tablet"]) for n in (2, 3, 4)])
        self.assertEqual([self.accept(outbox, request) for request in (7, 8, 9)], [True] * 3)
        self.assertEqual((outbox.next(99.0, set()), self.vault.waiting()), (None, 0))

    def test_nothing_goes_again_before_all_that_is_on_its_way_is_answered(self) -> None:
        outbox = self.outbox_to("bob", "bob", "bob")
        for _ in range(3):
            self.goes(outbox)
        self.refuse(outbox, 1, "tablet")
        self.now = 5.0
        self.assertEqual(self.goes(outbox), (0, []))
        self.refuse(outbox, 3, "tablet", after=1.0)
        self.assertEqual(self.goes(outbox), (0, []))
        self.refuse(outbox, 2, "tablet", after=1.0)
        self.assertEqual(self.goes(outbox), (0, []))
        self.now = 6.0
        self.assertEqual(self.goes(outbox), (1, ["tablet"]))

    def test_what_nobody_can_get_stops_its_conversation_and_no_other(self) -> None:
        outbox = self.outbox_to("bob", "bob", "carol")
        self.goes(outbox)
        self.refuse(outbox, 1, "bob phone", "bob laptop", "tablet")
        self.assertEqual(self.goes(outbox), (0, []))
        self.assertEqual(self.goes(outbox, "bob"), (3, ["carol laptop", "carol phone"]))
        self.now = 5.0
        self.assertEqual(self.goes(outbox), (1, ["bob laptop", "bob phone", "tablet"]))
        self.accept(outbox, 3)
        self.assertEqual(self.goes(outbox)[0], 2)

    def test_after_a_restart_who_has_it_does_not_get_it_again(self) -> None:
        outbox = self.outbox_to("bob", "bob", "bob")
        self.goes(outbox)
        self.refuse(outbox, 1, "tablet")
        for again in (outbox, Outbox(self.vault)):
            again.disconnected()
            self.assertEqual(self.goes(again), (1, ["tablet"]))
            self.assertEqual(self.goes(again), (2, ["bob laptop", "bob phone"]))

    def test_a_lost_answer_does_not_let_the_rest_of_a_later_message_pass(self) -> None:
        """1 was taken by bob, but the answer was lost; 2 is known to be with him. For the tablet, 1 comes first."""
        outbox = self.outbox_to("bob", "bob")
        self.goes(outbox)
        self.goes(outbox)
        self.refuse(outbox, 2, "tablet")
        outbox.disconnected()
        self.assertEqual(self.goes(outbox), (1, ["bob laptop", "bob phone"]))
        self.assertEqual(self.goes(outbox), (1, ["tablet"]))

    def test_what_failed_is_waited_for_nowhere(self) -> None:
        outbox = self.outbox_to("bob", "bob")
        self.goes(outbox)
        self.refuse(outbox, 1, "tablet")
        first = outbox.get(1)
        assert first is not None
        with self.vault.transaction():
            outbox.failed(first, 0)
        self.now = 5.0
        self.assertEqual(self.goes(outbox), (2, ["bob laptop", "bob phone", "tablet"]))

    def test_an_answer_to_what_was_sealed_again_since_says_nothing(self) -> None:
        outbox = self.outbox_to("bob")
        self.goes(outbox)
        message = outbox.get(1)
        assert message is not None
        with self.vault.transaction():
            outbox.seal_again(message, is_last=True)
        self.assertIsNone(outbox.answered(1))
        self.assertEqual(self.vault.waiting(), 1)
