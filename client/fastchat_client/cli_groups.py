"""Groups from the command line: each command has one thing done, waits for it, and says in a line what happened."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import click
import msgspec

from fastchat.errors import FastChatError, RequestError, UnknownGroup, by_code
from fastchat.identity.groups import MAX_HISTORY
from fastchat_client.cli_options import GROUP, USER, json_option, shared, timeout_option
from fastchat_client.commands import HISTORY_DAYS
from fastchat_client.errands import Errand, carry_out
from fastchat_client.group_acting import (
    Act,
    DeleteAct,
    InviteAct,
    JoinAct,
    LeaveAct,
    RemoveAct,
    RenameAct,
    TopicAct,
    act_state,
    compose_act,
    compose_create,
)
from fastchat_client.groups import GroupInfo, group_info, group_list
from fastchat_client.naming import conversation_named
from fastchat_client.once import progress
from fastchat_client.opening import Opened, open_profile
from fastchat_client.terminal import group_words, render, render_groups
from fastchat_client.terminal.group_words import Labels
from fastchat_client.terminal.text import clean_line, json_line
from fastchat_client.vault import Vault


@click.group()
def group() -> None:
    """Groups: make them, invite people, join, leave, and look at them.

    GROUP is a group's name, with or without its #, or the beginning of its id."""


@group.command()
@click.argument("name")
@click.option("--topic", default="", help="What it is about.")
@timeout_option
@shared
def create(name: str, topic: str, seconds: float | None, profile_dir: Path | None, password_file: Path | None) -> int:
    """Make a group called NAME; you become its owner."""
    name = group_words.usable_name(name)
    with open_profile(profile_dir, password_file) as opened:
        vault = opened.vault

        def compose(_: str) -> Errand:
            number, _ = compose_create(vault, name, topic, _now())
            return _errand(vault, number, f"#{name}")

        code = carry_out(opened.profile, vault, "", compose, seconds)
    if code == 0:
        click.echo(f"#{name} is made, and you are its owner.\nNext: fastchat group invite {name} WHO")
    return code


@group.command()
@click.argument("where", metavar="GROUP", type=GROUP)
@click.argument("who", type=USER)
@click.option(
    "--history",
    "days",
    type=click.IntRange(0, MAX_HISTORY),
    default=HISTORY_DAYS,
    show_default=True,
    metavar="DAYS",
    help=f"Of what was said before, which WHO may read too; 0: none; at most {MAX_HISTORY}.",
)
@timeout_option
@shared
def invite(
    where: str, who: str, days: int, seconds: float | None, profile_dir: Path | None, password_file: Path | None
) -> int:
    """Invite WHO to GROUP. All members see the invitation, and how much of the past goes with it."""

    def said(label: str) -> str:
        given = group_words.history_given(days, who)
        return f"{who} is invited to {label}; {given}. {who} types: fastchat group join {label.removeprefix('#')}"

    with open_profile(profile_dir, password_file) as opened:
        return _act(opened, where, lambda _: InviteAct(who, history=days), said, seconds)


@group.command()
@click.argument("where", metavar="GROUP", type=GROUP)
@timeout_option
@shared
def join(where: str, seconds: float | None, profile_dir: Path | None, password_file: Path | None) -> int:
    """Accept the invitation to GROUP."""

    def said(label: str) -> str:
        return f"You are a member of {label}.\nNext: fastchat send '{label}' TEXT"

    with open_profile(profile_dir, password_file) as opened:
        return _act(opened, where, lambda _: JoinAct(), said, seconds)


@group.command()
@click.argument("where", metavar="GROUP", type=GROUP)
@timeout_option
@shared
def leave(where: str, seconds: float | None, profile_dir: Path | None, password_file: Path | None) -> int:
    """Leave GROUP, or decline the invitation to it."""

    def said(label: str) -> str:
        return f"You are not in {label} any more; what is written there from now on is not for you."

    with open_profile(profile_dir, password_file) as opened:
        return _act(opened, where, lambda _: LeaveAct(), said, seconds)


@group.command()
@click.argument("where", metavar="GROUP", type=GROUP)
@click.argument("who", type=USER)
@timeout_option
@shared
def remove(where: str, who: str, seconds: float | None, profile_dir: Path | None, password_file: Path | None) -> int:
    """Remove WHO from GROUP, or take back the invitation."""

    def said(label: str) -> str:
        return f"{who} is removed from {label}; what is written there from now on is not for them."

    with open_profile(profile_dir, password_file) as opened:
        return _act(opened, where, lambda _: RemoveAct(who), said, seconds)


@group.command()
@click.argument("where", metavar="GROUP", type=GROUP)
@click.argument("who", type=USER)
@timeout_option
@shared
def promote(where: str, who: str, seconds: float | None, profile_dir: Path | None, password_file: Path | None) -> int:
    """Make WHO more in GROUP: a member an admin, an admin an owner."""
    with open_profile(profile_dir, password_file) as opened:
        return _change_role(opened, where, who, True, seconds)


@group.command()
@click.argument("where", metavar="GROUP", type=GROUP)
@click.argument("who", type=USER)
@timeout_option
@shared
def demote(where: str, who: str, seconds: float | None, profile_dir: Path | None, password_file: Path | None) -> int:
    """Make WHO less in GROUP: an owner an admin, an admin a member."""
    with open_profile(profile_dir, password_file) as opened:
        return _change_role(opened, where, who, False, seconds)


