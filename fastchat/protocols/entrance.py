"""What is said on a chat connection before it is logged in, and what it comes to: the answers to `hello`, `register`,
`scram`, `add_device` and `login`. It sends nothing: when each of these may be said, and what an error ends, is the
session's.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.task import deferLater
from twisted.logger import Logger

from fastchat.accounts import ScramExchange
from fastchat.errors import Busy, LoginFailed, UnsupportedVersion
from fastchat.identity.login import ChannelBinding
from fastchat.protocols.service import Service
from fastchat.protocols.wire import (
    MAX_LINE,
    VERSION,
    AddDevice,
    Added,
    Hello,
    Login,
    Ready,
    Register,
    Registered,
    ScramAnswer,
    ScramRequest,
    SessionLimits,
    Welcome,
)
from fastchat.store import Device

DATABASE_SHARE = 0.25
"""Of the time that a login may take, for one question to the database. There are two at most."""

T = TypeVar("T")


class Entrance:
    """One connection's way in. `user` and `device` are known once they are proven."""

    log = Logger()

    def __init__(self, service: Service, address: str, binding: Callable[[], ChannelBinding], challenge: bytes) -> None:
        self.user = ""
        self.device: Device | None = None
        self._service = service
        self._address = address
        self._binding = binding
        self._challenge = challenge
        self._scram: ScramExchange | None = None

    def welcome(self, hello: Hello) -> Welcome:
        """Raises `UnsupportedVersion`."""
        if hello.version != VERSION:
            raise UnsupportedVersion(f"version {VERSION} is spoken here, not {hello.version}")
        limits, files = self._service.limits, self._service.attachments.limits
        return Welcome(
            re=hello.id,
            version=VERSION,
            service=self._service.name,
            challenge=self._challenge,
            limits=SessionLimits(
                max_line=MAX_LINE,
                unaccepted=limits.unaccepted,
                sends_per_second=limits.sends_per_second,
                window_messages=limits.window_messages,
                window_bytes=limits.window_bytes,
                ping_every=limits.ping_seconds,
                dead_after=limits.dead_seconds,
                chunks=files.chunks_in_flight,
                largest_attachment=files.largest,
            ),
        )

    async def register(self, request: Register) -> Registered:
        """Raises what `Accounts.register` does."""
        await self._in_time(self._service.accounts.register(request))
        return Registered(re=request.id)

    @property
    def has_begun_scram(self) -> bool:
        """The next `scram` is the one with the proof."""
        return self._scram is not None

    async def scram(self, request: ScramRequest) -> ScramAnswer:
        """Raises `LoginFailed`."""
        if self._scram is None:
            self._scram = self._service.accounts.scram(self._binding().end_point)
            return await self._scram_first(self._scram, request)
        return await self._scram_final(self._scram, request)

    async def _scram_first(self, scram: ScramExchange, request: ScramRequest) -> ScramAnswer:
        answer = await self._in_time(scram.first(request.message))
        # Waited for before the password is looked at, right or wrong: see LoginFailures.
        await self._wait(self._service.failures.delay(scram.user, self._address))
        return ScramAnswer(re=request.id, message=answer)

    async def _scram_final(self, scram: ScramExchange, request: ScramRequest) -> ScramAnswer:
        try:
            answer, self.user = scram.final(request.message)
        except LoginFailed:
            self._service.failures.failed(scram.user, self._address)
            raise
        accounts = await self._in_time(self._service.directory.keys((self.user,), claim=False))
        return ScramAnswer(re=request.id, message=answer, links=tuple(link for one in accounts for link in one.links))

    async def add_device(self, request: AddDevice) -> Added:
        """Of the account whose password was proven. Raises what `Accounts.add_device` does."""
        await self._in_time(self._add_device(request))
        return Added(re=request.id)

    async def _add_device(self, request: AddDevice) -> None:
        await self._service.accounts.add_device(self.user, request)
        # Also when nobody waits for it any more.
        self._service.groups.devices_changed(self.user)

    async def login(self, request: Login) -> Ready:
        """Raises `LoginFailed`; `Busy` if nothing is known of the device while the database is away."""
        service = self._service
        try:
            device = await self._in_time(
                service.accounts.check_login(request, self._binding().exporter, self._challenge)
            )
        except LoginFailed:
            service.failures.failed(request.user, self._address)
            await self._wait(service.failures.delay(request.user, self._address))
            raise
        self.device, self.user = device, device.user
        try:
            return await self._in_time(self._ready(request.id, device))
        except Busy:
            self.log.debug("{user} logs in while the database is away", user=self.user)
            return Ready(re=request.id, mailbox=None, one_time_keys=None, checkpoint=service.directory.known())

    async def _ready(self, re: int, device: Device) -> Ready:
        mailbox = await self._service.delivery.waiting(device.device)
        one_time_keys = await self._service.directory.one_time_keys(device.device)
        checkpoint = await self._service.directory.checkpoint()
        return Ready(re=re, mailbox=mailbox, one_time_keys=one_time_keys, checkpoint=checkpoint)

    async def _in_time(self, work: Coroutine[Any, Any, T]) -> T:
        """What `work` comes to, or `Busy`: a database that hangs must not use up the time that there is for the login.
        What was begun is not stopped."""
        deferred = Deferred.fromCoroutine(work)
        deferred.addTimeout(self._service.limits.login_seconds * DATABASE_SHARE, self._service.reactor)
        try:
            return await deferred
        except TimeoutError:
            raise Busy("The database is too slow.") from None

    async def _wait(self, seconds: float) -> None:
        if seconds > 0:
            await deferLater(self._service.reactor, seconds)
