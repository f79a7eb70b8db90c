"""Who was in which group when, read off the groups' chains in the clients' vaults, and so whose a message is. No code
of the product is used.

A chain is a list of statements, JSON each; a later one holds the SHA-256 of the one before, and a group's id is a hash
of the first. Everybody has the same chain, or a beginning of it. Signatures are not looked at: who lies about whom is
not what a fault changes.
"""

from __future__ import annotations

import hashlib
import json
from base64 import b64decode
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any

from tests.chaos.clients import KEYS, Client, OutboxRow
from tests.chaos.texts import GROUP

_ID = b"FastChat-v1|group-id|"


class Membership:
    """Of all groups that any of `clients` knows. `damage`: (whose vault, in words) for what cannot be."""

    def __init__(self, clients: Iterable[Client]) -> None:
        clients = list(clients)
        self._users = {client.device: client.user for client in clients}
        self.damage: list[tuple[str, str]] = []
        longest: dict[str, tuple[str, list[bytes]]] = {}
        for client in clients:
            for group, chain in client.chains.items():
                if len(chain) > len(longest.get(group, ("", ()))[1]):
                    longest[group] = client.user, chain
        self._members: dict[str, list[frozenset[str]]] = {}
        for group, (user, chain) in longest.items():
            for what in _judge(group, chain):
                self.damage.append((user, what))
            self._members[group] = list(_members(chain))
        for client in clients:
            for group, chain in client.chains.items():
                if chain != longest[group][1][: len(chain)]:
                    what = f"another chain of {group[:8]} than in the vault of {longest[group][0]}"
                    self.damage.append((client.user, what))

    @property
    def statements(self) -> int:
        return sum(len(members) - 1 for members in self._members.values())

    def length(self, conversation: str) -> int:
        """How many statements there are of the group; 0 if nobody knows it."""
        return len(self._members.get(conversation[1:], [frozenset()])) - 1

    def at(self, conversation: str, lengths: Iterable[int]) -> frozenset[str]:
        """Who was a member when the chain had one of these lengths."""
        members = self._members.get(conversation[1:], [])
        return frozenset(user for length in lengths if length < len(members) for user in members[length])

    def recipients(self, sender: Client, box: OutboxRow) -> frozenset[str]:
        """Whom a message is for, as it went last."""
        return self._of(sender, box.n, box.user, {box.length})

    def readers(self, sender: Client, n: int, to: str) -> frozenset[str]:
        """Who may have message `n`, which was for `to`, a user or a conversation or a queue of keys: whoever it ever
        went to."""
        box = sender.outbox.get(n)
        return self._of(sender, n, to, {0 if box is None else box.length, *sender.went.get(n, ())})

    def _of(self, sender: Client, n: int, to: str, lengths: set[int]) -> frozenset[str]:
        if to.startswith(KEYS):
            return frozenset(self._users.get(device, "") for device in sender.keys.get(n, ()))
        return self.at(to, lengths) - {sender.user} if to.startswith(GROUP) else frozenset({to})

    def has_been_out(self, conversation: str, user: str) -> bool:
        """Whether `user` was a member and, later, was not."""
        was_in = False
        for members in self._members.get(conversation[1:], []):
            if was_in and user not in members:
                return True
            was_in = was_in or user in members
        return False


def _judge(group: str, chain: Sequence[bytes]) -> Iterator[str]:
    """What of a chain does not follow on what is before it."""
    if hashlib.sha256(_ID + chain[0]).digest()[:16].hex() != group:
        yield f"the first statement of {group[:8]} is another group's"
    for position, (before, body) in enumerate(pairwise(chain), start=1):
        statement = json.loads(body)
        if (statement["position"], b64decode(statement["prev"])) != (position, hashlib.sha256(before).digest()):
            yield f"statement {position} of {group[:8]} does not follow on the one before it"


def _members(chain: Sequence[bytes]) -> Iterator[frozenset[str]]:
    """By the length of the chain, from 0."""
    members: frozenset[str] = frozenset()
    yield members
    for body in chain:
        statement: dict[str, Any] = json.loads(body)
        match statement["t"]:
            case "create" | "join":
                members |= {statement["user"]}
            case "leave":
                members -= {statement["user"]}
            case "remove":
                members -= {statement["who"]}
            case "delete":
                members = frozenset()
        yield members
