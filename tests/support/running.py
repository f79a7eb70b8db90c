"""The whole network in this process, on real ports, over TLS and PostgreSQL; and the two kinds of client that tests
put on it: a `Caller`, which only logs in, and a `Member`, the real client with its vault and its ratchets."""

from __future__ import annotations

import os
import tempfile
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.python.filepath import FilePath
from twisted.trial.unittest import TestCase

from fastchat.config import AttachmentLimits, Config, Database, Limits
from fastchat.identity.invite import Invite, invite_digest
from fastchat.protocols.wire import Assign, Assigned, DeviceKeys, Hello, Ready, ServiceAddress, Welcome
from fastchat.services.network import NetworkService, Running
from fastchat.services.node import Node
from fastchat.services.operations import Status
from fastchat.store import Account, Device
from fastchat.store.postgres import PostgresStore
from fastchat_client.connection import Connection
from fastchat_client.core import Core
from fastchat_client.dial import Line, dial
from fastchat_client.entrance import Enrolment
from fastchat_client.events import Connected, Event, MessageReceived, MessageState, State
from fastchat_client.joining import prepare_enrolment, prepare_registration
from fastchat_client.vault import Vault
from tests.support.keys import root_key
from tests.support.people import OwnDevice, verifier_of
from tests.support.postgres import fresh_database

PATIENCE = 60.0
"""Seconds after which a test that waits gives up; nothing is judged by them."""


class RunningNetwork:
    """Five chat services, a balancer and their database; stopped when the test ends."""

    def __init__(self, config: Config, reactor: Any) -> None:
        self.config = config
        self.reactor = reactor
        self._started: Deferred[Running] = Deferred()
        self.service = NetworkService(
            config, reactor, self._started.callback, lambda line: self._started.errback(RuntimeError(line))
        )

    @classmethod
    async def start(
        cls, testcase: TestCase, attachments: AttachmentLimits | None = None, **limits: Any
    ) -> RunningNetwork:
        from twisted.internet import reactor

        home = Path(tempfile.mkdtemp(prefix="fastchat-network-"))
        testcase.addCleanup(FilePath(str(home)).remove)
        database = Database(dsn=await fresh_database(testcase))
        generous = {"sends_per_second": 1000.0, "sends_burst": 1000, **limits}
        config = Config(
            home=home,
            port=0,
            database=database,
            limits=Limits(**generous),
            attachments=attachments or AttachmentLimits(),
        )
        network = cls(config, reactor)
        testcase.addCleanup(network.service.stopService)
        network.service.startService()
        network.running = await network._started
        network.invite = Invite.parse(network.running.link)
        return network

    running: Running
    invite: Invite

    @property
    def node(self) -> Node:
        assert self.service._node is not None
        return self.service._node

    @property
    def status(self) -> Status:
        return self.service.status()

    @property
    def sessions(self) -> list[int]:
        """How many sessions each chat service has."""
        return [service.sessions for service in self.status.services]

    async def no_sessions(self) -> None:
        """Until the services have seen everybody leave."""
        await until(self.reactor, lambda: sum(self.sessions) == 0)

    async def kill_service(self, number: int) -> None:
        """One chat service (from 0) is gone, without a word to anybody: its port closes, its connections break."""
        chat = self.service.chats[number]
        listening, chat._listening = chat._listening, None
        assert listening is not None
        chat._node.placement.remove(chat.name)
        chat._ticking.stop()
        await listening.stopListening()
        for session in list(chat._open):
            session._pipe.abort()

    async def add_callers(self, users: Sequence[str]) -> list[Caller]:
        """Accounts put straight into the database: what they cost to make is another test's subject."""
        store = PostgresStore(self.config.database.dsn or "", self.config, self.reactor)
        await store.open()
        callers = [Caller(self, user) for user in users]
        for caller in callers:
            identity = caller.device.identity
            device = Device(identity.device, identity.user, identity.ed25519, identity.curve25519)
            account = Account(identity.user, b"not looked at by a login", verifier_of("x", iterations=4096))
            await store.register(account, device, [], DeviceKeys(), [], invite_digest(self.invite.token))
        await store.close()
        return callers


async def until(reactor: Any, condition: Callable[[], bool], patience: float = PATIENCE) -> None:
    """Wait, turn by turn, until `condition` holds; fails after `patience` seconds."""
    give_up = reactor.seconds() + patience
    while not condition():
        if reactor.seconds() > give_up:
            raise AssertionError(f"still not so after {patience:g} seconds")
        await deferLater(reactor, 0.01)


