"""Which chat service the next client is sent to: pure strategies, and the bookkeeping that gives them true loads.

A strategy is a function of what is known now; it keeps nothing. `Placement` keeps what it needs: the services'
reports, and the leases: promises of a login that a service has not reported yet. Nothing here knows connections,
the wire's lines or a reactor; time and chance are passed in.
"""

from __future__ import annotations

from base64 import urlsafe_b64encode
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from random import Random
from types import MappingProxyType
from typing import NamedTuple

from fastchat.errors import Busy, ConfigError
from fastchat.protocols.wire import ServiceAddress

LEASE_BYTES = 16


# --- strategies ------------------------------------------------------------------------------------------------------


class Candidate(NamedTuple):
    """A service that may take the next login, as a strategy sees it."""

    load: int
    """Reported sessions and unexpired leases together."""
    turn: int
    """The number of the last assignment that it got (they are counted from 1); 0 if it never got one."""


Strategy = Callable[[Sequence[Candidate], Random], int]
"""The index of the candidate to take; there is at least one. Pure: the same candidates and the same chance give the
same answer."""


def _least(values: Sequence[int], random: Random) -> int:
    """The index of the least value; among equals, a random one."""
    least = min(values)
    return random.choice([index for index, value in enumerate(values) if value == least])


def least_connections(candidates: Sequence[Candidate], random: Random) -> int:
    """The one with the least load."""
    return _least([candidate.load for candidate in candidates], random)


def round_robin(candidates: Sequence[Candidate], random: Random) -> int:
    """The one whose last turn is longest ago: a circle that stays even when services come and go."""
    return _least([candidate.turn for candidate in candidates], random)


def uniform(candidates: Sequence[Candidate], random: Random) -> int:
    """Any of them, all equally likely."""
    return random.randrange(len(candidates))


def power_of_two_choices(candidates: Sequence[Candidate], random: Random) -> int:
    """The less loaded of two random ones (Mitzenmacher 2001): nearly even, and old reports cannot make a herd."""
    if len(candidates) == 1:
        return 0
    one, other = random.sample(range(len(candidates)), 2)
    return one if candidates[one].load <= candidates[other].load else other


STRATEGIES: Mapping[str, Strategy] = MappingProxyType(
    {
        "least-connections": least_connections,
        "round-robin": round_robin,
        "random": uniform,
        "power-of-two-choices": power_of_two_choices,
    }
)


# --- bookkeeping -----------------------------------------------------------------------------------------------------


class Placed(NamedTuple):
    """One decision."""

    service: ServiceAddress
    lease: str
    """128 random bits in base64url; single use, at this service only."""


class ServiceLoad(NamedTuple):
    """What is known of one service, for people to look at."""

    service: ServiceAddress
    sessions: int
    """As it last reported."""
    leases: int
    draining: bool


class _Service:
    """The record of one run of one service: a service that was down gets a new one, so that what belonged to its
    earlier run (leases) can no longer touch its counts."""

    __slots__ = ("address", "draining", "leases", "newcomer_since", "sessions", "taken", "turn")

    def __init__(self, address: ServiceAddress) -> None:
        self.address = address
        self.sessions = 0
        self.leases = 0
        self.draining = False
        self.turn = 0
        self.newcomer_since: int | None = None
        """The number of the last assignment before it came (back), while it is still catching up."""
        self.taken = 0
        """Assignments that it got since then."""

    @property
    def load(self) -> int:
        return self.sessions + self.leases


class _Lease(NamedTuple):
    service: _Service
    expires: float


