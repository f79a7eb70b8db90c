"""Groups for tests of the chaos run's checker: chains and messages as real vaults have them, without a network."""

from __future__ import annotations

from fastchat_client import history
from fastchat_client.content import GroupKeyRequest, encode_content
from fastchat_client.events import State
from fastchat_client.groups import Groups, conversation_of
from fastchat_client.inbox import Inbox
from fastchat_client.outbox import Outbox, keys_of
from fastchat_client.speaking import compose_text
from tests.chaos.texts import compose
from tests.support.groups import Actor, GroupChain
from tests.support.told import NOW, Told


class ToldGroup:
    """A group that `founder` has founded for `members`. Who is or was in it knows its chain to the end."""

    def __init__(self, told: Told, founder: str, *members: str) -> None:
        self.told = told
        self._founder = Actor(founder)
        self._chain = GroupChain.of(self._founder, *map(Actor, members))
        self._knowing: set[str] = set()
        self._spread()

    @property
    def conversation(self) -> str:
        return conversation_of(self._chain.group)

    @property
    def length(self) -> int:
        return self._chain.state.length

    def joins(self, user: str) -> None:
        self._chain.add(self._founder, self._founder.invite(self._chain.state, user))
        self._chain.add(Actor(user), Actor(user).join(self._chain.state))
        self._spread()

    def leaves(self, user: str) -> None:
        self._chain.add(Actor(user), Actor(user).leave(self._chain.state))
        self._spread()

    def say(self, sender: str, padding: str = "", *, accepted: bool = True) -> str:
        """The next text, as far as it goes without a fault; returns it."""
        told, place = self.told, self.conversation
        told.counters[sender, place] += 1
        text = compose(sender, place, told.counters[sender, place], padding)
        n = int(compose_text(told.vaults[sender], place, text, NOW).rpartition(".")[2])
        self.goes(sender, n)
        if accepted:
            self.accepts(sender, n)
            for user in self._chain.state.members:
                if user != sender:
                    self.arrives(user, sender, n, text)
        return text

    def goes(self, sender: str, n: int) -> None:
        """It leaves, by the chain as it is now."""
        vault = self.told.vaults[sender]
        with vault.transaction():
            Outbox(vault).sealed(n, [(self.conversation, b'""')], self.length)
        self.told.write(sender, {"went": n, "length": self.length})

    def accepts(self, sender: str, n: int) -> None:
        """The network does, for everybody."""
        vault = self.told.vaults[sender]
        with vault.transaction():
            outbox = Outbox(vault)
            message = outbox.get(n)
            assert message is not None
            outbox.accepted(message, NOW, outbox.devices(n))
            history.advance(vault, Told.device(sender), n, State.ACCEPTED)

    def arrives(self, user: str, sender: str, n: int, text: str) -> None:
        vault, device = self.told.vaults[user], Told.device(sender)
        with vault.transaction():
            Inbox(vault).take(device, n)
            history.add_received(vault, history.Arrived(device, n, self.conversation, sender, NOW, text, own=False))
        self.told.write(user, {"shown": text, "from": sender, "in": self.conversation, "id": f"{device}.{n}"})

    def keys(self, sender: str, *users: str) -> int:
        """A message with keys for these; its number."""
        vault = self.told.vaults[sender]
        content = encode_content(
            GroupKeyRequest(self._chain.group, bytes(32))
        )  # stands for a key: nobody looks into it
        with vault.transaction():
            n = Outbox(vault).compose_sealed(
                keys_of(self._chain.group), content, NOW, lambda _: [(Told.device(user), b'""') for user in users]
            )
        self.accepts(sender, n)
        return n

    def _spread(self) -> None:
        self._knowing |= self._chain.state.members.keys()
        for user in self._knowing & self.told.vaults.keys():
            vault = self.told.vaults[user]
            groups = Groups(vault)
            with vault.transaction():
                known = groups.length(self._chain.group)
                for actor, signed in list(zip(self._chain.actors, self._chain.statements, strict=True))[known:]:
                    groups.take(signed, actor.ed25519, self._chain.group if groups.length(self._chain.group) else "")
