"""Clients as cheap as they can be made in Python: the real wire over TLS 1.3, on one epoll, with bodies that are
encrypted for nobody.

TLS goes through memory, as in the server, so that a turn of a connection costs one read and one write. What is
received is decoded and checked: a load whose messages are lost, doubled or reordered measures nothing. This module
knows connections and messages; what load they make is `measurements`.
"""

from __future__ import annotations

import base64
import os
import select
import socket
import time
from collections.abc import Callable, Iterable

from OpenSSL import SSL

from benchmarks.accounts import Device
from fastchat.identity.login import EXPORTER_SIZE
from fastchat.protocols.wire import (
    Accepted,
    Assign,
    Assigned,
    Error,
    Hello,
    Message,
    Ready,
    ServerMessage,
    Welcome,
    decode_server_message,
    encode,
)

HOST = "127.0.0.1"
CHUNK = 1 << 18
PATIENCE = 30.0
"""Seconds after which a load that does not end is a failure."""

_TLS = SSL.Context(SSL.TLS_METHOD)
_TLS.set_min_proto_version(SSL.TLS1_3_VERSION)
_TLS.set_verify(SSL.VERIFY_NONE, lambda *_: True)


class Loop:
    """One epoll and what is registered on it."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._connections: dict[int, Connection] = {}

    def add(self, connection: Connection) -> None:
        self._connections[connection.number] = connection
        self._epoll.register(connection.number, select.EPOLLIN | select.EPOLLOUT)

    def remove(self, connection: Connection) -> None:
        del self._connections[connection.number]
        self._epoll.unregister(connection.number)

    def wants(self, connection: Connection, write: bool) -> None:
        self._epoll.modify(connection.number, select.EPOLLIN | (select.EPOLLOUT if write else 0))

    def turn(self, seconds: float) -> None:
        """Wait for something to happen, `seconds` at most, and let it happen."""
        for number, events in self._epoll.poll(max(0.0, seconds)):
            connection = self._connections.get(number)
            if connection is not None:
                connection.happens(events)

    def run(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self.turn(left)

    def run_until(self, condition: Callable[[], bool], patience: float = PATIENCE) -> None:
        give_up = time.monotonic() + patience
        while not condition():
            if time.monotonic() > give_up:
                raise RuntimeError(f"the load did not end within {patience:g} s")
            self.turn(0.1)

    def close(self, connections: Iterable[Connection]) -> None:
        for connection in list(connections):
            connection.close()


class Connection:
    """One TLS connection; a subclass says what is done with what comes."""

    def __init__(self, loop: Loop, port: int, source: str = "") -> None:
        self._loop = loop
        self._socket = socket.socket()
        self._socket.setblocking(False)
        if source:
            self._socket.bind((source, 0))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.number = self._socket.fileno()
        self._socket.connect_ex((HOST, port))
        self._tls = SSL.Connection(_TLS, None)
        self._tls.set_connect_state()
        self._connected = False
        self._secure = False
        self._out = bytearray()
        self._half = b""
        loop.add(self)

    # --- for the subclass ----------------------------------------------------------------------------------------

    def secured(self) -> None:
        """TLS has shaken hands."""
        raise NotImplementedError

    def received(self, messages: list[ServerMessage]) -> None:
        """All that came in one turn."""
        raise NotImplementedError

    def broken(self, why: str) -> None:
        """The connection could not be made, or the server ended it."""
        raise RuntimeError(why)

    def say(self, lines: bytes) -> None:
        """One or more lines, each with its end, in one TLS record where they fit."""
        view = memoryview(lines)
        while view:
            view = view[self._tls.send(view[: 1 << 14]) :]
        self._flush()

    def exporter(self) -> bytes:
        return bytes(self._tls.export_keying_material(b"EXPORTER-Channel-Binding", EXPORTER_SIZE, b""))

    def close(self) -> None:
        if self.number < 0:
            return
        if self._secure:
            self._tls.shutdown()
            self._flush()
        self._loop.remove(self)
        self._socket.close()
        self.number = -1

    # --- for the loop --------------------------------------------------------------------------------------------

    def happens(self, events: int) -> None:
        if not self._connected:
            if not events & select.EPOLLOUT:
                return
            if error := self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                self.broken(f"no connection: {os.strerror(error)}")
                return
            self._connected = True
            self._loop.wants(self, write=False)
            self._shake_hands()
            return
        if events & select.EPOLLOUT:
            self._write()
        if events & ~select.EPOLLOUT:
            self._read()

    def _read(self) -> None:
        try:
            data = self._socket.recv(CHUNK)
        except BlockingIOError:
            return
        except ConnectionResetError:
            data = b""
        if not data:
            self.broken("the server closed a connection")
            return
        self._tls.bio_write(data)
        if not self._secure:
            self._shake_hands()
            if not self._secure:
                return
        parts = [self._half]
        while True:
            try:
                parts.append(self._tls.recv(1 << 14))
            except SSL.WantReadError:
                ended = False
                break
            except SSL.ZeroReturnError:
                ended = True
                break
        *lines, self._half = b"".join(parts).split(b"\n")
        if lines:
            self.received([decode_server_message(line) for line in lines])
        if ended and self.number >= 0:
            self.broken("the server closed a connection")

    def _shake_hands(self) -> None:
        try:
            self._tls.do_handshake()
        except SSL.WantReadError:
            self._flush()
            return
        self._flush()
        self._secure = True
        self.secured()

    def _flush(self) -> None:
        while True:
            try:
                self._out += self._tls.bio_read(CHUNK)
            except SSL.WantReadError:
                break
        self._write()

    def _write(self) -> None:
        waited = len(self._out)
        try:
            sent = self._socket.send(self._out)
        except BlockingIOError:
            sent = 0
        except (BrokenPipeError, ConnectionResetError):
            self.broken("the server closed a connection")
            return
        del self._out[:sent]
        if self._out or sent < waited:
            self._loop.wants(self, write=bool(self._out))


class Placed(Connection):
    """Asks the balancer for a service, and tells `then` its port and the lease."""

    def __init__(self, loop: Loop, port: int, then: Callable[[int, str], None]) -> None:
        self._then = then
        super().__init__(loop, port)

    def secured(self) -> None:
        self.say(encode(Assign(1)) + b"\n")

    def received(self, messages: list[ServerMessage]) -> None:
        [assigned] = messages
        if not isinstance(assigned, Assigned):
            raise RuntimeError(f"the balancer said {assigned}")
        self.close()
        self._then(assigned.service.port, assigned.lease)


class Client(Connection):
    """A device that logs in as soon as it can; then it says what it is told to, and answers every message that it
    gets with a receipt (one for all that came together, as a real client does)."""

    def __init__(self, loop: Loop, port: int, device: Device, lease: str = "") -> None:
        self.device = device
        self.ready = False
        self.mailbox = 0
        self.sent = 0
        self.accepted = 0
        self.messages = 0
        """Received, each counted once."""
        self.on_ready: Callable[[], None] = _nothing
        self.on_accepted: Callable[[int], None] = _nothing_with
        """Is told how many sends have been accepted in this turn."""
        self.on_messages: Callable[[int], None] = _nothing_with
        self._lease = lease
        self._newest: dict[str, int] = {}
        super().__init__(loop, port)

    def secured(self) -> None:
        self.say(encode(Hello(1, 1, self._lease)) + b"\n")

    def received(self, messages: list[ServerMessage]) -> None:
        accepted = count = k = 0
        for message in messages:
            if isinstance(message, Accepted):
                accepted += 1
            elif isinstance(message, Message):
                k = message.k
                newest = self._newest.get(message.device, message.n - 1)
                if message.n > newest + 1:
                    raise RuntimeError(f"message {message.n} came after {newest}")
                # What comes again (stored because its receipt was late) is dropped, as every client does.
                if message.n > newest:
                    self._newest[message.device] = message.n
                    count += 1
            else:
                self._other(message)
        if k:
            self.say(b'{"t":"received","upto":%d}\n' % k)
        if count:
            self.messages += count
            self.on_messages(count)
        if accepted:
            self.accepted += accepted
            self.on_accepted(accepted)

    def _other(self, message: ServerMessage) -> None:
        match message:
            case Welcome():
                self.say(encode(self.device.login(self.exporter(), message.challenge)) + b"\n")
            case Ready():
                self.ready = True
                self.mailbox = message.mailbox or 0
                self.on_ready()
            case Error():
                raise RuntimeError(f"the server refused: {message}")
            case _:
                raise RuntimeError(f"the server said {message}")

    def send(self, to: Device, body: bytes, count: int = 1) -> None:
        """`count` messages to one device at once; `body` is the JSON string that goes on the wire."""
        recipient = to.id.encode()
        lines = []
        for _ in range(count):
            self.device.n += 1
            self.sent += 1
            lines.append(_SEND % (self.sent, self.device.n, recipient, body))
        self.say(b"".join(lines))


_SEND = b'{"t":"send","id":%d,"n":%d,"to":[{"device":"%s","body":%s}]}\n'


def make_body(size: int) -> bytes:
    """A body of `size` characters of base64, quoted."""
    return b'"' + base64.b64encode(os.urandom(size))[:size] + b'"'


def _nothing() -> None: ...


def _nothing_with(count: int) -> None: ...
