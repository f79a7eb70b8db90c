"""What every store does with groups: the same tests on PostgreSQL and in memory; what only PostgreSQL can do wrong."""

from __future__ import annotations

from collections.abc import Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.trial.unittest import TestCase

from fastchat.config import Config, Limits
from fastchat.errors import Busy, GroupChanged, UnknownGroup, UnknownUser
from fastchat.store import Device, GroupMember, GroupRow, Store, Stored
from fastchat.store.literals import array
from fastchat.store.memory import MemoryStore
from fastchat.store.pools import PLANNER, with_settings
from fastchat.store.postgres import PostgresStore
from fastchat.store.queries import query
from tests.support import rows
from tests.support.postgres import fresh_database
from tests.support.rows import INVITE, mail, octets, register, signed
from tests.test_store_postgres import DatabaseTestCase

CONFIG = Config(home=Path("unused"))
G, H = "00" * 15 + "01", "ab" * 16

if TYPE_CHECKING:
    Base = TestCase
else:
    Base = object


def member(user: str, role: str = "member", since: int = 1, **more: Any) -> GroupMember:
    return GroupMember(user, role, since, more.get("until"), more.get("by", ""), more.get("history", 0))


async def append(store: Store, group: str, position: int, *changed: GroupMember, deleted: bool = False) -> None:
    head, title = octets(group, position), octets("title", position)
    await store.append_to_group(group, position, signed(group, position), head, title, deleted, changed)


