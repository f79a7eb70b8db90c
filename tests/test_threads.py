"""The core's work in threads: what comes of each is told, and the end waits for all of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from fastchat_client.threads import Threads
from fastchat_client.working import Work


class InThreads(SynchronousTestCase):
    def setUp(self) -> None:
        self.doing: list[Deferred[Any]] = []
        self.told: list[tuple[Work, Any]] = []
        self.more: list[Work] = []
        self.threads = Threads(None, lambda work, result: self.told.append((work, result)), self.in_thread)

    def in_thread(self, _: object, run: Callable[[], Any]) -> Deferred[Any]:
        """It takes until the test says so."""
        doing: Deferred[Any] = Deferred()
        self.doing.append(doing)
        return doing

    def work(self) -> Work:
        return Work(lambda: None, lambda result: None)

    def take(self) -> list[Work]:
        more, self.more = self.more, []
        return more

    def test_what_comes_of_each_is_told(self) -> None:
        one, other = self.work(), self.work()
        self.assertTrue(self.threads.begin([one, other]))
        self.assertFalse(self.threads.begin([]))
        problem = OSError("no")
        self.doing[1].errback(problem)
        self.doing[0].callback("done")
        self.assertEqual(self.told, [(other, problem), (one, "done")])

    def test_the_end_waits_for_all_and_for_what_follows(self) -> None:
        """It may be what gives a file its name; and the vault is closed behind it."""
        self.threads.begin([self.work()])
        self.more = [self.work()]
        ending = Deferred.fromCoroutine(self.threads.finish(self.take))
        self.assertEqual(len(self.doing), 2)
        self.doing[0].callback(None)
        self.assertNoResult(ending)
        self.more = [self.work()]
        self.doing[1].callback(None)
        self.assertNoResult(ending)
        self.doing[2].callback(None)
        self.successResultOf(ending)
        self.assertEqual(len(self.told), 3)

    def test_with_nothing_to_do_it_ends_at_once(self) -> None:
        self.successResultOf(Deferred.fromCoroutine(self.threads.finish(self.take)))

    def test_a_mistake_in_what_follows_is_logged_and_holds_up_nothing(self) -> None:
        self.patch(self.threads, "_worked", lambda work, result: 1 / 0)
        self.threads.begin([self.work()])
        ending = Deferred.fromCoroutine(self.threads.finish(self.take))
        self.doing[0].callback(None)
        self.successResultOf(ending)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
