"""A group as a hash-chained list of statements, each signed by the device of the person who acts, and the rules of who
may do what.

A group's id is a hash of its first statement; every later one names the group, its position and the hash of the one
before it, so none can be dropped, moved, repeated or carried to another group. A server and every client apply the
same function, `extend`, and so end with the same members whoever handed the statements over. It knows no keys but the
one it is given: whose device signed is for the caller to look up in that person's links. Signatures: Ed25519 over
`FastChat-v1|group|` and the exact body; those that tie a message session to its device, over
`FastChat-v1|group-session|`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta

from fastchat.errors import GroupInvalid, NotAllowed
from fastchat.identity.names import is_name
from fastchat.identity.prekeys import Sign
from fastchat.identity.root import CONTEXT
from fastchat.identity.statements import Key32, Millis, NotAStatement, encode, statement_decoder, verify_ed25519
from fastchat.protocols.wire import DeviceId, GroupId, Id, Name, Signed

MAX_MEMBERS = 1000
"""Of one group, with those who are invited."""
MAX_STATEMENTS = 50_000
"""Of one group, 0.1 ms each to check. The last `MAX_MEMBERS + 1` places are for those who go: who runs a group cannot
fill its chain to keep anybody in it."""
MAX_HISTORY = 30
"""Days that a newcomer may be shown of the time before."""

Role = Literal["owner", "admin", "member"]
_STATEMENT = b"group|"
_SESSION = b"group-session|"


class Create(msgspec.Struct, tag_field="t", tag="create", frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Statement 0: the actor founds a group and owns it. `prev` is empty; `nonce` is random, so that no two groups
    have one id; `title` is `title_hash` of the group's title."""

    position: Id
    prev: Annotated[bytes, Meta(max_length=0)]
    user: Name
    device: DeviceId
    at: Millis
    nonce: Annotated[bytes, Meta(min_length=16, max_length=16)]
    title: Key32