class Placement:
    """Where the next client goes, from the services' reports and the leases given out since.

    `random` also makes the leases' ids: pass a `SystemRandom` wherever clients are not to guess them (guessing one
    gains nothing but a count that is off by one for some seconds). Services report at each change, and a stop is told
    with `drain` and `remove`.
    """

    def __init__(
        self,
        strategy: str,
        clock: Callable[[], float],
        random: Random,
        lease_seconds: float = 10.0,
        newcomer_share: float = 2.0,
    ) -> None:
        if strategy not in STRATEGIES:
            raise ConfigError(f"there is no strategy {strategy!r}; choose one of {', '.join(STRATEGIES)}")
        self.strategy = strategy
        self.lease_seconds = lease_seconds
        self._choose = STRATEGIES[strategy]
        self._clock = clock
        self._random = random
        self._newcomer_share = newcomer_share
        self._services: dict[str, _Service] = {}
        # Every lease lives equally long, so the order of issue is the order of expiry. (A plain dict would walk over
        # the holes at its front for each look at the oldest one.)
        self._leases: OrderedDict[str, _Lease] = OrderedDict()
        self._assignments = 0

    def report(self, service: ServiceAddress, sessions: int, redeemed: Iterable[str] = ()) -> None:
        """A service is up and has `sessions` sessions; `redeemed` are the leases that came with those it had not
        reported before.

        Both in one call: a login is counted by its lease until the very report that counts its session. A lease that
        was not given for this service, has expired, was redeemed before or never existed changes nothing.
        """
        known = self._services.get(service.name)
        if known is None:
            known = self._services[service.name] = _Service(service)
            if any(other.load for other in self._services.values()):
                known.newcomer_since = self._assignments
        known.address = service
        known.sessions = sessions
        for lease in redeemed:
            found = self._leases.get(lease)
            if found is not None and found.service is known:
                del self._leases[lease]
                known.leases -= 1

    def remove(self, name: str) -> None:
        """A service is down. Its leases lapse with it; nothing happens if it was not known."""
        self._services.pop(name, None)

    def drain(self, name: str) -> None:
        """Send nobody to a service any more, until it has been down and is back. What it has, it keeps."""
        service = self._services.get(name)
        if service is not None:
            service.draining = True

    def assign(self) -> Placed:
        """Decide for one client. Raises `Busy` when no service is up.

        Costs O(services) and, over time, O(1) for each lease, however many are out.
        """
        self._expire_leases()
        open_services = self._open()
        if not open_services:
            raise Busy("no chat service is up at the moment")
        allowed = [service for service in open_services if self._may_take(service, open_services)] or open_services
        chosen = allowed[self._choose([Candidate(service.load, service.turn) for service in allowed], self._random)]
        self._assignments += 1
        chosen.turn = self._assignments
        chosen.taken += 1
        chosen.leases += 1
        lease = urlsafe_b64encode(self._random.randbytes(LEASE_BYTES)).rstrip(b"=").decode("ascii")
        self._leases[lease] = _Lease(chosen, self._clock() + self.lease_seconds)
        return Placed(chosen.address, lease)

    def services(self) -> tuple[ServiceAddress, ...]:
        """All services that take clients, for a client to fall back on."""
        return tuple(service.address for service in self._open())

    def loads(self) -> tuple[ServiceLoad, ...]:
        """All services that are up, those being drained too."""
        self._expire_leases()
        return tuple(
            ServiceLoad(service.address, service.sessions, service.leases, service.draining)
            for service in self._services.values()
        )

    def _open(self) -> list[_Service]:
        return [service for service in self._services.values() if not service.draining]

    def _may_take(self, service: _Service, open_services: Sequence[_Service]) -> bool:
        """Whether one more assignment keeps a newcomer within its share; anyone else may always take one.

        Without the cap, least connections sends every login to a service that has just come back: it would meet
        all of a reconnect storm with cold caches.
        """
        if service.newcomer_since is None:
            return True
        if service.load * len(open_services) >= sum(each.load for each in open_services):
            service.newcomer_since = None
            return True
        since = self._assignments - service.newcomer_since
        return (service.taken + 1) * len(open_services) <= self._newcomer_share * (since + 1)

    def _expire_leases(self) -> None:
        now = self._clock()
        while self._leases:
            service, expires = next(iter(self._leases.values()))
            if expires > now:
                return
            self._leases.popitem(last=False)
            service.leases -= 1
