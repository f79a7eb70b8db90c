"""The invite link: what was written is read, and what is not an invite says why."""

from __future__ import annotations

import hashlib
import shlex
import string

from hypothesis import given, settings
from hypothesis import strategies as some
from twisted.trial.unittest import SynchronousTestCase

from fastchat.errors import InviteInvalid
from fastchat.identity.invite import Invite, invite_digest

PIN, LOG_KEY = bytes(range(32)), bytes(range(200, 232))
INVITE = Invite("chat.example.org", 7400, PIN, LOG_KEY, "tok-en_1")
LINK = (
    "fastchat://chat.example.org:7400"
    "/AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"
    "/yMnKy8zNzs_Q0dLT1NXW19jZ2tvc3d7f4OHi4-Tl5uc"
    "/tok-en_1"
)

hosts = (
    some.from_regex(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,60}[A-Za-z0-9])?", fullmatch=True)
    | some.ip_addresses(v=4).map(str)
    | some.ip_addresses(v=6).map(str)
)
invites = some.builds(
    Invite,
    hosts,
    some.integers(1, 65535),
    some.binary(min_size=32, max_size=32),
    some.binary(min_size=32, max_size=32),
    some.text(string.ascii_letters + string.digits + "-_", min_size=1, max_size=128),
)


class Links(SynchronousTestCase):
    def test_written_and_read(self) -> None:
        self.assertEqual(str(INVITE), LINK)
        self.assertEqual(Invite.parse(LINK), INVITE)

    @given(invites)
    @settings(deadline=None)
    def test_round_trip(self, invite: Invite) -> None:
        self.assertEqual(Invite.parse(str(invite)), invite)

    def test_ipv6_stands_in_brackets(self) -> None:
        invite = Invite("2001:db8::1", 7400, PIN, LOG_KEY, "t")
        self.assertTrue(str(invite).startswith("fastchat://[2001:db8::1]:7400/"))
        self.assertEqual(Invite.parse(str(invite)).host, "2001:db8::1")

    def test_white_space_around(self) -> None:
        self.assertEqual(Invite.parse(f"  {LINK}\n"), INVITE)

    def test_nothing_in_it_has_a_meaning_to_a_shell(self) -> None:
        self.assertEqual(shlex.quote(LINK), LINK)


class NotAnInvite(SynchronousTestCase):
    def refused(self, link: str, *words: str) -> None:
        error = self.assertRaises(InviteInvalid, Invite.parse, link)
        for word in words:
            self.assertIn(word, error.message)

    def test_each_part(self) -> None:
        self.refused("", "fastchat://")
        self.refused("https://example.org/", "fastchat://")
        self.refused("fastchat://chat.example.org", "complete")
        self.refused(LINK.rpartition("/")[0], "complete")
        self.refused(LINK + "/more", "complete")
        self.refused(LINK.replace("5uc/", "5u/"), "log key")
        self.refused(LINK.replace("5uc/", "/"), "log key")
        self.refused(LINK.replace("AAECAw", ""), "pin")
        self.refused(LINK.replace("/AAEC", "/+AEC"), "pin")
        self.refused(LINK.replace("7400", "0"), "port")
        self.refused(LINK.replace("7400", "65536"), "port")
        self.refused(LINK.replace("tok-en_1", ""), "token")
        self.refused(LINK.replace("tok-en_1", "tök"), "token")
        self.refused(LINK.replace("chat.example.org", ""), "host")
        self.refused(LINK.replace("chat.example.org", "chat example"), "host")
        self.refused(LINK.replace("chat.example.org", "[::g]"), "IPv6")
        self.refused(LINK.replace("chat.example.org", "[10.0.0.1]"), "IPv6")
        self.refused(LINK.replace("chat.example.org", "::1"), "complete")

    def test_one_that_could_not_be_written_cannot_be_made(self) -> None:
        for parts in (
            ("a/b", 1, PIN, LOG_KEY, "t"),
            ("fe80::1%eth0", 1, PIN, LOG_KEY, "t"),
            ("a" * 254, 1, PIN, LOG_KEY, "t"),
            ("a", 0, PIN, LOG_KEY, "t"),
            ("a", 1, PIN[1:], LOG_KEY, "t"),
            ("a", 1, PIN, b"", "t"),
            ("a", 1, PIN, LOG_KEY, "t?"),
            ("a", 1, PIN, LOG_KEY, "t" * 129),
        ):
            self.assertRaises(InviteInvalid, Invite, *parts)

    @given(some.text(), some.integers(0, len(LINK)), some.integers(0, len(LINK)))
    @settings(deadline=None)
    def test_any_text(self, text: str, start: int, end: int) -> None:
        for link in (text, "fastchat://" + text, LINK[:start] + text + LINK[end:]):
            try:
                invite = Invite.parse(link)
            except InviteInvalid:
                continue
            self.assertEqual(Invite.parse(str(invite)), invite)


class Digest(SynchronousTestCase):
    def test_it_is_sha256_of_the_token(self) -> None:
        self.assertEqual(invite_digest("token"), hashlib.sha256(b"token").digest())

    @given(some.text())
    @settings(deadline=None)
    def test_any_text(self, token: str) -> None:
        self.assertEqual(len(invite_digest(token)), 32)
        self.assertEqual(len(invite_digest(token + "\ud800")), 32)
