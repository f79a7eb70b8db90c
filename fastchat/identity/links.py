"""The links of an account: a hash-chained list of statements, each signed by the account's RSA root.

The first link (genesis) names the root; every later one adds a device, or revokes one for good. A link names its
account, its position and the hash of the link before it, so none can be dropped, moved, repeated or carried to another
account. It knows no server: a chain is the same whoever hands it over. Signatures: RSA over `FastChat-v1|link|` and the
exact body.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Annotated

import msgspec
from msgspec import Meta

from fastchat.errors import ChainInvalid, NameNotAllowed
from fastchat.identity import root as roots
from fastchat.identity.names import check_name
from fastchat.identity.root import CONTEXT, RootKey
from fastchat.identity.statements import Key32, Millis, NotAStatement, encode, statement_decoder
from fastchat.protocols.wire import DeviceId, Id, Signed

MAX_LINKS = 1000
"""Of one account. Checking one costs under a millisecond."""
_LINK = b"link"


class Genesis(msgspec.Struct, tag_field="t", tag="genesis", frozen=True, forbid_unknown_fields=True):
    """Link 0. `prev` is empty; `rsa` is the root's public half, PKCS#1 PEM."""

    user: str
    position: Id
    prev: Annotated[bytes, Meta(max_length=0)]
    rsa: Annotated[str, Meta(max_length=1024)]


class AddDevice(msgspec.Struct, tag_field="t", tag="add_device", frozen=True, forbid_unknown_fields=True):
    """A later link: this device speaks for the account. `prev` is SHA-256 of the previous link's body; `device` must be
    `device_id` of the keys; `at` is for display."""

    user: str
    position: Id
    prev: Key32
    device: DeviceId
    ed25519: Key32
    curve25519: Key32
    at: Millis


class RevokeDevice(msgspec.Struct, tag_field="t", tag="revoke_device", frozen=True, forbid_unknown_fields=True):
    """A later link: this device speaks for the account no more, and never will. It is not the only one there is; `prev`
    and `at` as above."""

    user: str
    position: Id
    prev: Key32
    device: DeviceId
    at: Millis


Link = Genesis | AddDevice | RevokeDevice
"""The statement in a link."""


class DeviceIdentity(msgspec.Struct, frozen=True):
    """A device as its account's chain has it: the only source of keys that is believed."""

    user: str
    device: str
    """32 hex digits."""
    ed25519: bytes
    curve25519: bytes
    """32 bytes each."""


@dataclass(frozen=True, slots=True)
class Chain:
    """What a valid list of links says."""

    user: str
    root_pem: bytes
    devices: Mapping[str, DeviceIdentity]
    """By device id, in the order in which they were added: those that speak for the account."""
    revoked: Mapping[str, DeviceIdentity]
    """Those that did: what they signed at that time is still to be verified."""
    length: int
    """Links."""
    head: bytes
    """SHA-256 of the last link's body."""


_decode: Callable[[bytes], Link] = statement_decoder(Link)


def device_id(ed25519: bytes, curve25519: bytes) -> str:
    """A device's id, 32 hex digits, from its two public keys of 32 bytes: a device cannot choose its name, and none can
    take another's."""
    return hashlib.sha256(CONTEXT + b"device|" + ed25519 + curve25519).digest()[:16].hex()


def sign_genesis(root: RootKey, user: str) -> Signed:
    """The first link of a new account. Raises `NameNotAllowed`."""
    return _sign(root, Genesis(user=check_name(user), position=0, prev=b"", rsa=root.public_pem.decode("ascii")))


def sign_add_device(
    root: RootKey, links: Sequence[Signed], user: str, ed25519: bytes, curve25519: bytes, at: int
) -> Signed:
    """The link that comes after `links` and adds the device with these keys; `at` in milliseconds since 1970. Raises
    `ChainInvalid` or `SignatureInvalid` if `links` are not a chain of this root, or the device cannot be added."""
    chain = replay(user, links)
    link = _sign(
        root,
        AddDevice(
            user=user,
            position=chain.length,
            prev=chain.head,
            device=device_id(ed25519, curve25519),
            ed25519=ed25519,
            curve25519=curve25519,
            at=at,
        ),
    )
    extend(chain, link)
    return link


