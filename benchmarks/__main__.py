"""`python -m benchmarks`: runs all of it, or what is named, and prints the table."""

from __future__ import annotations

import argparse
import gc
import os
import platform
import resource
import signal
import sys
import time
from collections.abc import Callable, Sequence

from benchmarks.attackers import ATTACKS
from benchmarks.fan_out import fan_out, thousand
from benchmarks.floods import attack
from benchmarks.measurements import ENVELOPE, IN_FLIGHT, SHORT, Bench, Row
from benchmarks.server import Home, Server

MEASUREMENTS: dict[str, Callable[[Bench], Sequence[Row]]] = {
    # First, while the server is fresh: memory that was used before would be given to the sessions.
    "idle": lambda bench: [bench.idle()],
    "express": lambda bench: [bench.express(SHORT), bench.express(ENVELOPE)],
    "fan-out": lambda bench: [*fan_out(bench, ENVELOPE, IN_FLIGHT), *fan_out(bench, ENVELOPE, 1)],
    "thousand": lambda bench: thousand(bench, ENVELOPE),
    "latency": lambda bench: bench.latency(SHORT, 500),
    "logins": lambda bench: [bench.logins(through_balancer=False), bench.logins(through_balancer=True)],
    "offline": lambda bench: [*bench.offline(SHORT), *bench.offline(ENVELOPE)],
}

FLOODS: dict[str, Callable[[Bench], Sequence[Row]]] = {
    name: lambda bench, name=name: attack(bench, name)
    for name in ATTACKS  # type: ignore[misc]
}
"""Named one by one, or all of them as `floods`; each takes a minute."""


def main() -> None:
    options = _options()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    # An end from outside is an end as any other: the server is stopped and its home removed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    # A pause of the load's own would be measured as one of the server.
    gc.disable()
    began = time.monotonic()
    rows: list[Row] = []
    with Home() as home:
        with Server(home) as server:
            rows.append(Row("first start to the link", f"{server.seconds_to_link:.2f} s"))
        with Server(home) as server:
            rows.append(Row("second start to the link", f"{server.seconds_to_link:.2f} s"))
            _say(f"twistd is process {server.pid}")
            if options.precedence:
                server.take_precedence()
            bench = Bench(server, options.seconds, options.runs, options.precedence)
            for name, measure in (MEASUREMENTS | FLOODS).items():
                if name in options.what:
                    _say(name)
                    rows += measure(bench)
                    gc.collect()
            bench.close()
    print(_table(rows))
    print(f"\n{_machine()}; {time.monotonic() - began:.0f} s")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "what", nargs="*", default=list(MEASUREMENTS), help=", ".join([*MEASUREMENTS, "floods", *FLOODS])
    )
    parser.add_argument("--seconds", type=float, default=4.0, help="of one run of a steady load (default: 4)")
    parser.add_argument("--runs", type=int, default=3, help="runs, of which the median is shown (default: 3)")
    parser.add_argument(
        "--precedence", action="store_true", help="before all else that runs on this machine (Linux, as root)"
    )
    options = parser.parse_args()
    if "floods" in options.what:
        options.what = [*(what for what in options.what if what != "floods"), *FLOODS]
    if unknown := set(options.what) - set(MEASUREMENTS) - set(FLOODS):
        parser.error(f"there is no {', '.join(sorted(unknown))}; there are {', '.join([*MEASUREMENTS, *FLOODS])}")
    return options


def _table(rows: Sequence[Row]) -> str:
    head = ("", "rate or time", "CPU: twistd", "PostgreSQL", "together", "")
    cells = [head, *(_cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(head))]
    lines = []
    for line in cells:
        texts = [
            line[0].ljust(widths[0]),
            *(cell.rjust(width) for cell, width in zip(line[1:5], widths[1:5], strict=True)),
        ]
        lines.append("  ".join([*texts, line[5]]).rstrip())
    lines.insert(1, "-" * max(len(line) for line in lines))
    return "\n".join(lines)


def _cells(row: Row) -> tuple[str, ...]:
    if row.twistd is None or row.postgres is None:
        return row.what, row.rate, "", "", "", row.note
    costs = (f"{cost:.1f} {row.unit}" for cost in (row.twistd, row.postgres, row.twistd + row.postgres))
    return row.what, row.rate, *costs, row.note


def _machine() -> str:
    load = ", ".join(f"{load:.1f}" for load in os.getloadavg())
    system = f"{platform.system()} {platform.release()}, Python {platform.python_version()}"
    return f"{os.cpu_count()} cores, {system}; load {load}"


def _say(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
