"""One run, from the empty directory to the verdict: the network, the proxy and the workers are started, everybody
talks while faults happen, then everything is mended, the run waits until nothing is under way, and the history is
checked. What goes wrong, and when, is `faults.py`'s; what is a lie is `checker.py`'s.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from twisted.internet.defer import Deferred, DeferredList, DeferredLock, gatherResults
from twisted.internet.task import deferLater
from twisted.logger import Logger

from tests.chaos import checker, parties
from tests.chaos.crew import Crew, Worker
from tests.chaos.faults import Planned, plan
from tests.chaos.logs import read_logs
from tests.chaos.orders import Setup
from tests.chaos.proxy import Proxy
from tests.chaos.server import Server

PROGRESS_SECONDS = 5.0
JOIN_SECONDS = 120.0
"""For all clients to register and be ready, before anything goes wrong."""
GATHER_SECONDS = 180.0
"""For groups to come together, before anything goes wrong."""
RECOVER_SECONDS, WORKING_SECONDS = 20.0, 2.0
"""After the network was away: until people are there, at most; and, as after its database was, without another such
fault."""
AWAY_SHARE = 0.15
"""Of the clients: they are not there for most of a round."""
AWAY_FROM, AWAY_UNTIL = 0.05, 0.8
"""Of a round's seconds."""


@dataclass(frozen=True)
class Options:
    """`seconds`: how long faults happen, all rounds together; after each everything is mended and the history checked,
    and a run that is not clean ends there. `every`: seconds between two faults, on average. `patience`: seconds for
    everything to arrive once they are over. `weights`: of faults, by name, other than the table's."""

    seconds: float = 60.0
    round_seconds: float = 60.0
    seed: int = 1
    clients: int = 40
    per_worker: int = 5
    every: float = 1.5
    patience: float = 180.0
    mutant: str = ""
    keep: bool = False
    weights: dict[str, int] = field(default_factory=dict)


@dataclass
class Verdict:
    """What a run came to. `history` is None when it never got so far. `notes`: what should not happen, by text."""

    options: Options
    directory: Path
    history: checker.Report | None = None
    faults: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)
    tracebacks: Counter[str] = field(default_factory=Counter)
    joined_seconds: float = 0.0
    quiet_seconds: float | None = None
    """From the end of a round's faults until nothing was under way, the longest; None if it never came to that."""

    @property
    def clean(self) -> bool:
        return (
            self.history is not None
            and self.history.clean
            and self.history.from_groups > 0  # nothing is lost of nothing
            and self.quiet_seconds is not None
            and not self.tracebacks
            and not self.notes
        )


