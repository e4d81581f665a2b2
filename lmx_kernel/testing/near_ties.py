"""Whether two texts of one seed differ only where the arithmetic of a batch decides.

Some libraries compute a row with other kernels when it is alone than among others, so logits differ
in their last digits. Where two tokens are as good as equally likely, or a draw falls on the border
of two, the text goes on with the other one.
"""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Sequence as Seq
from typing import Any

from lmx_kernel.testing.driver import Driver
from lmx_kernel.types import Sampling

NOISE = 0.005
"""Of a logit; llama.cpp's differ by 0.001 to 0.004 between batches of a tiny model."""

TRIALS = 300


class _Seen:
    """Remembers the logits that a token is drawn from: penalties need them as they are, and
    log-probabilities are shifted.
    """

    row: Any = None

    def adjust(self, row: Any, tokens: Seq[int]) -> None:
        """Take a copy of ``row``."""
        self.row = row.copy()


def is_near_tie(
    driver: Driver,
    prompt: Seq[int],
    texts: tuple[Seq[int], Seq[int]],
    sampling: Sampling,
    allowed: Seq[Collection[int]] = (),
) -> bool:
    """Return whether the second text is the first one up to a place where a little noise in the
    logits gives the second one's token.

    :param texts: what follows ``prompt``; they differ.
    :param allowed: the tokens that a mask allows at each place; empty for all.
    """
    import numpy as np  # noqa: PLC0415 - the extra `engine`, not needed by exact engines

    from lmx_kernel.engine.numpy_sampler import Sampler  # noqa: PLC0415

    first, second = texts
    place = next(n for n, (a, b) in enumerate(zip(first, second, strict=True)) if a != b)
    tokens, vocabulary = [*prompt, *first[:place]], len(driver.engine.tokenizer.token_bytes)
    seen = _Seen()
    driver.answer(tokens, 1, produced=place, processors={"seen": seen})
    logits = seen.row
    mask = None
    if place < len(allowed) and allowed[place]:
        mask = np.isin(np.arange(vocabulary), list(allowed[place]))
    dice = np.random.default_rng(1)
    for _ in range(TRIALS):
        sampler = Sampler(sampling, vocabulary, place)
        sampler.read(tokens)
        noise = dice.normal(0, NOISE, vocabulary).astype(np.float32)
        if sampler.choose(logits + noise, mask) == second[place]:
            return True
    return False
