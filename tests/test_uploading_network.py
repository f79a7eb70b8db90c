"""Files between real clients over the real network: TLS, five services, PostgreSQL."""

from __future__ import annotations

import os
from pathlib import Path
from random import Random

from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from fastchat.protocols.wire import ClientMessage, WithBytes
from fastchat_client import files, uploads
from fastchat_client.attaching import Attaching
from fastchat_client.attachment_cipher import PIECE
from fastchat_client.events import FileSaved, FileSent, MessageReceived
from tests.support.running import Member, RunningNetwork, all_of, until

CHUNKS = 80


def watch(member: Member) -> list[int]:
    """The index of every chunk that it sends from here on."""
    sent: list[int] = []
    next_chunk = member.core.next_chunk

    def watched() -> ClientMessage | WithBytes | None:
        message = next_chunk()
        if isinstance(message, WithBytes):
            sent.append(message.message.index)  # type: ignore[union-attr]
        return message

    member.core.next_chunk = watched  # type: ignore[method-assign]
    return sent


class Uploads(TestCase):
    timeout = 120

    async def test_it_goes_on_after_its_service_is_killed_and_its_client_started_again(self) -> None:
        """Worth its few seconds: nothing else has a real transport between a file and the disk of PostgreSQL."""
        network = await RunningNetwork.start(self)
        alice, bob = Member(network, "alice", Random(1)), Member(network, "bob", Random(2))
        for member in (alice, bob):
            member.start()
            self.addCleanup(member.stop)
        await all_of([alice.connected(), bob.connected()])
        data = os.urandom(CHUNKS * PIECE - 5)
        path = Path(network.config.home) / "film.bin"
        path.write_bytes(data)
        sent = [watch(alice)]
        attaching = Attaching(alice.vault, alice.core.outgoing, network.reactor, alice.core.compose)
        attachment = await Deferred.fromCoroutine(
            attaching.attach("bob", path, "the film", False, "", lambda done, size: None)
        )
        path.unlink()  # it is read once
        alice.connection.flush()
        alice.send("bob", "a file is coming")
        await until(network.reactor, lambda: len(sent[0]) > CHUNKS // 4)
        await network.kill_service(int(alice.service.rpartition("-")[2]) - 1)
        await until(network.reactor, lambda: not alice.core.ready)
        await until(network.reactor, lambda: alice.core.ready and len(sent[0]) > CHUNKS // 2)
        await alice.stop()
        alice.start()
        sent.append(watch(alice))
        await until(network.reactor, lambda: any(isinstance(event, FileSent) for event in alice.events))
        await until(network.reactor, lambda: bob.texts["alice"] == ["a file is coming", "the film"])
        self.assertEqual(uploads.attachments(alice.vault), [])
        # What was on its way when a connection ended may have to go again, and nothing else.
        self.assertLessEqual(len(sent[0]) + len(sent[1]), CHUNKS + 2 * network.config.attachments.chunks_in_flight)
        message = files.message_with(alice.vault, attachment)
        (received,) = [event for event in bob.events if isinstance(event, MessageReceived) and event.file]
        self.assertEqual(received.id, message)
        bob.core.fetch(message, network.config.home)
        bob.connection.flush()
        await until(network.reactor, lambda: any(isinstance(event, FileSaved) for event in bob.events))
        self.assertEqual(path.read_bytes(), data)
