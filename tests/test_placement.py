"""Placement: the strategies, leases, newcomers; by simulation where the promise is about a crowd."""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from fastchat.errors import Busy, ConfigError
from fastchat.placement import STRATEGIES, Candidate, Placed, Placement
from fastchat.protocols.wire import ServiceAddress

NAMES = ("one", "two", "three", "four", "five")


def address(name: str) -> ServiceAddress:
    return ServiceAddress(name=name, host=f"{name}.example", port=7401)


def seeded(seed: int) -> Random:
    """The same chance at each run."""
    return Random(seed)


def placement(
    clock: Clock | None = None, strategy: str = "least-connections", seed: int = 1, **options: Any
) -> Placement:
    return Placement(strategy, (clock or Clock()).seconds, seeded(seed), **options)


def crowd(strategy: str = "least-connections", **options: Any) -> Placement:
    """Five services, all up, without a session."""
    made = placement(strategy=strategy, **options)
    for name in NAMES:
        made.report(address(name), 0)
    return made


def leases_of(placement: Placement) -> dict[str, int]:
    return {load.service.name: load.leases for load in placement.loads()}


def sessions_of(placement: Placement) -> dict[str, int]:
    return {load.service.name: load.sessions for load in placement.loads()}


def storm(lease_seconds: float, logins: int = 1000, per_second: int = 200, seed: int = 1) -> float:
    """A login storm on services that report every 5 s, none at the same time; answers max/mean of the sessions."""
    clock = Clock()
    chance = seeded(seed)
    balancer = placement(clock, seed=seed, lease_seconds=lease_seconds)
    sessions: Counter[str] = Counter()
    redeemed: dict[str, list[str]] = {name: [] for name in NAMES}
    next_report = {name: float(place) for place, name in enumerate(NAMES)}
    for name in NAMES:
        balancer.report(address(name), 0)
    for _ in range(logins):
        placed = balancer.assign()
        sessions[placed.service.name] += 1
        redeemed[placed.service.name].append(placed.lease)
        clock.advance(chance.expovariate(per_second))
        for name in NAMES:
            if clock.seconds() >= next_report[name]:
                next_report[name] += 5.0
                balancer.report(address(name), sessions[name], redeemed[name])
                redeemed[name] = []
    return max(sessions.values()) * len(NAMES) / logins


class StrategyTests(SynchronousTestCase):
    def picks(self, strategy: str, candidates: list[Candidate], times: int = 6000) -> Counter[int]:
        chance = seeded(7)
        return Counter(STRATEGIES[strategy](candidates, chance) for _ in range(times))

    def test_least_connections_takes_the_least_loaded(self) -> None:
        picks = self.picks("least-connections", [Candidate(3, 0), Candidate(1, 9), Candidate(2, 0)])
        self.assertEqual(set(picks), {1})

    def test_least_connections_breaks_ties_at_random(self) -> None:
        picks = self.picks("least-connections", [Candidate(1, 0), Candidate(2, 0), Candidate(1, 0), Candidate(1, 0)])
        self.assertEqual(set(picks), {0, 2, 3})
        self.assertGreater(min(picks.values()), 1800)

    def test_round_robin_takes_who_waited_longest(self) -> None:
        picks = self.picks("round-robin", [Candidate(0, 8), Candidate(99, 7), Candidate(0, 9)])
        self.assertEqual(set(picks), {1})

    def test_round_robin_starts_anywhere(self) -> None:
        picks = self.picks("round-robin", [Candidate(0, 0), Candidate(0, 0)])
        self.assertGreater(min(picks[0], picks[1]), 2700)

    def test_random_takes_all_equally_whatever_their_load(self) -> None:
        picks = self.picks("random", [Candidate(1000, 5), Candidate(0, 0), Candidate(3, 1)])
        self.assertGreater(min(picks[0], picks[1], picks[2]), 1800)

    def test_power_of_two_choices_never_takes_the_most_loaded(self) -> None:
        picks = self.picks("power-of-two-choices", [Candidate(5, 0), Candidate(9, 0), Candidate(1, 0)])
        self.assertEqual(picks[1], 0)
        self.assertGreater(picks[2], picks[0])
        self.assertGreater(picks[0], 1500)

    def test_power_of_two_choices_breaks_ties_at_random(self) -> None:
        picks = self.picks("power-of-two-choices", [Candidate(4, 0), Candidate(4, 0)])
        self.assertGreater(min(picks[0], picks[1]), 2700)

    @given(
        st.sampled_from(sorted(STRATEGIES)),
        st.lists(st.builds(Candidate, st.integers(0, 50), st.integers(0, 50)), min_size=1, max_size=8),
        st.integers(),
    )
    def test_each_is_pure_and_names_a_candidate(self, strategy: str, candidates: list[Candidate], seed: int) -> None:
        choose = STRATEGIES[strategy]
        chosen = choose(candidates, seeded(seed))
        self.assertIn(chosen, range(len(candidates)))
        self.assertEqual(chosen, choose(list(candidates), seeded(seed)))

    def test_unknown_strategy(self) -> None:
        self.assertIn("round-robin", str(self.assertRaises(ConfigError, placement, strategy="best")))


