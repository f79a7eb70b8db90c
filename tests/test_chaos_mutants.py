"""The broken servers and clients of the chaos run: each is there, bites, and can be taken back."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.chaos.checker import KINDS
from tests.chaos.faults import FAULTS
from tests.chaos.mutants import MUTANTS, Mutant, apply


def patched(mutant: Mutant) -> list[Any]:
    return [vars(owner)[name] for owner, name, _ in mutant.patches]


class Mutants(SynchronousTestCase):
    def test_each_changes_the_product_and_can_be_taken_back(self) -> None:
        for name, mutant in MUTANTS.items():
            before = patched(mutant)
            mend = apply(name)
            for old, new in zip(before, patched(mutant), strict=True):
                self.assertIsNot(old, new, name)
            mend()
            self.assertEqual(patched(mutant), before, name)

    def test_one_that_has_nothing_to_break_is_an_error(self) -> None:
        mutant = MUTANTS["no-resend"]
        [(owner, name, _)] = mutant.patches
        original = getattr(owner, name)
        delattr(owner, name)
        self.addCleanup(setattr, owner, name, original)
        self.assertRaises(LookupError, apply, "no-resend")
        self.assertRaises(LookupError, apply, "no-such-mutant")

    def test_each_says_what_shows_it(self) -> None:
        names = {fault.name for fault in FAULTS}
        for mutant in MUTANTS.values():
            self.assertTrue(set(mutant.caught_by) <= {*KINDS, "waiting"} and mutant.caught_by, mutant.name)
            self.assertTrue(set(mutant.faults) <= names and mutant.faults, mutant.name)
            self.assertTrue(mutant.says.endswith("."), mutant.name)
