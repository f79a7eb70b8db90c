"""What people write and read from the command line: send, listen, history."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path

import click
import msgspec

from fastchat_client import once
from fastchat_client.cli_options import USER, json_option, shared, writable
from fastchat_client.core import check_text
from fastchat_client.events import iso
from fastchat_client.once import progress
from fastchat_client.opening import open_profile
from fastchat_client.profile import ProfileInUse
from fastchat_client.running import run
from fastchat_client.terminal import render
from fastchat_client.terminal.text import json_line, look_of


@click.command()
@click.argument("who", type=USER)
@click.argument("text", required=False)
@click.option("--timeout", "seconds", type=click.FloatRange(min=0), metavar="S", help="Exit 75 if it takes longer.")
@shared
def send(
    who: str, text: str | None, seconds: float | None, profile_dir: Path | None, password_file: Path | None
) -> int:
    """Send TEXT (or what comes on stdin, if it is - or left out) to WHO; done once it cannot be lost any more."""
    if (text is None or text == "-") and sys.stdin.isatty():
        progress("type your message; Ctrl-D ends it")
    if text is None or text == "-":
        text = sys.stdin.buffer.read().decode("utf-8", "replace").removesuffix("\n")
    if not text.strip():
        raise click.UsageError("there is no text to send")
    check_text(who, text)
    with open_profile(profile_dir, password_file) as opened:
        if who == opened.profile.facts.user:
            raise click.UsageError("that is you")
        try:
            with opened.profile.locked():
                return run(lambda running: once.send(running, opened.profile, opened.vault, who, text, seconds))
        except ProfileInUse:
            return run(lambda running: once.send_through_other(running, opened.vault, who, text, seconds))


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
        return run(lambda running: once.listen(running, opened.profile, opened.vault, as_json, count, seconds))


@click.command()
@click.argument("who", type=USER)
@json_option
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True, metavar="N", help="The last N.")
@shared
def history(who: str, as_json: bool, limit: int, profile_dir: Path | None, password_file: Path | None) -> int:
    """Print the messages with WHO. Needs no network."""
    with open_profile(profile_dir, password_file) as opened:
        items = opened.vault.history(who, limit)
        device, look, now = opened.vault.whoami().device, look_of(sys.stdout), datetime.now(UTC)
        for item in items:
            if as_json:
                click.echo(json_line({**msgspec.to_builtins(item), "at": iso(item.at)}))
            else:
                click.echo(writable(render.plain(render.history(item, now, look, device))))
        if not items:
            progress(f"no messages with {who}")
    return 0
