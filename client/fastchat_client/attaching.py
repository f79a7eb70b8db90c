"""From a path that a person names to an upload that the vault has noted: read, prepared, encrypted and kept.

What blocks is done in threads of the reactor's pool. Until the vault has noted it nothing is promised, and whatever
stops it leaves nothing behind; from then on `uploading.py` sees to it. It knows no connection.
"""

from __future__ import annotations

import io
import os
import stat
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.threads import deferToThreadPool
from twisted.python.failure import Failure

from fastchat import steady
from fastchat.errors import AttachmentTooLarge, ConfigError, RequestError
from fastchat_client import speaking, spool, uploads
from fastchat_client.content import File, Ref
from fastchat_client.filenames import clean_name, guess_type
from fastchat_client.pictures import is_picture, prepare_picture
from fastchat_client.sizes import written
from fastchat_client.spool import Spooled
from fastchat_client.uploads import Source, Upload
from fastchat_client.vault import Vault

HEAD = 64
"""Bytes by which a picture is recognised."""
PROGRESS_EVERY = 0.1
NO_LIMIT = 2**53 - 1
"""Bytes, while it is not known what the network takes."""

Progress = Callable[[int, int], None]
"""Bytes done, and bytes of the whole."""
Name = TypeVar("Name")


class Compose(Protocol):
    """As `core.Core.compose`: lets a function put something into the vault."""

    def __call__(self, composed: Callable[[Vault, int], Name]) -> Name: ...


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A spool, and what is said of the file."""

    spooled: Spooled
    name: str
    type: str
    width: int = 0
    height: int = 0
    thumbnail: bytes = b""


class Attaching:
    """`folder`: where the spools are."""

    def __init__(self, vault: Vault, folder: Path, reactor: Any, compose: Compose) -> None:
        self._vault = vault
        self._folder = folder
        self._reactor = reactor
        self._compose = compose
        self._stops: dict[threading.Event, Deferred[None]] = {}
        """Of what is being prepared: how to stop it, and when it has come to its end."""

    async def attach(
        self, conversation: str, path: Path, text: str, original: bool, reply: str, progress: Progress
    ) -> str:
        """Note a file to be sent; its attachment. The same source, unfinished, is gone on with. Raises
        `FastChatError`s: `NameNotAllowed`, `RequestError` for what cannot be said there or is no file, `PictureError`,
        `AttachmentTooLarge`, `ConfigError` if there is no room for it. Cancelling stops it."""
        speaking.check_file(self._vault, conversation, text, reply)
        path = Path(os.path.abspath(path))
        largest = self._vault.number("largest_attachment") or NO_LIMIT
        opened = _open(path, original)
        if same := uploads.same(self._vault, conversation, opened.source, text, reply):
            opened.file.close()
            return same
        stop = threading.Event()
        tell = self._teller(progress, stop)
        preparing = _Preparing(self._folder, opened, largest, tell, stop.is_set)
        prepared = await self._in_thread(stop, preparing.run)
        try:
            self._compose(lambda vault, at: _note(vault, conversation, prepared, opened.source, text, reply, at))
        except BaseException:
            spool.remove(self._folder, prepared.spooled.attachment)
            raise
        finally:
            prepared.spooled.close()
        return prepared.spooled.attachment

    async def stop(self) -> None:
        """Stop what is being prepared, and wait until nothing of it is left."""
        for stop in list(self._stops):
            stop.set()
        for ended in list(self._stops.values()):
            await ended

    def _teller(self, progress: Progress, stop: threading.Event) -> Progress:
        """To be called in the thread; `progress` is in the reactor's, and not too often."""
        told_at = -1e9

        def tell(done: int, size: int) -> None:
            nonlocal told_at
            now = steady.seconds()
            if now - told_at >= PROGRESS_EVERY or done >= size:
                told_at = now
                self._reactor.callFromThread(lambda: None if stop.is_set() else progress(done, size))

        return tell

    def _in_thread(self, stop: threading.Event, run: Callable[[], _Prepared]) -> Deferred[_Prepared]:
        """What `run` makes. Cancelled, it fails at once; the thread ends a little later, and leaves nothing."""
        answer: Deferred[_Prepared] = Deferred(lambda _: stop.set())
        ended = self._stops[stop] = Deferred()

        def done(result: _Prepared | Failure) -> None:
            del self._stops[stop]
            if stop.is_set() and isinstance(result, _Prepared):
                spool.remove(self._folder, result.spooled.attachment)
                result.spooled.close()
            if not answer.called:
                if stop.is_set():
                    answer.errback(CancelledError())
                else:
                    answer.callback(result)
            ended.callback(None)

        deferToThreadPool(self._reactor, self._reactor.getThreadPool(), run).addBoth(done)
        return answer


