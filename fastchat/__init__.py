"""The FastChat server, and what both sides share. The floors that its files stand on: docs/architecture.md."""
