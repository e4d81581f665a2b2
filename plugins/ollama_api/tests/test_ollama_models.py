"""Models: listed, shown, loaded, embedded with, deleted."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace

import ollama
import pytest
import structlog

from lmx_kernel.runtime.settings import ModelSettings
from lmx_kernel.testing.stub_kernel import MODEL


def status(model=MODEL, **fields):
    values = {
        "id": model,
        "state": "ready",
        "context_length": 64,
        "memory_bytes": 5,
        "expires_in_s": 60,
        "ttl_s": 60,
        "running": 0,
        "waiting": 0,
    }
    return SimpleNamespace(**{**values, **fields})


async def test_the_models_that_can_be_asked(api, card, tmp_path):
    path = tmp_path / "m"
    path.write_bytes(b"x")
    quantized = card("acme/Big-7.5b@Q4_K_M", path=path, quantization="Q4_K_M", size_bytes=9)
    api.kernel.cards.append(quantized)
    first, second = (await api.sdk.list()).models
    assert first.model == MODEL
    assert first.details.parameter_size == "1B"
    assert (second.model, second.size) == ("acme/Big-7.5b@Q4_K_M", 9)
    assert len(second.digest) == 64
    assert second.digest != first.digest
    assert second.modified_at.timestamp() == pytest.approx(path.stat().st_mtime, abs=1e-5)
    assert second.details == ollama._types.ModelDetails(
        parent_model="",
        format="stub",
        family="stub",
        families=["stub"],
        parameter_size="7.5B",
        quantization_level="Q4_K_M",
    )
    again = (await api.sdk.list()).models
    assert [one.digest for one in again] == [first.digest, second.digest]


async def test_names_are_there_under_both_keys(api):
    (model,) = (await api.http.get("/api/tags")).json()["models"]
    assert model["name"] == model["model"] == MODEL


async def test_the_models_that_are_loaded(api, card):
    api.kernel.cards.append(card("busy"))
    api.kernel.statuses = [
        status(),
        status("busy", expires_in_s=None, ttl_s=30),
        status("gone"),
        status("broken", state="loading"),
    ]
    first, busy = (await api.sdk.ps()).models
    assert (first.model, first.name, first.size, first.size_vram) == (MODEL, MODEL, 5, 0)
    assert first.context_length == 64
    rest_s = (first.expires_at - datetime.now(UTC)).total_seconds()
    assert rest_s == pytest.approx(60, abs=30)
    assert (busy.expires_at - datetime.now(UTC)).total_seconds() < 60
    api.kernel.statuses = [status(expires_in_s=None, ttl_s=None)]
    (kept,) = (await api.sdk.ps()).models
    assert (kept.expires_at - datetime.now(UTC)).days > 365 * 90


async def test_a_model_is_shown(api):
    shown = await api.sdk.show(f"{MODEL}:latest")
    assert shown.modelinfo == {"general.architecture": "stub", "stub.context_length": 100}
    assert shown.parameters == "num_ctx 100"
    assert shown.details.family == "stub"
    assert shown.capabilities == ["completion", "tools"]
    assert (await api.post("show", {"name": MODEL})).json()["template"] == ""


async def test_what_a_request_may_use_is_what_the_model_is_loaded_with(api):
    api.kernel.statuses = [status(context_length=32)]
    assert (await api.sdk.show(MODEL)).parameters == "num_ctx 32"
    api.kernel.statuses = []
    api.kernel.settings_of_models = ModelSettings(context_length=48)
    assert (await api.sdk.show(MODEL)).parameters == "num_ctx 48"


@pytest.mark.parametrize(
    ("known", "told"),
    [
        ({"embedding"}, ["embedding"]),
        ({"chat", "completion"}, ["completion", "tools"]),
        ({"chat", "completion", "thinking"}, ["completion", "tools", "thinking"]),
        ({"completion"}, ["completion"]),
    ],
)
async def test_what_a_model_can_do(api, card, known, told):
    api.kernel.cards.append(card("able", capabilities=frozenset(known)))
    assert (await api.sdk.show("able")).capabilities == told


async def test_a_body_must_name_a_model(api):
    for method, path in (("POST", "show"), ("POST", "pull"), ("DELETE", "delete")):
        answer = await api.http.request(method, f"/api/{path}", content=b"{}")
        assert (answer.status_code, answer.json()) == (
            400,
            {"error": "model: this field is required"},
        )


async def test_the_version_is_one_that_clients_accept(api):
    version = (await api.http.get("/api/version")).json()["version"]
    assert tuple(map(int, version.split("."))) >= (0, 6, 4)


@pytest.mark.parametrize("path", ["/", "/api/tags", "/api/version"])
async def test_probes(api, path):
    answer = await api.http.head(path)
    assert (answer.status_code, answer.content) == (200, b"")


# --- loading ---

EMPTY = [
    ("chat", {"messages": []}),
    ("chat", {}),
    ("generate", {}),
    ("generate", {"prompt": ""}),
]


@pytest.mark.parametrize(("path", "body"), EMPTY)
async def test_a_body_that_asks_for_nothing_loads(api, path, body, lines):
    whole = (await api.post(path, {"model": f"{MODEL}:latest", "stream": False, **body})).json()
    (line,) = lines(await api.post(path, {"model": MODEL, "keep_alive": "1m", **body}))
    for answer in (whole, line):
        assert (answer["done"], answer["done_reason"]) == (True, "load")
        said = answer["message"]["content"] if path == "chat" else answer["response"]
        assert said == ""
    loaded = [("load", MODEL, None), ("keep", MODEL, 3600)]
    assert api.kernel.calls == [*loaded, *loaded, ("keep", MODEL, 60)]


@pytest.mark.parametrize(("path", "body"), EMPTY)
async def test_a_body_that_asks_for_nothing_at_once_unloads(api, path, body):
    api.kernel.statuses = [status()]
    asked = {"model": MODEL, "keep_alive": 0, "stream": False, **body}
    assert (await api.post(path, asked)).json()["done_reason"] == "unload"
    assert api.kernel.calls == [("unload", MODEL)]


async def test_the_requests_of_others_are_not_cut_off(api):
    api.kernel.statuses = [status(running=1)]
    assert (await api.generate(prompt="", keep_alive=0)).status_code == 200
    assert api.kernel.calls == [("keep", MODEL, 0)]


async def test_a_model_that_is_loaded_is_not_loaded_again(api):
    api.kernel.statuses = [status()]
    assert (await api.generate(prompt="", keep_alive=-1)).status_code == 200
    assert api.kernel.calls == [("keep", MODEL, None)]


async def test_no_model_is_loaded_where_requests_may_not(api):
    api.kernel.settings_of_models = ModelSettings(jit=False)
    answer = await api.generate(prompt="")
    assert answer.status_code == 409
    assert "models.jit" in answer.json()["error"]
    assert api.kernel.calls == []


# --- embeddings ---


async def test_embeddings(api):
    found = await api.sdk.embed(f"{MODEL}:latest", ["a", "b"])
    assert [[round(one, 6) for one in vector] for vector in found.embeddings] == [
        [0.6, 0.8, 0, 0]
    ] * 2
    assert (found.model, found.prompt_eval_count) == (f"{MODEL}:latest", 6)
    assert found.total_duration > 0
    assert len((await api.sdk.embed(MODEL, "a")).embeddings) == 1
    short = await api.sdk.embed(MODEL, "a", dimensions=1, truncate=True, options={"num_ctx": 8})
    assert short.embeddings == [[1.0]]


async def test_more_dimensions_than_there_are(api):
    answer = await api.post("embed", {"model": MODEL, "input": "a", "dimensions": 5})
    assert (answer.status_code, "dimensions" in answer.json()["error"]) == (400, True)


async def test_the_older_embeddings(api):
    found = await api.sdk.embeddings(MODEL, "a")
    assert found.embedding == pytest.approx([0.6, 0.8, 0, 0])


async def test_nothing_to_embed_loads_the_model(api):
    for given in ([], ""):
        answer = await api.post("embed", {"model": MODEL, "input": given})
        assert answer.json()["embeddings"] == []
    assert (await api.post("embeddings", {"model": MODEL})).json() == {"embedding": []}
    assert api.kernel.calls == [("load", MODEL, None), ("keep", MODEL, 3600)] * 3


async def test_too_many_texts(api):
    answer = await api.post("embed", {"model": MODEL, "input": ["a"] * 2049})
    assert (answer.status_code, "2048" in answer.json()["error"]) == (400, True)


# --- the disk ---


async def test_who_deletes_is_told_in_the_log(api):
    with structlog.testing.capture_logs() as records:
        await api.sdk.delete(MODEL)
        with pytest.raises(ollama.ResponseError):
            await api.sdk.delete("nope")
    told = [record for record in records if record["event"] == "audit"]
    assert [(one["action"], one["target"], one["outcome"]) for one in told] == [
        ("delete", MODEL, "ok"),
        ("delete", "nope", "model_not_found"),
    ]


async def test_a_model_is_deleted(api):
    assert (await api.sdk.delete(f"{MODEL}:latest")).status == "success"
    assert api.kernel.calls == [("unload", MODEL), ("delete", MODEL)]
    with pytest.raises(ollama.ResponseError, match="model 'nope' not found") as caught:
        await api.sdk.delete("nope")
    assert caught.value.status_code == 404


@pytest.mark.parametrize("path", ["create", "copy", "push", "blobs/sha256:00"])
async def test_what_is_not_served_says_why(api, path):
    answer = await api.post(path, {"model": "m"})
    assert answer.status_code == 400
    assert " not " in answer.json()["error"]


async def test_no_file_is_there(api):
    assert (await api.http.head("/api/blobs/sha256:00")).status_code == 404
    answer = await api.http.get("/api/nothing")
    assert (answer.status_code, list(answer.json())) == (404, ["error"])
