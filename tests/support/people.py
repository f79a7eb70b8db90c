"""People for tests: real RSA roots, real device keys, real signatures; what a client would say, as wire messages."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from scramp import ScramClient, ScramMechanism

from fastchat.identity import login, prekeys
from fastchat.identity.links import DeviceIdentity, device_id, sign_add_device, sign_genesis, sign_revoke_device
from fastchat.identity.root import RootKey
from fastchat.identity.scram import CHANNEL_BINDING, MECHANISM, SCRAM_ITERATIONS
from fastchat.protocols.wire import (
    AccountKeys,
    AddDevice,
    DeviceKeys,
    Login,
    Register,
    Revoke,
    ScramVerifier,
    Signed,
)
from tests.support.keys import root_key

AT = 1_700_000_000_000
PASSWORD = "correct horse"  # noqa: S105
_roots: dict[str, RootKey] = {}
_beginnings: dict[str, list[Signed]] = {}


def root_of(user: str) -> RootKey:
    """The same root for the same name in the whole run."""
    return _roots.setdefault(user, root_key(len(_roots)))


def verifier_of(password: str, salt: bytes | None = None, iterations: int = SCRAM_ITERATIONS) -> ScramVerifier:
    info = ScramMechanism(MECHANISM).make_auth_info(password, iterations, salt)
    return ScramVerifier(salt=info[0], stored_key=info[1], server_key=info[2], iterations=info[3])


def scram_client(user: str, password: str, end_point: bytes) -> ScramClient:
    return ScramClient([MECHANISM], user, password, channel_binding=(CHANNEL_BINDING, end_point))


class OwnDevice:
    """One device of an account: its keys, and what it signs. The same `seed` makes the same Ed25519 key."""

    def __init__(self, user: str, seed: str) -> None:
        self.ed25519 = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(f"{user} {seed}".encode()).digest())
        public = self.ed25519.public_key().public_bytes_raw()
        curve25519 = hashlib.sha256(f"{user} {seed} curve".encode()).digest()
        self.identity = DeviceIdentity(user, device_id(public, curve25519), public, curve25519)

    @property
    def id(self) -> str:
        return self.identity.device

    def one_time(self, count: int) -> tuple[Signed, ...]:
        return tuple(
            prekeys.sign_one_time(
                self.ed25519.sign, self.identity, X25519PrivateKey.generate().public_key().public_bytes_raw()
            )
            for _ in range(count)
        )

    def fallback(self) -> Signed:
        return prekeys.sign_fallback(self.ed25519.sign, self.identity, bytes(range(32)))

    def seal(self, number: int = 1) -> Signed:
        public = MLKEM768PrivateKey.generate().public_key().public_bytes_raw()
        return prekeys.sign_seal(self.ed25519.sign, self.identity, number, public, bytes(range(32)), AT)

    def keys(self, one_time: int = 3) -> DeviceKeys:
        return DeviceKeys(one_time=self.one_time(one_time), fallback=self.fallback(), seal=self.seal())

    def login(self, exporter: bytes, challenge: bytes) -> Login:
        statement = login.statement(exporter, challenge, self.identity.user, self.id)
        return Login(id=1, user=self.identity.user, device=self.id, signature=self.ed25519.sign(statement))


class Person:
    """An account with its root and its chain, as its own client has them. Persons of one name begin alike."""

    def __init__(self, user: str) -> None:
        self.user = user
        self.root = root_of(user)
        self.device = OwnDevice(user, "first")
        if user not in _beginnings:
            genesis = [sign_genesis(self.root, user)]
            _beginnings[user] = [*genesis, self.link(self.device, genesis)]
        self.links = list(_beginnings[user])

    def link(self, device: OwnDevice, links: Sequence[Signed] | None = None) -> Signed:
        """The link that adds `device` after `links` (all there are so far)."""
        identity = device.identity
        return sign_add_device(
            self.root, self.links if links is None else links, self.user, identity.ed25519, identity.curve25519, AT
        )

    def register(self, invite: str, password: str = PASSWORD, one_time: int = 3) -> Register:
        return Register(
            id=1,
            user=self.user,
            invite=invite,
            verifier=verifier_of(password),
            links=tuple(self.links[:2]),
            keys=self.device.keys(one_time),
        )

    def add_device(self, seed: str) -> tuple[OwnDevice, AddDevice]:
        """One more device, and the request that adds it."""
        device = OwnDevice(self.user, seed)
        link = self.link(device)
        request = AddDevice(id=1, position=len(self.links), link=link, keys=device.keys())
        self.links.append(link)
        return device, request

    def revoke(self, device: OwnDevice) -> Revoke:
        """The request that revokes `device`."""
        link = sign_revoke_device(self.root, self.links, self.user, device.id, AT)
        request = Revoke(id=1, position=len(self.links), link=link)
        self.links.append(link)
        return request

    def is_shown_by(self, account: AccountKeys) -> bool:
        """Whether these are this person's links."""
        return account.user == self.user and list(account.links) == self.links
