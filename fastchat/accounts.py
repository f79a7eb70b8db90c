"""Who may have an account, and who may log in to it: registration, password login, device login.

The rules only: what is well-formed was decided by the wire, what is signed by `identity`, what is unique by the store.
This module knows no connection, and counts and delays nothing; a password, or anything that one can be guessed from
off line, never comes here.
"""

from __future__ import annotations

import hmac
import os
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from scramp import ScramException, ScramMechanism  # type: ignore[import-untyped]

from fastchat.errors import (
    Busy,
    ChainInvalid,
    DeviceRevoked,
    FastChatError,
    InviteInvalid,
    LoginFailed,
    OutOfTurn,
    RequestError,
    SignatureInvalid,
    UnknownUser,
)
from fastchat.identity import login, prekeys
from fastchat.identity.invite import invite_digest
from fastchat.identity.keylog import leaf
from fastchat.identity.links import DeviceIdentity, RevokeDevice, extend, read, replay
from fastchat.identity.names import check_name, is_name
from fastchat.identity.root import CONTEXT
from fastchat.identity.scram import CHANNEL_BINDING, MECHANISM, SCRAM_ITERATIONS, SCRAM_SALT_SIZE
from fastchat.protocols import wire
from fastchat.protocols.wire import DeviceKeys, ScramVerifier, Signed
from fastchat.store import Account, Device, Store

_MECHANISM = ScramMechanism(MECHANISM)
_NOBODY = ScramVerifier(bytes(SCRAM_SALT_SIZE), SCRAM_ITERATIONS, bytes(32), bytes(32))

MAX_DEVICES = 20
"""Of one account: its keys must fit in one answer, and everybody who writes to it pays for each of them."""

MAX_CHAIN = 150
"""Links of one account, which stand in the same answer: some seventy devices in its life. The last places are kept for
revocations, so that each device but one can still be revoked."""


