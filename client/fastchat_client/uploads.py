"""Files that are on their way to the network, as rows of the vault that any process of the profile may make, find and
unmake; the one that is connected sends them (`uploading.py`). The chunks themselves are in a folder (`spool.py`).
Writes need a transaction around them.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from fastchat_client import attachment_words
from fastchat_client.content import File, decode_content, encode_content
from fastchat_client.vault import Vault


@dataclass(frozen=True, slots=True)
class Source:
    """What a person wanted to be sent, by which the same is recognised when it is wanted once more. `path`: absolute;
    `size` in bytes; `mtime` in nanoseconds."""

    path: str
    size: int
    mtime: int
    original: bool


@dataclass(frozen=True, slots=True)
class Upload:
    """A file that is not wholly on the network yet, and the message that goes out once it is. `at`: milliseconds since
    1970."""

    conversation: str
    file: File
    source: Source
    at: int

    @property
    def attachment(self) -> str:
        return self.file.attachment


_COLUMNS = "conversation, content, source, source_size, source_mtime, original, at"


def note(vault: Vault, upload: Upload) -> None:
    """From here on it is sent, whatever happens. Its chunks are on the disk, durably."""
    source = upload.source
    vault.execute(
        "INSERT INTO uploads (attachment, conversation, content, source, source_size, source_mtime, original, at)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (
            *(upload.attachment, upload.conversation, encode_content(upload.file)),
            *(os.fsencode(source.path), source.size, source.mtime, source.original, upload.at),
        ),
    )


def get(vault: Vault, attachment: str) -> Upload | None:
    row = vault.execute(f"SELECT {_COLUMNS} FROM uploads WHERE attachment = ?", (attachment,)).fetchone()  # noqa: S608
    return None if row is None else _upload(row)


def attachments(vault: Vault) -> list[str]:
    """Of all that are not finished, in the order in which they were wanted."""
    return [attachment for (attachment,) in vault.execute("SELECT attachment FROM uploads ORDER BY at, rowid")]


def unfinished(vault: Vault) -> list[Upload]:
    """In the order in which they were wanted."""
    return [_upload(row) for row in vault.execute(f"SELECT {_COLUMNS} FROM uploads ORDER BY at, rowid")]  # noqa: S608


def same(vault: Vault, conversation: str, source: Source, text: str, reply: str) -> str:
    """The attachment of the unfinished upload that this would be once more; "" if there is none."""
    for upload in unfinished(vault):
        answered = upload.file.reply
        named = f"{answered.device}.{answered.n}" if answered else ""
        if (upload.conversation, upload.source, upload.file.text, named) == (conversation, source, text, reply):
            return upload.attachment
    return ""


def remove(vault: Vault, attachment: str) -> bool:
    """It is done. Whether it was there."""
    return bool(vault.execute("DELETE FROM uploads WHERE attachment = ?", (attachment,)).rowcount)


def cancel(vault: Vault, attachment: str) -> bool:
    """It is not wanted any more, and the network is told so; the spool is the caller's to remove, once this is
    committed. Whether it was there."""
    was_there = remove(vault, attachment)
    if was_there:
        attachment_words.tell_detached(vault, attachment)
    return was_there


def _upload(row: tuple[str, bytes, bytes, int, int, int, int]) -> Upload:
    content = decode_content(row[1])
    assert isinstance(content, File)
    return Upload(row[0], content, Source(os.fsdecode(row[2]), row[3], row[4], bool(row[5])), row[6])
