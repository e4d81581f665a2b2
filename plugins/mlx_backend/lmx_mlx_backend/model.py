"""A model in memory: found by its architecture, loaded by mlx-lm, checked before it is used."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import mlx.core as mx
from attrs import define
from mlx import nn
from mlx.utils import tree_flatten
from mlx_lm import utils

from lmx_kernel.engine import ProgressCallback
from lmx_kernel.errors import ModelUnusableError
from lmx_mlx_backend import caches
from lmx_mlx_backend.architectures import distribution, find_plugin
from lmx_mlx_backend.batch_check import check_batch, prompt_of, prompted
from lmx_mlx_backend.deadline import deadline
from lmx_mlx_backend.prefill_budget import LEAST_ROWS

COMPUTE_ERRORS = (ArithmeticError, AssertionError, AttributeError, LookupError, MemoryError,
                  NameError, RuntimeError, TypeError, ValueError)  # fmt: skip
"""What MLX and a model's own code raise when they cannot compute something."""

FEW_ROWS = 8
"""A token with its drafts."""

WARM_UP_S = 1.0
"""What took less is measured twice: the first time a device makes its programs."""

PATIENCE_S = 60.0
"""A small model may take this long to be imported and built, and as long to compute a few rows."""

SLOW_BYTES_S = 50e6
"""A large one may take longer, at this many bytes of weights a second: a slow disk, or CPU."""


@define(eq=False)
class Model:
    """A loaded model.

    :param module: called with tokens of shape (rows, length) and a cache; gives logits.
    :param vocabulary: width of the logits.
    :param can_batch: whether its caches can be those of several sequences.
    :param can_keep: whether they can be copied and measured.
    :param can_draft: whether tokens that were computed in vain can be taken back.
    :param steps_s: what computing so many rows takes, in seconds.
    """

    module: Any
    vocabulary: int
    can_batch: bool
    can_keep: bool
    can_draft: bool
    steps_s: dict[int, float]

    @classmethod
    def open(
        cls, folder: Path, architecture: str, *, as_float32: bool, progress: ProgressCallback
    ) -> Model:
        """Load the model in ``folder``. Code that lies there is never run.

        :raises ModelUnusableError: files, architecture and weights do not fit together.
        """
        plugin = find_plugin(architecture)
        origin = f"plugin {distribution(plugin)}: " if plugin is not None else ""
        weights_s = _weights_bytes(folder) / SLOW_BYTES_S

        @contextmanager
        def step(share: float, work: str) -> Iterator[None]:
            progress(share, f"{origin}{work}")
            with deadline(PATIENCE_S + weights_s, work):
                yield

        try:
            with step(0.0, "building it"):
                module = _build(folder, plugin)
            if as_float32:
                module.set_dtype(mx.float32)
            for share in _compute_weights(module):
                progress(0.9 * share)
            with step(0.9, "computing a few tokens"):
                vocabulary = _try_out(module)
                can_batch, can_keep = _works(module, check_batch), _works(module, _copy)
                can_draft = caches.can_draft(caches.new(module))
                steps_s = _warm_up(module)
        except SystemExit as error:
            raise ModelUnusableError(f"{origin}it tried to end the process") from error
        except Exception as error:  # whatever a plugin's code may raise
            raise ModelUnusableError(f"{origin}{_first_line(error)}") from error
        return cls(module, vocabulary, can_batch, can_keep, can_draft, steps_s)

    @property
    def row_s(self) -> float:
        """What a row of a prompt takes, in seconds."""
        return self.steps_s[LEAST_ROWS] / LEAST_ROWS

    def close(self) -> None:
        """Free the weights."""
        self.module = None
        mx.clear_cache()


def _build(folder: Path, plugin: EntryPoint | None) -> nn.Module:
    def classes(config: dict[str, Any]) -> tuple[type[nn.Module], type]:
        if plugin is None:
            return utils._get_classes(config)  # noqa: SLF001
        source = plugin.load()
        return source.Model, source.ModelArgs

    return utils.load_model(folder, lazy=True, get_model_classes=classes)[0]


def _weights_bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))


def _compute_weights(module: nn.Module) -> Iterator[float]:
    """Bring the weights into memory one by one, and yield the share that is there.

    :raises ValueError: one of them is not a number.
    """
    weights = tree_flatten(module.parameters())
    total = sum(weight.nbytes for _, weight in weights) or 1
    done = 0
    for name, weight in weights:
        if mx.issubdtype(weight.dtype, mx.floating):
            if mx.isnan(weight).any().item():
                raise ValueError(f"the weights of {name} are not numbers (NaN)")
        else:
            mx.eval(weight)
        done += weight.nbytes
        yield done / total


def _try_out(module: Any) -> int:
    """Compute a few tokens and return how many logits come out.

    :raises ValueError: none, or not finite ones.
    """
    logits = module(mx.array([[0, 0]]), cache=caches.new(module))
    if logits.ndim != 3 or logits.shape[:2] != (1, 2):
        raise ValueError(f"the model gives logits of shape {logits.shape} for 2 tokens")
    if not mx.isfinite(logits.astype(mx.float32).max()).item():
        raise ValueError("the model computes numbers that are not finite")
    return int(logits.shape[-1])


def _warm_up(module: Any) -> dict[int, float]:
    """Compute a token, a few, and a piece of a prompt; return what each took, in seconds."""

    def measure(rows: int) -> float:
        started_s = time.perf_counter()
        mx.eval(module(mx.array([[0] * rows]), cache=caches.new(module)))
        return time.perf_counter() - started_s

    times = {rows: measure(rows) for rows in (LEAST_ROWS, 1, FEW_ROWS)}
    if sum(times.values()) > WARM_UP_S:
        return times
    return {rows: min(seconds, measure(rows)) for rows, seconds in times.items()}


def _works(module: Any, attempt: Callable[[Any], None]) -> bool:
    try:
        attempt(module)
    except COMPUTE_ERRORS:
        return False
    return True


def _copy(module: Any) -> None:
    """Let a cache be copied, measured and trimmed."""
    cache = caches.copy(prompted(module, prompt_of(3)))
    if caches.can_trim(cache):
        caches.trim(cache, 1)
    mx.eval(caches.arrays(cache))
    caches.size_bytes(cache)


def reason_of(error: Exception) -> str:
    """Return why something could not be computed, for the client."""
    return f"MLX could not compute it: {error}".splitlines()[0][:300]


def _first_line(error: Exception) -> str:
    """Return what went wrong in one line: mlx-lm lists a thousand tensors below its first."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    kind = "" if type(error) in (ValueError, TimeoutError) else f"{type(error).__name__}: "
    return f"{kind}{' '.join(lines[:2])}"[:400].rstrip(" .,:") or type(error).__name__
