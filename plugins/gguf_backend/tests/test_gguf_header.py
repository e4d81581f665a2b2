"""What the reader accepts, and that it refuses everything else quickly and in clear words."""

from __future__ import annotations

import pickle
import random
import struct
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest
from lmx_gguf_backend.header import TENSOR_TYPES, read_header
from lmx_gguf_backend.model_file import read_model

from lmx_kernel.errors import ModelUnusableError


def test_reads_a_real_file(demo_path: Path) -> None:
    model = read_model(demo_path)
    assert (model.architecture, model.quantization) == ("llama", "Q4_1")
    assert model.vocabulary == 49152
    assert model.integer("llama.context_length") == 8192
    assert len(read_header(demo_path).tensors) == 272
    assert model.weights_bytes == 96_576_768


def test_reads_the_tiny_file(tiny_path: Path) -> None:
    model = read_model(tiny_path)
    assert model.vocabulary == 300
    assert model.size_bytes == tiny_path.stat().st_size


def test_knows_the_librarys_tensor_types() -> None:
    import ctypes

    import llama_cpp

    folder = Path(llama_cpp.__file__).parent / "lib"
    library = ctypes.CDLL(str(next(folder.glob("libggml-base.*"))))
    library.ggml_type_size.restype = ctypes.c_size_t
    library.ggml_blck_size.restype = ctypes.c_int64
    for number, known in TENSOR_TYPES.items():
        sizes = (library.ggml_blck_size(number), library.ggml_type_size(number))
        assert sizes == (known.block, known.block_bytes), known.name


def refusal(path: Path) -> str:
    with pytest.raises(ModelUnusableError) as error:
        read_model(path)
    assert str(path.parent) not in error.value.message
    return error.value.message


def test_missing_file(tmp_path: Path) -> None:
    assert "No such file" in refusal(tmp_path / "none.gguf")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "ends too early"),
        (b"GGML" + bytes(100), "not a GGUF file"),
        (b"GGUF" + struct.pack("<IQQ", 1, 0, 0), "version 1"),
        (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "version"),
        (b"GGUF" + struct.pack("<IQQ", 3, 1 << 60, 0), "tensors"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1 << 60), "metadata"),
        (b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 1 << 62), "name of"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 0), "no tensors"),
    ],
)
def test_not_a_model(tmp_path: Path, data: bytes, words: str) -> None:
    path = tmp_path / "bad.gguf"
    path.write_bytes(data)
    assert words in refusal(path)


@pytest.mark.parametrize("kind", [0, 8, 9, 12])
def test_claims_cost_nothing(tmp_path: Path, kind: int) -> None:
    """160 bytes that claim an array of 2^61 elements."""
    head = b"GGUF" + struct.pack("<IQQ", 3, 1, 1) + struct.pack("<Q", 1) + b"a"
    bomb = head + struct.pack("<IIQ", 9, kind, 1 << 61)
    path = tmp_path / "bomb.gguf"
    path.write_bytes(bomb + bytes(160 - len(bomb)))
    tracemalloc.start()
    refusal(path)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 4 << 20


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("llama.block_count", 0, "impossible llama.block_count"),
        ("llama.block_count", 1 << 31, "impossible llama.block_count"),
        ("llama.context_length", 0, "impossible llama.context_length"),
        ("llama.embedding_length", (1 << 32) - 1, "impossible llama.embedding_length"),
        ("llama.attention.head_count", 0, "impossible llama.attention.head_count"),
        ("llama.attention.layer_norm_rms_epsilon", 0.0, "impossible"),
        ("llama.attention.layer_norm_rms_epsilon", -1e-5, "impossible"),
        ("llama.attention.layer_norm_rms_epsilon", float("nan"), "impossible"),
        ("llama.attention.layer_norm_rms_epsilon", float("inf"), "impossible"),
        ("general.architecture", "other", "does not say"),
        ("tokenizer.ggml.tokens", [], "no vocabulary"),
    ],
)
def test_impossible_metadata(tiny, tmp_path: Path, key: str, value: object, words: str) -> None:
    tiny.metadata[key] = (tiny.metadata[key][0], value)
    assert words in refusal(tiny.write(tmp_path / "bad.gguf"))


@pytest.mark.parametrize(
    "key",
    ["general.architecture", "llama.block_count", "llama.context_length", "tokenizer.ggml.model"],
)
def test_missing_metadata(tiny, tmp_path: Path, key: str) -> None:
    del tiny.metadata[key]
    assert "does not" in (message := refusal(tiny.write(tmp_path / "bad.gguf"))) or "no" in message


