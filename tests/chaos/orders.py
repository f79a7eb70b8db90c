"""What is said between the driver and a worker, and which setup the worker is started with."""

from __future__ import annotations

import msgspec


class Setup(msgspec.Struct, frozen=True):
    """What stays the same whenever the worker is started. `ports`: where each port of the network is found. `parties`:
    by name of a group, who is to be in it. `files`: whether they send files, too."""

    number: int
    seed: int
    keys: dict[str, str]
    """The vault key of each of its clients, in hexadecimal."""
    everybody: list[str]
    link: str
    ports: dict[int, int]
    directory: str
    mutant: str
    parties: dict[str, list[str]] = {}
    files: bool = False


class Command(msgspec.Struct, frozen=True):
    """`start` (with the clients that stay offline, and whether they talk and see to their groups), `talk`, `gather`
    (groups, from now on), `offline`, `online`, `deafen` a client for some seconds, `stop`."""

    do: str
    user: str = ""
    users: list[str] = []
    seconds: float = 0.0
    on: bool = False
    gathers: bool = False


class Condition(msgspec.Struct, frozen=True):
    """How one client is. `waiting`: rows of its outbox that are not accepted, marks and the like too. `unsettled`: what
    is to be done about its groups and files."""

    ready: bool
    waiting: int
    unsettled: int
    said: int
    shown: int


class Report(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the driver hears."""

    prepared: bool = False
    stopped: bool = False
    clients: dict[str, Condition] = {}
    note: str = ""
    """Something that should not happen."""
