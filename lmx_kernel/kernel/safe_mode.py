"""Safe mode: after several unclean starts, the daemon starts without the likely causes."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import msgspec
import structlog
from attrs import evolve, frozen
from filelock import FileLock, Timeout

from lmx_kernel.config.private_file import write_private
from lmx_kernel.events import KernelEvent, LoadFailed, LoadStarted, ModelLoaded, ModelUnloaded
from lmx_kernel.kernel.boot_verdict import NORMAL, BootVerdict

FILE, LOCK = Path("run", "starts.json"), Path("run", "starts.lock")
WINDOW_S = 300.0
MAX_UNCLEAN = 3  # unclean starts within the window; the next one is in safe mode
log = structlog.get_logger(__name__)


@frozen
class _Record:
    """The content of the file.

    :ivar starts: the times of all starts since the last clean stop, in seconds since the epoch.
    :ivar loading: models that are being loaded, or were when the daemon died.
    """

    starts: tuple[float, ...] = ()
    loading: frozenset[str] = frozenset()


class CrashLoopGuard:
    """Records starts and loads in a file, to detect a daemon that keeps crashing.

    Call :meth:`begin` first, :meth:`on_event` for every event, and :meth:`end` or :meth:`withdraw`
    at the end. Without either of them, the start was unclean.

    It works for one daemon of a home folder at a time: for a second one, or if the folder cannot be
    written, it does nothing.

    :param home: LMX's own folder.
    :param now: returns the time in seconds since the epoch.
    """

    def __init__(self, home: Path, now: Callable[[], float] = time.time) -> None:
        self._home = home
        self._now = now
        self._lock = FileLock(home / LOCK, blocking=False, thread_local=False)
        self._before = self._record = _Record()
        # Syncing a file may take seconds beside a large download: never on the event loop.
        self._writer = ThreadPoolExecutor(1, "boot-guard")

    def begin(self) -> BootVerdict:
        """Record a start, and return how to start."""
        if not self._take_lock():
            return NORMAL
        self._before = self._read()
        now = self._now()
        # After a change of the clock, starts that are far away are ignored, also in the future.
        recent = [start for start in self._before.starts if abs(now - start) <= WINDOW_S]
        self._write(evolve(self._before, starts=(*recent, now))).result()
        return BootVerdict(safe_mode=len(recent) >= MAX_UNCLEAN, suspects=self._before.loading)

    def on_event(self, event: KernelEvent) -> None:
        """Record which models are being loaded."""
        match event:
            case LoadStarted(model=model):
                loading = self._record.loading | {model}
            case ModelLoaded(model=model) | LoadFailed(model=model) | ModelUnloaded(model=model):
                loading = self._record.loading - {model}
            case _:
                return
        if loading != self._record.loading:
            self._write(evolve(self._record, loading=loading))

    def end(self) -> None:
        """Record a clean stop: the record is cleared."""
        self._close(_Record())

    def withdraw(self) -> None:
        """Remove the record of this start, such as one that a wrong config refused."""
        self._close(self._before)

    def _close(self, record: _Record) -> None:
        self._write(record)
        self._writer.shutdown()
        self._lock.release()

    def _take_lock(self) -> bool:
        try:
            (self._home / LOCK).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock.acquire()
        except Timeout:  # another daemon of this home runs
            return False
        except OSError as error:
            log.warning("boot_guard_off", reason=error.strerror)
            return False
        return True

    def _read(self) -> _Record:
        try:
            return msgspec.json.decode((self._home / FILE).read_bytes(), type=_Record)
        except FileNotFoundError:
            return _Record()
        except (OSError, ValueError, RecursionError) as error:
            log.warning("boot_guard_forgot", reason=str(error))
            return _Record()

    def _write(self, record: _Record) -> Future[None]:
        self._record = record
        return self._writer.submit(self._put, record)

    def _put(self, record: _Record) -> None:
        if not self._lock.is_locked:
            return
        try:
            write_private(self._home / FILE, msgspec.json.encode(record))
        except OSError as error:
            log.warning("boot_guard_blind", reason=error.strerror)
