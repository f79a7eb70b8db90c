"""Order where something is refused for now: the barrier of a service's lane, and the lanes of the client's outbox, when
what is on its way to one device belongs to several conversations, or waits for its other devices."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from msgspec import Raw
from twisted.trial.unittest import SynchronousTestCase

from fastchat.errors import Busy, FastChatError
from fastchat.protocols.wire import Recipient
from fastchat_client.outbox import Composed, Outbox
from fastchat_client.vault import Vault
from tests.support.delivery import Network, device_id


class Barrier(SynchronousTestCase):
    """To bob, who is not there, while the store comes and goes."""

    def setUp(self) -> None:
        self.net = Network()
        self.net.add_devices("alice", "bob", "carol")
        self.addCleanup(self.net.stop)
        self.outgoing = self.net.delivery.outgoing("alice", device_id("alice"), self.net.counters)

    def send(self, n: int) -> FastChatError | None:
        """Message `n` to bob, and what it is answered with."""
        answers: list[FastChatError | None] = []
        self.outgoing.send(n, [Recipient(device_id("bob"), Raw(b'"sealed"'))], answers.append)
        [answer] = answers
        return answer

    def test_an_earlier_number_passes_the_barrier_and_leaves_it_standing(self) -> None:
        # 3 was composed before, for another conversation, and its keys came late.
        self.net.store.available = False
        self.assertIsInstance(self.send(5), Busy)
        self.net.store.available = True
        self.assertIsNone(self.send(3))
        self.assertIsInstance(self.send(6), Busy)
        self.assertIsNone(self.send(5))
        self.assertIsNone(self.send(6))
        self.assertEqual(self.net.mailbox("bob"), [3, 5, 6])

    def test_an_earlier_number_that_is_refused_too_is_the_barrier(self) -> None:
        self.net.store.available = False
        self.assertIsInstance(self.send(5), Busy)
        self.assertIsInstance(self.send(3), Busy)
        self.net.store.available = True
        self.assertIsInstance(self.send(4), Busy)
        self.assertEqual([self.send(n) for n in (3, 4, 5)], [None] * 3)
        self.assertEqual(self.net.mailbox("bob"), [3, 4, 5])

    def test_every_number_that_was_refused_is_a_barrier(self) -> None:
        # What is for a whole group comes at any time; 6 was refused for bob as well, and waits for 5.
        self.net.store.available = False
        self.assertIsInstance(self.send(5), Busy)
        self.assertIsInstance(self.send(6), Busy)
        self.net.store.available = True
        self.assertIsNone(self.send(5))
        self.assertIsInstance(self.send(7), Busy)
        self.assertEqual([self.send(n) for n in (6, 7)], [None] * 2)
        self.assertEqual(self.net.mailbox("bob"), [5, 6, 7])


class Lanes(SynchronousTestCase):
    """alice's outbox: conversations with bob and carol, of which her desk gets copies."""

    def setUp(self) -> None:
        folder = Path(self.mktemp())
        folder.mkdir()
        self.vault = Vault.create(folder / "vault.db", b"k" * 32)
        self.addCleanup(self.vault.close)
        with self.vault.transaction():
            self.vault.put("user", "alice")
            self.vault.put("device", "alice")
        self.now = 0.0
        self.requests: dict[int, Composed] = {}
        self.box = Outbox(self.vault)

    def write(self, user: str, *devices: str) -> int:
        with self.vault.transaction():
            n = self.box.compose(user, "", b"text", 0)
            self.box.sealed(n, [(device, b'"sealed"') for device in devices])
        return n

    def pump(self) -> list[tuple[int, tuple[str, ...]]]:
        """What goes now, in order. Its request has the number of how much went before."""
        gone: list[tuple[int, tuple[str, ...]]] = []
        not_to: set[str] = set()
        while message := self.box.next(self.now, not_to):
            recipients = self.box.due(message, self.now, not_to)
            if recipients:
                self.requests[len(self.requests)] = message
                self.box.goes(message, len(self.requests) - 1, recipients)
                gone.append((message.n, tuple(sorted(each.device for each in recipients))))
            elif not self.box.put_aside(message):
                not_to.add(message.user)
        return gone

    def accepted(self, request: int, devices: Sequence[str] = ()) -> None:
        answered = self.box.answered(request)
        assert answered is not None
        with self.vault.transaction():
            self.box.accepted(answered[0], 0, devices or answered[1])

    def busy(self, request: int, *missing: str) -> None:
        answered = self.box.answered(request)
        assert answered is not None
        message, devices = answered
        with self.vault.transaction():
            self.box.refused(message, missing, self.now + 2.0, False)
            self.box.accepted(message, 0, [device for device in devices if device not in missing])

    def failed(self, request: int) -> None:
        answered = self.box.answered(request)
        assert answered is not None
        with self.vault.transaction():
            self.box.failed(answered[0], 0)

    def test_what_was_sent_before_the_refused_one_and_is_accepted_after_it_opens_nothing(self) -> None:
        # 1 and 3 wait for carol, who is slow; the desk cannot be reached, and 3 is refused for it when carol has it.
        self.write("carol", "carol", "desk")
        self.write("bob", "bob", "desk")
        self.write("carol", "carol", "desk")
        self.pump()
        self.busy(1, "desk")
        self.now = 2.5
        self.accepted(0)
        self.assertEqual(self.pump(), [])
        self.write("carol", "carol", "desk")
        self.assertEqual(self.pump(), [(4, ("carol",))])
        self.busy(2, "desk")
        self.now = 5.0
        self.assertEqual(self.pump(), [(2, ("desk",))])
        self.accepted(4)
        self.assertEqual(self.pump(), [(3, ("desk",)), (4, ("desk",))])

    def test_after_a_last_refused_one_that_fails_the_next_goes(self) -> None:
        self.write("bob", "bob")
        self.pump()
        self.busy(0, "bob")
        self.now = 2.5
        self.assertEqual(self.pump(), [(1, ("bob",))])
        self.failed(1)
        self.write("bob", "bob")
        self.write("bob", "bob")
        self.assertEqual(self.pump(), [(2, ("bob",))], "one alone, until one is accepted")
        self.accepted(2)
        self.assertEqual(self.pump(), [(3, ("bob",))])

    def test_an_earlier_one_is_not_kept_from_its_devices_by_the_rest_of_a_later_one(self) -> None:
        # Of 2 the phone, which was not there yet when 1 was sealed, has its part.
        self.write("bob", "bob", "desk")
        self.pump()
        self.busy(0, "bob", "desk")
        self.write("bob", "bob", "desk", "phone")
        self.assertEqual(self.pump(), [(2, ("phone",))])
        self.accepted(1)
        self.box.disconnected()
        self.assertEqual(self.pump(), [(1, ("bob", "desk"))])
        self.accepted(2)
        self.assertEqual(self.pump(), [(2, ("bob", "desk"))])
