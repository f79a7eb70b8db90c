"""What every store does with attachments: the same tests on PostgreSQL and in memory."""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from fastchat.config import Config
from fastchat.errors import Busy, QuotaExceeded, RequestError, UnknownUser
from fastchat.protocols.wire import CHUNK_SIZE, MOST_RANGES
from fastchat.store import AttachmentStore, ChunkOutcome, Device, NewChunk, Store
from fastchat.store.memory import MemoryStore
from tests.support import rows
from tests.support.chunks import DAY, EMPTY_CHUNKS, NOW, QUOTA, A, B, chunk, data, prints, whole
from tests.support.postgres import fresh_database
from tests.support.rows import INVITE, register, signed
from tests.test_store_postgres import DatabaseTestCase

CONFIG = Config(home=Path("unused"))
STORED, UNKNOWN = ChunkOutcome.STORED, ChunkOutcome.UNKNOWN

if TYPE_CHECKING:
    Base = TestCase
else:
    Base = object


class BothStores(Store, AttachmentStore, Protocol):
    """Accounts, and what they send."""


class AttachmentTests(Base):
    async def make_store(self) -> BothStores:
        """An open store that holds nothing; it is closed after the test."""
        raise NotImplementedError

    async def store_with(self, *users: str) -> BothStores:
        self.store = await self.make_store()
        await self.store.add_invite(INVITE, None, None)
        for user in users:
            await register(self.store, user)
        return self.store

    async def begin(
        self, attachment: str, chunks: int, user: str = "alice", quota: int = QUOTA, now: float = NOW
    ) -> list[tuple[int, int]]:
        return list(await self.store.begin_attachment(attachment, user, chunks, quota, now))

    async def upload(self, attachment: str, chunks: int = 1, user: str = "alice", now: float = NOW) -> None:
        await self.begin(attachment, chunks, user, now=now)
        outcomes = await self.store.store_chunks(whole(attachment, chunks, user), now)
        self.assertEqual(set(outcomes), {STORED})

    async def is_there(self, attachment: str) -> bool:
        [found] = await self.store.chunks([(attachment, 0)])
        return found is not None

    async def fill(self, attachment: str, indexes: Sequence[int]) -> None:
        """Store so many chunks that what is in them does not matter."""
        raise NotImplementedError

    async def refused(self, error: type[Exception], call: Coroutine[Any, Any, Any]) -> None:
        # The very class: `UnknownUser` is a `RequestError` as well.
        found = await self.assertFailure(Deferred.fromCoroutine(call), error)
        self.assertIs(type(found), error)

    # --- what comes in and out -------------------------------------------------------------------------------

    async def test_chunks_come_in_any_order_and_out_as_they_were(self) -> None:
        store = await self.store_with("alice")
        self.assertEqual(await self.begin(A, 5), [(0, 5)])
        chunks = whole(A, 5)
        self.assertEqual(await store.store_chunks([chunks[3], chunks[0]], NOW), [STORED, STORED])
        self.assertEqual(await self.begin(A, 5), [(1, 3), (4, 5)])
        self.assertEqual(await store.store_chunks([chunks[4], chunks[1]], NOW), [STORED, STORED])
        self.assertEqual(await self.begin(A, 5), [(2, 3)])
        # Nothing is handed out before it is whole.
        self.assertEqual(prints(await store.chunks([(A, index) for index in range(5)])), [None] * 5)
        self.assertEqual(await store.store_chunks([chunks[2]], NOW), [STORED])
        self.assertEqual(await self.begin(A, 5), [])
        found = await store.chunks([(A, index) for index in (4, 0, 2, 0, 1, 3)])
        self.assertEqual(prints(found), prints([chunks[index].data for index in (4, 0, 2, 0, 1, 3)]))
        self.assertEqual({type(octets) for octets in found}, {bytes})

    async def test_every_byte_comes_back(self) -> None:
        store = await self.store_with("alice")
        contents = [
            bytes(range(256)) * (CHUNK_SIZE // 256),
            b"\0" * CHUNK_SIZE,
            b"\xff" * CHUNK_SIZE,
            b"'\\\r\n\x80\xc3\x28%s" * (CHUNK_SIZE // 8),
            data("random"),
        ]
        contents = [octets[:CHUNK_SIZE].ljust(CHUNK_SIZE, b"x") for octets in contents]
        await self.begin(A, len(contents))
        batch = [NewChunk(A, "alice", index, octets) for index, octets in enumerate(contents)]
        self.assertEqual(await store.store_chunks(batch, NOW), [STORED] * len(contents))
        found = await store.chunks([(A, index) for index in range(len(contents))])
        self.assertEqual(prints(found), prints(contents))

    async def test_what_is_not_there_is_none_and_the_rest_comes(self) -> None:
        store = await self.store_with("alice")
        await self.upload(A, 2)
        await self.begin(B, 2)
        await store.store_chunks([chunk(B, 0)], NOW)
        wanted = [(A, 2), (A, 1), ("cd" * 16, 0), (B, 0), (A, 2**31 - 2), (A, 0)]
        found = await store.chunks(wanted)
        self.assertEqual(prints(found), prints([None, chunk(A, 1).data, None, None, None, chunk(A, 0).data]))
        self.assertEqual(await store.chunks([]), [])

    async def test_each_chunk_of_a_batch_has_its_own_outcome(self) -> None:
        store = await self.store_with("alice", "bob")
        await self.begin(A, 2)
        await self.begin(B, 3, "bob")
        batch = [
            chunk(A, 0),
            chunk(A, 2),
            chunk(B, 0),
            chunk(B, 0, "bob"),
            chunk("cd" * 16, 0),
            chunk(B, 2**31 - 2, "bob"),
            chunk(B, 2, "bob"),
            chunk(A, 1, "bob"),
            chunk(A, 1, "nobody"),
        ]
        expected = [STORED, UNKNOWN, UNKNOWN, STORED, UNKNOWN, UNKNOWN, STORED, UNKNOWN, UNKNOWN]
        self.assertEqual(await store.store_chunks(batch, NOW), expected)
        self.assertEqual((await self.begin(A, 2), await self.begin(B, 3, "bob")), ([(1, 2)], [(1, 2)]))
        self.assertEqual(await store.store_chunks([chunk("cd" * 16, 0)], NOW), [UNKNOWN])
        self.assertEqual(await store.store_chunks([], NOW), [])

    async def test_what_came_first_stays(self) -> None:
        store = await self.store_with("alice")
        await self.begin(A, 2)
        again = chunk(A, 0, other="other bytes")
        self.assertEqual(await store.store_chunks([chunk(A, 0), again], NOW), [STORED, STORED])
        self.assertEqual(await store.store_chunks([again], NOW), [STORED])
        # Twice the same is not two of two.
        self.assertEqual(await self.begin(A, 2), [(1, 2)])
        self.assertEqual(prints(await store.chunks([(A, 0)])), [None])
        self.assertEqual(await store.store_chunks([again, chunk(A, 1)], NOW), [STORED, STORED])
        # Nor does anything change once it is whole.
        self.assertEqual(await store.store_chunks([again, chunk(A, 2), chunk(A, 1)], NOW), [STORED, UNKNOWN, STORED])
        found = await store.chunks([(A, 0), (A, 1)])
        self.assertEqual(prints(found), prints([chunk(A, 0).data, chunk(A, 1).data]))
        self.assertEqual(await self.begin(A, 2), [])

    async def test_a_chunk_of_another_size_is_nobodys(self) -> None:
        store = await self.store_with("alice")
        await self.begin(A, 2)
        for size in (0, CHUNK_SIZE - 1, CHUNK_SIZE + 1):
            batch = [chunk(A, 1), NewChunk(A, "alice", 0, b"x" * size)]
            await self.refused(ValueError, store.store_chunks(batch, NOW))
        self.assertEqual(await self.begin(A, 2), [(0, 2)])

    async def test_no_more_ranges_than_one_answer_has(self) -> None:
        await self.store_with("alice")
        count = 2 * MOST_RANGES + 20
        self.assertEqual(await self.begin(A, count, quota=2**40), [(0, count)])
        await self.fill(A, range(1, count, 2))
        expected = [(index, index + 1) for index in range(0, count, 2)]
        self.assertEqual(await self.begin(A, count), expected[:MOST_RANGES])

    # --- whose it is -----------------------------------------------------------------------------------------

    async def test_an_id_is_begun_by_one_and_with_one_number(self) -> None:
        store = await self.store_with("alice", "bob")
        await self.begin(A, 2)
        await self.refused(RequestError, self.begin(A, 2, "bob"))
        await self.refused(RequestError, self.begin(A, 3))
        await self.refused(RequestError, self.begin(A, 1))
        for nobody in ("nobody", "no\0body", ""):
            await self.refused(UnknownUser, self.begin(B, 1, nobody))
        self.assertEqual(await self.begin(A, 2), [(0, 2)])
        await store.store_chunks(whole(A, 2), NOW)
        await self.refused(RequestError, self.begin(A, 2, "bob"))
        # Refused is not begun: whoever comes first has it.
        self.assertEqual(await self.begin(B, 1, "bob"), [(0, 1)])

    async def test_what_is_detached_is_gone_and_may_be_begun_again(self) -> None:
        store = await self.store_with("alice", "bob")
        await self.upload(A, 40)
        await self.begin(B, 2)
        await store.store_chunks([chunk(B, 0)], NOW)
        for attachment in (A, B, "cd" * 16):
            await store.detach(attachment, "bob")
        self.assertTrue(await self.is_there(A))
        for attachment in (A, B, B, "cd" * 16):
            await store.detach(attachment, "alice")
        self.assertFalse(await self.is_there(A))
        self.assertEqual(await store.store_chunks([chunk(A, 0), chunk(B, 1)], NOW), [UNKNOWN, UNKNOWN])
        # Nothing of what was there before is in what is begun under the same id, whoever does.
        self.assertEqual(await self.begin(A, 3, "bob"), [(0, 3)])
        self.assertEqual(await self.begin(B, 2), [(0, 2)])
        await store.store_chunks([chunk(B, 1), chunk(B, 0, other="new")], NOW)
        self.assertEqual(prints(await store.chunks([(B, 0)])), prints([chunk(B, 0, other="new").data]))

    # --- quota -----------------------------------------------------------------------------------------------

    async def test_the_quota_counts_all_that_was_begun(self) -> None:
        store = await self.store_with("alice", "bob")
        quota = 10 * CHUNK_SIZE
        await self.refused(QuotaExceeded, self.begin(A, 11, quota=quota))
        self.assertEqual(await self.begin(A, 6, quota=quota), [(0, 6)])
        await self.refused(QuotaExceeded, self.begin(B, 5, quota=quota))
        await self.refused(QuotaExceeded, self.begin(B, 4, quota=quota - 1))
        self.assertEqual(await self.begin(B, 4, quota=quota), [(0, 4)])
        await self.refused(QuotaExceeded, self.begin("cd" * 16, 1, quota=quota))
        # Another account has its own; and what was begun goes on, whatever the quota is by now.
        self.assertEqual(await self.begin("cd" * 16, 10, "bob", quota), [(0, 10)])
        self.assertEqual(await self.begin(A, 6, quota=1), [(0, 6)])
        await store.store_chunks(whole(A, 6), NOW)
        await self.refused(QuotaExceeded, self.begin("ef" * 16, 1, quota=quota))
        await store.detach(A, "alice")
        self.assertEqual(await self.begin("ef" * 16, 6, quota=quota), [(0, 6)])

    # --- who has it ------------------------------------------------------------------------------------------

    async def test_it_goes_when_as_many_have_it_as_were_told(self) -> None:
        store = await self.store_with("alice", "bob")
        first, second = (rows.device("bob", name).device for name in ("one", "two"))
        for fetched_before in range(3):
            await self.upload(A)
            for device in (first, second)[:fetched_before]:
                await store.attachment_fetched(A, "bob", device)
            self.assertTrue(await self.is_there(A))
            await store.expect_readers(A, "alice", 2)
            self.assertEqual(await self.is_there(A), fetched_before < 2)
            for device in (first, second)[fetched_before:]:
                self.assertTrue(await self.is_there(A))
                await store.attachment_fetched(A, "bob", device)
            self.assertFalse(await self.is_there(A))

    async def test_a_device_counts_once_and_the_senders_own_do_not(self) -> None:
        store = await self.store_with("alice", "bob")
        await self.upload(A)
        own = [rows.device("alice", name).device for name in ("first", "tablet")]
        bob = rows.device("bob").device
        await store.attachment_fetched(A, "alice", own[0])
        await store.expect_readers(A, "alice", 2)
        for _ in range(3):
            await store.attachment_fetched(A, "alice", own[1])
            await store.attachment_fetched(A, "bob", bob)
        self.assertTrue(await self.is_there(A))
        await store.attachment_fetched(A, "bob", rows.device("bob", "tablet").device)
        self.assertFalse(await self.is_there(A))

    async def test_the_last_number_counts_and_only_its_senders(self) -> None:
        store = await self.store_with("alice", "bob")
        await self.upload(A)
        bob = rows.device("bob").device
        await store.expect_readers(A, "alice", 3)
        await store.attachment_fetched(A, "bob", bob)
        await store.expect_readers(A, "bob", 1)
        self.assertTrue(await self.is_there(A))
        await store.expect_readers(A, "alice", 2)
        self.assertTrue(await self.is_there(A))
        await store.expect_readers(A, "alice", 1)
        self.assertFalse(await self.is_there(A))
        # What is not there bothers nobody.
        await store.expect_readers(A, "alice", 1)
        await store.attachment_fetched(A, "bob", bob)
        self.assertEqual(await self.begin(A, 1), [(0, 1)])

    async def test_nobody_has_all_of_what_is_not_whole(self) -> None:
        store = await self.store_with("alice", "bob")
        await self.begin(A, 2)
        await store.expect_readers(A, "alice", 1)
        await store.attachment_fetched(A, "bob", rows.device("bob").device)
        self.assertEqual(await store.store_chunks(whole(A, 2), NOW), [STORED, STORED])
        self.assertTrue(await self.is_there(A))
        await store.attachment_fetched(A, "bob", rows.device("bob").device)
        self.assertFalse(await self.is_there(A))

    async def test_a_reader_of_one_is_none_of_another(self) -> None:
        store = await self.store_with("alice", "bob")
        await self.upload(A)
        await self.upload(B)
        for attachment in (A, B):
            await store.expect_readers(attachment, "alice", 1)
        await store.attachment_fetched(A, "bob", rows.device("bob").device)
        self.assertEqual((await self.is_there(A), await self.is_there(B)), (False, True))

    async def test_a_device_that_is_revoked_has_read_it_and_keeps_nothing(self) -> None:
        store = await self.store_with("alice")
        tablet, bob = await self.bob_with_a_tablet()
        await self.upload(A, 2)
        await self.upload(B, 2, "bob")
        await store.attachment_fetched(A, "bob", tablet.device)
        await store.attachment_fetched(A, "bob", bob.device)
        await store.revoke_device("bob", tablet.device, 3, signed("revoke"), rows.leaf("revoke"))
        self.assertTrue(await self.is_there(A))
        # What its account has sent stays the account's; what it has read, it has read.
        self.assertTrue(await self.is_there(B))
        await store.expect_readers(A, "alice", 2)
        self.assertFalse(await self.is_there(A))

    async def bob_with_a_tablet(self) -> tuple[Device, Device]:
        bob = await register(self.store, "bob")
        tablet = rows.device("bob", "tablet")
        await self.store.add_device(tablet, 2, signed("tablet"), rows.keys("tablet"), rows.leaf("tablet"))
        return tablet, bob

    # --- what goes by itself ---------------------------------------------------------------------------------

    async def sweep(self, now: float) -> int:
        return await self.store.sweep_attachments(now, DAY, 30 * DAY)

    async def test_what_is_not_finished_goes_after_its_time(self) -> None:
        store = await self.store_with("alice")
        await self.begin(A, 3)
        await self.begin(B, 3, now=NOW + 0.25)
        self.assertEqual(await self.sweep(NOW + DAY - 0.25), 0)
        self.assertEqual(await self.sweep(NOW + DAY), 1)
        self.assertEqual(await store.store_chunks([chunk(A, 0), chunk(B, 0)], NOW + DAY), [UNKNOWN, STORED])
        # Its time begins with what came last and was new.
        self.assertEqual(await store.store_chunks([chunk(B, 0)], NOW + DAY + 1), [STORED])
        self.assertEqual(await self.begin(B, 3, now=NOW + DAY + 2), [(1, 3)])
        self.assertEqual(await self.sweep(NOW + 2 * DAY - 0.25), 0)
        self.assertEqual(await self.begin(B, 3), [(1, 3)])
        self.assertEqual(await self.sweep(NOW + 2 * DAY), 1)
        self.assertEqual(await self.begin(B, 3), [(0, 3)])

    async def test_what_is_whole_goes_after_its_time(self) -> None:
        store = await self.store_with("alice", "bob")
        await self.begin(A, 2)
        await store.store_chunks([chunk(A, 0)], NOW + 10)
        await store.store_chunks([chunk(A, 1)], NOW + 20)
        await store.store_chunks([chunk(A, 1)], NOW + 30)
        await store.expect_readers(A, "alice", 2)
        await store.attachment_fetched(A, "bob", rows.device("bob").device)
        self.assertEqual(await self.sweep(NOW + 20 + 30 * DAY - 0.25), 0)
        self.assertTrue(await self.is_there(A))
        self.assertEqual(await self.sweep(NOW + 20 + 30 * DAY), 1)
        self.assertFalse(await self.is_there(A))
        self.assertEqual(await self.sweep(NOW + 100 * DAY), 0)

    async def test_many_go_at_once_and_make_room(self) -> None:
        await self.store_with("alice")
        ids = [f"{number:032x}" for number in range(250)]
        for attachment in ids:
            await self.begin(attachment, 1, quota=250 * CHUNK_SIZE)
        await self.refused(QuotaExceeded, self.begin(A[::-1], 1, quota=250 * CHUNK_SIZE))
        self.assertEqual(await self.sweep(NOW + DAY), 250)
        self.assertEqual(await self.begin(A, 250, quota=250 * CHUNK_SIZE), [(0, 250)])


class MemoryAttachmentTests(AttachmentTests, TestCase):
    """In memory."""

    async def make_store(self) -> MemoryStore:
        self.memory = MemoryStore(CONFIG)
        await self.memory.open()
        return self.memory

    async def fill(self, attachment: str, indexes: Sequence[int]) -> None:
        content = data()
        await self.memory.store_chunks([NewChunk(attachment, "alice", index, content) for index in indexes], NOW)

    async def test_a_database_that_is_away(self) -> None:
        store = await self.store_with("alice")
        await self.upload(A)
        self.memory.available = False
        calls: list[Coroutine[Any, Any, Any]] = [
            self.begin(B, 1),
            store.store_chunks([chunk(A, 0)], NOW),
            store.chunks([(A, 0)]),
            store.expect_readers(A, "alice", 1),
            store.attachment_fetched(A, "bob", B),
            store.detach(A, "alice"),
            self.sweep(NOW + 40 * DAY),
        ]
        for call in calls:
            await self.refused(Busy, call)
        self.memory.available = True
        self.assertTrue(await self.is_there(A))


class PostgresAttachmentTests(AttachmentTests, DatabaseTestCase):
    """On PostgreSQL."""

    refused = AttachmentTests.refused

    async def make_store(self) -> BothStores:
        self.dsn = await fresh_database(self)
        return await self.open(self.dsn)

    async def fill(self, attachment: str, indexes: Sequence[int]) -> None:
        self.connect(self.dsn).execute(EMPTY_CHUNKS, {"attachment": attachment, "indexes": list(indexes)})
