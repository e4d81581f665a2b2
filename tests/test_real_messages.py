"""The prompt of a coding agent stays in the cache from turn to turn, on a real model.

The conversations have the shape of those that Claude Code sends: a system message within, contents
that change between texts and blocks, marks that move, tools that are added in the middle of the
list.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import anthropic
import pytest
import pytest_asyncio

from lmx_kernel.testing.harness import running_daemon

MODEL = "smollm2-135m-instruct"
MARK = {"cache_control": {"type": "ephemeral"}}
RULES = "Read a file before you change it. " * 20
REMINDER = "<system-reminder>\nThe folder is empty, and the date is known.\n</system-reminder>\n"


def tool(name, **more):
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": {"path": {"type": "string", "maxLength": 524288}},
        "required": ["path"],
        "additionalProperties": False,
    }
    return {"name": name, "description": f"{name}s a file.", "input_schema": schema, **more}


TOOLS = [tool("Edit"), tool("Read"), tool("ToolSearch"), tool("Write")]
PLACEHOLDER = tool("DeferredToolPlaceholder", defer_loading=True)
FETCH = tool("Fetch", defer_loading=True)


def text(words, **more):
    return {"type": "text", "text": words, **more}


def system(stamp):
    billing = f"x-anthropic-billing-header: cc_version=2.1.332.{stamp}; cc_entrypoint=sdk-cli;"
    return [text(billing), text("You are an agent.", **MARK), text(RULES, **MARK)]


def opening(words, **more):
    """Return the first turn of a session."""
    reminded = [text(REMINDER), text(words, **more)]
    notes = {"role": "system", "content": "Agents, skills and tools that can be searched: Fetch."}
    return [{"role": "user", "content": reminded}, notes]


def call(name, call_id):
    used = {"type": "tool_use", "id": call_id, "name": name, "input": {"path": "notes.txt"}}
    return {"role": "assistant", "content": [text("I look."), used]}


def result(call_id, content, **more):
    found = {"tool_use_id": call_id, "type": "tool_result", "content": content, **more}
    return {"role": "user", "content": [found]}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def url(tmp_path_factory):
    """Where a daemon serves the demo model, one request at a time."""
    models = Path(os.environ.get("LMX_HOME") or "~/.lmx").expanduser() / "models"
    if not (models / MODEL).exists():
        pytest.fail("the demo model is missing: run `make demo`")
    path = tmp_path_factory.mktemp("home") / "config.toml"
    path.write_text(
        f"[model_folders]\nhome = false\nhugging_face = false\nlm_studio = false\n"
        f'paths = ["{models}"]\n[models]\nparallel = 1\n'
    )
    async with running_daemon(path) as daemon:
        yield daemon.url


@pytest.fixture
async def ask(url):
    """Return a function that asks the model, and returns the tokens of the prompt and how many of
    them were cached.
    """
    async with anthropic.AsyncAnthropic(base_url=url, api_key="any", max_retries=0) as sdk:

        async def ask(messages, *, stamp="0af", tools=TOOLS, **fields):
            asked = {"system": system(stamp), "tools": tools, "max_tokens": 8, **fields}
            async with sdk.messages.stream(model=MODEL, messages=messages, **asked) as events:
                usage = (await events.get_final_message()).usage
            return usage.input_tokens + usage.cache_read_input_tokens, usage.cache_read_input_tokens

        yield ask


async def test_a_turn_computes_only_what_is_new(ask):
    first, _ = await ask(opening("Write a poem.", **MARK), tools=[PLACEHOLDER, *TOOLS])
    turns = [*opening("Write a poem."), call("Read", "t1"), result("t1", "A poem.", **MARK)]
    second, cached = await ask(turns, tools=[PLACEHOLDER, *TOOLS])
    assert cached >= 0.99 * first
    # The client looks up a tool, lists it from then on, and writes what was blocks as texts.
    reference = [{"type": "tool_reference", "tool_name": "Fetch"}]
    turns = [*turns[:-1], result("t1", [text("A poem.")])]
    turns += [call("ToolSearch", "t2"), result("t2", reference)]
    third, cached = await ask(turns, tools=[PLACEHOLDER, TOOLS[0], FETCH, *TOOLS[1:]])
    assert cached >= 0.99 * second
    turns += [call("Fetch", "t3"), result("t3", "Gone.", is_error=True)]
    turns.append({"role": "system", "content": [text("The file was cut.")]})
    _, cached = await ask(turns, tools=[PLACEHOLDER, TOOLS[0], FETCH, *TOOLS[1:]])
    assert cached >= 0.99 * third


async def test_another_session_shares_tools_and_system(ask):
    nothing, _ = await ask([{"role": "user", "content": ""}])
    await ask(opening("Write a poem."), stamp="111")
    _, cached = await ask(opening("Sing a song."), stamp="222")
    assert cached >= nothing - 16  # what opens the turns


async def test_a_title_beside_a_turn_does_not_cost_it_its_cache(ask):
    schema = {"type": "object", "properties": {"title": {"type": "string", "maxLength": 9}}}
    form = {"format": {"type": "json_schema", "schema": schema}}
    title = [{"role": "user", "content": "Name this session in a few words."}]
    (first, _), _ = await asyncio.gather(
        ask(opening("Draw a map.")),
        ask(title, stamp="333", tools=[], output_config=form, max_tokens=24),
    )
    turns = [*opening("Draw a map."), call("Read", "t1"), result("t1", "A map.")]
    _, cached = await ask(turns)
    assert cached >= 0.99 * first
