"""The network under chaos as the driver sees it: the twistd process and its PostgreSQL, to be killed and started again.

Like an operator's supervisor it starts a twistd again that ended unasked, and notes that it did. It plans nothing.
"""

from __future__ import annotations

import os
import random
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import psycopg2
from psycopg2.extensions import make_dsn
from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.python.failure import Failure

CHECKOUT = Path(__file__).resolve().parents[2]
SERVICES = 5
OPERATIONS_OFFSET = 80
CLAIM_OFFSET = 99
START_SECONDS = 90.0
STOP_SECONDS = 15.0
AGAIN_SECONDS = 1.0
"""Before a twistd that ended unasked is started again."""

CONFIG = f"""
services = {SERVICES}
[database]
connect_seconds = 3.0
statement_seconds = 4.0
[limits]
ping_seconds = 3.0
dead_seconds = 10.0
tcp_user_timeout = 6.0
slow_reader_seconds = 8.0
window_messages = 16
window_bytes = 65536
mailbox_page = 40
sends_per_second = 100.0
sends_burst = 200
claims_per_second = 20.0
"""
"""Small enough that a run of a minute crosses every deadline, fills every window and turns pages."""


class _Twistd(ProcessProtocol):
    def __init__(self, log: Path, ended: Callable[[int], None]) -> None:
        self.running: Deferred[None] = Deferred()
        self.over: Deferred[int] = Deferred()
        self._said = b""
        self._log = log
        self._ended = ended

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        with self._log.open("ab") as stream:
            stream.write(data)
        if not self.running.called:
            self._said += data
            if b"Ctrl-C stops it." in self._said:
                self.running.callback(None)

    def processEnded(self, reason: Failure) -> None:
        end: Any = reason.value
        code = end.exitCode if end.exitCode is not None else -end.signal
        if not self.running.called:
            self.running.errback(RuntimeError(f"it ended with code {code}: {self._said[-300:].decode().strip()}"))
        self._ended(code)
        self.over.callback(code)


