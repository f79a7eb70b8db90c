"""Messages that were sent from this screen, while they are on their way and after.

One stays in the live region, above the prompt, while it is on its way and for a moment after: there its state can
change where it stands. Then it is printed with the state that it has; what changes later is said in a short line.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fastchat_client.events import MessageState, State
from fastchat_client.terminal import render
from fastchat_client.terminal.interfaces import Screen
from fastchat_client.terminal.render import Line
from fastchat_client.terminal.text import Look

HOLD_SECONDS = 3.0
"""How long an accepted message stays in the live region: long enough for the marks of somebody who is looking."""

LIVE_LINES = 5
"""Of the live region; more messages than that are counted."""

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


class SentMessages:
    """`line_of` says what one looks like now; `label` what a conversation is called."""

    def __init__(
        self,
        screen: Screen,
        look: Look,
        reactor: Any,
        line_of: Callable[[Sent], Line],
        label: Callable[[str], str],
    ) -> None:
        self._screen = screen
        self._look = look
        self._reactor = reactor
        self._line_of = line_of
        self._label = label
        self._live: OrderedDict[str, Sent] = OrderedDict()
        self._printed: OrderedDict[str, Sent] = OrderedDict()
        self._late: OrderedDict[str, Sent] = OrderedDict()

    def __contains__(self, message_id: str) -> bool:
        """Whether it is in the live region."""
        return message_id in self._live

    def add(self, message: Sent, *, connected: bool) -> None:
        if self._screen.live:
            self._live[message.id] = message
        else:
            self.remember(message)
            if not connected:
                self._screen.show(self._line_of(message))
        self._screen.redraw()

    def lines(self) -> list[Line]:
        """The live region, the oldest first."""
        sent = list(self._live.values())
        lines = [self._line_of(message) for message in sent[-LIVE_LINES:]]
        if len(sent) > LIVE_LINES:
            lines.insert(0, render.notice(f"{len(sent) - LIVE_LINES} more before these"))
        return lines

    def change(self, message_id: str, text: str) -> None:
        """It says something else now."""
        if message_id in self._live:
            self._live[message_id].text = text

    def drop(self, message_id: str) -> None:
        """It is gone."""
        self._live.pop(message_id, None)
        self._printed.pop(message_id, None)

    def on_state(self, event: MessageState) -> None:
        message = self._live.get(event.id)
        printed = message is None
        message = message or self._printed.get(event.id)
        if message is None or _ORDER.index(event.state) <= _ORDER.index(message.state):
            return
        first_settled = message.state is State.WAITING
        message.state, message.reason = event.state, event.reason
        if printed:
            self._late[message.id] = message
        elif event.state in (State.READ, State.FAILED):
            self._print_up_to(message)
        elif first_settled:
            self._reactor.callLater(HOLD_SECONDS, self._held_long_enough, message)

    def tell_late(self) -> None:
        """Say what has become of messages that are printed already, in one line for many."""
        alike: OrderedDict[tuple[str, State, str], list[str]] = OrderedDict()
        for message in self._late.values():
            alike.setdefault((message.conversation, message.state, message.reason), []).append(message.text)
            if message.state in (State.READ, State.FAILED):
                self._printed.pop(message.id, None)
        self._late.clear()
        for (conversation, state, reason), texts in alike.items():
            self._screen.show(render.late(self._look, self._label(conversation), state, texts, reason))

    def print_settled(self) -> None:
        """Something is about to be printed that comes after what was accepted."""
        for message in list(self._live.values()):
            if message.state is not State.WAITING:
                self._print(message)

    def print_all(self) -> None:
        """The live region goes: what is in it is printed as it is."""
        for message in list(self._live.values()):
            self._print(message)

    def remember(self, message: Sent) -> None:
        if message.state not in (State.READ, State.FAILED):
            self._printed[message.id] = message
            if len(self._printed) > REMEMBERED:
                self._printed.popitem(last=False)

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

    def _print(self, message: Sent) -> None:
        del self._live[message.id]
        self._screen.show(self._line_of(message))
        self.remember(message)
