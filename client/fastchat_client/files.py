"""What a face is told of files, beside events: those of messages, and those that are on their way. No key is in it."""

from __future__ import annotations

import msgspec

from fastchat_client.events import FileShown


class StoredFile(msgspec.Struct, frozen=True):
    """The file of a message. `message`: the message's id; `path`: where it was saved here last, "" if it was not."""

    message: str
    conversation: str
    sender: str
    own: bool
    file: FileShown
    path: str = ""


class Transfer(msgspec.Struct, frozen=True):
    """A file that is not where it is to be yet; `done` of `size` bytes are. `up`: to the network, else here. `id`: of
    the message that brought it, "" for what is being sent. `active`: it is on its way at this moment."""

    attachment: str
    conversation: str
    id: str
    name: str
    up: bool
    done: int
    size: int
    active: bool
