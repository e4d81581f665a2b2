"""From the command line to an exit status."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import uvloop

from lmx_kernel.config import ConfigError, ConfigMissingError, find_home
from lmx_kernel.daemon import liveness
from lmx_kernel.daemon.checks import check_server
from lmx_kernel.daemon.exit_status import ExitStatus
from lmx_kernel.daemon.home_lock import HomeInUseError, locked_home
from lmx_kernel.daemon.open_files import raise_file_limit
from lmx_kernel.daemon.retry_pause import next_pause_s
from lmx_kernel.daemon.run_file import answers, local_urls, read
from lmx_kernel.daemon.sd_notify import is_journal, notify, watchdog_s
from lmx_kernel.daemon.serve import NAME, serve
from lmx_kernel.http.connection_limits import files_wanted
from lmx_kernel.http.port import AddressNotReadyError, ListenError, PortInUseError, greeting_at
from lmx_kernel.http.settings import ServerSettings
from lmx_kernel.kernel.boot import boot
from lmx_kernel.kernel.safe_mode import CrashLoopGuard
from lmx_kernel.observe.log import empty_full_output
from lmx_kernel.plugins.settings import RequiredPluginError, RequiredPluginLateError
from lmx_kernel.processes.thread_stacks import set_thread_stacks

MAX_OUTPUT_BYTES = 1024 * 1024  # of a supervisor's file, at the start
PLUGIN_PATIENCE_S = 0.25  # for third parties, once LMX's own are loaded; late ones are used later
NOT_YET = (AddressNotReadyError, ConfigMissingError, RequiredPluginLateError)
REFUSALS = (ConfigError, RequiredPluginError, ListenError)


def run(
    config: Path | None = None,
    *,
    is_supervised: bool = False,
    on_ready: Callable[[], None] = lambda: None,
) -> ExitStatus:
    """Serve until told to stop; return the exit status.

    :param is_supervised: a supervisor started this that has neither a watchdog nor a log of its
        own, as launchd has not.
    :param on_ready: called once it serves and has said so.
    """
    home = find_home()
    set_thread_stacks()
    if is_supervised:
        empty_full_output(sys.stderr.fileno(), MAX_OUTPUT_BYTES)
    status = _attempt(home, config, on_ready, is_supervised=is_supervised)
    if status in (ExitStatus.NOT_YET, ExitStatus.IN_USE) and (
        is_supervised or "NOTIFY_SOCKET" in os.environ
    ):
        pause_s = next_pause_s(home)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # the event loop left a handler of its own
        print(f"The next attempt follows in {pause_s:g} s.", flush=True)  # noqa: T201
        time.sleep(pause_s)
    return status


def _attempt(
    home: Path, config: Path | None, on_ready: Callable[[], None], *, is_supervised: bool
) -> ExitStatus:
    guard = CrashLoopGuard(home)
    needs_liveness = is_supervised and not watchdog_s()
    if needs_liveness:
        liveness.arm()
    try:
        with ExitStack() as stack:
            try:
                stack.enter_context(locked_home(home))
            except HomeInUseError as error:
                return _beside_another(home, config, error)
            quiet = is_supervised or is_journal(sys.stderr.fileno())
            booted = boot(
                config,
                guard.begin(),
                log_to_file=True,
                is_supervised=quiet,
                patience_s=PLUGIN_PATIENCE_S,
            )
            keys = check_server(booted)
            server = booted.settings.get(ServerSettings)
            raise_file_limit(files_wanted(server.max_connections))
            uvloop.run(serve(booted, guard, keys, on_ready, needs_liveness=needs_liveness))
    except REFUSALS as error:
        guard.withdraw()
        return _refuse(error)
    finally:
        if needs_liveness:
            liveness.disarm()
    guard.end()
    return ExitStatus.OK


def _refuse(error: Exception) -> ExitStatus:
    """Say why the daemon does not serve; return its exit status."""
    text = str(error)
    if isinstance(error, PortInUseError):
        greeting = greeting_at(error.host, error.port)
        if greeting is not None and greeting.name == NAME:
            text += f" That is an {NAME} of another home or of another user."
    print(text, file=sys.stderr)  # noqa: T201 - for whoever started the daemon
    notify("STATUS=" + text.replace("\n", "; "))
    if isinstance(error, PortInUseError):
        return ExitStatus.IN_USE
    return ExitStatus.NOT_YET if isinstance(error, NOT_YET) else ExitStatus.CONFIG


def _beside_another(home: Path, config: Path | None, error: HomeInUseError) -> ExitStatus:
    """Return the exit status where another daemon holds the home: OK if it serves what this one
    would serve.
    """
    server, running = boot(config).settings.get(ServerSettings), read(home)
    if running is None or not answers(running):
        text = f"{error}, and does not answer: it starts, stops or is stuck."
    elif running.urls == local_urls(server):
        print(f"{NAME} serves at {', '.join(running.urls)} already: nothing to do.")  # noqa: T201
        notify("READY=1", "STATUS=another LMX of this home serves")  # or it would be a failure
        return ExitStatus.OK
    else:
        text = f"{error}, and serves at {running.url}: give this one another LMX_HOME."
    print(text, file=sys.stderr)  # noqa: T201 - for whoever started the daemon
    notify(f"STATUS={text}")
    return ExitStatus.IN_USE
