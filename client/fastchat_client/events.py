"""What the client's heart tells its faces: frozen Structs, in the order in which things happened.

A face shows events and knows nothing else of what goes on below: no wire message, no key, no vault. Every event has a
tag (`event`), so that `listen --json` can print it as it is.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from enum import StrEnum

import msgspec

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LATEST = 253_402_300_799_999
"""The last millisecond of the year 9999."""


class State(StrEnum):
    """How far a message that was sent from here has come. Later states never turn back into earlier ones."""

    WAITING = "waiting"
    """In the outbox: committed here, not yet accepted by the network."""
    ACCEPTED = "accepted"
    """It cannot be lost any more: received by every recipient device, or stored for it."""
    DELIVERED = "delivered"
    """A device of the recipient has decrypted it and says so, end to end."""
    READ = "read"
    FAILED = "failed"
    """Refused for good; `reason` says why. It stays in the history, marked."""


class Connecting(msgspec.Struct, frozen=True, tag_field="event", tag="connecting"):
    """A connection is being tried."""

    to: str


class Connected(msgspec.Struct, frozen=True, tag_field="event", tag="connected"):
    """Logged in at `service`; `waiting` messages are on their way from the mailbox."""

    service: str
    waiting: int


class Disconnected(msgspec.Struct, frozen=True, tag_field="event", tag="disconnected"):
    """The connection is gone. `retry_in`: seconds until the next try, or None when there will be none."""

    code: str
    reason: str
    retry_in: float | None


class Moving(msgspec.Struct, frozen=True, tag_field="event", tag="moving"):
    """The service has asked its clients to go elsewhere, or to come back in a moment, and that is being done: the
    connection is gone, but this is no problem. The next try is in `retry_in` seconds."""

    retry_in: float


class MailboxProgress(msgspec.Struct, frozen=True, tag_field="event", tag="progress"):
    """`done` of `total` messages that had been waiting are here. `done` = `total` ends it, also when fewer have come
    than were announced: some of them had been received already."""

    done: int
    total: int


class FileShown(msgspec.Struct, frozen=True):
    """What there is to show of a file before it is fetched. `name` is safe for a screen and a disk; `size` in bytes;
    `width` and `height` in pixels, 0 of what is no picture; `thumbnail`: a small picture, as its sender made it."""

    attachment: str
    name: str
    size: int
    type: str
    width: int = 0
    height: int = 0
    thumbnail: bytes = b""


class MessageReceived(msgspec.Struct, frozen=True, tag_field="event", tag="message", rename={"sender": "from"}):
    """A message was decrypted, verified and committed to the vault. `id` is "device.n"; `at` (ISO 8601, UTC) is
    when the sender wrote it, by the sender's clock, for display only. `own`: sent by another device of this account.
    `conversation` is the sender's name, or "#" and the id of a group."""

    sender: str
    conversation: str
    text: str
    at: str
    id: str
    own: bool = False
    reply: str = ""
    """The id of the message that it answers."""
    mentions: tuple[str, ...] = ()
    """Members of the group whom it names as `@name`."""
    mentioned: bool = False
    """This account is one of them."""
    muted: bool = False
    """The conversation is muted: show it without a sign."""
    expires: int = 0
    """Seconds after its reading that it is kept; 0: for ever."""
    earlier: bool = False
    """Said before this account joined the group, and handed on by who has invited it."""
    file: FileShown | None = None
    """It brings a file, which can be fetched; `text` is what was written with it."""


class MessageUnreadable(msgspec.Struct, frozen=True, tag_field="event", tag="unreadable", rename={"sender": "from"}):
    """A message came that could not be read, and why; its sender's device was asked to send it again if `retrying`."""

    sender: str
    conversation: str
    reason: str
    at: str
    id: str
    retrying: bool


class MessageWaiting(msgspec.Struct, frozen=True, tag_field="event", tag="waiting", rename={"sender": "from"}):
    """A group message is here whose key, or the statements that it rests on, are not: it stands in its place, and is
    filled in when they come (`message`). They are being asked for."""

    sender: str
    conversation: str
    reason: str
    at: str
    id: str


class Reacted(msgspec.Struct, frozen=True, tag_field="event", tag="reaction", rename={"sender": "from"}):
    """Somebody has put a sign on the message `id`, or taken it back."""

    conversation: str
    id: str
    sender: str
    emoji: str
    removed: bool
    at: str


class Edited(msgspec.Struct, frozen=True, tag_field="event", tag="edit", rename={"sender": "from"}):
    """The message `id` says something else now."""

    conversation: str
    id: str
    sender: str
    text: str
    at: str


class Deleted(msgspec.Struct, frozen=True, tag_field="event", tag="delete", rename={"sender": "from"}):
    """The message `id` is gone; its author wanted that."""

    conversation: str
    id: str
    sender: str
    at: str


class Expired(msgspec.Struct, frozen=True, tag_field="event", tag="expired"):
    """The message `id` is gone: its time has passed."""

    conversation: str
    id: str


class TimerChanged(msgspec.Struct, frozen=True, tag_field="event", tag="timer", rename={"sender": "from"}):
    """What is written in the conversation from here on goes `seconds` after its reading; 0: it stays."""

    conversation: str
    sender: str
    seconds: int
    at: str


class TypingNow(msgspec.Struct, frozen=True, tag_field="event", tag="typing", rename={"sender": "from"}):
    """Somebody is writing; true for a few seconds."""

    conversation: str
    sender: str


