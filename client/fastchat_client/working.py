"""What blocks, as the core wants it done: in a thread, by whoever has threads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, eq=False)
class Work:
    """`run` is called in any thread, and touches nothing of the core; `done` gets what it returned, or the exception
    that it raised, within a turn of the core."""

    run: Callable[[], Any]
    done: Callable[[Any], None]
