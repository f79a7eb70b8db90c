"""A tiny network in memory for tests of the client's core: honest unless a test tells it what to lie about.

It keeps accounts, prekeys, mailboxes and a real key log with real signatures, and speaks the wire's own bytes. It
delivers through mailboxes only. It is not the server: limits, placement and the like are not here, and where the
server checks what a client sends, this one mostly does not.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from msgspec import Raw
from scramp import ScramMechanism  # type: ignore[import-untyped]

from fastchat.errors import ChainInvalid, FastChatError, InviteInvalid, LoginFailed, NameTaken, UnknownDevice
from fastchat.identity import login
from fastchat.identity.keylog import LEAF_SIZE, Frontier, leaf, sign_checkpoint
from fastchat.identity.links import replay
from fastchat.identity.login import ChannelBinding
from fastchat.identity.prekeys import verify_all
from fastchat.identity.scram import CHANNEL_BINDING, MECHANISM
from fastchat.protocols import wire
from fastchat.protocols.wire import ServerMessage, Signed
from tests.support import network_files, network_groups, network_uploads

INVITE = "let-me-in"
LIMITS = wire.SessionLimits(
    max_line=wire.MAX_LINE,
    unaccepted=64,
    sends_per_second=1000.0,
    window_messages=64,
    window_bytes=2**20,
    ping_every=30.0,
    dead_after=75.0,
    chunks=8,
    largest_attachment=100 * 2**20,
)
LEAVES_AT_ONCE = 10


@dataclass
class Device:
    """What the network keeps of a device."""

    user: str
    one_time: deque[Signed] = field(default_factory=deque)
    fallback: Signed | None = None
    seal: Signed | None = None
    mailbox: list[Mail] = field(default_factory=list)


@dataclass(frozen=True)
class Mail:
    user: str
    device: str
    n: int
    at: int
    body: bytes


@dataclass
class Account:
    verifier: wire.ScramVerifier
    links: list[Signed]


class Network:
    """Every connection of it is a `Line`. What a test may change is public.

    refuse: asked before each `send`; an exception is the answer. mangle: asked for each message to a client, with the
    client's device; what it returns is sent instead. withhold: devices whose mail stays in the mailbox."""

    def __init__(self, seconds: Callable[[], float]) -> None:
        self.seconds = seconds
        self.log_key = Ed25519PrivateKey.generate()
        self.accounts: dict[str, Account] = {}
        self.devices: dict[str, Device] = {}
        self.leaves: list[bytes] = []
        self.lines: dict[str, Line] = {}
        self.sends: list[tuple[str, wire.Send]] = []
        self.requests: list[tuple[str, wire.ClientMessage]] = []
        self.limits = LIMITS
        self.refuse: Callable[[str, wire.Send], FastChatError | None] = lambda device, send: None
        self.mangle: Callable[[str, ServerMessage], list[ServerMessage]] = lambda device, message: [message]
        self.withhold: set[str] = set()
        self.groups = network_groups.Groups()
        self.files = network_files.Files()
        self.uploads = network_uploads.Uploads()

    @property
    def log_public(self) -> bytes:
        return self.log_key.public_key().public_bytes_raw()

    def connect(self, exporter: bytes) -> Line:
        return Line(self, ChannelBinding(exporter, b"end-point"))

    def checkpoint(self, size: int | None = None) -> wire.Checkpoint:
        frontier = Frontier()
        for one in self.leaves[: len(self.leaves) if size is None else size]:
            frontier.append(one)
        return sign_checkpoint(self.log_key, frontier.size, frontier.root())

    def log_links(self, user: str, links: list[Signed], start: int = 0) -> None:
        """Every link gets its leaf."""
        self.leaves += [leaf(user, start + i, link) for i, link in enumerate(links)]

    def keep_keys(self, device: str, keys: wire.DeviceKeys) -> int:
        kept = self.devices[device]
        kept.one_time.extend(keys.one_time)
        kept.fallback = keys.fallback or kept.fallback
        kept.seal = keys.seal or kept.seal
        return len(kept.one_time)

    def post_from(self, to: str, user: str, device: str, n: int, at: int, body: bytes) -> None:
        self.post(to, Mail(user, device, n, at, body))

    def post(self, device: str, mail: Mail) -> None:
        self.devices[device].mailbox.append(mail)
        if device in self.lines:
            self.lines[device].deliver()


