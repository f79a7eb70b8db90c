"""An alarm about the key log is a proof, or a peer's word: what a person sees and keeps of either, and what goes on."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from fastchat.errors import TrustError
from fastchat.identity.invite import Invite
from fastchat_client import errands
from fastchat_client.errands import Errand
from fastchat_client.events import Event, LogAlarm, MessageState, State
from fastchat_client.messenger import Messenger, new_facts, prepare
from fastchat_client.password import Cost
from fastchat_client.profile import Profile
from fastchat_client.running import Running
from fastchat_client.speaking import compose_text
from fastchat_client.vault import Vault
from tests.support.keys import root_key

PROOF = LogAlarm("two roots", "signed twice")
WORD = LogAlarm("another log", "says bob", proof=False)


class AlarmCase(SynchronousTestCase):
    def setUp(self) -> None:
        invite = Invite("127.0.0.1", 1, b"p" * 32, b"l" * 32, "token")
        facts = new_facts("alice", invite, Cost(time=1, memory_kib=8, lanes=1))
        self.profile = Profile.create(Path(self.mktemp()).resolve(), facts)
        self.vault, _ = prepare(self.profile, "secret", invite, None, lambda: root_key(0))
        self.addCleanup(self.vault.close)

    def test_a_peers_word_does_not_take_the_place_of_a_proof(self) -> None:
        shown: list[Event] = []
        messenger = Messenger(self.profile, self.vault, Clock(), shown.extend)
        file = Path(messenger.alarm_file)
        messenger._tell([WORD])
        self.assertIn("says bob", file.read_text())
        with self.vault.transaction():
            self.vault.put("alarm", PROOF.evidence)
        messenger._tell([PROOF, WORD])
        self.assertIn("signed twice", file.read_text())
        self.assertEqual(shown, [WORD, PROOF, WORD])

    def test_a_peers_word_keeps_nobody_from_sending(self) -> None:
        result, said = self.sends(WORD, MessageState("d.1", "bob", State.ACCEPTED))
        self.assertEqual(self.successResultOf(result), 0)
        self.assertIn("one of the two is lying", said)

    def test_a_proof_does(self) -> None:
        result, _ = self.sends(PROOF, MessageState("d.1", "bob", State.ACCEPTED))
        self.assertIn("not sent", self.failureResultOf(result, TrustError).value.message)

    def sends(self, *events: Event) -> tuple[Deferred[int], str]:
        """`fastchat send` to bob while these things happen; its result, and what it says meanwhile."""

        class Told:
            """A messenger to whom just these things happen."""

            alarm_file = "file"

            def __init__(self, profile: Profile, vault: Vault, reactor: Any, told: Any) -> None:
                self.vault, self.told = vault, told

            def start(self) -> None:
                with self.vault.transaction():
                    self.vault.execute("UPDATE outbox SET state = 2")
                self.told(list(events))

            async def stop(self) -> None:
                """Nothing to stop."""

        def compose(to: str) -> Errand:
            return errands.outgoing(self.vault, compose_text(self.vault, to, "hi", 0), to)

        self.patch(errands, "Messenger", Told)
        with contextlib.redirect_stderr(io.StringIO()) as said:
            sending = errands.connect_for(Running(Clock()), self.profile, self.vault, "bob", compose, None)
            return Deferred.fromCoroutine(sending), said.getvalue()
