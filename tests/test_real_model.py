"""The whole server on a real model: the demo model through the unmodified SDK."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from pathlib import Path

import httpx2 as httpx
import pytest
from openai import AsyncOpenAI, BadRequestError, NotFoundError

from lmx_kernel.errors import UnavailableError
from lmx_kernel.kernel.assembly import assemble
from lmx_kernel.kernel.boot import boot
from lmx_kernel.testing.harness import running_daemon
from lmx_kernel.types import GenerationRequest, LoadOverrides, TextPrompt

MODEL = "smollm2-135m-instruct"
FILE = Path(MODEL) / "SmolLM2-135M-Instruct.Q4_1.gguf"
NEAR_TIE = 1.0  # in log-odds: closer than this, batch and prefill kernels may round either way


@pytest.fixture(scope="session")
def model_folder():
    """The folder with the demo model; `make demo` puts it in place."""
    home = Path(os.environ.get("LMX_HOME") or "~/.lmx").expanduser()
    if not (home / "models" / FILE).exists():
        pytest.fail(f"the demo model is missing at {home / 'models' / FILE}: run `make demo`")
    return home / "models"


@pytest.fixture
def config(tmp_path, model_folder):
    """A config that sees the demo model and nothing else."""
    path = tmp_path / "config.toml"
    path.write_text(
        f"[model_folders]\nhome = false\nhugging_face = false\nlm_studio = false\n"
        f'paths = ["{model_folder}", "{tmp_path}"]\n'
    )
    return path


def chat(text, **fields):
    return {"model": MODEL, "messages": [{"role": "user", "content": text}], **fields}


def sdk(daemon):
    return AsyncOpenAI(base_url=f"{daemon.url}/v1", api_key="any", max_retries=0)


async def stream(client, text, on_text=None, **fields):
    """Return a greedy streamed answer: its tokens, and how likely each was before the next one."""
    tokens, margins = [], []
    async with await client.chat.completions.create(
        **chat(text, stream=True, temperature=0, logprobs=True, top_logprobs=2, **fields)
    ) as chunks:
        async for chunk in chunks:
            for one in chunk.choices[0].logprobs.content if chunk.choices[0].logprobs else ():
                tokens.append(one.token)
                margins.append(one.top_logprobs[0].logprob - one.top_logprobs[1].logprob)
                if on_text:
                    on_text()
    return tokens, margins


async def test_the_sdk_gets_answers_streamed_and_not(config):
    async with running_daemon(config) as daemon, sdk(daemon) as client:
        assert MODEL in [model.id async for model in await client.models.list()]
        assert (await client.models.retrieve(MODEL)).id == MODEL
        whole = await client.chat.completions.create(
            **chat("Name three colors.", temperature=0, max_tokens=30)
        )
        assert "Red" in whole.choices[0].message.content
        assert whole.choices[0].finish_reason == "stop"
        assert whole.usage.prompt_tokens == 34
        streamed, _ = await stream(client, "Name three colors.", max_tokens=30)
        assert "".join(streamed) == whole.choices[0].message.content
        with pytest.raises(NotFoundError, match=MODEL):
            await client.chat.completions.create(**chat("hi") | {"model": "nope"})


async def test_completions_seeds_candidates_and_logprobs(config):
    async with running_daemon(config) as daemon, sdk(daemon) as client:
        ask = {"model": MODEL, "prompt": "The capital of France is", "max_tokens": 8}
        plain = await client.completions.create(**ask, temperature=0, logprobs=2)
        assert "Paris" in plain.choices[0].text
        assert plain.choices[0].text.startswith(" ")
        details = plain.choices[0].logprobs
        assert "".join(details.tokens) == plain.choices[0].text
        assert all(logprob <= 0 for logprob in details.token_logprobs)
        seeded = [
            await client.completions.create(**ask, temperature=1.2, seed=5, n=3) for _ in range(2)
        ]
        texts = [[choice.text for choice in one.choices] for one in seeded]
        assert texts[0] == texts[1]
        assert len(set(texts[0])) > 1
        assert seeded[0].usage.completion_tokens <= 3 * 8


async def test_a_second_turn_computes_only_what_is_new(config):
    async with running_daemon(config) as daemon, sdk(daemon) as client:
        messages = [{"role": "user", "content": "Tell me about the sea. " * 20}]
        first = await client.chat.completions.create(
            model=MODEL, messages=messages, max_tokens=10, temperature=0
        )
        messages += [
            {"role": "assistant", "content": first.choices[0].message.content},
            {"role": "user", "content": "Go on."},
        ]
        second = await client.chat.completions.create(
            model=MODEL, messages=messages, max_tokens=10, temperature=0
        )
        cached = second.usage.prompt_tokens_details.cached_tokens
        assert cached >= 0.9 * first.usage.prompt_tokens


@pytest.mark.parametrize("streamed", [True, False])
async def test_a_prompt_over_the_context_is_a_400_and_one_that_fills_it_is_answered(
    config, streamed
):
    """Fault 8."""
    config.write_text(config.read_text() + "[models]\ncontext_length = 64\n")
    async with running_daemon(config) as daemon, sdk(daemon) as client:
        with pytest.raises(BadRequestError) as caught:
            await client.chat.completions.create(**chat("word " * 100, stream=streamed))
        assert caught.value.code == "context_length_exceeded"
        assert "64" in caught.value.message
        full = await client.completions.create(model=MODEL, prompt=[100] * 64)
        assert full.choices[0].finish_reason == "length"
        assert full.usage.completion_tokens == 1


async def test_eight_streams_survive_the_death_of_their_worker(config):
    """Fault 1 with a real engine: the text of an undisturbed run, up to a shown near-tie."""
    questions = [f"{n}. Tell me a story about the sea." for n in range(8)]
    async with (
        running_daemon(config) as daemon,
        sdk(daemon) as client,
        httpx.AsyncClient(base_url=daemon.url, timeout=60) as http,
    ):
        expected = await asyncio.gather(*(stream(client, q, max_tokens=24) for q in questions))
        [model] = (await http.get("/health/status")).json()["models"]
        seen = []

        def kill():
            seen.append(True)
            if len(seen) == 40:
                os.kill(model["pid"], signal.SIGABRT)

        streams = [stream(client, q, on_text=kill, max_tokens=24) for q in questions]
        for (tokens, _), (whole, margins) in zip(
            await asyncio.gather(*streams), expected, strict=True
        ):
            pairs = zip(tokens, whole, margins, strict=False)
            parted = next((margin for one, other, margin in pairs if one != other), 0.0)
            assert parted < NEAR_TIE
            assert len(tokens) == len(whole) or parted
        [again] = (await http.get("/health/status")).json()["models"]
        assert again["pid"] != model["pid"]


async def test_damaged_files_are_never_listed_nor_loaded(config, tmp_path, model_folder):
    whole = (model_folder / FILE).read_bytes()
    for name, data in {
        "cut": whole[: len(whole) // 2],
        "empty": b"",
        "noise": b"GGUF" + bytes(range(256)) * 8,
        "headless": whole[8:4096],
    }.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.gguf").write_bytes(data)
    (tmp_path / "gone").mkdir()
    gone = tmp_path / "gone" / "gone.gguf"
    shutil.copy(model_folder / FILE, gone)
    async with (
        running_daemon(config) as daemon,
        sdk(daemon) as client,
        httpx.AsyncClient(base_url=daemon.url, timeout=60) as http,
    ):
        listed = {model.id async for model in await client.models.list()}
        assert listed >= {MODEL, "gone"}
        assert listed.isdisjoint({"cut", "empty", "noise", "headless"})
        gone.unlink()
        for name in ("cut", "empty", "noise", "headless", "gone"):
            response = await http.post("/v1/chat/completions", json=chat("hi") | {"model": name})
            assert response.status_code in (404, 422), name
            assert response.headers["x-should-retry"] == "false"
            assert str(tmp_path) not in response.text
        status = (await http.get("/health/status")).json()
        assert status["memory_reserved_bytes"] == 0


@pytest.mark.parametrize(
    ("context", "parallel", "repeats"),
    [(256, 4, 78), pytest.param(2048, 8, 150, marks=pytest.mark.full)],
)
async def test_a_model_takes_what_was_estimated_at_most(config, context, parallel, repeats):
    """Long prompts side by side fill the cache that the estimate counted."""
    cache = max(2 * context, parallel * 256)
    sizes = f"context_length = {context}\nparallel = {parallel}\ncache_tokens = {cache}\n"
    config.write_text(f"{config.read_text()}[models]\n{sizes}")
    assembly = assemble(boot(config))
    await assembly.catalogue.refresh()
    try:
        kernel = assembly.kernel
        reserved = (await kernel.load(MODEL, LoadOverrides())).memory_bytes

        async def ask(number):
            prompt = TextPrompt(f"{number} " + "and so on " * repeats)
            request = GenerationRequest(model=MODEL, prompt=prompt, max_tokens=8)
            with await kernel.generate(request) as answer:
                async for _ in answer:
                    pass

        await asyncio.gather(*map(ask, range(parallel)))
        await assembly.guard.look()
        [model] = kernel.status().models
        assert model.memory_bytes == reserved
        assert 0.5 * reserved < model.observed_bytes < 1.15 * reserved
    finally:
        await assembly.lifecycle.close(UnavailableError("the test is over"))
