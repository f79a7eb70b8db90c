"""Whole columns of values as single PostgreSQL literals, for the statements that carry hundreds of rows.

psycopg2 writes a list as `ARRAY[…]`, an expression of 500 nodes for the server to parse, and `bytea` in hexadecimal,
twice its size. An array as one quoted text and ASCII bytes as they are cost both sides a fraction. What is made here
is still handed to psycopg2 as a parameter. This module knows no query.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_PLAIN = bytes(byte for byte in range(0x20, 0x7F) if byte not in b"'\\")
_SPECIAL = re.compile(rb"[^ -~]|['\\]")


def array(values: Iterable[object]) -> str:
    """An array of values whose text has neither commas, quotes, braces, backslashes nor spaces: numbers, uuids."""
    return "{" + ",".join(map(str, values)) + "}"


def text_array(values: Iterable[str]) -> str:
    """An array of any texts (without NUL, which PostgreSQL does not have)."""
    return "{" + ",".join('"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"' for value in values) + "}"


class Octets:
    """Any bytes as a `bytea` literal in its escape format, short for bytes that are mostly printable ASCII.

    Everything but printable ASCII, and the quote and the backslash, becomes an octal escape: no input can end the
    literal. An object for psycopg2's adaptation protocol (`ISQLQuote`).
    """

    def __init__(self, value: bytes) -> None:
        self._value = value

    def __conform__(self, protocol: object) -> Octets:
        return self

    def getquoted(self) -> bytes:
        value = self._value
        if value.translate(None, _PLAIN):
            value = _SPECIAL.sub(lambda match: rb"\\%03o" % match[0][0], value)
        return b"E'" + value + b"'"
