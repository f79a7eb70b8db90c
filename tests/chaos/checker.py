"""The history checker: what every client says it sent and received, and whether that can be true.

It reads the clients' vaults, table by table, and their journals of what was shown; it believes nothing else and uses
no code of the product. Where two places in a vault disagree it believes the one that is worse for the product. It must
not know what faults there were: what one of them explains is handed in (`explained`).

Journals are JSON lines, one for each event, written after the client has told of it:

    {"shown": text, "from": user}         a message on the screen
    {"unreadable": reason, "from": user}  a placeholder on the screen
    {"sent": text}                        `send` has returned, so this text is in the vault

A kill may take a journal's last lines, and cut one: what is not in a journal proves nothing, what is there proves much.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from tests.chaos.clients import ACCEPTED, FAILED, HAS_IT, Client, OutboxRow, Person, Row, Sent
from tests.chaos.texts import Said, read

__all__ = ["KINDS", "Person", "Report", "check"]

KINDS = ("lost", "duplicated", "out_of_order", "corrupted", "phantom")
EXAMPLES = 5
"""Of each kind in a report."""


@dataclass(frozen=True)
class Report:
    """Texts that the senders' vaults say were sent, and those of them that the network accepted; texts in the
    recipients' vaults; the five numbers; what is still in an outbox. `shown`: texts in the journals. Marks (delivered,
    read) are messages as well: they can be lost, too, or be phantoms, and wait."""

    sent: int
    accepted: int
    received: int
    lost: int
    duplicated: int
    out_of_order: int
    corrupted: int
    phantom: int
    waiting: int
    shown: int = 0
    examples: list[str] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        return self.waiting == 0 and not any(getattr(self, kind) for kind in KINDS)

    def __str__(self) -> str:
        numbers = ", ".join(f"{kind.replace('_', ' ')} {getattr(self, kind)}" for kind in KINDS)
        head = (
            f"sent {self.sent}, accepted {self.accepted}, received {self.received}, waiting {self.waiting}: {numbers}"
        )
        return "\n".join([head, *self.examples])


def check(people: Sequence[Person], explained: Collection[str] = ()) -> Report:
    """Judge what these clients have. They need not have stopped, but then messages under way count as lost or waiting.

    `explained`: reasons of failed messages that the run expects; such a message may be missing at its recipient.
    Raises `ValueError` if two people share a name or a device, or a vault is somebody else's; `FileNotFoundError`.
    """
    clients = {person.user: Client(person) for person in people}
    if len(clients) < len(people) or len({client.device for client in clients.values()}) < len(people):
        raise ValueError("two clients have one name or one device")
    history = _History(clients, explained)
    for client in clients.values():
        history.judge_sender(client)
    for client in clients.values():
        history.judge_recipient(client)
        history.judge_journal(client)
        history.judge_names(client)
    for client in clients.values():
        history.judge_arrivals(client)
    return history.report()


class _History:
    """All clients together, and what was found. A finding is counted once for its kind and key."""

    def __init__(self, clients: dict[str, Client], explained: Collection[str]) -> None:
        self._clients = clients
        self._by_device = {client.device: client for client in clients.values()}
        self._explained = frozenset(explained)
        self._found: dict[str, dict[object, str]] = {kind: {} for kind in KINDS}
        self._waiting: dict[object, str] = {}
        self._shown = 0

    def _finding(self, kind: str, key: object, what: str) -> None:
        self._found[kind].setdefault(key, what)

    # --- what a sender says ------------------------------------------------------------------------------------------

    def judge_sender(self, me: Client) -> None:
        for number, damage in enumerate(me.damage):
            self._finding("corrupted", (me.user, "file", number), f"{me.user}'s vault: {damage}")
        rows = {row.n: row for row in me.history if row.device == me.device}
        last: Counter[str] = Counter()
        for n in sorted(rows):
            said = self._judge_sent(me, rows[n])
            if said is None:
                continue
            for gone in range(last[said.recipient] + 1, said.counter):
                missing = Said(me.user, said.recipient, gone)
                what = f"{_name(missing)}: {me.user}'s vault has #{said.counter} and, before it, not this one"
                self._finding("lost", missing, what)
            if said.counter < last[said.recipient]:
                what = f"{_name(said)} has n {n}; #{last[said.recipient]}, which is later, has a lower one"
                self._finding("out_of_order", said, what)
            last[said.recipient] = max(last[said.recipient], said.counter)
        for box in me.outbox.values():
            self._judge_outbox(me, box, rows.get(box.n))

    def _judge_sent(self, me: Client, row: Row) -> Said | None:
        """What it says it is, if it is the first of its kind."""
        name, said = f"{row.device}.{row.n} in {me.user}'s vault", read(row.text)
        if row.unreadable or said is None or (said.sender, said.recipient) != (me.user, row.conversation):
            self._finding("corrupted", row[1:3], f"{name}, as sent to {row.conversation}: {_cut(row.text)}")
            return None
        if not row.own or row.sender != me.user:
            self._finding("corrupted", row[1:3], f"{name} is from here, but said to be from {row.sender}")
        if row.n >= me.next_n:
            self._finding("lost", row[1:3], f"{name}: this number will be given again, the next is {me.next_n}")
        key = (said.recipient, said.counter)
        if key in me.sent:
            self._finding("duplicated", (*said, "sent", row.n), f"{_name(said)} is {me.sent[key].row.n} and {row.n}")
            return None
        box = me.outbox.get(row.n)
        sent = me.sent[key] = Sent(
            row,
            accepted=row.state in HAS_IT or (box is not None and box.state == ACCEPTED),
            failed=row.state == "failed" or (box is not None and box.state == FAILED),
            waiting=box is not None and box.state < ACCEPTED,
        )
        if sent.waiting:
            self._waiting[me.user, row.n] = f"{_name(said)} ({name}): still in the outbox"
        elif not sent.accepted and not sent.failed:
            self._finding("lost", said, f"{_name(said)} ({name}): {row.state or 'no state'}, but in no outbox")
        elif sent.failed and row.reason not in self._explained:
            self._finding("lost", said, f"{_name(said)} ({name}): failed, {row.reason or 'without a reason'}")
        if said.recipient not in self._clients:
            self._finding("lost", said, f"{_name(said)} ({name}): nobody of that name is in this run")
        return said

    def _judge_outbox(self, me: Client, box: OutboxRow, row: Row | None) -> None:
        name = f"{me.device}.{box.n} in {me.user}'s outbox"
        try:
            content = json.loads(box.content)
            kind, text = content["t"], content.get("text", "")
        except (ValueError, KeyError, TypeError, AttributeError):
            self._finding("corrupted", (me.device, box.n), f"{name}: {box.content[:80]!r}")
            return
        if kind in ("retry", "resent"):
            # The one trace of a message that could not be read at first and was replaced since.
            device, n = (box.device, content.get("n")) if kind == "retry" else (me.device, content.get("n"))
            self._finding("corrupted", (device, n), f"{device}.{n} was sent again: it could not be read ({kind})")
        if not box.shown:
            self._judge_mark(me, box, f"{name}, {kind} for {box.user}")
            return
        said = read(text)
        if row is None:
            key = said or (me.device, box.n)
            self._finding("lost", key, f"{name}, {_cut(text)}: gone from {me.user}'s own history")
            return
        if (text, box.user, box.at) != (row.text, row.conversation, row.at):
            self._finding("corrupted", row[1:3], f"{name} is not what the history says: {_cut(text)}")

    def _judge_mark(self, me: Client, box: OutboxRow, name: str) -> None:
        recipient = self._clients.get(box.user)
        if box.state < ACCEPTED:
            self._waiting[me.user, box.n] = f"{name}: still in the outbox"
        elif box.state == ACCEPTED and recipient is not None and (me.device, box.n) not in recipient.seen:
            self._finding("lost", (me.device, box.n), f"{name}: accepted, and never taken there")

    # --- what a recipient says ---------------------------------------------------------------------------------------

    def judge_recipient(self, me: Client) -> None:
        highest: Counter[str] = Counter()
        for row in me.history:
            if row.device == me.device:
                continue
            said = self._judge_received(me, row)
            if said is None:
                continue
            mine = me.received[said.sender]
            mine[said.counter] += 1
            if mine[said.counter] > 1:
                copy = mine[said.counter]
                what = f"{_name(said)}: copy {copy} in {me.user}'s vault, as {row.device}.{row.n}"
                self._finding("duplicated", (*said, copy), what)
            elif said.counter < highest[said.sender]:
                what = f"{_name(said)} ({row.device}.{row.n}): in {me.user}'s vault after #{highest[said.sender]}"
                self._finding("out_of_order", said, what)
            highest[said.sender] = max(highest[said.sender], said.counter)
        for device, n in me.asked:
            self._finding("corrupted", (device, n), f"{device}.{n} could not be read by {me.user}, and is asked for")

    def _judge_received(self, me: Client, row: Row) -> Said | None:
        """What it says it is, if it is a text to `me` at all."""
        name = f"{row.device}.{row.n} in {me.user}'s vault"
        if row.unreadable:
            self._finding("corrupted", row[1:3], f"{name}, from {row.sender}: unreadable, {row.reason}")
            return None
        said = read(row.text)
        if said is None:
            self._finding("corrupted", row[1:3], f"{name}, from {row.sender}: {_cut(row.text)}")
            return None
        if (said.sender, said.recipient) != (row.sender, me.user) or row.conversation != row.sender or row.own:
            what = f"{name}: shown as from {row.sender} in the conversation with {row.conversation}: {_cut(row.text)}"
            self._finding("corrupted", row[1:3], what)
            return None
        self._judge_origin(me, said, row.text, name)
        sent = self._sent(said)
        if sent is not None and sent.row.text == row.text:
            if (row.device, row.n) != sent.row[1:3]:
                what = f"{name}: {_name(said)}, which its sender knows as {sent.row.device}.{sent.row.n}"
                self._finding("phantom", (*said, row.device, row.n), what)
            elif row.at != sent.row.at:
                self._finding("corrupted", row[1:3], f"{name}: {_name(said)} has another time than at its sender")
        if (row.device, row.n) not in me.seen:
            self._finding("duplicated", (*said, "unseen"), f"{name}: {_name(said)} would be taken a second time")
        return said

    def _judge_origin(self, me: Client, said: Said, text: str, name: str) -> None:
        sent = self._sent(said)
        if sent is None:
            self._finding("phantom", (said, text), f"{name}: {_name(said)}, which is not in its sender's vault")
        elif sent.row.text != text:
            what = f"{name}: {_cut(text)}; its sender's vault has {_cut(sent.row.text)}"
            self._finding("phantom", (said, text), what)

    def _sent(self, said: Said) -> Sent | None:
        sender = self._clients.get(said.sender)
        return None if sender is None else sender.sent.get((said.recipient, said.counter))

    def judge_journal(self, me: Client) -> None:
        shown: dict[str, Counter[int]] = defaultdict(Counter)
        highest: Counter[str] = Counter()
        written = {row.text for row in me.history if row.device == me.device}
        for number, entry in enumerate(me.journal, start=1):
            line = f"line {number} of {me.user}'s journal"
            if "unreadable" in entry:
                self._finding("corrupted", (me.user, "line", number), f"{line}: unreadable, {entry['unreadable']}")
            elif "sent" in entry and entry["sent"] not in written:
                key = read(entry["sent"]) or (me.user, "line", number)
                self._finding("lost", key, f"{line}: {_cut(entry['sent'])} was sent, and is not in {me.user}'s vault")
            if "shown" not in entry:
                continue
            self._shown += 1
            text, sender = entry["shown"], entry.get("from")
            said = read(text)
            if said is None or (said.sender, said.recipient) != (sender, me.user):
                self._finding("corrupted", (me.user, "line", number), f"{line}: from {sender}: {_cut(text)}")
                continue
            self._judge_origin(me, said, text, line)
            shown[said.sender][said.counter] += 1
            if (copy := shown[said.sender][said.counter]) > 1:
                self._finding("duplicated", (*said, copy), f"{_name(said)}: shown {copy} times ({line})")
            elif said.counter < highest[said.sender]:
                what = f"{_name(said)}: shown after #{highest[said.sender]} ({line})"
                self._finding("out_of_order", said, what)
            if not me.received[said.sender][said.counter]:
                self._finding("lost", said, f"{_name(said)}: was shown ({line}), and is not in {me.user}'s vault")
            highest[said.sender] = max(highest[said.sender], said.counter)

    def judge_names(self, me: Client) -> None:
        """What `me` has taken, texts and marks: each a message that its sender's vault has, and has for `me`."""
        for device, n in me.seen:
            sender = self._by_device.get(device)
            if sender is None:
                self._finding("phantom", (device, n, me.user), f"{device}.{n}, taken by {me.user}: nobody's device")
            elif n >= sender.next_n:
                what = f"{device}.{n}, taken by {me.user}: {sender.user}'s vault has not come to it ({sender.next_n})"
                self._finding("phantom", (device, n, me.user), what)
            elif n not in sender.outbox or sender.outbox[n].user != me.user:
                to = f"sent it to {sender.outbox[n].user}" if n in sender.outbox else "has no trace of it"
                what = f"{device}.{n}, taken by {me.user}: {sender.user} {to}"
                self._finding("phantom", (device, n, me.user), what)

    # --- both together -----------------------------------------------------------------------------------------------

    def judge_arrivals(self, sender: Client) -> None:
        """Whether what the network has taken is where it was sent, and nothing that waits was overtaken."""
        newest = {to: max(client.received[sender.user], default=0) for to, client in self._clients.items()}
        for (to, counter), sent in sender.sent.items():
            recipient = self._clients.get(to)
            if recipient is None or recipient.received[sender.user][counter]:
                continue
            said = Said(sender.user, to, counter)
            name = (sender.device, sent.row.n)
            if sent.accepted:
                held = "held unread" if name in recipient.held else "seen" if name in recipient.seen else "never seen"
                what = f"{_name(said)} ({name[0]}.{name[1]}): {sent.row.state}; not in {to}'s vault ({held} there)"
                self._finding("lost", said, what)
            elif sent.waiting and counter < newest[to]:
                what = f"{_name(said)}: waits at {sender.user}, and {to} has #{newest[to]} already"
                self._finding("out_of_order", said, what)

    def report(self) -> Report:
        sent = [one for client in self._clients.values() for one in client.sent.values()]
        findings = {**self._found, "waiting": self._waiting}
        return Report(
            sent=len(sent),
            accepted=sum(one.accepted for one in sent),
            received=sum(counts.total() for client in self._clients.values() for counts in client.received.values()),
            **{kind: len(found) for kind, found in findings.items()},
            shown=self._shown,
            examples=[
                f"{kind.replace('_', ' ')}: {what}"
                for kind, found in findings.items()
                for what in list(found.values())[:EXAMPLES]
            ],
        )


def _name(said: Said) -> str:
    return f"{said.sender}>{said.recipient}#{said.counter}"


def _cut(text: str) -> str:
    """As much of a text as a line of the report has room for."""
    return repr(text if len(text) <= 60 else f"{text[:60]}… ({len(text)} characters)")
