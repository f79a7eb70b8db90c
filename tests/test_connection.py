"""The client's connection: where it goes and when, over real TLS on loopback and with clocks of ours."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

from twisted.internet import reactor as installed
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock, deferLater
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase

from fastchat.errors import (
    Busy,
    CertificateMismatch,
    FastChatError,
    Internal,
    LoginFailed,
    NameTaken,
    OutOfTurn,
    Replaced,
    TrustError,
    Unreachable,
    UnsupportedVersion,
)
from fastchat.identity.login import ChannelBinding
from fastchat.protocols.line import LineShell, Turn
from fastchat.protocols.wire import (
    Assign,
    Assigned,
    ClientMessage,
    Error,
    Fetch,
    GoAway,
    Hello,
    Ping,
    Pong,
    ServerMessage,
    ServiceAddress,
    WithBytes,
    decode_client_message,
    encode,
)
from fastchat.services.certificate import Secrets, open_secrets
from fastchat.services.listening import channel_binding
from fastchat_client.connection import STEADY_SECONDS, Connection
from fastchat_client.dial import Line, dial
from fastchat_client.events import Connected, Connecting, Disconnected, Event, Moving, Notice
from fastchat_client.parts import AskedToLeave
from fastchat_client.patience import FIRST_WAIT, LONGEST_WAIT, MOVING_WAIT, WAIT, is_final, longest_wait
from fastchat_client.working import Work

reactor: Any = installed

ATTACHMENT = "0123456789abcdef" * 2
CHAT1 = ServiceAddress("chat1", "::1", 7401)
CHAT2 = ServiceAddress("chat2", "::1", 7402)
CHAT3 = ServiceAddress("chat3", "::1", 7403)


class Core:
    """A core that says hello, is ready at a pong, and closes when it is told to."""

    def __init__(self) -> None:
        self.ready = False
        self.wants_close: FastChatError | None = None
        self.heard: list[ServerMessage] = []
        self.opened_with: list[tuple[ChannelBinding, str]] = []
        self.closings = 0
        self.ticks = 0
        self.to_say: list[ClientMessage] = []
        self.to_tell: list[Event] = []
        self.transferring = False
        self.chunks: list[Callable[[], ClientMessage]] = []
        """Each is called when it is pulled."""

    def opened(self, binding: ChannelBinding, lease: str) -> None:
        self.wants_close = None
        self.opened_with.append((binding, lease))
        self.to_say.append(Hello(1, 1, lease))

    def receive(self, message: ServerMessage) -> None:
        self.heard.append(message)
        if isinstance(message, Pong):
            self.ready = True
            self.to_tell.append(Connected("chat", 0))
        if isinstance(message, Error):
            self.wants_close = {"replaced": Replaced, "login-failed": LoginFailed}.get(message.code, Internal)()
        if isinstance(message, GoAway):
            self.wants_close = AskedToLeave(message.reason, message.after)

    def closed(self) -> None:
        self.ready = False
        self.closings += 1

    def tick(self) -> None:
        self.ticks += 1

    def leave(self) -> None:
        self.tick()

    def take_messages(self) -> list[ClientMessage]:
        said, self.to_say = self.to_say, []
        return said

    def next_chunk(self) -> ClientMessage | WithBytes | None:
        return self.chunks.pop(0)() if self.chunks else None

    def take_events(self) -> list[Event]:
        told, self.to_tell = self.to_tell, []
        return told

    def take_work(self) -> list[Work]:
        return []

    def worked(self, work: Work, result: object) -> None:
        raise AssertionError("there was nothing to do")


class Places:
    """A `Network`."""

    def __init__(self, services: Sequence[ServiceAddress] = (), port: int = 7400, pin: bytes = b"p" * 32) -> None:
        self.host = "::1"
        self.port = port
        self.pin = pin
        self.services = services

    def remember(self, services: Sequence[ServiceAddress]) -> None:
        self.services = services


class Most(Random):
    """Waits as long as can be, and leaves every list as it is."""

    def uniform(self, a: float, b: float) -> float:
        return b

    def shuffle(self, x: Any) -> None:
        pass


class Wires:
    """A `Dial` in memory: what is at each place, and a far end for each connection that was made."""

    def __init__(self, clock: Clock, up: set[int]) -> None:
        self.clock = clock
        self.up = up
        self.problem: FastChatError = Unreachable("nobody there")
        self.dialed: list[int] = []
        self.ends: list[FarEnd] = []
        self.hanging: list[Deferred[Line]] = []
        self.hang = False

    def __call__(self, _: Any, host: str, port: int, pin: bytes) -> Deferred[Line]:
        self.dialed.append(port)
        answer: Deferred[Line] = Deferred()
        if self.hang:
            self.hanging.append(answer)
        elif port in self.up:
            end = FarEnd(self.clock, port, pin)
            self.ends.append(end)
            answer.callback(end.line)
        else:
            answer.errback(self.problem)
        return answer


class FarEnd:
    """The other side of one connection, on a transport in memory."""

    def __init__(self, clock: Clock, port: int, pin: bytes) -> None:
        self.port = port
        self.transport = StringTransport()
        self.transport.abortConnection = self.hang_up  # type: ignore[method-assign]
        self.transport.loseConnection = self.hang_up  # type: ignore[method-assign]
        self.line = Line(f"there:{port}", pin, clock)
        self.line.binding = ChannelBinding(b"e" * 32, pin)
        self.line.secured.callback(self.line)
        self.is_open = True
        self.line._shell.makeConnection(self.transport)

    def heard(self) -> list[ClientMessage]:
        lines = self.transport.value().split(b"\n")[:-1]
        self.transport.clear()
        return [decode_client_message(line) for line in lines]

    def say(self, *messages: ServerMessage) -> None:
        self.line._shell.dataReceived(b"".join(encode(message) + b"\n" for message in messages))

    def hang_up(self) -> None:
        if self.is_open:
            self.is_open = False
            self.line._shell.connectionLost(Failure(ConnectionDone()))


class ConnectionTests(SynchronousTestCase):
    """With a clock, in memory: the real lines and codec, no sockets."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.core = Core()
        self.places = Places()
        self.wires = Wires(self.clock, {7400, 7401, 7402, 7403})
        self.events: list[Event] = []
        self.connection = Connection(self.core, self.places, self.clock, Most(), self.events.extend, dial=self.wires)
        self.addCleanup(lambda: self.successResultOf(self.stop()))

    def stop(self) -> Deferred[None]:
        stopped = Deferred.fromCoroutine(self.connection.stop())
        self.turn()
        return stopped

    def turn(self) -> None:
        for _ in range(5):
            self.clock.advance(0)

    def assign(self, service: ServiceAddress = CHAT1, lease: str = "lease") -> FarEnd:
        """Play the balancer on the newest connection; answers the service's end, if one was dialed."""
        balancer = self.wires.ends[-1]
        self.turn()
        self.assertEqual(balancer.port, 7400)
        self.assertEqual(balancer.heard(), [Assign(1)])
        balancer.say(Assigned(1, service, lease, 10.0, (CHAT1, CHAT2, CHAT3)))
        self.turn()
        self.assertFalse(balancer.is_open, "the balancer is not kept waiting")
        return self.wires.ends[-1]

    def session(self) -> FarEnd:
        self.connection.start()
        service = self.assign()
        service.say(Pong(1))
        self.turn()
        return service

    def gone(self) -> list[Disconnected]:
        return [event for event in self.events if isinstance(event, Disconnected)]

    def moves(self) -> list[float]:
        """How long it waited each time that it was no trouble to be without a connection."""
        return [event.retry_in for event in self.events if isinstance(event, Moving)]

    def test_balancer_then_service_with_the_lease(self) -> None:
        self.connection.start()
        service = self.assign(CHAT2, "the lease")
        self.assertEqual(self.wires.dialed, [7400, 7402])
        self.assertEqual(service.heard(), [Hello(1, 1, "the lease")])
        self.assertEqual(self.core.opened_with, [(ChannelBinding(b"e" * 32, self.places.pin), "the lease")])
        service.say(Pong(1))
        self.turn()
        self.assertEqual(self.events, [Connecting("[::1]:7400"), Connecting("chat2"), Connected("chat", 0)])
        self.assertEqual(tuple(self.places.services), (CHAT1, CHAT2, CHAT3))

    def test_the_core_ticks_while_connected_only(self) -> None:
        service = self.session()
        self.clock.pump([1.0] * 3)
        self.assertEqual(self.core.ticks, 3)
        service.hang_up()
        self.clock.advance(0.5)
        self.assertEqual((self.core.ticks, self.core.closings), (3, 1))

    def test_many_messages_of_one_turn_are_answered_together(self) -> None:
        service = self.session()
        takes: list[int] = []
        take = self.core.take_messages
        self.core.take_messages = lambda: (takes.append(len(self.core.heard)), take())[1]  # type: ignore[func-returns-value, method-assign]
        service.say(*[Pong(i) for i in range(50)])
        self.turn()
        self.assertEqual(set(takes), {51})

    def test_without_the_balancer_the_last_known_services_in_turn(self) -> None:
        self.places.services = (CHAT1, CHAT2, CHAT3)
        self.wires.up = {7403}
        self.connection.start()
        self.turn()
        self.assertEqual(self.wires.dialed, [7400, 7401, 7402, 7403])
        self.assertEqual(self.core.opened_with[0][1], "", "a lease is the balancer's to give")

    def test_the_assigned_service_is_down_so_another_one(self) -> None:
        self.wires.up = {7400, 7402}
        self.connection.start()
        service = self.assign(CHAT1)
        self.assertEqual(self.wires.dialed, [7400, 7401, 7402])
        self.assertEqual(service.heard(), [Hello(1, 1, "")])

    def test_a_balancer_that_answers_nonsense_or_nothing_is_passed_by(self) -> None:
        self.places.services = (CHAT2,)
        self.connection.start()
        self.wires.ends[-1].say(Pong(1))
        self.turn()
        self.assertEqual(self.wires.dialed, [7400, 7402])
        self.wires.ends[-1].hang_up()
        self.clock.advance(FIRST_WAIT)
        self.clock.advance(10.0)
        self.assertEqual(self.wires.dialed, [7400, 7402, 7400, 7402])

    def test_waits_grow_with_full_jitter_to_five_minutes(self) -> None:
        self.wires.up = set()
        self.connection.start()
        for _ in range(7):
            self.turn()
            wait = self.gone()[-1].retry_in
            assert wait is not None
            self.clock.advance(wait)
        self.turn()
        self.assertEqual(
            [event.retry_in for event in self.gone()], [1.0, 30.0, 60.0, 120.0, 240.0, 300.0, 300.0, 300.0]
        )
        self.assertEqual({event.code for event in self.gone()}, {"unreachable"})

    def test_other_waits_can_be_asked_for(self) -> None:
        self.wires.up = set()
        self.connection = Connection(
            self.core, self.places, self.clock, Most(), self.events.extend, self.wires, lambda tries: 2.0 + tries
        )
        self.connection.start()
        for seconds in (2.0, 3.0):
            self.turn()
            self.clock.advance(seconds)
        self.turn()
        self.assertEqual([event.retry_in for event in self.gone()], [2.0, 3.0, 4.0])

    def test_after_a_steady_session_the_first_wait_is_short_again(self) -> None:
        self.session().hang_up()
        self.turn()
        self.clock.advance(FIRST_WAIT)
        service = self.assign()
        service.say(Pong(1))
        self.turn()
        self.clock.advance(STEADY_SECONDS)
        service.hang_up()
        self.turn()
        self.assertEqual([event.retry_in for event in self.gone()], [FIRST_WAIT, FIRST_WAIT])

    def test_a_service_that_drops_every_session_at_once_is_not_hammered(self) -> None:
        self.session().hang_up()
        self.turn()
        self.clock.advance(FIRST_WAIT)
        self.assign().hang_up()
        self.turn()
        self.assertEqual([event.retry_in for event in self.gone()], [FIRST_WAIT, WAIT])

    def test_busy_says_how_long(self) -> None:
        self.connection.start()
        self.turn()
        self.wires.ends[-1].say(Error("busy", "none up", re=1, retry_after=17.0))
        self.turn()
        self.assertEqual([(event.code, event.retry_in) for event in self.gone()], [("busy", 17.0)])

    def test_a_balancer_that_refuses_says_why(self) -> None:
        self.connection.start()
        self.turn()
        self.wires.ends[-1].say(Error("too-many-connections", "twenty are allowed", re=1))
        self.turn()
        self.assertEqual(
            [(event.code, event.reason) for event in self.gone()], [("too-many-connections", "twenty are allowed")]
        )

    def test_hurry_ends_a_wait(self) -> None:
        self.wires.up = set()
        self.connection.start()
        self.turn()
        self.clock.advance(FIRST_WAIT)
        self.turn()
        self.wires.up = {7400}
        self.connection.hurry()
        self.turn()
        self.assertEqual(self.wires.dialed, [7400, 7400, 7400])

    def test_goaway_leads_to_another_service(self) -> None:
        service = self.session()
        service.say(GoAway(0.0, "upgrade"))
        self.turn()
        self.assertFalse(service.is_open)
        self.clock.advance(0)
        self.assign(CHAT2)
        self.assertEqual(self.wires.dialed[-2:], [7400, 7402], "at once")
        self.assertEqual(self.gone(), [])
        self.assertEqual(self.moves(), [0.0])
        self.wires.ends[-1].hang_up()
        self.turn()
        self.clock.advance(MOVING_WAIT)
        self.assertEqual(self.assign(CHAT1).port, 7401, "the balancer knows whether it is back")
        self.assertEqual((self.gone(), self.moves()), ([], [0.0, MOVING_WAIT]), "it was announced")

    def test_without_the_balancer_the_service_that_goes_is_the_last_choice(self) -> None:
        self.session().say(GoAway(0.0, "upgrade"))
        self.wires.up = {7402, 7403, 7401}
        self.turn()
        self.clock.advance(0)
        self.turn()
        self.assertEqual(self.wires.dialed[-2:], [7400, 7402])

    def test_goaway_says_when_to_come_back(self) -> None:
        self.session().say(GoAway(2.5, "upgrade"))
        self.turn()
        self.clock.advance(2.4)
        self.turn()
        self.assertEqual(self.wires.dialed, [7400, 7401])
        self.clock.advance(0.1)
        self.turn()
        self.assertEqual(self.wires.dialed[-1], 7400)

    def test_who_is_sent_on_and_on_does_not_go_round_in_circles(self) -> None:
        for number in range(3):
            if number:
                self.clock.advance(self.moves()[-1])
                self.turn()
                self.assign(CHAT1).say(Pong(1))
                self.turn()
            else:
                self.session()
            self.wires.ends[-1].say(GoAway(0.0, "upgrade"))
            self.turn()
        self.assertEqual(self.moves(), [0.0, FIRST_WAIT, 2 * FIRST_WAIT])

    def test_an_announced_absence_is_a_problem_only_when_it_lasts(self) -> None:
        self.session().say(GoAway(2.0, "upgrade"))
        self.wires.up = set()
        self.turn()
        while not self.gone():
            self.clock.advance(1.0)
            self.turn()
        self.assertEqual(self.moves(), [2.0, MOVING_WAIT, MOVING_WAIT, MOVING_WAIT, MOVING_WAIT])
        self.assertEqual({event.code for event in self.gone()}, {"unreachable"})

    def test_a_wrong_certificate_is_told_also_of_who_was_asked_to_move(self) -> None:
        self.session().say(GoAway(0.0, "upgrade"))
        self.wires.up, self.wires.problem = set(), CertificateMismatch()
        self.turn()
        self.clock.advance(0)
        self.turn()
        self.assertEqual([event.code for event in self.gone()], ["certificate-mismatch"])

    def test_the_one_service_that_goes_away_is_better_than_none(self) -> None:
        self.session().say(GoAway(5.0, "upgrade"))
        self.turn()
        self.wires.up = {7401}
        self.clock.advance(5.0)
        self.turn()
        self.assertEqual(self.wires.dialed[-4:], [7400, 7402, 7403, 7401])

    def test_the_balancer_knows_better_that_a_service_is_back(self) -> None:
        self.wires.up = {7400, 7402}
        self.connection.start()
        service = self.assign(CHAT1)
        self.assertEqual(service.port, 7402)
        self.wires.up = {7400, 7401, 7402, 7403}
        service.hang_up()
        self.turn()
        self.clock.advance(FIRST_WAIT)
        self.assertEqual(self.assign(CHAT1).port, 7401)

    def test_replaced_and_refused_logins_end_it_with_a_sentence(self) -> None:
        service = self.session()
        service.say(Error("replaced", "x"))
        self.turn()
        self.clock.advance(LONGEST_WAIT)
        self.assertEqual([(e.code, e.retry_in) for e in self.gone()], [("replaced", None)])
        self.assertIn("logged in elsewhere", self.gone()[0].reason)
        self.assertEqual(self.wires.dialed, [7400, 7401])

    def test_hurry_after_the_end_begins_again(self) -> None:
        self.session().say(Error("replaced", "x"))
        self.turn()
        self.connection.hurry()
        self.turn()
        self.assertEqual(self.wires.dialed, [7400, 7401, 7400])

    def test_an_internal_error_is_tried_again(self) -> None:
        self.session().say(Error("internal", "x"))
        self.turn()
        self.assertEqual([(e.code, e.retry_in) for e in self.gone()], [("internal", FIRST_WAIT)])

    def test_a_frame_that_is_not_understood_ends_the_session(self) -> None:
        service = self.session()
        service.line._shell.dataReceived(b"{nonsense}\n")
        self.turn()
        self.assertEqual([event.code for event in self.gone()], ["bad-frame"])

    def test_a_wrong_certificate_outweighs_what_else_went_wrong(self) -> None:
        self.places.services = (CHAT1,)
        self.wires.up = set()
        self.wires.problem = CertificateMismatch()
        self.connection.start()
        self.turn()
        self.assertEqual([event.code for event in self.gone()], ["certificate-mismatch"])
        self.assertIsNotNone(self.gone()[0].retry_in)

    def test_a_service_that_does_not_read_is_not_read_from(self) -> None:
        service = self.session()
        service.heard()
        producer: Any = service.transport.producer
        producer.pauseProducing()
        producer.pauseProducing()
        for i in range(1000):
            self.core.to_say.append(Ping(i))
            self.clock.advance(1.0)
        self.assertEqual(service.transport.producerState, "paused")
        self.assertEqual(service.heard(), [], "nothing was put on the pile")
        self.assertEqual(len(self.core.to_say), 1000, "it is still the core's")
        producer.resumeProducing()
        self.turn()
        self.assertEqual(len(service.heard()), 1000)
        self.assertEqual(service.transport.producerState, "producing")

    def test_chunks_are_pulled_one_at_a_time_behind_what_is_said(self) -> None:
        service = self.session()
        service.heard()

        def first() -> ClientMessage:
            self.core.to_say.append(Ping(7))
            return Fetch(1, ATTACHMENT, 0)

        self.core.to_say.append(Ping(6))
        self.core.chunks = [first, lambda: Fetch(2, ATTACHMENT, 1), lambda: Fetch(3, ATTACHMENT, 2)]
        self.connection.flush()
        self.turn()
        self.assertEqual([message.id for message in service.heard()], [6, 1, 7, 2, 3])

    def test_no_chunk_is_pulled_that_the_line_does_not_take(self) -> None:
        service = self.session()
        service.heard()
        producer: Any = service.transport.producer
        pulled: list[int] = []

        def chunk(index: int) -> ClientMessage:
            pulled.append(index)
            producer.pauseProducing()
            return Fetch(index, ATTACHMENT, index)

        self.core.chunks = [lambda index=index: chunk(index) for index in range(3)]  # type: ignore[misc]
        self.connection.flush()
        self.turn()
        self.assertEqual(pulled, [0])
        for expected in ([0, 1], [0, 1, 2]):
            producer.resumeProducing()
            self.turn()
            self.assertEqual(pulled, expected)

    def test_no_chunk_is_pulled_behind_what_has_filled_the_line(self) -> None:
        service = self.session()
        service.heard()
        producer: Any = service.transport.producer
        said: list[ClientMessage] = [Ping(4)]

        def take_messages() -> list[ClientMessage]:
            taken = said[:]
            said.clear()
            if taken:
                producer.pauseProducing()
            return taken

        self.patch(self.core, "take_messages", take_messages)
        self.core.chunks = [lambda: Fetch(1, ATTACHMENT, 0)]
        self.connection.flush()
        self.turn()
        self.assertEqual(len(self.core.chunks), 1)
        producer.resumeProducing()
        self.turn()
        self.assertEqual(service.heard(), [Ping(4), Fetch(1, ATTACHMENT, 0)])

    def test_a_service_that_is_sent_a_file_is_read_from_although_the_line_is_full(self) -> None:
        """It may be sending one itself, and then each would wait for the other."""
        service = self.session()
        producer: Any = service.transport.producer
        self.core.transferring = True
        producer.pauseProducing()
        self.assertEqual(service.transport.producerState, "producing")
        service.say(Pong(5))
        self.assertEqual(self.core.heard[-1], Pong(5))

    def test_stop_says_what_is_to_be_said_and_connects_no_more(self) -> None:
        service = self.session()
        service.heard()
        self.core.to_say.append(Ping(9))
        self.successResultOf(self.stop())
        self.assertEqual(service.heard(), [Ping(9)])
        self.assertFalse(service.is_open)
        self.clock.advance(LONGEST_WAIT)
        self.assertEqual(self.wires.dialed, [7400, 7401])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_stop_while_dialing_or_waiting(self) -> None:
        self.wires.hang = True
        self.connection.start()
        self.turn()
        self.successResultOf(self.stop())
        self.assertEqual(len(self.wires.hanging), 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_the_face_may_act_on_the_core_when_it_is_told_something(self) -> None:
        def act(events: list[Event]) -> None:
            self.events.extend(events)
            for event in events:
                if isinstance(event, Connected):
                    self.core.to_say.append(Ping(3))
                    self.core.to_tell.append(Notice("x", "y"))
                    self.connection.flush()

        self.connection = Connection(self.core, self.places, self.clock, Most(), act, dial=self.wires)
        service = self.session()
        self.assertEqual(service.heard(), [Hello(1, 1, "lease"), Ping(3)])
        self.assertEqual(self.events[-2:], [Connected("chat", 0), Notice("x", "y")])

    def test_offline_the_cores_events_are_shown_all_the_same(self) -> None:
        self.core.to_tell.append(Notice("x", "y"))
        self.connection.flush()
        self.turn()
        self.assertEqual(self.events, [Notice("x", "y")])


class RuleTests(SynchronousTestCase):
    def test_longest_waits(self) -> None:
        self.assertEqual([longest_wait(n) for n in (0, 1, 2, 5, 10**6)], [1.0, 30.0, 60.0, 300.0, 300.0])

    def test_what_is_final(self) -> None:
        for problem in (Replaced(), LoginFailed(), NameTaken(), TrustError(), UnsupportedVersion()):
            self.assertTrue(is_final(problem), problem.code)
        for other in (Busy(), Internal(), Unreachable(), OutOfTurn(), CertificateMismatch(), FastChatError()):
            self.assertFalse(is_final(other), other.code)


class ServerEnd:
    """The owner of a server's shell: it keeps the exporter, and answers as it was told."""

    def __init__(self, answer: Callable[[ServerEnd, Any], None]) -> None:
        self.answer = answer
        self.exporter = b""
        self.heard: list[Any] = []
        self.shell: LineShell | None = None
        self.ended: Deferred[None] = Deferred()

    def connected(self, shell: LineShell) -> None:
        self.shell = shell

    def received(self, message: Any) -> None:
        assert self.shell is not None
        self.exporter = channel_binding(self.shell).exporter
        self.heard.append(message)
        self.answer(self, message)

    def bad_frame(self, error: FastChatError) -> None:
        raise AssertionError(error)

    def writable(self, writable: bool) -> None:
        pass

    def lost(self, reason: Failure) -> None:
        self.ended.callback(None)


class DialTests(TestCase):
    """Over real sockets: the pin, the exporter, and what can be at the other end."""

    secrets: Secrets

    def setUp(self) -> None:
        home = Path(self.mktemp())
        home.mkdir()
        self.secrets = open_secrets(home, "localhost")
        self.ends: list[ServerEnd] = []
        self.arrived: Deferred[None] = Deferred()

    def listen(self, answer: Callable[[ServerEnd, Any], None] = lambda end, message: None) -> int:
        turn = Turn(reactor)

        def build() -> LineShell:
            self.ends.append(ServerEnd(answer))
            return LineShell(self.ends[-1], decode_client_message, turn)

        port = reactor.listenSSL(0, Factory.forProtocol(build), self.secrets.tls, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        return int(port.getHost().port)

    async def test_both_ends_have_the_same_channel_binding(self) -> None:
        port = self.listen(lambda end, message: end.shell.send(Pong(message.id)))  # type: ignore[union-attr]
        line = await dial(reactor, "127.0.0.1", port, self.secrets.pin)
        answer: Deferred[ServerMessage] = Deferred()
        line.received = answer.callback
        line.send(Ping(7))
        self.assertEqual(await answer, Pong(7))
        self.assertEqual(len(line.binding.exporter), 32)
        self.assertEqual(line.binding.exporter, self.ends[0].exporter)
        self.assertEqual(line.binding.end_point, self.secrets.pin)
        line.close()
        await self.ends[0].ended
        await line.ended

    async def test_no_two_connections_have_the_same_exporter(self) -> None:
        port = self.listen()
        lines = [await dial(reactor, "127.0.0.1", port, self.secrets.pin) for _ in range(2)]
        self.assertNotEqual(lines[0].binding.exporter, lines[1].binding.exporter)
        for line, end in zip(lines, self.ends, strict=True):
            line.close()
            await end.ended
            await line.ended

    async def test_another_certificate_ends_it_before_a_byte_is_said(self) -> None:
        port = self.listen()
        with self.assertRaises(CertificateMismatch) as caught:
            await dial(reactor, "127.0.0.1", port, b"x" * 32)
        self.assertIn(f"127.0.0.1:{port}", caught.exception.message)
        self.assertIn("nothing was sent", caught.exception.message)
        await self.ends[0].ended
        self.assertEqual(self.ends[0].heard, [])

    async def test_nobody_there(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        with self.assertRaises(Unreachable) as caught:
            await dial(reactor, "127.0.0.1", port, self.secrets.pin)
        self.assertIn("refuses", caught.exception.message)

    async def test_a_peer_that_speaks_no_tls(self) -> None:
        class Web(Protocol):
            def dataReceived(self, data: bytes) -> None:
                self.transport.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")  # type: ignore[union-attr]

        web = reactor.listenTCP(0, Factory.forProtocol(Web), interface="127.0.0.1")
        self.addCleanup(web.stopListening)
        with self.assertRaises(Unreachable) as caught:
            await dial(reactor, "127.0.0.1", web.getHost().port, self.secrets.pin)
        self.assertIn("TLS", caught.exception.message)
        await deferLater(reactor, 0, lambda: None)

    async def test_giving_up_while_the_peer_says_nothing(self) -> None:
        accepted: Deferred[None] = Deferred()
        lost: Deferred[None] = Deferred()

        class Silent(Protocol):
            def connectionMade(self) -> None:
                accepted.callback(None)

            def connectionLost(self, reason: Failure = Failure(ConnectionDone())) -> None:  # noqa: B008
                lost.callback(None)

        silent = reactor.listenTCP(0, Factory.forProtocol(Silent), interface="127.0.0.1")
        self.addCleanup(silent.stopListening)
        dialing = dial(reactor, "127.0.0.1", silent.getHost().port, self.secrets.pin)
        await accepted
        dialing.cancel()
        self.failureResultOf(dialing)
        await lost

    async def test_stopping_while_a_peer_says_nothing(self) -> None:
        accepted: Deferred[None] = Deferred()
        lost: Deferred[None] = Deferred()

        class Silent(Protocol):
            def connectionMade(self) -> None:
                accepted.callback(None)

            def connectionLost(self, reason: Failure = Failure(ConnectionDone())) -> None:  # noqa: B008
                lost.callback(None)

        silent = reactor.listenTCP(0, Factory.forProtocol(Silent), interface="127.0.0.1")
        self.addCleanup(silent.stopListening)
        services = (ServiceAddress("chat1", "127.0.0.1", self.listen()),)
        places = Places(services, silent.getHost().port, self.secrets.pin)
        places.host = "127.0.0.1"
        connection = Connection(Core(), places, reactor, Random(1), lambda events: None)
        connection.start()
        await accepted
        await connection.stop()
        await lost
        self.assertEqual(self.ends, [], "it did not go on with the next place")

    async def test_stopping_at_once(self) -> None:
        core = Core()
        places = Places(port=self.listen(), pin=self.secrets.pin)
        places.host = "127.0.0.1"
        connection = Connection(core, places, reactor, Random(1), lambda events: None)
        connection.start()
        await connection.stop()
        self.assertEqual(core.opened_with, [])

    async def test_a_whole_session_over_sockets(self) -> None:
        ready: Deferred[None] = Deferred()
        core = Core()

        def serve(end: ServerEnd, message: Any) -> None:
            assert end.shell is not None
            end.shell.send(Pong(message.id))

        service = ServiceAddress("chat1", "127.0.0.1", self.listen(serve))
        balancer = self.listen(
            lambda end, message: end.shell.send(Assigned(1, service, "lease", 10.0, (service,)))  # type: ignore[union-attr]
        )

        def told(events: list[Event]) -> None:
            if any(isinstance(event, Connected) for event in events):
                ready.callback(None)

        places = Places(port=balancer, pin=self.secrets.pin)
        places.host = "127.0.0.1"
        connection = Connection(core, places, reactor, Random(1), told)
        connection.start()
        await ready
        self.assertEqual(core.opened_with[0][1], "lease")
        self.assertEqual(core.opened_with[0][0].exporter, self.ends[-1].exporter)
        await connection.stop()
        for end in self.ends:
            await end.ended
        self.assertEqual(core.closings, 1)
