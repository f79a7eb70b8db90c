"""The services on real ports: TLS, limits of an address, garbage, and services that stop or die."""

from __future__ import annotations

import json
import socket
from functools import partial
from random import Random
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.protocol import Factory
from twisted.trial.unittest import TestCase
from twisted.web.client import Agent, readBody

from fastchat.errors import Unreachable
from fastchat.protocols import wire
from fastchat.protocols.session import BAD_FRAMES
from fastchat_client.dial import dial
from fastchat_client.events import Disconnected, Moving, State
from tests.support.running import Caller, Member, RunningNetwork, until
from tests.support.visitors import OldTls, Stranger, Visitor

ONLY = "127.0.0.1"


class ServicesCase(TestCase):
    timeout = 120

    async def begin(self, **limits: Any) -> None:
        self.network = await RunningNetwork.start(self, **limits)
        self.reactor = self.network.reactor

    async def until(self, condition: Any) -> None:
        await until(self.reactor, condition)

    async def visit(self, port: int | None = None) -> Visitor:
        """A connection to a port: the first chat service's, unless told otherwise."""
        invite = self.network.invite
        line = await dial(self.reactor, invite.host, port or self.network.running.services[0], invite.pin)
        visitor = Visitor(line)
        self.addCleanup(line.close)
        return visitor

    async def members(self, *names: str) -> list[Member]:
        found = [Member(self.network, name, Random(number)) for number, name in enumerate(names)]
        for member in found:
            self.addCleanup(_stopped, member)
            member.start()
            await member.connected()
        return found

    async def talk(self, members: list[Member], about: str) -> list[tuple[Member, str]]:
        """Each says something to each; the ids. `heard` waits until it has arrived."""
        return [
            (one, one.send(other.user, f"{about} {number}"))
            for number in range(3)
            for one in members
            for other in members
            if other is not one
        ]

    async def heard(self, members: list[Member], *abouts: str) -> None:
        """All that was said about these has arrived, once and in order, and its senders know."""
        expected = [f"{about} {number}" for about in abouts for number in range(3)]
        for one in members:
            for other in members:
                if other is not one:
                    await self.until(lambda one=one, other=other: len(one.texts[other.user]) >= len(expected))
                    self.assertEqual(one.texts[other.user], expected)

    def number(self, member: Member) -> int:
        """Of the service where somebody is, from 0."""
        return [chat.name for chat in self.network.service.chats].index(member.service)


