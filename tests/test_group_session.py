"""Groups as a session has them: what is said, who hears it, and what holds back what is behind it."""

from __future__ import annotations

from typing import Any

from msgspec import Raw

from fastchat import bus
from fastchat.delivery import outgoing
from fastchat.protocols import group_traffic, wire
from fastchat.protocols.group_traffic import FLOOD, MAX_WHISPER
from fastchat.protocols.wire import MAX_BODIES
from tests.support.calling import BODY, Peer
from tests.support.grouping import GroupCase
from tests.support.groups import GroupChain


def codes(peer: Peer) -> dict[int, str]:
    """What became of each `group_send` or `send`, by its request's number."""
    found = {}
    for message in peer.heard:
        if isinstance(message, wire.Accepted):
            found[message.re] = "accepted"
        elif isinstance(message, wire.Error) and isinstance(message.re, int):
            found[message.re] = message.code
    return found


class Sending(GroupCase):
    def setUp(self) -> None:
        super().setUp()
        self.team()

    def team(self) -> None:
        self.chain = self.group_of("alice", "bob", "carol")
        self.a, self.b, self.c = (self.online(device) for device in (self.alice, self.bob, self.carol))

    def says(self, n: int, *devices: str, length: int = 0) -> wire.GroupSend:
        """alice does."""
        send = self.to_all(self.a, self.chain, n, *devices, length=length)
        self.a.says(send)
        return send

    def outcome(self, send: wire.GroupSend) -> str:
        return codes(self.a).get(send.id, "")

    def test_every_device_of_every_member_but_this_one(self) -> None:
        second = self.second_device("alice")
        self.groups.devices_changed("alice")
        laptop = self.online(second)
        send = self.says(1)
        self.assertEqual([peer.messages() for peer in (self.a, self.b, self.c, laptop)], [[], [1], [1], [1]])
        [message] = [one for one in self.b.heard if isinstance(one, wire.Message)]
        self.assertEqual(message, wire.Message(1, "alice", self.alice.id, 1, message.at, BODY))
        for peer in (self.b, self.c):
            peer.receives()
        self.assertEqual(self.outcome(send), "")
        laptop.receives()
        self.assertEqual(self.outcome(send), "accepted")

    def test_who_is_away_finds_it_in_the_mailbox(self) -> None:
        self.c.hangs_up()
        send = self.says(1)
        self.b.receives()
        self.assertEqual(self.outcome(send), "accepted")
        self.assertEqual(self.place.mailbox(self.carol.id), [1])

    def test_for_all_who_are_away_it_is_stored_at_once_and_for_all_who_are_there_encoded_once(self) -> None:
        encoded: list[tuple[Any, ...]] = []

        def message_tail(*what: Any) -> bytes:
            encoded.append(what)
            return wire.message_tail(*what)

        self.patch(bus, "message_tail", message_tail)
        self.says(1)
        self.assertEqual(len(encoded), 1)
        for peer in (self.b, self.c):
            peer.receives()
            peer.hangs_up()
        self.says(2)
        self.assertEqual(self.place.store.calls["store_mail"], 1)

    def test_what_is_refused_for_good(self) -> None:
        length = self.chain.state.length
        self.assertEqual(self.outcome(self.says(1, length=length - 1)), "group-changed")
        self.assertEqual(self.outcome(self.says(2, length=length + 1)), "group-changed")
        send = wire.GroupSend(self.a.next_id(), 3, "0" * 32, 1, BODY)
        self.a.says(send)
        self.assertEqual(self.outcome(send), "unknown-group")
        self.acts(self.chain, "alice", self.actors["alice"].remove(self.chain.state, "bob"))
        refused = self.b.refused(self.to_all(self.b, self.chain, 1))
        self.assertEqual(refused.code, "unknown-group")
        self.acts(self.chain, "alice", self.actors["alice"].delete(self.chain.state))
        self.assertEqual(self.outcome(self.says(4)), "not-allowed")
        self.assertEqual([peer.messages() for peer in (self.b, self.c)], [[], []])

    def test_who_is_only_invited_neither_says_nor_hears_anything(self) -> None:
        chain = self.group_of_two()
        self.acts(chain, "alice", self.actors["alice"].invite(chain.state, "carol"))
        self.assertEqual(self.c.refused(self.to_all(self.c, chain, 1)).code, "unknown-group")
        self.a.says(self.to_all(self.a, chain, 1))
        self.assertEqual([peer.messages() for peer in (self.b, self.c)], [[1], []])

    def group_of_two(self) -> GroupChain:
        alice, bob = self.actors["alice"], self.actors["bob"]
        chain = GroupChain(alice, alice.create(nonce=b"t" * 16))
        self.acts_first(chain)
        self.acts(chain, "alice", alice.invite(chain.state, "bob"))
        self.acts(chain, "bob", bob.join(chain.state))
        return chain

    def acts_first(self, chain: GroupChain) -> None:
        self.a.asks(wire.GroupAct(self.a.next_id(), chain.group, chain.statements[0]), wire.GroupDone)

    def test_alone(self) -> None:
        alice = self.actors["alice"]
        chain = GroupChain(alice, alice.create(nonce=b"o" * 16))
        self.acts_first(chain)
        send = self.to_all(self.a, chain, 1)
        self.assertEqual(self.a.says(send), [wire.Accepted(send.id)])

    def test_what_is_no_body_and_what_is_too_large(self) -> None:
        for body, code in ((b"{}", "bad-frame"), (b'"' + b"A" * MAX_BODIES + b'"', "bad-request")):
            send = wire.GroupSend(self.a.next_id(), 1, self.chain.group, self.chain.state.length, Raw(body))
            self.assertEqual(self.a.refused(send).code, code)
        self.assertEqual(self.outcome(self.says(2, self.bob.id, self.bob.id)), "bad-request")
        self.assertFalse(self.a.is_closed)

    # --- to some of its devices ------------------------------------------------------------------------------------

    def test_only_those_that_are_named_and_belong_to_it(self) -> None:
        self.says(1, self.carol.id, self.alice.id, "0" * 32)
        self.assertEqual([peer.messages() for peer in (self.a, self.b, self.c)], [[], [], [1]])
        self.assertEqual(self.outcome(self.says(2, "0" * 32)), "accepted")

    def test_who_cannot_be_stored_for_is_named_and_the_others_have_it(self) -> None:
        self.c.hangs_up()
        self.place.store.away = True
        send = self.says(1)
        self.b.receives()
        self.assertEqual([one.devices for one in self.a.heard if isinstance(one, wire.Error)], [(self.carol.id,)])
        later = self.says(2)
        self.b.receives()
        self.assertEqual((self.outcome(send), self.outcome(later)), ("busy", "busy"))
        self.place.store.away = False
        self.passes(2.5)
        third = self.says(3)  # behind the first, for carol
        self.b.receives()
        self.assertEqual(self.outcome(third), "busy")
        self.assertEqual(self.place.mailbox(self.carol.id), [])
        for n in (1, 2, 3):
            self.assertEqual(self.outcome(self.says(n, self.carol.id)), "accepted")
        self.assertEqual(self.place.mailbox(self.carol.id), [1, 2, 3])
        self.assertEqual(self.b.messages(), [1, 2, 3])

    def test_a_lane_opens_when_its_message_comes_again_and_is_for_it_no_more(self) -> None:
        """carol is removed before the message that was refused for her comes again."""
        for named in (True, False):
            self.place = self.new_place()
            self.team()
            self.c.hangs_up()
            self.place.store.away = True
            self.says(1)
            self.b.receives()
            self.place.store.away = False
            self.acts(self.chain, "alice", self.actors["alice"].remove(self.chain.state, "carol"))
            again = self.says(1, *([self.carol.id] if named else []))
            self.b.receives()
            self.assertEqual(self.outcome(again), "accepted")
            direct = self.a.send_to(2, self.carol.id)
            self.a.says(direct)
            self.assertEqual(codes(self.a)[direct.id], "accepted")

    def test_a_lane_opens_when_its_message_is_refused_for_good(self) -> None:
        self.c.hangs_up()
        self.place.store.away = True
        self.says(1)
        self.b.receives()
        self.place.store.away = False
        self.assertEqual(self.outcome(self.says(1, self.carol.id, length=1)), "group-changed")
        second = self.says(2)
        self.b.receives()
        self.assertEqual(self.outcome(second), "accepted")

    def test_a_lane_stays_closed_while_its_message_comes_to_others(self) -> None:
        for peer in (self.b, self.c):
            peer.hangs_up()
        self.place.store.away = True
        self.says(1)
        self.place.store.away = False
        self.assertEqual(self.outcome(self.says(1, self.bob.id)), "accepted")
        self.assertEqual(self.outcome(self.says(2)), "busy")
        self.assertEqual([self.place.mailbox(device.id) for device in (self.bob, self.carol)], [[1, 2], []])

    def test_lanes_that_are_opened_make_room_for_others(self) -> None:
        for peer in (self.b, self.c):
            peer.hangs_up()
        self.place.store.away = True
        self.says(1)
        self.patch(outgoing, "LANES", 2)
        self.says(1, length=1)
        self.place.store.away = False
        self.a.says(self.a.send_to(2, self.second_device("alice").id))
        self.assertFalse(self.a.is_closed)

    def test_a_lane_that_waits_for_another_message_stays_closed(self) -> None:
        self.c.hangs_up()
        self.place.store.away = True
        self.a.says(self.a.send_to(1, self.carol.id))
        self.place.store.away = False
        self.says(2, self.bob.id)
        self.b.receives()
        self.assertEqual(self.outcome(self.says(3, self.carol.id)), "busy")

    def test_if_more_miss_it_than_can_be_named_all_are_to_get_it_again(self) -> None:
        self.patch(outgoing, "MOST_NAMED", 1)
        for peer in (self.b, self.c):
            peer.hangs_up()
        self.place.store.away = True
        self.says(1)
        self.assertEqual([one.devices for one in self.a.heard if isinstance(one, wire.Error)], [()])
        self.place.store.away = False
        self.assertEqual(self.outcome(self.says(1)), "accepted")
        self.assertEqual([self.place.mailbox(device.id) for device in (self.bob, self.carol)], [[1], [1]])

    # --- a group that is not remembered ------------------------------------------------------------------------------

    def test_messages_wait_in_order_until_it_is_read(self) -> None:
        self.groups._forget(self.chain.group)
        self.place.store.held = True
        first, second = self.says(1), self.says(2)
        self.place.store.step()
        third = self.says(3)
        self.assertEqual(self.b.messages(), [])
        self.place.store.release()
        self.assertEqual((self.b.messages(), self.c.messages()), ([1, 2, 3], [1, 2, 3]))
        for peer in (self.b, self.c):
            peer.receives()
        self.assertEqual([self.outcome(send) for send in (first, second, third)], ["accepted"] * 3)

    def test_what_waits_is_not_passed_when_it_becomes_known_in_another_way(self) -> None:
        circle = self.groups.known(self.chain.group)
        assert circle is not None
        self.groups._forget(self.chain.group)
        self.place.store.held = True
        self.says(1)
        self.groups._remember(circle)
        self.says(2)
        self.place.store.release()
        self.assertEqual(self.b.messages(), [1, 2])

    def test_messages_to_others_do_not_wait_for_it(self) -> None:
        self.groups._forget(self.chain.group)
        self.place.store.held = True
        self.says(1)
        self.a.says(self.a.send_to(2, self.bob.id))
        self.assertEqual(self.b.messages(), [2])

    def test_they_count_as_not_accepted(self) -> None:
        self.place = self.new_place(unaccepted=2)
        self.team()
        self.groups._forget(self.chain.group)
        self.place.store.held = True
        sends = [self.says(n) for n in (1, 2, 3)]
        self.assertEqual([self.outcome(send) for send in sends], ["", "", "rate-limited"])
        self.place.store.release()
        self.assertEqual(self.b.messages(), [1, 2])
        self.assertEqual(self.outcome(self.says(4)), "rate-limited")
        for peer in (self.b, self.c):
            peer.receives()
        self.assertEqual(self.outcome(self.says(4)), "busy")
        for n in (3, 4):
            self.says(n)
        self.assertEqual(self.b.messages(), [1, 2, 3, 4])

    def test_if_it_cannot_be_read_later_ones_wait_until_the_first_comes_again(self) -> None:
        self.groups._forget(self.chain.group)
        self.place.store.away = True
        first, second = self.says(5), self.says(6)
        self.assertEqual((self.outcome(first), self.outcome(second)), ("busy", "busy"))
        self.place.store.away = False
        self.assertEqual(self.outcome(self.says(6)), "busy")
        for n in (4, 5, 6):
            self.says(n)
        self.assertEqual(self.b.messages(), [4, 5, 6])

    def test_each_that_was_refused_behind_another_holds_back_what_is_behind_it(self) -> None:
        """One that is for single devices only comes again while what is for everybody is on its way."""
        self.place = self.new_place(sends_burst=1, sends_per_second=1.0)
        self.team()
        self.says(1)
        self.assertEqual(self.outcome(self.says(5, self.bob.id)), "rate-limited")
        for n in (7, 6, 7):
            self.place.clock.advance(1.0)
            self.assertEqual(self.outcome(self.says(n)), "busy")
        for n, outcome in ((5, ""), (8, "busy"), (6, ""), (8, "busy"), (7, ""), (8, "")):
            self.place.clock.advance(1.0)
            self.assertEqual(self.outcome(self.says(n)), outcome)
        self.assertEqual((self.b.messages(), self.c.messages()), ([1, 5, 6, 7, 8], [1, 5, 6, 7, 8]))
        self.assertEqual(self.a.session._traffic.groups._refused, {})  # type: ignore[union-attr]

    def test_not_more_are_refused_than_can_be_remembered(self) -> None:
        self.patch(group_traffic, "REFUSED", 3)
        self.groups._forget(self.chain.group)
        self.place.store.away = True
        for n in (2, 2, 3, 4):
            self.assertEqual(self.outcome(self.says(n)), "busy")
        self.says(1)
        self.assert_ended(self.a, "rate-limited")

    def test_one_that_is_refused_holds_back_its_group_and_no_other(self) -> None:
        chain = self.group_of_two()
        self.groups._forget(self.chain.group)
        self.place.store.away = True
        self.assertEqual(self.outcome(self.says(1)), "busy")
        self.a.says(self.to_all(self.a, chain, 2))
        self.assertEqual((self.b.messages(), self.c.messages()), ([2], []))

    def test_a_group_that_there_is_not(self) -> None:
        self.place.store.held = True
        send = wire.GroupSend(self.a.next_id(), 1, "0" * 32, 1, BODY)
        self.a.says(send)
        self.place.store.release()
        self.assertEqual(self.outcome(send), "unknown-group")
        self.assertEqual(self.a.session._traffic.outgoing.unaccepted, 0)  # type: ignore[union-attr]

    def test_a_broken_store(self) -> None:
        self.groups._forget(self.chain.group)
        self.place.store.broken = True
        self.assertEqual(self.outcome(self.says(1)), "internal")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    # --- too much ------------------------------------------------------------------------------------------------

    def test_too_many_a_second_hold_back_what_is_behind_them(self) -> None:
        self.place = self.new_place(sends_burst=2, sends_per_second=1.0)
        self.team()
        sends = [self.says(n) for n in (1, 2, 3)]
        self.assertEqual(self.outcome(sends[2]), "rate-limited")
        self.place.clock.advance(1.0)
        self.assertEqual(self.outcome(self.says(4)), "busy")
        self.place.clock.advance(2.0)
        for n in (3, 4):
            self.says(n)
        self.assertEqual(self.b.messages(), [1, 2, 3, 4])

    def test_a_message_to_many_counts_for_many(self) -> None:
        self.patch(group_traffic, "DEVICES_OF_ONE_SEND", 1)
        self.place = self.new_place(sends_burst=3, sends_per_second=1.0)
        self.team()
        sends = [self.says(n) for n in (1, 2)]
        self.assertEqual([self.outcome(send) for send in sends], ["", ""])
        self.assertEqual(self.outcome(self.says(3)), "rate-limited")
        self.place.clock.advance(2.0)
        self.assertEqual(self.outcome(self.says(3)), "")

    def test_a_long_message_to_many_counts_for_as_much_as_it_would_one_to_one(self) -> None:
        self.place = self.new_place(sends_burst=3, sends_per_second=1.0)
        self.team()
        long = Raw(b'"' + b"A" * (MAX_BODIES * 3 // 4) + b'"')  # one and a half for two devices
        self.a.says(wire.GroupSend(self.a.next_id(), 1, self.chain.group, self.chain.state.length, long))
        self.says(2)
        self.assertEqual(self.outcome(self.says(3)), "rate-limited")

    def test_no_more_lanes_than_there_may_be(self) -> None:
        self.patch(outgoing, "LANES", 1)
        self.assertEqual(self.outcome(self.says(1)), "busy")
        self.assertEqual(self.outcome(self.says(2, self.bob.id)), "busy")
        self.assertFalse(self.a.is_closed)
        self.patch(outgoing, "LANES", 2)
        for n in (1, 2):
            self.says(n)
        self.assertEqual(self.b.messages(), [1, 2])

    def test_too_many_groups_with_something_refused(self) -> None:
        self.place = self.new_place(groups_per_user=2)
        self.team()
        self.place.store.away = True
        for number in (1, 2):
            self.a.says(wire.GroupSend(self.a.next_id(), number, f"{number:032}", 1, BODY))
        self.assertFalse(self.a.is_closed)
        self.a.says(wire.GroupSend(self.a.next_id(), 3, f"{3:032}", 1, BODY))
        self.assert_ended(self.a, "rate-limited")


class Acting(GroupCase):
    def test_act_list_read(self) -> None:
        peer = self.online(self.alice)
        alice = self.actors["alice"]
        chain = GroupChain(alice)
        done = peer.asks(wire.GroupAct(peer.next_id(), chain.group, chain.statements[0]), wire.GroupDone)
        self.assertEqual(done.length, 1)
        listed = peer.asks(wire.GroupsRequest(peer.next_id()), wire.GroupsAnswer)
        self.assertEqual(listed.groups, (wire.GroupLength(chain.group, 1),))
        page = peer.asks(wire.GroupLogRequest(peer.next_id(), chain.group, 0), wire.GroupLogAnswer)
        self.assertEqual(
            (page.group, page.start, page.length, page.statements), (chain.group, 0, 1, (chain.statements[0],))
        )
        self.assertEqual(peer.refused(wire.GroupLogRequest(peer.next_id(), "0" * 32, 0)).code, "unknown-group")
        again = wire.GroupAct(peer.next_id(), chain.group, chain.statements[0])
        self.assertEqual(peer.refused(again).code, "group-changed")

    def test_who_hears_of_it(self) -> None:
        chain = self.group_of("alice", "bob")
        laptop = self.online(self.second_device("alice"))
        self.groups.devices_changed("alice")
        peers = {name: self.online(person.device) for name, person in self.people.items()}
        alice, bob = self.actors["alice"], self.actors["bob"]
        for name, statement in (
            ("alice", lambda: alice.invite(chain.state, "carol")),
            ("carol", lambda: self.actors["carol"].join(chain.state)),
            ("alice", lambda: alice.remove(chain.state, "carol")),
            ("bob", lambda: bob.leave(chain.state)),
        ):
            signed = statement()
            peers[name].asks(wire.GroupAct(peers[name].next_id(), chain.group, signed), wire.GroupDone)
            chain.add(self.actors[name], signed)
        heard = {}
        for name, peer in (*peers.items(), ("laptop", laptop)):
            news = [one for one in peer.heard if isinstance(one, wire.GroupNews)]
            heard[name] = [one.position for one in news]
            for one in news:
                self.assertEqual((one.group, one.statement), (chain.group, chain.statements[one.position]))
        self.assertEqual(heard, {"alice": [4, 6], "laptop": [3, 4, 5, 6], "bob": [3, 4, 5], "carol": [3, 5]})

    def test_news_never_wait(self) -> None:
        chain = self.group_of("alice", "bob")
        bob = self.online(self.bob)
        bob.session.writable(False)
        self.acts(chain, "alice", self.actors["alice"].retitle(chain.state, "another"))
        bob.session.writable(True)
        self.assertEqual([one for one in bob.heard if isinstance(one, wire.GroupNews)], [])

    def test_a_device_that_is_added_hears_the_next_message(self) -> None:
        chain = self.group_of("alice", "bob")
        person = self.people["bob"]
        device, request = person.add_device("second")
        peer = self.peer()
        peer.greets()
        peer.proves("bob")
        peer.asks(wire.AddDevice(peer.next_id(), request.position, request.link, request.keys), wire.Added)
        sender = self.online(self.alice)
        sender.says(self.to_all(sender, chain, 1))
        self.assertEqual(self.place.mailbox(device.id), [1])

    def test_too_many_acts(self) -> None:
        self.place = self.new_place(group_acts_burst=1, group_acts_per_second=0.5)
        peer = self.online(self.alice)
        chain = GroupChain(self.actors["alice"])
        peer.asks(wire.GroupAct(peer.next_id(), chain.group, chain.statements[0]), wire.GroupDone)
        renamed = self.actors["alice"].retitle(chain.state, "x")
        refused = peer.refused(wire.GroupAct(peer.next_id(), chain.group, renamed))
        self.assertEqual((refused.code, refused.retry_after), ("rate-limited", 2.0))


class Whispers(GroupCase):
    def setUp(self) -> None:
        super().setUp()
        self.team()

    def team(self) -> None:
        self.chain = self.group_of("alice", "bob")
        self.a, self.b, self.c = (self.online(device) for device in (self.alice, self.bob, self.carol))

    def whispers(self, *to: str) -> None:
        self.a.says(wire.Whisper(tuple(wire.Recipient(device, BODY) for device in to)))

    def heard(self, peer: Peer) -> int:
        said = [one for one in peer.heard if isinstance(one, wire.Whispered)]
        for one in said:
            self.assertEqual(one, wire.Whispered("alice", self.alice.id, BODY))
        return len(said)

    def test_to_devices(self) -> None:
        self.whispers(self.bob.id, self.carol.id, "0" * 32)
        self.assertEqual([self.heard(peer) for peer in (self.a, self.b, self.c)], [0, 1, 1])
        self.b.session.writable(False)
        self.whispers(self.bob.id)
        self.b.session.writable(True)
        self.assertEqual(self.heard(self.b), 1)
        self.c.session.leave(0.0, "")
        self.whispers(self.carol.id)
        self.assertEqual(self.heard(self.c), 1)
        self.assertEqual(self.place.store.calls["store_mail"], 0)

    def test_to_a_group(self) -> None:
        self.a.says(wire.GroupWhisper(self.chain.group, BODY))
        self.assertEqual([self.heard(peer) for peer in (self.a, self.b, self.c)], [0, 1, 0])
        self.a.says(wire.GroupWhisper("0" * 32, BODY))
        self.c.says(wire.GroupWhisper(self.chain.group, BODY))
        self.acts(self.chain, "alice", self.actors["alice"].delete(self.chain.state))
        self.a.says(wire.GroupWhisper(self.chain.group, BODY))
        self.assertEqual([self.heard(peer) for peer in (self.a, self.b, self.c)], [0, 1, 0])
        self.assertEqual([code for peer in (self.a, self.c) for code in codes(peer)], [])

    def test_too_many_are_dropped_and_a_flood_ends_the_session(self) -> None:
        self.place = self.new_place(whispers_burst=3, whispers_per_second=2.0)
        self.team()
        for _ in range(3 + 3 * FLOOD - 1):
            self.whispers(self.bob.id)
        self.assertEqual(self.heard(self.b), 3)
        self.assertFalse(self.a.is_closed)
        self.place.clock.advance(16.0)
        for _ in range(5):
            self.whispers(self.bob.id)
        self.assertEqual(self.heard(self.b), 6)
        for _ in range(3 * FLOOD - 2):
            self.whispers(self.bob.id)
        self.assert_ended(self.a, "rate-limited")

    def test_what_is_no_body_and_what_is_too_large(self) -> None:
        long = Raw(b'"' + b"A" * (MAX_BODIES // 2) + b'"')
        recipients = tuple(wire.Recipient(device.id, long) for device in (self.bob, self.carol))
        longest = [Raw(b'"' + b"A" * size + b'"') for size in (MAX_WHISPER - 2, MAX_WHISPER - 1)]
        for device, whisper, code in (
            (self.alice, wire.Whisper(recipients), "bad-request"),
            (self.bob, wire.GroupWhisper(self.chain.group, Raw(b"{}")), "bad-frame"),
            (self.alice, wire.GroupWhisper(self.chain.group, longest[1]), "bad-request"),
            (self.alice, wire.Whisper((wire.Recipient(self.bob.id, longest[1]),)), "bad-request"),
            (self.alice, wire.Whisper((wire.Recipient(self.bob.id, BODY),) * 2), "bad-request"),
        ):
            peer = self.online(device)
            peer.says(whisper)
            self.assert_ended(peer, code)
        self.assertEqual(self.heard(self.c), 0)
        bob = self.online(self.bob)
        self.online(self.alice).says(wire.GroupWhisper(self.chain.group, longest[0]))
        [said] = [one for one in bob.heard if isinstance(one, wire.Whispered)]
        self.assertEqual(said.body, longest[0])

    def test_a_whisper_to_many_counts_for_many(self) -> None:
        self.patch(group_traffic, "DEVICES_OF_ONE_SEND", 1)
        self.place = self.new_place(whispers_burst=4, whispers_per_second=1.0)
        self.chain = self.group_of("alice", "bob", "carol")
        self.a, self.b = self.online(self.alice), self.online(self.bob)
        for _ in range(3):
            self.a.says(wire.GroupWhisper(self.chain.group, BODY))
        self.assertEqual(self.heard(self.b), 2)
