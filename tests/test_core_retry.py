"""Messages that cannot be read: shown as such, asked for again within bounds, and put in their place when they come."""

from __future__ import annotations

from dataclasses import replace

from msgspec import Raw

from fastchat.protocols import wire
from fastchat_client.content import Resent, Retry, Text, encode_content
from fastchat_client.events import MessageReceived, MessageUnreadable
from fastchat_client.group_acting import InviteAct
from fastchat_client.groups import group_info
from tests.support.conversation import DAY, Person, SceneTest
from tests.support.keys import root_key
from tests.support.network import Mail


def damaged(mail: Mail) -> Mail:
    """Its last byte but the quote is another one."""
    body = bytearray(mail.body)
    body[-6] = ord("A") if body[-6] != ord("A") else ord("B")
    return replace(mail, body=bytes(body))


class Unreadable(SceneTest):
    def setUp(self) -> None:
        super().setUp()
        self.alice, self.bob = self.scene.person("alice"), self.scene.person("bob")
        self.alice.says("bob", "first")
        self.scene.settle()
        self.bob.says("alice", "answer")
        self.scene.settle()

    def _damage_all(self, *devices: str) -> None:
        """The server damages everything that goes to these devices."""

        def mangle(device: str, message: wire.ServerMessage) -> list[wire.ServerMessage]:
            if isinstance(message, wire.Message) and device in devices:
                mail = damaged(Mail(message.user, message.device, message.n, message.at, bytes(message.body)))
                return [wire.Message(message.k, mail.user, mail.device, mail.n, mail.at, Raw(mail.body))]
            return [message]

        self.network.mangle = mangle

    def _honest(self) -> None:
        self.network.mangle = lambda device, message: [message]

    def _count(self, person: Person) -> int:
        return len([device for device, _ in self.network.sends if device == person.device])

    def test_a_damaged_message_comes_again_to_its_place(self) -> None:
        self.bob.disconnects()
        ids = [self.alice.says("bob", text) for text in ("one", "two", "three")]
        self.scene.settle()
        box = self.network.devices[self.bob.device].mailbox
        box[1] = damaged(box[1])
        self.bob.events.clear()
        self.bob.connects()
        self.scene.settle()
        (unreadable,) = self.bob.told(MessageUnreadable)
        self.assertEqual((unreadable.id, unreadable.sender, unreadable.retrying), (ids[1], "alice", True))
        self.assertEqual(unreadable.reason, "its envelope is damaged, or was not sealed for this device")
        self.assertEqual([event.id for event in self.bob.told(MessageReceived)], [ids[0], ids[2], ids[1]])
        self.assertEqual(self.bob.reads("alice"), ["first", "one", "two", "three"])
        self.assertEqual([item.id for item in self.bob.vault.history("alice")][-3:], ids)
        self.scene.pass_time(3)
        self.assertEqual({self.alice.vault.state_of(one) for one in ids}, {"delivered"})
        self.assertEqual(self.bob.vault.unread("alice"), 4)

    def test_what_a_group_is_called_comes_again(self) -> None:
        self.bob.disconnects()
        _, team = self.alice.core.group_create("team")
        self.scene.settle()
        self.alice.core.group_act(team, InviteAct("bob", 0))
        self.scene.settle()
        box = self.network.devices[self.bob.device].mailbox
        box[:] = [damaged(mail) for mail in box]
        self.bob.connects()
        self.scene.pass_time(2)
        info = group_info(self.bob.vault, team)
        assert info is not None
        self.assertEqual((len(box), info.name, self.bob.reads("alice")), (0, "team", ["first"]))

    def test_until_it_comes_there_is_a_placeholder(self) -> None:
        self._damage_all(self.bob.device)
        self.alice.says("bob", "lost for now")
        self.scene.settle()
        item = self.bob.vault.history("alice")[-1]
        self.assertEqual((item.unreadable, item.text, item.reason), (True, "", "bad-envelope"))

    def test_sessions_that_are_gone_are_replaced(self) -> None:
        """As after a vault was restored from a backup."""
        with self.bob.vault.transaction():
            self.bob.vault.execute("DELETE FROM sessions")
        self.bob.dies()
        self.bob.connects()
        self.alice.says("bob", "do you hear me?")
        self.scene.settle()
        self.assertEqual(self.bob.told(MessageUnreadable)[0].retrying, True)
        self.assertEqual(self.bob.reads("alice"), ["first", "do you hear me?"])
        for i in range(3):
            self.alice.says("bob", f"a{i}")
            self.bob.says("alice", f"b{i}")
            self.scene.settle()
        self.assertEqual(self.bob.reads("alice")[2:], ["a0", "a1", "a2"])
        self.assertEqual(self.alice.reads("bob"), ["answer", "b0", "b1", "b2"])
        self.assertEqual(len(self.bob.told(MessageUnreadable)), 1)

    def test_asked_at_most_twice(self) -> None:
        self._damage_all(self.bob.device)
        self.alice.says("bob", "never readable")
        self.scene.settle()
        asked = self._retries_for(2)
        self.scene.pass_time(6 * 3600, step=20)
        self.assertEqual(asked, 1)
        self.assertEqual(self._retries_for(2), 2)
        self.assertEqual(self.bob.reads("alice")[1], "?")

    def _retries_for(self, n: int) -> int:
        rows = self.bob.vault.execute("SELECT content FROM outbox")
        return sum(row[0] == encode_content(Retry(n, "bad-envelope")) for row in rows)

    def test_the_second_time_it_works(self) -> None:
        self._damage_all(self.bob.device)
        text = self.alice.says("bob", "at last")
        self.scene.settle()
        self._honest()
        self.scene.pass_time(2 * 3600, step=20)
        self.assertIn("at last", self.bob.reads("alice"))
        self.assertEqual([event.id for event in self.bob.told(MessageReceived)].count(text), 1)

    def test_two_that_cannot_read_each_other_do_not_keep_each_other_busy(self) -> None:
        self._damage_all(self.alice.device, self.bob.device)
        for i in range(5):
            self.alice.says("bob", f"a{i}")
            self.bob.says("alice", f"b{i}")
        self.scene.settle()
        before = len(self.network.sends)
        self.scene.pass_time(1800, step=20)
        self.assertLess(len(self.network.sends) - before, 40)

    def test_only_who_it_was_for_gets_it_again(self) -> None:
        mallory = self.scene.person("mallory", root=root_key(3))
        mallory.says("alice", "hello")
        self.scene.settle()
        sent = self._count(self.alice)
        for person, n in ((mallory, 1), (self.bob, 99), (mallory, 2**40)):
            self._whisper(person, encode_content(Retry(n, "bad-mac")))
        self.assertEqual(self._count(self.alice), sent)
        self._whisper(self.bob, encode_content(Retry(1, "bad-mac")))
        self.assertEqual(self._count(self.alice), sent + 1)

    def test_it_is_sent_again_at_most_twice_and_not_for_ever(self) -> None:
        sent = self._count(self.alice)
        for _ in range(4):
            self._whisper(self.bob, encode_content(Retry(1, "bad-mac")))
        self.assertEqual(self._count(self.alice), sent + 2)
        third = self.alice.says("bob", "of today")
        self.scene.settle()
        sent = self._count(self.alice)
        self.alice.disconnects()
        self.bob.disconnects()
        self.scene.clock.advance(10 * DAY)
        for person in (self.alice, self.bob):
            person.connects()
        self.scene.settle()
        self._whisper(self.bob, encode_content(Retry(int(third.rpartition(".")[2]), "bad-mac")))
        self.assertEqual(self._count(self.alice), sent)

    def test_what_nobody_asked_for_is_not_taken_as_an_answer(self) -> None:
        self._whisper(self.alice, encode_content(Resent(1, Raw(encode_content(Text("rewritten"))))))
        self._whisper(self.alice, encode_content(Resent(77, Raw(encode_content(Text("invented"))))))
        self.assertEqual(self.bob.reads("alice"), ["first"])

    def test_a_kind_of_a_newer_client(self) -> None:
        self._whisper(self.alice, b'{"t":"hologram","size":3}')
        self.assertEqual(self.bob.told(MessageUnreadable)[0].retrying, False)
        self.assertIn("newer client", self.bob.told(MessageUnreadable)[0].reason)

    def test_marks_from_who_has_no_say(self) -> None:
        mallory = self.scene.person("mallory", root=root_key(3))
        mallory.says("alice", "hello")
        self.scene.settle()
        mine = self.alice.says("bob", "did you read it?")
        self.scene.settle()
        number = int(mine.rpartition(".")[2])
        self._whisper(mallory, b'{"t":"read","ids":[%d]}' % number)
        self.assertEqual(self.alice.vault.state_of(mine), "accepted")
        self._whisper(self.bob, b'{"t":"read","ids":[%d]}' % number)
        self._whisper(self.bob, b'{"t":"delivered","ids":[%d]}' % number)
        self.assertEqual(self.alice.vault.state_of(mine), "read")

    def _whisper(self, person: Person, content: bytes) -> None:
        """`person`'s client says this to the other of the two, or to alice, where nobody typed anything."""
        other = self.bob if person is self.alice else self.alice
        with person.vault.transaction():
            person.core._parts.outbox.compose(other.name, other.device, content, 0)
        person.core.tick()
        self.scene.settle()
