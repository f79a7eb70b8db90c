"""The core's blocking work, in the reactor's threads. It knows neither what is done there nor what comes of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure

from fastchat_client.working import Work

InThread = Callable[[Any, Callable[[], Any]], Deferred[Any]]


def in_thread(reactor: Any, run: Callable[[], Any]) -> Deferred[Any]:
    """What `run` returns or raises, from a thread of the reactor's."""
    return deferToThreadPool(reactor, reactor.getThreadPool(), run)


class Threads:
    """`worked` is given, in the reactor's thread, each work that was begun and what its `run` returned or raised."""

    log = Logger()

    def __init__(self, reactor: Any, worked: Callable[[Work, Any], None], in_thread: InThread = in_thread) -> None:
        self._reactor = reactor
        self._worked = worked
        self._in_thread = in_thread
        self._under_way = 0
        self._waiting: list[Deferred[None]] = []

    def begin(self, works: Sequence[Work]) -> bool:
        """Whether there were any."""
        for work in works:
            self._under_way += 1
            doing = self._in_thread(self._reactor, work.run)
            doing.addBoth(self._done, work)
            doing.addErrback(lambda failure: self.log.failure("what was done in a thread came to nothing", failure))
        return bool(works)

    async def finish(self, more: Callable[[], Sequence[Work]]) -> None:
        """Until nothing is under way, and nothing `more` follows from it."""
        while self.begin(more()) or self._under_way:
            if self._under_way:
                waiting: Deferred[None] = Deferred()
                self._waiting.append(waiting)
                await waiting

    def _done(self, result: Any, work: Work) -> None:
        self._under_way -= 1
        try:
            self._worked(work, result.value if isinstance(result, Failure) else result)
        finally:
            waiting, self._waiting = self._waiting, []
            for one in waiting:
                one.callback(None)
