"""What people say, on its way out: checked, shown here, and put into the outbox in one transaction.

Every function works over a vault alone, at any time, in any process of the profile; the one that is connected sends
what comes of it. Each takes `at`, the time in milliseconds since 1970, and returns the id ("device.n") of the message
that goes out. Whatever cannot be said is a `RequestError` that tells why.
"""

from __future__ import annotations

import msgspec

from fastchat.errors import NotAllowed, RequestError, UnknownGroup
from fastchat.identity.names import check_name
from fastchat_client import amending, attachment_words, files, history, marking, settings
from fastchat_client.amending import Word
from fastchat_client.composing import insert
from fastchat_client.content import MAX_SECONDS, Content, Delete, Edit, File, Reaction, Ref, Text, Timer, encode_content
from fastchat_client.groups import group_info, group_of
from fastchat_client.history import Standing
from fastchat_client.vault import Vault, split_id

MAX_TEXT = 32 * 1024
"""Bytes of UTF-8 in one text: with its envelopes for several devices it must fit into a line."""
MAX_EMOJI = 16
"""Characters."""

_JOINER = "\N{ZERO WIDTH JOINER}"
"""Makes one emoji of several; it is not printable by itself."""


def check_text(to: str, text: str) -> None:
    """Whether `text` can be sent to `to`, a user's name or a group's conversation. Raises `NameNotAllowed`;
    `RequestError` if it is empty, too long or no Unicode."""
    if not group_of(to):
        check_name(to)
    _check_words(text)
    if not text:
        raise RequestError("there is nothing to send")


def check_file(vault: Vault, to: str, text: str, reply: str = "") -> Ref | None:
    """Whether a file can be sent to `to`, with `text` or without; the message that it answers."""
    _check_words(text)
    _check_place(vault, to)
    return _answered(vault, to, reply) if reply else None


def compose_text(vault: Vault, to: str, text: str, at: int, reply: str = "") -> str:
    """A text; its id never changes. `reply`: the id of the message that it answers."""
    check_text(to, text)
    with vault.transaction():
        _check_place(vault, to)
        answered = _answered(vault, to, reply) if reply else None
        return _show_and_send(vault, to, Text(text, answered, settings.timer_of(vault, to)), at)


def compose_file(vault: Vault, to: str, file: File, at: int) -> str:
    """A file that is on the network, whole. How long it stays is decided now, as it is of a text."""
    with vault.transaction():
        _check_place(vault, to)
        return _show_and_send(vault, to, msgspec.structs.replace(file, expires=settings.timer_of(vault, to)), at)


def compose_reaction(vault: Vault, message_id: str, emoji: str, remove: bool, at: int) -> str:
    """A sign on a message, or to take one back that is there."""
    if not emoji or emoji != emoji.strip() or not emoji.replace(_JOINER, "").isprintable():
        raise RequestError("a reaction is an emoji, or a short word")
    if len(emoji) > MAX_EMOJI:
        raise RequestError(f"a reaction has at most {MAX_EMOJI} characters; this one has {len(emoji)}")
    _check_unicode(emoji)
    with vault.transaction():
        standing, to = _message(vault, message_id)
        me = vault.text("user")
        if marking.has_reacted(vault, to, me, emoji) != remove:
            raise RequestError("there is no such reaction of yours" if remove else "you have reacted so already")
        at = max(at, marking.reacted_at(vault, to, me, emoji) + 1)
        word = _say(vault, standing, Reaction(to, emoji, remove), at)
        if not marking.react(vault, to, word, emoji, remove=remove):
            raise RequestError(f"there are {marking.MOST_REACTIONS} reactions of yours on this message already")
    return f"{word.device}.{word.n}"


def compose_edit(vault: Vault, message_id: str, text: str, at: int) -> str:
    """Another text for a message of one's own."""
    with vault.transaction():
        standing, of = _own_message(vault, message_id)
        check_text(standing.conversation, text)
        at = max(at, amending.edited_at(vault, of) + 1)
        word = _say(vault, standing, Edit(of, text), at, quotes=of)
        amending.edit(vault, of, word, text)
    return f"{word.device}.{word.n}"


