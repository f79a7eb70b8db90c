"""The line shell, used by both sides: bytes in, Structs out to whatever object it was given, and one way out.

It cuts lines with Twisted's LineReceiver, has them decoded, keeps to the limits of a line and of the outbound
queue, and gathers what is sent in one turn of the reactor into one `transport.write` (a write per message costs
twice as much, and far more under TLS), or one for every 64 KiB. The raw bytes of a chunk it puts together with the
line before them, and takes apart from it (`WithBytes`). It knows no session, no login and no command.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet.interfaces import IDelayedCall, IPushProducer, IReactorTime
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.protocols.basic import LineReceiver
from twisted.python.failure import Failure
from zope.interface import implementer

from fastchat.errors import FrameTooLong, ProtocolError, SlowReader
from fastchat.protocols.wire import CHUNK_SIZE, MAX_LINE_BEFORE_LOGIN, Chunk, ChunkAnswer, WithBytes, encode

WRITTEN_AT_ONCE = 64 * 1024
"""Bytes that gather in one turn before they are written within it: what the transport would take must not count as
what the other side does not read, and the transport must have its say before a whole window has gathered."""

CLOSE_SECONDS = 5.0
"""For the other side to take what was said last; then the connection is aborted."""

_CARRIERS = frozenset({Chunk, ChunkAnswer})
"""What is followed by raw bytes."""


class Owner(Protocol):
    """What a shell reports to. Nothing here may raise; the shell logs and aborts if it does."""

    def connected(self, shell: LineShell) -> None:
        """The connection is up (under TLS: not yet shaken hands)."""

    def received(self, message: Any) -> None:
        """One decoded message; a `WithBytes` if bytes follow its line and the shell `takes_bytes`."""

    def bad_frame(self, error: ProtocolError) -> None:
        """A line that is not a message. After `FrameTooLong` nothing more is read."""

    def writable(self, writable: bool) -> None:
        """The other side reads too slowly (False), or again (True)."""

    def lost(self, reason: Failure) -> None:
        """The connection is gone; nothing follows."""


class Turn:
    """Flushes, once per turn of the reactor, every shell that has something to write."""

    __slots__ = ("_reactor", "_waiting")

    def __init__(self, reactor: IReactorTime) -> None:
        self._reactor = reactor
        self._waiting: list[LineShell] = []

    def add(self, shell: LineShell) -> None:
        if not self._waiting:
            self._reactor.callLater(0, self._flush)
        self._waiting.append(shell)

    def later(self, seconds: float, call: Callable[[], None]) -> IDelayedCall:
        return self._reactor.callLater(seconds, call)

    def _flush(self) -> None:
        waiting, self._waiting = self._waiting, []
        for shell in waiting:
            shell.flush()


@implementer(IPushProducer)
class _Outbound:
    """The shell's face towards its transport's buffer. Separate from the shell, whose own `pauseProducing`, from
    LineReceiver, pauses reading. Each method may be called many times in a row."""

    def __init__(self, shell: LineShell) -> None:
        self._shell: LineShell | None = shell

    def pauseProducing(self) -> None:
        if self._shell is not None:
            self._shell.set_writable(False)

    def resumeProducing(self) -> None:
        if self._shell is not None:
            self._shell.set_writable(True)

    def stopProducing(self) -> None:
        """The connection is being lost; `connectionLost` follows and does the work."""

    def forget(self) -> None:
        """The transport is gone; but it may keep this, and would keep the shell."""
        self._shell = None


class LineShell(LineReceiver):
    """One connection. `decode` turns the bytes of a line into a message or raises `ProtocolError`; `hard` is how
    many bytes may wait here while the other side does not read before the connection is aborted."""

    log = Logger()
    delimiter = b"\n"
    transport: Any

    def __init__(self, owner: Owner, decode: Callable[[bytes], Any], turn: Turn, hard: int = 1 << 20) -> None:
        self.MAX_LENGTH = MAX_LINE_BEFORE_LOGIN
        self._owner = owner
        self._decode = decode
        self._turn = turn
        self._hard = hard
        self._written_first = b""
        """What was sent before `_lines`, as it is written: it ends with raw bytes, which have no line's end."""
        self._lines: list[bytes] = []
        self._size = 0
        """Bytes of both."""
        self._unfinished = bytearray()
        """The end of what has come, if it ends no line; what was before it is in LineReceiver's own buffer."""
        self._carrier: Chunk | ChunkAnswer | None = None
        self._raw = bytearray()
        """What has come of the bytes that follow it."""
        self._open = False
        self._closing = False
        self._grace: IDelayedCall | None = None
        self.is_writable = True
        self.takes_bytes = False
        """Set by the owner once it wants the bytes that follow a chunk's line: until then they would be lines."""
        self.is_known = False
        """Set by the owner once the other side has proven who it is: until then it is heard in turn with all others."""

    # --- out -----------------------------------------------------------------------------------------------------

    def send(self, message: Any) -> None:
        """Put a message on its way; it is written by the end of this turn, in order. Nothing once closed."""
        if not self._open or self._closing:
            return
        if type(message) is WithBytes:
            self._send_bytes(message)
        else:
            self.send_line(encode(message))

    def send_line(self, line: bytes) -> None:
        """The same for a message that is encoded already."""
        if not self._open or self._closing:
            return
        if not self._lines and self.is_writable:
            self._turn.add(self)
        self._lines.append(line)
        self._size += len(line) + 1
        if self._size > min(self._hard, WRITTEN_AT_ONCE):
            self._flush_too_much()

    def _send_bytes(self, message: WithBytes) -> None:
        if len(message.data) != CHUNK_SIZE:
            raise ValueError(f"{CHUNK_SIZE} bytes follow a chunk's line, not {len(message.data)}")
        lines = [*self._lines, encode(message.message), message.data]
        self._written_first += b"\n".join(lines)
        self._lines = []
        self._size += len(lines[-2]) + 1 + CHUNK_SIZE
        self._flush_too_much()

    def _flush_too_much(self) -> None:
        self.flush()
        if self._size > self._hard:
            self.log.info("aborted: {error}", error=SlowReader().message)
            self.abort()

    def flush(self) -> None:
        """Write what has gathered, unless the transport is full; then it goes out when there is room."""
        if self.is_writable:
            self._write()

    def _write(self) -> None:
        if self._size and self._open:
            self._lines.append(b"")
            data = self._written_first + b"\n".join(self._lines)
            self._forget_unwritten()
            self.transport.write(data)

    def _forget_unwritten(self) -> None:
        self._written_first = b""
        self._lines = []
        self._size = 0

    def close(self, grace: float = CLOSE_SECONDS) -> None:
        """Write what was sent, then close; nothing more is heard or said. A peer that has not read it after `grace`
        seconds is aborted: it would keep the connection from ending for ever."""
        if not self._open or self._closing:
            return
        self._write()  # also to a full transport: this is the last moment, and it is never much
        self._closing = True
        self.transport.unregisterProducer()
        self.transport.loseConnection()
        self._grace = self._turn.later(grace, self.abort)

    def abort(self) -> None:
        """End the connection now, whatever is under way."""
        if self._open:
            self._closing = True
            self._forget_unwritten()
            self.transport.abortConnection()

    def set_writable(self, writable: bool) -> None:
        if writable == self.is_writable or self._closing:
            return
        self.is_writable = writable
        if writable:
            self.flush()
        self._owner.writable(writable)

    # --- in ------------------------------------------------------------------------------------------------------

    def dataReceived(self, data: bytes) -> None:
        # LineReceiver takes one line of each piece while its transport is closing, and keeps the rest: a peer that goes
        # on writing would fill the memory, and each piece would copy all that came before it.
        if self._closing:
            self._forget_unheard()
        elif self._carrier is not None:
            super().dataReceived(data)  # type: ignore[no-untyped-call]
        elif data and self.delimiter not in data and len(self._unfinished) + len(data) <= self.MAX_LENGTH:
            # LineReceiver copies and searches all that there is of a line again for each piece of it, and under TLS a
            # peer can make a piece of every byte.
            self._unfinished += data
        else:
            if self._unfinished:
                data = bytes(self._unfinished) + data
                self._unfinished.clear()
            super().dataReceived(data)  # type: ignore[no-untyped-call]

    def connectionMade(self) -> None:
        self._open = True
        self._outbound = _Outbound(self)
        self.transport.registerProducer(self._outbound, True)
        self._owner.connected(self)

    def lineReceived(self, line: bytes) -> None:
        if self._closing:
            return
        try:
            message = self._decode(line)
        except ProtocolError as error:
            self._owner.bad_frame(error)
            return
        if self.takes_bytes and type(message) in _CARRIERS:
            self._carrier = message
            self.setRawMode()  # type: ignore[no-untyped-call]
        else:
            self._deliver(message)

    def rawDataReceived(self, data: bytes) -> None:
        missing = CHUNK_SIZE - len(self._raw)
        self._raw += data[:missing]
        if len(data) < missing:
            return
        carrier, self._carrier = self._carrier, None
        assert carrier is not None
        message = WithBytes(carrier, bytes(self._raw))
        self._raw = bytearray()
        self.setLineMode(data[missing:])  # type: ignore[no-untyped-call]
        self._deliver(message)

    def _deliver(self, message: Any) -> None:
        try:
            self._owner.received(message)
        except Exception:
            # A mistake of ours ends this connection and no other one; the log has it, the peer has not.
            self.log.failure("a message was not expected: {kind}", kind=type(message).__name__)
            self.abort()

    def lineLengthExceeded(self, line: bytes) -> None:
        self.clearLineBuffer()  # type: ignore[no-untyped-call]
        if not self._closing:
            self._owner.bad_frame(FrameTooLong())

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._open = False
        self._forget_unwritten()
        self._forget_unheard()
        self._outbound.forget()
        if self._grace is not None and self._grace.active():
            self._grace.cancel()
        self._owner.lost(reason)

    def _forget_unheard(self) -> None:
        self._unfinished.clear()
        self._raw.clear()
        self.clearLineBuffer()  # type: ignore[no-untyped-call]


class Pipe(Protocol):
    """The part of a shell that its owner uses; what tests put in a shell's place."""

    MAX_LENGTH: int
    is_writable: bool
    is_known: bool
    takes_bytes: bool

    def send(self, message: Any) -> None: ...

    def send_line(self, line: bytes) -> None: ...

    def close(self, grace: float = CLOSE_SECONDS) -> None: ...

    def abort(self) -> None: ...
