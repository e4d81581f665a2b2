"""Settings of single models on MLX folders: the maker's sampling, and the whole order."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from lmx_kernel.models.maker_sampling import OFF
from lmx_kernel.testing.harness import running_kernel
from lmx_kernel.testing.settings_order import check_order, config_for

PLUGINS = ("lmx_mlx_backend.backend", "lmx_model_folders.plugin")
MADE = {"do_sample": True, "temperature": 0.6, "top_p": 0.95, "top_k": 20, "eos_token_id": [1, 2]}


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ({}, {}),
        ({"eos_token_id": 1}, {}),
        (MADE, OFF | {"temperature": 0.6, "top_p": 0.95, "top_k": 20}),
        ({"temperature": 1.0, "top_p": 1.0}, OFF),
        ({"do_sample": False}, OFF | {"temperature": 0}),
        ({"do_sample": False, "temperature": 0.9}, OFF | {"temperature": 0}),
        (
            {"min_p": 0.1, "repetition_penalty": 1.1},
            OFF | {"min_p": 0.1, "repetition_penalty": 1.1},
        ),
        ({"temperature": "warm"}, {}),
    ],
)
def test_a_generation_config_is_sampling(llama: Path, card_of: Callable, written, expected):
    (llama / "generation_config.json").write_text(json.dumps(written))
    card = card_of(llama)
    assert card.problem is None
    assert card.sampling.given == expected


def test_a_generation_config_that_is_damaged_is_named(llama: Path, card_of: Callable):
    (llama / "generation_config.json").write_text("{")
    assert card_of(llama).problem == "generation_config.json: not JSON"


async def test_settings_count_in_their_order(models: Callable[[str], Path], tmp_path: Path) -> None:
    for name in ("plain", "made", "owned"):
        place = tmp_path / "models" / name
        place.mkdir(parents=True)
        for file in models("llama").iterdir():
            (place / file.name).write_bytes(file.read_bytes())
        if name != "plain":
            (place / "generation_config.json").write_text(json.dumps(MADE))
    config = (
        "[model_folders]\nhome = false\nhugging_face = false\nlm_studio = false\n"
        f'paths = ["{tmp_path}/models"]\n[mlx]\ndevice = "cpu"\n'
    )
    text = config + config_for("owned", threads="1")
    async with running_kernel(tmp_path, {}, text, PLUGINS) as stage:
        await check_order(stage, "plain", "made", "owned")
        assert stage.instance("owned").spec.settings["threads"] == 1
        assert stage.instance("plain").spec.settings["threads"] == 0
