"""What a command does on the network and then ends: joining it, and what all such commands share. Each is a coroutine
that returns an exit code.

They print results on stdout, and what a person should know meanwhile on stderr; the command line itself, passwords
and what an exception becomes are `cli.py`'s.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred

from fastchat.errors import Busy, FastChatError, TrustError, Unreachable, by_code
from fastchat_client.entrance import Enrolment
from fastchat_client.events import Connected, Disconnected, Event
from fastchat_client.messenger import Messenger
from fastchat_client.patience import is_final
from fastchat_client.profile import Profile
from fastchat_client.running import Running
from fastchat_client.terminal.text import clean_line
from fastchat_client.vault import Vault

DOUBT = "a contact says that the server shows it another log of everybody's keys; one of the two is lying"

JOIN_SECONDS = 60.0


class NotYet(FastChatError):
    """It could not be done now; it can be later."""

    code = "not-yet"


class Ending:
    """A result that one of several things brings: an exit code, or a `FastChatError`. The first one counts."""

    def __init__(self) -> None:
        self.result: Deferred[int] = Deferred()

    def __call__(self, result: int | FastChatError) -> None:
        if not self.result.called:
            if isinstance(result, FastChatError):
                self.result.errback(result)
            else:
                self.result.callback(result)

    def drop(self) -> None:
        """Something else has ended it."""
        self.result.addErrback(lambda _: 0)


def progress(text: str) -> None:
    """For a person who waits: on stderr, if that is a terminal."""
    if sys.stderr.isatty():
        say(text)


def say(text: str) -> None:
    print(f"fastchat: {clean_line(text)}", file=sys.stderr, flush=True)


async def until(reactor: Any, seconds: float | None, ending: Ending, late: Callable[[], int | FastChatError]) -> int:
    """The ending's result; after `seconds`, if that is not None, what `late` says."""
    timer = None if seconds is None else reactor.callLater(seconds, lambda: ending(late()))
    try:
        return await ending.result
    finally:
        if timer is not None and timer.active():
            timer.cancel()


def problem_of(event: Disconnected) -> FastChatError:
    """The exception that ended a connection."""
    return by_code(event.code)(event.reason)


# --- join ----------------------------------------------------------------------------------------------------------


async def join(running: Running, profile: Profile, vault: Vault, enrolment: Enrolment | None) -> int:
    """Register what `messenger.prepare` made. Raises the network's refusal, or `NotYet` if it was not reached."""
    ending = Ending()

    def told(events: list[Event]) -> None:
        for event in events:
            if isinstance(event, Connected):
                ending(0)
            elif isinstance(event, Disconnected):
                problem = problem_of(event)
                # `busy` is how the way in says: once more from the beginning.
                if not isinstance(problem, Busy):
                    ending(problem if is_final(problem) or isinstance(problem, TrustError) else _join_later(problem))

    messenger = Messenger(profile, vault, running.reactor, told, enrolment)
    messenger.start()
    try:
        return await until(running.reactor, JOIN_SECONDS, ending, lambda: _join_later(Unreachable()))
    finally:
        await messenger.stop()


def _join_later(problem: FastChatError) -> FastChatError:
    return NotYet(f"{problem.message}; your keys are kept: the same command goes on where this one stopped")
