"""Pull the plug at every commit of a conversation, before it and after it, and start again: nothing is lost, nothing is
shown twice, nothing is out of order, and nothing was said that a crash could take back."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from fastchat.protocols import wire
from fastchat_client.events import MessageReceived
from tests.support.conversation import Killed, Person, Scene, SceneTest

SCRIPT: list[tuple[str, str]] = [
    ("alice", "1"),
    ("bob", "2"),
    ("-", "bob leaves"),
    ("alice", "3"),
    ("alice", "4"),
    ("-", "bob comes"),
    ("-", "time passes"),
    ("bob", "5"),
    ("-", "bob reads"),
    ("-", "time passes"),
    ("alice", "6"),
]


class Play:
    """The script with its two people, one of whom dies once."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.people = {name: scene.person(name, connect=False) for name in ("alice", "bob")}
        self.deaths = 0
        self.shown: dict[str, list[MessageReceived]] = {"alice": [], "bob": []}

    def run(self, victim: str, lives: int | None, dies_after: bool) -> None:
        vault = self.people[victim].vault
        vault.lives, vault.dies_after = lives, dies_after
        for name in self.people:
            self._survive(self.people[name].connects)
        for who, what in SCRIPT:
            if who in self.people:
                self._survive(lambda who=who, what=what: self._say(self.people[who], what))  # type: ignore[misc]
            else:
                self._survive(
                    {
                        "bob leaves": self.people["bob"].disconnects,
                        "bob comes": self.people["bob"].connects,
                        "bob reads": lambda: self.people["bob"].core.mark_read("alice"),
                        "time passes": lambda: self.scene.pass_time(2),
                    }[what]
                )
        self._survive(lambda: self.scene.pass_time(10))

    def _say(self, person: Person, text: str) -> None:
        to = "bob" if person.name == "alice" else "alice"
        # Whoever died while typing looks whether the text is there, and types it again if not.
        if text not in [item.text for item in person.vault.history(to) if item.own]:
            person.says(to, text)

    def _survive(self, act: Callable[[], None]) -> None:
        for action in (act, self.scene.settle):
            try:
                action()
            except Killed:
                self.deaths += 1
                for person in self.people.values():
                    if person.vault.lives is not None:
                        person.dies()
                        person.connects()
                self.scene.settle()
                act()
                self.scene.settle()


class EveryCommit(SceneTest):
    def _check(self, play: Play) -> None:
        alice, bob = play.people["alice"], play.people["bob"]
        self.assertEqual(bob.reads("alice"), ["1", "3", "4", "6"])
        self.assertEqual(alice.reads("bob"), ["2", "5"])
        self.assertEqual([item.text for item in bob.vault.history("alice") if item.own], ["2", "5"])
        states = {item.text: item.state for item in alice.vault.history("bob") if item.own}
        self.assertEqual(states, {"1": "read", "3": "read", "4": "read", "6": "delivered"})
        for person in (alice, bob):
            self.assertEqual(person.vault.execute("SELECT COUNT(*) FROM outbox WHERE state < 2").fetchone()[0], 0)
            self.assertEqual(person.vault.execute("SELECT COUNT(*) FROM held").fetchone()[0], 0)
        self.assertEqual([d.mailbox for d in self.network.devices.values()], [[], []])
        self._check_that_nothing_was_sealed_twice()

    def _check_that_nothing_was_sealed_twice(self) -> None:
        """A number always stands for the same bytes: what was sent was committed with its ratchet before."""
        bodies: dict[tuple[str, int, str], bytes] = {}
        for device, send in self.network.sends:
            for recipient in send.to:
                body = bodies.setdefault((device, send.n, recipient.device), bytes(recipient.body))
                self.assertEqual(body, bytes(recipient.body))

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
            self.scene = Scene(self.mktemp())
            self.network = self.scene.network
            try:
                play = Play(self.scene)
                play.run(victim, lives, after)
                self.assertEqual(play.deaths, 1, (lives, after))
                self._check(play)
            except Exception as error:
                error.add_note(f"{victim} died {'after' if after else 'before'} commit {lives}")
                raise
            finally:
                self.scene.close()

    def test_nobody_dies(self) -> None:
        play = Play(self.scene)
        play.run("alice", None, False)
        self._check(play)

    def test_alice_dies(self) -> None:
        self._kill_everywhere("alice")

    def test_bob_dies(self) -> None:
        self._kill_everywhere("bob")


class Order(SceneTest):
    def test_nothing_is_acknowledged_or_sent_before_it_is_committed(self) -> None:
        alice, bob = self.scene.person("alice"), self.scene.person("bob")
        alice.says("bob", "hello")
        self.scene.settle()
        bob.disconnects()
        alice.says("bob", "again")
        self.scene.settle()
        self.network.withhold.add(bob.device)
        bob.connects()
        self.scene.settle()
        bob.vault.lives = bob.vault.commits
        self.network.withhold.clear()
        assert bob.line is not None
        bob.line.deliver()
        self.assertRaises(Killed, self.scene.settle)
        self.assertEqual(len(self.network.devices[bob.device].mailbox), 1)
        self.assertEqual([type(m) for m in bob.core.take_messages()], [])
        self.assertFalse(bob.core.ready)
        bob.dies()
        self.assertEqual(bob.reads("alice"), ["hello"])
        bob.connects()
        self.scene.settle()
        self.assertEqual(bob.reads("alice"), ["hello", "again"])

    def test_a_vault_that_cannot_be_written_ends_the_connection_and_loses_nothing(self) -> None:
        alice, bob = self.scene.person("alice"), self.scene.person("bob")
        bob.vault.lives = bob.vault.commits
        alice.says("bob", "hello")
        self.assertRaises(Killed, self.scene.settle)
        assert bob.core.wants_close is not None
        self.assertEqual(bob.core.wants_close.code, "internal")
        self.assertEqual(bob.core.take_messages(), [])
        bob.vault.lives = None
        bob.disconnects()
        bob.connects()
        self.scene.settle()
        self.assertEqual(bob.reads("alice"), ["hello"])
        self.assertIsInstance(bob.said[-1], wire.Received)
