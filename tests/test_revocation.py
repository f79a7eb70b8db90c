"""A device is taken out of an account, as the server sees it: who may ask for it, what is gone then, and what of it was
under way."""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Any
from unittest import mock

import msgspec

from fastchat import accounts
from fastchat.accounts import MAX_CHAIN, MAX_DEVICES
from fastchat.directory import ANSWER_BYTES, BUNDLE_BYTES
from fastchat.errors import (
    Busy,
    ChainInvalid,
    FastChatError,
    LoginFailed,
    RequestError,
    SignatureInvalid,
    UnknownUser,
)
from fastchat.identity.keylog import leaf
from fastchat.identity.links import replay
from fastchat.protocols import wire
from fastchat.protocols.session import COMMANDS
from fastchat.protocols.wire import MAX_LINE, AccountKeys, DeviceKeys, KeysAnswer, Signed, encode
from fastchat.store import Device
from tests.support import rows
from tests.support.calling import SessionCase
from tests.support.delivery import now
from tests.support.people import OwnDevice, Person
from tests.support.rules import RulesCase

EXPORTER, CHALLENGE = b"x" * 32, b"c" * 32


class Rules(RulesCase):
    """`Accounts.revoke_device`, against the memory store."""

    async def begin(self) -> None:
        await super().begin()
        self.alice, self.bob = await self.joined("alice"), await self.joined("bob")
        self.laptop, request = self.alice.add_device("laptop")
        await self.accounts.add_device("alice", request)
        self.gone: list[tuple[str, str]] = []

    def told(self, device: str, why: FastChatError) -> None:
        self.gone.append((device, why.code))
        self.accounts.forget("alice", device, why)

    async def revoke(self, request: wire.Revoke, user: str = "alice") -> None:
        await self.accounts.revoke_device(user, request, self.told)

    async def logs_in(self, device: OwnDevice) -> Device:
        return await self.accounts.check_login(device.login(EXPORTER, CHALLENGE), EXPORTER, CHALLENGE)

    async def test_a_revoked_device_is_like_one_that_never_was(self) -> None:
        await self.begin()
        await self.logs_in(self.laptop)
        await self.revoke(self.alice.revoke(self.laptop))
        self.assertEqual(self.gone, [(self.laptop.id, "device-revoked")])
        chain = replay("alice", (await self.store.links(["alice"]))["alice"])
        self.assertEqual((list(chain.devices), list(chain.revoked)), ([self.alice.device.id], [self.laptop.id]))
        self.assertEqual((await self.store.log_leaves(5, 10)), [leaf("alice", 3, self.alice.links[3])])
        # Also where it was known without asking; and in the words for what there never was.
        words = {
            str(await self.raises(LoginFailed, self.logs_in(device)))
            for device in (self.laptop, OwnDevice("alice", "x"))
        }
        self.assertEqual(len(words), 1)
        [shown] = await self.directory.keys(["alice"], claim=True)
        self.assertTrue(self.alice.is_shown_by(shown))
        self.assertEqual([bundle.device for bundle in shown.bundles], [self.alice.device.id])
        await self.logs_in(self.alice.device)

    async def test_it_cannot_be_added_again(self) -> None:
        await self.begin()
        await self.revoke(self.alice.revoke(self.laptop))
        link = replay("alice", self.alice.links)
        body = self.alice.links[2].body.replace(b'"position":2', b'"position":4')
        body = body.replace(json.loads(body)["prev"].encode(), b64encode(link.head))
        again = Signed(body, self.alice.root.sign(b"link", body))
        await self.raises(
            ChainInvalid, self.accounts.add_device("alice", wire.AddDevice(1, 4, again, self.laptop.keys()))
        )

    async def test_what_is_refused_changes_nothing(self) -> None:
        await self.begin()
        replace = msgspec.structs.replace
        bobs, request = self.bob.add_device("phone")
        await self.accounts.add_device("bob", request)
        of_bob = self.bob.revoke(bobs)
        before = len(await self.store.log_leaves(0, 100))
        right = self.alice.revoke(self.laptop)
        forged = Signed(right.link.body, of_bob.link.signature)
        for error, user, junk in (
            (UnknownUser, "nobody", right),
            (ChainInvalid, "bob", right),
            (ChainInvalid, "alice", of_bob),
            (ChainInvalid, "alice", replace(right, position=2)),
            (ChainInvalid, "alice", replace(right, position=4)),
            (ChainInvalid, "alice", replace(right, link=self.alice.links[0])),
            (ChainInvalid, "alice", replace(right, link=self.alice.links[2])),
            (ChainInvalid, "alice", replace(right, position=2, link=self.alice.links[2])),
            (ChainInvalid, "alice", replace(right, link=Signed(b"{}", b""))),
            (SignatureInvalid, "alice", replace(right, link=forged)),
        ):
            await self.raises(error, self.revoke(junk, user))
        self.assertEqual((len(await self.store.log_leaves(0, 100)), self.gone), (before, []))
        await self.logs_in(self.laptop)
        await self.revoke(right)

    async def test_two_at_once(self) -> None:
        """Each of two devices revokes the other: one of them is late, and the account keeps a device."""
        await self.begin()
        first = self.alice.revoke(self.laptop)
        self.alice.links.pop()
        second = self.alice.revoke(self.alice.device)
        await self.revoke(first)
        await self.raises(ChainInvalid, self.revoke(second))
        self.assertEqual(self.gone, [(self.laptop.id, "device-revoked")])

    async def test_asked_for_again_because_the_answer_was_lost(self) -> None:
        await self.begin()
        request = self.alice.revoke(self.laptop)
        for _ in range(2):
            await self.revoke(request)
        self.assertEqual(self.gone, [(self.laptop.id, "device-revoked")] * 2)
        self.assertEqual(len((await self.store.links(["alice"]))["alice"]), 4)

    async def test_when_nobody_knows_whether_it_was_done_the_store_is_asked(self) -> None:
        await self.begin()
        await self.logs_in(self.laptop)
        revoke_device = self.store.revoke_device

        async def cut_off(*arguments: Any) -> None:
            await revoke_device(*arguments)
            raise Busy

        with mock.patch.object(self.store, "revoke_device", cut_off, create=True):
            await self.raises(Busy, self.revoke(self.alice.revoke(self.laptop)))
        self.assertEqual(self.gone, [(self.laptop.id, "busy")])
        await self.raises(LoginFailed, self.logs_in(self.laptop))

    async def test_a_login_that_has_looked_before_looks_again(self) -> None:
        await self.begin()
        request, device = self.alice.revoke(self.laptop), self.store.device

        async def slow(name: str) -> Any:
            found = await device(name)
            if not self.gone:
                await self.revoke(request)
            return found

        with mock.patch.object(self.store, "device", slow, create=True):
            await self.raises(LoginFailed, self.logs_in(self.laptop))
        await self.raises(LoginFailed, self.logs_in(self.laptop))

    async def test_there_is_always_room_to_revoke(self) -> None:
        await self.begin()
        with mock.patch.object(accounts, "MAX_CHAIN", 6):
            tablet, request = self.alice.add_device("tablet")
            await self.accounts.add_device("alice", request)
            await self.raises(RequestError, self.accounts.add_device("alice", self.alice.add_device("one more")[1]))
            self.alice.links.pop()
            for device in (tablet, self.laptop):
                await self.revoke(self.alice.revoke(device))
            await self.raises(RequestError, self.accounts.add_device("alice", self.alice.add_device("one more")[1]))

    async def test_the_longest_chain_that_is_taken_fits_in_an_answer(self) -> None:
        await self.begin()
        person = await self.joined("a" * 32)
        [account] = await self.directory.keys([person.user], claim=True)
        genesis, add = account.links
        longest = AccountKeys(person.user, (genesis, *[add] * (MAX_CHAIN - 1)), account.bundles * MAX_DEVICES)
        self.assertLess(len(encode(KeysAnswer(re=2**53 - 1, accounts=(longest,)))), ANSWER_BYTES)
        self.assertLess(ANSWER_BYTES, MAX_LINE)
        self.assertLess(len(encode(account.bundles[0])), BUNDLE_BYTES)

    async def test_long_chains_do_not_all_fit_in_one_answer(self) -> None:
        await self.begin()
        for person in (self.alice, self.bob):
            for position in range(len(person.links), 120):
                device = rows.device(person.user, str(position))
                link, at = Signed(bytes(500), bytes(384)), rows.leaf(position)
                await self.store.add_device(device, position, link, DeviceKeys(), at)
        store: Any = self.store._store
        store._devices_of = {"alice": [], "bob": []}  # as if they were revoked
        for users in (["alice"], ["bob"]):
            self.assertEqual([account.user for account in await self.directory.keys(users, claim=False)], users)
        await self.raises(RequestError, self.directory.keys(["alice", "bob"], claim=True))


