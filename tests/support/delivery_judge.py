"""Who sees everything that happens in a world of delivery, and says which promise was broken.

The promises are those of docs/architecture.md: what is accepted has been seen or is committed; each device sees each
message once, unchanged, and in the order of its conversation; nothing is refused for good without a reason. The judge
reads the people's disks and the committed rows, and nothing of what is under test.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from typing import NamedTuple

from fastchat.errors import FastChatError


class Violation(AssertionError):
    """A promise was broken. `kind`: "false accept", "false refusal", "lost", "duplicated", "out of order", "phantom",
    "window", "receipt", "stuck" or "leak"."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(f"{kind}: {text}")
        self.kind = kind


class Name(NamedTuple):
    """What names a message for ever; here with the sender's name instead of the device's id."""

    sender: str
    n: int


class Message(NamedTuple):
    conversation: str
    to: tuple[str, ...]
    body: bytes


class Disk:
    """What one person's device has committed: it survives everything."""

    def __init__(self) -> None:
        self.written: dict[int, Message] = {}
        """By n, from 1."""
        self.failed: set[int] = set()
        """Of these: what nobody will be sent any more, as no device of the addressee can have it."""
        self.given_up: set[tuple[int, str]] = set()
        """(n, recipient) of what was refused for good for this device, while others have it or are still to get it."""
        self.seen: set[Name] = set()


class Judge:
    """`stored` answers what a person's mailbox holds, as committed."""

    def __init__(self, disks: Mapping[str, Disk], stored: Callable[[str], Set[Name]]) -> None:
        self._disks = disks
        self._stored = stored
        self._violations: list[Violation] = []
        self._owed: set[tuple[str, Name]] = set()
        """(recipient, message) of what was accepted and has not been seen."""
        self._full: set[tuple[str, str]] = set()
        """(recipient, sender) for whom the store has refused anything for good."""
        self._refused: set[tuple[str, Name]] = set()
        """(recipient, message) of what was refused for good."""

    def violate(self, kind: str, text: str) -> None:
        """Noted, not raised: what notices it stands deep inside of what is judged."""
        self._violations.append(Violation(kind, text))

    def check(self) -> None:
        """Raise the first violation there was. Call it after every step."""
        if self._violations:
            raise self._violations[0]
        stored = {recipient: self._stored(recipient) for recipient in {recipient for recipient, _ in self._owed}}
        for recipient, name in sorted(self._owed):
            if name in self._disks[recipient].seen:
                self._owed.discard((recipient, name))
            elif name not in stored[recipient]:
                raise Violation("lost", f"{name} was accepted; {recipient} has not seen it, and it is in no mailbox")

    # --- what is noted -----------------------------------------------------------------------------------------------

    def store_refuses(self, recipient: str, name: Name) -> None:
        """For good, and a process is told so."""
        self._full.add((recipient, name.sender))

    def writer_tells(self, recipient: str, name: Name, error: FastChatError | None) -> None:
        """What has become of one mail, as its sender's side is told."""
        if error is not None and error.retry_after is None:
            self._refused.add((recipient, name))
            if (recipient, name.sender) not in self._full:
                self.violate("false refusal", f"{name} for {recipient}: {error.message}, which the store has not said")

    def answers(self, name: Name, to: Sequence[str], error: FastChatError | None, missing: Set[str]) -> None:
        """The network answers a `send` to `to`. `missing`: who, by the error, does not have it; the others do."""
        if error is not None and not missing:
            self.violate("false refusal", f"{name}: {error.message}; and it is missing nowhere")
        for each in to:
            if each in missing:
                if error is not None and error.retry_after is None:
                    self._is_refused(each, name)
            elif not self._has(each, name):
                self.violate("false accept", f"{name} is said to be accepted for {each}, who does not have it")
            else:
                self._owed.add((each, name))

    def gives_up(self, name: Name, recipient: str) -> None:
        """A client will not send it to `recipient` any more."""
        self._is_refused(recipient, name)

    def _is_refused(self, recipient: str, name: Name) -> None:
        if (recipient, name) not in self._refused:
            self.violate("false refusal", f"{name} is given up for {recipient}, for whom nobody has refused it")

    def _has(self, recipient: str, name: Name) -> bool:
        return recipient in self._disks and (name in self._disks[recipient].seen or name in self._stored(recipient))

    def sees(self, recipient: str, name: Name, body: bytes) -> None:
        """`recipient` takes a message for one that it has not seen."""
        disk, written = self._disks[recipient], self._disks[name.sender].written
        message = written.get(name.n)
        if message is None or recipient not in message.to or message.body != body:
            self.violate("phantom", f"{recipient} sees {name}, which is not what was written to it")
            return
        if name in disk.seen:
            self.violate("duplicated", f"{recipient} sees {name} a second time")
        if (recipient, name) in self._refused:
            return
        for n, earlier in written.items():
            before = Name(name.sender, n)
            if (
                n < name.n
                and earlier.conversation == message.conversation
                and before not in disk.seen
                and n not in self._disks[name.sender].failed
                and (recipient, before) not in self._refused
            ):
                self.violate("out of order", f"{recipient} sees {name} before {before}")

    # --- the end -----------------------------------------------------------------------------------------------------

    def missing(self) -> list[str]:
        """After everything has healed: what is written, and neither seen nor refused for good."""
        return [
            f"{to} has not seen {name}"
            for sender, disk in self._disks.items()
            for n, message in disk.written.items()
            for to in message.to
            if to in self._disks
            and (name := Name(sender, n)) not in self._disks[to].seen
            and not (n in disk.failed or (n, to) in disk.given_up)
        ]
