"""Which message or conversation a person means: names, ids, and beginnings of ids. It only reads."""

from __future__ import annotations

from fastchat.errors import RequestError
from fastchat_client.groups import resolve
from fastchat_client.vault import HistoryItem, Vault

SHORTEST = 4
"""Digits of a device's id that name it, if no other one begins with them."""
SHORT = 8
"""As many as will do in practice."""


def conversation_named(vault: Vault, text: str) -> str:
    """As `groups.resolve`; of "#name/1a2b3c4d", as groups of one name are told apart, the id counts."""
    name, slash, short = text.rpartition("/")
    return resolve(vault, f"#{short}" if slash and name.startswith("#") else text)


def message_named(vault: Vault, text: str) -> str:
    """The id of a message, of which the device's part may be cut short: "1a2b3c.17". Raises `RequestError`."""
    device, _, number = text.strip().lower().rpartition(".")
    is_number = number.isascii() and number.isdecimal() and len(number) <= 16
    if not is_number or len(device) < SHORTEST or not device.isalnum():
        raise RequestError(f"{text} is no message: write its id, such as 1a2b3c.17; history --ids shows them")
    rows = vault.execute(
        "SELECT device FROM messages WHERE n = ? AND substr(device, 1, ?) = ? LIMIT 2",
        (int(number), len(device), device),
    ).fetchall()
    if len(rows) == 1:
        return f"{rows[0][0]}.{int(number)}"
    if rows:
        raise RequestError(f"{text} could be several messages: write more of its id")
    raise RequestError(f"there is no message {text} here; history --ids shows those that there are")


def short_id(message_id: str) -> str:
    """A message's id as people type it."""
    device, dot, number = message_id.rpartition(".")
    return f"{device[:SHORT]}{dot}{number}"


def message(vault: Vault, message_id: str) -> HistoryItem | None:
    """The message of this id, if it can be shown."""
    device, _, n = message_id.rpartition(".")
    if not n.isdecimal():
        return None
    row = vault.execute(
        "SELECT conversation, seq FROM messages WHERE device = ? AND n = ?", (device, int(n))
    ).fetchone()
    if row is None:
        return None
    after = vault.execute(
        "SELECT device, n FROM messages WHERE conversation = ? AND seq > ? ORDER BY seq LIMIT 1", tuple(row)
    ).fetchone()
    items = vault.history(row[0], 1, "" if after is None else f"{after[0]}.{after[1]}")
    return next((item for item in items if item.id == message_id), None)
