"""What masks cost: engines alone, with and without a grammar that allows the same text.

usage: [THREADS=1] python bench/masks.py [gguf] [mlx]      (threads of llama.cpp)

The grammar is JSON with long free strings, so nearly every token needs a mask of nearly the whole
vocabulary; a row with it and a row without take turns in one engine, and each keeps its best.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

from common import head, median, row
from engines import PROMPT, engine, for_each_backend
from lmx_constraints.engine import GrammarEngine

from lmx_kernel.engine import Sequence
from lmx_kernel.text.constraints import ConstraintPlan
from lmx_kernel.text.formats import PlainFormat
from lmx_kernel.types import ChatPrompt, Constraint, GenerationRequest, Sampling

STORY = {
    "type": "array",
    "items": {"type": "string", "minLength": 200, "maxLength": 400},
    "minItems": 4,
}
RECORDS = {
    "type": "array",
    "minItems": 12,
    "items": {
        "type": "object",
        "properties": {"name": {"enum": ["Ada", "Bob"]}, "age": {"type": "integer"}},
        "required": ["name", "age"],
        "additionalProperties": False,
    },
}
TOKENS, ROUNDS = 40, 3


def decode(engine: Any, masks: list[Any], keys: Iterator[int]) -> list[float]:
    """Return the tokens/s of each of some rows, from the first token of all to the last."""
    tokens = engine.tokenizer.encode(PROMPT, add_special=True, parse_special=True)
    sampling = Sampling(
        temperature=0, seed=1, logit_bias=dict.fromkeys(engine.tokenizer.end_ids, -100.0)
    )
    rows = {next(keys): mask for mask in masks}
    for key, mask in rows.items():
        engine.add(Sequence(id=key, tokens=tokens, produced=0, sampling=sampling, mask=mask))
    said = dict.fromkeys(rows, 0)
    first, last = dict.fromkeys(rows, 0.0), dict.fromkeys(rows, 0.0)
    while any(count < TOKENS for count in said.values()):
        for output in engine.step().outputs:
            now = time.perf_counter()
            said[output.id] += len(output.tokens)
            first[output.id] = first[output.id] or now
            last[output.id] = now
    for key in rows:
        engine.remove(key)
    return [(said[key] - 1) / (last[key] - first[key]) for key in rows]


def compare(engine: Any, plan: ConstraintPlan, keys: Iterator[int]) -> dict[str, float]:
    """Return the best of some rounds in which all kinds of batches take turns."""
    best: dict[str, float] = {}
    for _ in range(ROUNDS):
        for name, masks in {
            "free": [None],
            "masked": [plan.mask()],
            "free of eight": [None] * 8,
            "beside masked": [None, *(plan.mask() for _ in range(7))],
        }.items():
            best[name] = max(best.get(name, 0.0), decode(engine, masks, keys)[0])
    return best


def first_token(engine: Any, make_plan: Any, keys: Iterator[int]) -> float:
    """Return the median time from asking to the first token, in seconds."""
    tokens = engine.tokenizer.encode(PROMPT, add_special=True, parse_special=True)
    times = []
    for _ in range(9):
        began, key = time.perf_counter(), next(keys)
        plan = make_plan()
        mask = plan.mask() if plan else None
        sampling = Sampling(temperature=0, seed=1)
        engine.add(Sequence(id=key, tokens=tokens, produced=0, sampling=sampling, mask=mask))
        while not engine.step().outputs:
            pass
        times.append(time.perf_counter() - began)
        engine.remove(key)
    return median(times)


def measure(name: str) -> None:
    head(f"Masks, {name}")
    with engine(name) as opened:
        keys = iter(range(1_000_000))
        constraints = GrammarEngine(opened.tokenizer, PlainFormat())
        asks = {"long strings": _ask(STORY), "records": _ask(RECORDS)}
        began = time.perf_counter()
        plans = {kind: constraints.plan(ask, "") for kind, ask in asks.items()}
        row("first schema of a model", f"{(time.perf_counter() - began) * 1e3:.0f} ms")
        for kind, plan in plans.items():
            assert plan is not None
            best = compare(opened, plan, keys)
            alone, free = (
                best["masked"] / best["free"],
                best["beside masked"] / best["free of eight"],
            )
            row(
                f"{kind}: alone",
                f"{best['masked']:.1f} of {best['free']:.1f} tokens/s = {alone:.2f} x",
                ">= 0.9 x",
            )
            row(
                f"{kind}: a free row beside seven",
                f"{free:.2f} x of one among free ones",
                ">= 0.9 x",
            )
        plain = first_token(opened, lambda: None, keys)
        masked = first_token(opened, lambda: constraints.plan(asks["records"], ""), keys)
        row("first token, schema seen before", f"{(masked - plain) * 1e3:+.1f} ms", "<= 50 ms")
        constraints.close()


def _ask(schema: dict[str, Any]) -> GenerationRequest:
    constraint = Constraint("json_schema", json.dumps(schema))
    return GenerationRequest(model="m", prompt=ChatPrompt(()), constraint=constraint)


if __name__ == "__main__":
    for_each_backend(measure)
