"""A process with several clients, which the driver may kill at any moment: `python -m tests.chaos.worker <setup file>`.

Each client is the real thing: `Core`, `Vault`, `Connection`, real ratchets, RSA roots and prekeys. Only what would
make a short run long is left out: a profile's Argon2, and reconnects that wait for minutes. What a client shows is
appended to its journal, a line of JSON each; a `kill -9` between the vault's commit and the journal's line loses the
line, so the journal tells what was shown twice, out of order or out of nothing, but never what was lost.

Commands come as lines of JSON on standard input (`Command`), reports leave on standard output (`Report`).
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

import msgspec
from twisted.internet import reactor as installed
from twisted.internet.defer import Deferred
from twisted.internet.error import ReactorNotRunning
from twisted.internet.protocol import connectionDone
from twisted.internet.stdio import StandardIO
from twisted.internet.task import LoopingCall
from twisted.logger import Logger, globalLogBeginner, textFileLogObserver
from twisted.protocols.basic import LineReceiver
from twisted.python.failure import Failure

from fastchat.identity.invite import Invite
from fastchat.protocols.wire import ClientMessage, GroupSend, ServiceAddress
from fastchat_client.connection import Connection
from fastchat_client.core import Core
from fastchat_client.dial import Line, dial
from fastchat_client.events import (
    Disconnected,
    Event,
    GroupAlarm,
    MessageHeld,
    MessageReceived,
    MessageUnreadable,
    MessageWaiting,
    Notice,
    TransferFailed,
    TransferProgress,
)
from fastchat_client.joining import prepare_registration
from fastchat_client.vault import Vault
from tests.chaos.filing import Filing
from tests.chaos.orders import Command, Condition, Report, Setup
from tests.chaos.parties import Parties
from tests.chaos.talk import Talk
from tests.chaos.texts import GROUP
from tests.support.keys import root_key

reactor: Any = installed

REPORT_SECONDS = 0.5
FIRST_WAIT, LONGEST_WAIT = 0.5, 4.0
"""Seconds between reconnects, instead of up to five minutes."""
BEGIN_AGAIN_SECONDS = 2.0
"""After a connection that would not be tried again: a person who starts the program once more."""
MOST_WAITING = 200
"""Messages in the outbox of a client above which it says nothing new."""
TEND_SECONDS = 1.5
"""Between two looks at one's groups."""


def longest_wait(tries: int) -> float:
    return min(FIRST_WAIT * 2.0**tries, LONGEST_WAIT)


class JournalingCore(Core):
    """Notes what is about to leave for a group, and by which length of its chain: of what is encrypted once more, its
    vault only has the last."""

    write: Callable[[dict[str, str | int]], None]

    def take_messages(self) -> list[ClientMessage]:
        messages = super().take_messages()
        for message in messages:
            if isinstance(message, GroupSend):
                self.write({"went": message.n, "length": message.length})
        return messages


