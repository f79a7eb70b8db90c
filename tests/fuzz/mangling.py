"""Bytes that are not quite a conversation: traps for a JSON decoder, edits of what was really said, and how all of it
is cut into pieces on its way.

An edit is symbolic (positions are taken modulo what is there), so that hypothesis can make a failing input small, and
the same input can be tried on a conversation with other keys.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from hypothesis import strategies as st

from fastchat.protocols.wire import MAX_LINE, MAX_LINE_BEFORE_LOGIN
from tests.support.protocol_examples import DOCUMENT, read

_DIGITS = b"9" * 400

TRAPS: tuple[bytes, ...] = (
    b"", b"\r", b" ", b"\0", b"{", b"}", b"null", b"[]", b'"x"', b"0", b"{}", b'{"t":null}', b'{"t":1,"id":1}',
    b'{"id":1}',
    b"\xef\xbb\xbf" + b'{"t":"ping","id":1}', b"\xff\xfe\xfd", b'{"t":"ping","id":1}\xff', b'{"t":"\xc3\x28","id":1}',
    b'{"t":"ping","id":NaN}', b'{"t":"ping","id":Infinity}', b'{"t":"ping","id":-1}', b'{"t":"ping","id":1.0}',
    b'{"t":"ping","id":1e3}', b'{"t":"ping","id":-0}', b'{"t":"ping","id":01}', b'{"t":"ping","id":9007199254740992}',
    b'{"t":"ping","id":' + _DIGITS + b"}", b'{"t":"goaway","after":1e' + _DIGITS + b',"reason":""}',
    b'{"t":"goaway","after":NaN,"reason":""}', b'{"t":"goaway","after":-1e308,"reason":"\\u0000"}',
    b'{"t":"ping","t":"pong","id":1,"re":1}', b'{"t":"ping","id":1,"id":2}', b'{"id":7,"t":"ping"}',
    b'{"t":"\\u0070ing","id":1}', b'{"\\u0074":"ping","id":1}', b'{"t":"ping","id":1,"x":"\\ud800"}',
    b'{"t":"scram","id":1,"message":"\\udfff\\ud800"}', b'{"t":"ping","id":1,}',
    b'{"t":"ping","id":1}{"t":"ping","id":2}',
    b'{"t":"ping","id":1,"' + b"k" * 3000 + b'":' + b'"' + b"v" * 3000 + b'"}',
    b'{"t":"ping","id":1,"x":' + b"[" * 3000 + b"]" * 3000 + b"}", b'{"t":"ping","id":1,"x":' + b'{"a":' * 3000,
    b"[" * 12_000, b'{"t":"error","code":"' + b"\\u00e9" * 500 + b'","message":""}',
    b'{"t":"welcome","re":1,"version":1,"service":"x","challenge":"=","limits":{}}',
    b'{"t":"login","id":1,"user":"a","device":"' + b"0" * 32 + b'\\n","signature":"' + b"A" * 86 + b'=="}',
    b'{"t":"login","id":1,"user":"a","device":"' + b"0" * 32 + b'","signature":"' + b"A" * 85 + b'B=="}',
    b'{"t":"message","k":1,"user":"a","device":"' + b"0" * 32 + b'","n":1,"at":' + _DIGITS + b',"body":' + b"[" * 5000,
    b'{"t":"send","id":1,"n":1,"to":[{"device":"' + b"0" * 32 + b'","body":"\xe2\x82\xac"}]}',
    b'{"t":"send","id":1,"n":1,"to":[{"device":"' + b"0" * 32 + b'","body":' + b"[" * 2000 + b"]" * 2000 + b"}]}",
    b'{"t":"ping","id":1}'.ljust(MAX_LINE_BEFORE_LOGIN), b'{"t":"ping","id":1}'.ljust(MAX_LINE_BEFORE_LOGIN + 1),
    b'{"t":"ping","id":2}'.ljust(MAX_LINE), b"x" * (MAX_LINE + 1),
)  # fmt: skip
"""Each as the content of one line, its end not included."""

traps = st.sampled_from(TRAPS)


@cache
def said(by: str) -> list[bytes]:
    """What was really said by clients ("C") or servers ("S"), as PROTOCOL.md has it."""
    examples = read(DOCUMENT.read_text(encoding="utf-8"))
    return [line.data for lines in examples.wire.values() for line in lines if line.who == by]


# --- edits -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Edit:
    """One thing that happens to the bytes of a conversation."""

    kind: str
    at: int
    size: int
    data: bytes = b""


EDITS = ("flip", "cut", "insert", "overwrite", "join", "repeat", "swap", "drop", "split")
positions = st.integers(0, 1 << 16)
edits: st.SearchStrategy[list[Edit]] = st.lists(
    st.builds(
        Edit,
        st.sampled_from(EDITS),
        positions,
        st.integers(0, 40) | positions,
        st.binary(max_size=12) | st.sampled_from((b"\n", b"\\", b'"', b"{", b"}", b"[", b",", b"\0", b"\xff", b"\\u")),
    ),
    max_size=6,
)


def edited(data: bytes, changes: Sequence[Edit]) -> bytes:
    """`data`, lines that each have their end, after these edits."""
    for change in changes:
        data = _edit(data, change)
    return data


def _edit(data: bytes, change: Edit) -> bytes:
    if not data:
        return change.data
    at = change.at % len(data)
    lines = data.splitlines(keepends=True)
    here, there = change.at % len(lines), change.size % len(lines)
    match change.kind:
        case "flip":
            return data[:at] + bytes((data[at] ^ (1 << change.size % 8),)) + data[at + 1 :]
        case "cut":
            return data[:at] + data[at + change.size :]
        case "insert":
            return data[:at] + change.data + data[at:]
        case "overwrite":
            return data[:at] + change.data + data[at + len(change.data) :]
        case "join":
            lines[here] = lines[here].rstrip(b"\n")
        case "repeat":
            lines.insert(there, lines[here])
        case "swap":
            lines[here], lines[there] = lines[there], lines[here]
        case "drop":
            del lines[here]
        case "split":
            return data[:at] + b"\n" + data[at:]
    return b"".join(lines)


# --- pieces ----------------------------------------------------------------------------------------------------------

pieces: st.SearchStrategy[list[int]] = st.one_of(
    st.just([]), st.just([1]), st.lists(st.integers(1, 64), max_size=30), st.lists(st.integers(1, 1 << 16), max_size=10)
)
"""Sizes; see `cut`."""


def cut(data: bytes, sizes: Sequence[int], most: int = 3000) -> list[bytes]:
    """`data` in pieces of these sizes, over and over; in one piece if there are none. Not in many more than `most`."""
    if not sizes:
        return [data] if data else []
    least = len(data) // most + 1
    found, at, turn = [], 0, 0
    while at < len(data):
        size = max(least, sizes[turn % len(sizes)])
        found.append(data[at : at + size])
        at += size
        turn += 1
    return found


def line_of(known: Sequence[bytes], message: st.SearchStrategy[Any]) -> st.SearchStrategy[bytes]:
    """The content of a line: something that was really said, any message encoded, or a trap."""
    return st.sampled_from(known) | message | traps
