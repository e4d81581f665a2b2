"""Texts of any length and kind are tokenised, or refused: none ends the process."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from lmx_gguf_backend.text_pieces import MAX_CHARS, split_text

PROSE = (
    "The quick brown fox, aged 12, jumps over 3.14 lazy dogs!\n\n\tIt's a naïve café — "
    "日本語。そして、次の文。 def f(x): return {'a': [1, 2]}  # odd\r\n"
)
RUNS = ["a", " ", "\t", "\n", "7", "!", "語", "🙂", "\u0301", "aB"]

# Every kind of splitting by regular expressions that the library knows and a vocabulary of bytes
# and merges can have.
KINDS = [
    "default", "llama3", "deepseek-llm", "deepseek-coder", "falcon", "mpt", "starcoder", "gpt-2",
    "refact", "command-r", "qwen2", "olmo", "dbrx", "smollm", "tekken", "gpt-4o", "chatglm-bpe",
    "viking", "jais", "exaone", "bloom", "codeshell", "llama4", "superbpe", "trillion", "hunyuan",
    "kimi-k2", "seed-coder", "qwen35", "deepseek-v3",
]  # fmt: skip

CHILD = """
import json, sys
import llama_cpp as llama
from lmx_gguf_backend.tokenizer import GgufTokenizer
from lmx_gguf_backend.library import Model

path, pre, runs, length = sys.argv[1], sys.argv[2], json.loads(sys.argv[3]), int(sys.argv[4])
parameters = llama.llama_model_default_params()
parameters.vocab_only = True
override = (llama.llama_model_kv_override * 2)()
override[0].tag = llama.LLAMA_KV_OVERRIDE_TYPE_STR
override[0].key = b"tokenizer.ggml.pre"
override[0].value.val_str = pre.encode()
parameters.kv_overrides = override
handle = llama.llama_model_load_from_file(path.encode(), parameters)
if not handle:
    print("unknown")
    raise SystemExit
vocabulary = llama.llama_model_get_vocab(handle)
tokenizer = GgufTokenizer(
    vocabulary=vocabulary, token_bytes=(), special_ids=frozenset(), end_ids=frozenset(),
    chat_template=None, template_texts={},
    splits_by_regex=llama.llama_vocab_type(vocabulary) == llama.LLAMA_VOCAB_TYPE_BPE,
)
for run in runs:
    assert tokenizer.encode(run * (length // len(run)), add_special=False, parse_special=False)
print("ok")
"""


def tokenise(path: Path, pre: str, runs: list[str], length: int) -> str:
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(path), pre, json.dumps(runs), str(length)],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, (pre, done.returncode, done.stderr[-500:])
    return done.stdout.strip()


@pytest.mark.parametrize("pre", KINDS)
def test_a_run_of_equal_characters_never_ends_the_process(demo_path, pre):
    assert tokenise(demo_path, pre, RUNS, 60_000) in ("ok", "unknown")


@pytest.mark.full
@pytest.mark.parametrize("pre", KINDS)
def test_a_run_of_ten_million_characters_never_ends_the_process(demo_path, pre):
    assert tokenise(demo_path, pre, RUNS, 10_000_000) in ("ok", "unknown")


def test_a_long_text_has_the_tokens_of_the_whole(demo_engine, monkeypatch):
    tokenizer, text = demo_engine.tokenizer, PROSE * 400
    assert len([*split_text(text)]) > 5
    found = tokenizer.encode(text, add_special=False, parse_special=True)
    monkeypatch.setattr("lmx_gguf_backend.text_pieces.MAX_CHARS", len(text))
    assert found == tokenizer.encode(text, add_special=False, parse_special=True)


@pytest.mark.parametrize("text", [PROSE * 400, "a" * 50_000, "", "x"])
def test_pieces_are_short_and_lose_nothing(text):
    pieces = [*split_text(text)]
    assert "".join(pieces) == text
    assert max(map(len, pieces)) <= MAX_CHARS
