"""What drafts gain in one engine: text that is copied, four such streams, and free prose.

usage: [THREADS=1] python bench/drafts.py [gguf] [mlx]

Each row compares the same requests with and without drafts, in turns, in one engine on the demo
model. So small a model does not copy, so the copies are dictated by masks; what is computed is the
same.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Any

import numpy as np
from attrs import define
from common import head, median, row
from engines import engine, for_each_backend, now_s

from lmx_kernel.engine import Sequence
from lmx_kernel.engine.drafts import CopySource
from lmx_kernel.types import Sampling

TOKENS, ROUNDS = 100, 2
STORY = "Tell me a long story about a lighthouse keeper and the sea."
FILE = """def total_price(items, taxes):
    total = 0
    for item in items:
        price = item.price * item.count
        for tax in taxes:
            if tax.applies_to(item):
                price = price + price * tax.rate
        total = total + price
    return round(total, 2)


def print_bill(customer, items, taxes):
    print("Bill for", customer.name)
    for item in items:
        print(item.name, item.count, "x", item.price)
    print("Total:", total_price(items, taxes))
"""
NEW = FILE.replace("total_price", "sum_of_bill")
EDIT = f"```python\n{FILE}```\n\nThe same file with sum_of_bill for total_price:\n\n```python\n"
NOTHING: list[int] = []
GOALS = {
    ("mlx", "one"): ">= 2.5 x",
    ("mlx", "four"): ">= 1.5 x",
    ("gguf", "one"): ">= 1.15 x",
    ("gguf", "four"): "",
}


class Dictated:
    """A mask that lets a model say one text, and forces nothing: each token is computed."""

    problem, is_complete = "", False

    def __init__(self, tokens: list[int]) -> None:
        self._left = list(tokens)

    def fill(self, row: Any) -> bool:
        if not self._left:
            return False
        row[:] = 0
        row[self._left[0] // 32] = np.uint32(1 << self._left[0] % 32).view(np.int32)
        return True

    def accept(self, tokens: list[int]) -> None:
        del self._left[: len(tokens)]

    def forced(self) -> list[int]:
        return []


@define
class Run:
    """One run of some sequences."""

    texts: list[list[int]]
    tokens_s: float
    drafted: int = 0
    accepted: int = 0


def run(
    engine: Any, prompts: list[list[int]], sampling: Sampling, says: list[int], *, drafts: bool
) -> Run:
    """Decode all prompts at once; the time counts from the first tokens on."""
    texts: dict[int, list[int]] = {}
    drafted = accepted = 0
    for tokens in prompts:
        key = next(KEYS)
        texts[key] = []
        source = CopySource(tokens) if drafts else None
        mask = Dictated(says) if says else None
        engine.add(
            Sequence(id=key, tokens=tokens, produced=0, sampling=sampling, mask=mask, drafts=source)
        )
    while not all(texts.values()):
        for output in engine.step().outputs:
            texts[output.id] += output.tokens
    began, before = now_s(), sum(map(len, texts.values()))
    while min(map(len, texts.values())) < TOKENS:
        for output in engine.step().outputs:
            texts[output.id] += output.tokens
            drafted, accepted = drafted + output.drafted, accepted + output.accepted
    took_s, after = now_s() - began, sum(map(len, texts.values()))
    for key in texts:
        engine.remove(key)
    found = [text[:TOKENS] for text in texts.values()]
    return Run(found, (after - before) / took_s, drafted, accepted)


def compare(
    engine: Any, prompts: list[list[int]], sampling: Sampling, says: list[int] = NOTHING
) -> str:
    """Return the speed with drafts over that without, and what else is to be known of it."""
    run(engine, prompts, sampling, says, drafts=True)
    pairs = [
        tuple(run(engine, prompts, sampling, says, drafts=drafts) for drafts in (False, True))
        for _ in range(ROUNDS)
    ]
    plain, with_drafts = pairs[-1]
    same = sum(a == b for a, b in zip(plain.texts, with_drafts.texts, strict=True))
    ratio = median([drafted.tokens_s / plain.tokens_s for plain, drafted in pairs])
    share = with_drafts.accepted / max(with_drafts.drafted, 1)
    return (
        f"{plain.tokens_s:.0f} -> {with_drafts.tokens_s:.0f} tokens/s = {ratio:.2f} x, "
        f"{with_drafts.drafted} drafts, {share:.0%} right, {same} of {len(prompts)} texts equal"
    )


def measure(name: str) -> None:
    """Print the rows of one backend."""
    head(f"Drafts, {name} (SmolLM2-135M)")
    with engine(name) as opened:
        measure_engine(name, opened)


def measure_engine(name: str, engine: Any) -> None:
    bias = dict.fromkeys(engine.tokenizer.end_ids, -100.0)
    greedy = Sampling(temperature=0, seed=1)
    warm = Sampling(temperature=0.8, seed=1, logit_bias=bias)

    def encode(text: str) -> list[int]:
        return engine.tokenizer.encode(text, add_special=True, parse_special=True)

    edits = [encode(EDIT.replace("Bill", word)) for word in ("Bill", "Note", "List", "Page")]
    story = encode(f"<|im_start|>user\n{STORY}<|im_end|>\n<|im_start|>assistant\n")
    new = encode(NEW)
    one = compare(engine, edits[:1], greedy, new)
    row("a file with one name changed, one stream", one, GOALS[name, "one"])
    four = compare(engine, edits, greedy, new)
    row("four such streams", four, GOALS[name, "four"])
    row("free prose at temperature 0.8", compare(engine, [story], warm), ">= 0.97 x")


KEYS: Iterator[int] = count()

if __name__ == "__main__":
    for_each_backend(measure)
