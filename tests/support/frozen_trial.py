"""Trial, for which what its test modules import has been taken out of the garbage collector's sight.

`--force-gc` collects before and after each test, so that an error nobody handled is told by the test that lost it. Code
is never garbage, and there is so much of it that looking at it again each time took a quarter of the whole run.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module

from twisted.scripts.trial import run


def main(arguments: Sequence[str]) -> None:
    """Run trial with these arguments, then exit as it does."""
    for name in arguments:
        if name.startswith("tests."):
            # What cannot be imported, trial comes to again, and reports.
            with suppress(Exception):
                import_module(name)
    gc.collect()
    gc.freeze()
    sys.argv = ["trial", *arguments]
    run()


if __name__ == "__main__":
    main(sys.argv[1:])