class Accounts:
    """The rules of accounts, over a store. One for all connections of a process.

    `log_key` is the network's own key: from it comes the secret that makes up salts, so that they are the same after
    a restart and on every service. `random_bytes` makes nonces. An account has `max_devices` devices at most;
    `devices_kept` are remembered.
    """

    def __init__(
        self,
        store: Store,
        log_key: Ed25519PrivateKey,
        random_bytes: Callable[[int], bytes] = os.urandom,
        max_devices: int = MAX_DEVICES,
        devices_kept: int = 50_000,
    ) -> None:
        self._store = store
        self._secret = HKDF(hashes.SHA256(), 32, salt=None, info=CONTEXT + b"made-up-salts").derive(
            log_key.private_bytes_raw()
        )
        self._random_bytes = random_bytes
        self._max_devices = max_devices
        # Devices seen since the start, the latest last: their logins cost no query, and go on while the database is
        # away.
        self._devices: OrderedDict[str, Device] = OrderedDict()
        self._forgotten = 0
        self._devices_kept = devices_kept

    async def register(self, request: wire.Register) -> Account:
        """Create an account with its first device, as the request asks.

        Raises `NameNotAllowed`, `RequestError` (keys missing, verifier of another shape), `ChainInvalid`,
        `SignatureInvalid`, `NameTaken`, `InviteInvalid`, `DeviceTaken`; then nothing has changed. Raises `Busy`.
        """
        check_name(request.user)
        _check_verifier(request.verifier)
        _check_complete(request.keys)
        # Before any signature is looked at: who has no invite must not cost more than who has no password.
        if not await self._store.can_invite(invite_digest(request.invite)):
            raise InviteInvalid
        chain = replay(request.user, request.links)
        if len(chain.devices) != 1:
            raise ChainInvalid("an account begins with exactly one device")
        [identity] = chain.devices.values()
        prekeys.verify_all(identity, request.keys)
        account = Account(user=request.user, rsa_public_key=chain.root_pem, verifier=request.verifier)
        device = device_row(identity)
        await self._store.register(
            account,
            device,
            request.links,
            request.keys,
            [leaf(request.user, position, link) for position, link in enumerate(request.links)],
            invite_digest(request.invite),
        )
        self._remember(device)
        return account

    async def add_device(self, user: str, request: wire.AddDevice) -> Device:
        """Add a device to the account of `user`, who has proven the password. That alone adds nothing: the link must
        carry the RSA key's signature.

        Raises `UnknownUser`, `ChainInvalid` (also when the chain has grown: look at it again and sign anew),
        `SignatureInvalid`, `RequestError`, `DeviceTaken`; then nothing has changed. Raises `Busy`.
        """
        _check_complete(request.keys)
        links = (await self._store.links([user])).get(user)
        if links is None:
            raise UnknownUser
        if request.position != len(links):
            raise ChainInvalid(f"the account has {len(links)} links, so the next one is number {len(links)}")
        before = replay(user, links)
        if len(before.devices) >= self._max_devices:
            raise RequestError(f"an account has {self._max_devices} devices at most")
        if len(links) + 1 + len(before.devices) > MAX_CHAIN:
            raise RequestError(f"too many devices have been added to this account: it has {MAX_CHAIN} links at most")
        after = extend(before, request.link)
        added = [identity for name, identity in after.devices.items() if name not in before.devices]
        if len(added) != 1:
            raise ChainInvalid("this link adds no device")
        prekeys.verify_all(added[0], request.keys)
        device = device_row(added[0])
        await self._store.add_device(
            device, request.position, request.link, request.keys, leaf(user, request.position, request.link)
        )
        return device

    async def revoke_device(self, user: str, request: wire.Revoke, gone: Callable[[str, FastChatError], None]) -> None:
        """Take a device of `user`, one of whose devices asks for it, out of the account. That alone does nothing: the
        link must carry the RSA key's signature. What was done before is done.

        `gone(device, DeviceRevoked())` is called as soon as it is; `gone(device, Busy())` when nobody knows whether it
        is. Raises `UnknownUser`, `ChainInvalid` (also when the chain has grown: look at it again and sign anew, and
        when it is the only device), `SignatureInvalid`; then nothing has changed. Raises `Busy`.
        """
        links = (await self._store.links([user])).get(user)
        if links is None:
            raise UnknownUser
        statement = read(request.link)
        if not isinstance(statement, RevokeDevice):
            raise ChainInvalid("this link revokes no device")
        if request.position >= len(links) or links[request.position] != request.link:
            await self._revoke(user, links, request, statement.device, gone)
        gone(statement.device, DeviceRevoked())

    async def _revoke(
        self,
        user: str,
        links: Sequence[Signed],
        request: wire.Revoke,
        device: str,
        gone: Callable[[str, FastChatError], None],
    ) -> None:
        if request.position != len(links):
            raise ChainInvalid(f"the account has {len(links)} links, so the next one is number {len(links)}")
        extend(replay(user, links), request.link)
        try:
            await self._store.revoke_device(
                user, device, request.position, request.link, leaf(user, request.position, request.link)
            )
        except Busy as busy:
            # Committed or not: whoever asks the store later will know, and nobody may go by what was true before.
            gone(device, busy)
            raise

    def forget(self, user: str, device: str, why: FastChatError) -> None:
        """The device was revoked, or may have been: at its next login the store is asked. (A `bus.Watcher`.)"""
        self._forgotten += 1
        self._devices.pop(device, None)

    async def check_login(self, request: wire.Login, exporter: bytes, challenge: bytes) -> Device:
        """The device that logs in, if it signed the challenge of this very connection.

        `exporter`: the connection's tls-exporter (RFC 9266), 32 bytes; `challenge`: what its `welcome` carried, 32
        bytes. Raises `LoginFailed`, the same for whatever is wrong; `Busy` when the database is away and this device
        has not been seen since the start.
        """
        device = self._devices.get(request.device)
        while device is None:
            forgotten = self._forgotten
            found = await self._store.device(request.device)
            if found is None:
                raise LoginFailed
            if forgotten == self._forgotten:  # else it was perhaps this very device, after the store had answered
                device = found
        self._remember(device)
        if device.user != request.user:
            raise LoginFailed
        try:
            statement = login.statement(exporter, challenge, request.user, request.device)
            login.verify(device.ed25519, statement, request.signature)
        except SignatureInvalid:
            raise LoginFailed from None
        return device

    def scram(self, end_point: bytes) -> ScramExchange:
        """A password login on one connection; `end_point` is its tls-server-end-point (RFC 5929)."""
        return ScramExchange(self._verifier, end_point, self._random_bytes)

    async def _verifier(self, user: str) -> tuple[ScramVerifier, bool]:
        """What a password of `user` is checked against, and whether there is such a user."""
        account = await self._store.account(user) if is_name(user) else None
        # Made for everybody, so that the time it takes tells nothing either.
        made_up = self._made_up(user)
        return (made_up, False) if account is None else (account.verifier, True)

    def _made_up(self, user: str) -> ScramVerifier:
        """The verifier of somebody who does not exist: always the same, and of a password that there is not."""

        def derived(what: bytes) -> bytes:
            return hmac.digest(self._secret, what + b"|" + user.encode(), "sha256")

        return ScramVerifier(
            salt=derived(b"salt"),
            iterations=SCRAM_ITERATIONS,
            stored_key=derived(b"stored key"),
            server_key=derived(b"server key"),
        )

    def _remember(self, device: Device) -> None:
        self._devices[device.device] = device
        self._devices.move_to_end(device.device)
        if len(self._devices) > self._devices_kept:
            self._devices.popitem(last=False)


