"""Devices that write to each other, and everything that a server, a thief or chance may do to what they write."""

from __future__ import annotations

import random

import vodozemac
from hypothesis import given, settings
from hypothesis import strategies as some
from twisted.trial.unittest import SynchronousTestCase

from fastchat.errors import ConfigError, SignatureInvalid
from fastchat.identity import prekeys
from fastchat.identity.links import DeviceIdentity
from fastchat.protocols.wire import Bundle, DeviceKeys, Signed
from fastchat_client import ratchet
from fastchat_client.ratchet import (
    DeviceAccount,
    OlmSession,
    SealPrivate,
    decrypt,
    open_envelope,
    open_outbound,
    seal,
)
from fastchat_client.unreadable import Reason, Unreadable
from tests.support.ratchets import KEY, Device, TwoDevices

PAIR = (Device("alice"), Device("bob"))
CHANCE = random.Random(5)


class Conversations(TwoDevices):
    def test_two_devices_talk(self) -> None:
        self.meet()
        for i in range(20):
            writer, reader = CHANCE.sample([self.alice, self.bob], 2)
            self.assertEqual(reader.read(writer.write(reader, b"%d" % i)), b"%d" % i)

    def test_three_devices_talk(self) -> None:
        phone = Device("bob")
        for peer in (self.bob, phone):
            self.assertEqual(peer.read(self.alice.write(peer, b"to both")), b"to both")
        self.assertEqual(phone.read(self.bob.write(phone, b"from my other one")), b"from my other one")
        self.assertEqual(self.alice.read(phone.write(self.alice, b"from the phone")), b"from the phone")
        self.assertEqual(self.alice.read(self.bob.write(self.alice, b"from the desk")), b"from the desk")

    def test_across_restarts(self) -> None:
        self.meet()
        late = self.alice.write(self.bob, b"sent before")
        self.alice.restart()
        self.bob.restart()
        self.assertEqual(self.bob.read(late), b"sent before")
        self.assertEqual(self.alice.read(self.bob.write(self.alice, b"after")), b"after")

    def test_out_of_order(self) -> None:
        for _ in range(2):
            bodies = [self.alice.write(self.bob, b"%d" % i) for i in range(30)]
            CHANCE.shuffle(bodies)
            self.assertEqual(sorted(int(self.bob.read(body)) for body in bodies), list(range(30)))
            self.alice.read(self.bob.write(self.alice, b"answer"))

    def test_the_first_message_is_lost(self) -> None:
        self.alice.write(self.bob, b"lost")
        received = self.bob.receive(self.alice.write(self.bob, b"second"))
        self.assertEqual((received.plaintext, received.is_new), (b"second", True))
        self.assertFalse(self.bob.receive(self.alice.write(self.bob, b"third")).is_new)

    def test_both_begin_at_once(self) -> None:
        to_bob, to_alice = self.alice.write(self.bob, b"a1"), self.bob.write(self.alice, b"b1")
        more = self.alice.write(self.bob, b"a2")
        self.assertEqual(self.bob.read(to_bob), b"a1")
        self.assertEqual(self.alice.read(to_alice), b"b1")
        self.assertEqual(self.bob.read(more), b"a2")
        for i in range(12):
            crossing = self.alice.write(self.bob, b"a%d" % i), self.bob.write(self.alice, b"b%d" % i)
            self.assertEqual(self.bob.read(crossing[0]), b"a%d" % i)
            self.assertEqual(self.alice.read(crossing[1]), b"b%d" % i)
        self.assertEqual((len(self.alice.sessions), len(self.bob.sessions)), (2, 2))

    def test_several_sessions_and_late_messages_of_each(self) -> None:
        self.meet()
        late = [self.alice.write(self.bob, b"on the first")]
        for i in range(3):
            self.bob.publish(1)
            self.alice.open(self.bob)
            self.assertEqual(self.bob.read(self.alice.write(self.bob, b"new %d" % i)), b"new %d" % i)
            self.assertEqual(self.alice.read(self.bob.write(self.alice, b"ok")), b"ok")
            late.append(self.alice.write(self.bob, b"on another"))
        self.assertEqual([self.bob.read(body) for body in reversed(late)], [b"on another"] * 3 + [b"on the first"])
        self.assertEqual(len({session.session_id for session in self.bob.sessions}), 4)

    def test_one_time_keys_run_out(self) -> None:
        writers = [Device(f"writer{i}") for i in range(3)]
        bodies = [writer.write(self.bob, writer.user.encode()) for writer in writers]
        self.assertEqual(self.bob.one_time, [])
        for writer, body in zip(writers, bodies, strict=True):
            self.assertEqual(self.bob.read(body), writer.user.encode())
            self.assertEqual(writer.read(self.bob.write(writer, b"got it")), b"got it")

    def test_the_fallback_before_the_last_still_works(self) -> None:
        self.bob.one_time.clear()
        body = self.alice.write(self.bob, b"slow mail")
        self.bob.rotate_fallback()
        self.assertEqual(self.bob.read(body), b"slow mail")

    def test_an_old_seal_key_works_while_it_is_kept(self) -> None:
        self.meet()
        kept, dropped = self.alice.write(self.bob, b"kept"), self.alice.write(self.bob, b"dropped")
        self.bob.rotate_seal()
        self.assertEqual(self.bob.read(kept), b"kept")
        self.assertEqual(self.bob.read(self.alice.write(self.bob, b"new seal")), b"new seal")
        del self.bob.seals[1]
        self.unreadable(self.bob, dropped, Reason.UNKNOWN_SEAL_KEY)

    def test_lengths_tell_little(self) -> None:
        self.meet()
        sizes = {len(self.alice.write(self.bob, bytes(length))) for length in range(0, 160, 3)}
        self.assertEqual(len(sizes), 1)
        self.assertGreater(len(self.alice.write(self.bob, bytes(160))), max(sizes))

    @given(some.binary(max_size=400))
    @settings(deadline=None)
    def test_any_plaintext(self, plain: bytes) -> None:
        alice, bob = PAIR
        self.assertEqual(bob.read(alice.write(bob, plain)), plain)


