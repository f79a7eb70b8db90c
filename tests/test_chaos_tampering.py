"""The history checker against any single change of any clean history: each is found, by one of the names it has."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support.told import Told, blank, found

PEOPLE = ("alice", "bob", "carol")
PAIRS = [(one, other) for one in PEOPLE for other in PEOPLE if one != other]


class Tampering(NamedTuple):
    """One change of one message, `n` of `sender`, in a vault of its `recipient` (or, with `at_sender`, its own). One of
    `kinds` must be found."""

    kinds: set[str]
    sql: str
    at_sender: bool = False


TAMPERINGS = (
    Tampering({"lost"}, "DELETE FROM messages WHERE sender = :sender AND n = :n"),
    Tampering({"phantom"}, "DELETE FROM messages WHERE sender = :sender AND n = :n", at_sender=True),
    Tampering({"duplicated"}, "DELETE FROM seen WHERE device = :device AND n = :n"),
    Tampering({"phantom"}, "UPDATE seen SET n = n + 100 WHERE device = :device AND n = :n"),
    Tampering({"phantom"}, "UPDATE messages SET n = n + 100 WHERE sender = :sender AND n = :n"),
    Tampering({"phantom"}, "UPDATE messages SET device = 'another' WHERE sender = :sender AND n = :n"),
    Tampering({"corrupted"}, "UPDATE messages SET sender = 'dave' WHERE sender = :sender AND n = :n"),
    Tampering({"corrupted"}, "UPDATE messages SET conversation = 'dave' WHERE sender = :sender AND n = :n"),
    Tampering({"corrupted"}, "UPDATE messages SET text = text || '.' WHERE sender = :sender AND n = :n"),
    Tampering({"corrupted"}, "UPDATE messages SET text = '' WHERE sender = :sender AND n = :n"),
    Tampering({"corrupted"}, "UPDATE messages SET at = at - 1 WHERE sender = :sender AND n = :n"),
    Tampering({"corrupted"}, "UPDATE messages SET own = 1 WHERE sender = :sender AND n = :n"),
    Tampering({"corrupted"}, "UPDATE messages SET unreadable = 1 WHERE sender = :sender AND n = :n"),
    Tampering({"lost"}, "UPDATE messages SET state = 'failed' WHERE sender = :sender AND n = :n", at_sender=True),
    Tampering({"corrupted"}, "UPDATE messages SET text = 'x' WHERE sender = :sender AND n = :n", at_sender=True),
    Tampering(
        {"corrupted"}, "UPDATE messages SET conversation = 'x' WHERE sender = :sender AND n = :n", at_sender=True
    ),
    Tampering({"waiting"}, "UPDATE outbox SET state = 0 WHERE n = :n", at_sender=True),
    Tampering({"lost"}, "UPDATE outbox SET state = 3 WHERE n = :n", at_sender=True),
    Tampering({"corrupted"}, "UPDATE outbox SET content = X'00' WHERE n = :n", at_sender=True),
    Tampering({"phantom"}, "UPDATE outbox SET user = 'x' WHERE n = :n", at_sender=True),
    Tampering({"phantom"}, "DELETE FROM outbox WHERE n = :n", at_sender=True),
    Tampering({"phantom"}, "UPDATE meta SET value = 1 WHERE name = 'next_n'", at_sender=True),
)


class AnyTampering(SynchronousTestCase):
    """A random clean history, and one thing in it that is not true."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp())

    @contextmanager
    def history(self, pairs: Sequence[tuple[str, str]]) -> Iterator[Told]:
        told = blank(self.folder)
        try:
            for sender, recipient in pairs:
                told.say(sender, recipient)
            report = told.check()
            self.assertTrue(report.clean, report)
            self.assertEqual((report.sent, report.received), (len(pairs), len(pairs)))
            yield told
        finally:
            told.close()
            shutil.rmtree(self.folder)

    @settings(max_examples=40, deadline=None)
    @given(st.lists(st.sampled_from(PAIRS), min_size=1, max_size=12), st.integers(0), st.sampled_from(TAMPERINGS))
    def test_in_a_vault(self, pairs: list[tuple[str, str]], chosen: int, tampering: Tampering) -> None:
        chosen %= len(pairs)
        sender, recipient = pairs[chosen]
        n = 1 + [pair[0] for pair in pairs[:chosen]].count(sender)
        with self.history(pairs) as told:
            vault = told.vaults[sender if tampering.at_sender else recipient]
            named: Any = {"sender": sender, "device": Told.device(sender), "n": n}
            self.assertEqual(vault.execute(tampering.sql, named).rowcount, 1)
            report = told.check()
            self.assertTrue(found(report) & tampering.kinds, report)

    @settings(max_examples=20, deadline=None)
    @given(st.lists(st.sampled_from(PAIRS), min_size=1, max_size=8), st.integers(0), st.integers(0))
    def test_in_a_journal(self, others: list[tuple[str, str]], first: int, second: int) -> None:
        with self.history([*others, *[("alice", "bob")] * 3]) as told:
            lines = told.journal("bob")
            told.rewrite("bob", [*lines, lines[first % len(lines)]])
            self.assertEqual(found(told.check()), {"duplicated"})
            mine = [number for number, line in enumerate(lines) if '"alice>bob' in line]
            first, second = mine[first % len(mine)], mine[second % len(mine)]
            lines[first], lines[second] = lines[second], lines[first]
            told.rewrite("bob", lines)
            self.assertEqual(found(told.check()), set() if first == second else {"out_of_order"})
