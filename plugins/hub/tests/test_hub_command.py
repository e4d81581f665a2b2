"""``lmx pull``, as a process of its own against a daemon."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
import threading
from asyncio.subprocess import PIPE, Process
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import httpx2
import pytest
from attrs import field, frozen

from lmx_kernel.testing.harness import running_daemon, write_config

PLUGINS = ("lmx_admin_api.plugin", "lmx_hub.plugin")
SIZE = 4_000_000


@frozen
class Outcome:
    """How a command ended."""

    status: int
    out: str
    err: str


@frozen
class Client:
    """Runs the command, and asks the daemon."""

    home: Path
    http: httpx2.AsyncClient
    started: list[Process] = field(factory=list)

    async def start(self, *arguments, stderr=PIPE):
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "lmx_kernel", "pull", *arguments),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=PIPE,
            stderr=stderr,
            env={**os.environ, "LMX_HOME": str(self.home), "COLUMNS": "200"},
            # A run in the background of a shell has Ctrl-C ignored, and would hand that on.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        self.started.append(process)
        return process

    async def pull(self, *arguments):
        process = await self.start(*arguments)
        out, err = await process.communicate()
        return Outcome(process.returncode, out.decode(), err.decode())

    async def job(self):
        """Return the newest job, as soon as there is one."""
        async with asyncio.timeout(20):
            while not (jobs := (await self.http.get("/admin/jobs")).json()["jobs"]):
                await asyncio.sleep(0.02)
        return jobs[0]


@pytest.fixture
def serve(hub, tmp_path):
    """Return a context that holds a daemon open that downloads from the hub."""

    @asynccontextmanager
    async def hold():
        options = f'[hub]\nendpoint = "{hub.url}"\nreserve_bytes = 0\n'
        config = write_config(tmp_path, PLUGINS, options)
        async with (
            running_daemon(config) as daemon,
            httpx2.AsyncClient(base_url=daemon.url, timeout=30) as http,
        ):
            client = Client(tmp_path, http)
            try:
                yield client
            finally:
                for process in client.started:
                    if process.returncode is None:
                        process.kill()
                        await process.communicate()

    return hold


@pytest.fixture
def go(hub, remote):
    """A repository whose file stops at a quarter until this is set."""
    go = threading.Event()
    data = bytes(SIZE)

    def wait(handler, file):
        handler.send_response(200)
        handler.send_header("content-length", str(SIZE))
        handler.end_headers()
        handler.wfile.write(data[: SIZE // 4])
        go.wait(60)
        handler.wfile.write(data[SIZE // 4 :])

    hub.put("acme/x", {"x-Q4_0.gguf": remote(data, faults=[wait])})
    yield go
    go.set()


async def test_a_pull_waits_for_the_end_and_tells_of_a_failure(serve, go):
    async with serve() as client:
        pulling = asyncio.create_task(client.pull("acme/x", "--quantization", "Q4_0"))
        assert (await client.job())["spec"]["quantization"] == "Q4_0"
        assert not pulling.done()
        go.set()
        pulled = await pulling
        assert (pulled.status, pulled.out) == (0, "acme/x is here (4 MiB).\n")
        again = await client.pull("acme/x", "--quantization", "Q4_0", "--json")
        assert json.loads(again.out)["result"]["bytes"] == SIZE
        failed = await client.pull("acme/missing")
        assert failed.status == 1
        assert failed.err.startswith("the hub has no model acme/missing")


async def test_what_is_pasted_is_pulled_or_answered_with_what_to_type(serve, hub, remote):
    hub.put("acme/two", {f"x-{label}.gguf": remote(bytes(1 << 20)) for label in ("Q2_K", "F16")})
    async with serve() as client:
        pulled = await client.pull("hf.co/acme/two:f16")
        assert (pulled.status, pulled.err) == (0, "")
        assert pulled.out == "acme/two is here (1 MiB).\nAsk for it as acme/two@F16.\n"
        refused = await client.pull("two:F16")
        assert refused.status == 1
        assert "type publisher/name, or publisher/name:Q4_K_M" in refused.err
        download = await client.http.post("/admin/downloads", json={"repo": "acme/two@Q2_K"})
        assert download.status_code == 202
        assert download.json()["key"] == "acme/two@main:Q2_K"


async def test_whoever_leaves_a_pull_leaves_it_running(serve, go):
    async with serve() as client:
        pulling = await client.start("acme/x")
        job = await client.job()
        pulling.send_signal(signal.SIGINT)
        _, err = await pulling.communicate()
        assert pulling.returncode == 130
        assert "It goes on in the daemon; `lmx pull acme/x` shows it again." in err.decode()
        again = (await client.http.get(f"/admin/jobs/{job['id']}")).json()
        assert again["state"] in ("queued", "running")


async def test_a_pull_that_somebody_cancels_ends(serve, go):
    async with serve() as client:
        pulling = asyncio.create_task(client.pull("acme/x"))
        job = await client.job()
        await client.http.post(f"/admin/jobs/{job['id']}/cancel")
        outcome = await pulling
        assert (outcome.status, outcome.err) == (1, "the download was cancelled\n")


@pytest.fixture
def terminal():
    """Return both ends of a terminal."""
    ours, theirs = os.openpty()
    os.set_blocking(ours, False)
    yield ours, theirs
    os.close(ours)
    os.close(theirs)


async def test_a_terminal_shows_how_far_a_download_is(serve, go, terminal):
    ours, theirs = terminal
    shown = ""
    async with serve() as client:
        pulling = await client.start("acme/x", stderr=theirs)
        async with asyncio.timeout(30):
            while not re.search(r"x-Q4_0\.gguf.*\d [kM]B of 4\.0 MB", shown):
                await asyncio.sleep(0.02)  # a terminal cannot be awaited
                with suppress(BlockingIOError):
                    shown += os.read(ours, 4096).decode()
        go.set()
        out, _ = await pulling.communicate()
    assert (pulling.returncode, out) == (0, b"acme/x is here (4 MiB).\n")


async def test_a_terminal_says_what_a_download_waits_for(serve, go, hub, terminal):
    ours, theirs = terminal
    shown = ""
    go.set()
    async with serve() as client:
        hub.errors["acme/x"] = lambda handler, _: setattr(handler, "close_connection", True)
        pulling = await client.start("acme/x", stderr=theirs)
        async with asyncio.timeout(30):
            while "waiting for the network: the hub cannot be reached" not in shown:
                await asyncio.sleep(0.02)  # a terminal cannot be awaited
                with suppress(BlockingIOError):
                    shown += os.read(ours, 4096).decode()
        assert (await client.job())["note"].startswith("waiting for the network")
        hub.errors.clear()
        out, _ = await pulling.communicate()
    assert (pulling.returncode, out) == (0, b"acme/x is here (4 MiB).\n")