class Keys(TwoDevices):
    def test_unpublished_keys_are_given_out_again(self) -> None:
        first = self.alice.account.new_one_time_keys(self.alice.me, 5)
        self.alice.restart()
        again = self.alice.account.new_one_time_keys(self.alice.me, 7)
        self.assertEqual(len(again), 7)
        opened = {prekeys.verify_one_time(self.alice.me, signed) for signed in again}
        self.assertTrue({prekeys.verify_one_time(self.alice.me, signed) for signed in first} < opened)
        self.alice.account.mark_published()
        new = {
            prekeys.verify_one_time(self.alice.me, s) for s in self.alice.account.new_one_time_keys(self.alice.me, 5)
        }
        self.assertFalse(new & opened)

    def test_an_unpublished_fallback_is_given_out_again(self) -> None:
        first = prekeys.verify_fallback(self.alice.me, self.alice.account.new_fallback(self.alice.me))
        self.assertEqual(prekeys.verify_fallback(self.alice.me, self.alice.account.new_fallback(self.alice.me)), first)
        self.alice.account.mark_published()
        second = prekeys.verify_fallback(self.alice.me, self.alice.account.new_fallback(self.alice.me))
        self.assertNotEqual(second, first)

    def test_what_is_published_passes_the_server(self) -> None:
        keys = DeviceKeys(
            one_time=self.alice.account.new_one_time_keys(self.alice.me, 50),
            fallback=self.alice.account.new_fallback(self.alice.me),
            seal=self.alice.seal,
        )
        self.assertEqual(len(keys.one_time), 50)
        prekeys.verify_all(self.alice.me, keys)

    def test_damaged_stores_are_named(self) -> None:
        session = self.alice.open(self.bob)
        pickle, other = self.alice.account.dump(KEY), bytes(32)
        self.assertRaises(ConfigError, DeviceAccount.load, pickle, other)
        self.assertRaises(ConfigError, DeviceAccount.load, "", KEY)
        self.assertRaises(ConfigError, OlmSession.load, session.dump(KEY), other, session.peer)
        self.assertRaises(ConfigError, SealPrivate.from_bytes, b"short")


