"""Groups on the server: acts and their order, who may read what, and what is remembered of them."""

from __future__ import annotations

from twisted.internet.defer import Deferred

from fastchat import groups as groups_module
from fastchat.accounts import device_row
from fastchat.errors import (
    Busy,
    GroupChanged,
    GroupInvalid,
    NotAllowed,
    RateLimited,
    RequestError,
    SignatureInvalid,
    UnknownGroup,
    UnknownUser,
)
from fastchat.groups import Circle, Groups, state_of
from fastchat.protocols import wire
from fastchat.protocols.wire import Signed
from tests.support.delivery import now
from tests.support.grouping import GroupCase
from tests.support.groups import Actor, GroupChain


class Acts(GroupCase):
    def test_a_chain_grows_and_the_store_says_what_it_says(self) -> None:
        chain = self.group_of("alice", "bob")
        alice, bob = self.actors["alice"], self.actors["bob"]
        self.acts(chain, "alice", alice.role(chain.state, "bob", "admin"))
        self.acts(chain, "bob", bob.invite(chain.state, "carol", history=3))
        self.acts(chain, "bob", bob.retitle(chain.state, "another"))
        self.assert_stored(chain)
        self.acts(chain, "carol", self.actors["carol"].leave(chain.state))
        self.acts(chain, "bob", bob.leave(chain.state))
        self.assert_stored(chain)
        self.acts(chain, "alice", alice.delete(chain.state))
        self.assert_stored(chain)

    def assert_stored(self, chain: GroupChain) -> None:
        row = now(self.place.memory.group(chain.group))
        circle = self.groups.known(chain.group)
        assert circle is not None
        for state in (state_of(row), circle.state):
            self.assertEqual(state, chain.state)
            self.assertEqual(list(state.members), list(chain.state.members))
        self.assertEqual(sorted(circle.rows.values()), sorted(row.members))
        self.assertEqual(set(circle.devices), set(now(self.place.memory.group_devices(chain.group))))
        self.assertEqual(now(self.place.memory.group_statements(chain.group, 0, 99)), chain.statements)

    def test_what_brought_a_member_stays_in_its_row(self) -> None:
        chain = self.group_of("alice", "bob")
        self.acts(chain, "alice", self.actors["alice"].role(chain.state, "bob", "admin"))
        [bob] = [row for row in now(self.place.memory.group(chain.group)).members if row.user == "bob"]
        self.assertEqual((bob.role, bob.since, bob.until, bob.invited_by, bob.history), ("admin", 3, None, "alice", 7))

    def test_members_are_in_the_order_in_which_they_joined(self) -> None:
        self.assert_stored(self.group_of("bob", "carol", "alice"))

    def test_of_two_at_the_same_moment_one_wins(self) -> None:
        chain = self.group_of("alice", "bob")
        alice, carol = self.actors["alice"], self.actors["carol"]
        one, other = alice.invite(chain.state, "carol"), alice.retitle(chain.state, "another")
        self.acts(chain, "alice", one)
        self.refuse(GroupChanged, chain, "alice", other)
        self.refuse(GroupChanged, chain, "alice", one)
        self.acts(chain, "carol", carol.join(chain.state))

    def test_one_at_a_time_also_while_the_store_is_slow(self) -> None:
        chain = self.group_of("alice", "bob")
        alice = self.actors["alice"]
        device = device_row(alice.identity)
        self.place.store.held = True
        asked = [
            Deferred.fromCoroutine(self.groups.act(device, chain.group, statement))
            for statement in (alice.invite(chain.state, "carol"), alice.retitle(chain.state, "another"))
        ]
        self.place.store.release()
        self.assertEqual(self.successResultOf(asked[0]), chain.state.length + 1)
        self.failureResultOf(asked[1], GroupChanged)
        self.assertEqual(self.groups._locks, {})
        self.assertEqual(self.place.store.calls["append_to_group"], chain.state.length + 1)  # not for the second

    def test_another_chain_has_grown_somewhere_else(self) -> None:
        """By another process, over the same store: nothing told this one."""
        chain = self.group_of("alice", "bob")
        other = Groups(self.place.store, self.place.bus, self.place.limits, self.place.clock.seconds)
        alice = self.actors["alice"]
        statement = alice.retitle(chain.state, "another")
        now(other.act(device_row(alice.identity), chain.group, statement))
        self.refuse(GroupChanged, chain, "alice", alice.invite(chain.state, "carol"))
        chain.add(alice, statement)
        self.acts(chain, "alice", alice.invite(chain.state, "carol"))
        self.assert_stored(chain)

    def refuse(self, error: type[Exception], chain: GroupChain, name: str, statement: Signed, group: str = "") -> None:
        before = now(self.place.memory.group(chain.group))
        device = device_row(self.actors[name].identity)
        asked = Deferred.fromCoroutine(self.groups.act(device, group or chain.group, statement))
        self.assertIs(self.failureResultOf(asked).type, error)
        self.assertEqual(now(self.place.memory.group(chain.group)), before)

    def test_what_is_refused(self) -> None:
        chain = self.group_of("alice", "bob")
        alice, bob, carol = self.actors.values()
        state = chain.state
        self.refuse(NotAllowed, chain, "bob", bob.invite(state, "carol"))
        self.refuse(UnknownGroup, chain, "carol", carol.join(state))
        self.refuse(UnknownUser, chain, "alice", alice.invite(state, "nobody"))
        self.refuse(NotAllowed, chain, "bob", alice.invite(state, "carol"))  # in somebody else's name
        self.refuse(GroupInvalid, chain, "alice", alice.invite(state, "carol"), group="0" * 32)
        other = GroupChain(alice, alice.create(nonce=b"another nonce..."))
        self.refuse(UnknownGroup, chain, "alice", alice.retitle(other.state, "x"), group=other.group)
        signed = alice.invite(state, "carol")
        self.refuse(SignatureInvalid, chain, "alice", Signed(signed.body, bytes(64)))
        self.refuse(GroupInvalid, chain, "alice", Signed(b"{}", bytes(64)))
        self.refuse(GroupChanged, chain, "alice", chain.statements[0])

    def test_a_device_that_is_not_the_one_that_signed(self) -> None:
        chain = self.group_of("alice")
        second = self.second_device("alice")
        signed = Actor("alice", second).invite(chain.state, "bob")
        self.refuse(NotAllowed, chain, "alice", signed)
        now(self.groups.act(device_row(second.identity), chain.group, signed))

    def test_no_more_groups_than_one_may_have(self) -> None:
        self.place = self.new_place(groups_per_user=2)
        chain = self.group_of("alice")
        alice, bob = self.actors["alice"], self.actors["bob"]
        second = GroupChain(alice, alice.create(nonce=b"2" * 16))
        now(self.groups.act(device_row(alice.identity), second.group, second.statements[0]))
        third = alice.create(nonce=b"3" * 16)
        self.refuse(RequestError, chain, "alice", third, group=GroupChain(alice, third).group)
        for nonce in (b"4" * 16, b"5" * 16):
            mine = GroupChain(bob, bob.create(nonce=nonce))
            now(self.groups.act(device_row(bob.identity), mine.group, mine.statements[0]))
        self.refuse(RequestError, chain, "alice", alice.invite(chain.state, "bob"))
        self.acts(mine, "bob", bob.delete(mine.state))
        self.acts(chain, "alice", alice.invite(chain.state, "bob"))
        self.acts(chain, "bob", bob.join(chain.state))

    def test_invitations_keep_nobody_from_groups_of_their_own(self) -> None:
        self.place = self.new_place(groups_per_user=2)
        alice, bob = self.actors["alice"], self.actors["bob"]
        for nonce in (b"1" * 16, b"2" * 16):
            chain = GroupChain(alice, alice.create(nonce=nonce))
            now(self.groups.act(device_row(alice.identity), chain.group, chain.statements[0]))
            self.acts(chain, "alice", alice.invite(chain.state, "bob"))
        self.assert_asked_for_no_more(chain)
        for nonce in (b"3" * 16, b"4" * 16):
            mine = GroupChain(bob, bob.create(nonce=nonce))
            now(self.groups.act(device_row(bob.identity), mine.group, mine.statements[0]))

    def assert_asked_for_no_more(self, chain: GroupChain) -> None:
        """Nobody invites bob any more."""
        carol = self.actors["carol"]
        other = GroupChain(carol, carol.create(nonce=b"5" * 16))
        now(self.groups.act(device_row(carol.identity), other.group, other.statements[0]))
        self.refuse(RequestError, other, "carol", carol.invite(other.state, "bob"))

    def test_no_more_acts_than_one_may_make(self) -> None:
        self.place = self.new_place(group_acts_burst=3, group_acts_per_second=0.5)
        chain = self.group_of("alice")
        alice, device = self.actors["alice"], device_row(self.actors["alice"].identity)
        for name in ("one", "another"):
            self.acts(chain, "alice", alice.retitle(chain.state, name))
        asked = Deferred.fromCoroutine(self.groups.act(device, chain.group, alice.retitle(chain.state, "third")))
        self.assertEqual(self.failureResultOf(asked, RateLimited).value.retry_after, 2.0)
        self.place.clock.advance(2.0)
        self.acts(chain, "alice", alice.retitle(chain.state, "third"))


