"""What people who are logged in notice of a flood or of somebody who never reads: latency with and without it, in
windows that take turns, and the server's memory before, during and after. The attackers are another process
(`attackers`); here pairs talk, and a clock is read."""

from __future__ import annotations

import json
import os
import select
import statistics
import subprocess
import sys
import time
from bisect import bisect
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle
from typing import NamedTuple

from benchmarks.clients import Client, Loop, make_body
from benchmarks.measurements import SHORT, Bench, Row
from benchmarks.pauses import Pauses
from benchmarks.server import CHECKOUT, EAGER, SERVICES, Server

RATE = 200.0
"""Messages a second between the pairs that are measured: each of them sends at less than half of its limit."""
PAIRS = 20
QUIET_SECONDS = 6.0
ATTACK_SECONDS = 10.0
"""At least the time that a login may take, so that those that say nothing are thrown out within it."""
SETTLE_SECONDS = 1.0
SAMPLE_SECONDS = 0.2


class Window(NamedTuple):
    """What was measured in one window of time."""

    latencies: Sequence[float]
    """Seconds from the send to the recipient."""
    left_out: int
    """Messages that were on their way while the machine stood still."""
    peak: int
    """Resident bytes of the server, the most that were seen."""
    cpu: float
    """Seconds of twistd's CPU time in each second."""
    postgres: float


class Talk:
    """Pairs that talk at a steady rate, all the time."""

    def __init__(
        self, server: Server, loop: Loop, pairs: Sequence[tuple[Client, Client]], pauses: Pauses | None
    ) -> None:
        self._server = server
        self._loop = loop
        self._pauses = pauses
        self._body = make_body(SHORT)
        self._trips: list[tuple[float, float]] = []
        """When each was sent, and when it came."""
        self._pairs = pairs
        self._queues: list[deque[float]] = [deque() for _ in pairs]
        self._due = time.perf_counter()
        for (_, recipient), queue in zip(pairs, self._queues, strict=True):

            def take(count: int, queue: deque[float] = queue) -> None:
                now = time.perf_counter()
                self._trips.extend((queue.popleft(), now) for _ in range(count))

            recipient.on_messages = take
        self._turns = cycle(zip(pairs, self._queues, strict=True))

    def window(self, seconds: float) -> Window:
        self._trips = []
        peak, sampled = 0, 0.0
        now = time.perf_counter
        self._due = began = now()
        cpu = self._server.cpu()
        while self._due < began + seconds:
            self._due += 1 / RATE
            while (left := self._due - now()) > 0:
                self._loop.turn(left)
            (sender, recipient), queue = next(self._turns)
            # From the moment in which it was due: what the load itself could not send in time is a wait as well.
            queue.append(self._due)
            sender.send(recipient.device, self._body)
            if now() - sampled > SAMPLE_SECONDS:
                sampled = now()
                peak = max(peak, self._server.memory())
        elapsed = now() - began
        used = self._server.cpu().since(cpu)
        self._loop.run_until(lambda: not any(self._queues))
        pauses = self._pauses.all() if self._pauses else []
        latencies = [came - sent for sent, came in _undisturbed(self._trips, pauses)]
        left_out = len(self._trips) - len(latencies)
        return Window(latencies, left_out, peak, used.twistd / elapsed, used.postgres / elapsed)


