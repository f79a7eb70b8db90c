"""The table of slash commands: how lines are read, and what they ask of a face."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from fastchat.errors import FastChatError, NameNotAllowed, RequestError, UnknownGroup
from fastchat_client import commands, sizes
from fastchat_client.commands import CommandError, help_lines, run_line
from fastchat_client.completing import completions, path_begun, word_begun
from fastchat_client.durations import in_words, seconds_of, written
from fastchat_client.group_acting import (
    Act,
    DeleteAct,
    InviteAct,
    JoinAct,
    LeaveAct,
    RemoveAct,
    RenameAct,
    TopicAct,
)


class FileRecorder:
    """The part of it that has to do with files."""

    def __init__(self, done: list[tuple[object, ...]]) -> None:
        self.done = done

    def send(self, conversation: str, path: str, text: str, *, original: bool) -> None:
        self.done.append(("original" if original else "send file", conversation, path, text))

    def fetch(self, message: str, directory: str) -> None:
        self.done.append(("fetch", message, directory))

    def show(self, message: str) -> None:
        self.done.append(("show", message))

    def show_transfers(self) -> None:
        self.done.append(("transfers",))

    def cancel(self, transfer: str) -> None:
        self.done.append(("cancel", transfer))

    def set_auto_download(self, size: int) -> None:
        self.done.append(("auto", size))


class Recorder:
    """A face that writes down what it was asked for."""

    def __init__(self, conversation: str | None = None) -> None:
        self.conversation = conversation
        self.done: list[tuple[object, ...]] = []

    @property
    def files(self) -> FileRecorder:
        return FileRecorder(self.done)

    def open(self, who: str) -> None:
        self.done.append(("open", who))

    def send(self, who: str, text: str) -> None:
        self.done.append(("send", who, text))

    def meant(self, word: str) -> str:
        if word == "#nowhere":
            raise UnknownGroup("you know no group #nowhere")
        return f"{word}!" if word.startswith("#") else word

    def message(self, word: str, *, own: bool) -> str:
        return f"{'mine' if own else 'theirs'}:{word}"

    def reply(self, message: str, text: str) -> None:
        self.done.append(("reply", message, text))

    def react(self, message: str, emoji: str, *, remove: bool) -> None:
        self.done.append(("unreact" if remove else "react", message, emoji))

    def edit(self, message: str, text: str) -> None:
        self.done.append(("edit", message, text))

    def delete(self, message: str) -> None:
        self.done.append(("delete", message))

    def show_message(self, message: str) -> None:
        self.done.append(("info", message))

    def set_timer(self, conversation: str, seconds: int) -> None:
        self.done.append(("timer", conversation, seconds))

    def mute(self, conversation: str, on: bool) -> None:
        self.done.append(("mute", conversation, on))

    def block(self, user: str, on: bool) -> None:
        self.done.append(("block", user, on))

    def set_presence(self, on: bool) -> None:
        self.done.append(("presence", on))

    def create_group(self, name: str, topic: str) -> None:
        self.done.append(("create", name, topic))

    def act(self, group: str, act: Act) -> None:
        self.done.append(("act", group, act))

    def change_role(self, group: str, user: str, *, up: bool) -> None:
        self.done.append(("role", group, user, up))

    def show_groups(self) -> None:
        self.done.append(("groups",))

    def show_group(self, group: str) -> None:
        self.done.append(("group", group))

    def show_people(self) -> None:
        self.done.append(("people",))

    def show_history(self, who: str, limit: int) -> None:
        self.done.append(("history", who, limit))

    def accept(self, who: str) -> None:
        self.done.append(("accept", who))

    def show_self(self) -> None:
        self.done.append(("self",))

    def show_help(self, lines: list[str]) -> None:
        self.done.append(("help", len(lines)))

    def reconnect(self) -> None:
        self.done.append(("reconnect",))

    def quit(self) -> None:
        self.done.append(("quit",))


def asked(line: str, conversation: str | None = None) -> list[tuple[object, ...]]:
    face = Recorder(conversation)
    run_line(face, line)
    return face.done


class RunLineTests(SynchronousTestCase):
    def test_a_text_goes_to_the_open_conversation_as_it_is(self) -> None:
        self.assertEqual(asked("  hi /who ", "bob"), [("send", "bob", "  hi /who ")])

    def test_two_slashes_are_a_text_that_begins_with_one(self) -> None:
        self.assertEqual(asked("//etc/passwd", "bob"), [("send", "bob", "/etc/passwd")])

    def test_an_empty_line_is_nothing(self) -> None:
        self.assertEqual(asked("   ", "bob"), [])

    def test_a_text_without_a_conversation_is_refused_with_what_to_type(self) -> None:
        self.assertIn("/msg WHO", str(self.assertRaises(CommandError, asked, "hi")))

    def test_msg_opens_and_sends_the_rest_of_the_line(self) -> None:
        self.assertEqual(asked("/msg @bob  how are  you"), [("open", "bob"), ("send", "bob", "how are  you")])
        self.assertEqual(asked("/m bob"), [("open", "bob")])
        self.assertIn("/msg WHO [TEXT]", str(self.assertRaises(CommandError, asked, "/msg")))

    def test_history_takes_a_name_a_number_both_or_neither(self) -> None:
        few = commands.HISTORY_LINES
        self.assertEqual(asked("/history", "bob"), [("history", "bob", few)])
        self.assertEqual(asked("/history carol", "bob"), [("history", "carol", few)])
        self.assertEqual(asked("/history 50", "bob"), [("history", "bob", 50)])
        self.assertEqual(asked("/history 50 60", "bob"), [("history", "50", 60)])
        self.assertEqual(asked("/history carol 999999999"), [("history", "carol", commands.MOST_HISTORY_LINES)])
        self.assertRaises(CommandError, asked, "/history")
        self.assertRaises(CommandError, asked, "/history carol x")
        self.assertRaises(CommandError, asked, "/history carol 1 2")

    def test_the_others(self) -> None:
        for line, expected in (
            ("/who", ("people",)),
            ("/WHO", ("people",)),
            ("/accept bob", ("accept", "bob")),
            ("/whoami", ("self",)),
            ("/reconnect", ("reconnect",)),
            ("/help", ("help", len(help_lines()))),
            ("/quit", ("quit",)),
            ("/q", ("quit",)),
        ):
            self.assertEqual(asked(line), [expected], line)

    def test_an_unknown_command_names_the_nearest(self) -> None:
        self.assertIn("did you mean /history?", str(self.assertRaises(CommandError, asked, "/histroy")))
        self.assertIn("/help", str(self.assertRaises(CommandError, asked, "/zzzzzz")))

    def test_a_name_that_nobody_can_have_is_refused_here(self) -> None:
        self.assertRaises(NameNotAllowed, asked, "/msg Bob! hi")

    def test_too_much_is_refused(self) -> None:
        self.assertIn("/who", str(self.assertRaises(CommandError, asked, "/who bob")))

    @settings(deadline=None)
    @given(st.text())
    def test_any_line_does_something_or_is_refused(self, line: str) -> None:
        words = ("/", "/msg ", "/history ", "/group ", "/group invite ", "/timer ", "/react ", "/send ", "/fetch ")
        for typed in (line, *(word + line for word in words)):
            try:
                asked(typed, "bob")
            except FastChatError as error:
                self.assertTrue(error.message)


class MessageCommandTests(SynchronousTestCase):
    def test_a_message_is_named_by_its_number_or_as_the_last(self) -> None:
        for line, expected in (
            ("/reply 7 yes, of course", ("reply", "theirs:7", "yes, of course")),
            ("/react last 👍", ("react", "theirs:last", "👍")),
            ("/react 7 +1", ("react", "theirs:7", "👍")),
            ("/unreact 7 +1", ("unreact", "theirs:7", "👍")),
            ("/edit last  as it  should be", ("edit", "mine:last", "as it  should be")),
            ("/del 3", ("delete", "mine:3")),
            ("/info 1a2b3c.12", ("info", "mine:1a2b3c.12")),
        ):
            self.assertEqual(asked(line, "bob"), [expected], line)
        for line in ("/reply 7", "/react 7", "/edit 7", "/del", "/del 7 8", "/react 7 👍 👍"):
            self.assertRaises(CommandError, asked, line, "bob")

    def test_what_is_set_is_set_where_one_is_or_where_one_says(self) -> None:
        for line, expected in (
            ("/timer 5m", ("timer", "bob", 300)),
            ("/timer carol 1h", ("timer", "carol", 3600)),
            ("/timer #team off", ("timer", "#team!", 0)),
            ("/mute", ("mute", "bob", True)),
            ("/unmute #team", ("mute", "#team!", False)),
            ("/block carol", ("block", "carol", True)),
            ("/unblock @carol", ("block", "carol", False)),
            ("/presence OFF", ("presence", False)),
        ):
            self.assertEqual(asked(line, "bob"), [expected], line)
        for line in ("/timer", "/timer 5", "/timer 5x", "/timer 400d", "/block #team", "/presence maybe"):
            self.assertRaises(RequestError, asked, line, "bob")
        self.assertIn("/msg WHO", str(self.assertRaises(CommandError, asked, "/mute")))


class FileCommandTests(SynchronousTestCase):
    def test_a_path_is_typed_as_shells_have_it(self) -> None:
        for line, path, text in (
            ("/send beach.jpg", "beach.jpg", ""),
            ("/send ~/beach.jpg  see this ", "~/beach.jpg", "see this"),
            ('/send "my beach.jpg" see "this"', "my beach.jpg", 'see "this"'),
            ("/send 'it \\ is.jpg'", "it \\ is.jpg", ""),
            (r"/send my\ beach.jpg", "my beach.jpg", ""),
            ("/send my' 'beach.jpg look", "my beach.jpg", "look"),
            ('/send "not closed', "not closed", ""),
            ("/file a b", "a", "b"),
        ):
            self.assertEqual(asked(line, "bob"), [("send file", "bob", path, text)], line)
        self.assertEqual(asked("/original a.jpg", "bob"), [("original", "bob", "a.jpg", "")])
        self.assertIn("/msg WHO", str(self.assertRaises(CommandError, asked, "/send a.jpg")))
        self.assertIn("PATH is missing", str(self.assertRaises(CommandError, asked, "/send", "bob")))

    def test_a_file_is_fetched_by_number_or_the_newest_one_to_here_or_there(self) -> None:
        for line, expected in (
            ("/fetch", ("fetch", "", "")),
            ("/fetch latest", ("fetch", "", "")),
            ("/fetch last ~/here", ("fetch", "", "~/here")),
            ("/fetch 3", ("fetch", "theirs:3", "")),
            ("/fetch 1a2b3c.12 'my things'", ("fetch", "theirs:1a2b3c.12", "my things")),
            ("/fetch ~/here", ("fetch", "", "~/here")),
            ("/show 3", ("show", "theirs:3")),
            ("/transfers", ("transfers",)),
            ("/cancel 1a2b", ("cancel", "1a2b")),
            ("/autofetch 5MB", ("auto", 5_000_000)),
            ("/autofetch off", ("auto", 0)),
        ):
            self.assertEqual(asked(line, "bob"), [expected], line)
        for line in ("/fetch 3 a b", "/show", "/cancel", "/autofetch much"):
            self.assertRaises(RequestError, asked, line, "bob")

    def test_where_a_path_is_typed(self) -> None:
        for line, path in (
            ("/send ", ""),
            ("/send ~/be", "~/be"),
            ('/send "my be', '"my be'),
            (r"/send my\ be", r"my\ be"),
            ("/fetch 3 ~/", "~/"),
            ("/fetch ~/", "~/"),
        ):
            self.assertEqual((path_begun(line), word_begun(line)), (path, path), line)
        for line in ("/send", "/send a.jpg ", "/send a.jpg loo", "/fetch 3", "/msg b", "hello /send x", "//send x", ""):
            self.assertIsNone(path_begun(line), line)
        self.assertEqual(word_begun("/msg b"), "b")


class GroupCommandTests(SynchronousTestCase):
    def test_of_the_open_group_or_of_one_that_is_named(self) -> None:
        for line, act in (
            ("/group invite{} carol", InviteAct("carol", history=7)),
            ("/group invite{} carol 0", InviteAct("carol", history=0)),
            ("/group leave{}", LeaveAct()),
            ("/group remove{} @carol", RemoveAct("carol")),
            ("/group rename{} crew", RenameAct("crew")),
            ("/group topic{} what we do", TopicAct("what we do")),
        ):
            self.assertEqual(asked(line.format(""), "#open"), [("act", "#open", act)], line)
            self.assertEqual(asked(line.format(" #team"), "bob"), [("act", "#team!", act)], line)
            self.assertIn("#name", str(self.assertRaises(CommandError, asked, line.format(""), "bob")))
        self.assertEqual(asked("/group promote bob", "#open"), [("role", "#open", "bob", True)])
        self.assertEqual(asked("/group demote #team bob"), [("role", "#team!", "bob", False)])
        self.assertEqual(asked("/group show", "#open"), [("group", "#open")])
        self.assertEqual(asked("/groups"), [("groups",)])

    def test_what_cannot_be_undone_and_what_is_new_is_named(self) -> None:
        self.assertEqual(asked("/group join team"), [("act", "#team!", JoinAct())])
        self.assertEqual(asked("/group delete #team", "#open"), [("act", "#team!", DeleteAct())])
        for line in ("/group join", "/group delete"):
            self.assertIn("#GROUP is missing", str(self.assertRaises(CommandError, asked, line, "#open")))

    def test_a_group_is_made_and_talked_to(self) -> None:
        self.assertEqual(asked("/group create team what we do"), [("create", "team", "what we do")])
        self.assertEqual(asked("/GROUP Create team"), [("create", "team", "")])
        self.assertEqual(asked("/msg #team hello"), [("open", "#team!"), ("send", "#team!", "hello")])
        self.assertEqual(asked("/history #team 5"), [("history", "#team!", 5)])
        self.assertRaises(UnknownGroup, asked, "/msg #nowhere hello")

    def test_what_is_none_is_refused_with_what_there_is(self) -> None:
        self.assertIn("did you mean /group join?", str(self.assertRaises(CommandError, asked, "/group jion #team")))
        for line in (
            "/group",
            "/group invite",
            "/group invite #team",
            "/group invite carol 31",
            "/group invite carol x",
        ):
            self.assertRaises(CommandError, asked, line, "#open")


class TableTests(SynchronousTestCase):
    def test_every_command_and_argument_is_in_the_help(self) -> None:
        text = "\n".join(help_lines())
        for command in commands.COMMANDS:
            self.assertIn(command.usage, text)
            self.assertTrue(command.help)

    def test_no_word_means_two_commands(self) -> None:
        words = [word for command in commands.COMMANDS for word in (command.name, *command.aliases)]
        self.assertEqual(len(words), len(set(words)))

    def test_completions(self) -> None:
        names = ["bob", "carol"]
        self.assertEqual(completions("/h", names), ["/history", "/help"])
        self.assertEqual(completions("/msg ", names), names)
        self.assertEqual(completions("/msg c", names), ["carol"])
        self.assertEqual(completions("/accept @b", names), ["bob"])
        self.assertEqual(completions("/msg bob h", names), [])
        self.assertEqual(completions("/quit b", names), [])
        self.assertEqual(completions("/nonsense b", names), [])
        self.assertEqual(completions("hello", names), [])
        self.assertEqual(completions("//h", names), [])

    def test_completions_of_groups(self) -> None:
        names, groups, members = ["bob", "carol"], ["#team", "#crew"], ["bob", "dave"]

        def complete(line: str) -> list[str]:
            return completions(line, names, groups, members)

        self.assertEqual(complete("/gr"), ["/groups", "/group"])
        self.assertEqual(complete("/group de"), ["demote", "delete"])
        self.assertEqual(complete("/msg "), [*names, *groups])
        self.assertEqual(complete("/msg #t"), ["#team"])
        self.assertEqual(complete("/group join #"), groups)
        self.assertEqual(complete("/group invite c"), ["carol"])
        self.assertEqual(complete("/group invite #team b"), ["bob"])
        self.assertEqual(complete("/group nonsense b"), [])
        self.assertEqual(complete("hello @d"), ["@dave"])
        self.assertEqual(complete("/reply 7 hello @"), ["@bob", "@dave"])
        self.assertEqual(complete("hello d"), [])


class SizeTests(SynchronousTestCase):
    def test_what_is_written_is_read(self) -> None:
        for text, size in (("812", 812), ("120kB", 120_000), ("2.3 MB", 2_300_000), ("1g", 10**9)):
            self.assertEqual(sizes.bytes_of(text), size, text)
        self.assertEqual(sizes.bytes_of("off"), 0)
        for text in ("", "MB", "1.25MB", "-1", "1TB", "٣MB", "9999999GB", "5 MB more"):
            self.assertRaises(RequestError, sizes.bytes_of, text)

    def test_in_the_unit_that_fits(self) -> None:
        for size, text in (
            (0, "0 bytes"),
            (1, "1 byte"),
            (999, "999 bytes"),
            (1000, "1.0 kB"),
            (2_345_678, "2.3 MB"),
            (9_960_000, "10 MB"),
            (314_572_800, "315 MB"),
            (2**31, "2.1 GB"),
        ):
            self.assertEqual(sizes.written(size), text)

    def test_how_long_yet(self) -> None:
        for seconds, text in ((0.2, "0:00"), (7, "0:07"), (754, "12:34"), (7505, "2:05:05")):
            self.assertEqual(sizes.time_left(seconds), text)


class DurationTests(SynchronousTestCase):
    def test_what_is_written_is_read(self) -> None:
        for text, seconds, words in (
            ("30s", 30, "30 seconds"),
            ("5m", 300, "5 minutes"),
            ("1h", 3600, "1 hour"),
            ("7d", 604_800, "7 days"),
            ("off", 0, "no time"),
        ):
            self.assertEqual(seconds_of(text), seconds)
            self.assertEqual(written(seconds), text)
            self.assertEqual(in_words(seconds), words)
        self.assertEqual(seconds_of(" 90S "), 90)
        self.assertEqual(written(90), "90s")

    def test_what_is_no_time_is_refused(self) -> None:
        for text in ("", "5", "m", "-5m", "5 m", "1.5h", "0s", "367d", "99999999999s", "٣d"):
            self.assertRaises(RequestError, seconds_of, text)
