"""One chat connection: its states and its command table. No sockets, no TLS, no SQL.

    OPEN ──hello──▶ GREETED ──login──▶ READY        any state ──▶ CLOSED
                     │   ▲
                     │   └─ register (then login)
                     └─ scram, scram ──▶ PROVEN ── add_device ──▶ GREETED

What may be said when is the table `COMMANDS`, and nothing else decides it. Before READY, requests are taken one at a
time and the first error ends the connection; after it, errors answer their request and the session goes on. A session
talks to a `Pipe` (what it says), a `Service` (where it lives) and the rules of floor 2 (what it may have).
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from enum import Enum
from typing import Any, NamedTuple

from msgspec import UNSET, UnsetType
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from fastchat.errors import (
    FastChatError,
    FrameTooLong,
    Internal,
    LoginTimeout,
    OutOfTurn,
    ProtocolError,
    RateLimited,
    Replaced,
)
from fastchat.identity.login import ChannelBinding
from fastchat.limits import TokenBucket
from fastchat.protocols.entrance import Entrance
from fastchat.protocols.line import CLOSE_SECONDS, Pipe
from fastchat.protocols.service import Service
from fastchat.protocols.traffic import Traffic
from fastchat.protocols.wire import (
    MAX_LINE,
    AddDevice,
    Attach,
    AttachmentFor,
    Chunk,
    ClientMessage,
    Detach,
    Fetch,
    Fetched,
    GoAway,
    GroupAct,
    GroupLogRequest,
    GroupSend,
    GroupsRequest,
    GroupWhisper,
    Hello,
    KeysRequest,
    Login,
    LogRequest,
    Ping,
    Pong,
    Publish,
    Received,
    Register,
    Revoke,
    ScramRequest,
    Send,
    ServerMessage,
    Whisper,
    WithBytes,
    error_from,
)

BAD_FRAMES = 10
"""Lines that are not messages, after login, before the connection is ended."""

PENDING_REQUESTS = 16
"""Requests of one session that may wait for the database at once."""

FINISH_SECONDS = 3.0
"""When the service stops, for a session to finish what is in flight. What was handed over by others is received within
`receipt_seconds`, or stored; so both are over by then, unless the database is slow."""

LEAVE_SECONDS = 0.5
"""For the other side to take what was said last, when the service stops."""


class State(Enum):
    OPEN = "open"
    GREETED = "greeted"
    PROVEN = "proven"
    WAITING = "waiting"
    """A request before login is being worked on; nothing may be said until it is answered."""
    READY = "ready"
    CLOSED = "closed"


class Session:
    """Owns a line shell's messages (`fastchat.protocols.line.Owner`, but for the shell's `connected`). `binding` is
    asked once the first message is here: then TLS has shaken hands. `challenge`: 32 random bytes. `waited`: seconds
    of the time for the login that have passed already."""

    log = Logger()

    def __init__(
        self,
        service: Service,
        pipe: Pipe,
        address: str,
        binding: Callable[[], ChannelBinding],
        challenge: bytes,
        waited: float = 0.0,
    ) -> None:
        self.state = State.OPEN
        self._service = service
        self._pipe = pipe
        self._entrance = Entrance(service, address, binding, challenge)
        self._frames = self._bad_frames = 0
        self._pending = 0
        self._leaving = False
        self._login_number = 0
        self._heard = True
        self._silent = 0.0
        self._stuck = 0.0
        self._traffic: Traffic | None = None
        limits = service.limits
        self._requests = TokenBucket(limits.requests_per_second, limits.requests_burst, service.reactor.seconds)
        self._timer: IDelayedCall | None = service.reactor.callLater(
            max(0.0, limits.login_seconds - waited),
            self.end,
            LoginTimeout(f"no login within {limits.login_seconds:g} seconds"),
        )

    # --- what the connection reports ---------------------------------------------------------------------------------

    def received(self, message: ClientMessage | WithBytes) -> None:
        self._heard = True
        if self.state is State.CLOSED:
            return
        said: Any = message.message if type(message) is WithBytes else message
        command = COMMANDS.get(type(said))
        try:
            if self.state is not State.READY:
                self._count_frame()
            if command is None or self.state not in command.states:
                raise OutOfTurn(f"{type(said).__struct_config__.tag} cannot be said while {self.state.value}")
            if command.cost:
                self._pay(command.cost)
            command.act(self, message)
        except FastChatError as error:
            self._refuse_what_was_said(error, getattr(said, "id", UNSET))

    def bad_frame(self, error: ProtocolError) -> None:
        self._heard = True
        if self.state is State.CLOSED:
            return
        self._bad_frames += 1
        if self.state is State.READY and not isinstance(error, FrameTooLong) and self._bad_frames <= BAD_FRAMES:
            self._pipe.send(error_from(error))
        else:
            self.end(error)

    def writable(self, writable: bool) -> None:
        self._stuck = 0.0
        if self._traffic is not None:
            self._traffic.set_writable(writable)

    def lost(self) -> None:
        """The connection is gone. What was not received goes to mailboxes; what was not accepted is sent again."""
        self.state = State.CLOSED
        self._leaving = True
        self._stop_timer()
        if self._traffic is not None:
            self._traffic.close()
        self._service.ended(self)

    def tick(self, seconds: float) -> None:
        """`seconds` have passed since the last tick: is the other side there, and reading?"""
        limits = self._service.limits
        self._silent = 0.0 if self._heard else self._silent + seconds
        self._heard = False
        self._stuck = 0.0 if self._pipe.is_writable else self._stuck + seconds
        if self._stuck >= limits.slow_reader_seconds or self._silent >= limits.dead_seconds:
            self.log.debug("aborted {device}: silent {silent} s", device=self._entrance.device, silent=self._silent)
            self._pipe.abort()

    # --- ending ------------------------------------------------------------------------------------------------------

    def end(self, error: FastChatError) -> None:
        """Say why, and close; abort if the other side does not take even that."""
        if self.state is State.CLOSED:
            return
        self._pipe.send(error_from(error))
        self._close()

    def leave(self, after: float, reason: str) -> None:
        """The service stops: ask the client to go elsewhere, `after` seconds after it has left. It leaves once what it
        has sent is answered; who has not left in time is closed. Nothing new is handed over meanwhile."""
        if self._leaving:
            return
        self._leaving = True
        if self.state is State.CLOSED:
            self._timer = self._service.reactor.callLater(LEAVE_SECONDS, self._pipe.abort)
            return
        self._pipe.send(GoAway(after=after, reason=reason))
        if self._traffic is None:
            self._close(LEAVE_SECONDS)
        else:
            self._traffic.inbox.retire()
            self._timer = self._service.reactor.callLater(FINISH_SECONDS, self._close, LEAVE_SECONDS)

    def _close(self, grace: float = CLOSE_SECONDS) -> None:
        self.state = State.CLOSED
        self._stop_timer()
        self._pipe.close(grace)
        if self._traffic is not None:
            self._traffic.close()

    def _stop_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()

    def _refuse(self, error: FastChatError, re: int | UnsetType) -> None:
        """Answer a request with an error; before login that is the end of the connection."""
        self._pipe.send(error_from(error, re))
        if self.state is not State.READY:
            self._close()

    def _refuse_what_was_said(self, error: FastChatError, re: int | UnsetType) -> None:
        """The same for what the client could have known, which after login must have an end."""
        if self.state is State.READY and not self._bears_a_refusal():
            self.end(RateLimited("what was refused is asked for again and again"))
        else:
            self._refuse(error, re)

    def _pay(self, cost: int) -> None:
        if not self._requests.take(cost):
            raise RateLimited("too many requests", retry_after=max(0.1, self._requests.wait(cost)))

    def _bears_a_refusal(self) -> bool:
        """To refuse costs as much as to do. Who does not mind being refused runs into a debt; it ends at a burst."""
        requests = self._requests
        requests.spend(1.0, -requests.burst)
        return requests.balance > -requests.burst

    def _count_frame(self) -> None:
        self._frames += 1
        if self._frames > self._service.limits.frames_before_login:
            raise RateLimited("too many messages before the login")

    # --- requests that wait for something ----------------------------------------------------------------------------

    def _ask(self, re: int, answer: Coroutine[Any, Any, ServerMessage], then: State | None = None) -> None:
        """Send what `answer` comes to, or its error. Before login the session then is in state `then`."""
        if then is None and self._pending >= PENDING_REQUESTS:
            answer.close()
            raise RateLimited(f"more than {PENDING_REQUESTS} requests at once")
        self._pending += 1
        if then is not None:
            self.state = State.WAITING
        asked = Deferred.fromCoroutine(answer)
        asked.addCallbacks(self._answer, self._failed, callbackArgs=(then,), errbackArgs=(re,))
        asked.addErrback(lambda failure: self.log.failure("an answer could not be given", failure))

    def _answer(self, message: ServerMessage, then: State | None) -> None:
        self._pending -= 1
        if self.state is State.CLOSED:
            return
        if then is not None:
            self.state = then
        self._pipe.send(message)
        if then is State.READY:
            self._become_ready()

    def _failed(self, failure: Any, re: int) -> None:
        self._pending -= 1
        if failure.check(FastChatError):
            error: FastChatError = failure.value
        else:
            self.log.failure(
                "a request of {user} could not be answered", failure, user=self._entrance.user or "somebody"
            )
            error = Internal()
        if self.state is not State.CLOSED:
            self._refuse(error, re)

    # --- before login ------------------------------------------------------------------------------------------------

    def _hello(self, hello: Hello) -> None:
        welcome = self._entrance.welcome(hello)
        self.state = State.GREETED
        self._service.greeted(self, hello.lease)
        self._pipe.send(welcome)

    def _register(self, request: Register) -> None:
        self._ask(request.id, self._entrance.register(request), State.GREETED)

    def _scram_step(self, request: ScramRequest) -> None:
        then = State.PROVEN if self._entrance.has_begun_scram else State.GREETED
        self._ask(request.id, self._entrance.scram(request), then)

    def _add_device(self, request: AddDevice) -> None:
        self._ask(request.id, self._entrance.add_device(request), State.GREETED)

    def _login(self, request: Login) -> None:
        self._login_number = next(self._service.delivery.logins)
        self._ask(request.id, self._entrance.login(request), State.READY)

    def _become_ready(self) -> None:
        """`ready` has been said; now messages may flow."""
        device = self._entrance.device
        assert device is not None
        self._stop_timer()
        self._pipe.MAX_LENGTH = MAX_LINE
        self._pipe.is_known = True
        self._pipe.takes_bytes = True
        try:
            self._traffic = Traffic(
                self._service,
                self._pipe,
                device,
                self._requests,
                self._replaced,
                self.end,
                self._refuse_what_was_said,
                self._login_number,
            )
        except FastChatError as error:  # it has logged in elsewhere since, or is not to stay
            self.end(error)
            return
        self._traffic.set_writable(self._pipe.is_writable)

    def _replaced(self) -> None:
        if self._leaving:
            self._close()  # it has done as it was asked, and had its reasons to log in there before it left here
        else:
            self.end(Replaced())

    # --- after login -------------------------------------------------------------------------------------------------

    @property
    def _ready(self) -> Traffic:
        assert self._traffic is not None
        return self._traffic

    def _ping(self, ping: Ping) -> None:
        self._pipe.send(Pong(re=ping.id))


class Command(NamedTuple):
    """A row of the table: what is done, in which states it may be asked for, and for how many requests it counts. What
    costs nothing here is bounded otherwise."""

    act: Callable[[Session, Any], None]
    states: frozenset[State]
    cost: int = 0


def _said(say: Callable[[Traffic, Any], None]) -> Callable[[Session, Any], None]:
    """What is answered later, or never."""
    return lambda session, message: say(session._ready, message)


def _asked(answer: Callable[[Traffic, Any], Coroutine[Any, Any, ServerMessage]]) -> Callable[[Session, Any], None]:
    """What waits for the database."""
    return lambda session, request: session._ask(request.id, answer(session._ready, request))


_OPEN, _GREETED = frozenset({State.OPEN}), frozenset({State.GREETED})
_PROVEN, _READY = frozenset({State.PROVEN}), frozenset({State.READY})

COMMANDS: dict[type, Command] = {
    Hello: Command(Session._hello, _OPEN),
    Register: Command(Session._register, _GREETED),
    ScramRequest: Command(Session._scram_step, _GREETED),
    AddDevice: Command(Session._add_device, _PROVEN),
    Login: Command(Session._login, _GREETED),
    KeysRequest: Command(_asked(Traffic.keys), _READY, cost=1),
    Publish: Command(_asked(Traffic.publish), _READY, cost=10),
    Send: Command(_said(Traffic.send), _READY),
    Received: Command(_said(Traffic.received), _READY),
    LogRequest: Command(_asked(Traffic.log), _READY, cost=1),
    Ping: Command(Session._ping, _READY, cost=1),
    Revoke: Command(_asked(Traffic.revoke), _READY, cost=10),
    GroupAct: Command(_asked(lambda ready, act: ready.groups.act(act)), _READY, cost=1),
    GroupsRequest: Command(_asked(lambda ready, request: ready.groups.of(request)), _READY, cost=10),
    GroupLogRequest: Command(_asked(lambda ready, request: ready.groups.statements(request)), _READY, cost=1),
    GroupSend: Command(_said(lambda ready, send: ready.groups.send(send)), _READY),
    Whisper: Command(_said(lambda ready, whisper: ready.groups.whisper(whisper)), _READY),
    GroupWhisper: Command(_said(lambda ready, whisper: ready.groups.whisper(whisper)), _READY),
    Attach: Command(_asked(lambda ready, attach: ready.attachments.attach(attach)), _READY, cost=1),
    Chunk: Command(_said(lambda ready, chunk: ready.attachments.store(chunk)), _READY),
    Fetch: Command(_said(lambda ready, fetch: ready.attachments.fetch(fetch)), _READY),
    AttachmentFor: Command(_asked(lambda ready, expect: ready.attachments.expect(expect)), _READY, cost=1),
    Fetched: Command(_asked(lambda ready, fetched: ready.attachments.fetched(fetched)), _READY, cost=1),
    Detach: Command(_asked(lambda ready, detach: ready.attachments.detach(detach)), _READY, cost=1),
}
