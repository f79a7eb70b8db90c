"""Names and types of files as peers give them, made harmless; and how a finished file gets its name.

A peer may choose any name. `clean_name` is what becomes of it before it touches a disk or a screen, `settle` the only
way in which a received file gets a name: nothing that is there is ever overwritten, no link is followed. It knows
neither messages nor pictures' contents beyond their first bytes.
"""

from __future__ import annotations

import errno
import mimetypes
import os
import re
import stat
import unicodedata
from collections.abc import Iterator
from pathlib import Path

from fastchat_client.picture_formats import HEAD, picture_type

LONGEST = 120
"""Bytes of UTF-8 that `clean_name` leaves."""

LONGEST_EXTENSION = 16
"""Bytes of UTF-8 after the last dot that survive when a name is cut."""

UNKNOWN_TYPE = "application/octet-stream"

_NAMELESS = "file"
_MOST_COPIES = 10_000

_SEPARATORS = re.compile(
    r'[/\\:*?"<>|'
    "\u2044\u2215\u2216\u29f5\u29f8\u29f9\ufe68\uff0f\uff3c\uff1a\ufe55\ua789\u2571\u2572"  # what only looks like / \ :
    "]"
)
_INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
_DEVICES = re.compile(r"(?:con|prn|aux|nul|conin\$|conout\$|(?:com|lpt)[0-9¹²³])(?= *(?:\.|$))", re.IGNORECASE)
_TYPE = re.compile(r"[a-z0-9][a-z0-9!#$&^_.+-]{0,62}/[a-z0-9][a-z0-9!#$&^_.+-]{0,62}")


def clean_name(name: str) -> str:
    """What a file may be called that somebody else calls `name`: 1 to `LONGEST` bytes of UTF-8 in NFC, one line, with
    nothing that separates folders or streams, no "..", nothing invisible, undefined or reordering, no dot, dash, blank
    or combining mark in front, no dot or blank at the end, and no name that means a device on Windows. The extension
    is kept. What is clean already is not changed."""
    name = unicodedata.normalize("NFC", _SEPARATORS.sub("_", "".join(map(_character, name))))
    name = _ends(re.sub(r"\.(?: *\.)+", ".", re.sub(" +", " ", name)))
    if _DEVICES.match(name):
        name = f"_{name}"
    return _cut(name) or _NAMELESS


def _character(character: str) -> str:
    category = unicodedata.category(character)
    if category in ("Zs", "Zl", "Zp", "Cc"):
        return " "
    return "" if category[0] == "C" or _INVISIBLE.match(character) else character


def _ends(name: str) -> str:
    start = 0
    while start < len(name) and (name[start] in " .-" or unicodedata.category(name[start])[0] == "M"):
        start += 1
    return name[start:].rstrip(" .")


def _cut(name: str) -> str:
    if len(name.encode()) <= LONGEST:
        return name
    stem, dot, extension = name.rpartition(".")
    if not stem or len(extension.encode()) > LONGEST_EXTENSION:
        stem, dot, extension = name, "", ""
    room = LONGEST - len((dot + extension).encode())
    return stem.encode()[:room].decode(errors="ignore").rstrip(" .") + dot + extension


def _candidates(directory: Path, name: str) -> Iterator[Path]:
    name = clean_name(name)
    yield directory / name
    stem, dot, extension = name.rpartition(".")
    if not stem:
        stem, dot, extension = name, "", ""
    for number in range(1, _MOST_COPIES):
        yield directory / f"{stem} ({number}){dot}{extension}"


def _none_free(directory: Path, name: str) -> FileExistsError:
    return FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(directory / clean_name(name)))


def free_path(directory: Path, name: str) -> Path:
    """Where in `directory` a file called `name` would be put now: `clean_name` of it, or that with " (1)" and so on
    before the extension. Only `settle` takes the place. Raises FileExistsError if thousands are taken."""
    for path in _candidates(directory, name):
        if not os.path.lexists(path):
            return path
    raise _none_free(directory, name)


def settle(part: Path, directory: Path, name: str) -> Path:
    """Gives the finished file `part` its place in `directory`, on the same file system, and says which: as `free_path`,
    in one step, so that nothing is overwritten whatever others do meanwhile, and lasting when it returns. `part` is
    gone then. The caller has flushed its content. Raises OSError; `part` is still there then."""
    if not stat.S_ISREG(os.lstat(part).st_mode):
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), str(part))
    for path in _candidates(directory, name):
        try:
            _place(part, path)
        except FileExistsError:
            continue
        _flush(directory)
        return path
    raise _none_free(directory, name)


_NO_HARD_LINKS = frozenset(
    (errno.EPERM, errno.EACCES, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EINVAL)
)


def _place(part: Path, path: Path) -> None:
    try:
        os.link(part, path, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _NO_HARD_LINKS:
            raise
    else:
        os.unlink(part)
        return
    # Such as FAT: the name is taken by an empty file first, which the finished one then replaces.
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
    try:
        os.replace(part, path)
    except OSError:
        os.unlink(path)
        raise


def _flush(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


_BY_NAME = mimetypes.MimeTypes()
for _type, _ending in (
    ("image/webp", ".webp"),
    ("image/jpeg", ".jfif"),
    ("image/png", ".apng"),
    ("image/heic", ".heic"),
    ("image/avif", ".avif"),
):
    _BY_NAME.add_type(_type, _ending)  # not known to every Python
_PACKED = {"gzip": "application/gzip", "bzip2": "application/x-bzip2", "xz": "application/x-xz"}
_SEEN_BY_CONTENT = frozenset(
    f"image/{kind}" for kind in ("jpeg", "png", "gif", "webp", "heic", "heif", "avif", "tiff", "jxl", "jp2")
)


def guess_type(name: str, head: bytes) -> str:
    """The MIME type of a file called `name` that begins with `head` (64 bytes are enough): pictures by their content,
    all others by their name; `UNKNOWN_TYPE` for what has no known ending, or the ending of a picture that it is not."""
    if found := picture_type(head[:HEAD]):
        return found
    by_name, packed = _BY_NAME.guess_type(f"x{os.path.splitext(name)[1]}", strict=True)
    if packed:
        return _PACKED.get(packed, UNKNOWN_TYPE)
    return UNKNOWN_TYPE if by_name is None or by_name in _SEEN_BY_CONTENT else by_name


def named_type(name: str) -> str:
    """The MIME type that the ending of `name` stands for, whatever is in the file; "" if it has no known one."""
    by_name, packed = _BY_NAME.guess_type(f"x{os.path.splitext(name)[1]}", strict=True)
    return packed or by_name or ""


def clean_type(declared: str) -> str:
    """A MIME type that a peer declares: lower case, without parameters; `UNKNOWN_TYPE` if it is none.
    Source: RFC 6838, 4.2."""
    plain = declared.partition(";")[0].strip(" \t").lower()
    return plain if _TYPE.fullmatch(plain) else UNKNOWN_TYPE