class Doors(ServicesCase):
    """Who gets in at all."""

    async def test_too_many_connections_from_one_address(self) -> None:
        await self.begin(loopback_exempt=False, connections_per_address=2, connects_per_second_per_address=1000.0)
        first, second = await self.visit(), await self.visit(self.network.running.services[1])
        for port in (None, self.network.running.balancer):
            third = await self.visit(port)
            await third.line.ended
            self.assertEqual(third.codes, ["too-many-connections"])
        second.line.send(wire.Hello(1, 1))
        await self.until(lambda: second.heard)
        self.assertIsInstance(second.heard[0], wire.Welcome)
        first.line.close()
        await first.line.ended
        await self.until(lambda: self.network.node.addresses.open(ONLY) == 1)
        fourth = await self.visit()
        fourth.line.send(wire.Hello(1, 1))
        await self.until(lambda: fourth.heard)
        self.assertIsInstance(fourth.heard[0], wire.Welcome)

    async def test_too_many_connections_altogether(self) -> None:
        await self.begin(connections=2)
        first = await self.visit()
        await self.visit(self.network.running.balancer)
        third = await self.visit(self.network.running.services[1])
        await third.line.ended
        self.assertEqual(third.codes, ["too-many-connections"])
        self.assertIn("this network", third.heard[0].message)
        first.line.close()
        await first.line.ended
        await self.until(lambda: self.network.node.addresses.total == 1)
        fourth = await self.visit()
        fourth.line.send(wire.Hello(1, 1))
        await self.until(lambda: fourth.heard)
        self.assertIsInstance(fourth.heard[0], wire.Welcome)

    async def test_too_many_new_connections_a_second(self) -> None:
        await self.begin(loopback_exempt=False, connects_per_second_per_address=0.001)
        await self.visit()
        second = await self.visit()
        await second.line.ended
        self.assertEqual(second.codes, ["rate-limited"])

    async def test_plain_tcp_and_old_tls_get_nowhere_and_disturb_nobody(self) -> None:
        await self.begin()
        members = await self.members("alice", "bob")
        hello = wire.encode(wire.Hello(1, 1)) + b"\n"
        for port in (*self.network.running.services, self.network.running.balancer):
            endpoint = HostnameEndpoint(self.reactor, ONLY, port)
            for way in (endpoint, wrapClientTLS(OldTls(), endpoint)):
                stranger: Any = await way.connect(Factory.forProtocol(partial(Stranger, hello)))
                self.assertNotIn(b"welcome", await stranger.gone)
        await self.talk(members, "in between")
        await self.heard(members, "in between")
        self.assertEqual(sum(self.network.sessions), 2)

    async def test_who_says_nothing_is_sent_away(self) -> None:
        await self.begin(login_seconds=1.0)
        silent = await self.visit()
        greeted = await self.visit()
        greeted.line.send(wire.Hello(1, 1))
        asking = await self.visit(self.network.running.balancer)
        endpoint = HostnameEndpoint(self.reactor, ONLY, self.network.running.services[0])
        half_open: Any = await endpoint.connect(Factory.forProtocol(partial(Stranger, b"")))
        # The first bytes of a TLS handshake, and never the rest.
        stuck: Any = await endpoint.connect(Factory.forProtocol(partial(Stranger, b"\x16\x03\x01\x02\x00")))
        for visitor in (silent, greeted, asking):
            await visitor.line.ended
            self.assertEqual(visitor.codes, ["login-timeout"])
        for stranger in (half_open, stuck):
            await stranger.gone
        self.assertEqual([len(chat._open) for chat in self.network.service.chats], [0] * 5)
        self.assertEqual(self.network.sessions, [0] * 5)

    async def test_both_ends_of_a_connection_know_it_by_the_same_names(self) -> None:
        await self.begin()
        visitors = [await self.visit() for _ in range(3)]
        chat = self.network.service.chats[0]
        await self.until(lambda: len(chat._open) == 3)
        there = {session._entrance._binding() for session in chat._open}
        here = {visitor.line.binding for visitor in visitors}
        self.assertEqual(here, there)
        self.assertEqual(len({binding.exporter for binding in here}), 3)
        self.assertEqual({binding.end_point for binding in here}, {self.network.invite.pin})


