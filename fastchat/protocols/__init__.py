"""The protocols: what is said on a connection (`wire`), how it travels (`line`), and who answers what
(`session`, `balancer`). The grammar for other languages is `PROTOCOL.md` in this folder."""
