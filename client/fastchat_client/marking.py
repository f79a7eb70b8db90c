"""Who has received and read what was sent from here, and who reacted how; and telling senders what arrived here.

A mark counts if it comes from somebody who was to get the message. In large groups nobody marks anything: each message
would bring as many marks as it has readers. Reads are for faces; writes need a transaction around them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from fastchat.errors import RequestError
from fastchat_client import history
from fastchat_client.amending import Word
from fastchat_client.content import Delivered, Read, Ref, encode_content
from fastchat_client.events import State
from fastchat_client.outbox import Outbox
from fastchat_client.vault import Vault, split_id

MARKED_MEMBERS = 100
"""In groups of more members nobody says what arrived and what was read."""
MOST_REACTIONS = 20
"""Of one account on one message."""
MOST_PENDING = 1000
"""Of one account, on messages that have not come yet."""


class Mark(msgspec.Struct, frozen=True):
    """How far a message of one's own has come with one of its recipients. `at`: milliseconds since 1970, by the clock
    here; 0 if there is no mark, or nobody noted when."""

    user: str
    state: str
    at: int


@dataclass(frozen=True, slots=True)
class Sent:
    """A message from here that somebody marks. `length`: of the group's chain by which it went, 0 outside groups."""

    conversation: str
    length: int


# --- marks -----------------------------------------------------------------------------------------------------------


def sent(vault: Vault, device: str, n: int) -> Sent | None:
    row = vault.execute(
        "SELECT conversation, length FROM messages WHERE device = ? AND n = ? AND own = 1", (device, n)
    ).fetchone()
    return None if row is None else Sent(*row)


def mark(vault: Vault, device: str, n: int, user: str, state: State) -> None:
    """`user` has the message from here, or has read it; that never goes back."""
    vault.execute(
        "INSERT INTO marks (device, n, user, state, at) VALUES (?, ?, ?, ?, ?) ON CONFLICT (device, n, user)"
        " DO UPDATE SET state = excluded.state, at = excluded.at WHERE state = ? AND excluded.state = ?",
        (device, n, user, state, vault.now(), State.DELIVERED, State.READ),
    )


def reached(vault: Vault, device: str, n: int, group: str, length: int) -> State | None:
    """What every member of that moment but oneself has come to, if that is anything."""
    me = vault.text("user")
    (members,) = vault.execute(
        "SELECT COUNT(*) FROM group_spans WHERE group_id = ? AND user != ? AND since <= ?"
        " AND (until IS NULL OR until > ?)",
        (group, me, length, length),
    ).fetchone()
    marked, read = vault.execute(
        "SELECT COUNT(*), COALESCE(SUM(state = ?), 0) FROM marks WHERE device = ? AND n = ?", (State.READ, device, n)
    ).fetchone()
    if not members or marked < members:
        return None
    return State.READ if read >= members else State.DELIVERED


def marks_of(vault: Vault, message_id: str) -> list[Mark]:
    """How far a message of one's own has come with each of its recipients, by name; those of a group who have not said
    anything are as far as the message. Raises `RequestError` if it is none of one's own."""
    device, n = split_id(message_id)
    row = vault.execute(
        "SELECT conversation, length, state FROM messages WHERE device = ? AND n = ? AND own = 1", (device, n)
    ).fetchone()
    if row is None:
        raise RequestError(f"{message_id} is no message of yours")
    conversation, length, state = row
    if not conversation.startswith("#"):
        return [Mark(conversation, state, 0)]
    as_sent = state if state in (State.WAITING, State.FAILED) else State.ACCEPTED
    marks = {user: Mark(user, as_sent, 0) for user in _recipients(vault, conversation[1:], length)}
    for user, marked, at in vault.execute("SELECT user, state, at FROM marks WHERE device = ? AND n = ?", (device, n)):
        marks[user] = Mark(user, marked, at)
    return [marks[user] for user in sorted(marks)]


def _recipients(vault: Vault, group: str, length: int) -> list[str]:
    """Who was in the group by then; of a message that has not gone, nobody knows."""
    rows = vault.execute(
        "SELECT DISTINCT user FROM group_spans WHERE group_id = ? AND user != ? AND since <= ?"
        " AND (until IS NULL OR until > ?)",
        (group, vault.text("user"), length, length),
    )
    return [user for (user,) in rows]


def flush(vault: Vault, outbox: Outbox, members: Callable[[str], int], now: int) -> bool:
    """Tell senders what has arrived and what was read: one message for each of their devices. `members`: how many are
    in a group. Whether there was anything: then there may be more."""
    found: dict[tuple[str, str, bool], list[int]] = {}
    for conversation, user, device, n, is_read in history.untold(vault):
        is_silent = conversation.startswith("#") and members(conversation[1:]) > MARKED_MEMBERS
        if is_silent:
            history.told(vault, device, [n], is_read)
        found.setdefault((user, device, is_read), []).extend(() if is_silent else (n,))
    for (user, device, is_read), numbers in found.items():
        if numbers:
            kind = Read if is_read else Delivered
            outbox.compose(user, device, encode_content(kind(tuple(numbers))), now)
            history.told(vault, device, numbers, is_read)
    return bool(found)


