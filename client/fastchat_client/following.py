"""Following the key log, and taking in what the server says of accounts: nothing is believed before both agree."""

from __future__ import annotations

from fastchat.errors import (
    ChainInvalid,
    DeviceRevoked,
    FastChatError,
    ProtocolError,
    RequestError,
    RootChanged,
    SignatureInvalid,
    UnknownUser,
)
from fastchat.identity.keylog import LEAF_SIZE
from fastchat.identity.links import replay
from fastchat.protocols.wire import AccountKeys, KeysAnswer, LogAnswer, LogRequest, Ready
from fastchat_client import events
from fastchat_client.fetching import NOBODY_PATIENCE, PATIENCE, Question
from fastchat_client.grouping import GroupSide
from fastchat_client.parts import Live, Parts
from fastchat_client.receiving import Receiver
from fastchat_client.sending import Sender
from fastchat_client.trust import FreshKeys
from fastchat_client.vault import fingerprint
from fastchat_client.witness import Contradiction, Coverage

MOST_BEHIND = 2
"""How often an account is asked for again whose links are behind the log: the two are read at different moments."""


class Follower:
    def __init__(self, parts: Parts, sender: Sender, receiver: Receiver, groups: GroupSide) -> None:
        self._parts = parts
        self._sender = sender
        self._receiver = receiver
        self._groups = groups

    # --- the log -----------------------------------------------------------------------------------------------------

    def begin(self, live: Live, ready: Ready) -> None:
        try:
            self._parts.witness.check(ready.checkpoint)
        except Contradiction as contradiction:
            self._parts.alarm(contradiction)
        live.log_target = ready.checkpoint.size
        if self._parts.witness.size >= live.log_target:
            live.log_current = True
        else:
            self.ask(live)

    def ask(self, live: Live) -> None:
        """Read on in the log, unless that is being done."""
        if not live.log_request:
            size = self._parts.witness.size
            live.log_asked_at = self._parts.clock()
            live.log_ahead = self._parts.witness.ahead()
            live.log_request = self._parts.say(lambda i: LogRequest(i, size))

    def log_answer(self, live: Live, answer: LogAnswer) -> None:
        parts = self._parts
        if answer.re != live.log_request:
            return
        live.log_request = 0
        if answer.start != parts.witness.size:
            parts.close(ProtocolError("the network answers for another part of the key log than was asked for"))
            return
        try:
            names = parts.witness.extend(answer.leaves, answer.checkpoint)
        except Contradiction as contradiction:
            parts.alarm(contradiction)
            return
        for claim_of_a_peer in parts.witness.settle():
            parts.alarm(claim_of_a_peer)
        for user in parts.accounts.named(names):
            if parts.witness.coverage(user, parts.accounts.links(user)) is not Coverage.COVERED:
                parts.accounts.mark_user_stale(user)
                # Whether a device has been revoked that may change a group is to be known before it does.
                if user == parts.me.user or parts.groups.is_run_by(user):
                    live.fetching.want(user)
        is_end = len(answer.leaves) < LEAF_SIZE
        if is_end:
            # What they had seen was in the log before it was asked for.
            for device in live.log_ahead & parts.witness.ahead():
                parts.alarm(parts.witness.withheld(device))
        aside, live.aside = live.aside, {}
        for keys, claim in aside.values():
            self._take(live, keys, claim, log_is_read=is_end)
        if parts.witness.size >= live.log_target:
            live.log_current = True
        if not is_end and (not live.log_current or live.aside):
            self.ask(live)

    # --- accounts ----------------------------------------------------------------------------------------------------

    def keys_answer(self, live: Live, answer: KeysAnswer) -> None:
        question = live.fetching.answered(answer.re)
        if question is None:
            return
        given = {keys.user: keys for keys in reversed(answer.accounts)}
        for user in question.users:
            if user in given:
                self._take(live, given[user], question.claim, log_is_read=False)
            else:
                self._nobody(live, user)

    def refused(self, live: Live, request: int, problem: FastChatError) -> bool:
        """Whether `request` asked for keys or for the log."""
        question = live.fetching.answered(request)
        if question is not None:
            self._keys_refused(live, question, problem.retry_after)
            return True
        is_log = request == live.log_request
        if is_log:
            live.log_request = 0
        return is_log

    def _keys_refused(self, live: Live, question: Question, patience: float | None) -> None:
        """The server did not answer; ask again later, or if that would not help (None) at once for fewer users: their
        devices' keys may have been too many for one answer."""
        if patience is None and live.fetching.too_many(question):
            return
        for user in question.users:
            live.fetching.in_vain(user, self._parts.clock(), PATIENCE if patience is None else patience)
            live.fetching.want(user, question.claim)

    def _take(self, live: Live, keys: AccountKeys, claim: bool, *, log_is_read: bool) -> None:
        """What the server says of an account, if the links are good and the log has just these."""
        parts = self._parts
        try:
            chain = replay(keys.user, keys.links)
            match parts.witness.coverage(keys.user, keys.links):
                case Coverage.AHEAD if log_is_read:
                    raise Contradiction(f"links of {keys.user} are not in the key log", links=keys.links)
                case Coverage.AHEAD:
                    live.aside[keys.user] = (keys, claim)
                    self.ask(live)
                    return
                case Coverage.BEHIND:
                    self._fall_behind(live, keys, claim)
                    return
            account = parts.accounts.get(keys.user)
            offered_before = b"" if account is None else account.offered_root
            try:
                fresh, refused = parts.accounts.learn(keys, parts.now(), chain)
            except RootChanged:
                account = parts.accounts.get(keys.user)
                assert account is not None
                if chain.root_pem != offered_before:
                    old, new = fingerprint(account.root_pem), fingerprint(chain.root_pem)
                    parts.tell(events.RootChanged(keys.user, old, new))
                    self._receiver.tell_held(keys.user, "the sender's key has changed")
                return
        except Contradiction as contradiction:
            parts.alarm(contradiction)
            live.fetching.in_vain(keys.user, parts.clock())
            return
        except (ChainInvalid, SignatureInvalid) as error:
            live.fetching.in_vain(keys.user, parts.clock())
            parts.tell(events.Notice(error.code, f"the keys of {keys.user} are not believed: {error.message}"))
            self._receiver.tell_held(keys.user, "the sender's keys are not believed")
            return
        for reason in refused:
            parts.tell(events.Notice(SignatureInvalid.code, reason))
        self._learned(live, keys.user, fresh if claim else [], claim)

    def _fall_behind(self, live: Live, keys: AccountKeys, claim: bool) -> None:
        live.behind[keys.user] = live.behind.get(keys.user, 0) + 1
        if live.behind[keys.user] > MOST_BEHIND:
            raise Contradiction(f"the server hides the newest links of {keys.user}", links=keys.links)
        live.fetching.want(keys.user, claim)

    def _learned(self, live: Live, user: str, fresh: list[FreshKeys], claim: bool) -> None:
        parts = self._parts
        account = parts.accounts.get(user)
        assert account is not None
        live.behind.pop(user, None)
        if user == parts.me.user and parts.me.device in account.revoked:
            parts.tell(events.Notice(DeviceRevoked.code, DeviceRevoked().message))
            parts.close(DeviceRevoked())
            return
        for device in account.revoked:
            parts.inbox.asks_no_more(device)
        keys = {one.device: one.key for one in fresh}
        asking = live.asking.pop(user, set()) if claim else set()
        for device, identity in account.devices.items():
            if device == parts.me.device:
                continue
            if device in keys and (device in asking or not parts.sessions.has(identity)):
                self._sender.open_session(identity, keys[device], preferred=device in asking)
                if device in asking:
                    self._receiver.ask_again(identity)
            if claim and not parts.sessions.has(identity):
                live.without_keys.add(device)
        self._receiver.release(user)
        self._groups.learned(live, user)

    def _nobody(self, live: Live, user: str) -> None:
        parts = self._parts
        if parts.accounts.get(user) is None:
            live.nobody.add(user)
            live.fetching.in_vain(user, parts.clock(), NOBODY_PATIENCE)
            self._sender.fail_all(user, UnknownUser())
            self._receiver.release(user)
            self._groups.learned(live, user)
        else:
            live.fetching.in_vain(user, parts.clock())
            parts.tell(events.Notice(RequestError.code, f"the server says that there is no {user} any more"))