class Chaos:
    """One run. `say` is given lines for whoever watches."""

    log = Logger()

    def __init__(self, options: Options, say: Callable[[str], None], reactor: Any) -> None:
        directory = Path(tempfile.mkdtemp(prefix="fastchat-chaos-"))
        directory.chmod(0o711)
        self.verdict = Verdict(options, directory)
        self.server = Server(directory / "home", options.mutant, self.note, reactor)
        self.crew = Crew([])
        self._options = options
        self._say = say
        self._reactor = reactor
        self._directory = directory
        self._began = reactor.seconds()
        self._keys = {f"user{number:02}": os.urandom(32) for number in range(options.clients)}
        self._parties = parties.plan(list(self._keys), options.seed)
        self._over = False
        self._pauses: set[Deferred[None]] = set()
        self._locks: dict[str, DeferredLock] = {}
        self._stopped = False

    proxy: Proxy

    # --- faults.Run --------------------------------------------------------------------------------------------------

    async def pause(self, seconds: float) -> None:
        if self._over:
            return
        waiting: Deferred[None] = Deferred()
        self._pauses.add(waiting)
        timer = self._reactor.callLater(max(0.0, seconds), waiting.callback, None)
        try:
            await waiting
        finally:
            self._pauses.discard(waiting)
            if timer.active():
                timer.cancel()

    def note(self, what: str) -> None:
        self.verdict.notes[re.sub(r"\b(user\d+|[0-9a-f]{32}(\.\d+)?)\b", "…", what)] += 1
        self._happened(what)

    # --- the run -----------------------------------------------------------------------------------------------------

    async def run(self) -> Verdict:
        """Everything. `stop` must be called after it, whatever it raises."""
        options = self._options
        await self.server.start()
        self._hire()
        await gatherResults(
            [Deferred.fromCoroutine(worker.start()) for worker in self.crew.workers], consumeErrors=True
        )
        if not await self._until(self._all_ready, JOIN_SECONDS, "joining"):
            raise RuntimeError(f"not all clients could join; see {self._directory}")
        self.verdict.joined_seconds = self._elapsed()
        self._say(f"{options.clients} clients have joined after {self._elapsed():.0f} s")
        for worker in self.crew.workers:
            worker.gather()
        if not await self._until(self._all_gathered, GATHER_SECONDS, "gathering"):
            raise RuntimeError(f"not everybody came into their groups; see {self._directory}")
        self._say(f"{len(self._parties)} groups have come together after {self._elapsed():.0f} s")
        rounds = max(1, round(options.seconds / options.round_seconds))
        plans = list(plan(options.seed, options.seconds, options.every, options.weights))
        for number in range(rounds):
            begin, end = (options.seconds * edge / rounds for edge in (number, number + 1))
            await self._round(begin, end, [planned for planned in plans if begin <= planned.at < end])
            if self.verdict.quiet_seconds is None or self.verdict.history is None or not self.verdict.history.clean:
                await self.server.dump_mailboxes(self._directory / "mailboxes.tsv")
                break
        await gatherResults([Deferred.fromCoroutine(worker.stop()) for worker in self.crew.workers], consumeErrors=True)
        self.verdict.history = checker.check(self._people())
        await self.server.stop()
        self.verdict.tracebacks = read_logs(self._directory)
        return self.verdict

    async def stop(self) -> None:
        """Nothing is left running; of a clean run nothing is left on the disk either."""
        if self._stopped:
            return
        self._stopped = True
        self._end_faults()
        ends = [Deferred.fromCoroutine(worker.kill()) for worker in self.crew.workers]
        ends.append(Deferred.fromCoroutine(self.server.kill()))
        await DeferredList(ends, consumeErrors=True)
        await self.server.left_behind()
        if hasattr(self, "proxy"):
            await self.proxy.stop()
        if self.verdict.clean and not self._options.keep:
            self.remove()

    def remove(self) -> None:
        """The run's directory."""
        # Under root PostgreSQL's data may lie elsewhere, behind a link: where its user can reach it.
        postgres = self._directory / "home" / "postgres"
        if postgres.is_symlink():
            shutil.rmtree(postgres.resolve(), ignore_errors=True)
        shutil.rmtree(self._directory, ignore_errors=True)

    def _hire(self) -> None:
        options = self._options
        users = list(self._keys)
        groups = [users[at : at + options.per_worker] for at in range(0, len(users), options.per_worker)]
        self.proxy = Proxy(len(groups), self.server.ports, self._reactor)
        for number, group in enumerate(groups):
            setup = Setup(
                number=number,
                seed=options.seed,
                keys={user: self._keys[user].hex() for user in group},
                everybody=users,
                link=self.server.link,
                ports=self.proxy.ports[number],
                directory=str(self._directory),
                mutant=options.mutant,
                parties=self._parties,
                files=True,
            )
            self.crew.workers.append(Worker(setup, self.note, self._reactor))

    def _people(self) -> list[checker.Person]:
        where = self._directory
        return [
            checker.Person(user, where / f"{user}.vault", key, where / f"{user}.journal")
            for user, key in self._keys.items()
        ]

    # --- faults ------------------------------------------------------------------------------------------------------

    async def _round(self, begin: float, end: float, faults: Sequence[Planned]) -> None:
        """Talk and break things, mend them, wait until everything has arrived, and look at the history."""
        self._over = False
        for worker in self.crew.workers:
            worker.talk(True)
        await self._break_things(begin, end, faults)
        await self._mend()
        began = self._reactor.seconds()
        quiet = await self._until(self._quiet, self._options.patience, "waiting until nothing is under way")
        took = self._reactor.seconds() - began
        self.verdict.quiet_seconds = max(took, self.verdict.quiet_seconds or 0.0) if quiet else None
        self.verdict.history = checker.check(self._people())
        self._say(f"{self._elapsed():4.0f} s: {str(self.verdict.history).partition(chr(10))[0]}")

    async def _break_things(self, begin: float, end: float, faults: Sequence[Planned]) -> None:
        began = self._reactor.seconds()
        over = self._reactor.callLater(end - begin, self._end_faults)
        progress = Deferred.fromCoroutine(self._tell_progress())
        running = [Deferred.fromCoroutine(self._send_away(begin, end - begin))]
        try:
            for planned in faults:
                await self.pause(planned.at - begin - (self._reactor.seconds() - began))
                running.append(Deferred.fromCoroutine(self._inject(planned)))
            await self.pause(end - begin)
        finally:
            if over.active():
                over.cancel()
            self._end_faults()
        for deferred in running:
            await deferred
        await progress

    async def _inject(self, planned: Planned) -> None:
        fault = planned.fault
        lock = self._locks.setdefault(fault.place, DeferredLock()) if fault.place else DeferredLock()
        await lock.acquire()
        try:
            if not self._over:
                self._happened(f"{fault.name} ({planned.seed})")
                done = await fault.act(self, Random(planned.seed))
                self.verdict.faults[fault.name] += done
                self._happened(f"healed: {fault.name} ({planned.seed})")
            if fault.place == "twistd":
                await self._recover()
            elif fault.place == "database":
                await self.pause(WORKING_SECONDS)
        except Exception as error:
            self.note(f"the fault {fault.name!r} failed: {error}")
            self.log.failure("a fault failed")
        finally:
            lock.release()

    async def _recover(self) -> None:
        """Until most people are there again, and a moment longer: while nothing works nothing can go wrong."""
        for _ in range(int(RECOVER_SECONDS)):
            conditions = self.crew.conditions.values()
            if self._over or sum(one.ready for one in conditions) >= 0.4 * len(conditions):
                break
            await self.pause(1.0)
        await self.pause(WORKING_SECONDS)

    async def _send_away(self, begin: float, seconds: float) -> None:
        """Some of the clients, for most of the round: their mailboxes fill."""
        random = Random(f"{self._options.seed} away {begin}")
        away = random.sample(list(self._keys), int(len(self._keys) * AWAY_SHARE))
        await self.pause(seconds * AWAY_FROM)
        for user in away:
            self.crew.of(user).send_offline(user)
        await self.pause(seconds * (AWAY_UNTIL - AWAY_FROM))
        for user in away:
            self.crew.of(user).bring_online(user)

    def _end_faults(self) -> None:
        self._over = True
        for waiting in list(self._pauses):
            if not waiting.called:  # by what the one before it set free
                waiting.callback(None)

    async def _mend(self) -> None:
        """Faults have mended what they broke; what is left is to be silent, and to wait for a twistd that starts."""
        self._say("the faults are over")
        self.proxy.release_stranded(lambda link: True)
        for worker in self.crew.workers:
            worker.talk(False)
        for user in self.crew.users:
            worker = self.crew.of(user)
            if user in worker.offline:
                worker.bring_online(user)
        await self._until(lambda: self.server.is_up, 60.0, "waiting for twistd")

    # --- waiting -----------------------------------------------------------------------------------------------------

    def _all_ready(self) -> bool:
        conditions = self.crew.conditions
        return len(conditions) == len(self._keys) and all(one.ready for one in conditions.values())

    def _all_gathered(self) -> bool:
        return not any(one.unsettled for one in self.crew.conditions.values())

    async def _quiet(self) -> bool:
        """Everybody is there, and in their groups, and neither an outbox nor a mailbox holds anything; twice in a
        row."""
        for _ in range(2):
            conditions = self.crew.conditions
            is_still = self._all_ready() and self._all_gathered()
            if not is_still or any(one.waiting for one in conditions.values()):
                return False
            if await self.server.waiting() != 0:
                return False
            await deferLater(self._reactor, 1.0)
        return True

    async def _until(self, condition: Callable[[], Any], seconds: float, what: str) -> bool:
        end = self._reactor.seconds() + seconds
        told = self._reactor.seconds()
        while True:
            answer = condition()
            if await answer if hasattr(answer, "__await__") else answer:
                return True
            if self._reactor.seconds() > end:
                self.note(f"{what}: not so after {seconds:g} s")
                self._say(self._progress())
                return False
            if self._reactor.seconds() - told > PROGRESS_SECONDS:
                told = self._reactor.seconds()
                self._say(f"{what}: {self._progress()}")
            await deferLater(self._reactor, 0.25)

    async def _tell_progress(self) -> None:
        while not self._over:
            await self.pause(PROGRESS_SECONDS)
            self._say(self._progress())

    def _progress(self) -> str:
        conditions = self.crew.conditions.values()
        ready = sum(one.ready for one in conditions)
        said, shown = sum(one.said for one in conditions), sum(one.shown for one in conditions)
        waiting = sum(one.waiting for one in conditions)
        late = [user for user, one in self.crew.conditions.items() if one.waiting or one.unsettled or not one.ready]
        names = f" ({', '.join(late)})" if self._over and len(late) < 8 else ""
        return (
            f"{self._elapsed():4.0f} s: {ready} of {len(self._keys)} online, {said} said, {shown} shown since the last "
            f"starts, {waiting} in outboxes{names}, {self.verdict.faults.total()} faults"
        )

    def _elapsed(self) -> float:
        return float(self._reactor.seconds() - self._began)

    def _happened(self, what: str) -> None:
        with (self._directory / "faults.log").open("a", encoding="utf-8") as stream:
            stream.write(f"{time.strftime('%H:%M:%S')} {self._elapsed():7.2f} {what}\n")
