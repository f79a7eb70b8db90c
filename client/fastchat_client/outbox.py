"""What is to be sent: one queue for each conversation, in the order of composing, and what is on its way now; and a
lane for each device that the network cannot reach for now, with what it has still to get while others have it already.

A message has its number for ever from the moment it is composed; it is sealed later, when the keys are known, and the
very bytes that were sealed are sent again until the network has accepted or refused them for good. Nothing here knows
how sealing is done or how a request is sent. Writes need a transaction around them.
"""

from __future__ import annotations

from bisect import insort
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field

from msgspec import Raw

from fastchat.protocols.wire import Recipient
from fastchat_client import history
from fastchat_client.composing import insert
from fastchat_client.content import Ref
from fastchat_client.vault import Vault

KEPT_FOR = 9 * 86_400_000
"""Milliseconds for which a message that was sent is kept so that it can be sent again to who could not read it: two
days more than anybody asks for it, so that the clocks of both may jump by a day."""

_COLUMNS = "n, user, device, content, at, state, shown, sealed_again, refusals, length, own_copies"

_KEYS = "!"
"""How the queue of a group's keys begins; a group's own begins with "#", a person's with neither."""


@dataclass(frozen=True, slots=True)
class Composed:
    """A row of the outbox. `user`: the conversation, a user's name or a group's; or a group's queue of keys. `device`:
    its only recipient, "" for all of the user's and, with `own_copies`, one's own others. `shown`: it stands in the
    history. `refusals`: how often the network failed to take it. `length`: of the chain that a group message was
    encrypted by."""

    n: int
    user: str
    device: str
    content: bytes
    at: int
    is_sealed: bool
    shown: bool
    sealed_again: bool
    refusals: int
    length: int
    own_copies: bool

    @property
    def is_to_group(self) -> bool:
        """One ciphertext for whoever is in the group: as long as nothing has gone wrong, its only recipient is the
        group, under the name of its conversation."""
        return self.user.startswith("#")

    @property
    def is_keys(self) -> bool:
        """Keys of a group for some devices of several users: sealed when it was composed, and never again."""
        return self.user.startswith(_KEYS)


def keys_of(group: str) -> str:
    """The queue of a group's keys. It goes before everything else."""
    return f"{_KEYS}{group}"


@dataclass(slots=True)
class _Queue:
    """One conversation: the numbers of which nothing has been sent on this connection, ascending, and those that are
    begun: on their way, or in the lanes of devices that have not got them yet."""

    user: str
    waiting: list[int] = field(default_factory=list)
    on_their_way: set[int] = field(default_factory=set)


@dataclass(slots=True)
class _Lane:
    """A device for which something was refused for now. Nothing goes to it until all that was on its way to it has been
    answered and `not_before` has come; then one message at a time, until one is taken; then the rest."""

    rest: list[tuple[int, str]] = field(default_factory=list)
    """(n, conversation) of what it has still to get, ascending."""
    refused: bool = True
    not_before: float = 0.0


