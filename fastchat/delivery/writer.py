"""Writing to mailboxes and removing from them in natural batches: whatever queued while the last batch was being
committed is the next one. No timer decides when to write, so a lone message waits for nothing and a storm pays for
one transaction per few hundred. What one message has for a thousand devices is gathered: one body, one transaction.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from fastchat.bus import Bus
from fastchat.errors import Busy, FastChatError, MailboxFull, UnknownDevice
from fastchat.store import Mail, Store, Stored

Settled = Callable[[FastChatError | None], None]
"""Told once what became of one mail: None when it is committed."""

SHARE_SECONDS = 1.0
"""For so long after a sender's share of a mailbox was found full, more of his messages for it are refused unseen:
counting what is there is the one thing here that a small message can make dear."""
SHARES_KEPT = 10_000

ROWS_AT_ONCE = 2_000
"""Recipients of a batch's messages: what a transaction may take, and a turn that tells so many what became of it."""
ROW_BYTES = 256
"""What a recipient counts in the queue, besides the body that it may share with others."""

REMOVED_AT_ONCE = 500
REMOVE_AGAIN_SECONDS = 1.0
"""After a removal that failed. Until it succeeds, what was received is remembered by its inbox."""


class _Idle:
    """Lets anybody wait until a queue has run empty."""

    def __init__(self) -> None:
        self._waiting: list[Deferred[None]] = []

    def wait(self) -> Deferred[None]:
        waiting: Deferred[None] = Deferred()
        self._waiting.append(waiting)
        return waiting

    def reached(self) -> None:
        waiting, self._waiting = self._waiting, []
        for deferred in waiting:
            deferred.callback(None)


class _Batch:
    """Mails that will be written together; what one submission says to many is one body."""

    __slots__ = ("_said", "bodies", "bytes", "mails")

    def __init__(self) -> None:
        self.mails: list[tuple[Mail, Settled]] = []
        self.bodies = 0
        self.bytes = 0
        """Of the bodies."""
        self._said: dict[int, bytes] = {}
        """By submission, what was last said in it."""

    def has(self, mail: Mail) -> bool:
        """Whether its body is here already."""
        said = self._said.get(mail.order)
        return said is not None and (said is mail.body or said == mail.body)

    def add(self, mail: Mail, settled: Settled, is_new: bool) -> None:
        self.mails.append((mail, settled))
        if is_new:
            self._said[mail.order] = mail.body
            self.bodies += 1
            self.bytes += len(mail.body)


class MailWriter:
    """The one writer of a process. Mails are committed in the order of their submissions and, batch by batch, in the
    order in which they are put, so what one sender has for one device is always a prefix in the mailbox.

    When a batch fails its outcome is unknown, and everything that has queued behind it fails with it: storing a
    later message while an earlier one is not stored would break the order. The senders send again. So they do when
    the queue is full: then nothing is taken before the next batch is written, however small.
    """

    log = Logger()

    def __init__(
        self, store: Store, bus: Bus, batch: int, batch_bytes: int, queue_bytes: int, seconds: Callable[[], float]
    ) -> None:
        self._store = store
        self._bus = bus
        self._batch = batch
        self._batch_bytes = batch_bytes
        self._queue_bytes = queue_bytes
        self._seconds = seconds
        self.submissions = count(1)
        """Numbers what is sent in the order in which it comes to this process."""
        self._full_shares: dict[tuple[str, str], float] = {}
        """By recipient device and sender, until when that is believed."""
        self._queue: deque[_Batch] = deque()
        self._queued = 0
        """Bytes of what is in the queue."""
        self._is_full = False
        self._gathering = 0
        self._writing = False
        self._idle = _Idle()

    def put(self, mail: Mail, settled: Settled) -> None:
        """Commit `mail`; then ring its device and tell `settled`."""
        if self._full_shares and self._full_shares.get((mail.recipient, mail.user), 0.0) > self._seconds():
            settled(_error(Stored.SHARE_FULL))
            return
        last = self._queue[-1] if self._queue else None
        is_new = last is None or not last.has(mail)
        if last is not None and not self._has_room(last, mail, is_new):
            last, is_new = None, True
        size = ROW_BYTES + len(mail.body) if is_new else ROW_BYTES
        self._is_full = self._is_full or (self._queued > 0 and self._queued + size > self._queue_bytes)
        if self._is_full:
            settled(Busy("more is waiting to be stored than can be kept"))
            return
        if last is None:
            last = _Batch()
            self._queue.append(last)
        last.add(mail, settled, is_new)
        self._queued += size
        if not self._writing and not self._gathering:
            self._write_next()

    @contextmanager
    def gathering(self) -> Iterator[None]:
        """What is put inside only queues; the batch begins when the block ends. Nothing may be awaited in it."""
        self._gathering += 1
        try:
            yield
        finally:
            self._gathering -= 1
            if self._queue and not self._writing and not self._gathering:
                self._write_next()

    def _has_room(self, batch: _Batch, mail: Mail, is_new: bool) -> bool:
        if len(batch.mails) >= ROWS_AT_ONCE:
            return False
        return not is_new or (batch.bodies < self._batch and batch.bytes + len(mail.body) <= self._batch_bytes)

    async def idle(self) -> None:
        """Until nothing is being written or waits to be."""
        if self._writing:
            await self._idle.wait()

    def _write_next(self) -> None:
        self._is_full = False
        if not self._queue:
            self._writing = False
            self._idle.reached()
            return
        self._writing = True
        batch = self._queue.popleft()
        self._queued -= batch.bytes + ROW_BYTES * len(batch.mails)
        mails = batch.mails
        writing = Deferred.fromCoroutine(self._store.store_mail([mail for mail, _ in mails]))
        writing.addCallbacks(self._written, self._failed, callbackArgs=(mails,), errbackArgs=(mails,))
        writing.addErrback(self._mistaken)
        writing.addBoth(lambda _: self._write_next())

    def _written(self, outcomes: Sequence[Stored], batch: Sequence[tuple[Mail, Settled]]) -> None:
        # Rings first: an inbox must know of its mail before a sender may offer it the next message.
        for device in {mail.recipient for (mail, _), outcome in zip(batch, outcomes, strict=True) if _is_in(outcome)}:
            self._bus.ring(device)
        for (mail, settled), outcome in zip(batch, outcomes, strict=True):
            if outcome is Stored.SHARE_FULL:
                self._remember_full(mail)
            settled(_error(outcome))

    def _failed(self, failure: Any, batch: Sequence[tuple[Mail, Settled]]) -> None:
        if failure.check(Busy):
            error: FastChatError = failure.value
        else:
            self.log.failure("a batch of {count} messages could not be stored", failure, count=len(batch))
            error = Busy()
        behind, self._queue, self._queued = self._queue, deque(), 0
        for mails in (batch, *(waiting.mails for waiting in behind)):
            for _, settled in mails:
                settled(error)

    def _remember_full(self, mail: Mail) -> None:
        now = self._seconds()
        if len(self._full_shares) >= SHARES_KEPT:
            self._full_shares = {pair: until for pair, until in self._full_shares.items() if until > now}
        if len(self._full_shares) < SHARES_KEPT:
            self._full_shares[mail.recipient, mail.user] = now + SHARE_SECONDS

    def _mistaken(self, failure: Any) -> None:
        self.log.failure("a sender could not be told what became of its messages", failure)


