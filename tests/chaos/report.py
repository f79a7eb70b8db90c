"""What the history checker answers with."""

from __future__ import annotations

from dataclasses import dataclass, field

KINDS = ("lost", "duplicated", "out_of_order", "corrupted", "phantom")


@dataclass(frozen=True)
class Report:
    """Texts that the senders' vaults say were sent, and those of them that the network accepted; texts in the
    recipients' vaults; the five numbers; what is still in an outbox. `due`: how many copies follow from what was
    accepted, one for each recipient. `to_groups`, `from_groups`: texts that were sent to groups, and copies that came
    of them; `statements`: of all groups. `shown`: texts in the journals. Marks (delivered, read), keys of groups and
    the like are messages as well: they can be lost, too, or be phantoms, and wait; acts on groups can wait, too.
    `files`: messages with one, which are not among the texts; `files_due` and `files_saved`: one for each recipient."""

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
    due: int = 0
    to_groups: int = 0
    from_groups: int = 0
    statements: int = 0
    files: int = 0
    files_due: int = 0
    files_saved: int = 0
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