class AServerThatLies(TwoDevices):
    def test_it_hands_out_another_devices_keys(self) -> None:
        mallory = Device("mallory")
        mallory.publish(1)
        for bundle in (
            mallory.bundle(),
            Bundle(self.bob.me.device, self.bob.seal, self.bob.fallback, mallory.bundle().one_time),
            Bundle(self.bob.me.device, self.bob.seal, mallory.fallback),
            Bundle(self.bob.me.device, self.bob.seal, self.bob.fallback, self.bob.fallback),
            Bundle(mallory.me.device, self.bob.seal, self.bob.fallback),
        ):
            self.assertRaises(SignatureInvalid, open_outbound, self.alice.account, self.bob.me, bundle)

    def test_a_bad_one_time_key_is_not_passed_over_for_the_fallback(self) -> None:
        junk = Signed(body=b"{}", signature=bytes(64))
        bundle = Bundle(self.bob.me.device, self.bob.seal, self.bob.fallback, junk)
        self.assertRaises(SignatureInvalid, open_outbound, self.alice.account, self.bob.me, bundle)

    def test_keys_of_low_order(self) -> None:
        self.assertRaises(SignatureInvalid, ratchet.open_with_key, self.alice.account, self.bob.me, bytes(32))
        self.assertRaises(SignatureInvalid, ratchet.open_with_key, self.alice.account, self.bob.me, b"short")

    def test_it_hands_a_message_to_another_device(self) -> None:
        body = self.alice.write(self.bob, b"for bob")
        thief = Device("mallory")
        thief.seals = dict(self.bob.seals)
        self.unreadable(thief, body, Reason.BAD_ENVELOPE)
        self.unreadable(Device("bob"), body, Reason.BAD_ENVELOPE)

    def test_a_message_sealed_for_one_reused_for_another_key_id(self) -> None:
        body = self.alice.write(self.bob, b"for bob")
        self.bob.seals[2] = self.bob.seals[1]
        self.unreadable(self.bob, body[:4] + b"\x02" + body[5:], Reason.BAD_ENVELOPE)

    def test_it_repeats_a_message(self) -> None:
        self.meet()
        body = self.alice.write(self.bob, b"once")
        self.assertEqual(self.bob.read(body), b"once")
        error = self.unreadable(self.bob, body, Reason.BAD_MAC)
        self.assertEqual(error.tried, (self.bob.sessions[0].session_id,))

    def test_it_repeats_a_first_message(self) -> None:
        body = self.alice.write(self.bob, b"once")
        self.assertEqual(self.bob.read(body), b"once")
        self.unreadable(self.bob, body, Reason.BAD_MAC)
        self.bob.sessions.clear()
        self.unreadable(self.bob, body, Reason.NO_SESSION)

    def test_a_first_message_to_the_fallback_is_known_by_its_session(self) -> None:
        self.bob.one_time.clear()
        body = self.alice.write(self.bob, b"again and again")
        first = self.bob.receive(body)
        self.bob.sessions.clear()
        self.assertEqual(open_envelope(self.bob.seals, self.bob.me, body).session_id, first.session.session_id)
        self.assertEqual(self.bob.receive(body).session.session_id, first.session.session_id)

    def test_a_session_is_of_one_device(self) -> None:
        self.meet()
        mallory = Device("mallory")
        mallory.write(self.bob, b"hello")
        body = self.alice.write(self.bob, b"from alice")
        opened = open_envelope(self.bob.seals, self.bob.me, body)
        disguised = ratchet.Opened(opened.seal_id, mallory.me.curve25519, opened.olm)
        error = self.assertRaises(Unreadable, decrypt, self.bob.account, disguised, self.bob.sessions)
        self.assertEqual(error.reason, Reason.NO_SESSION)

    def test_a_first_message_under_another_name(self) -> None:
        opened = open_envelope(self.bob.seals, self.bob.me, self.alice.write(self.bob, b"from alice"))
        disguised = ratchet.Opened(opened.seal_id, Device("mallory").me.curve25519, opened.olm)
        error = self.assertRaises(Unreadable, decrypt, self.bob.account, disguised, [])
        self.assertEqual(error.reason, Reason.NO_SESSION)

    def test_a_mail_for_nobody(self) -> None:
        self.meet()
        body = self.alice.write(self.bob, b"later")
        self.bob.sessions.clear()
        self.unreadable(self.bob, body, Reason.NO_SESSION)

    def test_the_caller_cannot_mix_sessions_up(self) -> None:
        session = self.alice.open(self.bob)
        carol = Device("carol")
        self.assertRaises(ValueError, seal, session, self.alice.me, carol.me, carol.seal_key(), b"x")


class Library(SynchronousTestCase):
    """What `ratchet` relies on in vodozemac, should a new version change its mind."""

    def test_a_failed_decryption_leaves_a_session_as_it_was(self) -> None:
        alice, bob = Device("alice"), Device("bob")
        bob.read(alice.write(bob, b"1"))
        before = bob.sessions[0].dump(KEY)
        _, ciphertext = alice.sessions[0].encrypt(b"2")
        damaged = vodozemac.AnyOlmMessage.from_parts(0, ciphertext[:-1] + bytes((ciphertext[-1] ^ 1,)))
        opened = ratchet.Opened(1, alice.me.curve25519, damaged)
        self.assertRaises(Unreadable, bob.sessions[0].decrypt, opened)
        self.assertEqual(bob.sessions[0].dump(KEY), before)

    def test_pickles_do_not_show_what_they_hold(self) -> None:
        account = DeviceAccount.create()
        self.assertNotEqual(account.dump(KEY), account.dump(bytes(32)))

    def test_identities_are_of_the_accounts_keys(self) -> None:
        account = DeviceAccount.create()
        identity = account.identity("alice")
        self.assertEqual(identity, DeviceIdentity("alice", identity.device, account.ed25519, account.curve25519))
        prekeys.verify_one_time(identity, prekeys.sign_one_time(account.sign, identity, bytes(32)))
