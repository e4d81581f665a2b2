"""A format is chosen by what the chat template says, and anybody can add one."""

from __future__ import annotations

import sys

import pytest

from lmx_kernel.text.formats import CallEnded, CallStarted, Text, find_format, offered_tools
from lmx_kernel.types import ChatPrompt, GenerationRequest, TextPrompt, Tool, ToolChoice

TOOL = Tool(name="f")

MODULE = """
from lmx_kernel.text.formats.chat_format import ChatFormat
from lmx_kernel.text.formats.json_reader import read_calls

class Format(ChatFormat):
    name = "{name}"
    signs = {signs}
    openings = ("CALL!",)

    def read_call(self, reader, mark, tools):
        yield from read_calls(reader)
"""


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Return a function that installs a distribution with one format."""
    monkeypatch.syspath_prepend(tmp_path)

    def add(name, source):
        (tmp_path / f"fmt_{name}.py").write_text(source)
        info = tmp_path / f"fmt_{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: fmt-{name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[lmx.formats]\n{name} = fmt_{name}:Format\n")

    yield add
    for module in [module for module in sys.modules if module.startswith("fmt_")]:
        del sys.modules[module]


def test_a_model_without_template_answers_in_plain_text():
    parser = find_format(None).parser("", [TOOL])
    assert [*parser.feed("<think>"), *parser.flush()] == [Text("<think>")]


def test_a_format_reads_no_reasoning_unless_it_declares_marks(install):
    install("shout", MODULE.format(name="shout", signs=("CALL!",)))
    found = find_format("CALL! {{ x }}")
    assert found.thought("<think>") is None
    parser = found.parser("<think>", [TOOL])
    pieces = [*parser.feed("<think>why</think>So."), *parser.flush()]
    assert {type(piece) for piece in pieces} == {Text}


def test_a_third_party_adds_a_format(install):
    assert find_format("CALL! {{ x }}").name != "shout"
    install("shout", MODULE.format(name="shout", signs=("CALL!",)))
    found = find_format("CALL! {{ x }}")
    assert found.name == "shout"
    parser = found.parser("", [TOOL])
    pieces = [*parser.feed('I CALL!{"name": "f", "arguments": {}}'), *parser.flush()]
    assert [piece for piece in pieces if isinstance(piece, CallStarted | CallEnded)] == [
        CallStarted("f"),
        CallEnded(),
    ]


@pytest.mark.parametrize(("rough", "fine"), [("aa", "zz"), ("zz", "aa")])
def test_the_format_that_fits_best_is_taken_whatever_its_name(install, rough, fine):
    install(rough, MODULE.format(name=rough, signs=("CALL!",)))
    install(fine, MODULE.format(name=fine, signs=("CALL!", "ARGS!")))
    assert find_format("CALL! ARGS!").name == fine
    assert find_format("CALL!").name == rough


@pytest.mark.parametrize("source", ["raise SystemExit(1)", "import nothing_of_that_name", ""])
def test_a_broken_format_costs_no_other(install, source, capsys):
    install("broken", source)
    install("shout", MODULE.format(name="shout", signs=("CALL!",)))
    assert find_format("CALL!").name == "shout"
    assert "Traceback" in capsys.readouterr().err


def test_tools_are_offered_unless_none_may_be_called():
    def offered(prompt, mode="auto"):
        request = GenerationRequest(model="m", prompt=prompt, tool_choice=ToolChoice(mode=mode))
        return offered_tools(request)

    chat = ChatPrompt((), (TOOL,))
    assert offered(chat) == offered(chat, "required") == (TOOL,)
    assert offered(chat, "none") == offered(TextPrompt("x")) == ()
