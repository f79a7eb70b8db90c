"""Who takes part in what is said to a service: the accounts, and the group that alice, bob and mallory are in."""

from __future__ import annotations

from functools import cache

from fastchat.protocols import wire
from fastchat.protocols.wire import Signed
from tests.support.groups import Actor, GroupChain
from tests.support.people import OwnDevice, Person
from tests.support.rules import INVITE


@cache
def people() -> dict[str, tuple[Person, wire.Register]]:
    """Everybody, with the request that registers them; dave has not sent his yet."""
    return {
        name: (person, person.register(INVITE))
        for name, person in ((name, Person(name)) for name in ("alice", "bob", "mallory", "dave"))
    }


@cache
def added() -> tuple[OwnDevice, wire.AddDevice]:
    """Mallory's second device."""
    return Person("mallory").add_device("second")


def device(name: str) -> OwnDevice:
    return added()[0] if name == "second" else people()[name][0].device


@cache
def group() -> GroupChain:
    """Founded by mallory, whom alice and bob have joined."""
    return GroupChain.of(*(Actor(name, people()[name][0].device) for name in ("mallory", "alice", "bob")))


@cache
def acts() -> dict[str, Signed]:
    """What may be said next in it, and elsewhere."""
    mallory, bob, second = actor("mallory"), actor("bob"), Actor("mallory", device("second"))
    state, another = group().state, GroupChain(second, second.create(nonce=b"n" * 16))
    return {
        "invite": mallory.invite(state, "dave"),
        "remove": mallory.remove(state, "bob"),
        "role": mallory.role(state, "bob", "owner"),
        "title": second.retitle(state, "another"),
        "delete": mallory.delete(state),
        "leave": bob.leave(state),
        "create": another.statements[0],
        "delete it": second.delete(another.state),
    }


def actor(name: str) -> Actor:
    return Actor(name, people()[name][0].device)
