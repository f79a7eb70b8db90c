"""Faults that have to happen inside the twistd process: one of its chat services dies, and comes back.

The driver writes lines on the process's standard input, which `network.tac` gives to a `Control`:

    die <service> <known>       `service` does not exist any more; known 1: the balancer notices at once, 0: never
    revive <service>            it is there again, empty

When the input ends the driver is gone, and the network stops: nothing is left behind by a driver that was killed.

What this does not cover: a service with a process of its own loses its half of everything in the moment of its death.
Here its sessions are told that their connections are gone, and hand what was in flight to the mailboxes, which a killed
process does not. That is covered by the `kill -9` of the whole twistd, where however all five die together: not covered
is that one service dies like that while the others go on, with messages on their way to it over a bus between
processes.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from twisted.internet.defer import Deferred, DeferredLock, maybeDeferred
from twisted.internet.error import ReactorNotRunning
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.protocols.basic import LineReceiver
from twisted.python.failure import Failure

from fastchat.services.chat import ChatService
from fastchat.services.network import NetworkService


async def die(chat: ChatService, known: bool) -> None:
    """`chat` is gone, without a word to anybody: its port closes, its connections break."""
    listening, chat._listening = chat._listening, None
    if listening is None:
        return
    if known:
        chat._node.placement.remove(chat.name)
    if chat._ticking.running:
        chat._ticking.stop()
    await maybeDeferred(listening.stopListening)
    for session in list(chat._open):
        session._pipe.abort()


def revive(chat: ChatService) -> None:
    """It listens again where it did."""
    if chat._listening is None:
        chat.listen()


class Control(LineReceiver):
    """The driver's lines, for the services of `network`."""

    log = Logger()
    delimiter = b"\n"

    def __init__(self, network: NetworkService, reactor: Any) -> None:
        self._network = network
        self._reactor = reactor
        # A process that was stopped finds several lines at once, and a port is closed a turn after it was asked to be.
        self._one_at_a_time = DeferredLock()

    def lineReceived(self, line: bytes) -> None:
        command, name, *more = line.decode().split()
        for chat in self._network.chats:
            if chat.name == name and command == "die":
                self._one_at_a_time.run(_coroutine, die(chat, known=more == ["1"])).addErrback(self._failed)
            elif chat.name == name:
                self._one_at_a_time.run(revive, chat).addErrback(self._failed)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        try:
            self._reactor.stop()
        except ReactorNotRunning:
            self.log.debug("the network is stopping already")

    def _failed(self, failure: Failure) -> None:
        self.log.failure("a service did not die, or not come back", failure)


def _coroutine(coroutine: Coroutine[Any, Any, None]) -> Deferred[None]:
    return Deferred.fromCoroutine(coroutine)
