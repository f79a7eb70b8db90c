"""What chaos clients say to each other: texts that carry who said them, to whom, as which, and a hash of all of it.

    <sender>><recipient>#<counter>:<16 hex digits>:<padding>

The recipient is a user's name, or a group's conversation ("#" and its id). The counter begins with 1 for each sender
and recipient and has no gap. The digits begin the SHA-256 of everything else, so a text that was cut, mixed up or put
into another's mouth does not fit. What stands beside a file names the file's hash:

    <sender>><recipient>~<SHA-256 of the file, 64 hex digits>

Nothing here knows vaults or networks.
"""

from __future__ import annotations

import hashlib
import re
from typing import NamedTuple

GROUP = "#"
"""How the conversation of a group begins."""
_DIGITS = 16
_TEXT = re.compile(rf"([^>#:]+)>(#?[^>#:]+)#([1-9][0-9]{{0,15}}):([0-9a-f]{{{_DIGITS}}}):(.*)", re.DOTALL)

_CAPTION = re.compile(r"([^>#:~]+)>(#?[^>#:~]+)~([0-9a-f]{64})")


class Said(NamedTuple):
    """What a text says of itself. `counter`: from 1."""

    sender: str
    recipient: str
    counter: int

    @property
    def is_to_group(self) -> bool:
        return self.recipient.startswith(GROUP)


def compose(sender: str, recipient: str, counter: int, padding: str = "") -> str:
    """The text number `counter` (from 1) from `sender` to `recipient`. `padding`: anything."""
    return f"{sender}>{recipient}#{counter}:{_digits(sender, recipient, counter, padding)}:{padding}"


def read(text: str) -> Said | None:
    """What `text` says of itself; None if it is not of this form or does not fit its hash."""
    match = _TEXT.fullmatch(text)
    if match is None:
        return None
    sender, recipient, counter, digits, padding = match.groups()
    if digits != _digits(sender, recipient, int(counter), padding):
        return None
    return Said(sender, recipient, int(counter))


class Captioned(NamedTuple):
    """What stands beside a file. `digest`: SHA-256, in hexadecimal."""

    sender: str
    recipient: str
    digest: str


def caption(sender: str, recipient: str, data: bytes) -> str:
    return f"{sender}>{recipient}~{hashlib.sha256(data).hexdigest()}"


def read_caption(text: str) -> Captioned | None:
    match = _CAPTION.fullmatch(text)
    return None if match is None else Captioned(*match.groups())


def _digits(sender: str, recipient: str, counter: int, padding: str) -> str:
    whole = f"{sender}>{recipient}#{counter}:{padding}"
    return hashlib.sha256(whole.encode("utf-8", "surrogatepass")).hexdigest()[:_DIGITS]
