"""The balancer: a port on which clients ask for a service. Its conversation is `fastchat.protocols.balancer`, its
decisions are `fastchat.placement`; here they meet connections."""

from __future__ import annotations

from twisted.application.service import Service
from twisted.internet.defer import maybeDeferred
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.tcp import Port

from fastchat.errors import FastChatError, LoginTimeout, ProtocolError, RateLimited
from fastchat.protocols.balancer import BalancerSession
from fastchat.protocols.line import LineShell
from fastchat.protocols.wire import ClientMessage, error_from
from fastchat.services.listening import listen
from fastchat.services.node import Node


class _Visit:
    """One connection to the balancer: a few questions within the time that a login may take, then it ends."""

    def __init__(self, node: Node, shell: LineShell, waited: float) -> None:
        self._node = node
        self._shell = shell
        self._session = BalancerSession(node.placement, shell.send)
        self._frames = 0
        left = max(0.0, node.config.limits.login_seconds - waited)
        self._timer: IDelayedCall = node.reactor.callLater(left, self._end, LoginTimeout())

    def received(self, message: ClientMessage) -> None:
        self._frames += 1
        if self._frames > self._node.config.limits.frames_before_login:
            self._end(RateLimited("too many questions on one connection"))
        else:
            self._session.received(message)
            if not hasattr(message, "id"):
                self._shell.close()  # an answer without `re` is the last word

    def bad_frame(self, error: ProtocolError) -> None:
        self._end(error)

    def writable(self, writable: bool) -> None:
        """A few short answers: nothing to hold back."""

    def lost(self) -> None:
        if self._timer.active():
            self._timer.cancel()

    def _end(self, error: FastChatError) -> None:
        self._shell.send(error_from(error))
        self._shell.close()


class BalancerService(Service):
    """The balancer on `port` (0: any free)."""

    def __init__(self, port: int, node: Node) -> None:
        self.setName("balancer")  # type: ignore[no-untyped-call]
        self._node = node
        self._wanted_port = port
        self._listening: Port | None = None

    def listen(self) -> int:
        """Take the port and answer which it is. Raises `ConfigError` if it is taken."""
        self._listening, port = listen(self._node, self._wanted_port, self._converse)
        return port

    def _converse(self, shell: LineShell, _address: str, waited: float) -> _Visit:
        return _Visit(self._node, shell, waited)

    async def close(self) -> None:
        listening, self._listening = self._listening, None
        if listening is not None:
            await maybeDeferred(listening.stopListening)
