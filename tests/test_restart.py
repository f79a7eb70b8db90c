"""Stops and restarts on the real network: five services restarted one after the other while people talk, and twistd
stopped under load, also with a PostgreSQL that does not answer."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from random import Random
from typing import Any

import psutil
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from fastchat.config import OPERATIONS_OFFSET
from fastchat.errors import Unreachable
from fastchat.identity.invite import Invite
from fastchat.protocols.wire import Hello
from fastchat_client.dial import dial
from fastchat_client.events import Disconnected, Event, Moving, Notice, State
from tests.support.running import Member, RunningNetwork, all_of, until

CHECKOUT = Path(__file__).parent.parent
TWISTD = Path(sys.executable).with_name("twistd")
PATIENCE = 90
"""Seconds after which a process that should have ended is a failure. That it takes 10 s at most, whatever happens, is
what test_drain holds the constants to; this machine may be busy."""


def problems(member: Member) -> list[Event]:
    """What a face would show as an error."""
    return [event for event in member.events if isinstance(event, Disconnected | Notice)]


def is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


class Talk:
    """Members who write to each other all the time."""

    def __init__(self, members: list[Member], random: Random) -> None:
        self.members = members
        self.ids: list[tuple[Member, str]] = []
        self.said: dict[tuple[str, str], list[str]] = {}
        self._random = random

    def some(self, count: int = 5) -> None:
        for _ in range(count):
            one, other = self._random.sample(self.members, 2)
            texts = self.said.setdefault((one.user, other.user), [])
            texts.append(f"{len(texts)}")
            self.ids.append((one, one.send(other.user, texts[-1])))

    @property
    def is_heard(self) -> bool:
        people = {member.user: member for member in self.members}
        return all(len(people[to].texts[by]) >= len(texts) for (by, to), texts in self.said.items())

    @property
    def heard(self) -> dict[tuple[str, str], list[str]]:
        return {
            (by, member.user): texts for member in self.members for by, texts in member.texts.items() if by and texts
        }


def free_ports() -> int:
    """A port that is free, with all that a network takes after it: the same ones are wanted twice."""
    while True:
        port = random.randrange(30_000, 31_300)
        with contextlib.suppress(OSError), contextlib.ExitStack() as taken:
            for each in (*range(port, port + 6), port + OPERATIONS_OFFSET):
                taken.enter_context(socket.create_server(("127.0.0.1", each)))
            return port


class RollingRestart(TestCase):
    """Worth its seconds: the one test in which real clients move between real services."""

    timeout = 300

    async def test_all_five_while_twenty_people_talk(self) -> None:
        chance = Random(5)
        network = await RunningNetwork.start(self)
        members = [Member(network, f"member{number}", chance) for number in range(20)]
        for member in members:
            self.addCleanup(member.stop)
            member.start()
        await all_of([member.connected() for member in members])
        for member in members:
            member.events.clear()
        ports = [service.port for service in network.status.services]
        talk = Talk(members, chance)
        talk.some(40)
        network.service.restart_services()
        network.service.restart_services()  # once is enough
        while network.service._restarting is not None:
            talk.some()
            await deferLater(network.reactor, 0.05)
        talk.some(40)
        await until(network.reactor, lambda: talk.is_heard, patience=120)
        await until(network.reactor, lambda: all(one.states.get(i) == State.DELIVERED for one, i in talk.ids), 120)
        self.assertEqual(talk.heard, talk.said, "nothing lost, nothing twice, all in order")
        self.assertEqual([problems(member) for member in members], [[]] * 20)
        self.assertTrue(all(any(isinstance(event, Moving) for event in member.events) for member in members))
        self.assertEqual([service.port for service in network.status.services], ports)
        self.assertTrue(all(service.open for service in network.status.services))
        self.assertEqual(sum(network.sessions), 20)
        self.assertEqual(self.flushLoggedErrors(), [])

    async def test_nobody_keeps_a_service_from_its_end(self) -> None:
        """Who says nothing, half a handshake, or does not read."""
        network = await RunningNetwork.start(self)
        chat = network.service.chats[0]
        port = network.running.services[0]
        members = [Member(network, name, Random(1)) for name in ("alice", "bob")]
        for member in members:
            self.addCleanup(member.stop)
            member.start()
        await all_of([member.connected() for member in members])
        silent = [socket.create_connection(("127.0.0.1", port)) for _ in range(3)]
        for each in silent:
            self.addCleanup(each.close)
        silent[1].sendall(b"\x16\x03\x01\x02\x00\x01\x00")
        deaf = await dial(network.reactor, "127.0.0.1", port, network.invite.pin)
        self.addCleanup(deaf.fail, Unreachable())
        deaf.send(Hello(1, 1, ""))
        deaf.read_on(False)
        await until(network.reactor, lambda: chat.sessions > 0 and len(chat._open) > 1)
        await chat.drain()
        self.assertEqual(chat._open, set())
        self.assertEqual([problems(member) for member in members], [[], []])
        with self.assertRaises(OSError):
            socket.create_connection(("127.0.0.1", port))

    async def test_it_is_stopped_in_the_middle_of_one(self) -> None:
        network = await RunningNetwork.start(self)
        members = [Member(network, name, Random(1)) for name in ("alice", "bob", "carol")]
        for member in members:
            self.addCleanup(member.stop)
            member.start()
        await all_of([member.connected() for member in members])
        network.service.restart_services()
        await deferLater(network.reactor, 0.01)
        await network.service.stopService()
        self.assertIsNone(network.service._restarting)
        self.assertEqual([chat._open for chat in network.service.chats], [set()] * 5)
        self.assertEqual([chat._listening for chat in network.service.chats], [None] * 5)


class Twistd(TestCase):
    """The process itself. Each of these starts a PostgreSQL of its own, which takes some seconds."""

    timeout = 300

    def setUp(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="fastchat-tests-"))
        self.folder.chmod(0o711)
        self.addCleanup(shutil.rmtree, self.folder, True)
        self.home = self.folder / "home"
        self.stopped: list[psutil.Process] = []
        self.addCleanup(self.killed)
        self.process: subprocess.Popen[str] | None = None
        self.port = free_ports()

    def start(self) -> None:
        """Until its screenful is there."""
        config = self.folder / "fastchat.toml"
        config.write_text("[limits]\nsends_per_second = 1000.0\nsends_burst = 1000\n")
        environ = {name: value for name, value in os.environ.items() if not name.startswith("FASTCHAT_")}
        environ |= {"FASTCHAT_HOME": str(self.home), "FASTCHAT_PORT": str(self.port), "FASTCHAT_CONFIG": str(config)}
        self.process = subprocess.Popen(
            [str(TWISTD), "--pidfile=", "-ny", "fastchat.tac"],
            cwd=CHECKOUT,
            env=environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        assert self.process.stdout is not None
        self.screen = ""
        for line in self.process.stdout:
            self.screen += line
            if line.startswith("Ctrl-C"):
                return
        self.fail(self.screen)

    def end(self, process: subprocess.Popen[str]) -> tuple[int, str]:
        """Its exit code, and what it said."""
        rest, _ = process.communicate(timeout=PATIENCE)
        return process.returncode, rest

    def killed(self) -> None:
        for process in self.stopped:
            if is_alive(process):
                process.kill()
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.communicate()

    def postgres(self) -> list[psutil.Process]:
        """The postmaster and its backends."""
        pid = int((self.home / "postgres" / "data" / "postmaster.pid").read_text().splitlines()[0])
        postmaster = psutil.Process(pid)
        return [postmaster, *postmaster.children(recursive=True)]

    async def members(self, *names: str) -> list[Member]:
        from twisted.internet import reactor

        self.reactor: Any = reactor
        found = [Member(self.place(), name, Random(3)) for name in names]
        for member in found:
            self.addCleanup(member.stop)
            member.start()
        await all_of([member.connected() for member in found])
        for member in found:
            member.events.clear()
        return found

    def place(self) -> Any:
        """As much of a `RunningNetwork` as a `Member` wants to know."""

        class Place:
            invite = Invite.parse((self.home / "invite").read_text().strip())
            reactor = self.reactor

            class config:
                home = self.folder

        return Place

    async def talking(self, talk: Talk, ending: Any) -> Any:
        while not ending.called:
            talk.some(3)
            await deferLater(self.reactor, 0.02)
        return await ending

    async def test_sigterm_under_load_and_back(self) -> None:
        """It ends with code 0; its clients wait for it to come back, and show no error."""
        await deferToThread(self.start)
        assert self.process is not None
        members = await self.members("alice", "bob", "carol", "dave")
        talk = Talk(members, Random(4))
        talk.some(50)
        self.process.send_signal(signal.SIGTERM)
        code, rest = await self.talking(talk, deferToThread(self.end, self.process))
        self.assertEqual((code, rest), (0, ""))
        await deferToThread(self.start)
        await until(self.reactor, lambda: talk.is_heard, PATIENCE)
        self.assertEqual(talk.heard, talk.said)
        self.assertEqual([problems(member) for member in members], [[]] * 4)
        self.process.send_signal(signal.SIGTERM)
        self.assertEqual((await deferToThread(self.end, self.process))[0], 0)

    async def test_sigterm_while_postgresql_is_stopped(self) -> None:
        await deferToThread(self.start)
        assert self.process is not None
        alice, bob = await self.members("alice", "bob")
        first = alice.send("bob", "first")
        await until(self.reactor, lambda: alice.states.get(first) in (State.ACCEPTED, State.DELIVERED))
        await bob.stop()
        self.stopped = self.postgres()
        for process in self.stopped:
            process.suspend()
        late = [alice.send("bob", f"late {number}") for number in range(5)]
        await deferLater(self.reactor, 0.1)
        self.process.send_signal(signal.SIGTERM)
        code, _ = await deferToThread(self.end, self.process)
        self.assertEqual(code, 0)
        await until(self.reactor, lambda: not any(map(is_alive, self.stopped)), PATIENCE)
        self.assertEqual({alice.vault.state_of(message) for message in late}, {"waiting"}, "and nothing is lost")

    async def test_sighup_restarts_the_services(self) -> None:
        await deferToThread(self.start)
        assert self.process is not None
        members = await self.members("alice", "bob")
        talk = Talk(members, Random(4))
        self.process.send_signal(signal.SIGHUP)
        log = self.home / "log" / "fastchat.log"
        while "all chat services were restarted" not in log.read_text():
            talk.some(2)
            await deferLater(self.reactor, 0.05)
        await until(self.reactor, lambda: talk.is_heard, PATIENCE)
        self.assertEqual(talk.heard, talk.said)
        self.assertEqual([problems(member) for member in members], [[], []])
        self.process.send_signal(signal.SIGTERM)
        self.assertEqual((await deferToThread(self.end, self.process))[0], 0)
