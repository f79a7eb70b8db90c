"""A profile: the folder with what makes somebody of this network, and which process may use it now.

    profile.json    whose it is, where the network is, the last known services, how the password becomes keys; no secret
    identity.pem    the account's RSA key, encrypted
    vault.db        everything else, encrypted (`vault.py`)
    lock            held by the process that is connected, with its process id in it

Folders are 0700, files 0600; a file is replaced whole or not at all. It opens neither the pem nor the vault.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec
import platformdirs

from fastchat.errors import ConfigError, NameNotAllowed
from fastchat.identity.invite import Invite
from fastchat.identity.names import check_name
from fastchat.protocols.wire import ServiceAddress
from fastchat_client.password import Cost

FORMAT = 1
MOST_SERVICES = 100
"""Remembered: each is tried, and a server could name any machine."""


class NoProfile(ConfigError):
    """There is no profile here."""

    code = "no-profile"


class ProfileInUse(ConfigError):
    """Another process is connected with this profile."""

    code = "profile-in-use"


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What profile.json holds."""

    format: int = FORMAT
    user: str
    host: str
    """Of the balancer, as the invite says."""
    port: int
    pin: bytes
    """SHA-256 of the certificate's DER."""
    log_key: bytes
    """Ed25519, 32 bytes."""
    salt: bytes
    """Of the password's Argon2id; random, for this profile alone."""
    cost: Cost
    services: tuple[ServiceAddress, ...] = ()


class Profile:
    """One profile's folder. A `connection.Network`."""

    def __init__(self, directory: Path, facts: Facts) -> None:
        self.directory = directory
        self.facts = facts

    @classmethod
    def create(cls, directory: Path, facts: Facts) -> Profile:
        """A new folder with a profile.json. Raises `ConfigError` if there is a profile, or no folder can be made."""
        if (directory / "profile.json").exists():
            raise ConfigError(f"there is a profile in {directory} already")
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            directory.chmod(0o700)
        except OSError as error:
            raise ConfigError(f"the folder {directory} cannot be used: {error.strerror}") from None
        profile = cls(directory, facts)
        profile._save()
        return profile

    @classmethod
    def load(cls, directory: Path) -> Profile:
        """The profile in `directory`. Raises `NoProfile`, or `ConfigError` if it cannot be read."""
        path = directory / "profile.json"
        try:
            facts = msgspec.json.decode(path.read_bytes(), type=Facts)
            check_name(facts.user)
        except (FileNotFoundError, NotADirectoryError):
            raise NoProfile(
                f"there is no profile in {directory}; make one: fastchat join LINK --as NAME --profile {directory}"
            ) from None
        except OSError as error:
            raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
        except (msgspec.MsgspecError, UnicodeDecodeError, NameNotAllowed) as error:
            raise ConfigError(f"{path} is damaged: {error}; nothing was changed") from None
        if facts.format != FORMAT:
            raise ConfigError(f"{path} has format {facts.format}; this program reads format {FORMAT}")
        return cls(directory, facts)

    # --- what a connection needs -----------------------------------------------------------------------------------

    @property
    def host(self) -> str:
        return self.facts.host

    @property
    def port(self) -> int:
        return self.facts.port

    @property
    def pin(self) -> bytes:
        return self.facts.pin

    @property
    def services(self) -> Sequence[ServiceAddress]:
        return self.facts.services

    def remember(self, services: Sequence[ServiceAddress]) -> None:
        """Keep the balancer's newest list of services, for when the balancer cannot be reached."""
        newest = tuple(sorted(services[:MOST_SERVICES], key=lambda service: service.name))
        if newest and newest != self.facts.services:
            self.facts = msgspec.structs.replace(self.facts, services=newest)
            self._save()

    def go_to(self, invite: Invite) -> None:
        """The same network, at the place that this invite names. Raises `ConfigError` if it is another network."""
        if (invite.pin, invite.log_key) != (self.pin, self.facts.log_key):
            raise ConfigError(f"the profile in {self.directory} is of another network; choose another folder")
        if (invite.host, invite.port) != (self.host, self.port):
            self.facts = msgspec.structs.replace(self.facts, host=invite.host, port=invite.port)
            self._save()

    # --- files -----------------------------------------------------------------------------------------------------

    @property
    def identity_path(self) -> Path:
        return self.directory / "identity.pem"

    @property
    def vault_path(self) -> Path:
        return self.directory / "vault.db"

    def files_path(self) -> Path:
        """The folder for files that nobody has asked for; others cannot look into it. Raises `ConfigError`."""
        folder = self.directory / "files"
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"{folder} cannot be used: {error.strerror}") from None
        return folder

    def write_identity(self, pem: bytes) -> None:
        """Keep the account's RSA key, which `pem` holds encrypted."""
        write_whole(self.identity_path, pem)

    def remove(self) -> None:
        """Take a profile away that came to nothing: its own files, and the folder if nothing else is in it."""
        for name in ("vault.db", "vault.db-wal", "vault.db-shm", "identity.pem", "profile.json", "lock"):
            (self.directory / name).unlink(missing_ok=True)
        if not any(self.directory.iterdir()):
            self.directory.rmdir()

    def _save(self) -> None:
        write_whole(self.directory / "profile.json", msgspec.json.format(msgspec.json.encode(self.facts), indent=2))

    # --- the lock --------------------------------------------------------------------------------------------------

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Be the one process that is connected with this profile. Raises `ProfileInUse`, naming the other one. The
        lock goes with the process that holds it, however that ends."""
        with os.fdopen(_open_lock(self.directory), "r+", encoding="ascii", errors="replace") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                pid = file.read(20).strip() or "unknown"
                raise ProfileInUse(
                    f"another process (pid {pid}) is connected as {self.facts.user}; close it, or use it"
                ) from None
            file.truncate(0)
            file.write(f"{os.getpid()}\n")
            file.flush()
            yield

    def in_use(self) -> bool:
        """Whether a process is connected with it now."""
        try:
            with self.locked():
                return False
        except ProfileInUse:
            return True


def _open_lock(directory: Path) -> int:
    try:
        return os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigError(f"{directory / 'lock'} cannot be used: {error.strerror}") from None


def default_directory() -> Path:
    """The platform's folder for such data; each name that joins without --profile has a folder in it."""
    return platformdirs.user_data_path("fastchat", appauthor=False)


def profiles_in(directory: Path) -> list[Profile]:
    """The profiles that have a folder of their own in `directory`, by name."""
    try:
        folders = sorted(path for path in directory.iterdir() if (path / "profile.json").is_file())
    except OSError:
        return []
    return [Profile.load(folder) for folder in folders]


def write_whole(path: Path, data: bytes) -> None:
    """`data` in a file that its owner alone can read: all of it or, if the machine stops, what was there before.
    Raises `ConfigError`."""
    try:
        descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # made as 0600
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from None


def read_file(path: Path) -> bytes:
    """All of a file. Raises `ConfigError`."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
