"""The session machine: what may be said when, how it ends, and what it answers to what is wrong."""

from __future__ import annotations

from typing import Any

from msgspec import UNSET, Raw

from fastchat.accounts import device_row
from fastchat.errors import FrameTooLong, ProtocolError
from fastchat.identity.groups import group_id
from fastchat.protocols import wire
from fastchat.protocols.line import CLOSE_SECONDS
from fastchat.protocols.session import BAD_FRAMES, COMMANDS, FINISH_SECONDS, LEAVE_SECONDS, State
from fastchat.store import NewChunk
from tests.support.calling import BODY, Peer, SessionCase
from tests.support.delivery import now
from tests.support.groups import Actor, GroupChain
from tests.support.people import Person, scram_client, verifier_of

MAY_BE_SAID: dict[State, set[type]] = {
    State.OPEN: {wire.Hello},
    State.GREETED: {wire.Register, wire.ScramRequest, wire.Login},
    State.PROVEN: {wire.AddDevice},
    State.WAITING: set(),
    State.READY: {
        wire.KeysRequest,
        wire.Publish,
        wire.Send,
        wire.Received,
        wire.LogRequest,
        wire.Ping,
        wire.Revoke,
        wire.GroupAct,
        wire.GroupsRequest,
        wire.GroupLogRequest,
        wire.GroupSend,
        wire.Whisper,
        wire.GroupWhisper,
        wire.Attach,
        wire.Chunk,
        wire.Fetch,
        wire.AttachmentFor,
        wire.Fetched,
        wire.Detach,
    },
}
"""As PROTOCOL.md has it; written down a second time, so that a mistake in the machine's own table is seen."""

ALICE = Actor("alice")
KINDS: tuple[type, ...] = wire.ClientMessage.__args__


