"""The login machine: from a fresh connection to `ready`.

    HELLO ─▶ REGISTERING ──────────────────────────▶ LOGGING_IN ─▶ IN
         ├─▶ LOGGING_IN                                  ▲
         └─▶ PROVING ─▶ PROVING_2 ─▶ ADDING ─────────────┘

Which way it goes is in the vault (`Stage`): a join that died in the middle goes on where it was. It says what is to be
said, and ends in a `FastChatError` when the network refuses; what happens after `ready` it does not know.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, StrEnum

import msgspec

from fastchat.errors import (
    Busy,
    ChainInvalid,
    DeviceRevoked,
    DeviceTaken,
    FastChatError,
    LoginFailed,
    NameTaken,
    OutOfTurn,
    TrustError,
)
from fastchat.identity.links import replay, sign_add_device
from fastchat.identity.login import ChannelBinding, statement
from fastchat.identity.root import RootKey
from fastchat.protocols.wire import (
    VERSION,
    AccountKeys,
    AddDevice,
    Added,
    ClientMessage,
    DeviceKeys,
    Error,
    Hello,
    Login,
    Ready,
    Register,
    Registered,
    ScramAnswer,
    ScramRequest,
    ScramVerifier,
    ServerMessage,
    Signed,
    Welcome,
    exception_from,
)
from fastchat_client.password import ScramLogin
from fastchat_client.trust import Accounts
from fastchat_client.vault import Vault


class Stage(StrEnum):
    """How far this device's registration has come; `registration` in the vault."""

    PENDING = "pending"
    """The account is to be registered."""
    ASKED = "asked"
    """The request may have reached the network; whether it succeeded is not known."""
    UNSURE = "unsure"
    """It was asked for before, and now the name is taken: perhaps by this very device. A login will tell."""
    ENROLLING = "enrolling"
    """This device is to be added to an account that there is."""
    DONE = "done"


class Registration(msgspec.Struct, frozen=True):
    """What a registration consists of, kept byte for byte until it has succeeded."""

    invite: str
    verifier: ScramVerifier
    links: tuple[Signed, Signed]
    keys: DeviceKeys


@dataclass(frozen=True, slots=True)
class Enrolment:
    """What it takes to add this device to one's account; lives in memory only."""

    root: RootKey
    login_password: str
    """As `password.login_password` makes it."""


class Step(Enum):
    HELLO = "hello"
    REGISTERING = "registering"
    PROVING = "proving"
    PROVING_2 = "proving-2"
    ADDING = "adding"
    LOGGING_IN = "logging-in"
    IN = "in"


