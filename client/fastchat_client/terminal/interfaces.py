"""What the talk needs of the screen below it and of the messenger behind it."""

from __future__ import annotations

from typing import Protocol

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


class Mouth(Protocol):
    """What one can do on the network (`messenger.Messenger`)."""

    @property
    def vault(self) -> Answers: ...

    @property
    def alarm_file(self) -> str: ...

    def send(self, to: str, text: str) -> str: ...

    def mark_read(self, conversation: str) -> None: ...

    def accept_root(self, user: str) -> None: ...

    def reconnect(self) -> None: ...
