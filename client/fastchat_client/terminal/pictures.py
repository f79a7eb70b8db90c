"""Small pictures in the terminal: by its own graphics (sixel, kitty) where textual-image finds them, else as coloured
half-blocks, else not at all.

Only what `fastchat_client.pictures` has opened is drawn, pixel by pixel: no byte that a peer has sent reaches the
terminal. textual-image asks the terminal what it can do when it is imported, and waits a tenth of a second for each
answer; so it is imported only where an answer comes sooner, and before anything else reads what is typed.
"""

from __future__ import annotations

import os
import select
import shutil
import sys
import termios
import time
import tty
from collections.abc import Mapping
from io import StringIO
from typing import Any, Protocol

from PIL import Image
from rich.console import Console

from fastchat_client.pictures import PictureError, open_thumbnail
from fastchat_client.terminal.render import MARGIN, Line
from fastchat_client.terminal.text import Look

ROWS = 12
"""Of the screen, that a picture takes at most."""
COLUMNS = 60
ANSWER_SECONDS = 0.5
"""For what a terminal says of itself; one that says nothing is not kept waiting for longer."""
SOON_SECONDS = 0.05
"""A terminal that takes longer would answer textual-image too late, and its answer be taken for typing."""
_ATTRIBUTES = b"\x1b[c"
"""Primary Device Attributes (DA1, ECMA-48 8.3.24): "ESC [ ? 62 ; 4 c", where 4 means sixel."""
_SIXEL = "4"
_NO_KITTY = ("linux", "screen", "tmux")
"""Terminals that make something else of kitty's question: a title, or letters."""


class Draw(Protocol):
    """Draws a picture, RGB or RGBA, on at most so many rows; [] if that cannot be done here."""

    def __call__(self, image: Image.Image, rows: int) -> Line: ...


def no_picture(image: Image.Image, rows: int) -> Line:
    """For terminals that a line of text must do for."""
    return []


def thumbnail(draw: Draw, data: bytes, rows: int = ROWS) -> Line:
    """A thumbnail, as it came in a message; [] if there is none, or none that can be shown."""
    if not data or draw is no_picture:
        return []
    try:
        return draw(open_thumbnail(data), rows)
    except PictureError:
        return []


def draw_for(look: Look, environ: Mapping[str, str] = os.environ) -> Draw:
    """How this terminal shows pictures. May ask it, so nothing else may be reading what it answers."""
    if not (look.colour and look.symbols):
        return no_picture
    kind = _graphics(environ)
    return half_blocks if kind is None else _Graphics(kind)


def half_blocks(image: Image.Image, rows: int) -> Line:
    """Two pixels in each character: ▀ in the colour of the upper one, on that of the lower one."""
    width, height = _fitting(image, columns=_columns(), rows=2 * rows)
    image = image.convert("RGBA").resize((width, height))
    pixel: Any = image.load()
    line: Line = []
    for y in range(0, height, 2):
        line.append(("", ("\n" if y else "") + " " * MARGIN))
        line += [_half_block(pixel[x, y], pixel[x, y + 1] if y + 1 < height else (0, 0, 0, 0)) for x in range(width)]
    return line


def _half_block(upper: tuple[int, int, int, int], lower: tuple[int, int, int, int]) -> tuple[str, str]:
    """Where a picture is rather transparent than not, the terminal's own background is seen."""
    if upper[3] < 128:
        return ("", " ") if lower[3] < 128 else (f"fg:{_hex(lower)}", "▄")
    return (f"fg:{_hex(upper)}", "▀") if lower[3] < 128 else (f"fg:{_hex(upper)} bg:{_hex(lower)}", "▀")


def _hex(colour: tuple[int, int, int, int]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour[:3])


class _Graphics:
    """A `Draw` by one of textual-image's renderables."""

    def __init__(self, kind: Any) -> None:
        self._kind = kind

    def __call__(self, image: Image.Image, rows: int) -> Line:
        columns, rows = _fitting(image, columns=_columns(), rows=rows, tall=2)
        written = StringIO()
        console = Console(file=written, force_terminal=True, color_system="truecolor", width=columns + 1, height=rows)
        console.print(self._kind(image, width=columns, height=rows), end="")
        # As it is: prompt_toolkit would make letters of it.
        return [("[ZeroWidthEscape]", written.getvalue().removesuffix("\n").replace("\n", "\r\n"))]


def _columns() -> int:
    return max(1, min(COLUMNS, shutil.get_terminal_size().columns - MARGIN - 1))


def _fitting(image: Image.Image, *, columns: int, rows: int, tall: int = 1) -> tuple[int, int]:
    """The size, at most `columns` by `rows`, at which the picture keeps its shape; the elements are `tall` times as
    high as wide. It is not made larger than it is."""
    scale = min(1.0, columns / image.width, rows * tall / image.height)
    return max(1, round(image.width * scale)), max(1, round(image.height * scale / tall))


# --- what the terminal can do --------------------------------------------------------------------------------------


def _graphics(environ: Mapping[str, str]) -> Any | None:
    """textual-image's renderable for this terminal, if it can show more than letters."""
    if sys.__stdin__ is None or sys.__stdout__ is None or not (sys.__stdin__.isatty() and sys.__stdout__.isatty()):
        return None
    sys.__stdout__.flush()
    attributes = device_attributes(sys.__stdin__.fileno(), sys.__stdout__.fileno())
    if attributes is None:
        return None
    is_plain = "TMUX" in environ or environ.get("TERM", "").startswith(_NO_KITTY)
    if is_plain and _SIXEL not in attributes:
        return None
    from textual_image.renderable import HalfcellImage, SixelImage, TGPImage
    from textual_image.renderable import Image as Found

    if Found not in (SixelImage, TGPImage):
        return None
    # It asks for the size of a character at the first measuring: better now than among what is typed.
    Console(file=StringIO()).measure(HalfcellImage(Image.new("RGB", (1, 1))))
    return Found


def device_attributes(reading: int, writing: int) -> list[str] | None:
    """What the terminal behind these two file descriptors says that it can do; None if it says nothing, or too late
    to be asked more, or somebody is typing."""
    try:
        before = termios.tcgetattr(reading)
        tty.setcbreak(reading, termios.TCSANOW)
    except termios.error:
        return None
    try:
        if select.select([reading], [], [], 0)[0]:
            return None
        began = time.monotonic()
        os.write(writing, _ATTRIBUTES)
        answer = b""
        while not answer.endswith(b"c"):
            left = began + ANSWER_SECONDS - time.monotonic()
            if left <= 0 or not select.select([reading], [], [], left)[0]:
                return None
            answer += os.read(reading, 1)
        took = time.monotonic() - began
    finally:
        termios.tcsetattr(reading, termios.TCSANOW, before)
    is_answer = answer.startswith(b"\x1b[?") and took < SOON_SECONDS
    return answer[3:-1].decode("ascii", "replace").split(";") if is_answer else None
