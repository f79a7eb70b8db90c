"""The connection that chunks are copied through, and its thread: a database that ends, hangs or stays away under it,
and a store that is closed meanwhile. Whatever happens, no thread and no descriptor is left."""

from __future__ import annotations

import socket
import sys
import threading
from pathlib import Path
from typing import Any

import psutil
import psycopg2
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.protocol import Factory, Protocol

from fastchat.config import Config
from fastchat.errors import Busy
from fastchat.store import ChunkOutcome
from fastchat.store.copying import CopyPool, _Connection
from fastchat.store.pools import DATABASE_AWAY
from fastchat.store.postgres import PostgresStore
from tests.support.chunks import NOW, QUOTA, A, chunk, prints, whole
from tests.support.postgres import cluster, fresh_database
from tests.test_store_postgres import HASTY, DatabaseTestCase

CONFIG = Config(home=Path("unused"))
STORED = ChunkOutcome.STORED
WRITER = "select pid from pg_stat_activity where application_name = 'fastchat chunk writer'"
WAITING = (
    "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
    " and application_name = 'fastchat chunk writer'"
)
END = "select pg_terminate_backend(pg_backend_pid())"
SOMEBODY_ELSES = "insert into attachment_chunks select number, 15, decode(repeat('00', 65536), 'hex') from attachments"


class CopyingTestCase(DatabaseTestCase):
    def threads(self) -> int:
        return sum(thread.name == "fastchat copying" for thread in threading.enumerate())

    async def writing(self, config: Config = CONFIG) -> PostgresStore:
        """A store in which an attachment of 16 chunks is begun."""
        store, _ = await self.store_with_alice(config)
        await store.begin_attachment(A, "alice", 16, QUOTA, NOW)
        self.here = self.connect(self.dsn)
        return store

    def writer(self) -> int:
        """The one backend that chunks are copied to."""
        self.here.execute(WRITER + " and datname = current_database()")
        [(pid,)] = self.here.fetchall()
        return int(pid)

    def stop(self, pid: int) -> psutil.Process:
        process = psutil.Process(pid)
        process.suspend()
        self.addCleanup(lambda: process.is_running() and process.resume())
        return process

    async def until_one_waits(self) -> None:
        def waits() -> bool:
            self.here.execute(WAITING)
            return bool(self.here.fetchone() == (1,))

        await self.until(waits)

    async def in_the_middle(self, store: PostgresStore) -> tuple[Deferred[Any], Any]:
        """A batch whose data the server has begun to take, and does not take any further: somebody else, who holds
        nothing, is just adding its last chunk."""
        other = self.connect(self.dsn, autocommit=False)
        other.execute(SOMEBODY_ELSES)
        storing = Deferred.fromCoroutine(store.store_chunks(whole(A, 16), NOW))
        await self.until_one_waits()
        return storing, other

    async def stores(self, store: PostgresStore) -> None:
        """All is well."""
        self.assertEqual(await store.store_chunks(whole(A, 16), NOW), [STORED] * 16)
        found = await store.chunks([(A, index) for index in range(16)])
        self.assertEqual(prints(found), prints([one.data for one in whole(A, 16)]))


