"""The groups' small modules by themselves: Megolm, the keys that are here, and the messages as they came."""

from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from fastchat.errors import ConfigError
from fastchat.identity.groups import MAX_HISTORY
from fastchat.identity.links import DeviceIdentity
from fastchat.protocols.wire import Signed
from fastchat_client import group_bodies, group_keys
from fastchat_client.group_bodies import ASK_AGAIN, DAY, MOST_BETWEEN_ASKING, GroupBodies, Kept, Waits
from fastchat_client.group_keys import GroupKeys, Inbound, Shared
from fastchat_client.megolm import InboundGroup, OutboundGroup, is_group_body, read_group_body
from fastchat_client.ratchet import PADDED_TO
from fastchat_client.unreadable import Reason, Unreadable
from fastchat_client.vault import Vault

GROUP = "ab" * 16
OTHER = "cd" * 16
KEY = bytes(range(32))
NOW = 1_800_000_000_000
ALICE, BOB = ("alice", "1" * 32), ("bob", "2" * 32)


def inbound(session: OutboundGroup, index: int | None = None) -> InboundGroup:
    whole = InboundGroup.from_key(session.key())
    return whole if index is None else InboundGroup.from_export(whole.export_at(index))


class Megolm(SynchronousTestCase):
    def setUp(self) -> None:
        self.session = OutboundGroup.create()
        self.whole = inbound(self.session)

    def _unreadable(self, reason: Reason, what: object, *arguments: object) -> None:
        error: Unreadable = self.assertRaises(Unreadable, what, *arguments)
        self.assertEqual(error.reason, reason)

    def test_one_ciphertext_for_all_who_have_the_key(self) -> None:
        for number in range(3):
            self.assertEqual(self.session.index, number)
            body = read_group_body(self.session.encrypt(GROUP, b"hello"))
            self.assertEqual((body.group, body.session), (GROUP, self.session.session))
            self.assertEqual(InboundGroup.index_of(body.message), number)
            self.assertEqual(self.whole.decrypt(body.message), (b"hello", number))

    def test_who_has_it_from_later_on_reads_from_there(self) -> None:
        bodies = [read_group_body(self.session.encrypt(GROUP, b"%d" % n)).message for n in range(4)]
        late = inbound_at(self.whole, 2)
        self.assertEqual((late.first_index, late.session), (2, self.session.session))
        self.assertEqual([late.decrypt(body)[0] for body in bodies[2:]], [b"2", b"3"])
        for body in bodies[:2]:
            self._unreadable(Reason.BAD_MAC, late.decrypt, body)
        self.assertEqual(late.export_at(1), b"")
        # Whatever it has read since.
        self.assertEqual(late.decrypt(bodies[2])[0], b"2")

    def test_length_tells_little(self) -> None:
        sizes = {len(self.session.encrypt(GROUP, bytes(size))) for size in (0, 1, 80, PADDED_TO - 1)}
        self.assertEqual(len(sizes), 1)

    def test_state_survives_storing(self) -> None:
        self.session.encrypt(GROUP, b"one")
        again = OutboundGroup.load(self.session.dump(KEY), KEY)
        self.assertEqual((again.index, again.session), (1, self.session.session))
        reader = InboundGroup.load(self.whole.dump(KEY), KEY)
        self.assertEqual(reader.decrypt(read_group_body(again.encrypt(GROUP, b"two")).message), (b"two", 1))
        for load in (OutboundGroup.load, InboundGroup.load):
            self.assertRaises(ConfigError, load, "nonsense", KEY)

    def test_another_session_or_another_byte_reads_nothing(self) -> None:
        body = self.session.encrypt(GROUP, b"hello")
        message = bytearray(read_group_body(body).message)
        self._unreadable(Reason.BAD_MAC, inbound(OutboundGroup.create()).decrypt, bytes(message))
        for place in range(0, len(message), 7):
            message[place] ^= 1
            self.assertRaises(Unreadable, self.whole.decrypt, bytes(message))
            message[place] ^= 1
        self.assertEqual(self.whole.decrypt(bytes(message))[0], b"hello")

    def test_whatever_the_bytes(self) -> None:
        for junk in (b"", b"\x02", b"\x01" + bytes(80), os.urandom(48), b"\x02" + bytes(48)):
            self._unreadable(Reason.BAD_ENVELOPE, read_group_body, junk)
        self._unreadable(Reason.BAD_ENVELOPE, InboundGroup.index_of, os.urandom(40))
        for make in (InboundGroup.from_key, InboundGroup.from_export):
            for junk in (b"", bytes(165), os.urandom(229), os.urandom(512)):
                self._unreadable(Reason.BAD_CONTENT, make, junk)
        self.assertFalse(is_group_body(b""))

    def test_a_message_with_the_greatest_index_costs_no_time(self) -> None:
        """A reader may be asked to go on by four thousand million steps at once."""
        self.assertNotEqual(self.whole.export_at(2**32 - 1), b"")


