"""The worker's loop: take messages in, step the engine, send one frame of events."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import count
from queue import SimpleQueue

from attrs import define, evolve, frozen

from lmx_kernel.engine import Engine, Sequence, Step
from lmx_kernel.errors import LmxError
from lmx_kernel.text.formats import find_format
from lmx_kernel.text.output import CandidateOutput
from lmx_kernel.text.prompt import PromptEncoder
from lmx_kernel.types import ChatPrompt, EmbeddingPrompt, GenerationRequest, PromptProgress
from lmx_kernel.worker import messages as wire
from lmx_kernel.worker.channel import Channel
from lmx_kernel.worker.embedder import Embedder

OBSERVE_S, OBSERVE_IDLE_S = 1.0, 0.1
Work = wire.Start | wire.Drop | wire.Trim | wire.Ping


@frozen
class _Prepared:
    request: GenerationRequest
    tokens: list[int]


@define
class _Running:
    id: int
    candidate: int
    output: CandidateOutput


class Loop:
    """Runs one engine. :meth:`prepare` is called from the channel's reading thread, all else from
    the main thread; what they share is the dictionary of prepared requests, written by the one and
    read by the other.
    """

    def __init__(self, engine: Engine, channel: Channel) -> None:
        self.limits = engine.limits
        self._engine = engine
        self._channel = channel
        self._encoder = PromptEncoder(engine.tokenizer, engine.limits)
        self._format = find_format(engine.tokenizer.chat_template)
        self._prepared: dict[int, _Prepared] = {}
        self._running: dict[int, _Running] = {}
        self._embedder = Embedder(engine)
        self._sequence_ids = count()
        self._observed_at = 0.0
        self.inbox: SimpleQueue[Work] = SimpleQueue()

    def prepare(self, message: wire.Prepare) -> None:
        """Tokenise and check a request, and say how that went."""
        try:
            size = self._encode(message.id, message.request)
        except LmxError as error:
            refusal = wire.Refused(message.id, error.code, error.message, error.param)
            self._channel.send(refusal)
            return
        self._channel.send(wire.Prepared(message.id, size))

    def run(self) -> None:
        """Serve for ever: the process ends with its channel, not here."""
        while True:
            self._take_messages()
            if self._running:
                step = self._engine.step()
                self._channel.send(wire.Stepped(tuple(self._events(step))))
                self._observe()
            if self._embedder.is_busy:
                self._channel.send(wire.Stepped(tuple(self._embedder.step())))
                self._observe()

    def _encode(self, request_id: int, request: GenerationRequest) -> int:
        if isinstance(request.prompt, EmbeddingPrompt):
            inputs = self._encoder.encode_inputs(request.prompt.inputs)
            return self._embedder.prepare(request_id, inputs)
        tokens = self._encoder.encode(request)
        self._prepared[request_id] = _Prepared(request, tokens)
        return len(tokens)

    @property
    def _is_busy(self) -> bool:
        return bool(self._running) or self._embedder.is_busy

    def _observe(self) -> None:
        """Report the engine's figures now and then, and when it falls idle."""
        now = time.monotonic()
        if now - self._observed_at >= (OBSERVE_S if self._is_busy else OBSERVE_IDLE_S):
            self._observed_at = now
            self._channel.send(wire.Observed(self._engine.stats()))

    def _take_messages(self) -> None:
        while not self._is_busy or not self.inbox.empty():
            message = self.inbox.get()
            if isinstance(message, wire.Start):
                self._start(message)
            elif isinstance(message, wire.Drop):
                self._drop(message.id)
            elif isinstance(message, wire.Trim):
                self._engine.trim()
            else:
                self._channel.send(wire.Pong())

    def _start(self, message: wire.Start) -> None:
        if self._embedder.start(message.id):
            return
        prepared = self._prepared.get(message.id)
        if prepared is None:
            return
        request = prepared.request
        output = self._output(message.candidate, request, len(prepared.tokens))
        if message.tokens:
            output.feed(message.tokens)
        sequence = Sequence(
            id=next(self._sequence_ids),
            tokens=[*prepared.tokens, *message.tokens],
            produced=len(message.tokens),
            sampling=evolve(request.sampling, seed=message.seed),
            logprobs=request.logprobs,
        )
        try:
            self._engine.add(sequence)
        except LmxError as error:
            failed = wire.Failed(message.candidate, error.message)
            self._channel.send(wire.Stepped((wire.Routed(message.id, failed),)))
            return
        self._running[sequence.id] = _Running(message.id, message.candidate, output)

    def _output(
        self, candidate: int, request: GenerationRequest, prompt_tokens: int
    ) -> CandidateOutput:
        # The last token of an answer takes no room in the context: nothing is computed after it.
        room = self._engine.limits.context_length - prompt_tokens + 1
        return CandidateOutput(
            candidate,
            tokenizer=self._engine.tokenizer,
            parser=self._format.parser(""),
            stops=request.stop,
            budget=room if request.max_tokens is None else min(room, request.max_tokens),
            strip_space=isinstance(request.prompt, ChatPrompt),
        )

    def _drop(self, request_id: int) -> None:
        self._prepared.pop(request_id, None)
        self._embedder.drop(request_id)
        for sequence_id in [key for key, run in self._running.items() if run.id == request_id]:
            self._forget(sequence_id)

    def _forget(self, sequence_id: int) -> None:
        self._engine.remove(sequence_id)
        del self._running[sequence_id]

    def _events(self, step: Step) -> Iterator[wire.Routed]:
        for progress in step.progress:
            run = self._running[progress.id]
            moved = PromptProgress(
                run.candidate, progress.processed, progress.total, progress.cached
            )
            yield wire.Routed(run.id, moved)
        for output in step.outputs:
            run = self._running[output.id]
            for event in run.output.feed(output.tokens, output.logprobs):
                yield wire.Routed(run.id, event)
            if run.output.finished:
                self._forget(output.id)
        for sequence_id in step.preempted:
            run = self._running.pop(sequence_id)
            yield wire.Routed(run.id, wire.Preempted(run.candidate))
        for sequence_id, reason in step.failed:
            run = self._running.pop(sequence_id)
            yield wire.Routed(run.id, wire.Failed(run.candidate, reason))
