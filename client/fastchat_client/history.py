"""What is written into the history that people see. It is read through the vault, which knows no states.

A message's state only ever moves forward, whatever order the news about it comes in. Writes need a transaction around
them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from fastchat_client.content import MAX_IDS
from fastchat_client.events import State
from fastchat_client.vault import Vault, split_id

_RANK = {State.WAITING: 0, State.ACCEPTED: 1, State.DELIVERED: 2, State.READ: 3}
MOST_MARKED = MAX_IDS
"""Messages that are marked at once: a mark holds no more."""


class Arrived(msgspec.Struct, frozen=True):
    """A received message as it goes into the history. `own`: written on another device of this account. `reply`: the
    (device, n) that it answers. `expires`: seconds after its reading. `earlier`: said before this account joined; its
    sender waits for no marks."""

    device: str
    n: int
    conversation: str
    sender: str
    at: int
    text: str
    own: bool
    reply: tuple[str, int] | None = None
    expires: int = 0
    expires_at: int | None = None
    """If it is known already when it goes."""
    deleted: bool = False
    earlier: bool = False


class Standing(NamedTuple):
    """A message that can be read here, or could until it was deleted."""

    conversation: str
    sender: str
    own: bool
    deleted: bool
    state: str


def add_sent(
    vault: Vault,
    device: str,
    n: int,
    me: str,
    to: str,
    at: int,
    text: str,
    reply: tuple[str, int] | None = None,
    expires: int = 0,
) -> None:
    """A message that is written here. Its time, if it has one, runs from now on."""
    vault.execute(
        "INSERT INTO messages (device, n, conversation, sender, own, at, text, state, read, reply_device, reply_n,"
        " expires, expires_at) VALUES (?, ?, ?, ?, 1, ?, ?, ?, 1, ?, ?, ?, ?)",
        (device, n, to, me, at, text, State.WAITING, *(reply or (None, None)), expires, goes_at(expires, vault.now())),
    )


def goes_at(expires: int, now: int) -> int | None:
    """When a message goes that was read at `now` (milliseconds) and stays for `expires` seconds."""
    return now + 1000 * expires if expires else None


def add_received(vault: Vault, message: Arrived) -> None:
    """Also fills the placeholder of a message that could not be read before, where that stands."""
    is_read = message.own or message.earlier or message.deleted
    vault.execute(
        "INSERT INTO messages (device, n, conversation, sender, own, at, text, state, read, told, reply_device,"
        " reply_n, deleted, expires, expires_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (device, n) DO UPDATE SET"
        " conversation = excluded.conversation, sender = excluded.sender, own = excluded.own, at = excluded.at,"
        " text = excluded.text, state = excluded.state, read = excluded.read, told = excluded.told,"
        " reply_device = excluded.reply_device, reply_n = excluded.reply_n, deleted = excluded.deleted,"
        " expires = excluded.expires, expires_at = excluded.expires_at, unreadable = 0, reason = ''"
        " WHERE unreadable != 0",
        (
            message.device,
            message.n,
            message.conversation,
            message.sender,
            message.own,
            message.at,
            message.text,
            State.ACCEPTED if message.own else "",
            is_read,
            2 if message.earlier or message.deleted else 0,
            *(message.reply or (None, None)),
            message.deleted,
            message.expires,
            message.expires_at,
        ),
    )


def standing(vault: Vault, device: str, n: int) -> Standing | None:
    """The message of this name; None if it is not here, or only its placeholder."""
    row = vault.execute(
        "SELECT conversation, sender, own, deleted, state FROM messages WHERE device = ? AND n = ? AND unreadable = 0",
        (device, n),
    ).fetchone()
    return None if row is None else Standing(row[0], row[1], bool(row[2]), bool(row[3]), row[4])


def may_come(vault: Vault, device: str, n: int) -> bool:
    """Whether a message that does not stand here can still come to stand: it is not taken yet, or waits somewhere. Else
    it was none that people see, or it has gone."""
    if device == vault.text("device"):
        return False
    if vault.execute("SELECT 1 FROM seen WHERE device = ? AND n = ?", (device, n)).fetchone() is None:
        return True
    for where in ("messages WHERE unreadable != 0", "held WHERE 1", "group_bodies WHERE waits != ''"):
        if vault.execute(f"SELECT 1 FROM {where} AND device = ? AND n = ?", (device, n)).fetchone() is not None:  # noqa: S608
            return True
    return False


def add_unreadable(
    vault: Vault, device: str, n: int, sender: str, at: int, reason: str, conversation: str = ""
) -> None:
    """A placeholder. It counts as read: there is nothing to read. `conversation`: the sender's, if not given."""
    vault.execute(
        "INSERT INTO messages (device, n, conversation, sender, own, at, text, reason, unreadable, read)"
        " VALUES (?, ?, ?, ?, 0, ?, '', ?, 1, 1) ON CONFLICT (device, n) DO UPDATE SET"
        " reason = excluded.reason, unreadable = 1 WHERE unreadable = 2",
        (device, n, conversation or sender, sender, at, reason),
    )


