"""What is loaded, what is refused, and what a broken plugin does."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lmx_mlx_backend import model as loading
from lmx_mlx_backend.worker import lmx_open_engine

from lmx_kernel.errors import ModelUnusableError
from lmx_kernel.types import EngineSpec, LoadOptions, ModelCard, Sampling

OPTIONS = LoadOptions(context_length=256, parallel=2, cache_tokens=512)
GREEDY = Sampling(temperature=0, seed=1)
PROMPT = [0, 20, 30, 40, 50]


@pytest.fixture
def load(card_of: Callable[[Path], ModelCard]) -> Callable[[Path], Any]:
    """Opens an engine on a folder."""

    def opener(folder: Path) -> Any:
        spec = EngineSpec(card=card_of(folder), options=OPTIONS, settings={"device": "cpu"})
        return lmx_open_engine(spec, lambda *_: None)

    return opener


@pytest.fixture
def weights(llama: Path) -> dict[str, Any]:
    """The weights of one's own llama."""
    import mlx.core as mx

    return dict(mx.load(str(llama / "model.safetensors")))


def save(folder: Path, weights: dict[str, Any], **config: Any) -> None:
    import mlx.core as mx

    mx.eval(weights)
    mx.save_safetensors(str(folder / "model.safetensors"), weights, {"format": "mlx"})
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | config))


def test_progress_is_told(llama: Path, card_of) -> None:
    shares: list[float] = []
    spec = EngineSpec(card=card_of(llama), options=OPTIONS, settings={"device": "cpu"})
    lmx_open_engine(spec, lambda share, *_: shares.append(share))
    assert shares == sorted(shares)
    assert len(shares) > 5
    assert shares[-1] == 1.0


def test_a_gpu_that_is_not_there(llama: Path, card_of) -> None:
    import mlx.core as mx

    if mx.is_available(mx.gpu):
        pytest.skip("this machine has one")
    spec = EngineSpec(card=card_of(llama), options=OPTIONS, settings={"device": "gpu"})
    with pytest.raises(ModelUnusableError, match="MLX finds none"):
        lmx_open_engine(spec, lambda *_: None)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_computed_in_float32_on_a_cpu(load, llama, weights, dtype) -> None:
    import mlx.core as mx

    save(llama, {name: value.astype(getattr(mx, dtype)) for name, value in weights.items()})
    engine = load(llama)
    assert engine._model.module.model.norm.weight.dtype == mx.float32


def test_quantised_weights(load, llama: Path, weights, open_model) -> None:
    import mlx.core as mx

    quantised = {}
    for name, value in weights.items():
        if value.ndim == 1:
            quantised[name] = value
            continue
        stem = name.removesuffix(".weight")
        for part, array in zip(
            ("weight", "scales", "biases"), mx.quantize(value, group_size=32, bits=8), strict=True
        ):
            quantised[f"{stem}.{part}"] = array
    save(llama, quantised, quantization={"group_size": 32, "bits": 8})
    engine = load(llama)
    assert engine._model.module.model.layers[0].self_attn.q_proj.bits == 8
    engine.close()


# --- damage that only a load can see


def test_weights_that_are_not_numbers(load, llama: Path, weights) -> None:
    import mlx.core as mx

    weights["model.norm.weight"] = mx.array([float("nan")] * 64)
    save(llama, weights)
    with pytest.raises(ModelUnusableError, match=r"model\.norm\.weight are not numbers"):
        load(llama)


def test_weights_of_the_wrong_shape(load, llama: Path, weights) -> None:
    import mlx.core as mx

    weights["model.norm.weight"] = mx.ones((65,))
    save(llama, weights)
    with pytest.raises(ModelUnusableError, match=r"\(64,?\)"):
        load(llama)


def test_missing_and_foreign_weights(load, llama: Path, weights) -> None:
    weights["model.other.weight"] = weights.pop("model.norm.weight")
    save(llama, weights)
    with pytest.raises(ModelUnusableError, match="not in model"):
        load(llama)


def test_a_config_that_lacks_what_the_architecture_needs(load, llama: Path) -> None:
    path = llama / "config.json"
    config = json.loads(path.read_text())
    del config["intermediate_size"]
    path.write_text(json.dumps(config))
    with pytest.raises(ModelUnusableError, match="intermediate_size"):
        load(llama)


def test_a_tokenizer_that_is_none(load, llama: Path) -> None:
    (llama / "tokenizer.json").write_text('{"model": 5}')
    with pytest.raises(ModelUnusableError, match=r"^tokenizer\.json: "):
        load(llama)


def test_code_in_the_folder_is_never_run(load, llama: Path) -> None:
    for name in ("modeling.py", "llama.py", "tokenizer.py", "mlx_lm.py"):
        (llama / name).write_text("raise SystemExit('run')")
    path = llama / "tokenizer_config.json"
    config = json.loads(path.read_text()) | {"auto_map": {"AutoTokenizer": "tokenizer.Evil"}}
    path.write_text(json.dumps(config))
    load(llama)


# --- architectures that packages add

