"""The server under measurement: `twistd -ny fastchat.tac` in a process of its own, on a temporary home, and what the
kernel says that it used. It knows no wire and no load."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, NamedTuple

from psycopg2.extensions import make_dsn

CHECKOUT = Path(__file__).resolve().parents[1]
HOST = "127.0.0.1"
SERVICES = 5
OPERATIONS_OFFSET = 80
START_SECONDS = 120.0
STOP_SECONDS = 15.0
EAGER = -10
TICKS = os.sysconf("SC_CLK_TCK")

CONFIG = f"""
services = {SERVICES}
[limits]
sends_per_second = 1e9
sends_burst = 1_000_000_000
requests_per_second = 1e9
requests_burst = 1_000_000_000
group_acts_per_second = 1e9
group_acts_burst = 1_000_000_000
dead_seconds = 3600.0
mailbox_messages = 1_000_000
mailbox_bytes = 10_000_000_000
"""
"""Only what would refuse the load is raised."""


class Cpu(NamedTuple):
    """Seconds of user and system time since their start: of twistd, and of PostgreSQL with all its processes."""

    twistd: float
    postgres: float

    def since(self, earlier: Cpu) -> Cpu:
        return Cpu(self.twistd - earlier.twistd, self.postgres - earlier.postgres)


class Server:
    """One server on `home`, which must exist, with further `limits` as lines of TOML. It is stopped by leaving the
    `with` block; the home stays."""

    def __init__(self, home: Path, limits: str = "") -> None:
        self.port = _free_block()
        self.seconds_to_link = 0.0
        """From the process's start to the printed link."""
        config = home / "fastchat.toml"
        config.write_text(CONFIG + limits)
        self._home = home
        environ = {
            **os.environ,
            "FASTCHAT_HOME": str(home),
            "FASTCHAT_PORT": str(self.port),
            "FASTCHAT_CONFIG": str(config),
        }
        twistd = Path(sys.executable).with_name("twistd")
        began = time.monotonic()
        self._process = subprocess.Popen(  # noqa: S603
            [str(twistd), f"--pidfile={home / 'twistd.pid'}", "-ny", str(CHECKOUT / "fastchat.tac")],
            cwd=CHECKOUT,
            env=environ,
            stdout=subprocess.PIPE,
            text=True,
        )
        # What never says its link must not keep the benchmark for ever: without it, its output ends.
        too_late = threading.Timer(START_SECONDS, self._process.kill)
        too_late.daemon = True
        too_late.start()
        try:
            self._await_link()
        finally:
            too_late.cancel()
        self.seconds_to_link = time.monotonic() - began
        self._postmaster, socket_folder = self._read_postmaster()
        self.dsn = make_dsn(host=socket_folder, user="fastchat", dbname="postgres")

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """As Ctrl-C does; PostgreSQL goes with it."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
                raise RuntimeError(f"the server did not stop within {STOP_SECONDS:g} s") from None

    # --- what it is doing ----------------------------------------------------------------------------------------

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def service_ports(self) -> range:
        return range(self.port + 1, self.port + 1 + SERVICES)

    def cpu(self) -> Cpu:
        """Used until now. A backend that has ended has been waited for by the postmaster, and counts there."""
        user, system, _, _ = _times(self.pid)
        return Cpu(user + system, family_cpu(self._postmaster))

    def take_precedence(self) -> None:
        """Let neither this process, nor twistd, nor PostgreSQL wait for what else runs on this machine (Linux, as
        root). What runs beside a server is not what is measured."""
        for pid, priority in ((self.pid, 10), (os.getpid(), 11)):
            os.sched_setscheduler(pid, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(priority))
        for pid in (self._postmaster, *_children(self._postmaster)):
            os.setpriority(os.PRIO_PROCESS, pid, EAGER)

    def memory(self) -> int:
        """Resident bytes of twistd."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            name, _, value = line.partition(":")
            if name == "VmRSS":
                return int(value.split()[0]) * 1024
        raise RuntimeError("the server has no memory: it has ended")

    def totals(self) -> tuple[int, int, int]:
        """Sessions now, messages accepted and messages stored since the start, of all services."""
        connection = HTTPConnection(HOST, self.port + OPERATIONS_OFFSET, timeout=30)
        try:
            connection.request("GET", "/status")
            services: list[dict[str, Any]] = json.loads(connection.getresponse().read())["services"]
        finally:
            connection.close()
        sessions, accepted, stored = (
            sum(int(service[what]) for service in services) for what in ("sessions", "accepted", "stored")
        )
        return sessions, accepted, stored

    # --- starting ------------------------------------------------------------------------------------------------

    def _await_link(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if "fastchat://" in line:
                return
        self._process.kill()
        self._process.wait()
        raise RuntimeError("the server did not start; what it said is above")

    def _read_postmaster(self) -> tuple[int, str]:
        # postmaster.pid: the process in its first line, the folder of its socket in its fifth.
        lines = (self._home / "postgres" / "data" / "postmaster.pid").read_text().splitlines()
        return int(lines[0]), lines[4]


class Home:
    """A temporary home, and all that a server leaves there or elsewhere because of it."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="fastchat-bench-"))

    def __enter__(self) -> Path:
        return self.path

    def __exit__(self, *_: object) -> None:
        # Under root PostgreSQL's data may lie elsewhere, behind a link: where its user can reach it.
        postgres = self.path / "postgres"
        if postgres.is_symlink():
            shutil.rmtree(postgres.resolve(), ignore_errors=True)
        shutil.rmtree(self.path, ignore_errors=True)


def family_cpu(pid: int) -> float:
    """Seconds of user and system time of a process and all its children, those that have ended included."""
    return sum(_times(pid)) + sum(sum(_times(child)[:2]) for child in _children(pid))


def _times(pid: int) -> tuple[float, float, float, float]:
    """Seconds: user, system, and the same of ended children that were waited for."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return 0.0, 0.0, 0.0, 0.0
    # The second field, the program's name, may hold anything but ends with the last parenthesis.
    fields = text.rpartition(")")[2].split()
    user, system, children_user, children_system = (int(field) / TICKS for field in fields[11:15])
    return user, system, children_user, children_system


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _free_block() -> int:
    """The first port of a free block, below the range from which the kernel takes the clients' own."""
    while True:
        base = random.randrange(12_000, 30_000, 100)  # noqa: S311
        if all(_is_free(base + offset) for offset in (*range(SERVICES + 1), OPERATIONS_OFFSET)):
            return base


def _is_free(port: int) -> bool:
    with socket.socket() as attempt:
        attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            attempt.bind((HOST, port))
        except OSError:
            return False
        return True
