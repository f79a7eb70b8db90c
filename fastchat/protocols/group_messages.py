"""What is said about groups, and what is said in passing (whispers), as msgspec Structs; a part of `wire.py`'s unions.

A server knows of a group who is in it, and the chain of statements that says so, each signed by a member's device
(`identity.groups`). What a group is called, and all that is said in it, is not for the server to read.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta, Raw

from fastchat.protocols.shapes import DeviceId, GroupId, Id, Name, Recipient, Signed

MOST_NAMED = 4000
"""Devices that a `group_send` may name."""


class GroupLength(msgspec.Struct, frozen=True):
    """A group, and how many statements its chain has for the account that asks."""

    group: GroupId
    length: Id


# --- what a client says --------------------------------------------------------------------------------------------


class GroupAct(msgspec.Struct, tag_field="t", tag="group_act", frozen=True):
    """client → service: `statement` is the next one of the chain of `group`, or the first one. Answered by
    `group_done`; or by `group-changed` if another statement came first."""

    id: Id
    group: GroupId
    statement: Signed


class GroupsRequest(msgspec.Struct, tag_field="t", tag="groups", frozen=True):
    """client → service: which groups is this account in, invited to, or was in? Answered by `groups`."""

    id: Id


class GroupLogRequest(msgspec.Struct, tag_field="t", tag="group_log", frozen=True):
    """client → service: the statements of `group` from number `start` (from 0) on. Answered by `group_log`."""

    id: Id
    group: GroupId
    start: Id


class GroupSend(msgspec.Struct, tag_field="t", tag="group_send", frozen=True, omit_defaults=True):
    """client → service: message `n` of this device, one body for every device of every member but this one. `length` is
    that of the chain by which it was encrypted: if the group has another one by now, the answer is `group-changed`, and
    nobody has the message. `devices`: only these of them; those that an error named. Answered as `send` is."""

    id: Id
    n: Annotated[int, Meta(ge=1, le=2**53 - 1)]
    group: GroupId
    length: Id
    body: Raw
    devices: Annotated[tuple[DeviceId, ...], Meta(max_length=MOST_NAMED)] = ()


class Whisper(msgspec.Struct, tag_field="t", tag="whisper", frozen=True):
    """client → service: something that is only worth hearing now, for these devices. Never answered, never stored, and
    dropped where it cannot be handed over at once."""

    to: Annotated[tuple[Recipient, ...], Meta(min_length=1, max_length=100)]


class GroupWhisper(msgspec.Struct, tag_field="t", tag="group_whisper", frozen=True):
    """client → service: the same, for every device of every member of a group but this one."""

    group: GroupId
    body: Raw


# --- what a client hears -------------------------------------------------------------------------------------------


class GroupDone(msgspec.Struct, tag_field="t", tag="group_done", frozen=True):
    """service → client, answers `group_act`: the chain has this length now."""

    re: Id
    length: Id


class GroupsAnswer(msgspec.Struct, tag_field="t", tag="groups", frozen=True):
    """service → client, answers `groups`. `length` of a group that the account is in no more: up to its leaving."""

    re: Id
    groups: tuple[GroupLength, ...]


class GroupLogAnswer(msgspec.Struct, tag_field="t", tag="group_log", frozen=True):
    """service → client, answers `group_log`: statements from `start` on; the chain has `length` of them for this
    account. There may be more: ask again from where these end."""

    re: Id
    group: GroupId
    start: Id
    length: Id
    statements: tuple[Signed, ...]


class GroupNews(msgspec.Struct, tag_field="t", tag="group_news", frozen=True):
    """service → client, unasked: `statement` is number `position` of the chain of `group`. A hint: it may be lost."""

    group: GroupId
    position: Id
    statement: Signed


class Whispered(msgspec.Struct, tag_field="t", tag="whisper", frozen=True):
    """service → client: somebody whispers, from `device` of `user`, as the server says."""

    user: Name
    device: DeviceId
    body: Raw
