"""A file from one client to others by way of the real services, in memory: offline, moved, killed, expired, removed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fastchat.errors import UnknownAttachment
from fastchat_client.attachment_cipher import PIECE
from fastchat_client.events import FileSaved, MessageReceived, TransferFailed
from tests.support.joined import JoinedTest, Person

CHUNKS = 40
DATA = os.urandom((CHUNKS - 1) * PIECE + 77)


class Joined(JoinedTest):
    def setUp(self) -> None:
        super().setUp()
        self.alice = self.net.person("alice", at="chat-1")
        self.bob = self.net.person("bob", at="chat-2")

    def folder(self, name: str = "saved") -> Path:
        folder = self.net.folder.absolute() / name
        folder.mkdir(exist_ok=True)
        return folder

    def days_pass(self, days: int) -> None:
        """By the services' clock, and for whoever looks for what has had its time."""
        self.net.wall_ahead += 86_400.0 * days
        self.net.passes(minutes=11)

    def has_it(self, person: Person, folder: Path) -> None:
        failed = [event for event in person.events if isinstance(event, TransferFailed)]
        self.assertEqual(([path.read_bytes() for path in folder.iterdir()], failed), ([DATA], []))

    @contextmanager
    def begun(self, person: Person, folder: Path) -> Iterator[None]:
        """What is done within is done while a part of it is there."""
        with self.net.same_moment():
            person.fetches(folder)
            while not any(path.stat().st_size >= 3 * PIECE for path in folder.iterdir()):
                self.net.turns(1)
            self.assertEqual([event for event in person.events if isinstance(event, FileSaved)], [])
            yield

    def test_online_on_another_service(self) -> None:
        self.alice.sends_file("bob", DATA, text="look")
        self.bob.fetches(self.folder())
        self.has_it(self.bob, self.folder())
        self.bob.sees("alice: look")

    def test_offline_until_later(self) -> None:
        self.bob.goes_offline()
        self.alice.sends_file("bob", DATA)
        self.alice.goes_offline()
        self.days_pass(29)
        self.bob.comes_back()
        self.bob.fetches(self.folder())
        self.has_it(self.bob, self.folder())

    def test_it_has_expired(self) -> None:
        self.bob.goes_offline()
        self.alice.sends_file("bob", DATA)
        self.days_pass(31)
        self.bob.comes_back()
        self.bob.fetches(self.folder())
        (failed,) = (event for event in self.bob.events if isinstance(event, TransferFailed))
        self.assertEqual((failed.code, list(self.folder().iterdir())), (UnknownAttachment.code, []))

    def test_it_is_removed_when_everybody_has_it(self) -> None:
        second = self.net.second_device(self.bob)
        self.net.passes(minutes=6)
        attachment = self.alice.sends_file("bob", DATA)
        for person, is_there in ((self.bob, True), (second, False)):
            folder = self.folder(person.device)
            person.fetches(folder)
            self.has_it(person, folder)
            self.net.passes(seconds=2)
            self.assertEqual(attachment in self.net.memory._attachments, is_there)
        self.bob.fetches(self.folder())
        self.has_it(self.bob, self.folder())

    def test_moved_to_another_service_in_the_middle(self) -> None:
        self.alice.sends_file("bob", DATA)
        with self.begun(self.bob, self.folder()):
            self.bob.moves()
        self.net.passes(seconds=60)
        self.has_it(self.bob, self.folder())

    def test_the_service_stops_in_the_middle(self) -> None:
        """What was asked for is still answered; then it goes on elsewhere."""
        self.alice.sends_file("bob", DATA)
        with self.begun(self.bob, self.folder()):
            self.net.services["chat-2"].leaves()
        self.net.passes(seconds=60)
        self.has_it(self.bob, self.folder())
        self.assertNotEqual(self.bob.service, "chat-2")

    def test_the_service_is_killed_in_the_middle(self) -> None:
        self.alice.sends_file("bob", DATA)
        with self.begun(self.bob, self.folder()):
            self.net.kills("chat-2")
        self.net.passes(seconds=60)
        self.has_it(self.bob, self.folder())

    def test_the_cable_is_cut_in_the_middle(self) -> None:
        self.alice.sends_file("bob", DATA)
        with self.begun(self.bob, self.folder()):
            self.bob.falls_silent()
        self.net.passes(minutes=3)
        self.has_it(self.bob, self.folder())

    def test_the_database_is_away_in_the_middle(self) -> None:
        self.alice.sends_file("bob", DATA)
        with self.begun(self.bob, self.folder()):
            self.net.database_goes_away()
        self.net.passes(seconds=20)
        self.assertEqual([event for event in self.bob.events if isinstance(event, FileSaved)], [])
        self.net.database_comes_back()
        self.net.passes(seconds=60)
        self.has_it(self.bob, self.folder())

    def test_the_reader_stops_reading_in_the_middle(self) -> None:
        self.alice.sends_file("bob", DATA)
        with self.begun(self.bob, self.folder()):
            self.bob.stops_reading()
        self.net.passes(seconds=5)
        self.bob.reads_on()
        self.net.passes(seconds=5)
        self.has_it(self.bob, self.folder())

    def test_both_ways_at_once_and_chat_between(self) -> None:
        self.alice.sends_file("bob", DATA, "one")
        with self.net.same_moment():
            self.bob.fetches(self.folder())
            self.bob.sends_file("alice", DATA, "two")
            self.alice.sends("bob", "hello")
        self.net.passes(seconds=5)
        self.alice.fetches(self.folder("alices"))
        for person, folder in ((self.bob, self.folder()), (self.alice, self.folder("alices"))):
            self.has_it(person, folder)
        texts = [event.text for event in self.bob.events if isinstance(event, MessageReceived)]
        self.assertEqual(texts, ["", "hello"])
