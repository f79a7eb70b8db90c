"""The session machine alone: a place for it to live, and peers that talk to it through the codec and write down what
they hear. No shells, no client; a `Clock`, a store that can be slow, away or broken, and real signatures."""

from __future__ import annotations

import os
from typing import Any, TypeVar

from msgspec import Raw
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from fastchat.accounts import Accounts
from fastchat.attachments import Attachments
from fastchat.bus.local import LocalBus
from fastchat.config import AttachmentLimits, Config, Limits
from fastchat.delivery import Counters, Delivery
from fastchat.directory import Directory
from fastchat.errors import ProtocolError
from fastchat.groups import Groups
from fastchat.identity.invite import invite_digest
from fastchat.identity.login import ChannelBinding
from fastchat.limits import Claims, LoginFailures
from fastchat.protocols import wire
from fastchat.protocols.line import CLOSE_SECONDS
from fastchat.protocols.session import Session, State
from fastchat.store.memory import MemoryStore
from tests.support.away import AwayStore
from tests.support.delivery import now
from tests.support.people import PASSWORD, OwnDevice, Person, scram_client
from tests.support.rules import INVITE, LOG_KEY

END_POINT = b"e" * 32
BODY = Raw(b'"AQID"')

Kind = TypeVar("Kind")


class BreakingStore(AwayStore):
    """One that can also be broken: then every call raises what a mistake of ours would."""

    broken = False

    def __getattr__(self, name: str) -> Any:
        call = super().__getattr__(name)

        async def perhaps(*args: Any, **kwargs: Any) -> Any:
            if self.broken:
                raise ZeroDivisionError("a secret of the server's")
            return await call(*args, **kwargs)

        return perhaps


class Place:
    """A `fastchat.protocols.session.Service`, with alice, bob and carol as its users."""

    name = "chat-1"

    def __init__(self, folder: Any, **limits: Any) -> None:
        self.limits = Limits(**limits)
        self.clock = Clock()
        self.reactor: Any = self.clock
        self.memory = MemoryStore(Config(home=folder, limits=self.limits), self.clock.seconds)
        self.store: Any = BreakingStore(self.memory)
        self.bus = LocalBus()
        self.accounts = Accounts(self.store, LOG_KEY)
        self.directory = Directory(self.store, LOG_KEY)
        self.delivery = Delivery(self.store, self.bus, self.clock, self.limits, self.clock.seconds)
        self.groups = Groups(self.store, self.bus, self.limits, self.clock.seconds)
        self.takes_files()
        self.bus.watch(self.accounts.forget)
        self.failures = LoginFailures(self.clock.seconds, self.limits.login_failures_per_minute)
        self.claims = Claims(
            self.clock.seconds, self.limits.claims_per_second, self.limits.claims_burst, self.limits.claims_of_one
        )
        self.counters = Counters()
        self.greetings: list[tuple[Session, str]] = []
        self.endings: list[Session] = []
        now(self.memory.add_invite(invite_digest(INVITE), None, None))

    def takes_files(self, **limits: Any) -> None:
        """From now on with these limits, and as a new process would that knows only what is stored."""
        self.attachments = Attachments(
            self.store, AttachmentLimits(**{"chunks_in_flight": 16, **limits}), self.clock, self.clock.seconds
        )

    def greeted(self, session: Session, lease: str) -> None:
        self.greetings.append((session, lease))

    def ended(self, session: Session) -> None:
        self.endings.append(session)

    def mailbox(self, device: str) -> list[int]:
        """The `n` of what is stored for a device."""
        return [waiting.n for waiting in now(self.memory.mailbox(device, [], 1000))]

    def is_attached(self, device: str) -> bool:
        """Whether messages for the device are offered to anybody."""
        return device in self.bus._inboxes


