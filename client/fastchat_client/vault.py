"""The encrypted local store: one SQLCipher file that holds everything of a profile that must not be lost or read.

It knows files, transactions, single values and the history that people see; what the other tables (`schema/`)
mean is known to the module that each belongs to. Nothing here knows keys, wire messages or events. One process owns
the ratchets; another may open the same file to read it and to compose, so every writing transaction is IMMEDIATE.

History, contacts and the like are answered here, without a Core: they work while the network is away.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any, Self

import msgspec
from sqlcipher3 import dbapi2 as sqlcipher  # type: ignore[import-untyped]

from fastchat.errors import ConfigError, LoginFailed
from fastchat_client.events import FileShown

SCHEMA_VERSION = 4
"""How many files of `schema/` make a vault; one that has fewer gets the others at its next opening."""
KEY_SIZE = 32
_BUSY_SECONDS = 10.0
_CACHE_KIB = 2_000
"""Pages that are kept in memory: the library's own 8 MB is what a program with many vaults has no use for."""
_STAYS = "(expires_at IS NULL OR expires_at > ? OR state = 'waiting')"
"""Of a message: its time has not passed. What has not been sent yet stays until it has."""
_SCHEMA = files("fastchat_client").joinpath("schema")
_decode_file = msgspec.json.Decoder(FileShown).decode


class Whoami(msgspec.Struct, frozen=True):
    """Whose vault this is. `registered`: the network knows this device."""

    user: str
    device: str
    fingerprint: str
    registered: bool


class HistoryItem(msgspec.Struct, frozen=True, omit_defaults=True, rename={"sender": "from"}):
    """One message as it is shown. `at`: milliseconds since 1970, by the sender's clock. `state`: of a message from
    here (`events.State`). `unreadable`: there is no text; `reason` says why, as it does for a failed one."""

    id: str
    conversation: str
    sender: str
    text: str
    at: int
    own: bool = False
    state: str = ""
    reason: str = ""
    unreadable: bool = False
    read: bool = False
    reply: str = ""
    """The id of the message that it answers, which may not be here."""
    edited: bool = False
    deleted: bool = False
    """For everyone, by its author; there is no text."""
    waiting: bool = False
    """Unreadable until a key comes, which is being asked for."""
    expires: int = 0
    """Seconds after its reading that it stays; 0: for ever."""
    file: FileShown | None = None
    """What it brings, if it brings a file; `text` is what was written with it."""


class Conversation(msgspec.Struct, frozen=True, omit_defaults=True):
    """`user`: the peer's name, or "#" and the id of a group. `last_at`: milliseconds since 1970 of its newest message.
    `timer`: seconds after its reading that a message stays which is written now; 0: for ever."""

    user: str
    unread: int
    last_at: int
    muted: bool = False
    timer: int = 0


class Contact(msgspec.Struct, frozen=True):
    """An account whose root is pinned. `changed_to`: the fingerprint that the server names now, if it is another."""

    user: str
    fingerprint: str
    changed_to: str = ""


