"""Keys and the key log, against the memory store, checked the way a client checks them."""

from __future__ import annotations

import msgspec
from twisted.internet.defer import Deferred

from fastchat.accounts import MAX_DEVICES
from fastchat.directory import ANSWER_DEVICES, LOG_PAGE, Directory
from fastchat.errors import Busy, Internal, RequestError, SignatureInvalid
from fastchat.identity import prekeys
from fastchat.identity.invite import invite_digest
from fastchat.identity.keylog import LEAF_SIZE, Frontier, leaf, split, verify_checkpoint
from fastchat.protocols.wire import MAX_LINE, Checkpoint, DeviceKeys, KeysAnswer, LogAnswer, encode
from fastchat.store import Account, Device
from tests.support.away import memory_store
from tests.support.people import OwnDevice, Person, verifier_of
from tests.support.rules import INVITE, LOG_KEY, RulesCase

LOG_PUBLIC = LOG_KEY.public_key().public_bytes_raw()


class Keys(RulesCase):
    async def test_what_a_client_needs_to_write_to_somebody(self) -> None:
        await self.begin()
        alice, bob = await self.joined("alice"), await self.joined("bob")
        laptop, request = bob.add_device("laptop")
        await self.accounts.add_device("bob", request)
        shown = await self.directory.keys(["bob", "alice"], claim=True)
        self.assertTrue(bob.is_shown_by(shown[0]))
        self.assertTrue(alice.is_shown_by(shown[1]))
        self.assertEqual([bundle.device for bundle in shown[0].bundles], [bob.device.id, laptop.id])
        for bundle, device in zip(shown[0].bundles, (bob.device, laptop), strict=True):
            prekeys.verify_seal(device.identity, bundle.seal)
            prekeys.verify_fallback(device.identity, bundle.fallback)
            prekeys.verify_one_time(device.identity, bundle.one_time)

    async def test_each_claimed_key_is_given_once(self) -> None:
        await self.begin()
        alice = await self.joined("alice")
        claimed = []
        for _ in range(5):
            [account] = await self.directory.keys(["alice"], claim=True)
            claimed.append(account.bundles[0].one_time)
        self.assertEqual(len({key.body for key in claimed[:3]}), 3)
        self.assertEqual(claimed[3:], [None, None])
        self.assertEqual(await self.store.one_time_keys(alice.device.id), 0)

    async def test_looking_takes_nothing(self) -> None:
        await self.begin()
        alice = await self.joined("alice")
        [account] = await self.directory.keys(["alice"], claim=False)
        self.assertIsNone(account.bundles[0].one_time)
        self.assertEqual(await self.store.one_time_keys(alice.device.id), 3)

    async def test_who_does_not_exist_is_absent(self) -> None:
        await self.begin()
        await self.joined("alice")
        shown = await self.directory.keys(["nobody", "alice", "a\x00b", "", "Älice", "alice"], claim=True)
        self.assertEqual([account.user for account in shown], ["alice"])
        self.assertEqual(await self.directory.keys(["nobody"], claim=True), ())

    async def test_the_longest_answer_fits_in_a_line(self) -> None:
        await self.begin()
        person = await self.joined("a" * 32)
        [account] = await self.directory.keys([person.user], claim=True)
        self.assertLessEqual(MAX_DEVICES, ANSWER_DEVICES, "nobody could write to such an account")
        longest = KeysAnswer(re=2**53 - 1, accounts=(account,) * ANSWER_DEVICES)
        self.assertLess(len(encode(longest)), MAX_LINE)

    async def test_too_many_devices_for_one_answer(self) -> None:
        await self.begin()
        users = [f"user{number}" for number in range(ANSWER_DEVICES + 1)]
        alice = Person("alice")
        request = alice.register(INVITE)
        for user in users:
            device = OwnDevice(user, "only").identity
            await self.store.register(
                Account(user=user, rsa_public_key=b"", verifier=verifier_of("p")),
                Device(device=device.device, user=user, ed25519=device.ed25519, curve25519=device.curve25519),
                request.links,
                request.keys,
                [bytes(LEAF_SIZE)],
                invite_digest(INVITE),
            )
        await self.raises(RequestError, self.directory.keys(users, claim=True))
        self.assertEqual(await self.store.one_time_keys(OwnDevice(users[0], "only").id), 3)
        self.assertEqual(len(await self.directory.keys(users[1:], claim=True)), ANSWER_DEVICES)

    async def test_database_away(self) -> None:
        await self.begin()
        self.store.away = True
        await self.raises(Busy, self.directory.keys(["alice"], claim=True))


