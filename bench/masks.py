"""What masks cost: engines alone, with and without a grammar that allows the same text.

usage: [THREADS=1] python bench/masks.py [gguf] [mlx]      (threads of llama.cpp)

The grammar is JSON with long free strings, so nearly every token needs a mask of nearly the whole
vocabulary; a row with it and a row without take turns in one engine, and each keeps its best.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from common import head, median, row
from lmx_constraints.engine import GrammarEngine
from lmx_gguf_backend.backend import GgufBackend
from lmx_mlx_backend.backend import MlxBackend

from lmx_kernel.engine import Sequence
from lmx_kernel.text.constraints import ConstraintPlan
from lmx_kernel.text.formats import PlainFormat
from lmx_kernel.types import (
    ChatPrompt,
    Constraint,
    EngineSpec,
    GenerationRequest,
    LoadOptions,
    Location,
    Sampling,
)

HOME = Path(os.environ.get("LMX_HOME") or "~/.lmx").expanduser()
GGUF = HOME / "models/smollm2-135m-instruct/SmolLM2-135M-Instruct.Q4_1.gguf"
BACKENDS = {"gguf": GgufBackend, "mlx": MlxBackend}
OPTIONS = LoadOptions(context_length=1024, parallel=8, cache_tokens=8192)
PROMPT = "<|im_start|>user\nTell me a story about the sea.<|im_end|>\n<|im_start|>assistant\n"
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


@contextmanager
def engine(name: str, *, reproducible: bool = False) -> Iterator[Any]:
    """Open an engine on the demo model."""
    # the files beside this one have the names of the packages that the engines need
    sys.path[:] = [place for place in sys.path if Path(place) != Path(__file__).parent]
    backend = BACKENDS[name]()
    with tempfile.TemporaryDirectory() as folder:
        path = GGUF if name == "gguf" else _converted(Path(folder) / "small")
        place = path.parent if path.is_file() else path
        names = tuple(file.name for file in place.iterdir())
        card = backend.identify(Location("model", place, names))[0]
        module = __import__(f"lmx_{name}_backend.worker", fromlist=["worker"])
        threads = int(os.environ.get("THREADS", "0"))
        settings = {"device": "cpu"} if name == "mlx" else {"threads": threads}
        spec = EngineSpec(card=card, options=OPTIONS, settings=settings, reproducible=reproducible)
        opened = module.lmx_open_engine(spec, lambda *_: None)
        yield opened
        opened.close()


def _converted(folder: Path) -> Path:
    options = ["--output", str(folder), "--dtype", "float32", "--dequantize"]
    command = [sys.executable, "-P", "-m", "lmx_kernel", "convert", str(GGUF), *options]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return folder


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


def main() -> None:
    """Measure each backend in a process with the environment of its workers."""
    if name := os.environ.get("LMX_BENCH_BACKEND"):
        measure(name)
        return
    for name in sys.argv[1:] or BACKENDS:
        env = {**os.environ, **BACKENDS[name]().worker_env({}), "LMX_BENCH_BACKEND": name}
        subprocess.run([sys.executable, __file__], env=env, check=True)


if __name__ == "__main__":
    main()
