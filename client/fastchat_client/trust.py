"""Which account has which root and which devices, as far as this vault believes it.

The first chain that is seen of an account pins its root; the pin changes only when the person accepts it. A chain may
only grow. What a server hands out is a claim until `learn` has verified it, down to the keys in each bundle. The key
log is not known here (`witness.py`), and neither are sessions.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import msgspec

from fastchat.errors import ChainInvalid, RootChanged, SignatureInvalid
from fastchat.identity.links import Chain, DeviceIdentity, replay
from fastchat.identity.prekeys import SealKey, verify_fallback, verify_one_time, verify_seal
from fastchat.protocols.wire import AccountKeys, Bundle, Signed
from fastchat_client.vault import Vault, fingerprint
from fastchat_client.witness import Contradiction

DAY = 86_400_000
READABLE_FOR = 7 * DAY
"""Milliseconds for which what comes of a revoked device is still read, once its revocation is known here: it may have
been written before."""
SEAL_FRESH_FOR = DAY
"""Milliseconds after which a peer's seal keys are fetched again before anything is sealed for it."""

_links_decoder = msgspec.json.Decoder(tuple[Signed, ...])
_account_decoder = msgspec.json.Decoder(AccountKeys)


@dataclass(frozen=True, slots=True)
class Peer:
    """A device that can be written to."""

    identity: DeviceIdentity
    seal: SealKey


@dataclass(frozen=True, slots=True)
class FreshKeys:
    """What a verified bundle gives for starting a session: a one-time key if there was one left, else the fallback."""

    device: str
    key: bytes


@dataclass(slots=True)
class Account:
    """A pinned account."""

    user: str
    root_pem: bytes
    stale: bool
    fetched_at: int
    offered_root: bytes = b""
    """The other root that the server names now; b"" while all is well."""
    devices: dict[str, DeviceIdentity] = field(default_factory=dict)
    seals: dict[str, SealKey] = field(default_factory=dict)
    revoked: dict[str, DeviceIdentity] = field(default_factory=dict)
    """Those that spoke for it once: nothing is sealed for them, and no session is begun with them."""

    @property
    def peers(self) -> list[Peer]:
        return [Peer(who, self.seals[device]) for device, who in self.devices.items() if device in self.seals]


