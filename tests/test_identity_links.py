"""Names and links: which chains are believed, and each way in which one is not."""

from __future__ import annotations

import hashlib
import json
from base64 import b64encode
from collections.abc import Callable
from typing import Any
from unittest import mock

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as some
from twisted.trial.unittest import SynchronousTestCase

from fastchat.errors import ChainInvalid, NameNotAllowed, SignatureInvalid
from fastchat.identity import links
from fastchat.identity.links import (
    AddDevice,
    Chain,
    Genesis,
    RevokeDevice,
    device_id,
    extend,
    replay,
    sign_add_device,
    sign_genesis,
    sign_revoke_device,
)
from fastchat.identity.names import check_name
from fastchat.identity.root import RootKey
from fastchat.protocols.wire import Signed

ROOT = RootKey.generate()
OTHER = RootKey.generate()
KEYS = [Ed25519PrivateKey.from_private_bytes(bytes([i] * 32)).public_key().public_bytes_raw() for i in range(3)]
CURVES = [bytes([100 + i] * 32) for i in range(3)]


def chain_of(user: str, devices: int, root: RootKey = ROOT) -> list[Signed]:
    chain = [sign_genesis(root, user)]
    for i in range(devices):
        chain.append(sign_add_device(root, chain, user, KEYS[i], CURVES[i], 1_700_000_000_000 + i))
    return chain


def id_of(number: int) -> str:
    return device_id(KEYS[number], CURVES[number])


def revoked(chain: list[Signed], number: int, root: RootKey = ROOT) -> list[Signed]:
    return [*chain, sign_revoke_device(root, chain, "alice", id_of(number), 1_800_000_000_000)]


def compact(statement: dict[str, Any]) -> bytes:
    return json.dumps(statement, separators=(",", ":")).encode()


def resigned(link: Signed, change: Callable[[dict[str, Any]], None], root: RootKey = ROOT) -> Signed:
    """`link` with its statement changed and signed again by the holder of the root."""
    statement = json.loads(link.body)
    change(statement)
    body = compact(statement)
    return Signed(body=body, signature=root.sign(b"link", body))


class Names(SynchronousTestCase):
    def test_allowed(self) -> None:
        for name in ("al", "alice", "a.b-c_d", "0x", "a" * 32):
            self.assertEqual(check_name(name), name)

    def test_not_allowed(self) -> None:
        for name in ("", "a", "a" * 33, "Alice", ".al", "al.", "al ", "al\n", "älice", "a|b", "ａlice", "al\ud800x"):
            self.assertRaises(NameNotAllowed, check_name, name)

    @given(some.text())
    @settings(deadline=None)
    def test_any_text(self, name: str) -> None:
        try:
            check_name(name)
        except NameNotAllowed:
            return
        self.assertTrue(name.isascii() and 2 <= len(name) <= 32)


class Valid(SynchronousTestCase):
    def test_what_a_chain_says(self) -> None:
        chain = chain_of("alice", 2)
        said = replay("alice", chain)
        self.assertEqual((said.user, said.root_pem, said.length), ("alice", ROOT.public_pem, 3))
        self.assertEqual(said.head, hashlib.sha256(chain[-1].body).digest())
        self.assertEqual(list(said.devices), [device_id(KEYS[i], CURVES[i]) for i in range(2)])
        first = said.devices[device_id(KEYS[0], CURVES[0])]
        self.assertEqual((first.user, first.ed25519, first.curve25519), ("alice", KEYS[0], CURVES[0]))

    def test_extending_is_replaying(self) -> None:
        chain = chain_of("alice", 2)
        self.assertEqual(extend(replay("alice", chain[:2]), chain[2]), replay("alice", chain))

    def test_what_is_signed_stands_in_the_open(self) -> None:
        genesis, add = chain_of("alice", 1)
        self.assertEqual(
            json.loads(genesis.body),
            {"t": "genesis", "user": "alice", "position": 0, "prev": "", "rsa": ROOT.public_pem.decode()},
        )
        self.assertEqual(
            json.loads(add.body),
            {
                "t": "add_device",
                "user": "alice",
                "position": 1,
                "prev": b64encode(hashlib.sha256(genesis.body).digest()).decode(),
                "device": device_id(KEYS[0], CURVES[0]),
                "ed25519": b64encode(KEYS[0]).decode(),
                "curve25519": b64encode(CURVES[0]).decode(),
                "at": 1_700_000_000_000,
            },
        )

    def test_a_revoked_device_speaks_no_more(self) -> None:
        chain = revoked(chain_of("alice", 3), 1)
        said = replay("alice", chain)
        self.assertEqual((list(said.devices), list(said.revoked)), ([id_of(0), id_of(2)], [id_of(1)]))
        # Its keys are known on: what it signed before is still to be verified.
        self.assertEqual(said.revoked[id_of(1)], replay("alice", chain[:4]).devices[id_of(1)])
        self.assertEqual((said.length, said.head), (5, hashlib.sha256(chain[-1].body).digest()))
        self.assertEqual(extend(replay("alice", chain[:4]), chain[4]), said)

    def test_what_a_revocation_says_stands_in_the_open(self) -> None:
        chain = revoked(chain_of("alice", 2), 0)
        said = {
            "t": "revoke_device",
            "user": "alice",
            "position": 3,
            "prev": b64encode(hashlib.sha256(chain[2].body).digest()).decode(),
            "device": id_of(0),
            "at": 1_800_000_000_000,
        }
        self.assertEqual(json.loads(chain[3].body), said)
        self.assertEqual([type(links.read(link)) for link in chain], [Genesis, AddDevice, AddDevice, RevokeDevice])

    def test_another_device_can_be_added_after_a_revocation(self) -> None:
        chain = revoked(chain_of("alice", 2), 0)
        chain.append(sign_add_device(ROOT, chain, "alice", KEYS[2], CURVES[2], 5))
        chain = revoked(chain, 1)
        said = replay("alice", chain)
        self.assertEqual((list(said.devices), list(said.revoked)), ([id_of(2)], [id_of(0), id_of(1)]))

    def test_a_device_id_is_of_both_keys(self) -> None:
        self.assertRegex(device_id(KEYS[0], CURVES[0]), "^[0-9a-f]{32}$")
        self.assertEqual(len({device_id(key, curve) for key in KEYS for curve in CURVES}), 9)


