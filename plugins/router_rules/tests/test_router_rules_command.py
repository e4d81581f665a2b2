"""``lmx route``."""

from __future__ import annotations

import asyncio
import json
import os
import sys

import httpx2
import pytest

from lmx_kernel.testing.fake_model import FakeModel
from lmx_kernel.testing.harness import running_daemon, write_config, write_fake_models

RULES = """
[memory]
budget_bytes = 1_000_000_000
[[router_rules.rules]]
name = "coders"
task = ["code"]
models = ["gone", "huge", "tight", "coder"]
[[router_rules.rules]]
name = "team"
headers = {x-team = "red"}
keys = ["bot"]
models = ["coder"]
"""
SCRIPTS = {
    "coder": FakeModel(),
    "huge": FakeModel(memory_bytes=2_000_000_000),
    "small": FakeModel(),
    "tight": FakeModel(context_length=16),
    "vectors": FakeModel(embeds=True),
}
PLUGINS = ("lmx_router_rules.plugin", "lmx_openai_api.plugin", "lmx_admin_api.plugin")
PROMPT = "Write a Python function that sorts a list of names by their last letters, please."


@pytest.fixture
def config(tmp_path):
    """Return a config with rules and five models."""
    write_fake_models(tmp_path, SCRIPTS)
    return write_config(tmp_path, PLUGINS, RULES)


@pytest.fixture
def run(config):
    """Return a function that runs the command, and returns exit status, output and errors."""

    async def run(*arguments):
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "lmx_kernel", "route", *arguments),
            *("--config", str(config)),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, "LMX_HOME": str(config.parent), "COLUMNS": "200"},
        )
        out, errors = await process.communicate()
        return process.returncode, out.decode(), errors.decode()

    return run


@pytest.fixture
def route(run):
    """Return a function that runs the command for JSON."""

    async def route(*arguments):
        status, out, errors = await run(*arguments, "--json")
        assert status == 0, errors
        return json.loads(out)

    return route


@pytest.fixture
async def daemon(config):
    """A daemon for the command to ask."""
    async with running_daemon(config) as daemon:
        yield daemon


async def test_it_tells_the_rule_the_model_and_who_was_passed_over(daemon, run, route):
    told = await route(PROMPT)
    skipped = {one["model"]: one["reason"] for one in told["skipped"]}
    assert (told["task"], told["rule"], told["model"]) == ("code", "coders", "coder")
    assert told["chain"] == ["huge", "tight", "coder"]
    assert skipped["gone"] == "not installed"
    assert skipped["huge"].startswith("does not fit: 1.86 GiB are needed")
    assert "do not fit its maximum context length of 16" in skipped["tight"]

    status, text, _ = await run(PROMPT)
    assert status == 0
    assert text.startswith("coder, by rules/coders (task code)\n")
    assert "not installed" in text


async def test_it_takes_what_a_client_would_send(daemon, route):
    assert (await route("hello", "--tools"))["task"] == "tools"
    assert (await route("hello", "--structured"))["task"] == "extraction"
    assert (await route("hello", "--model", "small"))["router"] == ""
    assert (await route("- what is this?"))["task"] == "chat"
    red = await route("hello", "--header", "X-Team: red", "--key", "bot")
    assert red["rule"] == "team"


async def test_a_model_that_cannot_answer_such_a_request_is_not_said_to(daemon, route):
    told = await route("hello", "--model", "vectors")
    assert told["model"] == ""
    assert "makes embeddings only" in told["skipped"][0]["reason"]


async def test_a_model_that_begins_too_late_is_told(config, route):
    write_fake_models(config.parent, {"slow": FakeModel(load_s=0.5)})
    with config.open("a") as file:
        file.write('[queue]\nmax_wait_s = 0.2\n[router_rules.aliases]\nlater = ["slow", "small"]\n')
    async with (
        running_daemon(config) as daemon,
        httpx2.AsyncClient(base_url=daemon.url, timeout=60) as http,
    ):
        (await http.post("/admin/models/load", json={"model": "slow"})).raise_for_status()
        (await http.post("/admin/models/unload", json={"model": "slow"})).raise_for_status()
        told = await route("hello", "--model", "later")
    assert told["model"] == "small"


async def test_loaded_models_come_first_where_no_rule_holds(daemon, route):
    body = {"model": "small", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 1}
    async with httpx2.AsyncClient(base_url=daemon.url, timeout=60) as http:
        (await http.post("/v1/chat/completions", json=body)).raise_for_status()
    told = await route("hello")
    assert (told["rule"], told["model"]) == ("default", "small")


async def test_without_a_daemon_that_is_said(run):
    status, out, errors = await run("hello")
    assert (status, out) == (1, "")
    assert "start one with `lmx serve`" in errors
