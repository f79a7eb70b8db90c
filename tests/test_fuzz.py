"""A fixed number of examples of each fuzz target, always the same ones; `make fuzz` tries others, for minutes."""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import redirect_stdout
from types import SimpleNamespace
from typing import Any

import msgspec
from hypothesis import HealthCheck, Phase, find, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from fastchat import accounts
from fastchat.delivery.inbox import Inbox
from fastchat.identity import login
from fastchat.protocols import wire
from fastchat.protocols.line import LineShell
from fastchat.protocols.session import Session
from fastchat_client.sending import Sender
from tests.fuzz import balancer, client, connection, line, parsers, session
from tests.fuzz.__main__ import fuzz
from tests.fuzz.messages import Values, kinds
from tests.fuzz.targets import TARGETS
from tests.fuzz.watching import Target

SAME = settings(
    derandomize=True,
    deadline=None,
    database=None,
    phases=(Phase.generate, Phase.shrink),
    suppress_health_check=list(HealthCheck),
)


def examples(target: Target) -> Callable[[], None]:
    """The target with its number of examples, as a test."""
    check: Callable[[], None] = settings(SAME, max_examples=target.examples)(given(target.inputs())(target.check))
    return check


class Targets(SynchronousTestCase):
    def test_line(self) -> None:
        examples(line.TARGETS[0])()

    def test_session(self) -> None:
        examples(session.TARGETS[0])()

    def test_balancer(self) -> None:
        examples(balancer.TARGETS[0])()

    def test_client(self) -> None:
        examples(client.TARGETS[0])()

    def test_connection(self) -> None:
        examples(connection.TARGETS[0])()

    def test_parsers(self) -> None:
        examples(parsers.TARGETS[0])()

    def test_there_is_no_other_one(self) -> None:
        named = {name.removeprefix("test_") for name in vars(Targets) if name.startswith("test_")}
        self.assertLessEqual({target.name for target in TARGETS}, named)


class Mistakes(SynchronousTestCase):
    """Mistakes put into the code, each of which shows at once in what its target is given here."""

    def test_last_words_that_are_not_said(self) -> None:
        write = LineShell._write
        self.patch(LineShell, "_write", lambda shell: write(shell) if shell.is_writable else None)
        deeds = [(0, "fill"), (0, "send"), (0, "close")]
        moves = line.Input([b"{}"], [b"\n"], [], [], (200, 200), 0, 0, 0, "close", set(), deeds)
        self.assertRaises(AssertionError, line.check, moves)

    def test_a_request_that_is_not_answered(self) -> None:
        self.patch(Session, "_refuse", lambda session, error, re: None)
        moves = [("enters", 0, "mallory"), ("says", 0, [b'{"t":"hello","id":7,"version":1}'], [], [])]
        self.assertRaises(AssertionError, session.check, (False, moves))

    def test_a_login_that_nobody_signed(self) -> None:
        blind = SimpleNamespace(statement=login.statement, verify=lambda *_: None)
        self.patch(accounts, "login", blind)
        moves: Any = [("says", 0, [b'{"t":"hello","id":7,"version":1}', ("forge", "bob")], [], [])]
        self.assertRaises(AssertionError, session.check, (False, moves))

    def test_an_inbox_that_stays(self) -> None:
        self.patch(Inbox, "close", lambda inbox: None)
        self.assertRaises(AssertionError, session.check, (False, [("enters", 0, "mallory")]))

    def test_what_is_accepted_without_having_been_sent(self) -> None:
        def accepted(sender: Sender, request: int) -> None:
            for user in sender._parts.outbox.users:
                for message in sender._parts.outbox.waiting_for(user):
                    sender._accept(message)

        self.patch(Sender, "accepted", accepted)
        moves = [("passes", 3), ("writes", "alice", "nobody"), ("invents", wire.Accepted(99), False)]
        self.assertRaises(AssertionError, client.check, moves)


class Fuzzer(SynchronousTestCase):
    def test_every_message_is_made(self) -> None:
        for union, decode in (
            (wire.ClientMessage, wire.decode_client_message),
            (wire.ServerMessage, wire.decode_server_message),
        ):
            for kind in kinds(union):
                message = find(Values().of(kind), lambda _: True, settings=settings(SAME, max_examples=5))
                self.assertIsInstance(decode(wire.encode(message)), kind)

    def test_what_cannot_be_made_is_not_left_out(self) -> None:
        class New(msgspec.Struct):
            field: complex

        self.assertRaises(TypeError, Values().of, New)

    def test_a_failure_is_told_with_its_seed(self) -> None:
        def check(number: Any) -> None:
            assert number < 1000

        said = io.StringIO()
        with redirect_stdout(said):
            self.assertFalse(fuzz(Target("odd", lambda: st.integers(), check, 1), 60, 5))
        self.assertIn("drawn=1000,", said.getvalue())
        self.assertIn("--seed 5 odd", said.getvalue())
