"""The network as a process of its own: how it starts, what it says, how it ends, and one line when it cannot start."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Mapping
from pathlib import Path

import psutil
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from fastchat.identity.invite import Invite
from tests.support.postgres import fresh_database

CHECKOUT = Path(__file__).parent.parent
TWISTD = Path(sys.executable).with_name("twistd")
PATIENCE = 120
"""Seconds after which a process that should have ended is a failure; nothing waits for it to pass."""


class StartupTest(TestCase):
    timeout = 300

    def setUp(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="fastchat-tests-"))
        self.folder.chmod(0o711)
        self.addCleanup(shutil.rmtree, self.folder)
        self.home = self.folder / "home"
        self.pid_file = self.folder / "twistd.pid"

    def environ(self, **more: str) -> dict[str, str]:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("FASTCHAT_")}
        return {**clean, "FASTCHAT_HOME": str(self.home), "FASTCHAT_PORT": "0", **more}

    def config(self, text: str) -> str:
        file = self.folder / "fastchat.toml"
        file.write_text(text)
        return str(file)

    def command(self, *arguments: str) -> list[str]:
        return [str(TWISTD), f"--pidfile={self.pid_file}", *arguments]

    def ran(self, environ: Mapping[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*(arguments or ("-ny", "fastchat.tac"))),
            cwd=CHECKOUT,
            env=environ,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )

    async def refused(self, environ: Mapping[str, str], *arguments: str) -> str:
        """Start it, expecting a refusal: answers its line, having checked that it is one line and nothing else."""
        ran = await deferToThread(self.ran, environ, *arguments)
        self.assertEqual(ran.returncode, 1, ran)
        self.assertEqual(ran.stdout, "")
        self.assertEqual(ran.stderr.count("\n"), 1, ran.stderr)
        self.assertTrue(ran.stderr.startswith("fastchat: "), ran.stderr)
        self.assertFalse(self.pid_file.exists())
        return ran.stderr

    def started(self, environ: Mapping[str, str], *arguments: str) -> tuple[subprocess.Popen[str], str]:
        """A process whose screenful has come, and the screenful."""
        process = subprocess.Popen(
            self.command(*(arguments or ("-ny", "fastchat.tac"))),
            cwd=CHECKOUT,
            env=environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.addCleanup(self.killed, process)
        assert process.stdout is not None
        screen = ""
        for line in process.stdout:
            screen += line
            if line.startswith("Ctrl-C"):
                break
        return process, screen

    def killed(self, process: subprocess.Popen[str]) -> None:
        if process.poll() is None:
            process.kill()
        process.communicate()

    def postmaster(self) -> int:
        return int((self.home / "postgres" / "data" / "postmaster.pid").read_text().splitlines()[0])

    # --- refusals ------------------------------------------------------------------------------------------------

    async def test_an_unknown_key(self) -> None:
        config = self.config("[limits]\nbacklogg = 1\n")
        for style in (("-ny", "fastchat.tac"), ("-y", "fastchat.tac"), ("-n", "fastchat"), ("fastchat",)):
            line = await self.refused(self.environ(FASTCHAT_CONFIG=config), *style)
            self.assertEqual(line, f"fastchat: {config}: unknown key limits.backlogg\n")

    async def test_a_busy_port(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            environ = self.environ(FASTCHAT_PORT=str(port if port < 65000 else port - 80))
            for style in (("-ny", "fastchat.tac"), ("-y", "fastchat.tac")):
                self.assertIn(f"port {port} on 127.0.0.1 is in use", await self.refused(environ, *style))

    async def test_data_of_another_major_version(self) -> None:
        data = self.home / "postgres" / "data"
        data.mkdir(parents=True)
        (data / "PG_VERSION").write_text("9\n")
        for style in (("-ny", "fastchat.tac"), ("-y", "fastchat.tac")):
            self.assertIn("this is data of PostgreSQL 9,", await self.refused(self.environ(), *style))

    async def test_a_database_that_does_not_answer(self) -> None:
        config = self.config('[database]\ndsn = "host=/nowhere user=me password=secret dbname=chat"\n')
        for style in (("-ny", "fastchat.tac"), ("-y", "fastchat.tac")):
            line = await self.refused(self.environ(FASTCHAT_CONFIG=config), *style)
            self.assertIn("database.dsn: PostgreSQL cannot be reached: ", line)
            self.assertNotIn("secret", line)

    async def test_a_home_that_cannot_be_written(self) -> None:
        self.home.write_text("a file")
        inside = self.environ(FASTCHAT_HOME=str(self.home / "inside"))
        self.assertIn("cannot be used as FASTCHAT_HOME", await self.refused(self.environ()))
        self.assertIn("cannot be used as FASTCHAT_HOME", await self.refused(inside, "-y", "fastchat.tac"))

    async def test_a_database_that_breaks_while_it_starts(self) -> None:
        """What cannot be seen before the reactor runs still ends in one line, and not in exit code 0."""
        process, _ = await deferToThread(self.started, self.environ())
        process.send_signal(signal.SIGINT)
        await deferToThread(process.communicate)
        (self.home / "postgres" / "data" / "global" / "pg_control").unlink()
        self.assertIn("PostgreSQL does not start: ", await self.refused(self.environ()))

    # --- a life --------------------------------------------------------------------------------------------------

    async def test_start_status_stop_and_start_again(self) -> None:
        process, screen = await deferToThread(self.started, self.environ())
        link = (self.home / "invite").read_text().strip()
        self.assertEqual(screen.count(link), 2)
        self.assertIn(f"fastchat join {link} --as alice", screen)
        self.assertIn("Only this machine can reach it", screen)
        self.assertIn(str(self.home), screen)
        operations = re.search(r"http://127\.0\.0\.1:\d+", screen)
        assert operations is not None
        self.assertEqual(await deferToThread(read, operations[0] + "/healthz"), b"ok\n")
        status = json.loads(await deferToThread(read, operations[0] + "/status"))
        self.assertEqual(
            (status["strategy"], status["database"], len(status["services"])), ("least-connections", "up", 5)
        )
        for port in [Invite.parse(link).port, *(service["port"] for service in status["services"])]:
            socket.create_connection(("127.0.0.1", port)).close()
        postmaster = self.postmaster()
        self.assertIn("another FastChat is running on this home", await deferToThread(self.second_start))
        process.send_signal(signal.SIGINT)
        _, errors = await deferToThread(process.communicate)
        self.assertEqual((process.returncode, errors), (0, ""))
        self.assertFalse(psutil.pid_exists(postmaster))
        self.assertFalse(self.pid_file.exists())

        again, _ = await deferToThread(self.started, self.environ())
        before, after = Invite.parse(link), Invite.parse((self.home / "invite").read_text())
        self.assertEqual((after.pin, after.log_key, after.token), (before.pin, before.log_key, before.token))
        again.send_signal(signal.SIGTERM)
        await deferToThread(again.communicate)
        self.assertFalse(self.pid_file.exists())

    def second_start(self) -> str:
        ran = subprocess.run(
            [str(TWISTD), f"--pidfile={self.folder / 'second.pid'}", "-ny", "fastchat.tac"],
            cwd=CHECKOUT,
            env=self.environ(),
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        self.assertEqual((ran.returncode, ran.stderr.count("\n")), (1, 1), ran.stderr)
        return ran.stderr

    async def test_killed_and_started_again(self) -> None:
        process, _ = await deferToThread(self.started, self.environ())
        orphan = self.postmaster()
        process.kill()
        await deferToThread(process.communicate)
        self.assertTrue(psutil.pid_exists(orphan))
        again, screen = await deferToThread(self.started, self.environ(), "-n", "fastchat")
        self.assertIn("FastChat is running", screen)
        self.assertNotEqual(self.postmaster(), orphan)
        again.send_signal(signal.SIGINT)
        await deferToThread(again.communicate)
        self.assertEqual(again.returncode, 0)

    async def test_a_database_of_ones_own(self) -> None:
        dsn = await fresh_database(self)
        config = self.config(f"services = 2\nstrategy = 'random'\n[database]\ndsn = {json.dumps(dsn)}\n")
        process, screen = await deferToThread(self.started, self.environ(FASTCHAT_CONFIG=config))
        self.assertIn("PostgreSQL at the configured DSN", screen)
        self.assertFalse((self.home / "postgres").exists())
        process.send_signal(signal.SIGINT)
        _, errors = await deferToThread(process.communicate)
        self.assertEqual((process.returncode, errors), (0, ""))

    async def test_the_log_is_closed_to_others_and_has_what_the_screen_has_not(self) -> None:
        process, screen = await deferToThread(self.started, self.environ())
        process.send_signal(signal.SIGINT)
        await deferToThread(process.communicate)
        log = self.home / "log" / "fastchat.log"
        self.assertEqual(log.stat().st_mode & 0o777, 0o600)
        self.assertIn("all services answer", log.read_text())
        self.assertNotIn("all services answer", screen)

    async def test_help(self) -> None:
        ran = await deferToThread(self.ran, self.environ(), "fastchat", "--help")
        self.assertEqual(ran.returncode, 0, ran.stderr)
        for name in ("FASTCHAT_HOME", "FASTCHAT_PORT", "FASTCHAT_CONFIG"):
            self.assertIn(name, ran.stdout)
        self.assertFalse(self.home.exists())


def read(url: str) -> bytes:
    with urllib.request.urlopen(url) as response:  # noqa: S310
        return bytes(response.read())
