"""The files of messages: what each is, and where it was saved here; over a vault alone, for any process of the profile.

Faces are told of them in `StoredFile` and `Transfer`, beside events: no key is in these. Nothing here fetches a file or
writes to a disk. Writes need a transaction around them.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec

from fastchat_client.content import File, Ref
from fastchat_client.events import FileShown
from fastchat_client.filenames import clean_name, clean_type
from fastchat_client.vault import Vault, split_id


class StoredFile(msgspec.Struct, frozen=True):
    """The file of a message. `message`: the message's id; `path`: where it was saved here last, "" if it was not."""

    message: str
    conversation: str
    sender: str
    own: bool
    file: FileShown
    path: str = ""


class Transfer(msgspec.Struct, frozen=True):
    """A file that is not where it is to be yet; `done` of `size` bytes are. `up`: to the network, else here. `id`: of
    the message that brought it, "" for what is being sent. `active`: it is on its way at this moment."""

    attachment: str
    conversation: str
    id: str
    name: str
    up: bool
    done: int
    size: int
    active: bool


PART_DIGITS = 8
"""Of an attachment's id, in the name of its part."""
LEAST_KEPT = 4096
"""Bytes that a file takes on a disk, whatever is in it."""
MOST_COPIES = 10
"""Of one file, that are looked for on this disk when it is wanted once more."""
KEPT = f"""
    SELECT COALESCE(SUM(MAX(size, {LEAST_KEPT})), 0) FROM (
        SELECT size FROM files WHERE copy NOT NULL
        UNION ALL
        SELECT size FROM downloads JOIN files USING (device, n) WHERE auto = 1 AND copy IS NULL
    )
"""  # noqa: S608

_encode = msgspec.json.Encoder().encode
_decode_file = msgspec.json.Decoder(File).decode
_decode_shown = msgspec.json.Decoder(FileShown).decode


def shown(file: File) -> FileShown:
    """What people may see of what its sender says of it."""
    return FileShown(
        attachment=file.attachment,
        name=clean_name(file.name),
        size=file.size,
        type=clean_type(file.type),
        width=file.width,
        height=file.height,
        thumbnail=file.thumbnail,
    )


def add(vault: Vault, device: str, n: int, file: File) -> FileShown:
    """The message (`device`, `n`) brings this file; what there is to show of it."""
    # What was written with it stands in the history, where edits change it; the thumbnail in what is shown.
    content = msgspec.structs.replace(file, text="", reply=None, expires=0, thumbnail=b"")
    what = shown(file)
    vault.execute(
        "INSERT OR REPLACE INTO files (device, n, attachment, size, content, shown) VALUES (?, ?, ?, ?, ?, ?)",
        (device, n, file.attachment, file.size, _encode(content), _encode(what)),
    )
    return what


def wipe(vault: Vault, of: Ref) -> None:
    """The message is gone: so are the keys of its file, the copy that FastChat keeps of it, and the fetching of it.
    What a person has saved stays."""
    name = (of.device, of.n)
    copy = vault.execute("SELECT copy FROM files WHERE device = ? AND n = ?", name).fetchone()
    if copy is not None and copy[0] is not None:
        leave(vault, Path(os.fsdecode(copy[0])))
    for directory, file in vault.execute(
        "SELECT directory, content FROM downloads JOIN files USING (device, n) WHERE device = ? AND n = ?", name
    ).fetchall():
        leave(vault, part_of(Path(os.fsdecode(directory)), _decode_file(file)))
    for table in ("files", "downloads"):
        vault.execute(f"DELETE FROM {table} WHERE device = ? AND n = ?", name)  # noqa: S608


def descriptor(vault: Vault, device: str, n: int) -> File | None:
    """What opens the message's file; its text and thumbnail are not in it."""
    row = vault.execute("SELECT content FROM files WHERE device = ? AND n = ?", (device, n)).fetchone()
    return None if row is None else _decode_file(row[0])


def attachment_of(vault: Vault, of: Ref) -> str:
    """ "" if the message has no file."""
    row = vault.execute("SELECT attachment FROM files WHERE device = ? AND n = ?", (of.device, of.n)).fetchone()
    return "" if row is None else str(row[0])


