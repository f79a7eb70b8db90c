"""A file over the real network: TLS, PostgreSQL, threads; the service killed and the client stopped in the middle."""

from __future__ import annotations

import os
from pathlib import Path
from random import Random

from twisted.trial.unittest import TestCase

from fastchat_client import files
from fastchat_client.attachment_cipher import PIECE
from fastchat_client.events import FileSaved, MessageReceived, TransferFailed
from tests.support.attaching import attach
from tests.support.running import Member, RunningNetwork, until

DATA = os.urandom(32 * 2**20 + 77)
"""More than what is hashed at a stretch, so that hashing and fetching go on at the same time."""


class Network(TestCase):
    """Worth its seconds: everything else about downloads is tested without sockets, threads and TLS."""

    timeout = 240

    async def setUp(self) -> None:
        from twisted.internet import reactor

        self.reactor = reactor
        self.network = await RunningNetwork.start(self)
        self.alice, self.bob = (Member(self.network, name, Random(5)) for name in ("alice", "bob"))
        for member in (self.alice, self.bob):
            member.start()
            self.addCleanup(member.stop)
            await member.connected()
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()

    async def brought(self) -> str:
        attach(self.alice.core, "bob", DATA)
        self.alice.connection.flush()
        await until(self.reactor, lambda: any(isinstance(event, MessageReceived) for event in self.bob.events))
        return next(event.id for event in self.bob.events if isinstance(event, MessageReceived))

    async def some_of_it(self) -> int:
        """How much of it there is, once there is any."""

        def length() -> int:
            return max((path.stat().st_size for path in self.folder.iterdir()), default=0)

        await until(self.reactor, lambda: length() > 5 * PIECE)
        self.assertEqual([path.suffix for path in self.folder.iterdir()], [".part"])
        return length()

    async def is_saved(self) -> None:
        await until(self.reactor, lambda: any(isinstance(event, FileSaved) for event in self.bob.events))
        await until(self.reactor, lambda: not files.leftovers(self.bob.vault))
        self.assertEqual([path.name for path in self.folder.iterdir()], ["notes.txt"])
        self.assertTrue((self.folder / "notes.txt").read_bytes() == DATA)
        self.assertEqual([event for event in self.bob.events if isinstance(event, TransferFailed)], [])

    async def test_the_service_is_killed_and_the_client_stopped_in_the_middle(self) -> None:
        message = await self.brought()
        self.bob.core.fetch(message, self.folder)
        self.bob.connection.flush()
        first = await self.some_of_it()
        await self.network.kill_service(int(self.bob.service.rpartition("-")[2]) - 1)
        await until(self.reactor, lambda: not self.bob.core.ready)
        await self.bob.connected()
        second = await self.some_of_it()
        self.assertGreaterEqual(second, first - PIECE)
        await self.bob.stop()
        (part,) = self.folder.iterdir()
        self.assertGreaterEqual(part.stat().st_size, second)
        self.bob.events.clear()
        self.bob.start()
        await self.is_saved()
        self.assertEqual(self.bob.core.transfers(), [])
