"""`make test`: every test module under trial, in as many processes at once as there are cores, four at most.

Each process runs whole modules, in an order drawn from the seed, with a temporary directory and a PostgreSQL of its
own. What it says is shown module by module, as it wrote it. A module is found by its name: `SECONDS` only has to know
those that take long, and nothing here knows what they are about.

    python -m tests [--processes N] [--seed N]
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from random import Random

CHECKOUT = Path(__file__).parent.parent
MOST = 4
POLL_SECONDS = 0.1
STOP_SECONDS = ((signal.SIGINT, 30), (signal.SIGTERM, 5), (signal.SIGKILL, 5))
"""What ends a process, and how long it may take; after the first, trial still stops its PostgreSQL."""

SECONDS: dict[str, float] = {
    "tests.test_cli": 77, "tests.test_database_away": 42, "tests.test_chaos": 38, "tests.test_hundred": 35,
    "tests.test_cli_files": 34, "tests.test_delivery_machine": 33, "tests.test_restart": 31,
    "tests.test_files_killed": 28, "tests.test_files_arrive": 13, "tests.test_files_cut": 13,
    "tests.test_clock_jumps": 22, "tests.test_embedded_postgres": 19, "tests.test_newcomer": 25,
    "tests.test_services": 18, "tests.test_startup": 18, "tests.test_conversations": 18,
    "tests.test_store_postgres": 17, "tests.test_floods": 16, "tests.test_core_crash": 15,
    "tests.test_fuzz": 13, "tests.test_drain": 13, "tests.test_core_outbox": 11,
    "tests.test_uploading_cut": 10, "tests.test_uploading_network": 7, "tests.test_uploading": 6,
    "tests.test_identity_links": 9, "tests.test_identity_root": 6,
}  # fmt: skip
"""What a module takes that takes long, as once measured, so that the processes end at about the same time."""
OTHERS = 1.5


def modules() -> list[str]:
    files = (path.relative_to(CHECKOUT).with_suffix("") for path in (CHECKOUT / "tests").rglob("test_*.py"))
    return sorted(".".join(file.parts) for file in files)


def shares(names: Sequence[str], count: int) -> list[list[str]]:
    """The longest first, each to the share that has least to do."""
    shared: list[list[str]] = [[] for _ in range(min(count, len(names)))]
    loads = [0.0] * len(shared)
    for name in sorted(names, key=lambda name: -SECONDS.get(name, OTHERS)):
        least = loads.index(min(loads))
        shared[least].append(name)
        loads[least] += SECONDS.get(name, OTHERS)
    return shared


class Trial:
    """One trial process. It writes into a file, so that nothing it leaves running can keep us from seeing its end."""

    def __init__(self, number: int, names: Sequence[str], seed: int) -> None:
        self._output = tempfile.TemporaryFile()  # noqa: SIM115
        self._shown = 0
        self.said = b""
        options = ["--force-gc", f"--random={seed}", f"--temp-directory=_trial_temp_{number}"]
        self.process = subprocess.Popen(
            [sys.executable, "-u", "-m", "tests.support.frozen_trial", *options, *names],
            cwd=CHECKOUT,
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=subprocess.STDOUT,
            # Ctrl-C is passed on by `stop`, once.
            start_new_session=True,
        )

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    def show(self) -> None:
        """Print what is complete: up to the module that is running, or everything once it has ended."""
        ended = not self.running
        self.said += os.pread(self._output.fileno(), 1 << 30, len(self.said))
        upto = len(self.said) if ended else max(self.said.rfind(b"\ntests.test_") + 1, self._shown)
        sys.stdout.buffer.write(self.said[self._shown : upto])
        sys.stdout.flush()
        self._shown = upto

    @property
    def ran(self) -> int:
        """How many tests it has run; 0 when it did not come to its end."""
        found = re.findall(rb"^Ran (\d+) tests? in ", self.said, re.MULTILINE)
        return int(found[-1]) if found else 0

    def failed(self) -> list[str]:
        """The names of the tests that failed, and what else is wrong; nothing if it is as it should be."""
        sections = re.split(rb"^={79}\n", self.said, flags=re.MULTILINE)
        names: list[str] = []
        for section in sections:
            if section.startswith((b"[FAIL]", b"[ERROR]", b"[SUCCESS!?!]")):
                names += re.findall(r"^tests(?:\.\w+)+$", section.decode(errors="replace"), re.MULTILINE)
        code = self.process.returncode
        modules = re.findall(r"^tests\.\S+$", sections[0].decode(errors="replace"), re.MULTILINE)
        where = modules[-1] if modules else "its beginning"
        if code < 0:
            names.append(f"a process died by {signal.Signals(-code).name} in {where}")
        elif not self.ran:
            names.append(f"a process ended with {code} in {where}")
        elif code and not names:
            names.append(f"a process ended with {code}")
        return names


def stop(trials: Sequence[Trial]) -> None:
    """End all that are still running."""
    for number, patience in STOP_SECONDS:
        running = [trial for trial in trials if trial.running]
        for trial in running:
            os.killpg(trial.process.pid, number)
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline and any(trial.running for trial in running):
            time.sleep(POLL_SECONDS)


def run(count: int, seed: int) -> int:
    """Run everything; the exit code."""
    begun = time.monotonic()
    trials: list[Trial] = []
    try:
        for number, names in enumerate(shares(modules(), count), 1):
            Random(seed).shuffle(names)
            trials.append(Trial(number, names, seed))
        while True:
            running = [trial for trial in trials if trial.running]
            for trial in trials:
                trial.show()
            if not running:
                break
            time.sleep(POLL_SECONDS)
    finally:
        stop(trials)
    failed = [name for trial in trials for name in trial.failed()]
    if not trials:
        failed.append("there are no tests")
    verdict = f"FAILED: {', '.join(dict.fromkeys(failed))}" if failed else "OK"
    total, seconds = sum(trial.ran for trial in trials), time.monotonic() - begun
    print(f"\nRan {total} tests in {seconds:.0f} s, processes: {len(trials)}, seed: {seed}: {verdict}")
    return 1 if failed else 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests", description="All tests, in several processes.")
    cores = len(os.sched_getaffinity(0))
    parser.add_argument("--processes", type=int, default=min(cores, MOST), help="default: one for each core")
    parser.add_argument("--seed", type=int, default=int(time.time() * 100), help="fixes the order; default: drawn")
    chosen = parser.parse_args()
    # SIGINT too: a shell starts what runs in its background with SIGINT ignored, and the processes would inherit that.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        return run(max(chosen.processes, 1), chosen.seed)
    except KeyboardInterrupt:
        print("FAILED: interrupted")
        return 130


if __name__ == "__main__":
    sys.exit(main())
