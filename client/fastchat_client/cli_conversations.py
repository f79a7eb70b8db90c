"""How conversations are kept, from the command line: timer, mute, unmute, block, unblock, presence."""

from __future__ import annotations

import time
from pathlib import Path

import click

from fastchat_client import settings, speaking
from fastchat_client.cli_options import USER, WHERE, shared, timeout_option
from fastchat_client.durations import in_words, seconds_of
from fastchat_client.errands import Errand, carry_out, outgoing
from fastchat_client.naming import conversation_named
from fastchat_client.opening import open_profile


@click.command()
@click.argument("who", type=WHERE)
@click.argument("duration")
@timeout_option
@shared
def timer(who: str, duration: str, seconds: float | None, profile_dir: Path | None, password_file: Path | None) -> int:
    """Let what is written with WHO, somebody or a '#group', from now on go DURATION after its reading: 30s, 5m, 1h, 7d;
    off: it stays."""
    stays = seconds_of(duration)
    with open_profile(profile_dir, password_file) as opened:
        vault = opened.vault

        def compose(to: str) -> Errand:
            return outgoing(vault, speaking.compose_timer(vault, to, stays, round(time.time() * 1000)), to)

        code = carry_out(opened.profile, vault, who, compose, seconds)
    if code == 0:
        what = f"goes {in_words(stays)} after its reading" if stays else "stays"
        click.echo(f"What is written with {who} from now on {what}.")
    return code


@click.command()
@click.argument("who", type=WHERE)
@shared
def mute(who: str, profile_dir: Path | None, password_file: Path | None) -> int:
    """Let what WHO (somebody or a '#group') writes come without a sign, on this device. Needs no network."""
    return _mute(who, True, profile_dir, password_file)


@click.command()
@click.argument("who", type=WHERE)
@shared
def unmute(who: str, profile_dir: Path | None, password_file: Path | None) -> int:
    """Undo mute. Needs no network."""
    return _mute(who, False, profile_dir, password_file)


def _mute(who: str, on: bool, profile_dir: Path | None, password_file: Path | None) -> int:
    with open_profile(profile_dir, password_file) as opened:
        settings.mute(opened.vault, conversation_named(opened.vault, who), on)
    click.echo(f"What is written with {who} comes {'without a sign from now on' if on else 'with a sign again'}.")
    return 0


@click.command()
@click.argument("who", type=USER)
@shared
def block(who: str, profile_dir: Path | None, password_file: Path | None) -> int:
    """Show nothing more of WHO, on this device; they are not told. Needs no network."""
    with open_profile(profile_dir, password_file) as opened:
        settings.block(opened.vault, who, True)
    click.echo(f"You see and hear nothing more of {who}; fastchat unblock {who} undoes it.")
    return 0


@click.command()
@click.argument("who", type=USER)
@shared
def unblock(who: str, profile_dir: Path | None, password_file: Path | None) -> int:
    """Undo block. Needs no network."""
    with open_profile(profile_dir, password_file) as opened:
        settings.block(opened.vault, who, False)
    click.echo(f"You hear again of {who}, from now on.")
    return 0


@click.command()
@click.argument("state", type=click.Choice(["on", "off"]))
@shared
def presence(state: str, profile_dir: Path | None, password_file: Path | None) -> int:
    """Whether others see that you are there, and you that they are. Needs no network."""
    with open_profile(profile_dir, password_file) as opened:
        settings.set_presence(opened.vault, state == "on")
    if state == "on":
        click.echo("Others see when you are there, and you when they are.")
    else:
        click.echo("Nobody sees any more when you are there, nor you when they are.")
    return 0


COMMANDS = (timer, mute, unmute, block, unblock, presence)
