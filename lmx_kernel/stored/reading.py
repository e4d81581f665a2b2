"""A stored answer as one of its readers sees it."""

from __future__ import annotations

import asyncio
from collections import deque
from functools import partial

from lmx_kernel.errors import UnavailableError, from_code
from lmx_kernel.interfaces import Answer, StoredAnswer
from lmx_kernel.stored.changes import Changes
from lmx_kernel.stored.disk import AnswerDisk
from lmx_kernel.stored.file import AnswerFile, Page
from lmx_kernel.types import Event, Usage

CANCELLED = "cancelled"
NO_USAGE = Usage(
    prompt_tokens=0,
    cached_tokens=0,
    completion_tokens=0,
    queue_s=0.0,
    first_token_s=None,
    total_s=0.0,
)


class StoredReading(Answer):
    """Reads an answer from its file, page by page, and waits for more until it is complete."""

    def __init__(self, answer: StoredAnswer, disk: AnswerDisk, changes: Changes) -> None:
        self.id = answer.id
        self.model = answer.model
        self.outcome: str | None = None
        self._disk = disk
        self._changes = changes
        self._events: deque[Event] = deque()
        self._read = 0
        self._usage = answer.usage or NO_USAGE

    async def next(self, timeout_s: float | None = None) -> Event | None:
        """Return the next event; see :meth:`Answer.next`."""
        loop = asyncio.get_running_loop()
        due = None if timeout_s is None else loop.time() + timeout_s
        while not self._events:
            change = self._changes.next(self.id)
            page = partial(AnswerFile.page, answer_id=self.id, first=self._read)
            self._take(await self._disk.do(page))
            if self._events:
                break
            try:
                async with asyncio.timeout_at(due):
                    await change.wait()
            except TimeoutError:
                return None
        return self._events.popleft()

    def usage(self) -> Usage:
        """Return what it cost, as far as that is on disk."""
        return self._usage

    def close(self) -> None:
        """End the reading."""
        if self.outcome is None:
            self.outcome = CANCELLED
            self._events.clear()
            self._changes.tell(self.id)

    def _take(self, page: Page) -> None:
        """Take a page of events.

        :raises StopAsyncIteration: there are none, and the answer is complete.
        :raises LmxError: the same, and it failed; or it does not go on for now.
        """
        if self.outcome == CANCELLED:
            raise StopAsyncIteration
        self._usage = page.usage or self._usage
        self._events.extend(page.events)
        self._read += len(page.events)
        if page.events:
            return
        if page.outcome is None:
            if self._changes.are_over:
                raise UnavailableError("the server is stopping", retry_after_s=5)
            return
        self.outcome = page.outcome
        if page.outcome in ("ok", CANCELLED):
            raise StopAsyncIteration
        raise from_code(page.outcome, page.problem)
