"""Brings a database's schema up to date: the numbered files of `sql/migrations`, in order, each in a transaction.

One process does it at a time. What was applied is kept with its checksum; a database that is newer than this code, or
to which something else was applied, is refused before anything is changed. This module knows no table but its own.
"""

from __future__ import annotations

from collections.abc import Sequence

from fastchat.errors import ConfigError
from fastchat.store.connections import Session
from fastchat.store.queries import Migration, query

_LOCK, _CREATE = query("lock_schema"), query("create_schema_migrations")
_APPLIED, _RECORD = query("applied_migrations"), query("record_migration")


async def migrate(session: Session, migrations: Sequence[Migration]) -> int:
    """Apply what is missing and answer how many that were.

    The session must be used for nothing else and closed afterwards: the lock is its own and goes with it. Raises
    `ConfigError` when the database and `migrations` do not belong together.
    """
    await session.run(_LOCK)
    await session.run(_CREATE)
    applied = await session.rows(_APPLIED)
    _check(applied, migrations)
    missing = migrations[len(applied) :]
    for migration in missing:
        async with session.transaction():
            await session.run(migration.sql)
            await session.run(
                _RECORD, {"number": migration.number, "name": migration.name, "checksum": migration.checksum}
            )
    return len(missing)


def _check(applied: Sequence[tuple[int, str, memoryview]], migrations: Sequence[Migration]) -> None:
    if len(applied) > len(migrations):
        raise ConfigError(
            f"the database is at migration {len(applied):04}, this FastChat knows {len(migrations):04}: it is too old"
        )
    for (number, name, checksum), migration in zip(applied, migrations, strict=False):
        if (number, name, bytes(checksum)) != (migration.number, migration.name, migration.checksum):
            raise ConfigError(
                f"migration {number:04} ({name}) of the database is not the one of this FastChat "
                f"({migration.number:04} {migration.name}): it was made by another version"
            )