class ScramExchange:
    """The server's side of SCRAM-SHA-256-PLUS (RFC 5802, RFC 7677), bound by tls-server-end-point, for one attempt.

    Without the binding there is no login: somebody in the middle, with a certificate of his own, could pass a proof
    on. Whether the name exists cannot be told from any answer.
    """

    def __init__(
        self,
        verifier: Callable[[str], Awaitable[tuple[ScramVerifier, bool]]],
        end_point: bytes,
        random_bytes: Callable[[int], bytes],
    ) -> None:
        self._verifier = verifier
        self._end_point = end_point
        self._nonce = random_bytes(24).hex()
        self._server: Any = None
        self._is_over = False
        self._exists = False
        self.user = ""
        """The name that the client gave; known from its first message on, proven by the last."""

    async def first(self, message: str) -> str:
        """The server-first message that answers a client-first one.

        Raises `RequestError` if `message` is none, or does not offer the channel binding; `OutOfTurn` the second
        time; `Busy` when the database is away: the same message may then be tried again.
        """
        if self._server is not None or self._is_over:
            raise OutOfTurn("this password login has begun already")
        self.user = self._named(message)
        verifier, self._exists = await self._verifier(self.user)
        server = self._make_server(lambda _user: verifier)
        server.set_client_first(message)
        self._server = server
        return str(server.get_server_first())

    def final(self, message: str) -> tuple[str, str]:
        """The server-final message that answers a client-final one, and the user whose password is proven by it.

        Raises `LoginFailed`, the same for a wrong password, a wrong binding, an unknown user and anything that is no
        such message; the attempt is over then. Raises `OutOfTurn` before `first` and after any `final`.
        """
        server, self._server = self._server, None
        if server is None:
            raise OutOfTurn("a password login begins with SCRAM's client-first message")
        self._is_over = True
        try:
            server.set_client_final(_ascii(message))
            answer = str(server.get_server_final())
        except ScramException:
            raise LoginFailed from None
        if not self._exists:
            raise LoginFailed
        return answer, self.user

    def _named(self, message: str) -> str:
        """The user that a client-first message names, once everything else in it is found right."""
        named: list[str] = []

        def look(user: str) -> ScramVerifier:
            named.append(user)
            return _NOBODY

        try:
            self._make_server(look).set_client_first(_ascii(message))
        except ScramException as error:
            raise RequestError(f"not a first message of {MECHANISM} bound by {CHANNEL_BINDING}: {error}") from None
        [user] = named
        return user

    def _make_server(self, verifier: Callable[[str], ScramVerifier]) -> Any:
        def auth_info(user: str) -> tuple[bytes, bytes, bytes, int]:
            found = verifier(user)
            return found.salt, found.stored_key, found.server_key, found.iterations

        return _MECHANISM.make_server(
            auth_info, channel_binding=(CHANNEL_BINDING, self._end_point), s_nonce=self._nonce
        )


def device_row(identity: DeviceIdentity) -> Device:
    """A device of a verified chain, as the store keeps it."""
    return Device(device=identity.device, user=identity.user, ed25519=identity.ed25519, curve25519=identity.curve25519)


def _ascii(message: str) -> str:
    """Names are ASCII here, and so is all else in SCRAM; this keeps out what cannot be encoded at all."""
    if not message.isascii():
        raise ScramException("the message is not ASCII")
    return message


def _check_verifier(verifier: ScramVerifier) -> None:
    if len(verifier.salt) != SCRAM_SALT_SIZE or verifier.iterations != SCRAM_ITERATIONS:
        raise RequestError(f"a verifier has a salt of {SCRAM_SALT_SIZE} bytes and {SCRAM_ITERATIONS} iterations")


def _check_complete(keys: DeviceKeys) -> None:
    """A device that cannot be written to from the start would be a hole in its account's conversations."""
    if not keys.one_time or keys.fallback is None or keys.seal is None:
        raise RequestError("a new device publishes one-time keys, a fallback key and a seal key")
