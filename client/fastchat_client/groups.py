"""The groups that this vault knows: each one's chain as it was verified here, and what that comes to.

A statement is taken only if it follows on the one before and its actor may do that (`identity.groups`); whose key it
is checked with is the caller's to look up. What a group is called is told end to end, and believed if the chain's hash
stands for it. Nothing here knows a server, a session or a message.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec

from fastchat.errors import GroupInvalid, RequestError, UnknownGroup
from fastchat.identity import groups as chains
from fastchat.identity.groups import GroupState, Statement, Title
from fastchat.identity.names import check_name
from fastchat.protocols.wire import Signed
from fastchat_client.vault import Vault

_encode = msgspec.json.encode
_decode_state = msgspec.json.Decoder(GroupState).decode
_decode_title = msgspec.json.Decoder(Title).decode
_GROUP = re.compile(r"#[0-9a-f]{32}\Z")
_PREFIX = re.compile(r"[0-9a-f]{4,32}\Z")


_EARLY = "title of "
MOST_EARLY = 100
"""Groups of which a title is kept that no statement has the hash of."""


@dataclass(frozen=True, slots=True)
class Known:
    """A group as it is believed here. `title` is None until somebody has told what the chain's hash stands for; `alarm`
    is the code of what the server was caught at."""

    state: GroupState
    title: Title | None = None
    alarm: str = ""


class GroupInfo(msgspec.Struct, frozen=True):
    """A group for people. `role`: this account's, or "invited", or "gone". `name` is "" until it has been told."""

    conversation: str
    name: str
    topic: str
    role: str
    members: tuple[tuple[str, str], ...]
    """(user, role), in the order in which they joined."""
    invited: tuple[tuple[str, str], ...]
    """(user, by whom)."""
    deleted: bool
    alarm: str
    muted: bool
    timer: int


def conversation_of(group: str) -> str:
    """A group's id as the name of a conversation."""
    return f"#{group}"


def group_of(conversation: str) -> str:
    """The group's id; "" for a conversation with one person."""
    return conversation[1:] if _GROUP.match(conversation) else ""


