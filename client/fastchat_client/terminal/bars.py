"""How far files have come, for commands that wait for them: a bar on a terminal, a line now and then where there is
none, and the events themselves for programs.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Protocol, TextIO

from fastchat_client.events import FileSaved, FileSent, TransferFailed, TransferProgress
from fastchat_client.sizes import written
from fastchat_client.terminal.text import clean_line, json_line

NAME = 30
"""Characters of a file's name: a bar must have room beside it."""
FileEvent = TransferProgress | FileSent | FileSaved | TransferFailed


class Bars(Protocol):
    """What shows it."""

    def preparing(self, name: str, done: int, size: int) -> None:
        """A file is read and encrypted; nothing of it is sent yet. `name`: of the file that is meant."""

    def event(self, event: FileEvent) -> None: ...

    def waiting(self) -> None:
        """The connection is gone: nothing moves."""

    def close(self) -> None:
        """What is shown stays as it is, and the terminal is as it was before. May be called twice."""


def bars_for(as_json: bool, out: TextIO, err: TextIO, environ: Mapping[str, str] = os.environ) -> Bars:
    """What is right for these two streams."""
    if as_json:
        return Events(out)
    if err.isatty() and environ.get("TERM", "dumb") not in ("dumb", ""):
        # Only now: other commands have no use for it, and it takes a while.
        from fastchat_client.terminal.rich_bars import RichBars

        return RichBars(err, environ)
    return Lines(err)


class Events:
    """For programs, one JSON object a line."""

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def preparing(self, name: str, done: int, size: int) -> None:
        """Is no event."""

    def event(self, event: FileEvent) -> None:
        print(json_line(event), file=self._out, flush=True)

    def waiting(self) -> None:
        """Is said in words, on stderr."""

    def close(self) -> None:
        """Nothing to be undone."""


class Lines:
    """For pipes and log files: one line when something begins, and one when it has come to its end."""

    def __init__(self, err: TextIO) -> None:
        self._err = err
        self._said: set[str] = set()

    def preparing(self, name: str, done: int, size: int) -> None:
        self._once(f"preparing {clean_line(name, NAME)}")

    def event(self, event: FileEvent) -> None:
        if isinstance(event, TransferProgress):
            doing = "sending" if event.up else "fetching"
            self._once(f"{doing} {clean_line(event.name, NAME)}, {written(event.size)}")
        elif isinstance(event, FileSent):
            self._once(f"all of {clean_line(event.name, NAME)} is on the network")

    def waiting(self) -> None:
        """Is said by who notices."""

    def close(self) -> None:
        """Nothing to be undone."""

    def _once(self, line: str) -> None:
        if line not in self._said:
            self._said.add(line)
            print(f"fastchat: {line}", file=self._err, flush=True)
