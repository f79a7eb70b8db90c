"""A service that stops as it should: at whatever step of a message it is told to, nothing is lost, shown twice or out
of order, and nobody is shown an error. The whole system in memory, on a `Clock`."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from fastchat.protocols.session import FINISH_SECONDS, LEAVE_SECONDS
from fastchat.services import network
from fastchat.services.chat import DRAIN_SECONDS, TELL_SECONDS, farewells
from fastchat_client.events import Moving
from tests.support.joined import JoinedTest, Net, Person
from tests.support.joined_services import SERVICES


class Pace(SynchronousTestCase):
    def test_no_more_arrive_elsewhere_in_a_second_than_may(self) -> None:
        for away in (0.0, 2.0):
            pace = list(farewells(2000, 100.0, away))
            arrivals = sorted(told + after for told, after in pace)
            self.assertEqual(len(arrivals), 2000)
            self.assertGreaterEqual(arrivals[0], away)
            for first, hundred_later in zip(arrivals, arrivals[100:], strict=False):
                self.assertGreaterEqual(hundred_later - first, 1.0 - 1e-9)

    def test_everybody_is_told_in_time(self) -> None:
        self.assertLessEqual(max(told for told, _ in farewells(10_000, 100.0, 0.0)), TELL_SECONDS)
        self.assertEqual(max(told for told, _ in farewells(10_000, 100.0, 2.0)), 0.0, "nobody takes them: at once")

    def test_a_few_are_sent_on_at_once(self) -> None:
        self.assertEqual([after for _, after in farewells(100, 200.0, 0.0)], [0.0] * 100)

    def test_what_a_stop_may_take(self) -> None:
        self.assertLessEqual(network.STOP_SECONDS, 10.0)
        self.assertLessEqual(DRAIN_SECONDS, 10.0)


class Drain(JoinedTest):
    def assert_quiet(self, *people: Person) -> None:
        for person in people:
            self.assertEqual(person.farewells, [], person.name)

    def test_after_every_step_of_a_message(self) -> None:
        """Not stored yet, being stored, handed over and not received, received and not accepted: the sender's service,
        or the recipient's; the recipient is there, or not."""
        for whose in ("alice", "bob"):
            for is_there in (True, False):
                for steps in range(14):
                    net = self.network()
                    alice, bob = net.person("alice"), net.person("bob")
                    alice.sends("bob", "before")
                    bob.sees("alice: before")
                    leaving = net.services[alice.service if whose == "alice" else bob.service]
                    if not is_there:
                        bob.goes_offline()
                    with net.same_moment():
                        last = alice.sends("bob", "1", "2")
                        net.turns(steps)
                        leaving.leaves()
                    more = ["3"] if steps % 2 else []
                    for text in more:
                        alice.sends("bob", text)
                    net.passes(seconds=10)
                    self.assertEqual((leaving.sessions, alice.is_online), (set(), True), (whose, steps))
                    bob.comes_back()
                    bob.sees(*(f"alice: {text}" for text in ("1", "2", *more)))
                    net.passes(seconds=5)
                    self.assertEqual(alice.state_of(last), "delivered", (whose, is_there, steps))
                    self.assert_quiet(alice, bob)

    def test_who_is_told_moves_within_the_same_moment(self) -> None:
        alice, bob = self.net.person("alice"), self.net.person("bob")
        leaving = self.net.services[bob.service]
        leaving.leaves()
        self.net.settles()
        self.assertTrue(bob.is_online)
        self.assertNotEqual(bob.service, leaving.name)
        self.assertEqual([event.retry_in for event in bob.events if isinstance(event, Moving)], [0.0])
        alice.sends("bob", "there already?")
        bob.sees("alice: there already?")
        self.assertEqual(self.net.stored, 0)

    def test_what_is_being_stored_is_answered_before_its_sender_goes(self) -> None:
        alice, bob = self.net.person("alice"), self.net.person("bob")
        alice.sends("bob", "before")
        bob.sees("alice: before")
        bob.goes_offline()
        leaving = self.net.services[alice.service]
        leaving.reach.held = True
        last = alice.sends("bob", "1", "2")
        leaving.leaves()
        self.net.settles()
        late = alice.sends("bob", "3")
        self.net.passes(seconds=1)
        self.assertEqual((alice.service, alice.state_of(last)), (leaving.name, "waiting"))
        leaving.reach.release()
        self.net.settles()
        self.assertEqual((alice.state_of(last), alice.state_of(late)), ("accepted", "accepted"))
        self.assertNotEqual(alice.service, leaving.name)
        self.assertEqual(leaving.counters.accepted, 3, "nothing new is begun there")
        self.assertEqual(self.net.mailbox(bob.device), 3, "each once")
        bob.comes_back()
        bob.sees("alice: 1", "alice: 2", "alice: 3")
        self.assert_quiet(alice, bob)

    def test_a_database_that_does_not_answer_keeps_nobody(self) -> None:
        alice, bob = self.net.person("alice"), self.net.person("bob")
        alice.sends("bob", "before")
        bob.sees("alice: before")
        bob.goes_offline()
        leaving = self.net.services[alice.service]
        leaving.reach.held = True
        last = alice.sends("bob", "1", "2")
        leaving.leaves()
        self.net.passes(seconds=FINISH_SECONDS + LEAVE_SECONDS + 1)
        self.assertEqual(leaving.sessions, set())
        self.assertEqual(alice.state_of(last), "accepted", "through another service")
        leaving.reach.release()
        bob.comes_back()
        bob.sees("alice: 1", "alice: 2")
        self.assert_quiet(alice, bob)

    def test_a_recipient_who_does_not_read(self) -> None:
        alice, bob = self.net.person("alice"), self.net.person("bob")
        alice.sends("bob", "before")
        bob.sees("alice: before")
        bob.stops_reading()
        leaving = self.net.services[bob.service]
        last = alice.sends("bob", "1", "2")
        leaving.leaves()
        self.net.services[alice.service].leaves()
        self.net.passes(seconds=FINISH_SECONDS)
        self.assertEqual(alice.state_of(last), "accepted")
        self.assertTrue(alice.is_online)
        self.net.passes(seconds=LEAVE_SECONDS + 1)
        self.assertEqual(leaving.sessions, set())
        self.net.passes(seconds=30)
        bob.sees("alice: 1", "alice: 2")

    def test_while_the_database_is_away(self) -> None:
        """What is on its way to somebody who moves waits in the outbox; so may the move, for the new service has never
        seen the device."""
        alice, bob, carol = (self.net.person(name) for name in ("alice", "bob", "carol"))
        carol.goes_offline()
        self.net.database_goes_away()
        with self.net.same_moment():
            self.net.services[bob.service].leaves()
            last = alice.sends("bob", "1", "2")
        self.net.passes(seconds=10)
        waiting = alice.sends("carol", "3")
        self.net.database_comes_back()
        self.net.passes(seconds=10)
        bob.sees("alice: 1", "alice: 2")
        carol.comes_back()
        carol.sees("alice: 3")
        self.net.passes(seconds=3)
        self.assertEqual((alice.state_of(last), alice.state_of(waiting)), ("delivered", "delivered"))
        self.assert_quiet(alice, bob, carol)

    def test_in_the_middle_of_a_full_mailbox(self) -> None:
        net = self.network(mailbox_page=7, window_messages=5, sends_per_second=1000.0, sends_burst=1000)
        alice, bob = net.person("alice"), net.person("bob")
        bob.goes_offline()
        texts = [f"{number}" for number in range(60)]
        alice.sends("bob", *texts)
        with net.same_moment():
            bob.comes_back()
            net.turns(40)
            net.services[bob.service].leaves()
        net.passes(seconds=5)
        bob.sees(*(f"alice: {text}" for text in texts))
        self.assertEqual(net.mailbox(bob.device), 0)
        self.assert_quiet(alice, bob)

    def test_while_somebody_logs_in(self) -> None:
        """At every step of it."""
        for steps in range(16):
            net = self.network()
            alice, bob = net.person("alice"), net.person("bob")
            bob.goes_offline()
            alice.sends("bob", "1")
            with net.same_moment():
                bob.comes_back()
                net.turns(steps)
                for service in net.services.values():
                    if service.name != alice.service and service.sessions:
                        service.leaves()
            net.passes(seconds=3)
            bob.sees("alice: 1")
            self.assert_quiet(alice, bob)

    def test_all_go_and_come_back(self) -> None:
        """The whole network stops: nobody is there for some seconds, and nobody is shown an error."""
        people = [self.net.person(name) for name in ("alice", "bob", "carol")]
        with self.net.same_moment():
            last = [one.sends(other.name, "1", "2") for one in people for other in people if other is not one]
            for service in self.net.services.values():
                service.leaves(after=2.0)
        self.net.passes(seconds=8)
        self.assertEqual(self.net.sessions, 0)
        for service in self.net.services.values():
            service.returns()
        self.net.passes(seconds=20)
        for one in people:
            one.sees_in_any_order(*(f"{other.name}: {n}" for other in people if other is not one for n in (1, 2)))
            self.assert_quiet(one)
        self.assertEqual(len(last), 6)

    def test_one_after_the_other_while_people_talk(self) -> None:
        net = self.network(sends_per_second=1000.0, sends_burst=1000)
        people = [net.person(name) for name in ("alice", "bob", "carol", "dave")]
        said = 0
        for name in SERVICES:
            for _ in range(5):
                with net.same_moment():
                    said = self.everybody_talks(people, said)
                    if not net.services[name].is_leaving:
                        net.turns(3)
                        net.services[name].leaves()
                net.passes(seconds=1)
            net.services[name].returns()
            self.assertIn(name, {service.name for service in net.placement.services()})
        net.passes(seconds=10)
        for one in people:
            for other in people:
                if other is not one:
                    came = [event.text for event in one.events if getattr(event, "sender", "") == other.name]
                    self.assertEqual(came, [f"{n}" for n in range(said)], "once, and in order")
        self.assert_quiet(*people)

    def everybody_talks(self, people: list[Person], said: int) -> int:
        for one in people:
            for other in people:
                if other is not one:
                    one.sends(other.name, f"{said}")
        return said + 1


class Balancer(JoinedTest):
    def test_nobody_is_sent_to_a_service_that_drains(self) -> None:
        leaving = self.net.services["chat-3"]
        leaving.leaves()
        self.assertNotIn("chat-3", {self.net.placement.assign().service.name for _ in range(20)})
        self.assertNotIn("chat-3", {service.name for service in self.net.placement.services()})
        people = [self.net.person(f"person{number}") for number in range(8)]
        self.assertNotIn("chat-3", {person.service for person in people})

    def test_who_was_on_the_way_there_goes_elsewhere(self) -> None:
        net: Net = self.net
        bob = net.person("bob")
        bob.goes_offline()
        with net.same_moment():
            bob.comes_back()
            net.turns(2)
            for name in SERVICES[:4]:
                net.services[name].leaves()
        net.passes(seconds=2)
        self.assertEqual((bob.service, bob.farewells), ("chat-5", []))
