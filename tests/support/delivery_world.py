"""A small world around delivery for tests that draw what happens: two processes over one store, people whose lines
lag and break, and a judge who sees all of it.

The parts that are under test are real: Outgoing, Inbox, MailWriter, MailRemover, the timers, the rows. Around them:

    DelayedStore   every await point of the store is a place where one call may hang, go on, fail, or be left for ever
    Process        one Delivery with a bus and a Clock of its own; when it is killed nothing of it acts any more
    Line           one connection and its session on the server: what is on the way in each direction can lag or be lost
    Person         one device: outbox and seen-set survive everything; what it sends when, the client's sender says
    World          all of them, with a `Judge` who is told what happens

`delivery_machine.py` draws what happens here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from fastchat.bus import Offer
from fastchat.bus.local import LocalBus
from fastchat.config import Config, Limits
from fastchat.delivery import Counters, Delivery, Outgoing
from fastchat.delivery.writer import Settled
from fastchat.errors import Busy, FastChatError, RateLimited
from fastchat.protocols.session import FINISH_SECONDS
from fastchat.protocols.wire import DeviceKeys, Send, error_from
from fastchat.store import Account, Device, Mail, Stored
from tests.support.delivery import VERIFIER, device_id, now
from tests.support.delivery_judge import Judge, Name
from tests.support.delivery_person import Person
from tests.support.delivery_store import DelayedStore, Pause, Rows

NOBODY = "nobody"
"""Who has no device. Messages may be addressed to it."""

UNACCEPTED = 4
"""Sends of a session that may be open. A client that keeps to it has fewer on the way; these have a few more."""
RETRY_SECONDS = 0.5


# --- a process, and the lines to it -----------------------------------------------------------------------------------


class RingingBus(LocalBus):
    """The bus of one process. Its rings reach the other process too, if they are joined."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world

    def ring(self, device: str) -> None:
        if self._world.is_joined:
            for process in self._world.processes:
                LocalBus.ring(process.bus, device)
        else:
            super().ring(device)


class Process:
    def __init__(self, world: World) -> None:
        self.clock = Clock()
        self.clock.advance(world.seconds)
        self.bus = RingingBus(world)
        store: Any = DelayedStore(world, self)
        self.delivery = Delivery(store, self.bus, self.clock, world.limits, now=self.clock.seconds)
        writer: Any = self.delivery.writer
        self._world, self._put = world, writer.put
        writer.put = self._put_and_tell
        self.delivery.start()
        self.lines: list[Line] = []
        self.outgoing: list[Outgoing] = []
        """Of all sessions there were: they outlive them."""

    def _put_and_tell(self, mail: Mail, settled: Settled) -> None:
        def told(error: FastChatError | None) -> None:
            self._world.writer_tells(mail, error)
            settled(error)

        self._put(mail, told)


class Line:
    """One connection of a person to a process, with its session there. Things on the way keep their order."""

    def __init__(self, world: World, person: Person, process: Process) -> None:
        self.world = world
        self.person = person
        self.process = process
        self.lags_up = self.lags_down = False
        self.up: deque[Callable[[], None]] = deque()
        """On the way to the server: what will happen there."""
        self.down: deque[Callable[[], None]] = deque()
        self.is_open = True
        """On the server's side."""
        self.is_writable = True
        self.is_leaving = False
        self._sizes: dict[int, int] = {}
        """By k, what was handed over and has no receipt yet."""
        process.lines.append(self)
        self.outgoing = process.delivery.outgoing(person.name, device_id(person.name), Counters())
        process.outgoing.append(self.outgoing)
        self.inbox = process.delivery.open_inbox(device_id(person.name), self._deliver, self._say, self.close)

    # --- the session -------------------------------------------------------------------------------------------------

    def send(self, send: Send) -> None:
        if self.outgoing.unaccepted >= UNACCEPTED:
            self.outgoing.refuse(send.n, send.to)
            self._answer(send, RateLimited(retry_after=RETRY_SECONDS))
        else:
            self.outgoing.send(send.n, send.to, partial(self._done, send))

    def _done(self, send: Send, error: FastChatError | None) -> None:
        to = [self.world.owner(recipient.device) for recipient in send.to]
        missing = {self.world.owner(device) for device in error.devices} if error else set()
        self.world.judge.answers(Name(self.person.name, send.n), to, error, missing)
        self._answer(send, error)

    def _answer(self, send: Send, error: FastChatError | None) -> None:
        if self.is_open:
            wire = None if error is None else error_from(error)
            self.down.append(lambda: self.person.answered(send.id, wire))

    def _deliver(self, k: int, offer: Offer) -> None:
        if not self.is_open or not self.is_writable or self.is_leaving:
            self.world.judge.violate("window", f"{self.person.name}, who takes nothing, is handed {offer.n}")
        size = len(memoryview(offer.body))
        self._sizes[k] = size
        limits = self.world.limits
        if len(self._sizes) > 1 and (
            len(self._sizes) > limits.window_messages or sum(self._sizes.values()) > limits.window_bytes
        ):
            self.world.judge.violate("window", f"{self.person.name} has {len(self._sizes)} messages without a receipt")
        self.down.append(lambda: self.person.take(self, k, offer))

    def _say(self, line: bytes) -> None:
        raise AssertionError("nobody whispers here")

    def receipt(self, upto: int) -> None:
        for k in [k for k in self._sizes if k <= upto]:
            del self._sizes[k]
        self.inbox.received(upto)
        if any(message.k <= upto for message in self.inbox._handed):
            self.world.judge.violate(
                "receipt", f"{self.person.name} has received up to {upto}, which counts for nothing"
            )

    def set_writable(self, writable: bool) -> None:
        if self.is_open:
            self.is_writable = writable
            self.inbox.set_writable(writable)

    def leave(self, is_heard: bool) -> None:
        """The server asks the person to log in elsewhere. Who hears it sends nothing more, and goes when all is
        answered; in the end the server closes the connection."""
        if not self.is_leaving:
            self.is_leaving = True
            self.inbox.retire()
            self.process.clock.callLater(FINISH_SECONDS, self.close)
            if is_heard:
                self.down.append(self.person.asked_to_leave)

    def close(self) -> None:
        """The server notices that the connection is gone."""
        if self.is_open:
            self.is_open = False
            self.up.clear()
            self.process.lines.remove(self)
            self.inbox.close()
            if self.person.line is self:
                self.person.hang_up()

    # --- on the way --------------------------------------------------------------------------------------------------

    def arrive(self, direction: str) -> bool:
        """Let one thing arrive at its end; whether there was one. What a server says to who has gone is lost."""
        queue = self.up if direction == "up" else self.down
        if not queue or (direction == "down" and self.person.line is not self):
            return False
        queue.popleft()()
        return True

    def flow(self) -> bool:
        """Everything that does not lag arrives; whether anything did."""
        moved = False
        while (not self.lags_up and self.arrive("up")) or (not self.lags_down and self.arrive("down")):
            moved = True
        return moved


