"""Mutants that only files notice: `mutants.py` has the others, and applies these."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastchat.attachments import Attachments
from tests.chaos.mutant import Mutant, Original


def _stored_when_queued(store: Original) -> Original:
    def stored_at_once(self: Any, chunk: Any, settled: Any) -> None:
        store(self, chunk, lambda error: None)
        self.__dict__.setdefault("queued", set()).add((chunk.attachment, chunk.index))
        settled(None)

    return stored_at_once


def _not_missing_when_queued(begin: Original) -> Original:
    async def begun(self: Any, user: str, attachment: str, chunks: int) -> Sequence[tuple[int, int]]:
        queued = self.__dict__.get("queued", set())
        missing = [at for first, after in await begin(self, user, attachment, chunks) for at in range(first, after)]
        return [(at, at + 1) for at in missing if (attachment, at) not in queued][:64]

    return begun


def _one_reader(expect: Original) -> Original:
    async def expected(self: Any, user: str, attachment: str, devices: int) -> None:
        await expect(self, user, attachment, min(devices, 1))

    return expected


FILE_MUTANTS = (
    Mutant(
        "chunk-stored-when-queued",
        "server",
        "A chunk of a file counts as stored when it is put into the writer's queue, not when its batch is committed.",
        ("lost",),
        ("SIGSTOP of a backend", "kill of PostgreSQL", "termination of backends"),
        (
            (Attachments, "store", _stored_when_queued),
            (Attachments, "begin", _not_missing_when_queued),
        ),
    ),
    Mutant(
        "one-reader-is-enough",
        "server",
        "A file is removed as soon as one of those whom it is for has fetched it.",
        ("lost",),
        ("people who are away", "kill of clients"),
        ((Attachments, "expect", _one_reader),),
    ),
)
