"""Something that is to be done on the network, and waited for: a message, an act upon a group, a file.

It is composed into the vault first, and from there it is done sooner or later, whatever becomes of this process. Then
either this process connects and does it, or it looks on while the one does that is connected with this profile.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from twisted.internet.task import LoopingCall, deferLater

from fastchat.errors import FastChatError, RequestError, TrustError, UnknownGroup
from fastchat_client.composing import is_empty, outgoing_state
from fastchat_client.events import Connected, Disconnected, Event, GroupAlarm, LogAlarm, MailboxProgress, State
from fastchat_client.groups import resolve
from fastchat_client.inbox import Inbox
from fastchat_client.messenger import Messenger
from fastchat_client.once import DOUBT, Ending, NotYet, problem_of, say, until
from fastchat_client.profile import Profile, ProfileInUse
from fastchat_client.running import Running, run
from fastchat_client.vault import Vault, split_id

POLL_SECONDS = 0.1
"""Between two looks at what has become of an errand in the vault."""
SETTLE_SECONDS = 5.0
"""For what else there is to be sent, once the errand is done; it is sent later otherwise."""
FIND_SECONDS = 10.0
"""From the login, for a group that is not known here to be told of: as long as an invitation may be on its way."""


@dataclass(frozen=True)
class Errand:
    """What was composed. `outcome`: what the vault says has become of it: an exit code, an error, or None while it is
    under way. `waits`: what is true of it until then, in words; `undone`: what is, if it cannot be done."""

    outcome: Callable[[], int | FastChatError | None]
    waits: str = "it waits in the outbox"
    undone: str = "nothing was done"
    to: str = ""
    """The user whose changed key keeps it back."""
    later: str = "goes out at the next connection"

    @property
    def kept(self) -> str:
        return f"{self.waits} and {self.later}"


Composing = Callable[[str], Errand]
"""Composes it for a conversation, once."""
Beginning = Callable[[Messenger], Awaitable[Errand]]
"""Begins it by a messenger, and says what it is then."""


def carry_out(profile: Profile, vault: Vault, where: str, compose: Composing, seconds: float | None) -> int:
    """Have it done, in the way that the profile's lock allows; its exit code. `where`: the conversation, as a person
    writes it ("bob", "#team"; "" if `compose` knows). Raises why it will never be done, or `NotYet` after `seconds`."""
    try:
        with profile.locked():
            return run(lambda running: connect_for(running, profile, vault, where, compose, seconds))
    except ProfileInUse:
        return run(lambda running: look_on(running, vault, where, compose, seconds))


def outgoing(vault: Vault, message_id: str, to: str = "") -> Errand:
    """A message, or whatever else stands in the outbox as `message_id`; done when it cannot be lost any more."""

    def outcome() -> int | FastChatError | None:
        state = outgoing_state(vault, split_id(message_id)[1])
        if state is not State.FAILED:
            return None if state is State.WAITING else 0
        why = next((item.reason for item in vault.history(to, 20) if item.id == message_id), "").rstrip(".")
        return RequestError(f"the message was refused: {why}; it stays in the history, marked as not sent")

    return Errand(outcome, "the message waits in the outbox", "the message was not sent", to)


async def connect_for(
    running: Running, profile: Profile, vault: Vault, where: str, compose: Composing, seconds: float | None
) -> int:
    """This process holds the profile's lock, connects, and does it."""
    began = running.reactor.seconds()
    errand = compose(await conversation_of(running, profile, vault, where, seconds))
    if (outcome := _outcome(vault, errand)) is not None:
        return _ended(outcome)

    async def composed(_: Messenger) -> Errand:
        return errand

    left = None if seconds is None else max(0.0, seconds - (running.reactor.seconds() - began))
    return await see_through(running, profile, vault, errand, composed, left)


async def conversation_of(running: Running, profile: Profile, vault: Vault, where: str, seconds: float | None) -> str:
    """The conversation of that name, "" of "". Raises `UnknownGroup`, after having looked for the group."""
    try:
        return where and resolve(vault, where)
    except UnknownGroup:
        return await find(running, profile, vault, where, seconds)


