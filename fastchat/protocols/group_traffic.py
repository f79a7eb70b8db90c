"""What is said on a chat connection about groups, and in passing: acts and questions, messages to a group, whispers.

A message to a group takes its place at once, also when it has to wait for the group to be read from the store: later
ones to the same group wait behind it. One that is refused for now keeps the later ones to its group back until it
comes again, and then each of these in its turn, as a lane does with those of one device (`fastchat.delivery.outgoing`).
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Collection, Iterable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from fastchat.delivery import Outgoing
from fastchat.errors import (
    Busy,
    FastChatError,
    GroupChanged,
    Internal,
    NotAllowed,
    ProtocolError,
    RateLimited,
    RequestError,
    UnknownGroup,
)
from fastchat.groups import Circle
from fastchat.limits import TokenBucket
from fastchat.protocols.line import Pipe
from fastchat.protocols.service import Service
from fastchat.protocols.wire import (
    MAX_BODIES,
    Accepted,
    GroupAct,
    GroupDone,
    GroupLogAnswer,
    GroupLogRequest,
    GroupsAnswer,
    GroupSend,
    GroupsRequest,
    GroupWhisper,
    Whisper,
    Whispered,
    bodies_size,
    encode,
    error_from,
    is_body,
)
from fastchat.store import Device

DEVICES_OF_ONE_SEND = 100
"""A message to a group counts for as many sends as it has hundreds of recipient devices, begun ones too: a `send` has a
hundred at most. So does a whisper. A long message counts for more: a `send` has `MAX_BODIES` bytes for all its devices.
"""

MAX_WHISPER = 4096
"""Bytes of one body that is whispered, as on the wire: nothing that is only worth hearing now is long, and a group may
have thousands of devices."""

REFUSED = 10_000
"""Messages to groups that a session may have to send again at once: their numbers are remembered."""

FLOOD = 10
"""Times its burst that a session may whisper too much."""


class GroupTraffic:
    """Of one session of `device`. `sends` is the bucket that all its messages are paid from; `end` says why, and closes
    the connection."""

    log = Logger()

    def __init__(
        self,
        service: Service,
        pipe: Pipe,
        device: Device,
        outgoing: Outgoing,
        sends: TokenBucket,
        end: Callable[[FastChatError], None],
    ) -> None:
        self._service = service
        self._pipe = pipe
        self._device = device
        self._outgoing = outgoing
        self._sends = sends
        self._end = end
        limits = service.limits
        self._whispers = TokenBucket(limits.whispers_per_second, limits.whispers_burst, service.reactor.seconds)
        self._queues: dict[str, deque[GroupSend]] = {}
        """By group that is being read, what waits for that."""
        self._refused: dict[str, list[int]] = {}
        """By group, the numbers that were refused for now and have not come again, ascending."""
        self._held_back = 0
        """How many these are."""

    # --- acts and questions ------------------------------------------------------------------------------------------

    async def act(self, request: GroupAct) -> GroupDone:
        length = await self._service.groups.act(self._device, request.group, request.statement)
        return GroupDone(re=request.id, length=length)

    async def of(self, request: GroupsRequest) -> GroupsAnswer:
        return GroupsAnswer(re=request.id, groups=tuple(await self._service.groups.of(self._device.user)))

    async def statements(self, request: GroupLogRequest) -> GroupLogAnswer:
        group, start = request.group, request.start
        length, page = await self._service.groups.statements(self._device.user, group, start)
        return GroupLogAnswer(re=request.id, group=group, start=start, length=length, statements=tuple(page))

    # --- messages ----------------------------------------------------------------------------------------------------

    def send(self, send: GroupSend) -> None:
        """Raises `ProtocolError`, `RequestError`, `RateLimited`."""
        _check_body(is_body(send.body), len(memoryview(send.body)))
        if send.devices and len(set(send.devices)) < len(send.devices):
            raise RequestError("a device is named twice")
        is_new = send.group not in self._refused and len(self._refused) >= self._service.limits.groups_per_user
        if is_new or self._held_back >= REFUSED:
            self._end(RateLimited("too many messages to groups wait at once, or to too many groups"))
            return
        most = self._service.limits.unaccepted
        if self._outgoing.unaccepted >= most:
            self._refuse(send)
            raise RateLimited(f"more than {most} messages wait to be accepted")
        if not self._sends.take():
            self._refuse(send)
            raise RateLimited("too many messages a second", retry_after=max(0.1, self._sends.wait()))
        first = self._refused[send.group][0] if send.group in self._refused else send.n
        if send.n > first:
            self._refuse(send)
            self._say(send, Busy("an earlier message to the same group must come first"))
            return
        self._comes_again(send)
        queue = self._queues.get(send.group)
        circle = self._service.groups.known(send.group)
        if queue is None and circle is not None:
            self._submit(send, circle)
            return
        self._outgoing.unaccepted += 1
        if queue is not None:
            queue.append(send)
        else:
            self._queues[send.group] = deque([send])
            self._read(send.group)

    def _read(self, group: str) -> None:
        reading = Deferred.fromCoroutine(self._service.groups.load(group))
        reading.addCallbacks(self._has_read, self._could_not_read, callbackArgs=(group,), errbackArgs=(group,))
        reading.addErrback(lambda failure: self.log.failure("messages to a group could not be sent", failure))

    def _has_read(self, circle: Circle | None, group: str) -> None:
        for send in self._waiting(group):
            if circle is None:
                self._give_up(send, UnknownGroup())
            else:
                self._submit(send, circle)

    def _could_not_read(self, failure: Any, group: str) -> None:
        if failure.check(Busy):
            error: FastChatError = failure.value
        else:
            self.log.failure("a group could not be read", failure)
            error = Internal()
        for send in self._waiting(group):
            self._refuse(send)
            self._say(send, error)

    def _waiting(self, group: str) -> Iterable[GroupSend]:
        queue = self._queues.pop(group)
        self._outgoing.unaccepted -= len(queue)
        return queue

    def _submit(self, send: GroupSend, circle: Circle) -> None:
        state = circle.state
        if not circle.has(self._device.user):
            self._give_up(send, UnknownGroup())
        elif state.deleted:
            self._give_up(send, NotAllowed("the group has been deleted"))
        elif state.length != send.length:
            self._give_up(send, GroupChanged())
        else:
            self._fan_out(send, self._recipients(circle, send.devices))

    def _recipients(self, circle: Circle, named: Collection[str] = ()) -> Collection[str]:
        """The group's devices; of these, if some are named, those. Never this one."""
        everybody, own = circle.devices, self._device.device
        if named:
            return [device for device in named if device in everybody and device != own]
        return [device for device in everybody if device != own]

    def _fan_out(self, send: GroupSend, devices: Collection[str]) -> None:
        outgoing = self._outgoing
        outgoing.forget(send.n, send.devices or None)  # some of them may be no member's any more
        if not devices:
            self._say(send, None)
            return
        if not outgoing.has_room(devices):
            self._refuse(send)
            self._say(send, Busy("too many messages to too many devices wait to be accepted"))
            return
        worth = max(_hundreds(len(devices)), -(-len(memoryview(send.body)) * len(devices) // MAX_BODIES))
        self._sends.spend(worth - 1, -self._sends.burst)
        outgoing.send_to_all(send.n, devices, bytes(send.body), lambda error: self._say(send, error))

    def _refuse(self, send: GroupSend) -> None:
        """For now: nothing later may pass it."""
        refused = self._refused.setdefault(send.group, [])
        place = bisect_left(refused, send.n)
        if refused[place : place + 1] != [send.n]:
            refused.insert(place, send.n)
            self._held_back += 1

    def _comes_again(self, send: GroupSend) -> None:
        refused = self._refused.get(send.group)
        if refused and refused[0] == send.n:
            del refused[0]
            self._held_back -= 1
            if not refused:
                del self._refused[send.group]

    def _give_up(self, send: GroupSend, error: FastChatError) -> None:
        """For good: it holds up nothing any more."""
        self._outgoing.forget(send.n, send.devices or None)
        self._say(send, error)

    def _say(self, send: GroupSend, error: FastChatError | None) -> None:
        self._pipe.send(Accepted(send.id) if error is None else error_from(error, send.id))

    # --- whispers ----------------------------------------------------------------------------------------------------

    def whisper(self, whisper: Whisper | GroupWhisper) -> None:
        """What is too much, or comes to nobody, is forgotten."""
        bodies = [recipient.body for recipient in whisper.to] if isinstance(whisper, Whisper) else [whisper.body]
        size = bodies_size(whisper.to) if isinstance(whisper, Whisper) else len(memoryview(whisper.body))
        try:
            _check_body(all(map(is_body, bodies)), size)
            if max(len(memoryview(body)) for body in bodies) > MAX_WHISPER:
                raise RequestError(f"what is whispered has {MAX_WHISPER} bytes at most")
            if isinstance(whisper, Whisper) and len({one.device for one in whisper.to}) < len(whisper.to):
                raise RequestError("a device is named twice")
        except FastChatError as error:
            self._end(error)
            return
        bucket = self._whispers
        if not bucket.take():
            bucket.spend(1.0, -FLOOD * bucket.burst)
            if bucket.balance <= -FLOOD * bucket.burst:
                self._end(RateLimited("too many whispers"))
        elif isinstance(whisper, Whisper):
            for recipient in whisper.to:
                self._tell((recipient.device,), recipient.body)
        else:
            self._whisper_to(whisper)

    def _whisper_to(self, whisper: GroupWhisper) -> None:
        circle = self._service.groups.known(whisper.group)
        if circle is not None and circle.has(self._device.user) and not circle.state.deleted:
            devices = self._recipients(circle)
            self._whispers.spend(max(0, _hundreds(len(devices)) - 1), -self._whispers.burst)
            self._tell(devices, whisper.body)

    def _tell(self, devices: Iterable[str], body: Any) -> None:
        line = encode(Whispered(self._device.user, self._device.device, body))
        for device in devices:
            self._service.delivery.tell(device, line)


def _hundreds(devices: int) -> int:
    return -(-devices // DEVICES_OF_ONE_SEND)


def _check_body(is_one: bool, size: int) -> None:
    if not is_one:
        raise ProtocolError("a body is a string of base64")
    if size > MAX_BODIES:
        raise RequestError(f"the bodies of a message have {MAX_BODIES} bytes at most")
