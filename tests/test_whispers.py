"""Typing and presence: heard at once or never, kept nowhere, and no danger to the messages beside them."""

from __future__ import annotations

from msgspec import Raw

from fastchat.errors import ProtocolError, Unreachable
from fastchat.protocols import wire
from fastchat_client import ratchet, settings, speaking
from fastchat_client.content import Delivered, Presence, TreeHead, Typing, encode_content, write_plain
from fastchat_client.events import MessageUnreadable, Notice, PresenceChanged, TypingNow
from fastchat_client.sessions import MOST_UNHEARD
from fastchat_client.whispering import ANSWER_EVERY, PRESENCE_LASTS
from tests.support.conversation import Person, SceneTest
from tests.support.joined import JoinedTest
from tests.support.network import Mail


class Whispering(SceneTest):
    def setUp(self) -> None:
        super().setUp()
        self.alice, self.bob = self.scene.person("alice"), self.scene.person("bob")
        self.alice.says("bob", "hello")
        self.scene.settle()
        self.bob.says("alice", "hello to you")
        self.scene.settle()
        self.scene.pass_time(2)

    def whispers(self, person: Person) -> list[wire.Whisper]:
        """Those that have left since the last look."""
        said = [message for message in person.said if isinstance(message, wire.Whisper)]
        person.said.clear()
        return said

    def types(self, person: Person, to: str) -> None:
        person.core.typing(to)
        self.scene.settle()

    def sealed(self, content: Typing | Presence | Delivered, seq: int, conversation: str = "bob") -> Raw:
        """A body for bob as a program of alice's might make it."""
        parts = self.alice.core._parts
        account = parts.accounts.get("bob")
        assert account is not None
        (peer,) = account.peers
        head = TreeHead(parts.witness.size, parts.witness.root)
        plain = write_plain(parts.me, peer.identity, conversation, seq, head, 1, encode_content(content))
        with self.alice.vault.transaction():
            return ratchet.body_to_wire(parts.sessions.seal(parts.me, peer, plain))

    def hears(self, body: Raw, *, whispered: bool, n: int = 0) -> None:
        if whispered:
            self.network.lines[self.bob.device].tell(wire.Whispered("alice", self.alice.device, body))
        else:
            self.network.post(self.bob.device, Mail("alice", self.alice.device, n, 0, bytes(body)))
        self.scene.settle()

    def presence(self, person: Person) -> list[tuple[str, bool]]:
        """What was told of others since the last look."""
        told = [(event.user, event.online) for event in person.told(PresenceChanged)]
        person.events.clear()
        return told

    def everything_kept(self, person: Person) -> list[object]:
        """All that a vault holds but how far its sessions have come, and who was seen when."""
        tables = [name for (name,) in person.vault.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        rows = {name: person.vault.execute(f"SELECT * FROM {name}").fetchall() for name in tables}  # noqa: S608
        return [rows[name] for name in sorted({*tables} - {"sessions", "presence"})]


class Typings(Whispering):
    def test_it_is_shown_and_stored_nowhere(self) -> None:
        before = [self.everything_kept(person) for person in (self.alice, self.bob)]
        sends = len(self.network.sends)
        self.types(self.alice, "bob")
        self.assertEqual(self.bob.told(TypingNow), [TypingNow("alice", "alice")])
        self.assertEqual([self.everything_kept(person) for person in (self.alice, self.bob)], before)
        self.assertEqual(len(self.network.sends), sends)
        self.assertEqual([device.mailbox for device in self.network.devices.values()], [[], []])

    def test_who_is_not_there_does_not_hear_of_it_later(self) -> None:
        self.bob.disconnects()
        self.types(self.alice, "bob")
        self.bob.connects()
        self.scene.settle()
        self.assertEqual(self.bob.told(TypingNow), [])

    def test_at_most_one_in_four_seconds(self) -> None:
        self.whispers(self.alice)
        for _ in range(9):
            self.types(self.alice, "bob")
            self.scene.clock.advance(1)
        self.assertEqual(len(self.whispers(self.alice)), 3)

    def test_shown_at_most_once_a_second(self) -> None:
        line = self.network.lines[self.bob.device]
        for _ in range(3):
            line.tell(wire.Whispered("alice", self.alice.device, self.sealed(Typing(), 0)))
        self.scene.settle()
        self.assertEqual(len(self.bob.told(TypingNow)), 1)

    def test_to_nobody_unless_connected(self) -> None:
        self.alice.disconnects()
        self.alice.core.typing("bob")
        self.alice.connects()
        self.scene.settle()
        self.assertEqual(self.bob.told(TypingNow), [])

    def test_nobodys_keys_are_asked_for(self) -> None:
        self.scene.person("carol")
        self.network.requests.clear()
        self.types(self.alice, "carol")
        self.assertEqual([request for _, request in self.network.requests], [])

    def test_of_the_blocked_nothing(self) -> None:
        settings.block(self.bob.vault, "alice", True)
        self.types(self.alice, "bob")
        self.assertEqual(self.bob.told(TypingNow), [])
        self.whispers(self.bob)
        self.types(self.bob, "alice")
        self.assertEqual(self.whispers(self.bob), [])

    # --- no replay of one as the other -----------------------------------------------------------------------------

    def still_reads(self) -> None:
        self.alice.says("bob", "still there?")
        self.scene.settle()
        self.assertEqual(self.bob.reads("alice")[-1], "still there?")
        self.assertTrue(self.bob.core.ready)

    def test_a_message_handed_over_as_a_whisper(self) -> None:
        self.bob.disconnects()
        message_id = self.alice.says("bob", "important")
        self.scene.settle()
        (mail,) = self.network.devices[self.bob.device].mailbox
        self.network.devices[self.bob.device].mailbox.clear()
        self.bob.connects()
        self.scene.settle()
        self.hears(Raw(mail.body), whispered=True)
        self.assertEqual(self.bob.reads("alice"), ["hello"])
        self.network.post(self.bob.device, mail)
        self.scene.settle()
        self.assertEqual(self.bob.reads("alice"), ["hello", "important"], "it can still come as what it is")
        self.assertIsNotNone(self.bob.shown(message_id))

    def test_a_whisper_handed_over_as_a_message(self) -> None:
        for n in (0, 77):
            self.hears(self.sealed(Typing(), 0), whispered=False, n=n)
        self.assertEqual(self.bob.told(TypingNow), [])
        self.assertEqual([event.id for event in self.bob.told(MessageUnreadable)], [f"{self.alice.device}.77"])
        self.assertEqual([event.code for event in self.bob.told(Notice)], [ProtocolError.code])
        self.still_reads()

    def test_what_is_only_to_be_whispered_in_a_message(self) -> None:
        n = 78
        for content in (Typing(), Presence(online=True)):
            self.hears(self.sealed(content, n), whispered=False, n=n)
            n += 1
        self.assertEqual(self.bob.told(TypingNow), [])
        (notice,) = self.bob.told(Notice)
        self.assertEqual(notice.code, ProtocolError.code)
        self.still_reads()

    def test_what_is_not_to_be_whispered(self) -> None:
        self.hears(self.sealed(Delivered((1,)), 0), whispered=True)
        self.hears(self.sealed(Typing(), 0, "carol"), whispered=True)
        self.hears(self.sealed(Typing(), 5), whispered=True)
        self.hears(Raw(b'"AQAA"'), whispered=True)
        self.hears(Raw(b'"Ag=="'), whispered=True)
        self.assertEqual(self.bob.told(TypingNow) + self.bob.told(Notice), [])
        self.still_reads()

    def test_a_whisper_twice(self) -> None:
        body = self.sealed(Typing(), 0)
        for _ in range(2):
            self.hears(body, whispered=True)
            self.scene.clock.advance(2)
        self.assertEqual(len(self.bob.told(TypingNow)), 1)

    def test_of_somebody_else_than_it_is(self) -> None:
        carol = self.scene.person("carol")
        carol.says("bob", "hello")
        self.scene.settle()
        line = self.network.lines[self.bob.device]
        for user, device in (("carol", carol.device), ("carol", self.alice.device), ("mallory", "f" * 32)):
            line.tell(wire.Whispered(user, device, self.sealed(Typing(), 0)))
            self.scene.settle()
        self.assertEqual(self.bob.told(TypingNow), [])
        self.still_reads()

    # --- no danger to messages ---------------------------------------------------------------------------------------

    def test_a_conversation_with_nobody_there_stays_readable(self) -> None:
        """Alice types for hours, and nothing of it comes: bob can read what she says then, all of it."""
        self.bob.disconnects()
        self.whispers(self.alice)
        for _ in range(2 * MOST_UNHEARD):
            self.types(self.alice, "bob")
            self.scene.clock.advance(5)
        self.assertEqual(len(self.whispers(self.alice)), MOST_UNHEARD)
        texts = [f"text {number}" for number in range(60)]
        for text in texts:
            self.alice.says("bob", text)
        self.scene.settle()
        self.alice.connects()
        self.bob.connects()
        self.scene.settle()
        self.assertEqual(self.bob.reads("alice"), ["hello", *texts])

    def test_what_overtakes_a_full_mailbox_costs_no_message_its_key(self) -> None:
        """Bob has a hundred messages waiting; while he fetches them, alice is typing."""
        self.bob.disconnects()
        texts = [f"text {number}" for number in range(100)]
        for text in texts:
            self.alice.says("bob", text)
        self.scene.settle()
        self.network.withhold.add(self.bob.device)
        self.bob.connects()
        self.scene.settle()
        self.hears(self.sealed(Typing(), 0), whispered=True)
        self.assertEqual(self.bob.told(TypingNow), [], "it is not even looked at")
        self.network.withhold.clear()
        self.network.lines[self.bob.device].deliver()
        self.scene.settle()
        self.assertEqual(self.bob.reads("alice"), ["hello", *texts])

    def test_nothing_is_whispered_behind_much_that_was_not_answered(self) -> None:
        self.bob.disconnects()
        for number in range(MOST_UNHEARD):
            self.alice.says("bob", str(number))
        self.scene.settle()
        self.whispers(self.alice)
        self.types(self.alice, "bob")
        self.assertEqual(self.whispers(self.alice), [])
        self.bob.connects()
        self.scene.pass_time(5)
        self.whispers(self.alice)
        self.types(self.alice, "bob")
        self.assertEqual(len(self.whispers(self.alice)), 1)


class Presences(Whispering):
    def test_both_see_that_the_other_is_there(self) -> None:
        self.assertEqual(self.presence(self.alice), [("bob", True)])
        self.assertEqual(self.presence(self.bob), [("alice", True)])

    def test_who_comes_back_is_told_and_tells(self) -> None:
        self.presence(self.bob)
        self.alice.disconnects()
        self.scene.pass_time(PRESENCE_LASTS + 300, step=10)
        self.assertEqual(self.presence(self.bob), [("alice", False)])
        seen = settings.last_seen(self.bob.vault, "alice")
        self.assertLess(seen, (self.scene.clock.seconds() - PRESENCE_LASTS) * 1000)
        self.presence(self.alice)
        self.alice.connects()
        self.scene.pass_time(2)
        self.assertEqual(self.presence(self.bob), [("alice", True)])
        self.assertEqual(self.presence(self.alice), [("bob", False), ("bob", True)], "as long as nobody could know")
        self.assertGreater(settings.last_seen(self.bob.vault, "alice"), seen)

    def test_who_is_there_stays_there(self) -> None:
        self.presence(self.bob)
        self.scene.pass_time(3 * PRESENCE_LASTS, step=10)
        self.assertEqual(self.presence(self.bob), [])

    def test_leaving_is_said(self) -> None:
        self.presence(self.bob)
        self.alice.core.leave()
        self.scene.settle()
        self.assertEqual(self.presence(self.bob), [("alice", False)])

    def test_one_of_two_devices_leaves(self) -> None:
        second = self.scene.further_device(self.alice)
        self.scene.pass_time(310, step=10)
        second.says("bob", "from here, too")
        self.scene.settle()
        self.bob.says("alice", "fine")
        self.scene.settle()
        second.disconnects()
        second.connects()
        self.scene.pass_time(2)
        self.presence(self.bob)
        self.alice.core.leave()
        self.scene.settle()
        self.assertEqual(self.presence(self.bob), [])
        second.core.leave()
        self.scene.settle()
        self.assertEqual(self.presence(self.bob), [("alice", False)])

    def test_switched_off_nothing_is_said_and_nothing_shown(self) -> None:
        self.presence(self.bob)
        self.presence(self.alice)
        self.alice.core.set_presence(False)
        self.scene.settle()
        self.assertEqual(self.presence(self.bob), [("alice", False)])
        self.assertEqual(self.presence(self.alice), [("bob", False)])
        self.assertEqual(settings.last_seen(self.alice.vault, "bob"), 0)
        self.whispers(self.alice)
        for person in (self.alice, self.bob):
            person.disconnects()
            person.connects()
        self.scene.pass_time(600, step=10)
        self.assertEqual(self.whispers(self.alice), [])
        self.assertEqual(self.presence(self.alice), [])
        self.types(self.alice, "bob")
        self.assertEqual(len(self.whispers(self.alice)), 1, "typing is another matter")
        self.alice.core.set_presence(True)
        self.scene.pass_time(2)
        self.assertEqual(self.presence(self.alice), [("bob", True)])

    def test_the_setting_outlives_the_program(self) -> None:
        self.alice.core.set_presence(False)
        self.alice.dies()
        self.alice.said.clear()
        self.alice.connects()
        self.scene.pass_time(5)
        self.assertEqual(self.whispers(self.alice), [])

    def test_an_answer_is_not_answered_and_not_given_without_end(self) -> None:
        self.whispers(self.bob)
        for _ in range(5):
            self.alice.core.set_presence(True)  # greets anew
            self.scene.pass_time(2)
        self.assertLessEqual(len(self.whispers(self.bob)), 1)
        self.scene.pass_time(ANSWER_EVERY)
        self.whispers(self.bob)
        self.alice.core.set_presence(True)
        self.scene.pass_time(2)
        self.assertEqual(len(self.whispers(self.bob)), 1)

    def test_only_who_is_asked_answers(self) -> None:
        self.scene.pass_time(ANSWER_EVERY + 10)
        self.whispers(self.bob)
        self.hears(self.sealed(Presence(online=True), 0), whispered=True)
        self.assertEqual(self.whispers(self.bob), [])
        self.hears(self.sealed(Presence(online=True, answer=True), 0), whispered=True)
        self.assertEqual(len(self.whispers(self.bob)), 1)

    def test_only_to_those_whom_one_has_talked_with(self) -> None:
        carol = self.scene.person("carol")
        settings.block(self.alice.vault, "bob", True)
        self.alice.core.set_presence(True)
        self.whispers(self.alice)
        self.scene.pass_time(300, step=10)
        self.assertEqual(self.whispers(self.alice), [], "not to the blocked, not to strangers")
        self.assertEqual(self.presence(carol), [])

    def test_who_was_never_answered_is_a_stranger(self) -> None:
        """Else a line to somebody would be enough to watch for ever when they come and go."""
        carol = self.scene.person("carol")
        carol.says("alice", "do you know me?")
        self.scene.pass_time(2)
        carol.core.set_presence(True)
        self.presence(self.alice)
        self.whispers(self.alice)
        self.alice.core.set_presence(True)
        self.scene.pass_time(300, step=10)
        to = {recipient.device for whisper in self.whispers(self.alice) for recipient in whisper.to}
        self.assertEqual(to, {self.bob.device})
        self.assertEqual([user for user, _ in self.presence(self.alice)], [])
        self.assertEqual(self.presence(carol), [])
        self.assertEqual(settings.last_seen(self.alice.vault, "carol"), 0)
        self.alice.says("carol", "no")
        self.scene.pass_time(3)
        self.assertEqual((self.presence(self.alice), self.presence(carol)), ([("carol", True)], [("alice", True)]))

    def test_a_connection_that_breaks_leaves_no_trace(self) -> None:
        self.alice.disconnects()
        self.alice.core.leave()
        self.alice.connects()
        self.scene.settle()
        self.assertTrue(self.alice.core.ready)
        self.assertNotIsInstance(self.alice.core.wants_close, Unreachable)

    def test_composed_elsewhere_meanwhile(self) -> None:
        other = self.alice.another_process()
        self.addCleanup(other.close)
        speaking.compose_text(other, "bob", "from another window", 1)
        self.types(self.alice, "bob")
        self.scene.pass_time(2)
        self.assertEqual(self.bob.reads("alice")[-1], "from another window")


class InTheNetwork(JoinedTest):
    """The same, with the real server in between."""

    def stored(self) -> dict[str, str]:
        """All that the server's store holds."""
        return {name: repr(held) for name, held in vars(self.net.memory).items() if not callable(held)}

    def test_the_server_stores_nothing_of_it(self) -> None:
        alice, bob = self.net.person("alice"), self.net.person("bob")
        alice.sends("bob", "hello")
        self.net.passes(seconds=3)
        bob.sends("alice", "hello to you")
        self.net.passes(seconds=3)
        for person in (alice, bob):
            self.assertEqual([event.online for event in person.events if isinstance(event, PresenceChanged)], [True])
            person.events.clear()
        before, outbox = self.stored(), alice.vault.execute("SELECT * FROM outbox").fetchall()
        alice.core.typing("bob")
        alice.flush()
        self.net.settles()
        self.assertEqual([type(event) for event in bob.events], [TypingNow])
        alice.core.set_presence(True)
        self.net.passes(seconds=3)
        self.assertEqual(alice.vault.execute("SELECT * FROM outbox").fetchall(), outbox)
        self.assertEqual(self.stored(), before)
        alice.goes_offline()
        self.assertEqual(bob.events[-1].__class__, PresenceChanged)
        self.assertEqual([event.online for event in bob.events if isinstance(event, PresenceChanged)], [False])