async def see_through(
    running: Running,
    profile: Profile,
    vault: Vault,
    errand: Errand,
    begin: Beginning,
    seconds: float | None,
    on_event: Callable[[Event], None] = lambda event: None,
) -> int:
    """Connect, have `begin` do what is to be done, and wait for it; `errand` is what it is until it has begun."""
    ending = Ending()
    said: set[str] = set()

    def told(events: list[Event]) -> None:
        for event in events:
            on_event(event)
            if isinstance(event, LogAlarm) and event.proof:
                ending(TrustError(f"{event.reason}; evidence: {messenger.alarm_file}; {errand.undone}"))
            elif isinstance(event, LogAlarm):
                say(DOUBT)
            elif isinstance(event, GroupAlarm):
                say(f"ALARM: {event.reason}")
            elif isinstance(event, Disconnected) and not ending.result.called:
                _disconnected(event, errand, ending, said)

    def look() -> None:
        # Not everything that an errand waits for is an event: of a reaction nobody is told how far it has come.
        if not ending.result.called and (outcome := _outcome(vault, errand)) is not None:
            ending(outcome)

    messenger = Messenger(profile, vault, running.reactor, told)
    messenger.start()
    looking = LoopingCall(look)
    looking.clock = running.reactor
    try:
        try:
            errand = await begin(messenger)
        except BaseException:
            ending.drop()
            raise
        looking.start(POLL_SECONDS).addErrback(ending.result.errback)
        code = await until(running.reactor, seconds, ending, lambda: NotYet(f"not done yet; {errand.kept}"))
        # What comes of it: keys for those who are in a group now, its name for who is invited to it.
        settled = running.reactor.seconds() + SETTLE_SECONDS
        while not is_empty(vault) and running.reactor.seconds() < settled:
            await deferLater(running.reactor, POLL_SECONDS)
        return code
    finally:
        if looking.running:
            looking.stop()
        await messenger.stop()


def _disconnected(event: Disconnected, errand: Errand, ending: Ending, said: set[str]) -> None:
    problem = problem_of(event)
    if event.retry_in is None or isinstance(problem, TrustError):
        ending(type(problem)(f"{problem.message}; {errand.kept}"))
    elif problem.message not in said:
        said.add(problem.message)
        say(f"{problem.message}; trying again. If you leave with Ctrl-C, {errand.kept}")


async def look_on(running: Running, vault: Vault, where: str, compose: Composing, seconds: float | None) -> int:
    """As `connect_for`, while another process is connected with this profile: it does it, this one looks on."""
    return await wait_for(running, vault, compose(where and resolve(vault, where)), seconds)


async def wait_for(running: Running, vault: Vault, errand: Errand, seconds: float | None) -> int:
    """Until the process that is connected has done it."""
    began = running.reactor.seconds()
    while (outcome := _outcome(vault, errand)) is None:
        if vault.alarm():
            raise TrustError(f"the server has contradicted its key log; {errand.undone}")
        if seconds is not None and running.reactor.seconds() - began >= seconds:
            raise NotYet(f"not done yet; {errand.kept}")
        await deferLater(running.reactor, POLL_SECONDS)
    return _ended(outcome)


def _ended(outcome: int | FastChatError) -> int:
    if isinstance(outcome, FastChatError):
        raise outcome
    return outcome


def _outcome(vault: Vault, errand: Errand) -> int | FastChatError | None:
    outcome = errand.outcome()
    if outcome is None and any(one.user == errand.to and one.changed_to for one in vault.contacts()):
        return TrustError(
            f"the key of {errand.to} has changed; {errand.waits} until you accept it: ask {errand.to} in "
            f"another way, then type fastchat accept {errand.to}"
        )
    return outcome


async def catch_up(running: Running, profile: Profile, vault: Vault, seconds: float | None) -> None:
    """Take in what waits in the mailbox, as far as its senders' keys can be had in a moment; nothing, if the network
    cannot be reached now. Raises what ends every connection."""
    ending = Ending()

    def told(events: list[Event]) -> None:
        for event in events:
            match event:
                case Connected(waiting=0):
                    ending(0)
                case MailboxProgress() if event.done >= event.total:
                    ending(0)
                case Disconnected():
                    problem = problem_of(event)
                    ending(problem if event.retry_in is None or isinstance(problem, TrustError) else 0)

    messenger = Messenger(profile, vault, running.reactor, told)
    messenger.start()
    try:
        await until(running.reactor, seconds, ending, lambda: 0)
        settled = running.reactor.seconds() + SETTLE_SECONDS
        while Inbox(vault).users and running.reactor.seconds() < settled:
            await deferLater(running.reactor, POLL_SECONDS)
    finally:
        await messenger.stop()


async def find(running: Running, profile: Profile, vault: Vault, where: str, seconds: float | None) -> str:
    """The conversation of a group that has not been told of yet: it may be on its way, so it is waited for until a
    moment after the login. Raises `UnknownGroup`."""
    ending = Ending()
    found: list[str] = []
    said: set[str] = set()

    def look() -> int | FastChatError:
        try:
            found.append(resolve(vault, where))
        except UnknownGroup as error:
            return error
        ending(0)
        return 0

    def told(events: list[Event]) -> None:
        for event in events:
            if isinstance(event, Connected):
                running.reactor.callLater(FIND_SECONDS, lambda: ending(look()))
            elif isinstance(event, Disconnected) and not ending.result.called:
                problem = problem_of(event)
                if event.retry_in is None or isinstance(problem, TrustError):
                    ending(problem)
                elif problem.message not in said:
                    said.add(problem.message)
                    say(f"{problem.message}; trying again")
        if not ending.result.called:
            look()

    messenger = Messenger(profile, vault, running.reactor, told)
    messenger.start()
    try:
        await until(running.reactor, seconds, ending, look)
    finally:
        await messenger.stop()
    return found[0]
