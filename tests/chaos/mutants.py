"""Servers and clients that are broken on purpose: what the checker must catch, each by the number that is named.

A mutant patches the product's classes in the process that it is applied in; everything else is the product. What is
patched must be there under its name, so that no refactoring turns a mutant into nothing. Which lies cannot be told
by a history, and why, is written in docs/decisions/mutants-that-survive.md.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from fastchat.bus import Offer
from fastchat.bus.local import LocalBus
from fastchat.delivery import Delivery, outgoing, writer
from fastchat.delivery.inbox import Inbox
from fastchat.protocols.wire import Received
from fastchat.store.postgres import PostgresStore
from fastchat_client.core import Core
from fastchat_client.inbox import Inbox as ClientInbox
from fastchat_client.outbox import Outbox
from tests.chaos.file_mutants import FILE_MUTANTS
from tests.chaos.group_mutants import GROUP_MUTANTS
from tests.chaos.mutant import Mutant, Original

LAZY_SECONDS = 1.0
"""How long the client that acknowledges too early puts off its commit."""


def apply(name: str) -> Callable[[], None]:
    """Break this process as `MUTANTS[name]` says; what is returned mends it. Raises `LookupError` for a mutant that is
    not known, or if what it patches is not there."""
    undo: list[tuple[type, str, Any]] = []
    for owner, attribute, make in MUTANTS[name].patches:
        if attribute not in vars(owner):
            raise LookupError(f"{name}: there is no {owner.__name__}.{attribute} any more")
        original = vars(owner)[attribute]
        undo.append((owner, attribute, original))
        setattr(owner, attribute, make(original))

    def mend() -> None:
        for owner, attribute, original in undo:
            setattr(owner, attribute, original)

    return mend


# --- servers ----------------------------------------------------------------------------------------------------------


def _accept_before_commit(put: Original) -> Original:
    def accepted_at_once(self: Any, mail: Any, settled: Callable[[None], None]) -> None:
        put(self, mail, lambda error: None)
        settled(None)

    return accepted_at_once


def _commit_not_flushed(pool: Original) -> Original:
    def unflushed(self: Any, *arguments: Any, **settings: Any) -> Any:
        if settings.get("synchronous_commit") == "on":
            settings["synchronous_commit"] = "off"
        return pool(self, *arguments, **settings)

    return unflushed


def _accept_before_receipt(hand_over: Original) -> Original:
    def accepted_when_handed_over(self: Any, offer: Offer, size: int, answer: Any, row: int | None) -> None:
        hand_over(self, offer, size, None, row)
        if answer is not None:
            answer(True)

    return accepted_when_handed_over


def _end_counts_as_receipt(give_up: Original) -> Original:
    def received_at_the_end(self: Any, message: Any) -> None:
        answer = message.answer
        if self._closed and answer is not None:
            message.answer = None
            answer(True)
        else:
            give_up(self, message)

    return received_at_the_end


def _nothing(_: Original) -> Original:
    return lambda *arguments: None


def _drain_above_highest(read: Original) -> Original:
    """The highest row belongs to the device: it outlives the session, as a cursor in a table would."""
    highest: dict[str, int] = {}

    def read_above(self: Any) -> None:
        store = self._store

        class Above:
            async def mailbox(self, device: str, in_flight: Any, limit: int, enough: int) -> Any:
                last = highest.get(device, 0)
                page = [row for row in await store.mailbox(device, in_flight, limit, enough) if row.message > last]
                highest[device] = max([last, *(row.message for row in page)])
                return page

        self._store = Above()
        try:
            read(self)
        finally:
            self._store = store

    return read_above


def _express_past_mailbox(_: Original) -> Original:
    """What comes from the mailbox has no part in the window either: else, while it is drained, there is seldom room."""

    def handed_over_if_there_is_room(self: Any, offer: Offer, answer: Callable[[bool], None]) -> None:
        express = sum(message.row is None for message in self._handed)
        if self._closed or not self._writable or express >= self._window_messages:
            answer(False)
        else:
            self._hand_over(offer, len(memoryview(offer.body)), answer, None)

    return handed_over_if_there_is_room


def _delete_at_handover(hand_over: Original) -> Original:
    def deleted_when_handed_over(self: Any, offer: Offer, size: int, answer: Any, row: int | None) -> None:
        hand_over(self, offer, size, answer, None)
        if row is not None:
            self._remover.remove(self.device, row, self._known_rows.discard)

    return deleted_when_handed_over


def _spill_one(_: Original) -> Original:
    def stored_alone(self: Any, taken: bool) -> None:
        lane = self.lane
        if self in lane.offered:
            lane.offered.remove(self)
        if taken:
            self._outgoing.settle(self, None)
        elif not self.settled:
            self._outgoing._store(self)

    return stored_alone


# --- clients ----------------------------------------------------------------------------------------------------------


def _no_dedupe(take: Original) -> Original:
    def taken_again(self: Any, device: str, n: int) -> bool:
        take(self, device, n)
        return True

    return taken_again


def _no_resend(disconnected: Original) -> Original:
    def forgotten(self: Any) -> None:
        for queue in self._queues.values():
            queue.on_their_way.clear()
        disconnected(self)

    return forgotten


def _resend_newest_first(disconnected: Original) -> Original:
    def turned_round(self: Any) -> None:
        disconnected(self)
        for queue in self._queues.values():
            queue.waiting.reverse()

    return turned_round


def _is_put_off(core: Any) -> bool:
    """Whether the client's transaction is open and may stay so for a while: nothing but messages came in."""
    if not core.vault.in_transaction or core._parts.said:
        core.__dict__.pop("lazy_since", None)
        return False
    since = core.__dict__.setdefault("lazy_since", time.monotonic())
    if time.monotonic() - since < LAZY_SECONDS:
        return True
    del core.__dict__["lazy_since"]
    return False


