"""The history checker: a clean history is clean, and each kind of lie is found and called by its name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from fastchat_client.content import Delivered, Text, encode_content
from tests.chaos.texts import Said, compose, read
from tests.support.told import NOW, Told, blank, found

ALICE, BOB = Told.device("alice"), Told.device("bob")


class Texts(SynchronousTestCase):
    @given(st.integers(1, 10**9), st.text(max_size=50))
    def test_a_text_says_who_says_it(self, counter: int, padding: str) -> None:
        self.assertEqual(read(compose("alice", "bob", counter, padding)), Said("alice", "bob", counter))

    @given(st.text(max_size=20), st.integers(0), st.characters())
    def test_a_changed_text_says_nothing(self, padding: str, at: int, other: str) -> None:
        text = compose("alice", "bob", 7, padding)
        at %= len(text)
        changed = text[:at] + other + text[at + 1 :]
        self.assertEqual(read(changed), Said("alice", "bob", 7) if changed == text else None)
        self.assertIsNone(read(text[:at]))


class Lies(SynchronousTestCase):
    """alice has told bob five things, bob her two, and carol each of them one."""

    def setUp(self) -> None:
        self.told = blank(Path(self.mktemp()))
        self.addCleanup(self.told.close)
        for sender, recipient, times in (("alice", "bob", 5), ("bob", "alice", 2), ("carol", "alice", 1)):
            for _ in range(times):
                self.told.say(sender, recipient, "é, padded")
        self.told.say("carol", "bob")

    def tells(self, *kinds: str, by: Callable[[], object] = lambda: None) -> None:
        """The checker finds these kinds of lies and no other, and gives an example of each."""
        by()
        report = self.told.check()
        self.assertEqual(found(report), set(kinds), report)
        self.assertEqual(report.clean, not kinds)
        said = {line.partition(":")[0] for line in report.examples}
        self.assertEqual(said, {kind.replace("_", " ") for kind in kinds})

    def alter(self, user: str, sql: str, *parameters: object) -> None:
        self.assertGreaterEqual(self.told.alter(user, sql, *parameters), 1, sql)

    # --- none --------------------------------------------------------------------------------------------------------

    def test_a_clean_history_is_clean(self) -> None:
        self.tells()
        report = self.told.check()
        self.assertEqual((report.sent, report.accepted, report.received, report.shown), (9, 9, 9, 9))
        self.assertIn("sent 9, accepted 9, received 9, waiting 0: lost 0,", str(report))

    def test_a_journal_without_its_last_lines_is_clean(self) -> None:
        lines = self.told.journal("bob")
        self.told.rewrite("bob", [*lines[:-2], lines[-2][:20]])
        self.tells()

    def test_a_failure_that_the_run_explains_is_clean(self) -> None:
        self.told.say("alice", "carol", accepted=False)
        self.alter("alice", "UPDATE messages SET state = 'failed', reason = 'too full' WHERE conversation = 'carol'")
        self.alter("alice", "UPDATE outbox SET state = 3 WHERE user = 'carol'")
        self.assertEqual(found(self.told.check()), {"lost"})
        self.assertTrue(self.told.check(["too full"]).clean)

    # --- lost --------------------------------------------------------------------------------------------------------

    def test_a_row_that_the_recipient_does_not_have(self) -> None:
        self.told.rewrite("bob", [])
        self.tells("lost", by=lambda: self.alter("bob", "DELETE FROM messages WHERE sender = 'alice' AND n = 3"))
        self.assertEqual(self.told.check().lost, 1)
        self.assertIn("alice>bob#3", self.told.check().examples[0])

    def test_the_last_row(self) -> None:
        self.told.rewrite("bob", [])
        self.alter("bob", "DELETE FROM seen WHERE device = ? AND n = 5", ALICE)
        self.tells("lost", by=lambda: self.alter("bob", "DELETE FROM messages WHERE sender = 'alice' AND n = 5"))

    def test_what_was_shown_and_is_not_in_the_vault_any_more(self) -> None:
        text = self.told.say("alice", "carol", accepted=False)
        self.told.write("carol", {"shown": text, "from": "alice"})
        self.tells("lost", "waiting")

    def test_what_waits_in_no_outbox(self) -> None:
        self.told.say("alice", "carol", accepted=False)
        self.tells("lost", by=lambda: self.alter("alice", "DELETE FROM outbox WHERE user = 'carol'"))

    def test_a_failure_that_nothing_explains(self) -> None:
        self.told.say("alice", "carol", accepted=False)
        self.alter("alice", "UPDATE outbox SET state = 3 WHERE user = 'carol'")
        self.tells(
            "lost", by=lambda: self.alter("alice", "UPDATE messages SET state = 'failed' WHERE state = 'waiting'")
        )

    def test_what_is_accepted_by_the_outbox_alone(self) -> None:
        self.told.say("alice", "carol", accepted=False)
        self.tells("lost", by=lambda: self.alter("alice", "UPDATE outbox SET state = 2 WHERE user = 'carol'"))

    def test_what_is_held_for_ever(self) -> None:
        self.told.rewrite("bob", [])
        self.alter("bob", "DELETE FROM messages WHERE sender = 'alice' AND n = 5")
        sql = "INSERT INTO held (user, device, n, at, body) VALUES ('alice', ?, 5, 0, '')"
        self.tells("lost", by=lambda: self.alter("bob", sql, ALICE))
        self.assertIn("held unread", str(self.told.check()))

    def test_what_its_sender_does_not_remember_to_have_sent(self) -> None:
        self.told.write("alice", {"sent": compose("alice", "bob", 6)})
        self.tells("lost")

    def test_a_gap_in_what_the_sender_has(self) -> None:
        self.alter("alice", "DELETE FROM messages WHERE own = 1 AND n = 2")
        self.alter("alice", "DELETE FROM outbox WHERE n = 2")
        self.tells("lost", "phantom")

    def test_a_number_that_will_be_given_again(self) -> None:
        self.told.say("alice", "bob", accepted=False)
        self.tells("lost", "waiting", by=lambda: self.alter("alice", "UPDATE meta SET value = 6 WHERE name = 'next_n'"))

    def test_what_was_accepted_for_nobody(self) -> None:
        dave = compose("alice", "dave", 1)
        self.told.say("alice", "carol", accepted=False)
        self.alter(
            "alice", "UPDATE outbox SET state = 2, user = 'dave', content = ? WHERE n = 6", encode_content(Text(dave))
        )
        sql = "UPDATE messages SET state = 'accepted', conversation = 'dave', text = ? WHERE own = 1 AND n = 6"
        self.tells("lost", by=lambda: self.alter("alice", sql, dave))

    def test_an_outbox_that_knows_more_than_the_history(self) -> None:
        self.told.say("alice", "carol", accepted=False)
        self.tells(
            "lost", by=lambda: self.alter("alice", "DELETE FROM messages WHERE conversation = 'carol' AND own = 1")
        )

    def mark(self, state: int) -> None:
        """alice tells carol that her message has arrived."""
        sql = "INSERT INTO outbox (n, user, device, content, at, state, shown) VALUES (6, 'carol', ?, ?, 0, ?, 0)"
        self.alter("alice", sql, Told.device("carol"), encode_content(Delivered((1,))), state)
        self.alter("alice", "UPDATE meta SET value = 7 WHERE name = 'next_n'")

    def test_a_mark_that_never_came(self) -> None:
        self.tells("lost", by=lambda: self.mark(state=2))
        self.tells(by=lambda: self.alter("carol", "INSERT INTO seen VALUES (?, 6)", ALICE))

    def test_a_mark_that_was_never_sent(self) -> None:
        self.tells("waiting", by=lambda: self.mark(state=1))

    # --- duplicated --------------------------------------------------------------------------------------------------

    def copy(self, n: int, as_n: int) -> None:
        sql = (
            "INSERT INTO messages (device, n, conversation, sender, own, at, text)"
            " SELECT device, ?, conversation, sender, own, at, text FROM messages WHERE sender = 'alice' AND n = ?"
        )
        self.alter("bob", sql, as_n, n)
        self.told.alter("bob", "INSERT OR IGNORE INTO seen VALUES (?, ?)", ALICE, as_n)

    def test_a_row_that_is_there_twice(self) -> None:
        # Under another name: two rows of one name there cannot be.
        self.tells("duplicated", "phantom", by=lambda: self.copy(5, 99))
        self.assertEqual(self.told.check().duplicated, 1)

    def test_a_message_that_was_shown_twice(self) -> None:
        lines = self.told.journal("bob")
        self.tells("duplicated", by=lambda: self.told.rewrite("bob", [*lines, lines[1]]))

    def test_a_message_that_would_be_taken_again(self) -> None:
        self.tells("duplicated", by=lambda: self.alter("bob", "DELETE FROM seen WHERE device = ? AND n = 3", ALICE))

    def test_a_counter_that_was_given_twice(self) -> None:
        self.told.counters["alice", "bob"] -= 1
        self.tells("duplicated", by=lambda: self.told.say("alice", "bob", "again", accepted=False))

    # --- out of order ------------------------------------------------------------------------------------------------

    def swap(self, first: int, second: int) -> None:
        a, b = (self.told.seq("bob", "alice", n) for n in (first, second))
        for old, new in ((a, -1), (b, a), (-1, b)):
            self.alter("bob", "UPDATE messages SET seq = ? WHERE seq = ?", new, old)

    def test_rows_in_another_order(self) -> None:
        self.tells("out_of_order", by=lambda: self.swap(2, 3))
        self.assertEqual(self.told.check().out_of_order, 1)

    def test_shown_in_another_order(self) -> None:
        lines = self.told.journal("bob")
        self.tells("out_of_order", by=lambda: self.told.rewrite("bob", [lines[1], lines[0], *lines[2:]]))

    def test_a_message_that_waits_while_a_later_one_is_there(self) -> None:
        self.told.say("alice", "bob", accepted=False)
        self.tells("out_of_order", "waiting", by=lambda: self.told.say("alice", "bob"))

    def test_a_sender_who_numbers_later_ones_lower(self) -> None:
        for old, new in ((1, -1), (2, 1), (-1, 2)):
            self.alter("alice", "UPDATE messages SET n = ? WHERE sender = 'alice' AND n = ?", new, old)
            self.alter("alice", "UPDATE outbox SET n = ? WHERE n = ?", new, old)
        self.assertIn("out_of_order", found(self.told.check()))

    # --- corrupted ---------------------------------------------------------------------------------------------------

    def test_a_flipped_character(self) -> None:
        sql = "UPDATE messages SET text = replace(text, 'padded', 'pAdded') WHERE sender = 'alice' AND n = 3"
        self.tells("corrupted", "lost", by=lambda: self.alter("bob", sql))
        self.assertEqual(self.told.check().corrupted, 1)

    def test_a_flipped_character_on_the_screen(self) -> None:
        lines = self.told.journal("bob")
        self.tells("corrupted", by=lambda: self.told.rewrite("bob", [lines[0].replace("padded", "pAdded"), *lines[1:]]))

    def test_the_wrong_sender(self) -> None:
        sql = "UPDATE messages SET sender = 'carol', conversation = 'carol' WHERE sender = 'alice' AND n = 3"
        self.tells("corrupted", "lost", by=lambda: self.alter("bob", sql))

    def test_the_wrong_conversation(self) -> None:
        sql = "UPDATE messages SET conversation = 'carol' WHERE sender = 'alice' AND n = 3"
        self.tells("corrupted", "lost", by=lambda: self.alter("bob", sql))

    def test_another_time(self) -> None:
        sql = "UPDATE messages SET at = at + 1 WHERE sender = 'alice' AND n = 3"
        self.tells("corrupted", by=lambda: self.alter("bob", sql))

    def test_a_row_that_could_not_be_read(self) -> None:
        sql = "UPDATE messages SET unreadable = 1, text = '', reason = 'bad-mac' WHERE sender = 'alice' AND n = 3"
        self.tells("corrupted", "lost", by=lambda: self.alter("bob", sql))

    def test_a_row_that_could_not_be_read_at_first(self) -> None:
        sql = "INSERT INTO outbox (n, user, device, content, at, state, shown) VALUES (90, 'alice', ?, ?, 0, 3, 0)"
        self.tells("corrupted", by=lambda: self.alter("bob", sql, ALICE, b'{"t":"retry","n":3,"reason":"bad-mac"}'))

    def test_a_mark_that_could_not_be_read(self) -> None:
        sql = "INSERT INTO retries (device, n, user, reason, came_at) VALUES (?, 3, 'alice', 'bad-mac', 0)"
        self.tells("corrupted", by=lambda: self.alter("bob", sql, ALICE))

    def test_an_unreadable_message_on_the_screen(self) -> None:
        self.tells("corrupted", by=lambda: self.told.write("bob", {"unreadable": "bad-mac", "from": "alice"}))

    def test_an_outbox_that_cannot_be_read(self) -> None:
        self.tells("corrupted", by=lambda: self.alter("alice", "UPDATE outbox SET content = ? WHERE n = 2", b"{}"))

    def test_an_outbox_that_says_something_else_than_the_history(self) -> None:
        self.tells("corrupted", by=lambda: self.alter("alice", "UPDATE outbox SET at = at + 1 WHERE n = 2"))

    def test_a_sender_who_remembers_something_else(self) -> None:
        self.told.say("alice", "bob", accepted=False)
        self.alter("alice", "DELETE FROM outbox WHERE n = 6")
        sql = "UPDATE messages SET text = 'something else' WHERE own = 1 AND n = 6"
        self.tells("corrupted", by=lambda: self.alter("alice", sql))

    def test_a_message_from_here_that_is_not_from_here(self) -> None:
        sql = "UPDATE messages SET own = 0 WHERE conversation = 'bob' AND n = 2 AND own = 1"
        self.tells("corrupted", by=lambda: self.alter("alice", sql))

    def test_a_damaged_file(self) -> None:
        self.told.close()
        path = next(person.vault_path for person in self.told.people if person.user == "bob")
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
        self.assertIn("corrupted", found(self.told.check()))

    # --- phantom -----------------------------------------------------------------------------------------------------

    def invent(self, sender: str, text: str, n: int) -> None:
        sql = "INSERT INTO messages (device, n, conversation, sender, own, at, text) VALUES (?, ?, ?, ?, 0, ?, ?)"
        self.alter("bob", sql, Told.device(sender), n, sender, sender, NOW, text)
        self.told.alter("bob", "INSERT OR IGNORE INTO seen VALUES (?, ?)", Told.device(sender), n)

    def test_what_nobody_has_sent(self) -> None:
        self.tells("phantom", by=lambda: self.invent("alice", compose("alice", "bob", 6), 6))

    def test_what_a_stranger_has_sent(self) -> None:
        self.tells("phantom", by=lambda: self.invent("mallory", compose("mallory", "bob", 1), 1))

    def test_what_its_sender_says_otherwise(self) -> None:
        sql = "UPDATE messages SET text = ? WHERE sender = 'alice' AND n = 3"
        self.tells("phantom", by=lambda: self.alter("bob", sql, compose("alice", "bob", 3, "another")))

    def test_a_sender_whose_vault_was_set_back(self) -> None:
        self.alter("alice", "DELETE FROM messages WHERE own = 1 AND n = 5")
        self.alter("alice", "DELETE FROM outbox WHERE n = 5")
        self.alter("alice", "UPDATE meta SET value = 5 WHERE name = 'next_n'")
        self.tells("phantom")

    def test_a_sender_whose_vault_was_set_back_and_who_went_on(self) -> None:
        self.test_a_sender_whose_vault_was_set_back()
        self.told.counters["alice", "bob"] -= 1
        text = compose("alice", "bob", 5, "what I say now")
        self.told.say("alice", "bob", "what I say now", accepted=False)
        self.alter("alice", "UPDATE outbox SET state = 2")
        self.tells("phantom", by=lambda: self.assertIsNotNone(read(text)))

    def test_what_was_shown_and_nobody_has_sent(self) -> None:
        self.told.write("bob", {"shown": compose("alice", "bob", 6), "from": "alice"})
        self.tells("phantom", "lost")

    def test_a_name_that_was_taken_and_never_given(self) -> None:
        self.tells("phantom", by=lambda: self.alter("bob", "INSERT INTO seen VALUES (?, 77)", ALICE))

    def test_a_name_of_nobody(self) -> None:
        self.tells("phantom", by=lambda: self.alter("bob", "INSERT INTO seen VALUES (?, 1)", Told.device("mallory")))

    def test_a_message_that_was_for_somebody_else(self) -> None:
        self.told.say("alice", "carol")
        self.tells("phantom", by=lambda: self.alter("bob", "INSERT INTO seen VALUES (?, 6)", ALICE))

    # --- waiting -----------------------------------------------------------------------------------------------------

    def test_what_was_never_sent(self) -> None:
        self.told.say("alice", "bob", accepted=False)
        self.tells("waiting")
        self.assertEqual(self.told.check().waiting, 1)

    def test_what_is_accepted_and_still_in_the_outbox(self) -> None:
        self.tells("waiting", by=lambda: self.alter("alice", "UPDATE outbox SET state = 1 WHERE n = 5"))

    # --- mistakes of the run -----------------------------------------------------------------------------------------

    def test_a_vault_that_is_not_there_is_an_error(self) -> None:
        self.told.people[0].vault_path.rename(self.told.people[0].vault_path.with_suffix(".gone"))
        self.assertRaises(FileNotFoundError, self.told.check)

    def test_a_vault_of_somebody_else_is_an_error(self) -> None:
        self.alter("bob", "UPDATE meta SET value = 'alice' WHERE name = 'user'")
        self.assertRaises(ValueError, self.told.check)
