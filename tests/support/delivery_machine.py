"""Delivery under everything that can happen to it, drawn by hypothesis: a state machine over `delivery_world`.

Two processes share one store. Each rule is one event: something is written, a line lags, breaks or is found dead, a
device logs in (again, or at the other process), time passes, the database goes away, a call of the store hangs, goes
on, fails or is done later although nobody waits for it, a process is stopped or killed at whichever await points it
has reached. After each, the judge looks; at the end everything heals, and then nothing may be missing or left over.

A failure is printed as the shortest sequence of events that hypothesis finds. To replay it, paste the lines between
`state = DeliveryMachine()` and `state.teardown()` into a test; to go on searching, see tests/test_delivery_machine.py.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, ClassVar

from hypothesis import strategies as some
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from zope.interface import implementer

from fastchat.config import Limits
from tests.support.delivery_judge import Violation
from tests.support.delivery_person import Person
from tests.support.delivery_store import POINTS
from tests.support.delivery_world import NOBODY, Line, World

PEOPLE = ("alice", "desk", "bob", "carol")
OWN = {"alice": ("desk",)}
"""`desk` is alice's other device: it gets copies of several conversations."""

CONVERSATIONS = {
    "alice": (("bob", ("bob", "desk")), ("alice", ("desk",)), ("carol", ("carol", "desk")), ("both", ("bob", "carol"))),
    "bob": (("alice", ("alice", "desk")), ("carol", ("carol",)), ("void", ("carol", NOBODY))),
}
"""By sender: each conversation with its recipients. The one with oneself has one's own name."""

HOMES = {"alice": 0, "bob": 1}
"""The process of each sender, where processes are not joined."""

FAULTS = ("breaks", "lags", "transport", "leaves", "database", "dies")

STEP_SECONDS = 0.5
HEALING_SECONDS = 180.0
"""In which everything must have come to its end, once all faults have stopped."""

senders = some.sampled_from(sorted(CONVERSATIONS))
anybody = some.sampled_from(PEOPLE)
yes_or_no = some.booleans()
which = some.integers(0, 1)
any_of = some.integers(0, 7)
any_point = some.integers(0, len(POINTS) - 1)
"""Both are taken modulo how many there are."""


@implementer(ILogObserver)
class Stumbles:
    """Whatever delivery caught and logged."""

    def __init__(self) -> None:
        self.tracebacks: list[str] = []

    def __call__(self, event: LogEvent) -> None:
        if "log_failure" in event:
            self.tracebacks.append(event["log_failure"].getTraceback())


