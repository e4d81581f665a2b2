"""LM Studio's folders are found where the user put them, and models keep the names it shows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from lmx_model_folders.lm_studio import LMStudioSource, homes, model_folders

CATALOGUE_FILE = """
model: some/thing-7b
base:
  - key: lmstudio-community/thing-7b-gguf
    sources:
      - type: huggingface
        user: lmstudio-community
        repo: Thing-7B-Instruct-GGUF
  - key: mlx-community/Thing-7B-4bit
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def put(root: Path, *files: str, text: str = "") -> None:
    for file in files:
        path = root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def aliases() -> dict[str, set[str]]:
    return {one.name: set(one.aliases) for one in LMStudioSource("lm_studio").locations()}


def test_folders_are_where_the_user_put_them(home: Path) -> None:
    assert homes() == (home / ".lmstudio", home / ".cache/lm-studio")
    put(home, ".lmstudio-home-pointer", text=f"{home}/moved\n")
    settings = json.dumps({"downloadsFolder": f"{home}/disk"})
    put(home, "moved/settings.json", text=settings)
    assert homes()[0] == home / "moved"
    assert model_folders()[:3] == (home / "disk", home / "moved/models", home / ".lmstudio/models")
    put(home, "disk/maker/One/1.gguf", "moved/models/maker/Two/2.gguf")
    assert aliases().keys() == {"maker/One", "maker/Two"}


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"downloadsFolder": 7}', "\x00"])
def test_damaged_settings_leave_the_default(home: Path, damage: str) -> None:
    put(home, ".lmstudio/settings.json", text=damage)
    assert model_folders()[0] == home / ".lmstudio/models"


def test_models_answer_to_the_names_that_are_shown_there(home: Path) -> None:
    put(home, ".lmstudio/models/lmstudio-community/Qwen2.5-7B-Instruct-GGUF/q.gguf")
    put(home, ".lmstudio/models/mlx-community/Qwen2-VL-7B-Instruct-4bit/model.safetensors")
    put(home, ".lmstudio/models/maker/plain/p.gguf", ".lmstudio/models/alone.gguf")
    found = aliases()
    assert {"qwen2.5-7b-instruct", "lmstudio-community/qwen2.5-7b-instruct"} <= found[
        "lmstudio-community/Qwen2.5-7B-Instruct-GGUF"
    ]
    assert "qwen2-vl-7b-instruct" in found["mlx-community/Qwen2-VL-7B-Instruct-4bit"]
    assert found["maker/plain"] == {"plain", "text-embedding-plain"}
    assert found["alone"] == {"text-embedding-alone"}


def test_names_of_the_catalogue_stand_for_what_they_were_downloaded_from(home: Path) -> None:
    put(home, ".lmstudio/hub/models/some/thing-7b/model.yaml", text=CATALOGUE_FILE)
    put(home, ".lmstudio/models/lmstudio-community/Thing-7B-Instruct-GGUF/t.gguf")
    put(home, ".lmstudio/models/mlx-community/Thing-7B-4bit/model.safetensors")
    put(home, ".lmstudio/models/maker/Other/o.gguf")
    named = {place for place, names in aliases().items() if "some/thing-7b" in names}
    assert named == {
        "lmstudio-community/Thing-7B-Instruct-GGUF",
        "mlx-community/Thing-7B-4bit",
    }


NO_MAPS = ("", "x", "- 1", "a: [", "\x00", "model: a/b", "model: a/b\nbase: c/d")
WRONG_BASES = ("model: a/b\nbase: [1]", "model: a/b\nbase:\n  - key: 7")


@pytest.mark.parametrize("damage", [*NO_MAPS, *WRONG_BASES])
def test_damaged_files_of_the_catalogue_are_passed_over(home: Path, damage: str) -> None:
    put(home, ".lmstudio/hub/models/a/b/model.yaml", text=damage)
    put(home, ".lmstudio/models/maker/One/1.gguf")
    assert aliases() == {"maker/One": {"one", "maker/one", "text-embedding-one"}}
