"""Target `parsers`: whatever reads what others have written, on bytes that are nearly right.

Nothing but the errors of the promised kind comes out; and what is accepted is what was really signed, sealed or
written, unchanged: nobody here has a key with which to make another.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import strategies as st
from msgspec import Raw

from fastchat.config import example, load
from fastchat.errors import (
    ChainInvalid,
    ConfigError,
    InviteInvalid,
    LogInconsistent,
    LoginFailed,
    ProtocolError,
    SignatureInvalid,
    TrustError,
)
from fastchat.identity import prekeys
from fastchat.identity.invite import Invite
from fastchat.identity.keylog import Frontier, sign_checkpoint, verify_checkpoint
from fastchat.identity.links import replay
from fastchat.identity.names import is_name
from fastchat.protocols import wire
from fastchat.protocols.wire import Signed
from fastchat_client import ratchet
from fastchat_client.content import (
    Delivered,
    Plain,
    Read,
    Resent,
    Retry,
    Text,
    TreeHead,
    decode_content,
    encode_content,
    read_plain,
    write_plain,
)
from fastchat_client.password import ScramLogin
from fastchat_client.unreadable import Unreadable
from tests.fuzz.mangling import Edit, edited, edits, said, traps
from tests.fuzz.messages import Values
from tests.fuzz.profiles import folder
from tests.fuzz.watching import Target, clean_log
from tests.support.people import Person
from tests.support.ratchets import Device, sealed_for

Parse = Callable[[bytes], None]
CONTENTS = (
    Text("hello"),
    Delivered((1, 2**53 - 1)),
    Read((3,)),
    Retry(7, "bad-mac"),
    Resent(7, Raw(encode_content(Text("again")))),
    Resent(8, Raw(encode_content(Resent(7, Raw(b"{}"))))),
)


class Parsers:
    """For each name, real inputs, and what must be so of any other one."""

    def __init__(self) -> None:
        self.person = Person("alice")
        self.person.add_device("second")
        self.alice, self.bob = Device("alice"), Device("bob")
        self.bob.read(self.alice.write(self.bob, b"first"))
        self.log_key = Ed25519PrivateKey.from_private_bytes(b"l" * 32)
        self.frontier = Frontier()
        for number in range(5):
            self.frontier.append(bytes((number,)) * 72)
        self.checkpoint = sign_checkpoint(self.log_key, 5, self.frontier.root())
        self.keys = self.person.device.keys()
        self.head = TreeHead(5, self.frontier.root())
        self.plain = [
            write_plain(self.alice.me, self.bob.me, "bob", 4, self.head, 5, encode_content(one)) for one in CONTENTS
        ]
        self.invite = Invite("chat.example.org", 7400, bytes(32), bytes(32), "token")
        self.known: dict[str, tuple[list[bytes], Parse]] = {
            "client line": (said("C"), self.client_line),
            "server line": (said("S"), self.server_line),
            "links": ([msgspec.json.encode(tuple(self.person.links))], self.links),
            "keys": ([msgspec.json.encode(self.keys)], self.prekeys),
            "checkpoint": ([msgspec.json.encode(self.checkpoint)], self.log),
            "frontier": ([self.frontier.to_bytes()], self.stored_log),
            "invite": ([str(self.invite).encode(), b"fastchat://[::1]:1/" + b"A" * 43], self.link),
            "name": ([b"alice", b"a.b-c_d"], self.name),
            "body": ([self.alice.write(self.bob, plain) for plain in self.plain], self.body),
            "inner": ([bytes((1, 1)) + self.alice.me.curve25519 + b"\3" + bytes(60)], self.inner),
            "raw body": ([b'"AQID"'], self.raw_body),
            "plain": (self.plain, self.plaintext),
            "content": ([encode_content(one) for one in CONTENTS], self.content),
            "config": ([example().encode(), example().replace("\n#", "\n").encode()], self.config),
            "scram": ([b"r=%s,s=QSXCR+Q6sek8bf92,i=4096", b"v=" + b"A" * 43 + b"=", b"e=other-error"], self.scram),
        }

    # --- the wire

    def client_line(self, data: bytes) -> None:
        self._line(data, wire.decode_client_message)

    def server_line(self, data: bytes) -> None:
        self._line(data, wire.decode_server_message)

    @staticmethod
    def _line(data: bytes, decode: Callable[[bytes], Any]) -> None:
        try:
            message = decode(data)
        except ProtocolError:
            return
        again = wire.encode(message)
        assert decode(again) == message or b'"body":' in again
        assert wire.encode(decode(again)) == again
        if isinstance(message, wire.Error):
            assert wire.exception_from(message).message is not None

    # --- identity

    def links(self, data: bytes) -> None:
        links = self._decoded(data, tuple[Signed, ...])
        for user in ("alice", "mallory"):
            try:
                chain = replay(user, links or ())
            except (ChainInvalid, SignatureInvalid):
                continue
            assert user == "alice"
            assert links is not None
            assert [link.body for link in links] == [link.body for link in self.person.links[: chain.length]]

    def prekeys(self, data: bytes) -> None:
        keys = self._decoded(data, wire.DeviceKeys)
        if keys is None:
            return
        for signed in (*keys.one_time, keys.fallback, keys.seal):
            for verify in (prekeys.verify_one_time, prekeys.verify_fallback, prekeys.verify_seal):
                try:
                    if signed is not None:
                        verify(self.person.device.identity, signed)
                        real = {one.body for one in (*self.keys.one_time, self.keys.fallback, self.keys.seal) if one}
                        assert signed.body in real
                except SignatureInvalid:
                    continue

    def log(self, data: bytes) -> None:
        checkpoint = self._decoded(data, wire.Checkpoint)
        if checkpoint is None:
            return
        try:
            verify_checkpoint(self.log_key.public_key().public_bytes_raw(), checkpoint)
        except LogInconsistent:
            return
        assert (checkpoint.size, checkpoint.root) == (self.checkpoint.size, self.checkpoint.root)

    def stored_log(self, data: bytes) -> None:
        try:
            frontier = Frontier.from_bytes(data)
        except LogInconsistent:
            return
        assert frontier.to_bytes() == data
        frontier.append(bytes(72))
        assert len(frontier.root()) == 32

    def link(self, data: bytes) -> None:
        try:
            invite = Invite.parse(data.decode("utf-8", "surrogateescape"))
        except InviteInvalid:
            return
        assert Invite.parse(str(invite)) == invite

    def name(self, data: bytes) -> None:
        name = data.decode("utf-8", "surrogateescape")
        if is_name(name):
            assert 2 <= len(name) <= 32
            assert name.isascii()
            assert name == name.strip().lower()

    # --- what is inside a message

    def body(self, data: bytes) -> None:
        """Sealed bytes that were changed are not read; those that were not, are."""
        real = data in self.known["body"][0]
        session = self.bob.sessions[0].dump(b"k" * 32)
        try:
            opened = ratchet.open_envelope(self.bob.seals, self.bob.me, data)
            decrypted = ratchet.decrypt(self.bob.account, opened, self.bob.sessions)
        except Unreadable:
            assert not real
            return
        assert real
        assert decrypted.plaintext in self.plain
        # As if it had not been read, so that it can be once more.
        self.bob.sessions[0] = ratchet.OlmSession.load(session, b"k" * 32, self.alice.me.curve25519)

    def inner(self, data: bytes) -> None:
        """What anybody can seal for bob."""
        try:
            self.bob.read(sealed_for(self.bob, data))
        except Unreadable:
            return
        raise AssertionError("something was read that alice has not written")

    def raw_body(self, data: bytes) -> None:
        try:
            assert isinstance(ratchet.body_from_wire(Raw(data)), bytes)
        except Unreadable:
            return

    def plaintext(self, data: bytes) -> None:
        try:
            plain = read_plain(data, self.alice.me, self.bob.me, self.alice.me.curve25519)
        except Unreadable:
            return
        assert isinstance(plain, Plain)
        assert (plain.sender.user, plain.recipient.device) == ("alice", self.bob.me.device)
        self.content(bytes(plain.content))

    def content(self, data: bytes) -> None:
        try:
            content = decode_content(data)
        except Unreadable:
            return
        if isinstance(content, Resent):
            try:
                assert not isinstance(decode_content(content.content), Resent)
            except Unreadable:
                return

    # --- settings and passwords

    def config(self, data: bytes) -> None:
        path = folder() / "fastchat.toml"
        path.write_bytes(data)
        try:
            config = load({"FASTCHAT_CONFIG": str(path), "FASTCHAT_HOME": str(folder())})
        except ConfigError as error:
            lines = error.message.splitlines()
        else:
            lines = [repr(config)]
            assert 0 <= config.port <= 65535
        assert len(lines) == 1, lines

    def scram(self, data: bytes) -> None:
        """What a server may answer to a password."""
        text = data.decode("utf-8", "surrogateescape")
        login = ScramLogin("alice", "x", b"e" * 32, "fyko+d2lbbFgONRv9qkxdawL")
        first = login.first()
        assert "alice" in first
        try:
            login.final(text.replace("%s", "fyko+d2lbbFgONRv9qkxdawL" + "server"))
            login.finish(text)
        except (TrustError, LoginFailed):
            return
        raise AssertionError("a server that knows nothing is believed")

    @staticmethod
    def _decoded(data: bytes, kind: Any) -> Any:
        try:
            return msgspec.json.decode(data, type=kind)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None


@cache
def _parsers() -> Parsers:
    return Parsers()


def check(given: tuple[str, int, list[Edit], bytes | None]) -> None:
    name, number, changes, instead = given
    known, parse = _parsers().known[name]
    with clean_log():
        parse(edited(known[number % len(known)], changes) if instead is None else instead)


@cache
def _inputs() -> st.SearchStrategy[tuple[str, int, list[Edit], bytes | None]]:
    structs = Values().message(wire.ClientMessage) | Values().message(wire.ServerMessage)
    instead = st.none() | st.none() | st.none() | traps | st.binary(max_size=300) | structs.map(wire.encode)
    return st.tuples(st.sampled_from(sorted(_parsers().known)), st.integers(0, 99), edits, instead)


TARGETS = (Target("parsers", _inputs, check, 250),)
