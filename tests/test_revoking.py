"""A person takes a lost device out of their account: what becomes of it, of what it wrote, and what others do."""

from __future__ import annotations

from typing import Any

from fastchat import accounts as server
from fastchat.errors import RequestError, TrustError
from fastchat.protocols.wire import AccountKeys
from fastchat_client.events import Disconnected, MessageUnreadable, Notice, Revocation
from fastchat_client.revoking import MOST_TRIES
from fastchat_client.trust import Accounts
from tests.support.delivery import now
from tests.support.joined import JoinedTest, Person
from tests.support.keys import root_key


def ask(person: Person, lost: Person) -> None:
    person.core.revoke_device(person.root, lost.device)
    if person._connection is not None:
        person._connection.flush()


def revoke(person: Person, lost: Person) -> None:
    ask(person, lost)
    person.net.passes(2)


class LostTest(JoinedTest):
    """alice has lost her phone, which she used to write to bob with; her laptop is here."""

    def setUp(self) -> None:
        super().setUp()
        self.phone, self.bob = self.net.person("alice"), self.net.person("bob")
        self.laptop = self.net.second_device(self.phone)
        self.phone.sends("bob", "hello")
        self.bob.sends("alice", "hello to you")
        self.net.passes(2)
        self.bob.sees("alice: hello")
        self.phone.sees("bob: hello to you")
        self.laptop.sees("alice → bob: hello", "bob: hello to you")

    def outcomes(self, person: Person) -> list[tuple[str, str]]:
        return [(event.device, event.code) for event in person.events if isinstance(event, Revocation)]

    def learns(self, person: Person) -> None:
        """What the network would say of alice, before it says anything else."""
        links = now(self.net.memory.links(["alice"]))["alice"]
        with person.vault.transaction():
            person.core._parts.accounts.learn(AccountKeys("alice", tuple(links), ()), self.net._milliseconds())

    def sessions_with(self, person: Person, other: Person) -> int:
        rows = person.vault.execute("SELECT COUNT(*) FROM sessions WHERE device = ?", (other.device,)).fetchone()
        return int(rows[0])

    def sealed_for(self, person: Person, message_id: str) -> set[str]:
        n = int(message_id.rpartition(".")[2])
        rows = person.vault.execute("SELECT device FROM sealed WHERE n = ?", (n,)).fetchall()
        return {device for (device,) in rows}


class Revoked(LostTest):
    def test_it_is_logged_out_and_gets_nothing_more(self) -> None:
        revoke(self.laptop, self.phone)
        self.assertEqual(self.outcomes(self.laptop), [(self.phone.device, "")])
        self.assertEqual(self.phone.farewells, ["device-revoked"])
        [ended] = [event for event in self.phone.events if isinstance(event, Disconnected)]
        self.assertIsNone(ended.retry_in)
        sent = self.bob.sends("alice", "are you all right?")
        self.net.passes(5)
        self.laptop.sees("bob: are you all right?")
        self.phone.sees()
        self.assertEqual(self.bob.state_of(sent), "delivered")
        self.assertEqual(self.sealed_for(self.bob, sent), {self.laptop.device})
        copied = self.laptop.sends("bob", "I lost my phone")
        self.net.passes(5)
        self.assertEqual(self.sealed_for(self.laptop, copied), {self.bob.device})
        self.bob.sees("alice: I lost my phone")

    def test_it_does_not_get_in_again_and_says_why(self) -> None:
        self.phone.goes_offline()
        revoke(self.laptop, self.phone)
        self.phone.comes_back()
        self.net.passes(minutes=10)
        self.assertFalse(self.phone.is_online)
        [ended] = [event for event in self.phone.events if isinstance(event, Disconnected)]
        self.assertEqual((ended.code, ended.retry_in), ("login-failed", None))
        self.assertIn("revoked", ended.reason)

    def test_who_is_online_learns_of_it_from_the_log(self) -> None:
        revoke(self.laptop, self.phone)
        self.net.passes(minutes=6)
        self.bob.sends("alice", "hello?")
        self.net.settles()
        for accounts in (self.bob.core._parts.accounts, Accounts(self.bob.vault)):
            account = accounts.get("alice")
            assert account is not None
            self.assertEqual(
                (list(account.devices), list(account.revoked)), ([self.laptop.device], [self.phone.device])
            )

    def test_it_finds_out_by_itself_if_the_server_lets_it_stay(self) -> None:
        self.net.bus._watchers.clear()
        revoke(self.laptop, self.phone)
        self.assertTrue(self.phone.is_online)
        self.net.passes(minutes=6)
        self.assertEqual(self.phone.farewells, ["device-revoked"])
        self.assertEqual([one.code for one in self.phone.events if isinstance(one, Notice)], ["device-revoked"])
        self.phone.goes_offline()
        self.phone.comes_back()
        self.assertEqual(self.phone.farewells, ["device-revoked"] * 2)


