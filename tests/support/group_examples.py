"""The example of PROTOCOL.md about a group: what its founder and a member say to the service, and hear."""

from __future__ import annotations

from typing import Any

from msgspec import Raw

from fastchat.identity.groups import Create, Invite, Join, Remove, extend, group_id, sign, title_hash
from fastchat.protocols import wire
from tests.support.groups import title_of

BODY = Raw(b'"Ag=="')
"""Stands for a group body: the cryptography of one is no server's business."""


def converse(alice: Any, online: Any, bob: Any, member: Any, at: int) -> dict[str, str]:
    """`alice` and `bob`: devices (`protocol_examples.Device`), on the connections `online` and `member`. What is said
    stays there; answers with what the statements say."""
    found: dict[str, str] = {}
    title = title_of("the team", "what we are building")
    me, peer = alice.identity, bob.identity

    def acts(connection: Any, device: Any, signed: wire.Signed, state: Any) -> Any:
        group = state.group if state is not None else group_id(signed.body)
        connection.say(wire.GroupAct(connection.next_id(), group, signed))
        return extend(state, signed, device.identity.ed25519)

    def signed(device: Any, statement: Any) -> wire.Signed:
        name = type(statement).__struct_config__.tag
        result = sign(device.account.sign, statement)
        found[name] = result.body.decode()
        return result

    def place(state: Any, identity: Any) -> dict[str, Any]:
        where = {"group": state.group, "position": state.length, "prev": state.head}
        return {**where, "user": identity.user, "device": identity.device, "at": at}

    found["title"] = wire.encode(title).decode()
    create = Create(
        position=0, prev=b"", user="alice", device=me.device, at=at, nonce=bytes(range(16)), title=title_hash(title)
    )
    state = acts(online, alice, signed(alice, create), None)
    found["group"] = state.group
    state = acts(online, alice, signed(alice, Invite(**place(state, me), who="bob", history=7)), state)
    member.say(wire.GroupsRequest(member.next_id()))
    member.say(wire.GroupLogRequest(member.next_id(), state.group, 0))
    state = acts(member, bob, signed(bob, Join(**place(state, peer))), state)
    online.say(wire.GroupWhisper(state.group, BODY))
    member.say(wire.Whisper((wire.Recipient(me.device, BODY),)))
    online.say(wire.GroupSend(online.next_id(), 2, state.group, state.length, BODY))
    member.say(wire.Received(2))
    acts(online, alice, signed(alice, Remove(**place(state, me), who="bob")), state)
    member.say(wire.GroupSend(member.next_id(), 1, state.group, state.length, BODY))
    return found
