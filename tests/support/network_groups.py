"""The memory network's groups: an honest server's, unless a test changes what is public here.

It trusts whoever is logged in and checks no signature: that is for the clients to do, and what the tests of them are
about.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from fastchat.errors import GroupChanged, UnknownGroup
from fastchat.identity import groups as chains
from fastchat.protocols import wire
from fastchat.protocols.wire import Signed

if TYPE_CHECKING:
    from tests.support.network import Line, Network


class Groups:
    """`show`: what a device is shown of a chain, instead of it. `outsiders`: devices that get a group's messages
    although they are in none. `takes_any`: messages that were encrypted by another length of the chain, too.
    `tells_news`: whether statements are pushed."""

    def __init__(self) -> None:
        self.chains: dict[str, list[Signed]] = {}
        self.show: Callable[[str, str, list[Signed]], Sequence[Signed]] = lambda device, group, chain: chain
        self.outsiders: dict[str, set[str]] = {}
        self.takes_any = False
        self.tells_news = True

    def state(self, group: str) -> chains.GroupState:
        return state_of(self.chains[group])

    def concerned(self, group: str) -> set[str]:
        """Whoever is in the group, is invited, or was in it."""
        found = set[str]()
        for signed in self.chains[group]:
            statement = chains.read(signed)
            found |= {statement.user, chains.subject(statement)} - {""}
        return found


def state_of(chain: Sequence[Signed]) -> chains.GroupState:
    """What a chain says, if nobody looks at signatures."""
    state: Any = None
    for signed in chain:
        statement = chains.read(signed)
        if state is None:
            assert isinstance(statement, chains.Create)
            state = chains.GroupState(
                chains.group_id(signed.body),
                1,
                b"",
                statement.title,
                {statement.user: chains.Member("owner", 1)},
                {},
                False,
            )
        else:
            state = replace(chains._changed(state, statement), length=state.length + 1)
    return state  # type: ignore[no-any-return]


def act(line: Line, request: wire.GroupAct) -> None:
    groups = line.network.groups
    chain = groups.chains.get(request.group, [])
    statement = chains.read(request.statement)
    if statement.position != len(chain):
        raise GroupChanged
    groups.chains[request.group] = [*chain, request.statement]
    if groups.tells_news:
        news = wire.GroupNews(request.group, statement.position, request.statement)
        for device, other in list(line.network.lines.items()):
            if line.network.devices[device].user in groups.concerned(request.group):
                other.tell(news)
    line.tell(wire.GroupDone(request.id, statement.position + 1))


def of(line: Line, request: wire.GroupsRequest) -> None:
    groups, user = line.network.groups, line.network.devices[line.device].user
    found = [
        wire.GroupLength(group, len(_shown(line, group))) for group in groups.chains if user in groups.concerned(group)
    ]
    line.tell(wire.GroupsAnswer(request.id, tuple(found)))


def log(line: Line, request: wire.GroupLogRequest) -> None:
    groups, user = line.network.groups, line.network.devices[line.device].user
    if request.group not in groups.chains or user not in groups.concerned(request.group):
        raise UnknownGroup
    shown = _shown(line, request.group)
    line.tell(wire.GroupLogAnswer(request.id, request.group, request.start, len(shown), tuple(shown[request.start :])))


def send(line: Line, request: wire.GroupSend) -> None:
    network = line.network
    groups, sender = network.groups, network.devices[line.device]
    if request.group not in groups.chains or sender.user not in groups.state(request.group).members:
        raise UnknownGroup
    if request.length != len(groups.chains[request.group]) and not groups.takes_any:
        raise GroupChanged
    at = int(network.seconds() * 1000)
    for device in _devices(network, request.group, line.device):
        if not request.devices or device in request.devices:
            network.post_from(device, sender.user, line.device, request.n, at, bytes(request.body))
    line.tell(wire.Accepted(request.id))


def whisper(line: Line, request: wire.GroupWhisper) -> None:
    network = line.network
    for device in _devices(network, request.group, line.device):
        if device in network.lines:
            user = network.devices[line.device].user
            network.lines[device].tell(wire.Whispered(user, line.device, request.body))


def _devices(network: Network, group: str, but: str) -> list[str]:
    members = network.groups.state(group).members
    found = [device for device, known in network.devices.items() if known.user in members]
    return [device for device in [*found, *network.groups.outsiders.get(group, ())] if device != but]


def _shown(line: Line, group: str) -> Sequence[Signed]:
    return line.network.groups.show(line.device, group, line.network.groups.chains[group])


ACTIONS: dict[type, Callable[[Any, Any], None]] = {
    wire.GroupAct: act,
    wire.GroupsRequest: of,
    wire.GroupLogRequest: log,
    wire.GroupSend: send,
    wire.GroupWhisper: whisper,
}
