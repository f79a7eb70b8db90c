"""Accounts for the load, put straight into the database: what it costs to make them is not measured here. It uses
the store's own statements, but knows nothing of the running server."""

from __future__ import annotations

import os
from collections.abc import Sequence

import psycopg2
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fastchat.identity import login
from fastchat.identity.keylog import LEAF_SIZE
from fastchat.identity.links import device_id
from fastchat.protocols.wire import Login
from fastchat.store.queries import query

ONE_TIME_KEYS = 50
LINKS = 2
"""What an account has after its registration."""

_ADD_USER, _ADD_DEVICE = query("add_user"), query("add_device")
_ADD_ONE_TIME, _APPEND_LEAVES = query("add_one_time_keys"), query("append_leaves")
_MAILBOX_SIZE = query("mailbox_size")


class Device:
    """One account's only device: it can log in."""

    def __init__(self, user: str) -> None:
        self.user = user
        self._key = Ed25519PrivateKey.generate()
        self.ed25519 = self._key.public_key().public_bytes_raw()
        self.curve25519 = os.urandom(32)
        self.id = device_id(self.ed25519, self.curve25519)
        self.n = 0
        """Number of its last message."""

    def sign(self, data: bytes) -> bytes:
        return self._key.sign(data)

    def login(self, exporter: bytes, challenge: bytes) -> Login:
        signature = self._key.sign(login.statement(exporter, challenge, self.user, self.id))
        return Login(id=1, user=self.user, device=self.id, signature=signature)


class Database:
    """The server's own database, seen from outside."""

    def __init__(self, dsn: str) -> None:
        self._connection = psycopg2.connect(dsn)
        self._connection.autocommit = True

    def close(self) -> None:
        self._connection.close()

    def add(self, devices: Sequence[Device]) -> None:
        """Their accounts, with keys and leaves of the key log of the right number and size; in one transaction."""
        with self._connection.cursor() as cursor:
            cursor.execute("begin")
            for device in devices:
                cursor.execute(
                    _ADD_USER,
                    {
                        "name": device.user,
                        "rsa_public_key": os.urandom(426),
                        "salt": os.urandom(32),
                        "iterations": 4096,
                        "stored_key": os.urandom(32),
                        "server_key": os.urandom(32),
                    },
                )
                cursor.execute(
                    _ADD_DEVICE,
                    {
                        "device": device.id,
                        "user": device.user,
                        "ed25519": device.ed25519,
                        "curve25519": device.curve25519,
                    },
                )
                cursor.execute(
                    _ADD_ONE_TIME,
                    {
                        "device": device.id,
                        "bodies": [os.urandom(120) for _ in range(ONE_TIME_KEYS)],
                        "signatures": [os.urandom(64) for _ in range(ONE_TIME_KEYS)],
                    },
                )
            leaves = [os.urandom(LEAF_SIZE) for _ in range(LINKS * len(devices))]
            cursor.execute(_APPEND_LEAVES, {"leaves": leaves})
            cursor.execute("commit")

    def settle(self) -> None:
        """So that no autovacuum or checkpoint of what was just made falls into a measurement."""
        with self._connection.cursor() as cursor:
            cursor.execute("vacuum analyze")
            cursor.execute("checkpoint")

    def waiting(self, device: Device) -> int:
        """How many messages are in its mailbox."""
        with self._connection.cursor() as cursor:
            cursor.execute(_MAILBOX_SIZE, {"device": device.id})
            rows = cursor.fetchall()
        return int(rows[0][0]) if rows else 0
