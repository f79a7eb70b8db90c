"""Groups between real clients and real sessions, in memory: who reads what, who acts, and what happens in between."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from twisted.internet.defer import Deferred

from fastchat.errors import NotAllowed
from fastchat.protocols.wire import GroupNews
from fastchat_client.events import (
    ActDone,
    ActFailed,
    GroupAlarm,
    GroupChanged,
    GroupInvited,
    MessageReceived,
    MessageWaiting,
)
from fastchat_client.group_acting import (
    DeleteAct,
    InviteAct,
    JoinAct,
    LeaveAct,
    RemoveAct,
    RenameAct,
    RoleAct,
    TopicAct,
)
from fastchat_client.groups import group_info
from tests.support.joined import JoinedTest, Net, Person


def told(person: Person, kind: type[Any]) -> list[Any]:
    return [event for event in person.events if isinstance(event, kind)]


def is_news(message: Any) -> bool:
    return isinstance(message, GroupNews)


def texts(person: Person, conversation: str) -> list[str]:
    """What a person's history shows of a group, in its order."""
    return [f"{item.sender}: {item.text}" for item in person.vault.history(conversation, 1000) if item.text]


class GroupTest(JoinedTest):
    net: Net

    def people(self, *names: str, **limits: Any) -> list[Person]:
        self.net = self.network(**limits)
        people = [self.net.person(name) for name in names]
        self.net.settles()
        return people

    def create(self, owner: Person, name: str = "team", topic: str = "") -> str:
        _, conversation = owner.core.group_create(name, topic)
        owner.flush()
        self.settles()
        return conversation

    def act(self, person: Person, group: str, act: Any) -> int:
        number = person.core.group_act(group, act)
        person.flush()
        self.settles()
        return number

    def brings(self, group: str, inviter: Person, *people: Person, history: int = 0) -> None:
        for person in people:
            self.act(inviter, group, InviteAct(person.name, history))
            self.act(person, group, JoinAct())

    def says(self, person: Person, group: str, *lines: str) -> None:
        for line in lines:
            person.core.send_text(group, line)
            person.flush()
        self.settles()

    def settles(self) -> None:
        self.net.settles()
        self.net.passes(seconds=2)
        self.net.settles()

    def days_pass(self, days: float, *people: Person) -> None:
        """By the clocks that people see; nobody waits through them."""
        self.net.wall_ahead += days * 86_400
        for person in people:
            person.wall_ahead += days * 86_400
        self.settles()