class AssignTests(SynchronousTestCase):
    def test_nobody_is_up(self) -> None:
        self.assertGreater(self.assertRaises(Busy, placement().assign).retry_after, 0)

    def test_every_strategy_reaches_every_service(self) -> None:
        for strategy in STRATEGIES:
            balancer = crowd(strategy)
            self.assertEqual({balancer.assign().service for _ in range(200)}, {address(name) for name in NAMES})

    def test_round_robin_is_a_circle(self) -> None:
        balancer = crowd("round-robin")
        order = [balancer.assign().service.name for _ in range(20)]
        self.assertEqual(set(order[:5]), set(NAMES))
        self.assertEqual(order[5:], order[:-5])

    def test_least_connections_is_even_within_one_at_any_time(self) -> None:
        """Logins by lease, redeemed late and in batches, and logouts, all in random order."""
        chance = seeded(5)
        balancer = crowd()
        sessions: Counter[str] = Counter()
        pending: list[Placed] = []
        for _ in range(2000):
            pending.append(balancer.assign())
            if chance.random() < 0.2:
                chance.shuffle(pending)
                for placed in pending:
                    sessions[placed.service.name] += 1
                    balancer.report(placed.service, sessions[placed.service.name], [placed.lease])
                pending.clear()
            loads = [load.sessions + load.leases for load in balancer.loads()]
            self.assertLessEqual(max(loads) - min(loads), 1)
        self.assertEqual(sum(sessions.values()) + len(pending), 2000)

    def test_two_choices_beat_one(self) -> None:
        """Mitzenmacher: the fullest of n bins exceeds the mean by O(log log n) with two choices."""

        def spread(strategy: str) -> int:
            balancer = crowd(strategy, lease_seconds=60.0)
            loads = Counter(balancer.assign().service.name for _ in range(5000))
            return max(loads.values()) - min(loads.values())

        self.assertLess(spread("power-of-two-choices"), 10)
        self.assertGreater(spread("random"), 30)

    def test_full_services_are_avoided(self) -> None:
        balancer = crowd()
        for name in NAMES:
            balancer.report(address(name), 0 if name == "three" else 50)
        self.assertEqual({balancer.assign().service.name for _ in range(50)}, {"three"})

    def test_storm_with_old_reports_stays_even(self) -> None:
        for seed in range(3):
            self.assertLess(storm(lease_seconds=10.0, seed=seed), 1.02)

    def test_the_storm_test_can_fail(self) -> None:
        """Without leases the same storm piles up on whoever reported the least."""
        for seed in range(3):
            self.assertGreater(storm(lease_seconds=0.0, seed=seed), 1.8)


class LeaseTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.balancer = placement(self.clock)
        for name in ("one", "two"):
            self.balancer.report(address(name), 0)

    def lease_at(self, name: str) -> str:
        """A lease for this service."""
        while True:
            placed = self.balancer.assign()
            if placed.service.name == name:
                return placed.lease

    def test_leases_are_unguessable_and_url_safe(self) -> None:
        leases = {self.balancer.assign().lease for _ in range(500)}
        self.assertEqual(len(leases), 500)
        for lease in leases:
            self.assertRegex(lease, "^[A-Za-z0-9_-]{22}$")

    def test_redeemed_lease_becomes_a_session(self) -> None:
        placed = self.balancer.assign()
        self.balancer.report(placed.service, 1, [placed.lease])
        self.assertEqual(sessions_of(self.balancer)[placed.service.name], 1)
        self.assertEqual(leases_of(self.balancer), {"one": 0, "two": 0})

    def test_a_lease_counts_until_it_expires(self) -> None:
        placed = self.balancer.assign()
        self.clock.advance(9.9)
        self.assertEqual(leases_of(self.balancer)[placed.service.name], 1)
        self.clock.advance(0.1)
        self.assertEqual(leases_of(self.balancer), {"one": 0, "two": 0})

    def test_a_stolen_lease(self) -> None:
        """A lease presented elsewhere, twice, late, or made up changes no count but its own, once."""
        stolen = self.lease_at("one")
        other = self.lease_at("one")
        before = leases_of(self.balancer)
        self.balancer.report(address("two"), 0, [stolen])
        self.assertEqual(leases_of(self.balancer), before)
        self.balancer.report(address("one"), 0, ["made-up", "", stolen, stolen])
        self.assertEqual(leases_of(self.balancer)["one"], before["one"] - 1)
        self.balancer.report(address("one"), 0, [stolen])
        self.assertEqual(leases_of(self.balancer)["one"], before["one"] - 1)
        self.clock.advance(10.0)
        self.assertEqual(leases_of(self.balancer), {"one": 0, "two": 0})
        self.balancer.report(address("one"), 0, [other, stolen])
        self.assertEqual(leases_of(self.balancer), {"one": 0, "two": 0})

    def test_leases_do_not_outlive_their_service(self) -> None:
        old = self.lease_at("one")
        self.balancer.remove("one")
        self.balancer.report(address("one"), 0)
        new = self.lease_at("one")
        self.balancer.report(address("one"), 1, [old])
        self.assertEqual(leases_of(self.balancer)["one"], 1, "the lease of the earlier run must not stand for this one")
        self.balancer.report(address("one"), 2, [new])
        self.assertEqual(leases_of(self.balancer)["one"], 0)
        self.clock.advance(10.0)
        self.assertEqual(leases_of(self.balancer)["one"], 0)

    def test_many_leases_expire_in_order(self) -> None:
        for _ in range(10_000):
            self.balancer.assign()
            self.clock.advance(0.001)
        self.assertEqual(sum(leases_of(self.balancer).values()), 9_999 if self.clock.seconds() >= 10 else 10_000)
        self.clock.advance(5.0)
        self.assertAlmostEqual(sum(leases_of(self.balancer).values()), 5000, delta=1)
        self.clock.advance(5.0)
        self.assertEqual(sum(leases_of(self.balancer).values()), 0)

    def test_assign_looks_at_no_lease_but_the_oldest(self) -> None:
        """Its cost, counted in the clock's and the services' terms, is the same with 10,000 leases out."""
        for _ in range(10_000):
            self.balancer.assign()
        leases = self.balancer._leases
        looked_at: list[str] = []

        class Watched(type(leases)):
            def __iter__(self):
                for key in super().__iter__():
                    looked_at.append(key)
                    yield key

            def values(self):
                return (self[key] for key in self)

        self.balancer._leases = Watched(leases)
        looked_at.clear()
        self.balancer.assign()
        self.assertEqual(len(looked_at), 1)


