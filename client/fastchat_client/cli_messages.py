"""What people write and read from the command line: send, listen, history, and what is said of single messages."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import click
import msgspec

from fastchat_client import listening, speaking
from fastchat_client.cli_files import send_files
from fastchat_client.cli_options import WHERE, json_option, shared, timeout_option, writable
from fastchat_client.errands import Errand, carry_out, outgoing
from fastchat_client.events import State, iso
from fastchat_client.file_errands import Wanted
from fastchat_client.marking import marks_of, reactions_of
from fastchat_client.naming import conversation_named, message, message_named, short_id
from fastchat_client.once import progress
from fastchat_client.opening import Opened, open_profile
from fastchat_client.running import run
from fastchat_client.terminal import render, render_files
from fastchat_client.terminal.text import clean_line, clock, json_line, look_of
from fastchat_client.vault import Vault


@click.command()
@click.argument("who", type=WHERE)
@click.argument("text", required=False)
@click.option("--reply", "answered", metavar="ID", help="The message that it answers; history --ids shows them.")
@click.option(
    "--file",
    "paths",
    type=click.Path(path_type=Path),
    multiple=True,
    metavar="PATH",
    help="A file or a picture to go with it; may be given more than once.",
)
@click.option("--original", is_flag=True, help="Pictures as they are, also the place and the time that stand in them.")
@json_option
@timeout_option
@shared
def send(
    who: str,
    text: str | None,
    answered: str | None,
    paths: tuple[Path, ...],
    original: bool,
    as_json: bool,
    seconds: float | None,
    profile_dir: Path | None,
    password_file: Path | None,
) -> int:
    """Send TEXT (or what comes on stdin, if it is - or left out) to WHO, somebody or a '#group'; done once it cannot
    be lost any more. With --file, a file or a picture, and TEXT with it; what breaks off goes on where it was."""
    if not paths and (original or as_json):
        raise click.UsageError("--original and --json are for --file")
    text = _text(text) if not paths or text == "-" else text or ""
    if not who.startswith("#") and text:
        speaking.check_text(who, text)
    with open_profile(profile_dir, password_file) as opened:
        vault = opened.vault
        if who == opened.profile.facts.user:
            raise click.UsageError("that is you")

        if paths:
            reply = message_named(vault, answered) if answered else ""
            return send_files(opened, Wanted(who, paths, text, reply, original), as_json, seconds)

        def compose(to: str) -> Errand:
            reply = message_named(vault, answered) if answered else ""
            return outgoing(vault, speaking.compose_text(vault, to, text, _now(), reply), to)

        return carry_out(opened.profile, vault, who, compose, seconds)


def _text(text: str | None) -> str:
    """What is to be said, from the command line or from stdin."""
    if (text is None or text == "-") and sys.stdin.isatty():
        progress("type your message; Ctrl-D ends it")
    if text is None or text == "-":
        text = sys.stdin.buffer.read().decode("utf-8", "replace").removesuffix("\n")
    if not text.strip():
        raise click.UsageError("there is no text to send")
    return text


@click.command()
@json_option
@click.option("--count", type=click.IntRange(min=1), metavar="N", help="End after N messages.")
@click.option("--for", "seconds", type=click.FloatRange(min=0), metavar="S", help="End after S seconds.")
@shared
def listen(
    as_json: bool, count: int | None, seconds: float | None, profile_dir: Path | None, password_file: Path | None
) -> int:
    """Print what you have not read, and messages as they come; what was printed counts as read.

    Exit code 75 if fewer than --count came within --for."""
    with open_profile(profile_dir, password_file) as opened, opened.profile.locked():
        return run(lambda running: listening.listen(running, opened.profile, opened.vault, as_json, count, seconds))


@click.command()
@click.argument("who", type=WHERE)
@json_option
@click.option("--ids", is_flag=True, help="With each message's id, which react, reply, edit and delete take.")
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True, metavar="N", help="The last N.")
@shared
def history(
    who: str, as_json: bool, ids: bool, limit: int, profile_dir: Path | None, password_file: Path | None
) -> int:
    """Print the messages with WHO, somebody or a '#group'. Needs no network."""
    with open_profile(profile_dir, password_file) as opened:
        vault = opened.vault
        items = vault.history(conversation_named(vault, who), limit)
        me, look, now = vault.whoami(), look_of(sys.stdout), datetime.now(UTC)
        for item in items:
            if as_json:
                marks = [{"from": user, "emoji": emoji} for user, emoji in reactions_of(vault, item.id)]
                fields = {**msgspec.to_builtins(item), "at": iso(item.at)}
                click.echo(json_line({**fields, "reactions": marks} if marks else fields))
                continue
            quote = _quote(vault, item.reply, item.conversation) if item.reply else ""
            text = render_files.said(item.file, item.text, look)
            file = f"(fastchat fetch {short_id(item.id)})" if item.file is not None and not item.own else ""
            signs = reactions_of(vault, item.id)
            line = render.history(item, now, look, me, quote=quote, reactions=signs, text=text, file=file)
            click.echo(writable(render.plain(line)[render.MARGIN :]) + (f"  [{item.id}]" if ids else ""))
        if not items:
            progress(f"no messages with {who}")
    return 0


def _quote(vault: Vault, message_id: str, conversation: str) -> str:
    """Never words of another conversation, of which whoever answers knows no more than the number."""
    item = message(vault, message_id)
    is_here = item is not None and item.conversation == conversation
    text = render_files.said(item.file, item.text, look_of(sys.stdout)) if item is not None and is_here else ""
    return text or "an earlier message"


# --- of single messages ----------------------------------------------------------------------------------------------


@click.command()
@click.argument("message_id", metavar="ID")
@click.argument("emoji")
@click.option("--remove", is_flag=True, help="Take it back.")
@timeout_option
@shared
def react(
    message_id: str,
    emoji: str,
    remove: bool,
    seconds: float | None,
    profile_dir: Path | None,
    password_file: Path | None,
) -> int:
    """Put a sign on the message ID; history --ids shows them."""
    with open_profile(profile_dir, password_file) as opened:
        vault = opened.vault
        return _say_of(
            opened, message_id, seconds, lambda named: speaking.compose_reaction(vault, named, emoji, remove, _now())
        )


@click.command()
@click.argument("message_id", metavar="ID")
@click.argument("text", required=False)
@timeout_option
@shared
def reply(
    message_id: str, text: str | None, seconds: float | None, profile_dir: Path | None, password_file: Path | None
) -> int:
    """Answer the message ID with TEXT, where it was written."""
    text = _text(text)
    with open_profile(profile_dir, password_file) as opened:
        vault = opened.vault

        def compose(named: str) -> str:
            return speaking.compose_text(vault, _conversation(vault, named), text, _now(), named)

        return _say_of(opened, message_id, seconds, compose)


@click.command()
@click.argument("message_id", metavar="ID")
@click.argument("text", required=False)
@timeout_option
@shared
def edit(
    message_id: str, text: str | None, seconds: float | None, profile_dir: Path | None, password_file: Path | None
) -> int:
    """Let your message ID say TEXT instead."""
    text = _text(text)
    with open_profile(profile_dir, password_file) as opened:
        vault = opened.vault
        return _say_of(opened, message_id, seconds, lambda named: speaking.compose_edit(vault, named, text, _now()))


@click.command()
@click.argument("message_id", metavar="ID")
@click.option("--yes", is_flag=True, help="Do not ask.")
@timeout_option
@shared
def delete(
    message_id: str, yes: bool, seconds: float | None, profile_dir: Path | None, password_file: Path | None
) -> int:
    """Delete your message ID, for everyone."""
    with open_profile(profile_dir, password_file) as opened:
        vault = opened.vault
        item = message(vault, message_named(vault, message_id))
        if not yes and sys.stdin.isatty() and item is not None:
            click.confirm(f'Delete "{clean_line(item.text, 60)}" for everyone?', abort=True, err=True)
        return _say_of(opened, message_id, seconds, lambda named: speaking.compose_delete(vault, named, _now()))


@click.command()
@click.argument("message_id", metavar="ID")
@json_option
@shared
def receipts(message_id: str, as_json: bool, profile_dir: Path | None, password_file: Path | None) -> int:
    """Print who has your message ID, and who has read it. Needs no network."""
    with open_profile(profile_dir, password_file) as opened:
        now = datetime.now(UTC)
        for mark in marks_of(opened.vault, message_named(opened.vault, message_id)):
            if as_json:
                click.echo(json_line({"user": mark.user, "state": mark.state, "at": iso(mark.at) if mark.at else ""}))
                continue
            when = clock(mark.at, now) if mark.at else "not said to be there yet" * (mark.state == State.ACCEPTED)
            click.echo(f"{clean_line(mark.user):<16} {mark.state:<10} {when}".rstrip())
    return 0


def _say_of(opened: Opened, message_id: str, seconds: float | None, compose: Callable[[str], str]) -> int:
    """Say something of a message, and wait until it cannot be lost any more. `compose` gets the message's id, and gives
    that of what goes out."""
    vault = opened.vault
    named = message_named(vault, message_id)

    def errand(_: str) -> Errand:
        return outgoing(vault, compose(named), _conversation(vault, named))

    return carry_out(opened.profile, vault, "", errand, seconds)


def _conversation(vault: Vault, message_id: str) -> str:
    item = message(vault, message_id)
    return item.conversation if item is not None else ""


def _now() -> int:
    return round(time.time() * 1000)


COMMANDS = (send, listen, history, react, reply, edit, delete, receipts)
