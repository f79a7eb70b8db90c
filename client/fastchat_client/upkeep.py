"""What is due because time has passed: pings, marks, the key log, this device's own keys, asking again, forgetting."""

from __future__ import annotations

from fastchat.errors import FastChatError, Unreachable
from fastchat.protocols.wire import Ping, Publish, Published
from fastchat_client import amending, marking
from fastchat_client.events import MailboxProgress, Notice
from fastchat_client.following import Follower
from fastchat_client.parts import Live, Parts
from fastchat_client.receiving import Receiver

BY_THE_MINUTE = 60.0
CAUGHT_UP_AFTER = 10.0
"""When nothing of what was announced as waiting has come for so long, no more of it comes."""
PUBLISH_AGAIN_AFTER = 60.0
READ_LOG_AGAIN_AFTER = 10.0
READ_LOG_FOR_PEER_AFTER = 60.0
"""When a peer has seen more of the log than we have."""
READ_LOG_EVERY = 300.0
"""Seconds between two looks at the key log while connected: so a further device of somebody becomes known."""


class Upkeep:
    def __init__(self, parts: Parts, receiver: Receiver, follower: Follower) -> None:
        self._parts = parts
        self._receiver = receiver
        self._follower = follower

    def by_the_second(self, live: Live) -> None:
        self._keep_alive(live)
        self._flush_marks()
        self._read_log(live)
        self._end_catching_up(live)
        if self._parts.clock() - live.housekeeping_at >= BY_THE_MINUTE:
            self.by_the_minute(live)

    def by_the_minute(self, live: Live) -> None:
        """Also once after `ready`."""
        parts, now = self._parts, self._parts.now()
        live.housekeeping_at = parts.clock()
        self._receiver.want_sessions(live)
        self.publish(live)
        for part in (parts.prekeeper, parts.outbox, parts.inbox, parts.group_bodies):
            part.purge(now)
        amending.purge(parts.vault, now)
        for device in parts.accounts.long_revoked(now):
            parts.sessions.forget(device)
            parts.group_keys.forget(device)
        for user in parts.inbox.users:
            account = parts.accounts.get(user)
            if account is None or not account.offered_root:
                live.fetching.want(user)

    def publish(self, live: Live) -> None:
        """Publish what of this device's keys is due, at most once a minute: a server that counts wrongly must not make
        us make keys without end."""
        now = self._parts.clock()
        if live.leaving is not None or live.publish_request or now - live.published_at < PUBLISH_AGAIN_AFTER:
            return
        keys = self._parts.prekeeper.due(self._parts.now())
        if keys is not None:
            live.published_at = now
            live.publish_request = self._parts.say(lambda i: Publish(i, keys))

    def published(self, live: Live, answer: Published) -> None:
        if answer.re == live.publish_request:
            live.publish_request = 0
            self._parts.prekeeper.published(max(0, answer.one_time_keys))

    def refused(self, live: Live, request: int, problem: FastChatError) -> bool:
        """Whether `request` published keys."""
        if request != live.publish_request:
            return False
        live.publish_request = 0
        if problem.retry_after is None:
            self._parts.tell(Notice(problem.code, f"the network refuses this device's keys: {problem.message}"))
        return True

    def _keep_alive(self, live: Live) -> None:
        assert live.limits is not None
        now = self._parts.clock()
        if now - live.heard_at >= max(1.0, live.limits.dead_after):
            self._parts.close(Unreachable("the network has fallen silent"))
        elif now - live.pinged_at >= live.limits.ping_every:
            live.pinged_at = now
            self._parts.say(Ping)

    def _end_catching_up(self, live: Live) -> None:
        # What this device has received on an earlier connection is counted by the server until it is deleted there.
        if live.progress < live.mailbox and self._parts.clock() - live.progress_at >= CAUGHT_UP_AFTER:
            self._parts.tell(MailboxProgress(live.mailbox, live.mailbox))
            live.mailbox = live.progress

    def _read_log(self, live: Live) -> None:
        patience = READ_LOG_FOR_PEER_AFTER if live.log_wanted else READ_LOG_EVERY
        if not live.log_current:
            patience = READ_LOG_AGAIN_AFTER
        if self._parts.clock() - live.log_asked_at >= patience:
            live.log_wanted = False
            self._follower.ask(live)

    def _flush_marks(self) -> None:
        """Tell senders what has arrived and what was read."""
        parts = self._parts
        if parts.untold:
            parts.untold = marking.flush(
                parts.vault, parts.outbox, lambda group: len(parts.groups.members(group)), parts.now()
            )
