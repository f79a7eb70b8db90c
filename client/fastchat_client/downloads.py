"""Files that are to be fetched, as rows of the vault that any process of the profile may make, find and unmake; the one
that is connected fetches them (`downloading.py`). Writes need a transaction around them, where none is opened.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import msgspec

from fastchat.errors import AttachmentTooLarge, RequestError
from fastchat_client import files
from fastchat_client.content import File, Ref
from fastchat_client.events import FileShown
from fastchat_client.files import Transfer
from fastchat_client.sizes import written
from fastchat_client.vault import Vault, split_id

MOST_KEPT = 512 * 1024 * 1024
"""Bytes of files that nobody has asked for: as much as others may bring onto this disk."""
MOST_UNASKED = 1000
"""Of these, that may wait to be fetched; a person can still ask for what comes beyond that."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """The file of a message, and the folder that it is to be in. `name`: as it may be called there."""

    seq: int
    of: Ref
    conversation: str
    directory: Path
    auto: bool
    anew: bool
    file: File
    name: str

    @property
    def id(self) -> str:
        return f"{self.of.device}.{self.of.n}"

    @property
    def part(self) -> Path:
        return files.part_of(self.directory, self.file)

    def transfer(self, done: int | None = None) -> Transfer:
        """As faces are told of it. `done`: bytes that are here, if it is on its way now."""
        here = files.length_of(self.part) if done is None else done
        file = self.file
        active = done is not None
        return Transfer(file.attachment, self.conversation, self.id, self.name, False, here, file.size, active)


def want(vault: Vault, message_id: str, directory: Path) -> None:
    """A person wants a message's file in this folder, which is named by its whole path. Raises `RequestError`, or
    `AttachmentTooLarge` if the network cannot have it."""
    found = files.stored_file(vault, message_id)
    if found is None:
        raise RequestError(f"the message {message_id} has no file, or is gone")
    if not directory.is_absolute() or not directory.is_dir():
        raise RequestError(f"there is no folder {directory}")
    check_size(vault, found.file.size)
    with vault.transaction():
        _insert(vault, Ref(*split_id(message_id)), directory, auto=False)


def check_size(vault: Vault, size: int) -> None:
    """Raises `AttachmentTooLarge` for more than the network takes, as it has said at the last login."""
    largest = vault.number("largest_attachment")
    if largest and size > largest:
        raise AttachmentTooLarge(
            f"it is said to have {written(size)}; this network takes files of up to {written(largest)}"
        )


def want_unasked(vault: Vault, of: Ref, size: int, directory: Path) -> None:
    """Keep a copy in FastChat's own folder, if it does not become too much."""
    largest = vault.number("largest_attachment")
    if largest and size > largest:
        return
    (waiting,) = vault.execute("SELECT COUNT(*) FROM downloads WHERE auto = 1").fetchone()
    if waiting < MOST_UNASKED and files.kept_bytes(vault) + max(size, files.LEAST_KEPT) <= MOST_KEPT:
        _insert(vault, of, directory, auto=True)


def _insert(vault: Vault, of: Ref, directory: Path, *, auto: bool) -> None:
    vault.execute(
        "INSERT INTO downloads (device, n, directory, auto) VALUES (?, ?, ?, ?)"
        " ON CONFLICT (device, n, directory) DO UPDATE SET stopped = 0, anew = 0, auto = MIN(auto, excluded.auto)",
        (of.device, of.n, os.fsencode(directory), auto),
    )


def unwant(vault: Vault, attachment: str) -> list[Wanted]:
    """Nobody wants it any more, in no folder; what is there of it goes. Where it was wanted."""
    found = [wanted for wanted in all_of(vault) if wanted.file.attachment == attachment]
    with vault.transaction():
        for wanted in found:
            files.leave(vault, wanted.part)
            remove(vault, wanted)
    return found


def going(vault: Vault) -> dict[int, tuple[bytes, str]]:
    """The numbers of those that have not come to a stop, and where each is put together: what may have the same part
    has the same place. What a person has asked for comes first; else they are in the order in which they were
    wanted."""
    rows = vault.execute(
        "SELECT seq, directory, SUBSTR(attachment, 1, ?) FROM downloads JOIN files USING (device, n)"
        " WHERE stopped = 0 ORDER BY auto, seq",
        (files.PART_DIGITS,),
    ).fetchall()
    return {seq: (directory, digits) for seq, directory, digits in rows}


def get(vault: Vault, seq: int) -> Wanted | None:
    return next(iter(_select(vault, "downloads.seq = ?", seq)), None)


def all_of(vault: Vault) -> list[Wanted]:
    """In the same order; also those that have come to a stop."""
    return _select(vault, "downloads.seq > ?", 0)


def _select(vault: Vault, where: str, value: int) -> list[Wanted]:
    rows = vault.execute(
        "SELECT downloads.seq, device, n, conversation, directory, auto, anew, content, shown FROM downloads"  # noqa: S608
        f" JOIN files USING (device, n) JOIN messages USING (device, n) WHERE {where} ORDER BY auto, downloads.seq",
        (value,),
    ).fetchall()
    return [
        Wanted(
            seq=row[0],
            of=Ref(row[1], row[2]),
            conversation=row[3],
            directory=Path(os.fsdecode(row[4])),
            auto=bool(row[5]),
            anew=bool(row[6]),
            file=_decode_file(row[7]),
            name=_decode_shown(row[8]).name,
        )
        for row in rows
    ]


def begin_anew(vault: Vault, wanted: Wanted) -> None:
    vault.execute("UPDATE downloads SET anew = 1 WHERE seq = ?", (wanted.seq,))


def stop(vault: Vault, wanted: Wanted) -> None:
    """It is not gone on with until somebody wants that."""
    vault.execute("UPDATE downloads SET stopped = 1 WHERE seq = ?", (wanted.seq,))


def go_on(vault: Vault) -> None:
    """With all that have come to a stop."""
    vault.execute("UPDATE downloads SET stopped = 0 WHERE stopped = 1")


def remove(vault: Vault, wanted: Wanted) -> bool:
    """It is done, or will never be. Whether it was still wanted."""
    return bool(vault.execute("DELETE FROM downloads WHERE seq = ?", (wanted.seq,)).rowcount)


def is_wanted(vault: Vault, attachment: str) -> bool:
    """Whether it is still to be fetched into some folder."""
    row = vault.execute(
        "SELECT 1 FROM downloads JOIN files USING (device, n) WHERE attachment = ? LIMIT 1", (attachment,)
    ).fetchone()
    return row is not None


_decode_file = msgspec.json.Decoder(File).decode
_decode_shown = msgspec.json.Decoder(FileShown).decode
