"""Files, from the command line: sent, fetched and gone on with, each until it is done or never will be.

What is to be sent is read and encrypted first, and noted in the vault; from there it goes on sooner or later, whatever
becomes of this process. As with other errands, this process connects, or looks on while the one does that is connected
with this profile.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from twisted.internet.defer import CancelledError

from fastchat.errors import FastChatError, RequestError, by_code
from fastchat_client import files
from fastchat_client.errands import Errand, conversation_of, outgoing, see_through, wait_for
from fastchat_client.events import Disconnected, Event, FileSaved, FileSent, Moving, TransferFailed, TransferProgress
from fastchat_client.groups import resolve
from fastchat_client.messenger import Messenger
from fastchat_client.once import say
from fastchat_client.profile import Profile, ProfileInUse
from fastchat_client.running import Running, run
from fastchat_client.terminal.bars import Bars
from fastchat_client.terminal.render_files import percent
from fastchat_client.vault import Vault

AGAIN = "run the same command again, or: fastchat transfers --resume"
LATER = "goes on when FastChat runs next"
MOST_NAMED = 5
"""Files that failed, too, in one line."""


@dataclass(frozen=True)
class Wanted:
    """Files to be sent, each in a message of its own; `text` and `reply` go with the first. `original`: pictures as
    they are."""

    where: str
    paths: Sequence[Path]
    text: str = ""
    reply: str = ""
    original: bool = False


class Files:
    """One command at work. `saved` is told where a file was saved."""

    def __init__(
        self,
        running: Running,
        profile: Profile,
        vault: Vault,
        bars: Bars,
        saved: Callable[[str], None] = lambda path: None,
    ) -> None:
        self._running = running
        self._profile = profile
        self._vault = vault
        self._bars = bars
        self._saved = saved
        self._messenger: Messenger | None = None
        self._failed: dict[str, FastChatError] = {}
        """By attachment."""
        self._paths: dict[str, str] = {}
        """By message, where its file was saved."""
        self._done: dict[str, tuple[str, int, int]] = {}
        """By attachment: its name, and how many bytes of it are there."""
        self._gone: dict[str, int] = {}

    # --- the three things that can be done -------------------------------------------------------------------------

    async def send(self, wanted: Wanted, seconds: float | None, *, connects: bool) -> int:
        """Done once the messages that tell of the files cannot be lost any more."""
        noted: dict[str, Path] = {}
        errand = Errand(lambda: None, "what is prepared is kept", "nothing was sent", later=LATER)
        to = ""

        def outcome() -> int | FastChatError | None:
            under_way = self._under_way()
            waits = False
            for attachment, path in noted.items():
                message = files.message_with(self._vault, attachment)
                if message:
                    state = outgoing(self._vault, message, to).outcome()
                    if isinstance(state, FastChatError):
                        return state
                    waits |= state is None
                elif problem := self._problem(attachment, under_way):
                    return type(problem)(f"{path.name} was not sent: {problem.message}")
                else:
                    waits = True
            return None if waits else 0

        async def begin(messenger: Messenger) -> Errand:
            self._messenger = messenger
            for number, path in enumerate(wanted.paths):
                first = number == 0
                attachment = await messenger.send_file(
                    to,
                    path,
                    wanted.text if first else "",
                    original=wanted.original,
                    reply=wanted.reply if first else "",
                    progress=lambda done, size, name=path.name: self._bars.preparing(name, done, size),  # type: ignore[misc]
                )
                noted[attachment] = path
            return Errand(outcome, "it is kept", "nothing more is sent", to, LATER)

        def kept() -> str:
            left = [path.name for path in wanted.paths if path not in noted.values()]
            lines = [self._kept_of(attachment, path.name, up=True) for attachment, path in noted.items()]
            lines += [f"nothing of {name} was sent" for name in left] if noted else ["nothing was sent"]
            return "; ".join([*lines, *[AGAIN] * bool(noted)])

        async def main() -> int:
            nonlocal to
            if connects:
                to = await conversation_of(self._running, self._profile, self._vault, wanted.where, seconds)
                return await self._see_through(errand, begin, seconds)
            to = resolve(self._vault, wanted.where)
            return await self._look_on(begin, seconds)

        return await self._to_its_end(main(), kept)

    async def fetch(self, messages: Sequence[str], directory: Path, seconds: float | None, *, connects: bool) -> int:
        """Done once each is saved in `directory`."""
        wanted = {one.message: one for message in messages if (one := files.stored_file(self._vault, message))}
        errand = Errand(lambda: None, "it is kept", "nothing was fetched", later=LATER)

        def outcome() -> int | FastChatError | None:
            under_way = self._under_way()
            waits = False
            failed: list[tuple[str, FastChatError]] = []
            for message, one in wanted.items():
                if message in self._paths:
                    continue
                problem = self._problem(one.file.attachment, under_way)
                if problem is None:
                    waits = True
                elif one.file.attachment in self._failed:
                    failed.append((one.file.name, type(problem)(f"was not fetched: {problem.message}")))
                else:
                    # Another process has seen to it.
                    now = files.stored_file(self._vault, message)
                    if now is None or not now.path or Path(now.path).parent != directory:
                        elsewhere = RequestError("was not fetched; the process that is connected said why")
                        failed.append((one.file.name, elsewhere))
                    else:
                        self._was_saved(message, now.path)
            if waits or not failed:
                return None if waits else 0
            name, why = failed[0]
            others = [name for name, _ in failed[1:]]
            more = f"; not fetched either: {', '.join(others[:MOST_NAMED])}" if others else ""
            return type(why)(f"{name} {why.message}{more}{', …' * (len(others) > MOST_NAMED)}")

        async def begin(messenger: Messenger) -> Errand:
            self._messenger = messenger
            for message, one in wanted.items():
                try:
                    messenger.fetch(message, directory)
                except FastChatError as problem:
                    # Of several, the others can be fetched.
                    self._failed[one.file.attachment] = problem
            return Errand(outcome, "it is kept", "nothing more is fetched", later=LATER)

        def kept() -> str:
            left = [one for message, one in wanted.items() if message not in self._paths]
            return "; ".join([*(self._kept_of(one.file.attachment, one.file.name, up=False) for one in left), AGAIN])

        main = self._see_through(errand, begin, seconds) if connects else self._look_on(begin, seconds)
        return await self._to_its_end(main, kept)

    async def resume(self, seconds: float | None, *, connects: bool) -> int:
        """Done once nothing is on its way any more."""
        errand = Errand(lambda: None, "they are kept", "nothing more is done", later="go on when FastChat runs next")

        def outcome() -> int | FastChatError | None:
            # What the disk did not take has failed for now, and stays.
            if self._under_way() - self._failed.keys():
                return None
            for attachment, problem in self._failed.items():
                name = self._done.get(attachment, ("a file", 0, 0))[0]
                return type(problem)(f"{name}: {problem.message}")
            return 0

        async def begin(messenger: Messenger) -> Errand:
            self._messenger = messenger
            return Errand(outcome, errand.waits, errand.undone, later=LATER)

        def kept() -> str:
            return "; ".join([*(f"{name} is kept" for name, *_ in self._done.values()), AGAIN])

        main = self._see_through(errand, begin, seconds) if connects else self._look_on(begin, seconds)
        return await self._to_its_end(main, kept)

    # --- inside ----------------------------------------------------------------------------------------------------

    async def _see_through(self, errand: Errand, begin: Any, seconds: float | None) -> int:
        return await see_through(self._running, self._profile, self._vault, errand, begin, seconds, self._told)

    async def _look_on(self, begin: Any, seconds: float | None) -> int:
        messenger = Messenger(self._profile, self._vault, self._running.reactor, lambda events: None)
        try:
            errand = await begin(messenger)
            say("another process is connected with this profile: it does the rest")
            return await wait_for(self._running, self._vault, errand, seconds)
        finally:
            await messenger.stop()

    async def _to_its_end(self, main: Coroutine[Any, Any, int], kept: Callable[[], str]) -> int:
        try:
            return await main
        except CancelledError:
            self._bars.close()
            say(kept())
            raise
        finally:
            self._bars.close()
            # Only now: on one screen, they and the bars would be in each other's way.
            for path in self._paths.values():
                self._saved(path)

    def _told(self, event: Event) -> None:
        if isinstance(event, TransferProgress):
            self._done[event.attachment] = (event.name, event.done, event.size)
        elif isinstance(event, TransferFailed):
            self._failed[event.attachment] = by_code(event.code)(event.reason)
        elif isinstance(event, Disconnected | Moving):
            self._bars.waiting()
        if isinstance(event, FileSaved) and event.auto:
            return
        if isinstance(event, TransferProgress | FileSent | FileSaved | TransferFailed):
            self._bars.event(event)
        if isinstance(event, FileSaved):
            self._was_saved(event.id, event.path)

    def _was_saved(self, message: str, path: str) -> None:
        self._paths[message] = path

    def _under_way(self) -> set[str]:
        assert self._messenger is not None
        return {one.attachment for one in self._messenger.transfers()}

    def _problem(self, attachment: str, under_way: set[str]) -> FastChatError | None:
        """Why nothing more will become of it, or None. What has gone without a word is given one more look: the word
        may be on its way, or another process may have heard it."""
        if attachment in self._failed:
            return self._failed[attachment]
        self._gone[attachment] = 0 if attachment in under_way else self._gone.get(attachment, 0) + 1
        return RequestError("it was cancelled, or refused") if self._gone[attachment] > 1 else None

    def _kept_of(self, attachment: str, name: str, *, up: bool) -> str:
        _, done, size = self._done.get(attachment, (name, 0, 0))
        where = "on the network" if up else "here"
        return f"{name} is kept, {percent(done, size)} % of it is {where}" if size else f"{name} is kept"


def carry_out(profile: Profile, main: Callable[[Running, bool], Coroutine[Any, Any, int]]) -> int:
    """Run it in the way that the profile's lock allows: `main` is told whether it may connect."""
    try:
        with profile.locked():
            return run(lambda running: main(running, True))
    except ProfileInUse:
        return run(lambda running: main(running, False))
