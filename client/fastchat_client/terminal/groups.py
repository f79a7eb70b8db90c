"""Groups in the chat: what they are called, what is done to them, and what is said of what others do to them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastchat.errors import RequestError
from fastchat_client.events import ActDone, ActFailed, Event, GroupAlarm, GroupChanged, GroupInvited
from fastchat_client.group_acting import Act, JoinAct, RenameAct, RoleAct
from fastchat_client.groups import GroupInfo
from fastchat_client.terminal import group_words, render, render_groups
from fastchat_client.terminal.group_words import Labels
from fastchat_client.terminal.interfaces import Book, Mouth, Screen
from fastchat_client.terminal.text import Look
from fastchat_client.vault import Conversation

NAME_SECONDS = 3.0
"""For the name of a group that one is invited to: it comes in a message of its own."""


class GroupTalk:
    """`me`: this account's name."""

    def __init__(self, messenger: Mouth, screen: Screen, look: Look, reactor: Any, book: Book, me: str) -> None:
        self._messenger = messenger
        self._screen = screen
        self._reactor = reactor
        self._look = look
        self._book = book
        self._me = me
        self._labels = Labels(book.groups())
        self._joining: set[int] = set()
        """Acts of this screen's after which the group is to be opened."""
        self._earlier: dict[str, int] = {}

    # --- names -----------------------------------------------------------------------------------------------------

    def label(self, conversation: str) -> str:
        """What a conversation is called."""
        return self._labels[conversation]

    def typing(self, conversation: str) -> str:
        """What one types to name it."""
        return self._labels.as_typed(conversation)

    def info(self, conversation: str | None) -> GroupInfo | None:
        return self._labels.info(conversation) if conversation else None

    @property
    def typed(self) -> list[str]:
        return self._labels.typed

    def _look_again(self) -> None:
        self._labels = Labels(self._book.groups())

    # --- what a person does ----------------------------------------------------------------------------------------

    def create(self, name: str, topic: str) -> str:
        """Its conversation, which can be written to at once."""
        _, conversation = self._messenger.group_create(group_words.usable_name(name), topic)
        self._look_again()
        return conversation

    def act(self, group: str, act: Act, *, connected: bool) -> None:
        if isinstance(act, RenameAct):
            act = RenameAct(group_words.usable_name(act.name))
        number = self._messenger.group_act(group, act)
        if isinstance(act, JoinAct):
            self._joining.add(number)
        if not connected:
            self._screen.show(render.note(f"It is done to {self.label(group)} at the next connection."))

    def role(self, group: str, user: str, *, up: bool) -> RoleAct:
        """What makes `user` more in the group, or less."""
        self._look_again()
        return group_words.role_changed(self._known(group), user, up=up)

    def show_all(self, conversations: Sequence[Conversation]) -> None:
        self._look_again()
        for line in render_groups.groups(self._labels, conversations):
            self._screen.show(line)

    def show(self, group: str) -> None:
        self._look_again()
        for line in render_groups.group(self._known(group), self.label(group)):
            self._screen.show(line)

    def _known(self, group: str) -> GroupInfo:
        info = self._labels.info(group)
        if info is None:
            raise RequestError("nothing is known of this group yet")
        return info

    # --- what is shown without being asked for -----------------------------------------------------------------------

    def tell_invitations(self) -> None:
        """What one is invited to and has not answered."""
        for info in self._labels.infos:
            if info.role == "invited" and not info.deleted:
                by = dict(info.invited).get(self._me, "")
                event = GroupInvited(info.conversation, info.name, info.topic, by, len(info.members), 0)
                self._show_invitation(event)

    def tell_state(self, conversation: str) -> None:
        """If not everything can be done in a group that is opened, why."""
        self._look_again()
        info = self._labels.info(conversation)
        if info is None:
            return
        if info.role == "invited" and not info.deleted:
            self._screen.show(render.note(f"You are invited: /group join {self.typing(conversation)}"))
        elif info.deleted or info.role == "gone":
            what = "This group is deleted" if info.deleted else "You are not in this group any more"
            self._screen.show(render.note(f"{what}; nothing can be written in it."))
        if info.alarm:
            self._screen.show(render.problem("There was an alarm about this group; /group show tells which."))

    def earlier(self, conversation: str) -> None:
        """A message from before one joined is here, of a group that is not open."""
        if conversation not in self._earlier:
            label, typed = self.label(conversation), self.typing(conversation)
            self._screen.show(render.note(f"What was said in {label} before you joined is here: /msg {typed}"))
        self._earlier[conversation] = self._earlier.get(conversation, 0) + 1

    def on_event(self, event: Event, is_open: str | None, *, quiet: bool) -> str | None:
        """None if it is not about groups; else a conversation that is to be opened, or "". `quiet`: of other groups
        than the open one, not every change is said."""
        if not isinstance(event, GroupChanged | GroupInvited | GroupAlarm | ActDone | ActFailed):
            return None
        self._look_again()
        if isinstance(event, GroupInvited) and event.name:
            self._show_invitation(event)
        elif isinstance(event, GroupInvited):
            self._reactor.callLater(NAME_SECONDS, self._still_without_name, event)
        elif isinstance(event, GroupAlarm):
            kept_in = self._messenger.group_alarm_file
            self._screen.show(render_groups.alarm(event, self.label(event.conversation), kept_in))
        elif isinstance(event, ActFailed):
            self._joining.discard(event.act)
            words = group_words.refused(event.code, event.reason, self.label(event.conversation))
            self._screen.show(render.problem(words))
        elif isinstance(event, ActDone):
            if event.act in self._joining:
                self._joining.discard(event.act)
                return event.conversation
        else:
            self._changed(event, is_open, quiet)
        return ""

    def _still_without_name(self, event: GroupInvited) -> None:
        info = self._labels.info(event.conversation)
        if info is None or (info.role == "invited" and not info.name):
            self._show_invitation(event)

    def _show_invitation(self, event: GroupInvited) -> None:
        label, typed = self.label(event.conversation), self.typing(event.conversation)
        self._screen.show(render_groups.invited(event, label, typed, self._look))

    def _changed(self, event: GroupChanged, is_open: str | None, quiet: bool) -> None:
        info = self._labels.info(event.conversation)
        concerns_me = event.who == self._me or event.actor == self._me
        if event.who == self._me and event.kind == "invited":
            return  # the invitation itself says it
        # Who is only invited has not come to hear what became of the group before.
        is_background = event.conversation != is_open and info is not None and (info.muted or info.role == "invited")
        if ((quiet and event.conversation != is_open) or is_background) and not concerns_me:
            return
        words = group_words.changed(event, self._me)
        where = "" if event.conversation == is_open else f"{self.label(event.conversation)}: "
        self._screen.show(render.note(where + words))
