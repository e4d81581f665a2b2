"""Tiny models with random weights, in mlx-lm's form."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten

TEMPLATE = "{{ bos_token }}{% for m in messages %}{{ m.content }}{% endfor %}"


def write_tokenizer(folder: Path) -> None:
    """Write a byte-level tokenizer: a token for each byte after the control tokens."""
    from tokenizers import (  # noqa: PLC0415 - seldom needed
        AddedToken,
        Tokenizer,
        decoders,
        models,
        pre_tokenizers,
        processors,
    )

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    names = ["<s>", "<|im_end|>", *letters]
    tokenizer = Tokenizer(models.BPE(vocab={n: i for i, n in enumerate(names)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken("<s>", special=True)])
    tokenizer.add_special_tokens([AddedToken("<|im_end|>", special=True)])
    tokenizer.add_tokens([AddedToken("<tool>", special=False)])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 0)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    texts = {"bos_token": "<s>", "eos_token": {"content": "<|im_end|>"}, "chat_template": TEMPLATE}
    (folder / "tokenizer_config.json").write_text(json.dumps(texts))


def write_model(
    folder: Path, model: Any, config: Mapping[str, Any], *, scale: float = 0.15
) -> Path:
    """Write a model with random weights, and return its folder.

    :param model: what ``Model`` of an architecture makes of ``config``.
    :param scale: the standard deviation of the weights.
    """
    folder.mkdir(parents=True, exist_ok=True)
    keys = iter(mx.random.split(mx.random.key(7), 1000))
    weights = {
        name: mx.random.normal(value.shape, key=next(keys)) * scale if value.ndim > 1 else value
        for name, value in tree_flatten(model.parameters())
    }
    mx.save_safetensors(str(folder / "model.safetensors"), weights, {"format": "mlx"})
    (folder / "config.json").write_text(json.dumps(dict(config)))
    write_tokenizer(folder)
    return folder
