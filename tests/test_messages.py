"""Anthropic's Messages through a daemon with fake models and the unmodified SDK."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import anthropic
import httpx2
import pytest
import pytest_asyncio

from lmx_kernel.testing.fake_model import FakeModel
from lmx_kernel.testing.harness import running_daemon, write_config, write_fake_models

HI = [{"role": "user", "content": "Hi"}]
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 8}},
    "required": ["city"],
    "additionalProperties": False,
}
WEATHER = {"name": "weather", "description": "Tells the weather.", "input_schema": SCHEMA}
NOW = {"name": "now", "input_schema": {"type": "object", "properties": {}}}
CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Rome"}}\n</tool_call>'
TOOLED = (
    "{% for t in tools or [] %}{{ t.function.name }}: {{ t.function.description }}\n{% endfor %}"
    "{% for m in messages %}{{ m.role }}: {{ m.content }}"
    "{% for c in m.tool_calls or [] %}<tool_call>{{ c.function|tojson }}</tool_call>{% endfor %}\n"
    "{% endfor %}assistant:"
)
STRICT = (
    "{% for m in messages %}"
    "{% if m.role == 'system' and not loop.first %}{{ raise_exception('system must come first') }}"
    "{% elif not loop.first and m.role == loop.previtem.role %}{{ raise_exception('alternate') }}"
    "{% endif %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:"
)
SCRIPTS = {
    "counter": FakeModel(answer_tokens=8, template=TOOLED),
    "strict": FakeModel(answer_tokens=8, template=STRICT),
    "caller": FakeModel(says=f"A moment.{CALL}", template=TOOLED),
    "thinker": FakeModel(
        template="{{ messages[0].content }}{{ '<think>' if enable_thinking is not false }}",
        says="Who may it be?</think>Hello!",
    ),
    "talker": FakeModel(says="one two END three"),
    "small": FakeModel(context_length=256),
    "endless": FakeModel(tokens_per_s=50, context_length=100_000),
    "deadly": FakeModel(says="Hello there", crash_at=3, times=99),
}
KEY = "sesame"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def url(tmp_path_factory) -> AsyncIterator[str]:
    """Where a daemon serves them to those who have the key."""
    home = tmp_path_factory.mktemp("home")
    write_fake_models(home, SCRIPTS)
    plugins = ("lmx_anthropic_api.plugin", "lmx_openai_api.plugin")
    config = f'[server]\napi_key = "{KEY}"\n[anthropic_api]\nheartbeat_s = 0.1\n'
    async with running_daemon(write_config(home, plugins, config)) as daemon:
        yield daemon.url


@pytest.fixture
async def sdk(url):
    async with anthropic.AsyncAnthropic(base_url=url, api_key=KEY, max_retries=0) as client:
        yield client


@pytest.fixture
def ask(sdk):
    """Return a function that asks a model, and returns the whole message."""

    async def ask(model, *, stream=True, **fields):
        asked = {"model": model, "max_tokens": 100, "messages": HI, **fields}
        if not stream:
            return await sdk.messages.create(**asked)
        async with sdk.messages.stream(**asked) as events:
            return await events.get_final_message()

    return ask


@pytest.fixture
def count(sdk):
    """Return a function that counts the tokens of a prompt."""

    async def count(model="counter", messages=HI, **fields):
        counted = await sdk.messages.count_tokens(model=model, messages=messages, **fields)
        return counted.input_tokens

    return count


both = pytest.mark.parametrize("stream", [False, True])


def turns(*pairs):
    return [{"role": role, "content": content} for role, content in pairs]


@both
async def test_a_call(ask, stream):
    message = await ask("caller", stream=stream, tools=[WEATHER, NOW])
    words, call = message.content
    assert words.text == "A moment."
    assert (call.name, call.input) == ("weather", {"city": "Rome"})
    assert message.stop_reason == "tool_use"


@both
async def test_a_call_that_must_be_made_fits_its_schema(ask, stream):
    named = {"type": "tool", "name": "weather"}
    message = await ask("counter", stream=stream, tools=[NOW, WEATHER], tool_choice=named)
    (call,) = message.content
    assert call.name == "weather"
    assert set(call.input) == {"city"}


async def test_a_deferred_tool_costs_nothing_until_it_is_referred_to(ask, count):
    deferred = {**WEATHER, "defer_loading": True}
    assert await count(tools=[NOW, deferred]) == await count(tools=[NOW])
    assert await count(tools=[NOW, WEATHER]) > await count(tools=[NOW])
    message = await ask("caller", tools=[NOW, deferred])
    assert message.content[1].input == {"city": "Rome"}
    named = {"type": "tool", "name": "weather"}
    (call,) = (await ask("counter", tools=[NOW, deferred], tool_choice=named)).content
    assert set(call.input) == {"city"}


@pytest.mark.parametrize(
    ("thinking", "kinds"),
    [
        ({"type": "enabled", "budget_tokens": 2000}, {"thinking": "Who may it be?"}),
        ({"type": "adaptive"}, {"thinking": "Who may it be?"}),
        ({"type": "disabled"}, {}),
    ],
)
async def test_how_a_model_thinks(ask, thinking, kinds):
    message = await ask("thinker", thinking=thinking, max_tokens=3000)
    found = {block.type: block.thinking for block in message.content if block.type == "thinking"}
    assert found == kinds
    assert message.content[-1].text.endswith("Hello!")


@pytest.mark.parametrize(
    "thinking", [{"type": "enabled", "budget_tokens": 31999}, {"type": "disabled"}]
)
async def test_a_model_that_does_not_think_is_asked_to(ask, thinking):
    message = await ask("counter", thinking=thinking, output_config={"effort": "high"})
    assert [block.type for block in message.content] == ["text"]


HUGE = 9007199254740991
# What is in the schemas of Claude Code's own tools, and in those of others.
SCHEMAS = [
    {"type": "object", "properties": {}},
    {"type": "object"},
    {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": {
            "script": {"type": "string", "minLength": 1, "maxLength": 524288},
            "args": {"description": "anything"},
            "seconds": {"type": "integer", "exclusiveMinimum": 0, "maximum": HUGE},
            "offset": {"type": "integer", "minimum": -HUGE, "default": 0},
            "label": {"type": "string", "allOf": [{"pattern": "^[\\s\\S]{0,300}$"}]},
            "url": {"type": "string", "format": "uri"},
            "kind": {"anyOf": [{"const": "a"}, {"enum": ["b", "c"]}]},
            "env": {
                "type": "object",
                "propertyNames": {"type": "string"},
                "additionalProperties": {"type": "string"},
            },
            "items": {"type": "array", "maxItems": 32, "items": {"$ref": "#/$defs/node"}},
        },
        "required": ["script"],
        "additionalProperties": False,
        "$defs": {
            "node": {"type": ["object", "null"], "properties": {"next": {"$ref": "#/$defs/node"}}}
        },
    },
    {"type": "object", "properties": {"name": {"type": "string", "pattern": "^(?!x)\\w+$"}}},
]


async def test_schemas_that_agents_send(ask):
    tools = [
        {"name": f"mcp__server__tool{n}", "description": "", "input_schema": schema}
        for n, schema in enumerate(SCHEMAS * 5)
    ]
    message = await ask("counter", tools=tools, max_tokens=32_000)
    assert message.stop_reason == "end_turn"
    chosen = {"type": "tool", "name": "mcp__server__tool2"}
    (call,) = (await ask("counter", tools=tools, tool_choice=chosen)).content
    assert call.name == "mcp__server__tool2"


@both
async def test_what_ends_an_answer(ask, stream):
    stopped = await ask("talker", stream=stream, stop_sequences=["x", "END"])
    assert stopped.content[0].text == "one two "
    assert (stopped.stop_reason, stopped.stop_sequence) == ("stop_sequence", "END")
    full = await ask("small", stream=stream, max_tokens=3200)
    assert full.stop_reason == "model_context_window_exceeded"
    assert full.usage.input_tokens + full.usage.output_tokens == 256 + 1
    assert (await ask("small", stream=stream, max_tokens=5)).stop_reason == "max_tokens"


@both
async def test_an_overflow_is_told_in_the_words_that_agents_know(ask, count, stream):
    long = turns(("user", "x" * 1000))
    tokens = await count("small", long)
    with pytest.raises(anthropic.BadRequestError) as caught:
        await ask("small", stream=stream, messages=long)
    expected = f"prompt is too long: {tokens} tokens > 256 maximum"
    assert caught.value.body["error"] == {"type": "invalid_request_error", "message": expected}


IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "eA=="}}
PDF = {"type": "document", "source": {"type": "base64", "media_type": "application/pdf"}}
REFERENCE = {"type": "tool_reference", "tool_name": "weather"}


@pytest.mark.parametrize("model", ["strict", "counter"])
async def test_conversations_that_some_templates_refuse(ask, model):
    result = {"type": "tool_result", "tool_use_id": "t1", "content": [IMAGE, PDF, REFERENCE]}
    used = {"type": "tool_use", "id": "t1", "name": "weather", "input": {"city": "Rome"}}
    messages = turns(
        ("user", "first"),
        ("system", "The date is known."),
        ("user", [{"type": "text", "text": "second"}]),
        ("assistant", [{"type": "thinking", "thinking": "Hm.", "signature": ""}, used]),
        ("user", [result, {"type": "text", "text": "third"}, IMAGE]),
        ("system", "The end."),
    )
    message = await ask(model, messages=messages, system="Be kind.", tools=[WEATHER])
    assert message.stop_reason == "end_turn"


async def test_a_text_and_its_block_are_the_same_tokens(count):
    mark = {"cache_control": {"type": "ephemeral"}}
    blocks = [{"type": "text", "text": "Hi", **mark}]
    plain = await count(system="Be kind.")
    assert await count(messages=turns(("user", blocks)), system="Be kind.") == plain
    billing = {"type": "text", "text": "x-anthropic-billing-header: cc_version=2.1.332.0af;"}
    kind = {"type": "text", "text": "Be kind.", **mark}
    assert await count(system=[billing, kind]) == plain


async def test_counting_waits_for_no_slot(sdk, count):
    asked = {"model": "endless", "max_tokens": 90_000, "messages": HI}
    async with sdk.messages.stream(**asked) as events:
        async for event in events:
            if event.type == "content_block_delta":
                break
        # With tools, since what is constrained is prepared apart from the rest.
        counts = [count("endless", tools=[WEATHER]) for _ in range(25)]
        assert len(set(await asyncio.wait_for(asyncio.gather(*counts), 30))) == 1
        assert events.current_message_snapshot.stop_reason is None


async def test_a_worker_that_dies_is_an_error_in_the_stream(ask):
    with pytest.raises(anthropic.APIStatusError) as caught:
        await ask("deadly")
    assert caught.value.body["error"]["type"] == "api_error"


async def test_clients_ask_who_is_there(url):
    async with httpx2.AsyncClient(base_url=url) as http:
        assert (await http.head("/")).status_code == 200
        assert (await http.head("/api/hello")).status_code in (401, 404)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"x-api-key": KEY}, 200),
        ({"authorization": f"Bearer {KEY}"}, 200),
        ({"x-api-key": "wrong"}, 401),
        ({}, 401),
    ],
)
async def test_either_header_has_the_key(url, headers, status):
    headers = {**headers, "anthropic-version": "2026-10-21", "anthropic-beta": "any,other"}
    async with httpx2.AsyncClient(base_url=url, headers=headers) as http:
        body = {"model": "counter", "max_tokens": 5, "messages": HI}
        for answer in (
            await http.post("/v1/messages?beta=true", json=body),
            await http.get("/v1/models?limit=1000"),
        ):
            assert answer.status_code == status
            if status == 401:
                assert answer.json()["error"]["type"] == "authentication_error"
                assert answer.headers["x-should-retry"] == "false"