@pytest.mark.parametrize(
    ("kind", "words"), [(28, "unsupported type 28"), (5, "type 5"), (77, "77")]
)
def test_unusable_weights(tiny, tmp_path: Path, kind: int, words: str) -> None:
    shape, _, data = tiny.tensors["output.weight"]
    tiny.tensors["output.weight"] = (shape, kind, data)
    assert words in refusal(tiny.write(tmp_path / "bad.gguf"))


def test_quantised_norm(tiny, tmp_path: Path) -> None:
    tiny.tensors["output_norm.weight"] = ((64,), 8, bytes(68))
    assert "norm or bias" in refusal(tiny.write(tmp_path / "bad.gguf"))


@pytest.mark.parametrize("shape", [(0, 300), (64, 1 << 62), (63, 300)])
def test_impossible_shapes(tiny, tmp_path: Path, shape: tuple[int, int]) -> None:
    data = tiny.tensors["output.weight"][2]
    tiny.tensors["output.weight"] = (shape, 8, data)
    refusal(tiny.write(tmp_path / "bad.gguf"))


def test_overlapping_tensors(tiny, tmp_path: Path) -> None:
    shape, kind, data = tiny.tensors["output.weight"]
    tiny.tensors["output.weight"] = (shape, kind, data[:64])
    assert "does not lie where" in refusal(tiny.write(tmp_path / "bad.gguf"))


def test_every_truncation_is_refused(tiny, tmp_path: Path) -> None:
    data, header = tiny.bytes(), len(tiny.header())
    path = tmp_path / "cut.gguf"
    for length in [*range(0, header, 97), header, len(data) // 2, len(data) - 1]:
        path.write_bytes(data[:length])
        refusal(path)


NUMBERS = (0, 1, 7, 0x7F, 0x80, 0xFF, 1 << 16, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 40,
           1 << 60, (1 << 63) - 1, (1 << 64) - 1)  # fmt: skip

LOAD_EACH = """
import sys
from pathlib import Path
sys.path[:0] = sys.argv[1].split(":")
from lmx_gguf_backend.context import Context, Piece
from lmx_gguf_backend.library import Model
from lmx_gguf_backend.settings import GgufSettings
from lmx_kernel.errors import LmxError
from lmx_kernel.types import LoadOptions
options = LoadOptions(context_length=256, parallel=1, cache_tokens=256)
for path in sorted(Path(sys.argv[2]).glob("*.gguf")):
    print(path.name, flush=True)
    try:
        model = Model.open(path, GgufSettings(threads=1))
    except LmxError:
        continue
    context = Context.open(model, options, GgufSettings(), 1)
    context.compute([Piece(0, [1, 2, 3], 0, 1)])
    context.close()
    model.close()
"""


def test_mutated_headers(tiny, tmp_path: Path) -> None:
    """300 mutated headers: each is refused, or the library takes it without dying."""
    good, end = tiny.bytes(), len(tiny.header())
    dice, passed = random.Random(13), 0
    for number in range(300):
        data = bytearray(good)
        at, width = dice.randrange(end - 8), dice.choice((1, 1, 4, 8))
        data[at : at + width] = dice.choice(NUMBERS).to_bytes(8, "little")[:width]
        path = tmp_path / f"{number:03}.gguf"
        path.write_bytes(data)
        try:
            read_model(path)
            passed += 1
        except ModelUnusableError:
            path.unlink()
    assert 0 < passed < 250
    paths = ":".join(path for path in sys.path if path)
    loader = [sys.executable, "-c", LOAD_EACH, paths, str(tmp_path)]
    done = subprocess.run(loader, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout[-100:] + done.stderr[-1000:]
    assert len(done.stdout.split()) == passed


def test_only_what_is_used_of_the_metadata_is_kept(tiny, tmp_path: Path) -> None:
    usual = len(pickle.dumps(read_model(tiny.write(tmp_path / "model.gguf"))))
    tiny.metadata |= {f"array {number}": ((4,), [number] * 1000) for number in range(2000)}
    tiny.metadata |= {f"text {number}": (8, "x" * 9999) for number in range(200)}
    tiny.metadata["tokenizer.chat_template"] = (8, "x" * (1 << 20))
    tracemalloc.start()
    model = read_model(tiny.write(tmp_path / "model.gguf"))
    kept_bytes = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert abs(len(pickle.dumps(model)) - usual) < 100
    assert kept_bytes < 1 << 20
    assert model.text("lmx.capabilities") == "chat completion"


def test_long_texts_are_cut(tiny, tmp_path: Path) -> None:
    tiny.metadata["general.description"] = (8, "x" * (1 << 20))
    header = read_header(tiny.write(tmp_path / "long.gguf"))
    assert len(header.metadata["general.description"]) < 1 << 20
    assert header.metadata["general.file_type"] == 0
