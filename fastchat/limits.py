"""How much anybody may ask for: rates, connections per address, patience with failed logins, others' one-time keys.

Each limit is a small object with a passed-in clock (seconds; any monotonic one) and a bound on its own memory, so
that a flood cannot turn the limit into the damage. Nothing here knows connections, messages or accounts: addresses
and names are strings to count by, and what happens at a limit is the caller's business.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Collection
from ipaddress import IPv6Address, ip_address, ip_network

from fastchat.errors import RateLimited, TooManyConnections

Clock = Callable[[], float]


class TokenBucket:
    """At most `burst` at once and `rate` a second in the long run. Starts full.

    The balance may be driven below zero (`spend`), by whoever counts what has happened already; `take` never does.
    """

    __slots__ = ("_clock", "_then", "_tokens", "burst", "rate")

    def __init__(self, rate: float, burst: float, clock: Clock) -> None:
        self.rate = rate
        self.burst = burst
        self._clock = clock
        self._tokens = burst
        self._then = clock()

    @property
    def balance(self) -> float:
        """Tokens there are now."""
        now = self._clock()
        if now > self._then:
            self._tokens = min(self.burst, self._tokens + (now - self._then) * self.rate)
            self._then = now
        return self._tokens

    @property
    def is_full(self) -> bool:
        """Whether it is as good as new, so that it may be forgotten."""
        return self.balance >= self.burst

    def take(self, tokens: float = 1.0) -> bool:
        """Take `tokens` if they are there; says whether they were."""
        if self.balance < tokens:
            return False
        self._tokens -= tokens
        return True

    def wait(self, tokens: float = 1.0) -> float:
        """Seconds until `tokens` will be there."""
        return max(0.0, (tokens - self.balance) / self.rate)

    def spend(self, tokens: float, lowest: float) -> None:
        """Take `tokens` whether they are there or not, but leave no balance under `lowest`."""
        self._tokens = max(lowest, self.balance - tokens)


class Buckets:
    """A bucket for each key, made when first needed. At most `kept` of them: full ones go, then the oldest."""

    def __init__(self, rate: float, burst: float, clock: Clock, kept: int) -> None:
        self._rate = rate
        self._burst = burst
        self._clock = clock
        self._kept = kept
        self._buckets: OrderedDict[str, TokenBucket] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def __getitem__(self, key: str) -> TokenBucket:
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._buckets[key] = TokenBucket(self._rate, self._burst, self._clock)
            self._forget()
        else:
            self._buckets.move_to_end(key)
        return bucket

    def peek(self, key: str) -> TokenBucket | None:
        """The bucket if there is one: None is as good as a full one."""
        return self._buckets.get(key)

    def _forget(self) -> None:
        # The front holds what was used longest ago. Two looks for each new bucket keep the table at the size of what
        # is in use, at a constant cost.
        for _ in range(2):
            key = next(iter(self._buckets))
            if len(self._buckets) > self._kept or (len(self._buckets) > 1 and self._buckets[key].is_full):
                del self._buckets[key]


def address_group(address: str) -> str:
    """What counts as one address: an IPv4 address, or the /64 of an IPv6 one, which is what one household or one
    rented machine gets. Anything else counts as itself."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        if not parsed.is_loopback:
            return str(ip_network((int(parsed) >> 64 << 64, 64)))
    return str(parsed)


def is_loopback(address: str) -> bool:
    """Whether the peer is on this machine."""
    try:
        return ip_address(address_group(address)).is_loopback
    except ValueError:
        return False


