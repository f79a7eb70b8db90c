"""What is to be sent: one queue for each conversation, in the order of composing, and what is on its way now.

A message has its number for ever from the moment it is composed; it is sealed later, when the keys are known, and the
very bytes that were sealed are sent again until the network has accepted or refused them for good. Nothing here knows
how sealing is done or how a request is sent. Writes need a transaction around them.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Sequence
from dataclasses import dataclass, field

from msgspec import Raw

from fastchat.protocols.wire import Recipient
from fastchat_client import history
from fastchat_client.content import Text, encode_content
from fastchat_client.events import State
from fastchat_client.vault import Vault

KEPT_FOR = 9 * 86_400_000
"""Milliseconds for which a message that was sent is kept so that it can be sent again to who could not read it: two
days more than anybody asks for it, so that the clocks of both may jump by a day."""

_COLUMNS = "n, user, device, content, at, state, shown, sealed_again, refusals"


@dataclass(frozen=True, slots=True)
class Composed:
    """A row of the outbox. `device`: its only recipient, "" for all of the user's and one's own others. `shown`: it
    stands in the history. `refusals`: how often the network failed to take it."""

    n: int
    user: str
    device: str
    content: bytes
    at: int
    is_sealed: bool
    shown: bool
    sealed_again: bool
    refusals: int


@dataclass(slots=True)
class _Queue:
    """One conversation: the numbers that wait, ascending, and those that are on their way."""

    user: str
    waiting: list[int] = field(default_factory=list)
    on_their_way: set[int] = field(default_factory=set)
    not_before: float = 0.0
    refused: bool = False
    """After `busy`, nothing goes until everything that was on its way has been answered: then all of it goes again, in
    order."""


class Outbox:
    """The open rows, by conversation. The rows of another process of this profile appear with `pick_up`."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault
        self._device = vault.text("device")
        self._newest = 0
        self._queues: dict[str, _Queue] = {}
        self._requests: dict[int, int] = {}
        self.pick_up()

    def pick_up(self) -> list[tuple[int, str]]:
        """Queue what was composed elsewhere; returns (n, user) of those messages that stand in the history."""
        rows = self._vault.execute(
            "SELECT n, user, shown FROM outbox WHERE state < 2 AND n > ? ORDER BY n", (self._newest,)
        ).fetchall()
        for n, user, _ in rows:
            self._queue(user).waiting.append(n)
            self._newest = n
        return [(n, user) for n, user, shown in rows if shown]

    def compose(self, user: str, device: str, content: bytes, at: int) -> int:
        """A message that people do not see. Its number."""
        n = _insert(self._vault, user, device, content, at, shown=False)
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
        """The earliest message that may go now, not to any of `not_to`."""
        heads = [
            queue.waiting[0]
            for queue in self._queues.values()
            if queue.waiting
            and queue.user not in not_to
            and queue.not_before <= now
            and not (queue.refused and queue.on_their_way)
        ]
        return self.get(min(heads)) if heads else None

    def get(self, n: int) -> Composed | None:
        row = self._vault.execute(f"SELECT {_COLUMNS} FROM outbox WHERE n = ?", (n,)).fetchone()  # noqa: S608
        if row is None:
            return None
        return Composed(row[0], row[1], row[2] or "", row[3], row[4], row[5] == 1, bool(row[6]), bool(row[7]), row[8])

    def sealed(self, n: int, bodies: Sequence[tuple[str, bytes]]) -> None:
        """Message `n` is sealed: (device, JSON string) for each recipient."""
        self._vault.execute_many(
            "INSERT OR REPLACE INTO sealed (n, device, body) VALUES (?, ?, ?)",
            [(n, device, body) for device, body in bodies],
        )
        self._vault.execute("UPDATE outbox SET state = 1 WHERE n = ?", (n,))

    def recipients(self, n: int) -> tuple[Recipient, ...]:
        """What was sealed for message `n`."""
        rows = self._vault.execute("SELECT device, body FROM sealed WHERE n = ? AND body NOT NULL", (n,))
        return tuple(Recipient(device, Raw(body)) for device, body in rows)

    def was_recipient(self, n: int, device: str) -> bool:
        row = self._vault.execute("SELECT 1 FROM sealed WHERE n = ? AND device = ?", (n, device)).fetchone()
        return row is not None

    def goes(self, message: Composed, request: int) -> None:
        """`message` leaves now, as `request`."""
        queue = self._queue(message.user)
        queue.waiting.remove(message.n)
        queue.on_their_way.add(message.n)
        queue.refused = False
        self._requests[request] = message.n

    # --- answers -----------------------------------------------------------------------------------------------------

    def answered(self, request: int) -> Composed | None:
        """The message that was sent as `request`; it is not on its way any more."""
        n = self._requests.pop(request, None)
        message = None if n is None else self.get(n)
        if message is not None:
            self._queue(message.user).on_their_way.discard(message.n)
        return message

    def accepted(self, message: Composed, now: int) -> None:
        self._vault.execute("UPDATE outbox SET state = 2, done_at = ? WHERE n = ?", (now, message.n))
        self._vault.execute("UPDATE sealed SET body = NULL WHERE n = ?", (message.n,))
        self._waits_no_more(message)

    def refused(self, message: Composed, not_before: float, is_failure: bool) -> None:
        """The network cannot take it before `not_before`: it goes back, and everything behind it waits. A failure is
        counted."""
        queue = self._queue(message.user)
        insort(queue.waiting, message.n)
        queue.refused = True
        queue.not_before = max(queue.not_before, not_before)
        if is_failure:
            self._vault.execute("UPDATE outbox SET refusals = refusals + 1 WHERE n = ?", (message.n,))

    def seal_again(self, message: Composed, is_last: bool) -> None:
        """Its recipient's devices are not those that it was sealed for: seal it once more, for those that are there.
        `is_last`: that is not done a second time."""
        self._vault.execute("DELETE FROM sealed WHERE n = ?", (message.n,))
        self._vault.execute("UPDATE outbox SET state = 0, sealed_again = ? WHERE n = ?", (is_last, message.n))
        queue = self._queue(message.user)
        if message.n not in queue.waiting:
            insort(queue.waiting, message.n)

    def failed(self, message: Composed, now: int) -> None:
        """Refused for good."""
        self._vault.execute("UPDATE outbox SET state = 3, done_at = ? WHERE n = ?", (now, message.n))
        self._vault.execute("DELETE FROM sealed WHERE n = ?", (message.n,))
        self._waits_no_more(message)

    def waiting_for(self, user: str) -> list[Composed]:
        """What waits for `user`, in order."""
        found = (self.get(n) for n in list(self._queue(user).waiting))
        return [message for message in found if message is not None]

    def disconnected(self) -> None:
        """What was on its way waits again."""
        self._requests.clear()
        for queue in self._queues.values():
            queue.waiting = sorted({*queue.waiting, *queue.on_their_way})
            queue.on_their_way.clear()
            queue.not_before, queue.refused = 0.0, False

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

    def _queue(self, user: str) -> _Queue:
        queue = self._queues.get(user)
        if queue is None:
            queue = self._queues[user] = _Queue(user)
        return queue


def compose_text(vault: Vault, to: str, text: str, at: int) -> str:
    """Put a text into the outbox and the history, in one transaction; its id, which never changes. Any process of the
    profile may do this at any time; the one that is connected sends it. `at`: milliseconds since 1970."""
    with vault.transaction():
        n = _insert(vault, to, "", encode_content(Text(text)), at, shown=True)
        device = vault.text("device")
        history.add_sent(vault, device, n, vault.text("user"), to, at, text)
    return f"{device}.{n}"


def state_reached(vault: Vault, n: int, state: State, reason: str = "") -> str:
    """Message `n` from here has come to `state`; its conversation, or "" if that is no news."""
    return history.advance(vault, vault.text("device"), n, state, reason)


def _insert(vault: Vault, user: str, device: str, content: bytes, at: int, *, shown: bool) -> int:
    n = vault.number("next_n")
    vault.put("next_n", n + 1)
    vault.execute(
        "INSERT INTO outbox (n, user, device, content, at, shown) VALUES (?, ?, ?, ?, ?, ?)",
        (n, user, device or None, content, at, shown),
    )
    return n