def _error(outcome: Stored) -> FastChatError | None:
    match outcome:
        case Stored.STORED:
            return None
        case Stored.MAILBOX_FULL:
            return MailboxFull()
        case Stored.SHARE_FULL:
            return MailboxFull("your messages fill your share of the recipient's mailbox; this one was not stored")
        case Stored.UNKNOWN_DEVICE:
            return UnknownDevice()


def _is_in(outcome: Stored) -> bool:
    return outcome is Stored.STORED


class MailRemover:
    """Deletes what was received. Nothing waits for it, and what it has not deleted is only delivered again and
    dropped, so it tries until it succeeds."""

    log = Logger()

    def __init__(self, store: Store, reactor: IReactorTime) -> None:
        self._store = store
        self._reactor = reactor
        self._queue: deque[tuple[str, int, Callable[[int], None]]] = deque()
        self._removing = False
        self._again: IDelayedCall | None = None
        self._idle = _Idle()

    def remove(self, device: str, row: int, removed: Callable[[int], None]) -> None:
        self._queue.append((device, row, removed))
        if not self._removing:
            self._remove_next()

    async def stop(self) -> None:
        """Finish, or give up if the database cannot be reached: what is left is delivered again, and dropped."""
        if self._removing and self._again is None:
            await self._idle.wait()
        if self._again is not None:
            self._again.cancel()
            self._again = None

    def _remove_next(self) -> None:
        self._again = None
        if not self._queue:
            self._removing = False
            self._idle.reached()
            return
        self._removing = True
        batch = [self._queue.popleft() for _ in range(min(REMOVED_AT_ONCE, len(self._queue)))]
        removing = Deferred.fromCoroutine(self._store.delete_mail([(device, row) for device, row, _ in batch]))
        removing.addCallbacks(self._removed, self._failed, callbackArgs=(batch,), errbackArgs=(batch,))
        removing.addErrback(self._mistaken)

    def _removed(self, _: None, batch: Sequence[tuple[str, int, Callable[[int], None]]]) -> None:
        for _device, row, removed in batch:
            removed(row)
        self._remove_next()

    def _failed(self, failure: Any, batch: Sequence[tuple[str, int, Callable[[int], None]]]) -> None:
        if not failure.check(Busy):
            self.log.failure("{count} received messages could not be deleted", failure, count=len(batch))
        self._queue.extendleft(reversed(batch))
        self._again = self._reactor.callLater(REMOVE_AGAIN_SECONDS, self._remove_next)
        self._idle.reached()

    def _mistaken(self, failure: Any) -> None:
        self.log.failure("the removal of received messages stumbled", failure)
        self._remove_next()