class Peer:
    """The other end of one session; the session's `Pipe`."""

    def __init__(self, place: Place, exporter: bytes = b"", challenge: bytes = b"", address: str = "192.0.2.7") -> None:
        self.MAX_LENGTH = wire.MAX_LINE_BEFORE_LOGIN
        self.is_writable = True
        self.is_known = False
        self.takes_bytes = False
        self.heard: list[Any] = []
        self.is_closed = False
        self.is_aborted = False
        self.place = place
        self.exporter = exporter or os.urandom(32)
        self.challenge = challenge or os.urandom(32)
        self.client: Any = None
        """Its side of a password login that was begun."""
        self.binding = ChannelBinding(self.exporter, END_POINT)
        self._id = 0
        self._is_lost = False
        self._grace: Any = None
        self.session = Session(place, self, address, lambda: self.binding, self.challenge)

    # --- fastchat.protocols.line.Pipe

    def send(self, message: Any) -> None:
        if not isinstance(message, wire.WithBytes):
            self.send_line(wire.encode(message))
        elif not self.is_closed:
            assert len(message.data) == wire.CHUNK_SIZE
            self.heard.append(message)

    def send_line(self, line: bytes) -> None:
        assert b"\n" not in line
        assert len(line) <= wire.MAX_LINE
        if not self.is_closed:
            self.heard.append(wire.decode_server_message(line))

    def close(self, grace: float = CLOSE_SECONDS) -> None:
        if not self.is_closed:
            self.is_closed = True
            self._grace = self.place.clock.callLater(grace, self.abort)

    def abort(self) -> None:
        self.is_closed = self.is_aborted = True
        self.place.clock.callLater(0, self.hangs_up)

    # --- what it does

    def next_id(self) -> int:
        self._id += 1
        return self._id

    def says(self, message: Any) -> list[Any]:
        """Answers with what is heard at once."""
        if not isinstance(message, wire.WithBytes):
            return self.says_line(wire.encode(message))
        before = len(self.heard)
        self.session.received(message)
        return self.heard[before:]

    def says_line(self, line: bytes) -> list[Any]:
        before = len(self.heard)
        try:
            message = wire.decode_client_message(line)
        except ProtocolError as error:
            self.session.bad_frame(error)
        else:
            self.session.received(message)
        return self.heard[before:]

    def hangs_up(self) -> None:
        """The connection is gone."""
        if not self._is_lost:
            self.is_closed = self._is_lost = True
            if self._grace is not None and self._grace.active():
                self._grace.cancel()
            self.session.lost()

    def asks(self, message: Any, kind: type[Kind]) -> Kind:
        """The one answer, which is of this kind and names the request."""
        [answer] = self.says(message)
        assert isinstance(answer, kind), answer
        assert answer.re == message.id  # type: ignore[attr-defined]
        return answer

    def refused(self, message: Any) -> wire.Error:
        """The one answer, which is an error."""
        return self.asks(message, wire.Error)

    # --- the usual

    def greets(self, lease: str = "") -> wire.Welcome:
        return self.asks(wire.Hello(self.next_id(), wire.VERSION, lease), wire.Welcome)

    def login(self, device: OwnDevice) -> wire.Login:
        """The request."""
        login = device.login(self.exporter, self.challenge)
        return wire.Login(self.next_id(), login.user, login.device, login.signature)

    def logs_in(self, device: OwnDevice) -> wire.Ready:
        """`ready`; what was waiting is handed over right behind it."""
        self.greets()
        ready, *waiting = self.says(self.login(device))
        assert isinstance(ready, wire.Ready), ready
        assert all(isinstance(message, wire.Message) for message in waiting)
        return ready

    def proves(self, user: str, password: str = PASSWORD, end_point: bytes = END_POINT) -> Any:
        """Both steps of the password login; the answer to the last one."""
        client = scram_client(user, password, end_point)
        first = self.asks(wire.ScramRequest(self.next_id(), client.get_client_first()), wire.ScramAnswer)
        client.set_server_first(first.message)
        [answer] = self.says(wire.ScramRequest(self.next_id(), client.get_client_final()))
        return answer

    def send_to(self, n: int, *devices: str) -> wire.Send:
        """A message for these devices, as a request."""
        return wire.Send(self.next_id(), n, tuple(wire.Recipient(device, BODY) for device in devices))

    def messages(self) -> list[int]:
        """The `n` of what was handed over."""
        return [message.n for message in self.heard if isinstance(message, wire.Message)]

    def receives(self) -> None:
        """All of it."""
        self.says(wire.Received(max(message.k for message in self.heard if isinstance(message, wire.Message))))


class SessionCase(SynchronousTestCase):
    """A place, and alice, bob and carol with an account and a device each."""

    def setUp(self) -> None:
        self.place = self.new_place()

    def new_place(self, **limits: Any) -> Place:
        place = Place(self.mktemp(), **limits)
        self.people = {name: Person(name) for name in ("alice", "bob", "carol")}
        for person in self.people.values():
            now(place.accounts.register(person.register(INVITE)))
        self.alice, self.bob, self.carol = (person.device for person in self.people.values())
        place.delivery.start()
        self.addCleanup(lambda: now(place.delivery.stop()))
        return place

    def peer(self, place: Place | None = None, **options: Any) -> Peer:
        return Peer(place or self.place, **options)

    def online(self, device: OwnDevice, place: Place | None = None) -> Peer:
        peer = self.peer(place)
        peer.logs_in(device)
        return peer

    def passes(self, seconds: float, place: Place | None = None) -> None:
        clock = (place or self.place).clock
        clock.pump([0.5] * round(seconds * 2))

    def assert_ended(self, peer: Peer, code: str) -> None:
        """The last thing said was this error, and the connection is closed."""
        self.assertEqual(peer.heard[-1].code, code)
        self.assertTrue(peer.is_closed)
        self.assertIs(peer.session.state, State.CLOSED)
