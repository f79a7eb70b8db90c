"""Groups as the server has them: who is in which one, by chains of signed statements that it keeps and cannot write.

What is allowed is decided by `identity.groups`, by the same function as in every client; that a chain has one next
statement and no other, by the store. What is said in a group, and what it is called, never comes here. This module
knows no connection; it tells devices that are online of news over the bus, as hints.

Groups that were used lately are remembered, so that what is sent to one needs no query and goes on while the database
is away. What is remembered stays true as long as every change comes through here: acts, and `devices_changed`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred, DeferredLock
from twisted.logger import Logger

from fastchat.bus import Bus
from fastchat.config import Limits
from fastchat.errors import Busy, GroupChanged, GroupInvalid, NotAllowed, RateLimited, RequestError, UnknownGroup
from fastchat.identity.groups import (
    Create,
    GroupState,
    Invitation,
    Invite,
    Join,
    Leave,
    Member,
    Remove,
    Statement,
    extend,
    group_id,
    read,
    subject,
)
from fastchat.limits import Buckets
from fastchat.protocols.wire import GroupLength, GroupNews, Signed, encode
from fastchat.store import Device, GroupMember, GroupRow, Store

PAGE_STATEMENTS = 300
PAGE_BYTES = 200_000
"""Of one answer to `group_log`, as they are on the wire."""

GROUPS_IN_ANSWER = 4000
"""To `groups`: so many fit into a line."""

REMEMBERED = 200_000
"""Members and devices of all groups that are remembered, together."""

JOINED = ("owner", "admin", "member")


class Circle:
    """A group as it is now: what its chain says, and the devices of its members."""

    __slots__ = ("devices", "is_doubtful", "rows", "state")

    def __init__(self, state: GroupState, rows: Sequence[GroupMember], devices: Sequence[str]) -> None:
        self.state = state
        self.rows = {row.user: row for row in rows}
        """Also of those who are gone."""
        self.devices = dict.fromkeys(devices)
        """Of everybody who has joined, in order; only the keys say something."""
        self.is_doubtful = False
        """The database did not say whether it has taken the last statement."""

    @property
    def weight(self) -> int:
        return len(self.rows) + len(self.devices)

    def has(self, user: str) -> bool:
        """Whether `user` has joined."""
        return user in self.state.members

    def readable(self, user: str) -> int:
        """How many statements `user` may read. Raises `UnknownGroup` if none."""
        row = self.rows.get(user)
        if row is None:
            raise UnknownGroup
        return self.state.length if row.until is None else row.until


class _Loading:
    """A group that is being read from the store, and who waits for it."""

    __slots__ = ("is_stale", "waiting")

    def __init__(self) -> None:
        self.is_stale = False
        self.waiting: list[Deferred[Circle | None]] = []


class _Change(NamedTuple):
    """What a statement comes to, before it is committed."""

    state: GroupState
    row: GroupMember | None
    """Of whose part in the group it changes."""
    devices: Sequence[str]
    """Theirs, if it brings or takes somebody."""
    generation: int
    """When that was asked for."""


class Groups:
    """The groups of a network, over a store and a bus; one for all services of a process. `seconds`: any steady
    clock."""

    log = Logger()

    def __init__(
        self, store: Store, bus: Bus, limits: Limits, seconds: Callable[[], float], remembered: int = REMEMBERED
    ) -> None:
        self._store = store
        self._bus = bus
        self._most = limits.groups_per_user
        self._remembered = remembered
        self._acts = Buckets(limits.group_acts_per_second, limits.group_acts_burst, seconds, kept=10_000)
        """By account: a new connection is cheap."""
        self._circles: OrderedDict[str, Circle] = OrderedDict()
        """The latest used last."""
        self._weight = 0
        self._loadings: dict[str, _Loading] = {}
        self._locks: dict[str, DeferredLock] = {}
        self._generation = 0
        """Counts the changes of anybody's devices."""
        bus.watch(lambda user, _device, _why: self.devices_changed(user))

    # --- who is in it ------------------------------------------------------------------------------------------------

    def known(self, group: str) -> Circle | None:
        """The group as it is now, if it is remembered: ask at once before each use. None says nothing: `load` it."""
        circle = self._circles.get(group)
        if circle is not None:
            self._circles.move_to_end(group)
            if circle.is_doubtful and group not in self._loadings:
                Deferred.fromCoroutine(self._read(group)).addErrback(self._could_not_read)
        return circle

    async def load(self, group: str) -> Circle | None:
        """The group as it is now; None if there is none. Raises `Busy`."""
        circle = self.known(group)
        return circle if circle is not None else await self._read(group)

    def devices_changed(self, user: str) -> None:
        """Tell this as soon as the store has another device of `user`, or one less."""
        self._generation += 1
        for loading in self._loadings.values():
            loading.is_stale = True
        for group in [group for group, circle in self._circles.items() if circle.has(user)]:
            self._forget(group)

    async def _read(self, group: str) -> Circle | None:
        """From the store, once for all who want it at the same time."""
        loading = self._loadings.get(group)
        if loading is not None:
            waiting: Deferred[Circle | None] = Deferred()
            loading.waiting.append(waiting)
            return await waiting
        loading = self._loadings[group] = _Loading()
        try:
            circle = await self._fetch(group, loading)
        except Exception as error:
            del self._loadings[group]
            for waiting in loading.waiting:
                waiting.errback(error if isinstance(error, Busy) else Busy())
            raise
        del self._loadings[group]
        for waiting in loading.waiting:
            waiting.callback(circle)
        return circle

    async def _fetch(self, group: str, loading: _Loading) -> Circle | None:
        while True:
            loading.is_stale = False
            row = await self._store.group(group)
            devices = await self._store.group_devices(group) if row is not None else ()
            if not loading.is_stale:
                break
        if row is None:
            return None
        circle = Circle(state_of(row), row.members, devices)
        self._remember(circle)
        return circle

    def _could_not_read(self, failure: Any) -> None:
        if not failure.check(Busy):
            self.log.failure("a group could not be read", failure)

    def _remember(self, circle: Circle) -> None:
        group = circle.state.group
        self._forget(group)
        self._circles[group] = circle
        self._weight += circle.weight
        while self._weight > self._remembered and len(self._circles) > 1:
            self._forget(next(iter(self._circles)))

    def _doubt(self, group: str) -> None:
        """Whatever is remembered by now, or is just being read, may be of before."""
        if group in self._circles:
            self._circles[group].is_doubtful = True
        if group in self._loadings:
            self._loadings[group].is_stale = True

    def _forget(self, group: str) -> None:
        circle = self._circles.pop(group, None)
        if circle is not None:
            self._weight -= circle.weight

    # --- what accounts ask -------------------------------------------------------------------------------------------

    async def of(self, user: str) -> Sequence[GroupLength]:
        """Every group that `user` is in, is invited to or was in, and how far they may read its chain. Raises
        `Busy`."""
        found = await self._store.groups_of(user, GROUPS_IN_ANSWER)
        return [GroupLength(group, length) for group, length in found]

    async def statements(self, user: str, group: str, start: int) -> tuple[int, Sequence[Signed]]:
        """How many statements of the group there are for `user`, and a page of them from number `start` on. Raises
        `UnknownGroup`, `RequestError`, `Busy`."""
        circle = await self.load(group)
        if circle is None:
            raise UnknownGroup
        length = circle.readable(user)
        if start > length:
            raise RequestError(f"the chain has {length} statements")
        limit = min(PAGE_STATEMENTS, length - start)
        page = await self._store.group_statements(group, start, limit) if limit else ()
        return length, list(_fitting(page))

    # --- acts --------------------------------------------------------------------------------------------------------

    async def act(self, actor: Device, group: str, signed: Signed) -> int:
        """Append `signed`, which `actor` hands in, to the chain of `group`; answers the chain's length.

        Raises `GroupChanged` when another statement came first, `GroupInvalid`, `SignatureInvalid`, `NotAllowed`,
        `UnknownGroup`, `UnknownUser`, `RequestError` (somebody is in too many groups), `RateLimited`: then nothing has
        changed. Raises `Busy`: then that is not known.
        """
        bucket = self._acts[actor.user]
        if not bucket.take():
            raise RateLimited("too many changes of groups", retry_after=max(0.1, bucket.wait()))
        statement = read(signed)
        if (statement.user, statement.device) != (actor.user, actor.device):
            raise NotAllowed("a statement is handed in by the device that has signed it")
        if group != (group_id(signed.body) if isinstance(statement, Create) else statement.group):
            raise GroupInvalid("the statement is about another group")
        async with self._alone(group):
            return await self._act(actor, group, statement, signed)

    async def _act(self, actor: Device, group: str, statement: Statement, signed: Signed) -> int:
        circle = None
        if not isinstance(statement, Create):
            circle = await self.load(group)
            if circle is None or not (circle.has(actor.user) or actor.user in circle.state.invited):
                raise UnknownGroup
            if statement.position < circle.state.length:
                raise GroupChanged
        state = extend(circle.state if circle is not None else None, signed, actor.ed25519)
        change = await self._change(circle, state, statement)
        rows = () if change.row is None else (change.row,)
        try:
            await self._store.append_to_group(
                group, state.length - 1, signed, state.head, state.title, state.deleted, rows
            )
        except GroupChanged:
            self._forget(group)  # somebody has, and not here
            raise
        except Busy:
            self._doubt(group)
            raise
        told = dict.fromkeys(change.devices) | (circle.devices if circle is not None else {})
        self._committed(circle, statement, change)
        self._announce(told, actor, GroupNews(group, state.length - 1, signed))
        return state.length

    async def _change(self, circle: Circle | None, state: GroupState, statement: Statement) -> _Change:
        """Asks the store for what is needed before the statement is committed: from then on, what is remembered has to
        be true at once."""
        generation = self._generation
        who = subject(statement) or statement.user
        # Who joins was counted when they were invited. Invitations keep nobody from groups of their own.
        is_invited = isinstance(statement, Invite)
        counts = is_invited or isinstance(statement, Create)
        if counts and await self._store.group_count(who, invited=is_invited) >= self._most:
            also = ", or invited to them" if is_invited else ""
            raise RequestError(f"{who} is in {self._most} groups{also}: there cannot be more")
        devices: Sequence[str] = ()
        if isinstance(statement, Create | Invite | Join | Leave | Remove):
            found = await self._store.devices([who])
            devices = [device.device for device in found.get(who, ())]
        before = circle.rows.get(who) if circle is not None else None
        row = _row(state, who, before)
        return _Change(state, None if row == before else row, devices, generation)

    def _committed(self, circle: Circle | None, statement: Statement, change: _Change) -> None:
        """What is remembered follows."""
        group = change.state.group
        loading = self._loadings.get(group)
        if loading is not None:
            loading.is_stale = True
        self._forget(group)
        if change.generation != self._generation:
            return  # perhaps these are not their devices any more
        circle = circle or Circle(change.state, (), ())
        circle.state = change.state
        if change.row is not None:
            circle.rows[change.row.user] = change.row
        if isinstance(statement, Create | Join):
            circle.devices.update(dict.fromkeys(change.devices))
        elif isinstance(statement, Leave | Remove):
            for device in change.devices:
                circle.devices.pop(device, None)
        self._remember(circle)

    def _announce(self, devices: Iterable[str], actor: Device, news: GroupNews) -> None:
        line = encode(news)
        for device in devices:
            if device != actor.device:
                self._bus.tell(device, line)

    @asynccontextmanager
    async def _alone(self, group: str) -> AsyncIterator[None]:
        """One act of a group at a time: who comes second is told so by the chain, not by the database."""
        lock = self._locks.setdefault(group, DeferredLock())
        await lock.acquire()
        try:
            yield
        finally:
            if not lock.waiting:
                del self._locks[group]
            lock.release()


