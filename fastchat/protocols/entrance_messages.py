"""What is said on a chat connection up to its login, as msgspec Structs; a part of `wire.py`'s unions."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from fastchat.protocols.shapes import (
    Checkpoint,
    DeviceId,
    DeviceKeys,
    Id,
    Name,
    ScramVerifier,
    SessionLimits,
    Signed,
    Token,
)

# --- what a client says --------------------------------------------------------------------------------------------


class Hello(msgspec.Struct, tag_field="t", tag="hello", frozen=True, omit_defaults=True):
    """client → service, first of all. `lease` is what the balancer gave. Answered by `welcome`."""

    id: Id
    version: int
    lease: Token = ""


class Register(msgspec.Struct, tag_field="t", tag="register", frozen=True):
    """client → service, after `welcome`: create this account with its first device. `links` are its genesis and the
    add_device of that device; `invite` is the invite's token. Answered by `registered`; then comes `login`."""

    id: Id
    user: Name
    invite: Token
    verifier: ScramVerifier
    links: Annotated[tuple[Signed, ...], Meta(min_length=2, max_length=2)]
    keys: DeviceKeys


class ScramRequest(msgspec.Struct, tag_field="t", tag="scram", frozen=True):
    """client → service, after `welcome`: one message of SCRAM-SHA-256-PLUS (RFC 5802, RFC 7677): the client-first,
    then the client-final message. Answered by `scram`."""

    id: Id
    message: Annotated[str, Meta(max_length=1024)]


class AddDevice(msgspec.Struct, tag_field="t", tag="add_device", frozen=True):
    """client → service, after SCRAM: `link` (add_device, signed by the RSA key) becomes number `position` of the
    chain. Answered by `added`; then comes `login`."""

    id: Id
    position: Id
    link: Signed
    keys: DeviceKeys


class Login(msgspec.Struct, tag_field="t", tag="login", frozen=True):
    """client → service: the device's signature over `identity.login.statement`. Answered by `ready`."""

    id: Id
    user: Name
    device: DeviceId
    signature: Annotated[bytes, Meta(min_length=64, max_length=64)]


# --- what a client hears -------------------------------------------------------------------------------------------


class Welcome(msgspec.Struct, tag_field="t", tag="welcome", frozen=True):
    """service → client, answers `hello`. `challenge` is 32 random bytes for this connection's login."""

    re: Id
    version: int
    service: Name
    challenge: bytes
    limits: SessionLimits


class Registered(msgspec.Struct, tag_field="t", tag="registered", frozen=True):
    """service → client, answers `register`: the account exists."""

    re: Id


class ScramAnswer(msgspec.Struct, tag_field="t", tag="scram", frozen=True, omit_defaults=True):
    """service → client, answers `scram`: the server-first, then the server-final message. After the latter the
    password is proven, and so is the server's knowledge of the verifier. `links`, with the latter only: the account's
    whole chain, which `add_device` must follow on."""

    re: Id
    message: str
    links: tuple[Signed, ...] = ()


class Added(msgspec.Struct, tag_field="t", tag="added", frozen=True):
    """service → client, answers `add_device`."""

    re: Id


class Ready(msgspec.Struct, tag_field="t", tag="ready", frozen=True):
    """service → client, answers `login`: the session is live. `mailbox` messages are waiting and follow;
    `one_time_keys` are left (both null while the database is away: not known now); `checkpoint` is the key log's
    newest."""

    re: Id
    mailbox: int | None
    one_time_keys: int | None
    checkpoint: Checkpoint
