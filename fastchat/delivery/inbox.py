"""What one receiving session has been handed and has not yet said `received` for.

Two sources feed it: offers from senders, and its device's mailbox, which it drains before it turns *live* and again
whenever it is rung. While mail is waiting no offer is handed over, so nothing overtakes what is in the mailbox. The
window bounds what is handed over and not received.

An offer that has to wait, for room or for the mailbox, is held for a moment, in a room as large as the window. Refusing
it would send it to the mailbox, which then has to be drained, while which the next ones are refused: under load there
would be no way out.

Draining reads what is not deleted and not already handed over; never "rows after the last one": commit order is not
row order.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from itertools import takewhile
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from fastchat.bus import Answer, Offer
from fastchat.config import Limits
from fastchat.delivery.writer import MailRemover
from fastchat.errors import Busy, FastChatError, ProtocolError
from fastchat.store import Store, Waiting

READ_AGAIN_SECONDS = 1.0
"""After the mailbox could not be read."""


class _Handed:
    """One message that was handed over: an offer with its answer, or a row of the mailbox, or both."""

    __slots__ = ("answer", "deadline", "k", "offer", "row", "size")

    def __init__(self, k: int, offer: Offer, size: int, answer: Answer | None, row: int | None, deadline: float):
        self.k = k
        self.offer = offer
        self.size = size
        self.answer = answer
        self.row = row
        self.deadline = deadline


class _Held(NamedTuple):
    """One offer that waits to be handed over."""

    offer: Offer
    size: int
    answer: Answer
    deadline: float


class Inbox:
    """Satisfies `fastchat.bus.Inbox`."""

    log = Logger()

    def __init__(
        self,
        device: str,
        store: Store,
        remover: MailRemover,
        limits: Limits,
        deliver: Callable[[int, Offer], None],
        say: Callable[[bytes], None],
        on_replaced: Callable[[], None],
        on_close: Callable[[Inbox], None],
        reactor: IReactorTime,
    ) -> None:
        self.device = device
        self.login = 0
        """Which login of all it belongs to (`Delivery.logins`)."""
        self.on_expelled: Callable[[FastChatError], None] | None = None
        self._store = store
        self._remover = remover
        self._window_messages = limits.window_messages
        self._window_bytes = limits.window_bytes
        self._receipt_seconds = limits.receipt_seconds
        self._page = limits.mailbox_page
        self._page_bytes = limits.mailbox_page_bytes
        self._deliver = deliver
        self._say = say
        self._on_replaced = on_replaced
        self._on_close = on_close
        self._reactor = reactor
        self._k = 0
        self._handed: deque[_Handed] = deque()
        self._bytes = 0
        self._held: deque[_Held] = deque()
        self._held_bytes = 0
        self._backlog: deque[Waiting] = deque()
        self._known_rows: set[int] = set()
        """Rows read from the mailbox whose deletion is not confirmed: not to be handed over again."""
        self._rung = False
        self._reading = False
        self._writable = True
        self._retired = False
        self._closed = False
        self._again: IDelayedCall | None = None

    @property
    def is_live(self) -> bool:
        """Whether offers are taken: the mailbox is empty as far as is known, and not being read."""
        return not (self._rung or self._reading or self._backlog or self._retired)

    # --- from senders --------------------------------------------------------------------------------------------

    def offer(self, offer: Offer, answer: Answer) -> None:
        size = len(memoryview(offer.body))
        if self._retired or not self._writable:
            answer(False)
        elif self._rung or self._reading or self._backlog or self._held or not self._has_room(size):
            self._hold(offer, size, answer)
        else:
            self._hand_over(offer, size, answer, None)

    def tell(self, line: bytes) -> None:
        if self._writable and not self._retired:
            self._say(line)

    def _has_room(self, size: int) -> bool:
        """In the window; a message larger than all of it still goes alone."""
        handed = self._handed
        return not handed or (len(handed) < self._window_messages and self._bytes + size <= self._window_bytes)

    def _hold(self, offer: Offer, size: int, answer: Answer) -> None:
        held = self._held
        if held and (len(held) >= self._window_messages or self._held_bytes + size > self._window_bytes):
            answer(False)
        else:
            held.append(_Held(offer, size, answer, self._reactor.seconds() + self._receipt_seconds))
            self._held_bytes += size

    def _hand_over_held(self) -> None:
        while self._held and self.is_live and self._writable and self._has_room(self._held[0].size):
            offer, size, answer, _ = self._held.popleft()
            self._held_bytes -= size
            self._hand_over(offer, size, answer, None)

    def _refuse_held(self) -> None:
        """All of it, never a part: a later message of a sender must not be handed over when an earlier one was not."""
        held, self._held, self._held_bytes = self._held, deque(), 0
        for message in held:
            message.answer(False)

    def _hand_over(self, offer: Offer, size: int, answer: Answer | None, row: int | None) -> None:
        self._k += 1
        self._bytes += size
        deadline = self._reactor.seconds() + self._receipt_seconds
        self._handed.append(_Handed(self._k, offer, size, answer, row, deadline))
        self._deliver(self._k, offer)

    # --- from the session ----------------------------------------------------------------------------------------

    def received(self, upto: int) -> None:
        """The device has committed everything up to number `upto`. Raises `ProtocolError` when it never was handed
        that far."""
        if upto > self._k:
            raise ProtocolError(f"received up to {upto}, but only {self._k} were handed over")
        handed = self._handed
        while handed and handed[0].k <= upto:
            message = handed.popleft()
            self._bytes -= message.size
            if message.row is not None:
                self._remover.remove(self.device, message.row, self._known_rows.discard)
            if message.answer is not None:
                message.answer(True)
        if self._backlog:
            self._hand_over_backlog()
        elif self._rung and not self._reading:
            self._read()
        self._hand_over_held()

    def set_writable(self, writable: bool) -> None:
        """Whether the transport takes more. While it does not, offers are refused and the mailbox waits."""
        self._writable = writable
        if writable:
            self._hand_over_backlog()
            self._hand_over_held()

    def expire(self, now: float) -> None:
        """Give up waiting for receipts that are overdue: the senders store these messages. They stay handed over,
        and a late receipt still counts."""
        overdue = list(takewhile(lambda message: message.deadline <= now, self._handed))
        for message in overdue:
            self._give_up(message)
        if self._held and self._held[0].deadline <= now:
            self._refuse_held()

    def _give_up(self, message: _Handed) -> None:
        answer, message.answer = message.answer, None
        if answer is not None:
            answer(False)

    def retire(self) -> None:
        """The device is to log in elsewhere: from now on everything goes to its mailbox, which its next session reads.
        What was handed over can still be received."""
        if self._retired:
            return
        self._retired = True
        if self._again is not None:
            self._again.cancel()
        self._rung = False
        self._backlog.clear()
        self._refuse_held()

    def close(self) -> None:
        """The session is over: what was not received is the senders' to store."""
        if self._closed:
            return
        self._closed = True
        self.retire()
        self._on_close(self)
        for message in list(self._handed):
            self._give_up(message)
        self._handed.clear()

    def replaced(self) -> None:
        self.close()
        self._on_replaced()

    def expelled(self, error: FastChatError) -> None:
        self.close()
        if self.on_expelled is not None:
            self.on_expelled(error)

    # --- from the mailbox ----------------------------------------------------------------------------------------

    def ring(self) -> None:
        if not self._retired:
            self._rung = True
            if not self._reading and not self._backlog:
                self._read()

    def _read(self) -> None:
        self._reading = True
        self._rung = False
        reading = Deferred.fromCoroutine(
            self._store.mailbox(self.device, list(self._known_rows), self._page, self._page_bytes)
        )
        reading.addCallbacks(self._has_read, self._could_not_read)
        reading.addErrback(self._mistaken)

    def _has_read(self, page: list[Waiting]) -> None:
        self._reading = False
        if self._retired:
            return
        if page:
            # Behind a full page there is more: read again once it is handed over. What was committed after a page
            # that was not full has rung, or will.
            is_full = len(page) >= self._page or sum(len(row.body) for row in page) >= self._page_bytes
            self._rung = self._rung or is_full
            self._take(page)
        elif self._rung:
            self._read()
        self._hand_over_held()

    def _take(self, page: list[Waiting]) -> None:
        # What was handed over at once and has been stored meanwhile need not be handed over twice.
        handed = {(message.offer.device, message.offer.n): message for message in self._handed}
        for waiting in page:
            self._known_rows.add(waiting.message)
            already = handed.get((waiting.device, waiting.n))
            if already is not None and already.row is None:
                already.row = waiting.message
            else:
                self._backlog.append(waiting)
        self._hand_over_backlog()

    def _hand_over_backlog(self) -> None:
        while self._backlog and self._writable and not self._retired and self._has_room(len(self._backlog[0].body)):
            waiting = self._backlog.popleft()
            offer = Offer(waiting.user, waiting.device, waiting.n, waiting.at, waiting.body)
            self._hand_over(offer, len(waiting.body), None, waiting.message)
        if not self._backlog and self._rung and not self._reading and not self._retired:
            self._read()

    def _could_not_read(self, failure: Any) -> None:
        """The database is away. The inbox stays as it is, not live, and looks again soon."""
        self._reading = False
        if not failure.check(Busy):
            self.log.failure("the mailbox of {device} could not be read", failure, device=self.device)
        if not self._retired:
            self._rung = True
            self._again = self._reactor.callLater(READ_AGAIN_SECONDS, self._read_again)

    def _read_again(self) -> None:
        self._again = None
        if not self._retired and self._rung and not self._reading and not self._backlog:
            self._read()

    def _mistaken(self, failure: Any) -> None:
        self.log.failure("the inbox of {device} stumbled", failure, device=self.device)