def inbound_at(session: InboundGroup, index: int) -> InboundGroup:
    return InboundGroup.from_export(session.export_at(index))


class VaultTest(SynchronousTestCase):
    def setUp(self) -> None:
        self.vault = Vault.create(Path(self.mktemp()), KEY)
        self.addCleanup(self.vault.close)
        self.vault.begin()
        self.vault.put("pickle_key", KEY)
        self.vault.put("device", ALICE[1])


class Keys(VaultTest):
    def setUp(self) -> None:
        super().setUp()
        self.keys = GroupKeys(self.vault)
        self.me = DeviceIdentity(*ALICE, bytes(32), bytes(32))

    def _renew(self, group: str = GROUP) -> bytes:
        return self.keys.renew(group, self.me, lambda message: bytes(64), NOW).session.session

    def _of(self, who: tuple[str, str], session: OutboundGroup, index: int | None = None) -> Inbound:
        return Inbound(inbound(session, index), *who, Signed(b"", b""), True)

    def test_each_index_once_also_after_a_restart(self) -> None:
        self._renew()
        indices = []
        for counts in (True, False, True):
            body = read_group_body(self.keys.encrypt(GROUP, b"x", counts=counts))
            indices.append(InboundGroup.index_of(body.message))
            self.keys = GroupKeys(self.vault)
        self.assertEqual(indices, [0, 1, 2])
        outbound = self.keys.outbound(GROUP)
        assert outbound is not None
        self.assertEqual((outbound.messages, outbound.made_at), (2, NOW))

    def test_what_is_dropped_is_not_written_with(self) -> None:
        session = self._renew()
        self.keys.drop(GROUP)
        self.assertIsNone(self.keys.outbound(GROUP))
        self.assertIsNotNone(self.keys.inbound(GROUP, session, self.me.device))

    def test_who_has_it(self) -> None:
        session = self._renew()
        self.keys.share(session, BOB[1], "bob", 4)
        self.keys.share(session, BOB[1], "bob", 7)
        self.assertEqual(self.keys.shared(session), {BOB[1]: Shared("bob", 4, False)})
        self.keys.missed(session, BOB[1])
        self.assertEqual(self.keys.shared(session), {BOB[1]: Shared("bob", 4, True)})
        self.keys.share(session, BOB[1], "bob", 9)
        self.assertEqual(self.keys.shared(session), {BOB[1]: Shared("bob", 4, False)})

    def test_what_reads_more_is_kept(self) -> None:
        session = OutboundGroup.create()
        later, earlier = self._of(BOB, session, 5), self._of(BOB, session, 2)
        self.assertTrue(self.keys.add(GROUP, later, NOW))
        self.assertTrue(self.keys.add(GROUP, earlier, NOW))
        self.assertFalse(self.keys.add(GROUP, later, NOW))
        for keys in (self.keys, GroupKeys(self.vault)):
            found = keys.inbound(GROUP, session.session, BOB[1])
            assert found is not None
            self.assertEqual((found.session.first_index, found.user, found.verified), (2, "bob", True))

    def test_one_source_does_not_stand_in_the_place_of_another(self) -> None:
        """Neither another device's word, nor another group, nor what somebody has handed on."""
        session = OutboundGroup.create()
        self.keys.add(GROUP, self._of(ALICE, session), NOW)
        self.keys.add(OTHER, self._of(BOB, session), NOW)
        self.keys.add(GROUP, self._of(BOB, session), NOW, earlier=True)
        self.assertIsNone(self.keys.inbound(GROUP, session.session, BOB[1]))
        self.assertTrue(self.keys.add(GROUP, self._of(BOB, session, 3), NOW))
        for keys in (self.keys, GroupKeys(self.vault)):
            found = keys.inbound(GROUP, session.session, BOB[1])
            assert found is not None
            self.assertEqual(found.session.first_index, 3)

    def test_the_oldest_of_a_device_go(self) -> None:
        """But not what is written with."""
        self.patch(group_keys, "MOST_OF_DEVICE", 3)
        own = [self._renew() for _ in range(5)]
        bobs = [OutboundGroup.create() for _ in range(5)]
        for age, session in enumerate(bobs):
            self.keys.add(GROUP, self._of(BOB, session), NOW + age)
        self.assertIsNotNone(self.keys.inbound(GROUP, own[-1], self.me.device))
        here = [self.keys.inbound(GROUP, session.session, BOB[1]) is not None for session in bobs]
        self.assertEqual(here, [False, False, True, True, True])

    def test_a_device_that_is_believed_no_more(self) -> None:
        session = OutboundGroup.create()
        self.keys.add(GROUP, self._of(BOB, session), NOW)
        self.keys.add(GROUP, self._of(ALICE, session), NOW)
        self.keys.forget(BOB[1])
        self.assertIsNone(self.keys.inbound(GROUP, session.session, BOB[1]))
        self.assertIsNotNone(self.keys.inbound(GROUP, session.session, ALICE[1]))