class Table(SessionCase):
    """Every state and every kind of message."""

    def in_state(self, state: State) -> Peer:
        peer = self.peer()
        if state is not State.OPEN:
            peer.greets()
        if state is State.PROVEN:
            self.assertIsInstance(peer.proves("alice"), wire.ScramAnswer)
        if state is State.WAITING:
            self.place.store.held = True
            peer.says(peer.login(self.alice))
        if state is State.READY:
            peer.asks(peer.login(self.alice), wire.Ready)
        self.assertIs(peer.session.state, state)
        return peer

    def sample(self, kind: type, peer: Peer) -> Any:
        """A message of this kind that would be right in its place."""
        i = peer.next_id()
        alice = self.people["alice"]
        if kind is wire.AddDevice:
            device, request = Person("alice").add_device("second")
            return wire.AddDevice(i, request.position, request.link, device.keys())
        if kind is wire.Revoke:
            alice.links = list(now(self.place.memory.links(["alice"]))["alice"])
            device, request = alice.add_device(f"number {len(alice.links)}")
            row, keys, leaf = device_row(device.identity), device.keys(), bytes(72)
            now(self.place.memory.add_device(row, request.position, request.link, keys, leaf))
            revocation = alice.revoke(device)
            return wire.Revoke(i, revocation.position, revocation.link)
        samples: dict[type, Any] = {
            wire.Assign: wire.Assign(i),
            wire.Hello: wire.Hello(i, wire.VERSION),
            wire.Register: wire.Register(
                i, "dave", "an-invite", verifier_of("x"), tuple(alice.links[:2]), alice.device.keys()
            ),
            wire.ScramRequest: wire.ScramRequest(i, scram_client("alice", "x", bytes(32)).get_client_first()),
            wire.Login: peer.login(self.alice),
            wire.KeysRequest: wire.KeysRequest(i, ("bob",)),
            wire.Publish: wire.Publish(i, wire.DeviceKeys()),
            wire.Send: wire.Send(i, 1, (wire.Recipient(self.bob.id, BODY),)),
            wire.Received: wire.Received(0),
            wire.LogRequest: wire.LogRequest(i, 0),
            wire.Ping: wire.Ping(i),
            **self.about_groups(i),
            **self.about_files(i, peer),
        }
        return samples[kind]

    def about_groups(self, i: int) -> dict[type, Any]:
        """Of a group that alice founds, and of one that she has founded."""
        chain = GroupChain(ALICE)
        group, length = chain.group, chain.state.length
        signed = chain.statements[0]
        if now(self.place.memory.group(group)) is None:
            now(self.place.groups.act(device_row(ALICE.identity), group, signed))
        other = ALICE.create(nonce=i.to_bytes(16, "big"))
        return {
            wire.GroupAct: wire.GroupAct(i, group_id(other.body), other),
            wire.GroupsRequest: wire.GroupsRequest(i),
            wire.GroupLogRequest: wire.GroupLogRequest(i, group, 0),
            wire.GroupSend: wire.GroupSend(i, 1, group, length, BODY),
            wire.Whisper: wire.Whisper((wire.Recipient(self.bob.id, BODY),)),
            wire.GroupWhisper: wire.GroupWhisper(group, BODY),
        }

    def about_files(self, i: int, peer: Peer) -> dict[type, Any]:
        """Of one that is whole, and one that is begun."""
        whole, begun, data, memory = "aa" * 16, "bb" * 16, bytes(wire.CHUNK_SIZE), self.place.memory
        for attachment in (whole, begun):
            now(memory.begin_attachment(attachment, "alice", 1, 10**9, 0.0))
        now(memory.store_chunks([NewChunk(whole, "alice", 0, data)], 0.0))
        chunk = wire.Chunk(i, begun, 0)
        return {
            wire.Attach: wire.Attach(i, begun, 1),
            wire.Chunk: wire.WithBytes(chunk, data) if peer.takes_bytes else chunk,
            wire.Fetch: wire.Fetch(i, whole, 0),
            wire.AttachmentFor: wire.AttachmentFor(i, whole, 1),
            wire.Fetched: wire.Fetched(i, whole),
            wire.Detach: wire.Detach(i, begun),
        }

    def test_all_of_it(self) -> None:
        self.assertEqual(len(KINDS), 25)
        for state, allowed in MAY_BE_SAID.items():
            for kind in KINDS:
                with self.subTest(f"{kind.__name__} while {state.value}"):
                    peer = self.in_state(state)
                    message = self.sample(kind, peer)
                    answers = peer.says(message)
                    codes = [answer.code for answer in answers if isinstance(answer, wire.Error)]
                    if kind in allowed:
                        self.assertNotIn("out-of-turn", codes)
                        self.assertIn(len(answers), (0, 1))
                    else:
                        self.assertEqual(codes, ["out-of-turn"])
                        self.assertEqual(answers[0].re, getattr(message, "id", UNSET))
                        self.assertEqual(peer.is_closed, state is not State.READY)
                    self.place.store.release()

    def test_what_is_right_is_done(self) -> None:
        """Nothing but the keys of somebody else's registration is refused of what may be said."""
        for state, allowed in MAY_BE_SAID.items():
            for kind in allowed - {wire.Register}:
                with self.subTest(f"{kind.__name__} while {state.value}"):
                    peer = self.in_state(state)
                    answers = peer.says(self.sample(kind, peer))
                    self.assertEqual([one for one in answers if isinstance(one, wire.Error)], [])
                    self.assertFalse(peer.is_closed)

    def test_once_closed_nothing_is_heard_or_said(self) -> None:
        for kind in KINDS:
            peer = self.online(self.alice)
            peer.session.end(ProtocolError())
            before = len(peer.heard)
            peer.is_closed = False  # whatever it said now would be heard
            peer.says(self.sample(kind, peer))
            peer.session.bad_frame(ProtocolError())
            peer.session.end(ProtocolError())
            peer.session.leave(0.0, "")
            self.assertEqual(len(peer.heard), before)

    def test_every_command_is_in_the_table(self) -> None:
        self.assertEqual(set(COMMANDS), set(KINDS) - {wire.Assign})

    def test_while_an_answer_is_awaited_anything_is_the_end_and_the_answer_is_not_given(self) -> None:
        self.place.store.held = True
        peer = self.peer()
        peer.greets()
        peer.says(peer.login(self.alice))
        peer.refused(wire.Ping(9))
        self.place.store.release()
        self.assert_ended(peer, "out-of-turn")
        self.assertFalse(self.place.is_attached(self.alice.id))


