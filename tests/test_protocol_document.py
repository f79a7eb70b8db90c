"""PROTOCOL.md against the code: nothing is missing in it, nothing in it is made up, and its examples are true."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import typing
from typing import Any

import msgspec
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from msgspec import inspect
from twisted.trial.unittest import SynchronousTestCase

from fastchat import accounts, directory, errors, groups, store
from fastchat.config import AttachmentLimits, Limits
from fastchat.delivery import outgoing
from fastchat.errors import FastChatError, ProtocolError
from fastchat.identity import groups as group_chain
from fastchat.identity import links, login, prekeys
from fastchat.identity.invite import Invite
from fastchat.identity.keylog import Frontier, leaf, split, verify_checkpoint
from fastchat.protocols import group_messages, group_traffic, session, wire
from fastchat_client import content, group_content, ratchet
from fastchat_client.password import ScramLogin, login_password, scram_verifier
from fastchat_client.ratchet import SealPrivate
from fastchat_client.unreadable import Reason
from tests.support import protocol_examples
from tests.support.protocol_examples import DOCUMENT, Line

TEXT = DOCUMENT.read_text(encoding="utf-8")
EXAMPLES = protocol_examples.read(TEXT)
CLIENT = typing.get_args(wire.ClientMessage)
SERVER = typing.get_args(wire.ServerMessage)
DEVICE_ID = r"^[0-9a-f]{32}\Z"
IDS = {"group": "group id", "attachment": "attachment id"}
"""Fields whose values have the form of a device id."""
TOPS = {2**power - less: f"2^{power} − {less}" for power, less in ((53, 1), (32, 1), (31, 1), (31, 2))}
STATEMENTS = (
    *(links.Genesis, links.AddDevice, links.RevokeDevice, prekeys.OneTime, prekeys.Fallback, prekeys.Seal),
    *typing.get_args(group_chain.Statement),
    group_chain.SessionStatement,
)
CONTENTS = typing.get_args(content.Content)
PLAINTEXT = (content.Plain, content.Party, content.TreeHead, group_content.GroupPlain)


def structs_of(type_: Any) -> set[type]:
    """Every Struct that is named within a type."""
    if isinstance(type_, inspect.StructType):
        return {type_.cls}
    inner = getattr(type_, "types", None) or [getattr(type_, "item_type", None)]
    return {found for one in inner if one is not None for found in structs_of(one)}


def shapes() -> set[type]:
    """The Structs that stand in messages and in contents."""
    found: set[type] = set()
    new: set[type] = {*CLIENT, *SERVER, *CONTENTS}
    while new:
        inner = {one for cls in new for field in inspect_fields(cls) for one in structs_of(field.type)}
        new = inner - found
        found |= new
    return found


def inspect_fields(cls: type) -> tuple[inspect.Field, ...]:
    info = inspect.type_info(cls)
    assert isinstance(info, inspect.StructType)
    return info.fields


def headings() -> dict[str, type]:
    """What has a table of fields, by the heading above it."""
    return {
        **{f"client: `{tag(kind)}`": kind for kind in CLIENT},
        **{f"server: `{tag(kind)}`": kind for kind in SERVER},
        **{f"shape: `{kind.__name__}`": kind for kind in (*shapes(), *PLAINTEXT)},
        **{f"statement: `{tag(kind)}`": kind for kind in STATEMENTS},
        **{f"content: `{tag(kind)}`": kind for kind in CONTENTS},
    }


def tag(kind: Any) -> str:
    return str(kind.__struct_config__.tag)


def between(low: int | None, high: int | None, unit: str) -> str:
    if low == high and low is not None:
        return f"{low}{unit}"
    if high is None:
        return "" if low is None else f"{low}{unit} or more"
    return f"up to {high}{unit}" if not low else f"{low} to {high}{unit}"


def type_text(type_: Any) -> str:
    """A type as the document's tables write it."""
    match type_:
        case inspect.IntType(ge=low, le=high):
            top = TOPS.get(high or 0, high)
            return "integer" if low is None and high is None else f"integer, {low} to {top}"
        case inspect.FloatType():
            return "number"
        case inspect.BoolType():
            return "boolean"
        case inspect.StrType(pattern=pattern) if pattern is not None:
            assert pattern == DEVICE_ID
            return "device id"
        case inspect.StrType(min_length=low, max_length=high) | inspect.BytesType(min_length=low, max_length=high):
            name = "string" if isinstance(type_, inspect.StrType) else "bytes"
            size = between(low, high, "")
            return f"{name}, {size}" if size else name
        case inspect.VarTupleType(item_type=item, min_length=low, max_length=high):
            size = between(low, high, " ")
            return f"list of {size}{type_text(item)}"
        case inspect.TupleType(item_types=(one, other)) if one == other:
            return f"pair of {type_text(one)}"
        case inspect.StructType(cls=cls):
            return f"`{cls.__name__}`"
        case inspect.UnionType(types=types):
            return " or ".join("null" if isinstance(one, inspect.NoneType) else type_text(one) for one in types)
        case inspect.RawType():
            return "raw"
        case inspect.LiteralType(values=values):
            *others, last = (f"`{value}`" for value in values)
            return f"{', '.join(others)} or {last}"
        case _:
            raise AssertionError(f"the tables have no word for {type_}")


