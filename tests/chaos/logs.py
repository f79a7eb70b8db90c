"""What should not be in the logs of a run: tracebacks, each by the line that says which error it was."""

from __future__ import annotations

from collections import Counter
from pathlib import Path


def read_logs(directory: Path) -> Counter[str]:
    """The errors in all logs of a run, and how often each."""
    found: Counter[str] = Counter()
    for file in (
        *(directory / "home" / "log").glob("fastchat.log*"),
        *directory.glob("worker-*.log"),
        *directory.glob("worker-*.err"),
        directory / "twistd.out",
    ):
        if file.exists():
            found.update(tracebacks(file.read_text(errors="replace")))
    return found


def tracebacks(log: str) -> list[str]:
    """The last line of each traceback in a log: the error."""
    found: list[str] = []
    inside = False
    for line in log.splitlines():
        line = line.removeprefix("\t")
        if line.strip().startswith("Traceback (most recent call last)"):
            inside = True
        elif inside and line.strip() and not line.startswith((" ", "\t")):
            found.append(line.strip()[:200])
            inside = False
    return found
