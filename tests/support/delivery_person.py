"""One device in the world of delivery: what its disk keeps, and the client's own rule of what to send when.

The outbox and the sender are the client's, over a vault in memory; keys, accounts and the key log are left out:
everybody is known, and sealing copies the text. What it does with an answer is therefore what the product does with it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Sequence
from functools import cache, partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from fastchat.bus import Offer
from fastchat.errors import FastChatError
from fastchat.protocols.wire import Error, Send
from fastchat_client import vault as vaults
from fastchat_client.events import State
from fastchat_client.outbox import Composed, Outbox
from fastchat_client.parts import Live
from fastchat_client.sending import Sender
from fastchat_client.vault import Vault
from tests.support.delivery import device_id
from tests.support.delivery_judge import Disk, Message, Name

if TYPE_CHECKING:
    from tests.support.delivery_world import Line, World

ON_THE_WAY = 6


@cache
def _empty() -> bytes:
    """A vault in which nothing is written; making one anew takes a hundred times as long as copying it."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    vaults._upgrade(connection)
    return connection.serialize()


def _vault() -> Vault:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.deserialize(_empty())
    return Vault(connection)


class _Parts:
    """As much of the core's parts as its sender asks for."""

    def __init__(self, person: Person, own: Collection[str]) -> None:
        self._person = person
        self.vault = _vault()
        self.vault.put("device", device_id(person.name))
        self.outbox = Outbox(self.vault)
        self.me = SimpleNamespace(user=person.name, device=device_id(person.name))
        self.accounts = SimpleNamespace(
            get={person.name: SimpleNamespace(offered_root=b"", devices={device_id(name) for name in own})}.get,
            mark_user_stale=lambda user: None,
        )
        self.alarmed = False
        self.requests = 0

    @property
    def ready(self) -> Any:
        if self._person.line is None:
            return None
        limits = SimpleNamespace(unaccepted=ON_THE_WAY, max_line=10**6, sends_per_second=10**6)
        return SimpleNamespace(
            limits=limits,
            leaving=self._person.is_leaving or None,
            tokens=10.0**6,
            tokens_at=self.clock(),
            fetching=SimpleNamespace(questions=lambda now: ()),
        )

    def clock(self) -> float:
        return self._person.world.seconds

    def now(self) -> int:
        return int(self.clock() * 1000)

    def say(self, message: Callable[[int], Send]) -> int:
        self.requests += 1
        self._person.says(message(self.requests))
        return self.requests

    def tell(self, event: object) -> None:
        pass


class _Sender(Sender):
    def __init__(self, person: Person, parts: Any) -> None:
        nobody: Any = None  # there are no groups here
        super().__init__(parts, nobody, nobody)
        self._person = person

    def _seal(self, live: Live, message: Composed) -> bool:
        written = self._person.disk.written[message.n]
        self._parts.outbox.sealed(message.n, [(device_id(to), written.body) for to in written.to])
        return True

    def _tell_missing(self, message: Composed, missing: Sequence[str], problem: FastChatError) -> None:
        self._person.gives_up(message.n, missing)

    def _reached(self, message: Composed, state: State, reason: str = "") -> None:
        if state is State.FAILED:
            self._person.fails(message.n)


class Person:
    def __init__(self, world: World, name: str, own: Collection[str]) -> None:
        """`own`: the other devices of the same user, by name."""
        self.world = world
        self.name = name
        self.line: Line | None = None
        self.is_leaving = False
        self.disk = Disk()
        self._own = own
        self._parts = _Parts(self, own)
        self._sender = _Sender(self, self._parts)

    # --- sending -----------------------------------------------------------------------------------------------------

    def write(self, conversation: str, to: tuple[str, ...], size: int) -> None:
        n = len(self.disk.written) + 1
        self.disk.written[n] = Message(conversation, to, b'"' + str(n).zfill(size).encode() + b'"')
        assert self._parts.outbox.compose(conversation, "", b"", 0) == n

    def pump(self) -> bool:
        """Send what may go now; whether anything went."""
        before = self._parts.requests
        if self.is_leaving and not self._parts.outbox.on_their_way:
            self.hang_up()
        self._sender.pump()
        return self._parts.requests > before

    def says(self, send: Send) -> None:
        assert self.line is not None
        self.line.up.append(partial(self.line.send, send))

    def answered(self, request: int, error: Error | None) -> None:
        if error is None:
            self._sender.accepted(request)
        else:
            self._sender.refused(request, error)

    def gives_up(self, n: int, devices: Sequence[str]) -> None:
        """These devices will never be sent message `n` again."""
        for device in devices:
            self.disk.given_up.add((n, self.world.owner(device)))
            self.world.judge.gives_up(Name(self.name, n), self.world.owner(device))

    def fails(self, n: int) -> None:
        """Nobody will. Copies for own devices do not count."""
        self.disk.failed.add(n)
        for to in self.disk.written[n].to:
            if to not in self._own:
                self.world.judge.gives_up(Name(self.name, n), to)

    def asked_to_leave(self) -> None:
        self.is_leaving = True

    def hang_up(self) -> None:
        """The connection is gone on this side; whether the server knows is another matter."""
        self.line = None
        self.is_leaving = False
        self._parts.outbox.disconnected()

    @property
    def has_unsent(self) -> bool:
        (count,) = self._parts.vault.execute("SELECT COUNT(*) FROM outbox WHERE state < 2").fetchone()
        return bool(count)

    # --- receiving ---------------------------------------------------------------------------------------------------

    def take(self, line: Line, k: int, offer: Offer) -> None:
        """Commit one message and say so."""
        name = self.world.name(offer.device, offer.n)
        if not self.has_seen(name):
            self.world.judge.sees(self.name, name, bytes(offer.body))
            self.disk.seen.add(name)
        line.up.append(partial(line.receipt, k))

    def has_seen(self, name: Name) -> bool:
        return name in self.disk.seen
