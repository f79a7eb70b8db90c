"""A small pool of RSA roots that all tests of one process share: making one takes a third of a second."""

from __future__ import annotations

from functools import cache

from fastchat.identity.root import RootKey


@cache
def root_key(i: int) -> RootKey:
    """The pool's root number `i`: the same one every time, another for every other number. Tests that stay under 6
    keep the pool small."""
    return RootKey.generate()
