"""Sizes and framing: what is too large or ambiguous is refused, and the client can read why."""

from __future__ import annotations

import asyncio
import gzip
import json
import random

import pytest

KIB, MIB = 1024, 1024 * 1024

BOTH = pytest.mark.parametrize("scheme", ["http", "https"])
HEAD = b"POST /toy/echo HTTP/1.1\r\nHost: x\r\n"
GET = b"GET /toy/echo HTTP/1.1\r\nHost: x\r\n\r\n"


def declared(size: int) -> bytes:
    return HEAD + b"Content-Length: %d\r\n\r\n" % size


BAD_HOSTS = [
    *(
        b"",
        b"x y",
        b"x/evil",
        b"user@x",
        b"http://x",
        b"x:port",
        b"x:65536",
        b"x:1:2",
        b"x,y",
        b"x#",
    ),
    *(
        b"[::1",
        b"::1",
        b"[x]",
        b"[::1]x",
        b"[127.0.0.1]",
        b"[::1%25eth0]",
        b"\xe4.example",
        b"x?y=z",
    ),
]
GOOD_HOSTS = [b"x", b"X:1234", b"x:", b"a_b.example.", b"127.0.0.1", b"127.0.0.1:80", b"[::1]:1234"]


async def send_chunks(client, total: int) -> tuple[int, int]:
    """Send ``total`` bytes in chunks until an answer comes: return its status, and bytes sent."""
    chunk = b"4000\r\n" + b"x" * 0x4000 + b"\r\n"
    client.send(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
    answered = asyncio.ensure_future(client.answer())
    sent = 0
    while sent < total and not answered.done():
        client.send(chunk)
        sent += len(chunk)
        drained = asyncio.ensure_future(client.writer.drain())
        await asyncio.wait({answered, drained}, return_when=asyncio.FIRST_COMPLETED)
        drained.cancel()
        await asyncio.sleep(0)
    return (await answered).status, sent


@BOTH
async def test_a_body_arrives_whole(serve):
    running = await serve()
    body = random.randbytes(3 * MIB)
    answer = await running.http.post("/toy/echo", content=body)
    assert answer.json()["size"] == len(body)


async def test_a_body_at_the_limit(serve):
    running = await serve(max_body_bytes=1000)
    assert (await running.http.post("/toy/echo", content=b"x" * 1000)).status_code == 200
    assert (await running.http.post("/toy/echo", content=b"x" * 1001)).status_code == 413


@BOTH
async def test_a_gigabyte_declared_is_refused_before_the_body(serve):
    running = await serve()
    clients = [await running.connect(declared(1024 * MIB)) for _ in range(100)]
    for client in clients:
        answer = await client.answer()
        assert answer.status == 413
        assert json_of(answer)["toy_error"] == "payload_too_large"
        assert answer.headers["connection"] == "close"


@BOTH
async def test_a_gigabyte_in_chunks_is_refused_at_the_limit(serve):
    running = await serve(max_body_bytes=1 * MIB)
    answers = await asyncio.gather(
        *[send_chunks(await running.connect(), 1024 * MIB) for _ in range(10)]
    )
    assert {status for status, _ in answers} == {413}
    # What the sockets' buffers hold was sent, but not read.
    assert max(sent for _, sent in answers) < 16 * MIB


@BOTH
async def test_the_server_reads_little_more_than_the_limit(serve):
    running = await serve(max_body_bytes=1 * MIB)
    client = await running.connect(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
    for _ in range(17):  # 64 KiB over the limit
        client.send(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")
    assert (await client.answer()).status == 413


@BOTH
async def test_a_client_that_sends_all_before_it_reads_gets_the_413(serve):
    running = await serve(max_body_bytes=1 * MIB)
    client = await running.connect(declared(2 * MIB))
    for _ in range(2 * 1024):
        client.send(b"x" * KIB)
        await client.writer.drain()
    assert (await client.answer()).status == 413
    assert await client.rest() == b""


async def test_all_bodies_in_flight_share_one_budget(serve, until):
    running = await serve(max_bodies_bytes=100 * KIB)
    first = await running.connect(declared(90 * KIB) + b"x" * 89 * KIB)
    await until(lambda: running.shell._bodies.used_bytes == 89 * KIB)
    answer = await running.http.post("/toy/echo", content=b"x" * 20 * KIB)
    assert (answer.status_code, answer.json()["toy_error"]) == (503, "unavailable")
    assert answer.headers["retry-after"] == "1"
    assert answer.headers["x-should-retry"] == "true"
    first.send(b"x" * KIB)
    assert (await first.answer()).status == 200
    assert (await running.http.post("/toy/echo", content=b"x" * 20 * KIB)).status_code == 200


async def test_bodies_of_undeclared_length_get_less(serve, until):
    running = await serve(max_body_bytes=10 * KIB, max_bodies_bytes=80 * KIB)
    chunked = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
    await running.connect(chunked + b"2400\r\n" + b"x" * 9 * KIB)
    await until(lambda: running.shell._bodies.used_bytes == 9 * KIB)
    other = await running.connect(chunked + b"800\r\n" + b"x" * 2 * KIB)
    assert (await other.answer()).status == 503
    assert (await running.http.post("/toy/echo", content=b"x" * 2 * KIB)).status_code == 200


async def test_the_budget_is_given_back(serve):
    running = await serve(max_body_bytes=100 * KIB)
    (await running.connect(declared(90 * KIB) + b"x" * KIB)).drop()
    assert (await send_chunks(await running.connect(), MIB))[0] == 413
    await running.http.post("/toy/fail/bug", content=b"x" * KIB)
    await running.http.post("/toy/echo", content=b"x" * KIB)
    await running.server.stop()
    assert running.shell._bodies.used_bytes == 0


async def test_expect_continue(serve):
    running = await serve(max_body_bytes=10)
    client = await running.connect(HEAD + b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\n")
    assert (await client.answer()).status == 100
    client.send(b"{}")
    assert json_of(await client.answer())["size"] == 2


async def test_expect_continue_is_refused_at_once(serve):
    running = await serve(max_body_bytes=10)
    client = await running.connect(HEAD + b"Expect: 100-continue\r\nContent-Length: 11\r\n\r\n")
    assert (await client.answer()).status == 413


@pytest.mark.parametrize("line_ends", [b"", b"\r\n\r\n"])
async def test_a_flood_of_headers(serve, line_ends):
    running = await serve()
    client = await running.connect(GET[:-2] + b"X-Big: " + b"x" * 300 * KIB + line_ends)
    answer = await client.answer()
    assert answer.status == 431
    assert json_of(answer)["toy_error"] == "headers_too_large"
    assert answer.headers["x-request-id"]
    assert await client.rest() == b""


async def test_headers_at_the_limit(serve):
    running = await serve(max_header_bytes=2048)
    padding = 2048 - len(GET) - len(b"X: \r\n")
    for size, status in [(padding, 200), (padding + 1, 431)]:
        client = await running.connect(GET[:-2] + b"X: " + b"x" * size + b"\r\n\r\n")
        assert (await client.answer()).status == status


async def test_a_flood_of_trailers(serve):
    running = await serve(body_timeout_s=5)
    client = await running.connect(HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\nX: ")
    client.send(b"x" * 300 * KIB)
    assert await client.rest() == b""


@pytest.mark.parametrize(
    "request_",
    [
        HEAD + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}",
        HEAD + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
        HEAD + b"Content-Length: 2, 2\r\n\r\n{}",
        HEAD + b"Content-Length: +2\r\n\r\n{}",
        HEAD + b"Content-Length: 99999999999999999999999\r\n\r\n{}",
        HEAD + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n0\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        HEAD + b"Transfer-Encoding: gzip\r\n\r\n0\r\n\r\n",
        HEAD + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        b"POST /toy/echo HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET /toy/echo HTTP/1.1\r\n\r\n",
        b"GET /toy/echo HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n",
        b"GET /toy/echo HTTP/1.1\r\nHost: x\r\n X: folded\r\n\r\n",
        b"GET /toy/echo HTTP/3.7\r\nHost: x\r\n\r\n",
        b"GET /toy/echo\r\n\r\n",
        b"GET /toy/\xff HTTP/1.1\r\nHost: x\r\n\r\n",
        *(b"GET /toy/echo HTTP/1.1\r\nHost: %s\r\n\r\n" % host for host in BAD_HOSTS),
        b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"\x00" * 100,
        b"nonsense\r\n\r\n",
    ],
)
async def test_bad_framing_is_refused_and_the_connection_closed(serve, request_):
    running = await serve()
    client = await running.connect(request_)
    answer = await client.answer()
    assert answer.status == 400
    assert answer.headers["connection"] == "close"
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-should-retry"] == "false"
    assert json.loads(answer.body)
    assert await client.rest() == b""


@pytest.mark.parametrize("host", GOOD_HOSTS)
async def test_a_host_is_a_name_or_an_address_with_or_without_a_port(serve, host):
    running = await serve(allowed_hosts=("x", "a_b.example."))
    client = await running.connect(b"GET /toy/echo HTTP/1.1\r\nHost: %s\r\n\r\n" % host)
    assert (await client.answer()).status == 200


async def test_a_bad_host_is_told_in_the_shape_of_the_surface(serve):
    running = await serve()
    client = await running.connect(b"GET /toy/echo HTTP/1.1\r\nHost: x/evil\r\n\r\n")
    error = json_of(await client.answer())
    assert error["toy_error"] == "invalid_request"
    assert "host" in error["text"]


@pytest.mark.parametrize("coding", ["gzip", "br", "deflate, gzip", "zstd"])
@pytest.mark.parametrize("kind", ["declared", "chunked"])
async def test_a_compressed_body_is_told_so(serve, coding, kind):
    running = await serve()
    body = gzip.compress(b"{}")
    content = body if kind == "declared" else one_part(body)
    headers = {"content-encoding": coding}
    answer = await running.http.post("/toy/echo", content=content, headers=headers)
    assert answer.status_code == 415
    assert answer.json()["toy_error"] == "unsupported_media_type"
    assert f"content-encoding {coding}" in answer.json()["text"]


async def one_part(body):
    yield body


@pytest.mark.parametrize("coding", ["identity", "Identity"])
async def test_a_body_that_is_said_to_be_as_it_is_is_taken(serve, coding):
    running = await serve()
    headers = {"content-encoding": coding}
    answer = await running.http.post("/toy/echo", content=b"{}", headers=headers)
    assert answer.json()["size"] == 2


async def test_garbage_never_gets_a_5xx(serve):
    running = await serve(header_timeout_s=0.2, body_timeout_s=0.2)
    dice = random.Random(7)
    seeds = [GET, declared(2) + b"{}", HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"]

    async def attempt(data):
        client = await running.connect(data)
        client.writer.write_eof()
        received = await client.rest()
        client.drop()
        return received

    for _ in range(10):
        mutants = []
        for _ in range(50):
            data = bytearray(dice.choice(seeds))
            for _ in range(dice.randint(1, 4)):
                data[dice.randrange(len(data))] = dice.randrange(256)
            mutants.append(bytes(data))
        for received in await asyncio.gather(*map(attempt, mutants)):
            assert not received.startswith(b"HTTP/1.1 5"), received
    assert (await running.http.get("/health")).status_code == 200


@BOTH
async def test_an_upgrade_is_ignored_and_the_body_kept(serve):
    running = await serve()
    client = await running.connect(
        HEAD
        + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"
        b"Content-Length: 7\r\n\r\n{"
    )
    client.send(b'"a":1}')
    assert json_of(await client.answer())["size"] == 7
    client.send(GET)
    assert (await client.answer()).body == b'{"ok":true}'


@BOTH
async def test_too_many_connections(serve, until):
    running = await serve(max_connections=2)
    first, second = await running.connect(GET), await running.connect(GET)
    await first.answer()
    await second.answer()
    third = await running.connect(GET)
    answer = await third.answer()
    assert answer.status == 503
    assert answer.headers["retry-after"] == "1"
    assert answer.headers["connection"] == "close"
    assert await third.rest() == b""
    first.drop()
    third.drop()
    await until(lambda: len(running.server._connections.connections) == 1)
    assert (await (await running.connect(GET)).answer()).status == 200


@BOTH
async def test_what_is_pipelined_is_dropped(serve):
    running = await serve()
    client = await running.connect(GET + GET + GET)
    assert (await client.answer()).headers["connection"] == "close"
    assert await client.rest() == b""


def json_of(answer):
    return json.loads(answer.body)
