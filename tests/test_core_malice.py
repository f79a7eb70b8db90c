"""Any message, in any order, from a server that means ill: never an exception, nothing believed, nothing lost."""

from __future__ import annotations

import os
from typing import Any

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import UNSET, Raw

from fastchat.protocols import wire
from fastchat.protocols.wire import ServerMessage, Signed
from fastchat_client import inbox
from fastchat_client.events import MessageReceived
from tests.support.conversation import Person, SceneTest

SETTINGS = settings(
    max_examples=100, deadline=None, suppress_health_check=list(HealthCheck), database=None, print_blob=False
)

ids = st.integers(1, 9) | st.integers(1, 9) | st.integers(0, 2**53 - 1)
names = st.sampled_from(["alice", "bob", "mallory"]) | st.text(min_size=1, max_size=64)
devices = st.binary(min_size=16, max_size=16).map(bytes.hex)
signed = st.builds(Signed, st.binary(max_size=300), st.binary(max_size=400))
numbers = st.floats(-1e9, 1e9) | st.floats(0, 60)
counts = st.none() | st.integers(-5, 200) | st.integers()


def bodies() -> st.SearchStrategy[Raw]:
    return (st.binary(max_size=2000).map(wire.encode) | st.text(max_size=50).map(wire.encode)).map(Raw)


class Everything:
    """Strategies for messages that are about the people of a scene: with their devices, links, keys and messages."""

    def __init__(self, people: list[Person], messages: list[wire.Message]) -> None:
        network = people[0].scene.network
        known = st.sampled_from([person.device for person in people]) | devices
        links = [tuple(account.links) for account in network.accounts.values()]
        chains = st.sampled_from([*links, *(chain[:1] for chain in links), ()]) | st.lists(signed, max_size=3).map(
            tuple
        )
        keys = [
            key
            for device in network.devices.values()
            for key in (device.seal, device.fallback, *list(device.one_time)[:2])
            if key is not None
        ]
        a_key = st.sampled_from(keys) | signed
        bundle = st.builds(wire.Bundle, known, a_key, a_key, st.none() | a_key)
        accounts = st.builds(wire.AccountKeys, names, chains, st.lists(bundle, max_size=3).map(tuple))
        good = [network.checkpoint(size) for size in range(len(network.leaves) + 1)]
        checkpoint = st.sampled_from(good) | st.builds(
            wire.Checkpoint, ids, st.binary(min_size=32, max_size=32), st.binary(min_size=64, max_size=64)
        )
        leaves = st.sampled_from([b"", b"".join(network.leaves), *network.leaves]) | st.binary(max_size=200)
        body = st.sampled_from([message.body for message in messages]) | bodies()
        limits = st.builds(
            wire.SessionLimits, *[st.integers(-5, 2**20)] * 2, numbers, *[st.integers(-5, 2**20)] * 2, numbers, numbers
        )
        self.before: st.SearchStrategy[Any] = st.one_of(
            st.builds(wire.Welcome, ids, st.integers(), names, st.binary(max_size=64), limits),
            st.builds(wire.Registered, ids),
            st.builds(wire.ScramAnswer, ids, st.text(max_size=100), chains),
            st.builds(wire.Added, ids),
            st.builds(wire.Ready, ids, counts, counts, checkpoint),
        )
        self.after: st.SearchStrategy[Any] = st.one_of(
            st.builds(wire.KeysAnswer, ids, st.lists(accounts, max_size=3).map(tuple)),
            st.builds(wire.Published, ids, st.integers()),
            st.builds(wire.Accepted, ids),
            st.builds(wire.Message, st.integers(1, 6) | ids, names, known, ids, st.integers(-(2**63), 2**64 - 1), body),
            st.builds(wire.LogAnswer, ids, st.integers(0, 10) | ids, leaves, checkpoint),
            st.builds(wire.Pong, ids),
            st.builds(
                wire.Error, st.sampled_from(["busy", "internal", "unknown-device", "x"]), st.text(max_size=9), ids
            ),
        )
        self.ends: st.SearchStrategy[Any] = st.one_of(
            st.builds(wire.GoAway, numbers, st.text(max_size=300)),
            st.builds(wire.Error, st.text(max_size=20), st.text(max_size=9), st.just(UNSET) | ids, numbers),
            st.builds(
                wire.Assigned,
                ids,
                st.builds(wire.ServiceAddress, names, names, st.integers(1, 9)),
                names,
                numbers,
                st.just(()),
            ),
        )


