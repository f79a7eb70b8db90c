"""What is said on a chat connection about attachments: chunks in both directions, and who has what.

A session may have so many chunks and fetches without an answer. Chunks are handed out in the order in which they were
asked for, one by one, and only while the connection takes more; for one that does not, none is read from the store. So
whatever else is said waits for one chunk at most, besides what the transport has already.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from fastchat.attachments import Reading
from fastchat.errors import Busy, FastChatError, RateLimited
from fastchat.protocols.line import Pipe
from fastchat.protocols.service import Service
from fastchat.protocols.wire import (
    Attach,
    Attached,
    AttachmentDone,
    AttachmentFor,
    Chunk,
    ChunkAnswer,
    ChunkStored,
    Detach,
    Fetch,
    Fetched,
    WithBytes,
    error_from,
)
from fastchat.store import Device, NewChunk

READ_AHEAD = 16
"""Chunks of one session that are being read or wait to be sent; when half of them have gone, the next are read. Eight
at once cost the database half of what they cost in twos."""
READ_AHEAD_WHEN_SCARCE = 2
"""The same while the process has half of what it may have in its hands: somebody who does not read gets no more."""


class AttachmentTraffic:
    """Of one session of `device`. `refuse` is the session's: answers a request, by its number, with an error, and ends
    the session if it has asked for too many."""

    def __init__(
        self, service: Service, pipe: Pipe, device: Device, refuse: Callable[[FastChatError, int], None]
    ) -> None:
        self._attachments = service.attachments
        self._pipe = pipe
        self._device = device
        self._refuse = refuse
        self._is_closed = False
        self._unanswered = 0
        self._asked: deque[Fetch] = deque()
        """What is not being read yet."""
        self._readings: deque[tuple[int, Reading]] = deque()
        """What is being read or waits to be sent, with the numbers of the requests."""

    # --- whole attachments -------------------------------------------------------------------------------------------

    async def attach(self, request: Attach) -> Attached:
        """Raises what `Attachments.begin` does."""
        missing = await self._attachments.begin(self._device.user, request.attachment, request.chunks)
        return Attached(re=request.id, missing=tuple(missing))

    async def expect(self, request: AttachmentFor) -> AttachmentDone:
        await self._attachments.expect(self._device.user, request.attachment, request.devices)
        return AttachmentDone(re=request.id)

    async def fetched(self, request: Fetched) -> AttachmentDone:
        await self._attachments.fetched(self._device.user, self._device.device, request.attachment)
        return AttachmentDone(re=request.id)

    async def detach(self, request: Detach) -> AttachmentDone:
        await self._attachments.detach(self._device.user, request.attachment)
        return AttachmentDone(re=request.id)

    # --- chunks that come --------------------------------------------------------------------------------------------

    def store(self, chunk: WithBytes) -> None:
        """Raises `RateLimited`, `Busy`; then the chunk is forgotten."""
        header = chunk.message
        assert isinstance(header, Chunk)
        self._check_window()
        self._attachments.store(
            NewChunk(header.attachment, self._device.user, header.index, chunk.data),
            lambda error: self._stored(header.id, error),
        )
        self._unanswered += 1

    def _stored(self, re: int, error: FastChatError | None) -> None:
        self._unanswered -= 1
        if self._is_closed:
            return
        if error is None:
            self._pipe.send(ChunkStored(re))
        else:
            self._say(error, re)

    # --- chunks that go ----------------------------------------------------------------------------------------------

    def fetch(self, fetch: Fetch) -> None:
        """Raises `RateLimited`."""
        self._check_window()
        self._unanswered += 1
        self._asked.append(fetch)
        self._go_on()

    def set_writable(self, writable: bool) -> None:
        """Whether the transport takes more."""
        if writable:
            self._go_on()

    def close(self) -> None:
        """The session is over. What it has sent is stored all the same; what it has asked for is not read any more."""
        self._is_closed = True
        self._asked.clear()
        for _, reading in self._readings:
            reading.drop()
        self._readings.clear()

    def _go_on(self) -> None:
        # The next are read first: one chunk is enough for a connection to be full, and then nothing is.
        self._read_more()
        self._hand_out()
        self._read_more()

    def _read_more(self) -> None:
        most = READ_AHEAD_WHEN_SCARCE if self._attachments.is_scarce else READ_AHEAD
        if len(self._readings) > most // 2:
            return
        new = []
        while self._asked and len(self._readings) < most and self._pipe.is_writable:
            fetch = self._asked.popleft()
            try:
                reading = self._attachments.fetch(fetch.attachment, fetch.index, self._go_on)
            except Busy as error:
                self._unanswered -= 1
                self._say(error, fetch.id)
            else:
                self._readings.append((fetch.id, reading))
                new.append(reading)
        if new:
            self._attachments.read(new)

    def _hand_out(self) -> None:
        while self._readings and self._pipe.is_writable:
            re, reading = self._readings[0]
            outcome = reading.outcome
            if outcome is None:
                break
            self._readings.popleft()
            reading.drop()
            self._unanswered -= 1
            if isinstance(outcome, FastChatError):
                self._say(outcome, re)
            else:
                self._pipe.send(WithBytes(ChunkAnswer(re), outcome))

    # --- both --------------------------------------------------------------------------------------------------------

    def _check_window(self) -> None:
        most = self._attachments.limits.chunks_in_flight
        if self._unanswered >= most:
            raise RateLimited(f"more than {most} chunks are sent or asked for at once")

    def _say(self, error: FastChatError, re: int) -> None:
        """What the database's being away or the process's memory has refused is not held against the session."""
        if isinstance(error, Busy):
            self._pipe.send(error_from(error, re))
        else:
            self._refuse(error, re)
