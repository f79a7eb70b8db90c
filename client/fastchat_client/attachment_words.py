"""What is to be said to the network about attachments, and said again until it has answered: that so many devices were
told of one, that this device has fetched one, that one of ours is not wanted any more.

Rows of the vault, which any process of the profile may make; the one that is connected says them (`transfers.py`).
Writes need a transaction around them.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from fastchat_client.vault import Vault


class Word(StrEnum):
    FOR = "for"
    FETCHED = "fetched"
    DETACH = "detach"


class OpenWord(NamedTuple):
    attachment: str
    word: Word
    devices: int


def tell_for(vault: Vault, attachment: str, devices: int) -> None:
    """So many devices of others were told of it: the sum, if several messages tell of it."""
    vault.execute(
        "INSERT INTO attachment_words (attachment, word, devices) VALUES (?, ?, ?)"
        " ON CONFLICT (attachment, word) DO UPDATE SET devices = devices + excluded.devices",
        (attachment, Word.FOR, devices),
    )


def tell_fetched(vault: Vault, attachment: str) -> None:
    """All of it is here."""
    vault.execute("INSERT OR IGNORE INTO attachment_words (attachment, word) VALUES (?, ?)", (attachment, Word.FETCHED))


def tell_detached(vault: Vault, attachment: str) -> None:
    """It is ours, and not wanted any more."""
    vault.execute("DELETE FROM attachment_words WHERE attachment = ? AND word = ?", (attachment, Word.FOR))
    vault.execute("INSERT OR IGNORE INTO attachment_words (attachment, word) VALUES (?, ?)", (attachment, Word.DETACH))


def open_words(vault: Vault, most: int) -> list[OpenWord]:
    """What is not answered yet."""
    rows = vault.execute("SELECT attachment, word, devices FROM attachment_words LIMIT ?", (most,)).fetchall()
    return [OpenWord(row[0], Word(row[1]), row[2]) for row in rows]


def answered(vault: Vault, said: OpenWord) -> None:
    vault.execute(
        "DELETE FROM attachment_words WHERE attachment = ? AND word = ? AND devices = ?", (*said[:2], said.devices)
    )
