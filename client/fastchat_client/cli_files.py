"""Files from the command line: how `send` sends them, fetch, transfers, autofetch."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any

import click

from fastchat.errors import RequestError
from fastchat_client import files, settings
from fastchat_client.cli_options import json_option, shared, timeout_option, writable
from fastchat_client.errands import catch_up
from fastchat_client.file_errands import Files, Wanted, carry_out
from fastchat_client.files import StoredFile
from fastchat_client.groups import group_list
from fastchat_client.messenger import Messenger
from fastchat_client.naming import conversation_named, message_named
from fastchat_client.once import progress, say
from fastchat_client.opening import Opened, open_profile
from fastchat_client.pictures import warning_about
from fastchat_client.running import Running, run
from fastchat_client.sizes import bytes_of, written
from fastchat_client.terminal import render_files
from fastchat_client.terminal.bars import bars_for
from fastchat_client.terminal.files import transfer_named
from fastchat_client.terminal.group_words import Labels
from fastchat_client.terminal.text import clean_line, json_line
from fastchat_client.vault import Vault

MOST = 1000
"""Files of a conversation that --all looks at."""
_MESSAGE_ID = re.compile(r"[0-9a-f]{4,32}\.[0-9]{1,16}\Z", re.IGNORECASE)


def send_files(opened: Opened, wanted: Wanted, as_json: bool, seconds: float | None) -> int:
    """What `send --file` does; its exit code."""
    for path in wanted.paths if wanted.original else ():
        if told := warning_about(path):
            say(f"{path.name}: {render_files.warning(told)}")

    def main(running: Running, connects: bool) -> Coroutine[Any, Any, int]:
        return _files(running, opened, as_json).send(wanted, seconds, connects=connects)

    return carry_out(opened.profile, main)


def _files(running: Running, opened: Opened, as_json: bool) -> Files:
    bars = bars_for(as_json, sys.stdout, sys.stderr)

    def saved(path: str) -> None:
        if not as_json:
            print(writable(clean_line(path)), flush=True)

    return Files(running, opened.profile, opened.vault, bars, saved)


@click.command()
@click.argument("who", required=False)
@click.argument("message_id", metavar="[ID]", required=False)
@click.option(
    "--to",
    "directory",
    type=click.Path(exists=True, file_okay=False, writable=True, path_type=Path),
    default=".",
    metavar="DIR",
    help="Where it is saved; here, if not said. What is there already is never overwritten.",
)
@click.option("--all", "every", is_flag=True, help="Everything that WHO has sent and that was not saved yet.")
@json_option
@timeout_option
@shared
def fetch(
    who: str | None,
    message_id: str | None,
    directory: Path,
    every: bool,
    as_json: bool,
    seconds: float | None,
    profile_dir: Path | None,
    password_file: Path | None,
) -> int:
    """Save the file of the message ID (history --ids shows them), or the newest one of WHO, somebody or a '#group', and
    print where. What breaks off goes on where it was."""
    with open_profile(profile_dir, password_file) as opened:
        where = Path(os.path.abspath(directory))
        is_named = message_id is not None or (who is not None and _is_message(opened.vault, who))
        if is_named:
            wanted = _wanted(opened, who, message_id, every)
            if not _left(wanted, where, as_json):
                return 0

        async def main(running: Running, connects: bool) -> int:
            if connects and not is_named:
                await catch_up(running, opened.profile, opened.vault, seconds)  # the newest may have come just now
            left = wanted if is_named else _left(_wanted(opened, who, message_id, every), where, as_json)
            messages = [one.message for one in left]
            return (
                await _files(running, opened, as_json).fetch(messages, where, seconds, connects=connects) if left else 0
            )

        return carry_out(opened.profile, main)


def _left(wanted: Sequence[StoredFile], where: Path, as_json: bool) -> list[StoredFile]:
    """Those that are to be fetched; of those that are in `where` already it is said where."""
    left = [one for one in wanted if not _is_there(one, where)]
    for one in wanted:
        if one not in left and not as_json:
            click.echo(writable(clean_line(one.path)))
    if not left:
        progress("it is here already" if wanted else "nothing is left to be fetched")
    return left


def _wanted(opened: Opened, who: str | None, message_id: str | None, every: bool) -> list[StoredFile]:
    """The files that are meant. Raises `RequestError`."""
    vault = opened.vault
    if message_id is not None or (who is not None and _is_message(vault, who)):
        if every:
            raise click.UsageError("either a message or --all")
        stored = files.stored_file(vault, message_named(vault, message_id or who or ""))
        if stored is None:
            raise RequestError(f"message {message_id or who} brings no file")
        return [stored]
    if who is not None:
        found = files.files_of(vault, conversation_named(vault, who), MOST)
    else:
        found = [one for each in vault.conversations() for one in files.files_of(vault, each.user, MOST)]
    theirs = [one for one in found if not one.own]
    if every:
        # What was fetched by itself is not where anybody has wanted it.
        kept = os.path.abspath(opened.profile.directory / "files")
        return [one for one in theirs if not one.path or os.path.dirname(os.path.abspath(one.path)) == kept]
    if not theirs:
        raise RequestError(f"there is no file {f'in the conversation with {who}' if who else 'in any conversation'}")
    return theirs[:1]


def _is_there(one: StoredFile, where: Path) -> bool:
    """Whether it was saved in `where`, and still is, as far as its size tells."""
    try:
        return bool(one.path) and Path(one.path).parent == where and os.path.getsize(one.path) == one.file.size
    except OSError:
        return False


def _is_message(vault: Vault, word: str) -> bool:
    """Whether it is a message's id, and no conversation of that name."""
    return bool(_MESSAGE_ID.match(word)) and all(each.user != word for each in vault.conversations())


