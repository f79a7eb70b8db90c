"""Registration and device login, against the memory store: what is let in, and all that is not."""

from __future__ import annotations

import msgspec

from fastchat import accounts
from fastchat.accounts import Accounts
from fastchat.errors import (
    Busy,
    ChainInvalid,
    DeviceTaken,
    FastChatError,
    InviteInvalid,
    LoginFailed,
    NameNotAllowed,
    NameTaken,
    RequestError,
    SignatureInvalid,
    UnknownUser,
)
from fastchat.identity.invite import invite_digest
from fastchat.identity.keylog import leaf
from fastchat.identity.links import replay, sign_genesis
from fastchat.protocols.wire import DeviceKeys, Login, Register, Signed
from fastchat.store import Device
from tests.support.people import OwnDevice, Person, verifier_of
from tests.support.rules import INVITE, LOG_KEY, RulesCase

EXPORTER = b"x" * 32
CHALLENGE = b"c" * 32


class Registration(RulesCase):
    async def refused(self, error: type[FastChatError], request: Register) -> None:
        """`request` is refused with `error` exactly, and leaves nothing behind."""
        before = len(await self.store.log_leaves(0, 10_000))
        await self.raises(error, self.accounts.register(request))
        self.assertEqual(len(await self.store.log_leaves(0, 10_000)), before)

    async def test_an_account_is_there_with_everything(self) -> None:
        await self.begin()
        alice = Person("alice")
        request = alice.register(INVITE)
        account = await self.accounts.register(request)
        self.assertEqual(account, await self.store.account("alice"))
        self.assertEqual(account.rsa_public_key, alice.root.public_pem)
        self.assertEqual(account.verifier, request.verifier)
        device = await self.store.device(alice.device.id)
        self.assertEqual((device.user, device.ed25519), ("alice", alice.device.identity.ed25519))
        chain = replay("alice", (await self.store.links(["alice"]))["alice"])
        self.assertEqual(list(chain.devices), [alice.device.id])
        self.assertEqual(await self.store.one_time_keys(alice.device.id), 3)
        leaves = await self.store.log_leaves(0, 10)
        self.assertEqual(list(leaves), [leaf("alice", n, link) for n, link in enumerate(alice.links)])

    async def test_name_not_allowed(self) -> None:
        await self.begin()
        request = Person("alice").register(INVITE)
        for name in ("Alice", "a", "al ice", "alice\x00", ""):
            await self.refused(NameNotAllowed, msgspec.structs.replace(request, user=name))

    async def test_name_taken(self) -> None:
        await self.begin()
        await self.accounts.register(Person("alice").register(INVITE))
        await self.refused(NameTaken, Person("alice").register(INVITE))

    async def test_invite_unknown_used_up_expired(self) -> None:
        await self.begin()
        await self.store.add_invite(invite_digest("once"), 1, None)
        await self.store.add_invite(invite_digest("long ago"), None, 1)
        alice, bob = Person("alice"), Person("bob")
        await self.refused(InviteInvalid, alice.register("made up"))
        await self.refused(InviteInvalid, alice.register(""))
        await self.refused(InviteInvalid, alice.register("long ago"))
        await self.accounts.register(alice.register("once"))
        await self.refused(InviteInvalid, bob.register("once"))
        await self.accounts.register(bob.register(INVITE))

    async def test_without_an_invite_no_signature_is_looked_at(self) -> None:
        await self.begin()
        request = Person("alice").register("made up")
        forged = tuple(Signed(link.body, bytes(len(link.signature))) for link in request.links)
        looked: list[str] = []
        self.patch(accounts, "replay", lambda user, links: looked.append(user))
        await self.refused(InviteInvalid, msgspec.structs.replace(request, links=forged))
        self.assertEqual(looked, [])

    async def test_links_of_somebody_else(self) -> None:
        await self.begin()
        request = Person("alice").register(INVITE)
        await self.refused(ChainInvalid, msgspec.structs.replace(request, user="bob"))
        other = Person("bob").links
        await self.refused(ChainInvalid, msgspec.structs.replace(request, links=(request.links[0], other[1])))

    async def test_junk_links(self) -> None:
        await self.begin()
        request = Person("alice").register(INVITE)
        genesis, added = request.links
        forged = Signed(body=added.body, signature=bytes(len(added.signature)))
        for error, links in (
            (ChainInvalid, ()),
            (ChainInvalid, (genesis,)),
            (ChainInvalid, (added, genesis)),
            (ChainInvalid, (genesis, genesis)),
            (ChainInvalid, (genesis, added, added)),
            (ChainInvalid, (Signed(b"{}", b""), added)),
            (ChainInvalid, (genesis, Signed(b"\xff\x00", b"\x00"))),
            (SignatureInvalid, (genesis, forged)),
            (SignatureInvalid, (Signed(genesis.body, added.signature), added)),
        ):
            await self.refused(error, msgspec.structs.replace(request, links=links))

    async def test_more_than_one_device(self) -> None:
        await self.begin()
        alice = Person("alice")
        request = alice.register(INVITE)
        alice.add_device("second")
        await self.refused(ChainInvalid, msgspec.structs.replace(request, links=tuple(alice.links)))

    async def test_keys_missing(self) -> None:
        await self.begin()
        request = Person("alice").register(INVITE)
        keys = request.keys
        for missing in (
            DeviceKeys(),
            DeviceKeys(one_time=keys.one_time, fallback=keys.fallback),
            DeviceKeys(one_time=keys.one_time, seal=keys.seal),
            DeviceKeys(fallback=keys.fallback, seal=keys.seal),
        ):
            await self.refused(RequestError, msgspec.structs.replace(request, keys=missing))

    async def test_keys_that_the_device_did_not_sign_as_such(self) -> None:
        await self.begin()
        request = Person("alice").register(INVITE)
        keys, others = request.keys, OwnDevice("alice", "other").keys()
        for changed in (
            {"one_time": (*keys.one_time, others.one_time[0])},
            {"one_time": (keys.one_time[0], keys.one_time[0])},
            {"one_time": (keys.fallback,)},
            {"fallback": others.fallback},
            {"fallback": keys.one_time[0]},
            {"seal": others.seal},
            {"seal": keys.fallback},
            {"seal": Signed(keys.seal.body, bytes(64))},
            {"fallback": Signed(b"", b"")},
        ):
            junk = msgspec.structs.replace(keys, **changed)
            await self.refused(SignatureInvalid, msgspec.structs.replace(request, keys=junk))

    async def test_verifiers_all_look_alike(self) -> None:
        """One of another shape would tell its account from one that is made up."""
        await self.begin()
        request = Person("alice").register(INVITE)
        for verifier in (verifier_of("p", salt=b"s" * 16), verifier_of("p", iterations=10_000)):
            await self.refused(RequestError, msgspec.structs.replace(request, verifier=verifier))

    async def test_device_taken(self) -> None:
        """A device's id is the hash of its keys, so only its owner can put it into a second account."""
        await self.begin()
        alice, bob = Person("alice"), Person("bob")
        await self.accounts.register(alice.register(INVITE))
        shared = bob.device
        shared.ed25519 = alice.device.ed25519
        shared.identity = msgspec.structs.replace(alice.device.identity, user="bob")
        bob.links = [sign_genesis(bob.root, "bob")]
        bob.links.append(bob.link(shared))
        await self.refused(DeviceTaken, bob.register(INVITE))

    async def test_database_away(self) -> None:
        await self.begin()
        self.store.away = True
        await self.raises(Busy, self.accounts.register(Person("alice").register(INVITE)))


