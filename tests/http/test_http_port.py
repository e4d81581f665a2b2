"""A port that is in use (fault 26): by whom, and what `lmx serve` makes of it."""

from __future__ import annotations

import asyncio
import os
import sys
from asyncio.subprocess import PIPE
from contextlib import asynccontextmanager

import pytest

from lmx_kernel.testing.harness import running_daemon, write_config


@asynccontextmanager
async def holder(answer):
    """Hold a port in this process; ``answer`` gets a writer for each connection."""

    async def serve(reader, writer):
        try:
            await answer(writer)
        except ConnectionError:
            pass  # whoever asked has enough
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def is_another(writer):
    body = b'{"name":"Other","version":"1"}'
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))


async def is_sick(writer):
    body = b'{"name":"LMX","version":"1"}'
    writer.write(b"HTTP/1.1 503 Busy\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))


async def is_silent(writer):
    await writer.wait_closed()


async def talks_for_ever(writer):
    while True:
        writer.write(b"\xff" * 1000)
        await writer.drain()


async def drips(writer):
    while True:
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.01)


async def serve_at(port, folder):
    """Try to serve there; return the exit status and what was said."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "lmx_kernel", "serve", "--config", str(write_config(folder))),
        stdout=PIPE,
        stderr=PIPE,
        env={**os.environ, "LMX_HOME": str(folder), "LMX_SERVER_PORT": str(port)},
    )
    out, err = await process.communicate()
    said = (out + err).decode()
    assert f"Port {port} is in use by process " in said
    assert "Traceback" not in said
    return process.returncode, said


@pytest.mark.parametrize("answer", [is_another, is_sick, is_silent, talks_for_ever, drips])
async def test_a_port_that_something_else_holds_stops_the_start(tmp_path, answer):
    async with holder(answer) as port:
        status, said = await serve_at(port, tmp_path)
    assert status == 98
    assert f"process {os.getpid()} (" in said


async def claims_to_be_ours(writer):
    body = b'{"name":"LMX","version":"1"}'
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))


async def test_a_greeting_is_no_proof_of_being_this_homes_daemon(tmp_path):
    async with holder(claims_to_be_ours) as port:
        status, said = await serve_at(port, tmp_path)
    assert status == 98
    assert "LMX of another home" in said


async def test_a_port_of_another_homes_daemon_says_so(tmp_path):
    folder = tmp_path / "other"
    folder.mkdir()
    async with running_daemon(write_config(tmp_path)) as daemon:
        status, said = await serve_at(daemon.url.rpartition(":")[2], folder)
        assert status == 98
        assert f"process {daemon.process.pid} (" in said
        assert "LMX of another home" in said
        assert await daemon.stop() == 0
