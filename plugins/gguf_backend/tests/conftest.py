"""Two models to test with: a real small one, and a tiny random one written here byte by byte."""

from __future__ import annotations

import os
import random
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
from attrs import define, field
from lmx_gguf_backend.backend import GgufBackend

from lmx_kernel.testing.driver import Driver
from lmx_kernel.types import EngineSpec, LoadOptions, Location, ModelCard

os.environ.update(GgufBackend().worker_env({}))

DEMO = Path.home() / ".lmx/models/smollm2-135m-instruct/SmolLM2-135M-Instruct.Q4_1.gguf"
U32, F32, BOOL, STRING, ARRAY = 4, 6, 7, 8, 9
WIDTH, HIDDEN, LAYERS, VOCABULARY = 64, 128, 2, 300


# --- the tiny model


def _text(value: str) -> bytes:
    data = value.encode()
    return struct.pack("<Q", len(data)) + data


def _value(kind: int, value: Any) -> bytes:
    if kind == STRING:
        return _text(value)
    return struct.pack({2: "<H", U32: "<I", 5: "<i", F32: "<f", BOOL: "<?"}[kind], value)


def _pair(key: str, kind: int, value: Any) -> bytes:
    if isinstance(kind, tuple):
        items = b"".join(_value(kind[0], item) for item in value)
        return _text(key) + struct.pack("<IIQ", ARRAY, kind[0], len(value)) + items
    return _text(key) + struct.pack("<I", kind) + _value(kind, value)


def _vocabulary() -> list[str]:
    normal = [f"\u2581{chr(97 + i // 10)}{i % 10}" for i in range(VOCABULARY - 259)]
    return ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *normal]


