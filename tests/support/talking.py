"""The chat of the terminal without a terminal: a talk with alice, what it is told, and what it prints."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from fastchat.errors import RequestError, UnknownGroup
from fastchat.identity.names import check_name
from fastchat_client.events import Connected, Event, GroupChanged, MessageReceived
from fastchat_client.files import StoredFile, Transfer
from fastchat_client.group_acting import Act
from fastchat_client.groups import GroupInfo
from fastchat_client.marking import Mark
from fastchat_client.terminal import render
from fastchat_client.terminal.pictures import Draw, no_picture
from fastchat_client.terminal.render import Line
from fastchat_client.terminal.talk import Talk
from fastchat_client.terminal.text import Look
from fastchat_client.vault import Contact, Conversation, HistoryItem, Whoami

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
AT = "2026-11-22T11:59:00Z"
RICH = Look(colour=True, symbols=True)
DULL = Look(colour=False, symbols=False)


class FakeVault:
    """What a vault answers, from lists."""

    def __init__(self) -> None:
        self.items: list[HistoryItem] = []
        self.known: list[Contact] = [Contact("bob", "aaaa"), Contact("carol", "cccc")]
        self.muted: set[str] = set()

    def whoami(self) -> Whoami:
        return Whoami("alice", "d1", "ffff", True)

    def history(self, conversation: str, limit: int = 100, before: str = "") -> list[HistoryItem]:
        return [item for item in self.items if item.conversation == conversation][-limit:]

    def conversations(self) -> list[Conversation]:
        users = list(dict.fromkeys(item.conversation for item in reversed(self.items)))
        return [Conversation(user, self.unread(user), 1_795_000_000_000, user in self.muted) for user in users]

    def contacts(self) -> list[Contact]:
        return self.known

    def unread(self, conversation: str) -> int:
        return sum(1 for item in self.items if item.conversation == conversation and not item.own and not item.read)


class FakeBook:
    """What is noted beside messages, from lists."""

    def __init__(self, vault: FakeVault) -> None:
        self._vault = vault
        self.infos: list[GroupInfo] = []
        self.noted: dict[str, list[Mark]] = {}
        self.signs: dict[str, list[tuple[str, str]]] = {}
        self.blocked_users: list[str] = []

    def groups(self) -> list[GroupInfo]:
        return self.infos

    def conversation_named(self, text: str) -> str:
        if not text.startswith("#"):
            return check_name(text)
        for info in self.infos:
            if text in (f"#{info.name}", info.conversation[: len(text)]):
                return info.conversation
        raise UnknownGroup(f"you know no group {text}")

    def message_named(self, text: str) -> str:
        raise RequestError(f"there is no message {text} here")

    def message(self, message_id: str) -> HistoryItem | None:
        return next((item for item in self._vault.items if item.id == message_id), None)

    def marks(self, message_id: str) -> list[Mark]:
        return self.noted.get(message_id, [])

    def reactions(self, message_id: str) -> list[tuple[str, str]]:
        return self.signs.get(message_id, [])

    def blocked(self) -> list[str]:
        return self.blocked_users


class FakeMessenger:
    """What a messenger does, written down."""

    alarm_file = "the file"
    group_alarm_file = "the other file"

    def __init__(self) -> None:
        self.vault = FakeVault()
        self.book = FakeBook(self.vault)
        self.done: list[tuple[object, ...]] = []
        self.count = 0
        self.preparing: list[tuple[Deferred[str], Callable[[int, int], None]]] = []
        """Of files that are to be sent: what fires when they are noted, and what is told how far that has come."""
        self.under_way: list[Transfer] = []
        self.stored: list[StoredFile] = []

    def send(self, to: str, text: str, reply: str = "") -> str:
        self.count += 1
        self.done.append(("send", to, text, reply) if reply else ("send", to, text))
        message_id = f"d1.{self.count}"
        self.vault.items.append(HistoryItem(message_id, to, "alice", text, 0, True, "waiting", reply=reply))
        return message_id

    def react(self, message_id: str, emoji: str, remove: bool = False) -> str:
        return self._did("react", message_id, emoji, remove)

    def edit(self, message_id: str, text: str) -> str:
        return self._did("edit", message_id, text)

    def delete(self, message_id: str) -> str:
        return self._did("delete", message_id)

    def set_timer(self, conversation: str, seconds: int) -> str:
        return self._did("timer", conversation, seconds)

    def mute(self, conversation: str, on: bool) -> None:
        self._did("mute", conversation, on)

    def block(self, user: str, on: bool) -> None:
        self._did("block", user, on)

    def set_presence(self, on: bool) -> None:
        self._did("presence", on)

    def typing(self, conversation: str) -> None:
        self._did("typing", conversation)

    def send_file(
        self,
        conversation: str,
        path: Path,
        text: str = "",
        *,
        original: bool = False,
        reply: str = "",
        progress: Callable[[int, int], None] | None = None,
    ) -> Deferred[str]:
        assert progress is not None
        self._did("send file", conversation, str(path), text, original)
        result: Deferred[str] = Deferred(lambda _: self.done.append(("cancelled", str(path))))
        self.preparing.append((result, progress))
        return result

    def fetch(self, message_id: str, directory: Path) -> None:
        self._did("fetch", message_id, str(directory))

    def transfers(self) -> list[Transfer]:
        return self.under_way

    def cancel(self, attachment: str) -> None:
        self._did("cancel", attachment)

    def file(self, message_id: str) -> StoredFile | None:
        return next((stored for stored in self.stored if stored.message == message_id), None)

    def files(self, conversation: str, limit: int) -> list[StoredFile]:
        return [stored for stored in reversed(self.stored) if stored.conversation == conversation][:limit]

    def set_auto_download(self, size: int) -> None:
        self._did("auto", size)

    def group_create(self, name: str, topic: str = "") -> tuple[int, str]:
        self._did("create", name, topic)
        info = group(name, topic, members=(("alice", "owner"),), role="owner")
        self.book.infos.append(info)
        return self.count, info.conversation

    def group_act(self, conversation: str, act: Act) -> int:
        self._did("act", conversation, act)
        return self.count

    def _did(self, *what: object) -> str:
        self.count += 1
        self.done.append(what)
        return f"d1.{self.count}"

    def mark_read(self, conversation: str) -> None:
        self.done.append(("read", conversation))
        self.vault.items = [
            msgspec.structs.replace(item, read=True) if item.conversation == conversation else item
            for item in self.vault.items
        ]

    def accept_root(self, user: str) -> None:
        self.done.append(("accept", user))

    def reconnect(self) -> None:
        self.done.append(("reconnect",))


def group(
    name: str,
    topic: str = "",
    members: Sequence[tuple[str, str]] = (("alice", "member"), ("bob", "owner"), ("carol", "member")),
    *,
    role: str = "member",
    invited: Sequence[tuple[str, str]] = (),
    deleted: bool = False,
    alarm: str = "",
    muted: bool = False,
    letter: str = "",
) -> GroupInfo:
    """A group that alice knows; its id follows from its name, or from `letter`."""
    digits = (letter or f"{sum(name.encode()):x}").encode().hex()
    return GroupInfo(
        f"#{digits:0<32}", name, topic, role, tuple(members), tuple(invited), deleted, alarm, muted, timer=0
    )


class Paper:
    """A screen that keeps what is printed."""

    def __init__(self, live: bool = True) -> None:
        self.live = live
        self.lines: list[str] = []
        self.styles: list[str] = []
        self.ended = False

    def show(self, line: Line) -> None:
        self.lines.append(render.plain(line))
        self.styles += [style for style, _ in line]

    def redraw(self) -> None:
        pass

    def end(self) -> None:
        self.ended = True


class TalkCase(SynchronousTestCase):
    """alice at her terminal."""

    def setUp(self) -> None:
        self.messenger = FakeMessenger()
        self.clock = Clock()
        self.begin(Paper())

    def begin(self, paper: Paper, look: Look = RICH, draw: Draw = no_picture) -> None:
        self.paper = paper
        # What would be done in a thread is done at once.
        self.talk = Talk(self.messenger, paper, look, self.clock, self.messenger.book, lambda: NOW, draw, maybeDeferred)

    def printed(self) -> list[str]:
        lines, self.paper.lines = self.paper.lines, []
        return lines

    def live(self) -> list[str]:
        return [render.plain(line) for line in self.talk.live()]

    def prompt(self) -> str:
        return render.plain(self.talk.prompt())

    def status(self) -> str:
        return render.plain(self.talk.status())

    def tell(self, *events: Event) -> None:
        self.talk.on_events(events)

    def come(self, sender: str, text: str, n: int = 1) -> MessageReceived:
        message = MessageReceived(sender, sender, text, AT, f"{sender}1.{n}")
        self.messenger.vault.items.append(HistoryItem(message.id, sender, sender, text, 0))
        return message


TEAM = group("team", "what we do", letter="a")
ID = TEAM.conversation


class GroupCase(TalkCase):
    """alice is in #team with bob and carol, and looks at it."""

    def setUp(self) -> None:
        super().setUp()
        self.messenger.book.infos = [TEAM]
        self.begin(Paper())
        self.tell(Connected("chat-1", 0))
        self.talk.typed("/msg #team")
        self.opened = self.printed()
        self.messenger.done.clear()

    def arrives(self, text: str, n: int = 1, sender: str = "bob", where: str = ID, **more: Any) -> MessageReceived:
        message = MessageReceived(sender, where, text, AT, f"{sender}1.{n}", **more)
        self.messenger.vault.items.append(HistoryItem(message.id, where, sender, text, 0))
        return message

    def one(self) -> str:
        """The only line that was printed."""
        lines = self.printed()
        self.assertEqual(len(lines), 1, lines)
        return lines[0]

    def changed(self, kind: str, actor: str = "bob", who: str = "", text: str = "", where: str = ID) -> Event:
        return GroupChanged(where, kind, actor, who, text, AT)