class Groups:
    """Writes need a transaction around them."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault
        self._cache: dict[str, Known] = {}

    def get(self, group: str) -> Known | None:
        known = self._cache.get(group)
        if known is None:
            row = self._vault.execute("SELECT state, title, alarm FROM groups WHERE group_id = ?", (group,)).fetchone()
            if row is None:
                return None
            title = None if row[1] is None else _decode_title(row[1])
            known = self._cache[group] = Known(_decode_state(row[0]), title, row[2])
        return known

    @property
    def all(self) -> list[str]:
        return [group for (group,) in self._vault.execute("SELECT group_id FROM groups ORDER BY group_id")]

    def length(self, group: str) -> int:
        """How many statements of it are known here."""
        known = self.get(group)
        return 0 if known is None else known.state.length

    def members(self, group: str) -> tuple[str, ...]:
        """Who is in it now; nobody in a group that is deleted or not known."""
        known = self.get(group)
        return () if known is None or known.state.deleted else tuple(known.state.members)

    def role(self, group: str, user: str) -> str:
        """owner, admin or member; "" if `user` is none of these."""
        known = self.get(group)
        if known is None or known.state.deleted or user not in known.state.members:
            return ""
        return known.state.members[user].role

    def was_member(self, group: str, user: str, length: int) -> bool:
        """Whether `user` was a member when the chain had `length` statements."""
        row = self._vault.execute(
            "SELECT 1 FROM group_spans WHERE group_id = ? AND user = ? AND since <= ? AND (until IS NULL OR until > ?)",
            (group, user, length, length),
        ).fetchone()
        return row is not None

    def members_since(self, group: str, length: int) -> list[str]:
        """Who was a member when the chain had `length` statements, or became one later."""
        rows = self._vault.execute(
            "SELECT DISTINCT user FROM group_spans WHERE group_id = ? AND (until IS NULL OR until > ?)", (group, length)
        )
        return [user for (user,) in rows]

    def has_left(self, group: str, user: str) -> bool:
        """Whether `user` was a member once and is not any more."""
        row = self._vault.execute("SELECT 1 FROM group_spans WHERE group_id = ? AND user = ?", (group, user)).fetchone()
        return row is not None and user not in self.members(group)

    def ever_member(self, group: str, user: str) -> bool:
        """Whether `user` is a member or was one."""
        row = self._vault.execute("SELECT 1 FROM group_spans WHERE group_id = ? AND user = ?", (group, user)).fetchone()
        return row is not None

    def is_run_by(self, user: str) -> bool:
        """Whether `user` is an owner or an admin of any group here."""
        return any(self.role(group, user) in ("owner", "admin") for group in self.all)

    def inviter(self, group: str, user: str) -> tuple[str, int] | None:
        """By whom `user` was invited last, and with how many days of history; None if never. Who was invited more than
        once is who the last invitation says."""
        known = self.get(group)
        if known is None:
            return None
        if user in known.state.invited:
            return known.state.invited[user].by, known.state.invited[user].history
        row = self._vault.execute(
            "SELECT MAX(since) FROM group_spans WHERE group_id = ? AND user = ?", (group, user)
        ).fetchone()
        for position in range((row[0] or 0) - 1, -1, -1):
            signed = self.statement(group, position)
            statement = None if signed is None else chains.read(signed)
            if isinstance(statement, chains.Invite) and statement.who == user:
                return statement.user, statement.history
        return None

    def end(self, group: str, device: str) -> None:
        """A device is known to be revoked, and all that it has signed is in the chain by now."""
        self._vault.execute(
            "INSERT OR IGNORE INTO group_ends (group_id, device, length) VALUES (?, ?, ?)",
            (group, device, self.length(group)),
        )

    def has_ended(self, group: str, device: str, position: int) -> bool:
        """Whether `device` was known to be revoked when the chain had no statement at `position` yet."""
        row = self._vault.execute(
            "SELECT 1 FROM group_ends WHERE group_id = ? AND device = ? AND length <= ?", (group, device, position)
        ).fetchone()
        return row is not None

    def head(self, group: str, length: int) -> bytes:
        """SHA-256 of the last statement's body when the chain had `length` statements; b"" if it has not that many."""
        statement = self.statement(group, length - 1)
        return b"" if statement is None else hashlib.sha256(statement.body).digest()

    def statement(self, group: str, position: int) -> Signed | None:
        row = self._vault.execute(
            "SELECT body, signature FROM group_statements WHERE group_id = ? AND position = ?", (group, position)
        ).fetchone()
        return None if row is None else Signed(row[0], row[1])

    def take(self, signed: Signed, ed25519: bytes, group: str = "") -> Statement:
        """The next statement of `group`, or the first one of a group that is not known yet; what it says. `ed25519`:
        the key of its actor's device. Raises as `identity.groups.extend`; then nothing has changed."""
        known = self.get(group) if group else None
        state = chains.extend(None if known is None else known.state, signed, ed25519)
        if group and state.group != group:
            raise GroupInvalid("a group's first statement is another group's")
        statement = chains.read(signed)
        vault, position = self._vault, state.length - 1
        vault.execute(
            "INSERT INTO group_statements (group_id, position, body, signature) VALUES (?, ?, ?, ?)",
            (state.group, position, signed.body, signed.signature),
        )
        title = known.title if known is not None and known.state.title == state.title else self._early(state)
        self._note_span(known, state, statement)
        self._keep(Known(state, title, "" if known is None else known.alarm))
        return statement

    def tell_title(self, group: str, title: Title) -> bool:
        """Somebody says what the group is called. Whether that is news, and what the chain's hash stands for; if not,
        the statement with that hash may still be on its way."""
        known = self.get(group)
        if known is None or not chains.opens(title, known.state.title):
            self._keep_early(group, title)
            return False
        if known.title == title:
            return False
        self._keep(Known(known.state, title, known.alarm))
        return True

    def alarm(self, group: str, code: str) -> None:
        """Remember what the server was caught at."""
        known = self.get(group)
        if known is not None:
            self._keep(Known(known.state, known.title, code))

    def forget(self, group: str) -> None:
        """A group that never came to be."""
        self._cache.pop(group, None)
        for table in ("groups", "group_statements", "group_spans"):
            self._vault.execute(f"DELETE FROM {table} WHERE group_id = ?", (group,))  # noqa: S608

    # --- titles that come before the statement that they belong to ---------------------------------------------------

    def _keep_early(self, group: str, title: Title) -> None:
        """The newest of each group; not more than anybody needs, for anybody can send them."""
        name = f"{_EARLY}{group}"
        row = self._vault.execute(
            "SELECT COUNT(*) FROM meta WHERE substr(name, 1, ?) = ? AND name != ?", (len(_EARLY), _EARLY, name)
        ).fetchone()
        if row[0] < MOST_EARLY:
            self._vault.put(name, _encode(title))

    def _early(self, state: GroupState) -> Title | None:
        name = f"{_EARLY}{state.group}"
        kept = self._vault.blob(name)
        if not kept or not chains.opens(title := _decode_title(kept), state.title):
            return None
        self._vault.execute("DELETE FROM meta WHERE name = ?", (name,))
        return title

    # --- within ------------------------------------------------------------------------------------------------------

    def _note_span(self, known: Known | None, state: GroupState, statement: Statement) -> None:
        before: Mapping[str, object] = {} if known is None else known.state.members
        whom = chains.subject(statement) or statement.user
        if whom in state.members and whom not in before:
            self._vault.execute(
                "INSERT INTO group_spans (group_id, user, since) VALUES (?, ?, ?)", (state.group, whom, state.length)
            )
        elif whom in before and whom not in state.members:
            self._vault.execute(
                "UPDATE group_spans SET until = ? WHERE group_id = ? AND user = ? AND until IS NULL",
                (state.length, state.group, whom),
            )

    def _keep(self, known: Known) -> None:
        state, title = known.state, known.title
        self._cache[state.group] = known
        self._vault.execute(
            "INSERT OR REPLACE INTO groups (group_id, length, state, title, name, topic, alarm)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                state.group,
                state.length,
                _encode(state),
                None if title is None else _encode(title),
                "" if title is None else title.name,
                "" if title is None else title.topic,
                known.alarm,
            ),
        )


