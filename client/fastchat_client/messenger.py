"""A profile at work: its vault, the core and the connection, joined for one face.

Every face opens a profile through here and gets events; what a person wants goes through the few methods of
`Messenger`. It knows no terminal, no window and no command line.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from pathlib import Path
from random import SystemRandom
from typing import Any

from twisted.internet.defer import Deferred

from fastchat.errors import ConfigError
from fastchat.identity.invite import Invite
from fastchat.identity.names import check_name
from fastchat.identity.root import RootKey
from fastchat_client import files, settings, speaking
from fastchat_client.attaching import Attaching, Progress
from fastchat_client.connection import Connection
from fastchat_client.core import Core
from fastchat_client.entrance import Enrolment, Stage
from fastchat_client.events import Event, GroupAlarm, LogAlarm
from fastchat_client.files import StoredFile, Transfer
from fastchat_client.group_acting import Act
from fastchat_client.joining import change_invite, prepare_enrolment, prepare_registration
from fastchat_client.password import RECOMMENDED, Cost, local_secrets, login_password
from fastchat_client.profile import Facts, Profile, read_file, write_whole
from fastchat_client.vault import Vault

SALT_SIZE = 16


class Messenger:
    """Connects between `start` and `stop`; the caller holds the profile's lock. `on_events` is called in turns of its
    own, and may call any method here. `keeps_files`: small files that come are fetched unasked (`set_auto_download`),
    which is for who stays connected."""

    def __init__(
        self,
        profile: Profile,
        vault: Vault,
        reactor: Any,
        on_events: Callable[[list[Event]], None],
        enrolment: Enrolment | None = None,
        *,
        keeps_files: bool = False,
    ) -> None:
        self.vault = vault
        folder = profile.files_path() if keeps_files else None
        self.core = Core(vault, enrolment=enrolment, outgoing=profile.directory / "outgoing", folder=folder)
        self._profile = profile
        self._on_events = on_events
        self._attaching = Attaching(vault, self.core.outgoing, reactor, self.core.compose)
        self._connection = Connection(self.core, profile, reactor, SystemRandom(), self._tell)

    @property
    def alarm_file(self) -> str:
        """Where the evidence is written when the server contradicts its key log."""
        return str(self._profile.directory / "key-log-alarm.txt")

    @property
    def group_alarm_file(self) -> str:
        """Where the evidence is written when somebody is caught at making a group what it is not; the newest counts."""
        return str(self._profile.directory / "group-alarm.txt")

    def start(self) -> None:
        self._connection.start()

    async def stop(self) -> None:
        """Say what is still to be said, and disconnect. The vault stays open. What is on its way goes on at the next
        start; a file that is only being read is not sent."""
        await self._attaching.stop()
        await self._connection.stop()

    def send(self, to: str, text: str, reply: str = "") -> str:
        """Put a text for `to` into the outbox; its id. It is sent as soon as can be, now or at another start. `reply`:
        the id of the message that it answers."""
        message_id = self.core.send_text(to, text, reply)
        self._connection.flush()
        return message_id

    def send_file(
        self,
        conversation: str,
        path: Path,
        text: str = "",
        *,
        original: bool = False,
        reply: str = "",
        progress: Progress | None = None,
    ) -> Deferred[str]:
        """Send a file, with `text`; its attachment, once it is noted: from then on it goes out whatever happens, also
        if `start` was not called, when the process that is connected sends it. What is not finished of the same file
        is gone on with. A picture is sent without what else it tells, unless `original`. `progress` is told how many
        bytes of how many are read. Fails with a `FastChatError` that says why it cannot be sent; cancelled, it leaves
        nothing."""
        attaching = Deferred.fromCoroutine(
            self._attaching.attach(conversation, path, text, original, reply, progress or _nobody_watches)
        )
        return attaching.addCallback(self._flushed)

    def _flushed(self, attachment: str) -> str:
        self._connection.flush()
        return attachment

    def fetch(self, message_id: str, directory: Path) -> None:
        """Save a message's file in this folder, named by its whole path; `FileSaved` or `TransferFailed` tells what
        became of it. It is noted, and goes on at another start. Raises `RequestError` or `AttachmentTooLarge`."""
        self.core.fetch(message_id, directory)
        self._connection.flush()

    def transfers(self) -> list[Transfer]:
        """Files that are not where they are to be yet, in both directions."""
        return self.core.transfers()

    def cancel(self, attachment: str) -> None:
        """Neither send it nor fetch it any more; nothing of it is left."""
        self.core.cancel(attachment)
        self._connection.flush()

    def file(self, message_id: str) -> StoredFile | None:
        """The file of a message; None if it has none, or is gone."""
        return files.stored_file(self.vault, message_id)

    def files(self, conversation: str, limit: int) -> list[StoredFile]:
        """Those of a conversation, the newest first."""
        return files.files_of(self.vault, conversation, limit)

    def set_auto_download(self, size: int) -> None:
        """Up to how many bytes a file is fetched unasked; 0: none is."""
        settings.set_auto_download(self.vault, size)

    def react(self, message_id: str, emoji: str, remove: bool = False) -> str:
        """Put a sign on a message, or take it back; the id of what goes out. Raises `RequestError`, as do the others
        here."""
        return self._compose(lambda vault, at: speaking.compose_reaction(vault, message_id, emoji, remove, at))

    def edit(self, message_id: str, text: str) -> str:
        return self._compose(lambda vault, at: speaking.compose_edit(vault, message_id, text, at))

    def delete(self, message_id: str) -> str:
        """For everyone."""
        return self._compose(lambda vault, at: speaking.compose_delete(vault, message_id, at))

    def set_timer(self, conversation: str, seconds: int) -> str:
        """From here on messages of the conversation go so many seconds after their reading; 0: they stay."""
        return self._compose(lambda vault, at: speaking.compose_timer(vault, conversation, seconds, at))

    def _compose(self, composed: Callable[[Vault, int], str]) -> str:
        message_id = self.core.compose(composed)
        self._connection.flush()
        return message_id

    def mute(self, conversation: str, on: bool) -> None:
        """Show what comes in it without a sign."""
        settings.mute(self.vault, conversation, on)

    def block(self, user: str, on: bool) -> None:
        """Show nothing of what `user` says from here on. Raises `RequestError` for oneself."""
        settings.block(self.vault, user, on)

    def typing(self, conversation: str) -> None:
        """The person is writing there at this moment; may be called at every key."""
        self.core.typing(conversation)
        self._connection.flush()

    def set_presence(self, on: bool) -> None:
        """Whether others are told that this person is there, and this person that others are."""
        self.core.set_presence(on)
        self._connection.flush()

    def mark_read(self, conversation: str, upto: str = "") -> None:
        """A person has seen everything in it, or what came no later than the message `upto`."""
        self.core.mark_read(conversation, upto)
        self._connection.flush()

    def group_create(self, name: str, topic: str = "") -> tuple[int, str]:
        """Note a new group; the act's number, and the group's conversation, which can be written to at once."""
        created = self.core.group_create(name, topic)
        self._connection.flush()
        return created

    def group_act(self, conversation: str, act: Act) -> int:
        """Note what is to be done to a group; the number that `ActDone` or `ActFailed` will name."""
        number = self.core.group_act(conversation, act)
        self._connection.flush()
        return number

    def accept_root(self, user: str) -> None:
        """Believe the account's changed RSA key."""
        self.core.accept_root(user)
        self._connection.flush()

    def revoke_device(self, root: RootKey, device: str) -> None:
        """Take another device out of this account; a `Revocation` event says what became of it."""
        self.core.revoke_device(root, device)
        self._connection.flush()

    def reconnect(self) -> None:
        """Try the network now, if it is not connected."""
        self._connection.hurry()

    def _tell(self, events: list[Event]) -> None:
        for event in events:
            # A peer's word must not take the place of a proof.
            if isinstance(event, LogAlarm) and (event.proof or not self.vault.alarm()):
                write_whole(Path(self.alarm_file), f"{event.reason}\n\n{event.evidence}\n".encode())
            elif isinstance(event, GroupAlarm):
                said = f"{event.conversation} {event.code}: {event.reason}\n\n{event.evidence}\n"
                write_whole(Path(self.group_alarm_file), said.encode())
        self._on_events(events)


