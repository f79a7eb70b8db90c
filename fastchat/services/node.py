"""What the services of one process share: the rules of floor 2 over one store and one bus. Made in `network`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fastchat.accounts import Accounts
from fastchat.attachments import Attachments
from fastchat.config import Config
from fastchat.delivery import Delivery
from fastchat.directory import Directory
from fastchat.groups import Groups
from fastchat.limits import AddressLimits, Claims, LoginFailures
from fastchat.placement import Placement
from fastchat.protocols.line import Turn
from fastchat.services.doorway import Doorway


@dataclass(frozen=True)
class Node:
    config: Config
    reactor: Any
    """Twisted's reactor: time, TCP and the rest."""
    tls: Any
    """The servers' TLS context factory (`services.certificate`)."""
    accounts: Accounts
    directory: Directory
    delivery: Delivery
    groups: Groups
    attachments: Attachments
    placement: Placement
    failures: LoginFailures
    claims: Claims
    addresses: AddressLimits
    turn: Turn
    doorway: Doorway
