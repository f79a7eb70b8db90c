"""Small numbers for the messages on a screen, so that a person can name one of them.

A message keeps its number as long as it can be seen, whatever is printed below it. Counting from the newest line up
would need no number in front of each, but mean another message whenever somebody writes while one types.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

MOST = 99
"""Then they begin with 1 again: two digits are enough for what a person scrolls back to."""


@dataclass(frozen=True)
class Named:
    """What a number stands for. `own`: written by this account."""

    id: str
    conversation: str
    sender: str
    text: str
    own: bool


class Numbers:
    def __init__(self) -> None:
        self._by_number: OrderedDict[int, Named] = OrderedDict()
        self._by_id: dict[str, int] = {}
        self._last = 0

    def give(self, named: Named) -> int:
        """The number of a message that is shown now; one that has a number keeps it. 0 for one without an id."""
        if not named.id:
            return 0
        number = self._by_id.get(named.id)
        if number is None:
            number = self._last = self._last % MOST + 1
            before = self._by_number.pop(number, None)
            if before is not None:
                del self._by_id[before.id]
            self._by_id[named.id] = number
        self._by_number[number] = named
        self._by_number.move_to_end(number)  # what is shown again is the newest on the screen
        return number

    def update(self, named: Named) -> None:
        """A message that has a number says something else now."""
        self._by_number[self._by_id[named.id]] = named

    def of(self, message_id: str) -> int:
        """The message's number, 0 if it has none."""
        return self._by_id.get(message_id, 0)

    def named(self, message_id: str) -> Named | None:
        return self._by_number.get(self._by_id.get(message_id, 0))

    def get(self, number: int) -> Named | None:
        return self._by_number.get(number)

    def last(self, conversation: str, *, own: bool) -> Named | None:
        """The newest one of the conversation, of one's own or of the others."""
        found = (named for named in reversed(self._by_number.values()) if named.own == own)
        return next((named for named in found if named.conversation == conversation), None)
