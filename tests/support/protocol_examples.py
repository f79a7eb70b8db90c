"""The examples of PROTOCOL.md: the real session machine and the client's own cryptography, talking to each other.

`python -m tests.support.protocol_examples` writes them into the document anew; tests check that what stands there is
still what is said. Keys and times are chosen so that a reader can follow: all of it happens at one moment.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from msgspec import Raw
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

import fastchat.protocols
from fastchat.accounts import Accounts
from fastchat.attachments import Attachments
from fastchat.bus.local import LocalBus
from fastchat.config import AttachmentLimits, Config, Limits
from fastchat.delivery import Counters, Delivery
from fastchat.directory import Directory
from fastchat.errors import LoginTimeout, ProtocolError
from fastchat.groups import Groups
from fastchat.identity import login, prekeys
from fastchat.identity.invite import Invite, invite_digest
from fastchat.identity.links import sign_add_device, sign_genesis, sign_revoke_device
from fastchat.identity.login import ChannelBinding
from fastchat.limits import Claims, LoginFailures
from fastchat.placement import Placement
from fastchat.protocols import wire
from fastchat.protocols.balancer import BalancerSession
from fastchat.protocols.session import Session
from fastchat.protocols.wire import DeviceKeys, Recipient, ServiceAddress, Signed
from fastchat.store.memory import MemoryStore
from fastchat_client import ratchet
from fastchat_client.content import Text, TreeHead, encode_content, write_plain
from fastchat_client.password import ScramLogin, login_password, scram_verifier
from fastchat_client.ratchet import DeviceAccount, SealPrivate
from tests.support import attachment_examples, group_examples
from tests.support.keys import root_key

DOCUMENT = Path(fastchat.protocols.__file__).with_name("PROTOCOL.md")
NOW = 1_800_000_000
TOKEN = "Ku0XxGgtzyHCAg6UbPAJ7w"  # noqa: S105
PASSWORD = "correct horse"  # noqa: S105
FOLD = 118

_BLOCK = re.compile(r"^```(?P<kind>wire|values) (?P<name>[a-z-]+)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE)
_RAW = "… %d bytes with the SHA-256 %s …"
_RAW_LINE = re.compile(re.escape(_RAW).replace("%d", r"(\d+)").replace("%s", "([0-9a-f]{64})"))


@dataclass(frozen=True)
class Line:
    """`who`: C, the client; S, the server; X, a client whose line is not understood. `raw`: how many raw bytes follow,
    and their SHA-256."""

    who: str
    data: bytes
    raw: tuple[int, str] | None = None


def spoken(who: str, message: Any) -> Line:
    """A line, with what follows it."""
    if isinstance(message, wire.WithBytes):
        raw = len(message.data), hashlib.sha256(message.data).hexdigest()
        return Line(who, wire.encode(message.message), raw)
    return Line(who, wire.encode(message))


@dataclass
class Examples:
    """By the name of the block in the document."""

    wire: dict[str, list[Line]]
    values: dict[str, dict[str, str]]


# --- the document ----------------------------------------------------------------------------------------------------


def read(document: str) -> Examples:
    """What stands in the document."""
    found = Examples({}, {})
    for block in _BLOCK.finditer(document):
        lines = unfolded(block["text"])
        if block["kind"] == "wire":
            found.wire[block["name"]] = _with_bytes(lines)
        else:
            found.values[block["name"]] = dict(line.split(" = ", 1) for line in lines)
    return found


def _with_bytes(lines: Sequence[str]) -> list[Line]:
    """Lines of the document, each with the bytes that the next one stands for."""
    found: list[Line] = []
    for line in lines:
        who, said = line[0], line[2:]
        raw = _RAW_LINE.fullmatch(said)
        if raw is None:
            found.append(Line(who, said.encode()))
        else:
            before = found.pop()
            if before.who != who or before.raw is not None:
                raise ValueError(f"raw bytes of nobody: {line}")
            found.append(Line(who, before.data, (int(raw[1]), raw[2])))
    return found


def written(document: str, examples: Examples) -> str:
    """The document with these examples in its blocks."""

    def block(match: re.Match[str]) -> str:
        if match["kind"] == "wire":
            lines = []
            for line in examples.wire[match["name"]]:
                lines.append(f"{line.who} {line.data.decode()}")
                if line.raw is not None:
                    lines.append(f"{line.who} {_RAW % line.raw}")
        else:
            lines = [f"{name} = {value}" for name, value in examples.values[match["name"]].items()]
        return f"```{match['kind']} {match['name']}\n" + "".join(folded(line) for line in lines) + "```"

    return _BLOCK.sub(block, document)


def folded(line: str) -> str:
    """In pieces that fit on a page; each further one is indented by two spaces. Never cut at a space."""
    pieces = []
    while len(line) > FOLD:
        cut = FOLD
        while " " in line[cut - 1 : cut + 1]:
            cut -= 1
        pieces.append(line[:cut])
        line = "  " + line[cut:]
    return "\n".join([*pieces, line]) + "\n"


def unfolded(text: str) -> list[str]:
    lines: list[str] = []
    for line in text.splitlines():
        if line.startswith("  "):
            lines[-1] += line[2:]
        else:
            lines.append(line)
    return lines


# --- the server's side -----------------------------------------------------------------------------------------------


class Place:
    """A chat service (`fastchat.protocols.session.Service`) without a port."""

    name = "chat-1"

    def __init__(self, log_key: Ed25519PrivateKey, pin: bytes, **limits: Any) -> None:
        self.limits = Limits(**limits)
        self.store = MemoryStore(Config(home=Path("unused"), limits=self.limits))
        self.reactor: Any = Clock()
        self.accounts = Accounts(self.store, log_key)
        self.directory = Directory(self.store, log_key)
        bus = LocalBus()
        self.delivery = Delivery(self.store, bus, self.reactor, self.limits, lambda: NOW)
        self.groups = Groups(self.store, bus, self.limits, self.reactor.seconds)
        self.attachments = Attachments(self.store, AttachmentLimits(), self.reactor, lambda: NOW)
        self.failures = LoginFailures(self.reactor.seconds)
        self.claims = Claims(self.reactor.seconds)
        self.counters = Counters()
        self.pin = pin
        done(self.store.add_invite(invite_digest(TOKEN), None, None))

    def greeted(self, session: Session, lease: str) -> None: ...

    def ended(self, session: Session) -> None: ...


class Connection:
    """One client's connection to a service, and what was said on it."""

    MAX_LENGTH = wire.MAX_LINE
    is_writable = True
    is_known = False
    takes_bytes = False

    def __init__(self, place: Place) -> None:
        self.lines: list[Line] = []
        self.binding = ChannelBinding(os.urandom(32), place.pin)
        self.session = Session(place, self, "192.0.2.7", lambda: self.binding, os.urandom(32))
        self._id = 0

    def next_id(self) -> int:
        self._id += 1
        return self._id

    def say(self, message: wire.ClientMessage) -> Any:
        """Returns what is answered at once, if anything is."""
        return self.say_line(wire.encode(message))

    def say_with_bytes(self, message: wire.WithBytes) -> None:
        assert self.takes_bytes
        self.lines.append(spoken("C", message))
        self.session.received(message)

    def say_line(self, line: bytes) -> Any:
        try:
            message = wire.decode_client_message(line)
        except ProtocolError as error:
            self.lines.append(Line("X", line))
            self.session.bad_frame(error)
        else:
            self.lines.append(Line("C", line))
            self.session.received(message)
        last = self.lines[-1]
        return wire.decode_server_message(last.data) if last.who == "S" else None

    def hello(self, lease: str = "") -> wire.Welcome:
        answer = self.say(wire.Hello(self.next_id(), wire.VERSION, lease))
        assert isinstance(answer, wire.Welcome)
        return answer

    # --- fastchat.protocols.line.Pipe

    def send(self, message: wire.ServerMessage | wire.WithBytes) -> None:
        self.lines.append(spoken("S", message))

    def send_line(self, line: bytes) -> None:
        self.lines.append(Line("S", line))

    def close(self, grace: float = 0.0) -> None: ...

    def abort(self) -> None: ...


