"""What people paste to name a model is understood, or answered with what to type."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from lmx_hub import plugin
from lmx_hub.kind import Downloads, DownloadSpec
from lmx_hub.reference import Reference, parse_reference
from lmx_hub.settings import HubSettings

from lmx_kernel.errors import InvalidRequestError, NotFoundError
from lmx_kernel.plugins.metrics import PluginMetrics

PAGE = "https://huggingface.co/org/name"


@pytest.mark.parametrize(
    "text",
    [
        *("org/name", " org/name\n", "hf.co/org/name", "huggingface.co/org/name", "hf://org/name"),
        *(PAGE, f"{PAGE}/", f"{PAGE}?library=x", f"{PAGE}#usage", f"{PAGE}.git", f"{PAGE}/tree"),
        *(f"{PAGE}/discussions/3", "HTTPS://HuggingFace.co/org/name", "http://hf.co/org/name"),
        "http://localhost:9/org/name",
    ],
)
def test_a_model_is_named_or_its_page(text):
    assert parse_reference(text, "http://localhost:9") == Reference("org/name")


@pytest.mark.parametrize("text", ["org/name{}", "hf.co/org/name{}", f"{PAGE}{{}}"])
@pytest.mark.parametrize("label", [":Q4_K_M", "@Q4_K_M"])
def test_a_quantization_may_stand_behind_it(text, label):
    assert parse_reference(text.format(label)) == Reference("org/name", "Q4_K_M")


@pytest.mark.parametrize("page", ["blob", "resolve", "raw"])
@pytest.mark.parametrize(
    ("file", "pattern"),
    [
        ("x-Q4_0.gguf", "x-Q4_0.gguf"),
        ("Q4_0/x-00002-of-00003.gguf", "Q4_0/x-*-of-00003.gguf"),
        ("x%5B1%5D.gguf?download=true", "x[[]1].gguf"),
    ],
)
def test_the_address_of_a_file_means_it_with_all_its_parts(page, file, pattern):
    found = parse_reference(f"{PAGE}/{page}/refs%2Fpr%2F1/{file}")
    assert found == Reference("org/name", revision="refs/pr/1", files=(pattern,))


def test_the_address_of_a_folder_means_what_is_in_it():
    assert parse_reference(f"{PAGE}/tree/v1") == Reference("org/name", revision="v1")
    assert parse_reference(f"{PAGE}/tree/v1/UD-Q4").files == ("UD-Q4/*",)


@pytest.mark.parametrize(
    "text",
    [
        *("", "name", "name:Q4_K_M", "a/b/c", "org/name:", "org/name:a:b", "hf.co/name"),
        *("https://example.com/org/name", "ftp://hf.co/org/name", "https://hf.co", "hf://name"),
        *("https://huggingface.co/datasets/org/name", "https://huggingface.co/models", "C:/x"),
        *("./org/name.gguf", "~/models/x", "x" * 9999),
    ],
)
def test_anything_else_is_answered_with_what_to_type(text):
    with pytest.raises(InvalidRequestError, match=r"type publisher/name, or .*:Q4_K_M") as caught:
        parse_reference(text)
    assert caught.value.param == "repo"
    assert len(caught.value.message) < 300


@pytest.mark.parametrize("file", ["model-00001-of-00002.safetensors", "config.json", "x.py"])
def test_one_file_of_a_folder_is_no_model(file):
    with pytest.raises(InvalidRequestError, match="type org/name for the whole model"):
        parse_reference(f"{PAGE}/blob/main/{file}")


# --- as the job takes it -------------------------------------------------------------------------


@pytest.fixture
def key(tmp_path):
    return Downloads(HubSettings(folder=tmp_path)).key


def test_different_ways_to_say_the_same_are_the_same_download(key):
    same = [
        DownloadSpec("org/name:q4_k_m"),
        DownloadSpec("org/name@Q4_K_M"),
        DownloadSpec(PAGE, quantization="Q4_K_M"),
        DownloadSpec("hf.co/org/name:Q4_K_M", quantization="q4_k_m"),
    ]
    assert {key(spec) for spec in same} == {"org/name@main:Q4_K_M"}


def test_what_is_said_beside_an_address_counts_for_more(key):
    assert key(DownloadSpec(f"{PAGE}/tree/v1")) == "org/name@v1:"
    assert key(DownloadSpec(f"{PAGE}/tree/v1", revision="v2")) == "org/name@v2:"


def test_two_quantizations_at_once_are_refused(key):
    with pytest.raises(InvalidRequestError, match="leave one out") as caught:
        key(DownloadSpec("org/name:Q4_K_M", quantization="Q8_0"))
    assert caught.value.param == "quantization"


def test_a_name_inside_an_address_is_checked_as_any_other(key):
    for name in ("..%2f..", "a--b", "x.part"):
        with pytest.raises(InvalidRequestError):
            key(DownloadSpec(f"https://hf.co/org/{name}"))


async def test_a_pasted_file_comes_with_its_parts(hub, root, listed):
    parts = [f"Q4_0/x-Q4_0-0000{number}-of-00002.gguf" for number in (1, 2)]
    hub.put("org/name", dict.fromkeys((*parts, "x-F16.gguf", "x-mmproj-f16.gguf"), b"x" * 99))
    settings = HubSettings(folder=root, endpoint=hub.url, reserve_bytes=0)
    spec = DownloadSpec(f"{hub.url}/org/name/blob/main/{parts[1]}")
    await Downloads(settings).run(spec, lambda *_: None)
    assert listed() == {"org/name/Q4_0": {name.rpartition("/")[2] for name in parts}}


async def test_downloads_are_counted_by_how_they_ended(hub, root):
    hub.put("org/name", {"x-Q4_0.gguf": b"x" * 99})
    settings = HubSettings(folder=root, endpoint=hub.url, reserve_bytes=0, wait_s=0)
    metrics = PluginMetrics("hub")
    (kind,) = plugin.lmx_job_kinds(
        SimpleNamespace(settings=lambda cls: settings), SimpleNamespace(metrics=metrics)
    )
    await kind.run(DownloadSpec("org/name"), lambda *_: None)
    with pytest.raises(NotFoundError):
        await kind.run(DownloadSpec("org/none"), lambda *_: None)
    ended, size_bytes = metrics.read()
    assert {one.labels: one.value for one in ended.series} == {
        ("ok",): 1,
        ("not_found",): 1,
    }
    assert [one.value for one in size_bytes.series] == [99]
