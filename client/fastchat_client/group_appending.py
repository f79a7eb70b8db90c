"""From a noted act to a statement in the group's chain: signed as the chain is when the server is asked.

If somebody else was first, an act that means the same as before is signed again; one that might not is given up, and
its person is told what has happened instead.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from fastchat.errors import FastChatError, GroupChanged, GroupInvalid, NotAllowed, RequestError
from fastchat.identity import groups as chains
from fastchat.identity.groups import GroupState, Statement, Title
from fastchat.protocols.wire import GroupAct, GroupDone, GroupNews, Signed
from fastchat_client.content import GroupTitle, encode_content
from fastchat_client.events import ActDone, ActFailed, iso
from fastchat_client.events import GroupChanged as GroupNow
from fastchat_client.group_acting import (
    DONE,
    FAILED,
    Act,
    CreateAct,
    JoinAct,
    LeaveAct,
    RenameAct,
    TopicAct,
    decode_act,
    encode_act,
    statement_of,
    title_after,
)
from fastchat_client.group_following import GroupFollower
from fastchat_client.groups import conversation_of
from fastchat_client.parts import Live, Parts

MOST_REPEATED = 20
"""How often an act is signed anew because others were first."""


@dataclass(frozen=True, slots=True)
class _Noted:
    """The first open act of a group. `length`: of the chain that `signed` follows on."""

    seq: int
    group: str
    act: CreateAct | Act
    at: int
    length: int
    signed: Signed | None


class GroupAppender:
    """One act of each group is under way at a time, in the order in which they were noted."""

    def __init__(self, parts: Parts, follower: GroupFollower) -> None:
        self._parts = parts
        self._follower = follower
        self._newest = 0
        self._groups: dict[str, None] = {}
        """Those with an open act."""
        self._repeated: dict[int, int] = {}
        self._not_before: dict[int, float] = {}
        follower.applied.append(self._applied)
        follower.followed.append(self._followed)
        self._pick_up()

    def pump(self, live: Live) -> None:
        """Ask for what can be asked for now."""
        if live.leaving is not None or self._parts.alarmed:
            return
        self._pick_up()
        under_way = set(live.acts.values())
        for group in list(self._groups):
            noted = self._first(group)
            if noted is not None and noted.seq not in under_way:
                self._go(live, noted)

    def _pick_up(self) -> None:
        """What this process or another one of the profile has noted."""
        rows = self._parts.vault.execute(
            "SELECT seq, group_id, length FROM group_acts WHERE state = 0 AND seq > ? ORDER BY seq", (self._newest,)
        ).fetchall()
        for seq, group, length in rows:
            self._newest = seq
            self._groups[group] = None
            if not length:
                self._parts.groups_to_create.add(group)

    def _go(self, live: Live, noted: _Noted) -> None:
        if self._not_before.get(noted.seq, 0.0) > self._parts.clock():
            return
        if isinstance(noted.act, CreateAct):
            self._say(live, noted, noted.signed)
        elif not self._follower.is_current(noted.group):
            if live.groups_listed and noted.group not in live.groups:
                self._follower.want(live, noted.group)
        else:
            try:
                self._say(live, noted, self._sign(noted))
            except (NotAllowed, GroupInvalid, RequestError) as problem:
                self._fail(noted, problem)

    def _say(self, live: Live, noted: _Noted, signed: Signed | None) -> None:
        assert signed is not None
        request = self._parts.say(lambda i: GroupAct(i, noted.group, signed))
        live.acts[request] = noted.seq

    def _sign(self, noted: _Noted) -> Signed:
        """The statement, as the chain is now. Raises `NotAllowed`, `GroupInvalid`, `RequestError`."""
        parts, me, act = self._parts, self._parts.me, noted.act
        assert not isinstance(act, CreateAct)
        known = parts.groups.get(noted.group)
        if known is None:
            raise GroupInvalid("this group is not known here")
        title = known.title
        if isinstance(act, RenameAct | TopicAct):
            title = title_after(title, act)
            act = msgspec.structs.replace(act, title=title)
        statement = statement_of(known.state, act, title, me.user, me.device, noted.at)
        chains.permits(known.state, statement)
        signed = chains.sign(parts.prekeeper.account.sign, statement)
        parts.vault.execute(
            "UPDATE group_acts SET act = ?, statement = ?, signature = ?, length = ? WHERE seq = ?",
            (encode_act(act), signed.body, signed.signature, known.state.length, noted.seq),
        )
        return signed

    # --- answers -----------------------------------------------------------------------------------------------------

    def answered(self, live: Live, answer: GroupDone) -> None:
        noted = self._find(live.acts.pop(answer.re, 0))
        if noted is None or noted.signed is None:
            return
        if isinstance(noted.act, CreateAct):
            self._done(noted)
            self._follower.want(live, noted.group, 1)
        elif self._parts.groups.length(noted.group) == noted.length:
            # Its own news have not come: it is what the server says it has taken.
            self._follower.news(live, GroupNews(noted.group, noted.length, noted.signed))
        else:
            self._follower.want(live, noted.group, answer.length)

    def refused(self, live: Live, request: int, problem: FastChatError) -> bool:
        """Whether `request` was an act."""
        if request not in live.acts:
            return False
        noted = self._find(live.acts.pop(request))
        if noted is None:
            return True
        if isinstance(problem, GroupChanged) and isinstance(noted.act, CreateAct):
            self._done(noted)  # it is there already: the answer to its first asking was lost
            self._follower.want(live, noted.group, 1)
        elif isinstance(problem, GroupChanged):
            # If news of the change have come meanwhile, there is nothing to ask.
            if noted.length >= self._parts.groups.length(noted.group):
                self._follower.look_again(live, noted.group)
        elif problem.retry_after is None:
            self._fail(noted, problem)
        else:
            self._not_before[noted.seq] = self._parts.clock() + problem.retry_after
        return True

    def _followed(self, group: str) -> None:
        """The chain is known to its end: was somebody else first?"""
        noted = self._first(group)
        if noted is None or noted.signed is None or isinstance(noted.act, CreateAct):
            return
        if self._is_in_chain(noted):
            self._tell_title(noted)
            self._done(noted)
        elif self._parts.groups.length(group) > noted.length:
            self._come_second(noted)

    def _come_second(self, noted: _Noted) -> None:
        """Somebody else's statement stands where this one should: sign it again if it still means the same."""
        parts = self._parts
        between = [
            chains.read(signed)
            for position in range(noted.length, parts.groups.length(noted.group))
            if (signed := parts.groups.statement(noted.group, position)) is not None
        ]
        count = self._repeated[noted.seq] = self._repeated.get(noted.seq, 0) + 1
        others = [statement for statement in between if not isinstance(statement, chains.Join | chains.Leave)]
        if count > MOST_REPEATED or (others and not isinstance(noted.act, JoinAct | LeaveAct)):
            what = ", ".join(_in_words(statement) for statement in others or between)
            self._fail(noted, GroupChanged(f"somebody changed the group in the same moment ({what}); nothing was done"))
        else:
            parts.vault.execute("UPDATE group_acts SET statement = NULL, signature = NULL WHERE seq = ?", (noted.seq,))

    def _applied(self, before: GroupState | None, after: GroupState, statement: Statement, signed: Signed) -> None:
        noted = self._first(after.group)
        if noted is not None and noted.signed is not None and noted.signed.body == signed.body:
            self._tell_title(noted)
            self._done(noted)

    def _tell_title(self, noted: _Noted) -> None:
        """The chain has a hash of what the group is called now: say what it stands for."""
        parts = self._parts
        title: Title | None = noted.act.title if isinstance(noted.act, RenameAct | TopicAct) else None
        if title is not None:
            parts.groups.tell_title(noted.group, title)
            content = encode_content(GroupTitle(noted.group, title))
            parts.outbox.compose(conversation_of(noted.group), "", content, parts.now())

    def _is_in_chain(self, noted: _Noted) -> bool:
        assert noted.signed is not None
        ours = self._parts.groups.statement(noted.group, noted.length)
        return ours is not None and ours.body == noted.signed.body

    def _done(self, noted: _Noted) -> None:
        self._parts.vault.execute("UPDATE group_acts SET state = ? WHERE seq = ?", (DONE, noted.seq))
        conversation = conversation_of(noted.group)
        self._parts.tell(ActDone(noted.seq, conversation))
        if isinstance(noted.act, CreateAct):
            self._parts.groups_to_create.discard(noted.group)
            user = self._parts.me.user
            self._parts.tell(GroupNow(conversation, "created", user, "", noted.act.title.name, iso(noted.at)))

    def _fail(self, noted: _Noted, problem: FastChatError) -> None:
        self._parts.vault.execute(
            "UPDATE group_acts SET state = ?, code = ?, reason = ? WHERE seq = ?",
            (FAILED, problem.code, problem.message, noted.seq),
        )
        if isinstance(noted.act, CreateAct):
            self._parts.groups_to_create.discard(noted.group)
            self._parts.groups.forget(noted.group)
        self._parts.tell(ActFailed(noted.seq, conversation_of(noted.group), problem.code, problem.message))

    # --- rows --------------------------------------------------------------------------------------------------------

    def _first(self, group: str) -> _Noted | None:
        """The first open act of a group."""
        if group not in self._groups:
            return None
        row = self._parts.vault.execute(
            "SELECT seq, group_id, act, at, length, statement, signature FROM group_acts"
            " WHERE state = 0 AND group_id = ? ORDER BY seq LIMIT 1",
            (group,),
        ).fetchone()
        if row is None:
            del self._groups[group]
            return None
        signed = None if row[5] is None else Signed(row[5], row[6])
        return _Noted(row[0], row[1], decode_act(row[2]), row[3], row[4], signed)

    def _find(self, seq: int) -> _Noted | None:
        """An act that is under way; None if it has come to its end."""
        row = self._parts.vault.execute(
            "SELECT group_id FROM group_acts WHERE state = 0 AND seq = ?", (seq,)
        ).fetchone()
        noted = None if row is None else self._first(row[0])
        return noted if noted is not None and noted.seq == seq else None


def _in_words(statement: Statement) -> str:
    who, kind = chains.subject(statement), str(type(statement).__struct_config__.tag)
    return f"{statement.user} {_VERBS.get(kind, kind)}{f' {who}' if who else ''}"


_VERBS = {
    "invite": "invited",
    "join": "joined",
    "leave": "left",
    "remove": "removed",
    "role": "gave another role to",
    "title": "renamed it",
    "delete": "deleted it",
}
