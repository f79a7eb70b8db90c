"""Who is let in by the session machine, and who is not: signatures, passwords, and patience with both."""

from __future__ import annotations

from typing import Any

from fastchat.errors import LoginFailed
from fastchat.identity import login
from fastchat.protocols import wire
from fastchat.protocols.session import State
from tests.support.calling import END_POINT, Peer, SessionCase
from tests.support.people import PASSWORD, OwnDevice, Person, scram_client
from tests.support.rules import INVITE


class DeviceLogin(SessionCase):
    """By a device's signature over this connection's exporter and challenge."""

    def test_it_says_how_things_are(self) -> None:
        peer = self.peer()
        welcome = peer.greets()
        self.assertEqual((welcome.version, welcome.service, welcome.challenge), (1, "chat-1", peer.challenge))
        limits = self.place.limits
        self.assertEqual((welcome.limits.max_line, welcome.limits.unaccepted), (wire.MAX_LINE, limits.unaccepted))
        self.assertEqual(welcome.limits.dead_after, limits.dead_seconds)
        ready = peer.asks(peer.login(self.alice), wire.Ready)
        self.assertEqual((ready.mailbox, ready.one_time_keys, ready.checkpoint.size), (0, 3, 6))
        self.assertTrue(self.place.is_attached(self.alice.id))

    def refused(self, peer: Peer, request: wire.Login) -> None:
        """Whatever is wrong: the same words, and the end."""
        error = peer.refused(request)
        self.assertEqual((error.code, error.message), ("login-failed", LoginFailed().message))
        self.assert_ended(peer, "login-failed")
        self.assertFalse(self.place.is_attached(request.device))

    def changed(self, login: wire.Login, **changes: Any) -> wire.Login:
        fields = {"id": login.id, "user": login.user, "device": login.device, "signature": login.signature}
        return wire.Login(**{**fields, **changes})

    def greeted(self, **options: Any) -> Peer:
        peer = self.peer(**options)
        peer.greets()
        return peer

    def test_a_device_that_nobody_has(self) -> None:
        peer = self.greeted()
        self.refused(peer, peer.login(OwnDevice("alice", "never added")))

    def test_a_user_that_there_is_not(self) -> None:
        peer = self.greeted()
        self.refused(peer, peer.login(OwnDevice("nobody", "first")))

    def test_another_users_device(self) -> None:
        for user, device, signer in [
            ("alice", self.bob, self.bob),
            ("alice", self.bob, self.alice),
            ("bob", self.alice, self.alice),
            ("alice", self.alice, self.bob),
        ]:
            peer = self.greeted()
            login = peer.login(signer)
            self.refused(peer, self.changed(login, user=user, device=device.id))

    def test_somebody_who_signs_anothers_name_with_an_own_device(self) -> None:
        peer = self.greeted()
        statement = login.statement(peer.exporter, peer.challenge, "alice", self.bob.id)
        signature = self.bob.ed25519.sign(statement)
        self.refused(peer, wire.Login(peer.next_id(), "alice", self.bob.id, signature))

    def test_a_signature_with_any_bit_changed(self) -> None:
        for position in (0, 31, 32, 63):
            self.place.clock.advance(3600)
            peer = self.greeted()
            login = peer.login(self.alice)
            broken = bytearray(login.signature)
            broken[position] ^= 1
            self.refused(peer, self.changed(login, signature=bytes(broken)))

    def test_a_replayed_signature(self) -> None:
        """Good on its own connection; on one with another challenge, or another TLS session, worth nothing."""
        overheard = self.greeted()
        login = overheard.login(self.alice)
        overheard.asks(login, wire.Ready)
        for options in [
            {},
            {"exporter": overheard.exporter},
            {"challenge": overheard.challenge},
        ]:
            self.refused_but_alice_stays(self.greeted(**options), login, overheard)
        # It was the challenge and the exporter that made the difference, and nothing else:
        same = self.greeted(exporter=overheard.exporter, challenge=overheard.challenge)
        same.asks(login, wire.Ready)

    def refused_but_alice_stays(self, peer: Peer, login: wire.Login, alice: Peer) -> None:
        self.assertEqual(peer.refused(login).code, "login-failed")
        self.assert_ended(peer, "login-failed")
        alice.asks(wire.Ping(alice.next_id()), wire.Pong)

    def test_failures_have_to_wait(self) -> None:
        """The first few are answered at once; then both the account and the address pay with time."""
        for _ in range(5):
            peer = self.greeted(address="192.0.2.1")
            self.assertEqual(peer.refused(peer.login(OwnDevice("alice", "x"))).code, "login-failed")
        for user, address in [("alice", "198.51.100.2"), ("zoe", "192.0.2.1")]:
            peer = self.greeted(address=address)
            self.assertEqual(peer.says(peer.login(OwnDevice(user, "x"))), [])
            self.assertIs(peer.session.state, State.WAITING)
            self.passes(9)
            self.assert_ended(peer, "login-failed")
        peer = self.greeted(address="192.0.2.3")
        self.assertEqual(peer.refused(peer.login(OwnDevice("zoe", "y"))).code, "login-failed")

    def test_the_right_signature_never_waits(self) -> None:
        for _ in range(8):
            peer = self.greeted()
            peer.says(peer.login(OwnDevice("alice", "x")))
        peer = self.greeted()
        peer.asks(peer.login(self.alice), wire.Ready)

    def test_it_goes_on_while_the_database_is_away(self) -> None:
        self.online(self.alice).hangs_up()
        self.place.store.away = True
        ready = self.peer().logs_in(self.alice)
        self.assertEqual((ready.mailbox, ready.one_time_keys, ready.checkpoint.size), (None, None, 6))

    def test_a_device_that_was_never_seen_cannot_be_judged_meanwhile(self) -> None:
        self.place.accounts._devices.clear()
        self.place.store.away = True
        peer = self.greeted()
        error = peer.refused(peer.login(self.alice))
        self.assertEqual((error.code, error.retry_after), ("busy", 2.0))
        self.assert_ended(peer, "busy")

    def test_failures_of_the_database_are_not_held_against_anybody(self) -> None:
        self.place.accounts._devices.clear()
        self.place.store.away = True
        for _ in range(9):
            peer = self.greeted()
            self.assertEqual(peer.refused(peer.login(self.alice)).code, "busy")
        self.assertEqual(self.place.failures.delay("alice", "192.0.2.7"), 0.0)


