"""Who is who: pure functions that both sides use to sign, and to check, every claim about a key.

    names.py       which account names there are
    statements.py  what all signed statements share: one meaning for one body, Ed25519 checks
    root.py        an account's RSA-3072 key: the only thing that speaks for the account itself
    links.py       the account's hash-chained list of links, signed by the root: which devices belong to it
    groups.py      a group's hash-chained list of statements, signed by devices, and the rules of who may do what
    prekeys.py     what a device publishes so that others can write to it, signed by the device
    login.py       what a device signs to log in, bound to one TLS connection
    scram.py       what both sides of a password login agree on
    keylog.py      the Merkle log over every link of the network, and its signed checkpoints
    invite.py      the link by which a newcomer learns where the network is and what it can be held to

Trust runs one way: invite → log key → key log → links → device keys → prekeys; and root → links on its own, so that a
server that is not believed at all can still not add a device. Nothing here does I/O, keeps state beyond a value that
it returns, or imports Twisted. A function that takes bytes from outside raises the error that it names, whatever the
bytes are, and nothing else.
"""
