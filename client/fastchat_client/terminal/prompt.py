"""The chat on a terminal that can move its cursor: prompt_toolkit's line editor, with what arrives printed above it.

One application runs for the whole chat: a line that is entered does not end it, so no key press is ever lost or
echoed between two prompts. It runs on the asyncio loop of Twisted's asyncio reactor, which must be installed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable
from typing import Protocol

from prompt_toolkit import PromptSession
from prompt_toolkit.application import get_app_session, run_in_terminal
from prompt_toolkit.buffer import Buffer
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.formatted_text import FormattedText
from prompt_toolkit.history import InMemoryHistory
from prompt_toolkit.input import Input
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.output import ColorDepth, Output
from prompt_toolkit.patch_stdout import patch_stdout
from prompt_toolkit.renderer import print_formatted_text
from prompt_toolkit.styles import Style
from twisted.internet.defer import Deferred

from fastchat_client.completing import word_begun
from fastchat_client.terminal.render import STYLES, Line
from fastchat_client.terminal.text import Look


class Shown(Protocol):
    """What is shown and told of what is typed (`talk.Talk`)."""

    def prompt(self) -> Line: ...

    def live(self) -> list[Line]: ...

    def status(self) -> Line: ...

    def completions(self, line: str) -> list[str]: ...

    def writing(self, line: str) -> None: ...

    def typed(self, line: str) -> None: ...


class _Completer(Completer):
    def __init__(self, shown: Shown) -> None:
        self._shown = shown

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        line = document.text_before_cursor
        word = word_begun(line)
        for found in self._shown.completions(line):
            # Of a path only its last part is listed: the rest stands in the line already.
            shown = found.rstrip("/").rpartition("/")[2] + "/" * found.endswith("/") if "/" in found[1:] else found
            yield Completion(found, start_position=-len(word), display=shown)


class PromptScreen:
    """A `talk.Screen`. `run` shows it until the person leaves; `input` and `output` are given by tests."""

    live = True

    def __init__(self, look: Look, input: Input | None = None, output: Output | None = None) -> None:
        self._look = look
        self._input = input
        self._output = output
        self._style = Style.from_dict(STYLES if look.colour else {"bottom-toolbar": "noreverse"})
        self._depth = ColorDepth.DEPTH_1_BIT if not look.colour else ColorDepth.TRUE_COLOR if look.true_colour else None
        self._session: PromptSession[str] | None = None
        self._unprinted: list[Line] = []
        self._printing: Awaitable[None] | None = None
        """Held, or it might be collected before it has printed: asyncio itself keeps no task alive."""
        self._leaving = False
        self._interrupted = False

    def show(self, line: Line) -> None:
        self._unprinted.append(line)
        if len(self._unprinted) == 1 and self._is_running():
            self._print_above()

    def redraw(self) -> None:
        if self._session is not None and self._is_running():
            self._session.app.invalidate()

    def end(self) -> None:
        self._leaving = True
        if self._session is not None and self._is_running():
            self._session.app.exit(result="")

    async def run(self, shown: Shown) -> bool:
        """Until the person leaves. True if that was by Ctrl-C. The terminal is as it was afterwards, whatever
        happens; cancelling it is one way to end it."""
        session = self._session = self._make_session(shown)
        with patch_stdout(raw=True):
            try:
                running = asyncio.ensure_future(
                    session.prompt_async(handle_sigint=False, pre_run=lambda: self._started(shown))
                )
                await Deferred.fromFuture(running)
            except EOFError:
                pass  # Ctrl-D
            finally:
                self._session = None
        self.flush()
        return self._interrupted

    def flush(self) -> None:
        """Print what has not been, without a prompt around it."""
        for line in self._take():
            self._print(line)

    # --- inside ----------------------------------------------------------------------------------------------------

    def _make_session(self, shown: Shown) -> PromptSession[str]:
        def message() -> FormattedText:
            fragments: Line = []
            for line in shown.live():
                fragments += [*line, ("", "\n")]
            return FormattedText(fragments + shown.prompt())

        session: PromptSession[str] = PromptSession(
            message=message,
            bottom_toolbar=lambda: FormattedText(shown.status()),
            completer=_Completer(shown),
            complete_while_typing=False,
            # In memory only: what people write does not belong on the disk in the clear.
            history=InMemoryHistory(),
            key_bindings=self._keys(),
            style=self._style,
            color_depth=self._depth,
            erase_when_done=True,
            # Ctrl-Z: without this it would become a part of what is sent.
            enable_suspend=True,
            refresh_interval=1.0,
            input=self._input,
            output=self._output,
        )

        def entered(buffer: Buffer) -> bool:
            shown.typed(buffer.text)
            return False  # the line is cleared, the application goes on

        session.default_buffer.accept_handler = entered
        session.default_buffer.on_text_changed += lambda buffer: shown.writing(buffer.text)
        return session

    def _started(self, shown: Shown) -> None:
        if self._leaving and self._session is not None:
            asyncio.get_running_loop().call_soon(self.end)
        if self._unprinted:
            self._print_above()

    def _is_running(self) -> bool:
        return self._session is not None and self._session.app.is_running

    def _print_above(self) -> None:
        """All that this turn brings, with one redraw."""

        def print_all() -> None:
            for line in self._take():
                self._print(line)

        self._printing = run_in_terminal(print_all)

    def _take(self) -> list[Line]:
        lines, self._unprinted = self._unprinted, []
        return lines

    def _print(self, line: Line) -> None:
        # The renderer's own function: the one for applications would wait for the terminal, which is free already.
        output = self._output or get_app_session().output
        print_formatted_text(output, [*line, ("", "\n")], self._style, color_depth=self._depth)
        output.flush()

    def _keys(self) -> KeyBindings:
        """Ctrl-C clears a line that was begun, and leaves on an empty one; Ctrl-D leaves on an empty one."""
        keys = KeyBindings()

        @keys.add("c-c")
        def clear_or_leave(event: KeyPressEvent) -> None:
            if event.current_buffer.text:
                event.current_buffer.reset()
            else:
                # Not as a KeyboardInterrupt: that would end asyncio's loop, and Twisted with it.
                self._interrupted = True
                self.end()

        return keys
