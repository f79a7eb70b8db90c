"""Where a session lives: what a service has for all of its sessions. What else a service is, and that there are
sockets, is not known here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from twisted.internet.interfaces import IReactorTime

from fastchat.accounts import Accounts
from fastchat.attachments import Attachments
from fastchat.config import Limits
from fastchat.delivery import Counters, Delivery
from fastchat.directory import Directory
from fastchat.groups import Groups
from fastchat.limits import Claims, LoginFailures

if TYPE_CHECKING:
    from fastchat.protocols.session import Session


class Service(Protocol):
    """One of the network's services."""

    name: str
    limits: Limits
    accounts: Accounts
    directory: Directory
    delivery: Delivery
    groups: Groups
    attachments: Attachments
    failures: LoginFailures
    claims: Claims
    counters: Counters
    reactor: IReactorTime

    def greeted(self, session: Session, lease: str) -> None:
        """The session counts from here on; its lease, if it has one, is redeemed."""

    def ended(self, session: Session) -> None:
        """The connection is gone. Called once for each session, greeted or not."""