class Entrance:
    """One connection's way in. `sign`: the device's raw Ed25519 signature. Writes need a transaction around them."""

    def __init__(
        self,
        vault: Vault,
        accounts: Accounts,
        sign: Callable[[bytes], bytes],
        say: Callable[[Callable[[int], ClientMessage]], int],
        binding: ChannelBinding,
        enrolment: Enrolment | None,
        now: int,
    ) -> None:
        self._vault = vault
        self._accounts = accounts
        self._sign = sign
        self._say = say
        self._binding = binding
        self._enrolment = enrolment
        self._now = now
        self._scram: ScramLogin | None = None
        self._waits_for = 0
        self._added: tuple[Signed, ...] = ()
        self._was_asked = False
        """Whether an earlier connection has said `register` already."""
        self.step = Step.HELLO
        self.welcome: Welcome | None = None

    @property
    def stage(self) -> Stage:
        return Stage(self._vault.text("registration"))

    def begin(self, lease: str) -> None:
        self._waits_for = self._say(lambda i: Hello(i, VERSION, lease))

    def receive(self, message: ServerMessage) -> Ready | None:
        """The network's next word; `Ready` when it is the one that lets us in. Raises a `FastChatError` when this
        connection leads nowhere."""
        if isinstance(message, Error):
            raise self._refusal(message)
        if getattr(message, "re", None) != self._waits_for:
            raise OutOfTurn("the network answers what was not asked")
        match self.step, message:
            case Step.HELLO, Welcome():
                self._welcomed(message)
            case Step.REGISTERING, Registered():
                self._login()
            case Step.PROVING, ScramAnswer() if self._scram is not None:
                final = self._scram.final(message.message)
                self._go(Step.PROVING_2, lambda i: ScramRequest(i, final))
            case Step.PROVING_2, ScramAnswer() if self._scram is not None:
                self._scram.finish(message.message)
                self._add_device(message.links)
            case Step.ADDING, Added():
                self._accounts.learn(AccountKeys(self._user, self._added, ()), self._now)
                self._accounts.mark_user_stale(self._user)
                self._login()
            case Step.LOGGING_IN, Ready():
                if self.stage is not Stage.DONE:
                    self._vault.put("registration", Stage.DONE)
                    self._vault.put("registration_request", None)
                self.step = Step.IN
                return message
            case _:
                raise OutOfTurn("the network's answer is of another kind than the question")
        return None

    # --- the steps ---------------------------------------------------------------------------------------------------

    @property
    def _user(self) -> str:
        return self._vault.text("user")

    def _go(self, step: Step, message: Callable[[int], ClientMessage]) -> None:
        self.step = step
        self._waits_for = self._say(message)

    def _welcomed(self, welcome: Welcome) -> None:
        self.welcome = welcome
        match self.stage:
            case Stage.PENDING | Stage.ASKED:
                self._register()
            case Stage.ENROLLING:
                self._prove()
            case Stage.UNSURE | Stage.DONE:
                self._login()

    def _register(self) -> None:
        request = msgspec.json.decode(self._vault.blob("registration_request"), type=Registration)
        self._was_asked = self.stage is Stage.ASKED
        self._vault.put("registration", Stage.ASKED)
        self._go(
            Step.REGISTERING,
            lambda i: Register(i, self._user, request.invite, request.verifier, request.links, request.keys),
        )

    def _prove(self) -> None:
        if self._enrolment is None:
            raise TrustError("this device does not belong to the account yet: join again, with the account's key")
        self._scram = ScramLogin(self._user, self._enrolment.login_password, self._binding.end_point)
        first = self._scram.first()
        self._go(Step.PROVING, lambda i: ScramRequest(i, first))

    def _add_device(self, links: tuple[Signed, ...]) -> None:
        enrolment = self._enrolment
        assert enrolment is not None
        chain = replay(self._user, links)
        if chain.root_pem != enrolment.root.public_pem:
            raise TrustError("the account on this network belongs to another RSA key than yours")
        if self._vault.text("device") in chain.devices:
            # It was added by an attempt that died: after a password, only add_device may follow, so come again.
            self._accounts.learn(AccountKeys(self._user, links, ()), self._now)
            self._vault.put("registration", Stage.DONE)
            raise Busy("this device was added already; logging in", retry_after=0.0)
        link = sign_add_device(
            enrolment.root,
            links,
            self._user,
            self._vault.blob("ed25519"),
            self._vault.blob("curve25519"),
            self._now,
        )
        keys = msgspec.json.decode(self._vault.blob("registration_request"), type=DeviceKeys)
        self._added = (*links, link)
        self._go(Step.ADDING, lambda i: AddDevice(i, chain.length, link, keys))

    def _login(self) -> None:
        assert self.welcome is not None
        device = self._vault.text("device")
        signature = self._sign(statement(self._binding.exporter, self.welcome.challenge, self._user, device))
        self._go(Step.LOGGING_IN, lambda i: Login(i, self._user, device, signature))

    # --- refusals ----------------------------------------------------------------------------------------------------

    def _refusal(self, message: Error) -> FastChatError:
        error = exception_from(message)
        if self.step is Step.REGISTERING and isinstance(error, NameTaken | DeviceTaken) and self._was_asked:
            self._vault.put("registration", Stage.UNSURE)
            return Busy("the name is registered already; perhaps to this device", retry_after=0.0)
        if self.step is Step.REGISTERING and not isinstance(error, Busy) and not self._was_asked:
            self._vault.put("registration", Stage.PENDING)
        if self.step is Step.LOGGING_IN and self.stage is Stage.UNSURE and isinstance(error, LoginFailed):
            self._vault.put("registration", Stage.PENDING)
            return NameTaken()
        if self.step is Step.LOGGING_IN and self.stage is Stage.DONE and isinstance(error, LoginFailed):
            account = self._accounts.get(self._user)
            if account is not None and self._vault.text("device") in account.revoked:
                return DeviceRevoked()
            return LoginFailed(
                "the network does not let this device in. If another device of yours has revoked it, that is for good"
            )
        if self.step is Step.ADDING and isinstance(error, ChainInvalid):
            return Busy("another device was added at the same time", retry_after=0.0)
        return error
