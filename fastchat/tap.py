"""The only place where the network is put into a process: `twistd fastchat`, and `twistd -y fastchat.tac`.

It reads the environment, looks at what can be known to go wrong, and makes the service. It also decides what a
person sees: on the screen a screenful and warnings; everything else in the log file under the home.
"""

from __future__ import annotations

import atexit
import gc
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

from twisted.application.service import IService
from twisted.internet.error import ReactorNotRunning
from twisted.logger import (
    FileLogObserver,
    FilteringLogObserver,
    ILogObserver,
    LogEvent,
    Logger,
    LogLevel,
    LogLevelFilterPredicate,
    LogPublisher,
    eventAsText,
    textFileLogObserver,
)
from twisted.python.components import Componentized
from twisted.python.logfile import LogFile
from twisted.python.usage import Options as TwistedOptions

from fastchat.config import Config, load
from fastchat.errors import ConfigError
from fastchat.services.network import NetworkService, Running
from fastchat.services.preflight import Hold, preflight
from fastchat.steady import keep_time

LOG_SIZE = 8 * 1024 * 1024
LOG_FILES = 5


class Options(TwistedOptions):
    """What `twistd fastchat --help` says: there is nothing to choose on the command line."""

    synopsis = ""
    longdesc = (
        "Runs a FastChat network: PostgreSQL, a balancer and its chat services, in this process. Environment: "
        "FASTCHAT_HOME is the folder that everything is kept in (default: var). FASTCHAT_PORT is the balancer's port "
        "(default: 7400); the chat services take the ones after it, and operations the one 80 after it. "
        "FASTCHAT_CONFIG names a fastchat.toml; `python -m fastchat.config` prints one with every key."
    )


class FastChat(NetworkService):
    """The network as twistd runs it. It brings its own log to the application that it becomes a part of."""

    log = Logger()

    def __init__(self, config: Config, hold: Hold, reactor: Any, own_log: bool) -> None:
        super().__init__(config, reactor, self._running, self._failed)
        self._hold = hold
        self._own_log = own_log
        self._exit = ExitCode()

    def setServiceParent(self, parent: Any) -> None:
        super().setServiceParent(parent)  # type: ignore[no-untyped-call]
        if self._own_log and isinstance(parent, Componentized):
            parent.setComponent(ILogObserver, observer(self._config))  # type: ignore[no-untyped-call]

    def startService(self) -> None:
        # A turn later: only then has the reactor installed its own handlers.
        self._reactor.callLater(0, stop_on_signals, self._reactor)
        self._reactor.callLater(0, restart_on_hangup, self._reactor, self.restart_services)
        super().startService()

    def _running(self, running: Running) -> None:
        self.log.info("all services answer")
        # What is here now stays, and messages make garbage without cycles: looking for some after every few hundred
        # objects costs 5 to 8 % of the time of a busy server (make bench). A connection that ends leaves some fifty.
        gc.collect()
        gc.freeze()
        gc.set_threshold(10_000, 50, 50)
        # twistd has put its log in the place of sys.stdout.
        print(screenful(self._config, running), file=sys.__stdout__, flush=True)

    def _failed(self, line: str) -> None:
        self._exit.code = 1
        self.log.critical("{line}", line=line)
        # Later: a reactor that has just begun to start cannot be stopped.
        self._reactor.callWhenRunning(_stop, self._reactor)


class ExitCode:
    """What this process says to the one that started it. twistd always says 0 after its reactor has run, and removes
    its pid file on the way; so this comes after twistd, as the last thing of all."""

    def __init__(self) -> None:
        self.code = 0
        atexit.register(self._leave)

    def _leave(self) -> None:
        if self.code:
            for stream in (sys.__stdout__, sys.__stderr__):
                if stream is not None:
                    stream.flush()
            os._exit(self.code)


def make_service(environ: Any, own_log: bool = True) -> IService:
    """The network that `environ` asks for. Ends the process with one line and exit code 1 if it cannot run."""
    from twisted.internet import reactor

    try:
        config = load(environ)
        hold = preflight(config)
        keep_time(reactor)
        service: Any = FastChat(config, hold, reactor, own_log)
    except ConfigError as error:
        raise SystemExit(f"fastchat: {error.message}") from None
    return service  # type: ignore[no-any-return]


