"""The balancer's conversation, with the real codec on its way out and no sockets."""

from __future__ import annotations

from random import SystemRandom
from typing import Any

from twisted.internet.task import Clock
from twisted.logger import LogLevel, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from fastchat.placement import Placement
from fastchat.protocols.balancer import BalancerSession
from fastchat.protocols.wire import (
    Assigned,
    Error,
    ServerMessage,
    ServiceAddress,
    decode_client_message,
    decode_server_message,
    encode,
)

ONE = ServiceAddress(name="one", host="chat.example", port=7401)
TWO = ServiceAddress(name="two", host="chat.example", port=7402)


class BalancerSessionTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.placement = Placement("least-connections", self.clock.seconds, SystemRandom())
        self.heard: list[ServerMessage] = []
        self.session = BalancerSession(self.placement, lambda message: self.heard.append(self.through(message)))

    def through(self, message: ServerMessage) -> ServerMessage:
        decoded: ServerMessage = decode_server_message(encode(message))
        return decoded

    def say(self, line: bytes) -> ServerMessage:
        """What one line is answered with: exactly one message."""
        self.session.received(decode_client_message(line))
        [answer] = self.heard
        self.heard.clear()
        return answer

    def test_assign(self) -> None:
        self.placement.report(ONE, 3)
        self.placement.report(TWO, 8)
        answer = self.say(b'{"t":"assign","id":7}')
        assert isinstance(answer, Assigned)
        self.assertEqual((answer.re, answer.service, answer.services), (7, ONE, (ONE, TWO)))
        self.assertEqual(answer.lease_seconds, 10.0)
        self.placement.report(ONE, 4, [answer.lease])
        self.assertEqual([load.leases for load in self.placement.loads()], [0, 0])

    def test_each_assign_is_a_decision_of_its_own(self) -> None:
        self.placement.report(ONE, 0)
        leases = set()
        for number in range(10):
            answer = self.say(b'{"t":"assign","id":%d}' % number)
            assert isinstance(answer, Assigned)
            self.assertEqual(answer.re, number)
            leases.add(answer.lease)
        self.assertEqual(len(leases), 10)

    def test_nothing_is_up(self) -> None:
        answer = self.say(b'{"t":"assign","id":1}')
        assert isinstance(answer, Error)
        self.assertEqual((answer.code, answer.re), ("busy", 1))
        assert isinstance(answer.retry_after, float)
        self.assertGreater(answer.retry_after, 0.0)

    def test_anything_else_is_out_of_turn(self) -> None:
        self.placement.report(ONE, 0)
        for line in (b'{"t":"hello","id":5,"version":1}', b'{"t":"ping","id":5}', b'{"t":"log","id":5,"start":0}'):
            answer = self.say(line)
            assert isinstance(answer, Error)
            self.assertEqual((answer.code, answer.re), ("out-of-turn", 5))

    def test_what_has_no_id_is_answered_without_one(self) -> None:
        answer = self.say(b'{"t":"received","upto":1}')
        self.assertEqual(encode(answer).count(b'"re"'), 0)

    def test_it_goes_on_after_a_mistake(self) -> None:
        self.placement.report(ONE, 0)
        self.say(b'{"t":"ping","id":1}')
        self.assertIsInstance(self.say(b'{"t":"assign","id":2}'), Assigned)

    def test_one_line_per_decision_at_debug_level(self) -> None:
        self.placement.report(ONE, 0)
        events: list[Any] = []
        globalLogPublisher.addObserver(events.append)
        self.addCleanup(globalLogPublisher.removeObserver, events.append)
        self.say(b'{"t":"assign","id":1}')
        [event] = [
            event for event in events if event.get("log_namespace") == "fastchat.protocols.balancer.BalancerSession"
        ]
        self.assertEqual(event["log_level"], LogLevel.debug)
        self.assertEqual(event["service"], "one")
