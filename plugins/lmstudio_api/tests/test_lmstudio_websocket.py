"""The websocket protocol's frames, and answers in its channels."""

from __future__ import annotations

import asyncio
import base64
import json

import pytest
import structlog
from sdk_socket import prediction, query, stack, value

from lmx_kernel.errors import (
    ContextOverflowError,
    EngineCrashedError,
    ModelUnloadedError,
    QueueFullError,
)
from lmx_kernel.runtime.settings import QueueSettings
from lmx_kernel.testing.stub_kernel import MODEL
from lmx_kernel.types import (
    ChatPrompt,
    Finished,
    PromptProgress,
    ReasoningDelta,
    TextDelta,
    TextPart,
    TextPrompt,
    ToolCallDelta,
    ToolCallStarted,
)

NAMESPACES = ["/llm", "/embedding", "/system", "/files", "/repository", "/diagnostics", "/plugins"]
VECTORS = "acme/Vectors-0.6B"
FRAGMENT = {"content", "tokensCount", "containsDrafted", "reasoningType", "isStructural"}
SCHEMA = {"type": "object"}
WEATHER = {"name": "weather", "description": "Tells it.", "parameters": SCHEMA}


def play(*events, error=None):
    """Return a play of these events."""

    def run(answer):
        answer.admit(7)
        answer.start()
        for event in events:
            answer.receive(event)
        answer.end("ok" if error is None else error.code, error)

    return run


def fragments(messages):
    return [one["fragment"] for one in messages if one["type"] == "fragment"]


# --- greeting ---


@pytest.mark.parametrize("path", NAMESPACES)
async def test_each_namespace_greets(connect, path):
    socket = await connect(path)
    await socket.send(type="keepAlive")
    assert await socket.receive() == {"type": "keepAliveAck"}


@pytest.mark.parametrize("fields", [{"authVersion": 2}, {"clientPasskey": None}])
async def test_a_greeting_that_is_refused(connect, fields):
    socket = await connect(greets=False)
    answer = await socket.greet(**fields)
    assert answer["success"] is False
    assert next(iter(fields)).lower() in answer["error"].replace("_", "").lower()
    await socket.ws.wait_closed()
    assert socket.ws.close_code == 1008


# --- frames ---


@pytest.mark.parametrize(
    ("frame", "answer", "where"),
    [
        ("x", "communicationWarning", "JSON"),
        (b"{}", "communicationWarning", "text"),
        ("[]", "communicationWarning", "object"),
        ('{"type": "x"}', "communicationWarning", "'x'"),
        ('{"type": "rpcCall", "endpoint": "listLoaded"}', "communicationWarning", "callId"),
        ('{"type": "rpcCall", "callId": 1}', "rpcError", "''"),
        ('{"type": "rpcCall", "callId": 1, "endpoint": "tokenize"}', "rpcError", "body"),
        ('{"type": "channelCreate", "endpoint": "predict"}', "communicationWarning", "channelId"),
        ('{"type": "channelCreate", "channelId": 1, "endpoint": "x"}', "channelError", "'x'"),
        ('{"type": "signalSubscribe", "subscribeId": 1, "endpoint": "x"}', "signalError", "'x'"),
        (
            '{"type": "writableSignalSubscribe", "subscribeId": 1, "endpoint": "x"}',
            "writableSignalError",
            "'x'",
        ),
    ],
)
async def test_frames_that_make_no_sense(llm, frame, answer, where):
    await llm.ws.send(frame)
    told = await llm.receive()
    assert told["type"] == answer
    assert where in (told.get("warning") or told["error"]["title"])
    assert await llm.result("listLoaded") == []  # the socket goes on


async def test_calls_and_channels_have_ids_of_their_own(llm, kernel):
    kernel.play = lambda _: None
    for _ in range(2):
        await llm.send(
            type="channelCreate", endpoint="predict", channelId=1, creationParameter=prediction()
        )
    assert "open already" in (await llm.receive())["warning"]
    await llm.send(type="rpcCall", endpoint="listLoaded", callId=1)
    assert await llm.receive() == {"type": "rpcResult", "callId": 1, "result": []}
    await llm.cancel(1)
    assert (await llm.rest(1))[-1]["stats"]["stopReason"] == "userStopped"
    await llm.cancel(1)  # as a client does that does not know yet
    assert await llm.result("listLoaded") == []