class Garbage(ServicesCase):
    """Whatever is said on one connection is that connection's affair."""

    async def test_a_line_that_is_too_long(self) -> None:
        await self.begin()
        for line in (b"x" * (wire.MAX_LINE_BEFORE_LOGIN + 1), b'{"t":"hello","id":1,"version":1,"x":"' + b"x" * 16384):
            visitor = await self.visit()
            visitor.say_line(line)
            await visitor.line.ended
            self.assertEqual(visitor.codes, ["frame-too-long"])
        endless = await self.visit()
        endless.line._shell.transport.write(b"x" * 100_000)
        await endless.line.ended
        self.assertEqual(endless.codes, ["frame-too-long"])

    async def test_after_the_login_lines_may_be_longer(self) -> None:
        await self.begin()
        [caller] = await self.network.add_callers(["caller"])
        await caller.login()
        assert caller._line is not None
        visitor = Visitor(caller._line)
        visitor.say_line(b'{"t":"ping","id":7,"x":"' + b"x" * 200_000 + b'"}')
        await self.until(lambda: visitor.heard)
        self.assertEqual(visitor.heard, [wire.Pong(7)])
        visitor.say_line(b"x" * (wire.MAX_LINE + 1))
        await visitor.line.ended
        self.assertEqual(visitor.codes, ["frame-too-long"])
        await self.network.no_sessions()

    async def test_one_that_floods_disturbs_nobody(self) -> None:
        await self.begin()
        members = await self.members("alice", "bob", "carol")
        [caller] = await self.network.add_callers(["caller"])
        await caller.login()
        assert caller._line is not None
        inside = Visitor(caller._line)
        outside = [await self.visit(port) for port in self.network.running.services]
        await self.talk(members, "before")
        random = Random(7)
        for visitor in (inside, *outside):
            for _ in range(200):
                visitor.say_line(random.randbytes(300).replace(b"\n", b"") + b"\n{" + b"[" * 200)
        await self.talk(members, "meanwhile")
        for visitor in (inside, *outside):
            await visitor.line.ended
        self.assertEqual([visitor.codes for visitor in outside], [["bad-frame"]] * 5)
        self.assertEqual(inside.codes, ["bad-frame"] * (BAD_FRAMES + 1))
        await self.talk(members, "after")
        await self.heard(members, "before", "meanwhile", "after")
        self.assertEqual(sum(self.network.sessions), 3)
        self.assertEqual([one for member in members for one in member.events if isinstance(one, Disconnected)], [])

    async def test_the_balancer_answers_assign_and_nothing_else(self) -> None:
        await self.begin(frames_before_login=3)
        balancer = self.network.running.balancer
        visitor = await self.visit(balancer)
        for message in (wire.Hello(1, 1), wire.Ping(2), wire.Assign(3), wire.Assign(4)):
            visitor.line.send(message)
        await visitor.line.ended
        self.assertEqual(visitor.codes, ["out-of-turn", "out-of-turn", "rate-limited"])
        self.assertEqual([message.re for message in visitor.heard[:3]], [1, 2, 3])
        self.assertEqual(len(visitor.heard[2].services), 5)
        # What has no `id` is answered without `re`, which is the last word on a connection.
        for line, code in ((b"GET / HTTP/1.1", "bad-frame"), (b'{"t":"received","upto":1}', "out-of-turn")):
            noisy = await self.visit(balancer)
            noisy.say_line(line)
            await noisy.line.ended
            self.assertEqual(noisy.codes, [code])
        self.assertEqual(sum(service.leases for service in self.network.status.services), 1)

    async def test_who_hangs_up_at_any_moment_leaves_nothing_behind(self) -> None:
        await self.begin()
        [caller] = await self.network.add_callers(["caller"])
        for steps in range(4):
            visitor = await self.visit()
            if steps >= 1:
                visitor.line.send(wire.Hello(1, 1))
            if steps >= 2:
                await self.until(lambda visitor=visitor: visitor.heard)
                visitor.line.send(caller.device.login(visitor.line.binding.exporter, visitor.heard[0].challenge))
            if steps >= 3:
                await self.until(lambda visitor=visitor: len(visitor.heard) == 2)
                self.assertIsInstance(visitor.heard[1], wire.Ready)
            visitor.line.fail(Unreachable())
            await visitor.line.ended
            chat = self.network.service.chats[0]
            await self.until(lambda chat=chat: not chat._open)
            self.assertEqual(self.network.sessions, [0] * 5)
            self.assertEqual(self.network.node.delivery._inboxes, {})


class Leases(ServicesCase):
    """A lease counts for one login at one service, once, whoever says it."""

    def counts(self) -> dict[str, tuple[int, int]]:
        """Sessions and leases of each service, as the balancer has them."""
        loads = self.network.node.placement.loads()
        return {load.service.name: (load.sessions, load.leases) for load in loads if load.sessions or load.leases}

    async def greets(self, port: int, lease: str) -> Visitor:
        visitor = await self.visit(port)
        visitor.line.send(wire.Hello(1, 1, lease))
        await self.until(lambda: visitor.heard)
        self.assertIsInstance(visitor.heard[0], wire.Welcome)
        return visitor

    async def test_stolen(self) -> None:
        await self.begin()
        service, lease = await Caller(self.network, "alice").place()
        other = next(
            chat._address
            for chat in self.network.service.chats
            if chat._address is not None and chat._address != service
        )
        self.assertEqual(self.counts(), {service.name: (0, 1)})
        await self.greets(other.port, lease)
        self.assertEqual(self.counts(), {service.name: (0, 1), other.name: (1, 0)}, "of another service")
        await self.greets(service.port, "made-up")
        self.assertEqual(self.counts(), {service.name: (1, 1), other.name: (1, 0)}, "of nobody")
        await self.greets(service.port, lease)
        self.assertEqual(self.counts(), {service.name: (2, 0), other.name: (1, 0)}, "by the thief")
        await self.greets(service.port, lease)
        self.assertEqual(self.counts(), {service.name: (3, 0), other.name: (1, 0)}, "a second time")
        again, _ = await Caller(self.network, "bob").place()
        self.assertNotIn(again.name, (service.name, other.name))


