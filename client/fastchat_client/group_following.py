"""Following the groups' chains: nothing of a group is believed but statements that follow on those that are known, each
signed by the device of somebody who may do that. What else a server shows is an alarm with a name.

    group-forged     a statement that nobody who may has signed
    group-replayed   an old statement once more, in the place of a new one
    group-withheld   a member knows statements that the server does not hand out
    group-forked     a member was shown another statement in the same place
    group-outsider   (`group_receiving`) a message of, or for, somebody who is no member

It knows no message and no session key: who listens is told what was taken in, and when a chain has been followed to
its end.
"""

from __future__ import annotations

from collections.abc import Callable

from fastchat.errors import FastChatError, GroupInvalid, NotAllowed, SignatureInvalid, UnknownGroup
from fastchat.identity import groups as chains
from fastchat.identity.groups import MAX_MEMBERS, Create, GroupState, Statement
from fastchat.identity.links import DeviceIdentity
from fastchat.protocols.wire import (
    GroupLogAnswer,
    GroupLogRequest,
    GroupNews,
    GroupsAnswer,
    GroupsRequest,
    Signed,
)
from fastchat_client.group_telling import tell_change
from fastchat_client.parts import GroupSync, Live, Parts

MOST_ASKED = 3
"""How often the keys of a statement's actor are asked for on one connection."""
MOST_REQUESTS = 6
"""For chains, unanswered at once."""
ASK_AGAIN = 30.0
"""Seconds after an answer that was no use."""
MOST_CLAIMS = 3 * MAX_MEMBERS
"""Devices of whose word on one group's chain is kept that it is longer than the server shows."""
MOST_IN_VAIN = 3
"""How often the server may say that a chain has changed without showing what."""

Applied = Callable[[GroupState | None, GroupState, Statement, Signed], None]
"""Told of each statement that was taken in: what the group was before, what it is now, and the statement."""


