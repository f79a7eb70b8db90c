"""People talk over the joined system: the real client, sessions, delivery and balancer, with the codec between them."""

from __future__ import annotations

from collections import Counter

from fastchat_client.events import Notice
from fastchat_client.speaking import MAX_TEXT
from tests.support.joined import JoinedTest, Person


class Online(JoinedTest):
    def test_two_people_on_different_services(self) -> None:
        alice, bob = self.net.person("alice"), self.net.person("bob")
        self.assertNotEqual(alice.service, bob.service)
        hello = alice.sends("bob", "hello")
        self.assertEqual(alice.state_of(hello), "accepted")
        bob.sees("alice: hello")
        bob.sends("alice", "hello yourself", "and how are you?")
        alice.sees("bob: hello yourself", "bob: and how are you?")
        self.net.passes(seconds=2)
        self.assertEqual(alice.state_of(hello), "delivered")
        self.assertEqual(self.net.stored, 0)

    def test_both_write_first_at_the_same_moment(self) -> None:
        alice, bob = self.net.person("alice"), self.net.person("bob")
        with self.net.same_moment():
            alice.sends("bob", "a1")
            bob.sends("alice", "b1")
        alice.sees("bob: b1")
        bob.sees("alice: a1")
        for number in (2, 3):
            alice.sends("bob", f"a{number}")
            bob.sends("alice", f"b{number}")
        alice.sees("bob: b2", "bob: b3")
        bob.sees("alice: a2", "alice: a3")

    def test_every_device_has_everything(self) -> None:
        alice, bob = self.net.person("alice"), self.net.person("bob")
        alice.sends("bob", "before")
        bob.sees("alice: before")
        phone = self.net.second_device(bob)
        self.net.passes(minutes=6)
        alice.sends("bob", "to both")
        bob.sees("alice: to both")
        phone.sees("alice: to both")
        phone.sends("alice", "from the phone")
        alice.sees("bob: from the phone")
        bob.sees("bob → alice: from the phone")

    def test_one_device_that_is_away_keeps_no_message_from_the_other(self) -> None:
        alice, bob = self.net.person("alice"), self.net.person("bob")
        phone = self.net.second_device(bob)
        phone.goes_offline()
        hello = alice.sends("bob", "hello")
        bob.sees("alice: hello")
        self.assertEqual(alice.state_of(hello), "accepted")
        phone.comes_back()
        phone.sees("alice: hello")
        bob.sees()

    def test_a_text_as_long_as_can_be(self) -> None:
        alice, bob = self.net.person("alice"), self.net.person("bob")
        text = "x" * MAX_TEXT
        alice.sends("bob", text)
        bob.sees(f"alice: {text}")

    def test_more_than_the_limits_let_through_at_once(self) -> None:
        """The client keeps to the limits by itself: nothing is refused, all of it arrives."""
        net = self.network(unaccepted=4, sends_per_second=5.0, sends_burst=10, window_messages=3)
        alice, bob = net.person("alice"), net.person("bob")
        texts = [f"{number}" for number in range(60)]
        alice.sends("bob", *texts)
        net.passes(minutes=1)
        bob.sees(*(f"alice: {text}" for text in texts))


