"""The end of the log, as data."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from lmx_kernel.observe.log import FILE, Level

BLOCK_BYTES = 64 * 1024
MAX_READ_BYTES = 16 * 1024 * 1024  # of one file, for a filter that few lines pass
LEVELS = ("debug", "info", "warning", "error", "critical")


def read_tail(
    folder: Path,
    limit: int,
    *,
    level: Level = "debug",
    event: str | None = None,
    model: str | None = None,
    request_id: str | None = None,
    since: datetime | None = None,
) -> list[dict[str, Any]]:
    """Return the newest lines that fit, at most ``limit``, oldest first.

    Reads the current file and the one that was put aside last, from their ends. Blocks: call it in
    a thread.

    :param folder: ``logs`` in LMX's own folder.
    :param level: the least one.
    :param since: with a time zone.
    """
    exact = {"event": event, "model": model, "request_id": request_id}
    wanted = {name: value for name, value in exact.items() if value is not None}
    found: list[dict[str, Any]] = []
    for line in _backwards(folder):
        if len(found) == limit or (since and _time(line) < since):
            break
        if _rank(line) >= LEVELS.index(level) and wanted.items() <= line.items():
            found.append(line)
    return found[::-1]


def _backwards(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield the lines from the last one on; those that are no lines of ours are passed over."""
    for name in (FILE, f"{FILE}.1"):
        for text in _lines_backwards(folder / name):
            try:
                line = msgspec.json.decode(text, type=dict[str, Any])
                _time(line)
            except (ValueError, KeyError, TypeError):
                continue
            yield line


def _lines_backwards(path: Path) -> Iterator[bytes]:
    try:
        file = path.open("rb")
    except OSError:
        return
    with file:
        end = file.seek(0, 2)
        stop, rest = max(0, end - MAX_READ_BYTES), b""
        while end > stop:
            start = max(stop, end - BLOCK_BYTES)
            file.seek(start)
            rest, *lines = (file.read(end - start) + rest).split(b"\n")
            yield from reversed(lines)
            end = start
        yield rest


def _time(line: dict[str, Any]) -> datetime:
    return datetime.fromisoformat(line["timestamp"]).astimezone()


def _rank(line: dict[str, Any]) -> int:
    level = line.get("level")
    return LEVELS.index(level) if level in LEVELS else 0
