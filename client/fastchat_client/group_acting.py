"""What a person wants done to a group, noted until it is done.

Any process of the profile may note an act at any time, also while there is no network; the one that is connected has it
appended to the group's chain (`group_appending`).
"""

from __future__ import annotations

import secrets
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from fastchat.errors import GroupInvalid, RequestError, UnknownGroup
from fastchat.identity import groups as chains
from fastchat.identity.groups import MAX_HISTORY, GroupState, Statement, Title
from fastchat.identity.names import check_name
from fastchat_client.groups import Groups, conversation_of, group_of
from fastchat_client.prekeeping import Prekeeper
from fastchat_client.vault import Vault

DEFAULT_HISTORY = 7
"""Days of earlier messages that a newcomer is given, if the one who invites says nothing."""
OPEN, DONE, FAILED = 0, 1, 2
"""How far an act has come, as it stands in vaults."""


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
    """`title`: what the statement that was signed last stands for."""

    name: str
    title: Title | None = None


class TopicAct(msgspec.Struct, tag_field="act", tag="topic", frozen=True):
    """As `RenameAct`."""

    topic: str
    title: Title | None = None


class DeleteAct(msgspec.Struct, tag_field="act", tag="delete", frozen=True):
    """The group is to end for everybody."""


Act = InviteAct | JoinAct | LeaveAct | RemoveAct | RoleAct | RenameAct | TopicAct | DeleteAct
decode_act = msgspec.json.Decoder(CreateAct | Act).decode
encode_act = msgspec.json.encode


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
            (group, encode_act(CreateAct(title)), at, signed.body, signed.signature),
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
            title = title_after(title, act)
        chains.permits(known.state, statement_of(known.state, act, title, me.user, me.device, at))
        cursor = vault.execute(
            "INSERT INTO group_acts (group_id, act, at, length) VALUES (?, ?, ?, ?)",
            (group, encode_act(act), at, known.state.length),
        )
    return int(cursor.lastrowid)


def act_state(vault: Vault, act: int) -> ActState:
    """How far act number `act` has come."""
    row = vault.execute("SELECT state, code, reason FROM group_acts WHERE seq = ?", (act,)).fetchone()
    if row is None:
        return ActState(False, True, RequestError.code, "there is no such act")
    return ActState(row[0] == DONE, row[0] == FAILED, row[1], row[2])


def title_after(title: Title | None, act: RenameAct | TopicAct) -> Title:
    """What the group is to be called, with a salt of its own. Raises `RequestError`."""
    if isinstance(act, RenameAct):
        return new_title(act.name, "" if title is None else title.topic)
    return new_title("?" if title is None else title.name, act.topic)


def statement_of(state: GroupState, act: Act, title: Title | None, user: str, device: str, at: int) -> Statement:
    """What `device` of `user` has to sign, as the chain is now. `title`: that of `title_after`, where it matters."""
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
