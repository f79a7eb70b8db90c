"""What stands inside a message once it is decrypted: who says it to whom, and what is said.

`Plain` names its sender, its recipient and its place, so that nothing that a server or a thief of a session does can
make it pass for another; `read_plain` checks all of that before anybody sees the content. The content is kept as its
bytes until it is asked for: a kind that is not known here can be told from one that is damaged. It knows no keys'
private halves, no ratchets and no store.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, get_args

import msgspec
from msgspec import Meta, Raw

from fastchat.identity.groups import Title
from fastchat.identity.links import DeviceIdentity
from fastchat.identity.statements import Key32, Millis
from fastchat.protocols.wire import AttachmentId, DeviceId, GroupId, Id, Name, Signed
from fastchat_client.unreadable import Reason, Unreadable

VERSION = 1
MAX_IDS = 1000
"""Of one mark."""
Ids = Annotated[tuple[Id, ...], Meta(min_length=1, max_length=MAX_IDS)]


MAX_SECONDS = 366 * 24 * 3600
Seconds = Annotated[int, Meta(ge=0, le=MAX_SECONDS)]


class Ref(msgspec.Struct, frozen=True):
    """A message, by the name that it has for ever."""

    device: DeviceId
    n: Id


# --- what people say -----------------------------------------------------------------------------------------------


class Text(msgspec.Struct, tag_field="t", tag="text", frozen=True, omit_defaults=True):
    """What a person wrote. `reply`: the message that it answers. `expires`: seconds after its reading that it is kept;
    0: for ever."""

    text: str
    reply: Ref | None = None
    expires: Seconds = 0


class File(msgspec.Struct, tag_field="t", tag="file", frozen=True, omit_defaults=True):
    """A file, or a picture, and what a person wrote with it. Its bytes are on the network as `attachment`, in chunks
    that `key` opens (`attachment_cipher`); it is whole when it has `size` bytes whose SHA-256 is `sha256`. `name` and
    `type` (a MIME type) are what the sender calls it: nothing is believed of them. `width` and `height` in pixels, 0 of
    what is no picture; `thumbnail`: a small picture of it, JPEG, PNG or WebP."""

    attachment: AttachmentId
    key: Key32
    size: Id
    sha256: Key32
    name: Annotated[str, Meta(min_length=1, max_length=255)]
    type: Annotated[str, Meta(max_length=127)] = "application/octet-stream"
    width: Annotated[int, Meta(ge=0, le=1_000_000)] = 0
    height: Annotated[int, Meta(ge=0, le=1_000_000)] = 0
    thumbnail: Annotated[bytes, Meta(max_length=20 * 1024)] = b""
    text: str = ""
    reply: Ref | None = None
    expires: Seconds = 0


class Reaction(msgspec.Struct, tag_field="t", tag="reaction", frozen=True, omit_defaults=True):
    """A sign that a person puts on a message, or takes back."""

    to: Ref
    emoji: Annotated[str, Meta(min_length=1, max_length=16)]
    remove: bool = False


class Edit(msgspec.Struct, tag_field="t", tag="edit", frozen=True):
    """The account that wrote a message wants it to say this instead."""

    of: Ref
    text: str


class Delete(msgspec.Struct, tag_field="t", tag="delete", frozen=True):
    """The account that wrote a message wants it gone, everywhere."""

    of: Ref


class Timer(msgspec.Struct, tag_field="t", tag="timer", frozen=True):
    """From here on messages of this conversation go `seconds` after their reading; 0: they stay."""

    seconds: Seconds


class Typing(msgspec.Struct, tag_field="t", tag="typing", frozen=True):
    """Somebody is writing at this moment. Only whispered."""


class Presence(msgspec.Struct, tag_field="t", tag="presence", frozen=True):
    """Somebody is there, or is leaving. Only whispered."""

    online: bool
    """False: leaving now."""
    answer: bool = False
    """Whether the recipient, if there, should say so too."""


# --- what devices say to each other ----------------------------------------------------------------------------------


class Delivered(msgspec.Struct, tag_field="t", tag="delivered", frozen=True):
    """The recipient's messages of these numbers have arrived here. Never answered by marks."""

    ids: Ids


class Read(msgspec.Struct, tag_field="t", tag="read", frozen=True):
    """A person has seen the recipient's messages of these numbers."""

    ids: Ids


class Retry(msgspec.Struct, tag_field="t", tag="retry", frozen=True):
    """The recipient's message `n` could not be read here (a `Reason`): please send it again."""

    n: Id
    reason: Annotated[str, Meta(max_length=64)]


class Resent(msgspec.Struct, tag_field="t", tag="resent", frozen=True, omit_defaults=True):
    """The content of the sender's message `n` once more; never a `Resent` itself. Read it with `decode_content`.
    `group`: the one that it was said in, "" if it was said to the recipient alone."""

    n: Id
    content: Raw
    group: Annotated[str, Meta(max_length=32)] = ""


class GroupKey(msgspec.Struct, tag_field="t", tag="group_key", frozen=True):
    """What it takes to read what the sender says in a group from here on: its Megolm session as it was at `index`, and
    the device's signed word that it is its own. `length` and `head`: the chain by which the recipient may have it."""

    group: GroupId
    key: Annotated[bytes, Meta(max_length=512)]
    """A Megolm session key, signed by the session itself."""
    index: Id
    proof: Signed
    length: Id
    head: Key32
    title: Title | None


class GroupKeyRequest(msgspec.Struct, tag_field="t", tag="group_key_request", frozen=True):
    """A message of the recipient's came whose key did not: please send it (again)."""

    group: GroupId
    session: Key32


