"""Computes answers in the background, whoever is connected, over restarts of the daemon."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from contextvars import Context
from functools import partial

import structlog
from attrs import define, evolve

from lmx_kernel.errors import (
    ConflictError,
    EngineCrashedError,
    InternalError,
    LmxError,
    ModelNotFoundError,
    NotFoundError,
)
from lmx_kernel.http.context import noting_no_answers
from lmx_kernel.interfaces import StoredAnswer
from lmx_kernel.runtime.answer import LiveAnswer
from lmx_kernel.stored.changes import Changes
from lmx_kernel.stored.disk import AnswerDisk
from lmx_kernel.stored.file import BATCH_EVENTS, AnswerFile
from lmx_kernel.stored.progress import Progress
from lmx_kernel.stored.reading import CANCELLED
from lmx_kernel.types import GenerationRequest, TextDelta

Generate = Callable[[GenerationRequest], Awaitable[LiveAnswer]]

WRITE_S = 0.25
"""Events are written at most so often."""
RESUMED, ADMITTED, CRASHED = 1, 9, 10
MAX_DOUBT = 30
"""An answer that got no further may be why the daemon ended: there is little doubt of one that was
only resumed, since its model had to be loaded first, or that waited for its turn while others got
on, and much of one whose prompt was processed, or that crashed its worker. Beyond this it fails.
"""
PATIENCE_S = 24 * 3600.0
"""For so long without getting on, an answer is tried again after an error that may pass."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 60.0
log = structlog.get_logger(__name__)


class _GoneError(Exception):
    """An answer is complete already, or was forgotten."""


@define(eq=False)
class _Run:
    """The computation of one answer.

    :ivar progress: None while it is on disk only.
    :ivar live: what the model says; None before it was asked, and between two tries.
    :ivar doubt: of this answer, from how the last try ended.
    :ivar suspected: the part of the doubt on disk that the current try has added.
    :ivar got_on_at: monotonic seconds.
    """

    id: str
    progress: Progress | None = None
    live: LiveAnswer | None = None
    doubt: int = 0
    suspected: int = 0
    got_on_at: float = 0.0
    task: asyncio.Task[None] | None = None

    async def stop(self) -> None:
        """Stop computing."""
        if self.task is not None:
            self.task.cancel()
            await asyncio.wait({self.task})
        if self.live is not None:
            self.live.close()


