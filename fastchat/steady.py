"""Time that nobody can set: what every deadline, interval and order rests on, on the server and in the client.

Twisted's reactors run by the wall clock. When that is put forward, all that they have been asked for falls due at once:
everybody's connection is given up. When it is put back, nothing falls due until it has caught up. So each program hands
its reactor to `keep_time` before it schedules anything. What people read as a time, and ages of days that must outlive
the process, come from the wall clock and from nowhere else. This module knows no reactor but by these two names.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

_SINCE_BOOT = getattr(time, "CLOCK_BOOTTIME", None)

seconds: Callable[[], float] = time.monotonic if _SINCE_BOOT is None else partial(time.clock_gettime, _SINCE_BOOT)
"""Seconds since some moment; never less than before. Where the system has such a clock (Linux), it goes on while the
machine sleeps: a laptop that wakes up knows at once that its connection is old."""


def keep_time(reactor: Any) -> None:
    """Let `reactor` run by `seconds`, from now on. Raises `RuntimeError` if it has been asked for something already:
    that was meant by another clock."""
    if reactor.getDelayedCalls():
        raise RuntimeError("the reactor's clock can only be changed before anything is scheduled")
    reactor.seconds = seconds