class _Later(msgspec.Struct, tag_field="t", frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Every other statement. `prev`: SHA-256 of the previous body; `user` and `device` act; `at` is for display."""

    group: GroupId
    position: Id
    prev: Key32
    user: Name
    device: DeviceId
    at: Millis


class Invite(_Later, tag="invite", frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`who` may join; whoever invites may show them the messages of the last `history` days."""

    who: Name
    history: Annotated[int, Meta(ge=0, le=MAX_HISTORY)]


class Join(_Later, tag="join", frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Who was invited becomes a member."""


class Leave(_Later, tag="leave", frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A member goes, or who was invited declines. When the last member goes, the group is deleted."""


class Remove(_Later, tag="remove", frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`who` is no member, or not invited, any more."""

    who: Name


class SetRole(_Later, tag="role", frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Member `who` has this role from now on."""

    who: Name
    role: Role


class Retitle(_Later, tag="title", frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The group has another title: `title_hash` of it."""

    title: Key32


class Delete(_Later, tag="delete", frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The group's last statement."""


Statement = Create | Invite | Join | Leave | Remove | SetRole | Retitle | Delete


class SessionStatement(
    msgspec.Struct, tag_field="t", tag="session", frozen=True, forbid_unknown_fields=True, kw_only=True
):
    """This device writes to the group with the Megolm session of this Ed25519 public key: what ties the session to it
    for those who have the session's key from somebody else."""

    group: GroupId
    session: Key32
    user: Name
    device: DeviceId
    at: Millis


class Title(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a group is called. It travels end to end; the chain has only its hash, and `salt` keeps whoever sees that
    from guessing."""

    salt: Key32
    """Random, new with every title."""
    name: Annotated[str, Meta(min_length=1, max_length=64)]
    topic: Annotated[str, Meta(max_length=512)]


@dataclass(frozen=True, slots=True)
class Member:
    """Somebody who has joined."""

    role: Role
    since: int
    """The chain's length with which they became a member: the position of their `join`, or `create`, + 1."""


@dataclass(frozen=True, slots=True)
class Invitation:
    """Somebody who may join."""

    by: str
    history: int
    """Days."""
    position: int
    """Of the `invite`."""


@dataclass(frozen=True, slots=True)
class GroupState:
    """What the statements up to a length say. One more changes the entry of one user at most: its actor's, or its
    subject's."""

    group: str
    """32 hex digits."""
    length: int
    """Statements."""
    head: bytes
    """SHA-256 of the last statement's body."""
    title: bytes
    """`title_hash` of the title."""
    members: Mapping[str, Member]
    """By user, in the order in which they joined."""
    invited: Mapping[str, Invitation]
    deleted: bool
    """Nothing follows. `members` and `invited` are those of the end: who takes part now must look here first."""


_decode: Callable[[bytes], Statement] = statement_decoder(Statement)
_decode_session: Callable[[bytes], SessionStatement] = statement_decoder(SessionStatement)
_decode_title: Callable[[Any], Title] = msgspec.json.Decoder(Title).decode


def group_id(create_body: bytes) -> str:
    """A group's id, 32 hex digits, from the body of its `create`: nobody can pass another chain off as this group."""
    return hashlib.sha256(CONTEXT + b"group-id|" + create_body).digest()[:16].hex()


def title_hash(title: Title) -> bytes:
    """What the chain says of a title, 32 bytes. Raises `GroupInvalid` for a title that there cannot be."""
    try:
        encoded = encode(title)
        _decode_title(encoded)
    except (msgspec.MsgspecError, UnicodeError, TypeError) as error:
        raise GroupInvalid(f"a group cannot be called that: {error}") from None
    return hashlib.sha256(CONTEXT + b"title|" + encoded).digest()


def opens(title: Title, hashed: bytes) -> bool:
    """Whether `title` is the one that the chain names by `hashed`."""
    try:
        return title_hash(title) == hashed
    except GroupInvalid:
        return False


def subject(statement: Statement) -> str:
    """The user whom somebody else's statement is about: who is invited, removed, or has another role; else ""."""
    return statement.who if isinstance(statement, Invite | Remove | SetRole) else ""


def sign(sign: Sign, statement: Statement) -> Signed:
    """`statement` signed with the acting device's `sign`, which gives the raw Ed25519 signature over its argument.
    Raises `GroupInvalid` if nobody could read it."""
    body = _encoded(statement)
    _read(_decode, body)
    return Signed(body=body, signature=sign(CONTEXT + _STATEMENT + body))


def sign_session(sign: Sign, statement: SessionStatement) -> Signed:
    """As `sign`."""
    body = _encoded(statement)
    _read(_decode_session, body)
    return Signed(body=body, signature=sign(CONTEXT + _SESSION + body))


def read(signed: Signed) -> Statement:
    """What is said; nothing of it is checked but its form. Raises `GroupInvalid`."""
    return _read(_decode, signed.body)


def read_session(signed: Signed) -> SessionStatement:
    """As `read`: to find out whose key `verify_session` takes. Raises `GroupInvalid`."""
    return _read(_decode_session, signed.body)


def verify_session(signed: Signed, ed25519: bytes) -> SessionStatement:
    """What the device with this public key (32 bytes) says of a Megolm session. That the key is that of the statement's
    `user` and `device` is for the caller to see to. Raises `GroupInvalid` or `SignatureInvalid`."""
    statement = read_session(signed)
    verify_ed25519(ed25519, CONTEXT + _SESSION + signed.body, signed.signature)
    return statement


def extend(state: GroupState | None, signed: Signed, ed25519: bytes) -> GroupState:
    """`state` with one more statement; None before the first. `ed25519`: the public key, 32 bytes, of the statement's
    `user` and `device`, which `read` tells and the caller looks up.

    Raises `GroupInvalid` (no statement, or it does not follow here), `SignatureInvalid`, or `NotAllowed` (the device
    did say it, and it is against the rules); and nothing else, whatever the bytes. Who wants to tell those who are
    merely late compares positions first."""
    statement = read(signed)
    if state is None or isinstance(statement, Create):
        return _begin(state, statement, signed, ed25519)
    if statement.group != state.group:
        raise GroupInvalid("a statement is about another group")
    if (statement.position, statement.prev) != (state.length, state.head):
        raise GroupInvalid("a statement does not follow on the one before it")
    verify_ed25519(ed25519, CONTEXT + _STATEMENT + signed.body, signed.signature)
    permits(state, statement)
    return replace(_changed(state, statement), length=state.length + 1, head=hashlib.sha256(signed.body).digest())


def permits(state: GroupState, statement: Statement) -> None:
    """Returns if the rules allow this as the next statement; whether it follows, and who signed, is not looked at.
    Raises `NotAllowed`, with the reason."""
    actor = statement.user
    role = state.members[actor].role if actor in state.members else None
    if state.deleted:
        raise NotAllowed("the group has been deleted")
    if role is None and not (actor in state.invited and isinstance(statement, Join | Leave)):
        raise NotAllowed(f"{actor} is no member of the group")
    if not isinstance(statement, Leave | Remove | Delete) and state.length >= MAX_STATEMENTS - MAX_MEMBERS - 1:
        raise NotAllowed("the group's chain is full: one can still leave, remove and delete, and create another group")
    match statement:
        case Create():
            raise NotAllowed("a group is created once")
        case Join():
            if role is not None:
                raise NotAllowed(f"{actor} is a member already")
        case Leave():
            if len(state.members) > 1 and _is_last_owner(state, actor):
                raise NotAllowed(
                    "the only owner cannot leave the others: make one of them an owner, or delete the group"
                )
        case Invite():
            _permits_invite(state, role, statement.who)
        case Remove():
            _permits_remove(state, role, actor, statement.who)
        case SetRole():
            _permits_role(state, role, statement)
        case Retitle():
            if role == "member":
                raise NotAllowed("only owners and admins name a group")
        case Delete():
            if role != "owner":
                raise NotAllowed("only an owner deletes a group")


def _permits_invite(state: GroupState, role: Role | None, who: str) -> None:
    if role == "member":
        raise NotAllowed("only owners and admins invite")
    if who in state.members:
        raise NotAllowed(f"{who} is a member already")
    if who in state.invited:
        raise NotAllowed(f"{who} is invited already")
    if len(state.members) + len(state.invited) >= MAX_MEMBERS:
        raise NotAllowed(f"a group has at most {MAX_MEMBERS} members, with those who are invited")


def _permits_remove(state: GroupState, role: Role | None, actor: str, who: str) -> None:
    if role == "member":
        raise NotAllowed("only owners and admins remove")
    if who == actor:
        raise NotAllowed("one does not remove oneself: leave")
    if who not in state.members and who not in state.invited:
        raise NotAllowed(f"{who} is neither a member nor invited")
    if role == "admin" and who in state.members and state.members[who].role != "member":
        raise NotAllowed("admins do not remove owners and admins")


def _permits_role(state: GroupState, role: Role | None, statement: SetRole) -> None:
    who = statement.who
    if role != "owner":
        raise NotAllowed("only owners give roles")
    if who not in state.members:
        raise NotAllowed(f"{who} is no member of the group")
    if state.members[who].role == statement.role:
        raise NotAllowed(f"{who} has this role already")
    if _is_last_owner(state, who):
        raise NotAllowed("a group keeps an owner: make somebody else one first")


def _is_last_owner(state: GroupState, user: str) -> bool:
    owners = [name for name, member in state.members.items() if member.role == "owner"]
    return owners == [user]


def _begin(state: GroupState | None, statement: Statement, signed: Signed, ed25519: bytes) -> GroupState:
    if state is not None or not isinstance(statement, Create):
        raise GroupInvalid("a group is created by its first statement, and by no other")
    if statement.position != 0:
        raise GroupInvalid("a group begins at position 0")
    verify_ed25519(ed25519, CONTEXT + _STATEMENT + signed.body, signed.signature)
    return GroupState(
        group=group_id(signed.body),
        length=1,
        head=hashlib.sha256(signed.body).digest(),
        title=statement.title,
        members={statement.user: Member("owner", 1)},
        invited={},
        deleted=False,
    )


def _changed(state: GroupState, statement: Statement) -> GroupState:
    """What a statement that is allowed makes of the state, but for length and head."""
    actor, members, invited = statement.user, state.members, state.invited
    match statement:
        case Create():
            return state
        case Invite(who=who):
            invitation = Invitation(actor, statement.history, statement.position)
            return replace(state, invited={**invited, who: invitation})
        case Join():
            member = Member("member", statement.position + 1)
            return replace(state, members={**members, actor: member}, invited=_without(invited, actor))
        case Leave():
            left = _without(members, actor)
            return replace(state, members=left, invited=_without(invited, actor), deleted=not left)
        case Remove(who=who):
            return replace(state, members=_without(members, who), invited=_without(invited, who))
        case SetRole(who=who):
            return replace(state, members={**members, who: replace(members[who], role=statement.role)})
        case Retitle():
            return replace(state, title=statement.title)
        case Delete():
            return replace(state, deleted=True)


_Entry = TypeVar("_Entry")


def _without(entries: Mapping[str, _Entry], user: str) -> Mapping[str, _Entry]:
    return {name: entry for name, entry in entries.items() if name != user} if user in entries else entries


_Said = TypeVar("_Said", Statement, SessionStatement)


def _read(decode: Callable[[bytes], _Said], body: bytes) -> _Said:
    try:
        statement = decode(body)
    except NotAStatement as error:
        raise GroupInvalid(f"a statement is of no known kind: {error}") from None
    who = statement.who if isinstance(statement, Invite | Remove | SetRole) else statement.user
    if not is_name(statement.user) or not is_name(who):
        raise GroupInvalid("a statement names nobody that there can be")
    return statement


def _encoded(statement: Statement | SessionStatement) -> bytes:
    try:
        return encode(statement)
    except (msgspec.MsgspecError, UnicodeError, TypeError) as error:
        raise GroupInvalid(f"this cannot be said: {error}") from None
