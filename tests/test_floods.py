"""What a member can do to the service by asking for much: each ends in a clear error, and in nothing that is kept."""

from __future__ import annotations

from msgspec import UNSET

from fastchat.delivery import outgoing
from fastchat.protocols import wire
from tests.support.calling import SessionCase


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