class Reading(GroupCase):
    def length_for(self, chain: GroupChain, name: str) -> int:
        length, page = now(self.groups.statements(name, chain.group, 0))
        self.assertEqual(page, chain.statements[:length])
        self.assertIn((chain.group, length), [(one.group, one.length) for one in now(self.groups.of(name))])
        return int(length)

    def test_who_reads_how_far(self) -> None:
        chain = self.group_of("alice", "bob")
        alice, carol = self.actors["alice"], self.actors["carol"]
        self.assert_unknown(chain, "carol")
        self.acts(chain, "alice", alice.invite(chain.state, "carol"))
        self.assertEqual(self.length_for(chain, "carol"), 4)
        self.acts(chain, "alice", alice.remove(chain.state, "bob"))
        self.acts(chain, "alice", alice.retitle(chain.state, "without bob"))
        self.assertEqual([self.length_for(chain, name) for name in ("alice", "bob", "carol")], [6, 5, 6])
        self.acts(chain, "carol", carol.leave(chain.state))
        self.acts(chain, "alice", alice.invite(chain.state, "bob"))
        self.assertEqual([self.length_for(chain, name) for name in ("alice", "bob", "carol")], [8, 8, 7])
        self.assertEqual([one.group for one in now(self.groups.of("nobody"))], [])

    def assert_unknown(self, chain: GroupChain, name: str) -> None:
        self.failureResultOf(Deferred.fromCoroutine(self.groups.statements(name, chain.group, 0)), UnknownGroup)
        self.failureResultOf(Deferred.fromCoroutine(self.groups.statements(name, "0" * 32, 0)), UnknownGroup)

    def test_the_same_from_the_store_as_from_memory(self) -> None:
        chain = self.group_of("alice", "bob")
        self.acts(chain, "alice", self.actors["alice"].remove(chain.state, "bob"))
        self.acts(chain, "alice", self.actors["alice"].retitle(chain.state, "without bob"))
        self.groups._forget(chain.group)
        self.assertEqual([self.length_for(chain, name) for name in ("alice", "bob")], [5, 4])
        self.assert_unknown(chain, "carol")

    def test_pages(self) -> None:
        chain = self.group_of("alice", "bob")
        size = len(chain.statements[1].body) * 2
        small, large = (1, 300), (10**6, 300)
        for (bytes_, statements), expected in (
            (small, [1, 1, 1]),
            ((size, 300), [1, 1, 1]),
            ((10**6, 2), [2, 1]),
            (large, [3]),
        ):
            self.patch(groups_module, "PAGE_BYTES", bytes_)
            self.patch(groups_module, "PAGE_STATEMENTS", statements)
            found: list[Signed] = []
            pages: list[int] = []
            while len(found) < 3 and len(pages) < 9:
                length, page = now(self.groups.statements("bob", chain.group, len(found)))
                self.assertEqual(length, 3)
                pages.append(len(page))
                found += page
            self.assertEqual((pages, found), (expected, chain.statements))
        self.assertEqual(now(self.groups.statements("bob", chain.group, 3)), (3, []))
        self.failureResultOf(Deferred.fromCoroutine(self.groups.statements("bob", chain.group, 4)), RequestError)