def part_of(directory: Path, file: File) -> Path:
    """Where in `directory` a file is put together. The name is the same whenever it is fetched into there: so what was
    there already is found."""
    return directory / f".{clean_name(file.name)}.{file.attachment[:PART_DIGITS]}.part"


def length_of(part: Path) -> int:
    """Bytes of it that are on the disk."""
    try:
        return part.lstat().st_size
    except OSError:
        return 0


# --- what there is to see ------------------------------------------------------------------------------------------


def stored_file(vault: Vault, message_id: str) -> StoredFile | None:
    """The file of a message; None if it has none, or is gone."""
    found = _stored(vault, "device = ? AND n = ? LIMIT 1", split_id(message_id))
    return found[0] if found else None


def files_of(vault: Vault, conversation: str, limit: int = 100) -> list[StoredFile]:
    """Those of a conversation, the newest first."""
    return _stored(vault, "conversation = ? ORDER BY seq DESC LIMIT ?", (conversation, limit))


def message_with(vault: Vault, attachment: str) -> str:
    """The id of this account's message that tells of an attachment; "" while there is none."""
    row = vault.execute(
        "SELECT device, n FROM files JOIN messages USING (device, n) WHERE attachment = ? AND own = 1 LIMIT 1",
        (attachment,),
    ).fetchone()
    return "" if row is None else f"{row[0]}.{row[1]}"


def _stored(vault: Vault, where: str, values: tuple[Any, ...]) -> list[StoredFile]:
    rows = vault.execute(
        "SELECT device, n, conversation, sender, own, shown, COALESCE(path, copy) FROM files"  # noqa: S608
        " JOIN messages USING (device, n)"
        f" WHERE (expires_at IS NULL OR expires_at > ? OR state = 'waiting') AND {where}",
        (vault.now(), *values),
    ).fetchall()
    return [
        StoredFile(f"{row[0]}.{row[1]}", row[2], row[3], bool(row[4]), _decode_shown(row[5]), _path(row[6]))
        for row in rows
    ]


def _path(kept: bytes | None) -> str:
    return "" if kept is None else os.fsdecode(kept)


# --- what is on the disk -------------------------------------------------------------------------------------------


def copies(vault: Vault, attachment: str) -> list[Path]:
    """Where a file with this content was saved, as far as is known: the places of the newest messages that bring it,
    FastChat's own first."""
    rows = vault.execute(
        "SELECT copy, path FROM files WHERE attachment = ? AND COALESCE(copy, path) NOT NULL"
        " ORDER BY rowid DESC LIMIT ?",
        (attachment, MOST_COPIES),
    ).fetchall()
    found = [path for row in rows for path in row if path is not None]
    return [Path(os.fsdecode(path)) for path in dict.fromkeys(found)]


def saved(vault: Vault, of: Ref, path: Path, *, auto: bool) -> None:
    """The message's file is at `path`. `auto`: nobody has asked for it there."""
    column = "copy" if auto else "path"
    vault.execute(
        f"UPDATE files SET {column} = ? WHERE device = ? AND n = ?",  # noqa: S608
        (os.fsencode(path), of.device, of.n),
    )


def kept_bytes(vault: Vault) -> int:
    """Of what is here, or on its way, without having been asked for; at least `LEAST_KEPT` for each."""
    return int(vault.execute(KEPT).fetchone()[0])


def leave(vault: Vault, path: Path) -> None:
    """`path` is FastChat's own and of no use any more: it is removed once this is committed."""
    vault.execute("INSERT OR IGNORE INTO leftovers (path) VALUES (?)", (os.fsencode(path),))


def leftovers(vault: Vault) -> list[Path]:
    return [Path(os.fsdecode(path)) for (path,) in vault.execute("SELECT path FROM leftovers").fetchall()]


def removed(vault: Vault, path: Path) -> None:
    vault.execute("DELETE FROM leftovers WHERE path = ?", (os.fsencode(path),))
