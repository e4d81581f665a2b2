"""Models over the websocket protocol: lists, loads, downloads, the log, and who may do what."""

from __future__ import annotations

import asyncio

import pytest
from attrs import evolve
from lmx_lmstudio_api import plugin
from lmx_lmstudio_api.websocket.frames import Greeting
from lmx_lmstudio_api.websocket.session import token_of
from sdk_socket import SdkSocket, query, stack, value

from lmx_kernel.errors import ForbiddenError, UnauthorizedError
from lmx_kernel.events import LoadProgressed, RequestFinished
from lmx_kernel.http.app import build_app
from lmx_kernel.http.surface_table import SurfaceTable
from lmx_kernel.interfaces import JobError, JobState
from lmx_kernel.runtime.settings import ModelSettings
from lmx_kernel.testing.stub_kernel import MODEL, make_health, serving, websocket
from lmx_kernel.types import LoadOverrides, Usage

VECTORS = "acme/Vectors-0.6B"
KEY = "sk-lm-abcdefgh:12345678901234567890"
PARTS = {"clientIdentifier": "abcdefgh", "clientPasskey": "12345678901234567890"}
# What the SDKs together require: a frame that lacks one of these is dropped, and its call hangs.
MODEL_FIELDS = {
    *("type", "modelKey", "format", "displayName", "path", "sizeBytes", "maxContextLength"),
    *("publisher", "indexedModelIdentifier", "deviceIdentifier"),
}
INSTANCE_FIELDS = {"identifier", "instanceReference", "contextLength", "ttlMs", "lastUsedTime"}
FORMATS = {"gguf", "safetensors", "onnx", "ggml", "mlx_placeholder", "torch_safetensors"}
NULLABLE = {"deviceIdentifier", "ttlMs", "lastUsedTime"}


def check_model(info, *, is_loaded):
    kind = {"vision", "trainedForToolUse"} if info["type"] == "llm" else set()
    assert info.keys() >= MODEL_FIELDS | kind | (INSTANCE_FIELDS if is_loaded else set())
    assert info["format"] in FORMATS
    assert {name for name, value in info.items() if value is None} <= NULLABLE


async def test_all_models_are_listed_with_what_clients_require(connect, kernel):
    models = await (await connect("/system")).result("listDownloadedModels")
    assert {one["modelKey"] for one in models} == {
        card.id for card in kernel.cards if card.problem is None
    }
    for info in models:
        check_model(info, is_loaded=False)


async def test_loaded_models(connect, llm, kernel):
    assert await llm.result("getModelInfo", specifier=query(MODEL), throwIfNotFound=False) is None
    missing = await llm.call("getModelInfo", specifier=query(MODEL), throwIfNotFound=True)
    assert missing["error"]["displayData"]["code"] == "generic.noModelMatchingQuery"
    kernel.states = {MODEL: "ready", VECTORS: "ready", "acme/apple": "loading"}
    (info,) = await llm.result("listLoaded")
    check_model(info, is_loaded=True)
    assert info["identifier"] == MODEL
    reference = {"type": "instanceReference", "instanceReference": MODEL}
    for specifier in (query(MODEL), query(None), query(MODEL.lower()), reference):
        assert (await llm.result("getModelInfo", specifier=specifier))["modelKey"] == MODEL
    config = await llm.result("getLoadConfig", specifier=query(MODEL))
    assert value("llm.load.contextLength", 64) in config["fields"]
    assert await llm.result("getBasePredictionConfig", specifier=query(MODEL)) == {"fields": []}
    state = await llm.result("getInstanceProcessingState", specifier=query(MODEL))
    assert state == {"status": "idle", "queued": 0}
    (vectors,) = await (await connect("/embedding")).result("listLoaded")
    assert vectors["modelKey"] == VECTORS


async def test_a_model_of_another_kind_is_no_answer(llm, kernel):
    kernel.states = {VECTORS: "ready"}
    assert await llm.result("getModelInfo", specifier=query(None)) is None
    (told,) = await llm.channel("getOrLoad", identifier=VECTORS, loadConfigStack=stack())
    assert told["displayData"] == {
        "code": "generic.domainMismatch",
        "path": VECTORS,
        "actualDomain": "embedding",
        "expectedDomain": "llm",
    }
    assert not kernel.loads


# --- loads ---


