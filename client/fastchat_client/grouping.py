"""The groups' side of the client's heart, as one: following chains, writing, reading, acting."""

from __future__ import annotations

from fastchat.errors import FastChatError
from fastchat.protocols.wire import GroupDone, GroupLogAnswer, GroupNews, GroupsAnswer, ServerMessage
from fastchat_client.content import GroupKeyRequest, encode_content
from fastchat_client.group_appending import GroupAppender
from fastchat_client.group_following import GroupFollower
from fastchat_client.group_history import HistoryReceiver
from fastchat_client.group_receiving import GroupReceiver
from fastchat_client.group_sending import GroupSender
from fastchat_client.parts import Live, Parts
from fastchat_client.understanding import Understanding

ASK_FOR_KEYS_EVERY = 5.0
"""Seconds between two looks at what waits for a key: long enough for one that is only a moment late."""
GIVE_UP_AFTER = 3
"""Looks, of which the last is 70 minutes after the first: what was sent to this account while it was in a group has its
key by then."""


class GroupSide:
    def __init__(self, parts: Parts, understanding: Understanding) -> None:
        self._parts = parts
        self.follower = GroupFollower(parts)
        self.sender = GroupSender(parts, self.follower)
        self.receiver = GroupReceiver(parts, self.follower, understanding)
        self.history = HistoryReceiver(parts, self.follower, self.receiver.release)
        self.appender = GroupAppender(parts, self.follower)
        parts.whisper_to_group = self.sender.whisper

    def begin(self, live: Live) -> None:
        """After every login."""
        self.follower.begin(live)
        self.history.want_accounts()

    def pump(self, live: Live) -> None:
        self.appender.pump(live)

    def heard(self, live: Live, message: ServerMessage) -> bool:
        """Whether `message` is about groups; then it has been seen to."""
        match message:
            case GroupsAnswer():
                self.follower.groups_answer(live, message)
            case GroupLogAnswer():
                self.follower.log_answer(live, message)
            case GroupNews():
                self.follower.news(live, message)
            case GroupDone():
                self.appender.answered(live, message)
            case _:
                return False
        return True

    def refused(self, live: Live, request: int, problem: FastChatError) -> bool:
        """Whether `request` was one about groups (messages are `sending`'s)."""
        return self.follower.refused(live, request, problem) or self.appender.refused(live, request, problem)

    def learned(self, live: Live, user: str) -> None:
        """The keys of `user` are known now, or it is known that there are none."""
        self.follower.learned(live, user)
        for group in self._parts.group_bodies.waiting_of(user):
            self.receiver.release(group)

    def by_the_second(self, live: Live) -> None:
        self.follower.by_the_second(live)
        now = self._parts.clock()
        if now - live.keys_asked_at >= ASK_FOR_KEYS_EVERY:
            live.keys_asked_at = now
            self._ask_for_keys()

    def _ask_for_keys(self) -> None:
        parts = self._parts
        for group, session, user, device, asked in parts.group_bodies.to_ask(parts.now()):
            account = parts.accounts.get(user)
            if not parts.groups.role(group, parts.me.user):
                if asked >= GIVE_UP_AFTER:
                    self.receiver.give_up(group, session)
            elif account is not None and device in account.devices and parts.groups.ever_member(group, user):
                parts.outbox.compose(user, device, encode_content(GroupKeyRequest(group, session)), parts.now())