# --- for faces -----------------------------------------------------------------------------------------------------


def group_list(vault: Vault) -> list[GroupInfo]:
    """Every group that this account is in, is invited to, or was in; by name."""
    groups, me = Groups(vault), vault.text("user")
    found = [_info(vault, known, me) for group in groups.all if (known := groups.get(group)) is not None]
    return sorted(found, key=lambda info: (info.name.casefold(), info.conversation))


def group_info(vault: Vault, conversation: str) -> GroupInfo | None:
    """The group of this conversation, if it is known."""
    known = Groups(vault).get(group_of(conversation))
    return None if known is None else _info(vault, known, vault.text("user"))


def resolve(vault: Vault, text: str) -> str:
    """The conversation that a person means: "#team" by the group's name, "#1a2b" by the beginning of its id, else a
    user's name. Raises `UnknownGroup` (none), `RequestError` (several), or `NameNotAllowed`."""
    if not text.startswith("#"):
        return check_name(text.removeprefix("@"))
    wanted = text[1:].strip()
    infos = group_list(vault)
    found = [info for info in infos if info.name.casefold() == wanted.casefold() and wanted]
    found = [info for info in found if _is_open(info)] or found
    if not found and _PREFIX.match(wanted):
        found = [info for info in infos if info.conversation.startswith(f"#{wanted}")]
    if len(found) == 1:
        return found[0].conversation
    if found:
        raise RequestError(f"several groups are called {wanted}: say which one by its id: {_choices(found)}")
    known = [info for info in infos if _is_open(info)]
    more = f"; there are: {_choices(known)}" if known else "; you are in no group yet"
    raise UnknownGroup(f"you know no group {text}{more}")


def _is_open(info: GroupInfo) -> bool:
    return info.role != "gone" and not info.deleted


def _choices(infos: Sequence[GroupInfo]) -> str:
    return ", ".join(f"#{info.name or '?'} ({info.conversation[:9]})" for info in infos[:10])


def _info(vault: Vault, known: Known, me: str) -> GroupInfo:
    state, title = known.state, known.title
    conversation = conversation_of(state.group)
    role = "gone"
    if me in state.members:
        role = state.members[me].role
    elif me in state.invited:
        role = "invited"
    settings = vault.execute(
        "SELECT muted, timer FROM conversation_settings WHERE conversation = ?", (conversation,)
    ).fetchone()
    return GroupInfo(
        conversation=conversation,
        name="" if title is None else title.name,
        topic="" if title is None else title.topic,
        role=role,
        members=tuple((user, member.role) for user, member in state.members.items()),
        invited=tuple((user, invitation.by) for user, invitation in state.invited.items()),
        deleted=state.deleted,
        alarm=known.alarm,
        muted=bool(settings and settings[0]),
        timer=int(settings[1]) if settings else 0,
    )
