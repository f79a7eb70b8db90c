"""How far files have come, as bars on a terminal."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Column

from fastchat_client.events import FileSent, TransferFailed, TransferProgress
from fastchat_client.terminal.bars import NAME, FileEvent
from fastchat_client.terminal.text import clean_line


class RichBars:
    """One bar for each file. Drawn when something has come, and at no other time: no thread writes to the terminal."""

    def __init__(self, err: TextIO, environ: Mapping[str, str] = os.environ) -> None:
        console = Console(file=None if err is sys.stderr else err, stderr=err is sys.stderr, force_terminal=True)
        console.no_color = bool(environ.get("NO_COLOR"))
        self._progress = Progress(
            # Without markup: what people call their files may look like some.
            TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True)),
            BarColumn(),
            TaskProgressColumn(table_column=Column(no_wrap=True)),
            DownloadColumn(table_column=Column(no_wrap=True)),
            TransferSpeedColumn(table_column=Column(no_wrap=True)),
            TimeRemainingColumn(compact=True, table_column=Column(no_wrap=True)),
            console=console,
            auto_refresh=False,
            # Or results would be written among the bars, also where stdout is a file.
            redirect_stdout=False,
        )
        self._tasks: dict[str, TaskID] = {}
        self._names: dict[str, str] = {}
        self._preparing: TaskID | None = None
        self._prepared = ""

    def preparing(self, name: str, done: int, size: int) -> None:
        self._progress.start()
        if self._preparing is None or self._prepared != name:
            self._ready()
            self._prepared = name
            self._preparing = self._progress.add_task(f"{clean_line(name, NAME)}: preparing", total=size)
        self._progress.update(self._preparing, completed=done, total=size, refresh=True)

    def event(self, event: FileEvent) -> None:
        self._progress.start()
        if isinstance(event, TransferProgress):
            self._moved(event)
        elif isinstance(event, TransferFailed):
            self._end(event.attachment, "refused", whole=False)
        else:
            self._end(event.attachment, "sent" if isinstance(event, FileSent) else "saved", whole=True)
        self._progress.refresh()

    def waiting(self) -> None:
        for attachment, task in self._tasks.items():
            # A rate that is over would be a lie, and so would a time by it.
            done, total = (
                self._progress.tasks[self._place(task)].completed,
                self._progress.tasks[self._place(task)].total,
            )
            self._progress.reset(
                task, completed=int(done), total=total, description=f"{self._names[attachment]}: waiting"
            )
        self._progress.refresh()

    def close(self) -> None:
        self._ready()
        self._progress.stop()

    def _ready(self) -> None:
        if self._preparing is not None:
            self._progress.remove_task(self._preparing)
            self._preparing = None

    def _moved(self, event: TransferProgress) -> None:
        self._ready()
        doing = f"{clean_line(event.name, NAME)}: {'sending' if event.up else 'fetching'}"
        task = self._tasks.get(event.attachment)
        if task is None:
            # What was there already has not come just now: it is no part of the rate.
            self._names[event.attachment] = clean_line(event.name, NAME)
            self._tasks[event.attachment] = self._progress.add_task(doing, total=event.size, completed=event.done)
        else:
            self._progress.update(task, completed=event.done, total=event.size, description=doing)

    def _end(self, attachment: str, what: str, *, whole: bool) -> None:
        task = self._tasks.pop(attachment, None)
        if task is not None:
            total = self._progress.tasks[self._place(task)].total
            self._progress.update(task, description=f"{self._names[attachment]}: {what}")
            if whole:
                self._progress.update(task, completed=total)

    def _place(self, task: TaskID) -> int:
        return self._progress.task_ids.index(task)
