"""What becomes of a content that was read: what people say goes into the history, what devices say of it is noted.

It is given what is proven by then: which device said it, where, and under which number; whether it came to this account
alone or in a group makes no difference here. It knows no wire, no ratchets and no keys.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Container
from dataclasses import dataclass

from fastchat.errors import NotAllowed, ProtocolError
from fastchat.identity.links import DeviceIdentity
from fastchat_client import amending, files, history, marking, settings
from fastchat_client.amending import Word
from fastchat_client.content import (
    Content,
    Delete,
    Delivered,
    Edit,
    File,
    Presence,
    Reaction,
    Read,
    Ref,
    Text,
    Timer,
    Typing,
    Written,
)
from fastchat_client.events import (
    Deleted,
    Edited,
    MessageReceived,
    MessageState,
    Notice,
    Reacted,
    State,
    TimerChanged,
    iso,
)
from fastchat_client.groups import group_of
from fastchat_client.history import Standing
from fastchat_client.parts import Parts

TIMERS_AHEAD = 2 * 86_400_000
"""Milliseconds by which the clock may be ahead of who sets a conversation's timer: the newest counts, so one of another
century would be the last one for ever."""

_MENTION = re.compile(r"(?<![\w@./-])@([a-z0-9][a-z0-9._-]*)")


def mentioned(word: str, members: Container[str]) -> str:
    """Which of `members` the `word` behind an "@" names, or "". A name may have dots in it, but not at its end: those
    there are the sentence's."""
    name = word.rstrip("._-")
    return name if name in members else ""


@dataclass(frozen=True, slots=True)
class Said:
    """Who said something, where and when. `n`: 0 for what is whispered. `conversation`: as it is called here, the
    peer's name or "#" and the id of a group. `own`: on another device of this account. `at`: milliseconds since 1970,
    by the sender's clock. `earlier`: before this account joined the group."""

    sender: DeviceIdentity
    n: int
    conversation: str
    own: bool
    at: int
    earlier: bool = False

    @property
    def id(self) -> str:
        return f"{self.sender.device}.{self.n}"

    @property
    def word(self) -> Word:
        return Word(self.sender.user, self.sender.device, self.n, self.conversation, self.at)


