"""What a face can do for somebody who types: the methods that the table of slash commands calls. It knows no screen."""

from __future__ import annotations

from typing import Protocol

from fastchat_client.group_acting import Act


class FileFace(Protocol):
    """What a face can do with files. A message is named by its id, a transfer by the beginning of its own."""

    def send(self, conversation: str, path: str, text: str, *, original: bool) -> None:
        """`path`: as typed, `~` and all. `original`: a picture as it is, with all that stands in it."""

    def fetch(self, message: str, directory: str) -> None:
        """Save the file of a message, or the newest one of the open conversation if that is ""; in `directory`, or in
        the one where the program runs if that is ""."""

    def show(self, message: str) -> None:
        """What is known of a message's file, with its small picture."""

    def show_transfers(self) -> None: ...

    def cancel(self, transfer: str) -> None: ...

    def set_auto_download(self, size: int) -> None:
        """Up to how many bytes a file is fetched without being asked for; 0: none."""


class Face(Protocol):
    """What a face can do for somebody who types. A conversation is a user's name, or "#" and the id of a group; a
    message is named by its id."""

    @property
    def conversation(self) -> str | None:
        """Whom a line without a command goes to."""

    @property
    def files(self) -> FileFace: ...

    def meant(self, word: str) -> str:
        """The conversation that a person names: "bob", "#team". Raises `RequestError`."""

    def message(self, word: str, *, own: bool) -> str:
        """The id of the message that a person names: by its number on the screen, as `last` (of one's own, or of
        somebody else's), or by its id. Raises `RequestError`."""

    def open(self, conversation: str) -> None:
        """Make it the current conversation and show what is unread in it."""

    def send(self, conversation: str, text: str) -> None: ...

    def reply(self, message: str, text: str) -> None: ...

    def react(self, message: str, emoji: str, *, remove: bool) -> None: ...

    def edit(self, message: str, text: str) -> None: ...

    def delete(self, message: str) -> None:
        """For everyone."""

    def show_message(self, message: str) -> None:
        """Whose it is, who has it and who has read it, who has put which sign on it."""

    def show_people(self) -> None:
        """Conversations and contacts, with their unread counts."""

    def show_history(self, conversation: str, limit: int) -> None: ...

    def set_timer(self, conversation: str, seconds: int) -> None:
        """How long after its reading what is written from now on stays; 0: for ever."""

    def mute(self, conversation: str, on: bool) -> None: ...

    def block(self, user: str, on: bool) -> None: ...

    def set_presence(self, on: bool) -> None:
        """Whether others see that one is there."""

    def create_group(self, name: str, topic: str) -> None: ...

    def act(self, group: str, act: Act) -> None:
        """Have it done to the group of this conversation."""

    def change_role(self, group: str, user: str, *, up: bool) -> None: ...

    def show_groups(self) -> None: ...

    def show_group(self, group: str) -> None:
        """Its members, who is invited, its topic."""

    def accept(self, who: str) -> None:
        """Believe the changed root key of `who`."""

    def show_self(self) -> None:
        """Who one is oneself, and whether one is connected."""

    def show_help(self, lines: list[str]) -> None: ...

    def reconnect(self) -> None:
        """Try the network now."""

    def quit(self) -> None: ...
