"""What every target has: a check of one input, and an eye on the log, for code that survives its own mistakes by
logging them must not be taken for code that made none."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st
from twisted.logger import ILogObserver, LogEvent, LogLevel, formatEvent, globalLogPublisher
from zope.interface import implementer


@dataclass(frozen=True)
class Target:
    """What is fuzzed: `check` takes one of `inputs` and raises unless everything is as it must be."""

    name: str
    inputs: Callable[[], st.SearchStrategy[Any]]
    check: Callable[[Any], None]
    examples: int
    """In `make test`."""


@contextmanager
def clean_log() -> Iterator[None]:
    """Nothing may be logged as an error within."""
    found: list[LogEvent] = []

    @implementer(ILogObserver)
    def observe(event: LogEvent) -> None:
        if event.get("log_level") in (LogLevel.error, LogLevel.critical):
            found.append(event)

    globalLogPublisher.addObserver(observe)
    try:
        yield
    finally:
        globalLogPublisher.removeObserver(observe)
    for event in found:
        failure = event.get("log_failure")
        trace = "" if failure is None else failure.getTraceback()
        raise AssertionError(f"the log has an error: {formatEvent(event)}\n{trace}")
