"""What can go wrong, each a row of the table `FAULTS`: its name, how often, what it does, and how it heals.

A fault is a coroutine: it breaks something, waits with `Run.pause`, which ends early when the run's faults are over,
and mends what it broke, whatever happens. Faults of one `place` follow each other, those of different places overlap.
The plan, which faults when, and all that a fault draws (targets, times) follow from the seed.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Protocol

import psycopg2

from tests.chaos.crew import Crew, Worker
from tests.chaos.proxy import Link, Proxy, Rule
from tests.chaos.server import SERVICES, Server, signal_process


class Run(Protocol):
    """What faults need of the driver."""

    server: Server
    proxy: Proxy
    crew: Crew

    async def pause(self, seconds: float) -> None:
        """So long, or until the faults are over."""

    def note(self, what: str) -> None: ...


Break = Callable[[Run, Random], Coroutine[Any, Any, bool]]
"""Answers whether there was anything to break."""


@dataclass(frozen=True)
class Fault:
    """`weight`: how many times it is in the bag from which faults are drawn."""

    name: str
    place: str
    weight: int
    does: str
    healed: str
    act: Break


@dataclass(frozen=True)
class Planned:
    """`at`: seconds after the beginning. `seed`: of what the fault draws."""

    at: float
    fault: Fault
    seed: str


def plan(seed: int, seconds: float, every: float, weights: Mapping[str, int]) -> Iterator[Planned]:
    """The faults of a run of `seconds`, one `every` so many on average. `weights`: others than the table's, by name.
    They are drawn from a bag until it is empty, and then from a new one: none is left out for long."""
    random = Random(f"{seed} plan")
    bag: list[Fault] = []
    at, number = random.expovariate(1 / every), 0
    while at < seconds:
        if not bag:
            bag = [fault for fault in FAULTS for _ in range(weights.get(fault.name, fault.weight))]
            random.shuffle(bag)
        yield Planned(at, bag.pop(), f"{seed} {number}")
        at += random.expovariate(1 / every)
        number += 1


# --- the network's processes ---------------------------------------------------------------------------------------


async def kill_twistd(run: Run, random: Random) -> bool:
    dark = random.uniform(0.1, 3.0)
    await run.server.kill()
    try:
        await run.pause(dark)
    finally:
        await run.server.start()
    return True


async def restart_twistd(run: Run, random: Random) -> bool:
    await run.server.stop()
    await run.server.start()
    return True


async def freeze_twistd(run: Run, random: Random) -> bool:
    seconds = random.uniform(1.0, 8.0)
    run.server.freeze()
    try:
        await run.pause(seconds)
    finally:
        run.server.thaw()
    return True


async def service_dies(run: Run, random: Random) -> bool:
    name, known, seconds = f"chat-{random.randint(1, SERVICES)}", random.randint(0, 1), random.uniform(1.0, 10.0)
    run.server.say(f"die {name} {known}")
    try:
        await run.pause(seconds)
    finally:
        run.server.say(f"revive {name}")
    return True


# --- the database --------------------------------------------------------------------------------------------------


async def kill_postgres(run: Run, random: Random) -> bool:
    pid = run.server.postmaster
    if pid is None:
        return False
    signal_process(pid, signal.SIGKILL)
    await run.pause(1.0)
    return True


async def terminate_backends(run: Run, random: Random) -> bool:
    share = random.choice((0.2, 0.5, 1.0))
    backends = [pid for pid in await run.server.backends() if random.random() < share]
    if not backends:
        return False
    try:
        await run.server.rows(f"select pg_terminate_backend(pid) from unnest(array{backends}) as pid")  # noqa: S608
    except psycopg2.Error:
        return False
    return True


async def freeze_backend(run: Run, random: Random) -> bool:
    seconds = random.choice((random.uniform(0.5, 3.5), random.uniform(4.0, 15.0)))
    backends = await run.server.backends()
    if not backends:
        return False
    stopped = backends if random.random() < 0.4 else [random.choice(backends)]
    for pid in stopped:
        signal_process(pid, signal.SIGSTOP)
    try:
        await run.pause(seconds)
    finally:
        for pid in stopped:
            signal_process(pid, signal.SIGCONT)
    return True


# --- the wires -----------------------------------------------------------------------------------------------------


def _some_wires(run: Run, random: Random) -> Callable[[Link], bool]:
    """All to one port of the network, all of one worker, those of one worker to one port, or a third of all."""
    port, worker = random.choice(run.server.ports), random.choice(run.crew.workers).number
    salt = random.random()
    kinds: Sequence[Callable[[Link], bool]] = (
        lambda link: link.port == port,
        lambda link: link.worker == worker,
        lambda link: (link.port, link.worker) == (port, worker),
        lambda link: Random(f"{salt} {link.number}").random() < 0.33,
    )
    return random.choice(kinds)


async def delay(run: Run, random: Random) -> bool:
    rule = Rule(_some_wires(run, random), seconds=random.choice((0.05, 0.2, 0.5, 1.0, 2.5)))
    seconds = random.uniform(2.0, 10.0)
    run.proxy.add(rule)
    try:
        await run.pause(seconds)
    finally:
        run.proxy.remove(rule)
    return True


async def blackhole(run: Run, random: Random) -> bool:
    """One direction, mostly; at its end what was held flows on, or the links are cut."""
    up = random.random() < 0.5
    down = not up or random.random() < 0.3
    rule = Rule(_some_wires(run, random), up=up, down=down)
    seconds, cuts = random.uniform(1.0, 14.0), random.random() < 0.5
    run.proxy.add(rule)
    try:
        await run.pause(seconds)
    finally:
        if cuts:
            for link in filter(rule.concerns, run.proxy.links):
                link.cut()
        run.proxy.release_stranded(rule.concerns)
        run.proxy.remove(rule)
    return True


async def cut(run: Run, random: Random) -> bool:
    share, down = random.choice((0.1, 0.3, 1.0)), random.random() < 0.5
    links = [link for link in run.proxy.links if random.random() < share]
    for link in links:
        link.cut_in_a_frame(down)
    return bool(links)


async def strand(run: Run, random: Random) -> bool:
    share, seconds = random.choice((0.1, 0.3)), random.uniform(2.0, 15.0)
    links = [link for link in run.proxy.links if random.random() < share]
    for link in links:
        link.strand()
    try:
        await run.pause(seconds)
    finally:
        for link in links:
            link.cut()
    return bool(links)


# --- the clients ---------------------------------------------------------------------------------------------------


def _worker(run: Run, random: Random) -> Worker:
    return random.choice(run.crew.workers)


def _client(run: Run, random: Random) -> tuple[Worker, str]:
    worker = _worker(run, random)
    return worker, random.choice(worker.users)


async def kill_worker(run: Run, random: Random) -> bool:
    """Half of the time its machine is gone with it: the services hear nothing of it."""
    worker, vanishes, seconds = _worker(run, random), random.random() < 0.5, random.uniform(0.2, 6.0)
    links = [link for link in run.proxy.links if link.worker == worker.number]
    if vanishes:
        for link in links:
            link.strand()
    await worker.kill()
    try:
        await run.pause(seconds)
    finally:
        await worker.start()
    await run.pause(seconds)
    for link in links:
        link.cut()
    return True


async def freeze_worker(run: Run, random: Random) -> bool:
    worker, seconds = _worker(run, random), random.uniform(1.0, 14.0)
    worker.freeze()
    try:
        await run.pause(seconds)
    finally:
        worker.thaw()
    return True


async def deafen(run: Run, random: Random) -> bool:
    for _ in range(random.randint(1, 4)):
        worker, user = _client(run, random)
        worker.deafen(user, random.uniform(1.0, 12.0))
    return True


async def go_offline(run: Run, random: Random) -> bool:
    drawn = {user: worker for worker, user in (_client(run, random) for _ in range(random.randint(1, 5)))}
    seconds = random.uniform(3.0, 25.0)
    gone = [(worker, user) for user, worker in drawn.items() if user not in worker.offline]
    for worker, user in gone:
        worker.send_offline(user)
    try:
        await run.pause(seconds)
    finally:
        for worker, user in gone:
            worker.bring_online(user)
    return bool(gone)


FAULTS = (
    Fault("kill of twistd", "twistd", 2, "all services die", "started again after up to 3 s", kill_twistd),
    Fault(
        "restart of twistd", "twistd", 1, "SIGTERM; it must end with code 0", "started again at once", restart_twistd
    ),
    Fault("SIGSTOP of twistd", "twistd", 2, "SIGSTOP for 1 to 8 s", "SIGCONT", freeze_twistd),
    Fault(
        "death of a service", "service", 4, "one chat service is not there for 1 to 10 s", "it listens", service_dies
    ),
    Fault("kill of PostgreSQL", "database", 2, "the postmaster dies", "the product starts it again", kill_postgres),
    Fault(
        "termination of backends",
        "database",
        3,
        "pg_terminate_backend of some or all",
        "by the product",
        terminate_backends,
    ),
    Fault("SIGSTOP of a backend", "database", 3, "SIGSTOP of one or all for up to 15 s", "SIGCONT", freeze_backend),
    Fault("delay", "", 3, "up to 2.5 s each way on some wires, for 2 to 10 s", "no delay", delay),
    Fault("blackhole", "", 4, "one way or both on some wires, for 1 to 14 s", "flows on, or is cut", blackhole),
    Fault("cut", "", 5, "some links end in the middle of a frame", "clients come again", cut),
    Fault("second login", "", 4, "the client is cut, the service is not told: two logins", "cut", strand),
    Fault("kill of clients", "worker", 5, "a process of clients dies; some vanish", "started again", kill_worker),
    Fault("SIGSTOP of clients", "worker", 3, "SIGSTOP of a process of clients for 1 to 14 s", "SIGCONT", freeze_worker),
    Fault("clients that stop reading", "", 4, "up to 4 read nothing for 1 to 12 s", "they read on", deafen),
    Fault(
        "people who are away", "", 4, "up to 5 leave for 3 to 25 s, and write meanwhile", "they come back", go_offline
    ),
)