class Accounts:
    """Every account that this vault knows. Writes need a transaction around them."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault
        self._cache: dict[str, Account] = {}
        self.changes = 0
        """How often something has become known of an account that may matter to who writes to it."""
        self._by_hash = {_hash(user): user for (user,) in vault.execute("SELECT user FROM accounts")}
        self.revoked: dict[str, str] = dict(
            vault.execute("SELECT device, user FROM devices WHERE revoked_at NOT NULL").fetchall()
        )
        """Every device (its user) that is known to speak for nobody any more."""

    def get(self, user: str) -> Account | None:
        """The account, if its root is pinned."""
        account = self._cache.get(user)
        if account is None and _hash(user) in self._by_hash:
            account = self._cache[user] = self._load(user)
        return account

    def is_fresh(self, user: str, now: int) -> bool:
        """Whether its devices and seal keys are new enough to seal for. A clock that was set back makes them old."""
        account = self.get(user)
        return account is not None and not account.stale and 0 <= now - account.fetched_at < SEAL_FRESH_FOR

    def learn(self, keys: AccountKeys, now: int, chain: Chain | None = None) -> tuple[list[FreshKeys], list[str]]:
        """Verify what the server says of an account and keep what is new in it. Returns the keys for new sessions, and
        what was refused in single bundles, in words. `chain`: what `replay` made of the links, if that is done.

        Raises `ChainInvalid` or `SignatureInvalid` (nothing is kept), `RootChanged` (it is kept as an offer),
        `Contradiction` (the same root has signed another past)."""
        self.changes += 1
        chain = chain or replay(keys.user, keys.links)
        account = self.get(keys.user)
        if account is None:
            account = self._pin(chain)
        elif account.root_pem != chain.root_pem:
            self._vault.execute(
                "UPDATE accounts SET offered = ?, offered_root = ? WHERE user = ?",
                (msgspec.json.encode(keys), chain.root_pem, keys.user),
            )
            account.offered_root = chain.root_pem
            raise RootChanged(f"{keys.user} now has the key {fingerprint(chain.root_pem)}")
        else:
            self._check_growth(account, keys)
        return self._keep(account, chain, keys, now)

    def accept(self, user: str, now: int) -> list[str] | None:
        """Believe the root that the server names: pin it in place of the old one. Returns the devices that are believed
        no longer; None if no other root is on offer. The account is stale then: its bundles were handed out a while
        ago."""
        row = self._vault.execute("SELECT offered FROM accounts WHERE user = ?", (user,)).fetchone()
        if row is None or row[0] is None:
            return None
        old = self._load(user)
        self._vault.execute("DELETE FROM devices WHERE user = ?", (user,))
        self._vault.execute("DELETE FROM accounts WHERE user = ?", (user,))
        del self._by_hash[_hash(user)]
        self._cache.pop(user, None)
        self.learn(_account_decoder.decode(row[0]), now)
        self.mark_user_stale(user)
        return [*old.devices, *old.revoked]

    def named(self, user_hashes: set[bytes]) -> list[str]:
        """Those of the pinned accounts whose names have these hashes (SHA-256)."""
        return [user for user in map(self._by_hash.get, user_hashes) if user is not None]

    def links(self, user: str) -> tuple[Signed, ...]:
        """The chain that is believed."""
        row = self._vault.execute("SELECT links FROM accounts WHERE user = ?", (user,)).fetchone()
        return () if row is None else tuple(_links_decoder.decode(row[0]))

    def ever(self, user: str, device: str) -> DeviceIdentity | None:
        """The device, also if it is revoked by now: what it signed before is still to be verified."""
        account = self.get(user)
        if account is None or device in account.devices:
            return None if account is None else account.devices[device]
        return replay(user, self.links(user)).revoked.get(device)

    def mark_user_stale(self, user: str) -> None:
        """There is news of this account: fetch it before anything is sealed for it again."""
        account = self.get(user)
        if account is not None and not account.stale:
            self.changes += 1
            account.stale = True
            self._vault.execute("UPDATE accounts SET stale = 1 WHERE user = ?", (user,))

    def long_revoked(self, now: int) -> list[str]:
        """Devices of which nothing is to be read any more."""
        rows = self._vault.execute("SELECT device FROM devices WHERE revoked_at < ?", (now - READABLE_FOR,))
        return [device for (device,) in rows]

    # --- within ------------------------------------------------------------------------------------------------------

    def _load(self, user: str) -> Account:
        row = self._vault.execute(
            "SELECT root, stale, fetched_at, offered_root FROM accounts WHERE user = ?", (user,)
        ).fetchone()
        account = Account(user, row[0], bool(row[1]), row[2], row[3] or b"")
        for device, ed25519, curve25519, seal, revoked_at in self._vault.execute(
            "SELECT device, ed25519, curve25519, seal, revoked_at FROM devices WHERE user = ? ORDER BY device", (user,)
        ):
            known = account.devices if revoked_at is None else account.revoked
            known[device] = DeviceIdentity(user, device, ed25519, curve25519)
            if seal is not None:
                account.seals[device] = msgspec.json.decode(seal, type=SealKey)
        return account

    def _pin(self, chain: Chain) -> Account:
        self._vault.execute(
            "INSERT INTO accounts (user, root, links, fetched_at) VALUES (?, ?, '[]', 0)", (chain.user, chain.root_pem)
        )
        self._by_hash[_hash(chain.user)] = chain.user
        account = self._cache[chain.user] = Account(chain.user, chain.root_pem, False, 0)
        return account

    def _check_growth(self, account: Account, keys: AccountKeys) -> None:
        before = [link.body for link in self.links(account.user)]
        given = [link.body for link in keys.links]
        if given[: len(before)] == before:
            return
        if before[: len(given)] == given:
            raise ChainInvalid(f"the server hides links of {account.user} that it has shown before")
        raise Contradiction(f"two different chains of {account.user} were shown", before=before, now=given)

    def _keep(self, account: Account, chain: Chain, keys: AccountKeys, now: int) -> tuple[list[FreshKeys], list[str]]:
        for device, identity in chain.revoked.items():
            if device not in account.revoked:
                account.devices.pop(device, None)
                account.seals.pop(device, None)
                account.revoked[device] = identity
                self.revoked[device] = account.user
                self._vault.execute(
                    "INSERT OR REPLACE INTO devices (device, user, ed25519, curve25519, revoked_at)"
                    " VALUES (?, ?, ?, ?, ?)",
                    (device, account.user, identity.ed25519, identity.curve25519, now),
                )
        for device, identity in chain.devices.items():
            if device not in account.devices:
                account.devices[device] = identity
                self._vault.execute(
                    "INSERT OR REPLACE INTO devices (device, user, ed25519, curve25519) VALUES (?, ?, ?, ?)",
                    (device, account.user, identity.ed25519, identity.curve25519),
                )
        fresh, refused = [], []
        for bundle in keys.bundles:
            try:
                fresh.append(self._keep_bundle(account, bundle))
            except SignatureInvalid as error:
                refused.append(f"keys of {account.user}'s device {bundle.device} are not believed: {error.message}")
        account.stale, account.fetched_at = False, now
        self._vault.execute(
            "UPDATE accounts SET links = ?, stale = 0, fetched_at = ?, offered = NULL, offered_root = NULL"
            " WHERE user = ?",
            (msgspec.json.encode(keys.links), now, account.user),
        )
        account.offered_root = b""
        return fresh, refused

    def _keep_bundle(self, account: Account, bundle: Bundle) -> FreshKeys:
        identity = account.devices.get(bundle.device)
        if identity is None:
            raise SignatureInvalid("the account's chain does not name this device")
        seal = verify_seal(identity, bundle.seal)
        key = verify_fallback(identity, bundle.fallback)
        if bundle.one_time is not None:
            key = verify_one_time(identity, bundle.one_time)
        known = account.seals.get(bundle.device)
        if known is not None and (seal.id < known.id or (seal.id == known.id and seal != known)):
            raise SignatureInvalid("an older seal key was handed out again")
        if seal != known:
            account.seals[bundle.device] = seal
            self._vault.execute(
                "UPDATE devices SET seal_id = ?, seal = ? WHERE device = ?",
                (seal.id, msgspec.json.encode(seal), bundle.device),
            )
        return FreshKeys(bundle.device, key)


def _hash(user: str) -> bytes:
    return hashlib.sha256(user.encode()).digest()
