"""What the checker reads of one client: its vault, table by table, and its journal. Nothing is judged here."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from sqlcipher3 import dbapi2 as sqlcipher  # type: ignore[import-untyped]

COMPOSED, SEALED, ACCEPTED, FAILED = range(4)
"""States of an outbox row, as in schema/1.sql."""
KEYS = "!"
"""How the queue of a group's keys begins."""
WAITS = 2
HAS_IT = ("accepted", "delivered", "read")
"""States of a message in the history that say that the network has it."""


@dataclass(frozen=True)
class Person:
    """One client with one device. `key`: its vault's, 32 bytes. `journal`: need not be there."""

    user: str
    vault_path: Path
    key: bytes
    journal: Path


class Row(NamedTuple):
    """Of the history. `unreadable`: `WAITS` while its key, or what it rests on, has not come. `length`: as in the
    outbox."""

    seq: int
    device: str
    n: int
    conversation: str
    sender: str
    own: int
    at: int
    text: str
    state: str
    reason: str
    unreadable: int
    length: int


class OutboxRow(NamedTuple):
    """Of the outbox. `user`: a user, a group's conversation, or `KEYS` and a group. `length`: of the group's chain by
    which it was encrypted."""

    n: int
    user: str
    device: str | None
    content: bytes
    at: int
    state: int
    shown: int
    length: int


class FileRow(NamedTuple):
    """A message with a file. `text`: what is written beside it; `path`: where it was saved here, as the disk has it."""

    device: str
    n: int
    attachment: str
    text: str
    conversation: str
    sender: str
    own: int
    size: int
    state: str
    reason: str
    length: int
    path: bytes | None


class Sent(NamedTuple):
    """A text that its sender's vault has. Accepted, failed and waiting as far as any of its tables says so."""

    row: Row
    accepted: bool
    failed: bool
    waiting: bool


class Client:
    """All that is read of one client, before anything is judged."""

    def __init__(self, person: Person) -> None:
        self.user = person.user
        if not person.vault_path.is_file():
            raise FileNotFoundError(f"{person.user} has no vault at {person.vault_path}")
        self.device = f"the device of {person.user}"
        self.next_n = 1
        self.history: list[Row] = []
        """Without messages that have a file."""
        self.files: list[FileRow] = []
        self.uploads: set[str] = set()
        """What is written beside files that are not on the network yet."""
        self.outbox: dict[int, OutboxRow] = {}
        self.seen: set[tuple[str, int]] = set()
        self.held: set[tuple[str, int]] = set()
        self.asked: set[tuple[str, int]] = set()
        self.keys: dict[int, set[str]] = defaultdict(set)
        """Of each message with keys of a group, the devices that it is for."""
        self.chains: dict[str, list[bytes]] = defaultdict(list)
        """By group, the bodies of the statements that are known here."""
        self.acts: list[str] = []
        """Of what was to be done to groups, what is not at its end."""
        self.unread: set[tuple[str, int]] = set()
        """What came for groups and waits for a key, or for statements."""
        self.damage: list[str] = []
        connection = sqlcipher.connect(str(person.vault_path), timeout=30.0, isolation_level=None)
        try:
            connection.execute(f"PRAGMA key = \"x'{person.key.hex()}'\"")
            connection.execute("PRAGMA query_only = ON")
            connection.execute("BEGIN")  # one state of the file, also if its client still runs
            self._read(connection)
        except sqlcipher.DatabaseError as error:
            self.damage.append(f"it cannot be read: {error}")
        finally:
            connection.close()
        self.journal = _journal(person.journal)
        self.attached = {entry["attached"] for entry in self.journal if "attached" in entry}
        """What is written beside the files that this client has promised to send."""
        self.went: dict[int, set[int]] = defaultdict(set)
        """Of each message to a group, the lengths of its chain with which it ever left."""
        for entry in self.journal:
            if "went" in entry:
                self.went[entry["went"]].add(entry["length"])
        self.sent: dict[tuple[str, int], Sent] = {}
        """By recipient and counter."""
        self.received: dict[tuple[str, str], Counter[int]] = defaultdict(Counter)
        """By sender and addressee (this user, or a group): how often each counter stands in the history."""

    def _read(self, db: Any) -> None:
        meta = dict(db.execute("SELECT name, value FROM meta").fetchall())
        if meta.get("user") != self.user:
            raise ValueError(f"the vault of {self.user} belongs to {meta.get('user')}")
        self.device = meta["device"]
        self.next_n = meta["next_n"]
        columns = ", ".join(Row._fields)
        without_file = "NOT EXISTS (SELECT 1 FROM files WHERE files.device = messages.device AND files.n = messages.n)"
        rows = db.execute(f"SELECT {columns} FROM messages WHERE {without_file} ORDER BY seq")  # noqa: S608
        self.history = [Row(*row) for row in rows]
        columns = ", ".join(FileRow._fields)
        rows = db.execute(f"SELECT {columns} FROM files JOIN messages USING (device, n) ORDER BY seq")  # noqa: S608
        self.files = [FileRow(*row) for row in rows]
        self.uploads = {json.loads(content).get("text", "") for (content,) in db.execute("SELECT content FROM uploads")}
        columns = ", ".join(OutboxRow._fields)
        self.outbox = {row[0]: OutboxRow(*row) for row in db.execute(f"SELECT {columns} FROM outbox")}  # noqa: S608
        self.seen = set(db.execute("SELECT device, n FROM seen").fetchall())
        self.held = set(db.execute("SELECT device, n FROM held").fetchall())
        self.asked = set(db.execute("SELECT device, n FROM retries").fetchall())
        for n, device in db.execute("SELECT n, sealed.device FROM sealed JOIN outbox USING (n) WHERE user LIKE '!%'"):
            self.keys[n].add(device)
        for group, body in db.execute("SELECT group_id, body FROM group_statements ORDER BY group_id, position"):
            self.chains[group].append(bytes(body))
        self.acts = [str(act) for (act,) in db.execute("SELECT act FROM group_acts WHERE state = 0")]
        self.unread = set(db.execute("SELECT device, n FROM group_bodies WHERE waits != ''").fetchall())
        self.damage += [str(row[0]) for row in db.execute("PRAGMA quick_check") if row[0] != "ok"]


def _journal(path: Path) -> list[dict[str, Any]]:
    """Its whole lines; a line that a kill has cut is left out."""
    entries = []
    for line in path.read_bytes().splitlines() if path.is_file() else ():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict):
            entries.append(entry)
    return entries
