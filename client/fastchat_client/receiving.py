"""From the wire to the history: take each message once, read it or hold it, and commit what came of it.

Whatever a message is, it is taken: read, held until its sender's keys are known or believed, or shown as unreadable
and asked for again. A message's plaintext, its ratchet and its name are written in one transaction.
"""

from __future__ import annotations

from collections import Counter

from msgspec import Raw

from fastchat.errors import Busy, DeviceRevoked, ProtocolError
from fastchat.identity.links import DeviceIdentity
from fastchat.identity.names import is_name
from fastchat.protocols.wire import Message
from fastchat_client import history, ratchet, settings
from fastchat_client.content import (
    Again,
    Content,
    Edit,
    GroupHistory,
    GroupKey,
    GroupKeyRequest,
    GroupTitle,
    Plain,
    Ref,
    Resent,
    Retry,
    Unknown,
    Written,
    decode_content,
    encode_content,
    read_plain,
)
from fastchat_client.events import MessageHeld, MessageUnreadable, Notice, iso
from fastchat_client.group_history import HistoryReceiver
from fastchat_client.group_receiving import GroupReceiver
from fastchat_client.group_sending import GroupSender
from fastchat_client.groups import conversation_of, group_of
from fastchat_client.inbox import MOST_ASKED
from fastchat_client.megolm import is_group_body
from fastchat_client.parts import Live, Parts
from fastchat_client.understanding import Said, Understanding
from fastchat_client.unreadable import Reason, Unreadable, late
from fastchat_client.witness import Contradiction

MOST_MILLIS = 2**53 - 1


