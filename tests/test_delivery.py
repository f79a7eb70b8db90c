"""Delivery's rules, without sessions and sockets: who is handed what, when it is stored, when it is accepted."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from fastchat.bus.local import LocalBus
from fastchat.errors import Busy, MailboxFull, ProtocolError, UnknownDevice
from tests.support.delivery import Network, Sender, device_id


class DeliveryCase(SynchronousTestCase):
    def network(self, **limits: Any) -> Network:
        network = Network(**limits)
        network.add_devices("alice", "bob", "carol")
        self.addCleanup(network.stop)
        return network

    def setUp(self) -> None:
        self.net = self.network()
        self.alice = Sender(self.net, "alice")

    def refused(self, n: int) -> tuple[object, ...]:
        """The kind of error that message `n` of alice's was answered with, and whom it names, in order."""
        error = self.alice.outcomes[n]
        assert error is not None
        names = {device_id(name): name for name in ("alice", "bob", "carol", "nobody")}
        return (type(error), *sorted(names[device] for device in error.devices))


class ExpressCase(DeliveryCase):
    def test_between_people_who_are_online_nothing_is_stored(self) -> None:
        bob = self.net.login("bob")
        self.alice.send("bob")
        self.assertEqual(self.alice.outcomes, {})
        bob.receive()
        self.assertEqual(self.alice.outcomes, {1: None})
        self.assertEqual((self.net.store.batches, self.net.counters.stored, self.net.counters.accepted), ([], 0, 1))

    def test_it_needs_no_database(self) -> None:
        bob = self.net.login("bob")
        self.net.store.available = False
        for _ in range(3):
            self.alice.send("bob")
        bob.receive()
        self.assertEqual(self.alice.outcomes, {1: None, 2: None, 3: None})

    def test_receipts_are_cumulative(self) -> None:
        bob = self.net.login("bob")
        for _ in range(5):
            self.alice.send("bob")
        bob.receive(3)
        self.assertEqual(sorted(self.alice.outcomes), [1, 2, 3])
        bob.receive()
        self.assertEqual(sorted(self.alice.outcomes), [1, 2, 3, 4, 5])

    def test_a_receipt_for_what_was_never_handed_over_is_an_error(self) -> None:
        bob = self.net.login("bob")
        self.assertRaises(ProtocolError, bob.inbox.received, 1)

    def test_without_a_receipt_in_time_it_is_stored_and_not_handed_over_twice(self) -> None:
        bob = self.net.login("bob")
        self.alice.send("bob")
        self.net.clock.pump([0.5] * 6)
        self.assertEqual(self.alice.outcomes, {1: None})
        self.assertEqual(self.net.mailbox("bob"), [1])
        self.assertEqual(bob.numbers, [1])
        bob.receive()
        self.assertEqual(self.net.mailbox("bob"), [])

    def test_a_session_that_ends_leaves_its_messages_to_the_mailbox_in_order(self) -> None:
        bob = self.net.login("bob")
        for _ in range(3):
            self.alice.send("bob")
        bob.receive(1)
        bob.inbox.close()
        self.assertEqual(self.net.mailbox("bob"), [2, 3])
        self.assertEqual(self.alice.outcomes, {1: None, 2: None, 3: None})

    def test_the_newer_session_of_a_device_wins(self) -> None:
        older = self.net.login("bob")
        self.alice.send("bob")
        newer = self.net.login("bob", older.seen)
        self.assertTrue(older.is_replaced)
        self.alice.send("bob")
        newer.receive()
        newer.receive()
        self.assertEqual(newer.seen, [(device_id("alice"), 1), (device_id("alice"), 2)])
        self.assertEqual(self.alice.outcomes, {1: None, 2: None})

    def test_what_a_full_window_has_no_room_for_is_held_until_there_is(self) -> None:
        net = self.network(window_messages=2)
        alice, bob = Sender(net, "alice"), net.login("bob")
        for _ in range(4):
            alice.send("bob")
        self.assertEqual(bob.numbers, [1, 2])
        bob.receive(1)
        self.assertEqual(bob.numbers, [1, 2, 3])
        bob.receive()
        bob.receive()
        self.assertEqual(bob.numbers, [1, 2, 3, 4])
        self.assertEqual((net.store.batches, sorted(alice.outcomes)), ([], [1, 2, 3, 4]))

    def test_a_small_message_does_not_pass_a_large_one_that_is_held(self) -> None:
        net = self.network(window_bytes=1024)
        alice, bob = Sender(net, "alice"), net.login("bob")
        for size in (600, 600, 10):
            alice.send("bob", size=size)
        self.assertEqual(bob.numbers, [1])
        bob.receive()
        self.assertEqual(bob.numbers, [1, 2, 3])

    def test_too_much_for_window_and_hold_goes_to_the_mailbox_with_all_that_is_unanswered(self) -> None:
        net = self.network(window_messages=2)
        alice, bob = Sender(net, "alice"), net.login("bob")
        for _ in range(5):
            alice.send("bob")
        self.assertEqual(bob.numbers, [1, 2])
        self.assertEqual(net.mailbox("bob"), [1, 2, 3, 4, 5])
        while len(bob.seen) < 5 or net.mailbox("bob"):
            bob.receive()
        self.assertEqual([n for _, n in bob.seen], [1, 2, 3, 4, 5])

    def test_what_is_held_too_long_goes_to_the_mailbox_whole_and_in_order(self) -> None:
        net = self.network(window_messages=2)
        alice, bob = Sender(net, "alice"), net.login("bob")
        for _ in range(4):
            alice.send("bob")
            net.clock.advance(0.4)
        net.clock.pump([0.5] * 5)
        self.assertEqual(net.mailbox("bob"), [1, 2, 3, 4])
        self.assertEqual(alice.outcomes, dict.fromkeys(range(1, 5)))
        while net.mailbox("bob"):
            bob.receive()
        self.assertEqual(bob.numbers, [1, 2, 3, 4])

    def test_senders_that_do_not_pause_find_a_way_past_a_mailbox_that_is_being_read(self) -> None:
        self.net.store.hold_reads()
        bob = self.net.login("bob")
        for _ in range(10):
            self.alice.send("bob")
        self.assertEqual(bob.numbers, [])
        self.net.store.release_reads()
        self.assertEqual(bob.numbers, list(range(1, 11)))
        self.assertEqual(self.net.store.batches, [])

    def test_the_window_counts_bytes_too(self) -> None:
        net = self.network(window_bytes=1024)
        bob = net.login("bob")
        alice = Sender(net, "alice")
        for _ in range(400):
            alice.send("bob")
        self.assertLess(len(bob.numbers), 400)
        while len(bob.seen) < 400:
            bob.receive()
        self.assertEqual([n for _, n in bob.seen], list(range(1, 401)))

    def test_a_transport_that_is_full_is_handed_nothing(self) -> None:
        bob = self.net.login("bob")
        bob.inbox.set_writable(False)
        self.alice.send("bob")
        self.assertEqual((bob.numbers, self.net.mailbox("bob")), ([], [1]))
        bob.inbox.set_writable(True)
        self.assertEqual(bob.numbers, [1])


