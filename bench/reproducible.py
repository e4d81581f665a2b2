"""What reproducible answers cost, and that they are: two engines on the demo model, in turns.

usage: [THREADS=1] python bench/reproducible.py [gguf] [mlx] [--count N]

Costs are the least of some rounds in which both engines take turns. Answers are compared bit for
bit, tokens and log-probabilities: each alone, among seven others, with its prompt in the cache,
gone on with by another engine (as after a crash), and with drafts that are right. The plain engine
is shown beside it.
"""

from __future__ import annotations

import sys
from itertools import count
from typing import Any

from common import head, row
from engines import PROMPT, engine, for_each_backend, now_s

from lmx_kernel.engine import Sequence
from lmx_kernel.engine.drafts import CopySource
from lmx_kernel.types import Sampling

TOKENS, ROUNDS = 40, 3
ANSWER, SAID = 24, 9
LONG = " ".join(f"word{number}" for number in range(220))
KEYS = count()
Trace = tuple[list[int], list[float]]


def decode_s(engine: Any, streams: int) -> float:
    """Return the time that a token takes, from the first token of all streams on."""
    tokens = engine.tokenizer.encode(PROMPT, add_special=True, parse_special=True)
    bias = dict.fromkeys(engine.tokenizer.end_ids, -100.0)
    keys = [next(KEYS) for _ in range(streams)]
    for key in keys:
        sampling = Sampling(temperature=0.8, seed=key, logit_bias=bias)
        engine.add(Sequence(id=key, tokens=tokens, produced=0, sampling=sampling))
    said = dict.fromkeys(keys, 0)

    def run(least: int) -> None:
        while min(said.values()) < least:
            for output in engine.step().outputs:
                said[output.id] += len(output.tokens)

    run(1)
    before, began = sum(said.values()), now_s()
    run(TOKENS)
    took_s = (now_s() - began) / (sum(said.values()) - before)
    for key in keys:
        engine.remove(key)
    return took_s


def prompt_s(engine: Any) -> float:
    """Return the time that a token of a long prompt takes."""
    engine.trim()
    tokens = engine.tokenizer.encode(LONG, add_special=True, parse_special=True)[:600]
    key, began = next(KEYS), now_s()
    engine.add(
        Sequence(id=key, tokens=tokens, produced=0, sampling=Sampling(temperature=0, seed=1))
    )
    while not engine.step().outputs:
        pass
    took_s = (now_s() - began) / len(tokens)
    engine.remove(key)
    return took_s


def costs(engines: list[Any], name: str) -> None:
    """Print how much more the second engine takes than the first."""
    measures = {
        "one stream": (lambda one: decode_s(one, 1), "<= 1.15 x"),
        "eight streams": (lambda one: decode_s(one, 8), "<= 1.10 x"),
        "a prompt of 600 tokens": (prompt_s, ""),
    }
    for what, (measure, goal) in measures.items():
        rounds = [[measure(one) for one in engines] for _ in range(ROUNDS)]
        plain, ours = (min(taken) for taken in zip(*rounds, strict=True))
        text = f"{ours * 1e3:.2f} of {plain * 1e3:.2f} ms a token = {ours / plain:.2f} x"
        row(f"{name}, {what}", text, goal)


def answers(engine: Any, asked: list[Sequence]) -> list[Trace]:
    """Return the answers to some sequences at once."""
    found: dict[int, Trace] = {one.id: ([], []) for one in asked}
    wanted = {one.id: ANSWER - one.produced for one in asked}
    for one in asked:
        engine.add(one)
    while asked:
        for output in engine.step().outputs:
            tokens, details = found[output.id]
            tokens += output.tokens
            for one in output.logprobs:
                details += [one.chosen, *dict(one.top).values()]
        for one in [one for one in asked if len(found[one.id][0]) >= wanted[one.id]]:
            engine.remove(one.id)
            asked.remove(one)
    return [(found[key][0][:most], found[key][1][: 3 * most]) for key, most in wanted.items()]


def sequence(engine: Any, number: int, said: list[int], **more: Any) -> Sequence:
    """Return a request, after what it has said already."""
    text = f"{PROMPT}{number} {LONG[: number * 37 % 900]}"
    tokens = engine.tokenizer.encode(text, add_special=True, parse_special=True)
    bias = dict.fromkeys(engine.tokenizer.end_ids, -100.0)
    sampling = Sampling(temperature=number % 2, seed=number, logit_bias=bias)
    if more.pop("drafted", None):
        more["drafts"] = CopySource([*tokens, *more.pop("guess")])
    return Sequence(id=next(KEYS), tokens=[*tokens, *said], produced=len(said), logprobs=2,
                    sampling=sampling, **more)  # fmt: skip


def equality(engine: Any, other: Any, requests: int, name: str) -> None:
    """Print how many answers are the same under each circumstance.

    :param other: an engine that is as new as after a crash.
    """
    alone, same = [], dict.fromkeys(("among seven", "cached", "gone on with", "drafted"), 0)
    for number in range(requests):
        engine.trim()
        alone += answers(engine, [sequence(engine, number, [])])
    engine.trim()
    for start in range(0, requests, 8):
        group = range(start, min(start + 8, requests))
        for kind in ("among seven", "cached"):
            found = answers(engine, [sequence(engine, number, []) for number in group])
            same[kind] += sum(
                one == alone[number] for number, one in zip(group, found, strict=True)
            )
    for number in range(requests):
        tokens, details = alone[number]
        [(rest, numbers)] = answers(other, [sequence(other, number, tokens[:SAID])])
        other.trim()
        same["gone on with"] += (rest, numbers) == (tokens[SAID:], details[3 * SAID :])
        [drafted] = answers(other, [sequence(other, number, [], drafted=True, guess=tokens)])
        same["drafted"] += drafted == alone[number]
    for kind, number in same.items():
        row(f"{name}, {kind}", f"{number} of {requests} the same", "all")


def measure(name: str) -> None:
    """Measure one backend."""
    words = sys.argv
    requests = int(words[words.index("--count") + 1]) if "--count" in words else 300
    head(f"Reproducible answers, {name}")
    with engine(name) as plain, engine(name, reproducible=True) as ours:
        assert ours.numerics.is_reproducible, ours.numerics.problem
        costs([plain, ours], name)
        with engine(name, reproducible=True) as other:
            equality(ours, other, requests, name)
        with engine(name) as other:
            equality(plain, other, min(requests, 16), f"{name} as usual")


if __name__ == "__main__":
    for_each_backend(measure)
