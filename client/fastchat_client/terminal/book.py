"""What a vault has noted beside its messages, as the chat asks for it."""

from __future__ import annotations

from fastchat_client import naming, settings
from fastchat_client.groups import GroupInfo, group_list
from fastchat_client.marking import Mark, marks_of, reactions_of
from fastchat_client.vault import HistoryItem, Vault


class VaultBook:
    """An `interfaces.Book`."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault

    def groups(self) -> list[GroupInfo]:
        return group_list(self._vault)

    def conversation_named(self, text: str) -> str:
        return naming.conversation_named(self._vault, text)

    def message_named(self, text: str) -> str:
        return naming.message_named(self._vault, text)

    def message(self, message_id: str) -> HistoryItem | None:
        return naming.message(self._vault, message_id)

    def marks(self, message_id: str) -> list[Mark]:
        return marks_of(self._vault, message_id)

    def reactions(self, message_id: str) -> list[tuple[str, str]]:
        return reactions_of(self._vault, message_id)

    def blocked(self) -> list[str]:
        return settings.blocked(self._vault)
