"""Which mails of a batch share one body: what a group is told is stored once, however many are away.

Both stores go by it. It compares what it is given and knows no table.
"""

from __future__ import annotations

from collections.abc import Sequence

from fastchat.store import Mail


def bodies(batch: Sequence[Mail]) -> tuple[Sequence[Mail], Sequence[int]]:
    """The distinct bodies of a batch in rising `order` of their submissions, each as the first mail that has it; and
    for each mail, in the order of the batch, which of these (from 0) is its own.

    A submission may say the same to all of its recipients or something else to each; who is named in it twice gets two.
    A batch that comes sorted and shares nothing is answered with itself.
    """
    orders = [mail.order for mail in batch]
    if len(set(orders)) == len(orders) and sorted(orders) == orders:  # as almost always, when nobody writes to a group
        return batch, range(len(batch))
    firsts: list[Mail] = []
    numbers: list[int] = []
    newest: dict[int, int] = {}
    recipients: dict[int, set[str]] = {}
    for mail in batch:
        number = newest.get(mail.order)
        if number is not None and _is_same(firsts[number], mail):
            known = recipients.get(number)
            if known is None:
                known = recipients[number] = {firsts[number].recipient}
            if mail.recipient not in known:
                known.add(mail.recipient)
                numbers.append(number)
                continue
        newest[mail.order] = len(firsts)
        numbers.append(len(firsts))
        firsts.append(mail)
    orders = [mail.order for mail in firsts]
    rising = sorted(range(len(orders)), key=orders.__getitem__)
    places = [0] * len(rising)
    for place, number in enumerate(rising):
        places[number] = place
    return [firsts[number] for number in rising], [places[number] for number in numbers]


def _is_same(first: Mail, mail: Mail) -> bool:
    return (first.n, first.device, first.user) == (mail.n, mail.device, mail.user) and first.body == mail.body
