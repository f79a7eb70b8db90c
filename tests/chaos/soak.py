"""`python -m tests.chaos.soak`: a steady load for a long time, and what it leaves behind.

The network and the clients of `make chaos`, without faults and without the proxy: everybody talks, and one after the
other goes offline for a while, so that mailboxes are used. Memory, descriptors, tables and vaults are sampled; what
grows in the second half of the run beyond what the messages explain fails it. Exit code 0: nothing does, and the
history is clean. 1: something grows. 2: the history is not clean, or something happened that should not.

What a message explains: rows in its two people's vaults, for ever. Nothing else: what the server needs for it is gone
once it was received.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table
from twisted.internet.defer import Deferred, DeferredList, gatherResults
from twisted.internet.task import deferLater, react

from tests.chaos import checker
from tests.chaos.crew import Crew, Worker
from tests.chaos.orders import Setup
from tests.chaos.server import Server

CLEAN, GROWS, STRANGE = 0, 1, 2

SAMPLE_SECONDS = 5.0
AWAY_EVERY, AWAY_FOR = 4.0, 15.0
"""Seconds: so often a client goes offline, and for so long."""
JOIN_SECONDS = 120.0
QUIET_SECONDS = 120.0
PER_WORKER = 10

CONFIG = """
services = 5
[limits]
claims_per_second = 20.0
"""
"""As it comes, but that all clients may meet each other at once."""

MEMORY_SLACK = 3 * 2**20
MEMORY_RATIO = 1.03
"""A process may be so much larger at the end than in the middle: what an allocator keeps is not exact to the page."""
DESCRIPTORS_SLACK = 3
TABLES_SLACK = 2 * 2**20
TABLES_RATIO = 1.25
"""Dead rows wait for the database's vacuum, so tables breathe."""
VAULT_RATIO = 1.15
"""A message of the second half may take so much more room in the vaults than one of the first."""


@dataclass(frozen=True)
class Sample:
    """At one moment. Sizes in bytes; `said`: texts that the clients have put into their outboxes so far; `clients`: of
    all their processes together."""

    at: float
    said: int
    server: int
    descriptors: int
    clients: int
    client_descriptors: int
    tables: int
    vaults: int


