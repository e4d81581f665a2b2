"""The worker's loop: take messages in, step the engine, send one frame of events."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from collections.abc import Sequence as Seq
from functools import partial
from itertools import count
from queue import SimpleQueue
from typing import Any

from attrs import define, evolve

from lmx_kernel.engine.protocol import (
    Engine,
    InterruptibleSteps,
    LongSteps,
    Output,
    Sequence,
    Step,
    TokenLogprobs,
)
from lmx_kernel.errors import LmxError
from lmx_kernel.prefixes.store import PrefixStore
from lmx_kernel.text.constraints.protocol import CandidateMask
from lmx_kernel.text.formats.protocol import offered_tools
from lmx_kernel.text.output import CandidateOutput
from lmx_kernel.types import ChatPrompt, PromptProgress, TextDelta
from lmx_kernel.worker import messages as wire
from lmx_kernel.worker.beside import Beside
from lmx_kernel.worker.channel import Channel
from lmx_kernel.worker.draft_sources import DraftSources
from lmx_kernel.worker.embedder import Embedder
from lmx_kernel.worker.prefix_guard import PrefixGuard
from lmx_kernel.worker.preparer import ChatChoice, Prepared, Preparer
from lmx_kernel.worker.promise import Promise
from lmx_kernel.worker.state_keeper import Fetched

OBSERVE_S, OBSERVE_IDLE_S = 1.0, 0.1

LONG_STEP_S = 0.002
"""Texts and frames of a step are made beside the next one if steps take as long as this: to do it
in another thread costs 0.05 ms."""

Work = wire.Start | wire.Drop | wire.Trim | wire.Ping | Fetched
Given = wire.Given


@define
class _Running:
    id: int
    candidate: int
    output: CandidateOutput
    mask: CandidateMask | None

    @property
    def is_over(self) -> bool:
        """Whether nothing more is to be said."""
        return bool(self.output.finished or (self.mask is not None and self.mask.problem))

    def read(self, tokens: Seq[int], logprobs: Seq[TokenLogprobs] = ()) -> Seq[Given]:
        """Return what new tokens say; the mask has accepted them already."""
        mask = self.mask
        if mask is not None and mask.problem:
            return [wire.Failed(self.candidate, mask.problem)]
        is_complete = mask is not None and mask.is_complete
        return self.output.feed(tokens, logprobs, is_complete=is_complete)

    def may_end(self, tokens: Seq[int]) -> bool:
        """Whether ``tokens`` may be the last ones."""
        if self.mask is not None and (self.mask.problem or self.mask.is_complete):
            return True
        return self.output.may_end(tokens)


class Loop:
    """Runs one engine. :meth:`prepare`, :meth:`take`, :meth:`pulse` and :meth:`close` are called
    from the channel's reading thread, all else from the main thread.

    :param store: where states outlive the worker; None for nowhere.
    :param promise: for all answers.
    """

    def __init__(
        self,
        engine: Engine,
        channel: Channel,
        constraints: Mapping[str, Any] | None = None,
        chat: ChatChoice = ChatChoice(),  # noqa: B008 - frozen
        store: PrefixStore | None = None,
        drafts: DraftSources | None = None,
        promise: Promise = Promise(),  # noqa: B008 - frozen
    ) -> None:
        self.limits = engine.limits
        self._engine = engine
        self._interrupt = engine.interrupt if isinstance(engine, InterruptibleSteps) else None
        self._channel = channel
        self._running: dict[int, _Running] = {}
        self._embedder = Embedder(engine)
        self._preparer = Preparer(engine, channel, constraints or {}, chat, promise)
        self._drafts = drafts or DraftSources(engine)
        self._sequence_ids = count()
        self._observed_at = 0.0
        self._beside = Beside()
        self._inbox: SimpleQueue[Work] = SimpleQueue()
        self._fetching: dict[int, _Running] = {}
        self._prefixes = PrefixGuard(engine, store, self._deliver)

    def prepare(self, message: wire.Prepare) -> None:
        """Have a request tokenised and checked; the kernel is told how that went."""
        self._preparer.submit(message)

    def take(self, message: Work) -> None:
        """Take a message for the loop; a start waits for its request to be prepared."""
        deliver = partial(self._deliver, message)
        if isinstance(message, wire.Start):
            self._preparer.when_prepared(message.id, deliver)
        else:
            deliver()

    def _deliver(self, message: Work) -> None:
        """Put a message into the inbox, and end a long step that it should not wait for."""
        self._inbox.put(message)
        if self._interrupt is not None and self._is_urgent(message):
            self._interrupt()

    def _is_urgent(self, message: Work) -> bool:
        if isinstance(message, wire.Drop):  # what ended is dropped too
            return any(run.id == message.id for run in tuple(self._running.values()))
        return isinstance(message, wire.Start | Fetched)

    def pulse(self) -> int | None:
        """Return how far the engine is within a call; 0 if it does not tell. For any thread."""
        return self._engine.pulse() if isinstance(self._engine, LongSteps) else 0

    def close(self) -> None:
        """Write what is still to be stored on disk; the process is about to end."""
        self._prefixes.close()

    def run(self) -> None:
        """Serve for ever: the process ends with its channel, not here."""
        while True:
            self.turn()

    def turn(self) -> None:
        """Take all messages that came, and do one step; waits for one if there is nothing to do."""
        if not self._is_busy:
            self._take(self._inbox.get())
        if not self._inbox.empty():
            self._beside.do_now()
        while not self._inbox.empty():
            self._take(self._inbox.get())
        if not self._is_busy:
            return
        if self._running:
            self._step()
        if self._embedder.is_busy:
            self._channel.send(wire.Stepped(tuple(self._embedder.step())))
        self._observe()

    def _step(self) -> None:
        """Step the engine; what a step gave is told at once, or beside the next one."""
        self._beside.begin()
        began_s = time.perf_counter()
        step = self._engine.step()
        took_s = time.perf_counter() - began_s
        self._beside.wait()
        self._prefixes.stepped(step)
        if took_s >= LONG_STEP_S and not _may_end(step, self._running):
            self._beside.put_off(partial(self._tell, step))
            return
        routed = self._routed(step, goes_on=False)
        self._forget_ended(step)  # before others hear of it: what they do next may be an unload
        self._channel.send(wire.Stepped(routed))

    def _tell(self, step: Step) -> None:
        """Send what a step gave in which no sequence is over."""
        self._channel.send(wire.Stepped(self._routed(step, goes_on=True)))

    @property
    def _is_busy(self) -> bool:
        return bool(self._running) or self._embedder.is_busy

    def _observe(self) -> None:
        """Report the engine's figures now and then, and when it falls idle."""
        now = time.monotonic()
        if now - self._observed_at >= (OBSERVE_S if self._is_busy else OBSERVE_IDLE_S):
            self._observed_at = now
            stats, figures = self._engine.stats(), self._prefixes.figures()
            stats = evolve(stats, details={**stats.details, **figures})
            self._channel.send(wire.Observed(stats))

    def _take(self, message: Work) -> None:
        if isinstance(message, wire.Start):
            self._start(message)
        elif isinstance(message, wire.Drop):
            self._drop(message.id)
        elif isinstance(message, wire.Trim):
            self._engine.trim()
            self._drafts.trim()
        elif isinstance(message, Fetched):
            self._take_fetched(message)
        else:
            self._channel.send(wire.Pong())

    def _start(self, message: wire.Start) -> None:
        prepared = self._preparer.find(message.id)
        if prepared is None:
            return
        if prepared.inputs:
            self._embedder.start(message.id, prepared.inputs)
        else:
            self._run(message, prepared)

    def _run(self, message: wire.Start, prepared: Prepared) -> None:
        """Let the engine continue a candidate, unless what it has said already is all."""
        mask = prepared.constraints.mask() if prepared.constraints is not None else None
        if mask is not None:
            mask.accept(message.tokens)
        run = _Running(
            message.id, message.candidate, _output(message, prepared, self._engine), mask
        )
        said = run.read(message.tokens)
        if run.is_over:
            self._send_one(run, said[-1])
            return
        number, start = next(self._sequence_ids), len(prepared.tokens)
        sampling = prepared.request.sampling.complete(message.seed)
        sequence = Sequence(
            id=number,
            tokens=[*prepared.tokens, *message.tokens],
            produced=len(message.tokens),
            sampling=sampling,
            logprobs=prepared.request.logprobs,
            mask=mask,
            cache_space=prepared.request.cache_space,
            processors=prepared.processors,
            drafts=self._drafts.source(prepared),
            draft_model=self._drafts.model_drafts(number, prepared.request, sampling, start),
        )
        if self._prefixes.begin(sequence):
            self._fetching[sequence.id] = run
        else:
            self._add(sequence, run)

    def _take_fetched(self, message: Fetched) -> None:
        for sequence in self._prefixes.take(message):
            run = self._fetching.pop(sequence.id, None)
            if run is None:  # its request was dropped
                self._end(sequence.id)
            else:
                self._add(sequence, run)

    def _add(self, sequence: Sequence, run: _Running) -> None:
        try:
            self._engine.add(sequence)
        except LmxError as error:
            self._end(sequence.id)
            self._send_one(run, wire.Failed(run.candidate, error.message))
            return
        self._running[sequence.id] = run

    def _drop(self, request_id: int) -> None:
        self._preparer.drop(request_id)
        self._embedder.drop(request_id)
        for sequence_id in [key for key, run in self._running.items() if run.id == request_id]:
            self._forget(sequence_id)
        for sequence_id in [key for key, run in self._fetching.items() if run.id == request_id]:
            del self._fetching[sequence_id]

    def _end(self, sequence_id: int) -> None:
        """Free what others hold for a sequence."""
        self._prefixes.end(sequence_id)
        self._drafts.end(sequence_id)

    def _forget(self, sequence_id: int) -> None:
        self._end(sequence_id)
        self._engine.remove(sequence_id)
        self._prefixes.removed()
        del self._running[sequence_id]

    def _send_one(self, run: _Running, event: Given) -> None:
        self._channel.send(wire.Stepped((wire.Routed(run.id, (event,)),)))

    def _routed(self, step: Step, *, goes_on: bool) -> tuple[wire.Routed, ...]:
        """Return what a step gave, in one piece for each sequence.

        :param goes_on: no sequence is over; masks may have accepted later tokens already.
        """
        given = defaultdict[int, list[Given]](list)
        for progress in step.progress:
            candidate = self._running[progress.id].candidate
            given[progress.id].append(
                PromptProgress(candidate, progress.processed, progress.total, progress.cached)
            )
        for output in step.outputs:
            run = self._running[output.id]
            read = run.output.feed if goes_on else run.read
            events = read(output.tokens, output.logprobs)
            given[output.id] += (*_drafted(run.candidate, output, events), *events)
        for sequence_id in step.preempted:
            if not (run := self._running[sequence_id]).is_over:
                given[sequence_id].append(wire.Preempted(run.candidate))
        for sequence_id, reason in step.failed:
            if not (run := self._running[sequence_id]).is_over:
                given[sequence_id].append(wire.Failed(run.candidate, reason))
        return tuple(
            wire.Routed(self._running[sequence_id].id, tuple(events))
            for sequence_id, events in given.items()
        )

    def _forget_ended(self, step: Step) -> None:
        """Forget the sequences that the engine put out or gave up, and those that are complete."""
        for sequence_id in (*step.preempted, *(failed for failed, _ in step.failed)):
            self._drafts.end(sequence_id)
            del self._running[sequence_id]
        for output in step.outputs:
            if (run := self._running.get(output.id)) is not None and run.is_over:
                self._forget(output.id)


