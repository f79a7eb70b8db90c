"""What both sides of a password login agree on: the mechanism, what it is bound to, and the shape of every verifier.

A verifier of another shape is refused, and those of users that do not exist are made up in the same one: a salt of
another size, or another number of rounds, would tell them apart. The exchange itself is the library's.
"""

from __future__ import annotations

MECHANISM = "SCRAM-SHA-256-PLUS"
"""RFC 5802, RFC 7677."""
CHANNEL_BINDING = "tls-server-end-point"
"""RFC 5929: the hash of the server's certificate."""
SCRAM_SALT_SIZE = 32
SCRAM_ITERATIONS = 4096
"""RFC 7677's minimum. The SCRAM password is made by Argon2id and has 256 bits already: more rounds would only cost."""
