"""Everything that an operator can set, as one frozen Struct made from the environment and a `fastchat.toml`.

Three environment variables say where a network lives; the file, which is optional, says the rest. An unknown key or
a value out of its bounds is refused in one line that names the file and the key. `python -m fastchat.config` prints
every key with its meaning and its default, as a file that can be edited. This module reads; it makes nothing and
knows no service.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

import msgspec
from msgspec import Meta

from fastchat.errors import ConfigError

DEFAULT_PORT = 7400
OPERATIONS_OFFSET = 80
"""The operations HTTP listens on `port + OPERATIONS_OFFSET`; service number i (from 1) on `port + i`."""

EVERYWHERE = ("0.0.0.0", "::")  # noqa: S104
"""Hosts that mean every address of the machine."""

Count = Annotated[int, Meta(ge=1, le=2**31 - 1)]
Seconds = Annotated[float, Meta(gt=0, le=86400)]
ANY_COUNT = 2**62
"""More than there can be."""
Size = Annotated[int, Meta(ge=1024, le=2**40)]
"""In bytes."""
Strategy = Literal["least-connections", "round-robin", "random", "power-of-two-choices"]


class Database(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the truth is kept."""

    dsn: Annotated[
        str | None,
        Meta(description="PostgreSQL to use, as a libpq connection string; without it one is run under the home."),
    ] = None
    connect_seconds: Annotated[Seconds, Meta(description="Deadline for one connection attempt.")] = 5.0
    statement_seconds: Annotated[
        Seconds, Meta(description="Deadline for one statement or batch; what misses it is answered with `busy`.")
    ] = 10.0
    connections: Annotated[
        Count,
        Meta(description="Connections for reading and accounts; mail has two others, chunks of files have four."),
    ] = 4


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one address, connection, device or mailbox may cost."""

    backlog: Annotated[Count, Meta(description="Connections that may wait to be accepted, per port.")] = 1024
    connections: Annotated[
        Count, Meta(description="Open connections of one process; fewer where it may open fewer files.")
    ] = 20_000
    connections_per_address: Annotated[Count, Meta(description="Open connections from one address, per process.")] = 20
    connects_per_second_per_address: Annotated[
        float, Meta(gt=0, description="New connections a second from one address, per process.")
    ] = 5.0
    loopback_exempt: Annotated[bool, Meta(description="Do not count connections from this machine.")] = True
    login_seconds: Annotated[Seconds, Meta(description="From the connection to the finished login, TLS included.")] = (
        10.0
    )
    frames_before_login: Annotated[
        Count,
        Meta(description="Messages before a login is finished: hello, two of SCRAM, add_device, login, and one more."),
    ] = 6
    login_failures_per_minute: Annotated[
        Count, Meta(description="Failed logins a minute, per account and per address; further ones have to wait.")
    ] = 5
    unaccepted: Annotated[Count, Meta(description="Sends of one session that may wait to be accepted.")] = 64
    sends_per_second: Annotated[float, Meta(gt=0, description="Sends a second of one session, in the long run.")] = 20.0
    sends_burst: Annotated[Count, Meta(description="Sends of one session at once, after a pause.")] = 60
    requests_per_second: Annotated[
        float,
        Meta(gt=0, description="Requests of one session a second, in the long run; `publish` is ten, `send` none."),
    ] = 20.0
    requests_burst: Annotated[
        int, Meta(ge=10, le=2**31 - 1, description="Requests of one session at once, after a pause.")
    ] = 200
    claims_per_second: Annotated[
        float, Meta(gt=0, description="Accounts a second whose one-time keys one account may take, in the long run.")
    ] = 5.0
    claims_burst: Annotated[
        int, Meta(ge=100, le=2**31 - 1, description="Accounts whose one-time keys one account may take at once.")
    ] = 2000
    claims_of_one: Annotated[
        Count, Meta(description="Times an hour that one account may take one-time keys of one and the same account.")
    ] = 20
    groups_per_user: Annotated[Count, Meta(description="Groups that one account is in, or invited to.")] = 1000
    group_acts_per_second: Annotated[
        float, Meta(gt=0, description="Changes of groups that one account makes in a second, in the long run.")
    ] = 5.0
    group_acts_burst: Annotated[Count, Meta(description="The same at once, after a pause.")] = 200
    whispers_per_second: Annotated[
        float,
        Meta(gt=0, description="Whispers (somebody types, is there) of one session a second; others are dropped."),
    ] = 5.0
    whispers_burst: Annotated[
        Count, Meta(description="The same at once. Who goes on until ten times as many were dropped is disconnected.")
    ] = 20
    window_messages: Annotated[Count, Meta(description="Messages handed to a session and not yet received.")] = 64
    window_bytes: Annotated[Size, Meta(description="Bytes of them.")] = 1024 * 1024
    receipt_seconds: Annotated[
        Seconds, Meta(description="A message handed over and not received after this time goes to the mailbox.")
    ] = 2.0
    outbound_soft: Annotated[
        Size, Meta(description="Bytes waiting on a connection at which nothing more is handed over to it.")
    ] = 64 * 1024
    outbound_hard: Annotated[Size, Meta(description="Bytes waiting at which the connection is aborted.")] = 1024 * 1024
    slow_reader_seconds: Annotated[
        Seconds, Meta(description="A connection that is not read from for this long is aborted.")
    ] = 60.0
    ping_seconds: Annotated[Seconds, Meta(description="How often a client says that it is there.")] = 30.0
    dead_seconds: Annotated[Seconds, Meta(description="A connection that says nothing for this long is dead.")] = 75.0
    tcp_user_timeout: Annotated[
        Seconds, Meta(description="Bytes that the peer's machine has not acknowledged for this long end a connection.")
    ] = 30.0
    mailbox_messages: Annotated[Count, Meta(description="Messages in one device's mailbox.")] = 10_000
    mailbox_bytes: Annotated[Size, Meta(description="Bytes in one device's mailbox.")] = 64 * 1024 * 1024
    mailbox_share: Annotated[
        float,
        Meta(gt=0, le=1, description="The part of it, in either, that one other account's messages may fill; 1: all."),
    ] = 0.5
    mailbox_page: Annotated[Count, Meta(description="Messages read from a mailbox at once.")] = 500
    mailbox_page_bytes: Annotated[Size, Meta(description="Bytes of them: no more is read once there are so many.")] = (
        1024 * 1024
    )
    write_batch: Annotated[Count, Meta(description="Messages written to the database in one transaction.")] = 100
    write_batch_bytes: Annotated[Size, Meta(description="Bytes of them; a message that is larger goes alone.")] = (
        4 * 1024 * 1024
    )
    write_queue_bytes: Annotated[
        Size, Meta(description="Bytes that may wait to be written; above that, messages for mailboxes are refused.")
    ] = 64 * 1024 * 1024
    sweep_seconds: Annotated[Seconds, Meta(description="How often mailboxes of live sessions are looked into.")] = 1.0
    lease_seconds: Annotated[
        Seconds, Meta(description="How long the balancer counts a client that was sent to a service and is not there.")
    ] = 10.0
    newcomer_share: Annotated[
        float, Meta(ge=1, le=1000, description="A service that has just come back takes this many shares of logins.")
    ] = 2.0

    goaways_per_second: Annotated[
        float, Meta(gt=0, description="Clients a second that a service which stops sends to the others.")
    ] = 200.0

    def __post_init__(self) -> None:
        if self.outbound_soft > self.outbound_hard:
            raise ValueError("`outbound_soft` is above `outbound_hard`")
        if self.ping_seconds >= self.dead_seconds:
            raise ValueError("`ping_seconds` is not below `dead_seconds`")

    @property
    def share_of_mailbox(self) -> tuple[int, int]:
        """Messages and bytes that one account may have in another's mailbox."""
        if self.mailbox_share == 1.0:
            return ANY_COUNT, ANY_COUNT
        return max(1, int(self.mailbox_messages * self.mailbox_share)), int(self.mailbox_bytes * self.mailbox_share)


