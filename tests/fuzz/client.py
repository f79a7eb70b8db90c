"""Target `client`: the client's heart on a server that means ill, with a vault that has a past.

The server is an honest one with somebody in between, who passes on, holds back, changes, invents, repeats and swaps
what it says, at any moment of a connection. Whatever that is: nothing raises; what is in the history stays as it is;
nobody has said what they have not said; nothing is sealed for a device that is not its recipient's; and what was not
sent was not accepted. Afterwards, on an honest network, the same vault goes on.
"""

from __future__ import annotations

from collections import deque
from functools import cache
from typing import Any

import msgspec
from hypothesis import strategies as st
from msgspec import Raw

from fastchat.errors import ProtocolError
from fastchat.identity.links import replay
from fastchat.protocols import wire
from fastchat.protocols.wire import ServerMessage
from fastchat_client.events import LogAlarm, MessageReceived, State
from tests.fuzz.messages import Values
from tests.fuzz.profiles import Copy, past, speak
from tests.fuzz.watching import Target, clean_log
from tests.support.network import Line

_OWN = "SELECT device, n, conversation, sender, text, at FROM messages WHERE own = 1"
_MOST_SENT = 40


class World:
    def __init__(self) -> None:
        self.copy = Copy()
        self.scene, self.network = self.copy.scene, self.copy.network
        self.alice, self.bob = self.copy.people["alice"], self.copy.people["bob"]
        self.bob.connects()
        self.scene.settle()
        self.received: set[str] = set()
        self.asked: list[wire.ClientMessage] = []
        """What alice has said on this connection."""
        self.accepted: set[int] = set()
        """Those n for which an answer to their `send` was heard."""
        self.alarms: list[LogAlarm] = []
        self._texts = 0
        self._enemy: Line | None = None
        self._history = self._rows()
        self._outbox = self._states()

    # --- what happens ----------------------------------------------------------------------------------------------

    def does(self, move: tuple[Any, ...]) -> None:
        if self._enemy is None and move[0] not in ("waits", "writes", "dies"):
            self._connect()
        match move:
            case ("passes", int(count)):
                for _ in range(count):
                    if self._heard:
                        self._hear(wire.decode_server_message(self._heard.popleft()))
            case ("drops",):
                if self._heard:
                    self._heard.popleft()
            case ("changes", other, int(number)):
                if self._heard:
                    self._hear(changed(wire.decode_server_message(self._heard.popleft()), other, number))
            case ("swaps",):
                self._heard.rotate(1)
            case ("invents", message, bool(fits)):
                self._hear(self._fitted(message) if fits else message)
            case ("repeats", int(number), bool(fits)):
                heard = past().heard
                message = heard[number % len(heard)][1]
                self._hear(self._fitted(message) if fits else message)
            case ("waits", float(seconds)):
                self.scene.clock.advance(seconds)
                self.alice.core.tick()
                self._look()
                self._others()
            case ("writes", str(who), str(to)):
                self._texts += 1
                speak(self.copy.said, self.alice if who == "alice" else self.bob, to, f"{who} to {to} {self._texts}")
                self._look()
                self._others()
            case ("cuts",):
                self._disconnect()
            case ("dies",):
                self._disconnect()
                self.alice.dies()

    def _connect(self) -> None:
        self._enemy = self.network.connect(b"e" * 32)
        self.asked.clear()
        self.alice.core._request = 0
        self.alice.core.opened(self._enemy.binding)
        self._look()

    def _disconnect(self) -> None:
        if self._enemy is not None:
            self._enemy.close()
            self._enemy = None
        self.alice.core.closed()
        self._look()

    @property
    def _heard(self) -> deque[bytes]:
        """What the honest server has said and is on its way."""
        return deque() if self._enemy is None else self._enemy.heard

    def _hear(self, message: ServerMessage) -> None:
        """As bytes: what a decoder refuses does not get this far, and ends the connection."""
        try:
            message = wire.decode_server_message(wire.encode(message))
        except ProtocolError:
            self._disconnect()
            return
        if isinstance(message, wire.Accepted | wire.Error) and isinstance(message.re, int):
            for asked in self.asked:
                if isinstance(asked, wire.Send | wire.GroupSend) and asked.id == message.re:
                    self.accepted.add(asked.n)
        self.alice.core.receive(message)
        self._look()
        self._others()

    def _others(self) -> None:
        """Bob talks to the network, which is honest to him."""
        while self.bob.exchange():
            pass

    def _fitted(self, message: Any) -> ServerMessage:
        """The same, as an answer to something that was asked, or as the next in number."""
        live = self.alice.core._parts.live
        if isinstance(message, wire.Message) and live is not None:
            message = msgspec.structs.replace(message, k=live.last_k + 1)
        if isinstance(message, wire.LogAnswer):
            message = msgspec.structs.replace(message, start=self.alice.core._parts.witness.size)
        ids = [asked.id for asked in self.asked if hasattr(asked, "id")]
        if isinstance(getattr(message, "re", None), int) and ids:
            message = msgspec.structs.replace(message, re=ids[-1 - message.re % min(4, len(ids))])
        fitting: ServerMessage = message
        return fitting

    # --- what must be so -------------------------------------------------------------------------------------------

    def _look(self) -> None:
        core = self.alice.core
        for message in core.take_messages():
            line = wire.encode(message)
            assert len(line) <= wire.MAX_LINE
            self._check_said(wire.decode_client_message(line))
            if self._enemy is not None:
                self.asked.append(message)
                self._enemy.say(line)
        for event in core.take_events():
            msgspec.json.encode(event)
            if isinstance(event, MessageReceived):
                self._check_received(event)
            if isinstance(event, LogAlarm):
                self.alarms.append(event)
        self._check_history()
        self._check_outbox()
        if core.wants_close is not None and self._enemy is not None:
            self._disconnect()

    def _check_said(self, message: wire.ClientMessage) -> None:
        """Nothing is sealed for anybody but the recipient's devices and one's own others; of a group, for its
        members'."""
        if not isinstance(message, wire.Send | wire.GroupSend):
            return
        row = self.alice.vault.execute("SELECT user FROM outbox WHERE n = ?", (message.n,)).fetchone()
        if isinstance(message, wire.GroupSend):
            assert row[0] == f"#{message.group}"
            return
        # The keys of a group are sent to all who are in it: alice and bob, whatever the server says.
        users = ("alice", "bob") if row[0] == f"!{past().group[1:]}" else ("alice", row[0])
        allowed = {one for one, device in self.network.devices.items() if device.user in users}
        assert {recipient.device for recipient in message.to} <= allowed - {self.alice.device}

    def _check_received(self, event: MessageReceived) -> None:
        device, _, n = event.id.partition(".")
        who, to, text = self.copy.said[device, int(n)]
        assert event.id not in self.received, "shown twice"
        self.received.add(event.id)
        assert (event.sender, event.text) == (who, text)
        assert event.conversation == (to if event.own or to.startswith("#") else who)
        assert event.own == (who == "alice")

    def _rows(self) -> dict[tuple[str, int], tuple[Any, ...]]:
        rows = self.alice.vault.execute(
            "SELECT device, n, conversation, sender, own, at, text, unreadable, state FROM messages"
        )
        return {(row[0], row[1]): row[2:] for row in rows}

    def _check_history(self) -> None:
        """What was there stays; what is new is true. A placeholder may go, or be filled."""
        rows = self._rows()
        for name, before in self._history.items():
            now = rows.get(name)
            if not before[5]:
                assert now is not None, f"{name} is gone"
                assert now[:6] == before[:6], f"{name} was {before}, is {now}"
                assert _may_follow(before[6], now[6]), f"{name} was {before[6]}, is {now[6]}"
        for (device, n), row in rows.items():
            if not row[5] and (device, n) not in self._history:
                who, to, text = self.copy.said[device, n]
                assert (row[1], row[4], row[2]) == (who, text, int(who == "alice"))
                assert row[0] == (to if row[2] or to.startswith("#") else who)
        self._history = rows

    def _states(self) -> dict[int, tuple[Any, ...]]:
        rows = self.alice.vault.execute("SELECT n, user, device, content, at, shown, state FROM outbox")
        return {row[0]: row[1:] for row in rows}

    def _check_outbox(self) -> None:
        """What waits stays, and is not taken for accepted before its `send` was answered."""
        states = self._states()
        for n, before in self._outbox.items():
            assert n in states, f"{n} is gone from the outbox"
            assert states[n][:5] == before[:5]
            if before[5] < 2 <= states[n][5]:
                alone = before[0] == "alice" or states[n][5] == 3
                assert n in self.accepted or alone, f"{n} counts as accepted without having been sent"
        self._outbox = states

    # --- afterwards ------------------------------------------------------------------------------------------------

    def ends(self) -> None:
        """An honest network again, in which bob and alice talk as before."""
        self._disconnect()
        vault = self.alice.vault
        if vault.alarm():
            # Nothing is sent once the server has contradicted itself, until a person decides; that is kept.
            assert any(alarm.proof for alarm in self.alarms)
            with vault.transaction():
                vault.put("alarm", None)
        self.alice.dies()
        self.bob.disconnects()
        for person in (self.alice, self.bob):
            person.connects()
        self.scene.pass_time(2)
        self._look_honest()
        after = [
            speak(self.copy.said, self.alice, "bob", "after it all"),
            speak(self.copy.said, self.bob, "alice", "yes"),
        ]
        for _ in range(6):
            if "after it all" in self.bob.reads("alice") and "yes" in self.alice.reads("bob"):
                break
            self.scene.pass_time(61, step=20)
        self._look_honest()
        assert "after it all" in self.bob.reads("alice"), "bob is not reached any more"
        assert "yes" in self.alice.reads("bob"), "bob is not heard any more"
        assert self.alice.vault.state_of(after[0]) in (State.ACCEPTED, State.DELIVERED, State.READ)
        self._check_open()

    def _look_honest(self) -> None:
        for event in self.alice.events:
            if isinstance(event, MessageReceived):
                self._check_received(event)
        self.alice.events.clear()
        self._check_history()

    def _check_open(self) -> None:
        """Whatever waited for bob has gone or has failed, and what failed is shown as that."""
        waiting = [n for n, row in self._states().items() if row[5] < 2 and row[0] == "bob"]
        assert not waiting, f"{waiting} still wait"