class Publishing(RulesCase):
    async def begin(self) -> None:
        await super().begin()
        self.alice = await self.joined("alice")
        self.row = await self.store.device(self.alice.device.id)

    async def test_published(self) -> None:
        await self.begin()
        device = self.alice.device
        self.assertEqual(await self.directory.publish(self.row, DeviceKeys(one_time=device.one_time(10))), 13)
        seal = device.seal(2)
        self.assertEqual(await self.directory.publish(self.row, DeviceKeys(seal=seal)), 13)
        [account] = await self.directory.keys(["alice"], claim=False)
        self.assertEqual(account.bundles[0].seal, seal)

    async def test_junk_is_refused_and_changes_nothing(self) -> None:
        await self.begin()
        device, other = self.alice.device, OwnDevice("alice", "other")
        [before] = await self.directory.keys(["alice"], claim=False)
        good = device.keys()
        for junk in (
            DeviceKeys(one_time=(*device.one_time(2), *other.one_time(1))),
            msgspec.structs.replace(good, fallback=other.fallback()),
            msgspec.structs.replace(good, seal=other.seal()),
            msgspec.structs.replace(good, seal=good.fallback),
            msgspec.structs.replace(good, fallback=good.one_time[0]),
            other.keys(),
        ):
            await self.raises(SignatureInvalid, self.directory.publish(self.row, junk))
        self.assertEqual(await self.directory.keys(["alice"], claim=False), (before,))
        self.assertEqual(await self.store.one_time_keys(device.id), 3)