async def test_messages_are_acknowledged(llm, kernel):
    kernel.play = lambda _: None
    channel_id = await llm.open("predict", **prediction())
    await kernel.asked.wait()
    await llm.send(type="channelSend", channelId=channel_id, ackId=5, message={"type": "cancel"})
    assert await llm.receive() == {"type": "channelAck", "channelId": channel_id, "ackId": 5}
    assert (await llm.rest(channel_id))[-1]["type"] == "success"


async def test_a_frame_of_ours_that_a_client_rejects_is_an_error_in_the_log(llm):
    with structlog.testing.capture_logs() as logs:
        await llm.send(type="communicationWarning", warning="invalid frame", kind="unknown")
        assert await llm.result("listLoaded") == []
    (line,) = [one for one in logs if one["event"] == "lmstudio_frame_rejected"]
    assert (line["log_level"], line["warning"]) == ("error", "invalid frame")
    assert line["namespace"] == "/llm"


async def test_no_more_channels_than_can_be_ended(llm, kernel, monkeypatch):
    monkeypatch.setattr("lmx_lmstudio_api.websocket.session.MAX_CHANNELS", 2)
    kernel.play = lambda _: None
    first, second, third = [await llm.open("predict", **prediction()) for _ in range(3)]
    assert "at most 2" in (await llm.rest(third))[0]["title"]
    for channel_id in (first, second):
        await llm.cancel(channel_id)
        assert (await llm.rest(channel_id))[-1]["type"] == "success"
    assert await llm.open("predict", **prediction())  # there is room again
    await llm.cancel(4)
    assert (await llm.rest(4))[-1]["type"] == "success"


# --- answers ---


async def test_an_answer(llm, kernel):
    kernel.states = {MODEL: "ready"}
    progress, *middle, success = await llm.predict()
    assert progress == {
        "type": "promptProcessingProgress",
        "progress": 1,
        "details": {
            "cachedTokenCount": 4,
            "totalPromptTokenCount": 7,
            "processedPromptTokenCount": 7,
            "unprocessedPromptTokenCount": 0,
        },
    }
    assert [(one["content"], one["tokensCount"]) for one in fragments(middle)] == [
        ("Hel", 1),
        ("lo", 2),
    ]
    assert all(one.keys() == FRAGMENT for one in fragments(middle))
    stats = success.pop("stats")
    assert (stats["stopReason"], stats["promptTokensCount"]) == ("eosFound", 7)
    assert (stats["predictedTokensCount"], stats["totalTokensCount"]) == (3, 10)
    assert None not in stats.values()
    assert success == {
        "type": "success",
        "modelInfo": {
            "type": "llm",
            "modelKey": MODEL,
            "format": "gguf",
            "displayName": "Tiny-1B",
            "publisher": "acme",
            "path": MODEL,
            "indexedModelIdentifier": MODEL,
            "deviceIdentifier": None,
            "sizeBytes": 1,
            "architecture": "stub",
            "maxContextLength": 100,
            "paramsString": "1B",
            "quantization": {"name": "Q4_K_M", "bits": 4},
            "vision": False,
            "trainedForToolUse": True,
            "identifier": MODEL,
            "instanceReference": MODEL,
            "contextLength": 64,
            "ttlMs": 9000,
            "lastUsedTime": None,
        },
        "loadModelConfig": {
            "fields": [
                value("llm.load.contextLength", 64),
                value("llm.load.numParallelSessions", 2),
            ]
        },
        "predictionConfig": {"fields": []},
    }


