"""Values and errors of PostgreSQL as the store's interface has them. Both halves of the PostgreSQL store go by it; it
knows no query.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import psycopg2
from psycopg2.extensions import new_type

from fastchat.errors import ChainInvalid, DeviceTaken, FastChatError, NameTaken, UnknownUser

_VIOLATIONS: Mapping[str | None, type[FastChatError]] = {
    "users_pkey": NameTaken,
    "devices_pkey": DeviceTaken,
    "links_pkey": ChainInvalid,
    "group_members_user": UnknownUser,
}

OCTETS_ENCODING = "LATIN1"
"""The client_encoding in which a value is read as it is: psycopg2 hands a text to whoever converts it, and here each
byte of it is one character."""
_BYTEA = 17
"""The number of the type, in every PostgreSQL."""


def _octets(text: Any, cursor: Any) -> bytes | None:
    return None if text is None else text.encode("latin-1")


AS_OCTETS = new_type((_BYTEA,), "OCTETS", _octets)
"""What reads `bytea` from a binary cursor."""


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
