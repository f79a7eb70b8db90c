"""Files from the command line: what is refused and how, and all of it on a network."""

from __future__ import annotations

import base64
import json
import os
import signal

from fastchat_client import files, settings
from fastchat_client.content import File
from fastchat_client.history import Arrived, add_received
from tests.support.cli import CliTestCase, CommandCase, typed
from tests.support.pictures import heic, photo

A = "a" * 32


class Offline(CliTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.directory = self.profile()
        self.open = self.vault(self.directory)
        self.where = ("--profile", str(self.directory))

    def brought(self, n: int, name: str, path: str = "") -> None:
        with self.open.transaction():
            add_received(self.open, Arrived("e1" * 16, n, "bob", "bob", 1_700_000_000_000 + n, "look", False))
            file = File(A, b"k" * 32, 2_345_678, b"s" * 32, name, "image/jpeg", 4032, 3024, b"small")
            files.add(self.open, "e1" * 16, n, file)
            if path:
                self.open.execute("UPDATE files SET path = ? WHERE n = ?", (path.encode(), n))

    def test_usage(self) -> None:
        for arguments in (
            ["send", "bob", "hi", "--original"],
            ["send", "bob", "hi", "--json"],
            ["fetch", "bob", "--to", "/nowhere/at/all"],
            ["transfers", "--resume", "--cancel", "x", *self.where],
            ["fetch", "e1e1.1", "--all", *self.where],
        ):
            code, _, err = typed(*arguments)
            self.assertEqual(code, 2, arguments)
            self.assertIn("Error", err)

    def test_what_is_refused_is_one_line(self) -> None:
        self.assertIn("no message e1e1.9", self.refused(1, "fetch", "e1e1.9", *self.where))
        with self.open.transaction():
            add_received(self.open, Arrived("e1" * 16, 1, "bob", "bob", 1_700_000_000_000, "only words", False))
        self.assertIn("brings no file", self.refused(1, "fetch", "bob", "e1e1.1", *self.where))
        self.assertIn("5xB is not a size", self.refused(1, "autofetch", "5xB", *self.where))

    def test_up_to_which_size_a_file_comes_by_itself(self) -> None:
        self.assertEqual(typed("autofetch", *self.where)[1], "Files up to 1.0 MB are fetched by themselves.\n")
        self.assertEqual(typed("autofetch", "5MB", *self.where)[1], "Files up to 5.0 MB are fetched by themselves.\n")
        self.assertEqual(settings.auto_download(self.open), 5_000_000)
        self.assertEqual(typed("autofetch", "off", *self.where)[1], "No file is fetched by itself.\n")

    def test_the_history_says_what_a_message_brings_and_how_to_have_it(self) -> None:
        self.brought(3, "beach.jpg")
        _, out, _ = typed("history", "bob", *self.where)
        self.assertIn(
            "[picture beach.jpg, 2.3 MB, 4032×3024] look  (fastchat fetch e1e1e1e1.3)", out.replace("x3024", "×3024")
        )
        _, out, _ = typed("history", "bob", "--json", *self.where)
        line = json.loads(out)
        self.assertEqual((line["text"], line["file"]["name"]), ("look", "beach.jpg"))
        self.assertEqual(base64.b64decode(line["file"]["thumbnail"]), b"small")
        self.assertNotIn("key", line["file"])

    def test_what_is_there_already_is_not_fetched_again(self) -> None:
        there = self.folder / "beach.jpg"
        there.write_bytes(b"x" * 2_345_678)
        self.brought(3, "beach.jpg", str(there))
        for arguments in (["fetch", "e1e1.3"], ["fetch", "bob", "e1e1.3"]):
            code, out, err = typed(*arguments, "--to", str(self.folder), *self.where)
            self.assertEqual((code, out, err), (0, f"{there}\n", ""), arguments)


class OnTheNetwork(CommandCase):
    async def test_a_picture_arrives_without_its_secrets_and_is_fetched(self) -> None:
        """Worth its processes: nothing else holds together the commands, the files on the disk and the network."""
        await self.joined("alice", "bob")
        picture, there = self.folder / "my beach.jpg", self.folder / "there"
        picture.write_bytes(photo())
        there.mkdir()
        code, out, err = await self.run_command(
            "alice", "send", "bob", "look at this", "--file", str(picture), "--json"
        )
        self.assertEqual(code, 0, err)
        last = json.loads(out.splitlines()[-1])
        self.assertEqual((last["event"], last["name"]), ("file-sent", "my beach.jpg"))
        code, out, err = await self.run_command("bob", "listen", "--count", "1", "--for", "60", "--json")
        self.assertEqual(code, 0, err)
        message = next(line for line in map(json.loads, out.splitlines()) if line["event"] == "message")
        self.assertEqual((message["text"], message["file"]["name"]), ("look at this", "my beach.jpg"))
        self.assertTrue(base64.b64decode(message["file"]["thumbnail"]))
        code, out, err = await self.run_command("bob", "fetch", "alice", "--to", str(there))
        self.assertEqual((code, out), (0, f"{there / 'my beach.jpg'}\n"), err)
        for arguments in (["alice"], []):
            again = await self.run_command("bob", "fetch", *arguments, "--to", str(there))
            self.assertEqual(again, (0, f"{there / 'my beach.jpg'}\n", ""))
        self.assertEqual(await self.run_command("bob", "fetch", "alice", "--all", "--to", str(there)), (0, "", ""))
        for arguments, words in (
            (["bob"], "no file in the conversation with bob"),
            (["#nowhere"], "no group"),
        ):
            code, out, err = await self.run_command("alice", "fetch", *arguments)
            self.assertEqual((code, out, err.count("\n")), (1, "", 1), err)
            self.assertIn(words, err)
        got = (there / "my beach.jpg").read_bytes()
        self.assertEqual(len(got), message["file"]["size"])
        self.assertNotIn(b"Exif", got)
        # What cannot be sent, or only as it is, in one line, whatever is there.
        os.mkfifo(self.folder / "pipe")
        (self.folder / "new.heic").write_bytes(heic())
        for name, words in (("pipe", "no file that can be sent"), ("new.heic", "--original")):
            code, out, err = await self.run_command("alice", "send", "bob", "--file", str(self.folder / name))
            self.assertEqual((code, out, err.count("\n")), (1, "", 1), err)
            self.assertIn(words, err)
        # From a pipe: what was begun is waited for, though nothing more is typed.
        alice = self.start("alice", "chat", "bob")
        alice.write(f'/original "{picture}"\n')
        alice.close_stdin()
        self.assertEqual(await alice.ended, 0, alice.err)
        self.assertIn("It goes as it is, and tells", alice.out.decode())
        _, out, _ = await self.run_command("alice", "history", "bob")
        self.assertEqual((out.count("[picture my beach.jpg"), out.count("waiting")), (2, 0))

    async def test_ctrl_c_on_both_sides_and_on_from_there(self) -> None:
        """Worth its seconds: a file that is large enough to be interrupted, by who sends it and by who fetches it."""
        await self.joined("alice", "bob")
        film, there = self.folder / "film.mkv", self.folder / "there"
        film.write_bytes(os.urandom(1_000_000) * 40)
        there.mkdir()
        alice = self.start("alice", "send", "bob", "--file", str(film), tty=True)
        await alice.until("film.mkv: sending")
        alice.write("\x03")
        self.assertEqual(await alice.ended, 130, alice.out)
        self.assertIn("film.mkv is kept", alice.out.decode())
        self.assertIn("fastchat transfers --resume", " ".join(alice.out.decode().split()))
        _, out, _ = await self.run_command("alice", "transfers")
        self.assertIn("film.mkv to bob: 40 MB, waits", out)
        # The same command goes on with the same file; it does not begin another one.
        alice = self.start("alice", "send", "bob", "--file", str(film))
        alice.close_stdin()
        await alice.until("fastchat: sending film.mkv")
        alice.signal(signal.SIGTERM)
        self.assertEqual(await alice.ended, 143)
        code, out, err = await self.run_command("alice", "transfers", "--resume")
        self.assertEqual((code, out), (0, ""), err)
        self.assertEqual(err.count("all of film.mkv is on the network"), 1, err)
        # Bob has not looked into his mailbox yet: what waits there is the newest.
        bob = self.start("bob", "fetch", "alice", "--to", str(there), tty=True)
        await bob.until("film.mkv: fetching")
        bob.write("\x03")
        self.assertEqual(await bob.ended, 130, bob.out)
        self.assertEqual([path for path in there.iterdir() if not path.name.startswith(".")], [], "not half a file")
        code, out, err = await self.run_command("bob", "fetch", "alice", "--to", str(there))
        self.assertEqual((code, out), (0, f"{there / 'film.mkv'}\n"), err)
        self.assertEqual((there / "film.mkv").read_bytes(), film.read_bytes())
        self.assertEqual((await self.run_command("alice", "transfers"))[1], "")

    async def test_through_the_process_that_is_connected(self) -> None:
        """Worth its processes: the one that holds the lock sends what another one has spooled."""
        await self.joined("alice", "bob")
        listening = self.start("alice", "listen", "--json")
        await self.connected("alice", listening)
        film = self.folder / "film.mkv"
        film.write_bytes(os.urandom(200_000))
        code, _, err = await self.run_command("alice", "send", "bob", "--file", str(film))
        self.assertEqual(code, 0, err)
        self.assertIn("another process is connected", err)
        await listening.until('"event":"file-sent"')
        listening.signal(signal.SIGTERM)
        self.assertEqual(await listening.ended, 143)
