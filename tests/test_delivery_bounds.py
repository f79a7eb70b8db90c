"""What delivery reads and writes at once is bounded in bytes, too: large messages cost no more than many."""

from __future__ import annotations

from itertools import count
from typing import Any

from msgspec import Raw
from twisted.trial.unittest import SynchronousTestCase

from fastchat.delivery import Counters, writer
from fastchat.errors import Busy, FastChatError, MailboxFull
from fastchat.protocols.wire import Recipient
from fastchat.store import Mail, Waiting
from tests.support.delivery import Network, Sender, device_id, now

KIB = 1024


class BoundsCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.orders = count(1)

    def network(self, **limits: Any) -> Network:
        network = Network(**limits)
        network.add_devices("alice", "bob")
        self.addCleanup(network.stop)
        return network

    def put(self, network: Network, *sizes: int) -> dict[int, FastChatError | None]:
        """Mail of these sizes for bob; what became of it, by position."""
        outcomes: dict[int, FastChatError | None] = {}
        for n, size in enumerate(sizes):
            mail = Mail(device_id("bob"), "alice", device_id("alice"), n, 0, b"x" * size, next(self.orders))
            network.delivery.writer.put(mail, lambda error, n=n: outcomes.update({n: error}))  # type: ignore[misc]
        return outcomes


class Writing(BoundsCase):
    def test_a_batch_has_so_many_bytes_and_at_least_one_message(self) -> None:
        net = self.network(write_batch_bytes=10 * KIB)
        net.store.hold()
        outcomes = self.put(net, 1, *[4 * KIB] * 5, 30 * KIB, 1, 2)
        net.store.release()
        self.assertEqual(net.store.batches, [[0], [1, 2], [3, 4], [5], [6], [7, 8]])
        self.assertEqual(outcomes, dict.fromkeys(range(9)))

    def test_a_queue_that_is_full_takes_nothing_before_the_next_batch_is_written(self) -> None:
        net = self.network(write_queue_bytes=10 * KIB)
        net.store.hold()
        outcomes = self.put(net, 8 * KIB, 8 * KIB, 3 * KIB, 1)
        # Number 3 would fit; but it may be one that comes after number 2.
        self.assertEqual([(n, type(error)) for n, error in outcomes.items()], [(2, Busy), (3, Busy)])
        net.store.release()
        self.assertEqual(net.mailbox("bob"), [0, 1])
        self.assertEqual(self.put(net, 1, 1), {0: None, 1: None})

    def test_one_that_is_larger_than_the_queue_is_written_all_the_same(self) -> None:
        net = self.network(write_queue_bytes=10 * KIB)
        net.store.hold()
        outcomes = self.put(net, 1, 20 * KIB)
        net.store.release()
        self.assertEqual(outcomes, {0: None, 1: None})

    def test_what_failed_waits_no_more(self) -> None:
        net = self.network(write_queue_bytes=10 * KIB)
        net.store.hold()
        net.store.fail_after_commit = True
        self.put(net, 1, 9 * KIB)
        net.store.release()
        net.store.fail_after_commit = False
        net.store.hold()
        self.assertEqual(self.put(net, 1, 9 * KIB), {})
        net.store.release()

    def test_what_is_refused_is_overtaken_by_nothing(self) -> None:
        net = self.network(write_queue_bytes=10 * KIB)
        net.store.hold()
        self.put(net, 1, 9 * KIB)
        alice = net.delivery.outgoing("alice", device_id("alice"), Counters())
        outcomes: dict[int, FastChatError | None] = {}

        def send(n: int, size: int) -> None:
            body = Raw(b'"%s"' % (b"A" * size))
            alice.send(n, [Recipient(device_id("bob"), body)], lambda error: outcomes.update({n: error}))

        send(11, 2 * KIB)
        net.store.release()
        send(12, 1)
        self.assertEqual([type(outcomes[n]) for n in (11, 12)], [Busy, Busy])
        send(11, 2 * KIB)
        send(12, 1)
        self.assertEqual([outcomes[n] for n in (11, 12)], [None, None])
        self.assertEqual(net.mailbox("bob"), [0, 1, 11, 12])


class Shares(BoundsCase):
    def test_who_has_filled_a_share_is_refused_unseen_for_a_moment_and_nobody_else_is(self) -> None:
        net = self.network(mailbox_messages=8, mailbox_share=0.5)
        alice, other = Sender(net, "alice"), net.delivery.outgoing("bob", device_id("bob"), net.counters)
        for _ in range(4):
            alice.send("bob")
        self.assertEqual(net.mailbox("bob"), [1, 2, 3, 4])
        self.assertIsInstance(alice.outcomes[alice.send("bob")], MailboxFull)
        bob = net.login("bob")
        bob.receive()
        bob.inbox.close()
        self.assertEqual(net.mailbox("bob"), [])
        batches = len(net.store.batches)
        self.assertIsInstance(alice.outcomes[alice.send("bob")], MailboxFull)
        self.assertEqual(len(net.store.batches), batches)
        # Another mailbox, another sender, and after a moment the same again.
        self.assertEqual(alice.outcomes[alice.send("alice")], None)
        told: list[FastChatError | None] = []
        other.send(1, [Recipient(device_id("bob"), Raw(b'"x"'))], told.append)
        self.assertEqual(told, [None])
        net.clock.advance(writer.SHARE_SECONDS)
        self.assertEqual(alice.outcomes[alice.send("bob")], None)

    def test_what_is_known_of_full_shares_is_bounded(self) -> None:
        self.patch(writer, "SHARES_KEPT", 2)
        net = self.network(mailbox_messages=2, mailbox_share=0.5)
        names = [f"reader{number}" for number in range(3)]
        net.add_devices(*names)
        alice = Sender(net, "alice")
        for name in [*names, *names]:
            alice.send(name)
        kept = net.delivery.writer._full_shares
        self.assertEqual([device for device, _ in kept], [device_id(name) for name in names[:2]])
        net.clock.advance(writer.SHARE_SECONDS)
        alice.send("reader2")
        self.assertEqual([device for device, _ in net.delivery.writer._full_shares], [device_id("reader2")])


class Reading(BoundsCase):
    def test_a_page_has_so_many_bytes_and_nothing_is_left_behind(self) -> None:
        net = self.network(mailbox_page_bytes=4 * KIB, window_messages=1000)
        self.put(net, *[KIB] * 10, 9 * KIB, 1, 1)
        pages: list[int] = []
        read = net.store.mailbox

        async def watched(*args: Any) -> Any:
            page = await read(*args)
            pages.append(len(page))
            return page

        self.patch(net.store, "mailbox", watched)
        bob = net.login("bob")
        self.assertEqual(bob.numbers, list(range(13)))
        self.assertEqual(pages, [4, 4, 3, 2])
        self.assertTrue(bob.inbox.is_live)

    def test_a_page_that_is_full_to_the_byte_is_not_taken_for_the_last_one(self) -> None:
        net = self.network(mailbox_page_bytes=4 * KIB, window_messages=1000)
        self.put(net, *[2 * KIB] * 2)
        rows: list[Waiting] = now(net.store.mailbox(device_id("bob"), [], 10, 4 * KIB))
        self.assertEqual(len(rows), 2)
        self.put(net, 1)
        self.assertEqual(net.login("bob").numbers, [0, 1, 0])