class Refused(SynchronousTestCase):
    def refuse(self, *chain: Signed, user: str = "alice") -> None:
        self.assertRaises(ChainInvalid, replay, user, chain)

    def test_nothing(self) -> None:
        self.refuse()

    def test_another_accounts_chain(self) -> None:
        self.refuse(*chain_of("bob", 1))

    def test_a_name_that_no_account_has(self) -> None:
        self.assertRaises(NameNotAllowed, sign_genesis, ROOT, "Alice")
        body = chain_of("alice", 0)[0].body.replace(b"alice", b"Alice")
        self.refuse(Signed(body=body, signature=ROOT.sign(b"link", body)), user="Alice")

    def test_a_link_that_is_missing_moved_or_repeated(self) -> None:
        genesis, first, second = chain_of("alice", 2)
        for chain in ([first, second], [genesis, second], [genesis, second, first], [genesis, first, first], [first]):
            self.refuse(*chain)

    def test_a_second_genesis(self) -> None:
        genesis, first = chain_of("alice", 1)
        self.refuse(genesis, genesis)
        prev = b64encode(hashlib.sha256(first.body).digest()).decode()
        self.refuse(genesis, first, resigned(genesis, lambda said: said.update(position=2, prev=prev)))
        self.refuse(genesis, first, resigned(genesis, lambda said: said.update(position=2)))

    def test_a_gap(self) -> None:
        genesis, first = chain_of("alice", 1)
        self.refuse(genesis, resigned(first, lambda said: said.update(position=2)))
        self.refuse(resigned(genesis, lambda said: said.update(position=1)))

    def test_another_past(self) -> None:
        genesis, first = chain_of("alice", 1)
        self.refuse(genesis, resigned(first, lambda said: said.update(prev=b64encode(bytes(32)).decode())))
        self.refuse(genesis, resigned(first, lambda said: said.update(prev="")))

    def test_another_accounts_link(self) -> None:
        genesis, first = chain_of("alice", 1)
        self.refuse(genesis, resigned(first, lambda said: said.update(user="bob")))

    def test_a_device_whose_id_is_not_of_its_keys(self) -> None:
        genesis, first = chain_of("alice", 1)
        self.refuse(genesis, resigned(first, lambda said: said.update(device="0" * 32)))
        self.refuse(genesis, resigned(first, lambda said: said.update(curve25519=b64encode(CURVES[1]).decode())))

    def test_a_device_twice(self) -> None:
        chain = chain_of("alice", 1)
        self.assertRaises(ChainInvalid, sign_add_device, ROOT, chain, "alice", KEYS[0], CURVES[0], 5)

    def test_a_revoked_device_that_is_added_again(self) -> None:
        chain = revoked(chain_of("alice", 2), 0)
        with self.assertRaisesRegex(ChainInvalid, "revoked is added again"):
            sign_add_device(ROOT, chain, "alice", KEYS[0], CURVES[0], 5)
        prev = b64encode(hashlib.sha256(chain[-1].body).digest()).decode()
        self.refuse(*chain, resigned(chain[1], lambda said: said.update(position=4, prev=prev)))

    def test_a_device_that_cannot_be_revoked(self) -> None:
        chain = chain_of("alice", 2)
        for device in (id_of(2), "0" * 32, "", "x" * 32, id_of(0).upper()):
            self.assertRaises(ChainInvalid, sign_revoke_device, ROOT, chain, "alice", device, 5)
        with self.assertRaisesRegex(ChainInvalid, "revoked twice"):
            sign_revoke_device(ROOT, revoked(chain_of("alice", 3), 0), "alice", id_of(0), 5)
        self.assertRaises(SignatureInvalid, sign_revoke_device, OTHER, chain, "alice", id_of(0), 5)

    def test_the_only_device_is_not_revoked(self) -> None:
        for chain, only in ((chain_of("alice", 1), 0), (revoked(chain_of("alice", 2), 0), 1)):
            with self.assertRaisesRegex(ChainInvalid, "add another one first"):
                sign_revoke_device(ROOT, chain, "alice", id_of(only), 5)

    def test_a_revocation_that_is_moved_or_somebody_elses(self) -> None:
        chain = revoked(chain_of("alice", 3), 1)
        for change in ({"position": 5}, {"prev": b64encode(bytes(32)).decode()}, {"user": "bob"}, {"ed25519": "x"}):
            self.refuse(*chain[:4], resigned(chain[4], lambda said, change=change: said.update(change)))  # type: ignore[misc]
        self.refuse(*chain[:3], chain[4])
        self.refuse(*chain, chain[4])
        stolen = Signed(body=chain[4].body, signature=OTHER.sign(b"link", chain[4].body))
        self.assertRaises(SignatureInvalid, replay, "alice", [*chain[:4], stolen])

    def test_unknown_kinds_and_fields(self) -> None:
        genesis, first = chain_of("alice", 1)
        self.refuse(genesis, resigned(first, lambda said: said.update(t="add_everybody")))
        self.refuse(genesis, resigned(first, lambda said: said.update(admin=True)))
        self.refuse(genesis, resigned(first, lambda said: said.pop("at")))

    def test_a_second_spelling_of_the_same_statement(self) -> None:
        genesis, first = chain_of("alice", 1)
        for body in (
            first.body.replace(b'"position":1', b'"position": 1'),
            first.body.replace(b'"position":1', b'"position":9,"position":1'),
            first.body + b"\n",
            compact(dict(reversed(json.loads(first.body).items()))),
        ):
            self.assertNotEqual(body, first.body)
            self.refuse(genesis, Signed(body=body, signature=ROOT.sign(b"link", body)))

    def test_keys_of_the_wrong_size(self) -> None:
        chain = chain_of("alice", 0)
        self.assertRaises(ChainInvalid, sign_add_device, ROOT, chain, "alice", KEYS[0][:31], CURVES[0], 5)
        self.assertRaises(ChainInvalid, sign_add_device, ROOT, chain, "alice", KEYS[0], CURVES[0] + b"x", 5)

    def test_another_root(self) -> None:
        genesis, first = chain_of("alice", 1)
        self.assertRaises(SignatureInvalid, sign_add_device, OTHER, [genesis], "alice", KEYS[0], CURVES[0], 5)
        stolen = Signed(body=first.body, signature=OTHER.sign(b"link", first.body))
        self.assertRaises(SignatureInvalid, replay, "alice", [genesis, stolen])
        claimed = Signed(body=genesis.body, signature=OTHER.sign(b"link", genesis.body))
        self.assertRaises(SignatureInvalid, replay, "alice", [claimed])

    def test_another_context(self) -> None:
        genesis = chain_of("alice", 0)[0]
        elsewhere = Signed(body=genesis.body, signature=ROOT.sign(b"letter", genesis.body))
        self.assertRaises(SignatureInvalid, replay, "alice", [elsewhere])

    def test_a_chain_that_is_too_long(self) -> None:
        chain = chain_of("alice", 2)
        with mock.patch.object(links, "MAX_LINKS", 2):
            self.refuse(*chain)
            replay("alice", chain[:2])