def _output(message: wire.Start, prepared: Prepared, engine: Engine) -> CandidateOutput:
    request = prepared.request
    # The last token of an answer takes no room in the context: nothing is computed after it.
    room = request.context_length(engine.limits.context_length) - len(prepared.tokens) + 1
    return CandidateOutput(
        message.candidate,
        tokenizer=engine.tokenizer,
        parser=prepared.format.parser(prepared.prompt_end, offered_tools(request)),
        stops=request.stop,
        budget=room if request.max_tokens is None else min(room, request.max_tokens),
        strip_space=isinstance(request.prompt, ChatPrompt),
        seed=message.seed + len(prepared.tokens),  # ids differ between turns of one seed
        parallel_calls=request.parallel_tool_calls,
    )


def _may_end(step: Step, running: Mapping[int, _Running]) -> bool:
    """Return whether some sequence may be over after a step; its text has to show."""
    if step.preempted or step.failed:
        return True
    return any(running[output.id].may_end(output.tokens) for output in step.outputs)


def _drafted(candidate: int, output: Output, events: Seq[Given]) -> Iterator[wire.Drafted]:
    """Yield how many drafts were computed, and how many of them are in the answer."""
    if output.drafted:
        used = sum(len(event.tokens) for event in events if isinstance(event, TextDelta))
        accepted = min(output.accepted, used)
        yield wire.Drafted(candidate, output.drafted, accepted, output.draft_model)