class Attackers:
    """The other process, which is ready to attack once this is made."""

    def __init__(self, name: str, server: Server, precedence: bool) -> None:
        self._process = subprocess.Popen(  # noqa: S603
            [sys.executable, "-m", "benchmarks.attackers", name, str(server.port), str(SERVICES), server.dsn],
            cwd=CHECKOUT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        if precedence:
            os.setpriority(os.PRIO_PROCESS, self._process.pid, EAGER)
        self.done: dict[str, int] = {}

    def _say(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def hear(self, loop: Loop) -> str:
        """The next line; meanwhile the loop goes on."""
        assert self._process.stdout is not None
        while not select.select([self._process.stdout], [], [], 0)[0]:
            loop.turn(0.01)
        if line := self._process.stdout.readline():
            return line
        raise RuntimeError("the attackers have died")

    def go(self) -> None:
        self._say("go")

    def stop(self, loop: Loop) -> None:
        self._say("stop")
        self.done = json.loads(self.hear(loop))
        self._process.wait()

    def kill(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()


@contextmanager
def _talking(bench: Bench) -> Iterator[Talk]:
    clients = bench.log_in(bench.devices[: 2 * PAIRS])
    bench.loop.run(1.0)
    pauses = Pauses() if bench.precedence else None
    try:
        yield Talk(bench.server, bench.loop, list(zip(clients[::2], clients[1::2], strict=True)), pauses)
    finally:
        if pauses:
            pauses.stop()
    bench.log_out(clients)


def attack(bench: Bench, name: str) -> list[Row]:
    """Quiet and attacked windows in turn, `bench.runs` of each; then the memory once it is over."""
    server, loop = bench.server, bench.loop
    quiet: list[Window] = []
    attacked: list[Window] = []
    done: dict[str, int] = {}
    with _talking(bench) as talk:
        talk.window(2.0)
        before = server.memory()
        for _ in range(bench.runs):
            attackers = Attackers(name, server, bench.precedence)
            try:
                attackers.hear(loop)
                quiet.append(talk.window(QUIET_SECONDS))
                attackers.go()
                attacked.append(talk.window(ATTACK_SECONDS))
                attackers.stop(loop)
            finally:
                attackers.kill()
            for what, number in attackers.done.items():
                done[what] = done.get(what, 0) + number
            loop.run(SETTLE_SECONDS)
        quiet.append(talk.window(QUIET_SECONDS))
        after = server.memory()
    return _rows(name, quiet, attacked, done, before, after)


def _rows(
    name: str, quiet: Sequence[Window], attacked: Sequence[Window], done: dict[str, int], before: int, after: int
) -> list[Row]:
    without, with_it = _pooled(quiet), _pooled(attacked)
    ratios = [_p99(one.latencies) / _p99(other.latencies) for one, other in zip(attacked, quiet, strict=False)]
    peak = max(window.peak for window in attacked)
    did = ", ".join(f"{number:,} {what}" for what, number in done.items() if number)
    cpu = statistics.mean(window.cpu for window in attacked) - statistics.mean(window.cpu for window in quiet)
    postgres = statistics.mean(window.postgres for window in attacked) - statistics.mean(
        window.postgres for window in quiet
    )
    each = ", ".join(f"{ratio:.2f}" for ratio in ratios)
    compared = f"p99 x {_p99(with_it) / _p99(without):.2f}, by turns {each}; {_numbers(attacked)}"
    return [
        Row(f"{name}: without it", _figures(without), note=_numbers(quiet)),
        Row(f"{name}: with it", _figures(with_it), note=compared),
        Row(
            f"{name}: memory",
            f"{_mib(before)}, {_mib(peak)}, {_mib(after)} MiB",
            note=f"before, at most, after: {(after - before) / before:+.1%}",
        ),
        Row(f"{name}: cost", f"{cpu:.0%} + {postgres:.0%} of a core", note=did),
    ]


def _undisturbed(trips: Sequence[tuple[float, float]], pauses: list[tuple[float, float]]) -> list[tuple[float, float]]:
    begins = sorted(began for began, _ in pauses)
    ends = sorted(ended for _, ended in pauses)
    # A trip meets no pause if all that began before it came had ended before it was sent.
    return [(sent, came) for sent, came in trips if bisect(begins, came) == bisect(ends, sent)]


def _numbers(windows: Sequence[Window]) -> str:
    left_out = sum(window.left_out for window in windows)
    return f"{sum(len(window.latencies) for window in windows):,} messages" + (
        f", {left_out:,} left out" if left_out else ""
    )


def _pooled(windows: Sequence[Window]) -> list[float]:
    return [latency for window in windows for latency in window.latencies]


def _p99(seconds: Sequence[float]) -> float:
    return statistics.quantiles(seconds, n=100)[98]


def _figures(seconds: Sequence[float]) -> str:
    hundredths = statistics.quantiles(seconds, n=100)
    return f"p50 {hundredths[49] * 1e3:.2f}, p99 {hundredths[98] * 1e3:.2f}, most {max(seconds) * 1e3:.0f} ms"


def _mib(size: int) -> str:
    return f"{size / 1048576:.1f}"
