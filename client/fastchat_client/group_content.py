"""What stands inside a group message once it is decrypted: the group's counterpart of `content.Plain`.

One plaintext for everybody, so it names no recipient; it names the group, the message's number, and the chain by which
its sender chose who may read it. What may be said in it is what may be said to one person (`content`).
"""

from __future__ import annotations

import msgspec
from msgspec import Raw

from fastchat.identity.links import DeviceIdentity
from fastchat.identity.statements import Key32, Millis
from fastchat.protocols.wire import GroupId, Id
from fastchat_client.content import VERSION, Party, TreeHead
from fastchat_client.unreadable import Reason, Unreadable


class GroupPlain(msgspec.Struct, frozen=True, rename={"sender": "from"}):
    """The plaintext, as JSON. `seq`: the message's number, 0 in a whisper. `length` and `head`: the group's chain as
    the sender knows it; `checkpoint`: the key log; `at`: milliseconds since 1970, by the sender's clock."""

    v: int
    sender: Party
    group: GroupId
    seq: Id
    length: Id
    head: Key32
    checkpoint: TreeHead
    at: Millis
    content: Raw


class _Version(msgspec.Struct):
    v: int


_decode_version = msgspec.json.Decoder(_Version).decode
_decode = msgspec.json.Decoder(GroupPlain).decode


def write_group_plain(
    me: DeviceIdentity,
    group: str,
    seq: int,
    chain: tuple[int, bytes],
    checkpoint: TreeHead,
    at: int,
    content: bytes,
) -> bytes:
    """The plaintext of message `seq` of `me` in `group`, before padding. `chain`: its length and head."""
    sender = Party(me.user, me.device, me.ed25519)
    return msgspec.json.encode(GroupPlain(VERSION, sender, group, seq, *chain, checkpoint, at, Raw(content)))


def read_group_plain(plaintext: bytes, sender: DeviceIdentity, group: str) -> GroupPlain:
    """What `plaintext` says, if it is of `sender`, whose session it was, and for `group`. Raises `Unreadable`."""
    try:
        if _decode_version(plaintext).v != VERSION:
            raise Unreadable(Reason.NEWER_CLIENT)
        plain = _decode(plaintext)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise Unreadable(Reason.BAD_CONTENT) from None
    if plain.sender != Party(sender.user, sender.device, sender.ed25519) or plain.group != group:
        raise Unreadable(Reason.WRONG_IDENTITY)
    return plain
