"""What is said on a chat connection after the login, and what it comes to: messages in both directions, and the answers
to `keys`, `publish` and `log`. Groups and whispers are `group_traffic`'s, files `attachment_traffic`'s. When each of
these may be said, and which of a session's errors end it, is the session's; so is sending the answers to requests, but
for `send`, which is answered when its recipients have it.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fastchat.bus import Offer
from fastchat.errors import FastChatError, ProtocolError, RateLimited, RequestError
from fastchat.limits import TokenBucket
from fastchat.protocols.attachment_traffic import AttachmentTraffic
from fastchat.protocols.group_traffic import GroupTraffic
from fastchat.protocols.line import Pipe
from fastchat.protocols.service import Service
from fastchat.protocols.wire import (
    MAX_BODIES,
    Accepted,
    KeysAnswer,
    KeysRequest,
    LogAnswer,
    LogRequest,
    Publish,
    Published,
    Received,
    Revoke,
    Revoked,
    Send,
    ServerMessage,
    bodies_size,
    error_from,
    is_body,
    message_line,
)
from fastchat.store import Device


class Traffic:
    """Of one session of `device`. `requests` pays for receipts that say nothing new. `replaced` and `end` are the
    session's: told when the device has logged in elsewhere; says why, and closes. So is `refuse`: answers a request, by
    its number, with an error, of which a session bears so many. `login`: its number. Raises `Replaced` if the device
    has logged in elsewhere since, and why it was expelled, if it was."""

    def __init__(
        self,
        service: Service,
        pipe: Pipe,
        device: Device,
        requests: TokenBucket,
        replaced: Callable[[], None],
        end: Callable[[FastChatError], None],
        refuse: Callable[[FastChatError, int], None],
        login: int,
    ) -> None:
        self._service = service
        self._pipe = pipe
        self._device = device
        self._requests = requests
        self._end = end
        self._upto = 0
        limits = service.limits
        self._sends = TokenBucket(limits.sends_per_second, limits.sends_burst, service.reactor.seconds)
        self.outgoing = service.delivery.outgoing(device.user, device.device, service.counters)
        self.inbox = service.delivery.open_inbox(device.device, self._deliver, pipe.send_line, replaced, login, end)
        self.groups = GroupTraffic(service, pipe, device, self.outgoing, self._sends, end)
        self.attachments = AttachmentTraffic(service, pipe, device, refuse)

    def set_writable(self, writable: bool) -> None:
        """Whether the transport takes more: first messages, then files."""
        self.inbox.set_writable(writable)
        self.attachments.set_writable(writable)

    def close(self) -> None:
        """The session is over."""
        self.attachments.close()
        self.inbox.close()

    def send(self, send: Send) -> None:
        """Raises `ProtocolError`, `RequestError`, `RateLimited`."""
        outgoing = self.outgoing
        for recipient in send.to:
            if not is_body(recipient.body):
                raise ProtocolError("a body is a string of base64")
        if len(send.to) > 1 and len({recipient.device for recipient in send.to}) < len(send.to):
            raise RequestError("a device is named twice")
        if bodies_size(send.to) > MAX_BODIES:
            raise RequestError(f"the bodies of a message have {MAX_BODIES} bytes at most")
        if not outgoing.has_room([recipient.device for recipient in send.to]):
            self._end(RateLimited("messages to too many devices wait at once"))
            return
        if outgoing.unaccepted >= self._service.limits.unaccepted:
            outgoing.refuse(send.n, send.to)
            raise RateLimited(f"more than {self._service.limits.unaccepted} messages wait to be accepted")
        if not self._sends.take():
            outgoing.refuse(send.n, send.to)
            raise RateLimited("too many messages a second", retry_after=max(0.1, self._sends.wait()))
        re = send.id

        def done(error: FastChatError | None) -> None:
            self._pipe.send(Accepted(re) if error is None else error_from(error, re))

        outgoing.send(send.n, send.to, done)

    def received(self, received: Received) -> None:
        if received.upto <= self._upto and not self._requests.take():
            self._end(RateLimited("too many receipts that say nothing new"))
            return
        self._upto = received.upto
        try:
            self.inbox.received(received.upto)
        except ProtocolError as error:
            self._end(error)

    def _deliver(self, k: int, offer: Offer) -> None:
        self._pipe.send_line(message_line(k, offer.tail))

    def keys(self, request: KeysRequest) -> Coroutine[Any, Any, ServerMessage]:
        """Raises `RateLimited` at once when too much is claimed."""
        if request.claim:
            self._service.claims.take(self._device.user, frozenset(request.users))
        return self._found_keys(request)

    async def _found_keys(self, request: KeysRequest) -> ServerMessage:
        return KeysAnswer(re=request.id, accounts=await self._service.directory.keys(request.users, request.claim))

    async def publish(self, request: Publish) -> ServerMessage:
        count = await self._service.directory.publish(self._device, request.keys)
        return Published(re=request.id, one_time_keys=count)

    async def revoke(self, request: Revoke) -> ServerMessage:
        """Raises what `Accounts.revoke_device` does."""
        user, expel = self._device.user, self._service.delivery.expel
        await self._service.accounts.revoke_device(user, request, lambda device, why: expel(user, device, why))
        return Revoked(re=request.id)

    async def log(self, request: LogRequest) -> ServerMessage:
        leaves, checkpoint = await self._service.directory.log(request.start)
        return LogAnswer(re=request.id, start=request.start, leaves=leaves, checkpoint=checkpoint)
