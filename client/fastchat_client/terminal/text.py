"""Text on its way to a terminal: made harmless, dated, and no richer than the terminal is.

Everything that comes from somebody else goes through `clean`, without exception. It knows no events.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TextIO

import msgspec

from fastchat_client.events import State

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"

_LINE_ENDS = re.compile("\r\n|[\r\x0b\x0c\x85\u2028\u2029]")

_HARMFUL = re.compile(
    "["
    "\x00-\x08\x0e-\x1f\x7f"  # C0 and DEL: ESC above all
    "\x80-\x9f"  # C1: one byte that some terminals read as ESC and a letter
    "\u202a-\u202e\u2066-\u2069"  # bidi embeddings, overrides and isolates: they reorder what stands around them
    "\ufff9-\ufffb"  # interlinear annotations
    "\ud800-\udfff"  # half a character: cannot be written anywhere
    "\U000e0000-\U000e007f"  # tags: invisible text
    "]"
)


def clean(text: str) -> str:
    """`text` without anything that moves the cursor, changes the terminal or reorders what is shown; what was there
    stays visible as U+FFFD. Line ends of every kind become "\\n", tabs four spaces."""
    return _HARMFUL.sub(_REPLACEMENT, _LINE_ENDS.sub("\n", text).replace("\t", "    "))


def clean_line(text: str, most: int = 0) -> str:
    """As `clean`, on one line, cut with "…" to `most` characters if that is not 0."""
    line = " ".join(clean(text).split())
    return line if not most or len(line) <= most else line[: most - 1] + "…"


def json_line(value: Any) -> str:
    """`value` as JSON on one line, with every harmful character escaped: nothing is lost, any terminal may show it."""
    try:
        line = msgspec.json.encode(value).decode()
    except UnicodeEncodeError:  # the path of a file, which need not be UTF-8
        line = json.dumps(msgspec.to_builtins(value), separators=(",", ":"))
    return _HARMFUL.sub(_escape, line)


def _escape(found: re.Match[str]) -> str:
    units = found[0].encode("utf-16-be")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))


def moment(at: str | int) -> datetime | None:
    """A sender's time: ISO 8601 text, or milliseconds since 1970; None if it is neither. Senders choose it freely."""
    try:
        if isinstance(at, int):
            return datetime.fromtimestamp(at / 1000, UTC)
        found = datetime.fromisoformat(at)
        return found if found.tzinfo else found.replace(tzinfo=UTC)
    except (ValueError, OverflowError, OSError):
        return None


def clock(at: str | int, now: datetime) -> str:
    """A time for people, in their time zone: hours and minutes; the day too if it is not that of `now`."""
    found = moment(at)
    if found is None:
        return "--:--"
    try:
        local, today = found.astimezone(), now.astimezone()
    except (ValueError, OverflowError, OSError):
        return "--:--"
    if local.date() == today.date():
        return f"{local:%H:%M}"
    return f"{local:%d %b %H:%M}" if local.year == today.year else f"{local:%Y-%m-%d %H:%M}"


@dataclass(frozen=True)
class Look:
    """What a terminal can show."""

    colour: bool
    symbols: bool
    """Whether it can write ✓ and the like."""
    true_colour: bool = False
    """Whether any colour can be had, not only 256 of them."""

    def mark(self, state: str) -> str:
        """How far a message has come, in as few characters as can be."""
        return (_MARKS if self.symbols else _PLAIN_MARKS).get(state, state)

    def symbol(self, symbol: str, plain: str) -> str:
        return symbol if self.symbols else plain


_MARKS: dict[str, str] = {
    State.WAITING: "… waiting",
    State.ACCEPTED: "✓",
    State.DELIVERED: "✓✓",
    State.READ: "✓✓ read",
    State.FAILED: "✗ not sent",
}
_PLAIN_MARKS: dict[str, str] = {
    State.WAITING: "... waiting",
    State.ACCEPTED: "+",
    State.DELIVERED: "++",
    State.READ: "++ read",
    State.FAILED: "x not sent",
}


def look_of(stream: TextIO, environ: Mapping[str, str] = os.environ) -> Look:
    """What `stream` can show: colour needs a terminal that is not dumb and no NO_COLOR; symbols an encoding that has
    them."""
    try:
        "✓…›●".encode(stream.encoding or "ascii")
        symbols = True
    except (UnicodeEncodeError, LookupError):
        symbols = False
    colour = stream.isatty() and not environ.get("NO_COLOR") and environ.get("TERM", "dumb") not in ("dumb", "")
    true_colour = colour and environ.get("COLORTERM") in ("truecolor", "24bit")
    return Look(colour=colour, symbols=symbols, true_colour=true_colour)
