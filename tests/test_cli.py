"""The `fastchat` command: what is refused and how, what works without a network, and all of it on a real one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from fastchat.identity.invite import Invite
from fastchat_client import messenger
from fastchat_client.history import Arrived, add_received
from fastchat_client.profile import Profile
from fastchat_client.speaking import compose_text
from tests.support.cli import LINK, CliTestCase, CommandCase, typed
from tests.support.running import RunningNetwork


class UsageTests(CliTestCase):
    def test_help_lists_every_command(self) -> None:
        code, out, _ = typed("--help")
        self.assertEqual(code, 0)
        words = (
            "join send listen history whoami contacts chat accept devices revoke "
            "react reply edit delete receipts timer mute unmute block unblock presence fetch transfers autofetch"
        )
        for command in words.split():
            self.assertIn(f"  {command} ", out)
            code, text, _ = typed(command, "--help")
            self.assertEqual(code, 0)
            self.assertIn("--profile", text)
            self.assertIn("--password-file", text)

    def test_wrong_usage_is_2(self) -> None:
        for arguments in (
            ["nonsense"],
            ["send"],
            ["send", "Not A Name", "hi"],
            ["listen", "--count", "0"],
            ["listen", "--for", "x"],
            ["join", LINK],
            ["history"],
            ["history", "bob", "--limit", "0"],
            ["whoami", "--nonsense"],
        ):
            code, _, err = typed(*arguments)
            self.assertEqual(code, 2, arguments)
            self.assertIn("Error", err)

    def test_a_bad_link_or_name_is_refused_before_anything_is_made(self) -> None:
        self.assertIn("fastchat://", self.refused(1, "join", "http://example.org", "--as", "alice"))
        self.assertIn("a-z", self.refused(1, "join", LINK, "--as", "Alice!"))
        self.assertFalse((self.folder / "data").exists())

    def test_no_profile(self) -> None:
        self.assertIn("fastchat join LINK --as NAME", self.refused(1, "whoami"))
        self.assertIn("fastchat join", self.refused(1, "send", "bob", "hi", "--profile", str(self.folder / "none")))

    def test_several_profiles_and_nobody_to_ask(self) -> None:
        for user in ("alice", "bob"):
            self.profile(user, self.folder / "data" / "fastchat" / user)
        line = self.refused(1, "whoami")
        self.assertIn("alice, bob", line)
        self.assertIn("--profile", line)

    def test_the_only_profile_needs_no_name(self) -> None:
        self.profile("alice", self.folder / "data" / "fastchat" / "alice")
        code, out, _ = typed("whoami", "--json")
        self.assertEqual((code, json.loads(out)["user"]), (0, "alice"))


class OfflineTests(CliTestCase):
    def test_whoami(self) -> None:
        directory = self.profile()
        code, out, _ = typed("whoami", "--json", "--profile", str(directory))
        me = json.loads(out)
        self.assertEqual(code, 0)
        self.assertEqual((me["user"], me["network"], me["registered"]), ("alice", "127.0.0.1:1", False))
        self.assertEqual(len(me["device"]), 32)
        _, out, _ = typed("whoami", "--profile", str(directory))
        for value in (me["root"], me["device"], str(directory), "not yet"):
            self.assertIn(value, out)

    def test_a_wrong_password_is_one_line_and_changes_nothing(self) -> None:
        directory = self.profile()
        before = {path.name: path.read_bytes() for path in directory.iterdir()}
        self.password.write_text("wrong\n")
        for command in (["whoami"], ["send", "bob", "hi"], ["listen", "--for", "0"], ["chat"], ["history", "bob"]):
            line = self.refused(1, *command, "--profile", str(directory))
            self.assertIn("not the password of alice", line)
        self.assertEqual({path.name: path.read_bytes() for path in directory.iterdir() if path.name != "lock"}, before)

    def test_password_files_that_cannot_be_used(self) -> None:
        directory = str(self.profile())
        self.password.write_bytes(b"\n")
        self.assertIn("empty", self.refused(1, "whoami", "--profile", directory))
        self.password.write_bytes(b"\xff\xfe\n")
        self.assertIn("UTF-8", self.refused(1, "whoami", "--profile", directory))
        self.password.unlink()
        self.assertIn("No such file", self.refused(1, "whoami", "--profile", directory))

    def test_where_there_is_no_terminal_nobody_is_asked_for_a_password(self) -> None:
        directory = str(self.profile())
        del os.environ["FASTCHAT_PASSWORD_FILE"]
        # A session of its own has no terminal, as under cron; the file /dev/tty is there all the same.
        ended = subprocess.run(
            [sys.executable, "-c", "from fastchat_client.cli import main; main()", "whoami", "--profile", directory],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            start_new_session=True,
            check=False,
        )
        self.assertEqual((ended.returncode, ended.stdout), (1, ""), ended.stderr)
        self.assertEqual(ended.stderr.count("\n"), 1, ended.stderr)
        self.assertIn("--password-file", ended.stderr)

    def test_history_and_contacts_from_the_vault(self) -> None:
        directory = self.profile()
        vault = self.vault(directory)
        compose_text(vault, "bob", "hello bob", 1_700_000_000_000)
        with vault.transaction():
            add_received(vault, Arrived("b" * 32, 1, "bob", "bob", 1_700_000_060_000, "a\x1b[2Jb\u202e", False))
        code, out, _ = typed("history", "bob", "--json", "--profile", str(directory))
        lines = [json.loads(line) for line in out.splitlines()]
        self.assertEqual(code, 0)
        self.assertEqual(
            [(line["from"], line["text"]) for line in lines], [("alice", "hello bob"), ("bob", "a\x1b[2Jb\u202e")]
        )
        self.assertEqual(lines[0]["at"], "2023-11-14T22:13:20.000Z")
        self.assertEqual(lines[0]["state"], "waiting")
        _, text, _ = typed("history", "bob", "--limit", "1", "--profile", str(directory))
        self.assertNotIn("hello bob", text)
        for output in (out, text):
            self.assertNotIn("\x1b", output)
            self.assertNotIn("\u202e", output)
        _, out, _ = typed("contacts", "--json", "--profile", str(directory))
        (bob,) = [json.loads(line) for line in out.splitlines()]
        self.assertEqual((bob["user"], bob["unread"], bob["last"]), ("bob", 1, "2023-11-14T22:14:20.000Z"))
        _, text, _ = typed("contacts", "--profile", str(directory))
        self.assertIn("bob              unread 1    last 2023-11-", text)

    def test_history_quotes_nothing_of_another_conversation(self) -> None:
        directory = self.profile()
        vault = self.vault(directory)
        with vault.transaction():
            for n, sender, text, answered in (
                (1, "bob", "between us", None),
                (2, "carol", "quite so", ("b" * 32, 1)),
                (3, "bob", "that is it", ("b" * 32, 1)),
            ):
                add_received(vault, Arrived("b" * 32, n, sender, sender, n, text, False, reply=answered))
        for user, quote in (("carol", "an earlier message"), ("bob", "between us")):
            _, text, _ = typed("history", user, "--limit", "1", "--profile", str(directory))
            self.assertIn(f'"{quote}": ', text)

    def test_nothing_to_accept(self) -> None:
        self.assertIn("has not changed", self.refused(1, "accept", "bob", "--profile", str(self.profile())))

    def test_one_process_is_connected_the_others_are_told(self) -> None:
        directory = self.profile()
        with Profile.load(directory).locked():
            for command in (["listen"], ["chat"], ["accept", "bob"]):
                self.assertIn(f"pid {os.getpid()}", self.refused(1, *command, "--profile", str(directory)))

    def test_what_cannot_be_sent(self) -> None:
        directory = str(self.profile())
        self.assertEqual(typed("send", "bob", " ", "--profile", directory)[0], 2)
        self.assertEqual(typed("send", "alice", "hi", "--profile", directory)[0], 2)
        self.assertIn("at most", self.refused(1, "send", "bob", "x" * 200_000, "--profile", directory))
        self.assertEqual(self.vault(Path(directory)).waiting(), 0)

    def test_a_profile_of_somebody_else_is_not_joined_over(self) -> None:
        directory = self.profile()
        line = self.refused(1, "join", LINK, "--as", "bob", "--profile", str(directory))
        self.assertIn("is the profile of alice", line)
        other = str(Invite("127.0.0.1", 1, b"q" * 32, b"l" * 32, "token"))
        self.assertIn("another network", self.refused(1, "join", other, "--as", "alice", "--profile", str(directory)))
        self.password.write_text("other\n")
        self.assertIn("another password", self.refused(1, "join", LINK, "--as", "alice", "--profile", str(directory)))

    def test_a_full_disk_or_a_broken_vault_is_one_line(self) -> None:
        directory = self.profile()
        (directory / "vault.db").write_bytes(b"")
        self.refused(1, "whoami", "--profile", str(directory))
        (directory / "profile.json").write_bytes(b"{}")
        self.assertIn("damaged", self.refused(1, "whoami", "--profile", str(directory)))


class NetworkTests(CommandCase):
    async def test_join_send_listen(self) -> None:
        network = await self.join("alice", "bob")
        for text in ("one", "two", "three"):
            self.assertEqual(await self.run_command("alice", "send", "bob", text), (0, "", ""))
        # What one `listen` did not print, the next one does: nothing is swallowed, nothing printed twice.
        code, out, err = await self.run_command("bob", "listen", "--count", "1", "--for", "60")
        self.assertEqual(code, 0, err)
        self.assertIn("alice: one", out)
        code, out, _ = await self.run_command("bob", "listen", "--json", "--count", "2", "--for", "60")
        lines = [json.loads(line) for line in out.splitlines()]
        self.assertEqual([line["text"] for line in lines], ["two", "three"])
        self.assertEqual({"event", "from", "conversation", "text", "at", "id"} - set(lines[0]), set())
        self.assertEqual((await self.run_command("bob", "listen", "--count", "1", "--for", "0.5"))[0], 75)
        await network.no_sessions()

    async def test_refusals(self) -> None:
        network = await self.joined("alice")
        code, out, err = await self.run_command("other", "join", network.running.link, "--as", "alice")
        self.assertEqual((code, out, err.count("\n")), (1, "", 1), err)
        self.assertIn("taken", err)
        self.assertFalse((self.folder / "other").exists(), "what was half made is gone")
        code, _, err = await self.run_command("alice", "send", "nobody", "hi")
        self.assertEqual(code, 1)
        self.assertIn("nobody of this name", err)
        code, _, err = await self.run_command("alice", "join", network.running.link, "--as", "alice")
        self.assertEqual(code, 1)
        self.assertIn("joined already", err)
        other = Invite(network.invite.host, network.invite.port, b"x" * 32, network.invite.log_key, "token")
        code, _, err = await self.run_command("dave", "join", str(other), "--as", "dave")
        self.assertEqual((code, err.count("\n")), (1, 1), err)
        self.assertIn("another certificate", err)

    async def test_join_goes_on_where_it_stopped(self) -> None:
        network = await RunningNetwork.start(self)
        link = network.running.link
        away = str(Invite("127.0.0.1", 1, network.invite.pin, network.invite.log_key, network.invite.token))
        code, _, err = await self.run_command("alice", "join", away, "--as", "alice")
        self.assertEqual(code, 75, err)
        self.assertIn("kept", err)
        pem = (self.folder / "alice" / "identity.pem").read_bytes()
        code, _, err = await self.run_command("alice", "join", link, "--as", "alice")
        self.assertEqual(code, 0, err)
        self.assertEqual((self.folder / "alice" / "identity.pem").read_bytes(), pem)

    async def test_a_second_device_of_the_account(self) -> None:
        network = await self.join("alice", "bob")
        pem = str(self.folder / "alice" / "identity.pem")
        code, _, err = await self.run_command(
            "laptop", "join", network.running.link, "--as", "alice", "--identity", pem
        )
        self.assertEqual(code, 0, err)
        self.assertEqual((await self.run_command("bob", "send", "alice", "to both"))[0], 0)
        for device in ("alice", "laptop"):
            code, out, err = await self.run_command(device, "listen", "--count", "1", "--for", "60")
            self.assertEqual(code, 0, err)
            self.assertIn("bob: to both", out)

    async def test_a_lost_device_is_revoked(self) -> None:
        """Worth its processes: nothing else holds together the command, the key in its file, and the network."""
        network = await self.joined("alice", "bob")
        pem = str(self.folder / "alice" / "identity.pem")
        code, _, err = await self.run_command(
            "laptop", "join", network.running.link, "--as", "alice", "--identity", pem
        )
        self.assertEqual(code, 0, err)
        _, out, _ = await self.run_command("laptop", "devices", "--json")
        phone, laptop = (json.loads(line) for line in out.splitlines())
        self.assertEqual((phone["this"], laptop["this"]), (False, True))
        code, out, err = await self.run_command("laptop", "revoke", phone["device"][:6], "--yes")
        self.assertEqual(code, 0, err)
        self.assertIn(f"{phone['device']} is revoked", out)
        code, _, err = await self.run_command("alice", "listen", "--count", "1", "--for", "60")
        self.assertEqual((code, err.count("\n")), (1, 1), err)
        self.assertIn("revoked", err)
        code, _, err = await self.run_command("laptop", "revoke", phone["device"], "--yes")
        self.assertEqual(code, 1)
        self.assertIn("already", err)

    async def test_send_waits_gives_up_and_is_sent_later(self) -> None:
        network = await self.joined("alice", "bob")
        await network.service.stopService()
        network.service.stopService = lambda: None  # type: ignore[assignment, return-value]
        code, _, err = await self.run_command("alice", "send", "bob", "later", "--timeout", "0.2")
        self.assertEqual(code, 75, err)
        self.assertIn("waits in the outbox", err)
        waiting = self.start("alice", "send", "bob", "and this")
        await waiting.until("trying again")
        waiting.signal(signal.SIGINT)
        self.assertEqual(await waiting.ended, 130)
        _, out, _ = await self.run_command("alice", "history", "bob")
        self.assertEqual(out.count("waiting"), 2)

    async def test_send_through_the_process_that_is_connected(self) -> None:
        await self.joined("alice", "bob")
        listening = self.start("alice", "listen", "--json")
        bob = self.start("bob", "listen", "--json", "--count", "1")
        # Whoever comes first holds the lock.
        await self.connected("alice", listening)
        self.assertEqual(await self.run_command("alice", "send", "bob", "through the other"), (0, "", ""))
        self.assertEqual(await bob.ended, 0)
        self.assertEqual(json.loads(bob.out)["text"], "through the other")
        listening.signal(signal.SIGTERM)
        self.assertEqual(await listening.ended, 143)

    async def test_what_keeps_a_message_from_being_sent_is_said_whoever_would_send_it(self) -> None:
        await self.joined("alice")
        profile = Profile.load(self.folder / "alice")
        vault = messenger.unlock(profile, "correct horse")
        self.addCleanup(vault.close)
        with vault.transaction():
            vault.execute("INSERT INTO accounts VALUES ('bob', x'00', x'00', 0, 0, x'00', x'01')")
        code, _, alone = await self.run_command("alice", "send", "bob", "hi", "--timeout", "30")
        self.assertEqual((code, alone.count("fastchat accept bob")), (1, 1), alone)
        # Now another process would do the sending.
        with profile.locked():
            self.assertEqual(await self.run_command("alice", "send", "bob", "hi", "--timeout", "30"), (1, "", alone))
            with vault.transaction():
                vault.put("alarm", "two checkpoints that do not agree")
            code, _, err = await self.run_command("alice", "send", "carol", "hi", "--timeout", "30")
            self.assertEqual((code, err.count("key log")), (1, 1), err)

    async def test_a_plain_chat_on_pipes(self) -> None:
        await self.joined("alice", "bob")
        alice = self.start("alice", "chat", "bob")
        alice.write("hello from a pipe\n/nonsense\n")
        await alice.until("there is no command /nonsense")
        alice.close_stdin()
        self.assertEqual(await alice.ended, 0, alice.err)
        self.assertNotIn(b"\x1b", alice.out)
        bob = self.start("bob", "chat", "--plain")
        await bob.until("alice: hello from a pipe")
        bob.write("/msg alice\n/quit\n")
        self.assertEqual(await bob.ended, 0, bob.err)
        self.assertIn(b"alice: hello from a pipe", bob.out)

    async def test_the_chat_on_a_terminal(self) -> None:
        await self.joined("alice", "bob")
        alice = self.start("alice", "chat", "bob", tty=True)
        await alice.until("bob")
        bob = self.start("bob", "chat", "alice", tty=True)
        await bob.until("alice")
        alice.write("hello bob\r")
        await bob.until("hello bob")
        await alice.until("✓")
        # Nobody could continue a process without a shell, so Ctrl-Z does not stop this one.
        alice.write("after\x1a the stop\r")
        await bob.until("after the stop")
        bob.write("/quit\r")
        self.assertEqual(await bob.ended, 0)
        alice.signal(signal.SIGTERM)
        self.assertEqual(await alice.ended, 143)
        self.assertIn(b"\x1b[?2004l", alice.out[-200:], "bracketed paste is off again: the terminal is as it was")
        self.assertNotIn(b"Traceback", alice.out + bob.out)
