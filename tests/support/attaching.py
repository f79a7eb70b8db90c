"""A file is to be sent: what the messenger does for it, without a thread."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import msgspec

from fastchat_client import spool, uploads
from fastchat_client.content import File
from fastchat_client.core import Core
from fastchat_client.uploads import Source, Upload
from fastchat_client.vault import Vault


def attach(core: Core, to: str, data: bytes, name: str = "notes.txt", text: str = "", **changes: Any) -> str:
    """Note it; its attachment. `changes`: what its message says otherwise."""
    spooled = spool.write(core.outgoing, BytesIO(data), name, largest=2**40)
    file = File(spooled.attachment, spooled.key, spooled.size, spooled.sha256, name, text=text)
    source = Source(f"/{name}", len(data), 0, False)
    upload = Upload(to, msgspec.structs.replace(file, **changes), source, core.vault.now())

    def note(vault: Vault, at: int) -> None:
        with vault.transaction():
            uploads.note(vault, upload)

    try:
        core.compose(note)
    finally:
        spooled.close()
    return spooled.attachment