class Line:
    """One connection to the network. `say` takes a line's bytes; answers gather in `heard` as such."""

    def __init__(self, network: Network, binding: ChannelBinding) -> None:
        self.network = network
        self.binding = binding
        self.heard: deque[bytes | wire.WithBytes] = deque()
        self.is_open = True
        self.device = ""
        self._challenge = b"c" * 32
        self._scram: Any = None
        self._user = ""
        self._k = 0
        self._window: deque[tuple[int, Mail]] = deque()

    @property
    def user(self) -> str:
        return self._user

    def say(self, line: bytes, data: bytes = b"") -> None:
        """`data`: the raw bytes that follow the line of a chunk."""
        message = wire.decode_client_message(line)
        self.network.requests.append((self.device, message))
        try:
            if isinstance(message, wire.Chunk):
                network_uploads.chunk(self, message, data)
            else:
                self._ACTIONS[type(message)](self, message)
        except FastChatError as error:
            self.tell(wire.error_from(error, message.id))

    def tell(self, message: ServerMessage | wire.WithBytes) -> None:
        if self.is_open and isinstance(message, wire.WithBytes):
            self.heard.append(message)
        elif self.is_open:
            self.heard.extend(map(wire.encode, self.network.mangle(self.device, message)))

    def close(self) -> None:
        self.is_open = False
        if self.network.lines.get(self.device) is self:
            del self.network.lines[self.device]

    def deliver(self) -> None:
        """Hand over what the mailbox has, as far as the window goes."""
        if self.device in self.network.withhold:
            return
        on_their_way = {id(mail) for _, mail in self._window}
        for mail in self.network.devices[self.device].mailbox:
            if id(mail) not in on_their_way and len(self._window) < self.network.limits.window_messages:
                self._k += 1
                self._window.append((self._k, mail))
                self.tell(wire.Message(self._k, mail.user, mail.device, mail.n, mail.at, Raw(mail.body)))

    # --- what a client may say ---------------------------------------------------------------------------------------

    def _hello(self, hello: wire.Hello) -> None:
        self.tell(wire.Welcome(hello.id, wire.VERSION, "chat-1", self._challenge, self.network.limits))

    def _register(self, request: wire.Register) -> None:
        if request.user in self.network.accounts:
            raise NameTaken
        if request.invite != INVITE:
            raise InviteInvalid
        chain = replay(request.user, request.links)
        (identity,) = chain.devices.values()
        verify_all(identity, request.keys)
        assert len(wire.encode(request)) <= wire.MAX_LINE_BEFORE_LOGIN
        self.network.accounts[request.user] = Account(request.verifier, list(request.links))
        self.network.devices[identity.device] = Device(request.user)
        self.network.keep_keys(identity.device, request.keys)
        self.network.log_links(request.user, list(request.links))
        self.tell(wire.Registered(request.id))

    def _prove(self, request: wire.ScramRequest) -> None:
        if self._scram is None:
            self._scram = ScramMechanism(MECHANISM).make_server(
                self._verifier, channel_binding=(CHANNEL_BINDING, self.binding.end_point)
            )
            self._scram.set_client_first(request.message)
            self.tell(wire.ScramAnswer(request.id, self._scram.get_server_first()))
            return
        try:
            self._scram.set_client_final(request.message)
        except Exception:
            raise LoginFailed from None
        links = tuple(self.network.accounts[self._user].links)
        self.tell(wire.ScramAnswer(request.id, self._scram.get_server_final(), links))

    def _verifier(self, user: str) -> tuple[bytes, bytes, bytes, int]:
        self._user = user
        found = self.network.accounts[user].verifier
        return found.salt, found.stored_key, found.server_key, found.iterations

    def _add_device(self, request: wire.AddDevice) -> None:
        account = self.network.accounts[self._user]
        if request.position != len(account.links):
            raise ChainInvalid
        chain = replay(self._user, [*account.links, request.link])
        identity = list(chain.devices.values())[-1]
        verify_all(identity, request.keys)
        account.links.append(request.link)
        self.network.devices[identity.device] = Device(self._user)
        self.network.keep_keys(identity.device, request.keys)
        self.network.log_links(self._user, [request.link], request.position)
        self.tell(wire.Added(request.id))

    def _login(self, request: wire.Login) -> None:
        device = self.network.devices.get(request.device)
        if device is None or device.user != request.user:
            raise LoginFailed
        identity = replay(request.user, self.network.accounts[request.user].links).devices[request.device]
        statement = login.statement(self.binding.exporter, self._challenge, request.user, request.device)
        login.verify(identity.ed25519, statement, request.signature)
        self.device, self._user = request.device, request.user
        self.network.lines[self.device] = self
        left = len(device.one_time)
        self.tell(wire.Ready(request.id, len(device.mailbox), left, self.network.checkpoint()))
        self.deliver()

    def _keys(self, request: wire.KeysRequest) -> None:
        found = []
        for user in request.users:
            account = self.network.accounts.get(user)
            if account is None:
                continue
            bundles = []
            for device in replay(user, account.links).devices:
                kept = self.network.devices[device]
                if kept.seal is not None and kept.fallback is not None:
                    one_time = kept.one_time.popleft() if request.claim and kept.one_time else None
                    bundles.append(wire.Bundle(device, kept.seal, kept.fallback, one_time))
            found.append(wire.AccountKeys(user, tuple(account.links), tuple(bundles)))
        self.tell(wire.KeysAnswer(request.id, tuple(found)))

    def _publish(self, request: wire.Publish) -> None:
        self.tell(wire.Published(request.id, self.network.keep_keys(self.device, request.keys)))

    def _send(self, send: wire.Send) -> None:
        refusal = self.network.refuse(self.device, send)
        if refusal is not None and not refusal.devices:
            raise refusal
        if any(recipient.device not in self.network.devices for recipient in send.to):
            raise UnknownDevice
        self.network.sends.append((self.device, send))
        at = int(self.network.seconds() * 1000)
        missing = () if refusal is None else refusal.devices
        for recipient in send.to:
            if recipient.device in missing:
                continue
            self.network.post(recipient.device, Mail(self._user, self.device, send.n, at, bytes(recipient.body)))
        if refusal is not None:
            raise refusal
        self.tell(wire.Accepted(send.id))

    def _received(self, received: wire.Received) -> None:
        mailbox = self.network.devices[self.device].mailbox
        while self._window and self._window[0][0] <= received.upto:
            _, mail = self._window.popleft()
            if mail in mailbox:
                mailbox.remove(mail)
        self.deliver()

    def _log(self, request: wire.LogRequest) -> None:
        leaves = self.network.leaves[request.start : request.start + LEAVES_AT_ONCE]
        checkpoint = self.network.checkpoint(request.start + len(leaves))
        assert all(len(one) == LEAF_SIZE for one in leaves)
        self.tell(wire.LogAnswer(request.id, request.start, b"".join(leaves), checkpoint))

    def _ping(self, ping: wire.Ping) -> None:
        self.tell(wire.Pong(ping.id))

    def _whisper(self, whisper: wire.Whisper) -> None:
        for recipient in whisper.to:
            if recipient.device in self.network.lines:
                self.network.lines[recipient.device].tell(wire.Whispered(self._user, self.device, recipient.body))

    _ACTIONS: dict[type, Callable[[Any, Any], None]] = {
        wire.Hello: _hello,
        wire.Register: _register,
        wire.ScramRequest: _prove,
        wire.AddDevice: _add_device,
        wire.Login: _login,
        wire.KeysRequest: _keys,
        wire.Publish: _publish,
        wire.Send: _send,
        wire.Received: _received,
        wire.LogRequest: _log,
        wire.Ping: _ping,
        wire.Whisper: _whisper,
        **network_groups.ACTIONS,
        **network_files.ACTIONS,
        **network_uploads.ACTIONS,
    }
