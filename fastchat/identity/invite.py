"""The invite link: where a network is, what its certificate and its log key are, and a token that lets one person in.

Whoever got the link from somebody they trust needs no certificate authority and cannot be led to another network. It
knows no server: it is text in, four facts out.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import ipaddress
import re
from dataclasses import dataclass

from fastchat.errors import InviteInvalid

_SCHEME = "fastchat://"
_LINK = re.compile(
    r"(?P<host>\[[^\]/?#@]*\]|[^:\[\]/?#@]*):(?P<port>[0-9]{1,5})/(?P<pin>[^/?#]*)/(?P<log>[^/?#]*)/(?P<token>[^/?#]*)"
)
_HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9._-]{0,252}[A-Za-z0-9_])?\.?")
_TOKEN = re.compile(r"[A-Za-z0-9_-]{1,128}")
_BASE64URL = re.compile(r"[A-Za-z0-9_-]*")


@dataclass(frozen=True, slots=True)
class Invite:
    """`fastchat://HOST:PORT/PIN/LOG-KEY/TOKEN`, pin and log key in base64url without padding (RFC 4648 section 5):
    nothing in it has a meaning to a shell, so that it can be pasted as it is. An invite that could not be written as
    a link cannot be made: raises `InviteInvalid`."""

    host: str
    """A name or an address; an IPv6 address without its brackets."""
    port: int
    pin: bytes
    """SHA-256 of the server certificate's DER."""
    log_key: bytes
    """The log key's public half, Ed25519, 32 bytes."""
    token: str

    def __post_init__(self) -> None:
        if not _is_ipv6(self.host) and (_HOST.fullmatch(self.host) is None or len(self.host) > 253):
            raise InviteInvalid(f"the invite names no host that there can be: {self.host!r}")
        if not 1 <= self.port <= 65535:
            raise InviteInvalid(f"the invite names no port that there can be: {self.port}")
        if len(self.pin) != 32:
            raise InviteInvalid("the invite's pin is not the SHA-256 of a certificate (32 bytes)")
        if len(self.log_key) != 32:
            raise InviteInvalid("the invite's log key is not an Ed25519 key (32 bytes)")
        if not is_token(self.token):
            raise InviteInvalid("the invite's token is empty, too long or has characters that no token has")

    def __str__(self) -> str:
        return (
            f"{_SCHEME}{host_and_port(self.host, self.port)}/{_to_text(self.pin)}/{_to_text(self.log_key)}/{self.token}"
        )

    @classmethod
    def parse(cls, link: str) -> Invite:
        """The invite in `link`; white space around it is forgiven. Raises `InviteInvalid`, saying what is wrong,
        whatever the text."""
        link = link.strip()
        if not link.startswith(_SCHEME):
            raise InviteInvalid(f"an invite link begins with {_SCHEME}")
        found = _LINK.fullmatch(link, len(_SCHEME))
        if found is None:
            raise InviteInvalid(f"an invite link looks like {_SCHEME}HOST:PORT/PIN/LOG-KEY/TOKEN; is it complete?")
        host = found["host"]
        if host.startswith("["):
            host = host[1:-1]
            if not _is_ipv6(host):
                raise InviteInvalid(f"the invite has no IPv6 address in its brackets: {host!r}")
        return cls(
            host=host,
            port=int(found["port"]),
            pin=_from_text("pin", found["pin"]),
            log_key=_from_text("log key", found["log"]),
            token=found["token"],
        )


def host_and_port(host: str, port: int) -> str:
    """As in a URL (RFC 3986 section 3.2.2): an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_token(text: str) -> bool:
    """Whether it can be an invite's token: 1 to 128 characters of base64url."""
    return _TOKEN.fullmatch(text) is not None


def invite_digest(token: str) -> bytes:
    """SHA-256 of an invite's token, 32 bytes: what the store keeps, so that reading it invites nobody."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


def _is_ipv6(host: str) -> bool:
    try:
        ipaddress.IPv6Address(host)
    except ValueError:
        return False
    return "%" not in host


def _to_text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode("ascii").rstrip("=")


def _from_text(name: str, text: str) -> bytes:
    try:
        data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (binascii.Error, ValueError):
        data = b""
    if not text or _BASE64URL.fullmatch(text) is None or _to_text(data) != text:
        raise InviteInvalid(f"the invite's {name} is missing or not base64url; is the link complete?")
    return data
