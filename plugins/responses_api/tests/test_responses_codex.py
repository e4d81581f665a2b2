"""Codex itself, headless, in a home of its own and without any outside network."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess

import pytest

from lmx_kernel.errors import InsufficientMemoryError, QueueFullError
from lmx_kernel.testing.client_programs import client_program
from lmx_kernel.testing.stub_kernel import MODEL
from lmx_kernel.types import Finished

CONFIG = """
model = "{model}"
model_provider = "lmx"
model_context_window = 32768
[model_providers.lmx]
name = "LMX"
base_url = "{url}/v1"
wire_api = "responses"
env_key = "LMX_KEY"
stream_idle_timeout_ms = {idle_ms}
"""


@pytest.fixture
def codex(api, tmp_path):
    """Return a function that has Codex do a task, and returns how it ended."""

    program = client_program("codex")

    async def run(idle_ms=60_000):
        home, work = tmp_path / "home", tmp_path / "work"
        home.mkdir()
        work.mkdir()
        url = str(api.http.base_url).rstrip("/")
        config = CONFIG.format(model=MODEL, url=url, idle_ms=idle_ms)
        (home / "config.toml").write_text(config)
        env = {
            "PATH": os.environ["PATH"],
            **dict.fromkeys(("HOME", "CODEX_HOME"), str(home)),
            "LMX_KEY": "any",
        }
        options = ("--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox")
        return await asyncio.to_thread(
            subprocess.run,
            [program, "exec", *options, "Make the file"],
            cwd=work,
            env=env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
        )

    return run


def plays(api, *calls, then):
    """Let the model call, and do ``then`` when the results are there."""

    def play(live):
        if live.request.prompt.messages[-1].role == "tool":
            then(live)
        else:
            api.play(*api.thoughts("Hm."), *calls, reason="tool_calls")(live)

    return play


async def test_a_command_is_run_and_two_tools_are_called_at_once(api, codex, tmp_path):
    run = api.call("exec_command", json.dumps({"cmd": "echo hi > made.txt"}))
    close = api.call("close_agent", json.dumps({"target": "nobody"}), index=1)
    api.kernel.play = plays(api, *run, *close, then=api.play(*api.texts("All ", "done.")))
    done = await codex()
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("All done.")
    assert (tmp_path / "work" / "made.txt").read_text() == "hi\n"
    first, second = (answer.request.prompt for answer in api.kernel.answers)
    assert second.messages[: len(first.messages)] == first.messages
    assert second.tools == first.tools
    said, *results = second.messages[len(first.messages) :]
    assert said.reasoning == "Hm."
    assert [message.role for message in results] == ["tool", "tool"]
    assert "unsupported call" not in results[1].text


async def test_it_waits_for_a_long_prefill(api, codex):
    async def finish_later(live):
        await asyncio.sleep(6)  # three times the silence that it bears
        live.start()
        for event in (*api.texts("Done."), Finished(0, "stop")):
            live.receive(event)
        live.end("ok")

    tasks = []

    def play(live):
        live.admit(7)
        tasks.append(asyncio.create_task(finish_later(live)))

    api.kernel.play = play
    done = await codex(idle_ms=2000)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("Done.")
    assert len(tasks) == 1


async def test_it_waits_for_a_full_queue(api, codex):
    def play(live):
        if len(api.kernel.answers) == 1:
            raise QueueFullError("full", retry_after_s=1)
        api.play(*api.texts("Done."))(live)

    api.kernel.play = play
    done = await codex()
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("Done.")
    assert len(api.kernel.answers) == 2


async def test_a_failure_is_shown_and_not_retried(api, codex):
    error = InsufficientMemoryError("there is no memory for that")
    api.kernel.play = api.play(*api.texts("Hel"), error=error)
    done = await codex()
    assert done.returncode == 1
    assert "there is no memory for that" in done.stderr
    assert len(api.kernel.answers) == 1
