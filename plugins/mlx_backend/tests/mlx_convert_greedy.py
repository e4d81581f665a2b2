"""Run as a program: what a folder's model says after prompts. In a process of its own, so that it
may start with OpenBLAS in place: MLX's own matrix library takes a minute and a half for it.

``python mlx_convert_greedy.py FOLDER COUNT < prompts.json`` prints the tokens as JSON.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from lmx_mlx_backend.blas import blas_env


def greedy(folder: Path, prompts: list[list[int]], count: int) -> list[list[int]]:
    """Return ``count`` tokens after each of the prompts, which are all of one length."""
    command = [sys.executable, __file__, str(folder), str(count)]
    env = os.environ | blas_env(threads=1)  # more would spin on a busy machine
    done = subprocess.run(
        command, input=json.dumps(prompts), env=env, stdout=subprocess.PIPE, text=True, check=True
    )
    return json.loads(done.stdout)


def answers(folder: Path, prompts: list[list[int]], count: int) -> list[list[int]]:
    """Do it here, for all prompts at once."""
    import mlx.core as mx
    from mlx_lm.models.cache import make_prompt_cache
    from mlx_lm.utils import load_model

    model = load_model(folder)[0]
    cache = make_prompt_cache(model)
    chosen: list[list[int]] = []
    tokens = mx.array(prompts)
    for _ in range(count):
        tokens = mx.argmax(model(tokens, cache=cache)[:, -1], axis=-1)[:, None]
        chosen.append(tokens[:, 0].tolist())
    return [list(answer) for answer in zip(*chosen, strict=True)]


if __name__ == "__main__":
    print(json.dumps(answers(Path(sys.argv[1]), json.load(sys.stdin), int(sys.argv[2]))))  # noqa: T201