class WrittenBefore(LostTest):
    """What the phone wrote before it was lost, and what somebody else may write with it."""

    def setUp(self) -> None:
        super().setUp()
        self.bob.goes_offline()

    def test_what_was_on_its_way_is_read_with_the_session_that_there_is(self) -> None:
        self.phone.sends("bob", "on my way home")
        revoke(self.laptop, self.phone)
        self.learns(self.bob)
        self.bob.comes_back()
        self.bob.sees("alice: on my way home")
        [notice] = [one for one in self.bob.events if isinstance(one, Notice)]
        self.assertEqual(notice.code, "device-revoked")
        self.assertIn(self.phone.device[:8], notice.text)

    def test_no_session_begins_with_it(self) -> None:
        carol = self.net.person("carol")
        carol.sends("alice", "hello, alice")  # to be known; but never to have had a session with the tablet
        tablet = self.net.second_device(self.phone)
        carol.goes_offline()
        tablet.sends("carol", "from my tablet")
        revoke(self.laptop, tablet)
        self.learns(carol)
        carol.comes_back()
        carol.sees("alice: ?")
        [unreadable] = [one for one in carol.events if isinstance(one, MessageUnreadable)]
        self.assertIn("revoked", unreadable.reason)
        self.assertFalse(unreadable.retrying)
        self.assertEqual(self.sessions_with(carol, tablet), 0)

    def test_after_a_week_it_is_read_no_more(self) -> None:
        self.phone.sends("bob", "much too late")
        revoke(self.laptop, self.phone)
        self.learns(self.bob)
        self.assertEqual(self.sessions_with(self.bob, self.phone), 1)
        rows = self.net.memory._mailboxes[self.bob.device].copy()
        self.net.memory._mailboxes[self.bob.device].clear()
        self.bob.comes_back()
        self.bob.wall_ahead = 6 * 86_400.0
        self.net.passes(minutes=2)
        self.assertEqual(self.sessions_with(self.bob, self.phone), 1)
        self.bob.wall_ahead = 7.1 * 86_400.0
        self.net.passes(minutes=2)
        self.assertEqual(self.sessions_with(self.bob, self.phone), 0)
        self.bob.goes_offline()
        self.net.memory._mailboxes[self.bob.device].update(rows)
        self.bob.comes_back()
        self.bob.sees("alice: ?")


class Asking(LostTest):
    """How it is asked for."""

    def test_what_cannot_be_revoked(self) -> None:
        for device, root, error in (
            (self.laptop.device, self.laptop.root, RequestError),
            (self.bob.device, self.laptop.root, RequestError),
            ("", self.laptop.root, RequestError),
            (self.phone.device, root_key(5), TrustError),
        ):
            self.assertRaises(error, self.laptop.core.revoke_device, root, device)
        revoke(self.laptop, self.phone)
        self.assertRaises(RequestError, self.laptop.core.revoke_device, self.laptop.root, self.phone.device)

    def test_it_is_asked_for_offline_and_done_at_the_next_connection(self) -> None:
        self.laptop.goes_offline()
        revoke(self.laptop, self.phone)
        self.assertTrue(self.phone.is_online)
        self.laptop.comes_back()
        self.net.passes(2)
        self.assertEqual(self.outcomes(self.laptop), [(self.phone.device, "")])
        self.assertFalse(self.phone.is_online)

    def test_while_the_database_is_away_it_waits(self) -> None:
        self.net.database_goes_away()
        revoke(self.laptop, self.phone)
        self.net.passes(10)
        self.assertEqual(self.outcomes(self.laptop), [])
        self.net.database_comes_back()
        self.net.passes(minutes=1)
        self.assertEqual(self.outcomes(self.laptop), [(self.phone.device, "")])

    def test_the_connection_is_lost_in_the_middle(self) -> None:
        ask(self.laptop, self.phone)
        self.net.settles()
        self.net.clock.advance(1)
        self.net.store.held = True
        self.net.passes(1)
        self.laptop.moves()
        self.net.store.release()
        self.net.passes(minutes=2)
        self.assertEqual(self.outcomes(self.laptop), [(self.phone.device, "")])
        self.assertFalse(self.phone.is_online)

    def test_a_network_that_says_that_it_is_done_and_does_not_show_it(self) -> None:
        asked = []

        async def pretend(_self: object, user: str, *_: object) -> None:
            asked.append(user)

        self.patch(server.Accounts, "revoke_device", pretend)
        revoke(self.laptop, self.phone)
        self.net.passes(30)
        self.assertEqual(self.outcomes(self.laptop), [(self.phone.device, TrustError.code)])
        self.assertEqual(len(asked), MOST_TRIES)

    def test_who_comes_second_signs_anew(self) -> None:
        tablet, desktop = self.net.second_device(self.phone), self.net.second_device(self.phone)
        self.net.passes(minutes=6)  # each knows of the others
        with self.net.same_moment():
            ask(self.laptop, self.phone)
            ask(tablet, desktop)
        self.net.passes(minutes=1)
        self.assertEqual(self.outcomes(self.laptop), [(self.phone.device, "")])
        self.assertEqual(self.outcomes(tablet), [(desktop.device, "")])

    def test_of_two_who_revoke_the_same_device_both_are_content(self) -> None:
        tablet = self.net.second_device(self.phone)
        self.net.passes(minutes=6)
        with self.net.same_moment():
            ask(self.laptop, self.phone)
            ask(tablet, self.phone)
        self.net.passes(minutes=1)
        self.assertEqual(self.outcomes(self.laptop) + self.outcomes(tablet), [(self.phone.device, "")] * 2)
        self.assertEqual(len(now(self.net.memory.links(["alice"]))["alice"]), 5)

    def test_each_of_two_revokes_the_other(self) -> None:
        with self.net.same_moment():
            ask(self.laptop, self.phone)
            ask(self.phone, self.laptop)
        self.net.passes(minutes=1)
        self.assertEqual([self.laptop.is_online, self.phone.is_online].count(True), 1)
        links: Any = now(self.net.memory.links(["alice"]))["alice"]
        self.assertEqual(len(links), 4)
