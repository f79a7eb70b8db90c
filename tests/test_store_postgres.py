"""What only PostgreSQL can do wrong: two writers at once, a server that goes away or hangs, plans that scan."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any

import psycopg2
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, TimeoutError, gatherResults
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from fastchat.config import Config, Database, Limits
from fastchat.errors import Busy, ConfigError, InviteInvalid, NameTaken, UnknownDevice
from fastchat.store import Device, Stored
from fastchat.store.literals import array
from fastchat.store.pools import PLANNER, with_settings
from fastchat.store.postgres import PostgresStore
from fastchat.store.queries import query
from tests.support import rows
from tests.support.postgres import cluster, fresh_database
from tests.support.rows import INVITE, mail, register

CONFIG = Config(home=Path("unused"))
HASTY = Config(home=Path("unused"), database=Database(statement_seconds=1.0, connect_seconds=1.0, connections=2))


class DatabaseTestCase(TestCase):
    timeout = 60

    async def open(self, dsn: str, config: Config = CONFIG) -> PostgresStore:
        store = PostgresStore(dsn, config, reactor)
        await store.open()
        self.addCleanup(lambda: Deferred.fromCoroutine(store.close()))
        return store

    async def store_with_alice(self, config: Config = CONFIG) -> tuple[PostgresStore, Device]:
        self.dsn = await fresh_database(self)
        store = await self.open(self.dsn, config)
        await store.add_invite(INVITE, None, None)
        return store, await register(store, "alice")

    def connect(self, dsn: str, autocommit: bool = True) -> Any:
        """A cursor of a connection beside the store's; what it waits for, the whole test waits for."""
        connection = psycopg2.connect(dsn)
        connection.autocommit = autocommit
        self.addCleanup(connection.close)
        return connection.cursor()

    async def refused(self, error: type[Exception], call: Coroutine[Any, Any, Any]) -> Any:
        return await self.assertFailure(Deferred.fromCoroutine(call), error)

    async def until(self, true: Callable[[], bool]) -> None:
        """Look again and again, for as long as the test may last."""
        while not true():
            await deferLater(reactor, 0.01)


