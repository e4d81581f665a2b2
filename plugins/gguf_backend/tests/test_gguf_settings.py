"""Settings of single models on GGUF files: the maker's sampling, and the whole order."""

from __future__ import annotations

from pathlib import Path

import pytest
from lmx_gguf_backend.model_file import read_model

from lmx_kernel.config import ConfigError
from lmx_kernel.models.maker_sampling import OFF
from lmx_kernel.testing.harness import running_kernel
from lmx_kernel.testing.settings_order import check_order, config_for
from lmx_kernel.types import LoadOverrides

PLUGINS = ("lmx_gguf_backend.backend", "lmx_model_folders.plugin")
F32, U32 = 6, 4
MADE = {
    "general.sampling.temp": (F32, 0.7),
    "general.sampling.top_p": (F32, 0.95),
    "general.sampling.top_k": (5, 20),
    "general.sampling.penalty_repeat": (F32, 1.05),
}


def config(folder: Path) -> str:
    return (
        "[model_folders]\nhome = false\nhugging_face = false\nlm_studio = false\n"
        f'paths = ["{folder}"]\n[gguf]\nthreads = 1\n'
    )


@pytest.fixture
def folder(tiny, tmp_path: Path) -> Path:
    """A folder of models: one whose file says nothing of sampling, and two whose file does."""
    for name in ("plain", "made", "owned"):
        place = tmp_path / "models" / name
        place.mkdir(parents=True)
        if name == "made":
            tiny.metadata |= MADE
        tiny.write(place / "model.gguf")
    return tmp_path / "models"


def test_the_keys_of_a_file_are_sampling_and_what_it_leaves_out_is_off(tiny, tmp_path: Path):
    assert read_model(tiny.write(tmp_path / "a.gguf")).sampling.given == {}
    tiny.metadata |= MADE
    found = read_model(tiny.write(tmp_path / "b.gguf")).sampling.given
    said = {"temperature": 0.7, "top_p": 0.95, "top_k": 20, "repetition_penalty": 1.05}
    assert found == OFF | said


async def test_settings_count_in_their_order(folder: Path, tmp_path: Path):
    text = config(folder) + config_for("owned")
    async with running_kernel(tmp_path, {}, text, PLUGINS) as stage:
        await check_order(stage, "plain", "made", "owned")


async def test_keys_of_the_section_may_be_set_for_one_model(folder: Path, tmp_path: Path):
    text = config(folder) + '[[model]]\nmatch = "own*"\ncache_type = "q8_0"\n'
    async with running_kernel(tmp_path, {}, text, PLUGINS) as stage:
        settings = stage.kernel.model_settings
        assert settings.show("owned").settings["cache_type"].source == "config table 1"
        assert settings.show("plain").settings["threads"].source == "config [gguf]"
        for name, expected in (("owned", "q8_0"), ("plain", "f16")):
            await stage.kernel.load(name, LoadOverrides())
            assert stage.instance(name).spec.settings["cache_type"] == expected
            assert stage.instance(name).spec.settings["threads"] == 1


@pytest.mark.parametrize(
    ("lines", "key", "text"),
    [
        ('cache_type = "q4_0"', "cache_type", "must be in"),
        ('flash_attention = false\ncache_type = "q8_0"', "", "needs gguf.flash_attention"),
        ("gpu_layer = 3", "gpu_layer", "did you mean 'gpu_layers'"),
    ],
)
async def test_a_key_that_is_wrong_is_named(folder: Path, tmp_path: Path, lines, key, text):
    with pytest.raises(ConfigError) as caught:
        async with running_kernel(
            tmp_path, {}, f'{config(folder)}[[model]]\nmatch = "*"\n{lines}\n', PLUGINS
        ):
            pass
    (problem,) = caught.value.problems
    assert f"model[0].{key}" in problem.key
    assert text in problem.message
    assert problem.line is not None
