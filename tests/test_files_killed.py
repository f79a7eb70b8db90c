"""A file on its way between two real programs (`fastchat send --file`, `fastchat fetch`), twistd and PostgreSQL, all of
which are killed in the middle; and how much memory the programs take for a large one.

Worth its seconds: nothing else shows that what is on the disks is enough to go on from, whoever dies."""

from __future__ import annotations

import json
import os
import shutil
import signal
import tempfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet import reactor as installed
from twisted.internet.defer import Deferred

from fastchat.config import AttachmentLimits
from fastchat.identity.invite import Invite
from fastchat_client import messenger
from fastchat_client.attachment_cipher import PIECE, chunk_count
from fastchat_client.events import Event, MessageReceived
from fastchat_client.messenger import Messenger
from fastchat_client.profile import Profile
from fastchat_client.saving import SLICE, Part
from tests.chaos.logs import tracebacks
from tests.chaos.server import Server, signal_process
from tests.support.cli import MAIN, Command, CommandCase
from tests.support.running import PATIENCE, until

reactor: Any = installed

FILM = os.urandom(1 << 20) * 24 + b"the end"
CHUNKS = chunk_count(len(FILM))


def lines(command: Command, event: str) -> list[dict[str, Any]]:
    """What it has said so far of this kind."""
    said = [json.loads(line) for line in command.out.decode().split("\n")[:-1]]
    return [line for line in said if line["event"] == event]


class ProgramsCase(CommandCase):
    timeout = 240

    async def receive(self, user: str, count: int = 1) -> list[MessageReceived]:
        """Until so many messages have come; in this process, which is quicker."""
        profile = Profile.load(self.folder / user)
        told: list[Event] = []
        with profile.locked():
            vault = messenger.unlock(profile, "correct horse")
            client = Messenger(profile, vault, reactor, told.extend)
            client.start()
            try:
                await until(reactor, lambda: sum(isinstance(event, MessageReceived) for event in told) == count)
            finally:
                await client.stop()
                vault.close()
        return [event for event in told if isinstance(event, MessageReceived)]


class Killed(ProgramsCase):
    async def begin(self) -> Server:
        """A twistd of its own, with alice and bob."""
        place = Path(tempfile.mkdtemp(prefix="fastchat-tests-"))
        place.chmod(0o711)
        self.addCleanup(shutil.rmtree, place, ignore_errors=True)
        self.noted: list[str] = []
        server = self.server = Server(place / "home", "", self.noted.append, reactor, settings="")
        self.addCleanup(lambda: Deferred.fromCoroutine(server.left_behind()))
        self.addCleanup(lambda: Deferred.fromCoroutine(server.stop()))
        await server.start()
        await self.join_cheaply(Invite.parse(server.link), "alice", "bob")
        self.there = self.folder / "there"
        self.there.mkdir()
        return server

    async def stored(self) -> int:
        [(chunks,)] = await self.server.rows("SELECT count(*) FROM attachment_chunks")
        return int(chunks)

    async def has_stored(self, enough: Callable[[int], bool]) -> None:
        give_up = reactor.seconds() + PATIENCE
        while not enough(await self.stored()):
            self.assertLess(reactor.seconds(), give_up, "the network does not have so many chunks")

    async def kill_the_database(self, is_over: Callable[[], bool]) -> None:
        """And until it is there again."""
        before = self.server.postmaster
        assert before is not None
        signal_process(before, signal.SIGKILL)
        self.assertFalse(is_over(), "it was not in the middle")
        await until(reactor, lambda: self.server.postmaster not in (None, before))

    def shown(self) -> list[str]:
        return [path.name for path in self.there.iterdir() if not path.name.startswith(".")]

    def length(self) -> int:
        """Of what is there of the file that is fetched."""
        return max((path.stat().st_size for path in self.there.glob(".*.part")), default=0)

    async def test_at_both_ends_and_in_between(self) -> None:
        server = await self.begin()
        film = self.folder / "the-film-of-last-summer.mkv"
        film.write_bytes(FILM)
        sending = ("send", "bob", "look", "--file", str(film), "--json")
        alice = self.start("alice", *sending)
        await self.has_stored(lambda chunks: chunks > 0)
        alice.signal(signal.SIGKILL)
        await server.kill()
        await alice.ended
        first = await self.stored()
        self.assertTrue(0 < first < CHUNKS, first)
        await server.start()

        alice = self.start("alice", *sending)
        alice.close_stdin()
        await self.has_stored(lambda chunks: chunks > first)
        await self.kill_the_database(lambda: bool(lines(alice, "file-sent")))
        self.assertEqual(await alice.ended, 0, alice.err)
        self.assertGreaterEqual(lines(alice, "transfer")[0]["done"], first * PIECE, "it began at the beginning")
        [sent] = lines(alice, "file-sent")
        self.assertEqual(
            await server.rows("SELECT replace(id::text, '-', ''), chunks, stored FROM attachments"),
            [(sent["attachment"], CHUNKS, CHUNKS)],
        )
        self.assertEqual(list((self.folder / "alice" / "outgoing").iterdir()), [])

        [message] = await self.receive("bob")
        assert message.file is not None
        self.assertEqual((message.text, message.file.name), ("look", film.name))
        fetching = ("fetch", "alice", "--to", str(self.there), "--json")
        bob = self.start("bob", *fetching)
        await until(reactor, lambda: self.length() > 8 * PIECE)
        bob.signal(signal.SIGKILL)
        await server.kill()
        await bob.ended
        self.assertEqual(self.shown(), [])
        first = self.length()
        self.assertTrue(8 * PIECE < first < len(FILM), first)
        await server.start()

        bob = self.start("bob", *fetching)
        bob.close_stdin()
        await until(reactor, lambda: self.length() > first + 8 * PIECE or bool(self.shown()))
        await self.kill_the_database(lambda: bool(self.shown()))
        self.assertEqual(await bob.ended, 0, bob.err)
        self.assertGreaterEqual(lines(bob, "transfer")[0]["done"], first - PIECE, "it began at the beginning")
        self.assertEqual([path.name for path in self.there.iterdir()], [film.name])
        self.assertTrue((self.there / film.name).read_bytes() == FILM)
        await self.has_stored(lambda chunks: chunks == 0)  # the only one who was sent it says that he has it
        log = (server.home / "log" / "fastchat.log").read_text()
        self.assertEqual((tracebacks(log), self.noted), ([], []))
        for secret in (film.name, sent["attachment"]):
            self.assertNotIn(secret, log)


