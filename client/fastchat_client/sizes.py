"""How large a file is, as people write and read it: 812 bytes, 120 kB, 2.3 MB; and how long it takes yet."""

from __future__ import annotations

import re

from fastchat.errors import RequestError

_UNITS = (("GB", 1_000_000_000), ("MB", 1_000_000), ("kB", 1_000))
_WRITTEN = re.compile(r"([0-9]{1,6})(?:\.([0-9]))?\s*(b|kb?|mb?|gb?)?\Z", re.IGNORECASE)


def bytes_of(text: str) -> int:
    """Bytes; 0 for "off". Raises `RequestError`."""
    word = text.strip().lower()
    if word == "off":
        return 0
    found = _WRITTEN.match(word)
    if found is None:
        raise RequestError(f"{text} is not a size: write 500kB, 5MB, 1GB or off")
    unit = next((size for name, size in _UNITS if (found[3] or "b")[0] == name[0].lower()), 1)
    return (int(found[1]) * 10 + int(found[2] or 0)) * unit // 10


def written(size: float) -> str:
    """In the largest unit of which there is one at least; with a digit behind the point below ten of them."""
    for name, unit in _UNITS:
        if size >= unit:
            count = size / unit
            return f"{count:.1f} {name}" if count < 9.95 else f"{count:,.0f} {name}"
    return f"{size:.0f} byte{'' if round(size) == 1 else 's'}"


def time_left(seconds: float) -> str:
    """ "0:07", "12:30", "2:05:00"."""
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