class GroupFollower:
    """`applied` and `followed` are told of statements, and of groups whose chain is known to its end."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self.applied: list[Applied] = []
        self.followed: list[Callable[[str], None]] = []

    # --- asking ------------------------------------------------------------------------------------------------------

    def begin(self, live: Live) -> None:
        """After every login: which groups are there, and how long are their chains?"""
        live.groups_request = self._parts.say(GroupsRequest)

    def groups_answer(self, live: Live, answer: GroupsAnswer) -> None:
        if answer.re != live.groups_request:
            return
        live.groups_request, live.groups_listed = 0, True
        named = {entry.group: entry.length for entry in answer.groups}
        for group in {**named, **dict.fromkeys(self._parts.groups.all, 0)}:
            self.want(live, group, named.get(group, 0))

    def want(self, live: Live, group: str, target: int = 0) -> None:
        """Follow the chain of `group` at least up to `target` statements. May be said over and over."""
        sync = live.groups.setdefault(group, GroupSync())
        sync.target = max(sync.target, target)
        if not sync.pending and 0 < sync.target <= self._parts.groups.length(group):
            self._end(live, group, sync)
        else:
            sync.is_current = False
            self._ask(live, group, sync)

    def ask_anew(self, live: Live, group: str) -> None:
        """Ask for its end once more, whatever the server has shown before."""
        sync = live.groups.setdefault(group, GroupSync())
        sync.is_current = False
        self._ask(live, group, sync)

    def look_again(self, live: Live, group: str) -> None:
        """The server says that the chain is another one by now: ask, whatever is known here."""
        sync = live.groups.setdefault(group, GroupSync())
        sync.is_current, sync.because_changed = False, True
        if sync.in_vain >= MOST_IN_VAIN:
            self._parts.group_alarm(
                group,
                "group-withheld",
                "the server says that this group has changed, again and again, and does not show how",
                proof=True,
                length=self._parts.groups.length(group),
            )
        if sync.in_vain:
            sync.not_before = self._parts.clock() + min(ASK_AGAIN, 2.0**sync.in_vain)
        else:
            self._ask(live, group, sync)

    def went_through(self, group: str) -> None:
        """The server has taken something that was encrypted by the chain as it is known here."""
        live = self._parts.ready
        if live is not None and group in live.groups:
            live.groups[group].in_vain = 0

    def is_current(self, group: str) -> bool:
        """Whether the chain is known to its end, as far as this connection has told."""
        live = self._parts.ready
        return live is not None and group in live.groups and live.groups[group].is_current

    def is_doubted(self, group: str) -> bool:
        """Whether a member says that the chain goes on otherwise than it does here. Who is to read is not known then:
        somebody may have been removed. Nothing is written until that is settled, or who says so has been removed."""
        doubts = self._parts.group_doubts.get(group, {})
        return any(self._parts.groups.role(group, user) for user in doubts.values())

    def by_the_second(self, live: Live) -> None:
        """Ask where there was no room for asking, where an answer was refused, or a hint was lost."""
        now = self._parts.clock()
        if not live.groups_listed and not live.groups_request and now >= live.groups_at:
            self.begin(live)
        for group, sync in live.groups.items():
            if sync.is_current and sync.claims and now >= sync.claims_not_before:
                sync.is_current = False
            if not (sync.is_current or sync.request or sync.pending) and now >= sync.not_before:
                self._ask(live, group, sync)

    def _ask(self, live: Live, group: str, sync: GroupSync) -> None:
        sync.is_overtaken = bool(sync.request or sync.pending)
        if sync.request or sync.pending or sync.is_broken or live.leaving:
            return
        if sum(bool(other.request) for other in live.groups.values()) < MOST_REQUESTS:
            start = sync.start = self._parts.groups.length(group)
            sync.revoked = dict(self._parts.accounts.revoked)
            sync.request = self._parts.say(lambda i: GroupLogRequest(i, group, start))

    # --- what the server shows ---------------------------------------------------------------------------------------

    def log_answer(self, live: Live, answer: GroupLogAnswer) -> None:
        sync = live.groups.get(answer.group)
        if sync is None or answer.re != sync.request:
            return
        sync.request = 0
        if answer.start != sync.start:
            sync.not_before = self._parts.clock() + ASK_AGAIN
            return
        if answer.statements:
            sync.in_vain = 0
        elif sync.because_changed:
            sync.in_vain += 1
        sync.because_changed = False
        # News may have come in between.
        known = self._parts.groups.length(answer.group)
        sync.pending = list(answer.statements[known - answer.start :])
        sync.has_more = bool(answer.statements) and answer.length > max(known, answer.start + len(answer.statements))
        self._take_pending(live, answer.group, sync)
        if sync.is_current:
            self._note_revoked(answer.group, sync)

    def news(self, live: Live, news: GroupNews) -> None:
        """A statement as it happens. A hint: what does not follow is asked for."""
        sync = live.groups.setdefault(news.group, GroupSync())
        known = self._parts.groups.length(news.group)
        if sync.is_broken:
            return
        if news.position < known:
            ours = self._parts.groups.statement(news.group, news.position)
            if ours is None or ours.body != news.statement.body:
                self._refuse(sync, news.group, news.statement, GroupInvalid("a statement stands where another one is"))
        elif news.position == known and not sync.pending and not sync.request:
            sync.pending = [news.statement]
            sync.has_more = sync.target > known + 1
            self._take_pending(live, news.group, sync)
        else:
            self.want(live, news.group, news.position + 1)

    def refused(self, live: Live, request: int, problem: FastChatError) -> bool:
        """Whether `request` was one for a chain or for the groups."""
        not_before = self._parts.clock() + (ASK_AGAIN if problem.retry_after is None else problem.retry_after)
        if request == live.groups_request:
            live.groups_request, live.groups_at = 0, not_before
            return True
        for group, sync in live.groups.items():
            if sync.request == request:
                sync.request, sync.not_before = 0, not_before
                if isinstance(problem, UnknownGroup):
                    sync.in_vain += 1
                    # Not ours to follow (any more): what is known here is all that there will be.
                    self._end(live, group, sync)
                return True
        return False

    def learned(self, live: Live, user: str) -> None:
        """The keys of `user` are known now, or it is known that there are none: statements may have waited for them."""
        revoked = {device for device, whose in self._parts.accounts.revoked.items() if whose == user}
        for group, sync in list(live.groups.items()):
            if sync.pending and sync.waits_for == user:
                self._take_pending(live, group, sync)
            if revoked - sync.revoked.keys() and self._parts.groups.role(group, user):
                self.ask_anew(live, group)

    # --- taking statements in ----------------------------------------------------------------------------------------

    def _take_pending(self, live: Live, group: str, sync: GroupSync) -> None:
        while sync.pending:
            signed = sync.pending[0]
            try:
                if not self._take(live, group, sync, signed):
                    return
            except (GroupInvalid, NotAllowed, SignatureInvalid) as error:
                self._refuse(sync, group, signed, error)
                return
            sync.pending.pop(0)
        if sync.has_more or sync.is_overtaken:
            self._ask(live, group, sync)
        else:
            self._end(live, group, sync)

    def _take(self, live: Live, group: str, sync: GroupSync, signed: Signed) -> bool:
        """Take one statement in; False if its actor's keys are still to come."""
        parts = self._parts
        statement = chains.read(signed)
        known = parts.groups.get(group)
        if known is not None and not isinstance(statement, Create) and statement.position < known.state.length:
            raise GroupInvalid("a statement is shown again in the place of a new one")
        actor = parts.accounts.ever(statement.user, statement.device)
        if parts.groups.has_ended(group, statement.device, statement.position):
            raise GroupInvalid(f"a statement is signed by a device that {statement.user} had revoked before")
        if actor is None:
            sync.waits_for = statement.user
            asked = sync.asked_for.get(statement.user, 0)
            if asked >= MOST_ASKED:
                raise GroupInvalid(f"a statement is signed by a device that {statement.user} does not have")
            if asked:
                live.fetching.want_later(statement.user, parts.clock())
            else:
                live.fetching.want(statement.user)
            sync.asked_for[statement.user] = asked + 1
            return False
        parts.groups.take(signed, actor.ed25519, group if known is not None else self._first(group, signed))
        after = parts.groups.get(group)
        assert after is not None
        before = None if known is None else known.state
        tell_change(parts, before, after.state, statement, is_new=sync.is_current or before is not None)
        for listener in self.applied:
            listener(before, after.state, statement, signed)
        return True

    def _first(self, group: str, signed: Signed) -> str:
        if chains.group_id(signed.body) != group:
            raise GroupInvalid("a chain begins with another group's first statement")
        return ""

    def _refuse(self, sync: GroupSync, group: str, signed: Signed, error: FastChatError) -> None:
        sync.is_broken, sync.pending = True, []
        code = "group-forged"
        try:
            statement = chains.read(signed)
            ours = self._parts.groups.statement(group, statement.position)
            if ours is not None and ours.body == signed.body:
                code = "group-replayed"
        except GroupInvalid:
            pass  # then it is no statement at all, which is what `error` says
        self._parts.group_alarm(group, code, error.message, proof=True, statement=signed)

    def _end(self, live: Live, group: str, sync: GroupSync) -> None:
        """The chain is known as far as the server shows it."""
        parts = self._parts
        sync.is_current = True
        sync.asked_for.clear()
        length = parts.groups.length(group)
        for device, (claimed, head, sender) in list(sync.claims.items()):
            if claimed <= length:
                del sync.claims[device]
                self.claim(live, group, claimed, head, sender)
            else:
                sync.claims_not_before = parts.clock() + ASK_AGAIN
                self._withheld(group, claimed, sender)
        sync.target = length
        for listener in self.followed:
            listener(group)

    def _note_revoked(self, group: str, sync: GroupSync) -> None:
        """What a revoked device has signed while it spoke for its account is in the chain by now: it was asked for when
        the revocation was known. What comes of it later is not believed."""
        known = self._parts.groups.get(group)
        if known is not None and not sync.has_more:
            for device, user in sync.revoked.items():
                if user in known.state.members or user in known.state.invited:
                    self._parts.groups.end(group, device)

    # --- what members say of it --------------------------------------------------------------------------------------

    def claim(self, live: Live | None, group: str, length: int, head: bytes, sender: DeviceIdentity) -> bool:
        """A device says that the chain has this head at `length`. False if that is not known here yet: then it is asked
        for, once, and later again. Another head than ours is an alarm."""
        parts = self._parts
        if length <= parts.groups.length(group):
            if parts.groups.head(group, length) != head:
                self._doubt(group, sender)
                parts.group_alarm(
                    group,
                    "group-forked",
                    f"{sender.user} was shown other statements of this group than we were, or says so; nothing is "
                    f"written to it as long as {sender.user} is in it",
                    proof=False,
                    user=sender.user,
                    device=sender.device,
                    length=length,
                    theirs=head,
                    ours=parts.groups.head(group, length),
                )
            else:
                parts.group_doubts.get(group, {}).pop(sender.device, None)
            return True
        if live is not None:
            sync = live.groups.setdefault(group, GroupSync())
            before = sync.claims.get(sender.device)
            if (before is None or before[0] < length) and len(sync.claims) < MOST_CLAIMS:
                sync.claims[sender.device] = (length, head, sender)
                self.ask_anew(live, group)
        return False

    def has_claimed(self, group: str, sender: DeviceIdentity) -> bool:
        """Whether this device's word is being looked into, or was, that the chain is longer than it is here."""
        live = self._parts.ready
        return live is not None and group in live.groups and sender.device in live.groups[group].claims

    def forget_claim(self, group: str, sender: DeviceIdentity) -> None:
        """It was nobody's who has a say in the group."""
        live = self._parts.ready
        if live is not None and group in live.groups:
            live.groups[group].claims.pop(sender.device, None)

    def _withheld(self, group: str, claimed: int, sender: DeviceIdentity) -> None:
        parts = self._parts
        if parts.groups.role(group, parts.me.user) and parts.groups.role(group, sender.user):
            self._doubt(group, sender)
            parts.group_alarm(
                group,
                "group-withheld",
                f"{sender.user} knows {claimed} statements of this group, or says so, and the server shows "
                f"{parts.groups.length(group)}: it may keep back who was removed; nothing is written to the group "
                f"until they come, or {sender.user} is in it no more",
                proof=False,
                user=sender.user,
                device=sender.device,
            )

    def _doubt(self, group: str, sender: DeviceIdentity) -> None:
        self._parts.group_doubts.setdefault(group, {})[sender.device] = sender.user