class Talking(GroupTest):
    def test_everybody_reads_and_answers(self) -> None:
        alice, bob, carol = self.people("alice", "bob", "carol")
        group = self.create(alice)
        self.brings(group, alice, bob, carol)
        self.says(alice, group, "hello", "all")
        self.says(bob, group, "hello alice")
        self.says(carol, group, "me too")
        expected = ["alice: hello", "alice: all", "bob: hello alice", "carol: me too"]
        for person in (alice, bob, carol):
            self.assertEqual(texts(person, group), expected, person.name)
            self.assertEqual(told(person, MessageWaiting), [])
            self.assertEqual(told(person, GroupAlarm), [])

    def test_what_it_is_called_comes_to_everybody(self) -> None:
        alice, bob = self.people("alice", "bob")
        group = self.create(alice, "team", "work")
        self.act(alice, group, InviteAct("bob", 7))
        invited = told(bob, GroupInvited)[-1]
        self.assertEqual(
            (invited.conversation, invited.name, invited.sender, invited.history), (group, "team", "alice", 7)
        )
        info = group_info(bob.vault, group)
        assert info is not None
        self.assertEqual((info.name, info.topic, info.role), ("team", "work", "invited"))
        self.act(bob, group, JoinAct())
        self.act(alice, group, RenameAct("crew"))
        self.act(alice, group, TopicAct("play"))
        info = group_info(bob.vault, group)
        assert info is not None
        self.assertEqual((info.name, info.topic, info.role), ("crew", "play", "member"))

    def test_a_newcomer_reads_from_where_they_joined(self) -> None:
        alice, bob, carol = self.people("alice", "bob", "carol")
        group = self.create(alice)
        self.brings(group, alice, bob)
        self.says(alice, group, "before")
        self.brings(group, alice, carol)
        self.says(alice, group, "after")
        self.assertEqual(texts(carol, group), ["alice: after"])
        self.assertEqual(texts(bob, group), ["alice: before", "alice: after"])

    def test_a_newcomer_is_given_what_the_invitation_says(self) -> None:
        alice, bob, carol = self.people("alice", "bob", "carol")
        group = self.create(alice)
        self.brings(group, alice, bob)
        self.says(alice, group, "long ago")
        self.days_pass(8, alice, bob, carol)
        self.says(bob, group, "lately")
        self.says(alice, group, "yesterday")
        self.brings(group, alice, carol, history=7)
        self.says(bob, group, "now")
        self.assertEqual(texts(carol, group), ["bob: lately", "alice: yesterday", "bob: now"])

    def test_who_was_removed_meanwhile_is_given_nothing_of_the_past(self) -> None:
        """The inviter's device was away when they joined, and finds the whole story when it comes back."""
        alice, bob, carol = self.people("alice", "bob", "carol")
        group = self.create(alice)
        self.brings(group, alice, bob)
        self.act(alice, group, RoleAct("bob", "admin"))
        self.says(alice, group, "before carol")
        self.act(alice, group, InviteAct("carol", 7))
        alice.goes_offline()
        self.act(carol, group, JoinAct())
        self.act(bob, group, RemoveAct("carol"))
        alice.comes_back()
        self.settles()
        self.assertEqual(texts(carol, group), [])
        self.assertEqual(carol.vault.execute("SELECT * FROM group_sessions").fetchall(), [])

    def test_who_has_left_reads_nothing_more(self) -> None:
        alice, bob, carol = self.people("alice", "bob", "carol")
        group = self.create(alice)
        self.brings(group, alice, bob, carol)
        self.says(alice, group, "all of us")
        self.act(bob, group, LeaveAct())
        self.says(alice, group, "without bob")
        self.act(alice, group, RemoveAct("carol"))
        self.says(alice, group, "alone")
        self.assertEqual(texts(bob, group), ["alice: all of us"])
        self.assertEqual(texts(carol, group), ["alice: all of us", "alice: without bob"])
        for person in (alice, bob, carol):
            self.assertEqual(told(person, GroupAlarm), [], person.name)

    def test_offline_members_get_everything_at_login(self) -> None:
        alice, bob, carol = self.people("alice", "bob", "carol")
        group = self.create(alice)
        self.brings(group, alice, bob, carol)
        carol.goes_offline()
        self.says(alice, group, "one")
        self.says(bob, group, "two")
        self.act(alice, group, RenameAct("crew"))
        self.says(alice, group, "three")
        carol.comes_back()
        self.settles()
        self.assertEqual(texts(carol, group), ["alice: one", "bob: two", "alice: three"])
        info = group_info(carol.vault, group)
        assert info is not None
        self.assertEqual(info.name, "crew")

    def test_all_of_ones_devices_have_it(self) -> None:
        alice, bob = self.people("alice", "bob")
        second = self.net.second_device(alice)
        self.settles()
        group = self.create(alice)
        self.brings(group, alice, bob)
        self.says(bob, group, "hello")
        self.says(second, group, "from the other one")
        for person in (alice, bob, second):
            self.assertEqual(texts(person, group), ["bob: hello", "alice: from the other one"], person.name)

    def test_the_key_changes_after_a_hundred_messages_and_after_a_day(self) -> None:
        alice, bob = self.people("alice", "bob", sends_per_second=1000.0, sends_burst=1000)
        group = self.create(alice)
        self.brings(group, alice, bob)

        def sessions() -> int:
            return len(
                bob.vault.execute("SELECT session FROM group_sessions WHERE device = ?", (alice.device,)).fetchall()
            )

        self.says(alice, group, *map(str, range(100)))
        self.assertEqual(sessions(), 1)
        self.says(alice, group, "one more")
        self.assertEqual(sessions(), 2)
        self.days_pass(1, alice, bob)
        self.says(alice, group, "next day")
        self.assertEqual(sessions(), 3)
        self.assertEqual(texts(bob, group)[-2:], ["alice: one more", "alice: next day"])


