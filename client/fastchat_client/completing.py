"""How a line that is being typed could go on, by the table of commands. It knows no terminal."""

from __future__ import annotations

from collections.abc import Sequence

from fastchat_client import paths
from fastchat_client.commands import COMMANDS, command_named, is_family, is_number


def path_begun(line: str) -> str | None:
    """The path that is being typed at the end of `line`, as it stands there; None where none belongs."""
    word, space, rest = line[1:].partition(" ")
    command = command_named([word.lower()]) if line.startswith("/") and space else None
    arguments = command.arguments if command else ""
    first, gap, after = rest.partition(" ")
    if "[N] [DIR]" in arguments and is_number(first):
        if not gap:
            return None
        rest = after
    belongs = "PATH" in arguments or "DIR" in arguments
    # Whatever is typed next is still a part of it.
    return rest if belongs and not paths.take(f"{rest}_")[1] else None


def word_begun(line: str) -> str:
    """What a completion takes the place of."""
    path = path_begun(line)
    return line.rpartition(" ")[2] if path is None else path


def completions(line: str, names: Sequence[str], groups: Sequence[str] = (), members: Sequence[str] = ()) -> list[str]:
    """How the last word of `line` could go on: a command's name, one of `names` where somebody belongs, one of `groups`
    where a group does; and in a text, after an @, one of `members`."""
    head, space, word = line.rpartition(" ")
    is_text = not line.startswith("/") or line.startswith("//")
    if not is_text and not space:
        first = dict.fromkeys(command.name.partition(" ")[0] for command in COMMANDS)
        return [f"/{name}" for name in first if name.startswith(line[1:].lower())]
    said = [] if is_text else head[1:].lower().split()
    if len(said) == 1 and is_family(said[0]):
        family = [command.name for command in COMMANDS if command.name.startswith(f"{said[0]} {word.lower()}")]
        return [name.partition(" ")[2] for name in family]
    command = None if is_text else command_named(said)
    arguments = {argument.strip("[]") for argument in command.arguments.split()} if command else set[str]()
    if is_text:
        arguments.add("TEXT")
    if word.startswith("@") and "TEXT" in arguments and members:
        return [f"@{name}" for name in members if name.startswith(word[1:])]
    found = [name for name in names if name.startswith(word.removeprefix("@"))] if arguments & {"WHO", "USER"} else []
    if arguments & {"WHO", "#GROUP"}:
        found += [group for group in groups if group.startswith(word)]
    return found