async def test_what_the_kernel_is_asked(llm, kernel):
    parts = [{"type": "text", "text": "Hi"}, {"type": "text", "text": "!"}]
    call = {"type": "function", "id": "c1", "name": "weather", "arguments": {"city": "Rome"}}
    history = [
        {"role": "user", "content": parts},
        {
            "role": "assistant",
            "content": [
                {"type": "text", "text": "A moment."},
                {"type": "toolCallRequest", "toolCallRequest": call},
            ],
        },
        {
            "role": "tool",
            "content": [{"type": "toolCallResult", "content": '"sunny"', "toolCallId": "c1"}],
        },
    ]
    await llm.predict(
        "",
        value("llm.prediction.temperature", 0),
        value("llm.prediction.topKSampling", 5.0),
        value("llm.prediction.topPSampling", {"checked": True, "value": 0.5}),
        value("llm.prediction.minPSampling", {"checked": False, "value": -9}),
        value("llm.prediction.repeatPenalty", {"checked": True, "value": 1.1}),
        value("llm.prediction.maxPredictedTokens", {"checked": True, "value": 9}),
        value("llm.prediction.stopStrings", ["END"]),
        value("llm.prediction.seed", {"checked": True, "value": 3}),
        value("llm.prediction.systemPrompt", "Be brief."),
        value("llm.prediction.structured", {"type": "json", "jsonSchema": SCHEMA}),
        value(
            "llm.prediction.tools",
            {"type": "toolArray", "tools": [{"type": "function", "function": WEATHER}]},
        ),
        value("llm.prediction.reasoning.budgetTokens", {"checked": True, "value": 5}),
        value("llm.prediction.llama.cpuThreads", 4),
        value("somebody.elses", {"x": 1}),
        history={"messages": history},
    )
    request = kernel.request
    messages = request.prompt.messages
    assert [one.role for one in messages] == ["system", "user", "assistant", "tool"]
    assert [one.text for one in messages] == ["Be brief.", "Hi!", "A moment.", '"sunny"']
    assert (messages[2].tool_calls[0].id, messages[3].tool_call_id) == ("c1", "c1")
    assert json.loads(messages[2].tool_calls[0].arguments) == {"city": "Rome"}
    assert (request.prompt.tools[0].name, request.prompt.tools[0].parameters) == ("weather", SCHEMA)
    assert request.sampling.given == {
        "temperature": 0,
        "top_k": 5,
        "top_p": 0.5,
        "repetition_penalty": 1.1,
        "seed": 3,
    }
    assert (request.max_tokens, request.stop, request.reasoning_tokens) == (9, ("END",), 5)
    assert (request.constraint.kind, json.loads(request.constraint.source)) == (
        "json_schema",
        SCHEMA,
    )


async def test_guessed_tokens_are_counted(llm, kernel):
    def run(answer):
        answer.admit(7)
        answer.start()
        answer.resume.count_drafts(0, 9, 7, "acme/small")
        answer.receive(TextDelta(0, "Hi", (1, 2)))
        answer.receive(Finished(0, "stop"))
        answer.end("ok")

    kernel.play = run
    messages = await llm.predict(
        "Hi",
        value("llm.prediction.speculativeDecoding.draftModel", "small"),
        value("llm.prediction.speculativeDecoding.numDraftTokensExact", 4),
    )
    assert kernel.request.draft_model == "small"
    stats = messages[-1]["stats"]
    assert stats["usedDraftModelKey"] == "acme/small"
    names = ("total", "accepted", "rejected", "ignored")
    assert [stats[f"{name}DraftTokensCount"] for name in names] == [9, 7, 2, 0]


async def test_a_later_layer_counts(llm, kernel):
    config = stack(value("llm.prediction.temperature", 1))
    config["layers"] += stack(value("llm.prediction.temperature", 0.5))["layers"]
    await llm.predict(predictionConfigStack=config)
    assert kernel.request.sampling.temperature == 0.5


async def test_texts_are_continued_as_they_are(llm, kernel):
    template = {"type": "jinja", "jinjaPromptTemplate": {"template": "x"}, "stopStrings": []}
    complete = stack(
        value("llm.prediction.promptTemplate", template), layer="completeModeFormatting"
    )
    await llm.predict("Once <s>", predictionConfigStack=complete)
    body = {"modelSpecifier": query(MODEL), "rawPrompt": "Once", "predictionConfigStack": stack()}
    assert (await llm.channel("completeRawText", **body))[-1]["type"] == "success"
    assert [one.request.prompt for one in kernel.answers] == [
        TextPrompt("Once <s>", is_rendered=True),
        TextPrompt("Once", is_rendered=True),
    ]


THOUGHT = (
    ReasoningDelta(0, "Who"),
    ReasoningDelta(0, "?"),
    TextDelta(0, "", (1, 2)),
    TextDelta(0, "{}", (3,)),
    Finished(0, "stop", reasoning_tokens=2),
)


async def test_reasoning_is_marked(llm, kernel):
    kernel.play = play(*THOUGHT)
    found = [(one["content"], one["reasoningType"]) for one in fragments(await llm.predict())]
    assert found == [
        ("<think>", "reasoningStartTag"),
        ("Who", "reasoning"),
        ("?", "reasoning"),
        ("</think>", "reasoningEndTag"),
        ("{}", "none"),
    ]


