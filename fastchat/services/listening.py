"""How every FastChat port listens: TCP, the limits of an address, TLS 1.3, a line shell on each connection.

A connection over a limit is told so and closed; it never meets the service behind the port. One that says nothing
costs a socket and a timer: TLS begins with its first byte.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from hashlib import sha256
from typing import Any, Protocol

from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL.SSL import Connection
from twisted.internet.interfaces import IAddress, IDelayedCall
from twisted.internet.protocol import Factory, connectionDone
from twisted.internet.protocol import Protocol as TcpProtocol
from twisted.internet.tcp import Port
from twisted.python.failure import Failure

from fastchat.errors import LimitError, ProtocolError
from fastchat.identity.login import EXPORTER_LABEL, EXPORTER_SIZE, ChannelBinding
from fastchat.protocols.line import LineShell
from fastchat.protocols.wire import ClientMessage, decode_client_message, error_from
from fastchat.services.doorway import PatientPort, PatientTLSFactory
from fastchat.services.node import Node
from fastchat.services.ports import take_port


class Conversation(Protocol):
    """What answers on one connection."""

    def received(self, message: ClientMessage) -> None: ...

    def bad_frame(self, error: ProtocolError) -> None: ...

    def writable(self, writable: bool) -> None: ...

    def lost(self) -> None: ...


MOST_REFUSED = 100
"""Connections over a limit that a port tells why at the same time; further ones are aborted at once: what is said to
them takes a handshake."""

Converse = Callable[[LineShell, str, float], Conversation]
"""Begins a conversation on a shell that is up, with the peer's address and the seconds since it connected."""


class _Nothing:
    """The conversation with a connection over a limit, or gone."""

    def received(self, message: ClientMessage) -> None: ...

    def bad_frame(self, error: ProtocolError) -> None: ...

    def writable(self, writable: bool) -> None: ...

    def lost(self) -> None: ...


_NOTHING = _Nothing()


class _Newcomer(TcpProtocol):
    """A TCP connection that has said nothing yet: it has the time of a login to begin with TLS. After that, it is what
    the connection has to give back when it is gone."""

    transport: Any

    def __init__(self, door: _Door, address: str) -> None:
        self.refusal: LimitError | None = None
        self.address = address
        self._door = door
        self._since = door.node.reactor.seconds()
        self._timer: IDelayedCall | None = None

    @property
    def waited(self) -> float:
        """Seconds since it connected."""
        return float(self._door.node.reactor.seconds() - self._since)

    def connectionMade(self) -> None:
        node, door = self._door.node, self._door
        limits = node.config.limits
        self.transport.setTcpNoDelay(True)
        _set_user_timeout(self.transport, limits.tcp_user_timeout)
        door.newcomers.add(self)
        try:
            node.addresses.connected(self.address)
        except LimitError as error:
            self.refusal = error
            door.refused += 1
        if door.refused > MOST_REFUSED and self.refusal:
            self.abort()
        else:
            self._timer = node.reactor.callLater(limits.login_seconds, self.abort)

    def dataReceived(self, data: bytes) -> None:
        self.transport.pauseProducing()
        self._door.node.doorway.wait(lambda: self._come_in(data))

    def abort(self) -> None:
        self.transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._leave()
        self.gone()

    def gone(self) -> None:
        """The connection is, in whatever state it was."""
        if self.refusal:
            self._door.refused -= 1
        else:
            self._door.node.addresses.disconnected(self.address)

    def _come_in(self, data: bytes) -> None:
        if self in self._door.newcomers:
            self._leave()
            tls = self._door.make_tls(self)
            transport, self.transport = self.transport, None
            transport.protocol = tls
            tls.makeConnection(transport)
            tls.hear_in_turn(data)

    def _leave(self) -> None:
        self._door.newcomers.discard(self)
        if self._timer is not None and self._timer.active():
            self._timer.cancel()


class _Connection:
    """A shell's owner: passes everything on to the conversation."""

    def __init__(self, newcomer: _Newcomer, door: _Door) -> None:
        self._newcomer = newcomer
        self._door = door
        self._conversation: Conversation

    def connected(self, shell: LineShell) -> None:
        # The TCP transport under TLS: above so many bytes it asks the shell to pause.
        shell.transport.transport.bufferSize = self._door.node.config.limits.outbound_soft
        newcomer = self._newcomer
        if newcomer.refusal is None:
            self._conversation = self._door.converse(shell, newcomer.address, newcomer.waited)
        else:
            # Before it says anything: what is written before the handshake makes the transport report at once.
            self._conversation = _NOTHING
            shell.send(error_from(newcomer.refusal))
            shell.close()

    def received(self, message: ClientMessage) -> None:
        self._conversation.received(message)

    def bad_frame(self, error: ProtocolError) -> None:
        self._conversation.bad_frame(error)

    def writable(self, writable: bool) -> None:
        self._conversation.writable(writable)

    def lost(self, reason: Failure) -> None:
        self._newcomer.gone()
        conversation, self._conversation = self._conversation, _NOTHING
        conversation.lost()


class _Door(Factory):
    """One port's connections."""

    noisy = False

    def __init__(self, node: Node, converse: Converse) -> None:
        self.node = node
        self.converse = converse
        self.newcomers: set[_Newcomer] = set()
        self.refused = 0
        """How many are there that are over a limit."""
        self.doorway = node.doorway
        self._tls = PatientTLSFactory(node.tls, Factory(), node.doorway)

    def buildProtocol(self, addr: IAddress | None) -> _Newcomer:
        return _Newcomer(self, getattr(addr, "host", ""))

    def make_tls(self, newcomer: _Newcomer) -> Any:
        hard = self.node.config.limits.outbound_hard
        shell = LineShell(_Connection(newcomer, self), decode_client_message, self.node.turn, hard)
        return self._tls.protocol(self._tls, shell)  # type: ignore[no-untyped-call]

    def stopFactory(self) -> None:
        """The port is closed: nobody waits for those that have said nothing."""
        for newcomer in list(self.newcomers):
            newcomer.abort()


def listen(node: Node, port: int, converse: Converse) -> tuple[Port, int]:
    """Listen on `port` (0: any free); answers with the port and its number. Raises `ConfigError` if it cannot."""
    config = node.config
    return take_port(node.reactor, config.host, port, _Door(node, converse), config.limits.backlog, PatientPort)


def channel_binding(shell: LineShell) -> ChannelBinding:
    """What binds a login to this server side TLS connection, which must have shaken hands."""
    connection: Connection = shell.transport.getHandle()
    certificate = connection.get_certificate()
    if certificate is None:
        raise AssertionError("a server without a certificate cannot have shaken hands")
    end_point = sha256(certificate.to_cryptography().public_bytes(Encoding.DER)).digest()
    exporter = bytes(connection.export_keying_material(EXPORTER_LABEL, EXPORTER_SIZE, b""))
    return ChannelBinding(exporter, end_point)


def _set_user_timeout(transport: Any, seconds: float) -> None:
    """RFC 5482 on Linux; elsewhere the ping notices a dead peer, later."""
    option = getattr(socket, "TCP_USER_TIMEOUT", None)
    if option is not None:
        transport.getHandle().setsockopt(socket.IPPROTO_TCP, option, int(seconds * 1000))
