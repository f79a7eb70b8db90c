"""Small pictures in the terminal: what they look like, and how it is found out what a terminal can show."""

from __future__ import annotations

import os
import pty
import sys
import threading
from io import BytesIO

import pexpect  # type: ignore[import-untyped]
from PIL import Image
from prompt_toolkit.styles import Style
from twisted.trial.unittest import SynchronousTestCase

from fastchat_client.terminal import pictures, render
from fastchat_client.terminal.pictures import (
    ANSWER_SECONDS,
    device_attributes,
    draw_for,
    half_blocks,
    no_picture,
    thumbnail,
)
from fastchat_client.terminal.text import Look, look_of
from tests.support.talking import DULL


def png(width: int = 8, height: int = 4, colour: tuple[int, ...] = (200, 10, 10)) -> bytes:
    data = BytesIO()
    Image.new("RGBA" if len(colour) == 4 else "RGB", (width, height), colour).save(data, "PNG")
    return data.getvalue()


class Pictures(SynchronousTestCase):
    def test_a_picture_keeps_its_shape_and_its_bounds(self) -> None:
        self.patch(pictures, "_columns", lambda: 60)
        for width, height, columns, rows in (
            (320, 240, 32, 12),
            (320, 8, 60, 1),
            (8, 320, 1, 12),
            (1, 1, 1, 1),
            (5, 3, 5, 2),
        ):
            lines = render.plain(half_blocks(Image.new("RGB", (width, height)), 12)).split("\n")
            self.assertLessEqual(len(lines), 12)
            self.assertEqual((len(lines), {len(line) - 3 for line in lines}), (rows, {columns}), (width, height))

    def test_where_it_is_transparent_the_terminal_is_seen(self) -> None:
        image = Image.new("RGBA", (1, 4))
        for y, colour in enumerate(((1, 1, 1, 255), (0, 0, 0, 0), (0, 0, 0, 0), (2, 2, 2, 255))):
            image.putpixel((0, y), colour)
        self.assertEqual(half_blocks(image, 2), [("", "   "), ("fg:#010101", "▀"), ("", "\n   "), ("fg:#020202", "▄")])
        self.assertEqual(render.plain(half_blocks(Image.new("RGBA", (2, 2)), 1)), "     ")

    def test_every_style_can_be_printed(self) -> None:
        for style, _ in half_blocks(Image.effect_noise((30, 20), 90).convert("RGB"), 12):
            Style([]).get_attrs_for_style_str(style)

    def test_a_terminal_that_is_plain_gets_none(self) -> None:
        for look in (DULL, Look(colour=True, symbols=False), Look(colour=False, symbols=True)):
            self.assertIs(draw_for(look), no_picture)
        self.assertEqual(thumbnail(no_picture, png()), [])

    def test_all_colours_where_the_terminal_says_so(self) -> None:
        class Terminal:
            encoding = "utf-8"

            def isatty(self) -> bool:
                return True

        for environ, true_colour in (
            ({"TERM": "xterm", "COLORTERM": "truecolor"}, True),
            ({"TERM": "xterm"}, False),
            ({"TERM": "xterm", "COLORTERM": "truecolor", "NO_COLOR": "1"}, False),
        ):
            self.assertEqual(look_of(Terminal(), environ).true_colour, true_colour)  # type: ignore[arg-type]


class DeviceAttributes(SynchronousTestCase):
    """What a terminal is asked before the chat begins, on a real one whose other side is this test."""

    def setUp(self) -> None:
        self.terminal, self.program = pty.openpty()
        self.addCleanup(os.close, self.terminal)
        self.addCleanup(os.close, self.program)

    def answering(self, answer: bytes) -> None:
        def play() -> None:
            self.asked = os.read(self.terminal, 100)
            os.write(self.terminal, answer)

        thread = threading.Thread(target=play)
        thread.start()
        self.addCleanup(thread.join)

    def test_one_that_answers(self) -> None:
        self.answering(b"\x1b[?62;4;22c")
        self.assertEqual(device_attributes(self.program, self.program), ["62", "4", "22"])
        self.assertEqual(self.asked, b"\x1b[c")

    def test_one_that_says_nothing_is_not_waited_for(self) -> None:
        self.assertIsNone(device_attributes(self.program, self.program))
        self.assertLess(ANSWER_SECONDS, 1)

    def test_somebody_who_types_is_not_robbed_of_it(self) -> None:
        os.write(self.terminal, b"typed\n")
        self.assertIsNone(device_attributes(self.program, self.program))
        self.assertEqual(os.read(self.program, 100), b"typed\n")

    def test_what_is_no_answer(self) -> None:
        self.answering(b"abc")
        self.assertIsNone(device_attributes(self.program, self.program))

    def test_what_is_no_terminal(self) -> None:
        reading, writing = os.pipe()
        self.addCleanup(os.close, reading)
        self.addCleanup(os.close, writing)
        self.assertIsNone(device_attributes(reading, writing))


