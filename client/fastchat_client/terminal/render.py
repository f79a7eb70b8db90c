"""What a line of the chat looks like, as prompt_toolkit's (style, text) fragments: pure functions, no terminal.

Whatever a peer or the server says is cleaned here, on its way into a fragment, and nowhere later.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from datetime import datetime

from fastchat_client.events import LogAlarm, MailboxProgress, RootChanged, State
from fastchat_client.terminal.text import Look, clean, clean_line, clock
from fastchat_client.unreadable import in_words
from fastchat_client.vault import Contact, Conversation, HistoryItem

Line = list[tuple[str, str]]
"""Fragments of one printed piece; it may hold line ends inside, not at its end."""

STYLES = {
    "time": "ansibrightblack",
    "you": "bold",
    "peer0": "bold ansicyan",
    "peer1": "bold ansimagenta",
    "peer2": "bold ansiyellow",
    "peer3": "bold ansiblue",
    "peer4": "bold ansigreen",
    "mark": "ansibrightblack",
    "mark.read": "ansigreen",
    "mark.failed": "bold ansired",
    "notice": "ansibrightblack",
    "problem": "ansiyellow",
    "alarm": "bold ansired",
    "unread": "bold ansiyellow",
    "online": "ansigreen",
    "trying": "ansiyellow",
    "offline": "ansired",
    "head": "bold",
    "bottom-toolbar": "noreverse ansibrightblack",
}
"""Sixteen colours that the person's own terminal defines, so that they are readable on any background."""

PREVIEW = 60
"""Characters of a message that are shown of a conversation that is not open."""


def plain(line: Line) -> str:
    return "".join(text for _, text in line)


def receiving(progress: MailboxProgress) -> str:
    """How much of what had been waiting is here."""
    done, total = progress.done, progress.total
    return f"receiving {total:,} messages: {done:,} ({100 * done // total} %)"


def _named(user: str) -> tuple[str, str]:
    """A name in its own colour, the same every time."""
    return f"class:peer{zlib.crc32(user.encode('utf-8', 'replace')) % 5}", clean_line(user, 64)


def _hanging(text: str, indent: int) -> str:
    """`text` with its further lines below its first."""
    return clean(text).replace("\n", "\n" + " " * indent)


def mark(look: Look, state: str, reason: str = "") -> tuple[str, str]:
    style = {State.READ: "class:mark.read", State.FAILED: "class:mark.failed"}.get(State(state), "class:mark")
    return style, look.mark(state) + (f": {clean_line(reason)}" if reason else "")


def received(at: str | int, now: datetime, sender: str, text: str, own: bool = False) -> Line:
    time = clock(at, now)
    name = ("class:you", "you (elsewhere)") if own else _named(sender)
    return [("class:time", f"{time} "), name, ("", ": " + _hanging(text, len(time) + len(name[1]) + 3))]


def sent(at: str | int, now: datetime, text: str, look: Look, state: str, reason: str = "") -> Line:
    time = clock(at, now)
    return [
        ("class:time", f"{time} "),
        ("class:you", "you"),
        ("", ": " + _hanging(text, len(time) + 6) + "  "),
        mark(look, state, reason),
    ]


def unreadable(at: str | int, now: datetime, sender: str, reason: str, retrying: bool) -> Line:
    more = "; it was asked for again" if retrying else ""
    return [
        ("class:time", f"{clock(at, now)} "),
        _named(sender),
        ("class:problem", f": a message that cannot be read ({clean_line(reason)}){more}"),
    ]


def history(item: HistoryItem, now: datetime, look: Look, device: str) -> Line:
    """A message of the past. `device` is this one: what other devices of the account sent is marked as such."""
    if item.unreadable:
        return unreadable(item.at, now, item.sender, in_words(item.reason), retrying=False)
    if item.own and item.id.startswith(f"{device}."):
        return sent(item.at, now, item.text, look, item.state, item.reason)
    return received(item.at, now, item.sender, item.text, item.own)


