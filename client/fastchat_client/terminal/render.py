"""What a line of the chat looks like, as prompt_toolkit's (style, text) fragments: pure functions, no terminal.

Whatever a peer or the server says is cleaned here, on its way into a fragment, and nowhere later.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

from fastchat_client.durations import written
from fastchat_client.events import LogAlarm, MailboxProgress, RootChanged, State
from fastchat_client.terminal.text import Look, clean, clean_line, clock
from fastchat_client.unreadable import in_words
from fastchat_client.vault import Contact, Conversation, HistoryItem, Whoami

Line = list[tuple[str, str]]
"""Fragments of one printed piece; it may hold line ends inside, not at its end."""

STYLES = {
    "number": "ansibrightblack",
    "time": "ansibrightblack",
    "mention": "bold reverse",
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

QUOTE = 30
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


@dataclass(frozen=True)
class Shown:
    """A message as it stands on the screen. `at`: as `text.clock` takes it. `name`: of its sender. `number`: by which a
    person names it, 0 for none. `own`: written by this account, and `here`: on this device, so that `state` says how
    far it has come. `quote`: of what it answers. `me`: whose mentions stand out. `file`: how to have
    the file that it brings, or where it is."""

    at: str | int
    name: str
    text: str
    number: int = 0
    own: bool = False
    here: bool = False
    state: str = ""
    reason: str = ""
    quote: str = ""
    me: str = ""
    earlier: bool = False
    edited: bool = False
    deleted: bool = False
    expires: int = 0
    reactions: tuple[str, ...] = ()
    file: str = ""


MARGIN = 3
"""Characters before the time, where a number stands."""


def message(shown: Shown, now: datetime, look: Look) -> Line:
    """A message with everything that is known of it."""
    number = f"{shown.number:>{MARGIN - 1}} " if shown.number else " " * MARGIN
    time = clock(shown.at, now)
    name = ("class:you", "you" if shown.here else "you (elsewhere)") if shown.own else _named(shown.name)
    line: Line = [("class:number", number), ("class:time", f"{time} "), name]
    if shown.quote:
        quote = f' {look.symbol("↪", "to")} "{clean_line(shown.quote, QUOTE)}"'
        line.append(("class:notice", quote))
    if shown.deleted:
        return [*line, ("class:notice", ": (deleted)")]
    line.append(("", ": "))
    line += _mentioning(_hanging(shown.text, MARGIN + len(time) + len(name[1]) + 3), shown.me)
    line += [("class:notice", f"  {note}") for note in _notes(shown, look)]
    if shown.here:
        line += [("", "  "), mark(look, shown.state, shown.reason)]
    return line


def _notes(shown: Shown, look: Look) -> list[str]:
    notes = ["(said before you joined)"] * shown.earlier + ["(edited)"] * shown.edited
    notes += [clean_line(shown.file)] * bool(shown.file)
    if shown.expires:
        notes.append(f"{look.symbol('⏲', 'goes in')} {written(shown.expires)}")
    counts = {emoji: shown.reactions.count(emoji) for emoji in dict.fromkeys(shown.reactions)}
    if counts:
        notes.append(
            " ".join(clean_line(emoji, 16) + (f"{count}" if count > 1 else "") for emoji, count in counts.items())
        )
    return notes


def _mentioning(text: str, me: str) -> Line:
    """`text`, cleaned already, with the mentions of `me` standing out."""
    if not me:
        return [("", text)]
    line: Line = []
    end = 0
    for found in re.finditer(rf"(?<![a-z0-9._@-])@{re.escape(me)}(?![a-z0-9_-]|\.[a-z0-9_-])", text, re.IGNORECASE):
        line += [("", text[end : found.start()]), ("class:mention", found[0])]
        end = found.end()
    return [*line, ("", text[end:])]


def history(
    item: HistoryItem,
    now: datetime,
    look: Look,
    me: Whoami,
    *,
    number: int = 0,
    quote: str = "",
    reactions: Sequence[tuple[str, str]] = (),
    text: str | None = None,
    file: str = "",
) -> Line:
    """A message of the past. `reactions`: (user, emoji). `text`: what it says, if that is more than its text; `file`:
    as of `Shown`."""
    if item.waiting:
        return waiting(item.at, now, item.sender, number, look)
    if item.unreadable:
        return unreadable(item.at, now, item.sender, in_words(item.reason), retrying=False)
    here = item.own and item.id.startswith(f"{me.device}.")
    shown = Shown(
        at=item.at,
        name=item.sender,
        text=item.text if text is None else text,
        number=number,
        own=item.own,
        here=here,
        state=item.state,
        reason=item.reason,
        quote=quote,
        me="" if item.own else me.user,
        edited=item.edited,
        deleted=item.deleted,
        expires=item.expires,
        reactions=tuple(emoji for _, emoji in reactions),
        file="" if item.deleted else file,
    )
    return message(shown, now, look)


def note(text: str) -> Line:
    """A short line about a message or a conversation, below what it is about."""
    return [("class:notice", " " * MARGIN + clean(text).replace("\n", "\n" + " " * MARGIN))]


def received(at: str | int, now: datetime, sender: str, text: str) -> Line:
    """A message without anything around it, as `listen` prints it."""
    time = clock(at, now)
    name = _named(sender)
    return [("class:time", f"{time} "), name, ("", ": " + _hanging(text, len(time) + len(name[1]) + 3))]


def muted(label: str, on: bool) -> Line:
    what = "comes without a sign from now on" if on else "comes with a sign again"
    return note(f"What is written in {label} {what}.")


def blocked(user: str, on: bool) -> Line:
    return note(f"{'You see and hear nothing more of' if on else 'You hear again of'} {user}.")


def presence(on: bool) -> Line:
    seen = "Others see when you are there, and you when they are."
    return note(seen if on else "Nobody sees any more that you are there.")


def unreadable(at: str | int, now: datetime, sender: str, reason: str, retrying: bool) -> Line:
    more = "; it was asked for again" if retrying else ""
    return [
        ("class:time", f"{' ' * MARGIN}{clock(at, now)} "),
        _named(sender),
        ("class:problem", f": a message that cannot be read ({clean_line(reason)}){more}"),
    ]


def waiting(at: str | int, now: datetime, sender: str, number: int, look: Look) -> Line:
    """The place of a message that cannot be read yet."""
    return [
        ("class:number", f"{number:>{MARGIN - 1}} " if number else " " * MARGIN),
        ("class:time", f"{clock(at, now)} "),
        _named(sender),
        ("class:problem", f": {look.symbol('…', '...')} waits for its key; it is filled in when that comes"),
    ]


def mark(look: Look, state: str, reason: str = "") -> tuple[str, str]:
    style = {State.READ: "class:mark.read", State.FAILED: "class:mark.failed"}.get(State(state), "class:mark")
    return style, look.mark(state) + (f": {clean_line(reason)}" if reason else "")


def preview(
    at: str | int, now: datetime, sender: str, text: str, look: Look, group: str = "", *, mentioned: bool = False
) -> Line:
    """A message of a conversation that is not open. `group`: its label, if it is one's."""
    line: Line = [("class:time", f"{' ' * MARGIN}{clock(at, now)} "), ("class:unread", look.symbol("✉ ", "* "))]
    line += [_named(group), ("", " ")] if group else []
    called = [("class:mention", "@you"), ("", " ")] if mentioned else []
    return [*line, _named(sender), ("class:notice", ": "), *called, ("class:notice", clean_line(text, PREVIEW))]


