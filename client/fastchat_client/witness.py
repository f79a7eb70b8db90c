"""This client's own copy of the network's key log: every leaf, and the log's root after each.

What the server signs is held against it, and so is what peers say they saw. It believes only what the pinned log key
signed; what an account's links mean is not known here. A contradiction is a `LogInconsistent`: its text is for a
person, its evidence for whoever is asked to judge.
"""

from __future__ import annotations

import hashlib
from enum import Enum

import msgspec

from fastchat.errors import LogInconsistent
from fastchat.identity.keylog import LEAF_SIZE, Frontier, leaf, split, verify_checkpoint
from fastchat.protocols.wire import Checkpoint, Signed
from fastchat_client.vault import Vault


class Coverage(Enum):
    """How an account's links compare with the log."""

    COVERED = "every link is in the log, and the newest of them is the log's newest of this account"
    AHEAD = "a link is not in the log, as far as it is known here"
    BEHIND = "the log knows a newer link of this account"


class Contradiction(LogInconsistent):
    """The server contradicts its key log."""

    peer = ""
    """The device that says so; "" if it follows from what the server signed."""

    def __init__(self, message: str, **evidence: object) -> None:
        super().__init__(message)
        self.evidence = msgspec.json.format(msgspec.json.encode({"what": message, **evidence}), indent=2).decode()


class Witness:
    """The log as this vault knows it. Writes need a transaction around them."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault
        self._log_key = vault.blob("log_key")
        state = vault.blob("log_frontier")
        self._frontier = Frontier.from_bytes(state) if state else Frontier()

    @property
    def size(self) -> int:
        """Leaves that are known here."""
        return self._frontier.size

    @property
    def root(self) -> bytes:
        return self._frontier.root()

    def check(self, checkpoint: Checkpoint) -> None:
        """Raises `Contradiction` if `checkpoint` is not signed by the log key, or is of a size that is known here
        with another root."""
        try:
            verify_checkpoint(self._log_key, checkpoint)
        except LogInconsistent as error:
            raise Contradiction(error.message, given=checkpoint, log_key=self._log_key) from None
        if checkpoint.size <= self.size and self._root_at(checkpoint.size) != checkpoint.root:
            raise Contradiction("the server signed two different key logs", given=checkpoint, **self._known())
        if checkpoint.size >= self._vault.number("log_signed_size"):
            self._vault.put("log_signed_size", checkpoint.size)
            self._vault.put("log_signed", msgspec.json.encode(checkpoint))

    def extend(self, leaves: bytes, checkpoint: Checkpoint) -> set[bytes]:
        """Take the leaves that follow on ours; the hashes of the users' names in them. `checkpoint` must be of the log
        with exactly these leaves. Raises `Contradiction`, having taken none."""
        frontier, rows = self._frontier.copy(), []
        try:
            for one in split(leaves):
                frontier.append(one)
                rows.append((frontier.size, one[:32], int.from_bytes(one[32:40], "big"), one[40:], frontier.root()))
        except LogInconsistent as error:
            raise Contradiction(error.message, given=checkpoint) from None
        if checkpoint.size != frontier.size or checkpoint.root != frontier.root():
            raise Contradiction(
                "the key log that the server tells is not the one that it signed",
                given=checkpoint,
                start=self.size,
                leaves=leaves[: 100 * LEAF_SIZE],
                computed={"size": frontier.size, "root": frontier.root()},
                **self._known(),
            )
        self.check(checkpoint)
        if any(row[2] > 2**53 for row in rows):
            raise Contradiction("a leaf of the key log has an impossible position", given=checkpoint)
        self._vault.execute_many(
            "INSERT INTO log (size, user_hash, position, link_hash, root) VALUES (?, ?, ?, ?, ?)", rows
        )
        self._frontier = frontier
        self._vault.put("log_frontier", frontier.to_bytes())
        return {row[1] for row in rows}

    def coverage(self, user: str, links: tuple[Signed, ...]) -> Coverage:
        """How the chain of `user` compares with the leaves that are known here."""
        user_hash = hashlib.sha256(user.encode()).digest()
        logged = self._vault.execute(
            "SELECT position, link_hash FROM log WHERE user_hash = ? ORDER BY size", (user_hash,)
        ).fetchall()
        ours = [(position, leaf(user, position, link)[40:]) for position, link in enumerate(links)]
        if not set(ours) <= set(logged):
            return Coverage.AHEAD
        return Coverage.COVERED if logged and logged[-1] == ours[-1] else Coverage.BEHIND

    # --- what peers saw ----------------------------------------------------------------------------------------------

    def compare(self, device: str, size: int, root: bytes) -> bool:
        """Hold what a peer's device says it saw against our log. False: it has seen more than we have; it is kept until
        `settle`. Raises `Contradiction` if our log had another root at that size."""
        if size > self.size:
            self._vault.execute(
                "INSERT OR REPLACE INTO claims (device, size, root) VALUES (?, ?, ?)", (device, size, root)
            )
            return False
        self._hold(device, size, root)
        return True

    def settle(self) -> list[Contradiction]:
        """Compare what peers had seen and we had not; where they saw another log."""
        rows = self._vault.execute("SELECT device, size, root FROM claims WHERE size <= ?", (self.size,)).fetchall()
        self._vault.execute("DELETE FROM claims WHERE size <= ?", (self.size,))
        found = []
        for device, size, root in rows:
            try:
                self._hold(device, size, root)
            except Contradiction as contradiction:
                found.append(contradiction)
        return found

    def ahead(self) -> set[str]:
        """Devices that say that they have seen more of the log than is known here."""
        return {device for (device,) in self._vault.execute("SELECT device FROM claims WHERE size > ?", (self.size,))}

    def withheld(self, device: str) -> Contradiction:
        """The server says that its log ends before what `device` has seen of it."""
        row = self._vault.execute("SELECT size, root FROM claims WHERE device = ?", (device,)).fetchone()
        contradiction = Contradiction(
            "somebody was shown more of the key log than we are",
            theirs={"device": device, "size": row[0], "root": row[1]},
            ours={"size": self.size, "root": self.root},
            **self._known(),
        )
        contradiction.peer = device
        return contradiction

    def _hold(self, device: str, size: int, root: bytes) -> None:
        if self._root_at(size) != root:
            contradiction = Contradiction(
                "somebody was shown another key log than we were",
                theirs={"device": device, "size": size, "root": root},
                ours={"size": size, "root": self._root_at(size)},
                **self._known(),
            )
            contradiction.peer = device
            raise contradiction

    def _root_at(self, size: int) -> bytes:
        if size == 0:
            return Frontier().root()
        row = self._vault.execute("SELECT root FROM log WHERE size = ?", (size,)).fetchone()
        return b"" if row is None else bytes(row[0])

    def _known(self) -> dict[str, object]:
        signed = self._vault.blob("log_signed")
        return {"signed_before": msgspec.json.decode(signed) if signed else None}
