"""What the parts of the core share: the vault's modules, the state of the connection, and the two ways out.

What is said and what is told is staged here, and leaves only when the transaction that it belongs to is committed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from fastchat.errors import FastChatError
from fastchat.identity.links import DeviceIdentity
from fastchat.protocols.wire import AccountKeys, ClientMessage, SessionLimits, Signed
from fastchat_client.entrance import Entrance
from fastchat_client.events import Event, GroupAlarm, LogAlarm, MessageState, State
from fastchat_client.fetching import Fetching
from fastchat_client.group_bodies import GroupBodies
from fastchat_client.group_keys import GroupKeys
from fastchat_client.groups import Groups, conversation_of
from fastchat_client.inbox import Inbox
from fastchat_client.outbox import Outbox
from fastchat_client.prekeeping import Prekeeper
from fastchat_client.sessions import Sessions
from fastchat_client.trust import Accounts
from fastchat_client.vault import Vault
from fastchat_client.witness import Contradiction, Witness
from fastchat_client.working import Work


class AskedToLeave(FastChatError):
    """The service stops, and another one takes over; `retry_after` is when that is there."""

    code = "going-away"


@dataclass(slots=True)
class GroupSync:
    """How far a group's chain has been followed on this connection."""

    target: int = 0
    """The length that the server, or a member's message, says it has."""
    request: int = 0
    start: int = 0
    """From which statement on was asked for."""
    is_overtaken: bool = False
    """More was heard of while an answer was on its way, or statements waited: that may not be all."""
    because_changed: bool = False
    """It was asked for because the server has said that there is more."""
    revoked: dict[str, str] = field(default_factory=dict)
    """Devices (their users) of which it was known, when the server was asked last, that they speak no longer."""
    pending: list[Signed] = field(default_factory=list)
    """Statements that follow on what is known, and wait for their actors' keys."""
    waits_for: str = ""
    """Whose."""
    has_more: bool = False
    """Behind what is pending there is more to ask for."""
    not_before: float = 0.0
    is_current: bool = False
    """All that the server had when it was asked last is known here."""
    is_broken: bool = False
    """What the server shows of it is no chain: it is not asked again on this connection."""
    asked_for: dict[str, int] = field(default_factory=dict)
    """Actors whose keys were asked for, and how often."""
    claims: dict[str, tuple[int, bytes, DeviceIdentity]] = field(default_factory=dict)
    """By device: a length that is not known here, and the head that the device says the chain has there."""
    claims_not_before: float = 0.0
    """When to ask once more for what nobody has shown."""
    in_vain: int = 0
    """How often the server has said that the chain has changed, and then had nothing new."""


@dataclass(slots=True)
class Live:
    """What is known of one connection, and gone with it. Times are seconds of the clock."""

    entrance: Entrance
    opened_at: float
    heard_at: float
    limits: SessionLimits | None = None
    """From `ready` on."""
    leaving: AskedToLeave | None = None
    """Since the service has said `goaway`: nothing is asked for or sent any more."""
    leave_by: float = 0.0
    fetching: Fetching = field(default_factory=Fetching)
    last_k: int = 0
    acknowledged: int = 0
    mailbox: int = 0
    progress: int = 0
    """How many of the messages that waited in the `mailbox` at the login are here, and since when that is so."""
    progress_at: float = 0.0
    tokens: float = 0.0
    tokens_at: float = 0.0
    pinged_at: float = 0.0
    housekeeping_at: float = 0.0
    log_request: int = 0
    log_target: int = 0
    log_current: bool = False
    log_wanted: bool = False
    """A peer has seen more of the log than we have."""
    log_asked_at: float = -1e9
    log_ahead: set[str] = field(default_factory=set)
    """Devices that had seen more of the log than we when it was asked for last."""
    publish_request: int = 0
    published_at: float = -1e9
    aside: dict[str, tuple[AccountKeys, bool]] = field(default_factory=dict)
    """Accounts whose links are ahead of the log as it is known here."""
    behind: dict[str, int] = field(default_factory=dict)
    asking: dict[str, set[str]] = field(default_factory=dict)
    """By user, the devices that are to be asked for unreadable messages, once there are keys for a fresh session."""
    groups_request: int = 0
    groups_at: float = 0.0
    """Not to be asked for before."""
    groups_listed: bool = False
    """The server has said which groups there are for this account."""
    groups: dict[str, GroupSync] = field(default_factory=dict)
    keys_asked_at: float = -1e9
    acts: dict[int, int] = field(default_factory=dict)
    """By request, which of a person's acts upon a group it is."""
    without_keys: set[str] = field(default_factory=set)
    """Devices that the server gives no usable keys for."""
    nobody: set[str] = field(default_factory=set)
    """Who is not known here, and not on the network either, as it says."""
    rechecked: set[str] = field(default_factory=set)
    """Accounts with another root on offer, looked at again on this connection."""


