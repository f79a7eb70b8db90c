"""Edits and deletes of messages, in whatever order they and their messages come.

Of every message the newest edit of each device is kept, so that all who have heard the same edits show the same text.
An edit or a delete that comes before its message waits here; who may say it is judged when the message is there. Writes
need a transaction around them.
"""

from __future__ import annotations

from dataclasses import dataclass

from fastchat_client import files
from fastchat_client.composing import quoting, strike
from fastchat_client.content import Delete, Ref, encode_content
from fastchat_client.vault import Vault

MOST_PENDING = 1000
"""Edits, and deletes, of one account whose messages have not come yet."""
PENDING_FOR = 30 * 86_400_000
"""Milliseconds for which they are kept."""


@dataclass(frozen=True, slots=True)
class Word:
    """An edit or a delete: message `n` of `device`, of the account `user`, said it in `conversation` at `at`
    (milliseconds since 1970, by the clock of who said it)."""

    user: str
    device: str
    n: int
    conversation: str
    at: int


def edit(vault: Vault, of: Ref, word: Word, text: str, *, pending: bool = False) -> bool:
    """Take in an edit of a message. `pending`: the message has not come yet. Whether another text than before is to be
    shown."""
    before = _newest(vault, of)
    row = vault.execute(
        "SELECT by_n FROM edits WHERE device = ? AND n = ? AND by_device = ?", (of.device, of.n, word.device)
    ).fetchone()
    if row is not None and row[0] >= word.n:
        return False
    if pending and row is None and _count(vault, "edits WHERE pending = 1 AND", word.user) >= MOST_PENDING:
        return False
    vault.execute(
        "INSERT OR REPLACE INTO edits (device, n, by_device, by_n, user, conversation, at, text, pending, came_at)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            *(of.device, of.n, word.device, word.n),
            *(word.user, word.conversation, word.at, text, pending, vault.now()),
        ),
    )
    if pending:
        return False
    after = _newest(vault, of)
    if after == before:
        return False
    _show(vault, of)
    return True


def edited_at(vault: Vault, of: Ref) -> int:
    """The latest time that any of a message's edits bears; 0: it has none."""
    row = vault.execute("SELECT MAX(at) FROM edits WHERE device = ? AND n = ?", (of.device, of.n)).fetchone()
    return int(row[0] or 0)


def settle_edits(vault: Vault, of: Ref, user: str, conversation: str) -> tuple[Word | None, str, list[tuple[str, str]]]:
    """The message has come, and is `user`'s in `conversation`. The edit that it is shown with and its text, and the
    (user, device) of others who had no right to theirs."""
    where = "device = ? AND n = ? AND pending = 1"
    rows = vault.execute(f"SELECT by_device, user, conversation FROM edits WHERE {where}", (of.device, of.n)).fetchall()  # noqa: S608
    strangers = [(row[1], row[0]) for row in rows if (row[1], row[2]) != (user, conversation)]
    vault.execute_many(
        "DELETE FROM edits WHERE device = ? AND n = ? AND by_device = ?",
        [(of.device, of.n, device) for _, device in strangers],
    )
    vault.execute(f"UPDATE edits SET pending = 0 WHERE {where}", (of.device, of.n))  # noqa: S608
    word = _newest(vault, of)
    if word is not None:
        _show(vault, of)
    return word, _text(vault, of, word), strangers


def delete(vault: Vault, of: Ref) -> None:
    """Its author wants the message gone: what it said is, everywhere in the vault; its place stays."""
    vault.execute(
        "UPDATE messages SET text = '', deleted = 1, read = 1, told = 2, reply_device = NULL, reply_n = NULL,"
        " edited_at = 0 WHERE device = ? AND n = ?",
        (of.device, of.n),
    )
    wipe(vault, of)


def wipe(vault: Vault, of: Ref) -> None:
    """Everything that belongs to a message but its own row, and its words in what was sent from here."""
    instead = encode_content(Delete(of))
    if of.device == vault.text("device"):
        strike(vault, of.n, instead)
    for n in quoting(vault, of):
        strike(vault, n, instead)
    for table in ("edits", "reactions", "deletes", "group_bodies"):
        vault.execute(f"DELETE FROM {table} WHERE device = ? AND n = ?", (of.device, of.n))  # noqa: S608
    files.wipe(vault, of)


def delete_later(vault: Vault, of: Ref, word: Word) -> None:
    """Delete the message when it comes, if it is by who wants that."""
    if _count(vault, "deletes WHERE", word.user) < MOST_PENDING:
        vault.execute(
            "INSERT OR IGNORE INTO deletes (device, n, user, by_device, conversation, at, came_at)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            (of.device, of.n, word.user, word.device, word.conversation, word.at, vault.now()),
        )


def settle_delete(vault: Vault, of: Ref, user: str, conversation: str) -> tuple[int | None, list[tuple[str, str]]]:
    """The message has come, and is `user`'s in `conversation`. When it was deleted, or None; and the (user, device) of
    others who had no right to that."""
    rows = vault.execute(
        "SELECT user, conversation, by_device, at FROM deletes WHERE device = ? AND n = ?", (of.device, of.n)
    ).fetchall()
    vault.execute("DELETE FROM deletes WHERE device = ? AND n = ?", (of.device, of.n))
    at = [row[3] for row in rows if (row[0], row[1]) == (user, conversation)]
    return (at[0] if at else None), [(row[0], row[2]) for row in rows if (row[0], row[1]) != (user, conversation)]


def purge(vault: Vault, now: int) -> None:
    """Forget what has waited too long for its message."""
    for where in ("edits WHERE pending = 1 AND", "deletes WHERE", "reactions WHERE pending = 1 AND"):
        vault.execute(f"DELETE FROM {where} came_at < ?", (now - PENDING_FOR,))  # noqa: S608


# --- within ----------------------------------------------------------------------------------------------------------


def _newest(vault: Vault, of: Ref) -> Word | None:
    row = vault.execute(
        "SELECT user, by_device, by_n, conversation, at FROM edits WHERE device = ? AND n = ? AND pending = 0"
        " ORDER BY at DESC, by_device DESC LIMIT 1",
        (of.device, of.n),
    ).fetchone()
    return None if row is None else Word(*row)


def _text(vault: Vault, of: Ref, word: Word | None) -> str:
    if word is None:
        return ""
    row = vault.execute(
        "SELECT text FROM edits WHERE device = ? AND n = ? AND by_device = ?", (of.device, of.n, word.device)
    ).fetchone()
    return str(row[0])


def _show(vault: Vault, of: Ref) -> None:
    word = _newest(vault, of)
    assert word is not None
    vault.execute(
        "UPDATE messages SET text = ?, edited_at = ? WHERE device = ? AND n = ?",
        (_text(vault, of, word), max(1, word.at), of.device, of.n),
    )


def _count(vault: Vault, where: str, user: str) -> int:
    return int(vault.execute(f"SELECT COUNT(*) FROM {where} user = ?", (user,)).fetchone()[0])  # noqa: S608
