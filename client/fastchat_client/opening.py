"""Which profile is meant, and its password: from options, files, or the person at the terminal.

What is asked is asked on stderr, so that stdout holds results alone.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from fastchat.errors import ConfigError, LoginFailed
from fastchat_client.messenger import unlock
from fastchat_client.profile import NoProfile, Profile, default_directory, profiles_in
from fastchat_client.vault import Vault


class Opened:
    """A profile and its vault, which is closed at the end; and the password, which opens identity.pem, too."""

    def __init__(self, profile: Profile, vault: Vault, password: str) -> None:
        self.profile = profile
        self.vault = vault
        self.password = password

    def __enter__(self) -> Opened:
        return self

    def __exit__(self, *exc: object) -> None:
        self.vault.close()


def open_profile(directory: Path | None, password_file: Path | None) -> Opened:
    """The profile that is meant, opened with its password. Raises `ConfigError` and `LoginFailed`."""
    profile = Profile.load(directory) if directory else choose_profile()
    if not profile.vault_path.exists():
        raise NoProfile(f"{profile.directory} was never finished; type the join command again")
    password = read_password(password_file, profile.facts.user)
    try:
        vault = unlock(profile, password)
    except LoginFailed:
        raise LoginFailed(f"this is not the password of {profile.facts.user}; nothing was changed") from None
    if not vault.whoami().user:
        vault.close()
        raise NoProfile(f"{profile.directory} was never finished; type the join command again")
    return Opened(profile, vault, password)


def choose_profile() -> Profile:
    """Without --profile: the only one in the data folder, or the one that the person names."""
    profiles = profiles_in(default_directory())
    if len(profiles) == 1:
        return profiles[0]
    if not profiles:
        raise NoProfile("there is no profile yet; make one: fastchat join LINK --as NAME")
    names = [profile.facts.user for profile in profiles]
    if not sys.stdin.isatty():
        which = f"--profile {profiles[0].directory}"
        raise NoProfile(f"there are several profiles ({', '.join(names)}); say which: {which}")
    free = [profile.facts.user for profile in profiles if not profile.in_use()]
    chosen = click.prompt("Who are you?", type=click.Choice(names), default=free[0] if free else names[0], err=True)
    return next(profile for profile in profiles if profile.facts.user == chosen)


def read_password(password_file: Path | None, user: str = "", twice: bool = False) -> str:
    """From the file's first line, or typed without being shown; `twice` for a new one. Raises `ConfigError`."""
    if password_file is not None:
        try:
            with password_file.open("rb") as file:
                password = file.readline().decode().rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
            raise ConfigError(f"the password file {password_file} cannot be read: {reason}") from None
        if not password:
            raise ConfigError(f"the password file {password_file} begins with an empty line")
        return password
    if not _somebody_is_there():
        raise ConfigError("there is nobody to ask for the password; give --password-file F")
    label = f"Password of {user}" if user else "Choose a password" if twice else "Password"
    return str(click.prompt(label, hide_input=True, confirmation_prompt=twice, err=True))


def _somebody_is_there() -> bool:
    """Whether there is a terminal to ask at. The file /dev/tty is there without one too, but does not open."""
    if sys.stdin.isatty():
        return True
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True