# --- reactions -------------------------------------------------------------------------------------------------------


def react(vault: Vault, to: Ref, word: Word, emoji: str, *, remove: bool, pending: bool = False) -> bool:
    """`word` puts a sign on a message, or takes it back; of one device the later word counts, between devices of an
    account that of the later time. Whether anything is to be seen of it."""
    row = vault.execute(
        "SELECT by_device, by_n, at, removed FROM reactions WHERE device = ? AND n = ? AND user = ? AND emoji = ?",
        (to.device, to.n, word.user, emoji),
    ).fetchone()
    if row is not None:
        is_later = word.n > row[1] if row[0] == word.device else (word.at, word.device) > (row[2], row[0])
        if not is_later:
            return False
    is_there = row is not None and not row[3]
    if not is_there and not _has_room(vault, to, word.user, remove=remove, pending=pending):
        return False
    vault.execute(
        "INSERT OR REPLACE INTO reactions (device, n, user, emoji, conversation, by_device, by_n, at, removed, pending,"
        " came_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            *(to.device, to.n, word.user, emoji, word.conversation, word.device, word.n),
            *(word.at, remove, pending, vault.now()),
        ),
    )
    _forget_removed(vault, to, word.user)
    return not pending and is_there == remove


def settle_reactions(vault: Vault, to: Ref, conversation: str) -> tuple[list[tuple[Word, str]], list[tuple[str, str]]]:
    """The message has come, in `conversation`. The reactions that it is shown with, and the (user, device) of those who
    said them elsewhere."""
    where = "device = ? AND n = ? AND pending = 1"
    rows = vault.execute(
        f"SELECT user, by_device, by_n, conversation, at, emoji, removed FROM reactions WHERE {where} ORDER BY at",  # noqa: S608
        (to.device, to.n),
    ).fetchall()
    vault.execute(f"DELETE FROM reactions WHERE {where} AND conversation != ?", (to.device, to.n, conversation))  # noqa: S608
    vault.execute(f"UPDATE reactions SET pending = 0 WHERE {where}", (to.device, to.n))  # noqa: S608
    shown = [(Word(*row[:5]), row[5]) for row in rows if row[3] == conversation and not row[6]]
    return shown, [(row[0], row[1]) for row in rows if row[3] != conversation]


def has_reacted(vault: Vault, to: Ref, user: str, emoji: str) -> bool:
    return (user, emoji) in reactions_of(vault, f"{to.device}.{to.n}")


def reactions_of(vault: Vault, message_id: str) -> list[tuple[str, str]]:
    """(user, emoji) of what stands on a message, in the order of their times."""
    rows = vault.execute(
        "SELECT user, emoji FROM reactions WHERE device = ? AND n = ? AND removed = 0 AND pending = 0"
        " ORDER BY at, user, emoji",
        split_id(message_id),
    )
    return [(user, emoji) for user, emoji in rows]


def reacted_at(vault: Vault, to: Ref, user: str, emoji: str) -> int:
    """The time of the last word on this sign; 0 if there was none."""
    row = vault.execute(
        "SELECT at FROM reactions WHERE device = ? AND n = ? AND user = ? AND emoji = ?",
        (to.device, to.n, user, emoji),
    ).fetchone()
    return int(row[0]) if row else 0


def _has_room(vault: Vault, to: Ref, user: str, *, remove: bool, pending: bool) -> bool:
    if pending:
        row = vault.execute("SELECT COUNT(*) FROM reactions WHERE user = ? AND pending = 1", (user,)).fetchone()
        if row[0] >= MOST_PENDING:
            return False
    if remove:
        return True
    row = vault.execute(
        "SELECT COUNT(*) FROM reactions WHERE device = ? AND n = ? AND user = ? AND removed = 0",
        (to.device, to.n, user),
    ).fetchone()
    return bool(row[0] < MOST_REACTIONS)


def _words(vault: Vault, to: Ref, user: str) -> int:
    row = vault.execute(
        "SELECT COUNT(*) FROM reactions WHERE device = ? AND n = ? AND user = ?", (to.device, to.n, user)
    ).fetchone()
    return int(row[0])


def _forget_removed(vault: Vault, to: Ref, user: str) -> None:
    """What was taken back is kept only so that an earlier word that comes late does not bring it back."""
    most = 2 * MOST_REACTIONS
    if _words(vault, to, user) > most:
        vault.execute(
            "DELETE FROM reactions WHERE device = ? AND n = ? AND user = ? AND emoji IN (SELECT emoji FROM reactions"
            " WHERE device = ? AND n = ? AND user = ? AND removed = 1 ORDER BY came_at LIMIT 1)",
            (to.device, to.n, user, to.device, to.n, user),
        )