class Frames(SessionCase):
    """Lines that are no messages."""

    def test_before_the_login_the_first_one_is_the_end(self) -> None:
        for lines_before in (0, 1):
            peer = self.peer()
            if lines_before:
                peer.greets()
            [answer] = peer.says_line(b"{")
            self.assertIs(answer.re, UNSET)
            self.assert_ended(peer, "bad-frame")

    def test_after_it_some_are_borne(self) -> None:
        peer = self.online(self.alice)
        for line in [
            b"",
            b"{",
            b"[]",
            b'{"t":"sing"}',
            b"\xff",
            b"[" * 5000,
            b'{"t":"ping","id":-1}',
            b"null",
            b"1",
            b'""',
        ]:
            [answer] = peer.says_line(line)
            self.assertEqual((answer.code, answer.re), ("bad-frame", UNSET))
            self.assertFalse(peer.is_closed)
            peer.asks(wire.Ping(peer.next_id()), wire.Pong)
        self.assertEqual(BAD_FRAMES, 10)
        peer.says_line(b"{")
        self.assert_ended(peer, "bad-frame")

    def test_a_line_that_is_too_long_is_the_end(self) -> None:
        for peer in (self.peer(), self.online(self.alice)):
            peer.session.bad_frame(FrameTooLong())
            self.assert_ended(peer, "frame-too-long")

    def test_the_longest_line_grows_with_the_login(self) -> None:
        peer = self.peer()
        peer.greets()
        self.assertEqual(peer.MAX_LENGTH, 16 * 1024)
        peer.asks(peer.login(self.alice), wire.Ready)
        self.assertEqual(peer.MAX_LENGTH, 256 * 1024)

    def test_another_version(self) -> None:
        for version in (0, 2, 10**6):
            peer = self.peer()
            peer.refused(wire.Hello(1, version))
            self.assert_ended(peer, "unsupported-version")
        self.assertEqual(self.place.greetings, [])


class Sends(SessionCase):
    """What is wrong with a message is told, nothing of it is delivered, and the session goes on."""

    def setUp(self) -> None:
        super().setUp()
        self.peer_alice, self.peer_bob = self.online(self.alice), self.online(self.bob)

    def refused_send(self, line: bytes) -> wire.Error:
        [answer] = self.peer_alice.says_line(line)
        self.assertIsInstance(answer, wire.Error)
        self.assertEqual(self.peer_bob.messages(), [])
        self.assertEqual(self.place.mailbox(self.bob.id), [])
        self.peer_alice.asks(wire.Ping(self.peer_alice.next_id()), wire.Pong)
        return answer  # type: ignore[no-any-return]

    def test_it_is_forwarded_as_it_came(self) -> None:
        for n, body in enumerate([b'"AQID"', b'""', rb'"\u00e9\n\"\/"', b'"' + b"A" * 1000 + b'"'], start=1):
            self.peer_alice.says(wire.Send(n, n, (wire.Recipient(self.bob.id, Raw(body)),)))
            message = self.peer_bob.heard[-1]
            self.assertEqual((message.k, message.n, message.user, message.device), (n, n, "alice", self.alice.id))
            self.assertEqual(bytes(message.body), body)
            self.peer_bob.receives()
            self.assertEqual(self.peer_alice.heard[-1], wire.Accepted(n))

    def test_bodies_that_are_none(self) -> None:
        for body in ["5", "null", "{}", "[]", '["AQID"]', "true", '"é"', '"\u2028"', '{"body":"x"}']:
            line = f'{{"t":"send","id":5,"n":1,"to":[{{"device":"{self.bob.id}","body":{body}}}]}}'
            error = self.refused_send(line.encode())
            self.assertEqual((error.code, error.re), ("bad-frame", 5), body)

    def test_one_bad_body_among_good_ones(self) -> None:
        line = (
            f'{{"t":"send","id":5,"n":1,"to":[{{"device":"{self.bob.id}","body":"AQID"}},'
            f'{{"device":"{self.carol.id}","body":5}}]}}'
        )
        self.assertEqual(self.refused_send(line.encode()).code, "bad-frame")

    def test_grammar(self) -> None:
        good = f'{{"device":"{self.bob.id}","body":"AQID"}}'
        for fields in [
            f'"n":0,"to":[{good}]',
            f'"n":9007199254740992,"to":[{good}]',
            '"n":1,"to":[]',
            f'"n":1,"to":[{",".join([good] * 101)}]',
            '"n":1,"to":[{"device":"BOB","body":"AQID"}]',
            f'"n":1,"to":[{{"device":"{self.bob.id}"}}]',
        ]:
            self.assertEqual(self.refused_send(f'{{"t":"send","id":5,{fields}}}'.encode()).code, "bad-frame")

    def test_a_device_named_twice(self) -> None:
        send = self.peer_alice.send_to(1, self.bob.id, self.carol.id, self.bob.id)
        error = self.refused_send(wire.encode(send))
        self.assertEqual((error.code, error.re), ("bad-request", send.id))

    def test_a_device_that_is_not_there(self) -> None:
        error = self.peer_alice.refused(self.peer_alice.send_to(1, "0" * 32))
        self.assertEqual((error.code, error.devices), ("unknown-device", ("0" * 32,)))

    def test_one_that_is_not_there_among_others_is_named(self) -> None:
        send = self.peer_alice.send_to(1, self.bob.id, "0" * 32)
        self.assertEqual(self.peer_alice.says(send), [])
        self.peer_bob.says(wire.Received(1))
        error = self.peer_alice.heard[-1]
        self.assertEqual((error.code, error.re, error.devices), ("unknown-device", send.id, ("0" * 32,)))
        self.assertEqual(self.peer_bob.messages(), [1])

    def test_more_bytes_than_another_line_can_carry(self) -> None:
        for size in (wire.MAX_BODIES + 1, wire.MAX_BODIES + 500):
            body = b'"' + b"A" * (size - 2) + b'"'
            send = wire.Send(7, 1, (wire.Recipient(self.bob.id, Raw(body)),))
            self.assertEqual(self.refused_send(wire.encode(send)).code, "bad-request")

    def test_as_many_bytes_as_it_can_carry(self) -> None:
        body = Raw(b'"' + b"A" * (wire.MAX_BODIES - 2) + b'"')
        self.peer_alice.says(wire.Send(7, 1, (wire.Recipient(self.bob.id, body),)))
        self.assertEqual(self.peer_bob.messages(), [1])
        self.assertGreater(len(wire.encode(self.peer_bob.heard[-1])), wire.MAX_LINE - 1024)

    def test_received_beyond_what_was_handed_over_is_the_end(self) -> None:
        self.peer_alice.says(self.peer_alice.send_to(1, self.bob.id))
        [answer] = self.peer_bob.says(wire.Received(2))
        self.assertIs(answer.re, UNSET)
        self.assert_ended(self.peer_bob, "bad-frame")
        self.assertEqual(self.place.mailbox(self.bob.id), [1])
        self.assertEqual(self.peer_alice.heard[-1], wire.Accepted(self.peer_alice._id))

    def test_received_again_changes_nothing(self) -> None:
        for n in (1, 2):
            self.peer_alice.says(self.peer_alice.send_to(n, self.bob.id))
        for upto in (2, 1, 2, 0):
            self.assertEqual(self.peer_bob.says(wire.Received(upto)), [])
        self.assertFalse(self.peer_bob.is_closed)
        self.assertEqual(len([one for one in self.peer_alice.heard if isinstance(one, wire.Accepted)]), 2)


