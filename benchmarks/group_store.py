"""`python -m benchmarks.group_store`: what it costs to store one message for 1,000 devices that are away, beside 1,000
messages for one device each; and to delete it as they come and fetch it.

The writer and the store of the server, in this process, on an embedded PostgreSQL in a temporary home. Both ways take
turns, round after round, so that what else the machine does falls on both. No session and no wire is part of it.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from itertools import count
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred
from twisted.internet.task import react

from benchmarks.accounts import Database, Device
from benchmarks.clients import make_body
from benchmarks.measurements import ENVELOPE
from benchmarks.server import Home, family_cpu
from fastchat.bus.local import LocalBus
from fastchat.config import Config, Limits
from fastchat.delivery.writer import MailRemover, MailWriter
from fastchat.errors import FastChatError
from fastchat.services.postgres import EmbeddedPostgres
from fastchat.store import Mail, Store, Stored
from fastchat.store.postgres import PostgresStore

DEVICES = 1_000
MESSAGES = 10
"""In a row, in each round."""
LIMITS = Limits(mailbox_messages=1_000_000, mailbox_bytes=10_000_000_000)


class Cost(NamedTuple):
    """Microseconds of CPU per recipient."""

    python: float
    postgres: float
    transactions: int


class Counted:
    """The store's writing, with its transactions counted."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.transactions = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def store_mail(self, batch: Sequence[Mail]) -> Sequence[Stored]:
        self.transactions += 1
        return await self._store.store_mail(batch)

    async def delete_mail(self, rows: Sequence[tuple[str, int]]) -> None:
        self.transactions += 1
        await self._store.delete_mail(rows)


class GroupStore:
    """A store with `DEVICES` accounts, and a writer over it."""

    def __init__(self, store: Store, postmaster: int, devices: Sequence[str], reactor: Any) -> None:
        self._store: Any = Counted(store)
        self._postmaster = postmaster
        self._devices = devices
        self._bodies = _bodies()
        self._numbers = count(1)
        bus = LocalBus()
        self._writer = MailWriter(
            self._store,
            bus,
            LIMITS.write_batch,
            LIMITS.write_batch_bytes,
            LIMITS.write_queue_bytes,
            reactor.seconds,
        )
        self._remover = MailRemover(self._store, reactor)

    async def stored(self, shared: bool) -> Cost:
        """`MESSAGES` to all devices, one after the other; or as many to each of them alone, all at once each time."""
        before = self._now()
        for _ in range(MESSAGES):
            order, n, body = next(self._writer.submissions), next(self._numbers), next(self._bodies)
            with self._writer.gathering() if shared else nullcontext():
                for device in self._devices:
                    if not shared:
                        order, n, body = next(self._writer.submissions), next(self._numbers), next(self._bodies)
                    mail = Mail(device, "user-0", self._devices[0], n, 0, body, order)
                    self._writer.put(mail, _settled)
            await self._writer.idle()
        return self._since(before)

    async def deleted(self) -> Cost:
        """Each device fetches and deletes what waits for it, one device after the other."""
        waiting = deque([(device, await self._store.mailbox(device, [], 500)) for device in self._devices])
        before = self._now()
        while waiting:
            device, page = waiting.popleft()
            done: Deferred[None] = Deferred()
            left = [len(page)]

            def removed(_: int, left: list[int] = left, done: Deferred[None] = done) -> None:
                left[0] -= 1
                if not left[0]:
                    done.callback(None)

            for row in page:
                self._remover.remove(device, row.message, removed)
            await done
        return self._since(before)

    def _now(self) -> tuple[float, float, int]:
        return time.process_time(), family_cpu(self._postmaster), self._store.transactions

    def _since(self, before: tuple[float, float, int]) -> Cost:
        python, postgres, transactions = (now - then for now, then in zip(self._now(), before, strict=True))
        recipients = MESSAGES * len(self._devices)
        return Cost(python / recipients * 1e6, postgres / recipients * 1e6, int(transactions))


def _bodies() -> Iterator[bytes]:
    body = bytes(make_body(ENVELOPE))
    while True:
        yield bytes(bytearray(body))


def _settled(error: FastChatError | None) -> None:
    if error is not None:
        raise error


async def measure(reactor: Any, rounds: int) -> None:
    with Home() as home:
        postgres = EmbeddedPostgres(home, reactor)
        await postgres.start()
        try:
            store = PostgresStore(postgres.dsn, Config(home=home, limits=LIMITS), reactor)
            await store.open()
            database = Database(postgres.dsn)
            devices = [Device(f"user-{number}") for number in range(DEVICES)]
            database.add(devices)
            assert postgres.pid is not None
            bench = GroupStore(store, postgres.pid, [device.id for device in devices], reactor)
            costs: dict[str, list[Cost]] = {}
            for _ in range(rounds):
                for what, shared in (("one message for 1,000", True), ("1,000 for one each", False)):
                    database.settle()
                    costs.setdefault(f"{what}: stored", []).append(await bench.stored(shared))
                    costs.setdefault(f"{what}: deleted", []).append(await bench.deleted())
            _show(costs)
            database.close()
            await store.close()
        finally:
            await postgres.stop()


def _show(costs: dict[str, list[Cost]]) -> None:
    print(f"{'us of CPU per recipient':34}{'Python':>8}{'PostgreSQL':>12}{'together':>10}   transactions for 1,000")
    for what, runs in costs.items():
        python, postgres = (statistics.median(run[column] for run in runs) for column in (0, 1))
        together = [run.python + run.postgres for run in runs]
        transactions = statistics.median(run.transactions for run in runs) / MESSAGES
        print(
            f"{what:34}{python:8.1f}{postgres:12.1f}{python + postgres:10.1f}   {transactions:g}"
            f"   ({min(together):.1f} to {max(together):.1f} in {len(runs)} rounds)"
        )
    load = ", ".join(f"{load:.1f}" for load in os.getloadavg())
    print(f"\n{os.cpu_count()} cores; load {load}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.group_store", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="of which the median is shown (default: 5)")
    rounds = parser.parse_args().rounds
    react(lambda reactor: Deferred.fromCoroutine(measure(reactor, rounds)))


if __name__ == "__main__":
    main()
