"""Writing to groups: one ciphertext for everybody, after each device that may read it has been sent the key.

Who may read is who the group's chain names, never whom the server delivers to. The key changes when somebody who had it
may have it no more (left, removed, a device revoked, another root), after a hundred messages, and after a day; a new
member gets it as it is now, and reads from there on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

import msgspec

from fastchat.errors import TrustError
from fastchat.identity import groups as chains
from fastchat.identity.groups import GroupState, Invite, Join, Statement
from fastchat.identity.links import DeviceIdentity
from fastchat.protocols.wire import GroupWhisper, Signed
from fastchat_client import composing, ratchet
from fastchat_client.content import (
    EarlierKey,
    EarlierMessage,
    GroupHistory,
    GroupKey,
    GroupKeyRequest,
    GroupTitle,
    TreeHead,
    encode_content,
    write_plain,
)
from fastchat_client.events import Notice
from fastchat_client.group_bodies import DAY, Kept, Waits
from fastchat_client.group_content import write_group_plain
from fastchat_client.group_following import GroupFollower
from fastchat_client.group_keys import Outbound, Shared
from fastchat_client.groups import group_of
from fastchat_client.megolm import InboundGroup, read_group_body
from fastchat_client.outbox import Composed, keys_of
from fastchat_client.parts import Live, Parts
from fastchat_client.trust import Peer

MOST_MESSAGES = 100
MOST_AGE = DAY
"""After which the key changes, whoever is there."""
LOOK_AGAIN = 60.0
"""Seconds after which it is looked at again who needs a key, although nothing is known to have changed."""
KEYS_AT_ONCE = 60
"""Devices in one `send` of keys: each takes up to 4 KB of a line."""
MOST_ANSWERED = 5
"""How often a device is sent the same key again on its asking."""
_NEWCOMERS = "newcomers of "
"""The vault's value, by group: who has joined by an invitation of this device, and for how many days of the past."""
MOST_HISTORY = 1000
HISTORY_BYTES = 64 * 1024
"""Messages that a newcomer is given, and bytes of them in one message to him."""


