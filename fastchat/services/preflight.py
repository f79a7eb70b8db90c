"""What can be known to go wrong before anything is started: looked at while there is still a terminal to say it on.

twistd goes into the background before its services start, and has no way to report what happens after that. So the
common mistakes are found here, before, without a reactor; each raises `ConfigError` with one line that says what to
do. It makes the home, and holds it: two processes on one home would each stop the other's database.
"""

from __future__ import annotations

import fcntl
import math
import os
import socket
from pathlib import Path

import psycopg2

from fastchat.config import Config
from fastchat.errors import ConfigError
from fastchat.services.ports import LOOPBACK, port_problem
from fastchat.services.postgres_places import check_major


class Hold:
    """That this process, and what it forks into, is the only one on its home; given up when it ends, however."""

    def __init__(self, home: Path) -> None:
        try:
            home.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._descriptor = os.open(home / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise ConfigError(f"{home}: cannot be used as FASTCHAT_HOME: {error.strerror}") from None
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._descriptor)
            raise ConfigError(
                f"{home}: another FastChat is running on this home: stop it, or choose another FASTCHAT_HOME "
                "(and FASTCHAT_PORT)"
            ) from None

    def release(self) -> None:
        """Let go before the process ends; for tests."""
        os.close(self._descriptor)


def preflight(config: Config) -> Hold:
    """Look at all of it. Raises `ConfigError`."""
    hold = Hold(config.home)
    try:
        check_ports(config)
        if config.database.dsn is None:
            check_major(config.home)
        else:
            check_dsn(config.database.dsn, config.database.connect_seconds)
    except ConfigError:
        hold.release()
        raise
    return hold


def check_ports(config: Config) -> None:
    """Whether every port of the block can be listened on. Raises `ConfigError`."""
    if config.port == 0:
        _check_port(config.host, 0)
        return
    for number in range(config.services + 1):
        _check_port(config.host, config.port + number)
    _check_port(LOOPBACK, config.operations_port)


def _check_port(host: str, port: int) -> None:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as attempt:
            attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            attempt.bind(address)
    except socket.gaierror:
        raise ConfigError(f"host: {host!r} is neither an address nor a known name") from None
    except OSError as error:
        raise ConfigError(port_problem(host, port, error)) from None


def check_dsn(dsn: str, seconds: float) -> None:
    """Whether PostgreSQL answers there, within `seconds` (at least 2: libpq's). Raises `ConfigError`."""
    try:
        psycopg2.connect(dsn, connect_timeout=max(2, math.ceil(seconds))).close()
    except psycopg2.Error as error:
        why = " ".join(str(error).split()) or type(error).__name__
        raise ConfigError(f"database.dsn: PostgreSQL cannot be reached: {why}") from None
