"""What a person wants done to a group, from the wish to the statement in its chain.

Any process of the profile may note an act, also while there is no network; the one that is connected signs it, as the
chain is then, and asks the server to append it. If somebody else was first, an act that means the same as before is
signed again; one that might not is given up, and its person is told what has happened instead.
"""

from __future__ import annotations

import secrets
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from fastchat.errors import FastChatError, GroupChanged, GroupInvalid, NotAllowed, RequestError, UnknownGroup
from fastchat.identity import groups as chains
from fastchat.identity.groups import MAX_HISTORY, GroupState, Statement, Title
from fastchat.identity.names import check_name
from fastchat.protocols.wire import GroupAct, GroupDone, GroupNews, Signed
from fastchat_client.content import GroupTitle, encode_content
from fastchat_client.events import ActDone, ActFailed, iso
from fastchat_client.events import GroupChanged as GroupNow
from fastchat_client.group_following import GroupFollower
from fastchat_client.groups import Groups, conversation_of, group_of
from fastchat_client.parts import Live, Parts
from fastchat_client.prekeeping import Prekeeper
from fastchat_client.vault import Vault

DEFAULT_HISTORY = 7
"""Days of earlier messages that a newcomer is given, if the one who invites says nothing."""
MOST_REPEATED = 20
"""How often an act is signed anew because others were first."""
_OPEN, _DONE, _FAILED = 0, 1, 2


class CreateAct(msgspec.Struct, tag_field="act", tag="create", frozen=True):
    """A new group. Its first statement is signed when it is noted, for that gives the group its id."""

    title: Title


class InviteAct(msgspec.Struct, tag_field="act", tag="invite", frozen=True):
    """`history`: days of earlier messages that `who` is given on joining."""

    who: str
    history: Annotated[int, Meta(ge=0, le=MAX_HISTORY)] = DEFAULT_HISTORY


class JoinAct(msgspec.Struct, tag_field="act", tag="join", frozen=True):
    """Accept an invitation."""


class LeaveAct(msgspec.Struct, tag_field="act", tag="leave", frozen=True):
    """Go, or decline an invitation."""


class RemoveAct(msgspec.Struct, tag_field="act", tag="remove", frozen=True):
    """`who` is to go, or is invited no more."""

    who: str


class RoleAct(msgspec.Struct, tag_field="act", tag="role", frozen=True):
    """`role`: owner, admin or member."""

    who: str
    role: chains.Role


class RenameAct(msgspec.Struct, tag_field="act", tag="rename", frozen=True):
    name: str


class TopicAct(msgspec.Struct, tag_field="act", tag="topic", frozen=True):
    topic: str


class DeleteAct(msgspec.Struct, tag_field="act", tag="delete", frozen=True):
    """The group is to end for everybody."""


Act = InviteAct | JoinAct | LeaveAct | RemoveAct | RoleAct | RenameAct | TopicAct | DeleteAct
_decode = msgspec.json.Decoder(CreateAct | Act).decode
_encode = msgspec.json.encode


class ActState(msgspec.Struct, frozen=True):
    """How far an act has come. `code` and `reason`: why it failed."""

    done: bool
    failed: bool
    code: str
    reason: str


def new_title(name: str, topic: str) -> Title:
    """Raises `RequestError` for what no group can be called."""
    title = Title(salt=secrets.token_bytes(32), name=name.strip(), topic=topic.strip())
    try:
        chains.title_hash(title)
    except GroupInvalid:
        raise RequestError("a group's name has 1 to 64 characters, its topic at most 512") from None
    if not title.name.isprintable() or title.name.startswith("#"):
        raise RequestError("a group's name is one line of characters that can be seen, and does not begin with #")
    return title


