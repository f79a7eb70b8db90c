"""What a person does to the client's heart, connected or not: say, read, decide, leave.

A part of `core.Core`, which is the heart itself: each thing that is done here is a turn of its transaction, or one of
its own where it can be refused, for a refusal must undo nothing else. Sockets are not known here, nor the wire.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TypeVar

from fastchat.identity.root import RootKey
from fastchat_client import downloads, history
from fastchat_client.files import Transfer
from fastchat_client.group_acting import Act, compose_act, compose_create
from fastchat_client.parts import Parts
from fastchat_client.receiving import Receiver
from fastchat_client.revoking import Revoker
from fastchat_client.speaking import check_text, compose_text
from fastchat_client.transfers import Transfers
from fastchat_client.vault import Vault
from fastchat_client.whispering import Whispers

Name = TypeVar("Name")


class PersonSide(ABC):
    vault: Vault
    _parts: Parts
    _receiver: Receiver
    _revoker: Revoker
    _transfers: Transfers
    _whispers: Whispers

    @abstractmethod
    def tick(self) -> None:
        """What is to be done by the second."""

    @abstractmethod
    def _turn(self) -> AbstractContextManager[None]:
        """A part of the open transaction; if it fails, all of it is undone."""

    @abstractmethod
    def _commit(self) -> None: ...

    @abstractmethod
    def _pump(self) -> None:
        """Send what may go now."""

    def send_text(self, to: str, text: str, reply: str = "") -> str:
        """Commit `text` to the outbox; the message's id. Works offline. Raises `NameNotAllowed`, or `RequestError` if
        it is too long or no text."""
        check_text(to, text)
        return self.compose(lambda vault, at: compose_text(vault, to, text, at, reply))

    def compose(self, composed: Callable[[Vault, int], Name]) -> Name:
        """Let one of `speaking`'s or `group_acting`'s functions put something into the vault, all of it or nothing; the
        id of what goes out. Works offline. Raises what that raises."""
        self._commit()
        name = composed(self.vault, self._parts.now())
        with self._turn():
            self._parts.pick_up()
            self._transfers.pick_up()
            self._pump()
        self._commit()
        return name

    def fetch(self, message_id: str, directory: Path) -> None:
        """Note that a message's file is to be in this folder, named by its whole path; events tell the rest. Works
        offline. Raises `RequestError` or `AttachmentTooLarge`."""
        self.compose(lambda vault, _: downloads.want(vault, message_id, directory))

    def transfers(self) -> list[Transfer]:
        """Files that are not where they are to be yet."""
        self._commit()
        return self._transfers.transfers()

    def cancel(self, attachment: str) -> bool:
        """Neither send it nor fetch it any more; whether that was to be done. Works offline."""
        with self._turn():
            is_known = self._transfers.cancel(attachment)
        self._commit()
        return is_known

    def set_presence(self, on: bool) -> None:
        """Whether others are told that this person is there, and this person that others are."""
        with self._turn():
            self._whispers.set_presence(on)
        self._commit()

    def typing(self, conversation: str) -> None:
        """The person is writing there at this moment; may be called at every key. Nothing, while not connected."""
        with self._turn():
            self._whispers.typing(conversation)
        self._commit()

    def leave(self) -> None:
        """The person is leaving: say what is to be said before the connection is closed."""
        self.tick()
        with self._turn():
            self._whispers.leave()
        self._commit()

    def poll_outbox(self) -> None:
        """Pick up what another process of this profile has composed since."""
        if not self.vault.in_transaction and self.vault.changed_elsewhere():
            with self._turn():
                self._parts.pick_up()
                self._transfers.pick_up()
                self._pump()
            self._parts.untold = True

    def mark_read(self, conversation: str, upto: str = "") -> None:
        """Everything received in it has been seen, or what came no later than the message `upto`; its senders are told
        so at the next tick."""
        with self._turn():
            self._parts.untold |= history.mark_read(self.vault, conversation, upto)
        self._commit()

    def group_create(self, name: str, topic: str = "") -> tuple[int, str]:
        """Note a new group; the act's number, and its conversation. Works offline. Raises `RequestError`."""
        return self.compose(lambda vault, at: compose_create(vault, name, topic, at))

    def group_act(self, conversation: str, act: Act) -> int:
        """Note what is to be done to a group; the act's number, which `ActDone` or `ActFailed` name. Works offline.
        Raises `RequestError`."""
        return self.compose(lambda vault, at: compose_act(vault, conversation, act, at))

    def revoke_device(self, root: RootKey, device: str) -> None:
        """Take another device out of this account, with the account's RSA key; a `Revocation` event says what became of
        it. Raises `RequestError` or `TrustError`."""
        self._revoker.check(root, device)
        with self._turn():
            self._revoker.begin(root, device)
        self._commit()

    def accept_root(self, user: str) -> bool:
        """Believe the other RSA key that the server names for `user`; False if it names no other. What was held is read
        now, in order; what waits in the outbox is sealed for the devices of the new key."""
        with self._turn():
            parts = self._parts
            gone = parts.accounts.accept(user, parts.now())
            if gone is None:
                return False
            for device in gone:
                parts.sessions.forget(device)
            for message in parts.outbox.waiting_for(user):
                parts.outbox.seal_again(message, is_last=False)
            self._receiver.release(user)
            self._pump()
        self._commit()
        return True