def field_text(field: inspect.Field) -> str:
    """The second column of a row."""
    text = type_text(field.type)
    if field.encode_name in IDS:
        text = text.replace("device id", IDS[field.encode_name])
    if field.required:
        return text
    if field.default in (msgspec.UNSET, msgspec.NODEFAULT):
        return f"{text}; optional"
    default = msgspec.json.encode(field.default).decode()
    return f"{text}; optional, `{default}`"


def section(heading: str) -> str:
    """The text under a heading of the third level."""
    found = re.search(rf"^### {re.escape(heading)}\n(.*?)(?=^##|\Z)", TEXT, re.DOTALL | re.MULTILINE)
    assert found is not None, f"the document has no {heading}"
    return found[1]


def table(text: str, first: str) -> list[list[str]]:
    """The rows of the table whose first column is called `first`."""
    found = re.search(rf"^\| {first} \|.*\n\|[-|]+\|\n((?:\|.*\n)*)", text, re.MULTILINE)
    assert found is not None, f"there is no table of {first}"
    return [[cell.strip() for cell in row.strip("|").split(" | ")] for row in found[1].splitlines()]


def code(cell: str) -> str:
    return cell.strip().strip("`")


def all_errors(kind: type[FastChatError] = FastChatError) -> list[type[FastChatError]]:
    return [kind, *(found for below in kind.__subclasses__() for found in all_errors(below))]


CODES = {kind.code for kind in all_errors() if kind.__module__ == errors.__name__}


class Grammar(SynchronousTestCase):
    def test_everything_that_is_said_has_its_section(self) -> None:
        written = re.findall(r"^### ((?:client|server|shape|statement|content): .*)$", TEXT, re.MULTILINE)
        self.assertEqual(sorted(written), sorted(headings()))

    def test_every_field_has_its_row_and_its_type(self) -> None:
        for heading, kind in headings().items():
            rows = [row[:2] for row in table(section(heading), "field")]
            fields = [[f"`{field.encode_name}`", field_text(field)] for field in inspect_fields(kind)]
            self.assertEqual(rows, fields, heading)

    def test_what_may_be_said_when(self) -> None:
        rows = table(TEXT, "message")
        self.assertEqual([code(row[0]) for row in rows], [tag(kind) for kind in CLIENT])
        states = [session.State(name) for name in ("open", "greeted", "proven", "waiting", "ready")]
        self.assertEqual({*states, session.State.CLOSED}, set(session.State))
        for row, kind in zip(rows, CLIENT, strict=True):
            allowed = session.COMMANDS[kind].states if kind in session.COMMANDS else frozenset()
            self.assertEqual(row[1:], ["yes" if state in allowed else "–" for state in states], row[0])

    def test_the_reasons_for_a_retry(self) -> None:
        for reason in Reason:
            self.assertIn(f"`{reason}`", TEXT)

    def test_the_version(self) -> None:
        self.assertIn(f"# The FastChat protocol, version {wire.VERSION}\n", TEXT)


