"""LM Studio's API from a whole daemon with fake models."""

from __future__ import annotations

import json

import httpx2
import pytest
import pytest_asyncio

from lmx_kernel.testing.fake_model import FakeModel
from lmx_kernel.testing.harness import running_daemon, write_config, write_fake_models

PLUGINS = ("lmx_lmstudio_api.plugin", "lmx_openai_api.plugin", "lmx_hub.plugin")
SCRIPTS = {
    "counter": FakeModel(answer_tokens=8),
    "loader": FakeModel(answer_tokens=8, load_s=0.3),
    "other": FakeModel(answer_tokens=8),
    "echo": FakeModel(says="Hello!"),
    "vectors": FakeModel(embeds=True),
    "huge": FakeModel(memory_bytes=2**60),
}
KEY = "sesame-opens-the-door-1234567890"
# Nothing listens there: a download waits for the hub.
CONFIG = f"""
[server]
api_key = "{KEY}"
[hub]
endpoint = "http://127.0.0.1:9"
folder = "{{folder}}"
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def url(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    write_fake_models(home, SCRIPTS)
    config = write_config(home, PLUGINS, CONFIG.format(folder=home / "downloads"))
    async with running_daemon(config) as daemon:
        yield daemon.url


@pytest.fixture
async def http(url):
    headers = {"authorization": f"Bearer {KEY}"}
    async with httpx2.AsyncClient(base_url=url, timeout=60, headers=headers) as client:
        yield client


@pytest.fixture
def chat(http):
    """Return a function that sends a chat, and returns the answer's body."""

    async def chat(text, *, model="counter", **fields):
        body = {"model": model, "input": text, **fields}
        answer = await http.post("/api/v1/chat", json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    return chat


@pytest.fixture
def load(http):
    """Return a function that loads a model."""

    async def load(model, **fields):
        return await http.post("/api/v1/models/load", json={"model": model, **fields})

    return load


def data_of(stream):
    """Return the data of all events of a stream."""
    lines = stream.splitlines()
    return [json.loads(line[6:]) for line in lines if line.startswith("data: ")]


async def instances(http, model):
    models = (await http.get("/api/v1/models")).json()["models"]
    (found,) = [one["loaded_instances"] for one in models if one["key"] == model]
    return found


async def test_load_again_and_unload(http, load):
    first = (await load("other", context_length=512, echo_load_config=True)).json()
    assert first.pop("load_time_seconds") > 0
    assert first == {
        "type": "llm",
        "instance_id": "other",
        "status": "loaded",
        "load_config": {"context_length": 512, "parallel": 8},
    }
    status = (await http.get("/health/status")).json()
    (pid,) = [one["pid"] for one in status["models"] if one["id"] == "other"]
    for fields in ({}, {"context_length": 512}, {"flash_attention": True, "eval_batch_size": 99}):
        again = (await load("other", **fields)).json()
        assert again["instance_id"] == "other"
        assert "load_config" not in again
    status = (await http.get("/health/status")).json()
    assert [one["pid"] for one in status["models"] if one["id"] == "other"] == [pid]
    assert await instances(http, "other") == [
        {"id": "other", "config": {"context_length": 512, "parallel": 8}}
    ]
    await load("other", context_length=256)
    (instance,) = await instances(http, "other")
    assert instance["config"]["context_length"] == 256
    gone = await http.post("/api/v1/models/unload", json={"instance_id": "other"})
    assert gone.json() == {"instance_id": "other"}
    assert await instances(http, "other") == []
    again = await http.post("/api/v1/models/unload", json={"instance_id": "other"})
    assert (again.status_code, again.json()["error"]["type"]) == (404, "model_not_found")


async def test_the_greeting_needs_no_key(url):
    """SDKs look for a server before they show a key; with a 401 they find none."""
    async with httpx2.AsyncClient(base_url=url, timeout=60) as http:
        for headers in ({}, {"authorization": "Bearer wrong"}):
            answer = await http.get("/lmstudio-greeting", headers=headers)
            assert (answer.status_code, answer.json()) == (200, {"lmstudio": True})
        assert (await http.get("/lmstudio-greeting/x")).status_code == 404
        assert (await http.get("/api/v0/models")).status_code == 401


async def test_loads_that_are_refused(load):
    unknown = await load("nobody")
    assert (unknown.status_code, unknown.json()["error"]["type"]) == (404, "model_not_found")
    huge = await load("huge")
    assert (huge.status_code, huge.json()["error"]["code"]) == (422, "insufficient_memory")
    experts = await load("counter", num_experts=3)
    assert experts.status_code == 400
    assert (experts.json()["error"]["type"], experts.json()["error"]["param"]) == (
        "not_implemented",
        "num_experts",
    )


async def test_a_chat_goes_on(chat):
    first = await chat("Hi", system_prompt="Be brief.")
    assert first["response_id"].startswith("resp_")
    second = await chat("And?", previous_response_id=first["response_id"])
    (said,) = [item["content"] for item in first["output"]]
    prompt = f"system: Be brief.\nuser: Hi\nassistant: {said}\nuser: And?\nassistant:"
    assert second["stats"]["input_tokens"] == len(prompt)
    other = await chat("And?", previous_response_id=first["response_id"], system_prompt="No.")
    assert other["stats"]["input_tokens"] == len(prompt) - len("Be brief.") + len("No.")
    third = await chat("So?", previous_response_id=second["response_id"], store=False)
    assert third["stats"]["input_tokens"] > second["stats"]["input_tokens"]
    assert "response_id" not in third


async def test_a_chat_that_is_not_kept(http):
    body = {"model": "counter", "input": "Hi", "previous_response_id": "resp_0"}
    answer = await http.post("/api/v1/chat", json=body)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["type"], error["param"]) == ("invalid_request", "previous_response_id")


