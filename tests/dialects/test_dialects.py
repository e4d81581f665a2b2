"""One request means the same in each dialect: text, reasoning, calls, ends, tokens and errors."""

from __future__ import annotations

import httpx2
import pytest
import pytest_asyncio
from asking import DIALECTS, Ask, Said, Turn, say

from lmx_kernel.testing.fake_model import FakeModel
from lmx_kernel.testing.harness import running_daemon, write_config, write_fake_models

DIALECT_PLUGINS = ("openai", "anthropic", "responses", "ollama", "lmstudio")
PLUGINS = tuple(f"lmx_{name}_api.plugin" for name in DIALECT_PLUGINS)
CITY = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
TOOLS = {"weather": CITY, "now": {"type": "object", "properties": {}}}
HI = (Turn("user", "Hi"),)
CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Rome"}}\n</tool_call>'
OTHER = '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>'
HISTORY = (
    Turn("system", "Be brief."),
    Turn("user", "What is it like in Rome?"),
    Turn("assistant", "A moment.", calls=(("call_1", "weather", {"city": "Rome"}),)),
    Turn("tool", "Sunny.", answers="call_1"),
    Turn("system", "Mind the date."),
    Turn("user", "And now?"),
    Turn("user", "Well?"),
)
SCRIPTS = {
    "counter": FakeModel(answer_tokens=8),
    "thinker": FakeModel(says="<think>Who is it?</think>Hello!"),
    "caller": FakeModel(says=f"A moment.{CALL}\n{OTHER}"),
    **{
        f"faller-{name}-{stream}": FakeModel(says=CALL, crash_at=CALL.index("Rome"))
        for name in DIALECTS
        for stream in (False, True)
    },
    "sour": FakeModel(answer_tokens=8, sour="Hi"),
    "small": FakeModel(context_length=16),
}
ROME, NOW = ("weather", {"city": "Rome"}), ("now", {})

every = pytest.mark.parametrize("name", DIALECTS)
both = pytest.mark.parametrize("stream", [False, True])


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def url(tmp_path_factory):
    """Where a daemon serves all dialects."""
    folder = tmp_path_factory.mktemp("home")
    write_fake_models(folder, SCRIPTS)
    async with running_daemon(write_config(folder, PLUGINS)) as daemon:
        yield daemon.url


@pytest.fixture
async def ask(url, name, stream):
    """Return a function that asks in one dialect."""
    async with httpx2.AsyncClient(base_url=url, timeout=60) as http:

        async def ask(model, turns=HI, **fields):
            asked = Ask(model=model, turns=turns, **fields)
            return await say(http, DIALECTS[name], asked, stream=stream)

        yield ask


@both
@every
async def test_text_and_tokens(ask):
    said = await ask("counter")
    assert len(said.text.split()) == 8
    assert (said.end, said.completion_tokens) == ("stop", 9)
    assert said.prompt_tokens == len("user: Hi\nassistant:")


@both
@every
async def test_a_limit(ask):
    said = await ask("counter", max_tokens=3)
    assert (said.end, said.completion_tokens, len(said.text.split())) == ("length", 3, 3)


@both
@every
async def test_reasoning(ask):
    said = await ask("thinker")
    assert (said.reasoning, said.text, said.end) == ("Who is it?", "Hello!", "stop")


@both
@every
async def test_two_calls(ask):
    said = await ask("caller", tools=TOOLS)
    assert (said.text, said.calls, said.end) == ("A moment.", (ROME, NOW), "tool_calls")


@both
@every
async def test_a_call_survives_the_worker(ask, name, stream):
    said = await ask(f"faller-{name}-{stream}", tools=TOOLS)
    assert (said.calls, said.end) == ((ROME,), "tool_calls")


@both
@every
async def test_what_fails_alone_is_an_error_and_no_end(ask, stream):
    said = await ask("sour")
    assert said == Said(error="broken" if stream else said.error)
    assert stream or said.error >= 500


@both
@every
@pytest.mark.parametrize(("model", "status"), [("nobody", 404), ("small", 400)])
async def test_what_is_refused_has_a_status(ask, model, status):
    assert await ask(model, turns=HISTORY) == Said(error=status)


async def test_the_model_reads_the_same_conversation(url):
    """Calls, results, late instructions and turns in a row: the prompts are equal."""
    async with httpx2.AsyncClient(base_url=url, timeout=60) as http:
        asked = Ask(model="counter", turns=HISTORY, tools=TOOLS)
        said = [await say(http, dialect, asked, stream=False) for dialect in DIALECTS.values()]
    assert said[0].prompt_tokens > 0
    assert {(one.text, one.prompt_tokens) for one in said} == {
        (said[0].text, said[0].prompt_tokens)
    }


TURNS = [{"role": "user", "content": "Hi"}]
BODIES = {
    "/v1/chat/completions": {"messages": TURNS, "max_completion_tokens": 1},
    "/v1/completions": {"prompt": "Hi", "max_tokens": 1},
    "/v1/responses": {"input": "Hi", "max_output_tokens": 1},
    "/v1/messages": {"messages": TURNS, "system": "Hi", "max_tokens": 1},
}
PATHS = (*BODIES, "/v1/embeddings", "/api/chat", "/api/generate", "/api/v1/chat")
SHARED = {  # bodies that a path can take, if it ignores what it does not know
    ("/v1/embeddings", "/v1/responses"),
    ("/api/chat", "/v1/chat/completions"),
    ("/api/chat", "/v1/messages"),
    ("/api/generate", "/v1/completions"),
    ("/api/v1/chat", "/v1/responses"),
}
ANOTHER_BELONGS = {  # of two dialects whose bodies look alike, the first is named
    ("/v1/completions", "/v1/messages"): "/v1/chat/completions",
    ("/v1/embeddings", "/v1/messages"): "/v1/chat/completions",
    ("/v1/responses", "/v1/messages"): "/v1/chat/completions",
    ("/api/v1/chat", "/v1/messages"): "/v1/chat/completions",
    ("/api/chat", "/v1/completions"): "/api/generate",
    ("/api/generate", "/v1/chat/completions"): "/api/chat",
    ("/api/generate", "/v1/messages"): "/api/chat",
}
UNTOLD = {  # it is only told what it lacks
    ("/v1/responses", "/v1/completions"),  # which has a `prompt` of its own
    ("/api/v1/chat", "/v1/completions"),
}


@pytest.mark.parametrize("path", PATHS)
async def test_a_body_of_another_dialect_is_told_where_it_belongs(url, path):
    async with httpx2.AsyncClient(base_url=url, timeout=60) as http:
        for belongs, body in BODIES.items():
            if path == belongs or (path, belongs) in SHARED:
                continue
            answer = await http.post(path, json={"model": "counter", **body})
            assert answer.status_code == 400
            told = ANOTHER_BELONGS.get((path, belongs), belongs)
            is_told = f"belongs to a body of {told}" in answer.text
            assert is_told or (path, belongs) in UNTOLD, (belongs, answer.text)
