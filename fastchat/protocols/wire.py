"""Every message of the wire as a msgspec Struct, and their codec: bytes become typed values here and nowhere else.

A message is one JSON object on one line, with its kind in `"t"`. There are two directions, each one tagged union:
`ClientMessage` (what a client says to a service or the balancer) and `ServerMessage` (what it hears). Bytes are
base64. A request carries `id`, chosen by the client; its answer carries the same number in `re`. This module knows
no Twisted, no session and no key: it says what a message looks like, not whether it may be sent now.

The docstring of a message is its grammar: who sends it, when, what answers it. `PROTOCOL.md` is the same with
examples, for people who write a client in another language.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType

from fastchat.errors import FastChatError, ProtocolError, by_code
from fastchat.protocols.attachment_messages import (
    CHUNK_SIZE,
    MOST_RANGES,
    Attach,
    Attached,
    AttachmentDone,
    AttachmentFor,
    AttachmentId,
    Chunk,
    ChunkAnswer,
    ChunkStored,
    Detach,
    Fetch,
    Fetched,
    WithBytes,
)
from fastchat.protocols.device_messages import Revoke, Revoked
from fastchat.protocols.entrance_messages import (
    AddDevice,
    Added,
    Hello,
    Login,
    Ready,
    Register,
    Registered,
    ScramAnswer,
    ScramRequest,
    Welcome,
)
from fastchat.protocols.group_messages import (
    GroupAct,
    GroupDone,
    GroupLength,
    GroupLogAnswer,
    GroupLogRequest,
    GroupNews,
    GroupsAnswer,
    GroupSend,
    GroupsRequest,
    GroupWhisper,
    Whisper,
    Whispered,
)
from fastchat.protocols.shapes import (
    AccountKeys,
    Bundle,
    Checkpoint,
    DeviceId,
    DeviceKeys,
    GroupId,
    Id,
    Name,
    Recipient,
    ScramVerifier,
    ServiceAddress,
    SessionLimits,
    Signed,
    Token,
)

__all__ = [  # shapes that are used with these messages, and the messages of other files, are given out with them
    "CHUNK_SIZE",
    "MOST_RANGES",
    "AccountKeys",
    "AddDevice",
    "Added",
    "Attach",
    "Attached",
    "AttachmentDone",
    "AttachmentFor",
    "AttachmentId",
    "Bundle",
    "Checkpoint",
    "Chunk",
    "ChunkAnswer",
    "ChunkStored",
    "Detach",
    "DeviceId",
    "DeviceKeys",
    "Fetch",
    "Fetched",
    "GroupAct",
    "GroupDone",
    "GroupId",
    "GroupLength",
    "GroupLogAnswer",
    "GroupLogRequest",
    "GroupNews",
    "GroupSend",
    "GroupWhisper",
    "GroupsAnswer",
    "GroupsRequest",
    "Hello",
    "Id",
    "Login",
    "Name",
    "Ready",
    "Recipient",
    "Register",
    "Registered",
    "Revoke",
    "Revoked",
    "ScramAnswer",
    "ScramRequest",
    "ScramVerifier",
    "ServiceAddress",
    "SessionLimits",
    "Signed",
    "Token",
    "Welcome",
    "Whisper",
    "Whispered",
    "WithBytes",
]

VERSION = 1
"""Of the protocol. A server speaks exactly the versions that PROTOCOL.md lists."""

MAX_LINE_BEFORE_LOGIN = 16 * 1024
MAX_LINE = 256 * 1024
"""Longest line in bytes, its end not counted."""
MAX_BODIES = MAX_LINE - 1024
"""Bytes of a message's bodies together: so that `message`, which names the sender too, is never longer than a line
that the recipient takes."""

# --- what a client says --------------------------------------------------------------------------------------------


class Assign(msgspec.Struct, tag_field="t", tag="assign", frozen=True):
    """client → balancer: which service shall I use? Answered by `assigned`."""

    id: Id


class KeysRequest(msgspec.Struct, tag_field="t", tag="keys", frozen=True, omit_defaults=True):
    """client → service: the links and bundles of these accounts. With `claim`, each bundle takes one one-time key
    of its device for good. Answered by `keys`."""

    id: Id
    users: Annotated[tuple[Name, ...], Meta(min_length=1, max_length=100)]
    claim: bool = False


class Publish(msgspec.Struct, tag_field="t", tag="publish", frozen=True):
    """client → service: new prekeys of this device. Answered by `published`."""

    id: Id
    keys: DeviceKeys


class Send(msgspec.Struct, tag_field="t", tag="send", frozen=True):
    """client → service: message `n` of this device, with a body for each recipient device. Answered by `accepted`
    once every recipient device has received it or it is stored; or by `error`, which is final unless it is `busy`."""

    id: Id
    n: Annotated[int, Meta(ge=1, le=2**53 - 1)]
    to: Annotated[tuple[Recipient, ...], Meta(min_length=1, max_length=100)]


class Received(msgspec.Struct, tag_field="t", tag="received", frozen=True, gc=False):
    """client → service: every message of this session up to number `upto` is committed here. Not answered."""

    upto: Id


class LogRequest(msgspec.Struct, tag_field="t", tag="log", frozen=True):
    """client → service: the key log's leaves from `start` on. Answered by `log`."""

    id: Id
    start: Id


