"""Target `balancer`: the balancer's port, behind the shell that a real connection has, over the real
placement, while services come, report, drain and go.

A bystander who asks properly is always sent somewhere that is up, or told that nothing is; each question has one
answer; and a while after all are gone nothing is left of them: no timer and no lease.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

from hypothesis import strategies as st
from msgspec import UNSET
from twisted.internet.task import Clock

from fastchat.config import Config, Limits
from fastchat.errors import ProtocolError
from fastchat.placement import STRATEGIES, Placement
from fastchat.protocols import wire
from fastchat.protocols.line import LineShell, Turn
from fastchat.services.balancer import BalancerService
from tests.fuzz.mangling import cut, edited, edits, line_of, pieces, said
from tests.fuzz.messages import Values, codes
from tests.fuzz.transports import Wire
from tests.fuzz.watching import Target, clean_log

SERVICES = tuple(wire.ServiceAddress(f"chat-{number}", "chat.test", 7400 + number) for number in range(1, 4))
STRANGERS = 4


class Visitor:
    """One connection to the port, and what was said on it."""

    def __init__(self, world: World) -> None:
        self.wire = Wire()
        self.asked: list[Any] = []
        self.heard: list[Any] = []
        self.is_gone = False
        self._world = world
        self.shell = LineShell(self, wire.decode_client_message, Turn(world.clock), world.limits.outbound_hard)
        self.shell.makeConnection(self.wire)

    # --- fastchat.protocols.line.Owner: passes on to the visit, as `services.listening` does

    def connected(self, shell: LineShell) -> None:
        self._visit = self._world.service._converse(shell, "192.0.2.1", 0.0)

    def received(self, message: Any) -> None:
        self.asked.append(message)
        self._visit.received(message)

    def bad_frame(self, error: ProtocolError) -> None:
        self._visit.bad_frame(error)
        assert self.wire.disconnecting

    def writable(self, writable: bool) -> None:
        self._visit.writable(writable)

    def lost(self, reason: Any) -> None:
        self._visit.lost()

    # --- what is done with it

    def says(self, data: bytes, sizes: list[int]) -> None:
        for piece in cut(data, sizes, most=500):
            if not self.wire.is_aborted and not self.is_gone:
                self.shell.dataReceived(piece)
        self._world.clock.advance(0)
        self.listens()

    def listens(self) -> list[Any]:
        """What is new."""
        lines = b"".join(self.wire.written).split(b"\n")
        assert lines.pop() == b""
        self.wire.written.clear()
        new = [wire.decode_server_message(line) for line in lines]
        self.heard += new
        return new

    def leaves(self) -> None:
        if not self.is_gone:
            self.is_gone = True
            self.listens()
            self.shell.connectionLost()

    def check(self, frames: int) -> None:
        errors = [one for one in self.heard if isinstance(one, wire.Error)]
        assert all(one.code in codes() and one.code != "internal" for one in errors)
        # Without `re` it is the last word.
        assert all(isinstance(one.re, int) for one in self.heard[:-1])
        assert not self.heard or isinstance(self.heard[-1].re, int) or self.wire.disconnecting
        assert all(isinstance(one, wire.Assigned | wire.Error) for one in self.heard)
        assert len([one for one in self.heard if isinstance(one, wire.Assigned)]) <= frames
        for asked, answer in zip(self.asked[:frames], self.heard, strict=False):
            if isinstance(asked, wire.Assign):
                assert answer.re == asked.id
                assert isinstance(answer, wire.Assigned) or answer.code == "busy"
            else:
                assert answer.code == "out-of-turn"
                assert answer.re == getattr(asked, "id", UNSET)
        if not self.is_gone and not self.wire.is_full:
            assert len(self.heard) >= min(len(self.asked), frames), "a question has no answer"


class World:
    def __init__(self, strategy: str) -> None:
        self.clock = Clock()
        self.limits = Limits()
        self.placement = Placement(strategy, self.clock.seconds, Random(7), self.limits.lease_seconds)
        config = Config(home=Path("home that is not there"), limits=self.limits)
        node: Any = SimpleNamespace(config=config, reactor=self.clock, placement=self.placement)
        self.service = BalancerService(0, node)
        self.up: dict[str, int] = {}
        self.draining: set[str] = set()
        self.visitors: list[Visitor | None] = [None] * STRANGERS
        self.everybody: list[Visitor] = []
        self._asks = 0

    def visitor(self, number: int) -> Visitor:
        visitor = self.visitors[number]
        if visitor is None or visitor.is_gone:
            visitor = self.visitors[number] = Visitor(self)
            self.everybody.append(visitor)
        return visitor

    def does(self, move: tuple[Any, ...]) -> None:
        match move:
            case ("says", int(number), [*lines], changes, sizes):
                visitor = self.visitor(number)
                visitor.says(edited(b"".join(line + b"\n" for line in lines), changes), sizes)
            case ("reports", int(number), int(sessions), [*redeemed]):
                leases = [self._lease(one) for one in redeemed]
                self.placement.report(SERVICES[number], sessions, leases)
                self.up[SERVICES[number].name] = sessions
            case ("stops", int(number)):
                self.placement.remove(SERVICES[number].name)
                self.up.pop(SERVICES[number].name, None)
                self.draining.discard(SERVICES[number].name)
            case ("drains", int(number)):
                self.placement.drain(SERVICES[number].name)
                if SERVICES[number].name in self.up:
                    self.draining.add(SERVICES[number].name)
            case ("passes", float(seconds)):
                self.clock.pump([0.5] * round(seconds * 2))
            case ("fills", int(number), bool(full)):
                visitor = self.visitor(number)
                (visitor.wire.fill if full else visitor.wire.empty)()
            case ("leaves", int(number)):
                self.visitor(number).leaves()
        self._check()

    def _lease(self, what: int | str) -> str:
        leases = [one.lease for visitor in self.everybody for one in visitor.heard if isinstance(one, wire.Assigned)]
        if isinstance(what, str):
            return what
        return leases[what % len(leases)] if leases else ""

    def _check(self) -> None:
        """The bystander is answered, and the books are right."""
        bystander = Visitor(self)
        self._asks += 1
        bystander.says(wire.encode(wire.Assign(self._asks)) + b"\n", [])
        [answer] = bystander.heard
        bystander.leaves()
        open_ = set(self.up) - self.draining
        assert answer.re == self._asks
        if open_:
            assert answer.service.name in open_
            assert {service.name for service in answer.services} == open_
        else:
            assert answer.code == "busy"
        loads = self.placement.loads()
        assert {load.service.name: load.sessions for load in loads} == self.up
        assert all(load.leases >= 0 for load in loads)
        assert sum(load.leases for load in loads) <= len(self.placement._leases)

    def ends(self) -> None:
        for visitor in self.everybody:
            if not visitor.is_gone:
                visitor.wire.empty()
        self.clock.advance(0)
        for visitor in self.everybody:
            visitor.listens()
            visitor.check(self.limits.frames_before_login)
        self.clock.pump([0.5] * 40)
        for visitor in self.everybody:
            assert visitor.is_gone or visitor.wire.disconnecting, "a visit outlives its time"
            visitor.leaves()
        self.clock.pump([0.5] * 40)
        assert not self.clock.getDelayedCalls(), self.clock.getDelayedCalls()
        assert all(load.leases == 0 for load in self.placement.loads())
        assert not self.placement._leases


def check(given: tuple[str, list[tuple[Any, ...]]]) -> None:
    strategy, moves = given
    with clean_log():
        world = World(strategy)
        for move in moves:
            world.does(move)
        world.ends()


@cache
def _inputs() -> st.SearchStrategy[tuple[str, list[tuple[Any, ...]]]]:
    messages = Values().message(wire.ClientMessage).map(wire.encode)
    asks = st.integers(0, 9).map(lambda i: wire.encode(wire.Assign(i)))
    number, service = st.integers(0, STRANGERS - 1), st.integers(0, len(SERVICES) - 1)
    lines = st.lists(asks | line_of(said("C"), messages), min_size=1, max_size=9)
    redeemed = st.lists(st.integers(0, 99) | st.text(max_size=24), max_size=4)
    says = st.tuples(st.just("says"), number, lines, st.just([]) | edits, pieces)
    reports = st.tuples(st.just("reports"), service, st.integers(0, 5) | st.integers(0, 10**6), redeemed)
    move = st.one_of(
        says,
        says,
        reports,
        st.tuples(st.just("stops"), service),
        st.tuples(st.just("drains"), service),
        st.tuples(st.just("passes"), st.sampled_from((0.5, 3.0, 11.0))),
        st.tuples(st.just("fills"), number, st.booleans()),
        st.tuples(st.just("leaves"), number),
    )
    return st.tuples(
        st.sampled_from(sorted(STRATEGIES)), st.lists(move, max_size=6) | st.lists(move, min_size=7, max_size=25)
    )


TARGETS = (Target("balancer", _inputs, check, 60),)
