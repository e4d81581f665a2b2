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
}
PLUGINS = ("lmx_router_rules.plugin", "lmx_openai_api.plugin", "lmx_admin_api.plugin")
PROMPT = "Write a Python function that sorts a list of names by their last letters, please."


@pytest.fixture
def config(tmp_path):
    """Return a config with rules and four models."""
    write_fake_models(tmp_path, SCRIPTS)
    return write_config(tmp_path, PLUGINS, RULES)


@pytest.fixture
def route(config):
    """Return a function that runs the command."""

    async def run(*arguments, output=json.loads):
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "lmx_kernel", "route", *arguments),
            *("--config", str(config)),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, "LMX_HOME": str(config.parent), "COLUMNS": "200"},
        )
        out, errors = await process.communicate()
        assert process.returncode == 0, errors.decode()
        return output(out.decode())

    return run


async def test_it_tells_the_rule_the_model_and_who_was_passed_over(route):
    told = await route(PROMPT, "--json")
    skipped = {one["model"]: one["reason"] for one in told["skipped"]}
    assert (told["task"], told["rule"], told["model"]) == ("code", "coders", "coder")
    assert skipped["gone"] == "not installed"
    assert skipped["huge"].startswith("does not fit: 1.86 GiB are needed")
    assert "do not fit its context of 16" in skipped["tight"]
    assert told["is_live"] is False


async def test_it_is_readable(route):
    text = await route(PROMPT, output=str)
    assert text.startswith("coder, by rules/coders (task code)\n")
    assert "No daemon answers" in text
    assert "not installed" in text


async def test_it_takes_what_a_client_would_send(route):
    assert (await route("hello", "--tools", "--json"))["task"] == "tools"
    assert (await route("hello", "--structured", "--json"))["task"] == "extraction"
    assert (await route("hello", "--model", "small", "--json"))["router"] == ""
    red = await route("hello", "--header", "X-Team: red", "--key", "bot", "--json")
    assert red["rule"] == "team"


async def test_a_prompt_may_begin_with_a_dash(route):
    assert (await route("- what is this?", "--json"))["task"] == "chat"


async def test_a_model_that_cannot_answer_such_a_request_is_not_said_to(config, route):
    write_fake_models(config.parent, {"vectors": FakeModel(embeds=True)})
    told = await route("hello", "--model", "vectors", "--json")
    assert (told["model"], told["skipped"][0]["reason"]) == ("", "makes embeddings only")


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
        told = await route("hello", "--model", "later", "--json")
    assert told["model"] == "small"


async def test_a_running_daemon_says_what_its_models_do(config, route):
    body = {"model": "small", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 1}
    async with running_daemon(config) as daemon:
        async with httpx2.AsyncClient(base_url=daemon.url, timeout=60) as http:
            (await http.post("/v1/chat/completions", json=body)).raise_for_status()
        told = await route("hello", "--json")
    assert told["is_live"] is True
    assert (told["rule"], told["model"]) == ("default", "small")