MEASURED = f"""import sys
def peak():
    [line] = [line for line in open("/proc/self/status") if line.startswith("VmHWM")]
    print("peak", line.split()[1], file=sys.stderr)
sys.exit = lambda code, exit=sys.exit: (peak(), exit(code))
{MAIN}
"""
"""The program, which says in the end the most memory that it has had, in KiB."""
LARGE = 48 * 2**20 + 1
MORE = 16 * 2**10
"""KiB: a third of the file. As measured once, for a byte and for 300 MiB: 73,056 and 71,888 of who
sends it, 72,004 and 74,028 of who fetches it."""


class Large(ProgramsCase):
    """Files with holes. One of 300 MiB takes half a minute on its way over the network: here it is a smaller one, and
    300 MiB for what is done on the disks alone; the spool of the one who sends it is in `test_spool`."""

    async def test_neither_program_takes_more_memory_for_a_large_file(self) -> None:
        await self.joined("alice", "bob", attachments=AttachmentLimits(largest=2**30))
        there = self.folder / "there"
        there.mkdir()
        peaks = []
        for name, size in (("small.img", 1), ("large.img", LARGE)):
            source = self.folder / name
            with source.open("wb") as file:
                file.truncate(size)
            sending = await self.peak("alice", "send", "bob", "--file", str(source))
            await self.receive("bob")
            peaks.append((sending, await self.peak("bob", "fetch", "alice", "--to", str(there))))
            self.assertEqual((there / name).stat().st_size, size)
        (send_little, fetch_little), (send_much, fetch_much) = peaks
        self.assertLess(send_much - send_little, MORE, peaks)
        self.assertLess(fetch_much - fetch_little, MORE, peaks)

    async def test_300_mib_are_saved_piece_by_piece(self) -> None:
        size, piece = 300 * 2**20 + 1, bytes(PIECE)
        part = Part(self.folder / ".large.img.part", size)
        tracemalloc.start()
        try:
            part.open()
            while part.length < size:
                part.write(piece[: size - part.length])
                if part.length - part.hashed >= SLICE or part.length == size:
                    part.hash_on(part.length)
            while part.hashed < size:
                part.hash_on(size)
            path = part.finish(part._hash.digest(), "large.img")
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
            part.discard()
        self.addCleanup(path.unlink)
        self.assertEqual(path.stat().st_size, size)
        self.assertLess(peak, 4 * 2**20)

    async def peak(self, who: str, *arguments: str) -> int:
        command = self.start(who, *arguments, code=MEASURED)
        command.close_stdin()
        self.assertEqual(await command.ended, 0, command.err)
        [line] = [line for line in command.err.decode().splitlines() if line.startswith("peak ")]
        return int(line.split()[1])
