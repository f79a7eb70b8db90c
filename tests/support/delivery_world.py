"""A small world around delivery for tests that draw what happens: two processes over one store, people whose lines
lag and break, and a judge who sees all of it.

The parts that are under test are real: Outgoing, Inbox, MailWriter, MailRemover, the timers, the rows. Around them:

    DelayedStore   every await point of the store is a place where one call may hang, go on, fail, or be left for ever
    Process        one Delivery with a bus and a Clock of its own; when it is killed nothing of it acts any more
    Line           one connection and its session on the server: what is on the way in each direction can lag or be lost
    Person         one device: outbox and seen-set survive everything; sends again, lowest first, as the client must
    World          all of them, with a `Judge` who is told what happens

`delivery_machine.py` draws what happens here.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from msgspec import Raw
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from fastchat.bus import Offer
from fastchat.bus.local import LocalBus
from fastchat.config import Config, Limits
from fastchat.delivery import Counters, Delivery, Outgoing
from fastchat.delivery.writer import Settled
from fastchat.errors import Busy, FastChatError, RateLimited
from fastchat.protocols.session import FINISH_SECONDS
from fastchat.protocols.wire import DeviceKeys, Recipient
from fastchat.store import Account, Device, Mail, Stored
from tests.support.delivery import VERIFIER, device_id, now
from tests.support.delivery_judge import Disk, Judge, Message, Name
from tests.support.delivery_store import DelayedStore, Pause, Rows

NOBODY = "nobody"
"""Who has no device. Messages may be addressed to it."""

UNACCEPTED = 4
"""Sends of a session that may be open. A client that keeps to it has fewer on the way; these have a few more."""
ON_THE_WAY = 6
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
        self.inbox = process.delivery.open_inbox(device_id(person.name), self._deliver, self.close)

    # --- the session -------------------------------------------------------------------------------------------------

    def send(self, n: int, message: Message) -> None:
        recipients = [Recipient(device_id(to), Raw(message.body)) for to in message.to]
        if self.outgoing.unaccepted >= UNACCEPTED:
            self.outgoing.refuse(n, recipients)
            self._answer(n, RateLimited(retry_after=RETRY_SECONDS))
        else:
            self.outgoing.send(n, recipients, partial(self._done, n))

    def _done(self, n: int, error: FastChatError | None) -> None:
        devices = error.devices if isinstance(error, Busy) else ()
        self.world.judge.answers(Name(self.person.name, n), error, {self.world.owner(device) for device in devices})
        self._answer(n, error)

    def _answer(self, n: int, error: FastChatError | None) -> None:
        if self.is_open:
            self.down.append(lambda: self.person.answered(self, n, error))

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


# --- people -----------------------------------------------------------------------------------------------------------


class _Queue:
    """One conversation in an outbox, as the client keeps it."""

    def __init__(self) -> None:
        self.waiting: list[int] = []
        self.on_the_way: set[int] = set()


class Person:
    """One device, with what its client remembers while it runs."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.line: Line | None = None
        self.is_leaving = False
        self.disk = Disk()
        self.queues: dict[str, _Queue] = {}
        self.refused: dict[str, float] = {}
        """Recipients for whom something was refused for now, until when nothing goes to them."""
        self.under_way = Counter[str]()
        """By recipient: sends without an answer."""

    # --- sending -----------------------------------------------------------------------------------------------------

    def write(self, conversation: str, to: tuple[str, ...], size: int) -> None:
        n = len(self.disk.written) + 1
        self.disk.written[n] = Message(conversation, to, b'"' + str(n).zfill(size).encode() + b'"')
        self.queues.setdefault(conversation, _Queue()).waiting.append(n)

    def pump(self) -> bool:
        """Send what may go now, lowest number first; whether anything went."""
        line, moved = self.line, False
        if self.is_leaving:
            if not any(self.under_way.values()):
                self.hang_up()
            return False
        while line is not None and sum(len(queue.on_the_way) for queue in self.queues.values()) < ON_THE_WAY:
            ready = [queue for queue in self.queues.values() if self._may_go(queue)]
            if not ready:
                break
            queue = min(ready, key=self.head)
            n = self.head(queue)
            queue.waiting.remove(n)
            queue.on_the_way.add(n)
            message = self.disk.written[n]
            self.under_way.update(message.to)
            for to in message.to:
                self.refused.pop(to, None)
            line.up.append(partial(line.send, n, message))
            moved = True
        return moved

    def _may_go(self, queue: _Queue) -> bool:
        """After `busy`, nothing goes to a device until all that was on its way to it has been answered."""
        return bool(queue.waiting) and not any(
            to in self.refused and (self.under_way[to] or self.refused[to] > self.world.seconds)
            for to in self.disk.written[self.head(queue)].to
        )

    def head(self, queue: _Queue) -> int:
        return min(queue.waiting)

    def answered(self, line: Line, n: int, error: FastChatError | None) -> None:
        message = self.disk.written[n]
        queue = self.queues[message.conversation]
        queue.on_the_way.discard(n)
        self.under_way.subtract(message.to)
        if error is not None and error.retry_after is not None:
            queue.waiting.append(n)
            for to in message.to:
                self.refused[to] = max(self.refused.get(to, 0.0), self.world.seconds + error.retry_after)
        elif error is not None:
            self.disk.failed.add(n)

    def asked_to_leave(self) -> None:
        self.is_leaving = True

    def hang_up(self) -> None:
        """The connection is gone on this side; whether the server knows is another matter."""
        self.line = None
        self.is_leaving = False
        for queue in self.queues.values():
            queue.waiting = sorted({*queue.waiting, *queue.on_the_way})
            queue.on_the_way.clear()
        self.refused.clear()
        self.under_way.clear()

    @property
    def has_unsent(self) -> bool:
        return any(queue.waiting or queue.on_the_way for queue in self.queues.values())

    # --- receiving ---------------------------------------------------------------------------------------------------

    def take(self, line: Line, k: int, offer: Offer) -> None:
        """Commit one message and say so."""
        name = self.world.name(offer.device, offer.n)
        if not self.has_seen(name):
            self.world.judge.sees(self.name, name, bytes(offer.body))
            self.disk.seen.add(name)
        line.up.append(partial(line.receipt, k))

    def has_seen(self, name: Name) -> bool:
        return name in self.disk.seen


# --- all of it --------------------------------------------------------------------------------------------------------


class World:
    def __init__(self, people: Sequence[str], limits: Limits, is_joined: bool) -> None:
        """`people`: each has one device. `is_joined`: whether a ring at one process reaches the other."""
        self.is_joined = is_joined
        self.limits = limits
        self.seconds = 0.0
        self.rows = Rows(Config(home=Path("unused"), limits=limits))
        self.held: set[str] = set()
        """Points at each of which the next call hangs."""
        self.paused: list[Pause] = []
        self.late: list[Callable[[], object]] = []
        """What the database has yet to do although who asked for it is gone or has given up."""
        self.people = {name: Person(self, name) for name in people}
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
