"""The connection between a real client and the network cut at every chunk of a small file, and what the operator's
limits do to files: whoever sends or fetches one, and what they read of it."""

from __future__ import annotations

import time

from fastchat.config import AttachmentLimits
from fastchat.errors import AttachmentTooLarge, QuotaExceeded, UnknownAttachment
from fastchat.protocols.wire import CHUNK_SIZE
from fastchat_client import files
from fastchat_client.attachment_cipher import PIECE
from fastchat_client.events import FileSaved, FileSent, MessageReceived, TransferFailed
from tests.chaos.proxy import Flow, Link, Proxy
from tests.support.filing import FilesCase, Friend, random_bytes
from tests.support.running import until

CHUNKS = 5
HOUR, DAY = 3600.0, 86_400.0


class Cut(FilesCase):
    """A proxy lets so many bytes pass; what has passed is dealt with, and then both ends are cut in the middle of the
    next chunk. What passes on the next connection is the rest of the chunks, and no more than a login beside it."""

    async def begin_at(self, *, up: bool) -> None:
        self.flows: list[Flow] = []
        self.up = up
        await self.begin()
        self.made_by = self.proxy(self._made)

    def _made(self, link: Link) -> None:
        self.flows.append(link.up if self.up else link.down)

    def _let_pass(self, chunks: int) -> None:
        """From here on: so many whole ones and half of the next, on the connection that there is."""
        self.flows[-1].most = self.flows[-1].passed + chunks * CHUNK_SIZE + CHUNK_SIZE // 2

    async def _cut(self, friend: Friend, proxy: Proxy) -> None:
        [link] = proxy.links
        count = len(self.flows)
        link.cut()
        await until(self.reactor, lambda: not friend.core.ready)
        await until(self.reactor, lambda: len(self.flows) > count)

    def _rest_has_passed(self, chunks: int) -> None:
        passed = self.flows[-1].passed
        self.assertTrue(chunks * CHUNK_SIZE < passed < (chunks + 0.5) * CHUNK_SIZE, (chunks, passed))

    async def test_at_every_chunk_on_its_way_up(self) -> None:
        await self.begin_at(up=True)
        [alice] = await self.friends("alice", proxy=self.made_by)
        [bob] = await self.friends("bob")
        for whole in range(CHUNKS):
            data = random_bytes(CHUNKS)
            self._let_pass(whole)
            attachment = await alice.send_file("bob", self.source(f"{whole}.bin", data))
            await self.has_stored(1, whole)
            self.assertEqual((len(alice.told(FileSent)), len(bob.told(MessageReceived))), (whole, whole))
            await self._cut(alice, self.made_by)
            await self.sent(alice, attachment)
            self._rest_has_passed(CHUNKS - whole)
            self.assertTrue((await bob.fetched(attachment)).read_bytes() == data)
            await self.has_stored(0, 0)
        self.assertEqual(alice.told(TransferFailed), [])

    async def test_at_every_chunk_on_its_way_down(self) -> None:
        await self.begin_at(up=False)
        [bob] = await self.friends("bob", proxy=self.made_by)
        [alice] = await self.friends("alice")
        for whole in range(CHUNKS):
            data = random_bytes(CHUNKS)
            message = await bob.brought(await alice.send_file("bob", self.source(f"{whole}.bin", data)))
            self._let_pass(whole)
            bob.fetch(message)
            await until(self.reactor, lambda: self._length(bob) == whole * PIECE)  # noqa: B023
            await until(self.reactor, lambda: self.flows[-1].passed == self.flows[-1].most)
            self.assertEqual((len(bob.shown()), len(bob.told(FileSaved))), (whole, whole))
            await self._cut(bob, self.made_by)
            await bob.tells(FileSaved, whole + 1)
            self._rest_has_passed(CHUNKS - whole)
            self.assertTrue((bob.folder / f"{whole}.bin").read_bytes() == data)
            await until(self.reactor, lambda: not files.leftovers(bob.vault))
            self.assertEqual(len(list(bob.folder.iterdir())), whole + 1)
        self.assertEqual(bob.told(TransferFailed), [])

    def _length(self, friend: Friend) -> int:
        """Of what is there of the file that is being fetched; -1 if it is not begun."""
        return max((path.stat().st_size for path in friend.folder.glob(".*.part")), default=-1)


