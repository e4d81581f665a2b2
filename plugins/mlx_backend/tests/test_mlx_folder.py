"""What a folder is taken for, and what is wrong with it."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lmx_mlx_backend import architectures, device
from lmx_mlx_backend.backend import MlxBackend
from lmx_mlx_backend.folder import UNSTATED_CONTEXT, chat_template, read_folder
from lmx_mlx_backend.footprint import Footprint
from lmx_mlx_backend.safetensors import read_tensors

from lmx_kernel.errors import ModelUnusableError
from lmx_kernel.types import LoadOptions, Location, ModelCard

CardOf = Callable[[Path], ModelCard]
OPTIONS = LoadOptions(context_length=512, parallel=4, cache_tokens=1024)


def change_config(folder: Path, **more: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | more))


def change_header(folder: Path, change: Any) -> None:
    path = folder / "model.safetensors"
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])


def test_a_card_says_what_the_model_is(card_of: CardOf, llama: Path) -> None:
    card = card_of(llama)
    assert (card.id, card.backend, card.format, card.architecture) == (
        "model", "mlx", "mlx", "llama"
    )  # fmt: skip
    assert card.problem is None
    assert card.quantization == "float32"
    assert card.aliases == ("model@float32",)
    assert card.context_length == 1024
    assert card.capabilities == {"chat", "completion"}
    assert card.size_bytes == pytest.approx((llama / "model.safetensors").stat().st_size, rel=0.05)
    MlxBackend().verify(card)


def test_quantised_models_are_named_by_their_bits(card_of: CardOf, llama: Path) -> None:
    change_config(llama, quantization={"group_size": 32, "bits": 4})
    assert card_of(llama).quantization == "4-bit"
    change_config(llama, quantization={"group_size": 32, "bits": 4, "mode": "mxfp4"})
    assert card_of(llama).quantization == "mxfp4"


def test_nested_configs_are_read(card_of: CardOf, llama: Path) -> None:
    change_config(llama, text_config={"max_position_embeddings": 4096, "model_type": "inner"})
    card = card_of(llama)
    assert card.context_length == 4096
    assert card.architecture == "llama"


def test_other_folders_are_no_models(tmp_path: Path) -> None:
    backend = MlxBackend()
    for names in ((), ("config.json",), ("model.safetensors",), ("a.gguf", "config.json")):
        assert backend.identify(Location("x", tmp_path, names)) == []


def test_an_unknown_architecture_may_come_from_a_plugin(
    card_of: CardOf, llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    change_config(llama, model_type="tiny_new")
    card = card_of(llama)
    assert card.problem == "no architecture `tiny_new`; a plugin may add it"
    with pytest.raises(ModelUnusableError, match="a plugin may add it"):
        MlxBackend().verify(card)
    monkeypatch.setattr(architectures, "_plugin_names", lambda installed: {"tiny_new"})
    assert card_of(llama).problem is None


def test_a_package_that_comes_while_the_backend_runs_is_seen(
    llama: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    change_config(llama, model_type="tiny_late")
    backend = MlxBackend()
    location = Location("model", llama, tuple(file.name for file in llama.iterdir()))
    site = tmp_path_factory.mktemp("site")
    monkeypatch.syspath_prepend(str(site))
    (site / "late-1.0.dist-info").mkdir()  # an installation that is half done
    (site / "late_module.py").touch()
    assert backend.identify(location)[0].problem is not None
    install(site, "late", "tiny_late")
    assert backend.identify(location)[0].problem is None
    install(site, "other", "tiny_late")
    with pytest.raises(ModelUnusableError, match="both late and other"):
        architectures.find_plugin("tiny_late")


def install(site: Path, name: str, architecture: str, source: str = "") -> None:
    info = site / f"{name}-1.0.dist-info"
    info.mkdir(exist_ok=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        f"[lmx.mlx.architectures]\n{architecture} = {name}_module\n"
    )
    (site / f"{name}_module.py").write_text(source)


def test_a_damaged_package_hides_no_architecture(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path_factory.mktemp("site")
    monkeypatch.syspath_prepend(str(site))
    install(site, "sound", "tiny_sound")
    install(site, "bad", "tiny_bad")
    (site / "bad-1.0.dist-info" / "entry_points.txt").write_text("[lmx]\nno value\n")
    assert architectures.plugin_names() == {"tiny_sound"}
    assert architectures.find_plugin("tiny_sound") is not None


def test_known_names_are_the_librarys_own() -> None:
    names = architectures.library_names()
    assert {"llama", "qwen3", "gemma3_text", "mamba", "mistral"} <= names
    assert names.isdisjoint({"utils", "base", "cache", "switch_layers", "rope_utils"})


def test_a_config_that_asks_to_run_its_own_code_is_refused(card_of: CardOf, llama: Path) -> None:
    reason = "config.json: it asks to run its own code (model_file)"
    change_config(llama, model_file="evil.py")
    assert card_of(llama).problem == reason
    change_config(llama, model_file=None, text_config={"model_file": "evil.py"})
    assert card_of(llama).problem == reason


@pytest.mark.parametrize("place", [{}, {"text_config": {"auto_map": {"AutoModel": "x.Model"}}}])
def test_code_for_another_library_does_not_matter_where_the_architecture_is_known(
    card_of: CardOf, llama: Path, place: dict[str, Any]
) -> None:
    change_config(llama, **({"auto_map": {"AutoModel": "evil.Model"}} | place))
    assert card_of(llama).problem is None
    change_config(llama, model_type="tiny_new")
    assert card_of(llama).problem == (
        "no architecture `tiny_new`, and its own code, which it would need, is not run; "
        "a plugin may add it"
    )


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"quantization": {"bits": 7, "group_size": 64}}, "unknown quantisation"),
        ({"quantization": {"bits": 4, "group_size": 64, "mode": "x"}}, "unknown quantisation"),
        ({"quantization": "q4"}, "unknown quantisation"),
        ({"quantization_config": {"quant_method": "exl9"}}, "unknown quantisation 'exl9'"),
        ({"model_type": None}, "names no model_type"),
        ({"num_hidden_layers": 1 << 40}, "more than 4096 layers"),
        ({"num_hidden_layers": 10**30}, "more than 4096 layers"),
    ],
)
def test_configs_that_cannot_be_served(
    card_of: CardOf, llama: Path, changes: Any, problem: str
) -> None:
    change_config(llama, **changes)
    assert problem in str(card_of(llama).problem)


@pytest.mark.parametrize("text", ["", "{", "[]", "[" * 100_000, "'x'"])
def test_a_config_that_is_not_json(card_of: CardOf, llama: Path, text: str) -> None:
    (llama / "config.json").write_text(text)
    assert str(card_of(llama).problem).startswith("config.json: not ")


HALF = "\\ud800x"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("config.json", f'{{"model_type": "{HALF}"}}'),
        ("config.json", f'{{"model_type": "llama", "quantization": {{"bits": "{HALF}"}}}}'),
        ("chat_template.json", f'{{"chat_template": "{HALF}"}}'),
    ],
)
def test_a_text_that_cannot_be_written_is_damage(
    card_of: CardOf, llama: Path, name: str, text: str
) -> None:
    (llama / name).write_text(text)
    assert card_of(llama).problem == f"{name}: a text in it is not Unicode"


def test_a_list_of_chat_templates_may_hold_anything(card_of: CardOf, llama: Path) -> None:
    templates = [{"name": [1], "template": "x"}, 5, {"name": "default", "template": "y"}]
    (llama / "chat_template.json").write_text(json.dumps({"chat_template": templates}))
    assert card_of(llama).problem is None
    assert chat_template(llama) == "y"


def test_a_context_without_a_limit(card_of: CardOf, llama: Path) -> None:
    change_config(llama, max_position_embeddings=10**30)
    assert card_of(llama).context_length == UNSTATED_CONTEXT
    change_config(llama, n_positions=2048)
    assert card_of(llama).context_length == 2048


def test_a_missing_tokenizer(card_of: CardOf, llama: Path) -> None:
    (llama / "tokenizer.json").unlink()
    assert card_of(llama).problem == "tokenizer.json: missing"


# --- weights


@pytest.mark.parametrize("left", [0, 4, 8, 100, -1])
def test_truncated_weights(card_of: CardOf, llama: Path, left: int) -> None:
    path = llama / "model.safetensors"
    path.write_bytes(path.read_bytes()[:left])
    problem = str(card_of(llama).problem)
    assert problem.startswith("model.safetensors: it is")
    assert "truncated" in problem


def test_missing_shards(card_of: CardOf, llama: Path) -> None:
    (llama / "model.safetensors").rename(llama / "model-00001-of-00002.safetensors")
    assert card_of(llama).problem == "model-00002-of-00002.safetensors: missing"


def test_a_part_is_missed_beside_whole_weights_and_under_other_names(
    card_of: CardOf, llama: Path
) -> None:
    part = llama / "model-extra-00002-of-00003.safetensors"
    part.write_bytes((llama / "model.safetensors").read_bytes())
    assert card_of(llama).problem == "model-extra-00001-of-00003.safetensors: missing"


@pytest.mark.parametrize(
    ("index", "warning"),
    [
        ({"weight_map": {"a": "model-00001-of-00002.safetensors"}}, "files that are not here"),
        ({"weight_map": {"a": "model.safetensors"}}, "its index names 1 tensors that no file has"),
        ({"weight_map": 5}, "its index is damaged"),
        ({}, "its index is damaged"),
        ("no object", "its index is damaged"),
    ],
)
def test_an_index_that_contradicts_whole_weights_is_a_warning(
    card_of: CardOf, llama: Path, index: Any, warning: str
) -> None:
    (llama / "model.safetensors.index.json").write_text(json.dumps(index))
    card = card_of(llama)
    assert card.problem is None
    assert warning in str(card.warning)


def test_an_index_that_agrees_is_none(card_of: CardOf, llama: Path) -> None:
    names = [tensor.name for tensor in read_tensors(llama / "model.safetensors")]
    index = {"weight_map": dict.fromkeys(names, "model.safetensors")}
    (llama / "model.safetensors.index.json").write_text(json.dumps(index))
    assert (card_of(llama).problem, card_of(llama).warning) == (None, None)


def test_weights_under_another_name(card_of: CardOf, llama: Path) -> None:
    (llama / "model.safetensors").rename(llama / "weights.safetensors")
    assert card_of(llama).problem == "model.safetensors: missing"


NORM = "model.norm.weight"


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda h: h[NORM].update(shape=[65]), f"tensor {NORM} takes 256 bytes, not 260"),
        (lambda h: h[NORM].update(shape=[-64]), "not of natural numbers"),
        (lambda h: h[NORM].update(dtype="F7"), "unknown type F7"),
        (lambda h: h[NORM].update(data_offsets=[0, 256]), "does not begin where"),
        (lambda h: h.pop(NORM), "does not begin where|belong to no tensor"),
        (lambda h: h[NORM].pop("shape"), "its header is damaged"),
        (lambda h: h.update({NORM: 5}), "its header is damaged"),
        (lambda h: h.update({"\ud800": h.pop(NORM)}), "its header is damaged"),
        (lambda h: h[NORM].update(data_offsets=[0, 256, 1]), "not of natural numbers"),
    ],
)
def test_damaged_headers(llama: Path, change: Any, problem: str) -> None:
    change_header(llama, change)
    with pytest.raises(ModelUnusableError, match=problem):
        read_tensors(llama / "model.safetensors")


@given(data=st.data())
@settings(
    max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
def test_any_damage_gives_a_reason(llama: Path, data: st.DataObject) -> None:
    """A header with changed bytes is read or refused, and nothing else happens."""
    path, copy = llama / "model.safetensors", llama / "changed.safetensors"
    content = bytearray(path.read_bytes())
    (length,) = struct.unpack("<Q", content[:8])
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, 8 + length - 1))] = data.draw(st.integers(0, 255))
    copy.write_bytes(content)
    with suppress(ModelUnusableError):
        read_tensors(copy)


# --- sizes


@pytest.mark.parametrize(
    ("name", "size_bytes", "words"),
    [
        ("config.json", 64 << 20, "larger than 1048576 bytes"),
        ("chat_template.jinja", 600 << 20, "larger than 1048576 bytes"),
        ("tokenizer_config.json", 64 << 20, "larger than"),
        ("model.safetensors.index.json", 64 << 20, "larger than"),
    ],
)
def test_a_file_that_is_too_large_is_a_problem_and_is_not_read(
    card_of: CardOf, llama: Path, name: str, size_bytes: int, words: str
) -> None:
    with (llama / name).open("wb") as file:
        file.truncate(size_bytes)  # a hole: it takes no room
    card = card_of(llama)
    assert f"{name}: {words}" in str(card.problem or card.warning)


def test_a_header_of_the_formats_own_limit_is_not_read(card_of: CardOf, llama: Path) -> None:
    with (llama / "model.safetensors").open("wb") as file:
        file.write((100_000_000).to_bytes(8, "little"))
        file.truncate(200_000_000)
    assert "model.safetensors" in str(card_of(llama).problem)


def test_only_what_is_used_of_a_config_is_kept(llama: Path) -> None:
    usual = len(pickle.dumps(read_folder(llama)))
    config = json.loads((llama / "config.json").read_text())
    config |= {f"key {number}": [number] * 9 for number in range(9999)}
    (llama / "config.json").write_text(json.dumps(config))
    assert len(pickle.dumps(read_folder(llama))) == usual


# --- memory


def test_estimates_grow_with_what_is_asked(card_of: CardOf, llama: Path) -> None:
    folder = read_folder(llama)
    small = Footprint.of(folder, OPTIONS, on_cpu=True).estimate()
    wide = LoadOptions(context_length=1024, parallel=8, cache_tokens=4096)
    large = Footprint.of(folder, wide, on_cpu=True).estimate()
    assert small.weights_bytes == pytest.approx(folder.size_bytes, rel=0.01)
    assert small.cache_bytes < large.cache_bytes
    assert small.total_bytes < large.total_bytes
    # keys and values of 2 layers, 2 heads of width 16, in float32
    assert small.cache_bytes >= 1024 * 2 * 2 * 2 * 16 * 4
    assert MlxBackend().estimate(card_of(llama), OPTIONS, {"device": "cpu"}) == small


@pytest.mark.parametrize(("dtype", "is_wide"), [("BF16", False), ("F32", True)])
def test_on_a_gpu_numbers_stay_as_they_are(llama: Path, dtype: str, is_wide: bool) -> None:
    folder = read_folder(llama)
    [count] = folder.elements.values()
    folder = evolve(folder, elements={dtype: count})
    gpu, cpu = (Footprint.of(folder, OPTIONS, on_cpu=on_cpu).estimate() for on_cpu in (False, True))
    assert gpu.weights_bytes == folder.size_bytes
    assert cpu.weights_bytes == 4 * count
    assert gpu.cache_bytes == (cpu.cache_bytes if is_wide else cpu.cache_bytes // 2)


@pytest.mark.parametrize("packages", [(), ("mlx-cuda-12",), ("mlx-cuda-13",)])
def test_the_device_is_told_by_what_is_installed(
    card_of: CardOf, llama: Path, monkeypatch: pytest.MonkeyPatch, packages: tuple[str, ...]
) -> None:
    """A CPU computes half precision in float32, which takes more memory."""
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(device, "_is_installed", lambda name: name in packages)
    change_header(llama, as_half)
    card, backend = card_of(llama), MlxBackend()
    on = {name: backend.estimate(card, OPTIONS, {"device": name}) for name in ("auto", "cpu")}
    assert (on["auto"] == on["cpu"]) == (not packages)
    assert on["auto"].total_bytes <= on["cpu"].total_bytes


def as_half(header: dict[str, Any]) -> None:
    """Make each float32 tensor one of twice as many bfloat16 numbers."""
    for entry in header.values():
        if entry.get("dtype") == "F32":
            entry.update(dtype="BF16", shape=[2 * entry["shape"][0], *entry["shape"][1:]])


# --- what deleting a model would delete


@pytest.mark.parametrize(
    "neighbour",
    ["thesis.docx", "README.md", "other.gguf", "notes.json", "model.py", "lora.safetensors"],
)
def test_weights_configs_and_tokenizer_are_the_models_own_and_nothing_else(
    card_of: CardOf, llama: Path, neighbour: str
) -> None:
    for name in ("model.safetensors.index.json", "generation_config.json", "merges.txt"):
        (llama / name).write_text("{}")
    expected = set(llama.iterdir())
    (llama / neighbour).touch()
    assert set(card_of(llama).files) == expected
    (llama / "config.json").write_text("{")
    card = card_of(llama)
    assert card.problem
    assert set(card.files) == expected


# --- the daemon's process


def test_the_kernel_side_imports_no_engine() -> None:
    code = (
        "import sys; from lmx_mlx_backend.backend import MlxBackend; "
        "from lmx_mlx_backend.architectures import is_known; assert is_known('llama'); "
        "print([n for n in ('mlx', 'mlx_lm', 'numpy', 'transformers', 'tokenizers') "
        "if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# --- what people are shown


def test_a_warning_is_shown_with_the_model(llama: Path, tmp_path_factory) -> None:
    home = tmp_path_factory.mktemp("home")
    shutil.copytree(llama, home / "models" / "m")
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors"}}
    (home / "models" / "m" / "model.safetensors.index.json").write_text(json.dumps(index))

    def lmx(command: str) -> str:
        environ = os.environ | {"LMX_HOME": str(home), "HOME": str(home), "COLUMNS": "400"}
        call = [sys.executable, "-m", "lmx_kernel", command]
        return subprocess.run(call, env=environ, capture_output=True, text=True, check=False).stdout

    warning = "its index names files that are not here, such as model-00001-of-00002.safetensors"
    assert f"ok, but {warning}" in lmx("ls")
    assert f"model m: can be loaded, but {warning}" in lmx("doctor")


@pytest.mark.parametrize(
    ("template", "more"),
    [("{{ messages }}", {"chat"}), ("{{ enable_thinking }}", {"chat", "thinking"}), ("", set())],
)
def test_a_template_says_what_the_model_can_do(card_of: CardOf, llama: Path, template, more):
    (llama / "chat_template.jinja").write_text(template)
    assert card_of(llama).capabilities == {"completion", *more}
