"""Groups between cores over the memory network, which lies as a test tells it to; and people who try what they have.

alice, bob = self.people("alice", "bob")
team = self.group(alice, bob)
alice.says(team, "hello")
self.scene.settle()
texts(bob, team) == ["alice: hello"]
"""

from __future__ import annotations

from typing import Any

from msgspec import Raw

from fastchat.identity import groups as chains
from fastchat.protocols import wire
from fastchat.protocols.wire import ServerMessage, Signed
from fastchat_client import ratchet
from fastchat_client.content import encode_content
from fastchat_client.events import GroupAlarm, MessageWaiting
from fastchat_client.group_acting import InviteAct, JoinAct
from fastchat_client.groups import group_of
from fastchat_client.megolm import InboundGroup, is_group_body, read_group_body
from fastchat_client.unreadable import Unreadable
from tests.support.conversation import Person, SceneTest
from tests.support.groups import Actor


def texts(person: Person, conversation: str) -> list[str]:
    """What a person's history shows of a group, in its order; "?" for what waits or cannot be read."""
    items = person.vault.history(conversation, 1000)
    return [f"{item.sender}: {'?' if item.unreadable else item.text}" for item in items]


def alarms(person: Person) -> list[str]:
    """The codes of all that were told."""
    return [event.code for event in person.told(GroupAlarm)]


def waiting(person: Person) -> int:
    return len(person.told(MessageWaiting))


def actor_of(person: Person) -> Actor:
    """Somebody's device as one that signs whatever a test wants."""
    return Actor.holding(person.core._parts.me, person.core._parts.prekeeper.account.sign)


class GroupSceneTest(SceneTest):
    """`ciphertexts`: every group body that anybody has sent, with its sender's device."""

    def people(self, *names: str) -> list[Person]:
        found = [self.scene.person(name) for name in names]
        self.scene.settle()
        return found

    def group(self, owner: Person, *members: Person, history: int = 0) -> str:
        """A new one that all of these have joined; its conversation."""
        _, conversation = owner.core.group_create("team")
        self.scene.settle()
        for member in members:
            self.brings(conversation, owner, member, history)
        return conversation

    def brings(self, conversation: str, inviter: Person, member: Person, history: int = 0) -> None:
        self.acts(inviter, conversation, InviteAct(member.name, history))
        self.acts(member, conversation, JoinAct())

    def acts(self, person: Person, conversation: str, act: Any) -> int:
        number = person.core.group_act(conversation, act)
        self.scene.settle()
        return number

    def says(self, person: Person, conversation: str, *lines: str) -> None:
        for line in lines:
            person.says(conversation, line)
        self.scene.settle()

    def chain(self, conversation: str) -> list[Signed]:
        return self.network.groups.chains[group_of(conversation)]

    def state(self, conversation: str, person: Person) -> chains.GroupState:
        """The group as this person believes it to be."""
        known = person.core._parts.groups.get(group_of(conversation))
        assert known is not None
        return known.state

    # --- what a server may do ----------------------------------------------------------------------------------------

    def pushes(self, person: Person, message: ServerMessage) -> None:
        """As bytes: what a decoder refuses does not get this far."""
        person.core.receive(wire.decode_server_message(wire.encode(message)))
        self.scene.settle()

    def news(self, person: Person, conversation: str, signed: Signed) -> None:
        position = chains.read(signed).position
        self.pushes(person, wire.GroupNews(group_of(conversation), position, signed))

    def hands_over(self, to: Person, user: str, device: str, n: int, body: bytes) -> None:
        """A message that is said to be of `device` of `user`."""
        raw = wire.encode(body)
        self.network.post_from(to.device, user, device, n, int(self.scene.clock.seconds() * 1000), raw)
        self.scene.settle()

    def seals(self, sender: Person, to: Person, content: Any) -> None:
        """`sender` says something to all devices of `to` that their client would not say."""
        with sender.core._turn():
            sender.core._parts.outbox.compose(to.name, to.device, encode_content(content), sender.core._parts.now())
            sender.core._pump()
        self.scene.settle()

    # --- what was sent -----------------------------------------------------------------------------------------------

    def ciphertexts(self) -> list[bytes]:
        """Every group body that anybody has sent."""
        bodies = [said.body for _, said in self.network.requests if isinstance(said, wire.GroupSend)]
        return [ratchet.body_from_wire(Raw(bytes(body))) for body in bodies]

    def keys_sent_to(self, device: str, since: int = 0) -> int:
        """How many sealed messages went to a device. `since`: so many sends were there before."""
        return sum(recipient.device == device for _, send in self.network.sends[since:] for recipient in send.to)

    def readable_by(self, person: Person) -> list[bytes]:
        """What of all ciphertexts a person can decrypt, with every key in their vault, handed each of them."""
        vault, key = person.vault, person.vault.blob("pickle_key")
        rows = vault.execute("SELECT pickle FROM group_sessions").fetchall()
        sessions = [InboundGroup.load(pickle, key) for (pickle,) in rows]
        found = []
        for body in self.ciphertexts():
            assert is_group_body(body)
            for session in sessions:
                try:
                    found.append(session.decrypt(read_group_body(body).message)[0])
                    break
                except Unreadable:
                    continue
        return found
