"""The balancer's conversation with one client: `assign` in, `assigned` or an error out.

It knows placement and messages; of sockets, lines and reactors it knows nothing: messages come through `received`
and leave through the `send` that it was given.
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec import UNSET
from twisted.logger import Logger

from fastchat.errors import FastChatError, OutOfTurn
from fastchat.placement import Placement
from fastchat.protocols.wire import Assign, Assigned, ClientMessage, ServerMessage, error_from


class BalancerSession:
    """One connection to the balancer. It may ask as often as the connection's limits let it."""

    log = Logger()

    def __init__(self, placement: Placement, send: Callable[[ServerMessage], None]) -> None:
        self._placement = placement
        self._send = send

    def received(self, message: ClientMessage) -> None:
        """Answer one message: `assign` with `assigned`, or with `busy` while no service is up; anything else with
        `out-of-turn`."""
        answer: ServerMessage
        try:
            answer = self._answer(message)
        except FastChatError as error:
            self.log.debug("refused: {code}", code=error.code)
            answer = error_from(error, getattr(message, "id", UNSET))
        self._send(answer)

    def _answer(self, message: ClientMessage) -> ServerMessage:
        if not isinstance(message, Assign):
            raise OutOfTurn("a balancer answers assign and nothing else")
        placed = self._placement.assign()
        self.log.debug("{service} by {strategy}", service=placed.service.name, strategy=self._placement.strategy)
        return Assigned(
            re=message.id,
            service=placed.service,
            lease=placed.lease,
            lease_seconds=self._placement.lease_seconds,
            services=self._placement.services(),
        )
