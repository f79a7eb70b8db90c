"""The chat as a person sees it, apart from the terminal that shows it: events and typed lines in, printed lines out.

Every message of an open conversation has a number before it, by which commands name it. What happens to a message
later (a reaction, another text) is said in a short line of its own, for what is printed stays as it is. It knows no
prompt_toolkit: it prints on a `Screen`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from twisted.internet.threads import deferToThread

from fastchat.errors import FastChatError
from fastchat_client import commands
from fastchat_client.events import (
    Deleted,
    Edited,
    Event,
    FileSent,
    LogAlarm,
    MessageHeld,
    MessageReceived,
    MessageState,
    MessageUnreadable,
    MessageWaiting,
    Notice,
    PresenceChanged,
    Reacted,
    RootChanged,
    State,
    TimerChanged,
    TypingNow,
)
from fastchat_client.group_acting import Act
from fastchat_client.terminal import render
from fastchat_client.terminal.files import FileTalk, InThread
from fastchat_client.terminal.groups import GroupTalk
from fastchat_client.terminal.interfaces import Book, Mouth, Screen
from fastchat_client.terminal.lines import MessageLines
from fastchat_client.terminal.network import Network
from fastchat_client.terminal.numbers import Named
from fastchat_client.terminal.pictures import Draw, no_picture
from fastchat_client.terminal.render import Line
from fastchat_client.terminal.sent import Sent, SentMessages
from fastchat_client.terminal.signs import Signs
from fastchat_client.terminal.surroundings import Surroundings
from fastchat_client.terminal.text import Look, clean_line
from fastchat_client.vault import Conversation

OPEN_LINES = 10
MOST_OPEN_LINES = 50


class Talk:
    """A `face.Face`. `reactor` is a clock for the live region; `now` the time that people see."""

    def __init__(
        self,
        messenger: Mouth,
        screen: Screen,
        look: Look,
        reactor: Any,
        book: Book,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        draw: Draw = no_picture,
        in_thread: InThread = deferToThread,
    ) -> None:
        self._messenger = messenger
        self._screen = screen
        self._look = look
        self._book = book
        self._now = now
        self._me = messenger.vault.whoami()
        self._open: str | None = None
        self._seen = False
        """Something has come into the open conversation."""
        self._conversations: list[Conversation] = []
        self._groups = GroupTalk(messenger, screen, look, reactor, book, self._me.user)
        self._network = Network(screen, reactor, self._groups.label)
        self._lines = lines = MessageLines(look, book, self._me, self._groups.label, now, draw)
        self._sent = SentMessages(screen, look, reactor, self._sent_line, self._groups.label)
        self._signs = Signs(reactor)
        self.files = FileTalk(
            *(messenger, screen, look, reactor, draw, lambda: self._open, self._groups.label, lines.numbers.of),
            *(lambda: bool(self._network.service), in_thread),
        )
        self._around = Surroundings(self._me.user, look, self._network, self._groups, self._signs, self.files)

    # --- what the screen asks for ----------------------------------------------------------------------------------

    def prompt(self) -> Line:
        return self._around.prompt(self._open)

    def live(self) -> list[Line]:
        """Messages on their way, each with its state, the oldest first."""
        return self._sent.lines()

    def status(self) -> Line:
        return self._around.status(self._open, self._conversations)

    def completions(self, line: str) -> list[str]:
        """How the last word of a line that is being typed could go on."""
        return self._around.completions(line, self._open, self._conversations, self._messenger.vault.contacts())

    def writing(self, line: str) -> None:
        """A person is typing, this far."""
        is_text = bool(line.strip()) and (not line.startswith("/") or line.startswith("//"))
        if is_text and self._open and self._network.service and self._signs.is_time_to_say(self._open):
            self._messenger.typing(self._open)

    def typed(self, line: str) -> None:
        """Do what a person typed."""
        try:
            commands.run_line(self, line)
        except FastChatError as error:
            self._screen.show(render.problem(error.message))

    def began(self, who: str | None) -> None:
        """The screen is there: say hello."""
        self._conversations = self._messenger.vault.conversations()
        self._screen.show(render.notice(f"FastChat: you are {self._me.user}. /help lists the commands."))
        if who is not None:
            self.open(who)
        elif unread := self._unread(self._conversations):
            self._screen.show([("class:unread", f"Unread: {unread}"), ("class:notice", "  (/msg WHO reads them)")])
        self._groups.tell_invitations()

    def ended(self) -> None:
        """The screen goes: what is in the live region is printed as it is."""
        self._sent.print_all()

    # --- a face ----------------------------------------------------------------------------------------------------

    @property
    def conversation(self) -> str | None:
        return self._open

    def meant(self, word: str) -> str:
        return self._book.conversation_named(word)

    def message(self, word: str, *, own: bool) -> str:
        if word == "last":
            if self._open is None or (named := self._lines.numbers.last(self._open, own=own)) is None:
                raise commands.CommandError(f"there is no message of {'yours' if own else 'somebody else'} here yet")
            return named.id
        if word.isascii() and word.isdecimal():
            found = self._lines.numbers.get(int(word[:4]))
            if found is None:
                raise commands.CommandError(f"no message on the screen has the number {word}")
            return found.id
        return self._book.message_named(word)

    def open(self, conversation: str) -> None:
        if conversation == self._open:
            return
        if conversation == self._me.user:
            raise commands.CommandError("that is you; a conversation takes two")
        self._sent.print_settled()
        self._open = conversation
        unread = self._messenger.vault.unread(conversation)
        info = self._groups.info(conversation)
        self._screen.show(render.head(self._groups.label(conversation), self._look, info.topic if info else ""))
        self._show_items(conversation, min(max(OPEN_LINES, unread), MOST_OPEN_LINES))
        if unread > MOST_OPEN_LINES:
            self._screen.show(render.notice(f"{unread - MOST_OPEN_LINES} earlier unread ones: /history {unread}"))
        self._groups.tell_state(conversation)
        self._warn_of_changed_root(conversation)
        self._read(conversation)

    def send(self, conversation: str, text: str) -> None:
        self._add(self._messenger.send(conversation, text), conversation, text)

    def reply(self, message: str, text: str) -> None:
        conversation = self._named(message).conversation
        self._lines.replies(message_id := self._messenger.send(conversation, text, reply=message), message)
        self._add(message_id, conversation, text)

    def react(self, message: str, emoji: str, *, remove: bool) -> None:
        self._messenger.react(message, emoji, remove)
        self._screen.show(self._lines.reaction(message, self._me.user, emoji, removed=remove))

    def edit(self, message: str, text: str) -> None:
        self._messenger.edit(message, text)
        self._changed_text(message, self._me.user, text)

    def delete(self, message: str) -> None:
        self._messenger.delete(message)
        self._gone(message, self._me.user)

    def show_message(self, message: str) -> None:
        for line in self._lines.receipts(message, self._named(message)):
            self._screen.show(line)

    def show_people(self) -> None:
        vault, label, blocked = self._messenger.vault, self._groups.label, self._book.blocked()
        known = (vault.conversations(), vault.contacts())
        for line in render.people(*known, self._now(), self._look, label, self._signs.online, blocked):
            self._screen.show(line)

    def show_history(self, conversation: str, limit: int) -> None:
        self._screen.show(render.head(self._groups.label(conversation), self._look))
        if not self._show_items(conversation, limit):
            self._screen.show(render.notice("no messages"))
        if conversation == self._open:
            self._read(conversation)

    def set_timer(self, conversation: str, seconds: int) -> None:
        self._messenger.set_timer(conversation, seconds)
        self._screen.show(self._lines.timer(conversation, self._me.user, seconds))

    def mute(self, conversation: str, on: bool) -> None:
        self._messenger.mute(conversation, on)
        self._screen.show(render.muted(self._groups.label(conversation), on))
        self._conversations = self._messenger.vault.conversations()

    def block(self, user: str, on: bool) -> None:
        self._messenger.block(user, on)
        self._screen.show(render.blocked(user, on))

    def set_presence(self, on: bool) -> None:
        self._messenger.set_presence(on)
        self._signs.online.clear()
        self._screen.show(render.presence(on))

    def create_group(self, name: str, topic: str) -> None:
        conversation = self._groups.create(name, topic)
        self.open(conversation)

    def act(self, group: str, act: Act) -> None:
        self._groups.act(group, act, connected=bool(self._network.service))

    def change_role(self, group: str, user: str, *, up: bool) -> None:
        self.act(group, self._groups.role(group, user, up=up))

    def show_groups(self) -> None:
        self._groups.show_all(self._messenger.vault.conversations())

    def show_group(self, group: str) -> None:
        self._groups.show(group)

    def accept(self, who: str) -> None:
        changed = {contact.user for contact in self._messenger.vault.contacts() if contact.changed_to}
        if who not in changed:
            raise commands.CommandError(f"the key of {who} has not changed; there is nothing to accept")
        self._messenger.accept_root(who)
        self._screen.show(render.notice(f"The new key of {who} is accepted; what had to wait goes on now."))

    def show_self(self) -> None:
        me = self._messenger.vault.whoami()
        self._screen.show(render.notice(f"{me.user}, device {me.device}\nkey {me.fingerprint}"))
        self._screen.show(self.status())

    def show_help(self, lines: list[str]) -> None:
        self._screen.show(render.notice("\n".join(lines)))

    def reconnect(self) -> None:
        self._messenger.reconnect()

    def quit(self) -> None:
        self._screen.end()

    # --- events ----------------------------------------------------------------------------------------------------

    def on_events(self, events: Sequence[Event]) -> None:
        self._seen = False
        for event in events:
            if isinstance(event, MessageState):
                self._sent.on_state(event)
            else:
                self._event(event)
        self._sent.tell_late()
        if self._seen and self._open is not None:
            # Once for all that came: each time is a transaction.
            self._messenger.mark_read(self._open)
        self._conversations = self._messenger.vault.conversations()
        self._screen.redraw()

    def _event(self, event: Event) -> None:
        show = self._screen.show
        if isinstance(event, MessageReceived):
            self._received(event)
        elif isinstance(event, MessageWaiting):
            show(self._lines.waiting(event, is_open=event.conversation == self._open))
        elif isinstance(event, MessageUnreadable):
            show(render.unreadable(event.at, self._now(), event.sender, event.reason, event.retrying))
        elif isinstance(event, MessageHeld):
            show(render.problem(f"A message of {clean_line(event.sender)} is kept unread: {clean_line(event.reason)}"))
        elif isinstance(event, Reacted | Edited | Deleted | TimerChanged | TypingNow | PresenceChanged):
            self._said_of(event)
        elif isinstance(event, RootChanged):
            show(render.root_changed(event, f"/accept {clean_line(event.user)}"))
        elif isinstance(event, LogAlarm):
            show(render.log_alarm(event, self._messenger.alarm_file))
        elif isinstance(event, Notice):
            show(render.notice(event.text))
        elif (joined := self._groups.on_event(event, self._open, quiet=self._network.is_catching_up)) is not None:
            if joined:
                self.open(joined)
        elif self.files.on_event(event):
            if isinstance(event, FileSent) and (item := self._book.message(event.id)) is not None:
                self._add(event.id, event.conversation, self._lines.text_of(item))
        else:
            self._network.on_event(event)
            if not self._network.service:
                self.files.disconnected()

    def _received(self, event: MessageReceived) -> None:
        self._signs.has_written(event.conversation, event.sender)
        if event.conversation == self._open:
            self._sent.print_settled()
            self._screen.show(self._lines.received(event))
            self._seen |= not event.own
        elif event.own or (event.muted and not event.mentioned):
            return
        elif self._network.is_catching_up:
            self._network.came(event.conversation)
        elif event.earlier:
            self._groups.earlier(event.conversation)
        else:
            self._screen.show(self._lines.preview(event))
            if self._open is None:
                self._screen.show(render.notice(f"   /msg {self._groups.typing(event.conversation)} opens it"))

    def _said_of(self, event: Reacted | Edited | Deleted | TimerChanged | TypingNow | PresenceChanged) -> None:
        """Something about a message, a conversation or a person: a short line, if one looks at it."""
        if isinstance(event, PresenceChanged):
            self._signs.is_there(event.user, event.online)
        elif isinstance(event, TypingNow):
            self._signs.writes(event.conversation, event.sender)
        elif isinstance(event, Edited):
            self._changed_text(event.id, event.sender, event.text, shown=event.conversation == self._open)
        elif isinstance(event, Deleted):
            self._gone(event.id, event.sender, shown=event.conversation == self._open)
        elif event.conversation != self._open:
            return
        elif isinstance(event, Reacted):
            self._screen.show(self._lines.reaction(event.id, event.sender, event.emoji, removed=event.removed))
        else:
            self._screen.show(self._lines.timer(event.conversation, event.sender, event.seconds))

    # --- messages --------------------------------------------------------------------------------------------------

    def _add(self, message_id: str, conversation: str, text: str) -> None:
        self._signs.said(conversation)
        sent = Sent(message_id, conversation, text, round(self._now().timestamp() * 1000))
        self._lines.number(Named(message_id, conversation, self._me.user, text, own=True))
        self._sent.add(sent, connected=bool(self._network.service))

    def _named(self, message_id: str) -> Named:
        named = self._lines.named(message_id)
        if named is None:
            raise commands.CommandError("this message is not here any more")
        return named

    def _changed_text(self, message_id: str, sender: str, text: str, *, shown: bool = True) -> None:
        in_live = message_id in self._sent
        self._sent.change(message_id, text)
        line = self._lines.changed(message_id, sender, text)
        if shown and not in_live:
            self._screen.show(line)
        self._screen.redraw()

    def _gone(self, message_id: str, sender: str, *, shown: bool = True) -> None:
        self._sent.drop(message_id)
        line = self._lines.gone(message_id, sender)
        if shown:
            self._screen.show(line)
        self._screen.redraw()

    def _sent_line(self, message: Sent) -> Line:
        return self._lines.sent(message, is_open=message.conversation == self._open)

    def _show_items(self, conversation: str, limit: int) -> int:
        items = self._messenger.vault.history(conversation, limit)
        for item in items:
            if item.id in self._sent:
                continue
            self._screen.show(self._lines.past(item))
            if item.own and item.state in (State.WAITING, State.ACCEPTED, State.DELIVERED) and item.id:
                text = self._lines.text_of(item)
                self._sent.remember(Sent(item.id, conversation, text, item.at, State(item.state)))
        return len(items)

    def _unread(self, conversations: Sequence[Conversation]) -> str:
        return render.unread_list(conversations, self._groups.label)

    def _read(self, conversation: str) -> None:
        self._messenger.mark_read(conversation)
        self._conversations = self._messenger.vault.conversations()
        self._screen.redraw()

    def _warn_of_changed_root(self, who: str) -> None:
        for contact in self._messenger.vault.contacts():
            if contact.user == who and contact.changed_to:
                changed = RootChanged(who, contact.fingerprint, contact.changed_to)
                self._screen.show(render.root_changed(changed, f"/accept {who}"))