class ConcurrencyTests(DatabaseTestCase):
    """Two stores over one database: as two processes would be."""

    async def two_stores(self, uses: int | None, config: Config = CONFIG) -> tuple[PostgresStore, PostgresStore]:
        self.dsn = await fresh_database(self)
        first, second = await gatherResults([Deferred.fromCoroutine(self.open(self.dsn, config)) for _ in range(2)])
        await first.add_invite(INVITE, uses, None)
        return first, second

    async def outcomes(self, calls: list[Coroutine[Any, Any, Any]], error: type[Exception]) -> int:
        """How many succeed; the others fail with `error`."""
        failures: list[Any] = []
        await gatherResults([Deferred.fromCoroutine(call).addErrback(failures.append) for call in calls])
        self.assertEqual({failure.type for failure in failures} - {error}, set())
        return len(calls) - len(failures)

    async def test_an_invite_is_used_as_often_as_it_says_and_the_log_has_no_gap(self) -> None:
        stores = await self.two_stores(uses=10)
        calls = [register(stores[number % 2], f"user{number}") for number in range(20)]
        self.assertEqual(await self.outcomes(calls, InviteInvalid), 10)
        leaves = await stores[0].log_leaves(0, 1000)
        self.assertEqual((len(leaves), len(set(leaves))), (20, 20))
        users = {rows.leaf(f"user{number}", 0): rows.leaf(f"user{number}", 1) for number in range(20)}
        self.assertEqual([users[first] for first in leaves[::2]], leaves[1::2])

    async def test_a_name_is_taken_by_one(self) -> None:
        stores = await self.two_stores(uses=None)
        calls = [register(store, "alice") for store in stores * 4]
        self.assertEqual(await self.outcomes(calls, NameTaken), 1)
        self.assertEqual(len(await stores[0].log_leaves(0, 10_000)), 2)

    async def test_a_one_time_key_is_given_to_one(self) -> None:
        stores = await self.two_stores(uses=None)
        alice = await register(stores[0], "alice", one_time=50)
        claims = [Deferred.fromCoroutine(stores[number % 2].bundles([alice.device], True)) for number in range(60)]
        claimed = [bundle.one_time for [bundle] in await gatherResults(claims)]
        self.assertEqual((claimed.count(None), len({key.body for key in claimed if key})), (10, 50))

    async def test_the_limit_of_a_mailbox_holds_whoever_writes(self) -> None:
        stores = await self.two_stores(
            None, Config(home=Path("unused"), limits=Limits(mailbox_messages=100, mailbox_share=1.0))
        )
        devices = [await register(stores[0], user) for user in ("alice", "bob")]
        batches = [[mail(device, n) for device in order] for n in range(80) for order in (devices, devices[::-1])]
        writing = [Deferred.fromCoroutine(stores[n % 2].store_mail(batch)) for n, batch in enumerate(batches)]
        stored = [outcome for outcomes in await gatherResults(writing) for outcome in outcomes]
        self.assertEqual(stored.count(Stored.STORED), 200)
        for device in devices:
            self.assertEqual(await stores[0].mailbox_size(device.device), 100)
            self.assertEqual(len(await stores[0].mailbox(device.device, [], 1000)), 100)

    async def test_what_another_is_just_writing_counts(self) -> None:
        store, _ = await self.two_stores(
            None, Config(home=Path("unused"), limits=Limits(mailbox_messages=1, mailbox_share=1.0))
        )
        alice = await register(store, "alice")
        here = self.connect(self.dsn)
        other = self.connect(self.dsn, autocommit=False)
        other.execute("update mailbox_sizes set messages = messages + 1, bytes = bytes + 6")
        writing = Deferred.fromCoroutine(store.store_mail([mail(alice, 1)]))
        await self.until(lambda: self.blocked(here) == 1)
        other.connection.commit()
        self.assertEqual(await writing, [Stored.MAILBOX_FULL])

    async def test_a_body_goes_with_its_last_row_whoever_deletes(self) -> None:
        store, _ = await self.two_stores(None)
        alice, bob = await register(store, "alice"), await register(store, "bob")
        await store.store_mail([mail(device, 1, order=1) for device in (alice, bob)])
        [waiting] = await store.mailbox(alice.device, [], 10)
        here = self.connect(self.dsn)
        # Someone else deletes bob's row, and has not committed when the store deletes alice's.
        other = self.connect(self.dsn, autocommit=False)
        pair = {"devices": array([bob.device]), "messages": array([waiting.message])}
        other.execute(query("delete_mail"), pair)
        deleting = Deferred.fromCoroutine(store.delete_mail([(alice.device, waiting.message)]))
        await self.until(lambda: self.blocked(here) == 1)
        other.connection.commit()
        await deleting
        here.execute("select (select count(*) from messages), (select count(*) from mailboxes)")
        self.assertEqual(here.fetchone(), (0, 0))
        here.execute("select distinct messages, bytes from mailbox_sizes")
        self.assertEqual(here.fetchall(), [(0, 0)])

    def blocked(self, cursor: Any) -> int:
        cursor.execute("select count(*) from pg_stat_activity where wait_event_type = 'Lock'")
        return int(cursor.fetchone()[0])

    async def test_mail_that_comes_while_a_device_is_revoked_goes_with_it(self) -> None:
        store, _ = await self.two_stores(None)
        alice, bob = await register(store, "alice"), await register(store, "bob")
        await store.store_mail([mail(alice, 1)])
        here = self.connect(self.dsn)
        # Its bodies are looked for and cannot be locked yet; then a second mail comes, for her and for bob,
        other = self.connect(self.dsn, autocommit=False)
        other.execute("select from messages for update")
        revoking = Deferred.fromCoroutine(
            store.revoke_device("alice", alice.device, 2, rows.signed("revoke"), rows.leaf("revoke"))
        )
        await self.until(lambda: self.blocked(here) == 1)
        both = [mail(device, 2, order=1_000_000) for device in (alice, bob)]
        self.assertEqual(await store.store_mail(both), [Stored.STORED, Stored.STORED])
        # who is just deleting his, and sees hers still there.
        [waiting] = await store.mailbox(bob.device, [], 10)
        deleting = self.connect(self.dsn, autocommit=False)
        pair = {"devices": array([bob.device]), "messages": array([waiting.message])}
        deleting.execute(query("delete_mail"), pair)
        other.connection.commit()
        await self.until(lambda: revoking.called or self.blocked(here) == 1)
        deleting.connection.commit()
        await revoking
        here.execute("select (select count(*) from messages), (select count(*) from mailboxes)")
        self.assertEqual(here.fetchone(), (0, 0))
        self.assertEqual((await store.links(["alice"]))["alice"][2:], [rows.signed("revoke")])
        self.assertEqual(len(await store.log_leaves(0, 10)), 5)

    async def test_who_publishes_while_the_device_is_revoked_leaves_nothing(self) -> None:
        store, _ = await self.two_stores(None)
        alice = await register(store, "alice")
        here = self.connect(self.dsn)
        other = self.connect(self.dsn, autocommit=False)
        other.execute(query("revoke_device"), {"user": "alice", "device": alice.device})
        publishing = Deferred.fromCoroutine(store.publish(alice.device, rows.keys("late")))
        await self.until(lambda: self.blocked(here) == 1)
        other.execute(query("drop_prekeys"), {"device": alice.device})
        other.connection.commit()
        await self.assertFailure(publishing, UnknownDevice)
        here.execute("select (select count(*) from one_time_keys), (select count(*) from prekeys)")
        self.assertEqual(here.fetchone(), (0, 0))

    async def test_two_processes_open_a_new_database_at_once(self) -> None:
        first, second = await self.two_stores(None)
        self.assertTrue(first.available)
        self.assertTrue(second.available)


