"""What a command does on the network and then ends: join, send, listen. Each is a coroutine that returns an exit code.

They print results on stdout, and what a person should know meanwhile on stderr; the command line itself, passwords
and what an exception becomes are `cli.py`'s.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from fastchat.errors import Busy, FastChatError, RequestError, TrustError, Unreachable, by_code
from fastchat_client.entrance import Enrolment
from fastchat_client.events import (
    Connected,
    Disconnected,
    Event,
    LogAlarm,
    MailboxProgress,
    MessageHeld,
    MessageReceived,
    MessageState,
    MessageUnreadable,
    Notice,
    RootChanged,
    State,
    iso,
)
from fastchat_client.messenger import Messenger
from fastchat_client.outbox import compose_text
from fastchat_client.patience import is_final
from fastchat_client.profile import Profile
from fastchat_client.running import TRY_LATER, Running
from fastchat_client.terminal import render
from fastchat_client.terminal.progress import Progress
from fastchat_client.terminal.text import clean_line, json_line
from fastchat_client.vault import HistoryItem, Vault

POLL_SECONDS = 0.1
"""Between two looks at what another process has done to the vault."""

JOIN_SECONDS = 60.0


class NotYet(FastChatError):
    """It could not be done now; it can be later."""

    code = "not-yet"


class Ending:
    """A result that one of several things brings: an exit code, or a `FastChatError`. The first one counts."""

    def __init__(self) -> None:
        self.result: Deferred[int] = Deferred()

    def __call__(self, result: int | FastChatError) -> None:
        if not self.result.called:
            if isinstance(result, FastChatError):
                self.result.errback(result)
            else:
                self.result.callback(result)


def progress(text: str) -> None:
    """For a person who waits: on stderr, if that is a terminal."""
    if sys.stderr.isatty():
        say(text)


def say(text: str) -> None:
    print(f"fastchat: {clean_line(text)}", file=sys.stderr, flush=True)


async def until(reactor: Any, seconds: float | None, ending: Ending, late: Callable[[], int | FastChatError]) -> int:
    """The ending's result; after `seconds`, if that is not None, what `late` says."""
    timer = None if seconds is None else reactor.callLater(seconds, lambda: ending(late()))
    try:
        return await ending.result
    finally:
        if timer is not None and timer.active():
            timer.cancel()


# --- join ----------------------------------------------------------------------------------------------------------


async def join(running: Running, profile: Profile, vault: Vault, enrolment: Enrolment | None) -> int:
    """Register what `messenger.prepare` made. Raises the network's refusal, or `NotYet` if it was not reached."""
    ending = Ending()

    def told(events: list[Event]) -> None:
        for event in events:
            if isinstance(event, Connected):
                ending(0)
            elif isinstance(event, Disconnected):
                problem = problem_of(event)
                # `busy` is how the way in says: once more from the beginning.
                if not isinstance(problem, Busy):
                    ending(problem if is_final(problem) or isinstance(problem, TrustError) else _join_later(problem))

    messenger = Messenger(profile, vault, running.reactor, told, enrolment)
    messenger.start()
    try:
        return await until(running.reactor, JOIN_SECONDS, ending, lambda: _join_later(Unreachable()))
    finally:
        await messenger.stop()


def _join_later(problem: FastChatError) -> FastChatError:
    return NotYet(f"{problem.message}; your keys are kept: the same command goes on where this one stopped")


def problem_of(event: Disconnected) -> FastChatError:
    """The exception that ended a connection."""
    return by_code(event.code)(event.reason)


# --- send ----------------------------------------------------------------------------------------------------------

_DONE = (State.ACCEPTED, State.DELIVERED, State.READ)
_DOUBT = "a contact says that the server shows it another log of everybody's keys; one of the two is lying"
_KEPT = "the message waits in the outbox and goes out at the next connection"


