"""The file of stored answers as the event loop sees it."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

import structlog

from lmx_kernel.config.private_database import is_damaged, put_aside
from lmx_kernel.errors import DiskFullError, LmxError, UnavailableError
from lmx_kernel.stored.file import AnswerFile

T = TypeVar("T")
RETRY_S = 30
log = structlog.get_logger(__name__)


class AnswerDisk:
    """Runs calls on the file in a thread of its own, one after the other. A file that cannot be
    used is tried again at the next call; one that is found damaged is put aside. Of several
    failures before the next success the first is logged; to read a full disk is no success.

    :param path: of the file, which is made at the first call.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: AnswerFile | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="stored-answers")
        self._is_failing = False
        self._has_written = False
        self._is_closed = False

    @property
    def count(self) -> int:
        """The answers that are kept, as far as that is known."""
        return self._file.count if self._file else 0

    async def do(self, call: Callable[[AnswerFile], T]) -> T:
        """Return what ``call`` returns. It is run to its end even if the caller is cancelled.

        :raises UnavailableError: the file cannot be used, or is closed; a retry may help.
        :raises DiskFullError: the same.
        :raises LmxError: what ``call`` raised.
        """
        if self._is_closed:
            raise UnavailableError("the server is stopping", retry_after_s=5)
        loop = asyncio.get_running_loop()
        return await asyncio.shield(loop.run_in_executor(self._thread, partial(self._run, call)))

    async def close(self) -> None:
        """Close the file for good, after what was asked before."""
        if not self._is_closed:
            self._is_closed = True
            await asyncio.get_running_loop().run_in_executor(self._thread, self._close_file)
            self._thread.shutdown(wait=False)

    # --- in the thread ---

    def _run(self, call: Callable[[AnswerFile], T]) -> T:
        try:
            result = self._try(call)
        except (OSError, sqlite3.Error) as error:
            if not self._is_failing:
                log.error("stored_answers_failed", reason=str(error))
            self._is_failing = True
            raise _shown(error) from error
        if self._is_failing and self._has_written:
            self._is_failing = False
            log.info("stored_answers_recovered")
        return result

    def _try(self, call: Callable[[AnswerFile], T]) -> T:
        try:
            return self._call(call)
        except sqlite3.DatabaseError as error:
            if not is_damaged(error):
                raise
            self._close_file()
            put_aside(self._path, str(error))
            return self._call(call)

    def _call(self, call: Callable[[AnswerFile], T]) -> T:
        if self._file is None:
            self._file = AnswerFile(self._path)
        before = self._file.changes
        result = call(self._file)
        self._has_written = self._file.changes > before
        return result

    def _close_file(self) -> None:
        if self._file is not None:
            self._file.close()
        self._file = None


def _shown(error: Exception) -> LmxError:
    """Return the error that a user sees."""
    if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
        text = "answers cannot be stored: the disk is full"
        return DiskFullError(text, retry_after_s=RETRY_S, retryable=True)
    text = "stored answers cannot be used at the moment; the server's log says why"
    return UnavailableError(text, retry_after_s=RETRY_S)
