"""A file over the network, up and down: `python -m benchmarks.attachments [MIB] [--runs N]`.

The server is the real one, in a process of its own; the clients are real ones, all in this process: with their vaults,
on TLS, and on disk what they spool and save. In every other round somebody writes over the same connection while the
file is on its way, and the time until a text is there stands beside that of the same texts without a file. Where nginx
and curl are, curl brings the same file to nginx over TLS, and fetches it, in the same run; nginx does not sync what it
is given to disk.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall, deferLater

from benchmarks.nginx import Nginx
from benchmarks.server import Cpu, Home, Server
from fastchat.identity.invite import Invite
from fastchat_client.events import Connected, Event, FileSaved, FileSent, MessageReceived, MessageState, TransferFailed
from fastchat_client.messenger import Messenger, new_facts, prepare
from fastchat_client.password import Cost
from fastchat_client.profile import Profile
from fastchat_client.running import Running, run

MIB = 1024 * 1024
TEXTS_PER_SECOND = 15
ALONE_SECONDS = 8.0
"""For which texts are sent without a file."""
PAUSE_SECONDS = 3.0
"""Between two rounds: the disk, and the database, are still busy with removing what the last one has left."""
PATIENCE = 600.0
CONFIG = """
[attachments]
largest = 4_294_967_296
quota = 34_359_738_368
"""


class Row(NamedTuple):
    what: str
    rate: str
    cost: str = ""
    note: str = ""


class Person:
    """A real client, and what was waited for of its events."""

    def __init__(self, reactor: Any, folder: Path, name: str, link: str) -> None:
        invite = Invite.parse(link)
        self.name = name
        self.profile = Profile.create(folder / name, new_facts(name, invite, Cost(1, 8192, 1)))
        self.vault, enrolment = prepare(self.profile, "correct horse", invite, None)
        self.messenger = Messenger(self.profile, self.vault, reactor, self._told, enrolment)
        self.texts: dict[str, float] = {}
        """When a text came."""
        self._waiting: list[tuple[Callable[[Event], bool], Deferred[Event]]] = []

    def _told(self, events: list[Event]) -> None:
        for event in events:
            if isinstance(event, TransferFailed) or (isinstance(event, MessageState) and event.reason):
                sys.exit(f"{self.name}: {event}")
            if isinstance(event, MessageReceived):
                self.texts[event.text] = time.perf_counter()
            for entry in [entry for entry in self._waiting if entry[0](event)]:
                self._waiting.remove(entry)
                entry[1].callback(event)

    def hears(self, wanted: Callable[[Event], bool]) -> Deferred[Event]:
        heard: Deferred[Event] = Deferred()
        self._waiting.append((wanted, heard))
        return heard


class Chatter:
    """Texts from one to another, and how long each took."""

    def __init__(self, reactor: Any, sender: Person, recipient: Person) -> None:
        self._sender, self._recipient = sender, recipient
        self._reactor = reactor
        self._sent: dict[str, float] = {}
        self._calls = LoopingCall(self._say)

    def start(self) -> None:
        self._failed = self._calls.start(1 / TEXTS_PER_SECOND)

    async def stop(self) -> list[float]:
        """Milliseconds of each."""
        self._calls.stop()
        await self._failed
        while not self._sent.keys() <= self._recipient.texts.keys():
            await deferLater(self._reactor, 0.02)
        return [(self._recipient.texts[text] - sent) * 1000 for text, sent in self._sent.items()]

    def _say(self) -> None:
        text = f"{self._sender.name} {len(self._sent)} {time.monotonic_ns()}"
        self._sent[text] = time.perf_counter()
        self._sender.messenger.send(self._recipient.name, text)


class Measured(NamedTuple):
    seconds: float
    server: Cpu
    client: float
    delays: list[float]


class Bench:
    def __init__(self, reactor: Any, server: Server, folder: Path, link: str, file: Path, runs: int) -> None:
        self.reactor = reactor
        self.server = server
        self.folder = folder
        self.file = file
        self.mib = file.stat().st_size / MIB
        self.runs = runs
        self.people = [Person(reactor, folder, name, link) for name in ("alice", "bob", "carol")]

    async def run(self) -> list[Row]:
        alice, bob, carol = self.people
        for person in self.people:
            connected = person.hears(lambda event: isinstance(event, Connected))
            person.messenger.start()
            await connected
        for one in self.people:
            for other in self.people:
                if one is not other:
                    there = other.hears(lambda event: isinstance(event, MessageReceived))
                    one.messenger.send(other.name, f"hello from {one.name}")
                    await there
        alone = [await self._texts(alice, carol), await self._texts(carol, bob)]
        ups, downs, prepared, sent, fetched = [], [], [], [], []
        for _ in range(self.runs):
            seconds, up, down = await self._round(alice, bob, carol, texts=False)
            prepared.append(seconds)
            ups.append(up)
            downs.append(down)
            _, up, down = await self._round(alice, bob, carol, texts=True)
            sent += up.delays
            fetched += down.delays
        for person in self.people:
            await person.messenger.stop()
            person.vault.close()
        what = f"{self.mib:.0f} MiB"
        return [
            Row(f"{what}, encrypted and spooled", self._rate(statistics.median(prepared))),
            self._row(f"{what} up, durable", ups),
            self._row(f"{what} down, verified and on disk", downs),
            _delay("a text alone", [delay for delays in alone for delay in delays]),
            _delay("a text behind a file that is sent", sent),
            _delay("a text behind a file that is fetched", fetched),
        ]

    async def _round(
        self, alice: Person, bob: Person, carol: Person, *, texts: bool
    ) -> tuple[float, Measured, Measured]:
        came = bob.hears(lambda event: isinstance(event, MessageReceived) and event.file is not None)
        sent = alice.hears(lambda event: isinstance(event, FileSent))
        began = time.perf_counter()
        await alice.messenger.send_file("bob", self.file)
        seconds = time.perf_counter() - began
        up = await self._measure(sent, Chatter(self.reactor, alice, carol) if texts else None)
        message = await came
        assert isinstance(message, MessageReceived)
        saved = bob.hears(lambda event: isinstance(event, FileSaved))
        bob.messenger.fetch(message.id, self.folder)
        down = await self._measure(saved, Chatter(self.reactor, carol, bob) if texts else None)
        event = await saved
        assert isinstance(event, FileSaved)
        if not _same(Path(event.path), self.file):
            sys.exit("what came is not what was sent")
        os.unlink(event.path)
        await deferLater(self.reactor, PAUSE_SECONDS)
        return seconds, up, down

    async def _measure(self, done: Deferred[Event], chatter: Chatter | None) -> Measured:
        ended: list[float] = []

        def over(event: Event) -> Event:
            ended.append(time.perf_counter())
            return event

        done.addCallback(over)
        cpu, own, began = self.server.cpu(), time.process_time(), time.perf_counter()
        if chatter is not None:
            chatter.start()
        while not ended:
            if time.perf_counter() - began > PATIENCE:
                sys.exit("the file did not come to its end")
            await deferLater(self.reactor, 0.01)
        used, spent = self.server.cpu().since(cpu), time.process_time() - own
        return Measured(ended[0] - began, used, spent, await chatter.stop() if chatter is not None else [])

    async def _texts(self, sender: Person, recipient: Person) -> list[float]:
        chatter = Chatter(self.reactor, sender, recipient)
        chatter.start()
        await deferLater(self.reactor, ALONE_SECONDS)
        return await chatter.stop()

    def _row(self, what: str, runs: list[Measured]) -> Row:
        seconds = statistics.median(run.seconds for run in runs)
        twistd, postgres, client = (
            statistics.median(cpus) * 1000 / self.mib
            for cpus in (
                [run.server.twistd for run in runs],
                [run.server.postgres for run in runs],
                [run.client for run in runs],
            )
        )
        cost = f"{twistd:.1f} + {postgres:.1f} ms/MiB"
        return Row(what, self._rate(seconds), cost, f"all clients: {client:.1f} ms/MiB")

    def _rate(self, seconds: float) -> str:
        return f"{self.mib / seconds:.0f} MiB/s"


def _delay(what: str, delays: list[float]) -> Row:
    cuts = statistics.quantiles(delays, n=100)
    note = f"most {max(delays):.1f} ms, {len(delays)} texts"
    return Row(what, f"p50 {cuts[49]:.1f} / p99 {cuts[98]:.1f} ms", "", note)


def _same(one: Path, other: Path) -> bool:
    with one.open("rb") as left, other.open("rb") as right:
        while piece := left.read(MIB):
            if piece != right.read(MIB):
                return False
        return not right.read(1)


def _peer(file: Path, folder: Path, runs: int) -> list[Row]:
    """The same file by curl to nginx and back."""
    missing = [program for program in ("nginx", "curl", "openssl") if shutil.which(program) is None]
    if missing:
        return [Row("curl to nginx over TLS", "not measured", "", f"missing: {', '.join(missing)} (apt install)")]
    mib = file.stat().st_size / MIB
    rows = []
    with Nginx(folder / "nginx") as nginx:
        for what, move in (
            ("up, not durable", lambda: nginx.put(file)),
            ("down", lambda: nginx.get(file.name, folder / "fetched")),
        ):
            seconds, costs = [], []
            for _ in range(runs):
                cpu, began = nginx.cpu(), time.perf_counter()
                move()
                seconds.append(time.perf_counter() - began)
                costs.append((nginx.cpu() - cpu) * 1000 / mib)
            rate = f"{mib / statistics.median(seconds):.0f} MiB/s"
            rows.append(Row(f"{mib:.0f} MiB by curl, nginx, {what}", rate, f"{statistics.median(costs):.1f} ms/MiB"))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.attachments", description=__doc__)
    parser.add_argument("mib", nargs="?", type=int, default=200)
    parser.add_argument("--runs", type=int, default=3, help="of which the median is shown (default: 3)")
    options = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fastchat-files-")))
        file = folder / "file.bin"
        with file.open("wb") as out:
            for _ in range(options.mib):
                out.write(os.urandom(MIB))
        home = stack.enter_context(Home())
        server = stack.enter_context(Server(home, CONFIG))
        link = (home / "invite").read_text().strip()
        rows: list[Row] = []

        def life(running: Running) -> Coroutine[Any, Any, int]:
            bench = Bench(running.reactor, server, folder, link, file, options.runs)

            async def body() -> int:
                rows.extend(await bench.run())
                return 0

            return body()

        run(life)
        rows += _peer(file, folder, options.runs)
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


if __name__ == "__main__":
    main()
