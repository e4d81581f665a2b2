"""The check for authors of architectures: it passes what can be served, and names what cannot."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType

import pytest
from lmx_mlx_backend.testing import check_architecture

from lmx_kernel.plugins.scaffold import render

CONFIG = {"model_type": "tiny_lm", "hidden_size": 64}
OFFSET = "cache.offset if cache is not None else 0"
MASK = "create_attention_mask(x, caches[0])"
CAUSAL = f'mask = {MASK} if x.shape[1] == 1 else "causal"'  # right for one row, or one token


@pytest.fixture
def tiny(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., ModuleType]:
    """The example's module, with some of its text replaced."""
    file = request.config.rootpath / "examples" / "lmx-plugin-tiny" / "lmx_tiny" / "tiny_lm.py"

    def changed(old: str = "", new: str = "") -> ModuleType:
        source = file.read_text()
        assert old in source
        module = ModuleType("changed_tiny_lm")
        monkeypatch.setitem(sys.modules, module.__name__, module)
        exec(compile(source.replace(old, new) if old else source, file, "exec"), module.__dict__)
        return module

    return changed


def test_the_example_passes(tiny) -> None:
    check_architecture(tiny(), CONFIG)


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("class ModelArgs", "class Arguments", "has no ModelArgs"),
        ("return self.embed.as_linear(self.norm(x))", "return x[0]", "logits have shape"),
        (f"mask = {MASK}", "mask = None", "a token sees the ones after it"),
        (f"offset = {OFFSET}", "offset = 0", "the cache changes the result"),
        (f"mask = {MASK}", CAUSAL, "a row in a batch is not"),
        ("self.layers", "self.blocks", "Model.layers is needed"),
        (OFFSET, "int(mx.array(cache.offset).max()) if cache else 0", "a row in a batch is not"),
    ],
)
def test_what_breaks_a_promise_is_named(tiny, old: str, new: str, complaint: str) -> None:
    with pytest.raises(AssertionError, match=complaint):
        check_architecture(tiny(old, new), CONFIG)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("self.memory[mx.array(rows)]", "self.memory[: len(rows)]"),
        ("self.memory[mx.array(rows)]", "self.memory[mx.array(rows[::-1])]"),
        ("self.memory[row : row + 1]", "self.memory[:1]"),
        ("[self.memory, other.memory]", "[other.memory, self.memory]"),
        ("[self.memory, other.memory]", "[self.memory, self.memory[: len(other.memory)]]"),
        ("[cache.memory for cache in caches]", "[caches[0].memory for cache in caches]"),
        ("[cache.memory for cache in caches]", "[cache.memory for cache in caches][::-1]"),
        ("def filter", "def filtered"),
        ("def extract", "def extracted"),
        ("def extend", "def extended"),
    ],
)
def test_a_cache_that_mixes_requests_is_found(monkeypatch, old: str, new: str) -> None:
    source = render("architecture", "mine")["lmx_mine.py"]
    assert old in source
    module = ModuleType("lmx_mine")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(source.replace(old, new), module.__dict__)
    with pytest.raises((AssertionError, AttributeError)):
        check_architecture(module, {"model_type": "mine", "hidden_size": 32})
