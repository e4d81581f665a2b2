"""``lms log stream``."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from lmx_kernel.cli.client import Client
from lmx_kernel.cli.terminal import AsJson, print_json
from lmx_kernel.errors import InvalidRequestError
from lmx_lmstudio_api.lms.output import NORMAL, Output

LOOK_S = 0.5
MAX_LINES = 10_000
_NOT_IN_A_LINE = ("timestamp", "level", "event")


def stream(
    *,
    source: Annotated[
        Literal["model", "server", "runtime"], Parameter(name=("--source", "-s"))
    ] = "server",
    json: AsJson = False,
    output: Output = NORMAL,
) -> None:
    """Print what comes into the server's log, until Ctrl-C.

    Parameters
    ----------
    source
        Only the server: LMX writes no prompts and no answers to its log.
    """
    if source != "server":
        raise InvalidRequestError(
            f"--source {source}: LMX writes no prompts and no answers to its log; "
            "`--source server` has a line for each request"
        )
    try:
        for line in _lines(Client.find()):
            content = _text(line)
            if json:
                data = {"type": "server.log", "level": line["level"], "content": content}
                print_json({"timestamp": _milliseconds(line["timestamp"]), "data": data})
            else:
                output.say(f"{line['timestamp'][:19]} {line['level']:<7} {content}")
    except KeyboardInterrupt:
        return


def _lines(client: Client) -> Iterator[dict[str, Any]]:
    """Yield lines as they come. Those of the last moment come again and are told apart."""
    since, known = datetime.now(UTC).isoformat(), list[dict[str, Any]]()
    while True:
        lines = client.get("/admin/logs", limit=MAX_LINES, since=since)["lines"]
        yield from (line for line in lines if line not in known)
        if lines:
            since = lines[-1]["timestamp"]
            known = [line for line in lines if line["timestamp"] == since]
        time.sleep(LOOK_S)


def _text(line: dict[str, Any]) -> str:
    rest = {key: value for key, value in line.items() if key not in _NOT_IN_A_LINE}
    pairs = (f"{key}={value}" for key, value in rest.items() if value is not None)
    return " ".join([line["event"], *pairs])


def _milliseconds(timestamp: str) -> int:
    return round(datetime.fromisoformat(timestamp).timestamp() * 1000)
