"""The messages of a screen, and what happened to them later, as lines: each with its number, its quote, its signs."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from datetime import datetime

from fastchat_client.durations import in_words
from fastchat_client.events import FileShown, MessageReceived, MessageWaiting
from fastchat_client.terminal import render, render_groups
from fastchat_client.terminal.interfaces import Book
from fastchat_client.terminal.numbers import Named, Numbers
from fastchat_client.terminal.pictures import Draw, thumbnail
from fastchat_client.terminal.render import Line, Shown
from fastchat_client.terminal.render_files import said
from fastchat_client.terminal.sent import Sent
from fastchat_client.terminal.text import Look, clean_line
from fastchat_client.vault import HistoryItem, Whoami

QUOTE = 30
"""Characters of a message that something is said about."""
REMEMBERED = 1000
"""Answers of one's own whose questions are still known."""


class MessageLines:
    def __init__(
        self,
        look: Look,
        book: Book,
        me: Whoami,
        label: Callable[[str], str],
        now: Callable[[], datetime],
        draw: Draw,
    ) -> None:
        self.numbers = Numbers()
        self._look = look
        self._book = book
        self._me = me
        self._label = label
        self._now = now
        self._draw = draw
        self._answers: OrderedDict[str, str] = OrderedDict()
        self._waiting: set[str] = set()
        """Messages whose place was shown and that are not here."""

    # --- messages --------------------------------------------------------------------------------------------------

    def number(self, named: Named) -> int:
        return self.numbers.give(named)

    def replies(self, message_id: str, to: str) -> None:
        """A message that is being sent answers another one."""
        self._answers[message_id] = to
        if len(self._answers) > REMEMBERED:
            self._answers.popitem(last=False)

    def named(self, message_id: str) -> Named | None:
        """What is known of a message, on the screen or in the history."""
        named = self.numbers.named(message_id)
        if named is None and (item := self._book.message(message_id)) is not None:
            named = Named(item.id, item.conversation, item.sender, self.text_of(item), item.own)
        return named

    def text_of(self, message: HistoryItem | MessageReceived) -> str:
        """What it says, with the file that it brings in words."""
        return said(message.file, message.text, self._look)

    def _with_picture(self, line: Line, file: FileShown | None) -> Line:
        picture = thumbnail(self._draw, file.thumbnail) if file is not None else []
        return [*line, ("", "\n"), *picture] if picture else line

    def received(self, event: MessageReceived) -> Line:
        text = self.text_of(event)
        number = self.number(Named(event.id, event.conversation, event.sender, text, event.own))
        shown = Shown(
            at=event.at,
            name=event.sender,
            text=text,
            number=number,
            own=event.own,
            quote=self._quote(event.reply, event.conversation),
            me="" if event.own else self._me.user,
            earlier=event.earlier,
            expires=event.expires,
            file=f"/fetch {number}" if event.file is not None else "",
        )
        line = self._with_picture(render.message(shown, self._now(), self._look), event.file)
        if event.id in self._waiting:
            self._waiting.discard(event.id)
            line = [*render.note("what was waiting for its key is here:"), ("", "\n"), *line]
        return line

    def waiting(self, event: MessageWaiting, *, is_open: bool) -> Line:
        number = 0
        if is_open:
            self._waiting.add(event.id)
            number = self.number(Named(event.id, event.conversation, event.sender, "", own=False))
        line = render.waiting(event.at, self._now(), event.sender, number, self._look)
        return line if is_open else [*line[:2], ("class:notice", f"{self._label(event.conversation)} "), *line[2:]]

    def preview(self, event: MessageReceived) -> Line:
        group = self._label(event.conversation) if event.conversation.startswith("#") else ""
        return render.preview(
            event.at, self._now(), event.sender, self.text_of(event), self._look, group, mentioned=event.mentioned
        )

    def past(self, item: HistoryItem) -> Line:
        text = self.text_of(item)
        number = self.number(Named(item.id, item.conversation, item.sender, text, item.own))
        if item.waiting:
            self._waiting.add(item.id)
        line = render.history(
            item,
            self._now(),
            self._look,
            self._me,
            number=number,
            quote=self._quote(item.reply, item.conversation),
            reactions=self._book.reactions(item.id),
            text=text,
            file=f"/fetch {number}" if item.file is not None and not item.own else "",
        )
        # Pictures that were seen are lines: /show draws one again.
        return line if item.own or item.read else self._with_picture(line, item.file)

    def sent(self, message: Sent, *, is_open: bool) -> Line:
        shown = Shown(
            at=message.at,
            name=self._me.user,
            text=message.text,
            number=self.numbers.of(message.id),
            own=True,
            here=True,
            state=message.state,
            reason=message.reason,
            quote=self._quote(self._answers.get(message.id, ""), message.conversation),
        )
        line = render.message(shown, self._now(), self._look)
        if not is_open:
            line.insert(3, ("class:notice", f" to {clean_line(self._label(message.conversation), 64)}"))
        return line

    # --- what is said of them --------------------------------------------------------------------------------------

    def reaction(self, message_id: str, sender: str, emoji: str, *, removed: bool) -> Line:
        verb = "takes back" if removed else ""
        return render.note(
            " ".join(f"{self._who(sender)} {verb} {clean_line(emoji, 16)} {self._which(message_id)}".split())
        )

    def changed(self, message_id: str, sender: str, text: str) -> Line:
        before = self.numbers.named(message_id)
        if before is not None:
            self.numbers.update(Named(before.id, before.conversation, before.sender, text, before.own))
        number = self.numbers.of(message_id)
        which = str(number) if number else "an earlier message"
        return render.note(f"{self._who(sender)} changed {which}: {text}")

    def gone(self, message_id: str, sender: str) -> Line:
        line = render.note(f"{self._who(sender)} deleted {self._which(message_id)}")
        before = self.numbers.named(message_id)
        if before is not None:
            self.numbers.update(Named(before.id, before.conversation, before.sender, "", before.own))
        return line

    def timer(self, conversation: str, sender: str, seconds: int) -> Line:
        what = f"goes {in_words(seconds)} after its reading" if seconds else "stays"
        return render.note(
            f"{self._who(sender)} set: what is written in {self._label(conversation)} from now on {what}"
        )

    def receipts(self, message_id: str, named: Named) -> list[Line]:
        """Whose it is, who has it, who has put which sign on it."""
        lines: list[Line] = [render.note(f"{self._who(named.sender)}: {self._which(message_id)}, id {message_id}")]
        if named.own and message_id.startswith(f"{self._me.device}."):
            marks = render_groups.receipts(self._book.marks(message_id), self._now(), self._look)
            lines += marks or [render.note("nobody else has it")]
        signs: dict[str, list[str]] = {}
        for user, emoji in self._book.reactions(message_id):
            signs.setdefault(clean_line(emoji, 16), []).append(self._who(user))
        return lines + [render.note(f"{emoji} {', '.join(users)}") for emoji, users in signs.items()]

    def _who(self, user: str) -> str:
        return "you" if user == self._me.user else clean_line(user, 64)

    def _which(self, message_id: str) -> str:
        """A message in few words: its number, and how it begins."""
        named, number = self.named(message_id), self.numbers.of(message_id)
        text = clean_line(named.text, QUOTE) if named is not None else ""
        return " ".join([str(number)] * bool(number) + [f'"{text}"'] * bool(text)) or "an earlier message"

    def _quote(self, message_id: str, conversation: str) -> str:
        """Never words of another conversation, of which whoever answers knows no more than the number."""
        if not message_id:
            return ""
        named = self.named(message_id)
        is_here = named is not None and named.conversation == conversation
        return named.text if named is not None and is_here and named.text else "an earlier message"
