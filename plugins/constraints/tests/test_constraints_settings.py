"""The section ``[constraints]``, from the file to the mask."""

from __future__ import annotations

import json

import pytest
from lmx_constraints.engine import GrammarEngine
from mask_driver import TOKENIZER, Format, may_say, request, say, schema_of, tool

from lmx_kernel.testing.fake_model import FakeModel
from lmx_kernel.testing.harness import ask, running_kernel
from lmx_kernel.types import TextDelta, ToolChoice

LISTED = {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}
CLOSED = LISTED | {"additionalProperties": False}


@pytest.fixture(params=[False, True])
def made(request):
    """An engine, and whether objects are open to it."""
    engine = GrammarEngine(TOKENIZER, Format(), {"open_objects": request.param})
    yield engine, request.param
    engine.close()


@pytest.mark.parametrize("schema", [LISTED, CLOSED])
def test_an_answer_takes_further_properties_where_they_are_open(made, schema):
    engine, is_open = made
    mask = engine.plan(request(constraint=schema_of(schema)), "").mask()
    say(mask, '{"x": 1')
    assert may_say(mask, ",") is (is_open and schema is LISTED)


def test_a_call_takes_further_arguments_where_they_are_open(made):
    engine, is_open = made
    asked = request(tools=(tool(LISTED),), tool_choice=ToolChoice(mode="required"))
    mask = engine.plan(asked, "").mask()
    say(mask, '<tool_call>\n{"name": "move", "arguments": {"x": 1')
    assert may_say(mask, ",") is is_open


@pytest.mark.parametrize("is_open", [False, True])
async def test_the_config_reaches_the_worker(tmp_path, is_open):
    says = '{"x": 1, "y": 2}'
    config = f"[constraints]\nopen_objects = {str(is_open).lower()}\n"
    plugins = ("lmx_constraints.plugin",)
    async with running_kernel(tmp_path, {"m": FakeModel(says=says)}, config, plugins) as stage:
        with await stage.kernel.generate(ask("m", constraint=schema_of(LISTED))) as answer:
            events = [event async for event in answer]
    text = "".join(event.text for event in events if isinstance(event, TextDelta))
    assert ("y" in json.loads(text)) is is_open
