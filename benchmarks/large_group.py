"""What a group of a thousand costs the client of the one who runs it: `python -m benchmarks.large_group [MEMBERS]`.

The owner is the real client, in memory with real sessions of the service; the members are accounts with real keys whose
devices are away, so that every key and every message is made, sealed and stored for each of them. CPU time is that of
the owner's client alone, its vault on disk included; what the server pays is measured by `python -m benchmarks group`.
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastchat.identity.groups import Join, Leave, extend, read, sign
from fastchat.identity.keylog import leaf
from fastchat.identity.links import sign_add_device, sign_genesis
from fastchat.protocols.wire import GroupAct, GroupSend, Send, Signed, encode
from fastchat.store import Account, Device
from fastchat_client.group_acting import InviteAct
from fastchat_client.groups import group_of
from tests.support.joined import INVITE, Net, Person, invite_digest, now
from tests.support.keys import root_key
from tests.support.people import AT, OwnDevice, verifier_of

MEMBERS = 999
"""Besides the owner."""
AT_ONCE = 64
"""Messages that the client hears before it says what came of them: a window."""


class Meter:
    """Takes the CPU time that the owner's core uses, and counts what it says."""

    def __init__(self, person: Person) -> None:
        self.cpu = 0.0
        self.said: list[Any] = []
        self._depth = 0
        for name in ("receive", "tick", "compose", "take_events", "opened", "closed"):
            setattr(person.core, name, self._metered(getattr(person.core, name)))
        take = self._metered(person.core.take_messages)

        def take_messages() -> list[Any]:
            messages: list[Any] = take()
            self.said += messages
            return messages

        person.core.take_messages = take_messages  # type: ignore[method-assign]

    def _metered(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def metered(*args: Any, **kwargs: Any) -> Any:
            began, self._depth = time.process_time(), self._depth + 1
            try:
                return function(*args, **kwargs)
            finally:
                self._depth -= 1
                if not self._depth:
                    self.cpu += time.process_time() - began

        return metered


class Group:
    """The owner, and members who say `join` and `leave` with their own keys."""

    def __init__(self, net: Net, owner: Person, members: int) -> None:
        self.net = net
        self.owner = owner
        self.devices = [_account(net, f"member-{number}") for number in range(members)]
        self.meter = Meter(owner)
        _, self.conversation = owner.core.group_create("thousand")
        owner.flush()
        self.settle()

    def settle(self) -> None:
        self.net.settles()
        for _ in range(400):
            self.net.passes(seconds=1)
            if not self.owner.vault.waiting() and not self._acts_wait():
                break
        self.net.settles()

    def _acts_wait(self) -> bool:
        return bool(self.owner.vault.execute("SELECT 1 FROM group_acts WHERE state = 0 LIMIT 1").fetchone())

    def invite(self) -> None:
        for device in self.devices:
            self.owner.core.group_act(self.conversation, InviteAct(device.identity.user, 0))
        self.owner.flush()
        self.settle()

    def join(self) -> None:
        for device in self.devices:
            self._says(device, Join)
        self.settle()

    def leave(self) -> None:
        self._says(self.devices[0], Leave)
        self.settle()

    def send(self) -> None:
        self.owner.core.send_text(self.conversation, "hello, all thousand of you")
        self.owner.flush()
        self.settle()

    def _says(self, device: OwnDevice, kind: type[Join | Leave]) -> None:
        group, identity = group_of(self.conversation), device.identity
        row = now(self.net.memory.group(group))
        assert row is not None
        statement = kind(
            group=group, position=row.length, prev=row.head, user=identity.user, device=identity.device, at=AT
        )
        signed = sign(device.ed25519.sign, statement)
        known = Device(identity.device, identity.user, identity.ed25519, identity.curve25519)
        now(self.net.groups.act(known, group, signed))


def _account(net: Net, user: str) -> OwnDevice:
    root, device = root_key(sum(user.encode()) % 6), OwnDevice(user, "first")
    identity = device.identity
    links = [sign_genesis(root, user)]
    links.append(sign_add_device(root, links, user, identity.ed25519, identity.curve25519, AT))
    now(
        net.memory.register(
            Account(user, root.public_pem, verifier_of("x", b"0" * 16, iterations=4096)),
            Device(identity.device, user, identity.ed25519, identity.curve25519),
            links,
            device.keys(one_time=1),
            [leaf(user, position, link) for position, link in enumerate(links)],
            invite_digest(INVITE),
        )
    )
    return device


def main() -> None:
    members = int(sys.argv[1]) if len(sys.argv) > 1 else MEMBERS
    with tempfile.TemporaryDirectory() as folder:
        net = Net(
            Path(folder) / "net",
            sends_per_second=1000.0,
            sends_burst=1000,
            claims_burst=5000,
            group_acts_per_second=1e6,
        )
        owner = net.person("owner")
        net.settles()
        group = Group(net, owner, members)
        meter = group.meter
        print(f"{'the owner of a group of ' + str(members + 1):<58}{'CPU ms':>10}{'lines':>8}{'KiB sent':>10}")
        for what, step in (
            ("invites everybody (a statement and a title for each)", group.invite),
            ("hears of every join, and checks whose it is", group.join),
            ("first message: sessions, and the key for every device", group.send),
            ("the next message: one ciphertext", group.send),
            ("hears that somebody leaves", group.leave),
            ("the message after that: a new key for every device", group.send),
            ("the next message: one ciphertext", group.send),
        ):
            meter.cpu, meter.said = 0.0, []
            step()
            sent = [message for message in meter.said if isinstance(message, Send | GroupSend | GroupAct)]
            size = sum(len(encode(message)) for message in sent)
            print(f"{what:<58}{meter.cpu * 1e3:>10.1f}{len(sent):>8}{size / 1024:>10.1f}", flush=True)
        _follow(net, group)
        print(f"memory of this process at most: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024} MiB")
        net.ends()


def _follow(net: Net, group: Group) -> None:
    """What it costs somebody new to check the whole chain, signatures and rules."""
    statements: list[Signed] = list(now(net.memory.group_statements(group_of(group.conversation), 0, 100_000)))
    keys = {device.identity.user: device.identity.ed25519 for device in group.devices}
    keys[group.owner.name] = group.owner.core._parts.me.ed25519
    began, state = time.process_time(), None
    for signed in statements:
        state = extend(state, signed, keys[read(signed).user])
    used = time.process_time() - began
    print(f"{f'a newcomer checks {len(statements):,} statements':<58}{used * 1e3:>10.1f}")


if __name__ == "__main__":
    main()
