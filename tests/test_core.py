"""Two people, and their devices, talk: what the core does when nothing goes wrong, or only the network does."""

from __future__ import annotations

from fastchat.errors import NameNotAllowed, RequestError
from fastchat.protocols import wire
from fastchat_client.events import Connected, MailboxProgress, MessageReceived, State
from fastchat_client.speaking import MAX_TEXT
from tests.support.conversation import DAY, SceneTest


class Talk(SceneTest):
    def test_a_message_and_its_marks(self) -> None:
        alice, bob = self.scene.person("alice"), self.scene.person("bob")
        hello = alice.says("bob", "hello")
        self.scene.settle()
        self.assertEqual(bob.reads("alice"), ["hello"])
        self.assertEqual(bob.vault.unread("alice"), 1)
        self.assertEqual(alice.states(hello), [State.WAITING, State.ACCEPTED])
        self.scene.pass_time(2)
        self.assertEqual(alice.states(hello)[2:], [State.DELIVERED])
        bob.core.mark_read("alice")
        self.scene.pass_time(2)
        self.assertEqual(alice.states(hello)[3:], [State.READ])
        self.assertEqual(alice.vault.state_of(hello), "read")
        self.assertEqual(bob.vault.unread("alice"), 0)

    def test_what_a_face_is_told_of_a_message(self) -> None:
        alice, bob = self.scene.person("alice"), self.scene.person("bob")
        hello = alice.says("bob", "grüße, 你好 \0 \u2028")
        self.scene.settle()
        (event,) = bob.told(MessageReceived)
        self.assertEqual(
            event,
            MessageReceived("alice", "alice", "grüße, 你好 \0 \u2028", "2027-01-15T08:00:00.000Z", hello),
        )
        self.assertEqual(alice.vault.history("bob")[0].id, hello)
        self.assertEqual([contact.user for contact in bob.vault.contacts()], ["alice"])
        self.assertEqual([c.user for c in bob.vault.conversations()], ["alice"])

    def test_a_first_message_is_marked_too(self) -> None:
        """It was held until its sender's keys were there."""
        alice, bob = self.scene.person("alice"), self.scene.person("bob")
        self.scene.pass_time(2)
        hello = alice.says("bob", "hello")
        while not bob.vault.execute("SELECT COUNT(*) FROM held").fetchone()[0]:
            alice.exchange()
            bob.exchange()
        bob.core.tick()
        self.scene.pass_time(2)
        self.assertEqual(alice.vault.state_of(hello), "delivered")

    def test_marks_are_not_answered_with_marks(self) -> None:
        alice, bob = self.scene.person("alice"), self.scene.person("bob")
        alice.says("bob", "hello")
        self.scene.pass_time(5)
        sent = len(self.network.sends)
        self.scene.pass_time(20)
        self.assertEqual(len(self.network.sends), sent)
        self.assertEqual(bob.vault.waiting(), 0)

    def test_many_messages_are_marked_with_one(self) -> None:
        alice, _bob = self.scene.person("alice"), self.scene.person("bob")
        ids = [alice.says("bob", str(i)) for i in range(30)]
        self.scene.settle()
        sent = len(self.network.sends)
        self.scene.pass_time(2)
        self.assertEqual(len(self.network.sends), sent + 1)
        self.assertEqual({alice.vault.state_of(one) for one in ids}, {"delivered"})

    def test_receipts_are_one_for_a_batch(self) -> None:
        alice, bob = self.scene.person("alice"), self.scene.person("bob")
        alice.says("bob", "first")
        self.scene.settle()
        bob.disconnects()
        for i in range(40):
            alice.says("bob", str(i))
        self.scene.settle()
        bob.said.clear()
        bob.connects()
        self.scene.settle()
        self.assertEqual(len(bob.reads("alice")), 41)
        self.assertEqual([m.upto for m in bob.said if isinstance(m, wire.Received)], [40])

    def test_simultaneous_first_messages(self) -> None:
        alice, bob = self.scene.person("alice"), self.scene.person("bob")
        self.network.withhold |= {alice.device, bob.device}
        alice.says("bob", "a1")
        bob.says("alice", "b1")
        self.scene.settle()
        self.network.withhold.clear()
        for person in (alice, bob):
            person.disconnects()
            person.connects()
        self.scene.settle()
        for i in (2, 3):
            alice.says("bob", f"a{i}")
            bob.says("alice", f"b{i}")
            self.scene.settle()
        self.assertEqual(alice.reads("bob"), ["b1", "b2", "b3"])
        self.assertEqual(bob.reads("alice"), ["a1", "a2", "a3"])

    def test_oneself(self) -> None:
        alice = self.scene.person("alice")
        note = alice.says("alice", "buy milk")
        self.scene.settle()
        self.assertEqual(alice.vault.state_of(note), "accepted")
        self.assertEqual([item.text for item in alice.vault.history("alice")], ["buy milk"])

    def test_what_cannot_be_sent(self) -> None:
        alice = self.scene.person("alice")
        for to, text, error in [
            ("Bob", "x", NameNotAllowed),
            ("bob", "", RequestError),
            ("bob", "x" * (MAX_TEXT + 1), RequestError),
            ("bob", "\ud800", RequestError),
        ]:
            self.assertRaises(error, alice.says, to, text)
        self.assertEqual(alice.vault.history("bob"), [])

    def test_the_longest_text(self) -> None:
        alice, bob = self.scene.person("alice"), self.scene.person("bob")
        alice.says("bob", "x" * MAX_TEXT)
        self.scene.settle()
        self.assertEqual(bob.reads("alice"), ["x" * MAX_TEXT])

    def test_somebody_who_is_not_there(self) -> None:
        alice = self.scene.person("alice")
        lost = alice.says("nobody", "hello?")
        self.scene.settle()
        self.assertEqual(alice.states(lost), [State.WAITING, State.FAILED])
        self.assertEqual(alice.vault.history("nobody")[0].reason, "There is nobody of this name on this network.")

    def test_somebody_who_joins_a_moment_after_they_were_written_to(self) -> None:
        alice = self.scene.person("alice")
        alice.says("bob", "are you there?")
        self.scene.settle()
        bob = self.scene.person("bob")
        alice.says("bob", "and now?")
        self.scene.pass_time(3)
        self.assertEqual(bob.reads("alice"), ["and now?"])


