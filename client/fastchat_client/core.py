"""The client's heart, without sockets: what people do and what the network says go in; what is to be said and told
comes out.

    offline ──opened──▶ entering ──ready──▶ live ──▶ (wants_close) ──closed──▶ offline

It holds these states and the open transaction; what a person does is in `person`, the rest is done by its parts:
`entrance` (login), `following` (key log and accounts), `sending`, `receiving`, `grouping`, `whispering`, `upkeep` (what
time brings). Everything that one turn does to the vault is one transaction; it is committed before anything that came
of it is handed out by `take_messages` or `take_events`. So nothing is sent or acknowledged that a crash could take
back. Sockets, and when to connect, are not known here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from msgspec import UNSET

from fastchat import steady
from fastchat.errors import FastChatError, Internal, ProtocolError, Unreachable
from fastchat.identity.login import ChannelBinding
from fastchat.protocols.wire import (
    Accepted,
    ChunkStored,
    ClientMessage,
    Error,
    GoAway,
    KeysAnswer,
    LogAnswer,
    Message,
    Pong,
    Published,
    Ready,
    Received,
    Revoked,
    ServerMessage,
    Whispered,
    WithBytes,
    exception_from,
)
from fastchat_client import expiring, spool, uploads
from fastchat_client.downloading import Downloads
from fastchat_client.entrance import Enrolment, Entrance
from fastchat_client.events import Connected, Event, LogAlarm, MailboxProgress
from fastchat_client.following import Follower
from fastchat_client.grouping import GroupSide
from fastchat_client.parts import AskedToLeave, Live, Parts
from fastchat_client.person import PersonSide
from fastchat_client.receiving import Receiver
from fastchat_client.revoking import Revoker
from fastchat_client.sending import Sender
from fastchat_client.transfers import Transfers
from fastchat_client.understanding import Understanding
from fastchat_client.upkeep import Upkeep
from fastchat_client.uploading import Uploads
from fastchat_client.vault import Vault
from fastchat_client.whispering import Whispers
from fastchat_client.working import Work

BATCH = 64
"""Messages taken in one transaction at most: a full window."""
LEAVE_PATIENCE = 10.0
"""Seconds for which answers are waited for from a service that stops: longer than it takes for that."""
LOGIN_PATIENCE = 20.0
"""Seconds from the open connection to `ready`."""


class Core(PersonSide):
    """One profile's heart. `clock`: seconds that nobody sets; everything goes by it. `now`: seconds since 1970, for the
    times that people see and for ages of days; its jumps are borne. `enrolment`: what it takes to add this device to
    its account, if that has not been done. `outgoing`: where files wait that are to be sent;
    `folder`: where small files go that nobody has asked for; None: nowhere."""

    def __init__(
        self,
        vault: Vault,
        clock: Callable[[], float] = steady.seconds,
        now: Callable[[], float] = time.time,
        *,
        enrolment: Enrolment | None = None,
        outgoing: Path | None = None,
        folder: Path | None = None,
    ) -> None:
        self.vault = vault
        self._clock = clock
        self._now = now
        self._enrolment = enrolment
        self.outgoing = outgoing or vault.folder / "outgoing"
        self._folder = folder
        self._request = 0
        self._messages: list[ClientMessage] = []
        self._events: list[Event] = []
        self._taken = 0
        vault.clock = now
        self._begin()
        spool.remove_rubbish(self.outgoing, lambda attachment: uploads.get(vault, attachment) is not None)
        self._expire()

    def _begin(self) -> None:
        """Everything as it stands in the vault, without a connection."""
        self._parts = Parts(self.vault, self._clock, self._now, self._next_id)
        understanding = Understanding(self._parts)
        self._groups = GroupSide(self._parts, understanding)
        self._sender = Sender(self._parts, self._groups.sender, self._groups.follower)
        groups = self._groups
        self._receiver = Receiver(self._parts, understanding, groups.receiver, groups.history, groups.sender)
        self._follower = Follower(self._parts, self._sender, self._receiver, self._groups)
        self._upkeep = Upkeep(self._parts, self._receiver, self._follower)
        self._revoker = Revoker(self._parts)
        self._whispers = Whispers(self._parts, understanding, self._groups.receiver.whispered)
        self._downloads = Downloads(self._parts, self._folder)
        understanding.brought = self._downloads.brought
        self._transfers = Transfers(self._parts, Uploads(self._parts, self.outgoing), self._downloads)

    # --- the connection's side ---------------------------------------------------------------------------------------

    @property
    def ready(self) -> bool:
        """Logged in, and the connection is of use."""
        return self._parts.ready is not None

    @property
    def wants_close(self) -> FastChatError | None:
        """Why this connection is of no use any more, if it is not."""
        return self._parts.wants_close

    def opened(self, binding: ChannelBinding, lease: str = "") -> None:
        """A TLS connection to a service is there."""
        self.closed()
        with self._turn():
            parts, now = self._parts, self._clock()
            entrance = Entrance(
                self.vault,
                parts.accounts,
                parts.prekeeper.account.sign,
                parts.say,
                binding,
                self._enrolment,
                parts.now(),
            )
            parts.wants_close = None
            parts.live = Live(entrance, opened_at=now, heard_at=now)
            entrance.begin(lease)

    def receive(self, message: ServerMessage | WithBytes) -> None:
        """Any message, in any order, from a server that may be malicious."""
        live = self._parts.live
        if live is None or self._parts.wants_close is not None:
            return
        live.heard_at = self._clock()
        if isinstance(message, ChunkStored | WithBytes):
            self._chunk_answered(live, message)
            return
        with self._turn():
            if isinstance(message, GoAway):
                self._asked_to_leave(live, message)
            elif live.limits is None:
                self._enter(live, message)
            else:
                self._heard(live, message)
            self._pump()
            self._leave_when_done(live)
        self._taken += isinstance(message, Message)
        if self._taken >= BATCH:
            self._commit()

    def closed(self) -> None:
        """The connection is gone, and what was under way on it; the outbox is not. `wants_close` stays until the next
        one is opened."""
        self._commit()
        if self._parts.live is not None and self._parts.live.leaving is not None:
            self._parts.close(self._parts.live.leaving)  # the service has not waited for us to be done
        self._parts.live = None
        self._parts.outbox.disconnected()
        self._transfers.disconnected()
        self._messages.clear()

    def tick(self) -> None:
        """To be called about every second while there is a connection."""
        live = self._parts.live
        if live is None or self._parts.wants_close is not None:
            return
        self.poll_outbox()
        with self._turn():
            if live.limits is None:
                if self._clock() - live.opened_at >= LOGIN_PATIENCE:
                    self._parts.close(Unreachable("the network did not finish the login in time"))
                return
            if live.leaving is None:
                self._upkeep.by_the_second(live)
                self._revoker.pump(live)
                self._groups.by_the_second(live)
                self._whispers.by_the_second(live)
                self._transfers.by_the_second(live)
                self._pump()
            self._leave_when_done(live)
        self._expire()

    def take_messages(self) -> list[ClientMessage]:
        """What is to be sent now, in order; everything that it rests on is committed."""
        self._commit()
        messages, self._messages = self._messages, []
        return messages

    def next_chunk(self) -> ClientMessage | WithBytes | None:
        """What goes next of the files that are on their way, once `take_messages` has nothing more and as long as the
        line takes it; None if nothing may go before something is heard, or a second has passed."""
        return self._transfers.next_chunk()

    def take_work(self) -> list[Work]:
        """What is to be done in threads now; what comes of each is given to `worked`, also when the connection has gone
        meanwhile."""
        self._commit()
        works, self._parts.works = self._parts.works, []
        return works

    def worked(self, work: Work, result: Any) -> None:
        """What `work.run` returned or raised."""
        with self._turn():
            work.done(result)
            if self._parts.ready is not None:
                self._transfers.settle(self._parts.ready)

    @property
    def transferring(self) -> bool:
        """Whether chunks are on their way, either way."""
        return self._transfers.in_flight > 0

    def take_events(self) -> list[Event]:
        """What has happened, in order, and is committed."""
        self._commit()
        events, self._events = self._events, []
        return events

    # --- what the network says ---------------------------------------------------------------------------------------

    def _enter(self, live: Live, message: ServerMessage) -> None:
        try:
            ready = live.entrance.receive(message)
        except FastChatError as error:
            self._parts.close(error)
            return
        if ready is not None:
            self._is_in(live, ready)

    def _is_in(self, live: Live, ready: Ready) -> None:
        welcome = live.entrance.welcome
        assert welcome is not None
        parts, now = self._parts, self._clock()
        live.limits = welcome.limits
        live.tokens_at, live.pinged_at = now - 3600.0, now
        live.mailbox, live.progress_at = max(0, ready.mailbox or 0), now
        parts.tell(Connected(welcome.service, live.mailbox))
        if parts.alarmed:
            parts.tell(LogAlarm("the server has contradicted its key log; nothing is sent", self.vault.alarm()))
        if ready.one_time_keys is not None:
            parts.prekeeper.left = max(0, ready.one_time_keys)
        self._follower.begin(live, ready)
        self._groups.begin(live)
        self._upkeep.by_the_minute(live)
        if welcome.limits.largest_attachment != self.vault.number("largest_attachment"):
            self.vault.put("largest_attachment", welcome.limits.largest_attachment)
        self._transfers.begin(live)

    def _heard(self, live: Live, message: ServerMessage) -> None:
        match message:
            case Message():
                self._receiver.message(live, message)
            case Accepted():
                self._sender.accepted(message.re)
            case KeysAnswer():
                self._follower.keys_answer(live, message)
                self._transfers.pick_up()
            case LogAnswer():
                self._follower.log_answer(live, message)
            case Published():
                self._upkeep.published(live, message)
            case Error():
                self._refused(live, message)
            case Whispered():
                self._whispers.heard(live, message)
            case Revoked():
                self._revoker.answered(live, message.re)
            case Pong():
                pass  # that it was heard is all
            case _ if self._groups.heard(live, message) or self._transfers.heard(live, message):
                pass
            case _:
                self._parts.close(ProtocolError("the network says what only belongs before the login"))
        self._revoker.pump(live)
        if self._parts.prekeeper.is_low:
            self._upkeep.publish(live)

    def _chunk_answered(self, live: Live, message: ChunkStored | WithBytes) -> None:
        """There are many of these, and few of them change anything in the vault."""
        if live.limits is None:
            self._parts.close(ProtocolError("the network speaks of files before the login"))
        elif self._transfers.chunk_answered(live, message):
            with self._turn():
                self._transfers.settle(live)
                self._pump()
        self._leave_when_done(live)

    def _asked_to_leave(self, live: Live, message: GoAway) -> None:
        if live.leaving is None:
            live.leaving = AskedToLeave(message.reason[:200], retry_after=min(max(0.0, message.after), 3600.0))
            live.leave_by = self._clock() + LEAVE_PATIENCE

    def _leave_when_done(self, live: Live) -> None:
        """Once everything that was said has its answer; what was received is acknowledged before the connection is
        closed."""
        if live.leaving is not None:
            under_way = self._parts.outbox.on_their_way or live.fetching.is_asking or live.acts
            is_done = not (under_way or self._transfers.in_flight)
            if is_done or live.limits is None or self._clock() >= live.leave_by:
                self._parts.close(live.leaving)

    def _refused(self, live: Live, error: Error) -> None:
        if error.re is UNSET:
            self._parts.close(exception_from(error))
            return
        request, problem = int(error.re), exception_from(error)
        askers = (self._follower, self._upkeep, self._revoker, self._groups, self._transfers)
        if not any(asker.refused(live, request, problem) for asker in askers):
            self._sender.refused(request, error)

    def _pump(self) -> None:
        live = self._parts.ready
        if live is not None:
            self._groups.pump(live)
        self._sender.pump()

    # --- the transaction ---------------------------------------------------------------------------------------------

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """A part of the open transaction, which `_commit` ends. If it fails, all of it is undone: what came in was not
        acknowledged and comes again, what was to be sent waits in the outbox."""
        if not self.vault.in_transaction:
            self.vault.begin()
        try:
            yield
        except BaseException:
            self._undo()
            raise

    def _commit(self) -> None:
        self._taken = 0
        parts = self._parts
        if self.vault.in_transaction:
            self._commit_transaction()
        self._messages += parts.said
        self._events += parts.told
        parts.said, parts.told = [], []
        afterwards, parts.afterwards = parts.afterwards, []
        for act in afterwards:
            act()

    def _commit_transaction(self) -> None:
        parts = self._parts
        live = parts.live
        if live is not None and live.limits is not None and live.last_k > live.acknowledged:
            live.acknowledged = live.last_k
            upto = live.last_k
            parts.said.append(Received(upto))
            done = min(upto, live.mailbox)
            if done > live.progress:
                live.progress, live.progress_at = done, self._clock()
                parts.tell(MailboxProgress(done, live.mailbox))
        try:
            self.vault.commit()
        except BaseException:
            self._undo()
            raise

    def _undo(self) -> None:
        self.vault.rollback()
        self._messages.clear()
        self._downloads.abandon()
        self._begin()
        self._parts.close(Internal("the vault could not be written, or FastChat made a mistake"))

    def _expire(self) -> None:
        """What has had its time goes."""
        if expiring.is_due(self.vault):
            with self._turn():
                for event in expiring.expire(self.vault):
                    self._parts.tell(event)
            self._commit()

    def _next_id(self) -> int:
        self._request += 1
        return self._request