class ErrorsAndLimits(SynchronousTestCase):
    def test_every_code_has_its_row(self) -> None:
        written = [code(row[0]) for row in table(TEXT, "code")]
        self.assertEqual(sorted(written), sorted(CODES))

    def test_every_limit_has_its_row_and_its_default(self) -> None:
        rows = table(TEXT, "key")
        written = {code(key): default for key, default, *_ in rows}
        self.assertEqual(len(written), len(rows))
        expected = {
            f"{table}.{field.name}": msgspec.json.encode(field.default).decode()
            for table, kind in (("limits", Limits), ("attachments", AttachmentLimits))
            for field in msgspec.structs.fields(kind)
        }
        self.assertEqual(written, expected)
        self.assertLessEqual({code(row[2]) for row in rows} - {"–"}, CODES)

    def test_the_fixed_limits(self) -> None:
        rows = table(TEXT, "limit")
        self.assertLessEqual({code(row[2]) for row in rows} - {"–"}, CODES)
        self.assertEqual(
            {row[0]: int(row[1]) for row in rows},
            {
                "line before login": wire.MAX_LINE_BEFORE_LOGIN,
                "line": wire.MAX_LINE,
                "bodies of a message": wire.MAX_BODIES,
                "bad lines": session.BAD_FRAMES,
                "requests at once": session.PENDING_REQUESTS,
                "lanes": outgoing.LANES,
                "refused to groups": group_traffic.REFUSED,
                "a whisper": group_traffic.MAX_WHISPER,
                "one-time keys kept": store.ONE_TIME_KEYS_KEPT,
                "devices of an account": accounts.MAX_DEVICES,
                "links of an account": links.MAX_LINKS,
                "links that are taken": accounts.MAX_CHAIN,
                "devices in an answer": directory.ANSWER_DEVICES,
                "bytes in an answer": directory.ANSWER_BYTES,
                "leaves in an answer": directory.LOG_PAGE,
                "groups in an answer": groups.GROUPS_IN_ANSWER,
                "bytes of statements in an answer": groups.PAGE_BYTES,
                "statements in an answer": groups.PAGE_STATEMENTS,
                "a chunk": wire.CHUNK_SIZE,
                "ranges in an answer": wire.MOST_RANGES,
                "devices named": group_messages.MOST_NAMED,
            },
        )


def decoded(line: Line) -> Any:
    return (wire.decode_server_message if line.who == "S" else wire.decode_client_message)(line.data)


def said(block: str, kind: type) -> Any:
    """The messages of a kind in a block; the only one if there is only one."""
    found = [decoded(line) for line in EXAMPLES.wire[block] if line.who != "X"]
    found = [message for message in found if isinstance(message, kind)]
    assert found, f"no {kind.__name__} in {block}"
    return found[0] if len(found) == 1 else found


class ExampleLines(SynchronousTestCase):
    def test_each_decodes_and_encodes_to_the_same(self) -> None:
        for block, lines in EXAMPLES.wire.items():
            for line in lines:
                self.assertIn(line.who, "CSX")
                if line.who == "X":
                    self.assertRaises(ProtocolError, wire.decode_client_message, line.data)
                else:
                    self.assertEqual(json.loads(wire.encode(decoded(line))), json.loads(line.data), block)

    def test_raw_bytes_follow_chunks_and_nothing_else(self) -> None:
        for line in (line for lines in EXAMPLES.wire.values() for line in lines):
            followed = line.who != "X" and isinstance(decoded(line), wire.Chunk | wire.ChunkAnswer)
            self.assertEqual(line.raw is not None, followed, line.data)
            self.assertIn(line.raw and line.raw[0], (None, wire.CHUNK_SIZE))

    def test_every_kind_is_shown(self) -> None:
        lines = [line for lines in EXAMPLES.wire.values() for line in lines if line.who != "X"]
        self.assertEqual({type(decoded(line)) for line in lines}, {*CLIENT, *SERVER})

    def test_the_code_still_talks_like_that(self) -> None:
        now = protocol_examples.converse()
        self.assertEqual(list(now.wire), list(EXAMPLES.wire))
        self.assertEqual({k: list(v) for k, v in now.values.items()}, {k: list(v) for k, v in EXAMPLES.values.items()})
        for block, lines in now.wire.items():
            self.assertEqual(
                *([(one.who, shape_of(one), one.raw) for one in some] for some in (lines, EXAMPLES.wire[block]))
            )

    def test_folding_is_undone_by_reading(self) -> None:
        for name, block in EXAMPLES.values.items():
            for key, value in block.items():
                line = f"{key} = {value}"
                pieces = protocol_examples.folded(line)
                self.assertEqual(protocol_examples.unfolded(pieces), [line], name)
                self.assertTrue(all(len(piece) <= 120 and piece == piece.rstrip() for piece in pieces.splitlines()))
        self.assertEqual(protocol_examples.written(TEXT, EXAMPLES), TEXT)