class ServicesTests(SynchronousTestCase):
    def test_removed_services_get_nobody(self) -> None:
        balancer = crowd()
        balancer.remove("two")
        balancer.remove("nobody")
        self.assertNotIn(address("two"), balancer.services())
        self.assertNotIn("two", {balancer.assign().service.name for _ in range(100)})

    def test_draining_services_keep_what_they_have(self) -> None:
        balancer = crowd()
        balancer.report(address("two"), 7)
        balancer.drain("two")
        balancer.drain("nobody")
        self.assertNotIn(address("two"), balancer.services())
        self.assertNotIn("two", {balancer.assign().service.name for _ in range(100)})
        balancer.report(address("two"), 6)
        self.assertNotIn(address("two"), balancer.services())
        [load] = [load for load in balancer.loads() if load.service.name == "two"]
        self.assertEqual((load.sessions, load.draining), (6, True))

    def test_back_after_draining(self) -> None:
        balancer = crowd()
        balancer.drain("two")
        balancer.remove("two")
        balancer.report(address("two"), 0)
        self.assertIn(address("two"), balancer.services())

    def test_all_draining_is_busy(self) -> None:
        balancer = crowd()
        for name in NAMES:
            balancer.drain(name)
        self.assertRaises(Busy, balancer.assign)

    def test_a_service_may_move(self) -> None:
        balancer = crowd()
        moved = ServiceAddress(name="two", host="elsewhere.example", port=7500)
        balancer.report(moved, 3)
        self.assertIn(moved, balancer.services())
        self.assertEqual(len(balancer.services()), 5)


class NewcomerTests(SynchronousTestCase):
    def come_back(self, strategy: str = "least-connections", sessions: int = 100) -> tuple[Placement, Counter[str]]:
        balancer = placement(strategy=strategy, lease_seconds=1000.0)
        for name in NAMES:
            balancer.report(address(name), sessions)
        balancer.remove("five")
        balancer.report(address("five"), 0)
        return balancer, Counter()

    def test_takes_at_most_twice_its_share_until_it_has_caught_up(self) -> None:
        balancer, taken = self.come_back()
        for logins in range(1, 2001):
            taken[balancer.assign().service.name] += 1
            loads = [load.sessions + load.leases for load in balancer.loads()]
            mean = sum(loads) / len(loads)
            if min(loads) < mean - 1:
                self.assertLessEqual(taken["five"], 2 * logins / len(NAMES))
        # It gains 1/5 of a login on the mean with each login: 100 behind are made good after some 500.
        self.assertLessEqual(max(loads) - min(loads), 1)

    def test_catches_up_as_fast_as_it_may(self) -> None:
        balancer, taken = self.come_back()
        for _ in range(300):
            taken[balancer.assign().service.name] += 1
        self.assertGreaterEqual(taken["five"], 2 * 300 // len(NAMES) - 1)

    def test_without_a_cap_it_would_take_everything(self) -> None:
        balancer = placement(newcomer_share=1000.0)
        for name in NAMES:
            balancer.report(address(name), 0 if name == "five" else 100)
        self.assertEqual({balancer.assign().service.name for _ in range(50)}, {"five"})

    def test_reports_of_its_sessions_do_not_lift_the_cap(self) -> None:
        balancer, taken = self.come_back()
        for _ in range(100):
            placed = balancer.assign()
            taken[placed.service.name] += 1
            balancer.report(placed.service, taken[placed.service.name] + (placed.service.name != "five") * 100)
        self.assertLessEqual(taken["five"], 40)

    def test_other_strategies_obey_the_cap_too(self) -> None:
        for strategy in STRATEGIES:
            balancer, taken = self.come_back(strategy, sessions=1000)
            for _ in range(500):
                taken[balancer.assign().service.name] += 1
            self.assertLessEqual(taken["five"], 200, strategy)

    def test_a_first_start_has_no_newcomers(self) -> None:
        balancer = crowd()
        self.assertEqual(Counter(balancer.assign().service.name for _ in range(5)), Counter(NAMES))

    def test_a_new_balancer_learns_full_services_one_after_the_other(self) -> None:
        balancer = placement()
        for name in NAMES:
            balancer.report(address(name), 500)
        self.assertEqual(Counter(balancer.assign().service.name for _ in range(5)), Counter(NAMES))

    def test_newcomers_alone_take_everything(self) -> None:
        balancer, _ = self.come_back()
        for name in NAMES[:-1]:
            balancer.remove(name)
        self.assertEqual({balancer.assign().service.name for _ in range(20)}, {"five"})