class Away(JoinedTest):
    def test_offline_for_a_day_and_back(self) -> None:
        alice, bob = self.net.person("alice"), self.net.person("bob")
        alice.sends("bob", "before")
        bob.sees("alice: before")
        bob.goes_offline()
        morning = alice.sends("bob", "good morning", "are you there?")
        self.assertEqual(self.net.mailbox(bob.device), 2)
        self.net.passes(days=1)
        self.assertEqual(alice.state_of(morning), "accepted")
        alice.sends("bob", "good night")
        bob.comes_back()
        bob.sees("alice: good morning", "alice: are you there?", "alice: good night")
        self.assertEqual(self.net.mailbox(bob.device), 0)
        bob.sends("alice", "I am back")
        alice.sees("bob: I am back")
        self.net.passes(seconds=2)
        self.assertEqual(alice.state_of(morning), "delivered")
        self.assertEqual(alice.farewells, [])

    def test_written_offline_and_sent_in_order(self) -> None:
        alice, bob = self.net.person("alice"), self.net.person("bob")
        alice.goes_offline()
        bob.goes_offline()
        texts = [f"{number}" for number in range(100)]
        last = alice.sends("bob", *texts)
        self.net.passes(hours=1)
        self.assertEqual(alice.state_of(last), "waiting")
        alice.comes_back()
        self.net.passes(seconds=30)
        self.assertEqual(alice.state_of(last), "accepted")
        bob.comes_back()
        bob.sees(*(f"alice: {text}" for text in texts))

    def test_one_time_keys_of_two_devices_are_exhausted(self) -> None:
        """Then their fallback keys serve, and nobody notices."""
        bob = self.net.person("bob")
        phone = self.net.second_device(bob)
        for device in (bob, phone):
            device.goes_offline()
            self.net.empties_one_time_keys(device, but=1)
        callers = [self.net.person(name) for name in ("carol", "dave", "erin")]
        for caller in callers:
            caller.sends("bob", f"it is {caller.name}", "call me")
        for device in (bob, phone):
            self.assertEqual(self.net.one_time_keys(device), 0)
            device.comes_back()
            device.sees(
                *(f"{one.name}: {text}" for one in callers for text in (f"it is {one.name}", "call me")),
            )
            self.net.passes(seconds=2)
            self.assertGreater(self.net.one_time_keys(device), 24)
        bob.sends("erin", "what is it?")
        callers[2].sees("bob: what is it?")

    def test_messages_out_of_order(self) -> None:
        """Nobody promises the order of two senders, and a mailbox may hold anything: what comes, is read."""
        alice, bob = self.net.person("alice"), self.net.person("bob")
        alice.sends("bob", "0")
        bob.sees("alice: 0")
        bob.goes_offline()
        alice.sends("bob", "1", "2", "3", "4")
        self.net.turns_mailbox_round(bob)
        bob.comes_back()
        bob.sees("alice: 4", "alice: 3", "alice: 2", "alice: 1")

    def test_a_first_message_that_comes_last(self) -> None:
        alice, bob = self.net.person("alice"), self.net.person("bob")
        bob.goes_offline()
        alice.sends("bob", "1", "2", "3")
        self.net.turns_mailbox_round(bob)
        bob.comes_back()
        bob.sees("alice: 3", "alice: 2", "alice: 1")

    def test_a_mailbox_of_many_pages(self) -> None:
        net = self.network(mailbox_page=7, window_messages=5, sends_per_second=1000.0, sends_burst=1000)
        alice, bob = net.person("alice"), net.person("bob")
        bob.goes_offline()
        texts = [f"{number}" for number in range(100)]
        alice.sends("bob", *texts)
        bob.comes_back()
        alice.sends("bob", "live")
        bob.sees(*(f"alice: {text}" for text in (*texts, "live")))
        self.assertEqual(net.mailbox(bob.device), 0)

    def test_a_full_mailbox_fails_the_message_and_not_the_next_one(self) -> None:
        net = self.network(mailbox_messages=2, mailbox_share=1.0)
        alice, bob = net.person("alice"), net.person("bob")
        bob.goes_offline()
        alice.sends("bob", "1", "2")
        lost = alice.sends("bob", "3")
        self.assertEqual(alice.state_of(lost), "failed")
        bob.comes_back()
        bob.sees("alice: 1", "alice: 2")
        alice.sends("bob", "4")
        bob.sees("alice: 4")

    def test_a_device_of_ones_own_that_is_never_used_again_fails_nothing(self) -> None:
        net = self.network(mailbox_messages=4, mailbox_share=1.0)
        alice, bob = net.person("alice"), net.person("bob")
        phone = net.second_device(alice)
        net.passes(minutes=6)
        phone.goes_offline()
        sent = [alice.sends("bob", f"{number}") for number in range(8)]
        bob.sees(*(f"alice: {number}" for number in range(8)))
        self.assertEqual({alice.state_of(one) for one in sent}, {"accepted"})
        net.passes(minutes=1)
        self.assertEqual({alice.state_of(one) for one in sent}, {"delivered"})
        self.assertEqual((alice.vault.waiting(), net.mailbox(phone.device)), (0, 4))
        notices = [event for event in alice.events if isinstance(event, Notice)]
        self.assertEqual([notice.code for notice in notices], ["mailbox-full"], "said once")
        self.assertIn(phone.device[:8], notices[0].text)
        note = alice.sends("alice", "a note to myself")
        self.assertEqual(alice.state_of(note), "accepted")
        bob.goes_offline()
        for number in range(5):
            lost = alice.sends("bob", f"away {number}")
        self.assertEqual(alice.state_of(lost), "failed", "nobody has it")

    def test_one_of_two_devices_of_the_addressee_is_full(self) -> None:
        net = self.network(mailbox_messages=2, mailbox_share=1.0)
        alice, bob = net.person("alice"), net.person("bob")
        phone = net.second_device(bob)
        phone.goes_offline()
        sent = [alice.sends("bob", f"{number}") for number in range(5)]
        bob.sees(*(f"alice: {number}" for number in range(5)))
        self.assertEqual({alice.state_of(one) for one in sent}, {"accepted"})
        self.assertEqual(len([event for event in alice.events if isinstance(event, Notice)]), 1)
        phone.comes_back()
        phone.sees("alice: 0", "alice: 1")
        alice.sends("bob", "and on")
        bob.sees("alice: and on")
        phone.sees("alice: and on")