async def test_a_model_that_is_loaded_is_returned(llm, kernel):
    kernel.states = {MODEL: "ready"}
    (told,) = await llm.channel("getOrLoad", identifier=MODEL, loadConfigStack=stack())
    assert told["type"] == "alreadyLoaded"
    check_model(told["info"], is_loaded=True)
    assert not kernel.loads


async def test_a_load_is_told(llm, kernel):
    async def loading(model):
        for share in (0.25, 0.5):
            await asyncio.sleep(0)
            kernel.publish(
                LoadProgressed(model="other", share=1), LoadProgressed(model=model, share=share)
            )

    kernel.loading = loading
    config = stack(
        value("llm.load.contextLength", 32),
        value("llm.load.numParallelSessions", 3),
        value("llm.load.llama.flashAttention", True),
        value("load.gpuSplitConfig", {"strategy": "evenly"}),
    )
    body = {"identifier": MODEL, "loadTtlMs": 1500, "loadConfigStack": config}
    begin, *progress, end = await llm.channel("getOrLoad", **body)
    assert (begin["type"], begin["identifier"], end["type"]) == (
        "startLoading",
        MODEL,
        "loadSuccess",
    )
    check_model(begin["info"], is_loaded=False)
    check_model(end["info"], is_loaded=True)
    assert [one["type"] for one in progress] == ["loadProgress"] * len(progress)
    assert {one["progress"] for one in progress} <= {0.25, 0.5, 1}
    assert progress[-1]["progress"] == 1
    assert kernel.loads == [(MODEL, LoadOverrides(context_length=32, parallel=3, ttl_s=1.5))]
    assert not kernel.listeners


async def test_a_loaded_model_stays_as_it_is_unless_something_else_is_wanted(llm, kernel):
    kernel.states = {MODEL: "ready"}
    body = {"modelKey": MODEL, "loadConfigStack": stack()}
    assert (await llm.channel("loadModel", **body))[-1]["type"] == "success"
    body["loadConfigStack"] = stack(value("llm.load.contextLength", 32))
    assert (await llm.channel("loadModel", **body))[-1]["type"] == "success"
    assert kernel.loads == [
        (MODEL, LoadOverrides(context_length=64, parallel=2)),
        (MODEL, LoadOverrides(context_length=32, parallel=2)),
    ]


async def test_a_silent_load_shows_life(llm, kernel):
    ends = asyncio.Event()

    async def loading(model):
        await ends.wait()

    kernel.loading = loading
    channel_id = await llm.open("loadModel", modelKey=MODEL, loadConfigStack=stack())
    assert (await llm.receive())["message"]["type"] == "resolved"
    for _ in range(3):
        assert (await llm.receive())["message"] == {"type": "progress", "progress": 0}
    ends.set()
    success = (await llm.rest(channel_id))[-1]
    assert success["type"] == "success"
    check_model(success["info"], is_loaded=True)
    assert kernel.loads == [(MODEL, LoadOverrides())]


async def test_a_load_that_is_cancelled(llm, kernel):
    async def loading(model):
        kernel.states[model] = "loading"
        await asyncio.Event().wait()

    kernel.loading = loading
    channel_id = await llm.open("loadModel", modelKey=MODEL, loadConfigStack=stack())
    assert (await llm.receive())["message"]["type"] == "resolved"
    await llm.cancel(channel_id)
    error = (await llm.rest(channel_id))[-1]
    assert error["errorData"]["code"] == "cancelled"
    assert kernel.unloads == [MODEL]


async def test_an_identifier_is_another_name_until_the_model_is_unloaded(connect, llm, kernel):
    async def loading(model):
        pass

    kernel.loading = loading
    body = {"modelKey": MODEL, "loadConfigStack": stack()}
    success = (await llm.channel("loadModel", **body, identifier="mine"))[-1]
    assert (success["info"]["identifier"], success["info"]["modelKey"]) == ("mine", MODEL)
    other = await connect("/llm")
    assert (await other.result("getModelInfo", specifier=query("mine")))["modelKey"] == MODEL
    assert [one["identifier"] for one in await other.result("listLoaded")] == ["mine"]
    answer = await other.predict(modelSpecifier=query("mine"))
    assert answer[-1]["modelInfo"]["identifier"] == "mine"
    assert kernel.request.model == MODEL
    apple = {"modelKey": "acme/apple", "loadConfigStack": stack()}
    for taken in ("mine", MODEL):
        (told,) = await llm.channel("loadModel", **apple, identifier=taken)
        assert told["errorData"] == {"code": "conflict", "param": "identifier"}
    assert await llm.result("unloadModel", identifier="mine") is None
    assert kernel.unloads == [MODEL]
    gone = await llm.call("unloadModel", identifier="mine")
    assert gone["error"]["title"] == "No model found"
    assert (await llm.channel("loadModel", **apple, identifier="mine"))[-1]["type"] == "success"