class Understanding:
    """Writes need a transaction around them. `whispered` gets what is only worth hearing now, `brought` the files that
    stand in the history by then."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._vault = parts.vault
        self._refused_of: set[str] = set()
        """Devices of which the person knows that they have said what is not for them to say."""
        self.whispered: Callable[[Said, Typing | Presence], None] = lambda said, content: None
        self.brought: Callable[[Said, File], None] = lambda said, file: None

    def take(self, said: Said, content: Content) -> None:
        """Note what was said, and tell of it. What is between devices only (keys, retries) is not for here."""
        if (said.n == 0) != isinstance(content, Typing | Presence):
            self._refuse(
                said.sender, "has whispered a message, or sent what is only to be whispered", ProtocolError.code
            )
            return
        if not isinstance(content, Written):
            history.drop_placeholder(self._vault, said.sender.device, said.n)
        if isinstance(content, Delivered | Read):
            self._marked(said.sender, content.ids, State.READ if isinstance(content, Read) else State.DELIVERED)
        elif not said.own and settings.is_blocked(self._vault, said.sender.user):
            history.drop_placeholder(self._vault, said.sender.device, said.n)
        else:
            self._hear(said, content)

    def _hear(self, said: Said, content: Content) -> None:
        match content:
            case Text() | File():
                self._text(said, content)
            case Reaction():
                self._reaction(said, content)
            case Edit():
                self._edit(said, content)
            case Delete():
                self._delete(said, content)
            case Timer():
                self._timer(said, content)
            case Typing() | Presence():
                self.whispered(said, content)

    # --- texts and files ---------------------------------------------------------------------------------------------

    def _text(self, said: Said, content: Written) -> None:
        vault, device, ref = self._vault, said.sender.device, Ref(said.sender.device, said.n)
        user = said.sender.user
        deleted_at, strangers = amending.settle_delete(vault, ref, user, said.conversation)
        # Nobody reads one's own message, or what is handed on; their time runs from their writing, or from now.
        since = min(said.at, vault.now()) if said.own else vault.now()
        expires_at = history.goes_at(content.expires, since) if said.own or said.earlier else None
        reply = (content.reply.device, content.reply.n) if content.reply else None
        if deleted_at is not None:
            text, reply, expires_at = "", None, None
        elif expires_at is not None and expires_at <= vault.now():
            history.drop_placeholder(vault, device, said.n)
            amending.wipe(vault, ref)
            return
        else:
            text = content.text
        history.add_received(
            vault,
            history.Arrived(
                device=device,
                n=said.n,
                conversation=said.conversation,
                sender=user,
                at=said.at,
                text=text,
                own=said.own,
                reply=reply,
                expires=content.expires,
                expires_at=expires_at,
                deleted=deleted_at is not None,
                earlier=said.earlier,
            ),
        )
        self._refuse_all(strangers)
        if deleted_at is not None:
            amending.wipe(vault, ref)
            self._parts.tell(Deleted(said.conversation, said.id, user, iso(deleted_at)))
            return
        self._parts.untold = True
        self._parts.tell(self._received(said, content))
        self._settle(said, ref)
        if isinstance(content, File):
            self.brought(said, content)

    def _received(self, said: Said, content: Written) -> MessageReceived:
        device, n = said.sender.device, said.n
        brings = files.add(self._vault, device, n, content) if isinstance(content, File) else None
        mentions = self._mentions(said.conversation, content.text)
        return MessageReceived(
            sender=said.sender.user,
            conversation=said.conversation,
            text=content.text,
            at=iso(said.at),
            id=said.id,
            own=said.own,
            reply=f"{content.reply.device}.{content.reply.n}" if content.reply else "",
            mentions=mentions,
            mentioned=self._parts.me.user in mentions,
            muted=settings.is_muted(self._vault, said.conversation),
            expires=content.expires,
            earlier=said.earlier,
            file=brings,
        )

    def _mentions(self, conversation: str, text: str) -> tuple[str, ...]:
        """The members of the group that `text` names, once each, in its order."""
        if "@" not in text or not group_of(conversation):
            return ()
        members = set(self._parts.groups.members(group_of(conversation)))
        found = (mentioned(match[1], members) for match in _MENTION.finditer(text))
        return tuple(dict.fromkeys(name for name in found if name))

    def _settle(self, said: Said, ref: Ref) -> None:
        """What was said of a message before it came."""
        vault, conversation = self._vault, said.conversation
        edit, text, strangers = amending.settle_edits(vault, ref, said.sender.user, conversation)
        if edit is not None:
            self._parts.tell(Edited(conversation, said.id, edit.user, text, iso(edit.at)))
        reactions, others = marking.settle_reactions(vault, ref, conversation)
        for word, emoji in reactions:
            self._parts.tell(Reacted(conversation, said.id, word.user, emoji, False, iso(word.at)))
        self._refuse_all([*strangers, *others])

    # --- what is said of messages ------------------------------------------------------------------------------------

    def _reaction(self, said: Said, content: Reaction) -> None:
        standing = self._find(said, content.to)
        is_pending = standing is None
        if is_pending and not self._may_come(content.to):
            return
        if standing is None or self._is_here(said, standing):
            word, emoji, remove = said.word, content.emoji, content.remove
            if marking.react(self._vault, content.to, word, emoji, remove=remove, pending=is_pending):
                message_id = f"{content.to.device}.{content.to.n}"
                self._parts.tell(Reacted(said.conversation, message_id, said.sender.user, emoji, remove, iso(said.at)))

    def _edit(self, said: Said, content: Edit) -> None:
        standing = self._find(said, content.of)
        if standing is None:
            if self._may_come(content.of):
                amending.edit(self._vault, content.of, said.word, content.text, pending=True)
        elif self._is_author(said, standing) and amending.edit(self._vault, content.of, said.word, content.text):
            message_id = f"{content.of.device}.{content.of.n}"
            text = self._text_of(content.of)
            self._parts.tell(Edited(said.conversation, message_id, said.sender.user, text, iso(said.at)))

    def _delete(self, said: Said, content: Delete) -> None:
        standing = self._find(said, content.of)
        if standing is None:
            if self._may_come(content.of):
                amending.delete_later(self._vault, content.of, said.word)
        elif self._is_author(said, standing):
            amending.delete(self._vault, content.of)
            message_id = f"{content.of.device}.{content.of.n}"
            self._parts.tell(Deleted(said.conversation, message_id, said.sender.user, iso(said.at)))

    def _find(self, said: Said, ref: Ref) -> Standing | None:
        return history.standing(self._vault, ref.device, ref.n)

    def _may_come(self, ref: Ref) -> bool:
        return history.may_come(self._vault, ref.device, ref.n)

    def _text_of(self, ref: Ref) -> str:
        row = self._vault.execute(
            "SELECT text FROM messages WHERE device = ? AND n = ?", (ref.device, ref.n)
        ).fetchone()
        return str(row[0])

    def _is_here(self, said: Said, standing: Standing) -> bool:
        """Whether something may be said here of this message."""
        if standing.conversation != said.conversation:
            self._refuse(said.sender, "speaks of a message of another conversation")
            return False
        return not standing.deleted

    def _is_author(self, said: Said, standing: Standing) -> bool:
        if standing.conversation == said.conversation and standing.sender != said.sender.user:
            self._refuse(said.sender, "wants to change a message that is not theirs")
            return False
        return self._is_here(said, standing)

    def _timer(self, said: Said, content: Timer) -> None:
        group = group_of(said.conversation)
        if group and self._parts.groups.role(group, said.sender.user) not in ("owner", "admin"):
            self._refuse(said.sender, "wants to set how long messages stay, and is no owner or admin of the group")
            return
        if said.at > self._vault.now() + TIMERS_AHEAD:
            self._refuse(said.sender, "sets how long messages stay, by a clock that is days ahead", ProtocolError.code)
            return
        device = said.sender.device
        if settings.set_timer(self._vault, said.conversation, content.seconds, said.at, device):
            self._parts.tell(TimerChanged(said.conversation, said.sender.user, content.seconds, iso(said.at)))

    # --- marks -------------------------------------------------------------------------------------------------------

    def _marked(self, sender: DeviceIdentity, ids: tuple[int, ...], state: State) -> None:
        """Only who a message went to can say that it is there."""
        device = self._parts.me.device
        for n in dict.fromkeys(ids):
            sent = marking.sent(self._vault, device, n)
            if sent is None or sender.user == self._parts.me.user:
                continue
            come_to: State | None = state if sent.conversation == sender.user else None
            group = group_of(sent.conversation)
            if group and self._parts.groups.was_member(group, sender.user, sent.length):
                marking.mark(self._vault, device, n, sender.user, state)
                come_to = marking.reached(self._vault, device, n, group, sent.length)
            if come_to is not None and history.advance(self._vault, device, n, come_to):
                self._parts.tell(MessageState(f"{device}.{n}", sent.conversation, come_to))

    # --- what is not for them to say ---------------------------------------------------------------------------------

    def _refuse_all(self, strangers: list[tuple[str, str]]) -> None:
        for user, device in strangers:
            self._refuse_device(user, device, "wants to change a message that is not theirs", NotAllowed.code)

    def _refuse(self, sender: DeviceIdentity, what: str, code: str = NotAllowed.code) -> None:
        self._refuse_device(sender.user, sender.device, what, code)

    def _refuse_device(self, user: str, device: str, what: str, code: str) -> None:
        """Tell it once for each device: it is either a mistake of its program, or meant."""
        if device not in self._refused_of:
            self._refused_of.add(device)
            self._parts.tell(Notice(code, f"the device {device[:8]} of {user} {what}; it is ignored"))