def shape_of(line: Line) -> Any:
    return protocol_examples.shape(json.loads(line.data))


class ExampleValues(SynchronousTestCase):
    """What the examples say about keys, hashes and signatures is true."""

    invite = Invite.parse(EXAMPLES.values["invite"]["link"])
    register = said("registration", wire.Register)

    def chain(self, user: str) -> links.Chain:
        if user == "alice":
            return links.replay(user, (*said("further-device", wire.ScramAnswer)[1].links, self.added.link))
        [account] = said("sending", wire.KeysAnswer).accounts
        return links.replay(user, account.links)

    @property
    def added(self) -> wire.AddDevice:
        message: wire.AddDevice = said("further-device", wire.AddDevice)
        return message

    def test_the_invite(self) -> None:
        values = EXAMPLES.values["invite"]
        self.assertEqual(str(self.invite), values["link"])
        self.assertEqual((self.invite.pin.hex(), self.invite.log_key.hex()), (values["pin"], values["log-key"]))
        self.assertEqual(self.invite.token, self.register.invite)
        self.assertEqual(said("registration", wire.Hello).lease, said("balancer", wire.Assigned).lease)

    def test_the_password(self) -> None:
        values, verifier = EXAMPLES.values["registration"], self.register.verifier
        self.assertEqual(login_password(values["password"], self.invite.log_key, "alice"), values["login-password"])
        self.assertEqual(scram_verifier(values["login-password"], verifier.salt), verifier)

    def test_the_scram_exchange(self) -> None:
        (first, final), (server_first, server_final) = (
            said("further-device", kind) for kind in (wire.ScramRequest, wire.ScramAnswer)
        )
        nonce = first.message.partition(",r=")[2]
        client = ScramLogin("alice", EXAMPLES.values["registration"]["login-password"], self.invite.pin, nonce)
        self.assertEqual(client.first(), first.message)
        self.assertEqual(client.final(server_first.message), final.message)
        client.finish(server_final.message)

    def test_the_links_and_the_keys(self) -> None:
        values = EXAMPLES.values["registration"]
        self.assertEqual(
            [link.body.decode() for link in self.register.links], [values["genesis"], values["add_device"]]
        )
        alice = self.chain("alice")
        self.assertEqual(alice.length, 3)
        one, other = alice.devices.values()
        prekeys.verify_all(one, self.register.keys)
        prekeys.verify_all(one, said("registration", wire.Publish).keys)
        prekeys.verify_all(other, self.added.keys)

    def test_the_logins(self) -> None:
        alice = self.chain("alice")
        for block in ("registration", "further-device"):
            request = said(block, wire.Login)
            exporter = bytes.fromhex(EXAMPLES.values[block]["exporter"])
            statement = login.statement(exporter, said(block, wire.Welcome).challenge, "alice", request.device)
            login.verify(alice.devices[request.device].ed25519, statement, request.signature)

    def test_the_key_log(self) -> None:
        frontier = Frontier()
        answer, nothing = said("registration", wire.LogAnswer)
        expected = [leaf("alice", position, link) for position, link in enumerate(self.register.links)]
        self.assertEqual(list(split(answer.leaves)), expected)
        for one in expected:
            frontier.append(one)
        self.assertEqual((answer.checkpoint.size, answer.checkpoint.root), (2, frontier.root()))
        self.assertEqual((nothing.leaves, nothing.checkpoint), (b"", answer.checkpoint))
        frontier.append(leaf("alice", 2, self.added.link))
        newest = said("further-device", wire.Ready).checkpoint
        self.assertEqual((newest.size, newest.root), (3, frontier.root()))
        for checkpoint in (answer.checkpoint, newest):
            verify_checkpoint(self.invite.log_key, checkpoint)

    def test_the_group(self) -> None:
        values = EXAMPLES.values["group"]
        founder, member = (said(block, wire.GroupAct) for block in ("group-founder", "group-member"))
        create, invite, remove = founder
        statements = [act.statement for act in (create, invite, member, remove)]
        self.assertEqual(
            [one.body.decode() for one in statements], [values[kind] for kind in ("create", "invite", "join", "remove")]
        )
        self.assertEqual({act.group for act in (*founder, member)}, {values["group"]})
        state = None
        for one in statements:
            statement = group_chain.read(one)
            state = group_chain.extend(state, one, self.chain(statement.user).devices[statement.device].ed25519)
        assert state is not None
        self.assertEqual((state.group, list(state.members)), (values["group"], ["alice"]))
        title = msgspec.json.decode(values["title"], type=group_chain.Title)
        self.assertTrue(group_chain.opens(title, state.title))
        digest = hashlib.sha256(b"FastChat-v1|title|" + values["title"].encode()).digest()
        self.assertEqual(digest, state.title)
        hashed = hashlib.sha256(b"FastChat-v1|group-id|" + values["create"].encode()).hexdigest()
        self.assertEqual(hashed[:32], values["group"])
        self.assertEqual(said("group-member", wire.GroupLogAnswer).statements, tuple(statements[:2]))

    def test_the_message(self) -> None:
        values, message = EXAMPLES.values["sending"], said("receiving", wire.Message)
        alice, bob = self.chain("alice").devices[message.device], next(iter(self.chain("bob").devices.values()))
        [recipient] = said("sending", wire.Send).to
        self.assertEqual((recipient.device, bytes(recipient.body)), (bob.device, bytes(message.body)))
        [bundle] = said("sending", wire.KeysAnswer).accounts[0].bundles
        key = prekeys.verify_seal(bob, bundle.seal)
        seed, private = bytes.fromhex(values["seal-mlkem768-seed"]), bytes.fromhex(values["seal-x25519-private"])
        seal = SealPrivate(key.id, key.at, MLKEM768PrivateKey.from_seed_bytes(seed), private_key(private))
        body = ratchet.body_from_wire(message.body)
        opened = ratchet.open_envelope({key.id: seal}, bob, body)
        olm_type, olm = opened.olm.to_parts()
        self.assertEqual((bytes((1, olm_type)) + opened.curve25519 + olm).hex(), values["inner"])
        self.assertEqual(opened_by_the_book(body, seed, private, "bob", bob.device).hex(), values["inner"])
        plain = content.read_plain(values["plaintext"].encode(), alice, bob, opened.curve25519)
        self.assertEqual((plain.seq, plain.conversation), (message.n, "bob"))
        self.assertEqual(content.decode_content(plain.content), content.Text("hello, bob"))


