"""`python -m tests.chaos`: one run, or with `--all` a clean one and then every mutant, which must be caught.

Exit code 0: clean (`--all`: and every mutant was caught). 1: something was lost, duplicated, out of order, corrupted or
a phantom, or never came to rest. 2: the history is clean, but something happened that should not: a traceback in a log,
a client that gave up. The seed fixes the faults, their targets and times, and what is said; a machine's timing it does
not fix, so a failure may need several runs with its seed.
"""

from __future__ import annotations

import argparse
import sys
from random import SystemRandom
from typing import Any

from rich.console import Console
from rich.table import Table
from twisted.internet.defer import Deferred
from twisted.internet.task import react

from tests.chaos.checker import KINDS
from tests.chaos.driver import Chaos, Options, Verdict
from tests.chaos.faults import FAULTS
from tests.chaos.mutants import MUTANTS

CLEAN, LIES, STRANGE = 0, 1, 2


MUTANT_SECONDS, MUTANT_ROUND, MUTANT_PATIENCE, MUTANT_CLIENTS, MUTANT_EVERY = 90.0, 20.0, 60.0, 20, 1.0
COUNTED = (
    *("sent", "accepted", "due", "received", "to_groups", "from_groups"),
    *("statements", "files", "files_due", "files_saved"),
)
TRIES = 3
"""Runs of one mutant, each with another seed, before it has survived."""


def main() -> None:
    arguments = _arguments()
    options = Options(
        seconds=arguments.seconds,
        round_seconds=arguments.round,
        seed=arguments.seed,
        clients=arguments.clients,
        every=arguments.every,
        patience=arguments.patience,
        mutant=arguments.mutant,
        keep=arguments.keep,
        weights=_weights(arguments.mutant),
    )
    print(f"seed {options.seed}; to do the same again: {_command(options)}", flush=True)
    runs = _all if arguments.all else _one
    react(lambda reactor: Deferred.fromCoroutine(runs(reactor, options)))


async def _one(reactor: Any, options: Options) -> None:
    verdict = await _run(reactor, options)
    show(verdict)
    if code := judge(verdict):
        raise SystemExit(code)


async def _all(reactor: Any, options: Options) -> None:
    """A clean run, which must be clean, then the mutants, which must not."""
    verdict = await _run(reactor, options)
    show(verdict)
    code = judge(verdict)
    table = Table("mutant", "caught", "by", "runs", "seed", title="mutants")
    for mutant in MUTANTS.values():
        caught, tries = "", 0
        while not caught and tries < TRIES:
            seed = options.seed + tries
            tries += 1
            caught = _caught(await _run(reactor, _mutant_options(mutant.name, seed)))
        code = code or (CLEAN if caught else LIES)
        table.add_row(mutant.name, "yes" if caught else "NO", caught, str(tries), str(seed))
        print(f"{mutant.name}: {caught or 'SURVIVED'}", flush=True)
    Console(highlight=False, soft_wrap=True).print(table)
    if code:
        raise SystemExit(code)


async def _run(reactor: Any, options: Options) -> Verdict:
    chaos = Chaos(options, lambda line: print(line, flush=True), reactor)
    # Also when it is interrupted: nothing may be left running.
    trigger = reactor.addSystemEventTrigger("before", "shutdown", lambda: Deferred.fromCoroutine(chaos.stop()))
    try:
        verdict = await chaos.run()
    finally:
        await chaos.stop()
    reactor.removeSystemEventTrigger(trigger)
    if options.mutant and not options.keep:
        chaos.remove()
    return verdict


def _mutant_options(mutant: str, seed: int) -> Options:
    return Options(
        seconds=MUTANT_SECONDS,
        round_seconds=MUTANT_ROUND,
        seed=seed,
        clients=MUTANT_CLIENTS,
        every=MUTANT_EVERY,
        patience=MUTANT_PATIENCE,
        mutant=mutant,
        weights=_weights(mutant),
    )


def _weights(mutant: str) -> dict[str, int]:
    """In a mutant's run, what it needs happens and nothing else: then it happens often."""
    if not mutant:
        return {}
    return {fault.name: int(fault.name in MUTANTS[mutant].faults) for fault in FAULTS}


def _caught(verdict: Verdict) -> str:
    """By which numbers; "" if by none of those that the mutant must be caught by: anything else may have been found
    for another reason."""
    if verdict.history is None:
        return ""
    found = {kind: getattr(verdict.history, kind) for kind in (*KINDS, "waiting")}
    if not any(found[kind] for kind in MUTANTS[verdict.options.mutant].caught_by):
        return ""
    return ", ".join(f"{kind.replace('_', ' ')} {number}" for kind, number in found.items() if number)


def judge(verdict: Verdict) -> int:
    if verdict.history is None or not verdict.history.clean or verdict.quiet_seconds is None:
        return LIES
    return CLEAN if verdict.clean else STRANGE


def show(verdict: Verdict) -> None:
    """The table of one run, and what was found."""
    console = Console(highlight=False, soft_wrap=True)
    options, history = verdict.options, verdict.history
    table = Table("", "", title=f"chaos, seed {options.seed}" + (f", {options.mutant}" if options.mutant else ""))
    table.add_row("clients", str(options.clients))
    table.add_row("seconds of faults", f"{options.seconds:g}")
    for name, times in sorted(verdict.faults.items()):
        table.add_row(f"fault: {name}", str(times))
    table.add_row("faults", str(verdict.faults.total()))
    if history is not None:
        for name in (*COUNTED, "waiting", *KINDS):
            table.add_row(name.replace("_", " "), str(getattr(history, name)))
    quiet = "never" if verdict.quiet_seconds is None else f"{verdict.quiet_seconds:.0f}"
    table.add_row("seconds until nothing was under way", quiet)
    console.print(table)
    for what, found in (("note", verdict.notes), ("traceback", verdict.tracebacks)):
        for text, times in found.most_common():
            console.print(f"{what}, {times} times: {text}", markup=False)
    for example in [] if history is None else history.examples:
        console.print(example, markup=False)
    if not verdict.clean or options.keep:
        console.print(f"everything is kept in {verdict.directory}", markup=False)
        console.print(f"seed {options.seed}: {_command(options)}", markup=False)


def _command(options: Options) -> str:
    mutant = f" --mutant {options.mutant}" if options.mutant else ""
    return (
        f"python -m tests.chaos --seconds {options.seconds:g} --seed {options.seed} --clients {options.clients} "
        f"--every {options.every:g} --round {options.round_seconds:g}{mutant}"
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description="Faults upon a real network.")
    parser.add_argument("--seconds", type=float, default=Options.seconds, help="how long faults happen")
    parser.add_argument("--round", type=float, default=Options.round_seconds, help="seconds between two checks")
    parser.add_argument("--seed", type=int, default=SystemRandom().randrange(1_000_000))
    parser.add_argument("--clients", type=int, default=Options.clients)
    parser.add_argument("--every", type=float, default=Options.every, help="seconds between two faults")
    parser.add_argument("--patience", type=float, default=Options.patience, help="seconds for all to arrive in the end")
    parser.add_argument("--mutant", default="", choices=["", *MUTANTS], help="break the product in this way")
    parser.add_argument("--all", action="store_true", help="then every mutant, each of which must be caught")
    parser.add_argument("--keep", action="store_true", help="keep the directory of a clean run, too")
    return parser.parse_args(sys.argv[1:])


if __name__ == "__main__":
    main()
