"""Attachments: the rules for what files are made of, over an `AttachmentStore`, for all services of one process.

Chunks are written in natural batches, and read in others: whatever has queued while the last batch was being committed,
or read, is the next one, in the order in which it came, whosever it is. What this process has in its hands is bounded;
above that there is no waiting, but `Busy`. An attachment's id is what lets somebody fetch it, so none is ever in the
log. Nothing here knows a session, a transport or what is in a chunk.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any, Generic, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from fastchat.config import AttachmentLimits
from fastchat.errors import AttachmentTooLarge, Busy, FastChatError, UnknownAttachment
from fastchat.protocols.wire import CHUNK_SIZE
from fastchat.store import AttachmentStore, ChunkOutcome, NewChunk

PIECE_SIZE = CHUNK_SIZE - 16
"""Bytes of a file that one chunk holds: the rest of it is AES-GCM's tag."""

BATCH = 16
"""Chunks written, or read, at once."""

SWEEP_SECONDS = 600.0
"""How often what has had its time is looked for."""

Settled = Callable[[FastChatError | None], None]
"""Told once what became of one chunk: None when it is durable. It must not raise."""

Item = TypeVar("Item")


class Reading:
    """One chunk on its way out of the store. It counts as what the process has in its hands until it is dropped."""

    __slots__ = ("_attachments", "_told", "attachment", "index", "outcome")

    def __init__(self, attachments: Attachments, attachment: str, index: int, told: Callable[[], None]) -> None:
        self.attachment = attachment
        self.index = index
        self.outcome: bytes | FastChatError | None = None
        """None: it is not read yet."""
        self._attachments: Attachments | None = attachments
        self._told = told

    @property
    def is_wanted(self) -> bool:
        return self._attachments is not None

    def settle(self, outcome: bytes | FastChatError) -> None:
        if self.is_wanted:
            self.outcome = outcome
            self._told()

    def drop(self) -> None:
        """It has been handed on, or is not wanted any more: then it is not read, and nobody is told. Any number of
        times."""
        attachments, self._attachments = self._attachments, None
        if attachments is not None:
            attachments.held -= CHUNK_SIZE
            self.outcome = None