class PasswordLogin(SessionCase):
    """Which only opens the way to `add_device`."""

    def test_a_device_is_added_and_logs_in(self) -> None:
        alice = self.people["alice"]
        peer = self.peer()
        peer.greets()
        proven = peer.proves("alice")
        self.assertEqual(proven.links, tuple(alice.links))
        phone, request = alice.add_device("phone")
        peer.asks(request, wire.Added)
        ready = peer.asks(peer.login(phone), wire.Ready)
        self.assertEqual(ready.checkpoint.size, 7)

    def test_a_password_alone_is_no_login(self) -> None:
        peer = self.peer()
        peer.greets()
        self.assertIsInstance(peer.proves("alice"), wire.ScramAnswer)
        self.assertEqual(peer.refused(peer.send_to(1, self.bob.id)).code, "out-of-turn")
        self.assert_ended(peer, "out-of-turn")

    def refused(self, user: str, password: str = PASSWORD, end_point: bytes = END_POINT) -> wire.Error:
        peer = self.peer()
        peer.greets()
        error = peer.proves(user, password, end_point)
        self.assertIsInstance(error, wire.Error)
        self.assert_ended(peer, "login-failed")
        return error  # type: ignore[no-any-return]

    def test_a_wrong_password_an_unknown_user_and_a_wrong_binding_sound_alike(self) -> None:
        errors = [self.refused("alice", "wrong"), self.refused("nobody"), self.refused("alice", end_point=b"x" * 32)]
        self.assertEqual(len({(error.code, error.message, error.re) for error in errors}), 1)

    def test_an_unknown_user_has_a_salt_too_and_always_the_same(self) -> None:
        salts = []
        for user in ("nobody", "nobody", "nobody-else", "alice"):
            peer = self.peer()
            peer.greets()
            client = scram_client(user, "x", END_POINT)
            answer = peer.asks(wire.ScramRequest(2, client.get_client_first()), wire.ScramAnswer)
            fields = dict(part.split("=", 1) for part in answer.message.split(","))
            salts.append((fields["s"], fields["i"]))
        self.assertEqual(salts[0], salts[1])
        self.assertEqual(len(set(salts)), 3)
        self.assertEqual({(len(salt), rounds) for salt, rounds in salts}, {(44, "4096")})

    def test_guesses_have_to_wait_right_or_wrong(self) -> None:
        """Before the password is looked at: so that the wait says nothing about it."""
        for _ in range(6):
            self.refused("alice", "wrong")
        for password, kind in (("wrong", wire.Error), (PASSWORD, wire.ScramAnswer)):
            peer = self.peer()
            peer.greets()
            client = scram_client("alice", password, END_POINT)
            self.assertEqual(peer.says(wire.ScramRequest(2, client.get_client_first())), [])
            self.passes(8)
            client.set_server_first(peer.heard[-1].message)
            peer.asks(wire.ScramRequest(3, client.get_client_final()), kind)

    def test_what_is_no_scram(self) -> None:
        for message in [
            "",
            "n,,n=alice,r=x",
            "y,,n=alice,r=x",
            "p=tls-unique,,n=alice,r=x",
            "\x00",
            "grüße",
            "p=" * 500,
        ]:
            peer = self.peer()
            peer.greets()
            peer.refused(wire.ScramRequest(2, message))
            self.assert_ended(peer, "bad-request")

    def test_a_final_message_that_is_none(self) -> None:
        for message in ["", "c=,r=,p=", "grüße"]:
            self.place.clock.advance(3600)
            peer = self.peer()
            peer.greets()
            client = scram_client("alice", PASSWORD, END_POINT)
            peer.asks(wire.ScramRequest(2, client.get_client_first()), wire.ScramAnswer)
            peer.refused(wire.ScramRequest(3, message))
            self.assert_ended(peer, "login-failed")

    def proven(self, user: str) -> Peer:
        peer = self.peer()
        peer.greets()
        self.assertIsInstance(peer.proves(user), wire.ScramAnswer)
        return peer

    def test_a_device_that_another_key_has_signed(self) -> None:
        """Who has the password and not the RSA key adds nothing."""
        alice, mallory = self.people["alice"], OwnDevice("alice", "mallory")
        body = alice.link(mallory).body
        link = wire.Signed(body, self.people["bob"].root.sign(b"link", body))
        peer = self.proven("alice")
        error = peer.refused(wire.AddDevice(9, 2, link, mallory.keys()))
        self.assertEqual(error.code, "signature-invalid")
        self.assert_ended(peer, "signature-invalid")
        login = self.peer()
        login.greets()
        self.assertEqual(login.refused(login.login(mallory)).code, "login-failed")

    def test_a_device_for_somebody_else(self) -> None:
        """Bob's password, alice's link: it does not follow on bob's chain."""
        _, request = self.people["alice"].add_device("phone")
        peer = self.proven("bob")
        error = peer.refused(request)
        self.assertIn(error.code, ("signature-invalid", "chain-invalid"))
        self.assert_ended(peer, error.code)

    def test_another_place_in_the_chain(self) -> None:
        _, request = self.people["alice"].add_device("phone")
        for position in (0, 1, 3):
            peer = self.proven("alice")
            peer.refused(wire.AddDevice(9, position, request.link, request.keys))
            self.assert_ended(peer, "chain-invalid")


