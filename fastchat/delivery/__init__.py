"""Delivery: an accepted message is never lost, never shown twice and never out of order.

A message is accepted when every recipient device has received it or it is committed to the device's mailbox
(docs/architecture.md, "The life of a message"). Four small parts share the work:

    outgoing    what one sending session has on its way: a lane per recipient device, which keeps the order
    inbox       what one receiving session has been handed: the window, the receipts, the draining of its mailbox
    writer      the natural-batch writer of mailboxes, and the remover of what was received
    __init__    puts them over a Store and a Bus, and runs the timers: one wheel for receipts, one sweep

The rule that everything else follows from: **for one sending and one receiving device, whatever stream of messages
leaves here is in order and has no gap before what the receiver already has.** Two such streams (the mailbox, and a
sender who sends again through another service) may mix in any way: what the receiver sees for the first time is
still in order, and what it has seen it drops. No part knows a session, a transport or the wire.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import count
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from fastchat.bus import Bus, Offer
from fastchat.config import Limits
from fastchat.delivery.inbox import Inbox
from fastchat.delivery.outgoing import Counters, Outgoing
from fastchat.delivery.writer import MailRemover, MailWriter
from fastchat.errors import Busy, FastChatError, Replaced
from fastchat.store import Store

__all__ = ["Counters", "Delivery", "Inbox", "Outgoing"]

WHEEL_SECONDS = 0.5
"""How often inboxes look for messages without a receipt: one timer for all, instead of one for each message."""

SWEEP_DEVICES = 2_000
"""Mailboxes looked into by one sweep; with more live sessions than that, the sweeps take turns."""


class Delivery:
    """Delivery for all services of one process. `now` is the wall clock, in seconds, for `at` only."""

    log = Logger()

    def __init__(
        self, store: Store, bus: Bus, reactor: IReactorTime, limits: Limits, now: Callable[[], float] = time.time
    ) -> None:
        self._store = store
        self._bus = bus
        self._limits = limits
        self._now = now
        self._reactor = reactor
        self.writer = MailWriter(
            store, bus, limits.write_batch, limits.write_batch_bytes, limits.write_queue_bytes, reactor.seconds
        )
        self.remover = MailRemover(store, reactor)
        self.logins = count(1)
        """Numbers the logins in the order in which they are asked for."""
        self._inboxes: dict[str, Inbox] = {}
        self._expelled: dict[str, tuple[int, FastChatError]] = {}
        """Of devices that had to go: logins that were asked for before this number are void, and why."""
        bus.watch(self._let_go)
        self._turn: list[str] = []
        self._sweeping = False
        self._wheel = self._looping(self._turn_wheel)
        self._sweep = self._looping(self._start_sweep)

    def _looping(self, function: Callable[[], None]) -> LoopingCall:
        loop = LoopingCall(function)
        loop.clock = self._reactor
        return loop

    def start(self) -> None:
        self._wheel.start(WHEEL_SECONDS, now=False).addErrback(self._stopped)
        self._sweep.start(self._limits.sweep_seconds, now=False).addErrback(self._stopped)

    async def stop(self) -> None:
        """Stop the timers and finish what is being written."""
        for loop in (self._wheel, self._sweep):
            if loop.running:
                loop.stop()
        await self.writer.idle()
        await self.remover.stop()

    def _stopped(self, failure: Any) -> None:
        self.log.failure("a timer of delivery stopped", failure)

    # --- what sessions ask for -----------------------------------------------------------------------------------

    def outgoing(self, user: str, device: str, counters: Counters) -> Outgoing:
        """What a sending session puts its messages into."""
        return Outgoing(user, device, self._bus, self.writer, self._milliseconds, counters)

    def open_inbox(
        self,
        device: str,
        deliver: Callable[[int, Offer], None],
        say: Callable[[bytes], None],
        on_replaced: Callable[[], None],
        login: int | None = None,
        on_expelled: Callable[[FastChatError], None] | None = None,
    ) -> Inbox:
        """Attach an inbox for a device that has just logged in, and begin to drain its mailbox. `deliver(k, offer)`
        hands one message to the device, `say(line)` what is not numbered; neither may raise. `login`: what `logins`
        gave when the login was asked for. An older session's inbox is replaced. Raises `Replaced` if it is the other
        one that was asked for later: what a slow database has kept waiting, on a connection that is dead perhaps, must
        not end the session that works; and why the device was expelled, if that has happened since. `on_expelled` is
        told when it happens later."""
        login = next(self.logins) if login is None else login
        before, why = self._expelled.get(device, (0, Replaced()))
        if login < before:
            raise why
        current = self._inboxes.get(device)
        if current is not None and current.login > login:
            raise Replaced
        inbox = Inbox(
            device,
            self._store,
            self.remover,
            self._limits,
            deliver,
            say,
            on_replaced,
            self._inbox_closed,
            self._reactor,
        )
        inbox.login = login
        inbox.on_expelled = on_expelled
        self._bus.attach(device, inbox)
        self._inboxes[device] = inbox
        inbox.ring()
        return inbox

    def tell(self, device: str, line: bytes) -> None:
        """Say a message, encoded as its line, to the device if that can be done now; else it is lost."""
        self._bus.tell(device, line)

    def expel(self, user: str, device: str, error: FastChatError) -> None:
        """This device of `user` may not stay: wherever its session is, it ends with `error`, and so does a login that
        was asked for before; whoever remembers the device asks the store again."""
        self._bus.expel(user, device, error)

    def _let_go(self, user: str, device: str, error: FastChatError) -> None:
        self._expelled[device] = (next(self.logins), error)
        inbox = self._inboxes.get(device)
        if inbox is not None:
            inbox.expelled(error)

    async def waiting(self, device: str) -> int:
        """How many messages wait in the device's mailbox."""
        return await self._store.mailbox_size(device)

    def _inbox_closed(self, inbox: Inbox) -> None:
        self._bus.detach(inbox.device, inbox)
        if self._inboxes.get(inbox.device) is inbox:
            del self._inboxes[inbox.device]

    def _milliseconds(self) -> int:
        return int(self._now() * 1000)

    # --- timers --------------------------------------------------------------------------------------------------

    def _turn_wheel(self) -> None:
        now = self._reactor.seconds()
        for inbox in list(self._inboxes.values()):
            inbox.expire(now)

    def _start_sweep(self) -> None:
        """Look for mail whose ring was lost. One sweep at a time: a slow database is not asked again meanwhile."""
        if not self._sweeping and self._inboxes:
            self._sweeping = True
            Deferred.fromCoroutine(self._sweep_once()).addErrback(self._sweep_failed)

    async def _sweep_once(self) -> None:
        try:
            if not self._turn:
                self._turn = [device for device, inbox in self._inboxes.items() if inbox.is_live]
            devices, self._turn = self._turn[:SWEEP_DEVICES], self._turn[SWEEP_DEVICES:]
            for device in await self._store.waiting(devices) if devices else ():
                inbox = self._inboxes.get(device)
                if inbox is not None:
                    inbox.ring()
        finally:
            self._sweeping = False

    def _sweep_failed(self, failure: Any) -> None:
        if not failure.check(Busy):
            self.log.failure("the sweep of mailboxes failed", failure)
