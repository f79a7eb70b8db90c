"""One coroutine, run on Twisted's reactor from a command line: its exit code is the process's, and signals end it.

The reactor is imported here, inside functions, when the command is known: the interactive chat needs the one that
shares asyncio's loop.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Coroutine
from types import FrameType
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from fastchat.steady import keep_time

TRY_LATER = 75
"""EX_TEMPFAIL of sysexits.h."""
INTERRUPTED = 130
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Running:
    """What the coroutine is given. `on_signal`, if set, is called at the first signal instead of cancelling it, and
    must lead to its end; at the second it is cancelled all the same."""

    def __init__(self, reactor: Any) -> None:
        self.reactor = reactor
        self.on_signal: Callable[[], None] | None = None
        self.signalled = 0
        """128 + the first signal's number, or 0."""


def run(main: Callable[[Running], Coroutine[Any, Any, int]], *, on_asyncio: bool = False) -> int:
    """Run `main` to its end. Returns its exit code, or 128 + the number of the signal that ended it. Whatever `main`
    raises comes out here."""
    if on_asyncio and "twisted.internet.reactor" not in sys.modules:
        from twisted.internet import asyncioreactor

        asyncioreactor.install()  # type: ignore[no-untyped-call]
    from twisted.internet import reactor as installed

    reactor: Any = installed
    keep_time(reactor)
    running = Running(reactor)
    outcome: list[int | Failure] = []

    def done(result: int | Failure) -> None:
        outcome.append(result)
        reactor.callLater(0, stop)

    def stop() -> None:
        if reactor.running:
            reactor.stop()

    def start() -> None:
        life = Deferred.fromCoroutine(main(running))

        def signalled(number: int) -> None:
            first = not running.signalled
            running.signalled = running.signalled or 128 + number
            if first and running.on_signal is not None:
                running.on_signal()
            else:
                life.cancel()

        def handle(number: int, frame: FrameType | None) -> None:
            reactor.callFromThread(signalled, number)

        for number in _SIGNALS:
            signal.signal(number, handle)
        life.addBoth(done)

    reactor.callWhenRunning(start)
    reactor.run(installSignalHandlers=False)
    result = outcome[0] if outcome else INTERRUPTED
    if isinstance(result, Failure):
        if running.signalled and isinstance(result.value, CancelledError):
            return running.signalled
        result.raiseException()
        raise AssertionError("raiseException raises")
    return running.signalled or result
