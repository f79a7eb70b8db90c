"""Target `connection`: the client's way in, from the bytes on, with the shell and the heart behind it, while whoever
answers, balancer or service, says anything in any pieces and hangs up when it likes.

Nothing is logged as a mistake; the connection goes on trying, or has shown why it does not; it stops when asked to and
leaves no timer; and the vault is as it was.
"""

from __future__ import annotations

from functools import cache
from random import Random
from typing import Any

import msgspec
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.protocol import Protocol

from fastchat.errors import Unreachable
from fastchat.identity.login import ChannelBinding
from fastchat.protocols import wire
from fastchat.protocols.wire import ServiceAddress
from fastchat_client.connection import Connection
from fastchat_client.dial import Line
from fastchat_client.events import Disconnected, MessageReceived
from fastchat_client.patience import LONGEST_WAIT
from tests.fuzz.mangling import cut, edited, edits, line_of, pieces, said
from tests.fuzz.messages import Values
from tests.fuzz.profiles import Copy, past
from tests.fuzz.watching import Target, clean_log
from tests.support.conversation import Person
from tests.support.wires import End, join

PIN = b"p" * 32
SERVICE = ServiceAddress("chat-1", "chat.test", 7401)


class Enemy(Protocol):
    """Whoever answers. It remembers nothing of what it hears."""

    transport: Any

    def says(self, data: bytes, sizes: list[int]) -> None:
        for piece in cut(data, sizes, most=200):
            self.transport.write(piece)


class Places:
    """Where the network is said to be; a `fastchat_client.connection.Network`."""

    host, port, pin = "chat.test", 7400, PIN

    def __init__(self) -> None:
        self.services: list[ServiceAddress] = [SERVICE]

    def remember(self, services: Any) -> None:
        self.services = list(services)


class World:
    def __init__(self) -> None:
        self.copy = Copy()
        self.clock = self.copy.scene.clock
        self.alice: Person = self.copy.people["alice"]
        self.enemies: list[Enemy] = []
        self.events: list[Any] = []
        self.is_deaf = False
        self._before = self._rows()
        self.connection = Connection(
            self.alice.core, Places(), self.clock, Random(3), self.events.extend, dial=self._dial
        )
        self.connection.start()
        self.clock.advance(0)

    def _dial(self, _: Any, host: str, port: int, pin: bytes) -> Deferred[Line]:
        assert pin == PIN
        if self.is_deaf:
            return fail(Unreachable("nobody listens"))
        line = Line(f"{host}:{port}", pin, self.clock)
        line.binding = ChannelBinding(b"e" * 32, b"c" * 32)
        line.secured.callback(line)
        enemy = Enemy()
        self.enemies.append(enemy)
        join(self.clock, line._shell, enemy)
        return succeed(line)

    def does(self, move: tuple[Any, ...]) -> None:
        enemy = self.enemies[-1] if self.enemies else None
        match move:
            case ("says", [*lines], changes, sizes) if enemy is not None and enemy.transport.is_open:
                enemy.says(edited(b"".join(line + b"\n" for line in lines), changes), sizes)
            case ("hangs up", bool(gently)) if enemy is not None and enemy.transport.is_open:
                (enemy.transport.loseConnection if gently else enemy.transport.abortConnection)()
            case ("reads", bool(reads)) if enemy is not None and enemy.transport.is_open:
                (enemy.transport.resumeProducing if reads else enemy.transport.pauseProducing)()
            case ("is deaf", bool(deaf)):
                self.is_deaf = deaf
            case ("writes", str(to)):
                message_id = self.alice.says(to, "hello?")
                self.copy.said[self.alice.device, int(message_id.partition(".")[2])] = ("alice", to, "hello?")
                self.connection.flush()
            case ("hurries",):
                self.connection.hurry()
            case ("passes", float(seconds)):
                self.clock.pump([1.0] * int(seconds))
        self.clock.pump([0.0, 0.0])
        self._check()

    def _check(self) -> None:
        for event in self.events:
            msgspec.json.encode(event)
            if isinstance(event, MessageReceived):
                device, _, n = event.id.partition(".")
                who, _, text = self.copy.said[device, int(n)]
                assert (event.sender, event.text) == (who, text)
        rows = self._rows()
        assert {name: rows.get(name) for name in self._before} == self._before

    def _rows(self) -> dict[tuple[str, int], tuple[Any, ...]]:
        rows = self.alice.vault.execute(
            "SELECT device, n, conversation, sender, own, text FROM messages WHERE unreadable = 0"
        )
        return {(row[0], row[1]): row[2:] for row in rows}

    def ends(self) -> None:
        """It tries again, or has said why it does not; and stops."""
        tries = len(self.enemies)
        self.is_deaf = False
        if self.enemies and self.enemies[-1].transport.is_open:
            self.enemies[-1].transport.abortConnection()
        self.clock.pump([0.0, 0.0, 0.0, LONGEST_WAIT + 1, 0.0])
        if self.connection._over.called:
            assert [one for one in self.events if isinstance(one, Disconnected)][-1].retry_in is None
        else:
            assert len(self.enemies) > tries, "it tries no more"
        over: list[None] = []
        Deferred.fromCoroutine(self.connection.stop()).addCallback(over.append)
        self.clock.pump([1.0] * 8)
        assert over, "it does not stop"
        left = [call for call in self.clock.getDelayedCalls() if not self._is_of_the_wire(call)]
        assert not left, left
        self._check()

    @staticmethod
    def _is_of_the_wire(call: Any) -> bool:
        return isinstance(getattr(call.func, "__self__", None), End)