class Devices(SceneTest):
    def test_every_device_has_everything(self) -> None:
        alice, bob = self.scene.person("alice"), self.scene.person("bob")
        alice.says("bob", "before")
        self.scene.settle()
        phone = self.scene.further_device(alice)
        self.scene.pass_time(310, step=10)
        alice.says("bob", "from the desk")
        self.scene.settle()
        phone.says("bob", "from the phone")
        self.scene.settle()
        bob.says("alice", "to both")
        self.scene.settle()
        self.assertEqual(bob.reads("alice"), ["before", "from the desk", "from the phone"])
        for device in (alice, phone):
            self.assertEqual(device.reads("bob"), ["to both"])
            texts = [item.text for item in device.vault.history("bob")]
            self.assertEqual(texts[-3:], ["from the desk", "from the phone", "to both"])
        own = [event for event in phone.told(MessageReceived) if event.own]
        self.assertEqual(
            [(event.sender, event.conversation, event.text) for event in own], [("alice", "bob", "from the desk")]
        )

    def test_a_new_device_is_known_as_soon_as_it_writes(self) -> None:
        alice, bob = self.scene.person("alice"), self.scene.person("bob")
        alice.says("bob", "before")
        self.scene.settle()
        phone = self.scene.further_device(alice)
        phone.says("bob", "it is me, on the phone")
        self.scene.settle()
        self.assertEqual(bob.reads("alice"), ["before", "it is me, on the phone"])
        bob.says("alice", "hello, phone")
        self.scene.settle()
        self.assertEqual(phone.reads("bob"), ["hello, phone"])