class Away(CopyingTestCase):
    async def test_a_backend_that_is_killed_in_the_middle_of_the_data(self) -> None:
        # psycopg2 finds two errors at once, the server's and that it is gone, and prints that.
        self.patch(sys, "excepthook", lambda *_: None)
        store = await self.writing()
        storing, other = await self.in_the_middle(store)
        self.here.execute("select pg_terminate_backend(%s)", [self.writer()])
        await self.assertFailure(storing, Busy)
        self.assertFalse(store.available)
        other.connection.rollback()
        await self.until(lambda: store.available)
        self.assertEqual(await store.begin_attachment(A, "alice", 16, QUOTA, NOW), [(0, 16)])
        await self.stores(store)

    async def test_a_backend_that_is_stopped_in_the_middle_of_the_data(self) -> None:
        """The thread waits for room in a socket that nobody reads."""
        store = await self.writing(HASTY)
        storing, other = await self.in_the_middle(store)
        stopped = self.stop(self.writer())
        await self.assertFailure(storing, Busy)
        await self.until(lambda: store.available)
        await self.until(lambda: self.threads() == 1)
        other.connection.rollback()
        stopped.resume()
        await self.stores(store)

    async def test_closing_does_not_wait_for_a_backend_that_is_stopped(self) -> None:
        store = await self.writing(HASTY)
        self.stop(self.writer())
        storing = self.assertFailure(Deferred.fromCoroutine(store.store_chunks(whole(A, 16), NOW)), Busy)
        await store.close()
        await storing
        self.assertEqual(self.threads(), 0)

    async def test_one_that_is_idle_and_ends_is_noticed_and_replaced(self) -> None:
        store = await self.writing()
        first = self.writer()
        administrator = self.connect((await cluster()).dsn)
        name = psycopg2.extensions.parse_dsn(self.dsn)["dbname"]
        administrator.execute(f"alter database {name} allow_connections false")
        administrator.execute("select pg_terminate_backend(%s)", [first])
        await self.until(lambda: not store.available)
        for _ in range(20):
            await self.refused(Busy, store.store_chunks(whole(A, 16), NOW))
        self.assertFalse(await store.answers(5.0))
        administrator.execute(f"alter database {name} allow_connections true")
        await self.until(lambda: store.available)
        self.assertNotEqual(self.writer(), first)
        self.assertTrue(await store.answers(5.0))
        await self.stores(store)

    async def test_one_that_ends_sooner_than_the_news_of_it(self) -> None:
        store = await self.writing()
        for _ in range(3):
            [connection] = store._chunk_writer._idle
            assert isinstance(connection, _Connection)
            assert connection._wire is not None
            connection._wire._socket.shutdown(socket.SHUT_RDWR)
            await self.refused(Busy, store.store_chunks(whole(A, 16), NOW))
            await self.until(lambda: store.available)
        await self.stores(store)
        reactor.getReaders()  # raises if what is watched and what is known differ

    async def test_an_answer_that_does_not_come_is_missed_in_time(self) -> None:
        store = await self.writing()
        self.assertTrue(await store.answers(5.0))
        stopped = self.stop(self.writer())
        self.assertFalse(await store.answers(0.2))
        stopped.resume()
        self.assertTrue(await store.answers(5.0))

    async def test_a_mistake_of_ours_is_undone_and_not_called_busy(self) -> None:
        """Somebody who holds no attachment has added a chunk that was not there a moment ago."""
        store = await self.writing()
        backend = self.writer()
        storing, other = await self.in_the_middle(store)
        other.connection.commit()
        await self.assertFailure(storing, psycopg2.IntegrityError)
        self.assertEqual(await store.begin_attachment(A, "alice", 16, QUOTA, NOW), [(0, 15)])
        self.assertTrue(store.available)
        self.here.execute("update attachments set stored = 1")
        self.assertEqual(await store.store_chunks(whole(A, 16), NOW), [STORED] * 16)
        self.assertEqual(self.writer(), backend)


class Ends(CopyingTestCase):
    async def test_who_goes_away_stops_nothing(self) -> None:
        store = await self.writing()
        storing, other = await self.in_the_middle(store)
        behind = Deferred.fromCoroutine(store.store_chunks([chunk(A, 0)], NOW))
        storing.cancel()
        await self.assertFailure(storing, CancelledError)
        other.connection.rollback()
        self.assertEqual(await behind, [STORED])
        self.assertEqual(await store.begin_attachment(A, "alice", 16, QUOTA, NOW), [])

    async def test_closing_lets_what_was_begun_finish(self) -> None:
        store = await self.writing()
        storing, other = await self.in_the_middle(store)
        closing = Deferred.fromCoroutine(store.close())
        await self.refused(Busy, store.store_chunks(whole(A, 16), NOW))
        other.connection.rollback()
        self.assertEqual(await storing, [STORED] * 16)
        await closing
        self.assertFalse(store.available)
        self.assertEqual(self.threads(), 0)
        self.here.execute("select count(*) from attachment_chunks")
        self.assertEqual(self.here.fetchone(), (16,))

    async def test_nothing_is_left_of_connections_that_have_ended(self) -> None:
        dsn = await fresh_database(self)
        descriptors: list[int] = []
        pool = CopyPool("test", dsn, {}, 2, 5.0, 5.0, reactor)
        for _ in range(3):
            await pool.open()
            self.assertEqual(self.threads(), 2)
            for _ in range(2):
                await self.refused(Busy, pool.run(lambda session: session.run(END)))
            await self.until(lambda: pool.available)
            await pool.close()
            self.assertEqual(self.threads(), 0)
            descriptors.append(psutil.Process().num_fds())
        self.assertEqual(descriptors[1:], descriptors[:1] * 2)

    async def test_what_takes_a_connection_and_says_nothing_is_given_up(self) -> None:
        """Worth a second or two: only libpq's own deadline, in whole seconds, ends the thread then."""
        listening = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(Factory.forProtocol(Protocol))
        self.addCleanup(listening.stopListening)
        dsn = f"host=127.0.0.1 port={listening.getHost().port} dbname=x user=x"
        pool = CopyPool("test", dsn, {}, 1, 0.1, 5.0, reactor)
        await self.assertFailure(Deferred.fromCoroutine(pool.open()), *DATABASE_AWAY)
        self.assertEqual(self.threads(), 0)
