"""What one delivery of a message to a group costs the server, against one of a message to one person, in one run.

`python -m benchmarks fan-out`. Windows of both loads take turns on the same connections, so that whatever else the
machine does falls on both. It is counted until the last receipt and the last `accepted`.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Sequence
from itertools import cycle
from typing import Any

from benchmarks.accounts import Device
from benchmarks.clients import Client, make_body
from benchmarks.measurements import WARM_SECONDS, Bench, Row
from fastchat.identity.groups import Create, GroupState, Invite, Join, Leave, Statement, Title, extend, sign, title_hash
from fastchat.protocols.wire import GroupAct, GroupDone, GroupNews, ServerMessage, encode

MEMBERS = 100
"""Who are online, besides the one who sends."""
WINDOWS = 4
"""Of each load in a run."""
MANY = 1000
"""Members of a large group, with the one who runs it."""
MESSAGES = 10

_GROUP_SEND = b'{"t":"group_send","id":%d,"n":%d,"group":"%s","length":%d,"body":%s}\n'


class Member(Client):
    """A client that acts in groups, and sends to them."""

    done = 0
    """Acts that the server has committed."""

    def _other(self, message: ServerMessage) -> None:
        if isinstance(message, GroupDone):
            self.done += 1
        elif not isinstance(message, GroupNews):
            super()._other(message)

    def send_to_group(self, group: GroupState, body: bytes, count: int = 1) -> None:
        lines = []
        for _ in range(count):
            self.device.n += 1
            self.sent += 1
            lines.append(_GROUP_SEND % (self.sent, self.device.n, group.group.encode(), group.length, body))
        self.say(b"".join(lines))


def found(bench: Bench, owner: Member, members: Sequence[Member]) -> GroupState:
    """A group of these, by their own acts."""
    state = _act(bench, owner, None, _create(owner.device))
    for member in members:
        state = _invite(bench, owner, state, member)
        state = _act(bench, member, state, Join(**_place(state, member.device)))
    return state


def _invite(bench: Bench, owner: Member, state: GroupState, member: Member) -> GroupState:
    return _act(bench, owner, state, Invite(**_place(state, owner.device), who=member.device.user, history=0))


def _act(bench: Bench, member: Member, state: GroupState | None, statement: Statement) -> GroupState:
    signed = sign(member.device.sign, statement)
    state = extend(state, signed, member.device.ed25519)
    before = member.done
    member.say(encode(GroupAct(before, state.group, signed)) + b"\n")
    bench.loop.run_until(lambda: member.done > before)
    return state


def _create(device: Device) -> Create:
    title = title_hash(Title(salt=bytes(32), name="a group", topic=""))
    return Create(position=0, prev=b"", user=device.user, device=device.id, at=0, nonce=os.urandom(16), title=title)


def _place(state: GroupState, device: Device) -> dict[str, Any]:
    return {
        "group": state.group,
        "position": state.length,
        "prev": state.head,
        "user": device.user,
        "device": device.id,
        "at": 0,
    }


def fan_out(bench: Bench, size: int, in_flight: int) -> list[Row]:
    """`in_flight` messages are on their way: of the one who writes to the group, and of each of `MEMBERS / 2` pairs."""
    devices = bench.add_accounts(1)
    clients = log_in(bench, [*devices, *bench.devices[:MEMBERS]])
    owner, members = clients[0], clients[1:]
    group = found(bench, owner, members)
    pairs = list(zip(members[::2], members[1::2], strict=True))
    bench.loop.run(WARM_SECONDS)
    stored = bench.server.totals()[2]
    body = make_body(size)
    flowing = [False]

    for sender, recipient in pairs:

        def refill(accepted: int, sender: Member = sender, to: Device = recipient.device) -> None:
            if flowing[0]:
                sender.send(to, body, accepted)

        sender.on_accepted = refill

    def refill_group(accepted: int) -> None:
        if flowing[0]:
            owner.send_to_group(group, body, accepted)

    owner.on_accepted = refill_group

    def to_one() -> None:
        for sender, recipient in pairs:
            sender.send(recipient.device, body, in_flight)

    def to_all() -> None:
        owner.send_to_group(group, body, in_flight)

    def window(begin: Callable[[], None]) -> tuple[float, float]:
        """Seconds of CPU for one delivery, and deliveries a second."""
        before, cpu, began = sum(each.messages for each in members), bench.server.cpu(), time.monotonic()
        flowing[0] = True
        begin()
        bench.loop.run(bench.seconds / 2)
        flowing[0] = False
        bench.loop.run_until(lambda: all(each.accepted == each.sent for each in clients))
        used, elapsed = bench.server.cpu().since(cpu), time.monotonic() - began
        deliveries = sum(each.messages for each in members) - before
        return used.twistd / deliveries, deliveries / elapsed

    for begin in (to_one, to_all):
        window(begin)
    costs: tuple[list[float], list[float]] = ([], [])
    rates: tuple[list[float], list[float]] = ([], [])
    for _ in range(WINDOWS * bench.runs):
        for which, begin in enumerate((to_one, to_all)):
            cost, rate = window(begin)
            costs[which].append(cost)
            rates[which].append(rate)
    ratios = sorted(many / one for one, many in zip(*costs, strict=True))
    note = bench.stored_since(stored)
    bench.log_out(clients)
    one, many = (statistics.median(cost) * 1e6 for cost in costs)
    ratio = (
        f"{statistics.median(ratios):.2f} of one to one ({ratios[0]:.2f} to {ratios[-1]:.2f} in {len(ratios)} pairs)"
    )
    what = f"{size} B, {in_flight} on their way"
    return [
        Row(f"one to one, {what}", f"{statistics.median(rates[0]):,.0f}/s", "us", one, 0.0),
        Row(f"to {MEMBERS} in a group, {what}", f"{statistics.median(rates[1]):,.0f}/s", "us", many, 0.0, ratio + note),
    ]


def thousand(bench: Bench, size: int) -> list[Row]:
    """What each step of a group of `MANY` costs: its making, a message to all of them, who leaves, and a message that
    nobody is there for."""
    devices = bench.add_accounts(MANY)
    clients = log_in(bench, devices)
    owner, members = clients[0], clients[1:]
    body = make_body(size)
    rows = []
    state = _act(bench, owner, None, _create(owner.device))

    def step(what: str, times: int, unit: int, act: Callable[[], None]) -> None:
        cpu, began = bench.server.cpu(), time.monotonic()
        act()
        used, elapsed = bench.server.cpu().since(cpu), time.monotonic() - began
        costs = used.twistd / unit * 1e6, used.postgres / unit * 1e6
        rows.append(Row(f"a group of {MANY:,}: {what}", f"{elapsed / times * 1e3:.2f} ms each", "us", *costs))

    def invite() -> None:
        nonlocal state
        for member in members:
            state = _invite(bench, owner, state, member)

    def join() -> None:
        nonlocal state
        for member in members:
            state = _act(bench, member, state, Join(**_place(state, member.device)))

    def leave() -> None:
        nonlocal state
        state = _act(bench, members[0], state, Leave(**_place(state, members[0].device)))

    def send() -> None:
        for _ in range(MESSAGES):
            owner.send_to_group(state, body)
            bench.loop.run_until(lambda: owner.accepted == owner.sent)

    step("an invitation", len(members), len(members), invite)
    step("a join, of which all hear", len(members), len(members), join)
    bench.loop.run(WARM_SECONDS)
    stored = bench.server.totals()[2]
    step("a message, per device that is there", MESSAGES, MESSAGES * len(members), send)
    note = bench.stored_since(stored)
    step("one leaves, of which all hear", 1, 1, leave)
    for member in members:
        member.close()
    while bench.server.totals()[0] > 1:
        bench.loop.run(0.05)
    stored = bench.server.totals()[2]
    step("a message, per device that is away", MESSAGES, MESSAGES * (len(members) - 1), send)
    if bench.server.totals()[2] - stored != MESSAGES * (len(members) - 1):
        raise RuntimeError("what was accepted is not in the mailboxes")
    bench.log_out([owner])
    rows[2] = rows[2]._replace(note=rows[2].note + note)
    return rows


def log_in(bench: Bench, devices: Sequence[Device], at_once: int = 100) -> list[Member]:
    """All of them, spread over the services in turn."""
    ports = cycle(bench.server.service_ports)
    clients: list[Member] = []
    for start in range(0, len(devices), at_once):
        clients += [Member(bench.loop, next(ports), device) for device in devices[start : start + at_once]]
        bench.loop.run_until(lambda: all(client.ready for client in clients))  # noqa: B023
    return clients
