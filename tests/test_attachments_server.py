"""Files, as the server takes and keeps them: sessions on a `Clock`, over the rules and the store in memory."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from fastchat.attachments import PIECE_SIZE, SWEEP_SECONDS
from fastchat.protocols import wire
from fastchat.protocols.session import FINISH_SECONDS
from fastchat.protocols.wire import CHUNK_SIZE
from tests.support.calling_files import FILE, OTHER, WINDOW, FilesCase, data
from tests.support.delivery import now

DAY = 86_400.0


class Uploading(FilesCase):
    def test_a_file_is_whole_once_each_of_its_chunks_is_stored(self) -> None:
        alice, bob = self.online(self.alice), self.online(self.bob)
        self.assertEqual(self.attach(alice, 4), ((0, 4),))
        for index in (1, 3):
            self.stores(alice, index)
        self.assertEqual(self.attach(alice, 4), ((0, 1), (2, 3)))
        self.assertEqual(self.refused(bob, self.fetch(bob, 1)), "unknown-attachment")
        for index in (2, 0):
            self.stores(alice, index)
        self.assertEqual(self.attach(alice, 4), ())
        self.assertEqual([self.fetched(bob, index) for index in range(4)], [data(index) for index in range(4)])

    def test_the_same_chunk_again_changes_nothing(self) -> None:
        alice = self.online(self.alice)
        self.attach(alice, 1)
        self.stores(alice, 0)
        self.stores(alice, 0, what="another")
        self.assertEqual(self.fetched(alice, 0), data(0))

    def test_what_was_never_begun_or_has_no_such_chunk_or_is_somebody_elses(self) -> None:
        alice, bob = self.online(self.alice), self.online(self.bob)
        self.attach(alice, 2)
        for peer, file, index in ((alice, OTHER, 0), (alice, FILE, 2), (bob, FILE, 0)):
            self.assertEqual(self.refused(peer, self.chunk(peer, index, file)), "unknown-attachment")
        self.assertEqual(self.attach(alice, 2), ((0, 2),))
        self.stores(alice, 1)

    def test_an_id_that_is_taken_or_has_another_number_of_chunks(self) -> None:
        alice, bob = self.online(self.alice), self.online(self.bob)
        self.attach(alice, 2)
        self.assertEqual(self.refused(bob, wire.Attach(bob.next_id(), FILE, 2)), "bad-request")
        self.assertEqual(self.refused(alice, wire.Attach(alice.next_id(), FILE, 3)), "bad-request")
        self.assertEqual(self.attach(alice, 2), ((0, 2),))

    def test_a_file_of_the_greatest_size_passes_and_one_byte_more_does_not(self) -> None:
        for largest in (3 * PIECE_SIZE, 2 * PIECE_SIZE + 1):
            self.place.takes_files(largest=largest)
            alice = self.online(self.alice)
            self.assertEqual(self.refused(alice, wire.Attach(alice.next_id(), OTHER, 4)), "attachment-too-large")
            self.assertEqual(self.attach(alice, 3), ((0, 3),))

    def test_an_account_has_its_quota(self) -> None:
        self.place.takes_files(quota=3 * CHUNK_SIZE)
        alice, bob = self.online(self.alice), self.online(self.bob)
        self.attach(alice, 2)
        self.assertEqual(self.refused(alice, wire.Attach(alice.next_id(), OTHER, 2)), "quota-exceeded")
        self.assertEqual(self.attach(bob, 2, OTHER), ((0, 2),))
        alice.asks(wire.Detach(alice.next_id(), FILE), wire.AttachmentDone)
        self.assertEqual(self.attach(alice, 3), ((0, 3),))

    def test_the_limits_are_told(self) -> None:
        self.place.takes_files(largest=5000, chunks_in_flight=3)
        limits = self.peer().greets().limits
        self.assertEqual((limits.largest_attachment, limits.chunks), (5000, 3))

    def test_bytes_are_taken_from_whoever_has_logged_in(self) -> None:
        alice = self.peer()
        alice.greets()
        self.assertFalse(alice.takes_bytes)
        alice.says(alice.login(self.alice))
        self.assertTrue(alice.takes_bytes)

    def test_a_window_of_chunks_and_fetches_may_be_unanswered(self) -> None:
        alice = self.online(self.alice)
        self.attach(alice, WINDOW + 2)
        self.store.held = True
        for index in range(WINDOW - 1):
            self.assertEqual(alice.says(self.chunk(alice, index)), [])
        self.assertEqual(alice.says(self.fetch(alice, 0)), [])
        for message in (self.chunk(alice, WINDOW), self.fetch(alice, 1)):
            self.assertEqual(self.refused(alice, message), "rate-limited")
        self.store.release()
        self.assertEqual(self.stored(alice), WINDOW - 1)
        self.stores(alice, WINDOW - 1)
        self.assertEqual(self.attach(alice, WINDOW + 2), ((WINDOW, WINDOW + 2),))

    def test_who_goes_on_above_the_window_is_disconnected(self) -> None:
        alice = self.online(self.alice)
        self.attach(alice, 100)
        self.store.held = True
        for _ in range(WINDOW):
            alice.says(self.chunk(alice, 0))
        refusals = 0
        while not alice.is_closed:
            alice.says(self.chunk(alice, 0))
            refusals += 1
            self.assertLess(refusals, 1000)
        self.assertGreater(refusals, self.place.limits.requests_burst)
        self.assert_ended(alice, "rate-limited")

    def test_who_goes_on_asking_for_what_is_not_there_is_disconnected(self) -> None:
        for ask in (self.fetch, self.chunk):
            alice = self.online(self.alice)
            refusals = 0
            while not alice.is_closed:
                alice.says(ask(alice, 0, OTHER))
                refusals += 1
                self.assertLess(refusals, 1000)
            self.assertGreater(refusals, self.place.limits.requests_burst)
            self.assert_ended(alice, "rate-limited")

    def test_what_is_asked_of_whole_files_is_paid_for(self) -> None:
        for request in (
            wire.Attach(1, FILE, 1),
            wire.AttachmentFor(1, FILE, 1),
            wire.Fetched(1, FILE),
            wire.Detach(1, FILE),
        ):
            alice = self.online(self.alice)
            answers = [alice.says(request)[0] for _ in range(self.place.limits.requests_burst + 1)]
            self.assertNotIsInstance(answers[-2], wire.Error)
            self.assertEqual(answers[-1].code, "rate-limited")

    def test_chunks_have_no_rate(self) -> None:
        alice = self.online(self.alice)
        self.attach(alice, 1)
        for _ in range(5 * self.place.limits.requests_burst):
            self.stores(alice, 0)
            self.fetched(alice, 0)

    def test_above_its_memory_the_process_is_busy(self) -> None:
        self.place.takes_files(memory=16 * CHUNK_SIZE)
        alice, bob = self.online(self.alice), self.online(self.bob)
        self.uploads(bob, 1, OTHER)
        self.attach(alice, 20)
        self.store.held = True
        for index in range(16):
            self.assertEqual(alice.says(self.chunk(alice, index)), [])
        self.assertEqual(self.place.attachments.held, 16 * CHUNK_SIZE)
        self.assertEqual(self.refused(bob, self.chunk(bob, 0, OTHER)), "busy")
        self.assertEqual(self.refused(bob, self.fetch(bob, 0, OTHER)), "busy")
        self.store.release()
        self.stores(bob, 0, OTHER)
        self.assertEqual(self.fetched(bob, 0, OTHER), data(0))
        self.assertEqual(self.stored(alice), 16)

    def test_while_the_database_is_away_it_is_said_and_held_against_nobody(self) -> None:
        alice = self.online(self.alice)
        self.uploads(alice, 1, OTHER)
        self.attach(alice, 1)
        self.store.away = True
        for _ in range(2 * self.place.limits.requests_burst + 1):
            self.assertEqual(self.refused(alice, self.chunk(alice, 0)), "busy")
            self.assertEqual(self.refused(alice, self.fetch(alice, 0, OTHER)), "busy")
        self.store.away = False
        self.stores(alice, 0)

    def test_a_batch_that_fails_takes_with_it_what_waits_behind_it(self) -> None:
        alice = self.online(self.alice)
        self.attach(alice, WINDOW)
        self.store.held = True
        for index in range(WINDOW):
            alice.says(self.chunk(alice, index))
        self.store.away = True
        before = self.store.calls["store_chunks"]
        self.store.step()
        self.assertEqual([one.code for one in alice.heard if isinstance(one, wire.Error)], ["busy"] * WINDOW)
        self.assertEqual(self.store.calls["store_chunks"], before)
        self.store.away = False

    def test_a_mistake_of_the_stores_is_in_the_log_and_is_busy_for_the_client(self) -> None:
        alice = self.online(self.alice)
        self.uploads(alice, 1, OTHER)
        self.attach(alice, 1)
        self.store.broken = True
        self.assertEqual(self.refused(alice, self.chunk(alice, 0)), "busy")
        self.assertEqual(self.refused(alice, self.fetch(alice, 0, OTHER)), "busy")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)
        self.store.broken = False
        self.stores(alice, 0)

    def test_what_queues_while_a_batch_is_committed_is_the_next_one_whosever_it_is(self) -> None:
        batches: list[list[str]] = []
        store_chunks = self.place.memory.store_chunks

        def noted(batch: Any, at: float) -> Any:
            batches.append([chunk.user for chunk in batch])
            return store_chunks(batch, at)

        self.patch(self.place.memory, "store_chunks", noted)
        alice, bob = self.online(self.alice), self.online(self.bob)
        self.attach(alice, WINDOW)
        self.attach(bob, 3, OTHER)
        self.store.held = True
        for index in range(WINDOW):
            alice.says(self.chunk(alice, index))
        for index in range(3):
            bob.says(self.chunk(bob, index, OTHER))
        self.store.step()
        self.store.step()
        self.assertEqual(batches, [["alice"], ["alice"] * (WINDOW - 1) + ["bob"]])
        self.assertEqual((self.stored(alice), self.stored(bob)), (WINDOW, 1))
        self.store.release()
        self.assertEqual(batches[2:], [["bob", "bob"]])

    def test_it_goes_on_at_another_service(self) -> None:
        alice = self.online(self.alice)
        self.attach(alice, 3)
        self.stores(alice, 1)
        alice.hangs_up()
        self.place.takes_files()
        alice = self.online(self.alice)
        self.assertEqual(self.attach(alice, 3), ((0, 1), (2, 3)))
        for index in (0, 2):
            self.stores(alice, index)
        self.assertEqual(self.attach(alice, 3), ())

    def test_what_came_before_the_connection_was_lost_is_stored(self) -> None:
        alice = self.online(self.alice)
        self.attach(alice, 5)
        self.store.held = True
        for index in range(4):
            alice.says(self.chunk(alice, index))
        alice.says(self.chunk(alice, 0, OTHER))
        alice.hangs_up()
        alice.is_closed = False  # whatever it said now would be heard
        before = len(alice.heard)
        self.store.release()
        self.assertEqual(len(alice.heard), before)
        self.assertEqual(self.attach(self.online(self.alice), 5), ((4, 5),))

    def test_a_service_that_stops_answers_what_is_under_way(self) -> None:
        alice = self.online(self.alice)
        self.attach(alice, 3)
        self.store.held = True
        alice.says(self.chunk(alice, 0))
        alice.session.leave(5.0, "it stops")
        alice.says(self.chunk(alice, 1))
        stopped: list[None] = []
        Deferred.fromCoroutine(self.place.attachments.stop()).addCallback(stopped.append)
        self.passes(FINISH_SECONDS / 2)
        self.assertEqual((self.stored(alice), alice.is_closed, stopped), (0, False, []))
        self.store.release()
        self.assertEqual((self.stored(alice), stopped), (2, [None]))
        self.passes(FINISH_SECONDS)
        self.assertTrue(alice.is_closed)

    def test_a_service_that_stops_waits_for_what_nobody_will_hear_of(self) -> None:
        alice = self.online(self.alice)
        self.attach(alice, 2)
        self.store.held = True
        alice.says(self.chunk(alice, 0))
        alice.says(self.chunk(alice, 1))
        alice.session.leave(5.0, "it stops")
        self.passes(FINISH_SECONDS)
        self.assertTrue(alice.is_closed)
        stopped: list[None] = []
        Deferred.fromCoroutine(self.place.attachments.stop()).addCallback(stopped.append)
        self.store.step()
        self.assertEqual(stopped, [])
        self.store.release()
        self.assertEqual((self.stored(alice), stopped), (0, [None]))
        self.assertEqual(self.attach(self.online(self.alice), 2), ())


class Leaving(FilesCase):
    def test_it_goes_when_as_many_devices_have_it_as_were_told_of_it(self) -> None:
        alice, bob, carol = (self.online(device) for device in (self.alice, self.bob, self.carol))
        self.uploads(alice, 1)
        alice.asks(wire.AttachmentFor(alice.next_id(), FILE, 2), wire.AttachmentDone)
        for peer in (alice, bob, bob):
            peer.asks(wire.Fetched(peer.next_id(), FILE), wire.AttachmentDone)
            self.assertEqual(self.fetched(carol, 0), data(0))
        carol.asks(wire.Fetched(carol.next_id(), FILE), wire.AttachmentDone)
        self.assertEqual(self.refused(carol, self.fetch(carol, 0)), "unknown-attachment")

    def test_or_it_stays_if_the_operator_wants_that(self) -> None:
        self.place.takes_files(remove_when_fetched=False)
        alice, bob = self.online(self.alice), self.online(self.bob)
        self.uploads(alice, 1)
        alice.asks(wire.AttachmentFor(alice.next_id(), FILE, 1), wire.AttachmentDone)
        bob.asks(wire.Fetched(bob.next_id(), FILE), wire.AttachmentDone)
        self.assertEqual(self.fetched(bob, 0), data(0))

    def test_also_if_that_is_a_new_wish(self) -> None:
        alice = self.online(self.alice)
        self.uploads(alice, 1)
        alice.asks(wire.AttachmentFor(alice.next_id(), FILE, 1), wire.AttachmentDone)
        self.place.takes_files(remove_when_fetched=False)
        bob = self.online(self.bob)
        bob.asks(wire.Fetched(bob.next_id(), FILE), wire.AttachmentDone)
        self.assertEqual(self.fetched(bob, 0), data(0))

    def test_its_sender_alone_takes_it_back(self) -> None:
        alice, bob = self.online(self.alice), self.online(self.bob)
        self.uploads(alice, 1)
        for peer, codes in ((bob, []), (alice, ["unknown-attachment"]), (alice, ["unknown-attachment"])):
            peer.asks(wire.Detach(peer.next_id(), FILE), wire.AttachmentDone)
            answers = bob.says(self.fetch(bob, 0))
            self.assertEqual([one.code for one in answers if isinstance(one, wire.Error)], codes)

    def test_time_takes_what_is_old(self) -> None:
        alice = self.online(self.alice)
        self.uploads(alice, 1)
        self.attach(alice, 2, OTHER)
        self.place.attachments.start()
        self.passes_days(0.9)
        self.assertEqual(sorted(self.place.memory._attachments), [FILE, OTHER])
        self.passes_days(0.2)
        self.assertEqual(sorted(self.place.memory._attachments), [FILE])
        self.passes_days(28.8)
        self.assertEqual(sorted(self.place.memory._attachments), [FILE])
        self.passes_days(0.2)
        self.assertEqual(sorted(self.place.memory._attachments), [])

    def passes_days(self, days: float) -> None:
        self.place.clock.advance(days * DAY)

    def test_a_sweep_that_fails_is_followed_by_the_next_one(self) -> None:
        alice = self.online(self.alice)
        self.attach(alice, 2)
        alice.hangs_up()
        self.place.attachments.start()
        self.place.clock.advance(DAY - SWEEP_SECONDS)
        self.store.away = True
        self.place.clock.advance(SWEEP_SECONDS)
        self.store.away, self.store.broken = False, True
        self.place.clock.advance(SWEEP_SECONDS)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.store.broken = False
        self.assertEqual(len(self.place.memory._attachments), 1)
        self.place.clock.advance(SWEEP_SECONDS)
        self.assertEqual(len(self.place.memory._attachments), 0)

    def test_one_sweep_at_a_time_and_none_after_the_end(self) -> None:
        self.store.held = True
        self.place.attachments.start()
        self.place.clock.pump([SWEEP_SECONDS] * 3)
        self.assertEqual(self.store.calls["sweep_attachments"], 1)
        self.store.release()
        self.place.clock.advance(SWEEP_SECONDS)
        self.assertEqual(self.store.calls["sweep_attachments"], 2)
        now(self.place.attachments.stop())
        self.place.clock.advance(SWEEP_SECONDS)
        self.assertEqual(self.store.calls["sweep_attachments"], 2)