SHOWS = """
import sys
from PIL import Image
from textual_image import _terminal
from fastchat_client.terminal import pictures
from fastchat_client.terminal.pictures import draw_for, half_blocks
from fastchat_client.terminal.text import Look
if "patient" in sys.argv:
    # The answer comes, however late: how busy the machine is must not matter.
    read = _terminal.read
    _terminal.read = lambda descriptor, length, timeout: read(descriptor, length, 60)
    pictures.SOON_SECONDS = pictures.ANSWER_SECONDS = 60
draw = draw_for(Look(colour=True, symbols=True))
line = draw(Image.new("RGB", (40, 40), (9, 9, 9)), 4)
raw = [("raw" if "ZeroWidth" in style else "text", text) for style, text in line]
print("DRAWN", "half" if draw is half_blocks else [kind for kind, _ in raw],
    ascii("".join(text for _, text in raw)))
"""


NEVER = r"\x1b_G"
"""How kitty's question begins."""


class Graphics(SynchronousTestCase):
    """Worth its processes: whether textual-image finds what a terminal can do is seen on a terminal alone, whose other
    side is this test. Each says of itself what real ones do."""

    def drawn(self, answers: dict[str, str], term: str = "xterm-256color", *how: str) -> str:
        environ = {name: value for name, value in os.environ.items() if name != "TMUX"} | {"TERM": term}
        terminal = pexpect.spawn(
            sys.executable, ["-c", SHOWS, *how], env=environ, encoding="utf-8", timeout=60, echo=False
        )
        self.addCleanup(terminal.close, True)
        terminal.setwinsize(24, 80)
        patterns = [*answers, "DRAWN (.*)\r\n"]
        while (found := terminal.expect(patterns)) < len(answers):
            self.assertNotEqual(patterns[found], NEVER)
            terminal.send(list(answers.values())[found])
        self.assertNotIn("Traceback", str(terminal.before))
        return str(terminal.match[1])

    def test_sixel(self) -> None:
        drawn = self.drawn({r"\x1b\[c": "\x1b[?62;4c", r"\x1b\[16t": "\x1b[6;20;10t"}, "xterm", "patient")
        self.assertTrue(drawn.startswith("['raw']"), drawn)
        self.assertIn(r"\x1bP", drawn)

    def test_kitty(self) -> None:
        answers = {r"\x1b\[c": "\x1b[?62c", r"\x1b_G[^;]*a=q[^;]*;AAAA\x1b\\": "\x1b_Gi=1;OK\x1b\\"}
        drawn = self.drawn({**answers, r"\x1b\[16t": "\x1b[6;20;10t"}, "xterm-kitty", "patient")
        self.assertTrue(drawn.startswith("['raw']"), drawn)
        self.assertIn(r"\U0010eeee", drawn)

    def test_one_that_can_do_neither_or_says_nothing_gets_half_blocks(self) -> None:
        self.assertTrue(self.drawn({r"\x1b\[c": "\x1b[?1;2c"}).startswith("half"))
        self.assertTrue(self.drawn({}).startswith("half"))

    def test_one_that_would_take_the_question_for_letters_is_not_asked(self) -> None:
        for term in ("linux", "screen-256color", "tmux-256color"):
            drawn = self.drawn({r"\x1b\[c": "\x1b[?6c", NEVER: ""}, term, "patient")
            self.assertTrue(drawn.startswith("half"), drawn)
