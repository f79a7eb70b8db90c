"""What is written into the history that people see. It is read through the vault, which knows no states.

A message's state only ever moves forward, whatever order the news about it comes in. Writes need a transaction around
them.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from fastchat_client.content import MAX_IDS
from fastchat_client.events import State
from fastchat_client.vault import Vault, split_id

_RANK = {State.WAITING: 0, State.ACCEPTED: 1, State.DELIVERED: 2, State.READ: 3}
MOST_MARKED = MAX_IDS
"""Messages that are marked at once: a mark holds no more."""


class Arrived(msgspec.Struct, frozen=True):
    """A received message as it goes into the history. `own`: written on another device of this account."""

    device: str
    n: int
    conversation: str
    sender: str
    at: int
    text: str
    own: bool


def add_sent(vault: Vault, device: str, n: int, me: str, to: str, at: int, text: str) -> None:
    vault.execute(
        "INSERT INTO messages (device, n, conversation, sender, own, at, text, state, read)"
        " VALUES (?, ?, ?, ?, 1, ?, ?, ?, 1)",
        (device, n, to, me, at, text, State.WAITING),
    )


def add_received(vault: Vault, message: Arrived) -> None:
    """Also fills the placeholder of a message that could not be read before, where that stands."""
    vault.execute(
        "INSERT INTO messages (device, n, conversation, sender, own, at, text, state, read)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (device, n) DO UPDATE SET"
        " conversation = excluded.conversation, sender = excluded.sender, own = excluded.own, at = excluded.at,"
        " text = excluded.text, state = excluded.state, read = excluded.read, unreadable = 0, reason = ''"
        " WHERE unreadable = 1",
        (
            message.device,
            message.n,
            message.conversation,
            message.sender,
            message.own,
            message.at,
            message.text,
            State.ACCEPTED if message.own else "",
            message.own,
        ),
    )


def add_unreadable(vault: Vault, device: str, n: int, sender: str, at: int, reason: str) -> None:
    """A placeholder. It counts as read: there is nothing to read."""
    vault.execute(
        "INSERT INTO messages (device, n, conversation, sender, own, at, text, reason, unreadable, read)"
        " VALUES (?, ?, ?, ?, 0, ?, '', ?, 1, 1) ON CONFLICT (device, n) DO NOTHING",
        (device, n, sender, sender, at, reason),
    )


def is_placeholder(vault: Vault, device: str, n: int) -> bool:
    """Whether what came under this name could not be read, and stands in the history as that."""
    row = vault.execute("SELECT 1 FROM messages WHERE device = ? AND n = ? AND unreadable = 1", (device, n)).fetchone()
    return row is not None


def drop_placeholder(vault: Vault, device: str, n: int) -> None:
    """What could not be read turned out to be nothing that people see."""
    vault.execute("DELETE FROM messages WHERE device = ? AND n = ? AND unreadable = 1", (device, n))


def advance(vault: Vault, device: str, n: int, state: State, reason: str = "") -> str:
    """The message from here, or from another of one's own devices, has come to `state`. Its conversation, or "" if
    there is no such message or it is that far already."""
    row = vault.execute(
        "SELECT conversation, state FROM messages WHERE device = ? AND n = ? AND own = 1", (device, n)
    ).fetchone()
    if row is None or row[1] not in _RANK:
        return ""
    if state in _RANK and _RANK[state] <= _RANK[State(row[1])]:
        return ""
    if state is State.FAILED and row[1] != State.WAITING:
        return ""
    vault.execute("UPDATE messages SET state = ?, reason = ? WHERE device = ? AND n = ?", (state, reason, device, n))
    return str(row[0])


def is_to(vault: Vault, device: str, n: int, conversation: str) -> bool:
    """Whether there is such a message of one's own in this conversation: only its recipient may mark it."""
    row = vault.execute(
        "SELECT 1 FROM messages WHERE device = ? AND n = ? AND own = 1 AND conversation = ?", (device, n, conversation)
    ).fetchone()
    return row is not None


def mark_read(vault: Vault, conversation: str, upto: str = "") -> bool:
    """Everything received there has been read; with `upto`, what came no later than the message of that id. Whether
    anything changed."""
    cursor = vault.execute(
        "UPDATE messages SET read = 1 WHERE conversation = ? AND read = 0 AND own = 0"
        " AND (? = '' OR seq <= (SELECT seq FROM messages WHERE device = ? AND n = ?))",
        (conversation, upto, *split_id(upto)),
    )
    return bool(cursor.rowcount > 0)


def untold(vault: Vault) -> dict[tuple[str, str], tuple[list[int], list[int]]]:
    """Per (sender, device), the numbers of received messages that the sender does not know yet to be here, and of those
    that he does not know to be read; `MOST_MARKED` at most."""
    found: dict[tuple[str, str], tuple[list[int], list[int]]] = {}
    for sender, device, n, read in vault.execute(
        "SELECT sender, device, n, read FROM messages WHERE own = 0 AND unreadable = 0 AND told < 1 + read"
        " ORDER BY seq LIMIT ?",
        (MOST_MARKED,),
    ):
        found.setdefault((sender, device), ([], []))[read].append(n)
    return found


def told(vault: Vault, device: str, numbers: Sequence[int], is_read: bool) -> None:
    vault.execute_many(
        "UPDATE messages SET told = ? WHERE device = ? AND n = ?", [(1 + is_read, device, n) for n in numbers]
    )
