"""The history checker on groups: who is due what follows from the chains, and each kind of lie is found by its name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.chaos import parties
from tests.support.told import NOW, Told, blank, found
from tests.support.told_groups import ToldGroup

ALICE, BOB = Told.device("alice"), Told.device("bob")


class Lies(SynchronousTestCase):
    """alice has founded a group with bob, and told it three things, and bob one. carol is not in it."""

    def setUp(self) -> None:
        self.told = blank(Path(self.mktemp()))
        self.addCleanup(self.told.close)
        self.group = ToldGroup(self.told, "alice", "bob")
        for sender in ("alice", "alice", "bob", "alice"):
            self.group.say(sender, "padded")

    def tells(self, *kinds: str, by: Callable[[], object] = lambda: None, times: int = 1) -> None:
        """The checker finds these kinds of lies, each so often, and no other."""
        by()
        report = self.told.check()
        self.assertEqual({kind: getattr(report, kind) for kind in found(report)}, dict.fromkeys(kinds, times), report)

    def alter(self, user: str, sql: str, *parameters: object) -> None:
        self.assertGreaterEqual(self.told.alter(user, sql, *parameters), 1, sql)

    def forget(self, user: str, sender: str, n: int) -> None:
        """`user` never got it."""
        self.alter(user, "DELETE FROM messages WHERE sender = ? AND n = ?", sender, n)
        self.alter(user, "DELETE FROM seen WHERE device = ? AND n = ?", Told.device(sender), n)
        self.told.rewrite(
            user, [line for line in self.told.journal(user) if f'"{Told.device(sender)}.{n}"' not in line]
        )

    # --- none --------------------------------------------------------------------------------------------------------

    def test_a_clean_history_is_clean(self) -> None:
        self.tells()
        self.told.say("alice", "carol")
        self.group.joins("carol")
        self.group.say("bob")
        report = self.told.check()
        self.assertTrue(report.clean, report)
        self.assertEqual((report.sent, report.accepted, report.due, report.received), (6, 6, 7, 7))
        self.assertEqual((report.to_groups, report.from_groups, report.statements), (5, 6, 5))

    def test_who_has_left_is_due_nothing_more(self) -> None:
        self.group.leaves("bob")
        self.group.say("alice")
        self.tells()
        self.assertEqual(self.told.check().due, 4)

    def test_who_comes_back_is_due_what_follows(self) -> None:
        for change in (self.group.leaves, self.group.joins):
            change("bob")
            self.group.say("alice")
        self.tells()
        self.tells("lost", by=lambda: self.forget("bob", "alice", 5))

    def test_what_is_encrypted_once_more_may_have_reached_who_left_meanwhile(self) -> None:
        self.group.joins("carol")
        text = self.group.say("alice", accepted=False)
        self.group.leaves("bob")
        self.group.goes("alice", 4)
        self.group.accepts("alice", 4)
        self.group.arrives("carol", "alice", 4, text)
        self.tells()
        self.group.arrives("bob", "alice", 4, text)
        self.tells()

    def test_a_failure_of_who_is_in_it_no_more_is_clean(self) -> None:
        self.group.say("bob", accepted=False)
        self.alter("bob", "UPDATE messages SET state = 'failed', reason = 'no member' WHERE own = 1 AND n = 2")
        self.alter("bob", "UPDATE outbox SET state = 3 WHERE n = 2")
        self.tells("lost")
        self.tells(by=lambda: self.group.leaves("bob"))

    def test_what_has_waited_for_its_key_may_be_shown_late(self) -> None:
        first, second, *rest = self.told.journal("bob")
        self.tells("out_of_order", by=lambda: self.told.rewrite("bob", [second, first, *rest]))
        place = f'{{"waits": "{ALICE}.1", "from": "alice"}}\n'
        self.tells(by=lambda: self.told.rewrite("bob", [place, second, first, *rest]))

    def test_a_kill_may_have_taken_the_line_of_its_place(self) -> None:
        first, second, *rest = self.told.journal("bob")
        self.tells(by=lambda: self.told.rewrite("bob", [second, '{"started": 1}\n', first, *rest]))

    # --- lost --------------------------------------------------------------------------------------------------------

    def test_a_member_who_never_got_it(self) -> None:
        self.group.joins("carol")
        self.group.say("alice")
        self.tells("lost", by=lambda: self.forget("carol", "alice", 4))
        self.assertIn("not in carol's vault (never seen there)", str(self.told.check()))

    def test_two_members_who_never_got_it(self) -> None:
        self.group.joins("carol")
        self.group.say("alice")
        self.forget("bob", "alice", 4)
        self.tells("lost", by=lambda: self.forget("carol", "alice", 4), times=2)

    def test_a_member_who_has_it_and_cannot_read_it_yet(self) -> None:
        self.told.rewrite("bob", [])
        sql = "UPDATE messages SET unreadable = 2, text = '' WHERE sender = 'alice' AND n = 3"
        self.tells("lost", "waiting", by=lambda: self.alter("bob", sql))

    def test_keys_that_a_member_never_got(self) -> None:
        n = self.group.keys("alice", "bob", "carol")
        self.alter("bob", "INSERT INTO seen VALUES (?, ?)", ALICE, n)
        self.tells("lost")
        self.tells(by=lambda: self.alter("carol", "INSERT INTO seen VALUES (?, ?)", ALICE, n))

    def test_what_a_device_tells_the_group_and_a_member_never_got(self) -> None:
        self.group.joins("carol")
        sql = "INSERT INTO outbox (n, user, content, at, state, shown, length) VALUES (9, ?, ?, 0, 2, 0, 5)"
        self.alter("alice", sql, self.group.conversation, b'{"t":"group_title"}')
        self.alter("alice", "UPDATE meta SET value = 10 WHERE name = 'next_n'")
        self.tells("lost", by=lambda: self.alter("bob", "INSERT INTO seen VALUES (?, 9)", ALICE))
        self.tells(by=lambda: self.alter("carol", "INSERT INTO seen VALUES (?, 9)", ALICE))

    # --- duplicated, out of order ------------------------------------------------------------------------------------

    def test_shown_twice_to_one_member(self) -> None:
        lines = self.told.journal("bob")
        self.tells("duplicated", by=lambda: self.told.rewrite("bob", [*lines, lines[-1]]))

    def test_in_another_order_at_one_member(self) -> None:
        a, b = self.told.seq("bob", "alice", 1), self.told.seq("bob", "alice", 2)
        for old, new in ((a, -1), (b, a), (-1, b)):
            self.alter("bob", "UPDATE messages SET seq = ? WHERE seq = ?", new, old)
        self.tells("out_of_order")

    def test_a_message_that_waits_while_a_later_one_is_at_a_member(self) -> None:
        self.group.say("alice", accepted=False)
        self.tells("out_of_order", "waiting", by=lambda: self.group.say("alice"))

    # --- phantom -----------------------------------------------------------------------------------------------------

    def test_somebody_who_is_no_member_has_it(self) -> None:
        text = self.told.vaults["alice"].execute("SELECT text FROM messages WHERE n = 2").fetchone()[0]
        self.group.arrives("carol", "alice", 2, text)
        self.assertEqual(found(self.told.check()), {"phantom"})
        self.assertIn("never went to carol, who was no member", str(self.told.check()))

    def test_somebody_who_is_no_member_was_handed_it(self) -> None:
        self.tells("phantom", by=lambda: self.alter("carol", "INSERT INTO seen VALUES (?, 2)", ALICE))

    def test_a_newcomer_has_what_was_said_before(self) -> None:
        self.group.joins("carol")
        self.tells("phantom", by=lambda: self.alter("carol", "INSERT INTO seen VALUES (?, 2)", ALICE))

    def test_who_has_left_has_what_was_said_after(self) -> None:
        self.group.leaves("bob")
        self.group.say("alice")
        self.tells("phantom", by=lambda: self.alter("bob", "INSERT INTO seen VALUES (?, 4)", ALICE))

    def test_keys_that_were_for_somebody_else(self) -> None:
        n = self.group.keys("alice", "bob")
        self.alter("bob", "INSERT INTO seen VALUES (?, ?)", ALICE, n)
        self.tells("phantom", by=lambda: self.alter("carol", "INSERT INTO seen VALUES (?, ?)", ALICE, n))

    # --- corrupted ---------------------------------------------------------------------------------------------------

    def test_two_chains(self) -> None:
        self.group.leaves("bob")
        sql = "UPDATE group_statements SET body = CAST(replace(body, 'leave', 'Leave') AS BLOB) WHERE position = 3"
        self.tells("corrupted", by=lambda: self.alter("bob", sql))
        self.assertIn("another chain of", str(self.told.check()))

    def test_a_chain_that_does_not_hang_together(self) -> None:
        for user in ("alice", "bob"):
            self.alter(user, "UPDATE group_statements SET body = CAST(body || ' ' AS BLOB) WHERE position = 1")
        self.tells("corrupted")
        self.assertIn("statement 2 of", str(self.told.check()))

    def test_a_chain_of_another_group(self) -> None:
        for user in ("alice", "bob"):
            self.alter(user, "UPDATE group_statements SET body = CAST(body || ' ' AS BLOB) WHERE position = 0")
        self.assertIn("is another group's", str(self.told.check()))

    def test_encrypted_by_a_chain_that_nobody_knows(self) -> None:
        self.group.say("alice", accepted=False)
        self.alter("alice", "UPDATE messages SET length = 9 WHERE n = 4")
        self.alter("alice", "UPDATE outbox SET length = 9, state = 2 WHERE n = 4")
        self.tells("corrupted")

    def test_a_text_of_a_group_in_another_conversation(self) -> None:
        self.told.rewrite("bob", [])
        sql = "UPDATE messages SET conversation = 'alice' WHERE sender = 'alice' AND n = 3"
        self.tells("corrupted", "lost", by=lambda: self.alter("bob", sql))

    def test_a_private_text_in_a_group(self) -> None:
        self.told.say("alice", "bob")
        self.told.rewrite("bob", [])
        sql = "UPDATE messages SET conversation = ? WHERE sender = 'alice' AND n = 4"
        self.tells("corrupted", "lost", by=lambda: self.alter("bob", sql, self.group.conversation))

    def test_a_private_text_that_was_shown_in_a_group(self) -> None:
        text = self.told.say("alice", "bob", shown=False)
        self.told.write("bob", {"shown": text, "from": "alice", "in": self.group.conversation})
        self.tells("corrupted")

    # --- waiting -----------------------------------------------------------------------------------------------------

    def test_an_act_that_is_not_done(self) -> None:
        sql = "INSERT INTO group_acts (group_id, act, at, length) VALUES (?, '{}', ?, 3)"
        self.tells("waiting", by=lambda: self.alter("bob", sql, self.group.conversation[1:], NOW))

    def test_a_body_that_cannot_be_read(self) -> None:
        sql = "INSERT INTO group_bodies (group_id, session, user, device, n, at, body, waits) VALUES"
        values = "('', '', 'bob', ?, 1, 0, '', 'key')"
        self.tells("waiting", by=lambda: self.alter("alice", f"{sql} {values}", BOB))


class Plans(SynchronousTestCase):
    def test_the_seed_fixes_who_is_to_be_in_which_group(self) -> None:
        users = [f"user{number:02}" for number in range(40)]
        first, again, other = (parties.plan(users, seed) for seed in (7, 7, 8))
        self.assertEqual(first, again)
        self.assertNotEqual(first, other)
        self.assertEqual(len(first), 8)
        for members in first.values():
            self.assertEqual(len(set(members)), len(members))
            self.assertTrue(parties.FEWEST <= len(members) <= parties.MOST, members)

    def test_a_few_users_have_groups_as_well(self) -> None:
        self.assertEqual(len(parties.plan(["alice", "bob"], 1)), 2)
