"""Everything that FastChat itself can refuse, on either side, in one tree.

    FastChatError
    ├── ConfigError                 config           the configuration or the machine cannot be used
    ├── ProtocolError               bad-frame        the peer broke the grammar
    │   ├── FrameTooLong            frame-too-long
    │   ├── OutOfTurn               out-of-turn
    │   └── UnsupportedVersion      unsupported-version
    ├── RequestError                bad-request      well-formed, but refused for what it asks
    │   ├── NameNotAllowed          name-not-allowed
    │   ├── NameTaken               name-taken
    │   ├── InviteInvalid           invite-invalid
    │   ├── UnknownUser             unknown-user
    │   ├── UnknownDevice           unknown-device
    │   ├── DeviceTaken             device-taken
    │   ├── ChainInvalid            chain-invalid
    │   ├── SignatureInvalid        signature-invalid
    │   ├── GroupInvalid            group-invalid
    │   ├── GroupChanged            group-changed
    │   ├── NotAllowed              not-allowed
    │   ├── UnknownGroup            unknown-group
    │   ├── UnknownAttachment       unknown-attachment
    │   ├── LoginFailed             login-failed
    │   └── MailboxFull             mailbox-full
    ├── LimitError                  limit            a limit of this server; nothing is wrong with the request
    │   ├── RateLimited             rate-limited
    │   ├── TooManyConnections      too-many-connections
    │   ├── LoginTimeout            login-timeout
    │   ├── SlowReader              slow-reader
    │   ├── AttachmentTooLarge      attachment-too-large
    │   └── QuotaExceeded           quota-exceeded
    ├── Busy                        busy             cannot be done now; ask again after `retry_after` seconds
    ├── Replaced                    replaced         the same device logged in elsewhere
    ├── DeviceRevoked               device-revoked   its account has revoked this device, for good
    ├── Internal                    internal         our own fault; the log has the traceback
    ├── Unreachable                 unreachable      no connection, or none any more (client side)
    └── TrustError                  untrusted        what the server or a peer says does not verify (client side)
        ├── RootChanged             root-changed
        ├── LogInconsistent         log-inconsistent
        ├── CertificateMismatch     certificate-mismatch
        └── AttachmentDamaged       attachment-damaged

The second column is the wire code (`error.code` in `PROTOCOL.md`). Codes are stable: a code is never given a
new meaning. The first line of each docstring is what a person reads when no better text was given.
"""

from __future__ import annotations

from typing import ClassVar


class FastChatError(Exception):
    """Something went wrong."""

    code: ClassVar[str] = "error"
    retry_after: float | None = None
    """Seconds to wait before the same is worth trying again; None where that would not help."""
    devices: tuple[str, ...] = ()
    """In answer to `send`: those of its recipients that do not have the message. The others do."""

    def __init__(self, message: str = "", retry_after: float | None = None) -> None:
        if retry_after is not None:
            self.retry_after = retry_after
        super().__init__(message or (type(self).__doc__ or "").partition("\n")[0])

    @property
    def message(self) -> str:
        """The sentence for a person; also `error.message` on the wire."""
        return str(self.args[0])


class ConfigError(FastChatError):
    """The configuration cannot be used."""

    code = "config"


class ProtocolError(FastChatError):
    """This line is not a message that is understood here."""

    code = "bad-frame"


class FrameTooLong(ProtocolError):
    """The line is longer than this connection allows."""

    code = "frame-too-long"


class OutOfTurn(ProtocolError):
    """This message cannot be sent in this state of the connection."""

    code = "out-of-turn"


class UnsupportedVersion(ProtocolError):
    """This version of the protocol is not spoken here; upgrade the older side."""

    code = "unsupported-version"


class RequestError(FastChatError):
    """The request was refused."""

    code = "bad-request"


class NameNotAllowed(RequestError):
    """A name has 2 to 32 characters: a-z, 0-9, and . _ - inside; it starts and ends with a letter or digit."""

    code = "name-not-allowed"