# --- all of it --------------------------------------------------------------------------------------------------------


class World:
    def __init__(
        self, people: Sequence[str], own: Mapping[str, Collection[str]], limits: Limits, is_joined: bool
    ) -> None:
        """`people`: each is one device; `own`: whose other devices of the same user are known to it. `is_joined`:
        whether a ring at one process reaches the other."""
        self.is_joined = is_joined
        self.limits = limits
        self.seconds = 0.0
        self.rows = Rows(Config(home=Path("unused"), limits=limits))
        self.held: set[str] = set()
        """Points at each of which the next call hangs."""
        self.paused: list[Pause] = []
        self.late: list[Callable[[], object]] = []
        """What the database has yet to do although who asked for it is gone or has given up."""
        self.people = {name: Person(self, name, own.get(name, ())) for name in people}
        self._names = {device_id(name): name for name in (*people, NOBODY)}
        for name in people:
            now(self.rows.add_invite(name.encode(), None, None))
            device = Device(device_id(name), name, name.encode().ljust(32), name.encode().ljust(32))
            now(self.rows.register(Account(name, b"pem", VERIFIER), device, [], DeviceKeys(), [], name.encode()))
        self.judge = Judge({name: person.disk for name, person in self.people.items()}, self.mailbox)
        self.processes = [Process(self), Process(self)]

    def owner(self, device: str) -> str:
        return self._names[device]

    def name(self, device: str, n: int) -> Name:
        return Name(self._names[device], n)

    def mailbox(self, person: str) -> set[Name]:
        return {self.name(device, n) for device, n in self.rows.names(device_id(person))}

    def note_outcomes(self, batch: Sequence[Mail], outcomes: Sequence[Stored]) -> None:
        """A process is told what the store has made of a batch."""
        for mail, outcome in zip(batch, outcomes, strict=True):
            if outcome is not Stored.STORED:
                self.judge.store_refuses(self._names[mail.recipient], self.name(mail.device, mail.n))

    def writer_tells(self, mail: Mail, error: FastChatError | None) -> None:
        self.judge.writer_tells(self._names[mail.recipient], self.name(mail.device, mail.n), error)

    # --- what happens ------------------------------------------------------------------------------------------------

    @property
    def lines(self) -> list[Line]:
        """All that a server still knows."""
        return [line for process in self.processes for line in process.lines]

    def flow(self) -> None:
        """Until everything has moved that needs no time and does not lag."""
        moved = True
        while moved:
            moved = any([line.flow() for line in self.lines] + [person.pump() for person in self.people.values()])

    def login(self, person: Person, process: Process) -> Line:
        """A new connection; the person has given up the older one, whether its server knows that or not."""
        person.hang_up()
        person.line = Line(self, person, process)
        return person.line

    def kill(self, process: Process) -> None:
        """Nothing of it acts any more, and what it waited for never comes. Another one takes its place at once."""
        mine = [pause for pause in self.paused if pause.process is process]
        self.paused = [pause for pause in self.paused if pause.process is not process]
        self.late.extend(pause.rest for pause in mine if pause.rest is not None)
        for line in process.lines:
            line.is_open = False
            if line.person.line is line:
                line.person.hang_up()
        self.processes[self.processes.index(process)] = Process(self)

    def stop(self, process: Process) -> None:
        """Ask it to stop, as twistd would; it is killed when it has not been able to finish at once."""
        for line in list(process.lines):
            line.close()
        Deferred.fromCoroutine(process.delivery.stop())
        self.kill(process)

    def advance(self, seconds: float) -> None:
        self.seconds += seconds
        for process in self.processes:
            process.clock.advance(seconds)

    def go_on(self, pause: Pause) -> None:
        self.paused.remove(pause)
        pause.go_on.callback(None)

    def fail(self, pause: Pause) -> None:
        """A call misses its deadline; what the database has yet to do of it, it may still do."""
        self.paused.remove(pause)
        if pause.rest is not None:
            self.late.append(pause.rest)
        pause.go_on.errback(Busy())