class Bodies(VaultTest):
    def setUp(self) -> None:
        super().setUp()
        self.bodies = GroupBodies(self.vault)

    def _keep(
        self,
        n: int,
        waits: Waits = Waits.KEY,
        who: tuple[str, str] = BOB,
        at: int = NOW,
        session: bytes = b"s",
        earlier: bool = False,
    ) -> None:
        self.bodies.keep(GROUP, session, who, n, at, b"%d" % n, waits, earlier=earlier)

    def _waiting(self) -> list[tuple[int, bool]]:
        return [(kept.n, kept.earlier) for kept in self.bodies.waiting(GROUP)]

    def _kept(self, n: int) -> Kept:
        return next(kept for kept in self.bodies.waiting(GROUP) if kept.n == n)

    def test_in_the_order_in_which_they_came(self) -> None:
        for n in (3, 1, 2):
            self._keep(n)
        self._keep(1)
        self.assertEqual(self._waiting(), [(3, False), (1, False), (2, False)])
        self.bodies.waits_for(self._kept(1), Waits.CHAIN)
        self.bodies.settled(self._kept(3), NOW)
        self.bodies.settled(self._kept(2))
        self.assertEqual(self._waiting(), [(1, False)])
        self.assertEqual([kept.n for kept in self.bodies.since(GROUP, 0, 10)], [3])
        self.assertEqual((self.bodies.groups, self.bodies.waiting_of("bob")), ([GROUP], [GROUP]))
        self.assertEqual(self.bodies.waiting_of("alice"), [])

    def test_what_is_handed_on_is_beside_what_came(self) -> None:
        self._keep(1, earlier=True)
        self._keep(1)
        self._keep(0, earlier=True)
        self.assertEqual(self._waiting(), [(1, True), (0, True), (1, False)])
        self.bodies.settled(self._kept(0))
        self.bodies.settled(self._kept(1))
        self.assertEqual(self._waiting(), [(1, False)])

    def test_there_is_room_for_so_many(self) -> None:
        self.patch(group_bodies, "MOST_WAITING", 4)
        self.patch(group_bodies, "MOST_WAITING_OF_ONE", 2)
        for n in (1, 2):
            self.assertTrue(self.bodies.has_room(GROUP, BOB[1]))
            self._keep(n)
        self.assertFalse(self.bodies.has_room(GROUP, BOB[1]))
        for n in (1, 2):
            self.assertTrue(self.bodies.has_room(GROUP, ALICE[1]))
            self._keep(n, who=ALICE)
        self.assertFalse(self.bodies.has_room(GROUP, "3" * 32))
        self.assertTrue(self.bodies.has_room(OTHER, BOB[1]))
        self.assertTrue(self.bodies.has_room(GROUP, "", earlier=True))
        self._keep(9, Waits.NOTHING)
        self.bodies.settled(self._kept(1))
        self.assertTrue(self.bodies.has_room(GROUP, "3" * 32))

    def test_a_key_is_asked_for_ever_more_seldom(self) -> None:
        self._keep(1)
        self._keep(2)
        self._keep(3, Waits.CHAIN, session=b"of a chain")
        self._keep(4, session=b"of a history", earlier=True)
        asked: list[int] = []
        for minute in range(0, 60 * 24, 5):
            if found := self.bodies.to_ask(NOW + minute * 60_000):
                self.assertEqual(found, [(GROUP, b"s", *BOB, len(asked))])
                asked.append(minute)
        gaps = [after - before for before, after in pairwise(asked)]
        self.assertEqual(gaps[:5], [10, 20, 40, 80, 160])
        self.assertEqual(gaps[-1], MOST_BETWEEN_ASKING // 60_000)

    def test_a_clock_that_was_set_back_is_no_reason_to_wait_for_years(self) -> None:
        self._keep(1)
        self.bodies.to_ask(NOW)
        self.assertEqual(self.bodies.to_ask(NOW - ASK_AGAIN + 1), [])
        self.assertEqual(len(self.bodies.to_ask(NOW - 1000 * DAY)), 1)

    def test_not_everything_of_one_device_is_asked_for_at_once(self) -> None:
        for n in range(20):
            self._keep(n, session=b"%d" % n)
        self._keep(1, who=ALICE)
        found = self.bodies.to_ask(NOW)
        self.assertEqual(sum(device == BOB[1] for *_, device, _ in found), group_bodies.MOST_ASKED_OF_ONE)
        self.assertEqual(sum(device == ALICE[1] for *_, device, _ in found), 1)
        for _ in range(2):
            found += self.bodies.to_ask(NOW + 5000)
        self.assertEqual(len({session for _, session, *_ in found}), 21)

    def test_a_month_is_kept_and_what_waits(self) -> None:
        self._keep(1, Waits.NOTHING)
        self._keep(2)
        self.bodies.purge(NOW + MAX_HISTORY * DAY)
        self.assertEqual([kept.n for kept in self.bodies.since(GROUP, 0, 10)], [1])
        self.bodies.purge(NOW + MAX_HISTORY * DAY + 1)
        self.assertEqual([kept.n for kept in self.bodies.since(GROUP, 0, 10)], [])
        self.assertEqual(self._waiting(), [(2, False)])

    def test_the_last_so_many_since_then(self) -> None:
        for n in range(6):
            self._keep(n, Waits.NOTHING, at=NOW + n)
        self.assertEqual([kept.n for kept in self.bodies.since(GROUP, NOW + 1, 3)], [3, 4, 5])
        self.assertEqual([kept.n for kept in self.bodies.since(GROUP, NOW + 4, 9)], [4, 5])

    def test_histories_wait_for_the_chain(self) -> None:
        self.patch(group_bodies, "MOST_HISTORIES", 2)
        for content in (b"1", b"2", b"3"):
            self.bodies.hold_history(GROUP, *BOB, content)
        self.bodies.hold_history(GROUP, *ALICE, b"4")
        self.assertEqual((self.bodies.holds_history(GROUP), self.bodies.holds_history(OTHER)), (True, False))
        self.assertEqual(self.bodies.release_histories(OTHER), [])
        expected = [(*BOB, b"1"), (*BOB, b"2"), (*ALICE, b"4")]
        self.assertEqual(self.bodies.release_histories(GROUP), expected)
        self.assertEqual(self.bodies.release_histories(GROUP), [])
