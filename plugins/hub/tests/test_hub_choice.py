"""What is downloaded: weights that cannot run, one quantisation, and names that lead nowhere."""

from __future__ import annotations

import pytest
from lmx_hub.choice import PREFERRED, RemoteFile, choose
from lmx_hub.kind import Downloads, DownloadSpec
from lmx_hub.names import check_file, check_repo
from lmx_hub.settings import HubSettings

from lmx_kernel.errors import InvalidRequestError, ModelUnusableError, NotFoundError


def remote(*paths, size_bytes=1):
    return [RemoteFile(path, size_bytes, "0" * 64, None) for path in paths]


def chosen(*paths, quantization=None, files=None):
    choice = choose(remote(*paths), quantization, files)
    return {file.path for file in choice.files}


# --- kinds ---------------------------------------------------------------------------------------


def test_weights_tokenizer_templates_and_licence_come():
    wanted = {
        *("config.json", "model.safetensors.index.json", "merges.txt", "tokenizer.model"),
        *("chat_template.jinja", "README.md", "LICENSE"),
        *("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"),
    }
    assert chosen(*wanted) == wanted


@pytest.mark.parametrize(
    "name",
    [
        *("modeling_x.py", "pytorch_model.bin", "model.pt", "x.pkl", "x.ckpt", "x.msgpack"),
        *("tf_model.h5", "x.ipynb", "x.sh", "x.onnx", "x.pth", "x.so", "x.json.py", "x", ".x"),
        *("MODEL.BIN", "x.pY", "x.npz", "x.keras", "x.gguf.exe", "x.safetensors.bin"),
    ],
)
def test_nothing_that_could_run_comes(name):
    assert chosen("model.safetensors", name) == {"model.safetensors"}
    with pytest.raises(InvalidRequestError, match="not downloaded"):
        chosen("model.safetensors", name, files=(name,))


def test_a_long_document_is_left_out():
    files = remote("model.safetensors") + remote("README.md", "LICENSE", size_bytes=2 << 20)
    assert [file.path for file in choose(files, None, None).files] == ["model.safetensors"]


def test_a_repository_of_pickles_is_refused_with_the_reason():
    with pytest.raises(ModelUnusableError, match=r"pickle.*safetensors or GGUF"):
        chosen("config.json", "pytorch_model.bin")
    with pytest.raises(ModelUnusableError, match="no weights"):
        chosen("config.json", "data.parquet")


def test_the_same_weights_come_once():
    model = ("config.json", "model.safetensors")
    others = ("consolidated.safetensors", "onnx/model.safetensors", "a-Q4_0.gguf", "x/config.json")
    assert chosen(*model, *others) == set(model)
    assert chosen("weights.safetensors", "config.json") == {"weights.safetensors", "config.json"}
    with pytest.raises(ModelUnusableError, match="in folders only"):
        chosen("4bit/model.safetensors")


def test_files_can_be_named():
    there = ("config.json", "4bit/model.safetensors", "4bit/config.json", "8bit/model.safetensors")
    assert chosen(*there, files=("4bit/*",)) == {"4bit/model.safetensors", "4bit/config.json"}
    assert chosen(*there, files=("config.json",)) == {"config.json"}
    with pytest.raises(NotFoundError, match="no file '2bit/"):
        chosen(*there, files=("config.json", "2bit/*"))


# --- quantisations -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("there", "expected"),
    [
        (["x-F16.gguf", "x-Q2_K.gguf"], "Q2_K"),
        (["x-F16.gguf", "x-IQ3_M.gguf", "x-Q2_K.gguf"], "IQ3_M"),
        (["x-BF16.gguf", "x-Q5_1.gguf", "x-Q8_0.gguf"], "Q5_1"),
        (["x-BF16.gguf", "x-F32.gguf", "x-TQ1_0.gguf"], "BF16"),
        (["x-IQ4_KSS.gguf", "x-Q6_K.gguf", "x.gguf"], "IQ4_KSS"),
        (["a.Q8_0.gguf", "a.Q4_K_M.gguf", "a.Q2_K.gguf"], "Q4_K_M"),
        (["a-q8_0.gguf", "a-fp16.gguf"], "Q8_0"),
        (["Qwen3-4B-UD-Q4_K_XL.gguf", "Qwen3-4B-Q3_K_M.gguf"], "UD-Q4_K_XL"),
        (["x-IQ2_XXS.gguf", "x-TQ1_0.gguf"], "IQ2_XXS"),
        (["x-f16.gguf"], "F16"),
        (["model.gguf"], "model"),
    ],
)
def test_without_a_wish_a_good_quantization_is_taken(there, expected):
    choice = choose(remote(*there), None, None)
    assert choice.quantization == expected
    assert len(choice.files) == 1
    assert len(choice.quantizations) == len(there)


def test_a_wish_is_met_in_any_case_of_letters_and_all_parts_come():
    there = (
        *("Q4_K_M/a-Q4_K_M-00001-of-00002.gguf", "Q4_K_M/a-Q4_K_M-00002-of-00002.gguf"),
        *("a-Q8_0.gguf", "mmproj-F16.gguf", "imatrix.gguf", "README.md", "config.json"),
    )
    assert chosen(*there, quantization="q4_k_m") == {*there[:2], "README.md"}
    assert chosen(*there, quantization="Q8_0") == {"a-Q8_0.gguf", "README.md"}


COMPANIONS = (
    *("x-mmproj-f16.gguf", "mmproj-F16.gguf", "x.mmproj-Q8_0.gguf", "mmproj/x-f16.gguf"),
    *("x.imatrix.gguf", "imatrix_unsloth.gguf", "x-draft-Q8_0.gguf", "x-MTP-Q8_0.gguf"),
    *("x-eagle3-F16.gguf", "x-lora-f16.gguf", "x-vision-projector-f16.gguf"),
)