class KeyLog(RulesCase):
    def check(self, leaves: list[bytes], checkpoint: Checkpoint) -> None:
        """As a client does: the signature, the size, and the root over all leaves."""
        verify_checkpoint(LOG_PUBLIC, checkpoint)
        tree = Frontier()
        for each in leaves:
            tree.append(each)
        self.assertEqual((checkpoint.size, checkpoint.root), (tree.size, tree.root()))

    async def grow(self, leaves: int) -> None:
        """Put `leaves` more into the log."""
        size = len(await self.store.log_leaves(0, 10_000))
        person = Person("alice")
        device = OwnDevice(f"user{size}", "only").identity
        row = Device(device=device.device, user=device.user, ed25519=device.ed25519, curve25519=device.curve25519)
        new = [leaf(f"user{number}", 0, person.links[0]) for number in range(size, size + leaves)]
        account = Account(user=device.user, rsa_public_key=b"", verifier=verifier_of("p"))
        await self.store.register(account, row, person.links, DeviceKeys(), new, invite_digest(INVITE))

    async def test_empty(self) -> None:
        await self.begin()
        self.check([], await self.directory.checkpoint())
        self.assertEqual((await self.directory.log(0))[0], b"")

    async def test_every_link_is_in_it(self) -> None:
        await self.begin()
        alice = await self.joined("alice")
        self.check([leaf("alice", n, link) for n, link in enumerate(alice.links)], await self.directory.checkpoint())
        bob = await self.joined("bob")
        leaves, checkpoint = await self.directory.log(0)
        everything = [leaf(person.user, n, link) for person in (alice, bob) for n, link in enumerate(person.links)]
        self.assertEqual(list(split(leaves)), everything)
        self.check(everything, checkpoint)

    async def test_each_answer_ends_where_its_checkpoint_does(self) -> None:
        """Whoever follows the log, from wherever, can check every answer by itself and arrives at the newest."""
        await self.begin()
        total = 2 * LOG_PAGE + 7
        await self.grow(total)
        everything = list(await self.store.log_leaves(0, total))
        for start in (0, 1, LOG_PAGE - 1, LOG_PAGE, LOG_PAGE + 1, 2 * LOG_PAGE, total - 1, total):
            followed, answers = everything[:start], 0
            while True:
                leaves, checkpoint = await self.directory.log(len(followed))
                self.assertLessEqual(len(leaves), LOG_PAGE * LEAF_SIZE)
                followed += split(leaves)
                self.check(followed, checkpoint)
                answers += 1
                if not leaves:
                    break
            self.assertEqual(followed, everything)
            self.assertLessEqual(answers, 4)

    async def test_exactly_one_page(self) -> None:
        await self.begin()
        await self.grow(LOG_PAGE)
        leaves, checkpoint = await self.directory.log(0)
        self.check(list(split(leaves)), checkpoint)
        self.assertEqual(checkpoint, await self.directory.checkpoint())
        self.assertEqual((await self.directory.log(LOG_PAGE))[0], b"")
        await self.grow(1)
        self.assertEqual(len((await self.directory.log(LOG_PAGE))[0]), LEAF_SIZE)

    async def test_the_longest_answer_fits_in_a_line(self) -> None:
        await self.begin()
        await self.grow(LOG_PAGE)
        leaves, checkpoint = await self.directory.log(0)
        self.assertLess(len(encode(LogAnswer(re=2**53 - 1, start=0, leaves=leaves, checkpoint=checkpoint))), MAX_LINE)

    async def test_beyond_its_end(self) -> None:
        await self.begin()
        await self.grow(3)
        for start in (4, LOG_PAGE, 2**53 - 1):
            await self.raises(RequestError, self.directory.log(start))
        self.assertEqual((await self.directory.log(3))[0], b"")

    async def test_all_services_sign_the_same(self) -> None:
        await self.begin()
        for leaves in (1, LOG_PAGE, 5):
            await self.grow(leaves)
            await self.directory.checkpoint()
        other = Directory(self.store, LOG_KEY)
        self.assertEqual(await other.checkpoint(), await self.directory.checkpoint())
        self.assertEqual(await other.log(0), await self.directory.log(0))

    async def test_database_away(self) -> None:
        await self.begin()
        self.store.away = True
        await self.raises(Busy, self.directory.checkpoint())
        self.store.away = False
        await self.grow(2)
        known = await self.directory.checkpoint()
        await self.grow(1)
        self.store.away = True
        self.assertEqual(await self.directory.checkpoint(), known)
        await self.raises(Busy, self.directory.log(0))
        self.store.away = False
        self.assertEqual((await self.directory.checkpoint()).size, 3)

    async def test_away_in_the_middle_of_reading(self) -> None:
        """What was read before stays, and the reading goes on from there."""
        await self.begin()
        await self.grow(LOG_PAGE + 1)
        self.store.away_after = 1
        await self.raises(Busy, self.directory.checkpoint())
        self.store.away_after = None
        self.store.calls.clear()
        checkpoint = await self.directory.checkpoint()
        self.assertEqual(self.store.calls, {"log_leaves": 1})
        self.check(list(await self.store.log_leaves(0, LOG_PAGE + 1)), checkpoint)

    async def test_a_storm_reads_once_for_all(self) -> None:
        await self.begin()
        await self.grow(2)
        self.store.calls.clear()
        self.store.held = True
        answers = [Deferred.fromCoroutine(self.directory.checkpoint()) for _ in range(100)]
        self.assertEqual(self.store.calls["log_leaves"], 1)
        self.store.release()
        self.assertEqual({(await answer).size for answer in answers}, {2})
        self.assertEqual(self.store.calls["log_leaves"], 2)

    async def test_whoever_asks_sees_what_was_there_before(self) -> None:
        """A reading that began earlier is not enough."""
        await self.begin()
        self.store.held = True
        early = Deferred.fromCoroutine(self.directory.checkpoint())
        await self.grow_behind_its_back()
        late = Deferred.fromCoroutine(self.directory.checkpoint())
        self.store.release()
        await early
        self.assertEqual((await late).size, 1)

    async def grow_behind_its_back(self) -> None:
        held, self.store.held = self.store.held, False
        await self.grow(1)
        self.store.held = held

    async def test_whoever_leaves_disturbs_nobody(self) -> None:
        await self.begin()
        self.store.held = True
        gone = Deferred.fromCoroutine(self.directory.checkpoint())
        stays = Deferred.fromCoroutine(self.directory.checkpoint())
        gone.addErrback(lambda _: None)
        gone.cancel()
        self.store.release()
        self.assertEqual((await stays).size, 0)

    async def test_a_store_that_has_forgotten(self) -> None:
        """A log that was shown longer is never shown shorter."""
        await self.begin()
        await self.grow(3)
        await self.directory.checkpoint()
        self.directory._store = memory_store()
        await self.raises(Internal, self.directory.log(0))
        self.assertEqual((await self.directory.checkpoint()).size, 3)
