"""Which accounts' keys are to be asked for, and which were: one open question for each account, many in a request.

It knows names and times only; what is done with the keys is decided elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

MOST_USERS = 16
"""In one request: an account with three devices takes 14 KB of an answer, which must fit into a line."""
MOST_REQUESTS = 8
"""Unanswered at once."""
PATIENCE = 30.0
"""Seconds after which a question that came to nothing is worth asking again."""
NOBODY_PATIENCE = 2.0
"""Seconds after which somebody who was not there is asked for again: people join while others wait for them, and what
is written to them next should not wait long."""
MOST_USERS_WAITING = 10_000


@dataclass(slots=True)
class Question:
    """One request. `claim`: with a one-time key of each device."""

    users: tuple[str, ...]
    claim: bool


class Fetching:
    """Of one connection: begin with a new one after a reconnect."""

    def __init__(self) -> None:
        self._wanted: dict[str, bool] = {}
        self._open: dict[int, Question] = {}
        self._not_before: dict[str, float] = {}
        self._most_users = MOST_USERS

    def want(self, user: str, claim: bool = False) -> None:
        """The keys of `user` are needed; with `claim`, to start sessions."""
        if any(user in question.users and question.claim >= claim for question in self._open.values()):
            return
        if user in self._wanted or len(self._wanted) < MOST_USERS_WAITING:
            self._wanted[user] = self._wanted.get(user, False) or claim

    def questions(self, now: float) -> Iterator[Question]:
        """What is to be asked now; say `asked` for each."""
        for claim in (False, True):
            users = [
                user
                for user, claiming in self._wanted.items()
                if claiming is claim and self._not_before.get(user, 0.0) <= now
            ]
            while users and len(self._open) < MOST_REQUESTS:
                batch, users = users[: self._most_users], users[self._most_users :]
                for user in batch:
                    del self._wanted[user]
                yield Question(tuple(batch), claim)

    @property
    def is_asking(self) -> bool:
        """Whether an answer is still to come."""
        return bool(self._open)

    def asked(self, request: int, question: Question) -> None:
        self._open[request] = question

    def answered(self, request: int) -> Question | None:
        """The question that `request` asked, if it is still open."""
        return self._open.pop(request, None)

    def too_many(self, question: Question) -> bool:
        """The server will not answer for so many users at once: ask for fewer from now on. False if it was one."""
        if len(question.users) == 1:
            return False
        self._most_users = len(question.users) // 2
        for user in question.users:
            self.want(user, question.claim)
        return True

    def in_vain(self, user: str, now: float, patience: float = PATIENCE) -> None:
        """The answer was of no use: do not ask again before `patience` seconds have passed."""
        self._not_before[user] = now + patience

    def want_later(self, user: str, now: float, claim: bool = False) -> None:
        """What is known of `user` is of no use: ask again, but not at once. May be said over and over."""
        if user not in self._wanted:
            self.in_vain(user, now)
        self.want(user, claim)
