"""The SQL of the store, read from `sql/` once, at import: named queries and numbered migrations.

A file of `sql/queries` holds sections that begin with `-- name: some_query`; what stands between the file's beginning
and the first section is its heading. A query is one text, whatever it holds: nothing here splits SQL on `;`. This
module finds and reads text; it knows no database.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from fastchat.errors import ConfigError

_NAME = re.compile(r"^-- name: ([a-z0-9_]+)\n", re.MULTILINE)
_MIGRATION = re.compile(r"([0-9]{4})_([a-z0-9_]+)\.sql")


class Migration(NamedTuple):
    number: int
    """From 1, without a gap."""
    name: str
    sql: str

    @property
    def checksum(self) -> bytes:
        """SHA-256 of its text."""
        return hashlib.sha256(self.sql.encode()).digest()


def find_sql(package: Path) -> Path:
    """The folder of SQL of the package at `package`: inside it when installed, beside it in a checkout.

    Raises `ConfigError` when it is in neither place.
    """
    for folder in (package / "sql", package.parent / "sql"):
        if (folder / "migrations").is_dir() and (folder / "queries").is_dir():
            return folder
    raise ConfigError(f"this installation is not complete: no folder sql with migrations and queries at {package}")


def read_queries(folder: Path) -> dict[str, str]:
    """Every named query of the folder's files. Raises `ConfigError` when a name occurs twice."""
    found: dict[str, str] = {}
    for file in sorted(folder.glob("*.sql")):
        _, *sections = _NAME.split(file.read_text(encoding="utf-8"))
        for name, text in zip(sections[::2], sections[1::2], strict=True):
            if name in found:
                raise ConfigError(f"{file.name}: there are two queries called {name}")
            found[name] = text.strip()
    return found


def read_migrations(folder: Path) -> Sequence[Migration]:
    """The folder's migrations by number. Raises `ConfigError` unless they are numbered 1, 2, 3 …"""
    found: list[Migration] = []
    for file in sorted(folder.glob("*.sql")):
        match = _MIGRATION.fullmatch(file.name)
        if match is None or int(match[1]) != len(found) + 1:
            raise ConfigError(f"{file.name}: migration {len(found) + 1:04} was expected here")
        found.append(Migration(int(match[1]), match[2], file.read_text(encoding="utf-8")))
    return found


_SQL = find_sql(Path(__file__).resolve().parents[1])
_QUERIES = read_queries(_SQL / "queries")
MIGRATIONS = read_migrations(_SQL / "migrations")


def query(name: str) -> str:
    """The text of a named query. Raises `KeyError`: ask at import, so that a wrong name is found at once."""
    return _QUERIES[name]
