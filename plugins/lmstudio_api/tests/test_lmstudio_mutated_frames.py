"""Frames that are broken in every way: an error or a close code each, and nothing stays behind."""

from __future__ import annotations

import asyncio
import copy
import json
import random

import pytest
import structlog
from sdk_socket import prediction, query, stack, value
from websockets.exceptions import ConnectionClosed

from lmx_kernel.testing.stub_kernel import MODEL

WRONG = [None, True, -1, 0, 1.5, 2**70, 1e308, "", "x" * 300, [], [[]], {}, {"type": "x"}, "\ud800"]
PATHS = ["/llm", "/embedding", "/system", "/files", "/repository", "/diagnostics", "/plugins"]
CLOSE_CODES = (1003, 1007, 1008, 1009)
CALLS = {
    "listLoaded": None,
    "getModelInfo": {"specifier": query(MODEL), "throwIfNotFound": True},
    "getLoadConfig": {"specifier": query(MODEL)},
    "unloadModel": {"identifier": MODEL},
    "tokenize": {"specifier": query(MODEL), "inputString": "a"},
    "applyPromptTemplate": {
        "specifier": query(MODEL),
        "history": prediction()["history"],
        "predictionConfigStack": stack(),
        "opts": {},
    },
    "embedString": {"modelSpecifier": query("acme/Vectors-0.6B"), "inputString": "a"},
    "listDownloadedModels": None,
    "uploadFileBase64": {"name": "a.png", "contentBase64": "AAAA"},
    "searchModels": {"opts": {"searchTerm": "a/b"}},
    "nothing": None,
}
TOOLS = {"type": "toolArray", "tools": [{"type": "function", "function": {"name": "f"}}]}
CHANNELS = {
    "predict": prediction(
        "Hi",
        value("llm.prediction.temperature", 1),
        value("llm.prediction.topPSampling", {"checked": True, "value": 1}),
        value("llm.prediction.structured", {"type": "json", "jsonSchema": {"type": "object"}}),
        value("llm.prediction.tools", TOOLS),
    ),
    "completeRawText": {
        "modelSpecifier": query(MODEL),
        "rawPrompt": "Hi",
        "predictionConfigStack": stack(),
    },
    "getOrLoad": {"identifier": MODEL, "loadConfigStack": stack(value("llm.load.numExperts", 0))},
    "loadModel": {"modelKey": MODEL, "loadConfigStack": stack(), "identifier": "mine"},
    "downloadModel": {"downloadIdentifier": MODEL},
    "nothing": {},
}
OTHERS = [
    {"type": "channelSend", "channelId": 1, "message": {"type": "cancel"}, "ackId": 1},
    {"type": "channelAck", "channelId": 1, "ackId": 1},
    {"type": "signalSubscribe", "subscribeId": 1, "endpoint": "x", "creationParameter": {}},
    {"type": "writableSignalUpdate", "subscribeId": 1, "patches": [], "tags": []},
    {"type": "keepAlive"},
    {"type": "rpcResult", "callId": 1, "result": {}},
]


def frames(number):
    """Return all kinds of frames, each with a number of its own."""
    for endpoint, parameter in CALLS.items():
        yield {"type": "rpcCall", "endpoint": endpoint, "callId": number, "parameter": parameter}
    for endpoint, parameter in CHANNELS.items():
        ids = {"channelId": number, "creationParameter": parameter}
        yield {"type": "channelCreate", "endpoint": endpoint, **ids}
    yield from OTHERS


def places(value):
    """Yield each dict or list in a value with each of its keys."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in items:
        yield value, key
        if isinstance(inner, dict | list):
            yield from places(inner)


def mutated(chance, number):
    """Return a frame that is broken somewhere, as text or bytes."""
    frame = copy.deepcopy(chance.choice(list(frames(number))))
    for _ in range(chance.randint(1, 3)):
        inside, key = chance.choice(list(places(frame)))
        how = chance.random()
        if how < 0.2 and isinstance(inside, dict):
            del inside[key]
        elif how < 0.3 and isinstance(inside, list):
            inside += [copy.deepcopy(inside[key])] * chance.choice([1, 9000])
        else:
            inside[key] = copy.deepcopy(chance.choice(WRONG))
        if not frame:
            break
    text = json.dumps(frame)
    how = chance.random()
    if how < 0.05:
        return text.encode()
    if how < 0.1:
        return text[: chance.randrange(len(text))]
    return text if how < 0.95 else text.replace(":", ": " + "[" * chance.choice([3, 3000]), 1)


async def until_answered(socket, number):
    """Return the frames up to the answer to a call with a number of its own."""
    await socket.send(type="rpcCall", endpoint="nothing", callId=-number)
    found = [await socket.receive()]
    while found[-1].get("callId") != -number:
        found.append(await socket.receive())
    return found[:-1]


def check_answer(frame):
    error = frame.get("error") or {}
    assert error.get("errorData", {}).get("code") != "internal_error", frame
    assert frame["type"] in {
        *("rpcResult", "rpcError", "channelSend", "channelAck", "channelClose", "channelError"),
        *("communicationWarning", "keepAliveAck", "signalError", "writableSignalError"),
    }


async def code_after(socket, frame, number):
    """Check what is answered to a frame, and return the code if the socket was closed instead."""
    try:
        await socket.ws.send(frame)
        for answer in await until_answered(socket, number):
            check_answer(answer)
    except ConnectionClosed as closed:
        return closed.rcvd.code if closed.rcvd else 1006
    return None


@pytest.mark.parametrize("count", [100, pytest.param(2000, marks=pytest.mark.full)])
async def test_mutated_frames(connect, kernel, count):
    chance = random.Random(14)
    kernel.states = {MODEL: "ready"}
    tasks = len(asyncio.all_tasks())
    sockets = {path: await connect(path) for path in PATHS}
    with structlog.testing.capture_logs() as logs:
        for number in range(2, count + 2):
            path = chance.choice([*PATHS, "/llm", "/llm", "/llm"])
            frame = mutated(chance, number)
            if (code := await code_after(sockets[path], frame, number)) is not None:
                assert code in CLOSE_CODES, frame
                sockets[path] = await connect(path)
    for socket in sockets.values():
        await socket.ws.close()
    while len(asyncio.all_tasks()) > tasks:
        await asyncio.sleep(0.01)
    assert [one for one in logs if one["log_level"] == "error" or "exc_info" in one] == []
    assert not kernel.listeners
    assert all(answer.outcome is not None for answer in kernel.answers)


@pytest.mark.parametrize("count", [300, pytest.param(10_000, marks=pytest.mark.full)])
async def test_many_channels(llm, kernel, count):
    kernel.play = lambda answer: answer.admit(7)
    for number in range(count):
        await llm.ws.send(
            json.dumps(
                {
                    "type": "channelCreate",
                    "endpoint": "predict",
                    "channelId": number,
                    "creationParameter": prediction(),
                }
            )
        )
    await llm.send(type="rpcCall", endpoint="listLoaded", callId=1)
    told = []
    while not told or told[-1]["type"] != "rpcResult":
        told.append(await llm.receive())
    refused = [one for one in told if one["type"] == "channelError"]
    assert len(refused) == count - 240
    assert [one.outcome for one in kernel.answers] == [None] * 240
    await llm.ws.close()
    while any(answer.outcome is None for answer in kernel.answers):
        await asyncio.sleep(0.01)


async def test_a_message_that_is_too_large_closes_the_socket(llm, kernel):
    with pytest.raises(ConnectionClosed) as closed:
        await llm.predict("x" * (65 << 20))
    assert closed.value.rcvd.code == 1009
    assert not kernel.answers
