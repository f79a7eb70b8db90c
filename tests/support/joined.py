"""The whole system without sockets, TLS and PostgreSQL: the real client (vault, ratchets, core, connection) and the
real server (sessions, rules, delivery, balancer), joined by the real line shells and codec, driven by a `Clock`.

Scripts are to be read like this:

    alice, bob = net.person("alice"), net.person("bob")
    bob.goes_offline()
    alice.sends("bob", "are you there?")
    net.passes(days=1)
    bob.comes_back()
    bob.sees("alice: are you there?")

Every service is a process of its own, as far as the others can tell: it shares with them the store and the bus and
nothing else, and when it is killed, all that it knew is gone.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from twisted.internet.defer import Deferred, execute, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from fastchat.bus.local import LocalBus
from fastchat.config import AttachmentLimits, Config, Limits
from fastchat.errors import Unreachable
from fastchat.groups import Groups
from fastchat.identity.invite import invite_digest
from fastchat.identity.login import ChannelBinding
from fastchat.placement import Placement
from fastchat.protocols.line import LineShell, Turn
from fastchat.protocols.wire import ServiceAddress, decode_client_message
from fastchat.store.memory import MemoryStore
from fastchat_client.connection import Connection
from fastchat_client.core import Core
from fastchat_client.dial import Line
from fastchat_client.entrance import Enrolment
from fastchat_client.events import Connected, Disconnected, Event, MessageReceived, MessageUnreadable
from fastchat_client.joining import prepare_enrolment, prepare_registration
from fastchat_client.vault import Vault
from tests.support.attaching import attach
from tests.support.away import AwayStore
from tests.support.delivery import now
from tests.support.joined_services import BALANCER, HOST, SERVICES, Question, Service, SessionOwner, never
from tests.support.keys import root_key
from tests.support.wires import End, join

PIN = b"p" * 32
INVITE = "let-me-in"
STEP = 20.0
"""How far a long time is cut: well under what a silent connection may last."""
BEGINNING = 1_800_000_000.0


class JoinedTest(SynchronousTestCase):
    """A test with a network of its own."""

    def setUp(self) -> None:
        self.net = self.network()

    def network(self, **limits: Any) -> Net:
        net = Net(Path(self.mktemp()), **limits)
        self.addCleanup(net.ends)
        return net


class Net:
    """Balancer, services, and the people who use them. Time begins 1.8 thousand million seconds after 1970."""

    def __init__(self, folder: Path, **limits: Any) -> None:
        self.clock = Clock()
        self.clock.advance(BEGINNING)
        self.folder = folder
        self.folder.mkdir(parents=True)
        self.limits = Limits(**limits)
        self.attachment_limits = AttachmentLimits()
        self.wall_ahead = 0.0
        """Seconds by which the wall clock of the services is ahead of the true time."""
        self.memory = MemoryStore(Config(home=folder, limits=self.limits), self.wall)
        self.store = AwayStore(self.memory)
        self.bus = LocalBus()
        self.groups = Groups(self.store, self.bus, self.limits, self.clock.seconds)
        """One for all services: what it remembers is true as long as every change comes through it."""
        self.log_key = Ed25519PrivateKey.generate()
        self.random = Random(11)
        self.placement = Placement("least-connections", self.clock.seconds, self.random, self.limits.lease_seconds)
        self.services = {name: Service(self, name, number) for number, name in enumerate(SERVICES, start=1)}
        self.people: list[Person] = []
        self._is_still = False
        now(self.memory.add_invite(invite_digest(INVITE), None, None))

    # --- the script ----------------------------------------------------------------------------------------------

    def person(self, name: str, *, at: str = "") -> Person:
        """A new account with one device, registered and online; at a service of its own choice, or `at` this one."""
        vault, key, path = self._vault()
        accounts = {person.name for person in self.people}
        root = root_key(len(accounts) % 6)
        log_public = self.log_key.public_key().public_bytes_raw()
        prepare_registration(vault, name, root, log_public, INVITE, f"password of {name}", self._milliseconds())
        return self._enter(Person(self, name, root, path, key, vault, None), at)

    def second_device(self, person: Person, *, at: str = "") -> Person:
        """One more device of the same account, enrolled with its RSA key and its password."""
        vault, key, path = self._vault()
        log_public = self.log_key.public_key().public_bytes_raw()
        prepare_enrolment(vault, person.name, person.root, log_public, self._milliseconds())
        enrolment = Enrolment(person.root, f"password of {person.name}")
        return self._enter(Person(self, person.name, person.root, path, key, vault, enrolment), at)

    def settles(self) -> None:
        """Until nobody has anything to say; no time passes."""
        if not self._is_still:
            self.clock.advance(0)

    @contextmanager
    def same_moment(self) -> Iterator[None]:
        """What is done within is done before anybody has heard of any of it, but for the `turns` that are let pass."""
        self._is_still = True
        try:
            yield
        finally:
            self._is_still = False
        self.settles()

    def turns(self, count: int) -> None:
        """So many turns of the reactor, within a same moment."""
        for _ in range(count):
            if self.clock.calls and self.clock.calls[0].getTime() <= self.clock.seconds():
                call = self.clock.calls.pop(0)
                call.called = 1
                call.func(*call.args, **call.kw)

    def passes(self, seconds: float = 0, *, minutes: float = 0, hours: float = 0, days: float = 0) -> None:
        """Time passes, in seconds, or in bigger steps where it is long."""
        left = seconds + 60 * minutes + 3600 * hours + 86_400 * days
        step = 1.0 if left <= 600 else STEP
        while left > 0:
            self.clock.advance(min(step, left))
            left -= step

    def kills(self, name: str) -> None:
        """A service is gone, with all that it knew: what it is told or has begun has no effect any more."""
        self.services[name].dies()
        self.settles()

    def revives(self, name: str) -> None:
        """It is started again, and knows nothing of its former life."""
        self.services[name] = Service(self, name, SERVICES.index(name) + 1)

    def database_goes_away(self) -> None:
        self.store.away = True

    def database_comes_back(self) -> None:
        self.store.away = False

    def mailbox(self, device: str) -> int:
        """How many messages are stored for a device."""
        return int(now(self.memory.mailbox_size(device)))

    def turns_mailbox_round(self, person: Person) -> None:
        """What came last will be handed over first."""
        mailbox = self.memory._mailboxes[person.device]
        self.memory._mailboxes[person.device] = dict(reversed(mailbox.items()))

    def one_time_keys(self, person: Person) -> int:
        """How many are left for a device."""
        return int(now(self.memory.one_time_keys(person.device)))

    def empties_one_time_keys(self, person: Person, *, but: int) -> None:
        """As if so many people had written to a device for the first time."""
        while self.one_time_keys(person) > but:
            now(self.memory.bundles([person.device], claim=True))

    @property
    def stored(self) -> int:
        return sum(service.counters.stored for service in self.services.values())

    @property
    def sessions(self) -> int:
        return sum(len(service.sessions) for service in self.services.values())

    def ends(self) -> None:
        """Everybody leaves, and nobody is left behind."""
        for person in self.people:
            person.goes_offline()
        self.passes(seconds=10)
        for person in self.people:
            person.vault.close()
        assert self.sessions == 0, "a service still has a session"
        assert all(not load.sessions for load in self.placement.loads()), "the balancer counts a session that is gone"

    # --- the wires -------------------------------------------------------------------------------------------------

    def dial(self, _: Any, host: str, port: int, pin: bytes) -> Deferred[Line]:
        """What `fastchat_client.dial.dial` does, in memory."""
        service = next((one for one in self.services.values() if one.address.port == port), None)
        if port != BALANCER and (service is None or service.is_dead or service.is_leaving):
            return fail(Unreachable(f"nobody listens on {host}:{port}"))
        binding = ChannelBinding(os.urandom(32), pin)
        owner = Question(self.placement) if service is None else SessionOwner(service, binding)
        line = Line(f"{host}:{port}", pin, self.clock)
        line.binding = binding
        line.secured.callback(line)
        far = LineShell(owner, decode_client_message, Turn(self.clock), self.limits.outbound_hard)
        _, far_end = join(self.clock, line._shell, far)
        if service is not None:
            service.ends.append(far_end)
        return succeed(line)

    def _vault(self) -> tuple[Vault, bytes, Path]:
        key, path = os.urandom(32), self.folder / f"vault-{len(self.people)}.db"
        return Vault.create(path, key), key, path

    def _enter(self, person: Person, at: str) -> Person:
        self.people.append(person)
        person.comes_back(at=at)
        assert person.is_online, person.events
        return person

    def wall(self) -> float:
        return self.clock.seconds() + self.wall_ahead

    def _milliseconds(self) -> int:
        return int(self.clock.seconds() * 1000)


class Person:
    """One device of somebody: the real client."""

    def __init__(
        self, net: Net, name: str, root: Any, path: Path, key: bytes, vault: Vault, enrolment: Enrolment | None
    ) -> None:
        self.net = net
        self.name = name
        self.root = root
        self.vault = vault
        self.wall_ahead = 0.0
        """Seconds by which their machine's clock is ahead of the true time."""
        self.core = Core(
            vault,
            net.clock.seconds,
            lambda: net.clock.seconds() + self.wall_ahead,
            enrolment=enrolment,
            outgoing=path.with_suffix(".outgoing"),
        )
        self.events: list[Event] = []
        self.host, self.port, self.pin = HOST, BALANCER, PIN
        self.services: Sequence[ServiceAddress] = ()
        self._enrolment = enrolment
        self._path = path
        self._key = key
        self._connection: Connection | None = None
        self._line: Line | None = None
        self._cable: End | None = None
        """The client's end of the connection to a service."""
        self._at = ""
        self._seen = 0

    def remember(self, services: Sequence[ServiceAddress]) -> None:
        self.services = services

    # --- what they do --------------------------------------------------------------------------------------------

    def sends(self, to: str, *texts: str) -> str:
        """Each of these; the last one's id."""
        for text in texts:
            message_id = self.core.send_text(to, text)
        if self._connection is not None:
            self._connection.flush()
            self.net.settles()
        return message_id

    def sends_file(self, to: str, data: bytes, name: str = "notes.txt", text: str = "") -> str:
        """Its attachment."""
        attachment = attach(self.core, to, data, name, text)
        self.flush()
        self.net.settles()
        return attachment

    def fetches(self, folder: Path) -> str:
        """Save the newest file that has come, in this folder; the id of the message that has brought it."""
        message = [event.id for event in self.events if isinstance(event, MessageReceived) and event.file][-1]
        self.core.fetch(message, folder)
        self.flush()
        self.net.settles()
        return message

    def flush(self) -> None:
        """What the core has to say goes out, as after every step of a face; nothing, while they are offline."""
        if self._connection is not None:
            self._connection.flush()

    def comes_back(self, *, at: str = "") -> None:
        """Go online; by way of the balancer, or straight `at` this service, as when the balancer is away."""
        if self._connection is None:
            self._at = at
            self._connection = Connection(
                self.core,
                self,
                self.net.clock,
                self.net.random,
                self.events.extend,
                dial=self._dial,
                in_thread=lambda _, run: execute(run),
            )
            self._connection.start()
        self.net.settles()

    def goes_offline(self) -> None:
        """Leave as a program that ends does."""
        connection, self._connection = self._connection, None
        if connection is not None:
            Deferred.fromCoroutine(connection.stop()).addErrback(never)
            self.net.settles()

    def moves(self) -> None:
        """Another network, as when a laptop is carried home: the old connection is dead, the service is not told."""
        assert self._line is not None
        assert self._cable is not None
        self._cable.is_silent = True
        self._line.fail(Unreachable("the network has changed"))

    def falls_silent(self) -> None:
        """The cable is cut somewhere in the middle: neither end is told."""
        assert self._cable is not None
        self._cable.is_silent = self._cable.peer.is_silent = True

    def stops_reading(self) -> None:
        assert self._cable is not None
        self._cable.pauseProducing()

    def reads_on(self) -> None:
        assert self._cable is not None
        self._cable.resumeProducing()

    def second_program(self, *, at: str = "") -> Person:
        """The same profile, opened by one more program; it goes online too."""
        vault = Vault.open(self._path, self._key)
        return self.net._enter(Person(self.net, self.name, self.root, self._path, self._key, vault, None), at)

    # --- what came of it -----------------------------------------------------------------------------------------

    @property
    def device(self) -> str:
        return self.vault.text("device")

    @property
    def is_online(self) -> bool:
        return self.core.ready

    @property
    def service(self) -> str:
        """Where they logged in last."""
        return [event.service for event in self.events if isinstance(event, Connected)][-1]

    @property
    def farewells(self) -> list[str]:
        """Why their connections ended."""
        return [event.code for event in self.events if isinstance(event, Disconnected)]

    def state_of(self, message_id: str) -> str | None:
        return self.vault.state_of(message_id)

    def sees(self, *lines: str) -> None:
        """Exactly these have been shown since the last look, in this order: "alice: hello"; "alice → bob: hello" is
        what another device of the same account has sent; "alice: ?" could not be read."""
        new = self._news()
        assert new == list(lines), f"{self.name} sees {new}, not {list(lines)}"

    def sees_in_any_order(self, *lines: str) -> None:
        """As `sees`, where several people have written."""
        new = self._news()
        assert sorted(new) == sorted(lines), f"{self.name} sees {new}, not {list(lines)}"

    def _news(self) -> list[str]:
        self.net.settles()
        shown = [_line(event) for event in self.events if isinstance(event, MessageReceived | MessageUnreadable)]
        new, self._seen = shown[self._seen :], len(shown)
        return new

    # --- wires ---------------------------------------------------------------------------------------------------

    def _dial(self, reactor: Any, host: str, port: int, pin: bytes) -> Deferred[Line]:
        if self._at and port not in (BALANCER, self.net.services[self._at].address.port):
            return fail(Unreachable("out of reach"))

        def connected(line: Line) -> Line:
            if port != BALANCER:
                self._line, self._cable, self._at = line, line._shell.transport, ""
            return line

        return self.net.dial(reactor, host, port, pin).addCallback(connected)


def _line(event: MessageReceived | MessageUnreadable) -> str:
    if isinstance(event, MessageUnreadable):
        return f"{event.sender}: ?"
    return f"{event.sender} → {event.conversation}: {event.text}" if event.own else f"{event.sender}: {event.text}"
