"""Files on their way, in both directions, as the core knows them: whose an answer is, and which chunk is next.

Chunks are pulled, one at a time, by the connection when nothing else is to be said and its line takes more; what one
costs touches no transaction of the vault, but where it begins or ends a file. What is to be said of attachments once,
until it is answered (`attachment_words`), is said from here too.
"""

from __future__ import annotations

from typing import Protocol

from fastchat.errors import FastChatError, Internal
from fastchat.protocols.wire import (
    AttachmentDone,
    AttachmentFor,
    ChunkStored,
    ClientMessage,
    Detach,
    Fetched,
    ServerMessage,
    WithBytes,
)
from fastchat_client import attachment_words
from fastchat_client.attachment_words import OpenWord, Word
from fastchat_client.files import Transfer
from fastchat_client.parts import Live, Parts

MOST_WORDS = 8
"""Unanswered at once, and said in a second: less than half of the requests that a network bears in the long run, unless
it is told otherwise."""


class Direction(Protocol):
    """What is sent, or what is fetched. Requests of one direction are never known to the other."""

    @property
    def in_flight(self) -> int:
        """Chunks that were sent, or asked for, and are not answered."""

    def begin(self, live: Live) -> None:
        """Logged in. Within a transaction, as the others are, but where it says so."""

    def pick_up(self, live: Live) -> None:
        """Rows may have been made or unmade: here, or by another process of this profile."""

    def next_chunk(self, live: Live, now: float) -> ClientMessage | WithBytes | None:
        """What goes next, with an id from `parts.next_id`; None if nothing may go now. Outside of a transaction, which
        it must not begin."""

    def chunk_answered(self, live: Live, message: ChunkStored | WithBytes) -> bool:
        """Outside of a transaction, which it must not begin; it may `tell`. Whether `settle` is to be called; an answer
        that is none of this direction's is False, too."""

    def settle(self, live: Live) -> None:
        """A file has come to its end, or to one of its turns."""

    def heard(self, live: Live, message: ServerMessage) -> bool:
        """Whether the message was for this direction; then it has been seen to."""

    def refused(self, live: Live, request: int, problem: FastChatError) -> bool:
        """Whether `request` was one of this direction's."""

    def by_the_second(self, live: Live) -> None: ...

    def disconnected(self) -> None:
        """What was in flight is not any more. Outside of a transaction."""

    def transfers(self) -> list[Transfer]:
        """Those that are not at their end, in their order. Outside of a transaction."""

    def cancel(self, attachment: str) -> bool:
        """It is not wanted any more. Whether there was such a one."""


class Transfers:
    """`directions`: the two of them."""

    def __init__(self, parts: Parts, *directions: Direction) -> None:
        self._parts = parts
        self._directions = list(directions)
        self._words: dict[int, OpenWord] = {}
        """By request, what was said and is not answered."""
        self._words_left = MOST_WORDS
        """Of this second."""
        self._not_before = 0.0
        self._refused: set[OpenWord] = set()
        """Until the next connection."""

    @property
    def in_flight(self) -> int:
        return sum(direction.in_flight for direction in self._directions)

    def begin(self, live: Live) -> None:
        """After every login."""
        for direction in self._directions:
            direction.begin(live)
        self._say_words()

    def pick_up(self) -> None:
        live = self._parts.ready
        if live is not None:
            for direction in self._directions:
                direction.pick_up(live)

    def next_chunk(self) -> ClientMessage | WithBytes | None:
        """The directions take turns."""
        parts = self._parts
        live = parts.ready
        if live is None or live.leaving is not None or parts.alarmed:
            return None
        assert live.limits is not None
        if self.in_flight >= live.limits.chunks:
            return None
        now = parts.clock()
        for direction in list(self._directions):
            message = direction.next_chunk(live, now)
            if message is not None:
                self._directions.remove(direction)
                self._directions.append(direction)
                return message
        return None

    def chunk_answered(self, live: Live, message: ChunkStored | WithBytes) -> bool:
        """Whether `settle` is to be called, in a transaction."""
        return any(direction.chunk_answered(live, message) for direction in self._directions)

    def settle(self, live: Live) -> None:
        for direction in self._directions:
            direction.settle(live)
        self._say_words()

    def heard(self, live: Live, message: ServerMessage) -> bool:
        """Whether `message` is about attachments; then it has been seen to."""
        if isinstance(message, AttachmentDone):
            said = self._words.pop(message.re, None)
            if said is not None:
                attachment_words.answered(self._parts.vault, said)
                self._say_words()
            return True
        return any(direction.heard(live, message) for direction in self._directions)

    def refused(self, live: Live, request: int, problem: FastChatError) -> bool:
        said = self._words.pop(request, None)
        if said is None:
            return any(direction.refused(live, request, problem) for direction in self._directions)
        if problem.retry_after is not None:
            self._not_before = self._parts.clock() + problem.retry_after
        elif isinstance(problem, Internal):
            self._refused.add(said)
        else:
            attachment_words.answered(self._parts.vault, said)
        return True

    def by_the_second(self, live: Live) -> None:
        for direction in self._directions:
            direction.by_the_second(live)
        self._words_left = MOST_WORDS
        self._say_words()

    def disconnected(self) -> None:
        self._words.clear()
        self._refused.clear()
        self._not_before = 0.0
        for direction in self._directions:
            direction.disconnected()

    def transfers(self) -> list[Transfer]:
        return [transfer for direction in self._directions for transfer in direction.transfers()]

    def cancel(self, attachment: str) -> bool:
        return any(direction.cancel(attachment) for direction in self._directions)

    def _say_words(self) -> None:
        parts = self._parts
        live = parts.ready
        if live is None or live.leaving is not None or not self._words_left or parts.clock() < self._not_before:
            return
        said = set(self._words.values())
        for word in attachment_words.open_words(parts.vault, MOST_WORDS + len(self._refused)):
            has_room = len(self._words) < MOST_WORDS and self._words_left
            if has_room and word not in said and word not in self._refused:
                self._words_left -= 1
                self._words[parts.say(lambda i, word=word: _request(i, word))] = word  # type: ignore[misc]


def _request(request: int, said: OpenWord) -> ClientMessage:
    match said.word:
        case Word.FOR:
            return AttachmentFor(request, said.attachment, said.devices)
        case Word.FETCHED:
            return Fetched(request, said.attachment)
        case Word.DETACH:
            return Detach(request, said.attachment)
