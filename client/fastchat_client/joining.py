"""How a vault begins: as a new account with its first device, or as a further device of an account that there is.

Everything is made and stored here before the network hears of it; `entrance.py` then says it, as often as it takes.
"""

from __future__ import annotations

import os

import msgspec

from fastchat.identity.links import sign_add_device, sign_genesis
from fastchat.identity.root import RootKey
from fastchat.protocols.wire import AccountKeys
from fastchat_client.entrance import Registration, Stage
from fastchat_client.password import scram_verifier
from fastchat_client.prekeeping import Prekeeper
from fastchat_client.ratchet import DeviceAccount
from fastchat_client.trust import Accounts
from fastchat_client.vault import Vault


def prepare_registration(
    vault: Vault, user: str, root: RootKey, log_key: bytes, invite: str, login_password: str, now: int
) -> None:
    """Make an empty vault that of `user`'s first device; the next connection registers the account. `log_key`: 32
    bytes, and `invite`: the token, as the invite has them; `login_password`: of `password.login_password`; `now`:
    milliseconds since 1970. Raises `NameNotAllowed`."""
    with vault.transaction():
        prekeeper = _begin(vault, user, root, log_key)
        genesis = sign_genesis(root, user)
        added = sign_add_device(root, [genesis], user, prekeeper.identity.ed25519, prekeeper.identity.curve25519, now)
        keys = prekeeper.first_keys(now)
        registration = Registration(invite, scram_verifier(login_password), (genesis, added), keys)
        vault.put("registration_request", msgspec.json.encode(registration))
        vault.put("registration", Stage.PENDING)
        Accounts(vault).learn(AccountKeys(user, (genesis, added), ()), now)


def change_invite(vault: Vault, invite: str) -> None:
    """Another invite's token, if the registration has not succeeded yet."""
    with vault.transaction():
        request = vault.blob("registration_request")
        if not request or vault.text("registration") == Stage.ENROLLING:
            return
        registration = msgspec.json.decode(request, type=Registration)
        vault.put("registration_request", msgspec.json.encode(msgspec.structs.replace(registration, invite=invite)))


def prepare_enrolment(vault: Vault, user: str, root: RootKey, log_key: bytes, now: int) -> None:
    """Make an empty vault that of a further device of `user`, whose RSA key `root` is; a `Core` that is given an
    `Enrolment` adds it at the next connection."""
    with vault.transaction():
        prekeeper = _begin(vault, user, root, log_key)
        vault.put("registration_request", msgspec.json.encode(prekeeper.first_keys(now)))
        vault.put("registration", Stage.ENROLLING)


def _begin(vault: Vault, user: str, root: RootKey, log_key: bytes) -> Prekeeper:
    account = DeviceAccount.create()
    identity = account.identity(user)
    pickle_key = os.urandom(32)
    vault.put("user", user)
    vault.put("device", identity.device)
    vault.put("ed25519", identity.ed25519)
    vault.put("curve25519", identity.curve25519)
    vault.put("root", root.public_pem)
    vault.put("log_key", log_key)
    vault.put("pickle_key", pickle_key)
    vault.put("account", account.dump(pickle_key))
    return Prekeeper(vault)
