"""The daemon on this machine, as the commands start, find and stop it."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping
from urllib.parse import urlsplit

import psutil

from lmx_kernel.cli.light_config import light_settings
from lmx_kernel.config import find_home
from lmx_kernel.daemon.run_file import Running, answers, read
from lmx_kernel.errors import UnavailableError
from lmx_kernel.http.settings import ServerSettings

LOOK_S = 0.1
BACKGROUND = "lmx_lmstudio_api.lms.background"


def find_running() -> Running | None:
    """Return the daemon of this user that answers, None if there is none."""
    running = read(find_home())
    return running if running is not None and answers(running) else None


def port_of(running: Running | None) -> int:
    """Return the port of a daemon's first address, or the one that the config would have."""
    port = urlsplit(running.url).port if running is not None else None
    return port or light_settings().get(ServerSettings).addresses[0].port


def start_daemon(variables: Mapping[str, str]) -> Running:
    """Start a daemon in the background, and return it when it answers.

    :param variables: of its environment, besides those of this process.
    :raises UnavailableError: it does not start; what it said is the message.
    """
    from lmx_kernel.processes.child import module_command  # noqa: PLC0415 - takes long

    process = subprocess.Popen(  # noqa: S603 - this interpreter, and a module of ours
        module_command(BACKGROUND),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        env={**os.environ, **variables},
    )
    said = _read(process)
    while True:
        has_ended = process.poll() is not None
        if (running := find_running()) is not None:
            process.returncode = 0  # it goes on, and nobody waits for it
            return running
        if has_ended:
            break
        time.sleep(LOOK_S)
    raise UnavailableError(f"the server did not start: {said.strip() or 'it ended at once'}")


def stop_daemon(running: Running) -> None:
    """Let a daemon finish its answers, and return when it has ended."""
    process = psutil.Process(running.pid)
    os.kill(running.pid, signal.SIGTERM)
    process.wait()


def _read(process: subprocess.Popen[bytes]) -> str:
    """Return what it says until it closes its output: it serves, or has ended."""
    assert process.stdout is not None
    with process.stdout as output:
        return output.read().decode(errors="replace")
