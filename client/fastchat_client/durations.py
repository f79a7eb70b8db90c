"""How long something stays, as people write and read it: 30s, 5m, 1h, 7d, off."""

from __future__ import annotations

import re

from fastchat.errors import RequestError
from fastchat_client.content import MAX_SECONDS

_UNITS = (("d", 86_400, "day"), ("h", 3600, "hour"), ("m", 60, "minute"), ("s", 1, "second"))
_WRITTEN = re.compile(r"([0-9]{1,9})([smhd])\Z")


def seconds_of(text: str) -> int:
    """Seconds; 0 for "off". Raises `RequestError`."""
    word = text.strip().lower()
    if word in ("off", "0"):
        return 0
    found = _WRITTEN.match(word)
    if found is None:
        raise RequestError(f"{text} is not a time: write 30s, 5m, 1h, 7d or off")
    seconds = int(found[1]) * next(size for unit, size, _ in _UNITS if unit == found[2])
    if not 1 <= seconds <= MAX_SECONDS:
        raise RequestError(f"{text} is too long: at most {MAX_SECONDS // 86_400}d")
    return seconds


def written(seconds: int) -> str:
    """As `seconds_of` reads it, in the largest unit that leaves nothing over."""
    for unit, size, _ in _UNITS:
        if seconds and seconds % size == 0:
            return f"{seconds // size}{unit}"
    return "off"


def in_words(seconds: int) -> str:
    """ "5 minutes", "1 day"."""
    for _, size, word in _UNITS:
        if seconds and seconds % size == 0:
            return f"{seconds // size} {word}{'' if seconds == size else 's'}"
    return "no time"