class MailboxCase(DeliveryCase):
    def test_offline_people_get_their_messages_at_login_in_order(self) -> None:
        for _ in range(5):
            self.alice.send("bob")
        self.assertEqual(self.alice.outcomes, dict.fromkeys(range(1, 6)))
        bob = self.net.login("bob")
        self.assertEqual(bob.numbers, [1, 2, 3, 4, 5])
        bob.receive()
        self.assertEqual(self.net.mailbox("bob"), [])

    def test_more_than_a_page_and_a_window(self) -> None:
        net = self.network(mailbox_page=7, window_messages=3)
        alice = Sender(net, "alice")
        for _ in range(50):
            alice.send("bob")
        bob = net.login("bob")
        while len(bob.seen) < 50:
            bob.receive()
            alice.send("carol")
        self.assertEqual(bob.numbers, list(range(1, 51)))
        self.assertTrue(bob.inbox.is_live)

    def test_a_live_message_does_not_overtake_the_mailbox(self) -> None:
        net = self.network(window_messages=2)
        alice = Sender(net, "alice")
        for _ in range(4):
            alice.send("bob")
        bob = net.login("bob")
        alice.send("bob")
        while len(bob.seen) < 5:
            bob.receive()
        self.assertEqual(bob.numbers, [1, 2, 3, 4, 5])

    def test_a_message_waits_behind_one_that_is_being_stored(self) -> None:
        self.net.store.hold()
        self.alice.send("bob")
        bob = self.net.login("bob")
        self.alice.send("bob")
        self.assertEqual(bob.numbers, [])
        self.net.store.release()
        self.assertEqual(bob.numbers, [1, 2])

    def test_what_queues_during_a_commit_is_the_next_batch(self) -> None:
        self.net.store.hold()
        for _ in range(10):
            self.alice.send("bob")
        self.assertEqual(self.net.store.batches, [[1]])
        self.net.store.release()
        self.assertEqual(self.net.store.batches, [[1], [2, 3, 4, 5, 6, 7, 8, 9, 10]])

    def test_nothing_is_accepted_before_it_is_committed(self) -> None:
        self.net.store.hold()
        self.alice.send("bob")
        self.assertEqual(self.alice.outcomes, {})
        self.net.store.release()
        self.assertEqual(self.alice.outcomes, {1: None})

    def test_a_full_mailbox_is_told_to_the_sender_for_good(self) -> None:
        net = self.network(mailbox_messages=2, mailbox_share=1.0)
        alice = Sender(net, "alice")
        for _ in range(3):
            alice.send("bob")
        self.assertIsInstance(alice.outcomes[3], MailboxFull)
        self.assertEqual(net.mailbox("bob"), [1, 2])

    def test_an_unknown_device_does_not_keep_the_others_from_getting_it(self) -> None:
        self.alice.send("bob", "nobody")
        self.assertEqual(self.refused(1), (UnknownDevice, "nobody"))
        self.assertEqual(self.net.mailbox("bob"), [1])

    def test_a_full_mailbox_is_named_and_the_others_have_the_message(self) -> None:
        self.net = self.network(mailbox_messages=2, mailbox_share=1.0)
        self.alice = Sender(self.net, "alice")
        for _ in range(2):
            self.alice.send("carol")
        self.alice.send("carol", "bob")
        self.assertEqual(self.refused(3), (MailboxFull, "carol"))
        self.assertEqual(self.net.mailbox("bob"), [3])

    def test_what_the_sender_can_do_most_about_is_told_and_all_are_named(self) -> None:
        self.net = self.network(mailbox_messages=2, mailbox_share=1.0)
        self.alice = Sender(self.net, "alice")
        for _ in range(2):
            self.alice.send("carol")
        self.alice.send("carol", "bob", "nobody")
        self.assertEqual(self.refused(3), (UnknownDevice, "carol", "nobody"))
        self.alice.send("nobody", "carol")
        self.assertEqual(self.refused(4), (UnknownDevice, "carol", "nobody"))
        self.net.store.available = False
        self.net.login("bob").inbox.set_writable(False)
        self.alice.send("bob", "carol")
        self.net.store.available = True
        self.assertEqual(self.refused(5), (Busy, "bob", "carol"))
        self.alice.send_again()
        self.assertEqual(self.refused(5), (MailboxFull, "carol"))

    def test_a_message_for_several_devices_is_accepted_when_the_last_one_has_it(self) -> None:
        bob = self.net.login("bob")
        self.alice.send("bob", "carol")
        self.assertEqual(self.alice.outcomes, {})
        bob.receive()
        self.assertEqual(self.alice.outcomes, {1: None})

    def test_the_sweep_finds_what_no_ring_told(self) -> None:
        class DeafBus(LocalBus):
            def ring(self, device: str) -> None:
                """Lost."""

        net = Network(DeafBus())
        self.addCleanup(net.stop)
        net.add_devices("alice", "bob")
        alice, bob = Sender(net, "alice"), net.login("bob")
        bob.inbox.set_writable(False)
        alice.send("bob")
        bob.inbox.set_writable(True)
        self.assertEqual(bob.numbers, [])
        net.clock.advance(net.limits.sweep_seconds)
        self.assertEqual(bob.numbers, [1])


