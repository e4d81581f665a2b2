"""``lms server``."""

from __future__ import annotations

import sys
from typing import Annotated

from cyclopts import Parameter

from lmx_kernel.cli.terminal import AsJson, Flag, print_error, print_json
from lmx_lmstudio_api.lms.daemon import find_running, port_of, start_daemon, stop_daemon
from lmx_lmstudio_api.lms.output import NORMAL, Output

NOT_RUNNING = "The server is not running."


def start(
    *,
    port: Annotated[int | None, Parameter(name=("--port", "-p"))] = None,
    bind: str | None = None,
    cors: Flag = False,
    output: Output = NORMAL,
) -> None:
    """Start the server in the background, and return when it answers.

    Parameters
    ----------
    port
        Instead of the config's `server.port`.
    bind
        An address, instead of the config's `server.host`.
    cors
        Let all web pages use the server.
    """
    wanted = {
        "LMX_SERVER_LISTEN": None if port is bind is None else "[]",
        "LMX_SERVER_PORT": port,
        "LMX_SERVER_HOST": bind,
        "LMX_SERVER_ALLOWED_ORIGINS": '["*"]' if cors else None,
    }
    running = find_running()
    if running is not None:
        output.say(f"The server runs already, on port {port_of(running)}.")
        sys.exit(0 if port in (None, port_of(running)) else 1)
    variables = {name: str(value) for name, value in wanted.items() if value is not None}
    running = start_daemon(variables)
    output.say(f"Success! Server is now running on port {port_of(running)}")


def stop(*, output: Output = NORMAL) -> None:
    """Stop the server; it finishes its answers first."""
    running = find_running()
    if running is None:
        print_error(NOT_RUNNING)
        sys.exit(1)
    stop_daemon(running)
    output.say(f"Stopped the server on port {port_of(running)}.")


def status(*, json: AsJson = False, output: Output = NORMAL) -> None:
    """Say whether the server runs, and on which port."""
    running = find_running()
    port = port_of(running)
    if json:
        print_json({"running": running is not None, "port": port})
    else:
        output.say(f"The server is running on port {port}." if running else NOT_RUNNING)