async def send(running: Running, profile: Profile, vault: Vault, to: str, text: str, seconds: float | None) -> int:
    """Send `text` and wait until it is accepted. This process holds the profile's lock. Raises why it never will be,
    or `NotYet` after `seconds`."""
    ending = Ending()
    sent: list[str] = []
    said: set[str] = set()

    def told(events: list[Event]) -> None:
        for event in events:
            if isinstance(event, MessageState) and event.id in sent:
                _judge(ending, event.state, event.reason)
            elif isinstance(event, RootChanged) and event.user == to:
                ending(_changed(to))
            elif isinstance(event, LogAlarm) and event.proof:
                ending(TrustError(f"{event.reason}; evidence: {messenger.alarm_file}; the message was not sent"))
            elif isinstance(event, LogAlarm):
                say(_DOUBT)
            elif isinstance(event, Disconnected) and not ending.result.called:
                problem = problem_of(event)
                if event.retry_in is None or isinstance(problem, TrustError):
                    ending(type(problem)(f"{problem.message}; {_KEPT}"))
                elif problem.message not in said:
                    said.add(problem.message)
                    say(f"{problem.message}; trying again. Ctrl-C leaves the message in the outbox")

    messenger = Messenger(profile, vault, running.reactor, told)
    sent.append(messenger.send(to, text))
    if _has_changed(vault, to):
        raise _changed(to)
    messenger.start()
    try:
        return await until(running.reactor, seconds, ending, lambda: NotYet(f"not accepted yet; {_KEPT}"))
    finally:
        await messenger.stop()


async def send_through_other(running: Running, vault: Vault, to: str, text: str, seconds: float | None) -> int:
    """As `send`, while another process is connected with this profile: it does the sending, this one looks on."""
    ending = Ending()
    message_id = compose_text(vault, to, text, round(time.time() * 1000))
    began = running.reactor.seconds()
    while not ending.result.called:
        _judge(ending, vault.state_of(message_id), _reason(vault, to, message_id))
        if _has_changed(vault, to):
            ending(_changed(to))
        if vault.alarm():
            ending(TrustError("the server has contradicted its key log; the message was not sent"))
        if seconds is not None and running.reactor.seconds() - began >= seconds:
            ending(NotYet(f"not accepted yet; {_KEPT}"))
        if not ending.result.called:
            await deferLater(running.reactor, POLL_SECONDS)
    return await ending.result


def _has_changed(vault: Vault, user: str) -> bool:
    return any(contact.user == user and contact.changed_to for contact in vault.contacts())


def _changed(user: str) -> TrustError:
    return TrustError(
        f"the key of {user} has changed; the message waits in the outbox until you accept it: ask {user} in another "
        f"way, then type fastchat accept {user}"
    )


def _judge(ending: Ending, state: str, reason: str) -> None:
    if state in _DONE:
        ending(0)
    elif state == State.FAILED:
        why = reason.rstrip(".")
        ending(RequestError(f"the message was refused: {why}; it stays in the history, marked as not sent"))


def _reason(vault: Vault, to: str, message_id: str) -> str:
    return next((item.reason for item in vault.history(to, 20) if item.id == message_id), "")


# --- listen --------------------------------------------------------------------------------------------------------


class Printer:
    """Prints messages, and alarms, each on a line of its own, flushed. `count`: how many messages to print."""

    def __init__(self, as_json: bool, count: int | None) -> None:
        self._as_json = as_json
        self._left = count
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
        else:
            print(render.plain(render.received(event.at, datetime.now(UTC), event.sender, event.text)), flush=True)

    def other(self, event: Event) -> None:
        """Something that is no message, but that whoever waits for messages must know."""
        if self._as_json:
            self._json(event)
        elif isinstance(event, MessageUnreadable):
            say(f"a message of {event.sender} cannot be read: {event.reason}")
        elif isinstance(event, MessageHeld):
            say(f"a message of {event.sender} is kept unread: {event.reason}")
        elif isinstance(event, RootChanged):
            say(f"the key of {event.user} has changed; ask in another way, then: fastchat accept {event.user}")
        elif isinstance(event, LogAlarm):
            say(f"ALARM: the server contradicts its own key log: {event.reason}" if event.proof else _DOUBT)

    def _json(self, event: Event) -> None:
        print(json_line(event), flush=True)


async def listen(
    running: Running, profile: Profile, vault: Vault, as_json: bool, count: int | None, seconds: float | None
) -> int:
    """Print what is unread, then what comes, until `count` messages or `seconds`. What was printed is marked as read.
    `TRY_LATER` if fewer than `count` came in time."""
    ending = Ending()
    printer = Printer(as_json, count)
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
            elif isinstance(event, MessageUnreadable | MessageHeld | RootChanged | LogAlarm):
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

    messenger = Messenger(profile, vault, running.reactor, told)
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
    return MessageReceived(item.sender, item.conversation, item.text, iso(item.at), item.id, item.own)
