"""What a member can do to the service by asking for much: each ends in a clear error, and in nothing that is kept."""

from __future__ import annotations

import socket
from collections.abc import Callable
from functools import partial
from typing import Any, cast

from msgspec import UNSET, Raw
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from fastchat import delivery
from fastchat.delivery import outgoing
from fastchat.protocols import wire
from fastchat.services import listening
from fastchat.services.doorway import ENDED_BEFORE_CLEANING, HEARD_SECONDS, PAUSE, Doorway, PatientPort
from tests.support.calling import Peer, SessionCase
from tests.support.delivery import now
from tests.support.people import OwnDevice
from tests.support.visitors import Stranger, Visitor
from tests.test_services import ServicesCase


class Recipients(SessionCase):
    def setUp(self) -> None:
        super().setUp()
        self.patch(outgoing, "LANES", 250)
        self.patch(outgoing, "LANES_KEPT", 10)

    def strangers(self, message: int) -> tuple[str, ...]:
        """A hundred devices that there are not, others for each message."""
        return tuple(f"{message * 100 + number:032x}" for number in range(100))

    def test_whom_one_was_refused_to_send_to_is_remembered_within_bounds(self) -> None:
        place = self.new_place(sends_per_second=0.1, sends_burst=1)
        alice = self.online(self.alice, place)
        self.assertEqual(alice.refused(alice.send_to(1, *self.strangers(1))).code, "unknown-device")
        for n in (2, 3):
            self.assertEqual(alice.refused(alice.send_to(n, *self.strangers(n))).code, "rate-limited")
        alice.says(alice.send_to(4, *self.strangers(4)))
        self.assertIs(alice.heard[-1].re, UNSET)
        self.assert_ended(alice, "rate-limited")

    def test_whom_one_sends_to_is_remembered_within_bounds(self) -> None:
        alice = self.online(self.alice)
        self.place.store.held = True
        for n in (1, 2):
            self.assertEqual(alice.says(alice.send_to(n, *self.strangers(n))), [])
        alice.says(alice.send_to(3, *self.strangers(2)))
        self.assertFalse(alice.is_closed)
        alice.says(alice.send_to(4, *self.strangers(3)))
        self.assert_ended(alice, "rate-limited")
        self.place.store.release()

    def test_those_that_are_done_with_make_room(self) -> None:
        alice = self.online(self.alice)
        for n in range(1, 10):
            self.assertEqual(alice.refused(alice.send_to(n, *self.strangers(n))).code, "unknown-device")
        self.assertIsInstance(alice.says(alice.send_to(10, self.bob.id))[-1], wire.Accepted)


class Requests(SessionCase):
    """What is cheap to ask is not to be asked without end."""

    def ping(self, peer: Peer) -> str:
        """How one is answered."""
        peer.says(wire.Ping(peer.next_id()))
        answer = peer.heard[-1]
        return "pong" if isinstance(answer, wire.Pong) else str(answer.code)

    def test_so_many_at_once_and_then_so_many_a_second(self) -> None:
        place = self.new_place(requests_per_second=2.0, requests_burst=12)
        alice = self.online(self.alice, place)
        publish = wire.Publish(alice.next_id(), wire.DeviceKeys())
        self.assertIsInstance(alice.says(publish)[-1], wire.Published)
        alice.asks(wire.KeysRequest(alice.next_id(), ("bob",)), wire.KeysAnswer)
        alice.asks(wire.LogRequest(alice.next_id(), 0), wire.LogAnswer)
        self.assertEqual(self.ping(alice), "rate-limited")
        self.assertEqual((alice.heard[-1].re, alice.heard[-1].retry_after), (alice._id, 0.5))
        # The refusal is counted as well.
        self.passes(0.5, place)
        self.assertEqual(self.ping(alice), "rate-limited")
        self.passes(1, place)
        self.assertEqual(self.ping(alice), "pong")
        self.assertEqual(alice.refused(publish).retry_after, 5.0)
        self.assertFalse(alice.is_closed)

    def test_sends_and_receipts_are_none(self) -> None:
        place = self.new_place(requests_per_second=0.001, requests_burst=10)
        alice, bob = self.online(self.alice, place), self.online(self.bob, place)
        for n in range(1, 50):
            alice.says(alice.send_to(n, self.bob.id))
            bob.receives()
        self.assertEqual(bob.messages(), list(range(1, 50)))
        self.assertEqual([self.ping(peer) for peer in (alice, bob)], ["pong"] * 2)

    def test_who_goes_on_when_refused_is_disconnected(self) -> None:
        place = self.new_place(requests_per_second=0.001, requests_burst=10)
        alice, bob = self.online(self.alice, place), self.online(self.bob, place)
        self.assertEqual([self.ping(alice) for _ in range(19)], ["pong"] * 10 + ["rate-limited"] * 9)
        self.assertFalse(alice.is_closed)
        self.ping(alice)
        self.assertIs(alice.heard[-1].re, UNSET)
        self.assert_ended(alice, "rate-limited")
        # Whatever is refused: that one is told so is work, too.
        for _ in range(19):
            self.assertEqual(bob.refused(bob.send_to(1, self.alice.id, self.alice.id)).code, "bad-request")
        bob.says(bob.send_to(1, self.alice.id, self.alice.id))
        self.assert_ended(bob, "rate-limited")

    def test_receipts_that_say_nothing_new(self) -> None:
        place = self.new_place(requests_per_second=0.001, requests_burst=10)
        alice, bob = self.online(self.alice, place), self.online(self.bob, place)
        alice.says(alice.send_to(1, self.bob.id))
        for _ in range(11):
            bob.says(wire.Received(1))
        self.assertFalse(bob.is_closed)
        bob.says(wire.Received(1))
        self.assert_ended(bob, "rate-limited")


