"""Conversations between cores, without sockets or a wall clock, to be read like a script:

    alice, bob = scene.person("alice"), scene.person("bob")
    alice.says("bob", "hello")
    scene.settle()
    bob.reads("alice") == ["hello"]

Whatever goes between a core and the network goes as the wire's bytes.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from fastchat.identity.root import RootKey
from fastchat.protocols import wire
from fastchat_client import speaking
from fastchat_client.content import File
from fastchat_client.core import Core
from fastchat_client.entrance import Enrolment
from fastchat_client.events import Event, MessageState, State
from fastchat_client.joining import prepare_enrolment, prepare_registration
from fastchat_client.vault import HistoryItem, Vault
from tests.support.attaching import attach
from tests.support.keys import root_key
from tests.support.network import INVITE, Line, Network

DAY = 86_400.0
_MOST_ROUNDS = 10_000

Kind = TypeVar("Kind")


class Killed(Exception):
    """The process is dead."""


class MortalVault(Vault):
    """A vault whose process can be killed at a commit. `lives`: commits that it survives, None for all; `dies_after`:
    the commit that kills is done, but nobody hears of it. Transactions that wrote nothing do not count."""

    lives: int | None = None
    dies_after = False
    commits = 0
    _changes = 0

    def begin(self) -> None:
        super().begin()
        self._changes = self._db.total_changes

    def commit(self) -> None:
        counts = self._db.total_changes != self._changes
        kills = counts and self.lives is not None and self.commits >= self.lives
        if kills and not self.dies_after:
            raise Killed
        super().commit()
        self.commits += counts
        if kills:
            raise Killed


class SceneTest(TestCase):
    """A test with a scene of its own."""

    def setUp(self) -> None:
        self.scene = Scene(self.mktemp())
        self.addCleanup(self.scene.close)
        self.network = self.scene.network


class Scene:
    """A network, its people and the time; it is 1.8 thousand million seconds after 1970 when it begins. `folder`: where
    vaults may be."""

    def __init__(self, folder: str) -> None:
        self.clock = Clock()
        self.clock.advance(1_800_000_000)
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.network = Network(self.clock.seconds)
        self.people: list[Person] = []
        self._vaults = 0

    def person(self, name: str, *, root: RootKey | None = None, connect: bool = True) -> Person:
        """A new account with one device, registered and connected unless told otherwise."""
        root = root or root_key(sum(person.is_first for person in self.people))
        vault, key, path = self._vault()
        now = int(self.clock.seconds() * 1000)
        prepare_registration(vault, name, root, self.network.log_public, INVITE, f"password of {name}", now)
        return self._enter(Person(self, name, root, path, key, vault, None), connect)

    def further_device(self, person: Person, *, password: str = "", connect: bool = True) -> Person:
        """Another device of the same account, enrolled with its RSA key and password."""
        vault, key, path = self._vault()
        now = int(self.clock.seconds() * 1000)
        prepare_enrolment(vault, person.name, person.root, self.network.log_public, now)
        enrolment = Enrolment(person.root, password or f"password of {person.name}")
        return self._enter(Person(self, person.name, person.root, path, key, vault, enrolment), connect)

    def settle(self) -> None:
        """Until nobody has anything to say."""
        for _ in range(_MOST_ROUNDS):
            talking = [person for person in self.people if person.exchange()]
            if not talking:
                return
        raise AssertionError("they never stop talking")

    def pass_time(self, seconds: float, step: float = 1.0) -> None:
        """Time passes in steps; those who are connected tick, and talk."""
        end = self.clock.seconds() + seconds
        while self.clock.seconds() < end:
            self.clock.advance(min(step, end - self.clock.seconds()))
            for person in self.people:
                if person.line is not None:
                    person.core.tick()
            self.settle()

    def close(self) -> None:
        for person in self.people:
            person.vault.close()

    def _vault(self) -> tuple[MortalVault, bytes, Path]:
        self._vaults += 1
        key, path = os.urandom(32), self.folder / f"vault-{self._vaults}.db"
        return MortalVault.create(path, key), key, path

    def _enter(self, person: Person, connect: bool) -> Person:
        self.people.append(person)
        if connect:
            person.connects()
            self.settle()
        return person


class Person:
    """One device of somebody: its core, and its connection if it has one."""

    def __init__(
        self,
        scene: Scene,
        name: str,
        root: RootKey,
        path: Path,
        key: bytes,
        vault: MortalVault,
        enrolment: Enrolment | None,
    ) -> None:
        self.scene = scene
        self.name = name
        self.root = root
        self.vault = vault
        self.wall_ahead = 0.0
        """Seconds by which their machine's clock is ahead of the true time."""
        self.folder: Path | None = None
        """Where files go that nobody has asked for."""
        self.outgoing = path.with_suffix(".outgoing")
        wall, clock = self.wall, scene.clock.seconds
        self.core = Core(vault, clock, wall, enrolment=enrolment, outgoing=self.outgoing)
        self.line: Line | None = None
        self.events: list[Event] = []
        self.is_first = enrolment is None
        self.said: list[wire.ClientMessage] = []
        self.chunks: list[wire.WithBytes] = []
        """Those that were sent."""
        self._path = path
        self._key = key
        self._enrolment = enrolment

    @property
    def device(self) -> str:
        return self.vault.text("device")

    def connects(self) -> None:
        self.line = self.scene.network.connect(os.urandom(32))
        self.core.opened(self.line.binding)

    def disconnects(self) -> None:
        """The connection breaks; what was on it is lost."""
        if self.line is not None:
            self.line.close()
            self.line = None
        self.core.closed()
        self.events += self.core.take_events()

    def dies(self) -> None:
        """The process is killed, and started again; it is not connected."""
        if self.line is not None:
            self.line.close()
            self.line = None
        self.vault.close()
        self.vault = MortalVault.open(self._path, self._key)
        wall, clock = self.wall, self.scene.clock.seconds
        enrolment, folder = self._enrolment, self.folder
        self.core = Core(self.vault, clock, wall, enrolment=enrolment, outgoing=self.outgoing, folder=folder)
        if self.scene.network.files.chunks:
            gc.collect()  # a process that is gone holds no file open

    def wall(self) -> float:
        return self.scene.clock.seconds() + self.wall_ahead

    def another_process(self) -> Vault:
        """The vault as another process of this profile has it; the caller closes it."""
        return Vault.open(self._path, self._key)

    def exchange(self) -> bool:
        """Say what is to be said, hear what was said; whether there was anything."""
        busy = False
        for message in self.core.take_messages():
            self.said.append(message)
            if self.line is not None:
                busy = True
                self.line.say(wire.encode(message))
        while self.line is not None and (asked := self.core.next_chunk()) is not None:
            busy = True
            if isinstance(asked, wire.WithBytes):
                self.chunks.append(asked)
                self.line.say(wire.encode(asked.message), asked.data)
            else:
                self.line.say(wire.encode(asked))
        while self.line is not None and self.line.heard:
            busy = True
            heard = self.line.heard.popleft()
            self.core.receive(heard if isinstance(heard, wire.WithBytes) else wire.decode_server_message(heard))
        for work in self.core.take_work():
            busy = True
            self.core.worked(work, outcome(work.run))
        self.events += self.core.take_events()
        if self.line is not None and self.core.wants_close is not None:
            self.disconnects()
        return busy

    def attaches(self, to: str, data: bytes, name: str = "notes.txt", **changes: Any) -> str:
        """Note a file to be sent; its attachment."""
        return attach(self.core, to, data, name, **changes)

    def brings(self, to: str, file: File) -> str:
        """A message with a file that is on the network; its id."""
        return self.core.compose(lambda vault, at: speaking.compose_file(vault, to, file, at))

    def says(self, to: str, text: str, reply: str = "") -> str:
        """The message's id."""
        return self.core.send_text(to, text, reply)

    def reacts(self, message_id: str, emoji: str, *, remove: bool = False) -> str:
        return self.core.compose(lambda vault, at: speaking.compose_reaction(vault, message_id, emoji, remove, at))

    def edits(self, message_id: str, text: str) -> str:
        return self.core.compose(lambda vault, at: speaking.compose_edit(vault, message_id, text, at))

    def deletes(self, message_id: str) -> str:
        return self.core.compose(lambda vault, at: speaking.compose_delete(vault, message_id, at))

    def sets_timer(self, conversation: str, seconds: int) -> str:
        return self.core.compose(lambda vault, at: speaking.compose_timer(vault, conversation, seconds, at))

    # --- what came of it ---------------------------------------------------------------------------------------------

    def reads(self, conversation: str) -> list[str]:
        """The texts that came in it from others, in order; an unreadable one as "?"."""
        items = self.vault.history(conversation, 100_000)
        return ["?" if item.unreadable else item.text for item in items if not item.own]

    def shown(self, message_id: str) -> HistoryItem | None:
        """The message as it stands in the history; None if it does not."""
        names = [one.user for one in self.vault.conversations()]
        items = [item for name in names for item in self.vault.history(name, 100_000) if item.id == message_id]
        return items[0] if items else None

    def told(self, kind: type[Kind]) -> list[Kind]:
        """The events of a kind."""
        return [event for event in self.events if isinstance(event, kind)]

    def states(self, message_id: str) -> list[State]:
        """Those that a message went through."""
        return [event.state for event in self.events if isinstance(event, MessageState) and event.id == message_id]


def outcome(run: Callable[[], object]) -> object:
    """What it returns, or the exception that it raises."""
    try:
        return run()
    except Exception as problem:
        return problem