def _may_follow(before: str, now: str) -> bool:
    order = ["waiting", "accepted", "delivered", "read"]
    if before == now or (before, now) == ("waiting", "failed"):
        return True
    return before in order and now in order and order.index(before) < order.index(now)


def changed(message: Any, other: Any, number: int) -> ServerMessage:
    """`message` with one field of `other`, if they have one in common."""
    names = [name for name in message.__struct_fields__ if hasattr(other, name)]
    if not names:
        return message  # type: ignore[no-any-return]
    name = names[number % len(names)]
    try:
        return msgspec.structs.replace(message, **{name: getattr(other, name)})  # type: ignore[no-any-return]
    except TypeError:
        return message  # type: ignore[no-any-return]


def check(moves: list[tuple[Any, ...]]) -> None:
    with clean_log():
        world = World()
        try:
            for move in moves:
                world.does(move)
            world.ends()
        finally:
            world.copy.close()


# --- what is drawn ---------------------------------------------------------------------------------------------------


def _vocabulary() -> Values:
    old = past()
    network = old.scene.network
    heard = [message for _, message in old.heard]
    chains = [tuple(account.links) for account in network.accounts.values()]
    bundles = [
        bundle for one in heard if isinstance(one, wire.KeysAnswer) for keys in one.accounts for bundle in keys.bundles
    ]
    accounts = [keys for one in heard if isinstance(one, wire.KeysAnswer) for keys in one.accounts]
    name, kept = next((name, device) for name, device in network.devices.items() if device.user == "mallory")
    assert kept.seal is not None
    assert kept.fallback is not None
    mallory = wire.Bundle(name, kept.seal, kept.fallback, kept.one_time[0])
    accounts.append(wire.AccountKeys("bob", old.impostor, (mallory,)))
    accounts += [wire.AccountKeys("bob", chain, ()) for chain in (*chains, old.impostor, *(one[:1] for one in chains))]
    leaves = [b"".join(network.leaves[start:]) for start in range(0, len(network.leaves), 2)] + network.leaves
    assert all(replay(user, account.links) for user, account in network.accounts.items())
    return Values(
        {
            wire.Name: ["alice", "bob", "carol", "mallory", "nobody"],
            wire.DeviceId: list(network.devices),
            wire.GroupId: list(network.groups.chains),
            wire.Signed: [link for chain in chains for link in chain]
            + [bundle.seal for bundle in bundles]
            + [statement for chain in network.groups.chains.values() for statement in chain],
            (wire.GroupLogAnswer, "statements"): [
                tuple(chain[start:]) for chain in network.groups.chains.values() for start in range(len(chain))
            ],
            (wire.GroupNews, "position"): list(range(8)),
            wire.Bundle: bundles,
            wire.AccountKeys: accounts,
            wire.Checkpoint: [network.checkpoint(size) for size in range(len(network.leaves) + 1)],
            (wire.LogAnswer, "leaves"): leaves,
            (wire.Message, "body"): [one.body for one in heard if isinstance(one, wire.Message)] + [Raw(b'""')],
            (wire.Whispered, "body"): [one.body for one in heard if isinstance(one, wire.Message)],
            (wire.Message, "n"): list(range(1, 12)),
            (wire.Error, "code"): ["busy", "internal", "unknown-device", "rate-limited", "name-taken", "chain-invalid"],
            wire.SessionLimits: [one.limits for one in heard if isinstance(one, wire.Welcome)],
        }
    )


@cache
def _inputs() -> st.SearchStrategy[list[tuple[Any, ...]]]:
    old = past()
    messages = _vocabulary().message(wire.ServerMessage)
    passes = st.tuples(st.just("passes"), st.integers(1, 5))
    move = st.one_of(
        passes,
        passes,
        st.tuples(st.just("invents"), messages, st.booleans()),
        st.tuples(st.just("changes"), messages, st.integers(0, 9)),
        st.tuples(st.just("repeats"), st.integers(0, 9999), st.booleans()),
        st.sampled_from([("drops",), ("swaps",), ("cuts",), ("dies",)]),
        st.tuples(st.just("waits"), st.sampled_from((1.0, 1.0, 3.0, 61.0, 400.0))),
        st.tuples(
            st.just("writes"),
            st.sampled_from(("alice", "bob")),
            st.sampled_from(("bob", "alice", "mallory", "nobody", old.group)),
        ),
    )
    # Half of them are logged in when it begins.
    begins = st.sampled_from(([], [("passes", 5), ("passes", 5)]))
    return st.builds(list.__add__, begins, st.lists(move, max_size=9) | st.lists(move, min_size=10, max_size=30))


TARGETS = (Target("client", _inputs, check, 25),)
