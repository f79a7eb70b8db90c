"""What stands in a vault, whatever table it is in."""

from __future__ import annotations

from fastchat_client.vault import Vault


def words_in(vault: Vault, words: str) -> list[str]:
    """The tables in which these words stand somewhere."""
    names = [name for (name,) in vault.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")]
    found = []
    for name in names:
        rows = vault.execute(f"SELECT * FROM {name}").fetchall()  # noqa: S608
        if any(words in str(value) or words.encode() in _bytes(value) for row in rows for value in row):
            found.append(name)
    return found


def _bytes(value: object) -> bytes:
    return value if isinstance(value, bytes) else b""
