"""Files, as the server hands them out: sessions on a `Clock`, over the rules and the store in memory."""

from __future__ import annotations

from typing import Any

from fastchat.errors import ProtocolError
from fastchat.protocols import wire
from fastchat.protocols.attachment_traffic import READ_AHEAD, READ_AHEAD_WHEN_SCARCE
from fastchat.protocols.session import FINISH_SECONDS
from fastchat.protocols.wire import CHUNK_SIZE
from tests.support.calling_files import FILE, OTHER, WINDOW, FilesCase, NarrowPeer, data


class Fetching(FilesCase):
    def setUp(self) -> None:
        super().setUp()
        self.uploads(self.online(self.alice), WINDOW)
        self.store.calls.clear()

    def test_one_chunk_at_a_time_when_the_connection_takes_it(self) -> None:
        bob = self.online(self.bob, NarrowPeer)
        fetches = [self.fetch(bob, index) for index in range(5)]
        for fetch in fetches:
            bob.says(fetch)
        for count in range(1, 6):
            self.assertEqual(self.answered(bob), [fetch.id for fetch in fetches[:count]])
            bob.reads_on()
        self.assertEqual([one.data for one in bob.heard if isinstance(one, wire.WithBytes)], [*map(data, range(5))])

    def test_nothing_is_read_for_who_does_not_read(self) -> None:
        bob = self.online(self.bob, NarrowPeer)
        bob.is_writable = False
        bob.session.writable(False)
        for index in range(5):
            bob.says(self.fetch(bob, index))
        self.passes(10)
        self.assertEqual((self.store.calls["chunks"], self.place.attachments.held), (0, 0))
        bob.reads_on()
        self.assertEqual(len(self.answered(bob)), 1)

    def test_so_much_is_read_ahead_and_again_when_half_of_it_has_gone(self) -> None:
        self.place.takes_files(chunks_in_flight=3 * READ_AHEAD)
        bob = self.online(self.bob, NarrowPeer)
        for index in range(3 * READ_AHEAD):
            bob.says(self.fetch(bob, index % WINDOW))
        held = []
        for _ in range(READ_AHEAD + 2):
            bob.reads_on()
            held.append(self.place.attachments.held // CHUNK_SIZE)
        half = READ_AHEAD // 2
        self.assertEqual(held, 2 * [*range(READ_AHEAD - 1, half - 1, -1)] + [READ_AHEAD - 1, READ_AHEAD - 2])

    def test_less_when_half_of_the_memory_is_taken(self) -> None:
        self.place.takes_files(memory=2 * (READ_AHEAD - 2) * CHUNK_SIZE)
        bob, carol = self.online(self.bob, NarrowPeer), self.online(self.carol, NarrowPeer)
        for peer in (bob, carol):
            for index in range(WINDOW):
                peer.says(self.fetch(peer, index))
            peer.reads_on()
        held = READ_AHEAD - 2 + READ_AHEAD_WHEN_SCARCE - 1
        self.assertEqual(self.place.attachments.held, held * CHUNK_SIZE)
        for peer in (bob, carol):
            peer.is_narrow = False
            peer.reads_on()
            self.assertEqual(len(self.answered(peer)), WINDOW)

    def test_a_message_goes_before_the_next_chunk(self) -> None:
        alice, bob = self.online(self.alice), self.online(self.bob, NarrowPeer)
        for index in range(3):
            bob.says(self.fetch(bob, index))
        alice.says(alice.send_to(1, self.bob.id))
        self.passes(1)
        before = len(bob.heard)
        bob.reads_on()
        self.assertEqual([type(one) for one in bob.heard[before:]], [wire.Message, wire.WithBytes])

    def test_answers_come_in_the_order_of_the_requests_the_refused_ones_too(self) -> None:
        bob = self.online(self.bob, NarrowPeer)
        bob.is_narrow = False
        self.store.held = True
        fetches = [self.fetch(bob, 0), self.fetch(bob, 0, OTHER), self.fetch(bob, WINDOW), self.fetch(bob, 1)]
        for fetch in fetches:
            self.assertEqual(bob.says(fetch), [])
        self.store.release()
        said = [one.message.re if isinstance(one, wire.WithBytes) else one.code for one in bob.heard[-4:]]
        self.assertEqual(said, [fetches[0].id, "unknown-attachment", "unknown-attachment", fetches[3].id])

    def test_who_is_gone_is_not_read_for(self) -> None:
        for way in ("hangs_up", "is ended"):
            bob, carol = self.online(self.bob), self.online(self.carol)
            self.store.held = True
            carol.says(self.fetch(carol, 0))
            for index in range(5):
                bob.says(self.fetch(bob, index))
            if way == "hangs_up":
                bob.hangs_up()
            else:
                bob.session.leave(0.0, "it stops")
                self.passes(FINISH_SECONDS)
            self.assertEqual(self.place.attachments.held, CHUNK_SIZE)
            self.store.calls.clear()
            self.store.release()
            self.assertEqual((self.store.calls["chunks"], self.answered(bob)), (0, []))
            self.assertEqual(len(self.answered(carol)), 1)

    def test_nor_for_whose_session_has_ended_and_who_reads_on(self) -> None:
        bob = self.online(self.bob, NarrowPeer)
        for index in range(3):
            bob.says(self.fetch(bob, index))
        bob.session.end(ProtocolError())
        self.store.calls.clear()
        bob.reads_on()
        self.assertEqual((self.store.calls["chunks"], len(self.answered(bob))), (0, 1))

    def test_what_many_ask_for_at_once_is_read_once(self) -> None:
        wanted: list[Any] = []
        chunks = self.place.memory.chunks

        def noted(pairs: Any) -> Any:
            wanted.append(list(pairs))
            return chunks(pairs)

        self.patch(self.place.memory, "chunks", noted)
        bob, carol = self.online(self.bob), self.online(self.carol)
        self.store.held = True
        carol.says(self.fetch(carol, 5))
        for index in (0, 1):
            for peer in (bob, carol):
                peer.says(self.fetch(peer, index))
        self.store.release()
        self.assertEqual(wanted, [[(FILE, 5)], [(FILE, 0), (FILE, 1)]])
        self.assertEqual((len(self.answered(bob)), len(self.answered(carol))), (2, 3))

    def test_one_who_asks_for_little_does_not_wait_for_one_who_asks_for_much(self) -> None:
        bob, carol = self.online(self.bob), self.online(self.carol)
        self.store.held = True
        for index in range(WINDOW):
            bob.says(self.fetch(bob, index))
        carol.says(self.fetch(carol, 0))
        self.store.step()
        self.store.step()
        self.assertEqual(len(self.answered(carol)), 1)