@dataclass
class Soaked:
    """What a run came to. `rows`: in the tables of mail, at the very end; `idle`: descriptors of twistd with everybody
    there and nobody talking, before and after."""

    samples: list[Sample] = field(default_factory=list)
    history: checker.Report | None = None
    rows: dict[str, int] = field(default_factory=dict)
    idle: tuple[int, int] = (0, 0)
    notes: Counter[str] = field(default_factory=Counter)

    def growth(self) -> list[tuple[str, str, str, bool]]:
        """Of each thing: its name, in the middle, at the end, and whether that is too much."""
        middle, end = self._quarter(2), self._quarter(4)
        found = []
        for name, get in (("memory of twistd", _server), ("memory of the clients", _clients)):
            a, b = _median(middle, get), _median(end, get)
            found.append((name, _mib(a), _mib(b), b > a * MEMORY_RATIO + MEMORY_SLACK))
        before, after = self.idle
        found.append(("descriptors of twistd at rest", str(before), str(after), after > before + DESCRIPTORS_SLACK))
        a, b = _median(middle, _client_descriptors), _median(end, _client_descriptors)
        found.append(("descriptors of the clients", f"{a:g}", f"{b:g}", b > a + DESCRIPTORS_SLACK))
        a, b = _median(middle, _tables), _median(end, _tables)
        found.append(("tables", _mib(a), _mib(b), b > a * TABLES_RATIO + TABLES_SLACK))
        for name, rows in self.rows.items():
            found.append((f"rows of {name} at rest", "0", str(rows), rows > 0))
        start, half, last = self.samples[0], self.samples[len(self.samples) // 2], self.samples[-1]
        a, b = _per_message(start, half), _per_message(half, last)
        found.append(("bytes of vaults for a message", f"{a:.0f}", f"{b:.0f}", b > a * VAULT_RATIO))
        return found

    @property
    def code(self) -> int:
        """The exit code."""
        if self.history is None or not self.history.clean or self.notes:
            return STRANGE
        return GROWS if any(is_too_much for *_, is_too_much in self.growth()) else CLEAN

    def _quarter(self, number: int) -> Sequence[Sample]:
        """The samples of a quarter of the run, from 1."""
        size = len(self.samples) // 4
        return self.samples[(number - 1) * size : number * size]


class Soak:
    """One run. `say` is given lines for whoever watches."""

    def __init__(self, seconds: float, clients: int, seed: int, say: Callable[[str], None], reactor: Any) -> None:
        self.result = Soaked()
        self._seconds = seconds
        self._seed = seed
        self._say = say
        self._reactor = reactor
        self._directory = Path(tempfile.mkdtemp(prefix="fastchat-soak-"))
        self._directory.chmod(0o711)
        self._keys = {f"user{number:02}": os.urandom(32) for number in range(clients)}
        self._server = Server(self._directory / "home", "", self._note, reactor, CONFIG)
        self._crew = Crew([])
        self._began = 0.0

    async def run(self) -> Soaked:
        """Everything. `stop` must be called after it, whatever it raises."""
        await self._server.start()
        self._hire()
        await _all(worker.start() for worker in self._crew.workers)
        if not await self._until(self._all_ready, JOIN_SECONDS):
            self._note(f"not everybody could join within {JOIN_SECONDS:g} s")
        before = self._descriptors()
        for worker in self._crew.workers:
            worker.talk(True)
        await self._watch()
        for worker in self._crew.workers:
            worker.talk(False)
        if not await self._until(self._quiet, QUIET_SECONDS):
            self._note(f"something was still under way after {QUIET_SECONDS:g} s")
        self.result.idle = before, self._descriptors()
        for table in ("mailboxes", "messages"):
            [(count,)] = await self._server.rows(f"select count(*) from {table}")  # noqa: S608
            self.result.rows[table] = count
        await _all(worker.stop() for worker in self._crew.workers)
        where = self._directory
        self.result.history = checker.check(
            [
                checker.Person(user, where / f"{user}.vault", key, where / f"{user}.journal")
                for user, key in self._keys.items()
            ]
        )
        await self._server.stop()
        return self.result

    async def stop(self) -> None:
        """Nothing is left running; of a run that found nothing, nothing on the disk either."""
        ends = [Deferred.fromCoroutine(worker.kill()) for worker in self._crew.workers]
        ends.append(Deferred.fromCoroutine(self._server.kill()))
        await DeferredList(ends, consumeErrors=True)
        await self._server.left_behind()
        if self.result.code != CLEAN:
            self._say(f"everything is kept in {self._directory}")
            return
        postgres = self._directory / "home" / "postgres"
        if postgres.is_symlink():
            shutil.rmtree(postgres.resolve(), ignore_errors=True)
        shutil.rmtree(self._directory, ignore_errors=True)

    def _hire(self) -> None:
        users = list(self._keys)
        for number, at in enumerate(range(0, len(users), PER_WORKER)):
            setup = Setup(
                number=number,
                seed=self._seed,
                keys={user: self._keys[user].hex() for user in users[at : at + PER_WORKER]},
                everybody=users,
                link=self._server.link,
                ports={port: port for port in self._server.ports},
                directory=str(self._directory),
                mutant="",
            )
            self._crew.workers.append(Worker(setup, self._note, self._reactor))

    async def _watch(self) -> None:
        """Sample until the time is over, while one client after the other is away."""
        self._began = self._reactor.seconds()
        users = cycle(self._keys)
        away = 0.0
        told = 0.0
        while (now := self._elapsed()) < self._seconds:
            if now >= away:
                away = now + AWAY_EVERY
                user = next(users)
                self._crew.of(user).send_offline(user)
                self._reactor.callLater(AWAY_FOR, self._crew.of(user).bring_online, user)
            if now >= SAMPLE_SECONDS * (len(self.result.samples) + 1):
                self.result.samples.append(await self._sample())
            if now >= told and self.result.samples:
                told = now + 30.0
                last = self.result.samples[-1]
                self._say(
                    f"{now:5.0f} s: {last.said} said, twistd {_mib(last.server)}, clients {_mib(last.clients)}, tables "
                    f"{_mib(last.tables)}, vaults {_mib(last.vaults)}, {last.descriptors} descriptors"
                )
            await deferLater(self._reactor, 0.5)
        await deferLater(self._reactor, AWAY_FOR + 1)  # until all are back

    async def _sample(self) -> Sample:
        workers = [psutil.Process(worker.pid) for worker in self._crew.workers]
        [(tables,)] = await self._server.rows(
            "select coalesce(sum(pg_total_relation_size(relid)), 0)::bigint from pg_stat_user_tables"
        )
        return Sample(
            at=self._elapsed(),
            said=sum(one.said for one in self._crew.conditions.values()),
            server=psutil.Process(self._server.pid).memory_info().rss,
            descriptors=self._descriptors(),
            clients=sum(process.memory_info().rss for process in workers),
            client_descriptors=sum(process.num_fds() for process in workers),
            tables=tables,
            vaults=sum(file.stat().st_size for file in self._directory.glob("*.vault")),
        )

    def _descriptors(self) -> int:
        return psutil.Process(self._server.pid).num_fds()

    def _all_ready(self) -> bool:
        conditions = self._crew.conditions
        return len(conditions) == len(self._keys) and all(one.ready for one in conditions.values())

    async def _quiet(self) -> bool:
        """Twice in a row: that a message has come is told a moment later, with a message of its own."""
        for _ in range(2):
            waiting = any(one.waiting for one in self._crew.conditions.values())
            if not self._all_ready() or waiting or await self._server.waiting() != 0:
                return False
            await deferLater(self._reactor, 2.0)
        return True

    async def _until(self, condition: Callable[[], bool | Awaitable[bool]], seconds: float) -> bool:
        end = self._reactor.seconds() + seconds
        while self._reactor.seconds() < end:
            answer = condition()
            if answer if isinstance(answer, bool) else await answer:
                return True
            await deferLater(self._reactor, 0.5)
        return False

    def _elapsed(self) -> float:
        return float(self._reactor.seconds() - self._began)

    def _note(self, what: str) -> None:
        self.result.notes[what] += 1
        self._say(what)


async def _all(coroutines: Any) -> None:
    await gatherResults([Deferred.fromCoroutine(coroutine) for coroutine in coroutines], consumeErrors=True)


def _server(sample: Sample) -> float:
    return sample.server


def _clients(sample: Sample) -> float:
    return sample.clients


def _client_descriptors(sample: Sample) -> float:
    return sample.client_descriptors


def _tables(sample: Sample) -> float:
    return sample.tables


def _median(samples: Sequence[Sample], get: Callable[[Sample], float]) -> float:
    return statistics.median(map(get, samples))


def _per_message(earlier: Sample, later: Sample) -> float:
    return (later.vaults - earlier.vaults) / max(1, later.said - earlier.said)


def _mib(size: float) -> str:
    return f"{size / 2**20:.1f} MiB"


def show(result: Soaked) -> None:
    console = Console(highlight=False, soft_wrap=True)
    table = Table("", "second quarter", "last quarter", "", title="soak")
    for name, middle, end, is_too_much in result.growth():
        table.add_row(name, middle, end, "grows" if is_too_much else "")
    console.print(table)
    print(result.history)
    for what, times in result.notes.most_common():
        print(f"{times} times: {what}")


async def _run(reactor: Any, arguments: argparse.Namespace) -> None:
    soak = Soak(arguments.seconds, arguments.clients, arguments.seed, lambda line: print(line, flush=True), reactor)
    # Also when it is interrupted: nothing may be left running.
    reactor.addSystemEventTrigger("before", "shutdown", lambda: Deferred.fromCoroutine(soak.stop()))
    try:
        result = await soak.run()
    finally:
        await soak.stop()
    show(result)
    if result.code:
        raise SystemExit(result.code)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.soak", description="A steady load for a long time.")
    parser.add_argument("--seconds", type=float, default=1800.0)
    parser.add_argument("--clients", type=int, default=40)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args(sys.argv[1:])
    react(lambda reactor: Deferred.fromCoroutine(_run(reactor, arguments)))


if __name__ == "__main__":
    main()
