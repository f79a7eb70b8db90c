"""What only PostgreSQL can do wrong with attachments: two at once, a database that goes away, plans that scan."""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from typing import Any

from twisted.internet.defer import Deferred, gatherResults

from fastchat.errors import Busy, QuotaExceeded, RequestError
from fastchat.protocols.wire import CHUNK_SIZE
from fastchat.store import ChunkOutcome, NewChunk, postgres_attachments
from fastchat.store.pools import PLANNER, with_settings
from fastchat.store.postgres import PostgresStore
from fastchat.store.queries import query
from tests.support import rows
from tests.support.chunks import DAY, EMPTY_CHUNKS, NOW, QUOTA, A, B, chunk, data, prints, whole
from tests.support.rows import mail, register
from tests.test_store_postgres import DatabaseTestCase

STORED, UNKNOWN = ChunkOutcome.STORED, ChunkOutcome.UNKNOWN
LOCK_ATTACHMENT = "select from attachments where id = %s for update"


class RaceTestCase(DatabaseTestCase):
    async def two_stores(self, *users: str) -> tuple[PostgresStore, PostgresStore]:
        """Two stores over one database, as two processes would be."""
        first, _ = await self.store_with_alice()
        for user in users:
            await register(first, user)
        return first, await self.open(self.dsn)

    async def upload(self, store: PostgresStore, attachment: str, chunks: int) -> None:
        await store.begin_attachment(attachment, "alice", chunks, QUOTA, NOW)
        self.assertEqual(set(await store.store_chunks(whole(attachment, chunks), NOW)), {STORED})

    async def outcomes(self, calls: Sequence[Coroutine[Any, Any, Any]], error: type[Exception]) -> int:
        """How many succeed; the others fail with `error`."""
        failures: list[Any] = []
        await gatherResults([Deferred.fromCoroutine(call).addErrback(failures.append) for call in calls])
        self.assertEqual({failure.type for failure in failures} - {error}, set())
        return len(calls) - len(failures)

    def counts(self, *tables: str) -> tuple[int, ...]:
        cursor = self.connect(self.dsn)
        found = []
        for table in tables or ("attachments", "attachment_chunks", "attachment_readers", "attachment_remains"):
            cursor.execute(f"select count(*) from {table}")  # noqa: S608
            found.append(int(cursor.fetchone()[0]))
        return tuple(found)

    def blocked(self, cursor: Any) -> int:
        cursor.execute("select count(*) from pg_stat_activity where wait_event_type = 'Lock'")
        return int(cursor.fetchone()[0])