async def test_reasoning_is_left_out_of_what_clients_parse(llm, kernel):
    kernel.play = play(*THOUGHT)
    structured = value("llm.prediction.structured", {"type": "json"})
    found = fragments(await llm.predict("Hi", structured))
    assert [(one["content"], one["tokensCount"]) for one in found] == [("{}", 3)]


async def test_calls_of_tools(llm, kernel):
    kernel.play = play(
        TextDelta(0, "Well.", (1,)),
        ToolCallStarted(0, 0, "c1", "weather"),
        ToolCallDelta(0, 0, '{"city":'),
        ToolCallDelta(0, 0, '"Rome"}'),
        ToolCallStarted(0, 1, "c2", "now"),
        Finished(0, "tool_calls"),
    )
    messages = await llm.predict()
    ends = [one for one in messages if one["type"] == "toolCallGenerationEnd"]
    assert [one["toolCallRequest"] for one in ends] == [
        {"type": "function", "id": "c1", "name": "weather", "arguments": {"city": "Rome"}},
        {"type": "function", "id": "c2", "name": "now", "arguments": {}},
    ]
    assert ends[0]["rawContent"] == '{"city":"Rome"}'
    assert [one["type"].removeprefix("toolCallGeneration") for one in messages] == [
        "fragment",
        "Start",
        "NameReceived",
        "ArgumentFragmentGenerated",
        "ArgumentFragmentGenerated",
        "End",
        "Start",
        "NameReceived",
        "End",
        "success",
    ]
    assert messages[-1]["stats"]["stopReason"] == "toolCalls"


async def test_a_call_without_arguments_that_can_be_read(llm, kernel):
    kernel.play = play(
        ToolCallStarted(0, 0, "c1", "weather"),
        ToolCallDelta(0, 0, '{"city":'),
        Finished(0, "length"),
    )
    messages = await llm.predict()
    (failed,) = [one for one in messages if one["type"] == "toolCallGenerationFailed"]
    assert "weather" in failed["error"]["title"]
    assert messages[-1]["type"] == "success"


async def test_silence_is_broken_also_where_events_have_no_message(llm, kernel):
    kernel.play = lambda _: None
    structured = value("llm.prediction.structured", {"type": "json"})
    channel_id = await llm.open("predict", **prediction("Hi", structured))
    await kernel.asked.wait()
    answer = kernel.answers[0]
    answer.admit(7)
    answer.start()
    answer.receive(PromptProgress(0, 3, 7, 2))
    heartbeats = []
    while len(heartbeats) < 4:
        answer.receive(ReasoningDelta(0, "?"))  # hidden
        message = (await llm.receive())["message"]
        heartbeats.append((message["type"], message["progress"]))
    assert set(heartbeats[1:]) == {("promptProcessingProgress", 3 / 7)}
    answer.receive(Finished(0, "stop"))
    answer.end("ok")
    assert (await llm.rest(channel_id))[-1]["type"] == "success"


async def test_a_cancelled_answer_is_stopped_and_has_an_end(llm, kernel):
    kernel.play = lambda answer: (answer.admit(7), answer.receive(TextDelta(0, "Hel", (1,))))
    channel_id = await llm.open("predict", **prediction())
    assert (await llm.receive())["message"]["type"] == "fragment"
    await llm.cancel(channel_id)
    success = (await llm.rest(channel_id))[-1]
    assert (success["type"], success["stats"]["stopReason"]) == ("success", "userStopped")
    assert kernel.closed.is_set()


async def test_a_client_that_leaves_stops_its_answers(llm, kernel):
    kernel.play = lambda answer: answer.admit(7)
    await llm.open("predict", **prediction())
    await kernel.asked.wait()
    await llm.ws.close()
    await asyncio.wait_for(kernel.closed.wait(), 10)


# --- errors ---


async def test_failures_are_errors_of_the_channel(llm, kernel):
    for error, code in [
        (ContextOverflowError("too long", param="messages"), "context_length_exceeded"),
        (EngineCrashedError("it crashed"), "engine_crashed"),
    ]:
        kernel.play = play(TextDelta(0, "Hel", (1,)), error=error)
        *_, last = await llm.predict()
        assert (last["title"], last["rootTitle"]) == (error.message, error.message)
        assert last["errorData"]["code"] == code
    kernel.play = play(error=ModelUnloadedError("gone"))
    assert (await llm.predict())[-1]["displayData"] == {"code": "generic.specificModelUnloaded"}
    kernel.refusal = QueueFullError("too many", retry_after_s=5)
    (last,) = await llm.predict()
    assert last["errorData"] == {"code": "queue_full", "retryAfterSeconds": 5}