def makeService(options: Any) -> IService:
    """For the plugin. A log that was asked for on twistd's command line comes before our own."""
    twistd = options.parent or {}
    return make_service(os.environ, own_log=not (twistd.get("logfile") or twistd.get("logger") or twistd.get("syslog")))


def stop_on_signals(reactor: Any) -> None:
    """Let SIGTERM and Ctrl-C be an ordinary end, with exit code 0: twistd would end by the signal, and `make` report an
    error."""

    def asked(number: int, frame: object) -> None:
        # Once: a second one must not cut short what the first one began.
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, signal.SIG_IGN)
        reactor.callFromThread(_stop, reactor)

    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, asked)


def restart_on_hangup(reactor: Any, restart: Callable[[], None]) -> None:
    """Let SIGHUP be a rolling restart; but the end, if it comes because the terminal is gone in which this began."""
    ends_with_terminal = _has_terminal() and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN

    def hung_up(number: int, frame: object) -> None:
        if ends_with_terminal and not _has_terminal():
            os.kill(os.getpid(), signal.SIGTERM)
        else:
            reactor.callFromThread(restart)

    signal.signal(signal.SIGHUP, hung_up)


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True


def _stop(reactor: Any) -> None:
    try:
        reactor.stop()
    except ReactorNotRunning:
        Logger().debug("interrupted while stopping")


# --- what a person sees ----------------------------------------------------------------------------------------------


def observer(config: Config) -> ILogObserver:
    """Everything from `log_level` on to the log file; warnings, a line each, to the screen."""
    folder = config.home / "log"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        file: Any = LogFile(  # type: ignore[no-untyped-call]
            "fastchat.log", str(folder), LOG_SIZE, defaultMode=0o600, maxRotatedFiles=LOG_FILES
        )
    except OSError as error:
        raise SystemExit(f"fastchat: {folder}: cannot be written to: {error.strerror}") from None
    level = LogLevel.levelWithName(config.log_level)
    screen = FileLogObserver(_screen(), _line)
    return LogPublisher(
        FilteringLogObserver(textFileLogObserver(file), [LogLevelFilterPredicate(level)]),
        FilteringLogObserver(screen, [LogLevelFilterPredicate(LogLevel.warn)]),
    )


def _screen() -> TextIO:
    stream = sys.__stderr__
    if stream is None:
        raise SystemExit("fastchat: there is no standard error to write to")
    return stream


def _line(event: LogEvent) -> str:
    text = eventAsText(event, includeTraceback=False, includeTimestamp=False, includeSystem=False)
    return f"fastchat: {' '.join(text.split())}\n"


def screenful(config: Config, running: Running) -> str:
    """What runs where, how people get in, and what to type next."""
    host, services = config.host, running.services
    where = f"{host}:{services[0]}"
    if len(services) > 1:
        where = f"{host}, ports {', '.join(str(port) for port in services)}"
        if services == tuple(range(services[0], services[0] + len(services))):
            where = f"{host}:{services[0]} to {services[-1]}"
    lines = [
        "",
        "FastChat is running.",
        "",
        f"  balancer        {host}:{running.balancer}  ({config.strategy})",
        f"  chat services   {where}",
        f"  operations      http://127.0.0.1:{running.operations}/status  and  /healthz",
        f"  database        {running.database}",
        f"  state           {config.home}",
        f"  log             {config.home / 'log' / 'fastchat.log'}",
        "",
        f"The invite link, also in {config.home / 'invite'}:",
        "",
        f"  {running.link}",
        "",
        "Next, in another terminal:",
        "",
        f"  {_command()} join {running.link} --as alice",
        "",
    ]
    if config.advertised_host in ("127.0.0.1", "::1", "localhost"):
        lines += ["Only this machine can reach it: set host (and public_host) in a fastchat.toml for others.", ""]
    lines.append("Ctrl-C stops it.")
    return "\n".join(lines)


def _command() -> str:
    """How `fastchat` is called from where we are."""
    command = Path(sys.executable).with_name("fastchat")
    here = Path.cwd()
    return str(command.relative_to(here) if command.is_relative_to(here) else command)