class PresenceChanged(msgspec.Struct, frozen=True, tag_field="event", tag="presence"):
    """Somebody is there, or not any more. `last_seen`: ISO 8601, UTC."""

    user: str
    online: bool
    last_seen: str


class GroupChanged(msgspec.Struct, frozen=True, tag_field="event", tag="group"):
    """A statement of a group's chain was verified and taken in. `kind`: created, invited, joined, left, removed, role,
    title or deleted; `who`: whom it is about, if that is not the actor; `text`: the role, the days of history that an
    invitation gives, or the new title where it is known."""

    conversation: str
    kind: str
    actor: str
    who: str
    text: str
    at: str


class GroupInvited(msgspec.Struct, frozen=True, tag_field="event", tag="invited", rename={"sender": "from"}):
    """`sender` has invited this account to a group. `name` is "" until it has been told; then this comes once more.
    `history`: days of earlier messages that are offered."""

    conversation: str
    name: str
    topic: str
    sender: str
    members: int
    history: int


class ActDone(msgspec.Struct, frozen=True, tag_field="event", tag="act-done"):
    """What was to be done to a group is done."""

    act: int
    conversation: str


class ActFailed(msgspec.Struct, frozen=True, tag_field="event", tag="act-failed"):
    """What was to be done to a group was refused; nothing has changed."""

    act: int
    conversation: str
    code: str
    reason: str


class GroupAlarm(msgspec.Struct, frozen=True, tag_field="event", tag="group-alarm"):
    """Somebody has tried to make this group something that its members have not agreed on. `code`: group-forged (a
    statement that nobody who may has signed), group-replayed (an old one again), group-withheld (the server keeps one
    back), group-forked (somebody sees another chain), group-outsider (a message of, or for, somebody who is no
    member). `proof`: it follows from what the server said itself; else a member says so, who may lie."""

    conversation: str
    code: str
    reason: str
    evidence: str
    proof: bool


class MessageHeld(msgspec.Struct, frozen=True, tag_field="event", tag="held", rename={"sender": "from"}):
    """A message is kept unread until something is decided or known: its sender's changed key is accepted, or the
    sender's keys can be had."""

    sender: str
    reason: str
    id: str


class MessageState(msgspec.Struct, frozen=True, tag_field="event", tag="state"):
    """A message sent from here has come further."""

    id: str
    conversation: str
    state: State
    reason: str = ""


class RootChanged(msgspec.Struct, frozen=True, tag_field="event", tag="root-changed"):
    """The server now names another RSA key for `user` than the one seen before. Nothing is sent to or believed of
    the new one until the user accepts it."""

    user: str
    old_fingerprint: str
    new_fingerprint: str


class LogAlarm(msgspec.Struct, frozen=True, tag_field="event", tag="log-alarm"):
    """The server contradicts its own key log. `evidence`: what was seen, as text. `proof`: the server signed it itself,
    and nothing is sent any more; otherwise a peer says so, who may lie, and all goes on."""

    reason: str
    evidence: str
    proof: bool = True


class Revocation(msgspec.Struct, frozen=True, tag_field="event", tag="revocation"):
    """What became of revoking `device`, another one of this account: it is out of it for good; or, with a `code`, it is
    not, and why."""

    device: str
    code: str = ""
    reason: str = ""


class TransferProgress(msgspec.Struct, frozen=True, tag_field="event", tag="transfer"):
    """`done` of `size` bytes of a file are there: on the network (`up`), or here. A few a second. `id`: of the message
    that brought it; "" for what is being sent, whose message goes out when all of it is there."""

    attachment: str
    conversation: str
    id: str
    name: str
    up: bool
    done: int
    size: int


class FileSent(msgspec.Struct, frozen=True, tag_field="event", tag="file-sent"):
    """All of a file is on the network, and the message `id` that tells of it is on its way as any other."""

    attachment: str
    conversation: str
    id: str
    name: str


class FileSaved(msgspec.Struct, frozen=True, tag_field="event", tag="file-saved"):
    """A file is here, whole, at `path`. `auto`: nobody asked for it; it was small enough."""

    attachment: str
    conversation: str
    id: str
    path: str
    auto: bool


class TransferFailed(msgspec.Struct, frozen=True, tag_field="event", tag="transfer-failed"):
    """A file will not be sent, or not be fetched; `reason` says why, and what can be done. Nothing of it is left."""

    attachment: str
    conversation: str
    id: str
    name: str
    up: bool
    code: str
    reason: str


class Notice(msgspec.Struct, frozen=True, tag_field="event", tag="notice"):
    """Something that a person should know, with a stable code; nothing needs to be done by the program."""

    code: str
    text: str


Event = (
    Connecting
    | Connected
    | Disconnected
    | Moving
    | MailboxProgress
    | MessageReceived
    | MessageUnreadable
    | MessageWaiting
    | Reacted
    | Edited
    | Deleted
    | Expired
    | TimerChanged
    | TypingNow
    | PresenceChanged
    | GroupChanged
    | GroupInvited
    | ActDone
    | ActFailed
    | GroupAlarm
    | MessageHeld
    | MessageState
    | RootChanged
    | LogAlarm
    | Revocation
    | TransferProgress
    | FileSent
    | FileSaved
    | TransferFailed
    | Notice
)


def iso(milliseconds: int) -> str:
    """ISO 8601 in UTC, as events give times; whatever a peer's clock says, it is one that there is."""
    at = _EPOCH + timedelta(milliseconds=min(max(0, milliseconds), _LATEST))
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
