"""A small pool of RSA roots that all tests of one process share: making one takes a third of a second."""

from __future__ import annotations

from functools import cache

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding

from fastchat.identity.root import CONTEXT, RootKey


class QuickRootKey(RootKey):
    """Signs with the faster of the two libraries, in 1 ms instead of 100: the scheme is deterministic, so the bytes are
    the same, and whoever verifies checks them with both."""

    def sign(self, context: bytes, body: bytes) -> bytes:
        return self._key.sign(CONTEXT + context + b"|" + body, padding.PKCS1v15(), hashes.SHA256())


@cache
def root_key(i: int) -> RootKey:
    """The pool's root number `i`: the same one every time, another for every other number. Tests that stay under 6
    keep the pool small."""
    return QuickRootKey.generate()