class MoreDevices(RulesCase):
    async def test_added(self) -> None:
        await self.begin()
        alice = Person("alice")
        await self.accounts.register(alice.register(INVITE))
        laptop, request = alice.add_device("laptop")
        device = await self.accounts.add_device("alice", request)
        self.assertEqual(device, await self.store.device(laptop.id))
        self.assertEqual(len(await self.store.log_leaves(0, 10)), 3)
        self.assertEqual((await self.store.log_leaves(2, 1))[0], leaf("alice", 2, alice.links[2]))
        self.assertEqual(
            await self.accounts.check_login(laptop.login(EXPORTER, CHALLENGE), EXPORTER, CHALLENGE), device
        )

    async def test_refused(self) -> None:
        await self.begin()
        alice, bob = Person("alice"), Person("bob")
        for person in (alice, bob):
            await self.accounts.register(person.register(INVITE))
        _, request = alice.add_device("laptop")
        _, bobs = bob.add_device("laptop")
        replace = msgspec.structs.replace
        for error, user, junk in (
            (UnknownUser, "carol", request),
            (ChainInvalid, "bob", request),
            (ChainInvalid, "alice", replace(request, link=bobs.link)),
            (ChainInvalid, "alice", replace(request, position=1)),
            (ChainInvalid, "alice", replace(request, position=3)),
            (ChainInvalid, "alice", replace(request, link=alice.links[0])),
            (ChainInvalid, "alice", replace(request, link=alice.links[1])),
            (SignatureInvalid, "alice", replace(request, link=Signed(request.link.body, bobs.link.signature))),
            (SignatureInvalid, "alice", replace(request, keys=bobs.keys)),
            (RequestError, "alice", replace(request, keys=DeviceKeys(one_time=request.keys.one_time))),
        ):
            await self.raises(error, self.accounts.add_device(user, junk))
        self.assertEqual(len(await self.store.log_leaves(0, 10_000)), 4)
        await self.accounts.add_device("alice", request)

    async def test_two_at_once(self) -> None:
        """Two devices that saw the same chain: one is added, the other signs anew."""
        await self.begin()
        alice = Person("alice")
        await self.accounts.register(alice.register(INVITE))
        _, first = alice.add_device("laptop")
        alice.links.pop()
        _, second = alice.add_device("desktop")
        await self.accounts.add_device("alice", first)
        await self.raises(ChainInvalid, self.accounts.add_device("alice", second))

    async def test_not_without_end(self) -> None:
        await self.begin()
        alice = Person("alice")
        await self.accounts.register(alice.register(INVITE))
        self.accounts = Accounts(self.store, LOG_KEY, max_devices=3)
        for number in (2, 3):
            await self.accounts.add_device("alice", alice.add_device(f"device {number}")[1])
        await self.raises(RequestError, self.accounts.add_device("alice", alice.add_device("one too many")[1]))


