"""What is said about the devices of one's own account, as msgspec Structs; a part of `wire.py`'s unions."""

from __future__ import annotations

import msgspec

from fastchat.protocols.shapes import Id, Signed


class Revoke(msgspec.Struct, tag_field="t", tag="revoke", frozen=True):
    """client → service: `link` (revoke_device, signed by the RSA key) becomes number `position` of the chain of this
    account. Answered by `revoked`, also when it is there already; then the device that it names is gone: its session
    ends, and it logs in no more."""

    id: Id
    position: Id
    link: Signed


class Revoked(msgspec.Struct, tag_field="t", tag="revoked", frozen=True):
    """service → client, answers `revoke`."""

    re: Id
