"""The network's store: PostgreSQL, through the named queries of `sql/queries`.

Mail is written on one connection and deleted on another, so that a batch waits for nobody; the rest shares a pool.
A transaction begins and ends where it is written. This module turns rows into typed values and constraint violations
into the errors that the interface names; it knows no session, no wire and no clock but the database's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any, TypeVar

import psycopg2
from psycopg2.extensions import parse_dsn
from twisted.internet.defer import Deferred, gatherResults

from fastchat.config import Config
from fastchat.errors import (
    Busy,
    ChainInvalid,
    ConfigError,
    InviteInvalid,
    UnknownDevice,
    UnknownUser,
)
from fastchat.protocols.wire import Bundle, DeviceKeys, ScramVerifier, Signed
from fastchat.store import ANY_SIZE, ONE_TIME_KEYS_KEPT, Account, Device, Mail, Stored, Waiting
from fastchat.store.bodies import bodies
from fastchat.store.connections import Pool, Session
from fastchat.store.copying import CopyPool
from fastchat.store.literals import Octets, array, text_array
from fastchat.store.migrations import migrate
from fastchat.store.pools import DATABASE_AWAY, ConnectionPool, first_line
from fastchat.store.postgres_attachments import PREPARE_CHUNK_WRITER, PostgresAttachments
from fastchat.store.postgres_groups import PostgresGroups
from fastchat.store.postgres_revocation import revoke
from fastchat.store.queries import MIGRATIONS, query
from fastchat.store.values import OCTETS_ENCODING, hex_digits, possible, violations_named

_USE_INVITE, _FIND_INVITE, _ADD_INVITE = query("use_invite"), query("find_invite"), query("add_invite")
_ADD_USER, _USER, _LOCK_USER = query("add_user"), query("user"), query("lock_user")
_ADD_LINK, _LINKS, _CHAIN_LENGTH = query("add_link"), query("links"), query("chain_length")
_ADD_DEVICE, _DEVICE, _DEVICES, _LOCK_DEVICE = (
    query("add_device"),
    query("device"),
    query("devices"),
    query("lock_device"),
)
_PUT_PREKEY, _BUNDLES = query("put_prekey"), query("bundles")
_ADD_ONE_TIME, _DROP_ONE_TIME = query("add_one_time_keys"), query("drop_old_one_time_keys")
_COUNT_ONE_TIME, _CLAIM_ONE_TIME = query("count_one_time_keys"), query("claim_one_time_keys")
_APPEND_LEAVES, _LOG_LEAVES = query("append_leaves"), query("log_leaves")
_STORE_MAIL, _PREPARE_STORE_MAIL = query("store_mail"), query("prepare_store_mail")
_DELETE_MAIL = query("delete_mail")
_MAILBOX, _MAILBOX_SIZE, _WAITING = query("mailbox"), query("mailbox_size"), query("waiting")

P = TypeVar("P", bound=ConnectionPool[Any])

_MIGRATION_SECONDS = 600.0
"""A deadline for all migrations, or for waiting until another process has applied them."""


class PostgresStore(PostgresGroups, PostgresAttachments):
    """A `Store` and an `AttachmentStore` in the database that `dsn` (a libpq connection string) names."""

    def __init__(self, dsn: str, config: Config, reactor: Any) -> None:
        self._dsn = dsn
        self._limits = config.limits
        self._database = config.database
        self._reactor = reactor
        self._pools: tuple[ConnectionPool[Any], ...] = ()

    # --- lifecycle -------------------------------------------------------------------------------------------

    async def open(self) -> None:
        try:
            place = parse_dsn(self._dsn)
        except psycopg2.Error:
            # What it says may quote any part of the DSN, the password too.
            raise ConfigError("the database's DSN is not a libpq connection string") from None
        migrating = self._pool(Pool, "migrations", 1, seconds=_MIGRATION_SECONDS)
        self._general = self._pool(Pool, "database", self._database.connections)
        self._writer = self._pool(Pool, "mail writer", 1, prepare=_PREPARE_STORE_MAIL, synchronous_commit="on")
        # A deletion that a crash undoes is a message delivered once more, and dropped by its recipient.
        self._deleter = self._pool(Pool, "mail deleter", 1, synchronous_commit="off")
        self._chunk_writer = self._pool(
            CopyPool, "chunk writer", 1, prepare=PREPARE_CHUNK_WRITER, synchronous_commit="on"
        )
        self._chunk_reader = self._pool(Pool, "chunk reader", 1, client_encoding=OCTETS_ENCODING)
        # What a crash brings back goes with the next sweep.
        self._chunk_dropper = self._pool(Pool, "chunk dropper", 1, synchronous_commit="off")
        chunks = self._chunk_writer, self._chunk_reader, self._chunk_dropper
        try:
            await migrating.open()
            await migrating.run(lambda session: migrate(session, MIGRATIONS))
            self._pools = (self._general, self._writer, self._deleter, *chunks)
            for pool in self._pools:
                await pool.open()
        except (psycopg2.Error, *DATABASE_AWAY, Busy) as error:
            await self.close()
            reason = first_line(error.__cause__ or error)
            if password := place.get("password"):
                reason = reason.replace(password, "…")
            raise ConfigError(f"cannot use the {_where(place)}: {reason}") from None
        finally:
            await migrating.close()

    async def close(self) -> None:
        for pool in self._pools:
            await pool.close()

    async def answers(self, seconds: float) -> bool:
        found = await gatherResults([Deferred.fromCoroutine(pool.answers(seconds)) for pool in self._pools])
        return self.available and all(found)

    @property
    def available(self) -> bool:
        return bool(self._pools) and all(pool.available for pool in self._pools)

    def _pool(
        self,
        kind: type[P],
        name: str,
        size: int,
        seconds: float | None = None,
        prepare: str | None = None,
        **settings: str,
    ) -> P:
        return kind(
            name,
            self._dsn,
            settings,
            size,
            self._database.connect_seconds,
            seconds or self._database.statement_seconds,
            self._reactor,
            prepare,
        )

    # --- accounts and devices --------------------------------------------------------------------------------

    async def register(
        self,
        account: Account,
        device: Device,
        links: Sequence[Signed],
        keys: DeviceKeys,
        leaves: Sequence[bytes],
        invite: bytes,
    ) -> None:
        async def work(session: Session) -> None:
            with violations_named():
                await add(session)

        async def add(session: Session) -> None:
            async with session.transaction():
                # First of all: who has no invite does not learn which names are taken.
                if not await session.rows(_USE_INVITE, {"digest": invite}):
                    raise InviteInvalid
                await session.run(
                    _ADD_USER,
                    {
                        "name": account.user,
                        "rsa_public_key": account.rsa_public_key,
                        "salt": account.verifier.salt,
                        "iterations": account.verifier.iterations,
                        "stored_key": account.verifier.stored_key,
                        "server_key": account.verifier.server_key,
                    },
                )
                for position, link in enumerate(links):
                    await _add_link(session, account.user, position, link)
                await _add_device(session, device)
                await _put_keys(session, device.device, keys)
                await session.run(_APPEND_LEAVES, {"leaves": list(leaves)})

        await self._general.run(work)

    async def add_device(self, device: Device, position: int, link: Signed, keys: DeviceKeys, leaf: bytes) -> None:
        async def work(session: Session) -> None:
            with violations_named():
                await add(session)

        async def add(session: Session) -> None:
            async with session.transaction():
                if not await session.rows(_LOCK_USER, {"name": device.user}):
                    raise UnknownUser
                [(length,)] = await session.rows(_CHAIN_LENGTH, {"name": device.user})
                if length != position:
                    raise ChainInvalid(f"The chain has {length} links by now.")
                await _add_link(session, device.user, position, link)
                await _add_device(session, device)
                await _put_keys(session, device.device, keys)
                await session.run(_APPEND_LEAVES, {"leaves": [leaf]})

        await self._general.run(work)

    async def revoke_device(self, user: str, device: str, position: int, link: Signed, leaf: bytes) -> None:
        await self._general.run(lambda session: revoke(session, user, device, position, link, leaf))

    async def account(self, user: str) -> Account | None:
        for name, rsa_public_key, salt, iterations, stored_key, server_key in await self._named(_USER, user):
            verifier = ScramVerifier(bytes(salt), iterations, bytes(stored_key), bytes(server_key))
            return Account(name, bytes(rsa_public_key), verifier)
        return None

    async def device(self, device: str) -> Device | None:
        for row in await self._rows(_DEVICE, {"device": device}):
            return _device(*row)
        return None

    async def links(self, users: Sequence[str]) -> Mapping[str, Sequence[Signed]]:
        chains: dict[str, list[Signed]] = {}
        for user, body, signature in await self._rows(_LINKS, {"names": possible(users)}):
            chains.setdefault(user, []).append(Signed(bytes(body), bytes(signature)))
        return chains

    async def devices(self, users: Sequence[str]) -> Mapping[str, Sequence[Device]]:
        found: dict[str, list[Device]] = {}
        for row in await self._rows(_DEVICES, {"names": possible(users)}):
            device = _device(*row)
            found.setdefault(device.user, []).append(device)
        return found

    async def _named(self, sql: str, user: str) -> list[tuple[Any, ...]]:
        return await self._rows(sql, {"name": user}) if possible([user]) else []

    # --- prekeys ---------------------------------------------------------------------------------------------

    async def publish(self, device: str, keys: DeviceKeys) -> int:
        async def work(session: Session) -> int:
            async with session.transaction():
                if not await session.rows(_LOCK_DEVICE, {"device": device}):
                    raise UnknownDevice
                await _put_keys(session, device, keys)
                [(left,)] = await session.rows(_COUNT_ONE_TIME, {"device": device})
                return int(left)

        return await self._general.run(work)

    async def bundles(self, devices: Sequence[str], claim: bool) -> Sequence[Bundle]:
        asked = array(dict.fromkeys(devices))

        async def work(session: Session) -> list[Bundle]:
            rows = await session.rows(_BUNDLES, {"devices": asked})
            one_time: dict[str, Signed] = {}
            if claim and rows:
                claimed = await session.rows(_CLAIM_ONE_TIME, {"devices": array(row[0] for row in rows)})
                one_time = {device: Signed(bytes(body), bytes(signature)) for device, body, signature in claimed}
            return [
                Bundle(
                    hex_digits(device),
                    Signed(bytes(seal), bytes(seal_signature)),
                    Signed(bytes(fallback), bytes(fallback_signature)),
                    one_time.get(device),
                )
                for device, seal, seal_signature, fallback, fallback_signature in rows
            ]

        return await self._general.run(work)

    async def one_time_keys(self, device: str) -> int:
        [(left,)] = await self._rows(_COUNT_ONE_TIME, {"device": device})
        return int(left)

    # --- the key log -----------------------------------------------------------------------------------------

    async def log_leaves(self, start: int, limit: int) -> Sequence[bytes]:
        return [bytes(leaf) for (leaf,) in await self._rows(_LOG_LEAVES, {"start": start, "limit": limit})]

    # --- mailboxes -------------------------------------------------------------------------------------------

    async def store_mail(self, batch: Sequence[Mail]) -> Sequence[Stored]:
        if not batch:
            return []
        distinct, numbers = bodies(batch)
        _, users, devices, ns, times, contents, _ = zip(*distinct, strict=True)
        lengths = [len(content) for content in contents]
        by_body = text_array(users), array(lengths)
        recipients = [mail.recipient for mail in batch]
        sizes, by_recipient = lengths, by_body
        if distinct is not batch:
            sizes = [len(mail.body) for mail in batch]
            by_recipient = text_array([mail.user for mail in batch]), array(sizes)
        most = max(Counter(recipients).values())
        share_messages, share_bytes = self._limits.share_of_mailbox
        parameters = {
            "recipients": array(recipients),
            "numbers": array([number + 1 for number in numbers]),
            "senders": by_recipient[0],
            "sizes": by_recipient[1],
            "users": by_body[0],
            "devices": array(devices),
            "ns": array(ns),
            "times": array(times),
            "starts": array(accumulate(lengths[:-1], initial=1)),
            "lengths": by_body[1],
            "bodies": Octets(b"".join(contents)),
            "more_messages": most,
            "more_bytes": min(most * max(sizes), sum(sizes)),
            "most_messages": self._limits.mailbox_messages,
            "most_bytes": self._limits.mailbox_bytes,
            "share_messages": share_messages,
            "share_bytes": share_bytes,
        }
        rows = await self._writer.run(lambda session: session.rows(_STORE_MAIL, parameters))
        return [_OUTCOMES[outcome] for (outcome,) in rows]

    async def mailbox(
        self, device: str, in_flight: Sequence[int], limit: int, enough: int = ANY_SIZE
    ) -> Sequence[Waiting]:
        parameters = {"device": device, "in_flight": array(in_flight), "limit": limit, "enough": enough}
        rows = await self._rows(_MAILBOX, parameters)
        return [
            Waiting(message, user, hex_digits(sender), n, at, bytes(body))
            for message, user, sender, n, at, body in rows
        ]

    async def mailbox_size(self, device: str) -> int:
        rows = await self._rows(_MAILBOX_SIZE, {"device": device})
        return int(rows[0][0]) if rows else 0

    async def waiting(self, devices: Sequence[str]) -> Sequence[str]:
        return [hex_digits(device) for (device,) in await self._rows(_WAITING, {"devices": array(devices)})]

    async def delete_mail(self, rows: Sequence[tuple[str, int]]) -> None:
        if rows:
            devices, messages = zip(*rows, strict=True)
            parameters = {"devices": array(devices), "messages": array(messages)}
            await self._deleter.run(lambda session: session.run(_DELETE_MAIL, parameters))

    # --- invites ---------------------------------------------------------------------------------------------

    async def add_invite(self, invite: bytes, uses: int | None, expires: int | None) -> None:
        parameters = {"digest": invite, "uses": uses, "expires": expires}
        await self._general.run(lambda session: session.run(_ADD_INVITE, parameters))

    async def can_invite(self, invite: bytes) -> bool:
        return bool(await self._rows(_FIND_INVITE, {"digest": invite}))


_OUTCOMES = {stored.value: stored for stored in Stored}


async def _add_link(session: Session, user: str, position: int, link: Signed) -> None:
    await session.run(_ADD_LINK, {"name": user, "position": position, "body": link.body, "signature": link.signature})


async def _add_device(session: Session, device: Device) -> None:
    await session.run(
        _ADD_DEVICE,
        {
            "device": device.device,
            "user": device.user,
            "ed25519": device.ed25519,
            "curve25519": device.curve25519,
        },
    )


async def _put_keys(session: Session, device: str, keys: DeviceKeys) -> None:
    """Within a transaction that holds the device, or in which it is new."""
    for kind, statement in (("fallback", keys.fallback), ("seal", keys.seal)):
        if statement is not None:
            await session.run(
                _PUT_PREKEY,
                {"device": device, "kind": kind, "body": statement.body, "signature": statement.signature},
            )
    if keys.one_time:
        await session.run(
            _ADD_ONE_TIME,
            {
                "device": device,
                "bodies": [statement.body for statement in keys.one_time],
                "signatures": [statement.signature for statement in keys.one_time],
            },
        )
        await session.run(_DROP_ONE_TIME, {"device": device, "kept": ONE_TIME_KEYS_KEPT})


def _device(device: str, user: str, ed25519: memoryview, curve25519: memoryview) -> Device:
    return Device(hex_digits(device), user, bytes(ed25519), bytes(curve25519))


def _where(place: Mapping[str, str]) -> str:
    """A parsed DSN for people: where, not who, and no password."""
    host = place.get("host") or place.get("hostaddr") or "the local socket"
    port = f":{place['port']}" if "port" in place else ""
    name = f"database {place['dbname']}" if "dbname" in place else "default database"
    return f"{name} at {host}{port}"