class DeviceLogin(RulesCase):
    async def begin(self) -> None:
        await super().begin()
        self.alice, self.bob = Person("alice"), Person("bob")
        for person in (self.alice, self.bob):
            await self.accounts.register(person.register(INVITE))
        self.store.calls.clear()

    async def fails(self, request: Login, exporter: bytes = EXPORTER, challenge: bytes = CHALLENGE) -> str:
        return str(await self.raises(LoginFailed, self.accounts.check_login(request, exporter, challenge)))

    async def test_logged_in(self) -> None:
        await self.begin()
        for person in (self.alice, self.bob):
            request = person.device.login(EXPORTER, CHALLENGE)
            device = await self.accounts.check_login(request, EXPORTER, CHALLENGE)
            self.assertEqual((device.user, device.device), (person.user, person.device.id))

    async def test_everything_wrong_looks_the_same(self) -> None:
        await self.begin()
        right = self.alice.device.login(EXPORTER, CHALLENGE)
        replace = msgspec.structs.replace
        stranger = OwnDevice("alice", "never added")
        impostor = OwnDevice("bob", "first")
        impostor.identity = replace(impostor.identity, user="alice")
        wrong = [
            replace(right, signature=bytes(64)),
            replace(right, signature=b""),
            replace(right, user="bob"),
            replace(right, user="nobody"),
            replace(right, device="0" * 32),
            replace(right, device=self.bob.device.id),
            replace(self.bob.device.login(EXPORTER, CHALLENGE), user="alice"),
            replace(self.bob.device.login(EXPORTER, CHALLENGE), user="alice", device=self.alice.device.id),
            stranger.login(EXPORTER, CHALLENGE),
            impostor.login(EXPORTER, CHALLENGE),
            Person("carol").device.login(EXPORTER, CHALLENGE),
        ]
        self.assertEqual(len({await self.fails(request) for request in wrong}), 1)

    async def test_a_replayed_signature(self) -> None:
        """Good on its own connection, and on no other."""
        await self.begin()
        request = self.alice.device.login(EXPORTER, CHALLENGE)
        await self.fails(request, challenge=b"d" * 32)
        await self.fails(request, exporter=b"y" * 32)
        await self.fails(request, exporter=CHALLENGE, challenge=EXPORTER)
        await self.fails(request, exporter=b"")
        await self.accounts.check_login(request, EXPORTER, CHALLENGE)

    async def test_a_known_device_costs_no_query(self) -> None:
        await self.begin()
        self.accounts = Accounts(self.store, LOG_KEY)
        for _ in range(3):
            await self.accounts.check_login(self.alice.device.login(EXPORTER, CHALLENGE), EXPORTER, CHALLENGE)
        self.assertEqual(self.store.calls, {"device": 1})

    async def test_while_the_database_is_away(self) -> None:
        await self.begin()
        self.accounts = Accounts(self.store, LOG_KEY)
        await self.accounts.check_login(self.alice.device.login(EXPORTER, CHALLENGE), EXPORTER, CHALLENGE)
        self.store.away = True
        await self.accounts.check_login(self.alice.device.login(EXPORTER, CHALLENGE), EXPORTER, CHALLENGE)
        await self.fails(msgspec.structs.replace(self.alice.device.login(EXPORTER, CHALLENGE), signature=bytes(64)))
        unseen = self.bob.device.login(EXPORTER, CHALLENGE)
        await self.raises(Busy, self.accounts.check_login(unseen, EXPORTER, CHALLENGE))

    async def test_devices_that_have_just_registered_are_known(self) -> None:
        await self.begin()
        self.store.away = True
        await self.accounts.check_login(self.bob.device.login(EXPORTER, CHALLENGE), EXPORTER, CHALLENGE)

    async def test_only_so_many_are_remembered(self) -> None:
        await self.begin()
        self.accounts = Accounts(self.store, LOG_KEY, devices_kept=1)
        for _ in range(2):
            for person in (self.alice, self.bob):
                await self.accounts.check_login(person.device.login(EXPORTER, CHALLENGE), EXPORTER, CHALLENGE)
        self.assertEqual(self.store.calls["device"], 4)

    async def test_unknown_devices_are_not_remembered(self) -> None:
        """The one that registers a moment later gets in."""
        await self.begin()
        carol = Person("carol")
        await self.fails(carol.device.login(EXPORTER, CHALLENGE))
        await Accounts(self.store, LOG_KEY).register(carol.register(INVITE))
        device = await self.accounts.check_login(carol.device.login(EXPORTER, CHALLENGE), EXPORTER, CHALLENGE)
        self.assertIsInstance(device, Device)
