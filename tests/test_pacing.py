"""How many chunks are on their way: as many as help, and no more than make others wait."""

from __future__ import annotations

from collections import deque

from twisted.trial.unittest import SynchronousTestCase

from fastchat_client.pacing import FIRST, QUICK, SLOW, Pace


def allowed(pace: Pace) -> int:
    return next(count for count in range(1000) if not pace.may_send(count))


class Rules(SynchronousTestCase):
    def test_it_begins_with_few(self) -> None:
        self.assertEqual(allowed(Pace(16)), FIRST)
        self.assertEqual(allowed(Pace(1)), 1)

    def test_quick_answers_allow_more_up_to_what_the_network_allows(self) -> None:
        pace = Pace(16)
        for _ in range(100):
            pace.answered(0.01)
        self.assertEqual(allowed(pace), 16)

    def test_slow_answers_allow_less_but_never_none(self) -> None:
        pace = Pace(16)
        pace.answered(0.01)
        for _ in range(100):
            pace.answered(0.01 + SLOW * 2)
        self.assertEqual(allowed(pace), 1)
        pace.answered(0.01)
        self.assertEqual(allowed(pace), 2)

    def test_in_between_it_stays(self) -> None:
        pace = Pace(16)
        pace.answered(0.0)
        before = allowed(pace)
        for _ in range(10):
            pace.answered((QUICK + SLOW) / 2)
        self.assertEqual(allowed(pace), before)

    def test_a_refusal_allows_half(self) -> None:
        pace = Pace(16)
        for _ in range(100):
            pace.answered(0.0)
        for expected in (8, 4, 2, 1, 1):
            pace.refused()
            self.assertEqual(allowed(pace), expected)

    def test_how_far_away_the_network_is_does_not_count(self) -> None:
        """What the quickest answer takes is the way, and not a queue."""
        pace = Pace(16)
        for _ in range(100):
            pace.answered(0.3)
        self.assertEqual(allowed(pace), 16)


class Lines(SynchronousTestCase):
    """Lines of a certain speed, which take one chunk after the other."""

    def most_in_line(self, seconds: float, way: float, chunks: int = 200) -> tuple[int, float]:
        """A line that takes `seconds` for a chunk and lies `way` seconds away: how many were in it at most in the end,
        and for which share of the time it was used."""
        pace, now, free_at = Pace(16), 0.0, 0.0
        flying: deque[tuple[float, float]] = deque()
        most = sent = 0
        while sent < chunks:
            while pace.may_send(len(flying)) and sent < chunks:
                free_at = max(free_at, now) + seconds
                flying.append((now, free_at + way))
                sent += 1
                if sent > chunks // 2:
                    most = max(most, len(flying))
            begun, answered_at = flying.popleft()
            now = answered_at
            pace.answered(now - begun)
        return most, chunks * seconds / now

    def test_a_slow_line_is_not_filled(self) -> None:
        for seconds in (0.5, 2.0):
            most, _ = self.most_in_line(seconds, 0.05)
            self.assertLessEqual(most, 2, seconds)

    def test_a_quick_line_is_used(self) -> None:
        for seconds, way in ((0.001, 0.0), (0.002, 0.02), (0.01, 0.1)):
            _, used = self.most_in_line(seconds, way)
            self.assertGreater(used, 0.8, (seconds, way))