class DeliveryMachine(RuleBasedStateMachine):
    world: World
    points: ClassVar[Sequence[str]] = POINTS
    """Where calls are made to hang."""
    faults: ClassVar[Collection[str]] = FAULTS
    """A search for something in particular may do with fewer of both."""

    def __init__(self) -> None:
        super().__init__()
        self.stumbles = Stumbles()
        globalLogPublisher.addObserver(self.stumbles)

    @initialize(
        window=some.integers(1, 3),
        page=some.integers(1, 3),
        batch=some.integers(1, 3),
        is_small=yes_or_no,
        is_joined=yes_or_no,
        held=some.sets(any_point, max_size=2),
        places=some.tuples(*[some.sampled_from((0, 1, None))] * len(PEOPLE)),
    )
    def starts(
        self,
        window: int,
        page: int,
        batch: int,
        is_small: bool,
        is_joined: bool,
        held: set[int],
        places: tuple[int | None, ...],
    ) -> None:
        """`is_joined`: rings reach the other process. `held`: where the first calls hang. `places`: where each of
        `PEOPLE` is logged in."""
        self.world = World(
            PEOPLE,
            OWN,
            Limits(
                window_messages=window,
                window_bytes=1024,
                mailbox_page=page,
                mailbox_page_bytes=1024,
                mailbox_messages=6 if is_small else 10_000,
                write_batch=batch,
                write_batch_bytes=1024,
                write_queue_bytes=2048,
            ),
            is_joined,
        )
        self.world.held.update(self.points[point % len(self.points)] for point in held)
        for name, place in zip(PEOPLE, places, strict=True):
            if place is not None:
                self._log_in(name, place)

    def _person(self, name: str) -> Person:
        return self.world.people[name]

    def _log_in(self, name: str, place: int) -> Line:
        """Where rings get lost on the way to the other process, who sends stays with one process: see
        docs/decisions/mutants-that-survive.md."""
        if not self.world.is_joined and name in HOMES:
            place = HOMES[name]
        return self.world.login(self._person(name), self.world.processes[place])

    # --- people ------------------------------------------------------------------------------------------------------

    @rule(sender=senders, conversation=any_of, count=some.integers(1, 3), size=some.sampled_from((1, 400, 700)))
    def writes(self, sender: str, conversation: int, count: int, size: int) -> None:
        of_sender = CONVERSATIONS[sender]
        name, to = of_sender[conversation % len(of_sender)]
        for _ in range(count):
            self._person(sender).write(name, to, size)
        self.world.flow()

    @rule(name=anybody, process=which, lags_up=yes_or_no, lags_down=yes_or_no)
    def logs_in(self, name: str, process: int, lags_up: bool, lags_down: bool) -> None:
        line = self._log_in(name, process)
        line.lags_up, line.lags_down = lags_up, lags_down
        self.world.flow()

    # --- lines -------------------------------------------------------------------------------------------------------

    def _line(self, line: int) -> Line:
        lines = self.world.lines
        return lines[line % len(lines)]

    @precondition(lambda self: "breaks" in self.faults and self.world.lines)
    @rule(line=any_of, is_noticed=yes_or_no)
    def breaks(self, line: int, is_noticed: bool) -> None:
        """The person's side is gone. If the server does not notice, what was on the way to it still arrives."""
        chosen = self._line(line)
        if is_noticed:
            chosen.close()
        elif chosen.person.line is chosen:
            chosen.person.hang_up()
        self.world.flow()

    @precondition(lambda self: "lags" in self.faults and self.world.lines)
    @rule(line=any_of, lags_up=yes_or_no, lags_down=yes_or_no)
    def lags(self, line: int, lags_up: bool, lags_down: bool) -> None:
        chosen = self._line(line)
        chosen.lags_up, chosen.lags_down = lags_up, lags_down
        self.world.flow()

    @precondition(lambda self: any(line.up or line.down for line in self.world.lines))
    @rule(line=any_of, count=some.integers(1, 4), up=yes_or_no)
    def arrives(self, line: int, count: int, up: bool) -> None:
        """Something that lags, on one of the lines that have anything on the way."""
        laden = [line for line in self.world.lines if line.up or line.down]
        chosen = laden[line % len(laden)]
        for _ in range(count):
            if chosen.is_open:
                chosen.arrive("up" if (up and chosen.up) or not chosen.down else "down")
        self.world.flow()

    @precondition(lambda self: "transport" in self.faults and self.world.lines)
    @rule(line=any_of)
    def transport(self, line: int) -> None:
        """It is full, or takes more again."""
        chosen = self._line(line)
        chosen.set_writable(not chosen.is_writable)
        self.world.flow()

    @precondition(lambda self: "leaves" in self.faults and self.world.lines)
    @rule(line=any_of, is_heard=yes_or_no)
    def is_asked_to_leave(self, line: int, is_heard: bool) -> None:
        self._line(line).leave(is_heard)
        self.world.flow()

    # --- time and the database ---------------------------------------------------------------------------------------

    @rule(seconds=some.sampled_from((0.1, 0.5, 1.0, 2.1, 3.0)))
    def time_passes(self, seconds: float) -> None:
        self.world.advance(seconds)
        self.world.flow()

    @precondition(lambda self: "database" in self.faults)
    @rule()
    def database(self) -> None:
        """It goes away, or comes back."""
        self.world.rows.available = not self.world.rows.available

    @rule(point=any_point)
    def hangs(self, point: int) -> None:
        """The next call that comes to this point."""
        self.world.held.add(self.points[point % len(self.points)])

    @precondition(lambda self: self.world.paused)
    @rule(call=any_of, fails=yes_or_no)
    def hangs_no_more(self, call: int, fails: bool) -> None:
        chosen = self.world.paused[call % len(self.world.paused)]
        if fails:
            self.world.fail(chosen)
        else:
            self.world.go_on(chosen)
        self.world.flow()

    @precondition(lambda self: self.world.late and self.world.rows.available)
    @rule(call=any_of, commits=yes_or_no)
    def is_done_late(self, call: int, commits: bool) -> None:
        rest = self.world.late.pop(call % len(self.world.late))
        if commits:
            rest()

    # --- processes ---------------------------------------------------------------------------------------------------

    @precondition(lambda self: "dies" in self.faults and (self.world.lines or self.world.paused))
    @rule(process=which, is_asked=yes_or_no)
    def dies(self, process: int, is_asked: bool) -> None:
        chosen = self.world.processes[process]
        if is_asked:
            self.world.stop(chosen)
        else:
            self.world.kill(chosen)
        self.world.flow()

    # --- what must hold ----------------------------------------------------------------------------------------------

    @invariant()
    def promises_are_kept(self) -> None:
        self.world.judge.check()
        if self.stumbles.tracebacks:
            raise RuntimeError(self.stumbles.tracebacks[0])

    def teardown(self) -> None:
        try:
            if hasattr(self, "world"):
                self._faults_stop()
                self._everything_is_answered()
                self._everybody_has_everything()
                self._nothing_is_left()
        finally:
            globalLogPublisher.removeObserver(self.stumbles)

    def _faults_stop(self) -> None:
        world = self.world
        world.rows.available = True
        world.held.clear()
        while world.paused:
            world.go_on(world.paused[0])
        while world.late:
            world.late.pop(0)()
        for line in world.lines:
            line.lags_up = line.lags_down = False
            if not line.is_writable:
                line.set_writable(True)
        world.flow()
        self.promises_are_kept()

    def _within(self, seconds: float, reached: Any) -> bool:
        """Whether `reached()` comes true in this time."""
        until = self.world.seconds + seconds
        while not reached() and self.world.seconds < until:
            self.world.advance(STEP_SECONDS)
            self.world.flow()
            self.promises_are_kept()
        return bool(reached())

    def _everything_is_answered(self) -> None:
        """Also what was sent to who is not there any more, before anybody has noticed that."""
        world = self.world

        def reached() -> bool:
            online = [person for person in world.people.values() if person.line is not None]
            open_sends = sum(each.unaccepted for process in world.processes for each in process.outgoing)
            return not open_sends and not any(person.has_unsent for person in online)

        if not self._within(HEALING_SECONDS, reached):
            raise Violation("stuck", "a message is never answered")

    def _everybody_has_everything(self) -> None:
        world = self.world
        for line in world.lines:
            if line.person.line is not line or line.is_leaving:
                line.close()
        for place, person in enumerate(world.people.values()):
            if person.line is None:
                self._log_in(person.name, place % 2)
        world.flow()

        def reached() -> bool:
            return not any(person.has_unsent or world.mailbox(name) for name, person in world.people.items())

        in_time = self._within(HEALING_SECONDS, reached)
        if missing := world.judge.missing():
            raise Violation("lost", "; ".join(missing))
        if not in_time:
            waiting = {name: sorted(world.mailbox(name)) for name in world.people}
            raise Violation("stuck", f"not empty: outboxes, or mailboxes {waiting}")

    def _nothing_is_left(self) -> None:
        self._within(3.0, lambda: False)
        for process in self.world.processes:
            delivery = process.delivery
            if delivery.writer._queue or delivery.writer._queued or delivery.writer._writing or delivery.remover._queue:
                raise Violation("leak", "the writer or the remover is not at rest")
            if sorted(delivery._inboxes) != sorted(line.inbox.device for line in process.lines):
                raise Violation("leak", "there are inboxes of who is not there")
            for inbox in delivery._inboxes.values():
                if not inbox.is_live or inbox._handed or inbox._bytes or inbox._held or inbox._known_rows:
                    raise Violation("leak", f"something stays in the inbox of {inbox.device}")
            for outgoing in process.outgoing:
                if any(lane.offered or lane.storing for lane in outgoing._lanes.values()):
                    raise Violation("leak", "something stays in a lane")
            if any(lane.refused for line in process.lines for lane in line.outgoing._lanes.values()):
                raise Violation("stuck", "a lane waits for a message that never comes")
