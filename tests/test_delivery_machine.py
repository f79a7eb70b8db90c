"""Delivery under everything that can happen to it: the state machine of tests/support/delivery_machine.py, run on the
real thing, which must keep every promise, and on the mutants, each of which must be found out.

What runs here is the same every time. To search further, with other examples in every run:

    DELIVERY_EXAMPLES=20000 .venv/bin/trial tests.test_delivery_machine.Promises
"""

from __future__ import annotations

import contextlib
import io
import os

from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test
from twisted.trial.unittest import SynchronousTestCase

from fastchat.delivery import Inbox
from tests.support.delivery_judge import Violation
from tests.support.delivery_machine import DeliveryMachine
from tests.support.delivery_mutants import MUTANTS, Mutant, only_the_first_of_the_held_is_refused

EXAMPLES = int(os.environ.get("DELIVERY_EXAMPLES", "0"))
"""Of the long form; 0: the short one."""

ALWAYS_THE_SAME = settings(
    derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck), print_blob=False
)


class Promises(SynchronousTestCase):
    def test_whatever_happens_every_promise_is_kept(self) -> None:
        run_state_machine_as_test(
            DeliveryMachine,
            settings=settings(
                ALWAYS_THE_SAME,
                derandomize=not EXAMPLES,
                max_examples=EXAMPLES or 100,
                stateful_step_count=50,
                phases=[Phase.generate, Phase.shrink],
            ),
        )


class Written(SynchronousTestCase):
    """A sequence that a search does not meet."""

    def held_too_long(self) -> None:
        """bob's mailbox takes its time to be read, and so does what is stored; two messages are held for 2 s."""
        state = DeliveryMachine()
        state.starts(
            window=3, page=1, batch=3, is_small=False, is_joined=True, held=set(), places=(0, None, None, None)
        )
        state.world.held.update(("store: asked", "read: asked"))
        state.logs_in(name="bob", process=0, lags_up=False, lags_down=False)
        state.writes(sender="alice", conversation=0, count=2, size=1)
        state.time_passes(seconds=2.1)
        [reading] = [call for call, pause in enumerate(state.world.paused) if pause.point == "read: asked"]
        state.hangs_no_more(call=reading, fails=False)
        try:
            state.promises_are_kept()
        finally:
            state.teardown()

    def test_what_is_held_is_refused_whole(self) -> None:
        self.held_too_long()
        self.patch(Inbox, "_refuse_held", only_the_first_of_the_held_is_refused)
        violation = self.assertRaises(Violation, self.held_too_long)
        self.assertEqual(violation.kind, "out of order")


class Mutants(SynchronousTestCase):
    """For each a few hundred short examples, without making the one that is found shorter still."""

    def assert_found(self, name: str, mutant: Mutant) -> None:
        machine = type(name, (DeliveryMachine,), {"points": mutant.points, "faults": mutant.faults})
        patched = self.patch(mutant.where, mutant.method, mutant.broken)
        search = settings(ALWAYS_THE_SAME, max_examples=1_000, stateful_step_count=30, phases=[Phase.generate])
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                run_state_machine_as_test(machine, settings=search)
        except Violation as violation:
            self.assertIn(violation.kind, mutant.breaks, f"{name}: {violation}")
        else:
            self.fail(f"{name} was not found")
        finally:
            patched.restore()

    def test_each_is_found(self) -> None:
        for name, mutant in MUTANTS.items():
            self.assert_found(name, mutant)
