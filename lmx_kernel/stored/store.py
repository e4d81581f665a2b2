"""The implementation of StoredAnswers."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial

import structlog
from attrs import evolve

from lmx_kernel.config import Settings
from lmx_kernel.errors import ConflictError, InvalidRequestError, LmxError, QueueFullError
from lmx_kernel.interfaces import StoredAnswer, StoredAnswers
from lmx_kernel.runtime.answer import MAX_SEED
from lmx_kernel.stored.background import Background, Generate
from lmx_kernel.stored.changes import Changes
from lmx_kernel.stored.disk import AnswerDisk
from lmx_kernel.stored.file import AnswerFile
from lmx_kernel.stored.reading import StoredReading
from lmx_kernel.stored.settings import FILE, StoredAnswerSettings
from lmx_kernel.types import EmbeddingPrompt, Event, GenerationRequest

FORGET_S = 60.0
log = structlog.get_logger(__name__)


class AnswerStore(StoredAnswers):
    """Keeps answers in ``state/answers.db`` in LMX's own folder.

    :param generate: gives a request to a model.
    """

    def __init__(self, settings: Settings, generate: Generate) -> None:
        self._settings = settings
        self._disk = AnswerDisk(settings.home / FILE)
        self._changes = Changes()
        self._background = Background(self._disk, self._changes, generate)

    @property
    def count(self) -> int:
        """How many answers are kept, as far as that is known."""
        return self._disk.count

    @property
    def running(self) -> int:
        """How many of them are computed in the background."""
        return self._background.running

    # --- the daemon's side ---

    async def run(self) -> None:
        """Go on with the answers that a stop or a crash cut off, and forget old ones now and then.

        :raises LmxError: the file cannot be used.
        """
        await self._background.resume()
        while True:
            await self._forget()
            await asyncio.sleep(FORGET_S)

    async def suspend(self) -> None:
        """Stop computing, for good; the next daemon goes on."""
        await self._background.suspend()

    async def close(self) -> None:
        """Suspend, and close the file."""
        await self.suspend()
        await self._disk.close()

    # --- the surfaces' side ---

    async def put(self, answer: StoredAnswer, events: Sequence[Event]) -> None:
        """See :meth:`StoredAnswers.put`."""
        ended_at = time.time() if answer.ended_at is None else answer.ended_at
        answer = evolve(answer, ended_at=ended_at, outcome=answer.outcome or "ok")
        try:
            await self._disk.do(partial(AnswerFile.insert, answer=answer, events=events))
        except ConflictError:
            raise
        except LmxError as error:
            log.warning("answer_not_stored", answer=answer.id, reason=error.message)
        await self._forget()

    async def start(self, answer: StoredAnswer, request: GenerationRequest) -> None:
        """See :meth:`StoredAnswers.start`."""
        if request.candidates != 1 or isinstance(request.prompt, EmbeddingPrompt):
            raise InvalidRequestError("only a single text can be generated in the background")
        if self.running >= self._settings.get(StoredAnswerSettings).max_count:
            raise QueueFullError(
                f"{self.running} answers are computed in the background already", retry_after_s=30
            )
        if request.sampling.seed is None:  # the next daemon must draw what this one would
            sampling = evolve(request.sampling, seed=secrets.randbelow(MAX_SEED))
            request = evolve(request, sampling=sampling)
        answer = evolve(answer, ended_at=None, outcome=None, problem="", usage=None)
        # A client that leaves now must not leave an answer behind that nobody computes.
        await asyncio.shield(self._background.start(answer, request))
        await self._forget()

    async def get(self, answer_id: str, owner: str) -> StoredAnswer:
        """See :meth:`StoredAnswers.get`."""
        return await self._disk.do(partial(AnswerFile.find, answer_id=answer_id, owner=owner))

    async def read(self, answer_id: str, owner: str) -> StoredReading:
        """See :meth:`StoredAnswers.read`."""
        return StoredReading(await self.get(answer_id, owner), self._disk, self._changes)

    async def cancel(self, answer_id: str, owner: str) -> StoredAnswer:
        """See :meth:`StoredAnswers.cancel`."""
        answer = await self.get(answer_id, owner)
        if answer.outcome is not None:
            return answer
        await asyncio.shield(self._background.cancel(answer_id))
        return await self.get(answer_id, owner)

    async def delete(self, answer_id: str, owner: str) -> None:
        """See :meth:`StoredAnswers.delete`."""
        await self.get(answer_id, owner)
        await asyncio.shield(self._background.delete(answer_id))

    # --- inside ---

    async def _forget(self) -> None:
        limits = self._settings.get(StoredAnswerSettings)
        forget = partial(AnswerFile.forget, limits=limits, now=time.time())
        with suppress(LmxError):  # it is logged
            if forgotten := await self._disk.do(forget):
                log.info("stored_answers_forgotten", count=forgotten)
