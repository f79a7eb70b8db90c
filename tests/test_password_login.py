"""Password login (SCRAM-SHA-256-PLUS) against the memory store, with scramp's own client at the other end."""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as some
from scramp import ScramClient

from fastchat.accounts import Accounts, ScramExchange
from fastchat.errors import Busy, LoginFailed, OutOfTurn, RequestError
from tests.support.away import memory_store
from tests.support.people import PASSWORD, Person, scram_client
from tests.support.rules import INVITE, LOG_KEY, RulesCase

END_POINT = b"e" * 32


class PasswordLogin(RulesCase):
    async def begin(self) -> None:
        await super().begin()
        await self.accounts.register(Person("alice").register(INVITE, PASSWORD))

    async def attempt(self, client: ScramClient, end_point: bytes = END_POINT) -> tuple[ScramExchange, str]:
        """The exchange after its first half, and the client's last message."""
        exchange = self.accounts.scram(end_point)
        client.set_server_first(await exchange.first(client.get_client_first()))
        return exchange, client.get_client_final()

    async def salt_of(self, user: str, accounts: Accounts | None = None) -> str:
        """What the server says to the first message, without the nonces."""
        first = await (accounts or self.accounts).scram(END_POINT).first(self.first(user))
        return first.partition(",")[2]

    def first(self, user: str, header: str = "p=tls-server-end-point,,") -> str:
        return f"{header}n={user},r=nonce"

    async def test_right_password(self) -> None:
        await self.begin()
        client = scram_client("alice", PASSWORD, END_POINT)
        exchange, message = await self.attempt(client)
        final, user = exchange.final(message)
        self.assertEqual(user, "alice")
        client.set_server_final(final)

    async def test_wrong_password_and_unknown_user_look_the_same(self) -> None:
        await self.begin()
        messages = set()
        for user, password in (("alice", "wrong"), ("nobody", PASSWORD), ("No Such Name", PASSWORD), ("x" * 400, "")):
            exchange, message = await self.attempt(scram_client(user, password or "p", END_POINT))
            messages.add(str(self.assertRaises(LoginFailed, exchange.final, message)))
        self.assertEqual(len(messages), 1)

    async def test_unknown_users_keep_their_salt(self) -> None:
        """The same each time, after a restart and on another service; another one for another name; like a real one."""
        await self.begin()
        made_up = await self.salt_of("nobody")
        self.assertEqual(await self.salt_of("nobody"), made_up)
        self.assertEqual(await self.salt_of("nobody", Accounts(self.store, LOG_KEY)), made_up)
        self.assertNotEqual(await self.salt_of("nobody else"), made_up)
        other_network = Accounts(self.store, Ed25519PrivateKey.generate())
        self.assertNotEqual(await self.salt_of("nobody", other_network), made_up)
        real = await self.salt_of("alice")
        self.assertEqual(await self.salt_of("alice"), real)
        self.assertEqual([len(part) for part in made_up.split(",")], [len(part) for part in real.split(",")])
        self.assertEqual(made_up.partition(",")[2], real.partition(",")[2])

    async def test_unknown_users_cost_the_same_queries(self) -> None:
        await self.begin()
        costs = []
        for user in ("alice", "nobody"):
            self.store.calls.clear()
            await self.salt_of(user)
            costs.append(dict(self.store.calls))
        self.assertEqual(costs, [{"account": 1}] * 2)

    async def test_missing_channel_binding(self) -> None:
        await self.begin()
        plain = ScramClient(["SCRAM-SHA-256"], "alice", PASSWORD)
        unsure = ScramClient(["SCRAM-SHA-256"], "alice", PASSWORD, channel_binding=("tls-server-end-point", END_POINT))
        unique = ScramClient(["SCRAM-SHA-256-PLUS"], "alice", PASSWORD, channel_binding=("tls-unique", END_POINT))
        for client, flag in ((plain, "n,,"), (unsure, "y,,"), (unique, "p=tls-unique,,")):
            message = client.get_client_first()
            self.assertTrue(message.startswith(flag))
            await self.raises(RequestError, self.accounts.scram(END_POINT).first(message))

    async def test_wrong_channel_binding(self) -> None:
        """Somebody in the middle, who shows a certificate of his own, cannot pass the proof on."""
        await self.begin()
        exchange, message = await self.attempt(scram_client("alice", PASSWORD, b"f" * 32))
        self.assertRaises(LoginFailed, exchange.final, message)

    async def test_a_proof_is_good_once(self) -> None:
        await self.begin()
        client = scram_client("alice", PASSWORD, END_POINT)
        first = client.get_client_first()
        exchange = self.accounts.scram(END_POINT)
        client.set_server_first(await exchange.first(first))
        message = client.get_client_final()
        exchange.final(message)
        again = self.accounts.scram(END_POINT)
        await again.first(first)
        self.assertRaises(LoginFailed, again.final, message)

    async def test_out_of_turn(self) -> None:
        await self.begin()
        self.assertRaises(OutOfTurn, self.accounts.scram(END_POINT).final, "c=biws,r=x,p=eA==")
        exchange, message = await self.attempt(scram_client("alice", PASSWORD, END_POINT))
        await self.raises(OutOfTurn, exchange.first(self.first("alice")))
        exchange.final(message)
        self.assertRaises(OutOfTurn, exchange.final, message)
        await self.raises(OutOfTurn, exchange.first(self.first("alice")))

    async def test_over_after_one_wrong_proof(self) -> None:
        await self.begin()
        exchange, message = await self.attempt(scram_client("alice", "wrong", END_POINT))
        self.assertRaises(LoginFailed, exchange.final, message)
        self.assertRaises(OutOfTurn, exchange.final, message)

    async def test_database_away(self) -> None:
        await self.begin()
        client = scram_client("alice", PASSWORD, END_POINT)
        exchange, message = self.accounts.scram(END_POINT), client.get_client_first()
        self.store.away = True
        await self.raises(Busy, exchange.first(message))
        self.store.away = False
        client.set_server_first(await exchange.first(message))
        self.assertEqual(exchange.final(client.get_client_final())[1], "alice")

    async def test_junk(self) -> None:
        await self.begin()
        for junk in (
            "", ",", ",,", "p=", "hello", "p=tls-server-end-point,,",
            self.first(""), self.first("a=b"), self.first("älice"),
            self.first("a\x00b"), self.first("alice") + ",m=x", self.first("alice", "p=tls-server-end-point,a=bob,"),
            "p=tls-server-end-point,,r=nonce,n=alice", "p=\ud800,,n=alice,r=x", "p=tls-server-end-point,,n=alice,r=é",
        ):  # fmt: skip
            await self.raises(RequestError, self.accounts.scram(END_POINT).first(junk))
        for junk in ("", "c=", "c=biws", "c=!,r=x,p=y", "c=biws,r=nonce,p=eA==", "\ud800", "e=other-error", "v=eA=="):
            exchange, _ = await self.attempt(scram_client("alice", PASSWORD, END_POINT))
            self.assertRaises(LoginFailed, exchange.final, junk)

    @settings(deadline=None, max_examples=200)
    @given(
        some.text(max_size=40),
        some.sampled_from(["", "p=tls-server-end-point,,", "p=tls-server-end-point,,n=alice,r="]),
    )
    def test_any_first_message(self, text: str, beginning: str) -> None:
        """A server-first message or a refusal; never anything else."""
        exchange = Accounts(memory_store(), LOG_KEY).scram(END_POINT)
        try:
            exchange.first(beginning + text).send(None)
        except StopIteration as answer:
            self.assertTrue(answer.value.startswith("r="))
            self.assertRaises(LoginFailed, exchange.final, text)
        except RequestError:
            pass
