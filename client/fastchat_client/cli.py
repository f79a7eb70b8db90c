"""The `fastchat` command: what can be typed, and what an error becomes.

Exit codes: 0 done, 1 refused, 2 wrong usage, 75 try later, 130 interrupted. An error that a person or the network can
cause is one line on stderr; a traceback is a mistake of ours.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec
from sqlcipher3 import dbapi2 as sqlcipher  # type: ignore[import-untyped]

from fastchat.errors import Busy, ConfigError, FastChatError, LoginFailed, RequestError, TrustError, Unreachable
from fastchat.identity.invite import Invite, host_and_port
from fastchat.identity.names import check_name
from fastchat_client import once
from fastchat_client.core import Core, check_text
from fastchat_client.entrance import Stage
from fastchat_client.events import iso
from fastchat_client.messenger import load_identity, new_facts, prepare
from fastchat_client.once import NotYet, progress
from fastchat_client.opening import open_profile, read_password
from fastchat_client.profile import NoProfile, Profile, ProfileInUse, default_directory
from fastchat_client.running import INTERRUPTED, TRY_LATER, run
from fastchat_client.terminal import render
from fastchat_client.terminal.text import clean_line, clock, json_line, look_of

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


USER = _User()


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
                raise ConfigError(f"{name} has joined already; type: {_command('chat', profile_dir)}")
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
        click.echo(f"Next: {_command('chat', profile_dir)}")
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


@cli.command()
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


@cli.command()
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
                click.echo(_writable(render.plain(render.history(item, now, look, device))))
        if not items:
            progress(f"no messages with {who}")
    return 0


@cli.command()
@json_option
@shared
def whoami(as_json: bool, profile_dir: Path | None, password_file: Path | None) -> int:
    """Print who you are. Needs no network."""
    with open_profile(profile_dir, password_file) as opened:
        me, facts = opened.vault.whoami(), opened.profile.facts
        fields = {
            "user": me.user,
            "device": me.device,
            "root": me.fingerprint,
            "network": host_and_port(facts.host, facts.port),
            "profile": str(opened.profile.directory),
            "registered": me.registered,
        }
    if as_json:
        click.echo(json_line(fields))
        return 0
    fields["registered"] = "yes" if me.registered else "not yet: type the join command again"
    for label, value in fields.items():
        click.echo(f"{label:<11} {value}")
    return 0


@cli.command()
@json_option
@shared
def contacts(as_json: bool, profile_dir: Path | None, password_file: Path | None) -> int:
    """Print whom you know: their key's fingerprint, unread messages, the last one's time. Needs no network."""
    with open_profile(profile_dir, password_file) as opened:
        known = {contact.user: contact for contact in opened.vault.contacts()}
        talked = {conversation.user: conversation for conversation in opened.vault.conversations()}
    for user in sorted({*known, *talked}):
        contact, conversation = known.get(user), talked.get(user)
        fields = {
            "user": user,
            "root": contact.fingerprint if contact else "",
            "changed_to": contact.changed_to if contact else "",
            "unread": conversation.unread if conversation else 0,
            "last": iso(conversation.last_at) if conversation else "",
        }
        if as_json:
            click.echo(json_line(fields))
            continue
        last = clock(conversation.last_at, datetime.now(UTC)) if conversation else "never"
        click.echo(f"{clean_line(user):<16} unread {fields['unread']:<4} last {last}")
        click.echo(f"  key {fields['root'] or 'not known yet'}")
        if fields["changed_to"]:
            click.echo(f"  NOW {fields['changed_to']}: ask {user} in another way, then: fastchat accept {user}")
    if not known and not talked:
        progress("you know nobody yet; fastchat send WHO TEXT writes to somebody")
    return 0


@cli.command()
@click.argument("who", type=USER)
@click.option("--yes", is_flag=True, help="Do not ask.")
@shared
def accept(who: str, yes: bool, profile_dir: Path | None, password_file: Path | None) -> int:
    """Believe the changed RSA key of WHO. Ask them in another way first whether it is theirs."""
    with open_profile(profile_dir, password_file) as opened, opened.profile.locked():
        contact = next((one for one in opened.vault.contacts() if one.user == who), None)
        if contact is None or not contact.changed_to:
            raise RequestError(f"the key of {who} has not changed; there is nothing to accept")
        click.echo(f"before: {contact.fingerprint}\nnow:    {contact.changed_to}", err=True)
        if not yes and sys.stdin.isatty():
            click.confirm(f"Is the second one really the key of {who}?", abort=True, err=True)
        Core(opened.vault).accept_root(who)
    click.echo(f"The new key of {who} is accepted; what had to wait goes on at the next connection.")
    return 0


@cli.command()
@click.argument("who", type=USER, required=False)
@click.option("--plain", is_flag=True, help="Lines in, lines out: for pipes, screen readers and dumb terminals.")
@shared
def chat(who: str | None, plain: bool, profile_dir: Path | None, password_file: Path | None) -> int:
    """Talk, with WHO to begin with."""
    plain = plain or not (sys.stdin.isatty() and sys.stdout.isatty()) or os.environ.get("TERM", "dumb") == "dumb"
    with open_profile(profile_dir, password_file) as opened, opened.profile.locked():
        # Only now: what this imports belongs to the reactor that the terminal needs.
        if plain:
            from fastchat_client.terminal.chat import plain_chat as talk
        else:
            from fastchat_client.terminal.chat import chat as talk
        return run(lambda running: talk(running, opened.profile, opened.vault, who), on_asyncio=not plain)


# --- for people -----------------------------------------------------------------------------------------------------


def _command(command: str, profile_dir: Path | None) -> str:
    """What to type for this profile, in the way in which this program was called."""
    called = Path(sys.argv[0])
    on_path = called.name != "fastchat" or shutil.which("fastchat") == str(called.absolute())
    given = profile_dir if profile_dir and "FASTCHAT_PROFILE" not in os.environ else None
    return f"{'fastchat' if on_path else called} {command}" + (f" --profile {given}" if given else "")


def _writable(text: str) -> str:
    encoding = sys.stdout.encoding or "ascii"
    return text.encode(encoding, "replace").decode(encoding)


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
