"""The client's connection: the balancer, then a service, then login, and again when it is gone. With `dial.py`, the
only part that touches sockets.

It drives the core: what a service says goes in, what the core wants said goes out, and its events go to the face.
It decides where to connect and when; what is said, and what an answer means, the core alone decides. Waits and
choices come from the reactor and the random source that it is given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import Any, Protocol

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from fastchat.errors import (
    CertificateMismatch,
    FastChatError,
    Unreachable,
)
from fastchat.identity.invite import host_and_port
from fastchat.identity.login import ChannelBinding
from fastchat.protocols.wire import (
    Assign,
    Assigned,
    ClientMessage,
    Error,
    GoAway,
    ServerMessage,
    ServiceAddress,
    WithBytes,
    exception_from,
)
from fastchat_client.dial import Line, dial
from fastchat_client.events import Connecting, Disconnected, Event
from fastchat_client.patience import Patience, longest_wait
from fastchat_client.threads import InThread, Threads, in_thread
from fastchat_client.working import Work

TICK_SECONDS = 1.0
ANSWER_SECONDS = 10.0
"""For the balancer's answer."""

STEADY_SECONDS = 5.0
"""A session that lasted so long starts the waits afresh."""

AVOID_SECONDS = 60.0
"""A service that could not be reached, or is going away, is the last choice for so long. The balancer knows better: it
was told first that the latter goes, and whether either is back."""


class Heart(Protocol):
    """What the connection needs of the core (`fastchat_client.core.Core`)."""

    @property
    def ready(self) -> bool: ...

    @property
    def wants_close(self) -> FastChatError | None: ...

    def opened(self, binding: ChannelBinding, lease: str) -> None: ...

    @property
    def transferring(self) -> bool: ...

    def receive(self, message: ServerMessage | WithBytes) -> None: ...

    def closed(self) -> None: ...

    def tick(self) -> None: ...

    def leave(self) -> None: ...

    def take_messages(self) -> list[ClientMessage]: ...

    def next_chunk(self) -> ClientMessage | WithBytes | None: ...

    def take_events(self) -> list[Event]: ...

    def take_work(self) -> list[Work]: ...

    def worked(self, work: Work, result: Any) -> None: ...


class Network(Protocol):
    """Where the network is, as far as is known (`fastchat_client.profile.Profile`)."""

    @property
    def host(self) -> str: ...

    @property
    def port(self) -> int: ...

    @property
    def pin(self) -> bytes: ...

    @property
    def services(self) -> Sequence[ServiceAddress]:
        """The last list that the balancer gave."""

    def remember(self, services: Sequence[ServiceAddress]) -> None: ...


Dial = Callable[[Any, str, int, bytes], Deferred[Line]]