class Outbox:
    """The open rows, by conversation. The rows of another process of this profile appear with `pick_up`."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault
        self._device = vault.text("device")
        self._newest = 0
        self._queues: dict[str, _Queue] = {}
        self._lanes: dict[str, _Lane] = {}
        self._requests: dict[int, tuple[int, tuple[str, ...]]] = {}
        self._under_way = Counter[str]()
        """By device, how many requests with something for it are unanswered."""
        self.pick_up()
        self._find_rest()

    def pick_up(self) -> list[tuple[int, str]]:
        """Queue what was composed elsewhere; returns (n, user) of those messages that stand in the history."""
        rows = self._vault.execute(
            "SELECT n, user, shown FROM outbox WHERE state < 2 AND n > ? ORDER BY n", (self._newest,)
        ).fetchall()
        for n, user, _ in rows:
            self._queue(user).waiting.append(n)
            self._newest = n
        return [(n, user) for n, user, shown in rows if shown]

    def compose(self, user: str, device: str, content: bytes, at: int, quotes: Ref | None = None) -> int:
        """A message that people do not see. Its number. `quotes`: the message whose words stand in it."""
        n = insert(self._vault, user, device, content, at, shown=False, quotes=quotes)
        self.pick_up()
        return n

    def compose_sealed(
        self, queue: str, content: bytes, at: int, seal: Callable[[int], Iterable[tuple[str, bytes]]]
    ) -> int:
        """A message for devices of several users, sealed at once: `seal` gets its number and gives (device, JSON
        string) for each. Its number."""
        n = insert(self._vault, queue, "", content, at, shown=False)
        self.sealed(n, list(seal(n)))
        self.pick_up()
        return n

    @property
    def on_their_way(self) -> int:
        return len(self._requests)

    @property
    def users(self) -> list[str]:
        """Whom something waits for."""
        return [queue.user for queue in self._queues.values() if queue.waiting]

    def next(self, now: float, not_to: set[str]) -> Composed | None:
        """The earliest message of which something may go now, not to any of `not_to`. What of it, `due` says: perhaps
        nothing, if it is sealed for devices that cannot be reached."""
        open_queues = [queue for queue in self._queues.values() if queue.waiting and queue.user not in not_to]
        # Keys first: what they open comes after them, whatever its number.
        keys = [queue.waiting[0] for queue in open_queues if queue.user.startswith(_KEYS)]
        if keys:
            return self.get(min(keys))
        heads = [queue.waiting[0] for queue in open_queues]
        heads += [n for n in (self._head(device, now, not_to) for device in self._lanes) if n]
        return self.get(min(heads)) if heads else None

    def due(self, message: Composed, now: float, not_to: Collection[str] = ()) -> tuple[Recipient, ...]:
        """What of a sealed message may go now: a device for which something was refused gets nothing before that."""
        parts = self.recipients(message.n)
        if message.n in self._queue(message.user).waiting:
            return tuple(part for part in parts if self._is_free(part.device, now))
        return tuple(part for part in parts if self._head(part.device, now, not_to) == message.n)

    def put_aside(self, message: Composed) -> bool:
        """Nothing of it may go now. Whether what comes after it need not wait for that: it does not for what is for one
        device alone, a mark or what that has asked for; and must not if a later one of the conversation has begun, for
        that waits for this one."""
        queue = self._queue(message.user)
        may_pass = bool(message.device) or message.is_keys or any(n > message.n for n in queue.on_their_way)
        if may_pass and message.n in queue.waiting:
            self._begin(message)
        return may_pass

    def _may_go(self, device: str, now: float) -> bool:
        lane = self._lanes.get(device)
        return lane is None or not (lane.not_before > now or (lane.refused and self._under_way[device]))

    def _is_free(self, device: str, now: float) -> bool:
        """Whether something new may go to it at once: nothing else has to go there first."""
        return self._may_go(device, now) and not (device in self._lanes and self._lanes[device].rest)

    def _head(self, device: str, now: float, not_to: Collection[str]) -> int:
        """The first of the rest of a device that may go now; 0 if none."""
        lane = self._lanes.get(device)
        if lane is None or not self._may_go(device, now):
            return 0
        return next((n for n, user in lane.rest if user not in not_to), 0)

    def get(self, n: int) -> Composed | None:
        row = self._vault.execute(f"SELECT {_COLUMNS} FROM outbox WHERE n = ?", (n,)).fetchone()  # noqa: S608
        if row is None:
            return None
        flags = row[5] == 1, bool(row[6]), bool(row[7])
        return Composed(row[0], row[1], row[2] or "", row[3], row[4], *flags, row[8], row[9], bool(row[10]))

    def waits_for_earlier(self, message: Composed) -> bool:
        """Whether an earlier message to the same group was encrypted by another chain than this one and is not
        accepted: it may have to be encrypted anew, and is then to come before this one."""
        row = self._vault.execute(
            "SELECT 1 FROM outbox WHERE state = 1 AND n < ? AND user = ? AND length != ? LIMIT 1",
            (message.n, message.user, message.length),
        ).fetchone()
        return row is not None

    def has_waiting(self, queue: str) -> bool:
        """Whether something of this queue has not left yet."""
        return bool(self._queue(queue).waiting)

    def sealed(self, n: int, bodies: Sequence[tuple[str, bytes]], length: int = 0) -> None:
        """Message `n` is sealed: (device, JSON string) for each recipient; by a group's chain of this `length`."""
        self._vault.execute_many(
            "INSERT OR REPLACE INTO sealed (n, device, body) VALUES (?, ?, ?)",
            [(n, device, body) for device, body in bodies],
        )
        self._vault.execute("UPDATE outbox SET state = 1, length = ? WHERE n = ?", (length, n))
        if length:
            history.went_by(self._vault, self._device, n, length)

    def say_instead(self, n: int, content: bytes) -> None:
        """Message `n`, which nobody has been sent yet, says this."""
        self._vault.execute("UPDATE outbox SET content = ? WHERE n = ?", (content, n))

    def recipients(self, n: int) -> tuple[Recipient, ...]:
        """What was sealed for message `n`."""
        rows = self._vault.execute("SELECT device, body FROM sealed WHERE n = ? AND body NOT NULL", (n,))
        return tuple(Recipient(device, Raw(body)) for device, body in rows)

    def devices(self, n: int) -> list[str]:
        """Those that have message `n` or are to get it."""
        return [device for (device,) in self._vault.execute("SELECT device FROM sealed WHERE n = ?", (n,))]

    def was_recipient(self, n: int, device: str) -> bool:
        row = self._vault.execute("SELECT 1 FROM sealed WHERE n = ? AND device = ?", (n, device)).fetchone()
        return row is not None

    def goes(self, message: Composed, request: int, recipients: Sequence[Recipient]) -> None:
        """These parts of `message` leave now, as `request`; what is left of it waits for its devices."""
        devices = tuple(recipient.device for recipient in recipients)
        self._requests[request] = (message.n, devices)
        self._under_way.update(devices)
        if message.n in self._queue(message.user).waiting:
            self._begin(message, devices)
        for device in devices:
            if device in self._lanes and (message.n, message.user) in self._lanes[device].rest:
                self._lanes[device].rest.remove((message.n, message.user))

    def _begin(self, message: Composed, going: Collection[str] = ()) -> None:
        queue = self._queue(message.user)
        queue.waiting.remove(message.n)
        queue.on_their_way.add(message.n)
        for part in self.recipients(message.n):
            if part.device not in going:
                self._wait_for(part.device, message)

    def _wait_for(self, device: str, message: Composed) -> _Lane:
        lane = self._lanes.setdefault(device, _Lane())
        if (message.n, message.user) not in lane.rest:
            insort(lane.rest, (message.n, message.user))
        return lane

    # --- answers -----------------------------------------------------------------------------------------------------

    def answered(self, request: int) -> tuple[Composed, tuple[str, ...]] | None:
        """The message that was sent as `request`, if it is still of interest, and the devices that it was sent to."""
        n, devices = self._requests.pop(request, (0, ()))
        self._under_way.subtract(devices)
        self._under_way += Counter()
        message = self.get(n)
        return None if message is None or not message.is_sealed else (message, devices)

    def accepted(self, message: Composed, now: int, devices: Sequence[str]) -> bool:
        """These devices have it, or will. Whether that were all."""
        self._go_on(devices)
        self._vault.execute_many(
            "UPDATE sealed SET body = NULL WHERE n = ? AND device = ?", [(message.n, device) for device in devices]
        )
        if self.recipients(message.n):
            return False
        self._vault.execute("UPDATE outbox SET state = 2, done_at = ? WHERE n = ?", (now, message.n))
        self._waits_no_more(message)
        return True

    def refused(self, message: Composed, devices: Sequence[str], not_before: float, is_failure: bool) -> None:
        """The network cannot take it for these devices before `not_before`: with everything behind it, it waits for
        them. A failure is counted."""
        for device in devices:
            lane = self._wait_for(device, message)
            lane.refused = True
            lane.not_before = max(lane.not_before, not_before)
        if is_failure:
            self._vault.execute("UPDATE outbox SET refusals = refusals + 1 WHERE n = ?", (message.n,))

    def left_over(self, message: Composed, devices: Sequence[str]) -> None:
        """Everybody in the group has it but these devices: from here on it is for them, each by itself."""
        for recipient in self.recipients(message.n):
            self._vault.execute_many(
                "INSERT OR REPLACE INTO sealed (n, device, body) VALUES (?, ?, ?)",
                [(message.n, device, bytes(recipient.body)) for device in devices],
            )
        self._vault.execute("DELETE FROM sealed WHERE n = ? AND device = ?", (message.n, message.user))

    def given_up(self, message: Composed, devices: Sequence[str]) -> None:
        """The network will never take it for these devices; it is as it was for the others."""
        self._go_on(devices)
        self._vault.execute_many(
            "DELETE FROM sealed WHERE n = ? AND device = ?", [(message.n, device) for device in devices]
        )

    def seal_again(self, message: Composed, is_last: bool) -> None:
        """Its recipient's devices are not those that it was sealed for: seal it once more, for those that are there.
        `is_last`: that is not done a second time."""
        self._vault.execute("DELETE FROM sealed WHERE n = ?", (message.n,))
        self._vault.execute("UPDATE outbox SET state = 0, sealed_again = ? WHERE n = ?", (is_last, message.n))
        self._waits_no_more(message)
        insort(self._queue(message.user).waiting, message.n)

    def failed(self, message: Composed, now: int) -> None:
        """Refused for good."""
        self._vault.execute("UPDATE outbox SET state = 3, done_at = ? WHERE n = ?", (now, message.n))
        self._vault.execute("DELETE FROM sealed WHERE n = ?", (message.n,))
        self._waits_no_more(message)

    def waiting_for(self, user: str) -> list[Composed]:
        """What waits for `user`, in order: all that is open, but for what is on its way."""
        on_their_way = {n for n, _ in self._requests.values()}
        queue = self._queue(user)
        found = (self.get(n) for n in sorted({*queue.waiting, *queue.on_their_way} - on_their_way))
        return [message for message in found if message is not None]

    def disconnected(self) -> None:
        """What was on its way waits again, and so does what was refused for now."""
        self._requests.clear()
        self._under_way.clear()
        self._lanes.clear()
        for queue in self._queues.values():
            queue.waiting = sorted({*queue.waiting, *queue.on_their_way})
            queue.on_their_way.clear()
        self._find_rest()

    def _find_rest(self) -> None:
        """What some of its devices have already waits for the others, and nothing else waits for it."""
        rows = self._vault.execute(
            "SELECT DISTINCT n FROM outbox JOIN sealed USING (n) WHERE state < 2 AND state = 1 AND body IS NULL"
        ).fetchall()
        for (n,) in rows:
            message = self.get(n)
            if message is not None and n in self._queue(message.user).waiting:
                self._begin(message)

    def purge(self, now: int) -> None:
        """Forget what was sent more than `KEPT_FOR` ago; the history keeps what people see."""
        old = (now - KEPT_FOR,)
        self._vault.execute(
            "DELETE FROM sealed WHERE n IN (SELECT n FROM outbox WHERE state >= 2 AND done_at < ?)", old
        )
        self._vault.execute("DELETE FROM outbox WHERE state >= 2 AND done_at < ?", old)

    def _waits_no_more(self, message: Composed) -> None:
        queue = self._queue(message.user)
        if message.n in queue.waiting:
            queue.waiting.remove(message.n)
        queue.on_their_way.discard(message.n)
        for device, lane in list(self._lanes.items()):
            if (message.n, message.user) in lane.rest:
                lane.rest.remove((message.n, message.user))
                self._forget_if_done(device)

    def _go_on(self, devices: Sequence[str]) -> None:
        """What is next may go to these devices, unless more than this is on its way: an earlier one, which has waited
        for its other devices, says nothing of those that were sent behind the refused one."""
        for device in devices:
            lane = self._lanes.get(device)
            if lane is not None and not self._under_way[device]:
                lane.refused = False
                self._forget_if_done(device)

    def _forget_if_done(self, device: str) -> None:
        lane = self._lanes[device]
        if not lane.rest and not lane.refused:
            del self._lanes[device]

    def _queue(self, user: str) -> _Queue:
        queue = self._queues.get(user)
        if queue is None:
            queue = self._queues[user] = _Queue(user)
        return queue