def state_of(row: GroupRow) -> GroupState:
    """What the chain says, without reading it again: it was checked when it was stored."""
    joined = sorted((each for each in row.members if each.role in JOINED), key=lambda each: each.since)
    return GroupState(
        group=row.group,
        length=row.length,
        head=row.head,
        title=row.title,
        members={each.user: Member(each.role, each.since) for each in joined},  # type: ignore[arg-type]
        invited={
            each.user: Invitation(each.invited_by, each.history, each.since - 1)
            for each in row.members
            if each.role == "invited"
        },
        deleted=row.deleted,
    )


def _row(state: GroupState, who: str, before: GroupMember | None) -> GroupMember | None:
    """The row of `who` by what the chain says now."""
    if who in state.members:
        member = state.members[who]
        before = before or GroupMember(who, member.role, member.since, None, "", 0)
        return before._replace(role=member.role, since=member.since, until=None)
    if who in state.invited:
        invitation = state.invited[who]
        return GroupMember(who, "invited", invitation.position + 1, None, invitation.by, invitation.history)
    if before is None or before.until is not None:
        return before
    return before._replace(role="gone", since=state.length, until=state.length)


def _fitting(page: Sequence[Signed]) -> Iterator[Signed]:
    """As many of these, from the first on, as one answer may have; one at least."""
    size = 0
    for number, signed in enumerate(page):
        size += (len(signed.body) + len(signed.signature)) * 4 // 3 + 40
        if number and size > PAGE_BYTES:
            return
        yield signed
