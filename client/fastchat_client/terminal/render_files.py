"""What a file, and one on its way, look like in the chat: pure functions, no terminal."""

from __future__ import annotations

from collections.abc import Sequence

from fastchat_client.events import FileSaved, FileShown, TransferFailed, TransferProgress
from fastchat_client.files import Transfer
from fastchat_client.sizes import time_left, written
from fastchat_client.terminal.progress import Pace
from fastchat_client.terminal.render import MARGIN, Line, note, problem
from fastchat_client.terminal.text import Look, clean_line

NAME = 60
"""Characters of a file's name, where there is more on the line."""
SHORT_NAME = 24
"""The same, in the status line."""
ID_DIGITS = 8
"""Of a transfer, to name it by."""


def said(file: FileShown | None, text: str, look: Look) -> str:
    """What a message with a file says, in words: what it brings, and what was written with it. Not cleaned."""
    return text if file is None else " ".join([words(file, look)] + [text] * bool(text))


def words(file: FileShown, look: Look) -> str:
    """ "[picture beach.jpg, 2.3 MB, 4032×3024]"."""
    facts = [clean_line(file.name, NAME), written(file.size)]
    if file.width and file.height:
        return f"[picture {', '.join(facts)}, {file.width}{look.symbol('×', 'x')}{file.height}]"
    return f"[file {', '.join(facts)}]"


def percent(done: int, size: int) -> int:
    """100 only when all of it is there."""
    return 100 * done // size if size else 100


def on_its_way(event: TransferProgress, pace: Pace, look: Look) -> str:
    """For the status line: which file, which way, how far, how fast, how long yet."""
    arrow = look.symbol("↑", "sending") if event.up else look.symbol("↓", "fetching")
    parts = [f"{arrow} {clean_line(event.name, SHORT_NAME)} {percent(event.done, event.size)} %"]
    if rate := pace.rate():
        parts.append(f"{written(rate)}/s")
        parts.append(f"{time_left((event.size - event.done) / rate)} left")
    return " ".join(parts)


def preparing(name: str, done: int, size: int, look: Look) -> str:
    """For the status line, before anything of it is sent."""
    return f"{look.symbol('↑', 'sending')} {clean_line(name, SHORT_NAME)} is prepared: {percent(done, size)} %"


def transfers(waiting: Sequence[Transfer], label: dict[str, str]) -> list[str]:
    """One line each: by what to name it, which way, what, how far. `label`: what conversations are called."""
    lines = []
    for one in waiting:
        way = "to" if one.up else "from"
        where = clean_line(label.get(one.conversation, one.conversation), 64)
        far = f"{written(one.done)} of {written(one.size)}, {percent(one.done, one.size)} %"
        if one.up and not one.active:
            # What of it is there, the network knows.
            far = written(one.size)
        waits = "" if one.active else ", waits"
        lines.append(f"{one.attachment[:ID_DIGITS]}  {clean_line(one.name, NAME)} {way} {where}: {far}{waits}")
    return lines


def warning(told: Sequence[str]) -> str:
    """What goes along with a file that is sent as it is. `told`: as `pictures.warning_about` says it."""
    return f"It goes as it is, and tells {', '.join(clean_line(each) for each in told)}."


def saved(event: FileSaved) -> Line:
    what = "is here by itself, as" if event.auto else "saved as"
    return note(f"{what} {clean_line(event.path)}")


def failed(event: TransferFailed) -> Line:
    what = "was not sent" if event.up else "was not fetched"
    return problem(" " * MARGIN + f"{clean_line(event.name, NAME)} {what}: {clean_line(event.reason)}")
