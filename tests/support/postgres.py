"""One embedded PostgreSQL for a whole trial run, started by the first test that asks, and a database for each test."""

from __future__ import annotations

import shutil
import tempfile
from itertools import count
from pathlib import Path

import psycopg2
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from fastchat.services.postgres import EmbeddedPostgres

_numbers = count(1)
_cluster: EmbeddedPostgres | None = None
_starting: Deferred[None] | None = None


async def cluster() -> EmbeddedPostgres:
    """The run's PostgreSQL, accepting connections."""
    global _cluster, _starting
    from twisted.internet import reactor

    if _cluster is None:
        home = Path(tempfile.mkdtemp(prefix="fastchat-tests-"))
        _cluster = EmbeddedPostgres(home, reactor)
        _starting = Deferred.fromCoroutine(_cluster.start())
        reactor.addSystemEventTrigger("before", "shutdown", _stop, _cluster, home)
    if _starting is not None:
        await _starting
        _starting = None
    return _cluster


async def fresh_database(testcase: TestCase) -> str:
    """The DSN of an empty database of the test's own; it is dropped after the test."""
    postgres = await cluster()
    name = f"test_{next(_numbers)}"
    await deferToThread(_execute, postgres.dsn, f"CREATE DATABASE {name}")
    testcase.addCleanup(deferToThread, _execute, postgres.dsn, f"DROP DATABASE {name} WITH (FORCE)")
    return postgres.dsn_of(name)


def _execute(dsn: str, statement: str) -> None:
    connection = psycopg2.connect(dsn)
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(statement)
    finally:
        connection.close()


def _stop(postgres: EmbeddedPostgres, home: Path) -> Deferred[None]:
    stopping = Deferred.fromCoroutine(postgres.stop())
    return stopping.addBoth(lambda _: shutil.rmtree(home, ignore_errors=True))
