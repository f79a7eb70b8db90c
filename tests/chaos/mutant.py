"""What a mutant is: a server or a client that is broken on purpose (`mutants.py`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

Original = Callable[..., Any]


@dataclass(frozen=True)
class Mutant:
    """`says`: what is broken. `caught_by`: the numbers of a report, one of which must not be 0 ("waiting" is one, too).
    `faults`: names of those in `tests.chaos.faults` that show it best. `patches`: (class, name, what makes the new from
    the old)."""

    name: str
    side: Literal["server", "client"]
    says: str
    caught_by: tuple[str, ...]
    faults: tuple[str, ...]
    patches: tuple[tuple[type, str, Callable[[Original], Original]], ...] = field(repr=False)
