"""A whole daemon with fake models, from outside: HTTP, signals, exit statuses."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys

import httpx2 as httpx
import psutil
import pytest
from openai import APIError, AsyncOpenAI

from lmx_kernel.testing.fake_model import FakeModel
from lmx_kernel.testing.harness import (
    running_daemon,
    worker_processes,
    write_config,
    write_fake_models,
)

SURFACE = ("lmx_openai_api.plugin",)
SLOW = FakeModel(tokens_per_s=100, context_length=8192)


def configure(folder, scripts=None, config="", plugins=SURFACE):
    write_fake_models(folder, scripts or {"m": FakeModel()})
    return write_config(folder, plugins=plugins, config=config)


def client_of(daemon):
    return AsyncOpenAI(base_url=f"{daemon.url}/v1", api_key="any", max_retries=0)


async def stream(client, model="m", text="hi", on_text=None, **fields):
    """Return the text of a streamed answer."""
    shown = ""
    async with await client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": text}], stream=True, **fields
    ) as chunks:
        async for chunk in chunks:
            shown += chunk.choices[0].delta.content or ""
            if shown and on_text:
                on_text()
    return shown


def assert_counts(text, tokens):
    numbers = [int(word) for word in text.split()]
    assert len(numbers) == tokens
    assert numbers == [(numbers[0] + n) % 4096 for n in range(tokens)]


async def worker_pid(client, daemon, model="m"):
    response = await client.get(f"{daemon.url}/health/status")
    return {one["id"]: one["pid"] for one in response.json()["models"]}[model]


def run_lmx(*arguments, **env):
    return subprocess.run(
        [sys.executable, "-m", "lmx_kernel", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, **env},
        check=False,
    )


# --- start ---------------------------------------------------------------------------------------


async def test_the_daemon_says_where_it_is_and_what_to_try(tmp_path):
    async with running_daemon(configure(tmp_path)) as daemon:
        assert daemon.announced[0].startswith("LMX ")
        assert daemon.announced[1] == "Models: m"
        async with httpx.AsyncClient(timeout=60) as http:
            assert (await http.get(f"{daemon.url}/health")).json() == {"status": "ok"}


async def test_without_any_plugin_the_kernel_starts_and_says_so(tmp_path):
    config = tmp_path / "config.toml"
    config.write_text("[plugins]\ndiscover = false\n")
    async with running_daemon(config) as daemon:
        assert any("nothing to serve" in line for line in daemon.announced)
        async with httpx.AsyncClient(timeout=60) as http:
            assert (await http.get(f"{daemon.url}/health")).status_code == 200
            response = await http.get(f"{daemon.url}/v1/models")
            assert response.status_code == 404
            assert response.json()["error"]["message"]
        assert await daemon.stop() == 0


GUARD = """
import asyncio, sys
from pathlib import Path
import lmx_kernel.daemon.start
from lmx_kernel.kernel.assembly import assemble
from lmx_kernel.kernel.boot import boot

async def start(booted):
    kernel = assemble(booted).kernel
    booted.plugins.api_surfaces(kernel)
    booted.plugins.monitors(booted.settings)
    booted.plugins.lifespans(kernel)
    booted.plugins.job_kinds(kernel)

