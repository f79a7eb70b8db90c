"""The outbox on the wire: what the network refuses, for now or for good, and what other processes compose."""

from __future__ import annotations

from typing import TypeVar

from fastchat.errors import Busy, FastChatError, Internal, MailboxFull, RateLimited, UnknownDevice
from fastchat.protocols import wire
from fastchat_client.events import MessageState, Notice, State
from fastchat_client.speaking import compose_text
from tests.support.conversation import SceneTest

Error = TypeVar("Error", bound=FastChatError)


def naming(error: Error, *devices: str) -> Error:
    """`error` as the answer for these devices alone."""
    error.devices = devices
    return error


class Refused(SceneTest):
    def test_busy_is_waited_out_in_order(self) -> None:
        alice, bob, carol = (self.scene.person(name) for name in ("alice", "bob", "carol"))
        refused: set[int] = set()

        def refuse(device: str, send: wire.Send) -> Busy | None:
            # As the server does: after `busy`, everything later to the same device is busy until that one comes again.
            if bob.device not in {recipient.device for recipient in send.to}:
                return None
            if send.n == 2 and not refused:
                refused.add(2)
                return Busy(retry_after=7.0)
            if send.n == 2:
                refused.clear()
            return Busy(retry_after=0.5) if refused else None

        alice.says("bob", "warm up")
        self.scene.settle()
        self.network.refuse = refuse
        alice.disconnects()
        for i in range(2, 7):
            alice.says("bob", str(i))
        alice.says("carol", "not held up")
        alice.connects()
        self.scene.settle()
        self.assertEqual(bob.reads("alice"), ["warm up"])
        self.assertEqual(carol.reads("alice"), ["not held up"])
        self.scene.pass_time(6)
        self.assertEqual(bob.reads("alice"), ["warm up"])
        self.scene.pass_time(2)
        self.assertEqual(bob.reads("alice"), ["warm up", "2", "3", "4", "5", "6"])

    def test_a_rate_limit_is_waited_out(self) -> None:
        alice, bob = self.scene.person("alice"), self.scene.person("bob")
        answers: list[RateLimited | None] = [RateLimited(retry_after=2.0)]
        self.network.refuse = lambda device, send: answers.pop() if answers else None
        alice.says("bob", "hello")
        self.scene.pass_time(1)
        self.assertEqual(bob.reads("alice"), [])
        self.scene.pass_time(2)
        self.assertEqual(bob.reads("alice"), ["hello"])

    def test_a_final_error_marks_the_message_and_not_the_next(self) -> None:
        alice, bob = self.scene.person("alice"), self.scene.person("bob")
        answers: list[MailboxFull | None] = [MailboxFull()]
        self.network.refuse = lambda device, send: answers.pop() if answers else None
        lost = alice.says("bob", "lost")
        self.scene.settle()
        found = alice.says("bob", "found")
        self.scene.settle()
        self.assertEqual(alice.states(lost), [State.WAITING, State.FAILED])
        self.assertEqual(alice.vault.history("bob")[0].reason, MailboxFull().message)
        self.assertEqual(alice.states(found), [State.WAITING, State.ACCEPTED])
        self.assertEqual(bob.reads("alice"), ["found"])

    def test_a_server_that_fails_is_tried_five_times(self) -> None:
        alice, bob = self.scene.person("alice"), self.scene.person("bob")
        tries: list[int] = []

        def refuse(device: str, send: wire.Send) -> Internal:
            tries.append(send.n)
            return Internal()

        self.network.refuse = refuse
        lost = alice.says("bob", "lost")
        self.scene.pass_time(60)
        self.assertEqual((alice.vault.state_of(lost), len(tries)), ("failed", 6))
        self.assertEqual(bob.reads("alice"), [])

    def test_a_device_that_is_gone(self) -> None:
        alice, bob = self.scene.person("alice"), self.scene.person("bob")
        phone = self.scene.further_device(bob)
        alice.says("bob", "to both")
        self.scene.settle()
        self.assertEqual(phone.reads("alice"), ["to both"])
        self.network.refuse = lambda device, send: (
            naming(UnknownDevice(), phone.device)
            if phone.device in {recipient.device for recipient in send.to}
            else None
        )
        message = alice.says("bob", "to whoever is there")
        self.scene.settle()
        # The phone is in the chain still, so it is tried once more, and then that is all.
        self.assertEqual(alice.states(message), [State.WAITING, State.ACCEPTED])
        self.assertEqual(len([m for m in alice.said if isinstance(m, wire.KeysRequest)]), 2 + 1)
        self.assertEqual(bob.reads("alice"), ["to both", "to whoever is there"])

    def test_what_reached_no_device_of_the_addressee_has_failed(self) -> None:
        alice, bob = self.scene.person("alice"), self.scene.person("bob")
        mine, phone = self.scene.further_device(alice), self.scene.further_device(bob)
        self.scene.pass_time(86_500, step=20)
        alice.says("bob", "to all")
        self.scene.settle()
        self.assertEqual([item.text for item in mine.vault.history("bob")], ["to all"])
        self.network.refuse = lambda device, send: naming(MailboxFull(), bob.device, phone.device)
        lost = alice.says("bob", "for my telephone alone")
        self.scene.settle()
        self.assertEqual(alice.states(lost), [State.WAITING, State.FAILED])
        self.assertEqual(alice.told(Notice), [], "the message says it")

    def test_the_devices_of_the_addressee_fail_one_after_the_other(self) -> None:
        alice, bob = self.scene.person("alice"), self.scene.person("bob")
        phone = self.scene.further_device(bob)
        answered: list[int] = []

        def refuse(device: str, send: wire.Send) -> FastChatError | None:
            if device != alice.device:
                return None
            answered.append(send.n)
            if send.n == 1:
                return naming(Busy(), bob.device) if answered == [1] else None
            return naming(MailboxFull(), *(recipient.device for recipient in send.to))

        self.network.refuse = refuse
        first = alice.says("bob", "1")
        self.scene.settle()
        lost = alice.says("bob", "2")
        self.scene.settle()
        self.assertEqual(answered, [1, 2], "the second to the phone alone")
        self.assertEqual(alice.states(lost), [State.WAITING])
        self.scene.pass_time(10)
        self.assertEqual(alice.vault.state_of(first), "delivered")
        self.assertEqual(alice.states(lost), [State.WAITING, State.FAILED])
        self.assertEqual((bob.reads("alice"), phone.reads("alice"), alice.vault.waiting()), (["1"], ["1"], 0))

    def test_a_device_that_is_given_up_and_gets_the_next_message(self) -> None:
        alice, bob = self.scene.person("alice"), self.scene.person("bob")
        phone = self.scene.further_device(bob)
        answers: list[MailboxFull | Busy] = [naming(MailboxFull(), phone.device), naming(Busy(), phone.device)]
        self.network.refuse = lambda device, send: answers.pop() if answers and device == alice.device else None
        first = alice.says("bob", "1")
        self.scene.settle()
        alice.disconnects()
        alice.connects()
        self.scene.pass_time(10)
        self.assertEqual(alice.states(first), [State.WAITING, State.DELIVERED])
        self.assertEqual(alice.vault.waiting(), 0)
        alice.says("bob", "2")
        self.scene.settle()
        self.assertEqual((bob.reads("alice"), phone.reads("alice")), (["1", "2"], ["2"]))
        self.assertEqual(len(alice.told(Notice)), 1)

    def test_a_device_list_that_was_stale(self) -> None:
        alice, bob = self.scene.person("alice"), self.scene.person("bob")
        alice.says("bob", "1")
        self.scene.settle()
        answers: list[UnknownDevice | None] = [UnknownDevice()]
        self.network.refuse = lambda device, send: answers.pop() if answers else None
        second = alice.says("bob", "2")
        third = alice.says("bob", "3")
        self.scene.settle()
        self.assertEqual(sorted(bob.reads("alice")), ["1", "2", "3"])
        self.assertEqual([alice.vault.state_of(one) for one in (second, third)], ["accepted"] * 2)


