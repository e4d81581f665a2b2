"""Tiny random models in mlx-lm's form, and engines on them."""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from lmx_kernel.testing.driver import Driver
from lmx_kernel.types import EngineSpec, LoadOptions, Location, ModelCard

VOCABULARY = 300

COMMON: dict[str, Any] = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "intermediate_size": 128,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-5,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 1024,
    "eos_token_id": 1,
}
CONFIGS: dict[str, dict[str, Any]] = {
    "llama": COMMON | {"model_type": "llama", "head_dim": 16},
    "other_llama": COMMON | {"model_type": "llama", "head_dim": 16, "num_hidden_layers": 1},
    "gemma3_text": COMMON
    | {"model_type": "gemma3_text", "head_dim": 16, "sliding_window": 16,
       "sliding_window_pattern": 2, "query_pre_attn_scalar": 16},
    "gemma3_wide": COMMON
    | {"model_type": "gemma3_text", "head_dim": 16, "sliding_window": 64,
       "sliding_window_pattern": 2, "query_pre_attn_scalar": 16},
    "mamba": COMMON
    | {"model_type": "mamba", "state_size": 8, "conv_kernel": 4, "use_bias": False,
       "use_conv_bias": True, "time_step_rank": 4},
    "lfm2": COMMON
    | {"model_type": "lfm2", "norm_eps": 1e-5, "conv_bias": False, "conv_L_cache": 3,
       "block_dim": 64, "block_ff_dim": 128, "block_multiple_of": 32,
       "block_ffn_dim_multiplier": 1.0, "block_auto_adjust_ff_dim": False,
       "rope_theta": 10000.0, "full_attn_idxs": [1]},
}  # fmt: skip
# --- folders


def write_model(folder: Path, config: dict[str, Any], *, scale: float = 0.15) -> Path:
    """Write a model of one of mlx-lm's architectures, and return its folder."""
    from lmx_mlx_backend.testing import tiny_models
    from mlx_lm.utils import _get_classes

    model_class, args_class = _get_classes(config)
    model = model_class(args_class.from_dict(config))
    return tiny_models.write_model(folder, model, config, scale=scale)


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Folders of tiny models by their architecture."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    root = tmp_path_factory.mktemp("models")

    def folder(name: str) -> Path:
        path = root / name
        return path if path.exists() else write_model(path, CONFIGS[name])

    folder("llama")
    # mlx-lm lowers the limit of open files when it is imported
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(limits[0], hard), hard))
    return folder


@pytest.fixture
def llama(models: Callable[[str], Path], tmp_path: Path) -> Path:
    """A folder of the llama of one's own, to change."""
    for file in models("llama").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


@pytest.fixture
def card_of() -> Callable[[Path], ModelCard]:
    """What the backend makes of a folder."""
    return find_card


# --- engines


def find_card(folder: Path) -> ModelCard:
    """Return the card that the backend gives the folder."""
    from lmx_mlx_backend.backend import MlxBackend

    names = tuple(file.name for file in folder.iterdir())
    return MlxBackend().identify(Location("model", folder, names))[0]


def open_driver(
    folder: Path, context: int, parallel: int, cache: int, *, reproducible: bool = False
) -> Driver:
    """Open an engine on the model in ``folder``."""
    from lmx_mlx_backend.worker import lmx_open_engine

    options = LoadOptions(context_length=context, parallel=parallel, cache_tokens=cache)
    spec = EngineSpec(
        card=find_card(folder),
        options=options,
        settings={"device": "cpu"},
        reproducible=reproducible,
    )
    return Driver(lmx_open_engine(spec, lambda *_: None))


@pytest.fixture
def open_model(models: Callable[[str], Path]) -> Iterator[Callable[..., Driver]]:
    """Opens engines on tiny models."""
    drivers: list[Driver] = []

    def opener(
        name: str = "llama",
        context: int = 512,
        parallel: int = 8,
        cache: int = 4096,
        *,
        reproducible: bool = False,
    ) -> Driver:
        folder = models(name)
        drivers.append(open_driver(folder, context, parallel, cache, reproducible=reproducible))
        return drivers[-1]

    yield opener
    for driver in drivers:
        driver.engine.close()


@pytest.fixture
def open_draft_rows(models: Callable[[str], Path]) -> Iterator[Callable[..., Any]]:
    """Opens draft models of a name."""
    from lmx_mlx_backend.worker import lmx_open_draft_model

    with ExitStack() as stack:

        def opener(name: str, slots: int = 4, context: int = 512, cache: int = 2048) -> Any:
            options = LoadOptions(context_length=context, parallel=slots, cache_tokens=cache)
            card = find_card(models(name))
            spec = EngineSpec(card=card, options=options, settings={"device": "cpu"})
            return stack.enter_context(closing(lmx_open_draft_model(spec, lambda *_: None)))

        yield opener


@pytest.fixture
def open_rows(open_draft_rows: Callable[..., Any]) -> Callable[..., Any]:
    """Opens the tiny llama to draft, or one of other weights."""

    def opener(is_same: bool = True, **options: int) -> Any:
        return open_draft_rows("llama" if is_same else "other_llama", **options)

    return opener


@pytest.fixture
def driver(open_model: Callable[..., Driver]) -> Driver:
    """An engine on the tiny llama."""
    return open_model()


class Wrapped:
    """A model whose calls go elsewhere."""

    def __init__(self, module: Any, call: Callable[..., Any]) -> None:
        self._module, self._call = module, call

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)

    def __call__(self, tokens: Any, cache: Any) -> Any:
        return self._call(self._module, tokens, cache)


@pytest.fixture
def wrap_module(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any, Callable[..., Any]], None]:
    """Lets the calls of an engine's model go to a function of (model, tokens, cache)."""

    def wrap(engine: Any, call: Callable[..., Any]) -> None:
        monkeypatch.setattr(engine._model, "module", Wrapped(engine._model.module, call))

    return wrap