class Registration(SessionCase):
    def refused(self, request: wire.Register, code: str) -> None:
        peer = self.peer()
        peer.greets()
        peer.refused(request)
        self.assert_ended(peer, code)

    def test_an_account_and_its_first_login_on_one_connection(self) -> None:
        dave = Person("dave")
        peer = self.peer()
        peer.greets()
        peer.asks(dave.register(INVITE), wire.Registered)
        self.assertEqual(peer.asks(peer.login(dave.device), wire.Ready).checkpoint.size, 8)

    def test_a_name_that_is_taken(self) -> None:
        self.refused(self.people["alice"].register(INVITE), "name-taken")

    def test_an_invite_that_is_none(self) -> None:
        self.refused(Person("dave").register("another invite"), "invite-invalid")

    def test_somebody_elses_links(self) -> None:
        dave, request = Person("dave"), self.people["alice"].register(INVITE)
        stolen = wire.Register(1, dave.user, INVITE, request.verifier, request.links, request.keys)
        peer = self.peer()
        peer.greets()
        error = peer.refused(stolen)
        self.assertIn(error.code, ("chain-invalid", "signature-invalid"))

    def test_a_registration_is_no_login(self) -> None:
        peer = self.peer()
        peer.greets()
        peer.asks(Person("dave").register(INVITE), wire.Registered)
        peer.refused(peer.send_to(1, self.bob.id))
        self.assert_ended(peer, "out-of-turn")
