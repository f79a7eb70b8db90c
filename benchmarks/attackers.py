"""What floods and slow readers do, as a process of its own: `python -m benchmarks.attackers NAME PORT SERVICES DSN`.

It prepares, says `ready`, attacks from the line `go` until the line `stop` (by the server's own wire, over TLS), and
says as JSON what it has done. A flood is nice: where cores are few, it must not be its own CPU time that others wait
for. Messages come at a rate, and evenly: a sender that is kept waiting would send them in heaps.
It measures nothing; that is `floods`.
"""

from __future__ import annotations

import base64
import json
import os
import resource
import select
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import count, cycle

from benchmarks.accounts import Database, Device
from benchmarks.clients import Client, Connection, Loop, make_body
from fastchat.identity.scram import CHANNEL_BINDING
from fastchat.protocols.wire import Accepted, Error, Hello, ScramAnswer, ScramRequest, ServerMessage, Welcome, encode

SILENT = 2_000
SLOW = 200
PASSWORDS = 2_000
"""Of them, so many at the same time; whoever fails is followed by another one."""
SENDERS = 60
A_SECOND = 1_000
BODY = 1_741
NICE = 15
TURN_SECONDS = 0.001
NUMBERS = count()


class Attacker(Connection):
    """One that gives up when the server ends it, and says so to its attack."""

    def __init__(self, attack: Attack, port: int, source: str = "") -> None:
        self._attack = attack
        super().__init__(attack.loop, port, source)
        attack.open.add(self)
        attack.done["connections"] += 1

    def secured(self) -> None:
        self._attack.done["handshakes"] += 1

    def received(self, messages: list[ServerMessage]) -> None: ...

    def step(self) -> None:
        """What it does once a second."""

    def broken(self, why: str) -> None:
        self._attack.done["ended by the server"] += 1
        self.drop()

    def drop(self) -> None:
        """Without a word."""
        if self.number >= 0:
            self._loop.remove(self)
            self._socket.close()
            self.number = -1
        self._attack.open.discard(self)


class Bare(Attacker):
    """A TCP connection that begins no TLS."""

    def _shake_hands(self) -> None: ...


class Crawling(Attacker):
    """All that it writes leaves byte by byte: its TLS handshake, or, when `secure`, one byte of a line each time."""

    def __init__(self, attack: Attack, port: int, secure: bool) -> None:
        self._crawls_inside = secure
        self._line = iter(cycle(b"x"))
        super().__init__(attack, port)

    def _write(self) -> None:
        if self._crawls_inside:
            super()._write()

    def step(self) -> None:
        if self.number < 0:
            return
        with suppress(OSError):
            if self._crawls_inside:
                if self._secure:
                    self.say(bytes((next(self._line),)))
                    self._attack.done["bytes"] += 1
            elif self._out:
                del self._out[: self._socket.send(self._out[:1])]
                self._attack.done["bytes"] += 1


class WrongPassword(Attacker):
    """One attempt: `hello`, and the two messages of SCRAM with a proof that nobody made."""

    def __init__(self, attack: Attack, port: int, user: str, source: str = "") -> None:
        self._user = user
        super().__init__(attack, port, source)

    def secured(self) -> None:
        super().secured()
        self.say(encode(Hello(1, 1)) + b"\n")

    def received(self, messages: list[ServerMessage]) -> None:
        for message in messages:
            match message:
                case Welcome():
                    first = f"p={CHANNEL_BINDING},,n={self._user},r={os.urandom(12).hex()}"
                    self.say(encode(ScramRequest(2, first)) + b"\n")
                case ScramAnswer():
                    nonce = message.message.partition(",")[0]
                    channel = base64.b64encode(f"p={CHANNEL_BINDING},,".encode() + bytes(32)).decode()
                    proof = base64.b64encode(os.urandom(32)).decode()
                    self.say(encode(ScramRequest(3, f"c={channel},{nonce},p={proof}")) + b"\n")
                case Error():
                    self._attack.done[f"answered {message.code}"] += 1
                    self.drop()
                    return


class Sender(Client):
    """Counts what it is answered, whatever it is."""

    refused = 0

    def received(self, messages: list[ServerMessage]) -> None:
        kept = []
        for message in messages:
            if self.ready and isinstance(message, Error):
                self.refused += 1
            elif self.ready and isinstance(message, Accepted):
                self.accepted += 1
            else:
                kept.append(message)
        super().received(kept)


class NeverReader(Client):
    """Logs in, and never reads again."""

    def happens(self, events: int) -> None:
        super().happens(events)
        if self.ready:
            self._loop.remove(self)

    def close(self) -> None:
        self._socket.close()


