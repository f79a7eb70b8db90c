"""An empty network without sockets: what tests of accounts and of the directory begin with."""

from __future__ import annotations

from collections.abc import Awaitable

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from twisted.trial.unittest import TestCase

from fastchat.accounts import Accounts
from fastchat.directory import Directory
from fastchat.errors import FastChatError
from fastchat.identity.invite import invite_digest
from tests.support.away import AwayStore
from tests.support.people import Person

INVITE = "an-invite"
LOG_KEY = Ed25519PrivateKey.from_private_bytes(b"k" * 32)


class RulesCase(TestCase):
    """A store, the rules over it, and an invite for anybody."""

    async def begin(self) -> None:
        """Each test calls it: trial awaits no coroutine in `setUp`."""
        self.store = AwayStore()
        self.accounts = Accounts(self.store, LOG_KEY)
        self.directory = Directory(self.store, LOG_KEY)
        await self.store.add_invite(invite_digest(INVITE), None, None)

    async def joined(self, user: str) -> Person:
        """Somebody who has an account."""
        person = Person(user)
        await self.accounts.register(person.register(INVITE))
        return person

    async def raises(self, error: type[FastChatError], awaitable: Awaitable[object]) -> FastChatError:
        """Exactly this error, and none of its kinds."""
        try:
            await awaitable
        except FastChatError as raised:
            self.assertIs(type(raised), error, str(raised))
            return raised
        return self.fail(f"should have raised {error.__name__}")