class OneTimeKeys(SessionCase):
    def claim(self, device: OwnDevice, *users: str) -> wire.Error | wire.KeysAnswer:
        """Asked on a connection of its own."""
        peer = self.online(device, self.place)
        [answer] = peer.says(wire.KeysRequest(peer.next_id(), users, claim=True))
        peer.hangs_up()
        assert isinstance(answer, wire.Error | wire.KeysAnswer)
        return answer

    def left(self, device: OwnDevice) -> int:
        return now(self.place.memory.one_time_keys(device.id))  # type: ignore[no-any-return]

    def test_nobody_uses_up_somebodys_keys_over_however_many_connections(self) -> None:
        self.place = self.new_place(claims_of_one=2)
        before = self.left(self.bob)
        answers = [self.claim(self.alice, "bob", "bob") for _ in range(4)]
        self.assertEqual([isinstance(answer, wire.KeysAnswer) for answer in answers], [True, True, False, False])
        self.assertEqual(before - self.left(self.bob), 2)
        error = answers[-1]
        assert isinstance(error, wire.Error)
        self.assertEqual((error.code, error.retry_after), ("rate-limited", 1800.0))
        # It is her account that is limited, and in these keys alone.
        self.assertIsInstance(self.claim(self.alice, "carol"), wire.KeysAnswer)
        self.assertIsInstance(self.claim(self.carol, "bob"), wire.KeysAnswer)
        self.passes(1800)
        self.assertIsInstance(self.claim(self.alice, "bob"), wire.KeysAnswer)

    def test_to_look_at_keys_is_not_to_take_them(self) -> None:
        self.place = self.new_place(claims_of_one=1)
        self.claim(self.alice, "bob")
        alice = self.online(self.alice, self.place)
        for _ in range(5):
            alice.asks(wire.KeysRequest(alice.next_id(), ("bob",)), wire.KeysAnswer)

    def test_who_asks_for_everybodys_keys(self) -> None:
        self.place = self.new_place(claims_burst=100, claims_per_second=2.0)
        names = tuple(f"user{number}" for number in range(100))
        self.assertIsInstance(self.claim(self.alice, *names), wire.KeysAnswer)
        error = self.claim(self.alice, "bob")
        assert isinstance(error, wire.Error)
        self.assertEqual((error.code, error.retry_after), ("rate-limited", 0.5))
        self.passes(0.5)
        self.assertIsInstance(self.claim(self.alice, "bob"), wire.KeysAnswer)


class Refused(ServicesCase):
    async def test_of_many_connections_over_a_limit_only_some_are_told(self) -> None:
        """What is said to one takes a handshake: the others are aborted at once."""
        self.patch(listening, "MOST_REFUSED", 2)
        await self.begin(loopback_exempt=False, connections_per_address=1, connects_per_second_per_address=1000.0)
        await self.visit()
        endpoint = HostnameEndpoint(self.reactor, "127.0.0.1", self.network.running.services[0])
        strangers: list[Any] = [await endpoint.connect(Factory.forProtocol(partial(Stranger, b""))) for _ in range(4)]
        for stranger in strangers[2:]:
            self.assertEqual(await stranger.gone, b"")
        self.assertEqual([stranger.gone.called for stranger in strangers[:2]], [False, False])
        strangers[0].transport.loseConnection()
        await strangers[0].gone
        door = self.network.service.chats[0]._listening.factory  # type: ignore[union-attr]
        await self.until(lambda: door.refused == 1)
        told = await self.visit()
        await told.line.ended
        self.assertEqual(told.codes, ["too-many-connections"])