def done(coroutine: Any) -> Any:
    """The result of a coroutine that waits for nothing."""
    results: list[Any] = []
    Deferred.fromCoroutine(coroutine).addCallback(results.append)
    [result] = results
    return result


# --- the client's side -----------------------------------------------------------------------------------------------


class Device:
    """One device of somebody, with the keys that it publishes first."""

    def __init__(self, user: str) -> None:
        self.account = DeviceAccount.create()
        self.identity = self.account.identity(user)
        self.seal = SealPrivate.generate(1, NOW * 1000)

    def keys(self, one_time: int = 1) -> DeviceKeys:
        found = DeviceKeys(
            one_time=self.account.new_one_time_keys(self.identity, one_time),
            fallback=self.account.new_fallback(self.identity),
            seal=self.seal.statement(self.account, self.identity),
        )
        self.account.mark_published()
        return found

    def more_keys(self) -> DeviceKeys:
        return DeviceKeys(one_time=self.account.new_one_time_keys(self.identity, 2))

    def log_in(self, connection: Connection, welcome: wire.Welcome) -> wire.Ready:
        who = self.identity
        statement = login.statement(connection.binding.exporter, welcome.challenge, who.user, who.device)
        signature = self.account.sign(statement)
        answer = connection.say(wire.Login(connection.next_id(), who.user, who.device, signature))
        assert isinstance(answer, wire.Ready), answer
        return answer


