"""A store in memory: the same rules as PostgreSQL's, for tests and for driving everything above with a `Clock`.

A coroutine of this store completes without waiting for anything, so each method is one transaction. It checks before
it changes: what raises has changed nothing. `available = False` makes it a database that is away. It knows nothing
that the interface does not name.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import islice
from operator import itemgetter

from fastchat.config import Config, Limits
from fastchat.errors import (
    Busy,
    ChainInvalid,
    DeviceTaken,
    InviteInvalid,
    NameTaken,
    UnknownDevice,
    UnknownUser,
)
from fastchat.identity.keylog import LEAF_SIZE
from fastchat.protocols.wire import Bundle, DeviceKeys, Signed
from fastchat.store import ANY_SIZE, ONE_TIME_KEYS_KEPT, Account, Device, Mail, Stored, Waiting
from fastchat.store.bodies import bodies
from fastchat.store.memory_attachments import MemoryAttachments
from fastchat.store.memory_groups import MemoryGroups


class _Published:
    """What one device has published."""

    def __init__(self) -> None:
        self.one_time: dict[bytes, Signed] = {}
        """By its body, oldest first."""
        self.claimed: dict[bytes, None] = {}
        """Bodies that were given out: none is taken back in."""
        self.fallback: Signed | None = None
        self.seal: Signed | None = None

    def put(self, keys: DeviceKeys) -> None:
        self.fallback = keys.fallback or self.fallback
        self.seal = keys.seal or self.seal
        for statement in keys.one_time:
            if statement.body not in self.claimed:
                self.one_time.setdefault(statement.body, statement)
        if keys.one_time:
            for kept in (self.one_time, self.claimed):
                for body in list(islice(kept, max(0, len(kept) - ONE_TIME_KEYS_KEPT))):
                    del kept[body]

    def claim(self) -> Signed | None:
        for body, statement in self.one_time.items():
            del self.one_time[body]
            self.claimed[body] = None
            return statement
        return None


class _Invite:
    def __init__(self, uses: int | None, expires: int | None) -> None:
        self.uses = uses
        self.expires = expires
        self.used = 0

    def usable(self, now: float) -> bool:
        return (self.uses is None or self.used < self.uses) and (self.expires is None or self.expires > now)


class _Fill:
    """How full something is, with all that has asked for room in it."""

    def __init__(self, waiting: Iterable[Waiting]) -> None:
        sizes = [len(row.body) for row in waiting]
        self.messages, self.bytes = len(sizes), sum(sizes)

    def takes(self, size: int, messages: int, bytes_: int) -> bool:
        self.messages += 1
        self.bytes += size
        return self.messages <= messages and self.bytes <= bytes_


class _Room:
    """A mailbox while a batch comes: what was refused counts as well, so that nothing overtakes it; but what is refused
    for its sender's share takes no room from others."""

    def __init__(self, waiting: Collection[Waiting], owner: str, limits: Limits) -> None:
        self._waiting = list(waiting)
        self._owner = owner
        self._most = limits.mailbox_messages, limits.mailbox_bytes
        self._share = limits.share_of_mailbox
        self._all = _Fill(self._waiting)
        self._was_full = self._all.messages >= self._most[0] or self._all.bytes >= self._most[1]
        self._of: dict[str, _Fill] = {}

    def refuses(self, mail: Mail) -> Stored | None:
        size = len(mail.body)
        if mail.user != self._owner and not self._was_full:
            if mail.user not in self._of:
                self._of[mail.user] = _Fill(row for row in self._waiting if row.user == mail.user)
            if not self._of[mail.user].takes(size, *self._share):
                return Stored.SHARE_FULL
        return None if self._all.takes(size, *self._most) else Stored.MAILBOX_FULL