def check(moves: list[tuple[Any, ...]]) -> None:
    with clean_log():
        world = World()
        try:
            for move in moves:
                world.does(move)
            world.ends()
        finally:
            world.copy.close()


@cache
def _inputs() -> st.SearchStrategy[list[tuple[Any, ...]]]:
    heard = [message for _, message in past().heard]
    welcome = next(one for one in heard if isinstance(one, wire.Welcome))
    ready = next(one for one in heard if isinstance(one, wire.Ready))
    messages = Values(
        {
            wire.Name: ["alice", "bob", "nobody"],
            wire.DeviceId: list(past().scene.network.devices),
            wire.ServiceAddress: [SERVICE],
            wire.Welcome: [msgspec.structs.replace(welcome, re=number) for number in (1, 1, 2)],
            wire.Ready: [msgspec.structs.replace(ready, re=number) for number in (2, 2, 3)],
            wire.Checkpoint: [ready.checkpoint],
        }
    ).message(wire.ServerMessage)
    assigned = wire.encode(wire.Assigned(1, SERVICE, "lease", 10.0, (SERVICE,)))
    proper = [
        assigned,
        wire.encode(msgspec.structs.replace(welcome, re=1)),
        wire.encode(msgspec.structs.replace(ready, re=2)),
        *(wire.encode(one) for one in heard[-10:]),
    ]
    lines = st.lists(st.sampled_from(proper) | line_of(said("S"), messages.map(wire.encode)), min_size=1, max_size=6)
    says = st.tuples(st.just("says"), lines, st.just([]) | edits, pieces)
    # The way in, as it should be: what follows is heard at login, or by somebody who is in.
    way_in: Any = [("says", [proper[number]], [], []) for number in range(3)]
    begins = st.integers(0, 3).map(lambda count: way_in[:count])
    move = st.one_of(
        says,
        says,
        says,
        st.tuples(st.just("hangs up"), st.booleans()),
        st.tuples(st.just("reads"), st.booleans()),
        st.tuples(st.just("is deaf"), st.booleans()),
        st.tuples(st.just("writes"), st.sampled_from(("bob", "nobody"))),
        st.tuples(st.just("passes"), st.sampled_from((1.0, 3.0, 31.0, 90.0))),
        st.just(("hurries",)),
    )
    return st.builds(list.__add__, begins, st.lists(move, max_size=8) | st.lists(move, min_size=9, max_size=20))


TARGETS = (Target("connection", _inputs, check, 25),)
