"""The interactive chat, put together: a messenger, the talk, and the screen that this terminal is good for."""

from __future__ import annotations

import sys

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from fastchat_client.events import Event
from fastchat_client.messenger import Messenger
from fastchat_client.profile import Profile
from fastchat_client.running import INTERRUPTED, TRY_LATER, Running
from fastchat_client.terminal.book import VaultBook
from fastchat_client.terminal.pictures import draw_for
from fastchat_client.terminal.plain import LineReader, PlainScreen
from fastchat_client.terminal.talk import Talk
from fastchat_client.terminal.text import clean_line, look_of
from fastchat_client.vault import Vault

OUTBOX_SECONDS = 60.0
"""How long a plain chat whose input has ended waits for its last messages to be accepted."""


async def chat(running: Running, profile: Profile, vault: Vault, who: str | None) -> int:
    """On a terminal that can move its cursor; Twisted's asyncio reactor runs."""
    from fastchat_client.terminal.prompt import PromptScreen

    look = look_of(sys.stdout)
    # Asks the terminal, and so before the screen reads what is typed.
    draw = draw_for(look)
    screen = PromptScreen(look)
    messenger = Messenger(profile, vault, running.reactor, lambda events: talk.on_events(events), keeps_files=True)
    talk = Talk(messenger, screen, look, running.reactor, VaultBook(vault), draw=draw)
    running.on_signal = screen.end
    talk.began(who)
    messenger.start()
    try:
        interrupted = await screen.run(talk)
    finally:
        talk.files.leave()
        await messenger.stop()
        talk.ended()
        screen.flush()
    _say_what_waits(vault, messenger)
    return INTERRUPTED if interrupted else 0


async def plain_chat(running: Running, profile: Profile, vault: Vault, who: str | None) -> int:
    """Lines in, lines out. When the input ends, it goes on until the outbox is accepted."""
    screen = PlainScreen(sys.stdout)
    input_ended: Deferred[None] = Deferred()

    def told(events: list[Event]) -> None:
        talk.on_events(events)

    messenger = Messenger(profile, vault, running.reactor, told, keeps_files=True)
    talk = Talk(messenger, screen, look_of(sys.stdout), running.reactor, VaultBook(vault))
    reader = LineReader(sys.stdin.fileno(), running.reactor, talk.typed, lambda: input_ended.callback(None))
    running.on_signal = screen.end
    input_ended.addCallback(lambda _: Deferred.fromCoroutine(_until_accepted(running, vault, talk, messenger)))
    input_ended.addBoth(lambda _: screen.end())
    talk.began(who)
    messenger.start()
    reader.start()
    try:
        await screen.left
    finally:
        talk.files.leave()
        await messenger.stop()
    return TRY_LATER if _say_what_waits(vault, messenger) else 0


async def _until_accepted(running: Running, vault: Vault, talk: Talk, messenger: Messenger) -> None:
    """Files count, too, as long as they move."""
    began, moved = running.reactor.seconds(), 0
    while running.reactor.seconds() - began < OUTBOX_SECONDS:
        under_way = [one for one in messenger.transfers() if one.up or one.active]
        if not (vault.waiting() or under_way or talk.files.is_preparing):
            return
        before, moved = moved, sum(one.done for one in under_way)
        if moved != before or talk.files.is_preparing:
            began = running.reactor.seconds()
        await deferLater(running.reactor, 0.1)


def _say(text: str) -> None:
    print(f"fastchat: {clean_line(text)}", file=sys.stderr)


def _say_what_waits(vault: Vault, messenger: Messenger) -> bool:
    waiting, under_way = vault.waiting(), messenger.transfers()
    if waiting:
        what = "1 message waits" if waiting == 1 else f"{waiting} messages wait"
        _say(f"{what} in the outbox; the next connection sends what is there")
    for one in under_way:
        what = "sent" if one.up else "fetched"
        _say(f"{one.name} is not {what} yet; it goes on when FastChat runs next (fastchat transfers)")
    return bool(waiting or any(one.up for one in under_way))
