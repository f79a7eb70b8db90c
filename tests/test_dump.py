"""What PostgreSQL holds after a conversation, dumped whole: no plaintext, no private key, no password or its hash."""

from __future__ import annotations

import base64
import hashlib
import io
from random import Random
from uuid import UUID

import psycopg2
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from fastchat_client.events import GroupInvited, State
from fastchat_client.group_acting import InviteAct, JoinAct, act_state
from fastchat_client.password import Cost, login_password
from tests.support.keys import root_key
from tests.support.running import Member, RunningNetwork, all_of, until

PLAINTEXT = "meet me at the old pier at nine, and bring the letters"
OFFLINE = "this one waits in the mailbox while nobody is there"
GROUP_NAME = "the smugglers of the old pier"
GROUP_TOPIC = "what comes over the water at night"
GROUP_TEXT = "all of you: the boat is late, wait behind the customs house"
CHEAP = Cost(1, 8, 1)


def dump(dsn: str) -> bytes:
    """Every row of every table of the database, as PostgreSQL writes it and with each bytea decoded too."""
    connection = psycopg2.connect(dsn)
    out = io.BytesIO()
    try:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT format('%I.%I', table_schema, table_name) FROM information_schema.tables"
                " WHERE table_schema NOT IN ('pg_catalog', 'information_schema')"
            )
            for (table,) in cursor.fetchall():
                out.write(f"\n-- {table}\n".encode())
                cursor.copy_expert(f"COPY {table} TO STDOUT", out)
                cursor.execute(f"SELECT * FROM {table}")  # noqa: S608 - the catalogue's own names
                for row in cursor.fetchall():
                    out.write(b"\n".join(bytes(value) for value in row if isinstance(value, memoryview)))
    finally:
        connection.close()
    return out.getvalue()


def spellings(secret: bytes) -> dict[str, bytes]:
    """How a secret could stand in a dump."""
    found = {"as it is": secret, "hex": secret.hex().encode()}
    for shift in range(3):
        # Base64 of something that contains the secret: three alignments, less the characters that its surroundings
        # have a part in.
        encoded = base64.b64encode(b"\0" * shift + secret)
        found[f"base64, shifted by {shift}"] = encoded[4 if shift else 0 : len(encoded) - 4]
    return found


class Dump(TestCase):
    timeout = 120

    async def test_nothing_that_must_not_be_there(self) -> None:
        network = await RunningNetwork.start(self)
        random = Random(1)
        password = "correct horse battery staple"  # noqa: S105
        login = login_password(password, network.invite.log_key, "alice", CHEAP)
        alice, bob = Member(network, "alice", random, login), Member(network, "bob", random)
        for member in (alice, bob):
            member.start()
        await all_of([alice.connected(), bob.connected()])
        alice.send("bob", PLAINTEXT)
        await until(network.reactor, lambda: bob.texts["alice"] == [PLAINTEXT])
        group = await self.group_of(network, alice, bob)
        alice.send(group, GROUP_TEXT)
        await until(network.reactor, lambda: GROUP_TEXT in bob.texts["alice"])
        await bob.stop()
        for waiting in (alice.send("bob", OFFLINE), alice.send(group, GROUP_TEXT)):
            await until(network.reactor, lambda: alice.states.get(waiting) == State.ACCEPTED)  # noqa: B023
        secrets = {
            "the text": PLAINTEXT.encode(),
            "the waiting text": OFFLINE.encode(),
            "the group's name": GROUP_NAME.encode(),
            "its topic": GROUP_TOPIC.encode(),
            "what is said in it": GROUP_TEXT.encode(),
            "the key that reads it": self.key_of(alice, group),
            "the password": password.encode(),
            "what the password was made into": login.encode(),
            "the vault's pickle key": alice.vault.blob("pickle_key") or b"",
            "the device's account": (alice.vault.text("account") or "").encode(),
        }
        for (private,) in alice.vault.execute("SELECT private FROM seal_keys").fetchall():
            secrets["a seal key"] = bytes(private)
        for name in ("md5", "sha1", "sha256", "sha512"):
            for which, text in (("password", password), ("login password", login)):
                secrets[f"{name} of the {which}"] = hashlib.new(name, text.encode()).digest()
        private_key = load_pem_private_key(root_key(alice.root_number).to_pem(None), None)
        assert isinstance(private_key, RSAPrivateKey)
        numbers = private_key.private_numbers()
        secrets["a prime of the RSA key"] = numbers.p.to_bytes(192, "big")
        secrets["the RSA key's exponent"] = numbers.d.to_bytes(384, "big")
        await alice.stop()

        held = await deferToThread(dump, network.config.database.dsn or "")
        # It is the right database, and the search finds what is there: name, public key, group, the waiting envelopes.
        self.assertIn(b"alice", held)
        self.assertIn(str(UUID(group[1:])).encode(), held)
        self.assertIn(root_key(alice.root_number).public_pem, held)
        self.assertIn(b"-- public.mailboxes\n", held)
        [mail] = [part for part in held.split(b"\n-- ") if part.startswith(b"public.mailboxes\n")]
        self.assertGreater(len(mail.splitlines()), 2)
        for what, secret in secrets.items():
            self.assertGreater(len(secret), 15, what)
            for how, spelling in spellings(secret).items():
                self.assertNotIn(spelling, held, f"{what}, {how}")
        for word in (b"PRIVATE KEY", b'"t":"text"'):
            self.assertNotIn(word, held)

    async def group_of(self, network: RunningNetwork, alice: Member, bob: Member) -> str:
        """A group that alice has founded and bob has joined."""
        _, group = alice.core.group_create(GROUP_NAME, GROUP_TOPIC)
        alice.core.group_act(group, InviteAct("bob", 0))
        alice.connection.flush()
        await until(network.reactor, lambda: any(isinstance(event, GroupInvited) for event in bob.events))
        joining = bob.core.group_act(group, JoinAct())
        bob.connection.flush()
        await until(network.reactor, lambda: act_state(bob.vault, joining).done)
        return group

    def key_of(self, member: Member, group: str) -> bytes:
        """The ratchet's state that decrypts what `member` has written there so far."""
        (session,) = member.vault.execute("SELECT session FROM group_outbound").fetchone()
        inbound = member.core._parts.group_keys.inbound(group[1:], session, member.core._parts.me.device)
        assert inbound is not None
        key = inbound.session.export_at(0)
        assert session in key
        return key.replace(session, b"")[5:]
