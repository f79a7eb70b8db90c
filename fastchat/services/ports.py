"""TCP ports: taking one, and what a person is told when it cannot be had. It knows nothing of what is said on them."""

from __future__ import annotations

import errno
from typing import Any

from twisted.internet.error import CannotListenError
from twisted.internet.tcp import Port

from fastchat.errors import ConfigError
from fastchat.services import Reactor

LOOPBACK = "127.0.0.1"


def take_port(
    reactor: Reactor, host: str, port: int, factory: Any, backlog: int = 50, kind: type[Port] = Port
) -> tuple[Port, int]:
    """Listen on `host`:`port` (0: any free); answers with the listening port and its number. Raises `ConfigError`."""
    listening = kind(port, factory, backlog, host, reactor)
    try:
        listening.startListening()
    except CannotListenError as error:
        raise ConfigError(port_problem(host, port, error.socketError)) from None
    return listening, listening.getHost().port  # type: ignore[no-untyped-call]


def port_problem(host: str, port: int, error: OSError) -> str:
    """One line for a person about a port that cannot be had."""
    if error.errno == errno.EADDRINUSE:
        return f"port {port} on {host} is in use by another program: stop it, or move FastChat with FASTCHAT_PORT"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"host: {host} is not an address of this machine"
    return f"port {port} on {host} cannot be listened on: {error.strerror}"
