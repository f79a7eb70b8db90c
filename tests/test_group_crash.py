"""Pull the plug at every commit of a group's life, before it and after it: nobody loses a message, sees one twice, or
encrypts two at one place of a session's ratchet."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from msgspec import Raw

from fastchat.protocols import wire
from fastchat_client import ratchet
from fastchat_client.events import GroupAlarm
from fastchat_client.group_acting import InviteAct, JoinAct, RenameAct
from fastchat_client.groups import group_info, group_list
from fastchat_client.megolm import InboundGroup, read_group_body
from tests.support.conversation import Killed, Person, Scene, SceneTest
from tests.support.group_scene import texts

SCRIPT = ["found", "alice 1", "invite bob", "bob joins", "alice 2", "bob 3", "rename", "alice 4", "bob 5"]


class Play:
    """alice founds a group and invites bob; both write. One of them dies once."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.people = {name: scene.person(name) for name in ("alice", "bob")}
        self.alice, self.bob = self.people.values()
        self.deaths = 0
        self.only_fails = False
        """The commit fails, and the process lives on."""

    def run(self, victim: str, lives: int | None, dies_after: bool) -> None:
        vault = self.people[victim].vault
        vault.lives, vault.dies_after = lives, dies_after
        for line in SCRIPT:
            self._survive(lambda line=line: self._does(line))  # type: ignore[misc]
            self._survive(lambda: self.scene.pass_time(2))
        self._survive(lambda: self.scene.pass_time(10))

    @property
    def team(self) -> str:
        return group_list(self.alice.vault)[0].conversation

    def _does(self, line: str) -> None:
        """Whoever died while doing it looks whether it is done, or noted, and does it again if not."""
        match line:
            case "found":
                if not group_list(self.alice.vault):
                    self.alice.core.group_create("team")
            case "invite bob":
                if not self._has_noted(self.alice, "invite"):
                    self.alice.core.group_act(self.team, InviteAct("bob", 7))
            case "bob joins":
                if not self._has_noted(self.bob, "join"):
                    self.bob.core.group_act(self.team, JoinAct())
            case "rename":
                if not self._has_noted(self.alice, "rename"):
                    self.alice.core.group_act(self.team, RenameAct("crew"))
            case _:
                name, text = line.split()
                person = self.people[name]
                if text not in [item.text for item in person.vault.history(self.team, 100)]:
                    person.says(self.team, text)

    def _has_noted(self, person: Person, kind: str) -> bool:
        row = person.vault.execute("SELECT 1 FROM group_acts WHERE act LIKE ?", (f'%"{kind}"%',)).fetchone()
        return row is not None

    def _survive(self, act: Callable[[], object]) -> None:
        for action in (act, self.scene.settle):
            try:
                action()
            except Killed:
                self.deaths += 1
                for person in self.people.values():
                    if person.vault.lives is not None and self.only_fails:
                        person.vault.lives = None
                        person.disconnects()
                        person.connects()
                    elif person.vault.lives is not None:
                        person.dies()
                        person.connects()
                self.scene.settle()
                act()
                self.scene.settle()


class EveryCommit(SceneTest):
    def _check(self, play: Play) -> None:
        everything = ["alice: 1", "alice: 2", "bob: 3", "alice: 4", "bob: 5"]
        self.assertEqual(texts(play.alice, play.team), everything)
        self.assertEqual([line for line in texts(play.bob, play.team) if line != "alice: 1"], everything[1:])
        for person in play.people.values():
            self.assertEqual(person.told(GroupAlarm), [])
            info = group_info(person.vault, play.team)
            assert info is not None
            self.assertEqual((info.name, info.members), ("crew", (("alice", "owner"), ("bob", "member"))))
            for left in ("outbox WHERE state < 2", "group_acts WHERE state = 0", "group_bodies WHERE waits != ''"):
                self.assertEqual(person.vault.execute(f"SELECT COUNT(*) FROM {left}").fetchone()[0], 0, left)  # noqa: S608
        self._check_that_no_place_was_used_twice()

    def _check_that_no_place_was_used_twice(self) -> None:
        """In a session each index stands for one ciphertext, and each number for one, too."""
        places: dict[tuple[bytes, int], bytes] = {}
        for _, said in self.network.requests:
            if isinstance(said, wire.GroupSend | wire.GroupWhisper):
                body = read_group_body(ratchet.body_from_wire(Raw(bytes(said.body))))
                index = InboundGroup.index_of(body.message)
                self.assertEqual(places.setdefault((body.session, index), body.message), body.message)
        self.assertGreater(len(places), 3)

    def _deaths_of(self, victim: str) -> Iterator[tuple[int, bool]]:
        scene = Scene(self.mktemp())
        try:
            play = Play(scene)
            begun = play.people[victim].vault.commits
            play.run(victim, None, False)
            commits = play.people[victim].vault.commits
        finally:
            scene.close()
        self.assertGreater(commits - begun, 10)
        return ((lives, after) for lives in range(begun, commits) for after in (False, True))

    def _kill_everywhere(self, victim: str) -> None:
        for lives, after in self._deaths_of(victim):
            self._plays(victim, lives, after)

    def _plays(self, victim: str, lives: int, after: bool, *, only_fails: bool = False) -> None:
        self.scene = Scene(self.mktemp())
        self.network = self.scene.network
        try:
            play = Play(self.scene)
            play.only_fails = only_fails
            play.run(victim, lives, after)
            self.assertEqual(play.deaths, 1, (lives, after))
            self._check(play)
        except Exception as error:
            error.add_note(f"{victim} died {'after' if after else 'before'} commit {lives}")
            raise
        finally:
            self.scene.close()

    def test_a_commit_of_alice_fails(self) -> None:
        """What is in memory is as in the vault again."""
        for lives, after in self._deaths_of("alice"):
            if not after:
                self._plays("alice", lives, after, only_fails=True)

    def test_nobody_dies(self) -> None:
        play = Play(self.scene)
        play.run("alice", None, False)
        self._check(play)

    def test_alice_dies(self) -> None:
        self._kill_everywhere("alice")

    def test_bob_dies(self) -> None:
        self._kill_everywhere("bob")
