"""How a device is taken out of a PostgreSQL store, in one transaction. It knows no signature, and no link."""

from __future__ import annotations

from fastchat.errors import Busy, ChainInvalid, UnknownDevice, UnknownUser
from fastchat.protocols.wire import Signed
from fastchat.store.connections import Session
from fastchat.store.queries import query
from fastchat.store.values import violations_named

_LOCK_USER, _CHAIN_LENGTH, _ADD_LINK = query("lock_user"), query("chain_length"), query("add_link")
_REVOKE, _DROP_PREKEYS = query("revoke_device"), query("drop_prekeys")
_LOCK_MAIL, _DROP_MAIL, _DROP_MAILBOX = (
    query("lock_mail_of_device"),
    query("drop_mail_of_device"),
    query("drop_mailbox"),
)
_APPEND_LEAVES = query("append_leaves")

TRIES = 10
"""Mail may come between the two locks, a millisecond apart. Its bodies are not locked then, and cannot be locked now
without a risk that two wait for each other; so all is undone and begun again."""


class _MoreMail(Exception):
    """Came while it was being counted."""


async def revoke(session: Session, user: str, device: str, position: int, link: Signed, leaf: bytes) -> None:
    """As `Store.revoke_device` says."""
    for _ in range(TRIES):
        try:
            with violations_named():
                await _revoke(session, user, device, position, link, leaf)
            return
        except _MoreMail:
            continue
    raise Busy


async def _revoke(session: Session, user: str, device: str, position: int, link: Signed, leaf: bytes) -> None:
    async with session.transaction():
        if not await session.rows(_LOCK_USER, {"name": user}):
            raise UnknownUser
        [(length,)] = await session.rows(_CHAIN_LENGTH, {"name": user})
        if length != position:
            raise ChainInvalid(f"The chain has {length} links by now.")
        if not await session.rows(_REVOKE, {"user": user, "device": device}):
            raise UnknownDevice
        await session.run(
            _ADD_LINK, {"name": user, "position": position, "body": link.body, "signature": link.signature}
        )
        await session.run(_DROP_PREKEYS, {"device": device})
        await _drop_mail(session, device)
        await session.run(_APPEND_LEAVES, {"leaves": [leaf]})


async def _drop_mail(session: Session, device: str) -> None:
    locked = {message for (message,) in await session.rows(_LOCK_MAIL, {"device": device})}
    dropped = [message for (message,) in await session.rows(_DROP_MAIL, {"device": device})]
    if not locked.issuperset(dropped):
        raise _MoreMail
    await session.run(_DROP_MAILBOX, {"device": device, "messages": dropped})