class AttachmentLimits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What files may take, and how long they stay."""

    largest: Annotated[Size, Meta(description="Bytes of one file.")] = 100 * 1024 * 1024
    quota: Annotated[
        Size, Meta(description="Bytes of all files that one account has here; each counts from its beginning.")
    ] = 1024 * 1024 * 1024
    keep_days: Annotated[
        float, Meta(gt=0, le=36500, description="Days that a file is kept once all of it is here.")
    ] = 30.0
    unfinished_hours: Annotated[
        float, Meta(gt=0, le=8760, description="Hours that a file is kept to which nothing comes, but is not all here.")
    ] = 24.0
    remove_when_fetched: Annotated[
        bool, Meta(description="Remove a file as soon as all devices that it was sent to have it.")
    ] = True
    chunks_in_flight: Annotated[
        Count, Meta(description="Chunks, of 64 KiB, that one session may send or ask for at once.")
    ] = 32
    memory: Annotated[
        int,
        Meta(ge=1024 * 1024, le=2**40, description="Bytes of chunks that one process stores or hands out at once."),
    ] = 64 * 1024 * 1024


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole configuration. `load` makes it."""

    home: Path
    """$FASTCHAT_HOME, absolute: everything that must survive is under it."""
    port: Annotated[
        int,
        Meta(
            ge=0,
            le=65535 - OPERATIONS_OFFSET,
            description="The balancer's; services follow, operations are at +80. 0: any free. FASTCHAT_PORT wins.",
        ),
    ] = DEFAULT_PORT
    host: Annotated[str, Meta(min_length=1, max_length=255, description="Address to listen on.")] = "127.0.0.1"
    public_host: Annotated[
        str,
        Meta(max_length=255, description="Name or address in the invite link and the services list; `host` if empty."),
    ] = ""
    services: Annotated[int, Meta(ge=1, le=OPERATIONS_OFFSET - 1, description="How many chat services to run.")] = 5
    strategy: Annotated[
        Strategy, Meta(description="least-connections, round-robin, random or power-of-two-choices.")
    ] = "least-connections"
    log_level: Annotated[
        Literal["debug", "info", "warn"], Meta(description="What goes to the log file: debug, info or warn.")
    ] = "info"
    database: Database = Database()
    limits: Limits = Limits()
    attachments: AttachmentLimits = AttachmentLimits()

    def __post_init__(self) -> None:
        if not self.public_host and self.host in EVERYWHERE:
            raise ValueError(f"`host` is {self.host}, which clients cannot connect to: set `public_host` to a name")

    @property
    def advertised_host(self) -> str:
        """The host that clients are told."""
        return self.public_host or self.host

    @property
    def operations_port(self) -> int:
        """0 (any) when `port` is 0."""
        return self.port + OPERATIONS_OFFSET if self.port else 0

    def service_port(self, number: int) -> int:
        """The port of chat service `number` (from 1); 0 (any) when `port` is 0."""
        return self.port + number if self.port else 0


