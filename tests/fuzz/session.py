"""Target `session`: the session machine on real shells, over the real rules, for strangers who may say anything.

Beside them alice and bob talk, who must not notice: what bob hears of alice is what she sent, once and in order, and
the other way round. They are in a group that mallory runs, in which the strangers may act and talk. Each request has
one answer, or the connection ends and says why; nobody hears what only a login gives without one whose signature is
good; and when all are gone, nothing of them is left.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from msgspec import Raw

from fastchat.delivery.outgoing import LANES
from fastchat.errors import Busy
from fastchat.groups import state_of
from fastchat.identity.groups import Create, group_id, read
from fastchat.protocols import wire
from fastchat.protocols.attachment_traffic import READ_AHEAD
from fastchat.protocols.session import PENDING_REQUESTS
from tests.fuzz.cast import acts, added, device, group, people
from tests.fuzz.mangling import edits, line_of, pieces, said
from tests.fuzz.messages import Values, codes
from tests.fuzz.strangers import Stranger
from tests.fuzz.watching import Target, clean_log
from tests.support.calling import Peer, Place
from tests.support.delivery import now
from tests.support.rules import INVITE

STRANGERS = 3
FILES = ("f1" * 16, "f2" * 16)
ABOUT_FILES = (wire.Attach, wire.Chunk, wire.Fetch, wire.AttachmentFor, wire.Fetched, wire.Detach)
SMALL = {
    "unaccepted": 3,
    "window_messages": 4,
    "window_bytes": 2000,
    "mailbox_messages": 5,
    "mailbox_page": 2,
    "sends_burst": 12,
    "write_queue_bytes": 4096,
}


class Pair:
    """Alice and Bob: who writes to whom, what was accepted, and what came."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self.peers = {name: Peer(place, address="198.51.100.1") for name in ("alice", "bob")}
        for name, peer in self.peers.items():
            peer.logs_in(device(name))
        self._next = dict.fromkeys(self.peers, 1)
        self._unanswered: dict[str, dict[int, int]] = {name: {} for name in self.peers}
        self._refused: dict[str, set[int]] = {name: set() for name in self.peers}
        self._read = dict.fromkeys(self.peers, 0)
        self._seen: dict[str, list[int]] = {name: [] for name in self.peers}

    def writes(self, name: str) -> None:
        n = self._next[name]
        # After `busy` a client sends nothing new before the refused ones have gone.
        if not self._refused[name] and n <= 8:
            self._next[name] += 1
            self._send(name, n)
        self.reads()

    def _send(self, name: str, n: int) -> None:
        send = self.peers[name].send_to(n, device("bob" if name == "alice" else "alice").id)
        self._unanswered[name][send.id] = n
        self.peers[name].says(send)

    def reads(self) -> None:
        """Take what came, and say so; keep the connection alive."""
        for name, peer in self.peers.items():
            while self._read[name] < len(peer.heard):
                message = peer.heard[self._read[name]]
                self._read[name] += 1
                self._takes(name, peer, message)

    def _takes(self, name: str, peer: Peer, message: Any) -> None:
        match message:
            case wire.Message():
                other = "bob" if name == "alice" else "alice"
                if message.device == device(other).id:
                    assert message.user == other
                    if message.n not in self._seen[name]:
                        self._seen[name].append(message.n)
                peer.says(wire.Received(message.k))
            case wire.Accepted():
                del self._unanswered[name][message.re]
            case wire.Error() if message.code in (Busy.code, "rate-limited"):
                assert isinstance(message.re, int)
                self._refused[name].add(self._unanswered[name].pop(message.re))
            case wire.Ready() | wire.Welcome() | wire.Pong() | wire.GroupNews() | wire.Whispered():
                pass
            case _:
                raise AssertionError(f"{name} hears {message}")

    def keeps_alive(self) -> None:
        for peer in self.peers.values():
            peer.says(wire.Ping(0))

    def ends(self) -> None:
        """All that they wrote is there."""
        for _ in range(60):
            self.reads()
            for name in self.peers:
                if not self._unanswered[name]:
                    again, self._refused[name] = sorted(self._refused[name]), set()
                    for n in again:
                        self._send(name, n)
            self.reads()
            if not any(self._unanswered.values()) and not any(self._refused.values()):
                break
            self._place.clock.pump([0.5] * 4)
        for name, other in (("alice", "bob"), ("bob", "alice")):
            assert not self._unanswered[name], f"{name} is not answered: {self._unanswered[name]}"
            assert not self._refused[name], f"{name} is refused"
            assert self._seen[other] == list(range(1, self._next[name])), (other, self._seen[other])
        for peer in self.peers.values():
            assert not peer.is_closed
            peer.hangs_up()


