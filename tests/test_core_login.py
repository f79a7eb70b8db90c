"""The way in: registration and its resumption, further devices, logins, and what ends a connection."""

from __future__ import annotations

import os

import msgspec
from msgspec import UNSET, Raw

from fastchat.errors import (
    Busy,
    FastChatError,
    InviteInvalid,
    LoginFailed,
    NameTaken,
    OutOfTurn,
    ProtocolError,
    Replaced,
    SignatureInvalid,
    TrustError,
    Unreachable,
)
from fastchat.identity.root import RootKey
from fastchat.protocols import wire
from fastchat_client.entrance import Enrolment
from fastchat_client.events import Connected
from fastchat_client.joining import change_invite
from fastchat_client.parts import AskedToLeave
from tests.support.conversation import Person, SceneTest
from tests.support.keys import root_key


class LoginTest(SceneTest):
    def _ends_with(self, person: Person, error: type[FastChatError]) -> FastChatError:
        if person.line is None:
            person.connects()
        self.scene.settle()
        self.assertIsNone(person.line)
        problem = person.core.wants_close
        self.assertIsInstance(problem, error)
        self.assertFalse(person.core.ready)
        assert problem is not None
        return problem

    def _drop(self, *kinds: type) -> None:
        self.network.mangle = lambda device, message: [] if isinstance(message, kinds) else [message]

    def _honest(self) -> None:
        self.network.mangle = lambda device, message: [message]


class Registration(LoginTest):
    def test_registered_and_in(self) -> None:
        alice = self.scene.person("alice")
        self.assertTrue(alice.core.ready)
        self.assertTrue(alice.vault.whoami().registered)
        self.assertEqual(alice.told(Connected), [Connected("chat-1", 0)])
        kinds = [type(message) for message in alice.said[:3]]
        self.assertEqual(kinds, [wire.Hello, wire.Register, wire.Login])

    def test_the_lease_is_said(self) -> None:
        alice = self.scene.person("alice", connect=False)
        alice.core.opened(self.network.connect(os.urandom(32)).binding, "a-lease")
        (hello,) = alice.core.take_messages()
        assert isinstance(hello, wire.Hello)
        self.assertEqual((hello.lease, hello.version), ("a-lease", wire.VERSION))

    def test_a_name_that_is_taken(self) -> None:
        self.scene.person("alice")
        other = self.scene.person("alice", root=root_key(3), connect=False)
        self._ends_with(other, NameTaken)
        self._ends_with(other, NameTaken)
        self.assertFalse(other.vault.whoami().registered)

    def test_an_invite_that_is_not_valid_and_then_another(self) -> None:
        alice = self.scene.person("alice", connect=False)
        change_invite(alice.vault, "stale")
        self._ends_with(alice, InviteInvalid)
        change_invite(alice.vault, "let-me-in")
        alice.connects()
        self.scene.settle()
        self.assertTrue(alice.core.ready)

    def test_the_answer_is_lost(self) -> None:
        """The account exists, its owner does not know: the next attempts find out, and get in."""
        alice = self.scene.person("alice", connect=False)
        self._drop(wire.Registered)
        alice.connects()
        self.scene.settle()
        self._honest()
        alice.dies()
        problem = self._ends_with(alice, Busy)
        self.assertEqual(problem.retry_after, 0.0)
        alice.dies()
        alice.connects()
        self.scene.settle()
        self.assertTrue(alice.core.ready)
        self.assertTrue(alice.vault.whoami().registered)

    def test_the_request_is_lost(self) -> None:
        alice = self.scene.person("alice", connect=False)
        self._drop(wire.Welcome)
        alice.connects()
        self.scene.settle()
        self._honest()
        alice.dies()
        alice.connects()
        self.scene.settle()
        self.assertTrue(alice.core.ready)

    def test_the_answer_is_lost_and_the_name_is_somebody_elses(self) -> None:
        alice = self.scene.person("alice", connect=False)
        self._drop(wire.Registered, wire.Error)
        self.scene.person("alice", root=root_key(3))
        alice.connects()
        self.scene.settle()
        self._honest()
        alice.dies()
        self._ends_with(alice, Busy)
        self._ends_with(alice, NameTaken)
        self._ends_with(alice, NameTaken)

    def test_composing_before_being_registered(self) -> None:
        alice, bob = self.scene.person("alice", connect=False), self.scene.person("bob", root=root_key(1))
        alice.says("bob", "early")
        self.assertEqual(alice.vault.waiting(), 1)
        alice.connects()
        self.scene.settle()
        self.assertEqual(bob.reads("alice"), ["early"])


