"""The operations page over real HTTP on loopback."""

from __future__ import annotations

import json

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase
from twisted.web.client import Agent, readBody
from twisted.web.iweb import IResponse

from fastchat.services import Reactor
from fastchat.services.operations import OperationsService, ServiceStatus, Status

CHAT = ServiceStatus("chat-1", 7401, sessions=3, leases=1, accepted=9, stored=2)
WELL = Status("least-connections", "up", (CHAT,))
ILL = Status("least-connections", "away", (CHAT,), ("the database does not answer",))


class OperationsTest(TestCase):
    async def setUp(self) -> None:  # type: ignore[override]
        self.reactor: Reactor = reactor
        self.now = WELL
        self.service = OperationsService(self.status, 0, self.reactor)
        self.port = self.service.listen()
        self.addCleanup(lambda: Deferred.fromCoroutine(self.service.close()))

    async def status(self) -> Status:
        return self.now

    async def ask(self, method: bytes, path: str) -> tuple[IResponse, bytes]:
        response = await Agent(self.reactor).request(method, f"http://127.0.0.1:{self.port}{path}".encode())
        return response, await readBody(response)

    async def test_it_is_well(self) -> None:
        response, body = await self.ask(b"GET", "/healthz")
        self.assertEqual((response.code, body), (200, b"ok\n"))

    async def test_it_is_not_well_and_says_why(self) -> None:
        self.now = ILL
        response, body = await self.ask(b"GET", "/healthz")
        self.assertEqual((response.code, body), (503, b"the database does not answer\n"))

    async def test_the_status_is_of_now(self) -> None:
        self.now = ILL
        response, body = await self.ask(b"GET", "/status")
        self.assertEqual(response.code, 200)
        self.assertEqual(response.headers.getRawHeaders(b"content-type"), [b"application/json"])
        status = json.loads(body)
        self.assertEqual((status["strategy"], status["database"]), ("least-connections", "away"))
        self.assertEqual(
            status["services"],
            [{"name": "chat-1", "port": 7401, "open": True, "sessions": 3, "leases": 1, "accepted": 9, "stored": 2}],
        )

    async def test_there_is_nothing_else(self) -> None:
        for path in ("/", "/nothing", "/status/more", "/healthz/"):
            response, _ = await self.ask(b"GET", path)
            self.assertEqual(response.code, 404, path)

    async def test_nothing_can_be_changed(self) -> None:
        for method in (b"POST", b"PUT", b"DELETE"):
            for path in ("/healthz", "/status"):
                response, _ = await self.ask(method, path)
                self.assertEqual(response.code, 405)
                self.assertEqual(response.headers.getRawHeaders(b"allow"), [b"GET, HEAD"])
