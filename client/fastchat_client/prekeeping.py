"""This device's own keys: the account's pickle, the seal keys, and what of them is published when.

Everything that is published is stored before it is sent. A one-time key is published once: whether an unanswered
`publish` arrived is not known, and a key that two people begin a session with would fail the second. Fallback and
seal keys are sent again, byte for byte, until that is answered. Writes need a transaction around them.
"""

from __future__ import annotations

import msgspec

from fastchat.identity.links import DeviceIdentity
from fastchat.protocols.wire import DeviceKeys, Signed
from fastchat_client.ratchet import DeviceAccount, SealPrivate
from fastchat_client.vault import Vault

ONE_TIME_KEYS = 50
REFILL_BELOW = 25
FIRST_ONE_TIME_KEYS = 24
"""A registration must fit into the 16 KiB that a line may have before login; the rest follows at once, being below
`REFILL_BELOW`."""
DAY = 86_400_000
ROTATE_AFTER = 7 * DAY
KEEP_REPLACED_SEALS = 30 * DAY


class Prekeeper:
    """`left`: one-time keys that the server still has, as far as is known; None when it is not."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault
        self._pickle_key = vault.blob("pickle_key")
        self.account: DeviceAccount = self._load()
        self.identity: DeviceIdentity = self.account.identity(vault.text("user"))
        self.seals: dict[int, SealPrivate] = {
            row[0]: SealPrivate.from_bytes(row[1]) for row in vault.execute("SELECT id, private FROM seal_keys")
        }
        self.left: int | None = None

    def reload(self) -> None:
        """The account as it is stored: what was tried with it since came to nothing."""
        self.account = self._load()

    def spent(self) -> None:
        """A session was begun with one of our keys: perhaps a one-time key, which is gone now."""
        self.save()
        if self.left:
            self.left -= 1

    @property
    def is_low(self) -> bool:
        """Whether one-time keys are to be published."""
        return self.left is not None and self.left < REFILL_BELOW

    def save(self) -> None:
        self._vault.put("account", self.account.dump(self._pickle_key))

    def first_keys(self, now: int) -> DeviceKeys:
        """What is published with the device itself."""
        keys = DeviceKeys(
            one_time=self.account.new_one_time_keys(self.identity, FIRST_ONE_TIME_KEYS),
            fallback=self.account.new_fallback(self.identity),
            seal=self._new_seal(now),
        )
        self.account.mark_published()
        self.save()
        return keys

    def due(self, now: int) -> DeviceKeys | None:
        """What should be published now, stored already; None if nothing."""
        rotated = self._unanswered()
        if rotated is None and self._is_old(now):
            rotated = DeviceKeys(fallback=self.account.new_fallback(self.identity), seal=self._new_seal(now))
            self._vault.put("publication", msgspec.json.encode(rotated))
        one_time: tuple[Signed, ...] = ()
        if self.left is not None and self.is_low:
            one_time = self.account.new_one_time_keys(self.identity, ONE_TIME_KEYS - self.left)
        if rotated is None and not one_time:
            return None
        self.account.mark_published()
        self.save()
        rotated = rotated or DeviceKeys()
        return DeviceKeys(one_time=one_time, fallback=rotated.fallback, seal=rotated.seal)

    def published(self, left: int) -> None:
        """The server has what it was sent."""
        self.left = left
        self._vault.put("publication", None)

    def purge(self, now: int) -> None:
        """Forget seal keys that were replaced long ago: nobody seals for them any more."""
        old = self._vault.execute("SELECT id FROM seal_keys WHERE replaced_at < ?", (now - KEEP_REPLACED_SEALS,))
        for (seal_id,) in old.fetchall():
            self._vault.execute("DELETE FROM seal_keys WHERE id = ?", (seal_id,))
            self.seals.pop(seal_id, None)

    def _is_old(self, now: int) -> bool:
        newest = max(self.seals.values(), key=lambda seal: seal.id)
        # Also if it was made in a future that the clock has been taken back from.
        return abs(now - newest.at) >= ROTATE_AFTER

    def _unanswered(self) -> DeviceKeys | None:
        stored = self._vault.blob("publication")
        return msgspec.json.decode(stored, type=DeviceKeys) if stored else None

    def _new_seal(self, now: int) -> Signed:
        seal = SealPrivate.generate(max(self.seals, default=0) + 1, now)
        self._vault.execute("UPDATE seal_keys SET replaced_at = ? WHERE replaced_at IS NULL", (now,))
        self._vault.execute(
            "INSERT INTO seal_keys (id, private, made_at) VALUES (?, ?, ?)", (seal.id, seal.to_bytes(), now)
        )
        self.seals[seal.id] = seal
        return seal.statement(self.account, self.identity)

    def _load(self) -> DeviceAccount:
        return DeviceAccount.load(self._vault.text("account"), self._pickle_key)
