"""What every store does: the same tests on PostgreSQL and in memory."""

from __future__ import annotations

from collections.abc import Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, gatherResults
from twisted.trial.unittest import SynchronousTestCase, TestCase

from fastchat.config import Config, Limits
from fastchat.errors import ChainInvalid, DeviceTaken, InviteInvalid, NameTaken, UnknownDevice, UnknownUser
from fastchat.protocols.wire import Bundle, DeviceKeys
from fastchat.store import ONE_TIME_KEYS_KEPT, Account, Device, Store, Stored
from fastchat.store.literals import Octets
from fastchat.store.memory import MemoryStore
from fastchat.store.postgres import PostgresStore
from tests.support import rows
from tests.support.postgres import fresh_database
from tests.support.rows import INVITE, mail, register, signed

CONFIG = Config(home=Path("unused"), limits=Limits(mailbox_messages=10, mailbox_bytes=1024, mailbox_share=1.0))

FULL, SHARE, STORED, UNKNOWN = Stored.MAILBOX_FULL, Stored.SHARE_FULL, Stored.STORED, Stored.UNKNOWN_DEVICE

if TYPE_CHECKING:
    Base = TestCase
else:
    Base = object


class StoreTests(Base):
    """The rules. A subclass says which store."""

    async def make_store(self, config: Config) -> Store:
        """An open store that holds nothing; it is closed after the test."""
        raise NotImplementedError

    async def store_with_invite(self) -> Store:
        store = await self.make_store(CONFIG)
        await store.add_invite(INVITE, None, None)
        return store

    async def refused(self, error: type[Exception], call: Coroutine[Any, Any, Any]) -> None:
        await self.assertFailure(Deferred.fromCoroutine(call), error)

    # --- accounts ----------------------------------------------------------------------------------------------

    async def test_a_registered_account_is_there_whole(self) -> None:
        store = await self.store_with_invite()
        first = await register(store, "alice")
        self.assertEqual(await store.account("alice"), rows.account("alice"))
        self.assertEqual(await store.device(first.device), first)
        self.assertEqual(await store.links(["alice"]), {"alice": [signed("alice", "genesis"), signed("alice", "add")]})
        self.assertEqual(await store.devices(["alice"]), {"alice": [first]})
        self.assertEqual(await store.one_time_keys(first.device), 3)
        self.assertEqual(await store.log_leaves(0, 10), [rows.leaf("alice", 0), rows.leaf("alice", 1)])
        found = await store.account("alice")
        assert isinstance(found, Account)
        self.assertIs(type(found.rsa_public_key), bytes)

    async def test_nobody_is_there_before(self) -> None:
        store = await self.store_with_invite()
        self.assertTrue(store.available)
        self.assertIsNone(await store.account("alice"))
        self.assertIsNone(await store.device(rows.device("alice").device))
        self.assertEqual(await store.links(["alice"]), {})
        self.assertEqual(await store.devices(["alice"]), {})
        self.assertEqual(await store.bundles([rows.device("alice").device], True), [])
        self.assertEqual(await store.one_time_keys(rows.device("alice").device), 0)
        self.assertEqual(await store.mailbox_size(rows.device("alice").device), 0)
        self.assertEqual(await store.mailbox(rows.device("alice").device, [], 10), [])
        self.assertEqual(await store.log_leaves(0, 10), [])
        await self.refused(UnknownDevice, store.publish(rows.device("alice").device, rows.keys("alice")))

    async def test_names_that_nobody_can_have_are_unknown(self) -> None:
        store = await self.store_with_invite()
        odd = ["al\0ice", "", "ä" * 64, "'; drop table users; --", '{"a"}', "\\"]
        for name in odd:
            self.assertIsNone(await store.account(name))
        self.assertEqual((await store.links(odd), await store.devices(odd)), ({}, {}))

    async def test_links_and_devices_of_several(self) -> None:
        store = await self.store_with_invite()
        for user in ("bob", "alice"):
            await register(store, user)
        self.assertEqual(set(await store.links(["alice", "nobody", "bob"])), {"alice", "bob"})
        found = await store.devices(["bob", "alice", "bob"])
        self.assertEqual(found, {user: [rows.device(user)] for user in ("alice", "bob")})

    async def test_a_name_is_taken_once(self) -> None:
        store = await self.store_with_invite()
        await register(store, "alice")
        other = rows.device("alice", "other")
        arguments = (rows.account("alice"), other, [signed("x")], rows.keys("x"), [rows.leaf("x")], INVITE)
        await self.refused(NameTaken, store.register(*arguments))
        self.assertIsNone(await store.device(other.device))
        self.assertEqual(len(await store.log_leaves(0, 10_000)), 2)

    async def test_a_device_is_taken_once_and_then_nothing_was_written(self) -> None:
        store = await self.make_store(CONFIG)
        await store.add_invite(INVITE, 2, None)
        first = await register(store, "alice")
        taken = Device(first.device, "bob", first.ed25519, first.curve25519)
        arguments = (rows.account("bob"), taken, [signed("x")], rows.keys("x"), [rows.leaf("x")], INVITE)
        await self.refused(DeviceTaken, store.register(*arguments))
        self.assertIsNone(await store.account("bob"))
        self.assertEqual((await store.links(["bob"]), len(await store.log_leaves(0, 10_000))), ({}, 2))
        await register(store, "bob")  # the invite's second use is still there

    async def test_invites(self) -> None:
        store = await self.make_store(CONFIG)
        await self.refused(InviteInvalid, register(store, "alice"))
        await store.add_invite(INVITE, 1, None)
        await store.add_invite(rows.octets("expired"), None, 1)
        await store.add_invite(rows.octets("long"), 1, 2**33)
        await register(store, "alice")
        await store.add_invite(INVITE, 1, None)  # again: changes nothing
        await self.refused(InviteInvalid, register(store, "bob"))
        await self.refused(InviteInvalid, register(store, "bob", invite=rows.octets("expired")))
        invites = [INVITE, rows.octets("expired"), rows.octets("long"), rows.octets("none")]
        self.assertEqual([await store.can_invite(invite) for invite in invites], [False, False, True, False])
        self.assertIsNone(await store.account("bob"))
        await register(store, "bob", invite=rows.octets("long"))

    async def test_a_second_device(self) -> None:
        store = await self.store_with_invite()
        first = await register(store, "alice")
        second, link, leaf = rows.device("alice", "second"), signed("alice", "second"), rows.leaf("alice", 2)
        for wrong in (0, 1, 3):
            await self.refused(ChainInvalid, store.add_device(second, wrong, link, rows.keys("second"), leaf))
        await self.refused(UnknownUser, store.add_device(rows.device("bob"), 0, link, rows.keys("b"), leaf))
        await self.refused(DeviceTaken, store.add_device(first, 2, link, rows.keys("second"), leaf))
        self.assertEqual(len(await store.log_leaves(0, 10_000)), 2)
        await store.add_device(second, 2, link, rows.keys("second"), leaf)
        self.assertEqual(await store.devices(["alice"]), {"alice": [first, second]})
        self.assertEqual((await store.links(["alice"]))["alice"][2:], [link])
        self.assertEqual(await store.log_leaves(2, 10), [leaf])
        self.assertEqual(await store.log_leaves(1, 1), [rows.leaf("alice", 1)])
        self.assertEqual([bundle.device for bundle in await store.bundles([second.device], False)], [second.device])

    async def test_a_revoked_device_is_gone_with_all_that_it_had(self) -> None:
        store = await self.store_with_invite()
        bob, first = await register(store, "bob"), await register(store, "alice")
        second = rows.device("alice", "second")
        await store.add_device(second, 2, signed("second"), rows.keys("second"), rows.leaf("alice", 2))
        both = [mail(device, 1, order=7) for device in (first, second)]
        await store.store_mail([*both, mail(first, 2), mail(bob, 3, sender=first)])
        revocation, leaf = signed("revoke"), rows.leaf("alice", 3)
        await store.revoke_device("alice", first.device, 3, revocation, leaf)
        self.assertEqual((await store.links(["alice"]))["alice"][3:], [revocation])
        self.assertEqual(await store.log_leaves(5, 10), [leaf])
        self.assertIsNone(await store.device(first.device))
        self.assertEqual(await store.devices(["alice"]), {"alice": [second]})
        self.assertEqual(
            [bundle.device for bundle in await store.bundles([first.device, second.device], True)], [second.device]
        )
        self.assertEqual(await store.one_time_keys(first.device), 0)
        await self.refused(UnknownDevice, store.publish(first.device, rows.keys("more")))
        # Its mailbox is gone, and takes nothing; what others were sent, by whomever, is as it was.
        self.assertEqual((await store.mailbox(first.device, [], 10), await store.mailbox_size(first.device)), ([], 0))
        self.assertEqual(await store.waiting([first.device, second.device]), [second.device])
        self.assertEqual(await store.store_mail([mail(first, 4), mail(second, 4)]), [UNKNOWN, STORED])
        self.assertEqual([waiting.n for waiting in await store.mailbox(second.device, [], 10)], [1, 4])
        [from_first] = await store.mailbox(bob.device, [], 10)
        self.assertEqual((from_first.device, from_first.n), (first.device, 3))
        await store.delete_mail([(first.device, from_first.message), (first.device, 1)])
        self.assertEqual(await store.mailbox_size(bob.device), 1)

    async def test_a_revoked_device_never_comes_back(self) -> None:
        store = await self.store_with_invite()
        first, second = await register(store, "alice"), rows.device("alice", "second")
        await store.add_device(second, 2, signed("second"), rows.keys("second"), rows.leaf("alice", 2))
        await store.revoke_device("alice", first.device, 3, signed("revoke"), rows.leaf("alice", 3))
        again = (signed("again"), rows.keys("again"), rows.leaf("alice", 4))
        await self.refused(DeviceTaken, store.add_device(first, 4, *again))
        taken = Device(first.device, "bob", first.ed25519, first.curve25519)
        links, keys, leaves = [signed("bob")], rows.keys("bob"), [rows.leaf("bob")]
        await self.refused(DeviceTaken, store.register(rows.account("bob"), taken, links, keys, leaves, INVITE))
        await store.add_device(rows.device("alice", "third"), 4, *again)
        self.assertEqual(await store.devices(["alice"]), {"alice": [second, rows.device("alice", "third")]})

    async def test_what_cannot_be_revoked(self) -> None:
        store = await self.store_with_invite()
        alice, bob = await register(store, "alice"), await register(store, "bob")
        link, leaf = signed("revoke"), rows.leaf("revoke")
        for wrong in (0, 1, 3):
            await self.refused(ChainInvalid, store.revoke_device("alice", alice.device, wrong, link, leaf))
        for device in (bob.device, rows.device("alice", "second").device):
            await self.refused(UnknownDevice, store.revoke_device("alice", device, 2, link, leaf))
        await self.refused(UnknownUser, store.revoke_device("carol", alice.device, 2, link, leaf))
        self.assertEqual((len(await store.log_leaves(0, 10)), len((await store.links(["alice"]))["alice"])), (4, 2))
        self.assertEqual(await store.device(alice.device), alice)
        await store.revoke_device("alice", alice.device, 2, link, leaf)
        await self.refused(UnknownDevice, store.revoke_device("alice", alice.device, 3, link, leaf))
        self.assertEqual(len(await store.log_leaves(0, 10)), 5)

    # --- prekeys -----------------------------------------------------------------------------------------------

    async def test_one_time_keys_are_given_out_once_in_order(self) -> None:
        store = await self.store_with_invite()
        alice, bob = await register(store, "alice"), await register(store, "bob", one_time=1)

        def bundle(owner: str, number: int | None) -> Bundle:
            one_time = None if number is None else signed(owner, "one time", number)
            identity = rows.device(owner).device
            return Bundle(identity, signed(owner, "seal"), signed(owner, "fallback"), one_time)

        both = [bob.device, rows.device("nobody").device, alice.device, bob.device]
        self.assertEqual(await store.bundles(both, False), [bundle("bob", None), bundle("alice", None)])
        self.assertEqual(await store.bundles(both, True), [bundle("bob", 0), bundle("alice", 0)])
        self.assertEqual(await store.bundles(both, True), [bundle("bob", None), bundle("alice", 1)])
        self.assertEqual(await store.bundles([], True), [])
        self.assertEqual((await store.one_time_keys(alice.device), await store.one_time_keys(bob.device)), (1, 0))

    async def test_claims_at_once_get_different_keys(self) -> None:
        store = await self.store_with_invite()
        alice = await register(store, "alice", one_time=50)
        claims = [Deferred.fromCoroutine(store.bundles([alice.device], True)) for _ in range(60)]
        claimed = [bundle.one_time for [bundle] in await gatherResults(claims)]
        self.assertEqual(claimed.count(None), 10)
        self.assertEqual({key.body for key in claimed if key}, {key.body for key in rows.keys("alice", 50).one_time})

    async def test_published_keys_replace_and_add(self) -> None:
        store = await self.store_with_invite()
        alice = await register(store, "alice")
        self.assertEqual(await store.publish(alice.device, DeviceKeys(fallback=signed("new"))), 3)
        [bundle] = await store.bundles([alice.device], False)
        self.assertEqual((bundle.fallback, bundle.seal), (signed("new"), signed("alice", "seal")))
        self.assertEqual(await store.publish(alice.device, rows.keys("alice", 5)), 5)
        self.assertEqual(await store.publish(alice.device, rows.keys("alice", 5)), 5)

    async def test_a_key_that_was_given_out_is_not_taken_back_in(self) -> None:
        store = await self.store_with_invite()
        alice = await register(store, "alice", one_time=2)
        [bundle] = await store.bundles([alice.device], True)
        self.assertEqual(await store.publish(alice.device, rows.keys("alice", 2)), 1)
        [other] = await store.bundles([alice.device], True)
        assert bundle.one_time
        assert other.one_time
        self.assertNotEqual(bundle.one_time, other.one_time)

    async def test_the_newest_one_time_keys_are_kept(self) -> None:
        store = await self.store_with_invite()
        alice = await register(store, "alice", one_time=50)
        self.assertEqual(await store.publish(alice.device, rows.keys("alice", 50, 50)), ONE_TIME_KEYS_KEPT)
        self.assertEqual(await store.publish(alice.device, rows.keys("alice", 50, 80)), ONE_TIME_KEYS_KEPT)
        [bundle] = await store.bundles([alice.device], True)
        self.assertEqual(bundle.one_time, signed("alice", "one time", 30))

    async def test_a_device_that_has_published_half_has_no_bundle(self) -> None:
        store = await self.store_with_invite()
        half = DeviceKeys((signed("k"),))
        await store.register(rows.account("alice"), rows.device("alice"), [signed("x")], half, [], INVITE)
        self.assertEqual(await store.bundles([rows.device("alice").device], True), [])
        self.assertEqual(await store.one_time_keys(rows.device("alice").device), 1)

    # --- mailboxes ---------------------------------------------------------------------------------------------

    async def test_mail_waits_in_order_until_it_is_deleted(self) -> None:
        store = await self.store_with_invite()
        alice, bob = await register(store, "alice"), await register(store, "bob")
        batch = [mail(alice, 1, b'"one"'), mail(bob, 2), mail(alice, 3, b'"three"'), mail(alice, 4)]
        self.assertEqual(await store.store_mail(batch), [STORED] * 4)
        waiting = await store.mailbox(alice.device, [], 10)
        sender = rows.device("sender")
        expected = [("sender", sender.device, n, 1_700_000_000_000 + n) for n in (1, 3, 4)]
        self.assertEqual([row[1:5] for row in waiting], expected)
        self.assertEqual([row.body for row in waiting], [b'"one"', b'"three"', b'"body"'])
        self.assertEqual([row.message for row in waiting], sorted({row.message for row in waiting}))
        first, second, third = (row.message for row in waiting)
        self.assertEqual([row.n for row in await store.mailbox(alice.device, [first, third], 10)], [3])
        self.assertEqual([row.n for row in await store.mailbox(alice.device, [first], 1)], [3])
        self.assertEqual(await store.mailbox_size(alice.device), 3)
        await store.delete_mail([(alice.device, second), (bob.device, first), (alice.device, 2**40)])
        await store.delete_mail([])
        self.assertEqual([row.n for row in await store.mailbox(alice.device, [], 10)], [1, 4])
        self.assertEqual((await store.mailbox_size(alice.device), await store.mailbox_size(bob.device)), (2, 1))
        await store.delete_mail([(alice.device, first), (alice.device, third), (alice.device, third)])
        self.assertEqual(await store.waiting([alice.device, bob.device, rows.device("nobody").device]), [bob.device])
        self.assertEqual(await store.waiting([]), [])

    async def test_a_page_of_a_mailbox_ends_where_it_has_enough_bytes(self) -> None:
        store = await self.store_with_invite()
        alice = await register(store, "alice")
        await store.store_mail([mail(alice, n, b"x" * 100) for n in range(5)])
        rows_there = await store.mailbox(alice.device, [], 10)
        for enough, count in ((1, 1), (100, 1), (101, 2), (200, 2), (201, 3), (500, 5), (501, 5)):
            self.assertEqual(await store.mailbox(alice.device, [], 10, enough), rows_there[:count])
        flying = [rows_there[0].message, rows_there[2].message]
        self.assertEqual(await store.mailbox(alice.device, flying, 10, 200), [rows_there[1], rows_there[3]])
        self.assertEqual(await store.mailbox(alice.device, flying, 1, 200), [rows_there[1]])

    async def test_unknown_devices_are_left_out(self) -> None:
        store = await self.store_with_invite()
        alice = await register(store, "alice")
        batch = [mail(rows.device("nobody"), 1), mail(alice, 2), mail(rows.device("nobody"), 3)]
        self.assertEqual(await store.store_mail(batch), [UNKNOWN, STORED, UNKNOWN])
        self.assertEqual(await store.store_mail([]), [])
        self.assertEqual([row.n for row in await store.mailbox(alice.device, [], 10)], [2])

    async def test_a_mailbox_holds_so_many_messages(self) -> None:
        store = await self.store_with_invite()
        alice, bob = await register(store, "alice"), await register(store, "bob")
        self.assertEqual(await store.store_mail([mail(alice, n) for n in range(8)]), [STORED] * 8)
        batch = [mail(device, n) for n in range(8, 12) for device in (alice, bob)]
        self.assertEqual(await store.store_mail(batch), [STORED] * 4 + [FULL, STORED] * 2)
        rows_there = await store.mailbox(alice.device, [], 100)
        self.assertEqual([row.n for row in rows_there], list(range(10)))
        await store.delete_mail([(alice.device, rows_there[0].message)])
        self.assertEqual(await store.store_mail([mail(alice, 20), mail(alice, 21)]), [STORED, FULL])

    async def test_a_mailbox_holds_so_many_bytes(self) -> None:
        store = await self.store_with_invite()
        alice = await register(store, "alice")
        large, small = b"x" * 600, b"x" * 424
        self.assertEqual(await store.store_mail([mail(alice, 1, b"x" * 1025)]), [FULL])
        self.assertEqual(await store.store_mail([mail(alice, 2, large)]), [STORED])
        # Nothing of a batch overtakes what was refused before it.
        self.assertEqual(await store.store_mail([mail(alice, 3, large), mail(alice, 4, b"x")]), [FULL, FULL])
        self.assertEqual(await store.store_mail([mail(alice, 5, small), mail(alice, 6, b"x")]), [STORED, FULL])
        self.assertEqual([row.body for row in await store.mailbox(alice.device, [], 10)], [large, small])

    async def with_shares(self, **limits: Any) -> tuple[Store, Device]:
        store = await self.make_store(Config(home=Path("unused"), limits=Limits(**limits)))
        await store.add_invite(INVITE, None, None)
        return store, await register(store, "alice")

    async def test_one_account_fills_a_share_of_a_mailbox_and_no_more(self) -> None:
        store, alice = await self.with_shares(mailbox_messages=10, mailbox_share=0.4)
        carol, dave, erin = (rows.device(user) for user in ("carol", "dave", "erin"))
        tablet = rows.device("carol", "tablet")
        n = 1

        async def store_from(*senders: Device) -> list[Stored]:
            nonlocal n
            batch = [mail(alice, n + number, sender=sender) for number, sender in enumerate(senders)]
            n += len(senders)
            return list(await store.store_mail(batch))

        self.assertEqual(await store_from(carol, carol, tablet), [STORED] * 3)
        self.assertEqual(await store_from(tablet, carol, dave, tablet), [STORED, SHARE, STORED, SHARE])
        # What a share refuses takes no room from anybody who comes after it.
        batch = [carol] * 20 + [dave] * 4 + [carol] + [erin] * 4
        self.assertEqual(
            await store_from(*batch), [SHARE] * 20 + [STORED] * 3 + [SHARE] * 2 + [STORED] * 2 + [FULL] * 2
        )
        self.assertEqual(await store.mailbox_size(alice.device), 10)
        waiting = await store.mailbox(alice.device, [], 100)
        await store.delete_mail([(alice.device, row.message) for row in waiting if row.user in ("carol", "erin")][:2])
        self.assertEqual(await store_from(carol, carol, carol, erin), [STORED, STORED, SHARE, FULL])

    async def test_a_share_has_bytes_too_and_nothing_overtakes_what_it_refused(self) -> None:
        store, alice = await self.with_shares(mailbox_bytes=1024, mailbox_share=0.5)
        carol, dave = rows.device("carol"), rows.device("dave")
        sizes = [(carol, 400), (carol, 113), (carol, 1), (dave, 512), (dave, 1)]
        batch = [mail(alice, n, b"x" * size, sender) for n, (sender, size) in enumerate(sizes)]
        self.assertEqual(await store.store_mail(batch), [STORED, SHARE, SHARE, STORED, SHARE])
        self.assertEqual(await store.store_mail([mail(alice, 9, b"x" * 112, carol)]), [STORED])
        self.assertEqual(await store.store_mail([mail(alice, 10, b"x", carol)]), [FULL])

    async def test_ones_own_devices_may_fill_all_of_it(self) -> None:
        store, alice = await self.with_shares(mailbox_messages=10, mailbox_share=0.1)
        phone, carol = rows.device("alice", "phone"), rows.device("carol")
        batch = [mail(alice, n, sender=sender) for n, sender in enumerate([carol, carol] + [phone] * 10)]
        self.assertEqual(await store.store_mail(batch), [STORED, SHARE] + [STORED] * 9 + [FULL])

    async def test_bodies_and_senders_come_back_as_they_went(self) -> None:
        store = await self.make_store(Config(home=Path("unused")))
        await store.add_invite(INVITE, None, None)
        alice = await register(store, "alice")
        bodies = [bytes(range(256)) * 3, b"", b"'\\", rb"\x41\101", b'"%s"', b"x" * 200_000, b"\0", '"ü"'.encode()]
        senders = [
            Device(rows.device(name).device, name, b"", b"") for name in ("null", 'a"b', "c\\d", "{e,f}", "ü", "")
        ]
        batch = [mail(alice, n, body) for n, body in enumerate(bodies)]
        batch += [mail(alice, n, b'"x"', sender) for n, sender in enumerate(senders)]
        self.assertEqual(await store.store_mail(batch), [STORED] * len(batch))
        waiting = await store.mailbox(alice.device, [], 100)
        self.assertEqual(
            [(row.user, row.device, row.body) for row in waiting], [(m.user, m.device, m.body) for m in batch]
        )
        self.assertEqual({type(row.body) for row in waiting}, {bytes})

    async def test_what_many_get_is_one_body_until_the_last_one_has_it(self) -> None:
        store = await self.store_with_invite()
        devices = [await register(store, user) for user in ("alice", "bob", "carol")]
        batch = [mail(device, 1, b'"all"', order=1) for device in [*devices, rows.device("nobody")]]
        self.assertEqual(await store.store_mail(batch), [STORED, STORED, STORED, UNKNOWN])
        pages = [await store.mailbox(device.device, [], 10) for device in devices]
        self.assertEqual([page[0].body for page in pages], [b'"all"'] * 3)
        [message] = {row.message for page in pages for row in page}
        for number, device in enumerate(devices):
            self.assertEqual(await store.mailbox_size(device.device), 1)
            await store.delete_mail([(device.device, message)])
            left = [await store.mailbox(other.device, [], 10) for other in devices]
            self.assertEqual(left, [[]] * (number + 1) + pages[number + 1 :])

    async def test_what_a_submission_says_to_each_alone_stays_apart(self) -> None:
        store = await self.store_with_invite()
        alice, bob, carol = [await register(store, user) for user in ("alice", "bob", "carol")]
        bodies = {alice: b'"a"', bob: b'"b"', carol: b'"a"'}
        other = rows.device("other")  # its user is another one, too
        batch = [mail(device, 1, body, order=1) for device, body in bodies.items()]
        # Not what any submission is; but nothing is mixed up, and nobody's mail undoes the batch of everybody else.
        batch += [mail(alice, 1, b'"a"', order=1) for _ in range(3)]
        batch += [
            mail(bob, 2, b'"b"', order=1),
            mail(alice, 3, b'"b"', order=1),
            mail(carol, 3, b'"b"', other, order=1),
        ]
        self.assertEqual(await store.store_mail(batch), [STORED] * 9)
        for device in bodies:
            page = await store.mailbox(device.device, [], 10)
            expected = [(m.user, m.n, m.body) for m in batch if m.recipient == device.device]
            self.assertEqual(sorted((row.user, row.n, row.body) for row in page), sorted(expected))

    async def test_rows_rise_with_the_submissions_whatever_the_order_of_the_batch(self) -> None:
        store = await self.store_with_invite()
        alice, bob, carol = [await register(store, user) for user in ("alice", "bob", "carol")]
        # Number 2 finds alice first; but bob's lane stores number 1 before it, and so does carol's.
        order = [(alice, 2), (bob, 1), (bob, 2), (carol, 1), (carol, 2), (alice, 3)]
        batch = [mail(device, n, b'"%d"' % n, order=10 + n) for device, n in order]
        self.assertEqual(await store.store_mail(batch), [STORED] * 6)
        for device in (alice, bob, carol):
            page = await store.mailbox(device.device, [], 10)
            self.assertEqual([row.n for row in page], [n for recipient, n in order if recipient is device])
            self.assertEqual([row.message for row in page], sorted(row.message for row in page))
            self.assertEqual([row.body for row in page], [b'"%d"' % row.n for row in page])
        await store.store_mail([mail(alice, 1, order=1)])  # in a batch of its own: behind what is there
        self.assertEqual([row.n for row in await store.mailbox(alice.device, [], 10)], [2, 3, 1])

    async def test_limits_hold_for_each_of_many_recipients(self) -> None:
        store = await self.make_store(Config(home=Path("unused"), limits=Limits(mailbox_messages=4, mailbox_share=0.5)))
        await store.add_invite(INVITE, None, None)
        full, shared, room = [await register(store, user) for user in ("alice", "bob", "carol")]
        carol = rows.device("carol")
        await store.store_mail([mail(full, n, sender=rows.device("alice")) for n in range(4)])
        await store.store_mail([mail(shared, n, sender=carol) for n in range(2)])
        devices = [full, rows.device("nobody"), shared, room]
        batch = [mail(device, n, sender=carol, order=n) for n in (7, 8) for device in devices]
        self.assertEqual(await store.store_mail(batch), [FULL, UNKNOWN, SHARE, STORED] * 2)
        self.assertEqual([await store.mailbox_size(device.device) for device in devices], [4, 0, 2, 2])
        other = [mail(device, 9, sender=rows.device("dave"), order=9) for device in devices]
        self.assertEqual(await store.store_mail(other), [FULL, UNKNOWN, STORED, STORED])

    async def test_large_numbers(self) -> None:
        store = await self.store_with_invite()
        alice = await register(store, "alice")
        await store.store_mail([mail(alice, 2**53 - 1)])
        self.assertEqual([row.n for row in await store.mailbox(alice.device, [2**53 - 1], 2**31)], [2**53 - 1])
        self.assertEqual(await store.log_leaves(2**53 - 1, 1000), [])


class MemoryStoreTests(StoreTests, TestCase):
    """In memory."""

    async def make_store(self, config: Config) -> Store:
        store = MemoryStore(config)
        await store.open()
        self.addCleanup(Deferred.fromCoroutine, store.close())
        return store


class PostgresStoreTests(StoreTests, TestCase):
    """On PostgreSQL."""

    timeout = 60

    async def make_store(self, config: Config) -> Store:
        from twisted.internet import reactor

        store = PostgresStore(await fresh_database(self), config, reactor)
        await store.open()
        self.addCleanup(lambda: Deferred.fromCoroutine(store.close()))
        return store


class LiteralTests(SynchronousTestCase):
    @given(st.binary(max_size=200))
    @settings(suppress_health_check=[HealthCheck.differing_executors], deadline=None)
    def test_no_octets_end_their_literal(self, value: bytes) -> None:
        quoted = Octets(value).getquoted()
        inside = quoted[2:-1]
        self.assertEqual((quoted[:2], quoted[-1:]), (b"E'", b"'"))
        self.assertNotIn(b"'", inside)
        self.assertTrue(all(0x20 <= byte < 0x7F for byte in inside))
        self.assertEqual(inside.replace(rb"\\", b"").count(b"\\"), 0)
