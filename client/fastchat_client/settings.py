"""What a person has set on this device: muted conversations, blocked accounts, timers, presence; and who was seen when.

Any process of the profile may read and set it at any time. Nothing here is sent, and nothing is decided: who may set a
conversation's timer is known to whoever asks for it here. Writes need a transaction around them, where none is opened.
"""

from __future__ import annotations

from fastchat.errors import RequestError
from fastchat_client.vault import Vault

_NO_PRESENCE = "no_presence"
_AUTO_DOWNLOAD = "auto_download"
AUTO_DOWNLOAD = 1024 * 1024
"""Bytes, if nothing was set."""


def mute(vault: Vault, conversation: str, on: bool) -> None:
    """Show what comes in it without a sign; or with one again."""
    with vault.transaction():
        vault.execute(
            "INSERT INTO conversation_settings (conversation, muted) VALUES (?, ?)"
            " ON CONFLICT (conversation) DO UPDATE SET muted = excluded.muted",
            (conversation, on),
        )


def is_muted(vault: Vault, conversation: str) -> bool:
    row = vault.execute("SELECT muted FROM conversation_settings WHERE conversation = ?", (conversation,)).fetchone()
    return bool(row and row[0])


def block(vault: Vault, user: str, on: bool) -> None:
    """Show nothing that `user` says from here on; or what is said from here on again. Raises `RequestError` for
    oneself."""
    if user == vault.text("user"):
        raise RequestError("you cannot block yourself")
    with vault.transaction():
        if on:
            vault.execute("INSERT OR IGNORE INTO blocked (user) VALUES (?)", (user,))
        else:
            vault.execute("DELETE FROM blocked WHERE user = ?", (user,))


def is_blocked(vault: Vault, user: str) -> bool:
    return vault.execute("SELECT 1 FROM blocked WHERE user = ?", (user,)).fetchone() is not None


def blocked(vault: Vault) -> list[str]:
    """By name."""
    return [user for (user,) in vault.execute("SELECT user FROM blocked ORDER BY user")]


# --- timers --------------------------------------------------------------------------------------------------------


def timer_of(vault: Vault, conversation: str) -> int:
    """Seconds after its reading that a message stays which is written now; 0: for ever."""
    row = vault.execute("SELECT timer FROM conversation_settings WHERE conversation = ?", (conversation,)).fetchone()
    return int(row[0]) if row else 0


def timer_set_at(vault: Vault, conversation: str) -> int:
    """When that was set, by the clock of who did; 0: never."""
    row = vault.execute("SELECT timer_at FROM conversation_settings WHERE conversation = ?", (conversation,)).fetchone()
    return int(row[0]) if row else 0


def set_timer(vault: Vault, conversation: str, seconds: int, at: int, device: str) -> bool:
    """`device` has set it at `at`. The newest counts, of equally old ones that of the greatest device, so that all who
    hear of the same ones have the same in the end. Whether this one counts."""
    row = vault.execute(
        "SELECT timer_at, timer_device FROM conversation_settings WHERE conversation = ?", (conversation,)
    ).fetchone()
    if row is not None and (row[0], row[1]) >= (at, device):
        return False
    vault.execute(
        "INSERT INTO conversation_settings (conversation, timer, timer_at, timer_device) VALUES (?, ?, ?, ?)"
        " ON CONFLICT (conversation) DO UPDATE SET timer = excluded.timer, timer_at = excluded.timer_at,"
        " timer_device = excluded.timer_device",
        (conversation, seconds, at, device),
    )
    return True


# --- presence ------------------------------------------------------------------------------------------------------


def set_presence(vault: Vault, on: bool) -> None:
    """Whether others are told that this person is there, and this person that others are: one with the other."""
    with vault.transaction():
        vault.put(_NO_PRESENCE, int(not on))


def presence_is_on(vault: Vault) -> bool:
    return not vault.number(_NO_PRESENCE)


def last_seen(vault: Vault, user: str) -> int:
    """Milliseconds since 1970 of the last sign that `user` was there; 0: there was none, or it is not shown."""
    row = vault.execute("SELECT last_seen FROM presence WHERE user = ?", (user,)).fetchone()
    return int(row[0]) if row and presence_is_on(vault) else 0


def seen(vault: Vault, user: str, at: int) -> None:
    """`user` was there at `at`."""
    vault.execute("INSERT OR REPLACE INTO presence (user, last_seen) VALUES (?, ?)", (user, at))


# --- files ---------------------------------------------------------------------------------------------------------


def auto_download(vault: Vault) -> int:
    """Up to how many bytes a file is fetched without being asked for; 0: none is."""
    value = vault.text(_AUTO_DOWNLOAD)
    return int(value) if value else AUTO_DOWNLOAD


def set_auto_download(vault: Vault, size: int) -> None:
    with vault.transaction():
        vault.put(_AUTO_DOWNLOAD, str(size))