@pytest.mark.parametrize("companion", COMPANIONS)
def test_what_belongs_to_a_model_is_no_quantization(companion):
    choice = choose(remote("x-Q2_K.gguf", companion), None, None)
    assert [file.path for file in choice.files] == ["x-Q2_K.gguf"]
    assert choice.quantizations == ("Q2_K",)


def test_a_model_whose_own_name_has_such_a_word_is_one():
    assert chosen("x-draft-Q8_0.gguf", "x-draft-F16.gguf") == {"x-draft-Q8_0.gguf"}
    with pytest.raises(ModelUnusableError, match="no weights"):
        chosen("mmproj-F16.gguf")


def test_a_quantization_may_be_the_name_of_a_folder():
    there = ("Q4_K_M/x-00001-of-00002.gguf", "Q4_K_M/x-00002-of-00002.gguf", "BF16/x.gguf")
    assert chosen(*there) == chosen(*there, quantization="q4_k_m") == set(there[:2])
    assert chosen(*there, quantization="BF16") == {"BF16/x.gguf"}


def test_an_unknown_quantization_names_those_there_are():
    with pytest.raises(NotFoundError, match=r"'Q5_0'; there are: Q4_0, Q8_0$") as caught:
        chosen("a-Q8_0.gguf", "a-Q4_0.gguf", quantization="Q5_0")
    assert caught.value.param == "quantization"
    with pytest.raises(NotFoundError, match="there are: none"):
        chosen("model.safetensors", quantization="Q4_0")


@pytest.mark.parametrize("name", PREFERRED)
def test_every_preferred_quantization_is_found_in_a_name(name):
    assert choose(remote(f"a-{name}.gguf", "a-Q1_0.gguf"), None, None).quantization == name


# --- names ---------------------------------------------------------------------------------------

BAD_FILES = [
    *(
        "../x.json",
        "a/../x.json",
        "..",
        ".",
        "",
        "/x.json",
        "//x.json",
        "a//x.json",
        "a/",
        "./x.json",
    ),
    *("\\x.json", "..\\x.json", "C:x.json", "C:\\x.json", "c:/x.json", "\\\\host\\share\\x.json"),
    *("x\0.json", "x\n.json", "\x7f.json", "\udcff.json", "\u202etxt.json", "a/\u2028x.json"),
    *(" x.json", "x.json ", "a./x.json", "a /x.json", "...", ".x.json", ".git/x.json", "~:x.json"),
    *("x" * 201, "é" * 101, "/".join(["x" * 100] * 9), "x.json:stream", "a|b.json", 'a"b', "a?b"),
]


@pytest.mark.parametrize("path", BAD_FILES)
def test_a_file_that_could_lead_elsewhere_is_refused(path):
    with pytest.raises(ModelUnusableError, match="not safe") as caught:
        check_file(path)
    assert len(caught.value.message) < 400
    assert caught.value.message.isascii()


@pytest.mark.parametrize(
    "path", ["x.json", "a/b/c.json", "a b (1).gguf", "é/日本.json", "a..b.json"]
)
def test_an_ordinary_name_is_taken(path):
    check_file(path)


BAD_REPOS = [
    *("", "name", "/", "a/", "/b", "a/b/c", "../b", "a/..", "a/../b", "./b", "a/.", "a/.b", ".a/b"),
    *("a\\b", "a/b\\c", "C:/b", "a/b\0", "a/\nb", "a /b", "a/é", "a/b%2e", "%2e%2e/b", "a/b--c"),
    *("a/b..c", "a/b.part", "a/b.incomplete", "a/b.git", "~/b", "a/~", "a" * 97 + "/b", "a/b?x=1"),
    *(
        "a/b#c",
        "http://a/b",
        "a/-b",
        "a/b-",
        "a/b.",
        "//a/b",
        "\udcff/b",
        "\uff0e\uff0e/b",
    ),
]


@pytest.mark.parametrize("repo", BAD_REPOS)
async def test_a_repository_is_publisher_and_name(tmp_path, repo):
    with pytest.raises(InvalidRequestError) as caught:
        check_repo(repo)
    assert caught.value.param == "repo"
    kind = Downloads(HubSettings(folder=tmp_path / "models"))
    with pytest.raises(InvalidRequestError):
        await kind.discard(DownloadSpec(repo))


@pytest.mark.parametrize("repo", ["org/name", "mlx-community/Qwen3-0.6B-4bit", "a/b", "A_1/B.2_c"])
def test_an_ordinary_repository_is_taken(repo):
    check_repo(repo)


@pytest.mark.parametrize("revision", ["..", "a/../b", "-x", "a b", "", "a\0", "x" * 201, "/main"])
def test_a_revision_is_a_branch_a_tag_or_a_commit(tmp_path, revision):
    with pytest.raises(InvalidRequestError) as caught:
        Downloads(HubSettings(folder=tmp_path)).key(DownloadSpec("a/b", revision))
    assert caught.value.param == "revision"


def test_jobs_for_the_same_have_the_same_key(tmp_path):
    key = Downloads(HubSettings(folder=tmp_path)).key
    assert key(DownloadSpec("a/b")) == "a/b@main:"
    assert key(DownloadSpec("a/b", "refs/pr/1", "Q4_0")) == "a/b@refs/pr/1:Q4_0"
    assert key(DownloadSpec("a/b", files=("x", "y"))) != key(DownloadSpec("a/b"))