def _receipt_before_commit(take_messages: Original) -> Original:
    def acknowledged_at_once(self: Any) -> list[Any]:
        live = self._parts.live
        if live is None or not _is_put_off(self):
            committed: list[Any] = take_messages(self)
            return committed
        messages: list[Any] = self._messages
        self._messages = []
        if live.limits is not None and live.last_k > live.acknowledged:
            live.acknowledged = live.last_k
            messages.append(Received(live.last_k))
        return messages

    return acknowledged_at_once


def _events_after_commit(take_events: Original) -> Original:
    def shown_later(self: Any) -> list[Any]:
        if self._parts.live is not None and _is_put_off(self):
            events: list[Any] = self._events
            self._events = []
            return events
        committed: list[Any] = take_events(self)
        return committed

    return shown_later


def _work_after_commit(take_work: Original) -> Original:
    def begun_later(self: Any) -> list[Any]:
        if self._parts.live is not None and _is_put_off(self):
            return []
        committed: list[Any] = take_work(self)
        return committed

    return begun_later


_ALL = (
    Mutant(
        "accept-before-commit",
        "server",
        "A message is accepted when it is put into the writer's queue, not when its batch is committed.",
        ("lost", "out_of_order"),
        ("SIGSTOP of a backend", "kill of PostgreSQL", "people who are away"),
        ((writer.MailWriter, "put", _accept_before_commit),),
    ),
    Mutant(
        "commit-not-flushed",
        "server",
        "A batch counts as committed before PostgreSQL has written it down (synchronous_commit is off).",
        ("lost",),
        ("kill of PostgreSQL", "people who are away"),
        ((PostgresStore, "_pool", _commit_not_flushed),),
    ),
    Mutant(
        "accept-before-receipt",
        "server",
        "A message is accepted when it is handed over to a device that is online, before the device has it.",
        ("lost",),
        ("kill of clients", "blackhole", "kill of twistd"),
        ((Inbox, "_hand_over", _accept_before_receipt),),
    ),
    Mutant(
        "end-counts-as-receipt",
        "server",
        "What a session had been handed when it ended counts as received.",
        ("lost",),
        ("kill of clients", "blackhole", "second login"),
        ((Inbox, "_give_up", _end_counts_as_receipt),),
    ),
    Mutant(
        "rings-dropped",
        "server",
        "No ring reaches an inbox, and no sweep looks for mail whose ring was lost.",
        ("lost", "out_of_order"),
        ("SIGSTOP of a backend", "people who are away", "second login", "kill of clients"),
        ((LocalBus, "ring", _nothing), (Delivery, "_start_sweep", _nothing)),
    ),
    Mutant(
        "drain-above-highest",
        "server",
        "Of a mailbox, only rows above the highest one ever read are read.",
        ("lost",),
        ("delay", "cut", "kill of clients", "people who are away"),
        ((Inbox, "_read", _drain_above_highest),),
    ),
    Mutant(
        "express-past-mailbox",
        "server",
        "A message is handed over at once although earlier ones wait in the mailbox.",
        ("out_of_order",),
        ("SIGSTOP of a backend", "kill of PostgreSQL", "people who are away", "kill of clients"),
        ((Inbox, "offer", _express_past_mailbox),),
    ),
    Mutant(
        "delete-at-handover",
        "server",
        "A row of a mailbox is deleted when it is handed over, not when it is received.",
        ("lost",),
        ("delay", "cut", "kill of clients", "people who are away"),
        ((Inbox, "_hand_over", _delete_at_handover),),
    ),
    Mutant(
        "spill-one",
        "server",
        "Of a lane, only the message that was not taken is stored, and not what is unanswered before it.",
        ("out_of_order",),
        ("SIGSTOP of a backend", "blackhole"),
        ((outgoing._OnItsWay, "__call__", _spill_one),),
    ),
    Mutant(
        "no-dedupe",
        "client",
        "A message that comes again is taken again; no ratchet reads it twice, so it is asked for and shown again.",
        ("duplicated", "corrupted"),
        ("kill of twistd", "cut", "blackhole"),
        ((ClientInbox, "take", _no_dedupe),),
    ),
    Mutant(
        "no-resend",
        "client",
        "What was on its way when a connection ended is not sent again.",
        ("waiting", "out_of_order"),
        ("kill of twistd", "cut", "blackhole"),
        ((Outbox, "disconnected", _no_resend),),
    ),
    Mutant(
        "resend-newest-first",
        "client",
        "What was on its way when a connection ended is sent again in the wrong order.",
        ("out_of_order",),
        ("kill of twistd", "cut", "blackhole"),
        ((Outbox, "disconnected", _resend_newest_first),),
    ),
    Mutant(
        "receipt-before-commit",
        "client",
        "A message is acknowledged when it was read, up to a second before it is committed.",
        ("lost",),
        ("kill of clients",),
        (
            (Core, "take_messages", _receipt_before_commit),
            (Core, "take_events", _events_after_commit),
            (Core, "take_work", _work_after_commit),
        ),
    ),
)

MUTANTS: Mapping[str, Mutant] = {mutant.name: mutant for mutant in (*_ALL, *GROUP_MUTANTS, *FILE_MUTANTS)}
