"""How every FastChat port listens: TLS 1.3 over TCP, a line shell on each connection, the limits of an address.

A connection over a limit is told so and closed; it never meets the service behind the port.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from hashlib import sha256
from typing import Any, Protocol

from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL.SSL import Connection
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory
from twisted.internet.tcp import Port
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from twisted.python.failure import Failure

from fastchat.errors import LimitError, ProtocolError
from fastchat.identity.login import EXPORTER_LABEL, EXPORTER_SIZE, ChannelBinding
from fastchat.protocols.line import LineShell
from fastchat.protocols.wire import ClientMessage, decode_client_message, error_from
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

Converse = Callable[[LineShell, str], Conversation]
"""Begins a conversation on a shell that is up, with the peer's address."""


class _Refused:
    """The conversation with a connection over a limit: none."""

    def __init__(self, shell: LineShell, open_: set[_Refused]) -> None:
        self._shell = shell
        self._open = open_
        self._open.add(self)

    def say(self, error: LimitError) -> None:
        if len(self._open) > MOST_REFUSED:
            self._shell.abort()
        else:
            self._shell.send(error_from(error))
            self._shell.close()

    def received(self, message: ClientMessage) -> None: ...

    def bad_frame(self, error: ProtocolError) -> None: ...

    def writable(self, writable: bool) -> None: ...

    def lost(self) -> None:
        self._open.discard(self)


class _Connection:
    """A shell's owner: counts the address, and passes everything on to the conversation."""

    def __init__(self, node: Node, address: str, converse: Converse, refused: set[_Refused]) -> None:
        self._node = node
        self._address = address
        self._converse = converse
        self._refused = refused
        self._counted = False
        self._conversation: Conversation

    def connected(self, shell: LineShell) -> None:
        transport = shell.transport
        transport.setTcpNoDelay(True)
        limits = self._node.config.limits
        # The TCP transport under TLS: above so many bytes it asks the shell to pause.
        transport.transport.bufferSize = limits.outbound_soft
        _set_user_timeout(transport.transport, limits.tcp_user_timeout)
        try:
            self._node.addresses.connected(self._address)
        except LimitError as error:
            # Before it says anything: what is written before the handshake makes the transport report at once.
            self._conversation = refused = _Refused(shell, self._refused)
            refused.say(error)
        else:
            self._counted = True
            self._conversation = self._converse(shell, self._address)

    def received(self, message: ClientMessage) -> None:
        self._conversation.received(message)

    def bad_frame(self, error: ProtocolError) -> None:
        self._conversation.bad_frame(error)

    def writable(self, writable: bool) -> None:
        self._conversation.writable(writable)

    def lost(self, reason: Failure) -> None:
        if self._counted:
            self._node.addresses.disconnected(self._address)
        self._conversation.lost()


class _Factory(Factory):
    noisy = False

    def __init__(self, node: Node, converse: Converse) -> None:
        self._node = node
        self._converse = converse
        self._refused: set[_Refused] = set()

    def buildProtocol(self, addr: IAddress | None) -> LineShell:
        owner = _Connection(self._node, getattr(addr, "host", ""), self._converse, self._refused)
        return LineShell(owner, decode_client_message, self._node.turn, self._node.config.limits.outbound_hard)


class _UnbufferedTLSFactory(TLSMemoryBIOFactory):
    """Twisted's TLS without its extra write buffer: the shell gathers a turn's writes already."""

    protocol = TLSMemoryBIOProtocol
    noisy = False


def listen(node: Node, port: int, converse: Converse) -> tuple[Port, int]:
    """Listen on `port` (0: any free); answers with the port and its number. Raises `ConfigError` if it cannot."""
    config = node.config
    factory = _UnbufferedTLSFactory(node.tls, False, _Factory(node, converse))
    return take_port(node.reactor, config.host, port, factory, config.limits.backlog)


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