class Person:
    def __init__(self, user: str, number: int, log_public: bytes) -> None:
        self.user = user
        self.root = root_key(number)
        self.login_password = login_password(PASSWORD, log_public, user)
        self.device = Device(user)
        self.links: tuple[Signed, ...] = (sign_genesis(self.root, user),)
        self.links += (self.link(self.device),)

    def link(self, device: Device) -> Signed:
        who = device.identity
        return sign_add_device(self.root, self.links, self.user, who.ed25519, who.curve25519, NOW * 1000)

    def registers(self, place: Place, lease: str = "") -> tuple[Connection, wire.Ready]:
        connection = Connection(place)
        welcome = connection.hello(lease)
        verifier = scram_verifier(self.login_password)
        i = connection.next_id()
        connection.say(wire.Register(i, self.user, TOKEN, verifier, self.links, self.device.keys()))
        return connection, self.device.log_in(connection, welcome)

    def adds(self, place: Place, device: Device) -> Connection:
        connection = Connection(place)
        welcome = connection.hello()
        scram = ScramLogin(self.user, self.login_password, connection.binding.end_point)
        first = connection.say(wire.ScramRequest(connection.next_id(), scram.first()))
        final = connection.say(wire.ScramRequest(connection.next_id(), scram.final(first.message)))
        scram.finish(final.message)
        i = connection.next_id()
        connection.say(wire.AddDevice(i, len(final.links), self.link(device), device.keys()))
        device.log_in(connection, welcome)
        return connection


# --- what is said ----------------------------------------------------------------------------------------------------


def converse() -> Examples:
    log_key = Ed25519PrivateKey.generate()
    log_public = log_key.public_key().public_bytes_raw()
    pin = hashlib.sha256(b"stands for the certificate's DER").digest()
    place = Place(log_key, pin)
    found = Examples({}, {})

    found.values["invite"] = {
        "link": str(Invite("chat.example.org", 7400, pin, log_public, TOKEN)),
        "pin": pin.hex(),
        "log-key": log_public.hex(),
    }
    lines, lease = _balancer()
    found.wire["balancer"] = lines

    alice = Person("alice", 0, log_public)
    online, _ = alice.registers(place, lease)
    online.say(wire.LogRequest(online.next_id(), 0))
    online.say(wire.LogRequest(online.next_id(), 2))
    online.say(wire.Publish(online.next_id(), alice.device.more_keys()))
    online.say(wire.Ping(online.next_id()))
    found.wire["registration"] = list(online.lines)
    found.values["registration"] = {
        "password": PASSWORD,
        "login-password": alice.login_password,
        "genesis": alice.links[0].body.decode(),
        "add_device": alice.links[1].body.decode(),
        "exporter": online.binding.exporter.hex(),
    }

    second = Device("alice")
    added = alice.adds(place, second)
    found.wire["further-device"] = added.lines
    found.values["further-device"] = {"exporter": added.binding.exporter.hex()}
    bob = Person("bob", 1, log_public)
    member = _message(place, bob, online, alice, found)
    links = (*alice.links, alice.link(second))
    before, last = len(online.lines), len(added.lines)
    revocation = sign_revoke_device(alice.root, links, "alice", second.identity.device, NOW * 1000)
    online.say(wire.Revoke(online.next_id(), len(links), revocation))
    found.wire["revocation"] = online.lines[before:] + added.lines[last:]
    found.values["revocation"] = {"revoke_device": revocation.body.decode()}
    before, start = len(online.lines), len(member.lines)
    found.values["group"] = group_examples.converse(alice.device, online, bob.device, member, NOW * 1000)
    found.wire["group-founder"], found.wire["group-member"] = online.lines[before:], member.lines[start:]
    before, start = len(online.lines), len(member.lines)
    found.values["attachment"] = attachment_examples.converse(online, member)
    found.wire["attachment-sender"], found.wire["attachment-recipient"] = online.lines[before:], member.lines[start:]
    found.wire["refusals"] = _refusals(place, alice.device)
    return found


