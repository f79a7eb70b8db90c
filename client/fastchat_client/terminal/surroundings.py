"""What stands around the messages: the prompt, the status line, and how a line that is being typed could go on."""

from __future__ import annotations

from collections.abc import Sequence

from fastchat_client import completing, paths
from fastchat_client.terminal import render
from fastchat_client.terminal.files import FileTalk
from fastchat_client.terminal.groups import GroupTalk
from fastchat_client.terminal.network import Network
from fastchat_client.terminal.render import Line
from fastchat_client.terminal.signs import Signs
from fastchat_client.terminal.text import Look, clean_line
from fastchat_client.vault import Contact, Conversation

MOST_WRITING = 3
"""Names of people who are writing, in the status line."""


class Surroundings:
    """`me`: this account's name."""

    def __init__(self, me: str, look: Look, network: Network, groups: GroupTalk, signs: Signs, files: FileTalk) -> None:
        self._me = me
        self._look = look
        self._network = network
        self._groups = groups
        self._signs = signs
        self._files = files

    def prompt(self, conversation: str | None) -> Line:
        """A dot for the connection, hollow if whom one talks to is not there, or does not say so; and whom one talks
        to."""
        name = clean_line(self._groups.label(conversation)) if conversation else "(nobody)"
        info = self._groups.info(conversation)
        if info is not None:
            is_member = not info.deleted and info.role not in ("invited", "gone")
            name += f" ({len(info.members):,})" if is_member else " (not a member)"
        is_there = conversation is None or info is not None or conversation in self._signs.online
        if self._network.service:
            dot = ("class:online", self._look.symbol("● ", "* ") if is_there else self._look.symbol("○ ", "o "))
        else:
            dot = ("class:trying" if self._network.is_trying else "class:offline", self._look.symbol("● ", "- "))
        return [dot, ("class:head", name), ("", self._look.symbol(" › ", " > "))]

    def status(self, conversation: str | None, conversations: Sequence[Conversation]) -> Line:
        """Who, where, which file is on its way, who is writing, what is unread elsewhere."""
        parts = [self._me, self._network.words()]
        if files := self._files.words():
            parts.append(files)
        if writing := self._writing(conversation):
            parts.append(writing)
        elsewhere = [other for other in conversations if other.user != conversation]
        if unread := render.unread_list(elsewhere, self._groups.label):
            parts.append(f"unread: {unread}")
        return [("", self._look.symbol(" · ", " | ").join(parts))]

    def completions(
        self, line: str, conversation: str | None, conversations: Sequence[Conversation], contacts: Sequence[Contact]
    ) -> list[str]:
        """People, those of the newest conversations first; groups; after an @ who is in the open group; and files."""
        if (path := completing.path_begun(line)) is not None:
            return paths.completions(path)
        known = [other.user for other in conversations if not other.user.startswith("#")]
        info = self._groups.info(conversation)
        members = [user for user, _ in info.members if user != self._me] if info else []
        users = list(dict.fromkeys([*known, *sorted(contact.user for contact in contacts), *members]))
        return completing.completions(line, users, self._groups.typed, members)

    def _writing(self, conversation: str | None) -> str:
        users = self._signs.writing(conversation) if conversation else []
        if not users:
            return ""
        names = [clean_line(user, 64) for user in users[:MOST_WRITING]]
        names += ["others"] * (len(users) > MOST_WRITING)
        return f"{' and '.join(names)} {'is' if len(names) == 1 else 'are'} writing{self._look.symbol('…', '...')}"
