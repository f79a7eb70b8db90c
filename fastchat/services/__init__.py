"""The services that a network consists of: factories, lifecycles and wiring; the rules are on the floors below."""

from __future__ import annotations

from typing import Any

Reactor = Any
"""The reactor. It provides several interfaces at once (time, processes, TCP), and zope has no type for that."""