async def test_a_stream_tells_of_the_load_and_can_go_on(http, chat):
    body = {"model": "loader", "input": "Hi", "stream": True, "context_length": 300, "ttl": 500}
    events = data_of((await http.post("/api/v1/chat", json=body)).text)
    types = [event["type"] for event in events]
    assert types[:2] == ["chat.start", "model_load.start"]
    assert types.index("model_load.end") < types.index("prompt_processing.start")
    assert types[-1] == "chat.end"
    result = events[-1]["result"]
    assert result["stats"]["model_load_time_seconds"] > 0
    (instance,) = await instances(http, "loader")
    assert instance["config"]["context_length"] == 300
    status = (await http.get("/health/status")).json()
    assert [one["ttl_s"] for one in status["models"] if one["id"] == "loader"] == [500]
    second = await chat("And?", model="loader", previous_response_id=result["response_id"])
    assert second["stats"]["input_tokens"] > result["stats"]["input_tokens"]
    assert "model_load_time_seconds" not in second["stats"]


async def test_the_time_to_live_of_a_version_0_request(http):
    body = {"model": "echo", "messages": [{"role": "user", "content": "Hi"}], "ttl": 77}
    whole = (await http.post("/api/v0/chat/completions", json=body)).json()
    assert whole["choices"][0]["message"]["content"] == "Hello!"
    assert whole["stats"]["tokens_per_second"] >= 0
    status = (await http.get("/health/status")).json()
    assert [one["ttl_s"] for one in status["models"] if one["id"] == "echo"] == [77]


async def test_the_time_to_live_counts_for_the_openai_dialect_too(http):
    await http.post("/api/v1/models/unload", json={"instance_id": "counter:2"})
    body = {"model": "counter:2", "messages": [{"role": "user", "content": "Hi"}], "ttl": 78}
    assert (await http.post("/v1/chat/completions", json=body)).status_code == 200
    body = {"model": "vectors", "input": "x", "ttl": 79}
    assert (await http.post("/v1/embeddings", json=body)).status_code == 200
    status = (await http.get("/health/status")).json()
    lives = {one["id"]: one["ttl_s"] for one in status["models"]}
    assert (lives["counter"], lives["vectors"]) == (78, 79)


async def test_downloads(http):
    body = {"model": "https://huggingface.co/acme/Tiny-GGUF", "quantization": "Q4_K_M"}
    started = (await http.post("/api/v1/models/download", json=body)).json()
    assert started["status"] == "downloading"
    path = "/api/v1/models/download/status"
    one = (await http.get(f"{path}/{started['job_id']}")).json()
    assert (one["job_id"], one["started_at"]) == (started["job_id"], started["started_at"])
    assert [job["job_id"] for job in (await http.get(path)).json()["jobs"]] == [one["job_id"]]
    there = await http.post("/api/v1/models/download", json={"model": "counter"})
    assert there.json()["status"] == "already_downloaded"
    unknown = await http.get(f"{path}/nothing")
    assert (unknown.status_code, unknown.json()["error"]["type"]) == (404, "job_not_found")
    wrong = await http.post("/api/v1/models/download", json={"model": "no name"})
    assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "model")


@pytest.mark.parametrize(("by_jit", "listed"), [(True, {"other"}), (False, set(SCRIPTS))])
async def test_the_list_of_the_openai_dialect_by_jit(tmp_path, by_jit, listed):
    write_fake_models(tmp_path, SCRIPTS)
    config = (
        '[models]\njit = false\nautoload = ["other"]\n'
        f"[openai_api]\nlist_by_jit = {str(by_jit).lower()}\n"
    )
    async with (
        running_daemon(write_config(tmp_path, PLUGINS, config)) as daemon,
        httpx2.AsyncClient(base_url=daemon.url, timeout=60) as http,
    ):
        # Loading a model that is loaded, or being loaded, waits for it.
        await http.post("/api/v1/models/load", json={"model": "other"})
        found = (await http.get("/v1/models")).json()["data"]
    assert {model["id"] for model in found} == listed
