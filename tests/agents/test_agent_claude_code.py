"""Claude Code, headless, through `/v1/messages`."""

from __future__ import annotations

import json

import pytest
from agent_run import call, run

from lmx_kernel.testing.client_programs import client_program
from lmx_kernel.testing.fake_model import FakeModel

ASKED = "Please make the file and count it."
WRITES, COUNTS, ENDS = "File created successfully", "LINES-2", "The file has two lines."


@pytest.fixture
def claude(folder):
    """Return a function that lets Claude Code take one turn at a server."""
    program = client_program("claude")

    async def turn(url, *options, **environ):
        command = [program, "-p", ASKED, "--model", "player", "--permission-mode", "acceptEdits"]
        return await run(
            [*command, "--allowedTools", "Bash,Read,Write,Edit", "--output-format", "json"],
            folder,
            ANTHROPIC_BASE_URL=url,
            ANTHROPIC_API_KEY="dummy",
            DISABLE_TELEMETRY="1",
            CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC="1",
            CLAUDE_CODE_MAX_CONTEXT_TOKENS="400000",
            CLAUDE_CODE_MAX_OUTPUT_TOKENS="4096",
            **environ,
        )

    return turn


def script(folder, think="", **fields):
    """A model that writes a file, counts its lines and says how many there are."""
    write = call("Write", file_path=str(folder / "poem.txt"), content="one\ntwo\n")
    count = call("Bash", command="echo LINES-$(wc -l < poem.txt)", description="Count lines")
    replies = ((ASKED, think + write), (WRITES, think + count), (COUNTS, think + ENDS))
    return FakeModel(context_length=400_000, replies=replies, **fields)


async def check(turn, folder):
    assert turn.status == 0, turn.err
    assert json.loads(turn.out)["result"] == ENDS
    assert (folder / "poem.txt").read_text() == "one\ntwo\n"


async def test_a_file_is_written_and_a_command_run(claude, play, folder):
    async with play(script(folder)) as url:
        await check(await claude(url), folder)


async def test_the_same_with_thoughts(claude, play, folder):
    async with play(script(folder, think="<think>Let me see.</think>")) as url:
        await check(await claude(url), folder)


async def test_two_tools_at_once(claude, play, folder):
    write = call("Write", file_path=str(folder / "poem.txt"), content="one\ntwo\n")
    echo = call("Bash", command="echo SECOND-$((1+1))", description="Say something")
    replies = ((ASKED, f"{write}\n{echo}"), ("SECOND-2", ENDS))
    async with play(FakeModel(context_length=400_000, replies=replies)) as url:
        await check(await claude(url), folder)


async def test_the_worker_dies_in_the_middle_of_a_call(claude, play, folder):
    async with play(script(folder, crash_at=60)) as url:
        await check(await claude(url), folder)


async def test_an_error_in_the_middle_of_a_stream_is_told(claude, play, folder):
    async with play(script(folder, sour=ASKED)) as url:
        turn = await claude(url, CLAUDE_CODE_MAX_RETRIES="1")
    assert turn.status != 0 or json.loads(turn.out)["is_error"]
    assert not (folder / "poem.txt").exists()
