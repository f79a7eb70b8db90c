"""The loads, each a function from a running server to rows of the table. Everything that is counted is counted on
both sides: a message that went the wrong way, or a login that failed, ends the benchmark instead of flattering it."""

from __future__ import annotations

import statistics
import time
from collections import deque
from collections.abc import Sequence
from itertools import count, cycle
from typing import NamedTuple

from benchmarks.accounts import Database, Device
from benchmarks.clients import Client, Loop, Placed, make_body
from benchmarks.server import Cpu, Server

SHORT = 300
ENVELOPE = 1741
"""Characters of a body on the wire: a short one, and 1.7 KiB, the size of what people really send."""
PAIRS = 50
IN_FLIGHT = 32
IDLE = 1_000
STORED = 10_000
WARM_SECONDS = 1.0

_numbers = count(1)


class Row(NamedTuple):
    """One line of the table; costs in the unit that `what` or `note` names, None where there is none."""

    what: str
    rate: str
    unit: str = ""
    twistd: float | None = None
    postgres: float | None = None
    note: str = ""


class Bench:
    """A running server, its database, and 100 accounts that have logged in once."""

    def __init__(self, server: Server, seconds: float, runs: int, precedence: bool = False) -> None:
        self.server = server
        self.seconds = seconds
        self.runs = runs
        self.precedence = precedence
        self.loop = Loop()
        self.database = Database(server.dsn)
        self.devices = self.add_accounts(2 * PAIRS)
        self.log_out(self.log_in(self.devices))

    def close(self) -> None:
        self.database.close()

    def add_accounts(self, number: int) -> list[Device]:
        devices = [Device(f"user-{next(_numbers)}") for _ in range(number)]
        self.database.add(devices)
        self.database.settle()
        return devices

    # --- clients -------------------------------------------------------------------------------------------------

    def log_in(self, devices: Sequence[Device], at_once: int = 100) -> list[Client]:
        """All of them, spread over the services in turn."""
        ports = cycle(self.server.service_ports)
        clients: list[Client] = []
        for start in range(0, len(devices), at_once):
            clients += [Client(self.loop, next(ports), device) for device in devices[start : start + at_once]]
            self.loop.run_until(lambda: all(client.ready for client in clients))  # noqa: B023
        return clients

    def log_out(self, clients: Sequence[Client]) -> None:
        self.loop.close(clients)
        give_up = time.monotonic() + 30
        while self.server.totals()[0]:
            if time.monotonic() > give_up:
                raise RuntimeError("sessions do not end")
            time.sleep(0.02)

    def _pairs(self) -> list[tuple[Client, Client]]:
        # Neighbours in the round of services: never on the same one.
        clients = self.log_in(self.devices)
        # `ready` comes before the (empty) mailbox is read, and until then messages are stored.
        self.loop.run(WARM_SECONDS)
        return list(zip(clients[::2], clients[1::2], strict=True))

    def stored_since(self, before: int) -> str:
        """Says whether messages took the way over the mailbox, where none should."""
        stored = self.server.totals()[2] - before
        return f"; {stored:,} were stored!" if stored else ""

    # --- 1 and 2: one to one -------------------------------------------------------------------------------------

    def express(self, size: int) -> Row:
        """`PAIRS` senders with `IN_FLIGHT` messages on their way each."""
        body = make_body(size)
        pairs = self._pairs()
        stored = self.server.totals()[2]
        flowing = [True]

        for sender, recipient in pairs:

            def refill(accepted: int, sender: Client = sender, to: Device = recipient.device) -> None:
                if flowing[0]:
                    sender.send(to, body, accepted)

            sender.on_accepted = refill
            sender.send(recipient.device, body, IN_FLIGHT)
        self.loop.run(WARM_SECONDS)
        runs = []
        for _ in range(self.runs):
            before, cpu, began = _accepted(pairs), self.server.cpu(), time.monotonic()
            self.loop.run(self.seconds)
            used, elapsed, accepted = self.server.cpu().since(cpu), time.monotonic() - began, _accepted(pairs) - before
            runs.append((accepted / elapsed, used.twistd / accepted, used.postgres / accepted))
        flowing[0] = False
        self._await_all(pairs)
        note = self.stored_since(stored)
        self.log_out([client for pair in pairs for client in pair])
        rate, twistd, postgres = _medians(runs)
        return Row(
            f"one to one, {size} B", f"{rate:,.0f} msg/s", "us", twistd * 1e6, postgres * 1e6, _spread(runs) + note
        )

    def latency(self, size: int, rate: float) -> list[Row]:
        """The pairs take turns, so that `rate` messages leave in a second, whatever comes back."""
        body = make_body(size)
        pairs = self._pairs()
        stored = self.server.totals()[2]
        delivered: list[float] = []
        accepted: list[float] = []
        now = time.perf_counter
        waiting: list[tuple[deque[float], deque[float]]] = []
        for sender, recipient in pairs:
            for_message: deque[float] = deque()
            for_accept: deque[float] = deque()
            waiting.append((for_message, for_accept))

            def take(count: int, queue: deque[float] = for_message, taken: list[float] = delivered) -> None:
                then = now()
                taken.extend(then - queue.popleft() for _ in range(count))

            def take_accept(count: int, queue: deque[float] = for_accept, taken: list[float] = accepted) -> None:
                then = now()
                taken.extend(then - queue.popleft() for _ in range(count))

            recipient.on_messages = take
            sender.on_accepted = take_accept
        turns = cycle(zip(pairs, waiting, strict=True))
        cpu, began, due = self.server.cpu(), now(), now()
        total = int(rate * self.seconds * self.runs)
        for _ in range(total):
            due += 1 / rate
            while (left := due - now()) > 0:
                self.loop.turn(left)
            (sender, recipient), queues = next(turns)
            for queue in queues:
                queue.append(now())
            sender.send(recipient.device, body)
        elapsed = now() - began
        self._await_all(pairs)
        used = self.server.cpu().since(cpu)
        note = self.stored_since(stored)
        self.log_out([client for pair in pairs for client in pair])
        what = f"at {rate:g} msg/s, {size} B"
        cost = (used.twistd / total * 1e6, used.postgres / total * 1e6)
        return [
            Row(
                f"{what}: to the recipient", _percentiles(delivered), "us", *cost, f"{total / elapsed:,.0f} msg/s{note}"
            ),
            Row(f"{what}: to the accept", _percentiles(accepted)),
        ]

    def _await_all(self, pairs: Sequence[tuple[Client, Client]]) -> None:
        """Until all that was sent is accepted and received."""
        self.loop.run_until(
            lambda: all(sender.accepted == sender.sent == recipient.messages for sender, recipient in pairs)
        )

    # --- 3: logins -----------------------------------------------------------------------------------------------

    def logins(self, through_balancer: bool) -> Row:
        """All devices at the same time; they have logged in before."""
        number = len(self.devices)
        runs = []
        for _ in range(2 * self.runs):
            cpu, began = self.server.cpu(), time.monotonic()
            clients: list[Client] = []
            if through_balancer:
                for device in self.devices:

                    def then(port: int, lease: str, device: Device = device) -> None:
                        clients.append(Client(self.loop, port, device, lease))  # noqa: B023

                    Placed(self.loop, self.server.port, then)
            else:
                ports = cycle(self.server.service_ports)
                clients += [Client(self.loop, next(ports), device) for device in self.devices]
            self.loop.run_until(lambda: len(clients) == number and all(client.ready for client in clients))  # noqa: B023
            elapsed = time.monotonic() - began
            self.loop.run(0.2)  # what the server still does after `ready` is part of a login
            used = self.server.cpu().since(cpu)
            runs.append((elapsed, used.twistd / number, used.postgres / number))
            self.log_out(clients)
        elapsed, twistd, postgres = _medians(runs)
        way = "balancer and service" if through_balancer else "service only"
        return Row(f"{number} logins at once, {way}", f"{elapsed:.2f} s for all", "ms", twistd * 1e3, postgres * 1e3)

    # --- 4: offline ----------------------------------------------------------------------------------------------

    def offline(self, size: int) -> list[Row]:
        """`PAIRS` senders write to one device that is away; then it comes and fetches all of it."""
        body = make_body(size)
        away, senders = self.devices[0], self.devices[1 : 1 + PAIRS]
        stores, drains = [], []
        for _ in range(self.runs):
            clients = self.log_in(senders)
            stored = self.server.totals()[2]
            left = [STORED - IN_FLIGHT * len(clients)]
            cpu, began = self.server.cpu(), time.monotonic()
            for client in clients:

                def refill(accepted: int, client: Client = client, left: list[int] = left) -> None:
                    more = min(accepted, left[0])
                    if more:
                        left[0] -= more
                        client.send(away, body, more)

                client.on_accepted = refill
                client.send(away, body, IN_FLIGHT)
            self.loop.run_until(lambda: sum(client.accepted for client in clients) == STORED)  # noqa: B023
            stores.append(_per_message(self.server.cpu().since(cpu), time.monotonic() - began, STORED))
            if self.server.totals()[2] - stored != STORED or self.database.waiting(away) != STORED:
                raise RuntimeError("what was accepted is not in the mailbox")
            self.log_out(clients)

            cpu, began = self.server.cpu(), time.monotonic()
            client = Client(self.loop, self.server.service_ports[0], away)
            self.loop.run_until(lambda: client.messages == STORED)  # noqa: B023
            elapsed = time.monotonic() - began
            # The deletions that follow are paid for by the same messages.
            while self.database.waiting(away):
                self.loop.run(0.05)
            drains.append(_per_message(self.server.cpu().since(cpu), elapsed, STORED))
            self.log_out([client])
        rows = []
        for what, runs in (("stored for someone offline", stores), ("drained by one client", drains)):
            rate, twistd, postgres = _medians(runs)
            note = _spread(runs)
            rows.append(Row(f"{what}, {size} B", f"{rate:,.0f} msg/s", "us", twistd * 1e6, postgres * 1e6, note))
        return rows

    # --- 5: memory -----------------------------------------------------------------------------------------------

    def idle(self) -> Row:
        """What twistd grows by when `IDLE` devices come and stay, on top of a hundred that are there."""
        devices = self.add_accounts(IDLE)
        here = self.log_in(self.devices)
        self.loop.run(0.5)
        before = self.server.memory()
        clients = self.log_in(devices)
        self.loop.run(2.0)
        grown = self.server.memory() - before
        self.log_out(here + clients)
        return Row(f"{IDLE:,} idle sessions", f"{grown / IDLE / 1024:.1f} KiB each")


def _accepted(pairs: Sequence[tuple[Client, Client]]) -> int:
    return sum(sender.accepted for sender, _ in pairs)


def _per_message(used: Cpu, elapsed: float, messages: int) -> tuple[float, float, float]:
    return messages / elapsed, used.twistd / messages, used.postgres / messages


def _medians(runs: Sequence[tuple[float, float, float]]) -> tuple[float, float, float]:
    first, second, third = (statistics.median(column) for column in zip(*runs, strict=True))
    return first, second, third


def _spread(runs: Sequence[tuple[float, float, float]]) -> str:
    together = [(twistd + postgres) * 1e6 for _, twistd, postgres in runs]
    return f"{min(together):.1f} to {max(together):.1f} in {len(runs)} runs"


def _percentiles(seconds: Sequence[float]) -> str:
    hundredths = statistics.quantiles(seconds, n=100)
    return f"p50 {hundredths[49] * 1e3:.2f}, p99 {hundredths[98] * 1e3:.2f} ms"
