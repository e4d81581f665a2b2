"""Structured output is a plugin: how it is found, and what is refused without it."""

from __future__ import annotations

import os
import sys
from importlib.metadata import EntryPoint

import pytest

from lmx_kernel.errors import InvalidRequestError
from lmx_kernel.testing.fake_engine import FakeTokenizer
from lmx_kernel.testing.fake_model import FakeModel
from lmx_kernel.testing.harness import running_kernel
from lmx_kernel.text.constraints import find_engine, is_constrained, lookup
from lmx_kernel.text.formats import PlainFormat
from lmx_kernel.types import (
    ChatPrompt,
    Constraint,
    Finished,
    GenerationRequest,
    Message,
    TextDelta,
    TextPart,
    TextPrompt,
    Tool,
    ToolCallStarted,
    ToolChoice,
)

LETTER = Constraint("regex", "[a-z]", param="guided_regex")
REQUIRED = ToolChoice(mode="required")

MODULE = """
class Mask:
    problem = ""
    is_complete = False

    def fill(self, row):
        bits = memoryview(row).cast("B")
        bits[:] = bytes(len(bits))
        bits[{token} // 8] = 1 << {token} % 8
        return True

    def accept(self, tokens):
        self.is_complete = self.is_complete or bool(tokens)

    def forced(self):
        return []

class Plan:
    def mask(self):
        return Mask()

class Engine:
    def __init__(self, tokenizer, chat_format):
        pass

    def plan(self, request, prompt):
        return Plan()
"""


class ReasoningFormat(PlainFormat):
    """Reasons first."""

    def thought(self, prompt):
        return "<think>", "</think>"


def tool(**fields):
    return Tool(name="edit", **fields)


def request(tools=(), **fields):
    prompt = ChatPrompt((Message("user", (TextPart("hi"),)),), tuple(tools))
    return GenerationRequest(model="m", prompt=prompt, **fields)


