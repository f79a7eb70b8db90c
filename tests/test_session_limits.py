"""The session machine's limits, each reached and each told; requests that wait for a database that is slow, away or
broken; and connections that are lost while they do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec import UNSET
from twisted.logger import globalLogPublisher

from fastchat.errors import Internal, ProtocolError
from fastchat.protocols import wire
from fastchat.protocols.line import CLOSE_SECONDS
from fastchat.protocols.session import PENDING_REQUESTS, State
from tests.support.calling import END_POINT, Peer, SessionCase
from tests.support.people import PASSWORD, Person, scram_client
from tests.support.rules import INVITE


class BeforeLogin(SessionCase):
    def test_a_login_that_takes_too_long(self) -> None:
        for greets in (False, True):
            peer = self.peer()
            if greets:
                peer.greets()
            self.passes(9.5)
            self.assertFalse(peer.is_closed)
            self.passes(0.5)
            self.assertIs(peer.heard[-1].re, UNSET)
            self.assert_ended(peer, "login-timeout")
            self.passes(CLOSE_SECONDS)
            self.assertTrue(peer.is_aborted)

    def test_no_word_buys_more_time(self) -> None:
        peer = self.peer()
        self.passes(6)
        peer.greets()
        client = scram_client("alice", PASSWORD, END_POINT)
        peer.asks(wire.ScramRequest(2, client.get_client_first()), wire.ScramAnswer)
        self.passes(4)
        self.assert_ended(peer, "login-timeout")

    def test_it_goes_on_while_an_answer_is_awaited_and_the_answer_is_not_given(self) -> None:
        peer = self.peer()
        peer.greets()
        self.passes(8)
        self.place.store.held = True
        self.assertEqual(peer.says(peer.login(self.alice)), [])
        self.passes(2)
        self.assert_ended(peer, "login-timeout")
        heard = len(peer.heard)
        self.place.store.release()
        self.assertEqual(len(peer.heard), heard)
        self.assertFalse(self.place.is_attached(self.alice.id))

    def test_a_database_that_hangs_does_not_use_up_the_time(self) -> None:
        """Who cannot be looked up is told so; whoever is known gets in without what the database would have said."""
        self.place.store.held = True
        stranger = self.peer()
        stranger.greets()
        self.assertEqual(stranger.says(stranger.login(self.alice)), [])
        self.passes(3)
        self.assert_ended(stranger, "busy")
        self.place.store.release()
        self.online(self.alice)
        self.place.store.held = True
        known = self.peer()
        known.greets()
        self.assertEqual(known.says(known.login(self.alice)), [])
        self.passes(3)
        ready = known.heard[-1]
        self.assertIsInstance(ready, wire.Ready)
        self.assertEqual((ready.mailbox, ready.one_time_keys), (None, None))
        self.place.store.release()

    def test_once_logged_in_it_is_over(self) -> None:
        peer = self.online(self.alice)
        self.passes(60)
        self.assertFalse(peer.is_closed)

    def test_too_many_messages(self) -> None:
        place = self.new_place(frames_before_login=3)
        peer = self.peer(place)
        peer.greets()
        for name in ("dave", "erin"):
            peer.asks(Person(name).register(INVITE), wire.Registered)
        error = peer.refused(Person("frank").register(INVITE))
        self.assertEqual((error.code, error.re), ("rate-limited", 1))
        self.assert_ended(peer, "rate-limited")

    def test_a_further_device_and_one_more_are_not_too_many(self) -> None:
        peer = self.peer()
        peer.greets()
        self.assertIsInstance(peer.proves("alice"), wire.ScramAnswer)
        phone, request = self.people["alice"].add_device("phone")
        peer.asks(request, wire.Added)
        peer.asks(Person("dave").register(INVITE), wire.Registered)
        peer.asks(peer.login(phone), wire.Ready)


class Sending(SessionCase):
    """What a client may send; what is refused for now is passed by nothing that follows."""

    def outcomes(self, peer: Peer) -> dict[Any, str]:
        """By request, how it was answered last."""
        answers = [one for one in peer.heard if isinstance(one, wire.Accepted | wire.Error)]
        return {one.re: "accepted" if isinstance(one, wire.Accepted) else one.code for one in answers}

    def send(self, peer: Peer, n: int, *devices: str) -> str:
        """How message `n` is answered; "" if not at once."""
        request = peer.send_to(n, *devices)
        peer.says(request)
        return self.outcomes(peer).get(request.id, "")

    def test_too_many_that_are_not_accepted(self) -> None:
        place = self.new_place(unaccepted=2)
        alice, bob = self.online(self.alice, place), self.online(self.bob, place)
        self.assertEqual([self.send(alice, n, self.bob.id) for n in (1, 2, 3)], ["", "", "rate-limited"])
        self.assertEqual(alice.heard[-1].retry_after, 1.0)
        self.assertEqual(bob.messages(), [1, 2])
        bob.receives()
        # The third was refused, so nothing later may overtake it on its way to bob; to carol it may.
        self.assertEqual(self.send(alice, 4, self.bob.id), "busy")
        self.assertEqual(self.send(alice, 5, self.carol.id), "accepted")
        self.assertEqual(self.send(alice, 6, self.bob.id, self.carol.id), "busy")
        self.assertEqual(alice.heard[-1].devices, (self.bob.id,), "carol has it")
        self.assertEqual([self.send(alice, n, self.bob.id) for n in (3, 4)], ["", ""])
        bob.receives()
        self.assertEqual(bob.messages(), [1, 2, 3, 4])
        self.assertEqual(place.mailbox(self.carol.id), [5, 6])

    def test_too_many_a_second(self) -> None:
        place = self.new_place(sends_per_second=2.0, sends_burst=3)
        alice, bob = self.online(self.alice, place), self.online(self.bob, place)
        self.assertEqual([self.send(alice, n, self.bob.id) for n in (1, 2, 3, 4)], ["", "", "", "rate-limited"])
        error = alice.heard[-1]
        self.assertEqual(error.retry_after, 0.5)
        bob.receives()
        self.passes(error.retry_after, place)
        self.assertEqual(self.send(alice, 5, self.bob.id), "busy")
        self.passes(1, place)
        self.assertEqual([self.send(alice, n, self.bob.id) for n in (4, 5)], ["", ""])
        bob.receives()
        self.assertEqual(bob.messages(), [1, 2, 3, 4, 5])

    def test_what_one_sends_is_not_counted_for_another(self) -> None:
        place = self.new_place(sends_per_second=1.0, sends_burst=1, unaccepted=1)
        for device in (self.alice, self.bob):
            peer = self.online(device, place)
            self.assertEqual(self.send(peer, 1, self.carol.id), "accepted")
            self.assertEqual(self.send(peer, 2, self.carol.id), "rate-limited")

    def test_a_message_that_is_refused_for_what_it_is_holds_up_nothing(self) -> None:
        alice = self.online(self.alice)
        self.assertEqual(self.send(alice, 1, self.carol.id, self.carol.id), "bad-request")
        self.assertEqual(self.send(alice, 2, "0" * 32), "unknown-device")
        self.assertEqual(self.send(alice, 3, self.carol.id), "accepted")

    def test_the_database_is_away(self) -> None:
        alice, bob = self.online(self.alice), self.online(self.bob)
        self.place.store.away = True
        self.assertEqual(self.send(alice, 1, self.carol.id), "busy")
        self.assertEqual(alice.heard[-1].retry_after, 2.0)
        self.assertEqual(self.send(alice, 2, self.bob.id), "")
        bob.receives()
        self.assertEqual(self.outcomes(alice)[alice._id], "accepted")
        self.place.store.away = False
        self.assertEqual(self.send(alice, 3, self.carol.id), "busy")
        self.assertEqual([self.send(alice, n, self.carol.id) for n in (1, 3)], ["accepted"] * 2)
        self.assertEqual(self.place.mailbox(self.carol.id), [1, 3])
        self.assertEqual((self.place.counters.accepted, self.place.counters.stored), (3, 2))


class Presence(SessionCase):
    """Is the other side there, and reading?"""

    def ticks(self, peer: Peer, seconds: float) -> None:
        for _ in range(round(seconds / 5)):
            peer.session.tick(5.0)
        self.place.clock.advance(0)

    def test_silence(self) -> None:
        peer = self.online(self.alice)
        self.ticks(peer, 75)  # in the first of these it had just logged in
        self.assertFalse(peer.is_aborted)
        self.ticks(peer, 5)
        self.assertTrue(peer.is_aborted)
        self.assertEqual(self.place.endings, [peer.session])

    def test_whoever_says_anything_is_there(self) -> None:
        peer = self.online(self.alice)
        for _ in range(10):
            self.ticks(peer, 70)
            peer.says(wire.Ping(peer.next_id()))
        for _ in range(3):
            self.ticks(peer, 70)
            peer.says_line(b"no message")
        self.assertFalse(peer.is_aborted)

    def test_a_slow_reader(self) -> None:
        alice, bob = self.online(self.alice), self.online(self.bob)
        alice.says(alice.send_to(1, self.bob.id))
        bob.is_writable = False
        bob.session.writable(False)
        alice.says(alice.send_to(2, self.bob.id))
        self.assertEqual(bob.messages(), [1])
        self.assertEqual(self.place.mailbox(self.bob.id), [1, 2])
        for _ in range(11):
            bob.session.tick(5.0)
            bob.says(wire.Ping(bob.next_id()))
        self.assertFalse(bob.is_aborted)
        self.ticks(bob, 5)
        self.assertTrue(bob.is_aborted)

    def test_one_that_reads_now_and_then(self) -> None:
        alice, bob = self.online(self.alice), self.online(self.bob)
        for n in (1, 2, 3):
            bob.is_writable = False
            bob.session.writable(False)
            alice.says(alice.send_to(n, self.bob.id))
            self.ticks(bob, 55)
            bob.says(wire.Ping(bob.next_id()))
            bob.is_writable = True
            bob.session.writable(True)
            self.assertEqual(bob.messages(), list(range(1, n + 1)))
            bob.receives()
        self.assertFalse(bob.is_aborted)
        self.assertEqual(self.place.mailbox(self.bob.id), [])

    def test_one_that_did_not_read_even_its_welcome(self) -> None:
        alice, bob = self.online(self.alice), self.peer()
        bob.greets()
        bob.is_writable = False
        bob.session.writable(False)
        bob.asks(bob.login(self.bob), wire.Ready)
        alice.says(alice.send_to(1, self.bob.id))
        self.assertEqual(bob.messages(), [])
        bob.is_writable = True
        bob.session.writable(True)
        self.assertEqual(bob.messages(), [1])


def _requests(case: SessionCase) -> dict[str, tuple[Callable[[], Peer], Callable[[Peer], Any]]]:
    """Every request that waits for the store: a peer that may make it, and the request. Made when it is asked for."""

    def greeted() -> Peer:
        peer = case.peer()
        peer.greets()
        return peer

    def begun() -> Peer:
        peer = greeted()
        client = peer.client = scram_client("alice", PASSWORD, END_POINT)
        answer = peer.asks(wire.ScramRequest(2, client.get_client_first()), wire.ScramAnswer)
        client.set_server_first(answer.message)
        return peer

    def proven() -> Peer:
        peer = greeted()
        case.assertIsInstance(peer.proves("alice"), wire.ScramAnswer)
        return peer

    def online() -> Peer:
        return case.online(case.bob)

    return {
        "register": (greeted, lambda peer: Person("dave").register(INVITE)),
        "scram": (
            greeted,
            lambda peer: wire.ScramRequest(2, scram_client("alice", "x", END_POINT).get_client_first()),
        ),
        "scram's end": (begun, lambda peer: wire.ScramRequest(3, peer.client.get_client_final())),
        "add_device": (proven, lambda peer: Person("alice").add_device("phone")[1]),
        "login": (greeted, lambda peer: peer.login(case.alice)),
        "keys": (online, lambda peer: wire.KeysRequest(peer.next_id(), ("alice",))),
        "publish": (online, lambda peer: wire.Publish(peer.next_id(), case.bob.keys())),
        "log": (online, lambda peer: wire.LogRequest(peer.next_id(), 0)),
    }


class Waiting(SessionCase):
    """Requests and the database."""

    def test_too_many_at_once(self) -> None:
        peer = self.online(self.alice)
        self.place.store.held = True
        asked = [wire.KeysRequest(peer.next_id(), ("bob",)) for _ in range(PENDING_REQUESTS)]
        for request in asked:
            self.assertEqual(peer.says(request), [])
        for more in (wire.KeysRequest(90, ("bob",)), wire.LogRequest(91, 0), wire.Publish(92, wire.DeviceKeys())):
            error = peer.refused(more)
            self.assertEqual((error.code, error.retry_after), ("rate-limited", 1.0))
        peer.asks(wire.Ping(93), wire.Pong)
        before = len(peer.heard)
        self.place.store.release()
        answers = peer.heard[before:]
        self.assertEqual(sorted(answer.re for answer in answers), [request.id for request in asked])
        peer.asks(wire.KeysRequest(94, ("bob",)), wire.KeysAnswer)

    def test_those_that_were_refused_do_not_count(self) -> None:
        peer = self.online(self.alice)
        for _ in range(PENDING_REQUESTS + 1):
            error = peer.refused(wire.LogRequest(peer.next_id(), 1_000_000))
            self.assertEqual(error.code, "bad-request")
        peer.asks(wire.KeysRequest(peer.next_id(), ("bob",)), wire.KeysAnswer)

    def test_the_database_is_away(self) -> None:
        for name in _requests(self):
            if name in ("login", "publish"):
                continue
            with self.subTest(name):
                self.setUp()
                make_peer, make_request = _requests(self)[name]
                peer = make_peer()
                request = make_request(peer)
                self.place.store.away = True
                error = peer.refused(request)
                self.assertEqual((error.code, error.retry_after), ("busy", 2.0))
                self.assertEqual(peer.is_closed, peer.session.state is not State.READY)
                self.assertEqual(peer.session.state is State.READY, name in ("keys", "log"))

    def test_a_mistake_of_ours(self) -> None:
        """The peer hears that it was one, and nothing else of it; the log has the traceback, once."""
        for name in _requests(self):
            with self.subTest(name):
                self.setUp()
                make_peer, make_request = _requests(self)[name]
                peer = make_peer()
                request = make_request(peer)
                self.place.store.broken = True
                error = peer.refused(request)
                self.assertEqual((error.code, error.message), ("internal", Internal().message))
                self.assertIs(error.retry_after, UNSET)
                [failure] = self.flushLoggedErrors(ZeroDivisionError)
                self.assertIn("a secret of the server's", failure.getTraceback())
                if peer.session.state is State.READY:
                    peer.asks(wire.Ping(peer.next_id()), wire.Pong)
                else:
                    self.assert_ended(peer, "internal")
                self.place.store.broken = False

    def test_a_mistake_while_storing_is_busy_and_the_message_comes_again(self) -> None:
        peer = self.online(self.alice)
        self.place.store.broken = True
        self.assertEqual(peer.refused(peer.send_to(1, self.bob.id)).code, "busy")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.place.store.broken = False
        peer.asks(peer.send_to(1, self.bob.id), wire.Accepted)

    def test_the_connection_is_lost_meanwhile(self) -> None:
        for name in _requests(self):
            with self.subTest(name):
                self.setUp()
                make_peer, make_request = _requests(self)[name]
                peer = make_peer()
                request = make_request(peer)
                device = getattr(peer.session._entrance.device, "device", self.alice.id)
                self.place.store.held = True
                self.assertEqual(peer.says(request), [], name)
                peer.hangs_up()
                peer.is_closed = False  # whatever it said now would be heard
                before = len(peer.heard)
                self.place.store.release()
                self.assertEqual(len(peer.heard), before)
                self.assertEqual(self.place.endings, [peer.session])
                self.assertIs(peer.session.state, State.CLOSED)
                self.assertFalse(self.place.is_attached(device))
                self.assertEqual(len(self.place.clock.getDelayedCalls()), 2, "delivery's own two are left")

    def test_it_is_lost_while_a_message_is_stored(self) -> None:
        peer = self.online(self.alice)
        self.place.store.held = True
        peer.says(peer.send_to(1, self.bob.id))
        peer.hangs_up()
        self.place.store.release()
        self.assertEqual(self.place.mailbox(self.bob.id), [1])

    def test_it_is_lost_while_its_mailbox_is_read(self) -> None:
        alice = self.online(self.alice)
        alice.says(alice.send_to(1, self.bob.id))
        self.online(self.bob).hangs_up()
        bob = self.online(self.bob)
        bob.hangs_up()
        self.assertEqual(self.place.mailbox(self.bob.id), [1])
        self.place.clock.advance(0)
        again = self.peer()
        self.assertEqual(again.logs_in(self.bob).mailbox, 1)
        self.assertEqual(again.messages(), [1])

    def test_while_a_guess_is_made_to_wait(self) -> None:
        for _ in range(7):
            self.place.failures.failed("alice", "192.0.2.7")
        make_peer, make_request = _requests(self)["scram"]
        peer = make_peer()
        self.assertEqual(peer.says(make_request(peer)), [])
        peer.hangs_up()
        self.passes(10)
        self.assertEqual(len(peer.heard), 1)
        self.assertEqual(len(self.place.clock.getDelayedCalls()), 2, "delivery's own two are left")

    def test_no_password_and_no_traceback_is_logged_of_refusals(self) -> None:
        """What peers do wrong is no news; it must not fill the log either."""
        events: list[Any] = []
        observer: Any = events.append
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        peer = self.peer()
        peer.greets()
        peer.proves("alice", "hunter2")
        stranger = self.peer()
        stranger.session.bad_frame(ProtocolError())
        self.assertEqual([event for event in events if "log_failure" in event or "hunter2" in str(event)], [])
