"""Deadlines, clients that leave, readers that stall, and the end of the server."""

from __future__ import annotations

import asyncio
import time

import pytest
import structlog

from lmx_kernel.http.port import PortInUseError
from lmx_kernel.http.server import HttpServer
from lmx_kernel.http.settings import ServerSettings

pytestmark = pytest.mark.parametrize("scheme", ["http", "https"])
GET = b"GET /toy/echo HTTP/1.1\r\nHost: x\r\n\r\n"
HEAD = b"POST /toy/echo HTTP/1.1\r\nHost: x\r\n"
STREAM = b"GET /toy/slow HTTP/1.1\r\nHost: x\r\n\r\n"
WAIT = b"POST /toy/slow HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
SOON_S = 8  # on a busy machine; every deadline that is not set by a test is longer
FLOOD = b"GET /toy/flood HTTP/1.1\r\nHost: x\r\n\r\n"


async def drip(client, interval_s=0.02):
    while not client.writer.is_closing():
        client.send(b"x")
        await asyncio.sleep(interval_s)


@pytest.mark.parametrize("half", [b"", b"GET /toy/echo HTTP/1.1\r\nHost: ", b"\r\n", b"G"])
async def test_half_headers_are_closed_in_time(serve, half):
    running = await serve(header_timeout_s=0.2)
    begun = time.perf_counter()
    client = await running.connect(half)
    received = await asyncio.wait_for(client.rest(), SOON_S)
    assert time.perf_counter() - begun > 0.15
    assert received.startswith(b"HTTP/1.1 408 ") == bool(half)


async def test_half_a_body_is_answered_408(serve):
    running = await serve(body_timeout_s=0.2)
    client = await running.connect(HEAD + b"Content-Length: 10\r\n\r\nhalf")
    answer = await client.answer()
    assert answer.status == 408
    assert b"request_timeout" in answer.body
    assert answer.headers["connection"] == "close"


@pytest.mark.parametrize("half", [HEAD + b"X: ", HEAD + b"Content-Length: 1000000\r\n\r\n"])
async def test_dripping_does_not_help(serve, half):
    running = await serve(header_timeout_s=0.3, body_timeout_s=0.3)
    client = await running.connect(half)
    dripping = asyncio.ensure_future(drip(client))
    answer = await asyncio.wait_for(client.answer(), SOON_S)
    dripping.cancel()
    assert answer.status == 408


async def test_the_second_requests_headers_have_a_deadline_too(serve):
    running = await serve(header_timeout_s=0.5)
    client = await running.connect(GET)
    await client.answer()
    client.send(GET[:20])
    assert (await client.answer()).status == 408


async def test_line_ends_do_not_keep_a_connection(serve):
    running = await serve(header_timeout_s=0.5)
    client = await running.connect(GET)
    await client.answer()
    client.send(b"\r\n")
    assert (await asyncio.wait_for(client.rest(), SOON_S)).startswith(b"HTTP/1.1 408 ")


async def test_an_idle_connection_is_closed(serve):
    running = await serve(keep_alive_s=0.1)
    client = await running.connect(GET)
    await client.answer()
    assert await asyncio.wait_for(client.rest(), SOON_S) == b""


async def test_a_hundred_half_open_connections_disturb_nobody(serve):
    running = await serve(header_timeout_s=0.5, body_timeout_s=0.8)
    halves = [HEAD, HEAD + b"Content-Length: 100\r\n\r\n{"]
    clients = [await running.connect(halves[i % 2]) for i in range(100)]
    dripping = [asyncio.ensure_future(drip(client, 0.1)) for client in clients[::2]]
    closed = asyncio.gather(*map(rest_of, clients))
    for _ in range(20):
        assert (await running.http.get("/health")).status_code == 200
    answers = await closed
    for task in dripping:
        task.cancel()
    assert all(b" 408 " in answer[:20] for answer in answers)


async def rest_of(client):
    """Read until the server closes, and leave then."""
    received = await client.rest()
    client.drop()
    return received


async def test_leaving_cancels_a_handler(serve):
    running = await serve()
    client = await running.connect(WAIT)
    await running.toy.slow.started.wait()
    client.drop()
    await asyncio.wait_for(running.toy.slow.cancelled.wait(), SOON_S)


async def test_leaving_cancels_a_stream(serve):
    running = await serve()
    client = await running.connect(STREAM)
    await running.toy.slow.started.wait()
    with structlog.testing.capture_logs() as logs:
        client.writer.close()
        await asyncio.wait_for(running.toy.slow.cancelled.wait(), SOON_S)
        await running.server.stop()
    (line,) = [line for line in logs if line["event"] == "request"]
    assert (line["status"], line["cause"]) == (200, "client_left")
    assert not [line for line in logs if line["log_level"] != "info"]


