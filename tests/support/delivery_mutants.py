"""Deliberately broken deliveries: each is one small lie, told by replacing one method while the machine runs.

`MUTANTS` says for each what is wrong with it and which promises it breaks. The machine has to notice; one that it does
not notice means that the machine cannot see that lie, or that the rule which it breaks is not needed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from fastchat.bus import Answer, Offer
from fastchat.delivery import Delivery, Inbox
from fastchat.delivery.inbox import _Handed
from fastchat.delivery.outgoing import Outgoing, _Lane, _OnItsWay
from fastchat.delivery.writer import MailWriter, Settled
from fastchat.errors import FastChatError
from fastchat.store import Mail, Waiting
from fastchat_client.outbox import Outbox
from tests.support.delivery_machine import FAULTS
from tests.support.delivery_person import Person
from tests.support.delivery_store import POINTS
from tests.support.delivery_world import Line


class Mutant(NamedTuple):
    where: type
    method: str
    broken: Callable[..., Any]
    breaks: frozenset[str]
    """Kinds of `Violation`, any of which may be the first to show."""
    points: tuple[str, ...]
    """Where calls have to hang for it to show,"""
    faults: tuple[str, ...]
    """and what else has to happen: so that the search for it need not be long."""


MUTANTS: dict[str, Mutant] = {}


def _mutant(
    where: type,
    method: str,
    *breaks: str,
    points: tuple[str, ...] = POINTS,
    faults: tuple[str, ...] = FAULTS,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def enter(broken: Callable[..., Any]) -> Callable[..., Any]:
        MUTANTS[broken.__name__] = Mutant(where, method, broken, frozenset(breaks), points, faults)
        return broken

    return enter


_put, _failed, _send = MailWriter.put, MailWriter._failed, Outgoing.send
_offer, _hand_over = Inbox.offer, Inbox._hand_over
_has_read, _received, _retire = Inbox._has_read, Inbox.received, Inbox.retire
_disconnected, _accepted = Outbox.disconnected, Outbox.accepted


def _says_nothing(error: FastChatError | None) -> None:
    pass


# --- accepting too early ----------------------------------------------------------------------------------------------


@_mutant(MailWriter, "put", "false accept")
def accept_before_commit(self: MailWriter, mail: Mail, settled: Settled) -> None:
    settled(None)
    _put(self, mail, _says_nothing)


@_mutant(Inbox, "_hand_over", "false accept")
def accept_before_receipt(self: Inbox, offer: Offer, size: int, answer: Answer | None, row: int | None) -> None:
    _hand_over(self, offer, size, None, row)
    if answer is not None:
        answer(True)


@_mutant(MailWriter, "_failed", "false accept", "out of order", "lost", points=("store: asked",), faults=("database",))
def unknown_outcome_taken_for_success(self: MailWriter, failure: Any, batch: Any) -> None:
    for _, settled in batch:
        settled(None)


@_mutant(_OnItsWay, "__call__", "false accept", "out of order", "lost")
def accept_when_refused_by_the_inbox(self: _OnItsWay, taken: bool) -> None:
    lane = self.lane
    if self in lane.offered:
        lane.offered.remove(self)
    self._outgoing.settle(self, None)


# --- the mailbox ------------------------------------------------------------------------------------------------------


@_mutant(Delivery, "_start_sweep", "lost", "stuck", "out of order")
def no_sweep(self: Delivery) -> None:
    pass


@_mutant(Inbox, "_has_read", "lost", "stuck", "out of order", points=("store: numbers drawn",), faults=())
def drain_by_row_number(self: Inbox, page: list[Waiting]) -> None:
    last = getattr(self, "last_row", 0)
    page = [row for row in page if row.message > last]
    self.last_row = max([last, *(row.message for row in page)])  # type: ignore[attr-defined]
    _has_read(self, page)


@_mutant(Inbox, "offer", "out of order", points=("read: asked", "read: found"), faults=("database",))
def express_past_the_mailbox(self: Inbox, offer: Offer, answer: Answer) -> None:
    size = len(memoryview(offer.body))
    if self._closed or not self._writable or self._held or not self._has_room(size):
        _offer(self, offer, answer)
    else:
        self._hand_over(offer, size, answer, None)


@_mutant(Inbox, "_hand_over", "lost", "false accept", "out of order")
def row_deleted_when_handed_over(self: Inbox, offer: Offer, size: int, answer: Answer | None, row: int | None) -> None:
    _hand_over(self, offer, size, answer, row)
    if row is not None:
        self._remover.remove(self.device, row, self._known_rows.discard)


@_mutant(MailWriter, "_failed", "out of order", points=("store: asked",), faults=())
def followers_of_a_failed_batch_go_on(self: MailWriter, failure: Any, batch: Any) -> None:
    behind, self._queue = self._queue, type(self._queue)()
    queued, self._queued = self._queued, 0
    _failed(self, failure, batch)
    self._queue, self._queued = behind, queued


@_mutant(Inbox, "_could_not_read", "stuck", "lost", points=("read: asked", "read: found"), faults=("breaks",))
def mailbox_not_read_again(self: Inbox, failure: Any) -> None:
    self._reading = False
    self._rung = not self._retired


@_mutant(Inbox, "_could_not_read", "out of order", "lost", points=("read: asked", "read: found"), faults=())
def mailbox_taken_for_empty(self: Inbox, failure: Any) -> None:
    self._reading = False


# --- the order of a lane ----------------------------------------------------------------------------------------------


@_mutant(_OnItsWay, "__call__", "out of order")
def spill_of_only_the_refused(self: _OnItsWay, taken: bool) -> None:
    if self in self.lane.offered:
        self.lane.offered.remove(self)
    if taken:
        self._outgoing.settle(self, None)
    elif not self.settled:
        self._outgoing._store(self)


@_mutant(Outgoing, "_refuse", "out of order", points=("store: asked", "store: committed"), faults=("lags",))
def no_barrier_after_busy(self: Outgoing, lane: _Lane, n: int) -> None:
    pass


@_mutant(Outgoing, "send", "out of order", points=("store: asked", "store: numbers drawn"), faults=())
def offered_while_earlier_ones_are_stored(self: Outgoing, n: int, recipients: Any, done: Any) -> None:
    storing = [(lane, lane.storing) for lane in self._lanes.values()]
    for lane, _ in storing:
        lane.storing = 0
    _send(self, n, recipients, done)
    for lane, count in storing:
        lane.storing += count


# --- the window -------------------------------------------------------------------------------------------------------


@_mutant(Inbox, "_has_room", "window")
def window_not_counted(self: Inbox, size: int) -> bool:
    return True


@_mutant(Inbox, "set_writable", "window")
def full_transport_ignored(self: Inbox, writable: bool) -> None:
    pass


@_mutant(Inbox, "offer", "out of order", "leak", faults=("lags",))
def small_ones_pass_those_that_are_held(self: Inbox, offer: Offer, answer: Answer) -> None:
    size = len(memoryview(offer.body))
    if self.is_live and self._writable and self._has_room(size):
        self._hand_over(offer, size, answer, None)
    else:
        _offer(self, offer, answer)


@_mutant(Inbox, "expire", "stuck", faults=("breaks",))
def receipts_awaited_for_ever(self: Inbox, now: float) -> None:
    pass


@_mutant(Inbox, "_give_up", "stuck", faults=("breaks", "lags"))
def closed_inbox_answers_nobody(self: Inbox, message: _Handed) -> None:
    pass


def only_the_first_of_the_held_is_refused(self: Inbox) -> None:
    """A search seldom meets it; tests/test_delivery_machine.py says what has to happen."""
    first = self._held.popleft() if self._held else None
    if first is not None:
        self._held_bytes -= first.size
        first.answer(False)


# --- a session that is asked to leave ---------------------------------------------------------------------------------


@_mutant(Inbox, "retire", "window", faults=("leaves",))
def retired_inbox_goes_on(self: Inbox) -> None:
    if self._closed:
        _retire(self)


@_mutant(Inbox, "received", "receipt", faults=("leaves", "lags"))
def receipts_after_retiring_count_for_nothing(self: Inbox, upto: int) -> None:
    if not self._retired:
        _received(self, upto)


# --- what a client must do ----------------------------------------------------------------------------------------


@_mutant(Outbox, "disconnected", "out of order")
def client_sends_again_highest_first(self: Outbox) -> None:
    _disconnected(self)
    for queue in self._queues.values():
        queue.waiting.reverse()


@_mutant(Person, "has_seen", "duplicated")
def client_does_not_drop_what_it_has_seen(self: Person, name: Any) -> bool:
    return False


@_mutant(Outbox, "disconnected", "lost", "stuck", "out of order")
def client_does_not_send_again(self: Outbox) -> None:
    self._requests.clear()
    self._under_way.clear()
    self._lanes.clear()


@_mutant(Line, "receipt", "lost", "stuck", "out of order", "window", "leak")
def receipts_never_arrive(self: Line, upto: int) -> None:
    pass


@_mutant(Outbox, "accepted", "lost", "out of order")
def client_strikes_out_who_was_named(self: Outbox, message: Any, now: int, devices: Any) -> bool:
    return _accepted(self, message, now, [recipient.device for recipient in self.recipients(message.n)])
