"""`fastchat listen`: what is unread, then what comes, printed for people or for programs."""

from __future__ import annotations

import sys
from datetime import UTC, datetime

from fastchat_client.events import (
    Connected,
    Deleted,
    Disconnected,
    Edited,
    Event,
    Expired,
    FileSaved,
    FileSent,
    GroupAlarm,
    GroupChanged,
    GroupInvited,
    LogAlarm,
    MailboxProgress,
    MessageHeld,
    MessageReceived,
    MessageState,
    MessageUnreadable,
    MessageWaiting,
    Notice,
    PresenceChanged,
    Reacted,
    RootChanged,
    TimerChanged,
    TransferFailed,
    TypingNow,
    iso,
)
from fastchat_client.groups import group_info, group_list
from fastchat_client.messenger import Messenger
from fastchat_client.naming import short_id
from fastchat_client.once import DOUBT, Ending, problem_of, progress, say, until
from fastchat_client.profile import Profile
from fastchat_client.running import TRY_LATER, Running
from fastchat_client.terminal import group_words, render, render_files
from fastchat_client.terminal.group_words import Labels
from fastchat_client.terminal.progress import Progress
from fastchat_client.terminal.text import json_line, look_of
from fastchat_client.vault import HistoryItem, Vault

ForPrograms = (
    MessageWaiting
    | MessageUnreadable
    | MessageHeld
    | MessageState
    | Reacted
    | Edited
    | Deleted
    | Expired
    | TimerChanged
    | TypingNow
    | PresenceChanged
    | GroupChanged
    | GroupInvited
    | GroupAlarm
    | FileSent
    | FileSaved
    | TransferFailed
    | RootChanged
    | LogAlarm
)
"""What a program is told of beside messages. The connection's ups and downs are said on stderr, in words."""


class Printer:
    """Prints messages, and what else happens, each on a line of its own, flushed. `count`: how many messages to
    print."""

    def __init__(self, vault: Vault, as_json: bool, count: int | None) -> None:
        self._vault = vault
        self._as_json = as_json
        self._left = count
        self._me = vault.text("user")
        self._printed: set[str] = set()

    @property
    def is_done(self) -> bool:
        return self._left is not None and self._left <= 0

    def message(self, event: MessageReceived) -> None:
        if event.id in self._printed:
            return
        self._printed.add(event.id)
        if self._left is not None:
            self._left -= 1
        if self._as_json:
            self._json(event)
            return
        where = f"{self._label(event.conversation)} " if event.conversation.startswith("#") else ""
        text = render_files.said(event.file, event.text, look_of(sys.stdout))
        if event.file is not None:
            text += f"  (fastchat fetch {short_id(event.id)})"
        line = render.received(event.at, datetime.now(UTC), event.sender, text)
        print(render.plain([line[0], ("", where), *line[1:]]), flush=True)

    def other(self, event: ForPrograms) -> None:
        """Something that is no message: all of it for a program; for people what they must know meanwhile."""
        if self._as_json:
            self._json(event)
        elif words := self._words(event):
            say(words)

    def _words(self, event: ForPrograms) -> str:
        match event:
            case MessageUnreadable():
                return f"a message of {event.sender} cannot be read: {event.reason}"
            case MessageHeld():
                return f"a message of {event.sender} is kept unread: {event.reason}"
            case MessageWaiting():
                return f"a message of {event.sender} in {self._label(event.conversation)} waits for its key"
            case Edited():
                return f"{event.sender} changed a message: {event.text}"
            case Deleted():
                return f"{event.sender} deleted a message"
            case GroupChanged() if self._concerns(event):
                return f"{self._label(event.conversation)}: {group_words.changed(event, self._me)}"
            case GroupInvited() if event.name:
                label = self._label(event.conversation)
                invited = group_words.invited(event, label)
                return f"{invited}; to accept: fastchat group join {label.removeprefix('#')}"
            case GroupAlarm():
                return " ".join(group_words.alarm(event, self._label(event.conversation)))
            case FileSaved() if not event.auto:
                return f"a file is here: {event.path}"
            case TransferFailed():
                return f"{event.name} was not {'sent' if event.up else 'fetched'}: {event.reason}"
            case RootChanged():
                return f"the key of {event.user} has changed; ask in another way, then: fastchat accept {event.user}"
            case LogAlarm():
                return f"ALARM: the server contradicts its own key log: {event.reason}" if event.proof else DOUBT
            case _:
                return ""

    def _concerns(self, event: GroupChanged) -> bool:
        """Who is only invited has not come to hear what became of the group before."""
        info = group_info(self._vault, event.conversation)
        return info is None or info.role != "invited"

    def _label(self, conversation: str) -> str:
        return Labels(group_list(self._vault))[conversation]

    def _json(self, event: MessageReceived | ForPrograms) -> None:
        print(json_line(event), flush=True)


