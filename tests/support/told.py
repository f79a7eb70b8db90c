"""Histories for tests of the chaos run's checker: vaults that say what real ones would, without a network."""

from __future__ import annotations

import atexit
import json
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from copy import copy
from functools import cache
from pathlib import Path

from fastchat_client import history
from fastchat_client.events import State
from fastchat_client.inbox import Inbox
from fastchat_client.outbox import Outbox
from fastchat_client.speaking import compose_text
from fastchat_client.vault import Vault
from tests.chaos.checker import KINDS, Person, Report, check
from tests.chaos.texts import compose

NOW = 1_800_000_000_000


class Told:
    """Vaults and journals of some people in `folder`, filled with the product's own code."""

    def __init__(self, folder: Path, users: Sequence[str]) -> None:
        folder.mkdir(parents=True)
        self.people = [Person(user, folder / f"{user}.db", os.urandom(32), folder / f"{user}.jsonl") for user in users]
        for person in self.people:
            vault = Vault.create(person.vault_path, person.key)
            with vault.transaction():
                vault.put("user", person.user)
                vault.put("device", self.device(person.user))
            vault.close()
        self._open()

    def _open(self) -> None:
        self.vaults = {person.user: Vault.open(person.vault_path, person.key) for person in self.people}
        for vault in self.vaults.values():
            vault.execute("PRAGMA synchronous = OFF")  # nothing here has to survive a power cut
        self.counters: Counter[tuple[str, str]] = Counter()
        self._inboxes = {user: Inbox(vault) for user, vault in self.vaults.items()}
        self._journals = {person.user: person.journal for person in self.people}

    def copy(self, folder: Path) -> Told:
        """The same in another folder, as long as nothing has been said here."""
        folder.mkdir(parents=True)
        told = copy(self)
        told.people = [
            Person(person.user, folder / person.vault_path.name, person.key, folder / person.journal.name)
            for person in self.people
        ]
        self.close()
        for old, new in zip(self.people, told.people, strict=True):
            shutil.copy(old.vault_path, new.vault_path)
        told._open()
        return told

    @staticmethod
    def device(user: str) -> str:
        return user.encode().hex().ljust(32, "0")

    def say(self, sender: str, recipient: str, padding: str = "", *, accepted: bool = True, shown: bool = True) -> str:
        """The next text, as far as it goes without a fault; returns it."""
        self.counters[sender, recipient] += 1
        text = compose(sender, recipient, self.counters[sender, recipient], padding)
        mine, theirs = self.vaults[sender], self.vaults[recipient]
        n = int(compose_text(mine, recipient, text, NOW).rpartition(".")[2])
        if accepted:
            with mine.transaction():
                outbox = Outbox(mine)
                message = outbox.get(n)
                assert message is not None
                outbox.accepted(message, NOW, ())
                history.advance(mine, self.device(sender), n, State.ACCEPTED)
            with theirs.transaction():
                assert self._inboxes[recipient].take(self.device(sender), n)
                arrived = history.Arrived(self.device(sender), n, sender, sender, NOW, text, own=False)
                history.add_received(theirs, arrived)
            if shown:
                self.write(recipient, {"shown": text, "from": sender})
        return text

    def write(self, user: str, entry: Mapping[str, str | int]) -> None:
        """A line of a journal."""
        with self._journals[user].open("a", encoding="utf-8") as journal:
            journal.write(json.dumps(entry) + "\n")

    def journal(self, user: str) -> list[str]:
        return self._journals[user].read_text(encoding="utf-8").splitlines(keepends=True)

    def rewrite(self, user: str, lines: Sequence[str]) -> None:
        self._journals[user].write_text("".join(lines), encoding="utf-8")

    def alter(self, user: str, sql: str, *parameters: object) -> int:
        """Change a vault behind its owner's back; how many rows."""
        return int(self.vaults[user].execute(sql, parameters).rowcount)

    def check(self, explained: Sequence[str] = ()) -> Report:
        return check(self.people, explained)

    def seq(self, user: str, sender: str, n: int) -> int:
        """Where a message stands in the history of `user`."""
        sql = "SELECT seq FROM messages WHERE sender = ? AND n = ?"
        return int(self.vaults[user].execute(sql, (sender, n)).fetchone()[0])

    def close(self) -> None:
        for vault in self.vaults.values():
            vault.close()


@cache
def template() -> Told:
    """Empty vaults, to be copied: making one reaches the disk several times."""
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder)
    return Told(folder / "template", ("alice", "bob", "carol"))


def blank(folder: Path) -> Told:
    """alice, bob and carol, who have said nothing yet."""
    return template().copy(folder)


def found(report: Report) -> set[str]:
    """The kinds that are not 0."""
    return {kind for kind in (*KINDS, "waiting") if getattr(report, kind)}
