"""What the commands of the command line share: options, kinds of argument, and how a command is named to people.

It knows no command.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from fastchat.errors import RequestError
from fastchat.identity.names import check_name

F = TypeVar("F", bound=Callable[..., Any])


def shared(command: F) -> F:
    """What every command takes."""
    command = click.option(
        "--profile",
        "profile_dir",
        type=click.Path(file_okay=False, path_type=Path),
        envvar="FASTCHAT_PROFILE",
        metavar="DIR",
        help="Folder with your keys and messages. [$FASTCHAT_PROFILE; else one per name in the platform's data folder]",
    )(command)
    return click.option(
        "--password-file",
        type=click.Path(dir_okay=False, path_type=Path),
        envvar="FASTCHAT_PASSWORD_FILE",
        metavar="F",
        help="File whose first line is your password. [$FASTCHAT_PASSWORD_FILE; else you are asked]",
    )(command)


json_option = click.option("--json", "as_json", is_flag=True, help="One JSON object per line, for programs.")


class _User(click.ParamType[str]):
    name = "who"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            return check_name(str(value).removeprefix("@"))
        except RequestError as error:
            self.fail(error.message, param, ctx)


class _Where(click.ParamType[str]):
    """Somebody, or a group: "#" and its name or the beginning of its id. Which one it is, the vault knows."""

    name = "where"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        return str(value) if str(value).startswith("#") else USER.convert(value, param, ctx)


class _Group(click.ParamType[str]):
    """A group, also without its "#", which shells take for the beginning of a comment."""

    name = "group"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        return f"#{str(value).removeprefix('#')}"


USER = _User()
WHERE = _Where()
GROUP = _Group()
timeout_option = click.option(
    "--timeout", "seconds", type=click.FloatRange(min=0), metavar="S", help="Exit 75 if it takes longer."
)


def typed_as(command: str, profile_dir: Path | None) -> str:
    """What to type for this profile, in the way in which this program was called."""
    called = Path(sys.argv[0])
    on_path = called.name != "fastchat" or shutil.which("fastchat") == str(called.absolute())
    given = profile_dir if profile_dir and "FASTCHAT_PROFILE" not in os.environ else None
    return f"{'fastchat' if on_path else called} {command}" + (f" --profile {given}" if given else "")


def writable(text: str) -> str:
    """`text` with a `?` for what stdout's encoding cannot say."""
    encoding = sys.stdout.encoding or "ascii"
    return text.encode(encoding, "replace").decode(encoding)