def _nobody_watches(done: int, size: int) -> None:
    """Of a file that is read."""


def unlock(profile: Profile, password: str) -> Vault:
    """The profile's vault. Raises `LoginFailed` if the password is wrong; nothing is changed then."""
    opened = local_secrets(password, profile.facts.salt, profile.facts.cost)
    return Vault.open(profile.vault_path, opened.vault_key)


def new_facts(user: str, invite: Invite, cost: Cost = RECOMMENDED) -> Facts:
    """What a new profile.json holds. Raises `NameNotAllowed`."""
    return Facts(
        user=check_name(user),
        host=invite.host,
        port=invite.port,
        pin=invite.pin,
        log_key=invite.log_key,
        salt=secrets.token_bytes(SALT_SIZE),
        cost=cost,
    )


def prepare(
    profile: Profile,
    password: str,
    invite: Invite,
    own_root: RootKey | None,
    make_root: Callable[[], RootKey] = RootKey.generate,
) -> tuple[Vault, Enrolment | None]:
    """Make the profile's keys and its vault, or go on with one that was half made; the next connection registers it.
    `own_root`: the key of an account that there is, which this becomes a further device of. Blocks for a second or
    two. Raises `LoginFailed` if a half-made profile has another password."""
    facts = profile.facts
    opened = local_secrets(password, facts.salt, facts.cost)
    if profile.vault_path.exists():
        vault = Vault.open(profile.vault_path, opened.vault_key)
    else:
        vault = Vault.create(profile.vault_path, opened.vault_key)
    try:
        login = login_password(password, facts.log_key, facts.user)
        now = round(time.time() * 1000)
        if not vault.whoami().user:
            root = own_root or make_root()
            profile.write_identity(root.to_pem(opened.pem_passphrase))
            if own_root is None:
                prepare_registration(vault, facts.user, root, facts.log_key, invite.token, login, now)
            else:
                prepare_enrolment(vault, facts.user, root, facts.log_key, now)
        elif (Stage(vault.text("registration")) is Stage.ENROLLING) != (own_root is not None):
            how = "without" if own_root else "with"
            raise ConfigError(
                f"the half-made profile in {profile.directory} was begun {how} --identity; go on like that"
            )
        elif own_root is None:
            change_invite(vault, invite.token)
        if own_root is None:
            return vault, None
        return vault, Enrolment(own_root, login)
    except BaseException:
        vault.close()
        raise


def load_identity(path: Path, password: str) -> RootKey:
    """The RSA key of another device's identity.pem; its profile.json, if that is beside it, tells how the password
    opens it. Raises `ConfigError`."""
    pem = read_file(path)
    passphrases: list[bytes | None] = [None, password.encode()]
    if (path.parent / "profile.json").exists():
        facts = Profile.load(path.parent).facts
        passphrases.insert(0, local_secrets(password, facts.salt, facts.cost).pem_passphrase)
    for passphrase in passphrases:
        try:
            return RootKey.load(pem, passphrase)
        except ConfigError as error:
            problem = error
    if len(passphrases) == 2:
        raise ConfigError(f"{path} does not open; copy the profile.json that belongs to it beside it, and try again")
    raise problem
