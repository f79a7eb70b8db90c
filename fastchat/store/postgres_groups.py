"""The groups of the PostgreSQL store. It knows the pool that `PostgresStore` lends it, and no rule of groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fastchat.errors import GroupChanged, UnknownGroup, UnknownUser
from fastchat.protocols.wire import Signed
from fastchat.store import GroupMember, GroupRow
from fastchat.store.connections import Pool, Session
from fastchat.store.queries import query
from fastchat.store.values import hex_digits, possible, violations_named

_ADD_GROUP, _LOCK_GROUP, _GROW_GROUP = query("add_group"), query("lock_group"), query("grow_group")
_ADD_STATEMENT, _PUT_MEMBERS = query("add_group_statement"), query("put_group_members")
_GROUP, _STATEMENTS = query("group"), query("group_statements")
_GROUPS_OF, _COUNT, _DEVICES = query("groups_of"), query("group_count"), query("group_devices")


class PostgresGroups:
    """The part of a `Store` that is about groups."""

    _general: Pool

    async def _rows(self, sql: str, parameters: Mapping[str, object] | None = None) -> list[tuple[Any, ...]]:
        return await self._general.run(lambda session: session.rows(sql, parameters))

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
        if len(possible(member.user for member in changed)) < len(changed):
            raise UnknownUser
        chain = {"group": group, "position": position, "head": head, "title": title, "deleted": deleted}

        async def work(session: Session) -> None:
            with violations_named():
                await append(session)

        async def append(session: Session) -> None:
            async with session.transaction():
                if position == 0:
                    if not await session.rows(_ADD_GROUP, chain):
                        raise GroupChanged
                else:
                    await _hold(session, group, position)
                    await session.run(_GROW_GROUP, chain)
                await session.run(
                    _ADD_STATEMENT,
                    {"group": group, "position": position, "body": statement.body, "signature": statement.signature},
                )
                await _put_members(session, group, changed)

        await self._general.run(work)

    async def group(self, group: str) -> GroupRow | None:
        rows = await self._rows(_GROUP, {"group": group})
        if not rows:
            return None
        length, head, title, deleted = rows[0][:4]
        members = [GroupMember(*row[4:]) for row in rows if row[4] is not None]
        return GroupRow(group, length, bytes(head), bytes(title), deleted, members)

    async def group_statements(self, group: str, start: int, limit: int) -> Sequence[Signed]:
        rows = await self._rows(_STATEMENTS, {"group": group, "start": start, "limit": limit})
        return [Signed(bytes(body), bytes(signature)) for body, signature in rows]

    async def groups_of(self, user: str, limit: int) -> Sequence[tuple[str, int]]:
        if not possible([user]):
            return []
        rows = await self._rows(_GROUPS_OF, {"user": user, "limit": limit})
        return [(hex_digits(group), length) for group, length in rows]

    async def group_count(self, user: str, invited: bool = True) -> int:
        if not possible([user]):
            return 0
        [(count,)] = await self._rows(_COUNT, {"user": user, "invited": invited})
        return int(count)

    async def group_devices(self, group: str) -> Sequence[str]:
        return [hex_digits(device) for (device,) in await self._rows(_DEVICES, {"group": group})]


async def _hold(session: Session, group: str, position: int) -> None:
    """Lock the group for the rest of the transaction, in which its length is `position`."""
    rows = await session.rows(_LOCK_GROUP, {"group": group})
    if not rows:
        raise UnknownGroup
    if rows[0][0] != position:
        raise GroupChanged


async def _put_members(session: Session, group: str, members: Sequence[GroupMember]) -> None:
    if members:
        users, roles, sinces, untils, inviters, histories = map(list, zip(*members, strict=True))
        await session.run(
            _PUT_MEMBERS,
            {
                "group": group,
                "users": users,
                "roles": roles,
                "sinces": sinces,
                "untils": untils,
                "inviters": inviters,
                "histories": histories,
            },
        )
