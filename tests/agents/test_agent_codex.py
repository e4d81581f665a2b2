"""Codex, headless, through `/v1/responses`."""

from __future__ import annotations

import pytest
from agent_run import call, run

from lmx_kernel.testing.client_programs import client_program
from lmx_kernel.testing.fake_model import FakeModel

ASKED = "Please make the file and count it."
ENDS = "The file has two lines."
CONFIG = """
model = "player"
model_provider = "lmx"
model_context_window = 400000
[model_providers.lmx]
name = "LMX"
base_url = "{url}/v1"
wire_api = "responses"
env_key = "LMX_KEY"
stream_idle_timeout_ms = 15000
"""


@pytest.fixture
def codex(folder):
    """Return a function that lets Codex take one turn at a server."""
    program = client_program("codex")

    async def turn(url):
        home = folder.parent / "codex"
        home.mkdir()
        (home / "config.toml").write_text(CONFIG.format(url=url))
        options = ["--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox"]
        return await run(
            [program, "exec", *options, ASKED], folder, CODEX_HOME=str(home), LMX_KEY="dummy"
        )

    return turn


def script(think="", **fields):
    """A model that writes a file, counts its lines and says how many there are."""
    write = call("exec_command", cmd="printf 'one\\ntwo\\n' > poem.txt; echo WRITTEN-$((1+1))")
    count = call("exec_command", cmd="echo LINES-$(wc -l < poem.txt)")
    replies = ((ASKED, think + write), ("WRITTEN-2", think + count), ("LINES-2", think + ENDS))
    return FakeModel(context_length=400_000, replies=replies, **fields)


def check(turn, folder):
    assert turn.status == 0, turn.err
    assert turn.out.strip().endswith(ENDS)
    assert (folder / "poem.txt").read_text() == "one\ntwo\n"


async def test_a_file_is_written_and_a_command_run(codex, play, folder):
    async with play(script()) as url:
        check(await codex(url), folder)


async def test_the_same_with_thoughts(codex, play, folder):
    async with play(script(think="<think>Let me see.</think>")) as url:
        check(await codex(url), folder)


async def test_two_tools_at_once(codex, play, folder):
    write = call("exec_command", cmd="printf 'one\\ntwo\\n' > poem.txt")
    echo = call("exec_command", cmd="echo SECOND-$((1+1))")
    replies = ((ASKED, f"{write}\n{echo}"), ("SECOND-2", ENDS))
    async with play(FakeModel(context_length=400_000, replies=replies)) as url:
        check(await codex(url), folder)


async def test_the_worker_dies_in_the_middle_of_a_call(codex, play, folder):
    async with play(script(crash_at=60)) as url:
        check(await codex(url), folder)


async def test_it_waits_through_a_long_prefill(codex, play, folder):
    """Longer than its patience for a silent stream: it counts events, and no comments."""
    async with play(script(prefill_tokens_per_s=2000)) as url:
        check(await codex(url), folder)


async def test_an_error_in_the_middle_of_a_stream_is_told(codex, play, folder):
    async with play(script(sour=ASKED)) as url:
        turn = await codex(url)
    assert turn.status != 0
    assert not (folder / "poem.txt").exists()