@group.command()
@click.argument("where", metavar="GROUP", type=GROUP)
@click.argument("name")
@timeout_option
@shared
def rename(where: str, name: str, seconds: float | None, profile_dir: Path | None, password_file: Path | None) -> int:
    """Call GROUP NAME from now on."""
    name = group_words.usable_name(name)
    with open_profile(profile_dir, password_file) as opened:
        return _act(opened, where, lambda _: RenameAct(name), lambda _: f"The group is called #{name} now.", seconds)


@group.command()
@click.argument("where", metavar="GROUP", type=GROUP)
@click.argument("text")
@timeout_option
@shared
def topic(where: str, text: str, seconds: float | None, profile_dir: Path | None, password_file: Path | None) -> int:
    """Say what GROUP is about."""
    with open_profile(profile_dir, password_file) as opened:
        return _act(opened, where, lambda _: TopicAct(text), lambda label: f"{label} has the new topic.", seconds)


@group.command()
@click.argument("where", metavar="GROUP", type=GROUP)
@click.option("--yes", is_flag=True, help="Do not ask.")
@timeout_option
@shared
def delete(where: str, yes: bool, seconds: float | None, profile_dir: Path | None, password_file: Path | None) -> int:
    """Delete GROUP, for everyone and for good."""
    with open_profile(profile_dir, password_file) as opened:
        if not yes and sys.stdin.isatty():
            click.confirm(f"Delete {clean_line(where)} for everyone and for good?", abort=True, err=True)

        def said(label: str) -> str:
            return f"{label} is deleted; what was written there stays with those who have it."

        return _act(opened, where, lambda _: DeleteAct(), said, seconds)


@group.command("list")
@json_option
@shared
def list_(as_json: bool, profile_dir: Path | None, password_file: Path | None) -> int:
    """Print your groups, and those that you are invited to. Needs no network."""
    with open_profile(profile_dir, password_file) as opened:
        infos, conversations = group_list(opened.vault), opened.vault.conversations()
        if as_json:
            unread = {conversation.user: conversation.unread for conversation in conversations}
            for info in infos:
                click.echo(json_line({**_fields(info), "unread": unread.get(info.conversation, 0)}))
        elif infos:
            for line in render_groups.groups(Labels(infos), conversations):
                click.echo(render.plain(line))
        else:
            progress("you are in no group yet; fastchat group create NAME makes one")
    return 0


@group.command()
@click.argument("where", metavar="GROUP", type=GROUP)
@json_option
@shared
def show(where: str, as_json: bool, profile_dir: Path | None, password_file: Path | None) -> int:
    """Print who is in GROUP, who is invited, and what it is about. Needs no network."""
    with open_profile(profile_dir, password_file) as opened:
        info = _info(opened.vault, conversation_named(opened.vault, where))
        if as_json:
            click.echo(json_line(_fields(info)))
            return 0
        for line in render_groups.group(info, Labels(group_list(opened.vault))[info.conversation]):
            click.echo(render.plain(line))
    return 0


def _fields(info: GroupInfo) -> dict[str, object]:
    """A group as JSON: members and invitations as objects."""
    return {
        **msgspec.to_builtins(info),
        "members": [{"user": user, "role": role} for user, role in info.members],
        "invited": [{"user": user, "by": by} for user, by in info.invited],
    }


# --- acts ------------------------------------------------------------------------------------------------------------


def _act(
    opened: Opened, where: str, act_on: Callable[[str], Act], said: Callable[[str], str], seconds: float | None
) -> int:
    """Have it done to the group, and say so. `act_on` gets the conversation, `said` the group's label."""
    vault = opened.vault
    labels: list[str] = []

    def compose(conversation: str) -> Errand:
        labels.append(Labels(group_list(vault))[conversation])
        return _errand(vault, compose_act(vault, conversation, act_on(conversation), _now()), labels[-1])

    code = carry_out(opened.profile, vault, where, compose, seconds)
    if code == 0:
        click.echo(said(labels[-1]))
    return code


def _change_role(opened: Opened, where: str, who: str, up: bool, seconds: float | None) -> int:
    roles: list[str] = []

    def act_on(conversation: str) -> Act:
        act = group_words.role_changed(_info(opened.vault, conversation), who, up=up)
        roles.append(act.role)
        return act

    def said(label: str) -> str:
        return f"{who} is {group_words.WITH_ARTICLE[roles[-1]]} of {label} now."

    return _act(opened, where, act_on, said, seconds)


def _info(vault: Vault, conversation: str) -> GroupInfo:
    info = group_info(vault, conversation)
    if info is None:
        raise UnknownGroup("nothing is known of this group yet")
    return info


def _errand(vault: Vault, number: int, label: str) -> Errand:
    """The act of this number, until it is done or refused."""

    def outcome() -> int | FastChatError | None:
        state = act_state(vault, number)
        if state.failed:
            kind = by_code(state.code)
            words = group_words.refused(state.code, state.reason, label)
            return kind(words) if issubclass(kind, RequestError) else RequestError(words)
        return 0 if state.done else None

    return Errand(outcome, f"what you want of {label} waits in the outbox", f"{label} was not changed")


def _now() -> int:
    return round(time.time() * 1000)
