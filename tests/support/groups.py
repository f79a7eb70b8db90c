"""Groups for tests: devices that sign statements, and a chain that grows by them. What is said need not be allowed."""

from __future__ import annotations

import hashlib
import json
from base64 import b64encode
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from fastchat.identity.groups import (
    Create,
    Delete,
    GroupState,
    Invite,
    Join,
    Leave,
    Remove,
    Retitle,
    Role,
    SessionStatement,
    SetRole,
    Title,
    extend,
    read,
    sign,
    sign_session,
    title_hash,
)
from fastchat.identity.links import DeviceIdentity
from fastchat.identity.prekeys import Sign
from fastchat.protocols.wire import Signed
from tests.support.people import AT, OwnDevice

CONTEXT = b"FastChat-v1|group|"
_Later = TypeVar("_Later", Invite, Join, Leave, Remove, SetRole, Retitle, Delete)


def title_of(name: str, topic: str = "") -> Title:
    return Title(salt=hashlib.sha256(f"salt {name} {topic}".encode()).digest(), name=name, topic=topic)


class Actor:
    """A device that acts in groups. `Actor("alice")` has the keys of `Person("alice").device`."""

    def __init__(self, user: str, device: OwnDevice | None = None) -> None:
        own = device or OwnDevice(user, "first")
        self.identity = own.identity
        self.sign: Sign = own.ed25519.sign

    @classmethod
    def holding(cls, identity: DeviceIdentity, sign: Sign) -> Actor:
        """One with the keys of a client that is there already."""
        actor = cls.__new__(cls)
        actor.identity, actor.sign = identity, sign
        return actor

    @property
    def user(self) -> str:
        return self.identity.user

    @property
    def device(self) -> str:
        return self.identity.device

    @property
    def ed25519(self) -> bytes:
        return self.identity.ed25519

    def create(self, name: str = "team", topic: str = "", nonce: bytes = bytes(16), title: bytes = b"") -> Signed:
        """`title`: a hash, if it is to be another than that of `title_of(name, topic)`."""
        hashed = title or title_hash(title_of(name, topic))
        create = Create(position=0, prev=b"", user=self.user, device=self.device, at=AT, nonce=nonce, title=hashed)
        return sign(self.sign, create)

    def invite(self, state: GroupState, who: str, history: int = 7) -> Signed:
        return self._later(Invite, state, who=who, history=history)

    def join(self, state: GroupState) -> Signed:
        return self._later(Join, state)

    def leave(self, state: GroupState) -> Signed:
        return self._later(Leave, state)

    def remove(self, state: GroupState, who: str) -> Signed:
        return self._later(Remove, state, who=who)

    def role(self, state: GroupState, who: str, role: Role) -> Signed:
        return self._later(SetRole, state, who=who, role=role)

    def retitle(self, state: GroupState, name: str, topic: str = "") -> Signed:
        return self._later(Retitle, state, title=title_hash(title_of(name, topic)))

    def delete(self, state: GroupState) -> Signed:
        return self._later(Delete, state)

    def session(self, group: str, session: bytes) -> Signed:
        """`session`: the public key of a Megolm session, 32 bytes."""
        statement = SessionStatement(group=group, session=session, user=self.user, device=self.device, at=AT)
        return sign_session(self.sign, statement)

    def _later(self, kind: type[_Later], state: GroupState, **what: Any) -> Signed:
        statement = kind(
            group=state.group,
            position=state.length,
            prev=state.head,
            user=self.user,
            device=self.device,
            at=AT + state.length,
            **what,
        )
        return sign(self.sign, statement)


class GroupChain:
    """A group's statements so far, and what they say."""

    def __init__(self, creator: Actor, create: Signed | None = None) -> None:
        self.statements = [create or creator.create()]
        self.state = extend(None, self.statements[0], creator.ed25519)
        self.actors = [creator]
        """Who said each."""
        self.keys = {creator.device: creator.ed25519}

    @classmethod
    def of(cls, owner: Actor, *members: Actor) -> GroupChain:
        """A group that all of these have joined."""
        chain = cls(owner)
        for member in members:
            chain.add(owner, owner.invite(chain.state, member.user))
            chain.add(member, member.join(chain.state))
        return chain

    @property
    def group(self) -> str:
        return self.state.group

    def states(self) -> list[GroupState]:
        """The state after each statement."""
        states: list[GroupState] = []
        for actor, statement in zip(self.actors, self.statements, strict=True):
            states.append(extend(states[-1] if states else None, statement, actor.ed25519))
        return states

    def add(self, actor: Actor, statement: Signed) -> GroupState:
        """Raises as `extend` does; then it is not added."""
        self.state = extend(self.state, statement, actor.ed25519)
        self.statements.append(statement)
        self.actors.append(actor)
        self.keys[actor.device] = actor.ed25519
        return self.state


def replay(statements: Iterable[Signed], keys: Mapping[str, bytes]) -> GroupState | None:
    """What these say, from the first on; `keys` by device. Raises as `extend` does."""
    state = None
    for statement in statements:
        state = extend(state, statement, keys.get(read(statement).device, bytes(32)))
    return state


def of_every_kind() -> GroupChain:
    """Ten statements, by which alice, bob and carol say everything that there is to say."""
    alice, bob, carol = Actor("alice"), Actor("bob"), Actor("carol")
    chain = GroupChain(alice)
    chain.add(alice, alice.invite(chain.state, "bob", 30))
    chain.add(bob, bob.join(chain.state))
    chain.add(alice, alice.role(chain.state, "bob", "admin"))
    chain.add(bob, bob.invite(chain.state, "carol", 0))
    chain.add(bob, bob.retitle(chain.state, "new", "all of it"))
    chain.add(carol, carol.join(chain.state))
    chain.add(alice, alice.remove(chain.state, "carol"))
    chain.add(bob, bob.leave(chain.state))
    chain.add(alice, alice.delete(chain.state))
    return chain


def text(data: bytes) -> str:
    return b64encode(data).decode()


def compact(statement: Mapping[str, Any]) -> bytes:
    return json.dumps(statement, separators=(",", ":")).encode()


def changed(signed: Signed, without: str = "", **what: Any) -> bytes:
    """The body with another meaning, in the canonical encoding."""
    statement = {**json.loads(signed.body), **what}
    return compact({field: value for field, value in statement.items() if field != without})


def signed_by(actor: Actor, body: bytes, context: bytes = CONTEXT) -> Signed:
    """Whatever `body` is."""
    return Signed(body=body, signature=actor.sign(context + body))
