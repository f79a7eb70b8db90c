"""Groups, and what is said of single messages, from the command line: what is refused, and all of it on a real one."""

from __future__ import annotations

import json
import signal
from typing import Any

from fastchat.errors import RequestError
from fastchat_client.group_acting import compose_create
from fastchat_client.history import Arrived, add_received
from fastchat_client.naming import message, message_named
from fastchat_client.profile import Profile
from tests.support.cli import CliTestCase, CommandCase, typed

NOW = 1_795_000_000_000


class Offline(CliTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.directory = self.profile()
        self.at = ("--profile", str(self.directory))

    def create(self, name: str) -> str:
        return compose_create(self.vault(self.directory), name, "", NOW)[1]

    def test_usage(self) -> None:
        for arguments in (
            ["group"],
            ["group", "create"],
            ["group", "invite", "team"],
            ["group", "invite", "team", "Not A Name"],
            ["group", "invite", "team", "bob", "--history", "31"],
            ["react", "1a2b.1"],
            ["presence", "maybe"],
            ["mute"],
        ):
            self.assertEqual(typed(*arguments)[0], 2, arguments)
        code, out, _ = typed("group", "--help")
        self.assertEqual(code, 0)
        for command in (
            "create",
            "invite",
            "join",
            "leave",
            "remove",
            "promote",
            "demote",
            "rename",
            "topic",
            "delete",
        ):
            self.assertIn(f"  {command} ", out)
            self.assertIn("--timeout", typed("group", command, "--help")[1])

    def test_what_nobody_could_type_is_no_name(self) -> None:
        for name in ("", "#", "two words", "a/b", "a#b", "x" * 65, "a\x1bb"):
            self.assertIn("one word", self.refused(1, "group", "create", name, *self.at))

    def test_groups_that_there_are(self) -> None:
        self.assertEqual(typed("group", "list", *self.at), (0, "", ""))
        conversation = self.create("team")
        (line,) = typed("group", "list", "--json", *self.at)[1].splitlines()
        found = json.loads(line)
        self.assertEqual((found["conversation"], found["name"], found["role"]), (conversation, "team", "owner"))
        self.assertEqual((found["members"], found["unread"]), ([{"user": "alice", "role": "owner"}], 0))
        self.assertIn("#team  owner  1 member", typed("group", "list", *self.at)[1])
        for where in ("team", "#team", "TEAM", conversation, conversation[:6], conversation[1:9]):
            code, out, err = typed("group", "show", where, *self.at)
            self.assertEqual(code, 0, err)
            self.assertIn(f"id           {conversation}", out)
        self.assertIn("#team", self.refused(1, "group", "show", "crew", *self.at))
        self.create("team")
        self.assertIn("several groups", self.refused(1, "group", "show", "team", *self.at))

    def test_settings_need_no_network(self) -> None:
        self.create("team")
        for arguments, words in (
            (["mute", "#team"], "without a sign"),
            (["unmute", "#team"], "with a sign again"),
            (["mute", "bob"], "without a sign"),
            (["block", "bob"], "nothing more of bob"),
            (["unblock", "bob"], "hear again of bob"),
            (["presence", "off"], "Nobody sees"),
            (["presence", "on"], "Others see"),
        ):
            code, out, err = typed(*arguments, *self.at)
            self.assertEqual((code, err), (0, ""))
            self.assertIn(words, out)
        self.assertIn("yourself", self.refused(1, "block", "alice", *self.at))

    def test_a_message_is_named_by_the_beginning_of_its_id(self) -> None:
        vault = self.vault(self.directory)
        with vault.transaction():
            for device in ("1a2b" + "c" * 28, "1a2b" + "d" * 28):
                add_received(vault, Arrived(device, 7, "bob", "bob", NOW, f"of {device}", False))
        self.assertEqual(message_named(vault, "1A2BC.7"), f"1a2b{'c' * 28}.7")
        self.assertIn("several", str(self.assertRaises(RequestError, message_named, vault, "1a2b.7")))
        for text in ("1a2bc.8", "1a2.7", "1a2b%.7", "1a2bc.07x"):
            self.assertRaises(RequestError, message_named, vault, text)
        found = message(vault, f"1a2b{'c' * 28}.7")
        self.assertEqual(found and found.text, f"of 1a2b{'c' * 28}")

    def test_a_message_that_is_none(self) -> None:
        for arguments in (
            ["react", "{}", "👍"],
            ["reply", "{}", "x"],
            ["edit", "{}", "x"],
            ["delete", "{}"],
            ["receipts", "{}"],
        ):
            for name in ("1a2b3c.99", "7", "x", "1a2b.", "zzzzzz.1"):
                self.assertIn("message", self.refused(1, *[word.format(name) for word in arguments], *self.at))


class OnTheNetwork(CommandCase):
    """As processes, which is what they are: with one connected, it does the work of the others. Some seconds."""

    async def ok(self, who: str, *arguments: str) -> str:
        code, out, err = await self.run_command(who, *arguments, "--timeout", "60")
        self.assertEqual((code, err), (0, ""), (arguments, out))
        return out

    async def past(self, who: str, where: str) -> list[dict[str, Any]]:
        """What somebody has in the history of a conversation."""
        code, out, err = await self.run_command(who, "history", where, "--json")
        self.assertEqual(code, 0, err)
        return [json.loads(line) for line in out.splitlines()]

    async def test_from_create_to_a_removed_member(self) -> None:
        await self.joined("alice", "bob")
        self.assertIn("you are its owner", await self.ok("alice", "group", "create", "team", "--topic", "what we do"))
        await self.ok("alice", "send", "#team", "said before")
        self.assertIn("the last 7 days too", await self.ok("alice", "group", "invite", "team", "bob"))
        # bob has heard nothing of it yet.
        self.assertIn("You are a member of #team", await self.ok("bob", "group", "join", "team"))
        listening = self.start("alice", "listen", "--json")
        await self.connected("alice", listening)
        await self.ok("bob", "send", "#team", "hello @alice")
        await listening.until("hello @alice")
        events = [json.loads(line) for line in listening.out.splitlines()]
        message = next(event for event in events if event["event"] == "message")
        self.assertEqual((message["from"], message["mentioned"]), ("bob", True))
        self.assertIn("joined", [event.get("kind") for event in events])

        # All of this goes through the process that listens.
        short = f"{message['id'][:6]}.{message['id'].rpartition('.')[2]}"
        await self.ok("alice", "react", short, "👍")
        await self.ok("alice", "reply", short, "hello bob")
        answer = (await self.past("alice", "#team"))[-1]
        self.assertEqual((answer["text"], answer["reply"]), ("hello bob", message["id"]))
        await self.ok("alice", "edit", answer["id"], "hello bob!")
        await self.ok("alice", "timer", "#team", "7d")
        self.assertIn("bob is an admin of #team now", await self.ok("alice", "group", "promote", "team", "bob"))
        code, _, err = await self.run_command("alice", "group", "leave", "team")
        self.assertEqual(code, 1, err)
        self.assertIn("owner", err)
        listening.signal(signal.SIGTERM)
        await listening.ended

        code, out, err = await self.run_command("bob", "listen", "--json", "--count", "1", "--for", "60")
        self.assertEqual(code, 0, err)
        await self.ok("bob", "send", "#team", "goes in a week")
        items = {item["text"]: item for item in await self.past("bob", "#team")}
        self.assertEqual(set(items), {"said before", "hello @alice", "hello bob!", "goes in a week"})
        self.assertEqual(items["hello @alice"]["reactions"], [{"from": "alice", "emoji": "👍"}])
        self.assertTrue(items["hello bob!"]["edited"])
        self.assertEqual(items["goes in a week"]["expires"], 7 * 86_400)

        self.assertIn("bob is removed", await self.ok("alice", "group", "remove", "team", "bob"))
        _, out, _ = await self.run_command("alice", "receipts", answer["id"])
        self.assertRegex(out, "^bob +(delivered|read) +[0-9]")
        code, _, err = await self.run_command("bob", "send", "#team", "still here?", "--timeout", "60")
        self.assertEqual((code, err.count("\n")), (1, 1), err)
        await self.ok("alice", "delete", answer["id"], "--yes")
        await self.ok("alice", "group", "rename", "team", "crew")
        self.assertIn("#crew  owner  1 member", (await self.run_command("alice", "group", "list"))[1])
        await self.ok("alice", "group", "delete", "crew", "--yes")
        self.assertIn("the group is deleted", (await self.run_command("alice", "group", "list"))[1])

    async def test_a_group_that_one_is_not_invited_to(self) -> None:
        await self.joined("alice", "bob")
        code, _, err = await self.run_command("alice", "group", "join", "team", "--timeout", "1")
        self.assertEqual((code, err), (1, "fastchat: you know no group #team; you are in no group yet\n"))
        await self.ok("alice", "group", "create", "team")
        code, _, err = await self.run_command("alice", "group", "invite", "team", "nobody", "--timeout", "60")
        self.assertEqual((code, err.count("\n")), (1, 1), err)
        self.assertIn("nobody", err)
        # This process holds the lock and does nothing: what is waited for is kept.
        with Profile.load(self.folder / "alice").locked():
            code, _, err = await self.run_command("alice", "group", "invite", "team", "bob", "--timeout", "0")
            self.assertEqual((code, err.count("\n")), (75, 1), err)
            self.assertIn("what you want of #team waits in the outbox", err)
            code, _, err = await self.run_command("alice", "group", "promote", "team", "bob")
            self.assertEqual((code, err), (1, "fastchat: bob is no member\n"))
        code, _, err = await self.run_command("alice", "group", "invite", "team", "bob", "--timeout", "60")
        self.assertEqual((code, err), (1, "fastchat: #team: bob is invited already\n"), "what was kept was done first")
