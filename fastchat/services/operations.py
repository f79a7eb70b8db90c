"""What operators and their machines ask over HTTP, on loopback: is it well, and what is it doing.

It is given a function that says what is the case now, and knows nothing else. It changes nothing and shows nothing
about anybody.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import msgspec
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.tcp import Port
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import Request as HttpRequest
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

from fastchat.services import Reactor
from fastchat.services.ports import LOOPBACK, take_port


class ServiceStatus(msgspec.Struct, frozen=True):
    """One chat service."""

    name: str
    port: int
    sessions: int
    """Greeted and not gone: logged in, or about to be."""
    leases: int
    """Sent to it by the balancer and not arrived yet."""
    accepted: int
    """Messages since its start."""
    stored: int
    """Those of them that went to a mailbox."""
    open: bool = True
    """It takes connections: it is neither draining nor about to be opened again."""


class Status(msgspec.Struct, frozen=True):
    """The whole process, as `GET /status` shows it."""

    strategy: str
    database: str
    """"up" or "away"."""
    services: tuple[ServiceStatus, ...]
    problems: tuple[str, ...] = ()
    """What keeps it from doing all its work, each a line for a person; none: healthy."""


Now = Callable[[], Coroutine[Any, Any, Status]]
"""Finds out what is the case. It must come to an end soon: whoever asks has a deadline, too."""


class OperationsService:
    """The listener; `port` 0 takes any free one."""

    def __init__(self, status: Now, port: int, reactor: Reactor) -> None:
        self._site = Site(_root(status))  # type: ignore[no-untyped-call]
        self._site.displayTracebacks = False
        # A line per question would only bury the log: a supervisor asks every few seconds.
        self._site.log = _no_access_log  # type: ignore[method-assign]
        self._port = port
        self._reactor = reactor
        self._listening: Port | None = None

    def listen(self) -> int:
        """Take the port and answer which it is. Raises `ConfigError` if it is taken."""
        self._listening, port = take_port(self._reactor, LOOPBACK, self._port, self._site)
        return port

    async def close(self) -> None:
        listening, self._listening = self._listening, None
        if listening is not None:
            await maybeDeferred(listening.stopListening)


def _no_access_log(request: HttpRequest) -> None:
    """Say nothing."""


def _root(status: Now) -> Resource:
    root = Resource()  # type: ignore[no-untyped-call]
    root.putChild(b"healthz", _Health(status))
    root.putChild(b"status", _Status(status))
    return root


class _Page(Resource):
    """GET and HEAD; every other method is answered with 405."""

    isLeaf = False
    log = Logger()

    def __init__(self, status: Now) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._now = status

    def render(self, request: Request) -> Any:
        if request.method in (b"GET", b"HEAD"):
            return super().render(request)  # type: ignore[no-untyped-call]
        request.setResponseCode(405)
        request.setHeader(b"allow", b"GET, HEAD")  # type: ignore[no-untyped-call]
        return b""

    def render_GET(self, request: Request) -> int:
        gone: list[Failure] = []
        request.notifyFinish().addErrback(gone.append)

        def shown(status: Status) -> None:
            if not gone:
                request.write(self.page(request, status))  # type: ignore[no-untyped-call]
                request.finish()  # type: ignore[no-untyped-call]

        def failed(failure: Failure) -> None:
            self.log.failure("the status cannot be told", failure)
            if not gone:
                request.setResponseCode(500)
                request.finish()  # type: ignore[no-untyped-call]

        Deferred.fromCoroutine(self._now()).addCallback(shown).addErrback(failed)
        return NOT_DONE_YET

    def page(self, request: Request, status: Status) -> bytes:
        raise NotImplementedError


class _Health(_Page):
    def page(self, request: Request, status: Status) -> bytes:
        request.setHeader(b"content-type", b"text/plain; charset=utf-8")  # type: ignore[no-untyped-call]
        if status.problems:
            request.setResponseCode(503)
        return ("\n".join(status.problems or ("ok",)) + "\n").encode()


class _Status(_Page):
    def page(self, request: Request, status: Status) -> bytes:
        request.setHeader(b"content-type", b"application/json")  # type: ignore[no-untyped-call]
        return msgspec.json.format(msgspec.json.encode(status)) + b"\n"
