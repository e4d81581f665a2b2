"""A new architecture by `pip install`, into a daemon that runs (the point of the product)."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys

import httpx2 as httpx
import mlx.core as mx
import pytest
from mlx.utils import tree_flatten
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from lmx_kernel.testing.fake_model import FakeModel
from lmx_kernel.testing.harness import running_daemon, write_config, write_fake_models

PLUGINS = ("lmx_openai_api.plugin", "lmx_mlx_backend.backend", "lmx_model_folders.plugin")
CONFIG = {
    "model_type": "tiny_lm",
    "vocab_size": 320,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "max_position_embeddings": 512,
    "eos_token_id": 0,
}


def pip(*arguments):
    subprocess.run(
        [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q", *arguments], check=True
    )


@pytest.fixture
def example(request, tmp_path):
    """The folder of the example package, copied; it is uninstalled in the end."""
    source = request.config.rootpath / "examples" / "lmx-plugin-tiny"
    target = tmp_path / "lmx-plugin-tiny"
    subprocess.run(["cp", "-r", str(source), str(target)], check=True)
    yield target
    pip("uninstall", "-y", "lmx-plugin-tiny")


def write_model(folder, example):
    """Write a `tiny_lm` with random weights, a config and a tokenizer of bytes."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = {"<end>": 0} | {letter: n + 1 for n, letter in enumerate(alphabet)}
    tokenizer = Tokenizer(models.BPE(vocab=words, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<end>"}))
    sys.path.insert(0, str(example))
    try:
        from lmx_tiny import tiny_lm

        model = tiny_lm.Model(tiny_lm.ModelArgs.from_dict(CONFIG))
        mx.save_safetensors(
            str(folder / "model.safetensors"), dict(tree_flatten(model.parameters()))
        )
    finally:
        sys.path.remove(str(example))
        for name in [name for name in sys.modules if name.startswith("lmx_tiny")]:
            del sys.modules[name]


async def install(example, how, tmp_path):
    """Install with the product's own command, which says what it registered."""
    if how == "wheel":
        await asyncio.to_thread(pip, "wheel", "--no-deps", "-w", str(tmp_path), str(example))
        [wheel] = tmp_path.glob("*.whl")
        arguments = [str(wheel)]
    else:
        arguments = ["-e", str(example)]
    command = [sys.executable, "-m", "lmx_kernel", "install", "--no-deps", "-q", *arguments]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    output, _ = await process.communicate()
    return output.decode()


async def long_stream(http):
    """Read a stream of the fake model until it ends; return its numbers."""
    body = {"model": "fake", "messages": [{"role": "user", "content": "x"}], "max_tokens": 1500}
    numbers = []
    async with http.stream("POST", "/v1/chat/completions", json=body | {"stream": True}) as answer:
        async for line in answer.aiter_lines():
            if line.startswith("data: {"):
                content = json.loads(line[6:])["choices"][0]["delta"].get("content")
                numbers += [int(word) for word in (content or "").split()]
    return numbers


@pytest.mark.parametrize("how", ["wheel", "editable"])
async def test_an_architecture_is_installed_while_the_daemon_runs(tmp_path, example, how):
    (tmp_path / "models").mkdir()
    write_model(tmp_path / "models" / "tiny", example)
    write_fake_models(tmp_path, {"fake": FakeModel(tokens_per_s=100)})
    folders = (
        "[model_folders]\nhome = false\nhugging_face = false\nlm_studio = false\n"
        f'paths = ["{tmp_path / "models"}"]\n'
    )
    config = write_config(tmp_path, PLUGINS, folders)
    ask = {"model": "tiny", "prompt": "hello", "max_tokens": 5}
    async with (
        running_daemon(config) as daemon,
        httpx.AsyncClient(base_url=daemon.url, timeout=60) as http,
    ):
        refused = await http.post("/v1/completions", json=ask)
        assert refused.status_code == 422
        assert "no architecture `tiny_lm`; a plugin may add it" in refused.text
        stream = asyncio.create_task(long_stream(http))
        said = await install(example, how, tmp_path)
        assert "lmx-plugin-tiny 1.0: lmx.mlx.architectures tiny_lm, at the next load" in said
        answer = await http.post("/v1/completions", json=ask)
        assert answer.status_code == 200, answer.text
        assert answer.json()["usage"]["completion_tokens"] >= 1
        numbers = await stream
        assert numbers == [(numbers[0] + n) % 4096 for n in range(1500)]
        assert daemon.process.returncode is None
