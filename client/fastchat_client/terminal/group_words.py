"""What is said of groups, in words that the command line and the chat share. Whatever others have chosen, names above
all, is cleaned here. It knows no vault and no screen.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from fastchat.errors import RequestError
from fastchat_client.events import GroupAlarm, GroupChanged, GroupInvited
from fastchat_client.group_acting import RoleAct
from fastchat_client.groups import GroupInfo
from fastchat_client.terminal.text import clean_line

_SHORT = 9
"""Characters of "#" and an id that tell groups apart."""
_ROLES = ("member", "admin", "owner")
WITH_ARTICLE = {"owner": "an owner", "admin": "an admin", "member": "a member"}


class Labels:
    """What groups are called here. Two of one name, which anybody can bring about, get their ids with it; and so does
    a name that cannot be typed as one word."""

    def __init__(self, infos: Iterable[GroupInfo]) -> None:
        self._infos = {info.conversation: info for info in infos}
        names = [_name(info) for info in self._infos.values()]
        self._unclear = {name for name in names if names.count(name) > 1}

    def __getitem__(self, conversation: str) -> str:
        """The label of a group; any other conversation's is its name."""
        info = self._infos.get(conversation)
        if info is None or not info.name:
            return clean_line(conversation[:_SHORT] if conversation.startswith("#") else conversation, 64)
        name = _name(info)
        return f"{name}/{conversation[1:_SHORT]}" if name in self._unclear else name

    def info(self, conversation: str) -> GroupInfo | None:
        return self._infos.get(conversation)

    @property
    def infos(self) -> list[GroupInfo]:
        return list(self._infos.values())

    @property
    def typed(self) -> list[str]:
        """The groups that one can do something in, as they are typed."""
        open_ones = [info for info in self._infos.values() if not info.deleted and info.role != "gone"]
        return [self.as_typed(info.conversation) for info in open_ones]

    def as_typed(self, conversation: str) -> str:
        """What one types to name it."""
        label = self[conversation]
        return conversation[:_SHORT] if " " in label or "/" in label else label


def _name(info: GroupInfo) -> str:
    return f"#{clean_line(info.name.lstrip('#'), 64)}"


def usable_name(name: str) -> str:
    """A name for a group, without the "#". Raises `RequestError` if it could not be typed where a group is meant."""
    name = name.removeprefix("#")
    if not name or name != clean_line(name) or " " in name or "/" in name or "#" in name or len(name) > 64:
        raise RequestError("a group's name is one word of at most 64 characters, without # and /: try my-group")
    return name


def role_changed(info: GroupInfo, who: str, *, up: bool) -> RoleAct:
    """The act that makes `who` more, or less: member, admin, owner. Raises `RequestError`."""
    role = dict(info.members).get(who)
    if role is None:
        raise RequestError(f"{who} is no member")
    at = _ROLES.index(role) + (1 if up else -1)
    if not 0 <= at < len(_ROLES):
        raise RequestError(f"{who} is {WITH_ARTICLE[role]} already; there is nothing {'above' if up else 'below'} that")
    return RoleAct(who, _ROLES[at])  # type: ignore[arg-type]


def people(info: GroupInfo) -> str:
    """How many are in it."""
    count = len(info.members)
    return "1 member" if count == 1 else f"{count:,} members"


def history_given(days: int, who: str) -> str:
    """What somebody will read of what was said before."""
    if not days:
        return f"once joined, {who} reads what is written from then on"
    return f"once joined, {who} reads the last {'day' if days == 1 else f'{days} days'} too"


def changed(event: GroupChanged, me: str) -> str:
    """What has become of a group."""
    actor, who = _you(event.actor, me), _you(event.who, me)
    text = clean_line(event.text, 600)
    match event.kind:
        case "created":
            return f"{actor} made the group"
        case "invited":
            return f"{actor} invited {who}" + (f"; {history_given(int(text), who)}" if text.isdecimal() else "")
        case "joined":
            return f"{actor} joined"
        case "left":
            return f"{actor} left; what is written from now on is not for {_them(event.actor, me)}"
        case "removed":
            return f"{actor} removed {who}; what is written from now on is not for {_them(event.who, me)}"
        case "role":
            return f"{actor} made {who} {WITH_ARTICLE.get(text, text)}"
        case "title":
            return f"{actor} named the group {text}" if text else f"{actor} gave the group another name or topic"
        case "deleted":
            return f"{actor} deleted the group; nothing can be written in it any more"
        case other:
            return f"{actor}: {clean_line(other, 40)} {who} {text}".rstrip()


def invited(event: GroupInvited, label: str) -> str:
    """That one is invited, without what to type."""
    topic = f'"{clean_line(event.topic, 120)}", ' if event.topic else ""
    count = "1 member" if event.members == 1 else f"{event.members:,} members"
    given = f", with the last {event.history} days" if event.history > 1 else ", with the last day" * event.history
    return f"{clean_line(event.sender, 64)} invites you to {label} ({topic}{count}){given}"


_MEANINGS = {
    "group-forged": "a change of the group came that nobody who may has signed",
    "group-replayed": "an old change of the group came again as if it were new",
    "group-withheld": "a change of the group that others know of is kept back from you",
    "group-forked": "members of the group are shown different histories of who is in it",
    "group-outsider": "a message came of, or was to go to, somebody who is no member",
}


def alarm(event: GroupAlarm, label: str) -> tuple[str, str]:
    """What is the matter, and what it means with what to do."""
    what = _MEANINGS.get(event.code, "the server makes this group something that its members have not agreed on")
    source = "" if event.proof else "A member says so, who may be mistaken or lie. "
    return (
        f"ALARM in {label}: {what} ({clean_line(event.code, 40)}).",
        f"{clean_line(event.reason)}. {source}Nothing of it was believed: who is in the group, and who can read it, is "
        "as before. Tell the others in another way, and compare whom each of you sees as members.",
    )


def refused(code: str, reason: str, label: str) -> str:
    """Why an act was not done, and what to do about it."""
    reason = clean_line(reason).rstrip(".")
    if code == "group-changed":
        return f"{label}: {reason}; type it again if you still want it"
    return f"{label}: {reason}"


def _you(user: str, me: str) -> str:
    return "you" if user == me else clean_line(user, 64)


def _them(user: str, me: str) -> str:
    return "you" if user == me else "them"


def listed(users: Sequence[tuple[str, str]], most: int = 0) -> str:
    """(user, role) as "alice (owner), bob": who is just a member has nothing behind the name."""
    shown = users[:most] if most else users
    names = [clean_line(user, 64) + (f" ({role})" if role != "member" else "") for user, role in shown]
    more = [f"and {len(users) - len(shown):,} more"] if len(users) > len(shown) else []
    return ", ".join(names + more)
