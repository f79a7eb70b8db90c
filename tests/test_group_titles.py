"""What a group is called: believed if the chain's hash stands for it, in whatever order the two come."""

from __future__ import annotations

import os

from twisted.trial.unittest import SynchronousTestCase

from fastchat_client import groups
from fastchat_client.groups import Groups, group_info
from fastchat_client.vault import Vault
from tests.support.groups import Actor, GroupChain, title_of

ALICE, BOB = Actor("alice"), Actor("bob")


class Titles(SynchronousTestCase):
    def setUp(self) -> None:
        self.vault = Vault.create(self.mktemp(), os.urandom(32))
        self.addCleanup(self.vault.close)
        self.groups = Groups(self.vault)
        self.chain = GroupChain(ALICE)

    def follow(self) -> str:
        """Take in what is new of the chain; what the group is called then."""
        group = self.chain.group
        with self.vault.transaction():
            for position in range(self.groups.length(group), len(self.chain.statements)):
                actor = self.chain.actors[position]
                self.groups.take(self.chain.statements[position], actor.ed25519, group if position else "")
        return self.name()

    def name(self) -> str:
        info = group_info(self.vault, f"#{self.chain.group}")
        return "" if info is None else info.name

    def told(self, name: str) -> bool:
        with self.vault.transaction():
            return self.groups.tell_title(self.chain.group, title_of(name, ""))

    def test_before_the_group_is_known(self) -> None:
        """As for somebody who is invited while away: the title waits in the mailbox, the chain has to be asked for."""
        self.assertFalse(self.told("team"))
        self.assertEqual(self.follow(), "team")

    def test_after_it(self) -> None:
        self.assertEqual(self.follow(), "")
        self.assertTrue(self.told("team"))
        self.assertEqual(self.name(), "team")
        self.assertFalse(self.told("team"), "it is no news any more")

    def test_before_the_statement_that_renames_it(self) -> None:
        self.follow()
        self.told("team")
        self.assertFalse(self.told("crew"))
        self.assertEqual(self.name(), "team")
        self.chain.add(ALICE, ALICE.retitle(self.chain.state, "crew"))
        self.assertEqual(self.follow(), "crew")

    def test_another_name_than_the_chain_has_is_never_believed(self) -> None:
        self.told("cream")
        self.assertEqual(self.follow(), "")
        self.assertFalse(self.told("cream"))
        self.assertEqual(self.name(), "")

    def test_what_nobody_needs_does_not_pile_up(self) -> None:
        self.patch(groups, "MOST_EARLY", 2)
        with self.vault.transaction():
            for number in range(5):
                self.groups.tell_title(f"{number:032x}", title_of("x", ""))
        (count,) = self.vault.execute("SELECT COUNT(*) FROM meta WHERE name LIKE 'title of %'").fetchone()
        self.assertEqual(count, 2)