class RealSockets(ServicesCase):
    async def test_a_crowd_that_says_nothing_is_gone_after_the_time_for_the_login(self) -> None:
        await self.begin(login_seconds=1.0)
        crowd = [socket.socket() for _ in range(300)]
        for number, one in enumerate(crowd):
            self.addCleanup(one.close)
            one.setblocking(False)
            one.connect_ex(("127.0.0.1", self.network.running.services[number % 5]))
        doors: list[Any] = [chat._listening.factory for chat in self.network.service.chats]  # type: ignore[union-attr]
        await self.until(lambda: any(door.newcomers for door in doors))
        await self.until(lambda: all(_is_over(one) for one in crowd))
        self.assertEqual([len(door.newcomers) for door in doors], [0] * 5)
        self.assertEqual([len(chat._open) for chat in self.network.service.chats], [0] * 5)

    async def test_the_kernel_is_asked_to_notice_a_dead_peer(self) -> None:
        await self.begin(tcp_user_timeout=7.0)
        await self.visit()
        chat = self.network.service.chats[0]
        await self.until(lambda: chat._open)
        [session] = chat._open
        connection = cast(Any, session._pipe).transport.transport.getHandle()
        self.assertEqual(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT), 7000)
        self.assertTrue(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))

    async def test_one_that_never_reads_is_kept_a_window_and_the_rest_is_stored(self) -> None:
        # Each batch is accepted once the time for a receipt is over.
        self.patch(delivery, "WHEEL_SECONDS", 0.1)
        await self.begin(receipt_seconds=0.1)
        alice, bob = await self.network.add_callers(["alice", "bob"])
        await bob.login()
        await alice.login()
        assert alice._line is not None
        assert bob._line is not None
        bob._line._shell.transport.transport.pauseProducing()
        inbox = self.network.node.delivery._inboxes[bob.device.id]
        sender, body = Visitor(alice._line), Raw(b'"' + b"A" * 8000 + b'"')
        shell = cast(Any, inbox._deliver).__self__._pipe
        limits = self.network.config.limits
        for start in range(0, 320, 32):
            for n in range(start + 1, start + 33):
                alice._line.send(wire.Send(n, n, (wire.Recipient(bob.device.id, body),)))
            await self.until(lambda start=start: len(sender.heard) == start + 32)
            self.assertLessEqual(len(inbox._handed), limits.window_messages)
            self.assertLessEqual(inbox._bytes + inbox._held_bytes, 2 * limits.window_bytes)
            self.assertLessEqual(len(inbox._held), limits.window_messages)
            waiting = sum(len(row.body) for row in inbox._backlog)
            self.assertLessEqual(waiting, limits.mailbox_page_bytes + len(body))
            self.assertLessEqual(shell._size, limits.outbound_hard)
        self.assertEqual({type(answer) for answer in sender.heard}, {wire.Accepted})
        self.assertEqual(self.network.node.delivery.writer._queued, 0)
        bob._line._shell.transport.transport.resumeProducing()
        await alice.logout()
        await bob.logout()


def _is_over(one: socket.socket) -> bool:
    try:
        return one.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True


class Turns:
    """A reactor's: a `Clock` would do within one what is put off until the next."""

    def __init__(self) -> None:
        self.calls: list[Callable[[], None]] = []
        self.delays: list[float] = []

    def callLater(self, seconds: float, call: Callable[[], None]) -> None:
        self.calls.append(call)
        self.delays.append(seconds)

    def turn(self) -> None:
        calls, self.calls = self.calls, []
        for call in calls:
            call()


class Mute:
    """A reactor that watches nothing."""

    def addReader(self, reader: object) -> None: ...

    removeReader = addWriter = removeWriter = addReader


class Door(Factory):
    """Takes nobody in, and counts."""

    noisy = False

    def __init__(self, doorway: Doorway) -> None:
        self.doorway = doorway
        self.taken = 0
        self.said: list[str] = []

    def buildProtocol(self, addr: object) -> None:
        self.taken += 1