@define
class TinyModel:
    """A llama of two layers with random weights. Change ``metadata`` or ``tensors``, then write.

    :ivar seed: of the weights.
    :ivar metadata: key -> (kind, value); a tuple of one kind is an array.
    :ivar tensors: name -> (shape, type, data).
    """

    seed: int = 7
    metadata: dict[str, tuple[Any, Any]] = field(factory=dict)
    tensors: dict[str, tuple[tuple[int, ...], int, bytes]] = field(factory=dict)

    def __attrs_post_init__(self) -> None:
        self.metadata = {
            "general.architecture": (STRING, "llama"),
            "general.file_type": (U32, 0),
            "llama.block_count": (U32, LAYERS),
            "llama.context_length": (U32, 512),
            "llama.embedding_length": (U32, WIDTH),
            "llama.feed_forward_length": (U32, HIDDEN),
            "llama.attention.head_count": (U32, 2),
            "llama.attention.head_count_kv": (U32, 1),
            "llama.attention.layer_norm_rms_epsilon": (F32, 1e-5),
            "tokenizer.ggml.model": (STRING, "llama"),
            "tokenizer.ggml.tokens": ((STRING,), _vocabulary()),
            "tokenizer.ggml.scores": ((F32,), [-float(i) for i in range(VOCABULARY)]),
            "tokenizer.ggml.token_type": ((5,), [2, 3, 3] + [6] * 256 + [1] * (VOCABULARY - 259)),
            "tokenizer.ggml.bos_token_id": (U32, 1),
            "tokenizer.ggml.eos_token_id": (U32, 2),
            "tokenizer.ggml.add_bos_token": (BOOL, True),
            "tokenizer.chat_template": (STRING, "{{ bos_token }}{{ messages[0].content }}"),
        }
        shapes = {"token_embd": (WIDTH, VOCABULARY), "output": (WIDTH, VOCABULARY)}
        shapes |= {"output_norm": (WIDTH,)}
        for layer in range(LAYERS):
            shapes |= {
                f"blk.{layer}.{name}": shape
                for name, shape in {
                    "attn_norm": (WIDTH,), "ffn_norm": (WIDTH,),
                    "attn_q": (WIDTH, WIDTH), "attn_output": (WIDTH, WIDTH),
                    "attn_k": (WIDTH, WIDTH // 2), "attn_v": (WIDTH, WIDTH // 2),
                    "ffn_gate": (WIDTH, HIDDEN), "ffn_up": (WIDTH, HIDDEN),
                    "ffn_down": (HIDDEN, WIDTH),
                }.items()
            }  # fmt: skip
        dice = random.Random(self.seed)
        for name, shape in shapes.items():
            count = shape[0] * (shape[1] if len(shape) > 1 else 1)
            numbers = [dice.gauss(0, 0.15) if len(shape) > 1 else 1.0 for _ in range(count)]
            self.tensors[f"{name}.weight"] = (shape, 0, struct.pack(f"<{count}f", *numbers))

    def header(self) -> bytes:
        """Return everything before the tensors' data, padded."""
        parts = [b"GGUF", struct.pack("<IQQ", 3, len(self.tensors), len(self.metadata))]
        parts += [_pair(key, kind, value) for key, (kind, value) in self.metadata.items()]
        offset = 0
        for name, (shape, kind, data) in self.tensors.items():
            parts.append(_text(name) + struct.pack(f"<I{len(shape)}Q", len(shape), *shape))
            parts.append(struct.pack("<IQ", kind, offset))
            offset += -(-len(data) // 32) * 32
        header = b"".join(parts)
        return header + bytes(-len(header) % 32)

    def bytes(self) -> bytes:
        """Return the whole file."""
        data = [d + bytes(-len(d) % 32) for _, _, d in self.tensors.values()]
        return self.header() + b"".join(data)

    def write(self, path: Path) -> Path:
        """Write the file and return its path."""
        path.write_bytes(self.bytes())
        return path


@pytest.fixture
def tiny() -> TinyModel:
    """A tiny model to change and write."""
    return TinyModel()


@pytest.fixture(scope="session")
def tiny_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model, written as it is."""
    return TinyModel().write(tmp_path_factory.mktemp("models") / "tiny.gguf")


@pytest.fixture(scope="session")
def demo_path() -> Path:
    """The real model's file."""
    path = Path(os.environ.get("LMX_DEMO_MODEL", DEMO))
    if not path.is_file():
        pytest.fail(f"the demo model is missing: {path} (`make test` fetches it)", pytrace=False)
    return path


# --- engines


def card_of(path: Path) -> ModelCard:
    """Return the card that the backend gives the file."""
    return GgufBackend().identify(Location("model", path.parent, (path.name,)))[0]


def open_driver(
    path: Path,
    context: int,
    parallel: int,
    cache: int,
    *,
    reproducible: bool = False,
    **settings: Any,
) -> Driver:
    """Open an engine on the file at ``path``."""
    from lmx_gguf_backend.worker import lmx_open_engine

    options = LoadOptions(context_length=context, parallel=parallel, cache_tokens=cache)
    spec = EngineSpec(
        card=card_of(path), options=options, settings=settings, reproducible=reproducible
    )
    return Driver(lmx_open_engine(spec, lambda *_: None))


@pytest.fixture
def open_tiny(tiny_path: Path) -> Iterator[Callable[..., Driver]]:
    """Opens engines on the tiny model."""
    drivers: list[Driver] = []

    def opener(
        context: int = 512,
        parallel: int = 4,
        cache: int = 2048,
        path: Path = tiny_path,
        **settings: Any,
    ) -> Driver:
        # one thread: a row's numbers depend less on who runs beside it (near-ties stay)
        drivers.append(open_driver(path, context, parallel, cache, **({"threads": 1} | settings)))
        return drivers[-1]

    yield opener
    for driver in drivers:
        driver.engine.close()


@pytest.fixture
def open_rows(tiny_path: Path, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Opens draft models: the tiny model, or one of other weights."""
    from lmx_gguf_backend.worker import lmx_open_draft_model

    other = TinyModel(seed=8).write(tmp_path / "other.gguf")
    with ExitStack() as stack:

        def opener(
            is_same: bool = True, slots: int = 4, context: int = 512, cache: int = 2048
        ) -> Any:
            options = LoadOptions(context_length=context, parallel=slots, cache_tokens=cache)
            card = card_of(tiny_path if is_same else other)
            spec = EngineSpec(card=card, options=options, settings={"threads": 1})
            return stack.enter_context(closing(lmx_open_draft_model(spec, lambda *_: None)))

        yield opener


@pytest.fixture
def tiny_driver(open_tiny: Callable[..., Driver]) -> Driver:
    """An engine on the tiny model."""
    return open_tiny()


@pytest.fixture(scope="session")
def demo_engine(demo_path: Path) -> Iterator[Any]:
    """One engine on the real model, for the whole session."""
    engine = open_driver(demo_path, context=2048, parallel=8, cache=4096).engine
    yield engine
    engine.close()


@pytest.fixture
def demo(demo_engine: Any) -> Iterator[Driver]:
    """The real model, with no sequences running."""
    driver = Driver(demo_engine)
    yield driver
    for number in driver.tokens:
        demo_engine.remove(number)


# --- tiny models with recurrent layers


def _set_up(tiny: TinyModel, kind: str, own: dict[str, Any]) -> None:
    tiny.metadata = {k: v for k, v in tiny.metadata.items() if not k.startswith("llama.")}
    own = {
        "block_count": LAYERS,
        "context_length": 1024,
        "embedding_length": WIDTH,
        "vocab_size": VOCABULARY,
        **own,
    }
    tiny.metadata["general.architecture"] = (STRING, kind)
    for key, value in own.items():
        is_list = isinstance(value, list)
        tiny.metadata[f"{kind}.{key}"] = ((5,), value) if is_list else (U32, value)
    tiny.metadata[f"{kind}.attention.layer_norm_rms_epsilon"] = (F32, 1e-5)


def _fill(tiny: TinyModel, shapes: dict[str, tuple[int, ...]]) -> None:
    dice, tiny.tensors = random.Random(11), {}
    for name, shape in shapes.items():
        count = shape[0] * (shape[1] if len(shape) > 1 else 1)
        if name.endswith("ssm_a"):
            numbers = [-1.0 - number % shape[0] for number in range(count)]
        else:
            numbers = [dice.gauss(0, 0.2) if len(shape) > 1 else 1.0 for _ in range(count)]
        tiny.tensors[name] = (shape, 0, struct.pack(f"<{count}f", *numbers))


@pytest.fixture
def recurrent_path(tiny: TinyModel, tmp_path: Path) -> Path:
    """A model of recurrent layers only."""
    inner, state, rank, conv = 2 * WIDTH, 8, 4, 4
    own = {"ssm.conv_kernel": conv, "ssm.inner_size": inner, "ssm.state_size": state}
    own |= {"ssm.time_step_rank": rank, "feed_forward_length": 0, "attention.head_count": 0}
    _set_up(tiny, "mamba", own)
    shapes: dict[str, tuple[int, ...]] = {
        "token_embd.weight": (WIDTH, VOCABULARY),
        "output_norm.weight": (WIDTH,),
    }
    for layer in range(LAYERS):
        shapes |= {
            f"blk.{layer}.{name}": shape
            for name, shape in {
                "attn_norm.weight": (WIDTH,),
                "ssm_in.weight": (WIDTH, 2 * inner),
                "ssm_conv1d.weight": (conv, inner), "ssm_conv1d.bias": (inner,),
                "ssm_x.weight": (inner, rank + 2 * state),
                "ssm_dt.weight": (rank, inner), "ssm_dt.bias": (inner,),
                "ssm_a": (state, inner), "ssm_d": (inner,),
                "ssm_out.weight": (inner, WIDTH),
            }.items()
        }  # fmt: skip
    _fill(tiny, shapes)
    return tiny.write(tmp_path / "recurrent.gguf")


@pytest.fixture
def hybrid_path(tiny: TinyModel, tmp_path: Path) -> Path:
    """A model of which one layer attends and one is recurrent."""
    conv, half = 3, WIDTH // 2
    own = {"shortconv.l_cache": conv, "feed_forward_length": HIDDEN, "attention.head_count": 2}
    _set_up(tiny, "lfm2", own | {"attention.head_count_kv": [0, 1]})
    shapes: dict[str, tuple[int, ...]] = {
        "token_embd.weight": (WIDTH, VOCABULARY),
        "token_embd_norm.weight": (WIDTH,),
    }
    own_shapes: list[dict[str, tuple[int, ...]]] = [
        {
            "shortconv.conv.weight": (conv, WIDTH),
            "shortconv.in_proj.weight": (WIDTH, 3 * WIDTH),
            "shortconv.out_proj.weight": (WIDTH, WIDTH),
        },
        {
            "attn_q.weight": (WIDTH, WIDTH), "attn_output.weight": (WIDTH, WIDTH),
            "attn_k.weight": (WIDTH, half), "attn_v.weight": (WIDTH, half),
            "attn_q_norm.weight": (half,), "attn_k_norm.weight": (half,),
        },
    ]  # fmt: skip
    for layer, more in enumerate(own_shapes):
        shared: dict[str, tuple[int, ...]] = {
            "attn_norm.weight": (WIDTH,), "ffn_norm.weight": (WIDTH,),
            "ffn_gate.weight": (WIDTH, HIDDEN), "ffn_up.weight": (WIDTH, HIDDEN),
            "ffn_down.weight": (HIDDEN, WIDTH),
        }  # fmt: skip
        shapes |= {f"blk.{layer}.{name}": shape for name, shape in (shared | more).items()}
    _fill(tiny, shapes)
    return tiny.write(tmp_path / "hybrid.gguf")