def _nobody_listens(group: str, content: bytes) -> None:
    raise RuntimeError("the groups' side has not been made yet")


class Parts:
    """Made anew from the vault when a transaction could not be committed. `clock` and `now` are the core's."""

    def __init__(
        self, vault: Vault, clock: Callable[[], float], now: Callable[[], float], next_id: Callable[[], int]
    ) -> None:
        self.vault = vault
        self.clock = clock
        self._now = now
        self.next_id = next_id
        self.prekeeper = Prekeeper(vault)
        self.accounts = Accounts(vault)
        self.sessions = Sessions(vault, self.prekeeper)
        self.witness = Witness(vault)
        self.outbox = Outbox(vault)
        self.inbox = Inbox(vault)
        self.groups = Groups(vault)
        self.group_keys = GroupKeys(vault)
        self.group_bodies = GroupBodies(vault)
        self.groups_to_create = set[str]()
        """Groups of which the server has not heard yet."""
        self.group_doubts: dict[str, dict[str, str]] = {}
        """By group, the devices (their users) that were shown another chain than we, as they say."""
        self.group_alarms: set[tuple[str, str]] = set()
        """(group, code) of those that were shown."""
        self.whisper_to_group: Callable[[str, bytes], None] = _nobody_listens
        """Say a content in passing to a group (`group_sending`)."""
        self.live: Live | None = None
        self.wants_close: FastChatError | None = None
        self.alarmed = bool(vault.alarm())
        self.doubted_by: set[str] = set()
        """Devices whose word against the key log was shown."""
        self.untold = True
        """There may be messages whose senders do not know yet that they are here, or read."""
        self.said: list[ClientMessage] = []
        self.told: list[Event] = []
        self.afterwards: list[Callable[[], None]] = []
        """What is to be done once the open transaction is committed; if it never is, neither is this."""
        self.works: list[Work] = []
        """The same, of what blocks."""

    @property
    def me(self) -> DeviceIdentity:
        return self.prekeeper.identity

    @property
    def ready(self) -> Live | None:
        """The connection, if it is logged in and of use."""
        live = self.live
        return live if live is not None and live.limits is not None and self.wants_close is None else None

    def now(self) -> int:
        """Milliseconds since 1970, by a clock that may be set: for what people see, and for ages of days."""
        return int(self._now() * 1000)

    def say(self, message: Callable[[int], ClientMessage]) -> int:
        """Stage a request; its number."""
        request = self.next_id()
        self.said.append(message(request))
        return request

    def tell(self, event: Event) -> None:
        self.told.append(event)

    def work(self, run: Callable[[], Any], done: Callable[[Any], None]) -> None:
        """Stage what blocks: `run` for a thread, and `done` for what it returns or raises, in a turn of its own."""
        self.works.append(Work(run, done))

    def pick_up(self) -> None:
        """Queue what was composed."""
        for n, user in self.outbox.pick_up():
            self.tell(MessageState(f"{self.me.device}.{n}", user, State.WAITING))

    def close(self, why: FastChatError) -> None:
        """This connection is of no use; the first reason counts."""
        if self.wants_close is None:
            self.wants_close = why

    def alarm(self, contradiction: Contradiction) -> None:
        """The key log is not one and the same for everybody. A peer's word alone is no proof: it is shown, once, but
        anybody could stop us from sending with it."""
        if not contradiction.peer:
            if self.alarmed:
                return  # said and kept already; one lie leads to others
            self.vault.put("alarm", contradiction.evidence)
            self.alarmed = True
        elif contradiction.peer in self.doubted_by:
            return
        else:
            self.doubted_by.add(contradiction.peer)
        self.tell(LogAlarm(contradiction.message, contradiction.evidence, not contradiction.peer))

    def group_alarm(self, group: str, code: str, reason: str, *, proof: bool, **evidence: object) -> None:
        """Somebody has tried to make a group something else than its members have agreed on. Shown once."""
        if (group, code) in self.group_alarms:
            return
        self.group_alarms.add((group, code))
        if proof:
            self.groups.alarm(group, code)
        shown = msgspec.json.format(
            msgspec.json.encode({"group": group, "what": reason, **evidence}), indent=2
        ).decode()
        self.tell(GroupAlarm(conversation_of(group), code, reason, shown, proof))
