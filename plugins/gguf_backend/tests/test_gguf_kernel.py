"""What the kernel learns of GGUF files: cards, problems, estimates; and that it loads no engine."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest
from lmx_gguf_backend.backend import GgufBackend
from lmx_gguf_backend.settings import GgufSettings

from lmx_kernel.errors import ModelUnusableError
from lmx_kernel.models.names import Names
from lmx_kernel.types import EngineSpec, LoadOptions, Location, ModelCard


def identify(folder: Path, backend: GgufBackend | None = None) -> dict[str, ModelCard]:
    files = tuple(path.name for path in folder.iterdir())
    cards = (backend or GgufBackend()).identify(Location("maker/model", folder, files))
    return {card.id: card for card in cards}


def test_a_single_model_is_named_after_its_place(tiny, tmp_path: Path) -> None:
    path = tiny.write(tmp_path / "some-file.gguf")
    (tmp_path / "README.md").write_text("no model")
    card = identify(tmp_path)["maker/model"]
    assert (card.backend, card.format, card.path, card.problem) == ("gguf", "gguf", path, None)
    assert (card.architecture, card.quantization, card.context_length) == ("llama", "F32", 512)
    assert card.size_bytes == path.stat().st_size
    assert card.capabilities == {"chat", "completion"}


def test_variants_are_named_after_their_quantisation_or_file(tiny, tmp_path: Path) -> None:
    for age_s, name in enumerate("cba"):
        tiny.metadata["general.file_type"] = (4, 15 if name == "b" else 0)
        path = tiny.write(tmp_path / f"{name}.gguf")
        os.utime(path, (1000 - age_s, 1000 - age_s))
    cards = identify(tmp_path)
    assert {card.path.stem: (card.id, *card.aliases) for card in cards.values()} == {
        "a": ("maker/model", "maker/model@F32", "maker/model@a"),
        "b": ("maker/model@Q4_K_M", "maker/model@b"),
        "c": ("maker/model@c",),
    }


def names_of(folder: Path, place: str = "maker/model") -> dict[str, str]:
    """Return which file each name of a model in the folder leads to."""
    files = tuple(path.name for path in folder.iterdir())
    cards = GgufBackend().identify(Location(place, folder, files))
    found = Names(cards)
    claimed = {name for card in cards for name in (card.id, *card.aliases)}
    return {name: one.path.name for name in claimed if (one := found.find(name))}


ARRIVALS = (
    *("x-Q4_K_M.gguf", "x-UD-Q4_K_XL.gguf", "x-Q8_0.gguf", "x.gguf", "x-f16.gguf", "Q4_K_M.gguf"),
    "y-Q4_K_M.gguf",
)


@pytest.mark.parametrize("dice", [Random(number) for number in range(8)])
def test_a_name_that_worked_keeps_its_model_whatever_arrives(tiny, tmp_path: Path, dice) -> None:
    """Files come in any order, and their headers may call them otherwise than their names."""
    known: dict[str, str] = {}
    for age_s, name in enumerate(dice.sample(ARRIVALS, len(ARRIVALS))):
        tiny.metadata["general.file_type"] = (4, 0)
        os.utime(tiny.write(tmp_path / name), (age_s, age_s))
        names = names_of(tmp_path)
        kept = {one: file for one, file in known.items() if one != "maker/model@F32"}
        assert kept.items() <= names.items()
        assert set(known) <= set(names)
        assert set(names.values()) == {path.name for path in tmp_path.iterdir()}
        known = names
    first = known["maker/model"]
    assert os.stat(tmp_path / first).st_mtime == 0  # noqa: PTH116


def test_a_model_that_is_alone_answers_to_its_label(tiny, tmp_path: Path) -> None:
    tiny.metadata["general.file_type"] = (4, 15)
    tiny.write(tmp_path / "x-UD-Q4_K_XL.gguf")
    assert set(names_of(tmp_path)) == {
        *("maker/model", "maker/model@UD-Q4_K_XL", "maker/model@Q4_K_M"),
        "maker/model@x-UD-Q4_K_XL",
    }


def test_a_label_may_be_the_name_of_the_folder(tiny, tmp_path: Path) -> None:
    tiny.write(tmp_path / "x.gguf")
    names = set(names_of(tmp_path, "maker/model/Q4_K_M"))
    assert names >= {"maker/model/Q4_K_M", "maker/model@Q4_K_M", "maker/model"}


def test_a_damaged_file_does_not_take_the_name_of_a_sound_one(tiny, tmp_path: Path) -> None:
    (tmp_path / "x-Q2_K.gguf").write_bytes(tiny.bytes()[:-1])
    os.utime(tmp_path / "x-Q2_K.gguf", (1, 1))
    tiny.write(tmp_path / "x-Q4_0.gguf")
    assert names_of(tmp_path)["maker/model"] == "x-Q4_0.gguf"


def test_without_a_template_there_is_no_chat(tiny, tmp_path: Path) -> None:
    del tiny.metadata["tokenizer.chat_template"]
    tiny.write(tmp_path / "base.gguf")
    assert identify(tmp_path)["maker/model"].capabilities == {"completion"}


def test_a_template_with_words_for_reasoning_means_thinking(tiny, tmp_path: Path) -> None:
    tiny.metadata["tokenizer.chat_template"] = (8, "{{ '<think>' if enable_thinking }}")
    tiny.write(tmp_path / "thinker.gguf")
    thinks = {"chat", "completion", "thinking"}
    assert identify(tmp_path)["maker/model"].capabilities == thinks


def test_companions_are_no_models(tiny, tmp_path: Path) -> None:
    tiny.write(tmp_path / "model.gguf")
    (tmp_path / "mmproj-model.gguf").write_bytes(b"whatever")
    tiny.metadata["general.type"] = (8, "adapter")
    tiny.write(tmp_path / "lora.gguf")
    assert [card.path.name for card in identify(tmp_path).values()] == ["model.gguf"]


@pytest.mark.parametrize(
    "told",
    [
        {"general.architecture": (8, "clip")},
        {"general.architecture": (8, "clip"), "general.type": (8, "mmproj")},
        {"general.type": (8, "adapter")},
        {"general.type": (8, "imatrix")},
        {"general.architecture": (8, "controlvector")},
        {"split.no": (2, 1), "split.count": (2, 2)},
    ],
)
def test_the_header_tells_what_is_no_model_whatever_the_name(tiny, tmp_path: Path, told) -> None:
    """None of them has what is checked of a model: its layers, its width, its vocabulary."""
    tiny.write(tmp_path / "x-Q8_0.gguf")
    tiny.metadata = {"general.file_type": (4, 1), **told}
    tiny.write(tmp_path / "x-F16.gguf")
    tiny.write(tmp_path / "a.gguf")
    cards = identify(tmp_path).values()
    assert [(card.path.name, card.problem) for card in cards] == [("x-Q8_0.gguf", None)]


def test_a_model_may_be_called_as_a_projector_is(tiny, tmp_path: Path) -> None:
    tiny.write(tmp_path / "mmproj-lover.gguf")
    assert set(identify(tmp_path)) == {"maker/model"}


def test_parts_belong_to_the_model_also_where_each_file_is_a_place(tiny, tmp_path: Path) -> None:
    first, second = split(tiny, tmp_path)
    (card,) = GgufBackend().identify(Location(first.stem, tmp_path, (first.name,)))
    assert card.files == (first, second)
    assert GgufBackend().identify(Location(second.stem, tmp_path, (second.name,))) == []


def test_encoder_decoder_models_say_that_they_are_not_served(tiny, tmp_path: Path) -> None:
    tiny.metadata["general.architecture"] = (8, "t5")
    for key in [key for key in tiny.metadata if key.startswith("llama.")]:
        tiny.metadata[key.replace("llama", "t5")] = tiny.metadata.pop(key)
    tiny.write(tmp_path / "t5.gguf")
    card = identify(tmp_path)["maker/model"]
    assert card.problem == "encoder-decoder models are not served"
    with pytest.raises(ModelUnusableError, match="are not served"):
        GgufBackend().verify(card)


def test_damaged_files_give_a_card_with_the_problem(tiny, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(tiny.bytes()[:-1])
    card = identify(tmp_path)["maker/model"]
    assert "ends too early" in (card.problem or "")
    assert card.files == (path,)
    assert str(tmp_path) not in (card.problem or "")
    with pytest.raises(ModelUnusableError):
        GgufBackend().estimate(card, LoadOptions(context_length=1, parallel=1, cache_tokens=1), {})


def test_a_changed_file_is_read_again(tiny, tmp_path: Path) -> None:
    backend = GgufBackend()
    path = tiny.write(tmp_path / "model.gguf")
    card = identify(tmp_path, backend)["maker/model"]
    assert card.problem is None
    path.write_bytes(tiny.bytes()[:-1])
    assert identify(tmp_path, backend)["maker/model"].problem is not None
    with pytest.raises(ModelUnusableError):
        backend.verify(card)


def test_a_file_that_vanishes_is_a_problem(tiny, tmp_path: Path) -> None:
    path = tiny.write(tmp_path / "model.gguf")
    location = Location("model", tmp_path, (path.name,))
    card = GgufBackend().identify(location)[0]
    path.unlink()
    assert GgufBackend().identify(location)[0].problem
    with pytest.raises(ModelUnusableError):
        GgufBackend().verify(card)


def split(tiny, folder: Path) -> list[Path]:
    """Write the tiny model in two parts."""
    tensors, paths = dict(tiny.tensors), []
    half = len(tensors) // 2
    tiny.metadata |= {"split.count": (2, 2), "split.tensors.count": (5, len(tensors))}
    for number, names in enumerate((list(tensors)[:half], list(tensors)[half:])):
        tiny.metadata["split.no"] = (2, number)
        tiny.tensors = {name: tensors[name] for name in names}
        paths.append(tiny.write(folder / f"model-0000{number + 1}-of-00002.gguf"))
    return paths


def test_parts_are_one_model(tiny, tmp_path: Path, open_tiny) -> None:
    first, second = split(tiny, tmp_path)
    card = identify(tmp_path)["maker/model"]
    assert card.problem is None
    assert card.path == first
    assert card.size_bytes == first.stat().st_size + second.stat().st_size
    assert card.files == (first, second)
    whole, parts = open_tiny(), open_tiny(path=first)
    assert parts.answer([1, 5, 9], 12) == whole.answer([1, 5, 9], 12)


def test_a_missing_part_is_a_problem_until_it_comes(tiny, tmp_path: Path) -> None:
    backend, (first, second) = GgufBackend(), split(tiny, tmp_path)
    away = second.rename(tmp_path / "elsewhere")
    card = identify(tmp_path, backend)["maker/model"]
    assert "00002-of-00002" in (card.problem or "")
    assert card.files == (first,)
    away.rename(second)
    assert identify(tmp_path, backend)["maker/model"].problem is None
    shutil.copy(tmp_path / "model-00001-of-00002.gguf", second)
    assert "another part" in (identify(tmp_path, backend)["maker/model"].problem or "")


@pytest.mark.parametrize("cache_type", ["f16", "q8_0"])
@pytest.mark.parametrize(("parallel", "cache"), [(1, 2048), (4, 8192), (8, 32768), (16, 4096)])
def test_the_estimate_is_near_the_librarys_figure(
    demo_path: Path, parallel: int, cache: int, cache_type: str
) -> None:
    from lmx_gguf_backend.worker import lmx_measure_memory

    card = GgufBackend().identify(Location("m", demo_path.parent, (demo_path.name,)))[0]
    options = LoadOptions(context_length=2048, parallel=parallel, cache_tokens=cache)
    settings = {"cache_type": cache_type}
    estimate = GgufBackend().estimate(card, options, settings)
    exact = lmx_measure_memory(EngineSpec(card=card, options=options, settings=settings))
    assert exact is not None
    assert exact <= estimate.total_bytes <= 1.15 * exact
    assert estimate.weights_bytes == 96_576_768


def test_settings_are_checked() -> None:
    with pytest.raises(ValueError, match="flash_attention"):
        GgufSettings(flash_attention=False, cache_type="q8_0")
    with pytest.raises(ValueError, match="cache_type"):
        GgufSettings(cache_type="q2")


def test_the_kernels_side_imports_no_engine() -> None:
    code = (
        "import sys, lmx_gguf_backend.backend\n"
        "print([m for m in ('numpy', 'llama_cpp') if m in sys.modules])"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True
    )
    assert done.stdout.strip() == "[]"