def compose_create(vault: Vault, name: str, topic: str, at: int) -> tuple[int, str]:
    """Note a new group; the act's number, and the group's conversation, which can be written to at once. Raises
    `RequestError`."""
    title = new_title(name, topic)
    with vault.transaction():
        prekeeper = Prekeeper(vault)
        me = prekeeper.identity
        signed = chains.sign(
            prekeeper.account.sign,
            chains.Create(
                position=0,
                prev=b"",
                user=me.user,
                device=me.device,
                at=at,
                nonce=secrets.token_bytes(16),
                title=chains.title_hash(title),
            ),
        )
        groups = Groups(vault)
        groups.take(signed, me.ed25519)
        group = chains.group_id(signed.body)
        groups.tell_title(group, title)
        cursor = vault.execute(
            "INSERT INTO group_acts (group_id, act, at, length, statement, signature) VALUES (?, ?, ?, 0, ?, ?)",
            (group, _encode(CreateAct(title)), at, signed.body, signed.signature),
        )
    return int(cursor.lastrowid), conversation_of(group)


def compose_act(vault: Vault, conversation: str, act: Act, at: int) -> int:
    """Note an act; its number. Raises `RequestError` if the group is not known, or `NotAllowed` if its rules forbid it,
    by what is known here."""
    with vault.transaction():
        group, me = group_of(conversation), Prekeeper(vault).identity
        known = Groups(vault).get(group)
        if known is None:
            raise UnknownGroup
        if isinstance(act, InviteAct | RemoveAct | RoleAct):
            check_name(act.who)
        if isinstance(act, TopicAct) and known.title is None:
            raise RequestError("the group's name has not been told yet: wait for a message, or rename it")
        title = known.title
        if isinstance(act, RenameAct | TopicAct):
            title = _title_after(title, act)
        chains.permits(known.state, _statement(known.state, act, title, me.user, me.device, at))
        cursor = vault.execute(
            "INSERT INTO group_acts (group_id, act, at, length) VALUES (?, ?, ?, ?)",
            (group, _encode(act), at, known.state.length),
        )
    return int(cursor.lastrowid)


def act_state(vault: Vault, act: int) -> ActState:
    """How far act number `act` has come."""
    row = vault.execute("SELECT state, code, reason FROM group_acts WHERE seq = ?", (act,)).fetchone()
    if row is None:
        return ActState(False, True, RequestError.code, "there is no such act")
    return ActState(row[0] == _DONE, row[0] == _FAILED, row[1], row[2])


class _Noted(msgspec.Struct):
    """A row of the acts."""

    seq: int
    group: str
    act: CreateAct | Act
    at: int
    length: int
    signed: Signed | None