class NameTaken(RequestError):
    """This name is taken; choose another one."""

    code = "name-taken"


class InviteInvalid(RequestError):
    """This invite is not valid (any more); ask for a new link."""

    code = "invite-invalid"


class UnknownUser(RequestError):
    """There is nobody of this name on this network."""

    code = "unknown-user"


class UnknownDevice(RequestError):
    """There is no such device."""

    code = "unknown-device"


class DeviceTaken(RequestError):
    """This device belongs to an account already."""

    code = "device-taken"


class ChainInvalid(RequestError):
    """The links do not form a valid chain from the account's RSA key."""

    code = "chain-invalid"


class SignatureInvalid(RequestError):
    """A signature does not verify."""

    code = "signature-invalid"


class GroupInvalid(RequestError):
    """The statements do not form a valid chain of this group."""

    code = "group-invalid"


class GroupChanged(RequestError):
    """The group has changed meanwhile; fetch what is new, and try again if it still makes sense."""

    code = "group-changed"


class NotAllowed(RequestError):
    """The group's rules do not allow this."""

    code = "not-allowed"


class UnknownGroup(RequestError):
    """There is no such group, or it is none of yours."""

    code = "unknown-group"


class UnknownAttachment(RequestError):
    """The network does not have this attachment (any more), or not all of it."""

    code = "unknown-attachment"


class LoginFailed(RequestError):
    """The name, the password or the device's signature is wrong."""

    code = "login-failed"


class MailboxFull(RequestError):
    """The recipient's mailbox is full; the message was not stored."""

    code = "mailbox-full"


class LimitError(FastChatError):
    """A limit of this server was reached."""

    code = "limit"


class RateLimited(LimitError):
    """Too much in too short a time."""

    code = "rate-limited"
    retry_after = 1.0


class TooManyConnections(LimitError):
    """Too many connections, from this address or altogether."""

    code = "too-many-connections"


class LoginTimeout(LimitError):
    """The login took too long."""

    code = "login-timeout"


class SlowReader(LimitError):
    """The other side did not read what was sent to it."""

    code = "slow-reader"


class AttachmentTooLarge(LimitError):
    """The file is larger than this network takes."""

    code = "attachment-too-large"


class QuotaExceeded(LimitError):
    """There is no room for this file until others of yours are fetched by everybody, deleted, or expire."""

    code = "quota-exceeded"


class Busy(FastChatError):
    """The network cannot do this right now; nothing was lost, and it will be asked again."""

    code = "busy"
    retry_after = 2.0


class Replaced(FastChatError):
    """This device has logged in elsewhere; this session ends."""

    code = "replaced"


class DeviceRevoked(FastChatError):
    """This device has been revoked by another one of its account; it cannot be used any more."""

    code = "device-revoked"


class Internal(FastChatError):
    """The server made a mistake; it is in its log."""

    code = "internal"


class Unreachable(FastChatError):
    """The network cannot be reached from here now."""

    code = "unreachable"


class TrustError(FastChatError):
    """What the server or a peer says does not verify."""

    code = "untrusted"


class RootChanged(TrustError):
    """This account's RSA key is not the one seen before."""

    code = "root-changed"


class LogInconsistent(TrustError):
    """The server shows different key logs to different people, or has changed the past."""

    code = "log-inconsistent"


class CertificateMismatch(TrustError):
    """The server's certificate is not the one that the invite names."""

    code = "certificate-mismatch"


class AttachmentDamaged(TrustError):
    """What the server hands out is not the file that was sent."""

    code = "attachment-damaged"


def by_code(code: str) -> type[FastChatError]:
    """The exception of this wire code; `FastChatError` for a code of a newer peer."""
    return _BY_CODE.get(code, FastChatError)


def _tree(kind: type[FastChatError]) -> list[type[FastChatError]]:
    return [kind, *(below for child in kind.__subclasses__() for below in _tree(child))]


_BY_CODE = {kind.code: kind for kind in _tree(FastChatError)}