class AnyBytes(SynchronousTestCase):
    chain = revoked(chain_of("alice", 2), 0)

    def replays(self, chain: list[Signed]) -> Chain | None:
        try:
            return replay("alice", chain)
        except (ChainInvalid, SignatureInvalid):
            return None

    @given(some.lists(some.builds(Signed, body=some.binary(), signature=some.binary()), max_size=3))
    @settings(deadline=None)
    def test_as_links(self, chain: list[Signed]) -> None:
        self.assertIsNone(self.replays(chain))
        self.assertIsNone(self.replays(self.chain[:1] + chain) if chain else None)

    @given(some.recursive(some.none() | some.integers() | some.text(), lambda x: some.dictionaries(some.text(), x)))
    @settings(deadline=None, max_examples=15)
    def test_as_signed_json(self, statement: object) -> None:
        body = json.dumps(statement).encode()
        signed = Signed(body=body, signature=ROOT.sign(b"link", body))
        self.assertIsNone(self.replays([*self.chain, signed]))

    def test_deep_nesting(self) -> None:
        self.assertIsNone(self.replays([Signed(body=b'{"t":"genesis","x":' + b"[" * 2000, signature=b"")]))

    @given(some.integers(0, 3), some.booleans(), some.integers(0, 2000), some.integers(1, 255))
    @settings(deadline=None)
    def test_any_changed_byte(self, which: int, in_body: bool, at: int, change: int) -> None:
        chain = list(self.chain)
        body, signature = bytearray(chain[which].body), bytearray(chain[which].signature)
        target = body if in_body else signature
        target[at % len(target)] ^= change
        chain[which] = Signed(body=bytes(body), signature=bytes(signature))
        self.assertIsNone(self.replays(chain))