class Server:
    """The network on `home`. `note` is told, in a line, what happened that nobody asked for."""

    def __init__(
        self, home: Path, mutant: str, note: Callable[[str], None], reactor: Any, settings: str = CONFIG
    ) -> None:
        self.home = home
        self.port, self._claim = free_block()
        self._reactor = reactor
        self._note = note
        self._process: _Twistd | None = None
        self._wanted = False
        self._again: Any = None
        config = home.parent / "fastchat.toml"
        config.write_text(settings)
        self._environ = {
            **os.environ,
            "FASTCHAT_HOME": str(home),
            "FASTCHAT_PORT": str(self.port),
            "FASTCHAT_CONFIG": str(config),
            "FASTCHAT_CHAOS_MUTANT": mutant,
        }

    @property
    def ports(self) -> list[int]:
        """The balancer's, then the services'."""
        return [self.port + offset for offset in range(SERVICES + 1)]

    @property
    def link(self) -> str:
        """The invite."""
        return (self.home / "invite").read_text().strip()

    @property
    def pid(self) -> int:
        """Of twistd, which must be running."""
        assert self._process is not None
        return int(self._process.transport.pid)  # type: ignore[union-attr]

    @property
    def is_up(self) -> bool:
        return self._process is not None and self._process.running.called

    # --- the process -------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Until it runs. Raises `RuntimeError` with its last words if it does not start."""
        self._wanted = True
        process = self._process = _Twistd(self.home.parent / "twistd.out", self._ended)
        command = [str(Path(sys.executable).with_name("twistd")), f"--pidfile={self.home.parent / 'twistd.pid'}"]
        command += ["-ny", str(CHECKOUT / "tests" / "chaos" / "network.tac")]
        self._reactor.spawnProcess(process, command[0], command, env=self._environ, path=str(CHECKOUT))
        late = self._reactor.callLater(START_SECONDS, self._signal, signal.SIGKILL)
        try:
            await process.running
        finally:
            if late.active():
                late.cancel()

    async def kill(self) -> None:
        """Without a word."""
        await self._end(signal.SIGKILL)

    async def stop(self) -> None:
        """As a supervisor stops it."""
        code = await self._end(signal.SIGTERM)
        if code not in (0, None):
            self._note(f"twistd ended with code {code} when it was asked to stop")

    async def _end(self, number: signal.Signals) -> int | None:
        self._wanted = False
        if self._again is not None:
            self._again.cancel()
            self._again = None
        process = self._process
        if process is None:
            return None
        self._signal(number)
        if number is signal.SIGTERM:
            self._signal(signal.SIGCONT)
        late = self._reactor.callLater(STOP_SECONDS, self._too_late)
        process.running.addErrback(lambda _: None)
        code: int = await process.over
        if late.active():
            late.cancel()
        return code

    def _too_late(self) -> None:
        self._note(f"twistd did not end within {STOP_SECONDS:g} s")
        self._signal(signal.SIGKILL)

    def freeze(self) -> None:
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def say(self, line: str) -> None:
        """To its `Control`."""
        if self._process is not None:
            transport: Any = self._process.transport
            transport.write(line.encode() + b"\n")

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            transport: Any = self._process.transport
            try:
                transport.signalProcess(number.value)
            except ProcessExitedAlready:
                return

    def _ended(self, code: int) -> None:
        self._process = None
        if self._wanted:
            self._note(f"twistd ended by itself, with code {code}")
            self._again = self._reactor.callLater(AGAIN_SECONDS, self._start_again)

    def _start_again(self) -> None:
        self._again = None
        Deferred.fromCoroutine(self.start()).addErrback(
            lambda failure: self._note(f"twistd did not start: {failure.getErrorMessage()}")
        )

    # --- its database ------------------------------------------------------------------------------------------------

    @property
    def postmaster(self) -> int | None:
        return None if not (lines := self._pid_file()) else int(lines[0])

    def _pid_file(self) -> list[str]:
        try:
            lines = (self.home / "postgres" / "data" / "postmaster.pid").read_text().splitlines()
        except OSError:
            return []
        return lines if len(lines) >= 8 and lines[7].strip() == "ready" else []

    async def rows(self, sql: str) -> list[Any]:
        """What the database answers. Raises `psycopg2.Error` if it does not."""
        lines = self._pid_file()
        if not lines:
            raise psycopg2.OperationalError("there is no database now")
        return await deferToThread(_rows, lines[4], sql)

    async def backends(self) -> list[int]:
        """The processes that serve twistd's connections; none while there is no database."""
        try:
            rows = await self.rows(
                "select pid from pg_stat_activity where application_name like 'fastchat %'"
                " order by application_name, pid"
            )
        except psycopg2.Error:
            return []
        return [pid for (pid,) in rows]

    async def waiting(self) -> int | None:
        """Rows in all mailboxes; None if the database does not answer."""
        try:
            [(count,)] = await self.rows("select count(*) from mailboxes")
        except psycopg2.Error:
            return None
        return int(count)

    async def dump_mailboxes(self, file: Path) -> None:
        """Who still has mail waiting, a line for each message."""
        try:
            rows = await self.rows(
                "select d.user_name, b.device, m.user_name, m.device, m.n, b.message, b.size"
                " from mailboxes b join messages m on m.id = b.message join devices d on d.id = b.device"
                " order by b.device, b.message"
            )
        except psycopg2.Error as error:
            rows = [(f"the mailboxes cannot be read: {error}",)]
        file.write_text("".join("\t".join(map(str, row)) + "\n" for row in rows))

    async def left_behind(self) -> None:
        """End what a killed twistd may have left: its PostgreSQL."""
        self._claim.close()
        pid = self.postmaster
        data = str((self.home / "postgres" / "data").resolve())
        if pid is None or not _works_in(pid, data):
            return
        for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
            signal_process(pid, number)
            for _ in range(30):
                if not _works_in(pid, data):
                    return
                await deferLater(self._reactor, 0.1)


def signal_process(pid: int, number: signal.Signals) -> None:
    """As `kill`; a process that is gone already is not an error."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def _works_in(pid: int, folder: str) -> bool:
    try:
        process = psutil.Process(pid)
        return process.status() != psutil.STATUS_ZOMBIE and bool(process.cwd() == folder)
    except psutil.Error:
        return False


def _rows(socket_folder: str, sql: str) -> list[Any]:
    dsn = make_dsn(
        host=socket_folder, user="fastchat", dbname="postgres", connect_timeout=5, options="-c statement_timeout=5000"
    )
    connection = psycopg2.connect(dsn)
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(sql)
            return cursor.fetchall()
    finally:
        connection.close()


def free_block() -> tuple[int, socket.socket]:
    """The first port of a free block below the range from which the kernel takes clients' own: a network must find its
    ports again when it starts again. While the socket is open, no other run takes the block: not even while the network
    is down, and all of it looks free."""
    while True:
        base = random.randrange(12_000, 30_000, 100)
        claim = socket.socket()
        try:
            claim.bind(("127.0.0.1", base + CLAIM_OFFSET))
        except OSError:
            claim.close()
            continue
        if all(_is_free(base + offset) for offset in (*range(SERVICES + 1), OPERATIONS_OFFSET)):
            return base, claim
        claim.close()


def _is_free(port: int) -> bool:
    with socket.socket() as attempt:
        attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            attempt.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
