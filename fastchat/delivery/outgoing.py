"""What one sending session has on its way.

A lane joins the sending device to one recipient device. Its rule keeps the order: **a message is offered at once only
if nothing before it in its lane is on its way to the mailbox; and before a message is stored, everything that is
offered and unanswered in its lane is stored.** So the mailbox never holds a message whose predecessors are neither
there nor received. After `busy` a lane answers `busy` to everything later than a message that was refused, until that
one comes again, and every other one that was refused meanwhile: what is for a whole group comes in between, for whoever
can be reached. Lanes know nothing of each other: who is online gets a message at once, also when it cannot be
stored for another of its recipients, and the error names those that it could not be stored for.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Collection, Container, Sequence

from msgspec import Raw

from fastchat.bus import Bus, Offer
from fastchat.delivery.writer import MailWriter
from fastchat.errors import Busy, FastChatError, UnknownDevice
from fastchat.protocols.group_messages import MOST_NAMED
from fastchat.protocols.wire import Recipient
from fastchat.store import Mail

Done = Callable[[FastChatError | None], None]
"""Told once, perhaps before `send` returns: None when the message is accepted, else why not."""


LANES_KEPT = 256
"""Idle lanes that a session keeps because it will probably need them again."""

LANES = 32_768
"""Lanes of one session at once, and what was refused in them: what it can make this side remember. Enough for some
groups of a thousand members, with a few devices each, of whom nobody can be reached."""


class Counters:
    """What a service counts for its status: messages accepted, and of their deliveries those that went to mailboxes."""

    __slots__ = ("accepted", "stored")

    def __init__(self) -> None:
        self.accepted = 0
        self.stored = 0


class _Submission:
    """One `send`: open until each recipient device's delivery is settled."""

    __slots__ = ("_octets", "_raw", "done", "error", "missing", "n", "open", "order")

    def __init__(self, n: int, deliveries: int, done: Done, order: int) -> None:
        self.n = n
        self.order = order
        self._raw = Raw()
        self._octets = b""
        self.open = deliveries
        self.done = done
        self.error: FastChatError | None = None
        self.missing: list[str] = []
        """Devices that do not have it, and will not without being sent it again."""

    def octets(self, body: Raw) -> bytes:
        """The bytes of a body: the same object for all who get the same one."""
        if body is not self._raw:
            self._raw, self._octets = body, bytes(body)
        return self._octets

    def misses(self, device: str, error: FastChatError) -> None:
        """What the sender can do most about is told: the other errors come again."""
        self.missing.append(device)
        if self.error is None or _urgency(error) > _urgency(self.error):
            self.error = error

    def outcome(self) -> FastChatError | None:
        if self.error is None:
            return None
        outcome = type(self.error)(self.error.message, self.error.retry_after)  # that one is not this one's alone
        if len(self.missing) <= MOST_NAMED:
            outcome.devices = tuple(self.missing)
        elif not isinstance(outcome, Busy):  # without names, `busy` asks for all of it again: who has it drops it
            outcome.devices = tuple(self.missing[:MOST_NAMED])
        return outcome


def _urgency(error: FastChatError) -> int:
    return 2 if isinstance(error, Busy) else 1 if isinstance(error, UnknownDevice) else 0


class _Lane:
    """From the sending device to one recipient device."""

    __slots__ = ("device", "offered", "refused", "storing")

    def __init__(self, device: str) -> None:
        self.device = device
        self.offered: list[_OnItsWay] = []
        """Offered to the device and not answered, in order."""
        self.storing = 0
        """How many messages are on their way to the mailbox."""
        self.refused: list[int] = []
        """The numbers that were answered with `busy` and have not come again, ascending."""

    @property
    def is_idle(self) -> bool:
        return not self.offered and not self.storing and not self.refused


class _OnItsWay:
    """One message in one lane. Callable: it is the `Answer` that the bus is given."""

    __slots__ = ("_outgoing", "lane", "offer", "settled", "submission")

    def __init__(self, outgoing: Outgoing, lane: _Lane, submission: _Submission, offer: Offer) -> None:
        self._outgoing = outgoing
        self.lane = lane
        self.submission = submission
        self.offer = offer
        self.settled = False

    def __call__(self, taken: bool) -> None:
        """The device has received it (True), or it will not be handed over (False)."""
        lane = self.lane
        if taken:
            if lane.offered and lane.offered[0] is self:
                del lane.offered[0]
            self._outgoing.settle(self, None)
        elif not self.settled:
            self._outgoing.spill(lane)

    def stored(self, error: FastChatError | None) -> None:
        """It is in the mailbox, or cannot be."""
        self._outgoing.stored(self, error)


