"""What everybody may know about everybody: links, prekey bundles, and the key log that holds the server to them.

The rules only, over a store. It knows no connection and no password; whether somebody may ask is decided elsewhere.
Clients check everything that it says.
"""

from __future__ import annotations

from collections.abc import Sequence

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from fastchat.errors import Busy, Internal, RequestError
from fastchat.identity import prekeys
from fastchat.identity.keylog import Frontier, sign_checkpoint
from fastchat.identity.links import DeviceIdentity
from fastchat.identity.names import is_name
from fastchat.protocols.wire import AccountKeys, Bundle, Checkpoint, DeviceKeys, Signed
from fastchat.store import Device, Store

LOG_PAGE = 1000
"""Leaves in one answer, at most: 96 KB of base64."""

ANSWER_DEVICES = 40
"""Devices in one answer, at most: one takes up to 6 KB with its links, and a line holds 256."""

ANSWER_BYTES = 240_000
BUNDLE_BYTES = 3_300
"""Of one answer; and of a bundle, with its one-time key. Links of devices that were revoked can be the most of it."""


class Directory:
    """Keys, and the log of links. One for all connections of a process.

    The log's frontier is kept in memory and follows the store, from which it is read once, page by page, at the first
    use; call `checkpoint` before connections come in.
    """

    def __init__(self, store: Store, log_key: Ed25519PrivateKey) -> None:
        self._store = store
        self._log_key = log_key
        self._frontier = Frontier()
        self._newest: Checkpoint | None = None
        self._pages: list[Checkpoint] = []
        """Checkpoint i is of the first (i + 1) * LOG_PAGE leaves: the end of an answer that is not the newest one."""
        self._reading = False
        self._waiting: list[Deferred[None]] = []

    # --- keys --------------------------------------------------------------------------------------------------------

    async def keys(self, users: Sequence[str], claim: bool) -> tuple[AccountKeys, ...]:
        """The links and bundles of those of `users` that exist, in the order asked for, each once. With `claim`, each
        bundle takes one one-time key of its device for good.

        Raises `RequestError` when they have more devices than fit in an answer: ask for fewer users; then no key is
        taken. Raises `Busy`.
        """
        names = [user for user in dict.fromkeys(users) if is_name(user)]
        # Links after devices: a device that is added meanwhile is missing from the bundles, but none is there that
        # the links do not know.
        devices = await self._store.devices(names)
        asked = [device.device for user in names for device in devices.get(user, ())]
        if len(asked) > ANSWER_DEVICES:
            raise RequestError(f"these users have {len(asked)} devices, but an answer holds {ANSWER_DEVICES}")
        links = await self._store.links([user for user in names if user in devices])
        size = BUNDLE_BYTES * len(asked) + sum(_size(link) for chain in links.values() for link in chain)
        if size > ANSWER_BYTES:
            raise RequestError(f"these users have links and keys of {size} bytes, but an answer holds {ANSWER_BYTES}")
        bundles: dict[str, Bundle] = {
            bundle.device: bundle for bundle in (await self._store.bundles(asked, claim) if asked else ())
        }
        return tuple(
            AccountKeys(
                user=user,
                links=tuple(links[user]),
                bundles=tuple(bundles[device.device] for device in devices.get(user, ()) if device.device in bundles),
            )
            for user in names
            if user in links
        )

    async def publish(self, device: Device, keys: DeviceKeys) -> int:
        """Take new prekeys of a device that is logged in; answers how many one-time keys it has now.

        Raises `SignatureInvalid` for anything that the device did not sign as what it is given as; then nothing has
        changed. Raises `Busy`.
        """
        identity = DeviceIdentity(
            user=device.user, device=device.device, ed25519=device.ed25519, curve25519=device.curve25519
        )
        prekeys.verify_all(identity, keys)
        return await self._store.publish(device.device, keys)

    async def one_time_keys(self, device: str) -> int:
        """How many unclaimed one-time keys the device has. Raises `Busy`."""
        return await self._store.one_time_keys(device)

    # --- the key log -------------------------------------------------------------------------------------------------

    async def checkpoint(self) -> Checkpoint:
        """The log's newest checkpoint (RFC 9162 section 2.1), with every leaf that was committed before this call;
        while the database is away, the newest that is known. Raises `Busy` when none is known yet."""
        try:
            await self._up_to_date()
        except Busy:
            if self._newest is None:
                raise
        return self.known()

    def known(self) -> Checkpoint:
        """The newest checkpoint that is known, without asking. Raises `Busy` when there is none yet."""
        if self._newest is None:
            raise Busy("the key log has not been read yet")
        return self._newest

    async def log(self, start: int) -> tuple[bytes, Checkpoint]:
        """The leaves from number `start` (from 0) on, 72 bytes each, joined, at most `LOG_PAGE`; and the checkpoint of
        the log that ends with the last of them.

        Answers end at multiples of `LOG_PAGE`, so that their checkpoints are signed once and not for each asker.
        Raises `RequestError` when the log is shorter than `start`. Raises `Busy`.
        """
        page = start // LOG_PAGE
        if page >= len(self._pages):
            await self._up_to_date()
        end = self._pages[page] if page < len(self._pages) else self.known()
        count = end.size - start
        if count < 0:
            raise RequestError(f"the key log has {end.size} leaves, none from {start} on")
        leaves = await self._store.log_leaves(start, count) if count else ()
        if len(leaves) != count:
            raise Internal("the key log in the store is shorter than it was")
        return b"".join(leaves), end

    def _up_to_date(self) -> Deferred[None]:
        """Fires when every leaf that is committed by now is in the frontier.

        A reading that is under way may have missed the newest leaves, so whoever comes meanwhile waits for the next
        one; but all of them for the same one. A storm of logins costs one query at a time.
        """
        waiter: Deferred[None] = Deferred()
        self._waiting.append(waiter)
        if not self._reading:
            self._start_reading()
        return waiter

    def _start_reading(self) -> None:
        served, self._waiting = self._waiting, []
        self._reading = True

        def finished(result: Failure | None) -> None:
            self._reading = False
            if self._waiting:
                self._start_reading()
            for waiter in served:
                if isinstance(result, Failure):
                    waiter.errback(result)
                else:
                    waiter.callback(None)

        Deferred.fromCoroutine(self._read()).addBoth(finished)

    async def _read(self) -> None:
        more = True
        while more:
            wanted = LOG_PAGE - self._frontier.size % LOG_PAGE
            leaves = await self._store.log_leaves(self._frontier.size, wanted)
            for leaf in leaves:
                self._frontier.append(leaf)
            more = len(leaves) == wanted
            if more:
                self._pages.append(self._signed())
        if self._newest is None or self._newest.size != self._frontier.size:
            self._newest = self._signed()

    def _signed(self) -> Checkpoint:
        return sign_checkpoint(self._log_key, self._frontier.size, self._frontier.root())


def _size(link: Signed) -> int:
    """Bytes on the wire."""
    return (len(link.body) + len(link.signature)) * 4 // 3 + 40
