"""Disappearing messages: what is forgotten when a message's time has passed.

Its time runs from its reading, by the clock of the device that it is on; that of one's own messages from their writing,
but none goes before it was sent. Faces never see one whose time has passed (`vault.py`); this is what makes it go.
"""

from __future__ import annotations

from fastchat_client import amending
from fastchat_client.content import Ref
from fastchat_client.events import Expired
from fastchat_client.vault import Vault

MOST_AT_ONCE = 500
DUE = (
    "FROM messages WHERE expires_at <= ? AND state != 'waiting' AND NOT EXISTS (SELECT 1 FROM outbox"
    " WHERE quotes = messages.device || '.' || messages.n AND state < 2)"
)


def is_due(vault: Vault) -> bool:
    """Whether something is to go. Cheap: it is asked for by the second."""
    return vault.execute(f"SELECT 1 {DUE} LIMIT 1", (vault.now(),)).fetchone() is not None


def expire(vault: Vault) -> list[Expired]:
    """Forget what is due: the text, its reactions and marks, and all that was kept of it to be sent again or to be
    handed on. Needs a transaction around it."""
    rows = vault.execute(
        f"SELECT conversation, device, n {DUE} ORDER BY expires_at LIMIT ?",
        (vault.now(), MOST_AT_ONCE),
    ).fetchall()
    for _, device, n in rows:
        amending.wipe(vault, Ref(device, n))
        for table in ("marks", "messages"):
            vault.execute(f"DELETE FROM {table} WHERE device = ? AND n = ?", (device, n))  # noqa: S608
    return [Expired(conversation, f"{device}.{n}") for conversation, device, n in rows]
