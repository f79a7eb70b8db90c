"""What becomes of a content that was read: what people say goes into the history, what devices say of it is noted.

It is given what is proven by then: which device said it, where, and under which number; whether it came to this account
alone or in a group makes no difference here. It knows no wire, no ratchets and no keys.
"""

from __future__ import annotations

from dataclasses import dataclass

from fastchat.identity.links import DeviceIdentity
from fastchat_client import history
from fastchat_client.content import Content, Delivered, Read, Text
from fastchat_client.events import MessageReceived, MessageState, State, iso
from fastchat_client.parts import Parts


@dataclass(frozen=True, slots=True)
class Said:
    """Who said something, where and when. `conversation`: as it is called here, the peer's name or "#" and the id of a
    group. `own`: on another device of this account. `at`: milliseconds since 1970, by the sender's clock. `earlier`:
    before this account joined the group."""

    sender: DeviceIdentity
    n: int
    conversation: str
    own: bool
    at: int
    earlier: bool = False

    @property
    def id(self) -> str:
        return f"{self.sender.device}.{self.n}"


class Understanding:
    """Writes need a transaction around them."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def take(self, said: Said, content: Content) -> None:
        """Note what was said, and tell of it. What is between devices only (keys, retries) is not for here."""
        match content:
            case Text():
                self._text(said, content)
            case Delivered():
                self._marked(said.sender, content.ids, State.DELIVERED)
            case Read():
                self._marked(said.sender, content.ids, State.READ)

    def _text(self, said: Said, content: Text) -> None:
        user = said.sender.user
        arrived = history.Arrived(said.sender.device, said.n, said.conversation, user, said.at, content.text, said.own)
        history.add_received(self._parts.vault, arrived)
        self._parts.untold = True
        self._parts.tell(MessageReceived(user, said.conversation, content.text, iso(said.at), said.id, said.own))

    def _marked(self, sender: DeviceIdentity, ids: tuple[int, ...], state: State) -> None:
        """Only who a message went to can say that it is there."""
        vault, device = self._parts.vault, self._parts.me.device
        for n in ids:
            if history.is_to(vault, device, n, sender.user) and history.advance(vault, device, n, state):
                self._parts.tell(MessageState(f"{device}.{n}", sender.user, state))
