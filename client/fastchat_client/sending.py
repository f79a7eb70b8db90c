"""From the outbox to the wire: seal what can be sealed, send what may go, judge the answers.

A message is sealed for every device of its recipient and every other one of its sender's, once their keys are known
and the key log has been followed; never before an earlier one to the same recipient. What is sealed is sent, and sent
again, as it is.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from fastchat.errors import (
    FastChatError,
    FrameTooLong,
    GroupChanged,
    Internal,
    NotAllowed,
    SignatureInvalid,
    TrustError,
    UnknownDevice,
    UnknownGroup,
)
from fastchat.identity.links import DeviceIdentity
from fastchat.protocols.wire import Error, GroupSend, KeysRequest, Recipient, Send, bodies_size, exception_from
from fastchat_client import attachment_words, files, history, ratchet
from fastchat_client.content import File, TreeHead, without_thumbnail, write_plain
from fastchat_client.events import MessageState, Notice, State
from fastchat_client.group_following import GroupFollower
from fastchat_client.group_sending import GroupSender
from fastchat_client.groups import group_of
from fastchat_client.outbox import Composed
from fastchat_client.parts import Live, Parts
from fastchat_client.trust import Peer

MOST_RECIPIENTS = 100
MOST_REFUSALS = 5
"""How often a message is tried although the server failed; `busy` is not a failure."""
FAILURE_PATIENCE = 5.0
BURST_SECONDS = 2.0
"""How much of `sends_per_second` may go at once."""
_LINE_OVERHEAD = 1024
_BODY_OVERHEAD = 4096
"""Bytes of a body that are not its content, before it is written as base64: names, ratchet, envelope."""


class Sender:
    def __init__(self, parts: Parts, groups: GroupSender, follower: GroupFollower) -> None:
        self._parts = parts
        self._groups = groups
        self._follower = follower
        self._told_missing = set[str]()
        """Devices of which the person knows that something did not reach them."""

    def pump(self) -> None:
        """Send everything that may go now, and ask for the keys of who cannot be written to yet."""
        live = self._parts.ready
        if live is None or live.leaving is not None:
            return
        assert live.limits is not None
        if not self._parts.alarmed:
            self._pump_outbox(live, live.limits.unaccepted)
        for question in live.fetching.questions(self._parts.clock()):
            users, claim = question.users, question.claim
            request = self._parts.say(lambda i, users=users, claim=claim: KeysRequest(i, users, claim))  # type: ignore[misc]
            live.fetching.asked(request, question)

    def _pump_outbox(self, live: Live, most: int) -> None:
        box, not_to = self._parts.outbox, set[str]()
        self._refill(live)
        while box.on_their_way < most and live.tokens >= 1.0:
            message = box.next(self._parts.clock(), not_to)
            if message is None:
                return
            if not self._goes(live, message, not_to):
                not_to.add(message.user)

    def _goes(self, live: Live, message: Composed, not_to: set[str]) -> bool:
        """Seal it, and send what of it may go. Whether others to the same user may be looked at now."""
        if not self._may_write_to(live, message.user) or not (message.is_sealed or self._seal(live, message)):
            return False
        after = self._parts.outbox.get(message.n)
        if after is None or not after.is_sealed:
            return True
        if after.is_to_group and self._parts.outbox.waits_for_earlier(after):
            return False
        return self._send(live, after, not_to) or self._parts.outbox.put_aside(after)

    def _send(self, live: Live, message: Composed, not_to: set[str]) -> bool:
        """Send what may go of a sealed message; False if that is nothing."""
        assert live.limits is not None
        recipients = self._parts.outbox.due(message, self._parts.clock(), not_to)
        if not recipients:
            return False
        overhead = _LINE_OVERHEAD + 64 * len(recipients)
        bodies = recipients[:1] if message.is_to_group else recipients
        if bodies_size(bodies) + overhead > live.limits.max_line:
            self.fail(message, FrameTooLong("the message is too long for this network"))
            return True
        live.tokens -= 1.0
        if message.is_to_group:
            request = self._parts.say(lambda i: self._to_group(i, message, recipients))
        else:
            request = self._parts.say(lambda i: Send(i, message.n, recipients))
        self._parts.outbox.goes(message, request, recipients)
        return True

    def _to_group(self, request: int, message: Composed, recipients: Sequence[Recipient]) -> GroupSend:
        """To everybody in it; or to those devices that are left over."""
        devices = tuple(recipient.device for recipient in recipients if recipient.device != message.user)
        group = group_of(message.user)
        return GroupSend(request, message.n, group, message.length, recipients[0].body, devices)

    def _refill(self, live: Live) -> None:
        assert live.limits is not None
        now, rate = self._parts.clock(), live.limits.sends_per_second
        live.tokens = min(max(1.0, rate * BURST_SECONDS), live.tokens + rate * (now - live.tokens_at))
        live.tokens_at = now

    # --- sealing -----------------------------------------------------------------------------------------------------

    def _may_write_to(self, live: Live, user: str) -> bool:
        """Not to somebody whose root has changed, until that is decided."""
        account = self._parts.accounts.get(user)
        if account is None or not account.offered_root or user == self._parts.me.user:
            return True
        if user not in live.rechecked:
            live.rechecked.add(user)
            live.fetching.want(user)
        return False

    def _seal(self, live: Live, message: Composed) -> bool:
        """Seal `message` for each of its devices. False if that must wait; true if it is sealed, or at its end."""
        parts = self._parts
        if message.is_to_group:
            return self._encrypt(live, message)
        own = [parts.me.user] if message.own_copies or message.user == parts.me.user else []
        users = list(dict.fromkeys([message.user, *own]))
        stale = [user for user in users if not self._is_fresh(live, user)]
        if stale or not live.log_current:
            return False
        peers = self._peers(message, users)
        for peer in peers:
            if not parts.sessions.has(peer.identity) and peer.identity.device not in live.without_keys:
                live.fetching.want(peer.identity.user, claim=True)
                return False
        message = self._fitting(live, message, len(peers))
        bodies = [(peer, body) for peer in peers[:MOST_RECIPIENTS] if (body := self._body(live, message, peer))]
        if message.device and not bodies:
            self.fail(message, UnknownDevice())
        elif message.user != parts.me.user and not any(message.user == peer.identity.user for peer, _ in bodies):
            # Nobody there who can read it, or the server does not say how to write to them.
            if message.device:
                self._sealed(message, bodies)
                return True
            live.without_keys.clear()
            live.fetching.want_later(message.user, parts.clock(), claim=True)
            return False
        elif not bodies:
            self._accept(message)  # a note to oneself, with no other device to take it to
        else:
            self._sealed(message, bodies)
        return True

    def _fitting(self, live: Live, message: Composed, devices: int) -> Composed:
        """`message`; without the small picture of its file, if a line has no room for that as often as there are
        devices."""
        assert live.limits is not None
        most = (live.limits.max_line - _LINE_OVERHEAD) * 3 // 4
        if (len(message.content) + _BODY_OVERHEAD) * devices <= most:
            return message
        content = without_thumbnail(message.content)
        self._parts.outbox.say_instead(message.n, content)
        return replace(message, content=content)

    def _encrypt(self, live: Live, message: Composed) -> bool:
        """The same for a group."""
        is_known = self._follower.is_current(group_of(message.user))
        if is_known and not self._groups.may_write(message.user):
            self.fail(message, NotAllowed("you are not in this group (any more)"))
            return True
        is_done = self._groups.seal(live, message)
        after = self._parts.outbox.get(message.n)
        if after is not None and after.is_sealed and self._groups.is_alone(message.user):
            self._accept(after, (after.user,))
        return is_done

    def _sealed(self, message: Composed, bodies: list[tuple[Peer, bytes]]) -> None:
        self._parts.outbox.sealed(message.n, [(peer.identity.device, body) for peer, body in bodies])

    def _is_fresh(self, live: Live, user: str) -> bool:
        parts = self._parts
        if parts.accounts.is_fresh(user, parts.now()):
            return True
        account = parts.accounts.get(user)
        if account is not None and account.offered_root:
            return True  # one's own: `_may_write_to` has stopped at the others'
        live.fetching.want(user, claim=account is None)
        return False

    def _peers(self, message: Composed, users: list[str]) -> list[Peer]:
        """The devices that `message` is for."""
        accounts = [account for account in map(self._parts.accounts.get, users) if account is not None]
        peers = [peer for account in accounts for peer in account.peers if peer.identity != self._parts.me]
        if message.device:
            return [peer for peer in peers if peer.identity.device == message.device]
        return peers

    def _body(self, live: Live, message: Composed, peer: Peer) -> bytes:
        """`message` sealed for `peer`; b"" if that cannot be done with the keys that there are."""
        parts, me = self._parts, self._parts.me
        if not parts.sessions.has(peer.identity):
            return b""
        head = TreeHead(parts.witness.size, parts.witness.root)
        plain = write_plain(me, peer.identity, message.user, message.n, head, message.at, message.content)
        try:
            return bytes(ratchet.body_to_wire(parts.sessions.seal(me, peer, plain)))
        except TrustError as error:
            live.without_keys.add(peer.identity.device)
            parts.tell(Notice(error.code, error.message))
            return b""

    # --- answers -----------------------------------------------------------------------------------------------------

    def accepted(self, request: int) -> None:
        answered = self._parts.outbox.answered(request)
        if answered is not None:
            self._accept(*answered)
            if answered[0].is_to_group:
                self._follower.went_through(group_of(answered[0].user))

    def refused(self, request: int, error: Error) -> None:
        answered = self._parts.outbox.answered(request)
        if answered is None:
            return
        message, devices = answered
        problem = exception_from(error)
        # Those that are not named have it; an answer that names none of them says it of nobody.
        named = set(problem.devices)
        missing = [device for device in devices if device in named] or list(devices)
        having = [device for device in devices if device not in missing]
        if isinstance(problem, GroupChanged | UnknownGroup):
            self._group_changed(message)
            return
        if message.user in devices and named:
            # A group's only recipient was the group: now it is those of its devices that do not have the message.
            missing, having = list(problem.devices), []
            self._parts.outbox.left_over(message, missing)
        is_failure = isinstance(problem, Internal)
        if problem.retry_after is not None or (is_failure and message.refusals < MOST_REFUSALS):
            wait = FAILURE_PATIENCE if problem.retry_after is None else problem.retry_after
            self._parts.outbox.refused(message, missing, self._parts.clock() + wait, is_failure)
            self._accept(message, having)
        elif isinstance(problem, UnknownDevice) and self._may_seal_again(message):
            for user in (message.user, self._parts.me.user):
                self._parts.accounts.mark_user_stale(user)
            self._parts.outbox.seal_again(message, is_last=True)
        elif self._is_for_others(message, missing):
            self._parts.outbox.given_up(message, missing)
            if message.is_keys:
                self._groups.not_reached(message, missing)
            self._tell_missing(message, missing, problem)
            self._accept(message, having)
        else:
            self.fail(message, problem)

    def _may_seal_again(self, message: Composed) -> bool:
        return not (message.sealed_again or message.device or message.is_keys or message.is_to_group)

    def _group_changed(self, message: Composed) -> None:
        """Nobody gets it like this any more: it is encrypted again by the chain as it is now."""
        live, group = self._parts.ready, group_of(message.user)
        # Groups have no last time; but that there was another is to be known (`_devices_told`).
        self._parts.outbox.seal_again(message, is_last=True)
        # If news of the change have come meanwhile, there is nothing to ask.
        if live is not None and message.length >= self._parts.groups.length(group):
            self._follower.look_again(live, group)

    def _is_for_others(self, message: Composed, missing: Sequence[str]) -> bool:
        """Whether its addressee has it, or is still to get it, on a device that is not one of `missing`."""
        if message.is_keys:
            return True
        if message.is_to_group:
            return self._groups.has_others(message.user, missing)
        if message.user == self._parts.me.user and not message.device:
            return True  # on this one
        own = self._own_devices()
        return any(device not in own for device in self._parts.outbox.devices(message.n) if device not in missing)

    def _own_devices(self) -> Collection[str]:
        account = self._parts.accounts.get(self._parts.me.user)
        return () if account is None else account.devices

    def _tell_missing(self, message: Composed, missing: Sequence[str], problem: FastChatError) -> None:
        own = self._own_devices()
        for device in missing:
            if message.shown and device not in self._told_missing:
                self._told_missing.add(device)
                whose = self._parts.me.user if device in own else message.user
                text = f"a message did not reach the device {device[:8]} of {whose}, only others: {problem.message}"
                self._parts.tell(Notice(problem.code, text))

    def fail(self, message: Composed, problem: FastChatError) -> None:
        """`message` will never go."""
        file = self._file_of(message)
        if file is not None:
            attachment_words.tell_detached(self._parts.vault, file.attachment)
        self._parts.outbox.failed(message, self._parts.now())
        self._reached(message, State.FAILED, problem.message)

    def fail_all(self, user: str, problem: FastChatError) -> None:
        for message in self._parts.outbox.waiting_for(user):
            self.fail(message, problem)

    def _accept(self, message: Composed, devices: Sequence[str] = ()) -> None:
        if self._parts.outbox.accepted(message, self._parts.now(), devices):
            file = self._file_of(message)
            if file is not None and (told := self._devices_told(message)):
                attachment_words.tell_for(self._parts.vault, file.attachment, told)
            self._reached(message, State.ACCEPTED)

    def _file_of(self, message: Composed) -> File | None:
        return files.descriptor(self._parts.vault, self._parts.me.device, message.n) if message.shown else None

    def _devices_told(self, message: Composed) -> int:
        """How many devices of others can fetch what it tells of: of a group rather more than less, for with the last of
        them it goes."""
        if message.is_to_group:
            # If it went by an earlier chain as well, that may have reached somebody who has left since.
            return self._groups.devices_of_others(message.user, 0 if message.sealed_again else message.length)
        own = self._own_devices()
        return sum(device not in own for device in self._parts.outbox.devices(message.n))

    def _reached(self, message: Composed, state: State, reason: str = "") -> None:
        if message.shown and history.advance(self._parts.vault, self._parts.me.device, message.n, state, reason):
            self._parts.tell(MessageState(f"{self._parts.me.device}.{message.n}", message.user, state, reason))

    # --- new sessions ------------------------------------------------------------------------------------------------

    def open_session(self, peer: DeviceIdentity, key: bytes, *, preferred: bool) -> None:
        try:
            self._parts.sessions.open(peer, key, self._parts.now(), preferred)
        except SignatureInvalid as error:
            self._parts.tell(Notice(error.code, error.message))
