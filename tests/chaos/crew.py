"""The workers as the driver sees them: processes with clients in them, to be killed and started again."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

from tests.chaos.orders import Command, Condition, Report, Setup
from tests.chaos.server import CHECKOUT

STOP_SECONDS = 30.0


class _Process(ProcessProtocol):
    def __init__(self, worker: Worker) -> None:
        self.over: Deferred[None] = Deferred()
        self._worker = worker
        self._rest = b""

    def outReceived(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._worker.heard(msgspec.json.decode(line, type=Report))

    def errReceived(self, data: bytes) -> None:
        with self._worker.errors.open("ab") as stream:
            stream.write(data)

    def processEnded(self, reason: Failure) -> None:
        end: Any = reason.value
        self._worker.ended(end.exitCode if end.exitCode is not None else -end.signal)
        self.over.callback(None)


class Worker:
    """One worker. `note` is told, in a line, what should not happen."""

    def __init__(self, setup: Setup, note: Callable[[str], None], reactor: Any) -> None:
        self.number = setup.number
        self.users = list(setup.keys)
        self.offline: set[str] = set()
        self.clients: dict[str, Condition] = {}
        """What the clients last said of themselves; empty while they are not there."""
        self.errors = Path(setup.directory) / f"worker-{setup.number}.err"
        self._talking = False
        self._gathers = False
        self._note = note
        self._reactor = reactor
        self._file = Path(setup.directory) / f"worker-{setup.number}.json"
        self._file.write_bytes(msgspec.json.encode(setup))
        self._process: _Process | None = None
        self._prepared: Deferred[None] = Deferred()
        self._stopped: Deferred[None] = Deferred()
        self._wanted = False
        self._started = False

    @property
    def pid(self) -> int:
        """Of its process, which must be running."""
        assert self._process is not None
        return int(self._process.transport.pid)  # type: ignore[union-attr]

    async def start(self) -> None:
        """Until its clients are there; those that are not `offline` connect by themselves."""
        self._wanted = True
        self._prepared = Deferred()
        process = self._process = _Process(self)
        command = [sys.executable, "-m", "tests.chaos.worker", str(self._file)]
        self._reactor.spawnProcess(process, command[0], command, env=dict(os.environ), path=str(CHECKOUT))
        await self._prepared
        self._started = True
        self._say(Command("start", users=sorted(self.offline), on=self._talking, gathers=self._gathers))

    async def kill(self) -> None:
        """Without a word."""
        self._wanted = False
        process = self._process
        if process is not None:
            self._signal(signal.SIGKILL)
            await process.over

    async def stop(self) -> None:
        """Cleanly: its vaults can be read then."""
        self._wanted = False
        process = self._process
        if process is None:
            return
        self._stopped = Deferred()
        self._say(Command("stop"))
        self._stopped.addTimeout(STOP_SECONDS, self._reactor)
        try:
            await self._stopped
        except Exception as error:
            self._note(f"worker {self.number} did not stop: {type(error).__name__}")
        self._signal(signal.SIGKILL)
        await process.over

    def talk(self, on: bool) -> None:
        self._talking = on
        self._say(Command("talk", on=on))

    def gather(self) -> None:
        """Its clients see to their groups from now on."""
        self._gathers = True
        self._say(Command("gather"))

    def send_offline(self, user: str) -> None:
        self.offline.add(user)
        self._say(Command("offline", user))

    def bring_online(self, user: str) -> None:
        self.offline.discard(user)
        self._say(Command("online", user))

    def deafen(self, user: str, seconds: float) -> None:
        self._say(Command("deafen", user, seconds=seconds))

    def freeze(self) -> None:
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    # --- for the process ---------------------------------------------------------------------------------------------

    def heard(self, report: Report) -> None:
        if report.prepared:
            self._prepared.callback(None)
        if report.clients:
            self.clients = report.clients
        if report.note:
            self._note(report.note)
        if report.stopped and not self._stopped.called:
            self._stopped.callback(None)

    def ended(self, code: int) -> None:
        self._process = None
        self._started = False
        self.clients = {}
        if not self._prepared.called:
            self._prepared.errback(RuntimeError(f"worker {self.number} ended with code {code}: {self._last_words()}"))
        elif self._wanted:
            self._note(f"worker {self.number} ended by itself, with code {code}: {self._last_words()}")

    def _last_words(self) -> str:
        return self.errors.read_text(errors="replace")[-300:].strip() if self.errors.exists() else ""

    def _say(self, command: Command) -> None:
        """Nothing, if it is not there: `start` says how its clients shall be."""
        if self._process is not None and self._started:
            transport: Any = self._process.transport
            transport.write(msgspec.json.encode(command) + b"\n")

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            transport: Any = self._process.transport
            try:
                transport.signalProcess(number.value)
            except ProcessExitedAlready:
                return


class Crew:
    """All workers."""

    def __init__(self, workers: list[Worker]) -> None:
        self.workers = workers

    def of(self, user: str) -> Worker:
        return next(worker for worker in self.workers if user in worker.users)

    @property
    def conditions(self) -> dict[str, Condition]:
        return {user: condition for worker in self.workers for user, condition in worker.clients.items()}

    @property
    def users(self) -> list[str]:
        return [user for worker in self.workers for user in worker.users]