class GroupTests(Base):
    async def make_store(self) -> Store:
        """An open store that holds nothing; it is closed after the test."""
        raise NotImplementedError

    async def store_with(self, *users: str) -> Store:
        store = await self.make_store()
        await store.add_invite(INVITE, None, None)
        for user in users:
            await register(store, user)
        return store

    async def refused(self, error: type[Exception], call: Coroutine[Any, Any, Any]) -> None:
        await self.assertFailure(Deferred.fromCoroutine(call), error)

    async def test_a_group_is_where_its_last_statement_left_it(self) -> None:
        store = await self.store_with("alice", "bob")
        await append(store, G, 0, member("alice", "owner"))
        invited = member("bob", "invited", 2, by="alice", history=7)
        await append(store, G, 1, invited)
        expected = GroupRow(G, 2, octets(G, 1), octets("title", 1), False, [member("alice", "owner"), invited])
        self.assertEqual(await store.group(G), expected)
        joined = invited._replace(role="member", since=3)
        await append(store, G, 2, joined)
        gone = joined._replace(role="gone", since=4, until=4)
        await append(store, G, 3, gone, deleted=True)
        expected = GroupRow(G, 4, octets(G, 3), octets("title", 3), True, [member("alice", "owner"), gone])
        self.assertEqual(await store.group(G), expected)
        found = await store.group(G)
        assert found is not None
        self.assertEqual((type(found.head), type(found.title)), (bytes, bytes))
        # Who comes back is gone no more.
        await append(store, G, 4, joined._replace(since=5))
        found = await store.group(G)
        assert found is not None
        self.assertEqual((found.members[1].until, found.deleted), (None, False))

    async def test_statements_come_as_they_were_and_in_order(self) -> None:
        store = await self.store_with("alice")
        await append(store, G, 0, member("alice", "owner"))
        await append(store, H, 0, member("alice", "owner"))
        for position in range(1, 5):
            await append(store, G, position)
        statements = [signed(G, position) for position in range(5)]
        self.assertEqual(await store.group_statements(G, 0, 100), statements)
        self.assertEqual(await store.group_statements(G, 1, 2), statements[1:3])
        self.assertEqual(await store.group_statements(G, 5, 2), [])
        self.assertEqual(await store.group_statements("cd" * 16, 0, 2), [])
        self.assertEqual({type(statement.body) for statement in await store.group_statements(G, 0, 1)}, {bytes})

    async def test_what_does_not_follow_changes_nothing(self) -> None:
        store = await self.store_with("alice", "bob")
        await self.refused(UnknownGroup, append(store, G, 1, member("bob")))
        self.assertIsNone(await store.group(G))
        await append(store, G, 0, member("alice", "owner"))
        await append(store, G, 1)
        before = await store.group(G)
        for position in (0, 1, 3):
            await self.refused(GroupChanged, append(store, G, position, member("bob"), deleted=True))
        self.assertEqual(await store.group(G), before)
        self.assertEqual(len(await store.group_statements(G, 0, 100)), 2)
        self.assertEqual(await store.groups_of("bob", 9), [])

    async def test_a_row_that_names_nobody_undoes_the_statement(self) -> None:
        store = await self.store_with("alice", "bob")
        for nobody in ("nobody", "no\0body", ""):
            await self.refused(UnknownUser, append(store, G, 0, member("alice", "owner"), member(nobody)))
            self.assertIsNone(await store.group(G))
        await append(store, G, 0, member("alice", "owner"))
        for nobody in ("nobody", "no\0body"):
            await self.refused(UnknownUser, append(store, G, 1, member("bob"), member(nobody)))
        self.assertEqual((await store.group_statements(G, 1, 10), await store.groups_of("bob", 9)), ([], []))
        await append(store, G, 1, member("bob"))

    async def test_who_has_gone_may_read_up_to_where_he_went(self) -> None:
        store = await self.store_with("alice", "bob", "carol")
        await append(store, G, 0, member("alice", "owner"), member("bob"), member("carol", "invited"))
        await append(store, H, 0, member("bob", "owner"), member("carol", "gone", until=1))
        await append(store, H, 1)
        await append(store, G, 1, member("bob", "gone", 2, until=2))
        await append(store, G, 2)
        found = {user: dict(await store.groups_of(user, 9)) for user in ("alice", "bob", "carol", "nobody", "n\0")}
        expected = {"alice": {G: 3}, "bob": {G: 2, H: 2}, "carol": {G: 3, H: 1}, "nobody": {}, "n\0": {}}
        self.assertEqual(found, expected)

    async def test_groups_that_one_has_a_part_in_come_first_and_are_counted(self) -> None:
        store = await self.store_with("alice", "bob")
        last = "f" * 32
        await append(store, G, 0, member("alice", "owner"), member("bob", "gone", until=1))
        await append(store, H, 0, member("alice", "owner"), member("bob", "invited"))
        await append(store, last, 0, member("alice", "owner"), member("bob"))
        self.assertEqual([group for group, _ in await store.groups_of("bob", 9)], [*sorted((H, last)), G])
        self.assertEqual([await store.group_count(user) for user in ("alice", "bob", "nobody", "n\0")], [3, 2, 0, 0])
        self.assertEqual([await store.group_count(user, invited=False) for user in ("alice", "bob", "n\0")], [3, 1, 0])
        first, other = sorted((H, last))
        await append(store, first, 1, deleted=True)
        self.assertEqual([await store.group_count(user) for user in ("alice", "bob")], [2, 1])
        self.assertEqual([group for group, _ in await store.groups_of("bob", 9)], [other, *sorted((first, G))])
        self.assertEqual([group for group, _ in await store.groups_of("bob", 1)], [other])

    async def test_a_group_has_the_devices_of_all_who_joined(self) -> None:
        store = await self.store_with("alice", "bob", "carol", "dave", "erin", "zoe")
        tablet = rows.device("alice", "tablet")
        await store.add_device(tablet, 2, signed("tablet"), rows.keys("tablet"), rows.leaf("tablet"))
        members = [
            member("dave", "gone", until=1),
            member("carol", "invited"),
            member("bob", "admin"),
            member("alice", "owner"),
            member("erin", "member"),
        ]
        await append(store, G, 0, *members)
        devices = [rows.device("alice"), tablet, rows.device("bob"), rows.device("erin")]
        self.assertEqual(await store.group_devices(G), [device.device for device in devices])
        self.assertEqual(await store.group_devices(H), [])
        await append(store, G, 1, member("bob", "gone", 2, until=2), member("carol", "member", 2))
        devices = [rows.device("alice"), tablet, rows.device("carol"), rows.device("erin")]
        self.assertEqual(await store.group_devices(G), [device.device for device in devices])
        await store.revoke_device("alice", rows.device("alice").device, 3, signed("revoke"), rows.leaf("revoke"))
        devices = [tablet, rows.device("carol"), rows.device("erin")]
        self.assertEqual(await store.group_devices(G), [device.device for device in devices])


class MemoryGroupTests(GroupTests, TestCase):
    """In memory."""

    async def make_store(self) -> Store:
        self.memory = MemoryStore(CONFIG)
        await self.memory.open()
        return self.memory

    async def test_a_database_that_is_away(self) -> None:
        store = await self.store_with("alice")
        self.memory.available = False
        calls: list[Coroutine[Any, Any, Any]] = [
            append(store, G, 0),
            store.group(G),
            store.group_statements(G, 0, 1),
            store.groups_of("alice", 9),
            store.group_devices(G),
            store.group_count("alice"),
        ]
        for call in calls:
            await self.refused(Busy, call)


class PostgresGroupTests(GroupTests, DatabaseTestCase):
    """On PostgreSQL."""

    async def make_store(self) -> Store:
        return await self.open(await fresh_database(self))