class Sessions(SessionCase):
    """What is said on the connections of alice's laptop, of her phone, and of bob."""

    def setUp(self) -> None:
        super().setUp()
        self.person: Person = self.people["alice"]
        self.laptop, request = self.person.add_device("laptop")
        now(self.place.accounts.add_device("alice", request))

    def request(self, peer: Any) -> wire.Revoke:
        revocation = self.person.revoke(self.laptop)
        return wire.Revoke(peer.next_id(), revocation.position, revocation.link)

    def test_the_revoked_device_has_to_go(self) -> None:
        phone, laptop, bob = self.online(self.alice), self.online(self.laptop), self.online(self.bob)
        phone.asks(self.request(phone), wire.Revoked)
        self.assert_ended(laptop, "device-revoked")
        self.assertFalse(self.place.is_attached(self.laptop.id))
        self.assertFalse(phone.is_closed)
        bob.says(bob.send_to(1, self.alice.id, self.laptop.id))
        phone.receives()
        refused = bob.heard[-1]
        self.assertEqual((refused.code, refused.devices), ("unknown-device", (self.laptop.id,)))
        self.assertEqual(phone.messages(), [1])
        answer = bob.asks(wire.KeysRequest(bob.next_id(), ("alice",), claim=True), wire.KeysAnswer)
        self.assertEqual([bundle.device for bundle in answer.accounts[0].bundles], [self.alice.id])

    def test_it_does_not_come_back(self) -> None:
        phone, laptop = self.online(self.alice), self.online(self.laptop)
        phone.asks(self.request(phone), wire.Revoked)
        stranger = OwnDevice("alice", "never added")
        words = []
        for device in (self.laptop, stranger):
            peer = self.peer()
            peer.greets()
            words.append(peer.refused(peer.login(device)))
            self.assert_ended(peer, "login-failed")
        self.assertEqual(words[0], words[1])
        self.assertTrue(laptop.is_closed)

    def test_what_it_was_handed_and_has_not_received_is_not_accepted(self) -> None:
        phone, laptop, bob = self.online(self.alice), self.online(self.laptop), self.online(self.bob)
        self.assertEqual(bob.says(bob.send_to(1, self.laptop.id)), [])
        self.assertEqual(laptop.messages(), [1])
        phone.asks(self.request(phone), wire.Revoked)
        [refused] = [one for one in bob.heard if isinstance(one, wire.Error)]
        self.assertEqual((refused.code, refused.devices), ("unknown-device", (self.laptop.id,)))

    def test_what_it_sent_before_arrives(self) -> None:
        phone, laptop = self.online(self.alice), self.online(self.laptop)
        laptop.says(laptop.send_to(1, self.bob.id))
        phone.asks(self.request(phone), wire.Revoked)
        bob = self.online(self.bob)
        self.assertEqual(
            [(one.device, one.n) for one in bob.heard if isinstance(one, wire.Message)], [(self.laptop.id, 1)]
        )

    def test_a_login_that_was_under_way_is_void(self) -> None:
        self.online(self.laptop).hangs_up()  # it is known
        phone, laptop = self.online(self.alice), self.peer()
        laptop.greets()
        self.place.store.held = True
        self.assertEqual(laptop.says(laptop.login(self.laptop)), [])
        self.place.store.held = False  # for what is asked from here on
        phone.asks(self.request(phone), wire.Revoked)
        self.place.store.release()
        self.assert_ended(laptop, "device-revoked")
        self.assertFalse(self.place.is_attached(self.laptop.id))

    def test_when_nobody_knows_whether_it_was_done_it_has_to_log_in_again(self) -> None:
        phone, laptop = self.online(self.alice), self.online(self.laptop)
        request = self.request(phone)
        self.place.store.away_after = 1  # the links are read
        self.assertEqual(phone.refused(request).code, "busy")
        self.assert_ended(laptop, "busy")
        self.place.store.away_after = None
        again = self.online(self.laptop)  # it was not
        phone.asks(request, wire.Revoked)
        self.assert_ended(again, "device-revoked")

    def test_a_device_may_take_itself_out(self) -> None:
        laptop = self.online(self.laptop)
        laptop.says(self.request(laptop))
        self.assert_ended(laptop, "device-revoked")

    def test_the_account_is_that_of_the_session(self) -> None:
        bob, laptop = self.online(self.bob), self.online(self.laptop)
        self.assertEqual(bob.refused(self.request(bob)).code, "chain-invalid")
        self.assertFalse(laptop.is_closed)

    def test_it_costs_as_much_as_publishing(self) -> None:
        self.assertEqual(COMMANDS[wire.Revoke].cost, COMMANDS[wire.Publish].cost)