def private_key(private: bytes) -> X25519PrivateKey:
    return X25519PrivateKey.from_private_bytes(private)


def opened_by_the_book(body: bytes, seed: bytes, private: bytes, user: str, device: str) -> bytes:
    """An envelope opened as section 15 and RFC 9180 say, without the library that made it."""
    enc, ciphertext = body[5 : 5 + 1120], body[5 + 1120 :]
    own = private_key(private)
    secrets = MLKEM768PrivateKey.from_seed_bytes(seed).decapsulate(enc[:1088]), own.exchange(public_key(enc[1088:]))
    own_public = own.public_key().public_bytes_raw()
    shared = hashlib.sha3_256(b"".join(secrets) + enc[1088:] + own_public + bytes.fromhex("5c2e2f2f5e5c")).digest()
    suite = b"HPKE" + bytes.fromhex("647a 0001 0003")
    info = f"FastChat-v1|env|{user}|{device}|{int.from_bytes(body[1:5], 'big')}".encode()

    def extract(salt: bytes, label: bytes, key: bytes) -> bytes:
        return hmac.digest(salt, b"HPKE-v1" + suite + label + key, "sha256")

    def expand(secret: bytes, label: bytes, size: int) -> bytes:
        context = b"\x00" + extract(b"", b"psk_id_hash", b"") + extract(b"", b"info_hash", info)
        labeled = size.to_bytes(2, "big") + b"HPKE-v1" + suite + label + context
        return HKDFExpand(hashes.SHA256(), size, labeled).derive(secret)

    secret = extract(shared, b"secret", b"")
    return ChaCha20Poly1305(expand(secret, b"key", 32)).decrypt(expand(secret, b"base_nonce", 12), ciphertext, b"")


def public_key(public: bytes) -> X25519PublicKey:
    return X25519PublicKey.from_public_bytes(public)
