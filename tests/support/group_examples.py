"""The example of PROTOCOL.md about a group: what two clients and the service say to each other."""

from __future__ import annotations

from msgspec import Raw

from fastchat.identity.groups import read
from fastchat.protocols import wire
from tests.support.groups import Actor, GroupChain

BODY = Raw(b'"Ag=="')


def converse(alice: Actor, bob: Actor) -> list[tuple[str, bytes]]:
    """Who says it (C: a client, S: the service), and the line."""
    lines: list[tuple[str, bytes]] = []

    def client(message: wire.ClientMessage) -> None:
        lines.append(("C", wire.encode(message)))

    def server(message: wire.ServerMessage) -> None:
        lines.append(("S", wire.encode(message)))

    chain = GroupChain(alice)
    group = chain.state.group
    client(wire.GroupAct(1, group, chain.statements[0]))
    server(wire.GroupDone(1, 1))
    invite = alice.invite(chain.state, "bob")
    assert read(invite)
    client(wire.GroupAct(2, group, invite))
    server(wire.GroupDone(2, 2))
    server(wire.GroupNews(group, 1, invite))
    client(wire.GroupsRequest(1))
    server(wire.GroupsAnswer(1, (wire.GroupLength(group, 2),)))
    client(wire.GroupLogRequest(2, group, 0))
    server(wire.GroupLogAnswer(2, group, 0, 2, (chain.statements[0], invite)))
    client(wire.GroupSend(3, 1, group, 2, BODY))
    client(wire.Whisper((wire.Recipient(bob.device, BODY),)))
    client(wire.GroupWhisper(group, BODY))
    server(wire.Whispered("alice", alice.device, BODY))
    return lines
