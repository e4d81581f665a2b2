"""Models are found wherever they lie, and nothing on disk can stop the search."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import pytest
from lmx_model_folders.plugin import lmx_model_sources, lmx_settings
from lmx_model_folders.sources import FolderSource, HuggingFaceSource, hugging_face_cache

from lmx_kernel.config import Settings, read_config, structure
from lmx_kernel.errors import ForbiddenError
from lmx_kernel.interfaces import ModelSource
from lmx_kernel.types import Location, ModelCard


def put(root: Path, *files: str) -> None:
    for file in files:
        path = root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def found(*roots: Path) -> dict[str, tuple[str, ...]]:
    return by_name(FolderSource("paths", roots).locations())


def by_name(locations: Iterable[Location]) -> dict[str, tuple[str, ...]]:
    listed = list(locations)
    named = {location.name: location.files for location in listed}
    assert len(named) == len(listed)
    return named


def put_snapshot(cache: Path, repository: str, revision: str, *files: str) -> Path:
    """Lay files out as the cache does: blobs, and links to them in the snapshot."""
    folder = cache / repository
    snapshot = folder / "snapshots" / revision
    for file in files:
        blob = folder / "blobs" / f"{revision}-{file.replace('/', '-')}"
        put(folder, str(blob.relative_to(folder)))
        (snapshot / file).parent.mkdir(parents=True, exist_ok=True)
        (snapshot / file).symlink_to(blob)
    return snapshot


def cached(cache: Path) -> dict[str, tuple[str, ...]]:
    return by_name(HuggingFaceSource("hugging_face", cache).locations())


# --- folders -------------------------------------------------------------------------------------


def test_folder_with_files_is_called_by_its_path(tmp_path: Path) -> None:
    put(tmp_path, "Org/Name-4bit/config.json", "Org/Name-4bit/a.safetensors", "solo/b.gguf")
    assert found(tmp_path) == {
        "Org/Name-4bit": ("a.safetensors", "config.json"),
        "solo": ("b.gguf",),
    }


def test_folder_of_a_location_is_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, "models/a/b.gguf")
    monkeypatch.chdir(tmp_path)
    (location,) = FolderSource("paths", (Path("models"),)).locations()
    assert location == Location("a", tmp_path / "models" / "a", ("b.gguf",))


def test_file_in_the_root_is_a_location_of_its_own(tmp_path: Path) -> None:
    put(tmp_path, "tiny.Q4_K_M.gguf", "other.gguf")
    assert found(tmp_path) == {"tiny.Q4_K_M": ("tiny.Q4_K_M.gguf",), "other": ("other.gguf",)}


def test_four_levels_are_searched(tmp_path: Path) -> None:
    put(tmp_path, "a/b/c/d/in.gguf", "a/b/c/d/e/out.gguf")
    assert found(tmp_path) == {"a/b/c/d": ("in.gguf",)}


@pytest.mark.parametrize(
    "file",
    [
        "a/.DS_Store",
        ".cache/b.gguf",
        "a/.git/b",
        "a/b.gguf.part",
        "a/b.incomplete",
        "a/x\ny.gguf",
        pytest.param("a/\udcff.gguf", marks=pytest.mark.linux("names that are not Unicode")),
    ],
)
def test_what_belongs_to_no_model_is_passed_over(tmp_path: Path, file: str) -> None:
    put(tmp_path, file)
    assert found(tmp_path) == {}


def test_linked_folders_are_followed(tmp_path: Path) -> None:
    put(tmp_path, "elsewhere/b.gguf", "root/c/d.gguf")
    (tmp_path / "root" / "a").symlink_to(tmp_path / "elsewhere")
    assert found(tmp_path / "root") == {"a": ("b.gguf",), "c": ("d.gguf",)}


def test_links_do_not_loop(tmp_path: Path) -> None:
    put(tmp_path, "root/a/b.gguf")
    (tmp_path / "root" / "a" / "up").symlink_to(tmp_path / "root")
    (tmp_path / "root" / "above").symlink_to(tmp_path)
    (tmp_path / "root" / "self").symlink_to("self")
    (tmp_path / "root" / "broken").symlink_to("nowhere")
    assert found(tmp_path / "root") == {"a": ("b.gguf",)}


def test_a_folder_counts_once_and_under_its_own_name(tmp_path: Path) -> None:
    put(tmp_path, "root/name/b.gguf")
    (tmp_path / "root" / "alias").symlink_to("name")
    assert found(tmp_path / "root", tmp_path / "root" / "name") == {"name": ("b.gguf",)}


def test_special_files_are_passed_over(tmp_path: Path) -> None:
    put(tmp_path, "a/b.gguf")
    os.mkfifo(tmp_path / "a" / "pipe")
    assert found(tmp_path) == {"a": ("b.gguf",)}


# --- the Hugging Face cache ----------------------------------------------------------------------


def test_cached_model_is_called_as_on_the_hub(tmp_path: Path) -> None:
    put_snapshot(tmp_path, "models--org--name", "abc", "config.json", "onnx/model.onnx")
    put_snapshot(tmp_path, "models--gpt2", "abc", "config.json")
    assert cached(tmp_path) == {
        "org/name": ("config.json",),
        "org/name/onnx": ("model.onnx",),
        "gpt2": ("config.json",),
    }


@pytest.mark.parametrize("main", ["old", "old\n"])
def test_snapshot_of_main_counts(tmp_path: Path, main: str) -> None:
    put_snapshot(tmp_path, "models--org--name", "old", "old.gguf")
    put_snapshot(tmp_path, "models--org--name", "new", "new.gguf")
    put(tmp_path, "models--org--name/refs/main")
    (tmp_path / "models--org--name" / "refs" / "main").write_text(main)
    assert cached(tmp_path) == {"org/name": ("old.gguf",)}


@pytest.mark.parametrize("main", [None, "", "gone", "../..", "\xff"])
def test_newest_snapshot_counts_where_main_names_none(tmp_path: Path, main: str | None) -> None:
    newer = put_snapshot(tmp_path, "models--org--name", "a", "newer.gguf")
    older = put_snapshot(tmp_path, "models--org--name", "b", "older.gguf")
    os.utime(older, (1, 1))
    os.utime(newer, (2, 2))
    if main is not None:
        put(tmp_path, "models--org--name/refs/main")
        (tmp_path / "models--org--name" / "refs" / "main").write_bytes(main.encode("latin-1"))
    assert cached(tmp_path) == {"org/name": ("newer.gguf",)}


def test_other_things_in_the_cache_are_passed_over(tmp_path: Path) -> None:
    put_snapshot(tmp_path, "datasets--org--name", "abc", "data.parquet")
    put(tmp_path, "models--org--unfinished/blobs/x.incomplete", ".locks/a/b", "version.txt")
    put(tmp_path, "models--", "other/snapshots/abc/config.json")
    assert cached(tmp_path) == {}


def test_file_without_its_blob_is_passed_over(tmp_path: Path) -> None:
    snapshot = put_snapshot(tmp_path, "models--org--name", "abc", "config.json", "a.gguf")
    (snapshot / "a.gguf").resolve().unlink()
    assert cached(tmp_path) == {"org/name": ("config.json",)}


@pytest.mark.parametrize(
    ("environ", "cache"),
    [
        ({}, "/me/.cache/huggingface/hub"),
        ({"XDG_CACHE_HOME": "/x"}, "/x/huggingface/hub"),
        ({"XDG_CACHE_HOME": "/x", "HF_HOME": "~/h"}, "/me/h/hub"),
        ({"HF_HOME": "/h", "HUGGINGFACE_HUB_CACHE": "/old"}, "/old"),
        ({"HUGGINGFACE_HUB_CACHE": "/old", "HF_HUB_CACHE": "$HOME/new"}, "/me/new"),
        ({"HF_HOME": ""}, "/me/.cache/huggingface/hub"),
    ],
)
def test_place_of_the_cache(
    monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], cache: str
) -> None:
    monkeypatch.setenv("HOME", "/me")
    assert hugging_face_cache(environ) == Path(cache)


def test_layout_is_that_of_the_library(tmp_path: Path) -> None:
    hub = pytest.importorskip("huggingface_hub")
    names = pytest.importorskip("huggingface_hub.file_download")
    folder = names.repo_folder_name(repo_id="org/name", repo_type="model")
    put_snapshot(tmp_path, folder, "abc", "config.json")
    put(tmp_path, f"{folder}/refs/main")
    (tmp_path / folder / "refs" / "main").write_text("abc")
    (repository,) = hub.scan_cache_dir(tmp_path).repos
    assert list(cached(tmp_path)) == [repository.repo_id]


# --- the plugin ----------------------------------------------------------------------------------


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for variable in ("HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def settings_of(environ: dict[str, str]) -> Settings:
    return structure(read_config(environ=environ), lmx_settings())


def sources_of(**environ: str) -> dict[str, ModelSource]:
    settings = settings_of({f"LMX_{key}": value for key, value in environ.items()})
    return {source.name: source for source in lmx_model_sources(settings)}


def test_all_places_are_searched(home: Path) -> None:
    put(home, ".lmx/models/a/1.gguf", ".lmstudio/models/b/2.gguf", "more/d/4.gguf")
    put(home, ".cache/lm-studio/models/c/3.gguf")
    put_snapshot(home / ".cache/huggingface/hub", "models--e--f", "abc", "5.gguf")
    sources = sources_of(MODEL_FOLDERS_PATHS='["~/more"]')
    assert {name: list(by_name(source.locations())) for name, source in sources.items()} == {
        "home": ["a"],
        "hugging_face": ["e/f"],
        "lm_studio": ["b", "c"],
        "paths": ["d"],
    }


def test_home_is_where_lmx_home_says(home: Path) -> None:
    put(home, "mine/models/a/1.gguf")
    assert list(by_name(sources_of(HOME=f"{home}/mine")["home"].locations())) == ["a"]


@pytest.mark.usefixtures("home")
def test_places_can_be_left_out() -> None:
    assert list(sources_of()) == ["home", "hugging_face", "lm_studio"]
    off = {f"MODEL_FOLDERS_{name}": "false" for name in ("HOME", "HUGGING_FACE", "LM_STUDIO")}
    assert sources_of(**off) == {}


# --- deleting ------------------------------------------------------------------------------------


def card(root: Path, *files: str) -> ModelCard:
    return ModelCard(
        id="org/m",
        backend="b",
        path=root / files[0],
        format="f",
        architecture="a",
        size_bytes=0,
        context_length=1,
        files=tuple(root / file for file in files),
    )


def test_a_model_goes_with_its_files_and_the_folders_that_are_empty_then(tmp_path: Path) -> None:
    put(tmp_path, "org/m/1.gguf", "org/m/2.gguf", "org/n/1.gguf", "solo.gguf")
    source = FolderSource("home", (tmp_path,), owned=True)
    source.delete(card(tmp_path, "org/m/1.gguf", "org/m/2.gguf"))
    assert found(tmp_path) == {"org/n": ("1.gguf",), "solo": ("solo.gguf",)}
    assert not (tmp_path / "org" / "m").exists()
    source.delete(card(tmp_path, "solo.gguf"))
    source.delete(card(tmp_path, "org/n/1.gguf"))
    assert list(tmp_path.iterdir()) == []


def test_a_neighbour_in_the_same_folder_stays(tmp_path: Path) -> None:
    put(tmp_path, "m/q4.gguf", "m/q8.gguf")
    FolderSource("home", (tmp_path,), owned=True).delete(card(tmp_path, "m/q4.gguf"))
    assert found(tmp_path) == {"m": ("q8.gguf",)}


def test_models_of_other_programs_are_not_ours_to_delete(tmp_path: Path) -> None:
    put(tmp_path, "m/q4.gguf")
    for source in (FolderSource("lm_studio", (tmp_path,)), HuggingFaceSource("h", tmp_path)):
        with pytest.raises(ForbiddenError, match="another program"):
            source.delete(card(tmp_path, "m/q4.gguf"))
    assert found(tmp_path) == {"m": ("q4.gguf",)}


def test_a_link_is_deleted_and_not_what_it_points_to(tmp_path: Path) -> None:
    put(tmp_path, "elsewhere/real.gguf", "models/m/x")
    (tmp_path / "models/m/link.gguf").symlink_to(tmp_path / "elsewhere/real.gguf")
    root = tmp_path / "models"
    FolderSource("home", (root,), owned=True).delete(card(root, "m/link.gguf"))
    assert (tmp_path / "elsewhere/real.gguf").exists()
    assert found(root) == {"m": ("x",)}


def test_a_linked_folder_that_leads_elsewhere_is_left_alone(tmp_path: Path) -> None:
    put(tmp_path, "elsewhere/real.gguf", "models/a/x")
    root = tmp_path / "models"
    (root / "m").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ForbiddenError, match="outside of the model folders"):
        FolderSource("home", (root,), owned=True).delete(card(root, "m/real.gguf"))
    with pytest.raises(ForbiddenError, match="outside of the model folders"):
        FolderSource("home", (root,), owned=True).delete(card(root, "../elsewhere/real.gguf"))
    assert (tmp_path / "elsewhere/real.gguf").exists()
