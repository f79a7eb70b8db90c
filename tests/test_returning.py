"""Somebody comes back to a full mailbox: all of it arrives, in order, while people go on writing; and it can be seen
how far that has come, and that it has come to its end."""

from __future__ import annotations

from random import Random
from typing import Any

from twisted.internet.task import Clock, deferLater
from twisted.trial.unittest import SynchronousTestCase, TestCase

from fastchat_client.events import MailboxProgress, MessageReceived
from fastchat_client.terminal.progress import LINE_EVERY, Progress
from fastchat_client.upkeep import CAUGHT_UP_AFTER
from tests.support.joined import JoinedTest, Person
from tests.support.running import Member, RunningNetwork, until

WAITING = 150
"""Messages of each of two: with the pages and windows below, each is crossed many times. The 10,000 that a mailbox
holds go the same way, in more time than a test should take."""
LIVE = 60


def numbered(first: int, count: int) -> list[str]:
    return [f"number {number}" for number in range(first, first + count)]


class InMemory(JoinedTest):
    def setUp(self) -> None:
        self.net = self.network(mailbox_page=20, window_messages=8, sends_per_second=1e6, sends_burst=10_000)
        self.alice, self.bob, self.carol = (self.net.person(name) for name in ("alice", "bob", "carol"))

    def write(self, count: int) -> None:
        self.bob.goes_offline()
        for number in range(0, count, 10):
            for person in (self.alice, self.carol):
                person.sends("bob", *numbered(number, 10))
                self.net.passes(seconds=1)

    def progress(self) -> list[MailboxProgress]:
        return [event for event in self.bob.events if isinstance(event, MailboxProgress)]

    def seen(self, sender: Person) -> list[str]:
        events = [event for event in self.bob.events if isinstance(event, MessageReceived)]
        return [event.text for event in events if event.sender == sender.name]

    def test_all_of_it_in_order_while_more_comes(self) -> None:
        self.write(100)
        self.assertEqual(self.net.mailbox(self.bob.device), 200)
        with self.net.same_moment():
            self.bob.comes_back()
            sent, turns = 100, 0
            while not self.progress() or self.progress()[-1].done < 200:
                self.net.turns(3)
                turns += 1
                self.assertLess(turns, 100_000)
                if self.bob.is_online and sent < 130:
                    for person in (self.alice, self.carol):
                        person.sends("bob", *numbered(sent, 1))
                    sent += 1
        self.net.passes(seconds=5)
        for person in (self.alice, self.carol):
            self.assertEqual(self.seen(person), numbered(0, sent))
        self.assertEqual(sent, 130)
        self.assertEqual(self.net.mailbox(self.bob.device), 0)
        done = [event.done for event in self.progress()]
        self.assertEqual(done, sorted(set(done)))
        self.assertGreater(len(done), 10)
        self.assertEqual({event.total for event in self.progress()}, {200})

    def test_it_ends_by_itself_when_fewer_come_than_were_announced(self) -> None:
        """As when receipts of an earlier connection were on their way to the database when this one was made."""
        self.write(10)
        size = self.net.memory.mailbox_size

        async def too_many(device: str) -> int:
            return await size(device) + 5

        self.patch(self.net.memory, "mailbox_size", too_many)
        self.bob.comes_back()
        self.assertEqual(self.progress()[-1], MailboxProgress(20, 25))
        self.net.passes(seconds=CAUGHT_UP_AFTER - 1)
        self.assertEqual(self.progress()[-1], MailboxProgress(20, 25))
        self.net.passes(seconds=2)
        self.assertEqual(self.progress()[-1], MailboxProgress(25, 25))
        ended = len(self.progress())
        self.alice.sends("bob", "later")
        self.net.passes(seconds=60)
        self.assertEqual(len(self.progress()), ended)
        self.assertEqual(self.seen(self.alice)[-1], "later")


class OnTheRealNetwork(TestCase):
    timeout = 180

    async def test_all_of_it_in_order_while_more_comes(self) -> None:
        network = await RunningNetwork.start(self, mailbox_page=40, window_messages=16)
        alice, bob, carol = (Member(network, name, Random(1)) for name in ("alice", "bob", "carol"))
        for member in (alice, bob, carol):
            self.addCleanup(_stop, member)
            member.start()
            await member.connected()
        await bob.stop()
        for text in numbered(0, WAITING):
            for member in (alice, carol):
                member.send("bob", text)
        await until(network.reactor, lambda: not alice.vault.waiting() and not carol.vault.waiting())
        bob.start()
        for text in numbered(WAITING, LIVE):
            for member in (alice, carol):
                member.send("bob", text)
            await deferLater(network.reactor, 0.005)
        everything = numbered(0, WAITING + LIVE)
        await until(network.reactor, lambda: all(len(bob.texts[who]) >= WAITING + LIVE for who in ("alice", "carol")))
        self.assertEqual([bob.texts[who] for who in ("alice", "carol")], [everything] * 2)
        progress = [event for event in bob.events if isinstance(event, MailboxProgress)]
        # Until bob was in, what was written to him had to wait, too.
        self.assertEqual(progress[-1].done, progress[-1].total)
        self.assertIn(progress[-1].total, range(2 * WAITING, 2 * (WAITING + LIVE)))
        self.assertGreater(len(progress), 5)
        self.assertEqual(bob.vault.unread("alice") + bob.vault.unread("carol"), 2 * (WAITING + LIVE))


def _stop(member: Member) -> Any:
    from twisted.internet.defer import Deferred

    return Deferred.fromCoroutine(member.stop())


class Lines(SynchronousTestCase):
    """Where there is no status line."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.progress = Progress(self.clock.seconds)

    def after(self, seconds: float, done: int, total: int = 10_000) -> str | None:
        self.clock.advance(seconds)
        return self.progress.line(MailboxProgress(done, total))

    def test_one_now_and_then_and_one_at_the_end(self) -> None:
        self.assertIsNone(self.after(0, 64))
        self.assertIsNone(self.after(LINE_EVERY / 2, 1000))
        self.assertEqual(self.after(LINE_EVERY / 2, 4200), "receiving 10,000 messages: 4,200 (42 %)")
        self.assertIsNone(self.after(LINE_EVERY / 2, 5000))
        self.assertEqual(self.after(LINE_EVERY, 9999), "receiving 10,000 messages: 9,999 (99 %)")
        self.assertEqual(self.after(0, 10_000), "received 10,000 messages")

    def test_none_for_what_is_over_soon(self) -> None:
        self.assertEqual([self.after(0, done, 100) for done in (64, 100)], [None, None])

    def test_another_connection_begins_anew(self) -> None:
        self.after(0, 64)
        self.assertIsNotNone(self.after(LINE_EVERY, 128))
        self.progress.broken_off()
        self.assertIsNone(self.after(LINE_EVERY, 64, 9000))
        self.assertIsNone(self.after(LINE_EVERY / 2, 9000, 9000))
