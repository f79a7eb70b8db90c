"""The device's published keys: refilled, rotated by the week, never handed out twice; and what happens without them."""

from __future__ import annotations

from fastchat.protocols import wire
from fastchat_client.prekeeping import ONE_TIME_KEYS
from tests.support.conversation import DAY, Person, SceneTest
from tests.support.keys import root_key

WEEK = 7 * DAY


class Refill(SceneTest):
    def _left(self, person: Person) -> int:
        return len(self.network.devices[person.device].one_time)

    def _published(self, person: Person) -> list[bytes]:
        """The bodies of all one-time keys that ever left."""
        return [
            key.body
            for message in person.said
            if isinstance(message, wire.Register | wire.Publish | wire.AddDevice)
            for key in message.keys.one_time
        ]

    def test_full_after_the_first_login(self) -> None:
        alice = self.scene.person("alice")
        self.assertEqual(self._left(alice), ONE_TIME_KEYS)
        self.assertEqual(len(set(self._published(alice))), ONE_TIME_KEYS)

    def test_refilled_at_login(self) -> None:
        alice = self.scene.person("alice")
        alice.disconnects()
        keys = self.network.devices[alice.device].one_time
        while len(keys) >= 25:
            keys.popleft()
        alice.connects()
        self.scene.settle()
        self.assertEqual(self._left(alice), ONE_TIME_KEYS)
        self.assertEqual(len(set(self._published(alice))), len(self._published(alice)))

    def test_refilled_while_connected(self) -> None:
        alice = self.scene.person("alice")
        keys = self.network.devices[alice.device].one_time
        while len(keys) > 26:
            keys.popleft()
        alice.disconnects()
        alice.connects()
        self.scene.settle()
        self.assertEqual(self._left(alice), 26)
        for i, name in enumerate(("bob", "carol")):
            self.scene.person(name, root=root_key(1 + i)).says("alice", "hello")
        self.scene.pass_time(70)
        self.assertEqual(self._left(alice), ONE_TIME_KEYS)
        self.assertEqual(len(set(self._published(alice))), len(self._published(alice)))

    def test_a_key_is_never_published_twice(self) -> None:
        """Neither if the answer is lost, nor if the request is."""
        alice = self.scene.person("alice")
        for lost in (wire.Published, wire.Ready):
            alice.disconnects()
            self.network.devices[alice.device].one_time.clear()
            self.network.mangle = lambda device, message, lost=lost: [] if isinstance(message, lost) else [message]  # type: ignore[misc]
            alice.connects()
            self.scene.settle()
            alice.dies()
        self.network.mangle = lambda device, message: [message]
        alice.connects()
        self.scene.settle()
        self.assertGreater(self._left(alice), 24)
        self.assertEqual(len(set(self._published(alice))), len(self._published(alice)))

    def test_exhausted_for_two_devices(self) -> None:
        bob = self.scene.person("bob")
        phone = self.scene.further_device(bob)
        for device in (bob, phone):
            device.disconnects()
            keys = self.network.devices[device.device].one_time
            while len(keys) > 1:
                keys.popleft()
        people = [self.scene.person(f"p{i}", root=root_key(1 + i)) for i in range(4)]
        for person in people:
            person.says("bob", f"from {person.name}")
            person.says("bob", "and more")
        self.scene.settle()
        for device in (bob, phone):
            self.assertEqual(self._left(device), 0)
            device.connects()
        self.scene.settle()
        for device in (bob, phone):
            for person in people:
                self.assertEqual(device.reads(person.name), [f"from {person.name}", "and more"])
            self.assertEqual(self._left(device), ONE_TIME_KEYS)
        bob.says("p3", "I have it on both")
        self.scene.settle()
        self.assertEqual(people[3].reads("bob"), ["I have it on both"])


class Weeks(SceneTest):
    def setUp(self) -> None:
        super().setUp()
        self.alice, self.bob = self.scene.person("alice"), self.scene.person("bob")
        self.alice.says("bob", "day 0")
        self.scene.settle()

    def _next_day(self, *awake: Person) -> None:
        for person in (self.alice, self.bob):
            person.disconnects()
        self.scene.clock.advance(DAY)
        for person in awake:
            person.connects()
        self.scene.settle()

    def _seal_ids(self, person: Person) -> list[int]:
        return [row[0] for row in person.vault.execute("SELECT id FROM seal_keys ORDER BY id")]

    def test_seven_weeks(self) -> None:
        fallbacks = set()
        for day in range(1, 50):
            self._next_day(self.alice, self.bob)
            self.alice.says("bob", f"day {day}")
            self.scene.settle()
            fallback = self.network.devices[self.bob.device].fallback
            assert fallback is not None
            fallbacks.add(fallback.body)
        self.assertEqual(self.bob.reads("alice"), [f"day {day}" for day in range(50)])
        self.assertEqual(len(fallbacks), 8)
        # The newest, and those that were replaced within 30 days: on days 49, 42, 35, 28 and 21.
        self.assertEqual(self._seal_ids(self.bob), [3, 4, 5, 6, 7, 8])

    def test_four_weeks_away(self) -> None:
        for _ in range(28):
            self._next_day(self.alice)
            self.alice.says("bob", "are you there?")
            self.scene.settle()
        self._next_day(self.alice, self.bob)
        self.assertEqual(self.bob.reads("alice"), ["day 0"] + ["are you there?"] * 28)
        self.assertEqual(self._seal_ids(self.bob), [1, 2])

    def test_a_seal_key_outlives_its_replacement(self) -> None:
        self.bob.disconnects()
        self.alice.says("bob", "sealed with the first")
        self.scene.settle()
        self.network.withhold.add(self.bob.device)
        for _ in range(20):
            self._next_day(self.bob)
        self.assertEqual(self._seal_ids(self.bob), [1, 2, 3])
        self.network.withhold.clear()
        self._next_day(self.bob)
        self.assertEqual(self.bob.reads("alice"), ["day 0", "sealed with the first"])

    def test_a_rotation_whose_answer_is_lost_is_published_again(self) -> None:
        self.network.mangle = lambda device, message: [] if isinstance(message, wire.Published) else [message]
        for _ in range(8):
            self._next_day(self.bob)
        self.network.mangle = lambda device, message: [message]
        self._next_day(self.bob)
        self._next_day(self.bob)
        seals = [m.keys.seal for m in self.bob.said if isinstance(m, wire.Publish) and m.keys.seal is not None]
        self.assertGreater(len(seals), 1)
        self.assertEqual(len({seal.body for seal in seals}), 1)
        self.assertEqual(self._seal_ids(self.bob), [1, 2])

    def test_a_peers_seal_key_is_asked_for_once_a_day(self) -> None:
        def asked() -> int:
            return len([m for m in self.alice.said if isinstance(m, wire.KeysRequest) and "bob" in m.users])

        before = asked()
        for _ in range(5):
            self.alice.says("bob", "today")
            self.scene.settle()
        self.assertEqual(asked(), before)
        self._next_day(self.alice, self.bob)
        for _ in range(5):
            self.alice.says("bob", "tomorrow")
            self.scene.settle()
        self.assertEqual(asked(), before + 1)