class DatabaseAwayCase(DeliveryCase):
    def test_a_message_for_somebody_offline_is_busy_and_so_is_everything_behind_it(self) -> None:
        self.net.store.available = False
        self.alice.send("bob")
        self.assertIsInstance(self.alice.outcomes[1], Busy)
        self.net.store.available = True
        self.alice.send("bob")
        self.assertIsInstance(self.alice.outcomes[2], Busy)
        self.alice.send_again()
        self.assertEqual(self.alice.outcomes, {1: None, 2: None})
        self.assertEqual(self.net.mailbox("bob"), [1, 2])

    def test_busy_for_one_recipient_holds_up_no_other(self) -> None:
        carol = self.net.login("carol")
        self.net.store.available = False
        self.alice.send("bob")
        self.alice.send("carol")
        carol.receive()
        self.assertIsInstance(self.alice.outcomes[1], Busy)
        self.assertIsNone(self.alice.outcomes[2])

    def test_what_queued_behind_a_failed_batch_fails_with_it(self) -> None:
        self.net.store.hold()
        self.alice.send("bob")
        self.alice.send("bob")
        self.net.store.available = False
        self.net.store.release()
        self.assertIsInstance(self.alice.outcomes[1], Busy)
        self.assertIsInstance(self.alice.outcomes[2], Busy)
        self.assertEqual(self.net.store.batches, [[1]])

    def test_an_outcome_that_is_not_known_is_written_again_and_dropped_by_the_recipient(self) -> None:
        self.net.store.fail_after_commit = True
        self.alice.send("bob")
        self.net.store.fail_after_commit = False
        self.alice.send_again()
        self.assertEqual(self.net.mailbox("bob"), [1, 1])
        bob = self.net.login("bob")
        bob.receive()
        self.assertEqual(bob.seen, [(device_id("alice"), 1)])

    def test_a_mailbox_that_cannot_be_read_is_read_when_the_database_is_back(self) -> None:
        self.alice.send("bob")
        self.net.store.available = False
        bob = self.net.login("bob")
        self.net.clock.pump([0.5] * 6)
        self.assertEqual(bob.numbers, [])
        self.net.store.available = True
        self.net.clock.pump([0.5] * 6)
        self.assertEqual(bob.numbers, [1])

    def test_a_removal_that_failed_is_made_up_for(self) -> None:
        self.alice.send("bob")
        bob = self.net.login("bob")
        self.net.store.available = False
        bob.receive()
        self.net.store.available = True
        self.net.clock.pump([0.5] * 4)
        self.assertEqual(self.net.mailbox("bob"), [])
        self.assertEqual(bob.numbers, [1])