def compose_delete(vault: Vault, message_id: str, at: int) -> str:
    """A message of one's own goes, everywhere. If it has not been sent, its text never will be."""
    with vault.transaction():
        standing, of = _own_message(vault, message_id)
        file = files.descriptor(vault, of.device, of.n)
        if file is not None:
            attachment_words.tell_detached(vault, file.attachment)
        amending.delete(vault, of)
        word = _say(vault, standing, Delete(of), at)
    return f"{word.device}.{word.n}"


def compose_timer(vault: Vault, conversation: str, seconds: int, at: int) -> str:
    """From here on messages of this conversation go `seconds` after their reading; 0: they stay."""
    if not 0 <= seconds <= MAX_SECONDS:
        raise RequestError(f"a message stays for at most {MAX_SECONDS} seconds, or for ever (0)")
    with vault.transaction():
        _check_place(vault, conversation)
        info = group_info(vault, conversation)
        if info is not None and info.role not in ("owner", "admin"):
            raise NotAllowed("only owners and admins of a group may set how long its messages stay")
        at = max(at, settings.timer_set_at(vault, conversation) + 1)
        n = insert(vault, conversation, "", encode_content(Timer(seconds)), at, shown=False)
        device = vault.text("device")
        settings.set_timer(vault, conversation, seconds, at, device)
    return f"{device}.{n}"


# --- within ----------------------------------------------------------------------------------------------------------


def _show_and_send(vault: Vault, to: str, content: Text | File, at: int) -> str:
    """Put into the outbox what stands in the history; its id never changes."""
    n = insert(vault, to, "", encode_content(content), at, shown=True)
    device, answered = vault.text("device"), content.reply
    named = (answered.device, answered.n) if answered else None
    history.add_sent(vault, device, n, vault.text("user"), to, at, content.text, named, content.expires)
    if isinstance(content, File):
        files.add(vault, device, n, content)
    return f"{device}.{n}"


def _say(vault: Vault, standing: Standing, content: Content, at: int, quotes: Ref | None = None) -> Word:
    """Put into the outbox what is said about a message."""
    _check_place(vault, standing.conversation)
    n = insert(vault, standing.conversation, "", encode_content(content), at, shown=False, quotes=quotes)
    return Word(vault.text("user"), vault.text("device"), n, standing.conversation, at)


def _check_place(vault: Vault, conversation: str) -> None:
    """Whether anything can be said there."""
    group = group_of(conversation)
    if not group:
        check_name(conversation)
        return
    info = group_info(vault, conversation)
    if info is None:
        raise UnknownGroup(f"you know no group {conversation}")
    if info.deleted:
        raise RequestError("this group was deleted")
    if info.role in ("invited", "gone"):
        raise NotAllowed("you have not joined this group" if info.role == "invited" else "you are not in this group")


def _answered(vault: Vault, to: str, reply: str) -> Ref:
    standing, answered = _message(vault, reply)
    if standing.conversation != to:
        raise RequestError(f"{reply} is a message of another conversation")
    return answered


def _message(vault: Vault, message_id: str) -> tuple[Standing, Ref]:
    device, n = split_id(message_id)
    standing = history.standing(vault, device, n)
    if standing is None:
        raise RequestError(f"there is no message {message_id} that can be read here")
    if standing.deleted:
        raise RequestError(f"the message {message_id} is deleted")
    return standing, Ref(device, n)


def _own_message(vault: Vault, message_id: str) -> tuple[Standing, Ref]:
    standing, of = _message(vault, message_id)
    if not standing.own:
        raise NotAllowed(f"the message {message_id} is not yours")
    return standing, of


def _check_words(text: str) -> None:
    _check_unicode(text)
    if len(text.encode()) > MAX_TEXT:
        raise RequestError(f"a message has at most {MAX_TEXT} bytes; this one has {len(text.encode())}")


def _check_unicode(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise RequestError("this is not a text: it has characters that are none") from None
