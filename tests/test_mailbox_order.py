"""Why a reader of one mailbox could go by row numbers, which ours does not (docs/decisions/mutants-that-survive.md)."""

from __future__ import annotations

from twisted.internet.defer import Deferred

from fastchat.store import Stored
from tests.support.rows import mail, register
from tests.test_store_postgres import DatabaseTestCase

GATE = """
create function wait_at_gate() returns trigger language plpgsql as
    $$ begin perform pg_advisory_xact_lock_shared(1); return new; end $$;
create trigger gate before insert on messages for each row when (new.n = 1) execute function wait_at_gate();
"""
"""Holds a batch with message 1 in the middle: its numbers are drawn, and it is not committed."""


class MailboxOrder(DatabaseTestCase):
    async def test_rows_of_one_mailbox_are_committed_in_the_order_of_their_numbers(self) -> None:
        first, alice = await self.store_with_alice()
        second, bob = await self.open(self.dsn), await register(first, "bob")
        gate, here = self.connect(self.dsn), self.connect(self.dsn)

        def blocked() -> int:
            here.execute("select count(*) from pg_stat_activity where wait_event_type = 'Lock'")
            return int(here.fetchone()[0])

        here.execute(GATE)
        gate.execute("select pg_advisory_lock(1)")
        earlier = Deferred.fromCoroutine(first.store_mail([mail(alice, 1)]))
        await self.until(lambda: blocked() == 1)
        self.assertEqual(await second.store_mail([mail(bob, 2)]), [Stored.STORED])
        later = Deferred.fromCoroutine(second.store_mail([mail(alice, 3)]))
        await self.until(lambda: blocked() == 2 or later.called)
        self.assertEqual(await first.mailbox(alice.device, [], 10), [])
        gate.execute("select pg_advisory_unlock(1)")
        self.assertEqual((await earlier, await later), ([Stored.STORED], [Stored.STORED]))
        rows = await first.mailbox(alice.device, [], 10)
        self.assertEqual([row.n for row in rows], [1, 3])
        # Of different mailboxes this is not so: bob's was committed before, and has the higher number.
        [other] = await first.mailbox(bob.device, [], 10)
        self.assertGreater(other.message, rows[0].message)