class Ping(msgspec.Struct, tag_field="t", tag="ping", frozen=True):
    """client → service, every `limits.ping_every` seconds. Answered by `pong`."""

    id: Id


ClientMessage = (
    Assign
    | Hello
    | Register
    | ScramRequest
    | AddDevice
    | Login
    | KeysRequest
    | Publish
    | Send
    | Received
    | LogRequest
    | Ping
    | Revoke
    | GroupAct
    | GroupsRequest
    | GroupLogRequest
    | GroupSend
    | Whisper
    | GroupWhisper
    | Attach
    | Chunk
    | Fetch
    | AttachmentFor
    | Fetched
    | Detach
)


# --- what a client hears -------------------------------------------------------------------------------------------


class Assigned(msgspec.Struct, tag_field="t", tag="assigned", frozen=True):
    """balancer → client: use `service` and say `lease` in its `hello`, within `lease_seconds`. `services` are all
    that are up, for when the balancer is not."""

    re: Id
    service: ServiceAddress
    lease: Token
    lease_seconds: float
    services: tuple[ServiceAddress, ...]


class KeysAnswer(msgspec.Struct, tag_field="t", tag="keys", frozen=True):
    """service → client, answers `keys`; users that do not exist are absent."""

    re: Id
    accounts: tuple[AccountKeys, ...]


class Published(msgspec.Struct, tag_field="t", tag="published", frozen=True):
    """service → client, answers `publish` with the number of one-time keys that are there now."""

    re: Id
    one_time_keys: int


class Accepted(msgspec.Struct, tag_field="t", tag="accepted", frozen=True, gc=False):
    """service → client, answers `send`: from here on the message cannot be lost."""

    re: Id


class Message(msgspec.Struct, tag_field="t", tag="message", frozen=True, gc=False):
    """service → client: message `n` of `device` (of `user`, as the server says), the `k`-th of this session, counted
    from 1. `at`: milliseconds since 1970, for display. Answered, cumulatively, by `received`."""

    k: Id
    user: Name
    device: DeviceId
    n: Id
    at: int
    body: Raw


class LogAnswer(msgspec.Struct, tag_field="t", tag="log", frozen=True):
    """service → client, answers `log`: the leaves from `start`, 72 bytes each, joined; the checkpoint is of the log
    at exactly `start` + their number. There may be more: ask again until nothing new comes."""

    re: Id
    start: Id
    leaves: bytes
    checkpoint: Checkpoint


class Pong(msgspec.Struct, tag_field="t", tag="pong", frozen=True):
    """service → client, answers `ping`."""

    re: Id