@dataclass(frozen=True, slots=True)
class _Opened:
    source: Source
    file: BinaryIO
    head: bytes


def _open(path: Path, original: bool) -> _Opened:
    """A regular file; who names a pipe must not wait for what nobody writes into it."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise _unreadable(path, error) from None
    known = os.fstat(descriptor)
    if not stat.S_ISREG(known.st_mode):
        os.close(descriptor)
        if stat.S_ISDIR(known.st_mode):
            raise RequestError(f"{path} is a folder, no file that can be sent: pack it into one (tar, zip)")
        raise RequestError(f"{path} is no file that can be sent")
    file = os.fdopen(descriptor, "rb", buffering=0)
    try:
        return _Opened(
            Source(str(path), known.st_size, known.st_mtime_ns, original), file, os.pread(descriptor, HEAD, 0)
        )
    except OSError as error:
        file.close()
        raise _unreadable(path, error) from None
    except BaseException:
        file.close()
        raise


@dataclass(frozen=True, slots=True)
class _Preparing:
    """What is done in a thread."""

    folder: Path
    opened: _Opened
    largest: int
    tell: Progress
    stopped: Callable[[], bool]

    def run(self) -> _Prepared:
        with self.opened.file:
            path, head, original = Path(self.opened.source.path), self.opened.head, self.opened.source.original
            name = clean_name(path.name)
            if not is_picture(path.name, head):
                return _Prepared(self._as_it_is(), name, guess_type(name, head))
            picture = prepare_picture(path.name, path, original=original)
            spooled = self._as_it_is() if original else self._spool(io.BytesIO(picture.data), len(picture.data))
            return _Prepared(spooled, name, picture.type, picture.width, picture.height, picture.thumbnail)

    def _as_it_is(self) -> Spooled:
        """If it is the same from its first to its last byte."""
        source = self.opened.source
        spooled = self._spool(self.opened.file, source.size)
        known = os.fstat(self.opened.file.fileno())
        if (spooled.size, known.st_mtime_ns) != (source.size, source.mtime):
            spool.remove(self.folder, spooled.attachment)
            spooled.close()
            raise ConfigError(f"{source.path} was changed while it was read; nothing was sent: try again")
        return spooled

    def _spool(self, file: BinaryIO, size: int) -> Spooled:
        path = self.opened.source.path
        if size > self.largest:
            raise AttachmentTooLarge(f"{path} is too large: this network takes files of up to {written(self.largest)}")
        return spool.write(
            *(self.folder, file, path),
            largest=self.largest,
            progress=lambda done: self.tell(done, max(done, size)),
            stopped=self.stopped,
        )


def _note(vault: Vault, conversation: str, prepared: _Prepared, source: Source, text: str, reply: str, at: int) -> None:
    with vault.transaction():
        # Asked again: it may have been a while.
        answered: Ref | None = speaking.check_file(vault, conversation, text, reply)
        spooled = prepared.spooled
        file = File(
            attachment=spooled.attachment,
            key=spooled.key,
            size=spooled.size,
            sha256=spooled.sha256,
            name=prepared.name,
            type=prepared.type,
            width=prepared.width,
            height=prepared.height,
            thumbnail=prepared.thumbnail,
            text=text,
            reply=answered,
        )
        uploads.note(vault, Upload(conversation, file, source, at))


def _unreadable(path: Path, error: OSError) -> RequestError:
    return RequestError(f"{path} cannot be read: {error.strerror}")
