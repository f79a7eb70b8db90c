"""The chunks of files that are to be sent, as they wait on the disk: encrypted once, and sent from here however often.

What is read of a source a second time may be something else, and two contents under one key and index would lay both
open. So each file is read once, under a key made for this, and what goes to the network is only ever read from its
spool: `FOLDER/ATTACHMENT`, chunk after chunk. Everything here blocks; `write` is run in a thread. It knows no vault.

Who writes a spool, or has not noted it yet, holds a lock on it; what is neither locked nor noted is rubbish.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from fastchat.errors import AttachmentTooLarge, ConfigError
from fastchat.protocols.wire import CHUNK_SIZE
from fastchat_client.attachment_cipher import KEY_SIZE, PIECE, encrypt
from fastchat_client.sizes import written

ID_SIZE = 16
WRITTEN_OUT = 128
"""Chunks after which the disk is told to write them: 8 MiB."""


class Stopped(Exception):
    """It is not wanted any more; nothing is left of it."""


@dataclass(frozen=True, slots=True)
class Spooled:
    """A file whose chunks are on the disk, durably. `size` in bytes; `sha256` of the file. Closed once the vault has
    it, or `remove` was called."""

    attachment: str
    key: bytes
    size: int
    sha256: bytes
    lock: int

    def close(self) -> None:
        """Nobody else takes it for rubbish any more, or all may."""
        os.close(self.lock)


def write(
    folder: Path,
    source: BinaryIO,
    name: str,
    *,
    largest: int,
    progress: Callable[[int], None] = lambda done: None,
    stopped: Callable[[], bool] = lambda: False,
) -> Spooled:
    """Read `source` to its end and keep it, encrypted, under a new id. `name`: what people call it; `largest`: bytes;
    `progress` is called with the bytes done, `stopped` is asked after each piece. Raises `AttachmentTooLarge`,
    `ConfigError` if it cannot be read or there is no room for it, `Stopped`; nothing is left then."""
    attachment, key, digest = secrets.token_hex(ID_SIZE), secrets.token_bytes(KEY_SIZE), hashlib.sha256()
    size = 0
    descriptor = _create(folder, attachment)
    try:
        with os.fdopen(os.dup(descriptor), "wb", buffering=0) as spool:
            index, piece = 0, _read(source, name)
            while True:
                following = _read(source, name) if len(piece) == PIECE else b""
                digest.update(piece)
                size += len(piece)
                if size > largest:
                    raise AttachmentTooLarge(
                        f"{name} is too large: this network takes files of up to {written(largest)}"
                    )
                _write(spool, encrypt(key, index, not following, piece), folder)
                if (index + 1) % WRITTEN_OUT == 0:
                    # Begins to write it out: at the end all of it at once would keep the vault's commits waiting.
                    begin = (index + 1 - WRITTEN_OUT) * CHUNK_SIZE
                    os.posix_fadvise(descriptor, begin, WRITTEN_OUT * CHUNK_SIZE, os.POSIX_FADV_DONTNEED)
                if stopped():
                    raise Stopped
                progress(size)
                if not following:
                    break
                index, piece = index + 1, following
        _sync(descriptor, folder)
    except BaseException:
        remove(folder, attachment)
        os.close(descriptor)
        raise
    return Spooled(attachment, key, size, digest.digest(), descriptor)


def chunk(folder: Path, attachment: str, index: int) -> bytes:
    """`CHUNK_SIZE` bytes. Raises `ConfigError` if they are not there."""
    try:
        descriptor = os.open(folder / attachment, os.O_RDONLY | os.O_CLOEXEC)
        try:
            data = os.pread(descriptor, CHUNK_SIZE, index * CHUNK_SIZE)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise ConfigError(f"what was kept in {folder} for sending cannot be read: {error.strerror}") from None
    if len(data) != CHUNK_SIZE:
        raise ConfigError(f"what was kept in {folder} for sending is not all there any more")
    return data


def remove(folder: Path, attachment: str) -> None:
    """It has been sent, or will not be. What cannot be removed now is rubbish, and looked for at the next start."""
    with contextlib.suppress(OSError):
        (folder / attachment).unlink()


def remove_rubbish(folder: Path, is_noted: Callable[[str], bool]) -> None:
    """Whatever nobody is writing, and nobody knows of."""
    for path in list(folder.iterdir()) if folder.is_dir() else ():
        with contextlib.suppress(OSError):
            _remove_if_rubbish(path, is_noted)


def _remove_if_rubbish(path: Path, is_noted: Callable[[str], bool]) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Asked only now: whoever held the lock until a moment ago may have noted it before letting go.
        if not is_noted(path.name):
            path.unlink()
    except BlockingIOError:
        pass  # it is being written
    finally:
        os.close(descriptor)


def _create(folder: Path, attachment: str) -> int:
    """A new file, locked."""
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        while True:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(folder / attachment, flags, 0o600)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if os.fstat(descriptor).st_nlink:
                return descriptor
            os.close(descriptor)  # somebody has looked for rubbish before it was locked
    except OSError as error:
        raise _no_room(folder, error) from None


def _read(source: BinaryIO, name: str) -> bytes:
    """A whole piece, if the source has so much left."""
    try:
        piece = source.read(PIECE)
        while piece and len(piece) < PIECE and (more := source.read(PIECE - len(piece))):
            piece += more
    except OSError as error:
        raise ConfigError(f"{name} cannot be read: {error.strerror}") from None
    return piece


def _write(spool: BinaryIO, data: bytes, folder: Path) -> None:
    view = memoryview(data)
    try:
        while view:
            view = view[spool.write(view) :]
    except OSError as error:
        raise _no_room(folder, error) from None


def _sync(descriptor: int, folder: Path) -> None:
    try:
        os.fsync(descriptor)
        directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as error:
        raise _no_room(folder, error) from None


def _no_room(folder: Path, error: OSError) -> ConfigError:
    return ConfigError(f"the file cannot be kept in {folder} until it is sent: {error.strerror}; nothing of it is left")
