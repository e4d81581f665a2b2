"""A logits processor: no sequence of so many tokens occurs twice in a prompt and its answer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from attrs import define

from lmx_kernel.api.engine import Tokenizer


@define
class NoRepeat:
    """Bars the tokens that would repeat a sequence.

    :param size: tokens of a sequence.
    """

    size: int

    def adjust(self, row: Any, tokens: Sequence[int]) -> None:
        """Bar what followed the last tokens before."""
        before = self.size - 1
        last = tokens[-before:]
        for start in range(len(tokens) - before):
            if tokens[start : start + before] == last:
                row[tokens[start + before]] = -math.inf


def no_repeat_ngram(options: Mapping[str, Any], tokenizer: Tokenizer) -> NoRepeat:
    """Return the processor of a request: ``{"size": 3}``.

    :raises ValueError: it has other options, or the size is none.
    """
    size = options.get("size", 3)
    if options.keys() - {"size"} or not isinstance(size, int) or size < 2:
        raise ValueError("takes a size of 2 tokens or more, and nothing else")
    return NoRepeat(size)
