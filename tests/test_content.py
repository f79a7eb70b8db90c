"""What stands inside a message: bound to its two devices, and nothing in it can surprise the reader."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as some
from msgspec import Raw
from twisted.trial.unittest import SynchronousTestCase

from fastchat.identity.links import DeviceIdentity, device_id
from fastchat_client.content import (
    Content,
    Delivered,
    Plain,
    Read,
    Resent,
    Retry,
    Text,
    TreeHead,
    Unknown,
    decode_content,
    encode_content,
    read_plain,
    write_plain,
)
from fastchat_client.unreadable import Reason, Unreadable


def device(user: str, number: int) -> DeviceIdentity:
    ed25519, curve25519 = bytes([number] * 32), bytes([number + 100] * 32)
    return DeviceIdentity(user, device_id(ed25519, curve25519), ed25519, curve25519)


ALICE, BOB, MALLORY = device("alice", 1), device("bob", 2), device("mallory", 3)
HEAD = TreeHead(5, bytes(32))
CONTENTS: tuple[Content, ...] = (
    Text("hello ✓"),
    Delivered((1, 2)),
    Read((3,)),
    Retry(4, Reason.BAD_MAC),
    Resent(4, Raw(encode_content(Text("again")))),
)


def written(content: bytes, sender: DeviceIdentity = ALICE, recipient: DeviceIdentity = BOB) -> bytes:
    return write_plain(sender, recipient, "alice", 7, HEAD, 1_700_000_000_000, content)


class Binding(SynchronousTestCase):
    def test_it_is_read_as_it_was_written(self) -> None:
        for content in CONTENTS:
            plain = read_plain(written(encode_content(content)), ALICE, BOB, ALICE.curve25519)
            self.assertEqual((plain.conversation, plain.seq, plain.checkpoint), ("alice", 7, HEAD))
            self.assertEqual((plain.at, plain.sender.user, plain.recipient.user), (1_700_000_000_000, "alice", "bob"))
            self.assertEqual(encode_content(decode_content(plain.content)), encode_content(content))

    def test_its_names_are_those_of_the_documentation(self) -> None:
        said = json.loads(written(encode_content(Text("hi"))))
        self.assertEqual(list(said), ["v", "from", "to", "conversation", "seq", "checkpoint", "at", "content"])
        self.assertEqual(list(said["from"]), ["user", "device", "ed25519"])
        self.assertEqual(said["content"], {"t": "text", "text": "hi"})

    def refused(self, plaintext: bytes, sender: DeviceIdentity, me: DeviceIdentity, curve25519: bytes) -> None:
        error = self.assertRaises(Unreadable, read_plain, plaintext, sender, me, curve25519)
        self.assertEqual(error.reason, Reason.WRONG_IDENTITY)

    def test_a_server_swaps_names(self) -> None:
        plaintext = written(encode_content(Text("hi")))
        self.refused(plaintext, MALLORY, BOB, ALICE.curve25519)
        self.refused(plaintext, ALICE, MALLORY, ALICE.curve25519)
        self.refused(plaintext, ALICE, BOB, MALLORY.curve25519)
        self.refused(plaintext, MALLORY, BOB, MALLORY.curve25519)

    def test_a_recipient_passes_a_message_on_as_its_senders(self) -> None:
        self.refused(written(encode_content(Text("hi")), ALICE, MALLORY), ALICE, BOB, MALLORY.curve25519)
        self.refused(written(encode_content(Text("hi")), ALICE, BOB), ALICE, BOB, MALLORY.curve25519)
        self.refused(written(encode_content(Text("hi")), ALICE, BOB), MALLORY, BOB, MALLORY.curve25519)

    def test_every_field_of_both_devices_counts(self) -> None:
        for side, own in (("from", ALICE), ("to", BOB)):
            for change in ({"user": "eve"}, {"device": "0" * 32}, {"ed25519": "A" * 43 + "="}):
                said = json.loads(written(encode_content(Text("hi"))))
                said[side].update(change)
                self.assertNotEqual(said[side]["user"], own.device)
                self.refused(json.dumps(said).encode(), ALICE, BOB, ALICE.curve25519)

    def test_a_newer_version(self) -> None:
        for plaintext in (b'{"v":2}', written(b"{}").replace(b'"v":1', b'"v":2')):
            error = self.assertRaises(Unreadable, read_plain, plaintext, ALICE, BOB, ALICE.curve25519)
            self.assertEqual(error.reason, Reason.NEWER_CLIENT)

    @given(some.binary() | some.sampled_from((b"[" * 5000, b'{"v":1,"from":' + b'{"a":' * 3000)))
    @settings(deadline=None)
    def test_any_bytes(self, plaintext: bytes) -> None:
        self.assertRaises(Unreadable, read_plain, plaintext, ALICE, BOB, ALICE.curve25519)

    @given(some.integers(0, 2000), some.binary(max_size=3))
    @settings(deadline=None)
    def test_any_change(self, at: int, junk: bytes) -> None:
        good = written(encode_content(Text("hi")))
        at %= len(good)
        try:
            plain = read_plain(good[:at] + junk + good[at + 1 :], ALICE, BOB, ALICE.curve25519)
            decode_content(plain.content)
        except Unreadable:
            return
        self.assertIsInstance(plain, Plain)


class Kinds(SynchronousTestCase):
    def test_a_kind_of_a_newer_client(self) -> None:
        self.assertEqual(decode_content(b'{"t":"poll","options":["a","b"]}'), Unknown("poll"))

    def test_a_new_field_of_a_known_kind(self) -> None:
        self.assertEqual(decode_content(b'{"t":"text","text":"hi","colour":"red"}'), Text("hi"))

    def test_malformed(self) -> None:
        nested = encode_content(Resent(1, Raw(encode_content(Resent(2, Raw(b'{"t":"text","text":"x"}'))))))
        for content in (
            b"",
            b"null",
            b"[]",
            b"{}",
            b'{"t":1}',
            b'{"t":"text"}',
            b'{"t":"read","ids":[]}',
            b'{"t":"read","ids":[-1]}',
            b'{"t":"read","ids":[' + b"1," * 1000 + b"1]}",
            b'{"t":"retry","n":1,"reason":"' + b"x" * 65 + b'"}',
            b'{"t":"resent","n":1,"content":5}',
            nested,
        ):
            error = self.assertRaises(Unreadable, decode_content, content)
            self.assertEqual(error.reason, Reason.BAD_CONTENT)

    def test_a_newer_kind_sent_again(self) -> None:
        resent = decode_content(b'{"t":"resent","n":3,"content":{"t":"poll"}}')
        assert isinstance(resent, Resent)
        self.assertEqual(decode_content(resent.content), Unknown("poll"))

    json_values = some.recursive(
        some.none() | some.integers() | some.text(),
        lambda inner: some.lists(inner) | some.dictionaries(some.sampled_from(("t", "ids", "text", "n")), inner),
    )

    @given(some.binary(), json_values, some.sampled_from(("text", "delivered", "read", "retry", "resent", "new")))
    @settings(deadline=None)
    def test_anything(self, junk: bytes, value: Any, kind: str) -> None:
        tagged = {**value, "t": kind} if isinstance(value, dict) else value
        for content in (junk, json.dumps(value).encode(), json.dumps(tagged).encode()):
            try:
                self.assertIsInstance(decode_content(content), Content | Unknown)
            except Unreadable as error:
                self.assertEqual(error.reason, Reason.BAD_CONTENT)

    def test_every_reason_has_its_sentence(self) -> None:
        for reason in Reason:
            self.assertIn(reason.sentence, Unreadable(reason).message)