@pytest.mark.parametrize(
    ("endpoint", "body", "what"),
    [
        ("getOrLoad", {"identifier": "nobody"}, "No model found"),
        ("loadModel", {"modelKey": "nobody"}, "No model found"),
        ("loadModel", {"modelKey": "broken"}, "its file is cut off"),
        ("loadModel", {"modelKey": MODEL, "ttlMs": 0}, "ttlMs"),
    ],
)
async def test_loads_that_are_refused(llm, kernel, endpoint, body, what):
    (told,) = await llm.channel(endpoint, **body, loadConfigStack=stack())
    assert what in told["title"]
    assert not kernel.loads


@pytest.mark.parametrize(
    "field", [value("llm.load.numExperts", 2), value("llm.load.contextLength", 1)]
)
async def test_a_config_of_a_load_that_is_refused(llm, kernel, field):
    *_, told = await llm.channel("loadModel", modelKey=MODEL, loadConfigStack=stack(field))
    assert told["errorData"]["param"] == field["key"]
    assert not kernel.loads


# --- downloads ---


@pytest.fixture
async def repository(connect):
    return await connect("/repository")


async def test_a_download_is_told(repository, kernel):
    running = {"state": JobState.RUNNING, "done": 5.0, "total": 10.0, "rate_per_s": 2.5}
    kernel.jobs.steps = [{}, running, {"state": JobState.DONE, "done": 10.0}]
    *told, finalizing, success = await repository.channel(
        "downloadModel", downloadIdentifier="org/name@Q4_K_M"
    )
    assert told[1] == {
        "type": "downloadProgress",
        "update": {"downloadedBytes": 5, "totalBytes": 10, "speedBytesPerSecond": 2.5},
    }
    assert told[-1]["update"]["downloadedBytes"] == 10
    assert finalizing == {"type": "startFinalizing"}
    assert success == {"type": "success", "defaultIdentifier": "org/name@Q4_K_M"}
    assert kernel.jobs.job.spec == {"repo": "org/name@Q4_K_M"}
    assert not kernel.listeners


async def test_a_download_that_fails_or_is_cancelled(repository, kernel):
    failed = {"state": JobState.FAILED, "error": JobError(code="not_found", message="no such repo")}
    kernel.jobs.steps = [{}, failed]
    *_, told = await repository.channel("downloadModel", downloadIdentifier="org/name")
    assert (told["title"], told["errorData"]["code"]) == ("no such repo", "not_found")
    channel_id = await repository.open("downloadModel", downloadIdentifier="org/name")
    assert (await repository.receive())["message"]["type"] == "downloadProgress"
    await repository.cancel(channel_id)
    told = (await repository.rest(channel_id))[-1]
    assert told["errorData"]["code"] == "cancelled"
    assert kernel.jobs.cancelled == ["download-1"]


async def test_a_model_that_is_there_is_not_downloaded(repository, kernel):
    assert await repository.channel("downloadModel", downloadIdentifier=MODEL.lower()) == [
        {"type": "startFinalizing"},
        {"type": "success", "defaultIdentifier": MODEL},
    ]
    assert kernel.jobs.job is None


async def test_a_model_of_the_hub_is_found_by_its_name(repository):
    found = (await repository.result("searchModels", opts={"searchTerm": "org/name"}))["results"]
    identifier = found[0]["identifier"]
    assert identifier == {"type": "hf", "identifier": "org/name"}
    options = await repository.result(
        "getModelDownloadOptions", modelSearchResultIdentifier=identifier
    )
    assert options["results"][0]["downloadIdentifier"] == "org/name"
    assert await repository.result("searchModels", opts={"searchTerm": "name"}) == {"results": []}


# --- the server ---


async def test_the_log_tells_of_requests_and_not_what_was_said(connect, kernel):
    socket = await connect("/diagnostics")
    channel_id = await socket.open("streamLogs")
    while not kernel.listeners:
        await asyncio.sleep(0)
    usage = Usage(
        prompt_tokens=7, cached_tokens=4, completion_tokens=3, queue_s=0, first_token_s=1, total_s=2
    )
    for _ in range(2):
        kernel.publish(RequestFinished(id="r1", model=MODEL, outcome="ok", usage=usage))
        log = (await socket.receive())["message"]["log"]
        assert log["timestamp"] > 0
        assert log["data"] == {
            "type": "llm.prediction.input",
            "modelPath": MODEL,
            "modelIdentifier": MODEL,
            "input": "request r1: ok, 7 tokens of prompt (4 known), 3 tokens of answer, 2.00 s",
        }
    await socket.cancel(channel_id, "stop")
    assert await socket.rest(channel_id) == []
    assert not kernel.listeners


