"""What is said on a chat connection before it is logged in, and what it comes to: the answers to `hello`, `register`,
`scram`, `add_device` and `login`. It sends nothing: when each of these may be said, and what an error ends, is the
session's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from twisted.internet.task import deferLater
from twisted.logger import Logger

from fastchat.accounts import ScramExchange
from fastchat.errors import Busy, LoginFailed, UnsupportedVersion
from fastchat.identity.login import ChannelBinding
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

if TYPE_CHECKING:
    from fastchat.protocols.session import Service


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
        limits = self._service.limits
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
            ),
        )

    async def register(self, request: Register) -> Registered:
        """Raises what `Accounts.register` does."""
        await self._service.accounts.register(request)
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
        answer = await scram.first(request.message)
        # Waited for before the password is looked at, right or wrong: see LoginFailures.
        await self._wait(self._service.failures.delay(scram.user, self._address))
        return ScramAnswer(re=request.id, message=answer)

    async def _scram_final(self, scram: ScramExchange, request: ScramRequest) -> ScramAnswer:
        try:
            answer, self.user = scram.final(request.message)
        except LoginFailed:
            self._service.failures.failed(scram.user, self._address)
            raise
        accounts = await self._service.directory.keys((self.user,), claim=False)
        return ScramAnswer(re=request.id, message=answer, links=tuple(link for one in accounts for link in one.links))

    async def add_device(self, request: AddDevice) -> Added:
        """Of the account whose password was proven. Raises what `Accounts.add_device` does."""
        await self._service.accounts.add_device(self.user, request)
        return Added(re=request.id)

    async def login(self, request: Login) -> Ready:
        """Raises `LoginFailed`; `Busy` if nothing is known of the device while the database is away."""
        service = self._service
        try:
            device = await service.accounts.check_login(request, self._binding().exporter, self._challenge)
        except LoginFailed:
            service.failures.failed(request.user, self._address)
            await self._wait(service.failures.delay(request.user, self._address))
            raise
        self.device, self.user = device, device.user
        mailbox = one_time_keys = None
        try:
            mailbox = await service.delivery.waiting(device.device)
            one_time_keys = await service.directory.one_time_keys(device.device)
        except Busy:
            self.log.debug("{user} logs in while the database is away", user=self.user)
        checkpoint = await service.directory.checkpoint()
        return Ready(re=request.id, mailbox=mailbox, one_time_keys=one_time_keys, checkpoint=checkpoint)

    async def _wait(self, seconds: float) -> None:
        if seconds > 0:
            await deferLater(self._service.reactor, seconds)
