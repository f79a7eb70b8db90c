"""A profile's folder: its files, who may read them, and who may use it."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import TestCase

from fastchat.errors import ConfigError
from fastchat.protocols.wire import ServiceAddress
from fastchat_client.password import Cost
from fastchat_client.profile import (
    MOST_SERVICES,
    Facts,
    NoProfile,
    Profile,
    ProfileInUse,
    profiles_in,
    write_whole,
)


def facts(user: str = "alice") -> Facts:
    return Facts(user=user, host="::1", port=7400, pin=b"p" * 32, log_key=b"l" * 32, salt=b"s" * 16, cost=Cost(1, 8, 1))


class ProfileTests(TestCase):
    def setUp(self) -> None:
        self.directory = Path(self.mktemp()) / "deep" / "alice"

    def test_what_was_made_is_loaded(self) -> None:
        Profile.create(self.directory, facts())
        self.assertEqual(Profile.load(self.directory).facts, facts())

    def test_only_its_owner_can_read_it(self) -> None:
        profile = Profile.create(self.directory, facts())
        profile.write_identity(b"pem")
        with profile.locked():
            modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in self.directory.iterdir()}
        self.assertEqual(modes, {"profile.json": 0o600, "identity.pem": 0o600, "lock": 0o600})
        self.assertEqual(stat.S_IMODE(self.directory.stat().st_mode), 0o700)

    def test_there_is_no_second_profile_in_a_folder(self) -> None:
        Profile.create(self.directory, facts())
        self.assertRaises(ConfigError, Profile.create, self.directory, facts("bob"))
        self.assertEqual(Profile.load(self.directory).facts.user, "alice")

    def test_no_profile_says_what_to_type(self) -> None:
        error = self.assertRaises(NoProfile, Profile.load, self.directory)
        self.assertIn("fastchat join LINK --as NAME", error.message)
        self.assertIn(str(self.directory), error.message)

    def test_a_damaged_profile_is_one_sentence_and_stays(self) -> None:
        Profile.create(self.directory, facts())
        path = self.directory / "profile.json"
        for damage in (
            b"",
            b"{",
            b"[]",
            b'{"user":"alice"}',
            b"\xff\xfe",
            path.read_bytes().replace(b"alice", b"../x"),
        ):
            path.write_bytes(damage)
            error = self.assertRaises(ConfigError, Profile.load, self.directory)
            self.assertNotIn("\n", error.message)
            self.assertEqual(path.read_bytes(), damage)

    def test_the_newest_list_of_services_is_remembered(self) -> None:
        profile = Profile.create(self.directory, facts())
        services = (ServiceAddress("chat1", "::1", 7401), ServiceAddress("chat2", "::1", 7402))
        profile.remember(services)
        profile.remember(())
        self.assertEqual(tuple(Profile.load(self.directory).services), services)

    def test_a_list_without_end_is_not_remembered(self) -> None:
        profile = Profile.create(self.directory, facts())
        profile.remember([ServiceAddress(f"chat{number}", "::1", 7401) for number in range(3000)])
        self.assertEqual(len(Profile.load(self.directory).services), MOST_SERVICES)

    def test_the_same_list_again_is_not_written(self) -> None:
        profile = Profile.create(self.directory, facts())
        services = (ServiceAddress("chat1", "::1", 7401), ServiceAddress("chat2", "::1", 7402))
        profile.remember(services)
        before = (self.directory / "profile.json").stat().st_ino
        profile.remember(services[::-1])
        self.assertEqual((self.directory / "profile.json").stat().st_ino, before)

    def test_a_file_that_cannot_be_written_is_left_as_it_was(self) -> None:
        self.directory.mkdir(parents=True)
        target = self.directory / "folder"
        target.mkdir()
        self.assertRaises(ConfigError, write_whole, target, b"data")
        self.assertEqual([path.name for path in self.directory.iterdir()], ["folder"])

    def test_remove_takes_its_own_files_only(self) -> None:
        profile = Profile.create(self.directory, facts())
        profile.write_identity(b"pem")
        (self.directory / "letter.txt").write_text("mine")
        profile.remove()
        self.assertEqual([path.name for path in self.directory.iterdir()], ["letter.txt"])
        (self.directory / "letter.txt").unlink()
        Profile.create(self.directory, facts()).remove()
        self.assertFalse(self.directory.exists())

    def test_profiles_in_a_folder(self) -> None:
        for user in ("bob", "alice"):
            Profile.create(self.directory / user, facts(user))
        (self.directory / "other").mkdir()
        self.assertEqual([profile.facts.user for profile in profiles_in(self.directory)], ["alice", "bob"])
        self.assertEqual(profiles_in(self.directory / "nowhere"), [])


class LockTests(TestCase):
    def setUp(self) -> None:
        self.profile = Profile.create(Path(self.mktemp()), facts())

    def test_a_second_user_is_told_the_first_ones_process(self) -> None:
        with self.profile.locked():
            error = self.assertRaises(ProfileInUse, Profile.load(self.profile.directory).locked().__enter__)
            self.assertIn(str(os.getpid()), error.message)
            self.assertTrue(self.profile.in_use())
        self.assertFalse(self.profile.in_use())

    def test_the_lock_goes_with_a_process_that_is_killed(self) -> None:
        script = (
            "import sys; from pathlib import Path; from fastchat_client.profile import Profile\n"
            "with Profile.load(Path(sys.argv[1])).locked():\n"
            "    print('locked', flush=True); sys.stdin.read()\n"
        )
        with subprocess.Popen(
            [sys.executable, "-c", script, str(self.profile.directory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as other:
            assert other.stdout is not None
            self.assertEqual(other.stdout.readline(), "locked\n")
            error = self.assertRaises(ProfileInUse, self.profile.locked().__enter__)
            self.assertIn(str(other.pid), error.message)
            other.kill()
            other.wait()
        with self.profile.locked():
            self.assertEqual((self.profile.directory / "lock").read_text(), f"{os.getpid()}\n")