async def test_the_server_itself(connect):
    socket = await connect("/system")
    version = await socket.result("version")
    assert (type(version["version"]), type(version["build"])) == (str, int)
    assert await socket.result("listDownloadedModelVariants", modelKey=MODEL) == []
    assert await socket.result("getExperimentFlags") == []
    assert await socket.result("notify", title="Hi") is None
    alive = await socket.open("alive")
    await socket.cancel(alive)
    assert await socket.rest(alive) == []
    assert "stopHttpServer" in (await socket.call("stopHttpServer"))["error"]["title"]


# --- keys ---


@pytest.fixture
async def locked(kernel):
    """Connect to a server that wants ``KEY``, which is good for ``scopes``."""
    surfaces = plugin.lmx_api_surfaces(kernel)
    table = SurfaceTable()
    table.replace(build_app(surfaces, make_health()).served)
    scopes = {"inference"}

    def authorize(request):
        if request.headers.get("authorization") != f"Bearer {KEY}":
            raise UnauthorizedError("a valid API key is required")
        if table.owner(request.path).scope not in scopes:
            raise ForbiddenError("this needs a key with the scope admin")
        return evolve(request, key="me")

    async with serving(*surfaces, authorize=authorize) as url:

        async def connect(path, *more, **greeting):
            scopes.update(more)
            socket = SdkSocket(await websocket(url, path))
            answers = await socket.greet(**PARTS | greeting)
            return socket, answers

        yield connect


async def test_a_key_comes_in_two_parts(locked):
    for name in ("abcdefgh", "guest:abcdefgh"):
        socket, greeted = await locked("/llm", clientIdentifier=name)
        assert greeted == {"success": True}
        await socket.ws.close()
    socket, greeted = await locked("/llm", clientPasskey="x" * 20)
    assert greeted == {"success": False, "error": "a valid API key is required"}
    await socket.ws.wait_closed()
    assert socket.ws.close_code == 1008


def test_other_keys_come_as_the_passkey():
    assert token_of(Greeting(1, "anybody", "a-key")) == "a-key"
    assert token_of(Greeting(1, client_identifier="abcdefgh", client_passkey="x")) == "x"


@pytest.mark.parametrize(
    ("path", "endpoint", "body"),
    [
        ("/llm", "unloadModel", {"identifier": MODEL}),
        ("/embedding", "unloadModel", {"identifier": VECTORS}),
    ],
)
async def test_calls_that_change_need_the_scope_admin(locked, kernel, path, endpoint, body):
    kernel.states = {MODEL: "ready", VECTORS: "ready"}
    socket, _ = await locked(path)
    told = await socket.call(endpoint, **body)
    assert told["error"]["errorData"]["code"] == "forbidden"
    assert not kernel.unloads
    socket, _ = await locked(path, "admin")
    assert await socket.result(endpoint, **body) is None
    assert kernel.unloads == [body["identifier"]]


@pytest.mark.parametrize(
    ("path", "endpoint", "body"),
    [
        ("/llm", "loadModel", {"modelKey": MODEL, "loadConfigStack": {}}),
        ("/llm", "getOrLoad", {"identifier": MODEL, "loadConfigStack": {}}),
        ("/repository", "downloadModel", {"downloadIdentifier": MODEL}),
        ("/diagnostics", "streamLogs", {}),
    ],
)
async def test_channels_that_change_need_the_scope_admin(locked, kernel, path, endpoint, body):
    kernel.models_settings = evolve(ModelSettings(), jit=False)
    socket, _ = await locked(path)
    (told,) = await socket.channel(endpoint, **body)
    assert told["errorData"]["code"] == "forbidden"
    assert not kernel.loads
    assert kernel.jobs.job is None


async def test_a_request_may_load_its_model_without_it(locked, kernel):
    async def loading(model):
        pass

    kernel.loading = loading
    socket, _ = await locked("/llm")
    messages = await socket.channel("getOrLoad", identifier=MODEL, loadConfigStack={})
    assert messages[-1]["type"] == "loadSuccess"
