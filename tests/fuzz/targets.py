"""All targets, in the order in which `make fuzz` takes them."""

from __future__ import annotations

from tests.fuzz import balancer, client, connection, line, parsers, session
from tests.fuzz.watching import Target

TARGETS: tuple[Target, ...] = (
    *line.TARGETS,
    *session.TARGETS,
    *balancer.TARGETS,
    *client.TARGETS,
    *connection.TARGETS,
    *parsers.TARGETS,
)
