"""One table of slash commands for every face: what there is to say, how it is read, and what it asks of the face.

It knows no terminal and no window: a face offers the methods of `Face`, and gets its lines read here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Protocol

from fastchat.errors import RequestError
from fastchat.identity.names import check_name

HISTORY_LINES = 20
MOST_HISTORY_LINES = 1000


class CommandError(RequestError):
    """This line is not a command that is understood."""

    code = "command"


class Face(Protocol):
    """What a face can do for somebody who types."""

    @property
    def conversation(self) -> str | None:
        """Whom a line without a command goes to."""

    def open(self, who: str) -> None:
        """Make `who` the current conversation and show what is unread in it."""

    def send(self, who: str, text: str) -> None: ...

    def show_people(self) -> None:
        """Conversations and contacts, with their unread counts."""

    def show_history(self, who: str, limit: int) -> None: ...

    def accept(self, who: str) -> None:
        """Believe the changed root key of `who`."""

    def show_self(self) -> None:
        """Who one is oneself, and whether one is connected."""

    def show_help(self, lines: list[str]) -> None: ...

    def reconnect(self) -> None:
        """Try the network now."""

    def quit(self) -> None: ...


Values = dict[str, str]


@dataclass(frozen=True)
class Command:
    """One row. `arguments` is both the grammar and its text: WHO a name, N a number, TEXT the rest of the line; in
    brackets what may be left out. `run` gets the values of those that were given."""

    name: str
    arguments: str
    help: str
    run: Callable[[Face, Values], None]
    aliases: tuple[str, ...] = ()

    @property
    def usage(self) -> str:
        return f"/{self.name} {self.arguments}".rstrip()


def _msg(face: Face, values: Values) -> None:
    face.open(values["WHO"])
    if "TEXT" in values:
        face.send(values["WHO"], values["TEXT"])


def _history(face: Face, values: Values) -> None:
    who = values.get("WHO") or face.conversation
    if who is None:
        raise CommandError("whose? Type /history WHO, or /msg WHO first")
    limit = int(values.get("N", HISTORY_LINES))
    face.show_history(who, max(1, min(limit, MOST_HISTORY_LINES)))


def _accept(face: Face, values: Values) -> None:
    face.accept(values["WHO"])


def _help(face: Face, values: Values) -> None:
    face.show_help(help_lines())


COMMANDS: tuple[Command, ...] = (
    Command("msg", "WHO [TEXT]", "open the conversation with WHO, and send TEXT", _msg, ("m", "to", "open")),
    Command("who", "", "conversations and contacts, with unread messages", lambda face, _: face.show_people(), ("w",)),
    Command("history", "[WHO] [N]", f"the last N messages ({HISTORY_LINES} if not said)", _history, ("h",)),
    Command("accept", "WHO", "believe WHO's new key, after you have asked them whether they have one", _accept),
    Command("whoami", "", "your name, your key's fingerprint, the connection", lambda face, _: face.show_self()),
    Command("reconnect", "", "try the network now instead of waiting", lambda face, _: face.reconnect()),
    Command("help", "", "this list", _help, ("?",)),
    Command("quit", "", "leave; what is unsent waits in the outbox", lambda face, _: face.quit(), ("q", "exit", "bye")),
)

_BY_NAME = {name: command for command in COMMANDS for name in (command.name, *command.aliases)}


def run_line(face: Face, line: str) -> None:
    """Do what `line` says: a command, or a text for the current conversation; `//text` is the text `/text`. An empty
    line is nothing. Raises `CommandError` or `NameNotAllowed`, in words for the person who typed it."""
    if not line.strip():
        return
    if line.startswith("/") and not line.startswith("//"):
        command, values = parse(line)
        command.run(face, values)
        return
    if face.conversation is None:
        raise CommandError("to whom? Type /msg WHO first, or /who to see whom you know")
    face.send(face.conversation, line[1:] if line.startswith("//") else line)


def parse(line: str) -> tuple[Command, Values]:
    """The command of a line that begins with a slash, and its arguments."""
    word, _, rest = line.strip()[1:].partition(" ")
    command = _BY_NAME.get(word.lower())
    if command is None:
        near = get_close_matches(word.lower(), _BY_NAME, n=1, cutoff=0.5)
        hint = f"did you mean /{near[0]}?" if near else "/help lists all of them"
        raise CommandError(f"there is no command /{word}; {hint} To send a text that begins with /, type //")
    return command, _read(command, rest.strip())


def _read(command: Command, rest: str) -> Values:
    """The arguments in `rest`, by the command's grammar."""
    values: Values = {}
    pattern = command.arguments.split()
    for at, argument in enumerate(pattern):
        name, optional = argument.strip("[]"), argument.startswith("[")
        word, _, after = rest.partition(" ")
        if name == "TEXT":
            word, after = rest, ""
        elif name == "WHO" and optional and "[N]" in pattern[at + 1 :] and word.isdecimal() and not after:
            continue  # `/history 50` means fifty lines, not somebody called 50
        if not word:
            if optional:
                continue
            raise CommandError(f"{name} is missing: {command.usage}")
        values[name] = _value(command, name, word)
        rest = after.strip()
    if rest:
        raise CommandError(f"too much: {command.usage}")
    return values


def _value(command: Command, name: str, word: str) -> str:
    if name == "WHO":
        return check_name(word.removeprefix("@"))
    if name == "N" and not (word.isascii() and word.isdecimal() and len(word) <= 9):
        raise CommandError(f"{word} is not a number: {command.usage}")
    return word


def help_lines() -> list[str]:
    """The table for people, and the two rules that are not in it."""
    width = max(len(command.usage) for command in COMMANDS)
    lines = [f"{command.usage:<{width}}  {command.help}" for command in COMMANDS]
    lines.append(f"{'anything else':<{width}}  is sent to the open conversation")
    lines.append(f"{'//text':<{width}}  sends a text that begins with /")
    return lines


def completions(line: str, names: list[str]) -> list[str]:
    """How the last word of `line` could go on: a command's name, or one of `names` where a name belongs."""
    head, space, word = line.rpartition(" ")
    if not line.startswith("/") or line.startswith("//"):
        return []
    if not space:
        return [f"/{command.name}" for command in COMMANDS if command.name.startswith(line[1:].lower())]
    command = _BY_NAME.get(head[1:].strip().lower())
    if command is None or "WHO" not in command.arguments:
        return []
    return [name for name in names if name.startswith(word.removeprefix("@"))]
