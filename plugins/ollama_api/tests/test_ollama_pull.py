"""Downloads, line by line."""

from __future__ import annotations

import ollama
import pytest

from lmx_kernel.interfaces import JobState
from lmx_kernel.testing.stub_kernel import MODEL

RUNNING = {"state": JobState.RUNNING}
HALF = {"done": 5.0, "total": 10.0}
DONE = {"state": JobState.DONE, "done": 10.0}
REPO = "hf.co/org/name:Q4_K_M"


async def test_progress(api):
    api.kernel.jobs.steps = [{}, RUNNING, HALF, DONE]
    told = [one async for one in await api.sdk.pull(REPO, stream=True)]
    assert [one.status for one in told] == [
        "pulling manifest",
        "pulling manifest",
        "pulling org/name:Q4_K_M",
        "pulling org/name:Q4_K_M",
        "success",
    ]
    half, whole = told[2:4]
    assert (half.completed, half.total) == (5, 10)
    assert (whole.completed, whole.total) == (10, 10)
    assert half.digest == whole.digest
    assert half.digest.startswith("sha256:")
    assert not api.kernel.listeners


async def test_without_a_stream(api):
    api.kernel.jobs.steps = [{}, RUNNING, HALF, DONE]
    assert (await api.sdk.pull(REPO)).status == "success"


@pytest.mark.parametrize(
    ("name", "repo", "quantization"),
    [
        ("org/name", "org/name", None),
        ("org/name:latest", "org/name", None),
        ("hf.co/org/name", "org/name", None),
        ("https://huggingface.co/org/name:Q8_0", "org/name", "Q8_0"),
    ],
)
async def test_names_on_the_hub(api, name, repo, quantization):
    api.kernel.jobs.steps = [DONE]
    assert (await api.post("pull", {"name": name, "stream": False})).status_code == 200
    assert api.kernel.jobs.job.spec == {"repo": repo, "quantization": quantization}


async def test_a_failure(api, failed):
    api.kernel.jobs.steps = [{}, RUNNING, failed]
    with pytest.raises(ollama.ResponseError, match="no such repo"):
        [one async for one in await api.sdk.pull(REPO, stream=True)]
    api.kernel.jobs.steps = [{}, failed]
    with pytest.raises(ollama.ResponseError, match="no such repo") as caught:
        await api.sdk.pull(REPO)
    assert caught.value.status_code == 404


@pytest.mark.parametrize("state", [JobState.PAUSED, JobState.CANCELLED])
async def test_a_download_that_somebody_stops(api, state, lines):
    api.kernel.jobs.steps = [{}, RUNNING, {"state": state}]
    assert str(state) in lines(await api.post("pull", {"model": REPO}))[-1]["error"]


async def test_a_server_that_stops(api, lines):
    api.kernel.draining = True
    assert "stopping" in lines(await api.post("pull", {"model": REPO}))[-1]["error"]


async def test_a_silence_is_broken(api):
    body = {"model": REPO}
    async with api.http.stream("POST", "/api/pull", json=body) as answer:
        lines = answer.aiter_lines()
        for _ in range(3):
            assert await anext(lines) == '{"status":"pulling manifest"}'


async def test_a_model_that_is_here_and_not_of_the_hub(api, card, lines):
    api.kernel.cards.append(card("mine"))
    assert lines(await api.post("pull", {"model": "mine"})) == [{"status": "success"}]
    assert (await api.sdk.pull("mine:latest")).status == "success"
    assert api.kernel.jobs.job is None


async def test_a_name_of_ollamas_own_library(api):
    for stream in (True, False):
        answer = await api.post("pull", {"model": "llama3.2", "stream": stream})
        assert answer.status_code == 400
        assert "publisher/name" in answer.json()["error"]


async def test_a_model_of_the_hub_is_looked_for_again(api):
    api.kernel.jobs.steps = [DONE]
    await api.sdk.pull(MODEL)
    assert api.kernel.jobs.job.spec["repo"] == MODEL
