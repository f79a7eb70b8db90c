"""Taking another device out of one's own account: the link that revokes it is signed by the account's root, which is
here for this moment only, and it is done when the key log says so.
"""

from __future__ import annotations

from fastchat.errors import ChainInvalid, FastChatError, RequestError, TrustError
from fastchat.identity.links import sign_revoke_device
from fastchat.identity.root import RootKey
from fastchat.protocols.wire import Revoke
from fastchat_client.events import Revocation
from fastchat_client.parts import Live, Parts

MOST_TRIES = 3
"""How often a link is signed anew because another one came first, or because the network says that it has taken it and
does not show it."""


class Revoker:
    """One revocation at a time; it lives in memory, and on one connection after the other until there is an outcome,
    which is a `Revocation` event."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._root: RootKey | None = None
        self._device = ""
        self._tries = 0
        self._in_vain = 0
        self._live: Live | None = None
        """The connection that the request was sent on, while it is not answered."""
        self._request = 0
        self._not_before = 0.0

    def check(self, root: RootKey, device: str) -> None:
        """Raises `RequestError` if `device` is none that can be revoked from here, and `TrustError` if this is not the
        account's key."""
        me = self._parts.me
        account = self._parts.accounts.get(me.user)
        if account is None or device not in account.devices:
            raise RequestError("your account has no such device")
        if device == me.device:
            raise RequestError("this is the device that you are using; revoke it from another one")
        if root.public_pem != account.root_pem:
            raise TrustError("this is not the RSA key of your account")

    def begin(self, root: RootKey, device: str) -> None:
        """Revoke `device`, which was checked, at once or at the next connection."""
        self._root, self._device = root, device
        self._tries, self._in_vain, self._live, self._not_before = 0, 0, None, 0.0
        self._parts.accounts.mark_user_stale(self._parts.me.user)

    def pump(self, live: Live) -> None:
        """Do what can be done now."""
        parts = self._parts
        if self._root is None or self._live is live or live.leaving is not None:
            return
        if parts.alarmed or not live.log_current or parts.clock() < self._not_before:
            return
        user = parts.me.user
        account = parts.accounts.get(user)
        assert account is not None
        if account.offered_root:
            self._failed(TrustError("the network names another RSA key for your account"))
        elif not parts.accounts.is_fresh(user, parts.now()):
            live.fetching.want(user)
        elif self._device in account.revoked:
            self._root = None
            parts.tell(Revocation(self._device))
        elif self._in_vain >= MOST_TRIES:
            self._failed(TrustError("the network says that it has revoked the device, and does not show it"))
        else:
            self._ask(live, self._root, user)

    def answered(self, live: Live, request: int) -> None:
        """The network says that it is done. The links and the log are to say so, too."""
        if self._live is live and request == self._request:
            self._live = None
            self._in_vain += 1
            self._parts.accounts.mark_user_stale(self._parts.me.user)
            self.pump(live)

    def refused(self, live: Live, request: int, problem: FastChatError) -> bool:
        """Whether it was this that the network refuses."""
        if self._live is not live or request != self._request:
            return False
        self._live = None
        # Whether it was done all the same, the links will tell.
        self._parts.accounts.mark_user_stale(self._parts.me.user)
        if problem.retry_after is not None:
            self._not_before = self._parts.clock() + problem.retry_after
        elif isinstance(problem, ChainInvalid) and self._tries < MOST_TRIES:
            self.pump(live)
        else:
            self._failed(problem)
        return True

    def _ask(self, live: Live, root: RootKey, user: str) -> None:
        links = self._parts.accounts.links(user)
        try:
            link = sign_revoke_device(root, links, user, self._device, self._parts.now())
        except ChainInvalid as error:
            self._failed(error)
            return
        self._tries += 1
        self._live = live
        self._request = self._parts.say(lambda i: Revoke(i, len(links), link))

    def _failed(self, problem: FastChatError) -> None:
        self._root = None
        self._parts.tell(Revocation(self._device, problem.code, problem.message))
