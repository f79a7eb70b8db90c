"""Target `line`: the line shell. Whatever bytes come in whatever pieces, what its owner is told is what a plain reading
of all of them together says; nothing after the end; nothing piles up; what goes out is what was sent, and no more. A
chunk has few bytes here, so that many fit into what is drawn."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import cycle
from typing import Any
from unittest import mock

from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from fastchat.errors import FrameTooLong, ProtocolError
from fastchat.protocols import line, wire
from fastchat.protocols.line import LineShell, Turn
from tests.fuzz.mangling import Edit, cut, edited, edits, line_of, pieces, said
from tests.fuzz.messages import Values
from tests.fuzz.transports import Wire
from tests.fuzz.watching import Target, clean_log

HARD = 3000
CHUNK_SIZE = 50


@dataclass(frozen=True)
class Input:
    """`limits`: of a line, before and after the item (message or error) number `raised_at`. `takes_bytes_at`: the item
    from which the shell takes raw bytes. `stops_at`: the item at which the owner closes or aborts. `pauses`: items at
    which it stops reading for a while. `deeds`: what else is done to the connection, after the piece of that number."""

    lines: list[bytes]
    ends: list[bytes]
    changes: list[Edit]
    sizes: list[int]
    limits: tuple[int, int]
    raised_at: int
    takes_bytes_at: int
    stops_at: int
    how: str
    pauses: set[int]
    deeds: list[tuple[int, str]]


class Owner:
    """Closes after a line that is too long, as all owners do, and does what the input says."""

    def __init__(self, given: Input, wire: Wire) -> None:
        self.items: list[Any] = []
        self.told: list[bool] = []
        self.losses = 0
        self._given = given
        self._wire = wire
        self.shell: LineShell

    def connected(self, shell: LineShell) -> None:
        self.shell = shell

    def received(self, message: Any) -> None:
        self._item(message)

    def bad_frame(self, error: ProtocolError) -> None:
        self._item(type(error))
        if isinstance(error, FrameTooLong):
            self.shell.close()

    def writable(self, writable: bool) -> None:
        self.told.append(writable)

    def lost(self, reason: Failure) -> None:
        self.losses += 1

    def _item(self, item: Any) -> None:
        assert not self.losses, "told something after the end"
        self.items.append(item)
        count = len(self.items)
        if count == self._given.raised_at:
            self.shell.MAX_LENGTH = self._given.limits[1]
        if count == self._given.takes_bytes_at:
            self.shell.takes_bytes = True
        if count == self._given.stops_at:
            getattr(self.shell, self._given.how)()
        if count in self._given.pauses:
            self.shell.pauseProducing()


def plain_reading(data: bytes, given: Input) -> list[Any]:
    """What the owner must be told, by the grammar of PROTOCOL.md: lines, their limit, and the bytes of chunks."""
    items: list[Any] = []
    limit, takes_bytes = given.limits[0], given.takes_bytes_at == 0
    while True:
        content, end, data = data.partition(b"\n")
        if len(content) > limit:
            return [*items, FrameTooLong]
        if not end:
            return items
        try:
            message = wire.decode_client_message(content)
            if takes_bytes and isinstance(message, wire.Chunk):
                if len(data) < CHUNK_SIZE:
                    return items
                message = wire.WithBytes(message, data[:CHUNK_SIZE])
                data = data[CHUNK_SIZE:]
            items.append(message)
        except ProtocolError as error:
            items.append(type(error))
        if len(items) == given.raised_at:
            limit = given.limits[1]
        takes_bytes = takes_bytes or len(items) == given.takes_bytes_at
        if len(items) == given.stops_at:
            return items


def check(given: Input) -> None:
    with mock.patch.object(line, "CHUNK_SIZE", CHUNK_SIZE):
        _check(given)


def _check(given: Input) -> None:
    data = edited(b"".join(map(bytes.__add__, given.lines, cycle(given.ends))), given.changes)
    clock, transport = Clock(), Wire()
    owner = Owner(given, transport)
    shell = LineShell(owner, wire.decode_client_message, Turn(clock), HARD)
    shell.MAX_LENGTH = given.limits[0]
    shell.takes_bytes = given.takes_bytes_at == 0
    out = Out(shell, transport)
    with clean_log():
        shell.makeConnection(transport)
        for number, piece in enumerate(cut(data, given.sizes)):
            shell.dataReceived(piece)
            # Of a piece that ended the connection, or made its owner pause, the rest may lie here, but no second one.
            rest = len(piece) if transport.disconnecting or not transport.is_reading else 0
            assert len(shell._buffer) <= max(given.limits) + rest
            for deed in (deed for at, deed in given.deeds if at == number):
                out.does(deed)
                clock.advance(0)
            while not transport.is_reading:
                # What no real transport would bring is not brought: first it reads on.
                shell.resumeProducing()
        clock.advance(0)
        out.check(owner)
        before = len(owner.items)
        shell.connectionLost()
        shell.send(wire.Pong(1))
        clock.advance(0)
    expected = plain_reading(data, given)
    assert owner.items == (expected[:before] if out.is_over else expected)
    assert owner.losses == 1
    assert not clock.getDelayedCalls()


class Out:
    """The way out: what was sent, and what of it must have been written."""

    def __init__(self, shell: LineShell, transport: Wire) -> None:
        self.is_over = False
        self._shell = shell
        self._transport = transport
        self._sent: list[bytes] = []
        self._number = 0

    def does(self, deed: str) -> None:
        match deed:
            case "send" | "send much":
                self._number += 1
                message = wire.GoAway(0.0, str(self._number) + "x" * (900 if deed == "send much" else 0))
                if not self._transport.disconnecting:
                    self._sent.append(wire.encode(message) + b"\n")
                self._shell.send(message)
            case "send a chunk":
                self._number += 1
                chunk = wire.ChunkAnswer(self._number)
                if not self._transport.disconnecting:
                    self._sent.append(wire.encode(chunk) + b"\n" + b"\n" * CHUNK_SIZE)
                self._shell.send(wire.WithBytes(chunk, b"\n" * CHUNK_SIZE))
            case "fill":
                self._transport.fill()
            case "empty":
                self._transport.empty()
            case "close" | "abort":
                self.is_over = True
                getattr(self._shell, deed)()

    def check(self, owner: Owner) -> None:
        transport, sent = self._transport, b"".join(self._sent)
        written = b"".join(transport.written)
        assert sent.startswith(written), "written is what was sent, in order"
        # But for the last words.
        assert not transport.written_while_full or transport.disconnecting
        assert len(sent) - len(written) <= HARD + 1000 or transport.is_aborted
        if not transport.is_aborted and (transport.disconnecting or not transport.is_full):
            assert written == sent
        # Told of each change, once.
        assert all(one is not other for one, other in zip(owner.told, owner.told[1:], strict=False))


messages = Values().message(wire.ClientMessage).map(wire.encode)
things = ("send", "send", "send much", "send a chunk", "fill", "empty", "close", "abort")
deeds = st.tuples(st.integers(0, 12), st.sampled_from(things))
chunks = st.builds(
    lambda index, data: wire.encode(wire.Chunk(1, "f1" * 16, index)) + b"\n" + data,
    st.integers(0, 9),
    st.binary(min_size=CHUNK_SIZE, max_size=CHUNK_SIZE) | st.binary(max_size=2 * CHUNK_SIZE),
)
lengths = st.sampled_from((1, 30, 200, 1000, wire.MAX_LINE_BEFORE_LOGIN, wire.MAX_LINE))


@cache
def _inputs() -> st.SearchStrategy[Input]:
    return st.builds(
        Input,
        lines=st.lists(line_of(said("C"), messages) | chunks, max_size=12),
        ends=st.lists(st.sampled_from((b"\n", b"\n", b"\n", b"\r\n", b"", b"\n\n")), min_size=1, max_size=4),
        changes=edits,
        sizes=pieces,
        limits=st.tuples(lengths, lengths),
        raised_at=st.integers(0, 4),
        takes_bytes_at=st.integers(0, 4),
        stops_at=st.integers(0, 12),
        how=st.sampled_from(("close", "abort")),
        pauses=st.sets(st.integers(1, 12), max_size=3),
        deeds=st.lists(deeds, max_size=6),
    )


TARGETS = (Target("line", _inputs, check, 150),)
