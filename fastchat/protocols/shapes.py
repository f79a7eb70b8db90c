"""The shapes that messages are made of: names, numbers and the Structs that several messages share.

A shape says what a value looks like on the wire, not whether it is true. Bytes are base64. `wire.py` gives out all of
these; import them from there.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta, Raw

Id = Annotated[int, Meta(ge=0, le=2**53 - 1)]
"""A request's number, or a counter: exact in every JSON implementation."""
Name = Annotated[str, Meta(min_length=1, max_length=64)]
DeviceId = Annotated[str, Meta(pattern=r"^[0-9a-f]{32}\Z")]
GroupId = Annotated[str, Meta(pattern=r"^[0-9a-f]{32}\Z")]
Token = Annotated[str, Meta(max_length=128)]


class Signed(msgspec.Struct, frozen=True):
    """A statement as its exact bytes, with the signature over them; also the shape of a link."""

    body: Annotated[bytes, Meta(max_length=4096)]
    signature: Annotated[bytes, Meta(max_length=512)]


class ScramVerifier(msgspec.Struct, frozen=True):
    """What RFC 5802 lets a server keep instead of a password: enough to check a login, useless to log in with."""

    salt: Annotated[bytes, Meta(min_length=16, max_length=64)]
    iterations: Annotated[int, Meta(ge=4096, le=1_000_000)]
    stored_key: Annotated[bytes, Meta(min_length=32, max_length=32)]
    server_key: Annotated[bytes, Meta(min_length=32, max_length=32)]


class DeviceKeys(msgspec.Struct, frozen=True, omit_defaults=True):
    """Prekeys that a device publishes, each signed by its Ed25519 key (`identity.prekeys`). What is not given stays
    as it is."""

    one_time: Annotated[tuple[Signed, ...], Meta(max_length=50)] = ()
    fallback: Signed | None = None
    seal: Signed | None = None


class Bundle(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one needs to write to a device. `one_time` was given out to this request alone; None when the device has
    none left, or none was claimed."""

    device: DeviceId
    seal: Signed
    fallback: Signed
    one_time: Signed | None = None


class AccountKeys(msgspec.Struct, frozen=True):
    """An account's whole chain of links, in order, and the bundle of each of its devices that has published."""

    user: Name
    links: tuple[Signed, ...]
    bundles: tuple[Bundle, ...]


class Checkpoint(msgspec.Struct, frozen=True):
    """The key log at one size: its RFC 9162 root hash, signed by the log key that the invite pins
    (`identity.keylog`)."""

    size: Id
    root: Annotated[bytes, Meta(min_length=32, max_length=32)]
    signature: Annotated[bytes, Meta(min_length=64, max_length=64)]


class ServiceAddress(msgspec.Struct, frozen=True):
    """Where a chat service listens."""

    name: Name
    host: Annotated[str, Meta(max_length=255)]
    port: Annotated[int, Meta(ge=1, le=65535)]


class SessionLimits(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a client must keep to on this connection."""

    max_line: int
    """Bytes, once logged in."""
    unaccepted: int
    """`send`s that may wait for `accepted` at once."""
    sends_per_second: float
    window_messages: int
    window_bytes: int
    """What a service hands over before it waits for `received`."""
    ping_every: float
    dead_after: float
    """Seconds; a side that hears nothing for `dead_after` gives the connection up."""
    chunks: Annotated[int, Meta(ge=0, le=2**31 - 1)] = 0
    """`chunk`s and `fetch`es that may be unanswered at once; 0: this network takes no attachments."""
    largest_attachment: Id = 0
    """Bytes of a file."""


class Recipient(msgspec.Struct, frozen=True, gc=False):
    """One device that a message goes to, and the body for it: a JSON string, opaque to the server."""

    device: DeviceId
    body: Raw