class GroupActing:
    """The acts of the process that is connected. `created` groups can be written to from then on."""

    def __init__(self, parts: Parts, follower: GroupFollower) -> None:
        self._parts = parts
        self._follower = follower
        self._repeated: dict[int, int] = {}
        self._not_before: dict[int, float] = {}
        self._titles: dict[bytes, Title] = {}
        """By hash, what this device has named a group and told nobody yet."""
        follower.applied.append(self._applied)
        follower.followed.append(self._followed)

    def pump(self, live: Live) -> None:
        """Ask for what can be asked for now: one act of each group at a time."""
        if live.leaving is not None or self._parts.alarmed:
            return
        busy = set[str]()
        for noted in self._noted():
            if noted.group not in busy and noted.seq not in live.acts.values():
                self._go(live, noted)
            busy.add(noted.group)

    def _go(self, live: Live, noted: _Noted) -> None:
        if self._not_before.get(noted.seq, 0.0) > self._parts.clock():
            return
        if isinstance(noted.act, CreateAct):
            self._say(live, noted, noted.signed)
        elif not self._follower.is_current(noted.group):
            if live.groups_listed and noted.group not in live.groups:
                self._follower.want(live, noted.group)
        else:
            try:
                self._say(live, noted, self._sign(noted))
            except (NotAllowed, GroupInvalid) as problem:
                self._fail(noted, problem)

    def _say(self, live: Live, noted: _Noted, signed: Signed | None) -> None:
        assert signed is not None
        request = self._parts.say(lambda i: GroupAct(i, noted.group, signed))
        live.acts[request] = noted.seq

    def _sign(self, noted: _Noted) -> Signed:
        """The statement, as the chain is now. Raises `NotAllowed`, `GroupInvalid`."""
        parts, me = self._parts, self._parts.me
        assert not isinstance(noted.act, CreateAct)
        known = parts.groups.get(noted.group)
        if known is None:
            raise GroupInvalid("this group is not known here")
        title = known.title
        if isinstance(noted.act, RenameAct | TopicAct):
            title = _title_after(title, noted.act)
            self._titles[chains.title_hash(title)] = title
        statement = _statement(known.state, noted.act, title, me.user, me.device, noted.at)
        chains.permits(known.state, statement)
        signed = chains.sign(parts.prekeeper.account.sign, statement)
        parts.vault.execute(
            "UPDATE group_acts SET statement = ?, signature = ?, length = ? WHERE seq = ?",
            (signed.body, signed.signature, known.state.length, noted.seq),
        )
        return signed

    # --- answers -----------------------------------------------------------------------------------------------------

    def answered(self, live: Live, answer: GroupDone) -> None:
        seq = live.acts.pop(answer.re, 0)
        noted = self._one(seq)
        if noted is None or noted.signed is None:
            return
        if isinstance(noted.act, CreateAct):
            self._done(noted)
            self._follower.want(live, noted.group, 1)
        elif self._parts.groups.length(noted.group) == noted.length:
            # Its own news have not come: it is what the server says it has taken.
            self._follower.news(live, GroupNews(noted.group, noted.length, noted.signed))
        else:
            self._follower.want(live, noted.group, answer.length)

    def refused(self, live: Live, request: int, problem: FastChatError) -> bool:
        """Whether `request` was an act."""
        seq = live.acts.pop(request, 0)
        noted = self._one(seq)
        if noted is None:
            return bool(seq)
        if isinstance(problem, GroupChanged) and isinstance(noted.act, CreateAct):
            self._done(noted)  # it is there already: the answer to its first asking was lost
            self._follower.want(live, noted.group, 1)
        elif isinstance(problem, GroupChanged):
            self._follower.look_again(live, noted.group)
        elif problem.retry_after is None:
            self._fail(noted, problem)
        else:
            self._not_before[seq] = self._parts.clock() + problem.retry_after
        return True

    def _followed(self, group: str) -> None:
        """The chain is known to its end: was somebody else first?"""
        for noted in self._noted(group):
            if noted.signed is None or isinstance(noted.act, CreateAct):
                continue
            if self._is_in_chain(noted):
                self._done(noted)
            elif self._parts.groups.length(group) > noted.length:
                self._come_second(noted)

    def _come_second(self, noted: _Noted) -> None:
        """Somebody else's statement stands where this one should: sign it again if it still means the same."""
        parts = self._parts
        between = [
            chains.read(signed)
            for position in range(noted.length, parts.groups.length(noted.group))
            if (signed := parts.groups.statement(noted.group, position)) is not None
        ]
        count = self._repeated[noted.seq] = self._repeated.get(noted.seq, 0) + 1
        others = [statement for statement in between if not isinstance(statement, chains.Join | chains.Leave)]
        if count > MOST_REPEATED or (others and not isinstance(noted.act, JoinAct | LeaveAct)):
            what = ", ".join(_in_words(statement) for statement in others or between)
            self._fail(noted, GroupChanged(f"somebody changed the group in the same moment ({what}); nothing was done"))
        else:
            parts.vault.execute("UPDATE group_acts SET statement = NULL, signature = NULL WHERE seq = ?", (noted.seq,))

    def _applied(self, before: GroupState | None, after: GroupState, statement: Statement, signed: Signed) -> None:
        """If it names the group as this device wanted, tell the others what the name is."""
        parts = self._parts
        title = self._titles.pop(after.title, None) if isinstance(statement, chains.Retitle) else None
        if title is not None and statement.device == parts.me.device:
            parts.groups.tell_title(after.group, title)
            content = encode_content(GroupTitle(after.group, title))
            parts.outbox.compose(conversation_of(after.group), "", content, parts.now())
        for noted in self._noted(after.group):
            if noted.signed is not None and noted.signed.body == signed.body:
                self._done(noted)

    def _is_in_chain(self, noted: _Noted) -> bool:
        assert noted.signed is not None
        ours = self._parts.groups.statement(noted.group, noted.length)
        return ours is not None and ours.body == noted.signed.body

    def _done(self, noted: _Noted) -> None:
        self._parts.vault.execute("UPDATE group_acts SET state = ? WHERE seq = ?", (_DONE, noted.seq))
        conversation = conversation_of(noted.group)
        self._parts.tell(ActDone(noted.seq, conversation))
        if isinstance(noted.act, CreateAct):
            user = self._parts.me.user
            self._parts.tell(GroupNow(conversation, "created", user, "", noted.act.title.name, iso(noted.at)))

    def _fail(self, noted: _Noted, problem: FastChatError) -> None:
        self._parts.vault.execute(
            "UPDATE group_acts SET state = ?, code = ?, reason = ? WHERE seq = ?",
            (_FAILED, problem.code, problem.message, noted.seq),
        )
        if isinstance(noted.act, CreateAct):
            self._parts.groups.forget(noted.group)
        self._parts.tell(ActFailed(noted.seq, conversation_of(noted.group), problem.code, problem.message))

    # --- rows --------------------------------------------------------------------------------------------------------

    def _noted(self, group: str = "") -> list[_Noted]:
        """The open acts, in order."""
        rows = self._parts.vault.execute(
            "SELECT seq, group_id, act, at, length, statement, signature FROM group_acts"
            " WHERE state = 0 AND (? = '' OR group_id = ?) ORDER BY seq",
            (group, group),
        ).fetchall()
        return [_read(row) for row in rows]

    def _one(self, seq: int) -> _Noted | None:
        return next((noted for noted in self._noted() if noted.seq == seq), None)


