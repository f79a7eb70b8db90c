"""The network between clients and services, as bad as one likes: a TCP proxy.

A `Proxy` listens on loopback, one port for each pair of a worker and a port of the network, so that both ends of a link
are known. Rules delay or hold what flows; single links are cut in the middle of a frame, or stranded: their client's
end is cut while the service's stays open and silent. It reads no byte of what it passes on, and knows no fault plan.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import ClientFactory, Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

LOOPBACK = "127.0.0.1"
MOST = 256 * 1024
"""Bytes that one direction of a link keeps; then its source is not read from."""


@dataclass(frozen=True, eq=False)
class Rule:
    """What is the matter with some links. `seconds`: delay of each direction. `up`, `down`: nothing passes from the
    client to the service, or back."""

    concerns: Callable[[Link], bool]
    seconds: float = 0.0
    up: bool = False
    down: bool = False


@implementer(IPushProducer)
class Flow:
    """One direction of a link: from `source` to `sink`, in order. A producer for `sink`."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self.source: Any = None
        self.sink: Any = None
        self.delay = 0.0
        self.held = False
        self.passed = 0
        """Bytes that were passed on."""
        self.most: int | None = None
        """What comes after so many bytes is held."""
        self._queue: deque[tuple[float, bytes]] = deque()
        self._size = 0
        self._full = False
        self._reading = True
        self._ended = False
        self._cut: Callable[[], None] | None = None
        self._due: Any = None

    @property
    def waiting(self) -> int:
        """Bytes that are not passed on."""
        return self._size

    @property
    def _stands(self) -> bool:
        return self.held or self.passed == self.most

    def connected(self, sink: Any) -> None:
        self.sink = sink
        sink.registerProducer(self, True)
        self.flush()

    def data(self, data: bytes) -> None:
        if self._cut is not None:
            # A part of a TLS record, and then nothing ever again.
            cut, self._cut = self._cut, None
            if self.sink is not None:
                self.sink.write(data[: max(1, len(data) // 2)])
            self._reactor.callLater(0.01, cut)
            return
        self._queue.append((self._reactor.seconds() + self.delay, data))
        self._size += len(data)
        self.flush()

    def flush(self) -> None:
        now = self._reactor.seconds()
        while self._queue and not self._stands and not self._full and self.sink and self._queue[0][0] <= now:
            due, data = self._queue.popleft()
            if self.most is not None and len(data) > self.most - self.passed:
                room = self.most - self.passed
                self._queue.appendleft((due, data[room:]))
                data = data[:room]
            self._size -= len(data)
            self.passed += len(data)
            self.sink.write(data)
        if self._queue and self._due is None and not self._stands and not self._full:
            self._due = self._reactor.callLater(max(0.0, self._queue[0][0] - now), self._when_due)
        if not self._queue and self._ended and self.sink:
            self.sink.unregisterProducer()
            self.sink.loseConnection()
        self._read_if(self._size <= MOST)

    def _when_due(self) -> None:
        self._due = None
        self.flush()

    def _read_if(self, reading: bool) -> None:
        if reading != self._reading and self.source is not None:
            self._reading = reading
            if reading:
                self.source.resumeProducing()
            else:
                self.source.pauseProducing()

    def end(self) -> None:
        """The source is gone. What it said before still goes its way, unless it is held: then nobody sends it again."""
        self.source = None
        if self.held:
            self.drop()
        else:
            self._ended = True
            self.flush()

    def drop(self) -> None:
        """The sink is gone, or will hear nothing more."""
        self._queue.clear()
        self._size = 0
        if self._due is not None:
            self._due.cancel()
            self._due = None

    def cut_next(self, cut: Callable[[], None]) -> None:
        """Pass on a part of what comes next, then `cut`."""
        self._cut = cut

    def pauseProducing(self) -> None:
        self._full = True

    def resumeProducing(self) -> None:
        self._full = False
        self.flush()

    def stopProducing(self) -> None:
        self.drop()


class _End(Protocol):
    """The client's or the service's end of a link."""

    def __init__(self, link: Link, out: Flow, lost: Callable[[], None]) -> None:
        self._link = link
        self._out = out
        self._lost = lost

    def connectionMade(self) -> None:
        transport: Any = self.transport
        transport.setTcpNoDelay(True)
        self._out.source = transport
        self._link.connected(self)

    def dataReceived(self, data: bytes) -> None:
        self._out.data(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._lost()


class Link:
    """One connection of a client through the proxy. `worker`: whose; `port`: the real port of what it leads to;
    `number`: how many came before it."""

    def __init__(self, proxy: Proxy, number: int, worker: int, port: int, reactor: Any) -> None:
        self.proxy = proxy
        self.number = number
        self.worker = worker
        self.port = port
        self.is_stranded = False
        self.up = Flow(reactor)
        self.down = Flow(reactor)
        self.client = _End(self, self.up, self._client_lost)
        self.service = _End(self, self.down, self._service_lost)
        self._client: Any = None
        self._service: Any = None
        self._reactor = reactor

    @property
    def is_open(self) -> bool:
        return self._client is not None and self._service is not None

    def connected(self, end: _End) -> None:
        if end is self.client:
            self._client = end.transport
            self._reactor.connectTCP(LOOPBACK, self.port, _Dialing(self))
        elif self._client is None:
            self._service = end.transport
            self._service.abortConnection()
        else:
            self._service = end.transport
            self.down.connected(self._client)
            self.up.connected(self._service)

    def unreachable(self) -> None:
        if self._client is not None:
            self._client.abortConnection()

    def cut(self) -> None:
        """Both ends, at once."""
        for end in (self._client, self._service):
            if end is not None:
                end.abortConnection()

    def cut_in_a_frame(self, down: bool) -> None:
        (self.down if down else self.up).cut_next(self.cut)

    def strand(self) -> None:
        """The client's end is gone; the service's stays open, and nobody reads it."""
        if self.is_open and not self.is_stranded:
            self.is_stranded = True
            self.up.drop()
            self._service.pauseProducing()
            self._client.abortConnection()

    def _client_lost(self) -> None:
        self._client = None
        self.down.drop()
        self.down.sink = None
        if self.is_stranded:
            return
        held = self.up.held
        self.up.end()
        if held and self._service is not None:
            # Nothing of it reaches the service, the end neither.
            self.is_stranded = True
        elif self._service is None:
            self.proxy.gone(self)

    def _service_lost(self) -> None:
        self._service = None
        self.up.drop()
        self.up.sink = None
        self.down.end()
        if self._client is None or self.is_stranded:
            self.proxy.gone(self)
        elif self.down.held:
            self._client.abortConnection()


class _Dialing(ClientFactory):
    noisy = False

    def __init__(self, link: Link) -> None:
        self._link = link

    def buildProtocol(self, addr: Any) -> _End:
        return self._link.service

    def clientConnectionFailed(self, connector: Any, reason: Failure) -> None:
        self._link.unreachable()


class _Accepting(Factory):
    noisy = False

    def __init__(self, proxy: Proxy, worker: int, port: int) -> None:
        self._proxy = proxy
        self._worker = worker
        self._port = port

    def buildProtocol(self, addr: Any) -> _End:
        return self._proxy.accept(self._worker, self._port).client


class Proxy:
    """All links. `ports[worker][real port]` is where the worker finds that port of the network. `made` is told of each
    new link before anything flows."""

    def __init__(self, workers: int, ports: Sequence[int], reactor: Any) -> None:
        self._reactor = reactor
        self._rules: list[Rule] = []
        self._links: dict[Link, None] = {}
        self._numbers = count()
        self._listening: list[Any] = []
        self.made: Callable[[Link], None] = lambda link: None
        self.ports: list[dict[int, int]] = []
        for worker in range(workers):
            mapping = {}
            for port in ports:
                listening = reactor.listenTCP(0, _Accepting(self, worker, port), backlog=256, interface=LOOPBACK)
                self._listening.append(listening)
                where = listening.getHost()
                assert isinstance(where, IPv4Address)
                mapping[port] = where.port
            self.ports.append(mapping)

    @property
    def links(self) -> list[Link]:
        """Those with both ends open, the oldest first."""
        return [link for link in self._links if link.is_open]

    def accept(self, worker: int, port: int) -> Link:
        link = Link(self, next(self._numbers), worker, port, self._reactor)
        self._links[link] = None
        self._judge(link)
        self.made(link)
        return link

    def gone(self, link: Link) -> None:
        self._links.pop(link, None)

    def add(self, rule: Rule) -> None:
        self._rules.append(rule)
        self._judge_all()

    def remove(self, rule: Rule) -> None:
        self._rules.remove(rule)
        self._judge_all()

    def release_stranded(self, concerns: Callable[[Link], bool]) -> None:
        """The services hear at last that nobody is there."""
        for link in list(self._links):
            if link.is_stranded and concerns(link):
                link.cut()

    async def stop(self) -> None:
        for listening in self._listening:
            await listening.stopListening()
        for link in list(self._links):
            link.cut()

    def _judge_all(self) -> None:
        for link in list(self._links):
            self._judge(link)

    def _judge(self, link: Link) -> None:
        rules = [rule for rule in self._rules if rule.concerns(link)]
        for flow, held in ((link.up, any(r.up for r in rules)), (link.down, any(r.down for r in rules))):
            flow.delay = max((rule.seconds for rule in rules), default=0.0)
            flow.held = held
            flow.flush()