class Outgoing:
    """The messages of one sending session. It outlives the session for as long as something is on its way: what
    could not be handed over is stored although nobody waits for the answer any more."""

    def __init__(
        self,
        user: str,
        device: str,
        bus: Bus,
        writer: MailWriter,
        milliseconds: Callable[[], int],
        counters: Counters,
    ) -> None:
        self._user = user
        self._device = device
        self._bus = bus
        self._writer = writer
        self._milliseconds = milliseconds
        self._counters = counters
        self._lanes: dict[str, _Lane] = {}
        self._refused: dict[int, dict[str, _Lane]] = {}
        """The lanes in which a message was refused, by its number."""
        self._held_back = 0
        """How many messages were refused in a lane and have not come there again, besides the first one of each."""
        self.unaccepted = 0
        """How many `send`s are not answered."""

    def send(self, n: int, recipients: Sequence[Recipient], done: Done) -> None:
        """Deliver message `n` to each recipient device; `done(None)` when all have it or it is stored for them.

        `done(error)`: for the devices that it names, `Busy` when it must be sent to them again, `UnknownDevice` or
        `MailboxFull` when that would not help. The other devices have the message.
        """
        submission = self._submission(n, len(recipients), done)
        at = self._milliseconds()
        for recipient in recipients:
            offer = Offer(self._user, self._device, n, at, recipient.body)
            self._deliver(submission, self._lane(recipient.device), offer)

    def send_to_all(self, n: int, devices: Collection[str], body: bytes, done: Done) -> None:
        """The same with one body for all `devices`, of which there is one at least."""
        submission = self._submission(n, len(devices), done)
        offer = Offer(self._user, self._device, n, self._milliseconds(), body)
        with self._writer.gathering():
            for device in devices:
                self._deliver(submission, self._lane(device), offer)

    def _submission(self, n: int, deliveries: int, done: Done) -> _Submission:
        self.unaccepted += 1
        return _Submission(n, deliveries, done, next(self._writer.submissions))

    def _deliver(self, submission: _Submission, lane: _Lane, offer: Offer) -> None:
        message = _OnItsWay(self, lane, submission, offer)
        if lane.refused:
            if submission.n > lane.refused[0]:
                self._refuse(lane, submission.n)
                self.settle(message, Busy("an earlier message to the same device must come first"))
                return
            if submission.n == lane.refused[0]:
                self._open(lane, submission.n)
        if lane.storing:
            self._store(message)
        else:
            lane.offered.append(message)
            self._bus.offer(lane.device, offer, message)

    def refuse(self, n: int, recipients: Sequence[Recipient]) -> None:
        """Message `n` was refused for now, before it came here: nothing later may pass it in these lanes."""
        for recipient in recipients:
            self._refuse(self._lane(recipient.device), n)

    def forget(self, n: int, devices: Container[str] | None) -> None:
        """Whatever becomes of message `n` now, it holds back nothing any more that is for these devices (None: for
        all) and was refused behind it."""
        for device, lane in list(self._refused.get(n, {}).items()):
            if devices is None or device in devices:
                self._open(lane, n)
                if lane.is_idle:
                    self._lanes.pop(device, None)

    def _refuse(self, lane: _Lane, n: int) -> None:
        lanes = self._refused.setdefault(n, {})
        if lane.device not in lanes:
            lanes[lane.device] = lane
            self._held_back += 1 if lane.refused else 0
            insort(lane.refused, n)

    def _open(self, lane: _Lane, n: int) -> None:
        lane.refused.remove(n)
        self._held_back -= 1 if lane.refused else 0
        lanes = self._refused[n]
        del lanes[lane.device]
        if not lanes:
            del self._refused[n]

    def has_room(self, devices: Collection[str]) -> bool:
        """Whether there may be a lane to each of them. Ask before `send`, `send_to_all` and `refuse`; if there may not,
        none may be sent to, and that one was refused has to be remembered elsewhere, or the session has to end: it
        would be overtaken by later ones."""
        room = LANES - len(self._lanes) - self._held_back
        return len(devices) <= room or sum(device not in self._lanes for device in devices) <= room

    def _lane(self, device: str) -> _Lane:
        lane = self._lanes.get(device)
        if lane is None:
            lane = self._lanes[device] = _Lane(device)
        return lane

    def spill(self, lane: _Lane) -> None:
        """One offered message was not taken: it goes to the mailbox, and with it, in order, all that is unanswered
        in its lane. Some of these may be received all the same; then the device drops what the mailbox brings."""
        unanswered, lane.offered = lane.offered, []
        for message in unanswered:
            self._store(message)

    def _store(self, message: _OnItsWay) -> None:
        message.lane.storing += 1
        offer, submission = message.offer, message.submission
        body = submission.octets(offer.body)
        mail = Mail(message.lane.device, offer.user, offer.device, offer.n, offer.at, body, submission.order)
        self._writer.put(mail, message.stored)

    def stored(self, message: _OnItsWay, error: FastChatError | None) -> None:
        lane = message.lane
        lane.storing -= 1
        if error is None:
            self._counters.stored += 1
        elif isinstance(error, Busy) and not message.settled:
            self._refuse(lane, message.submission.n)
        self.settle(message, error)

    def settle(self, message: _OnItsWay, error: FastChatError | None) -> None:
        """One delivery of a submission has come to its end; a second end of the same one says nothing new."""
        if message.settled:
            return
        message.settled = True
        if len(self._lanes) > LANES_KEPT and message.lane.is_idle:
            self._lanes.pop(message.lane.device, None)
        submission = message.submission
        if error is not None:
            submission.misses(message.lane.device, error)
        submission.open -= 1
        if submission.open == 0:
            self.unaccepted -= 1
            if submission.error is None:
                self._counters.accepted += 1
            submission.done(submission.outcome())