class World:
    """A service, alice and bob on it, and some strangers."""

    def __init__(self, limits: dict[str, Any]) -> None:
        self.place = Place(Path("home that is not there"), **limits)
        for name in ("alice", "bob", "mallory"):
            now(self.place.accounts.register(people()[name][1]))
        for statement in group().statements:
            actor = now(self.place.memory.device(read(statement).device))
            now(self.place.groups.act(actor, group().group, statement))
        self.place.delivery.start()
        self.place.attachments.start()
        self.pair = Pair(self.place)
        self.strangers: list[Stranger | None] = [None] * STRANGERS
        self.gone: list[Stranger] = []

    def stranger(self, number: int) -> Stranger:
        stranger = self.strangers[number]
        if stranger is None or stranger.is_gone:
            stranger = self.strangers[number] = Stranger(self.place)
            self.gone.append(stranger)
        return stranger

    def does(self, move: tuple[Any, ...]) -> None:
        match move:
            case ("says", int(number), [*what], changes, sizes):
                stranger = self.stranger(number)
                lines = [self._line(stranger, one) for one in what]
                stranger.says(lines, changes, sizes)
            case ("enters", int(number), str(name)):
                self.stranger(number).enters(device(name))
            case ("passes", float(seconds)):
                self._passes(seconds)
            case ("pair", str(name)):
                self.pair.writes(name)
            case ("leaves", int(number)):
                self.stranger(number).leaves()
            case ("fills", int(number), bool(full)):
                wire_ = self.stranger(number).wire
                (wire_.fill if full else wire_.empty)()
            case ("database", str(how)):
                store = self.place.store
                store.away = how == "away"
                if how == "slow":
                    store.held = True
                else:
                    store.release()
            case ("asked to go", int(number)):
                self.stranger(number).session.leave(0.0, "why not")
        for one in self.strangers:
            if one is not None:
                self._check_bounds(one)
        self.pair.reads()

    def _line(self, stranger: Stranger, what: Any) -> bytes:
        """The content of one line; what is signed or counted can be made only here."""
        match what:
            case bytes():
                return what
            case ("login", str(name)):
                return wire.encode(stranger.login(device(name)))
            case ("forge", str(name)):
                who, signed = device(name).identity, stranger.login(device("mallory"))
                return wire.encode(wire.Login(1, who.user, who.device, signed.signature))
            case ("scram", str(name)):
                return wire.encode(stranger.scram(name))
            case ("add", int(i)):
                return wire.encode(wire.AddDevice(i, 2, added()[1].link, added()[1].keys))
            case ("received", int(less)):
                return wire.encode(wire.Received(max(0, stranger.last_k - less)))
            case ("act", int(i), str(what)):
                act = acts()[what]
                statement = read(act)
                about = group_id(act.body) if isinstance(statement, Create) else statement.group
                return wire.encode(wire.GroupAct(i, about, act))
            case ("to all", int(i), int(n), int(grown), [*names]):
                length = group().state.length + grown
                named = tuple(device(name).id for name in names)
                return wire.encode(wire.GroupSend(i, n, group().group, length, Raw(b'"Ag=="'), named))
            case ("chunk", int(i), int(which), int(index)):
                # The last of its bytes is a line's end, which is put behind every line here.
                return wire.encode(wire.Chunk(i, FILES[which], index)) + b"\n" + b"\n" * (wire.CHUNK_SIZE - 1)
            case ("whisper",):
                return wire.encode(wire.GroupWhisper(group().group, Raw(b'"Ag=="')))
            case ("to", int(i), int(n), [*names]):
                return wire.encode(
                    wire.Send(i, n, tuple(wire.Recipient(device(name).id, Raw(b'"AQID"')) for name in names))
                )
        raise AssertionError(what)

    def _passes(self, seconds: float) -> None:
        for _ in range(round(seconds * 2)):
            self.place.clock.advance(0.5)
            self.pair.reads()
        self.pair.keeps_alive()
        for session in [*(one.session for one in self.pair.peers.values()), *self._sessions()]:
            session.tick(seconds)
        self.pair.reads()

    def _sessions(self) -> list[Any]:
        return [one.session for one in self.strangers if one is not None and not one.is_gone]

    def _check_bounds(self, stranger: Stranger) -> None:
        session, limits = stranger.session, self.place.limits
        assert session._pending <= PENDING_REQUESTS
        if session._traffic is not None:
            assert session._traffic.outgoing.unaccepted <= limits.unaccepted
            assert len(session._traffic.outgoing._lanes) <= LANES
            assert len(session._traffic.groups._refused) <= limits.groups_per_user
            inbox = session._traffic.inbox
            assert len(inbox._handed) <= limits.window_messages
            assert len(inbox._held) <= limits.window_messages
            assert len(inbox._backlog) <= limits.mailbox_page
            files = session._traffic.attachments
            assert 0 <= files._unanswered <= self.place.attachments.limits.chunks_in_flight
            assert len(files._asked) + len(files._readings) <= files._unanswered
            assert len(files._readings) <= READ_AHEAD
        assert stranger.shell._size <= limits.outbound_hard

    def ends(self) -> None:
        """The database is there, time passes, and all are asked what they have heard; then nobody is left."""
        self.does(("database", "there"))
        for stranger in self.strangers:
            if stranger is not None and not stranger.is_gone:
                stranger.wire.empty()
        self._passes(12.0)
        for stranger in self.gone:
            stranger.check(self.place, codes())
        for stranger in self.gone:
            stranger.leaves()
        self.pair.ends()
        self._check_empty()

    def _check_empty(self) -> None:
        place = self.place
        place.clock.pump([1.0] * 12)
        now(place.delivery.stop())
        now(place.attachments.stop())
        assert place.attachments.held == 0
        assert not place.clock.getDelayedCalls(), place.clock.getDelayedCalls()
        assert not place.bus._inboxes
        assert not place.delivery._inboxes
        assert not place.delivery.writer._queue
        assert place.delivery.writer._queued == 0
        assert not place.delivery.remover._queue
        assert not place.groups._loadings
        assert not place.groups._locks
        for name, circle in place.groups._circles.items():
            assert circle.is_doubtful or circle.state == state_of(now(place.memory.group(name)))
        everybody = [*(peer.session for peer in self.pair.peers.values()), *(one.session for one in self.gone)]
        assert sorted(map(id, place.endings)) == sorted(map(id, everybody))
        for session in everybody:
            assert session._pending == 0
            if session._traffic is not None:
                assert session._traffic.outgoing.unaccepted == 0


