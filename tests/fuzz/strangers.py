"""Somebody on a connection to a service who may say anything, with a note of what the service took it for and answered.

Between the bytes and the session stand the shell and the owner that a real connection has. What a stranger may hear is
judged in `check`, from what was said and heard alone."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from typing import Any

from scramp import ScramException  # type: ignore[import-untyped]

from fastchat.errors import FrameTooLong, ProtocolError, SignatureInvalid
from fastchat.identity import login
from fastchat.identity.login import ChannelBinding
from fastchat.protocols import wire
from fastchat.protocols.line import LineShell, Turn
from fastchat.protocols.session import Session, State
from tests.fuzz.mangling import Edit, cut, edited
from tests.fuzz.transports import Wire
from tests.support.calling import END_POINT, Place
from tests.support.delivery import now
from tests.support.people import PASSWORD, OwnDevice, scram_client

ANSWERS: dict[type, type] = {
    wire.Hello: wire.Welcome,
    wire.Register: wire.Registered,
    wire.ScramRequest: wire.ScramAnswer,
    wire.AddDevice: wire.Added,
    wire.Login: wire.Ready,
    wire.KeysRequest: wire.KeysAnswer,
    wire.Publish: wire.Published,
    wire.Send: wire.Accepted,
    wire.LogRequest: wire.LogAnswer,
    wire.Ping: wire.Pong,
    wire.Revoke: wire.Revoked,
    wire.GroupAct: wire.GroupDone,
    wire.GroupsRequest: wire.GroupsAnswer,
    wire.GroupLogRequest: wire.GroupLogAnswer,
    wire.GroupSend: wire.Accepted,
    wire.Attach: wire.Attached,
    wire.Chunk: wire.ChunkStored,
    wire.Fetch: wire.ChunkAnswer,
    wire.AttachmentFor: wire.AttachmentDone,
    wire.Fetched: wire.AttachmentDone,
    wire.Detach: wire.AttachmentDone,
}
BEFORE_LOGIN = (wire.Welcome, wire.Registered, wire.ScramAnswer, wire.Added, wire.Error)


class Stranger:
    def __init__(self, place: Place) -> None:
        self.place = place
        self.wire = Wire()
        self.asked: list[Any] = []
        """What was understood, in order."""
        self.bad = 0
        """Lines that were not."""
        self.is_gone = False
        self.last_k = 0
        self._read = 0
        self._heard: list[Any] = []
        self._rest = b""
        self._scram: Any = None
        self.challenge, self.exporter = os.urandom(32), os.urandom(32)
        self.shell = LineShell(self, wire.decode_client_message, Turn(place.clock), place.limits.outbound_hard)
        self.shell.makeConnection(self.wire)

    # --- fastchat.protocols.line.Owner: passes on to the session, as `services.listening` does

    def connected(self, shell: LineShell) -> None:
        binding = ChannelBinding(self.exporter, END_POINT)
        self.session = Session(self.place, shell, "192.0.2.66", lambda: binding, self.challenge)

    def received(self, message: Any) -> None:
        if self.session.state is not State.CLOSED:
            self.asked.append(message.message if isinstance(message, wire.WithBytes) else message)
        self.session.received(message)

    def bad_frame(self, error: ProtocolError) -> None:
        self.bad += 1
        self.session.bad_frame(error)
        assert not isinstance(error, FrameTooLong) or self.session.state is State.CLOSED

    def writable(self, writable: bool) -> None:
        self.session.writable(writable)

    def lost(self, reason: Any) -> None:
        self.session.lost()

    # --- what is done with it

    def says(self, lines: Sequence[bytes], changes: Sequence[Edit] = (), sizes: Sequence[int] = ()) -> None:
        data = edited(b"".join(line + b"\n" for line in lines), changes)
        for piece in cut(data, sizes, most=500):
            if self.is_gone:
                return
            self.shell.dataReceived(piece)
            if self.wire.is_aborted:
                self.leaves()
        self.place.clock.advance(0)
        self.listens()

    def enters(self, device: OwnDevice) -> None:
        """As a client does."""
        self.says([wire.encode(wire.Hello(1, wire.VERSION)), wire.encode(self.login(device))])

    def login(self, device: OwnDevice) -> wire.Login:
        return device.login(self.exporter, self.challenge)

    def scram(self, user: str) -> wire.ScramRequest:
        """The next step of a password login, with the right password."""
        self.listens()
        answers = [one.message for one in self.heard if isinstance(one, wire.ScramAnswer)]
        if self._scram is None:
            self._scram = scram_client(user, PASSWORD, END_POINT)
            return wire.ScramRequest(1, self._scram.get_client_first())
        try:
            self._scram.set_server_first(answers[0])
            return wire.ScramRequest(2, self._scram.get_client_final())
        except (IndexError, ScramException):
            return wire.ScramRequest(3, "c=,r=,p=")

    def leaves(self) -> None:
        """The connection is gone."""
        if not self.is_gone:
            self.is_gone = True
            self.shell.connectionLost()

    def listens(self) -> None:
        """Note what was handed over."""
        for one in self.heard[self._read :]:
            self._read += 1
            if isinstance(one, wire.Message):
                self.last_k = one.k

    @property
    def heard(self) -> list[Any]:
        data = self._rest + b"".join(self.wire.written)
        self.wire.written.clear()
        while b"\n" in data:
            line, _, after = data.partition(b"\n")
            message = wire.decode_server_message(line)
            if isinstance(message, wire.ChunkAnswer):
                assert len(after) >= wire.CHUNK_SIZE, "a chunk is written in one piece"
                after = after[wire.CHUNK_SIZE :]
            self._heard.append(message)
            data = after
        self._rest = data
        return self._heard

    # --- what must be so

    def check(self, place: Place, codes: Sequence[str]) -> None:
        """Whatever had to be answered has been by now."""
        heard = self.heard
        assert not self._rest, "half a line was written"
        errors = [one for one in heard if isinstance(one, wire.Error)]
        assert all(one.code in codes and one.code != "internal" for one in errors), errors
        self._check_login(place, heard)
        self._check_numbers(heard)
        self._check_answers(heard)

    def _check_login(self, place: Place, heard: list[Any]) -> None:
        """Nothing of a session before `ready`, and no `ready` without a good signature of a device that there is."""
        kinds = [type(one) for one in heard]
        if wire.Ready not in kinds:
            assert all(issubclass(kind, (*BEFORE_LOGIN, wire.GoAway)) for kind in kinds), kinds
        else:
            assert kinds.count(wire.Ready) == 1
            assert all(issubclass(kind, BEFORE_LOGIN) for kind in kinds[: kinds.index(wire.Ready)])
        if self.session._traffic is None:
            return
        request = next(one for one in self.asked if isinstance(one, wire.Login))
        device = now(place.memory.device(request.device))
        assert device is not None
        assert device.user == request.user
        try:
            login.verify(
                device.ed25519,
                login.statement(self.exporter, self.challenge, request.user, request.device),
                request.signature,
            )
        except SignatureInvalid:
            raise AssertionError("somebody is in without a signature") from None

    def _check_numbers(self, heard: list[Any]) -> None:
        ks = [one.k for one in heard if isinstance(one, wire.Message)]
        assert ks == list(range(1, len(ks) + 1))

    def _check_answers(self, heard: list[Any]) -> None:
        """One for each request at most, of its kind or an error; as long as the connection lives, exactly one."""
        answers = [one for one in heard if isinstance(getattr(one, "re", None), int)]
        asked = [one for one in self.asked if hasattr(one, "id")]
        wanted, given = Counter(one.id for one in asked), Counter(one.re for one in answers)
        assert given <= wanted, "an answer to what was not asked"
        for one in answers:
            if not isinstance(one, wire.Error):
                assert any(
                    request.id == one.re and isinstance(one, ANSWERS.get(type(request), wire.Error))
                    for request in asked
                )
        alive = not self.is_gone and not self.wire.disconnecting
        if alive:
            assert given == wanted, f"{wanted - given} not answered, {self.session.state}"
            assert self.session.state is State.READY, "the login's timer has not ended it"
        elif not self.is_gone and not self.wire.is_aborted:
            assert heard, "closed without a word"
            assert isinstance(heard[-1], wire.Error), f"closed with {heard[-1]}"