class Processes(SceneTest):
    def test_another_process_composes(self) -> None:
        alice, bob = self.scene.person("alice"), self.scene.person("bob")
        alice.says("bob", "1")
        self.scene.settle()
        other = alice.another_process()
        self.addCleanup(other.close)
        second = compose_text(other, "bob", "2", 0)
        self.scene.pass_time(1)
        third = alice.says("bob", "3")
        self.scene.settle()
        self.assertEqual(bob.reads("alice"), ["1", "2", "3"])
        self.assertEqual([one.rpartition(".")[2] for one in (second, third)], ["2", "3"])
        self.assertEqual(alice.states(second), [State.WAITING, State.ACCEPTED])
        self.assertEqual(other.state_of(second), "accepted")

    def test_many_from_both_never_share_a_number(self) -> None:
        alice, bob = self.scene.person("alice"), self.scene.person("bob")
        other = alice.another_process()
        self.addCleanup(other.close)
        ids = [
            f(i)
            for i in range(20)
            for f in (lambda i: alice.says("bob", f"a{i}"), lambda i: compose_text(other, "bob", f"b{i}", 0))
        ]
        self.scene.pass_time(2)
        self.assertEqual(len(set(ids)), 40)
        self.assertEqual(bob.reads("alice"), [f"{who}{i}" for i in range(20) for who in "ab"])
        waited = [e for e in alice.told(MessageState) if e.state is State.WAITING]
        self.assertEqual([event.id for event in waited], ids)
