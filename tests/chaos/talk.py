"""What a chaos client says, to whom and when: bursts to people it likes, to groups, now and then to anybody.

A text counts as said when the vault has it: so the counters are read from the vault at each start, and a `kill -9`
makes no gap.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from random import Random

from fastchat_client.vault import Vault
from tests.chaos.texts import compose, read

PAUSE_SECONDS = 5.0
"""Between two bursts of one client, on average."""
MOST_AT_ONCE = 8
MOST_PADDING = 3000
FRIENDS = 4
FRIENDSHIP = 0.8
"""How much of it goes to friends: order shows only where many messages follow each other."""
TO_GROUPS = 0.25
"""How much goes to groups instead, for whoever is in any."""
LETTERS = "abcdefghijklmnopqrstuvwxyz ABCDEFGHIJKLMNOPQRSTUVWXYZ 0123456789 .,:;#>!? äöüß – √ 漢字 🙂"


class Talk:
    """What `user` says to `everybody` else. The same seed and the same past say the same."""

    def __init__(self, vault: Vault, user: str, everybody: Sequence[str], seed: int) -> None:
        self._user = user
        others = [other for other in everybody if other != user]
        at = list(everybody).index(user)
        self._others = others
        self._friends = [others[(at + step) % len(others)] for step in range(min(FRIENDS, len(others)))]
        self._counters: Counter[str] = Counter()
        for conversation, text in vault.execute("SELECT conversation, text FROM messages WHERE own = 1"):
            said = read(text)
            if said is not None:
                self._counters[conversation] = max(self._counters[conversation], said.counter)
        self._random = Random(f"{seed} {user} {self.said}")

    @property
    def said(self) -> int:
        return self._counters.total()

    def pause(self) -> float:
        """Seconds until the next burst."""
        return self._random.expovariate(1 / PAUSE_SECONDS)

    def burst(self, groups: Sequence[str]) -> Iterator[tuple[str, str]]:
        """The next recipient's texts; it may be one of `groups`. Each counts when it is asked for: whoever asks has put
        the one before into the vault."""
        if groups and self._random.random() < TO_GROUPS:
            recipient = self._random.choice(groups)
        else:
            recipient = self._random.choice(self._friends if self._random.random() < FRIENDSHIP else self._others)
        for _ in range(self._random.randint(1, MOST_AT_ONCE)):
            padding = "".join(self._random.choices(LETTERS, k=int(MOST_PADDING * self._random.random() ** 4)))
            yield recipient, compose(self._user, recipient, self._counters[recipient] + 1, padding)
            self._counters[recipient] += 1

    def looks_up(self) -> bool:
        """Whether the person reads now what has come."""
        return self._random.random() < 0.2
