"""The chat as a person sees it, apart from the terminal that shows it: events and typed lines in, printed lines out.

A sent message stays in the live region, above the prompt, while it is on its way and for a moment after: there its
state can change where it stands. Then it is printed with the state that it has; what changes later is said in a short
line. It knows no prompt_toolkit: it prints on a `Screen`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from fastchat.errors import FastChatError
from fastchat_client import commands
from fastchat_client.events import (
    Connected,
    Connecting,
    Disconnected,
    Event,
    LogAlarm,
    MailboxProgress,
    MessageHeld,
    MessageReceived,
    MessageState,
    MessageUnreadable,
    Moving,
    Notice,
    RootChanged,
    State,
)
from fastchat_client.terminal import render
from fastchat_client.terminal.interfaces import Mouth, Screen
from fastchat_client.terminal.progress import Progress
from fastchat_client.terminal.render import Line
from fastchat_client.terminal.text import Look, clean_line
from fastchat_client.vault import Conversation

HOLD_SECONDS = 3.0
"""How long an accepted message stays in the live region: long enough for the marks of somebody who is looking."""

LIVE_LINES = 5
"""Of the live region; more messages than that are counted."""

OPEN_LINES = 10
MOST_OPEN_LINES = 50
REMEMBERED = 1000
"""Printed messages whose further states are still told."""

_ORDER = (State.WAITING, State.ACCEPTED, State.DELIVERED, State.READ, State.FAILED)


@dataclass
class Sent:
    """A message sent from this screen. `at`: milliseconds since 1970."""

    id: str
    conversation: str
    text: str
    at: int
    state: State = State.WAITING
    reason: str = ""


class Talk:
    """A `commands.Face`. `reactor` is a clock for the live region; `now` the time that people see."""

    def __init__(
        self,
        messenger: Mouth,
        screen: Screen,
        look: Look,
        reactor: Any,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._messenger = messenger
        self._screen = screen
        self._look = look
        self._reactor = reactor
        self._now = now
        self._me = messenger.vault.whoami()
        self._open: str | None = None
        self._live: OrderedDict[str, Sent] = OrderedDict()
        self._printed: OrderedDict[str, Sent] = OrderedDict()
        self._came: dict[str, int] = {}
        self._seen = False
        """Something has come into the open conversation."""
        self._lines = Progress(reactor.seconds)
        self._progress: MailboxProgress | None = None
        self._conversations: list[Conversation] = []
        self._service = ""
        self._offline = "not connected yet"
        self._told_offline = False
        self._moving = False
        self._retry_at: float | None = None

    # --- what the screen asks for ----------------------------------------------------------------------------------

    def prompt(self) -> Line:
        dot = "class:online" if self._service else "class:trying" if self._retry_at is not None else "class:offline"
        who = clean_line(self._open) if self._open else "(nobody)"
        symbol = self._look.symbol("●", "*" if self._service else "-")
        return [(dot, f"{symbol} "), ("class:head", who), ("", self._look.symbol(" › ", " > "))]

    def live(self) -> list[Line]:
        """Messages on their way, each with its state, the oldest first."""
        sent = list(self._live.values())
        lines = [self._sent_line(message) for message in sent[-LIVE_LINES:]]
        if len(sent) > LIVE_LINES:
            lines.insert(0, render.notice(f"{len(sent) - LIVE_LINES} more before these"))
        return lines

    def status(self) -> Line:
        """Who, where, what is unread: the status line."""
        parts = [self._me.user]
        if self._progress is not None:
            parts.append(render.receiving(self._progress))
        elif self._service:
            parts.append(clean_line(self._service))
        elif self._moving:
            parts.append("moving to another service")
        elif self._retry_at is not None:
            wait = max(0, round(self._retry_at - self._reactor.seconds()))
            parts.append(f"not connected; next try in {wait} s" if wait else "connecting")
        else:
            parts.append(self._offline)
        if unread := render.unread_list([c for c in self._conversations if c.user != self._open]):
            parts.append(f"unread: {unread}")
        return [("", self._look.symbol(" · ", " | ").join(parts))]

    def names(self) -> list[str]:
        """Whom a name that is being typed could mean."""
        known = [c.user for c in self._conversations]
        return known + sorted(c.user for c in self._messenger.vault.contacts() if c.user not in known)

    def typed(self, line: str) -> None:
        """Do what a person typed."""
        try:
            commands.run_line(self, line)
        except FastChatError as error:
            self._screen.show(render.problem(error.message))

    def began(self, who: str | None) -> None:
        """The screen is there: say hello."""
        self._conversations = self._messenger.vault.conversations()
        self._screen.show(render.notice(f"FastChat: you are {self._me.user}. /help lists the commands."))
        if who is not None:
            self.open(who)
        elif unread := render.unread_list(self._conversations):
            self._screen.show([("class:unread", f"Unread: {unread}"), ("class:notice", "  (/msg WHO reads them)")])

    def ended(self) -> None:
        """The screen goes: what is in the live region is printed as it is."""
        for message in list(self._live.values()):
            self._print(message)

    # --- a face ----------------------------------------------------------------------------------------------------

    @property
    def conversation(self) -> str | None:
        return self._open

    def open(self, who: str) -> None:
        if who == self._open:
            return
        if who == self._me.user:
            raise commands.CommandError("that is you; a conversation takes two")
        self._print_settled()
        self._open = who
        unread = self._messenger.vault.unread(who)
        self._screen.show(render.head(who, self._look))
        self._show_items(who, min(max(OPEN_LINES, unread), MOST_OPEN_LINES))
        if unread > MOST_OPEN_LINES:
            self._screen.show(render.notice(f"{unread - MOST_OPEN_LINES} earlier unread ones: /history {unread}"))
        self._warn_of_changed_root(who)
        self._read(who)

    def send(self, who: str, text: str) -> None:
        message = Sent(self._messenger.send(who, text), who, text, round(self._now().timestamp() * 1000))
        if self._screen.live:
            self._live[message.id] = message
        else:
            self._remember(message)
            if not self._service:
                self._screen.show(self._sent_line(message))
        self._screen.redraw()

    def show_people(self) -> None:
        for line in render.people(self._messenger.vault.conversations(), self._messenger.vault.contacts(), self._now()):
            self._screen.show(line)

    def show_history(self, who: str, limit: int) -> None:
        self._screen.show(render.head(who, self._look))
        if not self._show_items(who, limit):
            self._screen.show(render.notice("no messages"))
        if who == self._open:
            self._read(who)

    def accept(self, who: str) -> None:
        changed = {contact.user for contact in self._messenger.vault.contacts() if contact.changed_to}
        if who not in changed:
            raise commands.CommandError(f"the key of {who} has not changed; there is nothing to accept")
        self._messenger.accept_root(who)
        self._screen.show(render.notice(f"The new key of {who} is accepted; what had to wait goes on now."))

    def show_self(self) -> None:
        me = self._messenger.vault.whoami()
        self._screen.show(render.notice(f"{me.user}, device {me.device}\nkey {me.fingerprint}"))
        self._screen.show(self.status())

    def show_help(self, lines: list[str]) -> None:
        self._screen.show(render.notice("\n".join(lines)))

    def reconnect(self) -> None:
        self._messenger.reconnect()

    def quit(self) -> None:
        self._screen.end()

    # --- events ----------------------------------------------------------------------------------------------------

    def on_events(self, events: Sequence[Event]) -> None:
        late: OrderedDict[str, Sent] = OrderedDict()
        self._seen = False
        for event in events:
            if isinstance(event, MessageState):
                self._state(event, late)
            else:
                self._event(event)
        self._tell_late(late)
        if self._seen and self._open is not None:
            # Once for all that came: each time is a transaction.
            self._messenger.mark_read(self._open)
        self._conversations = self._messenger.vault.conversations()
        self._screen.redraw()

    def _event(self, event: Event) -> None:
        show = self._screen.show
        if isinstance(event, MessageReceived):
            self._received(event)
        elif isinstance(event, MessageUnreadable):
            show(render.unreadable(event.at, self._now(), event.sender, event.reason, event.retrying))
        elif isinstance(event, MessageHeld):
            show(render.problem(f"A message of {clean_line(event.sender)} is kept unread: {clean_line(event.reason)}"))
        elif isinstance(event, RootChanged):
            show(render.root_changed(event, f"/accept {clean_line(event.user)}"))
        elif isinstance(event, LogAlarm):
            show(render.log_alarm(event, self._messenger.alarm_file))
        elif isinstance(event, Notice):
            show(render.notice(event.text))
        elif isinstance(event, MailboxProgress):
            self._mailbox(event)
        else:
            self._network(event)

    def _received(self, event: MessageReceived) -> None:
        if event.conversation == self._open:
            self._print_settled()
            self._screen.show(render.received(event.at, self._now(), event.sender, event.text, event.own))
            self._seen |= not event.own
        elif event.own:
            return
        elif self._progress is not None:
            self._came[event.conversation] = self._came.get(event.conversation, 0) + 1
        else:
            self._screen.show(render.preview(event.at, self._now(), event.sender, event.text, self._look))
            if self._open is None:
                self._screen.show(render.notice(f"/msg {clean_line(event.conversation)} opens it"))

    def _mailbox(self, event: MailboxProgress) -> None:
        if not self._screen.live and (line := self._lines.line(event)):
            self._screen.show(render.notice(line))
        if event.done < event.total:
            self._progress = event
            return
        self._progress = None
        if self._came:
            came = ", ".join(f"{clean_line(user, 64)} {count:,}" for user, count in self._came.items())
            self._screen.show([("class:unread", f"While you were away: {came}")])
        self._came = {}

    def _network(self, event: Event) -> None:
        if isinstance(event, Connected):
            self._service, self._retry_at, self._offline = event.service, None, ""
            if self._told_offline or not (self._screen.live or self._moving):
                self._screen.show(render.notice(f"connected to {clean_line(event.service, 64)}"))
            self._told_offline = self._moving = False
            if event.waiting:
                self._progress = MailboxProgress(0, event.waiting)
        elif isinstance(event, Connecting):
            self._retry_at = self._reactor.seconds()
        elif isinstance(event, Moving):
            self._service, self._progress, self._moving = "", None, True
            self._retry_at = self._reactor.seconds() + event.retry_in
        elif isinstance(event, Disconnected):
            self._moving = False
            self._disconnected(event)

    def _disconnected(self, event: Disconnected) -> None:
        self._service, self._progress = "", None
        self._lines.broken_off()
        reason = clean_line(event.reason)
        if event.retry_in is None:
            self._retry_at, self._offline = None, "not connected"
            self._screen.show([("class:alarm", f"Not connected any more: {reason}")])
            self._screen.show(render.notice("What you write waits in the outbox; /reconnect tries again."))
            return
        self._retry_at = self._reactor.seconds() + event.retry_in
        if not self._told_offline:
            self._told_offline = True
            self._screen.show(render.problem(f"Not connected: {reason}. What you write waits and goes out by itself."))

    # --- sent messages ---------------------------------------------------------------------------------------------

    def _state(self, event: MessageState, late: OrderedDict[str, Sent]) -> None:
        message = self._live.get(event.id)
        printed = message is None
        message = message or self._printed.get(event.id)
        if message is None or _ORDER.index(event.state) <= _ORDER.index(message.state):
            return
        first_settled = message.state is State.WAITING
        message.state, message.reason = event.state, event.reason
        if printed:
            late[message.id] = message
        elif event.state in (State.READ, State.FAILED):
            self._print_up_to(message)
        elif first_settled:
            self._reactor.callLater(HOLD_SECONDS, self._held_long_enough, message)

    def _held_long_enough(self, message: Sent) -> None:
        if message.id in self._live:
            self._print_up_to(message)
            self._screen.redraw()

    def _print_up_to(self, message: Sent) -> None:
        """Print it, and what was accepted before it: the order in which they were written stays."""
        for earlier in list(self._live.values()):
            if earlier.state is not State.WAITING:
                self._print(earlier)
            if earlier is message:
                break

    def _print_settled(self) -> None:
        """Something is about to be printed that comes after what was accepted."""
        for message in list(self._live.values()):
            if message.state is not State.WAITING:
                self._print(message)

    def _print(self, message: Sent) -> None:
        del self._live[message.id]
        self._screen.show(self._sent_line(message))
        self._remember(message)

    def _remember(self, message: Sent) -> None:
        if message.state not in (State.READ, State.FAILED):
            self._printed[message.id] = message
            if len(self._printed) > REMEMBERED:
                self._printed.popitem(last=False)

    def _sent_line(self, message: Sent) -> Line:
        line = render.sent(message.at, self._now(), message.text, self._look, message.state, message.reason)
        if message.conversation != self._open:
            line.insert(2, ("class:notice", f" to {clean_line(message.conversation)}"))
        return line

    def _tell_late(self, late: OrderedDict[str, Sent]) -> None:
        groups: OrderedDict[tuple[str, State, str], list[str]] = OrderedDict()
        for message in late.values():
            groups.setdefault((message.conversation, message.state, message.reason), []).append(message.text)
            if message.state in (State.READ, State.FAILED):
                self._printed.pop(message.id, None)
        for (conversation, state, reason), texts in groups.items():
            self._screen.show(render.late(self._look, conversation, state, texts, reason))

    # --- reading ---------------------------------------------------------------------------------------------------

    def _show_items(self, who: str, limit: int) -> int:
        items = self._messenger.vault.history(who, limit)
        for item in items:
            if item.id in self._live:
                continue
            self._screen.show(render.history(item, self._now(), self._look, self._me.device))
            if item.own and item.state in (State.WAITING, State.ACCEPTED, State.DELIVERED) and item.id:
                self._remember(Sent(item.id, who, item.text, item.at, State(item.state)))
        return len(items)

    def _read(self, who: str) -> None:
        self._messenger.mark_read(who)
        self._conversations = self._messenger.vault.conversations()
        self._screen.redraw()

    def _warn_of_changed_root(self, who: str) -> None:
        for contact in self._messenger.vault.contacts():
            if contact.user == who and contact.changed_to:
                self._screen.show(
                    render.root_changed(RootChanged(who, contact.fingerprint, contact.changed_to), f"/accept {who}")
                )
