"""The Bus: how a service reaches a device that is logged in somewhere, as an interface.

`local.py` joins the services of one process; others join processes and machines. A bus stores nothing and
promises nothing across a crash: what it cannot hand over, its caller stores. It must keep, for one caller and one
device, the order of `ring` and `offer` calls: delivery's order rests on it (docs/architecture.md).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from fastchat.errors import FastChatError
from fastchat.protocols.wire import message_tail


class Offer:
    """One message for one device, or for many that get the same one, that is to be handed over at once."""

    __slots__ = ("_tail", "at", "body", "device", "n", "user")

    def __init__(self, user: str, device: str, n: int, at: int, body: Any) -> None:
        self.user = user
        self.device = device
        self.n = n
        self.at = at
        self.body = body
        """Opaque: bytes or `msgspec.Raw`, a JSON value exactly as it came."""
        self._tail: bytes | None = None

    @property
    def tail(self) -> bytes:
        """Of the line that hands it over, all that is the same for everybody; made once."""
        if self._tail is None:
            self._tail = message_tail(self.user, self.device, self.n, self.at, self.body)
        return self._tail


Answer = Callable[[bool], None]
"""Called once, perhaps before `offer` returns: True when the device has said `received`; False when it will not
be handed over (no session, no room, no receipt in time) or when nobody knows."""


Watcher = Callable[[str, str, FastChatError], None]
"""Given user, device and why: forget what you know of it, and let it go."""


class Inbox(Protocol):
    """What a logged-in session puts on the bus for its device."""

    def offer(self, offer: Offer, answer: Answer) -> None: ...

    def ring(self) -> None:
        """Something was committed to the device's mailbox: read it."""

    def tell(self, line: bytes) -> None:
        """Say this message, encoded, if that can be done now; else forget it."""

    def replaced(self) -> None:
        """The same device has logged in elsewhere."""


class Bus(Protocol):
    def attach(self, device: str, inbox: Inbox) -> None:
        """Make `inbox` the device's inbox; an older one, wherever it is, is told `replaced`."""

    def detach(self, device: str, inbox: Inbox) -> None:
        """Take `inbox` off, unless it has been replaced already."""

    def offer(self, device: str, offer: Offer, answer: Answer) -> None: ...

    def ring(self, device: str) -> None: ...

    def expel(self, user: str, device: str, error: FastChatError) -> None:
        """This device of `user` may not stay where it is: tell all that `watch`, wherever they are."""

    def watch(self, watcher: Watcher) -> None:
        """Have `watcher` called whenever a device is expelled, for as long as there is the bus."""

    def tell(self, device: str, line: bytes) -> None:
        """Say a message, encoded as its line without the end, to the device's session. It is lost where there is none,
        or one that takes nothing now; and it keeps no order with what is offered."""