class Mishaps(JoinedTest):
    def talk(self, *people: Person, about: str) -> None:
        """Each says something to each, and each of it arrives once."""
        for one in people:
            for other in people:
                if other is not one:
                    one.sends(other.name, about)
        self.net.passes(minutes=2)
        for one in people:
            one.sees_in_any_order(*(f"{other.name}: {about}" for other in people if other is not one))

    def test_a_service_is_killed_while_its_clients_talk(self) -> None:
        alice, bob, carol = (self.net.person(name) for name in ("alice", "bob", "carol"))
        self.talk(alice, bob, carol, about="before")
        victim = alice.service
        with self.net.same_moment():
            lost = alice.sends("bob", "1", "2", "3")
            bob.sends("alice", "4", "5")
            self.net.kills(victim)
        self.net.passes(minutes=1)
        self.assertNotEqual(alice.service, victim)
        bob.sees("alice: 1", "alice: 2", "alice: 3")
        alice.sees("bob: 4", "bob: 5")
        self.assertEqual(alice.state_of(lost), "delivered")
        self.net.revives(victim)
        self.talk(alice, bob, carol, about="after")

    def test_it_dies_at_any_step_of_a_message(self) -> None:
        """After every single turn of the reactor that a message takes: sender's service, or recipient's."""
        for whose in ("alice", "bob"):
            for steps in range(14):
                net = self.network()
                alice, bob = net.person("alice"), net.person("bob")
                alice.sends("bob", "before")
                bob.sees("alice: before")
                with net.same_moment():
                    last = alice.sends("bob", "1", "2")
                    net.turns(steps)
                    net.kills(alice.service if whose == "alice" else bob.service)
                net.passes(minutes=1)
                bob.sees("alice: 1", "alice: 2")
                self.assertEqual(alice.state_of(last), "delivered", (whose, steps))

    def test_all_services_but_one_are_killed_one_after_the_other(self) -> None:
        alice, bob = self.net.person("alice"), self.net.person("bob")
        for number in range(1, 5):
            self.net.kills(f"chat-{number}")
            self.talk(alice, bob, about=f"without {number}")
        self.assertEqual((alice.service, bob.service), ("chat-5", "chat-5"))

    def test_a_service_that_stops_sends_its_clients_elsewhere(self) -> None:
        alice, bob = self.net.person("alice"), self.net.person("bob")
        self.talk(alice, bob, about="before")
        leaving = self.net.services[bob.service]
        with self.net.same_moment():
            last = alice.sends("bob", "1", "2", "3")
            leaving.leaves()
        self.net.passes(minutes=1)
        bob.sees("alice: 1", "alice: 2", "alice: 3")
        self.assertNotEqual(bob.service, leaving.name)
        self.assertEqual((bob.farewells, leaving.sessions), ([], set()))
        self.assertEqual(alice.state_of(last), "delivered")

    def test_the_balancer_forgets_who_was_on_a_service_that_died(self) -> None:
        people = [self.net.person(f"person{number}") for number in range(10)]
        victim = people[0].service
        self.net.kills(victim)
        self.net.passes(minutes=1)
        sessions = {load.service.name: (load.sessions, load.leases) for load in self.net.placement.loads()}
        self.assertEqual(len(sessions), 4)
        self.assertEqual(sum(count for count, _ in sessions.values()), 10)
        self.assertEqual({leases for _, leases in sessions.values()}, {0})

    def test_the_database_goes_away_and_comes_back(self) -> None:
        alice, bob, carol = (self.net.person(name) for name in ("alice", "bob", "carol"))
        self.talk(alice, bob, carol, about="before")
        carol.goes_offline()
        self.net.database_goes_away()
        online = alice.sends("bob", "1", "2")
        bob.sees("alice: 1", "alice: 2")
        self.assertEqual(alice.state_of(online), "accepted")
        waiting = alice.sends("carol", "3", "4", "5")
        self.net.passes(minutes=2)
        self.assertEqual(alice.state_of(waiting), "waiting")
        alice.sends("bob", "6")
        bob.sees("alice: 6")
        self.net.database_comes_back()
        self.net.passes(minutes=2)
        self.assertEqual(alice.state_of(waiting), "accepted")
        self.assertEqual(alice.farewells, [])
        carol.comes_back()
        carol.sees("alice: 3", "alice: 4", "alice: 5")

    def test_somebody_comes_back_while_the_database_is_away(self) -> None:
        alice, bob = self.net.person("alice"), self.net.person("bob")
        self.talk(alice, bob, about="before")
        bob.goes_offline()
        alice.sends("bob", "stored")
        self.net.database_goes_away()
        bob.comes_back(at=bob.service)
        bob.sends("alice", "I see nothing yet")
        alice.sees("bob: I see nothing yet")
        late = alice.sends("bob", "behind it")
        bob.sees()
        self.net.database_comes_back()
        self.net.passes(seconds=30)
        bob.sees("alice: stored", "alice: behind it")
        self.assertEqual(alice.state_of(late), "delivered")

    def test_what_waits_is_read_once_the_database_is_back(self) -> None:
        alice, bob = self.net.person("alice"), self.net.person("bob")
        bob.goes_offline()
        alice.sends("bob", "stored")
        self.net.database_goes_away()
        bob.comes_back(at=bob.service)
        self.net.passes(seconds=30)
        bob.sees()
        self.net.database_comes_back()
        self.net.passes(seconds=5)
        bob.sees("alice: stored")

    def test_the_database_goes_away_for_one_message_only(self) -> None:
        """What is written after it goes out after it, although it could have gone out at once."""
        alice, bob = self.net.person("alice"), self.net.person("bob")
        self.talk(alice, bob, about="before")
        bob.goes_offline()
        self.net.database_goes_away()
        alice.sends("bob", "1")
        self.net.database_comes_back()
        alice.sends("bob", "2", "3")
        self.net.passes(seconds=30)
        bob.comes_back()
        bob.sees("alice: 1", "alice: 2", "alice: 3")

    def test_the_database_goes_away_in_the_middle_of_a_commit(self) -> None:
        alice, bob = self.net.person("alice"), self.net.person("bob")
        self.talk(alice, bob, about="before")
        bob.goes_offline()
        self.net.store.held = True
        last = alice.sends("bob", "1", "2", "3")
        self.assertEqual(alice.state_of(last), "waiting")
        self.net.database_goes_away()
        self.net.store.release()
        self.net.passes(seconds=5)
        self.assertEqual(alice.state_of(last), "waiting")
        self.net.database_comes_back()
        self.net.passes(seconds=30)
        self.assertEqual(alice.state_of(last), "accepted")
        bob.comes_back()
        bob.sees("alice: 1", "alice: 2", "alice: 3")

    def test_a_recipient_moves_in_the_middle_of_a_stream(self) -> None:
        alice, bob = self.net.person("alice"), self.net.person("bob")
        self.talk(alice, bob, about="before")
        older = self.net.services[bob.service]
        for number in range(0, 40, 4):
            with self.net.same_moment():
                last = alice.sends("bob", *(f"{number + i}" for i in range(4)))
                if number in (8, 24):
                    self.net.turns(3)
                    bob.moves()
            self.net.passes(seconds=1)
        self.net.passes(minutes=3)
        bob.sees(*(f"alice: {number}" for number in range(40)))
        self.assertEqual(alice.state_of(last), "delivered")
        self.assertEqual(sum(len(service.sessions) for service in self.net.services.values()), 2)
        self.assertFalse(older.sessions and bob.service != older.name)

    def test_a_second_program_with_the_same_profile_replaces_the_first(self) -> None:
        alice, bob = self.net.person("alice"), self.net.person("bob")
        alice.sends("bob", "1")
        bob.sees("alice: 1")
        again = bob.second_program()
        self.net.passes(minutes=10)
        self.assertEqual(bob.farewells, ["replaced"])
        self.assertFalse(bob.is_online)
        alice.sends("bob", "2")
        again.sees("alice: 2")
        bob.sees()

    def test_a_connection_that_falls_silent(self) -> None:
        """Nobody is told; what was under way is stored, and read when the client has found out."""
        alice, bob = self.net.person("alice"), self.net.person("bob")
        self.talk(alice, bob, about="before")
        bob.falls_silent()
        last = alice.sends("bob", "1", "2")
        self.net.passes(seconds=5)
        self.assertEqual(alice.state_of(last), "accepted")
        self.assertEqual(self.net.mailbox(bob.device), 2)
        self.net.passes(minutes=3)
        bob.sees("alice: 1", "alice: 2")
        self.assertEqual(bob.farewells, ["unreachable"])
        self.assertEqual(self.net.sessions, 2)

    def test_somebody_who_does_not_read(self) -> None:
        net = self.network(sends_per_second=1000.0, sends_burst=1000)
        alice, bob = net.person("alice"), net.person("bob")
        alice.sends("bob", "0")
        bob.sees("alice: 0")
        bob.stops_reading()
        texts = [f"{number} " + "x" * 4000 for number in range(80)]
        last = alice.sends("bob", *texts)
        net.passes(seconds=5)
        self.assertEqual(alice.state_of(last), "accepted")
        self.assertGreater(net.mailbox(bob.device), 0)
        bob.reads_on()
        net.passes(seconds=5)
        bob.sees(*(f"alice: {text}" for text in texts))
        self.assertEqual(bob.farewells, [])

    def test_somebody_who_never_reads_is_cut_off_and_loses_nothing(self) -> None:
        net = self.network(sends_per_second=1000.0, sends_burst=1000)
        alice, bob = net.person("alice"), net.person("bob")
        bob.stops_reading()
        texts = [f"{number} " + "x" * 4000 for number in range(80)]
        alice.sends("bob", *texts)
        net.passes(minutes=5)
        self.assertNotEqual(bob.farewells, [])
        bob.sees(*(f"alice: {text}" for text in texts))