def late(look: Look, conversation: str, state: str, texts: Sequence[str], reason: str = "") -> Line:
    """Messages printed earlier have come further."""
    what = f'"{clean_line(texts[0], 30)}"' if len(texts) == 1 else f"{len(texts)} messages"
    name = clean_line(conversation, 64)
    return [
        ("class:notice", " " * (MARGIN + 6)),
        mark(look, state),
        ("class:notice", f"  {name}: {what}{_because(reason)}"),
    ]


def _because(reason: str) -> str:
    return f": {clean_line(reason)}" if reason else ""


def notice(text: str) -> Line:
    return [("class:notice", clean(text))]


def problem(text: str) -> Line:
    return [("class:problem", clean(text))]


def head(name: str, look: Look, topic: str = "") -> Line:
    rule = look.symbol("──", "--")
    about = f" {look.symbol('·', '|')} {clean_line(topic, 100)}" if topic else ""
    return [("class:notice", f"{rule} "), _named(name), ("class:notice", f"{about} {rule}")]


def unread_list(conversations: Sequence[Conversation], label: Callable[[str], str]) -> str:
    """How many are unread where; those that are muted are left out."""
    return ", ".join(f"{clean_line(label(c.user), 64)} {c.unread}" for c in conversations if c.unread and not c.muted)


def people(
    conversations: Sequence[Conversation],
    contacts: Sequence[Contact],
    now: datetime,
    look: Look,
    label: Callable[[str], str],
    online: Collection[str],
    blocked: Collection[str],
) -> list[Line]:
    """The answer to /who: conversations, the newest first, then contacts without one; a dot is before who is there."""
    changed = {contact.user for contact in contacts if contact.changed_to}
    talked = {conversation.user for conversation in conversations}
    quiet = [contact.user for contact in contacts if contact.user not in talked]
    width = max((len(clean_line(label(user), 64)) for user in [*talked, *quiet]), default=0)

    def begun(user: str) -> Line:
        dot = look.symbol("●", "*") if user in online else " "
        style, name = _named(label(user))
        return [("class:online", f"{dot} "), (style, f"{name:<{width}}")]

    lines: list[Line] = []
    for conversation in conversations:
        line = begun(conversation.user)
        line.append(("class:time", f"  {clock(conversation.last_at, now)}"))
        if conversation.unread:
            line.append(("class:unread", f"  {conversation.unread} unread"))
        notes = ["muted"] * conversation.muted + ["blocked"] * (conversation.user in blocked)
        notes += [f"messages go after {written(conversation.timer)}"] * bool(conversation.timer)
        line += [("class:notice", f"  {text}") for text in notes]
        lines.append(line + _warning(conversation.user, changed))
    for user in quiet:
        what = "no messages, blocked" if user in blocked else "no messages"
        lines.append([*begun(user), ("class:notice", f"  {what}"), *_warning(user, changed)])
    return lines or [notice("Nobody yet. /msg WHO TEXT writes to somebody.")]


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