class FurtherDevice(LoginTest):
    def setUp(self) -> None:
        super().setUp()
        self.alice = self.scene.person("alice")

    def test_added_and_in(self) -> None:
        phone = self.scene.further_device(self.alice)
        self.assertTrue(phone.core.ready)
        self.assertTrue(phone.vault.whoami().registered)
        self.assertEqual(phone.vault.whoami().fingerprint, self.alice.vault.whoami().fingerprint)
        self.assertEqual(len(self.network.accounts["alice"].links), 3)

    def test_a_third_one(self) -> None:
        devices = [self.alice, *(self.scene.further_device(self.alice) for _ in range(2))]
        bob = self.scene.person("bob", root=root_key(1))
        bob.says("alice", "to all three")
        self.scene.settle()
        self.assertEqual([device.reads("bob") for device in devices], [["to all three"]] * 3)

    def test_a_wrong_password(self) -> None:
        phone = self.scene.further_device(self.alice, password="wrong", connect=False)  # noqa: S106
        self._ends_with(phone, LoginFailed)
        self.assertEqual(len(self.network.accounts["alice"].links), 2)

    def test_another_rsa_key(self) -> None:
        self.alice.root = root_key(3)
        phone = self.scene.further_device(self.alice, connect=False)
        problem = self._ends_with(phone, TrustError)
        self.assertIn("another RSA key", problem.message)

    def test_without_the_key(self) -> None:
        phone = self.scene.further_device(self.alice, connect=False)
        phone._enrolment = None
        phone.dies()
        self._ends_with(phone, TrustError)

    def test_a_server_that_does_not_know_the_password(self) -> None:
        def mangle(device: str, message: wire.ServerMessage) -> list[wire.ServerMessage]:
            if isinstance(message, wire.ScramAnswer) and message.message.startswith("v="):
                return [wire.ScramAnswer(message.re, "v=" + "A" * 43 + "=", message.links)]
            return [message]

        self.network.mangle = mangle
        self._ends_with(self.scene.further_device(self.alice, connect=False), TrustError)

    def test_the_answer_is_lost(self) -> None:
        phone = self.scene.further_device(self.alice, connect=False)
        self._drop(wire.Added)
        phone.connects()
        self.scene.settle()
        self._honest()
        phone.dies()
        self._ends_with(phone, Busy)
        phone.connects()
        self.scene.settle()
        self.assertTrue(phone.core.ready)
        self.assertEqual(len(self.network.accounts["alice"].links), 3)

    def test_two_at_the_same_time(self) -> None:
        phones = [self.scene.further_device(self.alice, connect=False) for _ in range(2)]
        for phone in phones:
            phone.connects()
        for _ in range(3):
            self.scene.settle()
            for phone in phones:
                if phone.line is None:
                    phone.connects()
        self.assertEqual([phone.core.ready for phone in phones], [True, True])
        self.assertEqual(len(self.network.accounts["alice"].links), 4)

    def test_the_enrolment_is_in_no_vault(self) -> None:
        phone = self.scene.further_device(self.alice)
        assert isinstance(self.alice.root, RootKey)
        self.assertIsInstance(phone._enrolment, Enrolment)
        rows = phone.vault.execute("SELECT name, value FROM meta").fetchall()
        for name, value in rows:
            self.assertNotIn("password of alice", str(value), name)
            self.assertNotIn("PRIVATE KEY", str(value), name)


class Ending(LoginTest):
    def setUp(self) -> None:
        super().setUp()
        self.alice = self.scene.person("alice")

    def _hear(self, message: wire.ServerMessage) -> FastChatError:
        assert self.alice.line is not None
        self.alice.line.tell(message)
        return self._ends_with(self.alice, FastChatError)

    def test_a_device_that_is_not_believed(self) -> None:
        self.alice.disconnects()
        del self.network.devices[self.alice.device]
        self._ends_with(self.alice, LoginFailed)

    def test_replaced(self) -> None:
        self.assertIsInstance(self._hear(wire.Error("replaced", "elsewhere")), Replaced)

    def test_asked_to_go_away(self) -> None:
        problem = self._hear(wire.GoAway(12.5, "stopping"))
        self.assertIsInstance(problem, AskedToLeave)
        self.assertEqual((problem.retry_after, problem.message), (12.5, "stopping"))

    def test_what_only_belongs_before_the_login(self) -> None:
        self.assertIsInstance(self._hear(wire.Registered(1)), ProtocolError)

    def test_messages_numbered_wrongly(self) -> None:
        message = wire.Message(5, "bob", "0" * 32, 1, 0, Raw(b'""'))
        self.assertIsInstance(self._hear(message), ProtocolError)

    def test_afterwards_it_connects_again(self) -> None:
        self._hear(wire.Error("slow-reader", "you did not read"))
        self.alice.connects()
        self.assertIsNone(self.alice.core.wants_close)
        self.scene.settle()
        self.assertTrue(self.alice.core.ready)

    def test_silence(self) -> None:
        self._drop(wire.Pong)
        self.scene.pass_time(74)
        self.assertTrue(self.alice.core.ready)
        self.scene.pass_time(2)
        self.assertIsInstance(self.alice.core.wants_close, Unreachable)

    def test_pings_keep_it_alive(self) -> None:
        self.scene.pass_time(601)
        self.assertTrue(self.alice.core.ready)
        self.assertEqual(len([m for m in self.alice.said if isinstance(m, wire.Ping)]), 20)

    def test_a_clock_that_is_set_back(self) -> None:
        self.alice.core._parts.clock = self.alice.core._clock = lambda: 1000.0
        self.alice.core.tick()
        self.scene.settle()
        self.assertTrue(self.alice.core.ready)

    def test_a_login_that_never_ends(self) -> None:
        self.alice.disconnects()
        self._drop(wire.Ready)
        self.alice.connects()
        self.scene.pass_time(21)
        self.assertIsInstance(self.alice.core.wants_close, Unreachable)

    def test_a_challenge_that_is_none(self) -> None:
        self.alice.disconnects()
        self.network.mangle = lambda device, message: [
            msgspec.structs.replace(message, challenge=b"short") if isinstance(message, wire.Welcome) else message
        ]
        self._ends_with(self.alice, SignatureInvalid)

    def test_answers_to_what_was_not_asked(self) -> None:
        self.alice.disconnects()
        self.network.mangle = lambda device, message: [
            msgspec.structs.replace(message, re=999) if isinstance(message, wire.Welcome) else message
        ]
        self._ends_with(self.alice, OutOfTurn)

    def test_errors_keep_their_kind(self) -> None:
        for code, kind in (("name-taken", NameTaken), ("busy", Busy), ("no-such-code", FastChatError)):
            error = wire.exception_from(wire.Error(code, "why", UNSET, 3.0))
            self.assertIs(type(error), kind)
            self.assertEqual((error.message, error.retry_after), ("why", 3.0))
