"""The real thing: a network on real ports over a PostgreSQL of its own that is killed, stopped, frozen, or loses its
backends, while real clients talk. Nothing is restarted but the database, and that by its own supervisor. Worth its
seconds: deadlines and what the kernel does to a stopped process are seen in nothing less."""

from __future__ import annotations

import os
import signal
import tempfile
from pathlib import Path
from random import Random
from typing import Any

import psutil
import psycopg2
from psycopg2.extensions import make_dsn
from twisted.internet import reactor as installed
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.python.filepath import FilePath
from twisted.trial.unittest import TestCase
from twisted.web.client import Agent, readBody

from fastchat.config import Config, Database, Limits
from fastchat.errors import ConfigError
from fastchat.identity.invite import Invite
from fastchat.protocols import wire
from fastchat.services.postgres import USER
from fastchat.store.postgres import PostgresStore
from fastchat_client.dial import dial
from fastchat_client.events import Disconnected, State
from tests.support.running import Caller, Member, RunningNetwork, until

reactor: Any = installed


class AwayCase(TestCase):
    timeout = 300

    async def begin(self, **database: Any) -> None:
        home = Path(tempfile.mkdtemp(prefix="fastchat-away-"))
        home.chmod(0o711)  # the database's user must be able to pass
        self.addCleanup(FilePath(str(home)).remove)
        limits = Limits(sends_per_second=1000.0, sends_burst=1000)
        config = Config(home=home, port=0, services=1, database=Database(**database), limits=limits)
        self.network = RunningNetwork(config, reactor)
        self.addCleanup(self.network.service.stopService)
        self.network.service.startService()
        self.network.running = await self.network._started
        self.network.invite = Invite.parse(self.network.running.link)
        self.data = Path(self.network.running.database.rpartition(" in ")[2])
        store = self.network.service._store
        assert isinstance(store, PostgresStore)
        self.store = store

    async def member(self, name: str) -> Member:
        member = Member(self.network, name, Random(name))
        self.addCleanup(lambda: Deferred.fromCoroutine(member.stop()))
        member.start()
        await member.connected()
        return member

    async def people(self) -> tuple[Member, Member, Member]:
        """Alice and bob, who are online, and carol, who has left; alice has written to both."""
        alice, bob, carol = [await self.member(name) for name in ("alice", "bob", "carol")]
        for other in (bob, carol):
            alice.send(other.user, "before")
            other.send("alice", "before")
            await self.hear(other, alice, "before")
            await self.hear(alice, other, "before")
        await carol.stop()
        await until(reactor, lambda: sum(self.network.sessions) == 2)
        return alice, bob, carol

    async def hear(self, hearer: Member, speaker: Member, last: str) -> None:
        await until(reactor, lambda: hearer.texts[speaker.user][-1:] == [last])

    async def talk(self, one: Member, other: Member, about: str) -> None:
        """Word for word: the next one only when this one is there."""
        for number in range(5):
            for speaker, hearer in ((one, other), (other, one)):
                speaker.send(hearer.user, f"{about} {number}")
                await self.hear(hearer, speaker, f"{about} {number}")

    def assert_heard(self, hearer: Member, speaker: Member, *abouts: str) -> None:
        """All of it, once, in order."""
        texts = ["before", *(f"{about} {number}" for about in abouts for number in range(5))]
        self.assertEqual(hearer.texts[speaker.user], texts)

    def postmaster(self) -> psutil.Process:
        return psutil.Process(int((self.data / "postmaster.pid").read_text().splitlines()[0]))

    def freeze(self) -> None:
        """SIGSTOP for all of PostgreSQL."""
        postmaster = self.postmaster()
        self.frozen = [postmaster, *postmaster.children()]
        self.addCleanup(self.thaw)
        for process in self.frozen:
            process.suspend()

    def thaw(self) -> None:
        frozen, self.frozen = self.frozen, []
        for process in frozen:
            if process.is_running():
                process.resume()

    async def sql(self, statement: str) -> list[tuple[Any, ...]]:
        lines = (self.data / "postmaster.pid").read_text().splitlines()
        return await deferToThread(_execute, make_dsn(host=lines[4], user=USER, dbname="postgres"), statement)

    async def health(self) -> tuple[int, bytes]:
        url = f"http://127.0.0.1:{self.network.running.operations}/healthz"
        response = await Agent(reactor).request(b"GET", url.encode())
        return response.code, await readBody(response)

    async def says(self, caller: Caller) -> Any:
        """What a login of this device is answered with."""
        service, _ = await caller.place()
        line = await dial(reactor, service.host, service.port, self.network.invite.pin)
        self.addCleanup(line.close)
        welcome = await caller.ask(line, wire.Hello(1, 1, ""))
        return await caller.ask(line, caller.device.login(line.binding.exporter, welcome.challenge))

    def assert_undisturbed(self, *members: Member) -> None:
        for member in members:
            self.assertEqual([event for event in member.events if isinstance(event, Disconnected)], [])

    async def accepted(self, member: Member) -> None:
        await until(reactor, lambda: member.vault.waiting() == 0)


class Online(AwayCase):
    async def test_nothing_is_written_for_people_who_are_online(self) -> None:
        await self.begin()
        alice, bob, _ = await self.people()
        await self.accepted(alice)
        written = (
            "select (select sum(n_tup_ins + n_tup_upd + n_tup_del) from pg_stat_user_tables"
            " where relname in ('messages', 'mailboxes', 'mailbox_sizes')), (select count(*) from messages)"
        )
        await deferLater(reactor, 2.0)  # PostgreSQL's sessions tell what they have done once a second
        before = await self.sql(written)
        stored = sum(service.stored for service in self.network.status.services)
        await self.talk(alice, bob, "online")
        await self.accepted(alice)
        await deferLater(reactor, 2.0)
        self.assertEqual(await self.sql(written), before)
        self.assertEqual(sum(service.stored for service in self.network.status.services), stored)
        self.assertGreater(before[0][0], 0, "what was written for carol is counted")