class AnyMessage(SceneTest):
    def setUp(self) -> None:
        super().setUp()
        self.alice, self.bob = self.scene.person("alice"), self.scene.person("bob")
        seen: list[wire.Message] = []

        def watch(device: str, message: ServerMessage) -> list[ServerMessage]:
            if isinstance(message, wire.Message):
                seen.append(message)
            return [message]

        self.network.mangle = watch
        self.alice.says("bob", "from alice")
        self.bob.says("alice", "from bob")
        self.scene.pass_time(3)
        self.everything = Everything([self.alice, self.bob], seen)
        self.before = self._what_is_there()

    def _what_is_there(self) -> list[str]:
        return [text for text in self.alice.reads("bob") if text != "?"]

    def _begin_again(self) -> None:
        """Alice is logged in, no alarm has been raised, and her requests are numbered from 1 on."""
        self.alice.disconnects()
        with self.alice.vault.transaction():
            self.alice.vault.put("alarm", None)
        self.alice.core._parts.alarmed = False
        self.alice.core._request = 0
        self.alice.connects()
        self.scene.settle()
        self.assertTrue(self.alice.core.ready)

    def _hear(self, message: ServerMessage) -> None:
        """As bytes, for a message that a decoder refuses does not get this far."""
        self.alice.core.receive(wire.decode_server_message(wire.encode(message)))

    def _fit(self, message: Any) -> ServerMessage:
        """Most messages are made to fit: they answer something that was asked, or are the next in number."""
        live = self.alice.core._parts.live
        if isinstance(message, wire.Message) and message.k < 9 and live is not None:
            message = msgspec.structs.replace(message, k=live.last_k + 1)
        if isinstance(message, wire.LogAnswer) and message.start < 9:
            message = msgspec.structs.replace(message, start=self.alice.core._parts.witness.size)
        if isinstance(getattr(message, "re", None), int) and message.re < 9 and self.asked:
            message = msgspec.structs.replace(message, re=self.asked[message.re % len(self.asked)])
        fitting: ServerMessage = message
        return fitting

    def _check(self) -> None:
        """What came out is well-formed, and nobody who is not Bob has said anything."""
        for message in self.alice.core.take_messages():
            wire.decode_client_message(wire.encode(message))
            self.asked.append(getattr(message, "id", 0))
        received = [event for event in self.alice.core.take_events() if isinstance(event, MessageReceived)]
        self.assertEqual(received, [])
        self.assertEqual(self._what_is_there(), self.before)

    def _back_to_normal(self) -> None:
        """After all of it, Alice is still herself, and Bob still Bob."""
        self.alice.disconnects()
        self.assertEqual(self._what_is_there(), self.before)
        self.assertEqual([contact.user for contact in self.alice.vault.contacts() if contact.user == "bob"], ["bob"])

    def test_once_logged_in(self) -> None:
        everything = self.everything
        usual = st.lists(everything.after, min_size=6, max_size=15)
        messages = st.builds(list.__add__, usual, st.lists(everything.before | everything.ends | everything.after))

        @SETTINGS
        @given(messages)
        def check(heard: list[ServerMessage]) -> None:
            self.network.mangle = lambda device, message: [message]
            self._begin_again()
            # Questions are open, and messages on their way: some of the answers will fit.
            for name in ("bob", "mallory", "nobody"):
                self.alice.says(name, "hello?")
            self.asked = [message.id for message in self.alice.core.take_messages() if hasattr(message, "id")]
            for message in heard:
                self._hear(self._fit(message))
                self.alice.core.tick()
                self._check()

        check()
        self._back_to_normal()

    def test_before_the_login(self) -> None:
        everything = self.everything
        messages = st.lists(everything.before | everything.before | everything.after | everything.ends, max_size=6)

        @SETTINGS
        @given(messages, st.booleans())
        def check(heard: list[ServerMessage], enrols: bool) -> None:
            person = self.phone if enrols else self.alice
            person.disconnects()
            # The requests are numbered from here on, so that some of the answers fit.
            person.core._request = 0
            person.core.opened(self.network.connect(os.urandom(32)).binding)
            for message in heard:
                person.core.receive(wire.decode_server_message(wire.encode(message)))
                person.core.tick()
                for said in person.core.take_messages():
                    wire.decode_client_message(wire.encode(said))
                person.core.take_events()

        self.phone = self.scene.further_device(self.alice, connect=False)
        check()
        self._back_to_normal()

    def test_a_receipt_is_only_for_what_was_taken(self) -> None:
        @SETTINGS
        @given(st.lists(st.integers(0, 8), max_size=10))
        def check(ks: list[int]) -> None:
            self.network.mangle = lambda device, message: [message]
            self._begin_again()
            taken = 0
            for k in ks:
                self._hear(wire.Message(k, "bob", self.bob.device, 10**6 + k, 0, Raw(b'"AAAA"')))
                taken += k == taken + 1 and self.alice.core.wants_close is None
                for message in self.alice.core.take_messages():
                    if isinstance(message, wire.Received):
                        self.assertEqual(message.upto, taken)

        check()

    def test_a_mailbox_that_never_ends_is_not_taken_for_ever(self) -> None:
        """Messages of people whose keys cannot be had are held, up to as many as a mailbox holds."""
        self._flood(Raw(b'"AAAA"'), 10_000)

    def _flood(self, body: Raw, taken: int) -> None:
        self.network.mangle = lambda device, message: [] if isinstance(message, wire.KeysAnswer) else [message]
        self.alice.disconnects()
        self.alice.connects()
        self.scene.settle()
        for k in range(1, taken + 10):
            self._hear(wire.Message(k, f"user-{k % 50}", "0" * 32, k, 0, body))
        assert self.alice.core.wants_close is not None
        self.assertEqual(self.alice.core.wants_close.code, "busy")
        self.alice.core.take_events()
        self.assertEqual(self.alice.vault.execute("SELECT COUNT(*) FROM held").fetchone()[0], taken)

    def test_nor_is_one_of_large_messages(self) -> None:
        self.patch(inbox, "MOST_HELD_BYTES", 100_000)
        self._flood(Raw(b'"%s"' % (b"A" * 998)), 100)
        self.alice.core._begin()
        self.assertTrue(self.alice.core._parts.inbox.is_full)
        with self.alice.vault.transaction():
            for number in range(50):
                self.alice.core._parts.inbox.release(f"user-{number}")
        self.assertEqual(self.alice.core._parts.inbox._held_bytes, 0)