def _balancer() -> tuple[list[Line], str]:
    lines: list[Line] = []
    placement = Placement("least-connections", lambda: 0.0, Random(3))
    for number in (1, 2):
        placement.report(ServiceAddress(f"chat-{number}", "chat.example.org", 7400 + number), 0)
    session = BalancerSession(placement, lambda message: lines.append(Line("S", wire.encode(message))))
    request = wire.Assign(1)
    lines.append(Line("C", wire.encode(request)))
    session.received(request)
    return lines, wire.decode_server_message(lines[-1].data).lease


def _message(place: Place, bob: Person, online: Connection, alice: Person, found: Examples) -> Connection:
    """From alice's first device to bob's only one; the copy for alice's other device is left out. Answers with bob's
    connection."""
    receiving, ready = bob.registers(place)
    before = len(online.lines)
    answer = online.say(wire.KeysRequest(online.next_id(), ("bob",), claim=True))
    [bundle] = answer.accounts[0].bundles
    me, peer = alice.device.identity, bob.device.identity
    session = ratchet.open_outbound(alice.device.account, peer, bundle)
    head = TreeHead(ready.checkpoint.size, ready.checkpoint.root)
    plain = write_plain(me, peer, "bob", 1, head, NOW * 1000, encode_content(Text("hello, bob")))
    body = ratchet.seal(session, me, peer, prekeys.verify_seal(peer, bundle.seal), plain)
    start = len(receiving.lines)
    online.say(wire.Send(online.next_id(), 1, (Recipient(peer.device, ratchet.body_to_wire(body)),)))
    receiving.say(wire.Received(1))
    found.wire["sending"] = online.lines[before:]
    found.wire["receiving"] = receiving.lines[start:]
    opened = ratchet.open_envelope({1: bob.device.seal}, peer, body)
    seal_private = bob.device.seal.to_bytes()[12:]
    olm_type, ciphertext = opened.olm.to_parts()
    found.values["sending"] = {
        "plaintext": plain.decode(),
        "seal-mlkem768-seed": seal_private[:64].hex(),
        "seal-x25519-private": seal_private[64:].hex(),
        "inner": (bytes((1, olm_type)) + opened.curve25519 + ciphertext).hex(),
    }
    return receiving


def _refusals(place: Place, device: Device) -> list[Line]:
    early = Connection(place)
    early.say(wire.Ping(1))
    old = Connection(place)
    old.say(wire.Hello(1, 2))
    wrong = Connection(place)
    wrong.hello()
    wrong.say(wire.Login(2, "alice", device.identity.device, bytes(64)))
    late = Connection(place)
    late.session.end(LoginTimeout("no login within 10 seconds"))
    lines = early.lines + old.lines + wrong.lines[2:] + late.lines

    usual = Connection(place)
    device.log_in(usual, usual.hello())
    start = len(usual.lines)
    usual.say_line(b'{"t":"sing","id":3}')
    usual.say(_send(4, 3, "0" * 32))
    place.store.available = False
    usual.say(_send(5, 4, device.identity.device[::-1]))
    place.store.available = True
    again = Connection(place)
    device.log_in(again, again.hello())
    moment = len(again.lines)
    again.session.leave(0.0, "this service stops")
    return lines + usual.lines[start:] + again.lines[moment:]


def _send(i: int, n: int, device: str) -> wire.Send:
    return wire.Send(i, n, (Recipient(device, Raw(b'"AQID"')),))


def shape(value: Any) -> Any:
    """What a decoded line is made of, without what differs from one run to the next."""
    if isinstance(value, Mapping):
        return {key: one if key in ("t", "code") else shape(one) for key, one in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [shape(one) for one in value]
    return type(value).__name__


if __name__ == "__main__":
    text = DOCUMENT.read_text(encoding="utf-8")
    DOCUMENT.write_text(written(text, converse()), encoding="utf-8")