class Attack:
    """The ports it is aimed at, and what it has done."""

    def __init__(self, port: int, services: int, dsn: str) -> None:
        self.loop = Loop()
        self.port = port
        self.ports = [port + 1 + number for number in range(services)]
        self.dsn = dsn
        self.open: set[Attacker] = set()
        self.done: dict[str, int] = dict.fromkeys(("connections", "handshakes", "ended by the server"), 0)

    def prepare(self) -> None:
        """Before `go`."""
        if os.nice(0) == 0:
            os.nice(NICE)

    def begin(self) -> None: ...

    def turn(self) -> None:
        """Often."""

    def end(self) -> None:
        for one in list(self.open):
            one.drop()

    def run(self) -> None:
        self.prepare()
        print("ready", flush=True)
        sys.stdin.readline()
        self.begin()
        while not select.select([sys.stdin], [], [], 0)[0]:
            self.turn()
            self.loop.turn(TURN_SECONDS)
        self.end()
        print(json.dumps(self.done), flush=True)


class Flood(Attack):
    """So many connections that are there all the time; the lost ones are replaced."""

    def __init__(self, port: int, services: int, dsn: str, size: int, make: Callable[[Flood, int], Attacker]) -> None:
        super().__init__(port, services, dsn)
        self._size = size
        self._make = make
        self._ports = cycle([*self.ports, port])
        self._stepped = 0.0
        self.done["bytes"] = 0
        self.done["answered login-failed"] = 0

    def turn(self) -> None:
        # As fast as they are taken, but never more at once than this process can watch as well.
        for _ in range(min(100, self._size - len(self.open))):
            self._make(self, next(self._ports))
        now = time.monotonic()
        if now - self._stepped > 1.0:
            self._stepped = now
            for one in list(self.open):
                one.step()


class Messages(Attack):
    """A thousand messages a second from so many senders to one device, whose client reads or never does."""

    def __init__(self, port: int, services: int, dsn: str, senders: int, reads: bool) -> None:
        super().__init__(port, services, dsn)
        self._senders = senders
        self._reads = reads
        self._body = make_body(BODY)
        self._due = 0.0

    def prepare(self) -> None:
        mark = f"{os.getpid():x}"
        devices = [Device(f"attacker-{mark}-{number}") for number in range(self._senders + 1)]
        database = Database(self.dsn)
        database.add(devices)
        database.settle()
        database.close()
        ports = cycle(self.ports)
        kind = Client if self._reads else NeverReader
        self._reader = kind(self.loop, next(ports), devices[0])
        self._all = [Sender(self.loop, next(ports), device) for device in devices[1:]]
        self.loop.run_until(lambda: self._reader.ready and all(sender.ready for sender in self._all))
        self.loop.run(0.5)
        self._turns = cycle(self._all)

    def begin(self) -> None:
        self._due = time.monotonic()

    def turn(self) -> None:
        while self._due < time.monotonic():
            self._due += 1 / A_SECOND
            next(self._turns).send(self._reader.device, self._body)

    def end(self) -> None:
        self.done = {
            "sent": sum(sender.sent for sender in self._all),
            "accepted": sum(sender.accepted for sender in self._all),
            "refused": sum(sender.refused for sender in self._all),
        }
        self._reader.close()
        self.loop.close(self._all)


def _silent(flood: Flood, port: int) -> Attacker:
    return Bare(flood, port)


def _secure(flood: Flood, port: int) -> Attacker:
    return Attacker(flood, port)


def _crawling(flood: Flood, port: int) -> Attacker:
    return Crawling(flood, port, secure=next(NUMBERS) % 2 == 0)


def _one_address(flood: Flood, port: int) -> Attacker:
    # Never the balancer, which knows no passwords.
    number = next(NUMBERS)
    return WrongPassword(flood, flood.ports[number % len(flood.ports)], f"user-{number % 100 + 1}")


def _everywhere(flood: Flood, port: int) -> Attacker:
    number = next(NUMBERS)
    source = f"127.{1 + number // 62_500 % 200}.{number // 250 % 250}.{1 + number % 250}"
    return WrongPassword(flood, flood.ports[number % len(flood.ports)], f"user-{number + 1}", source)


ATTACKS: dict[str, Callable[[int, int, str], Attack]] = {
    "silent": lambda *where: Flood(*where, SILENT, _silent),
    "silent-tls": lambda *where: Flood(*where, SILENT, _secure),
    "slowloris": lambda *where: Flood(*where, SLOW, _crawling),
    "passwords": lambda *where: Flood(*where, PASSWORDS, _one_address),
    "passwords-everywhere": lambda *where: Flood(*where, 200, _everywhere),
    "slow-reader": lambda *where: Messages(*where, SENDERS, reads=False),
    "slow-reader-one-sender": lambda *where: Messages(*where, 1, reads=False),
    "fast-reader": lambda *where: Messages(*where, SENDERS, reads=True),
}


def main() -> None:
    name, port, services, dsn = sys.argv[1:]
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    ATTACKS[name](int(port), int(services), dsn).run()


if __name__ == "__main__":
    main()