GOOD = """
from mlx_lm.models.llama import Model, ModelArgs
"""
MASKED = """
from mlx_lm.models import llama
from mlx_lm.models.base import create_attention_mask
class Inner(llama.LlamaModel):
    def __call__(self, inputs, cache=None, input_embeddings=None):
        caches = cache or [None] * len(self.layers)
        h, cache = self.embed_tokens(inputs), caches[0]
        mask = {mask}
        for layer, held in zip(self.layers, caches):
            h = layer(h, mask, cache=held)
        return self.norm(h)
class Model(llama.Model):
    def __init__(self, args):
        super().__init__(args)
        self.model = Inner(args)
ModelArgs = llama.ModelArgs
"""
WRONG_SHAPES = """
import mlx.nn as nn
from mlx_lm.models.llama import Model as Llama, ModelArgs
class Model(Llama):
    def __init__(self, args):
        super().__init__(args)
        self.model.norm = nn.RMSNorm(65)
"""
WRONG_LOGITS = """
from mlx_lm.models.llama import Model as Llama, ModelArgs
class Model(Llama):
    def __call__(self, inputs, cache=None):
        return super().__call__(inputs, cache)[0]
"""
UNFIT_FOR_MANY = """
from mlx_lm.models.llama import Model as Llama, ModelArgs
class Model(Llama):
    def __call__(self, inputs, cache=None):
        if inputs.shape[1] > 8:
            raise ArithmeticError("no more than 8 rows")
        return super().__call__(inputs, cache)
"""
ENDLESS = """
from mlx_lm.models.llama import Model as Llama, ModelArgs
class Model(Llama):
    def {}(self, *args, **more):
        while True: pass
"""
ENDLESS_INIT, ENDLESS_SANITIZE, ENDLESS_CALL = map(
    ENDLESS.format, ("__init__", "sanitize", "__call__")
)


@pytest.fixture
def plugin(
    llama: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], Path]:
    """Installs a package whose module has a given source; gives a folder that needs it."""
    site = tmp_path_factory.mktemp("site")
    monkeypatch.syspath_prepend(str(site))

    def install(source: str) -> Path:
        info = site / "tiny-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: lmx-tiny\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text("[lmx.mlx.architectures]\ntiny_x = tiny_module\n")
        (site / "tiny_module.py").write_text(source)
        monkeypatch.delitem(sys.modules, "tiny_module", raising=False)
        config = json.loads((llama / "config.json").read_text()) | {"model_type": "tiny_x"}
        (llama / "config.json").write_text(json.dumps(config))
        return llama

    return install


def test_an_architecture_from_a_package(load, plugin, models) -> None:
    folder = plugin(GOOD)
    engines = [load(folder), load(models("llama"))]
    assert engines[0]._model.vocabulary == engines[1]._model.vocabulary
    assert sys.modules["tiny_module"]


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize(
    ("mask", "can_batch"),
    [
        ("create_attention_mask(h, cache)", True),
        ("create_attention_mask(h, cache) if h.shape[1] == 1 else 'causal'", False),
        ("None if h.shape[1] == 1 else create_attention_mask(h, cache)", False),
    ],
)
def test_rows_share_a_batch_only_where_that_changes_nothing(
    load, plugin, monkeypatch: pytest.MonkeyPatch, dtype: str, mask: str, *, can_batch: bool
) -> None:
    """In half precision too, which a CPU would widen."""
    import mlx.core as mx
    from mlx import nn

    widen = nn.Module.set_dtype
    monkeypatch.setattr(nn.Module, "set_dtype", lambda self, _: widen(self, getattr(mx, dtype)))
    engine = load(plugin(MASKED.format(mask=mask)))
    assert (engine.limits.max_sequences > 1) == can_batch


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import nowhere_to_be_found", "ModuleNotFoundError: No module named"),
        ("import sys; sys.exit(3)", "tried to end the process"),
        ("raise Exception('a plain one')", "a plain one"),
        ("Model = 5", "ModelArgs"),
        ("def", "SyntaxError"),
        (WRONG_SHAPES, "norm"),
        (WRONG_LOGITS, "gives logits of shape"),
        (UNFIT_FOR_MANY, "no more than 8 rows"),
        ("while True: pass", "building it took longer than 0 s"),
        (ENDLESS_INIT, "building it took longer than 0 s"),
        (ENDLESS_SANITIZE, "building it took longer than 0 s"),
        (ENDLESS_CALL, "computing a few tokens took longer than 3 s"),  # building it did not
    ],
)
def test_a_broken_package_fails_the_load_by_name(
    load, plugin, monkeypatch: pytest.MonkeyPatch, source: str, reason: str
) -> None:
    patience_s = {ENDLESS_CALL: 3.0}.get(source, 0.4 if "while" in source else 60.0)
    monkeypatch.setattr(loading, "PATIENCE_S", patience_s)
    with pytest.raises(ModelUnusableError, match="plugin lmx-tiny: ") as caught:
        load(plugin(source))
    assert reason in caught.value.message


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_json_files_with_a_byte_order_mark(load, llama: Path, encoding: str) -> None:
    """What is listed is loaded too; a template's mark is not a part of prompts."""
    for file in llama.glob("*.json"):
        file.write_text(file.read_text(encoding="utf-8"), encoding=encoding)
    template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    (llama / "chat_template.jinja").write_text(template, encoding="utf-8-sig")
    engine = load(llama)
    try:
        assert engine.tokenizer.chat_template == template
    finally:
        engine.close()


def test_a_config_with_code_for_another_library_is_loaded(load, llama: Path) -> None:
    path = llama / "config.json"
    config = json.loads(path.read_text()) | {"auto_map": {"AutoModelForCausalLM": "evil.Model"}}
    path.write_text(json.dumps(config))
    (llama / "evil.py").write_text("raise SystemExit('ran')")
    load(llama).close()


def test_whole_weights_with_the_index_of_another_form_are_loaded(load, llama: Path) -> None:
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors"}}
    (llama / "model.safetensors.index.json").write_text(json.dumps(index))
    load(llama).close()
