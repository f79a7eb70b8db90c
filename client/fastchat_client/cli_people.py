"""Who one is and whom one knows, from the command line: whoami, contacts, accept."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path

import click

from fastchat.errors import RequestError
from fastchat.identity.invite import host_and_port
from fastchat_client.cli_options import USER, json_option, shared
from fastchat_client.core import Core
from fastchat_client.events import iso
from fastchat_client.once import progress
from fastchat_client.opening import open_profile
from fastchat_client.terminal.text import clean_line, clock, json_line


@click.command()
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


@click.command()
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


@click.command()
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


COMMANDS = (whoami, contacts, accept)
