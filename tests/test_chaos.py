"""The short form of `make chaos`: a clean run and two mutants, with fixed seeds, at the same time, in processes.

It takes about a minute, which is what it is worth to see with each `make test` that the instrument works and finds
nothing; and that it would: one server and one client that are broken on purpose are caught. A mutant's run ends with
the first round in which it is caught, so that a slow machine needs more of them, and does not fail.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from random import Random
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessDone, ProcessExitedAlready
from twisted.internet.protocol import ClientCreator, Factory, ProcessProtocol, Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.chaos.faults import FAULTS, plan
from tests.chaos.logs import tracebacks
from tests.chaos.mutants import MUTANTS
from tests.chaos.proxy import Link, Proxy, Rule
from tests.support.running import until

CHECKOUT = Path(__file__).parent.parent
CLEAN, LIES = 0, 1


class _Run(ProcessProtocol):
    """`python -m tests.chaos` with these arguments."""

    def __init__(self, testcase: TestCase, *arguments: str) -> None:
        from twisted.internet import reactor

        self.over: Deferred[_Run] = Deferred()
        self.said = ""
        self.code = -1
        folder = Path(tempfile.mkdtemp(prefix="fastchat-chaos-test-"))
        folder.chmod(0o711)
        testcase.addCleanup(shutil.rmtree, folder, ignore_errors=True)
        testcase.addCleanup(self._end)
        command = [sys.executable, "-m", "tests.chaos", *arguments]
        running: Any = reactor
        running.spawnProcess(self, command[0], command, env={**os.environ, "TMPDIR": str(folder)}, path=str(CHECKOUT))

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        self.said += data.decode(errors="replace")

    def processEnded(self, reason: Failure) -> None:
        self.code = 0 if reason.check(ProcessDone) else getattr(reason.value, "exitCode", None) or -1
        self.over.callback(self)

    def _end(self) -> Deferred[_Run] | None:
        if self.over.called:
            return None
        transport: Any = self.transport
        try:
            transport.signalProcess(signal.SIGINT.value)
        except ProcessExitedAlready:
            return None
        return self.over


class ShortTests(TestCase):
    timeout = 600

    async def test_nothing_is_lost_and_two_lies_are_found(self) -> None:
        clean = _Run(self, "--seconds", "15", "--round", "15", "--seed", "3", "--clients", "12", "--every", "0.8")
        mutant = ("--seconds", "120", "--round", "10", "--clients", "8", "--every", "0.7", "--patience", "90")
        server = _Run(self, "--mutant", "accept-before-commit", "--seed", "5", *mutant)
        client = _Run(self, "--mutant", "no-dedupe", "--seed", "6", *mutant)
        for run in (clean, server, client):
            await run.over
        self.assertEqual(clean.code, CLEAN, clean.said)
        for number in ("lost", "duplicated", "out of order", "corrupted", "phantom", "waiting"):
            self.assertRegex(clean.said, rf"│ {number} +│ 0 +│")
        # What is lost may be what devices say to each other: then somebody waits for it for ever.
        never = "│ seconds until nothing was under way │ never"
        for kinds, run in (
            (f"│ (lost|out of order) +│ [1-9]|{never}", server),
            ("│ (duplicated|corrupted) +│ [1-9]", client),
        ):
            self.assertEqual(run.code, LIES, run.said)
            self.assertRegex(run.said, kinds)


class PlanTests(SynchronousTestCase):
    def test_the_seed_fixes_what_happens_and_when(self) -> None:
        first, again, other = (list(plan(seed, 600.0, 1.5, {})) for seed in (7, 7, 8))
        self.assertEqual(first, again)
        self.assertNotEqual([each.fault for each in first], [each.fault for each in other])
        self.assertEqual({each.fault for each in first}, set(FAULTS))
        self.assertTrue(300 < len(first) < 500, len(first))

    def test_no_fault_is_left_out_for_long(self) -> None:
        bag = sum(fault.weight for fault in FAULTS)
        planned = [each.fault for each in plan(1, 600.0, 1.0, {})]
        for fault in FAULTS:
            self.assertEqual(planned[:bag].count(fault), fault.weight)

    def test_other_weights(self) -> None:
        weights = {fault.name: 0 for fault in FAULTS} | {"cut": 1}
        self.assertEqual({each.fault.name for each in plan(1, 60.0, 1.0, weights)}, {"cut"})

    def test_mutants_need_faults_that_there_are(self) -> None:
        names = {fault.name for fault in FAULTS}
        for mutant in MUTANTS.values():
            self.assertLessEqual(set(mutant.faults), names, mutant.name)

    def test_the_errors_of_a_log(self) -> None:
        log = (
            "2026-01-01 [a#info] well\n\tTraceback (most recent call last):\n\t  File x\n\tbuiltins.KeyError: 'a'\n"
            "Traceback (most recent call last):\n  File y\n    code\nValueError: b\nmore\n"
        )
        self.assertEqual(tracebacks(log), ["builtins.KeyError: 'a'", "ValueError: b"])


class _Peer(Protocol):
    """Keeps what it hears."""

    def __init__(self) -> None:
        self.heard = b""
        self.open = False

    def connectionMade(self) -> None:
        self.open = True

    def dataReceived(self, data: bytes) -> None:
        self.heard += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.open = False

    def say(self, data: bytes) -> None:
        transport: Any = self.transport
        transport.write(data)

    def close(self) -> None:
        transport: Any = self.transport
        transport.loseConnection()


class _Accepting(Factory):
    noisy = False

    def __init__(self, peers: list[_Peer]) -> None:
        self._peers = peers

    def buildProtocol(self, addr: Any) -> _Peer:
        self._peers.append(_Peer())
        return self._peers[-1]


class ProxyTests(TestCase):
    """On loopback: what it does to bytes and to ends is what its name says."""

    timeout = 60

    async def setUp(self) -> None:  # type: ignore[override]
        from twisted.internet import reactor

        running: Any = reactor
        self.reactor = running
        self.services: list[_Peer] = []

        listening = self.reactor.listenTCP(0, _Accepting(self.services), interface="127.0.0.1")
        self.addCleanup(listening.stopListening)
        self.port = listening.getHost().port
        self.proxy = Proxy(2, [self.port], self.reactor)
        self.addCleanup(lambda: Deferred.fromCoroutine(self.proxy.stop()))
        self.client, self.service = await self.pair()

    async def pair(self, worker: int = 0) -> tuple[_Peer, _Peer]:
        count = len(self.services)
        creator = ClientCreator(self.reactor, _Peer)
        client = await creator.connectTCP("127.0.0.1", self.proxy.ports[worker][self.port])
        await until(self.reactor, lambda: len(self.services) > count and self.services[-1].open)
        self.addCleanup(client.close)
        return client, self.services[-1]

    async def turns(self) -> None:
        """So many that what was done before has had its effect: a message goes to and fro."""
        client, service = await self.pair(worker=1)
        client.say(b"to")
        await self.heard(service, b"to")
        service.say(b"fro")
        await self.heard(client, b"fro")

    def link(self) -> Link:
        return self.proxy.links[-1]

    async def heard(self, peer: _Peer, data: bytes) -> None:
        await until(self.reactor, lambda: len(peer.heard) >= len(data))
        self.assertEqual(peer.heard, data)

    async def test_everything_in_order_both_ways_also_when_nobody_reads_for_a_while(self) -> None:
        data = Random(1).randbytes(3_000_000)
        transport: Any = self.service.transport
        transport.pauseProducing()
        self.client.say(data)
        self.service.say(data[:1000])
        await self.heard(self.client, data[:1000])
        self.assertLess(self.link().up.waiting, 1_000_000)
        transport.resumeProducing()
        await self.heard(self.service, data)

    async def test_so_many_bytes_pass_and_no_more(self) -> None:
        made: list[Link] = []
        self.proxy.made = made.append
        client, service = await self.pair()
        [link] = made
        link.up.most = 5
        client.say(b"to")
        await self.heard(service, b"to")
        client.say(b"gether")
        await self.turns()
        self.assertEqual((service.heard, link.up.passed, link.up.waiting), (b"toget", 5, 3))
        service.say(b"the other way")
        await self.heard(client, b"the other way")
        self.assertTrue(link.is_open)

    async def test_an_end_that_closes_closes_the_other_when_all_is_said(self) -> None:
        rule = Rule(lambda link: True, seconds=0.2)
        self.proxy.add(rule)
        self.client.say(b"last words")
        self.client.close()
        await until(self.reactor, lambda: not self.service.open)
        self.assertEqual(self.service.heard, b"last words")

    async def test_held_one_way_and_released(self) -> None:
        rule = Rule(lambda link: link.worker == 0, up=True)
        self.proxy.add(rule)
        other, other_service = await self.pair(worker=1)
        self.client.say(b"held")
        self.service.say(b"comes")
        other.say(b"comes too")
        await self.heard(self.client, b"comes")
        await self.heard(other_service, b"comes too")
        self.assertEqual(self.service.heard, b"")
        self.proxy.remove(rule)
        await self.heard(self.service, b"held")

    async def test_who_leaves_a_black_hole_is_not_missed_before_its_end(self) -> None:
        rule = Rule(lambda link: True, up=True)
        self.proxy.add(rule)
        self.client.say(b"never comes")
        await until(self.reactor, lambda: self.link().up.waiting > 0)
        self.client.close()
        await until(self.reactor, lambda: not self.proxy.links)
        self.proxy.remove(rule)
        await self.turns()
        self.assertTrue(self.service.open)
        self.proxy.release_stranded(rule.concerns)
        await until(self.reactor, lambda: not self.service.open)
        self.assertEqual(self.service.heard, b"")

    async def test_cut_in_the_middle_of_what_comes_next(self) -> None:
        self.link().cut_in_a_frame(down=True)
        self.service.say(b"abcdefgh")
        await until(self.reactor, lambda: not self.client.open and not self.service.open)
        self.assertEqual(self.client.heard, b"abcd")

    async def test_stranded_the_service_hears_nothing_of_it(self) -> None:
        link = self.link()
        link.strand()
        await until(self.reactor, lambda: not self.client.open)
        self.service.say(b"into the dark")
        await self.turns()
        self.assertTrue(self.service.open)
        link.cut()
        await until(self.reactor, lambda: not self.service.open)

    async def test_nobody_listens(self) -> None:
        proxy = Proxy(1, [1], self.reactor)
        self.addCleanup(lambda: Deferred.fromCoroutine(proxy.stop()))
        client = await ClientCreator(self.reactor, _Peer).connectTCP("127.0.0.1", proxy.ports[0][1])
        await until(self.reactor, lambda: not client.open)
