"""Members who send files to each other over the real network, and what a test wants to know of these: events in the
order in which anybody was told of anything, what lies in a folder, and what the database has."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any, TypeVar

import psycopg2
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from fastchat.config import AttachmentLimits
from fastchat.protocols.wire import CHUNK_SIZE
from fastchat_client import attachment_words, files
from fastchat_client.attaching import Attaching
from fastchat_client.connection import Connection
from fastchat_client.dial import Line, dial
from fastchat_client.events import Event, FileSaved, FileSent, GroupInvited, MessageReceived, TransferFailed
from fastchat_client.group_acting import InviteAct, JoinAct, act_state
from tests.chaos.proxy import Link, Proxy
from tests.support.attaching import attach
from tests.support.running import Member, RunningNetwork, all_of, until

Told = TypeVar("Told")


class Friend(Member):
    """A member who sends files, and saves what comes in `folder`. What they are told is in `journal` too, with their
    name. `proxy`: between them and the services."""

    def __init__(
        self, network: RunningNetwork, user: str, journal: list[tuple[str, Event]], proxy: Proxy | None = None
    ) -> None:
        super().__init__(network, user, Random(user))
        self.folder = self._home / "saved"
        self.folder.mkdir()
        self.may_dial: Callable[[], bool] = lambda: True
        self.watch: Callable[[Event], None] = lambda event: None
        """Called with each event, at once."""
        self._journal = journal
        self._ports = proxy.ports[0] if proxy is not None else {}

    def start(self) -> None:
        super().start()
        self.attaching = Attaching(self.vault, self.core.outgoing, self._reactor, self.core.compose)

    async def send_file(self, to: str, path: Path, text: str = "", *, original: bool = False) -> str:
        """Its attachment."""
        attachment = await self.attaching.attach(to, path, text, original, "", lambda done, size: None)
        self.connection.flush()
        return attachment

    def describe(self, to: str, data: bytes, name: str) -> str:
        """Send it under a name of any kind; its attachment."""
        attachment = attach(self.core, to, data, name)
        self.connection.flush()
        return attachment

    def told(self, kind: type[Told]) -> list[Told]:
        return [event for event in self.events if isinstance(event, kind)]

    async def tells(self, kind: type[Told], count: int = 1) -> list[Told]:
        """So many, once there are."""
        await until(self._reactor, lambda: len(self.told(kind)) >= count)
        return self.told(kind)

    async def brought(self, attachment: str) -> MessageReceived:
        """The message that has brought it, once it is here."""

        def found() -> list[MessageReceived]:
            return [one for one in self.told(MessageReceived) if one.file and one.file.attachment == attachment]

        await until(self._reactor, lambda: bool(found()))
        return found()[0]

    def fetch(self, message: MessageReceived) -> None:
        self.core.fetch(message.id, self.folder)
        self.connection.flush()

    async def fetched(self, attachment: str) -> Path:
        """Where it was saved. Fails with what they were told if it was not."""
        message = await self.brought(attachment)
        self.fetch(message)

        def ends() -> list[FileSaved | TransferFailed]:
            told: list[FileSaved | TransferFailed] = [*self.told(FileSaved), *self.told(TransferFailed)]
            return [event for event in told if event.attachment == attachment]

        await until(self._reactor, lambda: bool(ends()))
        [end] = ends()
        assert isinstance(end, FileSaved), end
        await self.has_said_all()
        return Path(end.path)

    async def has_said_all(self) -> None:
        """Until the network has heard what there is to say of files, and nothing is left of their parts."""
        vault = self.vault
        await until(self._reactor, lambda: not files.leftovers(vault) and not attachment_words.open_words(vault, 1))

    def shown(self) -> list[str]:
        """What a person sees in their folder who does not look for hidden files."""
        return sorted(path.name for path in self.folder.iterdir() if not path.name.startswith("."))

    def _make_connection(self) -> Connection:
        return Connection(
            self.core, self, self._reactor, self._random, self._tell, self._dial, longest=lambda tries: 0.0
        )

    def _dial(self, reactor: Any, host: str, port: int, pin: bytes) -> Deferred[Line]:
        async def when_it_may() -> Line:
            await until(reactor, lambda: self.may_dial())
            return await dial(reactor, host, self._ports.get(port, port), pin)

        return Deferred.fromCoroutine(when_it_may())

    def _tell(self, events: list[Event]) -> None:
        self._journal += [(self.user, event) for event in events]
        super()._tell(events)
        for event in events:
            self.watch(event)


class FilesCase(TestCase):
    """A network and its friends."""

    timeout = 240

    async def begin(self, *users: str, attachments: AttachmentLimits | None = None) -> list[Friend]:
        from twisted.internet import reactor

        self.reactor: Any = reactor
        self.network = await RunningNetwork.start(self, attachments)
        self.journal: list[tuple[str, Event]] = []
        self.sources = Path(self.mktemp()).absolute()
        self.sources.mkdir()
        return await self.friends(*users)

    async def friends(self, *users: str, proxy: Proxy | None = None) -> list[Friend]:
        found = [Friend(self.network, user, self.journal, proxy) for user in users]
        for friend in found:
            self.addCleanup(friend.stop)
            friend.start()
        await all_of([friend.connected() for friend in found])
        return found

    def proxy(self, made: Callable[[Link], None]) -> Proxy:
        """Before all chat services; the balancer is reached without it."""
        proxy = Proxy(1, self.network.running.services, self.reactor)
        proxy.made = made
        self.addCleanup(lambda: Deferred.fromCoroutine(proxy.stop()))
        return proxy

    def source(self, name: str, data: bytes) -> Path:
        path = self.sources / name
        path.write_bytes(data)
        return path

    async def group(self, owner: Friend, *members: Friend) -> str:
        _, group = owner.core.group_create("team", "")
        for member in members:
            owner.core.group_act(group, InviteAct(member.user, 0))
        owner.connection.flush()
        for member in members:
            await member.tells(GroupInvited)
            joining = member.core.group_act(group, JoinAct())
            member.connection.flush()
            await until(self.reactor, lambda: act_state(member.vault, joining).done)  # noqa: B023
        return group

    async def rows(self, sql: str) -> list[tuple[Any, ...]]:
        return await deferToThread(_rows, self.network.config.database.dsn or "", sql)

    async def stored(self) -> tuple[int, int]:
        """How many attachments and chunks the database has."""
        [(attachments,)] = await self.rows("SELECT count(*) FROM attachments")
        [(chunks,)] = await self.rows("SELECT count(*) FROM attachment_chunks")
        return attachments, chunks

    async def has_stored(self, attachments: int, chunks: int) -> None:
        """Until it has so many."""
        seen: list[tuple[int, int]] = []

        async def look() -> None:
            while not seen or seen[-1] != (attachments, chunks):
                seen.append(await self.stored())

        looking = Deferred.fromCoroutine(look()).addTimeout(60, self.reactor)
        await looking.addErrback(lambda failure: self.fail(f"{seen[-1]}: {failure.getErrorMessage()}"))

    async def sent(self, friend: Friend, attachment: str) -> None:
        def is_sent() -> bool:
            failed = [event for event in friend.told(TransferFailed) if event.attachment == attachment]
            self.assertEqual(failed, [])
            return any(event.attachment == attachment for event in friend.told(FileSent))

        await until(self.reactor, is_sent)


def _rows(dsn: str, sql: str) -> list[tuple[Any, ...]]:
    connection = psycopg2.connect(dsn)
    try:
        with connection.cursor() as cursor:
            cursor.execute(sql)
            return cursor.fetchall()
    finally:
        connection.close()


def random_bytes(chunks: int) -> bytes:
    """Of a file of so many chunks, the last of which is not full."""
    return os.urandom(chunks * (CHUNK_SIZE - 16) - 1000)