class ConcurrencyTests(DatabaseTestCase):
    """Two stores over one database: as two processes would be."""

    async def two_stores(self, *users: str) -> tuple[PostgresStore, PostgresStore]:
        first, _ = await self.store_with_alice()
        for user in users:
            await register(first, user)
        return first, await self.open(self.dsn)

    async def outcomes(self, calls: list[Coroutine[Any, Any, Any]]) -> int:
        """How many succeed; the others hear that the group has changed."""
        failures: list[Any] = []
        await gatherResults([Deferred.fromCoroutine(call).addErrback(failures.append) for call in calls])
        self.assertEqual({failure.type for failure in failures} - {GroupChanged}, set())
        return len(calls) - len(failures)

    async def test_of_two_that_append_the_same_position_one_does(self) -> None:
        stores = await self.two_stores("bob", "carol")
        members = [member("bob"), member("carol")]
        for position in range(8):
            calls = [append(store, G, position, members[number % 2]) for number, store in enumerate(stores * 3)]
            self.assertEqual(await self.outcomes(calls), 1)
        self.assertEqual(await stores[0].group_statements(G, 0, 100), [signed(G, position) for position in range(8)])
        found = await stores[1].group(G)
        assert found is not None
        self.assertEqual((found.length, found.head), (8, octets(G, 7)))

    async def test_who_waits_for_another_sees_what_he_did(self) -> None:
        """Deterministic: the other one holds the group, and commits while the store waits."""
        store, _ = await self.two_stores("bob")
        await append(store, G, 0, member("alice", "owner"))
        here, other = self.connect(self.dsn), self.connect(self.dsn, autocommit=False)
        for sql, error in (
            (query("grow_group") + query("add_group_statement"), GroupChanged),
            (query("lock_group"), None),
        ):
            found = await store.group(G)
            assert found is not None
            chain = {"group": G, "position": found.length, "head": octets("other"), "title": octets("other")}
            other.execute(sql, {**chain, "deleted": False, "body": b"other", "signature": b"other"})
            failures: list[Any] = []
            appending = Deferred.fromCoroutine(append(store, G, found.length, member("bob")))
            appending.addErrback(failures.append)
            await self.until(lambda: self.blocked(here))
            other.connection.commit()
            await appending
            self.assertEqual([failure.type for failure in failures], [] if error is None else [error])
        self.assertEqual([s.body for s in await store.group_statements(G, 1, 9)], [b"other", signed(G, 2).body])

    async def test_many_delete_what_all_of_them_got_and_the_body_goes_with_the_last(self) -> None:
        """Half of them through another process, in whatever order: nobody waits in a circle, nothing stays behind."""
        stores = await self.two_stores()
        devices = [await register(stores[0], f"user{number}") for number in range(40)]
        batch = [mail(device, n, b'"all"', order=n) for n in (1, 2, 3) for device in devices]
        self.assertEqual(await stores[0].store_mail(batch), [Stored.STORED] * 120)
        here = self.connect(self.dsn)
        self.assertEqual(self.counts(here), (3, 120))
        messages = [row.message for row in await stores[0].mailbox(devices[0].device, [], 10)]
        calls = []
        for number, device in enumerate(devices):
            turned = messages[number % 3 :] + messages[: number % 3]
            calls.append(stores[number % 2].delete_mail([(device.device, message) for message in turned]))
        await gatherResults([Deferred.fromCoroutine(call) for call in calls])
        self.assertEqual(self.counts(here), (0, 0))
        here.execute("select distinct messages, bytes from mailbox_sizes")
        self.assertEqual(here.fetchall(), [(0, 0)])

    async def test_a_body_that_nobody_gets_is_not_kept(self) -> None:
        store, _ = await self.two_stores("bob")
        nobody, bob = rows.device("nobody"), rows.device("bob")
        batch = [mail(nobody, 1, order=1), mail(bob, 2, order=2), mail(nobody, 2, order=2), mail(nobody, 3, order=3)]
        self.assertEqual((await store.store_mail(batch)).count(Stored.STORED), 1)
        self.assertEqual(self.counts(self.connect(self.dsn)), (1, 1))
        self.assertEqual([row.n for row in await store.mailbox(bob.device, [], 10)], [2])

    async def test_two_that_write_to_the_same_thousand_do_not_wait_in_a_circle(self) -> None:
        stores = await self.two_stores()
        devices = await self.add_devices(1000)
        calls = []
        for n in range(6):
            batch = [mail(device, n, order=n) for device in devices]
            calls.append(stores[n % 2].store_mail(batch if n < 3 else batch[::-1]))
        written = await gatherResults([Deferred.fromCoroutine(call) for call in calls])
        self.assertEqual([set(outcomes) for outcomes in written], [{Stored.STORED}] * 6)
        self.assertEqual(self.counts(self.connect(self.dsn)), (6, 6000))

    async def add_devices(self, number: int) -> list[Device]:
        """All of them alice's, and made by one statement: a thousand registrations would take seconds."""
        devices = [rows.device("alice", f"device {each}") for each in range(number)]
        here = self.connect(self.dsn)
        here.execute(
            "with device as (insert into devices (id, user_name, ed25519, curve25519)"
            " select id, 'alice', sha256('e'), sha256('c') from unnest(%s::uuid[]) as id returning id)"
            " insert into mailbox_sizes (device) select id from device",
            (array(device.device for device in devices),),
        )
        return devices

    def counts(self, cursor: Any) -> Any:
        cursor.execute("select (select count(*) from messages), (select count(*) from mailboxes)")
        return cursor.fetchone()

    def blocked(self, cursor: Any) -> bool:
        cursor.execute("select count(*) from pg_stat_activity where wait_event_type = 'Lock'")
        return bool(cursor.fetchone()[0])