class Remembering(GroupCase):
    def test_a_new_device_is_in_it_at_once(self) -> None:
        chain = self.group_of("alice", "bob")
        second = self.second_device("bob")
        self.groups.devices_changed("bob")
        self.assertIsNone(self.groups.known(chain.group))
        circle = now(self.groups.load(chain.group))
        self.assertIn(second.id, circle.devices)
        self.groups.devices_changed("carol")
        self.assertIs(self.groups.known(chain.group), circle)

    def test_a_revoked_device_is_out_of_it_at_once(self) -> None:
        chain = self.group_of("alice", "bob")
        second = self.second_device("bob")
        self.groups.devices_changed("bob")
        self.assertIn(second.id, now(self.groups.load(chain.group)).devices)
        bob = self.people["bob"]
        bob.links = list(now(self.place.memory.links(["bob"]))["bob"])
        peer = self.online(bob.device)
        revocation = bob.revoke(second)
        peer.asks(wire.Revoke(peer.next_id(), revocation.position, revocation.link), wire.Revoked)
        circle = now(self.groups.load(chain.group))
        self.assertNotIn(second.id, circle.devices)
        self.assertIn(bob.device.id, circle.devices)

    def test_devices_that_change_while_a_group_is_read(self) -> None:
        chain = self.group_of("alice", "bob")
        self.groups._forget(chain.group)
        self.place.store.held = True
        reading = [Deferred.fromCoroutine(self.groups.load(chain.group)) for _ in range(3)]
        self.place.store.step()  # the row is read, and the devices are asked for
        self.assertEqual(self.place.store.calls["group_devices"], 1)
        self.groups.devices_changed("bob")
        self.place.store.release()
        circles = [self.successResultOf(one) for one in reading]
        self.assertEqual(len({id(circle) for circle in circles}), 1)
        self.assertEqual(self.place.store.calls["group_devices"], 2)
        self.assertEqual(self.groups._loadings, {})

    def test_a_device_that_is_added_while_its_user_joins(self) -> None:
        chain = self.group_of("alice")
        self.acts(chain, "alice", self.actors["alice"].invite(chain.state, "bob"))
        self.place.store.held = True
        bob = self.actors["bob"]
        joining = Deferred.fromCoroutine(self.groups.act(device_row(bob.identity), chain.group, bob.join(chain.state)))
        self.place.store.step()  # his devices are read
        self.assertEqual(self.place.store.calls["append_to_group"], 3)
        device, request = self.people["bob"].add_device("second")
        adding = Deferred.fromCoroutine(self.place.accounts.add_device("bob", request))
        adding.addCallback(lambda _: self.groups.devices_changed("bob"))
        [joins] = self.place.store._waiting[:1]
        self.place.store._waiting.remove(joins)
        while not adding.called:
            self.place.store.step()
        self.place.store._waiting.append(joins)
        self.place.store.release()
        self.successResultOf(joining)
        self.assertIn(device.id, now(self.groups.load(chain.group)).devices)

    def test_what_is_remembered_goes_on_while_the_database_is_away(self) -> None:
        chain = self.group_of("alice", "bob")
        self.place.store.away = True
        alice = self.actors["alice"]
        device = device_row(alice.identity)
        statement = alice.retitle(chain.state, "another")
        self.failureResultOf(Deferred.fromCoroutine(self.groups.act(device, chain.group, statement)), Busy)
        for _ in range(3):
            circle = self.groups.known(chain.group)
            assert circle is not None
            self.assertEqual(circle.state, chain.state)

    def test_an_act_of_which_nobody_knows_whether_it_was_committed(self) -> None:
        chain = self.group_of("alice", "bob")
        alice = self.actors["alice"]
        statement = alice.retitle(chain.state, "another")
        memory = self.place.memory
        append = memory.append_to_group

        async def loses_the_answer(*args: object) -> None:
            await append(*args)  # type: ignore[arg-type]
            raise Busy

        self.patch(memory, "append_to_group", loses_the_answer)
        asked = Deferred.fromCoroutine(self.groups.act(device_row(alice.identity), chain.group, statement))
        self.failureResultOf(asked, Busy)
        chain.add(alice, statement)
        self.groups.known(chain.group)  # it asks
        circle = self.groups.known(chain.group)
        assert circle is not None
        self.assertEqual(circle.state, chain.state)
        self.assertFalse(circle.is_doubtful)

    def test_the_same_of_one_that_was_read_again_meanwhile(self) -> None:
        """Before the act was committed; and so it stays, if nobody doubts it."""
        self.assert_doubted(is_reading=False)

    def test_the_same_of_one_that_is_being_read(self) -> None:
        self.assert_doubted(is_reading=True)

    def assert_doubted(self, *, is_reading: bool) -> None:
        chain = self.group_of("alice", "bob")
        alice, reading = self.actors["alice"], list[Deferred[Circle | None]]()
        statement = alice.retitle(chain.state, "another")
        memory, store = self.place.memory, self.place.store
        append = memory.append_to_group

        async def loses_the_answer(*args: object) -> None:
            self.groups.devices_changed("bob")  # so it is forgotten
            store.held = is_reading
            reading.append(Deferred.fromCoroutine(self.groups.load(chain.group)))
            store.step()  # the row is read, as it was before the act
            await append(*args)  # type: ignore[arg-type]
            raise Busy

        self.patch(memory, "append_to_group", loses_the_answer)
        asked = Deferred.fromCoroutine(self.groups.act(device_row(alice.identity), chain.group, statement))
        self.failureResultOf(asked, Busy)
        store.release()
        self.successResultOf(reading[0])
        chain.add(alice, statement)
        now(self.groups.load(chain.group))  # it asks
        self.assertEqual(now(self.groups.load(chain.group)).state, chain.state)

    def test_a_group_that_is_read_again_while_an_act_is_committed(self) -> None:
        """What was read is of before, whichever is answered first, and must not stay."""
        for reads_first in (True, False):
            self.place = self.new_place()
            chain = self.group_of("alice", "bob")
            circle = self.groups.known(chain.group)
            assert circle is not None
            circle.is_doubtful = True
            alice = self.actors["alice"]
            self.place.store.held = True
            acting = Deferred.fromCoroutine(
                self.groups.act(device_row(alice.identity), chain.group, alice.retitle(chain.state, "another"))
            )
            self.place.store.step(1)  # the row is read, as it was before the act
            acts, devices = self.place.store._waiting
            for call in (devices, acts) if reads_first else (acts, devices):
                self.place.store._waiting.remove(call)
                call.callback(None)
            self.place.store.release()
            self.successResultOf(acting)
            self.assertEqual(now(self.groups.load(chain.group)).state.length, chain.state.length + 1)

    def test_the_group_used_longest_ago_is_forgotten_first(self) -> None:
        alice, device = self.actors["alice"], device_row(self.actors["alice"].identity)
        few = Groups(self.place.store, self.place.bus, self.place.limits, self.place.clock.seconds, remembered=6)
        chains = [GroupChain(alice, alice.create(nonce=bytes([i]) * 16)) for i in range(4)]
        for chain in chains[:3]:
            now(few.act(device, chain.group, chain.statements[0]))
        self.assertIsNotNone(few.known(chains[0].group))
        now(few.act(device, chains[3].group, chains[3].statements[0]))
        self.assertEqual([few.known(chain.group) is not None for chain in chains], [True, False, True, True])
        self.assertEqual(few._weight, 6)
        self.assertEqual(now(few.load(chains[1].group)).state, chains[1].state)
        self.assertEqual(few._weight, 6)

    def test_a_broken_store_leaves_nobody_waiting(self) -> None:
        chain = self.group_of("alice", "bob")
        self.groups._forget(chain.group)
        self.place.store.held = True
        reading = [Deferred.fromCoroutine(self.groups.load(chain.group)) for _ in range(2)]
        self.place.store.broken = True
        self.place.store.release()
        self.failureResultOf(reading[0])
        self.failureResultOf(reading[1], Busy)
        self.assertEqual(self.groups._loadings, {})