async def listen(
    running: Running, profile: Profile, vault: Vault, as_json: bool, count: int | None, seconds: float | None
) -> int:
    """Print what is unread, then what comes, until `count` messages or `seconds`. What was printed is marked as read.
    `TRY_LATER` if fewer than `count` came in time."""
    ending = Ending()
    printer = Printer(vault, as_json, count)
    told_problem: set[str] = set()
    last: dict[str, str] = {}
    """By conversation, what was printed last and is not marked as read yet."""
    lines = Progress(running.reactor.seconds)

    def give(message: MessageReceived) -> None:
        if not printer.is_done:
            printer.message(message)
            last[message.conversation] = message.id
        if printer.is_done:
            ending(0)

    def mark() -> None:
        """Once for all that was printed: each time is a transaction."""
        for conversation, message_id in last.items():
            messenger.mark_read(conversation, message_id)
        last.clear()

    def told(events: list[Event]) -> None:
        take(events)
        mark()

    def take(events: list[Event]) -> None:
        for event in events:
            if ending.result.called:
                return
            if isinstance(event, MessageReceived):
                if not event.own:
                    give(event)
            elif isinstance(event, ForPrograms):
                printer.other(event)
            elif isinstance(event, Disconnected):
                problem = problem_of(event)
                if event.retry_in is None:
                    ending(problem)
                elif problem.message not in told_problem:
                    told_problem.add(problem.message)
                    say(f"{problem.message}; trying again")
            elif isinstance(event, Connected):
                told_problem.clear()
                lines.broken_off()
            elif isinstance(event, MailboxProgress):
                if line := lines.line(event):
                    say(line)
            elif isinstance(event, Notice):
                progress(event.text)

    messenger = Messenger(profile, vault, running.reactor, told, keeps_files=True)
    for item in unread(vault):
        if not ending.result.called:
            give(message_of(item))
    mark()
    if not ending.result.called:
        messenger.start()
    try:
        return await until(running.reactor, seconds, ending, lambda: 0 if count is None else TRY_LATER)
    finally:
        await messenger.stop()


def unread(vault: Vault) -> list[HistoryItem]:
    """Every unread message, by conversation, the oldest first."""
    found: list[HistoryItem] = []
    for conversation in reversed(vault.conversations()):
        if conversation.unread:
            left = conversation.unread
            items: list[HistoryItem] = []
            before = ""
            while left:
                page = vault.history(conversation.user, 500, before)
                if not page:
                    break
                fresh = [item for item in page if not item.own and not item.read and not item.unreadable]
                items = fresh + items
                left -= len(fresh)
                before = page[0].id
            found += items
    return found


def message_of(item: HistoryItem) -> MessageReceived:
    """A message of the history as the event that it once was."""
    return MessageReceived(
        item.sender,
        item.conversation,
        item.text,
        iso(item.at),
        item.id,
        item.own,
        reply=item.reply,
        expires=item.expires,
        file=item.file,
    )