class Receiver:
    def __init__(
        self,
        parts: Parts,
        understanding: Understanding,
        groups: GroupReceiver,
        group_history: HistoryReceiver,
        group_sender: GroupSender,
    ) -> None:
        self._parts = parts
        self._understanding = understanding
        self._groups = groups
        self._group_history = group_history
        self._group_sender = group_sender
        self._sent_again: Counter[tuple[str, int]] = Counter()

    def message(self, live: Live, message: Message) -> None:
        """A message of the network. It may be acknowledged once the transaction is committed."""
        parts = self._parts
        if message.k != live.last_k + 1:
            parts.close(ProtocolError("the network numbers its messages wrongly"))
            return
        if parts.inbox.is_full:
            parts.close(Busy("too many messages wait here for a decision about their senders' keys"))
            return
        live.last_k = message.k
        if message.device == parts.me.device:
            # Nothing comes from here but what is written here: in the history it would stand in a later one's place.
            parts.tell(Notice(ProtocolError.code, "the server handed over a message as one of this very device"))
            return
        if message.n < 1:
            parts.tell(
                Notice(ProtocolError.code, "the server handed over a whisper, or something unnamed, as a message")
            )
            return
        if not parts.inbox.take(message.device, message.n):
            self._once_more(message)
            return
        if parts.inbox.holds(message.user) or not self._is_known(message.user, message.device):
            self._hold(live, message)
        else:
            self._open(message.user, message.device, message.n, message.at, message.body)

    # --- held --------------------------------------------------------------------------------------------------------

    def _is_known(self, user: str, device: str) -> bool:
        account = self._parts.accounts.get(user)
        if account is None or account.offered_root:
            return False
        return device in account.devices or device in account.revoked

    def _hold(self, live: Live, message: Message) -> None:
        parts = self._parts
        parts.inbox.hold(message)
        account = parts.accounts.get(message.user)
        if account is not None and account.offered_root:
            self._tell_held(message.user, "the sender's key has changed", f"{message.device}.{message.n}")
        else:
            live.fetching.want(message.user)

    def tell_held(self, user: str, reason: str) -> None:
        """Those messages of `user` that are held stay so, and why."""
        for held in self._parts.inbox.held(user):
            self._tell_held(user, reason, f"{held.device}.{held.n}")

    def _tell_held(self, user: str, reason: str, message_id: str) -> None:
        if not settings.is_blocked(self._parts.vault, user):
            self._parts.tell(MessageHeld(user, reason, message_id))

    def release(self, user: str) -> None:
        """The keys of `user` are known now, or it is known that there are none: read what was held, in order."""
        account = self._parts.accounts.get(user)
        if account is None or not account.offered_root:
            for held in self._parts.inbox.release(user):
                self._open(held.user, held.device, held.n, held.at, Raw(held.body))

    # --- reading -----------------------------------------------------------------------------------------------------

    def _once_more(self, message: Message) -> None:
        """Something came under this name before. If it could not be read, it may have been put there so that the
        message itself would not be taken; if this is it, it takes that one's place, else nothing happens."""
        vault, user, device, n = self._parts.vault, message.user, message.device, message.n
        if history.is_placeholder(vault, device, n) and self._is_known(user, device):
            self._open(user, device, n, message.at, message.body, is_first=False)

    def _open(self, user: str, device: str, n: int, at: int, body: Raw, *, is_first: bool = True) -> None:
        parts = self._parts
        account = parts.accounts.get(user)
        sender = None if account is None else account.devices.get(device) or account.revoked.get(device)
        is_revoked = account is not None and device in account.revoked
        if sender is None:
            self._unreadable(user, device, n, at, Unreadable(Reason.WRONG_IDENTITY), is_worth_asking=False)
            return
        try:
            data = ratchet.body_from_wire(body)
        except Unreadable as problem:
            if is_first:
                self._unreadable(user, device, n, at, problem, is_worth_asking=True)
            return
        if is_group_body(data):
            if is_first:
                self._groups.open(sender, n, min(max(0, at), MOST_MILLIS), data)
                self._ask_for_group_messages()
            return

        def check(plaintext: bytes, curve25519: bytes) -> tuple[Plain, Content | Unknown]:
            plain = read_plain(plaintext, sender, parts.me, curve25519)
            # The number is under the encryption, too: a body cannot be handed over as another message.
            if plain.seq != n or not self._is_place(plain, sender):
                raise Unreadable(Reason.WRONG_IDENTITY)
            content = decode_content(plain.content)
            if isinstance(content, Unknown) and not is_first:
                raise Unreadable(Reason.NEWER_CLIENT)
            return plain, content

        try:
            plain, content = parts.sessions.read(parts.me, sender, data, parts.now(), check, may_begin=not is_revoked)
        except Unreadable as problem:
            if is_first:
                is_worth_asking = problem.reason is not Reason.NEWER_CLIENT and not is_revoked
                self._unreadable(user, device, n, at, problem, is_worth_asking=is_worth_asking)
            return
        if is_revoked and isinstance(content, Written):
            parts.tell(Notice(DeviceRevoked.code, late(user, device)))
        self._compare_logs(device, plain)
        if not is_first:
            parts.inbox.came_again(device, n)
            if not isinstance(content, Written):
                history.drop_placeholder(parts.vault, device, n)
        if isinstance(content, Unknown):
            self._unreadable(user, device, n, at, Unreadable(Reason.NEWER_CLIENT), is_worth_asking=False)
        else:
            self._understand(sender, n, plain, content)

    def _is_place(self, plain: Plain, sender: DeviceIdentity) -> bool:
        """Whether the conversation is one that `sender` can mean: the addressee's name."""
        if sender.user != self._parts.me.user:
            return plain.conversation == self._parts.me.user
        return is_name(plain.conversation)

    def _understand(self, sender: DeviceIdentity, n: int, plain: Plain, content: Content) -> None:
        match content:
            case Retry():
                self._send_again(sender, content.n)
            case Resent():
                self._came_again(sender, plain, content)
            case GroupKey() | GroupHistory() | GroupTitle() | GroupKeyRequest():
                self._about_group(sender, n, plain, content)
            case _:
                own = sender.user == self._parts.me.user
                conversation = plain.conversation if own else sender.user
                self._understanding.take(Said(sender, n, conversation, own, plain.at), content)

    def _about_group(
        self,
        sender: DeviceIdentity,
        n: int,
        plain: Plain,
        content: GroupKey | GroupHistory | GroupTitle | GroupKeyRequest,
    ) -> None:
        try:
            match content:
                case GroupKey():
                    self._groups.key(sender, content)
                case GroupHistory():
                    self._group_history.take(sender, content)
                case GroupTitle():
                    self._groups.title(content)
                case GroupKeyRequest():
                    self._group_sender.asked(sender, content)
        except Unreadable as problem:
            self._unreadable(sender.user, sender.device, n, plain.at, problem, is_worth_asking=False)
        self._ask_for_group_messages()

    def _ask_for_group_messages(self) -> None:
        if self._groups.wants_again and self._parts.ready is not None:
            self._groups.wants_again = False
            self.want_sessions(self._parts.ready)

    def _compare_logs(self, device: str, plain: Plain) -> None:
        parts, live = self._parts, self._parts.live
        try:
            is_known = parts.witness.compare(device, plain.checkpoint.size, plain.checkpoint.root)
        except Contradiction as contradiction:
            parts.alarm(contradiction)
            return
        if not is_known and live is not None:
            live.log_wanted = True

    # --- again -------------------------------------------------------------------------------------------------------

    def _unreadable(
        self, user: str, device: str, n: int, at: int, problem: Unreadable, *, is_worth_asking: bool
    ) -> None:
        parts = self._parts
        at = min(max(0, at), MOST_MILLIS)
        asking = is_worth_asking and parts.inbox.want_again(user, device, n, problem.reason, parts.now())
        if not settings.is_blocked(parts.vault, user):  # it is asked for all the same: it may be a group's key
            history.add_unreadable(parts.vault, device, n, user, at, problem.reason)
            parts.tell(MessageUnreadable(user, user, problem.reason.sentence, iso(at), f"{device}.{n}", asking))
        if asking and parts.ready is not None:
            self.want_sessions(parts.ready)

    def want_sessions(self, live: Live) -> None:
        """Ask for keys wherever something is to be asked for again: that goes over a fresh session."""
        for user, device in self._parts.inbox.wanted(self._parts.now()):
            live.asking.setdefault(user, set()).add(device)
            live.fetching.want(user, claim=True)

    def ask_again(self, sender: DeviceIdentity) -> None:
        """There is a fresh session with `sender`: ask for what could not be read."""
        parts = self._parts
        for n, reason in parts.inbox.ask(sender.device, parts.now()):
            parts.outbox.compose(sender.user, sender.device, encode_content(Retry(n, reason)), parts.now())

    def _send_again(self, asker: DeviceIdentity, n: int) -> None:
        """Somebody could not read message `n` from here: once more, if it was for that device."""
        parts = self._parts
        message = parts.outbox.get(n)
        content = None if message is None else decode_content(message.content)
        if message is None or not isinstance(content, Again):
            return
        group = group_of(message.user)
        if group:
            was_recipient = parts.groups.was_member(group, asker.user, message.length)
        else:
            was_recipient = parts.outbox.was_recipient(n, asker.device)
        if not was_recipient:
            return
        self._sent_again[asker.device, n] += 1
        if self._sent_again[asker.device, n] <= MOST_ASKED:
            resent = encode_content(Resent(n, Raw(message.content), group))
            quotes = content.of if isinstance(content, Edit) else Ref(parts.me.device, n)
            parts.outbox.compose(asker.user, asker.device, resent, message.at, quotes)

    def _came_again(self, sender: DeviceIdentity, plain: Plain, resent: Resent) -> None:
        parts = self._parts
        if not parts.inbox.is_wanted(sender.device, resent.n):
            return
        try:
            content = decode_content(resent.content)
        except Unreadable:
            return  # its placeholder stays; it can be asked for once more
        if resent.group and not parts.groups.role(resent.group, sender.user):
            return
        parts.inbox.came_again(sender.device, resent.n)
        if isinstance(content, Again):
            if not isinstance(content, Written):
                history.drop_placeholder(parts.vault, sender.device, resent.n)
            own = sender.user == parts.me.user
            conversation = conversation_of(resent.group) if resent.group else plain.conversation if own else sender.user
            if isinstance(content, GroupKey | GroupHistory | GroupTitle | GroupKeyRequest):
                self._about_group(sender, resent.n, plain, content)
            else:
                self._understanding.take(Said(sender, resent.n, conversation, own, plain.at), content)
