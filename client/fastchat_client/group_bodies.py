"""Group messages as they came: those that wait for a key or for statements, and, for a month, those that were read, so
that somebody who is invited can be given them.

Nothing here can read one. Times are milliseconds since 1970. Writes need a transaction around them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from fastchat.identity.groups import MAX_HISTORY
from fastchat_client.vault import Vault

DAY = 86_400_000
KEPT_FOR = MAX_HISTORY * DAY
"""As far back as an invitation can reach."""
ASK_AGAIN = 10 * 60_000
MOST_BETWEEN_ASKING = 6 * 3_600_000
"""A missing key is asked for again after ten minutes, then after twice that, up to every six hours, for as long as its
message is kept."""
_COLUMNS = "seq, group_id, session, user, device, n, at, body, earlier"


class Waits(StrEnum):
    """For what a message waits. The values stand in vaults."""

    NOTHING = ""
    KEY = "key"
    CHAIN = "chain"

    @property
    def sentence(self) -> str:
        """For a person."""
        return "its key has not come yet" if self is Waits.KEY else "the group's newest changes have not come yet"


@dataclass(frozen=True, slots=True)
class Kept:
    """One message. `at`: when the server took it, as it says. `earlier`: it came with the history of a newcomer."""

    seq: int
    group: str
    session: bytes
    user: str
    device: str
    n: int
    at: int
    body: bytes
    earlier: bool


class GroupBodies:
    def __init__(self, vault: Vault) -> None:
        self._vault = vault

    def keep(
        self,
        group: str,
        session: bytes,
        sender: tuple[str, str],
        n: int,
        at: int,
        body: bytes,
        waits: Waits,
        *,
        earlier: bool = False,
    ) -> None:
        """One message of `sender` (user, device); if it is here already, what it waits for may change."""
        self._vault.execute(
            "INSERT INTO group_bodies (group_id, session, user, device, n, at, body, waits, earlier)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (device, n) DO UPDATE SET waits = excluded.waits,"
            " body = excluded.body, session = excluded.session WHERE waits != ''",
            (group, session, *sender, n, at, body, waits, earlier),
        )

    def waiting(self, group: str) -> list[Kept]:
        """What waits in a group, in the order in which it came."""
        rows = self._vault.execute(
            f"SELECT {_COLUMNS} FROM group_bodies WHERE group_id = ? AND waits != '' ORDER BY seq",  # noqa: S608
            (group,),
        ).fetchall()
        return [_kept(row) for row in rows]

    @property
    def groups(self) -> list[str]:
        """Those in which something waits."""
        rows = self._vault.execute("SELECT DISTINCT group_id FROM group_bodies WHERE waits != ''").fetchall()
        return [group for (group,) in rows]

    def settled(self, device: str, n: int, *, keep: bool) -> None:
        """It was read, and is kept for newcomers or not."""
        if keep:
            self._vault.execute("UPDATE group_bodies SET waits = '' WHERE device = ? AND n = ?", (device, n))
        else:
            self._vault.execute("DELETE FROM group_bodies WHERE device = ? AND n = ?", (device, n))

    def to_ask(self, now: int) -> list[tuple[str, bytes, str, str]]:
        """(group, session, user, device) of the keys that are to be asked for now; they count as asked."""
        found = []
        for group, session, user, device, asked, asked_at in self._vault.execute(
            "SELECT group_id, session, user, device, MAX(asked), MAX(asked_at) FROM group_bodies"
            " WHERE waits != '' AND waits = ? AND earlier = 0 GROUP BY group_id, session, user, device",
            (Waits.KEY,),
        ).fetchall():
            wait = min(ASK_AGAIN << min(max(0, asked - 1), 10), MOST_BETWEEN_ASKING)
            # By a clock that may be set: so long away, in the past or in what is now the future again.
            if not asked or abs(now - asked_at) >= wait:
                found.append((group, session, user, device))
                self._vault.execute(
                    "UPDATE group_bodies SET asked = ?, asked_at = ? WHERE waits = ? AND group_id = ? AND session = ?",
                    (asked + 1, now, Waits.KEY, group, session),
                )
        return found

    def since(self, group: str, at: int, most: int) -> list[Kept]:
        """The last `most` messages that were read, from `at` on, the oldest first."""
        rows = self._vault.execute(
            f"SELECT {_COLUMNS} FROM group_bodies WHERE group_id = ? AND waits = '' AND at >= ?"  # noqa: S608
            " ORDER BY seq DESC LIMIT ?",
            (group, at, most),
        ).fetchall()
        return [_kept(row) for row in reversed(rows)]

    def purge(self, now: int) -> None:
        """Forget what no invitation reaches any more; what waits is kept."""
        self._vault.execute("DELETE FROM group_bodies WHERE waits = '' AND at < ?", (now - KEPT_FOR,))


def _kept(row: Sequence[Any]) -> Kept:
    seq, group, session, user, device, n, at, body, earlier = row
    return Kept(seq, group, session, user, device, n, at, body, bool(earlier))
