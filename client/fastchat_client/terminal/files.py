"""Files in the chat: what is sent and fetched, how far it has come, and what became of it. It knows no disk: the
messenger does what is to be done with files, in its own time.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger

from fastchat.errors import FastChatError, RequestError
from fastchat_client import paths
from fastchat_client.events import Event, FileSaved, FileSent, TransferFailed, TransferProgress
from fastchat_client.files import StoredFile, Transfer
from fastchat_client.pictures import PictureError, open_received, warning_about
from fastchat_client.sizes import written
from fastchat_client.terminal import render, render_files
from fastchat_client.terminal.interfaces import Mouth, Screen
from fastchat_client.terminal.pictures import Draw, thumbnail
from fastchat_client.terminal.progress import Pace
from fastchat_client.terminal.text import Look, clean_line

ROWS = 24
"""Of a picture that is asked for."""
MOST_PIXELS = 50_000_000
"""Of one that was fetched, to be shown here: four bytes each, for a moment."""

InThread = Callable[..., Deferred[Any]]
"""Calls what blocks, with its arguments, in a thread."""


@dataclass
class _Preparing:
    """A file that is read and encrypted; nothing of it is sent yet."""

    name: str
    ended: Deferred[None] | None = None
    done: int = 0
    size: int = 1


class FileTalk:
    """A `face.FileFace`. `current`: the open conversation; `label`: what one is called; `number`: of a message, 0 if it
    has none; `is_connected`: whether what is begun goes on at once; `in_thread`: as `deferToThread`."""

    log = Logger()

    def __init__(
        self,
        messenger: Mouth,
        screen: Screen,
        look: Look,
        reactor: Any,
        draw: Draw,
        current: Callable[[], str | None],
        label: Callable[[str], str],
        number: Callable[[str], int],
        is_connected: Callable[[], bool],
        in_thread: InThread,
    ) -> None:
        self._messenger = messenger
        self._screen = screen
        self._look = look
        self._reactor = reactor
        self._draw = draw
        self._current = current
        self._label = label
        self._number = number
        self._is_connected = is_connected
        self._in_thread = in_thread
        self._preparing: list[_Preparing] = []
        self._under_way: dict[str, tuple[TransferProgress, Pace]] = {}
        self._cancelled: set[str] = set()
        """Here, by this person, who need not be told."""

    # --- what a person does ----------------------------------------------------------------------------------------

    def send(self, conversation: str, path: str, text: str, *, original: bool) -> None:
        source = paths.expanded(path)
        preparing = _Preparing(source.name)
        self._preparing.append(preparing)
        preparing.ended = self._run(self._send(preparing, conversation, source, text, original=original))
        self._screen.redraw()

    async def _send(self, preparing: _Preparing, conversation: str, source: Path, text: str, *, original: bool) -> None:
        def progress(done: int, size: int) -> None:
            preparing.done, preparing.size = done, size
            self._screen.redraw()

        try:
            if original and (told := await self._in_thread(warning_about, source)):
                self._screen.show(render.problem(render_files.warning(told)))
            await self._messenger.send_file(conversation, source, text, original=original, progress=progress)
        except CancelledError:
            self._screen.show(render.problem(f"{clean_line(source.name)} was not sent: it was not prepared yet"))
        except FastChatError as error:
            self._screen.show(render.problem(f"Nothing was sent: {clean_line(error.message)}"))
        else:
            if not self._is_connected():
                self._screen.show(render.note(f"{clean_line(source.name)} goes out at the next connection."))
        finally:
            self._preparing.remove(preparing)
            self._screen.redraw()

    def fetch(self, message: str, directory: str) -> None:
        where = paths.expanded(directory or os.curdir).absolute()
        if not message:
            newest = self._messenger.files(self._conversation(), 1)
            if not newest:
                raise RequestError(f"there is no file in {self._label(self._conversation())}")
            message = newest[0].message
        elif self._messenger.file(message) is None:
            raise RequestError("this message brings no file")
        self._messenger.fetch(message, where)
        if not self._is_connected():
            self._screen.show(render.note("It is fetched at the next connection."))

    def show(self, message: str) -> None:
        stored = self._messenger.file(message)
        if stored is None:
            raise RequestError("this message brings no file")
        self._run(self._show(stored))

    async def _show(self, stored: StoredFile) -> None:
        try:
            if not stored.path or not stored.file.width:
                raise PictureError
            picture = self._draw(await self._in_thread(open_received, Path(stored.path), MOST_PIXELS), ROWS)
        except PictureError:
            picture = thumbnail(self._draw, stored.file.thumbnail, ROWS)
        if picture:
            self._screen.show(picture)
        what = render_files.words(stored.file, self._look)[1:-1]
        self._screen.show(render.note(f"{what}, {clean_line(stored.file.type)}"))
        saved = f"saved as {clean_line(stored.path)}"
        self._screen.show(render.note(saved if stored.path else f"not fetched: /fetch {self._named(stored.message)}"))

    def show_transfers(self) -> None:
        transfers = self._messenger.transfers()
        labels = {one.conversation: self._label(one.conversation) for one in transfers}
        for line in render_files.transfers(transfers, labels):
            self._screen.show(render.note(line))
        if not transfers:
            self._screen.show(render.note("no file is on its way"))

    def cancel(self, transfer: str) -> None:
        one = transfer_named(self._messenger.transfers(), transfer)
        self._messenger.cancel(one.attachment)
        self._under_way.pop(one.attachment, None)
        self._cancelled.add(one.attachment)
        what = "is not sent" if one.up else "is not fetched"
        self._screen.show(render.note(f"{clean_line(one.name)} {what}."))
        self._screen.redraw()

    def set_auto_download(self, size: int) -> None:
        self._messenger.set_auto_download(size)
        what = f"Files up to {written(size)} are" if size else "No file is"
        self._screen.show(render.note(f"{what} fetched by {'themselves' if size else 'itself'} from here on."))

    @property
    def is_preparing(self) -> bool:
        return bool(self._preparing)

    def leave(self) -> None:
        """The chat ends: what is not prepared will not be sent."""
        for preparing in list(self._preparing):
            if preparing.ended is not None:
                preparing.ended.cancel()

    # --- what is shown without being asked for -----------------------------------------------------------------------

    def words(self) -> str:
        """For the status line."""
        if self._under_way:
            events = sorted(self._under_way.values(), key=lambda each: each[0].size - each[0].done)
            more = f" (and {len(events) - 1} more)" if len(events) > 1 else ""
            return render_files.on_its_way(*events[0], self._look) + more
        if self._preparing:
            first = self._preparing[0]
            return render_files.preparing(first.name, first.done, first.size, self._look)
        return ""

    def on_event(self, event: Event) -> bool:
        """Whether it was about files. (That one is sent is for who shows its message.)"""
        if isinstance(event, TransferProgress):
            pace = self._under_way[event.attachment][1] if event.attachment in self._under_way else None
            pace = pace or Pace(self._reactor.seconds)
            pace.at(event.done)
            self._under_way[event.attachment] = (event, pace)
        elif isinstance(event, FileSent):
            self._under_way.pop(event.attachment, None)
        elif isinstance(event, FileSaved):
            self._under_way.pop(event.attachment, None)
            self._saved(event)
        elif isinstance(event, TransferFailed):
            self._under_way.pop(event.attachment, None)
            if event.attachment not in self._cancelled:
                self._screen.show(render_files.failed(event))
            self._cancelled.discard(event.attachment)
        else:
            return False
        return True

    def disconnected(self) -> None:
        """Nothing moves; what is under way says so again when it does."""
        self._under_way.clear()

    def _saved(self, event: FileSaved) -> None:
        if not event.auto:
            self._screen.show(render_files.saved(event))
        elif event.conversation == self._current():
            number = self._number(event.id)
            self._screen.show(
                render.note(f"{number or 'an earlier file'} is here; /fetch {self._named(event.id)} saves it")
            )

    def _run(self, doing: Coroutine[Any, Any, None]) -> Deferred[None]:
        running = Deferred.fromCoroutine(doing)
        # Whatever it has not seen to itself is a mistake of ours.
        running.addErrback(lambda failure: self.log.failure("a file could not be seen to", failure))
        return running

    def _conversation(self) -> str:
        conversation = self._current()
        if conversation is None:
            raise RequestError("which file? Type /msg WHO first, or /fetch N")
        return conversation

    def _named(self, message: str) -> str:
        """What to type to name a message."""
        return str(self._number(message) or message)


def transfer_named(transfers: Sequence[Transfer], begin: str) -> Transfer:
    """The one whose attachment begins with `begin`, or whose file is called so. Raises `RequestError`."""
    word = begin.strip()
    found = [one for one in transfers if word and (one.attachment.startswith(word.lower()) or one.name == word)]
    if len(found) == 1:
        return found[0]
    many = "could be several files: write more of its id" if found else "names no file that is on its way"
    raise RequestError(f"{begin} {many}")