def _read(row: tuple[int, str, bytes, int, int, bytes | None, bytes | None]) -> _Noted:
    signed = None if row[5] is None or row[6] is None else Signed(row[5], row[6])
    return _Noted(row[0], row[1], _decode(row[2]), row[3], row[4], signed)


def _title_after(title: Title | None, act: RenameAct | TopicAct) -> Title:
    if isinstance(act, RenameAct):
        return new_title(act.name, "" if title is None else title.topic)
    return new_title("?" if title is None else title.name, act.topic)


def _statement(state: GroupState, act: Act, title: Title | None, user: str, device: str, at: int) -> Statement:
    common: dict[str, Any] = {
        "group": state.group,
        "position": state.length,
        "prev": state.head,
        "user": user,
        "device": device,
        "at": at,
    }
    match act:
        case InviteAct():
            return chains.Invite(**common, who=act.who, history=act.history)
        case JoinAct():
            return chains.Join(**common)
        case LeaveAct():
            return chains.Leave(**common)
        case RemoveAct():
            return chains.Remove(**common, who=act.who)
        case RoleAct():
            return chains.SetRole(**common, who=act.who, role=act.role)
        case RenameAct() | TopicAct():
            assert title is not None
            return chains.Retitle(**common, title=chains.title_hash(title))
        case DeleteAct():
            return chains.Delete(**common)


def _in_words(statement: Statement) -> str:
    who = chains.subject(statement)
    kind = str(type(statement).__struct_config__.tag)
    verbs = {
        "invite": "invited",
        "remove": "removed",
        "role": "gave another role to",
        "title": "renamed it",
        "delete": "deleted it",
    }
    return f"{statement.user} {verbs.get(kind, kind)}{f' {who}' if who else ''}"