def preview(at: str | int, now: datetime, sender: str, text: str, look: Look) -> Line:
    """A message of a conversation that is not open."""
    line: Line = [("class:time", f"{clock(at, now)} "), ("class:unread", look.symbol("✉ ", "* ")), _named(sender)]
    return [*line, ("class:notice", f": {clean_line(text, PREVIEW)}")]


def late(look: Look, conversation: str, state: str, texts: Sequence[str], reason: str = "") -> Line:
    """Messages printed earlier have come further."""
    what = f'"{clean_line(texts[0], 30)}"' if len(texts) == 1 else f"{len(texts)} messages"
    name = clean_line(conversation, 64)
    return [("class:notice", "      "), mark(look, state), ("class:notice", f"  {name}: {what}{_because(reason)}")]


def _because(reason: str) -> str:
    return f": {clean_line(reason)}" if reason else ""


def notice(text: str) -> Line:
    return [("class:notice", clean(text))]


def problem(text: str) -> Line:
    return [("class:problem", clean(text))]


def head(user: str, look: Look) -> Line:
    rule = look.symbol("──", "--")
    return [("class:notice", f"{rule} "), _named(user), ("class:notice", f" {rule}")]


def unread_list(conversations: Sequence[Conversation]) -> str:
    return ", ".join(f"{clean_line(c.user, 64)} {c.unread}" for c in conversations if c.unread)


def people(conversations: Sequence[Conversation], contacts: Sequence[Contact], now: datetime) -> list[Line]:
    """The answer to /who: conversations, the newest first, then contacts without one."""
    changed = {contact.user for contact in contacts if contact.changed_to}
    lines: list[Line] = []
    talked = {conversation.user for conversation in conversations}
    width = max((len(user) for user in talked | {contact.user for contact in contacts}), default=0)
    for conversation in conversations:
        line: Line = [
            ("", "  "),
            _padded(conversation.user, width),
            ("class:time", f"  {clock(conversation.last_at, now)}"),
        ]
        if conversation.unread:
            line.append(("class:unread", f"  {conversation.unread} unread"))
        lines.append(line + _warning(conversation.user, changed))
    for contact in contacts:
        if contact.user not in talked:
            quiet: Line = [("", "  "), _padded(contact.user, width), ("class:notice", "  no messages")]
            lines.append(quiet + _warning(contact.user, changed))
    return lines or [notice("Nobody yet. /msg WHO TEXT writes to somebody.")]


def _padded(user: str, width: int) -> tuple[str, str]:
    style, name = _named(user)
    return style, f"{name:<{width}}"


def _warning(user: str, changed: set[str]) -> Line:
    return [("class:alarm", f"  its key has changed: /accept {clean_line(user)}")] if user in changed else []


def root_changed(event: RootChanged, accept: str) -> Line:
    """`accept`: how one accepts it in this face."""
    user = clean_line(event.user, 64)
    return [
        ("class:alarm", f"The key of {user} is not the one you know.\n"),
        ("", f"  before: {clean_line(event.old_fingerprint)}\n  now:    {clean_line(event.new_fingerprint)}\n"),
        ("", f"Either {user} began anew, or somebody else answers in {user}'s place. Nothing is sent to the new key, "),
        ("", f"and what it sent is kept unread.\nAsk {user} in another way; if it is theirs: {accept}"),
    ]


def log_alarm(event: LogAlarm, kept_in: str) -> Line:
    if not event.proof:
        return [
            ("class:alarm", "A contact was shown another log of everybody's keys than you, or says so.\n"),
            ("", "Either the server lies, or that contact's program does. Compare keys in another way, with /whoami."),
            ("", f" What it says is in {kept_in}"),
        ]
    return [
        ("class:alarm", "ALARM: the server contradicts its own log of everybody's keys. Nothing more is sent.\n"),
        ("", f"  {clean_line(event.reason)}\n"),
        ("", f"Somebody may be giving out false keys. Tell the others in another way. The evidence is in {kept_in}"),
    ]
