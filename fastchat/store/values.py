"""Values and errors of PostgreSQL as the store's interface has them. Both halves of the PostgreSQL store go by it; it
knows no query.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import psycopg2

from fastchat.errors import ChainInvalid, DeviceTaken, FastChatError, NameTaken, UnknownUser

_VIOLATIONS: Mapping[str | None, type[FastChatError]] = {
    "users_pkey": NameTaken,
    "devices_pkey": DeviceTaken,
    "links_pkey": ChainInvalid,
    "group_members_user": UnknownUser,
}


@contextmanager
def violations_named() -> Iterator[None]:
    """Raise what the interface calls the violation of a constraint, where it has a name for it."""
    try:
        yield
    except psycopg2.IntegrityError as error:
        named = _VIOLATIONS.get(error.diag.constraint_name)
        if named is None:
            raise
        raise named from error


def hex_digits(uuid: str) -> str:
    """A device's or a group's id as it is on the wire."""
    return uuid.replace("-", "")


def possible(users: Iterable[str]) -> list[str]:
    """The names that somebody may have: PostgreSQL's text has no NUL, and psycopg2 refuses it."""
    return [user for user in users if "\0" not in user]
