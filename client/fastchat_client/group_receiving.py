"""Group messages and their keys, from the wire to the history: read, or kept in their place until they can be.

A message waits for its session's key, or for the statements by which it was encrypted; both are asked for. It is shown
only if its sender was a member by these statements. Whose a session is, its device has signed.
"""

from __future__ import annotations

from fastchat.errors import GroupInvalid, SignatureInvalid
from fastchat.identity import groups as chains
from fastchat.identity.links import DeviceIdentity
from fastchat.protocols.wire import Signed
from fastchat_client import history, settings
from fastchat_client.content import GroupHistory, GroupKey, GroupTitle, Unknown, decode_content
from fastchat_client.events import MessageUnreadable, MessageWaiting, iso
from fastchat_client.group_bodies import Kept, Waits
from fastchat_client.group_content import GroupPlain, read_group_plain
from fastchat_client.group_following import GroupFollower
from fastchat_client.group_keys import Inbound
from fastchat_client.groups import conversation_of
from fastchat_client.megolm import GroupBody, InboundGroup, read_group_body
from fastchat_client.parts import Parts
from fastchat_client.understanding import Said, Understanding
from fastchat_client.unreadable import Reason, Unreadable

MOST_WAITING = 1000
"""Messages of one group that wait for something: beyond that they are unreadable."""


