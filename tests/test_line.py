"""The line shell: whatever bytes come in, in whatever pieces, its owner gets messages or errors; and what goes out is
one write per turn and never more than the other side takes."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from fastchat.errors import FrameTooLong, ProtocolError
from fastchat.protocols import line
from fastchat.protocols.line import LineShell, Turn
from fastchat.protocols.wire import (
    CHUNK_SIZE,
    MAX_LINE_BEFORE_LOGIN,
    Chunk,
    ChunkAnswer,
    Fetch,
    GoAway,
    Hello,
    Ping,
    Pong,
    WithBytes,
    decode_client_message,
    decode_server_message,
    encode,
)

ATTACHMENT = "0f" * 16


def chunk(index: int = 0, size: int = CHUNK_SIZE) -> WithBytes:
    """Its bytes are full of lines' ends."""
    return WithBytes(Chunk(7, ATTACHMENT, index), (bytes([index]) + b"\n\r\n{}\n" * size)[:size])


def on_the_wire(*messages: Any) -> bytes:
    return b"".join(
        encode(message.message) + b"\n" + message.data if isinstance(message, WithBytes) else encode(message) + b"\n"
        for message in messages
    )


class Recorder:
    """An owner that writes down what it is told."""

    def __init__(self) -> None:
        self.messages: list[Any] = []
        self.errors: list[ProtocolError] = []
        self.writable_told: list[bool] = []
        self.is_lost = False
        self.fails = False

    def connected(self, shell: LineShell) -> None:
        self.shell = shell

    def received(self, message: Any) -> None:
        if self.fails:
            raise ZeroDivisionError
        self.messages.append(message)

    def bad_frame(self, error: ProtocolError) -> None:
        self.errors.append(error)

    def writable(self, writable: bool) -> None:
        self.writable_told.append(writable)

    def lost(self, reason: Failure) -> None:
        self.is_lost = True


class CountingTransport(StringTransport):
    """Also counts writes, which is what costs."""

    writes = 0
    aborted = False

    def write(self, data: bytes) -> None:
        self.writes += 1
        super().write(data)

    def abortConnection(self) -> None:
        self.aborted = True


class LineCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.owner, self.shell, self.transport = self.connection()

    def connection(
        self, hard: int = 1 << 20, takes_bytes: bool = False, decode: Any = decode_client_message
    ) -> tuple[Recorder, LineShell, CountingTransport]:
        owner = Recorder()
        shell = LineShell(owner, decode, Turn(self.clock), hard)
        shell.takes_bytes = takes_bytes
        transport = CountingTransport()
        shell.makeConnection(transport)
        return owner, shell, transport

    # --- in

    def test_messages_arrive_in_order_however_they_are_cut(self) -> None:
        data = encode(Hello(1, 1)) + b"\n" + encode(Ping(2)) + b"\r\n"
        for piece in range(1, len(data)):
            owner, shell, _ = self.connection()
            shell.dataReceived(data[:piece])
            shell.dataReceived(data[piece:])
            self.assertEqual(owner.messages, [Hello(1, 1), Ping(2)])

    def test_a_bad_line_is_told_and_the_next_one_is_read(self) -> None:
        self.shell.dataReceived(b'{"t":"nonsense"}\n\n' + encode(Ping(7)) + b"\n")
        self.assertEqual([error.code for error in self.owner.errors], ["bad-frame", "bad-frame"])
        self.assertEqual(self.owner.messages, [Ping(7)])

    def test_a_line_of_the_greatest_length_passes_and_one_byte_more_does_not(self) -> None:
        line = encode(Ping(1)).ljust(MAX_LINE_BEFORE_LOGIN)
        self.shell.dataReceived(line + b"\n")
        self.assertEqual(self.owner.messages, [Ping(1)])
        self.shell.dataReceived(line + b" \n")
        self.assertIsInstance(self.owner.errors[0], FrameTooLong)

    def test_an_endless_line_is_noticed_before_its_end(self) -> None:
        self.shell.dataReceived(b"x" * (MAX_LINE_BEFORE_LOGIN + 2))
        self.assertIsInstance(self.owner.errors[0], FrameTooLong)

    def test_a_line_that_comes_byte_by_byte_is_not_copied_for_each(self) -> None:
        line = encode(Ping(1)).ljust(MAX_LINE_BEFORE_LOGIN)
        for number in range(len(line)):
            self.shell.dataReceived(line[number : number + 1])
        self.assertEqual((bytes(self.shell._unfinished), self.shell._buffer), (line, b""))
        self.shell.dataReceived(b"\n" + encode(Ping(2)))
        self.shell.dataReceived(b"\n")
        self.assertEqual(self.owner.messages, [Ping(1), Ping(2)])
        for _ in range(MAX_LINE_BEFORE_LOGIN + 1):
            self.assertEqual(self.owner.errors, [])
            self.shell.dataReceived(b"x")
        self.assertIsInstance(self.owner.errors[0], FrameTooLong)

    def test_an_owner_that_fails_ends_its_own_connection_and_leaves_a_trace(self) -> None:
        self.owner.fails = True
        self.shell.dataReceived(encode(Ping(1)) + b"\n")
        self.assertTrue(self.transport.aborted)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    @settings(max_examples=200, deadline=None)
    @given(st.lists(st.binary(max_size=200), max_size=6))
    def test_any_bytes_are_messages_or_errors(self, pieces: list[bytes]) -> None:
        owner, shell, transport = self.connection()
        for piece in pieces:
            shell.dataReceived(piece)
        self.assertFalse(transport.aborted)
        lines = b"".join(pieces).split(b"\n")[:-1]
        self.assertEqual(len(owner.messages) + len(owner.errors), len(lines))

    # --- raw bytes in

    def test_the_bytes_of_a_chunk_arrive_with_its_line_wherever_they_are_cut(self) -> None:
        self.patch(line, "CHUNK_SIZE", 40)
        messages = [Ping(1), chunk(0, 40), chunk(1, 40), Fetch(8, ATTACHMENT, 0), chunk(2, 40), Ping(2)]
        data = on_the_wire(*messages)
        for one in range(len(data)):
            for other in (one, one + 1, one + 41, len(data) - 1):
                owner, shell, _ = self.connection(takes_bytes=True)
                for piece in (data[:one], data[one:other], data[max(one, other) :]):
                    shell.dataReceived(piece)
                self.assertEqual(owner.messages, messages)
                self.assertEqual((shell._buffer, bytes(shell._unfinished), bytes(shell._raw)), (b"", b"", b""))

    def test_a_chunk_that_comes_byte_by_byte_is_not_copied_for_each(self) -> None:
        self.shell.takes_bytes = True
        data = on_the_wire(chunk(3))
        for place in range(len(data) - 1):
            self.shell.dataReceived(data[place : place + 1])
        self.assertEqual((self.owner.messages, self.shell._buffer), ([], b""))
        self.assertEqual((bytes(self.shell._raw), bytes(self.shell._unfinished)), (chunk(3).data[:-1], b""))
        self.shell.dataReceived(data[-1:] + b"{")
        self.assertEqual(self.owner.messages, [chunk(3)])
        self.assertEqual((self.shell._buffer, bytes(self.shell._unfinished)), (b"", b"{"), "then come lines again")

    @settings(max_examples=100, deadline=None)
    @given(
        st.lists(st.sampled_from(["chunk", "ping", "bad"]), max_size=6),
        st.lists(st.integers(1, CHUNK_SIZE + 100), max_size=9),
    )
    def test_chunks_and_lines_in_any_order_arrive_in_it_in_any_pieces(self, kinds: list[str], sizes: list[int]) -> None:
        owner, shell, transport = self.connection(takes_bytes=True)
        known = {"chunk": chunk(1), "ping": Ping(1)}
        data = b"".join(on_the_wire(known[kind]) if kind in known else b"{}\n" for kind in kinds)
        for size in [*sizes, len(data)]:
            shell.dataReceived(data[:size])
            data = data[size:]
        self.assertEqual(owner.messages, [known[kind] for kind in kinds if kind in known])
        self.assertEqual(len(owner.errors), kinds.count("bad"))
        self.assertFalse(transport.aborted)

    def test_an_answer_carries_bytes_too(self) -> None:
        answer = WithBytes(ChunkAnswer(3), bytes(CHUNK_SIZE))
        owner, shell, _ = self.connection(takes_bytes=True, decode=decode_server_message)
        shell.dataReceived(on_the_wire(answer, Pong(1)))
        self.assertEqual(owner.messages, [answer, Pong(1)])

    def test_who_does_not_take_bytes_hears_the_line_alone(self) -> None:
        self.shell.dataReceived(on_the_wire(chunk().message, Ping(1)))
        self.assertEqual(self.owner.messages, [chunk().message, Ping(1)])

    def test_a_chunk_whose_connection_ends_in_the_middle_of_it_never_was(self) -> None:
        for end in ("abort", "close", "connectionLost"):
            owner, shell, _ = self.connection(takes_bytes=True)
            data = on_the_wire(Ping(1), chunk(), Ping(2))
            shell.dataReceived(data[:-100])
            self.assertEqual(owner.messages, [Ping(1)])
            getattr(shell, end)()
            shell.dataReceived(data[-100:])
            shell.connectionLost()
            self.assertEqual((owner.messages, owner.errors), ([Ping(1)], []))
            self.assertEqual((shell._buffer, bytes(shell._raw)), (b"", b""))

    def test_an_owner_may_stop_reading_in_the_middle_of_a_chunk(self) -> None:
        messages = [chunk(0), chunk(1), Ping(1)]
        data = on_the_wire(*messages)
        self.shell.takes_bytes = True
        self.shell.dataReceived(data[:30_000])
        self.shell.pauseProducing()
        self.shell.dataReceived(data[30_000:])
        self.assertEqual(self.owner.messages, [])
        self.shell.resumeProducing()
        self.assertEqual(self.owner.messages, messages)

    def test_an_owner_that_fails_at_a_chunk_hears_nothing_that_follows(self) -> None:
        self.owner.fails = True
        self.shell.takes_bytes = True
        self.shell.dataReceived(on_the_wire(chunk(), Ping(1)))
        self.assertTrue(self.transport.aborted)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    # --- raw bytes out

    def test_a_chunk_is_written_at_once_behind_what_was_sent_before(self) -> None:
        self.shell.send(Pong(1))
        self.shell.send(WithBytes(ChunkAnswer(2), chunk().data))
        self.assertEqual(self.transport.writes, 1)
        self.shell.send(Pong(3))
        self.clock.advance(0)
        self.assertEqual(self.transport.value(), on_the_wire(Pong(1), WithBytes(ChunkAnswer(2), chunk().data), Pong(3)))
        self.assertEqual(self.transport.writes, 2)

    def test_chunks_wait_in_their_place_while_the_other_side_does_not_read(self) -> None:
        messages = [Pong(1), chunk(1), chunk(2), Pong(2), Pong(3), chunk(3), Pong(4)]
        self.transport.producer.pauseProducing()
        for message in messages:
            self.shell.send(message)
        self.clock.advance(1)
        self.assertEqual(self.transport.writes, 0)
        self.transport.producer.resumeProducing()
        self.assertEqual(self.transport.value(), on_the_wire(*messages))
        self.transport.clear()
        self.shell.send(Pong(5))
        self.clock.advance(0)
        self.assertEqual(self.transport.value(), on_the_wire(Pong(5)))

    def test_the_bytes_of_chunks_count_as_what_a_slow_reader_has_not_read(self) -> None:
        _, shell, transport = self.connection(hard=3 * CHUNK_SIZE)
        transport.producer.pauseProducing()
        for _ in range(2):
            shell.send(chunk())
        self.assertFalse(transport.aborted)
        shell.send(chunk())
        self.assertTrue(transport.aborted)
        transport.producer.resumeProducing()
        self.assertEqual(transport.value(), b"")

    def test_a_chunk_of_another_length_is_a_mistake_and_is_not_sent(self) -> None:
        for length in (0, CHUNK_SIZE - 1, CHUNK_SIZE + 1):
            self.assertRaises(ValueError, self.shell.send, WithBytes(ChunkAnswer(1), bytes(length)))
        self.shell.send(Pong(1))
        self.clock.advance(0)
        self.assertEqual(self.transport.value(), on_the_wire(Pong(1)))

    def test_closing_says_also_what_a_chunk_waits_with(self) -> None:
        self.transport.producer.pauseProducing()
        self.shell.send(chunk())
        self.shell.close()
        self.shell.send(chunk())
        self.assertEqual(self.transport.value(), on_the_wire(chunk()))

    # --- out

    def test_what_is_sent_in_one_turn_is_one_write(self) -> None:
        for number in range(3):
            self.shell.send(Pong(number))
        self.assertEqual(self.transport.writes, 0)
        self.clock.advance(0)
        self.assertEqual(self.transport.writes, 1)
        self.assertEqual(self.transport.value(), b"".join(encode(Pong(number)) + b"\n" for number in range(3)))
        self.shell.send(Pong(9))
        self.clock.advance(0)
        self.assertEqual(self.transport.writes, 2)

    def test_nothing_is_written_while_the_other_side_does_not_read(self) -> None:
        producer = self.transport.producer
        producer.pauseProducing()
        producer.pauseProducing()
        self.shell.send(Pong(1))
        self.clock.advance(1)
        self.assertEqual(self.transport.writes, 0)
        producer.resumeProducing()
        self.assertEqual(self.transport.value(), encode(Pong(1)) + b"\n")
        self.assertEqual(self.owner.writable_told, [False, True])

    def test_too_much_for_a_slow_reader_ends_its_connection(self) -> None:
        _, shell, transport = self.connection(hard=100)
        transport.producer.pauseProducing()
        for number in range(10):
            shell.send(Pong(number))
        self.assertTrue(transport.aborted)

    def test_more_than_the_limit_in_one_turn_is_no_slow_reader(self) -> None:
        message = GoAway(0.0, "x" * 16_384)
        for _ in range(100):
            self.shell.send(message)
        self.clock.advance(0)
        self.assertFalse(self.transport.aborted)
        self.assertEqual(self.transport.value(), (encode(message) + b"\n") * 100)

    def test_in_the_middle_of_a_turn_the_other_side_can_say_that_it_is_enough(self) -> None:
        write = self.transport.write

        def write_and_pause(data: bytes) -> None:
            write(data)
            self.transport.producer.pauseProducing()

        self.patch(self.transport, "write", write_and_pause)
        sent = 0
        while self.shell.is_writable and sent < 1000:
            self.shell.send(GoAway(0.0, "x" * 1000))
            sent += 1
        self.assertEqual(self.owner.writable_told, [False])
        self.assertLess(sent, 70)

    def test_close_says_what_was_sent_and_nothing_after(self) -> None:
        self.shell.send(Pong(1))
        self.shell.close()
        self.shell.send(Pong(2))
        self.shell.dataReceived(encode(Ping(3)) + b"\n")
        self.clock.advance(1)
        self.assertEqual(self.transport.value(), encode(Pong(1)) + b"\n")
        self.assertTrue(self.transport.disconnecting)
        self.assertEqual(self.owner.messages, [])

    def test_who_does_not_take_the_last_words_is_aborted(self) -> None:
        self.shell.close(3.0)
        self.clock.advance(2.9)
        self.assertFalse(self.transport.aborted)
        self.clock.advance(0.1)
        self.assertTrue(self.transport.aborted)

    def test_who_has_gone_in_time_is_not_aborted(self) -> None:
        self.shell.close(3.0)
        self.shell.connectionLost()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_close_says_it_also_to_somebody_who_does_not_read_at_the_moment(self) -> None:
        self.transport.producer.pauseProducing()
        self.shell.send(Pong(1))
        self.shell.close()
        self.assertEqual(self.transport.value(), encode(Pong(1)) + b"\n")
        self.assertTrue(self.transport.disconnecting)

    def test_what_comes_after_the_end_is_thrown_away(self) -> None:
        self.shell.dataReceived(b"x\n")
        self.shell.close()
        for _ in range(3):
            self.shell.dataReceived(b"x\n" * 1000)
        self.assertEqual(len(self.owner.errors), 1)
        self.assertEqual(self.shell.clearLineBuffer(), b"")

    def test_after_the_connection_is_lost_sending_is_quiet(self) -> None:
        self.shell.connectionLost()
        self.assertTrue(self.owner.is_lost)
        self.shell.send(Pong(1))
        self.clock.advance(1)
        self.assertEqual(self.transport.writes, 0)