class _Watching:
    """The reactor, but for `addReader`."""

    def __init__(self, add_reader: Callable[[object], None]) -> None:
        self.addReader = add_reader

    def __getattr__(self, name: str) -> Any:
        return getattr(reactor, name)


class AwayTests(DatabaseTestCase):
    """A database that is away, hangs, or comes back."""

    def terminate(self, cursor: Any) -> None:
        cursor.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where application_name like 'fastchat %'"
        )

    async def test_killed_under_a_query(self) -> None:
        store, alice = await self.store_with_alice()
        lock = self.connect(self.dsn, autocommit=False)
        lock.execute("lock table messages, users")
        calls: list[Coroutine[Any, Any, Any]] = [store.store_mail([mail(alice, 1)]), store.account("alice")]
        busy = [Deferred.fromCoroutine(self.refused(Busy, call)) for call in calls]
        here = self.connect(self.dsn)
        self.terminate(here)
        errors = await gatherResults(busy)
        self.assertFalse(store.available)
        self.assertTrue(all(isinstance(error.__cause__, psycopg2.Error) for error in errors))
        lock.connection.rollback()
        await self.until(lambda: store.available)
        self.assertEqual(await store.store_mail([mail(alice, 1)]), [Stored.STORED])

    async def test_lost_before_a_query_that_comes_sooner_than_the_news(self) -> None:
        """libpq closes its socket in the middle of the call, while the reactor still watches it. Its number must not
        stay behind in the reactor, where the next socket that has it would be deaf; and the connection comes back."""
        store, alice = await self.store_with_alice()
        for n in range(1, 4):
            for pool in (store._writer, store._deleter, store._general):
                for connection in pool._idle:
                    with socket.socket(fileno=os.dup(connection._connection.fileno())) as wire:
                        wire.shutdown(socket.SHUT_RDWR)
            # More than the socket takes at once: libpq looks for what the other side says, while it sends.
            batch = [mail(alice, n, b"x" * 4_000_000)]
            calls: list[Coroutine[Any, Any, Any]] = [
                store.store_mail(batch),
                store.delete_mail([(alice.device, n)]),
                store.account("alice"),
            ]
            await gatherResults([Deferred.fromCoroutine(self.refused(Busy, call)) for call in calls])
            await self.until(lambda: store.available)
            self.assertEqual(await store.store_mail(batch), [Stored.STORED])
            reactor.getReaders()  # raises if what is watched and what is known differ

    async def test_an_idle_connection_whose_socket_is_closed_without_a_word(self) -> None:
        """libpq has closed it, psycopg2 does not say so, and the reactor is asked to watch socket number -1."""
        store, _ = await self.store_with_alice()
        [connection] = store._writer._idle

        def watch(reader: object) -> None:
            raise ValueError("file descriptor cannot be a negative integer (-1)")

        self.patch(connection, "reactor", _Watching(watch))
        connection.doRead()
        self.assertNotIn(connection, store._writer._idle)
        await self.until(lambda: store.available)
        reactor.getReaders()

    async def test_killed_when_idle_and_away_for_a_while(self) -> None:
        store, alice = await self.store_with_alice(HASTY)
        here = self.connect((await cluster()).dsn)
        name = psycopg2.extensions.parse_dsn(self.dsn)["dbname"]
        here.execute(f"alter database {name} allow_connections false")
        self.terminate(here)
        await self.until(lambda: not store.available)
        for n in range(20):
            await self.refused(Busy, store.store_mail([mail(alice, n)]))
            await self.refused(Busy, store.delete_mail([(alice.device, n)]))
            await self.refused(Busy, store.mailbox(alice.device, [], 10))
            await deferLater(reactor, 0.02)
        self.assertFalse(store.available)
        here.execute(f"alter database {name} allow_connections true")
        await self.until(lambda: store.available)
        self.assertEqual(await store.store_mail([mail(alice, 1)]), [Stored.STORED])
        [waiting] = await store.mailbox(alice.device, [], 10)
        await store.delete_mail([(alice.device, waiting.message)])

    async def test_a_lock_that_is_held_ends_in_busy(self) -> None:
        store, alice = await self.store_with_alice(HASTY)
        lock = self.connect(self.dsn, autocommit=False)
        lock.execute("lock table messages, users")
        await self.refused(Busy, store.store_mail([mail(alice, 1)]))
        await self.refused(Busy, register(store, "bob"))
        lock.connection.rollback()
        await self.until(lambda: store.available)
        await register(store, "bob")
        self.assertEqual(await store.store_mail([mail(alice, 1)]), [Stored.STORED])

    async def test_a_stopped_backend_ends_in_busy_and_is_replaced(self) -> None:
        store, alice = await self.store_with_alice(HASTY)
        here = self.connect(self.dsn)
        here.execute("select pid from pg_stat_activity where application_name = 'fastchat mail writer'")
        [(pid,)] = here.fetchall()
        os.kill(pid, signal.SIGSTOP)
        self.addCleanup(os.kill, pid, signal.SIGCONT)
        await self.refused(Busy, store.store_mail([mail(alice, 1)]))
        await self.until(lambda: store.available)
        self.assertEqual(await store.store_mail([mail(alice, 2)]), [Stored.STORED])
        here.execute(
            "select pid from pg_stat_activity where application_name = 'fastchat mail writer' and pid <> %s", (pid,)
        )
        self.assertEqual(len(here.fetchall()), 1)

    async def test_waiting_for_a_connection_counts(self) -> None:
        store, _ = await self.store_with_alice(HASTY)
        lock = self.connect(self.dsn, autocommit=False)
        lock.execute("lock table users")
        calls = [self.assertFailure(Deferred.fromCoroutine(store.account("alice")), Busy) for _ in range(10)]
        await gatherResults(calls)
        lock.connection.rollback()
        await self.until(lambda: store.available)
        self.assertIsNotNone(await store.account("alice"))

    async def test_who_goes_away_stops_nothing(self) -> None:
        store, alice = await self.store_with_alice()
        lock = self.connect(self.dsn, autocommit=False)
        lock.execute("lock table messages")
        writing = Deferred.fromCoroutine(store.store_mail([mail(alice, 1)]))
        behind = Deferred.fromCoroutine(store.store_mail([mail(alice, 2)]))
        writing.cancel()
        await self.assertFailure(writing, CancelledError)
        lock.connection.rollback()
        self.assertEqual(await behind, [Stored.STORED])
        self.assertEqual([row.n for row in await store.mailbox(alice.device, [], 10)], [1, 2])

    async def test_what_is_refused_when_its_asker_has_gone_is_no_mistake(self) -> None:
        """A client whose registration took too long asks again, and the first one finds the name taken, or the other
        way round. Nothing is logged as a failure: that would fail this test."""
        store, _ = await self.store_with_alice()
        lock = self.connect(self.dsn, autocommit=False)
        lock.execute("lock table users")
        registering = Deferred.fromCoroutine(register(store, "alice", 2))
        registering.addTimeout(0.1, reactor)
        await self.assertFailure(registering, TimeoutError)
        lock.connection.rollback()
        self.assertIsNotNone(await store.account("alice"))
        await store.close()

    async def test_closing_lets_what_was_begun_finish(self) -> None:
        store, alice = await self.store_with_alice()
        lock = self.connect(self.dsn, autocommit=False)
        lock.execute("lock table messages")
        writing = Deferred.fromCoroutine(store.store_mail([mail(alice, 1)]))
        closing = Deferred.fromCoroutine(store.close())
        await self.refused(Busy, store.account("alice"))
        lock.connection.rollback()
        self.assertEqual(await writing, [Stored.STORED])
        await closing
        self.assertFalse(store.available)

    async def test_a_mistake_of_ours_is_not_called_busy(self) -> None:
        store, _ = await self.store_with_alice()
        await self.refused(psycopg2.DataError, store.device("not a device"))
        await self.refused(psycopg2.IntegrityError, store.add_invite(b"not 32 bytes", None, None))
        self.assertTrue(store.available)


