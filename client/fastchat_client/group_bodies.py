"""Group messages as they came: those that wait for a key or for statements, and, for a month, those that were read, so
that somebody who is invited can be given them.

Nothing here can read one. Times are milliseconds since 1970. Writes need a transaction around them.
"""

from __future__ import annotations

from collections import Counter
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
MOST_ASKED_OF_ONE = 8
"""Keys of one device that are asked for at once: who makes up sessions without end does not make us ask without end."""
MOST_WAITING = 1000
MOST_WAITING_OF_ONE = 250
"""Messages of one group that wait for something, and those of one device among them: beyond that they are
unreadable."""
MOST_HISTORIES = 100
"""Parts of a history that one device may hand on before it can be known whether it may."""
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
        """One message of `sender` (user, device), if it is not here already."""
        self._vault.execute(
            "INSERT INTO group_bodies (group_id, session, user, device, n, at, body, waits, earlier)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
            (group, session, *sender, n, at, body, waits, earlier),
        )

    def waits_for(self, message: Kept, what: Waits) -> None:
        self._vault.execute(
            "UPDATE group_bodies SET waits = ? WHERE device = ? AND n = ? AND earlier = ?",
            (what, message.device, message.n, message.earlier),
        )

    def waiting(self, group: str) -> list[Kept]:
        """What waits in a group, in the order in which it came; what was said before one joined comes first."""
        where = "group_id = ? AND waits != '' ORDER BY earlier DESC, seq"
        rows = self._vault.execute(
            f"SELECT {_COLUMNS} FROM group_bodies WHERE {where}",  # noqa: S608
            (group,),
        ).fetchall()
        return [_kept(row) for row in rows]

    def has_room(self, group: str, device: str, *, earlier: bool = False) -> bool:
        """Whether one more message of `device` may wait in a group; of what was handed on, one more of anybody."""
        row = self._vault.execute(
            "SELECT COUNT(*), COALESCE(SUM(device = ?), 0) FROM group_bodies"
            " WHERE group_id = ? AND waits != '' AND earlier = ?",
            (device, group, earlier),
        ).fetchone()
        return bool(row[0] < MOST_WAITING and (earlier or row[1] < MOST_WAITING_OF_ONE))

    @property
    def groups(self) -> list[str]:
        """Those in which something waits."""
        rows = self._vault.execute("SELECT DISTINCT group_id FROM group_bodies WHERE waits != ''").fetchall()
        return [group for (group,) in rows]

    def waiting_of(self, user: str) -> list[str]:
        """Groups in which something of `user` waits."""
        rows = self._vault.execute(
            "SELECT DISTINCT group_id FROM group_bodies WHERE waits != '' AND user = ?", (user,)
        ).fetchall()
        return [group for (group,) in rows]

    def settled(self, message: Kept, at: int | None = None) -> None:
        """It was read, and is kept for newcomers; `at`, as somebody who was to decide how far back they see would have
        it. None: it is of no use any more."""
        name = (message.device, message.n, message.earlier)
        if at is None:
            self._vault.execute("DELETE FROM group_bodies WHERE device = ? AND n = ? AND earlier = ?", name)
        else:
            self._vault.execute(
                "UPDATE group_bodies SET waits = '', at = ? WHERE device = ? AND n = ? AND earlier = ?", (at, *name)
            )

    # --- what a newcomer was handed before the chain had come --------------------------------------------------------

    def hold_history(self, group: str, user: str, device: str, content: bytes) -> None:
        """Not more of one device than a newcomer can be given."""
        self._vault.execute(
            "INSERT INTO group_histories (group_id, user, device, content) SELECT ?, ?, ?, ?"
            " WHERE (SELECT COUNT(*) FROM group_histories WHERE device = ?) < ?",
            (group, user, device, content, device, MOST_HISTORIES),
        )

    def holds_history(self, group: str) -> bool:
        """Whether something is to come before what comes now."""
        row = self._vault.execute("SELECT 1 FROM group_histories WHERE group_id = ? LIMIT 1", (group,)).fetchone()
        return row is not None

    def release_histories(self, group: str) -> list[tuple[str, str, bytes]]:
        """(user, device, content) of what was held; held no longer."""
        rows = self._vault.execute(
            "SELECT user, device, content FROM group_histories WHERE group_id = ? ORDER BY seq", (group,)
        ).fetchall()
        self._vault.execute("DELETE FROM group_histories WHERE group_id = ?", (group,))
        return [(row[0], row[1], row[2]) for row in rows]

    def to_ask(self, now: int) -> list[tuple[str, bytes, str, str, int]]:
        """(group, session, user, device, how often before) of the keys that are to be asked for now; they count as
        asked."""
        found, of_device = [], Counter[str]()
        for group, session, user, device, asked, asked_at in self._vault.execute(
            "SELECT group_id, session, user, device, MAX(asked), MAX(asked_at) FROM group_bodies"
            " WHERE waits != '' AND waits = ? AND earlier = 0 GROUP BY group_id, session, user, device",
            (Waits.KEY,),
        ).fetchall():
            if of_device[device] >= MOST_ASKED_OF_ONE:
                continue
            wait = min(ASK_AGAIN << min(max(0, asked - 1), 10), MOST_BETWEEN_ASKING)
            # By a clock that may be set: so long away, in the past or in what is now the future again.
            if not asked or abs(now - asked_at) >= wait:
                of_device[device] += 1
                found.append((group, session, user, device, asked))
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