@pytest.mark.parametrize("name", ["nobody", None])
async def test_a_model_that_is_not_there(llm, kernel, name):
    (told,) = await llm.predict(modelSpecifier=query(name))
    assert told["title"] == "No model found"
    assert told["displayData"] == {
        "code": "generic.noModelMatchingQuery",
        "query": {} if name is None else {"identifier": name},
        "loadedModelsSample": [],
        "totalLoadedModels": 0,
    }
    assert isinstance(told["cause"], str)


@pytest.mark.parametrize(
    ("field", "param"),
    [
        (value("llm.prediction.temperature", 9), "llm.prediction.temperature"),
        (value("llm.prediction.stopStrings", 9), "llm.prediction.stopStrings"),
        (
            value("llm.prediction.topPSampling", {"checked": True, "value": 3}),
            "llm.prediction.topPSampling.value",
        ),
        (
            value("llm.prediction.promptTemplate", {"type": "jinja"}),
            "llm.prediction.promptTemplate",
        ),
        (value("llm.prediction.structured", {"type": "gbnf"}), "llm.prediction.structured.type"),
    ],
)
async def test_a_key_that_is_wrong_is_named(llm, kernel, field, param):
    (told,) = await llm.predict("Hi", field)
    assert told["errorData"]["param"] == param
    assert param in told["title"]
    assert not kernel.answers


# --- tokens, vectors, files ---


async def test_tokens(llm, kernel):
    body = {"specifier": query(MODEL), "inputString": "four"}
    assert await llm.result("tokenize", **body) == {"tokens": [1, 2, 3]}
    assert await llm.result("countTokens", **body) == {"tokenCount": 3}
    assert kernel.counted[0].prompt == TextPrompt("four", is_rendered=True)
    assert await llm.result("tokenize", **body | {"inputString": ""}) == {"tokens": []}
    history = prediction("Hi")["history"]
    body = {"specifier": query(MODEL), "history": history, "predictionConfigStack": {"layers": []}}
    opts = {"toolDefinitions": [{"type": "function", "function": WEATHER}]}
    assert await llm.result("applyPromptTemplate", **body, opts=opts) == {"formatted": "Hi"}
    prompt = kernel.counted[-1].prompt
    assert isinstance(prompt, ChatPrompt)
    assert (prompt.messages[0].parts, prompt.tools[0].name) == ((TextPart("Hi"),), "weather")


async def test_vectors(connect, kernel):
    socket = await connect("/embedding")
    body = {"modelSpecifier": query(VECTORS), "inputString": "hi"}
    vector = (await socket.result("embedString", **body))["embedding"]
    assert vector == pytest.approx([0.6, 0.8, 0, 0])
    assert kernel.embedded == [TextPrompt("hi")]


@pytest.mark.parametrize("max_waiting", [0, 4, 256])
async def test_a_long_list_of_texts_does_not_fill_the_queue(connect, kernel, max_waiting):
    kernel.queue = QueueSettings(max_waiting=max_waiting)
    socket = await connect("/embedding")
    for call_id in range(300):
        await socket.send(
            type="rpcCall",
            endpoint="embedString",
            callId=call_id,
            parameter={"modelSpecifier": query(VECTORS), "inputString": "hi"},
        )
    answered = {(await socket.receive())["callId"] for _ in range(300)}
    assert answered == set(range(300))
    assert kernel.most_embedding == max(1, min(max_waiting, 16))


async def test_files_are_taken_and_refused_where_they_are_used(connect, llm, kernel):
    socket = await connect("/files")
    content = base64.b64encode(b"12345").decode()
    taken = await socket.result("uploadFileBase64", name="a.png", contentBase64=content)
    assert (taken["fileType"], taken["sizeBytes"]) == ("image", 5)
    assert taken["identifier"].endswith(".png")
    wrong = await socket.call("uploadFileBase64", name="a.png", contentBase64="!")
    assert wrong["error"]["errorData"]["param"] == "contentBase64"
    part = {"type": "file", "name": "a.png", **taken}
    history = {"messages": [{"role": "user", "content": [part]}]}
    (told,) = await llm.predict(history=history)
    assert "'a.png' is of the type image" in told["title"]
    assert told["errorData"]["param"] == "history.messages[0].content[0]"
    assert not kernel.answers