def sign_revoke_device(root: RootKey, links: Sequence[Signed], user: str, device: str, at: int) -> Signed:
    """The link that comes after `links` and revokes `device`; `at` in milliseconds since 1970. Raises `ChainInvalid` or
    `SignatureInvalid` if `links` are not a chain of this root, or the device cannot be revoked."""
    chain = replay(user, links)
    link = _sign(root, RevokeDevice(user=user, position=chain.length, prev=chain.head, device=device, at=at))
    extend(chain, link)
    return link


def replay(user: str, links: Sequence[Signed]) -> Chain:
    """What the whole chain of `user` says, from its genesis on. Raises `ChainInvalid` or `SignatureInvalid`, and
    nothing else, whatever the bytes."""
    if not links:
        raise ChainInvalid("an account has at least one link")
    chain = _begin(user, links[0])
    for link in links[1:]:
        chain = extend(chain, link)
    return chain


def extend(chain: Chain, link: Signed) -> Chain:
    """`chain` with one more link. Raises as `replay` does."""
    if chain.length >= MAX_LINKS:
        raise ChainInvalid(f"an account has at most {MAX_LINKS} links")
    statement = read(link)
    if isinstance(statement, Genesis):
        raise ChainInvalid("the genesis can only be the first link")
    if (statement.user, statement.position, statement.prev) != (chain.user, chain.length, chain.head):
        raise ChainInvalid("a link does not follow on the one before it")
    changed = _added(chain, statement) if isinstance(statement, AddDevice) else _revoked(chain, statement)
    roots.verify(chain.root_pem, _LINK, link.body, link.signature)
    return replace(changed, length=chain.length + 1, head=hashlib.sha256(link.body).digest())


def read(link: Signed) -> Link:
    """What a link says, believed by nobody yet. Raises `ChainInvalid`."""
    try:
        return _decode(link.body)
    except NotAStatement as error:
        raise ChainInvalid(f"a link is of no known kind: {error}") from None


def _added(chain: Chain, statement: AddDevice) -> Chain:
    if statement.device != device_id(statement.ed25519, statement.curve25519):
        raise ChainInvalid("a device's id does not match its keys")
    if statement.device in chain.devices:
        raise ChainInvalid("a device is added twice")
    if statement.device in chain.revoked:
        raise ChainInvalid("a device that was revoked is added again")
    added = DeviceIdentity(chain.user, statement.device, statement.ed25519, statement.curve25519)
    return replace(chain, devices=MappingProxyType({**chain.devices, added.device: added}))


def _revoked(chain: Chain, statement: RevokeDevice) -> Chain:
    gone = chain.devices.get(statement.device)
    if statement.device in chain.revoked:
        raise ChainInvalid("a device is revoked twice")
    if gone is None:
        raise ChainInvalid("a device is revoked that the account does not have")
    if len(chain.devices) == 1:
        raise ChainInvalid("the only device of an account cannot be revoked: add another one first")
    left = {name: device for name, device in chain.devices.items() if name != gone.device}
    return replace(
        chain, devices=MappingProxyType(left), revoked=MappingProxyType({**chain.revoked, gone.device: gone})
    )


def _begin(user: str, link: Signed) -> Chain:
    statement = read(link)
    if not isinstance(statement, Genesis):
        raise ChainInvalid("the first link is not a genesis")
    if (statement.user, statement.position) != (user, 0):
        raise ChainInvalid("this chain belongs to another account")
    try:
        root_pem = statement.rsa.encode("ascii")
        check_name(user)
    except (UnicodeEncodeError, NameNotAllowed):
        raise ChainInvalid("the genesis names no account or no key that there can be") from None
    roots.verify(root_pem, _LINK, link.body, link.signature)
    return Chain(user, root_pem, MappingProxyType({}), MappingProxyType({}), 1, hashlib.sha256(link.body).digest())


def _sign(root: RootKey, statement: Link) -> Signed:
    body = encode(statement)
    return Signed(body=body, signature=root.sign(_LINK, body))