class OpenTests(DatabaseTestCase):
    async def assert_one_line(self, dsn: str, *words: str) -> None:
        error = await self.refused(ConfigError, PostgresStore(dsn, HASTY, reactor).open())
        self.assertNotIn("\n", error.message)
        self.assertNotIn("sesame", error.message)
        for word in words:
            self.assertIn(word, error.message)

    async def test_an_unreachable_database_is_one_clear_line(self) -> None:
        dsn = "host=127.0.0.1 port=1 dbname=chat user=chat password=sesame"
        await self.assert_one_line(dsn, "127.0.0.1:1", "chat", "refused")
        await self.assert_one_line("postgresql://chat:sesame@127.0.0.1:1/chat", "127.0.0.1:1", "chat")
        await self.assert_one_line("host=/nowhere dbname=chat password=sesame", "/nowhere")

    async def test_what_is_no_dsn_is_one_clear_line(self) -> None:
        for dsn in ("sesame", "pass word=sesame", "postgresql://chat:sesame@[::1/chat"):
            await self.assert_one_line(dsn, "DSN")

    async def test_a_database_that_is_not_there(self) -> None:
        dsn = psycopg2.extensions.make_dsn((await cluster()).dsn, dbname="nowhere")
        await self.assert_one_line(dsn, "nowhere")


