"""One of our programs, in a process whose wall clock jumps: SIGUSR1 puts it forward by a day, SIGUSR2 back by one.

    python -m tests.support.jumping twistd -ny fastchat.tac
    python -m tests.support.jumping fastchat listen

`time.time` is replaced before anything else is imported, so also for Twisted, which remembers it. What C code asks the
system for (TLS, SQLite, PostgreSQL, and `datetime.now`) is not moved.
"""

import signal
import sys
import time

DAY = 86_400.0

_true = time.time
_ahead = 0.0


def _jump(number: int, frame: object) -> None:
    global _ahead
    _ahead += DAY if number == signal.SIGUSR1 else -DAY


def _wall() -> float:
    return _true() + _ahead


def main() -> None:
    time.time = _wall
    for number in (signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, _jump)
    del sys.argv[0]
    if sys.argv[0] == "twistd":
        from twisted.scripts.twistd import run
    else:
        from fastchat_client.cli import main as run
    run()


if __name__ == "__main__":
    main()
