"""The devices of one's own account, from the command line: devices, revoke."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import click

from fastchat.errors import RequestError, TrustError
from fastchat.identity import links
from fastchat.identity.links import AddDevice, RevokeDevice
from fastchat.identity.root import RootKey
from fastchat_client.cli_options import json_option, shared, typed_as
from fastchat_client.events import Disconnected, Event, LogAlarm, Revocation, iso
from fastchat_client.messenger import Messenger, load_identity
from fastchat_client.once import Ending, NotYet, problem_of, progress, until
from fastchat_client.opening import Opened, open_profile
from fastchat_client.running import Running, run
from fastchat_client.terminal.text import clock, json_line
from fastchat_client.trust import Accounts
from fastchat_client.vault import Vault

LEAST_DIGITS = 6
"""Of a device's id, to name it by."""
REVOKE_SECONDS = 60.0


class OwnDevice(NamedTuple):
    """Times are milliseconds since 1970, by the clock of the device that signed; `revoked`: None if it is not."""

    device: str
    added: int
    revoked: int | None


@click.command()
@json_option
@shared
def devices(as_json: bool, profile_dir: Path | None, password_file: Path | None) -> int:
    """Print the devices of your account, as far as this one knows. Needs no network."""
    with open_profile(profile_dir, password_file) as opened:
        this, known = opened.vault.whoami().device, own_devices(opened.vault)
    for one in known:
        if as_json:
            revoked = "" if one.revoked is None else iso(one.revoked)
            fields = {"device": one.device, "added": iso(one.added), "this": one.device == this, "revoked": revoked}
            click.echo(json_line(fields))
            continue
        now = datetime.now(UTC)
        words = "  this one" if one.device == this else ""
        if one.revoked is not None:
            words += f"  REVOKED {clock(one.revoked, now)}"
        click.echo(f"{one.device}  added {clock(one.added, now)}{words}")
    return 0


@click.command()
@click.argument("device")
@click.option("--yes", is_flag=True, help="Do not ask.")
@shared
def revoke(device: str, yes: bool, profile_dir: Path | None, password_file: Path | None) -> int:
    """Take DEVICE, another one, out of your account for good: because it is lost, or not yours any more.

    DEVICE is its id, or the first six digits of it or more, as "fastchat devices" prints it."""
    with open_profile(profile_dir, password_file) as opened, opened.profile.locked():
        chosen = named(opened.vault, device)
        root = load_identity(opened.profile.identity_path, opened.password)
        click.echo(f"the device {chosen.device}, added {clock(chosen.added, datetime.now(UTC))}", err=True)
        if not yes and sys.stdin.isatty():
            click.confirm("Revoke it? It can never be used with this account again.", abort=True, err=True)
        progress("revoking it…")
        run(lambda running: _revoke(running, opened, root, chosen.device))
    click.echo(f"{chosen.device} is revoked: it is logged out, gets no more messages, and what waited for it is gone.")
    click.echo("The people you write to learn of it within minutes. What it has received already stays on it.")
    click.echo(f"Who has it and knows your password could add another: look at {typed_as('devices', profile_dir)}.")
    return 0


COMMANDS = (devices, revoke)


def own_devices(vault: Vault) -> list[OwnDevice]:
    """All that ever were, in the order in which they were added."""
    found: dict[str, OwnDevice] = {}
    for link in Accounts(vault).links(vault.whoami().user):
        match links.read(link):
            case AddDevice() as added:
                found[added.device] = OwnDevice(added.device, added.at, None)
            case RevokeDevice() as revoked:
                found[revoked.device] = found[revoked.device]._replace(revoked=revoked.at)
    return list(found.values())


def named(vault: Vault, device: str) -> OwnDevice:
    """The one device whose id begins so, if it can be revoked from here. Raises `RequestError`."""
    start = device.lower()
    if len(start) < LEAST_DIGITS:
        raise RequestError(f"give at least the first {LEAST_DIGITS} digits of the device's id")
    found = [one for one in own_devices(vault) if one.device.startswith(start)]
    if not found:
        raise RequestError(f"your account has no device {device}, as far as this one knows")
    if len(found) > 1:
        raise RequestError(f"{len(found)} devices begin with {device}; give more digits")
    if found[0].revoked is not None:
        raise RequestError("this device has been revoked already")
    if found[0].device == vault.whoami().device:
        raise RequestError("this is the device that you are using; revoke it from another one")
    return found[0]


async def _revoke(running: Running, opened: Opened, root: RootKey, device: str) -> int:
    ending = Ending()

    def told(events: list[Event]) -> None:
        for event in events:
            match event:
                case Revocation(code=""):
                    ending(0)
                case Revocation():
                    ending(RequestError(f"{event.reason.rstrip('.')}; the device was not revoked"))
                case LogAlarm(proof=True):
                    ending(TrustError(f"{event.reason}; evidence: {messenger.alarm_file}; the device was not revoked"))
                case Disconnected(retry_in=None):
                    ending(problem_of(event))
                case Disconnected():
                    progress(f"{event.reason}; trying again")

    messenger = Messenger(opened.profile, opened.vault, running.reactor, told)
    messenger.revoke_device(root, device)
    messenger.start()
    late = NotYet("the network has not said that the device is revoked; try again")
    try:
        return await until(running.reactor, REVOKE_SECONDS, ending, lambda: late)
    finally:
        await messenger.stop()
