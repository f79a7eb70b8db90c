"""One table of slash commands for every face: what there is to say, how it is read, and what it asks of the face.

It knows no terminal and no window: a face offers the methods of `face.Face`, and gets its lines read here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from fastchat.errors import RequestError
from fastchat.identity.groups import MAX_HISTORY
from fastchat.identity.names import check_name
from fastchat_client import paths
from fastchat_client.durations import seconds_of
from fastchat_client.face import Face
from fastchat_client.group_acting import (
    DeleteAct,
    InviteAct,
    JoinAct,
    LeaveAct,
    RemoveAct,
    RenameAct,
    TopicAct,
)
from fastchat_client.sizes import bytes_of

HISTORY_LINES = 20
MOST_HISTORY_LINES = 1000
HISTORY_DAYS = 7
"""Of what was said before, for who is invited, if nothing else is said."""
EMOJI = {"+1": "👍", "-1": "👎", "<3": "❤️", ":)": "🙂", ":(": "🙁", ":D": "😄", "!": "❗", "?": "❓", "ok": "👌"}
"""What can be typed on any keyboard for a sign."""


class CommandError(RequestError):
    """This line is not a command that is understood."""

    code = "command"


Values = dict[str, str]


@dataclass(frozen=True)
class Command:
    """One row. `name` may be of two words. `arguments` is both the grammar and its text, in brackets what may be left
    out: WHO somebody or a #group; USER somebody; #GROUP a group; N a message; LINES, DAYS a number; PATH, DIR a file
    and a folder, in quotes if need be; TEXT the rest of the line; anything else is one word. `run` gets the values of
    those that were given."""

    name: str
    arguments: str
    help: str
    run: Callable[[Face, Values], None]
    aliases: tuple[str, ...] = ()

    @property
    def usage(self) -> str:
        return f"/{self.name} {self.arguments}".rstrip()


def _msg(face: Face, values: Values) -> None:
    conversation = face.meant(values["WHO"])
    face.open(conversation)
    if "TEXT" in values:
        face.send(conversation, values["TEXT"])


def _history(face: Face, values: Values) -> None:
    limit = int(values.get("LINES", HISTORY_LINES))
    face.show_history(_where(face, values, "history"), max(1, min(limit, MOST_HISTORY_LINES)))


def _where(face: Face, values: Values, command: str) -> str:
    """The conversation that was named, or the open one."""
    if "WHO" in values:
        return face.meant(values["WHO"])
    if face.conversation is None:
        raise CommandError(f"whose? Type /{command} WHO, or /msg WHO first")
    return face.conversation


def _group(face: Face, values: Values) -> str:
    """The group that was named, or the open one."""
    if "#GROUP" in values:
        return face.meant(values["#GROUP"])
    if face.conversation is None or not face.conversation.startswith("#"):
        raise CommandError("which group? Say its #name first, or open it with /msg #GROUP")
    return face.conversation


def _reply(face: Face, values: Values) -> None:
    face.reply(face.message(values["N"], own=False), values["TEXT"])


def _react(face: Face, values: Values) -> None:
    face.react(face.message(values["N"], own=False), _emoji(values), remove=False)


def _unreact(face: Face, values: Values) -> None:
    face.react(face.message(values["N"], own=False), _emoji(values), remove=True)


def _emoji(values: Values) -> str:
    return EMOJI.get(values["EMOJI"], values["EMOJI"])


def _invite(face: Face, values: Values) -> None:
    face.act(_group(face, values), InviteAct(values["USER"], history=int(values.get("DAYS", HISTORY_DAYS))))


def _timer(face: Face, values: Values) -> None:
    face.set_timer(_where(face, values, "timer"), seconds_of(values["DURATION"]))


def _presence(face: Face, values: Values) -> None:
    if values["on|off"].lower() not in ("on", "off"):
        raise CommandError("say /presence on or /presence off")
    face.set_presence(values["on|off"].lower() == "on")


def _send(face: Face, values: Values, *, original: bool = False) -> None:
    if face.conversation is None:
        raise CommandError("to whom? Type /msg WHO first, or /who to see whom you know")
    face.files.send(face.conversation, values["PATH"], values.get("TEXT", ""), original=original)


def _fetch(face: Face, values: Values) -> None:
    newest = values.get("N", "last") in _NEWEST
    face.files.fetch("" if newest else face.message(values["N"], own=False), values.get("DIR", ""))


_NEWEST = ("last", "latest")

COMMANDS: tuple[Command, ...] = (
    Command("msg", "WHO [TEXT]", "open the conversation with WHO, and send TEXT", _msg, ("m", "to", "open")),
    Command("who", "", "conversations and contacts, with unread messages", lambda face, _: face.show_people(), ("w",)),
    Command("history", "[WHO] [LINES]", f"the last messages ({HISTORY_LINES} if not said)", _history, ("h",)),
    Command("reply", "N TEXT", "answer message N", _reply, ("r",)),
    Command("react", "N EMOJI", "put a sign on message N: an emoji, or +1 -1 <3 :) ok", _react),
    Command("unreact", "N EMOJI", "take it back", _unreact),
    Command(
        "edit",
        "N TEXT",
        "let your message N say TEXT instead",
        lambda face, values: face.edit(face.message(values["N"], own=True), values["TEXT"]),
    ),
    Command(
        "del",
        "N",
        "delete your message N for everyone",
        lambda face, values: face.delete(face.message(values["N"], own=True)),
        ("delete",),
    ),
    Command(
        "info",
        "N",
        "who has message N, who has read it, who has put which sign on it",
        lambda face, values: face.show_message(face.message(values["N"], own=True)),
    ),
    Command("send", "PATH [TEXT]", "send a file or a picture, with TEXT", _send, ("file",)),
    Command(
        "original",
        "PATH [TEXT]",
        "send a picture as it is, also the place and the time that may stand in it",
        lambda face, values: _send(face, values, original=True),
    ),
    Command("fetch", "[N] [DIR]", "save the file of message N (the newest one), in DIR (here)", _fetch),
    Command(
        "show",
        "N",
        "what the file of message N is, and where",
        lambda face, values: face.files.show(face.message(values["N"], own=False)),
    ),
    Command("transfers", "", "files that are on their way", lambda face, _: face.files.show_transfers()),
    Command("cancel", "ID", "stop one of them for good", lambda face, values: face.files.cancel(values["ID"])),
    Command(
        "autofetch",
        "SIZE",
        "files up to SIZE (5MB) are fetched by themselves; off",
        lambda face, values: face.files.set_auto_download(bytes_of(values["SIZE"])),
    ),
    Command(
        "timer", "[WHO] DURATION", "what is written from now on goes 30s, 5m, 1h, 7d after its reading; off", _timer
    ),
    Command(
        "mute",
        "[WHO]",
        "messages come without a sign",
        lambda face, values: face.mute(_where(face, values, "mute"), True),
    ),
    Command(
        "unmute",
        "[WHO]",
        "with a sign again",
        lambda face, values: face.mute(_where(face, values, "unmute"), False),
    ),
    Command(
        "block", "USER", "see and hear nothing more of USER", lambda face, values: face.block(values["USER"], True)
    ),
    Command("unblock", "USER", "undo that", lambda face, values: face.block(values["USER"], False)),
    Command("presence", "on|off", "whether others see that you are there, and you them", _presence),
    Command("groups", "", "your groups, and those you are invited to", lambda face, _: face.show_groups()),
    Command(
        "group create",
        "NAME [TEXT]",
        "make a group; TEXT is its topic",
        lambda face, values: face.create_group(values["NAME"], values.get("TEXT", "")),
    ),
    Command(
        "group invite",
        "[#GROUP] USER [DAYS]",
        f"who joins reads the last DAYS days too ({HISTORY_DAYS} if not said; 0: none; at most {MAX_HISTORY})",
        _invite,
    ),
    Command(
        "group join",
        "#GROUP",
        "accept an invitation",
        lambda face, values: face.act(_group(face, values), JoinAct()),
    ),
    Command(
        "group leave",
        "[#GROUP]",
        "leave, or decline an invitation",
        lambda face, values: face.act(_group(face, values), LeaveAct()),
    ),
    Command(
        "group remove",
        "[#GROUP] USER",
        "out of the group, or take back an invitation",
        lambda face, values: face.act(_group(face, values), RemoveAct(values["USER"])),
    ),
    Command(
        "group promote",
        "[#GROUP] USER",
        "a member becomes an admin, an admin an owner",
        lambda face, values: face.change_role(_group(face, values), values["USER"], up=True),
    ),
    Command(
        "group demote",
        "[#GROUP] USER",
        "an owner becomes an admin, an admin a member",
        lambda face, values: face.change_role(_group(face, values), values["USER"], up=False),
    ),
    Command(
        "group rename",
        "[#GROUP] NAME",
        "give it another name",
        lambda face, values: face.act(_group(face, values), RenameAct(values["NAME"])),
    ),
    Command(
        "group topic",
        "[#GROUP] TEXT",
        "say what it is about",
        lambda face, values: face.act(_group(face, values), TopicAct(values["TEXT"])),
    ),
    Command(
        "group delete",
        "#GROUP",
        "end it, for everyone and for good",
        lambda face, values: face.act(_group(face, values), DeleteAct()),
    ),
    Command(
        "group show",
        "[#GROUP]",
        "who is in it, who is invited",
        lambda face, values: face.show_group(_group(face, values)),
    ),
    Command(
        "accept",
        "USER",
        "believe USER's new key, after you have asked them whether they have one",
        lambda face, values: face.accept(values["USER"]),
    ),
    Command("whoami", "", "your name, your key's fingerprint, the connection", lambda face, _: face.show_self()),
    Command("reconnect", "", "try the network now instead of waiting", lambda face, _: face.reconnect()),
    Command("help", "", "this list", lambda face, _: face.show_help(help_lines()), ("?",)),
    Command("quit", "", "leave; what is unsent waits in the outbox", lambda face, _: face.quit(), ("q", "exit", "bye")),
)

_BY_NAME = {name: command for command in COMMANDS for name in (command.name, *command.aliases)}
_FAMILIES = {name.partition(" ")[0] for name in _BY_NAME if " " in name}


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


def command_named(words: Sequence[str]) -> Command | None:
    """The command that these words, in lower case, begin with."""
    return _BY_NAME.get(" ".join(words[:2])) or (_BY_NAME.get(words[0]) if words else None)


def is_family(word: str) -> bool:
    """Whether it is the first of a command's two words."""
    return word in _FAMILIES