class AddressLimits:
    """How many connections there may be at all (`total`), and how many an address may have (`connections`) and open
    (`per_second`, also at once)."""

    def __init__(
        self,
        clock: Clock,
        connections: int = 20,
        per_second: float = 5.0,
        exempt_loopback: bool = False,
        kept: int = 10_000,
        total: int = 20_000,
    ) -> None:
        self._connections = connections
        self._most = total
        self.total = 0
        """How many connections there are."""
        self._exempt_loopback = exempt_loopback
        self._open: dict[str, int] = {}
        """Bounded by the connections that there are; an address with none has no entry."""
        self._new = Buckets(per_second, max(1.0, per_second), clock, kept)

    def connected(self, address: str) -> None:
        """Count a new connection. Raises `TooManyConnections` or `RateLimited`; then it is not counted, and must
        not be given back with `disconnected`."""
        if self.total >= self._most:
            raise TooManyConnections("too many connections to this network; try again later")
        if self._is_exempt(address):
            self.total += 1
            return
        group = address_group(address)
        opened = self._open.get(group, 0)
        if opened >= self._connections:
            raise TooManyConnections(f"too many connections from this address: {self._connections} are allowed")
        if not self._new[group].take():
            raise RateLimited("too many new connections from this address; wait a second")
        self._open[group] = opened + 1
        self.total += 1

    def disconnected(self, address: str) -> None:
        """Give back a connection that `connected` has counted."""
        self.total -= 1
        if self._is_exempt(address):
            return
        group = address_group(address)
        opened = self._open[group]
        if opened == 1:
            del self._open[group]
        else:
            self._open[group] = opened - 1

    def open(self, address: str) -> int:
        """How many connections are counted for an address."""
        return self._open.get(address_group(address), 0)

    def _is_exempt(self, address: str) -> bool:
        return self._exempt_loopback and is_loopback(address)


class LoginFailures:
    """Failed logins, counted for the account and for the address: the first `per_minute` cost nothing, each more
    doubles the wait, from 1 s to `longest`. Nobody is ever locked out: with the right
    password, somebody under attack waits `longest` seconds at most.

    Ask `delay` *before* a password is checked and wait that long: a delay that only failures suffer can be told from
    success by a stopwatch. A successful login clears nothing, or a guesser with an account would clear its own
    address; time does, `per_minute` a minute.
    """

    def __init__(self, clock: Clock, per_minute: float = 5.0, longest: float = 8.0, kept: int = 10_000) -> None:
        self._longest = longest
        self._lowest = -(math.log2(max(longest, 1.0)) + 1.0)
        """The debt that costs `longest`: more of it would only take longer to forgive."""
        self._users = Buckets(per_minute / 60.0, per_minute, clock, kept)
        self._addresses = Buckets(per_minute / 60.0, per_minute, clock, kept)

    def failed(self, user: str, address: str) -> None:
        """Count a failed login."""
        self._users[user].spend(1.0, self._lowest)
        self._addresses[address_group(address)].spend(1.0, self._lowest)

    def delay(self, user: str, address: str) -> float:
        """Seconds to wait before the next attempt of this account or from this address is looked at."""
        return max(
            self._delay(self._users.peek(user)),
            self._delay(self._addresses.peek(address_group(address))),
        )

    def _delay(self, bucket: TokenBucket | None) -> float:
        debt = 0.0 if bucket is None else -bucket.balance
        return float(min(self._longest, 2.0 ** (debt - 1.0))) if debt > 0.0 else 0.0


class Claims:
    """How often an account may take others' one-time keys: those of `per_second` accounts in the long run, of `burst`
    at once, and of one and the same account `of_one` times an hour, also at once. Counted by account and not by
    session: a new connection is cheap."""

    def __init__(
        self, clock: Clock, per_second: float = 1.0, burst: float = 200.0, of_one: float = 20.0, kept: int = 10_000
    ) -> None:
        self._all = Buckets(per_second, burst, clock, kept)
        self._of_one = Buckets(of_one / 3600.0, of_one, clock, kept)

    def take(self, claimer: str, users: Collection[str]) -> None:
        """`claimer` takes a one-time key of each device of `users`. Raises `RateLimited`; then nothing is counted."""
        every = self._all[claimer]
        _check(every.wait(len(users)))
        # Only now: who may not ask at all must not be able to push out what is remembered of these.
        ones = [self._of_one[f"{claimer}|{user}"] for user in users]
        _check(max(one.wait() for one in ones))
        for bucket, tokens in ((every, len(users)), *((one, 1) for one in ones)):
            bucket.spend(tokens, 0.0)


def _check(wait: float) -> None:
    if wait > 0.0:
        raise RateLimited("one-time keys are asked for too often", retry_after=max(0.1, wait))
