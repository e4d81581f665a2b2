"""Logs: one structured line per thing that happened, JSON in files and readable on a terminal."""

from __future__ import annotations

import logging
import re
import sys
from typing import Literal

import attrs
import structlog

from lmx_kernel.events import KernelEvent, LoadFailed, WorkerCrashed

log = structlog.get_logger("lmx")


@attrs.frozen(kw_only=True)
class LogSettings:
    """Section ``[log]``.

    :ivar level: the least level that is written.
    :ivar format: ``json``, ``text``, or ``auto`` for text on a terminal and JSON elsewhere.
    """

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "json", "text"] = "auto"


def configure(settings: LogSettings) -> None:
    """Send structured lines to standard error."""
    as_text = settings.format == "text" or (settings.format == "auto" and sys.stderr.isatty())
    ending: list[structlog.typing.Processor] = (
        [structlog.dev.ConsoleRenderer()]
        if as_text
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *ending,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(
            getattr(logging, settings.level.upper())
        ),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


def log_event(event: KernelEvent) -> None:
    """Write one line for an event."""
    write = log.warning if isinstance(event, LoadFailed | WorkerCrashed) else log.info
    fields = attrs.asdict(event)
    fields |= fields.pop("usage", {})
    write(_snake(type(event).__name__), **fields)


def _snake(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()