class Background:
    """Runs the answers that have no end, each in a task of its own.

    :param generate: gives a request to a model.
    """

    def __init__(self, disk: AnswerDisk, changes: Changes, generate: Generate) -> None:
        self._disk = disk
        self._changes = changes
        self._generate = generate
        self._runs: dict[str, _Run] = {}

    @property
    def running(self) -> int:
        """How many answers are computed."""
        return len(self._runs)

    async def start(self, answer: StoredAnswer, request: GenerationRequest) -> None:
        """Begin an answer, and keep it; it belongs to the model that it has begun on.

        :param request: with a seed.
        :raises ConflictError: there is one of that id.
        :raises LmxError: it cannot be begun, or not be kept.
        """
        if answer.id in self._runs:
            raise ConflictError(f"there is an answer {answer.id[:64]} already")
        self._runs[answer.id] = run = _Run(answer.id)
        try:
            with noting_no_answers():  # it outlives the HTTP request
                run.live = live = await self._generate(request)
            answer = evolve(answer, model=live.model)
            request = _as_begun(request, live)
            await self._disk.do(partial(AnswerFile.insert, answer=answer, request=request))
        except BaseException:
            self._runs.pop(answer.id, None)
            await run.stop()
            raise
        run.progress = Progress(request, answer.created_at)
        if self._runs.get(answer.id) is run:  # it is not suspended already
            self._spawn(run)

    async def resume(self) -> None:
        """Go on with all answers in the file that have no end.

        :raises LmxError: the file cannot be read.
        """
        for answer_id in await self._disk.do(AnswerFile.unfinished):
            if answer_id not in self._runs:
                self._runs[answer_id] = run = _Run(answer_id, doubt=RESUMED)
                self._spawn(run)
                log.info("background_answer_resumed", answer=answer_id)

    async def suspend(self) -> None:
        """Stop computing; what was written is gone on from when answers are resumed."""
        runs, self._runs = list(self._runs.values()), {}
        await asyncio.gather(*(run.stop() for run in runs))
        self._changes.end()
        if runs:
            log.info("background_answers_suspended", count=len(runs))
            with suppress(LmxError):  # it is logged
                await self._disk.do(AnswerFile.forgive)

    async def cancel(self, answer_id: str) -> None:
        """End an answer with what it said so far, unless it is complete.

        :raises LmxError: the file cannot be written.
        """
        run = self._runs.get(answer_id) or _Run(answer_id)
        await run.stop()
        try:
            await self._end(run, CANCELLED)
        except _GoneError:
            pass  # it is complete
        finally:
            self._forget(run)

    async def delete(self, answer_id: str) -> None:
        """Stop computing an answer, and forget it.

        :raises LmxError: the file cannot be written.
        """
        run = self._runs.get(answer_id) or _Run(answer_id)
        await run.stop()
        try:
            await self._disk.do(partial(AnswerFile.delete, answer_id=answer_id))
        finally:
            self._forget(run)

    # --- inside ---

    def _spawn(self, run: _Run) -> None:
        run.got_on_at = time.monotonic()
        run.task = asyncio.create_task(self._compute(run), context=Context())

    def _forget(self, run: _Run) -> None:
        if self._runs.get(run.id) is run:
            del self._runs[run.id]
        self._changes.tell(run.id)

    async def _compute(self, run: _Run) -> None:
        for pause_s in _growing_pauses():
            try:
                await self._try(run)
                break
            except LmxError as error:
                log.warning("background_answer_waits", answer=run.id, reason=error.message)
                run.progress, run.live = None, None
                run.doubt = CRASHED if isinstance(error, EngineCrashedError) else -run.suspected
                run.suspected = 0
            await asyncio.sleep(pause_s)
        self._forget(run)

    async def _try(self, run: _Run) -> None:
        """Compute an answer to its end.

        :raises LmxError: it may be tried again.
        """
        try:
            outcome, problem = await self._outcome(run)
            await self._end(run, outcome, problem)
        except _GoneError:
            log.info("background_answer_gone", answer=run.id)

    async def _outcome(self, run: _Run) -> tuple[str, str]:
        try:
            progress = run.progress or await self._load(run)
            if not progress.is_finished:
                await self._generate_rest(run, progress)
            return "ok", ""
        except _GoneError:
            raise
        except LmxError as error:
            if self._may_pass(run, error):
                raise
            log.warning("background_answer_failed", answer=run.id, code=error.code)
            return error.code, error.message
        except Exception as error:
            log.exception("background_answer_broken", answer=run.id)
            return InternalError.code, f"{type(error).__name__}: {error}"

    def _may_pass(self, run: _Run, error: LmxError) -> bool:
        """Return whether an answer is tried again. A model that is not found was found before: its
        disk or its plugin may come later.
        """
        passes = error.retryable or isinstance(error, ModelNotFoundError)
        return passes and time.monotonic() - run.got_on_at < PATIENCE_S

    async def _load(self, run: _Run) -> Progress:
        """Return what is on disk of an answer.

        :raises _GoneError: it is complete, or was forgotten.
        :raises EngineCrashedError: it was tried often enough.
        """
        kept = await self._disk.do(partial(AnswerFile.resume, answer_id=run.id, doubt=run.doubt))
        if kept is None:
            raise _GoneError
        run.progress = Progress.of(kept)
        if kept.doubt > MAX_DOUBT:
            raise EngineCrashedError(
                "the server or the model's worker crashed several times in a row before this"
                " answer got any further"
            )
        return run.progress

    async def _generate_rest(self, run: _Run, progress: Progress) -> None:
        """Write what a model says until it has said all."""
        live = run.live or await self._generate(progress.resumed_request)
        run.live = live
        with live:
            try:
                progress.add(await live.next_steps())
                await self._disk.do(partial(AnswerFile.suspect, answer_id=run.id, doubt=ADMITTED))
                run.suspected = ADMITTED
                while True:
                    await self._write_some(run, live, progress)
            except StopAsyncIteration:
                return

    async def _write_some(self, run: _Run, live: LiveAnswer, progress: Progress) -> None:
        """Write what there is, then collect what comes until the next write is due."""
        loop = asyncio.get_running_loop()
        if not progress.unwritten:
            progress.add(await live.next_steps())
        await self._write(run)
        due = loop.time() + WRITE_S
        while (left_s := due - loop.time()) > 0 and len(progress.unwritten) < BATCH_EVENTS:
            progress.add(await live.next_steps(left_s))

    async def _write(self, run: _Run) -> None:
        """Write what is not written yet; readers see it then."""
        progress, live = run.progress, run.live
        if progress is None or live is None:
            return
        first, events = progress.take()
        usage = live.usage()
        gets_on = any(isinstance(event, TextDelta) for event in events)
        append = partial(
            AnswerFile.append,
            answer_id=run.id,
            first=first,
            events=events,
            usage=progress.usage(usage, time.time() - usage.total_s),
            gets_on=gets_on,
        )
        try:
            await self._disk.do(append)
        except NotFoundError:
            raise _GoneError from None
        if gets_on:
            run.got_on_at, run.suspected = time.monotonic(), 0
            await self._trust_all()
        self._changes.tell(run.id)

    async def _trust_all(self) -> None:
        """Take back what the current tries have added to the doubt of answers: the daemon lived on
        with them until one of them got on.
        """
        for other in [one for one in self._runs.values() if one.suspected]:
            doubt, other.suspected = other.suspected, 0
            await self._disk.do(partial(AnswerFile.suspect, answer_id=other.id, doubt=-doubt))

    async def _end(self, run: _Run, outcome: str, problem: str = "") -> None:
        """Write the rest of an answer and its end."""
        await self._write(run)
        end = partial(
            AnswerFile.end,
            answer_id=run.id,
            ended_at=time.time(),
            outcome=outcome,
            problem=problem,
        )
        await self._disk.do(end)


def _as_begun(request: GenerationRequest, live: LiveAnswer) -> GenerationRequest:
    """Return a request as it is to go on: on the model that it has begun on, and for its caller,
    who is not there when the next daemon goes on.
    """
    begun = live.request
    return evolve(
        request,
        model=live.model,
        caller=begun.caller,
        cache_space=begun.cache_space,
        terms=begun.terms,
        priority=begun.priority,
    )


def _growing_pauses() -> Iterator[float]:
    pause_s = FIRST_PAUSE_S
    while True:
        yield pause_s
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
