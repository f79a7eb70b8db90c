"""What the talk needs of the screen below it, of the messenger behind it, and of the vault beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from twisted.internet.defer import Deferred

from fastchat_client.files import StoredFile, Transfer
from fastchat_client.group_acting import Act
from fastchat_client.groups import GroupInfo
from fastchat_client.marking import Mark
from fastchat_client.terminal.render import Line
from fastchat_client.vault import Contact, Conversation, HistoryItem, Whoami


class Screen(Protocol):
    """What shows the chat."""

    live: bool
    """Whether it has a live region; without one, each change of a message's state is printed."""

    def show(self, line: Line) -> None:
        """Print, for good."""

    def redraw(self) -> None:
        """The prompt, the live region or the status line may have changed."""

    def end(self) -> None:
        """The person wants to leave."""


class Answers(Protocol):
    """What the vault knows (`vault.Vault`)."""

    def whoami(self) -> Whoami: ...

    def history(self, conversation: str, limit: int = 100, before: str = "") -> list[HistoryItem]: ...

    def conversations(self) -> list[Conversation]: ...

    def contacts(self) -> list[Contact]: ...

    def unread(self, conversation: str) -> int: ...


class Book(Protocol):
    """What is noted in the vault beside messages (`book.VaultBook`)."""

    def groups(self) -> list[GroupInfo]: ...

    def conversation_named(self, text: str) -> str: ...

    def message_named(self, text: str) -> str: ...

    def message(self, message_id: str) -> HistoryItem | None: ...

    def marks(self, message_id: str) -> list[Mark]: ...

    def reactions(self, message_id: str) -> list[tuple[str, str]]: ...

    def blocked(self) -> list[str]: ...


class Mouth(Protocol):
    """What one can do on the network (`messenger.Messenger`)."""

    @property
    def vault(self) -> Answers: ...

    @property
    def alarm_file(self) -> str: ...

    @property
    def group_alarm_file(self) -> str: ...

    def send(self, to: str, text: str, reply: str = "") -> str: ...

    def react(self, message_id: str, emoji: str, remove: bool = False) -> str: ...

    def edit(self, message_id: str, text: str) -> str: ...

    def delete(self, message_id: str) -> str: ...

    def set_timer(self, conversation: str, seconds: int) -> str: ...

    def mute(self, conversation: str, on: bool) -> None: ...

    def block(self, user: str, on: bool) -> None: ...

    def set_presence(self, on: bool) -> None: ...

    def typing(self, conversation: str) -> None: ...

    def send_file(
        self,
        conversation: str,
        path: Path,
        text: str = "",
        *,
        original: bool = False,
        reply: str = "",
        progress: Callable[[int, int], None] | None = None,
    ) -> Deferred[str]: ...

    def fetch(self, message_id: str, directory: Path) -> None: ...

    def transfers(self) -> Sequence[Transfer]: ...

    def cancel(self, attachment: str) -> None: ...

    def file(self, message_id: str) -> StoredFile | None: ...

    def files(self, conversation: str, limit: int) -> Sequence[StoredFile]: ...

    def set_auto_download(self, size: int) -> None: ...

    def group_create(self, name: str, topic: str = "") -> tuple[int, str]: ...

    def group_act(self, conversation: str, act: Act) -> int: ...

    def mark_read(self, conversation: str) -> None: ...

    def accept_root(self, user: str) -> None: ...

    def reconnect(self) -> None: ...
