"""A device is revoked on the whole network: TLS, five services and PostgreSQL."""

from __future__ import annotations

from random import Random

from twisted.trial.unittest import TestCase

from fastchat_client.events import Disconnected, Revocation
from tests.support.keys import root_key
from tests.support.running import Member, RunningNetwork, until


class Network(TestCase):
    timeout = 240

    async def test_a_lost_device_is_taken_out_by_another_one(self) -> None:
        """Worth its seconds: the one test in which revocation, its SQL and the real connections meet."""
        network = await RunningNetwork.start(self)
        phone, bob = Member(network, "alice", Random(1)), Member(network, "bob", Random(2))
        laptop = Member(network, "alice", Random(3), further=True)
        for member in (phone, bob, laptop):
            self.addCleanup(member.stop)
            member.start()
            await member.connected()

        def ended() -> list[Disconnected]:
            return [event for event in phone.events if isinstance(event, Disconnected)]

        bob.send("alice", "to both of you")
        await until(network.reactor, lambda: phone.texts["bob"] == laptop.texts["bob"] == ["to both of you"])
        lost = phone.vault.text("device")

        laptop.core.revoke_device(root_key(laptop.root_number), lost)
        laptop.connection.flush()
        await until(network.reactor, lambda: any(isinstance(event, Revocation) for event in laptop.events))
        self.assertIn(Revocation(lost), laptop.events)
        await until(network.reactor, lambda: bool(ended()))
        self.assertEqual([(event.code, event.retry_in) for event in ended()], [("device-revoked", None)])

        sent = bob.send("alice", "to the one that is left")
        await until(network.reactor, lambda: laptop.texts["bob"][1:] == ["to the one that is left"])
        await until(network.reactor, lambda: bob.states.get(sent) in ("accepted", "delivered"))
        rows = bob.vault.execute("SELECT device FROM sealed WHERE n = ?", (int(sent.rpartition(".")[2]),)).fetchall()
        self.assertEqual(rows, [(laptop.vault.text("device"),)])

        await phone.stop()
        phone.start()
        await until(network.reactor, lambda: len(ended()) == 2)
        self.assertFalse(phone.core.ready)
        self.assertIn(ended()[1].code, ("login-failed", "device-revoked"))
        self.assertIsNone(ended()[1].retry_in)
        self.assertEqual(phone.texts["bob"], ["to both of you"])
