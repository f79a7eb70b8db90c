"""`fastchat devices` and `fastchat revoke` without a network: what is shown, and what is refused at once."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

from fastchat.identity.links import sign_add_device, sign_revoke_device
from fastchat.protocols.wire import AccountKeys, Signed
from fastchat_client.trust import Accounts
from tests.support.cli import CliTestCase, typed
from tests.support.keys import root_key

ROOT = root_key(0)
AT = 1_800_000_000_000


class Devices(CliTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.directory = self.profile()
        code, out, _ = typed("devices", "--json", "--profile", str(self.directory))
        self.assertEqual(code, 0)
        [self.this] = map(json.loads, out.splitlines())
        self.lost = self.adds(b"a")
        self.gone = self.adds(b"b")
        self.learns(lambda links: sign_revoke_device(ROOT, links, "alice", self.gone, AT + 1))

    def adds(self, letter: bytes) -> str:
        link = self.learns(lambda links: sign_add_device(ROOT, links, "alice", letter * 32, letter * 32, AT))
        return str(json.loads(link.body)["device"])

    def learns(self, sign: Callable[[Sequence[Signed]], Signed]) -> Signed:
        vault = self.vault(self.directory)
        accounts = Accounts(vault)
        links = accounts.links("alice")
        link = sign(links)
        with vault.transaction():
            accounts.learn(AccountKeys("alice", (*links, link), ()), AT)
        vault.close()
        return link

    def test_which_there_are(self) -> None:
        code, out, _ = typed("devices", "--json", "--profile", str(self.directory))
        self.assertEqual(code, 0)
        found = [json.loads(line) for line in out.splitlines()]
        self.assertEqual([one["device"] for one in found], [self.this["device"], self.lost, self.gone])
        self.assertEqual([one["this"] for one in found], [True, False, False])
        self.assertEqual([one["revoked"] for one in found], ["", "", "2027-01-15T08:00:00.001Z"])
        self.assertEqual(found[1]["added"], "2027-01-15T08:00:00.000Z")
        _, out, _ = typed("devices", "--profile", str(self.directory))
        lines = out.splitlines()
        self.assertEqual([line[:32] for line in lines], [one["device"] for one in found])
        self.assertEqual(["this one" in line for line in lines], [True, False, False])
        self.assertEqual(["REVOKED" in line for line in lines], [False, False, True])

    def test_what_is_not_revoked(self) -> None:
        for device, why in (
            (self.lost[:5], "at least the first 6"),
            ("0" * 32, "no device"),
            (self.gone, "already"),
            (self.gone[:8].upper(), "already"),
            (self.this["device"], "you are using"),
            (self.this["device"][:6], "you are using"),
        ):
            self.assertIn(why, self.refused(1, "revoke", device, "--yes", "--profile", str(self.directory)))
