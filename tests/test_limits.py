"""Limits: rates, connections per address, failed logins; all with a clock that the test moves."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from fastchat.errors import RateLimited, TooManyConnections
from fastchat.limits import AddressLimits, Buckets, Claims, LoginFailures, TokenBucket, address_group, is_loopback

SOMEBODY = "192.0.2.7"


class TokenBucketTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.bucket = TokenBucket(20.0, 60.0, self.clock.seconds)

    def takes(self) -> int:
        """How many can be taken at this moment."""
        taken = 0
        while self.bucket.take():
            taken += 1
        return taken

    def test_burst_then_rate(self) -> None:
        self.assertEqual(self.takes(), 60)
        self.clock.advance(0.5)
        self.assertEqual(self.takes(), 10)
        self.clock.advance(1000.0)
        self.assertEqual(self.takes(), 60)

    def test_wait_is_exactly_long_enough(self) -> None:
        self.assertEqual(self.bucket.wait(), 0.0)
        self.takes()
        wait = self.bucket.wait()
        self.assertAlmostEqual(wait, 0.05)
        self.clock.advance(wait / 2)
        self.assertFalse(self.bucket.take())
        self.clock.advance(wait / 2 + 1e-9)
        self.assertTrue(self.bucket.take())

    def test_refused_takes_cost_nothing(self) -> None:
        self.takes()
        for _ in range(100):
            self.assertFalse(self.bucket.take())
        self.clock.advance(0.0501)
        self.assertEqual(self.takes(), 1)

    def test_debt_is_bounded(self) -> None:
        for _ in range(1000):
            self.bucket.spend(1.0, lowest=-5.0)
        self.assertEqual(self.bucket.balance, -5.0)

    def test_a_clock_that_steps_back_gives_nothing_away(self) -> None:
        time = [100.0]
        bucket = TokenBucket(1.0, 2.0, lambda: time[0])
        self.assertTrue(bucket.take(2.0))
        for time[0] in (50.0, 99.0, 100.0):
            self.assertFalse(bucket.take())

    def test_it_is_small(self) -> None:
        self.assertFalse(hasattr(self.bucket, "__dict__"))

    @given(st.lists(st.tuples(st.floats(0.0, 10.0), st.integers(1, 20)), max_size=50))
    def test_never_more_than_burst_and_rate_allow(self, steps: list[tuple[float, int]]) -> None:
        clock = Clock()
        bucket = TokenBucket(3.0, 10.0, clock.seconds)
        taken = 0
        for pause, attempts in steps:
            clock.advance(pause)
            taken += sum(bucket.take() for _ in range(attempts))
            self.assertLessEqual(taken, 10.0 + 3.0 * clock.seconds() + 1e-6)


class BucketsTests(SynchronousTestCase):
    def test_remembers_what_is_in_use_and_forgets_the_oldest(self) -> None:
        clock = Clock()
        buckets = Buckets(1.0, 1.0, clock.seconds, kept=100)
        for number in range(1000):
            self.assertTrue(buckets[str(number)].take())
            buckets["kept in use"].take()
            self.assertLessEqual(len(buckets), 101)
        self.assertFalse(buckets["999"].take())
        self.assertFalse(buckets["kept in use"].take())
        self.assertIsNone(buckets.peek("0"))

    def test_full_buckets_are_forgotten_without_a_flood(self) -> None:
        clock = Clock()
        buckets = Buckets(1.0, 1.0, clock.seconds, kept=10_000)
        for number in range(1000):
            buckets[str(number)].take()
            clock.advance(0.1)
        self.assertLess(len(buckets), 30)


class AddressGroupTests(SynchronousTestCase):
    def test_ipv4_counts_by_itself(self) -> None:
        self.assertNotEqual(address_group("192.0.2.7"), address_group("192.0.2.8"))

    def test_ipv6_counts_by_network(self) -> None:
        self.assertEqual(address_group("2001:db8::1"), address_group("2001:db8::ffff:1:2:3"))
        self.assertNotEqual(address_group("2001:db8::1"), address_group("2001:db8:0:1::1"))
        self.assertEqual(address_group("fe80::1%eth0"), address_group("fe80::2%eth0"))

    def test_mapped_addresses_are_ipv4(self) -> None:
        self.assertEqual(address_group("::ffff:192.0.2.7"), "192.0.2.7")

    def test_loopback(self) -> None:
        for address in ("127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"):
            self.assertTrue(is_loopback(address), address)
        for address in (SOMEBODY, "::2", "2001:db8::1", "a unix socket", ""):
            self.assertFalse(is_loopback(address), address)


class AddressLimitsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.limits = AddressLimits(self.clock.seconds)

    def connect_slowly(self, address: str, times: int) -> None:
        for _ in range(times):
            self.limits.connected(address)
            self.clock.advance(0.25)

    def test_five_new_a_second(self) -> None:
        for _ in range(5):
            self.limits.connected(SOMEBODY)
        self.assertRaises(RateLimited, self.limits.connected, SOMEBODY)
        self.limits.connected("192.0.2.8")
        self.clock.advance(1.0)
        for _ in range(5):
            self.limits.connected(SOMEBODY)
        self.assertRaises(RateLimited, self.limits.connected, SOMEBODY)
        self.assertEqual(self.limits.open(SOMEBODY), 10)

    def test_twenty_at_a_time(self) -> None:
        self.connect_slowly(SOMEBODY, 20)
        self.assertRaises(TooManyConnections, self.limits.connected, SOMEBODY)
        self.limits.disconnected(SOMEBODY)
        self.limits.connected(SOMEBODY)
        self.assertRaises(TooManyConnections, self.limits.connected, SOMEBODY)

    def test_so_many_altogether_wherever_they_come_from(self) -> None:
        limits = AddressLimits(self.clock.seconds, 2, 1000.0, exempt_loopback=True, total=3)
        for address in ("192.0.2.1", "192.0.2.1", "127.0.0.1"):
            limits.connected(address)
        for address in ("192.0.2.2", "127.0.0.1"):
            self.assertIn("network", self.assertRaises(TooManyConnections, limits.connected, address).message)
        limits.disconnected("127.0.0.1")
        # One that its address's limit keeps out takes no place.
        self.assertIn("address", self.assertRaises(TooManyConnections, limits.connected, "192.0.2.1").message)
        limits.connected("192.0.2.2")
        self.assertRaises(TooManyConnections, limits.connected, "192.0.2.2")

    def test_one_household_is_one_address(self) -> None:
        for host in range(20):
            self.limits.connected(f"2001:db8::{host:x}")
            self.clock.advance(0.25)
        self.assertRaises(TooManyConnections, self.limits.connected, "2001:db8::abcd")

    def test_loopback_is_exempt_only_when_configured(self) -> None:
        for exempt in (True, False):
            limits = AddressLimits(self.clock.seconds, exempt_loopback=exempt)
            refused = 0
            for _ in range(200):
                try:
                    limits.connected("127.0.0.1")
                except RateLimited:
                    refused += 1
            self.assertEqual(refused, 0 if exempt else 195)
            for _ in range(200 - refused):
                limits.disconnected("127.0.0.1")
            self.assertEqual(limits.open("127.0.0.1"), 0)

    def test_nothing_is_kept_of_those_who_left(self) -> None:
        limits = AddressLimits(self.clock.seconds, kept=50)
        for number in range(5000):
            address = f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"
            limits.connected(address)
            limits.disconnected(address)
        self.assertLessEqual(len(limits._open) + len(limits._new), 50)

    def test_a_flood_of_addresses_does_not_reset_open_connections(self) -> None:
        limits = AddressLimits(self.clock.seconds, connections=3, kept=10)
        for _ in range(3):
            limits.connected(SOMEBODY)
        for number in range(200):
            limits.connected(f"10.0.0.{number}")
        self.assertRaises(TooManyConnections, limits.connected, SOMEBODY)


class LoginFailuresTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.failures = LoginFailures(self.clock.seconds)

    def guess_wrong(self, times: int, user: str = "alice", address: str = SOMEBODY) -> None:
        for _ in range(times):
            self.failures.failed(user, address)

    def test_five_a_minute_cost_nothing(self) -> None:
        self.guess_wrong(5)
        self.assertEqual(self.failures.delay("alice", SOMEBODY), 0.0)
        self.clock.advance(60.0)
        self.guess_wrong(5)
        self.assertEqual(self.failures.delay("alice", SOMEBODY), 0.0)

    def test_more_cost_more_and_more_up_to_a_bound(self) -> None:
        self.guess_wrong(5)
        delays = []
        for _ in range(8):
            self.guess_wrong(1)
            delays.append(self.failures.delay("alice", SOMEBODY))
        self.assertEqual(delays, [1.0, 2.0, 4.0, 8.0, 8.0, 8.0, 8.0, 8.0])

    def test_never_locked_out(self) -> None:
        self.guess_wrong(10_000)
        self.assertEqual(self.failures.delay("alice", SOMEBODY), 8.0)
        self.clock.advance(60.0)
        self.assertEqual(self.failures.delay("alice", SOMEBODY), 0.0)

    def test_counts_by_account_whatever_the_address(self) -> None:
        for number in range(7):
            self.guess_wrong(1, "alice", f"192.0.2.{number}")
        self.assertEqual(self.failures.delay("alice", "198.51.100.1"), 2.0)
        self.assertEqual(self.failures.delay("bob", "198.51.100.1"), 0.0)

    def test_counts_by_address_whatever_the_account(self) -> None:
        for number in range(7):
            self.guess_wrong(1, f"user{number}", SOMEBODY)
        self.assertEqual(self.failures.delay("bob", SOMEBODY), 2.0)
        self.assertEqual(self.failures.delay("bob", "198.51.100.1"), 0.0)

    def test_guessing_one_after_the_other_is_slow(self) -> None:
        """Somebody who waits out each delay gets no more than a handful of guesses a minute."""
        guesses = 0
        while self.clock.seconds() < 600.0:
            self.clock.advance(self.failures.delay("alice", SOMEBODY) + 0.01)
            self.guess_wrong(1)
            guesses += 1
        self.assertLess(guesses, 100)

    def test_asking_is_free(self) -> None:
        for number in range(1000):
            self.failures.delay(f"user{number}", SOMEBODY)
        self.assertEqual(len(self.failures._users) + len(self.failures._addresses), 0)

    def test_a_flood_of_names_and_addresses_is_bounded(self) -> None:
        failures = LoginFailures(self.clock.seconds, kept=100)
        for number in range(5000):
            failures.failed(f"user{number}", f"10.0.{number >> 8}.{number & 255}")
        self.assertLessEqual(len(failures._users), 100)
        self.assertLessEqual(len(failures._addresses), 100)

    def test_no_delay_when_so_configured(self) -> None:
        failures = LoginFailures(self.clock.seconds, longest=0.0)
        for _ in range(50):
            failures.failed("alice", SOMEBODY)
        self.assertEqual(failures.delay("alice", SOMEBODY), 0.0)


class ClaimsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.claims = Claims(self.clock.seconds, per_second=1.0, burst=10.0, of_one=2.0, kept=50)

    def refused(self, claimer: str, *users: str) -> float:
        """Seconds to wait."""
        error = self.assertRaises(RateLimited, self.claims.take, claimer, users)
        assert error is not None
        assert error.retry_after is not None
        return error.retry_after

    def test_so_many_of_one_in_an_hour(self) -> None:
        for _ in range(2):
            self.claims.take("alice", ["bob"])
        self.assertEqual(self.refused("alice", "carol", "bob"), 1800.0)
        self.claims.take("alice", ["carol"])
        self.claims.take("dave", ["bob"])
        self.clock.advance(1800.0)
        self.claims.take("alice", ["bob"])

    def test_so_many_at_once(self) -> None:
        self.claims.take("alice", [f"user{number}" for number in range(9)])
        self.assertEqual(self.refused("alice", "bob", "carol", "dave"), 2.0)
        self.claims.take("alice", ["bob"])

    def test_what_was_refused_pushes_out_nothing_that_is_remembered(self) -> None:
        for _ in range(2):
            self.claims.take("mallory", ["bob"])
        for number in range(100):
            self.refused("mallory", *(f"user{number * 100 + each}" for each in range(100)))
        self.assertGreater(self.refused("mallory", "bob"), 1000.0)
