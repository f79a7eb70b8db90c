"""Rows of the outbox as any process of the profile may make, unmake and read them; the one that is connected sends them
(`outbox.py`). Writes need a transaction around them.
"""

from __future__ import annotations

from fastchat_client.content import Ref
from fastchat_client.events import State
from fastchat_client.vault import Vault


def insert(
    vault: Vault,
    user: str,
    device: str,
    content: bytes,
    at: int,
    *,
    shown: bool,
    own_copies: bool = True,
    quotes: Ref | None = None,
) -> int:
    """A new row, composed; its number. Any process of the profile may do this; the one that is connected sends it."""
    n = vault.number("next_n")
    vault.put("next_n", n + 1)
    vault.execute(
        "INSERT INTO outbox (n, user, device, content, at, shown, own_copies, quotes) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (n, user, device or None, content, at, shown, own_copies, quotes and f"{quotes.device}.{quotes.n}"),
    )
    return n


def compose_for(vault: Vault, user: str, content: bytes, at: int) -> int:
    """A message that people do not see, for every device of `user` and for no other. Its number."""
    return insert(vault, user, "", content, at, shown=False, own_copies=False)


def is_empty(vault: Vault) -> bool:
    """Whether nothing is left to be sent, neither what people see nor what devices say to each other."""
    return vault.execute("SELECT 1 FROM outbox WHERE state < 2 LIMIT 1").fetchone() is None


def outgoing_state(vault: Vault, n: int) -> State:
    """How far message `n` from here has come on its way out: `WAITING`, `ACCEPTED` or `FAILED`. What was sent so long
    ago that it is forgotten was accepted."""
    row = vault.execute("SELECT state FROM outbox WHERE n = ?", (n,)).fetchone()
    return State.ACCEPTED if row is None else (State.WAITING, State.WAITING, State.ACCEPTED, State.FAILED)[row[0]]


def quoting(vault: Vault, message: Ref) -> list[int]:
    """What was composed here that has the words of this message."""
    rows = vault.execute("SELECT n FROM outbox WHERE quotes = ?", (f"{message.device}.{message.n}",)).fetchall()
    return [n for (n,) in rows]


def strike(vault: Vault, n: int, instead: bytes) -> None:
    """The words of message `n` from here are to be forgotten: if it has gone, nobody is sent it again; if it has not,
    or only to some, it says `instead` from here on."""
    if vault.execute("DELETE FROM outbox WHERE n = ? AND state >= 2", (n,)).rowcount:
        vault.execute("DELETE FROM sealed WHERE n = ?", (n,))
    else:
        vault.execute("UPDATE outbox SET content = ? WHERE n = ?", (instead, n))
