"""The FastChat client: a sans-IO heart (`core`), its encrypted store (`vault`), its cryptography (`ratchet`), one
part that touches sockets (`connection`), and thin faces over them (`cli`, `terminal`)."""