class Away(SceneTest):
    def test_composed_offline_sent_in_order(self) -> None:
        alice, bob, carol = (self.scene.person(name) for name in ("alice", "bob", "carol"))
        alice.disconnects()
        ids = [alice.says("bob" if i % 3 else "carol", str(i)) for i in range(12)]
        self.assertEqual([alice.vault.state_of(one) for one in ids], ["waiting"] * 12)
        self.assertEqual(alice.vault.waiting(), 12)
        alice.connects()
        self.scene.settle()
        self.assertEqual(bob.reads("alice"), ["1", "2", "4", "5", "7", "8", "10", "11"])
        self.assertEqual(carol.reads("alice"), ["0", "3", "6", "9"])
        self.assertEqual(alice.vault.waiting(), 0)

    def test_a_day_away(self) -> None:
        alice, bob = self.scene.person("alice"), self.scene.person("bob")
        alice.says("bob", "hello")
        self.scene.settle()
        bob.disconnects()
        bob.events.clear()
        for hour in range(24):
            alice.says("bob", f"hour {hour}")
            self.scene.settle()
            # Nobody ticks for an hour, as on a machine that sleeps: the connection is given up, and made again.
            self.scene.pass_time(DAY / 24, step=DAY / 24)
            self.assertIsNone(alice.line)
            alice.connects()
        bob.connects()
        self.scene.settle()
        self.assertEqual(bob.reads("alice"), ["hello", *(f"hour {hour}" for hour in range(24))])
        self.assertEqual(bob.told(Connected)[0].waiting, 24)
        self.assertEqual(bob.told(MailboxProgress)[-1], MailboxProgress(24, 24))

    def test_sent_again_after_the_connection_broke_with_the_same_bytes(self) -> None:
        alice, bob = self.scene.person("alice"), self.scene.person("bob")
        alice.says("bob", "hello")
        self.scene.settle()
        # The network takes the message, but its answer is lost with the connection.
        self.network.mangle = lambda device, message: [] if isinstance(message, wire.Accepted) else [message]
        second = alice.says("bob", "again?")
        self.scene.settle()
        alice.disconnects()
        self.network.mangle = lambda device, message: [message]
        self.assertEqual(alice.vault.state_of(second), "waiting")
        alice.connects()
        self.scene.settle()
        sends = [send for device, send in self.network.sends if device == alice.device]
        self.assertEqual([send.n for send in sends], [1, 2, 2])
        self.assertEqual([bytes(r.body) for r in sends[1].to], [bytes(r.body) for r in sends[2].to])
        self.assertEqual(bob.reads("alice"), ["hello", "again?"])
        self.assertEqual(alice.vault.state_of(second), "accepted")

    def test_duplicates_are_dropped_and_acknowledged(self) -> None:
        alice, bob = self.scene.person("alice"), self.scene.person("bob")
        self.network.mangle = lambda device, message: self._twice(message)
        alice.says("bob", "once")
        self.scene.settle()
        self.assertEqual(bob.reads("alice"), ["once"])
        self.assertEqual(len(bob.told(MessageReceived)), 1)

    def _twice(self, message: wire.ServerMessage) -> list[wire.ServerMessage]:
        if isinstance(message, wire.Message):
            self.seen = getattr(self, "seen", 0) + 2
            return [
                wire.Message(self.seen - 1 + i, message.user, message.device, message.n, message.at, message.body)
                for i in range(2)
            ]
        return [message]

    def test_out_of_order(self) -> None:
        alice, bob = self.scene.person("alice"), self.scene.person("bob")
        alice.says("bob", "0")
        self.scene.settle()
        bob.disconnects()
        for i in range(1, 8):
            alice.says("bob", str(i))
        self.scene.settle()
        mailbox = self.network.devices[bob.device].mailbox
        mailbox.reverse()
        bob.connects()
        self.scene.settle()
        self.assertEqual(bob.reads("alice"), ["0", "7", "6", "5", "4", "3", "2", "1"])

    def test_no_more_than_the_limit_is_under_way(self) -> None:
        alice, bob = self.scene.person("alice"), self.scene.person("bob")
        held: list[wire.ServerMessage] = []

        def hold_accepts(device: str, message: wire.ServerMessage) -> list[wire.ServerMessage]:
            if isinstance(message, wire.Accepted):
                held.append(message)
                return []
            return [message]

        self.network.mangle = hold_accepts
        for i in range(100):
            alice.says("bob", str(i))
        self.scene.settle()
        self.assertEqual(len(held), 64)
        for message in held:
            alice.core.receive(message)
        self.scene.settle()
        self.assertEqual(len(bob.reads("alice")), 100)

    def test_sends_are_paced(self) -> None:
        limits = self.network.limits
        self.network.limits = wire.SessionLimits(
            limits.max_line, 64, 5.0, limits.window_messages, limits.window_bytes, limits.ping_every, limits.dead_after
        )
        alice, bob = self.scene.person("alice"), self.scene.person("bob")
        for i in range(30):
            alice.says("bob", str(i))
        self.scene.settle()
        self.assertEqual(len(bob.reads("alice")), 10)
        self.scene.pass_time(4)
        self.assertEqual(bob.reads("alice"), [str(i) for i in range(30)])
