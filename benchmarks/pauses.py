"""When the machine itself stood still: `python -m benchmarks.pauses CORE...`, with priority over everything (Linux, as
root).

A virtual machine is given its cores when others leave them to it. One process on each core wakes up every millisecond;
when it comes late although nothing goes before it, nobody ran on this core. What was on its way meanwhile says nothing
about the server. It prints each such time, as a pair of `time.perf_counter()`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

STEP = 0.001
LATE = 0.0005
PRIORITY = 90
CHECKOUT = Path(__file__).resolve().parents[1]


class Pauses:
    """The times found so far; `stop` it."""

    def __init__(self) -> None:
        self._outputs: list[IO[bytes]] = []
        self._watchers: list[subprocess.Popen[bytes]] = []
        for core in sorted(os.sched_getaffinity(0)):
            output = TemporaryFile()  # noqa: SIM115
            self._outputs.append(output)
            watcher = [sys.executable, "-m", "benchmarks.pauses", str(core)]
            self._watchers.append(subprocess.Popen(watcher, cwd=CHECKOUT, stdout=output))  # noqa: S603

    def stop(self) -> None:
        for watcher in self._watchers:
            watcher.kill()
            watcher.wait()
        for output in self._outputs:
            output.close()

    def all(self) -> list[tuple[float, float]]:
        """Each from its begin to as long after its end as it took: then what waited has been caught up with."""
        found = []
        for output in self._outputs:
            # The place in the file is the watcher's as well: it is not to be moved.
            number = output.fileno()
            for line in os.pread(number, os.fstat(number).st_size, 0).splitlines():
                began, ended = map(float, line.split())
                found.append((began, 2 * ended - began))
        return found


def main() -> None:
    os.sched_setaffinity(0, {int(sys.argv[1])})
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(PRIORITY))
    parent = os.getppid()
    woke = time.perf_counter()
    while os.getppid() == parent:
        time.sleep(STEP)
        now = time.perf_counter()
        if now - woke > STEP + LATE:
            os.write(1, f"{woke!r} {now!r}\n".encode())
            now = time.perf_counter()
        woke = now


if __name__ == "__main__":
    main()
