"""What a draft model gains or costs in one engine.

usage: [THREADS=1] python bench/draft_models.py [gguf] [mlx]

There is no second small model of the demo model's vocabulary. So on MLX the last two thirds of the
demo model's layers are made to change nothing (their last matrices are 0), which takes as long; the
model of the first third drafts for it, and most drafts are right. On GGUF the demo model drafts for
itself, which cannot pay. Bad drafts are those for another seed. Each row compares the same requests
with and without drafts, in turns, in one engine: the best round of each.
"""

from __future__ import annotations

import json
import tempfile
from itertools import count
from pathlib import Path
from typing import Any

from common import head, row
from engines import GGUF, float32_model, for_each_backend, now_s, spec_of, worker_module

from lmx_kernel.engine import Sequence
from lmx_kernel.engine.draft_model import DraftModel, ModelDrafts
from lmx_kernel.engine.numpy_sampler import Sampler
from lmx_kernel.types import Sampling

TOKENS, ROUNDS = 64, 3
STORY = "Tell me a long story about a lighthouse keeper and the sea."
KEYS = count()


def idle_layers(folder: Path, *, are_left_out: bool) -> Path:
    """Write a model whose later layers change nothing, or that does not have them."""
    import mlx.core as mx  # noqa: PLC0415 - the GGUF rows do without

    new = folder.with_name("small" if are_left_out else "large")
    new.mkdir()
    for file in folder.iterdir():
        if file.suffix != ".safetensors":
            (new / file.name).write_bytes(file.read_bytes())
    config = json.loads((folder / "config.json").read_text())
    layers = config["num_hidden_layers"] // 3
    if are_left_out:
        (new / "config.json").write_text(json.dumps(config | {"num_hidden_layers": layers}))
    weights: dict[str, Any] = {}
    for file in folder.glob("*.safetensors"):
        for key, value in mx.load(str(file)).items():
            is_late = key.startswith("model.layers.") and int(key.split(".")[2]) >= layers
            if not is_late:
                weights[key] = value
            elif not are_left_out:
                is_last = key.endswith(("o_proj.weight", "down_proj.weight"))
                weights[key] = mx.zeros_like(value) if is_last else value
    mx.save_safetensors(str(new / "model.safetensors"), weights, {"format": "mlx"})
    return new


def run(
    engine: Any, model: DraftModel | None, prompts: list[list[int]], sampling: Sampling, wrong: int
) -> tuple[list[list[int]], float, int, int]:
    """Return the texts, tokens a second, and how many drafts were computed and right."""
    texts: dict[int, list[int]] = {}
    made, drafted, accepted = [], 0, 0
    began = now_s()
    for tokens in prompts:
        key = next(KEYS)
        texts[key] = []
        fields: dict[str, Any] = {}
        if model is not None:
            other = Sampling(temperature=1.5, seed=9, top_k=0) if wrong else sampling
            made.append(ModelDrafts(model, other, len(tokens)))
            fields = {"draft_model": made[-1]}
        engine.add(Sequence(id=key, tokens=tokens, produced=0, sampling=sampling, **fields))
    while min(map(len, texts.values())) < TOKENS:
        for output in engine.step().outputs:
            texts[output.id] += output.tokens
            drafted, accepted = drafted + output.drafted, accepted + output.accepted
    took_s = now_s() - began
    for key in texts:
        engine.remove(key)
    for one in made:
        one.close()
    given = sum(map(len, texts.values()))
    return [text[:TOKENS] for text in texts.values()], given / took_s, drafted, accepted


def compare(
    engine: Any, rows: Any, prompts: list[list[int]], sampling: Sampling, wrong: int = 0
) -> str:
    """Return the speed with a draft model over that without."""
    model = DraftModel("small", rows, Sampler)
    pairs = [
        tuple(run(engine, one, prompts, sampling, wrong) for one in (None, model))
        for _ in range(ROUNDS + 1)
    ][1:]
    model.trim()
    plain, drafted = pairs[-1]
    before, after = (max(pair[side][1] for pair in pairs) for side in (0, 1))
    same = sum(a == b for a, b in zip(plain[0], drafted[0], strict=True))
    return (
        f"{before:.1f} -> {after:.1f} tokens/s = {after / before:.2f} x, {drafted[2]} drafts, "
        f"{drafted[3] / max(drafted[2], 1):.0%} right, {same} of {len(prompts)} texts equal"
    )


def measure(name: str) -> None:
    """Print the rows of one backend."""
    with tempfile.TemporaryDirectory() as place:
        measure_models(name, Path(place))


def measure_models(name: str, folder: Path) -> None:
    module = worker_module(name)
    small = large = GGUF
    if name == "mlx":
        demo = float32_model(folder / "demo")
        small, large = (idle_layers(demo, are_left_out=left_out) for left_out in (True, False))
    engine = module.lmx_open_engine(spec_of(name, large), lambda *_: None)
    rows = module.lmx_open_draft_model(spec_of(name, small), lambda *_: None)

    bias = dict.fromkeys(engine.tokenizer.end_ids, -100.0)
    warm = Sampling(temperature=0.8, seed=1, logit_bias=bias)
    text = f"<|im_start|>user\n{STORY}<|im_end|>\n<|im_start|>assistant\n"
    story = engine.tokenizer.encode(text, add_special=True, parse_special=True)
    head(f"Draft models, {name} (SmolLM2-135M{', a third of it' if large is not small else ''})")
    goal = ">= 0.97 x" if name == "gguf" else ""
    row("prose at temperature 0.8, one stream", compare(engine, rows, [story], warm), goal)
    row("four streams", compare(engine, rows, [[*story, one] for one in range(4)], warm), goal)
    row("drafts that are wrong", compare(engine, rows, [story], warm, 1), ">= 0.97 x")
    rows.close()
    engine.close()


if __name__ == "__main__":
    for_each_backend(measure)
