"""What people are told when a group's chain has grown: that they are invited, or what has changed in their group."""

from __future__ import annotations

from fastchat.identity import groups as chains
from fastchat.identity.groups import (
    Create,
    Delete,
    GroupState,
    Invite,
    Join,
    Leave,
    Remove,
    Retitle,
    SetRole,
    Statement,
)
from fastchat_client.events import GroupChanged, GroupInvited, iso
from fastchat_client.groups import conversation_of
from fastchat_client.parts import Parts


def tell_invitation(parts: Parts, group: str) -> None:
    """This account is invited there, if it still is: told when the chain says so, and once more by its name, which
    comes in a message of its own."""
    known = parts.groups.get(group)
    invitation = None if known is None else known.state.invited.get(parts.me.user)
    if known is not None and invitation is not None and not known.state.deleted:
        name, topic = ("", "") if known.title is None else (known.title.name, known.title.topic)
        members, conversation = len(known.state.members), conversation_of(group)
        parts.tell(GroupInvited(conversation, name, topic, invitation.by, members, invitation.history))


def tell_change(
    parts: Parts, before: GroupState | None, after: GroupState, statement: Statement, *, is_new: bool
) -> None:
    """What `statement` has made of a group; `is_new`: it is no part of a past that nobody here was in."""
    if isinstance(statement, Invite) and statement.who == parts.me.user:
        tell_invitation(parts, after.group)
    elif is_new and before is not None:
        kind, text = _kind(statement)
        conversation, who = conversation_of(after.group), chains.subject(statement)
        parts.tell(GroupChanged(conversation, kind, statement.user, who, text, iso(statement.at)))


def _kind(statement: Statement) -> tuple[str, str]:
    match statement:
        case Create():
            return "created", ""
        case Invite():
            return "invited", str(statement.history)
        case Join():
            return "joined", ""
        case Leave():
            return "left", ""
        case Remove():
            return "removed", ""
        case SetRole():
            return "role", statement.role
        case Retitle():
            return "title", ""
        case Delete():
            return "deleted", ""
