"""Files on their way to the network: what is missing there is sent from the spool, and once nothing is, the message
that tells of the file goes out.

One of the two directions of `Transfers`. The network is asked what it misses after every login, so nothing is noted
here of single chunks, and nothing is sent twice that it has. The last answer, the message and the end of the upload are
one transaction. The network's words are judged like any stranger's: it can keep a file from going, and nothing else.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from fastchat.errors import (
    AttachmentTooLarge,
    FastChatError,
    Internal,
    ProtocolError,
    UnknownAttachment,
    UnknownUser,
)
from fastchat.protocols.wire import (
    MOST_RANGES,
    Attach,
    Attached,
    Chunk,
    ChunkStored,
    ClientMessage,
    ServerMessage,
    WithBytes,
)
from fastchat_client import speaking, spool, uploads
from fastchat_client.attachment_cipher import PIECE, chunk_count
from fastchat_client.events import FileSent, TransferFailed, TransferProgress
from fastchat_client.files import Transfer
from fastchat_client.groups import group_of
from fastchat_client.pacing import Pace
from fastchat_client.parts import Live, Parts
from fastchat_client.uploads import Upload

MOST_AT_ONCE = 3
"""Files that are sent at the same time; the others wait for them."""
MOST_FAILURES = 5
"""How often the network may fail, or lose what it had, before a file is given up; `busy` is no failure."""
FAILURE_PATIENCE = 5.0
PROGRESS_EVERY = 0.25
"""Seconds between two words to the person about one file."""


class Cancelled(FastChatError):
    """It was cancelled."""

    code = "cancelled"


@dataclass(eq=False, slots=True)
class _Sending:
    """An upload on this connection."""

    upload: Upload
    count: int
    missing: deque[tuple[int, int]] = field(default_factory=deque)
    """Chunks that are to be sent, as ranges: the first, and the one after the last."""
    in_flight: int = 0
    stored: int = 0
    is_known: bool = False
    """The network has said what it misses."""
    attach: int = 0
    """The request that asks what is missing, while it is not answered."""
    looks_again: bool = True
    """It is to be asked, once nothing is in flight."""
    missed: int = 0
    """How many chunks it missed when it was asked last."""
    failures: int = 0
    not_before: float = 0.0
    told_at: float = -1e9
    problem: FastChatError | None = None
    """Why it will not be sent; to be noted within the next transaction."""
    is_over: bool = False
    """Its answers are of no interest any more."""

    @property
    def attachment(self) -> str:
        return self.upload.attachment

    @property
    def done(self) -> int:
        return min(self.stored * PIECE, self.upload.file.size)

    def next_index(self) -> int:
        first, after = self.missing.popleft()
        if first + 1 < after:
            self.missing.appendleft((first + 1, after))
        return first


class Uploads:
    """`folder`: where the spools are."""

    def __init__(self, parts: Parts, folder: Path) -> None:
        self._parts = parts
        self._vault = parts.vault
        self._folder = folder
        self._open: list[_Sending] = []
        """Those that are being sent; who was served last stands at the end."""
        self._chunks: dict[int, tuple[_Sending, int, float]] = {}
        """By request: of which file, which chunk, and when it was sent."""
        self._pace = Pace(1)

    # --- what `Transfers` asks of a direction ------------------------------------------------------------------------

    @property
    def in_flight(self) -> int:
        return len(self._chunks)

    def begin(self, live: Live) -> None:
        assert live.limits is not None
        self._pace = Pace(live.limits.chunks)
        self.pick_up(live)

    def pick_up(self, live: Live) -> None:
        """As many as are sent at once; those that are gone were cancelled."""
        noted = uploads.attachments(self._vault)
        for sending in [one for one in self._open if one.attachment not in noted]:
            self._remove_spool(sending.attachment)
            self._over(sending, Cancelled())
        under_way = {sending.attachment for sending in self._open}
        for attachment in [attachment for attachment in noted if attachment not in under_way]:
            if len(self._open) >= MOST_AT_ONCE:
                break
            upload = uploads.get(self._vault, attachment)
            assert upload is not None
            self._open.append(_Sending(upload, chunk_count(upload.file.size)))
        assert live.limits is not None
        if live.limits.chunks:
            self._ask(live)
        else:
            for sending in list(self._open):
                self._give_up(sending, AttachmentTooLarge("this network takes no files"))

    def next_chunk(self, live: Live, now: float) -> ClientMessage | WithBytes | None:
        if not self._pace.may_send(self.in_flight):
            return None
        for sending in self._open:
            if sending.missing and sending.not_before <= now and sending.problem is None:
                self._open.remove(sending)
                self._open.append(sending)
                index = sending.next_index()
                try:
                    data = spool.chunk(self._folder, sending.attachment, index)
                except FastChatError as problem:
                    sending.problem = problem
                    return self.next_chunk(live, now)
                request = self._parts.next_id()
                self._chunks[request] = (sending, index, now)
                sending.in_flight += 1
                return WithBytes(Chunk(request, sending.attachment, index), data)
        return None

    def chunk_answered(self, live: Live, message: ChunkStored | WithBytes) -> bool:
        if not isinstance(message, ChunkStored) or message.re not in self._chunks:
            return False
        sending, _, sent_at = self._chunks.pop(message.re)
        now = self._parts.clock()
        self._pace.answered(now - sent_at)
        sending.in_flight -= 1
        sending.stored += 1
        if not sending.is_over:
            sending.looks_again |= not sending.missing
            self._progress(sending, now)
            self._ask(live)
        return False

    def settle(self, live: Live) -> None:
        """Only the last answer to `attach` ends an upload, and that is heard in a transaction."""

    def heard(self, live: Live, message: ServerMessage) -> bool:
        if not isinstance(message, Attached):
            return False
        for sending in self._open:
            if sending.attach == message.re:
                sending.attach = 0
                self._attached(live, sending, message.missing)
                break
        return True

    def refused(self, live: Live, request: int, problem: FastChatError) -> bool:
        if request in self._chunks:
            sending, index, _ = self._chunks.pop(request)
            sending.in_flight -= 1
            if not sending.is_over:
                self._chunk_refused(live, sending, index, problem)
            return True
        for sending in self._open:
            if sending.attach == request:
                sending.attach, sending.looks_again = 0, True
                self._wait_or_give_up(sending, problem)
                self.pick_up(live)
                return True
        return False

    def by_the_second(self, live: Live) -> None:
        for sending in [one for one in self._open if one.problem is not None]:
            assert sending.problem is not None
            self._give_up(sending, sending.problem)
        self.pick_up(live)

    def disconnected(self) -> None:
        self._chunks.clear()
        self._open.clear()

    def transfers(self) -> list[Transfer]:
        sent = {sending.attachment: sending.done for sending in self._open if sending.is_known}
        return [
            Transfer(
                *(upload.attachment, upload.conversation, "", upload.file.name, True),
                *(sent.get(upload.attachment, 0), upload.file.size, upload.attachment in sent),
            )
            for upload in uploads.unfinished(self._vault)
        ]

    def cancel(self, attachment: str) -> bool:
        if not uploads.cancel(self._vault, attachment):
            return False
        self._remove_spool(attachment)
        live = self._parts.ready
        if live is not None:
            self.pick_up(live)
        return True

    # --- asking, and what is answered --------------------------------------------------------------------------------

    def _ask(self, live: Live) -> None:
        """What is missing of those of which that is not known, or not any more."""
        if live.leaving is not None or self._parts.alarmed:
            return
        now = self._parts.clock()
        for sending in self._open:
            is_waiting = sending.attach or sending.in_flight or sending.problem is not None or sending.not_before > now
            if sending.looks_again and not is_waiting and self._is_somebody(live, sending):
                sending.looks_again = False
                sending.attach = self._parts.say(partial(_attach, sending.attachment, sending.count))

    def _is_somebody(self, live: Live, sending: _Sending) -> bool:
        """Whom it is for is known, or a group. A file must not go up to nobody."""
        user = sending.upload.conversation
        if group_of(user) or self._parts.accounts.get(user) is not None:
            return True
        if user in live.nobody:
            live.nobody.discard(user)  # who wants to send something once more asks once more
            sending.problem = UnknownUser(f"there is no {user} on this network")
        else:
            live.fetching.want(user, claim=True)
        return False

    def _attached(self, live: Live, sending: _Sending, missing: tuple[tuple[int, int], ...]) -> None:
        if not missing:
            self._finish(sending)
            self.pick_up(live)
            return
        ends = [end for both in missing for end in both]
        is_empty = any(first == after for first, after in missing)
        if len(missing) > MOST_RANGES or is_empty or ends != sorted(ends) or ends[-1] > sending.count:
            self._parts.close(ProtocolError("the network misses chunks of a file that has none such"))
            return
        missed = sum(after - first for first, after in missing)
        if sending.is_known and missed >= sending.missed:
            # It has lost what it had, or says that it had.
            sending.failures += 1
        sending.is_known, sending.missed = True, missed
        sending.missing, sending.stored = deque(missing), sending.count - missed
        if sending.failures > MOST_FAILURES:
            self._give_up(sending, Internal("the network has lost the file again and again"))
            self.pick_up(live)
        else:
            self._tell(sending, self._parts.clock())

    def _chunk_refused(self, live: Live, sending: _Sending, index: int, problem: FastChatError) -> None:
        sending.missing.appendleft((index, index + 1))
        if isinstance(problem, UnknownAttachment):
            sending.missing.clear()  # all of it is, then
            sending.looks_again = True
            self._ask(live)
            return
        if problem.retry_after is not None:
            self._pace.refused()
        self._wait_or_give_up(sending, problem)
        self.pick_up(live)

    def _wait_or_give_up(self, sending: _Sending, problem: FastChatError) -> None:
        now = self._parts.clock()
        if problem.retry_after is not None:
            sending.not_before = now + problem.retry_after
            return
        sending.failures += 1
        if isinstance(problem, Internal) and sending.failures <= MOST_FAILURES:
            sending.not_before = now + FAILURE_PATIENCE
        else:
            self._give_up(sending, problem)

    # --- the end -----------------------------------------------------------------------------------------------------

    def _finish(self, sending: _Sending) -> None:
        """All of it is there: what a person has to say with it goes out, if it still may."""
        parts, upload = self._parts, sending.upload
        if uploads.get(self._vault, upload.attachment) is None:
            self._over(sending, Cancelled())
            return
        try:
            message_id = speaking.compose_file(self._vault, upload.conversation, upload.file, parts.now())
        except FastChatError as problem:
            self._give_up(sending, problem)
            return
        uploads.remove(self._vault, upload.attachment)
        sending.stored = sending.count
        self._over(sending)
        self._remove_spool(upload.attachment)
        self._tell(sending, parts.clock())
        parts.tell(FileSent(upload.attachment, upload.conversation, message_id, upload.file.name))
        parts.pick_up()

    def _give_up(self, sending: _Sending, problem: FastChatError) -> None:
        uploads.cancel(self._vault, sending.attachment)
        self._remove_spool(sending.attachment)
        self._over(sending, problem)

    def _over(self, sending: _Sending, problem: FastChatError | None = None) -> None:
        sending.is_over = True
        self._open.remove(sending)
        if problem is not None:
            upload = sending.upload
            named = (upload.attachment, upload.conversation, "", upload.file.name)
            self._parts.tell(TransferFailed(*named, True, problem.code, problem.message))

    def _remove_spool(self, attachment: str) -> None:
        self._parts.afterwards.append(partial(spool.remove, self._folder, attachment))

    # --- progress ----------------------------------------------------------------------------------------------------

    def _progress(self, sending: _Sending, now: float) -> None:
        if now - sending.told_at >= PROGRESS_EVERY:
            self._tell(sending, now)

    def _tell(self, sending: _Sending, now: float) -> None:
        sending.told_at = now
        upload = sending.upload
        named = (upload.attachment, upload.conversation, "", upload.file.name)
        self._parts.tell(TransferProgress(*named, True, sending.done, upload.file.size))


def _attach(attachment: str, count: int, request: int) -> ClientMessage:
    return Attach(request, attachment, count)