class GroupReceiver:
    def __init__(self, parts: Parts, follower: GroupFollower, understanding: Understanding) -> None:
        self._parts = parts
        self._follower = follower
        self._understanding = understanding
        self.wants_again = False
        """Something is to be asked for again (`receiving`)."""
        follower.followed.append(self.release)

    # --- messages ----------------------------------------------------------------------------------------------------

    def open(self, sender: DeviceIdentity, n: int, at: int, body: bytes, *, earlier: bool = False) -> None:
        """A group message that is new here: read it, or keep it until it can be. `sender`: as the server names it.
        `earlier`: it was handed on with a newcomer's history."""
        try:
            header = read_group_body(body)
        except Unreadable as problem:
            self._unreadable(sender, n, at, sender.user, problem)
            return
        kept = Kept(0, header.group, header.session, sender.user, sender.device, n, at, body, earlier)
        waits = self._read(sender, kept, header)
        if waits is not Waits.NOTHING:
            self._wait(sender, kept, waits)

    def release(self, group: str) -> None:
        """A key has come, or the chain has been followed: read what can be read now, in the order in which it came."""
        parts = self._parts
        for kept in parts.group_bodies.waiting(group):
            sender = parts.accounts.ever(kept.user, kept.device)
            if sender is None:
                continue  # of a newcomer's history: whoever wrote it is being asked for
            waits = self._read(sender, kept, read_group_body(kept.body))
            if waits is not Waits.NOTHING:
                self._parts.group_bodies.keep(
                    kept.group, kept.session, (kept.user, kept.device), kept.n, kept.at, kept.body, waits
                )

    def whispered(self, sender: DeviceIdentity, body: bytes) -> None:
        """Something that is only worth hearing now: dropped if it cannot be read at once."""
        try:
            header = read_group_body(body)
            plain = self._decrypt(sender, header, 0)
            if plain is None or plain.length > self._parts.groups.length(header.group):
                return
            content = decode_content(plain.content)
        except Unreadable:
            return  # they may be lost on the way as well
        if self._parts.groups.was_member(header.group, sender.user, plain.length) and not isinstance(content, Unknown):
            self._understanding.take(self._said(sender, 0, plain, earlier=False), content)

    def _read(self, sender: DeviceIdentity, kept: Kept, header: GroupBody) -> Waits:
        """Read it, with all that follows, or say for what it has to wait."""
        parts = self._parts
        group = header.group
        if parts.groups.get(group) is None:
            return self._of_unknown_group(sender, kept)
        try:
            plain = self._decrypt(sender, header, kept.n)
            if plain is None:
                return self._without_key(sender, kept)
            if not self._follower.claim(parts.ready, group, plain.length, plain.head, sender.device):
                return Waits.CHAIN
            content = decode_content(plain.content)
        except Unreadable as problem:
            self._settled(kept, keep=False)
            self._unreadable(sender, kept.n, kept.at, conversation_of(group), problem)
            return Waits.NOTHING
        if not parts.groups.was_member(group, sender.user, plain.length):
            self._settled(kept, keep=False)
            history.drop_placeholder(parts.vault, sender.device, kept.n)
            parts.group_alarm(
                group,
                "group-outsider",
                f"a message came of {sender.user}, who was no member when it was written; it is not shown",
                proof=False,
                user=sender.user,
                device=sender.device,
                length=plain.length,
            )
            return Waits.NOTHING
        if isinstance(content, Unknown):
            self._settled(kept, keep=False)
            self._unreadable(sender, kept.n, kept.at, conversation_of(group), Unreadable(Reason.NEWER_CLIENT))
            return Waits.NOTHING
        self._keep_for_newcomers(kept)
        if isinstance(content, GroupTitle):
            history.drop_placeholder(parts.vault, sender.device, kept.n)
            self.title(content)
        else:
            self._understanding.take(self._said(sender, kept.n, plain, earlier=kept.earlier), content)
        return Waits.NOTHING

    def _decrypt(self, sender: DeviceIdentity, header: GroupBody, seq: int) -> GroupPlain | None:
        """What stands in it, if it is message `seq` of `sender`; None if there is no key yet that reads it. Raises
        `Unreadable`."""
        found = [self._parts.group_keys.inbound(header.group, header.session)]
        found.append(self._earlier_key(header))
        problem: Unreadable | None = None
        for inbound in found:
            if inbound is None:
                continue
            if (inbound.user, inbound.device) != (sender.user, sender.device):
                problem = Unreadable(Reason.WRONG_IDENTITY)
                continue
            try:
                plaintext, index = inbound.session.decrypt(header.message)
            except Unreadable as error:
                problem = error
                continue
            plain = read_group_plain(plaintext, sender, header.group)
            if plain.seq != seq or index < inbound.session.first_index:
                raise Unreadable(Reason.WRONG_IDENTITY)
            return plain
        if problem is not None and not self._begins_later(found, header):
            raise problem
        return None

    def _begins_later(self, found: list[Inbound | None], header: GroupBody) -> bool:
        """Whether a key of the session is here, but only from a later message on."""
        index = InboundGroup.index_of(header.message)
        return all(inbound is None or index < inbound.session.first_index for inbound in found)

    def _earlier_key(self, header: GroupBody) -> Inbound | None:
        """What the one gave who has invited us, once it is checked whose it is."""
        parts = self._parts
        inbound = parts.group_keys.inbound(header.group, header.session, earlier=True)
        if inbound is None or inbound.verified:
            return inbound
        owner = parts.accounts.ever(inbound.user, inbound.device)
        if owner is None:
            if parts.ready is not None:
                parts.ready.fetching.want(inbound.user)
            return None
        try:
            chains.verify_session(inbound.proof, owner.ed25519)
        except (GroupInvalid, SignatureInvalid):
            return None
        parts.group_keys.verified(header.group, header.session)
        return parts.group_keys.inbound(header.group, header.session, earlier=True)

    # --- what cannot be read now -------------------------------------------------------------------------------------

    def _of_unknown_group(self, sender: DeviceIdentity, kept: Kept) -> Waits:
        live = self._parts.ready
        if live is None or not live.groups_listed:
            return Waits.CHAIN
        sync = live.groups.get(kept.group)
        if sync is None or not sync.is_current:
            self._follower.want(live, kept.group)
            return Waits.CHAIN if self._parts.groups.get(kept.group) is None else Waits.KEY
        self._not_ours(sender, kept)
        return Waits.NOTHING

    def _without_key(self, sender: DeviceIdentity, kept: Kept) -> Waits:
        parts = self._parts
        if self._follower.is_current(kept.group) and parts.groups.has_left(kept.group, parts.me.user):
            self._not_ours(sender, kept)
            return Waits.NOTHING
        return Waits.KEY

    def _not_ours(self, sender: DeviceIdentity, kept: Kept) -> None:
        """The server hands over what is not for this account; without its key it is noise."""
        self._settled(kept, keep=False)
        history.drop_placeholder(self._parts.vault, sender.device, kept.n)
        self._parts.group_alarm(
            kept.group,
            "group-outsider",
            "the server hands over messages of a group that this account is not in; they cannot be read",
            proof=True,
            user=sender.user,
            device=sender.device,
            n=kept.n,
        )

    def _wait(self, sender: DeviceIdentity, kept: Kept, waits: Waits) -> None:
        parts = self._parts
        if not kept.earlier:
            if len(parts.group_bodies.waiting(kept.group)) >= MOST_WAITING:
                problem = Unreadable(Reason.NO_SESSION)
                self._unreadable(sender, kept.n, kept.at, conversation_of(kept.group), problem)
                return
            if not settings.is_blocked(parts.vault, sender.user):
                self._show_waiting(sender, kept, waits)
        parts.group_bodies.keep(
            kept.group,
            kept.session,
            (sender.user, sender.device),
            kept.n,
            kept.at,
            kept.body,
            waits,
            earlier=kept.earlier,
        )

    def _show_waiting(self, sender: DeviceIdentity, kept: Kept, waits: Waits) -> None:
        parts, conversation = self._parts, conversation_of(kept.group)
        history.add_waiting(parts.vault, sender.device, kept.n, conversation, sender.user, kept.at, waits)
        message_id = f"{sender.device}.{kept.n}"
        parts.tell(MessageWaiting(sender.user, conversation, waits.sentence, iso(kept.at), message_id))

    def _unreadable(self, sender: DeviceIdentity, n: int, at: int, conversation: str, problem: Unreadable) -> None:
        parts, reason = self._parts, problem.reason
        is_worth_asking = reason is not Reason.NEWER_CLIENT
        asking = is_worth_asking and parts.inbox.want_again(sender.user, sender.device, n, reason, parts.now())
        if settings.is_blocked(parts.vault, sender.user):
            history.drop_placeholder(parts.vault, sender.device, n)
        else:
            message_id = f"{sender.device}.{n}"
            history.add_unreadable(parts.vault, sender.device, n, sender.user, at, reason, conversation)
            parts.tell(MessageUnreadable(sender.user, conversation, reason.sentence, iso(at), message_id, asking))
        if asking:
            self.wants_again = True

    def _settled(self, kept: Kept, *, keep: bool) -> None:
        self._parts.group_bodies.settled(kept.device, kept.n, keep=keep)

    def _keep_for_newcomers(self, kept: Kept) -> None:
        parts = self._parts
        if kept.seq:
            self._settled(kept, keep=True)
        else:
            sender = (kept.user, kept.device)
            parts.group_bodies.keep(kept.group, kept.session, sender, kept.n, kept.at, kept.body, Waits.NOTHING)

    def _said(self, sender: DeviceIdentity, n: int, plain: GroupPlain, *, earlier: bool) -> Said:
        own = sender.user == self._parts.me.user
        return Said(sender, n, conversation_of(plain.group), own, plain.at, earlier)

    # --- keys, titles, history ---------------------------------------------------------------------------------------

    def key(self, sender: DeviceIdentity, content: GroupKey) -> None:
        """A device sends the key of its own session. Raises `Unreadable` if it is not that."""
        parts = self._parts
        inbound = self._session(content.key, content.group, content.proof)
        if (inbound.user, inbound.device) != (sender.user, sender.device):
            raise Unreadable(Reason.WRONG_IDENTITY)
        try:
            chains.verify_session(content.proof, sender.ed25519)
        except (GroupInvalid, SignatureInvalid):
            raise Unreadable(Reason.BAD_CONTENT) from None
        verified = Inbound(inbound.session, sender.user, sender.device, content.proof, True)
        parts.group_keys.add(content.group, verified, parts.now())
        self._follower.claim(parts.ready, content.group, content.length, content.head, sender.device)
        if content.title is not None:
            parts.groups.tell_title(content.group, content.title)
        self.release(content.group)

    def title(self, content: GroupTitle) -> None:
        """Somebody says what the group is called; the chain's hash tells whether that is so."""
        if self._parts.groups.tell_title(content.group, content.title):
            self._follower.tell_invitation(content.group)

    def history(self, sender: DeviceIdentity, content: GroupHistory) -> None:
        """What was said before we joined, from who has invited us: by the chain, it is theirs to give. Raises
        `Unreadable` if it is malformed."""
        parts = self._parts
        if not self._has_invited_us(content.group, sender.user):
            parts.group_alarm(
                content.group,
                "group-outsider",
                f"{sender.user} hands on earlier messages, but has not invited this account; they are not shown",
                proof=False,
                user=sender.user,
                device=sender.device,
            )
            return
        for key in content.keys:
            parts.group_keys.add(
                content.group, self._session(key.key, content.group, key.proof), parts.now(), earlier=True
            )
        for message in content.messages:
            header = read_group_body(message.body)
            if header.group == content.group and parts.inbox.take(message.device, message.n):
                sent_by = (message.user, message.device)
                parts.group_bodies.keep(
                    content.group, header.session, sent_by, message.n, 0, message.body, Waits.KEY, earlier=True
                )
                if parts.ready is not None and parts.accounts.ever(*sent_by) is None:
                    parts.ready.fetching.want(message.user)
        self.release(content.group)

    def _has_invited_us(self, group: str, user: str) -> bool:
        """By one of the statements of the group's chain."""
        parts = self._parts
        for position in range(parts.groups.length(group)):
            signed = parts.groups.statement(group, position)
            assert signed is not None
            statement = chains.read(signed)
            if isinstance(statement, chains.Invite) and (statement.user, statement.who) == (user, parts.me.user):
                return statement.history > 0
        return False

    def _session(self, key: bytes, group: str, proof: Signed) -> Inbound:
        """A session and whose it is said to be. Raises `Unreadable` if the two do not belong together."""
        session = InboundGroup.from_export(key)
        try:
            statement = chains.read_session(proof)
        except GroupInvalid:
            raise Unreadable(Reason.BAD_CONTENT) from None
        if (statement.group, statement.session) != (group, session.session):
            raise Unreadable(Reason.WRONG_IDENTITY)
        return Inbound(session, statement.user, statement.device, proof, False)

    def want_accounts(self) -> None:
        """Of who wrote what we were handed as history, and is not known."""
        live = self._parts.ready
        for group in self._parts.group_bodies.groups if live is not None else ():
            for kept in self._parts.group_bodies.waiting(group):
                if self._parts.accounts.ever(kept.user, kept.device) is None:
                    assert live is not None
                    live.fetching.want(kept.user)
