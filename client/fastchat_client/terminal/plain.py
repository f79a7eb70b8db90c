"""The chat for a dumb terminal, a pipe or a file: lines in, lines out, no escape code ever."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any, TextIO

from twisted.internet.defer import Deferred

from fastchat_client.terminal.render import Line, plain

_CHUNK = 65536
LONGEST_LINE = 32 * 1024
"""Bytes, as of a text; a longer line is cut into several messages."""


class PlainScreen:
    """A `talk.Screen` without a live region. Prints on `stream`, flushing each line."""

    live = False

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.left: Deferred[None] = Deferred()
        """Fires when the person leaves, or nobody reads what is printed any more."""

    def show(self, line: Line) -> None:
        try:
            encoding = self._stream.encoding or "ascii"
            self._stream.write(plain(line).encode(encoding, "replace").decode(encoding) + "\n")
            self._stream.flush()
        except BrokenPipeError:
            self.end()

    def redraw(self) -> None:
        """There is no prompt here."""

    def end(self) -> None:
        if not self.left.called:
            self.left.callback(None)


class LineReader:
    """Reads lines from a file descriptor, in a thread, since neither a regular file nor a shared terminal can be
    polled safely. `on_line` and `on_end` are called in the reactor's thread."""

    def __init__(
        self, descriptor: int, reactor: Any, on_line: Callable[[str], None], on_end: Callable[[], None]
    ) -> None:
        self._descriptor = descriptor
        self._reactor = reactor
        self._on_line = on_line
        self._on_end = on_end
        # `os.read` and not a file object: a daemon thread must not hold a lock that the interpreter's end waits for.
        self._thread = threading.Thread(target=self._read, name="fastchat-stdin", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def _read(self) -> None:
        rest = b""
        while True:
            try:
                data = os.read(self._descriptor, _CHUNK)
            except OSError:
                data = b""
            if not data:
                break
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                self._give(line)
            while len(rest) > LONGEST_LINE:
                self._give(rest[:LONGEST_LINE])
                rest = rest[LONGEST_LINE:]
        if rest:
            self._give(rest)
        self._reactor.callFromThread(self._on_end)

    def _give(self, line: bytes) -> None:
        for at in range(0, max(1, len(line)), LONGEST_LINE):
            piece = line[at : at + LONGEST_LINE].decode("utf-8", "replace").removesuffix("\r")
            self._reactor.callFromThread(self._on_line, piece)
