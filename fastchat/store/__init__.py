"""The Store: what must survive a crash, as an interface and the rows that cross it; beside it the `AttachmentStore`,
for what files are made of.

Two implementations satisfy them and pass the same tests: `postgres.py` (the network's only store of truth) and
`memory.py` (a real one, for tests and for driving the rules with a `Clock`). Nothing here knows SQL, sessions or
the wire. Every method is a coroutine, may raise `Busy` when the database is away or missed its deadline, and
otherwise raises only what its docstring names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import NamedTuple, Protocol

import msgspec

from fastchat.protocols.wire import Bundle, DeviceKeys, ScramVerifier, Signed


class Account(msgspec.Struct, frozen=True):
    user: str
    rsa_public_key: bytes
    """PEM (PKCS#1)."""
    verifier: ScramVerifier


class Device(msgspec.Struct, frozen=True):
    device: str
    """32 lower-case hex digits, derived from the device's keys (`identity.links.device_id`)."""
    user: str
    ed25519: bytes
    curve25519: bytes


class Mail(NamedTuple):
    """One message for one device that was not handed over at once."""

    recipient: str
    user: str
    device: str
    """The sending user and device."""
    n: int
    """The sending device's own counter; `(device, n)` names the message for ever."""
    at: int
    """When the server took it, in milliseconds since 1970; for display only."""
    body: bytes
    """The JSON value of the body, exactly as it came; opaque."""
    order: int
    """The number of the submission that it belongs to; it rises in the order in which they come to this process."""


class Stored(Enum):
    """What became of one `Mail` of a batch, once the batch is committed."""

    STORED = "stored"
    MAILBOX_FULL = "mailbox-full"
    SHARE_FULL = "share-full"
    """There is room, but not for more of this sender's."""
    UNKNOWN_DEVICE = "unknown-device"


class Waiting(NamedTuple):
    """One message waiting in a device's mailbox."""

    message: int
    """The row's number: names the row to `delete_mail`; says nothing about order between senders."""
    user: str
    device: str
    n: int
    at: int
    body: bytes


class GroupMember(NamedTuple):
    """What an account is, or was, in a group (`identity.groups` has the rules)."""

    user: str
    role: str
    """owner, admin, member, invited or gone."""
    since: int
    """The length of the chain from which that is so."""
    until: int | None
    """The length up to which somebody who is gone may read the chain; None for everybody else."""
    invited_by: str
    """Empty for who created the group."""
    history: int
    """Days of it that the invitation lets a newcomer have."""


class GroupRow(NamedTuple):
    """Where a group's chain of statements has come to."""

    group: str
    """32 lower-case hex digits, derived from the first statement."""
    length: int
    """How many statements there are."""
    head: bytes
    """SHA-256 of the last one's body."""
    title: bytes
    """SHA-256 of the salted title."""
    deleted: bool
    members: Sequence[GroupMember]
    """By name; those who are invited or gone are among them."""


class NewChunk(msgspec.Struct, frozen=True, gc=False):
    """One chunk of an attachment, on its way into the store."""

    attachment: str
    """32 lower-case hex digits, chosen by the client."""
    user: str
    """Who uploads it."""
    index: int
    """From 0."""
    data: bytes
    """`CHUNK_SIZE` bytes; opaque."""


class ChunkOutcome(Enum):
    """What became of one `NewChunk` of a batch, once the batch is committed."""

    STORED = "stored"
    """It is there, whether by this batch or since long."""
    UNKNOWN = "unknown"
    """This account has no such attachment (any more), or it has no chunk of that number."""


ANY_SIZE = 2**62
"""Bytes: no limit."""


class Store(Protocol):
    """Everything durable. See the module's docstring for `Busy`."""

    # --- lifecycle -------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Connect and bring the schema up to date. Raises `ConfigError` when that is impossible."""

    async def close(self) -> None:
        """Finish what is under way and release every connection."""

    async def answers(self, seconds: float) -> bool:
        """Whether the database answers within `seconds`, on every way that there is to it. Never raises."""

    @property
    def available(self) -> bool:
        """Whether the last use of the database succeeded; for `/status` and `/healthz`."""

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
        """Create an account with its first device in one transaction, and use the invite once.

        `invite` is the SHA-256 of the invite's token. `leaves` are appended to the key log, in order.
        Raises `NameTaken`, `InviteInvalid`, `DeviceTaken`; then nothing was written.
        """

    async def add_device(self, device: Device, position: int, link: Signed, keys: DeviceKeys, leaf: bytes) -> None:
        """Append `link` as number `position` (from 0) of the account's chain, with the device that it names.

        Raises `ChainInvalid` when the chain has another length by now, `DeviceTaken`, `UnknownUser`.
        """

    async def revoke_device(self, user: str, device: str, position: int, link: Signed, leaf: bytes) -> None:
        """Append `link` as number `position` of the chain of `user`, and take away the device that it revokes, with its
        prekeys and its mailbox: from here on it is not known, and nobody can add it again.

        Raises `ChainInvalid` as `add_device` does, `UnknownUser`, `UnknownDevice` when it is none of this user's.
        """

    async def account(self, user: str) -> Account | None: ...

    async def device(self, device: str) -> Device | None: ...

    async def links(self, users: Sequence[str]) -> Mapping[str, Sequence[Signed]]:
        """Each known user's whole chain, in order; unknown users are absent."""

    async def devices(self, users: Sequence[str]) -> Mapping[str, Sequence[Device]]:
        """Each known user's devices, oldest first; unknown users are absent."""

    # --- prekeys ---------------------------------------------------------------------------------------------

    async def publish(self, device: str, keys: DeviceKeys) -> int:
        """Add one-time keys, replace fallback and seal keys where given; answers how many one-time keys are left.

        At most `ONE_TIME_KEYS_KEPT` one-time keys are kept for a device: the oldest go first. Publishing a
        statement that is there already changes nothing. Raises `UnknownDevice`.
        """

    async def bundles(self, devices: Sequence[str], claim: bool) -> Sequence[Bundle]:
        """The bundle of each known device that has published; with `claim`, each with a one-time key of its own,
        which no other call ever gets."""

    async def one_time_keys(self, device: str) -> int:
        """How many unclaimed one-time keys the device has."""

    # --- the key log -----------------------------------------------------------------------------------------

    async def log_leaves(self, start: int, limit: int) -> Sequence[bytes]:
        """Leaves `start` (from 0) onwards, at most `limit`, in order, without a gap."""

    # --- mailboxes -------------------------------------------------------------------------------------------

    async def store_mail(self, batch: Sequence[Mail]) -> Sequence[Stored]:
        """Commit a batch durably in one transaction; answers one outcome for each, in the order of the batch.

        In each mailbox the rows rise with `order`; those of one submission that say the same share one body.
        A mail for a device that is not known, or whose mailbox would pass its limits (`mailbox_messages`,
        `mailbox_bytes` of the config), or in whose mailbox the sending account would pass its share
        (`mailbox_share`; the owner of the mailbox has all of it), is left out and says so; the others are stored.
        When this raises, the outcome is unknown: the caller writes the batch again, and recipients drop what they
        have seen.
        """

    async def mailbox(
        self, device: str, in_flight: Sequence[int], limit: int, enough: int = ANY_SIZE
    ) -> Sequence[Waiting]:
        """What waits for a device and is not among `in_flight` (row numbers), by row number, at most `limit`; none
        after that with which the bodies have `enough` bytes together.

        Never paged by "greater than the last one": commit order is not row order (docs/architecture.md).
        """

    async def mailbox_size(self, device: str) -> int:
        """How many messages wait for the device."""

    async def waiting(self, devices: Sequence[str]) -> Sequence[str]:
        """Which of these devices have anything in their mailbox (the sweep)."""

    async def delete_mail(self, rows: Sequence[tuple[str, int]]) -> None:
        """Delete exactly these (device, row number) pairs, and each body that no mailbox names any more."""

    # --- groups ----------------------------------------------------------------------------------------------

    async def append_to_group(
        self,
        group: str,
        position: int,
        statement: Signed,
        head: bytes,
        title: bytes,
        deleted: bool,
        changed: Sequence[GroupMember],
    ) -> None:
        """Append `statement` as number `position` (from 0, which creates the group) of its chain, in one transaction
        with where the chain has come to by it and the rows of the members that it changes or adds.

        Raises `GroupChanged` when the chain has another length by now, `UnknownGroup`, and `UnknownUser` when a row
        names nobody; then nothing was written.
        """

    async def group(self, group: str) -> GroupRow | None: ...

    async def group_statements(self, group: str, start: int, limit: int) -> Sequence[Signed]:
        """Statements `start` (from 0) onwards, at most `limit`, in order; none of a group that is not known."""

    async def groups_of(self, user: str, limit: int) -> Sequence[tuple[str, int]]:
        """The groups that the account is in, is invited to or was in, with the length up to which it may read the
        chain; those first that it has a part in now and that are not deleted, then by group; at most `limit`."""

    async def group_count(self, user: str, invited: bool = True) -> int:
        """How many groups that are not deleted the account is in, or with `invited` invited to."""

    async def group_devices(self, group: str) -> Sequence[str]:
        """The devices of everybody who has joined and is not gone, by user, oldest first."""

    # --- invites ---------------------------------------------------------------------------------------------

    async def add_invite(self, invite: bytes, uses: int | None, expires: int | None) -> None:
        """Let `invite` (the token's SHA-256) be used `uses` times (None: any number) until `expires` (seconds
        since 1970; None: for ever). Adding it again changes nothing."""

    async def can_invite(self, invite: bytes) -> bool:
        """Whether it could be used now. `register` alone says for whom."""


class AttachmentStore(Protocol):
    """The chunks of attachments, and who has them. It stands beside `Store`, so that chunks may be kept somewhere else
    than accounts and mail are; whoever makes it opens and closes it. See the module's docstring for `Busy`.

    `now` is the time of whoever calls, in seconds since 1970: the store goes by no clock of its own, so all who share
    it are expected to have the same, within what an hour more or less means to them.
    """

    async def begin_attachment(
        self, attachment: str, user: str, chunks: int, quota_bytes: int, now: float
    ) -> Sequence[tuple[int, int]]:
        """Begin an attachment of so many chunks, or go on with it; answers which of them are missing, as pairs of the
        first and the one after the last, in order, at most `MOST_RANGES`. None: it is whole.

        What is begun counts in full towards the account's quota, finished or not. Raises `QuotaExceeded` when all that
        the account has would then be more than `quota_bytes`; not for what it has begun before, whatever the quota is
        by now. Raises `UnknownUser`, and `RequestError` when the id is another account's or was begun with another
        number of chunks. Then nothing was written.
        """

    async def store_chunks(self, batch: Sequence[NewChunk], now: float) -> Sequence[ChunkOutcome]:
        """Commit a batch durably in one transaction; answers one outcome for each, in the order of the batch.

        A chunk that is there already stays as it is, and so does the first of two in one batch. With its last chunk an
        attachment is whole. When this raises, the outcome is unknown: storing the batch again does no harm.
        """

    async def chunks(self, wanted: Sequence[tuple[str, int]]) -> Sequence[bytes | None]:
        """The chunks of these (attachment, index) pairs, in their order; None where there is none, or where the
        attachment is not whole."""

    async def expect_readers(self, attachment: str, user: str, devices: int) -> None:
        """So many devices were told of this attachment of `user`: once as many have fetched it, it goes, which may be
        now. The last number that is said counts. Does nothing if there is none, or if it is another's."""

    async def attachment_fetched(self, attachment: str, user: str, device: str) -> None:
        """This device of `user` has all of it. Each device counts once, and none of the account's whose attachment it
        is; with as many as are expected, the attachment goes. Does nothing if it is not there or not whole."""

    async def detach(self, attachment: str, user: str) -> None:
        """Remove it, finished or not. Does nothing if there is none, or if it is another's."""

    async def sweep_attachments(self, now: float, unfinished_seconds: float, keep_seconds: float) -> int:
        """Remove the attachments that are not whole and of which nothing new has come for `unfinished_seconds`, and
        those that have been whole for `keep_seconds`; both up to exactly then. Answers how many. Done in slices, none
        of which holds anybody up; if `Busy` is raised on the way, the rest is left for the next time."""


ONE_TIME_KEYS_KEPT = 100
"""Per device: twice what a client publishes at once."""
