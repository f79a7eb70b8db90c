"""Groups on the server, for tests: people who act through sessions of one service."""

from __future__ import annotations

from fastchat.accounts import device_row
from fastchat.groups import Groups
from fastchat.identity.groups import read
from fastchat.protocols import wire
from tests.support.calling import BODY, Peer, SessionCase
from tests.support.delivery import now
from tests.support.groups import Actor, GroupChain
from tests.support.people import OwnDevice


class GroupCase(SessionCase):
    """alice, bob and carol as in `SessionCase`, as actors too, and a group that they found together."""

    def setUp(self) -> None:
        super().setUp()
        self.actors = {name: Actor(name, person.device) for name, person in self.people.items()}

    @property
    def groups(self) -> Groups:
        return self.place.groups

    def group_of(self, owner: str, *members: str) -> GroupChain:
        """It is in the store, and every member has joined."""
        actors = [self.actors[name] for name in members]
        chain = GroupChain.of(self.actors[owner], *actors)
        devices = {actor.device: device_row(actor.identity) for actor in self.actors.values()}
        for statement in chain.statements:
            now(self.groups.act(devices[read(statement).device], chain.group, statement))
        return chain

    def acts(self, chain: GroupChain, name: str, statement: wire.Signed) -> None:
        """Without a session. Raises what `Groups.act` does; then the chain here is as before."""
        now(self.groups.act(device_row(self.actors[name].identity), chain.group, statement))
        chain.add(self.actors[name], statement)

    def to_all(self, peer: Peer, chain: GroupChain, n: int, *devices: str, length: int = 0) -> wire.GroupSend:
        """A message for the group, as a request; by the chain as it is, if no `length` is named."""
        return wire.GroupSend(peer.next_id(), n, chain.group, length or chain.state.length, BODY, devices)

    def second_device(self, name: str) -> OwnDevice:
        """A new device of somebody."""
        device, request = self.people[name].add_device("second")
        now(self.place.accounts.add_device(name, request))
        return device
