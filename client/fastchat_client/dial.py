"""A TLS 1.3 connection to the one network whose certificate the invite pins, as a line of messages.

No certificate authority and no host name is asked: the SHA-256 of the certificate's DER is compared with the pin as
soon as the handshake is done, before a byte is said, and TLS itself has proven by then that the other side holds the
certificate's key. It knows no login and no reconnecting.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

from OpenSSL import SSL, crypto
from twisted.internet import error
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.interfaces import IHandshakeListener, IOpenSSLClientConnectionCreator
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure
from zope.interface import implementer

from fastchat.errors import CertificateMismatch, FastChatError, ProtocolError, Unreachable
from fastchat.identity.invite import host_and_port
from fastchat.identity.login import EXPORTER_LABEL, EXPORTER_SIZE, ChannelBinding
from fastchat.protocols.line import LineShell, Turn
from fastchat.protocols.wire import MAX_LINE, ServerMessage, WithBytes, decode_server_message

DIAL_SECONDS = 10.0
"""For the name, the TCP connection and the handshake together."""

GOODBYE_SECONDS = 2.0
"""How long a peer may take to read the last bytes before the connection is aborted."""


class Line:
    """One connection to a peer that has shown the pinned certificate. `received` and `writable` are set by whoever
    dialed; `ended` fires once, with why it ended, and never fails."""

    def __init__(self, where: str, pin: bytes, reactor: Any) -> None:
        self.where = where
        self.binding = ChannelBinding(b"", b"")
        self.received: Callable[[ServerMessage | WithBytes], None] = lambda message: None
        self.writable: Callable[[bool], None] = lambda writable: None
        self.secured: Deferred[Line] = Deferred()
        self.ended: Deferred[FastChatError] = Deferred()
        self._pin = pin
        self._problem: FastChatError | None = None
        self._shell = _PinnedShell(self, Turn(reactor))

    # --- for the one who dialed --------------------------------------------------------------------------------------

    def send(self, message: Any) -> None:
        self._shell.send(message)

    @property
    def is_writable(self) -> bool:
        """False while the other side does not read what was sent."""
        return self._shell.is_writable

    def read_on(self, on: bool) -> None:
        """Stop reading, or go on: who does not read what it is sent is not read from either."""
        if on:
            self._shell.resumeProducing()  # type: ignore[no-untyped-call]
        else:
            self._shell.pauseProducing()  # type: ignore[no-untyped-call]

    def close(self) -> None:
        """Send what was said, then end; `ended` fires within `GOODBYE_SECONDS`."""
        self._shell.close(GOODBYE_SECONDS)

    def fail(self, problem: FastChatError) -> None:
        """End now, for `problem`."""
        self._problem = self._problem or problem
        self._shell.abort()

    # --- for the shell -----------------------------------------------------------------------------------------------

    def connected(self, shell: LineShell) -> None:
        """TCP is up; nothing is said before the handshake is done."""

    def handshake_completed(self, connection: SSL.Connection) -> None:
        certificate = connection.get_peer_certificate()
        if certificate is None:
            self.fail(CertificateMismatch(f"{self.where} shows no certificate; nothing was sent"))
            return
        end_point = hashlib.sha256(crypto.dump_certificate(crypto.FILETYPE_ASN1, certificate)).digest()
        if end_point != self._pin:
            self.fail(
                CertificateMismatch(
                    f"{self.where} shows another certificate than the invite names: either somebody is in between, or "
                    "the server was set up anew; nothing was sent"
                )
            )
            return
        exporter = bytes(connection.export_keying_material(EXPORTER_LABEL, EXPORTER_SIZE, b""))
        self.binding = ChannelBinding(exporter=exporter, end_point=end_point)
        self.secured.callback(self)

    def bad_frame(self, error: ProtocolError) -> None:
        self.fail(error)

    def lost(self, reason: Failure) -> None:
        problem = self._problem or _explain(self.where, reason)
        if not self.secured.called:
            self.secured.errback(problem)
        self.ended.callback(problem)


@implementer(IHandshakeListener)
class _PinnedShell(LineShell):
    """A line shell that says when the handshake is done."""

    def __init__(self, line: Line, turn: Turn) -> None:
        super().__init__(line, decode_server_message, turn)
        self.MAX_LENGTH = MAX_LINE
        self.takes_bytes = True
        self._line = line

    def handshakeCompleted(self) -> None:
        self._line.handshake_completed(self.transport.getHandle())


@implementer(IOpenSSLClientConnectionCreator)
class _Tls13:
    """TLS 1.3 and nothing older; the certificate is judged by its pin alone, once the handshake is done."""

    def __init__(self) -> None:
        self._context = SSL.Context(SSL.TLS_METHOD)
        self._context.set_min_proto_version(SSL.TLS1_3_VERSION)
        self._context.set_verify(SSL.VERIFY_NONE, lambda *_: True)

    def clientConnectionForTLS(self, tlsProtocol: Any) -> SSL.Connection:
        return SSL.Connection(self._context, None)


def dial(reactor: Any, host: str, port: int, pin: bytes) -> Deferred[Line]:
    """A line to `host`:`port`, whose certificate's SHA-256 is `pin`. Fails with `Unreachable`, within
    `DIAL_SECONDS`, or with `CertificateMismatch`."""
    where = host_and_port(host, port)
    line = Line(where, pin, reactor)
    endpoint = wrapClientTLS(_Tls13(), HostnameEndpoint(reactor, host, port, timeout=DIAL_SECONDS))
    factory = Factory.forProtocol(lambda: line._shell)
    factory.noisy = False
    dialing = endpoint.connect(factory)

    def give_up(problem: Unreachable) -> None:
        dialing.cancel()
        line.fail(problem)

    late = reactor.callLater(DIAL_SECONDS, give_up, Unreachable(f"{where} does not answer"))

    def refused(failure: Failure) -> None:
        if not line.secured.called:
            line.secured.errback(_explain(where, failure))

    def done(result: Any) -> Any:
        if late.active():
            late.cancel()
        return result

    def cancel(cancelled: Deferred[Line]) -> None:
        # First, so that whoever waits hears of this and not of a peer that seems to be away.
        cancelled.errback(CancelledError())
        give_up(Unreachable("given up"))

    def tell(result: Line | Failure) -> None:
        if not answer.called:
            answer.callback(result)

    dialing.addErrback(refused)
    answer: Deferred[Line] = Deferred(cancel)
    line.secured.addBoth(done)
    line.secured.addBoth(tell)
    return answer


def _explain(where: str, reason: Failure) -> FastChatError:
    """Why there is no connection, as a sentence of ours."""
    problem = reason.value
    if isinstance(problem, SSL.Error):
        return Unreachable(f"{where} does not speak TLS 1.3")
    if isinstance(problem, error.DNSLookupError):
        return Unreachable(f"{where}: no such host")
    if isinstance(problem, error.ConnectionRefusedError):
        return Unreachable(f"{where} refuses connections; is it running?")
    if isinstance(problem, error.TimeoutError | error.ConnectingCancelledError):
        return Unreachable(f"{where} does not answer")
    if isinstance(problem, error.ConnectionDone | error.ConnectionLost):
        return Unreachable(f"{where} closed the connection")
    return Unreachable(f"{where}: {reason.getErrorMessage()}")
