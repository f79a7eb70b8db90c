"""A device for tests of the ratchet, with the server's shelf of its prekeys; and a test case with two of them."""

from __future__ import annotations

from dataclasses import dataclass, field

from twisted.trial.unittest import SynchronousTestCase

from fastchat.identity import prekeys
from fastchat.identity.prekeys import SealKey
from fastchat.protocols.wire import Bundle, Signed
from fastchat_client.ratchet import (
    SUITE,
    Decrypted,
    DeviceAccount,
    OlmSession,
    SealPrivate,
    decrypt,
    open_envelope,
    open_outbound,
    seal,
)
from fastchat_client.unreadable import Reason, Unreadable

KEY = bytes(range(32))
"""Of the pickles."""


@dataclass
class Device:
    """A device with its keys, and the server's shelf with its prekeys."""

    user: str
    account: DeviceAccount = field(default_factory=DeviceAccount.create)
    seals: dict[int, SealPrivate] = field(default_factory=dict)
    sessions: list[OlmSession] = field(default_factory=list)
    """With everybody, the most recently used first."""
    one_time: list[Signed] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.me = self.account.identity(self.user)
        self.rotate_seal()
        self.rotate_fallback()
        self.publish(1)

    def publish(self, count: int) -> None:
        self.one_time += self.account.new_one_time_keys(self.me, count)
        self.account.mark_published()

    def rotate_fallback(self) -> None:
        self.fallback = self.account.new_fallback(self.me)
        self.account.mark_published()

    def rotate_seal(self) -> None:
        private = SealPrivate.generate(len(self.seals) + 1, 1_700_000_000_000)
        self.seals[private.id] = private
        self.seal = private.statement(self.account, self.me)

    def bundle(self) -> Bundle:
        one_time = self.one_time.pop(0) if self.one_time else None
        return Bundle(device=self.me.device, seal=self.seal, fallback=self.fallback, one_time=one_time)

    def seal_key(self) -> SealKey:
        return prekeys.verify_seal(self.me, self.seal)

    def open(self, peer: Device) -> OlmSession:
        session = open_outbound(self.account, peer.me, peer.bundle())
        self.sessions.insert(0, session)
        return session

    def write(self, peer: Device, plain: bytes) -> bytes:
        known = [session for session in self.sessions if session.peer == peer.me.curve25519]
        return seal(known[0] if known else self.open(peer), self.me, peer.me, peer.seal_key(), plain)

    def receive(self, body: bytes) -> Decrypted:
        decrypted = decrypt(self.account, open_envelope(self.seals, self.me, body), self.sessions)
        if not decrypted.is_new:
            self.sessions.remove(decrypted.session)
        self.sessions.insert(0, decrypted.session)
        return decrypted

    def read(self, body: bytes) -> bytes:
        return self.receive(body).plaintext

    def restart(self) -> None:
        """Everything through its stored form."""
        self.account = DeviceAccount.load(self.account.dump(KEY), KEY)
        self.sessions = [OlmSession.load(session.dump(KEY), KEY, session.peer) for session in self.sessions]
        self.seals = {seal_id: SealPrivate.from_bytes(private.to_bytes()) for seal_id, private in self.seals.items()}


class TwoDevices(SynchronousTestCase):
    def setUp(self) -> None:
        self.alice, self.bob = Device("alice"), Device("bob")

    def unreadable(self, device: Device, body: bytes, reason: Reason) -> Unreadable:
        error: Unreadable = self.assertRaises(Unreadable, device.read, body)
        self.assertEqual(error.reason, reason)
        return error

    def meet(self) -> None:
        self.assertEqual(self.bob.read(self.alice.write(self.bob, b"hello")), b"hello")
        self.assertEqual(self.alice.read(self.bob.write(self.alice, b"hi")), b"hi")


def sealed_for(device: Device, inner: bytes) -> bytes:
    """An envelope around anything, as a stranger could make it."""
    info = b"FastChat-v1|env|" + f"{device.me.user}|{device.me.device}|1".encode()
    return b"\x01\x00\x00\x00\x01" + SUITE.encrypt(inner, device.seals[1].hpke.public_key(), info=info)
