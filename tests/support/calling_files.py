"""Sessions that send and fetch files, in memory on a `Clock`: what they say of chunks, and what they hear."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastchat.protocols import wire
from fastchat.protocols.wire import CHUNK_SIZE
from tests.support.calling import Peer, SessionCase
from tests.support.delivery import now
from tests.support.people import OwnDevice

FILE, OTHER = "f1" * 16, "f2" * 16
WINDOW = 16
"""Chunks of one session without an answer: a batch of the store."""


def data(index: int, what: str = "chunk") -> bytes:
    return f"{what} {index}\n".encode().ljust(CHUNK_SIZE, b"\n")


class NarrowPeer(Peer):
    """A connection that has had enough after each chunk, as a real one of which nobody reads at the moment."""

    is_narrow = True

    def send(self, message: Any) -> None:
        super().send(message)
        if isinstance(message, wire.WithBytes) and self.is_narrow:
            self.is_writable = False
            self.session.writable(False)

    def reads_on(self) -> None:
        self.is_writable = True
        self.session.writable(True)


class FilesCase(SessionCase):
    def setUp(self) -> None:
        super().setUp()
        self.store = self.place.store
        self.peers: list[Peer] = []
        self.addCleanup(self.nothing_is_held)

    def online(self, device: OwnDevice, kind: type[Peer] = Peer) -> Any:
        peer = kind(self.place)
        peer.logs_in(device)
        self.peers.append(peer)
        return peer

    def nothing_is_held(self) -> None:
        for peer in self.peers:
            peer.hangs_up()
        self.store.release()
        now(self.place.attachments.stop())
        self.assertEqual(self.place.attachments.held, 0)

    def attach(self, peer: Peer, chunks: int, file: str = FILE) -> Sequence[tuple[int, int]]:
        return peer.asks(wire.Attach(peer.next_id(), file, chunks), wire.Attached).missing

    def chunk(self, peer: Peer, index: int, file: str = FILE, what: str = "chunk") -> wire.WithBytes:
        return wire.WithBytes(wire.Chunk(peer.next_id(), file, index), data(index, what))

    def stores(self, peer: Peer, index: int, file: str = FILE, what: str = "chunk") -> None:
        chunk = self.chunk(peer, index, file, what)
        self.assertEqual(peer.says(chunk), [wire.ChunkStored(chunk.message.id)])  # type: ignore[union-attr]

    def refused(self, peer: Peer, message: Any) -> str:
        """By which code."""
        request = message.message if isinstance(message, wire.WithBytes) else message
        [error] = peer.says(message)
        self.assertIsInstance(error, wire.Error)
        self.assertEqual(error.re, request.id)
        return str(error.code)

    def fetch(self, peer: Peer, index: int, file: str = FILE) -> wire.Fetch:
        return wire.Fetch(peer.next_id(), file, index)

    def fetched(self, peer: Peer, index: int, file: str = FILE) -> bytes:
        fetch = self.fetch(peer, index, file)
        [answer] = peer.says(fetch)
        self.assertIsInstance(answer, wire.WithBytes)
        self.assertEqual(answer.message, wire.ChunkAnswer(fetch.id))
        return bytes(answer.data)

    def uploads(self, peer: Peer, chunks: int, file: str = FILE) -> None:
        self.attach(peer, chunks, file)
        for index in range(chunks):
            self.stores(peer, index, file)

    def answered(self, peer: Peer) -> list[int]:
        """The numbers of the fetches that were, in this order."""
        return [one.message.re for one in peer.heard if isinstance(one, wire.WithBytes)]

    def stored(self, peer: Peer) -> int:
        return sum(isinstance(one, wire.ChunkStored) for one in peer.heard)
