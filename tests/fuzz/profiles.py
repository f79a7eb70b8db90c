"""What the client's targets begin with: people who have talked, made once, and copied for each input: their vaults, and
the network's memory of them.

alice has two devices and a past with bob and carol; a message of hers still waits. They and bob are in a group, which
has been renamed. mallory has an account, and is whom
the server would like to be.
"""

from __future__ import annotations

import copy
import itertools
import shutil
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from fastchat.identity.links import sign_add_device, sign_genesis
from fastchat.protocols import wire
from fastchat.protocols.wire import ServerMessage
from fastchat_client.group_acting import InviteAct, JoinAct, RenameAct
from tests.support.conversation import MortalVault, Person, Scene
from tests.support.keys import root_key
from tests.support.network import Network

_numbers = itertools.count()


@dataclass(frozen=True)
class Past:
    """`heard`: every message that the network has said to anybody, with the device that it was for. `said`: (device, n)
    and what a person wrote there. `scene`: closed; to be copied."""

    scene: Scene
    heard: list[tuple[str, ServerMessage]]
    said: dict[tuple[str, int], tuple[str, str, str]]
    group: str
    """The group's conversation."""
    impostor: tuple[wire.Signed, ...]
    """A chain of bob's name with another root, and mallory's device."""


def folder() -> Path:
    """Of this process, gone with it."""
    return Path(_folder().name)


@cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="fastchat-fuzz-")


@cache
def past() -> Past:
    scene = Scene(str(folder() / "past"))
    heard: list[tuple[str, ServerMessage]] = []
    said: dict[tuple[str, int], tuple[str, str, str]] = {}

    def listen(device: str, message: ServerMessage) -> list[ServerMessage]:
        heard.append((device, message))
        return [message]

    scene.network.mangle = listen
    alice, bob, carol = (scene.person(name) for name in ("alice", "bob", "carol"))
    mallory = scene.person("mallory")
    phone = scene.further_device(alice)
    for number in range(3):
        for person, to in ((alice, "bob"), (bob, "alice"), (carol, "alice"), (phone, "bob")):
            speak(said, person, to, f"{person.name} to {to}: {number}")
            scene.settle()
    group = _group(scene, said, alice, bob, phone)
    scene.pass_time(3)
    alice.core.mark_read("bob")
    scene.pass_time(3)
    alice.disconnects()
    for number in range(2):
        speak(said, alice, "bob", f"alice to bob, later: {number}")
        speak(said, bob, "alice", f"bob to alice, later: {number}")
        scene.settle()
    for person in scene.people:
        if person.line is not None:
            person.disconnects()
    keys = mallory.vault.blob("ed25519"), mallory.vault.blob("curve25519")
    scene.close()
    genesis = sign_genesis(root_key(5), "bob")
    added = sign_add_device(root_key(5), [genesis], "bob", *keys, 0)
    return Past(scene, heard, said, group, (genesis, added))


def _group(scene: Scene, said: dict[tuple[str, int], tuple[str, str, str]], owner: Person, *others: Person) -> str:
    """The conversation of a group in which something was said before and after a change."""
    _, group = owner.core.group_create("team", "of the fuzz")
    scene.settle()
    for person in others:
        if person.name != owner.name:
            owner.core.group_act(group, InviteAct(person.name, history=7))
            scene.settle()
            person.core.group_act(group, JoinAct())
            scene.settle()
    for person in (owner, *others):
        speak(said, person, group, f"{person.name} to all")
        scene.settle()
    owner.core.group_act(group, RenameAct("crew"))
    scene.settle()
    speak(said, others[0], group, "after that")
    scene.settle()
    return group


def speak(said: dict[tuple[str, int], tuple[str, str, str]], person: Person, to: str, text: str) -> str:
    """A message; note who wrote it, where, and what. Its id."""
    message_id = person.says(to, text)
    said[person.device, int(message_id.partition(".")[2])] = (person.name, to, text)
    return message_id


class QuickVault(MortalVault):
    """One that no power cut will hit."""

    def __init__(self, connection: object) -> None:
        super().__init__(connection)
        self._db.execute("PRAGMA synchronous = OFF")
        self._db.execute("PRAGMA journal_mode = MEMORY")


class Copy:
    """The past again, for one input: the same people with vaults of their own, not connected. Carol and the phone stay
    away; what is sent to them waits for them."""

    def __init__(self) -> None:
        old = past()
        self.folder = folder() / str(next(_numbers))
        self.folder.mkdir()
        self.scene = Scene(str(self.folder))
        self.scene.clock.advance(old.scene.clock.seconds() - self.scene.clock.seconds())
        self.network = self.scene.network
        self._remember(old.scene.network)
        self.said = dict(old.said)
        self.people = {person.name: self._person(person) for person in old.scene.people[:2]}

    def _remember(self, old: Network) -> None:
        self.network.log_key = old.log_key
        self.network.accounts = copy.deepcopy(old.accounts)
        self.network.devices = copy.deepcopy(old.devices)
        self.network.leaves = list(old.leaves)
        self.network.groups.chains = copy.deepcopy(old.groups.chains)

    def _person(self, old: Person) -> Person:
        path = self.folder / f"{old.name}.db"
        shutil.copy(old._path, path)
        vault = QuickVault.open(path, old._key)
        person = Person(self.scene, old.name, old.root, path, old._key, vault, None)
        self.scene.people.append(person)
        return person

    def close(self) -> None:
        self.scene.close()
        shutil.rmtree(self.folder)