class PlanTests(DatabaseTestCase):
    async def test_groups_are_found_through_indexes(self) -> None:
        await self.store_with_alice()
        here = self.connect(with_settings(self.dsn, "plans", PLANNER))
        here.execute(
            "insert into users select 'user' || n, 'r', 's', 4096, sha256('a'), sha256('b')"
            " from generate_series(1, 8000) n"
            ";insert into devices (id, user_name, ed25519, curve25519)"
            " select gen_random_uuid(), name, sha256('e'), sha256('c') from users where name <> 'alice'"
            ";insert into groups select gen_random_uuid(), 1, sha256('h'), sha256('t') from generate_series(1, 50)"
            ";insert into group_statements select id, n, 'b', 's' from groups, generate_series(1, 100) n"
            ";insert into group_members select groups.id, users.name, 'member', 1, null, '', 0"
            " from groups join users on random() < 0.005"
        )
        here.execute("select id from groups limit 1")
        asked = {"group": here.fetchone()[0], "user": "user7", "start": 3, "limit": 50, "invited": True}
        for statement in ("select", "analyze"):
            here.execute(statement)
            for name in ("group", "group_statements", "groups_of", "group_count", "group_devices", "lock_group"):
                plan = self.plan(here, query(name), asked)
                for table in ("group_members", "group_statements", "devices"):
                    self.assertNotIn(f"Seq Scan on {table}", plan, name)
        self.assertIn("groups_of_user", self.plan(here, query("groups_of"), asked))
        self.assertIn("group_members_pkey", self.plan(here, query("group_devices"), asked))

    async def test_a_senders_share_is_counted_through_its_index(self) -> None:
        config = Config(home=Path("unused"), limits=Limits(mailbox_messages=2000, mailbox_share=0.5))
        store, alice = await self.store_with_alice(config)
        senders = [rows.device(f"sender{number}") for number in range(20)]
        for start in range(0, 1200, 200):
            batch = [mail(alice, n, sender=senders[n % 20]) for n in range(start, start + 200)]
            self.assertEqual(set(await store.store_mail(batch)), {Stored.STORED})
        here = self.connect(with_settings(self.dsn, "plans", {**PLANNER, "plan_cache_mode": "force_generic_plan"}))
        here.execute(query("prepare_store_mail"))
        one: dict[str, list[object]] = {
            "recipients": [alice.device],
            "numbers": [1],
            "senders": ["sender3"],
            "sizes": [1],
            "users": ["sender3"],
        }
        one |= {"devices": [alice.device], "ns": [1], "times": [1], "starts": [1], "lengths": [1]}
        limits = {"most_messages": 2000, "most_bytes": 2**30, "share_messages": 1000, "share_bytes": 2**30}
        parameters = {name: array(values) for name, values in one.items()} | limits
        for statement in ("select", "analyze"):
            here.execute(statement)
            plan = self.plan(
                here, query("store_mail"), {**parameters, "bodies": b"x", "more_messages": 1, "more_bytes": 1}
            )
            self.assertIn("mailboxes_of_sender", plan)
            self.assertNotIn("Seq Scan on m", plan.replace("Seq Scan on mailbox_sizes", ""))

    def plan(self, cursor: Any, sql: str, parameters: Any) -> str:
        cursor.execute("explain " + sql, parameters)
        return "\n".join(line for (line,) in cursor.fetchall())