class GoAway(msgspec.Struct, tag_field="t", tag="goaway", frozen=True):
    """service → client: this service is about to stop. Begin nothing new, close once all is answered, and `after`
    seconds later find another one."""

    after: float
    reason: str


class Error(msgspec.Struct, tag_field="t", tag="error", frozen=True, omit_defaults=True):
    """server → client: request `re` was refused; without `re`, the connection itself ends with this (but for
    `bad-frame` after login, which answers a line that has no readable `id`). `code` is one of those in
    `fastchat.errors`; `retry_after` (seconds) comes with `busy` and `rate-limited`; `devices` with `busy`,
    `unknown-device` and `mailbox-full` in answer to `send` and `group_send`: those of its recipients that do not have
    the message. The others have it."""

    code: str
    message: str
    re: Id | UnsetType = UNSET
    retry_after: float | UnsetType = UNSET
    devices: tuple[DeviceId, ...] = ()


ServerMessage = (
    Assigned
    | Welcome
    | Registered
    | ScramAnswer
    | Added
    | Ready
    | KeysAnswer
    | Published
    | Accepted
    | Message
    | LogAnswer
    | Pong
    | GoAway
    | Error
    | Revoked
    | GroupDone
    | GroupsAnswer
    | GroupLogAnswer
    | GroupNews
    | Whispered
    | Attached
    | ChunkStored
    | ChunkAnswer
    | AttachmentDone
)


# --- the codec -----------------------------------------------------------------------------------------------------

encode = msgspec.json.Encoder().encode
"""A message as the bytes of its line, without the line's end. Never fails for the Structs of this module."""


_MESSAGE = b'{"t":"message","k":'


def message_tail(user: str, device: str, n: int, at: int, body: bytes | Raw) -> bytes:
    """What stands behind `k` in the line of a `Message`: the same for all who get it. `body`: a JSON value, as it
    is."""
    return encode(Message(0, user, device, n, at, Raw(body)))[len(_MESSAGE) + 1 :]


def message_line(k: int, tail: bytes) -> bytes:
    """The line of the `Message` that is number `k` of a session."""
    return b"%b%d%b" % (_MESSAGE, k, tail)


def decoder(union: Any) -> Any:
    """A function from the bytes of one line to one message of `union`; raises `ProtocolError` and nothing else."""
    decode = msgspec.json.Decoder(union).decode

    def decode_line(line: bytes) -> Any:
        try:
            return decode(line)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise ProtocolError(f"not a message that is understood here: {error}") from None
        except RecursionError:
            raise ProtocolError("not a message that is understood here: nested too deeply") from None

    return decode_line


decode_client_message = decoder(ClientMessage)
decode_server_message = decoder(ServerMessage)


def is_body(raw: Raw) -> bool:
    """Whether `raw` is what a body must be: a JSON string in ASCII. It is not decoded: a look at its first byte and
    one scan for ASCII keep a malicious sender's body from breaking the line that carries it to somebody else."""
    view = memoryview(raw)
    return len(view) >= 2 and view[0] == 0x22 and bytes(view).isascii()


def error_from(error: FastChatError, re: int | UnsetType = UNSET) -> Error:
    """The wire's `error` for an exception of ours."""
    retry_after = UNSET if error.retry_after is None else error.retry_after
    return Error(code=error.code, message=error.message, re=re, retry_after=retry_after, devices=error.devices)


def exception_from(error: Error) -> FastChatError:
    """The exception of ours that the wire's `error` stands for. The peer's words are cut to 500 characters, its wish to
    be left alone to an hour."""
    exception = by_code(error.code)(error.message[:500])
    if isinstance(error.retry_after, float):
        exception.retry_after = min(max(0.0, error.retry_after), 3600.0)
    exception.devices = error.devices
    return exception


def bodies_size(recipients: Sequence[Recipient]) -> int:
    """Bytes of all bodies together."""
    return sum(len(memoryview(recipient.body)) for recipient in recipients)