def check(given: tuple[bool, list[tuple[Any, ...]]]) -> None:
    small, moves = given
    with clean_log():
        world = World(SMALL if small else {})
        for move in moves:
            world.does(move)
        world.ends()


# --- what is drawn ---------------------------------------------------------------------------------------------------


def _vocabulary() -> Values:
    everybody = people()
    devices = [device(name) for name in ("alice", "bob", "mallory", "second", "dave")]
    keys = [request.keys for _, request in everybody.values()]
    links = [link for _, request in everybody.values() for link in request.links]
    statements = [one for each in keys for one in (each.fallback, each.seal, *each.one_time) if one is not None]
    requests = [request for _, request in everybody.values()]
    return Values(
        {
            # To Python, every kind of id is the same annotation.
            wire.DeviceId: [*(one.id for one in devices), group().group, group_id(acts()["create"].body), *FILES],
            wire.Name: [*everybody, "nobody"],
            wire.Signed: [*links, added()[1].link, *statements, *acts().values()],
            (wire.GroupSend, "length"): [group().state.length],
            (wire.Attach, "chunks"): [1, 2, 20],
            **{(kind, "attachment"): FILES for kind in ABOUT_FILES},
            wire.DeviceKeys: keys,
            wire.ScramVerifier: [request.verifier for request in requests],
            wire.Register: requests,
            (wire.Register, "invite"): [INVITE],
            (wire.Hello, "version"): [wire.VERSION] * 3,
        }
    )