def engine(chat_format=None):
    return find_engine(FakeTokenizer(), chat_format or PlainFormat())


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Return a function that installs a distribution with one engine, here and for workers."""
    packages = tmp_path / "packages"
    packages.mkdir()
    monkeypatch.syspath_prepend(packages)
    monkeypatch.setenv("PYTHONPATH", str(packages), prepend=os.pathsep)

    def add(name, source, distribution=None):
        (packages / f"engine_{name}.py").write_text(source)
        distribution = distribution or f"engine-{name}"
        info = packages / f"{distribution.replace('-', '_')}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n"
        )
        (info / "entry_points.txt").write_text(
            f"[lmx.constraints]\n{name} = engine_{name}:Engine\n"
        )

    yield add
    for module in [module for module in sys.modules if module.startswith("engine_")]:
        del sys.modules[module]


@pytest.fixture
def without_engine(monkeypatch):
    monkeypatch.setattr(lookup, "entry_points", lambda group: [])


# --- which engine --------------------------------------------------------------------------------


def test_only_requests_that_ask_for_something_are_constrained():
    assert not is_constrained(request())
    assert not is_constrained(request([tool()], tool_choice=ToolChoice(mode="none")))
    assert not is_constrained(GenerationRequest(model="m", prompt=TextPrompt("x")))
    assert is_constrained(request(constraint=LETTER))
    assert is_constrained(request(reasoning_tokens=0))
    assert is_constrained(request([tool()]))
    assert is_constrained(request(tool_choice=REQUIRED))


def test_a_third_party_brings_an_engine(install):
    install("alpha", MODULE.format(token=65))
    mask = engine().plan(request(constraint=LETTER), "").mask()
    row = bytearray(32)
    assert mask.fill(row)
    assert row[65 // 8] == 1 << 65 % 8


def test_of_two_engines_the_first_by_name_is_taken(install):
    install("alpha", MODULE.format(token=65))
    install("aardvark", MODULE.format(token=66))
    assert type(engine()).__module__ == "engine_aardvark"


@pytest.mark.parametrize("source", ["raise SystemExit(1)", "import nothing_of_that_name", ""])
def test_a_broken_engine_costs_no_other(install, source, capsys):
    install("aardvark", source)
    install("alpha", MODULE.format(token=65))
    assert type(engine()).__module__ == "engine_alpha"
    assert "Traceback" in capsys.readouterr().err


# --- without an engine ---------------------------------------------------------------------------


@pytest.mark.usefixtures("without_engine")
@pytest.mark.parametrize(
    ("asked", "param", "message"),
    [
        ({"constraint": LETTER}, "guided_regex", "regex"),
        ({"tools": [tool()], "tool_choice": REQUIRED}, "tool_choice", "required"),
        ({"tools": [tool()], "tool_choice": ToolChoice(names=("edit",))}, "tool_choice", "some"),
        ({"tools": [tool(strict=True)]}, "tools", "strict"),
        ({"reasoning_tokens": 9}, None, "reasoning"),
    ],
)
def test_what_cannot_be_guaranteed_is_refused(asked, param, message):
    with pytest.raises(InvalidRequestError, match="no plugin for structured output") as caught:
        engine(ReasoningFormat()).plan(request(**asked), "")
    assert caught.value.param == param
    assert message in caught.value.message
    assert caught.value.status == 400


@pytest.mark.usefixtures("without_engine")
@pytest.mark.parametrize(
    "asked",
    [
        {"tools": [tool()]},
        {"tools": [tool()], "parallel_tool_calls": False},
        {"tools": [tool(strict=True)], "tool_choice": ToolChoice(mode="none")},
    ],
)
def test_calls_that_a_model_may_make_need_no_engine(asked):
    assert engine(ReasoningFormat()).plan(request(**asked), "") is None


@pytest.mark.usefixtures("without_engine")
def test_a_limit_of_reasoning_is_kept_by_a_model_that_never_reasons():
    assert engine().plan(request(reasoning_tokens=9), "") is None


# --- through a kernel ----------------------------------------------------------------------------


async def answer_of(stage, asked):
    with await stage.kernel.generate(asked) as answer:
        return [event async for event in answer]


async def test_an_engine_of_a_third_party_constrains_an_answer(tmp_path, install):
    install("alpha", MODULE.format(token=65))
    async with running_kernel(tmp_path, {"m": FakeModel(says="hello")}) as stage:
        free = await answer_of(stage, request())
        held = await answer_of(stage, request(constraint=LETTER))
    texts = [
        "".join(event.text for event in events if isinstance(event, TextDelta))
        for events in (free, held)
    ]
    assert texts == ["hello", "A"]
    assert isinstance(held[-1], Finished)


async def test_a_kernel_whose_engine_is_broken_still_answers_and_calls(tmp_path, install):
    """A worker finds it although the discovery of plugins is off; it stands in for the real one."""
    says = '<tool_call>\n{"name": "edit", "arguments": {"n": 1}}\n</tool_call>'
    install("llguidance", "import nothing_of_that_name", "lmx-plugin-constraints")
    async with running_kernel(tmp_path, {"m": FakeModel(says=says)}) as stage:
        with pytest.raises(InvalidRequestError, match="could not be loaded") as caught:
            await answer_of(stage, request(constraint=LETTER))
        assert caught.value.param == "guided_regex"
        events = await answer_of(stage, request([tool()]))
    assert [event.name for event in events if isinstance(event, ToolCallStarted)] == ["edit"]


SETTINGS_MODULE = """
class Engine:
    takes_settings = True

    def __init__(self, tokenizer, chat_format, settings):
        self.settings = settings
"""


def test_an_engine_that_takes_settings_gets_the_section_of_the_config(tmp_path, monkeypatch):
    (tmp_path / "told_engine.py").write_text(SETTINGS_MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    found = [EntryPoint("told", "told_engine:Engine", "lmx.constraints")]
    monkeypatch.setattr(lookup, "entry_points", lambda group: found)
    given = find_engine(FakeTokenizer(), PlainFormat(), {"open_objects": True})
    assert given.settings == {"open_objects": True}
