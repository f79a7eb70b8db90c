"""How long to wait before the next try to connect, and what a person is told meanwhile: the waits and their jitter,
what is worth no further try, and that a service which asks its clients to go elsewhere is no trouble. It knows no
connection.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from fastchat.errors import (
    Busy,
    CertificateMismatch,
    DeviceRevoked,
    FastChatError,
    LimitError,
    Replaced,
    RequestError,
    TrustError,
    Unreachable,
    UnsupportedVersion,
)
from fastchat_client.events import Disconnected, Moving
from fastchat_client.parts import AskedToLeave

FIRST_WAIT = 1.0
WAIT = 30.0
LONGEST_WAIT = 300.0
"""The first reconnect waits 0 to 1 s, the next 0 to 30 s, and then up to twice as long each time, to 5 min; full
jitter, so that those who lost one service do not fall upon the next one together (docs/architecture.md)."""

MOVING_SECONDS = 20.0
"""After `goaway`, and the time that it names, no connection is what was announced for so long, and no problem yet."""
MOVING_WAIT = 5.0
"""The most that a reconnect waits then: the service, or another one, is expected to be there in a moment."""


def is_final(problem: FastChatError) -> bool:
    """Whether trying again would only bring the same answer. A wrong certificate is not: each new connection is
    checked before anything is said, and who stands in between today may be gone tomorrow."""
    if isinstance(problem, CertificateMismatch):
        return False
    return isinstance(problem, RequestError | Replaced | DeviceRevoked | TrustError | UnsupportedVersion)


def longest_wait(tries: int) -> float:
    """Seconds that reconnect number `tries`, counted from 0, waits at most."""
    return FIRST_WAIT if tries == 0 else min(WAIT * 2.0 ** min(tries - 1, 16), LONGEST_WAIT)


class Patience:
    """Of one connection's life. `seconds`: a clock that nobody sets. `longest`: as `longest_wait`."""

    def __init__(self, seconds: Callable[[], float], random: Random, longest: Callable[[int], float]) -> None:
        self._seconds = seconds
        self._random = random
        self._longest = longest
        self._tries = 0
        self._moving_until = 0.0

    def after(self, problem: FastChatError, was_steady: bool) -> Disconnected | Moving:
        """A try has ended so, or a session, which had lasted a while if `was_steady`. What to tell; its `retry_in` is
        the time to wait, None if no further try is worth it."""
        if is_final(problem):
            return Disconnected(problem.code, problem.message, None)
        if was_steady:
            self._tries = 0
        now, tries = self._seconds(), self._tries
        self._tries += 1
        at_least = min(problem.retry_after or 0.0, LONGEST_WAIT)
        if isinstance(problem, AskedToLeave):
            self._moving_until = now + at_least + MOVING_SECONDS
            # The service has spread the times already. But who is sent on and on must not go round in circles at once.
            return Moving(self._wait(at_least, min(tries * FIRST_WAIT, MOVING_WAIT)))
        if now < self._moving_until and isinstance(problem, Unreachable | Busy | LimitError):
            return Moving(self._wait(at_least, min(self._longest(tries), MOVING_WAIT)))
        return Disconnected(problem.code, problem.message, self._wait(at_least, self._longest(tries)))

    def _wait(self, at_least: float, longest: float) -> float:
        return max(at_least, self._random.uniform(0.0, longest))
