"""Connections to a service that are not clients: lines on which anything may be said, and peers without TLS 1.3."""

from __future__ import annotations

from typing import Any

from OpenSSL import SSL
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from fastchat.protocols import wire
from fastchat_client.dial import Line


class Stranger(Protocol):
    """Says some bytes, and gathers what comes until the end."""

    transport: Any

    def __init__(self, says: bytes) -> None:
        self.says = says
        self.heard = b""
        self.gone: Deferred[bytes] = Deferred()

    def connectionMade(self) -> None:
        self.transport.write(self.says)

    def dataReceived(self, data: bytes) -> None:
        self.heard += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.gone.callback(self.heard)


@implementer(IOpenSSLClientConnectionCreator)
class OldTls:
    """TLS 1.2 at most."""

    def clientConnectionForTLS(self, tlsProtocol: Any) -> SSL.Connection:
        context = SSL.Context(SSL.TLS_METHOD)
        context.set_max_proto_version(SSL.TLS1_2_VERSION)
        return SSL.Connection(context, None)


class Visitor:
    """A line to one port, with all that it hears."""

    def __init__(self, line: Line) -> None:
        self.line = line
        self.heard: list[Any] = []
        line.received = self.heard.append

    @property
    def codes(self) -> list[str]:
        return [message.code for message in self.heard if isinstance(message, wire.Error)]

    def say_line(self, data: bytes) -> None:
        self.line._shell.transport.write(data + b"\n")
