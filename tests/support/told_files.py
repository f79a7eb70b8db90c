"""Files for tests of the chaos run's checker: messages that have one, and what was saved of it, without a network."""

from __future__ import annotations

import hashlib
import secrets
from pathlib import Path

from fastchat_client import files, history
from fastchat_client.content import File, Ref
from fastchat_client.events import State
from fastchat_client.inbox import Inbox
from fastchat_client.outbox import Outbox
from fastchat_client.speaking import compose_file
from tests.chaos.texts import caption
from tests.support.told import NOW, Told
from tests.support.told_groups import ToldGroup


class ToldFiles:
    """Everybody saves in `folder`."""

    def __init__(self, told: Told, folder: Path) -> None:
        self.told = told
        self._folder = folder

    def file(self, sender: str, to: str, data: bytes) -> File:
        """What `sender` says of it; the promise is in the journal."""
        text = caption(sender, to, data)
        self.told.write(sender, {"attached": text})
        digest = hashlib.sha256(data).digest()
        return File(secrets.token_hex(16), bytes(32), len(data), digest, "file.bin", text=text)

    def send(self, sender: str, to: str | ToldGroup, data: bytes, *others: str, accepted: bool = True) -> int:
        """A file that goes as far as it does without a fault; its number. `others`: the members of a group who get
        it."""
        conversation = to.conversation if isinstance(to, ToldGroup) else to
        file = self.file(sender, conversation, data)
        vault = self.told.vaults[sender]
        n = int(compose_file(vault, conversation, file, NOW).rpartition(".")[2])
        if isinstance(to, ToldGroup):
            to.goes(sender, n)
        if not accepted:
            return n
        if isinstance(to, ToldGroup):
            to.accepts(sender, n)
        else:
            with vault.transaction():
                message = Outbox(vault).get(n)
                assert message is not None
                Outbox(vault).accepted(message, NOW, ())
                history.advance(vault, Told.device(sender), n, State.ACCEPTED)
        for user in others or (conversation,):
            self.arrives(user, sender, n, file, conversation if others else sender)
            self.saves(user, sender, n, data)
        return n

    def arrives(self, user: str, sender: str, n: int, file: File, conversation: str) -> None:
        vault, device = self.told.vaults[user], Told.device(sender)
        with vault.transaction():
            Inbox(vault).take(device, n)
            history.add_received(vault, history.Arrived(device, n, conversation, sender, NOW, file.text, own=False))
            files.add(vault, device, n, file)
        self.told.write(user, {"file": file.text})

    def saves(self, user: str, sender: str, n: int, data: bytes) -> None:
        path, vault = self.path(user, sender, n), self.told.vaults[user]
        path.write_bytes(data)
        with vault.transaction():
            files.saved(vault, Ref(Told.device(sender), n), path, auto=False)

    def path(self, user: str, sender: str, n: int) -> Path:
        return self._folder / f"{user} {sender} {n}"