class Ends(SessionCase):
    """How it ends: a word, a close, and an abort for those who do not even take that."""

    def test_the_last_word_may_take_a_while_and_then_the_connection_is_aborted(self) -> None:
        for peer in (self.peer(), self.online(self.alice)):
            peer.session.end(ProtocolError("no"))
            self.passes(CLOSE_SECONDS - 0.5)
            self.assertFalse(peer.is_aborted)
            self.passes(1)
            self.assertTrue(peer.is_aborted)

    def test_who_has_gone_is_not_aborted(self) -> None:
        peer = self.online(self.alice)
        peer.session.end(ProtocolError("no"))
        peer.hangs_up()
        self.passes(CLOSE_SECONDS + 1)
        self.assertFalse(peer.is_aborted)
        self.assertEqual(self.place.endings, [peer.session])

    def test_each_is_reported_once(self) -> None:
        peers = [self.peer(), self.peer(), self.online(self.alice)]
        peers[1].greets("a-lease")
        self.assertEqual(self.place.greetings, [(peers[2].session, ""), (peers[1].session, "a-lease")])
        for peer in peers:
            peer.hangs_up()
        self.assertEqual(self.place.endings, [peer.session for peer in peers])
        self.assertEqual(len(self.place.clock.getDelayedCalls()), 2, "delivery's own two are left")

    def test_the_service_stops(self) -> None:
        alice, bob, stranger = self.online(self.alice), self.online(self.bob), self.peer()
        alice.says(alice.send_to(1, self.bob.id))
        self.assertEqual(bob.messages(), [1])
        for peer in (bob, alice, stranger):
            peer.session.leave(2.0, "it is late")
            peer.session.leave(0.0, "once is enough")
            self.assertEqual(peer.heard[-1], wire.GoAway(2.0, "it is late"))
        self.assertEqual((stranger.is_closed, alice.is_closed, bob.is_closed), (True, False, False))
        # What crosses it on the way is answered; for bob, who goes, nothing new is handed over.
        alice.says(alice.send_to(2, self.bob.id))
        self.assertEqual([answer.re for answer in alice.heard[-2:]], [3, 4])
        self.assertEqual((bob.messages(), self.place.mailbox(self.bob.id)), ([1], [1, 2]))
        bob.receives()
        self.passes(FINISH_SECONDS)
        self.assertTrue(alice.is_closed and bob.is_closed)
        self.assertFalse(self.place.is_attached(self.bob.id))
        self.passes(LEAVE_SECONDS)
        self.assertTrue(bob.is_aborted and alice.is_aborted and stranger.is_aborted)
        self.assertEqual(len(self.place.endings), 3)

    def test_the_service_stops_and_what_was_handed_over_is_received(self) -> None:
        alice, bob = self.online(self.alice), self.online(self.bob)
        for peer in (alice, bob):
            peer.session.leave(0.0, "it is late")
        alice.says(alice.send_to(1, self.bob.id))
        self.assertEqual(self.place.mailbox(self.bob.id), [1])
        carol, dave = self.online(self.carol), self.online(self.bob)
        self.assertEqual(dave.messages(), [1])
        carol.session.leave(0.0, "it is late")
        dave.session.leave(0.0, "it is late")
        dave.receives()
        self.assertEqual(self.place.mailbox(self.bob.id), [])

    def test_a_receipt_of_who_leaves_counts(self) -> None:
        alice, bob = self.online(self.alice), self.online(self.bob)
        request = alice.send_to(1, self.bob.id)
        alice.says(request)
        bob.session.leave(0.0, "it is late")
        bob.receives()
        self.assertEqual(alice.heard[-1], wire.Accepted(request.id))
        self.assertEqual(self.place.mailbox(self.bob.id), [])

    def test_who_is_told_to_leave_and_logs_in_elsewhere_first_is_not_replaced(self) -> None:
        older = self.online(self.bob)
        older.session.leave(0.0, "it is late")
        newer = self.online(self.bob)
        self.assertTrue(older.is_closed)
        self.assertEqual([type(message) for message in older.heard[-2:]], [wire.Ready, wire.GoAway])
        self.assertFalse(newer.is_closed)

    def test_the_service_stops_while_a_connection_is_being_refused(self) -> None:
        peer = self.online(self.alice)
        peer.session.end(ProtocolError("no"))
        peer.session.leave(0.0, "it is late")
        self.passes(LEAVE_SECONDS)
        self.assertTrue(peer.is_aborted)

    def test_the_newer_session_of_a_device_wins(self) -> None:
        alice, older = self.online(self.alice), self.online(self.bob)
        alice.says(alice.send_to(1, self.bob.id))
        newer = self.online(self.bob)
        self.assert_ended(older, "replaced")
        self.assertIs(older.heard[-1].re, UNSET)
        self.assertEqual(newer.messages(), [1])
        newer.receives()
        alice.says(alice.send_to(2, self.bob.id))
        self.assertEqual((older.messages(), newer.messages()), ([1], [1, 2]))
        self.passes(CLOSE_SECONDS)
        self.assertTrue(older.is_aborted)
        # The older one's end takes nothing from the newer one.
        newer.receives()
        alice.says(alice.send_to(3, self.bob.id))
        self.assertEqual(newer.messages(), [1, 2, 3])

    def test_a_login_that_was_kept_waiting_does_not_replace_one_that_was_asked_for_later(self) -> None:
        """The older connection may be long dead: its client has given it up and made the newer one."""
        older = self.peer()
        older.greets()
        self.place.store.held = True
        older.says(older.login(self.bob))
        self.place.store.held = False  # for the one that waits; others are answered
        newer = self.online(self.bob)
        self.place.store.release()
        self.assert_ended(older, "replaced")
        self.assertFalse(newer.is_closed)
        alice = self.online(self.alice)
        alice.says(alice.send_to(1, self.bob.id))
        self.assertEqual((older.messages(), newer.messages()), ([], [1]))

    def test_what_was_handed_over_and_not_received_goes_to_the_mailbox(self) -> None:
        alice, bob = self.online(self.alice), self.online(self.bob)
        for n in (1, 2, 3):
            alice.says(alice.send_to(n, self.bob.id))
        bob.says(wire.Received(1))
        bob.hangs_up()
        self.assertEqual(self.place.mailbox(self.bob.id), [2, 3])
        self.assertEqual(len([one for one in alice.heard if isinstance(one, wire.Accepted)]), 3)
        again = self.peer()
        self.assertEqual(again.logs_in(self.bob).mailbox, 2)
        self.assertEqual(again.messages(), [2, 3])

    def test_what_a_sender_who_left_was_owed_is_still_delivered(self) -> None:
        alice, bob = self.online(self.alice), self.online(self.bob)
        alice.says(alice.send_to(1, self.bob.id, self.carol.id))
        alice.hangs_up()
        bob.receives()
        self.assertEqual(self.place.mailbox(self.carol.id), [1])
