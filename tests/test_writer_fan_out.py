"""What one message has for many mailboxes: gathered, written at once, counted as one body."""

from __future__ import annotations

from itertools import count
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from fastchat.delivery import writer
from fastchat.errors import Busy, FastChatError
from fastchat.store import Mail
from tests.support.delivery import Network, Sender, device_id, now

KIB = 1024


class FanOutCase(SynchronousTestCase):
    def network(self, members: int = 0, **limits: Any) -> Network:
        self.orders = count(1)
        self.outcomes: list[tuple[int, FastChatError | None]] = []
        self.net = Network(**limits)
        self.net.add_devices("alice", *self.names(members))
        self.addCleanup(self.net.stop)
        return self.net

    def names(self, members: int) -> list[str]:
        return [f"member{number}" for number in range(members)]

    def fan_out(self, n: int, members: int, size: int = 10) -> None:
        """Message `n`, the same for each of so many."""
        order, body = next(self.orders), b"x" * size
        with self.net.delivery.writer.gathering():
            for name in self.names(members):
                self.put(Mail(device_id(name), "alice", device_id("alice"), n, 0, bytes(bytearray(body)), order))

    def put(self, mail: Mail) -> None:
        self.net.delivery.writer.put(mail, lambda error: self.outcomes.append((mail.n, error)))

    def one(self, n: int, size: int = 10) -> None:
        order = next(self.orders)
        self.put(Mail(device_id("member0"), "alice", device_id("alice"), n, 0, b"x" * size, order))

    def batches(self) -> list[dict[int, int]]:
        """How many recipients of each message were in each batch."""
        return [{n: batch.count(n) for n in batch} for batch in self.net.store.batches]

    def errors(self) -> dict[int, set[type]]:
        found: dict[int, set[type]] = {}
        for n, error in self.outcomes:
            found.setdefault(n, set()).add(type(error))
        return found


class Gathering(FanOutCase):
    def test_a_thousand_who_are_away_are_one_batch_with_one_body(self) -> None:
        net = self.network(1000)
        self.fan_out(1, 1000)
        self.assertEqual(self.batches(), [{1: 1000}])
        self.assertEqual(self.outcomes, [(1, None)] * 1000)
        rows = {row.message for name in self.names(1000) for row in now(net.store.mailbox(device_id(name), [], 10))}
        self.assertEqual(len(rows), 1)

    def test_nothing_is_written_before_the_block_ends_nor_when_an_inner_one_does(self) -> None:
        net = self.network(1)
        with net.delivery.writer.gathering():
            self.one(1)
            with net.delivery.writer.gathering():
                self.one(2)
            self.assertEqual(self.batches(), [])
        self.assertEqual(self.batches(), [{1: 1, 2: 1}])
        self.one(3)
        self.assertEqual(self.batches(), [{1: 1, 2: 1}, {3: 1}])
        with net.delivery.writer.gathering():
            pass
        self.assertEqual(len(self.batches()), 2)

    def test_what_was_gathered_before_a_mistake_is_written(self) -> None:
        net = self.network(1)
        with self.assertRaises(KeyError), net.delivery.writer.gathering():
            self.one(1)
            raise KeyError
        self.assertEqual(self.outcomes, [(1, None)])

    def test_behind_a_batch_that_is_being_written_it_waits(self) -> None:
        net = self.network(5)
        net.store.hold()
        self.one(1)
        self.fan_out(2, 5)
        self.one(3)
        self.assertEqual(self.batches(), [{1: 1}])
        net.store.release()
        self.assertEqual(self.batches(), [{1: 1}, {2: 5, 3: 1}])

    def test_what_fails_fails_for_all_with_what_is_behind_it(self) -> None:
        net = self.network(5)
        net.store.fail_after_commit = True
        net.store.hold()
        self.fan_out(1, 5)
        self.fan_out(2, 5)
        net.store.release()
        self.assertEqual(self.errors(), {1: {Busy}, 2: {Busy}})
        self.assertEqual((len(self.outcomes), self.batches()), (10, [{1: 5}]))


