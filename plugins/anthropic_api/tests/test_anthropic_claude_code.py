"""The unmodified Claude Code, headless and without any network but the server, which plays the
model. It is skipped where `make test` has not installed it.
"""

from __future__ import annotations

import asyncio
import json
import os
from asyncio.subprocess import DEVNULL, PIPE

import pytest
from lmx_anthropic_api.settings import AnthropicSettings
from lmx_anthropic_api.surface import AnthropicSurface

from lmx_kernel.errors import ContextOverflowError, QueueFullError, UnavailableError
from lmx_kernel.testing.client_programs import client_program
from lmx_kernel.testing.stub_kernel import MODEL, serving
from lmx_kernel.types import (
    Finished,
    PromptProgress,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    ToolCallStarted,
)

SWITCHES = {
    "ANTHROPIC_API_KEY": "any",
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    "CLAUDE_CODE_MAX_CONTEXT_TOKENS": "65536",
    "DISABLE_TELEMETRY": "1",
}
OPTIONS = ("--permission-mode", "acceptEdits", "--allowedTools", "Bash,Read,Write,Edit")


def says(*events, reason="stop"):
    def play(answer):
        answer.admit(12_000)
        answer.start()
        answer.receive(PromptProgress(0, 12_000, 12_000, 0))
        for event in events:
            answer.receive(event)
        answer.receive(TextDelta(0, "", (1, 2, 3)))
        answer.receive(Finished(0, reason))
        answer.end("ok")

    return play


def runs(*commands):
    """Return a play that thinks, and calls the shell for each command."""
    calls = []
    for index, command in enumerate(commands):
        arguments = json.dumps({"command": command, "description": "Does it"})
        calls.append(ToolCallStarted(0, index, f"call_{index}", "Bash"))
        calls += [ToolCallDelta(0, index, part) for part in (arguments[:9], arguments[9:])]
    thought = ReasoningDelta(0, "It wants a file.")
    return says(thought, TextDelta(0, "I do it.", ()), *calls, reason="tool_calls")


def fails(error):
    def play(answer):
        answer.admit(12_000)
        answer.start()
        answer.receive(TextDelta(0, "Half of ", (1,)))
        answer.end(error.code, error)

    return play


def refuses(error):
    def play(answer):
        raise error

    return play


DONE = says(TextDelta(0, "It is done.", ()))


@pytest.fixture
async def claude(kernel, tmp_path):
    """Return a function that has a prompt answered by plays, and returns the result."""
    program = client_program("claude")
    surface = AnthropicSurface(kernel, AnthropicSettings())

    async def claude(*plays):
        left = list(plays)

        def play(answer):
            left.pop(0)(answer)

        kernel.play = play
        command = (program, "-p", "Make a file.", "--model", MODEL, "--output-format", "json")
        async with serving(surface) as url:
            process = await asyncio.create_subprocess_exec(
                *command,
                *OPTIONS,
                cwd=tmp_path,
                env={
                    **SWITCHES,
                    "HOME": str(tmp_path / "home"),
                    "PATH": os.environ["PATH"],
                    "ANTHROPIC_BASE_URL": url,
                },
                stdin=DEVNULL,
                stdout=PIPE,
                stderr=PIPE,
            )
            out, err = await process.communicate()
        assert not left, (out, err)
        return json.loads(out)

    return claude


async def test_a_tool_is_called_and_its_result_comes_back(claude, kernel, tmp_path):
    result = await claude(runs("echo one > one.txt; cat one.txt", "echo two > two.txt"), DONE)
    assert (result["result"], result["is_error"]) == ("It is done.", False)
    assert (tmp_path / "one.txt").read_text() == "one\n"
    assert (tmp_path / "two.txt").exists()
    first, second = (answer.request.prompt for answer in kernel.answers)
    added = second.messages[len(first.messages) :]
    assert [message.role for message in added] == ["assistant", "tool", "tool"]
    assert (added[0].reasoning, added[1].text) == ("It wants a file.", "one")
    # Nothing that was there before has changed, so that only this is computed.
    assert second.messages[: len(first.messages)] == first.messages
    assert second.tools == first.tools
    assert "x-anthropic-billing-header" not in first.messages[0].text


async def test_a_tool_that_was_looked_up_is_added_at_the_end(claude, kernel):
    query = json.dumps({"query": "select:WebFetch", "max_results": 5})
    look_up = (ToolCallStarted(0, 0, "call_0", "ToolSearch"), ToolCallDelta(0, 0, query))
    await claude(says(*look_up, reason="tool_calls"), DONE)
    first, second = (answer.request.prompt for answer in kernel.answers)
    assert "WebFetch" not in {tool.name for tool in first.tools}
    assert "WebFetch" in {tool.name for tool in second.tools if tool.hidden}
    presented = [[tool for tool in one.tools if not tool.hidden] for one in (first, second)]
    assert presented[0] == presented[1]
    assert second.messages[: len(first.messages)] == first.messages
    result = next(message for message in second.messages if message.role == "tool")
    assert '{"name": "WebFetch", "description": "' in result.text


async def test_a_stream_that_fails_is_asked_for_again(claude):
    result = await claude(fails(UnavailableError("the server stops")), DONE)
    assert "It is done." in result["result"]


async def test_it_waits_for_a_full_queue(claude):
    result = await claude(refuses(QueueFullError("full", retry_after_s=1)), DONE)
    assert result["result"] == "It is done."


async def test_it_understands_an_overflow(claude):
    error = ContextOverflowError("far", figures={"tokens": 90_000, "limit": 8192})
    result = await claude(refuses(error))
    assert result["is_error"]
    assert "limit 8192" in result["result"]
