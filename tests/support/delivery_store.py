"""A store that hangs: the committed rows of a world of delivery, and each process's view of them, in which every await
point is a place where one call may hang, go on, fail, or be left for ever."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from twisted.internet.defer import Deferred

from fastchat.errors import Busy
from fastchat.store import ANY_SIZE, Mail, Stored, Waiting
from fastchat.store.memory import MemoryStore
from tests.support.delivery import now

if TYPE_CHECKING:
    from tests.support.delivery_world import Process, World


class Pause(NamedTuple):
    """A call that hangs at one of its await points. `rest`: what the database has yet to do of it, if anything."""

    process: Process
    point: str
    go_on: Deferred[None]
    rest: Callable[[], object] | None


class Rows(MemoryStore):
    """The committed rows: what a PostgreSQL would still have after everything else was killed."""

    def commit(self, batch: Sequence[Mail], first: int) -> list[Stored]:
        """Commit a batch whose row numbers were drawn earlier. Rows are read by their number, whenever they appear."""
        drawn, self._last_message = self._last_message, first - 1
        outcomes = list(now(super().store_mail(batch)))
        self._last_message = drawn
        for device in {mail.recipient for mail in batch} & self._mailboxes.keys():
            self._mailboxes[device] = dict(sorted(self._mailboxes[device].items()))
        return outcomes

    def draw(self, count: int) -> int:
        """Draw `count` row numbers; the first of them."""
        self._last_message += count
        return self._last_message - count + 1

    def names(self, device: str) -> set[tuple[str, int]]:
        """(sending device, n) of everything in a device's mailbox, whether the database can be reached or not."""
        return {(row.device, row.n) for row in self._mailboxes[device].values()}


POINTS = (
    "store: asked",
    "store: numbers drawn",
    "store: committed",
    "read: asked",
    "read: found",
    "delete: asked",
    "delete: committed",
    "sweep: asked",
    "sweep: found",
)
"""Every await point of delivery is one of these."""


class DelayedStore:
    """The store as one process sees it. At a point that is held, a call hangs until a rule lets it go on."""

    def __init__(self, world: World, process: Process) -> None:
        self._world = world
        self._process = process

    async def _point(self, point: str, rest: Callable[[], object] | None = None) -> None:
        if point in self._world.held:
            self._world.held.remove(point)
            go_on: Deferred[None] = Deferred()
            self._world.paused.append(Pause(self._process, point, go_on, rest))
            await go_on
        if not self._world.rows.available:
            raise Busy

    async def store_mail(self, batch: Sequence[Mail]) -> Sequence[Stored]:
        rows = self._world.rows
        await self._point("store: asked", lambda: rows.commit(batch, rows.draw(len(batch))))
        first = rows.draw(len(batch))
        await self._point("store: numbers drawn", lambda: rows.commit(batch, first))
        outcomes = rows.commit(batch, first)
        await self._point("store: committed")
        self._world.note_outcomes(batch, outcomes)
        return outcomes

    async def mailbox(
        self, device: str, in_flight: Sequence[int], limit: int, enough: int = ANY_SIZE
    ) -> Sequence[Waiting]:
        await self._point("read: asked")
        page = await self._world.rows.mailbox(device, in_flight, limit, enough)
        await self._point("read: found")
        return page

    async def delete_mail(self, pairs: Sequence[tuple[str, int]]) -> None:
        rows = self._world.rows
        await self._point("delete: asked", lambda: now(rows.delete_mail(pairs)))
        await rows.delete_mail(pairs)
        await self._point("delete: committed")

    async def waiting(self, devices: Sequence[str]) -> Sequence[str]:
        await self._point("sweep: asked")
        found = await self._world.rows.waiting(devices)
        await self._point("sweep: found")
        return found
