"""The `fastchat` command, typed: in this process where no network is needed, and as processes on a real one."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, cast

from twisted.internet import reactor as installed
from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessDone
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase

from fastchat.config import AttachmentLimits
from fastchat.identity.invite import Invite
from fastchat.identity.root import RootKey
from fastchat_client import messenger, once
from fastchat_client.cli import run_cli
from fastchat_client.password import Cost
from fastchat_client.profile import Profile
from fastchat_client.running import Running
from fastchat_client.vault import Vault
from tests.support.keys import root_key
from tests.support.running import RunningNetwork, until

reactor: Any = installed

CHEAP = Cost(time=1, memory_kib=8, lanes=1)
MAIN = "from fastchat_client.cli import main; main()"
LINK = str(Invite("127.0.0.1", 1, b"p" * 32, b"l" * 32, "token"))


def typed(*arguments: str) -> tuple[int, str, str]:
    """Run one command here, where nobody can be asked; exit code, stdout, stderr."""
    out, err, before = io.StringIO(), io.StringIO(), sys.stdin
    # Whoever runs the tests may sit at a terminal, and would be asked.
    sys.stdin = io.TextIOWrapper(io.BytesIO())
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = run_cli(list(arguments))
    finally:
        sys.stdin = before
    return code, out.getvalue(), err.getvalue()


class CliTestCase(SynchronousTestCase):
    """With a folder of its own, a password file, and nothing of the machine's environment."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).resolve()
        self.folder.mkdir()
        self.password = self.folder / "password"
        self.password.write_text("correct horse\nignored\n")
        for name, value in (
            ("FASTCHAT_PROFILE", None),
            ("FASTCHAT_PASSWORD_FILE", str(self.password)),
            ("XDG_DATA_HOME", str(self.folder / "data")),
        ):
            self.addCleanup(self._restore, name, os.environ.get(name))
            self._restore(name, value)

    def _restore(self, name: str, value: str | None) -> None:
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value

    def profile(self, user: str = "alice", directory: Path | None = None) -> Path:
        """A profile as `join` makes it before the network has heard of it, and cheaply."""
        directory = directory or self.folder / user
        invite = Invite.parse(LINK)
        profile = Profile.create(directory, messenger.new_facts(user, invite, CHEAP))
        root = RootKey.load(root_key(0).to_pem(None), None)
        vault, _ = messenger.prepare(profile, "correct horse", invite, None, make_root=lambda: root)
        vault.close()
        return directory

    def vault(self, directory: Path) -> Vault:
        vault = messenger.unlock(Profile.load(directory), "correct horse")
        self.addCleanup(vault.close)
        return vault

    def refused(self, code: int, *arguments: str) -> str:
        """That it ends in `code` and one line on stderr; the line."""
        got, out, err = typed(*arguments)
        self.assertEqual((got, out), (code, ""), err)
        self.assertEqual(err.count("\n"), 1, err)
        self.assertTrue(err.startswith("fastchat: "), err)
        return err


class Command(ProcessProtocol):
    """One `fastchat` process. `line` waits for a line on stdout that holds a text; `ended` is its exit code."""

    def __init__(self) -> None:
        self.out = b""
        self.err = b""
        self.ended: Deferred[int] = Deferred()
        self._waiting: list[tuple[Callable[[], bool], Deferred[None]]] = []

    @classmethod
    def start(cls, environ: dict[str, str], *arguments: str, tty: bool = False, code: str = MAIN) -> Command:
        """`code`: the program that gets these arguments, if it is another one."""
        command = cls()
        everything = [sys.executable, "-c", code, *arguments]
        reactor.spawnProcess(command, sys.executable, everything, environ, usePTY=tty)
        return command

    def outReceived(self, data: bytes) -> None:
        self.out += data
        self._check()

    def errReceived(self, data: bytes) -> None:
        self.err += data
        self._check()

    def processEnded(self, reason: Failure) -> None:
        value: Any = reason.value
        self._check()
        for _, waiting in self._waiting:
            waiting.errback(AssertionError(f"it ended before: {self.out!r} {self.err!r}"))
        self.ended.callback(0 if isinstance(value, ProcessDone) else value.exitCode)

    def write(self, data: str) -> None:
        transport: Any = self.transport
        transport.write(data.encode())

    def close_stdin(self) -> None:
        transport: Any = self.transport
        transport.closeStdin()

    def signal(self, number: signal.Signals) -> None:
        transport: Any = self.transport
        transport.signalProcess(number.value)

    async def until(self, text: str) -> None:
        """Until `text` has been printed."""
        seen: Deferred[None] = Deferred()
        self._waiting.append((lambda: text.encode() in self.out + self.err, seen))
        self._check()
        seen.addTimeout(60, reactor)
        await seen

    def _check(self) -> None:
        for entry in list(self._waiting):
            if entry[0]():
                self._waiting.remove(entry)
                entry[1].callback(None)


class CommandCase(TestCase):
    """The installed command against the real services, in processes of its own."""

    timeout = 120

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).resolve()
        self.folder.mkdir()
        (self.folder / "password").write_text("correct horse\n")
        self.environ = {
            "PATH": os.environ["PATH"],
            "PYTHONUTF8": "1",
            "TERM": "xterm",
            "TZ": "UTC",
            "FASTCHAT_PASSWORD_FILE": str(self.folder / "password"),
            "XDG_DATA_HOME": str(self.folder / "data"),
            "HOME": str(self.folder),
        }

    def start(self, who: str, *arguments: str, tty: bool = False, code: str = MAIN) -> Command:
        environ = {**self.environ, "FASTCHAT_PROFILE": str(self.folder / who)}
        command = Command.start(environ, *arguments, tty=tty, code=code)
        self.addCleanup(self._end, command)
        return command

    def _end(self, command: Command) -> Deferred[int] | None:
        if command.ended.called:
            return None
        command.signal(signal.SIGKILL)
        return command.ended

    async def run_command(self, who: str, *arguments: str) -> tuple[int, str, str]:
        command = self.start(who, *arguments)
        command.close_stdin()
        code = await command.ended
        return code, command.out.decode(), command.err.decode()

    async def join(self, *users: str) -> RunningNetwork:
        network = await RunningNetwork.start(self)
        for user in users:
            code, out, err = await self.run_command(user, "join", network.running.link, "--as", user)
            self.assertEqual(code, 0, err)
            self.assertIn(f"Welcome, {user}", out)
        return network

    async def joined(self, *users: str, attachments: AttachmentLimits | None = None) -> RunningNetwork:
        """As `join` leaves it, without the seconds that its processes, new RSA keys and dear passwords take: for what
        comes after it."""
        network = await RunningNetwork.start(self, attachments)
        await self.join_cheaply(network.invite, *users)
        return network

    async def join_cheaply(self, invite: Invite, *users: str) -> None:
        for number, user in enumerate(users):
            profile = Profile.create(self.folder / user, messenger.new_facts(user, invite, CHEAP))
            with profile.locked():
                vault, _ = messenger.prepare(profile, "correct horse", invite, None, partial(root_key, number))
                try:
                    self.assertEqual(await once.join(Running(reactor), profile, vault, None), 0)
                finally:
                    vault.close()

    async def connected(self, who: str, command: Command) -> None:
        """Until this process of theirs holds the profile's lock: others go through it from then on."""
        lock, process = self.folder / who / "lock", cast(Any, command.transport)
        await until(reactor, lambda: lock.read_text() == f"{process.pid}\n")
