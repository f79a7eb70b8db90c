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


class MessageReceived(msgspec.Struct, frozen=True, tag_field="event", tag="message", rename={"sender": "from"}):
    """A message was decrypted, verified and committed to the vault. `id` is "device.n"; `at` (ISO 8601, UTC) is
    when the sender wrote it, by the sender's clock, for display only. `own`: sent by another device of this account."""

    sender: str
    conversation: str
    text: str
    at: str
    id: str
    own: bool = False


class MessageUnreadable(msgspec.Struct, frozen=True, tag_field="event", tag="unreadable", rename={"sender": "from"}):
    """A message came that could not be read, and why; its sender's device was asked to send it again if `retrying`."""

    sender: str
    conversation: str
    reason: str
    at: str
    id: str
    retrying: bool


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
    | MessageHeld
    | MessageState
    | RootChanged
    | LogAlarm
    | Notice
)


def iso(milliseconds: int) -> str:
    """ISO 8601 in UTC, as events give times; whatever a peer's clock says, it is one that there is."""
    at = _EPOCH + timedelta(milliseconds=min(max(0, milliseconds), _LATEST))
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
