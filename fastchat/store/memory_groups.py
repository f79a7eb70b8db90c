"""The groups of the store in memory; it knows what `MemoryStore` gives it and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from fastchat.errors import GroupChanged, UnknownGroup, UnknownUser
from fastchat.protocols.wire import Signed
from fastchat.store import Account, Device, GroupMember, GroupRow


class _Group:
    def __init__(self) -> None:
        self.statements: list[Signed] = []
        self.members: dict[str, GroupMember] = {}
        self.head = b""
        self.title = b""
        self.deleted = False


class MemoryGroups:
    """The part of a `Store` that is about groups."""

    _accounts: Mapping[str, Account]
    _devices_of: Mapping[str, Sequence[Device]]
    _check_available: Callable[[], None]
    """Raises `Busy` while the database is to be away."""

    def __init__(self) -> None:
        self._groups: dict[str, _Group] = {}

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
        self._check_available()
        known = self._groups.get(group) or _Group()
        if position and group not in self._groups:
            raise UnknownGroup
        if len(known.statements) != position:
            raise GroupChanged
        if any(member.user not in self._accounts for member in changed):
            raise UnknownUser
        known.statements.append(statement)
        known.members.update((member.user, member) for member in changed)
        known.head, known.title, known.deleted = head, title, deleted
        self._groups[group] = known

    async def group(self, group: str) -> GroupRow | None:
        self._check_available()
        known = self._groups.get(group)
        if known is None:
            return None
        members = [member for _, member in sorted(known.members.items())]
        return GroupRow(group, len(known.statements), known.head, known.title, known.deleted, members)

    async def group_statements(self, group: str, start: int, limit: int) -> Sequence[Signed]:
        self._check_available()
        known = self._groups.get(group)
        return known.statements[start : start + limit] if known else []

    async def groups_of(self, user: str, limit: int) -> Sequence[tuple[str, int]]:
        self._check_available()
        found = []
        for group, known in sorted(self._groups.items()):
            if member := known.members.get(user):
                is_over = member.until is not None or known.deleted
                found.append((is_over, group, member.until or len(known.statements)))
        return [(group, length) for _, group, length in sorted(found)[:limit]]

    async def group_count(self, user: str, invited: bool = True) -> int:
        self._check_available()
        parts = [known.members[user] for known in self._groups.values() if not known.deleted and user in known.members]
        return sum(member.role != "gone" and (invited or member.role != "invited") for member in parts)

    async def group_devices(self, group: str) -> Sequence[str]:
        self._check_available()
        known = self._groups.get(group)
        members = sorted(known.members.values()) if known else []
        joined = (member.user for member in members if member.role in ("owner", "admin", "member"))
        return [device.device for user in joined for device in self._devices_of[user]]