class Acting(GroupTest):
    def test_two_admins_at_the_same_moment(self) -> None:
        alice, bob, carol = self.people("alice", "bob", "carol")
        group = self.create(alice)
        self.brings(group, alice, bob, carol)
        self.act(alice, group, RoleAct("bob", "admin"))
        with self.net.same_moment():
            first = alice.core.group_act(group, RenameAct("crew"))
            second = bob.core.group_act(group, RemoveAct("carol"))
            alice.flush()
            bob.flush()
        self.settles()
        done = [event.act for event in told(alice, ActDone) if event.act == first]
        done += [event.act for event in told(bob, ActDone) if event.act == second]
        failed = [*told(alice, ActFailed), *told(bob, ActFailed)]
        self.assertEqual((len(done), [event.code for event in failed]), (1, ["group-changed"]))
        infos = [group_info(person.vault, group) for person in (alice, bob)]
        self.assertEqual(infos[0].members, infos[1].members)  # type: ignore[union-attr]

    def test_what_was_written_before_a_change_comes_before_what_was_written_after_it(self) -> None:
        alice, bob, carol = self.people("alice", "bob", "carol")
        group = self.create(alice)
        self.brings(group, alice, bob, carol)
        self.act(alice, group, RoleAct("bob", "admin"))
        with self.net.same_moment():
            bob.core.group_act(group, RenameAct("crew"))
            bob.flush()
            self.net.turns(1)
            alice.core.send_text(group, "one")  # too late: the server has the new name already
            alice.flush()
            while alice.core._parts.groups.length(group[1:]) < 7:
                self.net.turns(1)
            alice.core.send_text(group, "two")
            alice.flush()
        self.settles()
        self.assertEqual(texts(carol, group), ["alice: one", "alice: two"])
        self.assertEqual(texts(bob, group), ["alice: one", "alice: two"])

    def test_an_answer_that_was_overtaken_by_a_change_is_no_sign_of_a_server_that_lies(self) -> None:
        alice, bob = self.people("alice", "bob")
        group = self.create(alice)
        self.brings(group, alice, bob)
        bob.goes_offline()
        self.act(alice, group, RenameAct("crew"))
        late, at_once = Deferred[None](), self.net.groups.statements

        async def slowly(*arguments: Any) -> Any:
            page = await at_once(*arguments)
            await late
            return page

        slow = self.patch(self.net.groups, "statements", slowly)
        bob.comes_back()
        slow.restore()
        self.act(alice, group, RenameAct("band"))
        self.says(alice, group, "hello")
        late.callback(None)
        self.settles()
        self.assertEqual(told(bob, GroupAlarm), [])
        self.assertEqual(texts(bob, group), ["alice: hello"])
        info = group_info(bob.vault, group)
        assert info is not None
        self.assertEqual(info.name, "band")

    def test_news_that_come_while_others_wait_for_keys_are_not_forgotten(self) -> None:
        alice, bob, carol, _ = self.people("alice", "bob", "carol", "dave")
        group = self.create(alice)
        self.brings(group, alice, bob, carol)
        self.act(alice, group, RoleAct("carol", "admin"))
        news: list[Any] = []
        receive = bob.core.receive
        self.patch(bob.core, "receive", lambda message: news.append(message) if is_news(message) else receive(message))
        second = self.net.second_device(carol)
        self.settles()
        self.act(second, group, InviteAct("dave", 0))
        self.act(alice, group, RoleAct("bob", "admin"))
        with self.net.same_moment():
            for one in news:  # of the first, bob has to ask whose device that is
                receive(one)
        bob.flush()
        self.settles()
        self.assertEqual(group_info(bob.vault, group).role, "admin")  # type: ignore[union-attr]

    def test_acts_that_come_second_again_and_again_are_no_sign_of_a_server_that_lies(self) -> None:
        alice, *others = self.people("alice", "bob", "carol", "dave", "erin", "frank", "grace")
        group = self.create(alice)
        self.act(alice, group, InviteAct("bob", 0))
        for joining, following in pairwise(others):
            with self.net.same_moment():
                joining.core.group_act(group, JoinAct())
                joining.flush()
                alice.core.group_act(group, InviteAct(following.name, 0))
                alice.flush()
            self.settles()
        self.assertEqual(told(alice, GroupAlarm), [])
        self.assertEqual(len(told(alice, ActDone)), 1 + len(others))
        self.says(alice, group, "hello")
        self.assertEqual(texts(others[0], group), ["alice: hello"])

    def test_who_may_not_is_told_at_once(self) -> None:
        alice, bob = self.people("alice", "bob")
        group = self.create(alice)
        self.brings(group, alice, bob)
        self.assertRaises(NotAllowed, bob.core.group_act, group, DeleteAct())
        self.assertTrue(bob.is_online)

    def test_changes_are_told(self) -> None:
        alice, bob = self.people("alice", "bob")
        group = self.create(alice)
        self.brings(group, alice, bob)
        self.act(alice, group, RoleAct("bob", "admin"))
        kinds = [event.kind for event in told(alice, GroupChanged)]
        self.assertEqual(kinds, ["created", "invited", "joined", "role"])

    def test_offline_acts_are_done_later(self) -> None:
        alice, bob = self.people("alice", "bob")
        alice.goes_offline()
        _, group = alice.core.group_create("team")
        alice.core.send_text(group, "to myself")
        alice.core.group_act(group, InviteAct("bob", 0))
        alice.comes_back()
        self.settles()
        self.act(bob, group, JoinAct())
        self.says(alice, group, "hello")
        self.assertEqual(texts(bob, group), ["alice: hello"])
        self.assertEqual(len(told(alice, ActFailed)), 0)
        self.assertIsInstance(told(bob, MessageReceived)[0], MessageReceived)
