"""The table of slash commands: how lines are read, and what they ask of a face."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from fastchat.errors import FastChatError, NameNotAllowed
from fastchat_client import commands
from fastchat_client.commands import CommandError, completions, help_lines, run_line


class Recorder:
    """A face that writes down what it was asked for."""

    def __init__(self, conversation: str | None = None) -> None:
        self.conversation = conversation
        self.done: list[tuple[object, ...]] = []

    def open(self, who: str) -> None:
        self.done.append(("open", who))

    def send(self, who: str, text: str) -> None:
        self.done.append(("send", who, text))

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
        for typed in (line, "/" + line, "/msg " + line, "/history " + line):
            try:
                asked(typed, "bob")
            except FastChatError as error:
                self.assertTrue(error.message)


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