def add_waiting(vault: Vault, device: str, n: int, conversation: str, sender: str, at: int, reason: str) -> None:
    """The place of a message that will be readable once something has come."""
    vault.execute(
        "INSERT INTO messages (device, n, conversation, sender, own, at, text, reason, unreadable, read)"
        " VALUES (?, ?, ?, ?, 0, ?, '', ?, 2, 1) ON CONFLICT (device, n) DO NOTHING",
        (device, n, conversation, sender, at, reason),
    )


def is_placeholder(vault: Vault, device: str, n: int) -> bool:
    """Whether what came under this name could not be read, and stands in the history as that."""
    row = vault.execute("SELECT 1 FROM messages WHERE device = ? AND n = ? AND unreadable = 1", (device, n)).fetchone()
    return row is not None


def drop_placeholder(vault: Vault, device: str, n: int) -> None:
    """What could not be read turned out to be nothing that people see."""
    vault.execute("DELETE FROM messages WHERE device = ? AND n = ? AND unreadable != 0", (device, n))


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


def went_by(vault: Vault, device: str, n: int, length: int) -> None:
    """The message from here went to who was in the group when its chain had `length` statements."""
    vault.execute("UPDATE messages SET length = ? WHERE device = ? AND n = ?", (length, device, n))


def has_written(vault: Vault, conversation: str) -> bool:
    """Whether this account has ever said anything there that still stands."""
    row = vault.execute("SELECT 1 FROM messages WHERE conversation = ? AND own = 1 LIMIT 1", (conversation,)).fetchone()
    return row is not None


def newest(vault: Vault) -> int:
    """The place of the newest message of all; 0 if there is none."""
    return int(vault.execute("SELECT COALESCE(MAX(seq), 0) FROM messages").fetchone()[0])


def written_since(vault: Vault, place: int) -> list[str]:
    """The conversations in which this account has said something behind that place."""
    rows = vault.execute("SELECT DISTINCT conversation FROM messages WHERE seq > ? AND own = 1", (place,))
    return [name for (name,) in rows]


def is_to(vault: Vault, device: str, n: int, conversation: str) -> bool:
    """Whether there is such a message of one's own in this conversation: only its recipient may mark it."""
    row = vault.execute(
        "SELECT 1 FROM messages WHERE device = ? AND n = ? AND own = 1 AND conversation = ?", (device, n, conversation)
    ).fetchone()
    return row is not None


def mark_read(vault: Vault, conversation: str, upto: str = "") -> bool:
    """Everything received there has been read; with `upto`, what came no later than the message of that id. Whether
    anything changed. From here on the time of those runs that have one."""
    cursor = vault.execute(
        "UPDATE messages SET read = 1, expires_at = IIF(expires = 0, NULL, ? + 1000 * expires)"
        " WHERE conversation = ? AND read = 0 AND own = 0"
        " AND (? = '' OR seq <= (SELECT seq FROM messages WHERE device = ? AND n = ?))",
        (vault.now(), conversation, upto, *split_id(upto)),
    )
    return bool(cursor.rowcount > 0)


def untold(vault: Vault) -> list[tuple[str, str, str, int, bool]]:
    """(conversation, sender, device, n, read) of received messages of which the sender does not know yet that they are
    here, or if read, that they are; `MOST_MARKED` at most."""
    rows = vault.execute(
        "SELECT conversation, sender, device, n, read FROM messages WHERE own = 0 AND unreadable = 0"
        " AND told < 1 + read ORDER BY seq LIMIT ?",
        (MOST_MARKED,),
    ).fetchall()
    return [(row[0], row[1], row[2], row[3], bool(row[4])) for row in rows]


def told(vault: Vault, device: str, numbers: Sequence[int], is_read: bool) -> None:
    vault.execute_many(
        "UPDATE messages SET told = ? WHERE device = ? AND n = ?", [(1 + is_read, device, n) for n in numbers]
    )