class Attachments:
    """`now`: the wall clock, in seconds, for ages that outlive the process."""

    log = Logger()

    def __init__(
        self,
        store: AttachmentStore,
        limits: AttachmentLimits,
        reactor: IReactorTime,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.limits = limits
        self.held = 0
        """Bytes of the chunks that are being stored or handed out."""
        self._store = store
        self._now = now
        self._writes: _NaturalBatches[tuple[NewChunk, Settled]] = _NaturalBatches(self._write)
        self._reads: _NaturalBatches[Reading] = _NaturalBatches(self._read)
        self._sweeping = LoopingCall(lambda: Deferred.fromCoroutine(self._sweep()))
        self._sweeping.clock = reactor

    @property
    def is_scarce(self) -> bool:
        """Whether half of the memory for chunks is taken."""
        return 2 * self.held >= self.limits.memory

    def start(self) -> None:
        self._sweeping.start(SWEEP_SECONDS).addErrback(
            lambda failure: self.log.failure("attachments are not swept any more", failure)
        )

    async def stop(self) -> None:
        """Stop the timer and finish what is being written."""
        if self._sweeping.running:
            self._sweeping.stop()
        await self._writes.idle()

    # --- whole attachments -------------------------------------------------------------------------------------------

    async def begin(self, user: str, attachment: str, chunks: int) -> Sequence[tuple[int, int]]:
        """Which of its chunks are missing, as `AttachmentStore.begin_attachment` has it. Raises `AttachmentTooLarge`,
        `QuotaExceeded`, `RequestError`, `Busy`."""
        largest = self.limits.largest
        if chunks > max(1, -(-largest // PIECE_SIZE)):
            raise AttachmentTooLarge(f"this network takes files of {largest} bytes at most")
        return await self._store.begin_attachment(attachment, user, chunks, self.limits.quota, self._now())

    async def expect(self, user: str, attachment: str, devices: int) -> None:
        """So many devices of others were told of this attachment of `user`. Raises `Busy`."""
        if self.limits.remove_when_fetched:
            await self._store.expect_readers(attachment, user, devices)

    async def fetched(self, user: str, device: str, attachment: str) -> None:
        """This device of `user` has all of it. Raises `Busy`."""
        if self.limits.remove_when_fetched:
            await self._store.attachment_fetched(attachment, user, device)

    async def detach(self, user: str, attachment: str) -> None:
        """It is not wanted any more. Raises `Busy`."""
        await self._store.detach(attachment, user)

    # --- chunks ------------------------------------------------------------------------------------------------------

    def store(self, chunk: NewChunk, settled: Settled) -> None:
        """Commit a chunk, and tell. Raises `Busy` when the process has too much in its hands."""
        self._hold()
        self._writes.put((chunk, settled))

    def fetch(self, attachment: str, index: int, told: Callable[[], None]) -> Reading:
        """A chunk to be read, with room for it; then `read` it. `told` is called once its `outcome` says what came of
        it, and must not raise. Whoever asks drops it in the end. Raises `Busy` when the process has too much in its
        hands."""
        self._hold()
        return Reading(self, attachment, index, told)

    def read(self, readings: Iterable[Reading]) -> None:
        """Together, if nothing is being read; else in their turn."""
        self._reads.put(*readings)

    def _hold(self) -> None:
        if self.held + CHUNK_SIZE > self.limits.memory:
            raise Busy("too many chunks are under way at this moment")
        self.held += CHUNK_SIZE

    async def _write(self, batch: Sequence[tuple[NewChunk, Settled]]) -> None:
        errors: list[FastChatError | None]
        try:
            outcomes = await self._store.store_chunks([chunk for chunk, _ in batch], self._now())
            errors = [None if outcome is ChunkOutcome.STORED else UnknownAttachment() for outcome in outcomes]
        except Exception as error:
            # What has queued behind it would only wait for as long again.
            batch = [*batch, *self._writes.clear()]
            errors = [self._busy(error)] * len(batch)
        self.held -= CHUNK_SIZE * len(batch)
        for (_, settled), outcome in zip(batch, errors, strict=True):
            settled(outcome)

    async def _read(self, batch: Sequence[Reading]) -> None:
        batch = [reading for reading in batch if reading.is_wanted]
        # Those who are sent the same file fetch it at the same time.
        pairs = list(dict.fromkeys((reading.attachment, reading.index) for reading in batch))
        if not pairs:
            return
        found: dict[tuple[str, int], bytes | None] = {}
        missing: FastChatError = UnknownAttachment()
        try:
            found = dict(zip(pairs, await self._store.chunks(pairs), strict=True))
        except Exception as error:
            batch = [*batch, *self._reads.clear()]
            missing = self._busy(error)
        for reading in batch:
            data = found.get((reading.attachment, reading.index))
            reading.settle(missing if data is None else data)

    def _busy(self, error: Exception) -> Busy:
        if isinstance(error, Busy):
            return error
        self.log.failure("chunks of attachments could not be written, or read")
        return Busy()

    # --- sweeping ----------------------------------------------------------------------------------------------------

    async def _sweep(self) -> None:
        try:
            gone = await self._store.sweep_attachments(
                self._now(), self.limits.unfinished_hours * 3600, self.limits.keep_days * 86_400
            )
        except Busy:
            return
        except Exception:
            self.log.failure("attachments could not be swept")
            return
        if gone:
            self.log.info("{count} attachments have had their time", count=gone)


class _NaturalBatches(Generic[Item]):
    """Has `work` done on what is put, one batch after the other. `work` does not raise."""

    log = Logger()

    def __init__(self, work: Callable[[Sequence[Item]], Coroutine[Any, Any, None]]) -> None:
        self._work = work
        self._queue: deque[Item] = deque()
        self._is_working = False
        self._waiting: list[Deferred[None]] = []

    def put(self, *items: Item) -> None:
        self._queue += items
        if not self._is_working:
            self._next()

    def clear(self) -> Sequence[Item]:
        """What is queued, which is not worked on then."""
        queued, self._queue = self._queue, deque()
        return queued

    async def idle(self) -> None:
        """Until nothing is being worked on or waits for it."""
        if self._is_working:
            waiting: Deferred[None] = Deferred()
            self._waiting.append(waiting)
            await waiting

    def _next(self) -> None:
        self._is_working = bool(self._queue)
        if not self._is_working:
            waiting, self._waiting = self._waiting, []
            for deferred in waiting:
                deferred.callback(None)
            return
        batch = [self._queue.popleft() for _ in range(min(BATCH, len(self._queue)))]
        working = Deferred.fromCoroutine(self._work(batch))
        working.addErrback(lambda failure: self.log.failure("a batch of chunks was not seen to its end", failure))
        working.addBoth(lambda _: self._next())