@click.command()
@click.option("--resume", is_flag=True, help="Connect, and go on with all of them until they are done.")
@click.option("--cancel", "cancelled", metavar="ID", help="Stop this one for good.")
@json_option
@timeout_option
@shared
def transfers(
    resume: bool,
    cancelled: str | None,
    as_json: bool,
    seconds: float | None,
    profile_dir: Path | None,
    password_file: Path | None,
) -> int:
    """Print which files are on their way and how far they have come. They go on whenever FastChat runs."""
    with open_profile(profile_dir, password_file) as opened:
        if resume and cancelled:
            raise click.UsageError("either --resume or --cancel")
        if resume:

            def main(running: Running, connects: bool) -> Coroutine[Any, Any, int]:
                return _files(running, opened, as_json).resume(seconds, connects=connects)

            return carry_out(opened.profile, main)
        return run(lambda running: _transfers(running, opened, cancelled, as_json))


async def _transfers(running: Running, opened: Opened, cancelled: str | None, as_json: bool) -> int:
    # Not started: it connects nowhere, and another process may be connected meanwhile.
    messenger = Messenger(opened.profile, opened.vault, running.reactor, lambda events: None)
    try:
        under_way = messenger.transfers()
        if cancelled is not None:
            one = transfer_named(under_way, cancelled)
            messenger.cancel(one.attachment)
            click.echo(writable(f"{clean_line(one.name)} is not {'sent' if one.up else 'fetched'}."))
            return 0
        labels = Labels(group_list(opened.vault))
        lines = render_files.transfers(under_way, {one.conversation: labels[one.conversation] for one in under_way})
        for line in map(json_line, under_way) if as_json else map(writable, lines):
            click.echo(line)
        if not under_way:
            progress("no file is on its way")
        return 0
    finally:
        await messenger.stop()


@click.command()
@click.argument("size", required=False)
@shared
def autofetch(size: str | None, profile_dir: Path | None, password_file: Path | None) -> int:
    """Up to which SIZE (500kB, 5MB) a file is fetched by itself while chat or listen runs; off: none is. Without SIZE,
    print it. Needs no network."""
    with open_profile(profile_dir, password_file) as opened:
        if size is not None:
            settings.set_auto_download(opened.vault, bytes_of(size))
        now = settings.auto_download(opened.vault)
    click.echo(f"Files up to {written(now)} are fetched by themselves." if now else "No file is fetched by itself.")
    return 0


COMMANDS = (fetch, transfers, autofetch)