class Connection:
    """Keeps `core` connected from `start` to `stop`. `on_events` is given the core's events, and `Connecting`,
    `Disconnected` and `Moving`, in order, in a turn of its own; it may act on the core, and calls `flush` when it has.
    `longest`: the most seconds that each reconnect waits, of which it waits a random part."""

    log = Logger()

    def __init__(
        self,
        core: Heart,
        network: Network,
        reactor: Any,
        random: Random,
        on_events: Callable[[list[Event]], None],
        dial: Dial = dial,
        longest: Callable[[int], float] = longest_wait,
        in_thread: InThread = in_thread,
    ) -> None:
        self._core = core
        self._network = network
        self._reactor = reactor
        self._random = random
        self._on_events = on_events
        self._dial = dial
        self._longest_wait = longest
        self._threads = Threads(reactor, self._worked, in_thread)
        self._line: Line | None = None
        self._life: Deferred[None] | None = None
        self._over: Deferred[None] = Deferred()
        self._sleep: Deferred[None] | None = None
        self._stopping = False
        self._shown: list[Event] = []
        self._pump_due: Any = None
        self._pumping = False
        self._why_closed: FastChatError | None = None
        self._steady_since: float | None = None
        self._avoid: dict[ServiceAddress, float] = {}

    # --- for the face ----------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Connect, at once."""
        if self._life is None:
            self._life = Deferred.fromCoroutine(self._live())
            self._life.addErrback(self._end_of_life)
            self._life.addCallback(self._finish_work)
            self._life.addCallback(self._is_over)

    def flush(self) -> None:
        """Something was done to the core: say and show, in a later turn, what came of it."""
        self._pump_soon()

    def hurry(self) -> None:
        """A person is waiting: do not sit out the rest of a wait; if it had come to its end, begin again."""
        if self._over.called and not self._stopping:
            self._life, self._over = None, Deferred()
            self.start()
        if self._sleep is not None:
            sleep, self._sleep = self._sleep, None
            sleep.callback(None)

    async def stop(self) -> None:
        """Say what is still to be said, close, and connect no more."""
        if self._life is None or self._stopping:
            return
        self._stopping = True
        if self._line is not None:
            # What the core does by the second, such as telling senders what was read, it does once more.
            self._core.leave()
            self._pump()
            self._line.close()
        else:
            self._life.cancel()
        await self._over

    # --- its life --------------------------------------------------------------------------------------------------

    async def _live(self) -> None:
        patience = Patience(self._reactor.seconds, self._random, self._longest_wait)
        while True:
            problem = await self._round()
            if self._stopping:
                return
            gone = patience.after(problem, self._was_steady())
            self._show(gone)
            if gone.retry_in is None:
                return
            await self._wait(gone.retry_in)

    def _end_of_life(self, failure: Failure) -> None:
        if not (self._stopping and isinstance(failure.value, CancelledError)):
            self.log.failure("the connection's own code failed", failure)
            self._show(Disconnected("internal", "FastChat made a mistake; it is not connected any more", None))

    def _finish_work(self, _: None) -> Deferred[None]:
        """What is done in threads is waited for: it may be what gives a file its name."""
        return Deferred.fromCoroutine(self._threads.finish(self._core.take_work))

    def _worked(self, work: Work, result: Any) -> None:
        self._core.worked(work, result)
        self._pump_soon()

    def _is_over(self, _: None) -> None:
        self._pump()
        if self._pump_due is not None:
            # Whoever waited for the end may close the vault: nothing may be taken from the core after it.
            self._pump_due.cancel()
            self._pump_due = None
        self._over.callback(None)

    def _was_steady(self) -> bool:
        since, self._steady_since = self._steady_since, None
        return since is not None and self._reactor.seconds() - since >= STEADY_SECONDS

    async def _wait(self, seconds: float) -> None:
        """Until `seconds` have passed, or `hurry`."""
        self._sleep = Deferred()
        wake = self._reactor.callLater(seconds, self.hurry)
        try:
            await self._sleep
        finally:
            self._sleep = None
            if wake.active():
                wake.cancel()

    async def _round(self) -> FastChatError:
        """One try at every place there is, until one takes us; then the whole session. Returns why it is over."""
        self._show(Connecting(host_and_port(self._network.host, self._network.port)))
        problem: FastChatError = Unreachable()
        assigned: Assigned | None = None
        try:
            assigned = await self._ask_balancer()
        except FastChatError as error:
            problem = error
        for service, lease in self._places(assigned):
            if self._stopping:
                break
            self._show(Connecting(service.name))
            try:
                line = await self._dial(self._reactor, service.host, service.port, self._network.pin)
            except FastChatError as error:
                self._avoid[service] = self._reactor.seconds() + AVOID_SECONDS
                # Of several reasons, the one that somebody must hear of is told.
                problem = problem if isinstance(problem, CertificateMismatch) else error
                continue
            return await self._session(line, service, lease)
        return problem

    async def _ask_balancer(self) -> Assigned:
        line = await self._dial(self._reactor, self._network.host, self._network.port, self._network.pin)
        answer: Deferred[ServerMessage | WithBytes] = Deferred()

        def received(message: ServerMessage | WithBytes) -> None:
            if not answer.called:
                answer.callback(message)

        def ended(reason: FastChatError) -> FastChatError:
            if not answer.called:
                answer.errback(reason)
            return reason

        line.received = received
        line.ended.addCallback(ended)
        late = self._reactor.callLater(ANSWER_SECONDS, line.fail, Unreachable(f"{line.where} does not answer"))
        try:
            line.send(Assign(id=1))
            message = await answer
        finally:
            if late.active():
                late.cancel()
            line.close()
        if isinstance(message, Assigned):
            self._network.remember(message.services)
            return message
        if isinstance(message, Error):
            raise exception_from(message)
        raise Unreachable(f"{line.where} does not answer as a balancer does")

    def _places(self, assigned: Assigned | None) -> Iterator[tuple[ServiceAddress, str]]:
        """Every service worth a try: the balancer's choice first, then those that it named, in random order; the ones
        to avoid last. A lease is good for the service that it was given for."""
        now = self._reactor.seconds()
        services = list(self._network.services)
        self._random.shuffle(services)
        places = [(service, "") for service in services if assigned is None or service != assigned.service]
        places.sort(key=lambda place: self._avoid.get(place[0], now) > now)
        if assigned is not None:
            places.insert(0, (assigned.service, assigned.lease))
        yield from places

    # --- a session -------------------------------------------------------------------------------------------------

    async def _session(self, line: Line, service: ServiceAddress, lease: str) -> FastChatError:
        def received(message: ServerMessage | WithBytes) -> None:
            if isinstance(message, GoAway):
                self._avoid[service] = self._reactor.seconds() + AVOID_SECONDS
            self._core.receive(message)
            self._pump_soon()

        self._line = line
        self._why_closed = None
        line.received = received
        line.writable = self._writable
        ticks = LoopingCall(self._tick)
        ticks.clock = self._reactor
        self._core.opened(line.binding, lease)
        self._pump_soon()
        ticks.start(TICK_SECONDS, now=False).addErrback(self._tick_failed, line)
        try:
            reason = await line.ended
        finally:
            if ticks.running:
                ticks.stop()
            self._line = None
            self._core.closed()
            # What was heard last, an error that says why, is still the core's to judge.
            problem = self._why_closed or self._core.wants_close
            self._pump_soon()
        return problem or reason

    def _tick(self) -> None:
        self._core.tick()
        self._pump()

    def _tick_failed(self, failure: Failure, line: Line) -> None:
        self.log.failure("a tick failed", failure)
        line.fail(Unreachable("the connection was given up after a mistake of FastChat's own"))

    def _writable(self, writable: bool) -> None:
        """A service that does not read is not read from either: so nothing piles up here, neither its messages nor
        our answers. If it stays so, the core hears no pong and gives it up. But while a file is on its way it is that
        which fills the line, and each side would wait for the other to read."""
        if self._line is not None:
            self._line.read_on(writable or self._core.transferring)
        if writable:
            self._pump_soon()

    def _pump_soon(self) -> None:
        """Once for all the messages that this turn brings: receipts are cumulative, so one answers many."""
        if self._pump_due is None:
            self._pump_due = self._reactor.callLater(0, self._pump_now)

    def _pump_now(self) -> None:
        self._pump_due = None
        self._pump()

    def _pump(self) -> None:
        if self._pumping:
            return
        self._pumping = True
        try:
            again = True
            while again:
                again = self._say() | self._tell() | self._threads.begin(self._core.take_work())
        finally:
            self._pumping = False
        self._close_if_wanted()

    def _say(self) -> bool:
        line = self._line
        if line is None or not line.is_writable:
            return False
        messages = self._core.take_messages()
        for message in messages:
            line.send(message)
        # Only when nothing else is to be said, and one at a time: so what is said next waits for no more of a file than
        # the line has taken already.
        chunk = self._core.next_chunk() if line.is_writable else None
        if chunk is not None:
            line.send(chunk)
        return bool(messages) or chunk is not None

    def _tell(self) -> bool:
        shown, self._shown = self._shown, []
        events = shown + self._core.take_events()
        if self._core.ready and self._steady_since is None:
            self._steady_since = self._reactor.seconds()
        if events:
            self._on_events(events)
        return bool(events)

    def _close_if_wanted(self) -> None:
        if self._line is not None and self._why_closed is None and self._core.wants_close is not None:
            self._why_closed = self._core.wants_close
            self._line.close()

    def _show(self, event: Event) -> None:
        self._shown.append(event)
        self._pump_soon()
