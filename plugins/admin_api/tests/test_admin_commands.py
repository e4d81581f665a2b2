"""The command line, as processes of their own against a daemon."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
from contextlib import suppress
from types import SimpleNamespace

import pytest

from lmx_kernel.testing.fake_model import SUFFIX, FakeModel

ALL = {
    "m": FakeModel(memory_bytes=2**30, load_s=0.1),
    "giant": FakeModel(memory_bytes=2**60),
    "broken": FakeModel(load_error="no such tensor"),
}


async def test_a_model_is_loaded_shown_unloaded_and_deleted(serve_daemon):
    async with serve_daemon(ALL, "[memory]\nbudget_bytes = 3000000000\n") as daemon:
        estimate = await daemon.lmx("estimate", "m")
        assert (estimate.status, estimate.err) == (0, "")
        assert "1.00 GiB" in estimate.out
        assert "It fits." in estimate.out
        loaded = await daemon.lmx("load", "m", "--context-length", "64", "--ttl", "90", "--pin")
        assert loaded.status == 0
        assert "m is ready: context 64" in loaded.out
        assert "1 min 30 s" in loaded.out
        status = await daemon.lmx("status")
        assert "addresses: http://127.0.0.1:" in status.out
        assert "memory: 1.00 GiB reserved" in status.out
        assert "ready" in status.out
        assert "pinned" in status.out
        refused = await daemon.lmx("rm", "m")
        assert (refused.status, refused.err) == (1, "m is loaded; unload it first\n")
        assert (await daemon.lmx("unload", "m")).out == "m is unloaded.\n"
        assert (await daemon.lmx("rm", "m")).out == "m is deleted.\n"
        assert not (daemon.home / f"m{SUFFIX}").exists()


async def test_what_goes_wrong_is_told_in_the_daemons_own_words(serve_daemon):
    async with serve_daemon(ALL) as daemon:
        broken, missing, giant, bench = await asyncio.gather(
            daemon.lmx("load", "broken"),
            daemon.lmx("unload", "none"),
            daemon.lmx("estimate", "giant"),
            daemon.lmx("bench", "broken", "--rounds", "1"),
        )
        assert (broken.status, broken.out, broken.err) == (1, "", "no such tensor\n")
        assert missing.status == 1
        assert missing.err.startswith('Model "none" was not found.')
        assert giant.status == 1
        assert "It does not fit: " in giant.out
        assert (bench.status, bench.err) == (1, "no such tensor\n")


async def test_json_is_for_programs(serve_daemon):
    async with serve_daemon(ALL) as daemon:
        commands = [
            ("estimate", "m"),
            ("load", "m"),
            ("status",),
            ("bench", "m", "--max-tokens", "4", "--rounds", "1"),
            ("unload", "m"),
            ("rm", "m"),
        ]
        answers = {}
        for command in commands:
            outcome = await daemon.lmx(*command, "--json")
            assert (outcome.status, outcome.err) == (0, ""), command
            answers[command[0]] = json.loads(outcome.out)
        assert answers["estimate"]["fits"]
        assert answers["load"]["state"] == "ready"
        assert [one["id"] for one in answers["status"]["models"]] == ["m"]
        assert len(answers["status"]["addresses"]) == 1
        assert answers["bench"]["result"]["tokens_per_s"] > 0
        assert answers["unload"] == {"model": "m", "state": "unloaded"}
        assert answers["rm"] == {"model": "m", "state": "deleted", "left": []}
        lines = (await daemon.lmx("logs", "--event", "audit", "--json")).out.splitlines()
        assert [json.loads(line)["action"] for line in lines] == [
            *("load", "benchmark", "unload", "delete"),
        ]


async def test_whoever_leaves_a_load_leaves_it_running(serve_daemon):
    async with serve_daemon({"m": FakeModel(load_s=30.0)}) as daemon:
        loading = await daemon.start("load", "m")
        assert await daemon.state_of("m") == "loading"
        loading.send_signal(signal.SIGINT)
        async with asyncio.timeout(20):
            _, err = await loading.communicate()
        assert loading.returncode == 130
        assert err.decode() == "It goes on in the daemon; `lmx status` shows it.\n"
        assert await daemon.state_of("m") == "loading"


async def test_the_log_is_followed(serve_daemon):
    async with serve_daemon({"m": FakeModel()}) as daemon:
        await daemon.http.post("/admin/models/load", json={"model": "m"})
        following = await daemon.start("logs", "-f", "--event", "audit")
        async with asyncio.timeout(30):
            assert b"action=load target=m" in await following.stdout.readline()
            await daemon.http.post("/admin/models/unload", json={"model": "m"})
            assert b"action=unload target=m" in await following.stdout.readline()
            following.send_signal(signal.SIGINT)
            rest, err = await following.communicate()
        assert (rest, err, following.returncode) == (b"", b"", 0)


async def test_a_key_is_needed_where_there_is_one(serve_daemon, monkeypatch):
    async with serve_daemon({"m": FakeModel()}, '[server]\napi_key = "hush"\n') as daemon:
        refused = await daemon.lmx("status")
        assert refused.status == 1
        assert "API key" in refused.err
        monkeypatch.setenv("LMX_API_KEY", "hush")
        assert (await daemon.lmx("status")).status == 0


async def test_without_a_daemon_that_is_said(serve_daemon):
    async with serve_daemon({}) as daemon:
        await daemon.daemon.stop()
        for command in (("status",), ("bench", "m"), ("logs",)):
            outcome = await daemon.lmx(*command)
            assert outcome.status == 1
            assert "start one with `lmx serve`" in outcome.err


@pytest.fixture
def terminal():
    """Return the end of a terminal, and a way to wait for what is shown on it."""
    ours, theirs = os.openpty()
    os.set_blocking(ours, False)
    shown = ""

    async def until(pattern):
        nonlocal shown
        async with asyncio.timeout(30):
            while not (found := re.search(pattern, shown)):
                await asyncio.sleep(0.02)  # a terminal cannot be awaited
                with suppress(BlockingIOError):
                    shown += os.read(ours, 4096).decode()
        before, shown = shown[: found.start()], shown[found.end() :]
        return before

    yield SimpleNamespace(end=theirs, until=until)
    os.close(ours)
    os.close(theirs)


@pytest.mark.parametrize("name", ["m", "M"])
async def test_a_terminal_shows_how_far_a_load_is(serve_daemon, terminal, name):
    async with serve_daemon({"m": FakeModel(load_s=2.0)}) as daemon:
        loading = await daemon.start("load", name, stderr=terminal.end)
        await terminal.until("[1-9]0%")
        out, _ = await loading.communicate()
        assert (loading.returncode, out[:11]) == (0, b"m is ready:")


async def test_the_screen_is_refreshed_until_one_leaves(serve_daemon, terminal):
    async with serve_daemon({"m": FakeModel()}) as daemon:
        watching = await daemon.start("status", "--watch", stdout=terminal.end)
        await terminal.until("memory: 0 MiB reserved")
        await daemon.http.post("/admin/models/load", json={"model": "m"})
        await terminal.until("ready")
        watching.send_signal(signal.SIGINT)
        _, err = await watching.communicate()
        assert (err, watching.returncode) == (b"", 0)
