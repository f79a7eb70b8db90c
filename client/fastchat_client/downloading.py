"""Files on their way to this device: chunks are fetched, opened and written in their order, and nothing gets its name
before the whole is what was sent.

One of the two directions of `Transfers`. What blocks (the disk, but for writing a piece into its cache) is `Work` for a
thread; what is on the disk is hashed there in slices, behind the writing. The order at the end is: verified, named,
noted in the vault, the part removed. So whatever is cut off in between is found and finished at the next start.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from fastchat.errors import AttachmentDamaged, AttachmentTooLarge, FastChatError, Internal, UnknownAttachment
from fastchat.protocols.wire import ChunkAnswer, ChunkStored, ClientMessage, Fetch, ServerMessage, WithBytes
from fastchat_client import attachment_words, downloads, files, saving, settings
from fastchat_client.attachment_cipher import decrypt
from fastchat_client.content import File, Ref
from fastchat_client.download import Download
from fastchat_client.downloads import Wanted
from fastchat_client.events import FileSaved, Notice, TransferFailed, TransferProgress
from fastchat_client.files import Transfer
from fastchat_client.pacing import Pace
from fastchat_client.parts import Live, Parts
from fastchat_client.saving import SLICE, InUse, NotSaved, Part
from fastchat_client.understanding import Said

MOST_AT_ONCE = 4
"""Files that are fetched at the same time; the others wait for them."""
MOST_IN_FLIGHT = 64
"""Chunks, whatever the network allows."""
MOST_REFUSALS = 5
FAILURE_PATIENCE = 5.0
IN_USE_PATIENCE = 1.0
PROGRESS_EVERY = 0.25
CANCELLED = "cancelled"
"""The code of a transfer whose file nobody wants any more."""


class Downloads:
    """`folder`: where files go that nobody has asked for; None: none do."""

    def __init__(self, parts: Parts, folder: Path | None = None) -> None:
        self._parts = parts
        self._vault = parts.vault
        self._folder = folder
        self._open: list[Download] = []
        self._asked: dict[int, tuple[Download, int, float]] = {}
        """By request: of which file, which chunk, and when it was asked for."""
        self._pace = Pace(1)
        self._has_begun = self._is_stale = False
        self._removing: dict[Path, Part | None] = {}
        """What is being removed, and is held until it is."""

    def brought(self, said: Said, file: File) -> None:
        """A message has: small ones are fetched unasked."""
        most = settings.auto_download(self._vault)
        if self._folder is not None and not said.earlier and 0 < most >= file.size:
            downloads.want_unasked(self._vault, Ref(said.sender.device, said.n), file.size, self._folder)
            self._fill()

    # --- what `Transfers` asks of a direction ------------------------------------------------------------------------

    @property
    def in_flight(self) -> int:
        return len(self._asked)

    def begin(self, live: Live) -> None:
        assert live.limits is not None
        self._pace = Pace(min(live.limits.chunks, MOST_IN_FLIGHT))
        if not self._has_begun:
            self._has_begun = True
            downloads.go_on(self._vault)
        self.pick_up(live)

    def pick_up(self, live: Live) -> None:
        self._fill()
        self._sweep()

    def by_the_second(self, live: Live) -> None:
        self.pick_up(live)
        now = self._parts.clock()
        for download in self._open:
            if not download.is_open and now >= download.not_before:
                self._step(download)

    def next_chunk(self, live: Live, now: float) -> ClientMessage | None:
        if not self._pace.may_send(self.in_flight):
            return None
        for download in self._open:
            index = download.next_chunk(now)
            if index is not None:
                self._open.remove(download)
                self._open.append(download)
                request = self._parts.next_id()
                self._asked[request] = (download, index, now)
                return Fetch(request, download.file.attachment, index)
        return None

    def chunk_answered(self, live: Live, message: ChunkStored | WithBytes) -> bool:
        if not isinstance(message, WithBytes) or not isinstance(message.message, ChunkAnswer):
            return False
        asked = self._asked.pop(message.message.re, None)
        if asked is None:
            return False  # nobody has asked for it
        download, index, asked_at = asked
        self._pace.answered(self._parts.clock() - asked_at)
        if download.is_over or not download.is_open:
            return False  # its part is being begun anew: this will be asked for again
        file = download.file
        try:
            download.keep(index, decrypt(file.key, index, download.count, file.size, message.data))
        except AttachmentDamaged as problem:
            self._damaged(download, index, problem)
        except NotSaved as problem:
            download.problem = problem
        self._progress(download)
        self._step(download)
        return download.problem is not None

    def settle(self, live: Live) -> None:
        for download in [one for one in self._open if one.problem is not None]:
            assert download.problem is not None
            self._end(download, download.problem)
        self._fill()

    def heard(self, live: Live, message: ServerMessage) -> bool:
        return False

    def refused(self, live: Live, request: int, problem: FastChatError) -> bool:
        if request not in self._asked:
            return False
        download, index, _ = self._asked.pop(request)
        if download.is_over:
            return True
        is_failure = problem.retry_after is None and isinstance(problem, Internal)
        download.refusals += is_failure
        if problem.retry_after is not None or (is_failure and download.refusals <= MOST_REFUSALS):
            self._pace.refused()
            wait = FAILURE_PATIENCE if problem.retry_after is None else problem.retry_after
            download.not_before = max(download.not_before, self._parts.clock() + wait)
            download.ask_again(index)
        else:
            self._end(download, problem)
            self._fill()
        return True

    def disconnected(self) -> None:
        self._asked.clear()
        for download in self._open:
            self._let_go(download)
        self._open.clear()

    def abandon(self) -> None:
        """The transaction has failed, and everything is made anew from the vault."""
        self._is_stale = True
        self.disconnected()
        for part in self._removing.values():
            if part is not None:
                part.close()

    def transfers(self) -> list[Transfer]:
        active = {download.wanted.seq: download for download in self._open}
        return [
            wanted.transfer(active[wanted.seq].part.length if wanted.seq in active else None)
            for wanted in downloads.all_of(self._vault)
        ]

    def cancel(self, attachment: str) -> bool:
        found = downloads.unwant(self._vault, attachment)
        for wanted in found:
            self._tell_failed(wanted, CANCELLED, "it was cancelled")
        for download in [one for one in self._open if one.file.attachment == attachment]:
            self._open.remove(download)
            self._let_go(download)
        self._sweep()
        self._fill()
        return bool(found)

    # --- which are fetched now ---------------------------------------------------------------------------------------

    def _fill(self) -> None:
        """The first of those that are wanted; and what is not wanted any more is given up."""
        parts = self._parts
        if parts.ready is None:
            return
        going = downloads.going(self._vault)
        for download in [one for one in self._open if one.wanted.seq not in going]:
            self._open.remove(download)
            self._let_go(download)
            self._tell_failed(download.wanted, CANCELLED, "it was cancelled, or its message is gone")
        taken = {going[download.wanted.seq] for download in self._open}
        for seq, place in going.items():
            if len(self._open) >= MOST_AT_ONCE:
                return
            wanted = None if place in taken else downloads.get(self._vault, seq)
            if wanted is not None:
                taken.add(place)
                if wanted.part not in self._removing:
                    self._take_up(wanted)

    def _take_up(self, wanted: Wanted) -> None:
        download = Download(wanted, files.copies(self._vault, wanted.file.attachment))
        self._open.append(download)
        live = self._parts.ready
        try:
            if live is not None and live.limits is not None and not live.limits.chunks and not download.sources:
                raise AttachmentTooLarge("this network takes no files")
            downloads.check_size(self._vault, wanted.file.size)
        except FastChatError as problem:
            self._end(download, problem)
            return
        self._step(download)

    def _let_go(self, download: Download) -> None:
        """What is there stays; it may be looked for again."""
        download.is_over = True
        if not download.is_busy:
            download.part.close()

    # --- what is done in a thread ------------------------------------------------------------------------------------

    def _step(self, download: Download) -> None:
        """What comes next, if anything does that blocks."""
        part = download.part
        if download.is_busy or download.is_over or download.problem is not None:
            return
        behind = part.length - part.hashed
        if not download.is_open:
            self._work(download, part.open, self._opened)
        elif download.sources:
            self._work(download, partial(part.copy, download.sources[0]), self._copied)
        elif behind and (behind >= SLICE or download.is_complete):
            self._work(download, partial(part.hash_on, part.length), self._hashed)
        elif download.is_complete:
            run = partial(part.finish, download.file.sha256, download.wanted.name)
            self._work(download, run, self._finished)

    def _work(self, download: Download, run: Callable[[], Any], done: Callable[[Download, Any], None]) -> None:
        def worked(result: Any) -> None:
            download.is_busy = False
            if isinstance(result, Path) and not self._is_stale:
                self._finished(download, result)  # also if nobody waits for it any more: it is there now
            elif download.is_over:
                download.part.close()
            elif isinstance(result, NotSaved):
                self._end(download, result)
            elif isinstance(result, AttachmentDamaged):
                self._is_another(download, result)
            elif isinstance(result, InUse):
                download.not_before = self._parts.clock() + IN_USE_PATIENCE
            elif isinstance(result, Exception):
                raise result
            else:
                done(download, result)
                self._step(download)

        download.is_busy = True
        self._parts.work(run, worked)

    def _opened(self, download: Download, _: None) -> None:
        download.opened()

    def _copied(self, download: Download, on: bool) -> None:
        download.copied(on=on)
        self._progress(download)

    def _hashed(self, download: Download, _: None) -> None:
        """`_step` goes on from there."""

    def _is_another(self, download: Download, problem: FastChatError) -> None:
        """The whole is not what was sent. If it rests on what was found on the disk, that may be why; else its sender
        has lied."""
        part = download.part
        if download.wanted.anew or not (part.was_resumed or part.hashed < part.length):
            self._end(download, AttachmentDamaged(problem.message))
            return
        downloads.begin_anew(self._vault, download.wanted)
        download.wanted = replace(download.wanted, anew=True)
        download.is_open = False
        download.sources.clear()
        download.doubted.clear()
        self._tell_notice(download, f"{problem.message}; it is fetched once more, from its beginning")
        self._work(download, part.begin_anew, self._opened)

    # --- ends --------------------------------------------------------------------------------------------------------

    def _finished(self, download: Download, path: Path) -> None:
        """It has its name, and its part is still there to tell so."""
        vault, wanted = self._vault, download.wanted
        download.is_over = True
        self._open = [one for one in self._open if one.wanted.seq != wanted.seq]
        if downloads.remove(vault, wanted):
            files.saved(vault, wanted.of, path, auto=wanted.auto)
            if not downloads.is_wanted(vault, wanted.file.attachment):
                attachment_words.tell_fetched(vault, wanted.file.attachment)
            self._progress(download, at_once=True)
            self._parts.tell(FileSaved(wanted.file.attachment, wanted.conversation, wanted.id, str(path), wanted.auto))
        else:
            files.leave(vault, path)
        self._discard(download)
        self._fill()

    def _end(self, download: Download, problem: FastChatError) -> None:
        """It will not be fetched; or not now, if only the disk does not take it."""
        wanted, part = download.wanted, download.part
        download.is_over = True
        self._open.remove(download)
        reason = problem.message
        if isinstance(problem, UnknownAttachment):
            reason = "it is not on the network any more; ask its sender to send it again"
        if isinstance(problem, NotSaved) and part.length and part.is_there and not wanted.auto:
            downloads.stop(self._vault, wanted)
            reason += f"; the {part.length} bytes that have come are kept: fetch it again to go on with them"
            part.close()
        else:
            if isinstance(problem, NotSaved) and not wanted.auto:
                reason += "; nothing of it is kept: fetch it again when that is put right, or into another folder"
            downloads.remove(self._vault, wanted)
            self._discard(download)
        self._tell_failed(wanted, problem.code, reason)

    def _discard(self, download: Download) -> None:
        """Its part goes, and it is not let go before: nobody else takes it up while it is there."""
        if download.part.is_there:
            files.leave(self._vault, download.part.path)
        self._remove(download.part.path, download.part.discard, download.part)

    def _sweep(self) -> None:
        """What is superfluous goes; what another program has for now is looked at again a second later."""
        for path in files.leftovers(self._vault):
            self._remove(path, partial(saving.remove, path))

    def _remove(self, path: Path, run: Callable[[], bool], part: Part | None = None) -> None:
        def removed(result: bool | Exception) -> None:
            del self._removing[path]
            if isinstance(result, OSError):
                text = f"{path} is left over and of no use, but cannot be removed: {result.strerror}"
                self._parts.tell(Notice(NotSaved.code, text))
            elif isinstance(result, Exception):
                raise result
            if result is not False and not self._is_stale:
                files.removed(self._vault, path)
                self._fill()

        if path not in self._removing:
            self._removing[path] = part
            self._parts.work(run, removed)

    # --- what is told ------------------------------------------------------------------------------------------------

    def _damaged(self, download: Download, index: int, problem: FastChatError) -> None:
        if index in download.doubted:
            download.problem = problem
            return
        download.doubted.add(index)
        download.ask_again(index)
        self._tell_notice(download, f"{problem.message}; it is asked for once more")

    def _tell_notice(self, download: Download, text: str) -> None:
        self._parts.tell(Notice(AttachmentDamaged.code, f"{download.wanted.name}: {text}"))

    def _tell_failed(self, wanted: Wanted, code: str, reason: str) -> None:
        event = TransferFailed(wanted.file.attachment, wanted.conversation, wanted.id, wanted.name, False, code, reason)
        self._parts.tell(event)

    def _progress(self, download: Download, *, at_once: bool = False) -> None:
        now, wanted = self._parts.clock(), download.wanted
        if at_once or now - download.told_at >= PROGRESS_EVERY:
            download.told_at = now
            done, size = download.part.length, wanted.file.size
            event = TransferProgress(
                wanted.file.attachment, wanted.conversation, wanted.id, wanted.name, False, done, size
            )
            self._parts.tell(event)
