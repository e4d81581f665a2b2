"""``config.json`` from a GGUF file's metadata.

GGUF's keys are explained in ``docs/gguf.md`` of ggml-org/ggml; what holds when one is missing, in
``llama-model.cpp`` of ggml-org/llama.cpp.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from lmx_mlx_backend.convert.families import COMMON_KEYS
from lmx_mlx_backend.convert.source import FACTORS, Source
from lmx_mlx_backend.convert.tensors import GROUP
from lmx_mlx_backend.convert.tokenizer import end_ids, token_id

LAYERS_OF_27B = 62
"""Gemma 3 27B is the one whose attention is scaled by width / heads; llama.cpp knows it by this."""
NEUTRAL = {
    "attention.causal": True,
    "attn_logit_softcapping": 0.0,
    "final_logit_softcapping": 0.0,
    "rope.scaling.attn_factor": 1.0,
}
"""Keys that change the answers, and have no counterpart in mlx-lm's models of these families, with
the values at which they change nothing."""
TOLERANCE = 1e-4
"""Of recovered rotary factors: they were computed and stored in float32 (measured: 5e-5)."""


def config(source: Source) -> dict[str, Any]:
    """Return the folder's config, but for :func:`quantization`.

    :raises ModelUnusableError: metadata is missing, or asks for what mlx-lm's model does not do.
    """
    family = source.family
    for key, value in NEUTRAL.items():
        if source.own(key, value) != value:
            source.refuse(f"mlx-lm's {family.model_type} has no counterpart of {key}")
    values: dict[str, Any] = {"model_type": family.model_type}
    values |= {key: source.need(name) for key, name in {**COMMON_KEYS, **family.keys}.items()}
    values |= {key: source.need(*found) for key, found in family.defaults.items()}
    values |= {
        "num_key_value_heads": source.heads_kv,
        "head_dim": head_size(source),
        "vocab_size": source.tensors["token_embd.weight"].data.shape[0],
        "rope_theta": source.need("rope.freq_base", 10_000.0),
        "tie_word_embeddings": "output.weight" not in source.tensors,
        **family.constants,
    }
    if family.model_type == "gemma3_text":
        values["query_pre_attn_scalar"] = _gemma_scalar(source)
    if scaling := rope_scaling(source, values["rope_theta"]):
        values["rope_scaling"] = scaling
    return values | _special_ids(source)


def head_size(source: Source) -> int:
    """Return the width of an attention head.

    :raises ModelUnusableError: the rotary turns only a part of it, or values are of another width.
    """
    size = source.own("attention.key_length") or source.need("embedding_length") // source.heads
    for key in ("rope.dimension_count", "attention.value_length"):
        if source.own(key, size) != size:
            source.refuse(f"{key} {source.own(key)} is not the head's width {size}")
    return int(size)


def quantization(bits: Mapping[str, int]) -> dict[str, Any]:
    """Return the config's entry: the commonest form, and an entry for each module of another.

    mlx-lm (``utils.load_model``) packs a module if it has an entry or scales in the weights.

    :param bits: of a code, of each packed module, by mlx-lm's name; nothing packed, no entry.
    """
    if not bits:
        return {}
    usual = Counter(bits.values()).most_common(1)[0][0]
    odd = {
        module: {"group_size": GROUP, "bits": width}
        for module, width in bits.items()
        if width != usual
    }
    return {"quantization": {"group_size": GROUP, "bits": usual, **odd}}


def rope_scaling(source: Source, base: float) -> dict[str, Any] | None:
    """Return mlx-lm's ``rope_scaling``, None for plain rotary positions.

    :raises ModelUnusableError: a kind that is not known here, or factors that are not llama-3's.
    """
    if FACTORS in source.tensors:
        return _llama3_scaling(source, base)
    kind = source.own("rope.scaling.type", "linear")
    factor = source.own("rope.scaling.factor") or source.own("rope.scale_linear") or 1.0
    if kind not in ("none", "linear", "yarn"):
        source.refuse(f"cannot convert the rotary scaling {kind!r}")
    if kind == "none" or factor == 1.0:
        return None
    scaling = {"rope_type": kind, "factor": factor}
    if kind == "yarn":
        original = source.own("rope.scaling.original_context_length")
        scaling["original_max_position_embeddings"] = original or source.need("context_length")
    return scaling


def _llama3_scaling(source: Source, base: float) -> dict[str, Any]:
    """Return llama-3's four numbers, of which the file holds only what they lead to.

    Per frequency of wavelength w: f = 1 where w is short, ``factor`` where it is long, and between
    them 1 / f = s + (1 - s) / factor with s = (original / w - low) / (high - low): a straight line
    in 1 / w. Line and ends stay the same if original, low and high grow together, so low is 1.
    """
    stored = source.tensors[FACTORS].data.astype(np.float64)
    waves = _wavelengths(base, 2 * len(stored))
    factor = float(stored.max())
    between = (stored > 1 + TOLERANCE) & (stored < factor * (1 - TOLERANCE))
    if between.sum() < 2:
        source.refuse(f"{FACTORS} does not say how the rotary positions are scaled")
    smooth = (1 / stored[between] - 1 / factor) / (1 - 1 / factor)
    slope, start = np.polyfit(1 / waves[between], smooth, 1)
    high = 1 - 1 / start
    scaling = {
        "rope_type": "llama3",
        "factor": round(factor, 3),
        "low_freq_factor": 1.0,
        "high_freq_factor": round(float(high), 3),
        "original_max_position_embeddings": round(float(slope * (high - 1))),
    }
    if not np.allclose(llama3_factors(scaling, waves), stored, rtol=TOLERANCE, atol=0):
        source.refuse(f"{FACTORS} is not a scaling as llama-3's")
    return scaling


def llama3_factors(scaling: Mapping[str, Any], wavelengths: Any) -> Any:
    """Return what llama-3's rule divides the frequencies of these wavelengths by."""
    factor, low = scaling["factor"], scaling["low_freq_factor"]
    high, original = scaling["high_freq_factor"], scaling["original_max_position_embeddings"]
    smooth = np.clip((original / wavelengths - low) / (high - low), 0, 1)
    return 1 / (smooth + (1 - smooth) / factor)


def _wavelengths(base: float, size: int) -> Any:
    return 2 * np.pi * np.float64(base) ** (np.arange(0, size, 2) / size)


def _gemma_scalar(source: Source) -> int:
    if source.need("block_count") != LAYERS_OF_27B:
        return head_size(source)
    return int(source.need("embedding_length") // source.heads)


def _special_ids(source: Source) -> dict[str, Any]:
    ids = {name: token_id(source, name) for name in ("bos", "pad")}
    named: dict[str, Any] = {f"{name}_token_id": i for name, i in ids.items() if i is not None}
    if ends := end_ids(source):
        named["eos_token_id"] = ends
    return named
