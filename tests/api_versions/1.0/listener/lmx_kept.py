"""Writes every event of the kernel to a file in LMX's own folder, as a line of JSON."""

from __future__ import annotations

import time
from typing import Any

import msgspec

from lmx_kernel.api import Context, KernelEvent, hookimpl


@hookimpl
def lmx_event(event: KernelEvent, context: Context) -> None:
    """Called for each event, in order, in a thread of its own: it may take its time.

    Events that wait too long are dropped; after three errors in a row it is called no more.
    """
    line: dict[str, Any] = {"at": time.time(), "event": type(event).__name__}
    line |= msgspec.to_builtins(event)
    with (context.home / "kept.jsonl").open("ab") as file:
        file.write(msgspec.json.encode(line) + b"\n")