class Vault:
    """One open connection to the file. Not to be shared between threads."""

    clock: Callable[[], float] = staticmethod(time.time)
    """Seconds since 1970: what has expired by it is not shown."""

    def __init__(self, connection: Any) -> None:
        self._db = connection
        self._data_version = self._pragma("data_version")

    @classmethod
    def create(cls, path: str | Path, key: bytes) -> Self:
        """A new, empty vault, readable by its owner only. `key`: 32 bytes. Raises `ConfigError` if there is a file."""
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        except OSError as error:
            raise ConfigError(f"the vault {path} cannot be made: {error.strerror}") from None
        return cls(_connect(path, key))

    @classmethod
    def open(cls, path: str | Path, key: bytes) -> Self:
        """The vault at `path`. Raises `LoginFailed` if `key` does not open it, `ConfigError` if there is none or this
        program cannot read it."""
        if not os.path.isfile(path):
            raise ConfigError(f"there is no vault at {path}")
        return cls(_connect(path, key))

    @property
    def folder(self) -> Path:
        """Where its file is."""
        return Path(self._db.execute("PRAGMA database_list").fetchone()[2]).parent

    def close(self) -> None:
        """What was not committed is gone. May be called twice."""
        self._db.close()

    # --- transactions ------------------------------------------------------------------------------------------------

    @property
    def in_transaction(self) -> bool:
        return bool(self._db.in_transaction)

    def begin(self) -> None:
        self._db.execute("BEGIN IMMEDIATE")

    def commit(self) -> None:
        self._db.execute("COMMIT")

    def rollback(self) -> None:
        if self.in_transaction:
            self._db.execute("ROLLBACK")

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All of the block's writes, or none. Inside another transaction, a part of that one."""
        if self.in_transaction:
            yield
            return
        self.begin()
        try:
            yield
            self.commit()
        except BaseException:
            self.rollback()
            raise

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> Any:
        """A cursor over the rows. A write needs a transaction around it."""
        return self._db.execute(sql, parameters)

    def execute_many(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        self._db.executemany(sql, rows)

    def now(self) -> int:
        """Milliseconds since 1970."""
        return int(self.clock() * 1000)

    def changed_elsewhere(self) -> bool:
        """Whether another connection has committed something since this was last asked. Cheap."""
        version = self._pragma("data_version")
        changed = version != self._data_version
        self._data_version = version
        return changed

    def _pragma(self, name: str) -> int:
        return int(self._db.execute(f"PRAGMA {name}").fetchone()[0])

    # --- single values -----------------------------------------------------------------------------------------------

    def put(self, name: str, value: str | int | bytes | None) -> None:
        self._db.execute("INSERT OR REPLACE INTO meta (name, value) VALUES (?, ?)", (name, value))

    def text(self, name: str) -> str:
        """The value, "" if there is none."""
        value = self._get(name)
        return value if isinstance(value, str) else ""

    def number(self, name: str) -> int:
        """The value, 0 if there is none."""
        value = self._get(name)
        return value if isinstance(value, int) else 0

    def blob(self, name: str) -> bytes:
        """The value, b"" if there is none."""
        value = self._get(name)
        return value if isinstance(value, bytes) else b""

    def _get(self, name: str) -> Any:
        row = self._db.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        return None if row is None else row[0]

    # --- questions ---------------------------------------------------------------------------------------------------

    def whoami(self) -> Whoami:
        return Whoami(
            user=self.text("user"),
            device=self.text("device"),
            fingerprint=fingerprint(self.blob("root")),
            registered=self.text("registration") == "done",
        )

    def history(self, conversation: str, limit: int = 100, before: str = "") -> list[HistoryItem]:
        """The newest `limit` messages with a user, oldest first; or those before the message `before`."""
        last = 2**62
        if before:
            device, n = split_id(before)
            row = self.execute("SELECT seq FROM messages WHERE device = ? AND n = ?", (device, n)).fetchone()
            last = 0 if row is None else row[0]
        rows = self.execute(
            "SELECT device, n, conversation, sender, text, at, own, state, reason, unreadable, read,"  # noqa: S608
            " reply_device, reply_n, edited_at, deleted, expires, shown FROM messages LEFT JOIN files USING (device, n)"
            f" WHERE conversation = ? AND seq < ? AND {_STAYS} ORDER BY seq DESC LIMIT ?",
            (conversation, last, self.now(), limit),
        ).fetchall()
        return [
            HistoryItem(
                id=f"{r[0]}.{r[1]}",
                conversation=r[2],
                sender=r[3],
                text=r[4],
                at=r[5],
                own=bool(r[6]),
                state=r[7],
                reason=r[8],
                unreadable=bool(r[9]),
                read=bool(r[10]),
                reply=f"{r[11]}.{r[12]}" if r[11] else "",
                edited=bool(r[13]),
                deleted=bool(r[14]),
                waiting=r[9] == 2,
                expires=r[15],
                file=None if r[16] is None else _decode_file(r[16]),
            )
            for r in reversed(rows)
        ]

    def conversations(self) -> list[Conversation]:
        """Those with any message, the newest first."""
        # From name to name and to each one's newest message, by index: it is asked for after everything that comes.
        rows = self.execute(
            "WITH RECURSIVE names (name) AS (SELECT MIN(conversation) FROM messages UNION ALL"  # noqa: S608
            " SELECT (SELECT MIN(conversation) FROM messages WHERE conversation > name) FROM names"
            " WHERE name IS NOT NULL)"
            " SELECT newest.conversation, (SELECT COUNT(*) FROM messages AS new"
            " WHERE new.conversation = name AND new.read = 0 AND new.own = 0), newest.at,"
            " COALESCE(muted, 0), COALESCE(timer, 0)"
            " FROM names JOIN messages AS newest"
            " ON newest.seq = (SELECT seq FROM messages AS every WHERE every.conversation = name"
            f" AND {_STAYS} ORDER BY seq DESC LIMIT 1)"
            " LEFT JOIN conversation_settings AS settings ON settings.conversation = name"
            " ORDER BY newest.seq DESC",
            (self.now(),),
        )
        return [Conversation(row[0], row[1], row[2], bool(row[3]), row[4]) for row in rows]

    def unread(self, conversation: str) -> int:
        row = self.execute(
            "SELECT COUNT(*) FROM messages WHERE conversation = ? AND read = 0 AND own = 0", (conversation,)
        ).fetchone()
        return int(row[0])

    def contacts(self) -> list[Contact]:
        """Every pinned account but one's own, by name."""
        rows = self.execute(
            "SELECT user, root, offered_root FROM accounts WHERE user != ? ORDER BY user", (self.text("user"),)
        )
        return [Contact(r[0], fingerprint(r[1]), fingerprint(r[2]) if r[2] else "") for r in rows]

    def state_of(self, message_id: str) -> str:
        """How far a message from here has come (`events.State`); "" if there is none of this id."""
        device, n = split_id(message_id)
        row = self.execute("SELECT state FROM messages WHERE device = ? AND n = ?", (device, n)).fetchone()
        return "" if row is None else str(row[0])

    def waiting(self) -> int:
        """Messages of people in the outbox; marks and the like are not counted."""
        return int(self.execute("SELECT COUNT(*) FROM outbox WHERE state < 2 AND shown = 1").fetchone()[0])

    def alarm(self) -> str:
        """The evidence that the server contradicted its key log, "" if it has not."""
        return self.text("alarm")


def fingerprint(root_pem: bytes) -> str:
    """Of an RSA root: SHA-256 of its PEM, 64 hex digits in groups of four."""
    digits = hashlib.sha256(root_pem).hexdigest()
    return " ".join(digits[at : at + 4] for at in range(0, len(digits), 4))


def split_id(message_id: str) -> tuple[str, int]:
    """The device and the n of "device.n"; ("", 0), which names nothing, if it is not of this form."""
    device, _, number = message_id.rpartition(".")
    return (device, int(number)) if number.isascii() and number.isdecimal() and len(number) <= 16 else ("", 0)


def _connect(path: str | Path, key: bytes) -> Any:
    if len(key) != KEY_SIZE:
        raise ValueError(f"a vault's key has {KEY_SIZE} bytes, not {len(key)}")
    connection = sqlcipher.connect(os.fspath(path), timeout=_BUSY_SECONDS, isolation_level=None)
    try:
        # It would write of a wrong password on stderr, into the middle of whatever face there is.
        connection.execute("PRAGMA cipher_log_level = NONE")
        connection.execute(f"PRAGMA key = \"x'{key.hex()}'\"")
        connection.execute("SELECT COUNT(*) FROM sqlite_master")
        connection.execute("PRAGMA journal_mode = WAL")
        # An acknowledged message must survive a power cut: its sender will not send it again.
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA temp_store = MEMORY")
        # What is deleted or has expired is overwritten, not only unlinked.
        connection.execute("PRAGMA secure_delete = ON")
        connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version < SCHEMA_VERSION:
            _upgrade(connection)
        if version > SCHEMA_VERSION:
            raise ConfigError(f"the vault {path} has version {version}; this program reads version {SCHEMA_VERSION}")
    except ConfigError:
        connection.close()
        raise
    except sqlcipher.DatabaseError as error:
        connection.close()
        if "not a database" in str(error):
            raise LoginFailed("the password is wrong: it does not open the vault") from None
        raise ConfigError(f"the vault {path} cannot be used: {error}") from None
    return connection


def _upgrade(connection: Any) -> None:
    """Bring the tables up to date, in one transaction: two processes may open an old vault at once."""
    connection.execute("BEGIN IMMEDIATE")
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    for number in range(version + 1, SCHEMA_VERSION + 1):  # from 0: it is new, or its maker died before this
        for statement in _statements(_SCHEMA.joinpath(f"{number}.sql").read_text(encoding="utf-8")):
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {number}")
    connection.execute("COMMIT")


def _statements(script: str) -> Iterator[str]:
    """Its single statements; a script that is run as one would end the transaction around it."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
