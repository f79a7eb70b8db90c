"""The wall clock of a client, of the services, or of both jumps by a day, either way: only displayed times differ."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pexpect  # type: ignore[import-untyped]
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from fastchat import steady
from tests.support.joined import JoinedTest, Person
from tests.support.jumping import DAY

CHECKOUT = Path(__file__).parent.parent
PATIENCE = 120


class KeepTime(SynchronousTestCase):
    def test_a_reactor_goes_by_it(self) -> None:
        from twisted.internet.epollreactor import EPollReactor

        reactor: Any = EPollReactor()
        before = reactor.seconds()
        self.assertLess(abs(before - time.time()), 3600.0, "Twisted goes by the wall clock; if not, this is not needed")
        steady.keep_time(reactor)
        call = reactor.callLater(5.0, lambda: None)
        self.assertLess(abs(call.getTime() - 5.0 - steady.seconds()), 3600.0)

    def test_it_never_goes_back(self) -> None:
        seen = [steady.seconds() for _ in range(1000)]
        self.assertEqual(seen, sorted(seen))

    def test_what_was_asked_for_by_another_clock_is_not_reinterpreted(self) -> None:
        clock: Any = Clock()
        clock.getDelayedCalls = lambda: clock.calls
        clock.callLater(1.0, lambda: None)
        self.assertRaises(RuntimeError, steady.keep_time, clock)


class Joined(JoinedTest):
    """The real client, sessions and delivery. What they schedule and limit goes by one clock, which nobody sets; what
    they show by others, which jump here."""

    def jumps(self, *who: Person, services: bool, days: float) -> None:
        for person in who:
            person.wall_ahead += days * DAY
        if services:
            self.net.wall_ahead += days * DAY

    def everything_works(self, alice: Person, bob: Person, carol: Person, about: str) -> None:
        """Live both ways, through the mailbox, after a refusal, and by timers; nobody is disconnected."""
        stored = self.net.stored
        hello = alice.sends("bob", f"{about} 1", f"{about} 2")
        bob.sees(f"alice: {about} 1", f"alice: {about} 2")
        bob.sends("alice", f"{about} back")
        alice.sees(f"bob: {about} back")
        self.net.passes(seconds=2)
        self.assertEqual(alice.state_of(hello), "delivered")
        self.assertEqual(self.net.stored, stored, "nothing is stored for people who are online")
        carol.goes_offline()
        self.net.database_goes_away()
        later = alice.sends("carol", f"{about} later")
        self.net.passes(seconds=5)
        self.assertEqual(alice.state_of(later), "waiting")
        self.net.database_comes_back()
        self.net.passes(seconds=10)
        self.assertEqual(alice.state_of(later), "accepted", "what was refused for now is sent again")
        carol.comes_back()
        carol.sees(f"alice: {about} later")
        self.net.passes(minutes=4)
        self.assertEqual((alice.farewells, bob.farewells), ([], []), "they say by the second that they are there")
        quick = alice.sends("bob", *(f"{about} {number}" for number in range(3, 50)))
        self.net.passes(seconds=10)
        self.assertEqual(alice.state_of(quick), "delivered")
        bob.sees(*(f"alice: {about} {number}" for number in range(3, 50)))

    def people(self) -> tuple[Person, Person, Person]:
        alice, bob, carol = (self.net.person(name) for name in ("alice", "bob", "carol"))
        self.everything_works(alice, bob, carol, "before")
        return alice, bob, carol

    def there_and_back(self, jumping: tuple[int, ...], services: bool) -> None:
        people = self.people()
        who = tuple(people[number] for number in jumping)
        for days in (1, -1, -1, 1):
            self.jumps(*who, services=services, days=days)
            self.everything_works(*people, f"{days}")
        self.assertEqual([sender.vault.waiting() for sender in people], [0, 0, 0])

    def test_the_clock_of_one_client(self) -> None:
        self.there_and_back((0,), services=False)

    def test_the_clock_of_the_other_client(self) -> None:
        self.there_and_back((1,), services=False)

    def test_the_clock_of_the_services(self) -> None:
        self.there_and_back((), services=True)

    def test_all_clocks_at_once(self) -> None:
        self.there_and_back((0, 1, 2), services=True)

    def test_the_services_jump_under_what_waits_for_a_receipt(self) -> None:
        """A message whose recipient has fallen silent is stored after two seconds, not after a day, and not at once."""
        alice, bob = self.net.person("alice"), self.net.person("bob")
        alice.sends("bob", "before")
        bob.sees("alice: before")
        for days in (1, -2):
            bob.falls_silent()
            late = alice.sends("bob", f"{days}")
            self.jumps(services=True, days=days)
            self.net.passes(seconds=1)
            self.assertEqual(alice.state_of(late), "waiting")
            self.net.passes(seconds=2)
            self.assertEqual(alice.state_of(late), "accepted")
            self.net.passes(minutes=3)
            bob.sees(f"alice: {days}")

    def test_only_displayed_times_differ(self) -> None:
        """The history is in the order in which things came, and so is the list of conversations."""
        alice, bob, carol = (self.net.person(name) for name in ("alice", "bob", "carol"))
        alice.sends("bob", "1")
        self.jumps(bob, services=True, days=-1)
        bob.sends("alice", "2")
        self.jumps(bob, alice, services=False, days=2)
        alice.sends("bob", "3")
        self.jumps(alice, services=False, days=-3)
        alice.sends("bob", "4")
        carol.sends("bob", "5")
        bob.sees("alice: 1", "alice: 3", "alice: 4", "carol: 5")
        shown = alice.vault.history("bob")
        self.assertEqual([item.text for item in shown], ["1", "2", "3", "4"])
        self.assertEqual([item.text for item in bob.vault.history("alice")], ["1", "2", "3", "4"])
        days = [round((item.at / 1000 - shown[0].at / 1000) / DAY) for item in shown]
        self.assertEqual(days, [0, -1, 2, -1], "each by the clock of who wrote it")
        self.assertEqual([one.user for one in bob.vault.conversations()], ["carol", "alice"])

    def test_marks_of_what_was_read_do_not_go_by_the_clock(self) -> None:
        alice, bob = self.net.person("alice"), self.net.person("bob")
        first = alice.sends("bob", "1")
        self.jumps(alice, bob, services=True, days=-1)
        second = alice.sends("bob", "2")
        bob.core.mark_read("alice", first)
        self.net.passes(seconds=3)
        self.assertEqual((alice.state_of(first), alice.state_of(second)), ("read", "delivered"))

    def test_keys_are_renewed_by_age_whichever_way_the_clock_was_wrong(self) -> None:
        """Made by a clock that was a year ahead, they are not kept for a year."""
        bob = self.net.person("bob")
        bob.wall_ahead = 365 * DAY
        self.net.passes(minutes=2)
        renewed = len(bob.core._parts.prekeeper.seals)
        self.assertEqual(renewed, 2)
        bob.wall_ahead = 0.0
        self.net.passes(minutes=2)
        self.assertEqual(len(bob.core._parts.prekeeper.seals), 3)
        bob.wall_ahead = DAY
        self.net.passes(minutes=2)
        self.assertEqual(len(bob.core._parts.prekeeper.seals), 3, "a day is no reason")
        alice = self.net.person("alice")
        alice.sends("bob", "hello")
        bob.sees("alice: hello")


class Processes(SynchronousTestCase):
    """The real programs: `twistd` with its database, and two clients. Worth its seconds: what the reactors' own clock
    does is seen in nothing less."""

    def setUp(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="fastchat-clocks-"))
        self.folder.chmod(0o711)
        self.addCleanup(shutil.rmtree, self.folder)
        (self.folder / "password").write_text("correct horse\n")
        config = self.folder / "fastchat.toml"
        config.write_text("services = 1\n[limits]\nlogin_seconds = 3.0\n")
        self.environ = {
            **{name: value for name, value in os.environ.items() if not name.startswith("FASTCHAT_")},
            "FASTCHAT_HOME": str(self.folder / "home"),
            "FASTCHAT_PORT": "0",
            "FASTCHAT_CONFIG": str(config),
            "FASTCHAT_PASSWORD_FILE": str(self.folder / "password"),
            "XDG_DATA_HOME": str(self.folder / "people"),
            "TERM": "dumb",
            "NO_COLOR": "1",
        }

    def program(self, *arguments: str) -> Any:
        command = ["-m", "tests.support.jumping", *arguments]
        program = pexpect.spawn(
            sys.executable, command, cwd=str(CHECKOUT), env=self.environ, timeout=PATIENCE, encoding="utf-8",
            dimensions=(40, 250), echo=False,
        )  # fmt: skip
        program.logfile_read = io.StringIO()
        self.addCleanup(self.ended, program)
        return program

    def ended(self, program: Any) -> None:
        """As a person ends it, so that no database is left behind when the test has failed."""
        if program.isalive():
            program.sendintr()
            program.expect(pexpect.EOF)
        program.close()

    def joined(self, name: str, link: str) -> None:
        joining = self.program("fastchat", "join", link, "--as", name)
        joining.expect(f"Welcome, {name}")
        joining.expect(pexpect.EOF)

    def test_people_talk_on_while_every_clock_jumps(self) -> None:
        network = self.program("twistd", "--pidfile=", "-ny", "fastchat.tac")
        network.expect(r"chat services +127\.0\.0\.1:(\d+)")
        service = int(network.match[1])
        network.expect(r"(http://[\d.:]+/status)")
        status = network.match[1]
        network.expect("Ctrl-C stops it")
        link = (self.folder / "home" / "invite").read_text().strip()
        for name in ("alice", "bob"):
            self.joined(name, link)
        # The one on the reactor of pipes, the other on that of the interactive chat.
        bob = self.program("fastchat", "listen", "--profile", str(self.folder / "people/fastchat/bob"))
        alice = self.program(
            "fastchat", "chat", "bob", "--plain", "--profile", str(self.folder / "people/fastchat/alice")
        )
        alice.sendline("before")
        bob.expect("alice: before")
        for jump in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGUSR2):
            # Timers fall due neither at once nor in a day: this one ends a connection that says nothing.
            silent = socket.create_connection(("127.0.0.1", service), timeout=PATIENCE)
            began = steady.seconds()
            self.talk(alice, bob, f"{jump.name}: once this is there, it has been seen")
            os.kill(network.pid, jump)
            self.talk(alice, bob, f"the services {jump.name}")
            self.assertEqual(_last_words(silent), b"")
            self.assertGreater(steady.seconds() - began, 2.0)
        for jump, who in (
            (signal.SIGUSR1, (alice,)),
            (signal.SIGUSR1, (bob,)),
            (signal.SIGUSR2, (alice, bob)),
            (signal.SIGUSR2, (network, alice, bob)),
        ):
            for program in who:
                os.kill(program.pid, jump)
            self.talk(alice, bob, f"{len(who)} of them {jump.name}")
        with urlopen(status) as answer:  # noqa: S310
            self.assertEqual([one["sessions"] for one in json.load(answer)["services"]], [2])
        for program in (alice, bob):
            self.assertNotIn("trying again", program.logfile_read.getvalue())
            self.assertNotIn("ot connected", program.logfile_read.getvalue())

    def talk(self, alice: Any, bob: Any, text: str) -> None:
        alice.sendline(text)
        bob.expect(f"alice: {text}")


def _last_words(connection: socket.socket) -> bytes:
    """What the other side says until it ends the connection."""
    with connection:
        try:
            return connection.recv(1)
        except ConnectionResetError:
            return b""
