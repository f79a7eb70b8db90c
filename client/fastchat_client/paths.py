"""How a path is typed on a line: in quotes, with backslashes before blanks, with ~; and how a part of one could go on.

What can be typed is what shells accept, so that a path can be pasted, or a file dropped on the terminal. Nothing of a
shell beside that: no variables, no patterns.
"""

from __future__ import annotations

import os
from pathlib import Path

MOST = 200
"""Ways for a path to go on."""


def take(text: str) -> tuple[str, str]:
    """The path that `text` begins with, unquoted, and what follows it. A quote need not be closed."""
    word, quote, at = "", "", 0
    while at < len(text):
        char = text[at]
        if char == "\\" and quote != "'" and at + 1 < len(text):
            at += 1
            word += text[at]
        elif char == quote:
            quote = ""
        elif quote:
            word += char
        elif char in "\"'":
            quote = char
        elif char == " ":
            break
        else:
            word += char
        at += 1
    return word, text[at:].strip()


def expanded(word: str) -> Path:
    """With `~` as one's home; `~nobody` stays as it is."""
    return Path(os.path.expanduser(word))


def completions(typed: str) -> list[str]:
    """How `typed`, the beginning of a path with its quotes and backslashes, could go on, written in the same way.
    Folders end with a slash. What is hidden is offered to who types its dot."""
    quote = typed[0] if typed[:1] in ("'", '"') else ""
    word, _ = take(typed)
    folder, slash, begun = word.rpartition("/")
    try:
        with os.scandir(expanded(folder + slash) if slash else ".") as entries:
            near = [entry for entry in entries if entry.name.startswith(begun) and _is_shown(entry.name, begun)]
            found = sorted((entry.name, entry.is_dir()) for entry in near)
    except OSError:
        return []
    return [_typed(f"{folder}{slash}{name}", quote, is_folder=is_folder) for name, is_folder in found[:MOST]]


def _is_shown(name: str, begun: str) -> bool:
    return (not name.startswith(".") or begun.startswith(".")) and name.isprintable()


def _typed(path: str, quote: str, *, is_folder: bool) -> str:
    end = "/" if is_folder else ""
    if quote and quote not in path and "\\" not in path:
        return f"{quote}{path}{end}" + (quote if not is_folder else "")
    return "".join(f"\\{char}" if char in " \\\"'" else char for char in path) + end