def is_number(word: str) -> bool:
    """Whether it names a message: a number, an id, `last`."""
    return word in _NEWEST or word.rpartition(".")[2].isdecimal()


def parse(line: str) -> tuple[Command, Values]:
    """The command of a line that begins with a slash, and its arguments."""
    word, _, rest = line.strip()[1:].partition(" ")
    name = word.lower()
    if name in _FAMILIES:
        second, _, rest = rest.strip().partition(" ")
        name = f"{name} {second.lower()}"
        word = f"{word} {second}".rstrip()
    command = _BY_NAME.get(name)
    if command is None:
        near = get_close_matches(name, _BY_NAME, n=1, cutoff=0.5)
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
        if name in ("PATH", "DIR"):
            word, after = paths.take(rest)
        elif name == "TEXT":
            word, after = rest, ""
        elif optional and (word and not _fits(name, word, after, pattern[at + 1 :])):
            continue
        if not word:
            if optional:
                continue
            raise CommandError(f"{name} is missing: {command.usage}")
        values[name] = _value(command, name, word)
        rest = after.strip()
    if rest:
        raise CommandError(f"too much: {command.usage}")
    return values


def _fits(name: str, word: str, after: str, following: list[str]) -> bool:
    """Whether `word` can be the optional argument `name`, or is the one that follows."""
    if name == "#GROUP":
        return word.startswith("#")
    if name == "N":
        return is_number(word)
    if name == "WHO" and "[LINES]" in following:
        return bool(after) or not word.isdecimal()  # `/history 50` means fifty lines, not somebody called 50
    return name != "WHO" or bool(after) or not following


def _value(command: Command, name: str, word: str) -> str:
    if name == "USER" or (name == "WHO" and not word.startswith("#")):
        return check_name(word.removeprefix("@"))
    if name == "#GROUP" and not word.startswith("#"):
        return f"#{word}"
    if name in ("LINES", "DAYS") and not (word.isascii() and word.isdecimal() and len(word) <= 9):
        raise CommandError(f"{word} is not a number: {command.usage}")
    if name == "DAYS" and int(word) > MAX_HISTORY:
        raise CommandError(f"at most {MAX_HISTORY} days can be given: {command.usage}")
    return word


def help_lines() -> list[str]:
    """The table for people, and the rules that are not in it."""
    width = max(len(command.usage) for command in COMMANDS)
    lines = [f"{command.usage:<{width}}  {command.help}" for command in COMMANDS]
    lines.append(f"{'anything else':<{width}}  is sent to the open conversation; @name calls somebody's attention")
    lines.append(f"{'//text':<{width}}  sends a text that begins with /")
    lines.append(f"{'WHO, USER':<{width}}  WHO is somebody or a #group, USER is somebody; in [ ] what can be left out")
    lines.append(f"{'N':<{width}}  a message, by the number before it; or last")
    return lines
