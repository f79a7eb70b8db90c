"""What groups, and who has a message, look like in the chat: pure functions, no terminal."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from fastchat_client.events import GroupAlarm, GroupInvited, State
from fastchat_client.groups import GroupInfo
from fastchat_client.marking import Mark
from fastchat_client.terminal import group_words
from fastchat_client.terminal.group_words import Labels
from fastchat_client.terminal.render import MARGIN, Line, mark, note, notice
from fastchat_client.terminal.text import Look, clean_line, clock
from fastchat_client.vault import Conversation

MOST_MEMBERS = 100
"""Of a group's members, on one screen."""


def invited(event: GroupInvited, label: str, typed: str, look: Look) -> Line:
    """`typed`: the group as one types it."""
    return [
        ("class:unread", f"{' ' * MARGIN}{look.symbol('✉', '*')} {group_words.invited(event, label)}\n"),
        ("class:notice", f"{' ' * MARGIN}/group join {typed} accepts, /group leave {typed} declines"),
    ]


def alarm(event: GroupAlarm, label: str, kept_in: str) -> Line:
    what, meaning = group_words.alarm(event, label)
    return [("class:alarm", f"{what}\n"), ("", f"{meaning} The evidence is in {kept_in}")]


def group(info: GroupInfo, label: str) -> list[Line]:
    """The answer to /group show."""
    rows = [("id", info.conversation), ("topic", clean_line(info.topic, 600)), ("you", role(info))]
    rows.append((group_words.people(info), group_words.listed(info.members, MOST_MEMBERS)))
    if info.invited:
        users = [f"{clean_line(user, 64)} (by {clean_line(by, 64)})" for user, by in info.invited[:MOST_MEMBERS]]
        rows.append(("invited", ", ".join(users)))
    lines: list[Line] = [[("class:head", label)]]
    lines += [note(f"{name:<12} {value}") for name, value in rows if value]
    if info.alarm:
        lines.append([("class:alarm", f"{' ' * MARGIN}There was an alarm about this group: {clean_line(info.alarm)}")])
    return lines


def role(info: GroupInfo) -> str:
    """What one is in it."""
    if info.deleted:
        return "the group is deleted"
    return {"invited": "invited, not joined", "gone": "not in it any more"}.get(info.role, info.role)


def groups(labels: Labels, conversations: Sequence[Conversation]) -> list[Line]:
    """The answer to /groups: those that one is in, invitations, and then those that are over."""
    unread = {conversation.user: conversation.unread for conversation in conversations}
    infos = sorted(labels.infos, key=lambda info: (info.deleted or info.role == "gone", info.role == "invited"))
    if not infos:
        return [notice("No groups yet. /group create NAME makes one.")]
    width = max(len(labels[info.conversation]) for info in infos)
    lines: list[Line] = []
    for info in infos:
        line: Line = [("class:head", f"{labels[info.conversation]:<{width}}"), ("", f"  {role(info)}")]
        line.append(("class:notice", f"  {group_words.people(info)}" if not info.deleted else ""))
        if unread.get(info.conversation):
            line.append(("class:unread", f"  {unread[info.conversation]} unread"))
        if info.muted:
            line.append(("class:notice", "  muted"))
        if info.topic:
            line.append(("class:notice", f"  {clean_line(info.topic, 60)}"))
        lines.append(line)
    return lines


def receipts(marks: Sequence[Mark], now: datetime, look: Look) -> list[Line]:
    """How far a message has come with each of its recipients."""
    width = max((len(clean_line(one.user, 64)) for one in marks), default=0)
    lines: list[Line] = []
    for one in marks:
        at = f"  {clock(one.at, now)}" if one.at else ""
        state = mark(look, one.state)
        words = "  not said to be there yet" if one.state == State.ACCEPTED else ""
        lines.append(
            [*note(f"{clean_line(one.user, 64):<{width}}  "), state, ("class:time", at), ("class:notice", words)]
        )
    return lines
