"""Texts to vectors: a bounded batch at a time, taken from all requests that want some."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from itertools import islice

from attrs import define, field

from lmx_kernel.engine.protocol import Engine
from lmx_kernel.errors import LmxError
from lmx_kernel.types import Embedded, Finished
from lmx_kernel.worker import messages as wire

BATCH_TOKENS = 512
"""Messages are taken in between two batches. A text that is longer is a batch of its own."""


@define
class _Request:
    inputs: list[list[int]]
    vectors: list[bytes] = field(factory=list)

    @property
    def left(self) -> Iterator[list[int]]:
        return islice(self.inputs, len(self.vectors), None)


class Embedder:
    """Embeds for one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._running: dict[int, _Request] = {}

    @property
    def is_busy(self) -> bool:
        """Whether there is something to embed."""
        return bool(self._running)

    def start(self, request_id: int, inputs: list[list[int]]) -> None:
        """Begin with a request."""
        self._running[request_id] = _Request(inputs)

    def drop(self, request_id: int) -> None:
        """Forget a request; an unknown one is ignored."""
        self._running.pop(request_id, None)

    def step(self) -> Iterator[wire.Routed]:
        """Embed the next batch, and yield what became of the requests that it completes."""
        batch = self._next_batch()
        vectors = self._embed([tokens for _, tokens in batch])
        for (request_id, _), vector in zip(batch, vectors, strict=True):
            request = self._running.get(request_id)
            if request is None:
                continue  # another of its texts failed just now
            if isinstance(vector, LmxError):
                del self._running[request_id]
                yield wire.Routed(request_id, (wire.Failed(0, vector.message),))
            else:
                request.vectors.append(array("f", vector).tobytes())
                yield from self._end(request_id, request)

    def _end(self, request_id: int, request: _Request) -> Iterator[wire.Routed]:
        """End a request that is complete; one that is not makes way for the others."""
        del self._running[request_id]
        if len(request.vectors) < len(request.inputs):
            self._running[request_id] = request
            return
        embedded = Embedded(0, tuple(request.vectors))
        yield wire.Routed(request_id, (embedded, Finished(0, "stop")))

    def _next_batch(self) -> list[tuple[int, list[int]]]:
        """Return texts of all requests in turn: one at least, and as many more as fit."""
        batch: list[tuple[int, list[int]]] = []
        room = BATCH_TOKENS
        left = {request_id: request.left for request_id, request in self._running.items()}
        while left:
            for request_id, inputs in list(left.items()):
                tokens = next(inputs, None)
                if tokens is None:
                    del left[request_id]
                    continue
                room -= len(tokens)
                if batch and room < 0:
                    return batch
                batch.append((request_id, tokens))
        return batch

    def _embed(self, inputs: list[list[int]]) -> list[list[float] | LmxError]:
        """Return a vector for each text, or why there is none: one must not spoil the others."""
        try:
            return [*self._engine.embed(inputs)]
        except LmxError as error:
            if len(inputs) == 1:
                return [error]
            return [self._embed([one])[0] for one in inputs]