class Client:
    """One client. It is made on its vault, and goes on- and offline."""

    log = Logger()

    def __init__(self, worker: Worker, user: str) -> None:
        setup = worker.setup
        directory = Path(setup.directory)
        self.user = user
        self.shown = 0
        self._worker = worker
        self._vault = Vault.open(directory / f"{user}.vault", bytes.fromhex(setup.keys[user]))
        self._core = JournalingCore(self._vault, outgoing=directory / f"{user}.outgoing")
        self._core.write = self._write
        self._journal = os.open(directory / f"{user}.journal", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._write({"started": 1})
        self._talk = Talk(self._vault, user, setup.everybody, setup.seed)
        self._parties = Parties(self._core, user, setup.parties, setup.seed)
        folder = directory / f"{user}.files"
        self._filing = Filing(self._core, user, setup.everybody, folder, setup.seed, self._write, reactor)
        self._random = Random(f"{setup.seed} {user} connection")
        self._connection: Connection | None = None
        self._line: Line | None = None
        self._stopping: Connection | None = None
        invite = Invite.parse(setup.link)
        self.host, self.port, self.pin = invite.host, invite.port, invite.pin
        self.services: Sequence[ServiceAddress] = ()

    # --- fastchat_client.connection.Network ------------------------------------------------------------------------

    def remember(self, services: Sequence[ServiceAddress]) -> None:
        self.services = services

    def _dial(self, reactor: Any, host: str, port: int, pin: bytes) -> Deferred[Line]:
        def keep(line: Line) -> Line:
            self._line = line
            return line

        return dial(reactor, host, self._worker.setup.ports[port], pin).addCallback(keep)

    # --- what the driver asks ----------------------------------------------------------------------------------------

    def online(self) -> None:
        if self._connection is None:
            connection = self._connection = Connection(
                self._core, self, reactor, self._random, self._tell, self._dial, longest_wait
            )
            if self._stopping is None:
                connection.start()

    async def offline(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            self._stopping = connection
            await connection.stop()
            self._stopping = None
            if self._connection is not None:  # asked for meanwhile
                self._connection.start()

    def deafen(self, seconds: float) -> None:
        """Read nothing for a while."""
        line = self._line
        if line is not None and not line.ended.called:
            line.read_on(False)
            reactor.callLater(seconds, _read_on, line)

    async def stop(self) -> None:
        await self._filing.stop()
        await self.offline()
        self._vault.close()
        os.close(self._journal)

    @property
    def condition(self) -> Condition:
        [waiting] = self._vault.execute("SELECT COUNT(*) FROM outbox WHERE state < 2").fetchone()
        is_ready = self._core.ready and self._connection is not None
        return Condition(
            is_ready, waiting, self._parties.unsettled + self._filing.unsettled, self._talk.said, self.shown
        )

    # --- talking -----------------------------------------------------------------------------------------------------

    def talk(self) -> None:
        """Say something, and again after a while, for as long as the worker's clients talk."""
        if self._worker.talking:
            reactor.callLater(self._talk.pause(), self.talk)
            if self._vault.waiting() < MOST_WAITING:
                for recipient, text in self._talk.burst(self._parties.joined):
                    self._core.send_text(recipient, text)
                    self._write({"sent": text})
            if self._talk.looks_up():
                for conversation in self._vault.conversations():
                    if conversation.unread:
                        self._core.mark_read(conversation.user)
            self._parties.churn()
            if self._worker.setup.files:
                Deferred.fromCoroutine(self._filing.send(self._parties.joined)).addErrback(self._worker.failed)
            if self._connection is not None:
                self._connection.flush()

    def gather(self) -> None:
        """See to one's groups, and to files that have come."""
        self._parties.tend()
        self._filing.tend()
        if self._connection is not None:
            self._connection.flush()

    def _tell(self, events: list[Event]) -> None:
        for event in events:
            match event:
                case MessageReceived(file=file) if file is not None:
                    self._write({"file": event.text})
                case MessageReceived():
                    self.shown += 1
                    entry: dict[str, str | int] = {"shown": event.text, "from": event.sender, "id": event.id}
                    if event.conversation.startswith(GROUP):
                        entry["in"] = event.conversation
                    self._write(entry)
                case MessageUnreadable():
                    self._write({"unreadable": event.reason, "from": event.sender})
                    self._note(f"could not read {event.id} of {event.sender}: {event.reason}")
                case MessageHeld():
                    self.log.info("{user} holds {id}: {reason}", user=self.user, id=event.id, reason=event.reason)
                case MessageWaiting():
                    self._write({"waits": event.id, "from": event.sender})
                case TransferFailed():
                    self._filing.failed(event)
                case TransferProgress():
                    pass
                case GroupAlarm():
                    self._note(f"{event.code}: {event.reason}")
                case Notice():
                    self._note(f"{event.code}: {event.text}")
                case Disconnected(retry_in=None):
                    self._note(f"would not connect again: {event.code}")
                    reactor.callLater(BEGIN_AGAIN_SECONDS, self._begin_again)
                case _:
                    self.log.info("{user}: {event}", user=self.user, event=event)

    def _write(self, entry: dict[str, str | int]) -> None:
        os.write(self._journal, json.dumps(entry).encode() + b"\n")

    def _begin_again(self) -> None:
        if self._connection is not None:
            self._connection.hurry()

    def _note(self, what: str) -> None:
        self._worker.report(Report(note=f"{self.user}: {what}"))


def _read_on(line: Line) -> None:
    if not line.ended.called:
        line.read_on(True)


class Worker(LineReceiver):
    """All clients of the process, and the talk with the driver. Without a driver there is nothing to do."""

    log = Logger()
    delimiter = b"\n"

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.talking = False
        self._clients: dict[str, Client] = {}
        self._reporting = LoopingCall(self._report_all)
        self._gathering = LoopingCall(self._gather_all)

    def connectionMade(self) -> None:
        self._prepare()
        self.report(Report(prepared=True))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        try:
            reactor.stop()
        except ReactorNotRunning:
            self.log.debug("stopping already")

    def lineReceived(self, line: bytes) -> None:
        command = msgspec.json.decode(line, type=Command)
        match command.do:
            case "start":
                self._start(command)
            case "talk":
                self._let_talk(command.on)
            case "gather":
                self._gather()
            case "offline":
                self._watch(self._clients[command.user].offline())
            case "online":
                self._clients[command.user].online()
            case "deafen":
                self._clients[command.user].deafen(command.seconds)
            case "stop":
                self._watch(self._stop())

    def report(self, report: Report) -> None:
        self.sendLine(msgspec.json.encode(report))

    def _prepare(self) -> None:
        """The vaults of the clients that have none yet, as `fastchat join` leaves them before it connects."""
        invite = Invite.parse(self.setup.link)
        for user, key in self.setup.keys.items():
            path = Path(self.setup.directory) / f"{user}.vault"
            if not path.exists():
                vault = Vault.create(path, bytes.fromhex(key))
                now = int(time.time() * 1000)
                password = f"password of {user}"
                prepare_registration(vault, user, root_key(0), invite.log_key, invite.token, password, now)
                vault.close()

    def _start(self, command: Command) -> None:
        for user in self.setup.keys:
            client = self._clients[user] = Client(self, user)
            if user not in command.users:
                client.online()
        self._let_talk(command.on)
        if command.gathers:
            self._gather()
        self._reporting.start(REPORT_SECONDS).addErrback(self.failed)

    def _let_talk(self, on: bool) -> None:
        if on and not self.talking:
            for client in self._clients.values():
                reactor.callLater(0, client.talk)
        self.talking = on

    def _gather(self) -> None:
        if not self._gathering.running:
            self._gathering.start(TEND_SECONDS).addErrback(self.failed)

    def _gather_all(self) -> None:
        for client in self._clients.values():
            client.gather()

    def _report_all(self) -> None:
        self.report(Report(clients={user: client.condition for user, client in self._clients.items()}))

    async def _stop(self) -> None:
        self.talking = False
        if self._gathering.running:
            self._gathering.stop()
        for client in self._clients.values():
            await client.offline()
        self._report_all()
        self._reporting.stop()
        for client in self._clients.values():
            await client.stop()
        self.report(Report(stopped=True))

    def _watch(self, coroutine: Any) -> None:
        Deferred.fromCoroutine(coroutine).addErrback(self.failed)

    def failed(self, failure: Failure) -> None:
        self.log.failure("the worker failed", failure)


def apply_mutant(name: str, side: str) -> None:
    """Be this mutant, if it is one of this side."""
    from tests.chaos.mutants import MUTANTS, apply

    if MUTANTS[name].side == side:
        apply(name)


def main(arguments: Sequence[str]) -> None:
    setup = msgspec.json.decode(Path(arguments[0]).read_bytes(), type=Setup)
    log = (Path(setup.directory) / f"worker-{setup.number}.log").open("a", encoding="utf-8")
    globalLogBeginner.beginLoggingTo([textFileLogObserver(log)], redirectStandardIO=False)
    if setup.mutant:
        apply_mutant(setup.mutant, "client")
    StandardIO(Worker(setup))
    reactor.run()


if __name__ == "__main__":
    main(sys.argv[1:])