def load(environ: Mapping[str, str]) -> Config:
    """The configuration that `environ` (FASTCHAT_HOME, FASTCHAT_PORT, FASTCHAT_CONFIG) asks for.

    Raises `ConfigError` with one line that names the file or variable, and the key.
    """
    file = environ.get("FASTCHAT_CONFIG")
    values = _read(Path(file)) if file else {}
    if "home" in values:
        raise ConfigError(f"{file}: unknown key home (set the environment variable FASTCHAT_HOME)")
    home = Path(environ.get("FASTCHAT_HOME") or "var").expanduser().absolute()
    config = _convert({**values, "home": str(home)}, file or "FASTCHAT_HOME")
    if port := environ.get("FASTCHAT_PORT"):
        if not re.fullmatch("[0-9]{1,9}", port):
            raise ConfigError(f"FASTCHAT_PORT: {port!r} is not a port number")
        config = _convert({**values, "home": str(home), "port": int(port)}, "FASTCHAT_PORT")
    return config


def _read(file: Path) -> dict[str, Any]:
    try:
        with file.open("rb") as stream:
            return tomllib.load(stream)
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: is not TOML: {error}") from None


def _convert(values: Mapping[str, Any], source: str) -> Config:
    try:
        return msgspec.convert(values, Config, dec_hook=lambda _, value: Path(value))
    except msgspec.ValidationError as error:
        text, _, where = str(error).partition(" - at `$")
        where = where.strip("`.")
        if unknown := re.fullmatch("Object contains unknown field `(.*)`", text):
            key = f"{where}.{unknown[1]}" if where else unknown[1]
            raise ConfigError(f"{source}: unknown key {key}") from None
        raise ConfigError(": ".join(filter(None, (source, where, text)))) from None


def example() -> str:
    """A complete `fastchat.toml`: each key with its meaning and, commented out, its default."""
    return "\n".join(_lines(Config, "")) + "\n"


def _lines(struct: type[msgspec.Struct], table: str) -> Iterator[str]:
    if table:
        yield f"\n[{table}]"
    hints = get_type_hints(struct, include_extras=True)
    for field in msgspec.structs.fields(struct):
        if isinstance(field.default, msgspec.Struct):
            yield from _lines(type(field.default), field.name)
        elif field.default is not msgspec.NODEFAULT:
            notes = [note.description for note in hints[field.name].__metadata__ if note.description]
            default = '"host=/run/postgresql dbname=fastchat"' if field.default is None else _toml(field.default)
            yield f"# {notes[0]}"
            yield f"#{field.name} = {default}"


def _toml(value: Any) -> str:
    return msgspec.json.encode(value).decode()


if __name__ == "__main__":
    os.write(1, example().encode())
