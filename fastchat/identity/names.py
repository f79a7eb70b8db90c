"""Which account names there are: few enough characters that no two names look alike in one font and not in another."""

from __future__ import annotations

import re

from fastchat.errors import NameNotAllowed

_ALLOWED = re.compile(r"[a-z0-9][a-z0-9._-]{0,30}[a-z0-9]")


def check_name(user: str) -> str:
    """`user` itself, if it may be an account's name: 2 to 32 of a-z 0-9 . _ -, first and last a letter or digit.
    Raises `NameNotAllowed`. Nothing is folded or trimmed: a name has one spelling."""
    if not is_name(user):
        raise NameNotAllowed
    return user


def is_name(user: str) -> bool:
    """Whether it can be anybody's name."""
    return _ALLOWED.fullmatch(user) is not None
