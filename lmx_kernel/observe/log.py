"""The log: one structured line for each event, JSON in files and text on a terminal."""

from __future__ import annotations

import logging
import os
import stat
import sys
from contextlib import suppress
from io import TextIOWrapper
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any, Literal

import attrs
import msgspec
import structlog
from structlog.stdlib import ProcessorFormatter

from lmx_kernel.config import LIVE
from lmx_kernel.events import (
    JobChanged,
    KernelEvent,
    LoadFailed,
    LoadProgressed,
    MemoryPressed,
    RequestFinished,
    RequestRefused,
    Sampled,
    WorkerCrashed,
    event_name,
)
from lmx_kernel.observe.redact import redact_event

Level = Literal["debug", "info", "warning", "error"]

FOLDER, FILE = "logs", "lmx.log"
log = structlog.get_logger("lmx")


_SHARED: list[structlog.typing.Processor] = [
    structlog.contextvars.merge_contextvars,
    structlog.processors.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.format_exc_info,
    redact_event,
]


@attrs.frozen(kw_only=True)
class LogSettings:
    """Section ``[log]``.

    :ivar level: the lowest level that is written.
    :ivar format: ``json``, ``text``, or ``auto`` for text on a terminal and JSON elsewhere.
    :ivar file: whether `lmx serve` also writes JSON to ``logs/lmx.log`` in LMX's own folder.
    :ivar max_bytes: the size at which that file is rotated.
    :ivar backups: how many rotated files are kept.
    """

    level: Level = attrs.field(default="info", metadata=LIVE)
    format: Literal["auto", "json", "text"] = "auto"
    file: bool = True
    max_bytes: int = attrs.field(default=10 * 1024 * 1024, validator=attrs.validators.gt(0))
    backups: int = attrs.field(default=5, validator=attrs.validators.ge(1))


def configure(
    settings: LogSettings, home: Path | None = None, *, is_supervised: bool = False
) -> None:
    """Write the log to standard error, and to a file below ``home`` if that is given and the
    settings allow it. If the file cannot be written there is one warning.

    :param is_supervised: a supervisor keeps standard error: beside a file only warnings go there,
        so that nothing is kept twice or without limit.
    """
    as_text = settings.format == "text" or (settings.format == "auto" and sys.stderr.isatty())
    structlog.configure(
        processors=[*_SHARED, ProcessorFormatter.wrap_for_formatter],
        logger_factory=lambda *_: logging.getLogger("lmx"),
    )
    set_level(settings.level)
    for handler in [one for one in logging.root.handlers if _is_ours(one)]:
        logging.root.removeHandler(handler)
        handler.close()
    stream = logging.StreamHandler(sys.stderr)
    _add(stream, _text if as_text else _json)
    if home and settings.file:
        stream.setLevel(logging.WARNING if is_supervised else logging.NOTSET)
        _add(LogFile(home / FOLDER / FILE, settings.max_bytes, settings.backups), _json)


def empty_full_output(descriptor: int, limit_bytes: int) -> None:
    """Empty the file that an output of this process goes to if it is longer than ``limit_bytes``:
    launchd appends to one file for ever. An output that is no file is left alone.
    """
    with suppress(OSError):
        status = os.fstat(descriptor)
        if stat.S_ISREG(status.st_mode) and status.st_size > limit_bytes:
            os.ftruncate(descriptor, 0)


def set_level(level: Level) -> None:
    """Write lines of this level and above from now on; of other libraries, at least warnings."""
    number: int = getattr(logging, level.upper())
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(number))
    logging.root.setLevel(max(number, logging.WARNING))
    logging.getLogger("lmx").setLevel(number)


def log_event(event: KernelEvent) -> None:
    """Write one line for an event, if its level is enabled."""
    level = _level_of(event)
    if not log.is_enabled_for(level):
        return
    fields = attrs.asdict(event)
    fields |= fields.pop("usage", {})
    if isinstance(event, MemoryPressed):
        fields["pressure"] = fields.pop("level")  # "level" is the level of the line
    log.log(level, event_name(type(event)), **fields)


class LogFile(RotatingFileHandler):
    """A rotating file that only its owner may read."""

    def __init__(self, path: Path, max_bytes: int, backups: int) -> None:
        super().__init__(
            path, maxBytes=max_bytes, backupCount=backups, encoding="utf-8", delay=True
        )
        self._has_warned = False

    def _open(self) -> TextIOWrapper:
        path = Path(self.baseFilename)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return open(path, "a", encoding="utf-8", opener=_open_private)

    def shouldRollover(self, record: logging.LogRecord) -> int:  # noqa: N802
        """Return whether the file is full; the base class formats each record twice for that."""
        self.stream = self.stream or self._open()
        return os.fstat(self.stream.fileno()).st_size >= self.maxBytes

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Warn once that lines are lost, and reopen the file for the next one."""
        error = sys.exc_info()[1]
        if self.stream is not None:
            with suppress(OSError):  # the buffer cannot be written either
                self.stream.close()
            self.stream = None
        if not self._has_warned:
            self._has_warned = True
            log.warning("log_file_failed", reason=str(error))


def _add(handler: logging.Handler, render: structlog.typing.Processor) -> None:
    processors = [ProcessorFormatter.remove_processors_meta, render]
    handler.setFormatter(ProcessorFormatter(processors=processors, foreign_pre_chain=_SHARED))
    logging.root.addHandler(handler)


def _is_ours(handler: logging.Handler) -> bool:
    return isinstance(handler.formatter, ProcessorFormatter)


def _json(_logger: Any, _method: str, event: structlog.typing.EventDict) -> str:
    return msgspec.json.encode(event).decode()


_text = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _level_of(event: KernelEvent) -> int:
    match event:
        case (
            RequestFinished()
            | RequestRefused()
            | Sampled()
            | LoadProgressed()
            | JobChanged(state="running")
        ):
            return logging.DEBUG  # frequent, and the HTTP server logs each request
        case LoadFailed() | WorkerCrashed() | MemoryPressed(level="soft" | "hard"):
            return logging.WARNING
        case _:
            return logging.INFO