class Stopping(ServicesCase):
    """Services that stop, or die, while their clients talk: everybody finishes through the others."""

    async def test_two_are_killed(self) -> None:
        await self.begin()
        members = await self.members(*(f"member{number}" for number in range(5)))
        self.assertEqual(self.network.sessions, [1] * 5)
        ids = await self.talk(members, "before")
        await self.heard(members, "before")
        for about, victim in (("first", members[0]), ("second", members[1])):
            ids += await self.talk(members, about)
            await self.network.kill_service(self.number(victim))
        ids += await self.talk(members, "after")
        await self.heard(members, "before", "first", "second", "after")
        await self.until(lambda: all(member.states[i] == State.DELIVERED for member, i in ids))
        self.assertEqual(sorted(self.network.sessions)[:2], [0, 0])
        self.assertEqual(sum(self.network.sessions), 5)

    async def test_one_is_drained(self) -> None:
        await self.begin()
        members = await self.members("alice", "bob", "carol")
        await self.talk(members, "before")
        number = self.number(members[0])
        chat = self.network.service.chats[number]
        leaving = chat.name
        ids = await self.talk(members, "meanwhile")
        await chat.drain()
        self.assertEqual(chat.status().sessions, 0)
        self.assertEqual(chat._open, set())
        ids += await self.talk(members, "after")
        await self.heard(members, "before", "meanwhile", "after")
        await self.until(lambda: all(member.states[i] == State.DELIVERED for member, i in ids))
        self.assertNotEqual(members[0].service, leaving)
        moves = [event for event in members[0].events if isinstance(event, Moving)]
        self.assertEqual([event.retry_in for event in moves], [0.0])
        self.assertEqual(
            [event for member in members for event in member.events if isinstance(event, Disconnected)], []
        )
        self.assertIn("refuses", await self.refused(self.network.running.services[number]))
        assigned = {(await Caller(self.network, f"caller{i}").place())[0].name for i in range(20)}
        self.assertEqual(len(assigned), 4)
        self.assertNotIn(leaving, assigned)

    async def refused(self, port: int) -> str:
        try:
            await self.visit(port)
        except Unreachable as error:
            return error.message
        return self.fail("somebody listens there")

    async def test_what_the_status_says(self) -> None:
        await self.begin()
        self.assertEqual(await self.status(), [(0, 0, 0, 0)] * 5)
        alice, bob = await self.members("alice", "bob")
        await self.talk([alice, bob], "online")
        await self.heard([alice, bob], "online")
        await bob.stop()
        offline = [alice.send("bob", f"offline {number}") for number in range(4)]
        await self.until(lambda: all(alice.states.get(i) == State.ACCEPTED for i in offline))
        found = await self.status()
        self.assertEqual(sum(sessions for sessions, *_ in found), 1)
        self.assertGreaterEqual(sum(accepted for *_, accepted, _ in found), 10)
        self.assertGreaterEqual(sum(stored for *_, stored in found), 4)
        await alice.stop()
        await self.network.no_sessions()
        self.assertEqual([(sessions, leases) for sessions, leases, *_ in await self.status()], [(0, 0)] * 5)
        self.assertEqual(self.network.node.delivery._inboxes, {})

    async def status(self) -> list[tuple[int, int, int, int]]:
        """Sessions, leases, accepted and stored of each service, asked over HTTP."""
        url = f"http://{ONLY}:{self.network.running.operations}/status"
        response = await Agent(self.reactor).request(b"GET", url.encode())
        services = json.loads(await readBody(response))["services"]
        self.assertEqual([one["port"] for one in services], list(self.network.running.services))
        return [(one["sessions"], one["leases"], one["accepted"], one["stored"]) for one in services]


class Backlog(ServicesCase):
    async def test_a_crowd_at_the_door(self) -> None:
        """Many sockets that are opened at once and never speak keep nobody from talking."""
        await self.begin()
        members = await self.members("alice", "bob")
        crowd = []
        for port in self.network.running.services:
            for _ in range(40):
                one = socket.socket()
                self.addCleanup(one.close)
                one.setblocking(False)
                one.connect_ex((ONLY, port))
                crowd.append(one)
        await self.talk(members, "in the crowd")
        await self.heard(members, "in the crowd")
        doors = [chat._listening.factory for chat in self.network.service.chats if chat._listening is not None]
        await self.until(lambda: sum(len(door.newcomers) for door in doors) == len(crowd))
        self.assertEqual(sum(self.network.sessions), 2)


def _stopped(member: Member) -> Deferred[None]:
    return Deferred.fromCoroutine(member.stop())
