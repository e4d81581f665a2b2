"""What mlx-lm does not promise and the backend uses; a version that lacks it is not allowed."""

from __future__ import annotations

import inspect
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
from mlx_lm import utils
from mlx_lm.models import cache as kinds
from packaging.requirements import Requirement

PROJECT = Path(__file__).parents[1] / "pyproject.toml"
BATCHED = ("BatchKVCache", "BatchRotatingKVCache")


def test_the_package_asks_for_the_versions_that_were_tested() -> None:
    listed = tomllib.loads(PROJECT.read_text())["project"]["dependencies"]
    [mlx_lm] = [r for r in map(Requirement, listed) if r.name == "mlx-lm"]
    installed = version("mlx-lm")
    major, minor = installed.split(".")[:2]
    assert mlx_lm.specifier.contains(installed)
    assert not mlx_lm.specifier.contains(f"{major}.{int(minor) + 1}.0")


def test_an_architecture_is_found_by_its_config() -> None:
    """``model.py`` passes classes of plugins on to ``load_model``, or mlx-lm's own."""
    assert next(iter(inspect.signature(utils._get_classes).parameters)) == "config"
    assert len(utils._get_classes({"model_type": "llama"})) == 2
    assert {"lazy", "get_model_classes"} <= set(inspect.signature(utils.load_model).parameters)


@pytest.mark.parametrize("name", ["KVCache", "RotatingKVCache", "ArraysCache", "CacheList"])
def test_caches_of_one_sequence_merge(name: str) -> None:
    kind = getattr(kinds, name)
    assert all(hasattr(kind, member) for member in ("merge", "state", "nbytes", "is_trimmable"))


@pytest.mark.parametrize("name", [*BATCHED, "ArraysCache", "CacheList"])
def test_caches_of_a_batch_grow_and_shrink(name: str) -> None:
    members = ("extend", "filter", "extract", "prepare", "finalize", "state", "nbytes")
    assert [member for member in members if not hasattr(getattr(kinds, name), member)] == []
