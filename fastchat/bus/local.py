"""The bus of one process: a dictionary from device to inbox. Calls are direct, so their order is kept, and a ring
cannot be lost; what is attached here is all there is."""

from __future__ import annotations

from fastchat.bus import Answer, Inbox, Offer, Watcher
from fastchat.errors import FastChatError


class LocalBus:
    def __init__(self) -> None:
        self._inboxes: dict[str, Inbox] = {}
        self._watchers: list[Watcher] = []

    def attach(self, device: str, inbox: Inbox) -> None:
        older = self._inboxes.get(device)
        self._inboxes[device] = inbox
        if older is not None and older is not inbox:
            older.replaced()

    def detach(self, device: str, inbox: Inbox) -> None:
        if self._inboxes.get(device) is inbox:
            del self._inboxes[device]

    def offer(self, device: str, offer: Offer, answer: Answer) -> None:
        inbox = self._inboxes.get(device)
        if inbox is None:
            answer(False)
        else:
            inbox.offer(offer, answer)

    def ring(self, device: str) -> None:
        inbox = self._inboxes.get(device)
        if inbox is not None:
            inbox.ring()

    def tell(self, device: str, line: bytes) -> None:
        inbox = self._inboxes.get(device)
        if inbox is not None:
            inbox.tell(line)

    def expel(self, user: str, device: str, error: FastChatError) -> None:
        for watcher in self._watchers:
            watcher(user, device, error)

    def watch(self, watcher: Watcher) -> None:
        self._watchers.append(watcher)
