"""Messages that a server hands over as other ones than they are."""

from __future__ import annotations

from dataclasses import replace

from msgspec import Raw

from fastchat.protocols import wire
from fastchat_client.events import MessageReceived, MessageUnreadable, Notice
from tests.support.conversation import SceneTest
from tests.support.keys import root_key
from tests.support.network import Device


class Swapped(SceneTest):
    """A server that hands messages over as other ones."""

    def setUp(self) -> None:
        super().setUp()
        self.alice, self.bob = self.scene.person("alice"), self.scene.person("bob")
        self.alice.says("bob", "hello")
        self.scene.settle()
        self.bob.disconnects()

    def test_two_bodies_swapped(self) -> None:
        self.alice.says("bob", "yes")
        self.alice.says("bob", "no")
        self.scene.settle()
        box = self.network.devices[self.bob.device].mailbox
        first, second = box
        box[:] = [replace(first, body=second.body), replace(second, body=first.body)]
        self.bob.connects()
        self.scene.settle()
        # Neither is shown as the other; both are asked for again, and stand where they belong.
        self.assertEqual(len(self.bob.told(MessageUnreadable)), 2)
        self.assertEqual(self.bob.reads("alice"), ["hello", "yes", "no"])

    def test_a_body_under_another_senders_name(self) -> None:
        mallory = self.scene.person("mallory", root=root_key(3))
        mallory.says("bob", "I am alice")
        self.scene.settle()
        (mail,) = self.network.devices[self.bob.device].mailbox
        self.network.devices[self.bob.device].mailbox[:] = [
            replace(mail, user="alice", device=self.alice.device, n=77),
            replace(mail, user="alice"),
            replace(mail, user="mallory", device=self.alice.device, n=78),
        ]
        self.bob.connects()
        self.scene.settle()
        self.assertEqual([event.text for event in self.bob.told(MessageReceived)], ["hello"])
        self.assertEqual(self.bob.reads("alice"), ["hello", "?", "?"])

    def test_a_replay_under_a_new_number(self) -> None:
        self.network.devices[self.bob.device].one_time.clear()  # so that a fallback key begins the session
        carol = self.scene.person("carol", root=root_key(2))
        carol.says("bob", "pay 10")
        self.scene.settle()
        box = self.network.devices[self.bob.device].mailbox
        box.append(replace(box[0], n=50))
        self.bob.connects()
        self.scene.settle()
        self.assertEqual([text for text in self.bob.reads("carol") if text != "?"], ["pay 10"])

    def test_numbers_that_are_used_up_before_their_messages_come(self) -> None:
        """A server puts garbage under the names of messages to come; a week later it is honest again."""
        carol = self.scene.person("carol", root=root_key(2))
        carol.says("bob", "I am carol")
        self.scene.settle()
        box = self.network.devices[self.bob.device].mailbox
        letter, garbage = box[0], Raw(b'"AAAA"')
        first = self.alice.vault.number("next_n")
        box.append(replace(letter, user="alice", device=self.alice.device, n=first, body=garbage))
        box.append(replace(letter, user="carol", device=self.alice.device, n=first + 1, body=garbage))
        self.bob.connects()
        self.scene.settle()
        self.assertEqual(len(self.bob.told(MessageUnreadable)), 2)
        before = self.alice.vault.number("next_n")
        self.bob.disconnects()
        self.assertEqual(before, first, "what is sent next is what was used up")
        for text in ("one", "two"):
            self.alice.says("bob", text)
        self.scene.settle()
        self.bob.connects()
        self.scene.settle()
        self.assertEqual(self.bob.reads("alice"), ["hello", "one", "two"])
        self.assertEqual(self.bob.reads("carol"), ["I am carol"])
        self.assertEqual({item.sender for item in self.bob.vault.history("alice")}, {"alice"})
        # Garbage once more changes nothing, and neither do the messages themselves.
        self.bob.disconnects()
        for mail in list(self.network.sends[-2:]):
            (recipient,) = mail[1].to
            n = mail[1].n
            box.append(replace(letter, user="alice", device=self.alice.device, n=n, body=garbage))
            box.append(replace(letter, user="alice", device=self.alice.device, n=n, body=recipient.body))
        self.bob.connects()
        self.scene.settle()
        self.assertEqual(self.bob.reads("alice"), ["hello", "one", "two"])
        self.assertEqual(len(self.bob.told(MessageUnreadable)), 2)

    def test_my_own_message_handed_back_to_me(self) -> None:
        self.network.devices.setdefault(self.bob.device, Device("bob"))
        send = self.network.sends[-1][1]
        assert self.alice.line is not None
        self.alice.line.tell(wire.Message(1, "alice", self.alice.device, 99, 0, Raw(bytes(send.to[0].body))))
        self.scene.settle()
        self.assertEqual(len(self.alice.told(Notice)), 1)
        texts = [item.text for item in self.alice.vault.history("alice") + self.alice.vault.history("bob")]
        self.assertEqual(texts, ["hello"])
        # Number 99 is still free for what is written here.
        ids = [self.alice.says("bob", str(i)) for i in range(100)]
        self.assertIn(f"{self.alice.device}.99", ids)
