"""Migrations: every way to the newest schema ends in the same one, and a database of another code is refused."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import psycopg2
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase, TestCase

import fastchat
from fastchat.config import Config
from fastchat.errors import ConfigError
from fastchat.store.connections import Pool
from fastchat.store.migrations import migrate
from fastchat.store.postgres import PostgresStore
from fastchat.store.queries import MIGRATIONS, Migration, find_sql, query, read_migrations, read_queries
from tests.support.postgres import fresh_database

SCHEMA = """
select 'column', table_name, column_name, ordinal_position::text, data_type, is_nullable, column_default,
    collation_name, is_identity, generation_expression
from information_schema.columns where table_schema = 'public'
union all
select 'index', tablename, indexname, indexdef, null, null, null, null, null, null
from pg_indexes where schemaname = 'public'
union all
select 'constraint', conrelid::regclass::text, conname, pg_get_constraintdef(oid), null, null, null, null, null, null
from pg_constraint where connamespace = 'public'::regnamespace
union all
select 'table', relname, reloptions::text, relkind::text, null, null, null, null, null, null
from pg_class where relnamespace = 'public'::regnamespace
union all
select 'storage', attrelid::regclass::text, attname, attstorage::text, null, null, null, null, null, null
from pg_attribute join pg_class on pg_class.oid = attrelid
where relnamespace = 'public'::regnamespace and relkind = 'r' and attnum > 0
order by 1, 2, 3, 4
"""

SOMEBODY = """
insert into users (name, rsa_public_key, scram_salt, scram_iterations, scram_stored_key, scram_server_key)
values ('alice', 'root', 'salt', 4096, sha256('stored'), sha256('server'));
insert into devices (id, user_name, ed25519, curve25519)
values ('00112233445566778899aabbccddeeff', 'alice', sha256('ed'), sha256('curve'));
"""


class MigrationTests(TestCase):
    timeout = 60

    def execute(self, dsn: str, sql: str, fetch: bool = False) -> Any:
        connection = psycopg2.connect(dsn)
        try:
            connection.autocommit = True
            cursor = connection.cursor()
            cursor.execute(sql)
            return cursor.fetchall() if fetch else None
        finally:
            connection.close()

    def schema(self, dsn: str) -> list[tuple[str, ...]]:
        rows: list[tuple[str, ...]] = self.execute(dsn, SCHEMA, fetch=True)
        return rows

    async def migrate(self, dsn: str, migrations: list[Migration]) -> int:
        pool = Pool("migrations", dsn, {}, 1, 5.0, 30.0, reactor)
        await pool.open()
        try:
            return await pool.run(lambda session: migrate(session, migrations))
        finally:
            await pool.close()

    async def open_and_close(self, dsn: str) -> None:
        store = PostgresStore(dsn, Config(home=Path("unused")), reactor)
        await store.open()
        await store.close()

    async def test_fresh_and_upgraded_are_the_same(self) -> None:
        fresh = await fresh_database(self)
        await self.open_and_close(fresh)
        self.assertIn("mailboxes", {row[1] for row in self.schema(fresh)})
        for first in range(1, len(MIGRATIONS)):
            upgraded = await fresh_database(self)
            self.assertEqual(await self.migrate(upgraded, list(MIGRATIONS[:1])), 1)
            self.execute(upgraded, SOMEBODY)
            self.assertEqual(await self.migrate(upgraded, list(MIGRATIONS[:first])), first - 1)
            self.assertNotEqual(self.schema(upgraded), self.schema(fresh))
            await self.open_and_close(upgraded)
            self.assertEqual(self.schema(upgraded), self.schema(fresh))
            # Whoever was there before has a mailbox as well.
            self.assertEqual(self.execute(upgraded, "select messages from mailbox_sizes", fetch=True), [(0,)])

    async def test_opening_again_changes_nothing(self) -> None:
        dsn = await fresh_database(self)
        await self.open_and_close(dsn)
        before = self.execute(dsn, "select * from schema_migrations order by number", fetch=True)
        self.assertEqual([row[1] for row in before], [migration.name for migration in MIGRATIONS])
        await self.open_and_close(dsn)
        self.assertEqual(self.execute(dsn, "select * from schema_migrations order by number", fetch=True), before)
        self.assertEqual(await self.migrate(dsn, list(MIGRATIONS)), 0)

    async def test_a_newer_database_is_refused(self) -> None:
        dsn = await fresh_database(self)
        newer = [*MIGRATIONS, Migration(len(MIGRATIONS) + 1, "newer", "create table newer (x integer)")]
        await self.migrate(dsn, newer)
        await self.assert_refused(dsn, "too old")

    async def test_another_migration_than_ours_is_refused(self) -> None:
        dsn = await fresh_database(self)
        await self.migrate(dsn, [MIGRATIONS[0]._replace(sql=MIGRATIONS[0].sql + "-- edited\n")])
        before = self.schema(dsn)
        await self.assert_refused(dsn, "0001")
        self.assertEqual(self.schema(dsn), before)

    async def assert_refused(self, dsn: str, word: str) -> None:
        opening: Deferred[Any] = Deferred.fromCoroutine(self.open_and_close(dsn))
        error = await self.assertFailure(opening, ConfigError)
        self.assertIn(word, error.message)
        self.assertNotIn("\n", error.message)

    async def test_a_migration_that_fails_leaves_nothing(self) -> None:
        dsn = await fresh_database(self)
        broken = Migration(2, "broken", "create table half (x integer); select 1 / 0;")
        await self.assertFailure(Deferred.fromCoroutine(self.migrate(dsn, [MIGRATIONS[0], broken])), psycopg2.DataError)
        self.assertNotIn("half", {row[1] for row in self.schema(dsn)})
        await self.open_and_close(dsn)


class SqlFilesTests(SynchronousTestCase):
    def folder(self, **files: str) -> Path:
        folder = Path(tempfile.mkdtemp(dir=self.mktemp_parent()))
        for name, text in files.items():
            (folder / f"{name}.sql").write_text(text)
        return folder

    def mktemp_parent(self) -> Path:
        parent = Path(self.mktemp())
        parent.mkdir(parents=True)
        return parent

    def test_the_folder_is_found_in_a_checkout_and_in_an_installed_package(self) -> None:
        for inside in ("sql", "package/sql"):
            root = self.mktemp_parent()
            (root / "package").mkdir()
            for kind in ("migrations", "queries"):
                (root / inside / kind).mkdir(parents=True)
            self.assertEqual(find_sql(root / "package"), root / inside)
        self.assertRaises(ConfigError, find_sql, self.mktemp_parent() / "package")

    def test_sections(self) -> None:
        found = read_queries(self.folder(a="-- heading\n\n-- name: one\nselect 1;\n\n-- name: two\nselect ';'\n", b=""))
        self.assertEqual(found, {"one": "select 1;", "two": "select ';'"})

    def test_a_name_is_given_once(self) -> None:
        self.assertRaises(ConfigError, read_queries, self.folder(a="-- name: one\n", b="-- name: one\n"))

    def test_migrations_are_numbered_without_a_gap(self) -> None:
        found = read_migrations(self.folder(**{"0001_one": "x", "0002_two": "y"}))
        self.assertEqual(found, [Migration(1, "one", "x"), Migration(2, "two", "y")])
        for names in (["0002_two"], ["0001_one", "0003_three"], ["0001_one", "0001_two"], ["one"]):
            self.assertRaises(ConfigError, read_migrations, self.folder(**dict.fromkeys(names, "x")))

    def test_no_query_is_left_unused(self) -> None:
        folder = Path(fastchat.__file__).parent
        names = read_queries(find_sql(folder) / "queries")
        source = "".join(file.read_text() for file in (folder / "store").glob("*.py"))
        self.assertEqual([name for name in names if f'query("{name}")' not in source], [])
        self.assertIn("store_mail", query("store_mail") and names)
