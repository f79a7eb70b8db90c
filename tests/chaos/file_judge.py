"""What the history checker says of files: each that was promised is sent, once, to whom it is for, and is whole there.

The files themselves are read from the disk, and compared with the hash that is written beside them. Between files, and
between files and texts, no order is promised: a message with a file goes out when all of the file is on the network.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.chaos.clients import ACCEPTED, FAILED, HAS_IT, Client, FileRow
from tests.chaos.membership import Membership
from tests.chaos.texts import GROUP, read_caption

Finding = Callable[[str, object, str], None]
"""Told of each: its kind, or "waiting"; its key; and the thing in words."""


class FileJudge:
    """`due` and `saved`: files that follow from what was accepted, one for each recipient, and files that are there."""

    def __init__(self, clients: Mapping[str, Client], groups: Membership, finding: Finding) -> None:
        self._clients = clients
        self._groups = groups
        self._finding = finding
        self.sent = self.due = self.saved = 0

    def judge(self) -> None:
        for client in self._clients.values():
            self._judge_promised(client)
            for row in client.files:
                if row.device == client.device:
                    self._judge_sent(client, row)
                else:
                    self._judge_received(client, row)
            self._judge_twice(client)

    def _judge_promised(self, me: Client) -> None:
        sent = Counter(row.text for row in me.files if row.device == me.device)
        for text in me.attached:
            said = read_caption(text)
            if text in me.uploads:
                self._finding("waiting", (me.user, text), f"{text}: promised by {me.user}, and not on the network yet")
            elif not sent[text] and not (said and self._groups.has_been_out(said.recipient, me.user)):
                self._finding("lost", (text, "promised"), f"{text}: promised by {me.user}, and in no message")
        numbers = {row.n for row in me.files if row.device == me.device}
        for box in me.outbox.values():
            if box.n not in numbers and box.shown and _kind(box.content) == "file":
                self._finding("lost", (me.device, box.n), f"{me.device}.{box.n}: gone from {me.user}'s own history")

    def _judge_sent(self, me: Client, row: FileRow) -> None:
        self.sent += 1
        name, said, box = f"{row.device}.{row.n} in {me.user}'s vault", read_caption(row.text), me.outbox.get(row.n)
        if said is None or said[:2] != (me.user, row.conversation) or not row.own or row.n >= me.next_n:
            self._finding("corrupted", (row.device, row.n), f"{name}, a file to {row.conversation}: {row.text!r}")
        elif row.state in HAS_IT or (box is not None and box.state == ACCEPTED):
            to = {row.conversation}
            if row.conversation.startswith(GROUP):
                to = set(self._groups.at(row.conversation, {row.length}) - {me.user})
            for user in to & self._clients.keys():
                self.due += 1
                self._judge_arrival(row, self._clients[user])
        elif box is not None and box.state < ACCEPTED:
            self._finding("waiting", (me.user, row.n), f"{row.text} ({name}): still in the outbox")
        elif not self._groups.has_been_out(row.conversation, me.user):
            state = "failed" if box is not None and box.state == FAILED else row.state
            self._finding("lost", (row.text, "failed"), f"{row.text} ({name}): {state}, {row.reason}")

    def _judge_arrival(self, sent: FileRow, recipient: Client) -> None:
        theirs = [row for row in recipient.files if (row.device, row.n) == (sent.device, sent.n)]
        if not theirs:
            what = f"{sent.text} ({sent.device}.{sent.n}): {sent.state}, and not in {recipient.user}'s vault"
            self._finding("lost", (sent.text, recipient.user), what)
        elif theirs[0].path is None:
            what = f"{sent.text} ({sent.device}.{sent.n}): {recipient.user} could not fetch the file"
            self._finding("lost", (sent.text, recipient.user), what)

    def _judge_received(self, me: Client, row: FileRow) -> None:
        name, said = f"{row.device}.{row.n} in {me.user}'s vault", read_caption(row.text)
        place = row.conversation if row.conversation.startswith(GROUP) else me.user
        if said is None or said[:2] != (row.sender, place) or row.own:
            what = f"{name}: a file as from {row.sender} in the conversation with {row.conversation}: {row.text!r}"
            self._finding("corrupted", (row.device, row.n, me.user), what)
            return
        sender = self._clients.get(row.sender)
        origin = () if sender is None else [one for one in sender.files if one[:4] == row[:4]]
        if sender is None or not origin:
            self._finding("phantom", (row.text, me.user), f"{name}: {row.text}, which is not in its sender's vault")
        elif me.user not in self._groups.readers(sender, row.n, place):
            self._finding("phantom", (row.text, me.user), f"{name}: {row.text} never went to {me.user}")
        if (row.device, row.n) not in me.seen:
            self._finding("duplicated", (row.text, me.user, "unseen"), f"{name}: would be taken a second time")
        if row.path is not None:
            self.saved += 1
            self._judge_content(said.digest, row, Path(row.path.decode()), name)

    def _judge_content(self, digest: str, row: FileRow, path: Path, name: str) -> None:
        try:
            data = path.read_bytes()
        except OSError as error:
            self._finding("lost", (row.text, name, "file"), f"{name}: saved as {path}: {error.strerror}")
            return
        if hashlib.sha256(data).hexdigest() != digest:
            what = f"{name}: {path} has {len(data)} bytes, which are not those that {row.sender} sent ({row.size})"
            self._finding("corrupted", (row.text, name, "file"), what)

    def _judge_twice(self, me: Client) -> None:
        in_vault = Counter((row.device == me.device, row.text) for row in me.files)
        shown = Counter((False, entry["file"]) for entry in me.journal if "file" in entry)
        for where, counts in (("in the vault", in_vault), ("shown", shown)):
            for (_, text), times in counts.items():
                if times > 1:
                    self._finding("duplicated", (text, me.user, where), f"{text}: {times} times {where} of {me.user}")


def _kind(content: bytes) -> str:
    try:
        return str(json.loads(content)["t"])
    except (ValueError, KeyError, TypeError):
        return ""
