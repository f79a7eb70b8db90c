"""Rows for the store: well-formed, made up from a few words, signed by nobody. The store verifies no signature."""

from __future__ import annotations

import hashlib
from itertools import count

from fastchat.protocols.wire import DeviceKeys, ScramVerifier, Signed
from fastchat.store import Account, Device, Mail, Store

_orders = count(1)

INVITE = hashlib.sha256(b"token").digest()


def octets(*words: object) -> bytes:
    """32 bytes that stand for `words`; every value of a byte is among those of a few."""
    return hashlib.sha256(repr(words).encode()).digest()


def signed(*words: object) -> Signed:
    return Signed(octets("body", *words), octets("signature", *words))


def account(user: str) -> Account:
    verifier = ScramVerifier(octets(user, "salt"), 4096, octets(user, "stored"), octets(user, "server"))
    return Account(user, octets(user, "root"), verifier)


def device(user: str, name: str = "first") -> Device:
    return Device(octets(user, name).hex()[:32], user, octets(user, name, "ed"), octets(user, name, "curve"))


def leaf(*words: object) -> bytes:
    """72 bytes."""
    return octets(*words) + octets("more", *words) + b"\0" * 8


def keys(owner: str, one_time: int = 3, first: int = 0) -> DeviceKeys:
    """`one_time` keys, numbered from `first`."""
    numbered = tuple(signed(owner, "one time", number) for number in range(first, first + one_time))
    return DeviceKeys(numbered, signed(owner, "fallback"), signed(owner, "seal"))


async def register(store: Store, user: str, one_time: int = 3, invite: bytes = INVITE) -> Device:
    """An account with its first device, its two links and their leaves."""
    first = device(user)
    links = [signed(user, "genesis"), signed(user, "add")]
    leaves = [leaf(user, 0), leaf(user, 1)]
    await store.register(account(user), first, links, keys(user, one_time), leaves, invite)
    return first


def mail(
    recipient: Device, n: int, body: bytes = b'"body"', sender: Device | None = None, order: int | None = None
) -> Mail:
    """Mail of the submission `order`; without it, of one of its own that came after all others."""
    sender = sender or device("sender")
    order = next(_orders) if order is None else order
    return Mail(recipient.device, sender.user, sender.device, n, 1_700_000_000_000 + n, body, order)