class PlanTests(DatabaseTestCase):
    async def test_a_full_mailbox_is_read_and_deleted_through_indexes(self) -> None:
        store, alice = await self.store_with_alice(Config(home=Path("unused"), limits=Limits(mailbox_share=1.0)))
        bob = await register(store, "bob")
        for start in range(0, 10_000, 500):
            await store.store_mail([mail(alice, n) for n in range(start, start + 500)] + [mail(bob, start)])
        taken = [row.message for row in await store.mailbox(alice.device, [], 500)]
        asked = {"device": alice.device, "in_flight": array(taken), "limit": 500, "enough": 2**20}
        pairs = {"devices": array([alice.device] * 50), "messages": array(taken[:50])}
        here = self.connect(with_settings(self.dsn, "plans", PLANNER))
        for statement in ("select", "analyze"):
            here.execute(statement)
            self.assertNotIn("Seq Scan", self.plan(here, query("mailbox"), asked))
            for part in query("delete_mail").split(";\n"):
                self.assertNotIn("Seq Scan on m", self.plan(here, part, pairs).replace("Seq Scan on mailbox_sizes", ""))

    def plan(self, cursor: Any, sql: str, parameters: Mapping[str, object]) -> str:
        cursor.execute("explain " + sql, parameters)
        return "\n".join(line for (line,) in cursor.fetchall())
