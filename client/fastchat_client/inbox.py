"""What has come in: which messages were taken already, which are held unread, which could not be read.

Nothing here can read a message; it only sees to it that none is taken twice, none is forgotten, and that asking for
one again stays within bounds. Writes need a transaction around them.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from fastchat.protocols.wire import Message
from fastchat_client.vault import Vault

HOUR = 3_600_000
MOST_ASKED = 2
"""How often an unreadable message is asked for."""
ASK_WITHIN = 7 * 24 * HOUR
ASK_AGAIN_AFTER = HOUR
"""By a clock that may be set: an hour away, in the past or in what is now the future again."""
MOST_PER_DEVICE = 8
"""Unreadable messages of one device that are asked for within an hour: two devices that cannot read each other must
not keep each other busy."""
MOST_HELD = 10_000
MOST_HELD_BYTES = 64 * 1024 * 1024
"""As much as a mailbox holds. Beyond that, nothing is taken from the network until something is decided."""


@dataclass(frozen=True, slots=True)
class Held:
    """A message as it came, without having been read. `at`: milliseconds since 1970, by the server."""

    seq: int
    user: str
    device: str
    n: int
    at: int
    body: bytes


class Inbox:
    def __init__(self, vault: Vault) -> None:
        self._vault = vault
        rows = vault.execute("SELECT user, COUNT(*), SUM(LENGTH(body)) FROM held GROUP BY user").fetchall()
        self._held = Counter[str]({user: count for user, count, _ in rows})
        self._held_bytes = sum(size for _, _, size in rows)

    # --- taken -------------------------------------------------------------------------------------------------------

    def take(self, device: str, n: int) -> bool:
        """Whether (device, n) is new; from here on it is not."""
        cursor = self._vault.execute("INSERT OR IGNORE INTO seen (device, n) VALUES (?, ?)", (device, n))
        return bool(cursor.rowcount == 1)

    # --- held --------------------------------------------------------------------------------------------------------

    @property
    def is_full(self) -> bool:
        return self._held.total() >= MOST_HELD or self._held_bytes >= MOST_HELD_BYTES

    @property
    def users(self) -> list[str]:
        """Whose messages are held."""
        return [user for user, count in self._held.items() if count > 0]

    def holds(self, user: str) -> bool:
        """Whether an earlier message of `user` waits here: then a later one must wait behind it."""
        return self._held[user] > 0

    def hold(self, message: Message) -> None:
        self._vault.execute(
            "INSERT INTO held (user, device, n, at, body) VALUES (?, ?, ?, ?, ?)",
            (message.user, message.device, message.n, min(max(0, message.at), 2**53), bytes(message.body)),
        )
        self._held[message.user] += 1
        self._held_bytes += len(memoryview(message.body))

    def held(self, user: str) -> list[Held]:
        """Everything held of `user`, in the order in which it came."""
        rows = self._vault.execute(
            "SELECT seq, user, device, n, at, body FROM held WHERE user = ? ORDER BY seq", (user,)
        )
        return [Held(*row) for row in rows]

    def release(self, user: str) -> list[Held]:
        """The same; held no longer."""
        held = self.held(user)
        self._vault.execute("DELETE FROM held WHERE user = ?", (user,))
        del self._held[user]
        self._held_bytes -= sum(len(message.body) for message in held)
        return held

    # --- not readable ------------------------------------------------------------------------------------------------

    def want_again(self, user: str, device: str, n: int, reason: str, now: int) -> bool:
        """(device, n) could not be read. Whether it will be asked for."""
        row = self._vault.execute(
            "SELECT COUNT(*) FROM retries WHERE device = ? AND ABS(came_at - ?) < ?", (device, now, HOUR)
        ).fetchone()
        if row[0] >= MOST_PER_DEVICE:
            return False
        self._vault.execute(
            "INSERT OR IGNORE INTO retries (device, n, user, reason, came_at) VALUES (?, ?, ?, ?, ?)",
            (device, n, user, reason, now),
        )
        return True

    def wanted(self, now: int) -> list[tuple[str, str]]:
        """(user, device) of whom something is to be asked for now."""
        return [
            (row[0], row[1])
            for row in self._vault.execute(
                "SELECT DISTINCT user, device FROM retries WHERE asked < ? AND came_at > ? AND ABS(asked_at - ?) >= ?",
                (MOST_ASKED, now - ASK_WITHIN, now, ASK_AGAIN_AFTER),
            )
        ]

    def ask(self, device: str, now: int) -> list[tuple[int, str]]:
        """(n, reason) of what is asked for of `device` now; it counts as asked."""
        where = "device = ? AND asked < ? AND came_at > ? AND ABS(asked_at - ?) >= ?"
        values = (device, MOST_ASKED, now - ASK_WITHIN, now, ASK_AGAIN_AFTER)
        rows = self._vault.execute(f"SELECT n, reason FROM retries WHERE {where} ORDER BY n", values).fetchall()  # noqa: S608
        self._vault.execute(f"UPDATE retries SET asked = asked + 1, asked_at = ? WHERE {where}", (now, *values))  # noqa: S608
        return [(row[0], row[1]) for row in rows]

    def is_wanted(self, device: str, n: int) -> bool:
        """Whether (device, n) is one that could not be read and may still come again."""
        return bool(self._vault.execute("SELECT 1 FROM retries WHERE device = ? AND n = ?", (device, n)).fetchone())

    def came_again(self, device: str, n: int) -> None:
        self._vault.execute("DELETE FROM retries WHERE device = ? AND n = ?", (device, n))

    def asks_no_more(self, device: str) -> None:
        """Nothing can be asked of this device any more."""
        self._vault.execute("DELETE FROM retries WHERE device = ?", (device,))

    def purge(self, now: int) -> None:
        """Forget what will not be asked for any more; a sender keeps it no longer either."""
        self._vault.execute("DELETE FROM retries WHERE came_at < ?", (now - ASK_WITHIN,))
