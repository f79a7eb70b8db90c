"""A file while it is put together on the disk, beside where it will be: its part.

A part is resumed, verified as it stands on the disk, and gets its name only when all of it is what was sent; nothing of
anybody else is followed, overwritten or cut. Everything here blocks, but for `write`, which blocks no longer than the
disk's cache takes for one piece. It knows no keys, no network and no vault.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import stat
import weakref
from pathlib import Path

from fastchat.errors import AttachmentDamaged, FastChatError
from fastchat_client.attachment_cipher import PIECE
from fastchat_client.filenames import settle

SLICE = 8 * 1024 * 1024
"""Bytes that are hashed or copied at a stretch: so long may the end of the program have to wait for it."""
_BLOCK = 1024 * 1024
_REASONS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk is full for you",
    errno.EROFS: "nothing can be written there",
    errno.EACCES: "you may not write there",
    errno.EPERM: "you may not write there",
    errno.ENOENT: "the folder is gone",
    errno.ENOTDIR: "the folder is gone",
    errno.ELOOP: "there is a link in its place, which is not followed; remove it",
}


class NotSaved(FastChatError):
    """This file cannot be written there."""

    code = "not-saved"


class InUse(FastChatError):
    """Another program is putting the same file together there."""

    code = "not-saved"


class Part:
    """`path`: where it is until it is whole; `size`: the bytes that the whole has. Nothing is touched before `open`."""

    def __init__(self, path: Path, size: int) -> None:
        self.path = path
        self.size = size
        self.length = 0
        """Bytes that are there; a whole number of pieces, or all."""
        self.hashed = 0
        """Of these, bytes that were read again and went into the hash."""
        self.was_resumed = False
        self._hash = hashlib.sha256()
        self._file: int | None = None
        self._release: weakref.finalize[[int], Part] | None = None

    # --- at the beginning --------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Begin, or go on with what is there. Raises `NotSaved`; or `InUse`."""
        try:
            descriptor = self._made_or_found()
            try:
                self._take(descriptor)
            except BaseException:
                self.close()
                raise
            self._make_room()
        except OSError as error:
            raise self._not_saved(error) from None

    def _made_or_found(self) -> int:
        try:
            return os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            return os.open(self.path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)

    def _take(self, descriptor: int) -> None:
        self._hold(descriptor)
        there = os.fstat(descriptor)
        if not stat.S_ISREG(there.st_mode) or there.st_uid != os.geteuid():
            raise NotSaved(f"{self.path} is not of FastChat's making; remove it, and fetch the file again")
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InUse from None
        if not self.is_there:
            raise InUse  # whoever had it has just finished
        whole = there.st_size == self.size
        if there.st_size > self.size or (there.st_nlink > 1 and not whole):
            self._make_anew()
            return
        os.fchmod(descriptor, 0o600)
        self.length = self.size if whole else there.st_size - there.st_size % PIECE
        self.was_resumed = self.length > 0

    def _make_anew(self) -> None:
        """With another file in its place: what has a further name may be somebody's."""
        self.discard()
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(self.path, flags, 0o600)
        self._hold(descriptor)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self.length = self.hashed = 0
        self.was_resumed = False
        self._hash = hashlib.sha256()

    def cut(self) -> None:
        """Count whole pieces only: what follows on them is written over."""
        self.length -= self.length % PIECE
        self.hashed = 0
        self._hash = hashlib.sha256()

    def begin_anew(self) -> None:
        """Nothing of what is there is of use. Raises `NotSaved`."""
        try:
            self._make_anew()
        except OSError as error:
            raise self._not_saved(error) from None

    def _make_room(self) -> None:
        assert self._file is not None
        disk = os.fstatvfs(self._file)
        if disk.f_bavail * disk.f_frsize < self.size - self.length:
            raise OSError(errno.ENOSPC, "")

    # --- what comes in -----------------------------------------------------------------------------------------------

    def write(self, piece: bytes) -> None:
        """What follows on what is there. Raises `NotSaved`."""
        assert self._file is not None
        try:
            _write_all(self._file, piece, self.length)
        except OSError as error:
            raise self._not_saved(error) from None
        self.length += len(piece)

    def copy(self, source: Path) -> bool:
        """Go on with what `source` has there, for a slice; False if that is not of the same size, or cannot be read.
        Raises `NotSaved`."""
        assert self._file is not None
        try:
            descriptor = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError:
            return False
        try:
            there = os.fstat(descriptor)
            if not stat.S_ISREG(there.st_mode) or there.st_size != self.size:
                return False
            end = min(self.length + SLICE, self.size)
            while self.length < end:
                try:
                    data = os.pread(descriptor, min(_BLOCK, end - self.length), self.length)
                except OSError:
                    return False
                if not data:
                    return False
                self.write(data)
            return True
        finally:
            os.close(descriptor)

    def hash_on(self, upto: int) -> None:
        """Read what is there again, for a slice, `upto` so many bytes of the file. Raises `NotSaved`; or
        `AttachmentDamaged`, if it is not there any more."""
        assert self._file is not None
        begin = self.hashed
        upto = min(upto, begin + SLICE)
        try:
            while self.hashed < upto:
                data = os.pread(self._file, min(_BLOCK, upto - self.hashed), self.hashed)
                if not data:
                    raise AttachmentDamaged("another program has cut it off on the disk")
                self._hash.update(data)
                self.hashed += len(data)
            # Begins to write it out: at the end all of it at once would keep the vault's commits waiting.
            os.posix_fadvise(self._file, begin, upto - begin, os.POSIX_FADV_DONTNEED)
        except OSError as error:
            raise self._not_saved(error) from None

    # --- at the end --------------------------------------------------------------------------------------------------

    def finish(self, sha256: bytes, name: str) -> Path:
        """All of it is hashed: if it is what was sent, it gets its `name`, or one like it that nobody has, and is
        durable; the part stays beside it until `discard`. Where it is. Raises `AttachmentDamaged` or `NotSaved`."""
        assert self._file is not None
        try:
            there = os.fstat(self._file)
            if there.st_size != self.size or self._hash.digest() != sha256:
                raise AttachmentDamaged("the whole is not what was sent")
            if not self.is_there:
                raise FileNotFoundError(errno.ENOENT, "")
            os.fsync(self._file)
            path = self._other_name(there) or self._settle(name)
            if not _is_same(path, self._file):
                raise NotSaved(f"another program has meddled with {path}")
            _sync_folder(path.parent)
        except OSError as error:
            raise self._not_saved(error) from None
        return path

    def _other_name(self, there: os.stat_result) -> Path | None:
        """The name that it was given before the program ended in the middle of this."""
        if there.st_nlink < 2:
            return None
        with os.scandir(self.path.parent) as entries:
            found = [entry.name for entry in entries if entry.inode() == there.st_ino]
        names = [name for name in found if not name.startswith(self.path.name)]
        return self.path.parent / min(names) if names else None

    def _settle(self, name: str) -> Path:
        """The part stays as well, where the file system gives a file two names: a program that ends now finds by it
        what was done."""
        second = self.path.with_name(f"{self.path.name}.")
        second.unlink(missing_ok=True)
        try:
            os.link(self.path, second, follow_symlinks=False)
        except OSError:
            return settle(self.path, self.path.parent, name)
        try:
            return settle(second, self.path.parent, name)
        finally:
            second.unlink(missing_ok=True)

    @property
    def is_there(self) -> bool:
        """Whether what is written goes to where the part is looked for."""
        return self._file is not None and _is_same(self.path, self._file)

    def discard(self) -> bool:
        """It is of no use any more. Raises OSError if it cannot be removed."""
        try:
            if self.is_there:
                self.path.unlink()
        finally:
            self.close()
        return True

    def close(self) -> None:
        """What is there stays. May be called twice."""
        self._file = None
        if self._release is not None:
            self._release()

    def _hold(self, descriptor: int) -> None:
        """Until `close`, or until nobody knows of this any more: what is held, no other program touches."""
        self._file = descriptor
        self._release = weakref.finalize(self, os.close, descriptor)

    def _not_saved(self, error: OSError) -> NotSaved:
        reason = _REASONS.get(error.errno or 0, error.strerror)
        return NotSaved(f"{self.path.parent} does not take the file: {reason}")


def _write_all(descriptor: int, data: bytes, at: int) -> None:
    left = memoryview(data)
    while left:
        written = os.pwrite(descriptor, left, at)
        left, at = left[written:], at + written


def _is_same(path: Path, descriptor: int) -> bool:
    try:
        there, here = os.lstat(path), os.fstat(descriptor)
    except OSError:
        return False
    return (there.st_ino, there.st_dev) == (here.st_ino, here.st_dev)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove(path: Path) -> bool:
    """What was left behind. False: another program has it for now, or this one. What is no file of one's own stays.
    Raises OSError if it cannot be removed."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return True
        raise
    try:
        there = os.fstat(descriptor)
        if stat.S_ISREG(there.st_mode) and there.st_uid == os.geteuid():
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink(missing_ok=True)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True
