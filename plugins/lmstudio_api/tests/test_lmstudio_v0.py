"""``/api/v0``: models with their state, and answers with figures."""

from __future__ import annotations

import json

import pytest

from lmx_kernel.errors import EngineFailedError
from lmx_kernel.runtime.settings import ModelSettings
from lmx_kernel.testing.stub_kernel import MODEL
from lmx_kernel.types import Finished, LoadOverrides, TextDelta

VECTORS, APPLE = "acme/Vectors-0.6B", "acme/apple"


def chunks(text):
    """Return the chunks of a whole stream."""
    frames = [frame for frame in text.split("\n\n")[:-1] if frame != ": keep-alive"]
    frames = [frame.removeprefix("data: ") for frame in frames]
    assert frames.pop() == "[DONE]"
    return [json.loads(frame) for frame in frames]


def ending(reason, stop="", tokens=3):
    """Return a play that ends so."""

    def play(answer):
        answer.admit(7)
        answer.start()
        answer.receive(TextDelta(0, "Hi", tuple(range(tokens))))
        answer.receive(Finished(0, reason, stop=stop))
        answer.end("ok")

    return play


async def test_the_list_has_what_clients_can_read_and_nothing_else(api, kernel):
    kernel.states = {MODEL: "ready", APPLE: "loading", VECTORS: "cooling"}
    listed = (await api.get("/api/v0/models")).json()
    assert listed["object"] == "list"
    models = {model.pop("id"): model for model in listed["data"]}
    assert models.keys() == {MODEL, VECTORS, APPLE}
    assert models[MODEL] == {
        "object": "model",
        "type": "llm",
        "publisher": "acme",
        "arch": "stub",
        "compatibility_type": "gguf",
        "quantization": "Q4_K_M",
        "state": "loaded",
        "max_context_length": 100,
        "loaded_context_length": 64,
        "capabilities": ["tool_use"],
    }
    apple, vectors = models[APPLE], models[VECTORS]
    assert (apple["state"], apple["compatibility_type"]) == ("loading", "mlx")
    assert (vectors["state"], vectors["type"]) == ("not-loaded", "embeddings")
    assert not {"loaded_context_length"} & (apple.keys() | vectors.keys())


async def test_without_jit_only_loaded_models_are_listed(api, kernel):
    kernel.models_settings = ModelSettings(jit=False)
    assert (await api.get("/api/v0/models")).json()["data"] == []
    kernel.states = {MODEL: "ready", VECTORS: "absent"}
    (model,) = (await api.get("/api/v0/models")).json()["data"]
    assert model["id"] == MODEL


async def test_one_model(api):
    assert (await api.get(f"/api/v0/models/{MODEL.lower()}")).json()["id"] == MODEL
    for name in ("broken", "acme/ranker"):
        answer = await api.get(f"/api/v0/models/{name}")
        assert (answer.status_code, answer.json()["error"]["code"]) == (422, "model_unusable")


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("chat/completions", {"messages": [{"role": "user", "content": "Hi"}]}),
        ("completions", {"prompt": "Hi"}),
        ("embeddings", {"input": "Hi"}),
    ],
)
async def test_an_unknown_model_is_told_with_the_models_there_are(api, path, fields):
    answer = await api.post(f"/api/v0/{path}", **fields, model="nobody")
    assert answer.status_code == 404
    error = answer.json()["error"]
    assert error.pop("message") == (
        'Model "nobody" not found. Please specify a valid model.\n\nYour models:\n\n'
        f"{MODEL}\n{VECTORS}\n{APPLE}\nacme/ranker"
    )
    assert error == {
        "type": "invalid_request_error",
        "param": "model",
        "code": "model_not_found",
    }


async def test_an_answer_has_figures(api, kernel):
    kernel.states = {MODEL: "ready"}
    whole = (await api.chat()).json()
    assert whole["object"] == "chat.completion"
    assert whole["choices"][0]["message"]["content"] == "Hello"
    stats = whole["stats"]
    assert stats["stop_reason"] == "eosFound"
    assert stats["generation_time"] >= 0
    assert stats["time_to_first_token"] >= 0
    assert stats["tokens_per_second"] >= 0
    assert whole["model_info"] == {
        "arch": "stub",
        "quant": "Q4_K_M",
        "format": "gguf",
        "context_length": 64,
    }
    assert whole["runtime"]["name"] == "lmx-stub"
    assert whole["runtime"]["supported_formats"] == ["gguf"]