class Away(AwayCase):
    async def test_frozen(self) -> None:
        """SIGSTOP: connections stay, and nothing answers."""
        await self.begin(statement_seconds=2.0, connect_seconds=1.0)
        alice, bob, carol = await self.people()
        seen, unseen = await self._callers()
        self.freeze()
        await self.talk(alice, bob, "frozen")
        late = [alice.send("carol", f"frozen {number}") for number in range(5)]
        ready = await self.says(seen)
        self.assertIsInstance(ready, wire.Ready, "a device that was seen since the start")
        self.assertIsNone(ready.mailbox)
        refused = await self.says(unseen)
        self.assertEqual((refused.code, refused.retry_after), ("busy", 2.0), "one that was not")
        lanes = alice.core._parts.outbox._lanes
        await until(reactor, lambda: bool(lanes))
        await self.talk(alice, bob, "still frozen")
        self.assertEqual({alice.states[one] for one in late}, {State.WAITING})
        self.assertEqual(await self.health(), (503, b"the database does not answer\n"))
        assert alice.connection._line is not None
        self.thaw()
        await self.accepted(alice)
        await until(reactor, lambda: self.store.available)
        self.assertEqual((await self.health())[0], 200)
        self.assert_undisturbed(alice, bob)
        carol.start()
        await self.hear(carol, alice, "frozen 4")
        self.assert_heard(carol, alice, "frozen")
        for one, other in ((alice, bob), (bob, alice)):
            self.assert_heard(one, other, "frozen", "still frozen")

    async def test_a_health_check_does_not_wait_for_the_deadline_of_a_statement(self) -> None:
        await self.begin(statement_seconds=120.0)
        self.assertEqual((await self.health())[0], 200)
        self.freeze()
        self.assertEqual((await self.health())[0], 503)
        self.assertTrue(self.store.available, "no deadline was missed yet")
        self.thaw()
        await until(reactor, lambda: not self.store._general._askers)
        self.assertEqual((await self.health())[0], 200)

    async def test_killed_stopped_and_cut_off_in_the_middle_of_batches(self) -> None:
        await self.begin(statement_seconds=3.0, connect_seconds=1.0)
        alice, bob, carol = await self.people()
        abouts = []
        for number in (signal.SIGKILL, signal.SIGINT, signal.SIGQUIT, None):
            about = "cut off" if number is None else number.name
            abouts.append(about)
            for text in range(3):
                alice.send("carol", f"{about} {text}")
            if number is None:
                await self.sql("select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid()")
            else:
                os.kill(self.postmaster().pid, number)
            for text in (3, 4):
                alice.send("carol", f"{about} {text}")
            await self.talk(alice, bob, about)
            await self.accepted(alice)
            await until(reactor, lambda: self.store.available)
        self.assertEqual((await self.health())[0], 200)
        self.assert_undisturbed(alice, bob)
        carol.start()
        await self.hear(carol, alice, f"{abouts[-1]} 4")
        self.assert_heard(carol, alice, *abouts)
        for one, other in ((alice, bob), (bob, alice)):
            self.assert_heard(one, other, *abouts)

    async def test_one_backend_is_frozen(self) -> None:
        """The one that writes mail: it is replaced, and what it had is written again."""
        await self.begin(statement_seconds=2.0)
        alice, bob, carol = await self.people()
        [(pid,)] = await self.sql("select pid from pg_stat_activity where application_name = 'fastchat mail writer'")
        self.frozen = [psutil.Process(pid)]
        self.addCleanup(self.thaw)
        self.frozen[0].suspend()
        for number in range(5):
            alice.send("carol", f"frozen {number}")
        await self.talk(alice, bob, "frozen")
        await self.accepted(alice)
        self.thaw()
        carol.start()
        await self.hear(carol, alice, "frozen 4")
        self.assert_heard(carol, alice, "frozen")
        self.assert_undisturbed(alice, bob)

    async def _callers(self) -> tuple[Caller, Caller]:
        dsn = make_dsn(host=(self.data / "postmaster.pid").read_text().splitlines()[4], user=USER, dbname="postgres")
        self.network.config = Config(
            home=self.network.config.home, port=0, services=1, database=Database(dsn=dsn), limits=Limits()
        )
        seen, unseen = await self.network.add_callers(["seen", "unseen"])
        await seen.login()
        await seen.logout()
        return seen, unseen


class Silent(TestCase):
    timeout = 60

    async def test_what_takes_a_connection_and_says_nothing_is_given_up(self) -> None:
        listening = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(Factory.forProtocol(_Silent))
        self.addCleanup(listening.stopListening)
        config = Config(home=Path("unused"), database=Database(connect_seconds=0.3))
        store = PostgresStore(f"host=127.0.0.1 port={listening.getHost().port} dbname=x user=x", config, reactor)
        await self.assertFailure(Deferred.fromCoroutine(store.open()), ConfigError)
        self.assertFalse(store.available)
        await until(reactor, lambda: not _Silent.open)


class _Silent(Protocol):
    open = 0

    def connectionMade(self) -> None:
        _Silent.open += 1

    def connectionLost(self, reason: Any = None) -> None:
        _Silent.open -= 1


def _execute(dsn: str, statement: str) -> list[tuple[Any, ...]]:
    connection = psycopg2.connect(dsn)
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchall()
    finally:
        connection.close()