class Caller:
    """A client that logs in by its device's signature, and out."""

    def __init__(self, network: RunningNetwork, user: str) -> None:
        self.device = OwnDevice(user, "only")
        self.service = ""
        self._network = network
        self._line: Line | None = None

    async def ask(self, line: Line, message: Any) -> Any:
        answer: Deferred[Any] = Deferred()
        line.received = lambda message: None if answer.called else answer.callback(message)
        line.send(message)
        return await answer

    async def place(self) -> tuple[ServiceAddress, str]:
        """What the balancer says."""
        invite = self._network.invite
        line = await dial(self._network.reactor, invite.host, invite.port, invite.pin)
        assigned = await self.ask(line, Assign(1))
        assert isinstance(assigned, Assigned), assigned
        line.close()
        await line.ended
        return assigned.service, assigned.lease

    async def login(self) -> Ready:
        service, lease = await self.place()
        line = await dial(self._network.reactor, service.host, service.port, self._network.invite.pin)
        welcome = await self.ask(line, Hello(1, 1, lease))
        assert isinstance(welcome, Welcome), welcome
        ready = await self.ask(line, self.device.login(line.binding.exporter, welcome.challenge))
        assert isinstance(ready, Ready), ready
        self.service, self._line = welcome.service, line
        return ready

    async def logout(self) -> None:
        line, self._line = self._line, None
        if line is not None:
            line.close()
            await line.ended


class Member:
    """The real client: vault, core and connection, on one network. `further`: one more device of an account that has
    joined, not its first one."""

    def __init__(
        self, network: RunningNetwork, user: str, random: Random, login: str = "", *, further: bool = False
    ) -> None:
        self.user = user
        self._enrolment: Enrolment | None = None
        self.root_number = sum(user.encode()) % 4
        self.host, self.port, self.pin = network.invite.host, network.invite.port, network.invite.pin
        self.services: Sequence[ServiceAddress] = ()
        self.service = ""
        self.events: list[Event] = []
        self.texts: dict[str, list[str]] = defaultdict(list)
        """By sender: what was shown, in order."""
        self.states: dict[str, State] = {}
        """By message id."""
        self.online = False
        self._random = random
        self._reactor = network.reactor
        self._home = Path(tempfile.mkdtemp(prefix=f"{user}-", dir=network.config.home))
        self._key = os.urandom(32)
        vault = Vault.create(self._home / "vault.db", self._key)
        invite = network.invite
        login = login or f"password of {user}"
        root, at = root_key(self.root_number), 1_700_000_000_000
        if further:
            self._enrolment = Enrolment(root, login)
            prepare_enrolment(vault, user, root, invite.log_key, at)
        else:
            prepare_registration(vault, user, root, invite.log_key, invite.token, login, at)
        vault.close()

    def remember(self, services: Sequence[ServiceAddress]) -> None:
        self.services = services

    def start(self) -> None:
        """Open the vault as a program that starts does, and connect."""
        self.vault = Vault.open(self._home / "vault.db", self._key)
        self.core = Core(self.vault, enrolment=self._enrolment)
        self.connection = self._make_connection()
        self.online = True
        self.connection.start()

    def _make_connection(self) -> Connection:
        return Connection(self.core, self, self._reactor, self._random, self._tell)

    async def stop(self) -> None:
        """Leave as a program that ends does."""
        if self.online:
            self.online = False
            await self.connection.stop()
            self.vault.close()

    def send(self, to: str, text: str) -> str:
        message_id = self.core.send_text(to, text)
        self.connection.flush()
        return message_id

    async def connected(self) -> None:
        await until(self._reactor, lambda: self.core.ready)

    def _tell(self, events: list[Event]) -> None:
        self.events += events
        for event in events:
            match event:
                case Connected():
                    self.service = event.service
                case MessageReceived():
                    self.texts[event.sender].append(event.text)
                case MessageState():
                    self.states[event.id] = event.state


async def all_of(coroutines: Sequence[Any]) -> list[Any]:
    """Run them at the same time; their results, in order."""
    started = [Deferred.fromCoroutine(coroutine) for coroutine in coroutines]
    return [await deferred for deferred in started]