class DatabaseAway(JoinedTest):
    """Online people go on talking; what cannot be stored waits with its sender; all of it arrives later, in order."""

    def two_and_a_phone(self) -> tuple[Person, Person, Person]:
        """Alice, whose phone is offline, and bob; they have written to each other."""
        alice, bob = self.net.person("alice"), self.net.person("bob")
        phone = self.net.second_device(alice)
        self.net.passes(minutes=6)
        alice.sends("bob", "before")
        bob.sends("alice", "before")
        bob.sees("alice: before")
        alice.sees("bob: before")
        phone.sees("alice → bob: before", "bob: before")
        phone.goes_offline()
        return alice, bob, phone

    def test_an_offline_device_of_ones_own_keeps_nobody_waiting(self) -> None:
        alice, bob, phone = self.two_and_a_phone()
        self.net.database_goes_away()
        sent, answers = [], []
        for number in range(40):
            sent.append(alice.sends("bob", f"a{number}"))
            bob.sees(f"alice: a{number}")
            answers.append(bob.sends("alice", f"b{number}"))
            alice.sees(f"bob: b{number}")
            self.net.passes(seconds=number % 4)
        self.net.passes(seconds=5)
        self.assertEqual({alice.state_of(one) for one in sent}, {"delivered"}, "bob has said so")
        self.assertEqual(alice.vault.waiting(), 40, "for the phone")
        self.assertEqual(bob.vault.waiting(), 40)
        self.assertEqual((alice.farewells, bob.farewells, self.net.mailbox(phone.device)), ([], [], 0))
        self.net.database_comes_back()
        self.net.passes(minutes=1)
        self.assertEqual((alice.vault.waiting(), bob.vault.waiting()), (0, 0))
        phone.comes_back()
        self.net.passes(seconds=30)
        news = phone._news()
        self.assertEqual([line for line in news if "→" in line], [f"alice → bob: a{number}" for number in range(40)])
        self.assertEqual([line for line in news if "→" not in line], [f"bob: b{number}" for number in range(40)])
        alice.sees()
        bob.sees()

    def test_one_of_two_devices_of_the_recipient(self) -> None:
        alice, bob, phone = self.two_and_a_phone()
        self.net.database_goes_away()
        for number in range(10):
            bob.sends("alice", f"{number}")
            alice.sees(f"bob: {number}")
        self.assertEqual(bob.vault.waiting(), 10)
        self.net.database_comes_back()
        self.net.passes(seconds=30)
        self.assertEqual(bob.vault.waiting(), 0)
        phone.comes_back()
        phone.sees(*(f"bob: {number}" for number in range(10)))

    def test_several_conversations_and_somebody_who_is_offline(self) -> None:
        """Carol is offline, and so is alice's phone: neither holds up what bob and alice say, and the phone has each
        conversation in order."""
        alice, bob, phone = self.two_and_a_phone()
        carol = self.net.person("carol")
        alice.sends("carol", "before")
        carol.sees("alice: before")
        carol.goes_offline()
        self.net.database_goes_away()
        for number in range(20):
            alice.sends("carol", f"{number}")
            alice.sends("bob", f"{number}")
            bob.sees(f"alice: {number}")
            self.net.passes(seconds=number % 3)
        self.assertEqual(alice.vault.waiting(), 40)
        self.net.database_comes_back()
        self.net.passes(minutes=1)
        self.assertEqual(alice.vault.waiting(), 0)
        carol.comes_back()
        carol.sees(*(f"alice: {number}" for number in range(20)))
        phone.comes_back()
        self.net.passes(seconds=10)
        news = phone._news()
        for to in ("bob", "carol"):
            copies = [line for line in news if line.startswith(f"alice → {to}: ")]
            self.assertEqual(
                copies, [f"alice → {to}: {n}" for n in (*(["before"] if to == "carol" else []), *range(20))]
            )
        bob.sees()

    def test_the_program_is_started_again_meanwhile(self) -> None:
        """Who has a message is written down: it goes to the others only, and still in order."""
        alice, bob, phone = self.two_and_a_phone()
        self.net.database_goes_away()
        for number in range(5):
            alice.sends("bob", f"{number}")
            bob.sees(f"alice: {number}")
        alice.goes_offline()
        self.net.passes(minutes=1)
        alice.comes_back(at=alice.service)
        alice.sends("bob", "5")
        bob.sees("alice: 5")
        self.net.passes(minutes=1)
        self.net.database_comes_back()
        self.net.passes(minutes=1)
        self.assertEqual(alice.vault.waiting(), 0)
        phone.comes_back()
        self.net.passes(seconds=10)
        phone.sees(*(f"alice → bob: {number}" for number in range(6)))
        bob.sees()

    def test_a_commit_that_hangs(self) -> None:
        """Until its deadline nobody knows; bob reads on all the same."""
        alice, bob, phone = self.two_and_a_phone()
        self.net.store.held = True
        for number in range(10):
            alice.sends("bob", f"{number}")
            bob.sees(f"alice: {number}")
        self.net.database_goes_away()
        self.net.store.release()
        alice.sends("bob", "10")
        bob.sees("alice: 10")
        self.net.database_comes_back()
        self.net.passes(seconds=30)
        self.assertEqual(alice.vault.waiting(), 0)
        phone.comes_back()
        phone.sees(*(f"alice → bob: {number}" for number in range(11)))

    def test_nothing_is_asked_of_the_database_for_people_who_are_online(self) -> None:
        net = self.network(sends_per_second=1000.0, sends_burst=1000)
        alice, bob = net.person("alice"), net.person("bob")
        alice.sends("bob", "before")
        bob.sees("alice: before")
        net.passes(seconds=3)
        before = Counter(net.store.calls)
        for number in range(50):
            alice.sends("bob", f"{number}")
            bob.sees(f"alice: {number}")
        self.assertEqual(net.store.calls - before, Counter())

    def test_who_logs_in_meanwhile_speaks_and_hears_later(self) -> None:
        """docs/decisions/no-offers-before-the-mailbox.md."""
        alice, bob = self.net.person("alice"), self.net.person("bob")
        alice.sends("bob", "before")
        bob.sees("alice: before")
        bob.goes_offline()
        alice.sends("bob", "1")
        self.net.database_goes_away()
        bob.comes_back(at=bob.service)
        self.assertTrue(bob.is_online)
        for number in range(2, 6):
            late = alice.sends("bob", f"{number}")
            bob.sends("alice", f"{number}")
            alice.sees(f"bob: {number}")
            self.net.passes(seconds=4)
        bob.sees()
        self.assertEqual(alice.state_of(late), "waiting")
        self.net.database_comes_back()
        self.net.passes(seconds=10)
        bob.sees(*(f"alice: {number}" for number in range(1, 6)))
        self.assertEqual((alice.vault.waiting(), bob.vault.waiting()), (0, 0))
        stored = self.net.stored
        alice.sends("bob", "live again")
        bob.sees("alice: live again")
        self.assertEqual(self.net.stored, stored)
