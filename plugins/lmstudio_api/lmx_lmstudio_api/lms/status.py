"""``lms status`` and ``lms version``."""

from __future__ import annotations

from lmx_kernel import __version__
from lmx_kernel.cli.client import Client
from lmx_kernel.cli.terminal import AsJson, print_json
from lmx_kernel.memory.sizes import format_bytes
from lmx_lmstudio_api.lms.daemon import find_running, port_of
from lmx_lmstudio_api.lms.models_here import loaded
from lmx_lmstudio_api.lms.output import NORMAL, Output


def overview(*, output: Output = NORMAL) -> None:
    """Say whether the server runs, and what is loaded."""
    running = find_running()
    if running is None:
        output.say("Server: OFF\n\nTo start it: lms server start")
        return
    output.say(f"Server: ON (port: {port_of(running)})\n")
    models = loaded(Client.find())
    output.say("Loaded Models" if models else "No Models Loaded")
    for one in models:
        output.say(f"  · {one['identifier']} - {format_bytes(one['sizeBytes'])}")


def version(*, json: AsJson = False) -> None:
    """Print the version of LMX."""
    if json:
        print_json({"version": __version__})
    else:
        NORMAL.say(f"lms of LMX {__version__}")
