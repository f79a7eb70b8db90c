"""What was said before one joined, as it is handed on by whoever has invited one.

By the chain it is theirs to give, so it waits until the chain is known. Who wrote what is proven by what is handed on,
and is looked at when it is read (`group_receiving`); until then nothing of it stands in anything's way.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from fastchat.identity.links import DeviceIdentity
from fastchat_client.content import GroupHistory, encode_content
from fastchat_client.group_bodies import Waits
from fastchat_client.group_following import GroupFollower
from fastchat_client.group_keys import claimed
from fastchat_client.megolm import read_group_body
from fastchat_client.parts import Parts

MOST_MILLIS = 2**53 - 1
_decode = msgspec.json.Decoder(GroupHistory).decode


class HistoryReceiver:
    """`release` reads what waits in a group."""

    def __init__(self, parts: Parts, follower: GroupFollower, release: Callable[[str], None]) -> None:
        self._parts = parts
        self._follower = follower
        self._release = release
        follower.followed.append(self._followed)

    def take(self, sender: DeviceIdentity, content: GroupHistory) -> None:
        """What was said before we joined. Raises `Unreadable` if it is malformed."""
        parts = self._parts
        for key in content.keys:
            claimed(key.key, content.group, key.proof)
        for message in content.messages:
            read_group_body(message.body)
        if self._follower.is_current(content.group) and self._has_invited_us(content.group, sender.user):
            self._accept(sender, content)
        else:
            parts.group_bodies.hold_history(content.group, sender.user, sender.device, encode_content(content))
            if parts.ready is not None:
                self._follower.ask_anew(parts.ready, content.group)

    def _accept(self, sender: DeviceIdentity, content: GroupHistory) -> None:
        """It is who has invited us that may give it, by the chain."""
        parts = self._parts
        if not self._has_invited_us(content.group, sender.user):
            parts.group_alarm(
                content.group,
                "group-outsider",
                f"{sender.user} hands on earlier messages, but has not invited this account; they are not shown",
                proof=False,
                user=sender.user,
                device=sender.device,
            )
            return
        for key in content.keys:
            parts.group_keys.add(content.group, claimed(key.key, content.group, key.proof), parts.now(), earlier=True)
        for message in content.messages:
            header = read_group_body(message.body)
            # Only what can be read takes its name: else who has invited us could keep any message from coming.
            if header.group == content.group and parts.group_bodies.has_room(content.group, "", earlier=True):
                at, body = MOST_MILLIS, message.body
                sent_by = (message.user, message.device)
                parts.group_bodies.keep(
                    content.group, header.session, sent_by, message.n, at, body, Waits.KEY, earlier=True
                )
                if parts.ready is not None and parts.accounts.ever(*sent_by) is None:
                    parts.ready.fetching.want(message.user)
        self._release(content.group)

    def _has_invited_us(self, group: str, user: str) -> bool:
        """Whether it was this user who did, and promised to."""
        invited = self._parts.groups.inviter(group, self._parts.me.user)
        return invited is not None and invited[0] == user and invited[1] > 0

    def _followed(self, group: str) -> None:
        """The chain is known to its end."""
        held = self._parts.group_bodies.release_histories(group)
        for user, device, content in held:
            giver = self._parts.accounts.ever(user, device)
            if giver is not None:
                self._accept(giver, _decode(content))
        if held:
            self._release(group)  # what came meanwhile has waited behind it

    def want_accounts(self) -> None:
        """Of who wrote what we were handed as history, and is not known."""
        live = self._parts.ready
        for group in self._parts.group_bodies.groups if live is not None else ():
            for kept in self._parts.group_bodies.waiting(group):
                if self._parts.accounts.ever(kept.user, kept.device) is None:
                    assert live is not None
                    live.fetching.want(kept.user)