class MemoryStore(MemoryGroups, MemoryAttachments):
    """A `Store` and an `AttachmentStore`. `seconds` tells the time since 1970, for invites that expire."""

    def __init__(self, config: Config, seconds: Callable[[], float] = time.time) -> None:
        MemoryGroups.__init__(self)
        MemoryAttachments.__init__(self)
        self.available = True
        """Set it to False, and every call raises `Busy` until it is True again."""
        self._limits = config.limits
        self._seconds = seconds
        self._accounts: dict[str, Account] = {}
        self._chains: dict[str, list[Signed]] = {}
        self._devices: dict[str, Device] = {}
        self._revoked: set[str] = set()
        self._devices_of: dict[str, list[Device]] = {}
        self._published: dict[str, _Published] = {}
        self._log: list[bytes] = []
        self._invites: dict[bytes, _Invite] = {}
        self._mailboxes: dict[str, dict[int, Waiting]] = {}
        self._last_message = 0

    def _check_available(self) -> None:
        if not self.available:
            raise Busy

    # --- lifecycle -------------------------------------------------------------------------------------------

    async def open(self) -> None:
        self._check_available()

    async def close(self) -> None:
        """Nothing is held."""

    async def answers(self, seconds: float) -> bool:
        return self.available

    # --- accounts and devices --------------------------------------------------------------------------------

    async def register(
        self,
        account: Account,
        device: Device,
        links: Sequence[Signed],
        keys: DeviceKeys,
        leaves: Sequence[bytes],
        invite: bytes,
    ) -> None:
        self._check_available()
        if not await self.can_invite(invite):
            raise InviteInvalid
        if account.user in self._accounts:
            raise NameTaken
        if device.device in self._devices or device.device in self._revoked:
            raise DeviceTaken
        _check_leaves(leaves)
        self._invites[invite].used += 1
        self._accounts[account.user] = account
        self._chains[account.user] = list(links)
        self._devices_of[account.user] = []
        self._insert_device(device, keys)
        self._log.extend(leaves)

    async def add_device(self, device: Device, position: int, link: Signed, keys: DeviceKeys, leaf: bytes) -> None:
        self._check_available()
        if device.user not in self._accounts:
            raise UnknownUser
        chain = self._chains[device.user]
        if len(chain) != position:
            raise ChainInvalid(f"The chain has {len(chain)} links by now.")
        if device.device in self._devices or device.device in self._revoked:
            raise DeviceTaken
        _check_leaves([leaf])
        chain.append(link)
        self._insert_device(device, keys)
        self._log.append(leaf)

    async def revoke_device(self, user: str, device: str, position: int, link: Signed, leaf: bytes) -> None:
        self._check_available()
        if user not in self._accounts:
            raise UnknownUser
        if len(self._chains[user]) != position:
            raise ChainInvalid(f"The chain has {len(self._chains[user])} links by now.")
        known = self._devices.get(device)
        if known is None or known.user != user:
            raise UnknownDevice
        _check_leaves([leaf])
        self._chains[user].append(link)
        self._devices_of[user].remove(known)
        self._revoked.add(device)
        del self._devices[device], self._mailboxes[device], self._published[device]
        self._log.append(leaf)

    def _insert_device(self, device: Device, keys: DeviceKeys) -> None:
        self._devices[device.device] = device
        self._devices_of[device.user].append(device)
        self._mailboxes[device.device] = {}
        self._published[device.device] = _Published()
        self._published[device.device].put(keys)

    async def account(self, user: str) -> Account | None:
        self._check_available()
        return self._accounts.get(user)

    async def device(self, device: str) -> Device | None:
        self._check_available()
        return self._devices.get(device)

    async def links(self, users: Sequence[str]) -> Mapping[str, Sequence[Signed]]:
        self._check_available()
        return {user: list(self._chains[user]) for user in users if user in self._chains}

    async def devices(self, users: Sequence[str]) -> Mapping[str, Sequence[Device]]:
        self._check_available()
        return {user: list(self._devices_of[user]) for user in users if user in self._devices_of}

    # --- prekeys ---------------------------------------------------------------------------------------------

    async def publish(self, device: str, keys: DeviceKeys) -> int:
        self._check_available()
        if device not in self._published:
            raise UnknownDevice
        published = self._published[device]
        published.put(keys)
        return len(published.one_time)

    async def bundles(self, devices: Sequence[str], claim: bool) -> Sequence[Bundle]:
        self._check_available()
        bundles = []
        for device in dict.fromkeys(devices):
            published = self._published.get(device)
            if published and published.seal and published.fallback:
                one_time = published.claim() if claim else None
                bundles.append(Bundle(device, published.seal, published.fallback, one_time))
        return bundles

    async def one_time_keys(self, device: str) -> int:
        self._check_available()
        return len(self._published[device].one_time) if device in self._published else 0

    # --- the key log -----------------------------------------------------------------------------------------

    async def log_leaves(self, start: int, limit: int) -> Sequence[bytes]:
        self._check_available()
        return self._log[start : start + limit]

    # --- mailboxes -------------------------------------------------------------------------------------------

    async def store_mail(self, batch: Sequence[Mail]) -> Sequence[Stored]:
        self._check_available()
        rooms: dict[str, _Room] = {}
        outcomes = [self._judge(mail, rooms) for mail in batch]
        stored = [mail for mail, outcome in zip(batch, outcomes, strict=True) if outcome is Stored.STORED]
        distinct, numbers = bodies(stored)
        for number, mail in sorted(zip(numbers, stored, strict=True), key=itemgetter(0)):
            message = self._last_message + 1 + number
            body = bytes(distinct[number].body)
            self._mailboxes[mail.recipient][message] = Waiting(message, mail.user, mail.device, mail.n, mail.at, body)
        self._last_message += len(distinct)
        return outcomes

    def _judge(self, mail: Mail, rooms: dict[str, _Room]) -> Stored:
        mailbox = self._mailboxes.get(mail.recipient)
        if mailbox is None:
            return Stored.UNKNOWN_DEVICE
        if mail.recipient not in rooms:
            rooms[mail.recipient] = _Room(mailbox.values(), self._devices[mail.recipient].user, self._limits)
        return rooms[mail.recipient].refuses(mail) or Stored.STORED

    async def mailbox(
        self, device: str, in_flight: Sequence[int], limit: int, enough: int = ANY_SIZE
    ) -> Sequence[Waiting]:
        self._check_available()
        flying = set(in_flight)
        waiting = (row for row in self._mailboxes.get(device, {}).values() if row.message not in flying)
        page: list[Waiting] = []
        size = 0
        for row in islice(waiting, limit):
            page.append(row)
            size += len(row.body)
            if size >= enough:
                break
        return page

    async def mailbox_size(self, device: str) -> int:
        self._check_available()
        return len(self._mailboxes.get(device, {}))

    async def waiting(self, devices: Sequence[str]) -> Sequence[str]:
        self._check_available()
        return [device for device in dict.fromkeys(devices) if self._mailboxes.get(device)]

    async def delete_mail(self, rows: Sequence[tuple[str, int]]) -> None:
        self._check_available()
        for device, message in rows:
            self._mailboxes.get(device, {}).pop(message, None)

    # --- invites ---------------------------------------------------------------------------------------------

    async def add_invite(self, invite: bytes, uses: int | None, expires: int | None) -> None:
        self._check_available()
        self._invites.setdefault(invite, _Invite(uses, expires))

    async def can_invite(self, invite: bytes) -> bool:
        self._check_available()
        known = self._invites.get(invite)
        return known is not None and known.usable(self._seconds())


def _check_leaves(leaves: Sequence[bytes]) -> None:
    if any(len(leaf) != LEAF_SIZE for leaf in leaves):
        raise ValueError(f"a leaf of the key log has {LEAF_SIZE} bytes")
