"""Files in a chaos run: what a client sends, and that it fetches whatever comes to it.

A file is random bytes, and what is written beside it names their hash: so nobody has to be believed. Its source is gone
as soon as the client has promised to send it.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

from twisted.internet.defer import CancelledError
from twisted.logger import Logger

from fastchat.errors import FastChatError, UnknownAttachment
from fastchat_client.attaching import Attaching
from fastchat_client.core import Core
from fastchat_client.events import TransferFailed
from fastchat_client.vault import Vault
from tests.chaos.texts import caption

OFTEN = 0.1
"""How often a client, when it talks, sends a file as well."""
TO_GROUPS = 0.5
MOST_BYTES = 400_000
MOST_WAITING = 3
"""Files of a client that are on their way up, above which it sends no more."""


class Filing:
    """Of `user`, who saves in `folder`. `write` adds to the journal."""

    log = Logger()

    def __init__(
        self,
        core: Core,
        user: str,
        everybody: Sequence[str],
        folder: Path,
        seed: int,
        write: Callable[[dict[str, str | int]], None],
        reactor: Any,
    ) -> None:
        folder.mkdir(exist_ok=True)
        self._core = core
        self._vault: Vault = core.vault
        self._user = user
        self._others = [other for other in everybody if other != user]
        self._folder = folder
        self._write = write
        self._attaching = Attaching(self._vault, core.outgoing, reactor, core.compose)
        self._preparing = 0
        self._gone: set[str] = set()
        """Messages whose file is not on the network any more, as it says."""
        [files] = self._vault.execute("SELECT COUNT(*) FROM files").fetchone()
        self._random = Random(f"{seed} {user} files {files}")

    @property
    def unsettled(self) -> int:
        """Files that are not where they are to be, and words about them that are not said."""
        counts = [
            self._vault.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0]  # noqa: S608
            for table in ("uploads", "downloads", "attachment_words")
        ]
        return sum(counts) + self._preparing + len(self._to_fetch())

    async def send(self, groups: Sequence[str]) -> None:
        """Perhaps a file, to somebody or to one of `groups`."""
        [waiting] = self._vault.execute("SELECT COUNT(*) FROM uploads").fetchone()
        if self._random.random() >= OFTEN or waiting + self._preparing >= MOST_WAITING:
            return
        to = self._random.choice(groups if groups and self._random.random() < TO_GROUPS else self._others)
        # A client that was killed draws the same again: two files are never the same all the same.
        data = secrets.token_bytes(32) + self._random.randbytes(int(MOST_BYTES * self._random.random() ** 2))
        text = caption(self._user, to, data)
        source = self._folder / f"{text[-16:]}.source"
        source.write_bytes(data)
        self._preparing += 1
        try:
            await self._attaching.attach(to, source, text, True, "", lambda done, size: None)
            self._write({"attached": text})
        except CancelledError:
            self.log.info("{user} stops before a file was promised", user=self._user)
        except FastChatError as problem:  # perhaps the group was left meanwhile
            self.log.info("{user} does not send a file to {to}: {problem}", user=self._user, to=to, problem=problem)
        finally:
            self._preparing -= 1
            source.unlink()

    def tend(self) -> None:
        """Fetch what has come."""
        for message_id in self._to_fetch():
            self._core.fetch(message_id, self._folder)

    def failed(self, event: TransferFailed) -> None:
        """Whether it should have been there, the checker knows."""
        self._write({"failed": event.id or event.attachment, "code": event.code})
        if event.code == UnknownAttachment.code and not event.up:
            self._gone.add(event.id)

    async def stop(self) -> None:
        await self._attaching.stop()

    def _to_fetch(self) -> list[str]:
        rows = self._vault.execute(
            "SELECT device, n FROM files JOIN messages USING (device, n) WHERE own = 0 AND path IS NULL AND NOT EXISTS"
            " (SELECT 1 FROM downloads WHERE downloads.device = files.device AND downloads.n = files.n)"
        )
        return [name for device, n in rows if (name := f"{device}.{n}") not in self._gone]
