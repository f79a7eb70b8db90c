"""The history checker: what every client says it sent and received, and whether that can be true.

It reads the clients' vaults, table by table, and their journals of what was shown; it believes nothing else and uses
no code of the product. Where two places in a vault disagree it believes the one that is worse for the product. It must
not know what faults there were: what one of them explains is handed in (`explained`).

Journals are JSON lines, one for each event, written after the client has told of it:

    {"started": 1}                              the client has started
    {"shown": text, "from": user, "id": id}     a message on the screen; with "in" if that is in a group's conversation
    {"waits": id, "from": user}                 its place, if its key or what it rests on has not come
    {"unreadable": reason, "from": user}        a placeholder on the screen
    {"file": text}                              a message with a file on the screen, and what is written beside it
    {"attached": text}                          the client has promised to send the file that has this beside it
    {"sent": text}                              `send` has returned, so this text is in the vault
    {"went": n, "length": length}               written before message n leaves for a group whose chain has this length

What goes to a group is due to everybody who was a member at the length of its chain with which the network has accepted
it, and may be had by everybody who was one at any length with which it ever left; who was when, the chain says
(`membership.py`).

A kill may take a journal's last lines, and cut one: what is not in a journal proves nothing, what is there proves much.
So of a group's messages, which may be filled in where they stand already, only the order within one life is believed.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence

from tests.chaos.clients import ACCEPTED, FAILED, HAS_IT, WAITS, Client, OutboxRow, Person, Row, Sent
from tests.chaos.file_judge import FileJudge
from tests.chaos.membership import Membership
from tests.chaos.report import KINDS, Report
from tests.chaos.texts import GROUP, Said, read

__all__ = ["KINDS", "Person", "Report", "check"]

EXAMPLES = 5
"""Of each kind in a report."""


def check(people: Sequence[Person], explained: Collection[str] = ()) -> Report:
    """Judge what these clients have. They need not have stopped, but then messages under way count as lost or waiting.

    `explained`: reasons of failed messages that the run expects; such a message may be missing at its recipient.
    Raises `ValueError` if two people share a name or a device, or a vault is somebody else's; `FileNotFoundError`.
    """
    clients = {person.user: Client(person) for person in people}
    if len(clients) < len(people) or len({client.device for client in clients.values()}) < len(people):
        raise ValueError("two clients have one name or one device")
    history = _History(clients, explained)
    history.judge_groups()
    for client in clients.values():
        history.judge_sender(client)
    for client in clients.values():
        history.judge_recipient(client)
        history.judge_journal(client)
        history.judge_names(client)
    for client in clients.values():
        history.judge_arrivals(client)
    history.judge_files()
    return history.report()


class _History:
    """All clients together, and what was found. A finding is counted once for its kind and key."""

    def __init__(self, clients: dict[str, Client], explained: Collection[str]) -> None:
        self._clients = clients
        self._by_device = {client.device: client for client in clients.values()}
        self._explained = frozenset(explained)
        self._groups = Membership(clients.values())
        self._due = 0
        self._files = FileJudge(clients, self._groups, self._finding)
        self._found: dict[str, dict[object, str]] = {kind: {} for kind in KINDS}
        self._waiting: dict[object, str] = {}
        self._shown = 0

    def _finding(self, kind: str, key: object, what: str) -> None:
        found = self._waiting if kind == "waiting" else self._found[kind]
        found.setdefault(key, what)

    # --- groups ------------------------------------------------------------------------------------------------------

    def judge_groups(self) -> None:
        for number, (user, what) in enumerate(self._groups.damage):
            self._finding("corrupted", (user, "group", number), f"{user}'s vault: {what}")
        for client in self._clients.values():
            for number, act in enumerate(client.acts):
                self._waiting[client.user, "act", number] = f"{client.user} still wants to do to a group: {act}"

    def _judge_length(self, said: Said, row: Row, box: OutboxRow | None, name: str) -> None:
        """Of what went to a group: the chain by which it was encrypted."""
        known = self._groups.length(said.recipient)
        if row.length > known or (box is not None and box.length != row.length):
            what = f"{name}: encrypted by {row.length} statements; there are {known}; its outbox: {box and box.length}"
            self._finding("corrupted", row[1:3], what)

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
        elif sent.failed and not self._is_explained(me, said, row):
            self._finding("lost", said, f"{_name(said)} ({name}): failed, {row.reason or 'without a reason'}")
        if said.is_to_group:
            self._judge_length(said, row, box, name)
        if said.recipient not in self._clients and not self._groups.length(said.recipient):
            self._finding("lost", said, f"{_name(said)} ({name}): nobody of that name is in this run")
        return said

    def _is_explained(self, me: Client, said: Said, row: Row) -> bool:
        """Whether a failure is no fault's: the run expects it, or its sender was in the group no more."""
        return row.reason in self._explained or self._groups.has_been_out(said.recipient, me.user)

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
        if kind == "file":
            return  # `FileJudge` sees to those
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
        if box.state < ACCEPTED:
            self._waiting[me.user, box.n] = f"{name}: still in the outbox"
        for user in self._groups.recipients(me, box) & self._clients.keys() if box.state == ACCEPTED else ():
            if (me.device, box.n) not in self._clients[user].seen:
                self._finding("lost", (me.device, box.n, user), f"{name}: accepted, and never taken by {user}")

    # --- what a recipient says ---------------------------------------------------------------------------------------

    def judge_recipient(self, me: Client) -> None:
        highest: Counter[tuple[str, str]] = Counter()
        for row in me.history:
            if row.device == me.device:
                continue
            said = self._judge_received(me, row)
            if said is None:
                continue
            mine, stream = me.received[said[:2]], said[:2]
            mine[said.counter] += 1
            if mine[said.counter] > 1:
                copy = mine[said.counter]
                what = f"{_name(said)}: copy {copy} in {me.user}'s vault, as {row.device}.{row.n}"
                self._finding("duplicated", (_key(said, me), copy), what)
            elif said.counter < highest[stream]:
                what = f"{_name(said)} ({row.device}.{row.n}): in {me.user}'s vault after #{highest[stream]}"
                self._finding("out_of_order", _key(said, me), what)
            highest[stream] = max(highest[stream], said.counter)
        for device, n in me.asked:
            self._finding("corrupted", (device, n), f"{device}.{n} could not be read by {me.user}, and is asked for")
        for device, n in me.unread:
            self._waiting[me.user, device, n] = f"{device}.{n}: taken by {me.user}, and still cannot be read"

    def _judge_received(self, me: Client, row: Row) -> Said | None:
        """What it says it is, if it is a text to `me` at all."""
        name = f"{row.device}.{row.n} in {me.user}'s vault"
        if row.unreadable == WAITS:
            self._waiting[me.user, row.device, row.n] = f"{name}, from {row.sender}: still waits, {row.reason}"
            return None
        if row.unreadable:
            self._finding("corrupted", row[1:3], f"{name}, from {row.sender}: unreadable, {row.reason}")
            return None
        said = read(row.text)
        if said is None:
            self._finding("corrupted", row[1:3], f"{name}, from {row.sender}: {_cut(row.text)}")
            return None
        if not _is_in_its_place(me, said, row.sender, row.conversation) or row.own:
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
            self._finding("duplicated", (_key(said, me), "unseen"), f"{name}: would be taken a second time")
        return said

    def _judge_origin(self, me: Client, said: Said, text: str, name: str) -> None:
        sent = self._sent(said)
        if sent is None:
            self._finding("phantom", (said, text), f"{name}: {_name(said)}, which is not in its sender's vault")
        elif sent.row.text != text:
            what = f"{name}: {_cut(text)}; its sender's vault has {_cut(sent.row.text)}"
            self._finding("phantom", (said, text), what)
        elif me.user not in self._groups.readers(self._clients[said.sender], sent.row.n, said.recipient):
            self._finding(
                "phantom", (said, me.user), f"{name}: {_name(said)} never went to {me.user}, who was no member"
            )

    def _sent(self, said: Said) -> Sent | None:
        sender = self._clients.get(said.sender)
        return None if sender is None else sender.sent.get((said.recipient, said.counter))

    def judge_journal(self, me: Client) -> None:
        shown: dict[tuple[str, str], Counter[int]] = defaultdict(Counter)
        highest: Counter[tuple[str, str]] = Counter()
        waited = set[str]()
        written = {row.text for row in me.history if row.device == me.device}
        for number, entry in enumerate(me.journal, start=1):
            line = f"line {number} of {me.user}'s journal"
            if "started" in entry:
                highest = Counter({stream: last for stream, last in highest.items() if stream[1] == me.user})
            elif "waits" in entry:
                waited.add(entry["waits"])
            elif "unreadable" in entry:
                self._finding("corrupted", (me.user, "line", number), f"{line}: unreadable, {entry['unreadable']}")
            elif "sent" in entry and entry["sent"] not in written:
                key = read(entry["sent"]) or (me.user, "line", number)
                self._finding("lost", key, f"{line}: {_cut(entry['sent'])} was sent, and is not in {me.user}'s vault")
            if "shown" not in entry:
                continue
            self._shown += 1
            text, sender = entry["shown"], entry.get("from", "")
            said = read(text)
            if said is None or not _is_in_its_place(me, said, sender, entry.get("in", sender)):
                self._finding("corrupted", (me.user, "line", number), f"{line}: from {sender}: {_cut(text)}")
                continue
            self._judge_origin(me, said, text, line)
            stream = said[:2]
            shown[stream][said.counter] += 1
            if (copy := shown[stream][said.counter]) > 1:
                self._finding("duplicated", (_key(said, me), copy), f"{_name(said)}: shown {copy} times ({line})")
            elif said.counter < highest[stream] and entry.get("id") not in waited:
                what = f"{_name(said)}: shown after #{highest[stream]} ({line})"
                self._finding("out_of_order", _key(said, me), what)
            if not me.received[stream][said.counter]:
                what = f"{_name(said)}: was shown ({line}), and is not in {me.user}'s vault"
                self._finding("lost", _key(said, me), what)
            highest[stream] = max(highest[stream], said.counter)

    def judge_names(self, me: Client) -> None:
        """What `me` has taken, texts, marks and keys: each a message that its sender's vault has, and has for `me`."""
        for device, n in me.seen:
            sender = self._by_device.get(device)
            if sender is None:
                self._finding("phantom", (device, n, me.user), f"{device}.{n}, taken by {me.user}: nobody's device")
            elif n >= sender.next_n:
                what = f"{device}.{n}, taken by {me.user}: {sender.user}'s vault has not come to it ({sender.next_n})"
                self._finding("phantom", (device, n, me.user), what)
            elif n not in sender.outbox or me.user not in self._groups.readers(sender, n, sender.outbox[n].user):
                to = f"sent it to {sender.outbox[n].user}" if n in sender.outbox else "has no trace of it"
                what = f"{device}.{n}, taken by {me.user}: {sender.user} {to}"
                self._finding("phantom", (device, n, me.user), what)

    # --- both together -----------------------------------------------------------------------------------------------

    def judge_arrivals(self, sender: Client) -> None:
        """Whether what the network has taken is where it was sent, and nothing that waits was overtaken."""
        for (to, counter), sent in sender.sent.items():
            said = Said(sender.user, to, counter)
            members = self._groups.at(to, {sent.row.length}) - {sender.user}
            for user in (members if said.is_to_group else {to}) & self._clients.keys():
                self._due += sent.accepted
                self._judge_arrival(said, sent, self._clients[user])

    def _judge_arrival(self, said: Said, sent: Sent, recipient: Client) -> None:
        received = recipient.received[said[:2]]
        if received[said.counter]:
            return
        name, user = (sent.row.device, sent.row.n), recipient.user
        if sent.accepted:
            held = "held unread" if name in recipient.held else "seen" if name in recipient.seen else "never seen"
            what = f"{_name(said)} ({name[0]}.{name[1]}): {sent.row.state}; not in {user}'s vault ({held} there)"
            self._finding("lost", _key(said, recipient), what)
        elif sent.waiting and (newest := max(received, default=0)) > said.counter:
            what = f"{_name(said)}: waits at {said.sender}, and {user} has #{newest} already"
            self._finding("out_of_order", _key(said, recipient), what)

    def judge_files(self) -> None:
        self._files.judge()

    def report(self) -> Report:
        sent = [one for client in self._clients.values() for one in client.sent.values()]
        received = [
            (to, counts.total()) for client in self._clients.values() for (_, to), counts in client.received.items()
        ]
        findings = {**self._found, "waiting": self._waiting}
        return Report(
            sent=len(sent),
            accepted=sum(one.accepted for one in sent),
            received=sum(count for _, count in received),
            due=self._due,
            to_groups=sum(one.row.conversation.startswith(GROUP) for one in sent),
            from_groups=sum(count for to, count in received if to.startswith(GROUP)),
            statements=self._groups.statements,
            files=self._files.sent,
            files_due=self._files.due,
            files_saved=self._files.saved,
            **{kind: len(found) for kind, found in findings.items()},
            shown=self._shown,
            examples=[
                f"{kind.replace('_', ' ')}: {what}"
                for kind, found in findings.items()
                for what in list(found.values())[:EXAMPLES]
            ],
        )


def _name(said: Said) -> str:
    return f"{said.sender}>{said.recipient[:9] if said.is_to_group else said.recipient}#{said.counter}"


def _key(said: Said, recipient: Client) -> object:
    """One text for one of those whom it is for."""
    return (*said, recipient.user) if said.is_to_group else said


def _is_in_its_place(me: Client, said: Said, sender: str, conversation: str) -> bool:
    """Whether what says this stands where `me` has it from whom it is from."""
    place = said.recipient if said.is_to_group else said.sender
    return said.sender == sender and conversation == place and (said.is_to_group or said.recipient == me.user)


def _cut(text: str) -> str:
    """As much of a text as a line of the report has room for."""
    return repr(text if len(text) <= 60 else f"{text[:60]}… ({len(text)} characters)")