class GroupTitle(msgspec.Struct, tag_field="t", tag="group_title", frozen=True):
    """What a group is called: the chain has a hash of it only. Sent to members when it changes, and to who is
    invited."""

    group: GroupId
    title: Title


class EarlierKey(msgspec.Struct, frozen=True):
    """A Megolm session from some index on, without the session's own signature, and whose it is, signed by that
    device."""

    key: Annotated[bytes, Meta(max_length=512)]
    proof: Signed


class EarlierMessage(msgspec.Struct, frozen=True):
    """A group message exactly as it came: who wrote it is proven by what is in it, not by who hands it on."""

    user: Name
    device: DeviceId
    n: Id
    body: bytes


class GroupHistory(msgspec.Struct, tag_field="t", tag="group_history", frozen=True):
    """What was said before a newcomer joined, from who has invited them, as the invitation says."""

    group: GroupId
    keys: Annotated[tuple[EarlierKey, ...], Meta(max_length=1000)]
    messages: Annotated[tuple[EarlierMessage, ...], Meta(max_length=1000)]


Written = Text | File
"""What people write: a message in the history of its own."""


@dataclass(frozen=True, slots=True)
class Unknown:
    """A kind of content that came after this client: to be shown as something that a newer client can read."""

    kind: str


Content = (
    Text
    | File
    | Reaction
    | Edit
    | Delete
    | Timer
    | Typing
    | Presence
    | Delivered
    | Read
    | Retry
    | Resent
    | GroupKey
    | GroupKeyRequest
    | GroupTitle
    | GroupHistory
)

Again = (
    Text
    | File
    | Reaction
    | Edit
    | Delete
    | Timer
    | Delivered
    | Read
    | GroupKey
    | GroupKeyRequest
    | GroupTitle
    | GroupHistory
)
"""What is sent again to who could not read it. Keys are asked for, and sent, in their own way."""


class Party(msgspec.Struct, frozen=True):
    """A device by everything that names it."""

    user: Name
    device: DeviceId
    ed25519: Key32


class TreeHead(msgspec.Struct, frozen=True):
    """The key log as the sender sees it: two people with different roots at one size have been lied to."""

    size: Id
    root: Key32


class Plain(msgspec.Struct, frozen=True, rename={"sender": "from", "recipient": "to"}):
    """The plaintext, as JSON. `conversation` and `seq` (the sender's counter in it) place the message; `checkpoint` is
    the newest that the sender has verified; `at`: milliseconds since 1970, by the sender's clock, for display."""

    v: int
    sender: Party
    recipient: Party
    conversation: Annotated[str, Meta(max_length=128)]
    seq: Id
    checkpoint: TreeHead
    at: Millis
    content: Raw


class _Version(msgspec.Struct):
    v: int


class _Kind(msgspec.Struct):
    t: str


_KINDS = {str(kind.__struct_config__.tag) for kind in get_args(Content)}

encode_content = msgspec.json.Encoder().encode
"""A content as the bytes that `write_plain` takes and `decode_content` reads."""

_decode_version = msgspec.json.Decoder(_Version).decode
_decode_plain = msgspec.json.Decoder(Plain).decode
_decode_kind = msgspec.json.Decoder(_Kind).decode
_decode_content = msgspec.json.Decoder(Content).decode
_MALFORMED = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


def write_plain(
    me: DeviceIdentity,
    peer: DeviceIdentity,
    conversation: str,
    seq: int,
    checkpoint: TreeHead,
    at: int,
    content: bytes,
) -> bytes:
    """The plaintext of a message from `me` to `peer`, before padding. `content`: from `encode_content`; it is the same
    for every recipient."""
    return msgspec.json.encode(
        Plain(VERSION, _party(me), _party(peer), conversation, seq, checkpoint, at, Raw(content))
    )


def read_plain(plaintext: bytes, sender: DeviceIdentity, me: DeviceIdentity, curve25519: bytes) -> Plain:
    """What `plaintext` says, if it is from `sender` and for `me`. `sender` is the device that the server named, as its
    account's chain has it; `curve25519` (32 bytes) is the key of the session that decrypted it. Raises `Unreadable`."""
    try:
        if _decode_version(plaintext).v != VERSION:
            raise Unreadable(Reason.NEWER_CLIENT)
        plain = _decode_plain(plaintext)
    except _MALFORMED:
        raise Unreadable(Reason.BAD_CONTENT) from None
    # The session proves the Curve25519 key; only the chain ties that key to the names in the message.
    if sender.curve25519 != curve25519 or plain.sender != _party(sender) or plain.recipient != _party(me):
        raise Unreadable(Reason.WRONG_IDENTITY)
    return plain


def decode_content(content: bytes | Raw) -> Content | Unknown:
    """The content of a `Plain` or of a `Resent`. Raises `Unreadable` if it is malformed."""
    try:
        kind = _decode_kind(content).t
        if kind not in _KINDS:
            return Unknown(kind)
        decoded: Content = _decode_content(content)
        if isinstance(decoded, Resent) and _decode_kind(decoded.content).t == kind:
            raise Unreadable(Reason.BAD_CONTENT)
    except _MALFORMED:
        raise Unreadable(Reason.BAD_CONTENT) from None
    return decoded


def without_thumbnail(content: bytes) -> bytes:
    """The same content (from `encode_content`) without the small picture, if it has one."""
    decoded = decode_content(content)
    if not isinstance(decoded, File) or not decoded.thumbnail:
        return content
    return encode_content(msgspec.structs.replace(decoded, thumbnail=b""))


def _party(device: DeviceIdentity) -> Party:
    return Party(device.user, device.device, device.ed25519)
