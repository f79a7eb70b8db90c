"""The `fastchat` command: what can be typed, and what an error becomes.

Exit codes: 0 done, 1 refused, 2 wrong usage, 75 try later, 130 interrupted. An error that a person or the network can
cause is one line on stderr; a traceback is a mistake of ours.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click
from sqlcipher3 import dbapi2 as sqlcipher  # type: ignore[import-untyped]

from fastchat.errors import Busy, ConfigError, FastChatError, LoginFailed, RequestError, TrustError, Unreachable
from fastchat.identity.invite import Invite, host_and_port
from fastchat.identity.names import check_name
from fastchat_client import cli_conversations, cli_devices, cli_files, cli_messages, cli_people, once
from fastchat_client.cli_groups import group
from fastchat_client.cli_options import WHERE, shared, typed_as
from fastchat_client.entrance import Stage
from fastchat_client.messenger import load_identity, new_facts, prepare
from fastchat_client.naming import conversation_named
from fastchat_client.once import NotYet, progress
from fastchat_client.opening import open_profile, read_password
from fastchat_client.profile import NoProfile, Profile, default_directory
from fastchat_client.running import INTERRUPTED, TRY_LATER, run
from fastchat_client.terminal.text import clean_line


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="fastchat", prog_name="fastchat")
def cli() -> None:
    """Chat that only the people in it can read.

    \b
    Begin with:  fastchat join LINK --as NAME
    then:        fastchat chat
    """


@cli.command()
@click.argument("link")
@click.option("--as", "name", required=True, metavar="NAME", help="Your name: 2 to 32 of a-z 0-9 . _ -")
@click.option(
    "--identity",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="identity.pem of an account you have: this becomes a further device of it.",
)
@shared
def join(link: str, name: str, identity: Path | None, profile_dir: Path | None, password_file: Path | None) -> int:
    """Make an account on the network that LINK invites to."""
    invite = Invite.parse(link)
    check_name(name)
    directory = profile_dir or default_directory() / name
    profile = _begun(directory, name)
    fresh = profile is None or not profile.vault_path.exists()
    if profile is not None:
        profile.go_to(invite)
    password = read_password(password_file, twice=fresh and identity is None)
    own_root = load_identity(identity, password) if identity else None
    profile = profile or Profile.create(directory, new_facts(name, invite))
    with profile.locked():
        if fresh:
            progress("making your keys…")
        try:
            vault, enrolment = prepare(profile, password, invite, own_root)
        except LoginFailed:
            raise LoginFailed(
                f"a profile was half made in {directory}, with another password; nothing was changed"
            ) from None
        try:
            if vault.whoami().registered:
                raise ConfigError(f"{name} has joined already; type: {typed_as('chat', profile_dir)}")
            progress(f"joining {host_and_port(invite.host, invite.port)}…")
            code = run(lambda running: once.join(running, profile, vault, enrolment))
            registered = vault.whoami().registered
        except (RequestError, TrustError):
            # Only what the network has not taken, and will not: an account whose answer was lost would be lost too.
            if Stage(vault.text("registration")) in (Stage.PENDING, Stage.ENROLLING):
                vault.close()
                profile.remove()
            raise
        finally:
            vault.close()
    if registered and code == 0:
        click.echo(f"Welcome, {name}. Your keys are in {directory}; without them or your password nobody gets in.")
        click.echo(f"Next: {typed_as('chat', profile_dir)}")
    return code


def _begun(directory: Path, name: str) -> Profile | None:
    """The profile of an earlier `join` that did not come to its end."""
    try:
        profile = Profile.load(directory)
    except NoProfile:
        return None
    if profile.facts.user != name:
        raise ConfigError(
            f"{directory} is the profile of {profile.facts.user}; choose another folder with --profile DIR"
        )
    return profile


@cli.command()
@click.argument("who", type=WHERE, required=False)
@click.option("--plain", is_flag=True, help="Lines in, lines out: for pipes, screen readers and dumb terminals.")
@shared
def chat(who: str | None, plain: bool, profile_dir: Path | None, password_file: Path | None) -> int:
    """Talk, with WHO (somebody or a '#group') to begin with."""
    plain = plain or not (sys.stdin.isatty() and sys.stdout.isatty()) or os.environ.get("TERM", "dumb") == "dumb"
    with open_profile(profile_dir, password_file) as opened, opened.profile.locked():
        # Only now: what this imports belongs to the reactor that the terminal needs.
        if plain:
            from fastchat_client.terminal.chat import plain_chat as talk
        else:
            from fastchat_client.terminal.chat import chat as talk
        conversation = conversation_named(opened.vault, who) if who else None
        return run(lambda running: talk(running, opened.profile, opened.vault, conversation), on_asyncio=not plain)


for _module in (cli_messages, cli_files, cli_conversations, cli_people, cli_devices):
    for _command in _module.COMMANDS:
        cli.add_command(_command)
cli.add_command(group)


# --- the way out ---------------------------------------------------------------------------------------------------


def main() -> None:
    """The console script."""
    sys.exit(run_cli(sys.argv[1:]))


def run_cli(arguments: list[str]) -> int:
    """Run one command; its exit code."""
    try:
        result = cli.main(args=arguments, prog_name="fastchat", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except click.exceptions.Exit as error:
        return error.exit_code
    except click.Abort:
        click.echo("", err=True)
        return INTERRUPTED
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED
    except FastChatError as error:
        return _refuse(error.message, TRY_LATER if isinstance(error, NotYet | Busy | Unreachable) else 1)
    except BrokenPipeError:
        # Whoever read our output has gone; nothing can be said to them any more, not even at the interpreter's end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except sqlcipher.Error as error:
        return _refuse(f"the vault cannot be used now: {error}; what was committed is kept", 1)
    except OSError as error:
        return _refuse(f"{error.filename or 'this machine'}: {error.strerror or error}", 1)


def _refuse(message: str, code: int) -> int:
    click.echo(f"fastchat: {clean_line(message)}", err=True)
    return code
