"""`python -m tests.fuzz [--seconds 120] [--seed N] [target …]`: each target for so long, with any input.

Rounds of examples follow each other, each with a seed of its own. A failure is shown as hypothesis has made it small,
with the seed of its round: `--seed` with that number tries the same inputs first.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
import traceback

from hypothesis import HealthCheck, Phase, given, seed, settings

from tests.fuzz.targets import TARGETS
from tests.fuzz.watching import Target

ROUND = 50
"""Examples of one seed."""
LONGEST = 1000
PROGRESS_SECONDS = 10.0


def shortened(line: str) -> str:
    """A line of a report: an input may have a line of 256 KiB."""
    return line if len(line) < LONGEST else f"{line[:LONGEST]} … {len(line)} characters"


def fuzz(target: Target, seconds: float, first: int) -> bool:
    """Whether nothing was found."""
    begin, shown, tried, number = time.monotonic(), 0.0, 0, first

    def one(drawn: object) -> None:
        nonlocal tried, shown
        if time.monotonic() - shown >= PROGRESS_SECONDS:
            shown = time.monotonic()
            print(f"{target.name:10} {shown - begin:5.0f} s {tried:8} inputs  seed {number}", flush=True)
        tried += 1
        target.check(drawn)

    while time.monotonic() - begin < seconds:
        # Without `explain`, which tries a failure again under a tracer, for minutes.
        phases = (Phase.generate, Phase.shrink)
        check = settings(
            max_examples=ROUND,
            phases=phases,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        )(seed(number)(given(target.inputs())(one)))
        try:
            check()
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            print("\n".join(map(shortened, traceback.format_exc().splitlines())))
            print(f"{target.name}: failed; again with: python -m tests.fuzz --seed {number} {target.name}", flush=True)
            return False
        number += 1
    print(f"{target.name:10} {time.monotonic() - begin:5.0f} s {tried:8} inputs, nothing found", flush=True)
    return True


def main() -> int:
    names = [target.name for target in TARGETS]
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("--seconds", type=float, default=120.0, help="for each target (default: 120)")
    parser.add_argument("--seed", type=int, help="of the first round (default: any)")
    parser.add_argument("target", nargs="*", help=f"of {', '.join(names)} (default: all)")
    arguments = parser.parse_args()
    if unknown := set(arguments.target) - set(names):
        parser.error(f"there is no target {', '.join(sorted(unknown))}")
    first = random.SystemRandom().randrange(1 << 32) if arguments.seed is None else arguments.seed
    chosen = [target for target in TARGETS if target.name in (arguments.target or names)]
    results = [fuzz(target, arguments.seconds, first) for target in chosen]
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
