"""Mutants that only groups notice: `mutants.py` has the others, and applies these."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from msgspec.structs import replace

from fastchat.delivery.writer import ROW_BYTES, MailWriter
from fastchat.groups import Groups
from fastchat.identity.groups import Join, Leave, Remove
from fastchat.protocols.group_traffic import GroupTraffic
from fastchat.store import Stored
from fastchat.store.postgres import PostgresStore
from fastchat_client.sending import Sender
from tests.chaos.mutant import Mutant, Original


def _gather_without_last(gathering: Original) -> Original:
    @contextmanager
    def gathered(self: Any) -> Iterator[None]:
        with gathering(self):
            before = sum(len(batch.mails) for batch in self._queue)
            yield
            if sum(len(batch.mails) for batch in self._queue) > before:
                _, settled = self._queue[-1].mails.pop()
                self._queued -= ROW_BYTES
                settled(None)

    return gathered


def _all_but_last(recipients: Original) -> Original:
    def fewer(self: Any, circle: Any, named: Any = ()) -> Any:
        found = list(recipients(self, circle, named))
        return found if named else found[:-1]

    return fewer


def _store_for_one_less(store_mail: Original) -> Original:
    async def stored(self: Any, batch: Sequence[Any]) -> Any:
        orders = [mail.order for mail in batch]
        shared = [at for at in range(len(batch)) if orders.count(orders[at]) > 1]
        if not shared:
            return await store_mail(self, batch)
        outcomes = list(await store_mail(self, [*batch[: shared[-1]], *batch[shared[-1] + 1 :]]))
        return [*outcomes[: shared[-1]], Stored.STORED, *outcomes[shared[-1] :]]

    return stored


def _devices_stay(committed: Original, kinds: tuple[type, ...]) -> Original:
    """Who is delivered to does not follow these statements, as long as the group is remembered."""

    def unchanged(self: Any, circle: Any, statement: Any, change: Any) -> None:
        before = None if circle is None else dict(circle.devices)
        committed(self, circle, statement, change)
        remembered = self._circles.get(change.state.group)
        if before is not None and remembered is not None and isinstance(statement, kinds):
            remembered.devices = before

    return unchanged


def _joined_unnoticed(committed: Original) -> Original:
    return _devices_stay(committed, (Join,))


def _left_unnoticed(committed: Original) -> Original:
    return _devices_stay(committed, (Leave, Remove))


def _taken_by_any_chain(submit: Original) -> Original:
    def submitted(self: Any, send: Any, circle: Any) -> None:
        if circle.has(self._device.user) and not circle.state.deleted:
            self._fan_out(send, self._recipients(circle, send.devices))
        else:
            submit(self, send, circle)

    return submitted


def _overlook_last(refused: Original) -> Original:
    def overlooked(self: Any, request: int, error: Any) -> None:
        _, to = self._parts.outbox._requests.get(request, (0, ("",)))
        if not error.devices or not to[0].startswith("#"):
            refused(self, request, error)
        elif len(error.devices) == 1:
            self.accepted(request)
        else:
            refused(self, request, replace(error, devices=error.devices[:-1]))

    return overlooked


GROUP_MUTANTS = (
    Mutant(
        "gather-without-last",
        "server",
        "Of the recipients for whom one message to a group is stored, the last one is forgotten.",
        ("lost",),
        ("people who are away", "kill of clients", "cut"),
        ((MailWriter, "gathering", _gather_without_last),),
    ),
    Mutant(
        "body-for-one-less",
        "server",
        "The body that a batch has for several recipients is committed for one of them less.",
        ("lost",),
        ("people who are away", "kill of clients", "blackhole"),
        ((PostgresStore, "store_mail", _store_for_one_less),),
    ),
    Mutant(
        "all-but-last",
        "server",
        "A message to a group is sent to all of its devices but the last.",
        ("lost",),
        ("people who are away", "kill of clients"),
        ((GroupTraffic, "_recipients", _all_but_last),),
    ),
    Mutant(
        "joined-unnoticed",
        "server",
        "Who joins a group is not delivered to, as long as the group is remembered.",
        ("lost",),
        ("people who are away", "kill of clients"),
        ((Groups, "_committed", _joined_unnoticed),),
    ),
    Mutant(
        "left-unnoticed",
        "server",
        "Who has left a group, or was removed, is still delivered to, as long as the group is remembered.",
        ("phantom",),
        ("people who are away", "kill of clients"),
        ((Groups, "_committed", _left_unnoticed),),
    ),
    Mutant(
        "taken-by-any-chain",
        "server",
        "A message to a group is taken although somebody has joined or left since it was encrypted.",
        ("lost", "phantom"),
        ("people who are away", "cut", "blackhole", "delay"),
        ((GroupTraffic, "_submit", _taken_by_any_chain),),
    ),
    Mutant(
        "one-left-behind",
        "client",
        "Of the devices of a group that a message could not be stored for, the last one is not sent it again.",
        ("lost",),
        ("SIGSTOP of a backend", "kill of PostgreSQL", "people who are away"),
        ((Sender, "refused", _overlook_last),),
    ),
)