class Counting(FanOutCase):
    def test_a_batch_counts_bodies(self) -> None:
        net = self.network(5, write_batch=3)
        net.store.hold()
        self.one(0)
        for n in range(1, 5):
            self.fan_out(n, 5)
        self.one(5)
        net.store.release()
        self.assertEqual(self.batches(), [{0: 1}, {1: 5, 2: 5, 3: 5}, {4: 5, 5: 1}])

    def test_bytes_of_a_batch_are_those_of_its_bodies(self) -> None:
        net = self.network(5, write_batch_bytes=10 * KIB)
        net.store.hold()
        self.one(0)
        for n in range(1, 4):
            self.fan_out(n, 5, 4 * KIB)
        net.store.release()
        self.assertEqual(self.batches(), [{0: 1}, {1: 5, 2: 5}, {3: 5}])

    def test_a_batch_has_so_many_recipients(self) -> None:
        self.patch(writer, "ROWS_AT_ONCE", 10)
        net = self.network(25)
        net.store.hold()
        self.one(0)
        self.fan_out(1, 25)
        self.fan_out(2, 7)
        net.store.release()
        self.assertEqual(self.batches(), [{0: 1}, {1: 10}, {1: 10}, {1: 5, 2: 5}, {2: 2}])
        self.assertEqual([net.mailbox(name) for name in self.names(25)[1:]], [[1, 2]] * 6 + [[1]] * 18)
        self.assertEqual(net.delivery.writer._queued, 0)

    def test_what_goes_on_in_the_next_batch_counts_there_too(self) -> None:
        self.patch(writer, "ROWS_AT_ONCE", 10)
        net = self.network(11, write_batch=1)
        with net.delivery.writer.gathering():
            self.fan_out(1, 11)
            self.one(2)
        self.assertEqual(self.batches(), [{1: 10}, {1: 1}, {2: 1}])

    def test_a_queue_counts_a_body_once_and_something_for_each_recipient(self) -> None:
        net = self.network(100, write_queue_bytes=64 * KIB)
        net.store.hold()
        self.one(0)
        self.fan_out(1, 100, 20 * KIB)  # 20 KiB and 100 times 256 bytes: 45 KiB
        self.fan_out(2, 100, 10 * KIB)  # 10 KiB more, and room for 36 recipients
        refused = [n for n, error in self.outcomes if isinstance(error, Busy)]
        self.assertEqual(refused, [2] * 64)
        net.store.release()
        self.assertEqual(self.batches(), [{0: 1}, {1: 100, 2: 36}])
        self.assertEqual(net.delivery.writer._queued, 0)
        self.fan_out(3, 100, 20 * KIB)
        self.assertEqual(self.errors()[3], {type(None)})


class Lanes(FanOutCase):
    def test_lanes_that_spill_one_after_the_other_share_bodies_and_keep_their_order(self) -> None:
        net = self.network(3)
        names = self.names(3)
        alice = Sender(net, "alice")
        readers = [net.login(name) for name in names]
        for _ in range(3):
            alice.send(*names)
        readers[1].receive(2)  # its lane begins with the third
        net.store.hold()
        self.one(100)
        for reader in readers:
            reader.inbox.close()
        net.store.release()
        self.assertEqual(self.batches(), [{100: 1}, {1: 2, 2: 2, 3: 3}])
        self.assertEqual([net.mailbox(name) for name in names], [[100, 1, 2, 3], [3], [1, 2, 3]])
        rows = {row.message for name in names for row in now(net.store.mailbox(device_id(name), [], 10))}
        self.assertEqual(len(rows), 4)
        self.assertEqual(alice.outcomes, {1: None, 2: None, 3: None})

    def test_a_message_that_found_one_lane_open_overtakes_nothing_in_another(self) -> None:
        """Number 2 is stored for carol before bob's lane stores number 1: the rows still rise as it was sent."""
        net = self.network()
        net.add_devices("bob", "carol")
        alice = Sender(net, "alice")
        bob = net.login("bob")
        alice.send("bob")
        net.store.hold()
        self.one_for("carol", 100)
        alice.send("carol", "bob")  # carol is away: stored at once; bob has not answered number 1 yet
        bob.inbox.close()
        net.store.release()
        self.assertEqual(net.store.batches, [[100], [2, 1, 2]])
        self.assertEqual((net.mailbox("bob"), net.mailbox("carol")), ([1, 2], [100, 2]))

    def one_for(self, name: str, n: int) -> None:
        self.put(Mail(device_id(name), "alice", device_id("other"), n, 0, b"x", next(self.orders)))