@pytest.mark.parametrize(
    ("play", "limit", "reason"),
    [
        (ending("stop", stop="END"), None, "stopStringFound"),
        (ending("length"), 3, "maxPredictedTokensReached"),
        (ending("length"), None, "contextLengthReached"),
        (ending("length"), 5, "contextLengthReached"),
        (ending("tool_calls"), None, "toolCalls"),
    ],
)
async def test_why_an_answer_ended(api, kernel, play, limit, reason):
    kernel.play = play
    fields = {} if limit is None else {"max_tokens": limit}
    assert (await api.chat(**fields)).json()["stats"]["stop_reason"] == reason
    last = chunks((await api.chat(stream=True, **fields)).text)[-1]
    assert last["stats"]["stop_reason"] == reason


@pytest.mark.parametrize(
    ("path", "prompt"),
    [
        ("chat/completions", {"messages": [{"role": "user", "content": "Hi"}]}),
        ("completions", {"prompt": "Hi"}),
    ],
)
async def test_a_stream_has_the_figures_in_the_chunk_that_ends_it(api, path, prompt):
    fields = {"n": 2, "stream": True, "stream_options": {"include_usage": True}}
    answer = await api.post(f"/api/v0/{path}", **prompt, **fields)
    *before, last, usage = chunks(answer.text)
    assert all(chunk["choices"] for chunk in before)
    assert not any("stats" in chunk for chunk in before)
    assert last["choices"][0]["finish_reason"] == "stop"
    assert {"stats", "model_info", "runtime"} <= last.keys()
    assert (usage["choices"], usage["usage"]["prompt_tokens"]) == ([], 7)
    ended = [one["choices"][0] for one in (*before, last) if one["choices"][0]["finish_reason"]]
    assert sorted(choice["index"] for choice in ended) == [0, 1]


async def test_a_stream_that_fails_says_so_and_has_no_figures(api, kernel):
    def fail(answer):
        answer.admit(7)
        answer.end("engine_failed", EngineFailedError("not finite"))

    kernel.play = fail
    frames = (await api.chat(stream=True)).text.split("\n\n")
    assert json.loads(frames[-2].removeprefix("data: "))["error"]["code"] == "engine_failed"
    assert "stats" not in "".join(frames)


async def test_embeddings(api):
    answer = await api.post("/api/v0/embeddings", model=VECTORS, input=["a", "b"], ttl=60)
    found = answer.json()
    assert [one["index"] for one in found["data"]] == [0, 1]
    assert found["model"] == VECTORS


async def test_the_time_to_live_counts_for_the_load_of_the_request(api, kernel):
    assert (await api.chat(ttl=60)).status_code == 200
    assert kernel.loads == [(MODEL, LoadOverrides(ttl_s=60))]
    kernel.states = {MODEL: "ready"}
    assert (await api.chat(ttl=5)).status_code == 200
    kernel.states, kernel.models_settings = {}, ModelSettings(jit=False)
    assert (await api.chat(ttl=5)).status_code == 200
    assert len(kernel.loads) == 1
    refused = await api.chat(ttl=0)
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "ttl")


async def test_guessed_tokens_are_counted(api, kernel):
    def play(answer):
        answer.admit(7)
        answer.start()
        answer.resume.count_drafts(0, 9, 7, "acme/small")
        answer.receive(TextDelta(0, "Hi", (1, 2)))
        answer.receive(Finished(0, "stop"))
        answer.end("ok")

    kernel.play = play
    stats = (await api.chat(draft_model="small")).json()["stats"]
    assert kernel.request.draft_model == "small"
    assert stats["draft_model"] == "acme/small"
    names = ("total", "accepted", "rejected", "ignored")
    assert [stats[f"{name}_draft_tokens_count"] for name in names] == [9, 7, 2, 0]


async def test_the_fields_that_clients_of_this_api_send(api, kernel):
    answer = await api.chat(
        max_tokens=-1, draft_model="tiny", top_k=0, repeat_penalty=1.1, seed=-1, stop=["END"]
    )
    assert answer.status_code == 200
    assert (kernel.request.max_tokens, kernel.request.stop) == (None, ("END",))


async def test_the_greeting(api):
    assert (await api.get("/lmstudio-greeting")).json() == {"lmstudio": True}
