"""The codec: every message survives the wire, and any bytes at all are a message or a `ProtocolError`."""

from __future__ import annotations

import json
import typing

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from fastchat.errors import Busy, NameTaken, ProtocolError
from fastchat.protocols import wire

CLIENT_KINDS = typing.get_args(wire.ClientMessage)
SERVER_KINDS = typing.get_args(wire.ServerMessage)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)


def tags(kinds: tuple[type, ...]) -> list[str]:
    return [kind.__struct_config__.tag for kind in kinds]  # type: ignore[attr-defined]


def fields(kinds: tuple[type, ...]) -> list[str]:
    return sorted({field.encode_name for kind in kinds for field in msgspec.structs.fields(kind)})


class WireCase(SynchronousTestCase):
    def decoded(self, decode: typing.Callable[[bytes], object], line: bytes, kinds: tuple[type, ...]) -> object:
        try:
            message = decode(line)
        except ProtocolError as error:
            self.assertNotIn("Traceback", error.message)
            return None
        self.assertIsInstance(message, kinds)
        return message

    def test_each_kind_has_a_name_of_its_own_in_its_direction(self) -> None:
        for kinds in (CLIENT_KINDS, SERVER_KINDS):
            self.assertEqual(len(set(tags(kinds))), len(kinds))

    def test_what_can_be_answered(self) -> None:
        unanswered = {wire.Received, wire.Whisper, wire.GroupWhisper}
        for kind in CLIENT_KINDS:
            self.assertEqual("id" in kind.__struct_fields__, kind not in unanswered)

    def test_a_device_id_has_nothing_behind_it(self) -> None:
        line = b'{"t":"login","id":1,"user":"alice","device":"%s","signature":"' + b"A" * 86 + b'=="}'
        wire.decode_client_message(line % (b"0" * 32))
        for wrong in (b"0" * 32 + b"\\n", b"0" * 33, b"0" * 31, b"\\n" + b"0" * 32, b"F" * 32):
            self.assertRaises(ProtocolError, wire.decode_client_message, line % wrong)

    def test_a_body_is_forwarded_untouched(self) -> None:
        line = b'{"t":"send","id":1,"n":2,"to":[{"device":"%s","body":"QUJD"}]}' % (b"0" * 32)
        send = wire.decode_client_message(line)
        body = send.to[0].body
        self.assertEqual(bytes(body), b'"QUJD"')
        self.assertTrue(wire.is_body(body))
        message = wire.encode(wire.Message(1, "alice", "0" * 32, 2, 3, body))
        self.assertEqual(json.loads(message)["body"], "QUJD")

    def test_what_is_not_a_body(self) -> None:
        for raw in (b"1", b"null", b'{"a":"b"}', b'["x"]', '"é"'.encode(), b'"\xff"', b"", b'"'):
            self.assertFalse(wire.is_body(msgspec.Raw(raw)), raw)

    def test_errors_carry_their_code_and_when_to_come_back(self) -> None:
        self.assertEqual(wire.error_from(Busy(retry_after=7.0), 3), wire.Error("busy", Busy().message, 3, 7.0))
        self.assertEqual(
            json.loads(wire.encode(wire.error_from(NameTaken()))),
            {"t": "error", "code": "name-taken", "message": NameTaken().message},
        )

    def test_deep_nesting_is_an_error(self) -> None:
        for line in (b"[" * 100_000, b'{"t":"ping","id":1,"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}"):
            self.assertRaises(ProtocolError, wire.decode_client_message, line)

    @settings(max_examples=500, deadline=None)
    @given(st.binary(max_size=300))
    def test_any_bytes(self, line: bytes) -> None:
        self.decoded(wire.decode_client_message, line, CLIENT_KINDS)
        self.decoded(wire.decode_server_message, line, SERVER_KINDS)

    @settings(max_examples=500, deadline=None)
    @given(
        st.sampled_from(tags(CLIENT_KINDS + SERVER_KINDS)),
        st.dictionaries(st.sampled_from(fields(CLIENT_KINDS + SERVER_KINDS)), json_values, max_size=8),
    )
    def test_any_object_with_a_known_kind(self, tag: str, values: dict[str, object]) -> None:
        line = json.dumps({"t": tag, **values}).encode()
        for decode, kinds in (
            (wire.decode_client_message, CLIENT_KINDS),
            (wire.decode_server_message, SERVER_KINDS),
        ):
            message = self.decoded(decode, line, kinds)
            if message is not None:
                self.assertEqual(wire.encode(decode(wire.encode(message))), wire.encode(message))