class GroupSender:
    def __init__(self, parts: Parts, follower: GroupFollower) -> None:
        self._parts = parts
        self._follower = follower
        self._answered: Counter[tuple[str, bytes]] = Counter()
        self._complete: dict[str, tuple[int, int, bytes]] = {}
        self._complete_at: dict[str, float] = {}
        """By group, when everybody who is to read had the key, and what has to be as it was then."""
        follower.applied.append(self._applied)
        follower.followed.append(self._followed)

    # --- messages ----------------------------------------------------------------------------------------------------

    def may_write(self, conversation: str) -> bool:
        """Whether this account is in the group, as far as is known here."""
        parts = self._parts
        return bool(parts.groups.role(group_of(conversation), parts.me.user))

    def seal(self, live: Live, message: Composed) -> bool:
        """Encrypt `message` once its group is known to the end and everybody's keys are. True if something was done:
        it is encrypted, or keys have to leave before it."""
        group = group_of(message.user)
        if not self._may_go(live, group):
            return False
        if self._all_have_key(group):
            self._encrypt(group, message)
            return True
        peers = self._peers(live, group)
        if peers is None:
            return False
        outbound = self._parts.group_keys.outbound(group)
        shared = {} if outbound is None else self._parts.group_keys.shared(outbound.session.session)
        if outbound is not None and self._must_renew(group, outbound, shared):
            outbound, shared = None, {}
        missing = [peer for device, peer in peers.items() if device not in shared or shared[device].missed]
        if not self._has_sessions(live, missing):
            return False
        usable = [peer for peer in missing if self._can_be_sealed_for(live, peer)]
        if not usable and not shared and self.has_others(message.user, ()):
            # There are devices, and the server does not say how to write to any of them.
            self._ask_for_keys(live, group, peers.values())
            return False
        if outbound is None:
            outbound = self._renew(group)
        if missing := usable:
            self._share(live, group, outbound, missing)
        else:
            self._complete[group] = self._situation(group, outbound)
            self._complete_at[group] = self._parts.clock()
            self._encrypt(group, message)
        return True

    def _situation(self, group: str, outbound: Outbound) -> tuple[int, int, bytes]:
        """What has to be as it was, for everybody who is to read to have the key still."""
        return self._parts.groups.length(group), self._parts.accounts.changes, outbound.session.session

    def _all_have_key(self, group: str) -> bool:
        """Whether nothing has changed since that was looked at: with a thousand members it takes a while."""
        parts = self._parts
        outbound = parts.group_keys.outbound(group)
        if outbound is None or self._complete.get(group) != self._situation(group, outbound):
            return False
        is_old = parts.clock() - self._complete_at[group] >= LOOK_AGAIN
        return not (is_old or self._is_worn(outbound))

    def is_alone(self, conversation: str) -> bool:
        """Whether nobody has the key of this group but this device: there is nobody to send to."""
        group = group_of(conversation)
        outbound = self._parts.group_keys.outbound(group)
        return outbound is not None and not self._parts.group_keys.shared(outbound.session.session)

    def has_others(self, conversation: str, missing: Sequence[str]) -> bool:
        """Whether somebody else's device is in the group that is not one of `missing`."""
        parts = self._parts
        accounts = [parts.accounts.get(user) for user in parts.groups.members(group_of(conversation))]
        devices = {device for account in accounts if account is not None for device in account.devices}
        return bool(devices - {parts.me.device, *missing})

    def devices_of_others(self, conversation: str, since: int) -> int:
        """How many devices those others have, as far as is known, who were in the group when its chain had `since`
        statements, or came later."""
        parts = self._parts
        users = [user for user in parts.groups.members_since(group_of(conversation), since) if user != parts.me.user]
        return sum(len(account.devices) for account in map(parts.accounts.get, users) if account is not None)

    def _may_go(self, live: Live, group: str) -> bool:
        if group in self._parts.groups_to_create:
            return False
        if not self._follower.is_current(group):
            if live.groups_listed and group not in live.groups:
                self._follower.want(live, group)
            return False
        is_known = live.log_current and not self._follower.is_doubted(group)
        return is_known and not self._parts.outbox.has_waiting(keys_of(group))

    def _peers(self, live: Live, group: str) -> dict[str, Peer] | None:
        """By device, everybody who is to read; None while somebody's keys are still to come."""
        parts = self._parts
        peers: dict[str, Peer] = {}
        is_complete = True
        for user in parts.groups.members(group):
            account = parts.accounts.get(user)
            if account is None or not (parts.accounts.is_fresh(user, parts.now()) or account.offered_root):
                live.fetching.want(user, claim=account is None)
                is_complete = False
            elif not account.offered_root or user == parts.me.user:
                peers.update((peer.identity.device, peer) for peer in account.peers if peer.identity != parts.me)
        return peers if is_complete else None

    def _must_renew(self, group: str, outbound: Outbound, shared: dict[str, Shared]) -> bool:
        parts = self._parts
        if self._is_worn(outbound):
            return True
        members = set(parts.groups.members(group))
        for device, having in shared.items():
            account = parts.accounts.get(having.user)
            if having.user not in members or account is None or device not in account.devices:
                return True
            if account.offered_root and having.user != parts.me.user:
                return True
        return False

    def _is_worn(self, outbound: Outbound) -> bool:
        is_young = 0 <= self._parts.now() - outbound.made_at < MOST_AGE
        return outbound.messages >= MOST_MESSAGES or not is_young

    def _has_sessions(self, live: Live, missing: Sequence[Peer]) -> bool:
        """Whether the keys can go to all of them; if not, those of the others are asked for."""
        parts, has_all = self._parts, True
        for peer in missing:
            if not parts.sessions.has(peer.identity) and peer.identity.device not in live.without_keys:
                live.fetching.want(peer.identity.user, claim=True)
                has_all = False
        return has_all

    def _can_be_sealed_for(self, live: Live, peer: Peer) -> bool:
        return peer.identity.device not in live.without_keys and self._parts.sessions.has(peer.identity)

    def _ask_for_keys(self, live: Live, group: str, peers: Iterable[Peer]) -> None:
        for peer in peers:
            if not self._parts.sessions.has(peer.identity):
                live.without_keys.discard(peer.identity.device)
        for user in self._parts.groups.members(group):
            live.fetching.want_later(user, self._parts.clock(), claim=True)

    def _renew(self, group: str) -> Outbound:
        parts = self._parts
        return parts.group_keys.renew(group, parts.me, parts.prekeeper.account.sign, parts.now())

    def _encrypt(self, group: str, message: Composed) -> None:
        parts = self._parts
        body, length = self._body(group, message.n, message.at, message.content, counts=True)
        parts.outbox.sealed(message.n, [(message.user, bytes(ratchet.body_to_wire(body)))], length)
        sender, session = (parts.me.user, parts.me.device), read_group_body(body).session
        parts.group_bodies.keep(group, session, sender, message.n, parts.now(), body, Waits.NOTHING)

    def _body(self, group: str, seq: int, at: int, content: bytes, *, counts: bool) -> tuple[bytes, int]:
        """The body, and the length of the chain that it was encrypted by."""
        parts = self._parts
        known = parts.groups.get(group)
        assert known is not None
        chain = (known.state.length, known.state.head)
        head = TreeHead(parts.witness.size, parts.witness.root)
        plain = write_group_plain(parts.me, group, seq, chain, head, at, content)
        return parts.group_keys.encrypt(group, plain, counts=counts), known.state.length

    def whisper(self, group: str, content: bytes) -> None:
        """Say something in passing to whoever has the key already; nothing is done for a whisper's sake."""
        parts = self._parts
        outbound = parts.group_keys.outbound(group)
        if parts.ready is None or parts.alarmed or outbound is None or not parts.groups.role(group, parts.me.user):
            return
        shared = parts.group_keys.shared(outbound.session.session)
        if shared and not self._must_renew(group, outbound, shared):
            body, _ = self._body(group, 0, parts.now(), content, counts=False)
            parts.said.append(GroupWhisper(group, ratchet.body_to_wire(body)))

    # --- keys --------------------------------------------------------------------------------------------------------

    def _share(self, live: Live, group: str, outbound: Outbound, peers: Sequence[Peer]) -> None:
        """The key as it is now, for each of these devices."""
        parts = self._parts
        session, index = outbound.session.session, outbound.session.index
        content = self._key(group, session, index)
        left = iter(peers)
        while chunk := list(islice(left, KEYS_AT_ONCE)):
            n = parts.outbox.compose_sealed(
                keys_of(group),
                content,
                parts.now(),
                lambda n, chunk=chunk: self._sealed(live, n, content, chunk),  # type: ignore[misc]
            )
            devices = parts.outbox.devices(n)
            composed = parts.outbox.get(n)
            if not devices and composed is not None:
                parts.outbox.accepted(composed, parts.now(), ())  # none of their keys could be used
            for device in devices:
                user = next(peer.identity.user for peer in chunk if peer.identity.device == device)
                parts.group_keys.share(session, device, user, index)

    def _sealed(self, live: Live, n: int, content: bytes, peers: Sequence[Peer]) -> Iterator[tuple[str, bytes]]:
        parts = self._parts
        head = TreeHead(parts.witness.size, parts.witness.root)
        for peer in peers:
            plain = write_plain(parts.me, peer.identity, peer.identity.user, n, head, parts.now(), content)
            try:
                yield peer.identity.device, bytes(ratchet.body_to_wire(parts.sessions.seal(parts.me, peer, plain)))
            except TrustError as error:
                live.without_keys.add(peer.identity.device)
                parts.tell(Notice(error.code, error.message))

    def _key(self, group: str, session: bytes, index: int) -> bytes:
        parts = self._parts
        known, own = parts.groups.get(group), parts.group_keys.inbound(group, session, parts.me.device)
        assert known is not None
        assert own is not None
        state = known.state
        key = own.session.export_at(index)
        return encode_content(GroupKey(group, key, index, own.proof, state.length, state.head, known.title))

    def not_reached(self, message: Composed, devices: Sequence[str]) -> None:
        """Keys did not come to these devices, and will not: the next message sends them anew."""
        group = message.user.removeprefix(keys_of(""))
        outbound = self._parts.group_keys.outbound(group)
        self._complete.pop(group, None)
        if outbound is not None:
            for device in devices:
                self._parts.group_keys.missed(outbound.session.session, device)

    def asked(self, asker: DeviceIdentity, request: GroupKeyRequest) -> None:
        """A device misses a key of ours: it gets what is its account's to have."""
        parts = self._parts
        own = parts.group_keys.inbound(request.group, request.session, parts.me.device)
        if own is None or not parts.groups.role(request.group, asker.user) or asker.device in parts.accounts.revoked:
            return
        index = self._index_for(request.group, request.session, asker, own.session)
        self._answered[asker.device, request.session] += 1
        if index is None or self._answered[asker.device, request.session] > MOST_ANSWERED:
            return
        parts.group_keys.share(request.session, asker.device, asker.user, index)
        content = self._key(request.group, request.session, index)
        parts.outbox.compose(asker.user, asker.device, content, parts.now())

    def _index_for(self, group: str, session: bytes, asker: DeviceIdentity, own: InboundGroup) -> int | None:
        """From which message on the asker may read; None if from nowhere in this session."""
        if asker.user == self._parts.me.user:
            return own.first_index
        theirs = [
            shared.first_index
            for shared in self._parts.group_keys.shared(session).values()
            if shared.user == asker.user
        ]
        if theirs:
            return min(theirs)
        outbound = self._parts.group_keys.outbound(group)
        return outbound.session.index if outbound is not None and outbound.session.session == session else None

    # --- what statements bring ---------------------------------------------------------------------------------------

    def _applied(self, before: GroupState | None, after: GroupState, statement: Statement, signed: Signed) -> None:
        parts = self._parts
        if isinstance(statement, Invite) and statement.device == parts.me.device:
            self._tell_title(after.group, statement.who)
        elif isinstance(statement, Join) and before is not None:
            invitation = before.invited[statement.user]
            invite = parts.groups.statement(after.group, invitation.position)
            if invite is not None and chains.read(invite).device == parts.me.device and invitation.history:
                self._note_newcomer(after.group, statement.user, invitation.history)
        if parts.me.user not in after.members or after.deleted:
            parts.group_keys.drop(after.group)

    def _note_newcomer(self, group: str, user: str, days: int) -> None:
        """The past is theirs once the chain is known to its end: they may be out again by then."""
        self._parts.vault.put(_NEWCOMERS + group, msgspec.json.encode({**self._newcomers(group), user: days}))

    def _newcomers(self, group: str) -> dict[str, int]:
        noted = self._parts.vault.blob(_NEWCOMERS + group)
        return msgspec.json.decode(noted, type=dict[str, int]) if noted else {}

    def _followed(self, group: str) -> None:
        newcomers = self._newcomers(group)
        if newcomers:
            self._parts.vault.put(_NEWCOMERS + group, None)
        for user, days in newcomers.items():
            if self._parts.groups.role(group, user):
                self._give_history(group, user, days)

    def _tell_title(self, group: str, user: str) -> None:
        known = self._parts.groups.get(group)
        if known is not None and known.title is not None:
            self._compose(user, encode_content(GroupTitle(group, known.title)))

    def _give_history(self, group: str, user: str, days: int) -> None:
        """The last messages, newest first, so that each part stands before what came before it; with the keys that read
        them, and not a message more."""
        parts = self._parts
        kept = parts.group_bodies.since(group, parts.now() - days * DAY, MOST_HISTORY)
        while kept:
            size, chunk = 0, list[Kept]()
            while kept and (not chunk or size + len(kept[-1].body) <= HISTORY_BYTES):
                chunk.insert(0, kept.pop())
                size += len(chunk[0].body)
            keys = [
                key
                for session, device in dict.fromkeys((one.session, one.device) for one in chunk)
                if (key := self._earlier(chunk, session, device))
            ]
            messages = tuple(EarlierMessage(one.user, one.device, one.n, one.body) for one in chunk)
            self._compose(user, encode_content(GroupHistory(group, tuple(keys), messages)))

    def _earlier(self, chunk: Sequence[Kept], session: bytes, device: str) -> EarlierKey | None:
        """The key of `session` from its first message in `chunk` on."""
        messages = [
            read_group_body(one.body).message for one in chunk if (one.session, one.device) == (session, device)
        ]
        index = min(InboundGroup.index_of(message) for message in messages)
        for earlier in (False, True):
            inbound = self._parts.group_keys.inbound(chunk[0].group, session, device, earlier=earlier)
            if inbound is not None and (key := inbound.session.export_at(index)):
                return EarlierKey(key, inbound.proof)
        return None

    def _compose(self, user: str, content: bytes) -> None:
        """For all devices of `user`, and no others."""
        parts = self._parts
        composing.compose_for(parts.vault, user, content, parts.now())
        parts.outbox.pick_up()
