"""A newcomer's first five minutes, exactly as the README says: its own lines, typed into terminals of their own.

`make run` here is the real one, on a home and ports of this test's own; what is installed is what is driven.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import tempfile
from pathlib import Path
from random import Random
from typing import Any
from urllib.request import urlopen

import pexpect  # type: ignore[import-untyped]
from twisted.trial.unittest import SynchronousTestCase

from tests.support.pictures import photo

CHECKOUT = Path(__file__).parent.parent
PATIENCE = 120
"""Seconds for any one answer; nothing is judged by them, but that there is an answer."""


def readme_commands() -> list[str]:
    """The lines of the fenced blocks in the README's section "First five minutes", as they are typed, in order."""
    text = (CHECKOUT / "README.md").read_text(encoding="utf-8")
    section = text.split("## First five minutes", 1)[1].split("\n## ", 1)[0]
    blocks = re.findall(r"^```sh\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    lines = [line.partition("#")[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line]


def free_block() -> int:
    """A port with the ports of a whole network free behind it."""
    random = Random()
    while True:
        port = random.randrange(31_400, 32_600)
        try:
            for offset in (0, 1, 2, 3, 4, 5, 80):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port + offset))
        except OSError:
            continue
        return port


def stop(network: Any) -> None:
    """After a failure: end the network as a person would, so that no database of it is left behind."""
    if network.isalive():
        network.sendintr()
        network.expect(pexpect.EOF)


class FirstFiveMinutes(SynchronousTestCase):
    def setUp(self) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="fastchat-newcomer-"))
        # The database's user must be able to pass, when root runs this; otherwise it keeps its data elsewhere.
        self.home.chmod(0o711)
        self.addCleanup(shutil.rmtree, self.home)
        self.port = free_block()
        self.environ = {
            **os.environ,
            "FASTCHAT_HOME": str(self.home / "var"),
            "FASTCHAT_PORT": str(self.port),
            "XDG_DATA_HOME": str(self.home / "people"),
            "TERM": "xterm",
            "NO_COLOR": "1",
        }
        for name in ("FASTCHAT_CONFIG", "FASTCHAT_PROFILE", "FASTCHAT_PASSWORD_FILE", "MAKEFLAGS", "MAKELEVEL"):
            self.environ.pop(name, None)

    def terminal(self, command: str) -> Any:
        """A new terminal in the checkout, in which `command` is typed."""
        terminal = pexpect.spawn(
            "/bin/sh", ["-c", f"exec {command}"], cwd=str(CHECKOUT), env=self.environ, timeout=PATIENCE,
            encoding="utf-8", dimensions=(40, 250),
        )  # fmt: skip
        self.addCleanup(terminal.close, True)
        return terminal

    def joins(self, command: str, link: str, name: str) -> None:
        terminal = self.terminal(command.replace("LINK", link))
        for _ in range(2):
            terminal.expect("[Pp]assword|confirm")
            terminal.sendline(f"password of {name}")
        terminal.expect(f"Welcome, {name}")
        terminal.expect(pexpect.EOF)
        terminal.wait()
        self.assertEqual(terminal.exitstatus, 0)

    def chats(self, command: str, name: str) -> Any:
        terminal = self.terminal(command)
        terminal.expect("Who are you")
        terminal.sendline(name)
        terminal.expect(f"Password of {name}")
        terminal.sendline(f"password of {name}")
        terminal.expect(f"you are {name}")
        return terminal

    def test_as_the_readme_says(self) -> None:
        run, alice_joins, bob_joins, chat = readme_commands()

        network = self.terminal(run)
        self.addCleanup(stop, network)
        network.expect("FastChat is running")
        network.expect(r"(fastchat://127\.0\.0\.1:\S+)")
        link = network.match[1]
        network.expect("Ctrl-C stops it")
        self.assertEqual((self.home / "var" / "invite").read_text().strip(), link)
        with urlopen(f"http://127.0.0.1:{self.port + 80}/healthz") as answer:
            self.assertEqual(answer.status, 200)
        second = self.terminal(run)
        second.expect("another FastChat is running on this home")
        second.expect(pexpect.EOF)

        self.joins(alice_joins, link, "alice")
        self.joins(bob_joins, link, "bob")
        alice, bob = self.chats(chat, "alice"), self.chats(chat, "bob")
        alice.sendline("/msg bob hello bob")
        bob.expect("alice: hello bob")
        bob.sendline("/msg alice hello alice")
        alice.expect("bob: hello alice")
        alice.expect("read")
        alice.sendline("/group create team what we do next")
        alice.expect("you made the group")
        alice.sendline("/group invite bob")
        bob.expect("alice invites you to #team")
        bob.sendline("/group join #team")
        alice.expect("bob joined")
        bob.expect("what we do next")
        bob.sendline("Hello @alice")
        alice.expect("bob: Hello @alice")
        alice.sendline("/msg bob")
        picture = self.home / "beach.jpg"
        picture.write_bytes(photo())
        alice.sendline(f"/send {picture} What a day")
        bob.expect("alice: .picture beach.jpg")
        bob.sendline("/msg alice")
        bob.expect("What a day +/fetch")
        (self.home / "fetched").mkdir()
        bob.sendline(f"/fetch latest {self.home}/fetched")
        bob.expect(f"saved as {self.home}/fetched/beach.jpg")
        self.assertNotIn(b"Exif", (self.home / "fetched" / "beach.jpg").read_bytes())
        bob.sendline("/quit")
        bob.expect(pexpect.EOF)

        alice.sendline("read this when you are back")
        alice.expect("read this when you are back .*✓")
        alice.sendline("/quit")
        alice.expect(pexpect.EOF)
        bob = self.chats(chat, "bob")
        bob.expect("While you were away: alice 1")
        bob.sendline("/msg alice")
        bob.expect("alice: read this when you are back")
        bob.sendline("/quit")
        bob.expect(pexpect.EOF)

        self.ends(network)
        film = self.home / "film.mkv"
        film.write_bytes(os.urandom(100_000))
        alice = self.of_alice(f"send bob --file {film}")
        alice.expect("trying again")
        self.of_alice("transfers").expect("film.mkv to bob: 100 kB, waits")
        alice.sendintr()
        alice.expect("film.mkv is kept.*transfers --resume")
        alice.expect(pexpect.EOF)
        network = self.terminal(run)
        self.addCleanup(stop, network)
        network.expect("Ctrl-C stops it")
        alice = self.of_alice("transfers --resume")
        alice.expect("film.mkv: sent")
        alice.expect(pexpect.EOF)
        alice.wait()
        self.assertEqual(alice.exitstatus, 0)
        self.ends(network)

    def of_alice(self, command: str) -> Any:
        terminal = self.terminal(f".venv/bin/fastchat {command} --profile {self.home}/people/fastchat/alice")
        terminal.expect("Password of alice")
        terminal.sendline("password of alice")
        return terminal

    def ends(self, network: Any) -> None:
        network.sendintr()
        network.expect(pexpect.EOF)
        network.wait()
        # make itself may end by the very Ctrl-C, as a shell expects of it.
        self.assertIn((network.exitstatus, network.signalstatus), ((0, None), (None, signal.SIGINT)))
        self.assertFalse((self.home / "var" / "postgres" / "data" / "postmaster.pid").exists())
        # A pid file outlives a power cut, and the next start would stop short if anything else had that number by then.
        self.assertFalse((self.home / "var" / "twistd.pid").exists())