class Waiting(SynchronousTestCase):
    """All that are not logged in have a share of the time."""

    def setUp(self) -> None:
        self.reactor = Turns()
        self.cleaned = 0
        self.used = 0.0
        self.doorway = Doorway(self.reactor, self.clean, lambda: self.used)
        self.heard: list[int] = []

    def clean(self) -> None:
        self.cleaned += 1

    def wait(self, number: int, seconds: float) -> None:
        """To be heard, which takes so long."""
        self.doorway.wait(partial(self.hear, number, seconds))

    def hear(self, number: int, seconds: float) -> None:
        self.heard.append(number)
        self.used += seconds

    def test_a_turn_hears_no_more_than_its_time_and_all_are_heard_in_order(self) -> None:
        for number in range(7):
            self.wait(number, 0.4 * HEARD_SECONDS)
        self.assertEqual(self.heard, [])
        for heard in (3, 6, 7):
            self.reactor.turn()
            self.assertEqual(self.heard, list(range(heard)))

    def test_one_that_takes_long_has_a_turn_alone(self) -> None:
        for number in range(3):
            self.wait(number, 10 * HEARD_SECONDS)
        for heard in (1, 2, 3):
            self.reactor.turn()
            self.assertEqual(self.heard, list(range(heard)))

    def test_they_have_a_share_of_the_time(self) -> None:
        for number in range(3):
            self.wait(number, 0.002)
            self.reactor.turn()
        self.assertEqual(self.heard, [0, 1, 2])
        for delay, expected in zip(self.reactor.delays, (0, *[PAUSE * 0.002] * 3), strict=True):
            self.assertAlmostEqual(delay, expected)

    def test_who_comes_during_the_pause_waits_for_its_end_and_nothing_runs_without_anybody(self) -> None:
        self.wait(0, 0.002)
        self.reactor.turn()
        self.wait(1, 0.0)
        self.wait(2, 0.0)
        self.assertEqual(self.heard, [0])
        self.assertEqual(len(self.reactor.calls), 1)
        self.reactor.turn()
        self.assertEqual(self.heard, [0, 1, 2])
        self.assertEqual(self.reactor.calls, [])
        self.wait(3, 0.0)
        self.assertEqual(self.reactor.delays[-1], 0)
        self.reactor.turn()
        self.assertEqual(self.heard, [0, 1, 2, 3])

    def test_who_comes_again_goes_to_the_end(self) -> None:
        def again() -> None:
            self.hear(0, HEARD_SECONDS)
            if self.heard.count(0) < 3:
                self.doorway.wait(again)

        self.doorway.wait(again)
        for number in (1, 2, 3):
            self.wait(number, HEARD_SECONDS)
        for _ in range(6):
            self.reactor.turn()
        self.assertEqual(self.heard, [0, 1, 2, 3, 0, 0])

    def test_one_that_fails_keeps_nobody_from_being_heard(self) -> None:
        def fail() -> None:
            self.used += HEARD_SECONDS
            raise ZeroDivisionError

        self.doorway.wait(fail)
        for number in (1, 2):
            self.wait(number, HEARD_SECONDS)
        for _ in range(3):
            self.reactor.turn()
        self.assertEqual(self.heard, [1, 2])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_a_port_takes_one_connection_at_a_time_and_none_while_it_is_not_its_turn(self) -> None:
        door = Door(self.doorway)
        port: Any = PatientPort(0, door, interface="127.0.0.1", reactor=Mute())
        port.startReading, port.stopReading = partial(door.said.append, "reads"), partial(door.said.append, "waits")
        port.startListening()
        self.addCleanup(port.connectionLost, Failure(ConnectionDone()))
        crowd = [socket.create_connection(("127.0.0.1", port.getHost().port)) for _ in range(3)]
        for one in crowd:
            self.addCleanup(one.close)
        for taken in (1, 2, 3):
            door.said.clear()
            port.doRead()
            self.assertEqual((door.taken, door.said), (taken - 1, ["waits"]))
            self.reactor.turn()
            self.assertEqual((door.taken, door.said), (taken, ["waits", "reads"]))
            self.reactor.turn()

    def test_memory_is_given_back_after_a_flood_and_not_for_a_few(self) -> None:
        for _ in range(ENDED_BEFORE_CLEANING - 1):
            self.doorway.ended()
        self.doorway.tick()
        self.assertEqual(self.cleaned, 0)
        self.doorway.ended()
        for _ in range(2):
            self.doorway.tick()
        self.assertEqual(self.cleaned, 1)