class Limited(FilesCase):
    """What an operator sets, and what a person reads of it."""

    async def _sweep(self, later: float) -> None:
        """As in so many seconds."""
        attachments = self.network.node.attachments
        self.patch(attachments, "_now", lambda: time.time() + later)
        await attachments._sweep()

    async def _failed(self, friend: Friend, attachment: str) -> TransferFailed:
        def found() -> list[TransferFailed]:
            return [event for event in friend.told(TransferFailed) if event.attachment == attachment]

        await until(self.reactor, lambda: bool(found()))
        [failed] = found()
        return failed

    async def test_largest_and_quota_and_room_again_when_all_have_it(self) -> None:
        limits = AttachmentLimits(largest=4 * PIECE, quota=6 * CHUNK_SIZE)
        alice, bob, carol = await self.begin("alice", "bob", "carol", attachments=limits)
        too_large = self.source("film.mkv", random_bytes(5))
        with self.assertRaises(AttachmentTooLarge) as caught:
            await alice.send_file("bob", too_large)
        self.assertEqual(
            caught.exception.message, f"{too_large} is too large: this network takes files of up to 262 kB"
        )
        group = await self.group(alice, bob, carol)
        data = random_bytes(4)
        first = await alice.send_file(group, self.source("one.bin", data))
        await self.sent(alice, first)
        second = self.source("two.bin", data[::-1])
        refused = await self._failed(alice, await alice.send_file("bob", second))
        self.assertEqual((refused.code, refused.up, refused.name), (QuotaExceeded.code, True, "two.bin"))
        self.assertEqual(refused.reason, QuotaExceeded().message)
        self.assertEqual((await self.stored(), bob.told(FileSaved)), ((1, 4), []))
        # One of the two that were sent it has it, then the other one.
        await alice.has_said_all()
        self.assertTrue((await bob.fetched(first)).read_bytes() == data)
        self.assertEqual(await self.stored(), (1, 4))
        self.assertTrue((await carol.fetched(first)).read_bytes() == data)
        await self.has_stored(0, 0)
        self.assertTrue((await bob.fetched(await alice.send_file("bob", second))).read_bytes() == data[::-1])

    async def test_a_file_that_nobody_has_fetched_for_a_month(self) -> None:
        alice, bob = await self.begin("alice", "bob")
        attachment = await alice.send_file("bob", self.source("one.bin", random_bytes(2)))
        message = await bob.brought(attachment)
        await self._sweep(29 * DAY)
        self.assertEqual(await self.stored(), (1, 2))
        await self._sweep(31 * DAY)
        self.assertEqual(await self.stored(), (0, 0))
        bob.fetch(message)
        failed = await self._failed(bob, attachment)
        self.assertEqual((failed.code, failed.up), (UnknownAttachment.code, False))
        self.assertEqual(failed.reason, "it is not on the network any more; ask its sender to send it again")
        await until(self.reactor, lambda: not files.leftovers(bob.vault))
        self.assertEqual(list(bob.folder.iterdir()), [])

    async def test_one_of_which_half_has_come_goes_after_a_day_and_begins_again(self) -> None:
        await self.begin()
        made: list[Link] = []
        proxy = self.proxy(made.append)
        [alice] = await self.friends("alice", proxy=proxy)
        [bob] = await self.friends("bob")
        made[-1].up.most = made[-1].up.passed + 2 * CHUNK_SIZE + 1000 + CHUNK_SIZE // 2
        data = random_bytes(CHUNKS)
        attachment = await alice.send_file("bob", self.source("one.bin", data))
        await self.has_stored(1, 2)
        alice.may_dial = lambda: False
        made[-1].cut()
        await until(self.reactor, lambda: not alice.core.ready)
        await self._sweep(23 * HOUR)
        self.assertEqual(await self.stored(), (1, 2))
        await self._sweep(25 * HOUR)
        self.assertEqual(await self.stored(), (0, 0))
        alice.may_dial = lambda: True
        self.assertTrue((await bob.fetched(attachment)).read_bytes() == data)
        self.assertTrue(CHUNKS * CHUNK_SIZE < made[-1].up.passed < (CHUNKS + 0.5) * CHUNK_SIZE)
        self.assertEqual(alice.told(TransferFailed), [])