booted = boot(Path(sys.argv[1]))
asyncio.run(start(booted))
states = [status for status in booted.plugins.statuses if status.state != "active"]
assert booted.plugins.statuses and not states, states
heavy = "numpy transformers torch mlx mlx_lm llama_cpp huggingface_hub jinja2 llguidance".split()
print([name for name in heavy if name in sys.modules])
"""


def test_the_kernel_process_imports_no_engine(tmp_path):
    """With every plugin of this repository installed and asked for all that it registers."""
    config = tmp_path / "config.toml"
    config.write_text("")
    result = subprocess.run(
        [sys.executable, "-c", GUARD, str(config)], capture_output=True, text=True, check=False
    )
    assert (result.stdout.strip(), result.returncode) == ("[]", 0), result.stderr


BROKEN = {
    "syntax": ("[server\n", "config.toml:1"),
    "unknown section": ("[sevrer]\n", "config.toml:1: sevrer: unknown section"),
    "unknown key": ("[server]\nprot = 1\n", "config.toml:2: server.prot: unknown key"),
    "wrong type": ("[server]\n\nport = 'x'\n", "config.toml:3: server.port"),
    "out of range": ("[models]\nparallel = 0\n", "config.toml:2: models.parallel"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_bad_config_stops_the_start_with_file_line_and_key(tmp_path, case):
    text, expected = BROKEN[case]
    (tmp_path / "config.toml").write_text(text)
    result = run_lmx("serve", LMX_HOME=str(tmp_path))
    assert result.returncode == 78
    assert expected in result.stderr
    assert "Traceback" not in result.stderr


def test_all_errors_of_a_config_are_told_at_once(tmp_path):
    (tmp_path / "config.toml").write_text("[server]\nport = 'x'\n[models]\nparallel = 0\nx = 1\n")
    result = run_lmx("config", "check", LMX_HOME=str(tmp_path), LMX_QUEUE_MAX_WAITING="many")
    assert result.returncode == 78
    for expected in ("config.toml:2", "config.toml:4", "config.toml:5", "LMX_QUEUE_MAX_WAITING"):
        assert expected in result.stderr


def test_a_missing_required_plugin_stops_the_start(tmp_path):
    (tmp_path / "config.toml").write_text('[plugins]\nrequired = ["nowhere"]\n')
    result = run_lmx("serve", LMX_HOME=str(tmp_path))
    assert result.returncode == 78
    assert "nowhere: not installed" in result.stderr


def test_a_service_of_kubernetes_does_not_stop_the_start(tmp_path):
    (tmp_path / "config.toml").write_text("")
    variables = {"LMX_SERVER_PORT": "tcp://10.0.0.7:1234", "LMX_SERVER_SERVICE_HOST": "10.0.0.7"}
    result = run_lmx("config", "check", LMX_HOME=str(tmp_path), **variables)
    assert result.returncode == 0
    for name in variables:
        assert f'"variable":"{name}"' in result.stderr


def test_a_bind_to_the_network_without_a_key_is_refused(tmp_path):
    config = configure(tmp_path, config='[server]\nhost = "0.0.0.0"')
    result = run_lmx("serve", "--config", str(config), LMX_HOME=str(tmp_path))
    assert result.returncode == 78
    assert "api_key" in result.stderr


async def test_a_key_is_asked_for_everywhere_but_at_the_health_paths(tmp_path):
    async with (
        running_daemon(configure(tmp_path, config='[server]\napi_key = "sesame"')) as daemon,
        httpx.AsyncClient(base_url=daemon.url, timeout=60) as http,
    ):
        assert (await http.get("/health")).status_code == 200
        for path in ("/v1/models", "/health/status", "/nowhere"):
            assert (await http.get(path)).status_code == 401, path
        for headers in ({"authorization": "Bearer sesame"}, {"x-api-key": "sesame"}):
            assert (await http.get("/v1/models", headers=headers)).status_code == 200


# --- streams and workers -------------------------------------------------------------------------


async def test_an_sdk_stream_survives_the_death_of_its_worker(tmp_path):
    """Fault 1, through the real client: no error, no lost and no doubled text."""
    config = configure(tmp_path, {"m": SLOW, "other": SLOW})
    async with (
        running_daemon(config) as daemon,
        httpx.AsyncClient(timeout=60) as http,
        client_of(daemon) as client,
    ):
        await stream(client, max_tokens=1)
        pid = await worker_pid(http, daemon)
        kill = once(lambda: os.kill(pid, signal.SIGABRT))
        streams = [stream(client, text=str(n), max_tokens=30, on_text=kill) for n in range(4)]
        plain = client.chat.completions.create(
            model="m", messages=[{"role": "user", "content": "x"}], max_tokens=30, n=2
        )
        *texts, whole, other = await asyncio.gather(
            *streams, plain, stream(client, "other", max_tokens=50)
        )
        for text in texts + [choice.message.content for choice in whole.choices]:
            assert_counts(text, 30)
        assert whole.usage.completion_tokens == 60
        assert_counts(other, 50)
        assert await worker_pid(http, daemon) != pid


def once(do):
    """Return a callback that does something at its first call, whoever calls it first."""
    done = []

    def on_text():
        if not done:
            done.append(True)
            do()

    return on_text


async def test_a_stream_that_fails_after_its_beginning_ends_with_an_error_frame(tmp_path):
    script = FakeModel(tokens_per_s=100, crash_at=5, times=2)
    async with running_daemon(configure(tmp_path, {"m": script})) as daemon:
        async with client_of(daemon) as client:
            with pytest.raises(APIError, match="crashed twice") as caught:
                await stream(client, max_tokens=50)
            assert caught.value.code == "engine_crashed"
        async with httpx.AsyncClient(timeout=60) as http:
            assert (await http.get(f"{daemon.url}/health")).status_code == 200


async def test_a_client_that_leaves_frees_its_slot(tmp_path):
    """Fault 5 in every phase: loading, queued, in prefill, decoding, streamed or not."""
    scripts = {
        "m": SLOW,
        "cold": FakeModel(load_s=0.3),
        "wide": FakeModel(prefill_tokens_per_s=1000, context_length=8192),
    }
    config = configure(tmp_path, scripts, "[models]\nparallel = 1")
    async with (
        running_daemon(config) as daemon,
        httpx.AsyncClient(base_url=daemon.url, timeout=60) as http,
    ):
        for model, text, streamed in [
            ("cold", "hi", True),
            ("cold", "hi", False),
            ("wide", "x" * 5000, True),
            ("m", "hi", True),
            ("m", "hi", False),
        ]:
            body = {
                "model": model,
                "messages": [{"role": "user", "content": text}],
                "stream": streamed,
            }
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await http.post("/v1/chat/completions", json=body)
        async with client_of(daemon) as client:
            assert_counts(await stream(client, max_tokens=2), 2)
        await until_idle(http)


async def until_idle(http):
    """Wait until no request is left in any model."""
    while True:
        models = (await http.get("/health/status")).json()["models"]
        if not any(model["running"] + model["waiting"] for model in models):
            return


async def test_stalled_readers_do_not_slow_the_others(tmp_path):
    """Fault 6: readers that never read are put aside; a normal stream gets its tokens."""
    script = FakeModel(context_length=200_000)
    config = "[models]\ncontext_length = 200000\nparallel = 2"
    async with running_daemon(configure(tmp_path, {"m": script}, config)) as daemon:
        host, port = daemon.url.removeprefix("http://").split(":")
        body = json.dumps(
            {"model": "m", "messages": [{"role": "user", "content": "x"}], "stream": True}
        )
        stalled = []
        for _ in range(10):
            reader, writer = await asyncio.open_connection(host, int(port), limit=1024)
            writer.write(
                f"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n"
                f"content-length: {len(body)}\r\n\r\n{body}".encode()
            )
            stalled.append((reader, writer))
        async with client_of(daemon) as client:
            assert_counts(await stream(client, max_tokens=300), 300)
        for _, writer in stalled:
            writer.transport.abort()


# --- stop ----------------------------------------------------------------------------------------


async def test_term_lets_streams_finish_and_leaves_nobody_behind(tmp_path):
    """Fault 25."""
    async with running_daemon(configure(tmp_path, {"m": SLOW})) as daemon:
        children = []

        def stop():
            children.extend(psutil.Process(daemon.process.pid).children())
            daemon.process.terminate()

        async with client_of(daemon) as client:
            text = await stream(client, max_tokens=60, on_text=once(stop))
        assert_counts(text, 60)
        assert await daemon.process.wait() == 0
        gone, alive = psutil.wait_procs(children, timeout=60)
        assert gone
        assert not alive


async def test_streams_longer_than_the_drain_end_with_an_error_frame(tmp_path):
    config = configure(tmp_path, {"m": SLOW}, "[server]\ndrain_s = 0.3")
    async with running_daemon(config) as daemon, client_of(daemon) as client:
        with pytest.raises(APIError, match="stopping"):
            await stream(client, on_text=once(daemon.process.terminate))
        assert await daemon.process.wait() == 0


async def test_a_second_signal_stops_at_once(tmp_path):
    async with running_daemon(configure(tmp_path, {"m": SLOW})) as daemon:

        def stop():
            daemon.process.terminate()
            daemon.process.send_signal(signal.SIGINT)

        async with client_of(daemon) as client:
            with pytest.raises(APIError):
                await stream(client, on_text=once(stop))
        assert await daemon.process.wait() == 0


async def test_a_killed_daemon_leaves_no_worker(tmp_path):
    config = configure(tmp_path, {"m": FakeModel(tokens_per_s=50), "stopped": FakeModel()})
    for _ in range(2):
        async with running_daemon(config) as daemon, client_of(daemon) as client:
            await stream(client, max_tokens=1)
            await stream(client, "stopped", max_tokens=1)
            async with httpx.AsyncClient(timeout=60) as http:
                os.kill(await worker_pid(http, daemon, "stopped"), signal.SIGSTOP)
            children = psutil.Process(daemon.process.pid).children()
            assert len(worker_processes(daemon.process.pid)) == 2
            daemon.process.kill()
            _, alive = psutil.wait_procs(children, timeout=60)
            assert not alive


async def test_a_stop_while_models_are_being_loaded_stops(tmp_path):
    names = [f"m{number}" for number in range(6)]
    write_fake_models(tmp_path, dict.fromkeys(names, FakeModel(load_s=0.5)))
    config = write_config(tmp_path, (), f"[models]\nautoload = {json.dumps(names)}\n")
    before = psutil.Process().children()
    async with (
        running_daemon(config) as daemon,
        httpx.AsyncClient(base_url=daemon.url, timeout=60) as http,
    ):
        models = []
        while not any(model["state"] == "ready" for model in models):
            models = (await http.get("/health/status")).json()["models"]
        async with asyncio.timeout(60):
            assert await daemon.stop() == 0
    assert set(psutil.Process().children()) <= set(before)
