"""One daemon for each home: two would overwrite each other's files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import structlog
from filelock import FileLock, Timeout

LOCK = Path("run", "daemon.lock")
log = structlog.get_logger(__name__)


class HomeInUseError(Exception):
    """Another process serves with this home, or is about to."""


@contextmanager
def locked_home(home: Path) -> Iterator[None]:
    """Hold the lock of a home; a process that dies releases it. A home that cannot be written is
    used without a lock.

    :raises HomeInUseError: another process holds it.
    """
    lock = FileLock(home / LOCK, mode=0o600)
    try:
        (home / LOCK).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock.acquire(blocking=False)
    except Timeout:
        raise HomeInUseError(f"another process of LMX uses {home}") from None
    except OSError as error:
        log.warning("home_not_locked", reason=error.strerror)
    try:
        yield
    finally:
        lock.release()