@cache
def _inputs() -> st.SearchStrategy[tuple[bool, list[tuple[Any, ...]]]]:
    messages = _vocabulary().message(wire.ClientMessage).map(wire.encode)
    proper = st.one_of(
        st.just(wire.encode(wire.Hello(1, wire.VERSION))),
        st.tuples(st.just("login"), st.sampled_from(("mallory", "second", "dave"))),
        st.tuples(st.just("forge"), st.sampled_from(("alice", "second"))),
        st.tuples(st.just("scram"), st.sampled_from(("mallory", "alice", "nobody"))),
        st.tuples(st.just("add"), st.integers(0, 9)),
        st.tuples(st.just("received"), st.integers(-1, 2)),
        st.tuples(st.just("act"), st.integers(0, 99), st.sampled_from(sorted(acts()))),
        st.just(("whisper",)),
        st.tuples(st.just("chunk"), st.integers(0, 99), st.integers(0, 1), st.integers(0, 2)),
        st.builds(wire.Attach, st.integers(0, 99), st.sampled_from(FILES), st.sampled_from((1, 1, 2))).map(wire.encode),
        st.builds(wire.Fetch, st.integers(0, 99), st.sampled_from(FILES), st.integers(0, 2)).map(wire.encode),
        st.tuples(
            st.just("to all"),
            st.integers(0, 99),
            st.integers(1, 20),
            st.sampled_from((0, 0, 1)),
            st.just([]) | st.lists(st.sampled_from(("bob", "alice", "mallory", "second", "dave")), max_size=3),
        ),
        st.tuples(
            st.just("to"),
            st.integers(0, 99),
            st.integers(1, 20),
            st.lists(st.sampled_from(("bob", "alice", "mallory", "second", "dave")), max_size=3),
        ),
    )
    number = st.integers(0, STRANGERS - 1)
    lines = st.lists(proper | proper | line_of(said("C"), messages), min_size=1, max_size=8)
    says = st.tuples(st.just("says"), number, lines, st.just([]) | edits, pieces)
    move = st.one_of(
        says,
        says,
        st.tuples(st.just("enters"), number, st.sampled_from(("mallory", "mallory", "second", "dave"))),
        st.tuples(st.just("pair"), st.sampled_from(("alice", "bob"))),
        st.tuples(st.just("passes"), st.sampled_from((0.5, 2.5, 5.0, 11.0))),
        st.one_of(
            st.tuples(st.just("leaves"), number),
            st.tuples(st.just("fills"), number, st.booleans()),
            st.tuples(st.just("database"), st.sampled_from(("away", "slow", "there"))),
            st.tuples(st.just("asked to go"), number),
        ),
    )
    return st.tuples(st.booleans(), st.lists(move, max_size=6) | st.lists(move, min_size=7, max_size=25))


TARGETS = (Target("session", _inputs, check, 60),)
