"""What is only worth hearing now: that somebody is writing, and who is there. Never stored, and lost without a sound.

A whisper goes over the Olm sessions that there are; none is begun for it, and no keys are asked for. It overtakes what
waits in a mailbox, and is lost where nobody is there: so only few are sent over a session from whose other end nothing
comes, and none is read while this device is still catching up. Else the sessions would lose keys of messages over them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from itertools import islice
from typing import TypeVar

from fastchat.errors import TrustError
from fastchat.identity.links import DeviceIdentity
from fastchat.protocols.wire import Recipient, Whisper, Whispered
from fastchat_client import history, ratchet, settings
from fastchat_client.content import (
    Plain,
    Presence,
    TreeHead,
    Typing,
    Unknown,
    decode_content,
    encode_content,
    read_plain,
    write_plain,
)
from fastchat_client.events import PresenceChanged, TypingNow, iso
from fastchat_client.groups import group_of
from fastchat_client.megolm import is_group_body
from fastchat_client.parts import Live, Parts
from fastchat_client.understanding import Said, Understanding
from fastchat_client.unreadable import Reason, Unreadable

TYPING_EVERY = 4.0
"""Seconds between two whispers that somebody is writing in a conversation."""
TYPING_SHOWN_EVERY = 1.0
"""Of one sender in one conversation."""
PARTNERS = 50
"""Those whom one has written with last are told that one is there."""
PRESENCE_EVERY = 240.0
PRESENCE_LASTS = 600.0
"""Seconds after the last sign that somebody counts as there."""
ANSWER_EVERY = 60.0
"""Seconds between two answers to one device."""
MOST_AT_ONCE = 50
"""Devices that are whispered to in one line."""
_MOST_NOTED = 1000

Key = TypeVar("Key")


class Whispers:
    """Writes need a transaction around them. `group_whispered` reads what is whispered in a group."""

    def __init__(
        self, parts: Parts, understanding: Understanding, group_whispered: Callable[[DeviceIdentity, bytes], None]
    ) -> None:
        self._parts = parts
        self._understanding = understanding
        self._group_whispered = group_whispered
        self._typed: dict[str, float] = {}
        self._shown: dict[tuple[str, str], float] = {}
        self._answered: dict[str, float] = {}
        self._there: dict[str, dict[str, float]] = {}
        """By user, the devices that are there, and when they said so."""
        self._greeted: Live | None = None
        """The connection on which others were told that we are here, and when they were last."""
        self._said_at = 0.0
        self._told: set[str] = set()
        """Whom, on this connection."""
        self._looked_at = 0
        """Up to which message it was looked at whom this person writes to."""
        understanding.whispered = self._understood

    # --- heard -------------------------------------------------------------------------------------------------------

    def heard(self, live: Live, message: Whispered) -> None:
        """A whisper, from a server that may be malicious. What cannot be read is nothing: they may be lost, too."""
        parts = self._parts
        account = parts.accounts.get(message.user)
        if live.progress < live.mailbox or account is None or account.offered_root:
            return
        sender = account.devices.get(message.device)
        if sender is None or sender.device == parts.me.device:
            return
        try:
            body = ratchet.body_from_wire(message.body)
            if is_group_body(body):
                self._group_whispered(sender, body)
            else:
                self._open(sender, body)
        except Unreadable:
            return

    def _open(self, sender: DeviceIdentity, body: bytes) -> None:
        parts = self._parts

        def check(plaintext: bytes, curve25519: bytes) -> tuple[Plain, Typing | Presence]:
            plain = read_plain(plaintext, sender, parts.me, curve25519)
            # A message must not be handed over as a whisper: it would be lost, and could not come any more.
            if plain.seq != 0 or plain.conversation != parts.me.user or sender.user == parts.me.user:
                raise Unreadable(Reason.WRONG_IDENTITY)
            content = decode_content(plain.content)
            if isinstance(content, Unknown) or not isinstance(content, Typing | Presence):
                raise Unreadable(Reason.NEWER_CLIENT)
            return plain, content

        plain, content = parts.sessions.read(parts.me, sender, body, parts.now(), check)
        self._understanding.take(Said(sender, 0, sender.user, False, plain.at), content)

    def _understood(self, said: Said, content: Typing | Presence) -> None:
        if said.own:
            return
        if isinstance(content, Typing):
            self._types(said)
        elif self._is_partner(said.conversation) and settings.presence_is_on(self._parts.vault):
            self._is_there(said.sender, content)

    def _types(self, said: Said) -> None:
        key, now = (said.conversation, said.sender.user), self._parts.clock()
        if now - self._shown.get(key, -TYPING_SHOWN_EVERY) >= TYPING_SHOWN_EVERY:
            _note(self._shown, key, now)
            self._parts.tell(TypingNow(said.conversation, said.sender.user))

    def _is_there(self, sender: DeviceIdentity, content: Presence) -> None:
        parts, user, device = self._parts, sender.user, sender.device
        was_there = user in self._there
        settings.seen(parts.vault, user, parts.now())
        if content.online:
            self._there.setdefault(user, {})[device] = parts.clock()
            if not was_there:
                parts.tell(PresenceChanged(user, True, iso(parts.now())))
            if content.answer and parts.clock() - self._answered.get(device, -ANSWER_EVERY) >= ANSWER_EVERY:
                _note(self._answered, device, parts.clock())
                self._whisper([user], Presence(online=True), [device])
        elif was_there:
            self._there[user].pop(device, None)
            self._gone([user])

    def _gone(self, users: Collection[str]) -> None:
        """Those of them of whom no device is there any more."""
        for user in users:
            if not self._there[user]:
                del self._there[user]
                last = settings.last_seen(self._parts.vault, user)
                self._parts.tell(PresenceChanged(user, False, iso(last)))

    # --- said --------------------------------------------------------------------------------------------------------

    def typing(self, conversation: str) -> None:
        """The person is writing there at this moment."""
        parts, now = self._parts, self._parts.clock()
        if self._live() is None or now - self._typed.get(conversation, -TYPING_EVERY) < TYPING_EVERY:
            return
        _note(self._typed, conversation, now)
        group = group_of(conversation)
        if not group:
            self._whisper([conversation], Typing())
        elif parts.groups.role(group, parts.me.user):
            parts.whisper_to_group(group, encode_content(Typing()))

    def by_the_second(self, live: Live) -> None:
        """Say that one is here, as soon as that can be known to be said to the right people, and again; and forget who
        has not been heard of."""
        now = self._parts.clock()
        if self._live() is None or not settings.presence_is_on(self._parts.vault):
            return
        if self._greeted is not live:
            self._greeted, self._said_at, self._looked_at = live, now, history.newest(self._parts.vault)
            partners = self._partners()
            self._told = {*partners, self._parts.me.user}
            self._whisper(partners, Presence(online=True, answer=True))
        elif partners := self._new_partners():
            self._whisper(partners, Presence(online=True, answer=True))
        elif now - self._said_at >= PRESENCE_EVERY:
            self._said_at = now
            self._tell_those_who_are_there(Presence(online=True))
        for devices in self._there.values():
            for device in [device for device, at in devices.items() if now - at >= PRESENCE_LASTS]:
                del devices[device]
        self._gone(list(self._there))

    def set_presence(self, on: bool) -> None:
        """Off: leave, as far as others can see, and see nothing of them. On: as after a login."""
        if not on:
            self.leave()
        settings.set_presence(self._parts.vault, on)
        self._greeted = None
        if not on:
            there, self._there = self._there, {}
            for user in there:
                self._parts.tell(PresenceChanged(user, False, iso(0)))

    def leave(self) -> None:
        """This device goes offline, and it is meant."""
        if self._live() is not None and settings.presence_is_on(self._parts.vault):
            self._tell_those_who_are_there(Presence(online=False))

    def _tell_those_who_are_there(self, content: Presence) -> None:
        devices = [device for devices in self._there.values() for device in devices]
        self._whisper(list(self._there), content, devices)

    def _partners(self) -> list[str]:
        """Only those whom this person has written to: a line from a stranger makes nobody known."""
        vault, me = self._parts.vault, self._parts.me.user
        names = (one.user for one in vault.conversations() if not group_of(one.user) and one.user != me)
        return list(islice(filter(self._is_partner, names), PARTNERS))

    def _is_partner(self, conversation: str) -> bool:
        return not group_of(conversation) and history.has_written(self._parts.vault, conversation)

    def _new_partners(self) -> list[str]:
        """To whom this person has written for the first time since others were told that they are here."""
        vault, before = self._parts.vault, self._looked_at
        self._looked_at = history.newest(vault)
        written = history.written_since(vault, before) if self._looked_at > before else []
        found = [name for name in written if not group_of(name) and name not in self._told]
        self._told.update(found)
        return found

    def _live(self) -> Live | None:
        """The connection, if anything may be whispered on it: it is known by then which devices there are."""
        live = self._parts.ready
        is_of_use = live is not None and live.leaving is None and live.log_current and not self._parts.alarmed
        return live if is_of_use else None

    def _whisper(
        self, users: Collection[str], content: Typing | Presence, devices: Collection[str] | None = None
    ) -> None:
        """To each of the users' devices (or only those of `devices`) that there is a session with."""
        if self._live() is None:
            return
        recipients: list[Recipient] = []
        for user in users:
            recipients += self._sealed(user, encode_content(content), devices)
        for first in range(0, len(recipients), MOST_AT_ONCE):
            self._parts.said.append(Whisper(tuple(recipients[first : first + MOST_AT_ONCE])))

    def _sealed(self, user: str, content: bytes, devices: Collection[str] | None) -> list[Recipient]:
        parts, me = self._parts, self._parts.me
        account = parts.accounts.get(user)
        if account is None or account.stale or account.offered_root or settings.is_blocked(parts.vault, user):
            return []
        head = TreeHead(parts.witness.size, parts.witness.root)
        found = []
        for peer in account.peers:
            device = peer.identity.device
            if (devices is None or device in devices) and parts.sessions.may_whisper(peer.identity):
                plain = write_plain(me, peer.identity, user, 0, head, parts.now(), content)
                try:
                    body = parts.sessions.seal(me, peer, plain)
                except TrustError:
                    continue  # a key that cannot be used is told of when something is to be sent with it
                found.append(Recipient(device, ratchet.body_to_wire(body)))
        return found


def _note(noted: dict[Key, float], key: Key, at: float) -> None:
    """Remember when; not of everybody for ever."""
    noted.pop(key, None)
    noted[key] = at
    if len(noted) > _MOST_NOTED:
        del noted[next(iter(noted))]
