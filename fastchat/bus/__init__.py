"""The Bus: how a service reaches a device that is logged in somewhere, as an interface.

`local.py` joins the services of one process; others join processes and machines. A bus stores nothing and
promises nothing across a crash: what it cannot hand over, its caller stores. It must keep, for one caller and one
device, the order of `ring` and `offer` calls: delivery's order rests on it (docs/architecture.md).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol


class Offer(NamedTuple):
    """One message for one device that is to be handed over at once."""

    user: str
    device: str
    n: int
    at: int
    body: Any
    """Opaque: bytes or `msgspec.Raw`, a JSON value exactly as it came."""


Answer = Callable[[bool], None]
"""Called once, perhaps before `offer` returns: True when the device has said `received`; False when it will not
be handed over (no session, no room, no receipt in time) or when nobody knows."""


class Inbox(Protocol):
    """What a logged-in session puts on the bus for its device."""

    def offer(self, offer: Offer, answer: Answer) -> None: ...

    def ring(self) -> None:
        """Something was committed to the device's mailbox: read it."""

    def replaced(self) -> None:
        """The same device has logged in elsewhere."""


class Bus(Protocol):
    def attach(self, device: str, inbox: Inbox) -> None:
        """Make `inbox` the device's inbox; an older one, wherever it is, is told `replaced`."""

    def detach(self, device: str, inbox: Inbox) -> None:
        """Take `inbox` off, unless it has been replaced already."""

    def offer(self, device: str, offer: Offer, answer: Answer) -> None: ...

    def ring(self, device: str) -> None: ...
