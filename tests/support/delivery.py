"""A network of delivery alone: the real rules over the memory store and the local bus, driven by a `Clock`. Readers
and senders stand in for sessions and clients, and do what a client must: drop what was seen, send again after
`busy`, lowest first."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from msgspec import Raw
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.task import Clock

from fastchat.bus import Offer
from fastchat.bus.local import LocalBus
from fastchat.config import Config, Limits
from fastchat.delivery import Counters, Delivery
from fastchat.errors import Busy, FastChatError
from fastchat.protocols.wire import DeviceKeys, Recipient, ScramVerifier
from fastchat.store import ANY_SIZE, Account, Device, Mail, Stored, Waiting
from fastchat.store.memory import MemoryStore

VERIFIER = ScramVerifier(bytes(32), 4096, bytes(32), bytes(32))


def device_id(name: str) -> str:
    """A device id that can be recognised: the name's bytes in hex, padded."""
    return name.encode().hex().ljust(32, "0")


class WatchedStore(MemoryStore):
    """The memory store with the seams that these tests need: its commits can be held, and its batches are seen."""

    def __init__(self, limits: Limits) -> None:
        super().__init__(Config(home=Path("unused"), limits=limits))
        self.batches: list[list[int]] = []
        self.held: list[Deferred[None]] | None = None
        self.fail_after_commit = False
        self.held_reads: list[Deferred[None]] | None = None

    def hold_reads(self) -> None:
        """From now on, reading a mailbox takes its time; what it will find is what is there at its end."""
        self.held_reads = []

    def release_reads(self) -> None:
        held, self.held_reads = self.held_reads or [], None
        for deferred in held:
            deferred.callback(None)

    async def mailbox(
        self, device: str, in_flight: Sequence[int], limit: int, enough: int = ANY_SIZE
    ) -> Sequence[Waiting]:
        if self.held_reads is not None:
            waiting: Deferred[None] = Deferred()
            self.held_reads.append(waiting)
            await waiting
        return await super().mailbox(device, in_flight, limit, enough)

    def hold(self) -> None:
        self.held = []

    def release(self) -> None:
        """Let everything that waits be committed, one batch after the other, and hold no more."""
        held, self.held = self.held or [], None
        for deferred in held:
            deferred.callback(None)

    async def store_mail(self, batch: Sequence[Mail]) -> Sequence[Stored]:
        self.batches.append([mail.n for mail in batch])
        if self.held is not None:
            waiting: Deferred[None] = Deferred()
            self.held.append(waiting)
            await waiting
        outcomes = await super().store_mail(batch)
        if self.fail_after_commit:
            raise Busy
        return outcomes


class Reader:
    """A device that is logged in: what it was handed, and what it has seen for the first time."""

    def __init__(self, network: Network, device: str, seen: list[tuple[str, int]]) -> None:
        self.handed: list[tuple[int, Offer]] = []
        self.seen = seen
        self.told: list[bytes] = []
        self.is_replaced = False
        self.inbox = network.delivery.open_inbox(device_id(device), self._deliver, self.told.append, self._replaced)

    def _deliver(self, k: int, offer: Offer) -> None:
        self.handed.append((k, offer))

    def _replaced(self) -> None:
        self.is_replaced = True

    @property
    def numbers(self) -> list[int]:
        """The `n` of everything handed over, in order."""
        return [offer.n for _, offer in self.handed]

    def receive(self, upto: int | None = None) -> None:
        """Commit what was handed over, up to `k` = `upto` (None: all of it), and say so."""
        upto = len(self.handed) if upto is None else upto
        for _, offer in self.handed[:upto]:
            if (offer.device, offer.n) not in self.seen:
                self.seen.append((offer.device, offer.n))
        self.inbox.received(upto)


class Sender:
    """A device that sends. `outcomes[n]`: None once accepted, else the error; absent while open."""

    def __init__(self, network: Network, device: str) -> None:
        self.device = device
        self.outcomes: dict[int, FastChatError | None] = {}
        self.unaccepted: dict[int, list[str]] = {}
        self._bodies: dict[int, Raw] = {}
        self._next = 1
        self._network = network
        self.reconnect()

    def reconnect(self) -> None:
        """Another session: nothing of the old one is known to it."""
        self.outgoing = self._network.delivery.outgoing("alice", device_id(self.device), self._network.counters)

    def send(self, *to: str, size: int = 0) -> int:
        """A new message to these devices, with a body of at least `size` bytes; answers its `n`."""
        n, self._next = self._next, self._next + 1
        self.unaccepted[n] = list(to)
        self._bodies[n] = Raw(b'"' + str(n).zfill(size).encode() + b'"')
        self._send(n)
        return n

    def send_again(self) -> None:
        """Everything that is not accepted, lowest first."""
        for n in sorted(self.unaccepted):
            self._send(n)

    def _send(self, n: int) -> None:
        recipients = [Recipient(device_id(to), self._bodies[n]) for to in self.unaccepted[n]]

        session = self.outgoing

        def done(error: FastChatError | None) -> None:
            # An answer on an old connection never arrives.
            if n in self.unaccepted and session is self.outgoing:
                self.outcomes[n] = error
                if not isinstance(error, Busy):
                    del self.unaccepted[n]

        self.outcomes.pop(n, None)
        self.outgoing.send(n, recipients, done)


class Network:
    def __init__(self, bus: LocalBus | None = None, **limits: Any) -> None:
        self.clock = Clock()
        self.limits = Limits(**limits)
        self.store = WatchedStore(self.limits)
        self.bus = bus or LocalBus()
        self.counters = Counters()
        self.delivery = Delivery(self.store, self.bus, self.clock, self.limits, now=self.clock.seconds)
        self.delivery.start()

    def stop(self) -> None:
        ensureDeferred(self.delivery.stop())

    def add_devices(self, *names: str) -> None:
        for name in names:
            invite = name.encode()
            account = Account(name, b"pem", VERIFIER)
            device = Device(device_id(name), name, name.encode().ljust(32), name.encode().ljust(32))
            now(self.store.add_invite(invite, None, None))
            now(self.store.register(account, device, [], DeviceKeys(), [], invite))

    def login(self, device: str, seen: list[tuple[str, int]] | None = None) -> Reader:
        return Reader(self, device, [] if seen is None else seen)

    def mailbox(self, device: str) -> list[int]:
        """The `n` of what is stored for a device, in row order."""
        return [waiting.n for waiting in now(self.store.mailbox(device_id(device), [], 100_000))]


def now(coroutine: Any) -> Any:
    """The result of a coroutine that waits for nothing, as all of the memory store's do."""
    results: list[Any] = []
    ensureDeferred(coroutine).addCallbacks(results.append, lambda failure: failure.raiseException())
    [result] = results
    return result
