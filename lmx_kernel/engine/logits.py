"""Applies logits processors, for samplers that hold a row of logits as a numpy array."""

from __future__ import annotations

import math
import traceback
from collections.abc import Mapping
from collections.abc import Sequence as Seq
from typing import Any

from lmx_kernel.engine.protocol import LogitsProcessor

NO_TOKEN = "the logits processors left no token that could come next"  # noqa: S105 - no password


def apply_processors(processors: Mapping[str, LogitsProcessor], row: Any, tokens: Seq[int]) -> str:
    """Let processors change a row of logits, one after the other.

    :param row: a numpy array of float32, one for each token of the vocabulary; written to.
    :param tokens: what comes before: the prompt and the answer so far.
    :returns: why the sequence cannot go on; "" if it can. The row is of no use then.
    """
    for name, processor in processors.items():
        try:
            processor.adjust(row, tokens)
        # Other people's code: it must cost this sequence only.
        except (Exception, SystemExit) as error:  # noqa: BLE001
            traceback.print_exc()
            return f"the logits processor {name} failed: {type(error).__name__}"
    return "" if math.isfinite(row.max()) else NO_TOKEN
