"""A hundred clients at the same time, on the real network: balancer, five services, TLS, PostgreSQL."""

from __future__ import annotations

from random import Random

from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from fastchat_client.events import State
from tests.support.running import Member, RunningNetwork, all_of, until

HUNDRED = 100
MESSAGES = 300
PATIENCE = 240
"""Seconds: a hundred new clients are a lot of work for a machine that is busy with other things."""


class Logins(TestCase):
    timeout = 180

    async def test_a_hundred_log_in_and_out_at_the_same_time(self) -> None:
        network = await RunningNetwork.start(self)
        callers = await network.add_callers([f"caller{number}" for number in range(HUNDRED)])
        for _ in range(2):
            readies = await all_of([caller.login() for caller in callers])
            self.assertEqual(len(readies), HUNDRED)
            self.assertEqual(sum(network.sessions), HUNDRED)
            self.assertLessEqual(max(network.sessions) - min(network.sessions), 1, network.sessions)
            self.assertEqual([service.leases for service in network.status.services], [0] * 5)
            await all_of([caller.logout() for caller in callers])
            await network.no_sessions()
        self.assertEqual(self.flushLoggedErrors(), [])


class Conversations(TestCase):
    timeout = 900

    async def test_messages_between_random_pairs_while_they_come_and_go(self) -> None:
        """Everybody writes to people on other services, online or not, and leaves and returns in between. Each
        message is shown exactly once, in its sender's order."""
        random = Random(20)
        network = await RunningNetwork.start(self)
        members = {name: Member(network, name, random) for name in (f"member{i}" for i in range(HUNDRED))}
        self.addCleanup(lambda: all_of_them(member.stop() for member in members.values()))
        for member in members.values():
            member.start()
        await until(network.reactor, lambda: all(member.core.ready for member in members.values()), patience=PATIENCE)
        self.assertLessEqual(max(network.sessions) - min(network.sessions), 1, network.sessions)

        sent: dict[tuple[str, str], list[str]] = {}
        ids: list[tuple[str, str]] = []
        crossings = 0
        for number in range(MESSAGES):
            sender = random.choice([member for member in members.values() if member.online])
            elsewhere = [m for m in members.values() if m is not sender and m.service != sender.service]
            recipient = random.choice(elsewhere)
            crossings += recipient.online
            text = f"message {number}"
            sent.setdefault((sender.user, recipient.user), []).append(text)
            ids.append((sender.user, sender.send(recipient.user, text)))
            if random.random() < 0.3:
                leaver = random.choice([member for member in members.values() if member.online])
                await leaver.stop()
            if random.random() < 0.3:
                gone = [member for member in members.values() if not member.online]
                if gone:
                    random.choice(gone).start()
            if number % 10 == 0:
                await deferLater(network.reactor, 0)
        for member in members.values():
            if not member.online:
                member.start()

        def everything_is_there() -> bool:
            return all(members[to].texts[by] == texts for (by, to), texts in sent.items())

        await until(network.reactor, everything_is_there, patience=PATIENCE)
        await until(
            network.reactor,
            lambda: all(members[user].states.get(message) == State.DELIVERED for user, message in ids),
            patience=PATIENCE,
        )
        shown = sum(len(texts) for member in members.values() for texts in member.texts.values())
        self.assertEqual(shown, MESSAGES)
        self.assertGreater(crossings, MESSAGES // 3)
        for member in members.values():
            await member.stop()
        await network.no_sessions()


def all_of_them(coroutines: object) -> object:
    from twisted.internet.defer import Deferred

    return Deferred.fromCoroutine(all_of(list(coroutines)))  # type: ignore[call-overload]
