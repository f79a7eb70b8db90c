"""What the core believes, and what it does not: changed roots, wrong links and bundles, a key log that lies."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fastchat.identity.keylog import sign_checkpoint
from fastchat.identity.links import sign_add_device, sign_genesis
from fastchat.protocols import wire
from fastchat.protocols.wire import Signed
from fastchat_client.events import LogAlarm, MessageHeld, Notice, RootChanged, State
from tests.support.conversation import DAY, Person, SceneTest
from tests.support.keys import root_key


def some_leaf(letter: bytes) -> bytes:
    """The first link of somebody who does not matter."""
    return letter * 32 + bytes(8) + letter * 32


class Changed(SceneTest):
    """Bob loses everything, and somebody (perhaps Bob) registers his name anew."""

    def setUp(self) -> None:
        super().setUp()
        self.alice, self.bob = self.scene.person("alice"), self.scene.person("bob")
        self.alice.says("bob", "hello")
        self.bob.says("alice", "hello to you")
        self.scene.settle()
        self.bob.disconnects()
        del self.network.accounts["bob"], self.network.devices[self.bob.device]
        self.scene.people.remove(self.bob)
        self.new_bob = self.scene.person("bob", root=root_key(3))

    def _notice(self) -> None:
        """Alice reads on in the log."""
        self.scene.pass_time(310, step=10)

    def test_nothing_is_sent_or_shown_until_it_is_accepted(self) -> None:
        self.new_bob.says("alice", "1")
        self.new_bob.says("alice", "2")
        self.scene.settle()
        waiting = self.alice.says("bob", "is that you?")
        self.scene.settle()
        self.new_bob.says("alice", "3")
        self.scene.settle()
        (event,) = self.alice.told(RootChanged)
        self.assertEqual(event.user, "bob")
        self.assertNotEqual(event.old_fingerprint, event.new_fingerprint)
        self.assertEqual(self.alice.vault.contacts()[0].changed_to, event.new_fingerprint)
        self.assertEqual(self.alice.reads("bob"), ["hello to you"])
        self.assertEqual(self.new_bob.reads("alice"), [])
        self.assertEqual(self.alice.states(waiting), [State.WAITING])
        self.assertEqual([held.sender for held in self.alice.told(MessageHeld)], ["bob"] * 3)

        self.assertTrue(self.alice.core.accept_root("bob"))
        self.scene.settle()
        self.assertEqual(self.alice.reads("bob"), ["hello to you", "1", "2", "3"])
        self.assertEqual(self.new_bob.reads("alice"), ["is that you?"])
        self.assertEqual(self.alice.vault.contacts()[0].changed_to, "")
        self.assertFalse(self.alice.core.accept_root("bob"))

    def test_held_messages_outlive_a_restart_and_are_accepted_offline(self) -> None:
        for i in range(3):
            self.new_bob.says("alice", str(i))
        self.scene.settle()
        self.assertEqual(self.network.devices[self.alice.device].mailbox, [])
        self.alice.dies()
        self.assertEqual(self.alice.reads("bob"), ["hello to you"])
        self.assertTrue(self.alice.core.accept_root("bob"))
        self.assertEqual(self.alice.reads("bob"), ["hello to you", "0", "1", "2"])

    def test_others_are_not_held_up(self) -> None:
        carol = self.scene.person("carol", root=root_key(2))
        self._notice()
        self.alice.says("bob", "waits")
        self.alice.says("carol", "goes")
        self.scene.settle()
        self.assertEqual(carol.reads("alice"), ["goes"])
        self.assertEqual(self.alice.vault.waiting(), 1)

    def test_what_was_sealed_for_the_old_devices_is_sealed_anew(self) -> None:
        self._notice()
        text = self.alice.says("bob", "sealed long ago")
        self.scene.settle()
        # As if it had been sealed for the old device before the change was known, and never accepted.
        with self.alice.vault.transaction():
            self.alice.core._parts.outbox.sealed(int(text.rpartition(".")[2]), [(self.bob.device, b'"AAAA"')])
        self.assertTrue(self.alice.core.accept_root("bob"))
        self.scene.settle()
        self.assertEqual(self.new_bob.reads("alice"), ["sealed long ago"])

    def test_a_change_is_told_once(self) -> None:
        self._notice()
        for _ in range(3):
            self.alice.says("bob", "who is there?")
            self.scene.settle()
            self.alice.disconnects()
            self.alice.connects()
            self.scene.settle()
        self.assertEqual(len(self.alice.told(RootChanged)), 1)
        self.assertEqual(self.new_bob.reads("alice"), [])


class Liar(SceneTest):
    """A server that changes what it says about Bob."""

    def setUp(self) -> None:
        super().setUp()
        self.alice, self.bob = self.scene.person("alice"), self.scene.person("bob")

    def _lie(self, change: Callable[[wire.AccountKeys], wire.AccountKeys]) -> None:
        def mangle(device: str, message: wire.ServerMessage) -> list[wire.ServerMessage]:
            if isinstance(message, wire.KeysAnswer) and device == self.alice.device:
                accounts = tuple(change(keys) if keys.user == "bob" else keys for keys in message.accounts)
                return [wire.KeysAnswer(message.re, accounts)]
            return [message]

        self.network.mangle = mangle

    def _nothing_goes_out(self) -> None:
        text = self.alice.says("bob", "secret")
        self.scene.pass_time(65)
        self.assertEqual(self.alice.states(text), [State.WAITING])
        self.assertEqual([send for device, send in self.network.sends if device == self.alice.device], [])

    def test_links_of_another_root_that_the_log_does_not_have(self) -> None:
        root = root_key(3)
        genesis = sign_genesis(root, "bob")
        links = (genesis, sign_add_device(root, [genesis], "bob", b"e" * 32, b"c" * 32, 0))
        self._lie(lambda keys: wire.AccountKeys("bob", links, ()))
        self._nothing_goes_out()
        self.assertEqual(len(self.alice.told(LogAlarm)), 1)

    def test_links_that_are_none(self) -> None:
        for links in [(), (Signed(b"{}", b""),), (Signed(b"\xff" * 50, b"s" * 384),)]:
            self._lie(lambda keys, links=links: wire.AccountKeys("bob", links, keys.bundles))  # type: ignore[misc]
            self._nothing_goes_out()
            self.alice.vault.execute("DELETE FROM outbox")
            self.alice.disconnects()
            self.alice.dies()
            self.alice.connects()
            self.scene.settle()
        self.assertGreater(len(self.alice.told(Notice)), 0)
        self.assertEqual(self.alice.told(LogAlarm), [])

    def test_a_link_with_a_broken_signature(self) -> None:
        def break_it(keys: wire.AccountKeys) -> wire.AccountKeys:
            last = keys.links[-1]
            return wire.AccountKeys("bob", (keys.links[0], Signed(last.body, b"\0" * 384)), keys.bundles)

        self._lie(break_it)
        self._nothing_goes_out()

    def test_a_chain_without_its_newest_link(self) -> None:
        self.scene.further_device(self.bob)
        self._lie(lambda keys: wire.AccountKeys("bob", keys.links[:2], keys.bundles[:1]))
        self._nothing_goes_out()
        (alarm,) = self.alice.told(LogAlarm)
        self.assertIn("hides the newest links of bob", alarm.reason)

    def test_a_chain_that_was_longer_before(self) -> None:
        self.alice.says("bob", "hello")
        phone = self.scene.further_device(self.bob)
        self.scene.pass_time(310, step=10)
        self.alice.says("bob", "to both")
        self.scene.settle()
        self.assertEqual(phone.reads("alice"), ["to both"])
        self.network.sends.clear()
        self._lie(lambda keys: wire.AccountKeys("bob", keys.links[:2], keys.bundles[:1]))
        self.scene.clock.advance(2 * DAY)
        self.alice.disconnects()
        self.alice.connects()
        self.scene.settle()
        self._nothing_goes_out()

    def test_a_bundle_of_another_device(self) -> None:
        mallory = self.scene.person("mallory", root=root_key(3))
        stolen = self.network.devices[mallory.device]
        assert stolen.seal is not None
        assert stolen.fallback is not None
        bundle = wire.Bundle(self.bob.device, stolen.seal, stolen.fallback, stolen.one_time[0])
        self._lie(lambda keys: wire.AccountKeys("bob", keys.links, (bundle,)))
        self._nothing_goes_out()
        self.assertIn("keys of bob's device", self.alice.told(Notice)[0].text)

    def test_one_key_of_a_bundle_broken(self) -> None:
        for field in ("seal", "fallback", "one_time"):
            with self.subTest(field):
                self._lie(lambda keys, field=field: self._break(keys, field))  # type: ignore[misc]
                self._nothing_goes_out()

    def _break(self, keys: wire.AccountKeys, field: str) -> wire.AccountKeys:
        (bundle,) = keys.bundles
        signed = getattr(bundle, field)
        broken = Signed(signed.body, bytes(64))
        return wire.AccountKeys("bob", keys.links, (msgspec.structs.replace(bundle, **{field: broken}),))

    def test_no_bundles_at_all_and_then_they_come(self) -> None:
        self._lie(lambda keys: wire.AccountKeys("bob", keys.links, ()))
        self._nothing_goes_out()
        self._lie(lambda keys: keys)
        self.scene.pass_time(65)
        self.assertEqual(self.bob.reads("alice"), ["secret"])

    def test_an_older_seal_key(self) -> None:
        self.alice.says("bob", "hello")
        self.scene.settle()
        old = self.network.devices[self.bob.device].seal
        assert old is not None
        self.alice.disconnects()
        self.scene.pass_time(8 * DAY, step=8 * DAY)  # Bob's connection is given up, too
        self.bob.connects()
        self.scene.settle()
        self.assertNotEqual(self.network.devices[self.bob.device].seal, old)
        self.alice.connects()
        self.alice.says("bob", "new key")
        self.scene.settle()
        self.assertEqual(self.bob.reads("alice"), ["hello", "new key"])
        self._lie(
            lambda keys: wire.AccountKeys(
                "bob", keys.links, tuple(msgspec.structs.replace(b, seal=old) for b in keys.bundles)
            )
        )
        self.scene.clock.advance(2 * DAY)
        self.alice.disconnects()
        self.alice.connects()
        self.alice.says("bob", "still the new key")
        self.scene.settle()
        self.assertIn("older seal key", self.alice.told(Notice)[-1].text)
        sends = [send for device, send in self.network.sends if device == self.alice.device]
        ids = [int.from_bytes(msgspec.json.decode(send.to[0].body, type=bytes)[1:5], "big") for send in sends]
        self.assertEqual(ids, [1, 2, 2])


class Log(SceneTest):
    def setUp(self) -> None:
        super().setUp()
        self.alice, self.bob = self.scene.person("alice"), self.scene.person("bob")
        self.alice.says("bob", "hello")
        self.scene.settle()

    def _reconnect(self, person: Person) -> None:
        person.disconnects()
        person.connects()
        self.scene.settle()

    def _is_stopped(self, reason: str) -> None:
        (alarm,) = [*self.alice.told(LogAlarm)][:1]
        self.assertIn(reason, alarm.reason)
        self.assertEqual(self.alice.vault.alarm(), alarm.evidence)
        self.network.sends.clear()
        text = self.alice.says("bob", "secret")
        self.scene.pass_time(5)
        self.assertEqual(self.alice.states(text), [State.WAITING])
        self.assertNotIn(self.alice.device, [device for device, _ in self.network.sends])
        self.alice.dies()
        self.alice.events.clear()
        self.alice.connects()
        self.scene.settle()
        self.assertEqual(self.alice.vault.state_of(text), "waiting")
        self.assertEqual(len(self.alice.told(LogAlarm)), 1)

    def test_another_past(self) -> None:
        self.network.leaves[0] = b"x" * 72
        self._reconnect(self.alice)
        self._is_stopped("two different key logs")
        self.assertIn("signed_before", self.alice.vault.alarm())

    def test_another_continuation_than_was_signed(self) -> None:
        def mangle(device: str, message: wire.ServerMessage) -> list[wire.ServerMessage]:
            if isinstance(message, wire.LogAnswer):
                return [msgspec.structs.replace(message, leaves=b"y" * len(message.leaves))]
            return [message]

        self.alice.disconnects()
        self.scene.person("carol", root=root_key(2))
        self.network.mangle = mangle
        self.alice.connects()
        self.scene.settle()
        self._is_stopped("not the one that it signed")

    def test_a_checkpoint_of_another_key(self) -> None:
        def mangle(device: str, message: wire.ServerMessage) -> list[wire.ServerMessage]:
            if isinstance(message, wire.Ready):
                good = message.checkpoint
                bad = sign_checkpoint(Ed25519PrivateKey.generate(), good.size, good.root)
                return [msgspec.structs.replace(message, checkpoint=bad)]
            return [message]

        self.network.mangle = mangle
        self._reconnect(self.alice)
        self._is_stopped("not signed by this network's log key")

    def test_an_older_checkpoint_is_only_old(self) -> None:
        self.scene.person("carol", root=root_key(2))
        self._reconnect(self.alice)

        def mangle(device: str, message: wire.ServerMessage) -> list[wire.ServerMessage]:
            if isinstance(message, wire.Ready):
                return [msgspec.structs.replace(message, checkpoint=self.network.checkpoint(3))]
            return [message]

        self.network.mangle = mangle
        self._reconnect(self.alice)
        self.assertEqual(self.alice.told(LogAlarm), [])
        self.assertTrue(self.alice.core.ready)

    def test_two_people_with_different_logs_find_out_from_each_other(self) -> None:
        """Bob is shown another leaf in the place of Carol's: both logs are signed, each alone is consistent."""
        for person in (self.alice, self.bob):
            person.disconnects()
        truth = list(self.network.leaves)
        self.network.leaves = [*truth, some_leaf(b"a"), some_leaf(b"b")]
        self.alice.connects()
        self.scene.settle()
        self.network.leaves = [*truth, some_leaf(b"a"), some_leaf(b"c")]
        self.bob.connects()
        self.scene.settle()
        self.assertEqual(self.alice.told(LogAlarm) + self.bob.told(LogAlarm), [])
        self.alice.says("bob", "what do you see?")
        self.scene.settle()
        (alarm,) = self.bob.told(LogAlarm)
        self.assertIn("another key log", alarm.reason)
        self.assertIn(self.alice.device, alarm.evidence)
        # A peer's word is no proof, and must not silence us.
        self.bob.says("alice", "not what you see")
        self.scene.settle()
        self.assertEqual(self.alice.reads("bob"), ["not what you see"])
        self.assertEqual([alarm.proof for alarm in self.alice.told(LogAlarm)], [False])
        # Nor is it shown over and over.
        for number in range(3):
            self.bob.says("alice", f"as I said {number}")
        self.scene.settle()
        self.assertEqual(len(self.alice.told(LogAlarm)), 1)
        answer = self.alice.says("bob", "if you say so")
        self.scene.settle()
        self.assertIn(State.ACCEPTED, self.alice.states(answer))
        self.assertEqual(self.alice.vault.alarm(), "")

    def test_a_log_that_ends_before_what_a_peer_has_seen(self) -> None:
        """A server that keeps Bob where the two logs are still one keeps him from comparing them."""
        until = self.bob.core._parts.witness.size
        self.network.leaves += [some_leaf(b"a")]
        self._reconnect(self.alice)

        def freeze(device: str, message: wire.ServerMessage) -> list[wire.ServerMessage]:
            if device == self.bob.device and isinstance(message, wire.LogAnswer):
                return [msgspec.structs.replace(message, leaves=b"", checkpoint=self.network.checkpoint(until))]
            return [message]

        self.network.mangle = freeze
        self.alice.says("bob", "have you seen it?")
        self.scene.settle()
        self.assertEqual(self.bob.told(LogAlarm), [])
        self.scene.pass_time(400)
        self.assertEqual(self.bob.reads("alice")[-1:], ["have you seen it?"])
        (alarm,) = self.bob.told(LogAlarm)
        self.assertEqual((alarm.reason, alarm.proof), ("somebody was shown more of the key log than we are", False))
        # When the server shows it all the same, all is well.
        self.network.mangle = lambda device, message: [message]
        self.scene.pass_time(400)
        self.assertEqual(len(self.bob.told(LogAlarm)), 1)
        self.assertEqual(self.bob.core._parts.witness.ahead(), set())

    def test_a_peer_who_is_ahead_is_compared_later(self) -> None:
        # Alice's connection shows her more of the log than Bob's has so far.
        self.network.leaves += [some_leaf(b"a")]
        self._reconnect(self.alice)
        self.network.leaves[-1] = some_leaf(b"z")
        self.alice.says("bob", "have you seen it?")
        self.scene.settle()
        self.assertEqual(self.bob.told(LogAlarm), [])
        self.scene.pass_time(62)
        self.assertEqual(len(self.bob.told(LogAlarm)), 1)
