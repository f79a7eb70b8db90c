"""The one way in which a message cannot be read, with the reason: what `ratchet` and `content` raise, whatever came."""

from __future__ import annotations

from enum import StrEnum

from fastchat.errors import FastChatError


class Reason(StrEnum):
    """Why. The values are stable: they stand in vaults and in requests to send a message again."""

    BAD_ENVELOPE = "bad-envelope"
    UNKNOWN_SEAL_KEY = "unknown-seal-key"
    NO_SESSION = "no-session"
    BAD_MAC = "bad-mac"
    WRONG_IDENTITY = "wrong-identity"
    BAD_CONTENT = "bad-content"
    NEWER_CLIENT = "newer-client"
    REVOKED_DEVICE = "revoked-device"

    @property
    def sentence(self) -> str:
        """For a person."""
        return _SENTENCES[self]


_SENTENCES = {
    Reason.BAD_ENVELOPE: "its envelope is damaged, or was not sealed for this device",
    Reason.UNKNOWN_SEAL_KEY: "it was sealed with a key that this device does not have (any more)",
    Reason.NO_SESSION: "it belongs to an encrypted session that this device does not have",
    Reason.BAD_MAC: "it does not decrypt: it is damaged, came twice, or is out of step",
    Reason.WRONG_IDENTITY: "it is not from the device, or not for the device, that it was handed over as",
    Reason.BAD_CONTENT: "its content is malformed",
    Reason.NEWER_CLIENT: "it was written by a newer client; upgrade this one to read it",
    Reason.REVOKED_DEVICE: "it is the first one of a device that its account has revoked",
}


def in_words(reason: str) -> str:
    """Of a reason as it stands in a vault; one that this version does not know stays as it is."""
    return Reason(reason).sentence if reason in set(Reason) else reason


class Unreadable(FastChatError):
    """This message cannot be read."""

    code = "unreadable"

    def __init__(self, reason: Reason, tried: tuple[str, ...] = ()) -> None:
        super().__init__(f"this message cannot be read: {reason.sentence}")
        self.reason = reason
        self.tried = tried
        """Ids of the Olm sessions that failed to decrypt it: after a number of failures a session is given up."""


def late(user: str, device: str) -> str:
    """What is said beside a message of a device that its account has revoked."""
    return (
        f"a message of {user} comes from the device {device[:8]}, which {user} has revoked: it was written before "
        "that, or by whoever has the device now"
    )
