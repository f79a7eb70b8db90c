"""Group messages and their keys, from the wire to the history: read, or kept in their place until they can be.

A message waits for its session's key, or for the statements by which it was encrypted; both are asked for. It is shown
only if its sender was a member by these statements. Whose a session is, its device has signed.
"""

from __future__ import annotations

from fastchat.errors import DeviceRevoked, GroupInvalid, SignatureInvalid
from fastchat.identity import groups as chains
from fastchat.identity.links import DeviceIdentity
from fastchat_client import history, settings
from fastchat_client.content import GroupKey, GroupTitle, Unknown, Written, decode_content
from fastchat_client.events import MessageUnreadable, MessageWaiting, Notice, iso
from fastchat_client.group_bodies import Kept, Waits
from fastchat_client.group_content import GroupPlain, read_group_plain
from fastchat_client.group_following import GroupFollower
from fastchat_client.group_keys import Inbound, claimed
from fastchat_client.group_telling import tell_invitation
from fastchat_client.groups import conversation_of
from fastchat_client.megolm import GroupBody, InboundGroup, read_group_body
from fastchat_client.parts import Parts
from fastchat_client.understanding import Said, Understanding
from fastchat_client.unreadable import Reason, Unreadable, late


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

    def release(self, group: str, session: bytes = b"") -> None:
        """A key has come (of `session`), or the chain has been followed: read what can be read now, in the order in
        which it came."""
        parts = self._parts
        for kept in parts.group_bodies.waiting(group):
            sender = parts.accounts.ever(kept.user, kept.device)
            if sender is None:
                continue  # of a newcomer's history: whoever wrote it is being asked for
            header = read_group_body(kept.body)
            if session and header.session != session:
                continue
            waits = self._read(sender, kept, header)
            if waits is not Waits.NOTHING:
                parts.group_bodies.waits_for(kept, waits)

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
        # It is said now, whatever it claims of the chain.
        if self._parts.groups.role(header.group, sender.user) and not isinstance(content, Unknown):
            self._understanding.take(self._said(sender, 0, plain, earlier=False), content)

    def _read(self, sender: DeviceIdentity, kept: Kept, header: GroupBody) -> Waits:
        """Read it, with all that follows, or say for what it has to wait."""
        parts = self._parts
        group = header.group
        if parts.groups.get(group) is None:
            return self._of_unknown_group(sender, kept)
        if parts.group_bodies.holds_history(group) and not kept.earlier:
            return Waits.CHAIN
        try:
            plain = self._decrypt(sender, header, kept.n)
            if plain is None and sender.device in parts.accounts.revoked and not kept.earlier:
                raise Unreadable(Reason.REVOKED_DEVICE)
            if plain is None:
                return self._without_key(sender, kept)
            if plain.length <= parts.groups.length(group):
                is_outsider = not parts.groups.was_member(group, sender.user, plain.length)
            else:
                is_outsider = self._is_stranger(sender, group)
            if is_outsider:
                self._of_outsider(sender, kept)
                return Waits.NOTHING
            if not self._follower.claim(parts.ready, group, plain.length, plain.head, sender):
                return Waits.CHAIN
            content = decode_content(plain.content)
        except Unreadable as problem:
            self._cannot_be_read(sender, kept, problem)
            return Waits.NOTHING
        if kept.earlier and not parts.inbox.take(kept.device, kept.n):
            parts.group_bodies.settled(kept)  # it came by itself, too
            return Waits.NOTHING
        if isinstance(content, Unknown):
            self._cannot_be_read(sender, kept, Unreadable(Reason.NEWER_CLIENT))
            return Waits.NOTHING
        self._keep_for_newcomers(kept, plain)
        if sender.device in parts.accounts.revoked and isinstance(content, Written) and not kept.earlier:
            parts.tell(Notice(DeviceRevoked.code, late(sender.user, sender.device)))
        if isinstance(content, GroupTitle):
            history.drop_placeholder(parts.vault, sender.device, kept.n)
            self.title(content)
        else:
            self._understanding.take(self._said(sender, kept.n, plain, earlier=kept.earlier), content)
        return Waits.NOTHING

    def _decrypt(self, sender: DeviceIdentity, header: GroupBody, seq: int) -> GroupPlain | None:
        """What stands in it, if it is message `seq` of `sender`; None if there is no key yet that reads it. Raises
        `Unreadable`."""
        found = [self._parts.group_keys.inbound(header.group, header.session, sender.device)]
        found.append(self._earlier_key(sender, header))
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

    def _earlier_key(self, sender: DeviceIdentity, header: GroupBody) -> Inbound | None:
        """What the one gave who has invited us, once it is checked whose it is."""
        keys = self._parts.group_keys
        inbound = keys.inbound(header.group, header.session, sender.device, earlier=True)
        if inbound is None or inbound.verified:
            return inbound
        try:
            chains.verify_session(inbound.proof, sender.ed25519)
        except (GroupInvalid, SignatureInvalid):
            return None
        keys.verified(header.group, header.session, sender.device)
        return keys.inbound(header.group, header.session, sender.device, earlier=True)

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
        if kept.earlier:
            return Waits.KEY
        if not self._follower.is_current(kept.group):
            return Waits.KEY if parts.groups.ever_member(kept.group, sender.user) else Waits.CHAIN
        # What was sent to this account while it was in the group may come before its key, and after the farewell.
        if not parts.groups.ever_member(kept.group, parts.me.user):
            self._not_ours(sender, kept)
            return Waits.NOTHING
        if not parts.groups.ever_member(kept.group, sender.user):
            self._of_outsider(sender, kept)
            return Waits.NOTHING
        return Waits.KEY

    def give_up(self, group: str, session: bytes) -> None:
        """This account is not in the group any more, and the key of what it is still handed does not come."""
        for kept in self._parts.group_bodies.waiting(group):
            sender = self._parts.accounts.ever(kept.user, kept.device)
            if kept.session == session and sender is not None:
                self._not_ours(sender, kept)

    def _is_stranger(self, sender: DeviceIdentity, group: str) -> bool:
        """Whether this is nobody's device who was ever in the group, as far as the chain goes that the server shows."""
        is_asked_for = self._follower.has_claimed(group, sender)
        is_current = is_asked_for and self._follower.is_current(group)
        return is_current and not self._parts.groups.ever_member(group, sender.user)

    def _of_outsider(self, sender: DeviceIdentity, kept: Kept) -> None:
        """Somebody wants to be heard in a group who was not in it."""
        parts = self._parts
        self._drop(sender, kept)
        self._follower.forget_claim(kept.group, sender)
        parts.group_alarm(
            kept.group,
            "group-outsider",
            f"a message came of {sender.user}, who was no member when it was written; it is not shown",
            proof=False,
            user=sender.user,
            device=sender.device,
            n=kept.n,
        )

    def _drop(self, sender: DeviceIdentity, kept: Kept) -> None:
        self._parts.group_bodies.settled(kept)
        if not kept.earlier:
            history.drop_placeholder(self._parts.vault, sender.device, kept.n)

    def _not_ours(self, sender: DeviceIdentity, kept: Kept) -> None:
        """What is not for this account is handed over; without its key it is noise. Anybody could have sent it."""
        self._drop(sender, kept)
        self._parts.group_alarm(
            kept.group,
            "group-outsider",
            f"messages of a group come that this account is not in, from the server or from {sender.user}; they cannot "
            "be read",
            proof=False,
            user=sender.user,
            device=sender.device,
            n=kept.n,
        )

    def _wait(self, sender: DeviceIdentity, kept: Kept, waits: Waits) -> None:
        parts = self._parts
        if not parts.group_bodies.has_room(kept.group, kept.device):
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
        )

    def _show_waiting(self, sender: DeviceIdentity, kept: Kept, waits: Waits) -> None:
        parts, conversation = self._parts, conversation_of(kept.group)
        history.add_waiting(parts.vault, sender.device, kept.n, conversation, sender.user, kept.at, waits)
        message_id = f"{sender.device}.{kept.n}"
        parts.tell(MessageWaiting(sender.user, conversation, waits.sentence, iso(kept.at), message_id))

    def _unreadable(self, sender: DeviceIdentity, n: int, at: int, conversation: str, problem: Unreadable) -> None:
        parts, reason = self._parts, problem.reason
        is_worth_asking = reason not in (Reason.NEWER_CLIENT, Reason.REVOKED_DEVICE)
        asking = is_worth_asking and parts.inbox.want_again(sender.user, sender.device, n, reason, parts.now())
        if settings.is_blocked(parts.vault, sender.user):
            history.drop_placeholder(parts.vault, sender.device, n)
        else:
            message_id = f"{sender.device}.{n}"
            history.add_unreadable(parts.vault, sender.device, n, sender.user, at, reason, conversation)
            parts.tell(MessageUnreadable(sender.user, conversation, reason.sentence, iso(at), message_id, asking))
        if asking:
            self.wants_again = True

    def _cannot_be_read(self, sender: DeviceIdentity, kept: Kept, problem: Unreadable) -> None:
        """What is made up in a history is nothing: it is not its alleged sender who is to be asked for it."""
        self._parts.group_bodies.settled(kept)
        if not kept.earlier:
            self._unreadable(sender, kept.n, kept.at, conversation_of(kept.group), problem)

    def _keep_for_newcomers(self, kept: Kept, plain: GroupPlain) -> None:
        """A server that names a later time than the sender does not widen what an invitation shows."""
        bodies, at = self._parts.group_bodies, min(kept.at, plain.at)
        if kept.seq:
            bodies.settled(kept, at)
        else:
            sender = (kept.user, kept.device)
            bodies.keep(kept.group, kept.session, sender, kept.n, at, kept.body, Waits.NOTHING)

    def _said(self, sender: DeviceIdentity, n: int, plain: GroupPlain, *, earlier: bool) -> Said:
        own = sender.user == self._parts.me.user
        return Said(sender, n, conversation_of(plain.group), own, plain.at, earlier)

    # --- keys and titles ---------------------------------------------------------------------------------------------

    def key(self, sender: DeviceIdentity, content: GroupKey) -> None:
        """A device sends the key of its own session. Raises `Unreadable` if it is not that."""
        parts = self._parts
        inbound = claimed(content.key, content.group, content.proof)
        if (inbound.user, inbound.device) != (sender.user, sender.device):
            raise Unreadable(Reason.WRONG_IDENTITY)
        try:
            chains.verify_session(content.proof, sender.ed25519)
        except (GroupInvalid, SignatureInvalid):
            raise Unreadable(Reason.BAD_CONTENT) from None
        verified = Inbound(inbound.session, sender.user, sender.device, content.proof, True)
        is_news = parts.group_keys.add(content.group, verified, parts.now())
        if parts.groups.role(content.group, sender.user):
            self._follower.claim(parts.ready, content.group, content.length, content.head, sender)
        if content.title is not None:
            parts.groups.tell_title(content.group, content.title)
        if is_news:
            self.release(content.group, inbound.session.session)

    def title(self, content: GroupTitle) -> None:
        """Somebody says what the group is called; the chain's hash tells whether that is so."""
        if self._parts.groups.tell_title(content.group, content.title):
            tell_invitation(self._parts, content.group)