class ConcurrencyTests(RaceTestCase):
    async def test_no_two_pass_the_quota_together(self) -> None:
        stores = await self.two_stores()
        calls = [
            stores[number % 2].begin_attachment(f"{number:032x}", "alice", 3, 10 * CHUNK_SIZE, NOW)
            for number in range(12)
        ]
        self.assertEqual(await self.outcomes(calls, QuotaExceeded), 3)
        self.assertEqual(self.counts("attachments"), (3,))

    async def test_who_waits_counts_what_the_other_began(self) -> None:
        """Deterministic: somebody else begins, and commits while the store waits."""
        store, _ = await self.two_stores()
        here, other = self.connect(self.dsn), self.connect(self.dsn, autocommit=False)
        other.execute(query("lock_user"), {"name": "alice"})
        other.execute(query("add_attachment"), {"attachment": B, "user": "alice", "chunks": 8, "now": NOW})
        beginning = Deferred.fromCoroutine(store.begin_attachment(A, "alice", 3, 10 * CHUNK_SIZE, NOW))
        await self.until(lambda: self.blocked(here) == 1)
        other.connection.commit()
        await self.assertFailure(beginning, QuotaExceeded)
        self.assertEqual(self.counts("attachments"), (1,))

    async def test_an_id_is_begun_by_one(self) -> None:
        stores = await self.two_stores("bob")
        for number in range(6):
            calls = [
                stores[k % 2].begin_attachment(f"{number:032x}", ("alice", "bob")[k // 2 % 2], 1, QUOTA, NOW)
                for k in range(8)
            ]
            self.assertEqual(await self.outcomes(calls, RequestError), 4)
        self.assertEqual(self.counts("attachments"), (6,))

    async def test_the_same_chunks_through_two_processes_are_there_once(self) -> None:
        """In one order and the other, each with bytes of its own: no circle of waiting, and what came first stays."""
        stores = await self.two_stores()
        for attachment in (A, B):
            await stores[0].begin_attachment(attachment, "alice", 8, QUOTA, NOW)
        calls = []
        for writer in range(6):
            batch = [chunk(a, index, other=str(writer)) for index in range(8) for a in (A, B)]
            calls.append(stores[writer % 2].store_chunks(batch[::-1] if writer // 2 % 2 else batch, NOW))
        for outcomes in await gatherResults([Deferred.fromCoroutine(call) for call in calls]):
            self.assertEqual(outcomes, [STORED] * 16)
        self.assertEqual(self.counts()[:2], (2, 16))
        for attachment in (A, B):
            self.assertEqual(await stores[0].begin_attachment(attachment, "alice", 8, QUOTA, NOW), [])
            found = await stores[1].chunks([(attachment, index) for index in range(8)])
            for index, found_print in enumerate(prints(found)):
                self.assertIn(found_print, prints([data(attachment, index, str(writer)) for writer in range(6)]))

    async def test_who_stores_while_it_goes_leaves_nothing_behind(self) -> None:
        stores = await self.two_stores("bob")
        for number in range(8):
            attachment = f"{number:032x}"
            await stores[0].begin_attachment(attachment, "alice", 4, QUOTA, NOW)
            calls: list[Coroutine[Any, Any, Any]] = [stores[0].store_chunks([chunk(attachment, 0)], NOW)]
            calls.append(stores[1].store_chunks(whole(attachment, 4), NOW))
            calls.insert(number % 3, stores[number % 2].detach(attachment, "alice"))
            await gatherResults([Deferred.fromCoroutine(call) for call in calls])
        await stores[0].sweep_attachments(NOW, DAY, DAY)
        self.assertEqual(self.counts(), (0, 0, 0, 0))

    async def test_what_goes_while_a_batch_waits_is_unknown(self) -> None:
        """Deterministic: somebody else removes it, and commits while the batch waits; the rest is stored."""
        store, _ = await self.two_stores()
        for attachment in (A, B):
            await store.begin_attachment(attachment, "alice", 2, QUOTA, NOW)
        here, other = self.connect(self.dsn), self.connect(self.dsn, autocommit=False)
        other.execute(query("detach"), {"attachment": A, "user": "alice"})
        storing = Deferred.fromCoroutine(store.store_chunks([chunk(B, 0), chunk(A, 0), chunk(B, 1)], NOW))
        await self.until(lambda: self.blocked(here) == 1)
        other.connection.commit()
        self.assertEqual(await storing, [STORED, UNKNOWN, STORED])
        self.assertEqual(self.counts()[:2], (1, 2))

    async def test_of_many_that_have_it_each_counts_once(self) -> None:
        stores = await self.two_stores("bob")
        await self.upload(stores[0], A, 1)
        devices = [rows.device("bob", str(number)).device for number in range(20)]
        calls: list[Coroutine[Any, Any, Any]] = [
            stores[number % 2].attachment_fetched(A, "bob", device) for number, device in enumerate(devices[1:] * 3)
        ]
        calls.insert(30, stores[0].expect_readers(A, "alice", 20))
        await gatherResults([Deferred.fromCoroutine(call) for call in calls])
        self.assertEqual(self.counts(), (1, 1, 19, 0))
        calls = [store.attachment_fetched(A, "bob", devices[0]) for store in stores * 3]
        await gatherResults([Deferred.fromCoroutine(call) for call in calls])
        self.assertEqual(self.counts(), (0, 0, 0, 0))

    async def test_who_waits_for_the_number_sees_it(self) -> None:
        """Deterministic: the sender says how many, and commits while the last device waits; and the other way round."""
        store, _ = await self.two_stores("bob")
        here, other = self.connect(self.dsn), self.connect(self.dsn, autocommit=False)
        device = rows.device("bob").device
        for sql, call in (
            ("expect_readers", store.attachment_fetched(A, "bob", device)),
            ("add_reader", store.expect_readers(A, "alice", 1)),
        ):
            await self.upload(store, A, 1)
            asked = {"attachment": A, "devices": 1, "device": device}
            other.execute(query(sql), {**asked, "user": "alice" if sql == "expect_readers" else "bob"})
            waiting = Deferred.fromCoroutine(call)
            await self.until(lambda: self.blocked(here) == 1)
            other.connection.commit()
            await waiting
            self.assertEqual(self.counts(), (0, 0, 0, 0))

    async def test_two_that_sweep_share_the_work(self) -> None:
        stores = await self.two_stores()
        for number in range(30):
            await self.upload(stores[0], f"{number:032x}", 1)
        sweeps = [Deferred.fromCoroutine(store.sweep_attachments(NOW + DAY, DAY, DAY)) for store in stores * 2]
        self.assertEqual(sum(await gatherResults(sweeps)), 30)
        # Each drops what nobody else is dropping at that moment.
        await stores[0].sweep_attachments(NOW, DAY, DAY)
        self.assertEqual(self.counts(), (0, 0, 0, 0))

    async def test_what_is_in_use_is_left_for_the_next_sweep(self) -> None:
        store, _ = await self.two_stores()
        for attachment in (A, B):
            await self.upload(store, attachment, 1)
        other = self.connect(self.dsn, autocommit=False)
        other.execute(LOCK_ATTACHMENT, [A])
        self.assertEqual(await store.sweep_attachments(NOW + DAY, DAY, DAY), 1)
        other.connection.commit()
        self.assertEqual(await store.sweep_attachments(NOW + DAY, DAY, DAY), 1)


class AwayTests(RaceTestCase):
    """A connection that ends in the middle."""

    def end(self, name: str) -> None:
        self.connect(self.dsn).execute(
            "select pg_terminate_backend(pid) from pg_stat_activity"
            " where application_name = %s and datname = current_database()",
            [f"fastchat {name}"],
        )

    async def test_a_batch_that_was_cut_off_is_stored_again(self) -> None:
        store, _ = await self.two_stores()
        for attachment in (A, B):
            await store.begin_attachment(attachment, "alice", 2, QUOTA, NOW)
        here, other = self.connect(self.dsn), self.connect(self.dsn, autocommit=False)
        other.execute(LOCK_ATTACHMENT, [B])
        batch = [chunk(A, 0), chunk(B, 0), chunk(A, 1)]
        storing = Deferred.fromCoroutine(store.store_chunks(batch, NOW))
        await self.until(lambda: self.blocked(here) == 1)
        self.end("chunk writer")
        await self.assertFailure(storing, Busy)
        # Nothing of it is there; mail and reading went on.
        self.assertEqual(await store.begin_attachment(A, "alice", 2, QUOTA, NOW), [(0, 2)])
        self.assertEqual(len(await store.store_mail([mail(rows.device("alice"), 1)])), 1)
        other.connection.commit()
        await self.until(lambda: store.available)
        self.assertEqual(await store.store_chunks(batch, NOW), [STORED] * 3)
        found = await store.chunks([(A, 0), (A, 1)])
        self.assertEqual(prints(found), prints([chunk(A, 0).data, chunk(A, 1).data]))

    async def test_a_reader_comes_back_and_reads_octets_again(self) -> None:
        store, _ = await self.two_stores()
        await self.upload(store, A, 2)
        here, other = self.connect(self.dsn), self.connect(self.dsn, autocommit=False)
        other.execute("lock table attachments")
        reading = Deferred.fromCoroutine(store.chunks([(A, 0)]))
        await self.until(lambda: self.blocked(here) == 1)
        self.end("chunk reader")
        await self.assertFailure(reading, Busy)
        other.connection.commit()
        await self.until(lambda: store.available)
        self.assertEqual(prints(await store.chunks([(A, 1)])), prints([chunk(A, 1).data]))

    async def test_what_is_left_of_one_that_is_gone_goes_with_the_next_sweep(self) -> None:
        """The slices go one by one; in between, and while one has to wait, everybody else goes on."""
        self.patch(postgres_attachments, "SLICE", 2)
        store, second = await self.two_stores("bob")
        await self.upload(store, A, 7)
        await self.upload(store, B, 1)
        here, other = self.connect(self.dsn), self.connect(self.dsn, autocommit=False)
        other.execute("select from attachment_chunks where index = 5 for update")
        detaching = Deferred.fromCoroutine(store.detach(A, "alice"))
        await self.until(lambda: self.blocked(here) == 1)
        # Four went; it is gone for everybody, and its room is free.
        self.assertEqual(self.counts(), (1, 4, 0, 1))
        self.assertEqual(prints(await store.chunks([(A, 6), (B, 0)])), prints([None, chunk(B, 0).data]))
        self.assertEqual(await store.begin_attachment(A, "bob", 2, QUOTA, NOW), [(0, 2)])
        self.assertEqual(await store.store_chunks([chunk(A, 5), chunk(A, 1, "bob")], NOW), [UNKNOWN, STORED])
        # Another process drops what nobody else is dropping, and does not wait.
        self.assertEqual(await second.sweep_attachments(NOW, DAY, DAY), 0)
        self.assertEqual(self.counts(), (2, 5, 0, 1))
        self.end("chunk dropper")
        await self.assertFailure(detaching, Busy)
        other.connection.commit()
        await self.until(lambda: store.available and second.available)
        self.assertEqual(await store.sweep_attachments(NOW, DAY, DAY), 0)
        self.assertEqual(self.counts(), (2, 2, 0, 0))
        self.assertEqual(await store.begin_attachment(A, "bob", 2, QUOTA, NOW), [(0, 1)])


class PlanTests(RaceTestCase):
    """What a query reads, with many attachments there."""

    async def test_attachments_are_found_through_indexes(self) -> None:
        store, _ = await self.two_stores()
        await store.begin_attachment(A, "alice", 5000, 2**40, NOW)
        here = self.connect(with_settings(self.dsn, "plans", {**PLANNER, "plan_cache_mode": "force_generic_plan"}))
        here.execute(EMPTY_CHUNKS, {"attachment": A, "indexes": list(range(0, 4000, 2))})
        here.execute(
            "insert into attachments (id, user_name, chunks, changed_at)"
            " select gen_random_uuid(), 'user' || n % 100, 1, to_timestamp(n) from generate_series(1, 10000) n;"
            "insert into attachment_chunks select number, 0, '' from attachments where user_name <> 'alice';"
            "insert into attachment_readers select number, gen_random_uuid() from attachments;"
        )
        here.execute(query("prepare_chunk_writer"))
        asked: dict[str, object] = {"attachment": A, "user": "user7", "limit": 100, "device": B, "devices": 1}
        asked |= {"attachments": "{%s}" % A, "users": "{alice}", "indexes": "{1}", "numbers": "{1}", "chunks": "{1}"}  # noqa: UP031
        asked |= {"number": 1, "now": NOW, "unfinished": 5.0, "whole": 3.0}
        names = ["missing_chunks", "chunks_of_user", "hold_attachments", "present_chunks", "count_chunks"]
        names += ["expect_readers", "add_reader", "detach", "remove_attachment", "remove_old_attachments"]
        names += ["drop_remains"]
        for statement in ("select", "vacuum analyze"):
            here.execute(statement)
            for name in [*names, "chunks"]:
                plan = self.plan(here, query(name).removesuffix("\nfetch all from chunks;"), asked)
                for table in ("attachments", "attachment_chunks", "attachment_readers"):
                    self.assertNotIn(f"Seq Scan on {table}", plan, name + plan)
        self.assertIn("Index Only Scan using attachment_chunks_pkey", self.plan(here, query("missing_chunks"), asked))

    async def test_what_compresses_takes_no_less(self) -> None:
        store, _ = await self.two_stores()
        await store.begin_attachment(A, "alice", 1, QUOTA, NOW)
        await store.store_chunks([NewChunk(A, "alice", 0, b"\0" * CHUNK_SIZE)], NOW)
        here = self.connect(self.dsn)
        here.execute("select pg_column_size(data) from attachment_chunks")
        self.assertEqual(here.fetchone(), (CHUNK_SIZE,))

    def plan(self, cursor: Any, sql: str, parameters: Any) -> str:
        cursor.execute("explain " + sql, parameters)
        return "\n".join(line for (line,) in cursor.fetchall())