async def test_leaving_while_the_body_is_awaited(serve, until):
    running = await serve()
    with structlog.testing.capture_logs() as logs:
        client = await running.connect(HEAD + b"Content-Length: 10\r\n\r\nhalf")
        await until(lambda: running.server._connections.tasks)
        client.drop()
        await until(lambda: not running.server._connections.tasks)
    assert [line["status"] for line in logs] == [499]


async def test_leaving_after_a_pipelined_request(serve):
    running = await serve()
    client = await running.connect(STREAM + GET)
    await running.toy.slow.started.wait()
    client.drop()
    await asyncio.wait_for(running.toy.slow.cancelled.wait(), SOON_S)


async def test_a_stalled_reader_is_cut(serve):
    running = await serve(write_timeout_s=0.3)
    client = await running.connect()
    client.writer.transport.pause_reading()
    client.send(FLOOD)
    with structlog.testing.capture_logs() as logs:
        await asyncio.wait_for(running.toy.flood.ended.wait(), SOON_S)
        await running.server.stop()
    assert running.toy.flood.sent_bytes < 16 * 1024 * 1024
    (line,) = [line for line in logs if line["event"] == "request"]
    assert line["cause"] == "reader_stalled"


async def test_a_slow_reader_is_not_cut(serve):
    running = await serve(write_timeout_s=1)
    client = await running.connect(FLOOD)
    end = time.perf_counter() + 2.2
    while time.perf_counter() < end:
        assert await client.reader.read(1024 * 1024)
        await asyncio.sleep(0.01)
    assert not running.toy.flood.ended.is_set()


async def test_a_whole_answer_that_nobody_reads_is_cut(serve):
    running = await serve(write_timeout_s=0.2, keep_alive_s=0.1)
    client = await running.connect()
    client.writer.transport.pause_reading()
    for _ in range(100):
        client.send(GET)
        await asyncio.sleep(0)
    async with asyncio.timeout(SOON_S):
        await running.server._connections.none_open.wait()


async def test_drain_lets_a_stream_finish_and_takes_nothing_new(serve):
    running = await serve()
    client, idle = await running.connect(STREAM), await running.connect(GET)
    await idle.answer()
    await running.toy.slow.started.wait()
    draining = asyncio.ensure_future(running.server.drain(60))
    assert await idle.rest() == b""
    with pytest.raises(ConnectionRefusedError):
        await running.connect()
    assert not draining.done()
    running.toy.slow.finish.set()
    assert await draining
    assert (await client.rest()).endswith(b"4\r\nlast\r\n0\r\n\r\n")


async def test_drain_gives_up_in_time(serve):
    running = await serve()
    await running.connect(STREAM)
    await running.toy.slow.started.wait()
    assert not await running.server.drain(0.05)
    await running.server.stop()
    assert running.toy.slow.cancelled.is_set()
    assert not running.server._connections.tasks


async def test_drain_may_be_asked_again(serve):
    running = await serve()
    client = await running.connect(STREAM)
    await running.toy.slow.started.wait()
    assert not await running.server.drain(0.05)
    running.toy.slow.finish.set()
    assert await running.server.drain(60)
    assert (await client.rest()).endswith(b"last\r\n0\r\n\r\n")


async def test_a_draining_server_refuses_requests(serve):
    running = await serve()
    client = await running.connect(GET)
    await client.answer()
    running.shell.is_draining = True
    client.send(GET)
    answer = await client.answer()
    assert (answer.status, answer.headers["connection"]) == (503, "close")
    assert answer.headers["retry-after"] == "5"
    assert b"unavailable" in answer.body


async def test_stop_in_any_state(serve):
    running = await serve()
    server = HttpServer(ServerSettings(port=0), running.shell)
    await server.stop()
    server.bind()
    await server.stop()
    await running.server.stop()
    await running.server.stop()


async def test_a_busy_port_names_its_holder(serve):
    running = await serve()
    other = HttpServer(ServerSettings(port=running.server.port), running.shell)
    with pytest.raises(PortInUseError, match=rf"Port {running.server.port} is in use by process"):
        other.bind()


async def test_the_port_is_free_again_at_once(serve):
    running = await serve()
    client = await running.connect(GET)
    await client.answer()
    await running.server.stop()
    again = HttpServer(ServerSettings(port=running.server.port), running.shell)
    again.bind()
    await again.stop()


@pytest.mark.parametrize("host", ["::1", "::", "0.0.0.0", "localhost"])
async def test_hosts(serve, host):
    running = await serve(host=host)
    client = await asyncio.open_connection(
        "::1" if host == "::1" else "127.0.0.1", running.server.port, ssl=running.tls
    )
    client[1].write(GET)
    assert (await client[0].readline()).startswith(b"HTTP/1.1 200 ")
    client[1].close()
    await client[1].wait_closed()
