"""Building the graph of a step while the step before is computed.

A model's Python code computes nothing: it builds a graph, for SmolLM2-135M in 4 of 70 CPU ms of a
step. On a CPU, MLX computes while its caller waits, but without the interpreter's lock, so another
thread can build what comes next from tokens that are not drawn yet.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import mlx.core as mx
from attrs import define, field, frozen

from lmx_mlx_backend import caches
from lmx_mlx_backend.caches import Cache
from lmx_mlx_backend.model import COMPUTE_ERRORS


@frozen(eq=False)
class Graph:
    """What a model makes of tokens; nothing of it is computed.

    :param tokens: the last ones of each row.
    :param cache: with these tokens.
    :param logits: after them.
    """

    model: Callable[..., mx.array]
    tokens: mx.array
    cache: Cache
    logits: mx.array

    def is_of(self, model: Callable[..., mx.array], tokens: mx.array) -> bool:
        """Return whether this model made it of these tokens; a changed batch has other ones."""
        return self.model is model and self.tokens is tokens


@define(eq=False)
class GraphBuilder:
    """Builds one graph at a time, in a thread of its own, for the thread that made the builder."""

    _stream: Any = field(init=False)
    _thread: ThreadPoolExecutor = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._stream = mx.default_stream(mx.default_device())
        self._thread = ThreadPoolExecutor(1, "graph")

    def begin(
        self, model: Callable[..., mx.array], tokens: mx.array, cache: Cache
    ) -> Future[Graph | None]:
        """Begin to build what a model makes of ``tokens``; the cache must stay as it is meanwhile.

        :returns: None if the model's code fails; the step will then show why.
        """
        return self._thread.submit(self._build, model, tokens, cache)

    def _build(
        self, model: Callable[..., mx.array], tokens: mx.array, cache: Cache
    ) -> Graph | None:
        copy = caches.copy(cache)
        try:
            with mx.stream(self._stream):
                return Graph(model, tokens, copy, model(tokens[:, None], cache=copy)[:, -1])
        except COMPUTE_ERRORS:
            return None

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown()
