"""A server that means ill, and members who do: the groups' clients show a named alarm, and nothing else has changed."""

from __future__ import annotations

from fastchat_client.content import GroupKey, GroupKeyRequest
from fastchat_client.events import GroupChanged, MessageReceived
from fastchat_client.group_acting import RemoveAct, RoleAct
from fastchat_client.groups import group_of
from tests.support.group_scene import GroupSceneTest, actor_of, alarms, texts, waiting
from tests.support.groups import Actor


class Ghost(GroupSceneTest):
    """Somebody whom no member has invited."""

    def test_nothing_is_wrong(self) -> None:
        alice, bob = self.people("alice", "bob")
        team = self.group(alice, bob)
        self.says(alice, team, "hello")
        self.says(bob, team, "hi")
        for person in (alice, bob):
            self.assertEqual(texts(person, team), ["alice: hello", "bob: hi"])
            self.assertEqual(alarms(person), [])
            self.assertEqual(len(self.readable_by(person)), 2)
