"""Vectors and token counts, as the SDK and a plain client get them."""

from __future__ import annotations

import base64
import struct

import openai
import pytest

from lmx_kernel.errors import ContextOverflowError
from lmx_kernel.types import ChatPrompt, EmbeddingPrompt, TextPrompt, TokenPrompt

MODEL = "acme/Tiny-1B"


@pytest.fixture
def sdk(api):
    """The SDK as it is by default: it asks for base64, which its strict mode does not expect."""
    return api.sdk.copy(_extra_kwargs={"_strict_response_validation": False})


async def test_the_sdk_gets_vectors_of_one_text_and_of_many(sdk, api, kernel):
    one = await sdk.embeddings.create(model=MODEL, input="hello")
    assert kernel.embedded == [TextPrompt("hello")]
    assert one.data[0].embedding == pytest.approx([0.6, 0.8, 0, 0])
    assert (one.object, one.model, one.data[0].object) == ("list", MODEL, "embedding")
    assert (one.usage.prompt_tokens, one.usage.total_tokens) == (3, 3)
    many = await api.sdk.embeddings.create(
        model=MODEL, input=["a", "b", "c"], encoding_format="float"
    )
    assert kernel.embedded == [TextPrompt("a"), TextPrompt("b"), TextPrompt("c")]
    assert [one.index for one in many.data] == [0, 1, 2]
    assert many.data[2].embedding == pytest.approx([0.6, 0.8, 0, 0])
    assert many.usage.total_tokens == 9


async def test_tokens_are_inputs_too(sdk, kernel):
    await sdk.embeddings.create(model=MODEL, input=[5, 6, 7])
    assert kernel.embedded == [TokenPrompt((5, 6, 7))]
    await sdk.embeddings.create(model=MODEL, input=[[5, 6], [7]])
    assert kernel.embedded == [TokenPrompt((5, 6)), TokenPrompt((7,))]


async def test_numbers_come_as_json_or_as_float32_in_base64(api):
    body = {"model": MODEL, "input": "x"}
    for plain in ({}, {"encoding_format": None}, {"encoding_format": "float"}):
        reply = (await api.post("embeddings", body | plain)).json()
        assert reply["data"][0]["embedding"] == pytest.approx([0.6, 0.8, 0, 0])
    reply = (await api.post("embeddings", body | {"encoding_format": "base64"})).json()
    packed = base64.b64decode(reply["data"][0]["embedding"])
    assert struct.unpack("<4f", packed) == pytest.approx([0.6, 0.8, 0, 0])


async def test_shorter_vectors_have_length_one_again(sdk):
    for dimensions, expected in ((1, [1]), (2, [0.6, 0.8]), (4, [0.6, 0.8, 0, 0])):
        reply = await sdk.embeddings.create(model=MODEL, input="x", dimensions=dimensions)
        assert reply.data[0].embedding == pytest.approx(expected)
    with pytest.raises(openai.BadRequestError, match="have 4 numbers") as caught:
        await sdk.embeddings.create(model=MODEL, input="x", dimensions=5)
    assert caught.value.param == "dimensions"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": []}, "input"),
        ({"input": [[]]}, "input[0]"),
        ({"input": ["a", 1]}, "input[1]"),
        ({"input": [[1], "a"]}, "input[1]"),
        ({"input": [-1]}, "input[0]"),
        ({"input": None}, "input"),
        ({"input": {"text": "a"}}, "input"),
        ({"input": ["a"] * 2049}, "input"),
        ({"input": "a", "dimensions": 0}, "dimensions"),
        ({"input": "a", "encoding_format": "hex"}, "encoding_format"),
        ({"input": "a", "model": ""}, "model"),
    ],
)
async def test_wrong_fields_are_named(api, kernel, fields, param):
    reply = await api.post("embeddings", {"model": MODEL} | fields)
    assert reply.status_code == 400
    error = reply.json()["error"]
    assert (error["type"], error["param"]) == ("invalid_request_error", param)
    assert not kernel.embedded


async def test_as_many_texts_as_are_allowed_are_embedded(api, kernel):
    reply = await api.post("embeddings", {"model": MODEL, "input": ["a"] * 2048})
    assert [one["index"] for one in reply.json()["data"]] == list(range(2048))


async def test_what_the_kernel_refuses_is_told_as_ever(api, kernel):
    kernel.refusal = ContextOverflowError("input 0 is too long", param="input")
    with pytest.raises(openai.BadRequestError, match="too long") as caught:
        await api.sdk.embeddings.create(model=MODEL, input="x")
    assert (caught.value.code, caught.value.param) == ("context_length_exceeded", "input")
    kernel.refusal = None
    with pytest.raises(openai.NotFoundError):
        await api.sdk.embeddings.create(model="nope", input="x")


async def test_what_a_request_would_take_is_counted(api, kernel):
    chat = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 5}
    reply = await api.post("chat/completions/count_tokens", chat)
    assert reply.json() == {"object": "token_count", "prompt_tokens": 7}
    assert isinstance(kernel.counted[0].prompt, ChatPrompt)
    reply = await api.post("completions/count_tokens", {"model": MODEL, "prompt": ["a", "b"]})
    assert reply.json()["prompt_tokens"] == 14
    assert [asked.prompt for asked in kernel.counted[1:]] == [TextPrompt("a"), TextPrompt("b")]
    reply = await api.post("embeddings/count_tokens", {"model": MODEL, "input": ["a", "b"]})
    assert reply.json()["prompt_tokens"] == 7
    assert kernel.counted[3].prompt == EmbeddingPrompt((TextPrompt("a"), TextPrompt("b")))
    assert not kernel.answers


async def test_a_count_has_the_checks_of_the_request(api, kernel):
    reply = await api.post("chat/completions/count_tokens", {"model": MODEL, "messages": []})
    assert reply.status_code == 400
    assert reply.json()["error"]["param"] == "messages"
    kernel.refusal = ContextOverflowError("no")
    reply = await api.post("completions/count_tokens", {"model": MODEL, "prompt": "a"})
    assert reply.status_code == 400
